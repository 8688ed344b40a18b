/* lifecycle.c: what becomes of sealed segments: merged, dropped, moved. One job at a time, on a
 * DISK worker, in portions with pauses that keep it within its rate; the shard takes the result up.
 * Between portions a job on archives makes way for one that sorts segments (merges them into an
 * archive of level 1), however long it takes itself: segments wait for no more than a portion.
 *
 *   plan (lifecycle_plan.c) → portion, portion … → swap: the new entry stands where the old ones
 *   stood; reads look for their places anew → the old files go when no read uses them
 *
 * A crash at any instant leaves files whose names tell which of them count (listing.c). */
#include "store/lifecycle.h"

#include "core/file.h"
#include "core/logging.h"
#include "core/memory.h"
#include "store/background_read.h"
#include "store/look.h"
#include "store/merge.h"

#include <stdio.h>

#define PORTION_BYTES_MIN (256u << 10)
#define PORTION_BYTES_MAX (8u << 20)
#define RETRY_NS          (10 * NS_PER_S) /* after a failure */
#define FAILURES_MAX      5

enum work_kind { WORK_MERGE, WORK_MOVE, WORK_REMOVE, WORK_KEEP, WORK_LOOK };

struct lifecycle_job {
    struct worker_job job;
    struct log *log;
    enum work_kind kind;
    const struct log_options *options;
    const char *directory;
    enum err err;
    uint64_t budget;
    uint64_t moved;   /* by the portion: read and written */
    uint64_t written; /* of it */
    bool paused;      /* the disk is short of space: nothing was done, it goes on later */
    /* MERGE */
    struct merge *merge;
    uint32_t first_id; /* the entries that it replaces: by the ids of the first and the last */
    uint32_t last_id;
    bool cold;
    bool frees;       /* only numbers are kept */
    bool of_archives; /* MERGE, MOVE */
    struct merge_result result;
    struct archive *archive;
    uint64_t purge_ms; /* rules are applied as of this wall clock; 0: none */
    struct move *move; /* MOVE */
    struct look *look; /* LOOK: into the entry last_id; 0: into none */
    /* REMOVE: up to two files; KEEP: a segment, its sidecar, and what it becomes */
    char paths[2][STORE_PATH_BYTES];
    char spare[STORE_PATH_BYTES];
};

enum err lane_archive_path(const struct log *log, const struct lane_segment *segment,
                           char out[STORE_PATH_BYTES])
{
    const struct archive_header header = {
        .first = segment->first_id, .last = segment->id, .generation = segment->generation};
    char name[ARCHIVE_NAME_BYTES];
    const char *directory = segment->cold ? log->options.cold_directory : log->directory;
    archive_name(name, &header, ".archive");
    int size = snprintf(out, STORE_PATH_BYTES, "%s/%s", directory, name);
    return size > 0 && size < STORE_PATH_BYTES ? OK : ERR_TOO_BIG;
}

/* ---- on the worker */

static enum err merge_portion(struct lifecycle_job *job)
{
    uint64_t space = 0;
    char path[STORE_PATH_BYTES];
    const struct merge_result before = *merge_result(job->merge);
    TRY(file_free_bytes(job->directory, &space));
    job->paused = !job->frees && /* that gives space, and takes little */
                  space < job->options->reserve_bytes + 2 * job->options->segment_bytes;
    if (job->paused)
        return ERR_NO_SPACE;
    enum err err = merge_step(job->merge, job->budget);
    job->result = *merge_result(job->merge);
    job->written = job->result.bytes_written - before.bytes_written;
    job->moved = job->result.bytes_read - before.bytes_read + job->written;
    TRY(err);
    TRY(merge_path(job->merge, path));
    return archive_load(&job->archive, path);
}

static enum err move_portion(struct lifecycle_job *job)
{
    char to[STORE_PATH_BYTES];
    TRY(move_step(job->move, job->budget, &job->moved, to));
    return archive_load(&job->archive, to);
}

