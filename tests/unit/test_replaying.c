/* test_replaying.c: the log's tail on its way into the catalog, by the real threads, catalog and
 * io: the rows are those of one thread alone; order, failures on either thread, memory, several
 * lanes, damage. */
#include "gateway/flow/replaying.h"

#include "core/file.h"
#include "core/memory.h"
#include "store/sidecar.h"
#include "tests/unit/check.h"

#include <stdio.h>
#include <stdlib.h>

#define NOW       1800000000000ull
#define GROUP     REPLAY_GROUP_RECORDS
#define MAP_BYTES (1ull << 30)
#define LANES     2u

struct rig {
    struct io_group *group;
    struct io *io;
    struct workers *workers;
    struct catalog *catalog;
    struct replaying replaying;
    char directory[64];
    uint64_t completed; /* appends */
};

/* ---- the rig */

static enum err drop_entry(void *context, const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", (const char *)context, name);
    return file_remove(path);
}

static void start_workers(struct rig *rig, uint32_t queue_max)
{
    struct worker_options options = {.shards = 1};
    for (uint32_t i = 0; i < WORKER_CLASS_COUNT; i++) {
        options.threads[i] = 1;
        options.queue_max[i] = queue_max;
    }
    options.batch[WORKER_CATALOG_WRITE] = catalog_write_batch;
    options.batch_context[WORKER_CATALOG_WRITE] = rig->catalog;
    assert_int_equal(workers_create(&rig->workers, rig->group, &options), OK);
}

static void open_catalog(struct rig *rig, uint64_t map_bytes)
{
    const char *explanation;
    assert_int_equal(catalog_open(&rig->catalog, rig->directory, map_bytes, &explanation), OK);
}

/* empty_catalog: another one, with nothing in it, and workers that write to it. */
static void empty_catalog(struct rig *rig, uint64_t map_bytes, uint32_t queue_max)
{
    workers_destroy(rig->workers);
    catalog_close(rig->catalog);
    assert_int_equal(file_list(rig->directory, drop_entry, rig->directory), OK);
    open_catalog(rig, map_bytes);
    start_workers(rig, queue_max);
}

static int set_up(void **state)
{
    struct rig *rig = calloc(1, sizeof *rig);
    const struct io_options io = {.count = 1,
                                  .connections_max = 16,
                                  .buffers_count = 16,
                                  .buffer_bytes = 4096,
                                  .files_max = 64,
                                  .cpu = -1};
    *state = rig;
    snprintf(rig->directory, sizeof rig->directory, "/tmp/test_replaying_XXXXXX");
    if (rig == NULL || mkdtemp(rig->directory) == NULL || io_group_create(&rig->group, 1) != OK ||
        io_create(&rig->io, rig->group, &io) != OK)
        return -1;
    open_catalog(rig, MAP_BYTES);
    start_workers(rig, 64);
    return 0;
}

static int tear_down(void **state)
{
    struct rig *rig = *state;
    memory_fail_at(0);
    workers_destroy(rig->workers);
    catalog_close(rig->catalog);
    io_destroy(rig->io);
    io_group_destroy(rig->group);
    enum err err = file_list(rig->directory, drop_entry, rig->directory);
    int removed = remove(rig->directory);
    free(rig);
    return err == OK && removed == 0 && memory_bytes(MEMORY_CHAT) == 0 ? 0 : -1;
}

static enum err init(struct rig *rig)
{
    return replaying_init(&rig->replaying, rig->catalog, rig->workers, rig->io, 0);
}

/* ---- what the catalog says */

static enum err add_row(void *context, struct bytes key, struct bytes value)
{
    uint64_t *sum = context;
    for (size_t i = 0; i < key.size + value.size; i++) {
        uint8_t byte = i < key.size ? key.data[i] : value.data[i - key.size];
        *sum = (*sum ^ byte) * 0x100000001b3u;
    }
    return OK;
}

/* rows: a number that tells what all rows are. */
static uint64_t rows(struct rig *rig)
{
    static const enum catalog_table tables[] = {CATALOG_CONVERSATIONS, CATALOG_INBOX,
                                                CATALOG_PENDING, CATALOG_RETENTION};
    uint64_t sum = 1;
    struct catalog_txn *txn;
    assert_int_equal(catalog_begin(rig->catalog, &txn, false), OK);
    for (size_t i = 0; i < COUNT_OF(tables); i++)
        assert_int_equal(catalog_scan(txn, tables[i], bytes_of(NULL, 0), add_row, &sum), OK);
    catalog_abort(txn);
    return sum;
}

