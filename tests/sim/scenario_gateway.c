/* scenario_gateway.c: the whole gateway, 1 … 3 shards, and the load generator's users, in one
 * thread. The seed chooses sizes (rings of one message, tiny caches and budgets, small outputs),
 * delays, disconnects, refused moves, disk errors (of writes, of reads), allocations that fail, and
 * ends: crashes, with and without the page cache, and orderly ones (SIGTERM), after which another
 * number of shards goes on with the same data. In some runs retention removes messages, by age, by
 * bounds of conversations and of the store, and the wall clock is set, by less and by more than it
 * may be wrong.
 * Checks:     the load generator's oracle: every acknowledged message reaches each device once, in
 *             order, without gaps, unaltered, whatever retention removes: what a device lacks is
 *             kept; a send that is repeated, also of what was removed, gets its first number and is
 *             never refused for good; in the calm at the end everything is delivered, so nothing is
 *             stuck, and what conversations had stored before they got a bound has been counted. In
 *             other runs some messages disappear: each device is shown one in time, or told
 *             afterwards that it is gone, and of no others. */
#include "tests/sim/scenario.h"

#include "core/file.h"
#include "core/memory.h"
#include "core/text.h"
#include "gateway/flow/lanes.h"
#include "gateway/flow/shard.h"
#include "loadgen/fleet.h"
#include "tests/sim/disk.h"

#include <stdio.h>
#include <stdlib.h>

#define SHARDS            3
#define FLEETS            2
#define USERS             6 /* per fleet */
#define DEVICES           2
#define PORT              8443
#define CHAT_NS           (3 * NS_PER_S) /* at least */
#define KEY_ID            "sim"
#define ISSUER            "sim-issuer"
#define AUDIENCE          "sim-gateway"
#define MESSAGE_BYTES     120
#define BIG_MESSAGE_BYTES 40000 /* more than one pull asks for */
#define RING_BYTES        (512 * 1024)
#define TAKES_MAX         6                 /* of a turn's allocations, one of the first fails */
#define SLOW_NS           (400 * NS_PER_MS) /* a write, a sync, a read of the slow disk */
#define WAIT_MS_MAX       400               /* for the disks of the other lanes */
#define NO_LANE           UINT32_MAX

struct process { /* the gateway's; dies and is made again */
    struct gateway gateway;
    struct config config;
    struct shard *shards[SHARDS];
};

struct clients {
    struct fleet *fleet[FLEETS];
    struct io *io[FLEETS];
    uint32_t devices[FLEETS];
    struct io_group *group;
    enum fleet_phase phase;
};

struct story {
    struct run *run;
    struct process *process;
    struct clients clients;
    struct tls_context *server_tls;
    struct tls_context *client_tls;
    struct jwt_signer operator;
    uint8_t store_secret[JWT_KEY_BYTES];
    uint64_t chat_ns;
    bool draining;     /* SIGTERM was said */
    bool clock_set;    /* the wall clock was */
    uint64_t drain_ns; /* it will be, while everybody comes back; UINT64_MAX: not */
    bool restarted_calm;
    uint32_t slow_lane; /* its disk is; NO_LANE: none */
};

/* ---- the gateway */

static void no_api(void *context, struct shard *shard, const struct exchange *exchange)
{
    const struct http_response response = {.status = 404, .close = true};
    (void)context;
    exchange_respond(shard, exchange->id, &response);
}

static struct io_address address_of(uint8_t last, uint16_t port)
{
    return (struct io_address){.ip = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, last},
                               .port = port};
}

/* forgets: retention removes messages during the run. */
static bool forgets(uint64_t seed)
{
    return seed / 3 % 4 == 1;
}

/* expires: some of the messages disappear. Not where the wall clock is set: then nothing does. */
static bool expires(uint64_t seed)
{
    return !forgets(seed) && seed % 3 != 0;
}

static void configure_retention(struct config *config, uint64_t seed)
{
    if (expires(seed))
        config->expiry_delay_s = (uint32_t)(seed / 2 % 2);
    if (!forgets(seed))
        return;
    config->retention_age_s = (uint32_t)(1 + seed % 3);
    config->retention_age_max_s = 365 * 86400;
    config->retention_delay_s = (uint32_t)(seed % 2);
    if (seed % 4 == 3)
        config->retention_bytes = 2 << 20;
}

