/* snapshot.c: see snapshot.h. Consistent by its order alone, with no word to the process that
 * writes:
 *
 *   1 list the segments, then find the mark: the highest durable_before of any valid batch header
 *   2 segments wholly below the mark's: never written again, so a hard link is a copy
 *   3 from the mark's segment on: walk batch by batch, the newest segment first, and copy up to the
 *     first place where no sound batch stands; zeros behind it
 *
 * A batch is written once and never changed. One that was durable before step 1 reads as sound in
 * step 3, so the copy reaches at least as far. A torn batch in step 3 is one that is being written,
 * or was when it was read: it is above the mark, because the mark is older than the reading, and it
 * was not durable when the call began. What is not sound below the mark is damage: it is copied as
 * it is, and the copy says so as the lane would.
 *
 * A merge may replace files meanwhile: what it removes has its content in an archive, which a
 * further listing shows. Links keep what they name; a start removes what an archive covers. What
 * the lane would use again has no second name and no reader (making.c): a link is made, then its
 * source is looked for once more; what is copied is locked. */
#include "store/snapshot.h"

#include "core/file.h"
#include "core/hash.h"
#include "core/memory.h"

#include <stdio.h>

#define COPY_BYTES   (1u << 20)
#define PASSES_MAX   16
#define NAME_BYTES   64
#define PATH_BYTES   (STORE_PATH_BYTES + NAME_BYTES)
#define ARCHIVE_TAIL ".archive"

struct copying {
    const char *directory; /* that is being listed */
    const char *lane;
    const char *target;
    struct log_snapshot_report *report;
    uint32_t below; /* segments with a lower id are linked */
    bool vanished;
};

enum err file_copy(const char *source, const char *target, uint64_t bytes, uint32_t *crc)
{
    int in;
    int out;
    uint64_t size = 0;
    TRY(file_open(&in, source, FILE_READ));
    enum err err = file_lock_shared(in); /* while it is locked, no lane uses it again (making.c) */
    if (err == ERR_BUSY)
        err = ERR_NOT_FOUND; /* freed meanwhile */
    if (err == OK)
        err = file_size(in, &size);
    if (err == OK)
        err = file_open(&out, target, FILE_WRITE | FILE_CREATE | FILE_EXCLUSIVE | FILE_PRIVATE);
    if (err != OK) {
        file_close(in);
        return err;
    }
    uint32_t sum = 0;
    uint8_t *data = memory_take(COPY_BYTES, MEMORY_STORE);
    if (data == NULL)
        err = ERR_NO_MEMORY;
    for (uint64_t at = 0; err == OK && at < size;) {
        size_t part = size - at < COPY_BYTES ? (size_t)(size - at) : COPY_BYTES;
        size_t done = 0;
        if (at < bytes) {
            err = file_read(in, at, data, part, &done);
            done = done > bytes - at ? (size_t)(bytes - at) : done;
        }
        memset(data + done, 0, part - done);
        sum = crc32c(sum, bytes_of(data, part));
        if (err == OK)
            err = file_write(out, at, bytes_of(data, part));
        at += part;
    }
    if (err == OK)
        err = file_sync(out);
    memory_give(data, MEMORY_STORE);
    file_close(out);
    file_close(in);
    if (crc != NULL)
        *crc = sum;
    return err;
}

/* ---- what does not change */

static bool immutable(const struct copying *c, const char *name)
{
    uint32_t id;
    size_t size = strlen(name);
    size_t tail = strlen(ARCHIVE_TAIL);
    if (segment_name_parse(&id, name, ".segment") == OK ||
        segment_name_parse(&id, name, ".index") == OK)
        return c->directory == c->lane && id < c->below;
    return size > tail && strcmp(name + size - tail, ARCHIVE_TAIL) == 0;
}

/* link_kept: a link to a file that still has its name: a lane that wants to use a segment again
 * takes its name away first, and then looks for links (making.c). */
static enum err link_kept(const char *source, const char *target)
{
    int fd;
    TRY(file_link(source, target));
    enum err err = file_open(&fd, source, FILE_READ);
    if (err == OK)
        file_close(fd);
    else
        (void)!file_remove(target);
    return err;
}

static enum err link_entry(void *context, const char *name)
{
    struct copying *c = context;
    char source[PATH_BYTES];
    char target[PATH_BYTES];
    if (strlen(name) >= NAME_BYTES - 1 || !immutable(c, name))
        return OK;
    snprintf(source, sizeof source, "%s/%s", c->directory, name);
    snprintf(target, sizeof target, "%s/%s", c->target, name);
    enum err err = link_kept(source, target);
    if (err == ERR_EXISTS)
        return OK; /* of an earlier pass */
    if (err == OK) {
        c->report->linked++;
        return OK;
    }
    if (err == ERR_UNSUPPORTED) {
        err = file_copy(source, target, UINT64_MAX, NULL);
        c->report->copied += err == OK;
        if (err == ERR_EXISTS)
            return OK;
    }
    if (err == ERR_NOT_FOUND) {
        c->vanished = true;
        return OK;
    }
    return err;
}

