/* test_http.c: requests and responses as tables, each fed whole, byte by byte and in random chops.
 */
#include "gateway/wire/http.h"

#include "core/memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define RANDOM_CHOPS 10

static const struct http_limits limits = {
    .header_bytes_max = 512, .header_fields_max = 8, .body_bytes_max = 64};
static uint32_t random_state = 1;

static uint32_t random_next(void)
{
    random_state = random_state * 1664525u + 1013904223u;
    return random_state >> 8;
}

/* run: feeds a reader until it ends; the input's rest is in *rest. The bytes are copied, so that a
 * request that points into the input is seen. */
static enum err run(struct http_reader *reader, struct bytes stream, size_t chop,
                    struct http_request *out, size_t *rest)
{
    enum err err = ERR_AGAIN;
    while (stream.size != 0 && err == ERR_AGAIN) {
        size_t size = chop == 0 ? stream.size : chop == 1 ? 1 : 1 + random_next() % 20;
        size = size > stream.size ? stream.size : size;
        uint8_t *copy = malloc(size);
        memcpy(copy, stream.data, size);
        struct bytes input = bytes_of(copy, size);
        err = http_receive(reader, &input, out);
        if (err == ERR_AGAIN)
            assert_int_equal(input.size, 0);
        stream = bytes_skip(stream, size - input.size);
        free(copy);
    }
    *rest = stream.size;
    return err;
}

static void describe(char *text, size_t size, const struct http_request *r)
{
    snprintf(text, size, "%.*s|%.*s|%.*s|%zu|%.*s|%s%s", (int)r->method.size, r->method.data,
             (int)r->path.size, r->path.data, (int)r->query.size, r->query.data, r->field_count,
             (int)r->body.size, r->body.data, r->keep_alive ? "k" : "", r->upgrade ? "u" : "");
}

struct request_case {
    const char *name;
    const char *input;
    const char *expected; /* method|path|query|fields|body|flags */
    const char *rest;
};

#define HOST "Host: h\r\n"

