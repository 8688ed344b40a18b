/* ingress.c: see ingress.h. */
#include "gateway/flow/ingress.h"

#include "gateway/flow/egress.h"
#include "gateway/flow/listener.h"
#include "gateway/flow/login.h"
#include "gateway/flow/relay.h"
#include "gateway/flow/requests.h"
#include "gateway/flow/session.h"
#include "gateway/wire/proxy.h"

void ingress_fail(struct shard *shard, struct connection *connection, enum code code,
                  uint32_t retry_after_ms, const char *text)
{
    bool speaks = connection->state == CONNECTION_UPGRADED ||
                  connection->state == CONNECTION_AUTHENTICATING ||
                  connection->state == CONNECTION_MOVING || connection->state == CONNECTION_SESSION;
    if (speaks) {
        struct event event = {
            .kind = EVENT_GOODBYE,
            .goodbye = {.code = code,
                        .verdict = code_verdict(code),
                        .retry_after_ms = retry_after_ms,
                        .resume = connection->state == CONNECTION_SESSION,
                        .text = bytes_of_text(text)},
        };
        egress_event(shard, connection, &event);
        egress_close_frame(shard, connection, (uint16_t)(CLOSE_CODE_BASE + code), code_name(code));
    }
    connection_close(shard, connection);
}

static void stall(struct shard *shard, struct connection *connection)
{
    if (connection->stall_listed)
        return;
    connection->stall_listed = true;
    connection->stall_next = shard->stalled;
    shard->stalled = connection;
}

void ingress_retry_stalled(struct shard *shard)
{
    struct connection *list = shard->stalled;
    shard->stalled = NULL;
    while (list != NULL) {
        struct connection *connection = list;
        list = connection->stall_next;
        connection->stall_listed = false;
        if (connection->state == CONNECTION_SESSION)
            ingress_go_on(shard, connection);
    }
}

static void refuse_frame(struct shard *shard, struct connection *connection, enum err err)
{
    shard_count(shard, METRIC_PROTOCOL_ERRORS, 1);
    if (err == ERR_NO_MEMORY)
        ingress_fail(shard, connection, CODE_OVERLOADED, 1000, "out of memory");
    else if (err == ERR_INVALID)
        ingress_fail(shard, connection, CODE_MALFORMED, 0, "the frame is not a valid ClientFrame");
    else
        ingress_fail(shard, connection, CODE_TOO_BIG, 0,
                     "the frame holds more requests than welcome allows");
}

/* One protocol frame, from its request `next` on. ERR_AGAIN: the rest of the frame is in the
 * backlog, in binary: it may be tried many times, and JSON costs as much each time. Stop here. */
static enum err take_frame(struct shard *shard, struct connection *connection, struct bytes frame,
                           enum encoding encoding, uint32_t next)
{
    struct buffer scratch = buffer_of(shard->scratch, shard->scratch_bytes);
    size_t count = shard->gateway->config->requests_per_frame;
    enum err err = protocol_requests_to_binary(&frame, encoding, &scratch);
    if (err == OK)
        err = protocol_decode_requests(shard->requests, &count, frame, ENCODING_PROTO, &scratch);
    if (err != OK) {
        refuse_frame(shard, connection, err);
        return ERR_AGAIN;
    }
    for (uint32_t i = next; i < count; i++) {
        if (!connection_has_room(shard, connection)) { /* the drained output goes on here */
            if (backlog_keep(connection, frame, i, (struct bytes){0}) != OK)
                connection_abort(shard, connection);
            return ERR_AGAIN;
        }
        err = request_handle(shard, connection, &shard->requests[i]);
        if (connection->state == CONNECTION_CLOSING || connection->state == CONNECTION_DEAD)
            return ERR_AGAIN;
        if (err == OK)
            continue;
        bool again = err == ERR_FULL || err == ERR_BUSY; /* a full ring; a goodbye behind sends */
        uint32_t at = again ? i : i + 1;                 /* ERR_AGAIN: hello is being looked at */
        shard_count(shard, METRIC_MESH_FULL, err == ERR_FULL);
        if (again)
            stall(shard, connection);
        if (at < count && backlog_keep(connection, frame, at, (struct bytes){0}) != OK)
            connection_abort(shard, connection);
        return ERR_AGAIN;
    }
    return OK;
}

