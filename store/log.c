/* log.c: appending and group commit of one lane.
 *
 *   log_append → gather (copy, checksum, index) ─ log_flush → flight (one write + sync)
 *     → log_on_file → acks → log_completed
 *
 * Two buffers alternate: one is in flight, the other gathers. Where a batch will stand is known
 * when its first record comes, because the one before it has its final size by then; so a record's
 * checksum and position are final at append time, and room in the segment is checked there: what
 * log_append accepted never fails for want of space.
 *
 *   LOG_OPEN --segment full, none can be made--> LOG_NO_SPACE --made (making.c)--> LOG_OPEN
 *   any --lane_fail--> LOG_FAILED */
#include "store/log_private.h"

#include "core/file.h"
#include "core/logging.h"
#include "core/memory.h"

#include <stdio.h>

#define CLOSE_POLL_NS (10 * NS_PER_MS)
#define ACKS_MIN      64u

void lane_check(const struct log *log)
{
    CHECK(log->durable <= log->written && log->written <= log->appended);
    CHECK(log->ack_popped <= log->ack_done && log->ack_done <= log->ack_appended);
}

void lane_count(struct log *log, enum metric metric, uint64_t n)
{
    if (log->metrics != NULL)
        metric_add(log->metrics, metric, n);
}

void lane_set_state(struct log *log, enum log_state state)
{
    static const bool allowed[3][3] = {
        [LOG_OPEN] = {[LOG_NO_SPACE] = true, [LOG_FAILED] = true},
        [LOG_NO_SPACE] = {[LOG_OPEN] = true, [LOG_FAILED] = true},
    };
    static const char *const names[3] = {"open", "no_space", "failed"};
    if (log->state == state)
        return;
    CHECK(allowed[log->state][state]);
    log->state = state;
    log_event(state == LOG_OPEN ? LOG_INFO : LOG_ERROR, "log_state",
              LOG_TEXT("state", names[state]), LOG_U64("lane", log->options.lane), LOG_END);
    if (log->metrics != NULL)
        metric_set(log->metrics, METRIC_LOG_STATE, state);
}

/* lane_fail: nothing that is not acknowledged by now ever will be. */
void lane_fail(struct log *log, enum err err, const char *what)
{
    if (log->state == LOG_FAILED)
        return;
    log_event(LOG_ERROR, "log_failed", LOG_TEXT("what", what), LOG_ERR(err),
              LOG_TEXT("directory", log->directory), LOG_U64("durable", log->durable), LOG_END);
    lane_set_state(log, LOG_FAILED);
}

/* ---- open and close */

static enum err lock_directory(struct log *log)
{
    char path[STORE_PATH_BYTES];
    int size = snprintf(path, sizeof path, "%s/lock", log->directory);
    if (size < 0 || size >= STORE_PATH_BYTES)
        return ERR_TOO_BIG;
    TRY(file_make_directory(log->directory));
    enum err err = file_open(&log->lock_fd, path, FILE_WRITE | FILE_CREATE);
    if (err != OK) {
        log->lock_fd = -1;
        return err;
    }
    return file_lock(log->lock_fd);
}

static enum err log_init(struct log *log, const struct log_options *options, struct io *io,
                         struct workers *workers, struct metrics *metrics)
{
    log->options = *options;
    log->options.directory = log->directory;
    log->io = io;
    log->workers = workers;
    log->metrics = metrics;
    log->lock_fd = -1;
    log->id_next = 1;
    log->done_last = &log->done_first;
    size_t size = strlen(options->directory);
    if (size >= sizeof log->directory)
        return ERR_TOO_BIG;
    memcpy(log->directory, options->directory, size + 1);
    size_t room = options->segment_bytes - SEGMENT_DATA_OFFSET;
    log->batch_bytes_max = align_down(options->batch_bytes_max, SEGMENT_BLOCK);
    if (log->batch_bytes_max > room)
        log->batch_bytes_max = room;
    uint64_t acks = ACKS_MIN;
    while (acks < 2 * log->batch_bytes_max / RECORD_HEADER_BYTES)
        acks *= 2;
    log->ack_mask_max = acks - 1;
    log->ack_mask = ACKS_MIN - 1;
    log->acks = memory_take(acks * sizeof *log->acks, MEMORY_STORE);
    log->buffers = memory_take_huge(2 * log->batch_bytes_max, MEMORY_STORE);
    if (log->acks == NULL || log->buffers == NULL)
        return ERR_NO_MEMORY;
    log->gather.data = log->buffers;
    log->flight.data = log->buffers + log->batch_bytes_max;
    (void)!io_file_pin(io, log->buffers, 2 * log->batch_bytes_max); /* it may not be possible */
    return lock_directory(log);
}