static const struct request_case good[] = {
    {"plain", "GET / HTTP/1.1\r\n" HOST "\r\n", "GET|/||1||k", ""},
    {"query", "GET /a/b?x=1&y HTTP/1.1\r\n" HOST "\r\n", "GET|/a/b|x=1&y|1||k", ""},
    {"empty query", "GET /? HTTP/1.1\r\n" HOST "\r\n", "GET|/||1||k", ""},
    {"question marks", "GET /a?b?c HTTP/1.1\r\n" HOST "\r\n", "GET|/a|b?c|1||k", ""},
    {"close", "GET / HTTP/1.1\r\n" HOST "Connection: close\r\n\r\n", "GET|/||2||", ""},
    {"1.0", "GET / HTTP/1.0\r\n\r\n", "GET|/||0||", ""},
    {"1.0 keep-alive", "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "GET|/||1||k", ""},
    {"1.0 never upgrades", "GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
     "GET|/||2||", ""},
    {"pipelined", "GET /1 HTTP/1.1\r\n" HOST "\r\nGET /2 HTTP/1.1\r\n", "GET|/1||1||k",
     "GET /2 HTTP/1.1\r\n"},
    {"body", "POST /p HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\nhelloGET", "POST|/p||2|hello|k",
     "GET"},
    {"empty body", "POST /p HTTP/1.1\r\n" HOST "Content-Length: 0\r\n\r\nx", "POST|/p||2||k", "x"},
    {"body and close",
     "POST / HTTP/1.1\r\n" HOST "Connection: close\r\nContent-Length: 2\r\n\r\nab", "POST|/||3|ab|",
     ""},
    {"longest body",
     "POST / HTTP/1.1\r\n" HOST "Content-Length: 64\r\n\r\n"
     "0123456789012345678901234567890123456789012345678901234567890123rest",
     "POST|/||2|0123456789012345678901234567890123456789012345678901234567890123|k", "rest"},
    {"chunked",
     "POST / HTTP/1.1\r\n" HOST
     "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\nnext",
     "POST|/||2|abcde|k", "next"},
    {"chunked, only the end",
     "PUT / HTTP/1.1\r\n" HOST "Transfer-Encoding: Chunked\r\n\r\n0\r\n\r\n", "PUT|/||2||k", ""},
    {"chunked with a trailer",
     "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n00A\r\n0123456789\r\n0\r\n"
     "X-Sum: 1\r\n\r\nz",
     "POST|/||2|0123456789|k", "z"},
    {"data like a chunk",
     "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n7\r\n0\r\n\r\n\r\n\r\n0\r\n\r\n",
     "POST|/||2|0\r\n\r\n\r\n|k", ""},
    {"upgrade",
     "GET /c HTTP/1.1\r\n" HOST
     "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x80",
     "GET|/c||3||ku", "\x81\x80"},
    {"upgrade after a body",
     "POST /c HTTP/1.1\r\n" HOST
     "Connection: Upgrade\r\nUpgrade: x\r\nContent-Length: 2\r\n\r\nab\x81",
     "POST|/c||4|ab|ku", "\x81"},
    {"absolute form", "GET http://h:80/x/y?z HTTP/1.1\r\n" HOST "\r\n", "GET|/x/y|z|1||k", ""},
    {"absolute form without path", "GET http://h HTTP/1.1\r\n" HOST "\r\n", "GET|/||1||k", ""},
    {"absolute form, query only", "GET http://h?q HTTP/1.1\r\n" HOST "\r\n", "GET|/|q|1||k", ""},
    {"asterisk form", "OPTIONS * HTTP/1.1\r\n" HOST "\r\n", "OPTIONS|*||1||k", ""},
    {"empty lines before", "\r\n\r\nGET / HTTP/1.1\r\n" HOST "\r\n", "GET|/||1||k", ""},
    {"empty value", "GET / HTTP/1.1\r\n" HOST "X:\r\nY:   \r\n\r\n", "GET|/||3||k", ""},
    {"high bytes in a value", "GET / HTTP/1.1\r\n" HOST "X: \xc3\xa9\r\n\r\n", "GET|/||2||k", ""},
    {"as many fields as allowed",
     "GET / HTTP/1.1\r\n" HOST "a:1\r\nb:1\r\nc:1\r\nd:1\r\ne:1\r\nf:1\r\ng:1\r\n\r\n",
     "GET|/||8||k", ""},
};

static void test_good_requests(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(good); i++) {
        for (size_t chop = 0; chop < 2 + RANDOM_CHOPS; chop++) {
            struct http_reader *reader;
            struct http_request request;
            size_t rest;
            assert_int_equal(http_reader_create(&reader, &limits, false), OK);
            assert_true(http_reader_idle(reader));
            enum err err = run(reader, bytes_of_text(good[i].input), chop, &request, &rest);
            if (err != OK)
                fail_msg("%s, chop %zu: %s, status %u", good[i].name, chop, err_name(err),
                         http_reader_status(reader));
            char text[1024];
            describe(text, sizeof text, &request);
            if (strcmp(text, good[i].expected) != 0)
                fail_msg("%s: \"%s\", expected \"%s\"", good[i].name, text, good[i].expected);
            assert_int_equal(rest, strlen(good[i].rest));
            assert_false(http_reader_idle(reader));
            http_next(reader);
            assert_true(http_reader_idle(reader));
            http_reader_destroy(reader);
        }
    }
    assert_int_equal(memory_bytes(MEMORY_API), 0);
}

struct bad_case {
    const char *name;
    const char *input;
    unsigned status;
    enum err err;
};

#define CHUNKED "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n"
#define LONG_64 "0123456789012345678901234567890123456789012345678901234567890123"