static enum err remove_files(struct lifecycle_job *job)
{
    for (size_t i = 0; i < COUNT_OF(job->paths); i++) {
        if (job->paths[i][0] == 0)
            continue;
        enum err err = file_remove(job->paths[i]);
        if (err != OK && err != ERR_NOT_FOUND)
            return err;
    }
    return OK; /* a name that a power cut brings back is removed at the next start */
}

/* keep_file: the segment's name is gone for good before anything is written into it. */
static enum err keep_file(struct lifecycle_job *job)
{
    enum err err = file_remove(job->paths[1]);
    if (err == OK || err == ERR_NOT_FOUND)
        err = file_rename(job->paths[0], job->spare);
    if (err == OK)
        err = file_sync_directory(job->directory);
    if (err == OK)
        return OK;
    (void)!file_remove(job->spare);
    (void)!file_remove(job->paths[0]); /* what is left is removed at the next start */
    return err;
}

static void job_run(struct worker_job *worker_job)
{
    struct lifecycle_job *job = CONTAINER_OF(worker_job, struct lifecycle_job, job);
    job->moved = job->written = 0;
    switch (job->kind) {
    case WORK_MERGE:
        job->err = merge_portion(job);
        if (job->err != ERR_AGAIN && !job->paused) {
            merge_destroy(job->merge);
            job->merge = NULL;
        }
        break;
    case WORK_MOVE:
        job->err = move_portion(job);
        if (job->err != ERR_AGAIN) {
            move_destroy(job->move);
            job->move = NULL;
        }
        break;
    case WORK_REMOVE:
        job->err = remove_files(job);
        break;
    case WORK_KEEP:
        job->err = keep_file(job);
        break;
    case WORK_LOOK:
        job->moved = look_result(job->look)->bytes_read;
        job->err = look_step(job->look, job->budget);
        job->moved = look_result(job->look)->bytes_read - job->moved;
        break;
    }
}

/* ---- the shard takes results up */

static void job_destroy(struct lifecycle_job *job)
{
    if (job == NULL)
        return;
    merge_destroy(job->merge);
    move_destroy(job->move);
    look_destroy(job->look);
    archive_destroy(job->archive);
    memory_give(job, MEMORY_STORE);
}

static void job_end(struct log *log)
{
    job_destroy(log->lifecycle.job);
    log->lifecycle.job = NULL;
}

static uint32_t find(const struct log *log, uint32_t id)
{
    uint32_t i = 0;
    while (i < log->segment_count && log->segments[i]->id != id)
        i++;
    CHECK(i < log->segment_count); /* what is being merged stays */
    return i;
}

/* take_out: entries lo … hi leave the array; `by` takes their place, or nothing does. */
static void take_out(struct log *log, uint32_t lo, uint32_t hi, struct lane_segment *by)
{
    for (uint32_t i = lo; i <= hi; i++) {
        log->segments[i]->retired_next = log->lifecycle.retired;
        log->lifecycle.retired = log->segments[i];
    }
    uint32_t at = lo;
    if (by != NULL)
        log->segments[at++] = by;
    uint32_t gone = hi + 1 - at;
    memmove(log->segments + at, log->segments + hi + 1,
            (log->segment_count - hi - 1) * sizeof *log->segments);
    log->segment_count -= gone;
    CHECK(log->active > hi);
    log->active -= gone;
    reader_restart(log);
}

void lifecycle_measure(struct log *log)
{
    if (log->metrics == NULL)
        return;
    uint32_t archives = 0;
    for (uint32_t i = 0; i < log->segment_count; i++)
        archives += log->segments[i]->archived;
    metric_set(log->metrics, METRIC_LOG_SEGMENTS, log->segment_count - archives);
    metric_set(log->metrics, METRIC_LOG_ARCHIVES, archives);
    metric_set(log->metrics, METRIC_LOG_BYTES, (int64_t)lifecycle_bytes(log));
    metric_set(log->metrics, METRIC_LOG_NAMED, (int64_t)lifecycle_named(log));
    metric_set(log->metrics, METRIC_MERGE_WAITING, lifecycle_waiting(log));
}

