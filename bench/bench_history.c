/* bench_history.c: a page of 50 messages from history, on a real directory: how many disk reads it
 * costs, cold and warm, from segments as they were written, from segments that are sorted and not
 * merged yet, from merged ones, and from what was active before a start, until it is sorted and
 * then, for conversations of different rates; what merging writes, how far it is behind the head
 * meanwhile and what appending loses by it, for several settings. Reads are counted, and the bytes
 * that came from the device (/proc/self/io); times are shown beside them. `--smoke`: a small log.
 *
 * Conversations: most get their messages in turns, so that each segment holds a few of each, far
 * apart; one is busy (every 25th message is its own), one is rare (about one in a segment).
 *
 * usage: bench_history [--smoke] [DIRECTORY] (it makes DIRECTORY/bench_history and removes it) */
#include "core/file.h"
#include "core/logging.h"
#include "core/memory.h"
#include "core/worker.h"
#include "store/lifecycle.h"
#include "store/log_private.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define PAGE       50u
#define BODY       200u
#define OUT_BYTES  (256u << 10)
#define TURNS_IDLE 200
#define BUSY_EVERY 25u
#define LOOKUPS    (64ull << 20)

#define HELD_MAX 32u

#define MERGED_READS_MAX 3u
#define ALL_SIZES        (1ull << 40)

/* setting: how segments are merged. */
struct setting {
    const char *name;
    uint64_t segment_bytes;
    uint32_t merge_segments;
    uint32_t merge_inputs; /* 0: nothing is */
    uint64_t archive_bytes_max;
    uint64_t lookup_bytes;
    uint64_t merge_rate;    /* 0: as fast as it can; else it is not waited for */
    uint32_t conversations; /* 0: as many as elsewhere */
    uint64_t append_rate;   /* bytes of records per second; 0: as fast as it can */
};