static const struct bad_case bad[] = {
    /* line ends and control bytes */
    {"bare LF after the request line", "GET / HTTP/1.1\nHost: h\r\n\r\n", 400, ERR_INVALID},
    {"bare LF after a field", "GET / HTTP/1.1\r\nHost: h\n\r\n", 400, ERR_INVALID},
    {"bare LF as the end", "GET / HTTP/1.1\r\nHost: h\r\n\n", 400, ERR_INVALID},
    {"bare CR in a value", "GET / HTTP/1.1\r\nHost: h\rX: y\r\n\r\n", 400, ERR_INVALID},
    {"CR CR LF", "GET / HTTP/1.1\r\nHost: h\r\r\n\r\n", 400, ERR_INVALID},
    {"control byte in a value", "GET / HTTP/1.1\r\nHost: h\x01\r\n\r\n", 400, ERR_INVALID},
    {"DEL in a value", "GET / HTTP/1.1\r\nHost: h\x7f\r\n\r\n", 400, ERR_INVALID},
    {"obs-fold", "GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n", 400, ERR_INVALID},
    {"obs-fold with a tab", "GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n\tb\r\n\r\n", 400, ERR_INVALID},
    {"blank before the first field", "GET / HTTP/1.1\r\n Host: h\r\n\r\n", 400, ERR_INVALID},
    /* request line */
    {"unknown method", "BREW / HTTP/1.1\r\n" HOST "\r\n", 501, ERR_UNSUPPORTED},
    {"method in lower case", "get / HTTP/1.1\r\n" HOST "\r\n", 501, ERR_UNSUPPORTED},
    {"no method", " / HTTP/1.1\r\n" HOST "\r\n", 400, ERR_INVALID},
    {"TLS", "\x16\x03\x01\r\n\r\n", 400, ERR_INVALID},
    {"CONNECT", "CONNECT h:443 HTTP/1.1\r\n" HOST "\r\n", 501, ERR_UNSUPPORTED},
    {"two blanks", "GET  / HTTP/1.1\r\n" HOST "\r\n", 400, ERR_INVALID},
    {"two blanks before the version", "GET /  HTTP/1.1\r\n" HOST "\r\n", 400, ERR_INVALID},
    {"blank at the end", "GET / HTTP/1.1 \r\n" HOST "\r\n", 400, ERR_INVALID},
    {"tab for blank", "GET\t/ HTTP/1.1\r\n" HOST "\r\n", 400, ERR_INVALID},
    {"no target", "GET HTTP/1.1\r\n" HOST "\r\n", 400, ERR_INVALID},
    {"fragment", "GET /a#b HTTP/1.1\r\n" HOST "\r\n", 400, ERR_INVALID},
    {"high byte in the target", "GET /\xc3\xa9 HTTP/1.1\r\n" HOST "\r\n", 400, ERR_INVALID},
    {"user in absolute form", "GET http://u@h/ HTTP/1.1\r\n" HOST "\r\n", 400, ERR_INVALID},
    {"0.9", "GET /\r\n\r\n", 400, ERR_INVALID},
    {"1.2", "GET / HTTP/1.2\r\n" HOST "\r\n", 505, ERR_UNSUPPORTED},
    {"2.0", "GET / HTTP/2.0\r\n" HOST "\r\n", 505, ERR_UNSUPPORTED},
    {"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 501, ERR_UNSUPPORTED},
    {"letters for a version", "GET / HTTP/x.y\r\n" HOST "\r\n", 400, ERR_INVALID},
    {"another protocol", "GET / ICE/1.1\r\n" HOST "\r\n", 400, ERR_INVALID},
    /* fields */
    {"no Host", "GET / HTTP/1.1\r\n\r\n", 400, ERR_INVALID},
    {"two Hosts", "GET / HTTP/1.1\r\n" HOST HOST "\r\n", 400, ERR_INVALID},
    {"blank in Host", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, ERR_INVALID},
    {"blank before the colon", "GET / HTTP/1.1\r\n" HOST "X : y\r\n\r\n", 400, ERR_INVALID},
    {"no colon", "GET / HTTP/1.1\r\n" HOST "X y\r\n\r\n", 400, ERR_INVALID},
    {"no name", "GET / HTTP/1.1\r\n" HOST ": y\r\n\r\n", 400, ERR_INVALID},
    {"bad name", "GET / HTTP/1.1\r\n" HOST "X(y): z\r\n\r\n", 400, ERR_INVALID},
    {"too many fields",
     "GET / HTTP/1.1\r\n" HOST "a:1\r\nb:1\r\nc:1\r\nd:1\r\ne:1\r\nf:1\r\ng:1\r\nh:1\r\n\r\n", 431,
     ERR_TOO_BIG},
    {"too many header bytes",
     "GET / HTTP/1.1\r\n" HOST "X: " LONG_64 LONG_64 LONG_64 LONG_64 LONG_64 LONG_64 LONG_64 LONG_64
     "\r\n\r\n",
     431, ERR_TOO_BIG},
    {"too long a target",
     "GET /" LONG_64 LONG_64 LONG_64 LONG_64 LONG_64 LONG_64 LONG_64 LONG_64 " HTTP/1.1\r\n\r\n",
     414, ERR_TOO_BIG},
    {"unknown expectation", "POST / HTTP/1.1\r\n" HOST "Expect: tea\r\nContent-Length: 1\r\n\r\n",
     417, ERR_UNSUPPORTED},
    /* where the body ends */
    {"both lengths",
     "POST / HTTP/1.1\r\n" HOST "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
     400, ERR_INVALID},
    {"both lengths, other order",
     "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
     400, ERR_INVALID},
    {"two lengths", "POST / HTTP/1.1\r\n" HOST "Content-Length: 1\r\nContent-Length: 1\r\n\r\na",
     400, ERR_INVALID},
    {"list of lengths", "POST / HTTP/1.1\r\n" HOST "Content-Length: 1, 1\r\n\r\na", 400,
     ERR_INVALID},
    {"negative length", "POST / HTTP/1.1\r\n" HOST "Content-Length: -1\r\n\r\n", 400, ERR_INVALID},
    {"length with a plus", "POST / HTTP/1.1\r\n" HOST "Content-Length: +1\r\n\r\n", 400,
     ERR_INVALID},
    {"hexadecimal length", "POST / HTTP/1.1\r\n" HOST "Content-Length: 0x1\r\n\r\n", 400,
     ERR_INVALID},
    {"empty length", "POST / HTTP/1.1\r\n" HOST "Content-Length:\r\n\r\n", 400, ERR_INVALID},
    {"length beyond 64 bits",
     "POST / HTTP/1.1\r\n" HOST "Content-Length: 99999999999999999999999\r\n\r\n", 400,
     ERR_INVALID},
    {"too long a body", "POST / HTTP/1.1\r\n" HOST "Content-Length: 65\r\n\r\n", 413, ERR_TOO_BIG},
    {"another coding", "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: gzip, chunked\r\n\r\n", 501,
     ERR_UNSUPPORTED},
    {"chunked twice",
     "POST / HTTP/1.1\r\n" HOST
     "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
     400, ERR_INVALID},
    {"chunked in 1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400,
     ERR_INVALID},
    {"chunk too big", CHUNKED "41\r\n", 413, ERR_TOO_BIG},
    {"chunks too big together", CHUNKED "40\r\n" LONG_64 "\r\n1\r\n", 413, ERR_TOO_BIG},
    {"chunk size of many digits", CHUNKED "000000001\r\n", 400, ERR_INVALID},
    {"chunk size is not hexadecimal", CHUNKED "g\r\n", 400, ERR_INVALID},
    {"chunk size with a blank", CHUNKED "1 \r\n", 400, ERR_INVALID},
    {"chunk size with a sign", CHUNKED "-1\r\n", 400, ERR_INVALID},
    {"no chunk size", CHUNKED "\r\n", 400, ERR_INVALID},
    {"bare LF after the size", CHUNKED "1\na\r\n0\r\n\r\n", 400, ERR_INVALID},
    {"bare CR in an extension", CHUNKED "1;x\ry\r\n", 400, ERR_INVALID},
    {"data longer than its chunk", CHUNKED "1\r\nab\r\n", 400, ERR_INVALID},
    {"bare LF after the data", CHUNKED "1\r\na\n0\r\n\r\n", 400, ERR_INVALID},
    {"bad trailer", CHUNKED "0\r\nno colon\r\n\r\n", 400, ERR_INVALID},
    {"endless trailers",
     CHUNKED "0\r\na:1\r\na:1\r\na:1\r\na:1\r\na:1\r\na:1\r\na:1\r\na:1\r\na:1\r\na:1\r\na:1\r\n"
             "a:1\r\na:1\r\na:1\r\na:1\r\na:1\r\na:1\r\n\r\n",
     431, ERR_TOO_BIG},
};

static void test_bad_requests(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        for (size_t chop = 0; chop < 2 + RANDOM_CHOPS; chop++) {
            struct http_reader *reader;
            struct http_request request;
            size_t rest;
            assert_int_equal(http_reader_create(&reader, &limits, false), OK);
            enum err err = run(reader, bytes_of_text(bad[i].input), chop, &request, &rest);
            unsigned status = http_reader_status(reader);
            if (err != bad[i].err || status != bad[i].status)
                fail_msg("%s, chop %zu: %s, status %u", bad[i].name, chop, err_name(err), status);
            struct bytes more = bytes_of_text("GET / HTTP/1.1\r\n" HOST "\r\n"); /* sticky */
            assert_int_equal(http_receive(reader, &more, &request), bad[i].err);
            http_reader_destroy(reader);
        }
    }
    assert_int_equal(memory_bytes(MEMORY_API), 0);
}

