/* snapshot.h: a copy of a lane's files that is a log of its own, made while the lane goes on.
 * Flow:       flow/snapshot.c (catalog first) → log_snapshot → directory of links and copies
 * Owns:       nothing beyond the call; takes no lock and changes no file of the lane
 * Invariants: everything that was durable when the call began is in it; the batches of the copy are
 *             a gap-free beginning of the lane's
 * Failure:    ERR_EXISTS the target is there; ERR_NO_SPACE, ERR_IO: it is incomplete, remove it;
 *             ERR_AGAIN the lane's files changed faster than they could be listed
 * Bounds:     copies two segments at most, links the rest; where links are not possible, copies
 *             all */
#ifndef STORE_SNAPSHOT_H
#define STORE_SNAPSHOT_H

#include "store/walk.h"

struct log_snapshot_report {
    uint64_t mark; /* everything below was durable and is linked or copied as it stands */
    uint64_t end;  /* of the newest batch in the copy */
    uint64_t linked;
    uint64_t copied;
    uint64_t copied_bytes;
    uint32_t uncovered; /* a segment that is in no file of the copy; 0: none */
    uint64_t damaged;   /* ranges below the mark that were damaged already */
};

/* log_snapshot: target must not exist; its parent must. cold: where old archives are
 * (store.cold_directory), or NULL; they come into target, too. ERR_NOT_FOUND: report->uncovered. */
MUST_USE enum err log_snapshot(const char *directory, const char *cold, const char *target,
                               struct log_snapshot_report *report);

/* file_copy: the first `bytes` of source (UINT64_MAX: all) to a new file, zeros up to source's
 * size, synced; *crc (may be NULL) is CRC-32C of the copy. ERR_EXISTS. */
MUST_USE enum err file_copy(const char *source, const char *target, uint64_t bytes, uint32_t *crc);

#endif
