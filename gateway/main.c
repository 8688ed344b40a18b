/* main.c: the roost binary: configuration, start, signals, stop. See usage().
 * Flow:       serve: config → secrets → catalog → workers → shard 0 opens the store and recovers
 *             its lanes of the log → the others recover theirs → all shards turn → signals → drain
 * Owns:       struct gateway and everything that shards share; the threads
 * Exit:       as usage() says */
#include "gateway/main.h"

#include "core/file.h"
#include "core/text.h"
#include "gateway/api/api.h"
#include "gateway/api/jwks_file.h"
#include "gateway/chat/secrets.h"
#include "gateway/checkup.h"
#include "gateway/flow/budget.h"
#include "gateway/flow/lanes.h"
#include "gateway/flow/shard.h"
#include "gateway/wire/json_text.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define EXPLANATION_BYTES 2048
#define READER_THREADS    2
#define DISK_THREADS      2 /* for each lane: jobs on a slow disk take long */
#define CERTIFICATE_DAYS  825

struct process {
    struct gateway gateway;
    struct config config;
    struct secrets secrets;
    struct api *api;
    int lock; /* of the data directory */
    pthread_barrier_t recovered;
    pthread_barrier_t listening;
    _Atomic bool failed;
    char explanation[EXPLANATION_BYTES];
    char certificate[CONFIG_TEXT_BYTES + 32];
    char key[CONFIG_TEXT_BYTES + 32];
};

struct shard_thread {
    struct process *process;
    pthread_t thread;
    uint32_t index;
    int32_t cpu;
};

static void usage(FILE *out)
{
    fputs(
        "usage: roost serve [--config FILE]         run the gateway\n"
        "       roost check-config [--config FILE]  print every setting as it would be used\n"
        "       roost log …                         look at, check or repair a log (DATA/log)\n"
        "       roost store …                       snapshot, restore or rebuild a store (DATA)\n"
        "       roost --version\n\n"
        "exit: 0 done (serve: after an orderly end; log verify: nothing is damaged); 1 could not, "
        "one line says\n"
        "why (check-config: the configuration is refused; log verify: damage, or no log); 2 wrong "
        "usage\n",
        out);
}

/* fail: one line that says why; in the log's own form where others read it. */
static int fail(const struct config *config, const char *explanation)
{
    if (config != NULL && config->log_format == LOG_JSON)
        log_event(LOG_ERROR, "failed", LOG_TEXT("reason", explanation));
    else
        fprintf(stderr, "roost: %s\n", explanation);
    return 1;
}

/* ---- preparing what shards share */

static enum err open_directory(struct process *process)
{
    char path[CONFIG_TEXT_BYTES + 32];
    const char *directory = process->config.directory;
    enum err err = file_make_directory(directory);
    if (err == OK) {
        snprintf(path, sizeof path, "%s/lock", directory);
        err = file_open(&process->lock, path, FILE_WRITE | FILE_CREATE | FILE_PRIVATE);
    }
    if (err != OK) {
        snprintf(process->explanation, EXPLANATION_BYTES,
                 "store.directory %s cannot be made or written (%s): check its owner, rights and "
                 "disk, or name another directory",
                 directory, err_name(err));
        return err;
    }
    err = file_lock(process->lock);
    if (err != OK)
        snprintf(process->explanation, EXPLANATION_BYTES,
                 "another roost runs on store.directory %s: stop it, or name another directory",
                 directory);
    return err;
}

static enum err make_certificate(struct process *process)
{
    enum err err =
        tls_make_certificate(process->certificate, process->key, "localhost,127.0.0.1,::1",
                             CERTIFICATE_DAYS, command_now_ms());
    if (err != OK)
        snprintf(process->explanation, EXPLANATION_BYTES,
                 "%s cannot be written (%s): check the disk's space and the directory's rights",
                 process->certificate, err_name(err));
    return err;
}

