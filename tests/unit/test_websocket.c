/* test_websocket.c: RFC 6455's rules by section as a table of frames and what must come out, each
 * case fed whole, byte by byte and in random chops; then what a table cannot say: every split of a
 * text, every close code, every short byte sequence as UTF-8, limits, memory, sending. */
#include "gateway/wire/websocket.h"

#include "core/memory.h"
#include "core/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define MESSAGE_BYTES_MAX 70000
#define FRAGMENTS_MAX     8
#define STREAM_BYTES      262144
#define LOG_BYTES         4096
#define RANDOM_CHOPS      12

enum shape {
    PLAIN = 0,  /* masked as the direction asks, shortest length */
    MASK_WRONG, /* masked the other way round */
    LENGTH_16,  /* length in 16 bits whatever it is */
    LENGTH_64,
    LENGTH_NEGATIVE, /* 64 bits with the highest set */
};

struct frame {
    uint8_t head; /* FIN, RSV, opcode */
    const char *payload;
    size_t size; /* 0: strlen */
    enum shape shape;
};

#define FIN     0x80
#define CONT    0x00
#define TEXT    0x01
#define BINARY  0x02
#define CLOSE   0x88
#define PING    0x89
#define PONG    0x8a
#define B(text) (text), sizeof(text) - 1

static const struct websocket_limits server_limits = {MESSAGE_BYTES_MAX, FRAGMENTS_MAX, false};
static const struct websocket_limits client_limits = {MESSAGE_BYTES_MAX, FRAGMENTS_MAX, true};
static struct websocket_engine *engine;
static uint8_t stream_data[STREAM_BYTES];
static uint32_t random_state = 1;

static uint32_t random_next(void)
{
    random_state = random_state * 1664525u + 1013904223u;
    return random_state >> 8;
}

static void entropy(void *context, void *out, size_t size)
{
    (void)context;
    for (size_t i = 0; i < size; i++)
        ((uint8_t *)out)[i] = (uint8_t)random_next();
}

/* ---- making frames by hand, apart from the code under test */

static void put(struct buffer *b, const void *data, size_t size)
{
    assert_int_equal(buffer_append(b, bytes_of(data, size)), OK);
}

static void put_length(struct buffer *b, size_t size, enum shape shape, uint8_t mask_bit)
{
    uint8_t bytes[9];
    size_t count = 1;
    if (shape == LENGTH_64 || shape == LENGTH_NEGATIVE || (shape != LENGTH_16 && size > 65535)) {
        bytes[0] = 127;
        for (size_t i = 0; i < 8; i++)
            bytes[1 + i] = (uint8_t)(size >> (56 - 8 * i));
        if (shape == LENGTH_NEGATIVE)
            bytes[1] |= 0x80;
        count = 9;
    } else if (shape == LENGTH_16 || size > 125) {
        bytes[0] = 126;
        bytes[1] = (uint8_t)(size >> 8);
        bytes[2] = (uint8_t)size;
        count = 3;
    } else {
        bytes[0] = (uint8_t)size;
    }
    bytes[0] |= mask_bit;
    put(b, bytes, count);
}

static void put_frame(struct buffer *b, const struct frame *f, bool to_client)
{
    static const uint8_t mask[4] = {0x37, 0xfa, 0x21, 0x3d};
    size_t size = f->size != 0 ? f->size : strlen(f->payload);
    bool masked = to_client == (f->shape == MASK_WRONG);
    put(b, &f->head, 1);
    put_length(b, size, f->shape, masked ? 0x80 : 0);
    if (masked)
        put(b, mask, sizeof mask);
    for (size_t i = 0; i < size; i++) {
        uint8_t c = (uint8_t)f->payload[i];
        c = masked ? (uint8_t)(c ^ mask[i % 4]) : c;
        put(b, &c, 1);
    }
}

/* ---- feeding, and what came out as text: "T5:hello P0: C1000:bye F1002 " */

static void log_message(char *log, enum websocket_result result, const struct websocket_message *m)
{
    size_t used = strlen(log);
    size_t room = LOG_BYTES - used;
    if (result == WEBSOCKET_FAILED) {
        snprintf(log + used, room, "F%u ", m->close_code);
        return;
    }
    const char *kind = m->opcode == WEBSOCKET_TEXT     ? "T"
                       : m->opcode == WEBSOCKET_BINARY ? "B"
                       : m->opcode == WEBSOCKET_PING   ? "P"
                       : m->opcode == WEBSOCKET_PONG   ? "O"
                       : m->opcode == WEBSOCKET_CLOSE  ? "C"
                                                       : "?";
    unsigned number = m->opcode == WEBSOCKET_CLOSE ? m->close_code : (unsigned)m->data.size;
    int shown = m->data.size > 60 ? 60 : (int)m->data.size;
    snprintf(log + used, room, "%s%u:%.*s ", kind, number, shown, (const char *)m->data.data);
}

