/* background.c: what happens to segments beside the appending: a lane's turn starts a job, a worker
 * runs it over core/file.h, the shard takes the result up in job_done. A job touches its own
 * fields, constant options, and (sealing) the index of a segment that nobody changes any more.
 *
 *   seal  index → "<id>.index", load what of it stays resident: SEALED
 *   load  open a sealed segment and its sidecar; rebuild the sidecar if it is missing or damaged;
 *         or what of an archive is resident
 *   place the look-up of a loaded archive: its whole directory is read, so nothing waits for it */
#include "store/log_private.h"

#include "core/file.h"
#include "core/logging.h"
#include "core/memory.h"

#include <stdio.h>

enum lane_job_kind { JOB_SEAL, JOB_LOAD, JOB_PLACE };

struct lane_job {
    struct worker_job job;
    struct log *log;
    enum lane_job_kind kind;
    struct lane_segment *segment;
    const struct log_options *options;
    const char *directory;
    uint32_t id;
    bool rebuild;
    bool unread; /* SEAL: the source lacks something */
    uint32_t data_end;
    const struct index *source; /* SEAL */
    size_t places_max;          /* memory for the resident look-up; LOAD of an archive: none */
    const struct archive *of;   /* PLACE */
    struct segment_header header;
    /* result */
    enum err err;
    int read_fd;
    struct index *index;
    struct sidecar *sidecar;
    struct places *places; /* NULL: no room */
    struct archive *archive;
    char path[STORE_PATH_BYTES]; /* LOAD of an archive; else "" */
};

uint32_t lane_direct_flags(const struct log *log)
{
    return log->options.direct ? FILE_DIRECT : 0;
}

static void job_close(struct lane_job *job)
{
    if (job->read_fd >= 0)
        file_close(job->read_fd);
    job->read_fd = -1;
    index_destroy(job->index);
    sidecar_destroy(job->sidecar);
    places_destroy(job->places);
    archive_destroy(job->archive);
    job->index = NULL;
    job->sidecar = NULL;
    job->places = NULL;
    job->archive = NULL;
}

/* ---- seal and load */

static enum err open_segment(struct lane_job *job)
{
    char path[STORE_PATH_BYTES];
    TRY(store_path(path, job->directory, job->id, ".segment"));
    enum err err = file_open(&job->read_fd, path, FILE_READ);
    if (err != OK)
        job->read_fd = -1;
    return err;
}

/* build_places: without them a look-up reads the sidecar: a failure is none. */
static void build_places(struct lane_job *job)
{
    if (job->sidecar != NULL && job->places_max > 0)
        (void)!places_build(&job->places, job->sidecar, job->places_max);
}

/* read_again: recovery could not read all of the segment: what its index lacks would be hidden for
 * good. ERR_IO: still not; it is tried again later. */
static enum err read_again(struct lane_job *job)
{
    struct scan scan;
    uint32_t data_end;
    TRY(open_segment(job));
    enum err err = scan_open(&scan, job->read_fd);
    if (err == OK) {
        err = index_rebuild(&job->index, &scan, &data_end);
        scan_close(&scan);
    }
    file_close(job->read_fd);
    job->read_fd = -1;
    job->source = job->index;
    return err;
}

static void job_seal(struct lane_job *job)
{
    job->err = job->unread ? read_again(job) : OK;
    if (job->err == OK)
        job->err = sidecar_write(job->directory, &job->header, job->source, job->data_end);
    index_destroy(job->index);
    job->index = NULL;
    if (job->err == OK)
        job->err = sidecar_load(&job->sidecar, job->directory, &job->header);
    if (job->err == OK)
        job->err = open_segment(job);
    if (job->err == OK)
        build_places(job);
    else
        job_close(job);
}

/* load_or_rebuild: the sidecar, or, where none can be written, the index itself. */
static enum err load_or_rebuild(struct lane_job *job, struct scan *scan)
{
    job->header = scan->header;
    enum err err =
        job->rebuild ? ERR_CORRUPT : sidecar_load(&job->sidecar, job->directory, &scan->header);
    if (err == OK) {
        job->data_end = job->sidecar->data_end;
        return OK;
    }
    if (err == ERR_NO_MEMORY || err == ERR_NO_DESCRIPTORS)
        return err;
    log_event(LOG_WARN, "log_index_rebuild", LOG_U64("segment", job->id), LOG_ERR(err), LOG_END);
    TRY(index_rebuild(&job->index, scan, &job->data_end));
    err = sidecar_write(job->directory, &scan->header, job->index, job->data_end);
    if (err == OK)
        err = sidecar_load(&job->sidecar, job->directory, &scan->header);
    if (err == OK) {
        index_destroy(job->index);
        job->index = NULL;
    }
    return OK;
}

