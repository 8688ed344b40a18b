/* test_log_archive.c: merging under reads, reopening, crashes at every operation, damage; retention
 * and expiry. */
#include "store/archive_walk.h"
#include "store/lane.h"
#include "tests/unit/log_rig.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static struct rig *rig;

static int setup(void **state)
{
    (void)state;
    fault_reset();
    rig = malloc(sizeof *rig);
    rig_init(rig);
    rig->merged_replay = true;
    rig->options.segment_bytes = 64 << 10;
    rig->options.batch_bytes_max = 16 << 10;
    rig->options.merge_inputs = 4;
    rig->options.archive_bytes_max = 1 << 30;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fault_calm();
    if (rig->log != NULL)
        rig_close(rig);
    assert_int_equal(fault_open_descriptors(), 0);
    free(rig);
    assert_int_equal(memory_bytes(MEMORY_STORE), 0);
    return 0;
}

/* fill: records in `conversations` conversations, and now and then a watermark. */
static void fill(uint32_t records, uint32_t conversations)
{
    for (uint32_t i = 0; i < records; i++) {
        assert_int_equal(rig_append_now(rig, (i * 7 + i / 5) % conversations), OK);
        if (i % 50 == 0)
            while (rig_append_watermark(rig, i % conversations) == ERR_FULL)
                rig_turn(rig);
        if (i % 8 == 0)
            rig_turn(rig);
    }
    rig_settle(rig);
}

/* merge_all: everything that is due, from the present checkpoint on. */
static void merge_all(void)
{
    log_checkpointed(rig->log, log_durable(rig->log));
    for (uint32_t i = 0; i < 400; i++) {
        fault_pass(NS_PER_S);
        rig_turn(rig);
    }
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

static void reopen(uint64_t checkpoint)
{
    rig_close(rig);
    rig->options.checkpoint = checkpoint;
    memcpy(rig->found, rig->acked, sizeof rig->found);
    assert_int_equal(rig_open(rig), OK);
    assert_int_equal(rig->damaged, 0);
    rig_adopt(rig);
}

static void test_merged_is_read_and_found(void **state)
{
    (void)state;
    assert_int_equal(rig_open(rig), OK);
    fill(6000, 20);
    uint32_t before = rig->log->segment_count;
    merge_all();
    assert_true(archives() >= 2 && rig->log->segment_count < before / 2);
    rig_read_all(rig);
    find_some(20);
    reopen(log_durable(rig->log));
    assert_true(archives() >= 2);
    rig_read_all(rig);
    find_some(20);
    fill(2000, 20);
    merge_all();
    rig_read_all(rig);
}

static void test_one_long_conversation(void **state)
{
    (void)state;
    rig->body_max = 3000;
    assert_int_equal(rig_open(rig), OK);
    fill(3000, 1);
    merge_all();
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_merged_is_read_and_found, setup, teardown),
        cmocka_unit_test_setup_teardown(test_one_long_conversation, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
