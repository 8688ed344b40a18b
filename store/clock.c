/* clock.c: see clock.h. */
#include "store/clock.h"

#include "core/io.h"

#define TOLERANCE_MS (3600ull * 1000)
#define SETTLE_NS    (24ull * 3600 * NS_PER_S)

void clock_init(struct clock *clock, uint64_t now_ns, uint64_t wall_ms, uint64_t newest_ms,
                bool trusted)
{
    *clock = (struct clock){.wall_ms = wall_ms, .boot_ns = now_ns, .trusted = trusted};
    if (newest_ms != 0 && newest_ms > wall_ms + TOLERANCE_MS)
        clock->wall_ms = newest_ms; /* behind: wrong until it agrees */
    else if (newest_ms != 0 && newest_ms + TOLERANCE_MS < wall_ms)
        clock->settles_ns = now_ns + SETTLE_NS; /* ahead, or the box was off */
}

uint64_t clock_expected_ms(const struct clock *clock, uint64_t now_ns)
{
    return clock->wall_ms + (now_ns - clock->boot_ns) / NS_PER_MS;
}

uint64_t clock_hide_ms(const struct clock *clock, uint64_t now_ns, uint64_t wall_ms)
{
    uint64_t expected_ms = clock_expected_ms(clock, now_ns);
    bool wrong = wall_ms > expected_ms + TOLERANCE_MS || wall_ms + TOLERANCE_MS < expected_ms;
    return wrong && !clock->trusted ? 0 : wall_ms;
}

uint64_t clock_purge_ms(const struct clock *clock, uint64_t now_ns, uint64_t wall_ms)
{
    if (now_ns < clock->settles_ns && !clock->trusted)
        return 0;
    return clock_hide_ms(clock, now_ns, wall_ms);
}
