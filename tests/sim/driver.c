/* driver.c: gives the actors of a scenario their turns and moves the world's time; see scenario.h.
 */
#include "tests/sim/scenario.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define TURN_NS_MAX 20000 /* that a round of turns takes */

void run_add(struct run *run, struct actor actor)
{
    run->actors = world_resize(run->actors, run->actor_count + 1, sizeof *run->actors);
    run->actors[run->actor_count++] = actor;
}

void run_remove(struct run *run, const void *self)
{
    size_t kept = 0;
    for (size_t i = 0; i < run->actor_count; i++)
        if (run->actors[i].self != self)
            run->actors[kept++] = run->actors[i];
    run->actor_count = kept;
}

void run_fail(struct run *run, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "%s, seed %" PRIu64 ", after %.6f s: ", run->scenario->name,
            run->world->options.seed, (double)(run->world->now_ns - run->start_ns) / 1e9);
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    va_end(arguments);
    run->failed = true;
}

/* The actors' order of this round: Fisher and Yates. */
static void shuffle(struct run *run)
{
    for (size_t i = run->actor_count; i > 1; i--) {
        size_t j = (size_t)world_below(run->world, i);
        struct actor t = run->actors[i - 1];
        run->actors[i - 1] = run->actors[j];
        run->actors[j] = t;
    }
}

static size_t round_of_turns(struct run *run)
{
    size_t work = 0;
    shuffle(run);
    for (size_t i = 0; i < run->actor_count && !run->failed; i++) {
        run->world->turn++;
        work += run->actors[i].turn(run->actors[i].self);
    }
    return work;
}

static uint64_t next_due(const struct run *run)
{
    uint64_t next = world_next_ns(run->world);
    for (size_t i = 0; i < run->actor_count; i++) {
        const struct actor *actor = &run->actors[i];
        uint64_t due = actor->next_ns ? actor->next_ns(actor->self) : UINT64_MAX;
        next = due < next ? due : next;
    }
    return next;
}

static void calm_down(struct run *run)
{
    struct world_faults *faults = &run->world->options.faults;
    struct world_faults calm = {.latency_ns_max = faults->latency_ns_max,
                                .disk_ns_max = faults->disk_ns_max,
                                .worker_ns_max = faults->worker_ns_max,
                                .partial = faults->partial};
    *faults = calm;
    run->calm = true;
    world_trace(run->world, "calm", 0, 0, bytes_of(NULL, 0));
}

static int earlier(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void plan_crashes(struct run *run)
{
    const struct scenario *scenario = run->scenario;
    CHECK(scenario->crashes_max <= COUNT_OF(run->crash_ns));
    if (scenario->crashes_max == 0)
        return;
    run->crashes = (uint32_t)world_below(run->world, scenario->crashes_max + 1);
    for (uint32_t i = 0; i < run->crashes; i++)
        run->crash_ns[i] = run->start_ns + world_below(run->world, scenario->faults_ns);
    qsort(run->crash_ns, run->crashes, sizeof run->crash_ns[0], earlier);
}

/* The next instant at which the driver itself has something to do. */
static uint64_t next_plan(const struct run *run)
{
    uint64_t next = run->start_ns + run->scenario->limit_ns;
    if (!run->calm)
        next = run->start_ns + run->scenario->faults_ns;
    if (run->crashed < run->crashes && run->crash_ns[run->crashed] < next)
        next = run->crash_ns[run->crashed];
    return next;
}

static void follow_plan(struct run *run)
{
    while (run->crashed < run->crashes && run->crash_ns[run->crashed] <= run->world->now_ns) {
        run->crashed++;
        run->scenario->crash(run);
    }
    if (!run->calm && run->world->now_ns >= run->start_ns + run->scenario->faults_ns)
        calm_down(run);
}

/* One round; false: the run is over. */
static bool step(struct run *run)
{
    struct world *world = run->world;
    size_t work = round_of_turns(run);
    work += world_advance(world, world->now_ns + world_below(world, TURN_NS_MAX));
    follow_plan(run);
    if (run->failed)
        return false;
    if (work > 0 || world_awake(world))
        return world->now_ns < run->start_ns + run->scenario->limit_ns;
    uint64_t next = next_due(run);
    bool done = run->scenario->done ? run->scenario->done(run) : next == UINT64_MAX;
    if (done && run->crashed == run->crashes)
        return false;
    uint64_t plan = next_plan(run);
    next = next < plan ? next : plan;
    if (next > world->now_ns)
        (void)world_advance(world, next);
    follow_plan(run);
    return world->now_ns < run->start_ns + run->scenario->limit_ns;
}

static void verdict(struct run *run)
{
    if (run->failed)
        return;
    if (run->scenario->done && !run->scenario->done(run)) {
        run_fail(run, "not done within the limit");
        return;
    }
    run->scenario->check(run);
}

struct run_result scenario_run(const struct scenario *scenario, uint64_t seed, bool verbose)
{
    struct world_options options = {
        .seed = seed, .verbose = verbose, .faults = world_faults_mild(seed)};
    if (scenario->options)
        scenario->options(&options);
    struct run run = {.scenario = scenario, .world = world_create(&options)};
    run.start_ns = run.world->now_ns;
    plan_crashes(&run);
    scenario->set_up(&run);
    while (!run.failed && step(&run))
        ;
    verdict(&run);
    struct run_result result = {.failed = run.failed,
                                .trace = run.world->trace,
                                .trace_count = run.world->trace_count,
                                .simulated_ns = run.world->now_ns - run.start_ns};
    scenario->tear_down(&run);
    world_destroy(run.world);
    free(run.actors);
    return result;
}
