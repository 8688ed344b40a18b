/* background.c: what happens to segments beside the appending: a lane's turn starts a job, a worker
 * runs it over core/file.h, the shard takes the result up in job_done. A job touches its own
 * fields, constant options, and (sealing) the index of a segment that nobody changes any more.
 *
 *   make  zeros to "<id>.making", header, sync, rename to "<id>.segment": READY
 *   seal  index → "<id>.index", load what of it stays resident: SEALED
 *   load  open a sealed segment and its sidecar; rebuild the sidecar if it is missing or damaged;
 *         or what of an archive is resident */
#include "store/log_private.h"

#include "core/file.h"
#include "core/logging.h"
#include "core/memory.h"

#include <stdio.h>

#define ZERO_BYTES (1u << 20)

enum lane_job_kind { JOB_MAKE, JOB_SEAL, JOB_LOAD };

struct lane_job {
    struct worker_job job;
    struct log *log;
    enum lane_job_kind kind;
    struct lane_segment *segment; /* SEAL, LOAD */
    const struct log_options *options;
    const char *directory;
    uint32_t id;
    bool rebuild;
    uint32_t data_end;
    const struct index *source; /* SEAL */
    size_t places_max;          /* SEAL, LOAD: memory for the resident look-up */
    struct segment_header header;
    /* result */
    enum err err;
    int write_fd;
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

static enum err open_direct(int *fd, const char *path, uint32_t flags, bool direct)
{
    enum err err = direct ? file_open(fd, path, flags | FILE_DIRECT) : ERR_UNSUPPORTED;
    return err == ERR_UNSUPPORTED ? file_open(fd, path, flags) : err;
}

/* ---- make */

static enum err write_zeros(int fd, uint64_t bytes, const struct segment_header *header)
{
    uint8_t *zeros = memory_take_aligned(ZERO_BYTES, SEGMENT_BLOCK, MEMORY_STORE);
    if (zeros == NULL)
        return ERR_NO_MEMORY;
    memset(zeros, 0, ZERO_BYTES);
    enum err err = OK;
    for (uint64_t at = 0; at < bytes && err == OK; at += ZERO_BYTES) {
        size_t size = bytes - at < ZERO_BYTES ? (size_t)(bytes - at) : ZERO_BYTES;
        err = file_write(fd, at, bytes_of(zeros, size));
    }
    if (err == OK) {
        segment_header_encode(zeros, header);
        err = file_write(fd, 0, bytes_of(zeros, SEGMENT_DATA_OFFSET));
    }
    if (err == OK)
        err = file_sync(fd);
    memory_give(zeros, MEMORY_STORE);
    return err;
}

static enum err make_file(struct lane_job *job, const char *working, const char *path)
{
    uint64_t space = 0;
    uint64_t bytes = job->header.bytes;
    TRY(file_free_bytes(job->directory, &space));
    /* an eighth more: the sidecars of this segment and the one before it */
    if (space < job->options->reserve_bytes ||
        space - job->options->reserve_bytes < bytes + bytes / 8)
        return ERR_NO_SPACE;
    TRY(open_direct(&job->write_fd, working, FILE_WRITE | FILE_CREATE, job->options->direct));
    TRY(write_zeros(job->write_fd, bytes, &job->header));
    TRY(open_direct(&job->read_fd, working, FILE_READ, job->options->direct));
    TRY(file_rename(working, path));
    return file_sync_directory(job->directory);
}

static void job_close(struct lane_job *job)
{
    if (job->write_fd >= 0)
        file_close(job->write_fd);
    if (job->read_fd >= 0)
        file_close(job->read_fd);
    job->write_fd = job->read_fd = -1;
    index_destroy(job->index);
    sidecar_destroy(job->sidecar);
    places_destroy(job->places);
    archive_destroy(job->archive);
    job->index = NULL;
    job->sidecar = NULL;
    job->places = NULL;
    job->archive = NULL;
}

static void job_make(struct lane_job *job)
{
    char working[STORE_PATH_BYTES];
    char path[STORE_PATH_BYTES];
    struct segment_key key = segment_key_of(&job->header);
    job->err = store_path(working, job->directory, job->id, ".making");
    if (job->err == OK)
        job->err = store_path(path, job->directory, job->id, ".segment");
    if (job->err == OK)
        job->err = index_create(&job->index, &key, job->header.bytes);
    if (job->err != OK)
        return;
    job->err = make_file(job, working, path);
    if (job->err != OK) {
        job_close(job);
        (void)!file_remove(working);
        (void)!file_remove(path); /* renamed, but its name may not be durable: made again later */
    }
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

static void job_seal(struct lane_job *job)
{
    job->err = sidecar_write(job->directory, &job->header, job->source, job->data_end);
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
    case JOB_MAKE:
        job_make(job);
        break;
    case JOB_SEAL:
        job_seal(job);
        break;
    case JOB_LOAD:
        job_load(job);
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

/* not_made: refuse appends that need the segment, and try again in a second. */
static void not_made(struct log *log, const struct lane_job *job)
{
    if (!log->make_refused)
        log_event(LOG_ERROR, "log_segment_not_made", LOG_U64("segment", job->id), LOG_ERR(job->err),
                  LOG_END);
    log->make_refused = true;
    log->make_err = job->err;
    log->make_retry_ns = io_now_ns(log->io) + LANE_RETRY_NS;
    if (job->err == ERR_IO)
        lane_fail(log, ERR_IO, "make_segment");
}

static void made(struct log *log, struct lane_job *job)
{
    log->making = false;
    if (job->err != OK) {
        not_made(log, job);
        return;
    }
    struct lane_segment *segment = lane_segment_add(log, job->id);
    if (segment == NULL) {
        job_close(job); /* the file stays and is written over: its name is the next one's */
        job->err = ERR_NO_MEMORY;
        not_made(log, job);
        return;
    }
    segment->state = SEGMENT_READY;
    segment->header = job->header;
    segment->key = segment_key_of(&job->header);
    segment->write_fd = job->write_fd;
    segment->read_fd = job->read_fd;
    segment->index = job->index;
    log->id_next = job->id + 1;
    log->make_refused = false;
    if (log->state == LOG_NO_SPACE)
        lane_set_state(log, LOG_OPEN);
    lifecycle_measure(log);
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
        segment->retry_ns = io_now_ns(log->io) + LANE_RETRY_NS;
        return;
    }
    /* Reads in flight may still use the old descriptor: it is closed when they are through. */
    segment->sidecar = job->sidecar;
    segment->places = job->places;
    segment->expires_min_ms = job->sidecar->expires_min_ms;
    segment->expiry_known = true;
    segment->state = SEGMENT_SEALED;
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

static void job_done(struct worker_job *worker_job, void *shard)
{
    (void)shard;
    struct lane_job *job = CONTAINER_OF(worker_job, struct lane_job, job);
    struct log *log = job->log;
    log->jobs--;
    if (job->segment != NULL)
        job->segment->busy = false;
    switch (job->kind) {
    case JOB_MAKE:
        made(log, job);
        break;
    case JOB_SEAL:
        sealed(log, job);
        break;
    case JOB_LOAD:
        loaded(log, job);
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
    job->write_fd = job->read_fd = -1;
    if (segment != NULL) {
        job->id = segment->id;
        job->header = segment->header;
        job->data_end = segment->data_end;
        job->source = segment->index;
        job->rebuild = segment->rebuild;
        job->places_max = segment->archived ? 0 : lane_lookup_room(log, segment->id);
        if (segment->archived && lane_archive_path(log, segment, job->path) != OK) {
            memory_give(job, MEMORY_STORE);
            return NULL;
        }
        return job;
    }
    job->id = log->id_next;
    job->header = (struct segment_header){.id = log->id_next,
                                          .lane = log->options.lane,
                                          .bytes = log->options.segment_bytes,
                                          .created_ms = io_wall_ms(log->io)};
    io_entropy(log->io, &job->header.nonce, sizeof job->header.nonce);
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
    if (segment != NULL)
        segment->busy = true;
    return OK;
}

enum err lane_make_now(struct log *log)
{
    struct lane_job *job = job_create(log, JOB_MAKE, NULL);
    if (job == NULL)
        return ERR_NO_MEMORY;
    job_run(&job->job);
    made(log, job);
    enum err err = job->err;
    memory_give(job, MEMORY_STORE);
    return err;
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
    if (log->state != LOG_FAILED && !log->making && lane_next_ready(log) == NULL &&
        now_ns >= log->make_retry_ns)
        log->making = job_submit(log, JOB_MAKE, NULL) == OK;
    if (log->state == LOG_FAILED)
        return;
    for (uint32_t i = log->active; i-- > 0 && log->active - i <= 8;)
        if (sealing_due(log, log->segments[i], now_ns) &&
            job_submit(log, JOB_SEAL, log->segments[i]) != OK)
            log->segments[i]->retry_ns = now_ns + LANE_RETRY_NS;
    lifecycle_turn(log);
}

enum err lane_load(struct log *log, struct lane_segment *segment)
{
    if (segment->state == SEGMENT_LOST)
        return ERR_CORRUPT;
    segment->used = ++log->clock;
    if (segment->rebuild && segment->users == 0 && !segment->busy)
        segment_unload(segment);
    if (lane_loaded(segment))
        return OK;
    if (segment->busy || segment->users > 0)
        return ERR_AGAIN;
    if (io_now_ns(log->io) < segment->retry_ns)
        return segment->load_err;
    (void)!job_submit(log, JOB_LOAD, segment); /* queue full: log_flush wakes the reads again */
    return ERR_AGAIN;
}
