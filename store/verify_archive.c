/* verify_archive.c: one archive, for `roost log verify`: header and its zeros, every block, every
 * record, their order, and that footer, directory and table say what the data blocks have. */
#include "store/verify.h"

#include "core/file.h"
#include "core/memory.h"
#include "store/archive_state.h"
#include "store/archive_walk.h"
#include "store/sidecar.h"

#include <inttypes.h>
#include <stdio.h>

struct check {
    struct verify *v;
    const char *name;
    const struct archive *archive;
    struct archive_footer seen; /* counted */
    bool have;
    struct conversation_id conversation;
    uint64_t seq; /* newest of it */
    uint64_t with_records;
    uint64_t entries;         /* in directory blocks */
    uint64_t entries_blocks;  /* of them with data blocks */
    uint64_t directory_block; /* whose states come next, + 1; 0: none */
    uint64_t directory_count;
    bool stated;
    struct conversation_id state; /* the newest one's */
    uint64_t rows;
};

static void damaged(struct check *c, uint64_t offset, const char *what)
{
    verify_report(c->v, true, "archive %s offset %" PRIu64 ": %s", c->name, offset, what);
}

static void check_record(struct check *c, const struct log_record *record, uint64_t offset)
{
    int order = c->have ? conversation_order(c->conversation, record->conversation) : -1;
    struct gone_range gone = {.last = record->seq};
    if (record->kind == RECORD_GONE && gone_decode(&gone, record) != OK)
        damaged(c, offset, "a range of numbers that are gone makes no sense");
    if (order > 0 || (order == 0 && record->seq <= c->seq) || !record_has_seq(record->kind))
        damaged(c, offset, "records are not in order");
    c->with_records += order != 0;
    c->have = true;
    c->conversation = record->conversation;
    c->seq = gone.last;
    if (gone_named(record) && record->expires_ms > c->seen.named_until_ms)
        c->seen.named_until_ms = record->expires_ms;
    c->seen.named += gone_named(record);
    if (record->kind == RECORD_GONE)
        c->seen.gone++;
    else
        c->seen.records++;
}

static enum err check_data(struct check *c, struct archive_walk *walk, const struct walk_item *item)
{
    struct bytes records;
    struct bytes encoded;
    struct log_record record;
    uint32_t count = 0;
    enum err err = archive_walk_records(walk, item, &records);
    while (err == OK &&
           (err = archive_record_next(&record, &encoded, &records, &c->archive->key)) == OK) {
        check_record(c, &record, item->from);
        count++;
    }
    if (err == ERR_NO_MEMORY)
        return err;
    if (err != ERR_NOT_FOUND || count != item->block.count)
        damaged(c, item->from, "damaged records");
    c->seen.data_blocks++;
    return OK;
}

static void check_directory(struct check *c, const struct walk_item *item)
{
    struct archive_entry entry;
    c->seen.directory_blocks++;
    c->entries += item->block.count;
    c->directory_block = (uint64_t)item->block.number + 1;
    c->directory_count = item->block.count;
    if (item->block.stored != item->block.count * ARCHIVE_ENTRY_BYTES)
        damaged(c, item->from, "a directory block makes no sense");
    else
        for (uint32_t i = 0; i < item->block.count; i++) {
            archive_entry_decode(&entry, item->content.data + (size_t)i * ARCHIVE_ENTRY_BYTES);
            c->entries_blocks += entry.blocks != 0;
        }
}

/* check_marks: one per device, in order. */
static bool check_marks(struct check *c, const struct archive_state *state)
{
    struct archive_mark mark;
    struct archive_mark last = {0};
    bool sound = true;
    for (uint32_t i = 0; i < state->count; i++, last = mark) {
        archive_state_mark(&mark, state, i);
        c->seen.watermarks += mark.marked;
        sound = sound && (i == 0 || archive_mark_order(&last, mark.user, mark.device) < 0) &&
                (!mark.marked || mark.own >= mark.delivered) && mark.lead <= state->last_seq;
    }
    return sound;
}

static void check_states(struct check *c, const struct walk_item *item)
{
    struct bytes content = item->content;
    struct archive_state state;
    uint32_t count = 0;
    bool sound = c->directory_block == (uint64_t)item->block.number + 1 &&
                 c->directory_count == item->block.count;
    enum err err;
    c->directory_block = 0;
    while ((err = archive_state_next(&state, &content)) == OK) {
        sound = sound && check_marks(c, &state) &&
                (!c->stated || conversation_order(c->state, state.conversation) < 0);
        c->stated = true;
        c->state = state.conversation;
        c->seen.conversations++;
        count++;
        if (state.incomplete)
            verify_report(c->v, false,
                          "archive %s offset %" PRIu64 ": marks of devices were damaged where they "
                          "came from: a rebuilt catalog may deliver again",
                          c->name, item->from);
    }
    if (err != ERR_NOT_FOUND || !sound || count != item->block.count)
        damaged(c, item->from, "the states of conversations make no sense");
}

