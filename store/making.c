/* making.c: the segments made ahead: zeros over the whole file, so that a commit changes no
 * metadata of the file system. They go out of huge pages, so that the disk is given one piece: in a
 * file whose zeros came in many, batches of 1 MiB were measured at half to two thirds of the rate.
 *
 *   "<id>.making" (new) or "<freed id>.spare" ─ zeros, in portions ─ sync ─ header, sync ─ rename
 * to
 *   "<id>.segment", sync of the directory: READY
 *
 * Zeros at full speed would stand in the way of the commits. So each portion is a job of its own on
 * a DISK worker, and the next one begins when it is due:
 *
 * - The lane waits for the segment: at once, in large portions.
 * - Else what is made keeps ahead of what is filled: when four fifths of the active segment are
 *   full, the next one is ready.
 * - Else, on an idle lane, make_rate.
 *
 * Spares are segments that a merge or retention has freed (lifecycle.c renames them, and syncs the
 * directory): up to spare_segments of them become the next segments, which saves the allocation.
 * What stood in them is due to leave the disk, so they are wiped as soon as nothing else is being
 * made, at make_rate: all of them within spare_segments × segment size ÷ make_rate. One that has a
 * second name (a snapshot's hard link), or is being read by another process (which locks it, see
 * walk.c), is never written: its name is removed. The order makes that safe: the name goes first,
 * then links and lock are looked at; who links looks at the name afterwards (snapshot.c).
 *
 * Not even a spare that were not wiped could pass for records: every checksum is seeded with the
 * segment's id, a nonce drawn anew for each life, and the position (segment.c).
 *
 * A crash leaves ".making" and ".spare", which the next start removes (listing.c), or a segment
 * without a batch, which it takes as the next one or removes (recovery.c). The header comes after
 * the zeros are durable: a file with a valid header and the name of a segment is whole. A freed
 * name that a power cut brings back, wiped or not, is one that an archive replaces: removed too. */
#include "store/log_private.h"

#include "core/file.h"
#include "core/logging.h"
#include "core/memory.h"

#define STEP_BYTES_MIN    (64u << 10) /* a portion: 1/256 of the segment, within these */
#define STEP_BYTES_MAX    (1u << 20)
#define HURRY_BYTES       (8u << 20) /* a portion while the lane waits */
#define WRITE_BYTES_MIN   (1u << 20) /* one write: 1/16 of the segment, within these … */
#define WRITE_BYTES_MAX   (4u << 20) /* … and no more than there is; huge pages from 2 MiB on */
#define AHEAD_NUMERATOR   5u         /* made ≥ filled × 5 / 4 */
#define AHEAD_DENOMINATOR 4u

struct making {
    struct worker_job job;
    struct log *log;
    const struct log_options *options;
    const char *directory;
    struct segment_header header;
    uint32_t spare; /* the file's id in its earlier life; 0: a new file */
    uint64_t begun_ns;
    bool running; /* on a worker */
    bool wanted;  /* it becomes a segment once it is all zeros; else a wiped spare */
    /* of the portion */
    uint64_t budget; /* bytes of zeros, at most */
    uint64_t made;   /* zeros up to here */
    uint64_t before; /* the same before this portion */
    bool complete;   /* it has its name */
    enum err err;
    bool buffered; /* not O_DIRECT: each portion is synced, so that the last sync is no burst */
    int write_fd;
    int read_fd;
    uint8_t *zeros; /* of zeros_bytes; NULL: none written yet */
    size_t zeros_bytes;
    struct index *index;
};

/* ---- on the worker */

/* working_path: before it has the name of a segment. */
static enum err working_path(const struct making *making, char out[STORE_PATH_BYTES])
{
    bool spare = making->spare != 0;
    return store_path(out, making->directory, spare ? making->spare : making->header.id,
                      spare ? ".spare" : ".making");
}

static enum err segment_path(const struct making *making, char out[STORE_PATH_BYTES])
{
    return store_path(out, making->directory, making->header.id, ".segment");
}

static enum err making_space(const struct making *making)
{
    uint64_t space = 0;
    uint64_t bytes = making->header.bytes;
    uint64_t more = making->spare != 0 ? 0 : bytes - making->made;
    if (making->spare != 0 && !making->wanted)
        return OK;
    TRY(file_free_bytes(making->directory, &space));
    /* an eighth more: the sidecars of this segment and the one before it */
    if (space < making->options->reserve_bytes ||
        space - making->options->reserve_bytes < more + bytes / 8)
        return ERR_NO_SPACE;
    return OK;
}

