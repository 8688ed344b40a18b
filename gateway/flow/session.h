/* session.h: an authenticated connection of one device on its user's home shard: what it may be
 * sent, and how far it has come.
 * Flow:       login → session_start → ready → catch-up → live; requests.c and home.c work on it
 * Owns:       its behind list; the pull it has under way (one at a time)
 * Invariants: a conversation is in `behind` exactly when its cursor says so; LIVE means that the
 *             list is empty; per conversation pushes are seq, seq + 1, … from the cursor's sent
 *
 *   LIVE (push what arrives, if it is the next) ⇄
 *   CATCHING UP (pull from memory or log at the pace of credit and socket)
 *   LIVE → CATCHING UP: gap, no credit, output full, dirty mark: says LAGGING.
 *   CATCHING UP → LIVE: behind empty: says SYNCED
 *
 * Bounds:     one struct per session (struct connection holds the rest) */
#ifndef GATEWAY_FLOW_SESSION_H
#define GATEWAY_FLOW_SESSION_H

#include "gateway/chat/account.h"
#include "gateway/chat/inbox.h"
#include "gateway/flow/border.h"
#include "gateway/flow/connection.h"
#include "gateway/flow/limits.h"

enum pull_purpose { PULL_NONE, PULL_CATCH_UP, PULL_HISTORY, PULL_CURSOR };

struct pull {
    enum pull_purpose purpose;
    bool asked;          /* an answer is under way */
    bool from_log;       /* the conversation's memory missed */
    uint64_t request_id; /* HISTORY */
    struct conversation_id conversation;
    uint64_t from_seq;
    uint64_t to_seq;
    uint32_t records_max;
    uint32_t answer_bytes;              /* to promise */
    uint64_t last_seq;                  /* of the conversation, as its memory said; 0: not said */
    struct retention_setting retention; /* the same */
};

struct session {
    struct connection *connection;
    struct inbox *user;
    struct session *sibling;   /* of the same user */
    struct session *pull_next; /* the shard's list of sessions whose pull waits for room */
    struct login *login;       /* until its cursors are worked off */
    size_t cursor_next;
    uint64_t started_ms;
    bool pull_listed;
    bool live;
    bool credited; /* hello granted credit: pushes stop at zero */
    bool resume;
    bool ready;
    bool notified; /* token expiry announced */
    bool renewing; /* one at a time: the newest token holds, and each costs a worker */
    struct device_id device;
    struct realm_id realm;
    uint32_t heartbeat_ms;
    int64_t credit_messages;
    int64_t credit_bytes;
    uint64_t generation;
    uint64_t token_expires_ms;
    uint64_t sends_at_ns;  /* token bucket (GCRA): theoretical arrival time */
    struct entry **behind; /* [behind_next, behind_count): to do, most recently active first */
    uint32_t behind_next;
    uint32_t behind_count;
    uint32_t behind_capacity;
    uint32_t awaited; /* sends and renewals that are not answered yet */
    struct pull pull;
};

/* history_scratch: an answer to Range while it is put together, in the shard's scratch. */
struct history_scratch {
    struct message messages[HISTORY_RECORDS_MAX];
    struct gone gone[HISTORY_RECORDS_MAX + 1];
    size_t count;
    size_t gone_count;
};

/* session_start: a connection whose identity is known and whose user is WARM: displaces an older
 * session of the device, says ready, starts catching up. */
struct login;
void session_start(struct shard *shard, struct session *session);
struct session *session_create(struct shard *shard, struct connection *connection,
                               const struct identity *identity);
void session_destroy(struct shard *shard, struct session *session);

/* session_fill_message: a record, whose payload stands behind it, as the protocol tells it. */
void session_fill_message(struct message *out, struct conversation_id conversation,
                          const struct border_record *record);
/* session_can_push: credit and output have room for one more message. */
bool session_can_push(const struct shard *shard, const struct session *session);
/* session_pushed: a message of that many encoded bytes was given to egress: takes it off the
 * credit. */
void session_pushed(struct shard *shard, struct session *session, size_t bytes);
/* session_gone: tell the device that these numbers no longer exist (expired, or removed by
 * retention). */
void session_gone(struct shard *shard, struct session *session, struct conversation_id conversation,
                  uint64_t from_seq, uint64_t to_seq);
/* session_lag: this conversation is behind from now on. */
void session_lag(struct shard *shard, struct session *session, struct entry *entry,
                 struct cursor_state *cursor);
/* session_go_on: pull the next behind conversation, or say synced. Call when credit, room or an
 * answer came. */
void session_go_on(struct shard *shard, struct session *session);
void session_on_pulled(struct shard *shard, struct bytes message);
/* session_history: a Range request. ERR_FULL: a pull is under way; come back. */
MUST_USE enum err session_history(struct shard *shard, struct session *session, uint64_t request_id,
                                  const struct range *range);
/* session_retry_pulls: those that waited for room between shards. */
void session_retry_pulls(struct shard *shard);
/* session_on_timer: heartbeat and token expiry. */
void session_on_timer(struct shard *shard, struct session *session);
void session_arm_timer(struct shard *shard, struct session *session);

uint64_t session_handle(struct shard *shard, const struct session *session);
struct session *session_get(struct shard *shard, uint64_t handle);

#endif
