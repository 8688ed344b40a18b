/* io.h: the one door to sockets, files' asynchronous use, time and entropy.
 * Flow:       flow/ and loadgen/ → here → the kernel (core/io_uring*.c) or the simulated world
 *             (tests/sim/sim_io.c); which of the two is decided by the object list at link time
 * Owns:       rings, descriptor slots, receive buffers; one struct io belongs to one thread
 * Invariants: a handle carries a generation: a stale one never reaches another peer, calls with it
 *             do nothing; so do calls on a connection after io_close, until its IO_CLOSED;
 *             every accepted, connected or moved-in connection ends in exactly one IO_CLOSED or
 *             IO_MOVED_OUT (a failed or cancelled io_connect: in its IO_CONNECTED);
 *             every io_receive is answered by one IO_RECEIVED, every io_send by one IO_SENT, also
 *             when the connection is closed; at most one of each per connection is in flight
 * Failure:    events carry enum err; errno never leaves the implementation
 * Bounds:     connections_max, files_max, buffers_count of struct io_options, all allocated by
 *             io_create */
#ifndef CORE_IO_H
#define CORE_IO_H

#include "core/bytes.h"

struct io;

struct io_conn {
    uint64_t v; /* 0: none */
};

struct io_listener {
    uint32_t v; /* 0: none */
};

/* io_address: IPv4 is kept v4-mapped (::ffff:a.b.c.d, RFC 4291 2.5.5.2). */
struct io_address {
    uint8_t ip[16];
    uint16_t port; /* host order */
};

struct io_options {
    uint32_t index; /* this io's number among `count` peers that may move connections to each other,
                       0 … */
    uint32_t count;
    uint32_t connections_max; /* banks are made so that this many fit under RLIMIT_NOFILE, with 10 %
                                 spare */
    uint32_t buffers_count;   /* receive buffers, lent while bytes are in motion */
    uint32_t buffer_bytes;    /* size of one */
    uint32_t files_max;       /* asynchronous file operations in flight */
    int32_t cpu;              /* pin the creating thread to this CPU, -1: leave it */
};

/* The set of ios of one process that can wake, and move connections to, each other. Created before
 * the threads; raises RLIMIT_NOFILE's soft limit to the hard one. Outlives its ios. */
struct io_group;
MUST_USE enum err io_group_create(struct io_group **group, uint32_t count);
void io_group_destroy(struct io_group *group);

/* io_rings_needed: how many rings an io of so many connections is made of under this process's
 * RLIMIT_NOFILE, of which *limit is told (the hard one); 0: it is too low. */
uint32_t io_rings_needed(uint32_t *limit, uint32_t connections_max);

/* io_create: call on the thread that will use it. ERR_NO_DESCRIPTORS, ERR_NO_MEMORY,
 * ERR_UNSUPPORTED (io_uring is off). When it fails, *io is good for io_explain, which says what to
 * do, and io_destroy only. */
MUST_USE enum err io_create(struct io **io, struct io_group *group,
                            const struct io_options *options);
/* io_destroy: on its thread, or on any after that thread has ended. */
void io_destroy(struct io *io);

/* io_explain: one line for a person on the newest failure of io_create, io_listen or io_connect; ""
 * if none. */
const char *io_explain(const struct io *io);

/* io_features: what was probed and is in use, "single_issuer defer_taskrun …", for the start line
 * and tests. */
const char *io_features(const struct io *io);

/* ---- time and entropy */

/* io_now_ns: boot clock (CLOCK_BOOTTIME), read once per io_poll. */
uint64_t io_now_ns(const struct io *io);
/* io_wall_ms: milliseconds since 1970 UTC, read once per io_poll; may step. */
uint64_t io_wall_ms(const struct io *io);
void io_entropy(struct io *io, void *out, size_t size);

/* ---- events */

enum io_event_kind {
    IO_ACCEPTED,  /* conn, listener, peer, local; nothing is armed yet */
    IO_CONNECTED, /* answer to io_connect: err OK, else the connection is gone (no IO_CLOSED
                     follows) */
    IO_RECEIVED,  /* err OK: data (size > 0), lent until io_release; ERR_CLOSED: end of stream;
                     ERR_RESET … */
    IO_SENT,      /* err OK: the whole of io_send's data went out; else nothing is known of it */
    IO_CLOSED,    /* answer to io_close: the slot is free */
    IO_MOVED_IN,  /* a peer io moved a connection here: conn, cargo; nothing is armed */
    IO_MOVED_OUT, /* answer to io_move: conn and cargo belong to the target now; do not touch cargo
                   */
    IO_MOVE_FAILED, /* answer to io_move: err; conn and cargo are still here, working */
    IO_FILE_DONE,   /* op */
};

struct io_event {
    enum io_event_kind kind;
    enum err err;
    struct io_conn conn;
    uint64_t owner;    /* what io_set_owner said last, 0 before */
    struct bytes data; /* IO_RECEIVED */
    uint32_t buffer;   /* IO_RECEIVED, for io_release */
    struct io_listener listener;
    struct io_address peer; /* IO_ACCEPTED */
    void *cargo;            /* IO_MOVED_IN, IO_MOVED_OUT, IO_MOVE_FAILED */
    struct io_file_op *op;  /* IO_FILE_DONE */
};