/* alone: nobody else has the spare, by a name or open. ERR_BUSY: somebody has, or it does not fit.
 */
static enum err alone(const struct making *making)
{
    uint64_t bytes = 0;
    uint64_t names = 0;
    TRY(file_lock(making->write_fd));
    TRY(file_names(making->write_fd, &names));
    TRY(file_size(making->write_fd, &bytes));
    return names == 1 && bytes == making->header.bytes ? OK : ERR_BUSY;
}

static enum err making_open(struct making *making, const char *path)
{
    uint32_t flags = FILE_WRITE | (making->spare != 0 ? 0 : FILE_CREATE);
    enum err err = ERR_UNSUPPORTED;
    if (making->options->direct)
        err = file_open(&making->write_fd, path, flags | FILE_DIRECT);
    making->buffered = err == ERR_UNSUPPORTED;
    if (making->buffered)
        err = file_open(&making->write_fd, path, flags);
    if (err != OK)
        making->write_fd = -1;
    return err == OK && making->spare != 0 ? alone(making) : err;
}

/* zeros_take: one buffer for all portions. */
static enum err zeros_take(struct making *making)
{
    if (making->zeros != NULL)
        return OK;
    uint64_t bytes = align_down(making->header.bytes / 16, SEGMENT_BLOCK);
    bytes = bytes < WRITE_BYTES_MIN ? WRITE_BYTES_MIN : bytes;
    bytes = bytes < making->header.bytes ? bytes : making->header.bytes;
    making->zeros_bytes = bytes < WRITE_BYTES_MAX ? (size_t)bytes : WRITE_BYTES_MAX;
    making->zeros = memory_take_huge(making->zeros_bytes, MEMORY_STORE);
    if (making->zeros == NULL)
        return ERR_NO_MEMORY;
    memset(making->zeros, 0, making->zeros_bytes);
    return OK;
}

static enum err write_zeros(struct making *making)
{
    uint64_t left = making->header.bytes - making->made;
    TRY(zeros_take(making));
    left = left < making->budget ? left : making->budget;
    enum err err = OK;
    while (left > 0 && err == OK) {
        size_t size = left < making->zeros_bytes ? (size_t)left : making->zeros_bytes;
        err = file_write(making->write_fd, making->made, bytes_of(making->zeros, size));
        making->made += err == OK ? size : 0;
        left -= size;
    }
    if (err == OK && (making->buffered || making->made == making->header.bytes))
        err = file_sync(making->write_fd);
    return err;
}

static enum err write_header(const struct making *making)
{
    uint8_t *header = memory_take_aligned(SEGMENT_DATA_OFFSET, SEGMENT_BLOCK, MEMORY_STORE);
    if (header == NULL)
        return ERR_NO_MEMORY;
    segment_header_encode(header, &making->header);
    enum err err = file_write(making->write_fd, 0, bytes_of(header, SEGMENT_DATA_OFFSET));
    memory_give(header, MEMORY_STORE);
    return err == OK ? file_sync(making->write_fd) : err;
}

/* finish: header, index, name. */
static enum err finish(struct making *making, const char *working)
{
    char path[STORE_PATH_BYTES];
    struct segment_key key = segment_key_of(&making->header);
    TRY(segment_path(making, path));
    TRY(index_create(&making->index, &key, making->header.bytes));
    TRY(write_header(making));
    enum err err =
        making->buffered ? ERR_UNSUPPORTED : file_open(&making->read_fd, working, FILE_DIRECT);
    if (err == ERR_UNSUPPORTED)
        err = file_open(&making->read_fd, working, FILE_READ);
    if (err != OK)
        making->read_fd = -1;
    TRY(err);
    if (making->spare != 0)
        TRY(file_unlock(making->write_fd));
    TRY(file_rename(working, path));
    making->complete = true;
    return file_sync_directory(making->directory);
}

static enum err portion(struct making *making)
{
    char working[STORE_PATH_BYTES];
    TRY(working_path(making, working));
    TRY(making_space(making));
    if (making->write_fd < 0)
        TRY(making_open(making, working));
    if (making->made < making->header.bytes)
        TRY(write_zeros(making));
    return making->made < making->header.bytes || !making->wanted ? OK : finish(making, working);
}

static void making_close(struct making *making)
{
    if (making->write_fd >= 0)
        file_close(making->write_fd);
    if (making->read_fd >= 0)
        file_close(making->read_fd);
    making->write_fd = making->read_fd = -1;
    index_destroy(making->index);
    making->index = NULL;
    memory_give(making->zeros, MEMORY_STORE);
    making->zeros = NULL;
}

