/* scenario_log.c: store/log.c on the simulated disk: records of five conversations are appended and
 * flushed, checkpointed and read; segments roll and are merged, and the process is killed or loses
 * power at any time. In some runs records expire and retention removes them, by age and by size; by
 * their ids those that may be sent again are found all the same.
 * Checks:     completions come in the order of appends; after each crash the replay gives the
 *             records from the checkpoint to n in order without a gap, n at least what was
 *             acknowledged and at most what was appended, every body as it was; nothing counts as
 *             damaged; a read gives what was acknowledged, whatever is merged meanwhile, and calls
 *             gone only what was due; so does a look-up by id, which gives the first number and
 *             time of what is gone, REPEATS_MS long. */
#include "tests/sim/scenario.h"

#include "core/file.h"
#include "core/io.h"
#include "core/worker.h"
#include "store/log.h"

#include <stdlib.h>

#define RECORDS_MAX   1200
#define BODY_MAX      3000
#define CONVERSATIONS 5
#define READ_RECORDS  60
#define AGE_MS        1000
#define EXPIRES_MS    400
#define REPEATS_MS    2500

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
    uint64_t checkpoint; /* a catalog that is always right: position, and records below it */
    uint64_t checkpoint_records;
    struct log_read read;
    bool reading;
    uint64_t reads;
    uint64_t wanted;                 /* by its id, by the read; 0: it is a RANGE */
    uint64_t times[RECORDS_MAX + 1]; /* stamps, by n */
    uint8_t out[READ_RECORDS * (BODY_MAX + 128)];
};

/* The n-th record, from 1, is number (n - 1) / CONVERSATIONS + 1 of its conversation. */
static struct conversation_id conversation_of(uint64_t n)
{
    return (struct conversation_id){1, 2 + n % CONVERSATIONS};
}

static uint64_t seq_of(uint64_t n)
{
    return (n - 1) / CONVERSATIONS + 1;
}

static uint64_t record_of(struct conversation_id conversation, uint64_t seq)
{
    uint64_t n = (seq - 1) * CONVERSATIONS + (conversation.lo - 2);
    return conversation.lo == 2 ? n + CONVERSATIONS : n;
}

static struct bytes body_make(uint8_t body[BODY_MAX], uint64_t seq)
{
    size_t size = (size_t)(seq * 7919 % BODY_MAX) + 1;
    for (size_t i = 0; i < size; i++)
        body[i] = (uint8_t)(seq * 31 + i * (seq % 13 + 1));
    return bytes_of(body, size);
}

/* forgets: records become due during the run. */
static bool forgets(const struct lane *lane)
{
    return lane->run->world->options.seed % 4 == 2;
}

/* by_size: the log is larger than it may be, almost at once: everything merged is due. */
static bool by_size(const struct lane *lane)
{
    return forgets(lane) && lane->run->world->options.seed % 8 == 6;
}

static uint64_t expires_ms(const struct lane *lane, uint64_t n)
{
    return forgets(lane) && n % 11 < 3 ? lane->times[n] + EXPIRES_MS : 0;
}

/* may_be_gone: the n-th record, by now. */
static bool may_be_gone(const struct lane *lane, uint64_t n)
{
    uint64_t now_ms = io_wall_ms(lane->io);
    uint64_t expires = expires_ms(lane, n);
    return by_size(lane) || (forgets(lane) && lane->times[n] + AGE_MS < now_ms) ||
           (expires != 0 && expires <= now_ms);
}

static void on_replay(void *context, const struct log_record *record, uint64_t position)
{
    struct lane *lane = context;
    uint8_t body[BODY_MAX];
    uint64_t n = record_of(record->conversation, record->seq);
    (void)position;
    RUN_EXPECT(lane->run, n == lane->replayed + 1);
    RUN_EXPECT(lane->run, bytes_equal(record->body, body_make(body, n)));
    lane->replayed = n;
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
                                  .segment_bytes = 128 << 10,
                                  .batch_bytes_max = 64 << 10,
                                  .writer_epoch = ++lane->epoch,
                                  .checkpoint = lane->checkpoint,
                                  .make_rate = lane->run->world->options.seed % 4 * (512 << 10),
                                  .spare_segments = (uint32_t)(lane->run->world->options.seed % 3),
                                  .lookup_bytes = lane->run->world->options.seed % 4 * 4096,
                                  .merge_segments = 1 + lane->run->world->options.seed % 2,
                                  .merge_inputs = 3,
                                  .merge_rate = 2 << 20,
                                  .archive_bytes_max = 1 << 30,
                                  .compress = lane->run->world->options.seed % 3 == 0,
                                  .direct = lane->run->world->options.disk_direct};
    if (forgets(lane))
        options.retention = (struct retention){.age_ms = AGE_MS,
                                               .bytes = by_size(lane) ? 256 << 10 : 0,
                                               .expiry_delay_ms = 100,
                                               .repeats_ms = REPEATS_MS};
    uint64_t damaged = 0;
    lane->replayed = lane->checkpoint_records;
    lane->reading = false;
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
        uint64_t n = lane->appended + 1;
        struct log_record record = {.kind = RECORD_MESSAGE,
                                    .conversation = conversation_of(n),
                                    .seq = seq_of(n),
                                    .sender = {1},
                                    .device = {1},
                                    .time_ms = lane->times[n] = io_wall_ms(lane->io)};
        record.expires_ms = expires_ms(lane, n);
        record.body = body_make(body, n);
        store_u64(record.message_id.v, n);
        enum err err = log_append(lane->log, &record, n);
        if (err == ERR_FULL)
            return i; /* after the next completion */
        RUN_EXPECT(lane->run, err == OK);
        lane->appended++;
    }
    return count;
}

