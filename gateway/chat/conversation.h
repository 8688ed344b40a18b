/* conversation.h: one conversation on its owner's shard: the one writer that numbers messages,
 * tells repeats from news, keeps what is recent in memory and the members' watermarks.
 * Flow:       flow/commit.c: conversation_check → conversation_accept → log → conversation_durable
 *             → fan-out
 * Owns:       its cached messages and sender list; a cached message's payload is stored once and
 *             handed on by reference
 * Invariants: visible_seq ≤ last_seq; cached messages are contiguous up to last_seq; stamps never
 *             go back; COLD → LOADING (conversation needed) → WARM (conversation_loaded);
 *             watermarks are welcome in any state
 * Failure:    ERR_NO_MEMORY, ERR_FULL (more sending devices than a row holds): the send is refused,
 *             nothing changed
 * Bounds:     cached bytes: struct message_cache's budget, over all conversations of the shard,
 *             oldest first */
#ifndef GATEWAY_CHAT_CONVERSATION_H
#define GATEWAY_CHAT_CONVERSATION_H

#include "gateway/chat/rows.h"

/* cached: a message in memory: in flight to the log until durable, then recent. */
struct cached {
    struct cached *newer; /* of the same conversation */
    struct cached *older;
    struct cached *next; /* of the cache, oldest first; only durable ones */
    struct cached *previous;
    struct conversation *conversation;
    uint64_t seq;
    uint64_t time_ms;
    uint64_t expires_ms;
    struct user_id sender;
    struct device_id device;
    struct message_id message_id;
    bool durable;
    uint32_t size; /* of payload */
    /* who waits for the acknowledgement */
    uint32_t epoch;   /* of the log's space, see commit.c */
    uint32_t origin;  /* shard */
    uint64_t session; /* handle there; 0: nobody */
    uint64_t request_id;
    uint64_t arrived_ns;
    uint8_t payload[];
};

struct message_cache {
    struct cached *oldest;
    struct cached *newest;
    size_t bytes;
    size_t bytes_max;
};

/* slice: one home shard's part of the members. */
struct slice {
    uint32_t shard;
    bool used;
    bool dirty; /* not told of everything: flow/commit.c tells it from seq_told + 1 */
    bool receipts_dirty;
    uint64_t seq_told;
};

enum conversation_state { CONVERSATION_COLD, CONVERSATION_LOADING, CONVERSATION_WARM };

struct conversation {
    struct conversation_id id;
    uint64_t last_seq;    /* given out */
    uint64_t visible_seq; /* durable */
    uint64_t last_time_ms;
    uint64_t delivered[2]; /* members in the id's order */
    uint64_t read[2];
    struct cached *newest;
    struct cached *oldest;
    struct sender_row *senders;
    uint32_t sender_count;
    uint32_t in_flight; /* appended, not yet durable */
    enum conversation_state state;
    bool dirty;         /* differs from its catalog row */
    bool listed_slices; /* in the shard's list of conversations with a dirty slice */
    struct slice slices[2];
    struct parked *parked; /* sends waiting for state or for a look-up, oldest first */
    struct conversation *dirty_next;
    struct conversation *slices_next;
    struct conversation *retry_next;
    bool listed_retry;
    bool absent; /* one of its members does not exist */
    struct conversation *lru_next;
    struct conversation *lru_previous;
    uint64_t touched_ns;
};

struct send_key {
    struct user_id sender;
    struct device_id device;
    struct message_id message_id;
};

enum conversation_verdict {
    CONVERSATION_NEW,     /* higher than the device's highest here */
    CONVERSATION_KNOWN,   /* *found: the first one; compare payloads */
    CONVERSATION_LOOK_UP, /* may have been seen: ask the log */
};

void conversation_init(struct conversation *conversation, struct conversation_id id,
                       const uint32_t home[2]);
void conversation_deinit(struct conversation *conversation, struct message_cache *cache);
/* conversation_loaded: LOADING → WARM with the catalog's row (all zero if there is none). */
MUST_USE enum err conversation_loaded(struct conversation *conversation,
                                      const struct conversation_row *row);
enum conversation_verdict conversation_check(const struct conversation *conversation,
                                             const struct send_key *key, struct cached **found);
/* conversation_accept: the next sequence number and a stamp for a new message; *out is in flight.
 */
MUST_USE enum err conversation_accept(struct conversation *conversation, struct cached **out,
                                      const struct send_key *key, struct bytes payload,
                                      uint64_t expires_ms, uint64_t now_ms);
/* conversation_durable: the log has it: visible, and from now on subject to the cache's budget. */
void conversation_durable(struct conversation *conversation, struct cached *message,
                          struct message_cache *cache);
/* conversation_refused: the log refused it; it and everything after it in this conversation is
 * taken back. */
void conversation_refused(struct conversation *conversation, struct cached *message);
/* conversation_recent: the cached durable message of that number, or NULL. */
struct cached *conversation_recent(const struct conversation *conversation, uint64_t seq);
/* conversation_watermark: raise a member's marks; true if that changed anything. */
bool conversation_watermark(struct conversation *conversation, struct user_id user,
                            uint64_t delivered, uint64_t read);
/* conversation_to_row: for the checkpoint. */
void conversation_to_row(const struct conversation *conversation, struct conversation_row *row);
/* conversation_idle: nothing would be lost by forgetting it. */
bool conversation_idle(const struct conversation *conversation);
static inline int conversation_member(const struct conversation *conversation, struct user_id user)
{
    return conversation->id.hi == user.v ? 0 : 1;
}
static inline struct user_id conversation_user(struct conversation_id id, int member)
{
    return (struct user_id){member == 0 ? id.hi : id.lo};
}
/* message_cache_trim: forget the oldest until the budget holds. */
void message_cache_trim(struct message_cache *cache);

#endif
