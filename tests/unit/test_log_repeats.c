/* test_log_repeats.c: what was removed while it may be sent again is found by its id, with its
 * first number and time and without its content; afterwards nothing of it is left. By age, by size,
 * by expiry, by a conversation's own rule; in files that would otherwise be freed whole; damaged.
 */
#include "tests/unit/log_fixture.h"

#include "core/file.h"

#define CONVERSATIONS 8u
#define KNOWN_MS      (24 * HOUR_MS)

static int set_up(void **state)
{
    fixture_set_up(state);
    fixture_merging(4);
    fixture_naming(KNOWN_MS);
    return 0;
}

static void fill(void)
{
    fixture_fill(1200, CONVERSATIONS, false);
    fixture_merge();
}

/* expect_conversation: of its first `gone` numbers, which are no more, all are named, or none is;
 * the others are found as they are. */
static void expect_conversation(uint32_t c, uint64_t gone, bool named)
{
    uint64_t served;
    assert_int_equal(fixture_count(c, &served), gone);
    assert_int_equal(gone + served, rig->acked[c]);
    for (uint64_t seq = 1; seq <= rig->acked[c]; seq += 1 + seq % 5)
        assert_int_equal(rig_find(rig, c, seq), seq > gone ? OK
                                                : named    ? ERR_EXPIRED
                                                           : ERR_NOT_FOUND);
}

/* expect_all: something of each conversation is gone: all of it, unless the segment that nobody
 * fills is left. Returns whether it is all. */
static bool expect_all(bool named)
{
    bool all = true;
    uint64_t served;
    for (uint32_t c = 0; c < CONVERSATIONS; c++) {
        uint64_t gone = fixture_count(c, &served);
        assert_true(gone > rig->acked[c] / 2);
        expect_conversation(c, gone, named);
        all = all && served == 0;
    }
    return all;
}

static uint64_t names(void)
{
    uint64_t count = 0;
    for (uint32_t i = 0; i < rig->log->segment_count; i++)
        count += rig->log->segments[i]->footer.named;
    return count;
}

/* on_disk: some file of the log has the bytes. */
static struct bytes searched;
static bool search_found;

static enum err search(void *context, const char *name)
{
    char path[STORE_PATH_BYTES];
    uint64_t size;
    (void)context;
    assert_true(snprintf(path, sizeof path, "%s/%s", RIG_DIRECTORY, name) < (int)sizeof path);
    const uint8_t *data = fault_data(path, &size);
    search_found = search_found || (data != NULL && size >= searched.size &&
                                    memmem(data, size, searched.data, searched.size) != NULL);
    return OK;
}

static bool on_disk(struct bytes what)
{
    searched = what;
    search_found = false;
    assert_int_equal(file_list(RIG_DIRECTORY, search, NULL), OK);
    return search_found;
}

static bool content_on_disk(uint32_t c, uint64_t seq)
{
    const struct log_record record = rig_record(rig, c, seq);
    return on_disk(record.body);
}

static bool id_on_disk(uint32_t c, uint64_t seq)
{
    const struct log_record record = rig_record(rig, c, seq);
    return on_disk(bytes_of(record.message_id.v, sizeof record.message_id.v));
}

/* a_life: what is filled in becomes due, is removed, stays known, also after another start, and
 * goes. */
static bool a_life(uint32_t hours_due)
{
    assert_int_equal(rig_open(rig), OK);
    fill();
    expect_conversation(1, 0, false);
    assert_true(content_on_disk(1, 3) && id_on_disk(1, 3));
    fixture_hours(hours_due);
    bool all = expect_all(true);
    assert_true(names() > 0);
    assert_false(content_on_disk(1, 3));
    assert_true(id_on_disk(1, 3));
    fixture_reopen(log_durable(rig->log));
    assert_int_equal(expect_all(true), all);
    assert_int_equal(log_verify(RIG_DIRECTORY, NULL, fixture_say, NULL), OK);
    fixture_hours(26 - hours_due);
    assert_true(expect_all(false)); /* what was active at that start has ended */
    assert_int_equal(names(), 0);
    assert_false(id_on_disk(1, 3));
    fixture_reopen(log_durable(rig->log));
    assert_true(expect_all(false));
    return all;
}

static uint64_t in_an_hour(uint32_t conversation, uint64_t seq)
{
    return fixture_times_now(conversation, seq) + HOUR_MS;
}

static void test_expired(void **state)
{
    (void)state;
    rig->expires = in_an_hour;
    assert_true(a_life(3));
}

/* By age, which would free each file whole. */
static void test_too_old(void **state)
{
    (void)state;
    rig->options.retention.age_ms = HOUR_MS;
    (void)a_life(3);
}

static void test_too_much(void **state)
{
    (void)state;
    assert_int_equal(rig_open(rig), OK);
    fill();
    expect_conversation(1, 0, false);
    rig->options.retention.bytes = 1;
    fixture_reopen(log_durable(rig->log));
    fixture_hours(1);
    (void)expect_all(true);
    assert_false(content_on_disk(1, 3));
    fixture_reopen(log_durable(rig->log));
    (void)expect_all(true);
    fixture_hours(25);
    assert_int_equal(names(), 0);
    (void)expect_all(false);
    assert_false(id_on_disk(1, 3));
}

