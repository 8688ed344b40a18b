/* exchange.h: how an HTTP request meets its answer: flow hands complete requests up, api answers
 * now or from a job.
 * Flow:       ingress → the shard's api_handler (set by main) → exchange_respond → egress
 * Owns:       the request's bytes belong to the connection and are valid until exchange_respond
 * Failure:    exchange_respond to a connection that is gone is dropped silently: ids carry a
 *             generation */
#ifndef GATEWAY_FLOW_EXCHANGE_H
#define GATEWAY_FLOW_EXCHANGE_H

#include "core/io.h"
#include "core/worker.h"
#include "gateway/wire/http.h"
#include "store/ids.h"

struct shard;

struct exchange_id {
    uint64_t v; /* the connection's handle */
};

struct exchange {
    struct exchange_id id;
    const struct http_request *request;
    struct io_address peer;
    bool admin; /* came in on the admin listener */
};

/* api_handler: on the shard's turn; must call exchange_respond exactly once, now or later. */
typedef void api_handler(void *context, struct shard *shard, const struct exchange *exchange);

void exchange_respond(struct shard *shard, struct exchange_id id,
                      const struct http_response *response);

/* What api needs of the shard it runs on. */
uint32_t shard_index(const struct shard *shard);
struct io *shard_io(struct shard *shard);
struct metrics *shard_metrics(struct shard *shard);
/* shard_revoke: a device's logins up to this generation ended: whichever shard hosts its session
 * closes it with CODE_REVOKED. */
void shard_revoke(struct shard *shard, struct user_id user, struct device_id device,
                  uint64_t generation);

#endif
