/* connection.h: one client connection: which layer it has reached, and what it holds while bytes
 * are in motion.
 * Flow:       listener → connection → ingress … egress
 * Owns:       its TLS state, parsers while something is incomplete, its output while something is
 *             unsent, its session
 * Invariants: an idle connection of any state holds no buffer: output, backlog, http are NULL;
 *             one receive armed exactly when `receiving`; one send in flight exactly when
 *             output->sending
 *
 *   PROXY → TLS → HTTP → EXCHANGE → UPGRADED → AUTHENTICATING → SESSION   (wss)
 *                   ↑        ├─→ ECHO                                     [bench] echo
 *                   └────────┘                                   REST, one request at a time
 *   any → CLOSING (output is flushed first) → DEAD (until IO_CLOSED)
 *   AUTHENTICATING → MOVING → (gone here; AUTHENTICATING on the target)
 *                           or, where the target has no slot: RELAYED here, and a connection
 *                           without a socket (remote) that is AUTHENTICATING there (relay.h)
 *
 * Bounds:     backlog ≤ one frame + one receive buffer; output ≤ limits.output_bytes + one message
 *             (connection_behind) */
#ifndef GATEWAY_FLOW_CONNECTION_H
#define GATEWAY_FLOW_CONNECTION_H

#include "core/io.h"
#include "core/pool.h"
#include "core/timer.h"
#include "gateway/wire/protocol.h"
#include "gateway/wire/websocket.h"

enum connection_state {
    CONNECTION_PROXY,
    CONNECTION_TLS,
    CONNECTION_HTTP,
    CONNECTION_EXCHANGE,
    CONNECTION_UPGRADED,
    CONNECTION_AUTHENTICATING,
    CONNECTION_MOVING,
    CONNECTION_RELAYED,
    CONNECTION_SESSION,
    CONNECTION_ECHO,
    CONNECTION_CLOSING,
    CONNECTION_DEAD,
    CONNECTION_STATE_COUNT
};

/* output: exists only while something is unsent. */
struct output {
    struct buffer elements; /* the protocol frame being gathered, complete elements */
    struct buffer plain;    /* complete WebSocket frames, or an HTTP answer, not yet sealed */
    struct buffer cipher;   /* sealed, not yet given to the kernel */
    struct buffer flight;   /* given to the kernel */
    uint32_t element_count;
    bool sending;
};

/* backlog: input that could not be worked off yet: a frame, in ENCODING_PROTO, from its `next`
 * request on, then plaintext behind it. */
struct backlog {
    struct buffer frame;
    struct buffer plain;
    uint32_t next;
    bool has_frame;
};

struct connection {
    struct io_conn io;
    union {
        struct tls *tls;
        struct relay *relay; /* remote: the home's end; NULL: the guest's is gone */
    };
    struct websocket websocket;
    struct output *output;
    struct backlog *backlog;
    union {
        struct http_reader *http; /* PROXY … EXCHANGE */
        struct session *session;  /* SESSION */
        struct login *login;      /* UPGRADED … MOVING: cookie token, job, what comes of it */
        struct relay *guest;      /* RELAYED: the guest's end */
    };
    struct timer timer;
    uint64_t accepted_ns;
    uint64_t received_ns;
    struct connection *work_next; /* the shard's list of connections with output */
    struct connection
        *stall_next; /* the shard's list of connections whose backlog waits for room */
    struct io_address peer;
    uint8_t state; /* enum connection_state */
    uint8_t encoding;
    bool admin;
    bool remote; /* socket and TLS are on another shard: bytes are clear and come by relay.h */
    bool listed;
    bool stall_listed;
    bool receiving;
    bool doomed;      /* no memory for its output: aborted by the next flush */
    bool counted;     /* in its address's count of un-upgraded connections */
    bool refused;     /* over max_connections: answered with 503 */
    bool close_sent;  /* WebSocket close frame or HTTP close */
    bool peer_closed; /* end of stream, or of WebSocket, seen */
    bool notified;    /* TLS close_notify sent */
    bool cookie;      /* login's token came in a cookie of an allowed Origin */
    bool head;        /* the exchange answers HEAD */
    bool keep_alive;
};

struct shard;
struct relay;

/* connection_open: a struct for a socket that was accepted or moved in; NULL when the pool is full.
 */
struct connection *connection_open(struct shard *shard, struct io_conn io,
                                   const struct io_address *peer);
/* connection_open_remote: without a socket: the home's end of a relay. NULL: the pool is full. */
struct connection *connection_open_remote(struct shard *shard, struct relay *relay,
                                          const struct io_address *peer);
void connection_set_state(struct connection *connection, enum connection_state state);
/* connection_arm: receive if the state wants bytes and nothing is armed. */
void connection_arm(struct shard *shard, struct connection *connection);
/* connection_has_room: little enough is unsent to work on another request of this client. */
bool connection_has_room(const struct shard *shard, const struct connection *connection);
/* connection_close: flush what is in output, then close; further input is ignored. */
void connection_close(struct shard *shard, struct connection *connection);
/* connection_abort: close now. */
void connection_abort(struct shard *shard, struct connection *connection);
/* connection_on_closed: the socket, or the relay, is gone: everything else goes. */
void connection_on_closed(struct shard *shard, struct connection *connection);
/* connection_free: after IO_CLOSED or a finished move. */
void connection_free(struct shard *shard, struct connection *connection);
/* connection_release: give all that a connection holds back, except the socket. */
void connection_release(struct shard *shard, struct connection *connection);
/* connection_uncount: it is upgraded (or gone): its address may open another. */
void connection_uncount(struct shard *shard, struct connection *connection);
uint64_t connection_handle(struct shard *shard, const struct connection *connection);
struct connection *connection_get(struct shard *shard, uint64_t handle);

MUST_USE enum err backlog_keep(struct connection *connection, struct bytes frame, uint32_t next,
                               struct bytes plain);
void backlog_free(struct connection *connection);

#endif
