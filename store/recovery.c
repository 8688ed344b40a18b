/* recovery.c: from a directory of segments to a lane that appends.
 *
 *   list (listing.c) → mark (the highest durable_before of any valid batch header, or the
 *   checkpoint) → walk all segments from the checkpoint's on → cut the tail → the last one becomes
 *   ACTIVE
 *
 * - A batch at or above the mark that is not wholly valid is the tail: it was never acknowledged,
 * or its sync never returned. From there on everything is zeroed and synced.
 * - Whatever is wrong below the mark is damage: counted, logged with file and offset, left as it
 * is, not served. The running number of records in each batch header says how many are lost.
 * - Unreadable is not torn: a device error at or above the mark refuses the start (ERR_IO).
 * - What was read here may still be only in a cache of the machine (a process that was killed, not
 * a power cut), perhaps of one that failed to write: what stands above the mark is written again,
 * and synced, before anything is called durable. */
#include "store/log_private.h"

#include "core/file.h"
#include "core/logging.h"
#include "core/memory.h"
#include "store/archive_state.h"
#include "store/archive_walk.h"

struct recovery {
    struct log *log;
    void (*replay)(void *context, const struct log_record *record, uint64_t position);
    void *context;
    uint64_t *damaged;
    uint64_t checkpoint;
    uint64_t mark;
    uint32_t first;       /* index of the first segment to walk */
    uint32_t last_used;   /* index of the last segment with a valid batch */
    uint32_t tail;        /* offset behind that batch */
    uint64_t record_base; /* expected of the next batch */
    bool have_base;
    bool have_used;
    bool unknown;       /* damage was seen; the next batch tells how many records it cost */
    bool cut;           /* the tail was found: everything behind is zeroed */
    uint64_t newest_ms; /* wall clock of the newest batch */
};

/* ---- walking */

static enum err segment_scan_open(struct recovery *r, struct scan *scan, int *fd,
                                  const struct lane_segment *segment)
{
    char path[STORE_PATH_BYTES];
    TRY(store_path(path, r->log->directory, segment->id, ".segment"));
    TRY(file_open(fd, path, FILE_READ));
    enum err err = scan_open(scan, *fd);
    if (err == OK &&
        (scan->header.id != segment->id || scan->header.lane != r->log->options.lane)) {
        log_event(LOG_ERROR, "log_foreign_segment", LOG_U64("segment", segment->id),
                  LOG_U64("header_segment", scan->header.id),
                  LOG_U64("header_lane", scan->header.lane), LOG_END);
        scan_close(scan);
        err = ERR_INVALID;
    }
    if (err != OK)
        file_close(*fd);
    return err;
}

/* find_mark: the newest segment with any valid batch header has the highest durable_before. */
static enum err find_mark(struct recovery *r)
{
    r->mark = r->checkpoint;
    bool found = false;
    for (uint32_t i = r->log->segment_count; i-- > r->first && !found;) {
        if (r->log->segments[i]->archived)
            continue;
        struct scan scan;
        struct scan_item item = {.kind = SCAN_BATCH};
        int fd;
        enum err err = segment_scan_open(r, &scan, &fd, r->log->segments[i]);
        if (err == ERR_CORRUPT)
            continue;
        TRY(err);
        while ((err = scan_next(&scan, &item)) == OK && item.kind != SCAN_END) {
            if (item.kind == SCAN_DAMAGE)
                continue;
            found = true;
            if (item.header.durable_before > r->mark)
                r->mark = item.header.durable_before;
            if (item.header.wall_ms > r->newest_ms)
                r->newest_ms = item.header.wall_ms;
        }
        scan_close(&scan);
        file_close(fd);
        TRY(err);
    }
    return OK;
}

