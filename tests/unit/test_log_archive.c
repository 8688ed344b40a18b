/* test_log_archive.c: merging under reads, reopening, crashes at every operation, damage; retention
 * and expiry. */
#include "store/archive_state.h"
#include "store/archive_walk.h"
#include "tests/unit/log_fixture.h"

static uint64_t lookup_bytes = 1 << 20;

static int set_up(void **state)
{
    fixture_set_up(state);
    fixture_merging(4);
    rig->options.lookup_bytes = lookup_bytes;
    return 0;
}

static uint32_t archives(void)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < rig->log->segment_count; i++)
        count += rig->log->segments[i]->archived;
    return count;
}

static void find_some(uint32_t conversations)
{
    for (uint32_t c = 0; c < conversations; c++)
        for (uint64_t seq = 1; seq <= rig->acked[c]; seq += 7)
            assert_int_equal(rig_find(rig, c, seq), OK);
    assert_int_equal(rig_find(rig, 0, rig->acked[0] + 1), ERR_NOT_FOUND);
}

static void test_merged_is_read_and_found(void **state)
{
    (void)state;
    assert_int_equal(rig_open(rig), OK);
    fixture_fill(6000, 20, true);
    uint32_t before = rig->log->segment_count;
    fixture_merge();
    assert_true(archives() >= 2 && rig->log->segment_count < before / 2);
    rig_read_all(rig);
    find_some(20);
    fixture_reopen(log_durable(rig->log));
    assert_true(archives() >= 2);
    rig_read_all(rig);
    find_some(20);
    fixture_fill(2000, 20, true);
    fixture_merge();
    rig_read_all(rig);
}

/* A catalog may be older than a merge: a snapshot copies it before the log. Wherever its checkpoint
 * stands in what has become an archive, what lies above is replayed; where it stands at the end,
 * nothing is. */
static void test_checkpoints_within_archives(void **state)
{
    (void)state;
    struct {
        uint64_t position;
        uint64_t acked[RIG_CONVERSATIONS];
    } *then = calloc(60, sizeof *then);
    assert_int_equal(rig_open(rig), OK);
    for (uint32_t i = 0; i < 60; i++) {
        for (uint32_t j = 0; j < 30; j++) /* of one conversation: found nowhere else */
            assert_int_equal(rig_append_now(rig, i), OK);
        rig_settle(rig);
        then[i].position = log_durable(rig->log);
        memcpy(then[i].acked, rig->acked, sizeof rig->acked);
    }
    fixture_merge();
    uint64_t end = log_durable(rig->log);
    assert_true(archives() >= 2);
    uint32_t last_of_archive = 0;
    for (uint32_t i = 0; i < 60; i++) {
        for (uint32_t j = 0; j < rig->log->segment_count; j++)
            last_of_archive += rig->log->segments[j]->archived &&
                               rig->log->segments[j]->id == position_segment(then[i].position);
        rig_close(rig);
        rig->options.checkpoint = then[i].position;
        memcpy(rig->found, then[i].acked, sizeof rig->found);
        assert_int_equal(rig_open(rig), OK);
        assert_int_equal(rig->damaged, 0);
        assert_memory_equal(rig->found, rig->acked, sizeof rig->found);
    }
    assert_true(last_of_archive > 0);
    free(then);
    fixture_reopen(end);
    assert_int_equal(rig->replayed, 0);
}

/* Pages backwards, over what is merged and what is not. */
static void test_pages_backwards(void **state)
{
    (void)state;
    assert_int_equal(rig_open(rig), OK);
    fixture_fill(6000, 20, true);
    fixture_merge();
    fixture_fill(500, 20, true);
    for (uint32_t c = 0; c < 20; c++) {
        uint64_t to = UINT64_MAX;
        uint64_t next = rig->acked[c];
        while (next > 0) {
            struct log_read read = rig_range(rig, c, 0, to, 50, RIG_OUT_BYTES);
            read.kind = LOG_READ_BACK;
            assert_int_equal(rig_await(rig, &read), OK);
            uint64_t first = next > 50 ? next - 49 : 1;
            assert_int_equal(read.from_seq, first);
            assert_int_equal(rig_check(rig, &read, c, first), next + 1 - first);
            next = to = first - 1;
        }
    }
    struct log_read read = rig_range(rig, 40, 0, UINT64_MAX, 50, RIG_OUT_BYTES);
    read.kind = LOG_READ_BACK;
    assert_int_equal(rig_await(rig, &read), ERR_NOT_FOUND);
}

static uint32_t level_max(void)
{
    uint32_t level = 0;
    for (uint32_t i = 0; i < rig->log->segment_count; i++)
        level = rig->log->segments[i]->level > level ? rig->log->segments[i]->level : level;
    return level;
}