/* feed: chop 0: whole; 1: bytes; else random pieces. Returns false after a failure. */
static bool feed(struct websocket *w, const struct websocket_limits *limits, struct bytes stream,
                 size_t chop, char *log)
{
    while (stream.size != 0) {
        size_t size = chop == 0 ? stream.size : chop == 1 ? 1 : 1 + random_next() % 40;
        size = size > stream.size ? stream.size : size;
        /* a copy of its own, so that the sanitizer sees reads past it */
        uint8_t *copy = malloc(size);
        memcpy(copy, stream.data, size);
        struct bytes input = bytes_of(copy, size);
        stream = bytes_skip(stream, size);
        for (;;) {
            struct websocket_message m;
            size_t before = input.size;
            enum websocket_result result = websocket_receive(w, engine, limits, &input, &m);
            assert_true(input.size <= before);
            if (result != WEBSOCKET_MORE)
                log_message(log, result, &m);
            if (result == WEBSOCKET_FAILED) {
                assert_true(websocket_idle(w));
                free(copy);
                return false;
            }
            if (result == WEBSOCKET_MORE) {
                assert_int_equal(input.size, 0);
                break;
            }
        }
        free(copy);
    }
    return true;
}

static void assert_outcome(const char *name, const struct websocket_limits *limits,
                           struct bytes stream, const char *expected)
{
    for (size_t chop = 0; chop < 2 + RANDOM_CHOPS; chop++) {
        char log[LOG_BYTES] = "";
        struct websocket w = {0};
        feed(&w, limits, stream, chop, log);
        websocket_deinit(&w, engine);
        if (strcmp(log, expected) != 0)
            fail_msg("%s, chop %zu: got \"%s\", expected \"%s\"", name, chop, log, expected);
    }
}

struct conformance {
    const char *name;
    struct frame frames[8];
    const char *expected;
};

