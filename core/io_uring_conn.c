/* io_uring_conn.c: receive, send, close and move of one connection.
 *
 *   receive: POLL_ADD, one-shot: a silent connection costs 259 bytes of the kernel's and no buffer
 *            → readable: RECV without waiting, into a buffer of ours (none free: io.waiting, until
 *            io_release) → IO_RECEIVED. Nothing there after all: POLL_ADD again.
 *   send:    SEND with MSG_WAITALL; what a short one left is sent again.
 *   Where closes are deferred (kernels before 6.13, found by a probe) a ring frees a closed socket,
 *   3.9 kB, only after all operations that were armed before. So nothing may stay armed for long:
 *   polls are refreshed (polls_refresh), and a send that finds no room polls, too.
 *   close:   cancel by user_data → all completed → CLOSE → IO_CLOSED. Every armed receive and send
 *            is answered before. (CLOSE alone does not close while anything is armed.)
 *   move:    the receive is cancelled and answered → SEND_FD into the target's table, linked to
 *            CLOSE here. A failed SEND_FD breaks the link: the connection is still ours, and works.
 *            Which bank of the target: the one that says it has most room; when it was wrong the
 *            kernel says ENFILE.
 *
 *   FREE ─ conn_take ─> REGISTERING ─> CONNECTING ─┐            (core/io_uring_listen.c)
 *     └──── accept, moved in ──────────────────> OPEN <─ failed ── MOVING <─ move_continue ┐
 *                 io_close, a failed connect: any ─┤                   └─ done ─> FREE      │
 *                                                  ├── io_move ──> DETACHING ──────────────┘
 *                                                  └─> CLOSING ─> CLOSED ─> FREE */
#include "core/io_uring.h"

#include "core/errno.h"

#include <poll.h>

#define BIT(x)          (1u << (x))
#define REFRESH_CLOSES  256u /* and an eighth of the connections: 8 polls armed anew per close */
#define REFRESH_PORTION 256u /* entries looked at per turn */

void conn_set_state(struct conn *conn, enum conn_state state)
{
    static const uint8_t edges[CONN_STATE_COUNT] = {
        [CONN_FREE] = BIT(CONN_REGISTERING) | BIT(CONN_OPEN),
        [CONN_REGISTERING] = BIT(CONN_CONNECTING) | BIT(CONN_CLOSING) | BIT(CONN_FREE),
        [CONN_CONNECTING] = BIT(CONN_OPEN) | BIT(CONN_CLOSING),
        [CONN_OPEN] = BIT(CONN_DETACHING) | BIT(CONN_CLOSING),
        [CONN_DETACHING] = BIT(CONN_MOVING) | BIT(CONN_OPEN),
        [CONN_MOVING] = BIT(CONN_OPEN) | BIT(CONN_FREE),
        [CONN_CLOSING] = BIT(CONN_CLOSED),
        [CONN_CLOSED] = BIT(CONN_FREE),
    };
    CHECK((edges[conn->state] & BIT(state)) != 0);
    conn->state = (uint8_t)state;
}

static uint32_t conn_index(const struct io *io, const struct conn *conn)
{
    return (uint32_t)(conn - io->conns);
}

static struct bank *conn_bank(struct io *io, const struct conn *conn)
{
    return &io->banks[conn->bank];
}

static uint64_t conn_user_data(const struct io *io, const struct conn *conn, enum op op)
{
    return user_data_of(op, conn_index(io, conn));
}

static void flag_set(struct conn *conn, enum conn_flag flag)
{
    conn->flags = (uint8_t)(conn->flags | (unsigned)flag);
}

static void flag_clear(struct conn *conn, enum conn_flag flag)
{
    conn->flags = (uint8_t)(conn->flags & ~(unsigned)flag);
}

static bool flag_has(const struct conn *conn, enum conn_flag flag)
{
    return (conn->flags & (unsigned)flag) != 0;
}

/* ---- taking, finding, telling */

struct conn *conn_take(struct io *io, struct bank *bank)
{
    struct conn *conn;
    if (io->conns_free != NONE) {
        conn = &io->conns[io->conns_free];
        io->conns_free = conn->next;
    } else {
        CHECK(io->conns_touched < io->conns_count); /* twice as many as slots */
        conn = &io->conns[io->conns_touched++];
    }
    CHECK(conn->state == CONN_FREE);
    conn->generation++;
    if (conn->generation == 0) /* 0 is no generation: a handle is never 0 */
        conn->generation = 1;
    conn->owner = 0;
    conn->cargo = NULL;
    conn->send_left = 0;
    conn->next = conn->prev = NONE;
    conn->slot = -1;
    conn->bank = (uint16_t)(bank - io->banks);
    conn->flags = 0;
    bank->used++;
    io->conns_used++;
    return conn;
}