/* test_many_starts: each ends a segment that has hardly enough. The small archives that come of
 * them are merged like others: there are never more of a level than are merged at a time, and
 * nothing is written more than once per level, the large archives from before least of all. */
static void test_many_starts(void **state)
{
    (void)state;
    rig->options.merge_segments = 1;
    assert_int_equal(metrics_create(&rig->metrics), OK);
    struct metrics *const all[] = {rig->metrics};
    assert_int_equal(rig_open(rig), OK);
    fixture_fill(6000, 20, true);
    fixture_merge();
    uint32_t level = level_max();
    for (uint32_t start = 0; start < 50; start++) {
        fixture_fill(30, 20, true);
        uint32_t id = rig->log->segments[rig->log->active]->id;
        fixture_reopen(log_durable(rig->log));
        fixture_merge();
        assert_int_equal(rig->log->segments[rig->log->active]->id, id + 1);
        assert_int_equal(rig->log->segment_count, archives() + 2); /* the active and the next one */
        assert_in_range(archives(), 1, 3 * level_max());
    }
    assert_in_range(level_max(), level, level + 1);
    assert_in_range(metrics_sum(all, 1, METRIC_MERGE_WRITTEN_BYTES), 1,
                    level_max() * metrics_sum(all, 1, METRIC_LOG_APPENDED_BYTES));
    rig_read_all(rig);
}

static void test_one_long_conversation(void **state)
{
    (void)state;
    rig->body_max = 3000;
    assert_int_equal(rig_open(rig), OK);
    fixture_fill(3000, 1, true);
    fixture_merge();
    assert_true(archives() >= 1);
    rig_read_all(rig);
    find_some(1);
    for (uint64_t from = 1; from < 2900; from += 37) {
        struct log_read read = rig_range(rig, 0, from, from + 49, 50, RIG_OUT_BYTES);
        enum err err = rig_await(rig, &read);
        assert_int_equal(err, OK);
        assert_int_equal(rig_check(rig, &read, 0, from), 50);
    }
}

/* ---- damage */

static uint32_t findings;

static void count_finding(void *context, const char *line)
{
    (void)context;
    findings++;
    if (strstr(line, ": sound") == NULL && getenv("ROOST_SHOW") != NULL)
        printf("%s\n", line);
}

/* What could not be merged when its neighbours were stands between archives: that is no damage, and
 * it is merged when it can be, however little it is. */
static void test_left_between_archives(void **state)
{
    (void)state;
    uint32_t last = 0;
    assert_int_equal(rig_open(rig), OK);
    fixture_fill(6000, 20, true);
    rig->log->segments[2]->unmergeable = true;
    fixture_merge();
    assert_false(rig->log->segments[2]->archived);
    assert_true(rig->log->segments[3]->archived);
    uint64_t checkpoint = log_durable(rig->log);
    rig_close(rig);
    assert_int_equal(log_verify(RIG_DIRECTORY, NULL, count_finding, NULL), OK);
    assert_int_equal(rig_open(rig), OK); /* all of it is replayed */
    assert_int_equal(rig->damaged, 0);
    rig_close(rig);
    rig->options.checkpoint = checkpoint;
    assert_int_equal(rig_open(rig), OK);
    fixture_merge();
    for (uint32_t i = 0; i < rig->log->segment_count; i++)
        if (rig->log->segments[i]->archived)
            last = i;
    for (uint32_t i = 0; i < last; i++)
        assert_true(rig->log->segments[i]->archived);
    rig_read_all(rig);
}

static void archive_file(char path[STORE_PATH_BYTES], uint32_t n)
{
    for (uint32_t i = 0; i < rig->log->segment_count; i++)
        if (rig->log->segments[i]->archived && n-- == 0) {
            assert_int_equal(lane_archive_path(rig->log, rig->log->segments[i], path), OK);
            return;
        }
    fail();
}

/* read_what_is_there: everything or an exact missing range; returns how many are missing. */
static uint64_t read_what_is_there(uint32_t conversations)
{
    uint64_t missing = 0;
    for (uint32_t c = 0; c < conversations; c++)
        for (uint64_t next = 1; next <= rig->acked[c];) {
            struct log_read read = rig_range(rig, c, next, rig->acked[c], 1000, RIG_OUT_BYTES);
            enum err err = rig_await(rig, &read);
            next += rig_check(rig, &read, c, next);
            if (err == ERR_NOT_FOUND) { /* the newest ones are lost, and nothing says so */
                missing += rig->acked[c] + 1 - next;
                break;
            }
            assert_true(err == OK || err == ERR_CORRUPT);
            if (err == OK)
                continue;
            assert_true(read.missing_from == next && read.missing_to >= next);
            missing += read.missing_to + 1 - next;
            next = read.missing_to + 1;
        }
    return missing;
}

