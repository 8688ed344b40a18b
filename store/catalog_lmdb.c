/* catalog_lmdb.c: the catalog on LMDB (the real one of the seam; tests/sim/sim_catalog.c is the
 * other).
 * Flow:       catalog_submit → worker thread → run_read | catalog_write_batch → worker_completed
 * Files:      DIRECTORY/data.mdb  LMDB's, one named database per table (table_names)
 *             DIRECTORY/lock.mdb  LMDB's, for readers of one process
 *             DIRECTORY/owner     empty; locked while a process has the catalog open
 * Format:     META "version" → u32 little-endian, CATALOG_VERSION
 * Writing:    one LMDB transaction and one sync per batch. LMDB cannot take back one body's part
 *             of it, so a body that fails must not have written, and a put that fails spoils the
 *             whole batch.
 *             One cursor per table stays where the row before was, so that rows that come in key
 *             order, as those of a checkpoint and of a recovery do, are mostly found in the same
 *             page, without a way down from the root.
 * Reading:    renewing a transaction's reader slot is cheap, making one is not: finished read
 *             transactions are reset (they then pin no page) and kept in `idle` for the next job,
 *             under a mutex, because jobs run on any reader thread.
 * Beside:     a tool of another process may read and copy: LMDB's readers of several processes
 * share lock.mdb. One that is killed leaves its slot, which would pin pages for ever: the writer
 *             looks for such slots now and then.
 * Space:      LMDB calls a short write, which is what a full disk gives first, EIO. So an EIO where
 *             the file system has next to nothing left is ERR_NO_SPACE. To go on is safe: what was
 *             not committed stands in pages that nothing refers to, and is written again.
 * Failure:    a commit that fails other than for space leaves it unknown what the page cache still
 *             holds: `failed`, sticky; reading goes on, writing answers ERR_IO until the process
 *             is restarted */
#include "store/catalog.h"

#include "core/file.h"
#include "core/memory.h"

#include <errno.h>
#include <lmdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#define CATALOG_VERSION 1u
#define KEY_BYTES_MAX   511        /* LMDB's compiled-in limit */
#define READERS_MAX     256        /* reader slots: worker threads, start-up and tools, with room */
#define STALE_EVERY     256        /* batches between two looks for readers that are gone */
#define SPACE_BYTES     (4u << 20) /* less than this on the file system: it is full */
#define IDLE_MAX        32         /* more reader threads than this begin anew each time */
#define PATH_BYTES      4096       /* PATH_MAX of Linux */

struct catalog {
    MDB_env *env;
    MDB_dbi tables[CATALOG_TABLE_COUNT];
    int owner_fd;
    atomic_bool failed;
    char directory[PATH_BYTES];
    uint32_t batches;      /* written, on the writer's thread */
    pthread_mutex_t mutex; /* idle */
    MDB_txn *idle[IDLE_MAX];
    uint32_t idle_count;
};

struct catalog_txn {
    struct catalog *catalog;
    MDB_txn *mdb;
    bool write;
    MDB_cursor *cursors[CATALOG_TABLE_COUNT]; /* writing: NULL until needed; end with mdb */
    uint32_t scans;                           /* running catalog_scans: rows must not write */
    uint64_t writes;                          /* puts and deletes that changed something */
    enum err failed; /* first failed write: LMDB will not commit this transaction any more */
};

static const char *const table_names[CATALOG_TABLE_COUNT] = {
    [CATALOG_META] = "meta",
    [CATALOG_USERS] = "users",
    [CATALOG_USER_NAMES] = "user_names",
    [CATALOG_DEVICES] = "devices",
    [CATALOG_DEVICE_KEYS] = "device_keys",
    [CATALOG_CONVERSATIONS] = "conversations",
    [CATALOG_INBOX] = "inbox",
    [CATALOG_PENDING] = "pending",
    [CATALOG_RETENTION] = "retention",
};