static void configure(struct world *world, struct config *config)
{
    config_defaults(config);
    snprintf(config->directory, sizeof config->directory, "/data");
    config->pin = false;
    config->create_users = true;
    config->max_connections = 128;
    config->connections_per_address = 1000;
    config->message_bytes = 96 << 10;
    config->segment_bytes = world_below(world, 2) == 0 ? 1 << 20 : 256 << 10;
    config->merge_segments = (uint32_t)world_between(world, 1, 3);
    config->merge_inputs = (uint32_t)world_between(world, 2, 4);
    config->lookup_bytes = world->options.seed % 3 * 8192;
    configure_retention(config, world->options.seed);
    config->batch_bytes = 128 << 10;
    config->reserve_bytes = 1 << 20;
    config->catalog_map_bytes = 1 << 30;
    config->heartbeat_ms = 15000;
    config->sends_per_second = 1000;
    config->sends_burst = 1000;
    config->log_level = LOG_ERROR;
    config->checkpoint_interval_ms = (uint32_t)world_between(world, 50, 3000);
    config->drain_ms = (uint32_t)world_between(world, 100, 3000);
    config->output_bytes = (uint32_t)world_between(world, 300, 20000);
    config->parked_requests = (uint32_t)world_between(world, 2, 100);
    config->state_bytes = world_below(world, 2) == 0 ? 4096 : 1 << 20;
    config->cache_bytes = world_below(world, 3) == 0 ? 0 : world_between(world, 500, 100000);
    static const char *const lanes[] = {"", "", "/lane1", "/lane1, /lane2"};
    snprintf(config->lane_directories, sizeof config->lane_directories, "%s",
             lanes[world->options.seed % COUNT_OF(lanes)]); /* the same at every start */
}

static enum err make_mesh(struct world *world, struct gateway *gateway)
{
    struct mesh_options options = {.shards = gateway->shard_count, .lanes = gateway->lane_count};
    bool single = world_below(world, 2) == 0;
    for (int class = 0; class < MESH_CLASS_COUNT; class ++) {
        options.ring_bytes[class] = RING_BYTES;
        options.messages_max[class] = single ? 1 : 0;
    }
    if (single) /* one answer, and the checkpoint's standing promise */
        options.messages_max[MESH_LOG_ANSWER] = 2;
    return mesh_create(&gateway->mesh, gateway->group, &options);
}

static enum err make_workers(struct world *world, struct gateway *gateway)
{
    struct worker_options options = {.shards = gateway->shard_count};
    bool few = world_below(world, 4) == 0;
    for (int class = 0; class < WORKER_CLASS_COUNT; class ++) {
        options.threads[class] = 1;
        options.queue_max[class] = few ? 2 : 100;
    }
    options.batch[WORKER_CATALOG_WRITE] = catalog_write_batch;
    options.batch_context[WORKER_CATALOG_WRITE] = gateway->catalog;
    return workers_create(&gateway->workers, gateway->group, &options);
}

static enum err make_shared(struct story *story, struct gateway *gateway)
{
    uint8_t json[1024];
    struct buffer text = buffer_of(json, sizeof json);
    struct jwks *jwks = NULL;
    const char *explanation = "";
    jwt_signer_init(&gateway->signer, story->store_secret);
    TRY(jwks_encode(&text, &story->operator, KEY_ID));
    TRY(jwks_create(&jwks, buffer_bytes(&text), ISSUER, AUDIENCE, &explanation));
    tls_context_retain(story->server_tls);
    atomic_store(&gateway->tls, story->server_tls);
    atomic_store(&gateway->jwks, jwks);
    atomic_store(&gateway->generation, 1);
    TRY(file_make_directory("/data"));
    TRY(catalog_open(&gateway->catalog, "/data/catalog", gateway->config->catalog_map_bytes,
                     &explanation));
    TRY(io_group_create(&gateway->group, gateway->shard_count));
    gateway->lane_count = lanes_count(gateway->config->lane_directories);
    gateway->metrics_count = gateway->shard_count + gateway->lane_count - 1;
    for (uint32_t i = 0; i < gateway->metrics_count; i++)
        TRY(metrics_create(&gateway->metrics[i]));
    TRY(addresses_init(&gateway->addresses, gateway->config->max_connections, &gateway->placement));
    TRY(make_mesh(story->run->world, gateway));
    return make_workers(story->run->world, gateway);
}

