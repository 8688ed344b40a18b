/* test_log_fault.c: the N-th call fails, for every N, while a log with history, a torn tail and a
 * lost index is opened, appended to and read: the open is refused or works; nothing is leaked; what
 * was acknowledged before or meanwhile is there when the machine works again. */
#include "tests/unit/log_fixture.h"

#define CONVERSATIONS 9u

static int set_up(void **state)
{
    fixture_set_up(state);
    fixture_small();
    rig->body_max = 400;
    assert_int_equal(rig_open(rig), OK);
    for (uint32_t i = 0; i < 500; i++) {
        assert_int_equal(rig_append_now(rig, i % CONVERSATIONS), OK);
        if (i % 7 == 0)
            rig_turn(rig);
    }
    log_flush(rig->log); /* in flight when the power goes */
    fault_remove(RIG_DIRECTORY "/00000002.index");
    rig_crash(rig, 77);
    fixture_keep();
    return 0;
}

/* life: open, some records, reads, close; whatever fails on the way. */
static void life(void)
{
    if (rig_open(rig) != OK)
        return;
    rig_adopt(rig);
    for (uint32_t i = 0; i < 150 && log_state(rig->log) == LOG_OPEN; i++) {
        if (rig_append(rig, i % CONVERSATIONS) != OK)
            rig_turn(rig);
        if (i % 20 == 0)
            rig_turn(rig);
    }
    for (uint32_t c = 0; c < CONVERSATIONS; c++) {
        struct log_read read = rig_range(rig, c, 1, UINT64_MAX, 100, RIG_OUT_BYTES);
        (void)rig_await(rig, &read);
        rig_check(rig, &read, c, 1);
        (void)rig_find(rig, c, 1 + c % rig->acked[c]);
    }
    rig_close(rig);
}

static void mended(void)
{
    rig_read_all(rig);
}

static void every_call_fails(enum fault_op op, enum err err, bool sticky)
{
    assert_true(fixture_every_call_fails(op, err, sticky, 1, 1, life, mended) > 5);
}

static void test_every_read_fails(void **state)
{
    (void)state;
    every_call_fails(FAULT_READ, ERR_IO, false);
    every_call_fails(FAULT_READ, ERR_IO, true);
}

static void test_every_write_fails(void **state)
{
    (void)state;
    every_call_fails(FAULT_WRITE, ERR_IO, false);
    every_call_fails(FAULT_WRITE, ERR_NO_SPACE, true);
}

static void test_every_sync_fails(void **state)
{
    (void)state;
    every_call_fails(FAULT_SYNC, ERR_IO, false);
    every_call_fails(FAULT_SYNC, ERR_IO, true);
}

static void test_every_other_call_fails(void **state)
{
    (void)state;
    every_call_fails(FAULT_OTHER, ERR_IO, false);
    every_call_fails(FAULT_OTHER, ERR_NO_DESCRIPTORS, true);
}

static void test_every_allocation_fails(void **state)
{
    (void)state;
    assert_true(fixture_every_allocation_fails(1, life, mended) > 30);
}

/* A read that fails is repeated: who is told that a range is missing passes over it. */
static void test_a_failed_read_is_repeated(void **state)
{
    (void)state;
    fixture_go_back();
    rig->options.lookup_bytes = 0; /* the index is read */
    assert_int_equal(rig_open(rig), OK);
    rig_adopt(rig);
    rig_read_all(rig); /* everything is loaded: what fails next is a read of the index or records */
    struct log_read read = rig_range(rig, 0, 1, 3, 3, RIG_OUT_BYTES);
    fault.fail_at[FAULT_READ] = 1;
    assert_int_equal(rig_await(rig, &read), OK);
    assert_int_equal(fault.fail_at[FAULT_READ], 0);
    assert_int_equal(rig_check(rig, &read, 0, 1), 3);
    read = rig_range(rig, 0, 1, 3, 3, RIG_OUT_BYTES);
    fault.fail_at[FAULT_READ] = 1;
    fault.fail_sticky = true;
    assert_int_equal(rig_await(rig, &read), ERR_IO); /* not now; nothing is called missing */
    fault_calm();
    fault_pass(2 * LANE_RETRY_NS);
    rig_read_all(rig);
    rig_close(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST_AFTER(set_up, test_every_read_fails),
        FIXTURE_TEST_AFTER(set_up, test_every_write_fails),
        FIXTURE_TEST_AFTER(set_up, test_every_sync_fails),
        FIXTURE_TEST_AFTER(set_up, test_every_other_call_fails),
        FIXTURE_TEST_AFTER(set_up, test_every_allocation_fails),
        FIXTURE_TEST_AFTER(set_up, test_a_failed_read_is_repeated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
