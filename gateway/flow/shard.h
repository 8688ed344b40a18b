/* shard.h: one core: its tables, its io, its part of every user and conversation, and its turn.
 * Flow:       main (or the simulator) → shard_create, shard_turn …; poll → ingress → mesh → commit
 *             → egress → submit
 * Owns:       everything below it; nothing is shared but struct gateway (constant, or atomic, as
 *             marked)
 * Invariants: only its own thread touches a struct shard
 * Failure:    shard_create explains in one line
 * Bounds:     gateway/flow/limits.h */
#ifndef GATEWAY_FLOW_SHARD_H
#define GATEWAY_FLOW_SHARD_H

#include "core/hash.h"
#include "core/io.h"
#include "core/memory.h"
#include "core/mesh.h"
#include "core/metrics.h"
#include "core/pool.h"
#include "core/table.h"
#include "core/timer.h"
#include "core/worker.h"
#include "gateway/chat/conversation.h"
#include "gateway/chat/inbox.h"
#include "gateway/config.h"
#include "gateway/flow/addresses.h"
#include "gateway/flow/border.h"
#include "gateway/flow/counting.h"
#include "gateway/flow/exchange.h"
#include "gateway/flow/limits.h"
#include "gateway/wire/jwt.h"
#include "gateway/wire/tls.h"
#include "gateway/wire/websocket.h"
#include "store/catalog.h"
#include "store/clock.h"
#include "store/log.h"

#include <stdatomic.h>

enum gateway_phase {
    GATEWAY_STARTING, /* recovering: nothing listens */
    GATEWAY_SERVING,
    GATEWAY_DRAINING,  /* no accepts; goodbyes said; until every shard is empty or the time is up */
    GATEWAY_FINISHING, /* connections are gone; commits end, last checkpoint */
    GATEWAY_STOPPED,
};

/* lane_status: what all shards may know of a lane. */
struct lane_status {
    _Atomic uint32_t state;        /* enum log_state; its shard says it */
    _Atomic uint64_t settled;      /* everything below was answered; its shard says it */
    _Atomic uint64_t checkpointed; /* the catalog holds everything below; shard 0 says it */
    _Atomic uint64_t dropped_ms;   /* log_dropped_ms, before any read tells; its shard says it */
    struct clock clock;            /* log_clock; constant before any shard's first turn */
};

/* gateway: what all shards of a process share. */
struct gateway {
    /* constant after start */
    const struct config *config;
    const char *server; /* welcome tells it: the product and its version */
    struct io_group *group;
    struct mesh *mesh;
    struct workers *workers;
    struct catalog *catalog;
    struct hash_key placement;
    struct jwt_signer signer;
    uint8_t store_epoch[16];
    uint32_t shard_count;
    uint32_t lane_count;   /* of the log */
    uint64_t writer_epoch; /* of the log's batches; set by shard 0 before the others are made */
    struct metrics *metrics[SHARDS_MAX + LANES_MAX - 1]; /* shards', then further lanes' */
    uint32_t metrics_count;
    api_handler *api;
    void *api_context;
    struct io_address address;
    struct io_address admin_address;
    struct io_address bound_address; /* set by shard 0 before the others listen */
    struct io_address bound_admin_address;
    /* changed by main under `generation`: shards look once a turn */
    _Atomic uint32_t generation;
    _Atomic uint32_t looked; /* shards that have taken the current generation's */
    _Atomic(struct tls_context *) tls;
    _Atomic(struct jwks *) jwks;
    _Atomic uint32_t phase;   /* enum gateway_phase */
    _Atomic uint32_t drained; /* shards without connections and commits */
    _Atomic uint32_t connections;
    int64_t state_base; /* MEMORY_CHAT before the first shard: not state of this gateway */
    struct lane_status lanes[LANES_MAX];
    _Atomic uint64_t checkpoint_round; /* the newest begun: lanes tell the shards (checkpoint.h) */
    _Atomic bool rows_changed;         /* with nothing new in a lane, since that round began */
    struct addresses addresses;        /* of un-upgraded connections */
};

/* appends: what a shard has on its way to one lane. */
struct appends {
    struct cached *oldest; /* in order of append, linked by next */
    struct cached *newest;
    uint32_t epoch;        /* the lane's, as far as is known here */
    uint32_t answers_void; /* to come for appends that were taken back already */
};

/* places: of parked requests, and what tells when those that find none are to come again
 * (parked_retry_ms). */
struct places {
    uint32_t used;
    uint32_t refused;  /* that no other request left for since */
    uint64_t moved_ns; /* one left, or the first came */
    uint64_t stay_ns;  /* of a request, of late */
};

struct lanes; /* flow/lane.c: the lanes that a shard drives */

