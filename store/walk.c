/* walk.c: see walk.h. */
#include "store/walk.h"

#include "core/file.h"
#include "core/memory.h"

#include <stdlib.h>

static enum err list_entry(void *context, const char *name)
{
    struct walk *walk = context;
    uint32_t id;
    if (segment_name_parse(&id, name, ".segment") != OK)
        return OK;
    if (walk->count == walk->capacity) {
        uint32_t capacity = walk->capacity == 0 ? 64 : walk->capacity * 2;
        uint32_t *grown = memory_resize(walk->ids, capacity * sizeof(uint32_t), MEMORY_STORE);
        if (grown == NULL)
            return ERR_NO_MEMORY;
        walk->ids = grown;
        walk->capacity = capacity;
    }
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
    enum err err = scan_open(scan, *fd);
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

enum err walk_open(struct walk *walk, const char *directory)
{
    *walk = (struct walk){.directory = directory};
    enum err err = file_list(directory, list_entry, walk);
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
    walk->ids = NULL;
    walk->count = 0;
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

enum err walk_records(const struct walk *walk, const struct walk_visitor *visitor)
{
    for (uint32_t i = 0; i < walk->count; i++)
        if (visitor->segment == 0 || visitor->segment == walk->ids[i])
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