void conn_give(struct io *io, struct conn *conn)
{
    conn_set_state(conn, CONN_FREE);
    conn_bank(io, conn)->used--;
    io->conns_used--;
    conn->next = io->conns_free;
    io->conns_free = conn_index(io, conn);
}

struct io_conn conn_handle(const struct io *io, const struct conn *conn)
{
    return (struct io_conn){(uint64_t)conn->generation << 32 | conn_index(io, conn)};
}

struct conn *conn_find(const struct io *io, struct io_conn handle)
{
    uint32_t index = (uint32_t)handle.v;
    if (index >= io->conns_touched)
        return NULL;
    struct conn *conn = &io->conns[index];
    return conn->state != CONN_FREE && conn->generation == handle.v >> 32 ? conn : NULL;
}

void conn_event(const struct io *io, struct io_event *event, enum io_event_kind kind,
                const struct conn *conn, enum err err)
{
    memset(event, 0, sizeof *event);
    event->kind = kind;
    event->err = err;
    event->conn = conn_handle(io, conn);
    event->owner = conn->owner;
}

void io_set_owner(struct io *io, struct io_conn handle, uint64_t owner)
{
    struct conn *conn = conn_find(io, handle);
    if (conn != NULL)
        conn->owner = owner;
}

/* later: a no-op whose completion brings a second event, or one that no operation of the
 * kernel's stands for. */
static void later(struct io *io, const struct conn *conn, enum op op)
{
    struct io_uring_sqe *sqe = bank_sqe(conn_bank(io, conn));
    io_uring_prep_nop(sqe);
    io_uring_sqe_set_data64(sqe, conn_user_data(io, conn, op));
}

/* ---- the list of connections that wait for a buffer */

static void waiting_push(struct io *io, struct conn *conn)
{
    uint32_t index = conn_index(io, conn);
    conn->next = NONE;
    conn->prev = io->waiting_tail;
    if (io->waiting_tail != NONE)
        io->conns[io->waiting_tail].next = index;
    else
        io->waiting_head = index;
    io->waiting_tail = index;
    flag_set(conn, WAITS_BUFFER);
}

static void waiting_remove(struct io *io, struct conn *conn)
{
    if (conn->prev != NONE)
        io->conns[conn->prev].next = conn->next;
    else
        io->waiting_head = conn->next;
    if (conn->next != NONE)
        io->conns[conn->next].prev = conn->prev;
    else
        io->waiting_tail = conn->prev;
    conn->next = conn->prev = NONE;
    flag_clear(conn, WAITS_BUFFER);
}

/* ---- receive */

static void poll_arm(struct io *io, struct conn *conn)
{
    struct io_uring_sqe *sqe = bank_sqe(conn_bank(io, conn));
    io_uring_prep_poll_add(sqe, conn->slot, POLLIN);
    sqe->flags |= IOSQE_FIXED_FILE;
    io_uring_sqe_set_data64(sqe, conn_user_data(io, conn, OP_POLL));
    flag_set(conn, ARMED_POLL);
}

static void recv_start(struct io *io, struct conn *conn)
{
    if (io->buffers_free_count == 0) {
        waiting_push(io, conn);
        return;
    }
    uint32_t buffer = io->buffers_free[--io->buffers_free_count];
    io->buffers_lent[buffer] = true;
    uint8_t *data = io->buffers + (size_t)buffer * io->options.buffer_bytes;
    struct io_uring_sqe *sqe = bank_sqe(conn_bank(io, conn));
    io_uring_prep_recv(sqe, conn->slot, data, io->options.buffer_bytes, MSG_DONTWAIT);
    sqe->flags |= IOSQE_FIXED_FILE;
    io_uring_sqe_set_data64(sqe, conn_user_data(io, conn, OP_RECV));
    conn->next = buffer;
    flag_set(conn, ARMED_RECV);
}

