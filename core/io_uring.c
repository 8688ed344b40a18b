/* io_uring.c: the turn of one io: submit, sleep, reap, wake; and its life.
 *
 *     io_poll:  submit each bank that has something to say → nothing ready: sleep on bank 0 →
 *               reap every bank → operations prepared by that (receives) are submitted and reaped
 *               once more, so that a readable socket's bytes arrive in the turn that saw it
 *     sleeping: bank 0 is waited on with a timeout. A read of the io's eventfd is armed in it;
 *               the other banks signal that eventfd, as does io_wake. While awake those signals
 *               are switched off (IORING_CQ_EVENTFD_DISABLED); they are switched on, then flags
 *               and queues are looked at once more, then it sleeps: nothing is lost in between.
 *               A ring's own descriptor is never polled.
 *     io_wake:  peer.sleep: AWAKE → ASLEEP (io_poll) → WOKEN (io_wake, writes the eventfd);
 *               AWAKE → WOKEN (io_wake, no system call: the next io_poll does not sleep) */
#include "core/io_uring.h"

#include "core/errno.h"
#include "core/memory.h"

#include <sched.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define REAP_ROUNDS 2

/* ---- the group */

/* limit_raise: a process gets its descriptors from the hard limit; Debian's soft one is 1,024,
 * which would make a hundred rings of 100,000 connections. */
static void limit_raise(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit); /* refused: the soft limit makes more banks */
    }
}

static enum err peer_init(struct io_peer *peer)
{
    peer->wake_fd = eventfd(0, EFD_CLOEXEC); /* blocking: the ring's read waits for it */
    if (peer->wake_fd < 0)
        return err_from_errno(errno);
    peer->banks = memory_take_zeroed(BANKS_MAX * sizeof *peer->banks, MEMORY_CORE);
    if (peer->banks == NULL)
        return ERR_NO_MEMORY;
    for (uint32_t i = 0; i < BANKS_MAX; i++)
        atomic_store_explicit(&peer->banks[i].ring_fd, -1, memory_order_relaxed);
    return OK;
}

enum err io_group_create(struct io_group **group, uint32_t count)
{
    CHECK(count > 0);
    limit_raise();
    size_t size = sizeof **group + count * sizeof(struct io_peer);
    struct io_group *made = memory_take_aligned(size, _Alignof(struct io_group), MEMORY_CORE);
    if (made == NULL)
        return ERR_NO_MEMORY;
    memset(made, 0, size);
    made->count = count;
    for (uint32_t i = 0; i < count; i++)
        made->peers[i].wake_fd = -1;
    for (uint32_t i = 0; i < count; i++) {
        enum err err = peer_init(&made->peers[i]);
        if (err != OK) {
            io_group_destroy(made);
            return err;
        }
    }
    *group = made;
    return OK;
}

void io_group_destroy(struct io_group *group)
{
    if (group == NULL)
        return;
    for (uint32_t i = 0; i < group->count; i++) {
        if (group->peers[i].wake_fd >= 0)
            (void)close(group->peers[i].wake_fd);
        memory_give(group->peers[i].banks, MEMORY_CORE);
    }
    memory_give(group, MEMORY_CORE);
}

void io_wake(struct io_group *group, uint32_t index)
{
    CHECK(index < group->count);
    struct io_peer *peer = &group->peers[index];
    atomic_thread_fence(memory_order_seq_cst); /* what the caller published is seen first */
    if (atomic_load(&peer->sleep) == WOKEN)
        return;
    if (atomic_exchange(&peer->sleep, WOKEN) == ASLEEP) {
        const uint64_t one = 1;
        while (write(peer->wake_fd, &one, sizeof one) < 0)
            CHECK(errno == EINTR);
    }
}

/* ---- life */

static void peer_publish(struct io *io)
{
    struct io_peer *self = io->self;
    for (uint32_t i = 0; i < io->bank_count; i++) {
        atomic_store_explicit(&self->banks[i].room, 0, memory_order_relaxed);
        atomic_store_explicit(&self->banks[i].ring_fd, io->banks[i].ring.ring_fd,
                              memory_order_relaxed);
    }
    atomic_store_explicit(&self->bank_count, io->bank_count, memory_order_release);
}

