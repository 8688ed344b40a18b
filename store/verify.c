/* verify.c: `roost log verify DIR`: reads every byte of every segment, sidecar and archive and says
 * what is not as it was written. Takes no lock and writes nothing; on a lane in use it may report
 * the batch that is just being written as a torn tail. */
#include "store/verify.h"

#include "core/file.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

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

static void verify_batch(struct verify *v, const struct scan *scan, const struct scan_item *item)
{
    uint32_t id = scan->header.id;
    uint64_t position = position_of(id, item->from);
    bool damage = position < v->walk->mark;
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
    bool tail = position_of(id, item->from) >= v->walk->mark;
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

/* verify_index: of a damaged segment it still names what is lost: there is nothing to compare. */
static enum err verify_index(struct verify *v, struct scan *scan)
{
    bool sound = true;
    if (v->damage)
        return OK;
    enum err err = walk_index_check(v->walk, scan, false, &sound);
    if (!sound)
        verify_report(v, true,
                      "index of segment %08" PRIx32
                      ": damaged; it is rebuilt when it is used, or remove %s/%08" PRIx32 ".index",
                      scan->header.id, v->walk->directory, scan->header.id);
    return err;
}

static enum err verify_items(struct verify *v, struct scan *scan)
{
    struct scan_item item = {.kind = SCAN_BATCH};
    while (item.kind != SCAN_END) {
        TRY(scan_next(scan, &item));
        if (item.kind == SCAN_BATCH)
            verify_batch(v, scan, &item);
        else
            verify_rest(v, scan, &item);
    }
    return OK;
}

static enum err verify_segment(struct verify *v, uint32_t at)
{
    struct scan scan;
    uint32_t id = v->walk->ids[at];
    int fd;
    enum err err = walk_segment_open(v->walk, at, &fd, &scan);
    if (err == ERR_NEWER || err == ERR_NO_MEMORY)
        return err;
    if (err != OK) {
        verify_report(v, true, "segment %08" PRIx32 ": both copies of the header are damaged (%s)",
                      id, err_name(err));
        return OK;
    }
    bool damage_before = v->damage;
    v->damage = false;
    if (walk_apart(v->walk, at))
        v->have_base = false;
    if (scan.header.id != id)
        verify_report(v, true, "segment %08" PRIx32 ": its header says %08" PRIx32, id,
                      scan.header.id);
    if (scan.copy_damaged)
        verify_report(v, true, "segment %08" PRIx32 ": one copy of the header is damaged", id);
    err = verify_items(v, &scan);
    if (err == OK)
        err = verify_index(v, &scan);
    v->damage = v->damage || damage_before;
    scan_close(&scan);
    file_close(fd);
    return err;
}

enum err log_verify(const char *directory, const char *cold,
                    void (*finding)(void *context, const char *line), void *context)
{
    struct walk walk;
    struct verify v = {.walk = &walk, .finding = finding, .context = context};
    TRY(walk_open(&walk, directory, cold));
    enum err err = OK;
    for (uint32_t i = 0; i < walk.archive_count && err == OK; i++)
        err = verify_archive(&v, &walk.archives[i]);
    uint32_t segments = 0;
    for (uint32_t i = 0; i < walk.count && err == OK; i++) {
        if (walk_covered(&walk, walk.ids[i]))
            continue; /* the next start removes it */
        segments++;
        err = verify_segment(&v, i);
    }
    if (err == OK)
        verify_report(&v, false,
                      "%" PRIu32 " archives, %" PRIu32 " segments, %" PRIu64 " records: %s",
                      walk.archive_count, segments, v.records, v.damage ? "damaged" : "sound");
    walk_close(&walk);
    if (err == OK && v.damage)
        return ERR_CORRUPT;
    return err;
}