static void test_every_bit_flip_is_detected(void **state)
{
    (void)state;
    char path[STORE_PATH_BYTES];
    uint64_t size;
    rig->body_max = 40;
    rig->options.merge_inputs = 2;
    assert_int_equal(rig_open(rig), OK);
    fixture_fill(1500, 5, true);
    fixture_merge();
    archive_file(path, 0);
    rig_close(rig);
    assert_int_equal(log_verify(RIG_DIRECTORY, NULL, count_finding, NULL), OK);
    uint8_t *data = fault_data(path, &size);
    for (uint64_t at = 0; at < size; at += at < 4096 + 600 || at > size - 400 ? 1 : 97) {
        data[at] ^= (uint8_t)(1u << at % 8);
        enum err err = log_verify(RIG_DIRECTORY, NULL, count_finding, NULL);
        assert_true(err == ERR_CORRUPT || (err == ERR_NEWER && at < 64));
        data[at] ^= (uint8_t)(1u << at % 8);
    }
    assert_int_equal(log_verify(RIG_DIRECTORY, NULL, count_finding, NULL), OK);
}

static void test_damaged_archive_degrades_its_conversations(void **state)
{
    (void)state;
    char path[STORE_PATH_BYTES];
    uint64_t size;
    assert_int_equal(rig_open(rig), OK);
    fixture_fill(6000, 20, true);
    fixture_merge();
    uint64_t most = 0;
    archive_file(path, 0);
    for (uint64_t seed = 1; seed < 60; seed++) {
        uint8_t *data = fault_data(path, &size);
        struct fault_image *image = fault_save();
        uint64_t at = 4096 + rig_hash(seed, 1) % (size - 4096);
        uint64_t length = 1 + rig_hash(seed, 2) % (seed % 2 == 0 ? 8 : 3000);
        for (uint64_t i = at; i < at + length && i < size; i++)
            data[i] ^= 0x5a;
        fault_settle();
        uint64_t missing = read_what_is_there(20);
        most = missing > most ? missing : most;
        data = fault_data(path, &size);
        for (uint64_t i = at; i < at + length && i < size; i++)
            data[i] ^= 0x5a;
        fault_settle();
        fault_free(image);
        for (uint32_t i = 0; i < rig->log->segment_count; i++) /* forget what was found damaged */
            if (rig->log->segments[i]->state == SEGMENT_LOST)
                rig->log->segments[i]->state = SEGMENT_SEALED;
    }
    assert_true(most > 0);
    assert_int_equal(read_what_is_there(20), 0);
}

/* Damage in what is merged: its numbers stay missing, and are counted; the rest is there. */
static void test_damage_is_not_carried_over(void **state)
{
    (void)state;
    for (uint32_t merged = 0; merged < 2; merged++) {
        char path[STORE_PATH_BYTES];
        uint64_t size;
        fault_reset();
        rig_init(rig);
        rig->merged_replay = true;
        rig->options.segment_bytes = 64 << 10;
        rig->options.batch_bytes_max = 16 << 10;
        rig->options.merge_inputs = merged == 0 ? 0 : 4;
        rig->options.archive_bytes_max = 1 << 30;
        assert_int_equal(rig_open(rig), OK);
        fixture_fill(merged == 0 ? 3000 : 6000, 20, true);
        if (merged == 1) {
            log_checkpointed(rig->log, log_durable(rig->log));
            while (archives() == 0) {
                fault_pass(NS_PER_S);
                rig_turn(rig);
            }
            archive_file(path, 0);
        } else {
            assert_int_equal(store_path(path, RIG_DIRECTORY, 2, ".segment"), OK);
        }
        uint64_t checkpoint = log_durable(rig->log);
        rig_close(rig);
        uint8_t *data = fault_data(path, &size);
        memset(data + 20000, 0xa5, 600);
        fault_settle();
        rig->options.checkpoint = checkpoint;
        rig->options.merge_inputs = 4;
        memcpy(rig->found, rig->acked, sizeof rig->found);
        assert_int_equal(rig_open(rig), OK);
        uint64_t before = read_what_is_there(20);
        assert_true(before > 0);
        if (merged == 1)
            fixture_fill(6000, 20, true);
        fixture_merge();
        assert_true(archives() >= 1);
        assert_int_equal(read_what_is_there(20), before);
        findings = 0;
        rig_close(rig);
        (void)!log_verify(RIG_DIRECTORY, NULL, count_finding, NULL);
        assert_true(findings > 1);
    }
}

