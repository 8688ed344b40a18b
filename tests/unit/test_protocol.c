/* test_protocol.c: both encodings of every message, exact bytes, malformed input, limits. The
 * examples of PROTOCOL.md: test_protocol_document.c; against protoc: tests/tidy/check_schema. */
#include "gateway/wire/protocol.h"

#include "core/memory.h"
#include "core/text.h"
#include "gateway/wire/json_text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { ELEMENTS = 8, BYTES = 1 << 18 };

static const enum encoding encodings[] = {ENCODING_PROTO, ENCODING_JSON};

/* A frame decoded, whichever side it is from. */
struct decoded {
    struct request requests[ELEMENTS];
    struct event events[ELEMENTS];
    size_t count;
    uint8_t memory[BYTES];
};

static struct decoded decoded;
static uint8_t memory_frame[BYTES];
static uint8_t memory_element[BYTES];
static uint8_t memory_input[BYTES];

/* ---- helpers */

static struct bytes hex(const char *text)
{
    size_t size = 0;
    for (; *text != '\0'; text++) {
        unsigned byte;
        if (*text == ' ')
            continue;
        assert_int_equal(sscanf(text, "%2x", &byte), 1);
        memory_input[size++] = (uint8_t)byte;
        text++;
    }
    return bytes_of(memory_input, size);
}

static enum err decode_into(struct bytes frame, enum encoding encoding, bool from_server,
                            size_t room, size_t scratch_bytes)
{
    /* exactly as large as said, so that the sanitizer sees a byte too far */
    uint8_t *copy = malloc(frame.size == 0 ? 1 : frame.size);
    struct buffer scratch = buffer_of(decoded.memory, scratch_bytes);
    enum err err;

    assert_non_null(copy);
    if (frame.size != 0)
        memcpy(copy, frame.data, frame.size);
    struct bytes exact = bytes_of(copy, frame.size);
    decoded.count = room;
    err =
        from_server
            ? protocol_decode_events(decoded.events, &decoded.count, exact, encoding, &scratch)
            : protocol_decode_requests(decoded.requests, &decoded.count, exact, encoding, &scratch);
    assert_true(scratch.size <= scratch.capacity);
    /* what was decoded points into the frame: keep the bytes where it points */
    static uint8_t *kept;
    free(kept);
    kept = copy;
    return err;
}

static enum err decode(struct bytes frame, enum encoding encoding, bool from_server)
{
    return decode_into(frame, encoding, from_server, ELEMENTS, sizeof decoded.memory);
}

static enum err append_elements(struct buffer *out, enum encoding encoding, bool from_server,
                                const struct request *requests, const struct event *events,
                                size_t count)
{
    TRY(protocol_frame_open(out, encoding, from_server));
    for (size_t i = 0; i < count; i++) {
        struct buffer element = buffer_of(memory_element, sizeof memory_element);
        if (from_server)
            TRY(protocol_encode_event(&element, &events[i], encoding));
        else
            TRY(protocol_encode_request(&element, &requests[i], encoding));
        TRY(protocol_frame_element(out, buffer_bytes(&element), encoding, i == 0));
    }
    return protocol_frame_close(out, encoding);
}

/* encode: a frame in memory_frame; valid until the next call. */
static struct bytes encode(enum encoding encoding, bool from_server, const struct request *requests,
                           const struct event *events, size_t count)
{
    struct buffer out = buffer_of(memory_frame, sizeof memory_frame);
    assert_int_equal(append_elements(&out, encoding, from_server, requests, events, count), OK);
    return buffer_bytes(&out);
}

static struct bytes encode_decoded(enum encoding encoding, bool from_server)
{
    return encode(encoding, from_server, decoded.requests, decoded.events, decoded.count);
}

static void assert_bytes(struct bytes got, struct bytes want)
{
    if (!bytes_equal(got, want))
        print_error("got  %.*s\nwant %.*s\n", (int)got.size, (const char *)got.data, (int)want.size,
                    (const char *)want.data);
    assert_int_equal(got.size, want.size);
    assert_memory_equal(got.data, want.data, want.size);
}

static void assert_text(struct bytes got, const char *want)
{
    assert_bytes(got, bytes_of_text(want));
}

/* ---- round trips */

static const struct conversation_id conversation = {0x0102030405060708, 0x1112131415161718};
static const struct message_id message_id = {{1, 2, 3, 4, 5, 6, 0x77, 8, 0x89, 10, 11, 12}};
static const uint64_t integer_max = (1ull << 53) - 1;

static struct bytes text(const char *constant)
{
    return bytes_of_text(constant);
}

/* A payload with every field set, in binary. */
static struct bytes whole_payload(void)
{
    return text("\x08\x01\x10\x0f\x1a\x03"
                "abc"
                "\x22\x10"
                "0123456789abcdef"
                "\x2a\x06\x0a\x01"
                "a"
                "\x12\x01k"
                "\x32\x11\x0a\x01u\x10\x7f\x18\x01\x20\x02\x28\x03\x32\x01m\x3a\x01t"
                "\x3a\x10\x09\x01\x02\x03\x04\x05\x06\x07\x08\x10\x02\x18\x03\x22\x01"
                "c"
                "\x3a\x02\x10\x05"
                "\x42\x01p");
}