static enum err read_conversation(struct rig *rig, struct conversation_id id,
                                  struct conversation_row *row)
{
    struct catalog_txn *txn;
    assert_int_equal(catalog_begin(rig->catalog, &txn, false), OK);
    enum err err = rows_read_conversation(txn, id, row);
    catalog_abort(txn);
    return err;
}

/* ---- records */

static struct conversation_id between(uint64_t a, uint64_t b)
{
    return conversation_id_direct((struct user_id){a}, (struct user_id){b});
}

static struct log_record message(uint64_t user, uint32_t device, uint64_t peer, uint64_t seq)
{
    struct log_record record = {.kind = RECORD_MESSAGE,
                                .conversation = between(user, peer),
                                .seq = seq,
                                .sender = {user},
                                .device = {device},
                                .time_ms = NOW + seq,
                                .body = bytes_of(NULL, 0)};
    store_u64(record.message_id.v, __builtin_bswap64(seq));
    return record;
}

static struct log_record random_record(uint64_t *seed, uint64_t users, uint8_t body[8])
{
    struct log_record record = message(1 + random_below(seed, users), /* with oneself, too */
                                       1 + (uint32_t)random_below(seed, 4),
                                       1 + random_below(seed, 40), 1 + random_below(seed, 30));
    if (random_below(seed, 3) != 0)
        return record;
    record.kind = RECORD_WATERMARK;
    store_u64(body, random_below(seed, 30));
    record.body = bytes_of(body, 8);
    return record;
}

/* feed_random: the records of a seed. */
static void feed_random(uint64_t seed, uint64_t users, uint32_t count,
                        void (*take)(void *context, const struct log_record *record,
                                     uint64_t position),
                        void *context)
{
    for (uint32_t i = 0; i < count; i++) {
        uint8_t body[8];
        struct log_record record = random_record(&seed, users, body);
        take(context, &record, i);
    }
}

/* ---- tests */

struct alone {
    struct replay *replay;
    struct catalog_txn *txn;
};

static void take_alone(void *context, const struct log_record *record, uint64_t position)
{
    struct alone *alone = context;
    (void)position;
    assert_int_equal(replay_record(alone->replay, alone->txn, record), OK);
}

static void two_threads_make_the_rows_of_one(void **state)
{
    static const uint32_t counts[] = {0, 1, GROUP - 1, GROUP, GROUP + 1, 5 * GROUP + 17};
    struct rig *rig = *state;
    for (size_t i = 0; i < COUNT_OF(counts); i++) {
        struct alone alone;
        uint64_t seed = i + 1;
        uint64_t users = 10 + 300 * i;
        empty_catalog(rig, MAP_BYTES, 64);
        assert_int_equal(replay_create(&alone.replay), OK);
        assert_int_equal(catalog_begin(rig->catalog, &alone.txn, true), OK);
        feed_random(seed, users, counts[i], take_alone, &alone);
        assert_int_equal(replay_flush(alone.replay, alone.txn), OK);
        assert_int_equal(catalog_commit(alone.txn), OK);
        replay_destroy(alone.replay);
        uint64_t expected = rows(rig);
        empty_catalog(rig, MAP_BYTES, i % 2 == 0 ? 64 : 1); /* a short queue, too */
        assert_int_equal(init(rig), OK);
        feed_random(seed, users, counts[i], replaying_record, &rig->replaying);
        assert_int_equal(replaying_finish(&rig->replaying), OK);
        assert_int_equal(rig->replaying.records, counts[i]);
        replaying_deinit(&rig->replaying);
        assert_true(rows(rig) == expected);
    }
}

