/* bench_log.c: what the log costs over the disk, beside a raw writer in the same run: a pre-written
 * file, written with O_DIRECT in the same batch sizes, write + sync, one in flight.
 * Use:        bench_log [--smoke] [--vs-raw | --latency | --making | --files | --senders N]
 *             [--body BYTES] [--batch BYTES] [DIRECTORY]; the directory decides which disk is
 *             measured. Without a mode: the first four.
 *             --vs-raw and --latency end with status 1 if their limit is missed: 80 % of the raw
 *             writer's bytes per second; 1.5 times its p50. --body, --batch: of --vs-raw's table
 *             only that. --making: commits while a segment is made in the background and while none
 *             is. --files: by the kind of file that a commit goes to: the raw writer in a new one
 *             that is pre-written, in a recycled one (its content wiped) and in one whose blocks
 *             are only allocated; the log in recycled segments, what --making does in new ones.
 *             --senders: N senders of 256 bytes, each with one record in
 *             flight, for 3 s; prints records per second and p50 and p99 in microseconds, for
 *             bench/store
 * Method:     log and raw take turns, round by round; a figure is the median of the rounds' ratios,
 *             since other users of the disk disturb both alike, over several passes, since it
 *             matters where on the disk a file happens to lie. The raw writer has what decides a
 *             disk's rate as the log has it: a buffer in huge pages, and per figure a file made
 *             beside the log's segment, of zeros in large writes. A round has 16 batches at least:
 *             the first one is filled while the disk idles, which a log that goes on does not see.
 *             The log's shard is played as the gateway's turn does it: some records, then io_poll,
 *             log_flush, log_completed. Its processor time is read in rounds of their own behind
 *             the others: reading it is a system call, two for each portion of records, which took
 *             a tenth of a batch of 64 KiB.
 * Counted:    making the records up, which is their senders' work, is in "all" and in bytes per
 *             second, not in "log" nor in a commit's latency. "log" CPU is this thread's in
 *             log_append and log_completed, without what reading the clock takes: the mean, and in
 *             brackets the median of the portions, since a kernel without IRQ_TIME_ACCOUNTING
 *             charges the disk's interrupts to whoever runs; "all" is the process's between the
 *             first append and the last completion, user and kernel, with io_uring's workers; "raw"
 *             is the same for the raw writer, per record that its batch would hold. Not in it: the
 *             way of a record from another shard (bench_core: mesh) */
#include "core/file.h"
#include "core/memory.h"
#include "core/worker.h"
#include "store/log_private.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define PASSES        3u  /* each with files of its own */
#define ROUNDS        9u  /* of a pass */
#define CPU_ROUNDS    2u  /* beside them, of which the log's processor time is read */
#define BATCHES_MIN   16u /* of a round */
#define BATCH_MAX     (4u << 20)
#define TURN_RECORDS  64u /* appended between two polls */
#define SENDERS_MAX   4096u
#define CONVERSATIONS 16384u /* that the records are spread over */
#define SENDERS_NS    (3 * NS_PER_S)
#define SAMPLES_MAX   (1u << 20)
#define KEEP_OF_RAW   0.8
#define RECORDS_MAX   1024u  /* prepared at a time */
#define PORTIONS_MAX  65536u /* of which the median is taken */
#define TIMES_RAW     1.5
#define FILE_COMMITS  128u /* of a round */
#define RECYCLED_MAX  12u  /* files there to be recycled */

enum file_kind { FILE_NEW, FILE_RECYCLED, FILE_ALLOCATED, FILE_KINDS };

static const char *const file_kinds[FILE_KINDS] = {"new", "recycled", "allocated"};

enum mode { MODE_ALL, MODE_VS_RAW, MODE_LATENCY, MODE_MAKING, MODE_FILES, MODE_SENDERS };

