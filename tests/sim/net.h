/* net.h: the simulated network's books, shared by sim_io.c (the seam) and link.c (what happens
 * between two ends).
 * Flow:       io_send → link_push → (latency) → arrived → post(READABLE) → io_poll → io_receive's
 *             answer
 * Owns:       groups, ios, links, listeners: all kept until the world ends, because events in the
 *             queue name them
 * Invariants: a pipe: arrived ≤ size ≤ capacity; bytes of one direction arrive in order; a link's
 *             end belongs to at most one slot. Completions are kept raw (struct raw) and judged by
 *             the slot's state when io_poll takes them, as a ring's are. */
#ifndef TESTS_SIM_NET_H
#define TESTS_SIM_NET_H

#include "core/io.h"
#include "tests/sim/world.h"

struct link;

enum slot_state {
    SLOT_FREE,
    SLOT_CONNECTING,
    SLOT_OPEN,
    SLOT_DETACHING, /* io_move: the armed receive is being cancelled */
    SLOT_MOVING,    /* under way; closing must wait for its end */
    SLOT_CLOSING,   /* io_close: what is armed is being cancelled */
    SLOT_CLOSED,
};

struct slot {
    enum slot_state state;
    uint32_t generation;
    uint64_t owner;
    struct link *link; /* NULL while connecting */
    uint32_t side;
    bool receiving;
    uint64_t receive_number; /* of the newest io_receive: a cancellation is of one of them */
    bool readable_posted;
    bool waits_buffer;
    bool sending; /* until IO_SENT is handed out */
    bool sent_posted;
    bool close_wanted;
    struct bytes send; /* what is not yet on the wire */
    uint32_t move_target;
    void *cargo;
    struct io_address target; /* of io_connect */
    struct io_address source;
    uint32_t connect_tries;
};

enum raw_kind {
    RAW_FREE,
    RAW_READABLE,
    RAW_CANCELLED, /* the armed receive */
    RAW_SENT,
    RAW_CLOSED,
    RAW_CONNECTED,
    RAW_ACCEPT,
    RAW_MOVE_FAILED,
    RAW_MOVED_OUT,
    RAW_MOVED_IN,
    RAW_FILE,
};

struct raw {
    enum raw_kind kind;
    enum err err;
    uint32_t slot;
    uint32_t generation;
    uint32_t listener;
    uint64_t receive_number; /* RAW_CANCELLED */
    struct io_file_op *op;
    uint64_t journal_end; /* RAW_FILE: what its sync covers */
    bool applied;         /* RAW_FILE: the write is in the page cache */
    uint32_t next_free;
};

struct listener {
    struct io_listen_options options;
    struct io_address address;
    bool open;
    bool paused;
    uint32_t armed; /* RAW_ACCEPTs on the way */
    struct link **queue;
    size_t queue_count;
};

struct io {
    uint32_t id; /* over the whole world, for the trace */
    struct world *world;
    struct io_group *group;
    struct io_options options;
    bool dead; /* destroyed or killed */
    bool woken;
    uint64_t now_ns;
    uint64_t wall_ms;
    uint64_t idle_turn; /* the turn of the newest poll that found nothing */
    struct slot *slots;
    uint32_t slots_used;
    struct listener **listeners; /* by number - 1 */
    uint32_t listener_count;
    uint8_t *buffers;
    bool *buffers_lent;
    uint32_t buffers_free;
    struct raw *raws;
    uint32_t raw_count;
    uint32_t raw_free; /* index + 1 */
    uint32_t *ready;   /* raw indices, in order */
    size_t ready_count;
    size_t ready_capacity;
    uint32_t files_inflight;
    const char *explanation;
    struct io *next;
};

struct io_group {
    struct world *world;
    uint32_t count;
    struct io **ios;
    bool gone;
    struct io_group *next;
};

struct pipe {
    uint8_t *data; /* capacity bytes of a ring, made with the first byte */
    size_t head;
    size_t size;    /* in the pipe */
    size_t arrived; /* of those, at the reader */
    uint64_t last_ns;
    bool fin;
};

struct end {
    struct io *io; /* NULL: not accepted yet, or closed */
    uint32_t slot;
    bool closed;
    bool reset; /* the other side's reset has arrived */
    struct io_address address;
};

struct link {
    uint64_t id;
    struct end end[2];   /* 0 connected, 1 accepted */
    struct pipe pipe[2]; /* pipe[i] is written by end i */
    bool silent;
    struct link *next;
};

struct sim_net {
    struct io_group *groups;
    struct io *ios;
    struct link *links;
    uint32_t io_count;
    uint64_t link_count;
    uint16_t port_next;
};

/* sim_io.c */
/* post: a completion for io, delay_ns from now; returns it for what the kind needs beyond err. */
struct raw *post(struct io *io, uint64_t delay_ns, enum raw_kind kind, uint32_t slot, enum err err);
/* slot_readable: something came for the slot's armed receive. */
void slot_readable(struct io *io, uint32_t slot);
/* slot_sent: the send of the slot ended. */
void slot_sent(struct io *io, uint32_t slot, enum err err);
uint32_t slot_take(struct io *io); /* UINT32_MAX: none */
void slot_give(struct io *io, uint32_t slot);

/* link.c */
uint64_t latency(struct world *world);
/* link_connect: the SYN of io's connecting slot arrives. */
void link_connect(struct world *world, void *io, uint64_t slot, uint64_t generation);
/* link_push: put what the slot has to send on the wire, as much as fits. */
void link_push(struct io *io, uint32_t slot);
/* link_pull: up to size bytes that have arrived. ERR_AGAIN: nothing; ERR_CLOSED, ERR_RESET. */
MUST_USE enum err link_pull(struct io *io, uint32_t slot, uint8_t *data, size_t size, size_t *done);
bool link_has_data(const struct link *link, uint32_t side);
/* link_close: this end is gone. tell: the other side hears of it (not after a power cut). */
void link_close(struct world *world, struct link *link, uint32_t side, bool tell);
void listener_kick(struct io *io, uint32_t number);
void listener_close(struct io *io, uint32_t number, bool tell);

#endif
