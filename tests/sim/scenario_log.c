/* scenario_log.c: store/log.c on the simulated disk: records are appended and flushed, segments
 * roll, and the process is killed or loses power at any time.
 * Checks:     completions come in the order of appends; after each crash the replay gives records 1
 *             … n in order without a gap, n at least what was acknowledged and at most what was
 *             appended, every body as it was; nothing counts as damaged. */
#include "tests/sim/scenario.h"

#include "core/file.h"
#include "core/io.h"
#include "core/worker.h"
#include "store/log.h"

#include <stdlib.h>

#define RECORDS_MAX 1200
#define BODY_MAX    3000

struct lane {
    struct run *run;
    struct io_group *group;
    struct io *io;
    struct workers *workers;
    struct metrics *metrics;
    struct log *log;
    uint64_t epoch;
    uint64_t appended;
    uint64_t acked;
    uint64_t replayed;
};

static struct bytes body_make(uint8_t body[BODY_MAX], uint64_t seq)
{
    size_t size = (size_t)(seq * 7919 % BODY_MAX) + 1;
    for (size_t i = 0; i < size; i++)
        body[i] = (uint8_t)(seq * 31 + i * (seq % 13 + 1));
    return bytes_of(body, size);
}

static void on_replay(void *context, const struct log_record *record, uint64_t position)
{
    struct lane *lane = context;
    uint8_t body[BODY_MAX];
    (void)position;
    RUN_EXPECT(lane->run, record->seq == lane->replayed + 1);
    RUN_EXPECT(lane->run, bytes_equal(record->body, body_make(body, record->seq)));
    lane->replayed = record->seq;
}

static void start(struct lane *lane)
{
    struct worker_options workers = {.shards = 1};
    struct io_options io = {.count = 1,
                            .connections_max = 1,
                            .buffers_count = 1,
                            .buffer_bytes = 16,
                            .files_max = 16,
                            .cpu = -1};
    for (size_t i = 0; i < WORKER_CLASS_COUNT; i++)
        workers.threads[i] = workers.queue_max[i] = 1;
    workers.queue_max[WORKER_DISK] = 16;
    enum err err = io_group_create(&lane->group, 1);
    CHECK(err == OK);
    err = io_create(&lane->io, lane->group, &io);
    CHECK(err == OK);
    err = workers_create(&lane->workers, lane->group, &workers);
    CHECK(err == OK);
    err = metrics_create(&lane->metrics);
    CHECK(err == OK);
    struct log_options options = {.directory = "lane",
                                  .segment_bytes = 1 << 20,
                                  .batch_bytes_max = 64 << 10,
                                  .writer_epoch = ++lane->epoch,
                                  .direct = lane->run->world->options.disk_direct};
    uint64_t damaged = 0;
    lane->replayed = 0;
    err = file_make_directory(options.directory); /* its name's durability is the caller's care */
    CHECK(err == OK);
    err = file_sync_directory(".");
    CHECK(err == OK);
    err = log_open(&lane->log, &options, lane->io, lane->workers, lane->metrics, on_replay, lane,
                   &damaged);
    RUN_EXPECT(lane->run, err == OK);
    RUN_EXPECT(lane->run, damaged == 0);
    if (lane->replayed < lane->acked || lane->replayed > lane->appended)
        run_fail(lane->run, "replayed %llu records of %llu acknowledged, %llu appended",
                 (unsigned long long)lane->replayed, (unsigned long long)lane->acked,
                 (unsigned long long)lane->appended);
    lane->appended = lane->acked = lane->replayed;
    if (err != OK)
        lane->log = NULL;
}

static void stop(struct lane *lane, bool dead)
{
    if (lane->log && dead)
        log_abandon(lane->log);
    else if (lane->log)
        log_close(lane->log);
    workers_destroy(lane->workers);
    metrics_destroy(lane->metrics);
    io_destroy(lane->io);
    io_group_destroy(lane->group);
}

static size_t append_some(struct lane *lane)
{
    size_t count = (size_t)world_below(lane->run->world, 5);
    for (size_t i = 0; i < count && lane->appended < RECORDS_MAX; i++) {
        uint8_t body[BODY_MAX];
        struct log_record record = {.kind = RECORD_MESSAGE,
                                    .conversation = {1, 2},
                                    .seq = lane->appended + 1,
                                    .sender = {1},
                                    .device = {1},
                                    .time_ms = io_wall_ms(lane->io)};
        record.body = body_make(body, record.seq);
        store_u64(record.message_id.v, record.seq);
        enum err err = log_append(lane->log, &record, record.seq);
        if (err == ERR_FULL)
            return i; /* after the next completion */
        RUN_EXPECT(lane->run, err == OK);
        lane->appended++;
    }
    return count;
}

static size_t turn(void *self)
{
    struct lane *lane = self;
    struct io_event events[4];
    size_t work = io_poll(lane->io, events, COUNT_OF(events), 0);
    for (size_t i = 0; i < work; i++)
        if (events[i].kind == IO_FILE_DONE && log_owns(lane->log, events[i].op))
            log_on_file(lane->log, events[i].op);
    struct worker_job *job;
    while ((job = worker_completed(lane->workers, 0)) != NULL) {
        job->done(job, NULL);
        work++;
    }
    struct log_completion completion;
    while (log_completed(lane->log, &completion)) {
        RUN_EXPECT(lane->run, completion.err == OK && completion.cookie == lane->acked + 1);
        lane->acked = completion.cookie;
        work++;
    }
    work += append_some(lane);
    log_flush(lane->log);
    return work;
}

static uint64_t next_ns(void *self)
{
    struct lane *lane = self;
    return lane->appended < RECORDS_MAX ? lane->run->world->now_ns + NS_PER_MS : UINT64_MAX;
}

static void set_up(struct run *run)
{
    struct lane *lane = world_take(1, sizeof *lane);
    lane->run = run;
    run->state = lane;
    start(lane);
    run_add(run, (struct actor){"lane", lane, turn, next_ns});
}

static void crash(struct run *run)
{
    struct lane *lane = run->state;
    world_kill(run->world, lane->group, world_below(run->world, 2) == 0);
    stop(lane, true);
    world_restart(run->world);
    start(lane);
}

static bool done(struct run *run)
{
    struct lane *lane = run->state;
    return lane->acked == RECORDS_MAX;
}

/* An orderly end loses nothing. */
static void check(struct run *run)
{
    struct lane *lane = run->state;
    stop(lane, false);
    start(lane);
    RUN_EXPECT(run, lane->replayed == RECORDS_MAX);
}

static void tear_down(struct run *run)
{
    struct lane *lane = run->state;
    stop(lane, run->failed);
    free(lane);
}

static void options(struct world_options *options)
{
    options->disk_direct = options->seed % 2 == 0;
}

const struct scenario scenario_log = {
    .name = "log",
    .about = "the real log on the simulated disk, killed and without power",
    .faults_ns = 5 * NS_PER_S,
    .limit_ns = 600 * NS_PER_S,
    .crashes_max = 6,
    .options = options,
    .set_up = set_up,
    .crash = crash,
    .done = done,
    .check = check,
    .tear_down = tear_down,
};
