/* test_catalog.c: rows, scans, versions, exclusion of a second process, batches and crashes. */
#include "core/io.h"
#include "core/memory.h"
#include "store/catalog.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define MAP_BYTES (64u << 20)

struct fixture {
    char root[64];
    char directory[80];
    struct catalog *catalog;
};

static void open_catalog(struct fixture *f, uint64_t map_bytes)
{
    const char *explanation;
    assert_int_equal(catalog_open(&f->catalog, f->directory, map_bytes, &explanation), OK);
    assert_string_equal(explanation, "");
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    *state = f;
    snprintf(f->root, sizeof f->root, "/tmp/test_catalog_XXXXXX");
    if (!mkdtemp(f->root))
        return -1;
    snprintf(f->directory, sizeof f->directory, "%s/catalog", f->root);
    open_catalog(f, MAP_BYTES);
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    static const char *const names[] = {"data.mdb", "lock.mdb", "owner"};
    if (f->catalog)
        catalog_close(f->catalog);
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/%s", f->directory, names[i]);
        unlink(path);
    }
    int failed = rmdir(f->directory) || rmdir(f->root);
    free(f);
    return failed;
}

static struct bytes text(const char *s)
{
    return bytes_of_text(s);
}

static void put(struct fixture *f, enum catalog_table table, const char *key, const char *value)
{
    struct catalog_txn *txn;
    assert_int_equal(catalog_begin(f->catalog, &txn, true), OK);
    assert_int_equal(catalog_put(txn, table, text(key), text(value)), OK);
    assert_int_equal(catalog_commit(txn), OK);
}

/* NULL: the row must be missing. */
static void expect(struct fixture *f, enum catalog_table table, const char *key, const char *value)
{
    struct catalog_txn *txn;
    struct bytes found;
    assert_int_equal(catalog_begin(f->catalog, &txn, false), OK);
    enum err err = catalog_get(txn, table, text(key), &found);
    assert_int_equal(err, value ? OK : ERR_NOT_FOUND);
    if (value)
        assert_true(bytes_equal(found, text(value)));
    catalog_abort(txn);
}

static void test_rows(void **state)
{
    struct fixture *f = *state;
    put(f, CATALOG_USERS, "a", "1");
    put(f, CATALOG_USERS, "a", "2"); /* replaces */
    put(f, CATALOG_DEVICES, "a", "device");
    put(f, CATALOG_USERS, "empty", "");
    expect(f, CATALOG_USERS, "a", "2");
    expect(f, CATALOG_DEVICES, "a", "device");
    expect(f, CATALOG_USERS, "empty", "");
    expect(f, CATALOG_INBOX, "a", NULL);

    struct catalog_txn *txn;
    struct bytes value;
    assert_int_equal(catalog_begin(f->catalog, &txn, true), OK);
    assert_int_equal(catalog_delete(txn, CATALOG_USERS, text("a")), OK);
    assert_int_equal(catalog_delete(txn, CATALOG_USERS, text("a")), OK);
    assert_int_equal(catalog_get(txn, CATALOG_USERS, text("a"), &value), ERR_NOT_FOUND);
    expect(f, CATALOG_USERS, "a", "2"); /* readers see what is committed */
    assert_int_equal(catalog_commit(txn), OK);
    expect(f, CATALOG_USERS, "a", NULL);
}

/* ---- one transaction's rows against an array: in key order, against it, by chance; pages fill,
 * are split, emptied and merged */

#define MODEL_KEYS 3000

struct model {
    uint32_t versions[MODEL_KEYS]; /* 0: no row */
};

static struct bytes model_key(uint8_t out[24], uint32_t at)
{
    memset(out, 'k', 24);
    store_u32(out + 20, __builtin_bswap32(at));
    return bytes_of(out, 24);
}

static struct bytes model_value(uint8_t out[512], uint32_t at, uint32_t version)
{
    size_t size = (at * 7 + version * 13) % 300;
    for (size_t i = 0; i < size; i++)
        out[i] = (uint8_t)(at + version + i);
    return bytes_of(out, size);
}

