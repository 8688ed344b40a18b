/* counting.h: what a conversation had stored before it got a bound in bytes is counted, in the
 * background, one conversation of a shard and of a lane at a time.
 * Flow:       commit.c (an entry has set a bound), or at start a look at the catalog's
 *             CATALOG_RETENTION → counting_turn → BORDER_COUNT → lane_count.c reads back, page by
 *             page, until the bound is reached → BORDER_COUNTED → the conversation's keep
 * Owns:       a list of ids; no conversation is held by it
 * Invariants: what is not counted yet is marked in its row, so that a crash or a rebuild loses
 *             nothing: the next start counts it
 * Failure:    what cannot be read, loaded or noted now is tried again after COUNTING_RETRY_NS
 * Bounds:     16 B per conversation that waits; reading for it takes a quarter of a disk's time at
 *             most, with one read at a time (lane_count.c) */
#ifndef GATEWAY_FLOW_COUNTING_H
#define GATEWAY_FLOW_COUNTING_H

#include "core/bytes.h"
#include "gateway/chat/keep.h"
#include "store/ids.h"

#define COUNTING_RETRY_NS (1000ull * 1000 * 1000)

struct conversation;
struct shard;

struct counting {
    struct conversation_id *list; /* [at, count) wait; the first of them is under way */
    uint32_t at;
    uint32_t count;
    uint32_t capacity;
    bool looked;     /* at the catalog */
    bool missed;     /* for want of memory something that is uncounted is not on the list */
    bool asked;      /* the lane */
    bool waits;      /* for room towards it */
    bool loading;    /* the conversation's state */
    bool answered;   /* what the lane counted waits for that state: it may have been evicted */
    uint64_t due_ns; /* not before */
    struct keep_down down;
};

/* counting_note: the conversation has a bound and something that is not counted: it waits, unless
 * it does already. */
void counting_note(struct shard *shard, struct conversation *conversation,
                   struct conversation_id id);
/* counting_turn: once a turn: the next one, if none is under way. */
void counting_turn(struct shard *shard);
void counting_on_counted(struct shard *shard, struct bytes message);
void counting_deinit(struct shard *shard);

#endif