static void report_damage(struct recovery *r, uint32_t segment, uint32_t from, uint32_t to,
                          uint64_t records)
{
    *r->damaged += records;
    lane_count(r->log, METRIC_LOG_CORRUPT, records);
    log_event(LOG_ERROR, "log_damage", LOG_TEXT("directory", r->log->directory),
              LOG_U64("segment", segment), LOG_U64("from", from), LOG_U64("to", to),
              LOG_U64("records", records),
              LOG_TEXT("advice", "restore this file from a back-up, or run: roost log verify"),
              LOG_END);
}

/* take_batch: index and replay a batch that stays. */
static enum err take_batch(struct recovery *r, struct lane_segment *segment,
                           const struct scan *scan, const struct scan_item *item)
{
    const struct batch_header *header = &item->header;
    if (r->have_base && header->record_base > r->record_base)
        report_damage(r, segment->id, r->tail, item->from, header->record_base - r->record_base);
    else if (!r->have_base && r->unknown)
        report_damage(r, segment->id, SEGMENT_DATA_OFFSET, item->from, 1); /* at least */
    r->unknown = false;
    struct batch_walk walk;
    batch_walk_init(&walk, &scan->key, item);
    while (batch_walk_next(&walk)) {
        enum err err = OK;
        if (segment->index != NULL)
            err = index_add(segment->index, &walk.record, walk.offset, walk.size);
        if (err == ERR_INVALID)
            log_event(LOG_ERROR, "log_out_of_order", LOG_U64("segment", segment->id),
                      LOG_U64("offset", walk.offset), LOG_END);
        else
            TRY(err);
        uint64_t position = position_of(segment->id, walk.offset);
        if (r->replay != NULL && position >= r->checkpoint)
            r->replay(r->context, &walk.record, position);
    }
    if (walk.valid < header->records)
        report_damage(r, segment->id, item->from, item->to, header->records - walk.valid);
    r->record_base = header->record_base + header->records;
    r->have_base = true;
    r->tail = item->to;
    if (header->writer_epoch > r->log->options.writer_epoch)
        r->log->options.writer_epoch = header->writer_epoch;
    return OK;
}

/* cut_from: zero what is not zero from offset to the segment's end, and sync. */
static enum err cut_from(struct recovery *r, const struct lane_segment *segment, int fd,
                         uint64_t from)
{
    char path[STORE_PATH_BYTES];
    int out;
    TRY(store_path(path, r->log->directory, segment->id, ".segment"));
    uint8_t *data = memory_take(2 * SCAN_WINDOW_BYTES, MEMORY_STORE);
    if (data == NULL)
        return ERR_NO_MEMORY;
    enum err err = file_open(&out, path, FILE_WRITE);
    if (err != OK)
        goto fail_open;
    uint8_t *zeros = data + SCAN_WINDOW_BYTES;
    memset(zeros, 0, SCAN_WINDOW_BYTES);
    size_t done = SCAN_WINDOW_BYTES;
    for (uint64_t at = from; err == OK && done == SCAN_WINDOW_BYTES; at += done) {
        err = file_read(fd, at, data, SCAN_WINDOW_BYTES, &done);
        if (err == OK && !bytes_zero(data, done))
            err = file_write(out, at, bytes_of(zeros, done));
    }
    if (err == OK)
        err = file_sync(out);
    file_close(out);
fail_open:
    memory_give(data, MEMORY_STORE);
    return err;
}

static enum err cut_tail(struct recovery *r, const struct lane_segment *segment, int fd,
                         const struct scan_item *item)
{
    if (item->unreadable) {
        log_event(LOG_ERROR, "log_tail_unreadable", LOG_U64("segment", segment->id),
                  LOG_U64("from", item->from), LOG_END);
        return ERR_IO;
    }
    r->cut = r->cut || item->kind != SCAN_END;
    if (item->kind == SCAN_END && !item->dirty)
        return OK;
    MARK("log_tail_cut");
    log_event(LOG_WARN, "log_tail_cut", LOG_U64("segment", segment->id),
              LOG_U64("from", item->from), LOG_END);
    return cut_from(r, segment, fd, item->from);
}

