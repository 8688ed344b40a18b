/* archive_state.h: what an archive keeps of a conversation beside its records, so that the rows of
 * the catalog can be made again when records were merged, dropped or freed.
 * Flow:       merge.c gathers → archive_write.c, a state block behind each directory block →
 *             merge_cursor.c for the next merge; walk.c for the rebuild and the tools
 * Owns:       nothing: a state borrows the block's content
 * Invariants: marks are sorted by user, device, one per device; marked: delivered ≤ own
 * Failure:    ERR_CORRUPT
 * Bounds:     ARCHIVE_STATE_BYTES per conversation and ARCHIVE_MARK_BYTES per device that ever sent
 *             or acknowledged something here, in each archive that has something of it
 * Format:     byte by byte in archive.c */
#ifndef STORE_ARCHIVE_STATE_H
#define STORE_ARCHIVE_STATE_H

#include "store/log.h"

#define ARCHIVE_STATE_BYTES 48u
#define ARCHIVE_MARK_BYTES  80u

/* archive_mark: of one device. own and lead tell, of messages that may be gone, which the device
 * need not be sent because it sent them. */
struct archive_mark {
    struct user_id user;
    struct device_id device;
    struct realm_id realm;
    bool marked; /* there was a watermark: delivered, read, time_ms and own hold */
    uint64_t delivered;
    uint64_t read;
    uint64_t time_ms;
    uint64_t own;              /* delivered, or the last of its own messages that follow it */
    uint64_t lead;             /* first_seq … lead are all its own; 0: the first one is not */
    struct message_id highest; /* that it sent; 0: none */
};

struct archive_state {
    struct conversation_id conversation;
    uint64_t first_seq; /* as in the directory */
    uint64_t last_seq;
    uint64_t time_ms; /* of the newest number, gone or not; 0: not known */
    bool incomplete;  /* marks were lost to damage */
    uint32_t count;
    const uint8_t *marks; /* encoded */
};

void archive_state_encode(uint8_t out[ARCHIVE_STATE_BYTES], const struct archive_state *state);
void archive_mark_encode(uint8_t out[ARCHIVE_MARK_BYTES], const struct archive_mark *mark);
/* archive_state_next: take one state off a state block's content. ERR_NOT_FOUND at the end. */
MUST_USE enum err archive_state_next(struct archive_state *state, struct bytes *content);
void archive_state_mark(struct archive_mark *mark, const struct archive_state *state, uint32_t at);
static inline size_t archive_state_bytes(const struct archive_state *state)
{
    return ARCHIVE_STATE_BYTES + (size_t)state->count * ARCHIVE_MARK_BYTES;
}
/* archive_mark_record: the mark as the watermark record that it stands for, body in read. */
struct log_record archive_mark_record(const struct archive_mark *mark,
                                      struct conversation_id conversation, uint8_t read[8]);
int archive_mark_order(const struct archive_mark *mark, struct user_id user,
                       struct device_id device);

#endif
