/* sim_worker.c: core/worker.h in the simulated world: a job runs inline, in an event, after a time
 * by the seed; its answer takes another while. A class with several threads answers out of order, a
 * class with a batch hook gets all that was queued when its thread became free. */
#include "core/worker.h"

#include "core/io.h"
#include "tests/sim/net.h"

#include <stdlib.h>

struct job_list {
    struct worker_job *first;
    struct worker_job **last;
};

struct workers {
    struct world *world;
    struct io_group *group;
    struct worker_options options;
    struct job_list queued[WORKER_CLASS_COUNT];
    uint32_t queued_count[WORKER_CLASS_COUNT];
    uint32_t busy[WORKER_CLASS_COUNT]; /* threads */
    struct job_list *done;             /* by shard */
    uint32_t *pending;                 /* by shard: submitted, not popped */
    bool dead;
    struct workers *next;
};

static void list_init(struct job_list *list)
{
    list->first = NULL;
    list->last = &list->first;
}

static void list_push(struct job_list *list, struct worker_job *job)
{
    job->next = NULL;
    *list->last = job;
    list->last = &job->next;
}

static struct worker_job *list_pop(struct job_list *list)
{
    struct worker_job *job = list->first;
    if (!job)
        return NULL;
    list->first = job->next;
    if (!list->first)
        list->last = &list->first;
    job->next = NULL;
    return job;
}

static uint64_t duration(struct world *world)
{
    uint64_t most = world->options.faults.worker_ns_max;
    return world_between(world, 1000, most > 1000 ? most : 1000);
}

static struct worker_job *job_at(uint64_t address)
{
    return (struct worker_job *)(uintptr_t)address;
}

static void answer(struct workers *workers, struct worker_job *job)
{
    list_push(&workers->done[job->shard], job);
    world_trace(workers->world, "job_done", job->shard, job->class, bytes_of(NULL, 0));
    io_wake(workers->group, job->shard);
}

static void fire_answer(struct world *world, void *owner, uint64_t address, uint64_t unused)
{
    (void)world;
    (void)unused;
    struct workers *workers = owner;
    if (!workers->dead)
        answer(workers, job_at(address));
}

static void start(struct workers *workers, enum worker_class class);

/* A thread has finished what begins at address: one job, or a class's whole batch. */
static void fire_finish(struct world *world, void *owner, uint64_t address, uint64_t class)
{
    struct workers *workers = owner;
    if (workers->dead)
        return;
    struct worker_job *first = job_at(address);
    if (workers->options.batch[class])
        workers->options.batch[class](workers->options.batch_context[class], first);
    else
        first->run(first);
    uint64_t delay = world_below(world, 50000); /* of a batch all at once, in order */
    for (struct worker_job *job = first, *next; job; job = next) {
        next = job->next;
        job->next = NULL;
        world_after(world, delay, fire_answer, workers, (uint64_t)(uintptr_t)job, 0);
    }
    workers->busy[class]--;
    start(workers, (enum worker_class) class);
}

static void start(struct workers *workers, enum worker_class class)
{
    struct world *world = workers->world;
    while (workers->busy[class] < workers->options.threads[class] && workers->queued[class].first) {
        struct worker_job *job = workers->queued[class].first;
        if (workers->options.batch[class]) {
            list_init(&workers->queued[class]);
            workers->queued_count[class] = 0;
        } else {
            job = list_pop(&workers->queued[class]);
            workers->queued_count[class]--;
        }
        workers->busy[class]++;
        world_after(world, duration(world), fire_finish, workers, (uint64_t)(uintptr_t)job, class);
    }
}

enum err workers_create(struct workers **out, struct io_group *group,
                        const struct worker_options *options)
{
    struct workers *workers = world_take(1, sizeof *workers);
    workers->world = group->world;
    workers->group = group;
    workers->options = *options;
    workers->done = world_take(options->shards, sizeof *workers->done);
    workers->pending = world_take(options->shards, sizeof *workers->pending);
    for (uint32_t i = 0; i < options->shards; i++)
        list_init(&workers->done[i]);
    for (size_t i = 0; i < WORKER_CLASS_COUNT; i++) {
        CHECK(options->threads[i] > 0 && (!options->batch[i] || options->threads[i] == 1));
        list_init(&workers->queued[i]);
    }
    workers->next = workers->world->workers;
    workers->world->workers = workers;
    *out = workers;
    return OK;
}

static bool unfinished(const struct workers *workers)
{
    uint32_t busy = 0;
    for (size_t i = 0; i < WORKER_CLASS_COUNT; i++)
        busy += workers->busy[i] + workers->queued_count[i];
    return busy > 0;
}

void workers_destroy(struct workers *workers)
{
    while (!workers->dead && unfinished(workers))
        (void)world_advance(workers->world, world_next_ns(workers->world));
    workers->dead = true; /* its books stay until the world's end: events in the queue name it */
}

enum err worker_submit(struct workers *workers, struct worker_job *job, enum worker_class class,
                       uint32_t shard)
{
    CHECK(shard < workers->options.shards);
    if (workers->dead || workers->queued_count[class] >= workers->options.queue_max[class])
        return ERR_FULL;
    job->shard = shard;
    job->class = class;
    list_push(&workers->queued[class], job);
    workers->queued_count[class]++;
    workers->pending[shard]++;
    start(workers, class);
    return OK;
}

struct worker_job *worker_completed(struct workers *workers, uint32_t shard)
{
    CHECK(shard < workers->options.shards);
    struct worker_job *job = workers->dead ? NULL : list_pop(&workers->done[shard]);
    if (job)
        workers->pending[shard]--;
    return job;
}

uint32_t worker_pending(const struct workers *workers, uint32_t shard)
{
    return workers->pending[shard];
}

uint32_t worker_queued(const struct workers *workers, enum worker_class class)
{
    return workers->queued_count[class];
}

void sim_workers_kill(struct world *world)
{
    for (struct workers *workers = world->workers; workers; workers = workers->next)
        workers->dead = true;
}

void sim_workers_forget(struct world *world)
{
    while (world->workers) {
        struct workers *workers = world->workers;
        world->workers = workers->next;
        free(workers->done);
        free(workers->pending);
        free(workers);
    }
}