/* A cursor follows its device's own messages only from one number to the next. */
static void groups_are_taken_in_order(void **state)
{
    static struct inbox_row inbox;
    const uint64_t last = 7 * GROUP / 2;
    struct rig *rig = *state;
    struct catalog_txn *txn;
    uint8_t body[8] = {0};
    struct log_record record = message(5, 1, 9, 0);
    assert_int_equal(init(rig), OK);
    record.kind = RECORD_WATERMARK;
    record.body = bytes_of(body, sizeof body);
    replaying_record(&rig->replaying, &record, 0);
    for (uint64_t seq = 1; seq <= last; seq++) {
        record = message(5, 1, 9, seq);
        replaying_record(&rig->replaying, &record, seq);
    }
    assert_int_equal(replaying_finish(&rig->replaying), OK);
    replaying_deinit(&rig->replaying);
    assert_int_equal(catalog_begin(rig->catalog, &txn, false), OK);
    assert_int_equal(rows_read_inbox(txn, (struct user_id){5}, between(5, 9), &inbox), OK);
    catalog_abort(txn);
    assert_int_equal(inbox.cursor_count, 1);
    assert_int_equal(inbox.cursors[0].delivered, last);
}

static void put_damaged_row(struct rig *rig, struct conversation_id id)
{
    struct catalog_txn *txn;
    uint8_t key[16];
    conversation_id_encode(key, id);
    assert_int_equal(catalog_begin(rig->catalog, &txn, true), OK);
    assert_int_equal(
        catalog_put(txn, CATALOG_CONVERSATIONS, bytes_of(key, sizeof key), bytes_of(key, 5)), OK);
    assert_int_equal(catalog_commit(txn), OK);
}

/* Six groups; the bad record stands in the at-th, while others are with the writer. */
static enum err with_a_bad_record(struct rig *rig, const struct log_record *bad, uint32_t at)
{
    assert_int_equal(init(rig), OK);
    for (uint32_t i = 0; i < 6 * GROUP; i++) {
        struct log_record record = message(1 + i % 1000, 1, 2000 + i % 77, i + 1);
        replaying_record(&rig->replaying, i == at * GROUP + 5 ? bad : &record, i);
    }
    enum err err = replaying_finish(&rig->replaying);
    replaying_deinit(&rig->replaying);
    return err;
}

static void what_fails_leaves_nothing(void **state)
{
    struct rig *rig = *state;
    struct log_record damaged = message(5, 1, 5, 1);
    struct log_record unknown = message(5, 1, 9, 1);
    unknown.kind = RECORD_MEMBERSHIP;
    put_damaged_row(rig, damaged.conversation);
    uint64_t before = rows(rig);
    for (uint32_t at = 0; at < 6; at++) {
        assert_int_equal(with_a_bad_record(rig, &damaged, at), ERR_CORRUPT); /* on the writer */
        assert_true(rows(rig) == before);
        assert_int_equal(with_a_bad_record(rig, &unknown, at), ERR_UNSUPPORTED); /* before it */
        assert_true(rows(rig) == before);
    }
}

static void a_full_catalog_is_told(void **state)
{
    struct rig *rig = *state;
    empty_catalog(rig, 256 << 10, 64);
    uint64_t before = rows(rig);
    assert_int_equal(init(rig), OK);
    feed_random(3, 3000, 2 * GROUP, replaying_record, &rig->replaying);
    assert_int_equal(replaying_finish(&rig->replaying), ERR_NO_SPACE);
    replaying_deinit(&rig->replaying);
    assert_true(rows(rig) == before);
}

struct order { /* for the writer's thread */
    struct catalog_job job;
    uint64_t fail_at;
    uint64_t left;
};

static enum err arm(struct catalog_txn *txn, struct catalog_job *job)
{
    struct order *order = CONTAINER_OF(job, struct order, job);
    (void)txn;
    order->left = memory_fail_at(order->fail_at);
    return OK;
}

static uint64_t fail_on_writer(struct rig *rig, uint64_t fail_at)
{
    struct order order = {.job.body = arm, .fail_at = fail_at};
    assert_int_equal(catalog_submit(rig->catalog, rig->workers, &order.job, true, 0), OK);
    while (worker_completed(rig->workers, 0) == NULL)
        continue;
    assert_int_equal(order.job.err, OK);
    return order.left;
}

static enum err replay_some(struct rig *rig)
{
    enum err err = init(rig);
    if (err == OK) {
        feed_random(7, 60, GROUP + 3000, replaying_record, &rig->replaying);
        err = replaying_finish(&rig->replaying);
    }
    replaying_deinit(&rig->replaying);
    return err;
}

/* with_failure: the n-th allocation of one thread fails; whether there were so many. All is
 * written, where it could be done without, or nothing. */