/* ---- crashes */

static void prepare(struct fault_image **image, uint64_t *checkpoint)
{
    assert_int_equal(rig_open(rig), OK);
    fixture_fill(1600, 12, true);
    *checkpoint = log_durable(rig->log);
    rig_close(rig);
    fault_settle();
    *image = fault_save();
    memcpy(rig->found, rig->acked, sizeof rig->found);
    rig->options.checkpoint = *checkpoint;
}

/* Every N-th operation of a merge fails, once or for good; then the power goes. */
static void test_every_operation_of_a_merge_fails(void **state)
{
    (void)state;
    struct fault_image *image;
    uint64_t checkpoint;
    uint64_t acked[RIG_CONVERSATIONS];
    rig->options.merge_inputs = 3;
    rig->options.merge_rate = 40 << 20;
    prepare(&image, &checkpoint);
    memcpy(acked, rig->acked, sizeof acked);
    uint32_t runs = 0;
    uint32_t merged = 0;
    for (uint32_t op = 0; op < FAULT_OP_COUNT; op++)
        for (uint64_t n = 1, done = 0; done == 0; n += 1 + n / 8) {
            fault_load(image);
            fault_calm();
            assert_int_equal(rig_open(rig), OK);
            rig_settle(rig);
            fault.fail_at[op] = n;
            fault.fail_sticky = n % 3 == 0;
            fault.fail_err = n % 5 == 0 ? ERR_NO_SPACE : ERR_IO;
            for (uint32_t i = 0; i < 60; i++) {
                fault_pass(NS_PER_S);
                rig_turn(rig);
            }
            done = fault.fail_at[op] > 1;
            fault_calm();
            merged += archives() > 0;
            rig_crash(rig, n % 4);
            assert_int_equal(rig_open(rig), OK);
            assert_int_equal(rig->damaged, 0);
            memcpy(rig->acked, acked, sizeof acked);
            rig_read_all(rig);
            rig_close(rig);
            runs++;
        }
    assert_true(runs > 60 && merged > 10);
    fault_free(image);
}

/* The power goes between any two portions: the old files or the new one count. */
static void test_crash_at_every_turn_of_a_merge(void **state)
{
    (void)state;
    struct fault_image *image;
    uint64_t checkpoint;
    uint64_t acked[RIG_CONVERSATIONS];
    rig->options.merge_inputs = 3;
    rig->options.merge_rate = 1 << 20; /* portions of 256 KiB */
    prepare(&image, &checkpoint);
    memcpy(acked, rig->acked, sizeof acked);
    uint32_t merged = 0;
    for (uint32_t turns = 1; turns < 60; turns++) {
        fault_load(image);
        assert_int_equal(rig_open(rig), OK);
        for (uint32_t i = 0; i < turns; i++) {
            fault_pass(NS_PER_S / 3);
            rig_turn(rig);
        }
        rig_crash(rig, turns % 5);
        assert_int_equal(rig_open(rig), OK);
        assert_int_equal(rig->damaged, 0);
        merged += archives();
        memcpy(rig->acked, acked, sizeof acked);
        rig_read_all(rig);
        rig_close(rig);
        assert_int_equal(log_verify(RIG_DIRECTORY, NULL, count_finding, NULL), OK);
    }
    assert_true(merged > 20);
    fault_free(image);
}

/* ---- retention and expiry */

/* thirds_expire: every third record of even conversations disappears a day after the beginning. */
static uint64_t thirds_expire(uint32_t conversation, uint64_t seq)
{
    return conversation % 2 == 0 && seq % 3 == 0 ? WALL_MS + DAY_MS : 0;
}

static void test_retention_by_age(void **state)
{
    (void)state;
    fixture_retention(90 * DAY_MS, 30 * DAY_MS);
    rig->time = fixture_times_rise;
    for (uint32_t c = 0; c < 8; c++)
        rules[c].delivered_seq = c == 5 ? 0 : UINT64_MAX; /* 5: somebody has nothing */
    rig->options.retention.age_max_ms = 95 * DAY_MS;
    rules[6].age_ms = 95 * DAY_MS;
    rules[7].age_ms = 80 * DAY_MS;
    assert_int_equal(rig_open(rig), OK);
    fixture_fill(1600, 8, true);
    fixture_merge();
    assert_true(looks > 0);
    for (uint32_t c = 0; c < 8; c++) {
        uint64_t served;
        uint64_t gone = fixture_count(c, &served);
        uint64_t days = c == 6 ? 5 : c == 7 ? 20 : 10;
        /* what was not merged yet is not dropped yet; nothing young goes */
        assert_true(gone + served == rig->acked[c] && gone <= days * 4 + 1);
        assert_true(gone > 0);
    }
    fixture_reopen(log_durable(rig->log));
    uint64_t served;
    assert_true(fixture_count(0, &served) > 0);
}