struct bench {
    struct io_group *group;
    struct io *io;
    struct workers *workers;
    struct log *log;
    char directory[512];
    uint64_t segment_bytes;
    uint32_t batches_max; /* of one round */
    uint32_t latency_rounds;
    size_t body;  /* 0: all */
    size_t batch; /* 0: all */
    int raw_fd;
    uint8_t *raw_data;
    uint64_t raw_at;
    uint64_t raw_bytes; /* of its file */
    uint64_t prepared;
    uint64_t *seqs;             /* of the conversations */
    struct log_record *records; /* prepared and not yet appended */
    uint32_t record_at;
    uint32_t record_count;
    uint64_t appended;
    uint64_t completed;
    bool count_cpu; /* of the log, into: */
    uint64_t log_cpu_ns;
    uint64_t *portions; /* ns of each, per record */
    uint32_t portion_count;
    uint64_t clock_cost_ns;
    uint32_t making_commits;
    uint32_t senders;
    bool missed;
};

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

/* log_begin, log_end: what this thread uses between them is the log's. */
static uint64_t log_begin(const struct bench *b)
{
    return b->count_cpu ? clock_ns(CLOCK_THREAD_CPUTIME_ID) : 0;
}

static uint64_t log_end(struct bench *b, uint64_t began)
{
    if (!b->count_cpu)
        return 0;
    uint64_t used = clock_ns(CLOCK_THREAD_CPUTIME_ID) - began;
    used = used < b->clock_cost_ns ? 0 : used - b->clock_cost_ns;
    b->log_cpu_ns += used;
    return used;
}

static void portion_add(struct bench *b, uint64_t ns, uint32_t records)
{
    if (b->count_cpu && b->portion_count < PORTIONS_MAX)
        b->portions[b->portion_count++] = ns / records;
}

static int number_compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* quantile: of values, which get sorted; 50: the median. */
static uint64_t quantile(uint64_t *values, size_t count, size_t percent)
{
    qsort(values, count, sizeof *values, number_compare);
    return values[count * percent / 100];
}

/* clock_cost: of one reading of a thread's processor time, a system call. */
static uint64_t clock_cost(void)
{
    uint64_t ns[1000];
    for (size_t i = 0; i < COUNT_OF(ns); i++) {
        uint64_t began = clock_ns(CLOCK_THREAD_CPUTIME_ID);
        ns[i] = clock_ns(CLOCK_THREAD_CPUTIME_ID) - began;
    }
    return quantile(ns, COUNT_OF(ns), 50);
}

static int ratio_compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static enum err remove_entry(void *context, const char *name)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", (const char *)context, name);
    return file_remove(path);
}

static void clear(struct bench *b)
{
    CHECK(file_make_directory(b->directory) == OK);
    CHECK(file_list(b->directory, remove_entry, b->directory) == OK);
}

static void open_log(struct bench *b)
{
    clear(b);
    struct log_options options = {.directory = b->directory,
                                  .segment_bytes = b->segment_bytes,
                                  .batch_bytes_max = BATCH_MAX,
                                  .writer_epoch = 1,
                                  .make_rate = 4 << 20,
                                  .direct = true};
    uint64_t damaged;
    CHECK(log_open(&b->log, &options, b->io, b->workers, NULL, NULL, NULL, &damaged) == OK);
    b->appended = b->completed = b->prepared = 0;
    b->record_at = b->record_count = 0;
    memset(b->seqs, 0, CONVERSATIONS * sizeof *b->seqs);
}

/* raw_open: O_DIRECT where it can. FILE_NEW: as the log's segments are, zeros, synced;
 * FILE_RECYCLED: the same over what the file already was; FILE_ALLOCATED: never written. */