static bool is_tail(const struct recovery *r, const struct lane_segment *segment,
                    const struct scan *scan, const struct scan_item *item)
{
    if (r->cut)
        return true;
    if (position_of(segment->id, item->from) < r->mark)
        return false;
    return item->kind != SCAN_BATCH || !batch_sound(&scan->key, item);
}

static enum err walk_items(struct recovery *r, uint32_t at, struct scan *scan, int fd)
{
    struct lane_segment *segment = r->log->segments[at];
    struct scan_item item;
    do {
        TRY(scan_next(scan, &item));
        if (is_tail(r, segment, scan, &item))
            return cut_tail(r, segment, fd, &item);
        r->unknown = r->unknown || item.kind == SCAN_DAMAGE;
        segment->unread = segment->unread || item.unreadable;
        if (item.kind != SCAN_BATCH)
            continue;
        TRY(take_batch(r, segment, scan, &item));
        segment->data_end = item.to;
        r->have_used = true;
        r->last_used = at;
    } while (item.kind != SCAN_END);
    return OK;
}

/* has_sidecar: it was sealed before: no index need be built of it. *data_end: what it covers. */
static enum err has_sidecar(const struct recovery *r, const struct lane_segment *segment,
                            bool *found, uint32_t *data_end)
{
    struct sidecar *sidecar;
    enum err err = sidecar_load(&sidecar, r->log->directory, &segment->header);
    *found = err == OK;
    if (err != OK)
        return err == ERR_NO_MEMORY ? err : OK;
    *data_end = sidecar->data_end;
    sidecar_destroy(sidecar);
    return OK;
}

/* finish_sealed: a walked segment that is not the last: only its sidecar need stay. */
static enum err finish_sealed(struct recovery *r, struct lane_segment *segment)
{
    struct log *log = r->log;
    if (segment->state == SEGMENT_LOST || segment->index == NULL)
        return OK;
    enum err err = OK;
    if (!segment->unread) /* what it lacks would be hidden for good */
        err = sidecar_write(log->directory, &segment->header, segment->index, segment->data_end);
    if (err == ERR_NO_MEMORY)
        return err;
    segment->expires_min_ms = segment->index->expires_min_ms;
    segment->expiry_known = true;
    /* One that cannot be written now is rebuilt when it is needed. */
    index_destroy(segment->index);
    segment->index = NULL;
    return OK;
}

static enum err walk_segment(struct recovery *r, uint32_t at)
{
    struct lane_segment *segment = r->log->segments[at];
    struct scan scan;
    int fd;
    enum err err = segment_scan_open(r, &scan, &fd, segment);
    if (err == ERR_CORRUPT) {
        report_damage(r, segment->id, 0, SEGMENT_DATA_OFFSET, 0);
        segment->state = SEGMENT_LOST;
        r->unknown = true;
        return OK;
    }
    TRY(err);
    if (scan.copy_damaged)
        report_damage(r, segment->id, 0, SEGMENT_DATA_OFFSET, 0);
    segment->header = scan.header;
    segment->key = scan.key;
    segment->data_end = SEGMENT_DATA_OFFSET;
    bool sealed;
    uint32_t sealed_end = 0;
    err = has_sidecar(r, segment, &sealed, &sealed_end);
    if (err == OK && !sealed)
        err = index_create(&segment->index, &scan.key, scan.header.bytes);
    uint32_t used_before = r->last_used;
    bool had_used = r->have_used;
    if (err == OK)
        err = walk_items(r, at, &scan, fd);
    segment->rebuild = sealed && sealed_end != segment->data_end;
    scan_close(&scan);
    file_close(fd);
    if (err == OK && had_used && r->last_used != used_before)
        err = finish_sealed(r, r->log->segments[used_before]);
    return err;
}

/* ---- archives above the checkpoint: the catalog is older than they are */

