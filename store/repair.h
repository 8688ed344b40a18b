/* repair.h: `roost log repair`: what is damaged below the mark is copied away, and records that say
 * so take its place, so that the log serves the rest and names what is missing.
 * Flow:       walk.h → here → quarantine.c (the damaged bytes and what is known of them) → segment,
 *             or, repair_archive.c, the archive written anew
 * Owns:       the lane's lock while it works: ERR_BUSY while a gateway runs
 * Invariants: no byte of the log is overwritten before its copy and its description are synced;
 *             every valid record stays where it is; the running number of records and the chain of
 *             batch ends are whole afterwards, so that a second run finds nothing; what is at or
 *             above the mark is a tail and left to the next start
 * Failure:    ERR_IO, ERR_NO_SPACE: stops; what was repaired so far is; run it again
 * Bounds:     memory of one damaged range, one segment at most; of an archive 32 B a conversation,
 *             space for another archive
 */
#ifndef STORE_REPAIR_H
#define STORE_REPAIR_H

#include "store/inspect.h"

struct repair_report {
    uint64_t ranges;     /* damaged ranges that were found */
    uint64_t repaired;   /* of those, made good: the rest was told with the reason */
    uint64_t lost;       /* records that are gone */
    uint64_t lost_known; /* of those, with known conversation and number */
};

/* log_repair: lines tell each range. cold: where old archives were moved to, or NULL. now_ms names
 * the files in quarantine. */
MUST_USE enum err log_repair(const char *directory, const char *cold, const char *quarantine,
                             uint64_t now_ms, const struct inspect_output *out,
                             struct repair_report *report);

/* ---- repair_archive.c */

struct repair_target {
    char path[STORE_PATH_BYTES]; /* of an archive */
    const char *directory;       /* where it stands */
    const char *quarantine;
    uint64_t now_ms;
    const struct inspect_output *out;
    struct repair_report *report;
};
/* repair_archive: where anything in it is damaged. What it cannot mend it tells. */
MUST_USE enum err repair_archive(const struct repair_target *target);

/* ---- quarantine.c */

/* lost_record: one that a sealed segment's index still names, or numbers that are missed in an
 * archive. */
struct lost_record {
    struct conversation_id conversation;
    uint64_t seq;
    uint64_t last;   /* seq, in a segment */
    uint32_t offset; /* in a segment */
    uint32_t size;
};

struct quarantine_entry {
    const char *archive; /* its name, or NULL: a segment */
    uint32_t segment;
    uint64_t from; /* offsets in the file */
    uint64_t to;
    const char *what;
    uint64_t lost; /* records */
    bool counted;  /* lost is exact */
    const struct lost_record *known;
    uint32_t known_count;
    uint64_t now_ms;
};

/* quarantine_put: DIR/<segment or archive>-<from>-<to>-<ms>.bytes and .json, both synced. What the
 * device cannot read is zeros in the copy, which the description counts. ERR_EXISTS: the same was
 * put there in this millisecond. */
MUST_USE enum err quarantine_put(const char *directory, int fd,
                                 const struct quarantine_entry *entry);

#endif