static void test_undelivered_is_kept(void **state)
{
    (void)state;
    fixture_retention(10 * DAY_MS, 120 * DAY_MS);
    rig->time = fixture_times_rise;
    for (uint32_t c = 0; c < 8; c++)
        rules[c].delivered_seq = c * 10;
    assert_int_equal(rig_open(rig), OK);
    fixture_fill(1600, 8, true);
    fixture_merge();
    for (uint32_t c = 0; c < 8; c++) {
        uint64_t served;
        assert_int_equal(fixture_count(c, &served), c * 10);
    }
}

/* only_numbers_left: the oldest archive, and it alone, has no records; one range of each
 * conversation, from 1 on. */
static void only_numbers_left(void)
{
    const struct lane_segment *oldest = rig->log->segments[0];
    assert_true(oldest->archived && oldest->first_id == 1 && oldest->footer.records == 0);
    assert_int_equal(oldest->footer.conversations, 8);
    assert_int_equal(oldest->footer.gone, 8);
    assert_true(oldest->footer.bytes < (16 << 10) + 8 * 21 * ARCHIVE_MARK_BYTES); /* 21 devices */
    assert_true(oldest->level <= 2); /* it is not merged higher each time */
    assert_true(!rig->log->segments[1]->archived || rig->log->segments[1]->footer.records > 0);
}

/* open_to_be_freed: all is delivered, and due a hundred days and more from now. */
static void open_to_be_freed(void)
{
    fixture_retention(200 * DAY_MS, 30 * DAY_MS);
    rig->time = fixture_times_rise;
    fixture_all_delivered();
    assert_int_equal(rig_open(rig), OK);
}

static void test_whole_files_are_freed(void **state)
{
    (void)state;
    uint64_t served;
    open_to_be_freed();
    fixture_fill(1600, 8, true);
    fixture_merge();
    assert_int_equal(fixture_count(0, &served), 0);
    fault_pass(150 * DAY_MS * NS_PER_MS);
    uint32_t looked = looks;
    fixture_merge();
    assert_true(looks - looked < 400); /* no conversation of what is freed whole is looked at */
    only_numbers_left();
    uint64_t gone = fixture_count(0, &served);
    assert_true(gone > 0 && served > 0); /* the newest segments are not merged */
    struct log_read read = rig_range(rig, 0, rig->acked[0] + 1, UINT64_MAX, 10, RIG_OUT_BYTES);
    assert_int_equal(rig_await(rig, &read), ERR_NOT_FOUND);
    fixture_reopen(log_durable(rig->log));
    only_numbers_left();
    assert_int_equal(fixture_count(0, &served), gone);
}

static void expect_all_gone(uint32_t c)
{
    struct log_read read = rig_range(rig, c, 0, UINT64_MAX, 1000, RIG_OUT_BYTES);
    read.kind = LOG_READ_BACK;
    assert_int_equal(rig_await(rig, &read), ERR_EXPIRED);
    assert_int_equal(read.missing_from, 1);
    assert_int_equal(read.missing_to, rig->acked[c]);
}

/* test_numbers_of_what_is_freed_stay: a conversation of which nothing is left: what it was given is
 * still known to the log alone, again and again, without looking for space first. */
static void test_numbers_of_what_is_freed_stay(void **state)
{
    (void)state;
    open_to_be_freed();
    for (uint32_t i = 0; i < 30; i++)
        assert_int_equal(rig_append_now(rig, 20), OK);
    fixture_fill(1600, 8, true);
    fixture_merge();
    for (uint32_t i = 0; i < 30; i++)
        assert_int_equal(rig_append_now(rig, 21), OK);
    fixture_fill(1600, 8, true);
    rig->log->options.reserve_bytes = 1ull << 63; /* merging pauses, freeing does not */
    fault_pass(150 * DAY_MS * NS_PER_MS);
    fixture_merge();
    expect_all_gone(20);
    rig->log->options.reserve_bytes = 0;
    fixture_merge();
    fault_pass(300 * DAY_MS * NS_PER_MS);
    fixture_merge();
    expect_all_gone(20);
    expect_all_gone(21);
    assert_true(rig->log->segments[0]->archived && rig->log->segments[0]->footer.records == 0);
    assert_int_equal(rig->log->segments[0]->footer.conversations, 10);
    fixture_reopen(log_durable(rig->log));
    expect_all_gone(20);
    expect_all_gone(21);
}

