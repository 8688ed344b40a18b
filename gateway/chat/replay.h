/* replay.h: recovery's records merged in memory, per conversation, before rows are written: a
 * conversation's three rows are read once and written once, however many of its records the tail
 * of the log holds.
 * Flow:       log_open → flow/lane_open.c, or walk.h → flow/rebuild.c → replay_record …
 *             replay_flush → rows.c → catalog
 * Owns:       what is merged and not yet written
 * Invariants: the rows after replay_flush are those that writing after every record would have
 *             left; fields only grow (rows.h), so that a replay that is broken off is repeated
 * Failure:    ERR_UNSUPPORTED a record of a kind that this version does not know; ERR_CORRUPT,
 *             ERR_NO_MEMORY: the record changed nothing; the catalog's own
 * Bounds:     REPLAY_BYTES_MAX, then replay_full; one conversation's rows more at most */
#ifndef GATEWAY_CHAT_REPLAY_H
#define GATEWAY_CHAT_REPLAY_H

#include "core/table.h"
#include "gateway/chat/rows.h"
#include "store/archive_state.h"

#define REPLAY_BYTES_MAX (128u << 20) /* some 300,000 conversations of two devices */

struct replay {
    /* private */
    struct table entries; /* by conversation */
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
