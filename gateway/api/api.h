/* api.h: what is reached over plain HTTP: accounts and logins, health, metrics, documentation.
 * Flow:       ingress → api_handle (rest.c: routing) → auth.c, admin.c → worker jobs → job.done on
 *             the same shard → exchange_respond
 * Owns:       one struct api for all shards, immutable; a struct call per request that waits for a
 *             worker, from memory_take(MEMORY_API), wiped when given back
 * Invariants: every exchange is answered exactly once; the shard never hashes, signs, verifies or
 *             touches the catalog itself; passwords and tokens are never logged
 * Failure:    to clients: a status and {"error":{"code","message","retry_after_s"}}; a full worker
 *             queue: 503 and Retry-After
 * Bounds:     calls in flight ≤ the worker queues' bounds; about 4 KiB each, and the token
 * Standard:   HTTP semantics RFC 9110; bearer tokens RFC 6750; CORS as the Fetch standard; the
 *             routes are described by openapi.json, which GET /openapi.json serves */
#ifndef GATEWAY_API_API_H
#define GATEWAY_API_API_H

#include "core/metrics.h"
#include "gateway/config.h"
#include "gateway/flow/exchange.h"
#include "gateway/wire/jwt.h"
#include "store/catalog.h"

struct api;

/* Everything is borrowed and outlives the api. Callbacks run on the shard's turn. */
struct api_options {
    const struct config *config;
    struct catalog *catalog;
    struct workers *workers; /* WORKER_HASH's queue_max is config.hash_queue */
    const struct jwt_signer *signer;
    /* jwks: the operator's keys as of now, or NULL; the api retains them for as long as it needs
     * them, so they may be replaced at any time between turns of this shard. NULL: no keys. */
    struct jwks *(*jwks)(void *context, struct shard *shard);
    /* ready: may this process take clients now? If not, reason gets a line of text. */
    bool (*ready)(void *context, struct shard *shard, char *reason, size_t reason_size);
    void *context;
    const uint8_t *store_epoch;     /* 16 bytes */
    struct metrics *const *metrics; /* of all shards and lanes */
    uint32_t metrics_count;
    uint32_t shard_count;
};

/* api_create: hashes once, to know what an unknown user's login must cost: takes as long as that.
 * ERR_NO_MEMORY; ERR_INVALID: the hashing parameters of config are refused by libargon2. */
MUST_USE enum err api_create(struct api **api, const struct api_options *options);
/* api_destroy: after workers_destroy; calls whose jobs were never popped are not given back. */
void api_destroy(struct api *api);

/* api_handle: the shard's api_handler; context is the struct api. */
api_handler api_handle;

#endif
