/* scan.h: walks the batches of one segment file, past damage; recovery, verification and the
 * rebuilding of a segment's index use it.
 * Flow:       file → here → recovery.c, verify.c, sidecar.c
 * Owns:       a read window; blocking, never on a shard's turn
 * Invariants: what it hands out has a valid header checksum; items are in offset order and together
 *             cover the file from where the scan began
 * Failure:    unreadable blocks are damage, marked as such; ERR_NO_MEMORY
 * Bounds:     window: the largest batch of the segment, at least SCAN_WINDOW_BYTES */
#ifndef STORE_SCAN_H
#define STORE_SCAN_H

#include "store/segment.h"

#define SCAN_WINDOW_BYTES (1u << 20)
#define SCAN_AHEAD_BYTES  (8u << 20) /* asked of the disk before they are needed */

struct scan {
    struct segment_header header;
    struct segment_key key;
    bool copy_damaged; /* one of the two header copies is not valid */
    /* private */
    int fd;
    uint32_t offset;
    uint8_t *window;
    size_t window_capacity;
    uint64_t window_start;
    size_t window_size;
    uint64_t ahead;           /* asked for up to here */
    uint64_t unreadable_from; /* what could not be read lies in this part of the window */
    uint64_t unreadable_to;
};

enum scan_kind {
    SCAN_BATCH,  /* header, data (whole batch without padding, valid until the next call) */
    SCAN_DAMAGE, /* from … to: no valid batch header, but one follows */
    SCAN_END,    /* from … end of the file: no valid batch header any more */
};

struct scan_item {
    enum scan_kind kind;
    uint32_t from;
    uint32_t to;     /* BATCH: its end with padding */
    bool unreadable; /* DAMAGE, END: the device refused to read some of it */
    bool dirty;      /* END: not all zeros. BATCH: the padding is not */
    struct batch_header header;
    struct bytes data;
};

/* scan_open: reads the segment's header. ERR_CORRUPT: neither copy is valid; ERR_NEWER; ERR_IO. The
 * descriptor stays the caller's, and open until scan_close. */
MUST_USE enum err scan_open(struct scan *scan, int fd);
void scan_close(struct scan *scan);
/* scan_rewind: begin again with the first batch. */
void scan_rewind(struct scan *scan);
MUST_USE enum err scan_next(struct scan *scan, struct scan_item *item);

/* batch_walk: takes the batch's records off one by one; skips what is damaged. */
struct batch_walk {
    struct log_record record;
    uint32_t offset; /* of the record in its segment */
    uint32_t size;
    uint32_t valid; /* records handed out so far */
    /* private */
    const struct segment_key *key;
    struct bytes data;
    uint64_t wasted; /* bytes checksummed in vain */
    uint32_t start;
    uint32_t at;
};
void batch_walk_init(struct batch_walk *walk, const struct segment_key *key,
                     const struct scan_item *item);
bool batch_walk_next(struct batch_walk *walk);
/* batch_sound: every record of the batch is valid and none is missing. */
bool batch_sound(const struct segment_key *key, const struct scan_item *item);

bool bytes_zero(const uint8_t *data, size_t size);

#endif