static enum err replay_block(struct recovery *r, const struct lane_segment *segment,
                             struct bytes records, const struct segment_key *key)
{
    struct log_record record;
    struct bytes encoded;
    enum err err;
    while ((err = archive_record_next(&record, &encoded, &records, key)) == OK) {
        const struct log_record found = record;
        if (found.kind == RECORD_GONE)
            TRY(gone_given(&record, &found));
        r->replay(r->context, &record, position_of(segment->id, 0));
    }
    return err == ERR_NOT_FOUND ? OK : err;
}

static enum err replay_states(struct recovery *r, const struct lane_segment *segment,
                              struct bytes content)
{
    struct archive_state state;
    struct archive_mark mark;
    uint8_t read[8];
    enum err err;
    while ((err = archive_state_next(&state, &content)) == OK)
        for (uint32_t i = 0; i < state.count; i++) {
            archive_state_mark(&mark, &state, i);
            struct log_record record = archive_mark_record(&mark, state.conversation, read);
            if (mark.marked)
                r->replay(r->context, &record, position_of(segment->id, 0));
        }
    return err == ERR_NOT_FOUND ? OK : err;
}

static enum err replay_walk(struct recovery *r, const struct lane_segment *segment,
                            const struct archive *archive)
{
    struct archive_walk walk;
    struct walk_item item = {.kind = WALK_BLOCK};
    archive_walk_init(&walk, archive->fd, &archive->key, ARCHIVE_HEADER_BYTES,
                      archive->footer.bytes);
    enum err err = OK;
    while (err == OK && (err = archive_walk_next(&walk, &item)) == OK && item.kind != WALK_END) {
        struct bytes records = {NULL, 0};
        if (item.kind == WALK_BLOCK && item.block.kind == ARCHIVE_STATES)
            err = replay_states(r, segment, item.content);
        if (item.kind == WALK_BLOCK && item.block.kind == ARCHIVE_DATA)
            err = archive_walk_records(&walk, &item, &records);
        if (err == OK)
            err = replay_block(r, segment, records, &archive->key);
        if (err == ERR_CORRUPT || item.kind == WALK_LOST || item.kind == WALK_DAMAGED) {
            report_damage(r, segment->id, 0, 0, item.kind == WALK_LOST ? item.block.count : 1);
            err = OK;
        }
    }
    archive_walk_deinit(&walk);
    return err;
}

bool lane_below(const struct lane_segment *segment, uint64_t position)
{
    return segment->id < position_segment(position) ||
           (segment->data_end != 0 && position_of(segment->id, segment->data_end) <= position);
}

/* replay_archive: where what it holds may stand above the checkpoint: the catalog is older than the
 * merge, as in a snapshot. */
static enum err replay_archive(struct recovery *r, const struct lane_segment *segment)
{
    char path[STORE_PATH_BYTES];
    struct archive *archive;
    if (r->replay == NULL || segment->state == SEGMENT_LOST || lane_below(segment, r->checkpoint))
        return OK;
    TRY(lane_archive_path(r->log, segment, path));
    TRY(archive_load(&archive, path));
    enum err err = replay_walk(r, segment, archive);
    archive_destroy(archive);
    return err;
}

/* ---- becoming active */

static enum err open_for_writing(struct log *log, struct lane_segment *segment)
{
    char path[STORE_PATH_BYTES];
    TRY(store_path(path, log->directory, segment->id, ".segment"));
    uint32_t direct = lane_direct_flags(log);
    enum err err = file_open(&segment->write_fd, path, FILE_WRITE | direct);
    if (err == ERR_UNSUPPORTED && direct != 0) {
        direct = 0;
        err = file_open(&segment->write_fd, path, FILE_WRITE);
    }
    if (err != OK) {
        segment->write_fd = -1;
        return err;
    }
    TRY(file_sync(segment->write_fd));
    err = file_open(&segment->read_fd, path, FILE_READ | direct);
    if (err != OK)
        segment->read_fd = -1;
    return err;
}