static bool with_failure(struct rig *rig, uint64_t n, bool on_writer, uint64_t whole)
{
    uint64_t before = rows(rig);
    if (on_writer)
        (void)fail_on_writer(rig, n);
    else
        (void)memory_fail_at(n);
    enum err err = replay_some(rig);
    uint64_t left = on_writer ? fail_on_writer(rig, 0) : memory_fail_at(0);
    assert_int_equal(memory_bytes(MEMORY_CHAT), 0);
    if (err != OK) {
        assert_int_equal(err, ERR_NO_MEMORY);
        assert_true(left == 0 && rows(rig) == before);
    } else {
        assert_true(rows(rig) == whole);
        empty_catalog(rig, MAP_BYTES, 64);
    }
    return left == 0;
}

static void every_allocation_may_fail(void **state)
{
    struct rig *rig = *state;
    assert_int_equal(replay_some(rig), OK);
    uint64_t whole = rows(rig);
    for (int on_writer = 0; on_writer < 2; on_writer++) {
        uint64_t n = 1;
        empty_catalog(rig, MAP_BYTES, 64);
        while (with_failure(rig, n, on_writer != 0, whole))
            n += n < 60 ? 1 : 1 + n / 3; /* growing rows have thousands, all in one place */
        assert_true(n > 5);
    }
}

/* More conversations than memory holds: rows are written on the way. */
static void memory_has_a_bound(void **state)
{
    static struct conversation_row row;
    const uint32_t conversations = 500000;
    const int64_t most = REPLAY_BYTES_MAX + GROUP * 384 + REPLAYING_GROUPS * (GROUP * 128 + 4096) +
                         72 * (REPLAY_BYTES_MAX / 384 + GROUP) + (1 << 20);
    struct rig *rig = *state;
    int64_t peak = 0;
    bool written = false;
    assert_int_equal(init(rig), OK);
    for (uint32_t i = 0; i < conversations; i++) {
        struct log_record record = message(1 + (i * 7919ull) % conversations, 1, 1 << 20, 1);
        replaying_record(&rig->replaying, &record, i);
        int64_t bytes = i % 512 == 0 ? memory_bytes(MEMORY_CHAT) : 0;
        peak = bytes > peak ? bytes : peak;
        if (i % GROUP == GROUP - 1 && !written)
            written = read_conversation(rig, between(1, 1 << 20), &row) == OK;
    }
    assert_true(written);
    assert_int_equal(replaying_finish(&rig->replaying), OK);
    replaying_deinit(&rig->replaying);
    print_message("[          ] %.1f MiB at most, bound %.1f\n", (double)peak / (1 << 20),
                  (double)most / (1 << 20));
    assert_true(peak <= most);
    for (uint32_t i = 1; i <= conversations; i += 997) {
        assert_int_equal(read_conversation(rig, between(i, 1 << 20), &row), OK);
        assert_int_equal(row.last_seq, 1);
    }
}

/* ---- over real logs */

struct lane {
    struct log *log;
    char directory[128];
};

static void lane_open(struct rig *rig, struct lane *lane, uint32_t index, uint64_t *damaged)
{
    snprintf(lane->directory, sizeof lane->directory, "%s.lane%u", rig->directory, index);
    assert_int_equal(file_make_directory(lane->directory), OK);
    const struct log_options options = {.directory = lane->directory,
                                        .lane = index,
                                        .segment_bytes = 4 << 20,
                                        .batch_bytes_max = 256 << 10,
                                        .writer_epoch = 1,
                                        .direct = true};
    assert_int_equal(log_open(&lane->log, &options, rig->io, rig->workers, NULL, replaying_record,
                              &rig->replaying, damaged),
                     OK);
}

static void log_turn(struct rig *rig, struct log *log)
{
    struct io_event events[8];
    struct worker_job *job;
    struct log_completion done;
    log_flush(log);
    size_t count = io_poll(rig->io, events, 8, io_now_ns(rig->io) + 5 * NS_PER_MS);
    for (size_t i = 0; i < count; i++)
        if (events[i].kind == IO_FILE_DONE && log_owns(log, events[i].op))
            log_on_file(log, events[i].op);
    while ((job = worker_completed(rig->workers, 0)) != NULL)
        job->done(job, NULL);
    while (log_completed(log, &done)) {
        assert_int_equal(done.err, OK);
        rig->completed++;
    }
}

#define TALKS 500u /* of a lane */

