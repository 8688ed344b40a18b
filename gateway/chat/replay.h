/* replay.h: recovery's records merged in memory, per conversation, before rows are written: a
 * conversation's three rows are read once and written once, both in key order, however many of its
 * records the tail of the log holds.
 * Flow:       log_open → flow/lane_open.c, or walk.h → flow/rebuild.c → replay_record …
 *             replay_flush → rows.c → catalog
 * Owns:       what is merged and not yet written
 * Invariants: the rows after replay_flush are those that writing after every record would have
 *             left; fields only grow (rows.h), so that a replay that is broken off is repeated
 * Failure:    ERR_UNSUPPORTED a record of a kind that this version does not know; ERR_CORRUPT,
 *             ERR_NO_MEMORY, the catalog's own: perhaps of an earlier record. Every error but those
 *             that a record itself is refused with is sticky: nothing of it all is written any more
 * Bounds:     REPLAY_BYTES_MAX, then replay_full; the rows of 16,384 records more at most, and
 *             4 MiB to gather and sort these */
#ifndef GATEWAY_CHAT_REPLAY_H
#define GATEWAY_CHAT_REPLAY_H

#include "core/table.h"
#include "gateway/chat/rows.h"
#include "store/archive_state.h"

#define REPLAY_BYTES_MAX (128u << 20) /* some 300,000 conversations of two devices */

struct gathered;
struct replay_entry;

struct replay {
    /* private */
    struct gathered *gathered; /* records that are not taken yet */
    uint32_t count;
    enum err failed;
    struct table entries; /* by conversation */
    struct replay_entry **chunks;
    uint32_t chunk_count;
    uint32_t chunk_capacity;
    uint32_t entry_count;
    size_t bytes;
    struct conversation_row row; /* scratch of one conversation's rows */
    struct inbox_row inbox;
};

MUST_USE enum err replay_create(struct replay **replay);
void replay_destroy(struct replay *replay);
MUST_USE enum err replay_record(struct replay *replay, struct catalog_txn *txn,
                                const struct log_record *record);
/* replay_state: an archive's, behind its records. */
MUST_USE enum err replay_state(struct replay *replay, struct catalog_txn *txn,
                               const struct archive_state *state);
/* replay_full: flush before the next record. */
bool replay_full(const struct replay *replay);
/* replay_flush: write what is merged, in key order, and forget it. After an error the transaction
 * can only be aborted. */
MUST_USE enum err replay_flush(struct replay *replay, struct catalog_txn *txn);

#endif