static enum err link_all(struct copying *c)
{
    for (int pass = 0; pass < PASSES_MAX; pass++) {
        c->vanished = false;
        TRY(file_list(c->directory, link_entry, c));
        if (!c->vanished)
            return OK;
    }
    return ERR_AGAIN;
}

/* ---- what may be written at this moment */

/* sound_end: where the segment's sound batches end, and whether a further one may follow in the
 * next segment. */
static enum err sound_end(struct copying *c, const struct walk *walk, struct scan *scan,
                          uint32_t *end, bool *more)
{
    struct scan_item item = {.kind = SCAN_BATCH};
    *end = SEGMENT_DATA_OFFSET;
    *more = false;
    while (item.kind != SCAN_END) {
        TRY(scan_next(scan, &item));
        bool below = position_of(scan->header.id, item.from) < walk->mark;
        bool sound = item.kind == SCAN_BATCH && batch_sound(&scan->key, &item);
        if (below && walk_damaged(walk, scan, &item))
            c->report->damaged++;
        if (item.kind == SCAN_END)
            break;
        if (!below && !sound)
            return OK;
        *end = item.to;
    }
    *more = true;
    return OK;
}

/* tail: what of a segment is copied. */
struct tail {
    uint32_t end; /* UINT32_MAX: as it is, as far as it can be read; 0: nothing is in it yet */
    bool more;
};

static enum err find_tail(struct copying *c, const struct walk *walk, uint32_t at,
                          struct tail *tail)
{
    struct scan scan;
    int fd;
    enum err err = walk_segment_open(walk, at, &fd, &scan);
    if (err == ERR_CORRUPT || err == ERR_IO) {
        c->report->damaged++;
        *tail = (struct tail){UINT32_MAX, true};
        return OK;
    }
    TRY(err);
    err = sound_end(c, walk, &scan, &tail->end, &tail->more);
    scan_close(&scan);
    file_close(fd);
    if (tail->end == SEGMENT_DATA_OFFSET && position_of(walk->ids[at], tail->end) >= walk->mark)
        tail->end = 0;
    return err;
}

static enum err copy_segment(struct copying *c, uint32_t id, const struct tail *tail)
{
    char source[STORE_PATH_BYTES];
    char target[STORE_PATH_BYTES];
    if (tail->end == 0)
        return OK;
    TRY(store_path(source, c->directory, id, ".segment"));
    TRY(store_path(target, c->target, id, ".segment"));
    TRY(file_copy(source, target, tail->end, NULL));
    c->report->copied++;
    if (tail->end == UINT32_MAX)
        return OK;
    c->report->end = position_of(id, tail->end);
    c->report->copied_bytes += tail->end;
    return OK;
}

/* copy_tails: their ends are looked for from the newest segment back: when a batch stands in one,
 * those before it are whole in the others. */
static enum err copy_tails(struct copying *c, const struct walk *walk)
{
    uint32_t first = 0;
    while (first < walk->count && walk->ids[first] < c->below)
        first++;
    uint32_t count = walk->count - first;
    struct tail *tails = memory_take((count + 1) * sizeof *tails, MEMORY_STORE);
    if (tails == NULL)
        return ERR_NO_MEMORY;
    enum err err = OK;
    for (uint32_t i = count; i-- > 0 && err == OK;)
        err = find_tail(c, walk, first + i, &tails[i]);
    bool more = true;
    for (uint32_t i = 0; i < count && more && err == OK; i++) {
        err = copy_segment(c, walk->ids[first + i], &tails[i]);
        more = tails[i].more;
    }
    memory_give(tails, MEMORY_STORE);
    return err;
}

/* covered: every segment up to the newest is in the copy, itself or in an archive. */
static enum err covered(const struct copying *c)
{
    struct walk copy;
    TRY(walk_open(&copy, c->target, NULL));
    uint32_t at = 0;
    uint32_t last = position_segment(c->report->end);
    for (uint32_t id = 1; id <= last && c->report->uncovered == 0; id++) {
        while (at < copy.count && copy.ids[at] < id)
            at++;
        bool there = at < copy.count && copy.ids[at] == id;
        if (!there && !walk_covered(&copy, id))
            c->report->uncovered = id;
    }
    walk_close(&copy);
    return c->report->uncovered == 0 ? OK : ERR_NOT_FOUND;
}

enum err log_snapshot(const char *directory, const char *cold, const char *target,
                      struct log_snapshot_report *report)
{
    struct walk walk;
    struct copying c = {
        .directory = directory, .lane = directory, .target = target, .report = report};
    *report = (struct log_snapshot_report){0};
    TRY(file_make_private_directory(target));
    TRY(walk_open(&walk, directory, cold));
    report->mark = report->end = walk.mark;
    c.below = position_segment(walk.mark);
    /* the lane's own directory once more at last: what moved to the cold one was there before */
    enum err err = link_all(&c);
    c.directory = cold;
    if (err == OK && cold != NULL)
        err = link_all(&c);
    c.directory = directory;
    if (err == OK)
        err = link_all(&c);
    if (err == OK)
        err = copy_tails(&c, &walk);
    walk_close(&walk);
    if (err == OK)
        err = file_sync_directory(target);
    return err == OK ? covered(&c) : err;
}
