/* bench_log.c: what the log costs over the disk: appended bytes per second and commit latency
 * beside a raw writer (pre-written file, O_DIRECT, write + sync, one in flight) with the same batch
 * size, in one run, alternating; CPU per record.
 * Use:        bench_log [--smoke] [--vs-raw] [DIRECTORY]; the directory decides which disk is
 *             measured; --vs-raw ends with status 1 if less than 80 % of the raw writer is
 *             reached */
#include "core/file.h"
#include "core/memory.h"
#include "core/worker.h"
#include "store/segment.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define ROUNDS    5
#define RAW_BYTES (64u << 20)

struct bench {
    struct io_group *group;
    struct io *io;
    struct workers *workers;
    struct log *log;
    char directory[512];
    uint64_t segment_bytes;
    uint64_t round_bytes;
    uint32_t latency_rounds;
    int raw_fd;
    uint8_t *raw_data;
    uint64_t raw_at;
    uint64_t seq;
    uint64_t completed;
    bool short_of_raw;
};

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static int number_compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static uint64_t median(uint64_t *values, size_t count)
{
    qsort(values, count, sizeof *values, number_compare);
    return values[count / 2];
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
                                  .batch_bytes_max = 4 << 20,
                                  .writer_epoch = 1,
                                  .direct = true};
    uint64_t damaged;
    CHECK(log_open(&b->log, &options, b->io, b->workers, NULL, NULL, NULL, &damaged) == OK);
    b->seq = b->completed = 0;
}

/* raw_open: as the log's segments are: zeros, synced, O_DIRECT where it can. */
static void raw_open(struct bench *b)
{
    char path[600];
    snprintf(path, sizeof path, "%s.raw", b->directory);
    b->raw_data = memory_take_aligned(4 << 20, SEGMENT_BLOCK, MEMORY_STORE);
    CHECK(b->raw_data != NULL);
    memset(b->raw_data, 0, 4 << 20);
    enum err err = file_open(&b->raw_fd, path, FILE_WRITE | FILE_CREATE | FILE_DIRECT);
    if (err == ERR_UNSUPPORTED)
        err = file_open(&b->raw_fd, path, FILE_WRITE | FILE_CREATE);
    CHECK(err == OK);
    for (uint64_t at = 0; at < RAW_BYTES; at += 4 << 20)
        CHECK(file_write(b->raw_fd, at, bytes_of(b->raw_data, 4 << 20)) == OK);
    CHECK(file_sync(b->raw_fd) == OK);
    memset(b->raw_data, 0x5a, 4 << 20);
}

static void raw_close(struct bench *b)
{
    char path[600];
    snprintf(path, sizeof path, "%s.raw", b->directory);
    file_close(b->raw_fd);
    CHECK(file_remove(path) == OK);
    memory_give(b->raw_data, MEMORY_STORE);
}

static void raw_write(struct bench *b, size_t size)
{
    struct io_file_op op = {0};
    struct io_event event;
    if (b->raw_at + size > RAW_BYTES)
        b->raw_at = 0;
    CHECK(io_file_write(b->io, &op, b->raw_fd, b->raw_at, bytes_of(b->raw_data, size), true) == OK);
    while (io_poll(b->io, &event, 1, UINT64_MAX) == 0)
        ;
    CHECK(event.op == &op && op.err == OK);
    b->raw_at += size;
}

static void append(struct bench *b, size_t body)
{
    static uint8_t bytes[4096];
    struct log_record record = {.kind = RECORD_MESSAGE,
                                .conversation = {1, b->seq * 0x9e3779b97f4a7c15ull >> 50},
                                .seq = ++b->seq,
                                .sender = {7},
                                .device = {1},
                                .body = bytes_of(bytes, body)};
    store_u64(record.message_id.v, b->seq);
    CHECK(log_append(b->log, &record, b->seq) == OK);
}

/* await: until everything before seq is durable. */
static void await(struct bench *b, uint64_t seq)
{
    struct log_completion done;
    while (b->completed < seq) {
        struct io_event events[8];
        size_t count = io_poll(b->io, events, COUNT_OF(events), UINT64_MAX);
        for (size_t i = 0; i < count; i++)
            if (events[i].kind == IO_FILE_DONE)
                log_on_file(b->log, events[i].op);
        struct worker_job *job;
        while ((job = worker_completed(b->workers, 0)) != NULL)
            job->done(job, NULL);
        while (log_completed(b->log, &done)) {
            CHECK(done.err == OK);
            b->completed++;
        }
    }
}

