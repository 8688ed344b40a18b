/* test_log_own.c: a conversation's own retention on the disk: the entry that set it stays, whatever
 * is merged and freed; what its own age or bound makes due goes within own_delay, wherever it is;
 * where there are no such rules, nothing is done for them. */
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

/* own: of the rig's ids the first byte is 0. */
static enum err own(void *session, uint8_t first,
                    enum err (*add)(void *list, struct conversation_id conversation), void *list)
{
    (void)session;
    for (uint64_t hi = 0; hi < 2 && first == 0; hi++)
        for (uint32_t c = (uint32_t)hi; c < RIG_CONVERSATIONS; c += 2)
            if (rules[c].age_ms != 0 || rules[c].beyond_seq != 0)
                TRY(add(list, (struct conversation_id){hi, 1000 + c}));
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
                                                .own_delay_ms = DAY_MS,
                                                .look = look,
                                                .own = own,
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

static uint64_t times_now(uint32_t conversation, uint64_t seq)
{
    return WALL_MS + conversation + seq;
}

/* days: turns, some an hour, and a checkpoint each. */
static void days(uint32_t count)
{
    for (uint32_t i = 0; i < count * 24 * 20; i++) {
        fault_pass(DAY_MS / 24 / 20 * NS_PER_MS);
        rig_turn(rig);
        log_checkpointed(rig->log, log_durable(rig->log));
    }
}

static void everything_is_delivered(void)
{
    for (uint32_t c = 0; c < RIG_CONVERSATIONS; c++)
        rules[c].delivered_seq = UINT64_MAX;
}

/* expect_gone: of the conversation the first `gone` numbers, and no others. */
static void expect_gone(uint32_t c, uint64_t gone)
{
    uint64_t served;
    assert_int_equal(walk_numbers(c, &served), gone);
    assert_int_equal(served, rig->acked[c] - gone);
    if (served == 0 || gone == 0)
        return;
    struct log_read read = rig_range(rig, c, gone + 1, UINT64_MAX, 1, RIG_OUT_BYTES);
    assert_int_equal(rig_await(rig, &read), OK);
}

/* test_own_rules_in_time: files that were merged before there was a rule, unmerged segments, and
 * the active one, which nobody fills: all that is due is gone a day after its time, and before its
 * time nothing is. */
static void test_own_rules_in_time(void **state)
{
    (void)state;
    rig->time = times_now;
    rig->options.retention.age_ms = 200 * DAY_MS;
    everything_is_delivered();
    assert_int_equal(rig_open(rig), OK);
    fill(1600, 8);
    merge_all();
    fill(700, 8); /* not all of it is merged */
    days(1);
    uint64_t before = rig->acked[3];
    rules[2].age_ms = 3 * DAY_MS;
    rules[3].beyond_seq = before / 2;
    rules[4].age_ms = 3 * DAY_MS; /* but nobody has it all */
    rules[4].delivered_seq = 7;
    days(1);
    expect_gone(2, 0);
    days(3); /* due after the third day, one late, one to be sure of the merges */
    expect_gone(2, rig->acked[2]);
    expect_gone(3, before / 2);
    expect_gone(4, 7);
    expect_gone(5, 0);
    for (uint32_t i = 0; i < 3; i++) /* in a segment that nobody fills */
        assert_int_equal(rig_append_now(rig, 2), OK);
    rules[3].beyond_seq = before;
    days(2);
    expect_gone(2, rig->acked[2]);
    expect_gone(3, before);
    reopen(log_durable(rig->log));
    expect_gone(2, rig->acked[2]);
    expect_gone(3, before);
    expect_gone(4, 7);
}

/* test_own_rules_in_the_only_segment: nothing was ever sealed. */
static void test_own_rules_in_the_only_segment(void **state)
{
    (void)state;
    rig->time = times_now;
    everything_is_delivered();
    rules[2].age_ms = DAY_MS;
    assert_int_equal(rig_open(rig), OK);
    fill(100, 8);
    days(4);
    expect_gone(2, rig->acked[2]);
    expect_gone(3, 0);
}

/* test_no_rule_no_work: no file is written anew, and the active segment goes on. */
static void test_no_rule_no_work(void **state)
{
    (void)state;
    struct metrics *metrics;
    assert_int_equal(metrics_create(&metrics), OK);
    rig->metrics = metrics;
    rig->time = times_now;
    everything_is_delivered();
    rules[50].age_ms = 0;
    assert_int_equal(rig_open(rig), OK);
    fill(1600, 8);
    merge_all();
    uint64_t merged = (uint64_t)metrics_sum(&metrics, 1, METRIC_MERGE_INPUTS);
    uint32_t active = rig->log->segments[rig->log->active]->id;
    days(5);
    assert_int_equal(metrics_sum(&metrics, 1, METRIC_MERGE_INPUTS), merged);
    assert_int_equal(rig->log->segments[rig->log->active]->id, active);
    rules[50].age_ms = DAY_MS; /* a conversation that has nothing: looked for, and not found */
    days(5);
    assert_in_range(metrics_sum(&metrics, 1, METRIC_MERGE_INPUTS), merged, merged + 8);
    assert_int_equal(walk_numbers(0, &(uint64_t){0}), 0);
    rig_close(rig);
    metrics_destroy(metrics);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_setting_in_force_stays, setup, teardown),
        cmocka_unit_test_setup_teardown(test_own_rules_in_time, setup, teardown),
        cmocka_unit_test_setup_teardown(test_own_rules_in_the_only_segment, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_rule_no_work, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