/* A turn of a shard; on some, one of its next allocations fails. */
static size_t shard_actor_turn(void *self)
{
    struct world *world = world_current;
    if (world_chance(world, world->options.faults.memory))
        memory_fail_at(world_between(world, 1, TAKES_MAX));
    size_t work = shard_turn(self, 0);
    memory_fail_at(0);
    return work;
}

static uint64_t shard_actor_next(void *self)
{
    return shard_next_ns(self);
}

static void start_shards(struct story *story)
{
    struct process *process = story->process;
    char explanation[512];
    for (uint32_t i = 0; i < process->gateway.shard_count; i++) {
        const struct shard_options options = {&process->gateway, i, -1};
        enum err err = shard_create(&process->shards[i], &options, explanation, sizeof explanation);
        if (err == OK)
            err = shard_listen(process->shards[i], explanation, sizeof explanation);
        if (err != OK) {
            run_fail(story->run, "shard %u does not start: %s", i, explanation);
            return;
        }
        run_add(story->run, (struct actor){.name = "shard",
                                           .self = process->shards[i],
                                           .turn = shard_actor_turn,
                                           .next_ns = shard_actor_next});
    }
    atomic_store(&process->gateway.phase, GATEWAY_SERVING);
}

static void start(struct story *story)
{
    struct world *world = story->run->world;
    struct process *process = calloc(1, sizeof *process);
    struct gateway *gateway = &process->gateway;
    story->process = process;
    configure(world, &process->config);
    gateway->config = &process->config;
    gateway->shard_count = (uint32_t)world_between(world, 1, SHARDS);
    gateway->placement = (struct hash_key){1, 2};
    memcpy(gateway->store_epoch, "sixteen bytes id", 16);
    gateway->address = address_of(1, PORT);
    gateway->admin_address = address_of(1, PORT + 1);
    gateway->server = "roost sim"; /* of no commit: every commit repeats a seed */
    gateway->api = no_api;
    struct world_faults faults = world->options.faults;
    world->options.faults.disk_error = 0; /* an operator starts on a disk that works */
    world->options.faults.disk_read_error = 0;
    world->options.faults.catalog_error = 0;
    world->options.faults.catalog_full = 0;
    enum err err = make_shared(story, gateway);
    if (err != OK)
        run_fail(story->run, "the gateway does not start: %s", err_name(err));
    else
        start_shards(story);
    world->options.faults = faults;
    bool again = !story->run->calm && world_below(world, 2) == 0;
    story->drain_ns = again ? world->now_ns + world_below(world, 1200 * NS_PER_MS) : UINT64_MAX;
}

enum ending { ENDING_ORDERLY, ENDING_KILLED, ENDING_POWER_CUT };

static void stop(struct story *story, enum ending ending)
{
    struct process *process = story->process;
    struct gateway *gateway = &process->gateway;
    if (ending != ENDING_ORDERLY)
        world_kill(story->run->world, gateway->group, ending == ENDING_POWER_CUT);
    for (uint32_t i = 0; i < gateway->shard_count; i++) {
        if (process->shards[i] == NULL)
            continue;
        run_remove(story->run, process->shards[i]);
        if (ending == ENDING_ORDERLY)
            shard_destroy(process->shards[i]);
        else
            shard_abandon(process->shards[i]);
    }
    if (ending == ENDING_ORDERLY)
        world_kill(story->run->world, gateway->group, false);
    story->draining = false;
    workers_destroy(gateway->workers);
    mesh_destroy(gateway->mesh);
    addresses_deinit(&gateway->addresses);
    for (uint32_t i = 0; i < gateway->metrics_count; i++)
        metrics_destroy(gateway->metrics[i]);
    catalog_close(gateway->catalog);
    io_group_destroy(gateway->group);
    tls_context_release(story->server_tls);
    jwks_release(atomic_load(&gateway->jwks));
    free(process);
    story->process = NULL;
    world_restart(story->run->world);
}

/* ---- the users */

static size_t fleet_actor_turn(void *self)
{
    fleet_turn(self, 0);
    return 0;
}

