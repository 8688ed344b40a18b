/* test_log_fault.c: the N-th call fails, for every N, while a log with history, a torn tail and a
 * lost index is opened, appended to and read: the open is refused or works; nothing is leaked; what
 * was acknowledged before or meanwhile is there when the machine works again. */
#include "store/log_private.h"
#include "tests/unit/log_rig.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define CONVERSATIONS 9u

static struct rig *rig;
static struct rig *before; /* as it was when the image was made */
static struct fault_image *image;

static int setup(void **state)
{
    (void)state;
    fault_reset();
    rig = malloc(sizeof *rig);
    before = malloc(sizeof *before);
    rig_init(rig);
    rig->options.segment_bytes = 64 << 10;
    rig->options.batch_bytes_max = 16 << 10;
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
    image = fault_save();
    memcpy(before, rig, sizeof *rig);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fault_reset();
    fault_free(image);
    free(rig);
    free(before);
    assert_int_equal(memory_bytes(MEMORY_STORE), 0);
    return 0;
}

static void start_over(void)
{
    memcpy(rig, before, sizeof *rig);
    fault_calm();
    fault_load(image);
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

/* mended: the machine works again, perhaps after a power cut: everything is there. */
static void mended(uint64_t n)
{
    assert_int_equal(fault_open_descriptors(), 0);
    assert_int_equal(memory_bytes(MEMORY_STORE), 0);
    fault_calm();
    if (n % 2 == 0)
        fault_crash(n + 2);
    assert_int_equal(rig_open(rig), OK);
    assert_int_equal(rig->damaged, 0);
    rig_adopt(rig); /* acknowledged ⊆ found */
    rig_read_all(rig);
    rig_close(rig);
}

static void every_call_fails(enum fault_op op, enum err err, bool sticky)
{
    uint64_t n = 1;
    for (bool reached = true; reached; n++) {
        start_over();
        uint64_t calls = fault.count[op];
        fault.fail_at[op] = n;
        fault.fail_err = err;
        fault.fail_sticky = sticky;
        life();
        reached = fault.count[op] - calls >= n;
        mended(n);
    }
    assert_true(n > 5);
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
    uint64_t n = 1;
    for (uint64_t left = 0; left == 0; n++) {
        start_over();
        memory_fail_at(n);
        life();
        left = memory_fail_at(0);
        mended(n);
    }
    assert_true(n > 30);
}

/* A read that fails is repeated: who is told that a range is missing passes over it. */
static void test_a_failed_read_is_repeated(void **state)
{
    (void)state;
    start_over();
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
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_every_read_fails),       TEST(test_every_write_fails),
        TEST(test_every_sync_fails),       TEST(test_every_other_call_fails),
        TEST(test_every_allocation_fails), TEST(test_a_failed_read_is_repeated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