/* The one place where LMDB's codes, which include errno's, become ours. */
static enum err err_of_mdb(int code)
{
    switch (code) {
    case MDB_SUCCESS:
        return OK;
    case MDB_NOTFOUND:
        return ERR_NOT_FOUND;
    case MDB_MAP_FULL:
    case ENOSPC:
    case EDQUOT:
        return ERR_NO_SPACE;
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INVALID:
    case MDB_INCOMPATIBLE:
        return ERR_CORRUPT;
    case MDB_VERSION_MISMATCH:
        return ERR_NEWER;
    case MDB_TXN_FULL:
    case MDB_READERS_FULL:
    case MDB_DBS_FULL:
        return ERR_FULL;
    case ENOMEM:
        return ERR_NO_MEMORY;
    case EMFILE:
    case ENFILE:
        return ERR_NO_DESCRIPTORS;
    case EACCES:
    case EPERM:
    case EROFS:
        return ERR_DENIED;
    case ENOENT:
    case ENOTDIR:
        return ERR_NOT_FOUND;
    case EAGAIN:
    case EBUSY:
        return ERR_BUSY;
    case MDB_BAD_VALSIZE:
    case MDB_BAD_DBI:
    case MDB_BAD_RSLOT:
    case MDB_BAD_TXN:
    case EINVAL:
        CHECK(code == MDB_SUCCESS); /* this file's own bug: sizes, states and handles are checked */
        return ERR_IO;
    default:
        return ERR_IO; /* EIO, MDB_PANIC and whatever else a device or LMDB comes up with */
    }
}

/* ---- transactions */

static enum err read_begin(struct catalog *catalog, MDB_txn **mdb)
{
    *mdb = NULL;
    pthread_mutex_lock(&catalog->mutex);
    if (catalog->idle_count > 0)
        *mdb = catalog->idle[--catalog->idle_count];
    pthread_mutex_unlock(&catalog->mutex);
    if (!*mdb)
        return err_of_mdb(mdb_txn_begin(catalog->env, NULL, MDB_RDONLY, mdb));
    enum err err = err_of_mdb(mdb_txn_renew(*mdb));
    if (err != OK)
        mdb_txn_abort(*mdb);
    return err;
}

static void read_end(struct catalog *catalog, MDB_txn *mdb)
{
    mdb_txn_reset(mdb);
    pthread_mutex_lock(&catalog->mutex);
    bool kept = catalog->idle_count < IDLE_MAX;
    if (kept)
        catalog->idle[catalog->idle_count++] = mdb;
    pthread_mutex_unlock(&catalog->mutex);
    if (!kept)
        mdb_txn_abort(mdb);
}

static enum err txn_begin(struct catalog *catalog, struct catalog_txn *txn, bool write)
{
    *txn = (struct catalog_txn){.catalog = catalog, .write = write};
    if (!write)
        return read_begin(catalog, &txn->mdb);
    if (atomic_load(&catalog->failed))
        return ERR_IO;
    return err_of_mdb(mdb_txn_begin(catalog->env, NULL, 0, &txn->mdb));
}

static void txn_abort(struct catalog_txn *txn)
{
    CHECK(txn->scans == 0);
    if (txn->write)
        mdb_txn_abort(txn->mdb);
    else
        read_end(txn->catalog, txn->mdb);
}

/* write_err: what a failed write or commit was. */
static enum err write_err(const struct catalog *catalog, int code)
{
    enum err err = err_of_mdb(code);
    uint64_t space;
    if (err == ERR_IO && file_free_bytes(catalog->directory, &space) == OK && space < SPACE_BYTES)
        return ERR_NO_SPACE;
    return err;
}

static enum err txn_commit(struct catalog_txn *txn)
{
    CHECK(txn->scans == 0);
    if (!txn->write || txn->failed != OK) {
        txn_abort(txn);
        return txn->failed;
    }
    enum err err = write_err(txn->catalog, mdb_txn_commit(txn->mdb));
    if (err != OK && err != ERR_NO_SPACE && err != ERR_FULL && err != ERR_NO_MEMORY)
        atomic_store(&txn->catalog->failed, true);
    return err;
}

