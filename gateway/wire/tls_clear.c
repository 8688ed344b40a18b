/* tls_clear.c: the TLS seam for the simulator: after a handshake of a few bytes each way, bytes
 * pass unchanged.
 * Format:     client's first flight "clr?" (full) or "clr+" (with a session), server's answer
 *             "clr!"; then clear bytes. The handshake is there because the code around has one:
 *             states before it, what arrives in pieces, what is no TLS at all (ERR_INVALID).
 * Differs:    no close_notify (the end of the stream says it), no certificates, no tickets: any
 *             session resumes */
#include "gateway/wire/tls.h"

#include "core/memory.h"

#include <stdatomic.h>

#define HELLO_BYTES 4

static const char hello_full[] = "clr?";
static const char hello_resumed[] = "clr+";
static const char hello_answer[] = "clr!";

struct tls_context {
    bool server;
    atomic_uint references;
};

struct tls_engine {
    const char *reason; /* of the newest failure */
};

struct tls {
    struct tls_context *context;
    uint8_t hello[HELLO_BYTES]; /* the peer's, as far as it has come */
    uint8_t hello_size;
    bool established;
    bool resumed;
    bool failed;
};

static enum err context_create(struct tls_context **out, bool server, const char **explanation)
{
    struct tls_context *context = memory_take_zeroed(sizeof *context, MEMORY_TLS);
    *explanation = context ? "" : "no memory";
    if (!context)
        return ERR_NO_MEMORY;
    context->server = server;
    atomic_init(&context->references, 1);
    *out = context;
    return OK;
}

enum err tls_context_create_server(struct tls_context **context,
                                   const struct tls_server_options *options,
                                   const char **explanation)
{
    (void)options; /* nothing is encrypted */
    return context_create(context, true, explanation);
}

enum err tls_context_create_client(struct tls_context **context, const char *ca_path,
                                   const char **explanation)
{
    (void)ca_path;
    return context_create(context, false, explanation);
}

void tls_context_retain(struct tls_context *context)
{
    atomic_fetch_add(&context->references, 1);
}

void tls_context_release(struct tls_context *context)
{
    if (context && atomic_fetch_sub(&context->references, 1) == 1)
        memory_give(context, MEMORY_TLS);
}

void tls_context_set_period(struct tls_context *context, uint64_t period)
{
    (void)context;
    (void)period;
}

enum err tls_make_certificate(const char *certificate_path, const char *key_path, const char *names,
                              uint32_t days, uint64_t unix_ms)
{
    (void)certificate_path;
    (void)key_path;
    (void)names;
    (void)days;
    (void)unix_ms;
    return OK;
}

enum err tls_engine_create(struct tls_engine **engine)
{
    *engine = memory_take_zeroed(sizeof **engine, MEMORY_TLS);
    if (!*engine)
        return ERR_NO_MEMORY;
    (*engine)->reason = "";
    return OK;
}

void tls_engine_destroy(struct tls_engine *engine)
{
    memory_give(engine, MEMORY_TLS);
}

enum err tls_create(struct tls **out, struct tls_context *context)
{
    struct tls *tls = memory_take_zeroed(sizeof *tls, MEMORY_TLS);
    if (!tls)
        return ERR_NO_MEMORY;
    tls->context = context;
    tls_context_retain(context);
    *out = tls;
    return OK;
}

void tls_destroy(struct tls *tls)
{
    if (!tls)
        return;
    tls_context_release(tls->context);
    memory_give(tls, MEMORY_TLS);
}

enum err tls_client_start(struct tls *tls, struct tls_engine *engine, struct buffer *answer,
                          const char *server_name, struct bytes session)
{
    (void)engine;
    (void)server_name;
    CHECK(!tls->context->server);
    tls->resumed = session.size > 0;
    return buffer_append(answer, bytes_of(tls->resumed ? hello_resumed : hello_full, HELLO_BYTES));
}

enum err tls_client_session(struct tls *tls, struct buffer *out)
{
    if (!tls->established)
        return ERR_NOT_FOUND;
    return buffer_append(out, bytes_of_text("clear session"));
}

static bool hello_is(const struct tls *tls, const char *text)
{
    return memcmp(tls->hello, text, HELLO_BYTES) == 0;
}

/* The peer's hello is complete. */
static enum err handshake(struct tls *tls, struct tls_engine *engine, struct buffer *answer)
{
    if (!tls->context->server) {
        tls->established = hello_is(tls, hello_answer);
    } else if (hello_is(tls, hello_full) || hello_is(tls, hello_resumed)) {
        TRY(buffer_append(answer, bytes_of(hello_answer, HELLO_BYTES)));
        tls->resumed = hello_is(tls, hello_resumed);
        tls->established = true;
    }
    if (tls->established)
        return OK;
    tls->failed = true;
    engine->reason = "no hello of clear TLS";
    return ERR_INVALID;
}

enum err tls_receive(struct tls *tls, struct tls_engine *engine, struct bytes *input,
                     struct buffer *plaintext, struct buffer *answer)
{
    if (tls->failed)
        return ERR_INVALID;
    while (tls->hello_size < HELLO_BYTES && input->size > 0) {
        tls->hello[tls->hello_size++] = input->data[0];
        *input = bytes_skip(*input, 1);
    }
    if (tls->hello_size < HELLO_BYTES)
        return OK;
    if (!tls->established)
        TRY(handshake(tls, engine, answer));
    size_t room = buffer_room(plaintext);
    size_t count = input->size < room ? input->size : room;
    TRY(buffer_append(plaintext, bytes_of(input->data, count)));
    *input = bytes_skip(*input, count);
    return input->size > 0 ? ERR_FULL : OK;
}

enum err tls_send(struct tls *tls, struct tls_engine *engine, struct bytes *input,
                  struct buffer *ciphertext)
{
    (void)engine;
    CHECK(tls->established || input->size == 0);
    size_t room = buffer_room(ciphertext);
    size_t count = input->size < room ? input->size : room;
    TRY(buffer_append(ciphertext, bytes_of(input->data, count)));
    *input = bytes_skip(*input, count);
    return input->size > 0 ? ERR_FULL : OK;
}

void tls_close(struct tls *tls, struct tls_engine *engine, struct buffer *ciphertext)
{
    (void)tls;
    (void)engine;
    (void)ciphertext; /* the end of the stream says it */
}

bool tls_established(const struct tls *tls)
{
    return tls->established;
}

bool tls_resumed(const struct tls *tls)
{
    return tls->established && tls->resumed;
}

const char *tls_version(const struct tls *tls)
{
    (void)tls;
    return "clear";
}

const char *tls_library(void)
{
    return "none (simulator)";
}

const char *tls_explain(const struct tls_engine *engine)
{
    return engine->reason;
}