static void swap_in(struct log *log, struct lifecycle_job *job)
{
    uint32_t lo = find(log, job->first_id);
    uint32_t hi = find(log, job->last_id);
    struct lane_segment *made = memory_take_zeroed(sizeof *made, MEMORY_STORE);
    if (made == NULL)
        return; /* the next start finds the archive; until then the old files serve */
    const struct archive_header *header = &job->archive->header;
    *made = (struct lane_segment){.id = header->last,
                                  .first_id = header->first,
                                  .state = SEGMENT_SEALED,
                                  .archived = true,
                                  .cold = job->cold,
                                  .level = header->level,
                                  .generation = header->generation,
                                  .data_end = header->data_end,
                                  .footer = job->archive->footer,
                                  .archive = job->archive,
                                  .expires_min_ms = job->archive->footer.expires_min_ms,
                                  .expiry_known = true,
                                  .rewritten_ms = io_wall_ms(log->io),
                                  .looked_ms = job->purge_ms,
                                  .used = ++log->clock,
                                  .write_fd = -1,
                                  .read_fd = -1};
    job->archive = NULL;
    log_event(LOG_INFO, job->kind == WORK_MOVE ? "log_moved" : "log_merged",
              LOG_U64("first", made->first_id), LOG_U64("last", made->id),
              LOG_U64("level", made->level), LOG_U64("inputs", hi + 1 - lo),
              LOG_U64("records", made->footer.records), LOG_U64("bytes", made->footer.bytes),
              LOG_U64("expired", job->result.expired),
              LOG_U64("retained_away", job->result.retained_away),
              LOG_U64("damaged", job->result.damaged), LOG_END);
    lane_count(log, job->kind == WORK_MOVE ? METRIC_MOVED_COLD : METRIC_MERGE_INPUTS, hi + 1 - lo);
    lane_count(log, METRIC_LOG_CORRUPT, job->result.damaged);
    lane_count(log, METRIC_RECORDS_EXPIRED, job->result.expired);
    lane_count(log, METRIC_RECORDS_RETAINED_AWAY, job->result.retained_away);
    if (job->result.dropped_ms > log->dropped_ms)
        log->dropped_ms = job->result.dropped_ms;
    take_out(log, lo, hi, made);
    lane_evict(log);
    (void)!lane_load(log, made); /* it is: its look-up is made */
}

/* merge_failed: nothing has changed. What will fail again, or has failed too often, is left as it
 * is until the next start. */
static void merge_failed(struct log *log, const struct lifecycle_job *job)
{
    log_event(LOG_ERROR, job->kind == WORK_MOVE ? "log_not_moved" : "log_not_merged",
              LOG_U64("first", job->first_id), LOG_U64("last", job->last_id), LOG_ERR(job->err),
              LOG_END);
    bool final = job->err == ERR_CORRUPT || job->err == ERR_NEWER || job->err == ERR_NOT_FOUND;
    for (uint32_t i = 0; i < log->segment_count; i++) {
        struct lane_segment *segment = log->segments[i];
        bool bad = job->result.bad_segment != 0
                       ? segment->id == job->result.bad_segment
                       : segment->id >= job->first_id && segment->id <= job->last_id;
        segment->merge_failures += bad && job->err == ERR_IO;
        segment->unmergeable =
            segment->unmergeable || (bad && (final || segment->merge_failures >= FAILURES_MAX));
    }
    log->lifecycle.due_ns = io_now_ns(log->io) + RETRY_NS;
}

/* pace: the next portion, or job, begins when the rate allows. */
static void pace(struct log *log, const struct lifecycle_job *job)
{
    if (log->options.merge_rate != 0)
        log->lifecycle.due_ns = io_now_ns(log->io) + (uint64_t)((double)job->moved * 1e9 /
                                                                (double)log->options.merge_rate);
}

