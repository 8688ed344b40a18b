/* rows.h: the catalog's rows of conversations and inboxes, and the one way they change: merging by
 * maximum.
 * Flow:       checkpoint and recovery → rows_merge_* → catalog; session and conversation loading ←
 *             rows_read_*
 * Invariants: every field only grows (`keep` as a whole, by its entry's number, then by whether
 *             what was there before is counted, then by what is), so that merging is idempotent
 *             and order does not matter: a replay over a newer checkpoint changes nothing;
 *             CATALOG_PENDING has a row exactly where the inbox row has something undelivered,
 *             CATALOG_RETENTION where the conversation's keep has a setting
 * Failure:    ERR_CORRUPT a row that does not decode; the catalog's own
 * Format:     byte by byte in rows.c */
#ifndef GATEWAY_CHAT_ROWS_H
#define GATEWAY_CHAT_ROWS_H

#include "gateway/chat/keep.h"
#include "store/catalog.h"
#include "store/ids.h"
#include "store/log.h"

#define ROW_CURSORS_MAX     255 /* devices of one user */
#define ROW_SENDERS_MAX     510 /* devices of both members */
#define ROW_KEY_BYTES       24
#define ROW_RETENTION_BYTES (KEEP_BODY_BYTES + 1) /* value in CATALOG_RETENTION */

struct inbox_cursor {
    struct device_id device;
    uint64_t delivered;
};

/* inbox_row: one user's view of one conversation. */
struct inbox_row {
    uint64_t last_seq;
    uint64_t activity_ms; /* time of last_seq */
    uint64_t read_seq;
    uint64_t peer_delivered; /* the other member's watermarks, for the sender's ticks */
    uint64_t peer_read;
    uint32_t cursor_count;
    struct inbox_cursor cursors[ROW_CURSORS_MAX];
};

struct sender_row { /* the highest message id that a device has sent here */
    struct user_id user;
    struct device_id device;
    struct message_id highest;
};

struct conversation_row {
    uint64_t last_seq;
    uint64_t last_time_ms;
    uint64_t delivered[2]; /* of the members in the id's order */
    uint64_t read[2];
    struct keep keep; /* its own retention, as of last_seq */
    uint32_t sender_count;
    struct sender_row senders[ROW_SENDERS_MAX];
};

void row_key_inbox(uint8_t out[ROW_KEY_BYTES], struct user_id user,
                   struct conversation_id conversation);
/* row_key_conversation: the conversation of an inbox or pending key. */
struct conversation_id row_key_conversation(const uint8_t key[ROW_KEY_BYTES]);

/* rows_read_*: ERR_NOT_FOUND leaves an all-zero row. */
MUST_USE enum err rows_read_inbox(struct catalog_txn *txn, struct user_id user,
                                  struct conversation_id conversation, struct inbox_row *row);
MUST_USE enum err rows_read_conversation(struct catalog_txn *txn,
                                         struct conversation_id conversation,
                                         struct conversation_row *row);
/* rows_merge_*: raise the stored row to at least `row`. */
MUST_USE enum err rows_merge_inbox(struct catalog_txn *txn, struct user_id user,
                                   struct conversation_id conversation,
                                   const struct inbox_row *row);
MUST_USE enum err rows_merge_conversation(struct catalog_txn *txn,
                                          struct conversation_id conversation,
                                          const struct conversation_row *row);
/* rows_put_*: the row as it is, which must be the stored one, raised (recovery's, replay.c). */
MUST_USE enum err rows_put_inbox(struct catalog_txn *txn, struct user_id user,
                                 struct conversation_id conversation, const struct inbox_row *row);
MUST_USE enum err rows_put_conversation(struct catalog_txn *txn,
                                        struct conversation_id conversation,
                                        const struct conversation_row *row);

/* rows_batch_*: many rows gathered as bytes on a shard, merged on the catalog's writer. ERR_FULL:
 * begin another batch. rows_batch_merge: what fails on a damaged row or without memory has written
 * nothing. */
MUST_USE enum err rows_batch_inbox(struct buffer *batch, struct user_id user,
                                   struct conversation_id conversation,
                                   const struct inbox_row *row);
MUST_USE enum err rows_batch_conversation(struct buffer *batch, struct conversation_id conversation,
                                          const struct conversation_row *row);
MUST_USE enum err rows_batch_merge(struct catalog_txn *txn, struct bytes batch);
#define ROWS_BATCH_ITEM_MAX 16384 /* bytes of one row in a batch, at most */

/* row_retention_uncounted: of a value in CATALOG_RETENTION: keep.uncounted. */
bool row_retention_uncounted(struct bytes value);
/* inbox_row_cursor: the device's cursor, made (delivered 0) if absent; NULL: ROW_CURSORS_MAX
 * reached. */
struct inbox_cursor *inbox_row_cursor(struct inbox_row *row, struct device_id device);
/* inbox_row_pending: some device has not acknowledged everything. */
bool inbox_row_pending(const struct inbox_row *row);
struct sender_row *conversation_row_sender(struct conversation_row *row, struct user_id user,
                                           struct device_id device);
static inline int message_id_compare(struct message_id a, struct message_id b)
{
    return memcmp(a.v, b.v, sizeof a.v);
}

#endif
