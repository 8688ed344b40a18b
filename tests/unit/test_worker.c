/* test_worker.c: core/worker.h with real threads; the waiting side is a real io. */
#include "core/worker.h"

#include "core/io.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { SHARDS = 3 };

struct test_job {
    struct worker_job job;
    _Atomic bool *gate; /* waits until true */
    _Atomic uint32_t *order;
    uint32_t ran; /* times */
    uint32_t ran_as;
    bool signals_blocked;
};

static void job_run(struct worker_job *job)
{
    struct test_job *test = CONTAINER_OF(job, struct test_job, job);
    sigset_t set;
    while (test->gate != NULL && !atomic_load(test->gate))
        (void)sched_yield();
    (void)pthread_sigmask(SIG_SETMASK, NULL, &set);
    test->signals_blocked = sigismember(&set, SIGTERM) == 1;
    if (test->order != NULL)
        test->ran_as = atomic_fetch_add(test->order, 1);
    test->ran++;
}

static void job_done(struct worker_job *job, void *shard)
{
    (void)job;
    (*(uint32_t *)shard)++;
}

static struct worker_options options_of(uint32_t threads, uint32_t queue_max)
{
    struct worker_options options = {.shards = SHARDS};
    for (uint32_t i = 0; i < WORKER_CLASS_COUNT; i++) {
        options.threads[i] = i == WORKER_CATALOG_WRITE ? 1 : threads;
        options.queue_max[i] = queue_max;
    }
    return options;
}

static struct test_job *jobs_make(uint32_t count)
{
    struct test_job *jobs = calloc(count, sizeof *jobs);
    assert_non_null(jobs);
    for (uint32_t i = 0; i < count; i++) {
        jobs[i].job.run = job_run;
        jobs[i].job.done = job_done;
    }
    return jobs;
}

/* pop: waits for the next finished job of a shard. */
static struct test_job *pop(struct workers *workers, uint32_t shard)
{
    struct worker_job *job = NULL;
    while ((job = worker_completed(workers, shard)) == NULL)
        (void)sched_yield();
    return CONTAINER_OF(job, struct test_job, job);
}

static void test_every_job_comes_back_once(void **state)
{
    (void)state;
    enum { COUNT = 3000 };
    struct io_group *group;
    struct workers *workers;
    const struct worker_options options = options_of(3, COUNT);
    assert_int_equal(io_group_create(&group, SHARDS), OK);
    assert_int_equal(workers_create(&workers, group, &options), OK);
    struct test_job *jobs = jobs_make(COUNT);
    for (uint32_t i = 0; i < COUNT; i++)
        assert_int_equal(worker_submit(workers, &jobs[i].job,
                                       (enum worker_class)(i % WORKER_CLASS_COUNT), i % SHARDS),
                         OK);
    for (uint32_t shard = 0; shard < SHARDS; shard++) {
        uint32_t done = 0;
        for (uint32_t i = 0; i < COUNT / SHARDS; i++) {
            struct test_job *job = pop(workers, shard);
            assert_int_equal((job - jobs) % SHARDS, shard);
            assert_int_equal(job->ran, 1);
            assert_true(job->signals_blocked);
            job->job.done(&job->job, &done);
            job->ran = 100; /* a second time would show */
        }
        assert_int_equal(done, COUNT / SHARDS);
        assert_null(worker_completed(workers, shard));
    }
    workers_destroy(workers);
    io_group_destroy(group);
    free(jobs);
}

static void test_queue_is_bounded_per_class(void **state)
{
    (void)state;
    struct io_group *group;
    struct workers *workers;
    const struct worker_options options = options_of(1, 4);
    _Atomic bool gate = false;
    assert_int_equal(io_group_create(&group, SHARDS), OK);
    assert_int_equal(workers_create(&workers, group, &options), OK);
    struct test_job *jobs = jobs_make(7);
    jobs[0].gate = &gate;
    assert_int_equal(worker_submit(workers, &jobs[0].job, WORKER_HASH, 0), OK);
    while (worker_queued(workers, WORKER_HASH) != 0) /* the thread has it */
        (void)sched_yield();
    for (int i = 1; i <= 4; i++)
        assert_int_equal(worker_submit(workers, &jobs[i].job, WORKER_HASH, 0), OK);
    assert_int_equal(worker_queued(workers, WORKER_HASH), 4);
    assert_int_equal(worker_submit(workers, &jobs[5].job, WORKER_HASH, 0), ERR_FULL);
    assert_int_equal(worker_pending(workers, 0), 5); /* what was refused is not */
    assert_int_equal(worker_submit(workers, &jobs[6].job, WORKER_DISK, 1), OK); /* another's room */
    assert_int_equal(worker_pending(workers, 1), 1);
    assert_ptr_equal(pop(workers, 1), &jobs[6]);
    assert_int_equal(worker_pending(workers, 1), 0);
    assert_null(worker_completed(workers, 0));
    atomic_store(&gate, true);
    for (int i = 0; i <= 4; i++)
        assert_ptr_equal(pop(workers, 0), &jobs[i]); /* one thread: in order */
    assert_int_equal(worker_pending(workers, 0), 0);
    assert_int_equal(jobs[5].ran, 0);
    workers_destroy(workers);
    io_group_destroy(group);
    free(jobs);
}

