/* replay.h: recovery's records merged in memory, per conversation, before rows are written: a
 * conversation's three rows are read once and written once, both in key order, however many of its
 * records the tail of the log holds.
 * Flow:       log_open → flow/replaying.c → replay_gather … replay_find → replay_take, or walk.h →
 *             flow/rebuild.c → replay_record …; then replay_flush → rows.c → catalog
 * Owns:       what is merged and not yet written. So that one thread may gather and find while
 *             another takes what was found before: a finder only knows where an entry is, what it
 *             says belongs to the replay; a group goes from one to the other
 * Invariants: the rows after replay_flush are those that writing after every record would have
 *             left; fields only grow (rows.h), so that a replay that is broken off is repeated
 * Failure:    ERR_UNSUPPORTED a record of a kind that this version does not know; ERR_CORRUPT,
 *             ERR_NO_MEMORY, the catalog's own: perhaps of an earlier record. Every error but those
 *             that a record itself is refused with is sticky: nothing of it all is written any more
 * Bounds:     REPLAY_BYTES_MAX, then replay_full or replay_finder_full; the rows of one group more
 *             at most (25 MiB of two devices); 72 bytes per conversation to sort all that; a group:
 *             8 MiB */
#ifndef GATEWAY_CHAT_REPLAY_H
#define GATEWAY_CHAT_REPLAY_H

#include "core/table.h"
#include "gateway/chat/rows.h"
#include "store/archive_state.h"

#define REPLAY_BYTES_MAX     (128u << 20) /* some 300,000 conversations of two devices */
#define REPLAY_GROUP_RECORDS 65536u       /* many, that rows read together stand close together */

struct replay_group; /* records that wait to be taken */
struct replay_entry;
struct replay_chunk;

/* replay_finder: which entry is a conversation's, of all that no flush has written. */
struct replay_finder {
    /* private */
    struct table entries;
    uint32_t count;
};

struct replay {
    /* private */
    struct replay_chunk *chunks; /* of entries, the newest first */
    uint32_t entry_count;
    size_t bytes;
    enum err failed;
    struct replay_finder finder; /* replay_record's and replay_state's, and their group */
    struct replay_group *group;
    struct conversation_row row; /* scratch of one conversation's rows */
    struct inbox_row inbox;
};

/* ---- the side that gathers */

MUST_USE enum err replay_group_create(struct replay_group **group);
void replay_group_destroy(struct replay_group *group);
/* replay_gather: a copy of the record, if it can be taken; the group must not be full. */
MUST_USE enum err replay_gather(struct replay_group *group, const struct log_record *record);
bool replay_group_full(const struct replay_group *group);
void replay_finder_init(struct replay_finder *finder);
/* replay_find: the entries of all that is gathered, those of new conversations made. After an error
 * the group can only be destroyed. */
MUST_USE enum err replay_find(struct replay_finder *finder, struct replay_group *group);
/* replay_finder_full: a flush should stand behind the group found last. */
bool replay_finder_full(const struct replay_finder *finder);
/* replay_finder_forget: behind the group found last there is a flush. It may be used again. */
void replay_finder_forget(struct replay_finder *finder);

/* ---- the side that takes */

MUST_USE enum err replay_create(struct replay **replay);
void replay_destroy(struct replay *replay);
/* replay_take: all that is in the group, in that order; it is empty then. Groups in the order in
 * which they were found. Reads rows, writes none. */
MUST_USE enum err replay_take(struct replay *replay, struct catalog_txn *txn,
                              struct replay_group *group);
/* replay_full: the same, where rows have more devices than a finder knows of. */
bool replay_full(const struct replay *replay);
/* replay_flush: write what is merged, in key order, and forget it. After an error nothing of it has
 * been written, or the transaction can only be aborted (catalog_put). */
MUST_USE enum err replay_flush(struct replay *replay, struct catalog_txn *txn);

/* ---- both in one */

/* replay_record: gathered, found and taken when it is time. */
MUST_USE enum err replay_record(struct replay *replay, struct catalog_txn *txn,
                                const struct log_record *record);
/* replay_state: an archive's, behind its records. */
MUST_USE enum err replay_state(struct replay *replay, struct catalog_txn *txn,
                               const struct archive_state *state);

#endif