static const struct conformance table[] = {
    /* 5.2 framing */
    {"5.6 text", {{FIN | TEXT, B("hello"), 0}}, "T5:hello "},
    {"5.6 binary", {{FIN | BINARY, B("\xff\xfe"), 0}}, "B2:\xff\xfe "},
    {"5.2 empty text", {{FIN | TEXT, "", 0, 0}}, "T0: "},
    {"5.2 empty binary", {{FIN | BINARY, "", 0, 0}}, "B0: "},
    {"5.2 three messages",
     {{FIN | TEXT, B("a"), 0}, {FIN | BINARY, B("bc"), 0}, {FIN | TEXT, B("def"), 0}},
     "T1:a B2:bc T3:def "},
    {"5.2 length not minimal, 16", {{FIN | TEXT, B("x"), LENGTH_16}}, "F1002 "},
    {"5.2 length not minimal, 64", {{FIN | TEXT, B("x"), LENGTH_64}}, "F1002 "},
    {"5.2 length above 2^63", {{FIN | BINARY, B("x"), LENGTH_NEGATIVE}}, "F1002 "},
    /* 5.1 masking */
    {"5.1 not masked as it must be", {{FIN | TEXT, B("x"), MASK_WRONG}}, "F1002 "},
    {"5.1 ping not masked as it must be", {{PING, B("x"), MASK_WRONG}}, "F1002 "},
    {"5.1 second frame",
     {{FIN | TEXT, B("x"), 0}, {FIN | TEXT, B("x"), MASK_WRONG}},
     "T1:x F1002 "},
    /* 5.2 reserved bits */
    {"5.2 RSV1", {{FIN | TEXT | 0x40, B("x"), 0}}, "F1002 "},
    {"5.2 RSV2", {{FIN | TEXT | 0x20, B("x"), 0}}, "F1002 "},
    {"5.2 RSV3", {{FIN | TEXT | 0x10, B("x"), 0}}, "F1002 "},
    {"5.2 RSV on ping", {{PING | 0x70, B("x"), 0}}, "F1002 "},
    {"5.2 RSV on close", {{CLOSE | 0x40, B("\x03\xe8"), 0}}, "F1002 "},
    {"5.2 RSV after a good one",
     {{FIN | TEXT, B("a"), 0}, {FIN | TEXT | 0x40, B("b"), 0}},
     "T1:a F1002 "},
    /* 5.2 opcodes */
    {"5.2 opcode 3", {{FIN | 3, "", 0, 0}}, "F1002 "},
    {"5.2 opcode 4", {{FIN | 4, B("x"), 0}}, "F1002 "},
    {"5.2 opcode 5", {{FIN | 5, "", 0, 0}}, "F1002 "},
    {"5.2 opcode 6", {{FIN | 6, "", 0, 0}}, "F1002 "},
    {"5.2 opcode 7", {{FIN | 7, B("x"), 0}}, "F1002 "},
    {"5.2 opcode 11", {{FIN | 11, "", 0, 0}}, "F1002 "},
    {"5.2 opcode 12", {{FIN | 12, B("x"), 0}}, "F1002 "},
    {"5.2 opcode 13", {{FIN | 13, "", 0, 0}}, "F1002 "},
    {"5.2 opcode 14", {{FIN | 14, "", 0, 0}}, "F1002 "},
    {"5.2 opcode 15", {{FIN | 15, B("x"), 0}}, "F1002 "},
    {"5.2 opcode 3 inside a message", {{TEXT, B("x"), 0}, {FIN | 3, "", 0, 0}}, "F1002 "},
    /* 5.4 fragmentation */
    {"5.4 two", {{TEXT, B("hel"), 0}, {FIN | CONT, B("lo"), 0}}, "T5:hello "},
    {"5.4 three", {{BINARY, B("a"), 0}, {CONT, B("b"), 0}, {FIN | CONT, B("c"), 0}}, "B3:abc "},
    {"5.4 empty ones", {{TEXT, "", 0, 0}, {CONT, "", 0, 0}, {FIN | CONT, "", 0, 0}}, "T0: "},
    {"5.4 empty but the last",
     {{TEXT, "", 0, 0}, {CONT, "", 0, 0}, {FIN | CONT, B("x"), 0}},
     "T1:x "},
    {"5.4 empty but the first",
     {{TEXT, B("x"), 0}, {CONT, "", 0, 0}, {FIN | CONT, "", 0, 0}},
     "T1:x "},
    {"5.4 empty but the middle",
     {{TEXT, "", 0, 0}, {CONT, B("x"), 0}, {FIN | CONT, "", 0, 0}},
     "T1:x "},
    {"5.4 ping between",
     {{TEXT, B("a"), 0}, {PING, B("p"), 0}, {FIN | CONT, B("b"), 0}},
     "P1:p T2:ab "},
    {"5.4 many controls between",
     {{TEXT, B("a"), 0},
      {PING, B("1"), 0},
      {CONT, B("b"), 0},
      {PONG, B("2"), 0},
      {PING, "", 0, 0},
      {FIN | CONT, B("c"), 0}},
     "P1:1 O1:2 P0: T3:abc "},
    {"5.4 close between",
     {{TEXT, B("a"), 0}, {CLOSE, "", 0, 0}, {FIN | CONT, B("b"), 0}},
     "C1005: "},
    {"5.4 continuation without start", {{FIN | CONT, B("x"), 0}}, "F1002 "},
    {"5.4 continuation without start, not final", {{CONT, B("x"), 0}}, "F1002 "},
    {"5.4 continuation after the end",
     {{TEXT, B("a"), 0}, {FIN | CONT, B("b"), 0}, {FIN | CONT, B("c"), 0}},
     "T2:ab F1002 "},
    {"5.4 text inside", {{TEXT, B("a"), 0}, {FIN | TEXT, B("b"), 0}}, "F1002 "},
    {"5.4 binary inside, fragmented", {{TEXT, B("a"), 0}, {BINARY, B("b"), 0}}, "F1002 "},
    {"5.4 ping then text inside",
     {{TEXT, B("a"), 0}, {PING, "", 0, 0}, {FIN | TEXT, B("b"), 0}},
     "P0: F1002 "},
    {"5.4 limit reached",
     {{TEXT, B("1"), 0},
      {CONT, B("2"), 0},
      {CONT, B("3"), 0},
      {CONT, B("4"), 0},
      {CONT, B("5"), 0},
      {CONT, B("6"), 0},
      {CONT, B("7"), 0},
      {FIN | CONT, B("8"), 0}},
     "T8:12345678 "},
    {"5.4 limit passed",
     {{TEXT, "", 0, 0},
      {CONT, "", 0, 0},
      {CONT, "", 0, 0},
      {CONT, "", 0, 0},
      {CONT, "", 0, 0},
      {CONT, "", 0, 0},
      {CONT, "", 0, 0},
      {CONT, "", 0, 0}},
     ""},
    /* 5.5 control frames */
    {"5.5.2 ping", {{PING, B("payload"), 0}}, "P7:payload "},
    {"5.5.2 ping without payload", {{PING, "", 0, 0}}, "P0: "},
    {"5.5.2 ping with any bytes", {{PING, B("\xff\x80"), 0}}, "P2:\xff\x80 "},
    {"5.5.3 pong unasked", {{PONG, B("x"), 0}, {FIN | TEXT, B("y"), 0}}, "O1:x T1:y "},
    {"5.5 fragmented ping", {{PING & 0x0f, B("x"), 0}, {FIN | CONT, B("y"), 0}}, "F1002 "},
    {"5.5 fragmented pong", {{PONG & 0x0f, "", 0, 0}}, "F1002 "},
    {"5.5 fragmented close", {{CLOSE & 0x0f, "", 0, 0}}, "F1002 "},
    {"5.5 ping with a 16-bit length", {{PING, B("x"), LENGTH_16}}, "F1002 "},
    {"5.5 ping with a 64-bit length", {{PING, B("x"), LENGTH_64}}, "F1002 "},
    /* 5.5.1, 7.4 close */
    {"7.4 no status", {{CLOSE, "", 0, 0}}, "C1005: "},
    {"5.5.1 one byte", {{CLOSE, B("\x03"), 0}}, "F1002 "},
    {"7.4.1 normal", {{CLOSE, B("\x03\xe8"), 0}}, "C1000: "},
    {"7.4.1 reason", {{CLOSE, B("\x03\xe9going"), 0}}, "C1001:going "},
    {"7.4.1 reserved 1005", {{CLOSE, B("\x03\xed"), 0}}, "F1002 "},
    {"7.4.2 private", {{CLOSE, B("\x0f\xa0mine"), 0}}, "C4000:mine "},
    {"8.1 reason is not UTF-8", {{CLOSE, B("\x03\xe8\xce\xba\xe1"), 0}}, "F1007 "},
    {"8.1 reason with overlong", {{CLOSE, B("\x03\xe8\xc0\x80"), 0}}, "F1007 "},
    {"5.5.1 text after close", {{CLOSE, B("\x03\xe8"), 0}, {FIN | TEXT, B("late"), 0}}, "C1000: "},
    {"5.5.1 ping after close", {{CLOSE, B("\x03\xe8"), 0}, {PING, B("late"), 0}}, "C1000: "},
    {"5.5.1 close twice", {{CLOSE, B("\x03\xe8"), 0}, {CLOSE, B("\x03\xe9"), 0}}, "C1000: "},
    {"5.5.1 garbage after close", {{CLOSE, "", 0, 0}, {0xff, B("x"), MASK_WRONG}}, "C1005: "},
    /* 8.1 UTF-8 */
    {"8.1 kosme",
     {{FIN | TEXT, B("\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5"), 0}},
     "T11:\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5 "},
    {"8.1 highest", {{FIN | TEXT, B("\xf4\x8f\xbf\xbf"), 0}}, "T4:\xf4\x8f\xbf\xbf "},
    {"8.1 above the highest", {{FIN | TEXT, B("\xf4\x90\x80\x80"), 0}}, "F1007 "},
    {"8.1 surrogate", {{FIN | TEXT, B("\xed\xa0\x80"), 0}}, "F1007 "},
    {"8.1 lone continuation", {{FIN | TEXT, B("\x80"), 0}}, "F1007 "},
    {"8.1 cut at the end", {{FIN | TEXT, B("ab\xe2\x82"), 0}}, "F1007 "},
    {"8.1 split between fragments",
     {{TEXT, B("\xe2\x82"), 0}, {FIN | CONT, B("\xac"), 0}},
     "T3:\xe2\x82\xac "},
    {"8.1 split around a ping",
     {{TEXT, B("\xf0\x9f"), 0}, {PING, B("\xf0"), 0}, {FIN | CONT, B("\x98\x80"), 0}},
     "P1:\xf0 T4:\xf0\x9f\x98\x80 "},
    {"8.1 broken by the next fragment",
     {{TEXT, B("\xe2\x82"), 0}, {FIN | CONT, B("x"), 0}},
     "F1007 "},
    {"8.1 fails before the message ends", {{TEXT, B("\xff"), 0}}, "F1007 "},
    {"8.1 not for binary",
     {{FIN | BINARY, B("\xff\xff"), 0}, {FIN | TEXT, B("ok"), 0}},
     "B2:\xff\xff T2:ok "},
    {"8.1 state does not leak",
     {{FIN | TEXT, B("\xe2\x82\xac"), 0}, {FIN | TEXT, B("a"), 0}},
     "T3:\xe2\x82\xac T1:a "},
};

