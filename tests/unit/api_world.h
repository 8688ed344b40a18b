/* api_world.h: what api/ needs around it, for its tests and fuzzer: a shard with doubles of
 * exchange.h's functions, a real catalog, real workers, a real io for entropy and the clock.
 * A request is put together by hand and its answer is copied out. */
#ifndef TESTS_UNIT_API_WORLD_H
#define TESTS_UNIT_API_WORLD_H

#include "core/file.h"
#include "core/memory.h"
#include "gateway/api/rest.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define ANSWERS_MAX 64

struct answer {
    bool given;
    unsigned status;
    bool head;
    char content_type[64];
    char fields[2048];
    char *body; /* NUL-terminated copy */
    size_t body_size;
};

struct shard {
    struct io_group *group;
    struct io *io;
    struct metrics *metrics;
    struct catalog *catalog;
    struct workers *workers;
    struct jwt_signer signer;
    struct jwks *jwks;
    struct api *api;
    struct config config;
    bool ready;
    char directory[64];
    uint64_t exchanges;
    struct answer answers[ANSWERS_MAX];
    uint32_t revocations;
    struct user_id revoked_user;
    struct device_id revoked_device;
};

/* ---- doubles of exchange.h */

void exchange_respond(struct shard *shard, struct exchange_id id,
                      const struct http_response *response)
{
    struct answer *answer = &shard->answers[id.v % ANSWERS_MAX];
    CHECK(!answer->given); /* exactly one answer */
    answer->given = true;
    answer->status = response->status;
    answer->head = response->head;
    snprintf(answer->content_type, sizeof answer->content_type, "%s",
             response->content_type != NULL ? response->content_type : "");
    snprintf(answer->fields, sizeof answer->fields, "%s",
             response->fields != NULL ? response->fields : "");
    answer->body = malloc(response->body.size + 1);
    CHECK(answer->body != NULL);
    if (response->body.size != 0)
        memcpy(answer->body, response->body.data, response->body.size);
    answer->body[response->body.size] = '\0';
    answer->body_size = response->body.size;
}

uint32_t shard_index(const struct shard *shard)
{
    (void)shard;
    return 0;
}

struct io *shard_io(struct shard *shard)
{
    return shard->io;
}

struct metrics *shard_metrics(struct shard *shard)
{
    return shard->metrics;
}

void shard_revoke(struct shard *shard, struct user_id user, struct device_id device,
                  uint64_t generation)
{
    (void)generation;
    shard->revocations++;
    shard->revoked_user = user;
    shard->revoked_device = device;
}

/* ---- making and ending it */

static struct jwks *world_jwks(void *context, struct shard *shard)
{
    (void)context;
    return shard->jwks;
}

static bool world_ready(void *context, struct shard *shard, char *reason, size_t reason_size)
{
    (void)context;
    if (!shard->ready)
        snprintf(reason, reason_size, "the log is being replayed");
    return shard->ready;
}

static inline enum err world_workers(struct shard *shard, uint32_t hash_queue, uint32_t other_queue)
{
    struct worker_options options = {.shards = 1};
    for (int i = 0; i < WORKER_CLASS_COUNT; i++) {
        options.threads[i] = 1;
        options.queue_max[i] = other_queue;
    }
    options.queue_max[WORKER_HASH] = hash_queue;
    options.batch[WORKER_CATALOG_WRITE] = catalog_write_batch;
    options.batch_context[WORKER_CATALOG_WRITE] = shard->catalog;
    return workers_create(&shard->workers, shard->group, &options);
}

static inline enum err world_api(struct shard *shard)
{
    static const uint8_t epoch[16] = {1};
    struct api_options options = {.config = &shard->config,
                                  .catalog = shard->catalog,
                                  .workers = shard->workers,
                                  .signer = &shard->signer,
                                  .jwks = world_jwks,
                                  .ready = world_ready,
                                  .store_epoch = epoch,
                                  .metrics = &shard->metrics,
                                  .metrics_count = 1,
                                  .shard_count = 1};
    return api_create(&shard->api, &options);
}

