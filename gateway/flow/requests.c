/* requests.c: see requests.h. */
#include "gateway/flow/requests.h"

#include "core/text.h"
#include "gateway/flow/egress.h"
#include "gateway/flow/home.h"
#include "gateway/flow/ingress.h"
#include "gateway/flow/login.h"
#include "gateway/flow/session.h"
#include "gateway/flow/shard.h"

#include <inttypes.h>
#include <stdio.h>

void request_error(struct shard *shard, struct connection *connection, uint64_t request_id,
                   const struct failure *failure)
{
    struct event event = {.id = request_id, .kind = EVENT_ERROR, .error = *failure};
    event.error.verdict = code_verdict(failure->code);
    egress_event(shard, connection, &event);
}

static void send_refused(struct shard *shard, struct connection *connection, uint64_t request_id,
                         const struct send *send, enum code code, uint32_t retry_after_ms,
                         const char *text)
{
    struct failure failure = {.code = code,
                              .retry_after_ms = retry_after_ms,
                              .text = bytes_of_text(text),
                              .has_message_id = send->has_message_id,
                              .message_id = send->message_id};
    shard_count(shard, METRIC_MESSAGES_REFUSED, 1);
    request_error(shard, connection, request_id, &failure);
}

/* Generic cell rate algorithm: one timestamp per session. Returns ns to wait, 0 if the send
 * conforms. */
static uint64_t rate_wait_ns(struct shard *shard, struct session *session)
{
    const struct config *config = shard->gateway->config;
    uint64_t interval_ns = NS_PER_S / config->sends_per_second;
    uint64_t tolerance_ns = interval_ns * config->sends_burst;
    uint64_t at = session->sends_at_ns > shard->now_ns ? session->sends_at_ns : shard->now_ns;
    if (at - shard->now_ns > tolerance_ns)
        return at - shard->now_ns - tolerance_ns;
    session->sends_at_ns = at + interval_ns;
    return 0;
}

/* Which conversation a send means; code NONE, or why it may not be. */
static enum code send_target(const struct session *session, const struct send *send,
                             struct conversation_id *out, const char **text)
{
    struct user_id self = session->user->id;
    if (send->has_conversation == (send->to_user.v != 0)) {
        *text = "name either conversation_id or to_user";
        return CODE_MALFORMED;
    }
    *out =
        send->has_conversation ? send->conversation : conversation_id_direct(self, send->to_user);
    if (!conversation_id_is_direct(*out)) {
        *text = "no such conversation";
        return CODE_NOT_FOUND;
    }
    if (!conversation_id_has(*out, self)) {
        *text = "you are not a member of this conversation";
        return CODE_NOT_FOUND; /* as if there were none: nobody can probe for others' */
    }
    return CODE_NONE;
}

static enum code id_fault(const struct send *send, const char **text)
{
    if (send->has_message_id && uuid_is_v7(send->message_id.v))
        return CODE_NONE;
    *text = "message_id must be a UUIDv7";
    return CODE_MALFORMED;
}

static enum code payload_fault(const struct shard *shard, const struct send *send,
                               const char **text)
{
    if (send->payload.size == 0) {
        *text = "payload is missing";
        return CODE_MALFORMED;
    }
    if (send->payload.size > shard->gateway->config->message_bytes) {
        *text = "payload is over message_bytes_max";
        return CODE_TOO_BIG;
    }
    return CODE_NONE;
}

static enum err pass_on(struct shard *shard, struct session *session, uint64_t request_id,
                        const struct send *send, uint16_t record,
                        struct conversation_id conversation)
{
    struct mesh *mesh = shard->gateway->mesh;
    uint32_t target = shard_of_conversation(shard->gateway, conversation);
    TRY(mesh_promise(mesh, shard->index, target, MESH_ANSWER, sizeof(struct border_result)));
    size_t size = sizeof(struct border_send) + send->payload.size;
    struct border_send *out =
        (struct border_send *)(void *)mesh_reserve(mesh, shard->index, target, MESH_REQUEST, size);
    if (out == NULL) {
        mesh_unpromise(mesh, shard->index, target, MESH_ANSWER, sizeof(struct border_result));
        return ERR_FULL;
    }
    *out = (struct border_send){
        .border = {BORDER_SEND, (uint16_t)shard->index, (uint32_t)send->payload.size},
        .session = session_handle(shard, session),
        .request_id = request_id,
        .arrived_ns = shard->now_ns,
        .conversation = conversation,
        .sender = session->user->id,
        .device = session->device,
        .realm = session->realm,
        .message_id = send->message_id,
        .expires_ms = send->expires_ms,
        .record = record,
    };
    memcpy(out + 1, send->payload.data, send->payload.size);
    mesh_commit(mesh, shard->index, target, MESH_REQUEST, size);
    session->awaited++;
    return OK;
}