static void job_load_archive(struct lane_job *job)
{
    job->err = archive_load(&job->archive, job->path);
    if (job->err == OK &&
        (job->archive->header.last != job->id || job->archive->header.lane != job->options->lane))
        job->err = ERR_CORRUPT;
    if (job->err != OK)
        job_close(job);
}

static void job_load(struct lane_job *job)
{
    if (job->path[0] != 0) {
        job_load_archive(job);
        return;
    }
    job->err = open_segment(job);
    struct scan scan;
    if (job->err == OK)
        job->err = scan_open(&scan, job->read_fd);
    if (job->err == OK) {
        if (scan.header.id != job->id || scan.header.lane != job->options->lane)
            job->err = ERR_CORRUPT;
        else
            job->err = load_or_rebuild(job, &scan);
        scan_close(&scan);
    }
    if (job->err == OK)
        build_places(job);
    else
        job_close(job);
}

static void job_run(struct worker_job *worker_job)
{
    struct lane_job *job = CONTAINER_OF(worker_job, struct lane_job, job);
    switch (job->kind) {
    case JOB_SEAL:
        job_seal(job);
        break;
    case JOB_LOAD:
        job_load(job);
        break;
    case JOB_PLACE:
        job->err = places_archive_build(&job->places, job->of, job->places_max);
        break;
    }
}

/* ---- the shard takes results up */

struct lane_segment *lane_segment_add(struct log *log, uint32_t id)
{
    if (log->segment_count == log->segment_capacity) {
        uint32_t capacity = log->segment_capacity == 0 ? 16 : log->segment_capacity * 2;
        void *grown = memory_resize(log->segments, capacity * sizeof(void *), MEMORY_STORE);
        if (grown == NULL)
            return NULL;
        log->segments = grown;
        log->segment_capacity = capacity;
    }
    struct lane_segment *segment = memory_take_zeroed(sizeof *segment, MEMORY_STORE);
    if (segment == NULL)
        return NULL;
    segment->id = segment->first_id = id;
    segment->write_fd = segment->read_fd = -1;
    CHECK(log->segment_count == 0 || log->segments[log->segment_count - 1]->id < id);
    log->segments[log->segment_count++] = segment;
    return segment;
}

static void segment_unload(struct lane_segment *segment)
{
    if (segment->read_fd >= 0)
        file_close(segment->read_fd);
    segment->read_fd = -1;
    sidecar_destroy(segment->sidecar);
    segment->sidecar = NULL;
    places_destroy(segment->places);
    segment->places = NULL;
    segment->unplaced = false;
    archive_destroy(segment->archive);
    segment->archive = NULL;
}

bool lane_loaded(const struct lane_segment *segment)
{
    if (segment->archived)
        return segment->archive != NULL;
    return segment->read_fd >= 0 && !segment->rebuild &&
           (segment->sidecar != NULL || segment->index != NULL);
}

static size_t loaded_bytes(const struct lane_segment *segment)
{
    if (segment->archive != NULL)
        return segment->archive->memory;
    return segment->sidecar != NULL ? segment->sidecar->memory : index_memory(segment->index);
}

void lane_segment_destroy(struct lane_segment *segment)
{
    segment_unload(segment);
    if (segment->write_fd >= 0)
        file_close(segment->write_fd);
    index_destroy(segment->index);
    memory_give(segment, MEMORY_STORE);
}

/* lane_evict: close the least recently used sealed segments until the loaded ones fit their bounds.
 */
