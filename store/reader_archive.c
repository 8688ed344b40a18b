/* reader_archive.c: reads in an archive. The filter and the fences are resident; then
 *
 *   directory block → what there is of the conversation, and its first data block
 *   (table block)   → which data block has the number, where there is more than one
 *   data blocks     → neighbours with one disk read
 *
 * so that a page costs two disk reads, or three in a long conversation. Where the archive's places
 * (places.h) are in memory they stand for directory and table: a page costs one disk read, and
 * archives that follow each other are read side by side. FIND: directory block, blocks of the
 * conversation's fingerprints, then the data blocks they name. A block that fails its checksum is
 * passed over: what is missing shows as a gap, by the directory also at the end. */
#include "store/reader.h"

#include "core/logging.h"
#include "core/memory.h"
#include "store/index.h"

/* block_arrived: the block at offset is here; else it is asked for: ERR_AGAIN. */
static enum err block_arrived(struct read_state *state, struct lane_segment *segment,
                              enum archive_want want, uint64_t offset, size_t size)
{
    bool here = read_of(state, segment) && state->want == want && state->want_offset == offset;
    state->arrived = false;
    if (here)
        return OK;
    TRY(read_fetch(state, segment, segment->archive->fd, offset, size));
    state->want = want;
    state->want_offset = offset;
    return ERR_AGAIN;
}

static void say_damaged(const struct read_state *state, const struct lane_segment *segment,
                        uint64_t offset, uint32_t records, enum err read)
{
    uint64_t suppressed;
    lane_count(state->log, METRIC_LOG_CORRUPT, records);
    if (read_say(state->log, SAY_BLOCK, &suppressed))
        log_event(LOG_ERROR, "log_archive_block_damaged", LOG_U64("first", segment->first_id),
                  LOG_U64("last", segment->id), LOG_U64("offset", offset), LOG_ERR(read),
                  LOG_U64("suppressed", suppressed), LOG_END);
}

/* entry_read: from memory or the directory block. ERR_NOT_FOUND: it has nothing of the
 * conversation; ERR_CORRUPT. */
static enum err entry_read(struct read_state *state, struct lane_segment *segment)
{
    const struct archive *archive = segment->archive;
    struct conversation_id conversation = state->read->conversation;
    if (segment->places != NULL) {
        enum err found = places_archive_entry(segment->places, conversation, &state->entry);
        if (found == ERR_NOT_FOUND || (found == OK && state->read->kind != LOG_READ_FIND))
            return found;
    }
    uint64_t offset =
        archive_may_hold(archive, conversation) ? archive_directory_at(archive, conversation) : 0;
    if (offset == 0)
        return ERR_NOT_FOUND;
    TRY(block_arrived(state, segment, WANT_DIRECTORY, offset, ARCHIVE_PAGE_BYTES));
    enum err err = archive_directory_find(archive, read_arrived(&state->ops[0], offset), offset,
                                          conversation, &state->entry);
    if (err == ERR_CORRUPT)
        say_damaged(state, segment, offset, 1, state->ops[0].op.err);
    return err;
}

/* entry_known: what was read of it before; NULL: nothing. */
static const struct read_known *entry_known(const struct read_state *state, uint32_t id)
{
    for (uint32_t i = 0; i < READ_KNOWN; i++)
        if (state->known[i].id == id)
            return &state->known[i];
    return NULL;
}

/* entry_get: what the directory says of the conversation. ERR_NOT_FOUND: nothing. */
static enum err entry_get(struct read_state *state, struct lane_segment *segment)
{
    if (state->entry_of == segment->id)
        return state->entry_found ? OK : ERR_NOT_FOUND;
    TRY(read_ready(state, segment));
    const struct read_known *known = entry_known(state, segment->id);
    enum err err;
    if (known != NULL) {
        state->entry = known->entry;
        err = known->found ? OK : ERR_NOT_FOUND;
    } else {
        err = entry_read(state, segment);
        if (err == OK || err == ERR_NOT_FOUND)
            state->known[state->known_next++ % READ_KNOWN] =
                (struct read_known){segment->id, err == OK, state->entry};
        else if (err != ERR_CORRUPT)
            return err;
    }
    if (err == ERR_CORRUPT) {
        state->lost = true;
        err = ERR_NOT_FOUND;
    }
    state->entry_of = segment->id;
    state->entry_found = err == OK;
    state->block_known = false;
    state->prints_done = false;
    state->candidate_count = state->candidate_at = 0;
    if (err == OK && state->entry.prints > 0)
        state->print_page = (uint32_t)(state->entry.first_print / ARCHIVE_PAGE_PRINTS);
    else
        state->prints_done = true;
    return err;
}

