/* worker.c: a pool of threads per class behind a bounded queue; finished jobs go to a stack per
 * shard, which its shard takes whole and turns round.
 *
 *   worker_submit → class.queue (mutex) → thread: run, or the batch hook on all that is queued →
 *   shard.finished (lock-free, many producers) → io_wake → worker_completed
 *
 * A mutex is right here: every job costs far more than it, and no message passes this way. */
#include "core/worker.h"

#include "core/io.h"
#include "core/memory.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>

#define THREADS_MAX 64u

struct class_queue {
    pthread_mutex_t mutex;
    pthread_cond_t filled;
    struct worker_job *first; /* by mutex */
    struct worker_job **last;
    bool stopping;
    _Atomic uint32_t queued; /* changed under the mutex, read anywhere */
    uint32_t queue_max;
    worker_batch_hook *batch;
    void *batch_context;
    struct workers *workers;
    pthread_t threads[THREADS_MAX];
    uint32_t thread_count;
};

struct shard_jobs {
    _Alignas(64) _Atomic(struct worker_job *) finished; /* newest first */
    struct worker_job *ready;                           /* oldest first; the shard's own */
    uint32_t pending;                                   /* submitted, not popped; its own, too */
};

struct workers {
    struct io_group *group;
    struct class_queue classes[WORKER_CLASS_COUNT];
    uint32_t shards;
    struct shard_jobs *jobs;
};

/* must: these calls fail only when this file is wrong. */
static void must(int result)
{
    CHECK(result == 0);
}

/* ---- the threads' side */

static void job_finish(struct workers *workers, struct worker_job *job)
{
    uint32_t shard = job->shard;
    _Atomic(struct worker_job *) *finished = &workers->jobs[shard].finished;
    struct worker_job *top = atomic_load_explicit(finished, memory_order_relaxed);
    do
        job->next = top;
    while (!atomic_compare_exchange_weak_explicit(finished, &top, job, memory_order_release,
                                                  memory_order_relaxed));
    io_wake(workers->group, shard); /* job may be gone by now */
}

/* queue_take: one job, or with a batch hook all of them as a list; NULL: stopping and empty. */
static struct worker_job *queue_take(struct class_queue *queue)
{
    must(pthread_mutex_lock(&queue->mutex));
    while (queue->first == NULL && !queue->stopping)
        must(pthread_cond_wait(&queue->filled, &queue->mutex));
    struct worker_job *job = queue->first;
    if (job != NULL && queue->batch != NULL) {
        queue->first = NULL;
        atomic_store_explicit(&queue->queued, 0, memory_order_relaxed);
    } else if (job != NULL) {
        queue->first = job->next;
        job->next = NULL;
        atomic_fetch_sub_explicit(&queue->queued, 1, memory_order_relaxed);
    }
    if (queue->first == NULL)
        queue->last = &queue->first;
    must(pthread_mutex_unlock(&queue->mutex));
    return job;
}

static void *thread_main(void *argument)
{
    struct class_queue *queue = argument;
    for (;;) {
        struct worker_job *job = queue_take(queue);
        if (job == NULL)
            return NULL;
        if (queue->batch != NULL)
            queue->batch(queue->batch_context, job);
        else
            job->run(job);
        while (job != NULL) {
            struct worker_job *next = job->next;
            job_finish(queue->workers, job);
            job = next;
        }
    }
}

/* ---- life */

static const char *const class_names[WORKER_CLASS_COUNT] = {
    [WORKER_HASH] = "hash",
    [WORKER_CATALOG_READ] = "catalog-read",
    [WORKER_CATALOG_WRITE] = "catalog-write",
    [WORKER_DISK] = "disk",
};

static enum err threads_start(struct class_queue *queue, uint32_t count, const char *name)
{
    sigset_t all, old;
    (void)sigfillset(&all);
    /* signals are the main thread's */
    must(pthread_sigmask(SIG_SETMASK, &all, &old));
    enum err err = OK;
    for (uint32_t i = 0; i < count && err == OK; i++) {
        if (pthread_create(&queue->threads[i], NULL, thread_main, queue) != 0) {
            err = ERR_NO_MEMORY;
            break;
        }
        queue->thread_count++;
        char text[16];
        (void)snprintf(text, sizeof text, "%.12s-%u", name, i % 100);
        (void)pthread_setname_np(queue->threads[i], text);
    }
    must(pthread_sigmask(SIG_SETMASK, &old, NULL));
    return err;
}