enum err catalog_begin(struct catalog *catalog, struct catalog_txn **out, bool write)
{
    struct catalog_txn *txn = memory_take(sizeof *txn, MEMORY_STORE);
    if (!txn)
        return ERR_NO_MEMORY;
    enum err err = txn_begin(catalog, txn, write);
    if (err != OK) {
        memory_give(txn, MEMORY_STORE);
        return err;
    }
    *out = txn;
    return OK;
}

enum err catalog_commit(struct catalog_txn *txn)
{
    enum err err = txn_commit(txn);
    memory_give(txn, MEMORY_STORE);
    return err;
}

void catalog_abort(struct catalog_txn *txn)
{
    txn_abort(txn);
    memory_give(txn, MEMORY_STORE);
}

/* ---- rows */

static MDB_val val_of(struct bytes b)
{
    union {
        const uint8_t *in;
        void *out;
    } data = {.in = b.data}; /* LMDB only reads through the pointers that it is given */
    return (MDB_val){b.size, data.out};
}

static MDB_val val_of_key(struct bytes key)
{
    CHECK(key.size > 0 && key.size <= KEY_BYTES_MAX);
    return val_of(key);
}

static struct bytes bytes_of_val(MDB_val v)
{
    return bytes_of(v.mv_data, v.mv_size);
}

/* cursor_of: the writing transaction's on that table; mdb_txn_commit and mdb_txn_abort close it. */
static int cursor_of(struct catalog_txn *txn, enum catalog_table table, MDB_cursor **out)
{
    int code = MDB_SUCCESS;
    if (txn->cursors[table] == NULL)
        code = mdb_cursor_open(txn->mdb, txn->catalog->tables[table], &txn->cursors[table]);
    *out = txn->cursors[table];
    return code;
}

enum err catalog_get(struct catalog_txn *txn, enum catalog_table table, struct bytes key,
                     struct bytes *value)
{
    MDB_val k = val_of_key(key);
    MDB_val v = {0, NULL};
    MDB_cursor *cursor;
    if (txn->failed != OK)
        return txn->failed;
    int code;
    if (!txn->write)
        code = mdb_get(txn->mdb, txn->catalog->tables[table], &k, &v);
    else if ((code = cursor_of(txn, table, &cursor)) == MDB_SUCCESS)
        code = mdb_cursor_get(cursor, &k, &v, MDB_SET);
    TRY(err_of_mdb(code));
    *value = bytes_of_val(v);
    return OK;
}

/* A write that LMDB refused spoils its transaction; err is remembered and handed on. */
static enum err written(struct catalog_txn *txn, enum err err)
{
    if (err == OK)
        txn->writes++;
    else
        txn->failed = err;
    return err;
}

enum err catalog_put(struct catalog_txn *txn, enum catalog_table table, struct bytes key,
                     struct bytes value)
{
    CHECK(txn->write && txn->scans == 0);
    MDB_val k = val_of_key(key);
    MDB_val v = val_of(value);
    MDB_cursor *cursor;
    if (txn->failed != OK)
        return txn->failed;
    int code = cursor_of(txn, table, &cursor);
    if (code == MDB_SUCCESS)
        code = mdb_cursor_put(cursor, &k, &v, 0);
    return written(txn, write_err(txn->catalog, code));
}

enum err catalog_delete(struct catalog_txn *txn, enum catalog_table table, struct bytes key)
{
    CHECK(txn->write && txn->scans == 0);
    MDB_val k = val_of_key(key);
    MDB_val v;
    MDB_cursor *cursor;
    if (txn->failed != OK)
        return txn->failed;
    int code = cursor_of(txn, table, &cursor);
    if (code == MDB_SUCCESS)
        code = mdb_cursor_get(cursor, &k, &v, MDB_SET);
    if (code == MDB_SUCCESS)
        code = mdb_cursor_del(cursor, 0);
    enum err err = write_err(txn->catalog, code);
    return err == ERR_NOT_FOUND ? OK : written(txn, err);
}

