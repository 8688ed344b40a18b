/* walk.c: see walk.h. */
#include "store/walk.h"

#include "core/file.h"
#include "core/memory.h"
#include "store/archive_walk.h"

#include <stdio.h>
#include <stdlib.h>

static enum err list_archive(struct walk *walk, const struct archive_header *name)
{
    TRY(memory_grow(&walk->archives, &walk->archive_capacity, walk->archive_count + 1,
                    sizeof *walk->archives, MEMORY_STORE));
    walk->archives[walk->archive_count++] = (struct walk_archive){*name, walk->listing};
    return OK;
}

static enum err list_entry(void *context, const char *name)
{
    struct walk *walk = context;
    struct archive_header archive;
    uint32_t id;
    if (archive_name_parse(&archive, name, ".archive") == OK)
        return list_archive(walk, &archive);
    if (walk->listing != walk->directory)
        return OK;
    if (segment_name_parse(&id, name, ".segment") != OK)
        return OK;
    TRY(memory_grow(&walk->ids, &walk->capacity, walk->count + 1, sizeof *walk->ids, MEMORY_STORE));
    walk->ids[walk->count++] = id;
    return OK;
}

static int id_compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a;
    uint32_t y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

enum err walk_segment_open(const struct walk *walk, uint32_t at, int *fd, struct scan *scan)
{
    char path[STORE_PATH_BYTES];
    TRY(store_path(path, walk->directory, walk->ids[at], ".segment"));
    TRY(file_open(fd, path, FILE_READ));
    enum err err = file_lock_shared(*fd); /* the lane may be running: see making.c */
    if (err == ERR_BUSY)
        err = ERR_NOT_FOUND; /* freed meanwhile */
    if (err == OK)
        err = scan_open(scan, *fd);
    if (err != OK)
        file_close(*fd);
    return err;
}

/* find_mark: the highest durable_before stands in the newest segment with a valid batch header. */
static enum err find_mark(struct walk *walk)
{
    for (uint32_t i = walk->count; i-- > 0 && walk->mark == 0;) {
        struct scan scan;
        struct scan_item item = {.kind = SCAN_BATCH};
        int fd;
        enum err err = walk_segment_open(walk, i, &fd, &scan);
        if (err == ERR_NO_MEMORY)
            return err;
        if (err != OK)
            continue; /* whoever walks it is told */
        while ((err = scan_next(&scan, &item)) == OK && item.kind != SCAN_END)
            if (item.kind == SCAN_BATCH && item.header.durable_before > walk->mark)
                walk->mark = item.header.durable_before;
        scan_close(&scan);
        file_close(fd);
        TRY(err);
    }
    return OK;
}

static int archive_compare(const void *a, const void *b)
{
    const struct archive_header *x = &((const struct walk_archive *)a)->name;
    const struct archive_header *y = &((const struct walk_archive *)b)->name;
    if (x->first != y->first)
        return x->first < y->first ? -1 : 1;
    if (x->last != y->last) /* the larger first: it covers the other */
        return x->last > y->last ? -1 : 1;
    return x->generation > y->generation ? -1 : x->generation < y->generation;
}

/* drop_covered: what a start would remove; of the same archive in both directories one is as good.
 */
static void drop_covered(struct walk *walk)
{
    uint32_t kept = 0;
    if (walk->archive_count > 0)
        qsort(walk->archives, walk->archive_count, sizeof *walk->archives, archive_compare);
    for (uint32_t i = 0; i < walk->archive_count; i++)
        if (kept == 0 || walk->archives[i].name.last > walk->archives[kept - 1].name.last)
            walk->archives[kept++] = walk->archives[i];
    walk->archive_count = kept;
}

bool walk_covered(const struct walk *walk, uint32_t id)
{
    for (uint32_t i = 0; i < walk->archive_count; i++)
        if (walk->archives[i].name.first <= id && id <= walk->archives[i].name.last)
            return true;
    return false;
}

bool walk_apart(const struct walk *walk, uint32_t at)
{
    return walk_covered(walk, walk->ids[at] - 1);
}