static void fill_request(struct request *request, enum request_kind kind)
{
    static const struct cursor cursors[] = {{{0x0102030405060708, 0x1112131415161718}, 5},
                                            {{1, 2}, 0}};
    *request = (struct request){.id = 7, .kind = kind};
    switch (kind) {
    case REQUEST_NONE:
        break;
    case REQUEST_HELLO:
        request->hello = (struct hello){.token = text("t"),
                                        .device_key = text("dé\n\"\\"),
                                        .store_epoch = text("0123456789abcdef"),
                                        .cursors = cursors,
                                        .cursor_count = 2,
                                        .has_credit = true,
                                        .credit = {3, UINT32_MAX},
                                        .heartbeat_ms = 9,
                                        .client = text("c"),
                                        .has_resume = true,
                                        .resume = false};
        break;
    case REQUEST_RENEW:
        request->renew.token = text("token");
        break;
    case REQUEST_SEND:
        request->send = (struct send){.has_message_id = true,
                                      .message_id = message_id,
                                      .has_conversation = true,
                                      .conversation = conversation,
                                      .to_user = {UINT64_MAX},
                                      .payload = whole_payload(),
                                      .expires_ms = integer_max};
        break;
    case REQUEST_WATERMARK:
        request->watermark = (struct watermark){conversation, 1, 2};
        break;
    case REQUEST_RANGE:
        request->range = (struct range){conversation, 127, 128, 16384};
        break;
    case REQUEST_CREDIT:
        request->credit = (struct credit){1, 2};
        break;
    case REQUEST_PING:
        request->ping.time_ms = 1;
        break;
    case REQUEST_GOODBYE:
        request->goodbye =
            (struct goodbye){CODE_INTERNAL, VERDICT_DISPLACED, 3, true, text("x"), text("host:1")};
        break;
    case REQUEST_SET_RETENTION:
        request->set_retention = (struct set_retention){.has_message_id = true,
                                                        .message_id = message_id,
                                                        .has_conversation = true,
                                                        .conversation = conversation,
                                                        .to_user = {UINT64_MAX},
                                                        .has_retention = true,
                                                        .retention = {3600, integer_max}};
        break;
    }
}

static void fill_message(struct message *message)
{
    *message = (struct message){conversation,    3, message_id, {4},       {5}, 6,
                                whole_payload(), 7, true,       {86400, 1}};
}

static void fill_event(struct event *event, enum event_kind kind)
{
    static const struct device_envelope envelopes[] = {{{1}, {2}, 0, {NULL, 0}},
                                                       {{3}, {4}, 5, {NULL, 0}}};
    static const struct bytes features[] = {{(const uint8_t *)"a", 1}, {(const uint8_t *)"bc", 2}};
    static const struct gone gone[] = {{{0}, 5, 6}, {{0}, 8, 8}};
    static struct message messages[2];
    *event = (struct event){.id = 8, .kind = kind};
    switch (kind) {
    case EVENT_NONE:
        break;
    case EVENT_WELCOME:
        event->welcome = (struct welcome){
            1, text("s"), 2, text("0123456789abcdef"), 3, 4, 5, 6, 7, 8, 9, features, 2, 10, 11};
        break;
    case EVENT_READY:
        event->ready =
            (struct ready){{1}, {2}, {3}, text("n"), 4, 5, 6, text("0123456789abcdef"), 7};
        break;
    case EVENT_RENEWED:
        event->renewed.token_expires_ms = 1;
        break;
    case EVENT_ACK:
        event->ack =
            (struct ack){message_id, conversation,  1, 2, DURABILITY_REPLICATED, true, envelopes,
                         2,          &envelopes[1], 1};
        break;
    case EVENT_MESSAGE:
        fill_message(&event->message);
        break;
    case EVENT_RECEIPT:
        event->receipt = (struct receipt){conversation, {1}, 2, 3};
        break;
    case EVENT_HISTORY:
        fill_message(&messages[0]);
        fill_message(&messages[1]);
        event->history =
            (struct history){conversation, messages, 2, 3, 4, gone, 2, true, {0, integer_max}};
        break;
    case EVENT_SYNCED:
        event->synced.time_ms = 1;
        break;
    case EVENT_LAGGING:
        event->lagging = (struct lagging){conversation, 1, 2};
        break;
    case EVENT_PONG:
        event->pong.time_ms = 1;
        event->pong.server_time_ms = 2;
        break;
    case EVENT_ERROR:
        event->error = (struct failure){CODE_CONFLICT, VERDICT_RESYNC, 3,  text("t"), true,
                                        message_id,    conversation,   10, 11};
        break;
    case EVENT_GOODBYE:
        event->goodbye =
            (struct goodbye){CODE_REPLACED, VERDICT_RELOGIN, 3, true, text("x"), text("host:1")};
        break;
    case EVENT_TOKEN_EXPIRING:
        event->token_expiring.token_expires_ms = 1;
        break;
    case EVENT_GONE:
        event->gone = (struct gone){conversation, 1, 2};
        break;
    }
}

/* same: that a and b have the same bytes in both encodings, and that a decoded one gives them
 * again. What one encoding loses the other, or the fields below, would show. */
static void round_trip(bool from_server, const struct request *request, const struct event *event)
{
    uint8_t proto[4096];
    uint8_t json[4096];
    struct bytes frame = encode(ENCODING_PROTO, from_server, request, event, 1);
    size_t proto_size = frame.size;
    memcpy(proto, frame.data, frame.size);
    frame = encode(ENCODING_JSON, from_server, request, event, 1);
    size_t json_size = frame.size;
    memcpy(json, frame.data, frame.size);

    for (size_t e = 0; e < COUNT_OF(encodings); e++) {
        frame = encodings[e] == ENCODING_PROTO ? bytes_of(proto, proto_size)
                                               : bytes_of(json, json_size);
        assert_int_equal(decode(frame, encodings[e], from_server), OK);
        assert_int_equal(decoded.count, 1);
        assert_bytes(encode_decoded(ENCODING_PROTO, from_server), bytes_of(proto, proto_size));
        assert_bytes(encode_decoded(ENCODING_JSON, from_server), bytes_of(json, json_size));
    }
    if (from_server)
        return;
    for (size_t e = 0; e < COUNT_OF(encodings); e++) { /* in binary it is the same frame */
        struct buffer scratch = buffer_of(decoded.memory, sizeof decoded.memory);
        frame = encodings[e] == ENCODING_PROTO ? bytes_of(proto, proto_size)
                                               : bytes_of(json, json_size);
        assert_int_equal(protocol_requests_to_binary(&frame, encodings[e], &scratch), OK);
        assert_bytes(frame, bytes_of(proto, proto_size));
    }
    frame = bytes_of_text("{\"requests\":[{]}");
    struct buffer scratch = buffer_of(decoded.memory, sizeof decoded.memory);
    assert_int_equal(protocol_requests_to_binary(&frame, ENCODING_JSON, &scratch), ERR_INVALID);
}