static enum err load_tls(struct process *process, struct tls_context **context)
{
    const struct config *config = &process->config;
    struct tls_server_options options = {.certificate_path = config->certificate,
                                         .key_path = config->key};
    const char *explanation = "";
    memcpy(options.ticket_secret, process->secrets.ticket, TLS_SECRET_BYTES);
    if (config->certificate[0] == 0) {
        options.certificate_path = process->certificate;
        options.key_path = process->key;
        if (access(process->certificate, R_OK) != 0)
            TRY(make_certificate(process));
    }
    enum err err = tls_context_create_server(context, &options, &explanation);
    if (err != OK)
        snprintf(process->explanation, EXPLANATION_BYTES, "%s", explanation);
    else
        tls_context_set_period(*context, command_now_ms() / 21600000);
    if (err == OK && explanation[0] != '\0')
        log_event(LOG_WARN, "certificate", LOG_TEXT("warning", explanation),
                  LOG_TEXT("advice", "replace it and send SIGHUP"));
    return err;
}

static enum err load_addresses(struct process *process)
{
    struct config *config = &process->config;
    if (address_parse(&process->gateway.address, config->address) != OK ||
        address_parse(&process->gateway.admin_address, config->admin_address) != OK) {
        snprintf(process->explanation, EXPLANATION_BYTES,
                 "listen.address and listen.admin_address are ADDRESS:PORT, as 0.0.0.0:8443");
        return ERR_INVALID;
    }
    return OK;
}

static uint32_t count_cpus(int32_t *cpus, uint32_t max)
{
    cpu_set_t set;
    uint32_t count = 0;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return 1;
    for (int32_t cpu = 0; cpu < CPU_SETSIZE && count < max; cpu++)
        if (CPU_ISSET((size_t)cpu, &set))
            cpus[count++] = cpu;
    return count;
}

static uint32_t power_of_two(uint32_t at_least)
{
    uint32_t v = 1;
    while (v < at_least)
        v *= 2;
    return v;
}

static enum err make_mesh(struct gateway *gateway)
{
    const struct config *config = gateway->config;
    /* a message larger than usual needs twice its size of ring, in every class that carries one */
    uint32_t least = power_of_two(4 * (config->message_bytes + 1024));
    uint32_t bytes = power_of_two(config->mesh_ring_bytes);
    if (bytes < least)
        bytes = least;
    struct mesh_options options = {.shards = gateway->shard_count, .lanes = gateway->lane_count};
    for (int class = 0; class < MESH_CLASS_COUNT; class ++)
        options.ring_bytes[class] = bytes;
    return mesh_create(&gateway->mesh, gateway->group, &options);
}

static enum err make_workers(struct gateway *gateway)
{
    const struct config *config = gateway->config;
    struct worker_options options = {.shards = gateway->shard_count};
    options.threads[WORKER_HASH] = config->hash_threads;
    options.queue_max[WORKER_HASH] = config->hash_queue;
    options.threads[WORKER_CATALOG_READ] = READER_THREADS;
    options.queue_max[WORKER_CATALOG_READ] = config->max_connections + 4096;
    options.threads[WORKER_CATALOG_WRITE] = 1;
    options.queue_max[WORKER_CATALOG_WRITE] = config->max_connections + 4096;
    options.batch[WORKER_CATALOG_WRITE] = catalog_write_batch;
    options.batch_context[WORKER_CATALOG_WRITE] = gateway->catalog;
    options.threads[WORKER_DISK] = DISK_THREADS * gateway->lane_count;
    options.queue_max[WORKER_DISK] = 1024;
    return workers_create(&gateway->workers, gateway->group, &options);
}

static struct jwks *current_jwks(void *context, struct shard *shard)
{
    (void)context;
    return shard->jwks;
}

