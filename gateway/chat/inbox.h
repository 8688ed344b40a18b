/* inbox.h: one user on the home shard: devices, sessions, and per conversation the watermarks from
 * which everything pending follows.
 * Flow:       flow/home.c tells what moved; flow/session.c reads what is pending;
 *             flow/checkpoint.c writes rows
 * Owns:       its entries and their cursors; sessions belong to their connections
 * Invariants: entries are sorted by conversation; delivered ≤ sent for a device with a session; an
 *             absent entry of a WARM user means that every device has everything; COLD → LOADING →
 *             WARM; a COLD user may hold entries that moved meanwhile
 * Failure:    ERR_NO_MEMORY; ERR_FULL: more devices than a row holds
 * Bounds:     entries as the user has conversations that moved since loading */
#ifndef GATEWAY_CHAT_INBOX_H
#define GATEWAY_CHAT_INBOX_H

#include "gateway/chat/rows.h"

struct session;

struct cursor_state {
    struct device_id device;
    bool behind;        /* listed in the session's behind list */
    bool presumed;      /* delivered is what the conversation had, not what this inbox was told */
    uint64_t delivered; /* acknowledged */
    uint64_t sent;      /* pushed on the present session; ≥ delivered */
    uint64_t told;      /* delivered as its conversation knows it; UINT64_MAX: never told */
};

struct entry {
    struct conversation_id conversation;
    uint64_t last_seq;
    uint64_t activity_ms;
    uint64_t read_seq;
    uint64_t read_told; /* read_seq as the conversation knows it */
    uint64_t peer_delivered;
    uint64_t peer_read;
    struct cursor_state *cursors;
    uint32_t cursor_count;
    bool dirty;           /* differs from its catalog row */
    bool watermark_dirty; /* its conversation has not been told the newest watermarks */
    struct inbox *inbox;
    struct entry *watermark_next; /* the shard's list of entries with watermark_dirty */
};

enum inbox_state { INBOX_COLD, INBOX_LOADING, INBOX_WARM };

struct inbox {
    struct user_id id;
    struct realm_id realm;
    enum inbox_state state;
    bool dirty; /* some entry is; in the shard's dirty list */
    uint32_t entry_count;
    uint32_t entry_capacity;
    struct entry **entries;
    struct device_id *devices;
    uint32_t device_count;
    struct session *sessions; /* linked by session->sibling */
    struct session *waiting;  /* sessions that wait for WARM */
    struct inbox *dirty_next;
    struct inbox *lru_next;
    struct inbox *lru_previous;
};

void inbox_init(struct inbox *inbox, struct user_id id);
void inbox_deinit(struct inbox *inbox);

struct entry *inbox_entry(const struct inbox *inbox, struct conversation_id conversation);
/* inbox_entry_make: the entry, made if absent with every known device having everything below
 * from_seq. */
MUST_USE enum err inbox_entry_make(struct inbox *inbox, struct entry **out,
                                   struct conversation_id conversation, uint64_t from_seq,
                                   bool *made);
/* inbox_load_row: merge a row read from the catalog into a LOADING user, whose devices are added
 * before. inbox_loaded: after the last row: every known device has a cursor in every entry: at 0
 * where no device ever acknowledged anything, else (a new device) where the others are at most.
 * Calls back for entries in which a cursor was made: it must be told before another device gets
 * further. */
MUST_USE enum err inbox_load_row(struct inbox *inbox, struct conversation_id conversation,
                                 const struct inbox_row *row);
MUST_USE enum err inbox_loaded(struct inbox *inbox,
                               void (*made)(void *context, struct entry *entry), void *context);
/* inbox_add_device: known from now on; ERR_EXISTS if it was. */
MUST_USE enum err inbox_add_device(struct inbox *inbox, struct device_id device);
/* entry_cursor: the device's cursor, made if absent: at what the user's other devices have at most,
 * or 0 if there are none. */
MUST_USE enum err entry_cursor(struct entry *entry, struct cursor_state **out,
                               struct device_id device, bool *made);
/* entry_presume: the entry was just made at the newest number of its conversation, of which fan-out
 * may still be on its way. */
void entry_presume(struct entry *entry);
/* entry_told: fan-out says that from_seq is new: who was presumed to have it has not. */
void entry_told(struct entry *entry, uint64_t from_seq);
/* entry_delivered: highest delivered mark over the devices. */
uint64_t entry_delivered(const struct entry *entry);
void entry_to_row(const struct entry *entry, struct inbox_row *row);
/* inbox_drop_idle: forget entries that are clean and have nothing pending. */
void inbox_drop_idle(struct inbox *inbox);
bool inbox_idle(const struct inbox *inbox);

#endif