void lane_evict(struct log *log)
{
    for (;;) {
        uint64_t bytes = 0;
        uint32_t count = 0;
        struct lane_segment *oldest = NULL;
        for (uint32_t i = 0; i < log->segment_count; i++) {
            struct lane_segment *segment = log->segments[i];
            if (segment->state != SEGMENT_SEALED || !lane_loaded(segment))
                continue;
            bytes += loaded_bytes(segment);
            count++;
            if (segment->users == 0 && !segment->busy &&
                (oldest == NULL || segment->used < oldest->used))
                oldest = segment;
        }
        if (oldest == NULL || count <= 1 ||
            (bytes <= LANE_LOADED_BYTES && count <= LANE_LOADED_MAX))
            break;
        segment_unload(oldest);
        index_destroy(oldest->index);
        oldest->index = NULL;
    }
    lane_lookups_evict(log);
}

static void sealed(struct log *log, struct lane_job *job)
{
    struct lane_segment *segment = job->segment;
    if (job->err != OK) {
        log_event(LOG_WARN, "log_index_not_written", LOG_U64("segment", job->id), LOG_ERR(job->err),
                  LOG_END);
        uint64_t wait_ns = LANE_RETRY_NS
                           << (segment->seal_failures < 9 ? segment->seal_failures : 9);
        segment->retry_ns =
            io_now_ns(log->io) + (wait_ns < LANE_RETRY_MAX_NS ? wait_ns : LANE_RETRY_MAX_NS);
        segment->seal_failures++;
        return;
    }
    /* Reads in flight may still use the old descriptor: it is closed when they are through. */
    segment->sidecar = job->sidecar;
    segment->places = job->places;
    segment->expires_min_ms = job->sidecar->expires_min_ms;
    segment->expiry_known = true;
    segment->state = SEGMENT_SEALED;
    segment->unread = false;
    segment->used = ++log->clock;
    index_destroy(segment->index);
    segment->index = NULL;
    if (segment->write_fd >= 0)
        file_close(segment->write_fd);
    segment->write_fd = -1;
    if (segment->users == 0) {
        if (segment->read_fd >= 0)
            file_close(segment->read_fd);
        segment->read_fd = job->read_fd;
    } else {
        file_close(job->read_fd);
    }
    lane_evict(log);
}

static void loaded(struct log *log, struct lane_job *job)
{
    struct lane_segment *segment = job->segment;
    if (job->err != OK) {
        log_event(LOG_ERROR, "log_segment_not_loaded", LOG_U64("segment", job->id),
                  LOG_ERR(job->err), LOG_END);
        if (job->err == ERR_CORRUPT || job->err == ERR_NOT_FOUND || job->err == ERR_NEWER)
            segment->state = SEGMENT_LOST;
        segment->load_err = job->err;
        segment->retry_ns = io_now_ns(log->io) + LANE_RETRY_NS;
        return;
    }
    segment->rebuild = false;
    segment->retry_ns = 0;
    segment->used = ++log->clock;
    if (segment->archived) {
        segment->archive = job->archive;
        lane_evict(log);
        return;
    }
    segment->expires_min_ms =
        job->sidecar != NULL ? job->sidecar->expires_min_ms : job->index->expires_min_ms;
    segment->expiry_known = true;
    segment->header = job->header;
    segment->key = segment_key_of(&job->header);
    segment->data_end = job->data_end;
    segment->read_fd = job->read_fd;
    segment->sidecar = job->sidecar;
    segment->places = job->places;
    segment->index = job->index;
    lane_evict(log);
}

/* placed: an archive's look-up. Without it the directory is read where it stands. */
static void placed(struct log *log, struct lane_job *job)
{
    job->segment->places = job->places;
    job->segment->unplaced = job->err != OK;
    lane_lookups_evict(log);
}

static void job_done(struct worker_job *worker_job, void *shard)
{
    (void)shard;
    struct lane_job *job = CONTAINER_OF(worker_job, struct lane_job, job);
    struct log *log = job->log;
    log->jobs--;
    job->segment->busy = false;
    switch (job->kind) {
    case JOB_SEAL:
        sealed(log, job);
        break;
    case JOB_LOAD:
        loaded(log, job);
        break;
    case JOB_PLACE:
        placed(log, job);
        break;
    }
    memory_give(job, MEMORY_STORE);
    reader_wake(log);
}

/* ---- the shard starts jobs */

