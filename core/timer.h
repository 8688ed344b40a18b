/* timer.h: hierarchical timing wheel; one per shard; timers are embedded in what they time.
 * Owns:       its slots only; never moves in memory after timers_init (its lists point into it)
 * Invariants: a timer fires once, at or up to one tick (8 ms) after its due time, in a later
 *             timers_advance; never early. One started with a due time that has passed fires one
 *             tick after the last timers_advance.
 * Bounds:     start, stop O(1); due times up to 49 days ahead, later ones are clamped */
#ifndef CORE_TIMER_H
#define CORE_TIMER_H

#include "core/err.h"

struct timer {
    /* private */
    struct timer *next;
    struct timer *prev; /* NULL: not running */
    uint64_t due_tick;
};

#define TIMER_TICK_NS (8 * NS_PER_MS)
#define TIMER_LEVELS  6
#define TIMER_SLOTS   64

struct timers {
    /* private */
    struct timer slots[TIMER_LEVELS][TIMER_SLOTS];
    struct timer expired;
    uint64_t tick;
    uint64_t occupied[TIMER_LEVELS];
    size_t running;
};

void timers_init(struct timers *timers, uint64_t now_ns);
/* timer_start: (re)start; a zeroed struct timer is a stopped one. */
void timer_start(struct timers *timers, struct timer *timer, uint64_t due_ns);
void timer_stop(struct timers *timers, struct timer *timer);
static inline bool timer_running(const struct timer *timer)
{
    return timer->prev != NULL;
}
/* timers_advance: move what is due by now_ns to the expired list. */
void timers_advance(struct timers *timers, uint64_t now_ns);
/* timers_pop: the next expired timer, stopped, or NULL. Stopping one that expired but was not
 * popped takes it off. */
struct timer *timers_pop(struct timers *timers);
/* timers_next_ns: when timers_advance next has something to do, for io_poll's deadline: not after
 * the next timer's due time rounded up to the tick, and until then nothing fires; UINT64_MAX if
 * none runs. With expired timers not yet popped: a time that has passed. */
uint64_t timers_next_ns(const struct timers *timers);

#endif