void io_release(struct io *io, uint32_t buffer)
{
    CHECK(buffer < io->options.buffers_count && io->buffers_lent[buffer]);
    io->buffers_lent[buffer] = false;
    io->buffers_free[io->buffers_free_count++] = buffer;
    if (io->waiting_head == NONE)
        return;
    struct conn *conn = &io->conns[io->waiting_head];
    waiting_remove(io, conn);
    recv_start(io, conn);
}

void io_receive(struct io *io, struct io_conn handle)
{
    struct conn *conn = conn_find(io, handle);
    if (conn == NULL || conn->state == CONN_CLOSING || conn->state == CONN_CLOSED)
        return;
    CHECK(conn->state == CONN_OPEN && !flag_has(conn, RECEIVING));
    poll_arm(io, conn);
}

/* receive_cancel: what is armed comes back; a RECV does so by itself, it never waits. */
static void receive_cancel(struct io *io, struct conn *conn)
{
    if (flag_has(conn, ARMED_POLL))
        bank_cancel(conn_bank(io, conn), conn_user_data(io, conn, OP_POLL));
    if (!flag_has(conn, WAITS_BUFFER))
        return;
    waiting_remove(io, conn);
    flag_set(conn, ARMED_CANCELLED);
    later(io, conn, OP_CANCELLED);
}

static void close_continue(struct io *io, struct conn *conn);
static void move_continue(struct io *io, struct conn *conn);
static void move_fail(struct io *io, struct conn *conn, enum err err);

/* received: the answer to io_receive, and what waited for it goes on. */
static bool received(struct io *io, struct conn *conn, enum err err, struct io_event *event)
{
    bool leaving = conn->state == CONN_CLOSING || conn->state == CONN_DETACHING;
    conn_event(io, event, IO_RECEIVED, conn, leaving ? ERR_CANCELLED : err);
    if (conn->state == CONN_CLOSING)
        close_continue(io, conn);
    else if (conn->state == CONN_DETACHING)
        move_continue(io, conn);
    return true;
}

static bool on_poll(struct io *io, struct conn *conn, int res, struct io_event *event)
{
    flag_clear(conn, ARMED_POLL);
    if (conn->state != CONN_OPEN)
        return received(io, conn, ERR_CANCELLED, event);
    if (res == -ECANCELED) { /* by polls_refresh */
        poll_arm(io, conn);
        return false;
    }
    if (res < 0 && res != -EINTR && res != -EAGAIN)
        return received(io, conn, err_from_errno(-res), event);
    recv_start(io, conn);
    return false;
}

static bool on_recv(struct io *io, struct conn *conn, int res, struct io_event *event)
{
    uint32_t buffer = conn->next;
    conn->next = NONE;
    flag_clear(conn, ARMED_RECV);
    if (res <= 0 || conn->state == CONN_CLOSING) {
        io_release(io, buffer);
        if (res != -EAGAIN && res != -EINTR)
            return received(io, conn, res == 0 ? ERR_CLOSED : err_from_errno(-res), event);
        if (conn->state != CONN_OPEN)
            return received(io, conn, ERR_CANCELLED, event);
        poll_arm(io, conn);
        return false;
    }
    conn_event(io, event, IO_RECEIVED, conn, OK);
    event->data = bytes_of(io->buffers + (size_t)buffer * io->options.buffer_bytes, (size_t)res);
    event->buffer = buffer;
    if (conn->state == CONN_DETACHING) /* these bytes belong before the move */
        move_fail(io, conn, ERR_AGAIN);
    return true;
}

/* ---- send */

static void send_submit(struct io *io, struct conn *conn)
{
    struct io_uring_sqe *sqe = bank_sqe(conn_bank(io, conn));
    io_uring_prep_send(sqe, conn->slot, conn->send_data, conn->send_left,
                       MSG_NOSIGNAL | (io->close_defers ? MSG_DONTWAIT : MSG_WAITALL));
    sqe->flags |= IOSQE_FIXED_FILE;
    io_uring_sqe_set_data64(sqe, conn_user_data(io, conn, OP_SEND));
    flag_set(conn, ARMED_SEND);
}

void io_send(struct io *io, struct io_conn handle, struct bytes data)
{
    struct conn *conn = conn_find(io, handle);
    if (conn == NULL || conn->state == CONN_CLOSING || conn->state == CONN_CLOSED)
        return;
    CHECK(conn->state == CONN_OPEN && !flag_has(conn, ARMED_SEND));
    CHECK(data.size > 0 && data.size <= INT32_MAX);
    conn->send_data = data.data;
    conn->send_left = (uint32_t)data.size;
    send_submit(io, conn);
}

