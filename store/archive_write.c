/* archive_write.c: see archive_write.h; the format: archive.c.
 *
 * A conversation's first records wait in `start` until it is known whether all fit into one block:
 * then they go into the block being filled, or, where that has no room, into the next one. What is
 * larger begins a block of its own and goes on block by block. Directory, state, table and print
 * blocks are written between data blocks as soon as each is full, so that memory holds only fences.
 */
#include "store/archive_write.h"

#include "core/file.h"
#include "core/hash.h"
#include "core/memory.h"
#include "store/index.h"

#include <zstd.h>

#define START_RECORDS (ARCHIVE_DATA_BYTES / RECORD_HEADER_BYTES + 1)
#define ZSTD_LEVEL    3

/* bunch: records that stand or will stand in one data block. */
struct bunch {
    struct buffer data;
    uint32_t count;
    struct conversation_id conversation; /* of the first record */
    uint64_t seq;
};

struct archive_writer {
    int fd;
    bool compress;
    struct archive_header header;
    struct segment_key key;
    struct archive_footer footer;
    uint64_t offset; /* of what comes next in the file */
    uint64_t flushed;
    uint8_t *out;      /* WRITER_OUT_BYTES */
    struct buffer raw; /* compressed content, other blocks' content */

    struct bunch block; /* the data block being filled; its number is footer.data_blocks */
    struct bunch start; /* of the present conversation */
    struct archive_print start_prints[START_RECORDS];
    uint32_t start_print_count;
    bool open;    /* entry is of a conversation that goes on */
    bool divided; /* it has outgrown one block: start is not used any more */
    struct archive_entry entry;
    uint64_t seq_last;
    uint64_t time_ms;     /* of its newest number */
    struct buffer state;  /* of it; empty: not told yet */
    struct buffer states; /* of `entries`, in their order */

    struct archive_entry *entries; /* ended; those whose first block is written come first */
    uint32_t entry_count;
    uint32_t entry_capacity;
    uint32_t entry_written; /* with their block's place, or without a block */
    uint64_t print_total;

    uint8_t rows[ARCHIVE_PAGE_ROWS * ARCHIVE_ROW_BYTES];
    uint32_t row_count;
    uint8_t prints[ARCHIVE_PAGE_PRINTS * ARCHIVE_PRINT_BYTES];
    uint32_t print_count;

    struct buffer directory_fences;
    struct buffer table_fences;
    struct buffer print_offsets;
    uint8_t *filter;
    size_t filter_bytes;
};

/* ---- memory and bytes */

static enum err reserve(struct buffer *buffer, size_t more)
{
    if (buffer_room(buffer) >= more)
        return OK;
    size_t capacity = buffer->capacity < 4096 ? 4096 : buffer->capacity * 2;
    while (capacity < buffer->size + more)
        capacity *= 2;
    uint8_t *grown = memory_resize(buffer->data, capacity, MEMORY_STORE);
    if (grown == NULL)
        return ERR_NO_MEMORY;
    buffer->data = grown;
    buffer->capacity = capacity;
    return OK;
}

static enum err append(struct buffer *buffer, struct bytes data)
{
    TRY(reserve(buffer, data.size));
    return buffer_append(buffer, data);
}

static enum err flush(struct archive_writer *w)
{
    size_t size = (size_t)(w->offset - w->flushed);
    TRY(file_write(w->fd, w->flushed, bytes_of(w->out, size)));
    w->flushed = w->offset;
    return OK;
}

static enum err put(struct archive_writer *w, struct bytes data)
{
    while (data.size > 0) {
        size_t have = (size_t)(w->offset - w->flushed);
        size_t part = WRITER_OUT_BYTES - have < data.size ? WRITER_OUT_BYTES - have : data.size;
        memcpy(w->out + have, data.data, part);
        w->offset += part;
        data = bytes_skip(data, part);
        if (have + part == WRITER_OUT_BYTES)
            TRY(flush(w));
    }
    return OK;
}

