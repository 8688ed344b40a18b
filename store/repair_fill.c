/* repair_fill.c: what stands where records are damaged: as many as are missing, so that the running
 * number of records is whole: RECORD_LOST for those that the index vouches for, in their old
 * places, RECORD_VOID for the rest, of which a last one takes up what room is left. */
#include "store/repair_fill.h"

static void put_record(struct fill *f, size_t at, size_t size, struct log_record record)
{
    record.body = bytes_of(f->zeros, size - RECORD_HEADER_BYTES);
    record_encode(f->data + at, &record, f->key, f->start + (uint32_t)at);
}

/* fill_unknown: one record, and as many of the extra ones as fit; the last takes the rest. */
static void fill_unknown(struct fill *f, size_t from, size_t to)
{
    const struct log_record nothing = {.kind = RECORD_VOID};
    if (from == to)
        return;
    f->pieces++;
    if (to - from < RECORD_HEADER_BYTES)
        f->impossible = true;
    if (!f->write || f->impossible)
        return;
    for (; f->extra > 0 && to - from >= 2 * (size_t)RECORD_HEADER_BYTES; f->extra--) {
        put_record(f, from, RECORD_HEADER_BYTES, nothing);
        f->pieces++;
        from += RECORD_HEADER_BYTES;
    }
    put_record(f, from, to - from, nothing);
}

static void fill_known(struct fill *f, const struct lost_record *lost)
{
    const struct log_record record = {
        .kind = RECORD_LOST, .conversation = lost->conversation, .seq = lost->seq};
    f->pieces++;
    if (f->write)
        put_record(f, lost->offset - f->start, lost->size, record);
}

static bool lost_fits(const struct fill *f, const struct lost_record *lost, size_t from, size_t to)
{
    return lost->offset >= f->start + from && lost->size >= RECORD_HEADER_BYTES &&
           lost->size % RECORD_ALIGNMENT == 0 && lost->offset + lost->size <= f->start + to;
}

/* fill_gap: [from, to) of the batch: the known records in their old places, unknown ones between.
 */
static void fill_gap(struct fill *f, size_t from, size_t to)
{
    for (uint32_t i = 0; i < f->known_count; i++) {
        const struct lost_record *lost = &f->known[i];
        if (!lost_fits(f, lost, from, to))
            continue;
        fill_unknown(f, from, lost->offset - f->start);
        fill_known(f, lost);
        from = lost->offset - f->start + lost->size;
    }
    fill_unknown(f, from, to);
}

void fill_gaps(struct fill *f, const struct scan_item *item)
{
    struct batch_walk walk;
    size_t from = BATCH_HEADER_BYTES;
    f->pieces = 0;
    batch_walk_init(&walk, f->key, item);
    while (batch_walk_next(&walk)) {
        fill_gap(f, from, walk.offset - f->start);
        from = walk.offset - f->start + walk.size;
    }
    fill_gap(f, from, item->header.length);
}

bool fill_plan_gaps(struct fill *f, const struct scan_item *item, uint64_t lost)
{
    for (int attempt = 0; attempt < 2; attempt++) {
        f->impossible = false;
        fill_gaps(f, item);
        if (!f->impossible && f->pieces <= lost) {
            f->extra = lost - f->pieces;
            f->write = true;
            return true;
        }
        f->known_count = 0;
    }
    return false;
}

/* ---- a hole */

/* A hole is one batch or several: their headers are gone, records may be sound. Where a sound
 * record stands as the first one of a batch would, and no sound one reaches across, a batch begins.
 */

/* hole_next: where the batch that begins at `from` ends, at most at `to`. */
static uint32_t hole_next(const struct fill *f, struct bytes data, uint32_t from, uint32_t to)
{
    struct batch_walk walk;
    struct scan_item item = {.from = from};
    uint32_t end = from;
    item.data = bytes_of(data.data + (from - f->start), to - from);
    batch_walk_init(&walk, f->key, &item);
    while (batch_walk_next(&walk)) {
        uint32_t head = walk.offset - BATCH_HEADER_BYTES;
        if (head % SEGMENT_BLOCK == 0 && head > from && end <= head)
            return head;
        end = walk.offset + walk.size;
    }
    return to;
}

/* fill_tail: [from, to) behind the last sound record of a batch: known ones, and as many of the
 * extra records as fit; what is left belongs to no record. Returns the end of the last record. */
static size_t fill_tail(struct fill *f, size_t from, size_t to)
{
    size_t end = from;
    for (uint32_t i = 0; i < f->known_count; i++) {
        const struct lost_record *lost = &f->known[i];
        if (lost_fits(f, lost, end, to))
            end = lost->offset - f->start + lost->size;
    }
    fill_gap(f, from, end);
    for (; f->write && f->extra > 0 && to - end >= RECORD_HEADER_BYTES; f->extra--) {
        put_record(f, end, RECORD_HEADER_BYTES, (struct log_record){.kind = RECORD_VOID});
        f->pieces++;
        end += RECORD_HEADER_BYTES;
    }
    return end;
}

/* fill_batch: one batch of the hole, its header still to be written. Counts its records into
 * f->pieces; returns its end. */
static size_t fill_batch(struct fill *f, struct bytes data, uint32_t from, uint32_t to)
{
    struct batch_walk walk;
    struct scan_item item = {.from = from};
    size_t end = from - f->start + BATCH_HEADER_BYTES;
    item.data = bytes_of(data.data + (from - f->start), to - from);
    batch_walk_init(&walk, f->key, &item);
    while (batch_walk_next(&walk)) {
        fill_gap(f, end, walk.offset - f->start);
        end = walk.offset - f->start + walk.size;
        f->pieces++;
    }
    return fill_tail(f, end, to - f->start);
}

static void hole_header(struct fill *f, struct batch_header *header, uint32_t from,
                        uint32_t records, size_t end)
{
    header->position = position_of(f->key->id, from);
    header->durable_before = header->position;
    header->records = records;
    header->length = (uint32_t)(end - (from - f->start));
    batch_header_encode(f->data + (from - f->start), header, f->key);
    memset(f->data + end, 0, align_up(end, SEGMENT_BLOCK) - end);
    header->record_base += records;
    header->previous_end = position_of(f->key->id, f->start + align_up(end, SEGMENT_BLOCK));
}

void fill_hole(struct fill *f, struct bytes data, struct batch_header header)
{
    uint32_t to = f->start + (uint32_t)data.size;
    f->pieces = 0;
    for (uint32_t at = f->start, next; at < to; at = next) {
        uint64_t before = f->pieces;
        next = hole_next(f, data, at, to);
        size_t end = fill_batch(f, data, at, next);
        if (!f->write || f->impossible)
            continue;
        hole_header(f, &header, at, (uint32_t)(f->pieces - before), end);
        for (at = f->start + (uint32_t)align_up(end, SEGMENT_BLOCK); at < next; at += SEGMENT_BLOCK)
            hole_header(f, &header, at, 0, at - f->start + BATCH_HEADER_BYTES);
    }
}

bool fill_plan_hole(struct fill *f, struct bytes data, struct hole *hole,
                    const struct batch_header *next)
{
    for (int attempt = 0; attempt < 2; attempt++) {
        f->impossible = false;
        fill_hole(f, data, *next);
        if (!hole->counted)
            hole->records = f->pieces;
        if (!f->impossible && f->pieces <= hole->records && hole->records <= next->record_base) {
            f->extra = hole->records - f->pieces;
            f->write = true;
            return true;
        }
        f->known_count = 0;
    }
    return false;
}
