/* relay.c: see relay.h. */
#include "gateway/flow/relay.h"

#include "gateway/flow/egress.h"
#include "gateway/flow/ingress.h"
#include "gateway/flow/login.h"
#include "gateway/flow/shard.h"

static uint64_t handle_of(struct shard *shard, const struct relay *relay)
{
    return handle_pack(pool_handle(&shard->relays, relay));
}

static struct relay *relay_get(struct shard *shard, uint64_t handle)
{
    return pool_get(&shard->relays, handle_unpack(handle));
}

static void list(struct shard *shard, struct relay *relay)
{
    if (relay->listed)
        return;
    relay->listed = true;
    relay->next = shard->relays_waiting;
    shard->relays_waiting = relay;
}

static void unlist(struct shard *shard, struct relay *relay)
{
    struct relay **at = &shard->relays_waiting;
    if (!relay->listed)
        return;
    while (*at != relay)
        at = &(*at)->next;
    *at = relay->next;
    relay->listed = false;
}

static void relay_free(struct shard *shard, struct relay *relay)
{
    unlist(shard, relay);
    memory_give(relay->input.data, MEMORY_CONNECTION);
    if (!relay->home)
        shard_count(shard, METRIC_CONNECTIONS_RELAYED, (uint64_t)-1);
    pool_give(&shard->relays, relay);
}

void relay_abandon_all(struct shard *shard)
{
    uint32_t at = 0;
    struct relay *relay;
    while ((relay = pool_next(&shard->relays, &at)) != NULL) {
        baggage_free(&relay->baggage);
        memory_give(relay->input.data, MEMORY_CONNECTION);
    }
}

/* ---- the guest's end */

void relay_start(struct shard *shard, struct connection *connection, uint32_t home)
{
    struct relay *relay = pool_take(&shard->relays);
    if (relay == NULL) {
        ingress_fail(shard, connection, CODE_OVERLOADED, 1000, "out of memory");
        return;
    }
    shard_count(shard, METRIC_CONNECTIONS_RELAYED, 1);
    relay->connection = connection;
    relay->other_shard = home;
    relay->tell_open = true;
    baggage_pack(shard, connection, &relay->baggage);
    connection_set_state(connection, CONNECTION_RELAYED);
    connection->guest = relay;
    list(shard, relay);
}

void relay_input(struct shard *shard, struct connection *connection, struct bytes plain)
{
    struct relay *relay = connection->guest;
    if (buffer_reserve(&relay->input, plain.size) != OK ||
        buffer_append(&relay->input, plain) != OK) {
        connection_abort(shard, connection);
        return;
    }
    list(shard, relay);
}

bool relay_wants_bytes(const struct connection *connection)
{
    return connection->guest->wanted && connection->guest->input.size == 0;
}

void relay_drained(struct shard *shard, struct connection *connection)
{
    struct relay *relay = connection->guest;
    if (relay->owes_sent) {
        relay->owes_sent = false;
        relay->tell_sent = true;
        list(shard, relay);
    }
    connection_arm(shard, connection);
}

void relay_leave(struct shard *shard, struct connection *connection)
{
    struct relay *relay = connection->guest;
    connection->guest = NULL;
    relay->connection = NULL;
    if (relay->tell_open) { /* nobody knows of it */
        baggage_free(&relay->baggage);
        relay_free(shard, relay);
        return;
    }
    relay->tell_sent = false;
    relay->tell_gone = true;
    list(shard, relay);
}

static void on_out(struct shard *shard, struct relay *relay, const struct border_relay *message)
{
    if (relay->connection == NULL)
        return;
    relay->owes_sent = message->last;
    egress_plain(shard, relay->connection, bytes_of(message + 1, message->border.payload_bytes));
}

static void on_close(struct shard *shard, struct relay *relay, const struct border_relay *message)
{
    struct connection *connection = relay->connection;
    if (connection == NULL)
        return;
    connection->peer_closed = connection->peer_closed || message->peer_closed;
    if (message->abrupt) {
        connection_abort(shard, connection);
        return;
    }
    egress_plain(shard, connection, (struct bytes){NULL, 0}); /* for TLS to say close_notify */
    connection_close(shard, connection);
}

/* OPEN was refused: everything is as it was before. */
static void on_refused(struct shard *shard, struct relay *relay)
{
    struct connection *connection = relay->connection;
    if (connection == NULL) {
        baggage_free(&relay->baggage);
        relay_free(shard, relay);
        return;
    }
    connection_set_state(connection, CONNECTION_MOVING);
    connection->guest = NULL;
    baggage_unpack(connection, &relay->baggage);
    relay_free(shard, relay);
    ingress_fail(shard, connection, CODE_OVERLOADED, 1000,
                 "the shard of this user has no room; try again");
}