/* freeing_fails: from its n-th operation of that kind on nothing works, then the power goes; the
 * numbers are served or known to be gone, each once, and the last one is not forgotten. Whether it
 * was freed all the same. */
static bool freeing_fails(const struct fault_image *image, enum fault_op op, uint64_t n)
{
    uint64_t served;
    fault_load(image);
    assert_int_equal(rig_open(rig), OK);
    fault.fail_at[op] = n;
    fault.fail_sticky = true;
    for (uint32_t i = 0; i < 3; i++)
        rig_turn(rig);
    fault_calm();
    rig_crash(rig, n % 5);
    assert_int_equal(rig_open(rig), OK);
    bool freed = rig->log->segments[0]->footer.records == 0;
    (void)fixture_count(0, &served);
    assert_true(fixture_count(20, &served) + served == 30);
    rig_close(rig);
    assert_int_equal(log_verify(RIG_DIRECTORY, NULL, count_finding, NULL), OK);
    return freed;
}

static void test_every_operation_of_freeing_fails(void **state)
{
    (void)state;
    open_to_be_freed();
    for (uint32_t i = 0; i < 30; i++)
        assert_int_equal(rig_append_now(rig, 20), OK);
    fixture_fill(1600, 8, true);
    fixture_merge();
    rig->options.checkpoint = log_durable(rig->log);
    rig_close(rig);
    fault_settle();
    struct fault_image *image = fault_save();
    fault_pass(200 * DAY_MS * NS_PER_MS);
    for (enum fault_op op = FAULT_READ; op < FAULT_OP_COUNT; op++) {
        uint64_t n = 1;
        while (!freeing_fails(image, op, n))
            assert_true(n++ < 40);
        assert_true(n > 1); /* the first one mattered */
    }
    fault_free(image);
}

/* test_a_damaged_directory_is_freed: its conversations' numbers are lost, not the space. */
static void test_a_damaged_directory_is_freed(void **state)
{
    (void)state;
    char path[STORE_PATH_BYTES];
    uint64_t bytes;
    open_to_be_freed();
    fixture_fill(1600, 8, true);
    fixture_merge();
    const struct lane_segment *oldest = rig->log->segments[0];
    assert_int_equal(lane_archive_path(rig->log, oldest, path), OK);
    uint64_t directory = load_u64(oldest->archive->directory_fences + 16);
    fault_data(path, &bytes)[directory + 100] ^= 1;
    fault_settle();
    fault_pass(600 * DAY_MS * NS_PER_MS);
    fixture_merge();
    assert_int_equal(rig->log->segments[0]->first_id, 1);
    assert_int_equal(rig->log->segments[0]->footer.records, 0);
}

static void test_retention_by_bytes(void **state)
{
    (void)state;
    uint64_t served;
    fixture_retention(0, 30 * DAY_MS);
    rig->options.retention.bytes = 700 << 10;
    for (uint32_t c = 0; c < RIG_CONVERSATIONS; c++)
        rules[c].delivered_seq = c == 3 ? 0 : UINT64_MAX;
    rig->time = fixture_times_now;
    assert_int_equal(rig_open(rig), OK);
    fixture_fill(6000, 8, true);
    fixture_merge();
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < rig->log->segment_count; i++)
        bytes += rig->log->segments[i]->archived ? rig->log->segments[i]->footer.bytes : 64 << 10;
    assert_true(bytes <= 700 << 10);
    assert_true(fixture_count(0, &served) > 0);
    assert_int_equal(fixture_count(3, &served), 0); /* undelivered and young */
}

/* on_disk: some file has the record: all of it but its checksum. (The newest id that a device sent
 * stays, like in the catalog.) */
static bool on_disk(const struct log_record *record)
{
    uint8_t encoded[RECORD_HEADER_BYTES + 512];
    uint8_t key[RECORD_HEADER_BYTES - 8];
    assert_true(record_bytes(record->body.size) <= sizeof encoded);
    record_copy(encoded, record);
    memcpy(key, encoded + 8, sizeof key);
    for (uint32_t first = 1; first < 300; first++) {
        char path[STORE_PATH_BYTES];
        uint64_t size;
        assert_int_equal(store_path(path, RIG_DIRECTORY, first, ".segment"), OK);
        const uint8_t *data = fault_data(path, &size);
        if (data != NULL && memmem(data, size, key, sizeof key) != NULL)
            return true;
    }
    for (uint32_t i = 0; i < rig->log->segment_count; i++) {
        char path[STORE_PATH_BYTES];
        uint64_t size;
        if (!rig->log->segments[i]->archived)
            continue;
        assert_int_equal(lane_archive_path(rig->log, rig->log->segments[i], path), OK);
        const uint8_t *data = fault_data(path, &size);
        if (data != NULL && memmem(data, size, key, sizeof key) != NULL)
            return true;
    }
    return false;
}