static void every_request(void **state)
{
    (void)state;
    for (enum request_kind kind = REQUEST_NONE; kind <= REQUEST_SET_RETENTION; kind++) {
        struct request request;
        fill_request(&request, kind);
        round_trip(false, &request, NULL);
        assert_int_equal(decoded.requests[0].kind, kind);
        assert_int_equal(decoded.requests[0].id, 7);
        request = (struct request){.kind = kind}; /* an empty body is a body */
        if (kind == REQUEST_HELLO)
            request.hello.resume = true;
        round_trip(false, &request, NULL);
        assert_int_equal(decoded.requests[0].kind, kind);
    }
}

static void every_event(void **state)
{
    (void)state;
    for (enum event_kind kind = EVENT_NONE; kind <= EVENT_GONE; kind++) {
        struct event event;
        fill_event(&event, kind);
        round_trip(true, NULL, &event);
        assert_int_equal(decoded.events[0].kind, kind);
        assert_int_equal(decoded.events[0].id, 8);
        event = (struct event){.kind = kind};
        round_trip(true, NULL, &event);
        assert_int_equal(decoded.events[0].kind, kind);
    }
}

static void fields_arrive(void **state)
{
    (void)state;
    struct request request;

    for (size_t e = 0; e < COUNT_OF(encodings); e++) {
        fill_request(&request, REQUEST_HELLO);
        assert_int_equal(
            decode(encode(encodings[e], false, &request, NULL, 1), encodings[e], false), OK);
        const struct hello *hello = &decoded.requests[0].hello;
        assert_text(hello->token, "t");
        assert_text(hello->device_key, "dé\n\"\\");
        assert_text(hello->store_epoch, "0123456789abcdef");
        assert_int_equal(hello->cursor_count, 2);
        assert_true(conversation_id_equal(hello->cursors[0].conversation, conversation));
        assert_int_equal(hello->cursors[0].seq, 5);
        assert_int_equal(hello->cursors[1].conversation.lo, 2);
        assert_true(hello->has_credit);
        assert_int_equal(hello->credit.bytes, UINT32_MAX);
        assert_true(hello->has_resume);
        assert_false(hello->resume);
        fill_request(&request, REQUEST_SEND);
        assert_int_equal(
            decode(encode(encodings[e], false, &request, NULL, 1), encodings[e], false), OK);
        const struct send *send = &decoded.requests[0].send;
        assert_true(send->has_message_id && send->has_conversation);
        assert_memory_equal(send->message_id.v, message_id.v, 16);
        assert_true(send->to_user.v == UINT64_MAX);
        assert_bytes(send->payload, whole_payload());
        assert_true(send->expires_ms == integer_max);
    }
}

static void absent_is_not_zero_where_it_matters(void **state)
{
    (void)state;
    assert_int_equal(decode(hex("0a 02 12 00"), ENCODING_PROTO, false), OK);
    assert_false(decoded.requests[0].hello.has_credit);
    assert_false(decoded.requests[0].hello.has_resume);
    assert_true(decoded.requests[0].hello.resume);
    assert_int_equal(decode(hex("0a 04 12 02 2a 00"), ENCODING_PROTO, false), OK);
    assert_true(decoded.requests[0].hello.has_credit);
    assert_int_equal(decode(text("{\"requests\":[{\"hello\":{\"resume\":true,\"credit\":{}}}]}"),
                            ENCODING_JSON, false),
                     OK);
    assert_true(decoded.requests[0].hello.has_credit);
    assert_true(decoded.requests[0].hello.has_resume);
    assert_int_equal(
        decode(text("{\"requests\":[{\"hello\":{\"resume\":false}}]}"), ENCODING_JSON, false), OK);
    assert_false(decoded.requests[0].hello.resume);
    assert_int_equal(decode(hex("0a 02 22 00"), ENCODING_PROTO, false), OK);
    assert_false(decoded.requests[0].send.has_message_id);
    assert_false(decoded.requests[0].send.has_conversation);
}

/* Lengths around the places where a varint gets longer, nested three deep. */
static void lengths(void **state)
{
    (void)state;
    static uint8_t content[70000];
    static uint8_t memory[70100];
    const size_t sizes[] = {0,     1,     90,    118,   119,   120,   121,   122,
                            123,   124,   125,   126,   127,   128,   129,   16370,
                            16376, 16380, 16381, 16382, 16383, 16384, 16385, 69999};

    memset(content, 'x', sizeof content);
    for (size_t i = 0; i < COUNT_OF(sizes); i++)
        for (size_t e = 0; e < COUNT_OF(encodings); e++) {
            struct buffer payload = buffer_of(memory, sizeof memory);
            struct bytes back;
            assert_int_equal(protocol_payload_text(&payload, bytes_of(content, sizes[i])), OK);
            struct event event = {.kind = EVENT_MESSAGE,
                                  .message = {.payload = buffer_bytes(&payload)}};
            struct bytes frame = encode(encodings[e], true, NULL, &event, 1);
            assert_int_equal(decode(frame, encodings[e], true), OK);
            assert_int_equal(protocol_payload_content(&back, decoded.events[0].message.payload),
                             OK);
            assert_bytes(back, bytes_of(content, sizes[i]));
        }
}

/* ---- what is read leniently */