static enum err take_message(struct shard *shard, struct connection *connection,
                             const struct websocket_message *message)
{
    switch (message->opcode) {
    case WEBSOCKET_PING:
        egress_frame(shard, connection, WEBSOCKET_PONG, message->data);
        return OK;
    case WEBSOCKET_PONG:
        return OK;
    case WEBSOCKET_CLOSE:
        egress_close_frame(shard, connection,
                           message->close_code == 1005 ? 1000 : message->close_code, "");
        connection->peer_closed =
            true; /* both have said close: the server ends TCP (RFC 6455 7.1.1) */
        connection_close(shard, connection);
        return ERR_AGAIN;
    case WEBSOCKET_TEXT:
    case WEBSOCKET_BINARY:
        break;
    }
    if (connection->state == CONNECTION_ECHO) {
        egress_frame(shard, connection, message->opcode, message->data);
        return OK;
    }
    bool text = message->opcode == WEBSOCKET_TEXT;
    if (text != (connection->encoding == ENCODING_JSON)) {
        shard_count(shard, METRIC_PROTOCOL_ERRORS, 1);
        egress_close_frame(shard, connection, 1003,
                           text ? SUBPROTOCOL_PROTO " wants binary messages"
                                : SUBPROTOCOL_JSON " wants text messages");
        connection_close(shard, connection);
        return ERR_AGAIN;
    }
    return take_frame(shard, connection, message->data, (enum encoding)connection->encoding, 0);
}

static void take_websocket(struct shard *shard, struct connection *connection, struct bytes plain)
{
    const struct websocket_limits *limits =
        connection->state == CONNECTION_ECHO ? &shard->echo_limits : &shard->websocket_limits;
    struct websocket_message message;
    for (;;) {
        switch (websocket_receive(&connection->websocket, shard->websocket_engine, limits, &plain,
                                  &message)) {
        case WEBSOCKET_MORE:
            return;
        case WEBSOCKET_FAILED:
            shard_count(shard, METRIC_PROTOCOL_ERRORS, 1);
            egress_close_frame(shard, connection, message.close_code,
                               message.close_code == 1009 ? "message too big" : "protocol error");
            connection_close(shard, connection);
            return;
        case WEBSOCKET_MESSAGE:
            break;
        }
        if (take_message(shard, connection, &message) == OK)
            continue;
        if (connection->state != CONNECTION_CLOSING && connection->state != CONNECTION_DEAD &&
            backlog_keep(connection, (struct bytes){0}, 0, plain) != OK)
            connection_abort(shard, connection);
        return;
    }
}

static void answer_bad_request(struct shard *shard, struct connection *connection)
{
    shard_count(shard, METRIC_PROTOCOL_ERRORS, 1);
    unsigned status = http_reader_status(connection->http);
    connection_set_state(connection, CONNECTION_EXCHANGE);
    connection->keep_alive = false;
    struct http_response response = {.status = status,
                                     .content_type = "text/plain",
                                     .body = bytes_of_text(http_status_text(status)),
                                     .close = true};
    exchange_respond(shard, (struct exchange_id){connection_handle(shard, connection)}, &response);
}

/* HTTP until the bytes end, an answer is awaited or the connection is upgraded; hands on what is
 * left. */
