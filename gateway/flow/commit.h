/* commit.h: conversations on their owner's shard: number, make durable, acknowledge, fan out.
 * Flow:       BORDER_SEND → conversation (loaded if need be) → BORDER_APPEND → lane →
 *             BORDER_APPENDED → BORDER_RESULT to the sender, BORDER_DELIVER to the members' home
 *             shards
 * Owns:       struct conversation, what is parked on it, the order of what is in flight to each
 *             lane
 * Invariants: nothing is acknowledged or delivered before BORDER_APPENDED said durable; answers of
 *             a lane come in the order of its appends, so the oldest in flight to it is always the
 *             one that is meant; a conversation is in one lane, so that its messages become
 *             visible, or are taken back, in the order of their numbers
 * Failure:    ERR_FULL: no room towards the lane: the request stays in its ring; in a store of
 *             several lanes it waits on its conversation, or is told OVERLOADED (a watermark stays
 *             in its ring then)
 * Bounds:     limits.parked_requests per shard, limits.cache_bytes, limits.state_bytes */
#ifndef GATEWAY_FLOW_COMMIT_H
#define GATEWAY_FLOW_COMMIT_H

#include "gateway/flow/shard.h"

/* commit_on_request: SEND, MARK_CHECK, PULL. ERR_FULL: leave it in the ring. */
MUST_USE enum err commit_on_request(struct shard *shard, struct bytes message);
/* commit_on_watermark: ERR_FULL: leave it in the ring: it waits for the lane, which waits for
 * nobody. */
MUST_USE enum err commit_on_watermark(struct shard *shard, struct bytes message);
void commit_on_appended(struct shard *shard, struct bytes message);
void commit_on_found(struct shard *shard, struct bytes message);
/* commit_flush: once a turn: dirty slices, parked requests that may go on. */
void commit_flush(struct shard *shard);
void commit_evict(struct shard *shard);
/* commit_find: NULL: not here. commit_wake: made if absent, awake: let it rest afterwards;
 * commit_load: made if absent, and on its way to being WARM. NULL: no memory, or not now. */
struct conversation *commit_find(struct shard *shard, struct conversation_id id);
struct conversation *commit_wake(struct shard *shard, struct conversation_id id);
struct conversation *commit_load(struct shard *shard, struct conversation_id id);
void commit_mark_dirty(struct shard *shard, struct conversation *conversation);
void commit_deinit(struct shard *shard);

#endif
