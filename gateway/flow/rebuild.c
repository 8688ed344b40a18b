/* rebuild.c: see rebuild.h. */
#include "gateway/flow/rebuild.h"

#include "core/file.h"
#include "core/memory.h"
#include "gateway/chat/replay.h"
#include "gateway/flow/checkpoint.h"
#include "gateway/flow/lanes.h"
#include "gateway/flow/rebuild_compare.h"

#include <inttypes.h>
#include <stdio.h>

#define PATH_BYTES (STORE_PATH_BYTES + 64)
#define MAP_BYTES  (1ull << 40) /* address space, not disk; serve sets its own */

struct rebuild {
    const char *data;
    char further[CONFIG_TEXT_BYTES]; /* directories of the lanes but the first */
    const struct walk *walk;         /* of the lane at hand */
    uint32_t lane;
    struct catalog *catalog;
    struct catalog_txn *txn;
    struct replay *replay;
    const struct inspect_output *out;
    const char *cold; /* directory of old archives, or NULL */
    /* first pass: what the log is like */
    uint64_t damaged; /* ranges, lost segments, gaps in the running number of records, voids */
    uint64_t archives;
    uint64_t base;
    bool have_base;
    uint64_t end; /* of the lane at hand */
    uint64_t ends[LANES_MAX];
    uint64_t durable[LANES_MAX]; /* the walk's mark */
    uint64_t writer_epoch;
    /* second pass */
    bool marks_only; /* watermarks come first: which own message follows one is then known */
    uint64_t records;
    uint64_t deleted;
    uint8_t keys[REBUILD_KEY_BYTES_MAX * 1024];
    size_t key_count;
    size_t key_size;
};

/* ---- first pass */

static enum err judge_lost(void *context, uint32_t id, enum err err)
{
    struct rebuild *r = context;
    (void)id;
    (void)err;
    r->damaged++;
    return OK;
}

static enum err judge_item(void *context, const struct scan *scan, const struct scan_item *item)
{
    struct rebuild *r = context;
    if (walk_damaged(r->walk, scan, item))
        r->damaged++;
    if (item->kind != SCAN_BATCH)
        return OK;
    bool first = position_segment(r->end) != scan->header.id;
    if (first && walk_covered(r->walk, scan->header.id - 1))
        r->have_base = false; /* the batches before this one are in an archive */
    if (r->have_base && item->header.record_base != r->base)
        r->damaged++;
    r->have_base = true;
    r->base = item->header.record_base + item->header.records;
    r->end = position_of(scan->header.id, item->to);
    if (item->header.writer_epoch > r->writer_epoch)
        r->writer_epoch = item->header.writer_epoch;
    return OK;
}

static enum err judge_record(void *context, const struct scan_item *batch,
                             const struct batch_walk *at)
{
    struct rebuild *r = context;
    (void)batch;
    r->damaged += at->record.kind == RECORD_VOID;
    return OK;
}

static enum err judge_archived(void *context, const struct archive_header *archive,
                               const struct log_record *record)
{
    struct rebuild *r = context;
    struct gone_range gone;
    (void)archive;
    r->damaged += record->kind == RECORD_LOST ||
                  (record->kind == RECORD_GONE &&
                   (gone_decode(&gone, record) != OK || gone.reason == GONE_DAMAGED));
    return OK;
}

static enum err judge_state(void *context, const struct archive_header *archive,
                            const struct archive_state *state)
{
    struct rebuild *r = context;
    (void)archive;
    r->damaged += state->incomplete;
    return OK;
}

/* judge_gaps: segments before and between the archives are there. */
static void judge_gaps(struct rebuild *r)
{
    const struct walk *walk = r->walk;
    uint32_t at = 0;
    uint32_t next = 1;
    for (uint32_t i = 0; i < walk->archive_count; i++) {
        const struct archive_header *name = &walk->archives[i].name;
        for (; next < name->first; next++) {
            while (at < walk->count && walk->ids[at] < next)
                at++;
            r->damaged += at == walk->count || walk->ids[at] != next;
        }
        next = name->last + 1;
    }
    r->archives += walk->archive_count;
}

/* ---- second pass */

/* write_checkpoint: what is above the mark is secured and replayed by the next start. */
static enum err write_checkpoint(struct rebuild *r)
{
    struct checkpoint_meta meta;
    TRY(checkpoint_read_meta(r->catalog, &meta));
    meta.lanes = lanes_count(r->further);
    for (uint32_t i = 0; i < meta.lanes; i++)
        meta.positions[i] = r->ends[i] < r->durable[i] ? r->ends[i] : r->durable[i];
    if (r->writer_epoch > meta.writer_epoch)
        meta.writer_epoch = r->writer_epoch;
    return checkpoint_write_meta(r->catalog, &meta);
}

static enum err gather_key(void *context, struct bytes key, struct bytes value)
{
    struct rebuild *r = context;
    (void)value;
    if (key.size > REBUILD_KEY_BYTES_MAX)
        return ERR_CORRUPT;
    r->key_size = key.size; /* the same for every row of a table */
    memcpy(r->keys + r->key_count++ * REBUILD_KEY_BYTES_MAX, key.data, key.size);
    return r->key_count == sizeof r->keys / REBUILD_KEY_BYTES_MAX ? ERR_CANCELLED : OK;
}