static void class_init(struct workers *workers, enum worker_class class,
                       const struct worker_options *options)
{
    struct class_queue *queue = &workers->classes[class];
    must(pthread_mutex_init(&queue->mutex, NULL));
    must(pthread_cond_init(&queue->filled, NULL));
    queue->last = &queue->first;
    queue->queue_max = options->queue_max[class];
    queue->batch = options->batch[class];
    queue->batch_context = options->batch_context[class];
    queue->workers = workers;
    CHECK(options->threads[class] <= THREADS_MAX);
    CHECK(queue->batch == NULL || options->threads[class] <= 1);
}

enum err workers_create(struct workers **workers, struct io_group *group,
                        const struct worker_options *options)
{
    struct workers *made = memory_take_zeroed(sizeof *made, MEMORY_CORE);
    if (made == NULL)
        return ERR_NO_MEMORY;
    size_t size = options->shards * sizeof *made->jobs;
    made->jobs = memory_take_aligned(size, _Alignof(struct shard_jobs), MEMORY_CORE);
    if (made->jobs == NULL) {
        memory_give(made, MEMORY_CORE);
        return ERR_NO_MEMORY;
    }
    memset(made->jobs, 0, size);
    made->group = group;
    made->shards = options->shards;
    for (uint32_t i = 0; i < WORKER_CLASS_COUNT; i++)
        class_init(made, (enum worker_class)i, options);
    for (uint32_t i = 0; i < WORKER_CLASS_COUNT; i++) {
        enum err err = threads_start(&made->classes[i], options->threads[i], class_names[i]);
        if (err != OK) {
            workers_destroy(made);
            return err;
        }
    }
    *workers = made;
    return OK;
}

void workers_destroy(struct workers *workers)
{
    if (workers == NULL)
        return;
    for (uint32_t i = 0; i < WORKER_CLASS_COUNT; i++) {
        struct class_queue *queue = &workers->classes[i];
        must(pthread_mutex_lock(&queue->mutex));
        queue->stopping = true;
        must(pthread_cond_broadcast(&queue->filled));
        must(pthread_mutex_unlock(&queue->mutex));
    }
    for (uint32_t i = 0; i < WORKER_CLASS_COUNT; i++) {
        struct class_queue *queue = &workers->classes[i];
        for (uint32_t j = 0; j < queue->thread_count; j++)
            must(pthread_join(queue->threads[j], NULL));
        (void)pthread_cond_destroy(&queue->filled);
        (void)pthread_mutex_destroy(&queue->mutex);
    }
    memory_give(workers->jobs, MEMORY_CORE);
    memory_give(workers, MEMORY_CORE);
}

/* ---- the shards' side */

enum err worker_submit(struct workers *workers, struct worker_job *job, enum worker_class class,
                       uint32_t shard)
{
    struct class_queue *queue = &workers->classes[class];
    CHECK(shard < workers->shards && queue->thread_count > 0);
    job->next = NULL;
    job->shard = shard;
    job->class = class;
    must(pthread_mutex_lock(&queue->mutex));
    bool full = atomic_load_explicit(&queue->queued, memory_order_relaxed) >= queue->queue_max;
    if (!full) {
        *queue->last = job;
        queue->last = &job->next;
        atomic_fetch_add_explicit(&queue->queued, 1, memory_order_relaxed);
        must(pthread_cond_signal(&queue->filled));
    }
    must(pthread_mutex_unlock(&queue->mutex));
    if (full)
        return ERR_FULL;
    workers->jobs[shard].pending++;
    return OK;
}

struct worker_job *worker_completed(struct workers *workers, uint32_t shard)
{
    CHECK(shard < workers->shards);
    struct shard_jobs *jobs = &workers->jobs[shard];
    if (jobs->ready == NULL &&
        atomic_load_explicit(&jobs->finished, memory_order_relaxed) != NULL) {
        struct worker_job *job =
            atomic_exchange_explicit(&jobs->finished, NULL, memory_order_acquire);
        while (job != NULL) {
            struct worker_job *older = job->next;
            job->next = jobs->ready;
            jobs->ready = job;
            job = older;
        }
    }
    struct worker_job *first = jobs->ready;
    if (first != NULL) {
        jobs->ready = first->next;
        first->next = NULL;
        jobs->pending--;
    }
    return first;
}

uint32_t worker_pending(const struct workers *workers, uint32_t shard)
{
    return workers->jobs[shard].pending;
}

uint32_t worker_queued(const struct workers *workers, enum worker_class class)
{
    return atomic_load_explicit(&workers->classes[class].queued, memory_order_relaxed);
}