enum err read_archive_seek(struct read_state *state, struct lane_segment *segment, bool *has,
                           bool *before)
{
    TRY(entry_get(state, segment));
    *has = state->entry.last_seq >= state->seq_next;
    *before = state->entry.first_seq != 0 && state->entry.first_seq < state->seq_next;
    return OK;
}

enum err read_archive_newest(struct read_state *state, struct lane_segment *segment, uint64_t *seq)
{
    TRY(entry_get(state, segment));
    *seq = state->entry.last_seq;
    return OK;
}

/* ---- RANGE */

/* rows_get: the table block with that number. A damaged one: *count = 0. */
static enum err rows_get(struct read_state *state, struct lane_segment *segment, uint32_t number,
                         struct archive_row rows[ARCHIVE_PAGE_ROWS], uint32_t *count)
{
    uint64_t offset = archive_table_offset(segment->archive, number);
    *count = 0;
    if (offset == 0)
        return OK;
    TRY(block_arrived(state, segment, WANT_TABLE, offset, ARCHIVE_PAGE_BYTES));
    if (archive_rows(segment->archive, read_arrived(&state->ops[0], offset), offset, rows, count) !=
        OK) {
        say_damaged(state, segment, offset, 1, state->ops[0].op.err);
        *count = 0;
    }
    return OK;
}

/* first_row: the last row at or before the number wanted. */
static uint32_t first_row(const struct read_state *state, const struct archive_row *rows,
                          uint32_t count)
{
    uint32_t at = 0;
    for (uint32_t i = 1; i < count; i++) {
        int order = conversation_order(rows[i].conversation, state->read->conversation);
        if (order > 0 || (order == 0 && rows[i].seq > state->seq_next))
            break;
        at = i;
    }
    return at;
}

/* wanted_last: the number at which the page ends, if nothing is gone. */
static uint64_t wanted_last(const struct read_state *state)
{
    const struct log_read *read = state->read;
    uint64_t wanted = state->seq_next + (read->records_max - read->records) - 1;
    return wanted < read->to_seq && wanted >= state->seq_next ? wanted : read->to_seq;
}

static size_t part_bytes(const struct read_part *part)
{
    const struct archive_row *first = &part->spans[0];
    const struct archive_row *last = &part->spans[part->count - 1];
    uint64_t base = align_down(first->offset, SEGMENT_BLOCK);
    return align_up((size_t)(last->offset + last->bytes - base), SEGMENT_BLOCK);
}

/* part_add: one more data block, if one disk read of `room` bytes has it too; false: it is full.
 * One alone is taken however large, if that is `alone`. */
static bool part_add(struct read_part *part, const struct archive_row *row, size_t room, bool alone)
{
    if (part->count == READ_SPANS)
        return false;
    part->spans[part->count++] = *row;
    if (part_bytes(part) <= room || (part->count == 1 && alone))
        return true;
    part->count--;
    return false;
}

/* part_read: the first part, from the tables on disk. */
static enum err part_read(struct read_state *state, struct lane_segment *segment,
                          struct read_part *part)
{
    const struct archive_entry *entry = &state->entry;
    struct archive_row rows[ARCHIVE_PAGE_ROWS + 1];
    uint32_t count;
    uint32_t number = state->block_known ? state->block_next / ARCHIVE_PAGE_ROWS
                                         : archive_table_at(segment->archive, entry->conversation,
                                                            state->seq_next);
    TRY(rows_get(state, segment, number, rows, &count));
    uint32_t base = number * ARCHIVE_PAGE_ROWS;
    part->block = state->block_known ? state->block_next : base + first_row(state, rows, count);
    if (part->block < entry->first_block)
        part->block = entry->first_block;
    /* the first row of the next table block is known without reading it */
    if (count == ARCHIVE_PAGE_ROWS &&
        archive_table_first(segment->archive, number + 1, &rows[count]))
        count++;
    uint64_t last = wanted_last(state);
    for (uint32_t block = part->block;
         block < entry->first_block + entry->blocks && block < base + count; block++)
        if ((part->count > 0 && rows[block - base].seq > last) ||
            !part_add(part, &rows[block - base], READ_SPAN_BYTES, true))
            break;
    if (part->count == 0) /* a damaged table: on behind it */
        part->block = base + ARCHIVE_PAGE_ROWS;
    return OK;
}

