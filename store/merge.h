/* merge.h: neighbouring segments and archives into one archive; retention in the same pass.
 * Flow:       lifecycle.c plans → merge_create (shard) → merge_step … (worker, in portions) → the
 *             archive has its name → lifecycle.c swaps it in and removes the inputs
 * Owns:       its descriptors, the output until it has its name, watermarks gathered from segments
 * Invariants: a record that fails its checksum is not carried over: its number becomes a gone range
 *             of reason DAMAGED, counted; what is due goes, but while a send of it may be repeated
 *             (retention.repeats_ms) its id stays with its number (archive.h); within a
 *             conversation numbers ascend over the inputs; of what they had, dropped or not, the
 *             output has the state (archive_state.h)
 * Failure:    ERR_NO_SPACE, ERR_IO, ERR_NO_MEMORY: nothing has changed, the output is removed;
 *             ERR_CORRUPT: merge.bad_segment's index must be rebuilt first
 * Bounds:     MERGE_INPUTS_MAX; memory: a window per archive, a page per segment, 72 B per
 *             watermark of a segment, 80 B per device of one conversation, the writer's */
#ifndef STORE_MERGE_H
#define STORE_MERGE_H

#include "store/archive_write.h"
#include "store/retention.h"
#include "store/sidecar.h"

#define MERGE_INPUTS_MAX 64u

struct merge_input {
    uint32_t id; /* of a segment; of an archive: last */
    bool archived;
    bool freed; /* an archive without settings of which only the numbers are kept, by its directory
                 */
    char path[STORE_PATH_BYTES]; /* of an archive */
};

struct merge_options {
    const char *directory;         /* of the segments */
    char target[STORE_PATH_BYTES]; /* directory of the output */
    struct archive_header header;
    bool compress;
    uint64_t now_ms; /* what is due by this wall clock is dropped; 0: nothing */
    bool drop_all;   /* retention by bytes: everything is due but what is undelivered and young */
    struct retention retention;
};

struct merge;

/* merge_create: no I/O yet. inputs ascend and are neighbours. */
MUST_USE enum err merge_create(struct merge **merge, const struct merge_options *options,
                               const struct merge_input *inputs, uint32_t count);
/* merge_step: about budget bytes read and written. ERR_AGAIN: call again; OK: the archive has its
 * name, durably. */
MUST_USE enum err merge_step(struct merge *merge, uint64_t budget);
/* merge_destroy: an output that has no name yet is removed. */
void merge_destroy(struct merge *merge);

struct merge_result {
    uint64_t bytes_read;
    uint64_t bytes_written;
    uint64_t damaged; /* records */
    uint64_t expired; /* records dropped */
    uint64_t retained_away;
    uint64_t dropped_ms;  /* the newest of both is of this time, or older */
    uint32_t bad_segment; /* of a failure: the input that was being read; 0: none was */
    struct archive_footer footer;
};
const struct merge_result *merge_result(const struct merge *merge);
/* merge_path: where the archive stands. */
MUST_USE enum err merge_path(const struct merge *merge, char out[STORE_PATH_BYTES]);

#endif