static void raw_open(struct bench *b, enum file_kind kind, uint64_t bytes)
{
    char path[600];
    snprintf(path, sizeof path, "%s.%s", b->directory, file_kinds[kind]);
    if (kind != FILE_RECYCLED)
        (void)!file_remove(path); /* there may be none */
    enum err err = file_open(&b->raw_fd, path, FILE_WRITE | FILE_CREATE | FILE_DIRECT);
    if (err == ERR_UNSUPPORTED)
        err = file_open(&b->raw_fd, path, FILE_WRITE | FILE_CREATE);
    CHECK(err == OK);
    memset(b->raw_data, 0, BATCH_MAX);
    for (uint64_t at = 0; kind != FILE_ALLOCATED && at < bytes; at += BATCH_MAX)
        CHECK(file_write(b->raw_fd, at, bytes_of(b->raw_data, BATCH_MAX)) == OK);
    CHECK(kind != FILE_ALLOCATED || fallocate(b->raw_fd, 0, 0, (off_t)bytes) == 0);
    CHECK(file_sync(b->raw_fd) == OK);
    memset(b->raw_data, 0x5a, BATCH_MAX);
    b->raw_bytes = bytes;
    b->raw_at = 0;
}

static void raw_remove(struct bench *b)
{
    char path[600];
    for (size_t i = 0; i < FILE_KINDS; i++) {
        snprintf(path, sizeof path, "%s.%s", b->directory, file_kinds[i]);
        (void)!file_remove(path); /* not every mode has made it */
    }
}

static void raw_write(struct bench *b, size_t size)
{
    struct io_file_op op = {0};
    struct io_event event;
    if (b->raw_at + size > b->raw_bytes)
        b->raw_at = 0;
    CHECK(io_file_write(b->io, &op, b->raw_fd, b->raw_at, bytes_of(b->raw_data, size), true) == OK);
    while (io_poll(b->io, &event, 1, UINT64_MAX) == 0)
        ;
    CHECK(event.op == &op && op.err == OK);
    b->raw_at += size;
}

/* prepare: the next records; what their senders do is not the log's time. */
static void prepare(struct bench *b, size_t body, uint32_t count)
{
    static uint8_t bytes[4096];
    CHECK(count <= RECORDS_MAX && b->record_at == b->record_count);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t conversation = (b->prepared++ * 0x9e3779b97f4a7c15ull >> 32) % CONVERSATIONS;
        b->records[i] = (struct log_record){.kind = RECORD_MESSAGE,
                                            .conversation = {1, conversation},
                                            .seq = ++b->seqs[conversation],
                                            .sender = {7},
                                            .device = {1},
                                            .body = bytes_of(bytes, body)};
        store_u64(b->records[i].message_id.v, b->prepared);
    }
    b->record_at = 0;
    b->record_count = count;
}

/* append_next: the next one prepared; false: the log has no room now. */
static bool append_next(struct bench *b, uint64_t cookie)
{
    if (b->record_at + 2 < b->record_count)
        log_expect(b->log, b->records[b->record_at + 2].conversation);
    enum err err = log_append(b->log, &b->records[b->record_at], cookie);
    CHECK(err == OK || err == ERR_FULL);
    b->record_at += err == OK;
    b->appended += err == OK;
    return err == OK;
}

/* append_as: false: the log has no room now. */
static bool append_as(struct bench *b, size_t body, uint64_t cookie)
{
    if (b->record_at == b->record_count)
        prepare(b, body, 1);
    return append_next(b, cookie);
}

/* turn: as gateway/flow/lane.c's: what completed, the next batch, the answers. */
static void turn(struct bench *b, bool flush, uint64_t deadline_ns)
{
    struct io_event events[8];
    size_t count = io_poll(b->io, events, COUNT_OF(events), deadline_ns);
    for (size_t i = 0; i < count; i++)
        if (events[i].kind == IO_FILE_DONE)
            log_on_file(b->log, events[i].op);
    struct worker_job *job;
    while ((job = worker_completed(b->workers, 0)) != NULL)
        job->done(job, NULL);
    if (flush)
        log_flush(b->log);
    struct log_completion done;
    if (count == 0)
        return; /* nothing has completed: the clock would be most of it */
    uint64_t began = log_begin(b);
    while (log_completed(b->log, &done)) {
        CHECK(done.err == OK);
        b->completed++;
    }
    (void)log_end(b, began);
}

