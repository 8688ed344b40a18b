/* ingress.h: the way in: bytes → (PROXY) → TLS → HTTP | WebSocket → requests.
 * Flow:       IO_RECEIVED → ingress_on_received → upgrade.c | requests.c | exchange
 * Invariants: all ciphertext of a receive is taken in its turn; what cannot be worked off yet is
 *             kept once, as clear text, in the backlog, and no receive is armed while there is one
 * Failure:    ingress_fail: the layer's own words, then close */
#ifndef GATEWAY_FLOW_INGRESS_H
#define GATEWAY_FLOW_INGRESS_H

#include "gateway/flow/connection.h"
#include "gateway/flow/shard.h"

void ingress_on_received(struct shard *shard, struct connection *connection,
                         const struct io_event *event);
/* ingress_on_relayed: a part of what one receive of a remote connection gave; last: all of it. */
void ingress_on_relayed(struct shard *shard, struct connection *connection, struct bytes plain,
                        bool last);
/* ingress_go_on: work the backlog off, as far as there is room; then arm. */
void ingress_go_on(struct shard *shard, struct connection *connection);
/* ingress_retry_stalled: once a turn, those that waited for room between shards. */
void ingress_retry_stalled(struct shard *shard);
/* ingress_fail: goodbye with code and its verdict, WebSocket close 4000 + code, close. Any state.
 */
void ingress_fail(struct shard *shard, struct connection *connection, enum code code,
                  uint32_t retry_after_ms, const char *text);
/* ingress_on_timer: the upgrade, hello or linger time is over. */
void ingress_on_timer(struct shard *shard, struct connection *connection);

/* upgrade.c: one complete HTTP request on the public listener. True: the connection speaks
 * WebSocket now. */
bool upgrade_request(struct shard *shard, struct connection *connection,
                     const struct http_request *request);

#endif
