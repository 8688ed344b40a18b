/* io_uring_listen.c: how connections begin: listen and accept, connect.
 *
 *   accept:  one-shot and direct, `accepts` armed per listener over the banks with room, each with
 *            its own address (multishot loses peers' addresses). Armed accepts count against
 *            connections_max and against the bank, so that none is taken from the backlog and
 *            then dropped for want of a slot. TCP_NODELAY is inherited from the listener.
 *   connect: a plain socket takes its options and source address (a direct descriptor cannot be
 *            bound before 6.11) → FILES_UPDATE puts it into a free slot of the bank, which the
 *            kernel writes to conn.slot; the plain one is closed → CONNECT → IO_CONNECTED.
 *            A failed one is closed first: its IO_CONNECTED comes when the slot is free again. */
#include "core/io_uring.h"

#include "core/errno.h"
#include "core/memory.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#define PROBE_MS       3000
#define PROBE_PAUSE_MS 25

/* ---- addresses */

static const uint8_t mapped_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

static socklen_t address_to_socket(union socket_address *out, const struct io_address *address)
{
    memset(out, 0, sizeof *out);
    if (memcmp(address->ip, mapped_prefix, sizeof mapped_prefix) == 0) {
        out->v4.sin_family = AF_INET;
        out->v4.sin_port = htons(address->port);
        memcpy(&out->v4.sin_addr, address->ip + sizeof mapped_prefix, 4);
        return sizeof out->v4;
    }
    out->v6.sin6_family = AF_INET6;
    out->v6.sin6_port = htons(address->port);
    memcpy(&out->v6.sin6_addr, address->ip, sizeof address->ip);
    return sizeof out->v6;
}

static void address_from_socket(struct io_address *out, const union socket_address *address)
{
    memset(out, 0, sizeof *out);
    if (address->any.sa_family == AF_INET) {
        memcpy(out->ip, mapped_prefix, sizeof mapped_prefix);
        memcpy(out->ip + sizeof mapped_prefix, &address->v4.sin_addr, 4);
        out->port = ntohs(address->v4.sin_port);
    } else if (address->any.sa_family == AF_INET6) {
        memcpy(out->ip, &address->v6.sin6_addr, sizeof out->ip);
        out->port = ntohs(address->v6.sin6_port);
    }
}

static enum err explain_address(struct io *io, const char *what, const struct io_address *address,
                                int number)
{
    char text[INET6_ADDRSTRLEN];
    bool v4 = memcmp(address->ip, mapped_prefix, sizeof mapped_prefix) == 0;
    (void)inet_ntop(v4 ? AF_INET : AF_INET6, address->ip + (v4 ? sizeof mapped_prefix : 0), text,
                    sizeof text);
    const char *help = "";
    if (number == EADDRINUSE)
        help = "; another process listens there (`ss -ltnp`), or choose another port";
    else if (number == EADDRNOTAVAIL)
        help = "; no interface of this machine has that address, or no port is left: widen "
               "`sysctl net.ipv4.ip_local_port_range`";
    else if (number == EACCES)
        help = "; ports below 1024 need CAP_NET_BIND_SERVICE";
    else if (number == EMFILE || number == ENFILE)
        help = "; raise RLIMIT_NOFILE (`ulimit -n`, LimitNOFILE=)";
    else if (number == EAFNOSUPPORT)
        help = "; this kernel has no IPv6: listen on 0.0.0.0 instead of [::]";
    explain(io, "cannot %s %s%s%s:%u: %s%s", what, v4 ? "" : "[", text, v4 ? "" : "]",
            address->port, strerror(number), help);
    return number == EMFILE || number == ENFILE ? ERR_NO_DESCRIPTORS : ERR_ADDRESS;
}

/* ---- listeners */

static struct listener *listener_find(struct io *io, struct io_listener handle)
{
    uint32_t index = handle.v & 0xff;
    if (index == 0 || index > LISTENERS_MAX)
        return NULL;
    struct listener *listener = &io->listeners[index - 1];
    bool live = listener->state == LISTENER_OPEN || listener->state == LISTENER_PAUSED;
    return live && listener->generation == handle.v >> 8 ? listener : NULL;
}