static void take_http(struct shard *shard, struct connection *connection, struct bytes plain)
{
    const struct config *config = shard->gateway->config;
    while (plain.size != 0 && connection->state == CONNECTION_HTTP &&
           connection_has_room(shard, connection)) {
        const struct http_limits limits = {config->header_bytes, config->header_fields,
                                           config->body_bytes};
        if (connection->http == NULL &&
            http_reader_create(&connection->http, &limits, false) != OK) {
            connection_abort(shard, connection);
            return;
        }
        struct http_request request;
        enum err err = http_receive(connection->http, &plain, &request);
        if (err == ERR_AGAIN) {
            if (http_reader_wants_continue(connection->http))
                egress_plain(shard, connection, bytes_of_text("HTTP/1.1 100 Continue\r\n\r\n"));
            return;
        }
        if (err != OK) {
            answer_bad_request(shard, connection);
            return;
        }
        connection->keep_alive = request.keep_alive;
        connection->head = bytes_equal(request.method, bytes_of_text("HEAD"));
        if (upgrade_request(shard, connection, &request)) {
            take_websocket(shard, connection, plain);
            return;
        }
    }
    if (plain.size != 0 &&
        (connection->state == CONNECTION_EXCHANGE || connection->state == CONNECTION_HTTP) &&
        backlog_keep(connection, (struct bytes){0}, 0, plain) != OK)
        connection_abort(shard, connection);
}

static void take_plain(struct shard *shard, struct connection *connection, struct bytes plain)
{
    switch ((enum connection_state)connection->state) {
    case CONNECTION_HTTP:
        if (connection->backlog == NULL) {
            take_http(shard, connection, plain);
            return;
        }
        break;
    case CONNECTION_UPGRADED:
    case CONNECTION_SESSION:
    case CONNECTION_ECHO:
        if (connection->backlog == NULL) {
            take_websocket(shard, connection, plain);
            return;
        }
        break;
    case CONNECTION_RELAYED:
        relay_input(shard, connection, plain);
        return;
    case CONNECTION_EXCHANGE:
    case CONNECTION_AUTHENTICATING:
    case CONNECTION_MOVING:
        break;
    case CONNECTION_PROXY:
    case CONNECTION_TLS:
    case CONNECTION_CLOSING:
    case CONNECTION_DEAD:
    case CONNECTION_STATE_COUNT:
        return;
    }
    if (backlog_keep(connection, (struct bytes){0}, 0, plain) != OK)
        connection_abort(shard, connection);
}

static void on_established(struct shard *shard, struct connection *connection)
{
    shard_count(shard, METRIC_TLS_HANDSHAKES, 1);
    if (tls_resumed(connection->tls))
        shard_count(shard, METRIC_TLS_RESUMED, 1);
    connection_set_state(connection, CONNECTION_HTTP);
}

static void take_cipher(struct shard *shard, struct connection *connection, struct bytes input)
{
    for (;;) {
        struct buffer plain = buffer_of(shard->plaintext, PLAINTEXT_BYTES);
        struct buffer answer = buffer_of(shard->encoded[0], shard->encoded_bytes);
        enum err err = tls_receive(connection->tls, shard->tls_engine, &input, &plain, &answer);
        if (answer.size != 0)
            egress_cipher(shard, connection, buffer_bytes(&answer));
        if (connection->state == CONNECTION_TLS && tls_established(connection->tls))
            on_established(shard, connection);
        if (plain.size != 0)
            take_plain(shard, connection, buffer_bytes(&plain));
        if (connection->state == CONNECTION_CLOSING || connection->state == CONNECTION_DEAD)
            return;
        if (err == ERR_FULL)
            continue;
        if (err == OK)
            return;
        connection->peer_closed = err == ERR_CLOSED;
        if (err != ERR_CLOSED) {
            shard_count(shard, METRIC_TLS_FAILED, 1);
            log_event(LOG_DEBUG, "tls_failed", LOG_TEXT("reason", tls_explain(shard->tls_engine)));
        }
        connection_close(shard, connection);
        return;
    }
}

static void take_proxy(struct shard *shard, struct connection *connection, struct bytes input)
{
    struct bytes whole = input;
    if (connection->backlog != NULL) {
        if (backlog_keep(connection, (struct bytes){0}, 0, input) != OK) {
            connection_abort(shard, connection);
            return;
        }
        whole = buffer_bytes(&connection->backlog->plain);
    }
    enum err err = proxy_decode(&whole, &connection->peer);
    if (err == ERR_AGAIN && connection->backlog == NULL)
        err = backlog_keep(connection, (struct bytes){0}, 0, input);
    else if (err == OK && !listener_count(shard, &connection->peer))
        err = ERR_BUSY;
    else if (err == OK)
        connection->counted = true;
    if (err == OK && connection->counted) {
        struct backlog *held = connection->backlog;
        connection->backlog = NULL;
        connection_set_state(connection, CONNECTION_TLS);
        take_cipher(shard, connection, whole);
        struct backlog *made = connection->backlog;
        connection->backlog = held;
        backlog_free(connection);
        connection->backlog = made;
    } else if (err != OK && err != ERR_AGAIN) {
        shard_count(shard, err == ERR_BUSY ? METRIC_CONNECTIONS_REFUSED : METRIC_PROTOCOL_ERRORS,
                    1);
        connection_abort(shard, connection);
    }
}

