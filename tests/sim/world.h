/* world.h: the simulated world: one clock, one stream of chance, one queue of what happens later;
 * network, disk, workers and catalog (sim_*.c) hang their events on it. Single-threaded; the same
 * seed gives the same run.
 * Flow:       driver (driver.c) → actors' turns → the seams (core/io.h, core/file.h, …) →
 *             world_after → world_run → the seams' events → io_poll of the next turn
 * Owns:       everything simulated, until world_destroy; plain calloc, not core/memory.h, so that
 *             the injected allocation failures and the memory metrics of the code under test see
 *             only that code
 * Invariants: time never goes back; events of equal time fire in the order of their making; nothing
 *             depends on an address, the real clock or the real machine
 * Failure:    out of memory ends the process */
#ifndef TESTS_SIM_WORLD_H
#define TESTS_SIM_WORLD_H

#include "core/bytes.h"

struct world;
struct io_group;
struct disk;
struct sim_net;

/* One entry of the queue: fire(owner, a, b) at time_ns. Owners live until world_destroy and ignore
 * what came too late. */
typedef void world_fire(struct world *world, void *owner, uint64_t a, uint64_t b);

/* How bad the world is; chances are per million. */
struct world_faults {
    uint64_t latency_ns_max;  /* network, one way: 1 µs … */
    uint64_t disk_ns_max;     /* a write, a sync, a read: each 1 µs … */
    uint64_t worker_ns_max;   /* a job's run, and the way of its answer */
    uint32_t reset;           /* per delivery: the connection breaks */
    uint32_t silence;         /* per delivery: nothing arrives any more, in both directions */
    uint32_t connect_refused; /* per connect */
    uint32_t partial;    /* per receive and per copy to the wire: only a part of what could go */
    uint32_t move_full;  /* per move: the target refuses */
    uint32_t disk_error; /* per write or sync of the disk: ERR_IO */
    uint32_t disk_read_error; /* per read */
    uint32_t memory;          /* per turn of the code under test: one of its first takes fails */
    uint32_t catalog_error;   /* per commit: ERR_IO, sticky as in the real one */
    uint32_t catalog_full;    /* per commit: ERR_NO_SPACE */
};

struct world_options {
    uint64_t seed;
    bool verbose;
    struct world_faults faults;
    uint32_t
        socket_bytes; /* one direction's buffers between two ends; 0: by the seed, 1 … 64 KiB */
    uint64_t disk_bytes; /* space of the one file system; 0: 16 GiB */
    bool disk_direct;    /* FILE_DIRECT works */
};

struct world_event {
    uint64_t time_ns;
    uint64_t number;
    world_fire *fire;
    void *owner;
    uint64_t a;
    uint64_t b;
};

struct world {
    uint64_t now_ns; /* boot clock */
    uint64_t turn;   /* raised by the driver with every turn of an actor */
    int64_t wall_offset_ms;
    struct world_options options;
    struct disk *disk;
    struct sim_net *net;
    /* private */
    uint64_t random;
    uint64_t entropy;
    uint64_t trace;
    uint64_t trace_count;
    struct world_event *events; /* binary heap */
    size_t event_count;
    size_t event_capacity;
    uint64_t event_number;
    struct workers *workers; /* all that were made, linked */
    struct catalog_store *catalogs;
};

/* The world that core/file.h, catalog_open, io_group_create and workers_create act on: their
 * signatures have no argument that could lead to it. Set by world_create, or by hand where several
 * worlds take turns. The one exception in tests/sim to STYLE 7, with marks.c's counters. */
extern struct world *world_current;

struct world *world_create(const struct world_options *options);
void world_destroy(struct world *world);
/* world_faults_mild: everything possible, rarely; scaled by the seed, so that some seeds are calm.
 */
struct world_faults world_faults_mild(uint64_t seed);

/* ---- time */
uint64_t world_wall_ms(const struct world *world);
void world_step_wall(struct world *world, int64_t ms);
/* world_next_ns: when the next event is due; UINT64_MAX: none. */
uint64_t world_next_ns(const struct world *world);
/* world_advance: go to time_ns, firing all that is due until then in order; returns how many fired.
 */
size_t world_advance(struct world *world, uint64_t time_ns);
void world_after(struct world *world, uint64_t delay_ns, world_fire *fire, void *owner, uint64_t a,
                 uint64_t b);

/* ---- chance */
uint64_t world_random(struct world *world);
uint64_t world_below(struct world *world, uint64_t limit); /* 0 … limit - 1; limit > 0 */
uint64_t world_between(struct world *world, uint64_t low, uint64_t high); /* both included */
bool world_chance(struct world *world, uint32_t per_million);
/* world_entropy: what io_entropy hands out: a stream of its own. */
void world_entropy(struct world *world, void *out, size_t size);

/* ---- the trace: a running hash over everything that happens; --verbose prints it */
void world_trace(struct world *world, const char *kind, uint64_t a, uint64_t b, struct bytes data);

/* world_take: zeroed memory for the world's own books. */
void *world_take(size_t count, size_t size);
void *world_resize(void *old, size_t count, size_t size);

/* ---- crashes
 * world_kill: the process whose ios are in `group` is gone: its connections break, its descriptors,
 * locks and jobs are gone, what it wrote is in the page cache. Call it before anything of the
 * process is freed. power: the page cache is lost too (disk_crash). What the dead process's objects
 * still ask for has no effect, so they may be destroyed as usual; the disk answers ERR_IO until
 * world_restart. Only one process of a world may use files, workers and catalogs. */
void world_kill(struct world *world, struct io_group *group, bool power);
void world_restart(struct world *world);

/* What the parts give the world (sim_*.c): */
struct sim_net *sim_net_create(void);
void sim_net_destroy(struct sim_net *net);
void sim_io_kill(struct world *world, struct io_group *group, bool power);
void sim_workers_kill(struct world *world);
void sim_workers_forget(struct world *world);
void sim_catalogs_kill(struct world *world);
void sim_catalogs_destroy(struct world *world);
/* world_awake: some io has completions or a wake-up that no io_poll has taken. */
bool world_awake(const struct world *world);

#endif