/* post: on its way to the conversation, if the device has not posted too much. */
static enum err post(struct shard *shard, struct connection *connection, uint64_t request_id,
                     const struct send *send, uint16_t record, struct conversation_id conversation)
{
    struct session *session = connection->session;
    uint64_t before = session->sends_at_ns;
    uint64_t wait_ns = rate_wait_ns(shard, session);
    if (wait_ns != 0) {
        shard_count(shard, METRIC_RATE_LIMITED, 1);
        send_refused(shard, connection, request_id, send, CODE_RATE_LIMITED,
                     (uint32_t)(wait_ns / NS_PER_MS) + 1, "too many sends from this device");
        return OK;
    }
    enum err err = pass_on(shard, session, request_id, send, record, conversation);
    if (err != OK)
        session->sends_at_ns = before;
    return err;
}

static enum err on_send(struct shard *shard, struct connection *connection,
                        const struct request *request)
{
    const struct send *send = &request->send;
    struct conversation_id conversation;
    const char *text = "";
    enum code code = send_target(connection->session, send, &conversation, &text);
    if (code == CODE_NONE)
        code = id_fault(send, &text);
    if (code == CODE_NONE)
        code = payload_fault(shard, send, &text);
    if (code != CODE_NONE) {
        send_refused(shard, connection, request->id, send, code, 0, text);
        return OK;
    }
    return post(shard, connection, request->id, send, RECORD_MESSAGE, conversation);
}

/* on_set_retention: an entry of the conversation, posted like a message. Any member of a direct
 * conversation may. */
static enum err on_set_retention(struct shard *shard, struct connection *connection,
                                 const struct request *request)
{
    const struct set_retention *set = &request->set_retention;
    uint8_t body[KEEP_BODY_BYTES];
    const struct send send = {.has_message_id = set->has_message_id,
                              .message_id = set->message_id,
                              .has_conversation = set->has_conversation,
                              .conversation = set->conversation,
                              .to_user = set->to_user,
                              .payload = bytes_of(body, sizeof body)};
    uint64_t age_max_s = config_retention_age_max_s(shard->gateway->config);
    struct conversation_id conversation;
    char over[96];
    const char *text = "";
    keep_encode(body, &set->retention);
    enum code code = send_target(connection->session, &send, &conversation, &text);
    if (code == CODE_NONE)
        code = id_fault(&send, &text);
    if (code == CODE_NONE && age_max_s != 0 && set->retention.age_s > age_max_s) {
        snprintf(over, sizeof over, "age_s is over retention_age_max_s, which is %" PRIu64,
                 age_max_s);
        code = CODE_TOO_BIG;
        text = over;
    }
    if (code != CODE_NONE) {
        send_refused(shard, connection, request->id, &send, code, 0, text);
        return OK;
    }
    return post(shard, connection, request->id, &send, RECORD_RETENTION, conversation);
}

void request_on_result(struct shard *shard, struct bytes message)
{
    const struct border_result *result = (const void *)message.data;
    struct session *session = session_get(shard, result->session);
    if (session == NULL)
        return;
    struct connection *connection = session->connection;
    if (result->is_send) {
        CHECK(session->awaited != 0);
        session->awaited--;
    }
    if (result->code != CODE_NONE) {
        struct failure failure = {
            .code = (enum code)result->code,
            .retry_after_ms = result->retry_after_ms,
            .text = bytes_of_text(result->code == CODE_MALFORMED
                                      ? "expires_ms is in the past" /* nothing else may be */
                                      : code_name((enum code)result->code)),
            .has_message_id = result->is_send,
            .message_id = result->message_id,
            .conversation = result->conversation,
        };
        if (result->is_send)
            shard_count(shard, METRIC_MESSAGES_REFUSED, 1);
        request_error(shard, connection, result->request_id, &failure);
        return;
    }
    if (!result->is_send) {
        home_on_mark_checked(shard, session, result->conversation, result->seq);
        return;
    }
    struct event event = {
        .id = result->request_id,
        .kind = EVENT_ACK,
        .ack = {.message_id = result->message_id,
                .conversation = result->conversation,
                .seq = result->seq,
                .time_ms = result->time_ms,
                .durability = DURABILITY_DISK,
                .duplicate = result->duplicate != 0},
    };
    shard_count(shard, METRIC_MESSAGES_ACKED, 1);
    metric_observe(shard->metrics, METRIC_ACK_SECONDS, shard->now_ns - result->arrived_ns);
    egress_event(shard, connection, &event);
}

