/* test_log_lifecycle.c: the N-th call fails while segments are merged, purged by age and expiry,
 * moved to the cold directory, recycled, and appended to: nothing is acknowledged falsely or
 * leaked, and when the machine works again everything that is not due is there. One N in 16;
 * ROOST_EVERY_CALL=1: every one (two minutes). */
#include "store/log_private.h"
#include "tests/unit/log_rig.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define CONVERSATIONS 9u
#define DAY_MS        86400000ull
#define WALL_MS       1700000000000ull /* the test disk's clock begins here */
#define TURNS         140u

static struct rig *rig;
static struct rig *before; /* as it was when the image was made */
static struct fault_image *image;
static uint64_t image_ns; /* the clock then */
static uint64_t gone;
static uint64_t merged;
static uint64_t moved;
static uint64_t recycled;

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

/* Conversation 3 has an age of its own, so that every file is looked into. */
static enum err begin_looks(void *context, void **session)
{
    *session = context;
    return OK;
}

static enum err look(void *session, struct conversation_id conversation,
                     struct retention_rule *rule)
{
    (void)session;
    *rule = (struct retention_rule){.age_ms = conversation.lo == 1003 ? DAY_MS / 2 : 0,
                                    .delivered_seq = UINT64_MAX};
    return OK;
}

static enum err own(void *session, uint8_t first,
                    enum err (*add)(void *list, struct conversation_id conversation), void *list)
{
    (void)session;
    return first == 0 ? add(list, (struct conversation_id){1, 1003}) : OK;
}

static void end_looks(void *session)
{
    (void)session;
}

static bool may_go(const struct rig *of, const struct log_record *record)
{
    (void)of;
    return record->time_ms < WALL_MS || record->expires_ms != 0 || record->conversation.lo == 1003;
}

static int setup(void **state)
{
    (void)state;
    fault_reset();
    gone = merged = moved = recycled = 0;
    rig = malloc(sizeof *rig);
    before = malloc(sizeof *before);
    rig_init(rig);
    rig->merged_replay = true;
    rig->time = times;
    rig->expires = expiries;
    rig->body_max = 900;
    rig->options.segment_bytes = 64 << 10;
    rig->options.batch_bytes_max = 16 << 10;
    assert_int_equal(rig_open(rig), OK);
    for (uint32_t i = 0; i < 900; i++)
        assert_int_equal(rig_append_now(rig, i % CONVERSATIONS), OK);
    rig_close(rig);
    rig->options.make_rate = 4 << 20;
    rig->options.spare_segments = 2;
    rig->options.merge_inputs = 3;
    rig->options.archive_bytes_max = 1 << 30;
    rig->options.compress = true;
    rig->options.scrub_rate = 1 << 20;
    rig->options.trust_clock = true;
    rig->options.cold_directory = "cold";
    rig->options.cold_ms = DAY_MS / 4;
    rig->options.retention = (struct retention){.age_ms = 10 * DAY_MS,
                                                .own_delay_ms = DAY_MS / 4,
                                                .begin = begin_looks,
                                                .look = look,
                                                .own = own,
                                                .end = end_looks};
    image = fault_save();
    image_ns = io_now_ns(fault_io());
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
    fault_pass(image_ns - io_now_ns(fault_io())); /* back */
}

static void take_checkpoint(void)
{
    rig_take_completions(rig);
    rig->options.checkpoint = log_durable(rig->log);
    log_checkpointed(rig->log, rig->options.checkpoint);
    memcpy(rig->found, rig->acked, sizeof rig->found);
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
    take_checkpoint();
    for (uint32_t i = 0; i < TURNS; i++) {
        if (log_state(rig->log) == LOG_OPEN)
            (void)!rig_append(rig, i % CONVERSATIONS);
        fault_pass(i == TURNS / 2 ? DAY_MS * NS_PER_MS : NS_PER_S / 4);
        rig_turn(rig);
        if (i % 32 == 31)
            take_checkpoint();
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
    for (uint32_t c = 0; c < CONVERSATIONS; c++)
        gone += rig_walk(rig, c, may_go);
    rig_close(rig);
}

static void went_everywhere(void)
{
    assert_true(merged > 0 && moved > 0 && recycled > 0 && gone > 0);
}

static uint64_t stride(void)
{
    return getenv("ROOST_EVERY_CALL") != NULL ? 1 : 16;
}

static void calls_fail(enum fault_op op, enum err err, bool sticky)
{
    uint64_t n = 1 + op;
    for (bool reached = true; reached; n += stride()) {
        start_over();
        uint64_t calls = fault.count[op];
        fault.fail_at[op] = n;
        fault.fail_err = err;
        fault.fail_sticky = sticky;
        life();
        reached = fault.count[op] - calls >= n;
        mended(n);
    }
    assert_true(n > 50);
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
    uint64_t n = 1;
    for (uint64_t left = 0; left == 0; n += stride()) {
        start_over();
        memory_fail_at(n);
        life();
        left = memory_fail_at(0);
        mended(n);
    }
    assert_true(n > 50);
    went_everywhere();
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_reads_fail),       TEST(test_writes_fail),      TEST(test_syncs_fail),
        TEST(test_other_calls_fail), TEST(test_allocations_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