static struct lane_job *job_create(struct log *log, enum lane_job_kind kind,
                                   struct lane_segment *segment)
{
    struct lane_job *job = memory_take_zeroed(sizeof *job, MEMORY_STORE);
    if (job == NULL)
        return NULL;
    job->job.run = job_run;
    job->job.done = job_done;
    job->log = log;
    job->kind = kind;
    job->segment = segment;
    job->options = &log->options;
    job->directory = log->directory;
    job->read_fd = -1;
    job->id = segment->id;
    job->header = segment->header;
    job->data_end = segment->data_end;
    job->source = segment->index;
    job->rebuild = segment->rebuild;
    job->unread = segment->unread;
    job->places_max = lane_lookup_room(log, segment->id);
    job->of = segment->archive;
    if (segment->archived && lane_archive_path(log, segment, job->path) != OK) {
        memory_give(job, MEMORY_STORE);
        return NULL;
    }
    return job;
}

static enum err job_submit(struct log *log, enum lane_job_kind kind, struct lane_segment *segment)
{
    struct lane_job *job = job_create(log, kind, segment);
    if (job == NULL)
        return ERR_NO_MEMORY;
    enum err err = worker_submit(log->workers, &job->job, WORKER_DISK, log->options.shard);
    if (err != OK) {
        memory_give(job, MEMORY_STORE); /* queue full: the next turn tries again */
        return err;
    }
    log->jobs++;
    segment->busy = true;
    return OK;
}

struct lane_segment *lane_next_ready(const struct log *log)
{
    for (uint32_t i = log->active + 1; i < log->segment_count; i++)
        if (log->segments[i]->state == SEGMENT_READY)
            return log->segments[i];
    return NULL;
}

void lane_roll(struct log *log)
{
    struct lane_segment *old = log->segments[log->active];
    struct lane_segment *next = lane_next_ready(log);
    CHECK(next != NULL && log->gather.size == 0);
    if (old->state == SEGMENT_ACTIVE) {
        old->state = SEGMENT_SEALING;
        old->data_end = log->gather.offset;
    }
    next->state = SEGMENT_ACTIVE;
    while (log->segments[log->active] != next)
        log->active++;
    log->segment_full = false;
    log->lifecycle.active_ms = io_wall_ms(log->io);
    log->gather.segment = next;
    log->gather.offset = SEGMENT_DATA_OFFSET;
}

static bool sealing_due(const struct log *log, const struct lane_segment *segment, uint64_t now_ns)
{
    return segment->state == SEGMENT_SEALING && !segment->busy && segment->retry_ns <= now_ns &&
           log->durable >= position_of(segment->id, segment->data_end);
}

void lane_maintain(struct log *log)
{
    uint64_t now_ns = io_now_ns(log->io);
    if (log->state == LOG_FAILED)
        return;
    lane_make_turn(log);
    for (uint32_t i = log->active; i-- > 0 && log->active - i <= 8;)
        if (sealing_due(log, log->segments[i], now_ns) &&
            job_submit(log, JOB_SEAL, log->segments[i]) != OK)
            log->segments[i]->retry_ns = now_ns + LANE_RETRY_NS;
    lifecycle_turn(log);
}

/* place: have the look-up of a loaded archive made, where there is room for it. */
static void place(struct log *log, struct lane_segment *segment)
{
    if (!segment->archived || segment->places != NULL || segment->unplaced || segment->busy ||
        log->closing)
        return;
    uint64_t bytes = places_archive_bytes(&segment->archive->footer);
    if (bytes <= log->options.lookup_bytes && bytes <= lane_lookup_room(log, segment->id))
        (void)!job_submit(log, JOB_PLACE, segment); /* queue full: at the next look at it */
}

enum err lane_load(struct log *log, struct lane_segment *segment)
{
    if (segment->state == SEGMENT_LOST)
        return ERR_CORRUPT;
    segment->used = ++log->clock;
    if (segment->rebuild && segment->users == 0 && !segment->busy)
        segment_unload(segment);
    if (lane_loaded(segment)) {
        place(log, segment);
        return OK;
    }
    if (segment->busy || segment->users > 0)
        return ERR_AGAIN;
    if (io_now_ns(log->io) < segment->retry_ns)
        return segment->load_err;
    (void)!job_submit(log, JOB_LOAD, segment); /* queue full: log_flush wakes the reads again */
    return ERR_AGAIN;
}