/* append_batch: in portions of a turn. Between two turns a linked sync begins at log_append's looks
 * (io_file_advance): without them, portions of 1,024 records were at 70 to 76 % of the raw writer
 * with batches of 256 KiB and 1 MiB, with them at 85 to 92 %. */
static void append_batch(struct bench *b, size_t body, uint32_t records)
{
    while (records > 0) {
        uint32_t portion = records < TURN_RECORDS ? records : TURN_RECORDS;
        if (b->record_at == b->record_count)
            prepare(b, body, portion);
        uint64_t began = log_begin(b);
        for (uint32_t i = 0; i < portion; i++)
            while (!append_next(b, 0)) { /* the segment is full, or the next not made yet */
                log_flush(b->log);
                turn(b, true, io_now_ns(b->io) + NS_PER_S);
            }
        portion_add(b, log_end(b, began), portion);
        records -= portion;
        if (records > 0)
            turn(b, false, 0);
    }
}

/* log_round: batches of `records`, the next gathered while one is in flight. */
static void log_round(struct bench *b, size_t body, uint32_t records, uint32_t batches)
{
    uint64_t started = b->appended;
    for (uint32_t batch = 0; batch < batches; batch++) {
        append_batch(b, body, records);
        log_flush(b->log);
        while (b->completed < started)
            turn(b, true, UINT64_MAX);
        started = b->appended;
    }
    while (b->completed < started)
        turn(b, true, UINT64_MAX);
}

/* rounds: the log's and the raw writer's times and processor times of one figure. */
struct rounds {
    uint64_t ours[PASSES * ROUNDS];
    uint64_t raws[PASSES * ROUNDS];
    double ratios[PASSES * ROUNDS];
    uint32_t count;
    uint64_t our_cpu;
    uint64_t raw_cpu;
};

/* figure: what one line is about. */
struct figure {
    size_t body;
    size_t batch_bytes;
    uint32_t records; /* of a batch */
    uint32_t batches; /* of a round */
};

static void round_run(struct bench *b, struct rounds *r, const struct figure *f)
{
    double payload = (double)f->records * (double)record_bytes(f->body);
    uint64_t cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    uint64_t began = clock_ns(CLOCK_MONOTONIC);
    log_round(b, f->body, f->records, f->batches);
    uint64_t ours = clock_ns(CLOCK_MONOTONIC) - began;
    r->our_cpu += clock_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    began = clock_ns(CLOCK_MONOTONIC);
    for (uint32_t batch = 0; batch < f->batches; batch++)
        raw_write(b, f->batch_bytes);
    uint64_t raws = clock_ns(CLOCK_MONOTONIC) - began;
    r->raw_cpu += clock_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    r->ours[r->count] = ours;
    r->raws[r->count] = raws;
    r->ratios[r->count++] = payload / (double)f->batch_bytes * (double)raws / (double)ours;
}

/* pass: the rounds of processor time spread over it, since an index costs the more the fuller. */
static void pass(struct bench *b, struct rounds *r, const struct figure *f)
{
    uint32_t counted = 0;
    for (uint32_t i = 0; i < ROUNDS; i++) {
        round_run(b, r, f);
        if ((i + 1) * CPU_ROUNDS / ROUNDS == counted)
            continue;
        counted++;
        b->count_cpu = true;
        log_round(b, f->body, f->records, f->batches);
        b->count_cpu = false;
    }
}