struct bench {
    struct io_group *group;
    struct io *io;
    struct workers *workers;
    struct metrics *metrics;
    struct log *log;
    char directory[STORE_PATH_BYTES];
    uint32_t conversations; /* in turns; then the busy and the rare one */
    uint64_t messages;
    uint64_t rare_every;
    uint64_t segment_bytes;
    uint64_t *newest;
    uint64_t *first;      /* number in the segment that was active when all was written */
    uint32_t waiting_max; /* segments that wait for merging */
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

static void start(struct bench *b, const struct setting *setting, uint64_t checkpoint)
{
    uint64_t damaged;
    const struct log_options options = {
        .directory = b->directory,
        .segment_bytes = setting->segment_bytes,
        .batch_bytes_max = 512 << 10,
        .writer_epoch = 1,
        .checkpoint = checkpoint,
        .direct = true,
        .lookup_bytes = setting->lookup_bytes,
        .merge_segments = setting->merge_segments,
        .merge_inputs = setting->merge_inputs,
        .archive_bytes_max = setting->archive_bytes_max,
        .merge_rate = setting->merge_rate,
    };
    must(log_open(&b->log, &options, b->io, b->workers, b->metrics, NULL, NULL, &damaged),
         "log_open");
}

static struct conversation_id conversation_of(uint64_t n)
{
    return (struct conversation_id){1 + n, 1000000 + n};
}

static uint64_t turn_of(const struct bench *b, uint64_t i)
{
    if (i % b->rare_every == 7)
        return b->conversations + 1;
    return i % BUSY_EVERY == 3 ? b->conversations : i % b->conversations;
}

/* pace: wait until so many records are due. */
static void pace(struct bench *b, uint64_t records, uint64_t rate, uint64_t began)
{
    double due_ns = (double)(records * record_bytes(BODY)) * 1e9 / (double)rate;
    while ((double)(now_ns() - began) < due_ns)
        turn(b, NS_PER_MS);
    log_checkpointed(b->log, log_durable(b->log));
    uint32_t waiting = lifecycle_waiting(b->log);
    b->waiting_max = waiting > b->waiting_max ? waiting : b->waiting_max;
}

/* fill: with merging on: checkpoints follow the log, and who waits for merging is counted. */
static void fill(struct bench *b, uint64_t rate)
{
    uint64_t began = now_ns();
    uint8_t body[BODY];
    memset(body, 7, sizeof body);
    memset(b->newest, 0, (b->conversations + 2) * sizeof *b->newest);
    b->acked = 0;
    for (uint64_t i = 0; i < b->messages;) {
        uint64_t n = turn_of(b, i);
        struct log_record record = {.kind = RECORD_MESSAGE,
                                    .conversation = conversation_of(n),
                                    .seq = b->newest[n] + 1,
                                    .sender = {1},
                                    .device = {1},
                                    .time_ms = io_wall_ms(b->io),
                                    .body = bytes_of(body, sizeof body)};
        store_u64(record.message_id.v, i + 1);
        store_u64(body, i * 0x9e3779b97f4a7c15ull);
        enum err err = log_append(b->log, &record, i);
        if (err == OK) {
            b->newest[n]++;
            i++;
            if (rate != 0 && i % 256 == 0)
                pace(b, i, rate, began);
        } else if (err == ERR_FULL) {
            turn(b, NS_PER_MS);
            log_checkpointed(b->log, log_durable(b->log));
            uint32_t waiting = lifecycle_waiting(b->log);
            b->waiting_max = waiting > b->waiting_max ? waiting : b->waiting_max;
        } else {
            must(err, "append");
        }
    }
    while (b->acked < b->messages)
        turn(b, NS_PER_MS);
}

/* note_active: what the active segment has. */
static void note_active(struct bench *b)
{
    const struct index *index = b->log->segments[b->log->active]->index;
    for (uint64_t n = 0; n < b->conversations + 2; n++) {
        struct index_hit hit = {.seq = b->newest[n]};
        bool before;
        (void)index_range(index, conversation_of(n), 1, UINT32_MAX, &hit, 1, &before);
        b->first[n] = hit.seq;
    }
}

static uint64_t reads(const struct bench *b)
{
    struct metrics *const all[] = {b->metrics};
    return (uint64_t)metrics_sum(all, 1, METRIC_LOG_READS);
}

/* device_bytes: that this process has had read from disks so far. */
static uint64_t device_bytes(void)
{
    char line[128];
    unsigned long long bytes = 0;
    FILE *file = fopen("/proc/self/io", "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        (void)!sscanf(line, "read_bytes: %llu", &bytes);
    if (file != NULL)
        fclose(file);
    return bytes;
}

static enum err forget_file(void *context, const char *name)
{
    char path[STORE_PATH_BYTES + 260];
    const struct bench *b = context;
    int fd;
    snprintf(path, sizeof path, "%s/%s", b->directory, name);
    if (file_open(&fd, path, FILE_READ) != OK)
        return OK;
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    file_close(fd);
    return OK;
}

struct page_cost {
    double reads;
    uint64_t reads_most;
    double held; /* files that hold some of it */
    double kib;  /* from the device */
    uint64_t us;
    uint64_t messages;
    struct {
        uint64_t pages;
        uint64_t reads;
        uint64_t reads_most;
    } by_held[HELD_MAX];
};

/* holds: the file at hand has some of those numbers. */
static bool holds(const struct lane_segment *segment, struct conversation_id id, uint64_t from,
                  uint64_t to)
{
    struct index_hit hit = {0};
    struct archive_entry entry;
    uint32_t count = 0;
    bool before;
    if (segment->archived && segment->places != NULL)
        return places_archive_entry(segment->places, id, &entry) == OK && entry.first_seq <= to &&
               entry.last_seq >= from;
    if (segment->index != NULL)
        count = index_range(segment->index, id, from, UINT32_MAX, &hit, 1, &before);
    else if (segment->places != NULL)
        (void)!places_range(segment->places, id, from, &hit, 1, &count, &before);
    return count == 1 && hit.seq <= to;
}

static uint32_t held(const struct bench *b, const struct log_read *read)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i <= b->log->active; i++)
        count += holds(b->log->segments[i], read->conversation, read->from_seq, read->to_seq);
    return count < HELD_MAX ? count : HELD_MAX - 1;
}

enum which { OF_MOST, OF_BUSY, OF_RARE };

struct page_plan {
    const char *name;
    enum which which;
    enum log_read_kind kind;
    uint64_t part; /* from the oldest 1/part of history; 0: note_active */
};