/* part_place: from part->block on, from the places in memory. */
static void part_place(struct read_part *part, const struct places *places, uint64_t last,
                       size_t room, bool alone)
{
    const struct archive_entry *entry = &part->entry;
    for (uint32_t block = part->block; block < entry->first_block + entry->blocks; block++) {
        struct archive_row row = places_archive_row(places, entry, block);
        if ((part->count > 0 && row.seq > last) || !part_add(part, &row, room, alone))
            return;
    }
}

/* part_first: the data blocks to look at next. ERR_NOT_FOUND: there are no more. */
static enum err part_first(struct read_state *state, struct lane_segment *segment)
{
    const struct archive_entry *entry = &state->entry;
    struct read_part *part = &state->parts[0];
    if (state->block_known && state->block_next >= entry->first_block + entry->blocks)
        return ERR_NOT_FOUND;
    *part = (struct read_part){.at = state->at, .entry = *entry, .block = entry->first_block};
    if (entry->blocks == 1) {
        part->spans[0] = (struct archive_row){.offset = entry->offset, .bytes = entry->stored};
        part->count = 1;
    } else if (segment->places != NULL) {
        part->block = state->block_known
                          ? state->block_next
                          : places_archive_at(segment->places, entry, state->seq_next);
        part_place(part, segment->places, wanted_last(state), READ_SPAN_BYTES, true);
    } else {
        TRY(part_read(state, segment, part));
    }
    state->block_next = part->block;
    state->block_known = true;
    return OK;
}

/* parts_beside: what the page wants of the archives that follow, as far as that is known without a
 * disk read; returns the bytes of all. */
static size_t parts_beside(struct read_state *state)
{
    struct log *log = state->log;
    size_t bytes = part_bytes(&state->parts[0]);
    uint64_t last = wanted_last(state);
    for (uint32_t at = state->at + 1; at < log->active && state->part_count < READ_OPS; at++) {
        const struct read_part *before = &state->parts[state->part_count - 1];
        struct read_part *part = &state->parts[state->part_count];
        struct lane_segment *segment = log->segments[at];
        bool through =
            before->block + before->count == before->entry.first_block + before->entry.blocks;
        if (!through || before->entry.last_seq >= last || segment->places == NULL ||
            !segment->archived || lane_load(log, segment) != OK)
            break;
        *part = (struct read_part){.at = at};
        enum err err =
            places_archive_entry(segment->places, state->read->conversation, &part->entry);
        if (err == ERR_NOT_FOUND)
            continue;
        if (err != OK || part->entry.first_seq > last || bytes >= READ_SIDE_BYTES)
            break;
        part->block = part->entry.first_block;
        part_place(part, segment->places, last, READ_SIDE_BYTES - bytes, false);
        if (part->count == 0)
            break;
        bytes += part_bytes(part);
        state->part_count++;
    }
    return bytes;
}

/* parts_fetch: a disk read for each part; those that do not go along now are fetched later. */
static enum err parts_fetch(struct read_state *state)
{
    struct log *log = state->log;
    size_t used = 0;
    state->part_count = 1;
    TRY(read_room(state, parts_beside(state)));
    for (uint32_t i = 0; i < state->part_count; i++) {
        const struct read_part *part = &state->parts[i];
        struct lane_segment *segment = log->segments[part->at];
        size_t bytes = part_bytes(part);
        enum err err = i > 0 && log->read_ops >= LANE_READ_OPS_MAX ? ERR_AGAIN : OK;
        if (err == OK)
            err = read_issue(state, segment, segment->archive->fd,
                             align_down(part->spans[0].offset, SEGMENT_BLOCK), state->data + used,
                             bytes);
        if (err != OK && i == 0)
            return err;
        if (err != OK)
            state->part_count = i;
        used += bytes;
    }
    state->want = WANT_DATA;
    return ERR_AGAIN;
}

/* page_full: what was asked for is there: what follows, gone or not, is not part of it. */
static bool page_full(struct read_state *state)
{
    struct log_read *read = state->read;
    if (state->seq_next <= read->to_seq && read->records < read->records_max)
        return false;
    read_finish(state, read->records > 0 ? OK : ERR_NOT_FOUND);
    return true;
}

/* end_gone: what comes is not gone, or not known: the numbers that are end the read. */
static enum err end_gone(struct read_state *state)
{
    uint64_t to = state->read->to_seq;
    if (state->gone_last == 0)
        return OK;
    read_finish_gone(state, state->seq_next, state->gone_last < to ? state->gone_last : to);
    return ERR_CLOSED;
}

/* take_gone: a range that is no more: as many as follow each other in what was read end the read
 * as one. ERR_CLOSED: it is finished. */