static void model_expect(struct catalog_txn *txn, const struct model *model, uint32_t at)
{
    uint8_t key[24];
    uint8_t value[512];
    struct bytes found;
    enum err err = catalog_get(txn, CATALOG_PENDING, model_key(key, at), &found);
    assert_int_equal(err, model->versions[at] != 0 ? OK : ERR_NOT_FOUND);
    if (err == OK)
        assert_true(bytes_equal(found, model_value(value, at, model->versions[at])));
}

static void model_step(struct catalog_txn *txn, struct model *model, uint32_t at, uint32_t what)
{
    uint8_t key[24];
    uint8_t value[512];
    if (what == 0) {
        model_expect(txn, model, at);
    } else if (what == 1) {
        assert_int_equal(catalog_delete(txn, CATALOG_PENDING, model_key(key, at)), OK);
        model->versions[at] = 0;
    } else {
        assert_int_equal(catalog_put(txn, CATALOG_PENDING, model_key(key, at),
                                     model_value(value, at, model->versions[at] + 1)),
                         OK);
        model->versions[at]++;
    }
}

static void test_rows_against_a_model(void **state)
{
    static struct model model;
    struct fixture *f = *state;
    uint64_t random = 7;
    memset(&model, 0, sizeof model);
    for (uint32_t round = 0; round < 24; round++) {
        struct catalog_txn *txn;
        assert_int_equal(catalog_begin(f->catalog, &txn, true), OK);
        for (uint32_t i = 0; i < MODEL_KEYS; i++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            uint32_t chance = (uint32_t)(random >> 33);
            uint32_t at = round % 3 == 0   ? i
                          : round % 3 == 1 ? MODEL_KEYS - 1 - i
                                           : chance % MODEL_KEYS;
            /* mostly puts, mostly deletes, both, in turn; every eighth round leaves nothing */
            uint32_t what = round % 8 == 7 ? 1 : chance / 4096 % 8 < 2 + round % 4 ? 1 : 2;
            model_step(txn, &model, at, chance / 65536 % 5 == 0 && round % 8 != 7 ? 0 : what);
        }
        for (uint32_t i = 0; i < MODEL_KEYS; i++)
            model_expect(txn, &model, i);
        assert_int_equal(catalog_commit(txn), OK);
        assert_int_equal(catalog_begin(f->catalog, &txn, false), OK);
        for (uint32_t i = 0; i < MODEL_KEYS; i++)
            model_expect(txn, &model, i);
        catalog_abort(txn);
    }
}

static void test_abort_and_reopen(void **state)
{
    struct fixture *f = *state;
    struct catalog_txn *txn;
    put(f, CATALOG_META, "kept", "yes");
    assert_int_equal(catalog_begin(f->catalog, &txn, true), OK);
    assert_int_equal(catalog_put(txn, CATALOG_META, text("kept"), text("no")), OK);
    catalog_abort(txn);
    catalog_close(f->catalog);
    open_catalog(f, MAP_BYTES);
    expect(f, CATALOG_META, "kept", "yes");
}

struct scan {
    char seen[256];
    int stop_after; /* rows; -1: never */
    enum err stop;
};

static enum err on_row(void *context, struct bytes key, struct bytes value)
{
    struct scan *scan = context;
    size_t used = strlen(scan->seen);
    snprintf(scan->seen + used, sizeof scan->seen - used, "%.*s=%.*s ", (int)key.size,
             (const char *)key.data, (int)value.size, (const char *)value.data);
    return scan->stop_after >= 0 && --scan->stop_after < 0 ? scan->stop : OK;
}

static void expect_scan(struct fixture *f, const char *prefix, int stop_after, enum err stop,
                        enum err result, const char *seen)
{
    struct catalog_txn *txn;
    struct scan scan = {.stop_after = stop_after, .stop = stop};
    assert_int_equal(catalog_begin(f->catalog, &txn, false), OK);
    assert_int_equal(catalog_scan(txn, CATALOG_INBOX, text(prefix), on_row, &scan), result);
    assert_string_equal(scan.seen, seen);
    catalog_abort(txn);
}