static void test_own_rule(void **state)
{
    (void)state;
    rig->options.retention.own = fixture_own;
    rig->options.retention.own_delay_ms = HOUR_MS;
    for (uint32_t c = 0; c < CONVERSATIONS; c++)
        rules[c].age_ms = HOUR_MS;
    assert_true(a_life(4));
}

/* test_one_answer_for_many: names that follow each other are one range for a reader. */
static void test_one_answer_for_many(void **state)
{
    (void)state;
    rig->expires = in_an_hour;
    assert_int_equal(rig_open(rig), OK);
    fill();
    fixture_hours(3);
    assert_int_equal(names(), 1200);
    uint64_t last = rig->acked[2];
    struct log_read read = rig_range(rig, 2, 5, UINT64_MAX, 10, RIG_OUT_BYTES);
    assert_int_equal(rig_await(rig, &read), ERR_EXPIRED);
    assert_true(read.records == 0 && read.missing_from == 5 && read.missing_to == last);
    read = rig_range(rig, 2, 5, 20, 10, RIG_OUT_BYTES);
    assert_int_equal(rig_await(rig, &read), ERR_EXPIRED);
    assert_true(read.missing_from == 5 && read.missing_to == 20);
}

/* test_catalog_is_older: what is replayed of archives tells who sent what, so that a repeat is
 * looked up. */
static uint64_t given;

static void count_given(void *context, const struct log_record *record, uint64_t position)
{
    (void)context;
    (void)position;
    given += record->kind == RECORD_MESSAGE && record->body.size == 0 &&
             message_id_given(record->message_id);
}

static void test_catalog_is_older(void **state)
{
    (void)state;
    rig->expires = in_an_hour;
    assert_int_equal(rig_open(rig), OK);
    fill();
    fixture_hours(3);
    uint64_t named = names();
    rig->options.checkpoint = 0;
    rig_close(rig);
    assert_int_equal(rig_open(rig), OK); /* replays, and looks at each */
    rig_adopt(rig);
    (void)expect_all(true);
    rig_close(rig);
    rig->options.writer_epoch++;
    given = 0;
    assert_int_equal(log_open(&rig->log, &rig->options, fault_io(), fault_workers(), NULL,
                              count_given, NULL, &rig->damaged),
                     OK);
    assert_true(named == 1200 && given >= named);
}

/* test_clock_is_wrong: while it is, what was removed stays known, however often it is merged. */
static void test_clock_is_wrong(void **state)
{
    (void)state;
    rig->expires = in_an_hour;
    assert_int_equal(rig_open(rig), OK);
    fill();
    fixture_hours(3);
    uint32_t last = rig->log->segments[0]->id;
    fixture_checkpoint();
    rig_close(rig);
    rig->options.trust_clock = false;
    rig->options.merge_inputs = 2;
    fault_pass(30 * DAY_MS * NS_PER_MS); /* since the newest batch: it cannot be believed */
    assert_int_equal(rig_open(rig), OK);
    rig_adopt(rig);
    fill();
    fixture_hours(20);
    assert_true(rig->log->segments[0]->id > last);
    assert_int_equal(names(), 1200);
    assert_int_equal(rig_find(rig, 1, 3), ERR_EXPIRED);
    fixture_hours(8); /* a day after the start it is */
    assert_int_equal(rig_find(rig, 1, 3), ERR_NOT_FOUND);
}

/* test_every_bit: of an archive of names alone: damage is found, and never takes one for another.
 * One bit in 31; ROOST_EVERY_BIT=1: every one. */
static char archive_path[STORE_PATH_BYTES];

static enum err find_archive(void *context, const char *name)
{
    (void)context;
    if (strstr(name, ".archive") != NULL)
        assert_true(snprintf(archive_path, sizeof archive_path, "%s/%s", RIG_DIRECTORY, name) > 0);
    return OK;
}

static void test_every_bit(void **state)
{
    (void)state;
    uint64_t size;
    rig->expires = in_an_hour;
    assert_int_equal(rig_open(rig), OK);
    fixture_fill(40, 4, false);
    fixture_hours(3);
    assert_int_equal(names(), 40);
    rig_close(rig);
    assert_int_equal(file_list(RIG_DIRECTORY, find_archive, NULL), OK);
    uint8_t *data = fault_data(archive_path, &size);
    assert_non_null(data);
    uint64_t step = getenv("ROOST_EVERY_BIT") != NULL ? 1 : 31;
    for (uint64_t bit = 0; bit < size * 8; bit += step) {
        data[bit / 8] = (uint8_t)(data[bit / 8] ^ 1u << bit % 8);
        assert_int_equal(log_verify(RIG_DIRECTORY, NULL, fixture_say, NULL), ERR_CORRUPT);
        data[bit / 8] = (uint8_t)(data[bit / 8] ^ 1u << bit % 8);
    }
    assert_int_equal(log_verify(RIG_DIRECTORY, NULL, fixture_say, NULL), OK);
    assert_int_equal(rig_open(rig), OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST_AFTER(set_up, test_expired),
        FIXTURE_TEST_AFTER(set_up, test_too_old),
        FIXTURE_TEST_AFTER(set_up, test_too_much),
        FIXTURE_TEST_AFTER(set_up, test_own_rule),
        FIXTURE_TEST_AFTER(set_up, test_one_answer_for_many),
        FIXTURE_TEST_AFTER(set_up, test_catalog_is_older),
        FIXTURE_TEST_AFTER(set_up, test_clock_is_wrong),
        FIXTURE_TEST_AFTER(set_up, test_every_bit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
