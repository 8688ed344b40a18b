/* test_tls.c: server and client engines in one process, joined by two byte buffers. */
#include "gateway/wire/tls.h"

#include "core/file.h"
#include "core/memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <openssl/ssl.h>

#include <cmocka.h>

#define WIRE_BYTES 262144

static char directory[64];
static char certificate_path[128], key_path[128];
static struct tls_engine *server_engine, *client_engine;
static struct tls_context *server_context, *client_context;

/* A queue of bytes on their way. */
struct wire {
    struct buffer buffer;
    size_t taken;
    uint8_t data[WIRE_BYTES];
};

struct side {
    struct tls *tls;
    struct tls_engine *engine;
    struct wire out;
    struct buffer plaintext;
    uint8_t plaintext_data[WIRE_BYTES];
    enum err err;
};

struct pair {
    struct side server;
    struct side client;
    size_t chop; /* bytes per tls_receive; 0: all */
};

static const char *path_in(char out[128], const char *name)
{
    snprintf(out, 128, "%s/%s", directory, name);
    return out;
}

static void secret_fill(uint8_t secret[TLS_SECRET_BYTES], uint8_t value)
{
    memset(secret, value, TLS_SECRET_BYTES);
}

static struct tls_context *server_make(uint8_t secret, uint64_t period)
{
    struct tls_server_options options = {.certificate_path = certificate_path,
                                         .key_path = key_path};
    secret_fill(options.ticket_secret, secret);
    struct tls_context *context;
    const char *explanation;
    assert_int_equal(tls_context_create_server(&context, &options, &explanation), OK);
    assert_string_equal(explanation, "");
    tls_context_set_period(context, period);
    return context;
}

static void wire_init(struct wire *w)
{
    w->buffer = buffer_of(w->data, sizeof w->data);
    w->taken = 0;
}

static struct pair *pair_make(struct tls_context *server, struct tls_context *client, size_t chop)
{
    struct pair *p = malloc(sizeof *p);
    assert_non_null(p);
    p->chop = chop;
    p->server = (struct side){.engine = server_engine};
    p->client = (struct side){.engine = client_engine};
    assert_int_equal(tls_create(&p->server.tls, server), OK);
    assert_int_equal(tls_create(&p->client.tls, client), OK);
    wire_init(&p->server.out);
    wire_init(&p->client.out);
    p->server.plaintext = buffer_of(p->server.plaintext_data, WIRE_BYTES);
    p->client.plaintext = buffer_of(p->client.plaintext_data, WIRE_BYTES);
    return p;
}

static void pair_free(struct pair *p)
{
    tls_destroy(p->server.tls);
    tls_destroy(p->client.tls);
    free(p);
}

/* deliver: everything under way from source to target; true if there was any. */
static bool deliver(struct side *source, struct side *target, size_t chop)
{
    bool any = false;
    while (source->out.taken < source->out.buffer.size && target->err == OK) {
        size_t left = source->out.buffer.size - source->out.taken;
        size_t size = chop == 0 || chop > left ? left : chop;
        struct bytes input = bytes_of(source->out.data + source->out.taken, size);
        target->err = tls_receive(target->tls, target->engine, &input, &target->plaintext,
                                  &target->out.buffer);
        source->out.taken += size - input.size;
        any = true;
    }
    if (source->out.taken == source->out.buffer.size)
        source->out.taken = source->out.buffer.size = 0;
    return any;
}

static void pump(struct pair *p)
{
    for (bool more = true; more;) {
        more = deliver(&p->client, &p->server, p->chop);
        more = deliver(&p->server, &p->client, p->chop) || more;
        if (p->client.err != OK || p->server.err != OK)
            break;
    }
}

static void shake(struct pair *p, struct bytes session)
{
    assert_int_equal(tls_client_start(p->client.tls, p->client.engine, &p->client.out.buffer,
                                      "localhost", session),
                     OK);
    pump(p);
}

static void send_text(struct side *side, struct bytes text)
{
    assert_int_equal(tls_send(side->tls, side->engine, &text, &side->out.buffer), OK);
    assert_int_equal(text.size, 0);
}

static void assert_echo(struct pair *p)
{
    p->server.plaintext.size = p->client.plaintext.size = 0;
    send_text(&p->client, bytes_of_text("from client"));
    send_text(&p->server, bytes_of_text("from server"));
    pump(p);
    assert_true(bytes_equal(buffer_bytes(&p->server.plaintext), bytes_of_text("from client")));
    assert_true(bytes_equal(buffer_bytes(&p->client.plaintext), bytes_of_text("from server")));
}