static void send_poll(struct io *io, struct conn *conn)
{
    struct io_uring_sqe *sqe = bank_sqe(conn_bank(io, conn));
    io_uring_prep_poll_add(sqe, conn->slot, POLLOUT);
    sqe->flags |= IOSQE_FIXED_FILE;
    io_uring_sqe_set_data64(sqe, conn_user_data(io, conn, OP_SEND_POLL));
    flag_set(conn, ARMED_SEND);
}

static void send_cancel(struct io *io, struct conn *conn)
{
    bank_cancel(conn_bank(io, conn), conn_user_data(io, conn, OP_SEND));
    if (io->close_defers)
        bank_cancel(conn_bank(io, conn), conn_user_data(io, conn, OP_SEND_POLL));
}

/* on_send: after SEND, or after POLL_ADD, whose res counts no bytes. */
static bool on_send(struct io *io, struct conn *conn, enum op op, int res, struct io_event *event)
{
    flag_clear(conn, ARMED_SEND);
    if (conn->state == CONN_OPEN && op == OP_SEND_POLL) { /* an error: the send will say */
        send_submit(io, conn);
        return false;
    }
    if (conn->state == CONN_OPEN && res == -EAGAIN && io->close_defers) {
        send_poll(io, conn);
        return false;
    }
    if (res > 0 && op == OP_SEND) {
        CHECK((uint32_t)res <= conn->send_left);
        conn->send_data += res;
        conn->send_left -= (uint32_t)res;
    }
    bool again = res > 0 || res == -EINTR || res == -EAGAIN;
    if (conn->send_left > 0 && again && conn->state == CONN_OPEN) {
        send_submit(io, conn);
        return false;
    }
    enum err err = ERR_RESET; /* also for 0 */
    if (conn->send_left == 0)
        err = OK;
    else if (conn->state == CONN_CLOSING)
        err = ERR_CANCELLED;
    else if (res < 0)
        err = err_from_errno(-res);
    conn_event(io, event, IO_SENT, conn, err);
    if (conn->state == CONN_CLOSING)
        close_continue(io, conn);
    return true;
}

/* ---- close */

void slot_close(struct io *io, struct bank *bank, int32_t slot, uint64_t user_data)
{
    struct io_uring_sqe *sqe;
    if (io->close_defers) {
        io->closes++;
        bank_reserve(bank, 2);
        sqe = bank_sqe(bank);
        io_uring_prep_shutdown(sqe, slot, SHUT_RDWR);
        sqe->flags |= IOSQE_FIXED_FILE | IOSQE_IO_HARDLINK; /* close whatever becomes of it */
        io_uring_sqe_set_data64(sqe, user_data_of(OP_NONE, 0));
    }
    sqe = bank_sqe(bank);
    io_uring_prep_close_direct(sqe, (unsigned)slot);
    io_uring_sqe_set_data64(sqe, user_data);
}

static void close_continue(struct io *io, struct conn *conn)
{
    if (flag_has(conn, (enum conn_flag)(RECEIVING | ARMED_SEND)))
        return;
    conn->send_left = OK;
    conn_set_state(conn, CONN_CLOSED);
    slot_close(io, conn_bank(io, conn), conn->slot, conn_user_data(io, conn, OP_CLOSE));
}

void conn_close_begin(struct io *io, struct conn *conn)
{
    conn_set_state(conn, CONN_CLOSING);
    receive_cancel(io, conn);
    if (flag_has(conn, ARMED_SEND))
        send_cancel(io, conn);
    close_continue(io, conn);
}

void polls_refresh(struct io *io)
{
    if (io->refresh_left == 0) {
        if (!io->close_defers || io->closes < REFRESH_CLOSES + io->conns_used / 8)
            return;
        io->closes = 0;
        io->refresh_left = io->conns_touched;
    }
    uint32_t end = io->refresh_left > REFRESH_PORTION ? io->refresh_left - REFRESH_PORTION : 0;
    while (io->refresh_left > end) {
        const struct conn *conn = &io->conns[--io->refresh_left];
        if (conn->state != CONN_OPEN)
            continue;
        if (flag_has(conn, ARMED_POLL))
            bank_cancel(conn_bank(io, conn), conn_user_data(io, conn, OP_POLL));
        if (flag_has(conn, ARMED_SEND))
            bank_cancel(conn_bank(io, conn), conn_user_data(io, conn, OP_SEND_POLL));
    }
}

