/* bench_protocol.c: what the codec costs per message: a send and a push with a 178-byte payload, a
 * history of 64, in both encodings; and what a token costs to verify.
 *
 *   bench_protocol [--smoke]     --smoke: 1/50 of the rounds */
#include "gateway/wire/json_text.h"
#include "gateway/wire/jwt.h"
#include "gateway/wire/protocol.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { PAYLOAD_BYTES = 178, HISTORY = 64, ROUNDS = 1000000, OUT_BYTES = 1 << 17 };

/* now_ns: CPU time, so that a busy machine does not count. */
static uint64_t now_ns(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

/* escape: the compiler must not drop work on p. */
static void escape(const void *p)
{
    __asm__ volatile("" ::"r"(p) : "memory");
}

static void must(enum err err)
{
    if (err == OK)
        return;
    printf("%s\n", err_name(err));
    exit(1);
}

struct sample {
    const char *name;
    bool from_server;
    struct event event;
    struct request request;
};

struct bench {
    uint64_t rounds;
    uint8_t payload[PAYLOAD_BYTES];
    struct message messages[HISTORY];
    struct event events[2];
    struct request requests[2];
    uint8_t element[OUT_BYTES];
    uint8_t frame[OUT_BYTES];
    uint8_t scratch[PROTOCOL_SCRATCH_BYTES(OUT_BYTES)];
};

static void encode_one(struct buffer *out, const struct sample *sample, enum encoding encoding)
{
    must(sample->from_server ? protocol_encode_event(out, &sample->event, encoding)
                             : protocol_encode_request(out, &sample->request, encoding));
    escape(out->data);
}

static void decode_one(struct bench *b, struct bytes frame, const struct sample *sample,
                       enum encoding encoding)
{
    struct buffer scratch = buffer_of(b->scratch, sizeof b->scratch);
    size_t count = 2;

    if (sample->from_server)
        must(protocol_decode_events(b->events, &count, frame, encoding, &scratch));
    else
        must(protocol_decode_requests(b->requests, &count, frame, encoding, &scratch));
    escape(b);
}

static void run(struct bench *b, const struct sample *sample, enum encoding encoding,
                uint64_t rounds)
{
    struct buffer element;
    struct buffer frame = buffer_of(b->frame, sizeof b->frame);

    uint64_t start = now_ns();
    for (uint64_t i = 0; i < rounds; i++) {
        element = buffer_of(b->element, sizeof b->element);
        encode_one(&element, sample, encoding);
    }
    double encode_ns = (double)(now_ns() - start) / (double)rounds;
    must(protocol_frame_open(&frame, encoding, sample->from_server));
    must(protocol_frame_element(&frame, buffer_bytes(&element), encoding, true));
    must(protocol_frame_close(&frame, encoding));
    start = now_ns();
    for (uint64_t i = 0; i < rounds; i++)
        decode_one(b, buffer_bytes(&frame), sample, encoding);
    double decode_ns = (double)(now_ns() - start) / (double)rounds;
    printf("%-8s %-6s %6zu bytes  encode %8.0f ns  decode %8.0f ns\n", sample->name,
           encoding == ENCODING_PROTO ? "binary" : "json", frame.size, encode_ns, decode_ns);
}

static struct message make_message(struct bench *b, uint64_t seq)
{
    return (struct message){.conversation = {0x1234567812345678, 0x2345678923456789},
                            .seq = seq,
                            .message_id = {{1, 2, 3, 4, 5, 6, 0x77, 8, 0x89}},
                            .sender = {0x1234567812345678},
                            .sender_device = {3},
                            .time_ms = 1790000000000,
                            .payload = bytes_of(b->payload, sizeof b->payload)};
}

static void run_tokens(uint64_t rounds)
{
    static const uint8_t secret[JWT_KEY_BYTES] = {1};
    uint8_t memory[512];
    struct buffer token = buffer_of(memory, sizeof memory);
    struct jwt_signer signer;
    struct jwt_claims claims = {.user = {1}, .device = {1}, .expires_ms = 1790000900000};

    jwt_signer_init(&signer, secret);
    must(jwt_sign(&token, &signer, &claims, 1790000000000));
    uint64_t start = now_ns();
    for (uint64_t i = 0; i < rounds; i++) {
        must(jwt_verify(&claims, buffer_bytes(&token), &signer, NULL, 1790000000000));
        escape(&claims);
    }
    printf("%-8s %-6s %6zu bytes  verify %8.0f ns\n", "token", "eddsa", token.size,
           (double)(now_ns() - start) / (double)rounds);
}

int main(int argc, char **argv)
{
    static struct bench b;
    static struct sample samples[3] = {{.name = "send"},
                                       {.name = "message", .from_server = true},
                                       {.name = "history", .from_server = true}};
    bool smoke = argc > 1 && strcmp(argv[1], "--smoke") == 0;
    struct buffer payload = buffer_of(b.payload, sizeof b.payload);
    uint8_t content[PAYLOAD_BYTES - 3]; /* tag and two bytes of length before it */

    json_text_init(1);
    memset(content, 'x', sizeof content);
    must(protocol_payload_text(&payload, bytes_of(content, sizeof content)));
    for (size_t i = 0; i < HISTORY; i++)
        b.messages[i] = make_message(&b, i + 1);
    samples[0].request = (struct request){.id = 55, .kind = REQUEST_SEND};
    samples[0].request.send = (struct send){.has_message_id = true,
                                            .message_id = b.messages[0].message_id,
                                            .to_user = {0x2345678923456789},
                                            .payload = buffer_bytes(&payload)};
    samples[1].event = (struct event){.kind = EVENT_MESSAGE, .message = b.messages[0]};
    samples[2].event = (struct event){.id = 5, .kind = EVENT_HISTORY};
    samples[2].event.history = (struct history){.conversation = b.messages[0].conversation,
                                                .messages = b.messages,
                                                .message_count = HISTORY,
                                                .last_seq = HISTORY};
    b.rounds = smoke ? ROUNDS / 50 : ROUNDS;
    for (size_t i = 0; i < COUNT_OF(samples); i++) {
        uint64_t rounds = i == 2 ? b.rounds / HISTORY : b.rounds;
        run(&b, &samples[i], ENCODING_PROTO, rounds);
        run(&b, &samples[i], ENCODING_JSON, rounds / 10);
    }
    run_tokens(b.rounds / 100);
    return 0;
}