static size_t session_take(struct pair *p, uint8_t *out, size_t capacity)
{
    struct buffer b = buffer_of(out, capacity);
    assert_int_equal(tls_client_session(p->client.tls, &b), OK);
    assert_true(b.size > 0);
    return b.size;
}

/* ---- handshakes */

static void test_handshake_1_3(void **state)
{
    (void)state;
    for (size_t chop = 0; chop < 4; chop++) {
        struct pair *p = pair_make(server_context, client_context, chop);
        assert_false(tls_established(p->server.tls));
        shake(p, (struct bytes){NULL, 0});
        assert_int_equal(p->server.err, OK);
        assert_int_equal(p->client.err, OK);
        assert_true(tls_established(p->server.tls));
        assert_true(tls_established(p->client.tls));
        assert_string_equal(tls_version(p->server.tls), "TLSv1.3");
        assert_false(tls_resumed(p->server.tls));
        assert_echo(p);
        pair_free(p);
    }
}

/* ssl_of: the private layout in tls_boringssl.h begins with the SSL. */
static SSL *ssl_of(const struct tls *tls)
{
    struct {
        SSL *ssl;
    } head;
    memcpy(&head, tls, sizeof head);
    return head.ssl;
}

static void test_handshake_1_2(void **state)
{
    (void)state;
    uint8_t session[8192];
    size_t size = 0;
    for (int resumed = 0; resumed < 2; resumed++) {
        struct pair *p = pair_make(server_context, client_context, 0);
        SSL_set_max_proto_version(ssl_of(p->client.tls), TLS1_2_VERSION);
        shake(p, bytes_of(session, size));
        assert_true(tls_established(p->server.tls) && tls_established(p->client.tls));
        assert_string_equal(tls_version(p->client.tls), "TLSv1.2");
        assert_int_equal(tls_resumed(p->server.tls), resumed);
        assert_echo(p);
        if (resumed == 0)
            size = session_take(p, session, sizeof session);
        pair_free(p);
    }
}

static void test_old_and_weak_refused(void **state)
{
    (void)state;
    static const char *const ciphers[] = {"AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA"};
    for (size_t i = 0; i <= COUNT_OF(ciphers); i++) {
        struct pair *p = pair_make(server_context, client_context, 0);
        SSL *ssl = ssl_of(p->client.tls);
        if (i < COUNT_OF(ciphers)) {
            SSL_set_max_proto_version(ssl, TLS1_2_VERSION);
            assert_int_equal(SSL_set_strict_cipher_list(ssl, ciphers[i]), 1);
        } else {
            SSL_set_min_proto_version(ssl, TLS1_1_VERSION);
            SSL_set_max_proto_version(ssl, TLS1_1_VERSION);
            assert_int_equal(SSL_set_strict_cipher_list(ssl, "ECDHE-ECDSA-AES128-SHA"), 1);
        }
        shake(p, (struct bytes){NULL, 0});
        assert_int_equal(p->server.err, ERR_INVALID);
        assert_false(tls_established(p->server.tls));
        assert_string_not_equal(tls_explain(server_engine), "");
        pair_free(p);
    }
}

/* ---- resumption */

/* resumes: a ticket of `first` at period_first, offered to `second` at period_second. */
static bool resumes(uint8_t secret_first, uint64_t period_first, uint8_t secret_second,
                    uint64_t period_second, bool tls_1_2)
{
    uint8_t session[8192];
    size_t size = 0;
    bool resumed = false;
    for (int round = 0; round < 2; round++) {
        struct tls_context *context = round == 0 ? server_make(secret_first, period_first)
                                                 : server_make(secret_second, period_second);
        struct pair *p = pair_make(context, client_context, 0);
        if (tls_1_2)
            SSL_set_max_proto_version(ssl_of(p->client.tls), TLS1_2_VERSION);
        shake(p, bytes_of(session, size));
        assert_true(tls_established(p->server.tls) && tls_established(p->client.tls));
        assert_echo(p);
        resumed = tls_resumed(p->server.tls);
        assert_int_equal(resumed, tls_resumed(p->client.tls));
        size = session_take(p, session, sizeof session);
        struct buffer again = buffer_of(session, sizeof session);
        if (round == 0)
            assert_int_equal(tls_client_session(p->client.tls, &again), ERR_NOT_FOUND);
        pair_free(p);
        tls_context_release(context);
    }
    return resumed;
}

