/* user.c: see user.h.
 *
 *   OFFLINE    --user_connecting-->  CONNECTING --user_connected--> TLS
 *   TLS        --handshake done: GET /connect-->                    UPGRADE
 *   UPGRADE    --101 with our subprotocol-->                        WELCOME
 *   WELCOME    --welcome: hello-->                                  HELLO
 *   HELLO      --ready-->                                           READY
 *   any        --user_lost-->                                       OFFLINE
 *
 * Receiving: user_receive.c; sending: user_send.c.
 * What is to be sent is never queued as bytes: `want` bits, dirty watermarks and unsent messages
 * say what is due, and user_flush makes one frame of as much of it as has room. A message's content
 * is made anew from its id for every attempt, so an unacknowledged one costs a struct user_send. */
#include "loadgen/user_private.h"

#include "core/memory.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#define PLAINTEXT_BYTES (40 * 1024) /* two TLS records: what one receive can bring */

/* ---- engine */

uint64_t user_engine_random(struct user_engine *engine)
{
    uint64_t z = engine->random += 0x9e3779b97f4a7c15u; /* splitmix64 */
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

void user_entropy(void *context, void *out, size_t size)
{
    struct user_engine *engine = context;
    uint8_t *at = out;
    while (size != 0) {
        uint64_t v = user_engine_random(engine);
        size_t part = size < sizeof v ? size : sizeof v;
        memcpy(at, &v, part);
        at += part;
        size -= part;
    }
}

static bool buffer_take(struct buffer *buffer, size_t capacity)
{
    *buffer = buffer_of(memory_take(capacity, MEMORY_CONNECTION), capacity);
    return buffer->data != NULL;
}

enum err user_engine_create(struct user_engine **out, const struct user_options *options)
{
    struct user_engine *engine = memory_take_zeroed(sizeof *engine, MEMORY_CONNECTION);
    if (engine == NULL)
        return ERR_NO_MEMORY;
    engine->options = options;
    engine->random = options->seed;
    engine->requests_max = REQUESTS_MAX;
    engine->limits = (struct websocket_limits){
        .message_bytes_max = options->response_bytes_max, .fragments_max = 64, .client = true};
    size_t largest = options->message_bytes_max + USER_OUTPUT_OVERHEAD + USER_HELLO_BYTES;
    size_t scale = options->encoding == ENCODING_JSON ? 2 : 1;
    size_t scratch = 64 * 1024 + (size_t)options->response_bytes_max * 2;
    if (!buffer_take(&engine->plaintext, PLAINTEXT_BYTES) ||
        !buffer_take(&engine->scratch, scratch) ||
        !buffer_take(&engine->element, largest * scale) ||
        !buffer_take(&engine->frame, largest * scale * 2) ||
        !buffer_take(&engine->wire, largest * scale * 2 + WEBSOCKET_FRAME_OVERHEAD) ||
        !buffer_take(&engine->payload, largest) || tls_engine_create(&engine->tls) != OK ||
        websocket_engine_create(&engine->websocket, user_entropy, engine) != OK) {
        user_engine_destroy(engine);
        return ERR_NO_MEMORY;
    }
    *out = engine;
    return OK;
}

void user_engine_destroy(struct user_engine *engine)
{
    if (engine == NULL)
        return;
    if (engine->websocket != NULL)
        websocket_engine_destroy(engine->websocket);
    if (engine->tls != NULL)
        tls_engine_destroy(engine->tls);
    memory_give(engine->plaintext.data, MEMORY_CONNECTION);
    memory_give(engine->scratch.data, MEMORY_CONNECTION);
    memory_give(engine->element.data, MEMORY_CONNECTION);
    memory_give(engine->frame.data, MEMORY_CONNECTION);
    memory_give(engine->wire.data, MEMORY_CONNECTION);
    memory_give(engine->payload.data, MEMORY_CONNECTION);
    memory_give(engine, MEMORY_CONNECTION);
}

void user_engine_time(struct user_engine *engine, uint64_t now_ns, uint64_t wall_ms)
{
    engine->now_ns = now_ns;
    engine->wall_ms = wall_ms;
}

const char *user_engine_server(const struct user_engine *engine)
{
    return engine->server;
}

const char *user_failure(const struct user_engine *engine)
{
    return engine->failure;
}

enum err user_fail(struct user_engine *engine, enum err err, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(engine->failure, sizeof engine->failure, format, arguments);
    va_end(arguments);
    return err;
}

/* ---- life */

void user_set_state(struct user *user, enum user_state state)
{
    static const uint8_t edges[USER_STATE_COUNT] = {
        [USER_OFFLINE] = 1 << USER_CONNECTING,
        [USER_CONNECTING] = 1 << USER_TLS | 1 << USER_OFFLINE,
        [USER_TLS] = 1 << USER_UPGRADE | 1 << USER_OFFLINE,
        [USER_UPGRADE] = 1 << USER_WELCOME | 1 << USER_OFFLINE,
        [USER_WELCOME] = 1 << USER_HELLO | 1 << USER_OFFLINE,
        [USER_HELLO] = 1 << USER_READY | 1 << USER_OFFLINE,
        [USER_READY] = 1 << USER_OFFLINE,
    };
    CHECK((edges[user->state] >> state & 1) != 0);
    user->state = state;
}

void user_init(struct user *user, uint32_t index, uint32_t device)
{
    *user = (struct user){.index = index, .device = device, .state = USER_OFFLINE};
}

static void connection_forget(struct user *user, struct user_engine *engine)
{
    if (engine->user == user) { /* closed in the middle of what it received */
        engine->user = NULL;
        engine->event_at = engine->event_count = 0;
        engine->rest = (struct bytes){NULL, 0};
    }
    if (user->http != NULL)
        http_reader_destroy(user->http);
    user->http = NULL;
    websocket_deinit(&user->websocket, engine->websocket);
    user->websocket = (struct websocket){0};
    if (user->tls != NULL)
        tls_destroy(user->tls);
    user->tls = NULL;
    user->want = 0;
}

void user_deinit(struct user *user, struct user_engine *engine)
{
    connection_forget(user, engine);
    while (user->sends != NULL) {
        struct user_send *send = user->sends;
        user->sends = send->next;
        memory_give(send, MEMORY_CONNECTION);
    }
    memory_give(user->watermarks, MEMORY_CONNECTION);
    memory_give(user->session, MEMORY_CONNECTION);
    user->watermarks = NULL;
    user->session = NULL;
}

void user_connecting(struct user *user, struct user_engine *engine)
{
    user_set_state(user, USER_CONNECTING);
    user->connection++;
    user->deadline_ns = engine->now_ns + engine->options->handshake_ms * NS_PER_MS;
}

enum err user_connected(struct user *user, struct user_engine *engine, struct buffer *output)
{
    enum err err = tls_create(&user->tls, engine->options->tls_context);
    if (err != OK)
        return user_fail(engine, err, "no TLS state: %s", err_name(err));
    user_set_state(user, USER_TLS);
    err = tls_client_start(user->tls, engine->tls, output, engine->options->server_name,
                           bytes_of(user->session, user->session_bytes));
    if (err != OK)
        return user_fail(engine, err, "TLS cannot start: %s", tls_explain(engine->tls));
    return OK;
}

uint64_t user_backoff_ms(struct user_engine *engine, uint64_t base_ms, uint32_t failures)
{
    uint64_t wait_ms = base_ms << (failures < 16 ? failures : 16);
    if (wait_ms > engine->options->backoff_ms_max)
        wait_ms = engine->options->backoff_ms_max;
    return wait_ms / 2 + user_engine_random(engine) % (wait_ms / 2 + 1);
}

/* release: the held sends whose time has come. */
static void release(struct user *user, uint64_t now_ns)
{
    user->retry_ns = 0;
    for (struct user_send *send = user->sends; send != NULL; send = send->next) {
        if (send->retry_ns <= now_ns)
            send->retry_ns = 0;
        else if (user->retry_ns == 0 || send->retry_ns < user->retry_ns)
            user->retry_ns = send->retry_ns;
    }
}

void user_lost(struct user *user, struct user_engine *engine)
{
    connection_forget(user, engine);
    user_set_state(user, USER_OFFLINE);
    user->unsent = user->send_count;
    for (struct user_send *send = user->sends; send != NULL; send = send->next) {
        send->sent = false;
        if (send->seq == 0)
            send->retry_ns = 0;
    }
    release(user, engine->now_ns);
    user->ack_ns = 0;
    user->unacked_messages = 0;
    uint64_t wait_ms = user_backoff_ms(engine, engine->options->backoff_ms_min, user->attempts) +
                       user->retry_after_ms;
    user->retry_after_ms = 0;
    if (user->attempts < UINT8_MAX)
        user->attempts++;
    user->deadline_ns = engine->now_ns + wait_ms * NS_PER_MS;
}

void user_reconnect_at(struct user *user, uint64_t at_ns)
{
    CHECK(user->state == USER_OFFLINE);
    user->deadline_ns = at_ns;
}

/* ---- time */

enum err user_tick(struct user *user, struct user_engine *engine)
{
    uint64_t now = engine->now_ns;
    if (user->state == USER_OFFLINE)
        return OK;
    if (now >= user->deadline_ns)
        return user->state == USER_READY
                   ? user_fail(engine, ERR_TIMEOUT, "silence for %u heartbeats of %" PRIu32 " ms",
                               LOST_BEATS / 2, user->heartbeat_ms)
                   : user_fail(engine, ERR_TIMEOUT, "not ready after %" PRIu32 " ms, state %d",
                               engine->options->handshake_ms, (int)user->state);
    if (user->state != USER_READY)
        return OK;
    if (now >= user->ping_ns) {
        user->want |= WANT_PING;
        user->ping_ns = now + user->heartbeat_ms * NS_PER_MS;
    }
    if (user->retry_ns != 0 && now >= user->retry_ns)
        release(user, now);
    return OK;
}

uint64_t user_due_ns(const struct user *user)
{
    uint64_t due = user->deadline_ns;
    if (user->state != USER_READY)
        return due;
    if (user->ping_ns < due)
        due = user->ping_ns;
    if (user->ack_ns != 0 && user->ack_ns < due)
        due = user->ack_ns;
    if (user->retry_ns != 0 && user->retry_ns < due)
        due = user->retry_ns;
    return due;
}

bool user_quiet(const struct user *user)
{
    return user->send_count == 0;
}

const char *user_tls_version(const struct user *user)
{
    return user->tls != NULL && tls_established(user->tls) ? tls_version(user->tls) : "";
}

bool user_tls_resumed(const struct user *user)
{
    return user->tls != NULL && tls_established(user->tls) && tls_resumed(user->tls);
}
