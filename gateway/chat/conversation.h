/* conversation.h: one conversation on its owner's shard: the one writer that numbers messages,
 * tells repeats from news, keeps what is recent in memory and the members' watermarks.
 * Flow:       flow/commit.c: conversation_check → conversation_accept → log → conversation_durable
 *             → fan-out
 * Owns:       its cached messages, sender list and work; a cached message's payload is stored once
 *             and handed on by reference
 * Invariants: visible ≤ last_seq; cached messages are contiguous up to last_seq; stamps never
 *             go back; COLD → LOADING (conversation needed) → WARM (conversation_loaded);
 *             watermarks are welcome in any state; work is there (conversation_wake) while anything
 *             waits, is dirty or is cached; conversation_rest gives it back
 * Failure:    ERR_NO_MEMORY, ERR_FULL (more sending devices than a row holds): the send is refused,
 *             nothing changed
 * Bounds:     cached bytes: struct message_cache's budget, over all conversations of the shard,
 *             oldest first; a resting conversation: CONVERSATION_BYTES and its senders */
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
    uint16_t kind; /* RECORD_MESSAGE, RECORD_RETENTION */
    uint32_t size; /* of payload */
    /* who waits for the acknowledgement */
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
    bool dirty; /* not told of everything: flow/fanout.c tells it from seq_told + 1 */
    bool receipts_dirty;
    uint64_t seq_told; /* while dirty; else it was told of all that is visible */
};

/* conversation_work: what only a busy conversation needs. */
struct conversation_work {
    struct conversation_id id; /* of one that rests only its table knows it */
    struct cached *newest;
    struct cached *oldest;
    struct parked *parked; /* sends waiting for state or for a look-up, oldest first */
    struct conversation *dirty_next;
    struct conversation *slices_next;
    struct conversation *retry_next;
    uint32_t in_flight; /* appended, not yet durable: the highest numbers */
    bool dirty;         /* differs from its catalog row */
    bool listed_slices; /* in the shard's list of conversations with a dirty slice */
    bool listed_retry;
    struct slice slices[2];
};

/* sender_list: the devices that have sent here; a member's part of the memory, as a group's members
 * will be. Whoever set a retention has sent; the pointer fills the heap's size class. */
struct sender_list {
    struct keep *keep; /* its own retention; NULL: none */
    uint32_t count;
    struct sender_row rows[];
};

enum conversation_state { CONVERSATION_COLD, CONVERSATION_LOADING, CONVERSATION_WARM };

struct conversation {
    uint64_t last_seq;          /* given out */
    uint64_t last_time_ms : 48; /* CONVERSATION_TIME_MAX */
    enum conversation_state state : 8;
    bool absent : 1;       /* one of its members does not exist */
    bool counting : 1;     /* it is noted that its keep is uncounted (flow/counting.h) */
    bool touched : 1;      /* since eviction last looked at it */
    uint64_t delivered[2]; /* members in the id's order */
    uint64_t read[2];
    struct sender_list *senders;    /* NULL: none */
    struct conversation_work *work; /* NULL: nothing to do */
};

#define CONVERSATION_TIME_MAX ((UINT64_C(1) << 48) - 1) /* ms: the year 10889 */

/* What a resting conversation holds. The cell in the shard's table with its id is on top:
 * TABLE_CELL_BYTES / (3/4 to 3/8 of the cells filled) = 32 to 64. */
#define CONVERSATION_BYTES                                                                         \
    (8   /* last_seq */                                                                            \
     + 8 /* last_time_ms, state, three bits */                                                     \
     + 8 /* work */                                                                                \
     + CONVERSATION_MEMBERS_BYTES)
#define CONVERSATION_MEMBERS_BYTES                                                                 \
    (2 * 16 /* the members' watermarks */                                                          \
     + 8 /* senders */)
_Static_assert(sizeof(struct conversation) == CONVERSATION_BYTES, "a line for every byte");
_Static_assert(CONVERSATION_BYTES % 16 == 0, "the heap's sizes are multiples of 16: none is lost");

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

void conversation_init(struct conversation *conversation);
/* conversation_wake: has work from now on. home: the members' shards, in the id's order.
 * conversation_rest: gives the work back if nothing is left of it. */
MUST_USE enum err conversation_wake(struct conversation *conversation, struct conversation_id id,
                                    const uint32_t home[2]);
void conversation_rest(struct conversation *conversation);
void conversation_deinit(struct conversation *conversation, struct message_cache *cache);
/* conversation_loaded: LOADING → WARM with the catalog's row (all zero if there is none). */
MUST_USE enum err conversation_loaded(struct conversation *conversation,
                                      const struct conversation_row *row);
enum conversation_verdict conversation_check(const struct conversation *conversation,
                                             const struct send_key *key, struct cached **found);
/* conversation_accept: the next sequence number and a stamp for a new message, or for an entry that
 * sets the retention (kind); *out is in flight. The conversation is awake. */
MUST_USE enum err conversation_accept(struct conversation *conversation, struct cached **out,
                                      uint16_t kind, const struct send_key *key,
                                      struct bytes payload, uint64_t expires_ms, uint64_t now_ms);
/* conversation_durable: the log has it: visible, and from now on subject to the cache's budget. */
void conversation_durable(struct conversation *conversation, struct cached *message,
                          struct message_cache *cache);
/* conversation_refused: the log refused it; it and everything after it in this conversation is
 * taken back. */
void conversation_refused(struct conversation *conversation, struct cached *message);
/* conversation_recent: the cached durable message of that number, or NULL. */
struct cached *conversation_recent(const struct conversation *conversation, uint64_t seq);
/* conversation_watermark: raise a member's marks; true if that changed anything. Awake. */
bool conversation_watermark(struct conversation *conversation, struct user_id user,
                            uint64_t delivered, uint64_t read);
/* conversation_to_row: for the checkpoint. */
void conversation_to_row(const struct conversation *conversation, struct conversation_row *row);
/* conversation_keep: its own retention, or NULL: none was ever set. */
const struct keep *conversation_keep(const struct conversation *conversation);
/* conversation_counted: what its keep had uncounted; keep_counted. */
bool conversation_counted(struct conversation *conversation, const struct keep_down *down);
/* conversation_idle: nothing would be lost by forgetting it, and nothing lists it. */
bool conversation_idle(const struct conversation *conversation);
/* conversation_visible: the highest number that is durable. */
static inline uint64_t conversation_visible(const struct conversation *conversation)
{
    const struct conversation_work *work = conversation->work;
    return conversation->last_seq - (work != NULL ? work->in_flight : 0);
}
static inline struct parked *conversation_parked(const struct conversation *conversation)
{
    return conversation->work != NULL ? conversation->work->parked : NULL;
}
static inline int conversation_member(struct conversation_id id, struct user_id user)
{
    return id.hi == user.v ? 0 : 1;
}
static inline struct user_id conversation_user(struct conversation_id id, int member)
{
    return (struct user_id){member == 0 ? id.hi : id.lo};
}
/* message_cache_trim: forget the oldest until the budget holds. */
void message_cache_trim(struct message_cache *cache);

#endif
