/* timer.c: the wheel.
 *
 * Time is counted in ticks of TIMER_TICK_NS since the boot clock's zero. A tick number is read as
 * digits of 6 bits. A timer hangs at the level of the highest digit in which its due tick differs
 * from the current tick, in the slot of its own digit there:
 *
 *     level(timer) = index of the highest digit of (due_tick ^ tick), slot = that digit of due_tick
 *
 * So everything at level n is due before everything at level n + 1, the first occupied slot of the
 * lowest occupied level holds what is next, and the two bit scans that find it are all the search
 * there is: however far the clock jumped, timers_advance visits occupied slots only. When the clock
 * reaches the first tick of a slot at level n > 0, its timers move to lower levels, at most five
 * times in a timer's life. While the clock stays below that tick, the digits above do not change,
 * hence neither does the timer's level.
 *
 * The digits above the top level (2^36 ticks, 17 years) are not looked at: a due tick may lie
 * beyond the turn, then its top digit wraps. Slots are compared by distance from the current digit,
 * which is right because due ticks are clamped to less than one top slot (2^30 ticks, 99 days)
 * ahead. */
#include "core/timer.h"

#define DIGIT_BITS      6
#define AHEAD_TICKS_MAX (49ull * 24 * 3600 * NS_PER_S / TIMER_TICK_NS)

_Static_assert(1 << DIGIT_BITS == TIMER_SLOTS, "a slot per digit");
_Static_assert(AHEAD_TICKS_MAX < 1ull << (DIGIT_BITS * (TIMER_LEVELS - 1)), "less than a top slot");

static void list_init(struct timer *head)
{
    head->next = head;
    head->prev = head;
}

static bool list_empty(const struct timer *head)
{
    return head->next == head;
}

static void list_append(struct timer *head, struct timer *timer)
{
    timer->prev = head->prev;
    timer->next = head;
    head->prev->next = timer;
    head->prev = timer;
}

static void list_unlink(struct timer *timer)
{
    timer->prev->next = timer->next;
    timer->next->prev = timer->prev;
    timer->next = NULL;
    timer->prev = NULL;
}

/* wheel_place: due_tick > tick. */
static void wheel_place(struct timers *timers, struct timer *timer)
{
    uint64_t differing = timer->due_tick ^ timers->tick;
    uint32_t level = (63u - (uint32_t)__builtin_clzll(differing)) / DIGIT_BITS;
    if (level >= TIMER_LEVELS)
        level = TIMER_LEVELS - 1;
    uint32_t slot = (uint32_t)(timer->due_tick >> (level * DIGIT_BITS)) % TIMER_SLOTS;
    list_append(&timers->slots[level][slot], timer);
    timers->occupied[level] |= 1ull << slot;
}

/* wheel_first: the first occupied slot; returns its first tick, UINT64_MAX if the wheel is empty.
 */
static uint64_t wheel_first(const struct timers *timers, uint32_t *out_level, uint32_t *out_slot)
{
    for (uint32_t level = 0; level < TIMER_LEVELS; level++) {
        uint64_t occupied = timers->occupied[level];
        if (occupied == 0)
            continue;
        uint64_t digits = timers->tick >> (level * DIGIT_BITS);
        uint32_t at = (uint32_t)digits % TIMER_SLOTS;
        uint64_t turned = occupied >> at | occupied << (-at % TIMER_SLOTS);
        uint32_t distance = (uint32_t)__builtin_ctzll(turned);
        *out_level = level;
        *out_slot = (at + distance) % TIMER_SLOTS;
        return (digits + distance) << (level * DIGIT_BITS);
    }
    return UINT64_MAX;
}

void timers_init(struct timers *timers, uint64_t now_ns)
{
    for (uint32_t level = 0; level < TIMER_LEVELS; level++) {
        for (uint32_t slot = 0; slot < TIMER_SLOTS; slot++)
            list_init(&timers->slots[level][slot]);
        timers->occupied[level] = 0;
    }
    list_init(&timers->expired);
    timers->tick = now_ns / TIMER_TICK_NS;
    timers->running = 0;
}

void timer_start(struct timers *timers, struct timer *timer, uint64_t due_ns)
{
    timer_stop(timers, timer);
    uint64_t tick = due_ns / TIMER_TICK_NS + (due_ns % TIMER_TICK_NS != 0); /* never early */
    /* What is due already waits for the next tick, so that a timer which restarts itself cannot
     * hold up the loop that pops. */
    if (tick <= timers->tick)
        tick = timers->tick + 1;
    if (tick - timers->tick > AHEAD_TICKS_MAX)
        tick = timers->tick + AHEAD_TICKS_MAX;
    timer->due_tick = tick;
    wheel_place(timers, timer);
    timers->running++;
}

void timer_stop(struct timers *timers, struct timer *timer)
{
    if (!timer_running(timer))
        return;
    struct timer *before = timer->prev;
    list_unlink(timer);
    CHECK(timers->running > 0);
    timers->running--;
    /* the only one left is the list's head, and the head's place is the slot's number */
    if (list_empty(before) && before != &timers->expired) {
        size_t number = (size_t)(before - &timers->slots[0][0]);
        timers->occupied[number / TIMER_SLOTS] &= ~(1ull << number % TIMER_SLOTS);
    }
}

void timers_advance(struct timers *timers, uint64_t now_ns)
{
    uint64_t target = now_ns / TIMER_TICK_NS;
    uint32_t level;
    uint32_t slot;
    uint64_t first;
    while ((first = wheel_first(timers, &level, &slot)) <= target) {
        CHECK(first > timers->tick);
        timers->tick = first;
        timers->occupied[level] &= ~(1ull << slot);
        struct timer *head = &timers->slots[level][slot];
        while (!list_empty(head)) {
            struct timer *timer = head->next;
            list_unlink(timer);
            if (timer->due_tick <= timers->tick)
                list_append(&timers->expired, timer);
            else
                wheel_place(timers, timer);
        }
    }
    if (target > timers->tick)
        timers->tick = target;
}

struct timer *timers_pop(struct timers *timers)
{
    if (list_empty(&timers->expired))
        return NULL;
    struct timer *timer = timers->expired.next;
    timer_stop(timers, timer);
    return timer;
}

uint64_t timers_next_ns(const struct timers *timers)
{
    if (!list_empty(&timers->expired))
        return timers->tick * TIMER_TICK_NS;
    uint32_t level;
    uint32_t slot;
    uint64_t first = wheel_first(timers, &level, &slot);
    return first == UINT64_MAX ? UINT64_MAX : first * TIMER_TICK_NS;
}
