/* user_receive.c: bytes from the server become events: TLS, the upgrade's response, WebSocket,
 * protocol; and what a user remembers of them. */
#include "loadgen/user_private.h"

#include "core/memory.h"

#include <stdio.h>

#define HEAD_BYTES_MAX 4096

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

/* on_numbers: they came, or are gone, and will be confirmed. */
static enum err on_numbers(struct user *user, struct user_engine *engine,
                           struct conversation_id conversation, uint64_t from_seq, uint64_t to_seq)
{
    struct user_watermark *watermark = watermark_of(user, conversation);
    if (watermark == NULL)
        return user_fail(engine, ERR_NO_MEMORY, "no memory for a watermark");
    if (to_seq > watermark->received)
        watermark->received = to_seq;
    if (from_seq <= watermark->told) /* pushed again: the server does not know what it was told */
        watermark->told = from_seq - 1;
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

/* hold_until: it is not sent before. */
static void hold_until(struct user *user, struct user_send *send, uint64_t at_ns)
{
    if (send->sent)
        user->unsent++;
    send->sent = false;
    send->retry_ns = at_ns;
    if (user->retry_ns == 0 || at_ns < user->retry_ns)
        user->retry_ns = at_ns;
}

/* repeats: as a device that the answer did not reach would. */
static bool repeats(const struct user *user, struct user_engine *engine,
                    const struct user_send *send)
{
    return engine->options->repeat_ms != 0 && send->seq == 0 &&
           user->send_count < USER_SENDS_MAX / 2 && user_engine_random(engine) % 8 == 0;
}

static bool on_ack(struct user *user, struct user_engine *engine, const struct ack *ack,
                   struct user_event *out)
{
    struct user_send **link = send_find(user, &ack->message_id, 0);
    if (link == NULL)
        return false; /* a repeated send's second answer */
    *out = (struct user_event){.kind = USER_EVENT_ACKED,
                               .duplicate = ack->duplicate,
                               .conversation = ack->conversation,
                               .id = ack->message_id,
                               .seq = ack->seq,
                               .first_seq = (*link)->seq,
                               .intended_ns = (*link)->intended_ns};
    struct user_watermark *watermark = watermark_of(user, ack->conversation);
    if (watermark != NULL && ack->seq == watermark->received + 1)
        watermark->received = ack->seq;
    if (repeats(user, engine, *link)) {
        (*link)->seq = ack->seq;
        hold_until(user, *link, engine->now_ns + engine->options->repeat_ms * NS_PER_MS);
    } else {
        send_remove(user, link);
    }
    return true;
}

/* hold: each send for itself, so that those that were refused together do not come back together.
 */
static void hold(struct user *user, struct user_engine *engine, struct user_send *send,
                 uint32_t retry_after_ms)
{
    uint64_t base_ms = retry_after_ms != 0 ? retry_after_ms : engine->options->backoff_ms_min;
    if (send->refusals < UINT8_MAX)
        send->refusals++;
    uint64_t wait_ms = user_backoff_ms(engine, base_ms, send->refusals);
    if (wait_ms < retry_after_ms)
        wait_ms = retry_after_ms;
    hold_until(user, send, engine->now_ns + wait_ms * NS_PER_MS);
}

static bool on_error(struct user *user, struct user_engine *engine, uint64_t request,
                     const struct failure *error, struct user_event *out)
{
    *out = (struct user_event){.kind = USER_EVENT_ERROR, .code = error->code};
    (void)user_fail(engine, OK, "the server answered %s: %.*s", code_name(error->code),
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
        out->conversation = conversation_id_direct(user->id, send->to);
        out->first_seq = send->seq;
        send_remove(user, link);
        return true;
    }
    out->kind = USER_EVENT_RETRY;
    hold(user, engine, send, error->retry_after_ms);
    return true;
}

static enum err on_welcome(struct user *user, struct user_engine *engine,
                           const struct welcome *welcome)
{
    if (user->state != USER_WELCOME)
        return user_fail(engine, ERR_INVALID, "a second welcome");
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
        return user_fail(engine, ERR_INVALID, "ready without hello");
    if (user->id.v != 0 && user->id.v != ready->user.v)
        return user_fail(engine, ERR_CONFLICT, "the user's id changed between connections");
    user->id = ready->user;
    user->attempts = 0;
    user->heartbeat_ms = ready->heartbeat_ms == 0 ? 120000 : ready->heartbeat_ms;
    user_set_state(user, USER_READY);
    alive(user, engine);
    user->asked_seq = 0;
    if (engine->options->ask_history && user->watermark_count != 0) {
        user->asked = (uint16_t)(user_engine_random(engine) % user->watermark_count);
        user->asked_seq = 1;
        user->want |= WANT_RANGE;
    }
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
        return on_ack(user, engine, &event->ack, out) ? OK : ERR_AGAIN;
    case EVENT_MESSAGE:
        TRY(on_numbers(user, engine, event->message.conversation, event->message.seq,
                       event->message.seq));
        *out = (struct user_event){.kind = USER_EVENT_MESSAGE, .message = &event->message};
        return OK;
    case EVENT_GONE:
        TRY(on_numbers(user, engine, event->gone.conversation, event->gone.from_seq,
                       event->gone.to_seq));
        *out = (struct user_event){.kind = USER_EVENT_GONE,
                                   .conversation = event->gone.conversation,
                                   .seq = event->gone.from_seq,
                                   .to_seq = event->gone.to_seq};
        return OK;
    case EVENT_HISTORY:
        *out = (struct user_event){.kind = USER_EVENT_HISTORY,
                                   .conversation = event->history.conversation,
                                   .seq = user->asked_seq,
                                   .history = &event->history};
        user->asked_seq = event->history.next_seq;
        if (user->asked_seq != 0)
            user->want |= WANT_RANGE;
        return OK;
    case EVENT_SYNCED:
        *out = (struct user_event){.kind = USER_EVENT_SYNCED};
        return OK;
    case EVENT_LAGGING:
        *out = (struct user_event){.kind = USER_EVENT_LAGGING};
        return OK;
    case EVENT_ERROR:
        if (user->state != USER_READY)
            return user_fail(engine, ERR_DENIED, "refused: %s: %.*s", code_name(event->error.code),
                             (int)(event->error.text.size < 100 ? event->error.text.size : 100),
                             (const char *)event->error.text.data);
        return on_error(user, engine, event->id, &event->error, out) ? OK : ERR_AGAIN;
    case EVENT_GOODBYE:
        user->retry_after_ms = event->goodbye.retry_after_ms;
        return user_fail(engine, ERR_CLOSED, "the server said goodbye: %s",
                         code_name(event->goodbye.code));
    case EVENT_NONE:
    case EVENT_RENEWED:
    case EVENT_RECEIPT:
    case EVENT_PONG:
    case EVENT_TOKEN_EXPIRING:
        return ERR_AGAIN;
    }
    return ERR_AGAIN;
}

