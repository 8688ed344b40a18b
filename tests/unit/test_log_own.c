/* test_log_own.c: a conversation's own retention on the disk: the entry that set it stays, whatever
 * is merged and freed; what its own age or bound makes due goes within own_delay, wherever it is;
 * where there are no such rules, nothing is done for them. */
#include "tests/unit/log_fixture.h"

static int set_up(void **state)
{
    fixture_set_up(state);
    fixture_merging(4);
    fixture_retention(0, 30 * DAY_MS);
    rig->options.retention.own = fixture_own;
    rig->options.retention.own_delay_ms = DAY_MS;
    return 0;
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
    rig->time = fixture_times_rise;
    rig->setting = some_settings;
    assert_int_equal(rig_open(rig), OK);
    for (uint32_t round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < 60; i++) /* conversation 8 ends early */
            if (round == 0)
                assert_int_equal(rig_append_now(rig, 8), OK);
        fixture_fill(1600, 8, false);
        rig_settle(rig);
        for (uint32_t c = 0; c < 9; c++)
            rules[c] = (struct retention_rule){.delivered_seq = UINT64_MAX,
                                               .setting_seq = kept[c] = newest_setting(c)};
        fault_pass(400 * DAY_MS * NS_PER_MS);
        fixture_merge();
    }
    for (uint32_t again = 0; again < 2; again++) {
        const struct archive_footer *footer = &rig->log->segments[0]->footer;
        assert_int_equal(footer->records, footer->settings);
        assert_true(footer->settings >= 1 && footer->settings <= 9);
        expect_setting(8, kept[8]);
        assert_int_equal(fixture_count(8, &served) + served, 60);
        assert_int_equal(served, 1);
        for (uint32_t c = 0; c < 8; c++)
            assert_int_equal(fixture_count(c, &served) + served, rig->acked[c]);
        fixture_reopen(log_durable(rig->log));
    }
    uint64_t looked = looks;
    fault_pass(30 * DAY_MS * NS_PER_MS);
    fixture_merge();
    assert_true(looks - looked < 40);
    assert_int_equal(log_verify(RIG_DIRECTORY, NULL, fixture_say, NULL), OK);
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

/* expect_gone: of the conversation the first `gone` numbers, and no others. */
static void expect_gone(uint32_t c, uint64_t gone)
{
    uint64_t served;
    assert_int_equal(fixture_count(c, &served), gone);
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
    rig->time = fixture_times_now;
    rig->options.retention.age_ms = 200 * DAY_MS;
    fixture_all_delivered();
    assert_int_equal(rig_open(rig), OK);
    fixture_fill(1600, 8, false);
    fixture_merge();
    fixture_fill(700, 8, false); /* not all of it is merged */
    days(1);
    uint64_t before = rig->acked[3];
    assert_int_equal(log_dropped_ms(rig->log), 0);
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
    assert_int_equal(log_dropped_ms(rig->log), fixture_times_now(2, rig->acked[2]));
    for (uint32_t i = 0; i < 3; i++) /* in a segment that nobody fills */
        assert_int_equal(rig_append_now(rig, 2), OK);
    rules[3].beyond_seq = before;
    days(2);
    expect_gone(2, rig->acked[2]);
    expect_gone(3, before);
    fixture_reopen(log_durable(rig->log));
    expect_gone(2, rig->acked[2]);
    expect_gone(3, before);
    expect_gone(4, 7);
}

/* test_own_rules_in_the_only_segment: nothing was ever sealed. */
static void test_own_rules_in_the_only_segment(void **state)
{
    (void)state;
    rig->time = fixture_times_now;
    fixture_all_delivered();
    rules[2].age_ms = DAY_MS;
    assert_int_equal(rig_open(rig), OK);
    fixture_fill(100, 8, false);
    days(4);
    expect_gone(2, rig->acked[2]);
    expect_gone(3, 0);
}

static uint64_t expires_early(uint32_t conversation, uint64_t seq)
{
    return conversation == 9 && seq <= 20 ? WALL_MS + DAY_MS : 0;
}

/* test_own_rules_behind_expired: the oldest of a conversation have expired and may stay for days;
 * what the rule makes due behind them goes in its own time. */
static void test_own_rules_behind_expired(void **state)
{
    (void)state;
    rig->time = fixture_times_now;
    rig->expires = expires_early;
    rig->options.retention.expiry_delay_ms = 100 * DAY_MS;
    fixture_all_delivered();
    rules[9].age_ms = 6 * DAY_MS;
    assert_int_equal(rig_open(rig), OK);
    for (uint32_t i = 0; i < 60; i++)
        assert_int_equal(rig_append_now(rig, 9), OK);
    fixture_fill(1600, 8, false);
    fixture_merge();
    days(4);
    expect_gone(9, 0);
    days(4);
    expect_gone(9, 60);
    expect_gone(3, 0);
}

