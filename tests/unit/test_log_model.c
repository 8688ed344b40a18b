/* test_log_model.c: random append, turn, read both ways, find, checkpoint, reopen and crash, while
 * segments are sealed, merged, recycled, moved to the cold directory, and purged by age, size and
 * expiry as the clock goes on; against a simple model: what was acknowledged, and is not due, is
 * there, as it was; what is gone was due, and found by its id while it may be repeated. 100,000
 * steps. ROOST_LOG_STEPS sets another number,
 * ROOST_LOG_SEED another first seed. */
#include "tests/unit/log_fixture.h"

#define STEPS_PER_DISK 5000
#define SPAN_MS        (40 * DAY_MS) /* times and expiries of records are within */
#define OWN_AGE_MS     (8 * DAY_MS)  /* of conversations that have a rule of their own */

struct walk {
    uint64_t random;
    uint64_t crashes;
    uint64_t segments;
    uint64_t partial; /* range reads that hit a limit */
    uint64_t archives;
    uint64_t cold;
    uint64_t recycled;
    uint64_t gone;
    uint64_t backwards; /* pages */
    uint64_t named;     /* found by id though they are gone */
    struct metrics *metrics;
};

/* ---- what may be gone */

static uint64_t some_time(uint32_t conversation, uint64_t seq)
{
    return WALL_MS - 30 * DAY_MS + rig_hash(conversation + 100, seq) % SPAN_MS;
}

static uint64_t some_expiry(uint32_t conversation, uint64_t seq)
{
    uint64_t hash = rig_hash(conversation + 200, seq);
    return hash % 5 == 0 ? WALL_MS + hash / 5 % SPAN_MS : 0;
}

/* Of five conversations in six, one entry in twenty sets a retention. */
static bool some_setting(uint32_t conversation, uint64_t seq)
{
    return conversation % 6 != 0 && rig_hash(conversation + 300, seq) % 20 == 0;
}

/* newest_setting: of what is acknowledged: it is in force, and nothing may take it. */
static uint64_t newest_setting(uint32_t conversation)
{
    uint64_t seq = rig->acked[conversation];
    while (seq > 0 && !some_setting(conversation, seq))
        seq--;
    return seq;
}

static enum err look(void *session, struct conversation_id conversation,
                     struct retention_rule *rule)
{
    uint32_t c = (uint32_t)conversation.lo - 1000;
    assert_ptr_equal(session, rig);
    *rule = (struct retention_rule){.age_ms = c % 4 == 1 ? OWN_AGE_MS : 0,
                                    .delivered_seq = UINT64_MAX,
                                    .setting_seq = newest_setting(c),
                                    .beyond_seq = c % 4 == 2 ? rig->acked[c] / 2 : 0};
    return OK;
}

/* own: of the rig's ids the first byte is 0. */
static enum err own(void *session, uint8_t first,
                    enum err (*add)(void *list, struct conversation_id conversation), void *list)
{
    (void)session;
    for (uint64_t hi = 0; hi < 2 && first == 0; hi++)
        for (uint32_t c = (uint32_t)hi; c < RIG_CONVERSATIONS; c += 2)
            if (c % 4 == 1 || c % 4 == 2)
                TRY(add(list, (struct conversation_id){hi, 1000 + c}));
    return OK;
}

/* may_go: by any rule that the log has; what has expired goes with the next merge. */
static bool may_go(const struct rig *of, const struct log_record *record)
{
    (void)of;
    const struct retention *retention = &rig->options.retention;
    uint64_t now_ms = io_wall_ms(fault_io());
    uint32_t conversation = (uint32_t)record->conversation.lo - 1000;
    if (record->kind == RECORD_RETENTION && record->seq >= newest_setting(conversation))
        return false;
    if ((conversation % 4 == 1 && record->time_ms + OWN_AGE_MS < now_ms) ||
        (conversation % 4 == 2 && record->seq <= rig->acked[conversation] / 2))
        return true;
    return retention->bytes != 0 || (record->expires_ms != 0 && record->expires_ms <= now_ms) ||
           (retention->age_ms != 0 && record->time_ms + retention->age_ms < now_ms);
}

static uint64_t draw(struct walk *walk, uint64_t below)
{
    walk->random ^= walk->random << 13;
    walk->random ^= walk->random >> 7;
    walk->random ^= walk->random << 17;
    return (walk->random >> 11) % below;
}

