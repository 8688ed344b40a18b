/* sim_catalog.c: store/catalog.h in the simulated world: sorted rows per table, with LMDB's
 * semantics. What is committed lives in the world, by directory, and outlives kills and power cuts;
 * an uncommitted transaction leaves nothing. A kill between a batch's commit and its answers is
 * covered by the workers' delays. Versions: rows never change; a table is an array of row pointers.
 * A write transaction copies an array at its first write to that table and commit puts the copies
 * in place, so a reader keeps the arrays that it began with. Arrays and rows that were replaced go
 * to `garbage` and are freed when no transaction is open. */
#include "store/catalog.h"

#include "tests/sim/world.h"

#include <stdio.h>
#include <stdlib.h>

#define KEY_BYTES_MAX 511 /* as LMDB's */

struct row {
    size_t key_size;
    size_t value_size;
    uint8_t data[]; /* key, value */
};

struct rows {
    struct row **row;
    size_t count;
};

struct catalog_store { /* one directory's */
    char directory[256];
    struct rows tables[CATALOG_TABLE_COUNT];
    struct catalog *open; /* NULL: nobody has it open */
    struct catalog_store *next;
};

struct catalog {
    struct world *world;
    struct catalog_store *store;
    uint32_t transactions; /* open */
    bool writing;
    bool failed; /* sticky, as the real one's */
    void **garbage;
    size_t garbage_count;
};

struct catalog_txn {
    struct catalog *catalog;
    struct rows tables[CATALOG_TABLE_COUNT];
    bool own[CATALOG_TABLE_COUNT]; /* copied by this transaction */
    bool write;
    uint32_t scans;
    uint64_t writes;
    struct row **fresh; /* rows made here: an abort frees them */
    size_t fresh_count;
};

/* ---- opening and closing */

static struct catalog_store *store_find(struct world *world, const char *directory)
{
    struct catalog_store *store = world->catalogs;
    while (store && strcmp(store->directory, directory) != 0)
        store = store->next;
    if (store)
        return store;
    store = world_take(1, sizeof *store);
    snprintf(store->directory, sizeof store->directory, "%s", directory);
    store->next = world->catalogs;
    world->catalogs = store;
    return store;
}

enum err catalog_open(struct catalog **out, const char *directory, uint64_t map_bytes,
                      const char **explanation)
{
    (void)map_bytes; /* space ends by world_faults.catalog_full */
    CHECK(world_current != NULL);
    struct catalog_store *store = store_find(world_current, directory);
    *explanation = "";
    if (store->open) {
        *explanation = "another process has the catalog open";
        return ERR_BUSY;
    }
    struct catalog *catalog = world_take(1, sizeof *catalog);
    catalog->world = world_current;
    catalog->store = store;
    store->open = catalog;
    *out = catalog;
    return OK;
}

static void garbage_free(struct catalog *catalog)
{
    for (size_t i = 0; i < catalog->garbage_count; i++)
        free(catalog->garbage[i]);
    catalog->garbage_count = 0;
}

uint64_t catalog_used_bytes(const struct catalog *catalog)
{
    (void)catalog; /* nobody asks in here */
    return 0;
}

void catalog_close(struct catalog *catalog)
{
    CHECK(catalog->transactions == 0);
    garbage_free(catalog);
    free(catalog->garbage);
    catalog->store->open = NULL;
    free(catalog);
}

void sim_catalogs_kill(struct world *world)
{
    for (struct catalog_store *store = world->catalogs; store; store = store->next)
        if (store->open)
            store->open->failed =
                true; /* what the dead process's objects still commit is nothing */
}

void sim_catalogs_destroy(struct world *world)
{
    while (world->catalogs) {
        struct catalog_store *store = world->catalogs;
        world->catalogs = store->next;
        for (size_t t = 0; t < CATALOG_TABLE_COUNT; t++) {
            for (size_t i = 0; i < store->tables[t].count; i++)
                free(store->tables[t].row[i]);
            free(store->tables[t].row);
        }
        free(store);
    }
}

static void discard(struct catalog *catalog, void *p)
{
    size_t count = catalog->garbage_count;
    if ((count & (count - 1)) == 0) /* a power of two: room is used up */
        catalog->garbage =
            world_resize(catalog->garbage, count > 0 ? 2 * count : 1, sizeof(void *));
    catalog->garbage[catalog->garbage_count++] = p;
}

/* ---- transactions */

static void txn_begin(struct catalog *catalog, struct catalog_txn *txn, bool write)
{
    CHECK(!write || !catalog->writing); /* in one thread the second writer would wait for ever */
    memset(txn, 0, sizeof *txn);
    txn->catalog = catalog;
    txn->write = write;
    memcpy(txn->tables, catalog->store->tables, sizeof txn->tables);
    catalog->transactions++;
    catalog->writing |= write;
}

