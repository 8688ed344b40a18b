/* test_log_making.c: the pace at which segments are made ahead; freed segments that become the next
 * ones: wiped first, never written while they have a second name, gone after a crash. */
#include "tests/unit/log_fixture.h"

#define IDS_MAX 2000u

static int set_up(void **state)
{
    fixture_set_up(state);
    rig->merged_replay = true;
    rig->options.segment_bytes = 256 << 10;
    rig->options.batch_bytes_max = 16 << 10;
    rig->options.make_rate = 64 << 10;
    return 0;
}

/* ---- pace */

/* roll: until another segment is the active one. */
static void roll(void)
{
    uint32_t id = rig->log->segments[rig->log->active]->id;
    while (rig->log->segments[rig->log->active]->id == id) {
        assert_int_equal(rig_append_now(rig, 1), OK);
        rig_turn(rig);
    }
}

static double filled(void)
{
    const struct log *log = rig->log;
    return (double)log->gather.offset / (double)log->segments[log->active]->header.bytes;
}

static void test_an_idle_lane_makes_slowly(void **state)
{
    (void)state;
    assert_int_equal(rig_open(rig), OK);
    roll();
    uint64_t began_ns = io_now_ns(fault_io());
    uint32_t portions = 0;
    while (lane_next_ready(rig->log) == NULL) {
        uint64_t writes = fault.count[FAULT_WRITE];
        rig_turn(rig);
        portions += fault.count[FAULT_WRITE] != writes;
    }
    double seconds = (double)(io_now_ns(fault_io()) - began_ns) / NS_PER_S;
    assert_true(seconds > 2.9 &&
                seconds < 4.2); /* 256 KiB at 64 KiB per second, the first at once */
    assert_int_equal(portions, 4);
}

static void test_made_before_it_is_needed(void **state)
{
    (void)state;
    rig->options.make_rate = 1;
    rig->options.segment_bytes = 1 << 20;
    assert_int_equal(rig_open(rig), OK);
    for (uint32_t round = 0; round < 4; round++) {
        roll();
        double half = 0;
        while (lane_next_ready(rig->log) == NULL) {
            half = filled();
            enum err err = rig_append(rig, 1);
            assert_int_equal(err, OK); /* it never waits */
            rig_turn(rig);
        }
        assert_true(half > 0.5 && half < 0.9);
    }
}

/* Nobody turns in time: what is left is made at once. */
static void test_a_lane_that_waits_is_served_at_once(void **state)
{
    (void)state;
    rig->options.make_rate = 1;
    assert_int_equal(rig_open(rig), OK);
    roll();
    fault.hold = true;
    enum err err;
    while ((err = rig_append(rig, 1)) == OK)
        log_flush(rig->log);
    assert_int_equal(err, ERR_FULL);
    fault.hold = false;
    assert_int_equal(rig_append_now(rig, 1), OK);
    while (filled() > 0.5)
        assert_int_equal(rig_append_now(rig, 1), OK);
    rig_settle(rig);
    rig_read_all(rig);
}

/* What a close leaves half made is no segment and is gone after the next start. */
static void test_half_made_is_made_again(void **state)
{
    (void)state;
    uint64_t size;
    assert_int_equal(rig_open(rig), OK);
    roll();
    rig_settle(rig);
    assert_null(lane_next_ready(rig->log));
    rig_close(rig);
    assert_non_null(fault_data(RIG_DIRECTORY "/00000003.making", &size));
    assert_int_equal(rig_open(rig), OK);
    rig_adopt(rig);
    assert_null(fault_data(RIG_DIRECTORY "/00000003.making", &size));
    assert_non_null(lane_next_ready(rig->log));
    rig_read_all(rig);
}

/* ---- recycling */

static void use_merges(void)
{
    fixture_merging(3);
    rig->options.make_rate = 1 << 20;
    rig->options.spare_segments = 2;
}

static void fill(uint32_t records)
{
    for (uint32_t i = 0; i < records; i++) {
        assert_int_equal(rig_append_now(rig, i % 9), OK);
        if (i % 4 == 0)
            rig_turn(rig);
        if (i % 200 == 0)
            log_checkpointed(rig->log, log_durable(rig->log));
    }
}

/* spares: files of freed segments; holding: those that are not all zeros. */
static void count_spares(uint32_t *spares, uint32_t *holding)
{
    *spares = *holding = 0;
    for (uint32_t id = 1; id < IDS_MAX; id++) {
        char path[STORE_PATH_BYTES];
        uint64_t size;
        assert_int_equal(store_path(path, RIG_DIRECTORY, id, ".spare"), OK);
        const uint8_t *data = fault_data(path, &size);
        *spares += data != NULL;
        *holding += data != NULL && !bytes_zero(data, (size_t)size);
    }
}

