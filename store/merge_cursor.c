/* merge_cursor.c: see merge_cursor.h. A segment's sidecar names its records in order; each is read
 * where it stands. An archive's directory names its conversations, whose data blocks follow each
 * other; a number that the directory promises and no block has is lost. Of one that is freed whole
 * only the directory and the states are read. */
#include "store/merge_cursor.h"

#include "core/file.h"
#include "core/logging.h"
#include "core/memory.h"

/* ---- segments */

static enum err segment_index(struct cursor *cursor, const char *directory)
{
    struct index *index;
    uint32_t data_end;
    enum err err = sidecar_load(&cursor->sidecar, directory, &cursor->scan.header);
    if (err == OK || err == ERR_NO_MEMORY || err == ERR_NO_DESCRIPTORS)
        return err;
    log_event(LOG_WARN, "log_index_rebuild", LOG_U64("segment", cursor->scan.header.id),
              LOG_ERR(err), LOG_END);
    TRY(index_rebuild(&index, &cursor->scan, &data_end));
    scan_rewind(&cursor->scan);
    err = sidecar_write(directory, &cursor->scan.header, index, data_end);
    index_destroy(index);
    if (err == OK)
        err = sidecar_load(&cursor->sidecar, directory, &cursor->scan.header);
    return err;
}

static enum err segment_open(struct cursor *cursor, const char *directory,
                             const struct merge_input *input)
{
    char path[STORE_PATH_BYTES];
    TRY(store_path(path, directory, input->id, ".segment"));
    enum err err = file_open(&cursor->fd, path, FILE_READ);
    if (err != OK) {
        cursor->fd = -1;
        return err;
    }
    TRY(scan_open(&cursor->scan, cursor->fd));
    cursor->scanning = true;
    if (cursor->scan.header.id != input->id)
        return ERR_CORRUPT;
    return segment_index(cursor, directory);
}

static enum err segment_page(struct cursor *cursor)
{
    while (cursor->entry_at == cursor->entry_count) {
        TRY(sidecar_entries(cursor->sidecar, cursor->entry_block++, cursor->entries,
                            &cursor->entry_count));
        cursor->entry_at = 0;
        if (cursor->entry_count == 0) {
            cursor->ended = true;
            return OK;
        }
        cursor->bytes_read += SEGMENT_BLOCK;
    }
    return OK;
}

/* segment_read: the record of an entry. ERR_CORRUPT: it is not there. */
static enum err segment_read(struct cursor *cursor, const struct sidecar_entry *entry)
{
    struct log_record *record = &cursor->item.record;
    size_t done = 0;
    size_t taken;
    if (entry->size > cursor->scan.header.bytes)
        return ERR_CORRUPT;
    if (entry->size > cursor->record.capacity) {
        uint8_t *grown = memory_resize(cursor->record.data, entry->size, MEMORY_STORE);
        if (grown == NULL)
            return ERR_NO_MEMORY;
        cursor->record.data = grown;
        cursor->record.capacity = entry->size;
    }
    TRY(file_read(cursor->fd, entry->offset, cursor->record.data, entry->size, &done));
    if (done != entry->size)
        return ERR_CORRUPT;
    cursor->bytes_read += done;
    TRY(record_decode(record, bytes_of(cursor->record.data, done), &cursor->scan.key, entry->offset,
                      &taken));
    bool same = record->seq == entry->seq && record_has_seq(record->kind) &&
                record->kind != RECORD_GONE && record->kind != RECORD_LOST &&
                conversation_id_equal(record->conversation, entry->conversation);
    return same ? OK : ERR_CORRUPT;
}

static enum err segment_item(struct cursor *cursor)
{
    if (cursor->ended)
        return ERR_NOT_FOUND;
    const struct sidecar_entry *entry = &cursor->entries[cursor->entry_at];
    if (!conversation_id_equal(entry->conversation, cursor->conversation))
        return ERR_NOT_FOUND;
    enum err err = segment_read(cursor, entry);
    if (err != OK && err != ERR_CORRUPT)
        return err; /* a device that does not answer is no damage to carry over */
    cursor->item.lost = err != OK;
    cursor->item.from = cursor->item.to = entry->seq;
    cursor->entry_at++;
    return segment_page(cursor);
}

