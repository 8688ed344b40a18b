/* user.h: one simulated user's device: the client side of a connection as an engine without I/O.
 * Flow:       fleet: received bytes → user_receive → events; user_send, user_tick → user_flush →
 *             bytes to send
 * Owns:       a struct user owns its TLS state, its unacknowledged sends and its watermarks; a
 *             struct user_engine (one per thread) owns what is lent to the user at work: TLS and
 *             WebSocket engines, plaintext, decoded events
 * Invariants: OFFLINE → CONNECTING → TLS → UPGRADE → WELCOME → HELLO → READY; any → OFFLINE
 *             (user_lost), which sets when to connect again; unacknowledged sends survive it and
 *             are repeated with the same id
 * Failure:    user_receive and user_tick say that the connection has to be closed and why; the
 *             owner closes it and calls user_lost
 * Bounds:     idle: about 250 bytes and what TLS keeps; 64 bytes per unacknowledged send (at most
 *             USER_SENDS_MAX); 40 bytes per conversation */
#ifndef LOADGEN_USER_H
#define LOADGEN_USER_H

#include "gateway/wire/http.h"
#include "gateway/wire/jwt.h"
#include "gateway/wire/protocol.h"
#include "gateway/wire/tls.h"
#include "gateway/wire/websocket.h"

#define USER_SENDS_MAX       64
#define USER_NAME_BYTES      64
#define USER_OUTPUT_OVERHEAD 512 /* room for one message beyond its content, all layers */
#define USER_HELLO_BYTES     2048

struct user_options {
    struct tls_context *tls_context; /* a client's */
    const char *server_name;         /* SNI and Host */
    enum encoding encoding;
    const struct jwt_signer *signer; /* vouches for the users */
    const char *key_id;
    const char *issuer;
    const char *audience;
    const char *name_prefix; /* users are called <prefix><index>, devices "d<number>" */
    uint32_t token_lifetime_ms;
    uint32_t heartbeat_ms;   /* asked for in hello; 0: the server's default */
    uint32_t ack_messages;   /* watermark after so many messages … */
    uint32_t ack_delay_ms;   /* … or so long after the first */
    uint32_t handshake_ms;   /* from connect to ready */
    uint32_t backoff_ms_min; /* doubles up to max, half of it random; sends: their retry time */
    uint32_t backoff_ms_max;
    uint32_t message_bytes_max;  /* largest content sent */
    uint32_t response_bytes_max; /* largest WebSocket message taken */
    uint32_t repeat_ms;  /* an acknowledged send in eight is repeated so long after; 0: none */
    bool tight_settings; /* oracle_tight */
    bool expiring;       /* oracle_expires */
    bool ask_history;    /* of one conversation, whenever a connection is ready */
    bool resume_tls;     /* keep tickets (about 1 KB per user) and resume with them */
    uint64_t seed;       /* masks, ids, jitter */
};

struct user_engine; /* per thread */
MUST_USE enum err user_engine_create(struct user_engine **engine,
                                     const struct user_options *options);
void user_engine_destroy(struct user_engine *engine);
/* user_engine_time: once a turn, before anything else. */
void user_engine_time(struct user_engine *engine, uint64_t now_ns, uint64_t wall_ms);
uint64_t user_engine_random(struct user_engine *engine);
/* user_engine_server: what the newest welcome called the server, "" before. */
const char *user_engine_server(const struct user_engine *engine);

enum user_state {
    USER_OFFLINE,
    USER_CONNECTING,
    USER_TLS,
    USER_UPGRADE,
    USER_WELCOME, /* upgraded, waiting for the server's first frame */
    USER_HELLO,   /* hello is sent or about to be */
    USER_READY,
    USER_STATE_COUNT
};

struct user_send;
struct user_watermark;