/* put_block: head, content, padding. *at: where it stands. */
static enum err put_block(struct archive_writer *w, struct archive_block *block,
                          struct bytes content, uint64_t *at)
{
    static const uint8_t zeros[8];
    uint8_t head[ARCHIVE_HEAD_BYTES];
    *at = w->offset;
    block->stored = (uint32_t)content.size;
    archive_head_encode(head, block, content, &w->key, w->offset);
    TRY(put(w, bytes_of(head, sizeof head)));
    TRY(put(w, content));
    size_t size = ARCHIVE_HEAD_BYTES + content.size;
    return put(w, bytes_of(zeros, align_up(size, 8) - size));
}

/* ---- index blocks */

static enum err put_page(struct archive_writer *w, enum archive_kind kind, uint32_t *number,
                         struct bytes content, uint32_t count, uint64_t *at)
{
    struct archive_block block = {.kind = kind,
                                  .codec = ARCHIVE_PLAIN,
                                  .raw = (uint32_t)content.size,
                                  .count = count,
                                  .number = (*number)++};
    return put_block(w, &block, content, at);
}

static enum err put_table(struct archive_writer *w)
{
    uint64_t at;
    uint8_t fence[ARCHIVE_TABLE_FENCE];
    if (w->row_count == 0)
        return OK;
    TRY(put_page(w, ARCHIVE_TABLE, &w->footer.table_blocks,
                 bytes_of(w->rows, (size_t)w->row_count * ARCHIVE_ROW_BYTES), w->row_count, &at));
    memcpy(fence, w->rows, 24);
    store_u64(fence + 24, at);
    memcpy(fence + 32, w->rows + 24, 12); /* offset and bytes of the first row's data block */
    store_u32(fence + 44, 0);
    w->row_count = 0;
    return append(&w->table_fences, bytes_of(fence, sizeof fence));
}

static enum err put_prints(struct archive_writer *w)
{
    uint64_t at;
    uint8_t offset[8];
    if (w->print_count == 0)
        return OK;
    TRY(put_page(w, ARCHIVE_PRINTS, &w->footer.print_blocks,
                 bytes_of(w->prints, (size_t)w->print_count * ARCHIVE_PRINT_BYTES), w->print_count,
                 &at));
    store_u64(offset, at);
    w->print_count = 0;
    return append(&w->print_offsets, bytes_of(offset, sizeof offset));
}

/* put_states: of the first count entries. */
static enum err put_states(struct archive_writer *w, uint32_t count)
{
    struct bytes rest = buffer_bytes(&w->states);
    struct archive_state state;
    uint32_t number = w->footer.directory_blocks - 1;
    uint64_t at;
    for (uint32_t i = 0; i < count; i++) {
        enum err err = archive_state_next(&state, &rest);
        CHECK(err == OK);
    }
    size_t size = w->states.size - rest.size;
    TRY(put_page(w, ARCHIVE_STATES, &number, bytes_of(w->states.data, size), count, &at));
    memmove(w->states.data, w->states.data + size, rest.size);
    w->states.size = rest.size;
    return OK;
}

/* put_directory: the first count entries, whose blocks are all written, and their states. */
static enum err put_directory(struct archive_writer *w, uint32_t count)
{
    uint8_t content[ARCHIVE_PAGE_ENTRIES * ARCHIVE_ENTRY_BYTES];
    uint8_t fence[ARCHIVE_DIRECTORY_FENCE];
    uint64_t at;
    for (uint32_t i = 0; i < count; i++)
        archive_entry_encode(content + (size_t)i * ARCHIVE_ENTRY_BYTES, &w->entries[i]);
    TRY(put_page(w, ARCHIVE_DIRECTORY, &w->footer.directory_blocks,
                 bytes_of(content, (size_t)count * ARCHIVE_ENTRY_BYTES), count, &at));
    TRY(put_states(w, count));
    memcpy(fence, content, 16);
    store_u64(fence + 16, at);
    w->entry_count -= count;
    w->entry_written -= count;
    memmove(w->entries, w->entries + count, w->entry_count * sizeof *w->entries);
    return append(&w->directory_fences, bytes_of(fence, sizeof fence));
}