struct shard {
    struct gateway *gateway;
    uint32_t index;
    struct io *io;
    struct metrics *metrics;
    uint64_t now_ns;
    uint64_t wall_ms;
    uint64_t expiry_ms; /* messages that expire up to here are not shown; 0: the clock is wrong */
    struct timers timers;
    uint32_t generation;
    struct tls_context *tls_context;
    struct tls_engine *tls_engine;
    struct websocket_engine *websocket_engine;
    struct jwks *jwks;
    struct websocket_limits websocket_limits;
    struct websocket_limits echo_limits;
    struct io_listener listener;
    struct io_listener admin_listener;
    enum gateway_phase phase;
    bool drained;
    bool goodbyes_said;
    uint64_t drain_due_ns;
    /* connections */
    struct pool connections;
    struct pool sessions;
    struct pool relays;
    struct connection *work;      /* with output to send */
    struct connection *stalled;   /* with backlog that waits for room between shards */
    struct relay *relays_waiting; /* with something to tell when there is room */
    struct session *pulls;        /* waiting for room between shards */
    /* users and conversations of this shard */
    struct table users;
    struct table conversations;
    struct message_cache cache;
    struct inbox *user_lru_oldest;
    struct inbox *user_lru_newest;
    size_t conversation_hand; /* of eviction, in the table */
    struct inbox *dirty_users;
    struct conversation *dirty_conversations;
    struct conversation *dirty_slices; /* conversations that owe a home shard something */
    struct entry *dirty_watermarks;
    struct places places;
    struct counting counting;
    struct conversation *retry; /* with parked requests that can go on when there is room */
    /* log */
    struct lanes *lanes; /* that it drives; NULL: none */
    enum log_state log_state;
    struct appends appends[LANES_MAX];
    /* checkpoint */
    uint32_t checkpoint_told;  /* lanes that have told of the round to come */
    uint64_t checkpoint_round; /* under way, 0: none */
    uint32_t checkpoint_jobs;  /* submitted, not done */
    enum err checkpoint_err;   /* sticky: the checkpoint stays where it was until a restart */
    struct conversation *flush_conversations; /* what was dirty when the round came */
    struct inbox *flush_users;
    struct flush_job *flush_waiting; /* rows gathered, not yet submitted */
    struct flush_job *flush_kept;    /* rows that the catalog had no space for: they go first */
    bool flush_no_space;             /* seen in this round: it is given up */
    struct revocation *revocations;  /* not yet told to their shard */
    struct revoked *revoked_oldest;  /* logins of users of this shard that ended (revoked.h) */
    struct revoked *revoked_newest;
    uint32_t revoked_count;
    /* scratch, valid within one step of a turn */
    struct io_event *events;
    uint8_t *plaintext; /* PLAINTEXT_BYTES */
    uint8_t *scratch;   /* scratch_bytes: decoded requests */
    size_t scratch_bytes;
    uint8_t *encoded[2]; /* encoded_bytes each: an event per encoding */
    size_t encoded_bytes;
    struct request *requests;
    struct bytes features[4];
};

struct shard_options {
    struct gateway *gateway;
    uint32_t index;
    int32_t cpu; /* -1: not pinned */
};

/* shard_create: on the shard's own thread. Its lanes of the log are recovered here. Shard 0 opens
 * the store: the others wait for it in main, and nobody turns before all are made. */
MUST_USE enum err shard_create(struct shard **shard, const struct shard_options *options,
                               char *explanation, size_t explanation_size);
/* shard_listen: open the listeners: shard 0 first (it probes and may resolve port 0). */
MUST_USE enum err shard_listen(struct shard *shard, char *explanation, size_t explanation_size);
/* shard_turn: one turn; sleeps until deadline_ns at most when there is nothing to do. Returns
 * whether it did anything. */
bool shard_turn(struct shard *shard, uint64_t deadline_ns);
/* shard_next_ns: when it wants its next turn at the latest. */
uint64_t shard_next_ns(const struct shard *shard);
bool shard_stopped(const struct shard *shard);
void shard_destroy(struct shard *shard);
/* shard_crash: tests: give the memory back without any order. */
void shard_abandon(struct shard *shard);

/* shard_sockets_max: sockets that one shard is made for. */
uint32_t shard_sockets_max(uint32_t connections_max, uint32_t shards);

/* shard_of_user, shard_of_conversation: who owns what. */
uint32_t shard_of_user(const struct gateway *gateway, struct user_id user);
uint32_t shard_of_conversation(const struct gateway *gateway, struct conversation_id conversation);

/* shard_of_lane: who drives it. shard_lane: the node of the conversation's lane in the mesh. */
uint32_t shard_of_lane(const struct gateway *gateway, uint32_t lane);
uint32_t shard_lane(const struct gateway *gateway, struct conversation_id conversation);
/* gateway_log_state: the worst of all lanes: the box is read-only, not a part of it. */
enum log_state gateway_log_state(const struct gateway *gateway);

/* shard_over_budget: state takes more than its share of limits.state_bytes and may be evicted now
 * (never while rows of it are on their way to the catalog: a load would read older ones). */
bool shard_over_budget(const struct shard *shard);

static inline void shard_count(struct shard *shard, enum metric id, uint64_t n)
{
    metric_add(shard->metrics, id, n);
}

#endif