static void test_freed_segments_are_used_again(void **state)
{
    (void)state;
    uint32_t spares;
    uint32_t holding;
    struct metrics *metrics;
    use_merges();
    assert_int_equal(metrics_create(&metrics), OK);
    assert_int_equal(rig_open(rig), OK);
    rig->log->metrics = metrics;
    fill(6000);
    assert_true(metrics_sum(&metrics, 1, METRIC_LOG_RECYCLED) > 5);
    log_checkpointed(rig->log, log_durable(rig->log));
    for (uint32_t i = 0; i < 1000; i++) {
        fault_pass(NS_PER_S / 100);
        rig_turn(rig);
    }
    count_spares(&spares, &holding);
    assert_int_equal(spares, 2); /* as many as configured, all of them wiped */
    assert_int_equal(holding, 0);
    assert_int_equal(metrics_sum(&metrics, 1, METRIC_LOG_SPARES), 2);
    rig_read_all(rig);
    rig_close(rig);
    assert_int_equal(rig_open(rig), OK);
    rig_adopt(rig);
    count_spares(&spares, &holding);
    assert_int_equal(spares, 0); /* a start begins without */
    rig_read_all(rig);
    rig_close(rig);
    metrics_destroy(metrics);
}

/* What was in a freed segment is gone after spare_segments × size ÷ rate. */
static void test_wiped_in_time(void **state)
{
    (void)state;
    uint32_t spares;
    uint32_t holding;
    use_merges();
    rig->options.make_rate = 32 << 10;
    rig->options.spare_segments = 3;
    assert_int_equal(rig_open(rig), OK);
    fill(3000);
    log_checkpointed(rig->log, log_durable(rig->log)); /* there is something to merge */
    uint32_t seen = 0;
    for (uint32_t ms = 0; ms < 3 * 2200 || rig->log->lifecycle.job != NULL; ms += 10) {
        fault_pass(9 * NS_PER_MS);
        rig_turn(rig);
        count_spares(&spares, &holding);
        seen = holding > seen ? holding : seen;
    }
    assert_true(seen > 0);
    for (uint32_t ms = 0; ms < 3 * 2200; ms += 10) {
        fault_pass(9 * NS_PER_MS);
        rig_turn(rig);
    }
    count_spares(&spares, &holding);
    assert_true(spares > 0);
    assert_int_equal(holding, 0);
}

/* A snapshot's hard link: the disk of the rig stops the test at a write into it. */
static void test_linked_is_never_written(void **state)
{
    (void)state;
    use_merges();
    assert_int_equal(rig_open(rig), OK);
    for (uint32_t round = 0; round < 60; round++) {
        for (uint32_t i = 0; i < rig->log->active; i++) {
            const struct lane_segment *segment = rig->log->segments[i];
            char path[STORE_PATH_BYTES];
            uint64_t size;
            if (segment->archived || segment->state != SEGMENT_SEALED || segment->id % 2 == 0)
                continue;
            assert_int_equal(store_path(path, RIG_DIRECTORY, segment->id, ".segment"), OK);
            if (fault_data(path, &size) != NULL)
                fault_link(path);
        }
        fill(100);
    }
    rig_settle(rig);
    rig_read_all(rig);
}

/* The power goes at any turn, while segments are freed, wiped and used again. */
static void test_crash_at_every_turn(void **state)
{
    (void)state;
    use_merges();
    rig->options.batch_bytes_max = 8 << 10;
    assert_int_equal(rig_open(rig), OK);
    fill(2500);
    for (uint32_t turns = 1; turns < 250; turns++) {
        uint32_t spares;
        uint32_t holding;
        for (uint32_t i = 0; i < turns % 60; i++) {
            if (i % 2 == 0)
                fill(9);
            else
                rig_turn(rig);
            fault_pass(10 * NS_PER_MS);
        }
        rig_take_completions(rig);
        rig->options.checkpoint = log_durable(rig->log);
        log_checkpointed(rig->log, rig->options.checkpoint);
        memcpy(rig->found, rig->acked, sizeof rig->found);
        for (uint32_t i = 0; i < turns % 5; i++)
            rig_turn(rig);
        rig_crash(rig, turns);
        assert_int_equal(rig_open(rig), OK);
        assert_int_equal(rig->damaged, 0);
        rig_adopt(rig);
        count_spares(&spares, &holding);
        assert_int_equal(spares, 0);
        if (turns % 25 == 0)
            rig_read_all(rig);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST_AFTER(set_up, test_an_idle_lane_makes_slowly),
        FIXTURE_TEST_AFTER(set_up, test_made_before_it_is_needed),
        FIXTURE_TEST_AFTER(set_up, test_a_lane_that_waits_is_served_at_once),
        FIXTURE_TEST_AFTER(set_up, test_half_made_is_made_again),
        FIXTURE_TEST_AFTER(set_up, test_freed_segments_are_used_again),
        FIXTURE_TEST_AFTER(set_up, test_wiped_in_time),
        FIXTURE_TEST_AFTER(set_up, test_linked_is_never_written),
        FIXTURE_TEST_AFTER(set_up, test_crash_at_every_turn),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
