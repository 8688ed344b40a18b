/* test_log_model.c: random append, turn, read, find, reopen, crash and checkpoint against the rig's
 * model; 100,000 steps. ROOST_LOG_STEPS sets another number, ROOST_LOG_SEED another first seed. */
#include "tests/unit/log_rig.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define STEPS_PER_DISK 5000

struct walk {
    struct rig *rig;
    uint64_t random;
    uint64_t crashes;
    uint64_t segments;
    uint64_t partial; /* range reads that hit a limit */
};

static uint64_t draw(struct walk *walk, uint64_t below)
{
    walk->random ^= walk->random << 13;
    walk->random ^= walk->random >> 7;
    walk->random ^= walk->random << 17;
    return (walk->random >> 11) % below;
}

static void step_range(struct walk *walk)
{
    struct rig *rig = walk->rig;
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

static void step_find(struct walk *walk)
{
    struct rig *rig = walk->rig;
    uint32_t c = (uint32_t)draw(walk, RIG_CONVERSATIONS);
    uint64_t seq = 1 + draw(walk, rig->acked[c] + 2);
    uint64_t acked = rig->acked[c]; /* more may become durable meanwhile */
    enum err err = rig_find(rig, c, seq);
    CHECK(err == OK || (err == ERR_NOT_FOUND && seq > acked));
}

static void step_reopen(struct walk *walk)
{
    struct rig *rig = walk->rig;
    bool crash = draw(walk, 3) != 0;
    uint64_t checkpoint = rig->options.checkpoint;
    if (draw(walk, 2) == 0) {
        /* What a checkpoint includes is what was acknowledged when it named its position. */
        rig_take_completions(rig);
        checkpoint = log_durable(rig->log);
        log_checkpointed(rig->log, checkpoint);
        memcpy(rig->found, rig->acked, sizeof rig->found);
    }
    if (crash)
        rig_crash(rig, draw(walk, 1000));
    else
        rig_close(rig);
    walk->crashes += crash;
    rig->options.checkpoint = checkpoint;
    CHECK(rig_open(rig) == OK);
    CHECK(rig->damaged == 0);
    rig_adopt(rig);
}

static void step(struct walk *walk)
{
    struct rig *rig = walk->rig;
    uint64_t what = draw(walk, 1000);
    uint32_t c = (uint32_t)(draw(walk, 4) == 0 ? draw(walk, RIG_CONVERSATIONS) : draw(walk, 5));
    enum err err = OK;
    if (what < 700)
        err = rig_append(rig, c);
    else if (what < 730)
        err = rig_append_watermark(rig, c);
    else if (what < 900)
        rig_turn(rig);
    else if (what < 960)
        step_range(walk);
    else if (what < 990)
        step_find(walk);
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

static void disk(struct walk *walk, uint64_t steps)
{
    static const uint64_t sizes[] = {64 << 10, 256 << 10, 1 << 20};
    static const uint64_t lookups[] = {0, 6 << 10, 1 << 20};
    struct rig *rig = walk->rig;
    fault_reset();
    rig_init(rig);
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
    rig_read_all(rig);
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
    struct walk walk = {.rig = malloc(sizeof *walk.rig)};
    for (uint64_t done = 0; done < steps; done += STEPS_PER_DISK, seed++) {
        walk.random = rig_hash(seed, 0) | 1;
        printf("seed %llu\n", (unsigned long long)seed);
        disk(&walk, STEPS_PER_DISK);
    }
    /* the walk went where it should */
    assert_true(walk.crashes >= steps / 5000);
    assert_true(walk.segments >= steps / 500);
    assert_true(walk.partial > 0);
    free(walk.rig);
    assert_int_equal(memory_bytes(MEMORY_STORE), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_model)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