static bool is_ready(void *context, struct shard *shard, char *reason, size_t reason_size)
{
    const struct process *process = context;
    (void)process;
    if (shard->phase != GATEWAY_SERVING) {
        snprintf(reason, reason_size, "draining");
        return false;
    }
    if (shard->log_state != LOG_OPEN) {
        snprintf(reason, reason_size,
                 shard->log_state == LOG_FAILED
                     ? "read-only: a write or sync of the log failed; see the log line log_refuses"
                     : "sends are refused: the disk is full");
        return false;
    }
    return true;
}

static enum err make_api(struct process *process)
{
    struct gateway *gateway = &process->gateway;
    const struct api_options options = {
        .config = gateway->config,
        .catalog = gateway->catalog,
        .workers = gateway->workers,
        .signer = &gateway->signer,
        .jwks = current_jwks,
        .ready = is_ready,
        .context = process,
        .store_epoch = gateway->store_epoch,
        .metrics = gateway->metrics,
        .metrics_count = gateway->metrics_count,
        .shard_count = gateway->shard_count,
    };
    TRY(api_create(&process->api, &options));
    gateway->api = api_handle;
    gateway->api_context = process->api;
    return OK;
}

static enum err prepare(struct process *process, uint32_t shard_count)
{
    struct gateway *gateway = &process->gateway;
    struct config *config = &process->config;
    const char *explanation = "";
    gateway->config = config;
    gateway->server = "roost " ROOST_VERSION;
    gateway->shard_count = shard_count;
    gateway->lane_count = lanes_count(config->lane_directories);
    TRY(load_addresses(process));
    TRY(open_directory(process));
    TRY(secrets_load(&process->secrets, config->directory, command_entropy, NULL, command_now_ms(),
                     process->explanation, EXPLANATION_BYTES));
    gateway->placement = process->secrets.placement;
    memcpy(gateway->store_epoch, process->secrets.store_epoch, sizeof gateway->store_epoch);
    jwt_signer_init(&gateway->signer, process->secrets.signing);
    snprintf(process->certificate, sizeof process->certificate, "%s/development.crt",
             config->directory);
    snprintf(process->key, sizeof process->key, "%s/development.key", config->directory);
    struct tls_context *tls = NULL;
    struct jwks *jwks = NULL;
    TRY(load_tls(process, &tls));
    TRY(jwks_file_load(&jwks, config, process->explanation, EXPLANATION_BYTES));
    atomic_store(&gateway->tls, tls);
    atomic_store(&gateway->jwks, jwks);
    atomic_store(&gateway->generation, 1);
    char catalog_directory[CONFIG_TEXT_BYTES + 32];
    snprintf(catalog_directory, sizeof catalog_directory, "%s/catalog", config->directory);
    enum err err =
        catalog_open(&gateway->catalog, catalog_directory, config->catalog_map_bytes, &explanation);
    if (err != OK) {
        snprintf(process->explanation, EXPLANATION_BYTES, "%s", explanation);
        return err;
    }
    snprintf(
        process->explanation, EXPLANATION_BYTES,
        "out of memory, threads or descriptors: free some, or raise the limits (ulimit -v, -u, "
        "-n)");
    TRY(io_group_create(&gateway->group, shard_count));
    gateway->metrics_count = shard_count + gateway->lane_count - 1;
    for (uint32_t i = 0; i < gateway->metrics_count; i++)
        TRY(metrics_create(&gateway->metrics[i]));
    TRY(addresses_init(&gateway->addresses,
                       (uint64_t)shard_count *
                           shard_sockets_max(config->max_connections, shard_count),
                       &gateway->placement));
    TRY(make_mesh(gateway));
    TRY(make_workers(gateway));
    return make_api(process);
}

/* ---- threads */

