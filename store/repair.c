/* repair.c: one walk over the lane's segments (archives: repair_archive.c), in two parts:
 *
 *   headers  a lost copy is written again from the other; where both are lost, the nonce in the
 *            segment's index makes them anew, else the segment gets a new header and all its
 *            records count as lost
 *   chain    each valid batch says where the one before it ended and how many records came before:
 *            what does not follow on the last sound batch is a hole, from there to that end, and
 *            gets new batch headers. In these, and in batches whose own header is valid, records
 *            that are sound stay where they are
 *
 * What stands where records are missing: repair_fill.c. The index is then made anew. Behind the
 * last batch of a segment, where only zeros belong, there are zeros again. */
#include "store/repair.h"

#include "core/file.h"
#include "core/memory.h"
#include "store/repair_fill.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

struct repair {
    struct walk walk;
    const char *quarantine;
    uint64_t now_ms;
    const struct inspect_output *out;
    struct repair_report *report;
    uint64_t base; /* of the newest batch's end: records before it, and where it is */
    uint64_t end;
    bool have_base;
    uint32_t changed;          /* segment whose index no longer fits */
    struct lost_record *known; /* of the range at hand, by offset */
    uint32_t known_count;
    uint32_t known_capacity;
    uint32_t stained; /* segment that is not zero behind its last batch, and from where */
    uint32_t stained_from;
};

/* ---- what the index knows */

static enum err add_known(struct repair *r, const struct sidecar_entry *entry)
{
    TRY(memory_grow(&r->known, &r->known_capacity, r->known_count + 1, sizeof *r->known,
                    MEMORY_STORE));
    r->known[r->known_count++] = (struct lost_record){entry->conversation, entry->seq, entry->seq,
                                                      entry->offset, entry->size};
    return OK;
}

static int offset_compare(const void *a, const void *b)
{
    const struct lost_record *x = a;
    const struct lost_record *y = b;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* find_known: what the segment's index has in [from, to), sorted by offset; nothing where there is
 * no index, or it is damaged too. */
static enum err find_known(struct repair *r, const struct segment_header *header, uint32_t from,
                           uint32_t to)
{
    struct sidecar *sidecar;
    r->known_count = 0;
    enum err err = sidecar_load(&sidecar, r->walk.directory, header);
    if (err == ERR_NO_MEMORY)
        return err;
    if (err != OK)
        return OK;
    struct sidecar_entry entries[SIDECAR_BLOCK_ENTRIES];
    uint32_t count = 1;
    for (uint32_t n = 0; err == OK && count != 0; n++) {
        err = sidecar_entries(sidecar, n, entries, &count);
        for (uint32_t i = 0; i < count && err == OK; i++)
            if (entries[i].offset >= from && entries[i].offset < to)
                err = add_known(r, &entries[i]);
    }
    sidecar_destroy(sidecar);
    if (err == ERR_NO_MEMORY)
        return err;
    if (r->known_count != 0)
        qsort(r->known, r->known_count, sizeof *r->known, offset_compare);
    return OK;
}

/* ---- telling and copying away */

static enum err put_away(struct repair *r, int fd, struct quarantine_entry *entry)
{
    entry->known = r->known;
    entry->known_count = r->known_count;
    entry->now_ms = r->now_ms;
    r->report->ranges++;
    TRY(quarantine_put(r->quarantine, fd, entry));
    inspect_print(r->out,
                  "segment %08" PRIx32 " offset %" PRIu64 " to %" PRIu64 ": %s; %s%" PRIu64
                  " records lost, %" PRIu32 " of them known; copied to %s",
                  entry->segment, entry->from, entry->to, entry->what,
                  entry->counted ? "" : "at least ", entry->lost, entry->known_count,
                  r->quarantine);
    r->report->lost += entry->lost;
    r->report->lost_known += entry->known_count;
    return OK;
}

static void give_up(struct repair *r, uint32_t segment, uint32_t offset, const char *why)
{
    inspect_print(r->out, "segment %08" PRIx32 " offset %" PRIu32 ": left as it is: %s", segment,
                  offset, why);
}

static enum err open_for_repair(const struct repair *r, uint32_t id, int *fd)
{
    char path[STORE_PATH_BYTES];
    TRY(store_path(path, r->walk.directory, id, ".segment"));
    return file_open(fd, path, FILE_WRITE);
}

static enum err write_sync(const struct repair *r, uint32_t id, uint64_t offset, struct bytes data)
{
    int fd;
    TRY(open_for_repair(r, id, &fd));
    enum err err = file_write(fd, offset, data);
    if (err == OK)
        err = file_sync(fd);
    file_close(fd);
    return err;
}

/* fill_write: f's batch with its gaps filled, if that makes it sound. ERR_INVALID: it does not. */
static enum err fill_write(struct repair *r, struct fill *f, const struct scan_item *item,
                           uint64_t lost)
{
    if (!fill_plan_gaps(f, item, lost))
        return ERR_INVALID;
    fill_gaps(f, item);
    struct scan_item filled = *item;
    filled.data = bytes_of(f->data, item->header.length);
    if (f->extra != 0 || !batch_sound(f->key, &filled))
        return ERR_INVALID;
    size_t padded = align_up(item->header.length, SEGMENT_BLOCK);
    return write_sync(r, f->key->id, item->from, bytes_of(f->data, padded));
}

/* ---- a batch whose header is valid */

/* drop_valid: the known ones that are still there are not lost. data: the range from offset on. */
static void drop_valid(struct repair *r, struct bytes data, uint32_t offset,
                       const struct segment_key *key)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < r->known_count; i++) {
        struct log_record record;
        size_t taken;
        size_t at = r->known[i].offset - offset;
        if (at < data.size &&
            record_decode(&record, bytes_skip(data, at), key, r->known[i].offset, &taken) != OK)
            r->known[kept++] = r->known[i];
    }
    r->known_count = kept;
}