static void test_scan(void **state)
{
    struct fixture *f = *state;
    expect_scan(f, "", -1, OK, OK, "");
    static const char *const keys[] = {"b2", "a", "b", "c", "b10", "b1"};
    for (size_t i = 0; i < COUNT_OF(keys); i++)
        put(f, CATALOG_INBOX, keys[i], "v");
    expect_scan(f, "", -1, OK, OK, "a=v b=v b1=v b10=v b2=v c=v ");
    expect_scan(f, "b", -1, OK, OK, "b=v b1=v b10=v b2=v ");
    expect_scan(f, "b1", -1, OK, OK, "b1=v b10=v ");
    expect_scan(f, "bb", -1, OK, OK, "");
    expect_scan(f, "d", -1, OK, OK, "");
    expect_scan(f, "b", 1, ERR_CANCELLED, OK, "b=v b1=v ");
    expect_scan(f, "b", 0, ERR_INVALID, ERR_INVALID, "b=v ");
}

static void test_newer_and_corrupt_version(void **state)
{
    struct fixture *f = *state;
    static const struct {
        uint8_t version[4];
        size_t size;
        enum err err;
        const char *says;
    } cases[] = {
        {{2, 0, 0, 0}, 4, ERR_NEWER, "newer roost"},
        {{1, 0, 0, 0}, 3, ERR_CORRUPT, "damaged"},
        {{0, 0, 0, 0}, 4, ERR_CORRUPT, "damaged"},
        {{1, 0, 0, 0}, 4, OK, ""},
    };
    char path[128];
    snprintf(path, sizeof path, "%s", f->directory);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        /* A catalog that refuses to open cannot be mended from here: start each anew. */
        catalog_close(f->catalog);
        char data[160];
        snprintf(data, sizeof data, "%s/data.mdb", path);
        assert_int_equal(unlink(data), 0);
        open_catalog(f, MAP_BYTES);
        struct catalog_txn *txn;
        assert_int_equal(catalog_begin(f->catalog, &txn, true), OK);
        struct bytes value = bytes_of(cases[i].version, cases[i].size);
        assert_int_equal(catalog_put(txn, CATALOG_META, text("version"), value), OK);
        assert_int_equal(catalog_commit(txn), OK);
        catalog_close(f->catalog);
        f->catalog = NULL;
        const char *explanation;
        enum err err = catalog_open(&f->catalog, f->directory, MAP_BYTES, &explanation);
        assert_int_equal(err, cases[i].err);
        assert_non_null(strstr(explanation, cases[i].says));
        if (err != OK) {
            assert_int_equal(unlink(data), 0);
            open_catalog(f, MAP_BYTES);
        }
    }
}

static void test_no_catalog(void **state)
{
    struct fixture *f = *state;
    catalog_close(f->catalog);
    f->catalog = NULL;
    char path[128];
    snprintf(path, sizeof path, "%s/data.mdb", f->directory);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    for (int i = 0; i < 20000; i++)
        fputs("no", file);
    fclose(file);
    const char *explanation;
    assert_int_equal(catalog_open(&f->catalog, f->directory, MAP_BYTES, &explanation), ERR_CORRUPT);
    assert_non_null(strstr(explanation, "damaged"));
    char missing[128];
    snprintf(missing, sizeof missing, "%s/missing/catalog", f->root);
    assert_int_equal(catalog_open(&f->catalog, missing, MAP_BYTES, &explanation), ERR_NOT_FOUND);
    assert_non_null(strstr(explanation, "does not exist"));
}

/* Runs body in a child, which leaves without any cleaning up; returns its exit code. */
static int in_child(struct fixture *f, int (*body)(struct fixture *f))
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        _exit(body(f));
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static int open_second(struct fixture *f)
{
    const char *explanation;
    struct catalog *second;
    if (catalog_open(&second, f->directory, MAP_BYTES, &explanation) != ERR_BUSY)
        return 1;
    return strstr(explanation, "another process") ? 0 : 2;
}

static void test_two_processes(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(in_child(f, open_second), 0);
    assert_int_equal(open_second(f), 0); /* nor twice in one */
}

