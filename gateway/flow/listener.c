/* listener.c: see listener.h. */
#include "gateway/flow/listener.h"

#include "gateway/flow/connection.h"

bool listener_is_proxy(const struct shard *shard, const struct io_address *peer)
{
    struct bytes list = bytes_of_text(shard->gateway->config->proxy_sources);
    struct network network;
    while (network_next(&network, &list) == OK)
        if (network_contains(&network, peer->ip))
            return true;
    return false;
}

bool listener_count(struct shard *shard, const struct io_address *peer)
{
    struct gateway *gateway = shard->gateway;
    return addresses_count(&gateway->addresses, peer, gateway->config->connections_per_address) ==
           OK;
}

void listener_uncount(struct shard *shard, const struct io_address *peer)
{
    addresses_uncount(&shard->gateway->addresses, peer);
}

/* Too many from there, or no slot: nothing is said, since before TLS there are no words for it. */
static void refuse(struct shard *shard, struct io_conn io)
{
    shard_count(shard, METRIC_CONNECTIONS_REFUSED, 1);
    io_set_owner(shard->io, io, 0);
    io_close(shard->io, io);
}

void listener_on_accepted(struct shard *shard, const struct io_event *event)
{
    const struct config *config = shard->gateway->config;
    bool admin = event->listener.v == shard->admin_listener.v;
    bool proxy = !admin && listener_is_proxy(shard, &event->peer);
    shard_count(shard, METRIC_CONNECTIONS_ACCEPTED, 1);
    if (!admin && !proxy && !listener_count(shard, &event->peer)) {
        refuse(shard, event->conn);
        return;
    }
    struct connection *connection = connection_open(shard, event->conn, &event->peer);
    if (connection == NULL) {
        if (!admin && !proxy)
            listener_uncount(shard, &event->peer);
        refuse(shard, event->conn);
        return;
    }
    uint32_t open =
        atomic_fetch_add_explicit(&shard->gateway->connections, 1, memory_order_relaxed);
    connection->admin = admin;
    connection->counted = !admin && !proxy;
    connection->refused = !admin && open >= config->max_connections;
    connection->state = proxy ? CONNECTION_PROXY : CONNECTION_TLS;
    timer_start(&shard->timers, &connection->timer,
                shard->now_ns + config->upgrade_timeout_ms * NS_PER_MS);
    if (tls_create(&connection->tls, shard->tls_context) != OK) {
        connection_abort(shard, connection);
        return;
    }
    connection_arm(shard, connection);
}