static void page(struct bench *b, const struct page_plan *plan, struct page_cost *cost)
{
    uint64_t n = plan->which == OF_MOST   ? draw(b, b->conversations)
                 : plan->which == OF_BUSY ? b->conversations
                                          : b->conversations + 1;
    uint64_t last = plan->part == 0 ? 0 : b->newest[n] / plan->part;
    struct log_read read = {
        .kind = plan->kind,
        .conversation = conversation_of(n),
        .from_seq = last <= PAGE ? 1 : 1 + draw(b, last - PAGE),
        .records_max = PAGE,
        .out = buffer_of(b->out, sizeof b->out),
    };
    if (plan->part == 0)
        read.from_seq = b->first[n];
    uint64_t before = reads(b);
    read.to_seq = read.kind == LOG_READ_BACK ? UINT64_MAX : read.from_seq + PAGE - 1;
    must(log_read(b->log, &read), "log_read");
    while (log_read_done(b->log) == NULL)
        turn(b, NS_PER_MS);
    must(read.err, "page");
    uint64_t used = reads(b) - before;
    uint32_t files = held(b, &read);
    cost->reads += (double)used;
    cost->reads_most = used > cost->reads_most ? used : cost->reads_most;
    cost->held += files;
    cost->messages += read.records;
    cost->by_held[files].pages++;
    cost->by_held[files].reads += used;
    if (used > cost->by_held[files].reads_most)
        cost->by_held[files].reads_most = used;
}

static struct page_cost pages(struct bench *b, uint32_t count, const struct page_plan *plan)
{
    struct page_cost cost = {0};
    uint64_t bytes = device_bytes();
    uint64_t began = now_ns();
    for (uint32_t i = 0; i < count; i++)
        page(b, plan, &cost);
    cost.us = (now_ns() - began) / count / 1000;
    cost.kib = (double)(device_bytes() - bytes) / 1024 / count;
    cost.reads /= count;
    cost.held /= count;
    return cost;
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

static double metric(const struct bench *b, enum metric id)
{
    struct metrics *const all[] = {b->metrics};
    return (double)metrics_sum(all, 1, id);
}

/* show: cold, and the same pages once more. */
static struct page_cost show(struct bench *b, uint32_t count, const struct page_plan *plan)
{
    if (file_list(b->directory, forget_file, b) != OK)
        exit(1);
    uint64_t random = b->random;
    struct page_cost cold = pages(b, count, plan);
    b->random = random;
    struct page_cost warm = pages(b, count, plan);
    printf("  %-26s %5.2f reads, %2llu at most", plan->name, cold.reads,
           (unsigned long long)cold.reads_most);
    if (b->log->options.lookup_bytes != 0) /* else it is not known here */
        printf(", of %5.2f files", cold.held);
    printf("; %4.1f messages; %5.1f KiB of the disk, %4llu us; again: %3.1f KiB, %3llu us\n",
           (double)cold.messages / count, cold.kib, (unsigned long long)cold.us, warm.kib,
           (unsigned long long)warm.us);
    return cold;
}

static void show_all(struct bench *b, uint32_t count, const struct page_plan *plans, size_t plans_n)
{
    for (size_t i = 0; i < plans_n; i++) {
        (void)pages(b, 20, &plans[i]); /* what stays resident is loaded */
        show(b, count, &plans[i]);
    }
}

static const struct page_plan unmerged_plans[] = {
    {"most conversations", OF_MOST, LOG_READ_RANGE, 1},
    {"the newest page", OF_MOST, LOG_READ_BACK, 1},
    {"a busy one", OF_BUSY, LOG_READ_RANGE, 1},
    {"a rare one", OF_RARE, LOG_READ_BACK, 1},
};

/* restart: with other settings; the checkpoint is at the log's end. */
static void restart(struct bench *b, const struct setting *setting)
{
    uint64_t checkpoint = log_durable(b->log);
    log_close(b->log);
    start(b, setting, checkpoint);
}

static void show_unmerged(struct bench *b, uint32_t count)
{
    printf("%u segments as they were written, look-ups of %.1f MiB in memory:\n",
           b->log->segment_count, metric(b, METRIC_LOG_LOOKUP_BYTES) / (1 << 20));
    show_all(b, count, unmerged_plans, COUNT_OF(unmerged_plans));
    restart(b, &(struct setting){.segment_bytes = b->segment_bytes});
    printf("the same without look-ups in memory (the index is read):\n");
    show_all(b, count, unmerged_plans, COUNT_OF(unmerged_plans));
}

static uint32_t archives(const struct bench *b)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < b->log->segment_count; i++)
        count += b->log->segments[i]->archived;
    return count;
}

static void show_active(struct bench *b, uint32_t count)
{
    static const struct page_plan plans[] = {
        {"what was active then", OF_MOST, LOG_READ_RANGE, 0},
        {"the same of a busy one", OF_BUSY, LOG_READ_RANGE, 0},
    };
    for (size_t i = 0; i < COUNT_OF(plans); i++)
        show(b, count, &plans[i]);
}