static void test_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(table); i++) {
        for (int to_client = 0; to_client < 2; to_client++) {
            struct buffer b = buffer_of(stream_data, sizeof stream_data);
            for (size_t f = 0; f < COUNT_OF(table[i].frames); f++)
                if (table[i].frames[f].payload != NULL)
                    put_frame(&b, &table[i].frames[f], to_client != 0);
            assert_outcome(table[i].name, to_client != 0 ? &client_limits : &server_limits,
                           buffer_bytes(&b), table[i].expected);
        }
    }
}

static void test_fragments_max(void **state)
{
    (void)state;
    struct buffer b = buffer_of(stream_data, sizeof stream_data);
    for (size_t i = 0; i <= FRAGMENTS_MAX; i++) {
        struct frame f = {i == 0 ? TEXT : CONT, "", 0, PLAIN};
        put_frame(&b, &f, false);
    }
    assert_outcome("fragments", &server_limits, buffer_bytes(&b), "F1009 ");
}

/* 5.4: a text in two and three fragments, cut at every byte, also inside characters. */
static void test_every_split(void **state)
{
    (void)state;
    static const char text[] = "H\xc2\xb5l\xe2\x82\xac\xf0\x9f\x98\x80!";
    size_t size = sizeof text - 1;
    char expected[64];
    snprintf(expected, sizeof expected, "T%zu:%s ", size, text);
    for (size_t a = 0; a <= size; a++) {
        for (size_t c = a; c <= size; c++) {
            struct buffer b = buffer_of(stream_data, sizeof stream_data);
            struct frame frames[3] = {{TEXT, text, a, 0},
                                      {CONT, text + a, c - a, 0},
                                      {FIN | CONT, text + c, size - c, 0}};
            for (size_t i = 0; i < 3; i++) {
                if (frames[i].size == 0)
                    frames[i].payload = "";
                put_frame(&b, &frames[i], false);
            }
            assert_outcome("split", &server_limits, buffer_bytes(&b), expected);
        }
    }
}

