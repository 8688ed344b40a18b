/* io_uring.h: what the parts of the io_uring side of core/io.h share; private to them.
 * Flow:       core/io_uring.c (turn: submit, sleep, reap, wake) → core/io_uring_conn.c (receive,
 *             send, close, move), core/io_uring_listen.c (listen, accept, connect),
 *             core/io_uring_file.c (file operations); core/io_uring_bank.c sets rings up
 * Owns:       a bank is one ring with its table of direct descriptors. A connection's index in
 *             io.conns is ours; the slot in its bank's table is the kernel's choice
 *             (IORING_FILE_INDEX_ALLOC), so that accepts, connects and moves from other threads
 *             never fight for a slot
 * Invariants: user_data = op << 56 | payload (index of a connection, of an accept, or a pointer);
 *             at most one operation per (connection, op) is in flight, so user_data names it for
 *             a cancel; a connection's index is reused only after its last completion, so
 *             completions need no generation; every completion makes at most one event
 * Bounds:     40 bytes per connection; BANKS_MAX; LISTENERS_MAX */
#ifndef CORE_IO_URING_H
#define CORE_IO_URING_H

#include "core/io.h"

#include <liburing.h>
#include <netinet/in.h>
#include <stdatomic.h>

#define BANKS_MAX       1024u
#define NOFILE_ADVISED  1024u /* enough for a million connections and their rings */
#define LISTENERS_MAX   16u
#define EXPLAIN_BYTES   256u
#define NONE            UINT32_MAX
#define OP_SHIFT        56
#define PAYLOAD_MASK    ((UINT64_C(1) << OP_SHIFT) - 1)
#define ACCEPT_RETRY_NS (20 * NS_PER_MS) /* after an accept failed for want of memory or files */
#define SLOT_ALLOC      (~0u)            /* set by hand: liburing < 2.4 gets it wrong (#840) */

enum op {
    OP_NONE, /* nobody waits for it: cancels */
    OP_WAKE,
    OP_ACCEPT,  /* payload: listener << 32 | accept */
    OP_DISCARD, /* close of a connection accepted while its listener was closing */
    OP_POLL,
    OP_RECV,
    OP_SEND,
    OP_SEND_POLL, /* until there is room to send: only where closes are deferred */
    OP_REGISTER,  /* a connecting socket's way into the bank's table */
    OP_CONNECT,
    OP_CLOSE,
    OP_CANCELLED,   /* no-op: a receive that waited for a buffer was cancelled */
    OP_MOVE,        /* SEND_FD at the source */
    OP_MOVE_CLOSE,  /* the linked close of the source's slot */
    OP_MOVE_FAILED, /* no-op: a move that never reached the kernel */
    OP_MOVED_IN,    /* SEND_FD's completion at the target; payload: cargo */
    OP_FILE_WRITE,  /* payload: op */
    OP_FILE_SYNC,
    OP_FILE_READ,
};

enum conn_state {
    CONN_FREE,
    CONN_REGISTERING,
    CONN_CONNECTING,
    CONN_OPEN,
    CONN_DETACHING, /* io_move: waits until the receive is cancelled */
    CONN_MOVING,    /* SEND_FD is with the kernel */
    CONN_CLOSING,   /* waits until everything armed has completed */
    CONN_CLOSED,    /* CLOSE is with the kernel */
    CONN_STATE_COUNT
};

/* What of a connection is with the kernel, or asked for. */
enum conn_flag {
    ARMED_POLL = 1,
    ARMED_RECV = 2,
    ARMED_SEND = 4,
    ARMED_CANCELLED = 8, /* OP_CANCELLED is on its way */
    WAITS_BUFFER = 16,   /* readable, linked into io.waiting */
    ARMED_MOVE = 32,     /* either of the two completions is still to come */
    ARMED_MOVE_CLOSE = 64,
    CLOSE_WANTED = 128, /* io_close came while connecting or moving */
    RECEIVING = ARMED_POLL | ARMED_RECV | ARMED_CANCELLED | WAITS_BUFFER,
};

struct conn {
    uint64_t owner;
    union {
        const uint8_t *send_data;
        void *cargo; /* DETACHING, MOVING: no send is in flight then */
    };
    uint32_t send_left; /* bytes; the enum err of a failed connect or move */
    uint32_t generation;
    uint32_t next; /* free list, waiting list; RECV in flight: the buffer; else NONE */
    uint32_t prev; /* waiting list; registering: the plain descriptor; moving: the target */
    int32_t slot;  /* in the bank's table */
    uint16_t bank;
    uint8_t state; /* enum conn_state */
    uint8_t flags; /* enum conn_flag */
};
_Static_assert(sizeof(struct conn) == 40, "per-connection cost of io, counted in MEASURED figures");

struct bank {
    struct io_uring ring;
    uint32_t slots;   /* in the table */
    uint32_t reserve; /* of them left to connections that move in */
    uint32_t used;    /* by connections that this thread knows of */
    uint32_t accepts; /* armed: each may take a slot */
    bool live;        /* the ring exists */
    bool notifies;    /* signals the io's eventfd; bank 0 is slept on directly */
};

union socket_address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

struct accept {
    union socket_address peer;
    socklen_t peer_bytes;
    uint16_t bank;
    bool armed;
};

enum listener_state { LISTENER_FREE, LISTENER_OPEN, LISTENER_PAUSED, LISTENER_CLOSING };

struct listener {
    struct accept *accepts;
    uint64_t retry_ns; /* do not arm before */
    uint32_t count;
    uint32_t armed;
    uint32_t extra; /* beyond connections_max */
    uint32_t generation;
    int fd;
    enum listener_state state;
};