enum err catalog_scan(struct catalog_txn *txn, enum catalog_table table, struct bytes prefix,
                      enum err (*row)(void *context, struct bytes key, struct bytes value),
                      void *context)
{
    CHECK(prefix.size <= KEY_BYTES_MAX);
    if (txn->failed != OK)
        return txn->failed;
    MDB_cursor *cursor;
    TRY(err_of_mdb(mdb_cursor_open(txn->mdb, txn->catalog->tables[table], &cursor)));
    MDB_val k = val_of(prefix);
    MDB_val v;
    MDB_cursor_op op = prefix.size > 0 ? MDB_SET_RANGE : MDB_FIRST;
    enum err err;
    txn->scans++;
    while ((err = err_of_mdb(mdb_cursor_get(cursor, &k, &v, op))) == OK) {
        op = MDB_NEXT;
        if (k.mv_size < prefix.size ||
            (prefix.size > 0 && memcmp(k.mv_data, prefix.data, prefix.size) != 0))
            break;
        enum err stop = row(context, bytes_of_val(k), bytes_of_val(v));
        if (stop == ERR_CANCELLED)
            break;
        if (stop != OK) {
            txn->scans--;
            mdb_cursor_close(cursor);
            return stop;
        }
    }
    txn->scans--;
    mdb_cursor_close(cursor);
    return err == ERR_NOT_FOUND ? OK : err;
}

/* ---- jobs */

static struct catalog_job *job_of(struct worker_job *job)
{
    return CONTAINER_OF(job, struct catalog_job, job);
}

static void run_read(struct worker_job *worker_job)
{
    struct catalog_job *job = job_of(worker_job);
    struct catalog_txn txn;
    job->err = txn_begin(job->catalog, &txn, false);
    if (job->err != OK)
        return;
    job->err = job->body(&txn, job);
    txn_abort(&txn);
}

/* Runs every body; stops early once the transaction is spoiled. */
static void run_bodies(struct catalog_txn *txn, struct worker_job *first)
{
    for (struct worker_job *at = first; at && txn->failed == OK; at = at->next) {
        struct catalog_job *job = job_of(at);
        uint64_t writes = txn->writes;
        job->err = job->body(txn, job);
        CHECK(job->err == OK || txn->writes == writes || txn->failed != OK);
    }
}

void catalog_write_batch(void *context, struct worker_job *first)
{
    struct catalog_txn txn;
    struct catalog *catalog = context;
    int dead;
    if (++catalog->batches % STALE_EVERY == 0)
        (void)mdb_reader_check(catalog->env, &dead); /* none of ours: those of killed tools */
    enum err err = txn_begin(catalog, &txn, true);
    if (err == OK) {
        run_bodies(&txn, first);
        err = txn_commit(&txn);
    }
    /* Also for bodies that failed by themselves: they may have judged by rows that now never were.
     */
    for (struct worker_job *at = first; at && err != OK; at = at->next)
        job_of(at)->err = err;
}

/* A write job where its class has no batch hook: a batch of one. */
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

/* ---- opening and closing */

/* Takes DIRECTORY/owner, so that a second process (or a second open in this one, which LMDB
 * forbids) is refused instead of sharing the files with caches that know nothing of each other. */
static enum err own_directory(int *fd, const char *directory)
{
    char path[PATH_BYTES];
    int size = snprintf(path, sizeof path, "%s/owner", directory);
    if (size < 0 || (size_t)size >= sizeof path)
        return ERR_INVALID;
    TRY(file_open(fd, path, FILE_WRITE | FILE_CREATE | FILE_PRIVATE));
    enum err err = file_lock(*fd);
    if (err != OK)
        file_close(*fd);
    return err;
}