/* on_look: what cannot be looked into is tried again as late as what was. */
static void on_look(struct log *log, struct lifecycle_job *job)
{
    pace(log, job);
    if (job->err == ERR_AGAIN)
        return;
    if (job->last_id != 0) {
        struct lane_segment *segment = log->segments[find(log, job->last_id)];
        segment->looked_ms = job->purge_ms;
        segment->own_due = job->err == OK && look_result(job->look)->due;
    } else {
        log->lifecycle.asked_ms = job->purge_ms;
    }
    if (job->err == OK)
        log->lifecycle.own_any = look_result(job->look)->any;
    else
        log_event(LOG_WARN, "log_not_looked_into", LOG_U64("last", job->last_id), LOG_ERR(job->err),
                  LOG_END);
    job_end(log);
}

static void on_merge(struct log *log, struct lifecycle_job *job)
{
    struct lifecycle *life = &log->lifecycle;
    if (job->paused != life->no_space)
        log_event(LOG_WARN, job->paused ? "merge_paused" : "merge_resumed", LOG_ERR(job->err),
                  LOG_END);
    life->no_space = job->paused;
    lane_count(log, METRIC_MERGE_BYTES, job->moved);
    lane_count(log, METRIC_MERGE_WRITTEN_BYTES, job->written);
    pace(log, job);
    if (job->err == ERR_AGAIN)
        return;
    if (job->paused) {
        life->due_ns = io_now_ns(log->io) + RETRY_NS;
        return;
    }
    if (job->err == OK)
        swap_in(log, job);
    else
        merge_failed(log, job);
    job_end(log);
}

static void job_done(struct worker_job *worker_job, void *shard)
{
    (void)shard;
    struct lifecycle_job *job = CONTAINER_OF(worker_job, struct lifecycle_job, job);
    struct log *log = job->log;
    log->jobs--;
    log->lifecycle.running = false;
    switch (job->kind) {
    case WORK_MERGE:
    case WORK_MOVE:
        on_merge(log, job);
        break;
    case WORK_LOOK:
        on_look(log, job);
        break;
    case WORK_REMOVE:
    case WORK_KEEP:
        if (job->err == OK && job->kind == WORK_KEEP)
            lane_spare_add(log, job->last_id);
        if (job->err != OK)
            log_event(LOG_WARN, "log_file_not_removed", LOG_TEXT("file", job->paths[0]),
                      LOG_ERR(job->err), LOG_END);
        job_end(log);
        break;
    }
    lifecycle_measure(log);
    reader_wake(log);
}

/* ---- the shard starts jobs */

static void submit(struct log *log)
{
    struct lifecycle *life = &log->lifecycle;
    uint64_t portion =
        log->options.merge_rate == 0 ? PORTION_BYTES_MAX : log->options.merge_rate / 4;
    portion = portion < PORTION_BYTES_MIN ? PORTION_BYTES_MIN : portion;
    life->job->budget = portion > PORTION_BYTES_MAX ? PORTION_BYTES_MAX : portion;
    if (worker_submit(log->workers, &life->job->job, WORKER_DISK, log->options.shard) != OK)
        return; /* queue full: the next turn tries again */
    log->jobs++;
    life->running = true;
}

static struct lifecycle_job *job_make(struct log *log, enum work_kind kind)
{
    struct lifecycle_job *job = memory_take_zeroed(sizeof *job, MEMORY_STORE);
    if (job == NULL)
        return NULL;
    job->job.run = job_run;
    job->job.done = job_done;
    job->log = log;
    job->kind = kind;
    job->options = &log->options;
    job->directory = log->directory;
    return job;
}

/* removal: of the first retired one that nobody reads any more; or it is kept as a spare. */
static bool start_removal(struct log *log)
{
    struct lane_segment **at = &log->lifecycle.retired;
    while (*at != NULL && ((*at)->users > 0 || (*at)->busy || (*at)->scrubbing))
        at = &(*at)->retired_next;
    struct lane_segment *segment = *at;
    struct lifecycle_job *job = segment == NULL ? NULL : job_make(log, WORK_REMOVE);
    if (job == NULL)
        return false;
    enum err err;
    if (segment->archived) {
        err = lane_archive_path(log, segment, job->paths[0]);
    } else {
        err = store_path(job->paths[0], log->directory, segment->id, ".segment");
        if (err == OK)
            err = store_path(job->paths[1], log->directory, segment->id, ".index");
        if (err == OK)
            err = store_path(job->spare, log->directory, segment->id, ".spare");
        job->last_id = segment->id;
        job->kind = lane_spare_room(log) ? WORK_KEEP : WORK_REMOVE;
    }
    CHECK(err == OK); /* it was opened by that path */
    *at = segment->retired_next;
    lane_segment_destroy(segment);
    log->lifecycle.job = job;
    return true;
}