static void append_all(struct rig *rig, struct lane *lane, uint32_t index, uint32_t records)
{
    rig->completed = 0;
    for (uint32_t i = 0; i < records;) {
        uint32_t talk = i % TALKS;
        struct log_record record =
            message(1 + talk + index * TALKS, 1, 1 << 20, 1 + i / TALKS); /* one sender each */
        enum err err = log_append(lane->log, &record, i);
        assert_true(err == OK || err == ERR_FULL);
        i += err == OK;
        if (err == ERR_FULL || i % 1000 == 0)
            log_turn(rig, lane->log);
    }
    while (rig->completed < records)
        log_turn(rig, lane->log);
    log_close(lane->log);
}

static void flip(const struct lane *lane, uint32_t segment, uint64_t offset)
{
    char path[STORE_PATH_BYTES];
    uint8_t byte;
    size_t done;
    int fd;
    assert_int_equal(store_path(path, lane->directory, segment, ".segment"), OK);
    assert_int_equal(file_open(&fd, path, FILE_WRITE), OK);
    assert_int_equal(file_read(fd, offset, &byte, 1, &done), OK);
    byte ^= 0x40;
    assert_int_equal(file_write(fd, offset, bytes_of(&byte, 1)), OK);
    assert_int_equal(file_sync(fd), OK);
    file_close(fd);
}

/* replay_lanes: as at a start: of all lanes, then written. Returns how many records are lost. */
static uint64_t replay_lanes(struct rig *rig, struct lane lanes[LANES])
{
    uint64_t lost = 0;
    assert_int_equal(init(rig), OK);
    for (uint32_t i = 0; i < LANES; i++) {
        uint64_t damaged;
        lane_open(rig, &lanes[i], i, &damaged);
        lost += damaged;
    }
    assert_int_equal(replaying_finish(&rig->replaying), OK);
    replaying_deinit(&rig->replaying);
    for (uint32_t i = 0; i < LANES; i++)
        log_close(lanes[i].log);
    return lost;
}

static void check_talks(struct rig *rig, const uint32_t records[LANES])
{
    static struct conversation_row row;
    for (uint32_t i = 0; i < LANES * TALKS; i++) {
        assert_int_equal(read_conversation(rig, between(1 + i, 1 << 20), &row), OK);
        assert_int_equal(row.last_seq, records[i / TALKS] / TALKS);
        assert_int_equal(row.sender_count, 1);
    }
}

static void lanes_and_damage_in_their_middle(void **state)
{
    static const uint32_t records[LANES] = {300 * TALKS, 140 * TALKS};
    struct rig *rig = *state;
    struct lane lanes[LANES];
    uint64_t all = 0;
    for (uint32_t i = 0; i < LANES; i++) {
        uint64_t damaged;
        assert_int_equal(init(rig), OK);
        lane_open(rig, &lanes[i], i, &damaged);
        append_all(rig, &lanes[i], i, records[i]);
        assert_int_equal(replaying_finish(&rig->replaying), OK);
        replaying_deinit(&rig->replaying);
        all += records[i];
    }
    assert_int_equal(replay_lanes(rig, lanes), 0);
    assert_int_equal(rig->replaying.records, all);
    check_talks(rig, records);
    for (uint32_t i = 0; i < LANES; i++) {
        flip(&lanes[i], 1, 2 << 20);
        flip(&lanes[i], 2, (1 << 20) + 3);
    }
    uint64_t expected = rows(rig);
    empty_catalog(rig, MAP_BYTES, 64);
    uint64_t lost = replay_lanes(rig, lanes);
    assert_true(lost >= 2 * LANES);
    assert_int_equal(rig->replaying.records + lost, all);
    check_talks(rig, records);
    assert_true(rows(rig) == expected); /* what was lost stands below each talk's last */
    for (uint32_t i = 0; i < LANES; i++) {
        assert_int_equal(file_list(lanes[i].directory, drop_entry, lanes[i].directory), OK);
        assert_int_equal(remove(lanes[i].directory), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
        TEST(two_threads_make_the_rows_of_one), TEST(groups_are_taken_in_order),
        TEST(what_fails_leaves_nothing),        TEST(a_full_catalog_is_told),
        TEST(every_allocation_may_fail),        TEST(memory_has_a_bound),
        TEST(lanes_and_damage_in_their_middle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