void relay_on_opened(struct shard *shard, struct bytes message)
{
    const struct border_relay_opened *opened = (const void *)message.data;
    struct relay *relay = relay_get(shard, opened->guest);
    CHECK(relay != NULL && relay->other == 0); /* it waits for this, whatever happens */
    if (opened->err != OK) {
        on_refused(shard, relay);
        return;
    }
    relay->other = opened->home;
    list(shard, relay);
}

/* ---- the home's end */

void relay_receive(struct shard *shard, struct connection *connection)
{
    connection->relay->tell_want = true;
    list(shard, connection->relay);
}

void relay_send(struct shard *shard, struct connection *connection, struct bytes data)
{
    CHECK(connection->relay != NULL && !connection->relay->tell_out && data.size != 0);
    connection->relay->send = data;
    connection->relay->tell_out = true;
    list(shard, connection->relay);
}

void relay_close(struct shard *shard, struct connection *connection, bool abrupt)
{
    struct relay *relay = connection->relay;
    relay->tell_close = true;
    relay->abrupt = abrupt;
    relay->tell_want = relay->tell_out = false;
    list(shard, relay);
}

static enum err arrive(struct shard *shard, const struct border_relay_open *open,
                       struct relay **out)
{
    struct relay *relay = pool_take(&shard->relays);
    if (relay == NULL)
        return ERR_FULL;
    relay->home = true;
    relay->other = open->guest;
    relay->other_shard = open->border.source;
    relay->connection = connection_open_remote(shard, relay, &open->baggage->peer);
    if (relay->connection == NULL) {
        pool_give(&shard->relays, relay);
        return ERR_FULL;
    }
    *out = relay;
    return OK;
}

static void on_open(struct shard *shard, const struct border_relay_open *open)
{
    struct mesh *mesh = shard->gateway->mesh;
    struct relay *relay = NULL;
    enum err err = arrive(shard, open, &relay);
    struct border_relay_opened *opened = (struct border_relay_opened *)(void *)mesh_reserve(
        mesh, shard->index, open->border.source, MESH_ANSWER, sizeof *opened);
    CHECK(opened != NULL); /* promised */
    *opened = (struct border_relay_opened){
        .border = {BORDER_RELAY_OPENED, (uint16_t)shard->index, 0},
        .guest = open->guest,
        .home = err == OK ? handle_of(shard, relay) : 0,
        .err = (uint32_t)err,
    };
    mesh_commit(mesh, shard->index, open->border.source, MESH_ANSWER, sizeof *opened);
    if (err == OK)
        baggage_arrive(shard, relay->connection, open->baggage);
}

static void on_gone(struct shard *shard, struct relay *relay)
{
    struct connection *connection = relay->connection;
    relay_free(shard, relay);
    connection->relay = NULL;
    connection->peer_closed = true;
    connection_abort(shard, connection);
    connection_on_closed(shard, connection);
}

/* ---- both */

void relay_on_message(struct shard *shard, struct bytes bytes)
{
    const struct border_relay *message = (const void *)bytes.data;
    struct relay *relay = relay_get(shard, message->relay);
    enum border_kind kind = (enum border_kind)message->border.kind;
    if (kind == BORDER_RELAY_OPEN) {
        on_open(shard, (const void *)bytes.data);
        return;
    }
    if (relay == NULL)
        return; /* a guest that has told that it is gone; the two crossed */
    if (kind == BORDER_RELAY_WANT) {
        relay->wanted = true;
        if (relay->connection != NULL)
            connection_arm(shard, relay->connection);
    } else if (kind == BORDER_RELAY_IN) {
        ingress_on_relayed(shard, relay->connection,
                           bytes_of(message + 1, message->border.payload_bytes), message->last);
    } else if (kind == BORDER_RELAY_OUT) {
        on_out(shard, relay, message);
    } else if (kind == BORDER_RELAY_SENT) {
        egress_on_sent(shard, relay->connection, OK);
    } else if (kind == BORDER_RELAY_CLOSE) {
        on_close(shard, relay, message);
    } else {
        CHECK(kind == BORDER_RELAY_GONE);
        on_gone(shard, relay);
    }
}

