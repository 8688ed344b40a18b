/* bench_catalog.c: point reads per second, and durable commits per second by batch size.
 * Use:        bench_catalog [--smoke] [DIRECTORY]; the directory decides which disk is measured */
#include "core/memory.h"
#include "store/catalog.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define ROW_BYTES 128
#define BATCH_MAX 1024

struct bench_job {
    struct catalog_job job;
    uint64_t key;
};

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static uint64_t mix(uint64_t v)
{
    v = (v ^ (v >> 31)) * 0x9e3779b97f4a7c15ull;
    return v ^ (v >> 29);
}

static enum err write_row(struct catalog_txn *txn, struct catalog_job *job)
{
    struct bench_job *row = CONTAINER_OF(job, struct bench_job, job);
    uint8_t value[ROW_BYTES] = {1};
    return catalog_put(txn, CATALOG_USERS, bytes_of(&row->key, sizeof row->key),
                       bytes_of(value, sizeof value));
}

static void write_batches(struct catalog *catalog, size_t batch, size_t rows)
{
    static struct bench_job jobs[BATCH_MAX];
    uint64_t began = now_ns();
    for (size_t at = 0; at < rows; at += batch) {
        for (size_t i = 0; i < batch; i++) {
            jobs[i].key = mix(at + i + 1);
            jobs[i].job.body = write_row;
            jobs[i].job.job.next = i + 1 < batch ? &jobs[i + 1].job.job : NULL;
        }
        catalog_write_batch(catalog, &jobs[0].job.job);
        CHECK(jobs[0].job.err == OK);
    }
    double seconds = (double)(now_ns() - began) / 1e9;
    printf("write batch %4zu: %10.0f rows/s %8.0f commits/s\n", batch, (double)rows / seconds,
           (double)rows / (double)batch / seconds);
}

static void read_rows(struct catalog *catalog, size_t rows, size_t reads)
{
    uint64_t began = now_ns();
    for (size_t i = 0; i < reads; i++) {
        struct catalog_txn *txn;
        struct bytes value;
        uint64_t key = mix(mix(i) % rows + 1);
        enum err err = catalog_begin(catalog, &txn, false);
        CHECK(err == OK);
        err = catalog_get(txn, CATALOG_USERS, bytes_of(&key, sizeof key), &value);
        CHECK(err == OK && value.size == ROW_BYTES);
        catalog_abort(txn);
    }
    double ns = (double)(now_ns() - began);
    printf("read  of %zu rows: %10.0f reads/s %8.0f ns each, transaction included\n", rows,
           (double)reads * 1e9 / ns, ns / (double)reads);
}

int main(int argc, char **argv)
{
    bool smoke = argc > 1 && strcmp(argv[1], "--smoke") == 0;
    const char *base = argc > 1 + smoke ? argv[1 + smoke] : "/tmp";
    char root[512];
    char path[1024];
    snprintf(root, sizeof root, "%s/bench_catalog_XXXXXX", base);
    if (!mkdtemp(root))
        return 1;
    struct catalog *catalog;
    const char *explanation;
    if (catalog_open(&catalog, root, (uint64_t)1 << 30, &explanation) != OK) {
        fprintf(stderr, "%s\n", explanation);
        return 1;
    }
    size_t rows = smoke ? 10 * BATCH_MAX : 200 * BATCH_MAX;
    write_batches(catalog, BATCH_MAX, rows);
    for (size_t batch = 1; batch < BATCH_MAX; batch *= 8)
        write_batches(catalog, batch, batch * (smoke ? 4 : 500));
    read_rows(catalog, rows, smoke ? 50000 : 2000000);
    catalog_close(catalog);
    static const char *const names[] = {"/data.mdb", "/lock.mdb", "/owner", ""};
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        snprintf(path, sizeof path, "%s%s", root, names[i]);
        remove(path);
    }
    return 0;
}