static void throughput_line(struct bench *b, struct rounds *r, const struct figure *f)
{
    qsort(r->ratios, r->count, sizeof *r->ratios, ratio_compare);
    double ratio = r->ratios[r->count / 2];
    double count = (double)f->records * f->batches;
    double ns = (double)quantile(r->ours, r->count, 50);
    double raw_ns = (double)quantile(r->raws, r->count, 50);
    b->missed = b->missed || ratio < KEEP_OF_RAW;
    printf("append body %4zu batch %7zu: %7.1f MB/s, raw %7.1f MB/s, %5.1f %%; %8.0f records/s; "
           "CPU ns/record: log %4.0f (%3.0f), all %5.0f, raw %5.0f\n",
           f->body, f->batch_bytes, count * (double)record_bytes(f->body) / ns * 1e3,
           (double)f->batch_bytes * f->batches / raw_ns * 1e3, 100 * ratio, count / ns * 1e9,
           (double)b->log_cpu_ns / count / (PASSES * CPU_ROUNDS),
           (double)quantile(b->portions, b->portion_count, 50),
           (double)r->our_cpu / count / r->count, (double)r->raw_cpu / count / r->count);
}

static void throughput(struct bench *b, size_t body, size_t batch_bytes)
{
    uint32_t rounds = ROUNDS + CPU_ROUNDS;
    uint64_t segment_bytes = b->segment_bytes;
    struct figure f = {
        .body = body,
        .batch_bytes = batch_bytes,
        .records = (uint32_t)((batch_bytes - BATCH_HEADER_BYTES) / record_bytes(body)),
        .batches = (uint32_t)((segment_bytes - SEGMENT_DATA_OFFSET) / batch_bytes / rounds)};
    struct rounds r = {.count = 0};
    if (f.batches < BATCHES_MIN)
        f.batches = BATCHES_MIN;
    if (f.batches > b->batches_max)
        f.batches = b->batches_max;
    if (b->segment_bytes < rounds * (uint64_t)f.batches * batch_bytes + (1 << 20))
        b->segment_bytes = rounds * (uint64_t)f.batches * batch_bytes + (1 << 20);
    b->log_cpu_ns = 0;
    b->portion_count = 0;
    for (uint32_t i = 0; i < PASSES; i++) {
        open_log(b);
        raw_open(b, FILE_NEW, b->segment_bytes);
        pass(b, &r, &f);
        file_close(b->raw_fd);
        log_close(b->log);
    }
    b->segment_bytes = segment_bytes;
    throughput_line(b, &r, &f);
}

static void latency(struct bench *b, uint32_t senders)
{
    size_t body = 256;
    size_t size = align_up(BATCH_HEADER_BYTES + senders * record_bytes(body), SEGMENT_BLOCK);
    uint32_t rounds = b->latency_rounds;
    uint64_t *ours = memory_take(rounds * sizeof *ours, MEMORY_STORE);
    uint64_t *raws = memory_take(rounds * sizeof *raws, MEMORY_STORE);
    CHECK(ours != NULL && raws != NULL);
    open_log(b);
    raw_open(b, FILE_NEW, b->segment_bytes);
    for (uint32_t round = 0; round < rounds; round++) {
        prepare(b, body, senders);
        uint64_t began = clock_ns(CLOCK_MONOTONIC);
        log_round(b, body, senders, 1);
        ours[round] = clock_ns(CLOCK_MONOTONIC) - began;
        began = clock_ns(CLOCK_MONOTONIC);
        raw_write(b, size);
        raws[round] = clock_ns(CLOCK_MONOTONIC) - began;
    }
    file_close(b->raw_fd);
    log_close(b->log);
    double our_us = (double)quantile(ours, rounds, 50) / 1e3;
    double raw_us = (double)quantile(raws, rounds, 50) / 1e3;
    b->missed = b->missed || our_us > TIMES_RAW * raw_us;
    printf("commit %4u senders, %6zu B: p50 %7.1f us, p99 %8.1f us; raw p50 %7.1f us, p99 %8.1f "
           "us; %4.2f times\n",
           senders, size, our_us, (double)quantile(ours, rounds, 99) / 1e3, raw_us,
           (double)quantile(raws, rounds, 99) / 1e3, our_us / raw_us);
    memory_give(ours, MEMORY_STORE);
    memory_give(raws, MEMORY_STORE);
}