static void log_free(struct log *log)
{
    lane_make_close(log);
    for (uint32_t i = 0; i < log->segment_count; i++)
        lane_segment_destroy(log->segments[i]);
    memory_give(log->segments, MEMORY_STORE);
    memory_give(log->acks, MEMORY_STORE);
    io_file_unpin(log->io, log->buffers);
    memory_give(log->buffers, MEMORY_STORE);
    if (log->lock_fd >= 0)
        file_close(log->lock_fd);
    memory_give(log, MEMORY_STORE);
}

/* open_successor: the segment behind the active one; that it cannot be made yet is no failure. */
static enum err open_successor(struct log *log)
{
    if (lane_next_ready(log) == NULL) {
        enum err err = lane_make_now(log);
        if (err == ERR_IO || err == ERR_NO_MEMORY)
            return err;
    }
    return OK;
}

enum err log_open(struct log **out, const struct log_options *options, struct io *io,
                  struct workers *workers, struct metrics *metrics,
                  void (*replay)(void *context, const struct log_record *record, uint64_t position),
                  void *context, uint64_t *damaged)
{
    *damaged = 0;
    if (options->segment_bytes < SEGMENT_BYTES_MIN || options->segment_bytes > SEGMENT_BYTES_MAX ||
        options->segment_bytes % SEGMENT_BLOCK != 0 || options->batch_bytes_max < SEGMENT_BLOCK)
        return ERR_INVALID;
    struct log *log = memory_take_zeroed(sizeof *log, MEMORY_STORE);
    if (log == NULL)
        return ERR_NO_MEMORY;
    enum err err = log_init(log, options, io, workers, metrics);
    if (err == OK)
        err = lane_recover(log, replay, context, damaged);
    if (err == OK)
        err = open_successor(log);
    if (err != OK) {
        log_event(LOG_ERROR, "log_open_failed", LOG_TEXT("directory", options->directory),
                  LOG_ERR(err), LOG_END);
        log_free(log);
        return err;
    }
    log->marked = true;
    lane_check(log);
    *out = log;
    return OK;
}

static bool log_busy(const struct log *log)
{
    bool unwritten = log->state != LOG_FAILED && log->gather.size != 0;
    return log->in_flight || unwritten || log->jobs != 0 || log->read_ops != 0;
}

static void close_turn(struct log *const logs[], uint32_t count)
{
    struct io_event events[64];
    struct log *first = logs[0];
    size_t arrived =
        io_poll(first->io, events, COUNT_OF(events), io_now_ns(first->io) + CLOSE_POLL_NS);
    for (size_t i = 0; i < arrived; i++)
        for (uint32_t j = 0; j < count && events[i].kind == IO_FILE_DONE; j++)
            if (log_owns(logs[j], events[i].op)) {
                log_on_file(logs[j], events[i].op);
                break;
            }
    struct worker_job *job;
    while ((job = worker_completed(first->workers, first->options.shard)) != NULL)
        job->done(job, NULL);
}

static void batch_start(struct log *log);

/* mark_durable: an empty batch that says that everything before it is durable, so that the next
 * open can tell damage from a torn tail. */
static void mark_durable(struct log *log)
{
    const struct lane_segment *active = log->segments[log->active];
    if (log->marked || log->state == LOG_FAILED ||
        active->header.bytes - log->gather.offset < SEGMENT_BLOCK)
        return;
    log->gather.size = BATCH_HEADER_BYTES;
    log->appended = position_of(active->id, log->gather.offset + BATCH_HEADER_BYTES);
    batch_start(log);
}

uint32_t log_jobs(const struct log *log)
{
    return log->jobs;
}