static enum err put_full_directories(struct archive_writer *w)
{
    while (w->entry_written >= ARCHIVE_PAGE_ENTRIES)
        TRY(put_directory(w, ARCHIVE_PAGE_ENTRIES));
    return OK;
}

static enum err add_print(struct archive_writer *w, struct archive_print print)
{
    uint8_t *p = w->prints + (size_t)w->print_count * ARCHIVE_PRINT_BYTES;
    store_u32(p, print.print);
    store_u32(p + 4, print.block);
    w->print_total++;
    if (++w->print_count == ARCHIVE_PAGE_PRINTS)
        return put_prints(w);
    return OK;
}

/* ---- data blocks */

static struct bytes compressed(struct archive_writer *w, struct bytes content)
{
    size_t bound = ZSTD_compressBound(content.size);
    w->raw.size = 0;
    if (!w->compress || reserve(&w->raw, bound) != OK)
        return content;
    size_t size =
        ZSTD_compress(w->raw.data, w->raw.capacity, content.data, content.size, ZSTD_LEVEL);
    if (ZSTD_isError(size) || size > content.size - content.size / 8)
        return content; /* ciphertext, mostly: as it is */
    return bytes_of(w->raw.data, size);
}

static enum err end_block(struct archive_writer *w)
{
    struct bunch *bunch = &w->block;
    if (bunch->count == 0)
        return OK;
    struct bytes raw = buffer_bytes(&bunch->data);
    struct bytes content = compressed(w, raw);
    struct archive_block block = {.kind = ARCHIVE_DATA,
                                  .codec = content.data == raw.data ? ARCHIVE_PLAIN : ARCHIVE_ZSTD,
                                  .raw = (uint32_t)raw.size,
                                  .count = bunch->count,
                                  .number = w->footer.data_blocks};
    struct archive_row row = {bunch->conversation, bunch->seq, 0, 0, bunch->count};
    TRY(put_block(w, &block, content, &row.offset));
    row.bytes = ARCHIVE_HEAD_BYTES + block.stored;
    w->footer.data_blocks++;
    if (w->open && w->divided && w->entry.first_block == block.number) {
        w->entry.offset = row.offset;
        w->entry.stored = row.bytes;
    }
    for (; w->entry_written < w->entry_count; w->entry_written++) {
        struct archive_entry *entry = &w->entries[w->entry_written];
        if (entry->blocks != 0 && entry->first_block == block.number) {
            entry->offset = row.offset;
            entry->stored = row.bytes;
        }
    }
    bunch->count = 0;
    bunch->data.size = 0;
    archive_row_encode(w->rows + (size_t)w->row_count * ARCHIVE_ROW_BYTES, &row);
    if (++w->row_count == ARCHIVE_PAGE_ROWS)
        TRY(put_table(w));
    return put_full_directories(w);
}

static enum err bunch_add(struct archive_writer *w, struct bunch *bunch,
                          const struct log_record *record, size_t size)
{
    TRY(reserve(&bunch->data, size));
    if (bunch->count == 0) {
        bunch->conversation = record->conversation;
        bunch->seq = record->seq;
    }
    record_encode(bunch->data.data + bunch->data.size, record, &w->key, 0);
    bunch->data.size += size;
    bunch->count++;
    return OK;
}

/* ---- conversations */

