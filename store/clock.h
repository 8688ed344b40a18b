/* clock.h: whether the wall clock may be trusted to forget by (DESIGN: purging, expiry and key
 * destruction pause while it disagrees by more than an hour with the newest batch and the time
 * since).
 * Flow:       log_open knows the newest record's time → clock_init → lifecycle_plan.c (what may go
 *             from the disk); gateway/flow/shard.c (what is not shown any more)
 * Owns:       nothing; constant after clock_init, so that any thread may ask
 * Invariants: what may be purged may be hidden: clock_purge_ms ≤ clock_hide_ms
 * Failure:    none: 0 forgets nothing */
#ifndef STORE_CLOCK_H
#define STORE_CLOCK_H

#include "core/bytes.h"

struct clock {
    /* private */
    uint64_t wall_ms;    /* it was this … */
    uint64_t boot_ns;    /* … at this time of the boot clock */
    uint64_t settles_ns; /* of the boot clock: until then it may be ahead; 0: it agreed */
    bool trusted;
};

/* clock_init: now; newest_ms: the newest time in the store, 0: none. trusted: the operator says
 * that the wall clock is right whatever it says. */
void clock_init(struct clock *clock, uint64_t now_ns, uint64_t wall_ms, uint64_t newest_ms,
                bool trusted);
/* clock_expected_ms: what the wall clock should say. */
uint64_t clock_expected_ms(const struct clock *clock, uint64_t now_ns);
/* clock_purge_ms: wall_ms if things may go for good by it, else 0. A day has to pass after a start
 * that found the clock more than an hour ahead of the newest record: the box was off, or the clock
 * is ahead, and only time tells. */
uint64_t clock_purge_ms(const struct clock *clock, uint64_t now_ns, uint64_t wall_ms);
/* clock_hide_ms: wall_ms if what has expired by it is not to be shown, else 0: it jumped, or was
 * behind the newest record and still is. After a start it is believed at once: most often the box
 * was off, and what expired meanwhile must not be shown. */
uint64_t clock_hide_ms(const struct clock *clock, uint64_t now_ns, uint64_t wall_ms);

#endif