/* find: the record `wanted`, by its id. */
static void find(struct lane *lane)
{
    lane->read = (struct log_read){.kind = LOG_READ_FIND,
                                   .conversation = conversation_of(lane->wanted),
                                   .sender = {1},
                                   .device = {1},
                                   .records_max = 1,
                                   .out = buffer_of(lane->out, sizeof lane->out)};
    store_u64(lane->read.message_id.v, lane->wanted);
    lane->reading = log_read(lane->log, &lane->read) == OK;
}

/* take_found: it is as it was, or gone and known; or gone and too old to be sent again. */
static void take_found(struct lane *lane, const struct log_read *read)
{
    uint64_t n = lane->wanted;
    uint8_t body[BODY_MAX];
    struct log_record record;
    struct bytes rest = buffer_bytes(&read->out);
    if (read->err == ERR_NOT_FOUND) {
        MARK("what was removed is forgotten");
        RUN_EXPECT(lane->run, forgets(lane) && may_be_gone(lane, n) &&
                                  lane->times[n] + REPEATS_MS <= io_wall_ms(lane->io));
        return;
    }
    RUN_EXPECT(lane->run, read->err == OK && log_record_next(&rest, &record) == OK);
    if (lane->run->failed)
        return;
    RUN_EXPECT(lane->run, record.seq == seq_of(n) && record.time_ms == lane->times[n]);
    if (record.kind == RECORD_GONE) {
        MARK("what was removed is found by its id");
        RUN_EXPECT(lane->run, may_be_gone(lane, n));
    } else {
        RUN_EXPECT(lane->run, bytes_equal(record.body, body_make(body, n)));
    }
}

/* read_some: a page from anywhere, or one record by its id. */
static void read_some(struct lane *lane)
{
    uint64_t full = lane->acked / CONVERSATIONS; /* every conversation has so many */
    if (lane->reading || full == 0 || world_below(lane->run->world, 4) != 0)
        return;
    lane->wanted =
        world_below(lane->run->world, 3) == 0 ? 1 + world_below(lane->run->world, lane->acked) : 0;
    if (lane->wanted != 0) {
        find(lane);
        return;
    }
    uint64_t from = 1 + world_below(lane->run->world, full);
    lane->read = (struct log_read){.kind = LOG_READ_RANGE,
                                   .conversation = conversation_of(lane->reads),
                                   .from_seq = from,
                                   .to_seq = full,
                                   .records_max = READ_RECORDS,
                                   .out = buffer_of(lane->out, sizeof lane->out)};
    lane->reading = log_read(lane->log, &lane->read) == OK;
}

/* take_gone: a read that ends before numbers that are no more, from seq on. */
static void take_gone(struct lane *lane, const struct log_read *read, uint64_t seq)
{
    MARK("a read ends where retention has been");
    RUN_EXPECT(lane->run, read->missing_from == seq && read->missing_to >= seq &&
                              read->missing_to <= read->to_seq);
    for (; seq <= read->missing_to; seq++)
        RUN_EXPECT(lane->run, may_be_gone(lane, record_of(read->conversation, seq)));
}

static size_t take_read(struct lane *lane)
{
    struct log_read *read = log_read_done(lane->log);
    struct log_record record;
    uint8_t body[BODY_MAX];
    if (read == NULL)
        return 0;
    lane->reading = false;
    lane->reads++;
    if (lane->wanted != 0) {
        take_found(lane, read);
        return 1;
    }
    struct bytes rest = buffer_bytes(&read->out);
    uint64_t seq = read->from_seq;
    for (; log_record_next(&rest, &record) == OK; seq++) {
        RUN_EXPECT(lane->run, record.seq == seq);
        uint64_t n = record_of(read->conversation, seq);
        RUN_EXPECT(lane->run, bytes_equal(record.body, body_make(body, n)));
    }
    uint64_t wanted = read->to_seq + 1 - read->from_seq;
    wanted = wanted < READ_RECORDS ? wanted : READ_RECORDS;
    if (read->err == ERR_EXPIRED)
        take_gone(lane, read, seq);
    else
        RUN_EXPECT(lane->run, read->err == OK && seq - read->from_seq == wanted);
    return 1;
}

/* checkpoint: what is acknowledged by now is in the catalog. */
static void checkpoint(struct lane *lane)
{
    if (world_below(lane->run->world, 8) != 0 || log_state(lane->log) != LOG_OPEN)
        return;
    lane->checkpoint = log_durable(lane->log);
    lane->checkpoint_records = lane->acked;
    log_checkpointed(lane->log, lane->checkpoint);
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
    work += take_read(lane);
    checkpoint(lane);
    read_some(lane);
    work += append_some(lane);
    log_flush(lane->log);
    return work;
}

static uint64_t next_ns(void *self)
{
    struct lane *lane = self;
    bool more = lane->appended < RECORDS_MAX || lane->reads <= 20;
    return more ? lane->run->world->now_ns + NS_PER_MS : UINT64_MAX;
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
    return lane->acked == RECORDS_MAX && !lane->reading && lane->reads > 20;
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