static int die_uncommitted(struct fixture *f)
{
    const char *explanation;
    struct catalog_txn *txn;
    if (catalog_open(&f->catalog, f->directory, MAP_BYTES, &explanation) != OK)
        return 1;
    if (catalog_begin(f->catalog, &txn, true) != OK ||
        catalog_put(txn, CATALOG_USERS, text("first"), text("committed")) != OK ||
        catalog_commit(txn) != OK)
        return 2;
    if (catalog_begin(f->catalog, &txn, true) != OK ||
        catalog_put(txn, CATALOG_USERS, text("first"), text("lost")) != OK)
        return 3;
    for (int i = 0; i < 2000; i++) {
        char key[16];
        snprintf(key, sizeof key, "row %d", i);
        if (catalog_put(txn, CATALOG_USERS, text(key), text("lost")) != OK)
            return 4;
    }
    return 0;
}

static int copy_beside(struct fixture *f)
{
    struct catalog *beside;
    struct catalog_txn *txn;
    struct bytes value;
    const char *why;
    char path[128];
    snprintf(path, sizeof path, "%s/copy", f->root);
    if (mkdir(path, 0700) != 0 || catalog_open_beside(&beside, f->directory, &why) != OK)
        return 1;
    if (catalog_begin(beside, &txn, false) != OK ||
        catalog_get(txn, CATALOG_USERS, text("key"), &value) != OK ||
        !bytes_equal(value, text("value")))
        return 2;
    catalog_abort(txn);
    snprintf(path, sizeof path, "%s/copy/data.mdb", f->root);
    if (catalog_copy(beside, path) != OK || catalog_copy(beside, path) != ERR_EXISTS)
        return 3;
    catalog_close(beside);
    return 0;
}

static void test_copy_beside_a_writer(void **state)
{
    struct fixture *f = *state;
    struct fixture copy = {0};
    char path[128];
    put(f, CATALOG_USERS, "key", "value");
    assert_int_equal(in_child(f, copy_beside), 0);
    put(f, CATALOG_USERS, "key", "another value");
    snprintf(copy.root, sizeof copy.root, "%s", f->root);
    snprintf(copy.directory, sizeof copy.directory, "%s/copy", f->root);
    open_catalog(&copy, MAP_BYTES);
    expect(&copy, CATALOG_USERS, "key", "value");
    put(&copy, CATALOG_USERS, "key", "of the copy");
    catalog_close(copy.catalog);
    expect(f, CATALOG_USERS, "key", "another value");
    static const char *const names[] = {"copy/data.mdb", "copy/lock.mdb", "copy/owner", "copy"};
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        snprintf(path, sizeof path, "%s/%s", f->root, names[i]);
        assert_int_equal(remove(path), 0);
    }
}

static int open_nothing(struct fixture *f)
{
    struct catalog *beside;
    const char *why;
    char path[128];
    snprintf(path, sizeof path, "%s/none", f->root);
    return catalog_open_beside(&beside, path, &why) == ERR_NOT_FOUND && why[0] != 0 ? 0 : 1;
}

static void test_nothing_to_open_beside(void **state)
{
    assert_int_equal(in_child(*state, open_nothing), 0);
}

static int die_while_reading(struct fixture *f)
{
    struct catalog *beside;
    struct catalog_txn *txn;
    const char *why;
    if (catalog_open_beside(&beside, f->directory, &why) != OK ||
        catalog_begin(beside, &txn, false) != OK)
        return 1;
    _exit(0); /* its reader slot stays */
}

static enum err put_large(struct catalog_txn *txn, struct catalog_job *job)
{
    char value[3000];
    (void)job;
    memset(value, 'x', sizeof value);
    return catalog_put(txn, CATALOG_USERS, text("large"), bytes_of(value, sizeof value));
}

/* A tool that was killed must not make the catalog grow for ever. */
static void test_reader_that_died(void **state)
{
    struct fixture *f = *state;
    put(f, CATALOG_USERS, "key", "value");
    assert_int_equal(in_child(f, die_while_reading), 0);
    for (int i = 0; i < 8000; i++) { /* each changes pages of some 20 KB: more than the map has */
        struct catalog_job job = {.body = put_large, .catalog = f->catalog};
        catalog_write_batch(f->catalog, &job.job);
        assert_int_equal(job.err, OK);
    }
}

