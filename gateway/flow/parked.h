/* parked.h: requests that wait on their conversation: for its state, for the first send of the same
 * id, for a look-up, or, in a store of several lanes, for room towards its lane.
 * Flow:       commit.c parks, wakes and runs them
 * Owns:       a copy of the border message; freed when it goes on
 * Invariants: those of a conversation are in the order of their arrival
 * Bounds:     limits.parked_requests per shard (with several lanes half of it, but for those that
 *             wait for state): over it the sender is told OVERLOADED with a retry time: those that
 *             are refused get one after the other, as fast as places have become free of late, or
 *             they would all come back at once, and all but the first be refused again */
#ifndef GATEWAY_FLOW_PARKED_H
#define GATEWAY_FLOW_PARKED_H

#include "gateway/flow/shard.h"

enum parked_state {
    PARKED_READY,   /* goes on with the next commit_flush */
    PARKED_WAITING, /* for an in-flight or looked-up send of the same id */
    PARKED_FINDING, /* the log is being asked */
    PARKED_FOUND,   /* the log has answered: found says what */
};

struct parked {
    struct parked *next;
    struct conversation *conversation;
    uint64_t since_ns;
    enum parked_state state;
    enum err found_err;
    uint32_t found_hash;
    uint16_t found_kind;
    bool found_gone; /* nothing is known of its payload */
    uint64_t found_size;
    uint64_t found_seq;
    uint64_t found_time_ms;
    size_t size;
    uint8_t message[] __attribute__((aligned(8))); /* border_send or border_watermark */
};

/* parked_several_lanes: what finds no room towards its lane waits here, not in its ring. */
bool parked_several_lanes(const struct shard *shard);
/* parked_add: a copy, behind all others of the conversation, which is awake. NULL: too many, or no
 * memory. */
struct parked *parked_add(struct shard *shard, struct conversation *conversation,
                          struct bytes message, enum parked_state state);
/* parked_retry_ms: counts a request that found no place, and says when one may be free for it. */
uint32_t parked_retry_ms(struct shard *shard, const struct conversation *conversation);
void parked_remove(struct shard *shard, struct parked *parked);
/* parked_retry: the conversation's requests are run again with the next commit_flush. */
void parked_retry(struct shard *shard, struct conversation *conversation);
/* parked_for_lane: what found no room towards its lane waits on its conversation, not in its ring,
 * where it would hold up what goes to other lanes. False: that is not possible. */
bool parked_for_lane(struct shard *shard, struct conversation *conversation, struct bytes message);
/* parked_wake: those that waited for something that has just been decided go on. */
void parked_wake(struct shard *shard, struct conversation *conversation);
/* parked_watermark: watermarks keep their order: behind one that waits for the lane all do. */
bool parked_watermark(const struct conversation *conversation);
/* parked_behind: a send that arrived before this one from the same device is still parked: this one
 * may be looked up, but not numbered or answered, so that a device's sends keep their order. self:
 * this one if it is parked itself. */
bool parked_behind(const struct conversation *conversation, const struct border_send *send,
                   const struct parked *self);
/* parked_being_found: a parked send of the same id is being looked up. */
bool parked_being_found(const struct conversation *conversation, const struct border_send *send,
                        const struct parked *self);

#endif