static void job_run(struct worker_job *worker_job)
{
    struct making *making = CONTAINER_OF(worker_job, struct making, job);
    char path[STORE_PATH_BYTES];
    making->err = portion(making);
    if (making->err == OK)
        return;
    making_close(making);
    /* Renamed, but the name may not be durable: made again later. */
    if ((making->complete ? segment_path(making, path) : working_path(making, path)) == OK)
        (void)!file_remove(path);
    making->complete = false;
}

/* ---- the shard takes results up */

/* not_made: refuse appends that need the segment, and try again in a second. */
static void not_made(struct log *log, uint32_t id, enum err err)
{
    if (!log->make_refused)
        log_event(LOG_ERROR, "log_segment_not_made", LOG_U64("segment", id), LOG_ERR(err), LOG_END);
    log->make_refused = true;
    log->make_retry_ns = io_now_ns(log->io) + LANE_RETRY_NS;
    if (err == ERR_IO)
        lane_fail(log, ERR_IO, "make_segment");
}

static void measure_spares(struct log *log)
{
    if (log->metrics != NULL)
        metric_set(log->metrics, METRIC_LOG_SPARES, log->spare_count);
}

static bool needed(const struct log *log)
{
    return lane_next_ready(log) == NULL;
}

/* ready: the new segment stands behind the others. */
static enum err ready(struct log *log, struct making *making)
{
    struct lane_segment *segment = lane_segment_add(log, making->header.id);
    if (segment == NULL)
        return ERR_NO_MEMORY; /* the file stays and is written over: its name is the next one's */
    segment->state = SEGMENT_READY;
    segment->header = making->header;
    segment->key = segment_key_of(&making->header);
    segment->write_fd = making->write_fd;
    segment->read_fd = making->read_fd;
    segment->index = making->index;
    making->write_fd = making->read_fd = -1;
    making->index = NULL;
    log->id_next = making->header.id + 1;
    log->make_refused = false;
    if (log->state == LOG_NO_SPACE)
        lane_set_state(log, LOG_OPEN);
    lifecycle_measure(log);
    return OK;
}

/* failed: a spare that cannot be had is no reason to refuse anything: a new file is made. */
static void failed(struct log *log, const struct making *making, enum err err)
{
    if (making->spare != 0)
        log_event(LOG_INFO, "log_spare_removed", LOG_U64("segment", making->spare), LOG_ERR(err),
                  LOG_END);
    if (making->spare == 0 || (making->wanted && err != ERR_BUSY))
        not_made(log, making->header.id, err);
}

/* made: a portion is back; the last one, or one that failed, is the end of it. */
static enum err made(struct log *log)
{
    struct making *making = log->making;
    enum err err = making->err;
    bool wiped = making->made == making->header.bytes && !making->complete && !needed(log);
    if (err == OK && !making->complete && !wiped)
        return OK;
    if (err == OK && wiped)
        log->spares[log->spare_count++] = (struct lane_spare){making->spare, true};
    else if (err == OK)
        err = ready(log, making);
    if (err != OK)
        failed(log, making, err);
    else
        lane_count(log, METRIC_LOG_RECYCLED, making->spare != 0 && !wiped);
    lane_make_close(log);
    measure_spares(log);
    return err;
}

static void job_done(struct worker_job *worker_job, void *shard)
{
    (void)shard;
    struct making *making = CONTAINER_OF(worker_job, struct making, job);
    struct log *log = making->log;
    log->jobs--;
    making->running = false;
    lane_count(log, METRIC_LOG_MADE_BYTES, making->made - making->before);
    (void)!made(log); /* not_made has said it */
    reader_wake(log);
}

/* ---- the shard starts portions */

/* take_spare: one that is wiped, or, if none is and for wiping, any; 0: none. */
static uint32_t take_spare(struct log *log, bool segment_needed, bool *wiped)
{
    uint32_t at = 0;
    while (at < log->spare_count && log->spares[at].wiped != segment_needed)
        at++;
    if (at == log->spare_count && segment_needed)
        at = 0;
    if (at >= log->spare_count)
        return 0;
    struct lane_spare spare = log->spares[at];
    log->spare_count--;
    memmove(log->spares + at, log->spares + at + 1, (log->spare_count - at) * sizeof *log->spares);
    *wiped = spare.wiped;
    return spare.id;
}

