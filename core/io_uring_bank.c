/* io_uring_bank.c: rings and their tables of direct descriptors: how many, which features, what to
 * say when the host refuses.
 *
 * A ring's table may not exceed RLIMIT_NOFILE, so connections_max and a tenth to spare are spread
 * over as many rings ("banks") as that takes. Baseline is kernel 6.1; features are tried with
 * everything and dropped one flag at a time until the kernel agrees:
 *     SINGLE_ISSUER | DEFER_TASKRUN | TASKRUN_FLAG | SUBMIT_ALL | CQSIZE | CLAMP
 *
 * Before 6.13 a closed direct descriptor is given up only when every older operation of its ring
 * has ended, so one idle poll would keep the peer of another connection from seeing the end.
 * bank 0 finds out by trying (close_defers); slot_close then shuts the socket down first. */
#include "core/io_uring.h"

#include "core/errno.h"
#include "core/memory.h"

#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define SQ_ENTRIES_MAX 2048u
#define CQ_ENTRIES_MAX 16384u
#define SPARE_MIN      4u
#define TABLE_MAX      (1u << 20) /* kernel: IORING_MAX_FIXED_FILES */
#define TABLE_MIN      16u
#define SUBMIT_TRIES   5000u
#define CLOSE_PROBE_MS 50

void explain(struct io *io, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(io->explain, sizeof io->explain, format, arguments);
    va_end(arguments);
}

static void feature_add(struct io *io, const char *name)
{
    size_t used = strlen(io->features);
    (void)snprintf(io->features + used, sizeof io->features - used, "%s%s", used != 0 ? " " : "",
                   name);
}

/* ---- use of one ring */

static void submitted(int res)
{
    /* what was not taken stays queued; anything else means that this file is wrong */
    CHECK(res >= 0 || res == -EINTR || res == -EAGAIN || res == -EBUSY || res == -ENOMEM ||
          res == -ETIME);
}

static void submit_some(struct bank *bank)
{
    int res = io_uring_submit(&bank->ring);
    submitted(res);
    if (res <= 0) /* the kernel is short of memory: leave it a moment */
        (void)usleep(1000);
}

struct io_uring_sqe *bank_sqe(struct bank *bank)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&bank->ring);
    for (uint32_t i = 0; sqe == NULL && i < SUBMIT_TRIES; i++) {
        submit_some(bank);
        sqe = io_uring_get_sqe(&bank->ring);
    }
    CHECK(sqe != NULL);
    return sqe;
}

void bank_reserve(struct bank *bank, uint32_t count)
{
    for (uint32_t i = 0; io_uring_sq_space_left(&bank->ring) < count && i < SUBMIT_TRIES; i++)
        submit_some(bank);
    CHECK(io_uring_sq_space_left(&bank->ring) >= count);
}

void bank_submit(struct bank *bank)
{
    if (io_uring_sq_ready(&bank->ring) != 0)
        submitted(io_uring_submit(&bank->ring));
}

void bank_turn(struct bank *bank)
{
    uint32_t flags = IO_URING_READ_ONCE(*bank->ring.sq.kflags);
    if (io_uring_sq_ready(&bank->ring) == 0 &&
        (flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) == 0)
        return;
    submitted(io_uring_submit_and_get_events(&bank->ring));
}

void bank_run(struct bank *bank)
{
    if ((IO_URING_READ_ONCE(*bank->ring.sq.kflags) & IORING_SQ_TASKRUN) != 0)
        submitted(io_uring_get_events(&bank->ring));
}

struct bank *bank_pick(struct io *io, uint32_t extra)
{
    if (io->conns_used + io->accepts_armed >= io->options.connections_max + extra)
        return NULL;
    struct bank *best = NULL;
    uint32_t best_taken = 0;
    for (uint32_t i = 0; i < io->bank_count; i++) {
        struct bank *bank = &io->banks[i];
        uint32_t taken = bank->used + bank->accepts;
        if (taken + bank->reserve < bank->slots && (best == NULL || taken < best_taken)) {
            best = bank;
            best_taken = taken;
        }
    }
    return best;
}

void bank_cancel(struct bank *bank, uint64_t user_data)
{
    struct io_uring_sqe *sqe = bank_sqe(bank);
    io_uring_prep_cancel64(sqe, user_data, 0);
    io_uring_sqe_set_data64(sqe, user_data_of(OP_NONE, 0));
}

/* ---- making rings */

static uint32_t power_of_two(uint32_t wanted, uint32_t max)
{
    uint32_t entries = 64;
    while (entries < wanted && entries < max)
        entries *= 2;
    return entries;
}

static const struct setup_flag {
    uint32_t flag;
    uint32_t needs; /* dropped together with any of these */
    const char *name;
} setup_flags[] = {
    {IORING_SETUP_DEFER_TASKRUN, IORING_SETUP_SINGLE_ISSUER, "defer_taskrun"},
    {IORING_SETUP_TASKRUN_FLAG, IORING_SETUP_DEFER_TASKRUN, "taskrun_flag"},
    {IORING_SETUP_SINGLE_ISSUER, 0, "single_issuer"},
    {IORING_SETUP_SUBMIT_ALL, 0, "submit_all"},
};