static uint64_t fleet_actor_next(void *self)
{
    return fleet_next_ns(self);
}

static void start_clients(struct story *story)
{
    struct world *world = story->run->world;
    struct clients *clients = &story->clients;
    enum err err = io_group_create(&clients->group, FLEETS);
    CHECK(err == OK);
    for (uint32_t i = 0; i < FLEETS; i++) {
        const struct io_options io_options = {.index = i,
                                              .count = FLEETS,
                                              .connections_max = USERS * DEVICES * 2,
                                              .buffers_count = 32,
                                              .buffer_bytes = 4096,
                                              .files_max = 1,
                                              .cpu = -1};
        bool large = world_below(world, 8) == 0;
        const struct fleet_options options = {
            .user = {.tls_context = story->client_tls,
                     .server_name = "localhost",
                     .encoding = world_below(world, 4) == 0 ? ENCODING_JSON : ENCODING_PROTO,
                     .signer = &story->operator,
                     .key_id = KEY_ID,
                     .issuer = ISSUER,
                     .audience = AUDIENCE,
                     .name_prefix = "user-",
                     .token_lifetime_ms = 24 * 3600 * 1000,
                     .ack_messages = (uint32_t)world_between(world, 1, 8),
                     .ack_delay_ms = 100,
                     .handshake_ms = 8000,
                     .backoff_ms_min = 100,
                     .backoff_ms_max = 2000,
                     .message_bytes_max = BIG_MESSAGE_BYTES,
                     .repeat_ms = (uint32_t)world_between(world, 300, 5000),
                     .tight_settings = forgets(world->options.seed),
                     .expiring = expires(world->options.seed),
                     .ask_history = true,
                     .response_bytes_max = 256 * 1024,
                     .seed = world_random(world)},
            .target = address_of(1, PORT),
            .first_user = i * USERS,
            .users = USERS,
            .devices = clients->devices[i] = (uint32_t)world_between(world, 1, DEVICES),
            .contacts = 2,
            .handshakes_max = USERS * DEVICES,
            .messages_per_s = large ? 2 : (double)world_between(world, 5, 60),
            .message_bytes = large ? BIG_MESSAGE_BYTES : MESSAGE_BYTES,
            .settings_every = 10,
            .reconnect_every_ms = (uint32_t)world_between(world, 500, 4000),
            .reconnect_percent = 20,
        };
        err = io_create(&clients->io[i], clients->group, &io_options);
        CHECK(err == OK);
        err = fleet_create(&clients->fleet[i], clients->io[i], &options);
        CHECK(err == OK);
        run_add(story->run, (struct actor){.name = "fleet",
                                           .self = clients->fleet[i],
                                           .turn = fleet_actor_turn,
                                           .next_ns = fleet_actor_next});
    }
}

static void set_phase(struct story *story, enum fleet_phase phase)
{
    story->clients.phase = phase;
    for (uint32_t i = 0; i < FLEETS; i++)
        fleet_set_phase(story->clients.fleet[i], phase);
}

static bool all_settled(struct story *story)
{
    for (uint32_t i = 0; i < FLEETS; i++)
        if (atomic_load(&fleet_progress(story->clients.fleet[i])->settled) == 0)
            return false;
    return true;
}

/* Every device has been ready once: a new one would rightly begin where the user's others are. */
static bool all_known(struct story *story)
{
    for (uint32_t i = 0; i < FLEETS; i++)
        if (atomic_load(&fleet_progress(story->clients.fleet[i])->established) <
            USERS * story->clients.devices[i])
            return false;
    return true;
}

/* ---- a slow disk */

static uint32_t lane_count(uint64_t seed)
{
    static const uint32_t counts[] = {1, 1, 2, 3}; /* configure's */
    return counts[seed % COUNT_OF(counts)];
}

static void slow_down(struct story *story)
{
    static const char *const directories[] = {"/data/log", "/lane1", "/lane2"};
    struct world *world = story->run->world;
    uint64_t seed = world->options.seed;
    story->slow_lane = NO_LANE;
    if (lane_count(seed) == 1 || seed / 4 % 2 != 0)
        return;
    story->slow_lane = (uint32_t)(seed / 8 % lane_count(seed));
    disk_set_slow(world->disk, directories[story->slow_lane], SLOW_NS);
}

