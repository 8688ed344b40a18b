/* bench_core.c: what core's pieces cost, in ns each: mesh between two threads (one by one, in 16s,
 * 256s), table, timer, histogram, pool, hashes. One line per figure: name, ns per operation,
 * operations per second. --smoke: a hundredth of the work. */
#include "core/hash.h"
#include "core/memory.h"
#include "core/mesh.h"
#include "core/metrics.h"
#include "core/pool.h"
#include "core/table.h"
#include "core/timer.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static uint64_t now_ns(void)
{
    struct timespec t;
    if (clock_gettime(CLOCK_MONOTONIC, &t) != 0)
        abort();
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static void report(const char *name, uint64_t count, uint64_t ns)
{
    printf("%-28s %9.1f ns %14.0f /s\n", name, (double)ns / (double)count,
           (double)count * 1e9 / (double)ns);
}

static uint64_t mix(uint64_t v)
{
    v = (v ^ v >> 31) * 0x9e3779b97f4a7c15u;
    return v ^ v >> 29;
}

/* must: a failure ends the benchmark. */
static void must(enum err err, const char *what)
{
    if (err == OK)
        return;
    (void)fprintf(stderr, "%s: %s\n", what, err_name(err));
    exit(1);
}

/* ---- mesh: a producer fills, a consumer drains; both spin, so wake-ups are not measured */

#define MESSAGE_BYTES 48

struct stream {
    struct mesh *mesh;
    uint64_t count;
    uint64_t batch;
};

/* relax: a short spin, then the processor to others: the machine may have fewer free cores than
 * threads. */
static void relax(uint32_t *spins)
{
    if (++*spins % 256 == 0)
        (void)sched_yield();
    else
        __builtin_ia32_pause();
}

static void *produce(void *argument)
{
    const struct stream *s = argument;
    uint32_t spins = 0;
    for (uint64_t sent = 0; sent < s->count;) {
        uint64_t in_batch = 0;
        while (in_batch < s->batch && sent < s->count) {
            uint8_t *p = mesh_reserve(s->mesh, 0, 1, MESH_REQUEST, MESSAGE_BYTES);
            if (p == NULL)
                break;
            store_u64(p, sent++);
            mesh_commit(s->mesh, 0, 1, MESH_REQUEST, MESSAGE_BYTES);
            in_batch++;
        }
        mesh_flush(s->mesh, 0);
        if (in_batch == 0)
            relax(&spins);
    }
    return NULL;
}

static void bench_mesh(const char *name, uint64_t count, uint64_t batch)
{
    struct mesh_options options = {.shards = 2};
    for (int class = 0; class < MESH_CLASS_COUNT; class ++)
        options.ring_bytes[class] = 1u << 16;
    struct stream stream = {.count = count, .batch = batch};
    must(mesh_create(&stream.mesh, NULL, &options), name);
    uint64_t start = now_ns();
    pthread_t thread;
    if (pthread_create(&thread, NULL, produce, &stream) != 0)
        must(ERR_NO_MEMORY, name);
    uint32_t spins = 0;
    for (uint64_t received = 0; received < count;) {
        struct bytes message = mesh_peek(stream.mesh, 1, 0, MESH_REQUEST);
        if (message.data == NULL) {
            relax(&spins);
            continue;
        }
        if (load_u64(message.data) != received++)
            must(ERR_CORRUPT, name);
        mesh_pop(stream.mesh, 1, 0, MESH_REQUEST);
    }
    (void)pthread_join(thread, NULL);
    report(name, count, now_ns() - start);
    mesh_destroy(stream.mesh);
}

/* bench_mesh_alone: both ends on one thread: the instructions without the cache misses, steady also
 * on a busy machine. */
static void bench_mesh_alone(uint64_t count)
{
    const char *name = "mesh, in 256s, one thread";
    struct mesh_options options = {.shards = 2};
    for (int class = 0; class < MESH_CLASS_COUNT; class ++)
        options.ring_bytes[class] = 1u << 16;
    struct mesh *mesh;
    must(mesh_create(&mesh, NULL, &options), name);
    uint64_t start = now_ns();
    for (uint64_t done = 0; done < count; done += 256) {
        for (uint64_t i = 0; i < 256; i++) {
            uint8_t *p = mesh_reserve(mesh, 0, 1, MESH_REQUEST, MESSAGE_BYTES);
            if (p == NULL) {
                must(ERR_FULL, name);
                break;
            }
            store_u64(p, done + i);
            mesh_commit(mesh, 0, 1, MESH_REQUEST, MESSAGE_BYTES);
        }
        mesh_flush(mesh, 0);
        for (uint64_t i = 0; i < 256; i++) {
            if (load_u64(mesh_peek(mesh, 1, 0, MESH_REQUEST).data) != done + i)
                must(ERR_CORRUPT, name);
            mesh_pop(mesh, 1, 0, MESH_REQUEST);
        }
    }
    report(name, count, now_ns() - start);
    mesh_destroy(mesh);
}

/* ---- table */

static struct table_key key_of(uint64_t i)
{
    return (struct table_key){0, mix(i)};
}

static void bench_table(uint64_t count)
{
    struct table table;
    table_init(&table, 42);
    int value;
    uint64_t start = now_ns();
    uint64_t worst = 0;
    for (uint64_t i = 0; i < count; i++)
        must(table_put(&table, key_of(i), &value), "table_put");
    report("table put, growing", count, now_ns() - start);
    start = now_ns();
    uint64_t found = 0;
    for (uint64_t i = 0; i < count; i++)
        found += table_get(&table, key_of(mix(i) % count)) != NULL;
    report("table get, random", count, now_ns() - start);
    if (found != count)
        must(ERR_NOT_FOUND, "table_get");
    for (uint64_t i = count; i < count * 2; i++) {
        uint64_t before = now_ns();
        must(table_put(&table, key_of(i), &value), "table_put");
        uint64_t took = now_ns() - before;
        worst = took > worst ? took : worst;
    }
    report("table put, slowest one", 1, worst);
    start = now_ns();
    for (uint64_t i = 0; i < count * 2; i++)
        found -= table_remove(&table, key_of(i)) == NULL;
    report("table remove", count * 2, now_ns() - start);
    table_deinit(&table);
}

/* ---- timer, histogram, pool, hashes */

static void bench_timer(uint64_t count)
{
    enum { TIMERS = 100000 };
    struct timers *timers = memory_take(sizeof *timers, MEMORY_CORE);
    struct timer *all = memory_take_zeroed(TIMERS * sizeof *all, MEMORY_CORE);
    if (timers == NULL || all == NULL)
        must(ERR_NO_MEMORY, "timer");
    timers_init(timers, 0);
    uint64_t start = now_ns();
    for (uint64_t i = 0; i < count; i++)
        timer_start(timers, &all[i % TIMERS], mix(i) % (60 * NS_PER_S));
    report("timer restart", count, now_ns() - start);
    start = now_ns();
    uint64_t fired = 0;
    for (uint64_t now = 0; timers->running != 0; now += TIMER_TICK_NS) {
        timers_advance(timers, now);
        while (timers_pop(timers) != NULL)
            fired++;
    }
    report("timer fire", fired, now_ns() - start);
    for (uint64_t i = 0; i < TIMERS; i++)
        timer_start(timers, &all[i], NS_PER_S * i);
    start = now_ns();
    for (uint64_t i = 0; i < TIMERS; i++)
        timer_stop(timers, &all[mix(i) % TIMERS]);
    report("timer stop", TIMERS, now_ns() - start);
    memory_give(all, MEMORY_CORE);
    memory_give(timers, MEMORY_CORE);
}

static void bench_histogram(uint64_t count)
{
    struct metrics *metrics;
    must(metrics_create(&metrics), "metrics");
    uint64_t start = now_ns();
    for (uint64_t i = 0; i < count; i++)
        metric_observe(metrics, METRIC_ACK_SECONDS, mix(i) >> 40);
    report("histogram record", count, now_ns() - start);
    start = now_ns();
    for (uint64_t i = 0; i < count; i++)
        metric_add(metrics, METRIC_MESSAGES_ACKED, 1);
    report("counter add", count, now_ns() - start);
    metrics_destroy(metrics);
}

static void bench_pool(uint64_t count)
{
    struct pool pool;
    must(pool_init(&pool, 256, 1000), "pool");
    void *objects[1000] = {NULL};
    uint64_t start = now_ns();
    for (uint64_t i = 0; i < count; i++) {
        void **object = &objects[mix(i) % COUNT_OF(objects)];
        if (*object != NULL)
            pool_give(&pool, *object);
        *object = pool_take(&pool);
    }
    report("pool give and take, 256 B", count, now_ns() - start);
    pool_deinit(&pool);
}

static void bench_hash(uint64_t count)
{
    struct hash_key key = {1, 2};
    uint64_t sum = 0;
    uint64_t start = now_ns();
    for (uint64_t i = 0; i < count; i++)
        sum += hash_u128(&key, sum, i);
    report("hash of 16 B", count, now_ns() - start);
    static uint8_t data[4096];
    start = now_ns();
    for (uint64_t i = 0; i < count / 10; i++) {
        data[0] = (uint8_t)sum;
        sum += crc32c((uint32_t)i, bytes_of(data, sizeof data));
    }
    report("crc32c of 4 KiB", count / 10, now_ns() - start);
    if (sum == 0)
        printf("\n"); /* the sum is used */
}

int main(int argc, char **argv)
{
    bool smoke = argc > 1 && strcmp(argv[1], "--smoke") == 0;
    uint64_t part = smoke ? 100 : 1;
    bench_mesh("mesh, one by one", 5000000 / part, 1);
    bench_mesh("mesh, in 16s", 20000000 / part, 16);
    bench_mesh("mesh, in 256s", 20000000 / part, 256);
    bench_mesh_alone(25600000 / part);
    bench_table(1000000 / part);
    bench_timer(5000000 / part);
    bench_histogram(20000000 / part);
    bench_pool(5000000 / part);
    bench_hash(10000000 / part);
    return 0;
}