/* One io as the other threads of the process see it. */
struct io_peer_bank {
    _Atomic int32_t ring_fd; /* -1: gone */
    _Atomic int32_t room;    /* free slots, about */
};

enum sleep_state { AWAKE, ASLEEP, WOKEN };

struct io_peer {
    _Alignas(64) _Atomic uint32_t sleep; /* enum sleep_state */
    int wake_fd;
    _Atomic uint32_t bank_count;         /* published last */
    struct io_peer_bank *banks;          /* BANKS_MAX */
    _Alignas(64) _Atomic uint32_t moves; /* orders the cargo's bytes before their use */
};

struct io_group {
    uint32_t count;
    struct io_peer peers[];
};

struct io {
    struct io_group *group;
    struct io_peer *self;
    struct io_options options;
    int32_t thread; /* its id */

    struct bank *banks;
    uint32_t bank_count;
    uint32_t bank_first; /* reaped first, rotates */

    struct conn *conns;
    uint32_t conns_count;   /* entries: twice the slots of all banks: one that connects has no slot
                               yet, one that closes none any more, until its completion is seen */
    uint32_t conns_touched; /* entries ever used */
    uint32_t conns_free;    /* list */
    uint32_t conns_used;
    uint32_t accepts_armed;
    union socket_address *connect_to; /* per connection; made by the first io_connect */

    uint8_t *buffers;
    uint32_t *buffers_free; /* stack */
    bool *buffers_lent;
    uint32_t buffers_free_count;
    uint32_t waiting_head, waiting_tail;

    struct listener listeners[LISTENERS_MAX];
    uint32_t files_inflight;
    const uint8_t *pinned; /* io_file_pin: fixed buffer 0 of bank 0 */
    size_t pinned_size;

    uint64_t now_ns;
    uint64_t wall_ms;
    uint64_t wake_value; /* the eventfd is read into it */
    bool wake_armed;
    bool close_defers;     /* kernels before 6.13: a close waits for older operations of the ring */
    uint32_t closes;       /* that wait, about; see polls_refresh */
    uint32_t refresh_left; /* entries that the running refresh has still to look at */
    char explain[EXPLAIN_BYTES];
    char features[EXPLAIN_BYTES];
};

/* ---- core/io_uring_bank.c */

/* banks_create: rings and tables for io->options; on failure what exists is left to banks_destroy
 * and io->explain says why. */
MUST_USE enum err banks_create(struct io *io);
void banks_destroy(struct io *io);
/* explain: keep one line for io_explain. */
void explain(struct io *io, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* bank_sqe: an entry of the submission queue; a full queue is submitted first. Never NULL. */
struct io_uring_sqe *bank_sqe(struct bank *bank);
/* bank_reserve: the next `count` entries will be submitted together (links must be). */
void bank_reserve(struct bank *bank, uint32_t count);
/* bank_submit: submit what is prepared. */
void bank_submit(struct bank *bank);
/* bank_turn: submit what is prepared and run what the kernel deferred; no system call if neither.
 */
void bank_turn(struct bank *bank);
/* bank_run: run what the kernel deferred; submits nothing; no system call if there is none. */
void bank_run(struct bank *bank);
/* bank_pick: the bank with most free slots for an accept or a connect; NULL: none has any, or
 * connections_max and extra are reached. */
struct bank *bank_pick(struct io *io, uint32_t extra);
/* bank_cancel: cancel one operation by its user_data. */
void bank_cancel(struct bank *bank, uint64_t user_data);

static inline uint64_t user_data_of(enum op op, uint64_t payload)
{
    return (uint64_t)op << OP_SHIFT | payload;
}

/* ---- core/io_uring_conn.c */

struct conn *conn_take(struct io *io, struct bank *bank);
void conn_give(struct io *io, struct conn *conn);
struct conn *conn_find(const struct io *io, struct io_conn handle); /* NULL: stale */
struct io_conn conn_handle(const struct io *io, const struct conn *conn);
void conn_set_state(struct conn *conn, enum conn_state state);
void conn_event(const struct io *io, struct io_event *event, enum io_event_kind kind,
                const struct conn *conn, enum err err);
/* conn_close_begin: cancel what is armed; CLOSE follows when all of it has completed. */
void conn_close_begin(struct io *io, struct conn *conn);
/* slot_close: give the slot back to the kernel's table; the peer sees the end now. */
void slot_close(struct io *io, struct bank *bank, int32_t slot, uint64_t user_data);
/* polls_refresh: arm old polls anew where closes wait for them; a bounded part per turn. */
void polls_refresh(struct io *io);
/* conn_on_*: a completion; true: *event is filled. */
bool conn_on_completion(struct io *io, enum op op, struct conn *conn, int res,
                        struct io_event *event);
bool conn_on_moved_in(struct io *io, struct bank *bank, uint64_t cargo, int res,
                      struct io_event *event);

/* ---- core/io_uring_listen.c */

bool accept_on_completion(struct io *io, uint64_t payload, int res, struct io_event *event);
bool connect_on_registered(struct io *io, struct conn *conn, int res, struct io_event *event);
bool connect_on_connected(struct io *io, struct conn *conn, int res, struct io_event *event);
/* accepts_arm: arm what is idle and has room; returns when to try again, UINT64_MAX: no need. */
uint64_t accepts_arm(struct io *io);
void listeners_destroy(struct io *io);

/* ---- core/io_uring_file.c */

bool file_on_completion(struct io *io, enum op kind, struct io_file_op *op, int res,
                        struct io_event *event);

#endif