void io_close(struct io *io, struct io_conn handle)
{
    struct conn *conn = conn_find(io, handle);
    if (conn == NULL)
        return;
    switch ((enum conn_state)conn->state) {
    case CONN_OPEN:
        conn_close_begin(io, conn);
        return;
    case CONN_CONNECTING:
        if (!flag_has(conn, CLOSE_WANTED))
            bank_cancel(conn_bank(io, conn), conn_user_data(io, conn, OP_CONNECT));
        flag_set(conn, CLOSE_WANTED);
        return;
    case CONN_REGISTERING:
    case CONN_DETACHING:
    case CONN_MOVING:
        flag_set(conn, CLOSE_WANTED);
        return;
    case CONN_CLOSING:
    case CONN_CLOSED:
    case CONN_FREE:
    case CONN_STATE_COUNT:
        return;
    }
}

static bool on_close(struct io *io, struct conn *conn, int res, struct io_event *event)
{
    if (res == -ENOMEM || res == -EAGAIN || res == -EINTR) {
        slot_close(io, conn_bank(io, conn), conn->slot, conn_user_data(io, conn, OP_CLOSE));
        return false;
    }
    CHECK(res == 0);
    enum err failed = (enum err)conn->send_left; /* see connect_fail */
    conn_event(io, event, failed == OK ? IO_CLOSED : IO_CONNECTED, conn, failed);
    conn_give(io, conn);
    return true;
}

/* ---- move */

static struct io_peer_bank *target_bank(struct io_peer *peer)
{
    struct io_peer_bank *best = NULL;
    int32_t best_room = 0;
    uint32_t count = atomic_load_explicit(&peer->bank_count, memory_order_acquire);
    for (uint32_t i = 0; i < count; i++) {
        int32_t room = atomic_load_explicit(&peer->banks[i].room, memory_order_relaxed);
        if (room > best_room) {
            best = &peer->banks[i];
            best_room = room;
        }
    }
    return best;
}

static void move_fail(struct io *io, struct conn *conn, enum err err)
{
    conn->send_left = err;
    later(io, conn, OP_MOVE_FAILED);
}

static void move_submit(struct io *io, struct conn *conn, struct io_peer *peer, int32_t ring_fd)
{
    struct bank *bank = conn_bank(io, conn);
    bank_reserve(bank, 2);
    struct io_uring_sqe *sqe = bank_sqe(bank);
    io_uring_prep_rw(IORING_OP_MSG_RING, sqe, ring_fd, (const void *)(uintptr_t)IORING_MSG_SEND_FD,
                     0, user_data_of(OP_MOVED_IN, (uint64_t)(uintptr_t)conn->cargo));
    sqe->addr3 = (uint32_t)conn->slot;
    sqe->file_index = SLOT_ALLOC;
    sqe->flags |= IOSQE_IO_LINK;
    io_uring_sqe_set_data64(sqe, conn_user_data(io, conn, OP_MOVE));
    sqe = bank_sqe(bank);
    io_uring_prep_close_direct(sqe, (unsigned)conn->slot);
    io_uring_sqe_set_data64(sqe, conn_user_data(io, conn, OP_MOVE_CLOSE));
    atomic_fetch_add_explicit(&peer->moves, 1, memory_order_release);
    conn_set_state(conn, CONN_MOVING);
    flag_set(conn, ARMED_MOVE);
    flag_set(conn, ARMED_MOVE_CLOSE);
    conn->send_left = OK;
}

/* move_continue: the target is in prev, the connection is in no list now. */
static void move_continue(struct io *io, struct conn *conn)
{
    if (flag_has(conn, RECEIVING))
        return;
    struct io_peer *peer = &io->group->peers[conn->prev];
    if (flag_has(conn, CLOSE_WANTED)) {
        move_fail(io, conn, ERR_CANCELLED);
        return;
    }
    struct io_peer_bank *bank = target_bank(peer);
    int32_t ring_fd =
        bank == NULL ? -1 : atomic_load_explicit(&bank->ring_fd, memory_order_relaxed);
    if (ring_fd < 0) {
        move_fail(io, conn, ERR_FULL);
        return;
    }
    atomic_fetch_sub_explicit(&bank->room, 1, memory_order_relaxed); /* until it says better */
    move_submit(io, conn, peer, ring_fd);
}