static enum err repair_batch(struct repair *r, const struct scan *scan, int fd,
                             const struct scan_item *item)
{
    size_t padded = align_up(item->header.length, SEGMENT_BLOCK);
    struct batch_walk walk;
    batch_walk_init(&walk, &scan->key, item);
    while (batch_walk_next(&walk))
        ;
    uint64_t lost = item->header.records > walk.valid ? item->header.records - walk.valid : 0;
    struct quarantine_entry entry = {
        .segment = scan->header.id,
        .from = item->from,
        .to = item->to,
        .what = lost == 0 ? "padding of a batch is not zero" : "records of a batch are damaged",
        .lost = lost,
        .counted = true,
    };
    TRY(find_known(r, &scan->header, item->from, item->to));
    drop_valid(r, item->data, item->from, &scan->key);
    TRY(put_away(r, fd, &entry));
    uint8_t *data = memory_take_zeroed(2 * padded, MEMORY_STORE);
    if (data == NULL)
        return ERR_NO_MEMORY;
    memcpy(data, item->data.data, item->data.size);
    struct fill f = {.data = data,
                     .zeros = data + padded,
                     .start = item->from,
                     .key = &scan->key,
                     .known = r->known,
                     .known_count = r->known_count};
    enum err err = fill_write(r, &f, item, lost);
    if (err == ERR_INVALID) {
        give_up(r, scan->header.id, item->from, "its records' sizes do not fit the batch");
        err = OK;
    } else if (err == OK) {
        r->report->repaired++;
        r->changed = scan->header.id;
    }
    memory_give(data, MEMORY_STORE);
    return err;
}

/* ---- a hole in the chain */

