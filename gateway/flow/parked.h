/* parked.h: requests that wait on their conversation: for its state, for the first send of the same
 * id, for a look-up, or, in a store of several lanes, for room towards its lane.
 * Owns:       a copy of the border message; freed when it goes on
 * Bounds:     limits.parked_requests per shard (with several lanes half of it, but for those that
 *             wait for state): over it the sender is told OVERLOADED with a retry time */
#ifndef GATEWAY_FLOW_PARKED_H
#define GATEWAY_FLOW_PARKED_H

#include "gateway/flow/border.h"

enum parked_state {
    PARKED_READY,   /* goes on with the next commit_run */
    PARKED_WAITING, /* for an in-flight or looked-up send of the same id */
    PARKED_FINDING, /* the log is being asked */
    PARKED_FOUND,   /* the log has answered: found says what */
};

struct parked {
    struct parked *next;
    struct conversation *conversation;
    enum parked_state state;
    enum err found_err;
    uint32_t found_hash;
    uint16_t found_kind;
    uint64_t found_size;
    uint64_t found_seq;
    uint64_t found_time_ms;
    size_t size;
    uint8_t message[] __attribute__((aligned(8))); /* border_send or border_watermark */
};

#endif