/* map_bytes 0: as large as the file says. */
static enum err open_env(struct catalog *catalog, const char *directory, uint64_t map_bytes,
                         unsigned flags)
{
    TRY(err_of_mdb(mdb_env_create(&catalog->env)));
    enum err err = err_of_mdb(mdb_env_set_mapsize(catalog->env, map_bytes & ~(uint64_t)0xfff));
    if (err == OK)
        err = err_of_mdb(mdb_env_set_maxdbs(catalog->env, CATALOG_TABLE_COUNT));
    if (err == OK)
        err = err_of_mdb(mdb_env_set_maxreaders(catalog->env, READERS_MAX));
    if (err == OK) /* point reads at random places: read-ahead would only evict what is useful */
        err = err_of_mdb(
            mdb_env_open(catalog->env, directory, MDB_NOTLS | MDB_NORDAHEAD | flags, 0600));
    if (err != OK)
        mdb_env_close(catalog->env);
    return err;
}

static enum err check_version(struct catalog_txn *txn)
{
    struct bytes key = bytes_of_text("version");
    struct bytes value;
    enum err err = catalog_get(txn, CATALOG_META, key, &value);
    if (err == ERR_NOT_FOUND && !txn->write)
        return ERR_CORRUPT;
    if (err == ERR_NOT_FOUND) {
        uint8_t version[4];
        store_u32(version, CATALOG_VERSION);
        return catalog_put(txn, CATALOG_META, key, bytes_of(version, sizeof version));
    }
    TRY(err);
    if (value.size != 4 || load_u32(value.data) == 0)
        return ERR_CORRUPT;
    return load_u32(value.data) > CATALOG_VERSION ? ERR_NEWER : OK;
}

static enum err open_tables(struct catalog *catalog)
{
    struct catalog_txn txn;
    TRY(txn_begin(catalog, &txn, true));
    enum err err = OK;
    for (size_t i = 0; i < CATALOG_TABLE_COUNT && err == OK; i++)
        err = err_of_mdb(mdb_dbi_open(txn.mdb, table_names[i], MDB_CREATE, &catalog->tables[i]));
    if (err == OK)
        err = check_version(&txn);
    if (err == OK)
        return txn_commit(&txn);
    txn_abort(&txn);
    return err;
}

/* The files' names must survive a power cut as their contents do: LMDB syncs only the latter. */
static enum err sync_names(const char *directory)
{
    char parent[PATH_BYTES];
    TRY(file_sync_directory(directory));
    snprintf(parent, sizeof parent, "%s/..", directory);
    return file_sync_directory(parent);
}

static const char *explain_open(enum err err)
{
    switch (err) {
    case ERR_NEWER:
        return "the catalog was written by a newer roost: run that version, or restore a backup "
               "that this version made";
    case ERR_BUSY:
        return "another process has the catalog open: stop it, or use another store directory";
    case ERR_CORRUPT:
        return "the catalog's data.mdb is damaged or no catalog: restore it from a backup";
    case ERR_NO_SPACE:
        return "no space for the catalog: free space on its file system, or raise "
               "store.catalog_map_size";
    case ERR_DENIED:
        return "no permission to create, read or write the catalog's directory or files";
    case ERR_NOT_FOUND:
        return "the directory that shall hold the catalog's directory does not exist";
    case ERR_INVALID:
        return "the catalog's path is too long or no directory";
    case ERR_NO_MEMORY:
        return "no memory or address space for the catalog: lower store.catalog_map_size, or raise "
               "the address space limit (ulimit -v)";
    case ERR_NO_DESCRIPTORS:
        return "no file descriptors left for the catalog: raise the limit (ulimit -n)";
    case OK:
    case ERR_AGAIN:
    case ERR_FULL:
    case ERR_TOO_BIG:
    case ERR_EXISTS:
    case ERR_EXPIRED:
    case ERR_CONFLICT:
    case ERR_CLOSED:
    case ERR_RESET:
    case ERR_TIMEOUT:
    case ERR_CANCELLED:
    case ERR_IO:
    case ERR_ADDRESS:
    case ERR_UNSUPPORTED:
    case ERR_COUNT:
        break;
    }
    return "the catalog cannot be read or written: its device or file system failed";
}

