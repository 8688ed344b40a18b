/* verify.c: `roost log verify DIR`: reads every byte of every segment, sidecar and archive and says
 * what is not as it was written. Takes no lock and writes nothing; on a lane in use it may report
 * the batch that is just being written as a torn tail. */
#include "store/verify.h"

#include "core/file.h"
#include "core/memory.h"
#include "store/sidecar.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void verify_report(struct verify *v, bool damage, const char *format, ...)
{
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    v->damage = v->damage || damage;
    v->finding(v->context, line);
}

static enum err list_archive(struct verify *v, const struct archive_header *name)
{
    if (v->archive_count == v->archive_capacity) {
        uint32_t capacity = v->archive_capacity == 0 ? 16 : v->archive_capacity * 2;
        void *grown = memory_resize(v->archives, capacity * sizeof *name, MEMORY_STORE);
        if (grown == NULL)
            return ERR_NO_MEMORY;
        v->archives = grown;
        v->archive_capacity = capacity;
    }
    v->archives[v->archive_count++] = *name;
    return OK;
}

static enum err list_entry(void *context, const char *name)
{
    struct verify *v = context;
    struct archive_header archive;
    uint32_t id;
    if (archive_name_parse(&archive, name, ".archive") == OK)
        return list_archive(v, &archive);
    if (segment_name_parse(&id, name, ".segment") != OK)
        return OK;
    if (v->count == v->capacity) {
        uint32_t capacity = v->capacity == 0 ? 64 : v->capacity * 2;
        uint32_t *grown = memory_resize(v->ids, capacity * sizeof(uint32_t), MEMORY_STORE);
        if (grown == NULL)
            return ERR_NO_MEMORY;
        v->ids = grown;
        v->capacity = capacity;
    }
    v->ids[v->count++] = id;
    return OK;
}

static int id_compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a;
    uint32_t y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static enum err open_scan(const struct verify *v, uint32_t id, int *fd, struct scan *scan)
{
    char path[STORE_PATH_BYTES];
    TRY(store_path(path, v->directory, id, ".segment"));
    TRY(file_open(fd, path, FILE_READ));
    enum err err = scan_open(scan, *fd);
    if (err != OK)
        file_close(*fd);
    return err;
}

/* find_mark: the highest durable_before, in the newest segment with a valid batch header. */
static enum err find_mark(struct verify *v)
{
    for (uint32_t i = v->count; i-- > 0 && v->mark == 0;) {
        struct scan scan;
        struct scan_item item = {.kind = SCAN_BATCH};
        int fd;
        enum err err = open_scan(v, v->ids[i], &fd, &scan);
        if (err == ERR_NO_MEMORY)
            return err;
        if (err != OK)
            continue; /* reported when it is walked */
        while ((err = scan_next(&scan, &item)) == OK && item.kind != SCAN_END)
            if (item.kind == SCAN_BATCH && item.header.durable_before > v->mark)
                v->mark = item.header.durable_before;
        scan_close(&scan);
        file_close(fd);
        TRY(err);
    }
    return OK;
}

static void verify_batch(struct verify *v, const struct scan *scan, const struct scan_item *item)
{
    uint32_t id = scan->header.id;
    uint64_t position = position_of(id, item->from);
    bool damage = position < v->mark;
    if (v->have_base && item->header.record_base != v->base)
        verify_report(v, true,
                      "segment %08" PRIx32 " offset %" PRIu32 ": %" PRIu64
                      " records before this batch are missing",
                      id, item->from, item->header.record_base - v->base);
    if (v->have_base && item->header.previous_end != v->end)
        verify_report(v, true,
                      "segment %08" PRIx32 " offset %" PRIu32
                      ": the batch before this one is missing (it ended at %016" PRIx64 ")",
                      id, item->from, item->header.previous_end);
    struct batch_walk walk;
    batch_walk_init(&walk, &scan->key, item);
    while (batch_walk_next(&walk))
        v->records++;
    if (!batch_sound(&scan->key, item))
        verify_report(v, damage,
                      "segment %08" PRIx32 " offset %" PRIu32 ": %s, %" PRIu32 " of %" PRIu32
                      " records are valid",
                      id, item->from, damage ? "damaged batch" : "torn tail", walk.valid,
                      item->header.records);
    if (item->dirty)
        verify_report(v, damage, "segment %08" PRIx32 " offset %" PRIu32 ": padding is not zero",
                      id, item->from);
    v->base = item->header.record_base + item->header.records;
    v->end = position_of(id, item->to);
    v->have_base = true;
}