static void unknown_fields_are_skipped(void **state)
{
    (void)state;
    /* unknown numbers of every type, before, between and behind known ones; a two-byte tag */
    struct bytes frame = hex("52 01 78"
                             "0a 1b 08 05 a8 06 ff 01 42 02 08 09 7a 03 01 02 03"
                             "59 01 02 03 04 05 06 07 08 65 01 02 03 04"
                             "10 01");
    assert_int_equal(decode(frame, ENCODING_PROTO, false), ERR_INVALID); /* 65: cut short */
    frame = hex("52 01 78"
                "0a 1f 08 05 a8 06 ff 01 42 02 08 09 7a 03 01 02 03"
                "59 01 02 03 04 05 06 07 08 65 01 02 03 04"
                "78 01");
    frame.size = 3 + 2 + 0x1f;
    assert_int_equal(frame.data[4], 0x1f);
    assert_int_equal(decode(frame, ENCODING_PROTO, false), OK);
    assert_int_equal(decoded.count, 1);
    assert_int_equal(decoded.requests[0].id, 5);
    assert_int_equal(decoded.requests[0].kind, REQUEST_PING);
    assert_int_equal(decoded.requests[0].ping.time_ms, 9);
    assert_int_equal(decode(text("{\"x\":1,\"requests\":[{\"id\":5,\"y\":[{\"a\":1.5e3}],\"ping\":{"
                                 "\"time_ms\":9,\"z\":null}}]}"),
                            ENCODING_JSON, false),
                     OK);
    assert_int_equal(decoded.requests[0].ping.time_ms, 9);
}

static void unknown_bodies_are_none(void **state)
{
    (void)state;
    assert_int_equal(decode(hex("0a 06 08 05 a2 06 01 78"), ENCODING_PROTO, false), OK);
    assert_int_equal(decoded.requests[0].kind, REQUEST_NONE);
    assert_int_equal(decoded.requests[0].id, 5);
    assert_int_equal(decode(text("{\"requests\":[{\"id\":5,\"dance\":{}}]}"), ENCODING_JSON, false),
                     OK);
    assert_int_equal(decoded.requests[0].kind, REQUEST_NONE);
    assert_int_equal(decoded.requests[0].id, 5);
}

static void unknown_fields_of_a_payload_are_kept(void **state)
{
    (void)state;
    /* send { payload { 100: "x", content "c", kind 99 } } */
    assert_int_equal(
        decode(hex("0a 0d 22 0b 22 09 a2 06 01 78 1a 01 63 08 63"), ENCODING_PROTO, false), OK);
    struct bytes payload = decoded.requests[0].send.payload;
    assert_bytes(payload, text("\xa2\x06\x01x\x1a\x01"
                               "c\x08\x63"));
    assert_text(encode_decoded(ENCODING_JSON, false),
                "{\"requests\":[{\"send\":{\"payload\":{\"kind\":99,\"content\":\"Yw==\"}}}]}");
}

static void the_last_scalar_counts(void **state)
{
    (void)state;
    assert_int_equal(decode(hex("0a 08 08 05 08 06 42 02 08 01"), ENCODING_PROTO, false), OK);
    assert_int_equal(decoded.requests[0].id, 6);
    /* payload { content "a", content "b" }: kept as it came, shown as "b" */
    assert_int_equal(decode(hex("0a 0a 22 08 22 06 1a 01 61 1a 01 62"), ENCODING_PROTO, false), OK);
    struct bytes content;
    assert_int_equal(protocol_payload_content(&content, decoded.requests[0].send.payload), OK);
    assert_text(content, "b");
    assert_text(encode_decoded(ENCODING_JSON, false),
                "{\"requests\":[{\"send\":{\"payload\":{\"content\":\"Yg==\"}}}]}");
}

static void scattered_elements_are_gathered(void **state)
{
    (void)state;
    /* hello { cursor{seq 1} token "a" cursor{seq 2} token "b" cursor{} } */
    assert_int_equal(decode(hex("0a 12 12 10 22 02 10 01 0a 01 61 22 02 10 02 0a 01 62 22 00"),
                            ENCODING_PROTO, false),
                     OK);
    const struct hello *hello = &decoded.requests[0].hello;
    assert_int_equal(hello->cursor_count, 3);
    assert_int_equal(hello->cursors[0].seq, 1);
    assert_int_equal(hello->cursors[1].seq, 2);
    assert_int_equal(hello->cursors[2].seq, 0);
    assert_text(hello->token, "b");
}

static void long_varints_are_read(void **state)
{
    (void)state;
    assert_int_equal(decode(hex("0a 06 08 85 80 80 80 00"), ENCODING_PROTO, false), OK);
    assert_int_equal(decoded.requests[0].id, 5);
    assert_int_equal(decode(hex("8a 80 00 02 08 05"), ENCODING_PROTO, false), OK);
    assert_int_equal(decoded.requests[0].id, 5);
    assert_int_equal(decode(hex("0a 08 08 ff ff ff ff ff ff ff 0f"), ENCODING_PROTO, false),
                     ERR_INVALID); /* a byte short */
    assert_int_equal(decode(hex("0a 09 08 ff ff ff ff ff ff ff 0f"), ENCODING_PROTO, false), OK);
    assert_true(decoded.requests[0].id == integer_max);
}

static void unknown_enum_values_are_ignored(void **state)
{
    (void)state;
    /* goodbye { code 1, code 99, verdict -1 } */
    assert_int_equal(decode(hex("0a 11 4a 0f 08 01 08 63 10 ff ff ff ff ff ff ff ff ff 01"),
                            ENCODING_PROTO, false),
                     OK);
    assert_int_equal(decoded.requests[0].goodbye.code, CODE_MALFORMED);
    assert_int_equal(decoded.requests[0].goodbye.verdict, VERDICT_FATAL);
    assert_int_equal(decode(text("{\"requests\":[{\"goodbye\":{\"code\":\"NEW\",\"verdict\":-1,"
                                 "\"retry_after_ms\":1}}]}"),
                            ENCODING_JSON, false),
                     OK);
    assert_int_equal(decoded.requests[0].goodbye.code, CODE_NONE);
    assert_int_equal(
        decode(text("{\"requests\":[{\"goodbye\":{\"code\":3,\"verdict\":\"RETRY\"}}]}"),
               ENCODING_JSON, false),
        OK);
    assert_int_equal(decoded.requests[0].goodbye.code, CODE_TOO_BIG);
    assert_int_equal(decoded.requests[0].goodbye.verdict, VERDICT_RETRY);
    assert_int_equal(decode(text("{\"requests\":[{\"send\":{\"payload\":{\"kind\":-2}}}]}"),
                            ENCODING_JSON, false),
                     OK);
    assert_text(encode_decoded(ENCODING_JSON, false),
                "{\"requests\":[{\"send\":{\"payload\":{\"kind\":-2}}}]}");
}

