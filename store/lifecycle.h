/* lifecycle.h: what lifecycle.c and lifecycle_plan.c share; nobody else includes it.
 * Flow:       lifecycle_plan: what is due → lifecycle.c: a job on a worker, in portions → swapped
 *             in on the shard
 * Bounds:     one job at a time on a worker; one more waits while segments are sorted */
#ifndef STORE_LIFECYCLE_H
#define STORE_LIFECYCLE_H

#include "store/log_private.h"

enum lifecycle_kind {
    LIFECYCLE_MERGE, /* entries lo … hi into one archive; of one: it is written anew */
    LIFECYCLE_MOVE,  /* entry lo to the cold directory */
    LIFECYCLE_LOAD,  /* entry lo: when its records expire is not known */
    LIFECYCLE_ROLL,  /* the active segment has what is due or may be: begin another */
    LIFECYCLE_LOOK,  /* entry lo: whether own rules make something due is not known; the active
                        one: whether there are any */
};

struct lifecycle_plan {
    enum lifecycle_kind kind;
    uint32_t lo; /* indices of the lane's segments */
    uint32_t hi;
    bool drop_all;
    bool free; /* MERGE: everything in them is due, the names too: only the numbers are kept */
};

/* lifecycle_plan: false: nothing is due. now_ms: wall clock for purging, 0: none. */
bool lifecycle_plan(const struct log *log, struct lifecycle_plan *plan, uint64_t now_ms);
/* lifecycle_plan_sort: segments that are due to become an archive of level 1; false: none. */
bool lifecycle_plan_sort(const struct log *log, struct lifecycle_plan *plan);
/* lifecycle_scrub_turn: begin or go on with scrubbing, beside everything else; scrub_turn.c. */
void lifecycle_scrub_turn(struct log *log);
void lifecycle_scrub_close(struct log *log);
/* lifecycle_bytes: of all files of the log. */
uint64_t lifecycle_bytes(const struct log *log);
/* lifecycle_named: messages that were removed and whose ids are kept. */
uint64_t lifecycle_named(const struct log *log);
/* lifecycle_waiting: sealed segments that are not merged yet. */
uint32_t lifecycle_waiting(const struct log *log);
/* lifecycle_purge_ms: the wall clock if it may be trusted to purge by, else 0 (DESIGN: it must
 * agree within an hour with the newest batch and the time since, or the operator confirms it). */
uint64_t lifecycle_purge_ms(struct log *log);

#endif