/* delete_some: of one table, in a transaction of their own; OK with key_count 0: there are none. */
static enum err delete_some(struct rebuild *r, enum catalog_table table)
{
    struct catalog_txn *txn;
    r->key_count = 0;
    TRY(catalog_begin(r->catalog, &txn, true));
    enum err err = catalog_scan(txn, table, bytes_of(NULL, 0), gather_key, r);
    for (size_t i = 0; i < r->key_count && err == OK; i++)
        err =
            catalog_delete(txn, table, bytes_of(r->keys + i * REBUILD_KEY_BYTES_MAX, r->key_size));
    if (err != OK) {
        catalog_abort(txn);
        return err;
    }
    r->deleted += r->key_count;
    return catalog_commit(txn);
}

static enum err delete_rows(struct rebuild *r)
{
    for (size_t i = 0; i < REBUILD_TABLES; i++)
        do
            TRY(delete_some(r, rebuild_tables[i]));
        while (r->key_count != 0);
    return OK;
}

/* write_merged: what is merged in memory, and its transaction. */
static enum err write_merged(struct rebuild *r)
{
    if (r->txn == NULL)
        return OK;
    TRY(replay_flush(r->replay, r->txn));
    struct catalog_txn *txn = r->txn;
    r->txn = NULL;
    return catalog_commit(txn);
}

/* make_room: for one more record in memory. */
static enum err make_room(struct rebuild *r)
{
    if (replay_full(r->replay))
        TRY(write_merged(r));
    return r->txn == NULL ? catalog_begin(r->catalog, &r->txn, true) : OK;
}

static enum err merge_one(struct rebuild *r, const struct log_record *record)
{
    if (r->marks_only && record->kind != RECORD_WATERMARK)
        return OK;
    TRY(make_room(r));
    TRY(replay_record(r->replay, r->txn, record));
    r->records += !r->marks_only;
    return OK;
}

static enum err merge(void *context, const struct scan_item *batch, const struct batch_walk *at)
{
    struct rebuild *r = context;
    if (batch->header.position >= r->end) /* written since the first pass: cannot be */
        return ERR_CANCELLED;
    return merge_one(r, &at->record);
}

/* merge_archived: numbers that are gone were given all the same. */
static enum err merge_archived(void *context, const struct archive_header *archive,
                               const struct log_record *record)
{
    struct log_record given = *record;
    (void)archive;
    if (record->kind == RECORD_GONE && gone_given(&given, record) != OK)
        return OK;
    return merge_one(context, &given);
}

static enum err merge_state(void *context, const struct archive_header *archive,
                            const struct archive_state *state)
{
    struct rebuild *r = context;
    (void)archive;
    TRY(make_room(r));
    return replay_state(r->replay, r->txn, state);
}

static enum err merge_all(struct rebuild *r)
{
    const struct walk_visitor visitor = {.context = r,
                                         .record = merge,
                                         .archived = merge_archived,
                                         .state = r->marks_only ? NULL : merge_state};
    TRY(replay_create(&r->replay));
    enum err err = walk_records(r->walk, &visitor);
    if (err == OK)
        err = write_merged(r);
    if (r->txn != NULL)
        catalog_abort(r->txn);
    r->txn = NULL;
    replay_destroy(r->replay);
    return err;
}

/* in_lane: what is done with each lane's files. */
static enum err in_lane(struct rebuild *r, uint32_t lane, enum err (*what)(struct rebuild *r))
{
    char directory[LANE_PATH_BYTES];
    char cold[LANE_PATH_BYTES];
    struct walk walk;
    lanes_directory(directory, r->data, r->further, lane);
    lanes_cold_directory(cold, r->cold, lane);
    TRY(walk_open(&walk, directory, cold[0] == 0 ? NULL : cold));
    /* cppcheck-suppress autoVariables ; not used after this call */
    r->walk = &walk;
    r->lane = lane;
    enum err err = what(r);
    walk_close(&walk);
    return err;
}

static enum err judge_lane(struct rebuild *r)
{
    const struct walk_visitor judge = {.context = r,
                                       .lost = judge_lost,
                                       .item = judge_item,
                                       .record = judge_record,
                                       .archived = judge_archived,
                                       .state = judge_state};
    judge_gaps(r);
    r->have_base = true; /* a log that does not begin at its beginning is not whole */
    r->base = r->end = 0;
    TRY(walk_records(r->walk, &judge));
    r->ends[r->lane] = r->end;
    r->durable[r->lane] = r->walk->mark;
    return OK;
}

static enum err merge_lane(struct rebuild *r)
{
    r->end = r->ends[r->lane];
    return merge_all(r);
}

/* ---- all of it */

static enum err in_lanes(struct rebuild *r, enum err (*what)(struct rebuild *r))
{
    uint32_t lanes = lanes_count(r->further);
    for (uint32_t i = 0; i < lanes; i++)
        TRY(in_lane(r, i, what));
    return OK;
}