static void peer_unpublish(struct io *io)
{
    atomic_store_explicit(&io->self->bank_count, 0, memory_order_release);
    for (uint32_t i = 0; i < io->bank_count; i++)
        atomic_store_explicit(&io->self->banks[i].ring_fd, -1, memory_order_relaxed);
}

/* room_publish: how many connections other ios may send to each bank; a hint. */
static void room_publish(struct io *io)
{
    uint32_t taken = io->conns_used + io->accepts_armed;
    uint32_t max = io->options.connections_max;
    uint32_t rest = taken < max ? max - taken : 0;
    for (uint32_t i = 0; i < io->bank_count; i++) {
        const struct bank *bank = &io->banks[i];
        uint32_t slots = bank->used + bank->accepts;
        uint32_t room = slots < bank->slots ? bank->slots - slots : 0;
        int32_t value = (int32_t)(room < rest ? room : rest);
        _Atomic int32_t *shared = &io->self->banks[i].room;
        if (atomic_load_explicit(shared, memory_order_relaxed) != value)
            atomic_store_explicit(shared, value, memory_order_relaxed);
    }
}

static enum err tables_create(struct io *io)
{
    const struct io_options *o = &io->options;
    for (uint32_t i = 0; i < io->bank_count; i++)
        io->conns_count += 2 * io->banks[i].slots;
    io->conns = memory_take_zeroed(io->conns_count * sizeof *io->conns, MEMORY_CORE);
    size_t buffer_bytes = (size_t)o->buffers_count * o->buffer_bytes;
    io->buffers = memory_take_aligned(buffer_bytes, 4096, MEMORY_CORE);
    io->buffers_free = memory_take(o->buffers_count * sizeof *io->buffers_free, MEMORY_CORE);
    io->buffers_lent = memory_take_zeroed(o->buffers_count * sizeof(bool), MEMORY_CORE);
    if (io->conns == NULL || io->buffers == NULL || io->buffers_free == NULL ||
        io->buffers_lent == NULL) {
        explain(io, "no memory for %u connections and %u receive buffers", o->connections_max,
                o->buffers_count);
        return ERR_NO_MEMORY;
    }
    for (uint32_t i = 0; i < o->buffers_count; i++)
        io->buffers_free[i] = o->buffers_count - 1 - i;
    io->buffers_free_count = o->buffers_count;
    return OK;
}

static enum err cpu_pin(struct io *io)
{
    if (io->options.cpu < 0)
        return OK;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)io->options.cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) == 0)
        return OK;
    explain(io, "cannot run on CPU %d: it does not exist or is not in this process's cpuset",
            io->options.cpu);
    return ERR_INVALID;
}