void io_move(struct io *io, struct io_conn handle, uint32_t target, void *cargo)
{
    struct conn *conn = conn_find(io, handle);
    if (conn == NULL || conn->state == CONN_CLOSING || conn->state == CONN_CLOSED)
        return;
    CHECK(target < io->group->count && target != io->options.index);
    CHECK(((uint64_t)(uintptr_t)cargo & ~PAYLOAD_MASK) == 0);
    CHECK(conn->state == CONN_OPEN && !flag_has(conn, ARMED_SEND));
    conn_set_state(conn, CONN_DETACHING);
    conn->cargo = cargo;
    receive_cancel(io, conn); /* first: it unlinks */
    conn->prev = target;
    move_continue(io, conn);
}

static bool move_failed(struct io *io, struct conn *conn, struct io_event *event)
{
    conn_event(io, event, IO_MOVE_FAILED, conn, (enum err)conn->send_left);
    event->cargo = conn->cargo;
    conn_set_state(conn, CONN_OPEN);
    conn->cargo = NULL;
    conn->send_left = 0;
    conn->prev = NONE;
    if (flag_has(conn, CLOSE_WANTED)) {
        flag_clear(conn, CLOSE_WANTED);
        conn_close_begin(io, conn);
    }
    return true;
}

static bool on_move(struct io *io, enum op op, struct conn *conn, int res, struct io_event *event)
{
    if (op == OP_MOVE) {
        flag_clear(conn, ARMED_MOVE);
        if (res < 0)
            conn->send_left = res == -ENFILE ? ERR_FULL : err_from_errno(-res);
    } else {
        flag_clear(conn, ARMED_MOVE_CLOSE);
        CHECK(res == 0 || res == -ECANCELED);
    }
    if (flag_has(conn, (enum conn_flag)(ARMED_MOVE | ARMED_MOVE_CLOSE)))
        return false;
    if (conn->send_left != OK)
        return move_failed(io, conn, event);
    conn_event(io, event, IO_MOVED_OUT, conn, OK);
    event->cargo = conn->cargo;
    /* the kernel posted to the target before it completed here; this ends a sleep that an older
     * kernel did not end */
    io_wake(io->group, conn->prev);
    io->closes++; /* of the slot that was left */
    conn_give(io, conn);
    return true;
}

bool conn_on_moved_in(struct io *io, struct bank *bank, uint64_t cargo, int res,
                      struct io_event *event)
{
    CHECK(res >= 0 && (uint32_t)res < bank->slots);
    (void)atomic_load_explicit(&io->self->moves, memory_order_acquire);
    struct conn *conn = conn_take(io, bank);
    conn->slot = res;
    conn_set_state(conn, CONN_OPEN);
    conn_event(io, event, IO_MOVED_IN, conn, OK);
    event->cargo = (void *)(uintptr_t)cargo;
    return true;
}

bool conn_on_completion(struct io *io, enum op op, struct conn *conn, int res,
                        struct io_event *event)
{
    CHECK(conn->state != CONN_FREE);
    switch (op) {
    case OP_POLL:
        return on_poll(io, conn, res, event);
    case OP_RECV:
        return on_recv(io, conn, res, event);
    case OP_SEND:
    case OP_SEND_POLL:
        return on_send(io, conn, op, res, event);
    case OP_REGISTER:
        return connect_on_registered(io, conn, res, event);
    case OP_CONNECT:
        return connect_on_connected(io, conn, res, event);
    case OP_CLOSE:
        return on_close(io, conn, res, event);
    case OP_CANCELLED:
        flag_clear(conn, ARMED_CANCELLED);
        return received(io, conn, ERR_CANCELLED, event);
    case OP_MOVE:
    case OP_MOVE_CLOSE:
        return on_move(io, op, conn, res, event);
    case OP_MOVE_FAILED:
        return move_failed(io, conn, event);
    case OP_NONE:
    case OP_WAKE:
    case OP_ACCEPT:
    case OP_DISCARD:
    case OP_MOVED_IN:
    case OP_FILE_WRITE:
    case OP_FILE_SYNC:
    case OP_FILE_READ:
        break;
    }
    CHECK(op == OP_MOVE_FAILED); /* no operation on a connection */
    return false;
}
