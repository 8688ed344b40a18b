/* tls_boringssl.c: tls.h over BoringSSL, API 17 (Debian) and newer: connections. Their contexts:
 * tls_boringssl_context.c.
 *   bytes    a struct tls_engine has one BIO; for the length of a call it is lent to the SSL at
 *            work. Its read side takes ciphertext straight off the caller's *input, its write side
 *            appends straight to the caller's buffer; what does not fit stays in the SSL's write
 *            buffer and comes first in the next call, so ERR_FULL loses nothing
 *   idle     handshake state and configuration are shed by the library, its record buffers go when
 *            they are empty; tickets are flushed with the handshake's last answer
 *
 * A struct tls:  HANDSHAKE → (tls_receive) → ESTABLISHED → (close_notify) closed; any → failed. The
 * library keeps this state and repeats its verdict when asked again. */
#include "gateway/wire/tls_boringssl.h"

#include "core/memory.h"

#include <arpa/inet.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/mem.h>
#include <stdio.h>

#define PLAINTEXT_MAX 16384 /* of one record (RFC 8446 5.1) */

/* ---- the library's memory: counted under MEMORY_TLS. The library finds these weak symbols at link
 * time. An 8-byte length goes before each block, as the library does by itself without them. */

void *OPENSSL_memory_alloc(size_t size);
void OPENSSL_memory_free(void *p);
size_t OPENSSL_memory_get_size(void *p);

__attribute__((visibility("default"))) void *OPENSSL_memory_alloc(size_t size)
{
    if (size > SIZE_MAX - sizeof(uint64_t))
        return NULL;
    uint8_t *block = memory_take(size + sizeof(uint64_t), MEMORY_TLS);
    if (block == NULL)
        return NULL;
    store_u64(block, size);
    return block + sizeof(uint64_t);
}

__attribute__((visibility("default"))) size_t OPENSSL_memory_get_size(void *p)
{
    return p == NULL ? 0 : (size_t)load_u64((uint8_t *)p - sizeof(uint64_t));
}

__attribute__((visibility("default"))) void OPENSSL_memory_free(void *p)
{
    if (p == NULL)
        return;
    size_t size = OPENSSL_memory_get_size(p) + sizeof(uint64_t);
    uint8_t *block = (uint8_t *)p - sizeof(uint64_t);
    OPENSSL_cleanse(block, size); /* keys lie here */
    memory_give(block, MEMORY_TLS);
}

const char *tls_library_reason(void)
{
    uint32_t code = (uint32_t)ERR_peek_last_error();
    const char *reason = code == 0 ? NULL : ERR_reason_error_string(code);
    ERR_clear_error();
    return reason == NULL ? "unknown reason" : reason;
}

/* ---- the engine and its BIO */

static int bio_read(BIO *bio, char *out, int size)
{
    struct tls_engine *engine = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (size <= 0)
        return 0;
    if (engine->input == NULL || engine->input->size == 0) {
        BIO_set_retry_read(bio);
        return -1;
    }
    size_t count = engine->input->size < (size_t)size ? engine->input->size : (size_t)size;
    memcpy(out, engine->input->data, count);
    *engine->input = bytes_skip(*engine->input, count);
    return (int)count;
}

static int bio_write(BIO *bio, const char *data, int size)
{
    struct tls_engine *engine = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (size <= 0)
        return 0;
    size_t room = buffer_room(engine->output);
    if (room == 0) {
        BIO_set_retry_write(bio);
        return -1;
    }
    size_t count = room < (size_t)size ? room : (size_t)size;
    CHECK(buffer_append(engine->output, bytes_of(data, count)) == OK);
    return (int)count;
}

static long bio_ctrl(BIO *bio, int command, long number, void *pointer)
{
    (void)bio, (void)number, (void)pointer;
    return command == BIO_CTRL_FLUSH ? 1 : 0;
}

enum err tls_engine_create(struct tls_engine **engine)
{
    struct tls_engine *e = memory_take_zeroed(sizeof *e, MEMORY_TLS);
    if (e == NULL)
        return ERR_NO_MEMORY;
    e->method = BIO_meth_new(0, "roost bytes");
    if (e->method == NULL || BIO_meth_set_read(e->method, bio_read) != 1 ||
        BIO_meth_set_write(e->method, bio_write) != 1 ||
        BIO_meth_set_ctrl(e->method, bio_ctrl) != 1 || (e->bio = BIO_new(e->method)) == NULL) {
        ERR_clear_error();
        tls_engine_destroy(e);
        return ERR_NO_MEMORY;
    }
    BIO_set_data(e->bio, e);
    BIO_set_init(e->bio, 1);
    *engine = e;
    return OK;
}