static void test_lengths(void **state)
{
    (void)state;
    static const size_t sizes[] = {1,    124,  125,  126,   127,   128,   4095,
                                   4096, 4097, 8192, 65535, 65536, 70000, 70001};
    char *payload = malloc(STREAM_BYTES);
    memset(payload, 'x', STREAM_BYTES);
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        char expected[128];
        snprintf(expected, sizeof expected, "B%zu:%.*s ", sizes[i],
                 sizes[i] > 60 ? 60 : (int)sizes[i], payload);
        if (sizes[i] > MESSAGE_BYTES_MAX)
            snprintf(expected, sizeof expected, "F1009 ");
        struct buffer b = buffer_of(stream_data, sizeof stream_data);
        struct frame f = {FIN | BINARY, payload, sizes[i], PLAIN};
        put_frame(&b, &f, false);
        assert_outcome("length", &server_limits, buffer_bytes(&b), expected);
        b.size = 0;
        struct frame ping = {PING, payload, sizes[i], PLAIN};
        put_frame(&b, &ping, false);
        if (sizes[i] <= 125)
            expected[0] = 'P';
        assert_outcome("control length", &server_limits, buffer_bytes(&b),
                       sizes[i] <= 125 ? expected : "F1002 ");
    }
    free(payload);
}

