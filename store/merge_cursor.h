/* merge_cursor.h: one input of a merge, a segment or an archive, in order of conversations.
 * Flow:       merge.c: cursor_open → cursor_scan (segments) → cursor_next per record
 * Owns:       its descriptors and buffers; blocking, on a worker
 * Invariants: every record is checked; what fails is handed out as a lost range of numbers
 * Failure:    ERR_CORRUPT: the index of the input is damaged; ERR_IO: the device does not read it,
 *             which may pass, and nothing is given up for it; ERR_NO_MEMORY
 * Bounds:     a page of index, its states, one record or one data block, a walk's window */
#ifndef STORE_MERGE_CURSOR_H
#define STORE_MERGE_CURSOR_H

#include "store/archive_state.h"
#include "store/archive_walk.h"
#include "store/merge.h"

struct cursor_item {
    struct log_record record; /* body valid until the next call */
    bool lost;                /* instead of a record: from … to failed their checksums */
    uint64_t from;
    uint64_t to;
};

struct cursor {
    bool opened; /* cursor_open was called: cursor_close must be */
    bool archived;
    bool freed; /* of an archive: per conversation one gone range, its records are not read */
    bool ended;
    struct conversation_id conversation; /* at hand, unless ended */
    uint64_t bytes_read;
    struct archive_state state; /* of an archive, of the conversation at hand */
    /* private */
    bool held; /* item was looked at, but not taken */
    struct cursor_item item;
    /* a segment */
    int fd;
    struct scan scan;
    bool scanning;
    struct sidecar *sidecar;
    struct sidecar_entry entries[SIDECAR_BLOCK_ENTRIES];
    uint32_t entry_block; /* of what comes next */
    uint32_t entry_count;
    uint32_t entry_at;
    struct buffer record;
    /* an archive */
    struct archive *archive;
    struct archive_walk walk;
    uint8_t *page;                 /* a directory block */
    uint8_t gone[GONE_BODY_BYTES]; /* freed: the item's body */
    uint32_t page_number;
    uint32_t page_count;
    uint32_t page_at;
    uint8_t *page_states; /* of the page's entries */
    uint32_t page_states_capacity;
    struct bytes states; /* what is left of them */
    struct archive_entry entry;
    uint64_t seq_last; /* of the conversation, handed out */
    uint32_t block;    /* number of the data block that `records` is left of */
    bool block_loaded;
    uint32_t block_wanted;
    struct bytes records;
};

MUST_USE enum err cursor_open(struct cursor *cursor, const char *directory,
                              const struct merge_input *input);
void cursor_close(struct cursor *cursor);
/* cursor_scan: walk a segment's next batch: every watermark of it is called back. ERR_NOT_FOUND:
 * it is through (an archive is at once). */
MUST_USE enum err cursor_scan(struct cursor *cursor,
                              enum err (*watermark)(void *context, const struct log_record *record),
                              void *context);
/* cursor_start: after the scan: to the first conversation. */
MUST_USE enum err cursor_start(struct cursor *cursor);
/* cursor_peek: the next item of the conversation at hand, which cursor_next then takes.
 * ERR_NOT_FOUND: no more: cursor_pass goes to the next conversation. */
MUST_USE enum err cursor_peek(struct cursor *cursor, const struct cursor_item **item);
void cursor_next(struct cursor *cursor);
MUST_USE enum err cursor_pass(struct cursor *cursor);
uint64_t cursor_conversations(const struct cursor *cursor);

#endif
