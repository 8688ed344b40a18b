/* peer_rocksdb.c: RocksDB beside roost's log (bench/store builds and runs it, nothing else does): N
 * threads put 256-byte values, each write synced before it returns (WAL, group commit).
 * Use:        peer_rocksdb DIRECTORY SENDERS SECONDS; prints writes per second and p50 and p99 in
 *             microseconds; status 1 with a line if RocksDB refuses */
#include <pthread.h>
#include <rocksdb/c.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BODY_BYTES  256
#define SAMPLES_MAX 65536u /* kept per thread */
#define STACK_BYTES (256u << 10)
#define SENDERS_MAX 4096
#define NS_PER_S    1000000000ull

struct sender {
    pthread_t thread;
    rocksdb_t *db;
    uint64_t number;
    uint64_t end_ns;
    uint64_t writes;
    uint32_t samples;
    uint32_t capacity;
    uint32_t *us; /* latencies */
    char *error;
};

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static void *send_all(void *argument)
{
    struct sender *s = argument;
    char body[BODY_BYTES];
    memset(body, 'x', sizeof body);
    rocksdb_writeoptions_t *options = rocksdb_writeoptions_create();
    rocksdb_writeoptions_set_sync(options, 1);
    uint64_t began = now_ns();
    while (began < s->end_ns && s->error == NULL) {
        uint64_t key[2] = {__builtin_bswap64(s->number), __builtin_bswap64(s->writes)};
        rocksdb_put(s->db, options, (const char *)key, sizeof key, body, sizeof body, &s->error);
        uint64_t now = now_ns();
        if (s->samples < s->capacity)
            s->us[s->samples++] = (uint32_t)((now - began) / 1000);
        began = now;
        s->writes++;
    }
    rocksdb_writeoptions_destroy(options);
    return NULL;
}

static int us_compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a;
    uint32_t y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static int report(const struct sender *senders, int count, double seconds)
{
    uint64_t writes = 0;
    size_t samples = 0;
    for (int i = 0; i < count; i++) {
        if (senders[i].error != NULL) {
            fprintf(stderr, "peer_rocksdb: %s\n", senders[i].error);
            return 1;
        }
        writes += senders[i].writes;
        samples += senders[i].samples;
    }
    uint32_t *us = malloc((samples + 1) * sizeof *us);
    if (us == NULL || samples == 0)
        return 1;
    size_t at = 0;
    for (int i = 0; i < count; i++) {
        memcpy(us + at, senders[i].us, senders[i].samples * sizeof *us);
        at += senders[i].samples;
    }
    qsort(us, samples, sizeof *us, us_compare);
    printf("%.0f %u %u\n", (double)writes / seconds, us[samples / 2], us[samples * 99 / 100]);
    free(us);
    return 0;
}

int main(int argc, char **argv)
{
    static struct sender senders[SENDERS_MAX];
    char *error = NULL;
    int count = argc == 4 ? atoi(argv[2]) : 0;
    if (count < 1 || count > SENDERS_MAX) {
        fprintf(stderr, "use: peer_rocksdb DIRECTORY SENDERS(1-%d) SECONDS\n", SENDERS_MAX);
        return 2;
    }
    rocksdb_options_t *options = rocksdb_options_create();
    rocksdb_options_set_create_if_missing(options, 1);
    rocksdb_t *db = rocksdb_open(options, argv[1], &error);
    if (error != NULL) {
        fprintf(stderr, "peer_rocksdb: %s\n", error);
        return 1;
    }
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    uint64_t began = now_ns();
    for (int i = 0; i < count; i++) {
        struct sender *s = &senders[i];
        *s = (struct sender){.db = db, .number = (uint64_t)i};
        s->end_ns = began + (uint64_t)atoi(argv[3]) * NS_PER_S;
        s->capacity = count == 1 ? SAMPLES_MAX : SAMPLES_MAX / 64;
        s->us = malloc(s->capacity * sizeof *s->us);
        if (s->us == NULL || pthread_create(&s->thread, &attributes, send_all, s) != 0) {
            fprintf(stderr, "peer_rocksdb: no memory or no thread for sender %d\n", i);
            return 1;
        }
    }
    for (int i = 0; i < count; i++)
        pthread_join(senders[i].thread, NULL);
    int status = report(senders, count, (double)(now_ns() - began) / 1e9);
    rocksdb_close(db);
    return status;
}
