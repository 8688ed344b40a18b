/* listener.h: where connections come in: limits before anything is spent on them.
 * Flow:       IO_ACCEPTED → listener_on_accepted → connection (PROXY or TLS)
 * Bounds:     limits.max_connections over all shards, limits.connections_per_address un-upgraded
 *             ones per address */
#ifndef GATEWAY_FLOW_LISTENER_H
#define GATEWAY_FLOW_LISTENER_H

#include "gateway/flow/shard.h"

void listener_on_accepted(struct shard *shard, const struct io_event *event);
/* listener_count: false: the address has too many. */
bool listener_count(struct shard *shard, const struct io_address *peer);
void listener_uncount(struct shard *shard, const struct io_address *peer);
/* listener_is_proxy: the peer is one of listen.proxy_sources. */
bool listener_is_proxy(const struct shard *shard, const struct io_address *peer);

#endif