static void *run_shard(void *context)
{
    struct shard_thread *self = context;
    struct process *process = self->process;
    struct shard *shard = NULL;
    char explanation[EXPLANATION_BYTES] = "";
    const struct shard_options options = {&process->gateway, self->index, self->cpu};
    enum err err = OK;
    if (self->index != 0)
        pthread_barrier_wait(&process->recovered);
    if (!atomic_load(&process->failed))
        err = shard_create(&shard, &options, explanation, sizeof explanation);
    if (self->index == 0) {
        if (err == OK)
            err = shard_listen(shard, explanation, sizeof explanation);
        if (err != OK)
            atomic_store(&process->failed, true);
        pthread_barrier_wait(&process->recovered);
    } else if (err == OK && !atomic_load(&process->failed)) {
        err = shard_listen(shard, explanation, sizeof explanation);
    }
    if (err != OK) {
        snprintf(process->explanation, EXPLANATION_BYTES, "%s", explanation);
        atomic_store(&process->failed, true);
    }
    pthread_barrier_wait(&process->listening);
    while (!atomic_load(&process->failed) && !shard_stopped(shard))
        shard_turn(shard, UINT64_MAX);
    pthread_barrier_wait(&process->listening);
    if (shard != NULL)
        shard_destroy(shard);
    return NULL;
}

/* max_connections is a promise: a machine that cannot hold it is told so at the start. */
static void check_host(const struct process *process)
{
    struct checkup checkup;
    char warning[EXPLANATION_BYTES];
    size_t count;
    const struct budget_line *lines = budget_lines(&count);
    for (size_t i = 0; i < count; i++)
        log_event(LOG_DEBUG, "connection_budget", LOG_TEXT("for", lines[i].what),
                  LOG_U64("bytes", lines[i].bytes));
    metric_set(process->gateway.metrics[0], METRIC_CONNECTION_BUDGET,
               (int64_t)budget_connection_bytes());
    checkup_host(&checkup, &process->config, process->gateway.shard_count);
    for (uint32_t i = 0; checkup_warning(warning, sizeof warning, &checkup, i); i++)
        log_event(LOG_WARN, "host_is_less_than_promised", LOG_TEXT("warning", warning));
}

static void print_start(const struct process *process)
{
    const struct gateway *gateway = &process->gateway;
    char address[54];
    char admin[54];
    address_format(address, &gateway->bound_address);
    address_format(admin, &gateway->bound_admin_address);
    uint16_t port = gateway->bound_address.port;
    printf("roost %s, %s, %u shards\n"
           "  listening on   wss://localhost:%u/connect   (%s)\n"
           "  admin          https://%s/readyz and /metrics\n"
           "  data           %s\n"
           "  stop           Ctrl-C or kill -TERM %d: clients are told, the log is closed\n"
           "  first message  curl -k https://localhost:%u/users -H 'content-type: "
           "application/json' -d '{\"name\":\"alice\",\"password\":\"correct horse\"}'\n"
           "                 then POST /auth/login, and connect with the token: see README.md\n",
           ROOST_VERSION, tls_library(), gateway->shard_count, port, address, admin,
           process->config.directory, (int)getpid(), port);
    if (process->config.certificate[0] == 0)
        printf("  certificate    self-signed, for development: %s (set tls.certificate and "
               "tls.key)\n",
               process->certificate);
    fflush(stdout);
    log_event(LOG_INFO, "serving", LOG_TEXT("address", address), LOG_TEXT("admin", admin),
              LOG_U64("shards", gateway->shard_count), LOG_TEXT("tls", tls_library()));
    check_host(process);
    if (process->config.echo)
        log_event(LOG_WARN, "bench_echo_is_on",
                  LOG_TEXT("effect", "/echo answers anybody; never run this in production"));
    if (process->config.unsafe_skip_sync)
        log_event(LOG_WARN, "unsafe_skip_sync_is_on",
                  LOG_TEXT("effect", "acknowledged messages can be lost"));
}

static void wake_all(struct gateway *gateway)
{
    for (uint32_t i = 0; i < gateway->shard_count; i++)
        io_wake(gateway->group, i);
}

/* Whether every shard has taken what the last reload brought; until then it may still take what
 * was before, so nothing of that is given back. */
static bool all_looked(struct gateway *gateway)
{
    return atomic_load_explicit(&gateway->looked, memory_order_acquire) == gateway->shard_count;
}