void ingress_on_received(struct shard *shard, struct connection *connection,
                         const struct io_event *event)
{
    connection->receiving = false;
    if (event->err == ERR_CANCELLED)
        return;
    if (event->err != OK) {
        connection->peer_closed = true;
        if (event->err != ERR_CLOSED || connection->output == NULL)
            connection_abort(shard, connection);
        else
            connection_close(shard, connection);
        return;
    }
    shard_count(shard, METRIC_BYTES_RECEIVED, event->data.size);
    connection->received_ns = shard->now_ns;
    if (connection->state == CONNECTION_PROXY)
        take_proxy(shard, connection, event->data);
    else if (connection->state != CONNECTION_CLOSING && connection->state != CONNECTION_DEAD)
        take_cipher(shard, connection, event->data);
    connection_arm(shard, connection);
}

void ingress_on_relayed(struct shard *shard, struct connection *connection, struct bytes plain,
                        bool last)
{
    if (last)
        connection->receiving = false;
    connection->received_ns = shard->now_ns;
    if (connection->state != CONNECTION_CLOSING && connection->state != CONNECTION_DEAD)
        take_plain(shard, connection, plain);
    connection_arm(shard, connection);
}

void ingress_go_on(struct shard *shard, struct connection *connection)
{
    struct backlog *backlog = connection->backlog;
    connection->backlog = NULL;
    if (backlog != NULL) {
        enum err err = OK;
        if (backlog->has_frame)
            err = take_frame(shard, connection, buffer_bytes(&backlog->frame), ENCODING_PROTO,
                             backlog->next);
        if (connection->state != CONNECTION_CLOSING && connection->state != CONNECTION_DEAD &&
            backlog->plain.size != 0) {
            if (err == OK)
                take_plain(shard, connection, buffer_bytes(&backlog->plain));
            else if (backlog_keep(connection, (struct bytes){0}, 0,
                                  buffer_bytes(&backlog->plain)) != OK)
                connection_abort(shard, connection);
        }
        struct backlog *made = connection->backlog;
        connection->backlog = backlog;
        backlog_free(connection);
        connection->backlog = made;
    }
    connection_arm(shard, connection);
}

void ingress_on_timer(struct shard *shard, struct connection *connection)
{
    switch ((enum connection_state)connection->state) {
    case CONNECTION_UPGRADED:
    case CONNECTION_AUTHENTICATING:
        shard_count(shard, METRIC_HELLO_TIMEOUTS, 1);
        ingress_fail(shard, connection, CODE_HELLO_TIMEOUT, 0,
                     "no hello with a valid token in time");
        return;
    case CONNECTION_SESSION:
        session_on_timer(shard, connection->session);
        return;
    case CONNECTION_MOVING:
        migrate_retry(shard, connection);
        return;
    case CONNECTION_RELAYED: /* its times are kept by the home's end */
        return;
    case CONNECTION_EXCHANGE: /* api answers in its own time */
        timer_start(&shard->timers, &connection->timer,
                    shard->now_ns + shard->gateway->config->upgrade_timeout_ms * NS_PER_MS);
        return;
    case CONNECTION_PROXY:
    case CONNECTION_TLS:
    case CONNECTION_HTTP:
        shard_count(shard, METRIC_UPGRADE_TIMEOUTS, 1);
        connection_abort(shard, connection);
        return;
    case CONNECTION_ECHO:
    case CONNECTION_CLOSING:
    case CONNECTION_DEAD:
    case CONNECTION_STATE_COUNT:
        connection_abort(shard, connection);
        return;
    }
}
