/* test_log_own.c: a conversation's own retention on the disk: the entry that set it stays, whatever
 * is merged and freed. */
#include "store/log_private.h"
#include "tests/unit/log_rig.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define DAY_MS  86400000ull
#define WALL_MS 1700000000000ull /* the test disk's clock begins here */

static struct rig *rig;
static struct retention_rule rules[RIG_CONVERSATIONS];
static uint32_t looks;

static enum err begin_looks(void *context, void **session)
{
    *session = context;
    return OK;
}

static enum err look(void *session, struct conversation_id conversation,
                     struct retention_rule *rule)
{
    assert_ptr_equal(session, &looks);
    looks++;
    *rule = rules[conversation.lo - 1000];
    return OK;
}

static void end_looks(void *session)
{
    assert_ptr_equal(session, &looks);
}

static int setup(void **state)
{
    (void)state;
    fault_reset();
    memset(rules, 0, sizeof rules);
    rig = malloc(sizeof *rig);
    rig_init(rig);
    rig->merged_replay = true;
    rig->options.segment_bytes = 64 << 10;
    rig->options.batch_bytes_max = 16 << 10;
    rig->options.merge_inputs = 4;
    rig->options.archive_bytes_max = 1 << 30;
    rig->options.trust_clock = true;
    rig->options.retention = (struct retention){.undelivered_ms = 30 * DAY_MS,
                                                .expiry_delay_ms = DAY_MS,
                                                .begin = begin_looks,
                                                .look = look,
                                                .end = end_looks,
                                                .context = &looks};
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

/* fill: records in `conversations` conversations. */
static void fill(uint32_t records, uint32_t conversations)
{
    for (uint32_t i = 0; i < records; i++) {
        assert_int_equal(rig_append_now(rig, (i * 7 + i / 5) % conversations), OK);
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

static void reopen(uint64_t checkpoint)
{
    rig_close(rig);
    rig->options.checkpoint = checkpoint;
    memcpy(rig->found, rig->acked, sizeof rig->found);
    assert_int_equal(rig_open(rig), OK);
    assert_int_equal(rig->damaged, 0);
    rig_adopt(rig);
}

static void count_finding(void *context, const char *line)
{
    (void)context;
    (void)line;
}

static uint64_t times_rise(uint32_t conversation, uint64_t seq)
{
    return WALL_MS - 100 * DAY_MS + seq * (DAY_MS / 4) + conversation;
}

/* walk_numbers: every number is served or gone, once, in order; how many are gone. */
static uint64_t walk_numbers(uint32_t c, uint64_t *served)
{
    uint64_t gone = 0;
    *served = 0;
    for (uint64_t next = 1; next <= rig->acked[c];) {
        struct log_read read = rig_range(rig, c, next, rig->acked[c], 1000, RIG_OUT_BYTES);
        enum err err = rig_await(rig, &read);
        uint64_t count = rig_check(rig, &read, c, next);
        *served += count;
        next += count;
        if (err == OK)
            continue;
        assert_int_equal(err, ERR_EXPIRED);
        assert_int_equal(read.missing_from, next);
        gone += read.missing_to + 1 - next;
        next = read.missing_to + 1;
    }
    return gone;
}

/* One in fifty sets a retention: the newest one of each conversation is in force. */
static bool some_settings(uint32_t conversation, uint64_t seq)
{
    return (seq + conversation) % 50 == 0;
}

static uint64_t newest_setting(uint32_t c)
{
    uint64_t seq = rig->acked[c];
    while (seq > 0 && !some_settings(c, seq))
        seq--;
    return seq;
}

/* expect_setting: it is served; of the older ones none, by number or by message id. */
static void expect_setting(uint32_t c, uint64_t seq)
{
    struct log_read read = rig_range(rig, c, seq, seq, 1, RIG_OUT_BYTES);
    assert_int_equal(rig_await(rig, &read), OK);
    assert_int_equal(rig_check(rig, &read, c, seq), 1);
    assert_int_equal(rig_find(rig, c, seq), OK);
    for (uint64_t older = seq > 50 ? seq - 50 : 0; older > 0; older -= older > 50 ? 50 : older) {
        read = rig_range(rig, c, older, older, 1, RIG_OUT_BYTES);
        assert_int_equal(rig_await(rig, &read), ERR_EXPIRED);
        assert_int_equal(rig_find(rig, c, older), ERR_NOT_FOUND);
    }
}

/* test_a_setting_in_force_stays: whatever is merged and freed, again and again; those that were
 * replaced go like messages. An archive of settings alone is not looked at every day. */
static void test_a_setting_in_force_stays(void **state)
{
    (void)state;
    uint64_t served;
    uint64_t kept[10] = {0};
    rig->options.retention.age_ms = 200 * DAY_MS;
    rig->time = times_rise;
    rig->setting = some_settings;
    assert_int_equal(rig_open(rig), OK);
    for (uint32_t round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < 60; i++) /* conversation 8 ends early */
            if (round == 0)
                assert_int_equal(rig_append_now(rig, 8), OK);
        fill(1600, 8);
        rig_settle(rig);
        for (uint32_t c = 0; c < 9; c++)
            rules[c] = (struct retention_rule){.delivered_seq = UINT64_MAX,
                                               .setting_seq = kept[c] = newest_setting(c)};
        fault_pass(400 * DAY_MS * NS_PER_MS);
        merge_all();
    }
    for (uint32_t again = 0; again < 2; again++) {
        const struct archive_footer *footer = &rig->log->segments[0]->footer;
        assert_int_equal(footer->records, footer->settings);
        assert_true(footer->settings >= 1 && footer->settings <= 9);
        expect_setting(8, kept[8]);
        assert_int_equal(walk_numbers(8, &served) + served, 60);
        assert_int_equal(served, 1);
        for (uint32_t c = 0; c < 8; c++)
            assert_int_equal(walk_numbers(c, &served) + served, rig->acked[c]);
        reopen(log_durable(rig->log));
    }
    uint64_t looked = looks;
    fault_pass(30 * DAY_MS * NS_PER_MS);
    merge_all();
    assert_true(looks - looked < 40);
    assert_int_equal(log_verify(RIG_DIRECTORY, NULL, count_finding, NULL), OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_setting_in_force_stays, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