/* settle: until no log has anything under way. */
static void settle(struct log *const logs[], uint32_t count)
{
    for (;;) {
        bool busy = false;
        for (uint32_t i = 0; i < count; i++) {
            busy = busy || log_busy(logs[i]);
            batch_start(logs[i]);
        }
        if (!busy)
            return;
        close_turn(logs, count);
    }
}

void log_close_all(struct log *const logs[], uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        logs[i]->closing = true;
    settle(logs, count);
    for (uint32_t i = 0; i < count; i++)
        mark_durable(logs[i]);
    settle(logs, count);
    for (uint32_t i = 0; i < count; i++) {
        reader_close(logs[i]);
        lifecycle_close(logs[i]);
        log_free(logs[i]);
    }
}

void log_close(struct log *log)
{
    log_close_all(&log, 1);
}

void log_abandon(struct log *log)
{
    reader_close(log);
    lifecycle_close(log);
    log_free(log);
}

/* ---- appending */

/* make_room: size bytes more fit into the gathering batch and its segment. */
static enum err make_room(struct log *log, size_t size)
{
    struct lane_batch *gather = &log->gather;
    size_t have = gather->size == 0 ? BATCH_HEADER_BYTES : gather->size;
    uint64_t room = log->segments[log->active]->header.bytes - gather->offset;
    if (have + size > room)
        log->segment_full = true;
    if (log->segment_full && gather->size == 0) {
        if (lane_next_ready(log) != NULL) {
            lane_roll(log);
            room = log->segments[log->active]->header.bytes - gather->offset;
            return BATCH_HEADER_BYTES + size <= room ? OK : ERR_TOO_BIG;
        }
        if (!log->make_refused)
            return ERR_FULL; /* it is being made */
        lane_set_state(log, LOG_NO_SPACE);
        return ERR_NO_SPACE;
    }
    if (log->segment_full || have + size > log->batch_bytes_max) {
        log->gather_closed = true;
        return ERR_FULL;
    }
    return OK;
}

/* ack_push: the ring uses no more of its memory than is owed at a time, so that it stays in the
 * processor's caches: it doubles where it stands, and begins small again when all are taken. */
static void ack_push(struct log *log, uint64_t cookie, uint64_t position)
{
    uint64_t wide = log->ack_mask + 1;
    if (log->ack_appended == log->ack_popped) {
        log->ack_mask = ACKS_MIN - 1;
    } else if (log->ack_appended - log->ack_popped == wide) {
        for (uint64_t i = log->ack_popped; i != log->ack_appended; i++)
            if ((i & wide) != 0)
                log->acks[i & (2 * wide - 1)] = log->acks[i & log->ack_mask];
        log->ack_mask = 2 * wide - 1;
    }
    log->acks[log->ack_appended++ & log->ack_mask] = (struct lane_ack){cookie, position};
}

enum err log_append(struct log *log, const struct log_record *record, uint64_t cookie)
{
    if (log->state != LOG_OPEN)
        return log->state == LOG_FAILED ? ERR_IO : ERR_NO_SPACE;
    size_t size = record_bytes(record->body.size);
    if (record->body.size > log->batch_bytes_max ||
        BATCH_HEADER_BYTES + size > log->batch_bytes_max)
        return ERR_TOO_BIG;
    if (log->gather_closed || log->ack_appended - log->ack_popped > log->ack_mask_max)
        return ERR_FULL;
    TRY(make_room(log, size));
    struct lane_batch *gather = &log->gather;
    struct lane_segment *segment = gather->segment;
    size_t at = gather->size == 0 ? BATCH_HEADER_BYTES : gather->size;
    uint32_t offset = (uint32_t)(gather->offset + at);
    struct index_place place = index_prepare(segment->index, record);
    record_copy(gather->data + at, record);
    index_approach(segment->index, &place);
    record_seal(gather->data + at, size, &segment->key, offset);
    TRY(index_add_at(segment->index, &place, record, offset, (uint32_t)size));
    gather->size = at + size;
    gather->records++;
    ack_push(log, cookie, position_of(segment->id, offset));
    log->appended = position_of(segment->id, offset + size);
    return OK;
}

void log_expect(struct log *log, struct conversation_id conversation)
{
    index_expect(log->segments[log->active]->index, conversation);
}