static void json_text_forms(void **state)
{
    (void)state;
    assert_int_equal(
        decode(text(" { \"requests\" : [ {\"id\":null,\"hello\":{\"client\":\"\\u0000\\ud83d\\ude00"
                    "\\/\\b\",\"cursors\":[{\"conversation_id\":\"01020304-0506-0708-1112-"
                    "1314151617AB\"}],\"store_epoch_id\":null}} ] }\n"),
               ENCODING_JSON, false),
        OK);
    const struct hello *hello = &decoded.requests[0].hello;
    assert_bytes(hello->client, bytes_of("\0\xf0\x9f\x98\x80/\b", 7));
    assert_int_equal(hello->cursors[0].conversation.lo, 0x11121314151617ab);
    assert_int_equal(hello->store_epoch.size, 0);
    assert_text(encode_decoded(ENCODING_JSON, false),
                "{\"requests\":[{\"hello\":{\"cursors\":[{\"conversation_id\":\"01020304-0506-0708-"
                "1112-1314151617ab\"}],\"client\":\"\\u0000\xf0\x9f\x98\x80/\\u0008\"}}]}");
    assert_int_equal(decode(text("{}"), ENCODING_JSON, false), OK);
    assert_int_equal(decoded.count, 0);
    assert_int_equal(decode(text("{\"requests\":[]}"), ENCODING_JSON, false), OK);
    assert_int_equal(decoded.count, 0);
    assert_int_equal(decode(text(""), ENCODING_PROTO, false), OK);
    assert_int_equal(decoded.count, 0);
}

/* ---- what is refused */

static void malformed_binary(void **state)
{
    (void)state;
    static const char *const frames[] = {
        "0a",                                  /* no length */
        "0a 01",                               /* no content */
        "0a 80",                               /* length cut short */
        "0a ff ff ff ff ff ff ff ff ff 01",    /* a length of 2^64-1 */
        "0a ff ff ff ff ff ff ff ff ff 02",    /* a varint over 64 bits */
        "0a ff ff ff ff ff ff ff ff ff ff 01", /* of eleven bytes */
        "08 05",                               /* a frame's field as a varint */
        "00 00",                               /* field number 0 */
        "02 00",                               /* the same */
        "0b",                                  /* a group begins */
        "0c",                                  /* a group ends */
        "0e 00",
        "0f 00",                /* types that do not exist */
        "82 80 80 80 80 01 00", /* a field number over 29 bits */
        "55 01 02 03",
        "51 01 02 03 04 05 06 07",          /* fixed cut short */
        "0a 01 08",                         /* a tag without value */
        "0a 02 08 80",                      /* a varint cut short */
        "0a 02 0a 00",                      /* id as bytes */
        "0a 09 09 01 00 00 00 00 00 00 00", /* id as fixed64 */
        "0a 09 08 80 80 80 80 80 80 80 10", /* id of 2^53 */
        "0a 02 12 01",                      /* hello longer than its request */
        "0a 04 12 02 0a 01",                /* token longer than its hello */
        "0a 05 12 03 0a 01 ff",             /* token is not UTF-8 */
        "0a 06 12 04 0a 02 c0 80",          /* an overlong NUL */
        "0a 07 12 05 0a 03 ed a0 80",       /* a surrogate */
        "0a 04 12 02 1a 00",                /* an epoch of 0 bytes */
        "0a 13 12 11 1a 0f 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00",       /* of 15 bytes */
        "0a 15 12 13 1a 11 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00", /* of 17 */
        "0a 08 12 06 2a 00 2a 02 08 01",             /* two credits in a hello */
        "0a 09 12 07 30 80 80 80 80 10",             /* heartbeat of 2^32 */
        "0a 05 12 03 22 01 0a",                      /* a cursor with half a field */
        "0a 04 12 00 1a 00",                         /* two bodies */
        "0a 04 3a 00 3a 00",                         /* the same body twice */
        "0a 05 22 03 0a 01 00",                      /* a message id of 1 byte */
        "0a 04 22 02 18 01",                         /* user as a varint */
        "0a 05 22 03 22 01 08",                      /* a payload with half a field */
        "0a 06 22 04 22 02 18 01",                   /* content as a varint */
        "0a 07 22 05 22 03 22 01 00",                /* a parent id of 1 byte */
        "0a 09 22 07 22 05 2a 03 0a 01 ff",          /* an algorithm that is not UTF-8 */
        "0a 0a 22 08 22 06 2a 00 1a 00 2a 00",       /* encryption twice */
        "0a 08 22 06 22 04 3a 02 09 00",             /* an envelope with half a user */
        "0a 0c 22 0a 22 08 3a 06 18 80 80 80 80 10", /* an envelope's registration of 2^32 */
        "0a 06 22 04 22 02 22 00",                   /* of 0 bytes */
        "0a 0f 22 0d 22 0b 32 09 10 80 80 80 80 80 80 80 10", /* media size of 2^53 */
        "0a 0b 22 09 22 03 1a 01 61 22 02 1a 00",             /* two payloads */
        "78 ff ff ff ff ff ff ff ff ff 03",                   /* 65 bits, unknown field */
        "0a 02 08 05 0a",                                     /* the second request cut */
    };
    for (size_t i = 0; i < COUNT_OF(frames); i++) {
        enum err err = decode(hex(frames[i]), ENCODING_PROTO, false);
        if (err != ERR_INVALID)
            print_error("%s\n", frames[i]);
        assert_int_equal(err, ERR_INVALID);
    }
}

