/* scenario.h: a story in the simulated world, and the driver that tells it from a seed.
 * Flow:       main → scenario_run: world_create → set_up → turns until done → check → tear_down →
 *             world_destroy
 * Turns:      a round gives every actor one turn, in an order by the seed; then time moves a
 *             little. Where no actor did any work and nothing is ready, time moves to the next
 *             event or the earliest next_ns.
 * Phases:     until faults_ns (by the world's clock since the start) the world is as bad as its
 *             faults say, and crash is called crashes_max times at most, at times by the seed
 *             (safety). Then faults end and no more crashes come: by limit_ns done must be true
 *             (liveness).
 * Failure:    run_fail from anywhere in a scenario: the seed failed; the driver goes on to
 *             tear_down
 *
 * To add one: write scenario_x.c with a struct scenario, declare it below, and list it in main.c.
 */
#ifndef TESTS_SIM_SCENARIO_H
#define TESTS_SIM_SCENARIO_H

#include "tests/sim/world.h"

struct run;

struct actor {
    const char *name;
    void *self;
    size_t (*turn)(void *self); /* one bounded turn; returns whether (how much) work was done */
    uint64_t (*next_ns)(void *self); /* when it wants its next turn without an event; UINT64_MAX:
                                        never. NULL: never */
};

struct scenario {
    const char *name;
    const char *about;    /* one line for --help */
    uint64_t faults_ns;   /* length of the bad phase */
    uint64_t limit_ns;    /* of all */
    uint32_t crashes_max; /* the seed takes 0 … this many */
    /* options: may change the world before it is made; NULL: world_faults_mild. */
    void (*options)(struct world_options *options);
    /* set_up: make run->state, add actors. */
    void (*set_up)(struct run *run);
    /* crash: between two turns: world_kill, tear the killed objects down, run_remove their actors,
     * world_restart, set up again. */
    void (*crash)(struct run *run);
    /* done: nothing is left to happen; asked when no actor did work. NULL: when nothing is due any
     * more. */
    bool (*done)(struct run *run);
    void (*check)(
        struct run *run); /* the oracle's verdict; only where no failure was reported before */
    void (*tear_down)(struct run *run);
};

struct run {
    const struct scenario *scenario;
    struct world *world;
    void *state; /* the scenario's */
    bool calm;   /* the bad phase is over */
    bool failed;
    /* private */
    struct actor *actors;
    size_t actor_count;
    uint64_t start_ns;
    uint64_t crash_ns[16];
    uint32_t crashes;
    uint32_t crashed;
};

void run_add(struct run *run, struct actor actor);
void run_remove(struct run *run, const void *self);
void run_fail(struct run *run, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* RUN_EXPECT: a condition of the scenario's oracle. */
#define RUN_EXPECT(run, x)                                                                         \
    ((x) ? (void)0 : run_fail(run, "%s:%d: expected %s", __FILE__, __LINE__, #x))

struct run_result {
    bool failed;
    uint64_t trace; /* the hash over everything that happened */
    uint64_t trace_count;
    uint64_t simulated_ns;
};

struct run_result scenario_run(const struct scenario *scenario, uint64_t seed, bool verbose);

extern const struct scenario scenario_gateway; /* scenario_gateway.c */
extern const struct scenario scenario_echo;    /* scenario_echo.c */
extern const struct scenario scenario_disk;    /* scenario_disk.c */
extern const struct scenario scenario_catalog; /* scenario_catalog.c */
extern const struct scenario scenario_log;     /* scenario_log.c */

/* self_test: that the world itself keeps its promises; returns how many checks failed. */
size_t self_test(void);

#endif
