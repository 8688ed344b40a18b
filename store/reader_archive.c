/* reader_archive.c: reads in an archive. The filter and the fences are resident; then
 *
 *   directory block → what there is of the conversation, and its first data block
 *   (table block)   → which data block has the number, where there is more than one
 *   data blocks     → neighbours with one disk read
 *
 * so that a page costs two disk reads, or three in a long conversation. FIND: directory block,
 * blocks of the conversation's fingerprints, then the data blocks they name. A block that fails its
 * checksum is passed over: what is missing shows as a gap, by the directory also at the end. */
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
                        uint64_t offset, uint32_t records)
{
    uint64_t suppressed;
    lane_count(state->log, METRIC_LOG_CORRUPT, records);
    if (read_say(state->log, SAY_BLOCK, &suppressed))
        log_event(LOG_ERROR, "log_archive_block_damaged", LOG_U64("first", segment->first_id),
                  LOG_U64("last", segment->id), LOG_U64("offset", offset),
                  LOG_ERR(state->ops[0].op.err), LOG_U64("suppressed", suppressed), LOG_END);
}

/* entry_read: from the directory block. ERR_NOT_FOUND: it has nothing of the conversation;
 * ERR_CORRUPT. */
static enum err entry_read(struct read_state *state, struct lane_segment *segment)
{
    const struct archive *archive = segment->archive;
    struct conversation_id conversation = state->read->conversation;
    uint64_t offset =
        archive_may_hold(archive, conversation) ? archive_directory_at(archive, conversation) : 0;
    if (offset == 0)
        return ERR_NOT_FOUND;
    TRY(block_arrived(state, segment, WANT_DIRECTORY, offset, ARCHIVE_PAGE_BYTES));
    enum err err = archive_directory_find(archive, read_arrived(state, offset), offset,
                                          conversation, &state->entry);
    if (err == ERR_CORRUPT)
        say_damaged(state, segment, offset, 1);
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
    if (archive_rows(segment->archive, read_arrived(state, offset), offset, rows, count) != OK) {
        say_damaged(state, segment, offset, 1);
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

/* spans_choose: data blocks from row `at` of table block `number` on that one disk read fetches. */
static void spans_choose(struct read_state *state, const struct archive *archive,
                         const struct archive_row *rows, uint32_t count, uint32_t number,
                         uint32_t at)
{
    const struct log_read *read = state->read;
    uint64_t wanted = state->seq_next + (read->records_max - read->records) - 1;
    uint64_t last = wanted < read->to_seq && wanted >= state->seq_next ? wanted : read->to_seq;
    uint32_t blocks_end = state->entry.first_block + state->entry.blocks;
    struct archive_row next; /* the first of the next table block is known without reading it */
    bool more = archive_table_first(archive, number + 1, &next);
    state->span_count = 0;
    for (; at < count + more && state->span_count < READ_SPANS; at++) {
        const struct archive_row *row = at < count ? &rows[at] : &next;
        bool first = state->span_count == 0;
        if (number * ARCHIVE_PAGE_ROWS + at >= blocks_end)
            break;
        if (!first && (row->seq > last ||
                       row->offset + row->bytes - state->spans[0].offset > READ_SPAN_BYTES))
            break;
        state->spans[state->span_count++] = *row;
    }
}

/* spans_get: the data blocks to look at next. ERR_NOT_FOUND: there are no more. */
static enum err spans_get(struct read_state *state, struct lane_segment *segment)
{
    const struct archive_entry *entry = &state->entry;
    uint32_t blocks_end = entry->first_block + entry->blocks;
    if (state->block_known && state->block_next >= blocks_end)
        return ERR_NOT_FOUND;
    if (entry->blocks == 1) {
        state->spans[0] = (struct archive_row){.offset = entry->offset, .bytes = entry->stored};
        state->span_count = 1;
        state->block_next = entry->first_block;
        state->block_known = true;
        return OK;
    }
    struct archive_row rows[ARCHIVE_PAGE_ROWS];
    uint32_t count;
    uint32_t number = state->block_known ? state->block_next / ARCHIVE_PAGE_ROWS
                                         : archive_table_at(segment->archive, entry->conversation,
                                                            state->seq_next);
    TRY(rows_get(state, segment, number, rows, &count));
    uint32_t at =
        state->block_known ? state->block_next % ARCHIVE_PAGE_ROWS : first_row(state, rows, count);
    uint32_t block = number * ARCHIVE_PAGE_ROWS + at;
    if (block < entry->first_block) {
        at += entry->first_block - block;
        block = entry->first_block;
    }
    spans_choose(state, segment->archive, rows, count, number, at);
    state->block_next = block;
    state->block_known = true;
    if (state->span_count == 0) /* a damaged table: on behind it */
        state->block_next = (number + 1) * ARCHIVE_PAGE_ROWS;
    return OK;
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

/* take_gone: a range that is no more. ERR_CLOSED: it ends the read. */
static enum err take_gone(struct read_state *state, const struct log_record *record)
{
    struct gone_range gone;
    uint64_t to = state->read->to_seq;
    if (gone_decode(&gone, record) != OK || gone.last < state->seq_next)
        return OK;
    if (page_full(state))
        return ERR_CLOSED;
    if (record->seq > state->seq_next)
        read_gap(state, record->seq);
    else if (gone.reason == GONE_DAMAGED)
        read_finish_missing(state, state->seq_next, gone.last < to ? gone.last : to);
    else
        read_finish_gone(state, state->seq_next, gone.last < to ? gone.last : to);
    return ERR_CLOSED;
}

/* take_record: copy it out. ERR_CLOSED: the read is finished. */
static enum err take_record(struct read_state *state, const struct log_record *record,
                            struct bytes encoded)
{
    struct log_read *read = state->read;
    if (record->seq < state->seq_next)
        return OK;
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
static enum err take_block(struct read_state *state, const struct lane_segment *segment,
                           const struct archive_row *row)
{
    const struct segment_key *key = &segment->archive->key;
    struct archive_block block = {0};
    struct bytes content;
    struct bytes raw;
    struct log_record record;
    struct bytes encoded;
    enum err err =
        archive_block_decode(&block, &content, read_arrived(state, row->offset), key, row->offset);
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
        say_damaged(state, segment, row->offset, block.count);
        err = OK;
    }
    return err == ERR_NOT_FOUND ? OK : err;
}

static enum err take_spans(struct read_state *state, const struct lane_segment *segment)
{
    for (uint32_t i = 0; i < state->span_count; i++) {
        TRY(take_block(state, segment, &state->spans[i]));
        state->block_next++;
    }
    return OK;
}

enum err read_archive_collect(struct read_state *state, struct lane_segment *segment)
{
    bool data = read_of(state, segment) && state->want == WANT_DATA;
    if (data) {
        state->arrived = false;
        return take_spans(state, segment);
    }
    TRY(entry_get(state, segment));
    const struct archive_entry *entry = &state->entry;
    if (entry->last_seq < state->seq_next)
        return ERR_NOT_FOUND;
    TRY(read_ready(state, segment));
    enum err err = spans_get(state, segment);
    if (err == ERR_NOT_FOUND && page_full(state))
        return ERR_CLOSED;
    if (err == ERR_NOT_FOUND) { /* the directory promises more than the blocks have */
        uint64_t to = state->read->to_seq;
        read_finish_missing(state, state->seq_next, entry->last_seq < to ? entry->last_seq : to);
        return ERR_CLOSED;
    }
    if (err != OK || state->span_count == 0)
        return err;
    const struct archive_row *last = &state->spans[state->span_count - 1];
    return block_arrived(state, segment, WANT_DATA, state->spans[0].offset,
                         (size_t)(last->offset + last->bytes - state->spans[0].offset));
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
    if (archive_prints(segment->archive, read_arrived(state, offset), offset, &prints) != OK) {
        say_damaged(state, segment, offset, 1);
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
    enum err err =
        archive_block_decode(&block, &content, read_arrived(state, row->offset), key, row->offset);
    if (err == OK)
        err = archive_inflate(&raw, &block, content, &state->raw);
    while (err == OK && (err = archive_record_next(&record, &encoded, &raw, key)) == OK) {
        if (!record_has_seq(record.kind) || record.kind == RECORD_GONE ||
            !read_same_message(&record, read))
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
        return candidate_scan(state, segment, &state->spans[0]);
    }
    if (state->entry.blocks == 1) {
        state->spans[0] =
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
        state->spans[0] = rows[block % ARCHIVE_PAGE_ROWS];
    }
    return block_arrived(state, segment, WANT_DATA, state->spans[0].offset, state->spans[0].bytes);
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