static void test_nul_refused(void **state)
{
    (void)state;
    static const char input[] = "GET / HTTP/1.1\r\nHost: h\0\r\n\r\n";
    struct http_reader *reader;
    struct http_request request;
    size_t rest;
    assert_int_equal(http_reader_create(&reader, &limits, false), OK);
    assert_int_equal(run(reader, bytes_of(input, sizeof input - 1), 0, &request, &rest),
                     ERR_INVALID);
    http_reader_destroy(reader);
}

static void test_pipeline(void **state)
{
    (void)state;
    struct http_reader *reader;
    struct http_request request;
    assert_int_equal(http_reader_create(&reader, &limits, false), OK);
    struct bytes input = bytes_of_text("GET /1 HTTP/1.1\r\n" HOST "\r\n"
                                       "POST /2 HTTP/1.1\r\n" HOST "Content-Length: 3\r\n\r\nabc"
                                       "\r\nGET /3 HTTP/1.1\r\n" HOST "\r\n");
    static const char *const paths[] = {"/1", "/2", "/3"};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(http_receive(reader, &input, &request), OK);
        assert_true(bytes_equal(request.path, bytes_of_text(paths[i])));
        http_next(reader);
    }
    assert_int_equal(input.size, 0);
    assert_int_equal(http_receive(reader, &input, &request), ERR_AGAIN);
    assert_true(http_reader_idle(reader));
    http_reader_destroy(reader);
}