static void output_header(struct log *log, struct archive_header *header,
                          const struct lifecycle_plan *plan)
{
    const struct lane_segment *first = log->segments[plan->lo];
    uint32_t level = 0;
    for (uint32_t i = plan->lo; i <= plan->hi; i++)
        if (log->segments[i]->level > level)
            level = log->segments[i]->level;
    bool anew = plan->lo == plan->hi && first->archived;
    *header = (struct archive_header){.lane = log->options.lane,
                                      .first = first->first_id,
                                      .last = log->segments[plan->hi]->id,
                                      .level = anew || plan->free ? level : level + 1,
                                      .generation = anew ? first->generation + 1 : 0,
                                      .data_end = log->segments[plan->hi]->data_end,
                                      .created_ms = io_wall_ms(log->io)};
    io_entropy(log->io, &header->nonce, sizeof header->nonce);
}

static enum err start_merge(struct log *log, const struct lifecycle_plan *plan, uint64_t now_ms)
{
    uint32_t count = plan->hi + 1 - plan->lo;
    bool cold = log->segments[plan->lo]->cold;
    const char *target = cold ? log->options.cold_directory : log->directory;
    struct merge_options options = {.directory = log->directory,
                                    .compress = log->options.compress,
                                    .now_ms = now_ms,
                                    .drop_all = plan->drop_all,
                                    .retention = log->options.retention};
    output_header(log, &options.header, plan);
    memcpy(options.target, target, strlen(target) + 1);
    struct merge_input *inputs = memory_take_zeroed(count * sizeof *inputs, MEMORY_STORE);
    struct lifecycle_job *job = inputs == NULL ? NULL : job_make(log, WORK_MERGE);
    enum err err = job == NULL ? ERR_NO_MEMORY : OK;
    for (uint32_t i = 0; i < count && err == OK; i++) {
        struct lane_segment *segment = log->segments[plan->lo + i];
        segment->rewritten_ms = now_ms;
        inputs[i].id = segment->id;
        inputs[i].archived = segment->archived;
        inputs[i].freed = plan->free && segment->footer.settings == 0;
        if (segment->archived)
            err = lane_archive_path(log, segment, inputs[i].path);
    }
    if (err == OK)
        err = merge_create(&job->merge, &options, inputs, count);
    memory_give(inputs, MEMORY_STORE);
    if (err != OK) {
        job_destroy(job);
        return err;
    }
    job->cold = cold;
    job->frees = plan->free;
    job->purge_ms = now_ms;
    job->of_archives = log->segments[plan->lo]->archived;
    job->first_id = log->segments[plan->lo]->id;
    job->last_id = log->segments[plan->hi]->id;
    log->lifecycle.job = job;
    return OK;
}

static enum err start_look(struct log *log, const struct lifecycle_plan *plan, uint64_t now_ms)
{
    const struct lane_segment *segment = log->segments[plan->lo];
    struct merge_input input = {.id = segment->id, .archived = segment->archived};
    if (segment->archived)
        TRY(lane_archive_path(log, segment, input.path));
    struct lifecycle_job *job = job_make(log, WORK_LOOK);
    if (job == NULL)
        return ERR_NO_MEMORY;
    bool ask = plan->lo == log->active;
    enum err err = look_create(&job->look, log->directory, ask ? NULL : &input,
                               &log->options.retention, now_ms);
    if (err != OK) {
        job_destroy(job);
        return err;
    }
    job->purge_ms = now_ms;
    job->last_id = ask ? 0 : segment->id;
    log->lifecycle.job = job;
    return OK;
}

