/* walk.h: all of a lane's log from its files alone, for tools: what verifies, prints, repairs,
 * copies or rebuilds begins here.
 * Flow:       directory → walk_open (ids, mark) → walk_segment_open + scan_next, or walk_records →
 *             verify.c, inspect.c, repair.c, repair_archive.c, snapshot.c, rebuild
 * Owns:       the list of ids; takes no lock and writes nothing
 * Invariants: segments come in ascending order; what is below the mark was durable when the walk
 *             was opened, so anything wrong there is damage and not a tail; on a lane in use a
 *             batch that is being written shows as a torn tail
 * Failure:    ERR_NOT_FOUND no such directory; ERR_NEWER a segment of a later version;
 *             ERR_NO_MEMORY and what the device answers
 * Bounds:     4 B per segment, 48 B per archive, one scan window */
#ifndef STORE_WALK_H
#define STORE_WALK_H

#include "store/archive.h"
#include "store/archive_state.h"
#include "store/sidecar.h"

struct walk_archive {
    struct archive_header name; /* first, last and generation only */
    const char *directory;
};

struct walk {
    const char *directory;         /* borrowed */
    struct walk_archive *archives; /* by first id; without those that another one covers */
    uint32_t archive_count;
    uint32_t *ids;
    uint32_t count;
    uint64_t mark; /* the highest durable_before of any valid batch header; 0: there is none */
    /* private */
    uint32_t capacity;
    uint32_t archive_capacity;
    const char *listing; /* while its files are listed */
};

/* walk_open: cold: where old archives were moved to (store.cold_directory), or NULL. */
MUST_USE enum err walk_open(struct walk *walk, const char *directory, const char *cold);
void walk_close(struct walk *walk);

MUST_USE enum err walk_archive_path(const struct walk_archive *archive, char out[STORE_PATH_BYTES]);
/* walk_segment_open: scan of the at-th segment; scan_close and file_close are the caller's.
 * ERR_CORRUPT or ERR_IO: neither copy of its header can be read; nothing is open then. */
MUST_USE enum err walk_segment_open(const struct walk *walk, uint32_t at, int *fd,
                                    struct scan *scan);

/* walk_visitor: what walk_records hands out; each may be NULL. What a function returns other than
 * OK ends the walk and is handed on. */
struct walk_visitor {
    void *context;
    uint32_t segment; /* only this one; 0: all */
    /* lost: a segment without a readable header. */
    enum err (*lost)(void *context, uint32_t id, enum err err);
    enum err (*item)(void *context, const struct scan *scan, const struct scan_item *item);
    enum err (*record)(void *context, const struct scan_item *batch, const struct batch_walk *at);
    /* archived: comes before the segments' records, by conversation. */
    enum err (*archived)(void *context, const struct archive_header *archive,
                         const struct log_record *record);
    /* state: some way behind the records of its conversation. Without it `archived` is given the
     * watermarks that the state stands for. */
    enum err (*state)(void *context, const struct archive_header *archive,
                      const struct archive_state *state);
};
MUST_USE enum err walk_records(const struct walk *walk, const struct walk_visitor *visitor);

/* walk_index_check: whether the segment's index, where there is one, is byte for byte what its
 * records give; mend: write it again where it is not. Rewinds scan. */
MUST_USE enum err walk_index_check(const struct walk *walk, struct scan *scan, bool mend,
                                   bool *sound);

/* walk_covered: an archive stands for that segment. */
bool walk_covered(const struct walk *walk, uint32_t id);
/* walk_apart: the segment before the at-th one was merged: the chain of batches begins anew. */
bool walk_apart(const struct walk *walk, uint32_t at);

/* walk_damaged: item is not as it was written and should be: what is above the mark is a tail. */
bool walk_damaged(const struct walk *walk, const struct scan *scan, const struct scan_item *item);

#endif