struct batches {
    _Atomic bool gate;
    uint32_t calls;
    uint32_t jobs;
    uint32_t largest;
};

static void batch_run(void *context, struct worker_job *first)
{
    struct batches *batches = context;
    uint32_t count = 0;
    while (!atomic_load(&batches->gate))
        (void)sched_yield();
    for (struct worker_job *job = first; job != NULL; job = job->next, count++)
        CONTAINER_OF(job, struct test_job, job)->ran_as = batches->jobs + count;
    batches->calls++;
    batches->jobs += count;
    if (count > batches->largest)
        batches->largest = count;
}

static void test_batch_hook_gets_all_that_waits(void **state)
{
    (void)state;
    struct io_group *group;
    struct workers *workers;
    static struct batches batches;
    struct worker_options options = options_of(1, 100);
    options.batch[WORKER_CATALOG_WRITE] = batch_run;
    options.batch_context[WORKER_CATALOG_WRITE] = &batches;
    assert_int_equal(io_group_create(&group, SHARDS), OK);
    assert_int_equal(workers_create(&workers, group, &options), OK);
    struct test_job *jobs = jobs_make(51);
    assert_int_equal(worker_submit(workers, &jobs[0].job, WORKER_CATALOG_WRITE, 0), OK);
    while (worker_queued(workers, WORKER_CATALOG_WRITE) != 0)
        (void)sched_yield();
    for (uint32_t i = 1; i <= 50; i++)
        assert_int_equal(worker_submit(workers, &jobs[i].job, WORKER_CATALOG_WRITE, i % SHARDS),
                         OK);
    atomic_store(&batches.gate, true);
    for (uint32_t i = 0; i <= 50; i++) {
        struct test_job *job = pop(workers, i % SHARDS);
        assert_ptr_equal(job, &jobs[i]);
        assert_int_equal(job->ran_as, i);
        assert_int_equal(job->ran, 0); /* the hook instead of run */
    }
    workers_destroy(workers);
    assert_int_equal(batches.calls, 2);
    assert_int_equal(batches.largest, 50);
    assert_int_equal(batches.jobs, 51);
    io_group_destroy(group);
    free(jobs);
}

static void test_destroy_runs_what_is_queued(void **state)
{
    (void)state;
    struct io_group *group;
    struct workers *workers;
    const struct worker_options options = options_of(2, 1000);
    assert_int_equal(io_group_create(&group, SHARDS), OK);
    assert_int_equal(workers_create(&workers, group, &options), OK);
    struct test_job *jobs = jobs_make(500);
    for (uint32_t i = 0; i < 500; i++)
        assert_int_equal(worker_submit(workers, &jobs[i].job, WORKER_DISK, 0), OK);
    workers_destroy(workers);
    for (uint32_t i = 0; i < 500; i++)
        assert_int_equal(jobs[i].ran, 1);
    io_group_destroy(group);
    free(jobs);
}

static void test_completion_wakes_the_sleeping_shard(void **state)
{
    (void)state;
    struct io_group *group;
    struct workers *workers;
    struct io *io;
    const struct worker_options options = options_of(2, 10);
    const struct io_options io_options = {.index = 1,
                                          .count = SHARDS,
                                          .connections_max = 8,
                                          .buffers_count = 1,
                                          .buffer_bytes = 64,
                                          .files_max = 1,
                                          .cpu = -1};
    assert_int_equal(io_group_create(&group, SHARDS), OK);
    assert_int_equal(workers_create(&workers, group, &options), OK);
    assert_int_equal(io_create(&io, group, &io_options), OK);
    struct test_job *jobs = jobs_make(300);
    for (uint32_t i = 0; i < 300; i++) {
        struct io_event event;
        assert_int_equal(worker_submit(workers, &jobs[i].job, WORKER_CATALOG_READ, 1), OK);
        struct worker_job *job;
        uint64_t start = io_now_ns(io);
        while ((job = worker_completed(workers, 1)) == NULL) {
            (void)io_poll(io, &event, 1, start + 10 * NS_PER_S);
            assert_true(io_now_ns(io) < start + 10 * NS_PER_S); /* else its wake-up was lost */
        }
        assert_ptr_equal(job, &jobs[i].job);
    }
    io_destroy(io);
    workers_destroy(workers);
    io_group_destroy(group);
    free(jobs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_job_comes_back_once),
        cmocka_unit_test(test_queue_is_bounded_per_class),
        cmocka_unit_test(test_batch_hook_gets_all_that_waits),
        cmocka_unit_test(test_destroy_runs_what_is_queued),
        cmocka_unit_test(test_completion_wakes_the_sleeping_shard),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