/* recyclable: files as a merge frees them, more than will be needed. */
static void recyclable(struct bench *b)
{
    char path[STORE_PATH_BYTES];
    int fd;
    memset(b->raw_data, 0x5a, BATCH_MAX);
    for (uint32_t id = UINT32_MAX - RECYCLED_MAX; id != UINT32_MAX; id++) {
        CHECK(store_path(path, b->directory, id, ".spare") == OK);
        CHECK(file_open(&fd, path, FILE_WRITE | FILE_CREATE) == OK);
        for (uint64_t at = 0; at < b->log->options.segment_bytes; at += BATCH_MAX)
            CHECK(file_write(fd, at, bytes_of(b->raw_data, BATCH_MAX)) == OK);
        CHECK(file_sync(fd) == OK);
        file_close(fd);
        lane_spare_add(b->log, id);
    }
}

struct commits {
    uint64_t *ns;
    uint64_t sum_ns;
    uint32_t count;
};

static void commits_line(struct commits *c, const char *name)
{
    if (c->count > 0)
        printf("commit of 64 KiB, %s: %6u, p50 %7.1f us, p99 %8.1f us; %6.1f MB/s\n", name,
               c->count, (double)quantile(c->ns, c->count, 50) / 1e3,
               (double)quantile(c->ns, c->count, 99) / 1e3,
               64 * (double)record_bytes(1024) * c->count / (double)c->sum_ns * 1e3);
    memory_give(c->ns, MEMORY_STORE);
}

static void commits_add(struct commits *c, uint64_t ns)
{
    c->ns[c->count++] = ns;
    c->sum_ns += ns;
}

/* making: commits of 64 records, told apart by whether the next segment was being made meanwhile:
 * from the third segment on; the first two are made by log_open. */
static void making(struct bench *b, bool recycled)
{
    uint64_t segment_bytes = b->segment_bytes;
    static const char *const names[] = {"no segment being made", "one being made       ",
                                        "all                  "};
    struct commits commits[3] = {0};
    for (int i = 0; i < 3; i++) {
        commits[i].ns = memory_take(b->making_commits * sizeof(uint64_t), MEMORY_STORE);
        CHECK(commits[i].ns != NULL);
    }
    b->segment_bytes = 64 << 20;
    open_log(b);
    b->segment_bytes = segment_bytes;
    if (recycled && b->making_commits > 1000) /* not in a smoke run: 12 files of 64 MiB */
        recyclable(b);
    for (uint32_t i = 0; i < b->making_commits; i++) {
        bool before = b->log->making != NULL;
        uint64_t began = clock_ns(CLOCK_MONOTONIC);
        log_round(b, 1024, 64, 1);
        uint64_t took = clock_ns(CLOCK_MONOTONIC) - began;
        if (b->log->active < 2)
            continue;
        commits_add(&commits[before || b->log->making != NULL], took);
        commits_add(&commits[2], took);
    }
    printf("segments of the log: %u, from the third on %s\n", b->log->segment_count,
           recycled ? "recycled" : "new");
    log_close(b->log);
    for (int i = 0; i < 3; i++)
        commits_line(&commits[i], names[i]);
}

/* ---- kinds of files */

static void files_line(struct bench *b, size_t size, uint32_t rounds)
{
    static uint64_t ns[FILE_KINDS][ROUNDS * FILE_COMMITS];
    uint32_t count = rounds * FILE_COMMITS;
    for (uint32_t round = 0; round < rounds; round++)
        for (uint32_t kind = 0; kind < FILE_KINDS; kind++) {
            raw_open(b, (enum file_kind)kind, align_up(FILE_COMMITS * size, BATCH_MAX));
            for (uint32_t i = 0; i < FILE_COMMITS; i++) {
                uint64_t began = clock_ns(CLOCK_MONOTONIC);
                raw_write(b, size);
                ns[kind][round * FILE_COMMITS + i] = clock_ns(CLOCK_MONOTONIC) - began;
            }
            file_close(b->raw_fd);
        }
    for (uint32_t kind = 0; kind < FILE_KINDS; kind++) {
        uint64_t sum = 0;
        for (uint32_t i = 0; i < count; i++)
            sum += ns[kind][i];
        printf("raw commit of %5zu B, %-9s file: p50 %7.1f us, p99 %8.1f us; %6.1f MB/s\n", size,
               file_kinds[kind], (double)quantile(ns[kind], count, 50) / 1e3,
               (double)quantile(ns[kind], count, 99) / 1e3,
               (double)size * count / (double)sum * 1e3);
    }
}