enum err cursor_scan(struct cursor *cursor,
                     enum err (*watermark)(void *context, const struct log_record *record),
                     void *context)
{
    struct scan_item item;
    if (cursor->archived || !cursor->scanning)
        return ERR_NOT_FOUND;
    TRY(scan_next(&cursor->scan, &item));
    if (item.unreadable)
        return ERR_IO;
    if (item.kind == SCAN_END) {
        cursor->scanning = false;
        scan_close(&cursor->scan); /* the header and the key stay */
        return ERR_NOT_FOUND;
    }
    cursor->bytes_read += item.to - item.from;
    if (item.kind != SCAN_BATCH)
        return OK;
    struct batch_walk walk;
    batch_walk_init(&walk, &cursor->scan.key, &item);
    while (batch_walk_next(&walk))
        if (walk.record.kind == RECORD_WATERMARK)
            TRY(watermark(context, &walk.record));
    return OK;
}

/* ---- archives */

static enum err archive_open(struct cursor *cursor, const struct merge_input *input)
{
    TRY(archive_load(&cursor->archive, input->path));
    archive_walk_init(&cursor->walk, cursor->archive->fd, &cursor->archive->key,
                      ARCHIVE_HEADER_BYTES, cursor->archive->footer.bytes);
    cursor->page = memory_take(ARCHIVE_PAGE_BYTES, MEMORY_STORE);
    return cursor->page == NULL ? ERR_NO_MEMORY : OK;
}

/* states_page: the block at offset, behind the directory block at hand. A damaged one: none. */
static enum err states_page(struct cursor *cursor, uint64_t offset)
{
    const struct archive *archive = cursor->archive;
    struct archive_block block;
    struct bytes content;
    uint8_t head[ARCHIVE_HEAD_BYTES];
    size_t done = 0;
    cursor->states = bytes_of(NULL, 0);
    TRY(file_read(archive->fd, offset, head, sizeof head, &done));
    enum err err = ERR_CORRUPT;
    if (done == sizeof head)
        err = archive_head_decode(&block, head, &archive->key, offset);
    if (err == OK && (block.kind != ARCHIVE_STATES || block.number != cursor->page_number ||
                      archive_block_end(offset, &block) > archive->footer.summary))
        err = ERR_CORRUPT;
    if (err == OK) {
        uint32_t size = ARCHIVE_HEAD_BYTES + block.stored;
        TRY(memory_grow(&cursor->page_states, &cursor->page_states_capacity, size, 1,
                        MEMORY_STORE));
        TRY(file_read(archive->fd, offset, cursor->page_states, size, &done));
        cursor->bytes_read += done;
        err = archive_block_decode(&block, &content, bytes_of(cursor->page_states, done),
                                   &archive->key, offset);
    }
    if (err == OK)
        cursor->states = content;
    else
        log_event(LOG_ERROR, "log_states_lost", LOG_U64("first", archive->header.first),
                  LOG_U64("last", archive->header.last),
                  LOG_U64("directory_block", cursor->page_number), LOG_END);
    return OK;
}

static enum err directory_page(struct cursor *cursor)
{
    const struct archive *archive = cursor->archive;
    if (cursor->page_number == archive->footer.directory_blocks) {
        cursor->ended = true;
        return OK;
    }
    struct archive_block block;
    struct bytes content;
    size_t done = 0;
    uint64_t offset = load_u64(archive->directory_fences +
                               (size_t)cursor->page_number * ARCHIVE_DIRECTORY_FENCE + 16);
    TRY(file_read(archive->fd, offset, cursor->page, ARCHIVE_PAGE_BYTES, &done));
    TRY(archive_block_decode(&block, &content, bytes_of(cursor->page, done), &archive->key,
                             offset));
    if (block.kind != ARCHIVE_DIRECTORY || block.number != cursor->page_number ||
        block.stored != block.count * ARCHIVE_ENTRY_BYTES || block.count == 0)
        return ERR_CORRUPT;
    cursor->bytes_read += done;
    cursor->page_count = block.count;
    cursor->page_at = 0;
    return states_page(cursor, archive_block_end(offset, &block));
}

