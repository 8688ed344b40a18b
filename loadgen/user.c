/* user.c: see user.h.
 *
 *   OFFLINE    --user_connecting-->  CONNECTING --user_connected--> TLS
 *   TLS        --handshake done: GET /connect-->                    UPGRADE
 *   UPGRADE    --101 with our subprotocol-->                        WELCOME
 *   WELCOME    --welcome: hello-->                                  HELLO
 *   HELLO      --ready-->                                           READY
 *   any        --user_lost-->                                       OFFLINE
 *
 * What is to be sent is never queued as bytes: `want` bits, dirty watermarks and unsent messages
 * say what is due, and user_flush makes one frame of as much of it as has room. A message's content
 * is made anew from its id for every attempt, so an unacknowledged one costs a struct user_send. */
#include "loadgen/user.h"

#include "core/memory.h"
#include "core/text.h"
#include "loadgen/oracle.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#define EVENTS_MAX      256
#define PLAINTEXT_BYTES (40 * 1024) /* two TLS records: what one receive can bring */
#define TOKEN_BYTES     1024
#define TICKET_BYTES    4096
#define FAILURE_BYTES   200
#define REQUESTS_MAX    16 /* per frame; the server's limit may be lower */
#define LOST_BEATS      5  /* half heartbeats of silence until the server counts as gone */
#define HEAD_BYTES_MAX  4096
#define CLOSE_NORMAL    1000

enum want { WANT_UPGRADE = 1, WANT_HELLO = 2, WANT_PING = 4 };

struct user_send {
    struct user_send *next;
    struct message_id id;
    struct user_id to;
    uint64_t intended_ns;
    uint32_t request; /* of the newest attempt */
    uint32_t size;
    bool sent; /* on this connection */
    bool held; /* until retry_ns */
};

struct user_watermark {
    struct conversation_id conversation;
    uint64_t received;
    uint64_t told;
};

struct user_engine {
    const struct user_options *options;
    struct tls_engine *tls;
    struct websocket_engine *websocket;
    struct websocket_limits limits;
    struct user *user; /* at work in user_receive */
    struct buffer plaintext;
    struct bytes rest;     /* of plaintext */
    struct buffer scratch; /* decoding */
    struct buffer element; /* one encoded request */
    struct buffer frame;   /* elements joined */
    struct buffer wire;    /* framed plaintext */
    struct buffer payload;
    struct event events[EVENTS_MAX];
    size_t event_count;
    size_t event_at;
    enum err tls_end; /* what tls_receive ended with, to be told after the plaintext before it */
    uint64_t now_ns;
    uint64_t wall_ms;
    uint64_t random;
    uint32_t requests_max;
    bool has_epoch;
    uint8_t store_epoch[16];
    char server[64];
    char failure[FAILURE_BYTES];
};

/* ---- engine */

uint64_t user_engine_random(struct user_engine *engine)
{
    uint64_t z = engine->random += 0x9e3779b97f4a7c15u; /* splitmix64 */
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static void engine_entropy(void *context, void *out, size_t size)
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
        websocket_engine_create(&engine->websocket, engine_entropy, engine) != OK) {
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

__attribute__((format(printf, 3, 4))) static enum err fail(struct user_engine *engine, enum err err,
                                                           const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(engine->failure, sizeof engine->failure, format, arguments);
    va_end(arguments);
    return err;
}

/* ---- life */

static void user_set_state(struct user *user, enum user_state state)
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
        return fail(engine, err, "no TLS state: %s", err_name(err));
    user_set_state(user, USER_TLS);
    err = tls_client_start(user->tls, engine->tls, output, engine->options->server_name,
                           bytes_of(user->session, user->session_bytes));
    if (err != OK)
        return fail(engine, err, "TLS cannot start: %s", tls_explain(engine->tls));
    return OK;
}