/* hole_write: ERR_INVALID: the count of records does not fit what stands there. */
static enum err hole_write(struct repair *r, struct hole *hole, const struct batch_header *next,
                           struct bytes data)
{
    struct segment_key key = segment_key_of(&hole->segment);
    uint8_t *memory = memory_take_zeroed(2 * data.size, MEMORY_STORE);
    if (memory == NULL)
        return ERR_NO_MEMORY;
    memcpy(memory, data.data, data.size);
    struct fill f = {.data = memory,
                     .zeros = memory + data.size,
                     .start = hole->from,
                     .key = &key,
                     .known = r->known,
                     .known_count = r->known_count};
    enum err err = fill_plan_hole(&f, data, hole, next) ? OK : ERR_INVALID;
    if (err == OK) {
        struct batch_header header = *next;
        header.lane = hole->segment.lane;
        header.record_base = next->record_base - hole->records;
        header.previous_end = r->have_base ? r->end : position_of(key.id, hole->from);
        fill_hole(&f, data, header);
        err = f.extra != 0 || f.impossible ? ERR_INVALID : OK;
    }
    if (err == OK)
        err = write_sync(r, key.id, hole->from, bytes_of(memory, data.size));
    memory_give(memory, MEMORY_STORE);
    return err;
}

/* hole_valid: how many records in it are sound. */
static uint64_t hole_valid(const struct hole *hole, struct bytes data)
{
    struct segment_key key = segment_key_of(&hole->segment);
    struct scan_item item = {.from = hole->from, .data = data};
    struct batch_walk walk;
    batch_walk_init(&walk, &key, &item);
    while (batch_walk_next(&walk))
        ;
    return walk.valid;
}

static enum err repair_hole(struct repair *r, struct hole *hole, int fd,
                            const struct batch_header *next)
{
    struct segment_key key = segment_key_of(&hole->segment);
    size_t size = hole->to - hole->from;
    size_t done = 0;
    TRY(find_known(r, &hole->segment, hole->from, hole->to));
    uint8_t *memory = memory_take_zeroed(size, MEMORY_STORE);
    if (memory == NULL)
        return ERR_NO_MEMORY;
    struct bytes data = bytes_of(memory, size);
    if (file_read(fd, hole->from, memory, size, &done) != OK)
        memset(memory, 0, size); /* the copy has what can be read block by block */
    drop_valid(r, data, hole->from, &key);
    uint64_t valid = hole_valid(hole, data);
    struct quarantine_entry entry = {
        .segment = hole->segment.id,
        .from = hole->from,
        .to = hole->to,
        .what = "batches are damaged or missing",
        .lost = hole->counted && hole->records > valid ? hole->records - valid : r->known_count,
        .counted = hole->counted,
    };
    enum err err = put_away(r, fd, &entry);
    if (err == OK)
        err = hole_write(r, hole, next, data);
    if (err == OK) {
        r->report->repaired++;
        r->changed = hole->segment.id;
    } else if (err == ERR_INVALID) {
        give_up(r, hole->segment.id, hole->from, "its records do not fit the numbers around it");
        err = OK;
    }
    memory_give(memory, MEMORY_STORE);
    return err;
}

/* make_segment: a file that was lost, with a header of its own and zeros. */
static enum err make_segment(const struct repair *r, const struct segment_header *header)
{
    char path[STORE_PATH_BYTES];
    uint8_t head[SEGMENT_DATA_OFFSET];
    int fd;
    TRY(store_path(path, r->walk.directory, header->id, ".segment"));
    segment_header_encode(head, header);
    TRY(file_open(&fd, path, FILE_WRITE | FILE_CREATE));
    enum err err = file_truncate(fd, 0);
    if (err == OK)
        err = file_truncate(fd, header->bytes);
    if (err == OK)
        err = file_write(fd, 0, bytes_of(head, sizeof head));
    if (err == OK)
        err = file_sync(fd);
    file_close(fd);
    return err == OK ? file_sync_directory(r->walk.directory) : err;
}

/* fresh_header: for a segment of which nothing is left; as the one beside it. */
static struct segment_header fresh_header(const struct repair *r, uint32_t id,
                                          const struct segment_header *beside)
{
    const struct hash_key key = {beside->nonce, r->now_ms};
    struct segment_header header = *beside;
    header.id = id;
    header.nonce = hash_u64(&key, id);
    return header;
}

