/* rebuild.c: see rebuild.h. */
#include "gateway/flow/rebuild.h"

#include "core/file.h"
#include "core/memory.h"
#include "gateway/chat/replay.h"
#include "gateway/flow/checkpoint.h"
#include "gateway/flow/lanes.h"

#include <inttypes.h>
#include <stdio.h>

#define PATH_BYTES      (STORE_PATH_BYTES + 64)
#define MAP_BYTES       (1ull << 40) /* address space, not disk; serve sets its own */
#define KEY_BYTES_MAX   64
#define DIFFERENCES_MAX 20 /* rows that are printed */

static const enum catalog_table derived[] = {CATALOG_CONVERSATIONS, CATALOG_INBOX, CATALOG_PENDING,
                                             CATALOG_RETENTION};
static const char *const derived_names[] = {"conversations", "inbox", "pending", "retention"};

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
    uint64_t base;
    bool have_base;
    uint64_t end; /* of the lane at hand */
    uint64_t ends[LANES_MAX];
    uint64_t marks[LANES_MAX];
    uint64_t writer_epoch;
    /* second pass */
    uint64_t records;
    uint64_t deleted;
    uint8_t keys[KEY_BYTES_MAX * 1024];
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

/* ---- second pass */

/* write_checkpoint: what is above the mark is secured and replayed by the next start; begun: from
 * here on everything is, until it is written again. */
static enum err write_checkpoint(struct rebuild *r, bool begun)
{
    struct checkpoint_meta meta;
    TRY(checkpoint_read_meta(r->catalog, &meta));
    meta.lanes = lanes_count(r->further);
    for (uint32_t i = 0; i < meta.lanes; i++) {
        meta.positions[i] = r->ends[i] < r->marks[i] ? r->ends[i] : r->marks[i];
        if (begun)
            meta.positions[i] = 0;
    }
    if (r->writer_epoch > meta.writer_epoch)
        meta.writer_epoch = r->writer_epoch;
    return checkpoint_write_meta(r->catalog, &meta);
}

static enum err gather_key(void *context, struct bytes key, struct bytes value)
{
    struct rebuild *r = context;
    (void)value;
    if (key.size > KEY_BYTES_MAX)
        return ERR_CORRUPT;
    r->key_size = key.size; /* the same for every row of a table */
    memcpy(r->keys + r->key_count++ * KEY_BYTES_MAX, key.data, key.size);
    return r->key_count == sizeof r->keys / KEY_BYTES_MAX ? ERR_CANCELLED : OK;
}

/* delete_some: of one table, in a transaction of their own; OK with key_count 0: there are none. */
static enum err delete_some(struct rebuild *r, enum catalog_table table)
{
    struct catalog_txn *txn;
    r->key_count = 0;
    TRY(catalog_begin(r->catalog, &txn, true));
    enum err err = catalog_scan(txn, table, bytes_of(NULL, 0), gather_key, r);
    for (size_t i = 0; i < r->key_count && err == OK; i++)
        err = catalog_delete(txn, table, bytes_of(r->keys + i * KEY_BYTES_MAX, r->key_size));
    if (err != OK) {
        catalog_abort(txn);
        return err;
    }
    r->deleted += r->key_count;
    return catalog_commit(txn);
}

