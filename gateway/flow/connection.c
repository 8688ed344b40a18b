/* connection.c: life and end of a connection (connection.h). */
#include "gateway/flow/connection.h"

#include "gateway/flow/egress.h"
#include "gateway/flow/ingress.h"
#include "gateway/flow/listener.h"
#include "gateway/flow/login.h"
#include "gateway/flow/relay.h"
#include "gateway/flow/session.h"
#include "gateway/flow/shard.h"

#define LINGER_NS (2 * NS_PER_S) /* for the peer to read our last words before the socket goes */

#define EDGE(state) (1u << CONNECTION_##state)
static const uint16_t edges[CONNECTION_STATE_COUNT] = {
    [CONNECTION_PROXY] = EDGE(TLS) | EDGE(CLOSING) | EDGE(DEAD),
    [CONNECTION_TLS] = EDGE(HTTP) | EDGE(AUTHENTICATING) | EDGE(CLOSING) | EDGE(DEAD),
    [CONNECTION_HTTP] = EDGE(EXCHANGE) | EDGE(CLOSING) | EDGE(DEAD),
    [CONNECTION_EXCHANGE] = EDGE(HTTP) | EDGE(UPGRADED) | EDGE(ECHO) | EDGE(CLOSING) | EDGE(DEAD),
    [CONNECTION_UPGRADED] = EDGE(AUTHENTICATING) | EDGE(CLOSING) | EDGE(DEAD),
    [CONNECTION_AUTHENTICATING] = EDGE(MOVING) | EDGE(SESSION) | EDGE(CLOSING) | EDGE(DEAD),
    [CONNECTION_MOVING] = EDGE(RELAYED) | EDGE(CLOSING) | EDGE(DEAD),
    [CONNECTION_RELAYED] = EDGE(MOVING) | EDGE(CLOSING) | EDGE(DEAD),
    [CONNECTION_SESSION] = EDGE(CLOSING) | EDGE(DEAD),
    [CONNECTION_ECHO] = EDGE(CLOSING) | EDGE(DEAD),
    [CONNECTION_CLOSING] = EDGE(DEAD),
    [CONNECTION_DEAD] = 0,
};

void connection_set_state(struct connection *connection, enum connection_state state)
{
    CHECK(edges[connection->state] & (1u << state));
    connection->state = (uint8_t)state;
}

uint64_t connection_handle(struct shard *shard, const struct connection *connection)
{
    return handle_pack(pool_handle(&shard->connections, connection));
}

struct connection *connection_get(struct shard *shard, uint64_t handle)
{
    return pool_get(&shard->connections, handle_unpack(handle));
}

struct connection *connection_open(struct shard *shard, struct io_conn io,
                                   const struct io_address *peer)
{
    struct connection *connection = pool_take(&shard->connections);
    if (connection == NULL)
        return NULL;
    connection->io = io;
    connection->peer = *peer;
    connection->accepted_ns = shard->now_ns;
    connection->received_ns = shard->now_ns;
    io_set_owner(shard->io, io, connection_handle(shard, connection));
    shard_count(shard, METRIC_CONNECTIONS_OPEN, 1);
    return connection;
}

struct connection *connection_open_remote(struct shard *shard, struct relay *relay,
                                          const struct io_address *peer)
{
    struct connection *connection = pool_take(&shard->connections);
    if (connection == NULL)
        return NULL;
    connection->remote = true;
    connection->relay = relay;
    connection->peer = *peer;
    connection->received_ns = shard->now_ns;
    return connection;
}

/* Who does not read what was answered is not asked for more: beyond what pushes may take (session.c
 * stops those at output_bytes; one pull or message may overshoot it) no request is worked on. */
bool connection_has_room(const struct shard *shard, const struct connection *connection)
{
    const struct config *config = shard->gateway->config;
    return egress_unsent(connection) <
           2 * ((size_t)config->output_bytes + (size_t)config->message_bytes);
}

static bool wants_bytes(const struct shard *shard, const struct connection *connection)
{
    switch ((enum connection_state)connection->state) {
    case CONNECTION_PROXY: /* its backlog is a part of the header */
        return true;
    case CONNECTION_TLS:
    case CONNECTION_HTTP:
    case CONNECTION_UPGRADED:
    case CONNECTION_SESSION:
        return connection->backlog == NULL && connection_has_room(shard, connection);
    case CONNECTION_ECHO: /* what is echoed waits in memory: one answer at a time */
        return connection->output == NULL;
    case CONNECTION_RELAYED:
        return relay_wants_bytes(connection) && connection_has_room(shard, connection);
    case CONNECTION_CLOSING: /* a remote one ends as soon as its output is gone */
        return !connection->peer_closed && !connection->remote;
    case CONNECTION_EXCHANGE:
    case CONNECTION_AUTHENTICATING:
    case CONNECTION_MOVING:
    case CONNECTION_DEAD:
    case CONNECTION_STATE_COUNT:
        return false;
    }
    return false;
}

void connection_arm(struct shard *shard, struct connection *connection)
{
    if (connection->receiving || connection->peer_closed || !wants_bytes(shard, connection))
        return;
    connection->receiving = true;
    if (connection->remote)
        relay_receive(shard, connection);
    else
        io_receive(shard->io, connection->io);
}

