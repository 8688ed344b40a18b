/* bench_wire.c: what the codecs of gateway/wire cost on one core: TLS records and handshakes,
 * WebSocket frames, HTTP upgrade requests, and the memory of an idle TLS connection. `--smoke` runs
 * each for a moment. One line per figure: name, value, unit. */
#include "gateway/wire/http.h"
#include "gateway/wire/tls.h"
#include "gateway/wire/websocket.h"

#include "core/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define WIRE_BYTES 65536 /* 16 of the largest record used here */

struct side {
    struct tls *tls;
    struct tls_engine *engine;
    struct buffer out;
    struct buffer plaintext;
    uint64_t spent_ns; /* in tls_create and tls_receive */
};

struct bench {
    struct tls_context *server_context;
    struct tls_context *client_context;
    struct side server;
    struct side client;
    uint8_t session[8192];
    size_t session_size;
    uint64_t duration_ns; /* per figure */
};

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static void report(const char *name, double value, const char *unit)
{
    printf("%-36s %12.1f %s\n", name, value, unit);
}

static void must(enum err err)
{
    if (err != OK) {
        fprintf(stderr, "bench_wire: %s\n", err_name(err));
        exit(1);
    }
}

static void entropy(void *context, void *out, size_t size)
{
    (void)context;
    memset(out, 0x5a, size);
}

/* ---- TLS */

static void side_init(struct side *side)
{
    must(tls_engine_create(&side->engine));
    side->out = buffer_of(malloc(WIRE_BYTES), WIRE_BYTES);
    side->plaintext = buffer_of(malloc(WIRE_BYTES), WIRE_BYTES);
    CHECK(side->out.data != NULL && side->plaintext.data != NULL);
}

static void contexts_make(struct bench *b)
{
    char directory[] = "/tmp/bench_wire.XXXXXX", certificate[64], key[64];
    const char *explanation;
    CHECK(mkdtemp(directory) != NULL);
    snprintf(certificate, sizeof certificate, "%s/c.pem", directory);
    snprintf(key, sizeof key, "%s/k.pem", directory);
    must(tls_make_certificate(certificate, key, "localhost", 30, (uint64_t)time(NULL) * 1000));
    struct tls_server_options options = {certificate, key, {1}};
    must(tls_context_create_server(&b->server_context, &options, &explanation));
    must(tls_context_create_client(&b->client_context, NULL, &explanation));
    unlink(certificate);
    unlink(key);
    rmdir(directory);
}

static void deliver(struct side *source, struct side *target)
{
    struct bytes input = buffer_bytes(&source->out);
    uint64_t start = now_ns();
    must(tls_receive(target->tls, target->engine, &input, &target->plaintext, &target->out));
    target->spent_ns += now_ns() - start;
    source->out.size = 0;
}

/* handshake: leaves both sides established, the ticket delivered. */
static void handshake(struct bench *b, struct bytes session)
{
    uint64_t start = now_ns();
    must(tls_create(&b->server.tls, b->server_context));
    b->server.spent_ns += now_ns() - start;
    must(tls_create(&b->client.tls, b->client_context));
    must(tls_client_start(b->client.tls, b->client.engine, &b->client.out, "localhost", session));
    while (b->client.out.size != 0 || b->server.out.size != 0) {
        if (b->client.out.size != 0)
            deliver(&b->client, &b->server);
        if (b->server.out.size != 0)
            deliver(&b->server, &b->client);
    }
    CHECK(tls_established(b->server.tls) && tls_established(b->client.tls));
}

static void hang_up(struct bench *b)
{
    tls_destroy(b->server.tls);
    tls_destroy(b->client.tls);
}

static void bench_handshakes(struct bench *b, bool resumed)
{
    uint64_t start = now_ns(), count = 0;
    b->server.spent_ns = 0;
    while (now_ns() - start < b->duration_ns || count < 3) {
        handshake(b, bytes_of(b->session, resumed ? b->session_size : 0));
        CHECK(tls_resumed(b->server.tls) == (resumed && b->session_size != 0));
        struct buffer ticket = buffer_of(b->session, sizeof b->session);
        must(tls_client_session(b->client.tls, &ticket));
        b->session_size = ticket.size;
        hang_up(b);
        count++;
    }
    double both_s = (double)(now_ns() - start) / 1e9, server_s = (double)b->server.spent_ns / 1e9;
    report(resumed ? "tls resumed handshakes, server" : "tls full handshakes, server",
           (double)count / server_s, "per s and core");
    report(resumed ? "tls resumed handshakes, both ends" : "tls full handshakes, both ends",
           (double)count / both_s, "per s and core");
}

static void bench_records(struct bench *b, size_t size)
{
    static const uint8_t text[16384];
    uint64_t seal_ns = 0, open_ns = 0, count = 0, begin = now_ns();
    handshake(b, (struct bytes){NULL, 0});
    while (seal_ns + open_ns < b->duration_ns && now_ns() - begin < 2 * b->duration_ns) {
        uint64_t start = now_ns();
        for (int i = 0; i < 16; i++) { /* 16 small records a turn, or the clock is measured */
            struct bytes input = bytes_of(text, size);
            must(tls_send(b->server.tls, b->server.engine, &input, &b->server.out));
        }
        uint64_t middle = now_ns();
        struct bytes sealed = buffer_bytes(&b->server.out);
        b->client.plaintext.size = 0;
        must(tls_receive(b->client.tls, b->client.engine, &sealed, &b->client.plaintext,
                         &b->client.out));
        open_ns += now_ns() - middle;
        seal_ns += middle - start;
        b->server.out.size = 0;
        count += 16;
    }
    char name[64];
    snprintf(name, sizeof name, "tls seal %zu B", size);
    report(name, (double)seal_ns / (double)count, "ns per record");
    snprintf(name, sizeof name, "tls open %zu B", size);
    report(name, (double)open_ns / (double)count, "ns per record");
    hang_up(b);
}