enum err walk_open(struct walk *walk, const char *directory, const char *cold)
{
    *walk = (struct walk){.directory = directory, .listing = directory};
    enum err err = file_list(directory, list_entry, walk);
    walk->listing = cold;
    if (err == OK && cold != NULL)
        err = file_list(cold, list_entry, walk);
    drop_covered(walk);
    if (err == OK && walk->count > 0)
        qsort(walk->ids, walk->count, sizeof(uint32_t), id_compare);
    if (err == OK)
        err = find_mark(walk);
    if (err != OK)
        walk_close(walk);
    return err;
}

void walk_close(struct walk *walk)
{
    memory_give(walk->ids, MEMORY_STORE);
    memory_give(walk->archives, MEMORY_STORE);
    walk->ids = NULL;
    walk->archives = NULL;
    walk->count = walk->archive_count = 0;
}

static enum err visit_batch(const struct walk_visitor *visitor, const struct scan *scan,
                            const struct scan_item *item)
{
    struct batch_walk batch;
    batch_walk_init(&batch, &scan->key, item);
    while (batch_walk_next(&batch))
        TRY(visitor->record(visitor->context, item, &batch));
    return OK;
}

static enum err visit_segment(const struct walk *walk, const struct walk_visitor *visitor,
                              uint32_t at)
{
    struct scan scan;
    int fd;
    enum err err = walk_segment_open(walk, at, &fd, &scan);
    if (err == ERR_CORRUPT || err == ERR_IO)
        return visitor->lost == NULL ? OK : visitor->lost(visitor->context, walk->ids[at], err);
    TRY(err);
    struct scan_item item = {.kind = SCAN_BATCH};
    while (err == OK && item.kind != SCAN_END) {
        err = scan_next(&scan, &item);
        if (err == OK && visitor->item != NULL)
            err = visitor->item(visitor->context, &scan, &item);
        if (err == OK && item.kind == SCAN_BATCH && visitor->record != NULL)
            err = visit_batch(visitor, &scan, &item);
    }
    scan_close(&scan);
    file_close(fd);
    return err;
}

static enum err visit_block(const struct walk_visitor *visitor, const struct archive *archive,
                            struct archive_walk *blocks, const struct walk_item *item)
{
    struct bytes records;
    struct bytes encoded;
    struct log_record record;
    enum err err = archive_walk_records(blocks, item, &records);
    while (err == OK &&
           (err = archive_record_next(&record, &encoded, &records, &archive->key)) == OK)
        err = visitor->archived(visitor->context, &archive->header, &record);
    return err == ERR_NOT_FOUND ? OK : err;
}

static enum err visit_marks(const struct walk_visitor *visitor, const struct archive_header *header,
                            const struct archive_state *state)
{
    struct archive_mark mark;
    uint8_t read[8];
    for (uint32_t i = 0; i < state->count; i++) {
        archive_state_mark(&mark, state, i);
        const struct log_record record = archive_mark_record(&mark, state->conversation, read);
        if (mark.marked)
            TRY(visitor->archived(visitor->context, header, &record));
    }
    return OK;
}

static enum err visit_states(const struct walk_visitor *visitor, const struct archive *archive,
                             struct bytes content)
{
    struct archive_state state;
    enum err err;
    while ((err = archive_state_next(&state, &content)) == OK)
        TRY(visitor->state != NULL ? visitor->state(visitor->context, &archive->header, &state)
                                   : visit_marks(visitor, &archive->header, &state));
    return err == ERR_NOT_FOUND ? OK : err;
}

enum err walk_archive_path(const struct walk_archive *archive, char out[STORE_PATH_BYTES])
{
    char name[ARCHIVE_NAME_BYTES];
    archive_name(name, &archive->name, ".archive");
    int size = snprintf(out, STORE_PATH_BYTES, "%s/%s", archive->directory, name);
    return size > 0 && size < STORE_PATH_BYTES ? OK : ERR_TOO_BIG;
}

