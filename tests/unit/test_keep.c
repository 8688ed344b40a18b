/* test_keep.c: how far a conversation's bound in bytes has moved on (gateway/chat/keep.c). */
#include "gateway/chat/keep.h"

#include "tests/unit/check.h"

#define MESSAGES 3000

static uint64_t sizes[MESSAGES + 1];

static uint64_t behind(uint64_t seq, uint64_t last)
{
    uint64_t bytes = 0;
    for (uint64_t i = seq + 1; i <= last; i++)
        bytes += sizes[i];
    return bytes;
}

static void the_body_comes_back(void **state)
{
    (void)state;
    uint8_t body[KEEP_BODY_BYTES];
    const struct retention_setting setting = {86400, 1ull << 40};
    struct retention_setting back;
    keep_encode(body, &setting);
    assert_int_equal(keep_decode(&back, bytes_of(body, sizeof body)), OK);
    assert_int_equal(back.age_s, 86400);
    assert_int_equal(back.bytes, 1ull << 40);
    assert_int_equal(keep_decode(&back, bytes_of(body, sizeof body - 1)), ERR_CORRUPT);
}

/* Whatever the sizes: what is due is behind the bound, and what is behind it by an eighth and a
 * message is due. */
static void due_to_an_eighth(void **state)
{
    (void)state;
    static const uint64_t bounds[] = {1, 7, 8, 15, 16, 100, 1000, 4096, 100000};
    uint64_t seed = 7;
    for (size_t b = 0; b < COUNT_OF(bounds); b++) {
        struct keep keep = {0};
        uint64_t size_max = 1 + random_below(&seed, 500);
        keep_set(&keep, 1, &(struct retention_setting){.bytes = bounds[b]});
        assert_int_equal(keep_due(&keep), 0);
        sizes[1] = 0;
        for (uint64_t seq = 2; seq <= MESSAGES; seq++) {
            sizes[seq] = random_below(&seed, size_max + 1);
            keep_count(&keep, seq, sizes[seq]);
            uint64_t due = keep_due(&keep);
            if (due != 0)
                assert_true(behind(due, seq) >= bounds[b]);
            if (behind(1, seq) >= bounds[b])
                assert_true(due != 0);
            if (due != 0)
                assert_true(behind(due, seq) <= bounds[b] + bounds[b] / 8 + 1 + 2 * size_max);
        }
    }
}

/* Bounds that change: what is told as due is always behind the one in force. */
static void a_changed_bound_holds(void **state)
{
    (void)state;
    uint64_t seed = 11;
    struct keep keep = {0};
    uint64_t bound = 0;
    uint64_t since = 0;
    for (uint64_t seq = 1; seq <= MESSAGES; seq++) {
        if (random_below(&seed, 20) == 0) {
            if (bound == 0)
                since = seq;
            bound = random_below(&seed, 4) == 0 ? 0 : 1 + random_below(&seed, 5000);
            sizes[seq] = 0;
            keep_set(&keep, seq, &(struct retention_setting){.bytes = bound});
            keep_set(&keep, seq - 1, &(struct retention_setting){.bytes = 1}); /* older: nothing */
            assert_int_equal(keep.setting.bytes, bound);
        } else {
            sizes[seq] = random_below(&seed, 300);
            keep_count(&keep, seq, sizes[seq]);
        }
        uint64_t due = keep_due(&keep);
        assert_true(bound != 0 || due == 0);
        if (due != 0)
            assert_true(due >= since && behind(due, seq) >= bound);
    }
}

/* count_down: what is stored up to the oldest mark, as a lane reads it; some numbers are gone. */
static bool count_down(struct keep *keep, uint64_t *seed)
{
    struct keep_down down;
    if (!keep_down_begin(keep, &down))
        return false;
    for (uint64_t seq = down.below; seq > 0; seq--)
        if (sizes[seq] != 0 || random_below(seed, 4) != 0)
            if (keep_down_count(&down, seq, sizes[seq]))
                break;
    return keep_counted(keep, &down);
}

/* Whatever was there before the bound, and however late it is counted: in the end what is due is
 * what the same bound, had it been there from the beginning, makes due, to an eighth. */
static void what_was_there_before_counts(void **state)
{
    (void)state;
    uint64_t seed = 17;
    for (uint32_t round = 0; round < 400; round++) {
        struct keep keep = {0};
        uint64_t bound = 1 + random_below(&seed, round % 2 == 0 ? 300 : 50000);
        uint64_t before = 1 + random_below(&seed, 300);
        uint64_t size_max = 1 + random_below(&seed, 400);
        uint64_t late = before + random_below(&seed, 100);
        for (uint64_t seq = 1; seq <= 600; seq++) {
            sizes[seq] = seq == before ? 0 : random_below(&seed, size_max + 1);
            if (seq == before)
                keep_set(&keep, seq, &(struct retention_setting){.bytes = bound});
            else if (seq > before)
                keep_count(&keep, seq, sizes[seq]);
            if (seq == late && keep.uncounted)
                assert_true(count_down(&keep, &seed));
            if (seq < late)
                continue;
            uint64_t due = keep_due(&keep);
            assert_false(keep.uncounted);
            assert_true(due == 0 || behind(due, seq) >= bound);
            if (behind(0, seq) > bound + bound / 8 + 1 + 2 * size_max)
                assert_true(due != 0 && behind(due, seq) <= bound + bound / 8 + 1 + 2 * size_max);
        }
    }
}

/* An answer that comes too late changes nothing: another bound is in force, or the oldest mark is
 * another one. A bound that is raised counts again what may be left below. */
static void a_late_count_is_refused(void **state)
{
    (void)state;
    struct keep keep = {0};
    struct keep_down down;
    keep_set(&keep, 50, &(struct retention_setting){.bytes = 800});
    assert_true(keep_down_begin(&keep, &down));
    assert_false(keep_down_count(&down, 49, 60));
    keep_set(&keep, 51, &(struct retention_setting){.bytes = 1600});
    assert_false(keep_counted(&keep, &down));
    assert_true(keep_down_begin(&keep, &down));
    for (uint64_t seq = 52; seq < 80; seq++)
        keep_count(&keep, seq, 100);
    assert_false(keep.uncounted); /* so many came after it */
    assert_false(keep_counted(&keep, &down));
    assert_true(keep_due(&keep) >= 50);
    assert_false(keep_down_begin(&keep, &down));
    keep_set(&keep, 80, &(struct retention_setting){.bytes = 1 << 20});
    assert_true(keep_down_begin(&keep, &down));
    assert_true(down.below < 80);
    assert_false(keep_down_count(&down, 49, 60));
    assert_true(keep_counted(&keep, &down));
    assert_int_equal(keep_due(&keep), 0);
    keep_set(&keep, 81, &(struct retention_setting){.age_s = 5});
    assert_false(keep_down_begin(&keep, &down));
    keep = (struct keep){0};
    keep_set(&keep, 1, &(struct retention_setting){.bytes = 800});
    assert_false(keep_down_begin(&keep, &down)); /* nothing was there */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_body_comes_back),     cmocka_unit_test(due_to_an_eighth),
        cmocka_unit_test(a_changed_bound_holds),   cmocka_unit_test(what_was_there_before_counts),
        cmocka_unit_test(a_late_count_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