static void test_resumption(void **state)
{
    (void)state;
    assert_true(resumes(1, 100, 1, 100, false));
    assert_true(resumes(1, 100, 1, 101, false));
    assert_false(resumes(1, 100, 1, 102, false));
    assert_false(resumes(1, 100, 2, 100, false));
    assert_true(resumes(1, 0, 1, 0, false));
    assert_true(resumes(1, 100, 1, 101, true));
    assert_false(resumes(1, 100, 1, 102, true));
}

/* A ticket of the previous period is replaced by one of the current, in TLS 1.2 as well. */
static void test_ticket_renewed(void **state)
{
    (void)state;
    uint8_t session[8192];
    size_t size = 0;
    struct tls_context *context = server_make(7, 10);
    for (uint64_t period = 10; period < 14; period++) {
        tls_context_set_period(context, period);
        struct pair *p = pair_make(context, client_context, 0);
        SSL_set_max_proto_version(ssl_of(p->client.tls), TLS1_2_VERSION);
        shake(p, bytes_of(session, size));
        assert_int_equal(tls_resumed(p->server.tls), period != 10);
        size = session_take(p, session, sizeof session);
        pair_free(p);
    }
    tls_context_release(context);
}

static void test_session_needs_room(void **state)
{
    (void)state;
    uint8_t data[8192];
    struct pair *p = pair_make(server_context, client_context, 0);
    struct buffer small = buffer_of(data, 20);
    assert_int_equal(tls_client_session(p->client.tls, &small), ERR_NOT_FOUND);
    shake(p, (struct bytes){NULL, 0});
    assert_int_equal(tls_client_session(p->client.tls, &small), ERR_FULL);
    assert_int_equal(small.size, 0);
    assert_true(session_take(p, data, sizeof data) > 20);
    struct pair *q = pair_make(server_context, client_context, 0);
    assert_int_equal(tls_client_start(q->client.tls, client_engine, &q->client.out.buffer, NULL,
                                      bytes_of("nonsense", 8)),
                     ERR_INVALID);
    pair_free(p);
    pair_free(q);
}

/* ---- bytes */

static void pattern_fill(uint8_t *data, size_t size, uint32_t seed)
{
    for (size_t i = 0; i < size; i++) {
        seed = seed * 1664525u + 1013904223u;
        data[i] = (uint8_t)(seed >> 24);
    }
}

/* Every step has little room: what does not fit comes later, and nothing is lost or doubled. */
static void transfer_tight(size_t sealed_room, size_t plaintext_room, size_t chop)
{
    enum { SIZE = 300000 };
    uint8_t *source = malloc(SIZE), *target = malloc(SIZE);
    uint8_t *sealed = malloc(sealed_room), *opened = malloc(plaintext_room);
    pattern_fill(source, SIZE, (uint32_t)(sealed_room + plaintext_room + chop));
    struct pair *p = pair_make(server_context, client_context, 0);
    shake(p, (struct bytes){NULL, 0});
    struct bytes rest = bytes_of(source, SIZE);
    size_t received = 0;
    while (received < SIZE) {
        struct buffer out = buffer_of(sealed, sealed_room);
        enum err err = tls_send(p->server.tls, server_engine, &rest, &out);
        assert_int_equal(err, rest.size == 0 ? OK : ERR_FULL);
        struct bytes all = buffer_bytes(&out);
        while (all.size != 0) {
            struct bytes input = bytes_of(all.data, chop < all.size ? chop : all.size);
            size_t offered = input.size;
            do {
                struct buffer plain = buffer_of(opened, plaintext_room);
                err = tls_receive(p->client.tls, client_engine, &input, &plain,
                                  &p->client.out.buffer);
                assert_true(err == OK || err == ERR_FULL);
                assert_true(plain.size <= SIZE - received);
                memcpy(target + received, opened, plain.size);
                received += plain.size;
            } while (err == ERR_FULL);
            assert_int_equal(input.size, 0);
            all = bytes_skip(all, offered);
        }
    }
    assert_memory_equal(source, target, SIZE);
    assert_int_equal(rest.size, 0);
    pair_free(p);
    free(source);
    free(target);
    free(sealed);
    free(opened);
}

static void test_transfer_tight(void **state)
{
    (void)state;
    transfer_tight(20000, 20000, 20000);
    transfer_tight(16500, 777, 5000);
    transfer_tight(700, 20000, 1);
    transfer_tight(97, 13, 50);
    transfer_tight(TLS_RECORD_OVERHEAD, 1, 7);
}

