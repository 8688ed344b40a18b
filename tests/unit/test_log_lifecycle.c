/* test_log_lifecycle.c: the N-th call fails while segments are merged, purged by age and expiry,
 * moved to the cold directory, recycled, and appended to: nothing is acknowledged falsely or
 * leaked, and when the machine works again everything that is not due is there, and what is gone is
 * found by its id. One N in 16;
 * ROOST_EVERY_CALL=1: every one (two minutes). */
#include "tests/unit/log_fixture.h"

#define CONVERSATIONS 9u
#define TURNS         140u

static uint64_t gone;
static uint64_t merged;
static uint64_t moved;
static uint64_t recycled;
static uint64_t named;

/* The oldest tenth is due by age, of the rest one in seven by expiry; both after a day. */
static uint64_t times(uint32_t conversation, uint64_t seq)
{
    (void)conversation;
    return seq <= 8 ? WALL_MS - 20 * DAY_MS : WALL_MS + seq;
}

static uint64_t expiries(uint32_t conversation, uint64_t seq)
{
    return (conversation + seq) % 7 == 0 ? WALL_MS + DAY_MS / 2 : 0;
}

static bool may_go(const struct rig *of, const struct log_record *record)
{
    (void)of;
    return record->time_ms < WALL_MS || record->expires_ms != 0 || record->conversation.lo == 1003;
}

/* Conversation 3 has an age of its own, so that every file is looked into. */
static int set_up(void **state)
{
    fixture_set_up(state);
    fixture_small();
    gone = merged = moved = recycled = named = 0;
    rig->time = times;
    rig->expires = expiries;
    rig->body_max = 900;
    assert_int_equal(rig_open(rig), OK);
    for (uint32_t i = 0; i < 900; i++)
        assert_int_equal(rig_append_now(rig, i % CONVERSATIONS), OK);
    rig_close(rig);
    fixture_merging(3);
    rig->options.make_rate = 4 << 20;
    rig->options.spare_segments = 2;
    rig->options.compress = true;
    rig->options.scrub_rate = 1 << 20;
    rig->options.cold_directory = "cold";
    rig->options.cold_ms = DAY_MS / 4;
    fixture_retention(10 * DAY_MS, 0);
    fixture_all_delivered();
    rig->options.retention.expiry_delay_ms = 0;
    rig->options.retention.repeats_ms = 2 * DAY_MS;
    rig->options.retention.own = fixture_own;
    rig->options.retention.own_delay_ms = DAY_MS / 4;
    rules[3].age_ms = DAY_MS / 2;
    fixture_keep();
    return 0;
}

static void count_entries(void)
{
    for (uint32_t i = 0; i < rig->log->segment_count; i++) {
        merged += rig->log->segments[i]->archived;
        moved += rig->log->segments[i]->cold;
    }
    recycled += rig->log->spare_count;
}

/* life: everything at once; whatever fails on the way. */
static void life(void)
{
    if (rig_open(rig) != OK)
        return;
    rig_adopt(rig);
    fixture_checkpoint();
    for (uint32_t i = 0; i < TURNS; i++) {
        if (log_state(rig->log) == LOG_OPEN)
            (void)!rig_append(rig, i % CONVERSATIONS);
        fault_pass(i == TURNS / 2 ? DAY_MS * NS_PER_MS : NS_PER_S / 4);
        rig_turn(rig);
        if (i % 32 == 31)
            fixture_checkpoint();
    }
    for (uint32_t c = 0; c < CONVERSATIONS; c++) {
        struct log_read read = rig_range(rig, c, 1, UINT64_MAX, 100, RIG_OUT_BYTES);
        if (rig_await(rig, &read) == ERR_EXPIRED)
            rig_gone(rig, &read, c, may_go);
        rig_check(rig, &read, c, 1);
        (void)rig_find(rig, c, 1 + c % rig->acked[c]);
    }
    count_entries();
    rig_close(rig);
}

static void mended(void)
{
    for (uint32_t c = 0; c < CONVERSATIONS; c++) {
        gone += rig_walk(rig, c, may_go);
        for (uint64_t seq = 9; seq <= rig->acked[c]; seq += 13) { /* none is older than a day */
            enum err err = rig_find(rig, c, seq);
            assert_true(err == OK || err == ERR_EXPIRED);
            named += err == ERR_EXPIRED;
        }
    }
}

static void went_everywhere(void)
{
    assert_true(merged > 0 && moved > 0 && recycled > 0 && gone > 0 && named > 0);
}

static uint64_t stride(void)
{
    return getenv("ROOST_EVERY_CALL") != NULL ? 1 : 16;
}

static void calls_fail(enum fault_op op, enum err err, bool sticky)
{
    assert_true(fixture_every_call_fails(op, err, sticky, 1 + op, stride(), life, mended) > 50);
    went_everywhere();
}

static void test_reads_fail(void **state)
{
    (void)state;
    calls_fail(FAULT_READ, ERR_IO, false);
    calls_fail(FAULT_READ, ERR_IO, true);
}

static void test_writes_fail(void **state)
{
    (void)state;
    calls_fail(FAULT_WRITE, ERR_IO, false);
    calls_fail(FAULT_WRITE, ERR_NO_SPACE, true);
}

static void test_syncs_fail(void **state)
{
    (void)state;
    calls_fail(FAULT_SYNC, ERR_IO, false);
    calls_fail(FAULT_SYNC, ERR_IO, true);
}

/* Opening, renaming, removing, listing, sizes. */
static void test_other_calls_fail(void **state)
{
    (void)state;
    calls_fail(FAULT_OTHER, ERR_IO, false);
    calls_fail(FAULT_OTHER, ERR_NO_DESCRIPTORS, true);
}

static void test_allocations_fail(void **state)
{
    (void)state;
    assert_true(fixture_every_allocation_fails(stride(), life, mended) > 50);
    went_everywhere();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST_AFTER(set_up, test_reads_fail),
        FIXTURE_TEST_AFTER(set_up, test_writes_fail),
        FIXTURE_TEST_AFTER(set_up, test_syncs_fail),
        FIXTURE_TEST_AFTER(set_up, test_other_calls_fail),
        FIXTURE_TEST_AFTER(set_up, test_allocations_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