void tls_engine_destroy(struct tls_engine *engine)
{
    if (engine == NULL)
        return;
    BIO_free(engine->bio);
    if (engine->method != NULL)
        BIO_meth_free(engine->method);
    memory_give(engine, MEMORY_TLS);
}

/* attach: for one call, the engine's BIO is the connection's. The SSL owns one reference for each
 * direction. */
static void attach(struct tls_engine *engine, struct tls *tls, struct bytes *input,
                   struct buffer *output)
{
    engine->tls = tls;
    engine->input = input;
    engine->output = output;
    BIO_up_ref(engine->bio);
    BIO_up_ref(engine->bio);
    SSL_set0_rbio(tls->ssl, engine->bio);
    SSL_set0_wbio(tls->ssl, engine->bio);
}

static void detach(struct tls_engine *engine, struct tls *tls)
{
    SSL_set0_rbio(tls->ssl, NULL);
    SSL_set0_wbio(tls->ssl, NULL);
    engine->tls = NULL;
    engine->input = NULL;
    engine->output = NULL;
}

/* ---- connections */

enum err tls_create(struct tls **tls, struct tls_context *context)
{
    struct tls *t = memory_take_zeroed(sizeof *t, MEMORY_TLS);
    if (t == NULL)
        return ERR_NO_MEMORY;
    t->ssl = SSL_new(context->ssl);
    if (t->ssl == NULL) {
        ERR_clear_error();
        memory_give(t, MEMORY_TLS);
        return ERR_NO_MEMORY;
    }
    SSL_set_shed_handshake_config(t->ssl, 1);
    if (context->server)
        SSL_set_accept_state(t->ssl);
    else
        SSL_set_connect_state(t->ssl);
    tls_context_retain(context);
    t->context = context;
    *tls = t;
    return OK;
}

void tls_destroy(struct tls *tls)
{
    if (tls == NULL)
        return;
    SSL_SESSION_free(tls->session);
    SSL_free(tls->ssl);
    memory_give(tls->server_name, MEMORY_TLS);
    tls_context_release(tls->context);
    memory_give(tls, MEMORY_TLS);
}

/* step_result: what a call of the library that did not succeed means. */
static enum err step_result(const struct tls *tls, struct tls_engine *engine, int result,
                            const char *during)
{
    switch (SSL_get_error(tls->ssl, result)) {
    case SSL_ERROR_WANT_READ:
        return OK;
    case SSL_ERROR_WANT_WRITE:
        return ERR_FULL;
    case SSL_ERROR_ZERO_RETURN:
        return ERR_CLOSED;
    default:
        snprintf(engine->explanation, sizeof engine->explanation, "%s: %s", during,
                 tls_library_reason());
        return ERR_INVALID;
    }
}

/* handshake: OK: done, or more input needed: tls_established tells. */
static enum err handshake(struct tls *tls, struct tls_engine *engine)
{
    int result = SSL_do_handshake(tls->ssl);
    if (result != 1)
        return step_result(tls, engine, result, "handshake");
    memory_give(tls->server_name, MEMORY_TLS);
    tls->server_name = NULL;
    return OK;
}

/* pending_flush: what the library queued behind our back: tickets, answers to key updates. */
static enum err pending_flush(struct tls *tls, struct tls_engine *engine)
{
    int result = SSL_write(tls->ssl, "", 0);
    return result < 0 ? step_result(tls, engine, result, "flush") : OK;
}

/* plaintext_read: until the input is used up or plaintext is full. */
static enum err plaintext_read(struct tls *tls, struct tls_engine *engine, struct buffer *plaintext)
{
    for (;;) {
        size_t room = buffer_room(plaintext);
        if (room == 0)
            return engine->input->size != 0 || SSL_pending(tls->ssl) != 0 ? ERR_FULL : OK;
        int result = SSL_read(tls->ssl, plaintext->data + plaintext->size,
                              room > INT32_MAX ? INT32_MAX : (int)room);
        if (result <= 0)
            return step_result(tls, engine, result, "record");
        plaintext->size += (size_t)result;
    }
}

enum err tls_receive(struct tls *tls, struct tls_engine *engine, struct bytes *input,
                     struct buffer *plaintext, struct buffer *answer)
{
    attach(engine, tls, input, answer);
    enum err err = OK;
    if (SSL_in_init(tls->ssl))
        err = handshake(tls, engine);
    if (err == OK && !SSL_in_init(tls->ssl)) {
        err = plaintext_read(tls, engine, plaintext);
        if (err == OK || err == ERR_FULL) {
            enum err flushed = pending_flush(tls, engine);
            err = flushed == OK ? err : flushed;
        }
    }
    detach(engine, tls);
    return err;
}

