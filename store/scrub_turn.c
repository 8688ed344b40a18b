/* scrub_turn.c: round and round through what is sealed or archived, at scrub_rate, beside merging:
 * one file at a time, in portions on a DISK worker. What is damaged is logged and counted; reads
 * of the conversations concerned say so by themselves. */
#include "store/lifecycle.h"

#include "core/memory.h"
#include "store/background_read.h"

#define PORTION_BYTES_MIN (64u << 10)
#define PORTION_BYTES_MAX (4u << 20)
#define REST_NS           (60 * NS_PER_S) /* between two rounds, and after a failure */

struct scrub_job {
    struct worker_job job;
    struct log *log;
    struct scrub *scrub;
    struct lane_segment *segment; /* scrubbing: it is not removed */
    uint64_t budget;
    uint64_t read;
    uint64_t damaged;
    enum err err;
};

static void scrub_end(struct log *log)
{
    struct scrub_job *job = log->lifecycle.scrub;
    if (job == NULL)
        return;
    job->segment->scrubbing = false;
    scrub_destroy(job->scrub);
    memory_give(job, MEMORY_STORE);
    log->lifecycle.scrub = NULL;
}

static void run(struct worker_job *worker_job)
{
    struct scrub_job *job = CONTAINER_OF(worker_job, struct scrub_job, job);
    job->err = scrub_step(job->scrub, job->budget, &job->read, &job->damaged);
}

static void done(struct worker_job *worker_job, void *shard)
{
    (void)shard;
    struct scrub_job *job = CONTAINER_OF(worker_job, struct scrub_job, job);
    struct log *log = job->log;
    log->jobs--;
    log->lifecycle.scrub_running = false;
    lane_count(log, METRIC_SCRUBBED_BYTES, job->read);
    lane_count(log, METRIC_SCRUB_DAMAGED, job->damaged);
    log->lifecycle.scrub_due_ns =
        io_now_ns(log->io) + job->read * NS_PER_S / log->options.scrub_rate;
    if (job->err != ERR_AGAIN)
        scrub_end(log);
}

/* next: the one behind the last; NULL: the round is through. */
static struct lane_segment *next(const struct log *log)
{
    for (uint32_t i = 0; i < log->active; i++) {
        struct lane_segment *segment = log->segments[i];
        if (segment->id > log->lifecycle.scrub_id && segment->state == SEGMENT_SEALED)
            return segment;
    }
    return NULL;
}

static void begin(struct log *log)
{
    char path[STORE_PATH_BYTES];
    struct lane_segment *segment = next(log);
    log->lifecycle.scrub_due_ns = io_now_ns(log->io) + REST_NS;
    if (segment == NULL) {
        log->lifecycle.scrub_id = 0;
        return;
    }
    log->lifecycle.scrub_id = segment->id;
    enum err err = segment->archived ? lane_archive_path(log, segment, path)
                                     : store_path(path, log->directory, segment->id, ".segment");
    struct scrub_job *job = memory_take_zeroed(sizeof *job, MEMORY_STORE);
    if (err != OK || job == NULL || scrub_create(&job->scrub, path, segment->archived) != OK) {
        memory_give(job, MEMORY_STORE);
        return;
    }
    job->job.run = run;
    job->job.done = done;
    job->log = log;
    job->segment = segment;
    segment->scrubbing = true;
    log->lifecycle.scrub = job;
}

void lifecycle_scrub_turn(struct log *log)
{
    struct lifecycle *life = &log->lifecycle;
    if (log->options.scrub_rate == 0 || life->scrub_running ||
        io_now_ns(log->io) < life->scrub_due_ns)
        return;
    if (life->scrub == NULL)
        begin(log);
    if (life->scrub == NULL)
        return;
    uint64_t portion = log->options.scrub_rate / 4;
    portion = portion < PORTION_BYTES_MIN ? PORTION_BYTES_MIN : portion;
    life->scrub->budget = portion > PORTION_BYTES_MAX ? PORTION_BYTES_MAX : portion;
    if (worker_submit(log->workers, &life->scrub->job, WORKER_DISK, log->options.shard) != OK)
        return;
    log->jobs++;
    life->scrub_running = true;
}

void lifecycle_scrub_close(struct log *log)
{
    scrub_end(log);
}
