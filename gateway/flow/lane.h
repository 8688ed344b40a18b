/* lane.h: the log's lanes on the shards that drive them: appends, reads and look-ups of all shards.
 * Flow:       BORDER_APPEND → log_append … log_flush → io → log_completed → BORDER_APPENDED, in
 *             order of appends per lane
 * Owns:       a struct log per lane of the shard, its line of outstanding answers, reads under way;
 *             shard 0: checkpoint rounds
 * Invariants: lane i is driven by shard i mod shards, which another start may have another number
 *             of; a conversation is in one lane (lane_of) as long as the store lives; its answers
 *             come in the order of its appends, and wait for no other lane; after a lane's first
 *             refusal everything of an older epoch of it is refused
 * Failure:    a log FAILED or NO_SPACE: answers say so; gateway_log_state, the worst of all, tells
 *             everybody: the box is read-only, not a part of its conversations
 * Bounds:     outstanding answers and reads were all promised room by their askers */
#ifndef GATEWAY_FLOW_LANE_H
#define GATEWAY_FLOW_LANE_H

#include "gateway/flow/checkpoint.h"
#include "gateway/flow/lanes.h"
#include "gateway/flow/shard.h"

/* lane_create: open and recover the shard's lanes: replays their tails into the catalog. Shard 0
 * opens the store first. Blocks. */
MUST_USE enum err lane_create(struct shard *shard, char *explanation, size_t explanation_size);
void lane_destroy(struct shard *shard);
void lane_abandon(struct shard *shard); /* tests: a crash */
/* lane_on_messages: takes APPEND, READ, FIND, COUNT off the lanes' rings, as many as find room;
 * whether there was any. */
bool lane_on_messages(struct shard *shard);
bool lane_owns(const struct shard *shard, const struct io_file_op *op);
void lane_on_file(struct shard *shard, struct io_file_op *op);
/* lane_turn: the commit phase: flush, answer what is durable, answer finished reads, tell of a
 * checkpoint round. */
void lane_turn(struct shard *shard);
/* lane_next_ns: when a turn is due, whatever happens; UINT64_MAX: then only. */
uint64_t lane_next_ns(const struct shard *shard);
/* lane_idle: nothing is in flight. */
bool lane_idle(const struct shard *shard);
/* lane_jobs: worker jobs of the logs themselves: they may be under way when the shard ends. */
uint32_t lane_jobs(const struct shard *shard);

#endif