/* end_state: the state at hand gets its numbers and stands behind those of the entries. */
static enum err end_state(struct archive_writer *w)
{
    struct archive_state state = {.conversation = w->entry.conversation};
    struct bytes given = buffer_bytes(&w->state);
    if (given.size != 0) {
        enum err err = archive_state_next(&state, &given);
        CHECK(err == OK && given.size == 0);
    } else {
        TRY(reserve(&w->state, ARCHIVE_STATE_BYTES));
        w->state.size = ARCHIVE_STATE_BYTES;
    }
    state.first_seq = w->entry.first_seq;
    state.last_seq = w->entry.last_seq;
    if (w->time_ms > state.time_ms)
        state.time_ms = w->time_ms;
    archive_state_encode(w->state.data, &state);
    return append(&w->states, buffer_bytes(&w->state));
}

static enum err end_conversation(struct archive_writer *w)
{
    struct archive_entry *entry = &w->entry;
    if (!w->open)
        return OK;
    TRY(end_state(w));
    if (!w->divided && w->start.count > 0) {
        struct bunch *start = &w->start;
        if (w->block.count > 0 && w->block.data.size + start->data.size > ARCHIVE_DATA_BYTES)
            TRY(end_block(w));
        if (w->block.count == 0) {
            w->block.conversation = start->conversation;
            w->block.seq = start->seq;
        }
        TRY(append(&w->block.data, buffer_bytes(&start->data)));
        w->block.count += start->count;
        entry->first_block = w->footer.data_blocks;
        entry->blocks = 1;
        for (uint32_t i = 0; i < w->start_print_count; i++)
            TRY(add_print(w,
                          (struct archive_print){w->start_prints[i].print, w->footer.data_blocks}));
        start->count = 0;
        start->data.size = 0;
    } else if (w->divided) {
        entry->blocks = w->footer.data_blocks + (w->block.count > 0) - entry->first_block;
    }
    entry->prints = (uint32_t)(w->print_total - entry->first_print);
    TRY(memory_grow(&w->entries, &w->entry_capacity, w->entry_count + 1, sizeof *w->entries,
                    MEMORY_STORE));
    w->entries[w->entry_count++] = *entry;
    /* a divided one whose first block is written already has its place; one without needs none */
    if ((entry->offset != 0 || entry->blocks == 0) && w->entry_written == w->entry_count - 1)
        w->entry_written++;
    w->footer.conversations++;
    w->open = false;
    return put_full_directories(w);
}

static void begin_conversation(struct archive_writer *w, struct conversation_id id)
{
    w->open = true;
    w->divided = false;
    w->start_print_count = 0;
    w->seq_last = 0;
    w->time_ms = 0;
    w->state.size = 0;
    w->entry = (struct archive_entry){.conversation = id, .first_print = w->print_total};
    uint64_t hash = archive_conversation_hash(&w->key, id);
    for (uint32_t probe = 0; probe < ARCHIVE_FILTER_PROBES; probe++) {
        size_t bit = archive_filter_bit(hash, probe, w->filter_bytes);
        w->filter[bit / 8] = (uint8_t)(w->filter[bit / 8] | 1u << bit % 8);
    }
}

/* divide: the conversation does not fit into one block: what is gathered of it begins one. */
static enum err divide(struct archive_writer *w)
{
    TRY(end_block(w));
    struct bunch empty = w->block;
    w->block = w->start;
    w->start = empty;
    w->divided = true;
    w->entry.first_block = w->footer.data_blocks;
    for (uint32_t i = 0; i < w->start_print_count; i++)
        TRY(add_print(w, (struct archive_print){w->start_prints[i].print, w->footer.data_blocks}));
    w->start_print_count = 0;
    return OK;
}

/* note_time: what retention by age looks at. A setting that is in force has no age. */
static void note_time(struct archive_footer *footer, const struct log_record *record)
{
    if (record->kind == RECORD_RETENTION)
        return;
    if (footer->time_min_ms == 0 || record->time_ms < footer->time_min_ms)
        footer->time_min_ms = record->time_ms;
    if (record->time_ms > footer->time_max_ms)
        footer->time_max_ms = record->time_ms;
}