/* SIGHUP: new certificate and keys for what comes; nobody is dropped. Each of the two that does not
 * load is kept as it was. */
static void reload(struct process *process)
{
    struct gateway *gateway = &process->gateway;
    struct tls_context *tls = NULL;
    struct jwks *jwks = NULL;
    bool has_tls = load_tls(process, &tls) == OK;
    if (!has_tls)
        log_event(LOG_ERROR, "reload_failed", LOG_TEXT("reason", process->explanation));
    bool has_jwks =
        jwks_file_load(&jwks, &process->config, process->explanation, EXPLANATION_BYTES) == OK;
    if (!has_jwks)
        log_event(LOG_ERROR, "reload_failed", LOG_TEXT("reason", process->explanation));
    /* shards hold references of their own */
    if (has_tls)
        tls_context_release(atomic_exchange(&gateway->tls, tls));
    if (has_jwks)
        jwks_release(atomic_exchange(&gateway->jwks, jwks));
    if (!has_tls && !has_jwks)
        return;
    atomic_store(&gateway->looked, 0);
    atomic_fetch_add(&gateway->generation, 1);
    wake_all(gateway);
    log_event(LOG_INFO, "reloaded", LOG_TEXT("certificate", has_tls ? "yes" : "no"),
              LOG_TEXT("jwks", has_jwks ? "yes" : "no"),
              LOG_U64("generation", atomic_load(&gateway->generation)));
}

static void watch_signals(struct process *process, const sigset_t *signals)
{
    struct gateway *gateway = &process->gateway;
    bool reload_wanted = false;
    const struct timespec look = {.tv_sec = 0, .tv_nsec = 100000000};
    while (!atomic_load(&process->failed) && atomic_load(&gateway->phase) != GATEWAY_STOPPED) {
        int signal = sigtimedwait(signals, NULL, &look);
        reload_wanted |= signal == SIGHUP;
        if (reload_wanted && all_looked(gateway)) {
            reload_wanted = false;
            reload(process);
        }
        if (signal == SIGTERM || signal == SIGINT) {
            log_event(LOG_INFO, "draining", LOG_U64("connections", gateway->connections));
            uint32_t serving = GATEWAY_SERVING;
            atomic_compare_exchange_strong(&gateway->phase, &serving, GATEWAY_DRAINING);
            wake_all(gateway);
        }
    }
}

static int run(struct process *process, const int32_t *cpus, uint32_t cpu_count)
{
    struct gateway *gateway = &process->gateway;
    uint32_t count = gateway->shard_count;
    struct shard_thread *threads = calloc(count, sizeof *threads);
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGHUP);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    pthread_barrier_init(&process->recovered, NULL, count);
    pthread_barrier_init(&process->listening, NULL, count + 1);
    for (uint32_t i = 0; i < count; i++) {
        threads[i] =
            (struct shard_thread){.process = process, .index = i, .cpu = cpus[i % cpu_count]};
        CHECK(pthread_create(&threads[i].thread, NULL, run_shard, &threads[i]) == 0);
    }
    pthread_barrier_wait(&process->listening);
    if (!atomic_load(&process->failed)) {
        atomic_store(&gateway->phase, GATEWAY_SERVING);
        print_start(process);
        watch_signals(process, &signals);
    }
    wake_all(gateway);
    pthread_barrier_wait(&process->listening);
    for (uint32_t i = 0; i < count; i++)
        pthread_join(threads[i].thread, NULL);
    free(threads);
    if (atomic_load(&process->failed))
        return fail(&process->config, process->explanation);
    log_event(LOG_INFO, "stopped", LOG_END);
    return 0;
}