/* log_round: batches of `records`, the next gathered while one is in flight. */
static void log_round(struct bench *b, size_t body, uint32_t records, uint32_t batches)
{
    uint64_t started = b->seq;
    for (uint32_t batch = 0; batch < batches; batch++) {
        for (uint32_t i = 0; i < records; i++)
            append(b, body);
        await(b, started);
        log_flush(b->log);
        started = b->seq;
    }
    await(b, started);
}

static void throughput(struct bench *b, size_t body, size_t batch_bytes)
{
    uint32_t records = (uint32_t)((batch_bytes - BATCH_HEADER_BYTES) / record_bytes(body));
    uint32_t batches = (uint32_t)(b->round_bytes / batch_bytes);
    uint64_t ours[ROUNDS];
    uint64_t raws[ROUNDS];
    uint64_t cpu = 0;
    open_log(b);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        uint64_t began = clock_ns(CLOCK_MONOTONIC);
        uint64_t cpu_began = clock_ns(CLOCK_THREAD_CPUTIME_ID);
        log_round(b, body, records, batches);
        cpu += clock_ns(CLOCK_THREAD_CPUTIME_ID) - cpu_began;
        ours[round] = clock_ns(CLOCK_MONOTONIC) - began;
        began = clock_ns(CLOCK_MONOTONIC);
        for (uint32_t batch = 0; batch < batches; batch++)
            raw_write(b, batch_bytes);
        raws[round] = clock_ns(CLOCK_MONOTONIC) - began;
    }
    log_close(b->log);
    double bytes = (double)records * batches * (double)record_bytes(body);
    double our_rate = bytes / (double)median(ours, ROUNDS) * 1e3;
    double raw_rate = (double)batch_bytes * batches / (double)median(raws, ROUNDS) * 1e3;
    b->short_of_raw = b->short_of_raw || our_rate < 0.8 * raw_rate;
    printf("append body %4zu batch %7zu: %7.1f MB/s, raw %7.1f MB/s, %5.1f %%; %9.0f records/s, "
           "CPU %4.0f ns/record\n",
           body, batch_bytes, our_rate, raw_rate, 100 * our_rate / raw_rate,
           bytes / (double)record_bytes(body) / (double)median(ours, ROUNDS) * 1e9,
           (double)cpu / ((double)records * batches * ROUNDS));
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
    for (uint32_t round = 0; round < rounds; round++) {
        uint64_t began = clock_ns(CLOCK_MONOTONIC);
        log_round(b, body, senders, 1);
        ours[round] = clock_ns(CLOCK_MONOTONIC) - began;
        began = clock_ns(CLOCK_MONOTONIC);
        raw_write(b, size);
        raws[round] = clock_ns(CLOCK_MONOTONIC) - began;
    }
    log_close(b->log);
    double our_us = (double)median(ours, rounds) / 1e3;
    double raw_us = (double)median(raws, rounds) / 1e3;
    printf("commit %4u senders: p50 %7.1f us, p99 %7.1f us; raw p50 %7.1f us, %4.2f times\n",
           senders, our_us, (double)ours[rounds * 99 / 100] / 1e3, raw_us, our_us / raw_us);
    memory_give(ours, MEMORY_STORE);
    memory_give(raws, MEMORY_STORE);
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
}

int main(int argc, char **argv)
{
    struct bench b = {.segment_bytes = 512 << 20, .round_bytes = 48 << 20, .latency_rounds = 400};
    const char *directory = "out/bench_log";
    bool judge = false;
    bool smoke = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--smoke") == 0)
            smoke = true;
        else if (strcmp(argv[i], "--vs-raw") == 0)
            judge = true;
        else
            directory = argv[i];
    }
    if (smoke) {
        b.segment_bytes = 16 << 20;
        b.round_bytes = 1 << 20;
        b.latency_rounds = 5;
    }
    snprintf(b.directory, sizeof b.directory, "%s", directory);
    start(&b);
    clear(&b);
    raw_open(&b);
    static const size_t bodies[] = {256, 1024};
    static const size_t batches[] = {16 << 10, 64 << 10, 1 << 20};
    for (size_t i = 0; i < COUNT_OF(bodies); i++)
        for (size_t j = 0; j < COUNT_OF(batches); j++)
            throughput(&b, bodies[i], batches[j]);
    static const uint32_t senders[] = {1, 64, 1024};
    for (size_t i = 0; i < COUNT_OF(senders); i++)
        latency(&b, senders[i]);
    raw_close(&b);
    clear(&b);
    workers_destroy(b.workers);
    io_destroy(b.io);
    io_group_destroy(b.group);
    return judge && b.short_of_raw ? 1 : 0;
}