static void note_expiry(struct archive_footer *footer, const struct log_record *record)
{
    if (record->expires_ms != 0 &&
        (footer->expires_min_ms == 0 || record->expires_ms < footer->expires_min_ms))
        footer->expires_min_ms = record->expires_ms;
}

static void note_gone(struct archive_footer *footer, const struct log_record *record)
{
    footer->gone++;
    if (!gone_named(record))
        return;
    footer->named++;
    if (record->expires_ms > footer->named_until_ms)
        footer->named_until_ms = record->expires_ms;
}

static void note(struct archive_writer *w, const struct log_record *record)
{
    struct archive_footer *footer = &w->footer;
    if (record->time_ms > w->time_ms)
        w->time_ms = record->time_ms;
    struct gone_range gone = {.last = record->seq};
    if (record->kind == RECORD_GONE) {
        enum err err = gone_decode(&gone, record);
        CHECK(err == OK);
        note_gone(footer, record);
    } else {
        note_time(footer, record);
        note_expiry(footer, record);
        footer->records++;
        footer->settings += record->kind == RECORD_RETENTION;
        w->entry.records++;
    }
    CHECK(record_has_seq(record->kind) && record->seq > w->seq_last && w->state.size == 0);
    w->seq_last = gone.last;
    if (w->entry.first_seq == 0)
        w->entry.first_seq = record->seq;
    w->entry.last_seq = gone.last;
}

/* reach: the conversation is the one at hand, or comes behind it. */
static enum err reach(struct archive_writer *w, struct conversation_id conversation)
{
    int order = w->open ? conversation_order(w->entry.conversation, conversation) : -1;
    CHECK(order <= 0);
    if (order < 0) {
        TRY(end_conversation(w));
        begin_conversation(w, conversation);
    }
    return OK;
}

enum err archive_writer_state(struct archive_writer *w, const struct archive_state *state,
                              const struct archive_mark *marks)
{
    uint8_t encoded[ARCHIVE_MARK_BYTES];
    struct archive_state later = *state;
    later.first_seq = later.last_seq = 0; /* end_state knows */
    TRY(reach(w, state->conversation));
    CHECK(w->state.size == 0);
    TRY(reserve(&w->state, archive_state_bytes(state)));
    archive_state_encode(w->state.data, &later);
    w->state.size = ARCHIVE_STATE_BYTES;
    for (uint32_t i = 0; i < state->count; i++) {
        archive_mark_encode(encoded, &marks[i]);
        TRY(buffer_append(&w->state, bytes_of(encoded, sizeof encoded)));
        w->footer.watermarks += marks[i].marked;
    }
    return OK;
}

enum err archive_writer_add(struct archive_writer *w, const struct log_record *record)
{
    TRY(reach(w, record->conversation));
    note(w, record);
    size_t size = record_bytes(record->body.size);
    bool print = message_id_given(record->message_id);
    struct archive_print made = {0};
    if (print)
        made.print = message_print(&w->key, record->conversation, record->sender, record->device,
                                   record->message_id);
    if (!w->divided) {
        if (print)
            w->start_prints[w->start_print_count++] = made;
        TRY(bunch_add(w, &w->start, record, size));
        return w->start.data.size > ARCHIVE_DATA_BYTES ? divide(w) : OK;
    }
    if (w->block.count > 0 && w->block.data.size + size > ARCHIVE_DATA_BYTES)
        TRY(end_block(w));
    made.block = w->footer.data_blocks;
    if (print)
        TRY(add_print(w, made));
    return bunch_add(w, &w->block, record, size);
}

/* ---- beginning and end */