static enum err open_all(struct catalog *catalog, const char *directory, uint64_t map_bytes)
{
    if (strlen(directory) >= sizeof catalog->directory)
        return ERR_INVALID;
    memcpy(catalog->directory, directory, strlen(directory) + 1);
    TRY(file_make_directory(directory));
    TRY(own_directory(&catalog->owner_fd, directory));
    enum err err = open_env(catalog, directory, map_bytes, 0);
    if (err != OK)
        goto fail_env;
    err = open_tables(catalog);
    if (err == OK)
        err = sync_names(directory);
    if (err != OK)
        goto fail_tables;
    return OK;

fail_tables:
    mdb_env_close(catalog->env);
fail_env:
    file_close(catalog->owner_fd);
    return err;
}

enum err catalog_open(struct catalog **out, const char *directory, uint64_t map_bytes,
                      const char **explanation)
{
    *explanation = "";
    struct catalog *catalog = memory_take_zeroed(sizeof *catalog, MEMORY_STORE);
    enum err err = catalog ? open_all(catalog, directory, map_bytes) : ERR_NO_MEMORY;
    if (err != OK) {
        memory_give(catalog, MEMORY_STORE);
        *explanation = explain_open(err);
        return err;
    }
    pthread_mutex_init(&catalog->mutex, NULL);
    *out = catalog;
    return OK;
}

uint64_t catalog_used_bytes(const struct catalog *catalog)
{
    MDB_envinfo info;
    MDB_stat stat;
    if (mdb_env_info(catalog->env, &info) != MDB_SUCCESS ||
        mdb_env_stat(catalog->env, &stat) != MDB_SUCCESS)
        return 0;
    return ((uint64_t)info.me_last_pgno + 1) * stat.ms_psize;
}

/* ---- beside another process */

static enum err open_tables_beside(struct catalog *catalog)
{
    struct catalog_txn txn = {.catalog = catalog};
    TRY(err_of_mdb(mdb_txn_begin(catalog->env, NULL, MDB_RDONLY, &txn.mdb)));
    enum err err = OK;
    for (size_t i = 0; i < CATALOG_TABLE_COUNT && err == OK; i++)
        err = err_of_mdb(mdb_dbi_open(txn.mdb, table_names[i], 0, &catalog->tables[i]));
    if (err == OK)
        err = check_version(&txn);
    if (err == OK)
        return err_of_mdb(mdb_txn_commit(txn.mdb)); /* keeps the tables' handles */
    mdb_txn_abort(txn.mdb);
    return err;
}

enum err catalog_open_beside(struct catalog **out, const char *directory, const char **explanation)
{
    int dead;
    *explanation = "";
    struct catalog *catalog = memory_take_zeroed(sizeof *catalog, MEMORY_STORE);
    enum err err = catalog != NULL ? open_env(catalog, directory, 0, MDB_RDONLY) : ERR_NO_MEMORY;
    if (err == OK) {
        (void)mdb_reader_check(catalog->env, &dead); /* slots of tools that were killed pin pages */
        err = open_tables_beside(catalog);
        if (err != OK)
            mdb_env_close(catalog->env);
    }
    if (err != OK) {
        memory_give(catalog, MEMORY_STORE);
        *explanation = explain_open(err);
        return err;
    }
    catalog->owner_fd = -1;
    pthread_mutex_init(&catalog->mutex, NULL);
    *out = catalog;
    return OK;
}

enum err catalog_copy(struct catalog *catalog, const char *path)
{
    int fd;
    TRY(file_open(&fd, path, FILE_WRITE | FILE_CREATE | FILE_EXCLUSIVE | FILE_PRIVATE));
    enum err err = err_of_mdb(mdb_env_copyfd2(catalog->env, fd, MDB_CP_COMPACT));
    if (err == OK)
        err = file_sync(fd);
    file_close(fd);
    return err;
}

void catalog_close(struct catalog *catalog)
{
    while (catalog->idle_count > 0)
        mdb_txn_abort(catalog->idle[--catalog->idle_count]);
    mdb_env_close(catalog->env);
    if (catalog->owner_fd >= 0)
        file_close(catalog->owner_fd);
    pthread_mutex_destroy(&catalog->mutex);
    memory_give(catalog, MEMORY_STORE);
}