static void txn_end(struct catalog_txn *txn)
{
    struct catalog *catalog = txn->catalog;
    CHECK(txn->scans == 0);
    if (txn->write)
        catalog->writing = false;
    free(txn->fresh);
    if (--catalog->transactions == 0)
        garbage_free(catalog);
}

static void txn_abort(struct catalog_txn *txn)
{
    for (size_t t = 0; t < CATALOG_TABLE_COUNT; t++)
        if (txn->own[t])
            discard(txn->catalog, txn->tables[t].row);
    for (size_t i = 0; i < txn->fresh_count; i++)
        discard(txn->catalog, txn->fresh[i]);
    txn_end(txn);
}

/* Frees what the commit took out of a table: rows of the old array that the new one has not. Both
 * are sorted by key. */
static void discard_replaced(struct catalog *catalog, const struct rows *old,
                             const struct rows *new);

static enum err commit_fault(struct catalog *catalog)
{
    struct world *world = catalog->world;
    if (world_chance(world, world->options.faults.catalog_error))
        catalog->failed = true;
    if (catalog->failed)
        return ERR_IO;
    return world_chance(world, world->options.faults.catalog_full) ? ERR_NO_SPACE : OK;
}

static enum err txn_commit(struct catalog_txn *txn)
{
    struct catalog *catalog = txn->catalog;
    enum err err = txn->write ? commit_fault(catalog) : OK;
    if (err != OK || !txn->write) {
        txn_abort(txn);
        return err;
    }
    for (size_t t = 0; t < CATALOG_TABLE_COUNT; t++) {
        if (!txn->own[t])
            continue;
        struct rows *live = &catalog->store->tables[t];
        discard_replaced(catalog, live, &txn->tables[t]);
        discard(catalog, live->row);
        *live = txn->tables[t];
    }
    world_trace(catalog->world, "commit", txn->writes, 0, bytes_of(NULL, 0));
    txn_end(txn);
    return OK;
}

enum err catalog_begin(struct catalog *catalog, struct catalog_txn **out, bool write)
{
    if (write && catalog->failed)
        return ERR_IO;
    *out = world_take(1, sizeof **out);
    txn_begin(catalog, *out, write);
    return OK;
}

enum err catalog_commit(struct catalog_txn *txn)
{
    enum err err = txn_commit(txn);
    free(txn);
    return err;
}

void catalog_abort(struct catalog_txn *txn)
{
    txn_abort(txn);
    free(txn);
}

/* ---- rows */

static struct bytes row_key(const struct row *row)
{
    return bytes_of(row->data, row->key_size);
}

static struct bytes row_value(const struct row *row)
{
    return bytes_of(row->data + row->key_size, row->value_size);
}

static int compare(struct bytes a, struct bytes b)
{
    size_t least = a.size < b.size ? a.size : b.size;
    int order = least > 0 ? memcmp(a.data, b.data, least) : 0;
    return order != 0 ? order : (a.size > b.size) - (a.size < b.size);
}