static void clocks_read(struct io *io)
{
    struct timespec t;
    int result = 0;
    result |= clock_gettime(CLOCK_BOOTTIME, &t);
    io->now_ns = (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
    result |= clock_gettime(CLOCK_REALTIME, &t);
    io->wall_ms = (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / NS_PER_MS;
    CHECK(result == 0);
}

enum err io_create(struct io **io, struct io_group *group, const struct io_options *options)
{
    CHECK(options->index < group->count && options->count == group->count);
    CHECK(options->connections_max > 0 && options->buffers_count > 0 && options->buffer_bytes > 0);
    struct io *made = memory_take_zeroed(sizeof *made, MEMORY_CORE);
    *io = made;
    if (made == NULL)
        return ERR_NO_MEMORY;
    made->group = group;
    made->self = &group->peers[options->index];
    made->options = *options;
    made->thread = gettid();
    made->conns_free = made->waiting_head = made->waiting_tail = NONE;
    clocks_read(made);
    TRY(cpu_pin(made));
    TRY(banks_create(made));
    TRY(tables_create(made));
    peer_publish(made);
    room_publish(made);
    return OK;
}

static void reap_until_files_end(struct io *io)
{
    struct io_event events[16];
    while (io->files_inflight > 0)
        (void)io_poll(io, events, COUNT_OF(events), UINT64_MAX);
}

void io_destroy(struct io *io)
{
    if (io == NULL)
        return;
    peer_unpublish(io);
    if (io->bank_count > 0 && io->thread == gettid())
        reap_until_files_end(io);
    banks_destroy(io);
    listeners_destroy(io);
    memory_give(io->connect_to, MEMORY_CORE);
    memory_give(io->buffers_lent, MEMORY_CORE);
    memory_give(io->buffers_free, MEMORY_CORE);
    memory_give(io->buffers, MEMORY_CORE);
    memory_give(io->conns, MEMORY_CORE);
    memory_give(io, MEMORY_CORE);
}

const char *io_explain(const struct io *io)
{
    return io == NULL ? "out of memory" : io->explain;
}

const char *io_features(const struct io *io)
{
    return io->features;
}

uint32_t io_connections(const struct io *io)
{
    return io->conns_used;
}

/* ---- time and entropy */

uint64_t io_now_ns(const struct io *io)
{
    return io->now_ns;
}

uint64_t io_wall_ms(const struct io *io)
{
    return io->wall_ms;
}

void io_entropy(struct io *io, void *out, size_t size)
{
    (void)io;
    uint8_t *at = out;
    while (size > 0) {
        ssize_t got = getrandom(at, size, 0);
        if (got < 0) {
            CHECK(errno == EINTR);
            continue;
        }
        at += got;
        size -= (size_t)got;
    }
}

/* ---- reaping */

static bool on_completion(struct io *io, struct bank *bank, const struct io_uring_cqe *cqe,
                          struct io_event *event)
{
    uint64_t payload = cqe->user_data & PAYLOAD_MASK;
    enum op op = (enum op)(cqe->user_data >> OP_SHIFT);
    switch (op) {
    case OP_NONE:
        return false;
    case OP_WAKE:
        io->wake_armed = false;
        return false;
    case OP_ACCEPT:
        return accept_on_completion(io, payload, cqe->res, event);
    case OP_DISCARD:
        bank->used--;
        return false;
    case OP_POLL:
    case OP_RECV:
    case OP_SEND:
    case OP_SEND_POLL:
    case OP_REGISTER:
    case OP_CONNECT:
    case OP_CLOSE:
    case OP_CANCELLED:
    case OP_MOVE:
    case OP_MOVE_CLOSE:
    case OP_MOVE_FAILED:
        CHECK(payload < io->conns_touched);
        return conn_on_completion(io, op, &io->conns[payload], cqe->res, event);
    case OP_MOVED_IN:
        return conn_on_moved_in(io, bank, payload, cqe->res, event);
    case OP_FILE_WRITE:
    case OP_FILE_SYNC:
    case OP_FILE_READ:
        return file_on_completion(io, op, (struct io_file_op *)(uintptr_t)payload, cqe->res, event);
    }
    CHECK(op <= OP_FILE_READ); /* no operation of ours */
    return false;
}

static size_t bank_reap(struct io *io, struct bank *bank, struct io_event *events, size_t capacity)
{
    size_t count = 0;
    uint32_t head;
    uint32_t reaped = 0;
    struct io_uring_cqe *cqe;
    io_uring_for_each_cqe(&bank->ring, head, cqe)
    {
        if (count == capacity)
            break;
        reaped++;
        if (on_completion(io, bank, cqe, &events[count]))
            count++;
    }
    io_uring_cq_advance(&bank->ring, reaped);
    return count;
}

/* banks_reap: rotates, so that a small capacity starves no bank. */
static size_t banks_reap(struct io *io, struct io_event *events, size_t capacity)
{
    size_t count = 0;
    for (uint32_t i = 0; i < io->bank_count; i++) {
        struct bank *bank = &io->banks[(io->bank_first + i) % io->bank_count];
        count += bank_reap(io, bank, events + count, capacity - count);
    }
    io->bank_first = (io->bank_first + 1) % io->bank_count;
    return count;
}

/* banks_turn: true if a bank has completions, or more would come by entering it. */
static bool banks_turn(struct io *io, uint32_t first)
{
    bool ready = false;
    for (uint32_t i = first; i < io->bank_count; i++) {
        struct bank *bank = &io->banks[i];
        bank_turn(bank);
        ready |= io_uring_cq_ready(&bank->ring) != 0 ||
                 (IO_URING_READ_ONCE(*bank->ring.sq.kflags) &
                  (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) != 0;
    }
    return ready;
}

static bool banks_pending(const struct io *io)
{
    for (uint32_t i = 0; i < io->bank_count; i++)
        if (io_uring_sq_ready(&io->banks[i].ring) != 0)
            return true;
    return false;
}

/* ---- sleeping */

static void notify_set(struct io *io, bool on)
{
    for (uint32_t i = 1; i < io->bank_count; i++)
        (void)io_uring_cq_eventfd_toggle(&io->banks[i].ring, on);
}

/* notified_meanwhile: after the signals were switched on, what they would have told before. */
static bool notified_meanwhile(const struct io *io)
{
    atomic_thread_fence(memory_order_seq_cst);
    for (uint32_t i = 1; i < io->bank_count; i++) {
        const struct io_uring *ring = &io->banks[i].ring;
        if (io_uring_cq_ready(ring) != 0 || (IO_URING_READ_ONCE(*ring->sq.kflags) &
                                             (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) != 0)
            return true;
    }
    return false;
}

static void wake_arm(struct io *io)
{
    if (io->wake_armed)
        return;
    io->wake_armed = true;
    struct io_uring_sqe *sqe = bank_sqe(&io->banks[0]);
    io_uring_prep_read(sqe, io->self->wake_fd, &io->wake_value, sizeof io->wake_value, 0);
    io_uring_sqe_set_data64(sqe, user_data_of(OP_WAKE, 0));
}

static void bank_wait(struct bank *bank, uint64_t now_ns, uint64_t deadline_ns)
{
    struct io_uring_cqe *cqe;
    struct __kernel_timespec limit = {0};
    if (deadline_ns != UINT64_MAX) {
        limit.tv_sec = (int64_t)((deadline_ns - now_ns) / NS_PER_S);
        limit.tv_nsec = (long long)((deadline_ns - now_ns) % NS_PER_S);
    }
    int res = io_uring_submit_and_wait_timeout(&bank->ring, &cqe, 1,
                                               deadline_ns != UINT64_MAX ? &limit : NULL, NULL);
    CHECK(res >= 0 || res == -ETIME || res == -EINTR || res == -EAGAIN || res == -EBUSY ||
          res == -ENOMEM);
}

/* sleep_until: submits bank 0, and sleeps unless something happened meanwhile. */
static void sleep_until(struct io *io, uint64_t deadline_ns)
{
    _Atomic uint32_t *state = &io->self->sleep;
    uint32_t awake = AWAKE;
    wake_arm(io);
    notify_set(io, true);
    if (!atomic_compare_exchange_strong(state, &awake, ASLEEP) || notified_meanwhile(io)) {
        bank_turn(&io->banks[0]);
    } else {
        clocks_read(io);
        if (io->now_ns < deadline_ns)
            bank_wait(&io->banks[0], io->now_ns, deadline_ns);
        else
            bank_turn(&io->banks[0]);
    }
    notify_set(io, false);
    atomic_store(state, AWAKE);
    (void)banks_turn(io, 1);
}

size_t io_poll(struct io *io, struct io_event *events, size_t capacity, uint64_t deadline_ns)
{
    CHECK(capacity > 0);
    _Atomic uint32_t *state = &io->self->sleep;
    bool woken = atomic_load_explicit(state, memory_order_relaxed) == WOKEN &&
                 atomic_exchange(state, AWAKE) == WOKEN;
    polls_refresh(io);
    uint64_t retry_ns = accepts_arm(io);
    if (retry_ns < deadline_ns)
        deadline_ns = retry_ns;
    bool ready = banks_turn(io, 1);
    ready |= io_uring_cq_ready(&io->banks[0].ring) != 0;
    if (!ready && !woken && deadline_ns != 0)
        sleep_until(io, deadline_ns);
    else
        bank_turn(&io->banks[0]);
    size_t count = banks_reap(io, events, capacity);
    for (int round = 1; round < REAP_ROUNDS && count < capacity && banks_pending(io); round++) {
        (void)banks_turn(io, 0);
        count += banks_reap(io, events + count, capacity - count);
    }
    room_publish(io);
    clocks_read(io);
    return count;
}
