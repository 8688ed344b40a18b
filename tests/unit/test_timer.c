/* test_timer.c: the wheel against a plain array of due times, with random starts, stops, restarts
 * and clock jumps, near and far. */
#include "tests/unit/check.h"

#include "core/timer.h"

#include <string.h>

#define TIMERS_MAX 200
#define DAY_NS     (24ull * 3600 * NS_PER_S)

struct model {
    struct timer timer;
    bool running;
    uint64_t due_ns;  /* as asked */
    uint64_t fire_ns; /* the first tick at which it may fire */
};

static uint64_t random_delay(uint64_t *seed)
{
    switch (random_below(seed, 6)) {
    case 0:
        return random_below(seed, 20 * NS_PER_MS);
    case 1:
        return random_below(seed, 2 * NS_PER_S);
    case 2:
        return random_below(seed, 3600 * NS_PER_S);
    case 3:
        return random_below(seed, 49 * DAY_NS);
    case 4:
        return random_below(seed, 64) * TIMER_TICK_NS << 6 * random_below(seed, 4);
    default:
        return random_below(seed, 30) * TIMER_TICK_NS;
    }
}

static uint64_t tick_up(uint64_t ns)
{
    return (ns + TIMER_TICK_NS - 1) / TIMER_TICK_NS * TIMER_TICK_NS;
}

static void model_start(struct timers *timers, struct model *m, uint64_t now, uint64_t due)
{
    m->due_ns = due;
    m->fire_ns = tick_up(due);
    uint64_t next_tick = (now / TIMER_TICK_NS + 1) * TIMER_TICK_NS;
    if (m->fire_ns < next_tick)
        m->fire_ns = next_tick;
    m->running = true;
    timer_start(timers, &m->timer, due);
}

/* pop_due: exactly what is due fires, once, in order of due ticks. */
static void pop_due(struct timers *timers, struct model *models, uint64_t now)
{
    uint64_t fired_last = 0;
    struct timer *timer;
    while ((timer = timers_pop(timers)) != NULL) {
        struct model *m = CONTAINER_OF(timer, struct model, timer);
        assert_true(m->running);
        assert_false(timer_running(timer));
        assert_true(m->fire_ns <= now);
        assert_true(m->due_ns <= now); /* never early */
        assert_true(m->fire_ns >= fired_last);
        fired_last = m->fire_ns;
        m->running = false;
    }
    for (int i = 0; i < TIMERS_MAX; i++)
        assert_true(!models[i].running || models[i].fire_ns > now);
}

static uint64_t first_fire(const struct model *models)
{
    uint64_t first = UINT64_MAX;
    for (int i = 0; i < TIMERS_MAX; i++) {
        if (models[i].running && models[i].fire_ns < first)
            first = models[i].fire_ns;
    }
    return first;
}

static void random_against_model(uint64_t seed, uint64_t start_ns, int steps)
{
    static struct model models[TIMERS_MAX];
    static struct timers timers;
    memset(models, 0, sizeof models);
    uint64_t now = start_ns;
    timers_init(&timers, now);
    for (int step = 0; step < steps; step++) {
        struct model *m = &models[random_below(&seed, TIMERS_MAX)];
        uint64_t kind = random_below(&seed, 10);
        if (kind < 5) {
            bool past = random_below(&seed, 20) == 0;
            uint64_t delay = random_delay(&seed);
            model_start(&timers, m, now, past ? now - (delay < now ? delay : now) : now + delay);
        } else if (kind < 7) {
            timer_stop(&timers, &m->timer);
            m->running = false;
        } else {
            uint64_t next = timers_next_ns(&timers);
            now = kind == 9 && next != UINT64_MAX && next > now ? next
                                                                : now + random_delay(&seed) / 4;
            timers_advance(&timers, now);
            pop_due(&timers, models, now);
        }
        assert_int_equal(timer_running(&m->timer), m->running);
        uint64_t first = first_fire(models);
        uint64_t next = timers_next_ns(&timers);
        assert_true(next <= first);
        assert_int_equal(next == UINT64_MAX, first == UINT64_MAX);
        assert_true(next > now); /* a deadline in the past would spin */
    }
}

static void agrees_with_model(void **state)
{
    (void)state;
    random_against_model(5, 0, 60000);
    random_against_model(6, 123456789012345, 60000);
    /* over the edge of the top level's last digit: 2^36 ticks */
    random_against_model(7, (TIMER_TICK_NS << 36) - 20 * DAY_NS, 60000);
}

static void fires_at_its_tick(void **state)
{
    (void)state;
    static struct timers timers;
    uint64_t start = 1000 * NS_PER_S + 3;
    for (uint64_t delay = 1; delay < 40 * DAY_NS; delay = delay * 3 + 1) {
        timers_init(&timers, start);
        struct timer timer = {0};
        timer_start(&timers, &timer, start + delay);
        uint64_t fire = tick_up(start + delay);
        timers_advance(&timers, fire - 1);
        assert_null(timers_pop(&timers));
        timers_advance(&timers, fire);
        assert_ptr_equal(timers_pop(&timers), &timer);
        assert_null(timers_pop(&timers));
        assert_true(timers_next_ns(&timers) == UINT64_MAX);
    }
}

static void expired_can_be_stopped(void **state)
{
    (void)state;
    static struct timers timers;
    timers_init(&timers, 0);
    struct timer a = {0};
    struct timer b = {0};
    timer_start(&timers, &a, NS_PER_S);
    timer_start(&timers, &b, NS_PER_S);
    timers_advance(&timers, 2 * NS_PER_S);
    assert_true(timers_next_ns(&timers) <= 2 * NS_PER_S);
    timer_stop(&timers, &a);
    assert_ptr_equal(timers_pop(&timers), &b);
    assert_null(timers_pop(&timers));
    timer_start(&timers, &a, 0); /* passed long ago: the next tick, not this one */
    timers_advance(&timers, 2 * NS_PER_S);
    assert_null(timers_pop(&timers));
    timers_advance(&timers, 2 * NS_PER_S + TIMER_TICK_NS);
    assert_ptr_equal(timers_pop(&timers), &a);
}

static void far_ones_are_clamped(void **state)
{
    (void)state;
    static struct timers timers;
    timers_init(&timers, 5 * NS_PER_S);
    struct timer timer = {0};
    timer_start(&timers, &timer, UINT64_MAX);
    timers_advance(&timers, 48 * DAY_NS);
    assert_null(timers_pop(&timers));
    timers_advance(&timers, 49 * DAY_NS + 6 * NS_PER_S);
    assert_ptr_equal(timers_pop(&timers), &timer);
}

static void wheel_sleeps_long(void **state)
{
    (void)state;
    static struct timers timers;
    timers_init(&timers, 0);
    struct timer timer = {0};
    timer_start(&timers, &timer, 40 * DAY_NS);
    int wakes = 0;
    while (timer_running(&timer)) {
        timers_advance(&timers, timers_next_ns(&timers));
        (void)timers_pop(&timers);
        wakes++;
    }
    assert_in_range(wakes, 1, TIMER_LEVELS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_model),      cmocka_unit_test(fires_at_its_tick),
        cmocka_unit_test(expired_can_be_stopped), cmocka_unit_test(far_ones_are_clamped),
        cmocka_unit_test(wheel_sleeps_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