static enum err take_gone(struct read_state *state, const struct log_record *record)
{
    struct gone_range gone;
    uint64_t to = state->read->to_seq;
    uint64_t next = state->gone_last == 0 ? state->seq_next : state->gone_last + 1;
    if (gone_decode(&gone, record) != OK || gone.last < next)
        return OK;
    if (record->seq > next || gone.reason == GONE_DAMAGED)
        TRY(end_gone(state));
    if (page_full(state))
        return ERR_CLOSED;
    if (record->seq > next) {
        read_gap(state, record->seq);
        return ERR_CLOSED;
    }
    if (gone.reason == GONE_DAMAGED) {
        read_finish_missing(state, state->seq_next, gone.last < to ? gone.last : to);
        return ERR_CLOSED;
    }
    state->gone_last = gone.last;
    return gone.last < to ? OK : end_gone(state);
}

/* take_record: copy it out. ERR_CLOSED: the read is finished. */
static enum err take_record(struct read_state *state, const struct log_record *record,
                            struct bytes encoded)
{
    struct log_read *read = state->read;
    if (record->seq < state->seq_next || record->seq <= state->gone_last)
        return OK;
    TRY(end_gone(state));
    if (page_full(state))
        return ERR_CLOSED;
    if (record->seq > state->seq_next) {
        read_gap(state, record->seq);
        return ERR_CLOSED;
    }
    if (buffer_append(&read->out, encoded) != OK) {
        read->size_needed = read->records == 0 ? encoded.size : 0;
        read_finish(state, read->records > 0 ? OK : ERR_FULL);
        return ERR_CLOSED;
    }
    read->records++;
    state->seq_next = record->seq + 1;
    state->lost = false;
    return OK;
}

/* take_block: the conversation's records of one data block. */
static enum err take_block(struct read_state *state, const struct read_op *op,
                           const struct archive_row *row)
{
    const struct lane_segment *segment = op->segment;
    const struct segment_key *key = &segment->archive->key;
    struct archive_block block = {0};
    struct bytes content;
    struct bytes raw;
    struct log_record record;
    struct bytes encoded;
    enum err err =
        archive_block_decode(&block, &content, read_arrived(op, row->offset), key, row->offset);
    if (err == OK)
        err = block.kind == ARCHIVE_DATA ? archive_inflate(&raw, &block, content, &state->raw)
                                         : ERR_CORRUPT;
    while (err == OK && (err = archive_record_next(&record, &encoded, &raw, key)) == OK) {
        int order = conversation_order(record.conversation, state->read->conversation);
        if (order > 0)
            return OK;
        if (order < 0 || !record_has_seq(record.kind))
            continue;
        TRY(record.kind == RECORD_GONE ? take_gone(state, &record)
                                       : take_record(state, &record, encoded));
    }
    if (err == ERR_CORRUPT) {
        say_damaged(state, segment, row->offset, block.count, op->op.err);
        err = OK;
    }
    return err == ERR_NOT_FOUND ? OK : err;
}

/* take_parts: of all archives that were read side by side; the last one may have more. */
static enum err take_parts(struct read_state *state)
{
    state->gone_last = 0;
    for (uint32_t i = 0; i < state->part_count; i++) {
        const struct read_part *part = &state->parts[i];
        state->at = part->at;
        state->entry_of = state->log->segments[part->at]->id;
        state->entry_found = true;
        state->entry = part->entry;
        state->block_known = true;
        state->block_next = part->block + part->count;
        for (uint32_t n = 0; n < part->count; n++)
            TRY(take_block(state, &state->ops[i], &part->spans[n]));
    }
    return end_gone(state);
}

enum err read_archive_collect(struct read_state *state, struct lane_segment *segment)
{
    if (state->arrived && state->want == WANT_DATA && state->ops[0].segment == segment) {
        state->arrived = false;
        state->want = WANT_NOTHING;
        return take_parts(state);
    }
    TRY(entry_get(state, segment));
    const struct archive_entry *entry = &state->entry;
    if (entry->last_seq < state->seq_next)
        return ERR_NOT_FOUND;
    TRY(read_ready(state, segment));
    enum err err = part_first(state, segment);
    if (err == ERR_NOT_FOUND && page_full(state))
        return ERR_CLOSED;
    if (err == ERR_NOT_FOUND) { /* the directory promises more than the blocks have */
        uint64_t to = state->read->to_seq;
        read_finish_missing(state, state->seq_next, entry->last_seq < to ? entry->last_seq : to);
        return ERR_CLOSED;
    }
    if (err != OK || state->parts[0].count == 0)
        return err;
    return parts_fetch(state);
}

/* ---- FIND */