static void test_expired_leaves_the_disk(void **state)
{
    (void)state;
    fixture_retention(0, 30 * DAY_MS);
    rig->time = fixture_times_now;
    rig->expires = thirds_expire;
    assert_int_equal(rig_open(rig), OK);
    fixture_fill(900, 8, true);
    uint32_t early = rig->log->segment_count;
    fixture_merge();
    fault_pass((DAY_MS + DAY_MS / 2) * NS_PER_MS);
    fixture_merge(); /* expired, but within the delay: what is not merged anyway stays */
    fault_pass(DAY_MS * NS_PER_MS);
    fixture_merge();
    assert_true(rig->log->segment_count < early);
    for (uint32_t c = 0; c < 8; c++) {
        uint64_t served;
        assert_int_equal(fixture_count(c, &served), c % 2 == 0 ? rig->acked[c] / 3 : 0);
        for (uint64_t seq = 1; seq <= rig->acked[c]; seq++) {
            struct log_record record = rig_record(rig, c, seq);
            assert_int_equal(on_disk(&record), record.expires_ms == 0);
        }
    }
    fixture_reopen(log_durable(rig->log));
    fixture_fill(100, 8, true);
}

static void test_wrong_clock_purges_nothing(void **state)
{
    (void)state;
    uint64_t served;
    fixture_retention(10 * DAY_MS, 0);
    rig->options.trust_clock = false;
    rig->time = fixture_times_now;
    assert_int_equal(rig_open(rig), OK);
    fixture_fill(1600, 8, true);
    uint64_t checkpoint = log_durable(rig->log);
    rig_close(rig);
    fault_pass(100 * DAY_MS * NS_PER_MS); /* the machine was off, or its clock is wrong */
    rig->options.checkpoint = checkpoint;
    memcpy(rig->found, rig->acked, sizeof rig->found);
    assert_int_equal(rig_open(rig), OK);
    fixture_merge();
    assert_true(archives() > 0);
    for (uint32_t c = 0; c < 8; c++)
        assert_int_equal(fixture_count(c, &served), 0);
    rig_close(rig);
    rig->options.trust_clock = true;
    assert_int_equal(rig_open(rig), OK);
    fixture_merge();
    assert_true(fixture_count(0, &served) > 0);
}

/* ---- the cold directory, scrubbing */

static void test_old_archives_move(void **state)
{
    (void)state;
    char path[STORE_PATH_BYTES];
    uint64_t size;
    fixture_retention(0, 0);
    rig->options.cold_directory = "cold";
    rig->options.cold_ms = 2 * DAY_MS;
    rig->time = fixture_times_now;
    assert_int_equal(rig_open(rig), OK);
    fixture_fill(3000, 8, true);
    fixture_merge();
    archive_file(path, 0);
    assert_memory_equal(path, "disk/", 5);
    fault_pass(3 * DAY_MS * NS_PER_MS);
    fixture_merge();
    rig_read_all(rig);
    char moved[STORE_PATH_BYTES];
    archive_file(moved, 0);
    assert_memory_equal(moved, "cold/", 5);
    assert_non_null(fault_data(moved, &size));
    assert_null(fault_data(path, &size));
    fixture_reopen(log_durable(rig->log));
    archive_file(moved, 0);
    assert_memory_equal(moved, "cold/", 5);
    rig_read_all(rig);
    find_some(8);
    fixture_fill(3000, 8, true);
    fixture_merge();
    fault_pass(3 * DAY_MS * NS_PER_MS);
    fixture_merge(); /* what is cold is merged there */
    rig_read_all(rig);
    for (uint32_t i = 0; i < rig->log->segment_count; i++)
        assert_true(!rig->log->segments[i]->archived || rig->log->segments[i]->cold);
}