static enum err check_block(struct check *c, struct archive_walk *walk,
                            const struct walk_item *item)
{
    if (item->dirty)
        damaged(c, item->from, "padding is not zero");
    switch (item->block.kind) {
    case ARCHIVE_DATA:
        return check_data(c, walk, item);
    case ARCHIVE_DIRECTORY:
        check_directory(c, item);
        break;
    case ARCHIVE_TABLE:
        c->seen.table_blocks++;
        c->rows += item->block.count;
        break;
    case ARCHIVE_PRINTS:
        c->seen.print_blocks++;
        break;
    case ARCHIVE_STATES:
        check_states(c, item);
        break;
    case ARCHIVE_SUMMARY:
        break;
    }
    return OK;
}

static enum err check_blocks(struct check *c)
{
    struct archive_walk walk;
    struct walk_item item = {.kind = WALK_BLOCK};
    const struct archive *archive = c->archive;
    archive_walk_init(&walk, archive->fd, &archive->key, ARCHIVE_HEADER_BYTES,
                      archive->footer.bytes);
    enum err err = OK;
    while (err == OK && (err = archive_walk_next(&walk, &item)) == OK && item.kind != WALK_END) {
        if (item.kind == WALK_DAMAGED)
            damaged(c, item.from, "damaged, no block header");
        else if (item.kind == WALK_LOST)
            damaged(c, item.from, "damaged block");
        else
            err = check_block(c, &walk, &item);
    }
    archive_walk_deinit(&walk);
    return err;
}

static void check_footer(struct check *c)
{
    const struct archive_footer *footer = &c->archive->footer;
    const struct archive_footer *seen = &c->seen;
    bool same = footer->records == seen->records && footer->watermarks == seen->watermarks &&
                footer->gone == seen->gone && footer->named == seen->named &&
                footer->named_until_ms == seen->named_until_ms &&
                footer->conversations == seen->conversations &&
                footer->data_blocks == seen->data_blocks &&
                footer->directory_blocks == seen->directory_blocks &&
                footer->table_blocks == seen->table_blocks &&
                footer->print_blocks == seen->print_blocks && c->entries == seen->conversations &&
                c->entries_blocks == c->with_records && c->rows == seen->data_blocks;
    if (!same)
        damaged(c, footer->bytes - ARCHIVE_FOOTER_BYTES, "the footer's counts do not agree");
    c->v->records += seen->records;
}

/* check_header_rest: behind the header's fields there are zeros. */
static enum err check_header_rest(struct check *c)
{
    uint8_t header[ARCHIVE_HEADER_BYTES];
    uint8_t again[ARCHIVE_HEADER_BYTES];
    size_t done = 0;
    TRY(file_read(c->archive->fd, 0, header, sizeof header, &done));
    archive_header_encode(again, &c->archive->header);
    if (done != sizeof header || memcmp(header, again, sizeof header) != 0)
        damaged(c, 0, "the header is not as it was written");
    return OK;
}

enum err verify_archive(struct verify *v, const struct walk_archive *archived)
{
    const struct archive_header *name = &archived->name;
    char file[ARCHIVE_NAME_BYTES];
    char path[STORE_PATH_BYTES];
    struct archive *archive;
    archive_name(file, name, ".archive");
    struct check check = {.v = v, .name = file};
    TRY(walk_archive_path(archived, path));
    enum err err = archive_load(&archive, path);
    if (err == ERR_NEWER || err == ERR_NO_MEMORY)
        return err;
    if (err != OK) {
        verify_report(v, true, "archive %s: header, footer or summary is damaged (%s)", file,
                      err_name(err));
        return OK;
    }
    check.archive = archive;
    if (archive->header.first != name->first || archive->header.last != name->last ||
        archive->header.generation != name->generation)
        damaged(&check, 0, "its header says another range or generation");
    err = check_header_rest(&check);
    bool damage_before = v->damage;
    v->damage = false;
    if (err == OK)
        err = check_blocks(&check);
    if (err == OK && !v->damage)
        check_footer(&check);
    if (archive->footer.damaged > 0)
        verify_report(v, false,
                      "archive %s: %" PRIu64 " records were damaged where they came from: their "
                      "numbers are reported as missing",
                      file, archive->footer.damaged);
    v->damage = v->damage || damage_before;
    archive_destroy(archive);
    return err == ERR_IO ? OK : err;
}