static void test_send_without_room(void **state)
{
    (void)state;
    struct pair *p = pair_make(server_context, client_context, 0);
    struct bytes text = bytes_of_text("early");
    assert_int_equal(tls_send(p->server.tls, server_engine, &text, &p->server.out.buffer),
                     ERR_AGAIN);
    shake(p, (struct bytes){NULL, 0});
    for (size_t room = 0; room <= 22; room++) {
        uint8_t data[64];
        struct buffer out = buffer_of(data, room);
        assert_int_equal(tls_send(p->server.tls, server_engine, &text, &out), ERR_FULL);
        assert_int_equal(out.size, 0);
        assert_int_equal(text.size, 5);
    }
    assert_echo(p);
    pair_free(p);
}

/* The handshake's answers come out through a buffer of a few bytes. */
static void test_handshake_tight(void **state)
{
    (void)state;
    for (size_t room = 1; room < 40; room += 13) {
        struct pair *p = pair_make(server_context, client_context, 0);
        struct side *sides[2] = {&p->client, &p->server};
        uint8_t scrap[64];
        struct buffer out = buffer_of(scrap, room);
        enum err err =
            tls_client_start(p->client.tls, client_engine, &out, NULL, (struct bytes){NULL, 0});
        assert_int_equal(err, ERR_FULL);
        assert_int_equal(buffer_append(&p->client.out.buffer, buffer_bytes(&out)), OK);
        int idle = 0;
        for (int turn = 0; idle < 4; turn++) {
            struct side *self = sides[turn % 2], *other = sides[(turn + 1) % 2];
            out.size = 0;
            struct bytes input = bytes_of(other->out.data + other->out.taken,
                                          other->out.buffer.size - other->out.taken);
            size_t offered = input.size;
            err = tls_receive(self->tls, self->engine, &input, &self->plaintext, &out);
            assert_true(err == OK || err == ERR_FULL);
            other->out.taken += offered - input.size;
            assert_int_equal(buffer_append(&self->out.buffer, buffer_bytes(&out)), OK);
            idle = offered == input.size && out.size == 0 ? idle + 1 : 0;
        }
        assert_true(tls_established(p->server.tls) && tls_established(p->client.tls));
        uint8_t session[8192];
        session_take(p, session, sizeof session);
        assert_echo(p);
        pair_free(p);
    }
}

static void test_big_pipelined(void **state)
{
    (void)state;
    enum { SIZE = 200000 };
    uint8_t *source = malloc(SIZE);
    pattern_fill(source, SIZE, 5);
    for (size_t chop = 0; chop < 20000; chop = chop * 19 + 1) {
        struct pair *p = pair_make(server_context, client_context, chop);
        shake(p, (struct bytes){NULL, 0});
        send_text(&p->client, bytes_of(source, SIZE));
        pump(p);
        assert_int_equal(p->server.plaintext.size, SIZE);
        assert_memory_equal(p->server.plaintext.data, source, SIZE);
        pair_free(p);
    }
    free(source);
}

/* ---- endings and damage */

static void test_close(void **state)
{
    (void)state;
    struct pair *p = pair_make(server_context, client_context, 0);
    tls_close(p->server.tls, server_engine, &p->server.out.buffer); /* too early: says nothing */
    assert_int_equal(p->server.out.buffer.size, 0);
    shake(p, (struct bytes){NULL, 0});
    send_text(&p->server, bytes_of_text("last words"));
    tls_close(p->server.tls, server_engine, &p->server.out.buffer);
    deliver(&p->server, &p->client, 0);
    assert_int_equal(p->client.err, ERR_CLOSED);
    assert_true(bytes_equal(buffer_bytes(&p->client.plaintext), bytes_of_text("last words")));
    pair_free(p);
}

static void test_garbage(void **state)
{
    (void)state;
    struct pair *p = pair_make(server_context, client_context, 0);
    struct bytes input = bytes_of_text("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    enum err err = tls_receive(p->server.tls, server_engine, &input, &p->server.plaintext,
                               &p->server.out.buffer);
    assert_int_equal(err, ERR_INVALID);
    assert_non_null(strstr(tls_explain(server_engine), "HTTP_REQUEST"));
    assert_false(tls_established(p->server.tls));
    pair_free(p);

    p = pair_make(server_context, client_context, 0);
    uint8_t noise[600];
    pattern_fill(noise, sizeof noise, 3);
    input = bytes_of(noise, sizeof noise);
    assert_int_equal(tls_receive(p->server.tls, server_engine, &input, &p->server.plaintext,
                                 &p->server.out.buffer),
                     ERR_INVALID);
    pair_free(p);
}

