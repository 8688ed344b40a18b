/* worker.h: jobs that may block or burn CPU, off the shards: password hashing, catalog reads and
 * writes, segment making.
 * Flow:       a shard's turn → worker_submit → a worker thread runs it → worker_completed on the
 *             submitting shard
 * Owns:       threads and queues; a job is the caller's memory from submission until it is popped
 *             again
 * Invariants: every submitted job comes back exactly once, to the shard that submitted it
 * Failure:    ERR_FULL: the class's queue is full: refuse or retry by the caller's policy
 * Seam:       core/worker.c (threads) or tests/sim/sim_worker.c (inline, delayed by the seed) */
#ifndef CORE_WORKER_H
#define CORE_WORKER_H

#include "core/err.h"

struct io_group;
struct workers;

enum worker_class {
    WORKER_HASH,          /* password hashing: long, few at a time */
    WORKER_CATALOG_READ,  /* catalog reads, token checks: short */
    WORKER_CATALOG_WRITE, /* one thread: the catalog's writer; batches what is queued */
    WORKER_DISK,          /* making, sealing and indexing segments */
    WORKER_CLASS_COUNT
};

struct worker_job {
    void (*run)(struct worker_job
                    *job); /* on the worker's thread; touches only the job and what it points at */
    void (*done)(struct worker_job *job,
                 void *shard); /* called by the shard that pops it; not by the workers */
    /* private */
    struct worker_job *next;
    uint32_t shard;
    enum worker_class class;
};

/* worker_batch_hook: for a class with one thread: called on it with the list of all jobs queued by
 * now, instead of each job's run; the catalog commits them in one transaction. */
typedef void worker_batch_hook(void *context, struct worker_job *first);

struct worker_options {
    uint32_t shards;
    uint32_t threads[WORKER_CLASS_COUNT];
    uint32_t queue_max[WORKER_CLASS_COUNT];       /* jobs waiting, over all shards */
    worker_batch_hook *batch[WORKER_CLASS_COUNT]; /* NULL: run each */
    void *batch_context[WORKER_CLASS_COUNT];
};

MUST_USE enum err workers_create(struct workers **workers, struct io_group *group,
                                 const struct worker_options *options);
/* workers_destroy: waits for running jobs; every queued one is run first. */
void workers_destroy(struct workers *workers);

MUST_USE enum err worker_submit(struct workers *workers, struct worker_job *job,
                                enum worker_class class, uint32_t shard);
/* worker_completed: the next finished job of this shard, NULL if none. */
struct worker_job *worker_completed(struct workers *workers, uint32_t shard);
/* worker_pending: jobs that this shard has submitted and not popped yet; on the shard's thread. */
uint32_t worker_pending(const struct workers *workers, uint32_t shard);
uint32_t worker_queued(const struct workers *workers, enum worker_class class);

#endif