/* A slow disk holds up its own lane only: what was appended to others is durable soon, and no send
 * stays in a ring, where others are behind it. */
static void check_others(struct story *story)
{
    const struct gateway *gateway = &story->process->gateway;
    uint64_t now_ms = world_wall_ms(story->run->world);
    for (uint32_t i = 0; i < gateway->shard_count; i++) {
        const struct shard *shard = story->process->shards[i];
        for (uint32_t lane = 0; lane < gateway->lane_count; lane++) {
            const struct cached *oldest = shard->appends[lane].oldest;
            if (lane != story->slow_lane && oldest != NULL &&
                now_ms - oldest->time_ms > WAIT_MS_MAX)
                run_fail(story->run, "lane %u: an append waits for another lane's disk", lane);
        }
        for (uint32_t source = 0; source < gateway->shard_count; source++) {
            struct bytes message = mesh_peek(gateway->mesh, i, source, MESH_REQUEST);
            const struct border_send *send = (const void *)message.data;
            if (message.size != 0 && send->border.kind == BORDER_SEND &&
                story->run->world->now_ns - send->arrived_ns > WAIT_MS_MAX * NS_PER_MS)
                run_fail(story->run, "shard %u: a send waits for a slow disk in its ring", i);
        }
    }
}

/* ---- what retention is in force */

/* kept: the retention of a conversation as its shard knows it, or, if that has forgotten it, as the
 * catalog does. */
static struct keep kept(const struct story *story, struct conversation_id id)
{
    static struct conversation_row row;
    struct gateway *gateway = &story->process->gateway;
    const struct shard *shard = story->process->shards[shard_of_conversation(gateway, id)];
    const struct conversation *resident =
        table_get(&shard->conversations, (struct table_key){id.hi, id.lo});
    const struct keep *keep = resident == NULL ? NULL : conversation_keep(resident);
    if (resident != NULL && resident->state == CONVERSATION_WARM)
        return keep == NULL ? (struct keep){0} : *keep;
    struct catalog_txn *txn;
    enum err err = catalog_begin(gateway->catalog, &txn, false);
    CHECK(err == OK);
    err = rows_read_conversation(txn, id, &row);
    CHECK(err == OK || err == ERR_NOT_FOUND);
    catalog_abort(txn);
    return row.keep;
}

/* all_counted: what stood there before a bound; at the latest by the next start. */
static bool all_counted(const struct story *story)
{
    struct conversation_id id;
    struct retention_setting setting;
    uint64_t seq;
    for (uint32_t i = 0; i < FLEETS; i++) {
        size_t at = 0;
        while (oracle_setting_next(fleet_oracle(story->clients.fleet[i]), &at, &id, &seq, &setting))
            if (kept(story, id).uncounted)
                return false;
    }
    return true;
}

/* ---- who directs */

/* A gateway whose disk or catalog failed stays read-only until an operator starts it again. */
static bool needs_restart(const struct story *story)
{
    const struct gateway *gateway = &story->process->gateway;
    if (gateway_log_state(gateway) == LOG_FAILED)
        return true;
    return story->run->calm && !story->restarted_calm;
}

static void drain(struct story *story)
{
    story->drain_ns = UINT64_MAX;
    story->draining = true;
    atomic_store(&story->process->gateway.phase, GATEWAY_DRAINING);
}

static bool all_stopped(const struct story *story)
{
    for (uint32_t i = 0; i < story->process->gateway.shard_count; i++)
        if (!shard_stopped(story->process->shards[i]))
            return false;
    return true;
}

/* set_clock: once, in the middle: forward by less and by more than an hour, or back. */
static void set_clock(struct story *story)
{
    static const int64_t minutes[] = {50, 0, 180, -40};
    struct world *world = story->run->world;
    uint64_t seed = world->options.seed;
    if (story->clock_set || !forgets(seed) || story->slow_lane != NO_LANE ||
        story->clients.phase != FLEET_CHAT || world->now_ns < story->chat_ns + CHAT_NS / 2)
        return;
    story->clock_set = true;
    world_step_wall(world, minutes[seed % COUNT_OF(minutes)] * 60 * 1000);
}