static void test_damaged_record(void **state)
{
    (void)state;
    struct pair *p = pair_make(server_context, client_context, 0);
    shake(p, (struct bytes){NULL, 0});
    send_text(&p->client, bytes_of_text("to be damaged"));
    p->client.out.data[p->client.out.buffer.size - 1] ^= 1;
    deliver(&p->client, &p->server, 0);
    assert_int_equal(p->server.err, ERR_INVALID);
    assert_int_equal(p->server.plaintext.size, 0);
    assert_true(p->server.out.buffer.size > 0); /* an alert */
    deliver(&p->server, &p->client, 0);
    assert_int_equal(p->client.err, ERR_INVALID);
    pair_free(p);
}

static void test_truncated_record(void **state)
{
    (void)state;
    struct pair *p = pair_make(server_context, client_context, 0);
    shake(p, (struct bytes){NULL, 0});
    send_text(&p->client, bytes_of_text("in two halves"));
    size_t size = p->client.out.buffer.size;
    struct bytes first = bytes_of(p->client.out.data, size - 1);
    assert_int_equal(tls_receive(p->server.tls, server_engine, &first, &p->server.plaintext,
                                 &p->server.out.buffer),
                     OK);
    assert_int_equal(first.size, 0);
    assert_int_equal(p->server.plaintext.size, 0);
    struct bytes last = bytes_of(p->client.out.data + size - 1, 1);
    assert_int_equal(tls_receive(p->server.tls, server_engine, &last, &p->server.plaintext,
                                 &p->server.out.buffer),
                     OK);
    assert_true(bytes_equal(buffer_bytes(&p->server.plaintext), bytes_of_text("in two halves")));
    pair_free(p);
}

/* The peer's key update is answered at once, and both go on. */
static void test_key_update(void **state)
{
    (void)state;
    struct pair *p = pair_make(server_context, client_context, 0);
    shake(p, (struct bytes){NULL, 0});
    assert_int_equal(SSL_key_update(ssl_of(p->client.tls), SSL_KEY_UPDATE_REQUESTED), 1);
    send_text(&p->client, bytes_of_text("x"));
    deliver(&p->client, &p->server, 0);
    assert_int_equal(p->server.err, OK);
    assert_true(p->server.out.buffer.size > 0);
    pump(p);
    assert_echo(p);
    pair_free(p);
}

/* ---- moving and memory */

static void test_move_between_engines(void **state)
{
    (void)state;
    struct tls_engine *other;
    assert_int_equal(tls_engine_create(&other), OK);
    struct pair *p = pair_make(server_context, client_context, 3);
    shake(p, (struct bytes){NULL, 0});
    for (int round = 0; round < 6; round++) {
        p->server.engine = round % 2 == 0 ? other : server_engine;
        assert_echo(p);
        assert_null(SSL_get_rbio(ssl_of(p->server.tls))); /* nothing of an engine stays */
        assert_null(SSL_get_wbio(ssl_of(p->server.tls)));
    }
    /* in the middle of a record */
    p->server.plaintext.size = 0;
    send_text(&p->client, bytes_of_text("half here, half there"));
    size_t half = p->client.out.buffer.size / 2;
    struct bytes input = bytes_of(p->client.out.data, half);
    assert_int_equal(tls_receive(p->server.tls, server_engine, &input, &p->server.plaintext,
                                 &p->server.out.buffer),
                     OK);
    input = bytes_of(p->client.out.data + half, p->client.out.buffer.size - half);
    assert_int_equal(
        tls_receive(p->server.tls, other, &input, &p->server.plaintext, &p->server.out.buffer), OK);
    assert_true(
        bytes_equal(buffer_bytes(&p->server.plaintext), bytes_of_text("half here, half there")));
    pair_free(p);
    tls_engine_destroy(other);
}