/* hole_segment: the file with the hole, made where it is missing. */
static enum err hole_segment(struct repair *r, struct hole *hole, int *fd, uint32_t id,
                             const struct segment_header *beside)
{
    enum err err = open_for_repair(r, id, fd);
    if (err == ERR_NOT_FOUND) {
        hole->segment = fresh_header(r, id, beside);
        TRY(make_segment(r, &hole->segment));
        inspect_print(r->out, "segment %08" PRIx32 ": the file is missing: made again, empty", id);
        err = open_for_repair(r, id, fd);
    }
    TRY(err);
    struct scan scan;
    err = scan_open(&scan, *fd);
    if (err != OK) {
        file_close(*fd);
        return err;
    }
    hole->segment = scan.header;
    scan_close(&scan);
    return OK;
}

/* mend_chain: what is missing between the newest sound batch and this one. */
static enum err mend_chain(struct repair *r, const struct scan *scan, const struct scan_item *item)
{
    const struct batch_header *next = &item->header;
    uint64_t to = next->previous_end;
    uint64_t first = position_of(position_segment(to), SEGMENT_DATA_OFFSET);
    uint64_t from = first;
    if (r->stained == position_segment(to) && r->stained_from < position_offset(to))
        r->stained_from = position_offset(to);
    if (r->have_base) {
        if (r->end == to && r->base == next->record_base)
            return OK;
        if (position_segment(r->end) == position_segment(to))
            from = r->end;
    } else if (position_segment(to) != scan->header.id || to == first) {
        return OK; /* older segments were freed: nothing says that anything is missing */
    }
    struct hole hole = {.from = position_offset(from), .to = position_offset(to)};
    hole.counted = r->have_base && next->record_base >= r->base;
    hole.records = hole.counted ? next->record_base - r->base : 0;
    if (from >= to || hole.from % SEGMENT_BLOCK != 0 || hole.to % SEGMENT_BLOCK != 0) {
        give_up(r, scan->header.id, item->from, "it does not follow on the batch before it");
        return OK;
    }
    int fd;
    enum err err = hole_segment(r, &hole, &fd, position_segment(to), &scan->header);
    if (err == ERR_CORRUPT) {
        give_up(r, position_segment(to), hole.from, "its segment has no readable header");
        return OK;
    }
    TRY(err);
    if (hole.to > hole.segment.bytes)
        give_up(r, hole.segment.id, hole.from, "the next batch names an end behind this segment");
    else
        err = repair_hole(r, &hole, fd, next);
    file_close(fd);
    return err;
}

/* ---- behind the last batch */

static enum err clean_rest(struct repair *r, const struct scan *scan, int fd)
{
    uint32_t from = r->stained_from;
    r->stained = 0;
    size_t size = (size_t)(scan->header.bytes - from);
    uint8_t *data = memory_take(size + 1, MEMORY_STORE);
    if (data == NULL)
        return ERR_NO_MEMORY;
    size_t done = 0;
    bool readable = file_read(fd, from, data, size, &done) == OK && done == size;
    enum err err = OK;
    if (!readable || !bytes_zero(data, size)) {
        struct quarantine_entry entry = {.segment = scan->header.id,
                                         .from = from,
                                         .to = scan->header.bytes,
                                         .what = "not zero behind the last batch",
                                         .counted = true};
        r->known_count = 0;
        err = put_away(r, fd, &entry);
        memset(data, 0, size);
        if (err == OK)
            err = write_sync(r, scan->header.id, from, bytes_of(data, size));
        if (err == OK)
            r->report->repaired++;
    }
    memory_give(data, MEMORY_STORE);
    return err;
}

/* clean_stain: once the next segment's first batch has told where that one ended. */
static enum err clean_stain(struct repair *r)
{
    struct scan scan;
    int fd;
    if (r->stained == 0)
        return OK;
    TRY(open_for_repair(r, r->stained, &fd));
    enum err err = scan_open(&scan, fd);
    if (err == OK) {
        err = clean_rest(r, &scan, fd);
        scan_close(&scan);
    }
    file_close(fd);
    return err;
}

/* ---- headers */