static void malformed_json(void **state)
{
    (void)state;
    static const char *const frames[] = {
        "",
        " ",
        "[]",
        "null",
        "\"requests\"",
        "{",
        "{}{}",
        "{} x",
        "{\"requests\":[}",
        "{\"requests\":[]]}",
        "{\"requests\":{}}",
        "{\"requests\":[1]}",
        "{\"requests\":[null]}",
        "{\"requests\":[[]]}",
        "{\"requests\":[],\"requests\":[]}",
        "{\"x\":1,\"x\":2}",
        "{'requests':[]}",
        "{\"requests\":[{\"id\":-1}]}",
        "{\"requests\":[{\"id\":1.0}]}",
        "{\"requests\":[{\"id\":1e3}]}",
        "{\"requests\":[{\"id\":01}]}",
        "{\"requests\":[{\"id\":\"1\"}]}",
        "{\"requests\":[{\"id\":true}]}",
        "{\"requests\":[{\"id\":9007199254740992}]}",
        "{\"requests\":[{\"id\":99999999999999999999}]}",
        "{\"requests\":[{\"id\":NaN}]}",
        "{\"requests\":[{\"ping\":[]}]}",
        "{\"requests\":[{\"ping\":0}]}",
        "{\"requests\":[{\"ping\":{},\"range\":{}}]}",
        "{\"requests\":[{\"range\":{\"limit\":4294967296}}]}",
        "{\"requests\":[{\"hello\":{\"token\":5}}]}",
        "{\"requests\":[{\"hello\":{\"token\":\"\xff\"}}]}",
        "{\"requests\":[{\"hello\":{\"token\":\"\\ud800\"}}]}",
        "{\"requests\":[{\"hello\":{\"token\":\"\n\"}}]}",
        "{\"requests\":[{\"hello\":{\"token\":\"}}]}",
        "{\"requests\":[{\"hello\":{\"token\":\"\\",
        "{\"requests\":[{\"hello\":{\"resume\":1}}]}",
        "{\"requests\":[{\"hello\":{\"resume\":\"true\"}}]}",
        "{\"requests\":[{\"hello\":{\"cursors\":{}}}]}",
        "{\"requests\":[{\"hello\":{\"cursors\":[null]}}]}",
        "{\"requests\":[{\"hello\":{\"store_epoch_id\":\"\"}}]}",
        "{\"requests\":[{\"hello\":{\"store_epoch_id\":\"MDEyMzQ1Njc4OWFiY2RlZg==\"}}]}",
        "{\"requests\":[{\"hello\":{\"store_epoch_id\":\"01020304050607081112131415161718\"}}]}",
        "{\"requests\":[{\"send\":{\"to_user\":101}}]}",
        "{\"requests\":[{\"send\":{\"to_user\":\"\"}}]}",
        "{\"requests\":[{\"send\":{\"to_user\":\"-1\"}}]}",
        "{\"requests\":[{\"send\":{\"to_user\":\"0x1\"}}]}",
        "{\"requests\":[{\"send\":{\"to_user\":\"18446744073709551616\"}}]}",
        "{\"requests\":[{\"send\":{\"payload\":\"aGk=\"}}]}",
        "{\"requests\":[{\"send\":{\"payload\":{\"content\":\"aGk\"}}}]}",
        "{\"requests\":[{\"send\":{\"payload\":{\"content\":\"aGl=\"}}}]}",
        "{\"requests\":[{\"send\":{\"payload\":{\"content\":\"aG_=\"}}}]}",
        "{\"requests\":[{\"send\":{\"payload\":{\"content\":[1]}}}]}",
        "{\"requests\":[{\"send\":{\"payload\":{\"kind\":\"POLL\"}}}]}",
        "{\"requests\":[{\"send\":{\"payload\":{\"kind\":2147483648}}}]}",
        "{\"requests\":[{\"send\":{\"payload\":{\"kind\":1.5}}}]}",
        "{\"requests\":[{\"send\":{\"payload\":{\"envelopes\":[{\"user\":5}]}}}]}",
    };
    for (size_t i = 0; i < COUNT_OF(frames); i++) {
        enum err err = decode(text(frames[i]), ENCODING_JSON, false);
        if (err != ERR_INVALID)
            print_error("%s\n", frames[i]);
        assert_int_equal(err, ERR_INVALID);
    }
}

static void nested_json(struct buffer *out, size_t levels)
{
    assert_int_equal(buffer_append(out, text("{\"x\":")), OK);
    for (size_t i = 1; i < levels; i++)
        assert_int_equal(buffer_put_u8(out, '['), OK);
    assert_int_equal(buffer_put_u8(out, '1'), OK);
    for (size_t i = 1; i < levels; i++)
        assert_int_equal(buffer_put_u8(out, ']'), OK);
    assert_int_equal(buffer_put_u8(out, '}'), OK);
}

static void json_is_bounded(void **state)
{
    (void)state;
    struct buffer out = buffer_of(memory_input, sizeof memory_input);
    nested_json(&out, JSON_TEXT_DEPTH_MAX);
    assert_int_equal(decode(buffer_bytes(&out), ENCODING_JSON, false), OK);
    out.size = 0;
    nested_json(&out, JSON_TEXT_DEPTH_MAX + 1);
    assert_int_equal(decode(buffer_bytes(&out), ENCODING_JSON, false), ERR_INVALID);
    /* brackets within text do not count */
    assert_int_equal(decode(text("{\"x\":\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\\\"[\"}"),
                            ENCODING_JSON, false),
                     OK);
    out.size = 0;
    assert_int_equal(buffer_append(&out, text("{\"x\":[1")), OK);
    for (size_t i = 3; i < JSON_TEXT_VALUES_MAX; i++)
        assert_int_equal(buffer_append(&out, text(",1")), OK);
    size_t size = out.size;
    assert_int_equal(buffer_append(&out, text("]}")), OK);
    assert_int_equal(decode(buffer_bytes(&out), ENCODING_JSON, false), OK);
    out.size = size;
    assert_int_equal(buffer_append(&out, text(",1]}")), OK);
    assert_int_equal(decode(buffer_bytes(&out), ENCODING_JSON, false), ERR_TOO_BIG);
}