enum err tls_send(struct tls *tls, struct tls_engine *engine, struct bytes *input,
                  struct buffer *ciphertext)
{
    if (SSL_in_init(tls->ssl))
        return ERR_AGAIN;
    attach(engine, tls, NULL, ciphertext);
    enum err err = pending_flush(tls, engine);
    size_t overhead = SSL_max_seal_overhead(tls->ssl);
    while (err == OK && input->size != 0) {
        size_t room = buffer_room(ciphertext);
        if (room <= overhead) {
            err = ERR_FULL;
            break;
        }
        size_t size = input->size < PLAINTEXT_MAX ? input->size : PLAINTEXT_MAX;
        if (size > room - overhead)
            size = room - overhead;
        int result = SSL_write(tls->ssl, input->data, (int)size);
        if (result <= 0) {
            err = step_result(tls, engine, result, "seal");
            CHECK(err != ERR_FULL && err != OK); /* room for the whole record was checked */
            break;
        }
        *input = bytes_skip(*input, (size_t)result);
    }
    detach(engine, tls);
    return err;
}

void tls_close(struct tls *tls, struct tls_engine *engine, struct buffer *ciphertext)
{
    if (SSL_in_init(tls->ssl) || buffer_room(ciphertext) < TLS_RECORD_OVERHEAD)
        return;
    attach(engine, tls, NULL, ciphertext);
    (void)SSL_shutdown(tls->ssl); /* half a record more or less: the connection ends here */
    ERR_clear_error();
    detach(engine, tls);
}

/* ---- clients */

static bool is_address(const char *name)
{
    uint8_t address[16];
    return inet_pton(AF_INET, name, address) == 1 || inet_pton(AF_INET6, name, address) == 1;
}

static enum err client_name_set(struct tls *tls, const char *name)
{
    if (name == NULL || name[0] == '\0')
        return OK;
    if (!is_address(name) && SSL_set_tlsext_host_name(tls->ssl, name) != 1) {
        ERR_clear_error();
        return ERR_INVALID;
    }
    if (tls->context->trusted == NULL)
        return OK;
    size_t size = strlen(name) + 1;
    tls->server_name = memory_take(size, MEMORY_TLS);
    if (tls->server_name == NULL)
        return ERR_NO_MEMORY;
    memcpy(tls->server_name, name, size);
    return OK;
}

enum err tls_client_start(struct tls *tls, struct tls_engine *engine, struct buffer *answer,
                          const char *server_name, struct bytes session)
{
    CHECK(!tls->context->server);
    TRY(client_name_set(tls, server_name));
    if (session.size != 0) {
        SSL_SESSION *parsed = SSL_SESSION_from_bytes(session.data, session.size, tls->context->ssl);
        if (parsed == NULL || SSL_set_session(tls->ssl, parsed) != 1) {
            SSL_SESSION_free(parsed);
            ERR_clear_error();
            return ERR_INVALID;
        }
        SSL_SESSION_free(parsed);
    }
    attach(engine, tls, NULL, answer);
    enum err err = handshake(tls, engine);
    detach(engine, tls);
    return err;
}

enum err tls_client_session(struct tls *tls, struct buffer *out)
{
    if (tls->session == NULL)
        return ERR_NOT_FOUND;
    uint8_t *data = NULL;
    size_t size = 0;
    if (SSL_SESSION_to_bytes(tls->session, &data, &size) != 1) {
        ERR_clear_error();
        return ERR_NO_MEMORY;
    }
    enum err err = buffer_append(out, bytes_of(data, size));
    OPENSSL_free(data);
    if (err == OK) { /* RFC 8446 C.4: a ticket is used once */
        SSL_SESSION_free(tls->session);
        tls->session = NULL;
    }
    return err;
}

/* ---- questions */

bool tls_established(const struct tls *tls)
{
    return !SSL_in_init(tls->ssl);
}

bool tls_resumed(const struct tls *tls)
{
    return SSL_session_reused(tls->ssl) == 1;
}

const char *tls_version(const struct tls *tls)
{
    return SSL_get_version(tls->ssl);
}

const char *tls_library(void)
{
#define NUMBER_TEXT_(n) #n
#define NUMBER_TEXT(n)  NUMBER_TEXT_(n)
#if BORINGSSL_API_VERSION == 17
    return "BoringSSL API " NUMBER_TEXT(BORINGSSL_API_VERSION) " (2022, Debian's package)";
#else
    return "BoringSSL API " NUMBER_TEXT(BORINGSSL_API_VERSION);
#endif
}

const char *tls_explain(const struct tls_engine *engine)
{
    return engine->explanation;
}