static enum err remove_segment(struct log *log, uint32_t at)
{
    char path[STORE_PATH_BYTES];
    TRY(store_path(path, log->directory, log->segments[at]->id, ".segment"));
    TRY(file_remove(path));
    lane_segment_destroy(log->segments[at]);
    log->segment_count--;
    memmove(log->segments + at, log->segments + at + 1,
            (log->segment_count - at) * sizeof *log->segments);
    return OK;
}

/* ready_segments: those behind the active one hold nothing; the first keeps its use if it fits. */
static enum err ready_segments(struct recovery *r)
{
    struct log *log = r->log;
    for (uint32_t at = r->first; at < log->active; at++)
        if (log->segments[at]->index != NULL)
            TRY(finish_sealed(r, log->segments[at]));
    for (uint32_t at = log->active + 1; at < log->segment_count;) {
        struct lane_segment *segment = log->segments[at];
        bool usable = segment->state != SEGMENT_LOST && lane_next_ready(log) == NULL &&
                      segment->header.bytes == log->options.segment_bytes &&
                      segment->id > position_segment(r->checkpoint);
        if (usable) {
            segment->state = SEGMENT_READY;
            TRY(open_for_writing(log, segment));
        } else if (segment->state != SEGMENT_LOST) {
            TRY(remove_segment(log, at));
            continue;
        }
        at++;
    }
    return OK;
}

static enum err first_segment(struct recovery *r)
{
    struct log *log = r->log;
    if (r->checkpoint != 0) {
        report_damage(r, position_segment(r->checkpoint), 0, 0, 1);
        r->unknown = false;
        if (log->id_next <= position_segment(r->checkpoint))
            log->id_next = position_segment(r->checkpoint) + 1;
    }
    TRY(lane_make_now(log));
    struct lane_segment *segment = log->segments[log->segment_count - 1];
    segment->state = SEGMENT_ACTIVE;
    log->active = log->segment_count - 1;
    log->gather.segment = segment;
    log->gather.offset = SEGMENT_DATA_OFFSET;
    return OK;
}

/* rewrite: write from … to of a segment once more, as it reads, and sync. */
static enum err rewrite(struct recovery *r, const struct lane_segment *segment, uint64_t from,
                        uint64_t to)
{
    char path[STORE_PATH_BYTES];
    int fd;
    TRY(store_path(path, r->log->directory, segment->id, ".segment"));
    uint8_t *data = memory_take(SCAN_WINDOW_BYTES, MEMORY_STORE);
    if (data == NULL)
        return ERR_NO_MEMORY;
    enum err err = file_open(&fd, path, FILE_WRITE);
    if (err != OK)
        goto fail_open;
    for (uint64_t at = from; err == OK && at < to;) {
        size_t size = to - at < SCAN_WINDOW_BYTES ? (size_t)(to - at) : SCAN_WINDOW_BYTES;
        size_t done = 0;
        err = file_read(fd, at, data, size, &done);
        if (err == OK && done != size)
            err = ERR_IO;
        if (err == OK)
            err = file_write(fd, at, bytes_of(data, size));
        at += size;
    }
    if (err == OK)
        err = file_sync(fd);
    file_close(fd);
fail_open:
    memory_give(data, MEMORY_STORE);
    return err;
}

/* secure_tail: what stands above the mark may be readable only from a cache whose write-back
 * failed: after a failed sync the next one succeeds and the data is gone all the same. It is
 * written again before anything calls it durable. */
static enum err secure_tail(struct recovery *r)
{
    for (uint32_t at = r->first; r->have_used && at <= r->last_used; at++) {
        const struct lane_segment *segment = r->log->segments[at];
        uint64_t from = SEGMENT_DATA_OFFSET;
        if (segment->state == SEGMENT_LOST || segment->id < position_segment(r->mark))
            continue;
        if (segment->id == position_segment(r->mark) && position_offset(r->mark) > from)
            from = position_offset(r->mark);
        if (from < segment->data_end)
            TRY(rewrite(r, segment, from, segment->data_end));
    }
    return OK;
}