/* rebuild_in: r->catalog; with an original each stage is compared with it. */
static enum err rebuild_in(struct rebuild *r, struct compare *compare)
{
    TRY(in_lanes(r, judge_lane));
    if (r->damaged != 0)
        inspect_print(r->out,
                      "note           the log is not all that ever was (damage or repairs, %" PRIu64
                      " reasons): rows are raised from it, none is removed",
                      r->damaged);
    else
        TRY(delete_rows(r));
    r->marks_only = true;
    TRY(in_lanes(r, merge_lane));
    if (compare != NULL && r->damaged == 0)
        TRY(compare_marks(compare, r->catalog));
    r->marks_only = false;
    TRY(in_lanes(r, merge_lane));
    TRY(write_checkpoint(r));
    inspect_print(r->out, "rebuilt        from %" PRIu64 " records; %" PRIu64 " rows were replaced",
                  r->records, r->deleted);
    if (compare == NULL)
        return OK;
    compare->sizes_known = r->archives == 0;
    return compare_all(compare, r->catalog);
}

/* ---- the copy */

static void remove_copy(const char *directory)
{
    static const char *const names[] = {"/data.mdb", "/lock.mdb", "/owner", ""};
    char path[PATH_BYTES + 16];
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        snprintf(path, sizeof path, "%s%s", directory, names[i]);
        (void)!file_remove(path);
    }
}

static enum err copy_original(struct rebuild *r, struct catalog *beside, const char *copy)
{
    const char *why = "";
    char path[PATH_BYTES + 16];
    snprintf(path, sizeof path, "%s/data.mdb", copy);
    remove_copy(copy); /* of an attempt that was killed */
    TRY(file_make_private_directory(copy));
    TRY(catalog_copy(beside, path));
    TRY(catalog_open(&r->catalog, copy, MAP_BYTES, &why));
    enum err err = lanes_read(r->catalog, r->further);
    if (err != OK)
        catalog_close(r->catalog);
    return err;
}

/* take_over: from here on the copy is the catalog. */
static enum err take_over(const char *original, const char *copy)
{
    char from[PATH_BYTES + 16];
    char to[PATH_BYTES + 16];
    snprintf(from, sizeof from, "%s/data.mdb", copy);
    snprintf(to, sizeof to, "%s/data.mdb", original);
    TRY(file_rename(from, to));
    return file_sync_directory(original);
}

/* in_copy: whatever happens on the way, the original is whole. */
static enum err in_copy(struct rebuild *r, const char *original, const char *copy, bool compare,
                        char *explanation)
{
    const char *why = "";
    struct catalog *beside;
    struct compare *c = memory_take_zeroed(sizeof *c, MEMORY_STORE);
    if (c == NULL)
        return inspect_explain(explanation, ERR_NO_MEMORY, "out of memory");
    enum err err = catalog_open_beside(&beside, original, &why);
    if (err != OK) {
        memory_give(c, MEMORY_STORE);
        return inspect_explain(explanation, err, "%s: %s", original, why);
    }
    c->beside = beside;
    c->out = r->out;
    err = copy_original(r, beside, copy);
    if (err == OK) {
        err = rebuild_in(r, compare ? c : NULL);
        catalog_close(r->catalog);
    }
    catalog_close(beside);
    memory_give(c, MEMORY_STORE);
    if (err == OK && !compare)
        err = take_over(original, copy);
    remove_copy(copy);
    if (err == ERR_CONFLICT)
        return inspect_explain(explanation, err,
                               "%s is not what the log says: rebuild it (without --compare)",
                               original);
    return err == OK ? OK
                     : inspect_explain(explanation, err,
                                       "%s could not be made from %s and the log of %s; the "
                                       "catalog is as it was",
                                       copy, original, r->data);
}

enum err store_rebuild(const char *data, const char *cold, bool compare,
                       const struct inspect_output *out,
                       char explanation[INSPECT_EXPLANATION_BYTES])
{
    char path[PATH_BYTES];
    char catalog[PATH_BYTES];
    int lock;
    if (strlen(data) >= STORE_PATH_BYTES - 32)
        return inspect_explain(explanation, ERR_TOO_BIG, "%s: the path is too long", data);
    snprintf(path, sizeof path, "%s/lock", data);
    snprintf(catalog, sizeof catalog, "%s/catalog", data);
    enum err err = file_open(&lock, path, FILE_WRITE);
    if (err != OK)
        return inspect_explain(explanation, err, "%s is not the data directory of a store", data);
    err = file_lock(lock);
    if (err != OK) {
        file_close(lock);
        return inspect_explain(explanation, err, "a gateway runs on %s: stop it first", data);
    }
    struct rebuild *r = memory_take_zeroed(sizeof *r, MEMORY_STORE);
    if (r != NULL) {
        r->out = out;
        r->cold = cold;
        r->data = data;
    }
    snprintf(path, sizeof path, "%s/catalog.rebuilt", data);
    if (r == NULL)
        err = inspect_explain(explanation, ERR_NO_MEMORY, "out of memory");
    else
        err = in_copy(r, catalog, path, compare, explanation);
    memory_give(r, MEMORY_STORE);
    file_close(lock);
    return err;
}