static int ring_open(struct io *io, struct io_uring *ring, uint32_t slots, uint32_t flags)
{
    struct io_uring_params params = {0};
    params.flags = flags | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
    params.cq_entries = power_of_two(2 * slots + 2 * io->options.files_max, CQ_ENTRIES_MAX);
    return io_uring_queue_init_params(power_of_two(slots, SQ_ENTRIES_MAX), ring, &params);
}

/* ring_probe: open bank 0 with as many of the flags as the kernel knows. */
static int ring_probe(struct io *io, struct io_uring *ring, uint32_t slots, uint32_t *flags)
{
    *flags = 0;
    for (size_t i = 0; i < COUNT_OF(setup_flags); i++)
        *flags |= setup_flags[i].flag;
    int res = ring_open(io, ring, slots, *flags);
    for (size_t i = 0; res == -EINVAL && i < COUNT_OF(setup_flags); i++) {
        *flags &= ~setup_flags[i].flag;
        for (size_t j = 0; j < COUNT_OF(setup_flags); j++)
            if ((setup_flags[j].needs & ~*flags) != 0)
                *flags &= ~setup_flags[j].flag;
        res = ring_open(io, ring, slots, *flags);
    }
    for (size_t i = 0; res == 0 && i < COUNT_OF(setup_flags); i++)
        if ((*flags & setup_flags[i].flag) != 0)
            feature_add(io, setup_flags[i].name);
    return res;
}

static enum err explain_ring(struct io *io, int number)
{
    switch (number) {
    case EPERM:
    case EACCES:
        explain(io, "io_uring is not allowed: set `sysctl kernel.io_uring_disabled=0`, and allow "
                    "io_uring in the container's seccomp profile");
        return ERR_UNSUPPORTED;
    case ENOSYS:
        explain(io, "this kernel has no io_uring: Linux 6.1 or newer with CONFIG_IO_URING is "
                    "needed");
        return ERR_UNSUPPORTED;
    case ENOMEM:
        explain(io, "no memory for io_uring: raise RLIMIT_MEMLOCK (`ulimit -l unlimited`, "
                    "LimitMEMLOCK=infinity) or free memory");
        return ERR_NO_MEMORY;
    case EMFILE:
    case ENFILE:
        explain(io,
                "out of file descriptors: raise RLIMIT_NOFILE to %u or more (`ulimit -n`, "
                "LimitNOFILE=), or `sysctl fs.file-max`",
                NOFILE_ADVISED);
        return ERR_NO_DESCRIPTORS;
    default:
        explain(io, "io_uring: %s; Linux 6.1 or newer is needed", strerror(number));
        return ERR_UNSUPPORTED;
    }
}

/* ops_check: SEND_ZC came with 6.0, as did passing descriptors between rings and
 * IORING_FILE_INDEX_ALLOC in FILES_UPDATE, which cannot be probed by themselves. */
static enum err ops_check(struct io *io)
{
    struct io_uring_probe *probe = io_uring_get_probe_ring(&io->banks[0].ring);
    bool ok = probe != NULL && io_uring_opcode_supported(probe, IORING_OP_MSG_RING) &&
              io_uring_opcode_supported(probe, IORING_OP_SEND_ZC);
    io_uring_free_probe(probe);
    if (ok)
        return OK;
    explain(io, "this kernel's io_uring is too old: Linux 6.1 or newer is needed");
    return ERR_UNSUPPORTED;
}

static enum err bank_create(struct io *io, uint32_t index, uint32_t slots, uint32_t *flags)
{
    struct bank *bank = &io->banks[index];
    int res = index == 0 ? ring_probe(io, &bank->ring, slots, flags)
                         : ring_open(io, &bank->ring, slots, *flags);
    if (res < 0)
        return explain_ring(io, -res);
    bank->live = true;
    bank->slots = slots;
    bank->reserve = slots / 20;
    if (index == 0)
        TRY(ops_check(io));
    res = io_uring_register_files_sparse(&bank->ring, slots);
    if (res < 0)
        return explain_ring(io, -res);
    if (index != 0) {
        res = io_uring_register_eventfd(&bank->ring, io->self->wake_fd);
        if (res < 0)
            return explain_ring(io, -res);
        (void)io_uring_cq_eventfd_toggle(&bank->ring, false);
        bank->notifies = true;
    }
    return OK;
}

