/* world.c: clock, chance, event queue and trace of the simulated world. */
#include "tests/sim/world.h"

#include "core/hash.h"
#include "tests/sim/disk.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define BOOT_NS_FIRST (3600 * NS_PER_S) /* a machine that has been up for an hour */
#define WALL_MS_FIRST 1767225600000     /* 2026-01-01 */

struct world *world_current; /* see world.h */

void *world_take(size_t count, size_t size)
{
    void *p = calloc(count > 0 ? count : 1, size);
    CHECK(p != NULL);
    return p;
}

void *world_resize(void *old, size_t count, size_t size)
{
    void *p = reallocarray(old, count > 0 ? count : 1, size);
    CHECK(p != NULL);
    return p;
}

/* splitmix64: one line, and a stream's state is one number. */
static uint64_t mix_next(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

struct world *world_create(const struct world_options *options)
{
    struct world *world = world_take(1, sizeof *world);
    world->options = *options;
    world->now_ns = BOOT_NS_FIRST;
    world->wall_offset_ms = WALL_MS_FIRST - (int64_t)(BOOT_NS_FIRST / NS_PER_MS);
    uint64_t seed = options->seed;
    world->random = mix_next(&seed);
    world->entropy = mix_next(&seed);
    if (world->options.socket_bytes == 0)
        world->options.socket_bytes = (uint32_t)1024 << world_below(world, 7);
    if (world->options.disk_bytes == 0)
        world->options.disk_bytes = (uint64_t)16 << 30;
    world->net = sim_net_create();
    world->disk = disk_create(world);
    world_current = world;
    return world;
}

void world_destroy(struct world *world)
{
    sim_workers_forget(world);
    sim_catalogs_destroy(world);
    sim_net_destroy(world->net);
    disk_destroy(world->disk);
    if (world_current == world)
        world_current = NULL;
    free(world->events);
    free(world);
}

struct world_faults world_faults_mild(uint64_t seed)
{
    uint64_t state = ~seed;
    uint32_t scale = (uint32_t)(mix_next(&state) % 4); /* 0: delays only */
    return (struct world_faults){
        .latency_ns_max = NS_PER_MS << (mix_next(&state) % 6),
        .disk_ns_max = NS_PER_MS << (mix_next(&state) % 6),
        .worker_ns_max = NS_PER_MS << (mix_next(&state) % 6),
        .reset = 300 * scale,
        .silence = 100 * scale,
        .connect_refused = 10000 * scale,
        .partial = 200000,
        .move_full = 30000 * scale,
    };
}

/* ---- time and events */

uint64_t world_wall_ms(const struct world *world)
{
    return (uint64_t)((int64_t)(world->now_ns / NS_PER_MS) + world->wall_offset_ms);
}

void world_step_wall(struct world *world, int64_t ms)
{
    world->wall_offset_ms += ms;
    world_trace(world, "wall_step", (uint64_t)ms, 0, bytes_of(NULL, 0));
}

uint64_t world_next_ns(const struct world *world)
{
    return world->event_count > 0 ? world->events[0].time_ns : UINT64_MAX;
}

static bool before(const struct world_event *a, const struct world_event *b)
{
    return a->time_ns != b->time_ns ? a->time_ns < b->time_ns : a->number < b->number;
}

static void swap(struct world_event *a, struct world_event *b)
{
    struct world_event t = *a;
    *a = *b;
    *b = t;
}

void world_after(struct world *world, uint64_t delay_ns, world_fire *fire, void *owner, uint64_t a,
                 uint64_t b)
{
    if (world->event_count == world->event_capacity) {
        world->event_capacity = world->event_capacity * 2 + 64;
        world->events = world_resize(world->events, world->event_capacity, sizeof *world->events);
    }
    size_t at = world->event_count++;
    struct world_event *events = world->events;
    events[at] =
        (struct world_event){world->now_ns + delay_ns, world->event_number++, fire, owner, a, b};
    for (; at > 0 && before(&events[at], &events[(at - 1) / 2]); at = (at - 1) / 2)
        swap(&events[at], &events[(at - 1) / 2]);
}

static struct world_event pop(struct world *world)
{
    struct world_event *events = world->events;
    struct world_event first = events[0];
    size_t count = --world->event_count;
    events[0] = events[count];
    for (size_t at = 0;;) {
        size_t least = at;
        for (size_t child = 2 * at + 1; child <= 2 * at + 2; child++)
            if (child < count && before(&events[child], &events[least]))
                least = child;
        if (least == at)
            return first;
        swap(&events[at], &events[least]);
        at = least;
    }
}

size_t world_advance(struct world *world, uint64_t time_ns)
{
    size_t fired = 0;
    CHECK(time_ns >= world->now_ns);
    while (world->event_count > 0 && world->events[0].time_ns <= time_ns) {
        struct world_event event = pop(world);
        CHECK(event.time_ns >= world->now_ns);
        world->now_ns = event.time_ns;
        event.fire(world, event.owner, event.a, event.b);
        fired++;
    }
    world->now_ns = time_ns;
    return fired;
}

/* ---- chance */

uint64_t world_random(struct world *world)
{
    return mix_next(&world->random);
}

uint64_t world_below(struct world *world, uint64_t limit)
{
    CHECK(limit > 0);
    return world_random(world) % limit; /* the bias is far below what a test could see */
}

uint64_t world_between(struct world *world, uint64_t low, uint64_t high)
{
    CHECK(low <= high && high - low < UINT64_MAX);
    return low + world_below(world, high - low + 1);
}

bool world_chance(struct world *world, uint32_t per_million)
{
    return world_below(world, 1000000) < per_million;
}

void world_entropy(struct world *world, void *out, size_t size)
{
    uint8_t *at = out;
    while (size > 0) {
        uint64_t v = mix_next(&world->entropy);
        size_t step = size < sizeof v ? size : sizeof v;
        memcpy(at, &v, step);
        at += step;
        size -= step;
    }
}

/* ---- trace */

void world_trace(struct world *world, const char *kind, uint64_t a, uint64_t b, struct bytes data)
{
    uint32_t sum = crc32c(crc32c(0, bytes_of_text(kind)), data);
    uint64_t words[] = {world->now_ns, a, b, (uint64_t)data.size << 32 | sum};
    for (size_t i = 0; i < COUNT_OF(words); i++) {
        uint64_t state = world->trace ^ words[i];
        world->trace = mix_next(&state);
    }
    world->trace_count++;
    if (world->options.verbose)
        printf("%14.6f %-14s %8" PRIu64 " %8" PRIu64 " %6zu B %08x\n",
               (double)(world->now_ns - BOOT_NS_FIRST) / 1e9, kind, a, b, data.size, sum);
}

/* ---- crashes */

void world_kill(struct world *world, struct io_group *group, bool power)
{
    world_trace(world, power ? "power_cut" : "kill", 0, 0, bytes_of(NULL, 0));
    sim_workers_kill(world);
    sim_catalogs_kill(world);
    sim_io_kill(world, group, power);
    disk_kill(world->disk, power);
}

void world_restart(struct world *world)
{
    world_trace(world, "restart", 0, 0, bytes_of(NULL, 0));
    disk_restart(world->disk);
}