/* begin: the next segment, if one is needed; else to wipe a spare. ERR_NOT_FOUND: there is none. */
static enum err begin(struct log *log)
{
    bool wiped = false;
    struct making *making = memory_take_zeroed(sizeof *making, MEMORY_STORE);
    if (making == NULL)
        return ERR_NO_MEMORY;
    making->job.run = job_run;
    making->job.done = job_done;
    making->log = log;
    making->options = &log->options;
    making->directory = log->directory;
    making->write_fd = making->read_fd = -1;
    making->begun_ns = io_now_ns(log->io);
    making->header = (struct segment_header){.id = log->id_next,
                                             .lane = log->options.lane,
                                             .bytes = log->options.segment_bytes,
                                             .created_ms = io_wall_ms(log->io)};
    io_entropy(log->io, &making->header.nonce, sizeof making->header.nonce);
    making->spare = take_spare(log, needed(log), &wiped);
    making->made = wiped ? making->header.bytes : 0;
    if (making->spare == 0 && !needed(log)) {
        memory_give(making, MEMORY_STORE);
        return ERR_NOT_FOUND;
    }
    log->making = making;
    return OK;
}

/* step_bytes: a portion's size; a larger one if the making has fallen behind. */
static uint64_t step_bytes(const struct log *log, uint64_t behind)
{
    uint64_t step = align_down(log->options.segment_bytes / 256, SEGMENT_BLOCK);
    step = step < STEP_BYTES_MIN ? STEP_BYTES_MIN : step;
    if (step > STEP_BYTES_MAX)
        step = STEP_BYTES_MAX;
    return behind < step ? step : behind < 4 * step ? align_down(behind, SEGMENT_BLOCK) : 4 * step;
}

/* due_bytes: so much is to be made by now. */
static uint64_t due_bytes(const struct log *log, const struct making *making)
{
    const struct lane_segment *active = log->segments[log->active];
    uint64_t bytes = making->header.bytes;
    double seconds = (double)(io_now_ns(log->io) - making->begun_ns) / NS_PER_S;
    double by_time = seconds * (double)log->options.make_rate;
    double filled = (double)log->gather.offset / (double)active->header.bytes;
    double by_fill = filled * (double)bytes * AHEAD_NUMERATOR / AHEAD_DENOMINATOR;
    double due = by_time > by_fill || !needed(log) ? by_time : by_fill;
    return due < (double)bytes ? (uint64_t)due + 1 : bytes;
}

/* waiting: nothing else goes on before it is made. */
static bool waiting(const struct log *log, const struct making *making)
{
    bool lane_waits = log->segment_full || log->state == LOG_NO_SPACE;
    return log->options.make_rate == 0 || making->made == making->header.bytes ||
           (lane_waits && needed(log));
}

static bool work_to_begin(const struct log *log)
{
    bool unwiped = false;
    for (uint32_t i = 0; i < log->spare_count; i++)
        unwiped = unwiped || !log->spares[i].wiped;
    return needed(log) ? io_now_ns(log->io) >= log->make_retry_ns : unwiped;
}

void lane_make_turn(struct log *log)
{
    if (log->making == NULL && (!work_to_begin(log) || begin(log) != OK))
        return;
    struct making *making = log->making;
    if (making->running)
        return;
    bool hurry = waiting(log, making);
    uint64_t due = due_bytes(log, making);
    if (due <= making->made && !hurry)
        return;
    making->wanted = needed(log);
    making->budget = hurry ? HURRY_BYTES : step_bytes(log, due - making->made);
    making->before = making->made;
    if (worker_submit(log->workers, &making->job, WORKER_DISK, log->options.shard) != OK)
        return; /* queue full: the next turn tries again */
    making->running = true;
    log->jobs++;
}

enum err lane_make_now(struct log *log)
{
    TRY(begin(log));
    struct making *making = log->making;
    making->wanted = true;
    making->budget = UINT64_MAX;
    job_run(&making->job);
    return made(log);
}

void lane_make_close(struct log *log)
{
    if (log->making == NULL)
        return;
    making_close(log->making);
    memory_give(log->making, MEMORY_STORE);
    log->making = NULL;
}

bool lane_spare_room(const struct log *log)
{
    bool one_at_work = log->making != NULL && log->making->spare != 0;
    return log->spare_count + one_at_work < log->options.spare_segments &&
           log->spare_count + one_at_work < LANE_SPARES_MAX;
}

void lane_spare_add(struct log *log, uint32_t id)
{
    CHECK(log->spare_count < LANE_SPARES_MAX);
    log->spares[log->spare_count++] = (struct lane_spare){id, false};
    measure_spares(log);
}