/* state_next: of the entry at hand; an incomplete one where it is lost. */
static void state_next(struct cursor *cursor)
{
    const struct archive_entry *entry = &cursor->entry;
    if (archive_state_next(&cursor->state, &cursor->states) == OK &&
        conversation_id_equal(cursor->state.conversation, entry->conversation))
        return;
    cursor->states = bytes_of(NULL, 0);
    cursor->state = (struct archive_state){.conversation = entry->conversation,
                                           .first_seq = entry->first_seq,
                                           .last_seq = entry->last_seq,
                                           .incomplete = true};
}

/* directory_turn: to the next page. What is freed goes although its directory is damaged. */
static enum err directory_turn(struct cursor *cursor)
{
    enum err err = directory_page(cursor);
    while (err == ERR_CORRUPT && cursor->freed) {
        log_event(LOG_ERROR, "log_numbers_lost", LOG_U64("first", cursor->archive->header.first),
                  LOG_U64("last", cursor->archive->header.last),
                  LOG_U64("directory_block", cursor->page_number), LOG_END);
        cursor->page_number++;
        err = directory_page(cursor);
    }
    cursor->page_number += !cursor->ended;
    return err;
}

static enum err directory_next(struct cursor *cursor)
{
    if (cursor->page_at == cursor->page_count)
        TRY(directory_turn(cursor));
    if (cursor->ended)
        return OK;
    archive_entry_decode(&cursor->entry, cursor->page + ARCHIVE_HEAD_BYTES +
                                             (size_t)cursor->page_at++ * ARCHIVE_ENTRY_BYTES);
    if (!archive_entry_sound(cursor->archive, &cursor->entry))
        return ERR_CORRUPT;
    state_next(cursor);
    cursor->conversation = cursor->entry.conversation;
    cursor->seq_last = cursor->entry.first_seq == 0 ? 0 : cursor->entry.first_seq - 1;
    cursor->block_wanted = cursor->entry.first_block;
    return OK;
}

/* load_block: until block_wanted is at hand, or one behind it: then the wanted one is lost. */
static enum err load_block(struct cursor *cursor)
{
    while (!cursor->block_loaded || cursor->block < cursor->block_wanted) {
        struct walk_item item;
        TRY(archive_walk_next(&cursor->walk, &item));
        if (cursor->walk.unreadable)
            return ERR_IO;
        if (item.kind == WALK_END) {
            cursor->block = UINT32_MAX;
            cursor->block_loaded = true;
            cursor->records = bytes_of(NULL, 0);
            return OK;
        }
        if (item.kind == WALK_DAMAGED || item.block.kind != ARCHIVE_DATA)
            continue;
        cursor->records = bytes_of(NULL, 0);
        enum err err = OK;
        if (item.kind == WALK_BLOCK)
            err = archive_walk_records(&cursor->walk, &item, &cursor->records);
        if (err == ERR_NO_MEMORY)
            return err;
        cursor->block = item.block.number;
        cursor->block_loaded = true;
    }
    return OK;
}

static void lost(struct cursor *cursor, uint64_t from, uint64_t to)
{
    cursor->item.lost = true;
    cursor->item.from = from;
    cursor->item.to = to;
    cursor->seq_last = to;
}

/* archive_take: the next record of the conversation in the block at hand. ERR_NOT_FOUND: none. */
static enum err archive_take(struct cursor *cursor)
{
    for (;;) {
        struct log_record record;
        struct bytes encoded;
        struct bytes rest = cursor->records;
        enum err err = archive_record_next(&record, &encoded, &rest, &cursor->archive->key);
        if (err != OK) {
            cursor->records = bytes_of(NULL, 0); /* damaged: the directory tells what is missing */
            return ERR_NOT_FOUND;
        }
        int order = conversation_order(record.conversation, cursor->conversation);
        if (order > 0)
            return ERR_NOT_FOUND;
        uint64_t last = record.seq;
        struct gone_range gone;
        if (record.kind == RECORD_GONE && gone_decode(&gone, &record) == OK)
            last = gone.last;
        if (order == 0 && record.seq > cursor->seq_last + 1) {
            lost(cursor, cursor->seq_last + 1, record.seq - 1); /* the record comes next */
            return OK;
        }
        cursor->records = rest;
        if (order < 0 || record.seq <= cursor->seq_last)
            continue;
        cursor->item.lost = false;
        cursor->item.record = record;
        cursor->seq_last = last;
        return OK;
    }
}