static size_t direct(void *self)
{
    struct story *story = self;
    uint64_t now_ns = story->run->world->now_ns;
    if (story->clients.phase == FLEET_CONNECT && all_known(story)) {
        story->chat_ns = now_ns;
        set_phase(story, FLEET_CHAT);
    }
    if (story->run->calm)
        disk_set_slow(story->run->world->disk, "/", 0);
    else if (story->slow_lane != NO_LANE)
        check_others(story);
    set_clock(story);
    if (needs_restart(story)) {
        story->restarted_calm = story->run->calm;
        stop(story, ENDING_KILLED);
        start(story);
        return 1;
    }
    if (now_ns >= story->drain_ns)
        drain(story);
    if (story->draining && all_stopped(story)) {
        stop(story, ENDING_ORDERLY);
        start(story);
        return 1;
    }
    if (story->clients.phase == FLEET_CHAT && story->run->calm &&
        now_ns >= story->chat_ns + CHAT_NS)
        set_phase(story, FLEET_DRAIN);
    if (story->clients.phase == FLEET_DRAIN && all_settled(story) && all_counted(story))
        set_phase(story, FLEET_STOP);
    return 0;
}

static uint64_t direct_next(void *self)
{
    const struct story *story = self;
    uint64_t next_ns = story->run->world->now_ns + 100 * NS_PER_MS;
    return story->drain_ns < next_ns ? story->drain_ns : next_ns;
}

static void options(struct world_options *options)
{
    uint64_t chance = options->seed % 5;
    options->disk_direct = options->seed % 2 == 0;
    if (chance == 0)
        options->faults.disk_error = 2000;
    if (chance == 1 || chance == 3)
        options->faults.catalog_full = 100000;
    if (chance == 1)
        options->faults.disk_read_error = 20000;
    if (options->seed % 6 == 2)
        options->faults.memory = 20000;
    options->faults.disk_ns_max /= 4;
    if (options->seed % 7 == 3)
        options->faults.move_full = options->seed % 2 == 0 ? 900000 : 1000000;
}

static void set_up(struct run *run)
{
    struct story *story = calloc(1, sizeof *story);
    uint8_t secret[JWT_KEY_BYTES];
    const char *explanation;
    const struct tls_server_options tls = {.certificate_path = "", .key_path = ""};
    run->state = story;
    story->run = run;
    world_entropy(run->world, secret, sizeof secret);
    world_entropy(run->world, story->store_secret, sizeof story->store_secret);
    jwt_signer_init(&story->operator, secret);
    enum err err = tls_context_create_server(&story->server_tls, &tls, &explanation);
    CHECK(err == OK);
    err = tls_context_create_client(&story->client_tls, NULL, &explanation);
    CHECK(err == OK);
    slow_down(story);
    start(story);
    start_clients(story);
    set_phase(story, FLEET_CONNECT);
    run_add(run, (struct actor){
                     .name = "director", .self = story, .turn = direct, .next_ns = direct_next});
}

static void crash(struct run *run)
{
    struct story *story = run->state;
    uint64_t how = world_below(run->world, 3);
    if (how == 0 && !story->draining) {
        drain(story);
        return;
    }
    stop(story, how == 1 ? ENDING_POWER_CUT : ENDING_KILLED);
    start(story);
}