/* What a server keeps for an idle connection. Measured: 2.5 KB with Debian's build. */
static void test_idle_memory(void **state)
{
    (void)state;
    enum { COUNT = 32, IDLE_BYTES_MAX = 2816, BEGUN_BYTES_MAX = 8192 };
    struct pair *pairs[COUNT];
    int64_t server = 0, begun = 0;
    for (size_t i = 0; i < COUNT; i++) {
        pairs[i] = pair_make(server_context, client_context, 0);
        tls_destroy(pairs[i]->server.tls);
        pairs[i]->server.tls = NULL;
        assert_int_equal(tls_client_start(pairs[i]->client.tls, client_engine,
                                          &pairs[i]->client.out.buffer, NULL,
                                          (struct bytes){NULL, 0}),
                         OK);
    }
    for (size_t i = 0; i < COUNT; i++) {
        struct pair *p = pairs[i];
        int64_t before = memory_bytes(MEMORY_TLS);
        assert_int_equal(tls_create(&p->server.tls, server_context), OK);
        begun += memory_bytes(MEMORY_TLS) - before;
        deliver(&p->client, &p->server, 0);
        server += memory_bytes(MEMORY_TLS) - before;
        deliver(&p->server, &p->client, 0);
        before = memory_bytes(MEMORY_TLS);
        deliver(&p->client, &p->server, 0);
        server += memory_bytes(MEMORY_TLS) - before;
        assert_true(tls_established(p->server.tls));
    }
    print_message("server: %lld B created, %lld B idle\n", (long long)begun / COUNT,
                  (long long)server / COUNT);
    assert_true(server / COUNT <= IDLE_BYTES_MAX);
    assert_true(begun / COUNT <= BEGUN_BYTES_MAX);
    int64_t before = memory_bytes(MEMORY_TLS);
    for (size_t i = 0; i < COUNT; i++) {
        pump(pairs[i]);
        assert_echo(pairs[i]);
    }
    assert_true(memory_bytes(MEMORY_TLS) - before < 2000 * COUNT); /* the clients' tickets */
    uint8_t session[8192];
    before = memory_bytes(MEMORY_TLS);
    for (size_t i = 0; i < COUNT; i++)
        session_take(pairs[i], session, sizeof session);
    assert_true(memory_bytes(MEMORY_TLS) < before);
    for (size_t i = 0; i < COUNT; i++)
        pair_free(pairs[i]);
}

static void test_memory_returns(void **state)
{
    (void)state;
    int64_t before = 0;
    for (int round = 0; round < 3; round++) {
        struct tls_context *context = server_make(9, 9);
        struct pair *p = pair_make(context, client_context, 0);
        tls_context_release(context); /* the connection keeps it alive */
        shake(p, (struct bytes){NULL, 0});
        assert_echo(p);
        pair_free(p);
        if (round == 1)
            before = memory_bytes(MEMORY_TLS);
    }
    assert_int_equal(memory_bytes(MEMORY_TLS), before);
}

static void test_out_of_memory(void **state)
{
    (void)state;
    struct pair *p = pair_make(server_context, client_context, 0);
    tls_destroy(p->server.tls);
    for (uint64_t n = 1;; n++) {
        memory_fail_at(n);
        enum err err = tls_create(&p->server.tls, server_context);
        memory_fail_at(0);
        if (err == OK)
            break;
        assert_int_equal(err, ERR_NO_MEMORY);
        assert_true(n < 100);
    }
    pair_free(p);
}

/* ---- certificates */