static enum err header_put_away(struct repair *r, int fd, uint32_t id, uint64_t to,
                                const char *what)
{
    struct quarantine_entry entry = {
        .segment = id, .from = 0, .to = to, .what = what, .counted = true};
    r->known_count = 0;
    return put_away(r, fd, &entry);
}

static enum err header_write(struct repair *r, const struct segment_header *header)
{
    uint8_t head[SEGMENT_DATA_OFFSET];
    segment_header_encode(head, header);
    TRY(write_sync(r, header->id, 0, bytes_of(head, sizeof head)));
    r->report->repaired++;
    return OK;
}

/* beside: the header of the nearest other segment that has one. */
static bool beside(const struct repair *r, uint32_t at, struct segment_header *header)
{
    for (uint32_t step = 1; step < r->walk.count; step++)
        for (int side = 0; side < 2; side++) {
            struct scan scan;
            int fd;
            if (side == 0 ? step > at : at + step >= r->walk.count)
                continue;
            if (walk_segment_open(&r->walk, side == 0 ? at - step : at + step, &fd, &scan) != OK)
                continue;
            *header = scan.header;
            scan_close(&scan);
            file_close(fd);
            return true;
        }
    return false;
}

/* header_lost: from the index's nonce, or, where that is not to be had, new: then no record of the
 * segment can be told from noise any more, and what they leave is a hole. */
static enum err header_lost(struct repair *r, uint32_t at)
{
    uint32_t id = r->walk.ids[at];
    struct segment_header header;
    uint64_t bytes = 0;
    uint64_t nonce;
    int fd;
    TRY(open_for_repair(r, id, &fd));
    enum err err = file_size(fd, &bytes);
    bool last = at + 1 == r->walk.count;
    bool known = sidecar_nonce(&nonce, r->walk.directory, id) == OK;
    if (err == OK && (!beside(r, at, &header) || (last && !known) || bytes < SEGMENT_BYTES_MIN)) {
        r->report->ranges++;
        give_up(r, id, 0, "both copies of its header are damaged, and nothing tells what it held");
        goto done;
    }
    if (err == OK)
        err = header_put_away(r, fd, id, known ? SEGMENT_DATA_OFFSET : bytes,
                              "both copies of the segment's header are damaged");
    if (err != OK)
        goto done;
    header = fresh_header(r, id, &header);
    header.bytes = align_down(bytes, SEGMENT_BLOCK);
    if (known) {
        header.nonce = nonce;
        err = header_write(r, &header);
    } else {
        err = make_segment(r, &header);
        r->report->repaired += err == OK;
    }
done:
    file_close(fd);
    return err;
}

static enum err repair_headers(struct repair *r)
{
    for (uint32_t i = 0; i < r->walk.count; i++) {
        struct scan scan;
        int fd;
        if (walk_covered(&r->walk, r->walk.ids[i]))
            continue;
        enum err err = walk_segment_open(&r->walk, i, &fd, &scan);
        if (err == ERR_CORRUPT || err == ERR_IO) {
            TRY(header_lost(r, i));
            continue;
        }
        TRY(err);
        if (scan.header.id != r->walk.ids[i])
            give_up(r, r->walk.ids[i], 0, "its header names another segment: a file was renamed");
        else if (scan.copy_damaged) {
            err = header_put_away(r, fd, scan.header.id, SEGMENT_DATA_OFFSET,
                                  "one copy of the segment's header is damaged");
            if (err == OK)
                err = header_write(r, &scan.header);
        }
        scan_close(&scan);
        file_close(fd);
        TRY(err);
    }
    return OK;
}

/* ---- the walk */

static enum err repair_item(struct repair *r, const struct scan *scan, int fd,
                            const struct scan_item *item)
{
    bool damaged = walk_damaged(&r->walk, scan, item);
    if (item->kind == SCAN_END && damaged) {
        r->stained = scan->header.id;
        r->stained_from = item->from;
    }
    if (item->kind != SCAN_BATCH)
        return OK; /* the next valid batch tells what is missing */
    TRY(mend_chain(r, scan, item));
    if (damaged)
        TRY(repair_batch(r, scan, fd, item));
    r->base = item->header.record_base + item->header.records;
    r->end = position_of(scan->header.id, item->to);
    r->have_base = true;
    return OK;
}