/* index_again: the last used segment had been sealed already, and none behind it has a batch. Its
 * sidecar goes, since it does not have what will be appended. */
static enum err index_again(struct recovery *r, struct lane_segment *segment)
{
    struct scan scan;
    int fd;
    uint32_t data_end;
    TRY(segment_scan_open(r, &scan, &fd, segment));
    enum err err = index_rebuild(&segment->index, &scan, &data_end);
    scan_close(&scan);
    file_close(fd);
    segment->rebuild = false;
    char path[STORE_PATH_BYTES];
    if (err == OK)
        err = store_path(path, r->log->directory, segment->id, ".index");
    if (err == OK)
        err = file_remove(path);
    return err;
}

/* activate: append behind the last valid batch. */
static enum err activate(struct recovery *r)
{
    struct log *log = r->log;
    uint32_t at = r->have_used ? r->last_used : r->first;
    while (at < log->segment_count &&
           (log->segments[at]->state == SEGMENT_LOST || log->segments[at]->archived))
        at++;
    if (at == log->segment_count)
        return first_segment(r);
    struct lane_segment *active = log->segments[at];
    log->active = at;
    active->state = SEGMENT_ACTIVE;
    if (active->index == NULL)
        TRY(index_again(r, active));
    TRY(open_for_writing(log, active));
    TRY(file_sync_directory(log->directory));
    log->gather.segment = active;
    log->gather.offset = active->data_end;
    TRY(ready_segments(r));
    uint64_t tail = position_of(active->id, active->data_end);
    if (r->checkpoint > tail) {
        /* New records must stand behind the checkpoint, or the next start would not see them. */
        report_damage(r, active->id, active->data_end, position_offset(r->checkpoint), 1);
        r->unknown = false;
        log->segment_full = true;
        if (log->id_next <= position_segment(r->checkpoint))
            log->id_next = position_segment(r->checkpoint) + 1;
    }
    return OK;
}

enum err lane_recover(struct log *log,
                      void (*replay)(void *context, const struct log_record *record,
                                     uint64_t position),
                      void *context, uint64_t *damaged)
{
    struct recovery r = {.log = log,
                         .replay = replay,
                         .context = context,
                         .damaged = damaged,
                         .checkpoint = log->options.checkpoint};
    TRY(lane_list(log));
    for (; r.first < log->segment_count; r.first++) {
        const struct lane_segment *segment = log->segments[r.first];
        if (segment->archived)
            TRY(replay_archive(&r, segment));
        else if (segment->id >= position_segment(r.checkpoint))
            break;
    }
    if (r.first == log->segment_count) {
        TRY(first_segment(&r));
    } else {
        r.have_base = r.first == 0 && log->segments[0]->id == 1;
        TRY(find_mark(&r));
        for (uint32_t i = r.first; i < log->segment_count; i++) {
            struct lane_segment *segment = log->segments[i];
            TRY(segment->archived ? replay_archive(&r, segment) : walk_segment(&r, i));
            r.have_base = r.have_base && !segment->archived; /* the next one's batches follow it */
        }
        TRY(secure_tail(&r));
        TRY(activate(&r));
        if (r.unknown)
            report_damage(&r, log->gather.segment->id, log->gather.offset, log->gather.offset, 1);
    }
    uint64_t end = position_of(log->gather.segment->id, log->gather.offset);
    log->appended = log->written = log->durable = log->previous_end = end;
    log->checkpointed = r.checkpoint;
    lifecycle_open(log, r.newest_ms);
    log->record_count = r.record_base;
    lifecycle_measure(log);
    if (log->metrics != NULL)
        metric_set(log->metrics, METRIC_LOG_STATE, log->state);
    return OK;
}