/* The power goes between any two portions of a move. */
static void test_crash_while_moving(void **state)
{
    (void)state;
    uint64_t acked[RIG_CONVERSATIONS];
    fixture_retention(0, 0);
    rig->options.merge_rate = 1 << 20;
    rig->time = fixture_times_now;
    assert_int_equal(rig_open(rig), OK);
    fixture_fill(1600, 12, true);
    fixture_merge();
    uint64_t checkpoint = log_durable(rig->log);
    rig_close(rig);
    fault_pass(3 * DAY_MS * NS_PER_MS);
    fault_settle();
    struct fault_image *image = fault_save();
    memcpy(rig->found, rig->acked, sizeof rig->found);
    memcpy(acked, rig->acked, sizeof acked);
    rig->options.checkpoint = checkpoint;
    rig->options.cold_directory = "cold";
    rig->options.cold_ms = DAY_MS;
    uint32_t cold = 0;
    for (uint32_t turns = 1; turns < 30; turns++) {
        fault_load(image);
        assert_int_equal(rig_open(rig), OK);
        for (uint32_t i = 0; i < turns; i++) {
            fault_pass(NS_PER_S / 3);
            rig_turn(rig);
        }
        rig_crash(rig, turns % 5);
        assert_int_equal(rig_open(rig), OK);
        for (uint32_t i = 0; i < rig->log->segment_count; i++)
            cold += rig->log->segments[i]->cold;
        memcpy(rig->acked, acked, sizeof acked);
        rig_read_all(rig);
        rig_close(rig);
    }
    assert_true(cold > 5);
    fault_free(image);
}

static void test_scrub_finds_damage(void **state)
{
    (void)state;
    struct metrics *metrics;
    char path[STORE_PATH_BYTES];
    uint64_t size;
    uint64_t damaged;
    assert_int_equal(metrics_create(&metrics), OK);
    assert_int_equal(rig_open(rig), OK);
    fixture_fill(3000, 8, true);
    fixture_merge();
    archive_file(path, 0);
    uint64_t checkpoint = log_durable(rig->log);
    rig_close(rig);
    rig->options.checkpoint = checkpoint;
    rig->options.scrub_rate = 1 << 20;
    rig->options.writer_epoch++;
    assert_int_equal(log_open(&rig->log, &rig->options, fault_io(), fault_workers(), metrics, NULL,
                              NULL, &damaged),
                     OK);
    for (uint32_t pass = 0; pass < 2; pass++) {
        for (uint32_t i = 0; i < 300; i++) {
            fault_pass(NS_PER_S);
            rig_turn(rig);
        }
        struct metrics *const all[] = {metrics};
        assert_true(metrics_sum(all, 1, METRIC_SCRUBBED_BYTES) > 200000);
        assert_int_equal(metrics_sum(all, 1, METRIC_SCRUB_DAMAGED) > 0, pass == 1);
        fault_data(path, &size)[9000] ^= 4;
        fault_settle();
    }
    rig_close(rig);
    metrics_destroy(metrics);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST_AFTER(set_up, test_merged_is_read_and_found),
        FIXTURE_TEST_AFTER(set_up, test_checkpoints_within_archives),
        FIXTURE_TEST_AFTER(set_up, test_left_between_archives),
        FIXTURE_TEST_AFTER(set_up, test_pages_backwards),
        FIXTURE_TEST_AFTER(set_up, test_many_starts),
        FIXTURE_TEST_AFTER(set_up, test_one_long_conversation),
        FIXTURE_TEST_AFTER(set_up, test_every_bit_flip_is_detected),
        FIXTURE_TEST_AFTER(set_up, test_damaged_archive_degrades_its_conversations),
        FIXTURE_TEST_AFTER(set_up, test_damage_is_not_carried_over),
        FIXTURE_TEST_AFTER(set_up, test_every_operation_of_a_merge_fails),
        FIXTURE_TEST_AFTER(set_up, test_crash_at_every_turn_of_a_merge),
        FIXTURE_TEST_AFTER(set_up, test_retention_by_age),
        FIXTURE_TEST_AFTER(set_up, test_undelivered_is_kept),
        FIXTURE_TEST_AFTER(set_up, test_whole_files_are_freed),
        FIXTURE_TEST_AFTER(set_up, test_retention_by_bytes),
        FIXTURE_TEST_AFTER(set_up, test_numbers_of_what_is_freed_stay),
        FIXTURE_TEST_AFTER(set_up, test_every_operation_of_freeing_fails),
        FIXTURE_TEST_AFTER(set_up, test_a_damaged_directory_is_freed),
        FIXTURE_TEST_AFTER(set_up, test_expired_leaves_the_disk),
        FIXTURE_TEST_AFTER(set_up, test_wrong_clock_purges_nothing),
        FIXTURE_TEST_AFTER(set_up, test_old_archives_move),
        FIXTURE_TEST_AFTER(set_up, test_crash_while_moving),
        FIXTURE_TEST_AFTER(set_up, test_scrub_finds_damage),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    lookup_bytes = 0; /* directories and tables are read */
    return failed + cmocka_run_group_tests(tests, NULL, NULL);
}