static void tear_down(struct process *process)
{
    struct gateway *gateway = &process->gateway;
    if (gateway->workers != NULL)
        workers_destroy(gateway->workers);
    if (process->api != NULL)
        api_destroy(process->api);
    if (gateway->mesh != NULL)
        mesh_destroy(gateway->mesh);
    for (uint32_t i = 0; i < gateway->metrics_count; i++)
        if (gateway->metrics[i] != NULL)
            metrics_destroy(gateway->metrics[i]);
    if (gateway->group != NULL)
        io_group_destroy(gateway->group);
    addresses_deinit(&gateway->addresses);
    if (gateway->catalog != NULL)
        catalog_close(gateway->catalog);
    if (atomic_load(&gateway->tls) != NULL)
        tls_context_release(atomic_load(&gateway->tls));
    if (atomic_load(&gateway->jwks) != NULL)
        jwks_release(atomic_load(&gateway->jwks));
    if (process->lock >= 0)
        file_close(process->lock);
}

static int serve(const char *config_path)
{
    struct process *process = calloc(1, sizeof *process);
    if (process == NULL)
        return fail(NULL, "out of memory");
    process->lock = -1;
    if (config_load(&process->config, config_path, process->explanation, EXPLANATION_BYTES) != OK) {
        int status = fail(NULL, process->explanation);
        free(process);
        return status;
    }
    logging_init(process->config.log_level, process->config.log_format);
    uint32_t seed;
    command_entropy(NULL, &seed, sizeof seed);
    json_text_init(seed);
    int32_t cpus[SHARDS_MAX];
    uint32_t cpu_count = count_cpus(cpus, SHARDS_MAX);
    enum err err = prepare(process, checkup_shards(&process->config, cpu_count));
    int status = err == OK
                     ? run(process, cpus, cpu_count)
                     : fail(&process->config,
                            process->explanation[0] != 0 ? process->explanation : err_name(err));
    tear_down(process);
    free(process);
    return status;
}

/* ---- check-config, and the groups of other files */

static void print_host(const struct checkup *checkup)
{
    const uint64_t mib = 1024ull * 1024;
    printf("\n# On this host: %u shards of %u rings each; idle, all connections take %llu MiB, "
           "state, cache and rings\n# between shards up to %llu MiB, of %llu MiB.\n",
           checkup->shards, checkup->rings, (unsigned long long)(checkup->connections_bytes / mib),
           (unsigned long long)(checkup->budgets_bytes / mib),
           (unsigned long long)(checkup->memory_bytes / mib));
}

static int check_config(const char *path)
{
    struct config config;
    struct checkup checkup;
    char text[EXPLANATION_BYTES];
    int32_t cpus[SHARDS_MAX];
    json_text_init(1);
    if (config_load(&config, path, text, sizeof text) != OK ||
        checkup_files(&config, text, sizeof text) != OK)
        return fail(NULL, text);
    if (text[0] != '\0')
        fprintf(stderr, "roost: warning: %s\n", text);
    checkup_host(&checkup, &config, checkup_shards(&config, count_cpus(cpus, SHARDS_MAX)));
    for (uint32_t i = 0; checkup_warning(text, sizeof text, &checkup, i); i++)
        fprintf(stderr, "roost: warning: %s\n", text);
    config_print(&config);
    print_host(&checkup);
    return 0;
}

int main(int argc, char **argv)
{
    const char *command = argc > 1 ? argv[1] : "";
    const char *config_path = NULL;
    if (strcmp(command, "--version") == 0) {
        printf("roost %s (%s)\n", ROOST_VERSION, tls_library());
        return 0;
    }
    if (strcmp(command, "--help") == 0) {
        usage(stdout);
        return 0;
    }
    if (strcmp(command, "log") == 0)
        return main_log(argc - 2, argv + 2);
    if (strcmp(command, "store") == 0)
        return main_store(argc - 2, argv + 2);
    if (argc == 4 && strcmp(argv[2], "--config") == 0)
        config_path = argv[3];
    else if (argc != 2) {
        usage(stderr);
        return 2;
    }
    if (strcmp(command, "serve") == 0)
        return serve(config_path);
    if (strcmp(command, "check-config") == 0)
        return check_config(config_path);
    usage(stderr);
    return 2;
}