/* io_poll: submit what is prepared; if nothing is ready, sleep until something is, io_wake is
 * called or the boot clock reaches deadline_ns (0: do not sleep; UINT64_MAX: no deadline). Fills up
 * to capacity events, returns how many; what did not fit comes with the next call. Reads the
 * clocks. */
size_t io_poll(struct io *io, struct io_event *events, size_t capacity, uint64_t deadline_ns);

/* io_wake: end the sleep of the group's io `index`, from any thread. Cheap when it is not asleep:
 * then its next io_poll does not sleep. */
void io_wake(struct io_group *group, uint32_t index);

/* ---- connections */

struct io_listen_options {
    struct io_address address;
    uint32_t backlog;
    uint32_t accepts; /* one-shot accepts kept armed */
    bool reuse_port;  /* one listener per shard on the same port */
    uint32_t extra;   /* connections that it may still take when connections_max are in use, as far
                         as half of the spare slots go: for a listener that must answer then */
};

/* io_listen: bind, listen and arm accepts. out_address gets the bound address (port 0: the kernel's
 * choice). ERR_ADDRESS with io_explain. */
MUST_USE enum err io_listen(struct io *io, struct io_listener *listener,
                            struct io_address *out_address,
                            const struct io_listen_options *options);
/* io_listen_probe: bind once without SO_REUSEPORT, retrying for up to 3 s, and close again: a dying
 * predecessor's listeners would take connections and lose them. ERR_ADDRESS: somebody else listens.
 */
MUST_USE enum err io_listen_probe(struct io *io, const struct io_address *address);
/* io_accept_pause, io_accept_resume: stop and go on accepting; connections wait in the kernel's
 * backlog. */
void io_accept_pause(struct io *io, struct io_listener listener);
void io_accept_resume(struct io *io, struct io_listener listener);
/* io_listen_close: accepts are cancelled, the port is given up; no event. */
void io_listen_close(struct io *io, struct io_listener listener);

/* io_connect: start a TCP connection; source may be NULL (port 0: any). ERR_FULL: connections_max.
 */
MUST_USE enum err io_connect(struct io *io, struct io_conn *conn, const struct io_address *target,
                             const struct io_address *source, uint64_t owner);

void io_set_owner(struct io *io, struct io_conn conn, uint64_t owner);

/* io_receive: arm one receive: one IO_RECEIVED follows. While the peer is silent no receive buffer
 * is held. Without a free buffer the implementation waits for io_release; that is not an error. */
void io_receive(struct io *io, struct io_conn conn);
/* io_release: give the lent buffer of an IO_RECEIVED back. */
void io_release(struct io *io, uint32_t buffer);

/* io_send: all of data, which stays valid and unchanged until IO_SENT. One at a time per connection
 * (CHECKed). */
void io_send(struct io *io, struct io_conn conn, struct bytes data);

/* io_close: cancel what is armed, then close; IO_RECEIVED or IO_SENT may still come with
 * ERR_CANCELLED; IO_CLOSED is last. */
void io_close(struct io *io, struct io_conn conn);

/* io_move: hand the connection to the group's io `target`. Allowed only with no send in flight; an
 * armed receive is cancelled first, and its IO_RECEIVED (ERR_CANCELLED, or with data, which then
 * travels in cargo by the caller's care: in that case the move is given up with IO_MOVE_FAILED,
 * ERR_AGAIN) comes before the answer. */
void io_move(struct io *io, struct io_conn conn, uint32_t target, void *cargo);

/* io_connections: slots in use, for metrics and tests. */
uint32_t io_connections(const struct io *io);

/* ---- asynchronous file operations; opening, sizes, names: core/file.h */

struct io_file_op {
    uint64_t owner; /* the caller's */
    /* private until IO_FILE_DONE */
    int fd; /* from file_open */
    uint8_t *data;
    size_t size;
    uint64_t offset;
    enum err err;      /* result; ERR_IO, ERR_NO_SPACE … */
    size_t done_bytes; /* reads: how many (short at the end of the file); writes: all or an error */
    uint32_t flags;
};

/* io_file_write: write all of data, then, with sync, fdatasync; one IO_FILE_DONE when both
 * completed. Both results count. Data stays valid until then. op is the caller's memory. ERR_FULL:
 * files_max in flight. */
MUST_USE enum err io_file_write(struct io *io, struct io_file_op *op, int fd, uint64_t offset,
                                struct bytes data, bool sync);
MUST_USE enum err io_file_read(struct io *io, struct io_file_op *op, int fd, uint64_t offset,
                               uint8_t *data, size_t size);

/* io_file_submit: what was prepared goes to the kernel now, not with the next io_poll. */
void io_file_submit(struct io *io);
/* io_file_advance: what file operations have to do next is begun now, not with the next io_poll: a
 * sync whose write has completed. For whoever computes for long while one is in flight; costs one
 * look if there is nothing to begin. No event is reaped. */
void io_file_advance(struct io *io);

/* io_file_pin: memory that io_file_write will often be given parts of: the kernel looks its pages
 * up once instead of at every write. One region per io; it stays until io_file_unpin of the same
 * data, with no write from it in flight. ERR_FULL: there is one already; ERR_UNSUPPORTED: not here
 * (RLIMIT_MEMLOCK, another thread): nothing depends on it. */
MUST_USE enum err io_file_pin(struct io *io, uint8_t *data, size_t size);
void io_file_unpin(struct io *io, const uint8_t *data);

#endif