/* The size is judged by the header: nothing of the body is waited for or buffered. */
static void test_too_big_at_the_header(void **state)
{
    (void)state;
    int64_t before = memory_bytes(MEMORY_CONNECTION);
    static const uint8_t header[] = {FIN | BINARY, 0x80 | 127, 0,    0,   0, 1, 0, 0, 0, 0,
                                     0x11,         0x22,       0x33, 0x44};
    assert_outcome("4 GiB announced", &server_limits, bytes_of(header, sizeof header), "F1009 ");
    struct buffer b = buffer_of(stream_data, sizeof stream_data);
    char *payload = malloc(MESSAGE_BYTES_MAX);
    memset(payload, 'x', MESSAGE_BYTES_MAX);
    struct frame first = {BINARY, payload, MESSAGE_BYTES_MAX - 1, PLAIN};
    put_frame(&b, &first, false);
    static const uint8_t second[] = {FIN | CONT, 0x80 | 2, 1, 2, 3, 4};
    put(&b, second, sizeof second);
    assert_outcome("over it with the second", &server_limits, buffer_bytes(&b), "F1009 ");
    free(payload);
    websocket_engine_destroy(engine);
    assert_int_equal(websocket_engine_create(&engine, entropy, NULL), OK);
    assert_true(memory_bytes(MEMORY_CONNECTION) <= before);
}

static bool close_code_good(unsigned code)
{
    return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
           (code >= 3000 && code <= 4999);
}

static void test_every_close_code(void **state)
{
    (void)state;
    for (unsigned code = 0; code < 65536; code++) {
        char payload[2] = {(char)(code >> 8), (char)code};
        struct buffer b = buffer_of(stream_data, sizeof stream_data);
        struct frame f = {CLOSE, payload, 2, PLAIN};
        put_frame(&b, &f, false);
        char log[LOG_BYTES] = "", expected[16];
        struct websocket w = {0};
        feed(&w, &server_limits, buffer_bytes(&b), 0, log);
        snprintf(expected, sizeof expected, close_code_good(code) ? "C%u: " : "F1002 ", code);
        assert_string_equal(log, expected);
        websocket_deinit(&w, engine);
    }
}

static void utf8_try(const char *text, size_t size)
{
    struct buffer b = buffer_of(stream_data, sizeof stream_data);
    struct frame f = {FIN | TEXT, text, size, PLAIN};
    put_frame(&b, &f, false);
    struct bytes input = buffer_bytes(&b);
    struct websocket w = {0};
    struct websocket_message m;
    enum websocket_result result = websocket_receive(&w, engine, &server_limits, &input, &m);
    bool valid = utf8_valid(bytes_of(text, size));
    assert_int_equal(result, valid ? WEBSOCKET_MESSAGE : WEBSOCKET_FAILED);
    if (!valid)
        assert_int_equal(m.close_code, 1007);
}

/* All sequences of up to three bytes, and four where the first asks for it, against core/text. */
static void test_utf8_exhaustive(void **state)
{
    (void)state;
    char text[12];
    for (unsigned v = 0; v < 1 << 16; v++) {
        text[0] = (char)(v >> 8);
        text[1] = (char)v;
        utf8_try(text + 1, 1);
        utf8_try(text, 2);
    }
    static const uint8_t edges[] = {0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xff};
    for (unsigned first = 0x80; first < 0x100; first++) {
        for (size_t i = 0; i < COUNT_OF(edges) * COUNT_OF(edges) * COUNT_OF(edges); i++) {
            text[0] = (char)first;
            text[1] = (char)edges[i % COUNT_OF(edges)];
            text[2] = (char)edges[i / COUNT_OF(edges) % COUNT_OF(edges)];
            text[3] = (char)edges[i / COUNT_OF(edges) / COUNT_OF(edges)];
            utf8_try(text, 3);
            utf8_try(text, 4);
            memcpy(text + 4, "abcdefgh", 8); /* behind it, the fast path */
            utf8_try(text, 12);
        }
    }
}

/* RFC 6455 8.1: the failure comes with the byte, not with the message's end. */
static void test_utf8_fails_fast(void **state)
{
    (void)state;
    struct buffer b = buffer_of(stream_data, sizeof stream_data);
    struct frame f = {TEXT, "abc\xf4\x90zzz", 8, PLAIN};
    put_frame(&b, &f, false);
    struct websocket w = {0};
    struct websocket_message m;
    for (size_t i = 0; i < b.size; i++) {
        struct bytes input = bytes_of(b.data + i, 1);
        enum websocket_result result = websocket_receive(&w, engine, &server_limits, &input, &m);
        assert_int_equal(result, i == 6 + 4 ? WEBSOCKET_FAILED : WEBSOCKET_MORE);
        if (result == WEBSOCKET_FAILED)
            break;
    }
    assert_int_equal(m.close_code, 1007);
}

