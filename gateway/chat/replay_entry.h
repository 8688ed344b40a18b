/* replay_entry.h: the inside of a replay, for replay*.c only: an entry is a conversation's row and
 * its two members' inbox rows, decoded as rows.c reads them. What a message changes stands in its
 * first three cache lines: two devices' senders and one device's cursor of each member among it.
 * Flow:       replay.c makes entries and takes records into them; replay_rows.c reads and writes
 *             their rows
 * Owns:       an entry its arrays, from the second or third element on */
#ifndef GATEWAY_CHAT_REPLAY_ENTRY_H
#define GATEWAY_CHAT_REPLAY_ENTRY_H

#include "gateway/chat/replay.h"

#define REPLAY_LINE_BYTES    64 /* of a cache */
#define REPLAY_CHUNK_ENTRIES 64 /* 20 KiB */

struct replay_cursors {
    struct inbox_cursor first;
    uint32_t count;
    uint32_t capacity; /* above 1: all stand in `more` of the member's inbox */
};

struct replay_inbox {
    uint64_t last_seq;
    uint64_t activity_ms;
    uint64_t read_seq;
    uint64_t peer_delivered;
    uint64_t peer_read;
    struct inbox_cursor *more;
};

struct replay_entry {
    struct conversation_id id;
    uint64_t last_seq;
    uint64_t last_time_ms;
    uint64_t seen_seq; /* highest number among the records: of both inboxes too */
    uint64_t seen_ms;
    struct keep *keep; /* NULL: nobody set any */
    uint32_t count;    /* senders */
    uint32_t capacity; /* above COUNT_OF(first): all stand in `more` */
    struct sender_row first[2];
    struct replay_cursors cursors[2];
    struct sender_row *more;
    /* from here on: what messages do not touch */
    _Alignas(REPLAY_LINE_BYTES) uint64_t delivered[2];
    uint64_t read[2];
    struct replay_inbox inboxes[2]; /* a talk with oneself uses the first */
};

struct replay_chunk {
    struct replay_chunk *next;
    uint32_t count;
    struct replay_entry entries[REPLAY_CHUNK_ENTRIES];
};

static inline void replay_raise(uint64_t *target, uint64_t value)
{
    if (value > *target)
        *target = value;
}

static inline uint64_t replay_user(struct conversation_id id, uint32_t member)
{
    return member == 0 ? id.hi : id.lo;
}

static inline uint32_t replay_members(struct conversation_id id)
{
    return id.hi == id.lo ? 1 : 2;
}

/* replay_approach: have memory fetched that will be written. */
static inline void replay_approach(const struct replay_entry *entry, size_t bytes)
{
    for (size_t at = 0; at < bytes; at += REPLAY_LINE_BYTES)
        __builtin_prefetch((const char *)entry + at, 1);
}

struct sender_row *replay_senders_of(struct replay_entry *entry);
/* replay_sender_of: the device's place, made if absent; *out NULL: the row has no more. */
MUST_USE enum err replay_sender_of(struct replay *replay, struct sender_row **out,
                                   struct replay_entry *entry, struct user_id user,
                                   struct device_id device);
struct inbox_cursor *replay_cursors_of(struct replay_entry *entry, uint32_t member);
/* replay_cursor_of: the same of a member's device. */
MUST_USE enum err replay_cursor_of(struct replay *replay, struct inbox_cursor **out,
                                   struct replay_entry *entry, uint32_t member,
                                   struct device_id device);
/* replay_keep_of: a place for the conversation's own retention. */
MUST_USE enum err replay_keep_of(struct replay *replay, struct replay_entry *entry);
void replay_entry_deinit(struct replay_entry *entry);

/* ---- replay_rows.c: in key order, all the conversations' rows, then the inboxes' */

/* replay_rows_load: of the count entries in the chunks that stand before `end`. */
MUST_USE enum err replay_rows_load(struct replay *replay, struct catalog_txn *txn,
                                   const struct replay_chunk *end, uint32_t count);
/* replay_rows_write: of all entries. */
MUST_USE enum err replay_rows_write(struct replay *replay, struct catalog_txn *txn);

#endif