/* The first row that is not below key. */
static size_t lower_bound(const struct rows *rows, struct bytes key)
{
    size_t low = 0;
    size_t high = rows->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (compare(row_key(rows->row[middle]), key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool is_at(const struct rows *rows, size_t at, struct bytes key)
{
    return at < rows->count && bytes_equal(row_key(rows->row[at]), key);
}

static void discard_replaced(struct catalog *catalog, const struct rows *old,
                             const struct rows *new)
{
    size_t n = 0;
    for (size_t o = 0; o < old->count; o++) {
        while (n < new->count && compare(row_key(new->row[n]), row_key(old->row[o])) < 0)
            n++;
        if (n == new->count || new->row[n] != old->row[o])
            discard(catalog, old->row[o]);
    }
}

static struct rows *writable(struct catalog_txn *txn, enum catalog_table table)
{
    struct rows *rows = &txn->tables[table];
    if (!txn->own[table]) {
        struct row **copy = world_take(rows->count, sizeof(struct row *));
        if (rows->count > 0)
            memcpy(copy, rows->row, rows->count * sizeof(struct row *));
        rows->row = copy;
        txn->own[table] = true;
    }
    return rows;
}

static struct row *row_make(struct catalog_txn *txn, struct bytes key, struct bytes value)
{
    struct row *row = world_take(1, sizeof *row + key.size + value.size);
    row->key_size = key.size;
    row->value_size = value.size;
    memcpy(row->data, key.data, key.size);
    if (value.size > 0)
        memcpy(row->data + key.size, value.data, value.size);
    txn->fresh = world_resize(txn->fresh, txn->fresh_count + 1, sizeof(struct row *));
    txn->fresh[txn->fresh_count++] = row;
    return row;
}

/* A row that this transaction made and takes out again belongs to nobody. */
static void row_unmake(struct catalog_txn *txn, struct row *row)
{
    for (size_t i = txn->fresh_count; i-- > 0;) {
        if (txn->fresh[i] == row) {
            txn->fresh[i] = txn->fresh[--txn->fresh_count];
            discard(txn->catalog, row);
            return;
        }
    }
}

enum err catalog_get(struct catalog_txn *txn, enum catalog_table table, struct bytes key,
                     struct bytes *value)
{
    CHECK(key.size > 0 && key.size <= KEY_BYTES_MAX);
    const struct rows *rows = &txn->tables[table];
    size_t at = lower_bound(rows, key);
    if (!is_at(rows, at, key))
        return ERR_NOT_FOUND;
    *value = row_value(rows->row[at]);
    return OK;
}

enum err catalog_put(struct catalog_txn *txn, enum catalog_table table, struct bytes key,
                     struct bytes value)
{
    CHECK(txn->write && txn->scans == 0 && key.size > 0 && key.size <= KEY_BYTES_MAX);
    struct rows *rows = writable(txn, table);
    size_t at = lower_bound(rows, key);
    struct row *row = row_make(txn, key, value);
    txn->writes++;
    if (is_at(rows, at, key)) {
        row_unmake(txn, rows->row[at]);
    } else {
        rows->row = world_resize(rows->row, rows->count + 1, sizeof(struct row *));
        memmove(rows->row + at + 1, rows->row + at, (rows->count - at) * sizeof(struct row *));
        rows->count++;
    }
    rows->row[at] = row;
    return OK;
}

enum err catalog_delete(struct catalog_txn *txn, enum catalog_table table, struct bytes key)
{
    CHECK(txn->write && txn->scans == 0 && key.size > 0 && key.size <= KEY_BYTES_MAX);
    size_t at = lower_bound(&txn->tables[table], key);
    if (!is_at(&txn->tables[table], at, key))
        return OK;
    struct rows *rows = writable(txn, table);
    row_unmake(txn, rows->row[at]);
    rows->count--;
    memmove(rows->row + at, rows->row + at + 1, (rows->count - at) * sizeof(struct row *));
    txn->writes++;
    return OK;
}

enum err catalog_scan(struct catalog_txn *txn, enum catalog_table table, struct bytes prefix,
                      enum err (*row)(void *context, struct bytes key, struct bytes value),
                      void *context)
{
    const struct rows *rows = &txn->tables[table];
    enum err err = OK;
    txn->scans++;
    for (size_t at = lower_bound(rows, prefix); at < rows->count && err == OK; at++) {
        struct bytes key = row_key(rows->row[at]);
        if (key.size < prefix.size || !bytes_equal(bytes_of(key.data, prefix.size), prefix))
            break;
        err = row(context, key, row_value(rows->row[at]));
    }
    txn->scans--;
    return err == ERR_CANCELLED ? OK : err;
}

/* ---- jobs: as in catalog_lmdb.c, over these transactions */

static struct catalog_job *job_of(struct worker_job *job)
{
    return CONTAINER_OF(job, struct catalog_job, job);
}

static void run_read(struct worker_job *worker_job)
{
    struct catalog_job *job = job_of(worker_job);
    struct catalog_txn txn;
    txn_begin(job->catalog, &txn, false);
    job->err = job->body(&txn, job);
    txn_abort(&txn);
}

void catalog_write_batch(void *context, struct worker_job *first)
{
    struct catalog *catalog = context;
    struct catalog_txn txn;
    enum err err = catalog->failed ? ERR_IO : OK;
    if (err == OK) {
        txn_begin(catalog, &txn, true);
        for (struct worker_job *at = first; at; at = at->next) {
            struct catalog_job *job = job_of(at);
            uint64_t writes = txn.writes;
            job->err = job->body(&txn, job);
            CHECK(job->err == OK || txn.writes == writes);
        }
        err = txn_commit(&txn);
    }
    for (struct worker_job *at = first; at && err != OK; at = at->next)
        job_of(at)->err = err;
}

static void run_write(struct worker_job *worker_job)
{
    CHECK(worker_job->next == NULL);
    catalog_write_batch(job_of(worker_job)->catalog, worker_job);
}

enum err catalog_submit(struct catalog *catalog, struct workers *workers, struct catalog_job *job,
                        bool write, uint32_t shard)
{
    job->catalog = catalog;
    job->err = OK;
    job->job.run = write ? run_write : run_read;
    job->job.next = NULL;
    return worker_submit(workers, &job->job, write ? WORKER_CATALOG_WRITE : WORKER_CATALOG_READ,
                         shard);
}