static void test_crash_between_put_and_commit(void **state)
{
    struct fixture *f = *state;
    catalog_close(f->catalog);
    f->catalog = NULL;
    assert_int_equal(in_child(f, die_uncommitted), 0);
    open_catalog(f, MAP_BYTES);
    expect(f, CATALOG_USERS, "first", "committed");
    expect(f, CATALOG_USERS, "row 0", NULL);
    put(f, CATALOG_USERS, "row 0", "works on");
}

/* ---- jobs */

struct test_job {
    struct catalog_job job;
    const char *key;
    size_t value_bytes; /* 0: the value is "v" */
    enum err fail;      /* what the body returns without writing */
    bool swallow;       /* return OK even where the put failed */
    enum err seen;      /* what a get of "first" said */
    bool ran;
};

static enum err write_body(struct catalog_txn *txn, struct catalog_job *job)
{
    struct test_job *test = CONTAINER_OF(job, struct test_job, job);
    struct bytes value;
    test->ran = true;
    test->seen = catalog_get(txn, CATALOG_USERS, text("first"), &value);
    if (test->fail != OK)
        return test->fail;
    if (test->value_bytes == 0)
        return catalog_put(txn, CATALOG_USERS, text(test->key), text("v"));
    uint8_t *big = calloc(1, test->value_bytes);
    enum err err =
        catalog_put(txn, CATALOG_USERS, text(test->key), bytes_of(big, test->value_bytes));
    free(big);
    return test->swallow ? OK : err;
}

static void run_batch(struct fixture *f, struct test_job *jobs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        jobs[i].job.catalog = f->catalog;
        jobs[i].job.body = write_body;
        jobs[i].job.job.next = i + 1 < count ? &jobs[i + 1].job.job : NULL;
    }
    catalog_write_batch(f->catalog, &jobs[0].job.job);
}

static uint64_t last_txn(struct fixture *f)
{
    /* The transaction number lies in the newer of LMDB's two meta pages: 16 bytes of page header,
     * then magic, version, address, map size, two 48-byte databases, last page, transaction. */
    char path[128];
    uint64_t newest = 0;
    snprintf(path, sizeof path, "%s/data.mdb", f->directory);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    for (long page = 0; page < 2; page++) {
        uint8_t id[8];
        assert_int_equal(fseek(file, page * 4096 + 16 + 24 + 96 + 8, SEEK_SET), 0);
        assert_int_equal(fread(id, 1, sizeof id, file), sizeof id);
        newest = load_u64(id) > newest ? load_u64(id) : newest;
    }
    fclose(file);
    return newest;
}

static void test_batch_is_one_commit(void **state)
{
    struct fixture *f = *state;
    struct test_job jobs[4] = {{.key = "first"},
                               {.key = "x", .fail = ERR_EXISTS},
                               {.key = "second"},
                               {.key = "y", .fail = ERR_DENIED}};
    uint64_t before = last_txn(f);
    run_batch(f, jobs, COUNT_OF(jobs));
    assert_int_equal(last_txn(f), before + 1);
    assert_int_equal(jobs[0].job.err, OK);
    assert_int_equal(jobs[0].seen, ERR_NOT_FOUND);
    assert_int_equal(jobs[1].job.err, ERR_EXISTS);
    assert_int_equal(jobs[1].seen, OK); /* sees what the batch wrote before it */
    assert_int_equal(jobs[2].job.err, OK);
    assert_int_equal(jobs[3].job.err, ERR_DENIED);
    expect(f, CATALOG_USERS, "first", "v");
    expect(f, CATALOG_USERS, "second", "v");
    expect(f, CATALOG_USERS, "x", NULL);
}

static void test_full_map_fails_whole_batch(void **state)
{
    struct fixture *f = *state;
    catalog_close(f->catalog);
    open_catalog(f, 1u << 20);
    for (int swallow = 0; swallow < 2; swallow++) {
        struct test_job jobs[4] = {{.key = "first"},
                                   {.key = "x", .fail = ERR_EXISTS},
                                   {.key = "big", .value_bytes = 4u << 20, .swallow = swallow},
                                   {.key = "after"}};
        run_batch(f, jobs, COUNT_OF(jobs));
        for (size_t i = 0; i < COUNT_OF(jobs); i++)
            assert_int_equal(jobs[i].job.err, ERR_NO_SPACE);
        assert_false(jobs[3].ran);
        expect(f, CATALOG_USERS, "first", NULL);
    }
    struct test_job fits = {.key = "fits"}; /* and no space is not for ever */
    run_batch(f, &fits, 1);
    assert_int_equal(fits.job.err, OK);
    expect(f, CATALOG_USERS, "fits", "v");
}