void connection_uncount(struct shard *shard, struct connection *connection)
{
    if (!connection->counted)
        return;
    connection->counted = false;
    listener_uncount(shard, &connection->peer);
}

void backlog_free(struct connection *connection)
{
    struct backlog *backlog = connection->backlog;
    if (backlog == NULL)
        return;
    memory_give(backlog->frame.data, MEMORY_CONNECTION);
    memory_give(backlog->plain.data, MEMORY_CONNECTION);
    memory_give(backlog, MEMORY_CONNECTION);
    connection->backlog = NULL;
}

enum err backlog_keep(struct connection *connection, struct bytes frame, uint32_t next,
                      struct bytes plain)
{
    if (frame.size == 0 && plain.size == 0)
        return OK;
    if (connection->backlog == NULL) {
        connection->backlog = memory_take_zeroed(sizeof(struct backlog), MEMORY_CONNECTION);
        if (connection->backlog == NULL)
            return ERR_NO_MEMORY;
    }
    struct backlog *backlog = connection->backlog;
    if (frame.size != 0) {
        CHECK(!backlog->has_frame);
        TRY(buffer_reserve(&backlog->frame, frame.size));
        TRY(buffer_append(&backlog->frame, frame));
        backlog->has_frame = true;
        backlog->next = next;
    }
    TRY(buffer_reserve(&backlog->plain, plain.size + 1));
    return buffer_append(&backlog->plain, plain);
}

/* What belongs to the layer above the socket: session, login, parser. */
static void leave(struct shard *shard, struct connection *connection)
{
    switch ((enum connection_state)connection->state) {
    case CONNECTION_PROXY:
    case CONNECTION_TLS:
    case CONNECTION_HTTP:
    case CONNECTION_EXCHANGE:
        http_reader_destroy(connection->http);
        connection->http = NULL;
        break;
    case CONNECTION_UPGRADED:
    case CONNECTION_AUTHENTICATING:
    case CONNECTION_MOVING:
        login_abandon(shard, connection);
        break;
    case CONNECTION_SESSION:
        session_destroy(shard, connection->session);
        connection->session = NULL;
        break;
    case CONNECTION_RELAYED:
        relay_leave(shard, connection);
        break;
    case CONNECTION_ECHO:
    case CONNECTION_CLOSING:
    case CONNECTION_DEAD:
    case CONNECTION_STATE_COUNT:
        break;
    }
}

void connection_close(struct shard *shard, struct connection *connection)
{
    if (connection->state == CONNECTION_CLOSING || connection->state == CONNECTION_DEAD)
        return;
    leave(shard, connection);
    backlog_free(connection);
    websocket_deinit(&connection->websocket, shard->websocket_engine);
    connection_set_state(connection, CONNECTION_CLOSING);
    timer_start(&shard->timers, &connection->timer, shard->now_ns + LINGER_NS);
    if (connection->output == NULL && (connection->peer_closed || connection->remote)) {
        connection_abort(shard, connection);
        return;
    }
    connection->close_sent = true;
    connection_arm(shard, connection);
}

void connection_abort(struct shard *shard, struct connection *connection)
{
    if (connection->state == CONNECTION_DEAD)
        return;
    leave(shard, connection);
    connection_set_state(connection, CONNECTION_DEAD);
    timer_stop(&shard->timers, &connection->timer);
    connection_uncount(shard, connection);
    if (!connection->remote)
        io_close(shard->io, connection->io);
    else if (connection->relay != NULL)
        relay_close(shard, connection, connection->output != NULL);
}

void connection_on_closed(struct shard *shard, struct connection *connection)
{
    if (connection->output != NULL)
        connection->output->sending = false;
    if (!connection->remote)
        shard_count(shard, METRIC_CONNECTIONS_CLOSED, 1);
    connection_release(shard, connection);
    connection_free(shard, connection);
}

void connection_release(struct shard *shard, struct connection *connection)
{
    backlog_free(connection);
    output_free(connection);
    websocket_deinit(&connection->websocket, shard->websocket_engine);
    if (!connection->remote && connection->tls != NULL)
        tls_destroy(connection->tls);
    connection->tls = NULL;
}

static void unlist(struct connection **list, struct connection *connection, bool stall)
{
    while (*list != NULL && *list != connection)
        list = stall ? &(*list)->stall_next : &(*list)->work_next;
    if (*list != NULL)
        *list = stall ? connection->stall_next : connection->work_next;
}

void connection_free(struct shard *shard, struct connection *connection)
{
    if (connection->listed)
        unlist(&shard->work, connection, false);
    if (connection->stall_listed)
        unlist(&shard->stalled, connection, true);
    timer_stop(&shard->timers, &connection->timer);
    connection_uncount(shard, connection);
    bool counted = !connection->remote; /* as one, where its socket is */
    pool_give(&shard->connections, connection);
    if (!counted)
        return;
    atomic_fetch_sub_explicit(&shard->gateway->connections, 1, memory_order_relaxed);
    shard_count(shard, METRIC_CONNECTIONS_OPEN, (uint64_t)-1);
}
