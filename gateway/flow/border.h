/* border.h: the messages that shards send each other (core/mesh.h), one struct per kind; what
 * follows a struct is its payload.
 * Flow:       session shard -SEND→ conversation shard -APPEND→ lane -APPENDED→ conversation shard
 *             -RESULT→ session shard, and conversation shard -DELIVER→ home shards
 * Invariants: an ANSWER's room was promised before its request was sent (answer_bytes below says
 *             how much); FANOUT is never waited for: what does not fit is marked dirty and told
 *             later from state
 * Bounds:     payload ≤ message_bytes_max; PULLED and READ_DONE ≤ PULL_BYTES + one message */
#ifndef GATEWAY_FLOW_BORDER_H
#define GATEWAY_FLOW_BORDER_H

#include "core/mesh.h"
#include "gateway/chat/keep.h"
#include "gateway/wire/protocol.h"
#include "store/ids.h"

enum border_kind {
    BORDER_SEND,        /* REQUEST: a client's message to its conversation */
    BORDER_MARK_CHECK,  /* REQUEST: a watermark whose conversation is not in the user's inbox: check
                           it first */
    BORDER_PULL,        /* REQUEST: messages from the conversation's memory */
    BORDER_RELAY_OPEN,  /* REQUEST: guest → home: a connection that could not move (relay.h) */
    BORDER_RELAY_WANT,  /* REQUEST: home → guest: one receive is armed */
    BORDER_RELAY_IN,    /* REQUEST: guest → home: what was received, decrypted */
    BORDER_RELAY_OUT,   /* REQUEST: home → guest: to be encrypted and sent */
    BORDER_RELAY_SENT,  /* REQUEST: guest → home: all of it was */
    BORDER_RELAY_CLOSE, /* REQUEST: home → guest */
    BORDER_RELAY_GONE,  /* REQUEST: guest → home: the last of all */
    BORDER_APPEND,      /* LOG: a record for the lane */
    BORDER_READ,        /* LOG: messages from disk */
    BORDER_FIND,        /* LOG: an earlier record with this message id */
    BORDER_COUNT,       /* LOG: how much is stored below a number */
    BORDER_RESULT,      /* ANSWER to SEND, MARK_CHECK */
    BORDER_PULLED,      /* ANSWER to PULL, READ: messages */
    BORDER_RELAY_OPENED, /* ANSWER to RELAY_OPEN */
    BORDER_APPENDED,     /* LOG_ANSWER to APPEND */
    BORDER_FOUND,        /* LOG_ANSWER to FIND */
    BORDER_COUNTED,      /* LOG_ANSWER to COUNT */
    BORDER_CHECKPOINT, /* LOG_ANSWER (standing promise): each lane → everyone: once all lanes have
                          said so, flush what is dirty */
    BORDER_DELIVER,    /* FANOUT: a new message, to a home shard */
    BORDER_MOVED,      /* FANOUT: messages from … to exist; pull them */
    BORDER_RECEIPT,    /* FANOUT: conversation → home shards: a member's watermarks */
    BORDER_WATERMARK,  /* FANOUT: home shard → conversation */
    BORDER_REVOKE,     /* FANOUT, kept until it fits */
    BORDER_CHECKPOINTED, /* FANOUT, kept until it fits: everyone → shard 0: flushed */
};

struct border {
    uint16_t kind;
    uint16_t source;
    uint32_t payload_bytes;
};

struct border_send {
    struct border border;
    uint64_t session; /* handle on the source shard */
    uint64_t request_id;
    uint64_t arrived_ns;
    struct conversation_id conversation;
    struct user_id sender;
    struct device_id device;
    struct realm_id realm;
    struct message_id message_id;
    uint64_t expires_ms;
    uint16_t record; /* RECORD_MESSAGE or RECORD_RETENTION: what it becomes */
    uint16_t reserved[3];
};

struct border_watermark { /* MARK_CHECK and WATERMARK */
    struct border border;
    uint64_t session; /* MARK_CHECK */
    uint64_t request_id;
    struct conversation_id conversation;
    struct user_id user;
    struct device_id device;
    struct realm_id realm;
    uint64_t delivered;
    uint64_t read;
};

struct border_result {
    struct border border;
    uint64_t session;
    uint64_t request_id;
    uint64_t arrived_ns;
    uint32_t code; /* enum code; CODE_NONE: accepted */
    uint32_t retry_after_ms;
    struct conversation_id conversation;
    struct message_id message_id;
    uint64_t seq;
    uint64_t time_ms;
    uint8_t is_send;
    uint8_t duplicate;
    uint8_t reserved[6];
};

struct border_pull { /* PULL and READ */
    struct border border;
    uint64_t session;
    struct conversation_id conversation;
    uint64_t from_seq;
    uint64_t to_seq;
    uint32_t records_max;
    uint32_t answer_bytes; /* promised for the answer, this struct's header included */
};