/* test_no_rule_no_work: no file is written anew, and the active segment goes on. */
static void test_no_rule_no_work(void **state)
{
    (void)state;
    assert_int_equal(metrics_create(&rig->metrics), OK);
    struct metrics *const metrics[] = {rig->metrics};
    rig->time = fixture_times_now;
    fixture_all_delivered();
    rules[50].age_ms = 0;
    assert_int_equal(rig_open(rig), OK);
    fixture_fill(1600, 8, false);
    fixture_merge();
    uint64_t merged = (uint64_t)metrics_sum(metrics, 1, METRIC_MERGE_INPUTS);
    uint32_t active = rig->log->segments[rig->log->active]->id;
    days(5);
    assert_int_equal(metrics_sum(metrics, 1, METRIC_MERGE_INPUTS), merged);
    assert_int_equal(rig->log->segments[rig->log->active]->id, active);
    rules[50].age_ms = DAY_MS; /* a conversation that has nothing: looked for, and not found */
    days(5);
    assert_in_range(metrics_sum(metrics, 1, METRIC_MERGE_INPUTS), merged, merged + 8);
    assert_int_equal(fixture_count(0, &(uint64_t){0}), 0);
}

/* ---- what it costs */

#define COST_DAYS    75u
#define COST_PER_DAY 8u /* messages of a conversation */

static uint64_t times_daily(uint32_t conversation, uint64_t seq)
{
    return WALL_MS + (seq - 1) / COST_PER_DAY * DAY_MS + conversation + seq;
}

/* live: so many messages every day, for COST_DAYS; bytes that merging wrote. *freed: bytes of
 * records that retention removed, by their mean. */
static uint64_t live(uint64_t *freed)
{
    assert_int_equal(metrics_create(&rig->metrics), OK);
    struct metrics *const metrics[] = {rig->metrics};
    rig->time = times_daily;
    assert_int_equal(rig_open(rig), OK);
    for (uint32_t day = 0; day < COST_DAYS; day++) {
        for (uint32_t i = 0; i < COST_PER_DAY * RIG_CONVERSATIONS; i++)
            assert_int_equal(rig_append_now(rig, i % RIG_CONVERSATIONS), OK);
        for (uint32_t i = 0; i < 240; i++) {
            fault_pass(DAY_MS / 240 * NS_PER_MS);
            rig_turn(rig);
            log_checkpointed(rig->log, log_durable(rig->log));
        }
    }
    uint64_t bytes = (uint64_t)metrics_sum(metrics, 1, METRIC_LOG_APPENDED_BYTES);
    uint64_t gone = (uint64_t)metrics_sum(metrics, 1, METRIC_RECORDS_RETAINED_AWAY);
    *freed = bytes * gone / (COST_DAYS * COST_PER_DAY * RIG_CONVERSATIONS);
    return (uint64_t)metrics_sum(metrics, 1, METRIC_MERGE_WRITTEN_BYTES);
}

/* cost: of retention by these rules: bytes written by merging, beyond what it writes without any
 * retention, per hundred that are freed. ages: 0: one of 15 days for all; else 1 … so many days. */
static int64_t cost(uint32_t ages, uint32_t delay_days, uint64_t merged)
{
    uint64_t freed;
    void *none = NULL;
    (void)set_up(&none);
    rig->options.retention.own_delay_ms = delay_days * DAY_MS;
    rig->options.retention.undelivered_ms = 0;
    rig->options.retention.age_ms = (ages == 0 ? 15 : 400) * DAY_MS;
    fixture_all_delivered();
    for (uint32_t c = 0; c < RIG_CONVERSATIONS && ages != 0; c++)
        rules[c].age_ms = (1 + rig_hash(c, 77) % ages) * DAY_MS;
    int64_t written = (int64_t)live(&freed);
    (void)fixture_tear_down(&none);
    assert_true(freed > 0);
    return (written - (int64_t)merged) * 100 / (int64_t)freed;
}

/* test_what_many_ages_cost: where each conversation has an age of its own, each file has something
 * due every day until all of it is: it is written anew once in own_delay, which is what bounds the
 * cost. One age for all costs next to nothing. */
static void test_what_many_ages_cost(void **state)
{
    (void)state;
    uint64_t freed;
    void *none = NULL;
    rig->options.retention.own = NULL;
    fixture_all_delivered();
    uint64_t merged = live(&freed);
    assert_int_equal(freed, 0);
    (void)fixture_tear_down(&none);
    int64_t one = cost(0, 1, merged);
    int64_t daily = cost(30, 1, merged);
    int64_t weekly = cost(30, 7, merged);
    (void)set_up(&none);
    print_message("written per 100 bytes freed: one age %lld; ages of 1 to 30 days, delay 1 day "
                  "%lld, 7 days %lld\n",
                  (long long)one, (long long)daily, (long long)weekly);
    assert_in_range(daily, 0, 2000);
    assert_true(weekly < daily / 2);
    assert_true(one < daily / 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST_AFTER(set_up, test_a_setting_in_force_stays),
        FIXTURE_TEST_AFTER(set_up, test_own_rules_in_time),
        FIXTURE_TEST_AFTER(set_up, test_own_rules_in_the_only_segment),
        FIXTURE_TEST_AFTER(set_up, test_own_rules_behind_expired),
        FIXTURE_TEST_AFTER(set_up, test_no_rule_no_work),
        FIXTURE_TEST_AFTER(set_up, test_what_many_ages_cost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