static void bench_idle_memory(struct bench *b)
{
    enum { COUNT = 200 };
    struct tls *idle[COUNT];
    int64_t created = 0, server = 0, client = 0;
    for (size_t i = 0; i < COUNT; i++) {
        int64_t before = memory_bytes(MEMORY_TLS);
        must(tls_create(&b->server.tls, b->server_context));
        created += memory_bytes(MEMORY_TLS) - before;
        tls_destroy(b->server.tls);
        before = memory_bytes(MEMORY_TLS);
        handshake(b, (struct bytes){NULL, 0});
        struct buffer ticket = buffer_of(b->session, sizeof b->session);
        must(tls_client_session(b->client.tls, &ticket));
        int64_t both = memory_bytes(MEMORY_TLS);
        tls_destroy(b->client.tls);
        server += memory_bytes(MEMORY_TLS) - before;
        client += both - memory_bytes(MEMORY_TLS);
        idle[i] = b->server.tls;
    }
    report("tls server before the handshake", (double)created / COUNT, "bytes");
    report("tls server idle, tickets flushed", (double)server / COUNT, "bytes");
    report("tls client idle, ticket taken", (double)client / COUNT, "bytes");
    for (size_t i = 0; i < COUNT; i++)
        tls_destroy(idle[i]);
}

/* ---- WebSocket and HTTP */

static void bench_websocket(struct bench *b, size_t size)
{
    static const uint8_t text[16384];
    static const struct websocket_limits server = {65536, 64, false}, client = {65536, 64, true};
    struct websocket_engine *engine;
    must(websocket_engine_create(&engine, entropy, NULL));
    struct buffer *out = &b->client.out;
    uint64_t start = now_ns(), count = 0;
    for (; now_ns() - start < b->duration_ns; count += 16) {
        for (int i = 0; i < 16; i++) {
            out->size = 0;
            must(websocket_frame(out, engine, &server, WEBSOCKET_BINARY, bytes_of(text, size)));
        }
    }
    char name[64];
    snprintf(name, sizeof name, "websocket frame %zu B", size);
    report(name, (double)(now_ns() - start) / (double)count, "ns per message");
    out->size = 0;
    must(websocket_frame(out, engine, &client, WEBSOCKET_BINARY, bytes_of(text, size)));
    struct websocket w = {0};
    start = now_ns();
    for (count = 0; now_ns() - start < b->duration_ns; count += 16) {
        for (int i = 0; i < 16; i++) {
            struct bytes input = buffer_bytes(out);
            struct websocket_message m;
            CHECK(websocket_receive(&w, engine, &server, &input, &m) == WEBSOCKET_MESSAGE);
        }
    }
    snprintf(name, sizeof name, "websocket receive %zu B", size);
    report(name, (double)(now_ns() - start) / (double)count, "ns per message");
    out->size = 0;
    websocket_engine_destroy(engine);
}

static void bench_http(struct bench *b)
{
    static const char upgrade[] = "GET /connect HTTP/1.1\r\nHost: localhost:8443\r\n"
                                  "Upgrade: websocket\r\nConnection: Upgrade\r\n"
                                  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                                  "Sec-WebSocket-Version: 13\r\nOrigin: https://localhost:8443\r\n"
                                  "Sec-WebSocket-Protocol: roost.v1.proto\r\n\r\n";
    static const struct http_limits limits = {8192, 64, 65536};
    uint64_t start = now_ns(), count = 0;
    for (; now_ns() - start < b->duration_ns; count++) {
        struct http_reader *reader;
        struct http_request request;
        char accept[29];
        must(http_reader_create(&reader, &limits, false));
        struct bytes input = bytes_of(upgrade, sizeof upgrade - 1);
        must(http_receive(reader, &input, &request));
        CHECK(request.upgrade);
        const struct http_field *key = http_field_find(&request, "Sec-WebSocket-Key");
        CHECK(key != NULL);
        must(websocket_accept_key(accept, key->value));
        http_reader_destroy(reader);
    }
    report("http upgrade request", (double)(now_ns() - start) / (double)count, "ns per request");
}

int main(int argc, char **argv)
{
    bool smoke = argc > 1 && strcmp(argv[1], "--smoke") == 0;
    struct bench b = {.duration_ns = smoke ? 20 * NS_PER_MS : NS_PER_S};
    printf("%s\n", tls_library());
    contexts_make(&b);
    side_init(&b.server);
    side_init(&b.client);
    bench_idle_memory(&b);
    bench_handshakes(&b, false);
    bench_handshakes(&b, true);
    static const size_t sizes[] = {128, 512, 1350};
    for (size_t i = 0; i < COUNT_OF(sizes); i++)
        bench_records(&b, sizes[i]);
    for (size_t i = 0; i < COUNT_OF(sizes); i++)
        bench_websocket(&b, sizes[i]);
    bench_http(&b);
    return 0;
}