static void step_range(struct walk *walk)
{
    uint32_t c = (uint32_t)draw(walk, RIG_CONVERSATIONS);
    uint64_t acked = rig->acked[c]; /* more may become durable meanwhile */
    uint64_t from = draw(walk, acked + 3);
    uint64_t to = draw(walk, 4) == 0 ? UINT64_MAX : from + draw(walk, 40);
    uint32_t records_max = 1 + (uint32_t)draw(walk, 60);
    size_t room = draw(walk, 3) == 0 ? draw(walk, 3000) : RIG_OUT_BYTES;
    struct log_read read = rig_range(rig, c, from, to, records_max, room);
    enum err err = rig_await(rig, &read);
    if (from == 0)
        from = 1;
    if (err == ERR_NOT_FOUND) {
        CHECK(from > acked || to < from);
        return;
    }
    uint64_t count = rig_check(rig, &read, c, from);
    if (err == ERR_EXPIRED) {
        CHECK(read.missing_from == from + count);
        rig_gone(rig, &read, c, may_go);
        return;
    }
    if (err == ERR_FULL) {
        CHECK(count == 0 && read.size_needed > room);
        CHECK(read.size_needed <= RIG_OUT_BYTES);
        return;
    }
    CHECK(err == OK && count > 0 && count <= records_max && from + count - 1 <= to);
    if (count < records_max && from + count <= to && from + count <= acked && room < RIG_OUT_BYTES)
        walk->partial++; /* stopped for want of room: the next record would not fit */
    else
        CHECK(count == records_max || from + count - 1 == to || from + count > acked ||
              read.out.size + 20000 > room);
}

/* step_back: a page backwards is the end of what there is, or of what may be gone. */
static void step_back(struct walk *walk)
{
    uint32_t c = (uint32_t)draw(walk, RIG_CONVERSATIONS);
    uint64_t acked = rig->acked[c];
    uint64_t to = draw(walk, 2) == 0 ? UINT64_MAX : draw(walk, acked + 2);
    uint32_t records_max = 1 + (uint32_t)draw(walk, 60);
    struct log_read read = rig_range(rig, c, 0, to, records_max, RIG_OUT_BYTES);
    read.kind = LOG_READ_BACK;
    enum err err = rig_await(rig, &read);
    if (err == ERR_NOT_FOUND) {
        CHECK(acked == 0 || to == 0 || to > acked);
        return;
    }
    uint64_t count = rig_check(rig, &read, c, read.from_seq);
    uint64_t last = to < acked ? to : acked;
    CHECK(read.from_seq >= 1 && count <= records_max && read.from_seq + records_max > last);
    if (err == ERR_EXPIRED)
        rig_gone(rig, &read, c, may_go);
    else
        CHECK(err == OK && count > 0);
    walk->backwards++;
}

static void step_find(struct walk *walk)
{
    uint32_t c = (uint32_t)draw(walk, RIG_CONVERSATIONS);
    uint64_t seq = 1 + draw(walk, rig->acked[c] + 2);
    uint64_t acked = rig->acked[c]; /* more may become durable meanwhile */
    enum err err = rig_find(rig, c, seq);
    struct log_record record = rig_record(rig, c, seq);
    bool known = record.time_ms + rig->options.retention.repeats_ms > io_wall_ms(fault_io());
    CHECK(err == OK || (err == ERR_NOT_FOUND && seq > acked) || may_go(rig, &record));
    CHECK(err == OK || err == ERR_EXPIRED || (err == ERR_NOT_FOUND && (seq > acked || !known)));
    walk->named += err == ERR_EXPIRED;
}

static void count_entries(struct walk *walk)
{
    const struct log *log = rig->log;
    for (uint32_t i = 0; i < log->segment_count; i++) {
        walk->archives += log->segments[i]->archived;
        walk->cold += log->segments[i]->cold;
    }
}

static void step_reopen(struct walk *walk)
{
    bool crash = draw(walk, 3) != 0;
    count_entries(walk);
    if (draw(walk, 2) == 0)
        fixture_checkpoint();
    if (crash)
        rig_crash(rig, draw(walk, 1000));
    else
        rig_close(rig);
    walk->crashes += crash;
    CHECK(rig_open(rig) == OK);
    CHECK(rig->damaged == 0);
    rig_adopt(rig);
}

static void step(struct walk *walk)
{
    uint64_t what = draw(walk, 1000);
    uint32_t c = (uint32_t)(draw(walk, 4) == 0 ? draw(walk, RIG_CONVERSATIONS) : draw(walk, 5));
    enum err err = OK;
    if (what < 700)
        err = rig_append(rig, c);
    else if (what < 730)
        err = rig_append_watermark(rig, c);
    else if (what < 900)
        rig_turn(rig);
    else if (what < 940)
        step_range(walk);
    else if (what < 960)
        step_back(walk);
    else if (what < 983)
        step_find(walk);
    else if (what < 987)
        fixture_checkpoint();
    else if (what < 990)
        fault_pass(draw(walk, 3 * DAY_MS) * NS_PER_MS);
    else if (what < 991)
        step_reopen(walk);
    else if (what < 995)
        fault.hold = !fault.hold && draw(walk, 2) == 0;
    else
        rig_settle(rig);
    CHECK(err == OK || err == ERR_FULL);
    fault.hold = fault.hold && what < 900; /* reads are awaited */
    if (err == ERR_FULL) {
        fault.hold = false;
        rig_turn(rig);
    }
}