void user_lost(struct user *user, struct user_engine *engine)
{
    const struct user_options *options = engine->options;
    connection_forget(user, engine);
    user_set_state(user, USER_OFFLINE);
    user->unsent = user->send_count;
    for (struct user_send *send = user->sends; send != NULL; send = send->next)
        send->sent = send->held = false;
    user->ack_ns = user->retry_ns = 0;
    user->unacked_messages = 0;
    uint64_t wait_ms = (uint64_t)options->backoff_ms_min
                       << (user->attempts < 16 ? user->attempts : 16);
    if (wait_ms > options->backoff_ms_max)
        wait_ms = options->backoff_ms_max;
    wait_ms = wait_ms / 2 + user_engine_random(engine) % (wait_ms / 2 + 1) + user->retry_after_ms;
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

/* ---- receiving */

static struct user_watermark *watermark_of(struct user *user, struct conversation_id conversation)
{
    for (uint32_t i = 0; i < user->watermark_count; i++)
        if (conversation_id_equal(user->watermarks[i].conversation, conversation))
            return &user->watermarks[i];
    if (user->watermark_count == user->watermark_capacity) {
        uint32_t capacity = user->watermark_capacity == 0 ? 1 : user->watermark_capacity * 2u;
        struct user_watermark *grown =
            capacity > UINT16_MAX
                ? NULL
                : memory_resize(user->watermarks, capacity * sizeof *grown, MEMORY_CONNECTION);
        if (grown == NULL)
            return NULL;
        user->watermarks = grown;
        user->watermark_capacity = (uint16_t)capacity;
    }
    struct user_watermark *made = &user->watermarks[user->watermark_count++];
    *made = (struct user_watermark){.conversation = conversation};
    return made;
}

static enum err on_message(struct user *user, struct user_engine *engine,
                           const struct message *message)
{
    struct user_watermark *watermark = watermark_of(user, message->conversation);
    if (watermark == NULL)
        return fail(engine, ERR_NO_MEMORY, "no memory for a watermark");
    if (message->seq > watermark->received)
        watermark->received = message->seq;
    if (message->seq <=
        watermark->told) /* pushed again: the server does not know what it was told */
        watermark->told = message->seq - 1;
    if (user->unacked_messages == 0)
        user->ack_ns = engine->now_ns + engine->options->ack_delay_ms * NS_PER_MS;
    if (++user->unacked_messages >= engine->options->ack_messages)
        user->ack_ns = engine->now_ns;
    return OK;
}

/* send_find: by id, or by request number where the answer names no id; *link is what points at it.
 */
static struct user_send **send_find(struct user *user, const struct message_id *id,
                                    uint64_t request)
{
    struct user_send **link = &user->sends;
    while (*link != NULL) {
        if (id != NULL ? memcmp((*link)->id.v, id->v, sizeof id->v) == 0
                       : (*link)->sent && (*link)->request == request)
            return link;
        link = &(*link)->next;
    }
    return NULL;
}

static void send_remove(struct user *user, struct user_send **link)
{
    struct user_send *send = *link;
    *link = send->next;
    if (!send->sent)
        user->unsent--;
    user->send_count--;
    user->sends_tail = NULL;
    for (struct user_send *at = user->sends; at != NULL; at = at->next)
        user->sends_tail = at;
    memory_give(send, MEMORY_CONNECTION);
}

static bool on_ack(struct user *user, const struct ack *ack, struct user_event *out)
{
    struct user_send **link = send_find(user, &ack->message_id, 0);
    if (link == NULL)
        return false; /* a repeated send's second answer */
    *out = (struct user_event){.kind = USER_EVENT_ACKED,
                               .duplicate = ack->duplicate,
                               .conversation = ack->conversation,
                               .id = ack->message_id,
                               .seq = ack->seq,
                               .intended_ns = (*link)->intended_ns};
    struct user_watermark *watermark = watermark_of(user, ack->conversation);
    if (watermark != NULL && ack->seq == watermark->received + 1)
        watermark->received = ack->seq;
    send_remove(user, link);
    return true;
}

static bool on_error(struct user *user, struct user_engine *engine, uint64_t request,
                     const struct failure *error, struct user_event *out)
{
    *out = (struct user_event){.kind = USER_EVENT_ERROR, .code = error->code};
    (void)fail(engine, OK, "the server answered %s: %.*s", code_name(error->code),
               (int)(error->text.size < 100 ? error->text.size : 100),
               (const char *)error->text.data);
    struct user_send **link =
        error->has_message_id || request != 0
            ? send_find(user, error->has_message_id ? &error->message_id : NULL, request)
            : NULL;
    if (link == NULL)
        return true;
    struct user_send *send = *link;
    out->intended_ns = send->intended_ns;
    out->id = send->id;
    if (error->verdict != VERDICT_RETRY) {
        out->kind = USER_EVENT_REFUSED;
        send_remove(user, link);
        return true;
    }
    out->kind = USER_EVENT_RETRY;
    if (send->sent)
        user->unsent++;
    send->sent = false;
    send->held = true;
    uint64_t wait_ms = error->retry_after_ms == 0 ? 100 : error->retry_after_ms;
    user->retry_ns = engine->now_ns + wait_ms * NS_PER_MS;
    return true;
}

static enum err on_welcome(struct user *user, struct user_engine *engine,
                           const struct welcome *welcome)
{
    if (user->state != USER_WELCOME)
        return fail(engine, ERR_INVALID, "a second welcome");
    if (welcome->store_epoch.size == sizeof engine->store_epoch) {
        memcpy(engine->store_epoch, welcome->store_epoch.data, sizeof engine->store_epoch);
        engine->has_epoch = true;
    }
    if (welcome->requests_max != 0 && welcome->requests_max < engine->requests_max)
        engine->requests_max = welcome->requests_max;
    if (engine->server[0] == '\0')
        (void)snprintf(engine->server, sizeof engine->server, "%.*s", (int)welcome->server.size,
                       welcome->server.size == 0 ? "" : (const char *)welcome->server.data);
    user_set_state(user, USER_HELLO);
    user->want |= WANT_HELLO;
    return OK;
}

static void alive(struct user *user, struct user_engine *engine)
{
    if (user->state == USER_READY)
        user->deadline_ns = engine->now_ns + user->heartbeat_ms * LOST_BEATS / 2 * NS_PER_MS;
}

static enum err on_ready(struct user *user, struct user_engine *engine, const struct ready *ready)
{
    if (user->state != USER_HELLO)
        return fail(engine, ERR_INVALID, "ready without hello");
    if (user->id.v != 0 && user->id.v != ready->user.v)
        return fail(engine, ERR_CONFLICT, "the user's id changed between connections");
    user->id = ready->user;
    user->attempts = 0;
    user->heartbeat_ms = ready->heartbeat_ms == 0 ? 120000 : ready->heartbeat_ms;
    user_set_state(user, USER_READY);
    alive(user, engine);
    /* spread, so that users who connected together do not ping together */
    user->ping_ns = engine->now_ns + user->heartbeat_ms / 2 * NS_PER_MS +
                    user_engine_random(engine) % (user->heartbeat_ms / 2 * NS_PER_MS + 1);
    return OK;
}

/* on_event: OK: *out is an event for the owner; ERR_AGAIN: nothing for it; else close. */
static enum err on_event(struct user *user, struct user_engine *engine, const struct event *event,
                         struct user_event *out)
{
    switch (event->kind) {
    case EVENT_WELCOME:
        TRY(on_welcome(user, engine, &event->welcome));
        return ERR_AGAIN;
    case EVENT_READY:
        TRY(on_ready(user, engine, &event->ready));
        *out = (struct user_event){.kind = USER_EVENT_READY};
        return OK;
    case EVENT_ACK:
        return on_ack(user, &event->ack, out) ? OK : ERR_AGAIN;
    case EVENT_MESSAGE:
        TRY(on_message(user, engine, &event->message));
        *out = (struct user_event){.kind = USER_EVENT_MESSAGE, .message = &event->message};
        return OK;
    case EVENT_SYNCED:
        *out = (struct user_event){.kind = USER_EVENT_SYNCED};
        return OK;
    case EVENT_LAGGING:
        *out = (struct user_event){.kind = USER_EVENT_LAGGING};
        return OK;
    case EVENT_ERROR:
        if (user->state != USER_READY)
            return fail(engine, ERR_DENIED, "refused: %s: %.*s", code_name(event->error.code),
                        (int)(event->error.text.size < 100 ? event->error.text.size : 100),
                        (const char *)event->error.text.data);
        return on_error(user, engine, event->id, &event->error, out) ? OK : ERR_AGAIN;
    case EVENT_GOODBYE:
        user->retry_after_ms = event->goodbye.retry_after_ms;
        return fail(engine, ERR_CLOSED, "the server said goodbye: %s",
                    code_name(event->goodbye.code));
    case EVENT_NONE:
    case EVENT_RENEWED:
    case EVENT_RECEIPT:
    case EVENT_HISTORY:
    case EVENT_PONG:
    case EVENT_TOKEN_EXPIRING:
    case EVENT_GONE:
        return ERR_AGAIN;
    }
    return ERR_AGAIN;
}

/* seal: plaintext to output; the caller made sure of the room. */
static enum err seal(struct user *user, struct user_engine *engine, struct bytes plaintext,
                     struct buffer *output)
{
    size_t size = output->size;
    enum err err = tls_send(user->tls, engine->tls, &plaintext, output);
    if (err == ERR_FULL)
        output->size = size; /* only before anything was sealed: room was checked */
    return err == OK ? OK : fail(engine, err, "TLS cannot seal: %s", err_name(err));
}

static size_t sealed_bytes(size_t plaintext)
{
    return plaintext + (plaintext / 16384 + 1) * TLS_RECORD_OVERHEAD;
}

/* on_control: PING, PONG and CLOSE frames. */
static enum err on_control(struct user *user, struct user_engine *engine,
                           const struct websocket_message *message, struct buffer *output)
{
    if (message->opcode == WEBSOCKET_CLOSE)
        return fail(engine, ERR_CLOSED, "the server closed with code %u: %.*s", message->close_code,
                    (int)message->data.size, (const char *)message->data.data);
    if (message->opcode != WEBSOCKET_PING ||
        buffer_room(output) < sealed_bytes(message->data.size + WEBSOCKET_FRAME_OVERHEAD))
        return OK; /* a pong that has no room now is left out: the next ping gets one */
    engine->wire.size = 0;
    TRY(websocket_frame(&engine->wire, engine->websocket, &engine->limits, WEBSOCKET_PONG,
                        message->data));
    return seal(user, engine, buffer_bytes(&engine->wire), output);
}

/* frame_next: one WebSocket message off engine->rest into engine->events; ERR_AGAIN: incomplete. */
static enum err frame_next(struct user *user, struct user_engine *engine, struct buffer *output)
{
    struct websocket_message message;
    enum websocket_opcode expected =
        engine->options->encoding == ENCODING_JSON ? WEBSOCKET_TEXT : WEBSOCKET_BINARY;
    switch (websocket_receive(&user->websocket, engine->websocket, &engine->limits, &engine->rest,
                              &message)) {
    case WEBSOCKET_MORE:
        return ERR_AGAIN;
    case WEBSOCKET_FAILED:
        return fail(engine, ERR_INVALID, "malformed WebSocket frame, code %u", message.close_code);
    case WEBSOCKET_MESSAGE:
        break;
    }
    if (message.opcode != WEBSOCKET_TEXT && message.opcode != WEBSOCKET_BINARY)
        return on_control(user, engine, &message, output);
    if (message.opcode != expected)
        return fail(engine, ERR_INVALID, "a frame of the other kind than the subprotocol's");
    engine->scratch.size = 0;
    engine->event_at = 0;
    engine->event_count = EVENTS_MAX;
    enum err err = protocol_decode_events(engine->events, &engine->event_count, message.data,
                                          engine->options->encoding, &engine->scratch);
    if (err == OK)
        return OK;
    engine->event_count = 0;
    return fail(engine, err, "frame does not decode: %s", err_name(err));
}

static enum err on_response(struct user *user, struct user_engine *engine)
{
    struct http_request response;
    enum err err = http_receive(user->http, &engine->rest, &response);
    if (err == ERR_AGAIN)
        return ERR_AGAIN;
    if (err != OK)
        return fail(engine, err, "malformed HTTP response: %s", err_name(err));
    if (response.status != 101)
        return fail(engine, ERR_DENIED, "the upgrade was answered with status %u: %.*s",
                    response.status, (int)(response.body.size < 100 ? response.body.size : 100),
                    (const char *)response.body.data);
    const char *subprotocol =
        engine->options->encoding == ENCODING_JSON ? SUBPROTOCOL_JSON : SUBPROTOCOL_PROTO;
    const struct http_field *field = http_field_find(&response, "Sec-WebSocket-Protocol");
    if (field == NULL || !bytes_equal(field->value, bytes_of_text(subprotocol)))
        return fail(engine, ERR_UNSUPPORTED, "the server did not agree to %s", subprotocol);
    http_reader_destroy(user->http);
    user->http = NULL;
    user_set_state(user, USER_WELCOME);
    return OK;
}

/* ticket_take: keep a session ticket or throw it away: it would cost memory where it is. */
static void ticket_take(struct user *user, struct user_engine *engine)
{
    engine->payload.size = 0;
    if (tls_client_session(user->tls, &engine->payload) != OK || !engine->options->resume_tls)
        return;
    uint8_t *session = memory_resize(user->session, engine->payload.size, MEMORY_CONNECTION);
    if (session == NULL)
        return;
    memcpy(session, engine->payload.data, engine->payload.size);
    user->session = session;
    user->session_bytes = (uint32_t)engine->payload.size;
}

/* decrypt: more plaintext into engine->rest, which is empty. */
static enum err decrypt(struct user *user, struct user_engine *engine, struct bytes *input,
                        struct buffer *output)
{
    engine->plaintext.size = 0;
    enum err err = tls_receive(user->tls, engine->tls, input, &engine->plaintext, output);
    engine->rest = buffer_bytes(&engine->plaintext);
    if (err == ERR_FULL && engine->plaintext.size != 0)
        err = OK; /* the rest of input comes with the next round */
    if (err != OK) {
        if (err == ERR_CLOSED)
            (void)fail(engine, err, "the server ended TLS");
        else
            (void)fail(engine, err, "TLS: %s", tls_explain(engine->tls));
        engine->tls_end = err;
        input->size = 0;
        return OK;
    }
    if (tls_established(user->tls))
        ticket_take(user, engine);
    if (user->state == USER_TLS && tls_established(user->tls)) {
        user_set_state(user, USER_UPGRADE);
        user->want |= WANT_UPGRADE;
        struct http_limits limits = {
            .header_bytes_max = HEAD_BYTES_MAX, .header_fields_max = 64, .body_bytes_max = 4096};
        if (http_reader_create(&user->http, &limits, true) != OK)
            return fail(engine, ERR_NO_MEMORY, "no memory for an HTTP reader");
    }
    return OK;
}

/* receive_step: ERR_AGAIN: nothing left to do; OK: some progress. */
static enum err receive_step(struct user *user, struct user_engine *engine, struct bytes *input,
                             struct buffer *output)
{
    if (engine->rest.size != 0) {
        enum err err = user->state == USER_UPGRADE ? on_response(user, engine)
                       : user->state >= USER_WELCOME
                           ? frame_next(user, engine, output)
                           : fail(engine, ERR_INVALID, "bytes before the upgrade");
        if (err != ERR_AGAIN)
            return err;
    }
    if (engine->tls_end != OK)
        return engine->tls_end;
    if (input->size == 0)
        return ERR_AGAIN;
    return decrypt(user, engine, input, output);
}

enum err user_receive(struct user *user, struct user_engine *engine, struct bytes *input,
                      struct buffer *output, struct user_event *out)
{
    CHECK(user->tls != NULL && (engine->user == NULL || engine->user == user));
    if (engine->user == NULL) {
        engine->user = user;
        engine->tls_end = OK;
        alive(user, engine);
    }
    enum err err;
    do {
        while (engine->event_at < engine->event_count) {
            err = on_event(user, engine, &engine->events[engine->event_at++], out);
            if (err == OK)
                return OK;
            if (err != ERR_AGAIN)
                goto end;
        }
        err = receive_step(user, engine, input, output);
    } while (err == OK);
end:
    engine->user = NULL;
    engine->event_at = engine->event_count = 0;
    engine->rest = (struct bytes){NULL, 0};
    return err;
}

/* ---- sending */

enum err user_send(struct user *user, struct user_engine *engine, struct user_id to, uint32_t size,
                   uint64_t intended_ns)
{
    if (user->send_count == USER_SENDS_MAX)
        return ERR_FULL;
    struct user_send *send = memory_take_zeroed(sizeof *send, MEMORY_CONNECTION);
    if (send == NULL)
        return ERR_NO_MEMORY;
    uint8_t random[10];
    engine_entropy(engine, random, sizeof random);
    uuid_make_v7(send->id.v, engine->wall_ms, random);
    send->to = to;
    send->intended_ns = intended_ns;
    send->size = size;
    if (user->sends_tail == NULL)
        user->sends = send;
    else
        user->sends_tail->next = send;
    user->sends_tail = send;
    user->send_count++;
    user->unsent++;
    return OK;
}

static enum err flush_upgrade(struct user *user, struct user_engine *engine, struct buffer *output)
{
    uint8_t nonce[16];
    engine_entropy(engine, nonce, sizeof nonce);
    uint8_t key[32];
    struct buffer text = buffer_of(key, sizeof key);
    TRY(base64_encode(&text, bytes_of(nonce, sizeof nonce)));
    int size =
        snprintf((char *)engine->wire.data, engine->wire.capacity,
                 "GET /connect HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\n"
                 "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                 "Sec-WebSocket-Key: %.*s\r\nSec-WebSocket-Protocol: %s\r\n\r\n",
                 engine->options->server_name, (int)text.size, (const char *)key,
                 engine->options->encoding == ENCODING_JSON ? SUBPROTOCOL_JSON : SUBPROTOCOL_PROTO);
    CHECK(size > 0 && (size_t)size < engine->wire.capacity);
    if (buffer_room(output) < sealed_bytes((size_t)size))
        return ERR_FULL;
    TRY(seal(user, engine, bytes_of(engine->wire.data, (size_t)size), output));
    user->want &= (uint8_t)~WANT_UPGRADE;
    return OK;
}

/* frame_add: encode request as the frame's next element; ERR_FULL: the frame has no room for it. */
static enum err frame_add(struct user_engine *engine, const struct request *request,
                          uint32_t *count)
{
    engine->element.size = 0;
    size_t size = engine->frame.size;
    TRY(protocol_encode_request(&engine->element, request, engine->options->encoding));
    enum err err = protocol_frame_element(&engine->frame, buffer_bytes(&engine->element),
                                          engine->options->encoding, *count == 0);
    if (err != OK) {
        engine->frame.size = size;
        return err;
    }
    *count += 1;
    return OK;
}

static size_t framed_bytes(size_t frame)
{
    return sealed_bytes(frame + WEBSOCKET_FRAME_OVERHEAD + 2 * PROTOCOL_ELEMENT_OVERHEAD);
}

static enum err frame_seal(struct user *user, struct user_engine *engine, struct buffer *output)
{
    bool json = engine->options->encoding == ENCODING_JSON;
    TRY(protocol_frame_close(&engine->frame, engine->options->encoding));
    engine->wire.size = 0;
    TRY(websocket_frame(&engine->wire, engine->websocket, &engine->limits,
                        json ? WEBSOCKET_TEXT : WEBSOCKET_BINARY, buffer_bytes(&engine->frame)));
    return seal(user, engine, buffer_bytes(&engine->wire), output);
}

static enum err flush_hello(struct user *user, struct user_engine *engine, struct buffer *output)
{
    const struct user_options *options = engine->options;
    char name[USER_NAME_BYTES];
    char device[16];
    uint8_t token_bytes[TOKEN_BYTES];
    struct buffer token = buffer_of(token_bytes, sizeof token_bytes);
    (void)snprintf(name, sizeof name, "%s%" PRIu32, options->name_prefix, user->index);
    (void)snprintf(device, sizeof device, "d%" PRIu32, user->device);
    if (buffer_room(output) < USER_HELLO_BYTES)
        return ERR_FULL;
    TRY(jwt_sign_external(&token, options->signer, options->key_id, options->issuer,
                          options->audience, name, device, engine->wall_ms,
                          options->token_lifetime_ms));
    struct request request = {
        .id = ++user->request_id,
        .kind = REQUEST_HELLO,
        .hello = {.token = buffer_bytes(&token),
                  .device_key = bytes_of_text(device),
                  .store_epoch = engine->has_epoch && user->connection > 1
                                     ? bytes_of(engine->store_epoch, sizeof engine->store_epoch)
                                     : (struct bytes){NULL, 0},
                  .heartbeat_ms = options->heartbeat_ms,
                  .client = bytes_of_text("roost-loadgen")}};
    uint32_t count = 0;
    engine->frame.size = 0;
    TRY(protocol_frame_open(&engine->frame, options->encoding, false));
    TRY(frame_add(engine, &request, &count));
    if (buffer_room(output) < framed_bytes(engine->frame.size))
        return ERR_FULL;
    TRY(frame_seal(user, engine, output));
    user->want &= (uint8_t)~WANT_HELLO;
    return OK;
}

static enum err add_setting(struct user *user, struct user_engine *engine, struct user_send *send,
                            uint32_t *count)
{
    struct request request = {.id = ++user->request_id,
                              .kind = REQUEST_SET_RETENTION,
                              .set_retention = {.has_message_id = true,
                                                .message_id = send->id,
                                                .to_user = send->to,
                                                .has_retention = true}};
    oracle_setting(&request.set_retention.retention, conversation_id_direct(user->id, send->to),
                   &send->id, user->id);
    TRY(frame_add(engine, &request, count));
    send->request = user->request_id;
    return OK;
}

static enum err add_send(struct user *user, struct user_engine *engine, struct user_send *send,
                         uint32_t *count)
{
    uint8_t *content_start = engine->wire.data; /* free until frame_seal */
    struct buffer content = buffer_of(content_start, engine->wire.capacity);
    if (send->size == 0)
        return add_setting(user, engine, send, count);
    TRY(oracle_content(&content, send->size, conversation_id_direct(user->id, send->to), &send->id,
                       user->id, send->intended_ns));
    engine->payload.size = 0;
    TRY(protocol_payload_text(&engine->payload, buffer_bytes(&content)));
    struct request request = {.id = ++user->request_id,
                              .kind = REQUEST_SEND,
                              .send = {.has_message_id = true,
                                       .message_id = send->id,
                                       .to_user = send->to,
                                       .payload = buffer_bytes(&engine->payload)}};
    TRY(frame_add(engine, &request, count));
    send->request = user->request_id;
    return OK;
}

struct batch {
    struct user_send *sends[REQUESTS_MAX];
    struct user_watermark *watermarks[REQUESTS_MAX];
    uint32_t send_count;
    uint32_t watermark_count;
    uint32_t count;
    bool ping;
    bool full; /* more is due than went in */
};

/* batch_add: OK: in; otherwise the batch is full, and *full says so. */
static bool batch_room(struct user_engine *engine, struct batch *batch, enum err err, size_t size,
                       struct buffer *output)
{
    if (err == OK && buffer_room(output) >= framed_bytes(engine->frame.size))
        return true;
    if (err == OK) {
        engine->frame.size = size; /* does not fit the output: out again */
        batch->count--;
    }
    batch->full = true;
    return false;
}

static void batch_watermarks(struct user *user, struct user_engine *engine, struct batch *batch,
                             struct buffer *output)
{
    for (uint32_t i = 0; i < user->watermark_count && !batch->full; i++) {
        struct user_watermark *watermark = &user->watermarks[i];
        if (watermark->told >= watermark->received)
            continue;
        if (batch->count == engine->requests_max) {
            batch->full = true;
            return;
        }
        struct request request = {.kind = REQUEST_WATERMARK,
                                  .watermark = {.conversation = watermark->conversation,
                                                .delivered_seq = watermark->received}};
        size_t size = engine->frame.size;
        enum err err = frame_add(engine, &request, &batch->count);
        if (batch_room(engine, batch, err, size, output))
            batch->watermarks[batch->watermark_count++] = watermark;
    }
}

static void batch_sends(struct user *user, struct user_engine *engine, struct batch *batch,
                        struct buffer *output)
{
    for (struct user_send *send = user->sends; send != NULL && !batch->full; send = send->next) {
        if (send->sent || send->held)
            continue;
        if (batch->count == engine->requests_max) {
            batch->full = true;
            return;
        }
        size_t size = engine->frame.size;
        enum err err = add_send(user, engine, send, &batch->count);
        if (batch_room(engine, batch, err, size, output))
            batch->sends[batch->send_count++] = send;
    }
}

static void batch_done(struct user *user, struct user_engine *engine, const struct batch *batch,
                       bool watermarks)
{
    for (uint32_t i = 0; i < batch->watermark_count; i++)
        batch->watermarks[i]->told = batch->watermarks[i]->received;
    for (uint32_t i = 0; i < batch->send_count; i++) {
        batch->sends[i]->sent = true;
        user->unsent--;
    }
    if (batch->ping)
        user->want &= (uint8_t)~WANT_PING;
    if (watermarks && !batch->full) {
        user->ack_ns = 0;
        user->unacked_messages = 0;
    }
    /* everything sent says that this device is alive */
    user->ping_ns = engine->now_ns + user->heartbeat_ms * NS_PER_MS;
}

static enum err flush_requests(struct user *user, struct user_engine *engine, struct buffer *output)
{
    struct batch batch = {0};
    bool watermarks = user->ack_ns != 0 && user->ack_ns <= engine->now_ns;
    engine->frame.size = 0;
    TRY(protocol_frame_open(&engine->frame, engine->options->encoding, false));
    if ((user->want & WANT_PING) != 0) {
        struct request request = {
            .id = ++user->request_id, .kind = REQUEST_PING, .ping = {.time_ms = engine->wall_ms}};
        size_t size = engine->frame.size;
        enum err err = frame_add(engine, &request, &batch.count);
        batch.ping = batch_room(engine, &batch, err, size, output);
    }
    if (watermarks && !batch.full)
        batch_watermarks(user, engine, &batch, output);
    if (!batch.full)
        batch_sends(user, engine, &batch, output);
    if (batch.count != 0)
        TRY(frame_seal(user, engine, output));
    if (batch.count != 0 || !batch.full)
        batch_done(user, engine, &batch, watermarks);
    return batch.full ? ERR_FULL : OK;
}

enum err user_flush(struct user *user, struct user_engine *engine, struct buffer *output)
{
    if ((user->want & WANT_UPGRADE) != 0)
        return flush_upgrade(user, engine, output);
    if ((user->want & WANT_HELLO) != 0)
        return flush_hello(user, engine, output);
    if (user->state != USER_READY)
        return OK;
    bool watermarks = user->ack_ns != 0 && user->ack_ns <= engine->now_ns;
    if (user->unsent == 0 && !watermarks && (user->want & WANT_PING) == 0)
        return OK;
    return flush_requests(user, engine, output);
}

void user_leave(struct user *user, struct user_engine *engine, struct buffer *output)
{
    if (user->tls == NULL || !tls_established(user->tls))
        return;
    engine->wire.size = 0;
    if (user->state >= USER_WELCOME && buffer_room(output) >= sealed_bytes(32) &&
        websocket_frame_close(&engine->wire, engine->websocket, &engine->limits, CLOSE_NORMAL,
                              "") == OK &&
        seal(user, engine, buffer_bytes(&engine->wire), output) != OK)
        return;
    tls_close(user->tls, engine->tls, output);
}

/* ---- time */

enum err user_tick(struct user *user, struct user_engine *engine)
{
    uint64_t now = engine->now_ns;
    if (user->state == USER_OFFLINE)
        return OK;
    if (now >= user->deadline_ns)
        return user->state == USER_READY
                   ? fail(engine, ERR_TIMEOUT, "silence for %u heartbeats of %" PRIu32 " ms",
                          LOST_BEATS / 2, user->heartbeat_ms)
                   : fail(engine, ERR_TIMEOUT, "not ready after %" PRIu32 " ms, state %d",
                          engine->options->handshake_ms, (int)user->state);
    if (user->state != USER_READY)
        return OK;
    if (now >= user->ping_ns) {
        user->want |= WANT_PING;
        user->ping_ns = now + user->heartbeat_ms * NS_PER_MS;
    }
    if (user->retry_ns != 0 && now >= user->retry_ns) {
        user->retry_ns = 0;
        for (struct user_send *send = user->sends; send != NULL; send = send->next)
            send->held = false;
    }
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
