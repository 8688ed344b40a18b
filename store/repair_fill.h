/* repair_fill.h: fills the damaged stretches of a segment's bytes with records that say so; bytes
 * in memory, no I/O. First a plan says whether the records fit, then the filling writes them.
 * Flow:       repair.c (a damaged batch, a hole between batches) → here → repair.c writes it
 * Owns:       nothing
 * Invariants: sound records stay where they are; after a plan that fits and its filling, extra is
 *             0 and nothing was impossible, or repair.c leaves all as it is
 * Failure:    false: they do not fit */
#ifndef STORE_REPAIR_FILL_H
#define STORE_REPAIR_FILL_H

#include "store/repair.h"
#include "store/scan.h"

/* fill: a batch in which some stretches hold nothing valid. */
struct fill {
    uint8_t *data;  /* the batch */
    uint8_t *zeros; /* as long */
    uint32_t start; /* the batch's offset in the segment */
    const struct segment_key *key;
    const struct lost_record *known;
    uint32_t known_count;
    uint64_t extra;  /* records beyond one per unknown piece that must find room */
    uint64_t pieces; /* known ones and unknown pieces so far */
    bool write;      /* else only count */
    bool impossible; /* a piece is too small for a record */
};

/* hole: a stretch [from, to) of a segment without a valid batch header. */
struct hole {
    struct segment_header segment;
    uint32_t from;
    uint32_t to;
    uint64_t records;
    bool counted; /* the batch before and the one behind tell how many */
};

/* fill_gaps: all of the batch's. */
void fill_gaps(struct fill *f, const struct scan_item *item);
/* fill_plan_gaps: whether `lost` records can stand in the gaps: with those that the index knows,
 * or, where these do not fit the count, without. */
MUST_USE bool fill_plan_gaps(struct fill *f, const struct scan_item *item, uint64_t lost);
/* fill_hole: all its batches; where blocks are left over, empty ones. data: what stands there now.
 */
void fill_hole(struct fill *f, struct bytes data, struct batch_header header);
/* fill_plan_hole: how many records the hole gets: `records` where the chain counts them. */
MUST_USE bool fill_plan_hole(struct fill *f, struct bytes data, struct hole *hole,
                             const struct batch_header *next);

#endif