/* freed_item: all numbers of the conversation, in one range. */
static enum err freed_item(struct cursor *cursor)
{
    const struct archive_entry *entry = &cursor->entry;
    const struct gone_range range = {.last = entry->last_seq, .reason = GONE_RETENTION};
    if (cursor->seq_last >= entry->last_seq)
        return ERR_NOT_FOUND;
    gone_encode(cursor->gone, &range);
    cursor->seq_last = entry->last_seq;
    cursor->item.lost = false;
    cursor->item.record = (struct log_record){.kind = RECORD_GONE,
                                              .conversation = entry->conversation,
                                              .seq = entry->first_seq,
                                              .body = bytes_of(cursor->gone, GONE_BODY_BYTES)};
    return OK;
}

static enum err archive_item(struct cursor *cursor)
{
    const struct archive_entry *entry = &cursor->entry;
    if (cursor->ended)
        return ERR_NOT_FOUND;
    if (cursor->freed)
        return freed_item(cursor);
    while (cursor->block_wanted < entry->first_block + entry->blocks) {
        TRY(load_block(cursor));
        enum err err = ERR_NOT_FOUND;
        if (cursor->block == cursor->block_wanted)
            err = archive_take(cursor);
        if (err != ERR_NOT_FOUND)
            return err;
        cursor->block_wanted++;
    }
    if (cursor->seq_last >= entry->last_seq)
        return ERR_NOT_FOUND;
    lost(cursor, cursor->seq_last + 1, entry->last_seq);
    return OK;
}

/* ---- both */

enum err cursor_open(struct cursor *cursor, const char *directory, const struct merge_input *input)
{
    cursor->opened = true;
    cursor->archived = input->archived;
    cursor->freed = input->freed;
    cursor->fd = -1;
    return input->archived ? archive_open(cursor, input) : segment_open(cursor, directory, input);
}

void cursor_close(struct cursor *cursor)
{
    scan_close(&cursor->scan);
    if (!cursor->archived && cursor->fd >= 0)
        file_close(cursor->fd);
    sidecar_destroy(cursor->sidecar);
    if (cursor->archive != NULL)
        archive_walk_deinit(&cursor->walk);
    archive_destroy(cursor->archive);
    memory_give(cursor->record.data, MEMORY_STORE);
    memory_give(cursor->page, MEMORY_STORE);
    memory_give(cursor->page_states, MEMORY_STORE);
}

enum err cursor_start(struct cursor *cursor)
{
    if (cursor->archived)
        return directory_next(cursor);
    TRY(segment_page(cursor));
    if (!cursor->ended)
        cursor->conversation = cursor->entries[0].conversation;
    return OK;
}

enum err cursor_peek(struct cursor *cursor, const struct cursor_item **item)
{
    *item = &cursor->item;
    if (cursor->held)
        return OK;
    uint64_t before = cursor->walk.bytes_read;
    TRY(cursor->archived ? archive_item(cursor) : segment_item(cursor));
    cursor->bytes_read += cursor->walk.bytes_read - before;
    cursor->held = true;
    return OK;
}

void cursor_next(struct cursor *cursor)
{
    CHECK(cursor->held);
    cursor->held = false;
}

enum err cursor_pass(struct cursor *cursor)
{
    if (cursor->archived)
        return directory_next(cursor);
    if (!cursor->ended)
        cursor->conversation = cursor->entries[cursor->entry_at].conversation;
    return OK;
}

uint64_t cursor_conversations(const struct cursor *cursor)
{
    return cursor->archived ? cursor->archive->footer.conversations
                            : sidecar_conversations(cursor->sidecar);
}