/* A body that writes and then fails is a bug: the process must not go on. */
static enum err bad_body(struct catalog_txn *txn, struct catalog_job *job)
{
    (void)job;
    enum err err = catalog_put(txn, CATALOG_USERS, text("half"), text("done"));
    return err == OK ? ERR_INVALID : err;
}

static void test_body_that_wrote_and_failed_traps(void **state)
{
    struct fixture *f = *state;
    catalog_close(f->catalog);
    f->catalog = NULL;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        const char *explanation;
        static const int signals[] = {SIGILL, SIGTRAP, SIGABRT, SIGSEGV};
        for (size_t i = 0; i < COUNT_OF(signals); i++)
            signal(signals[i], SIG_DFL); /* cmocka's would go on with the next test in the child */
        close(2);
        if (catalog_open(&f->catalog, f->directory, MAP_BYTES, &explanation) != OK)
            _exit(1);
        struct catalog_job job = {.catalog = f->catalog, .body = bad_body};
        catalog_write_batch(f->catalog, &job.job);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_false(WIFEXITED(status) && WEXITSTATUS(status) <= 1);
    open_catalog(f, MAP_BYTES);
    expect(f, CATALOG_USERS, "half", NULL);
}

/* ---- through real worker threads */

#define JOBS 200

static enum err read_body(struct catalog_txn *txn, struct catalog_job *job)
{
    struct test_job *test = CONTAINER_OF(job, struct test_job, job);
    struct bytes value;
    return catalog_get(txn, CATALOG_USERS, text(test->key), &value);
}

static void drain(struct workers *workers, int count)
{
    for (int left = count; left > 0;) {
        struct worker_job *done = worker_completed(workers, 0);
        if (done) {
            struct catalog_job *job = CONTAINER_OF(done, struct catalog_job, job);
            assert_int_equal(job->err, OK);
            left--;
        } else {
            usleep(500);
        }
    }
}

static void test_workers(void **state)
{
    struct fixture *f = *state;
    static struct test_job jobs[JOBS];
    static char keys[JOBS][16];
    struct io_group *group;
    struct workers *workers;
    assert_int_equal(io_group_create(&group, 1), OK);
    struct worker_options options = {.shards = 1};
    for (size_t i = 0; i < WORKER_CLASS_COUNT; i++) {
        options.threads[i] = i == WORKER_CATALOG_READ ? 3 : 1;
        options.queue_max[i] = JOBS;
    }
    options.batch[WORKER_CATALOG_WRITE] = catalog_write_batch;
    options.batch_context[WORKER_CATALOG_WRITE] = f->catalog;
    assert_int_equal(workers_create(&workers, group, &options), OK);
    for (int write = 1; write >= 0; write--) {
        for (size_t i = 0; i < JOBS; i++) {
            snprintf(keys[i], sizeof keys[i], "key %zu", i);
            jobs[i] = (struct test_job){.key = keys[i]};
            jobs[i].job.body = write ? write_body : read_body;
            assert_int_equal(catalog_submit(f->catalog, workers, &jobs[i].job, write, 0), OK);
        }
        drain(workers, JOBS);
    }
    workers_destroy(workers);
    io_group_destroy(group);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
        TEST(test_rows),
        TEST(test_rows_against_a_model),
        TEST(test_abort_and_reopen),
        TEST(test_scan),
        TEST(test_newer_and_corrupt_version),
        TEST(test_no_catalog),
        TEST(test_two_processes),
        TEST(test_copy_beside_a_writer),
        TEST(test_nothing_to_open_beside),
        TEST(test_reader_that_died),
        TEST(test_crash_between_put_and_commit),
        TEST(test_batch_is_one_commit),
        TEST(test_full_map_fails_whole_batch),
        TEST(test_body_that_wrote_and_failed_traps),
        TEST(test_workers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
