/* bench_history.c: a page of 50 messages from old history, on a real directory: how many disk reads
 * it costs cold, from merged and from unmerged segments, and what the merge wrote for that. Reads
 * are counted, not timed; times are shown beside them. `--smoke`: a small log.
 *
 * usage: bench_history [--smoke] [DIRECTORY] (it makes DIRECTORY/bench_history and removes it) */
#include "core/file.h"
#include "core/logging.h"
#include "core/memory.h"
#include "core/worker.h"
#include "store/log_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define PAGE       50u
#define BODY       200u
#define OUT_BYTES  (256u << 10)
#define TURNS_IDLE 200

#define MERGED_READS_MAX 3u

struct bench {
    struct io_group *group;
    struct io *io;
    struct workers *workers;
    struct metrics *metrics;
    struct log *log;
    char directory[STORE_PATH_BYTES];
    uint32_t conversations;
    uint64_t messages;
    uint64_t acked;
    uint64_t random;
    uint8_t out[OUT_BYTES];
};

static void must(enum err err, const char *what)
{
    if (err == OK)
        return;
    fprintf(stderr, "bench_history: %s: %s\n", what, err_name(err));
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static uint64_t draw(struct bench *b, uint64_t below)
{
    b->random ^= b->random << 13;
    b->random ^= b->random >> 7;
    b->random ^= b->random << 17;
    return (b->random >> 11) % below;
}

static void turn(struct bench *b, uint64_t wait_ns)
{
    struct io_event events[16];
    log_flush(b->log);
    size_t count = io_poll(b->io, events, COUNT_OF(events), io_now_ns(b->io) + wait_ns);
    for (size_t i = 0; i < count; i++)
        if (events[i].kind == IO_FILE_DONE)
            log_on_file(b->log, events[i].op);
    struct worker_job *job;
    while ((job = worker_completed(b->workers, 0)) != NULL)
        job->done(job, NULL);
    struct log_completion done;
    while (log_completed(b->log, &done)) {
        must(done.err, "append");
        b->acked++;
    }
}

static void start(struct bench *b, uint32_t merge_inputs, uint64_t checkpoint)
{
    uint64_t damaged;
    const struct log_options options = {
        .directory = b->directory,
        .segment_bytes = b->messages > 100000 ? 16 << 20 : 1 << 20,
        .batch_bytes_max = 512 << 10,
        .writer_epoch = 1,
        .checkpoint = checkpoint,
        .direct = true,
        .merge_inputs = merge_inputs,
        .archive_bytes_max = 1ull << 40,
    };
    must(log_open(&b->log, &options, b->io, b->workers, b->metrics, NULL, NULL, &damaged),
         "log_open");
}

static struct conversation_id conversation_of(uint64_t n)
{
    return (struct conversation_id){1 + n, 1000000 + n};
}

/* fill: every conversation gets its messages in turns, so that each segment holds a few of all. */
static void fill(struct bench *b)
{
    uint8_t body[BODY];
    memset(body, 7, sizeof body);
    for (uint64_t i = 0; i < b->messages;) {
        uint64_t n = i % b->conversations;
        struct log_record record = {.kind = RECORD_MESSAGE,
                                    .conversation = conversation_of(n),
                                    .seq = i / b->conversations + 1,
                                    .sender = {1},
                                    .device = {1},
                                    .time_ms = io_wall_ms(b->io),
                                    .body = bytes_of(body, sizeof body)};
        store_u64(record.message_id.v, i + 1);
        store_u64(body, i * 0x9e3779b97f4a7c15ull);
        enum err err = log_append(b->log, &record, i);
        if (err == OK)
            i++;
        else if (err == ERR_FULL)
            turn(b, NS_PER_MS);
        else
            must(err, "append");
    }
    while (b->acked < b->messages)
        turn(b, NS_PER_MS);
}

static uint64_t reads(const struct bench *b)
{
    struct metrics *const all[] = {b->metrics};
    return (uint64_t)metrics_sum(all, 1, METRIC_LOG_READS);
}

struct page_cost {
    double mean;
    uint64_t most;
    uint64_t warm_us;
};

/* pages: from the oldest 1/part of history. */
static struct page_cost pages(struct bench *b, uint32_t count, uint64_t part)
{
    struct page_cost cost = {0, 0, 0};
    uint64_t each = b->messages / b->conversations / part;
    uint64_t total = 0;
    uint64_t began = now_ns();
    for (uint32_t i = 0; i < count; i++) {
        struct log_read read = {
            .kind = LOG_READ_RANGE,
            .conversation = conversation_of(draw(b, b->conversations)),
            .from_seq = each <= PAGE ? 1 : 1 + draw(b, each - PAGE),
            .records_max = PAGE,
            .out = buffer_of(b->out, sizeof b->out),
        };
        uint64_t before = reads(b);
        read.to_seq = read.from_seq + PAGE - 1;
        must(log_read(b->log, &read), "log_read");
        while (log_read_done(b->log) == NULL)
            turn(b, NS_PER_MS);
        must(read.err, "page");
        uint64_t used = reads(b) - before;
        total += used;
        cost.most = used > cost.most ? used : cost.most;
    }
    cost.mean = (double)total / count;
    cost.warm_us = (now_ns() - began) / count / 1000;
    return cost;
}

static uint32_t holders(const struct bench *b)
{
    uint32_t archives = 0;
    for (uint32_t i = 0; i < b->log->segment_count; i++)
        archives += b->log->segments[i]->archived;
    return archives;
}

static void merge(struct bench *b)
{
    log_checkpointed(b->log, log_durable(b->log));
    for (uint32_t idle = 0; idle < TURNS_IDLE; idle++) {
        turn(b, 5 * NS_PER_MS);
        if (b->log->lifecycle.job != NULL)
            idle = 0;
    }
}

static enum err remove_entry(void *context, const char *name)
{
    char path[STORE_PATH_BYTES + 260];
    const struct bench *b = context;
    snprintf(path, sizeof path, "%s/%s", b->directory, name);
    return file_remove(path);
}

static void clean(struct bench *b)
{
    if (file_list(b->directory, remove_entry, b) == OK)
        (void)!file_remove(b->directory);
}

static void set_up(struct bench *b)
{
    struct worker_options workers = {.shards = 1};
    const struct io_options io = {.count = 1,
                                  .connections_max = 1,
                                  .buffers_count = 1,
                                  .buffer_bytes = 16,
                                  .files_max = 32,
                                  .cpu = -1};
    for (size_t i = 0; i < WORKER_CLASS_COUNT; i++)
        workers.threads[i] = workers.queue_max[i] = 1;
    workers.queue_max[WORKER_DISK] = 64;
    must(io_group_create(&b->group, 1), "io_group_create");
    must(io_create(&b->io, b->group, &io), "io_create");
    must(workers_create(&b->workers, b->group, &workers), "workers_create");
    must(metrics_create(&b->metrics), "metrics_create");
}

static void show(const struct bench *b, const char *what, struct page_cost cost)
{
    printf("%-10s a page of %u: %5.2f disk reads, %3llu at most, %5llu us; segments %u, archives "
           "%u\n",
           what, PAGE, cost.mean, (unsigned long long)cost.most, (unsigned long long)cost.warm_us,
           b->log->segment_count - holders(b), holders(b));
}

int main(int argc, char **argv)
{
    static struct bench bench = {.random = 88172645463325252ull};
    struct bench *b = &bench;
    bool smoke = argc > 1 && strcmp(argv[1], "--smoke") == 0;
    const char *parent = argc > 1 + smoke ? argv[1 + smoke] : "out";
    b->conversations = smoke ? 100 : 5000;
    b->messages = smoke ? 60000 : 1000000;
    logging_init(LOG_ERROR, LOG_KEY_VALUE);
    snprintf(b->directory, sizeof b->directory, "%.900s/bench_history", parent);
    clean(b);
    set_up(b);
    start(b, 0, 0);
    uint64_t began = now_ns();
    fill(b);
    printf("%llu messages of %u bytes in %u conversations, written in %.1f s\n",
           (unsigned long long)b->messages, BODY, b->conversations,
           (double)(now_ns() - began) / 1e9);
    show(b, "unmerged", pages(b, smoke ? 20 : 200, 1));
    uint64_t checkpoint = log_durable(b->log);
    log_close(b->log);
    start(b, 4, checkpoint);
    began = now_ns();
    merge(b);
    double seconds = (double)(now_ns() - began) / 1e9 - TURNS_IDLE * 0.005;
    uint64_t moved =
        (uint64_t)metrics_sum((struct metrics *const[]){b->metrics}, 1, METRIC_MERGE_BYTES);
    uint64_t written =
        (uint64_t)metrics_sum((struct metrics *const[]){b->metrics}, 1, METRIC_LOG_APPENDED_BYTES);
    printf("merged 4 at a time in %.1f s: read and written %.2f times the log's bytes\n", seconds,
           (double)moved / (double)written);
    (void)pages(b, 20, 1); /* what stays resident of the archives is loaded */
    show(b, "any age", pages(b, smoke ? 50 : 1000, 1));
    struct page_cost merged = pages(b, smoke ? 50 : 1000, 2);
    show(b, "merged", merged);
    log_close(b->log);
    workers_destroy(b->workers);
    metrics_destroy(b->metrics);
    io_destroy(b->io);
    io_group_destroy(b->group);
    clean(b);
    if (merged.most > MERGED_READS_MAX)
        fprintf(stderr, "bench_history: a page of merged history took more than %u disk reads\n",
                MERGED_READS_MAX);
    return merged.most > MERGED_READS_MAX ? 1 : 0;
}