/* show_sorted: every segment from before the start is an archive of its own. */
static void show_sorted(struct bench *b, uint32_t count)
{
    struct setting setting = {.segment_bytes = b->segment_bytes,
                              .merge_segments = 1,
                              .merge_inputs = 16,
                              .archive_bytes_max = 1,
                              .lookup_bytes = LOOKUPS};
    restart(b, &setting);
    printf("after a start, before anything is sorted:\n");
    show_active(b, count);
    uint64_t began = now_ns();
    merge(b);
    printf("%u segments sorted in %.1f s, each an archive; look-ups of %.1f MiB in memory:\n",
           archives(b), (double)(now_ns() - began) / 1e9 - TURNS_IDLE * 0.005,
           metric(b, METRIC_LOG_LOOKUP_BYTES) / (1 << 20));
    for (size_t i = 0; i < COUNT_OF(unmerged_plans); i++) {
        (void)pages(b, 20, &unmerged_plans[i]);
        struct page_cost cost = show(b, count, &unmerged_plans[i]);
        if (unmerged_plans[i].kind != LOG_READ_RANGE)
            continue;
        printf("    files that hold it: reads (most, pages)");
        for (uint32_t held = 0; held < HELD_MAX; held++)
            if (cost.by_held[held].pages > 0)
                printf("; %u: %.2f (%llu, %llu)", held,
                       (double)cost.by_held[held].reads / (double)cost.by_held[held].pages,
                       (unsigned long long)cost.by_held[held].reads_most,
                       (unsigned long long)cost.by_held[held].pages);
        printf("\n");
    }
    show_active(b, count);
    setting.lookup_bytes = 0;
    restart(b, &setting);
    printf("the same without look-ups in memory (directories are read):\n");
    show_all(b, count, unmerged_plans, COUNT_OF(unmerged_plans));
}

static uint64_t show_merged(struct bench *b, uint32_t count)
{
    static const struct page_plan plans[] = {
        {"any age", OF_MOST, LOG_READ_RANGE, 1},
        {"the newest page", OF_MOST, LOG_READ_BACK, 1},
        {"merged", OF_MOST, LOG_READ_RANGE, 2},
        {"merged, a busy one", OF_BUSY, LOG_READ_RANGE, 2},
    };
    struct setting setting = {.segment_bytes = b->segment_bytes,
                              .merge_segments = 1,
                              .merge_inputs = 16,
                              .archive_bytes_max = ALL_SIZES,
                              .lookup_bytes = LOOKUPS};
    uint64_t most = 0;
    restart(b, &setting);
    merge(b);
    for (uint32_t lookups = 2; lookups-- > 0;) {
        printf("16 of them merged: %u archives, look-ups %s:\n", archives(b),
               lookups > 0 ? "in memory" : "not in memory");
        for (size_t i = 0; i < COUNT_OF(plans); i++) {
            (void)pages(b, 20, &plans[i]);
            struct page_cost cost = show(b, count, &plans[i]);
            if (plans[i].part == 2 && cost.reads_most > most)
                most = cost.reads_most;
        }
        setting.lookup_bytes = 0;
        restart(b, &setting);
    }
    return most;
}

/* show_lag: the same log once more, merged while it is written as fast as it can be. */
static void show_lag(struct bench *b, const struct setting *setting)
{
    double moved = metric(b, METRIC_MERGE_BYTES);
    double put = metric(b, METRIC_MERGE_WRITTEN_BYTES);
    double written = metric(b, METRIC_LOG_APPENDED_BYTES);
    uint32_t conversations = b->conversations;
    log_close(b->log);
    clean(b);
    b->waiting_max = 0;
    start(b, setting, 0);
    if (setting->conversations != 0 && setting->conversations < conversations)
        b->conversations = setting->conversations;
    uint64_t began = now_ns();
    fill(b, setting->append_rate);
    uint64_t filled = now_ns();
    uint32_t waiting = lifecycle_waiting(b->log);
    b->conversations = conversations;
    double bytes = metric(b, METRIC_LOG_APPENDED_BYTES) - written;
    printf(
        "  %-28s appended at %3.0f MB/s; segments of %2llu MiB behind the head: %u at most, %u at "
        "the end",
        setting->name, bytes / ((double)(filled - began) / 1e3),
        (unsigned long long)setting->segment_bytes >> 20, b->waiting_max, waiting);
    if (setting->merge_inputs == 0 || setting->merge_rate != 0) {
        printf("\n");
        return;
    }
    merge(b);
    printf(
        "; all merged %.1f s later, %u archives; written %.2f, read %.2f times the log's bytes\n",
        (double)(now_ns() - filled) / 1e9 - TURNS_IDLE * 0.005, archives(b),
        (metric(b, METRIC_MERGE_WRITTEN_BYTES) - put) / bytes,
        (metric(b, METRIC_MERGE_BYTES) - moved - metric(b, METRIC_MERGE_WRITTEN_BYTES) + put) /
            bytes);
}