/* mend_index: made again where it does not say what its segment holds. */
static enum err mend_index(struct repair *r, uint32_t id)
{
    struct scan scan;
    int fd;
    TRY(open_for_repair(r, id, &fd));
    enum err err = scan_open(&scan, fd);
    if (err == OK) {
        bool sound = true;
        err = walk_index_check(&r->walk, &scan, true, &sound);
        if (err == OK && !sound && r->changed != id) {
            r->report->ranges++;
            r->report->repaired++;
            inspect_print(r->out, "index of segment %08" PRIx32 ": damaged: made again", id);
        }
        scan_close(&scan);
    }
    file_close(fd);
    r->changed = r->changed == id ? 0 : r->changed;
    return err == ERR_CORRUPT ? OK : err;
}

static enum err repair_segment(struct repair *r, uint32_t at)
{
    struct scan scan;
    int fd;
    if (walk_covered(&r->walk, r->walk.ids[at]))
        return OK; /* the next start removes it */
    r->have_base = r->have_base && !walk_apart(&r->walk, at);
    enum err err = walk_segment_open(&r->walk, at, &fd, &scan);
    if (err == ERR_CORRUPT || err == ERR_IO)
        return OK; /* repair_headers has told */
    TRY(err);
    struct scan_item item = {.kind = SCAN_BATCH};
    while (err == OK && item.kind != SCAN_END) {
        err = scan_next(&scan, &item);
        if (err == OK)
            err = repair_item(r, &scan, fd, &item);
        uint32_t stained = r->stained;
        if (err == OK && stained != 0 && stained != scan.header.id)
            err = clean_stain(r);
        if (err == OK && r->changed != 0 && r->changed != scan.header.id)
            err = mend_index(r, r->changed);
    }
    scan_close(&scan);
    file_close(fd);
    return err == OK ? mend_index(r, r->walk.ids[at]) : err;
}

static enum err repair_archives(struct repair *r)
{
    for (uint32_t i = 0; i < r->walk.archive_count; i++) {
        struct repair_target target = {.directory = r->walk.archives[i].directory,
                                       .quarantine = r->quarantine,
                                       .now_ms = r->now_ms,
                                       .out = r->out,
                                       .report = r->report};
        TRY(walk_archive_path(&r->walk.archives[i], target.path));
        TRY(repair_archive(&target));
    }
    return OK;
}

static enum err repair_segments(struct repair *r)
{
    r->have_base = r->walk.count > 0 && r->walk.ids[0] == 1; /* else older ones were merged */
    r->end = position_of(1, SEGMENT_DATA_OFFSET);
    TRY(repair_headers(r));
    for (uint32_t i = 0; i < r->walk.count; i++)
        TRY(repair_segment(r, i));
    return OK;
}

enum err log_repair(const char *directory, const char *cold, const char *quarantine,
                    uint64_t now_ms, const struct inspect_output *out, struct repair_report *report)
{
    struct repair r = {.quarantine = quarantine, .now_ms = now_ms, .out = out, .report = report};
    char path[STORE_PATH_BYTES];
    int lock;
    *report = (struct repair_report){0};
    int size = snprintf(path, sizeof path, "%s/lock", directory);
    if (size < 0 || size >= STORE_PATH_BYTES)
        return ERR_TOO_BIG;
    TRY(file_open(&lock, path, FILE_WRITE));
    enum err err = file_lock(lock);
    if (err == OK)
        err = file_make_directory(quarantine);
    if (err == OK)
        err = walk_open(&r.walk, directory, cold);
    if (err == OK) {
        err = repair_archives(&r);
        if (err == OK)
            err = repair_segments(&r);
        walk_close(&r.walk);
    }
    memory_give(r.known, MEMORY_STORE);
    file_close(lock);
    return err;
}
