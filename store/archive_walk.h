/* archive_walk.h: walks an archive's blocks from beginning to end, past damage.
 * Flow:       file → here → merge.c, verify.c, recovery.c
 * Owns:       a read window and a buffer for decompressed records; blocking, never on a shard's
 *             turn
 * Invariants: what it hands out has a valid checksum, or is said to be damaged; items are in offset
 *             order and cover the file from where the walk began to the footer
 * Failure:    what cannot be read is damage; ERR_NO_MEMORY
 * Bounds:     window: WALK_WINDOW_BYTES or the largest block */
#ifndef STORE_ARCHIVE_WALK_H
#define STORE_ARCHIVE_WALK_H

#include "store/archive.h"

#define WALK_WINDOW_BYTES (128u << 10)

enum walk_kind {
    WALK_BLOCK,   /* block, content */
    WALK_LOST,    /* block: its head is valid, its content is not */
    WALK_DAMAGED, /* from … to: no valid head */
    WALK_END,
};

struct walk_item {
    enum walk_kind kind;
    uint64_t from;
    uint64_t to;
    bool dirty; /* BLOCK: the padding is not zero */
    struct archive_block block;
    struct bytes content; /* as stored; valid until the next call */
};

struct archive_walk {
    uint64_t offset;     /* of the next item */
    uint64_t bytes_read; /* so far, for those who count */
    bool unreadable;     /* the device has refused to read some of it: not damage for certain */
    /* private */
    int fd;
    struct segment_key key;
    uint64_t end;
    uint8_t *window;
    size_t capacity;
    uint64_t start;
    size_t size;
    struct buffer raw;
};

/* archive_walk_init: from offset (ARCHIVE_HEADER_BYTES: from the beginning) of the file behind fd,
 * which stays the caller's and has `bytes` bytes. */
void archive_walk_init(struct archive_walk *walk, int fd, const struct segment_key *key,
                       uint64_t offset, uint64_t bytes);
void archive_walk_deinit(struct archive_walk *walk);
MUST_USE enum err archive_walk_next(struct archive_walk *walk, struct walk_item *item);
/* archive_walk_records: a data block's records; valid until the next call for another block. */
MUST_USE enum err archive_walk_records(struct archive_walk *walk, const struct walk_item *item,
                                       struct bytes *records);

#endif