static void files(struct bench *b)
{
    static const size_t sizes[] = {4096, 16 << 10, 64 << 10};
    for (size_t i = 0; i < COUNT_OF(sizes); i++)
        files_line(b, sizes[i], b->batches_max < ROUNDS ? 1 : ROUNDS);
    making(b, true);
}

/* ---- a closed loop of senders */

struct senders {
    uint64_t began[SENDERS_MAX]; /* by sender, its record in flight */
    uint16_t ready[SENDERS_MAX]; /* those without one */
    uint32_t ready_count;
    uint32_t samples;
    uint64_t ns[SAMPLES_MAX];
};

/* senders_turn: completions free their senders, the free ones send, the batch goes. */
static void senders_turn(struct bench *b, struct senders *s, bool go_on)
{
    struct io_event events[8];
    struct log_completion done;
    size_t count = io_poll(b->io, events, COUNT_OF(events), io_now_ns(b->io) + NS_PER_S);
    for (size_t i = 0; i < count; i++)
        if (events[i].kind == IO_FILE_DONE)
            log_on_file(b->log, events[i].op);
    struct worker_job *job;
    while ((job = worker_completed(b->workers, 0)) != NULL)
        job->done(job, NULL);
    uint64_t now = clock_ns(CLOCK_MONOTONIC);
    while (log_completed(b->log, &done)) {
        CHECK(done.err == OK);
        if (s->samples < SAMPLES_MAX)
            s->ns[s->samples++] = now - s->began[done.cookie];
        s->ready[s->ready_count++] = (uint16_t)done.cookie;
        b->completed++;
    }
    while (go_on && s->ready_count > 0 && append_as(b, 256, s->ready[s->ready_count - 1]))
        s->began[s->ready[--s->ready_count]] = now;
    log_flush(b->log);
}

static void senders_run(struct bench *b, uint32_t count)
{
    struct senders *s = memory_take_zeroed(sizeof *s, MEMORY_STORE);
    CHECK(s != NULL && count > 0 && count <= SENDERS_MAX);
    b->segment_bytes = 64 << 20;
    open_log(b);
    for (uint32_t i = 0; i < count; i++)
        s->ready[i] = (uint16_t)i;
    uint64_t began = clock_ns(CLOCK_MONOTONIC);
    uint64_t now = began;
    for (s->ready_count = count; now < began + SENDERS_NS; now = clock_ns(CLOCK_MONOTONIC)) {
        if (s->ready_count == count && append_as(b, 256, s->ready[count - 1]))
            s->began[s->ready[--s->ready_count]] = now;
        log_flush(b->log);
        senders_turn(b, s, true);
    }
    double seconds = (double)(clock_ns(CLOCK_MONOTONIC) - began) / 1e9;
    uint64_t completed = b->completed;
    while (s->ready_count < count)
        senders_turn(b, s, false);
    log_close(b->log);
    CHECK(s->samples > 0);
    printf("%.0f %.0f %.0f\n", (double)completed / seconds,
           (double)quantile(s->ns, s->samples, 50) / 1e3,
           (double)quantile(s->ns, s->samples, 99) / 1e3);
    memory_give(s, MEMORY_STORE);
}