static void candidate_add(struct read_state *state, uint32_t block)
{
    uint32_t end = state->entry.first_block + state->entry.blocks;
    for (uint32_t i = 0; i < state->candidate_count; i++)
        if (state->candidates[i] == block)
            return;
    if (block < state->entry.first_block || block >= end)
        return;
    if (state->candidate_count == READ_CANDIDATES)
        state->lost = true; /* so many of one fingerprint: not all are looked at */
    else
        state->candidates[state->candidate_count++] = block;
}

/* prints_look: one block of fingerprints. */
static enum err prints_look(struct read_state *state, struct lane_segment *segment)
{
    const struct log_read *read = state->read;
    const struct archive_entry *entry = &state->entry;
    uint64_t end = entry->first_print + entry->prints;
    uint64_t offset = archive_prints_offset(segment->archive, state->print_page);
    uint64_t base = (uint64_t)state->print_page * ARCHIVE_PAGE_PRINTS;
    struct bytes prints;
    TRY(block_arrived(state, segment, WANT_PRINTS, offset, ARCHIVE_PAGE_BYTES));
    if (archive_prints(segment->archive, read_arrived(&state->ops[0], offset), offset, &prints) !=
        OK) {
        say_damaged(state, segment, offset, 1, state->ops[0].op.err);
        state->lost = true;
        prints = bytes_of(NULL, 0);
    }
    uint32_t wanted = message_print(&segment->archive->key, read->conversation, read->sender,
                                    read->device, read->message_id);
    for (uint32_t i = 0; i < prints.size / ARCHIVE_PRINT_BYTES; i++) {
        struct archive_print print = archive_print_at(prints, i);
        if (base + i >= entry->first_print && base + i < end && print.print == wanted)
            candidate_add(state, print.block);
    }
    state->print_page++;
    state->prints_done = (uint64_t)state->print_page * ARCHIVE_PAGE_PRINTS >= end;
    return OK;
}

/* candidate_scan: the record with the key in the data block that has arrived. */
static enum err candidate_scan(struct read_state *state, const struct lane_segment *segment,
                               const struct archive_row *row)
{
    struct log_read *read = state->read;
    const struct segment_key *key = &segment->archive->key;
    struct archive_block block;
    struct bytes content;
    struct bytes raw;
    struct log_record record;
    struct bytes encoded;
    enum err err = archive_block_decode(&block, &content, read_arrived(&state->ops[0], row->offset),
                                        key, row->offset);
    if (err == OK)
        err = archive_inflate(&raw, &block, content, &state->raw);
    while (err == OK && (err = archive_record_next(&record, &encoded, &raw, key)) == OK) {
        if (!record_has_seq(record.kind) || !read_same_message(&record, read))
            continue;
        if (buffer_append(&read->out, encoded) != OK) {
            read->size_needed = encoded.size;
            read_finish(state, ERR_FULL);
            return ERR_CLOSED;
        }
        read->records = 1;
        read_finish(state, OK);
        return ERR_CLOSED;
    }
    if (err == ERR_CORRUPT)
        state->lost = true;
    return err == ERR_CORRUPT || err == ERR_NOT_FOUND ? OK : err;
}

static enum err candidate_look(struct read_state *state, struct lane_segment *segment)
{
    uint32_t block = state->candidates[state->candidate_at];
    bool data = read_of(state, segment) && state->want == WANT_DATA;
    if (data) {
        state->arrived = false;
        state->candidate_at++;
        return candidate_scan(state, segment, &state->parts[0].spans[0]);
    }
    if (state->entry.blocks == 1) {
        state->parts[0].spans[0] =
            (struct archive_row){.offset = state->entry.offset, .bytes = state->entry.stored};
    } else {
        struct archive_row rows[ARCHIVE_PAGE_ROWS];
        uint32_t count;
        TRY(rows_get(state, segment, block / ARCHIVE_PAGE_ROWS, rows, &count));
        if (block % ARCHIVE_PAGE_ROWS >= count) {
            state->lost = true;
            state->candidate_at++;
            return OK;
        }
        state->parts[0].spans[0] = rows[block % ARCHIVE_PAGE_ROWS];
    }
    return block_arrived(state, segment, WANT_DATA, state->parts[0].spans[0].offset,
                         state->parts[0].spans[0].bytes);
}

enum err read_archive_find(struct read_state *state, struct lane_segment *segment)
{
    TRY(entry_get(state, segment));
    TRY(read_ready(state, segment));
    if (!state->prints_done)
        return prints_look(state, segment);
    if (state->candidate_at < state->candidate_count)
        return candidate_look(state, segment);
    return ERR_NOT_FOUND;
}