static struct io_listener listener_handle(const struct io *io, const struct listener *listener)
{
    return (struct io_listener){listener->generation << 8 |
                                (uint32_t)(listener - io->listeners + 1)};
}

/* listening_socket: a socket that listens, or -errno. */
static int listening_socket(const struct io_address *address, uint32_t backlog, bool reuse_port)
{
    union socket_address bound;
    socklen_t size = address_to_socket(&bound, address);
    const int on = 1;
    int fd = socket(bound.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
    if (fd < 0)
        return -errno;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
        (reuse_port && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) < 0) ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0 ||
        bind(fd, &bound.any, size) < 0 || listen(fd, (int)backlog) < 0) {
        int number = errno;
        (void)close(fd);
        return -number;
    }
    return fd;
}

enum err io_listen_probe(struct io *io, const struct io_address *address)
{
    const struct timespec pause = {.tv_nsec = PROBE_PAUSE_MS * (long)NS_PER_MS};
    int fd = -1;
    for (int waited = 0; waited < PROBE_MS; waited += PROBE_PAUSE_MS) {
        fd = listening_socket(address, 1, false);
        if (fd != -EADDRINUSE)
            break;
        (void)nanosleep(&pause, NULL);
    }
    if (fd < 0)
        return explain_address(io, "listen on", address, -fd);
    (void)close(fd);
    return OK;
}

static struct listener *listener_free_slot(struct io *io)
{
    for (uint32_t i = 0; i < LISTENERS_MAX; i++)
        if (io->listeners[i].state == LISTENER_FREE)
            return &io->listeners[i];
    return NULL;
}

enum err io_listen(struct io *io, struct io_listener *handle, struct io_address *out_address,
                   const struct io_listen_options *options)
{
    CHECK(options->accepts > 0);
    struct listener *listener = listener_free_slot(io);
    if (listener == NULL) {
        explain(io, "more than %u listeners", LISTENERS_MAX);
        return ERR_FULL;
    }
    struct accept *accepts = memory_take_zeroed(options->accepts * sizeof *accepts, MEMORY_CORE);
    if (accepts == NULL) {
        explain(io, "no memory for %u armed accepts", options->accepts);
        return ERR_NO_MEMORY;
    }
    int fd = listening_socket(&options->address, options->backlog, options->reuse_port);
    union socket_address bound;
    socklen_t size = sizeof bound;
    if (fd < 0 || getsockname(fd, &bound.any, &size) < 0) {
        int number = fd < 0 ? -fd : errno;
        memory_give(accepts, MEMORY_CORE);
        if (fd >= 0)
            (void)close(fd);
        return explain_address(io, "listen on", &options->address, number);
    }
    address_from_socket(out_address, &bound);
    listener->accepts = accepts;
    listener->count = options->accepts;
    listener->extra = options->extra;
    listener->armed = 0;
    listener->retry_ns = 0;
    listener->fd = fd;
    listener->state = LISTENER_OPEN;
    listener->generation = (listener->generation + 1) & 0xffffff;
    *handle = listener_handle(io, listener);
    (void)accepts_arm(io);
    return OK;
}

static uint64_t accept_user_data(const struct io *io, const struct listener *listener,
                                 const struct accept *accept)
{
    return user_data_of(OP_ACCEPT, (uint64_t)(listener - io->listeners) << 32 |
                                       (uint64_t)(accept - listener->accepts));
}

static bool accept_arm(struct io *io, struct listener *listener, struct accept *accept)
{
    struct bank *bank = bank_pick(io, listener->extra);
    if (bank == NULL)
        return false;
    accept->peer_bytes = sizeof accept->peer;
    accept->bank = (uint16_t)(bank - io->banks);
    accept->armed = true;
    struct io_uring_sqe *sqe = bank_sqe(bank);
    io_uring_prep_accept(sqe, listener->fd, &accept->peer.any, &accept->peer_bytes, 0);
    sqe->file_index = SLOT_ALLOC;
    io_uring_sqe_set_data64(sqe, accept_user_data(io, listener, accept));
    bank->accepts++;
    listener->armed++;
    io->accepts_armed++;
    return true;
}