/* close_probe: with a poll armed on slot 0, does closing slot 1 reach its peer at once? */
static enum err close_probe(struct io *io)
{
    struct bank *bank = &io->banks[0];
    int idle[2] = {-1, -1};
    int closed[2] = {-1, -1};
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, idle) < 0)
        return explain_ring(io, errno);
    int res = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, closed) < 0 ? -errno : 0;
    const int files[2] = {idle[0], closed[0]};
    if (res == 0)
        res = io_uring_register_files_update(&bank->ring, 0, files, 2);
    (void)close(idle[0]);
    (void)close(closed[0]);
    if (res == 2) {
        struct io_uring_sqe *sqe = bank_sqe(bank);
        io_uring_prep_poll_add(sqe, 0, POLLIN);
        sqe->flags |= IOSQE_FIXED_FILE;
        io_uring_sqe_set_data64(sqe, user_data_of(OP_NONE, 1));
        sqe = bank_sqe(bank);
        io_uring_prep_close_direct(sqe, 1);
        io_uring_sqe_set_data64(sqe, user_data_of(OP_NONE, 0));
        bank_turn(bank);
        struct pollfd end = {.fd = closed[1], .events = POLLIN};
        io->close_defers = poll(&end, 1, CLOSE_PROBE_MS) != 1;
        feature_add(io, io->close_defers ? "shutdown_before_close" : "close_at_once");
        bank_cancel(bank, user_data_of(OP_NONE, 1));
        sqe = bank_sqe(bank);
        io_uring_prep_close_direct(sqe, 0);
        io_uring_sqe_set_data64(sqe, user_data_of(OP_NONE, 0));
        bank_turn(bank); /* their completions are reaped, and ignored, by the first turn */
    }
    (void)close(idle[1]);
    (void)close(closed[1]);
    return res < 0 ? explain_ring(io, -res) : OK;
}

/* slots_wanted: a tenth to spare, since the kernel spreads accepts unevenly. */
static uint64_t slots_wanted(uint32_t connections_max)
{
    uint32_t spare = connections_max / 10;
    return (uint64_t)connections_max + (spare > SPARE_MIN ? spare : SPARE_MIN);
}

/* banks_of: 0: a table of so few slots is too small. */
static uint32_t banks_of(uint64_t wanted, uint32_t per_bank)
{
    if (per_bank < TABLE_MIN || wanted / per_bank >= BANKS_MAX)
        return 0;
    return (uint32_t)((wanted + per_bank - 1) / per_bank);
}

uint32_t io_rings_needed(uint32_t *limit, uint32_t connections_max)
{
    struct rlimit files = {0, 0};
    (void)getrlimit(RLIMIT_NOFILE, &files); /* cannot fail with these arguments */
    *limit = files.rlim_max < UINT32_MAX ? (uint32_t)files.rlim_max : UINT32_MAX;
    return banks_of(slots_wanted(connections_max), *limit < TABLE_MAX ? *limit : TABLE_MAX);
}

static enum err banks_count(struct io *io, uint32_t *count, uint32_t *slots)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return explain_ring(io, errno);
    uint32_t per_bank = limit.rlim_cur < TABLE_MAX ? (uint32_t)limit.rlim_cur : TABLE_MAX;
    uint64_t wanted = slots_wanted(io->options.connections_max);
    *count = banks_of(wanted, per_bank);
    if (*count == 0) {
        uint64_t least = wanted / BANKS_MAX + 64; /* a ring is a descriptor, too */
        explain(io,
                "RLIMIT_NOFILE of %u is too low for %u connections: raise it (`ulimit -n`, "
                "LimitNOFILE=) to at least %u",
                per_bank, io->options.connections_max,
                least < NOFILE_ADVISED ? NOFILE_ADVISED : (uint32_t)least);
        return ERR_NO_DESCRIPTORS;
    }
    *slots = (uint32_t)((wanted + *count - 1) / *count);
    return OK;
}

enum err banks_create(struct io *io)
{
    uint32_t count = 0;
    uint32_t slots = 0;
    uint32_t flags = 0;
    TRY(banks_count(io, &count, &slots));
    io->banks = memory_take_zeroed(count * sizeof *io->banks, MEMORY_CORE);
    if (io->banks == NULL) {
        explain(io, "no memory for %u rings", count);
        return ERR_NO_MEMORY;
    }
    io->bank_count = count;
    for (uint32_t i = 0; i < count; i++)
        TRY(bank_create(io, i, slots, &flags));
    return close_probe(io);
}

/* banks_destroy: nothing of ours may be written to by the kernel afterwards: cancel, wait. The exit
 * of the io's own thread did the same, and nobody else may enter its rings. */
void banks_destroy(struct io *io)
{
    for (uint32_t i = 0; i < io->bank_count; i++) {
        struct bank *bank = &io->banks[i];
        if (!bank->live)
            continue;
        struct io_uring_sync_cancel_reg all = {
            .fd = -1,
            .flags = IORING_ASYNC_CANCEL_ANY | IORING_ASYNC_CANCEL_ALL,
            .timeout = {.tv_sec = 1},
        };
        if (io->thread == gettid()) {
            bank_turn(bank);
            (void)io_uring_register_sync_cancel(&bank->ring, &all);
        }
        io_uring_queue_exit(&bank->ring);
        bank->live = false;
    }
    memory_give(io->banks, MEMORY_CORE);
    io->banks = NULL;
    io->bank_count = 0;
}