static void verify_rest(struct verify *v, const struct scan *scan, const struct scan_item *item)
{
    uint32_t id = scan->header.id;
    bool tail = position_of(id, item->from) >= v->mark;
    if (item->unreadable)
        verify_report(v, true,
                      "segment %08" PRIx32 " offset %" PRIu32 " to %" PRIu32
                      ": the device cannot read it",
                      id, item->from, item->to);
    else if (item->kind == SCAN_DAMAGE)
        verify_report(v, !tail, "segment %08" PRIx32 " offset %" PRIu32 " to %" PRIu32 ": %s", id,
                      item->from, item->to, tail ? "torn tail" : "damaged, no batch header");
    else if (item->dirty)
        verify_report(v, !tail, "segment %08" PRIx32 " offset %" PRIu32 ": %s", id, item->from,
                      tail ? "torn tail" : "not zero behind the last batch");
}

/* verify_sidecar: byte for byte what the segment's records give. */
static enum err verify_sidecar(struct verify *v, struct scan *scan, bool damaged)
{
    char path[STORE_PATH_BYTES];
    struct index *index;
    struct bytes expected = {NULL, 0};
    uint32_t data_end;
    uint32_t id = scan->header.id;
    int fd;
    TRY(store_path(path, v->directory, id, ".index"));
    enum err err = file_open(&fd, path, FILE_READ);
    if (err == ERR_NOT_FOUND || damaged)
        goto none; /* of a damaged segment it still names what is lost: nothing to compare */
    TRY(err);
    err = index_rebuild(&index, scan, &data_end);
    if (err == OK) {
        err = sidecar_build(&expected, &scan->header, index, data_end);
        index_destroy(index);
    }
    uint8_t *found = err == OK ? memory_take(expected.size + 1, MEMORY_STORE) : NULL;
    size_t done = 0;
    if (err == OK)
        err = found == NULL ? ERR_NO_MEMORY : file_read(fd, 0, found, expected.size + 1, &done);
    if (err == ERR_IO || (err == OK && !bytes_equal(bytes_of(found, done), expected)))
        verify_report(v, true,
                      "index of segment %08" PRIx32
                      ": damaged; it is rebuilt when it is used, or remove %s",
                      id, path);
    union {
        const uint8_t *in;
        void *out;
    } memory = {.in = expected.data};
    memory_give(memory.out, MEMORY_STORE);
    memory_give(found, MEMORY_STORE);
    file_close(fd);
    return err == ERR_IO ? OK : err;
none:
    if (err == OK)
        file_close(fd);
    return OK;
}

static enum err verify_segment(struct verify *v, uint32_t id)
{
    struct scan scan;
    int fd;
    enum err err = open_scan(v, id, &fd, &scan);
    if (err == ERR_NEWER || err == ERR_NO_MEMORY)
        return err;
    if (err != OK) {
        verify_report(v, true, "segment %08" PRIx32 ": both copies of the header are damaged (%s)",
                      id, err_name(err));
        return OK;
    }
    bool damage_before = v->damage;
    v->damage = false;
    if (scan.header.id != id)
        verify_report(v, true, "segment %08" PRIx32 ": its header says %08" PRIx32, id,
                      scan.header.id);
    if (scan.copy_damaged)
        verify_report(v, true, "segment %08" PRIx32 ": one copy of the header is damaged", id);
    struct scan_item item = {.kind = SCAN_BATCH};
    while (err == OK && item.kind != SCAN_END) {
        err = scan_next(&scan, &item);
        if (err == OK && item.kind == SCAN_BATCH)
            verify_batch(v, &scan, &item);
        else if (err == OK)
            verify_rest(v, &scan, &item);
    }
    if (err == OK) {
        scan_rewind(&scan);
        err = verify_sidecar(v, &scan, v->damage);
    }
    v->damage = v->damage || damage_before;
    scan_close(&scan);
    file_close(fd);
    return err;
}

enum err log_verify(const char *directory, void (*finding)(void *context, const char *line),
                    void *context)
{
    struct verify v = {.directory = directory, .finding = finding, .context = context};
    enum err err = file_list(directory, list_entry, &v);
    if (err == OK && v.count > 0)
        qsort(v.ids, v.count, sizeof(uint32_t), id_compare);
    if (err == OK)
        err = find_mark(&v);
    for (uint32_t i = 0; i < v.archive_count && err == OK; i++)
        err = verify_archive(&v, &v.archives[i]);
    for (uint32_t i = 0; i < v.count && err == OK; i++)
        err = verify_segment(&v, v.ids[i]);
    if (err == OK)
        verify_report(&v, false,
                      "%" PRIu32 " archives, %" PRIu32 " segments, %" PRIu64 " records: %s",
                      v.archive_count, v.count, v.records, v.damage ? "damaged" : "sound");
    memory_give(v.archives, MEMORY_STORE);
    memory_give(v.ids, MEMORY_STORE);
    if (err == OK && v.damage)
        return ERR_CORRUPT;
    return err;
}