enum err archive_writer_create(struct archive_writer **out, const char *path,
                               const struct archive_header *header, uint64_t conversations_max,
                               bool compress)
{
    uint8_t first[ARCHIVE_HEADER_BYTES];
    struct archive_writer *w = memory_take_zeroed(sizeof *w, MEMORY_STORE);
    if (w == NULL)
        return ERR_NO_MEMORY;
    w->fd = -1;
    w->header = *header;
    w->key = archive_key(header);
    w->compress = compress;
    w->filter_bytes = 64;
    while (w->filter_bytes < ARCHIVE_FILTER_MAX && w->filter_bytes * 8 < conversations_max * 10)
        w->filter_bytes *= 2;
    w->filter = memory_take_zeroed(w->filter_bytes, MEMORY_STORE);
    w->out = memory_take(WRITER_OUT_BYTES, MEMORY_STORE);
    enum err err = w->filter == NULL || w->out == NULL ? ERR_NO_MEMORY : OK;
    if (err == OK) {
        err = file_open(&w->fd, path, FILE_WRITE | FILE_CREATE);
        if (err != OK)
            w->fd = -1;
    }
    if (err == OK)
        err = file_truncate(w->fd, 0);
    archive_header_encode(first, header);
    if (err == OK)
        err = put(w, bytes_of(first, sizeof first));
    if (err != OK) {
        archive_writer_destroy(w);
        return err;
    }
    *out = w;
    return OK;
}

/* fold: halve the filter while it is more than twice as large as it need be. */
static void fold(struct archive_writer *w)
{
    while (w->filter_bytes > 64 && w->filter_bytes / 2 * 8 >= w->footer.conversations * 10) {
        w->filter_bytes /= 2;
        for (size_t i = 0; i < w->filter_bytes; i++)
            w->filter[i] |= w->filter[i + w->filter_bytes];
    }
}

static enum err put_summary(struct archive_writer *w)
{
    fold(w);
    w->raw.size = 0;
    TRY(append(&w->raw, buffer_bytes(&w->directory_fences)));
    TRY(append(&w->raw, buffer_bytes(&w->table_fences)));
    TRY(append(&w->raw, buffer_bytes(&w->print_offsets)));
    TRY(append(&w->raw, bytes_of(w->filter, w->filter_bytes)));
    uint32_t number = 0;
    w->footer.filter_bytes = (uint32_t)w->filter_bytes;
    return put_page(w, ARCHIVE_SUMMARY, &number, buffer_bytes(&w->raw), 0, &w->footer.summary);
}

enum err archive_writer_finish(struct archive_writer *w, uint64_t damaged,
                               struct archive_footer *out)
{
    uint8_t footer[ARCHIVE_FOOTER_BYTES];
    TRY(end_conversation(w));
    TRY(end_block(w));
    TRY(put_table(w));
    TRY(put_prints(w));
    CHECK(w->entry_written == w->entry_count);
    while (w->entry_count > 0)
        TRY(put_directory(w, w->entry_count < ARCHIVE_PAGE_ENTRIES ? w->entry_count
                                                                   : ARCHIVE_PAGE_ENTRIES));
    TRY(put_summary(w));
    w->footer.damaged = damaged;
    w->footer.bytes = w->offset + sizeof footer;
    archive_footer_encode(footer, &w->footer, &w->header);
    TRY(put(w, bytes_of(footer, sizeof footer)));
    TRY(flush(w));
    TRY(file_sync(w->fd));
    if (out != NULL)
        *out = w->footer;
    return OK;
}

void archive_writer_destroy(struct archive_writer *w)
{
    if (w == NULL)
        return;
    if (w->fd >= 0)
        file_close(w->fd);
    struct buffer *buffers[] = {&w->raw,           &w->block.data,      &w->start.data,
                                &w->state,         &w->states,          &w->table_fences,
                                &w->print_offsets, &w->directory_fences};
    for (size_t i = 0; i < COUNT_OF(buffers); i++)
        memory_give(buffers[i]->data, MEMORY_STORE);
    memory_give(w->entries, MEMORY_STORE);
    memory_give(w->filter, MEMORY_STORE);
    memory_give(w->out, MEMORY_STORE);
    memory_give(w, MEMORY_STORE);
}

uint64_t archive_writer_bytes(const struct archive_writer *w)
{
    return w->offset;
}
