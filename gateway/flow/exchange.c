/* exchange.c: see exchange.h. */
#include "gateway/flow/exchange.h"

#include "gateway/flow/checkpoint.h"
#include "gateway/flow/egress.h"
#include "gateway/flow/ingress.h"

uint32_t shard_index(const struct shard *shard)
{
    return shard->index;
}

struct io *shard_io(struct shard *shard)
{
    return shard->io;
}

struct metrics *shard_metrics(struct shard *shard)
{
    return shard->metrics;
}

void exchange_respond(struct shard *shard, struct exchange_id id, const struct http_response *given)
{
    struct connection *connection = connection_get(shard, id.v);
    if (connection == NULL || connection->state != CONNECTION_EXCHANGE)
        return;
    struct http_response response = *given;
    response.close = response.close || !connection->keep_alive || shard->phase != GATEWAY_SERVING;
    response.head = connection->head;
    size_t room = HTTP_RESPONSE_OVERHEAD + response.body.size +
                  (response.fields != NULL ? strlen(response.fields) : 0);
    uint8_t *bytes = memory_take(room, MEMORY_CONNECTION);
    if (bytes == NULL) {
        connection_abort(shard, connection);
        return;
    }
    struct buffer out = buffer_of(bytes, room);
    enum err err = http_response_encode(&out, &response);
    CHECK(err == OK);
    shard_count(shard, METRIC_HTTP_REQUESTS, 1);
    if (response.status >= 400)
        shard_count(shard, METRIC_HTTP_ERRORS, 1);
    egress_plain(shard, connection, buffer_bytes(&out));
    memory_give(bytes, MEMORY_CONNECTION);
    if (response.close) {
        connection_close(shard, connection);
        return;
    }
    connection_set_state(connection, CONNECTION_HTTP);
    http_next(connection->http);
    if (http_reader_idle(connection->http)) {
        http_reader_destroy(connection->http);
        connection->http = NULL;
    }
    timer_start(&shard->timers, &connection->timer,
                shard->now_ns + shard->gateway->config->upgrade_timeout_ms * NS_PER_MS);
    if (connection->backlog != NULL)
        ingress_go_on(shard, connection);
    else
        connection_arm(shard, connection);
}

void shard_revoke(struct shard *shard, struct user_id user, struct device_id device,
                  uint64_t generation)
{
    revocation_add(shard, user, device, generation);
}