/* settings: of a disk, its log and its rules. */
static void settings(struct walk *walk)
{
    struct log_options *options = &rig->options;
    options->make_rate = draw(walk, 2) * (1 << 20);
    options->spare_segments = (uint32_t)draw(walk, 4);
    options->merge_inputs = draw(walk, 5) == 0 ? 0 : 2 + (uint32_t)draw(walk, 4);
    options->merge_segments = (uint32_t)draw(walk, 4);
    options->merge_rate = draw(walk, 2) * (8 << 20);
    options->archive_bytes_max = draw(walk, 2) == 0 ? 1 << 30 : 256 << 10;
    options->compress = draw(walk, 2) == 0;
    options->scrub_rate = draw(walk, 2) * (1 << 20);
    options->trust_clock = true;
    options->cold_directory = draw(walk, 2) == 0 ? "cold" : NULL;
    options->cold_ms = 2 * DAY_MS;
    options->retention = (struct retention){.age_ms = draw(walk, 2) * 10 * DAY_MS,
                                            .bytes = draw(walk, 4) == 0 ? 1 << 20 : 0,
                                            .expiry_delay_ms = HOUR_MS,
                                            .repeats_ms = draw(walk, 3) * 15 * DAY_MS,
                                            .begin = fixture_begin_looks,
                                            .own_delay_ms = 12 * HOUR_MS,
                                            .look = look,
                                            .own = draw(walk, 2) == 0 ? own : NULL,
                                            .end = fixture_end_looks,
                                            .context = rig};
}

static void disk(struct walk *walk, uint64_t steps)
{
    static const uint64_t sizes[] = {64 << 10, 256 << 10, 1 << 20};
    static const uint64_t lookups[] = {0, 6 << 10, 1 << 20};
    fault_reset();
    rig_init(rig);
    settings(walk);
    rig->merged_replay = true;
    rig->metrics = walk->metrics;
    rig->time = some_time;
    rig->expires = some_expiry;
    rig->setting = some_setting;
    rig->options.segment_bytes = sizes[draw(walk, 3)];
    rig->options.batch_bytes_max = draw(walk, 2) == 0 ? 16 << 10 : 1 << 20;
    rig->options.lookup_bytes = lookups[draw(walk, 3)];
    rig->body_max = draw(walk, 4) == 0 ? 9000 : 300;
    fault.files_max = draw(walk, 2) == 0 ? 1 : 64;
    CHECK(rig_open(rig) == OK);
    for (uint64_t i = 0; i < steps; i++)
        step(walk);
    fault.hold = false;
    rig_settle(rig);
    for (uint32_t c = 0; c < RIG_CONVERSATIONS; c++)
        walk->gone += rig_walk(rig, c, may_go);
    count_entries(walk);
    walk->segments += position_segment(log_durable(rig->log));
    rig_close(rig);
    CHECK(fault_open_descriptors() == 0);
}

static void test_model(void **state)
{
    (void)state;
    const char *steps_text = getenv("ROOST_LOG_STEPS");
    const char *seed_text = getenv("ROOST_LOG_SEED");
    uint64_t steps = steps_text ? strtoull(steps_text, NULL, 10) : 100000;
    uint64_t seed = seed_text ? strtoull(seed_text, NULL, 10) : 1;
    struct walk walk = {0};
    assert_int_equal(metrics_create(&walk.metrics), OK);
    for (uint64_t done = 0; done < steps; done += STEPS_PER_DISK, seed++) {
        walk.random = rig_hash(seed, 0) | 1;
        printf("seed %llu\n", (unsigned long long)seed);
        disk(&walk, STEPS_PER_DISK);
    }
    /* the walk went where it should */
    assert_true(walk.crashes >= steps / 5000);
    assert_true(walk.segments >= steps / 500);
    assert_true(walk.partial > 0 && walk.backwards >= steps / 200);
    walk.recycled = (uint64_t)metrics_sum(&walk.metrics, 1, METRIC_LOG_RECYCLED);
    printf("reopened after crashes %llu, archives %llu, cold %llu, recycled %llu, gone %llu, "
           "%llu found all the same\n",
           (unsigned long long)walk.crashes, (unsigned long long)walk.archives,
           (unsigned long long)walk.cold, (unsigned long long)walk.recycled,
           (unsigned long long)walk.gone, (unsigned long long)walk.named);
    assert_true(walk.archives >= steps / 1000 && walk.recycled >= steps / 5000);
    assert_true(steps < 50000 || (walk.cold >= steps / 20000 && walk.gone > steps / 1000 &&
                                  walk.named > steps / 10000));
}

int main(void)
{
    const struct CMUnitTest tests[] = {FIXTURE_TEST(test_model)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