static enum err start_move(struct log *log, const struct lifecycle_plan *plan)
{
    struct lane_segment *segment = log->segments[plan->lo];
    const struct archive_header name = {
        .first = segment->first_id, .last = segment->id, .generation = segment->generation};
    char from[STORE_PATH_BYTES];
    TRY(lane_archive_path(log, segment, from));
    struct lifecycle_job *job = job_make(log, WORK_MOVE);
    if (job == NULL)
        return ERR_NO_MEMORY;
    enum err err = move_create(&job->move, from, log->options.cold_directory, &name);
    if (err != OK) {
        job_destroy(job);
        return err;
    }
    job->cold = job->of_archives = true;
    job->first_id = job->last_id = segment->id;
    log->lifecycle.job = job;
    return OK;
}

/* roll: something in the active segment is due, or may be, or it is old: it ends, so that it can be
 * merged. What is in flight to it is no hindrance: it is sealed when that is durable. */
static void roll(struct log *log)
{
    if (log->gather.size == 0 && log->gather.offset > SEGMENT_DATA_OFFSET &&
        log->state == LOG_OPEN && lane_next_ready(log) != NULL)
        lane_roll(log);
}

static void begin(struct log *log, uint64_t now_ms)
{
    struct lifecycle_plan plan;
    if (!lifecycle_plan(log, &plan, now_ms))
        return;
    enum err err = OK;
    switch (plan.kind) {
    case LIFECYCLE_MERGE:
        err = start_merge(log, &plan, now_ms);
        break;
    case LIFECYCLE_MOVE:
        err = start_move(log, &plan);
        break;
    case LIFECYCLE_LOAD:
        err = lane_load(log, log->segments[plan.lo]);
        break;
    case LIFECYCLE_ROLL:
        roll(log);
        break;
    case LIFECYCLE_LOOK:
        err = start_look(log, &plan, now_ms);
        break;
    }
    if (err != OK && err != ERR_AGAIN)
        log->lifecycle.due_ns = io_now_ns(log->io) + RETRY_NS;
}

/* sort: segments are sorted first, whatever else is under way. */
static void sort(struct log *log)
{
    struct lifecycle *life = &log->lifecycle;
    struct lifecycle_job *parked = life->job;
    struct lifecycle_plan plan;
    if (!parked->of_archives || parked->frees || life->parked != NULL ||
        !lifecycle_plan_sort(log, &plan))
        return;
    MARK("merge_parked");
    if (start_merge(log, &plan, lifecycle_purge_ms(log)) == OK)
        life->parked = parked;
}

/* next: what is due when nothing is under way. */
static void next(struct log *log)
{
    struct lifecycle *life = &log->lifecycle;
    if (start_removal(log))
        return;
    if (life->parked == NULL) {
        begin(log, lifecycle_purge_ms(log));
        return;
    }
    life->job = life->parked;
    life->parked = NULL;
}

void lifecycle_turn(struct log *log)
{
    struct lifecycle *life = &log->lifecycle;
    if (log->closing || log->state == LOG_FAILED)
        return;
    lifecycle_scrub_turn(log);
    if (log->segments[log->active]->id <= life->old_id)
        roll(log); /* lifecycle_plan.c; no job's end is waited for */
    if (life->running)
        return;
    if (io_now_ns(log->io) < life->due_ns)
        return;
    if (life->job == NULL)
        next(log);
    if (life->job != NULL)
        sort(log);
    if (life->job != NULL)
        submit(log);
}

void lifecycle_close(struct log *log)
{
    job_end(log);
    job_destroy(log->lifecycle.parked);
    log->lifecycle.parked = NULL;
    lifecycle_scrub_close(log);
    while (log->lifecycle.retired != NULL) {
        struct lane_segment *segment = log->lifecycle.retired;
        log->lifecycle.retired = segment->retired_next;
        lane_segment_destroy(segment); /* its files are removed at the next start */
    }
}