uint64_t accepts_arm(struct io *io)
{
    uint64_t retry_ns = UINT64_MAX;
    for (uint32_t i = 0; i < LISTENERS_MAX; i++) {
        struct listener *listener = &io->listeners[i];
        if (listener->state != LISTENER_OPEN || listener->armed == listener->count)
            continue;
        if (listener->retry_ns > io->now_ns) {
            retry_ns = listener->retry_ns < retry_ns ? listener->retry_ns : retry_ns;
            continue;
        }
        for (uint32_t j = 0; j < listener->count; j++)
            if (!listener->accepts[j].armed && !accept_arm(io, listener, &listener->accepts[j]))
                break; /* full: goes on when a connection has ended */
    }
    return retry_ns;
}

static void accepts_cancel(struct io *io, struct listener *listener)
{
    for (uint32_t i = 0; i < listener->count; i++) {
        struct accept *accept = &listener->accepts[i];
        if (accept->armed)
            bank_cancel(&io->banks[accept->bank], accept_user_data(io, listener, accept));
    }
    for (uint32_t i = 0; i < io->bank_count; i++)
        bank_turn(&io->banks[i]);
}

void io_accept_pause(struct io *io, struct io_listener handle)
{
    struct listener *listener = listener_find(io, handle);
    if (listener == NULL || listener->state != LISTENER_OPEN)
        return;
    listener->state = LISTENER_PAUSED;
    accepts_cancel(io, listener);
}

void io_accept_resume(struct io *io, struct io_listener handle)
{
    struct listener *listener = listener_find(io, handle);
    if (listener != NULL)
        listener->state = LISTENER_OPEN; /* the next io_poll arms */
}

static void listener_finish(struct listener *listener)
{
    memory_give(listener->accepts, MEMORY_CORE);
    listener->accepts = NULL;
    listener->state = LISTENER_FREE;
}

void io_listen_close(struct io *io, struct io_listener handle)
{
    struct listener *listener = listener_find(io, handle);
    if (listener == NULL)
        return;
    listener->state = LISTENER_CLOSING;
    accepts_cancel(io, listener);
    (void)close(listener->fd);
    listener->fd = -1;
    if (listener->armed == 0)
        listener_finish(listener);
}

void listeners_destroy(struct io *io)
{
    for (uint32_t i = 0; i < LISTENERS_MAX; i++) {
        struct listener *listener = &io->listeners[i];
        if (listener->state == LISTENER_FREE)
            continue;
        if (listener->fd >= 0)
            (void)close(listener->fd);
        listener_finish(listener);
    }
}

/* accept_failed: nothing was accepted. Cancelled: paused or closing. The client's own fault: at
 * once again. Else the machine is short of something: leave it a moment. */
static void accept_failed(struct io *io, struct listener *listener, int number)
{
    if (number != ECANCELED && number != ECONNABORTED && number != EINTR && number != EPROTO)
        listener->retry_ns = io->now_ns + ACCEPT_RETRY_NS;
}

bool accept_on_completion(struct io *io, uint64_t payload, int res, struct io_event *event)
{
    struct listener *listener = &io->listeners[payload >> 32];
    CHECK(payload >> 32 < LISTENERS_MAX && (uint32_t)payload < listener->count);
    struct accept *accept = &listener->accepts[(uint32_t)payload];
    struct bank *bank = &io->banks[accept->bank];
    CHECK(accept->armed);
    accept->armed = false;
    listener->armed--;
    bank->accepts--;
    io->accepts_armed--;
    bool taken = false;
    if (res < 0) {
        accept_failed(io, listener, -res);
    } else if (listener->state == LISTENER_CLOSING) {
        bank->used++;
        slot_close(io, bank, res, user_data_of(OP_DISCARD, 0));
    } else {
        struct conn *conn = conn_take(io, bank);
        conn->slot = res;
        conn_set_state(conn, CONN_OPEN);
        conn_event(io, event, IO_ACCEPTED, conn, OK);
        event->listener = listener_handle(io, listener);
        address_from_socket(&event->peer, &accept->peer);
        taken = true;
    }
    if (listener->state == LISTENER_CLOSING && listener->armed == 0)
        listener_finish(listener);
    else if (listener->state == LISTENER_OPEN && listener->retry_ns <= io->now_ns)
        (void)accept_arm(io, listener, accept);
    return taken;
}

/* ---- connect */