static void test_continue(void **state)
{
    (void)state;
    struct http_reader *reader;
    struct http_request request;
    assert_int_equal(http_reader_create(&reader, &limits, false), OK);
    struct bytes head = bytes_of_text("POST / HTTP/1.1\r\n" HOST
                                      "Expect: 100-Continue\r\nContent-Length: 2\r\n\r\n");
    assert_int_equal(http_receive(reader, &head, &request), ERR_AGAIN);
    assert_true(http_reader_wants_continue(reader));
    assert_false(http_reader_wants_continue(reader));
    struct bytes body = bytes_of_text("ok");
    assert_int_equal(http_receive(reader, &body, &request), OK);
    assert_true(bytes_equal(request.body, bytes_of_text("ok")));
    http_next(reader);
    /* a client that did not wait needs none */
    struct bytes all = bytes_of_text("POST / HTTP/1.1\r\n" HOST
                                     "Expect: 100-continue\r\nContent-Length: 2\r\n\r\no");
    assert_int_equal(http_receive(reader, &all, &request), ERR_AGAIN);
    assert_false(http_reader_wants_continue(reader));
    http_reader_destroy(reader);
}

static void test_lookups(void **state)
{
    (void)state;
    struct http_reader *reader;
    struct http_request request;
    struct http_limits wide = {4096, 64, 64};
    assert_int_equal(http_reader_create(&reader, &wide, false), OK);
    struct bytes input = bytes_of_text(
        "GET /?a=1&b=x%20y+z&c=%zz&d&a=2 HTTP/1.1\r\n" HOST
        "connection: keep-alive ,  UPGRADE\r\nX-List: one\r\nx-list: two,,three\r\n"
        "Sec-WebSocket-Key:  key== \t\r\n"
        "Cookie: first=1; token=a=b; other\r\nCookie: token=late; last=\"q\"\r\n\r\n");
    assert_int_equal(http_receive(reader, &input, &request), OK);
    assert_true(
        bytes_equal(http_field_find(&request, "Sec-Websocket-KEY")->value, bytes_of_text("key==")));
    assert_null(http_field_find(&request, "Sec-Websocket"));
    assert_true(http_field_has_token(&request, "Connection", "upgrade"));
    assert_true(http_field_has_token(&request, "X-List", "one"));
    assert_true(http_field_has_token(&request, "X-List", "three"));
    assert_false(http_field_has_token(&request, "X-List", "thre"));
    assert_false(http_field_has_token(&request, "X-None", "one"));
    assert_true(bytes_equal(http_cookie_find(&request, "token"), bytes_of_text("a=b")));
    assert_true(bytes_equal(http_cookie_find(&request, "first"), bytes_of_text("1")));
    assert_true(bytes_equal(http_cookie_find(&request, "last"), bytes_of_text("\"q\"")));
    assert_null(http_cookie_find(&request, "other").data);
    assert_null(http_cookie_find(&request, "oken").data);

    uint8_t data[8];
    struct buffer value = buffer_of(data, sizeof data);
    assert_int_equal(http_query_value(&value, request.query, "b"), OK);
    assert_true(bytes_equal(buffer_bytes(&value), bytes_of_text("x y z")));
    value.size = 0;
    assert_int_equal(http_query_value(&value, request.query, "a"), OK);
    assert_true(bytes_equal(buffer_bytes(&value), bytes_of_text("1")));
    assert_int_equal(http_query_value(&value, request.query, "c"), ERR_INVALID);
    assert_int_equal(http_query_value(&value, request.query, "e"), ERR_NOT_FOUND);
    assert_int_equal(value.size, 1);
    assert_int_equal(http_query_value(&value, request.query, "d"), OK);
    assert_int_equal(value.size, 1);
    struct buffer small = buffer_of(data, 4);
    assert_int_equal(http_query_value(&small, request.query, "b"), ERR_FULL);
    assert_int_equal(small.size, 0);
    assert_int_equal(http_query_value(&value, bytes_of_text("k=%4"), "k"), ERR_INVALID);
    http_reader_destroy(reader);
}