enum pull_outcome {
    PULL_OK,
    PULL_MISS,
    PULL_TOO_SMALL,
    PULL_DAMAGED,
    PULL_GONE, /* expired, or removed by retention */
    PULL_BUSY
};

struct border_pulled {
    struct border border;
    uint64_t session;
    struct conversation_id conversation;
    uint32_t outcome; /* enum pull_outcome */
    uint32_t records;
    uint64_t size_needed;  /* PULL_TOO_SMALL: answer_bytes that would do */
    uint64_t missing_from; /* PULL_DAMAGED, PULL_GONE */
    uint64_t missing_to;
    uint64_t last_seq; /* PULL: newest visible, 0: not known here */
    uint32_t promised; /* echoed answer_bytes */
    uint32_t reserved;
    struct retention_setting retention; /* PULL: in force now; all 0: the store's */
    /* payload: records as struct border_record + payload, each padded to 8 bytes */
};

struct border_record {
    uint64_t seq;
    uint64_t time_ms;
    uint64_t expires_ms;
    struct user_id sender;
    struct device_id device;
    uint32_t payload_bytes;
    struct message_id message_id;
    uint16_t kind; /* enum record_kind */
    uint16_t reserved[3];
};

/* border_record_expired: a disappearing message whose time has come, by the shard's expiry_ms: it
 * is never served. */
static inline bool border_record_expired(const struct border_record *record, uint64_t expiry_ms)
{
    return record->expires_ms != 0 && record->expires_ms <= expiry_ms;
}

struct border_append {
    struct border border;
    uint64_t cookie; /* 0: no answer wanted */
    uint32_t epoch;  /* the lane's, as the source knows it */
    uint16_t kind;   /* enum record_kind */
    uint16_t reserved;
    struct realm_id realm;
    struct device_id device;
    struct conversation_id conversation;
    uint64_t seq;
    struct user_id sender;
    struct message_id message_id;
    uint64_t time_ms;
    uint64_t expires_ms;
};

struct border_appended {
    struct border border;
    uint64_t cookie;
    uint32_t err;   /* enum err */
    uint32_t epoch; /* the lane's present one */
    uint32_t lane;
    uint32_t reserved;
};

struct border_find {
    struct border border;
    uint64_t cookie;
    struct conversation_id conversation;
    struct user_id sender;
    struct device_id device;
    uint32_t reserved;
    struct message_id message_id;
};

struct border_found {
    struct border border;
    uint64_t cookie;
    uint32_t err;
    uint32_t payload_hash; /* crc32c of the stored payload */
    uint16_t kind;         /* enum record_kind */
    bool gone;             /* it was removed: of the payload nothing is known */
    uint8_t reserved[5];
    uint64_t payload_size;
    uint64_t seq;
    uint64_t time_ms;
};

struct border_count { /* COUNT, and COUNTED: down is filled */
    struct border border;
    struct conversation_id conversation;
    struct keep_down down;
    uint32_t err; /* COUNTED: enum err: not OK: not now */
    uint32_t reserved;
};

struct border_checkpoint { /* CHECKPOINT and CHECKPOINTED */
    struct border border;
    uint64_t round;
    uint64_t position; /* CHECKPOINT: of the lane */
    uint32_t lane;     /* CHECKPOINT */
    uint32_t err;      /* CHECKPOINTED */
};

struct border_deliver {
    struct border border;
    struct conversation_id conversation;
    uint64_t arrived_ns;
    struct border_record record;
};

struct border_moved {
    struct border border;
    struct conversation_id conversation;
    uint64_t from_seq;
    uint64_t to_seq;
    uint64_t time_ms;
};

struct border_receipt {
    struct border border;
    struct conversation_id conversation;
    uint64_t delivered[2]; /* members in the id's order */
    uint64_t read[2];
};

struct border_revoke {
    struct border border;
    struct user_id user;
    struct device_id device;
    uint32_t reserved;
    uint64_t generation; /* its logins up to this one have ended */
};

struct baggage;

struct border_relay_open {
    struct border border;
    uint64_t guest;          /* handle of the relay's end on the source shard */
    struct baggage *baggage; /* the guest's until answered; home takes out what it goes on with */
};

struct border_relay_opened {
    struct border border;
    uint64_t guest;
    uint64_t home;
    uint32_t err; /* enum err; OK: home is the other end's handle */
    uint32_t reserved;
};

struct border_relay { /* WANT, IN, OUT, SENT, CLOSE, GONE; payload: clear bytes of IN and OUT */
    struct border border;
    uint64_t relay;      /* handle of the end that reads this */
    uint8_t last;        /* IN: of this receive, OUT: of this send */
    uint8_t abrupt;      /* CLOSE: what is unsent is not to be waited for */
    uint8_t peer_closed; /* CLOSE: the client has said its last word */
    uint8_t reserved[5];
};

static inline size_t border_padded(size_t size)
{
    return (size + 7) & ~(size_t)7;
}

#endif
