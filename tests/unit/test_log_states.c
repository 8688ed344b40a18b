/* test_log_states.c: what archives keep of conversations beside their records: the same whatever
 * was merged, merged again, dropped and freed. */
#include "store/archive_state.h"
#include "store/archive_walk.h"
#include "tests/unit/log_fixture.h"

static int set_up(void **state)
{
    fixture_set_up(state);
    fixture_merging(4);
    rig->merged_replay = false;
    rig->time = fixture_times_rise;
    rig->options.trust_clock = true;
    rig->options.retention =
        (struct retention){.age_ms = 200 * DAY_MS, .undelivered_ms = 30 * DAY_MS};
    return 0;
}

/* stated: what the archives' states say of one conversation, and how far they go. */
struct stated {
    uint64_t last_seq;
    uint64_t time_ms;
    uint64_t lead;
    bool marked;
    struct message_id highest[8][4]; /* by user and device */
};

static void take_state(struct stated *s, const struct archive_state *state)
{
    struct archive_mark mark;
    s->last_seq = state->last_seq > s->last_seq ? state->last_seq : s->last_seq;
    s->time_ms = state->time_ms > s->time_ms ? state->time_ms : s->time_ms;
    assert_false(state->incomplete);
    for (uint32_t i = 0; i < state->count; i++) {
        archive_state_mark(&mark, state, i);
        assert_true(mark.user.v < 8 && mark.device.v < 4);
        struct message_id *highest = &s->highest[mark.user.v][mark.device.v];
        if (memcmp(mark.highest.v, highest->v, 16) > 0)
            *highest = mark.highest;
        if (state->first_seq == 1 && mark.lead > s->lead)
            s->lead = mark.lead;
        s->marked = s->marked || (mark.marked && mark.user.v == 3 && mark.delivered == 1);
    }
}

static void read_states(struct stated stated[RIG_CONVERSATIONS])
{
    memset(stated, 0, RIG_CONVERSATIONS * sizeof *stated);
    for (uint32_t i = 0; i < rig->log->segment_count; i++) {
        char path[STORE_PATH_BYTES];
        struct archive *archive;
        struct archive_walk walk;
        struct walk_item item;
        struct archive_state state;
        if (!rig->log->segments[i]->archived)
            continue;
        assert_int_equal(lane_archive_path(rig->log, rig->log->segments[i], path), OK);
        assert_int_equal(archive_load(&archive, path), OK);
        archive_walk_init(&walk, archive->fd, &archive->key, ARCHIVE_HEADER_BYTES,
                          archive->footer.bytes);
        while (archive_walk_next(&walk, &item) == OK && item.kind != WALK_END)
            while (item.block.kind == ARCHIVE_STATES &&
                   archive_state_next(&state, &item.content) == OK)
                take_state(&stated[state.conversation.lo - 1000], &state);
        archive_walk_deinit(&walk);
        archive_destroy(archive);
    }
}

/* expect_states: they are what the records said, present or not. */
static void expect_states(void)
{
    struct stated *stated = malloc(RIG_CONVERSATIONS * sizeof *stated);
    read_states(stated);
    for (uint32_t c = 0; c < 8; c++) {
        struct stated expected = {.last_seq = stated[c].last_seq, .marked = stated[c].marked};
        struct log_record first = rig_record(rig, c, 1);
        bool leads = true;
        assert_true(stated[c].last_seq > 0);
        for (uint64_t seq = 1; seq <= expected.last_seq; seq++) {
            struct log_record record = rig_record(rig, c, seq);
            struct message_id *highest = &expected.highest[record.sender.v][record.device.v];
            if (memcmp(record.message_id.v, highest->v, 16) > 0)
                *highest = record.message_id;
            if (record.time_ms > expected.time_ms)
                expected.time_ms = record.time_ms;
            leads = leads && record.sender.v == first.sender.v && record.device.v == first.device.v;
            expected.lead = leads ? seq : expected.lead;
        }
        assert_memory_equal(&stated[c], &expected, sizeof expected);
        assert_true(stated[c].marked);
    }
    free(stated);
}

/* test_outlive_records: merged, merged twice, dropped and freed. */
static void test_outlive_records(void **state)
{
    (void)state;
    assert_int_equal(rig_open(rig), OK);
    fixture_fill(4000, 8, true);
    fixture_merge();
    expect_states();
    assert_true(rig->log->segments[0]->level > 1 && rig->log->segments[0]->footer.records > 0);
    for (uint32_t i = 0; i < 5; i++) {
        fault_pass(60 * DAY_MS * NS_PER_MS);
        fixture_merge();
        expect_states();
    }
    assert_int_equal(rig->log->segments[0]->footer.records, 0);
    assert_int_equal(rig->log->segments[0]->footer.conversations, 8);
    fixture_fill(2000, 8, true);
    fixture_merge();
    expect_states();
    for (uint32_t i = 0; i < 5; i++) {
        fault_pass(100 * DAY_MS * NS_PER_MS);
        fixture_merge();
        expect_states();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST_AFTER(set_up, test_outlive_records),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