/* What is announced is not yet allocated; what is done with is given back. */
static void test_memory_follows_bytes(void **state)
{
    (void)state;
    struct http_limits wide = {8192, 64, 1000000};
    struct http_reader *reader;
    struct http_request request;
    assert_int_equal(http_reader_create(&reader, &wide, false), OK);
    int64_t empty = memory_bytes(MEMORY_API);
    struct bytes head =
        bytes_of_text("POST / HTTP/1.1\r\n" HOST "Content-Length: 1000000\r\n\r\nx");
    assert_int_equal(http_receive(reader, &head, &request), ERR_AGAIN);
    assert_true(memory_bytes(MEMORY_API) - empty < 4096);
    char *body = malloc(999999);
    memset(body, 'x', 999999);
    struct bytes rest = bytes_of(body, 999999);
    assert_int_equal(http_receive(reader, &rest, &request), OK);
    assert_int_equal(request.body.size, 1000000);
    http_next(reader);
    assert_int_equal(memory_bytes(MEMORY_API), empty);
    http_reader_destroy(reader);
    free(body);
}

static void test_out_of_memory(void **state)
{
    (void)state;
    for (uint64_t n = 1;; n++) {
        struct http_reader *reader = NULL;
        struct http_request request;
        size_t rest;
        assert_true(n < 50);
        memory_fail_at(n);
        enum err err = http_reader_create(&reader, &limits, false);
        if (err == OK)
            err = run(reader, bytes_of_text(CHUNKED "3\r\nabc\r\n0\r\n\r\n"), 1, &request, &rest);
        memory_fail_at(0);
        if (err != OK && reader != NULL)
            assert_int_equal(http_reader_status(reader), 503);
        http_reader_destroy(reader);
        if (err == OK)
            break;
        assert_int_equal(err, ERR_NO_MEMORY);
    }
    assert_int_equal(memory_bytes(MEMORY_API), 0);
}

