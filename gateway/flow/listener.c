/* listener.c: see listener.h. */
#include "gateway/flow/listener.h"

#include "gateway/flow/connection.h"

#include <arpa/inet.h>
#include <stdio.h>

static enum err network_parse(uint8_t ip[16], unsigned *bits, const char *text, size_t size)
{
    char copy[64];
    uint8_t v4[4];
    if (size == 0 || size >= sizeof copy)
        return ERR_INVALID;
    memcpy(copy, text, size);
    copy[size] = 0;
    char *slash = strchr(copy, '/');
    unsigned given = 128;
    if (slash != NULL) {
        *slash = 0;
        given = 0;
        if (slash[1] == 0 || strlen(slash + 1) > 3)
            return ERR_INVALID;
        for (const char *p = slash + 1; *p != 0; p++) {
            if (*p < '0' || *p > '9')
                return ERR_INVALID;
            given = given * 10 + (unsigned)(*p - '0');
        }
    }
    if (inet_pton(AF_INET, copy, v4) == 1) {
        memset(ip, 0, 10);
        ip[10] = ip[11] = 0xff;
        memcpy(ip + 12, v4, 4);
        if (slash != NULL && given > 32)
            return ERR_INVALID;
        *bits = slash != NULL ? 96 + given : 128;
        return OK;
    }
    if (inet_pton(AF_INET6, copy, ip) != 1 || given > 128)
        return ERR_INVALID;
    *bits = given;
    return OK;
}

static bool prefix_equal(const uint8_t *a, const uint8_t *b, unsigned bits)
{
    if (memcmp(a, b, bits / 8) != 0)
        return false;
    unsigned rest = bits % 8;
    return rest == 0 || (a[bits / 8] >> (8 - rest)) == (b[bits / 8] >> (8 - rest));
}

static const char *item_of(const char *list, size_t *size)
{
    while (*list == ' ' || *list == ',')
        list++;
    *size = strcspn(list, ", ");
    return *size == 0 ? NULL : list;
}

bool networks_contain(const char *list, const struct io_address *address)
{
    size_t size;
    uint8_t ip[16];
    unsigned bits;
    for (const char *item = item_of(list, &size); item != NULL; item = item_of(item + size, &size))
        if (network_parse(ip, &bits, item, size) == OK && prefix_equal(ip, address->ip, bits))
            return true;
    return false;
}

enum err networks_valid(const char *list, char *bad, size_t bad_size)
{
    size_t size;
    uint8_t ip[16];
    unsigned bits;
    for (const char *item = item_of(list, &size); item != NULL; item = item_of(item + size, &size))
        if (network_parse(ip, &bits, item, size) != OK) {
            snprintf(bad, bad_size, "%.*s", (int)size, item);
            return ERR_INVALID;
        }
    return OK;
}

bool listener_is_proxy(const struct shard *shard, const struct io_address *peer)
{
    const char *list = shard->gateway->config->proxy_sources;
    return list[0] != 0 && networks_contain(list, peer);
}

static _Atomic uint16_t *counter_of(struct shard *shard, const struct io_address *peer)
{
    uint64_t hash = hash_bytes(&shard->gateway->placement, bytes_of(peer->ip, sizeof peer->ip));
    return &shard->gateway->per_address[hash % ADDRESS_SLOTS];
}

bool listener_count(struct shard *shard, const struct io_address *peer)
{
    _Atomic uint16_t *counter = counter_of(shard, peer);
    uint32_t before = atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
    if (before < shard->gateway->config->connections_per_address)
        return true;
    atomic_fetch_sub_explicit(counter, 1, memory_order_relaxed);
    return false;
}

void listener_uncount(struct shard *shard, const struct io_address *peer)
{
    atomic_fetch_sub_explicit(counter_of(shard, peer), 1, memory_order_relaxed);
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