static void file_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void assert_refused(const char *certificate, const char *key, const char *because)
{
    struct tls_server_options options = {.certificate_path = certificate, .key_path = key};
    struct tls_context *context = NULL;
    const char *explanation = NULL;
    assert_int_not_equal(tls_context_create_server(&context, &options, &explanation), OK);
    assert_non_null(explanation);
    if (strstr(explanation, because) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", explanation, because);
    assert_null(strchr(explanation, '\n'));
}

static void test_explanations(void **state)
{
    (void)state;
    char missing[128], other[128], other_key[128], text[128];
    path_in(missing, "missing.pem");
    assert_int_equal(tls_make_certificate(path_in(other, "o.pem"), path_in(other_key, "o.key"),
                                          "other", 1, (uint64_t)time(NULL) * 1000),
                     OK);
    file_text(path_in(text, "text"), "hello\n");
    assert_refused(missing, key_path, "no such file");
    assert_refused(certificate_path, missing, "no such file");
    assert_refused(certificate_path, other_key, "does not belong");
    assert_refused(text, key_path, "not a chain of PEM certificates");
    assert_refused(certificate_path, text, "not a readable PEM key");
    assert_refused(key_path, key_path, "not a chain of PEM certificates");
    assert_refused(certificate_path, certificate_path, "not a readable PEM key");
}

static void test_expired_warns(void **state)
{
    (void)state;
    char certificate[128], key[128];
    static const struct {
        uint64_t unix_ms;
        const char *warning;
    } cases[] = {{1000000000000ull, "expired"}, {7000000000000ull, "not valid yet"}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        assert_int_equal(tls_make_certificate(path_in(certificate, "e.pem"), path_in(key, "e.key"),
                                              "old", 3, cases[i].unix_ms),
                         OK);
        struct tls_server_options options = {.certificate_path = certificate, .key_path = key};
        struct tls_context *context;
        const char *explanation;
        assert_int_equal(tls_context_create_server(&context, &options, &explanation), OK);
        assert_non_null(strstr(explanation, cases[i].warning));
        tls_context_release(context);
    }
}

/* One key of each kind, made by the openssl command. */
static void test_key_kinds(void **state)
{
    (void)state;
    static const char *const kinds[] = {"-newkey rsa:2048", "-newkey ed25519",
                                        "-newkey ec -pkeyopt ec_paramgen_curve:P-256",
                                        "-newkey ec -pkeyopt ec_paramgen_curve:P-384"};
    char certificate[128], key[128], command[640];
    for (size_t i = 0; i < COUNT_OF(kinds); i++) {
        snprintf(command, sizeof command,
                 "openssl req -x509 %s -nodes -keyout %s -out %s -subj /CN=localhost "
                 "-addext subjectAltName=DNS:localhost >/dev/null 2>&1",
                 kinds[i], path_in(key, "k.key"), path_in(certificate, "k.pem"));
        assert_int_equal(system(command), 0);
        struct tls_server_options options = {.certificate_path = certificate, .key_path = key};
        struct tls_context *server, *client;
        const char *explanation;
        assert_int_equal(tls_context_create_server(&server, &options, &explanation), OK);
        assert_int_equal(tls_context_create_client(&client, certificate, &explanation), OK);
        for (int tls_1_2 = 0; tls_1_2 < 2; tls_1_2++) {
            struct pair *p = pair_make(server, client, 0);
            if (tls_1_2 != 0) { /* where the curves bind the certificate too */
                SSL_set_max_proto_version(ssl_of(p->client.tls), TLS1_2_VERSION);
                assert_int_equal(SSL_set1_curves_list(ssl_of(p->client.tls), "P-256:P-384"), 1);
            }
            shake(p, (struct bytes){NULL, 0});
            assert_true(tls_established(p->server.tls) && tls_established(p->client.tls));
            assert_echo(p);
            pair_free(p);
        }
        tls_context_release(server);
        tls_context_release(client);
    }
}

/* A root, an intermediate and a leaf made by the openssl command: the server sends the chain. */
static void test_chain(void **state)
{
    (void)state;
    char command[2048], chain[128], key[128], root[128];
    snprintf(command, sizeof command,
             "cd %s && exec >/dev/null 2>&1 && "
             "openssl req -x509 -newkey rsa:2048 -nodes -keyout r.key -out r.pem -subj /CN=root "
             "-addext basicConstraints=critical,CA:TRUE && "
             "openssl req -newkey rsa:2048 -nodes -keyout i.key -out i.csr -subj /CN=middle && "
             "echo basicConstraints=critical,CA:TRUE > i.ext && "
             "openssl x509 -req -in i.csr -CA r.pem -CAkey r.key -CAcreateserial -out i.pem "
             "-extfile i.ext -days 2 && "
             "openssl req -newkey rsa:2048 -nodes -keyout l.key -out l.csr -subj /CN=leaf && "
             "echo subjectAltName=DNS:localhost > l.ext && "
             "openssl x509 -req -in l.csr -CA i.pem -CAkey i.key -CAcreateserial -out l.pem "
             "-extfile l.ext -days 2 && cat l.pem i.pem > chain.pem",
             directory);
    assert_int_equal(system(command), 0);
    path_in(chain, "chain.pem");
    path_in(key, "l.key");
    path_in(root, "r.pem");
    struct tls_server_options options = {.certificate_path = chain, .key_path = key};
    struct tls_context *server, *client;
    const char *explanation;
    assert_int_equal(tls_context_create_client(&client, root, &explanation), OK);
    for (int whole = 0; whole < 2; whole++) {
        char leaf[128];
        options.certificate_path = whole != 0 ? chain : path_in(leaf, "l.pem");
        assert_int_equal(tls_context_create_server(&server, &options, &explanation), OK);
        struct pair *p = pair_make(server, client, 0);
        shake(p, (struct bytes){NULL, 0});
        assert_int_equal(tls_established(p->client.tls), whole);
        pair_free(p);
        tls_context_release(server);
    }
    tls_context_release(client);
}

static bool verifies(struct tls_context *client, const char *name)
{
    struct pair *p = pair_make(server_context, client, 0);
    assert_int_equal(tls_client_start(p->client.tls, client_engine, &p->client.out.buffer, name,
                                      (struct bytes){NULL, 0}),
                     OK);
    pump(p);
    bool established = tls_established(p->client.tls);
    assert_int_equal(p->client.err, established ? OK : ERR_INVALID);
    pair_free(p);
    return established;
}

static void test_verification(void **state)
{
    (void)state;
    char other[128], key[128];
    struct tls_context *right, *wrong;
    const char *explanation;
    assert_int_equal(tls_make_certificate(path_in(other, "v.pem"), path_in(key, "v.key"),
                                          "localhost", 1, (uint64_t)time(NULL) * 1000),
                     OK);
    assert_int_equal(tls_context_create_client(&right, certificate_path, &explanation), OK);
    assert_int_equal(tls_context_create_client(&wrong, other, &explanation), OK);
    assert_true(verifies(right, "localhost"));
    assert_true(verifies(right, "127.0.0.1"));
    assert_true(verifies(right, "::1"));
    assert_false(verifies(right, "example.org"));
    assert_false(verifies(right, "127.0.0.2"));
    assert_false(verifies(wrong, "localhost"));
    assert_int_not_equal(tls_context_create_client(&wrong, "/nonexistent", &explanation), OK);
    assert_non_null(strstr(explanation, "no such file"));
    tls_context_release(right);
    tls_context_release(wrong);
}

static void test_make_certificate(void **state)
{
    (void)state;
    char certificate[128], key[128], command[1280];
    path_in(certificate, "m.pem");
    path_in(key, "m.key");
    uint64_t now = (uint64_t)time(NULL) * 1000;
    assert_int_equal(tls_make_certificate(certificate, key, "", 1, now), ERR_INVALID);
    assert_int_equal(tls_make_certificate(certificate, key, "a,,b", 1, now), ERR_INVALID);
    assert_int_equal(
        tls_make_certificate(certificate, key, "a.example,10.0.0.1,2001:db8::1", 30, now), OK);
    snprintf(command, sizeof command,
             "test $(stat -c %%a %s) = 600 && openssl x509 -in %s -noout -text >%s/m.txt && "
             "grep -q 'DNS:a.example, IP Address:10.0.0.1, IP Address:2001:DB8:0:0:0:0:0:1' "
             "%s/m.txt && grep -q 'TLS Web Server Authentication' %s/m.txt && "
             "grep -q 'Version: 3' %s/m.txt && openssl verify -CAfile %s %s >/dev/null",
             key, certificate, directory, directory, directory, directory, certificate,
             certificate);
    assert_int_equal(system(command), 0);
}

static void test_library(void **state)
{
    (void)state;
    assert_non_null(strstr(tls_library(), "BoringSSL"));
}

static int setup(void **state)
{
    (void)state;
    snprintf(directory, sizeof directory, "/tmp/test_tls.XXXXXX");
    if (mkdtemp(directory) == NULL)
        return -1;
    path_in(certificate_path, "server.pem");
    path_in(key_path, "server.key");
    const char *explanation;
    if (tls_make_certificate(certificate_path, key_path, "localhost,127.0.0.1,::1", 30,
                             (uint64_t)time(NULL) * 1000) != OK ||
        tls_engine_create(&server_engine) != OK || tls_engine_create(&client_engine) != OK ||
        tls_context_create_client(&client_context, NULL, &explanation) != OK)
        return -1;
    server_context = server_make(1, 1);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    tls_context_release(server_context);
    tls_context_release(client_context);
    tls_engine_destroy(server_engine);
    tls_engine_destroy(client_engine);
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", directory);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_handshake_1_3),
        cmocka_unit_test(test_handshake_1_2),
        cmocka_unit_test(test_old_and_weak_refused),
        cmocka_unit_test(test_resumption),
        cmocka_unit_test(test_ticket_renewed),
        cmocka_unit_test(test_session_needs_room),
        cmocka_unit_test(test_transfer_tight),
        cmocka_unit_test(test_send_without_room),
        cmocka_unit_test(test_handshake_tight),
        cmocka_unit_test(test_big_pipelined),
        cmocka_unit_test(test_close),
        cmocka_unit_test(test_garbage),
        cmocka_unit_test(test_damaged_record),
        cmocka_unit_test(test_truncated_record),
        cmocka_unit_test(test_key_update),
        cmocka_unit_test(test_move_between_engines),
        cmocka_unit_test(test_idle_memory),
        cmocka_unit_test(test_memory_returns),
        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_explanations),
        cmocka_unit_test(test_expired_warns),
        cmocka_unit_test(test_key_kinds),
        cmocka_unit_test(test_chain),
        cmocka_unit_test(test_verification),
        cmocka_unit_test(test_make_certificate),
        cmocka_unit_test(test_library),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