/* visit_archive: what is damaged in it is told as lost, once per place. */
static enum err visit_archive(const struct walk_archive *name, const struct walk_visitor *visitor)
{
    char path[STORE_PATH_BYTES];
    struct archive *archive;
    struct archive_walk blocks;
    struct walk_item item = {.kind = WALK_BLOCK};
    TRY(walk_archive_path(name, path));
    enum err err = archive_load(&archive, path);
    if (err == ERR_CORRUPT || err == ERR_IO)
        return visitor->lost == NULL ? OK : visitor->lost(visitor->context, name->name.last, err);
    TRY(err);
    archive_walk_init(&blocks, archive->fd, &archive->key, ARCHIVE_HEADER_BYTES,
                      archive->footer.bytes);
    while (err == OK && (err = archive_walk_next(&blocks, &item)) == OK && item.kind != WALK_END) {
        if (item.kind == WALK_BLOCK && item.block.kind == ARCHIVE_DATA && visitor->archived != NULL)
            err = visit_block(visitor, archive, &blocks, &item);
        else if (item.kind == WALK_BLOCK && item.block.kind == ARCHIVE_STATES)
            err = visit_states(visitor, archive, item.content);
        if ((err == ERR_CORRUPT || item.kind != WALK_BLOCK) && visitor->lost != NULL)
            err = visitor->lost(visitor->context, name->name.last, ERR_CORRUPT);
    }
    archive_walk_deinit(&blocks);
    archive_destroy(archive);
    return err;
}

enum err walk_records(const struct walk *walk, const struct walk_visitor *visitor)
{
    for (uint32_t i = 0; i < walk->archive_count; i++)
        if (visitor->segment == 0 && (visitor->archived != NULL || visitor->state != NULL))
            TRY(visit_archive(&walk->archives[i], visitor));
    for (uint32_t i = 0; i < walk->count; i++)
        if ((visitor->segment == 0 && !walk_covered(walk, walk->ids[i])) ||
            visitor->segment == walk->ids[i])
            TRY(visit_segment(walk, visitor, i));
    return OK;
}

bool walk_damaged(const struct walk *walk, const struct scan *scan, const struct scan_item *item)
{
    if (position_of(scan->header.id, item->from) >= walk->mark)
        return false;
    switch (item->kind) {
    case SCAN_BATCH:
        return item->dirty || !batch_sound(&scan->key, item);
    case SCAN_DAMAGE:
        return true;
    case SCAN_END:
        return item->dirty || item->unreadable;
    }
    return false;
}

/* index_matches: *sound: the file at fd is `expected`; one that the device cannot read is not. */
static enum err index_matches(int fd, struct bytes expected, bool *sound)
{
    size_t done = 0;
    uint8_t *found = memory_take(expected.size + 1, MEMORY_STORE);
    if (found == NULL)
        return ERR_NO_MEMORY;
    enum err err = file_read(fd, 0, found, expected.size + 1, &done);
    *sound = err == OK && bytes_equal(bytes_of(found, done), expected);
    memory_give(found, MEMORY_STORE);
    return err == ERR_IO ? OK : err;
}

enum err walk_index_check(const struct walk *walk, struct scan *scan, bool mend, bool *sound)
{
    char path[STORE_PATH_BYTES];
    struct index *index;
    struct bytes expected = {NULL, 0};
    uint32_t data_end;
    int fd;
    *sound = true;
    TRY(store_path(path, walk->directory, scan->header.id, ".index"));
    enum err err = file_open(&fd, path, FILE_READ);
    if (err != OK)
        return err == ERR_NOT_FOUND ? OK : err;
    scan_rewind(scan);
    err = index_rebuild(&index, scan, &data_end);
    if (err == OK) {
        err = sidecar_build(&expected, &scan->header, index, data_end);
        if (err == OK)
            err = index_matches(fd, expected, sound);
        if (err == OK && !*sound && mend)
            err = sidecar_write(walk->directory, &scan->header, index, data_end);
        union {
            const uint8_t *in;
            void *out;
        } memory = {.in = expected.data};
        memory_give(memory.out, MEMORY_STORE);
        index_destroy(index);
    }
    file_close(fd);
    return err;
}