/* world_create: hashing is made cheap; config may be changed before world_api is called again. */
static inline struct shard *world_create(uint32_t hash_queue, uint32_t other_queue)
{
    static const uint8_t secret[JWT_KEY_BYTES] = {7};
    struct io_options io_options = {.count = 1,
                                    .connections_max = 16,
                                    .buffers_count = 16,
                                    .buffer_bytes = 4096,
                                    .files_max = 4,
                                    .cpu = -1};
    struct io_event event;
    const char *explanation = "";
    struct shard *shard = calloc(1, sizeof *shard);
    if (shard == NULL)
        return NULL;
    config_defaults(&shard->config);
    shard->config.hash_memory_kib = 64;
    shard->config.hash_passes = 1;
    shard->ready = true;
    jwt_signer_init(&shard->signer, secret);
    snprintf(shard->directory, sizeof shard->directory, "/tmp/test_api_XXXXXX");
    if (mkdtemp(shard->directory) == NULL || metrics_create(&shard->metrics) != OK ||
        catalog_open(&shard->catalog, shard->directory, 64u << 20, &explanation) != OK ||
        io_group_create(&shard->group, 1) != OK ||
        io_create(&shard->io, shard->group, &io_options) != OK ||
        world_workers(shard, hash_queue, other_queue) != OK || world_api(shard) != OK) {
        fprintf(stderr, "the world could not be made: %s\n", explanation);
        return NULL;
    }
    (void)io_poll(shard->io, &event, 1, 0); /* reads the clocks */
    return shard;
}

static enum err world_drop_entry(void *context, const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", (const char *)context, name);
    return file_remove(path);
}

static inline void answers_forget(struct shard *shard)
{
    for (size_t i = 0; i < ANSWERS_MAX; i++)
        free(shard->answers[i].body);
    memset(shard->answers, 0, sizeof shard->answers);
}

static inline void world_destroy(struct shard *shard)
{
    answers_forget(shard);
    workers_destroy(shard->workers);
    api_destroy(shard->api);
    jwks_release(shard->jwks);
    io_destroy(shard->io);
    io_group_destroy(shard->group);
    catalog_close(shard->catalog);
    metrics_destroy(shard->metrics);
    if (file_list(shard->directory, world_drop_entry, shard->directory) == OK)
        remove(shard->directory);
    free(shard);
}

/* ---- requests */

struct ask {
    const char *method;
    const char *path;
    const char *query;
    const char *content_type;
    const char *bearer;
    const char *origin;
    const char *preflight; /* Access-Control-Request-Method */
    bool admin;
    struct bytes body;
};

/* world_begin: hand a request to the api; the answer will be in the returned place. */
static inline struct answer *world_begin(struct shard *shard, const struct ask *ask)
{
    struct http_field fields[4];
    size_t count = 0;
    char bearer[JWT_BYTES_MAX + 16];
    if (ask->content_type != NULL)
        fields[count++] =
            (struct http_field){bytes_of_text("content-type"), bytes_of_text(ask->content_type)};
    if (ask->bearer != NULL) {
        snprintf(bearer, sizeof bearer, "Bearer %s", ask->bearer);
        fields[count++] =
            (struct http_field){bytes_of_text("Authorization"), bytes_of_text(bearer)};
    }
    if (ask->origin != NULL)
        fields[count++] = (struct http_field){bytes_of_text("Origin"), bytes_of_text(ask->origin)};
    if (ask->preflight != NULL)
        fields[count++] = (struct http_field){bytes_of_text("Access-Control-Request-Method"),
                                              bytes_of_text(ask->preflight)};
    struct http_request request = {.method = bytes_of_text(ask->method),
                                   .path = bytes_of_text(ask->path),
                                   .query = bytes_of_text(ask->query != NULL ? ask->query : ""),
                                   .fields = fields,
                                   .field_count = count,
                                   .body = ask->body,
                                   .keep_alive = true};
    struct exchange exchange = {.id = {shard->exchanges}, .request = &request, .admin = ask->admin};
    struct answer *answer = &shard->answers[shard->exchanges++ % ANSWERS_MAX];
    free(answer->body);
    memset(answer, 0, sizeof *answer);
    api_handle(shard->api, shard, &exchange);
    return answer;
}

static inline uint64_t world_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

/* world_turn: what a shard's turn does with finished jobs. */
static inline void world_turn(struct shard *shard)
{
    struct worker_job *job;
    while ((job = worker_completed(shard->workers, 0)) != NULL)
        job->done(job, shard);
}

/* world_finish: turns until the answer is there; false after 20 s. */
static inline bool world_finish(struct shard *shard, const struct answer *answer)
{
    struct timespec pause = {.tv_nsec = 100000};
    uint64_t until = world_ns() + 20 * NS_PER_S;
    while (!answer->given && world_ns() < until) {
        world_turn(shard);
        if (!answer->given)
            nanosleep(&pause, NULL);
    }
    return answer->given;
}

#endif