/* Every prefix of a good frame: decoded if it ends between elements, else refused; never a byte
 * read beyond it. */
static void cut_short(void **state)
{
    (void)state;
    static uint8_t whole[8192];
    struct event events[2];

    for (size_t e = 0; e < COUNT_OF(encodings); e++)
        for (enum event_kind kind = EVENT_WELCOME; kind <= EVENT_GONE; kind++) {
            fill_event(&events[0], kind);
            fill_event(&events[1], kind);
            struct bytes one = encode(encodings[e], true, NULL, events, 1);
            size_t first = one.size;
            struct bytes both = encode(encodings[e], true, NULL, events, 2);
            memcpy(whole, both.data, both.size);
            for (size_t size = 0; size < both.size; size++) {
                bool between = encodings[e] == ENCODING_PROTO && (size == 0 || size == first);
                assert_int_equal(decode(bytes_of(whole, size), encodings[e], true),
                                 between ? OK : ERR_INVALID);
            }
        }
}

static void too_many_elements(void **state)
{
    (void)state;
    struct request requests[3];
    for (size_t i = 0; i < COUNT_OF(requests); i++)
        fill_request(&requests[i], REQUEST_PING);
    for (size_t e = 0; e < COUNT_OF(encodings); e++) {
        struct bytes frame = encode(encodings[e], false, requests, NULL, 3);
        assert_int_equal(decode_into(frame, encodings[e], false, 3, BYTES), OK);
        assert_int_equal(decoded.count, 3);
        assert_int_equal(decode_into(frame, encodings[e], false, 2, BYTES), ERR_TOO_BIG);
        assert_int_equal(decode_into(frame, encodings[e], false, 0, BYTES), ERR_TOO_BIG);
    }
}

/* Every size of scratch: ERR_FULL up to what is needed, and PROTOCOL_SCRATCH_BYTES is enough. */
static void little_scratch(void **state)
{
    (void)state;
    for (size_t e = 0; e < COUNT_OF(encodings); e++)
        for (enum event_kind kind = EVENT_WELCOME; kind <= EVENT_TOKEN_EXPIRING; kind++) {
            struct event event;
            static uint8_t copy[4096];
            fill_event(&event, kind);
            struct bytes frame = encode(encodings[e], true, NULL, &event, 1);
            memcpy(copy, frame.data, frame.size);
            frame.data = copy;
            enum err err = ERR_FULL;
            size_t room = 0;
            for (; err != OK; room++) {
                err = decode_into(frame, encodings[e], true, ELEMENTS, room);
                if (err != OK)
                    assert_int_equal(err, ERR_FULL);
                assert_true(room <= PROTOCOL_SCRATCH_BYTES(frame.size));
            }
            assert_true(encodings[e] == ENCODING_PROTO || room > 1);
        }
}

static void little_room_appends_nothing(void **state)
{
    (void)state;
    for (size_t e = 0; e < COUNT_OF(encodings); e++)
        for (enum event_kind kind = EVENT_WELCOME; kind <= EVENT_TOKEN_EXPIRING; kind++) {
            struct event event;
            fill_event(&event, kind);
            struct buffer out = buffer_of(memory_element, sizeof memory_element);
            assert_int_equal(protocol_encode_event(&out, &event, encodings[e]), OK);
            size_t size = out.size;
            for (size_t room = 0; room < size; room++) {
                out = buffer_of(memory_element, room + 1);
                out.size = 1;
                assert_int_equal(protocol_encode_event(&out, &event, encodings[e]), ERR_FULL);
                assert_int_equal(out.size, 1);
            }
            out = buffer_of(memory_element, size);
            assert_int_equal(protocol_encode_event(&out, &event, encodings[e]), OK);
        }
}

static void frames_have_bounds(void **state)
{
    (void)state;
    for (size_t e = 0; e < COUNT_OF(encodings); e++)
        for (size_t size = 0; size < 300; size++) {
            uint8_t memory[400];
            struct bytes element = bytes_of(memory_element, size);
            struct buffer out = buffer_of(memory, sizeof memory);
            assert_int_equal(protocol_frame_open(&out, encodings[e], false), OK);
            size_t start = out.size;
            assert_int_equal(protocol_frame_element(&out, element, encodings[e], false), OK);
            assert_true(out.size - start <= size + PROTOCOL_ELEMENT_OVERHEAD);
            size_t end = out.size;
            assert_int_equal(protocol_frame_close(&out, encodings[e]), OK);
            assert_true(start + out.size - end <= PROTOCOL_ELEMENT_OVERHEAD);
            for (size_t room = start; room < end; room++) {
                out = buffer_of(memory, room);
                out.size = start;
                assert_int_equal(protocol_frame_element(&out, element, encodings[e], false),
                                 ERR_FULL);
                assert_int_equal(out.size, start);
            }
        }
}

static void frame_text(void **state)
{
    (void)state;
    struct request requests[2];
    fill_request(&requests[0], REQUEST_CREDIT);
    fill_request(&requests[1], REQUEST_PING);
    assert_text(encode(ENCODING_JSON, false, requests, NULL, 2),
                "{\"requests\":[{\"id\":7,\"credit\":{\"messages\":1,\"bytes\":2}},"
                "{\"id\":7,\"ping\":{\"time_ms\":1}}]}");
    uint8_t want[] = {0x0a, 8, 8, 7, 0x3a, 4, 8, 1, 16, 2, 0x0a, 6, 8, 7, 0x42, 2, 8, 1};
    assert_bytes(encode(ENCODING_PROTO, false, requests, NULL, 2), bytes_of(want, sizeof want));
    assert_text(encode(ENCODING_JSON, true, NULL, NULL, 0), "{\"events\":[]}");
    assert_int_equal(encode(ENCODING_PROTO, true, NULL, NULL, 0).size, 0);
}