/* What is not done, for whoever has to find out why. */
static void explain(const struct story *story)
{
    for (uint32_t i = 0; i < FLEETS; i++) {
        struct fleet_progress *p = fleet_progress(story->clients.fleet[i]);
        fprintf(stderr,
                "  fleet %u: phase %d ready %lu open %lu sent %lu acked %lu delivered %lu refused "
                "%lu retried %lu errors %lu settled %lu; %s\n",
                i, (int)story->clients.phase, p->ready, p->open, p->sent, p->acked, p->delivered,
                p->refused, p->retried, p->errors, p->settled,
                oracle_fault(fleet_oracle(story->clients.fleet[i])));
        struct oracle_debt debts[8];
        size_t count = oracle_owed(fleet_oracle(story->clients.fleet[i]), debts, COUNT_OF(debts));
        for (size_t j = 0; j < count; j++)
            fprintf(stderr, "  fleet %u: owed: %016lx%016lx number %lu to %016lx/%u known %d\n", i,
                    debts[j].conversation.hi, debts[j].conversation.lo, debts[j].seq,
                    debts[j].peer.user.v, debts[j].peer.device, debts[j].known);
        fprintf(stderr, "  fleet %u: first failure: %s\n", i,
                fleet_failure(story->clients.fleet[i]));
    }
    const struct gateway *gateway = &story->process->gateway;
    static const enum metric told[] = {METRIC_MESSAGES_ACCEPTED,
                                       METRIC_MESSAGES_ACKED,
                                       METRIC_MESSAGES_DUPLICATE,
                                       METRIC_MESSAGES_REFUSED,
                                       METRIC_MESSAGES_DELIVERED,
                                       METRIC_LAGGING,
                                       METRIC_SYNCED,
                                       METRIC_PROTOCOL_ERRORS,
                                       METRIC_MESH_FULL,
                                       METRIC_PARKED_FULL};
    for (size_t i = 0; i < COUNT_OF(told); i++)
        fprintf(stderr, "  metric %zu: %ld\n", i,
                (long)metrics_sum(gateway->metrics, gateway->metrics_count, told[i]));
    for (uint32_t i = 0; i < gateway->shard_count; i++) {
        const struct shard *shard = story->process->shards[i];
        fprintf(stderr,
                "  shard %u: log %d connections %u sessions %u parked %u in flight %d stalled %d "
                "pulls %d slices %d watermarks %d checkpoint %lu jobs %u err %s\n",
                i, (int)shard->log_state, pool_used(&shard->connections),
                pool_used(&shard->sessions), shard->places.used, shard->appends[0].oldest != NULL,
                shard->stalled != NULL, shard->pulls != NULL, shard->dirty_slices != NULL,
                shard->dirty_watermarks != NULL, shard->checkpoint_round, shard->checkpoint_jobs,
                err_name(shard->checkpoint_err));
    }
}

static bool done(struct run *run)
{
    struct story *story = run->state;
    if (story->clients.phase != FLEET_STOP)
        return false;
    for (uint32_t i = 0; i < FLEETS; i++)
        if (!fleet_stopped(story->clients.fleet[i]))
            return false;
    return true;
}

/* check_settings: the newest retention that anybody was told of is in force, whatever crashed. */
static void check_settings(struct run *run, const struct oracle *oracle)
{
    struct conversation_id id;
    struct retention_setting setting;
    uint64_t seq;
    size_t at = 0;
    while (oracle_setting_next(oracle, &at, &id, &seq, &setting)) {
        struct keep keep = kept(run->state, id);
        RUN_EXPECT(run, keep.seq == seq && keep.setting.age_s == setting.age_s &&
                            keep.setting.bytes == setting.bytes);
    }
}

static void check(struct run *run)
{
    struct story *story = run->state;
    for (uint32_t i = 0; i < FLEETS; i++) {
        const struct oracle *oracle = fleet_oracle(story->clients.fleet[i]);
        struct oracle_counts counts;
        oracle_result(oracle, &counts);
        if (!oracle_clean(&counts))
            run_fail(run, "fleet %u: %s", i, oracle_fault(oracle));
        RUN_EXPECT(run, counts.acked > 0 && counts.delivered > 0);
        check_settings(run, oracle);
    }
}

static void tear_down(struct run *run)
{
    struct story *story = run->state;
    if (run->failed)
        explain(story);
    if (story->process != NULL)
        stop(story, ENDING_KILLED);
    for (uint32_t i = 0; i < FLEETS; i++) {
        if (story->clients.fleet[i] != NULL)
            fleet_destroy(story->clients.fleet[i]);
        if (story->clients.io[i] != NULL)
            io_destroy(story->clients.io[i]);
    }
    io_group_destroy(story->clients.group);
    tls_context_release(story->server_tls);
    tls_context_release(story->client_tls);
    free(story);
}

const struct scenario scenario_gateway = {
    .name = "gateway",
    .about = "gateway shards and chatting users; crashes, disconnects, full rings",
    .faults_ns = 12 * NS_PER_S,
    .limit_ns = 60 * NS_PER_S,
    .crashes_max = 4,
    .options = options,
    .set_up = set_up,
    .crash = crash,
    .done = done,
    .check = check,
    .tear_down = tear_down,
};
