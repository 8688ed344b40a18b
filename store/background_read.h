/* background_read.h: reading whole files of the log in the background, in portions: a move to the
 * cold directory, and scrubbing.
 * Flow:       lifecycle.c → move_step, scrub_step on a worker
 * Owns:       its descriptors and windows
 * Invariants: a moved archive has its name in the cold directory only when its copy was synced and
 *             every block of it was read back and checked
 * Failure:    move: ERR_IO, ERR_NO_SPACE, ERR_CORRUPT (a damaged archive stays where it is):
 *             nothing has changed; scrub: counts, and goes on
 * Bounds:     COPY_BYTES or a walk's window each */
#ifndef STORE_BACKGROUND_READ_H
#define STORE_BACKGROUND_READ_H

#include "store/archive.h"
#include "store/sidecar.h"

struct move;

/* move_create: `from` is an archive's path; it gets the same name in `directory`. No I/O yet. */
MUST_USE enum err move_create(struct move **move, const char *from, const char *directory,
                              const struct archive_header *name);
/* move_step: about budget bytes; *moved says how many. ERR_AGAIN: call again; OK: it has its name
 * there, durably, and `to` says where. */
MUST_USE enum err move_step(struct move *move, uint64_t budget, uint64_t *moved,
                            char to[STORE_PATH_BYTES]);
void move_destroy(struct move *move);

struct scrub;

/* scrub_create: of an archive or a sealed segment. No I/O yet. */
MUST_USE enum err scrub_create(struct scrub **scrub, const char *path, bool archived);
/* scrub_step: about budget bytes; *read says how many, *damaged counts what is found. ERR_AGAIN:
 * call again; OK: it is through. */
MUST_USE enum err scrub_step(struct scrub *scrub, uint64_t budget, uint64_t *read,
                             uint64_t *damaged);
void scrub_destroy(struct scrub *scrub);

#endif
