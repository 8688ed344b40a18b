/* look.h: whether a conversation's own retention makes something due in one segment or archive:
 * the planner cannot know, since such rules come and change after a file was written.
 * Flow:       lifecycle.c (WORK_LOOK) → look_step on a DISK worker, in portions: retention.own
 *             (the conversations that have a rule) → the file: the oldest record of each
 * Owns:       its descriptors and buffers
 * Invariants: within a conversation records grow younger with their numbers, so that the oldest
 *             one that no rule protects tells for all, by its age also where it has expired and
 *             waits for the expiry delay: that may be longer
 * Failure:    ERR_IO, ERR_NO_MEMORY, ERR_CORRUPT: not known; an index of a segment that cannot be
 *             read counts as due, since merging makes it anew
 * Bounds:     per conversation that has a rule and is in the file: a page of its directory and a
 *             walk's window with its first record; memory: 16 B per such conversation of one part
 *             in 256 of all ids, a walk's window */
#ifndef STORE_LOOK_H
#define STORE_LOOK_H

#include "store/archive_walk.h"
#include "store/merge.h"

struct look;

struct look_result {
    bool any; /* some conversation has a rule of its own */
    bool due; /* and something of it is due here */
    uint64_t bytes_read;
};

/* look_create: no I/O yet. now_ms: what is due by this wall clock. input NULL: only whether there
 * are any rules. */
MUST_USE enum err look_create(struct look **look, const char *directory,
                              const struct merge_input *input, const struct retention *retention,
                              uint64_t now_ms);
/* look_step: about budget bytes read. ERR_AGAIN: call again; OK: the result holds. */
MUST_USE enum err look_step(struct look *look, uint64_t budget);
void look_destroy(struct look *look);
const struct look_result *look_result(const struct look *look);

#endif