/* connecting_socket: with its options and source address, not connected yet; or -errno. */
static int connecting_socket(sa_family_t family, const struct io_address *source)
{
    const int on = 1;
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
    if (fd < 0)
        return -errno;
    bool ok = setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0;
    if (ok && source != NULL) {
        union socket_address bound;
        socklen_t size = address_to_socket(&bound, source);
        /* without a port: it is chosen when the peer is known, so each peer has all ports */
        if (source->port == 0)
            ok = setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on) == 0;
        ok = ok && bind(fd, &bound.any, size) == 0;
    }
    if (ok)
        return fd;
    int number = errno;
    (void)close(fd);
    return -number;
}

enum err io_connect(struct io *io, struct io_conn *handle, const struct io_address *target,
                    const struct io_address *source, uint64_t owner)
{
    if (io->connect_to == NULL)
        io->connect_to = memory_take_zeroed(io->conns_count * sizeof *io->connect_to, MEMORY_CORE);
    if (io->connect_to == NULL) {
        explain(io, "no memory for %u peers' addresses", io->conns_count);
        return ERR_NO_MEMORY;
    }
    struct bank *bank = bank_pick(io, 0);
    if (bank == NULL) {
        explain(io, "all %u connections are in use", io->options.connections_max);
        return ERR_FULL;
    }
    union socket_address to;
    (void)address_to_socket(&to, target);
    int fd = connecting_socket(to.any.sa_family, source);
    if (fd < 0)
        return explain_address(io, "connect from", source != NULL ? source : target, -fd);
    struct conn *conn = conn_take(io, bank);
    conn_set_state(conn, CONN_REGISTERING);
    conn->owner = owner;
    conn->slot = fd; /* the kernel replaces it by the slot */
    conn->prev = (uint32_t)fd;
    io->connect_to[conn - io->conns] = to;
    struct io_uring_sqe *sqe = bank_sqe(bank);
    io_uring_prep_files_update(sqe, &conn->slot, 1, 0);
    sqe->off = SLOT_ALLOC;
    io_uring_sqe_set_data64(sqe, user_data_of(OP_REGISTER, (uint64_t)(conn - io->conns)));
    *handle = conn_handle(io, conn);
    return OK;
}

/* connect_fail: IO_CONNECTED with err comes when the slot is closed. */
static void connect_fail(struct io *io, struct conn *conn, enum err err)
{
    conn_set_state(conn, CONN_CLOSING);
    conn_set_state(conn, CONN_CLOSED);
    conn->send_left = err;
    slot_close(io, &io->banks[conn->bank], conn->slot,
               user_data_of(OP_CLOSE, (uint64_t)(conn - io->conns)));
}

bool connect_on_registered(struct io *io, struct conn *conn, int res, struct io_event *event)
{
    (void)close((int)conn->prev);
    conn->prev = NONE;
    if (res != 1) {
        enum err err = res == -ENFILE || res >= 0 ? ERR_FULL : err_from_errno(-res);
        conn_event(io, event, IO_CONNECTED, conn, err);
        conn_give(io, conn);
        return true;
    }
    if ((conn->flags & CLOSE_WANTED) != 0) {
        connect_fail(io, conn, ERR_CANCELLED);
        return false;
    }
    const union socket_address *to = &io->connect_to[conn - io->conns];
    struct io_uring_sqe *sqe = bank_sqe(&io->banks[conn->bank]);
    io_uring_prep_connect(sqe, conn->slot, &to->any,
                          to->any.sa_family == AF_INET ? sizeof to->v4 : sizeof to->v6);
    sqe->flags |= IOSQE_FIXED_FILE;
    io_uring_sqe_set_data64(sqe, user_data_of(OP_CONNECT, (uint64_t)(conn - io->conns)));
    conn_set_state(conn, CONN_CONNECTING);
    return false;
}

bool connect_on_connected(struct io *io, struct conn *conn, int res, struct io_event *event)
{
    if (res < 0 || (conn->flags & CLOSE_WANTED) != 0) {
        bool cancelled = (conn->flags & CLOSE_WANTED) != 0;
        connect_fail(io, conn, cancelled ? ERR_CANCELLED : err_from_errno(-res));
        return false;
    }
    conn_set_state(conn, CONN_OPEN);
    conn_event(io, event, IO_CONNECTED, conn, OK);
    return true;
}