/* show_lags: the settings of before and of now; and both with everything at a 64th of its default
 * size, so that all levels are there. */
static void show_lags(struct bench *b)
{
    uint64_t size = b->segment_bytes;
    const struct setting settings[] = {
        {"nothing is merged:", size, 0, 0, 0, LOOKUPS, 0, 0, 0},
        {"4 segments, 16 archives:", size, 4, 16, ALL_SIZES, LOOKUPS, 0, 0, 0},
        {"1 segment, 16 archives:", size, 1, 16, ALL_SIZES, LOOKUPS, 0, 0, 0},
        {"4, 16, at 64 MiB/s:", size, 4, 16, ALL_SIZES, LOOKUPS, 64 << 20, 0, 0},
        {"1, 16, at 64 MiB/s:", size, 1, 16, ALL_SIZES, LOOKUPS, 64 << 20, 0, 0},
        {"4, 16, paced, at 128 MiB/s:", size, 4, 16, ALL_SIZES, LOOKUPS, 128 << 20, 0, 16 << 20},
        {"1, 16, paced, at 128 MiB/s:", size, 1, 16, ALL_SIZES, LOOKUPS, 128 << 20, 0, 16 << 20},
        {"4, 16, a 64th of all sizes:", 1 << 20, 4, 16, 256 << 20, LOOKUPS, 0, 79, 0},
        {"1, 16, a 64th of all sizes:", 1 << 20, 1, 16, 256 << 20, LOOKUPS, 0, 79, 0},
    };
    printf("merging beside appending:\n");
    for (size_t i = 0; i < COUNT_OF(settings); i++)
        show_lag(b, &settings[i]);
}

static void tear_down(struct bench *b)
{
    log_close(b->log);
    workers_destroy(b->workers);
    metrics_destroy(b->metrics);
    io_destroy(b->io);
    io_group_destroy(b->group);
    free(b->newest);
    free(b->first);
    clean(b);
}

int main(int argc, char **argv)
{
    static struct bench bench = {.random = 88172645463325252ull};
    struct bench *b = &bench;
    bool smoke = argc > 1 && strcmp(argv[1], "--smoke") == 0;
    const char *parent = argc > 1 + smoke ? argv[1 + smoke] : "out";
    b->conversations = smoke ? 101 : 4999; /* no multiple of BUSY_EVERY */
    b->messages = smoke ? 60000 : 1000000;
    b->rare_every = smoke ? 3000 : 52000;
    b->segment_bytes = smoke ? 1 << 20 : 16 << 20;
    b->newest = calloc(b->conversations + 2, sizeof *b->newest);
    b->first = calloc(b->conversations + 2, sizeof *b->first);
    if (b->newest == NULL || b->first == NULL)
        return 1;
    logging_init(LOG_ERROR, LOG_KEY_VALUE);
    snprintf(b->directory, sizeof b->directory, "%.900s/bench_history", parent);
    clean(b);
    set_up(b);
    start(b, &(struct setting){.segment_bytes = b->segment_bytes, .lookup_bytes = LOOKUPS}, 0);
    fill(b, 0);
    note_active(b);
    printf("%llu messages of %u bytes in %u conversations; a page of %u:\n",
           (unsigned long long)b->messages, BODY, b->conversations + 2, PAGE);
    show_unmerged(b, smoke ? 20 : 200);
    show_sorted(b, smoke ? 20 : 500);
    uint64_t most = show_merged(b, smoke ? 50 : 1000);
    show_lags(b);
    tear_down(b);
    if (most > MERGED_READS_MAX)
        fprintf(stderr, "bench_history: a page of merged history took more than %u disk reads\n",
                MERGED_READS_MAX);
    return most > MERGED_READS_MAX ? 1 : 0;
}