/* ERR_BUSY: what came before it is not answered yet; try again. */
static enum err on_goodbye(struct shard *shard, struct connection *connection)
{
    const struct session *session =
        connection->state == CONNECTION_SESSION ? connection->session : NULL;
    if (session != NULL && (session->awaited != 0 || session->pull.purpose == PULL_HISTORY))
        return ERR_BUSY;
    egress_close_frame(shard, connection, 1000, "goodbye");
    connection_close(shard, connection);
    return OK;
}

static enum err on_ping(struct shard *shard, struct connection *connection,
                        const struct request *request)
{
    struct event event = {
        .id = request->id,
        .kind = EVENT_PONG,
        .pong = {.time_ms = request->ping.time_ms, .server_time_ms = shard->wall_ms},
    };
    egress_event(shard, connection, &event);
    return OK;
}

static enum err on_credit(struct shard *shard, struct connection *connection,
                          const struct request *request)
{
    struct session *session = connection->session;
    if (!session->credited)
        return OK; /* hello chose the socket's pace */
    session->credit_messages += request->credit.messages;
    session->credit_bytes += request->credit.bytes;
    if (session->credit_messages > UINT32_MAX)
        session->credit_messages = UINT32_MAX;
    if (session->credit_bytes > UINT32_MAX)
        session->credit_bytes = UINT32_MAX;
    session_go_on(shard, session);
    return OK;
}

/* ERR_BUSY: an earlier one is not answered yet; try again. */
static enum err on_renew(struct shard *shard, struct connection *connection,
                         const struct request *request)
{
    if (connection->session->renewing)
        return ERR_BUSY;
    enum err err = login_renew(shard, connection, request->id, request->renew.token);
    if (err != OK) {
        struct failure failure = {
            .code = err == ERR_TOO_BIG ? CODE_TOO_BIG : CODE_OVERLOADED,
            .retry_after_ms = err == ERR_TOO_BIG ? 0 : 1000,
            .text = bytes_of_text(err == ERR_TOO_BIG ? "the token is over 8192 bytes"
                                                     : "too many logins at once"),
        };
        request_error(shard, connection, request->id, &failure);
        return OK;
    }
    connection->session->awaited++;
    connection->session->renewing = true;
    return OK;
}

static enum err in_session(struct shard *shard, struct connection *connection,
                           const struct request *request)
{
    if (!connection->session->ready)
        return ERR_FULL; /* its user is being loaded */
    switch (request->kind) {
    case REQUEST_SEND:
        return on_send(shard, connection, request);
    case REQUEST_WATERMARK:
        return home_on_watermark(shard, connection->session, request->id, &request->watermark);
    case REQUEST_RANGE:
        return session_history(shard, connection->session, request->id, &request->range);
    case REQUEST_CREDIT:
        return on_credit(shard, connection, request);
    case REQUEST_RENEW:
        return on_renew(shard, connection, request);
    case REQUEST_PING:
        return on_ping(shard, connection, request);
    case REQUEST_GOODBYE:
        return on_goodbye(shard, connection);
    case REQUEST_SET_RETENTION:
        return on_set_retention(shard, connection, request);
    case REQUEST_HELLO: {
        struct failure failure = {.code = CODE_MALFORMED,
                                  .text = bytes_of_text("hello was said already")};
        request_error(shard, connection, request->id, &failure);
        return OK;
    }
    case REQUEST_NONE:
        break;
    }
    struct failure failure = {.code = CODE_UNSUPPORTED,
                              .text =
                                  bytes_of_text("the request has no body that this server knows")};
    request_error(shard, connection, request->id, &failure);
    return OK;
}

enum err request_handle(struct shard *shard, struct connection *connection,
                        const struct request *request)
{
    if (connection->state == CONNECTION_SESSION)
        return in_session(shard, connection, request);
    CHECK(connection->state == CONNECTION_UPGRADED);
    if (request->kind == REQUEST_HELLO)
        return login_begin(shard, connection, request->id, &request->hello);
    if (request->kind == REQUEST_GOODBYE)
        return on_goodbye(shard, connection);
    ingress_fail(shard, connection, CODE_NOT_HELLO, 0, "the first request must be hello");
    return ERR_DENIED;
}