static void start(struct bench *b)
{
    struct io_options options = {.count = 1,
                                 .connections_max = 16,
                                 .buffers_count = 16,
                                 .buffer_bytes = 4096,
                                 .files_max = 64,
                                 .cpu = -1};
    struct worker_options workers = {.shards = 1};
    for (uint32_t i = 0; i < WORKER_CLASS_COUNT; i++) {
        workers.threads[i] = 1;
        workers.queue_max[i] = 64;
    }
    CHECK(io_group_create(&b->group, 1) == OK);
    CHECK(io_create(&b->io, b->group, &options) == OK);
    CHECK(workers_create(&b->workers, b->group, &workers) == OK);
    b->seqs = memory_take(CONVERSATIONS * sizeof *b->seqs, MEMORY_STORE);
    b->records = memory_take(RECORDS_MAX * sizeof *b->records, MEMORY_STORE);
    b->portions = memory_take(PORTIONS_MAX * sizeof *b->portions, MEMORY_STORE);
    b->raw_data = memory_take_huge(BATCH_MAX, MEMORY_STORE);
    CHECK(b->seqs != NULL && b->records != NULL && b->portions != NULL && b->raw_data != NULL);
    b->clock_cost_ns = clock_cost();
}

static void beside_raw(struct bench *b, enum mode mode)
{
    static const size_t bodies[] = {256, 1024};
    static const size_t batches[] = {16 << 10, 64 << 10, 256 << 10, 1 << 20, BATCH_MAX};
    static const uint32_t senders[] = {1, 64, 1024};
    for (size_t i = 0; i < COUNT_OF(bodies) && mode != MODE_LATENCY; i++)
        for (size_t j = 0; j < COUNT_OF(batches); j++)
            if ((b->body == 0 || b->body == bodies[i]) && (b->batch == 0 || b->batch == batches[j]))
                throughput(b, bodies[i], batches[j]);
    for (size_t i = 0; i < COUNT_OF(senders) && mode != MODE_VS_RAW; i++)
        latency(b, senders[i]);
}

static void run(struct bench *b, enum mode mode)
{
    if (mode == MODE_ALL || mode == MODE_VS_RAW || mode == MODE_LATENCY)
        beside_raw(b, mode);
    if (mode == MODE_ALL || mode == MODE_MAKING)
        making(b, false);
    if (mode == MODE_ALL || mode == MODE_FILES)
        files(b);
    if (mode == MODE_SENDERS)
        senders_run(b, b->senders);
}

int main(int argc, char **argv)
{
    struct bench b = {.segment_bytes = 128 << 20,
                      .batches_max = 200,
                      .latency_rounds = 400,
                      .making_commits = 8000};
    const char *directory = "out/bench_log";
    enum mode mode = MODE_ALL;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--smoke") == 0) {
            b.segment_bytes = 40 << 20;
            b.batches_max = 1;
            b.latency_rounds = 5;
            b.making_commits = 20;
        } else if (strcmp(argv[i], "--vs-raw") == 0) {
            mode = MODE_VS_RAW;
        } else if (strcmp(argv[i], "--latency") == 0) {
            mode = MODE_LATENCY;
        } else if (strcmp(argv[i], "--making") == 0) {
            mode = MODE_MAKING;
        } else if (strcmp(argv[i], "--files") == 0) {
            mode = MODE_FILES;
        } else if (strcmp(argv[i], "--body") == 0 && i + 1 < argc) {
            b.body = strtoul(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--batch") == 0 && i + 1 < argc) {
            b.batch = strtoul(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--senders") == 0 && i + 1 < argc) {
            mode = MODE_SENDERS;
            b.senders = (uint32_t)strtoul(argv[++i], NULL, 10);
        } else {
            directory = argv[i];
        }
    }
    snprintf(b.directory, sizeof b.directory, "%s", directory);
    start(&b);
    clear(&b);
    run(&b, mode);
    raw_remove(&b);
    clear(&b);
    memory_give(b.raw_data, MEMORY_STORE);
    memory_give(b.seqs, MEMORY_STORE);
    memory_give(b.records, MEMORY_STORE);
    memory_give(b.portions, MEMORY_STORE);
    workers_destroy(b.workers);
    io_destroy(b.io);
    io_group_destroy(b.group);
    return mode != MODE_ALL && b.missed ? 1 : 0;
}