/* One message to the other end; false: no room, later. */
static bool tell(struct shard *shard, const struct relay *relay, enum border_kind kind,
                 struct bytes payload, bool last)
{
    struct mesh *mesh = shard->gateway->mesh;
    size_t size = sizeof(struct border_relay) + payload.size;
    struct border_relay *out = (struct border_relay *)(void *)mesh_reserve(
        mesh, shard->index, relay->other_shard, MESH_REQUEST, size);
    if (out == NULL) {
        MARK("relay waits for room");
        return false;
    }
    *out = (struct border_relay){
        .border = {(uint16_t)kind, (uint16_t)shard->index, (uint32_t)payload.size},
        .relay = relay->other,
        .last = last,
        .abrupt = relay->abrupt,
        .peer_closed = relay->home && relay->connection->peer_closed,
    };
    if (payload.size != 0)
        memcpy(out + 1, payload.data, payload.size);
    mesh_commit(mesh, shard->index, relay->other_shard, MESH_REQUEST, size);
    return true;
}

static bool tell_simple(struct shard *shard, const struct relay *relay, enum border_kind kind,
                        bool *due)
{
    if (*due && !tell(shard, relay, kind, (struct bytes){NULL, 0}, false))
        return false;
    *due = false;
    return true;
}

/* All of *bytes, in messages of RELAY_BYTES; false: what did not fit is left. */
static bool tell_bytes(struct shard *shard, const struct relay *relay, enum border_kind kind,
                       struct bytes *bytes)
{
    while (bytes->size != 0) {
        size_t size = bytes->size < RELAY_BYTES ? bytes->size : RELAY_BYTES;
        if (!tell(shard, relay, kind, bytes_of(bytes->data, size), size == bytes->size))
            return false;
        *bytes = bytes_skip(*bytes, size);
    }
    return true;
}

static bool tell_open(struct shard *shard, struct relay *relay)
{
    struct mesh *mesh = shard->gateway->mesh;
    uint32_t home = relay->other_shard;
    if (mesh_promise(mesh, shard->index, home, MESH_ANSWER, sizeof(struct border_relay_opened)) !=
        OK)
        return false;
    struct border_relay_open *out = (struct border_relay_open *)(void *)mesh_reserve(
        mesh, shard->index, home, MESH_REQUEST, sizeof *out);
    if (out == NULL) {
        mesh_unpromise(mesh, shard->index, home, MESH_ANSWER, sizeof(struct border_relay_opened));
        return false;
    }
    *out = (struct border_relay_open){
        .border = {BORDER_RELAY_OPEN, (uint16_t)shard->index, 0},
        .guest = handle_of(shard, relay),
        .baggage = &relay->baggage,
    };
    mesh_commit(mesh, shard->index, home, MESH_REQUEST, sizeof *out);
    relay->tell_open = false;
    return true;
}

static bool tell_input(struct shard *shard, struct relay *relay)
{
    if (relay->input.size == 0)
        return true;
    struct bytes rest = bytes_skip(buffer_bytes(&relay->input), relay->input_told);
    size_t before = rest.size;
    bool all = tell_bytes(shard, relay, BORDER_RELAY_IN, &rest);
    relay->input_told += before - rest.size;
    if (!all)
        return false;
    memory_give(relay->input.data, MEMORY_CONNECTION); /* an idle connection holds no buffer */
    relay->input = (struct buffer){0};
    relay->input_told = 0;
    relay->wanted = false;
    return true;
}

/* False: there is more to tell, later. */
static bool flush_guest(struct shard *shard, struct relay *relay)
{
    if (relay->tell_open)
        return tell_open(shard, relay);
    if (relay->other == 0)
        return true; /* the answer lists it again */
    if (!tell_input(shard, relay) ||
        !tell_simple(shard, relay, BORDER_RELAY_SENT, &relay->tell_sent) ||
        !tell_simple(shard, relay, BORDER_RELAY_GONE, &relay->tell_gone))
        return false;
    if (relay->connection == NULL)
        relay_free(shard, relay);
    return true;
}

static bool flush_home(struct shard *shard, struct relay *relay)
{
    if (relay->tell_out) {
        if (!tell_bytes(shard, relay, BORDER_RELAY_OUT, &relay->send))
            return false;
        relay->tell_out = false;
    }
    return tell_simple(shard, relay, BORDER_RELAY_WANT, &relay->tell_want) &&
           tell_simple(shard, relay, BORDER_RELAY_CLOSE, &relay->tell_close);
}

void relay_flush(struct shard *shard)
{
    struct relay *waiting = shard->relays_waiting;
    shard->relays_waiting = NULL;
    while (waiting != NULL) {
        struct relay *relay = waiting;
        waiting = relay->next;
        relay->listed = false;
        if (!(relay->home ? flush_home(shard, relay) : flush_guest(shard, relay)))
            list(shard, relay);
    }
}
