/* test_clock.c: whether the wall clock is believed: to purge by, and to hide by. */
#include "store/clock.h"

#include "core/io.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define NOW    1800000000000ull /* ms */
#define BOOT   (50 * NS_PER_S)
#define MINUTE 60000ull
#define HOUR   (60 * MINUTE)

static struct clock started(uint64_t newest_ms, bool trusted)
{
    struct clock clock;
    clock_init(&clock, BOOT, NOW, newest_ms, trusted);
    return clock;
}

static uint64_t later(uint64_t ms)
{
    return BOOT + ms * NS_PER_MS;
}

static void test_agrees(void **state)
{
    (void)state;
    const uint64_t newest[] = {0, NOW, NOW - 59 * MINUTE, NOW + 59 * MINUTE};
    for (size_t i = 0; i < COUNT_OF(newest); i++) {
        struct clock clock = started(newest[i], false);
        assert_int_equal(clock_purge_ms(&clock, BOOT, NOW), NOW);
        assert_int_equal(clock_hide_ms(&clock, BOOT, NOW), NOW);
        assert_int_equal(clock_purge_ms(&clock, later(30 * HOUR), NOW + 30 * HOUR),
                         NOW + 30 * HOUR);
    }
}

/* It is set by more than an hour while we run: nothing goes, nothing is hidden, until it agrees. */
static void test_jumps(void **state)
{
    (void)state;
    struct clock clock = started(NOW, false);
    const uint64_t right = NOW + HOUR;
    const uint64_t believed[] = {right + 59 * MINUTE, right - 59 * MINUTE, right};
    const uint64_t wrong[] = {right + 61 * MINUTE, right - 61 * MINUTE, right + 1000 * HOUR, 1};
    for (size_t i = 0; i < COUNT_OF(wrong); i++) {
        assert_int_equal(clock_purge_ms(&clock, later(HOUR), wrong[i]), 0);
        assert_int_equal(clock_hide_ms(&clock, later(HOUR), wrong[i]), 0);
    }
    for (size_t i = 0; i < COUNT_OF(believed); i++) {
        assert_int_equal(clock_purge_ms(&clock, later(HOUR), believed[i]), believed[i]);
        assert_int_equal(clock_hide_ms(&clock, later(HOUR), believed[i]), believed[i]);
    }
}

/* The newest record is younger than the clock: it is behind, until it has caught up. */
static void test_behind(void **state)
{
    (void)state;
    struct clock clock = started(NOW + 5 * HOUR, false);
    assert_int_equal(clock_purge_ms(&clock, BOOT, NOW), 0);
    assert_int_equal(clock_hide_ms(&clock, BOOT, NOW), 0);
    assert_int_equal(clock_purge_ms(&clock, later(HOUR), NOW + HOUR), 0);
    assert_int_equal(clock_purge_ms(&clock, later(HOUR), NOW + 6 * HOUR), NOW + 6 * HOUR);
    assert_int_equal(clock_hide_ms(&clock, later(HOUR), NOW + 6 * HOUR), NOW + 6 * HOUR);
}

/* The newest record is old: the box was off, or the clock is ahead: what has expired is not shown,
 * and goes after a day. */
static void test_was_off(void **state)
{
    (void)state;
    struct clock clock = started(NOW - 5 * HOUR, false);
    assert_int_equal(clock_hide_ms(&clock, BOOT, NOW), NOW);
    assert_int_equal(clock_purge_ms(&clock, BOOT, NOW), 0);
    assert_int_equal(clock_purge_ms(&clock, later(23 * HOUR), NOW + 23 * HOUR), 0);
    assert_int_equal(clock_purge_ms(&clock, later(25 * HOUR), NOW + 25 * HOUR), NOW + 25 * HOUR);
}

static void test_trusted(void **state)
{
    (void)state;
    const uint64_t newest[] = {NOW, NOW + 5 * HOUR, NOW - 5 * HOUR};
    for (size_t i = 0; i < COUNT_OF(newest); i++) {
        struct clock clock = started(newest[i], true);
        assert_int_equal(clock_purge_ms(&clock, BOOT, NOW), NOW);
        assert_int_equal(clock_hide_ms(&clock, BOOT, NOW + 100 * HOUR), NOW + 100 * HOUR);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_agrees),  cmocka_unit_test(test_jumps),
        cmocka_unit_test(test_behind),  cmocka_unit_test(test_was_off),
        cmocka_unit_test(test_trusted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