/* What a peer can choose to grow most in JSON: control characters, envelopes with one small field.
 */
static void events_have_bounds(void **state)
{
    (void)state;
    static uint8_t memory[40000];
    struct buffer payload = buffer_of(memory, sizeof memory);
    struct event event = {.id = integer_max, .kind = EVENT_MESSAGE};

    assert_int_equal(buffer_append(&payload, hex("32 94 4e 0a 91 4e")), OK);
    memset(memory + payload.size, 1, 0x2711);
    payload.size += 0x2711;
    while (payload.size < 30000)
        assert_int_equal(buffer_append(&payload, hex("3a 02 18 01")), OK);
    fill_message(&event.message);
    event.message.payload = buffer_bytes(&payload);
    struct buffer out = buffer_of(memory_element, sizeof memory_element);
    assert_int_equal(protocol_encode_event(&out, &event, ENCODING_JSON), OK);
    assert_true(out.size > 5 * payload.size);
    assert_true(out.size <= PROTOCOL_EVENT_BYTES(payload.size, 1));
    for (enum event_kind kind = EVENT_WELCOME; kind <= EVENT_TOKEN_EXPIRING; kind++) {
        fill_event(&event, kind);
        event.id = integer_max;
        out.size = 0;
        assert_int_equal(protocol_encode_event(&out, &event, ENCODING_JSON), OK);
        assert_true(out.size <= PROTOCOL_EVENT_BYTES(0, 2));
    }
}

/* A stored payload that is damaged is an error, not a wrong text. */
static void damaged_payloads_are_not_shown(void **state)
{
    (void)state;
    static const char *const payloads[] = {"1a 05 61", "18 01", "22 01 00", "2a 03 0a 01 ff", "0b"};
    for (size_t i = 0; i < COUNT_OF(payloads); i++) {
        struct event event = {.kind = EVENT_MESSAGE, .message = {.payload = hex(payloads[i])}};
        struct buffer out = buffer_of(memory_element, sizeof memory_element);
        assert_int_equal(protocol_encode_event(&out, &event, ENCODING_JSON), ERR_INVALID);
        assert_int_equal(out.size, 0);
    }
}

static void payload_helpers(void **state)
{
    (void)state;
    uint8_t memory[8];
    struct bytes content;
    for (size_t room = 0; room <= 5; room++) {
        struct buffer out = buffer_of(memory, room);
        assert_int_equal(protocol_payload_text(&out, text("abc")), room < 5 ? ERR_FULL : OK);
        assert_int_equal(out.size, room < 5 ? 0 : 5);
    }
    assert_memory_equal(memory,
                        "\x1a\x03"
                        "abc",
                        5);
    assert_int_equal(protocol_payload_content(&content, bytes_of(memory, 5)), OK);
    assert_text(content, "abc");
    assert_int_equal(protocol_payload_content(&content, whole_payload()), OK);
    assert_text(content, "abc");
    assert_int_equal(protocol_payload_content(&content, bytes_of(memory, 4)), ERR_INVALID);
    assert_int_equal(protocol_payload_content(&content, hex("18 01")), ERR_INVALID);
    assert_int_equal(protocol_payload_content(&content, bytes_of(NULL, 0)), OK);
    assert_int_equal(content.size, 0);
}

static void failing_allocations(void **state)
{
    (void)state;
    struct bytes frame = text("{\"requests\":[{\"id\":1,\"hello\":{\"token\":\"abc\",\"cursors\":["
                              "{\"seq\":1},{\"seq\":2}]}}]}");
    int64_t before = memory_bytes(MEMORY_API);
    enum err err;
    uint64_t n = 0;
    do {
        memory_fail_at(++n);
        err = decode(frame, ENCODING_JSON, false);
        memory_fail_at(0);
        assert_true(memory_bytes(MEMORY_API) == before);
    } while (err != OK && n < 1000);
    assert_in_range(n, 10, 999);
    /* and nothing is taken for binary */
    memory_fail_at(1);
    assert_int_equal(decode(hex("0a 02 12 00"), ENCODING_PROTO, false), OK);
    memory_fail_at(0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_request),
        cmocka_unit_test(every_event),
        cmocka_unit_test(fields_arrive),
        cmocka_unit_test(absent_is_not_zero_where_it_matters),
        cmocka_unit_test(lengths),
        cmocka_unit_test(unknown_fields_are_skipped),
        cmocka_unit_test(unknown_bodies_are_none),
        cmocka_unit_test(unknown_fields_of_a_payload_are_kept),
        cmocka_unit_test(the_last_scalar_counts),
        cmocka_unit_test(scattered_elements_are_gathered),
        cmocka_unit_test(long_varints_are_read),
        cmocka_unit_test(unknown_enum_values_are_ignored),
        cmocka_unit_test(json_text_forms),
        cmocka_unit_test(malformed_binary),
        cmocka_unit_test(malformed_json),
        cmocka_unit_test(json_is_bounded),
        cmocka_unit_test(cut_short),
        cmocka_unit_test(too_many_elements),
        cmocka_unit_test(little_scratch),
        cmocka_unit_test(little_room_appends_nothing),
        cmocka_unit_test(frames_have_bounds),
        cmocka_unit_test(frame_text),
        cmocka_unit_test(events_have_bounds),
        cmocka_unit_test(damaged_payloads_are_not_shown),
        cmocka_unit_test(payload_helpers),
        cmocka_unit_test(failing_allocations),
    };
    json_text_init(1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