/* ---- memory */

static void test_idle(void **state)
{
    (void)state;
    struct websocket w = {0};
    char log[LOG_BYTES] = "";
    struct buffer b = buffer_of(stream_data, sizeof stream_data);
    struct frame whole = {FIN | TEXT, "whole", 0, PLAIN};
    struct frame first = {TEXT, "first", 0, PLAIN};
    struct frame last = {FIN | CONT, "last", 0, PLAIN};
    assert_true(websocket_idle(&w));
    put_frame(&b, &whole, false);
    feed(&w, &server_limits, bytes_of(b.data, 1), 0, log);
    assert_false(websocket_idle(&w));
    feed(&w, &server_limits, bytes_of(b.data + 1, b.size - 1), 0, log);
    assert_true(websocket_idle(&w));
    b.size = 0;
    put_frame(&b, &first, false);
    feed(&w, &server_limits, buffer_bytes(&b), 0, log);
    assert_false(websocket_idle(&w));
    b.size = 0;
    put_frame(&b, &last, false);
    feed(&w, &server_limits, buffer_bytes(&b), 0, log);
    assert_true(websocket_idle(&w));
    assert_string_equal(log, "T5:whole T9:firstlast ");
}

/* A thousand connections with complete messages share what one needs. */
static void test_parsers_are_lent(void **state)
{
    (void)state;
    struct buffer b = buffer_of(stream_data, sizeof stream_data);
    struct frame f = {FIN | TEXT, "text", 0, PLAIN};
    put_frame(&b, &f, false);
    int64_t before = 0;
    struct websocket *many = calloc(1000, sizeof *many);
    for (size_t i = 0; i < 1000; i++) {
        char log[LOG_BYTES] = "";
        feed(&many[i], &server_limits, buffer_bytes(&b), 0, log);
        if (i == 0)
            before = memory_bytes(MEMORY_CONNECTION);
    }
    assert_int_equal(memory_bytes(MEMORY_CONNECTION), before);
    for (size_t i = 0; i < 1000; i++) { /* all in the middle of a frame, then all gone */
        char log[LOG_BYTES] = "";
        feed(&many[i], &server_limits, bytes_of(b.data, 3), 0, log);
    }
    assert_true(memory_bytes(MEMORY_CONNECTION) > before);
    for (size_t i = 0; i < 1000; i++) {
        char log[LOG_BYTES] = "";
        feed(&many[i], &server_limits, bytes_of(b.data + 3, b.size - 3), 0, log);
        assert_string_equal(log, "T4:text ");
    }
    assert_true(memory_bytes(MEMORY_CONNECTION) < before + 40 * 1024);
    free(many);
}

static void test_out_of_memory(void **state)
{
    (void)state;
    char *payload = malloc(9000);
    memset(payload, 'x', 9000);
    struct buffer b = buffer_of(stream_data, sizeof stream_data);
    struct frame frames[2] = {{BINARY, payload, 9000, PLAIN}, {FIN | CONT, payload, 9000, PLAIN}};
    put_frame(&b, &frames[0], false);
    put_frame(&b, &frames[1], false);
    for (uint64_t n = 1;; n++) {
        struct websocket w = {0};
        char log[LOG_BYTES] = "";
        assert_true(n < 100);
        memory_fail_at(n);
        bool good = feed(&w, &server_limits, buffer_bytes(&b), 2, log);
        memory_fail_at(0);
        websocket_deinit(&w, engine);
        if (good)
            break;
        assert_string_equal(log, "F1011 ");
    }
    free(payload);
}

/* ---- sending */