static enum err delete_rows(struct rebuild *r)
{
    for (size_t i = 0; i < COUNT_OF(derived); i++)
        do
            TRY(delete_some(r, derived[i]));
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

static enum err merge_one(struct rebuild *r, const struct log_record *record)
{
    if (replay_full(r->replay))
        TRY(write_merged(r));
    if (r->txn == NULL)
        TRY(catalog_begin(r->catalog, &r->txn, true));
    TRY(replay_record(r->replay, r->txn, record));
    r->records++;
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
    struct gone_range gone;
    (void)archive;
    if (record->kind == RECORD_GONE) {
        if (gone_decode(&gone, record) != OK)
            return OK;
        given.kind = RECORD_LOST;
        given.seq = gone.last;
    }
    return merge_one(context, &given);
}

static enum err merge_all(struct rebuild *r)
{
    const struct walk_visitor visitor = {.context = r, .record = merge, .archived = merge_archived};
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
    const struct walk_visitor judge = {
        .context = r, .lost = judge_lost, .item = judge_item, .record = judge_record};
    r->damaged += r->walk->archive_count != 0; /* what retention dropped cannot be made again */
    r->have_base = true; /* a log that does not begin at its beginning is not whole */
    r->base = r->end = 0;
    TRY(walk_records(r->walk, &judge));
    r->ends[r->lane] = r->end;
    r->marks[r->lane] = r->walk->mark;
    return OK;
}

static enum err merge_lane(struct rebuild *r)
{
    r->end = r->ends[r->lane];
    return merge_all(r);
}

static enum err rebuild_in(struct rebuild *r)
{
    uint32_t lanes = lanes_count(r->further);
    enum err err = OK;
    for (uint32_t i = 0; i < lanes && err == OK; i++)
        err = in_lane(r, i, judge_lane);
    if (err == OK && r->damaged != 0)
        inspect_print(r->out,
                      "note           the log is not all that ever was (%" PRIu64
                      " reasons: archives, retention, damage, repairs): rows are raised from it, "
                      "none is removed",
                      r->damaged);
    if (err == OK)
        err = write_checkpoint(r, true);
    if (err == OK && r->damaged == 0)
        err = delete_rows(r);
    for (uint32_t i = 0; i < lanes && err == OK; i++)
        err = in_lane(r, i, merge_lane);
    if (err == OK)
        err = write_checkpoint(r, false);
    if (err == OK)
        inspect_print(r->out,
                      "rebuilt        from %" PRIu64 " records; %" PRIu64 " rows were replaced",
                      r->records, r->deleted);
    return err;
}

/* ---- comparing */

/* How a row of the catalog (b) stands to the rebuilt one (a). What must be the same is all but the
 * devices' cursors: of these the log may know less (that a device has its own message, and where
 * one begins that never acknowledged anything, is not always logged), and then delivers again; it
 * must never know more. */
enum likeness { ROW_SAME, ROW_AGAIN, ROW_DIFFERENT };

struct compare {
    struct catalog_txn *rebuilt;
    struct catalog_txn *original;
    const struct inspect_output *out;
    bool whole; /* the log is all that ever was */
    size_t table;
    uint64_t rows;
    uint64_t counts[ROW_DIFFERENT + 1];
};

/* begins: where the device would begin. */
static uint64_t begins(const struct inbox_row *row, struct device_id device)
{
    uint64_t highest = 0;
    for (uint32_t i = 0; i < row->cursor_count; i++) {
        if (row->cursors[i].device.v == device.v)
            return row->cursors[i].delivered;
        if (row->cursors[i].delivered > highest)
            highest = row->cursors[i].delivered;
    }
    return highest;
}

static enum likeness judge_inbox(const struct inbox_row *a, const struct inbox_row *b, bool whole)
{
    if (a->last_seq != b->last_seq || a->activity_ms != b->activity_ms ||
        a->read_seq != b->read_seq || a->peer_delivered != b->peer_delivered ||
        a->peer_read != b->peer_read)
        return ROW_DIFFERENT;
    const struct inbox_row *both[2] = {a, b};
    if (!whole) /* replayed over the present row, which may count a device's own message in */
        return ROW_AGAIN;
    for (size_t side = 0; side < 2; side++)
        for (uint32_t i = 0; i < both[side]->cursor_count; i++) {
            struct device_id device = both[side]->cursors[i].device;
            if (begins(a, device) > begins(b, device))
                return ROW_DIFFERENT;
        }
    return ROW_AGAIN;
}

static enum err read_inbox(struct catalog_txn *txn, struct bytes key, struct inbox_row *row)
{
    struct user_id user = {__builtin_bswap64(load_u64(key.data))};
    return rows_read_inbox(txn, user, row_key_conversation(key.data), row);
}

static void count_row(struct compare *c, enum likeness like, struct bytes key, const char *what)
{
    char hex[2 * KEY_BYTES_MAX + 1] = "";
    if (c->counts[like]++ >= DIFFERENCES_MAX || like != ROW_DIFFERENT)
        return;
    for (size_t i = 0; i < key.size && i < KEY_BYTES_MAX; i++)
        snprintf(hex + 2 * i, 3, "%02x", key.data[i]);
    inspect_print(c->out, "different      %s %s: %s", derived_names[c->table], hex, what);
}

/* compare_rebuilt: a rebuilt row with the catalog's. */
static enum err compare_rebuilt(void *context, struct bytes key, struct bytes value)
{
    struct compare *c = context;
    enum catalog_table table = derived[c->table];
    struct bytes found;
    c->rows++;
    enum err err = catalog_get(c->original, table, key, &found);
    if (err != OK && err != ERR_NOT_FOUND)
        return err;
    if (err == OK && bytes_equal(found, value)) {
        count_row(c, ROW_SAME, key, "");
    } else if (table == CATALOG_INBOX && err == OK && key.size == ROW_KEY_BYTES) {
        struct inbox_row a;
        struct inbox_row b;
        TRY(read_inbox(c->rebuilt, key, &a));
        TRY(read_inbox(c->original, key, &b));
        count_row(c, judge_inbox(&a, &b, c->whole), key, "not what the log says");
    } else if (table == CATALOG_PENDING && err == ERR_NOT_FOUND) {
        count_row(c, ROW_AGAIN, key, ""); /* as its inbox row says, which is compared too */
    } else {
        count_row(c, ROW_DIFFERENT, key,
                  err == OK ? "not what the log says" : "missing in the catalog");
    }
    return OK;
}

/* compare_original: a row of the catalog that the rebuilt one has not. */
static enum err compare_original(void *context, struct bytes key, struct bytes value)
{
    struct compare *c = context;
    struct bytes found;
    (void)value;
    enum err err = catalog_get(c->rebuilt, derived[c->table], key, &found);
    if (err == ERR_NOT_FOUND)
        count_row(c, ROW_DIFFERENT, key, "the log knows nothing of it");
    return err == ERR_NOT_FOUND ? OK : err;
}

static enum err compare_both(struct catalog *rebuilt, struct catalog *original,
                             const struct inspect_output *out, bool whole)
{
    struct compare c = {.out = out, .whole = whole};
    struct bytes all = bytes_of(NULL, 0);
    TRY(catalog_begin(rebuilt, &c.rebuilt, false));
    enum err err = catalog_begin(original, &c.original, false);
    if (err != OK) {
        catalog_abort(c.rebuilt);
        return err;
    }
    for (c.table = 0; c.table < COUNT_OF(derived) && err == OK; c.table++) {
        err = catalog_scan(c.rebuilt, derived[c.table], all, compare_rebuilt, &c);
        if (err == OK)
            err = catalog_scan(c.original, derived[c.table], all, compare_original, &c);
    }
    catalog_abort(c.original);
    catalog_abort(c.rebuilt);
    TRY(err);
    inspect_print(out,
                  "compared       %" PRIu64 " rows: %" PRIu64 " the same, %" PRIu64
                  " where cursors differ and something would be delivered again at worst, %" PRIu64
                  " different",
                  c.rows, c.counts[ROW_SAME], c.counts[ROW_AGAIN], c.counts[ROW_DIFFERENT]);
    return c.counts[ROW_DIFFERENT] == 0 ? OK : ERR_CONFLICT;
}

static void remove_copy(const char *directory)
{
    static const char *const names[] = {"/data.mdb", "/lock.mdb", "/owner", ""};
    char path[PATH_BYTES + 16];
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        snprintf(path, sizeof path, "%s%s", directory, names[i]);
        (void)!file_remove(path);
    }
}