/* on_control: PING, PONG and CLOSE frames. */
static enum err on_control(struct user *user, struct user_engine *engine,
                           const struct websocket_message *message, struct buffer *output)
{
    if (message->opcode == WEBSOCKET_CLOSE)
        return user_fail(engine, ERR_CLOSED, "the server closed with code %u: %.*s",
                         message->close_code, (int)message->data.size,
                         (const char *)message->data.data);
    if (message->opcode != WEBSOCKET_PING ||
        buffer_room(output) < user_sealed_bytes(message->data.size + WEBSOCKET_FRAME_OVERHEAD))
        return OK; /* a pong that has no room now is left out: the next ping gets one */
    engine->wire.size = 0;
    TRY(websocket_frame(&engine->wire, engine->websocket, &engine->limits, WEBSOCKET_PONG,
                        message->data));
    return user_seal(user, engine, buffer_bytes(&engine->wire), output);
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
        return user_fail(engine, ERR_INVALID, "malformed WebSocket frame, code %u",
                         message.close_code);
    case WEBSOCKET_MESSAGE:
        break;
    }
    if (message.opcode != WEBSOCKET_TEXT && message.opcode != WEBSOCKET_BINARY)
        return on_control(user, engine, &message, output);
    if (message.opcode != expected)
        return user_fail(engine, ERR_INVALID, "a frame of the other kind than the subprotocol's");
    engine->scratch.size = 0;
    engine->event_at = 0;
    engine->event_count = EVENTS_MAX;
    enum err err = protocol_decode_events(engine->events, &engine->event_count, message.data,
                                          engine->options->encoding, &engine->scratch);
    if (err == OK)
        return OK;
    engine->event_count = 0;
    return user_fail(engine, err, "frame does not decode: %s", err_name(err));
}

static enum err on_response(struct user *user, struct user_engine *engine)
{
    struct http_request response;
    enum err err = http_receive(user->http, &engine->rest, &response);
    if (err == ERR_AGAIN)
        return ERR_AGAIN;
    if (err != OK)
        return user_fail(engine, err, "malformed HTTP response: %s", err_name(err));
    if (response.status != 101)
        return user_fail(engine, ERR_DENIED, "the upgrade was answered with status %u: %.*s",
                         response.status,
                         (int)(response.body.size < 100 ? response.body.size : 100),
                         (const char *)response.body.data);
    const char *subprotocol =
        engine->options->encoding == ENCODING_JSON ? SUBPROTOCOL_JSON : SUBPROTOCOL_PROTO;
    const struct http_field *field = http_field_find(&response, "Sec-WebSocket-Protocol");
    if (field == NULL || !bytes_equal(field->value, bytes_of_text(subprotocol)))
        return user_fail(engine, ERR_UNSUPPORTED, "the server did not agree to %s", subprotocol);
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
            (void)user_fail(engine, err, "the server ended TLS");
        else
            (void)user_fail(engine, err, "TLS: %s", tls_explain(engine->tls));
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
            return user_fail(engine, ERR_NO_MEMORY, "no memory for an HTTP reader");
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
                           : user_fail(engine, ERR_INVALID, "bytes before the upgrade");
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