static void batch_encode(struct log *log, const struct lane_batch *batch, size_t padded)
{
    struct batch_header header = {
        .position = position_of(batch->segment->id, batch->offset),
        .previous_end = log->previous_end,
        .durable_before = log->durable,
        .writer_epoch = log->options.writer_epoch,
        .wall_ms = io_wall_ms(log->io),
        .record_base = log->record_count,
        .records = batch->records,
        .length = (uint32_t)batch->size,
        .lane = log->options.lane,
    };
    batch_header_encode(batch->data, &header, &batch->segment->key);
    memset(batch->data + batch->size, 0, padded - batch->size);
}

/* batch_start: what is gathered goes to the disk; the other buffer gathers from now on. */
static void batch_start(struct log *log)
{
    struct lane_batch *gather = &log->gather;
    if (log->state == LOG_FAILED || log->in_flight || gather->size == 0)
        return;
    size_t padded = align_up(gather->size, SEGMENT_BLOCK);
    batch_encode(log, gather, padded);
    log->write_op.owner = (uint64_t)(uintptr_t)log;
    enum err err = io_file_write(log->io, &log->write_op, gather->segment->write_fd, gather->offset,
                                 bytes_of(gather->data, padded), !log->options.skip_sync);
    if (err == ERR_FULL)
        return; /* the io is busy: the next turn tries again */
    if (err != OK) {
        lane_fail(log, err, "write_start");
        return;
    }
    io_file_submit(log->io); /* what the turn still does, it does while the disk works */
    struct lane_batch started = *gather;
    gather->data = log->flight.data;
    gather->size = 0;
    gather->records = 0;
    gather->offset = (uint32_t)(started.offset + padded);
    log->flight = started;
    log->flight_end = position_of(started.segment->id, gather->offset);
    log->appended = log->flight_end;
    log->previous_end = log->flight_end;
    log->record_count += started.records;
    log->flight_start_ns = io_now_ns(log->io);
    log->in_flight = true;
    log->gather_closed = false;
    log->marked = started.records == 0;
}

void log_flush(struct log *log)
{
    batch_start(log);
    lane_maintain(log);
    reader_wake(log);
}

/* ---- completion */

bool log_owns(const struct log *log, const struct io_file_op *op)
{
    return op->owner == (uint64_t)(uintptr_t)log;
}

static void on_written(struct log *log, enum err err)
{
    log->in_flight = false;
    if (err != OK)
        lane_fail(log, err, "write_or_sync");
    if (log->state == LOG_FAILED)
        return;
    log->written = log->flight_end;
    log->durable = log->flight_end;
    log->ack_done += log->flight.records;
    lane_check(log);
    lane_count(log, METRIC_LOG_BATCHES, 1);
    lane_count(log, METRIC_LOG_APPENDED, log->flight.records);
    lane_count(log, METRIC_LOG_APPENDED_BYTES, align_up(log->flight.size, SEGMENT_BLOCK));
    if (log->metrics != NULL)
        metric_observe(log->metrics, METRIC_SYNC_SECONDS,
                       io_now_ns(log->io) - log->flight_start_ns);
}

void log_on_file(struct log *log, struct io_file_op *op)
{
    if (op == &log->write_op)
        on_written(log, op->err);
    else
        reader_on_file(log, op);
}

bool log_completed(struct log *log, struct log_completion *out)
{
    /* A failed lane answers all that it accepted, once its last write is back. */
    bool failed = log->state == LOG_FAILED && !log->in_flight;
    if (log->ack_popped == (failed ? log->ack_appended : log->ack_done))
        return false;
    enum err err = OK;
    if (log->ack_popped == log->ack_done) {
        err = ERR_IO;
        log->ack_done++;
    }
    const struct lane_ack *ack = &log->acks[log->ack_popped++ & log->ack_mask];
    *out = (struct log_completion){ack->cookie, err, ack->position};
    return true;
}

enum log_state log_state(const struct log *log)
{
    return log->state;
}

uint64_t log_dropped_ms(const struct log *log)
{
    return log->dropped_ms;
}

const struct clock *log_clock(const struct log *log)
{
    return &log->lifecycle.clock;
}

uint64_t log_durable(const struct log *log)
{
    return log->durable;
}

void log_checkpointed(struct log *log, uint64_t position)
{
    CHECK(position <= log->durable);
    if (position > log->checkpointed)
        log->checkpointed = position;
}