/* in_copy: original is closed again before the copy is opened, and opened beside it to compare. */
static enum err in_copy(struct rebuild *r, const char *original, const char *copy,
                        char *explanation)
{
    const char *why = "";
    char path[PATH_BYTES + 16];
    struct catalog *beside;
    snprintf(path, sizeof path, "%s/data.mdb", copy);
    enum err err = catalog_open_beside(&beside, original, &why);
    if (err != OK)
        return inspect_explain(explanation, err, "%s: %s", original, why);
    remove_copy(copy); /* of an attempt that was killed */
    err = file_make_private_directory(copy);
    if (err == OK)
        err = catalog_copy(beside, path);
    if (err == OK)
        err = catalog_open(&r->catalog, copy, MAP_BYTES, &why);
    if (err == OK) {
        err = lanes_read(r->catalog, r->further);
        if (err == OK)
            err = rebuild_in(r);
        if (err == OK)
            err = compare_both(r->catalog, beside, r->out, r->damaged == 0);
        catalog_close(r->catalog);
    }
    catalog_close(beside);
    remove_copy(copy);
    if (err == ERR_CONFLICT)
        return inspect_explain(explanation, err,
                               "%s is not what the log says: rebuild it (without --compare)",
                               original);
    return err == OK ? OK
                     : inspect_explain(explanation, err, "%s could not be made and compared", copy);
}

static enum err in_place(struct rebuild *r, const char *original, char *explanation)
{
    const char *why = "";
    enum err err = catalog_open(&r->catalog, original, MAP_BYTES, &why);
    if (err != OK)
        return inspect_explain(explanation, err, "%s: %s", original, why);
    err = lanes_read(r->catalog, r->further);
    if (err == OK)
        err = rebuild_in(r);
    catalog_close(r->catalog);
    return err == OK ? OK
                     : inspect_explain(
                           explanation, err,
                           "%s could not be rebuilt from the log of %s: the next start replays all "
                           "of it",
                           original, r->data);
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
    snprintf(path, sizeof path, "%s/catalog.compare", data);
    if (r == NULL)
        err = inspect_explain(explanation, ERR_NO_MEMORY, "out of memory");
    else if (compare)
        err = in_copy(r, catalog, path, explanation);
    else
        err = in_place(r, catalog, explanation);
    memory_give(r, MEMORY_STORE);
    file_close(lock);
    return err;
}