struct user {
    struct user_id id; /* 0 until the first ready */
    uint32_t index;
    uint32_t device;     /* number within the user as the owner counts, from 0 */
    uint32_t connection; /* counts up with every connection */
    enum user_state state;
    /* private */
    struct tls *tls;
    struct websocket websocket;
    struct http_reader *http; /* only while upgrading */
    struct user_send *sends;  /* unacknowledged, oldest first */
    struct user_send *sends_tail;
    struct user_watermark *watermarks;
    uint8_t *session;
    uint64_t deadline_ns; /* offline: when to connect; later: when to give the connection up */
    uint64_t ping_ns;     /* ready: next ping */
    uint64_t ack_ns;      /* watermarks are due; 0: none dirty */
    uint64_t retry_ns;    /* the first refused send is repeated then; 0: none */
    uint32_t session_bytes;
    uint32_t request_id;
    uint32_t heartbeat_ms;
    uint32_t retry_after_ms; /* the server's wish */
    uint64_t asked_seq; /* the history of a conversation is asked for from here on; 0: of none */
    uint16_t asked;     /* which of the watermarks' */
    uint16_t watermark_count;
    uint16_t watermark_capacity;
    uint16_t send_count;
    uint16_t unsent; /* of sends: not yet on this connection */
    uint16_t unacked_messages;
    uint8_t attempts;
    uint8_t want;
};

void user_init(struct user *user, uint32_t index, uint32_t device);
void user_deinit(struct user *user, struct user_engine *engine);

/* user_connecting: the owner starts a connection. user_connected: it is up: first flight into
 * output. */
void user_connecting(struct user *user, struct user_engine *engine);
MUST_USE enum err user_connected(struct user *user, struct user_engine *engine,
                                 struct buffer *output);
/* user_lost: the connection is gone, whoever ended it; sets when to connect again. */
void user_lost(struct user *user, struct user_engine *engine);
/* user_reconnect_at: overrule that time. */
void user_reconnect_at(struct user *user, uint64_t at_ns);

enum user_event_kind {
    USER_EVENT_READY,
    USER_EVENT_ACKED,   /* conversation, id, seq, duplicate, intended_ns; first_seq: of a repeat,
                           what the first acknowledgement said */
    USER_EVENT_REFUSED, /* a send was given up: code, conversation, id, first_seq, intended_ns */
    USER_EVENT_RETRY,   /* a send was refused for now and will be repeated: code */
    USER_EVENT_MESSAGE, /* message */
    USER_EVENT_GONE,    /* conversation, seq … to_seq no longer exist */
    USER_EVENT_HISTORY, /* history, from seq on */
    USER_EVENT_SYNCED,
    USER_EVENT_LAGGING,
    USER_EVENT_ERROR, /* not about a send: code */
};

struct user_event {
    enum user_event_kind kind;
    enum code code;
    bool duplicate;
    struct conversation_id conversation;
    struct message_id id;
    uint64_t seq;
    uint64_t to_seq;
    uint64_t first_seq;
    uint64_t intended_ns;
    const struct message *message; /* valid until the next user_receive, */
    const struct history *history; /* and so is this */
};

/* user_receive: OK: *out is the next event: call again. ERR_AGAIN: all input is taken, nothing more
 * came of it: call user_flush. Else: close the connection (user_failure says why). Between the
 * first call and the last only this user may use the engine. */
MUST_USE enum err user_receive(struct user *user, struct user_engine *engine, struct bytes *input,
                               struct buffer *output, struct user_event *out);
/* user_failure: one line on the newest failure of user_receive, user_connected or user_tick. */
const char *user_failure(const struct user_engine *engine);

/* user_send: take on one message of `size` bytes of content (oracle_content) to the other member of
 * a direct conversation; size 0: an entry that sets its retention (oracle_setting); ERR_FULL:
 * USER_SENDS_MAX unacknowledged. Goes out with user_flush, now or once the user is ready. */
MUST_USE enum err user_send(struct user *user, struct user_engine *engine, struct user_id to,
                            uint32_t size, uint64_t intended_ns);

/* user_flush: append what is due as far as it fits; ERR_FULL: more is due, call again with an empty
 * buffer. */
MUST_USE enum err user_flush(struct user *user, struct user_engine *engine, struct buffer *output);
/* user_leave: append WebSocket and TLS close. */
void user_leave(struct user *user, struct user_engine *engine, struct buffer *output);

/* user_tick: time has passed; afterwards user_flush. ERR_TIMEOUT: close the connection. OK offline
 * with user_due_ns in the past: connect. */
MUST_USE enum err user_tick(struct user *user, struct user_engine *engine);
/* user_due_ns: when user_tick has something to do next. */
uint64_t user_due_ns(const struct user *user);

bool user_quiet(const struct user *user);              /* nothing unacknowledged */
const char *user_tls_version(const struct user *user); /* "" unless established */
bool user_tls_resumed(const struct user *user);

#endif