/* ---- responses */

static void test_responses(void **state)
{
    (void)state;
    static const struct {
        const char *input;
        enum err err;
        unsigned status;
        const char *body;
        size_t rest;
        bool upgrade;
    } cases[] = {
        {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP", OK, 200, "ok", 4, false},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", OK, 200, "ok",
         0, false},
        {"HTTP/1.1 204 No Content\r\n\r\nH", OK, 204, "", 1, false},
        {"HTTP/1.1 100 Continue\r\n\r\nHTTP/", OK, 100, "", 5, false},
        {"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "
         "websocket\r\n\r\n\x81",
         OK, 101, "", 1, true},
        {"HTTP/1.1 200 OK\r\n\r\nuntil close", ERR_UNSUPPORTED, 0, "", 0, false},
        {"HTTP/1.1 2x0 OK\r\n\r\n", ERR_INVALID, 0, "", 0, false},
        {"SMTP 1\r\n\r\n", ERR_INVALID, 0, "", 0, false},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        for (size_t chop = 0; chop < 2 + RANDOM_CHOPS; chop++) {
            struct http_reader *reader;
            struct http_request response;
            size_t rest;
            assert_int_equal(http_reader_create(&reader, &limits, true), OK);
            enum err err = run(reader, bytes_of_text(cases[i].input), chop, &response, &rest);
            assert_int_equal(err, cases[i].err);
            if (err == OK) {
                assert_int_equal(response.status, cases[i].status);
                assert_true(bytes_equal(response.body, bytes_of_text(cases[i].body)));
                assert_int_equal(rest, cases[i].rest);
                assert_int_equal(response.upgrade, cases[i].upgrade);
            }
            http_reader_destroy(reader);
        }
    }
}

static void assert_encoded(const struct http_response *response, const char *expected)
{
    char data[1024];
    size_t size = strlen(expected);
    struct buffer out = buffer_of(data, size);
    assert_int_equal(http_response_encode(&out, response), OK);
    assert_int_equal(out.size, size);
    assert_memory_equal(data, expected, size);
    for (size_t room = 0; room < size; room++) {
        out = buffer_of(data, room);
        assert_int_equal(http_response_encode(&out, response), ERR_FULL);
        assert_int_equal(out.size, 0);
    }
}

static void test_response_encode(void **state)
{
    (void)state;
    struct http_response r = {.status = 200,
                              .content_type = "text/plain",
                              .fields = "X-A: 1\r\n",
                              .body = bytes_of_text("hi")};
    assert_encoded(&r, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n"
                       "X-A: 1\r\n\r\nhi");
    r.head = r.close = true;
    assert_encoded(&r, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n"
                       "Connection: close\r\nX-A: 1\r\n\r\n");
    r = (struct http_response){.status = 204};
    assert_encoded(&r, "HTTP/1.1 204 No Content\r\n\r\n");
    r = (struct http_response){.status = 101, .fields = "Upgrade: websocket\r\n"};
    assert_encoded(&r, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n");
    r = (struct http_response){.status = 431, .close = true};
    assert_encoded(&r, "HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\n"
                       "Connection: close\r\n\r\n");
    assert_string_equal(http_status_text(503), "Service Unavailable");
    assert_string_equal(http_status_text(799), "Unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_requests),
        cmocka_unit_test(test_bad_requests),
        cmocka_unit_test(test_nul_refused),
        cmocka_unit_test(test_pipeline),
        cmocka_unit_test(test_continue),
        cmocka_unit_test(test_lookups),
        cmocka_unit_test(test_memory_follows_bytes),
        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_responses),
        cmocka_unit_test(test_response_encode),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
