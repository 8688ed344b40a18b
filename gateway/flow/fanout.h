/* fanout.h: from a conversation to the home shards of its members, and back to whoever pulls.
 * Flow:       commit.c (durable) → fanout_message → BORDER_DELIVER; full ring → dirty slice →
 *             fanout_flush → BORDER_MOVED
 * Invariants: a home shard is told contiguous ranges: seq_told + 1 …; a dirty slice is told by
 *             number, never by payload
 * Failure:    none: what does not fit is remembered as a mark in the conversation */
#ifndef GATEWAY_FLOW_FANOUT_H
#define GATEWAY_FLOW_FANOUT_H

#include "gateway/flow/shard.h"

void fanout_message(struct shard *shard, struct conversation *conversation,
                    const struct cached *message);
/* fanout_watermark: raise a member's marks, log them, tell the members' home shards. ERR_FULL: no
 * room towards the lane; nothing was done, come back. */
MUST_USE enum err fanout_watermark(struct shard *shard, struct conversation *conversation,
                                   const struct border_watermark *mark);
/* fanout_answer_pull: from memory, or MISS; conversation NULL: it is being loaded: BUSY. */
void fanout_answer_pull(struct shard *shard, const struct conversation *conversation,
                        const struct border_pull *pull);
void fanout_flush(struct shard *shard);

#endif
