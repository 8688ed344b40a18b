/* checkpoint.h: now and then everything dirty goes to the catalog, and then the log's tail before
 * it needs no replay.
 * Flow:       shard 0: gateway.checkpoint_round → each lane: its position P = durable →
 *             BORDER_CHECKPOINT to every shard, behind the answers to all appends before P → shard:
 *             once every lane has said so, rows of what is dirty, in write jobs →
 *             BORDER_CHECKPOINTED → shard 0: all P into the catalog, in one transaction →
 *             lane_status.checkpointed → log_checkpointed
 * Owns:       rounds (one at a time), jobs, the standing promise for the round's message,
 *             revocations that wait for room
 * Invariants: when a lane's P is written, every row that a record below it changes is in the
 *             catalog: conversations know of a record before the lane's message reaches them (same
 *             ring, in order), and write their members' inbox rows themselves
 * Failure:    ERR_NO_SPACE (the catalog's map or the disk is full): the round is given up, its rows
 *             are kept and go first in the next one, CHECKPOINT_RETRY_NS later; nothing is evicted
 *             meanwhile. What else fails is sticky: P never moves again in this process; a restart
 *             replays from the old P
 * Bounds:     CHECKPOINT_ROWS rows per job */
#ifndef GATEWAY_FLOW_CHECKPOINT_H
#define GATEWAY_FLOW_CHECKPOINT_H

#include "gateway/flow/shard.h"

/* checkpoint_meta: of the whole store: from where a start replays each lane's log. */
struct checkpoint_meta {
    uint64_t positions[LANES_MAX];
    uint64_t writer_epoch;
    uint32_t lanes; /* 0: there is no store yet */
};

#define CHECKPOINT_RETRY_NS NS_PER_S /* after a round that found no space, at least */

/* checkpoint_health: as the metric roost_checkpoint_state says it. */
enum checkpoint_health { CHECKPOINT_WORKING, CHECKPOINT_NO_SPACE, CHECKPOINT_FAILED };

enum checkpoint_state { CHECKPOINT_RESTING, CHECKPOINT_FLUSHING, CHECKPOINT_WRITING };

struct checkpointer { /* on shard 0 */
    enum checkpoint_state state;
    uint64_t round;
    uint64_t positions[LANES_MAX]; /* as the lanes told of the round */
    uint64_t due_ns;
    uint32_t reported; /* shards that have flushed */
    enum checkpoint_health health;
    bool no_space;   /* in this round */
    bool asked_last; /* the one before the end was begun */
    bool done_last;
};

struct revocation {
    struct revocation *next;
    struct user_id user;
    struct device_id device;
    uint64_t generation;
};

MUST_USE enum err checkpoint_read_meta(struct catalog *catalog, struct checkpoint_meta *meta);
MUST_USE enum err checkpoint_write_meta(struct catalog *catalog,
                                        const struct checkpoint_meta *meta);

/* checkpoint_write_position: of one lane alone; there is a store. */
MUST_USE enum err checkpoint_write_position(struct catalog *catalog, uint32_t lane,
                                            uint64_t position);

void checkpointer_turn(struct shard *shard, struct checkpointer *checkpointer);
void checkpointer_on_flushed(struct shard *shard, struct bytes message);
/* checkpointer_finished: the last round after the end of service is written (or cannot be). */
bool checkpointer_finished(const struct checkpointer *checkpointer);
struct checkpointer *lane_checkpointer(struct shard *shard);

/* On every shard. */
void checkpoint_on_message(struct shard *shard, struct bytes message);
void checkpoint_turn(struct shard *shard);
void checkpoint_deinit(struct shard *shard); /* the jobs that wait for space */

/* revocation_add: told to the user's shard when there is room; never dropped. */
void revocation_add(struct shard *shard, struct user_id user, struct device_id device,
                    uint64_t generation);
void revocation_flush(struct shard *shard);

#endif
