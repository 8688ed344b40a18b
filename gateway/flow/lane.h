/* lane.h: the log's lanes on the shard that hosts them: appends, reads and look-ups of all shards.
 * Flow:       BORDER_APPEND → log_append … log_flush → io → log_completed → BORDER_APPENDED, in
 *             order of appends per shard
 * Owns:       a struct log per data directory, the line of outstanding answers, reads under way,
 *             checkpoint rounds
 * Invariants: a conversation is in one lane (lane_of) as long as the store lives; answers come in
 *             the order of appends, over all lanes, so that whoever waits for a lane's sync waits
 *             for those before it too; after the first refusal everything of an older epoch is
 *             refused
 * Failure:    a log FAILED or NO_SPACE: answers say so; gateway.log_state, the worst of all, tells
 *             everybody: the box is read-only, not a part of its conversations
 * Bounds:     outstanding answers and reads were all promised room by their askers */
#ifndef GATEWAY_FLOW_LANE_H
#define GATEWAY_FLOW_LANE_H

#include "gateway/flow/checkpoint.h"
#include "gateway/flow/lanes.h"
#include "gateway/flow/shard.h"

#define LANE_SHARD 0

/* lane_create: open and recover the logs: replays their tails into the catalog. Blocks. */
MUST_USE enum err lane_create(struct shard *shard, char *explanation, size_t explanation_size);
void lane_destroy(struct shard *shard);
void lane_abandon(struct shard *shard); /* tests: a crash */
/* lane_on_message: APPEND, READ, FIND. ERR_FULL: leave it in the ring. */
MUST_USE enum err lane_on_message(struct shard *shard, struct bytes message);
bool lane_owns(const struct shard *shard, const struct io_file_op *op);
void lane_on_file(struct shard *shard, struct io_file_op *op);
/* lane_turn: the commit phase: flush, answer what is durable, answer finished reads. */
void lane_turn(struct shard *shard);
/* lane_checkpointed: the catalog holds everything before the lanes' positions. */
void lane_checkpointed(struct shard *shard, const uint64_t positions[LANES_MAX]);
/* lane_idle: nothing is in flight. */
bool lane_idle(const struct shard *shard);
/* lane_jobs: worker jobs of the logs themselves: they may be under way when the shard ends. */
uint32_t lane_jobs(const struct shard *shard);

#endif