static void test_send_round_trip(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 125, 126, 65535, 65536, 69999};
    uint8_t *payload = malloc(MESSAGE_BYTES_MAX);
    entropy(NULL, payload, MESSAGE_BYTES_MAX);
    for (size_t i = 0; i < COUNT_OF(sizes) * 2; i++) {
        size_t size = sizes[i / 2];
        bool client = i % 2 != 0;
        const struct websocket_limits *self = client ? &client_limits : &server_limits;
        const struct websocket_limits *peer = client ? &server_limits : &client_limits;
        size_t header = (size < 126 ? 2u : size < 65536 ? 4u : 10u) + (client ? 4u : 0u);
        assert_true(header <= WEBSOCKET_FRAME_OVERHEAD);
        for (size_t lack = 0; lack <= 2; lack++) {
            struct buffer b = buffer_of(stream_data, header + size - lack);
            enum err err =
                websocket_frame(&b, engine, self, WEBSOCKET_BINARY, bytes_of(payload, size));
            assert_int_equal(err, lack == 0 ? OK : ERR_FULL);
            assert_int_equal(b.size, lack == 0 ? header + size : 0);
            if (lack != 0)
                continue;
            assert_int_equal((b.data[1] & 0x80) != 0, client);
            if (client && size > 100) /* RFC 6455 5.3: masked with fresh entropy */
                assert_memory_not_equal(b.data + header, payload, size);
            struct bytes input = buffer_bytes(&b);
            struct websocket w = {0};
            struct websocket_message m;
            assert_int_equal(websocket_receive(&w, engine, peer, &input, &m), WEBSOCKET_MESSAGE);
            assert_int_equal(m.opcode, WEBSOCKET_BINARY);
            assert_int_equal(m.data.size, size);
            assert_memory_equal(m.data.data, payload, size);
        }
    }
    free(payload);
}

static void test_send_controls(void **state)
{
    (void)state;
    char log[LOG_BYTES] = "";
    struct buffer b = buffer_of(stream_data, sizeof stream_data);
    char longest[200];
    memset(longest, 'r', sizeof longest);
    memcpy(longest + 121, "\xe2\x82\xac", 3); /* would be cut in the middle */
    longest[199] = '\0';
    assert_int_equal(
        websocket_frame(&b, engine, &server_limits, WEBSOCKET_PING, bytes_of_text("are you there")),
        OK);
    assert_int_equal(
        websocket_frame(&b, engine, &server_limits, WEBSOCKET_TEXT, bytes_of_text("text")), OK);
    struct websocket w = {0};
    feed(&w, &client_limits, buffer_bytes(&b), 0, log);
    assert_string_equal(log, "P13:are you there T4:text ");
    static const struct {
        uint16_t code;
        const char *reason;
        const char *expected;
    } cases[] = {{1000, "bye", "C1000:bye "}, {1001, NULL, "C1001: "}, {1005, NULL, "C1005: "}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        b.size = 0;
        log[0] = '\0';
        w = (struct websocket){0};
        assert_int_equal(
            websocket_frame_close(&b, engine, &server_limits, cases[i].code, cases[i].reason), OK);
        feed(&w, &client_limits, buffer_bytes(&b), 0, log);
        assert_string_equal(log, cases[i].expected);
    }
    b.size = 0;
    assert_int_equal(websocket_frame_close(&b, engine, &client_limits, 1002, longest), OK);
    assert_int_equal(b.size, 2 + 4 + 2 + 121);
    struct buffer small = buffer_of(stream_data, 3);
    assert_int_equal(websocket_frame_close(&small, engine, &server_limits, 1000, "x"), ERR_FULL);
    assert_int_equal(small.size, 0);
}

/* ---- the handshake's key */

static void test_accept_key(void **state)
{
    (void)state;
    char out[29];
    assert_int_equal(websocket_accept_key(out, bytes_of_text("dGhlIHNhbXBsZSBub25jZQ==")), OK);
    assert_string_equal(out, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="); /* RFC 6455 1.3 */
    static const char *const bad[] = {"",
                                      "dGhlIHNhbXBsZSBub25jZQ",
                                      "dGhlIHNhbXBsZSBub25jZQ=",
                                      "dGhlIHNhbXBsZSBub25jZSE=",
                                      "dGhlIHNhbXBsZSBub25jZ!==",
                                      "dGhlIHNhbXBsZSBub25jZQ==x"};
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        assert_int_equal(websocket_accept_key(out, bytes_of_text(bad[i])), ERR_INVALID);
}

static int setup(void **state)
{
    (void)state;
    return websocket_engine_create(&engine, entropy, NULL) == OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    websocket_engine_destroy(engine);
    return memory_bytes(MEMORY_CONNECTION) == 0 ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_fragments_max),
        cmocka_unit_test(test_every_split),
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_too_big_at_the_header),
        cmocka_unit_test(test_every_close_code),
        cmocka_unit_test(test_utf8_exhaustive),
        cmocka_unit_test(test_utf8_fails_fast),
        cmocka_unit_test(test_idle),
        cmocka_unit_test(test_parsers_are_lent),
        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_send_round_trip),
        cmocka_unit_test(test_send_controls),
        cmocka_unit_test(test_accept_key),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
