/* shard.c: one core's turn (shard.h): poll → ingress → mesh → commit → egress → submit (with the
 * next poll). */
#include "gateway/flow/shard.h"

#include "core/logging.h"
#include "gateway/flow/checkpoint.h"
#include "gateway/flow/commit.h"
#include "gateway/flow/egress.h"
#include "gateway/flow/home.h"
#include "gateway/flow/ingress.h"
#include "gateway/flow/lane.h"
#include "gateway/flow/listener.h"
#include "gateway/flow/login.h"
#include "gateway/flow/migrate.h"
#include "gateway/flow/relay.h"
#include "gateway/flow/requests.h"
#include "gateway/flow/revoked.h"
#include "gateway/flow/session.h"

#include <stdio.h>

#define SOON_NS (NS_PER_MS) /* when something waits for room: look again */

uint32_t shard_of_user(const struct gateway *gateway, struct user_id user)
{
    return (uint32_t)(hash_u64(&gateway->placement, user.v) % gateway->shard_count);
}

uint32_t shard_of_conversation(const struct gateway *gateway, struct conversation_id conversation)
{
    return (uint32_t)(hash_u128(&gateway->placement, conversation.hi, conversation.lo) %
                      gateway->shard_count);
}

uint32_t shard_of_lane(const struct gateway *gateway, uint32_t lane)
{
    return lane % gateway->shard_count; /* as mesh.h says */
}

uint32_t shard_lane(const struct gateway *gateway, struct conversation_id conversation)
{
    return mesh_lane(gateway->mesh, lane_of(conversation, gateway->lane_count));
}

enum log_state gateway_log_state(const struct gateway *gateway)
{
    uint32_t worst = LOG_OPEN;
    for (uint32_t i = 0; i < gateway->lane_count; i++) {
        uint32_t state = atomic_load_explicit(&gateway->lanes[i].state, memory_order_relaxed);
        worst = state > worst ? state : worst;
    }
    return (enum log_state)worst;
}

/* expiry_ms: the wall clock, if no lane knows that it is wrong. */
static uint64_t expiry_ms(const struct gateway *gateway, uint64_t now_ns, uint64_t wall_ms)
{
    uint64_t expiry_ms = wall_ms;
    for (uint32_t i = 0; i < gateway->lane_count; i++)
        if (clock_hide_ms(&gateway->lanes[i].clock, now_ns, wall_ms) == 0)
            expiry_ms = 0;
    return expiry_ms;
}

bool shard_over_budget(const struct shard *shard)
{
    if (shard->checkpoint_jobs != 0 || shard->checkpoint_round != 0 ||
        shard->checkpoint_err != OK || shard->flush_kept != NULL || shard->flush_waiting != NULL)
        return false;
    uint64_t budget = shard->gateway->config->state_bytes / shard->gateway->shard_count;
    int64_t cached = (int64_t)shard->cache.bytes;
    int64_t all = memory_bytes(MEMORY_CHAT) - shard->gateway->state_base;
    int64_t used = all / (int64_t)shard->gateway->shard_count - cached;
    return used > (int64_t)budget;
}

/* ---- life */

static enum err make_memory(struct shard *shard)
{
    const struct config *config = shard->gateway->config;
    uint32_t per_shard = config->max_connections / shard->gateway->shard_count;
    /* any shard may have to serve nearly all (relay.h); what is never used costs no memory */
    uint32_t slots = config->max_connections + per_shard / 5 + 1024;
    size_t pulled_bytes = PULL_BYTES + config->message_bytes;
    shard->encoded_bytes = PROTOCOL_EVENT_BYTES(pulled_bytes + LARGE_BYTES, HISTORY_RECORDS_MAX);
    shard->scratch_bytes = PROTOCOL_SCRATCH_BYTES(shard->websocket_limits.message_bytes_max);
    if (shard->scratch_bytes < sizeof(struct conversation_row) + sizeof(struct history_scratch))
        shard->scratch_bytes = sizeof(struct conversation_row) + sizeof(struct history_scratch);
    TRY(pool_init(&shard->connections, sizeof(struct connection), slots));
    TRY(pool_init(&shard->sessions, sizeof(struct session), slots));
    TRY(pool_init(&shard->relays, sizeof(struct relay), slots));
    uint64_t seed;
    io_entropy(shard->io, &seed, sizeof seed);
    table_init(&shard->users, seed);
    table_init(&shard->conversations, ~seed);
    shard->cache.bytes_max = config->cache_bytes / shard->gateway->shard_count;
    shard->events = memory_take(EVENTS_PER_TURN * sizeof *shard->events, MEMORY_CORE);
    shard->plaintext = memory_take(PLAINTEXT_BYTES, MEMORY_CORE);
    shard->scratch = memory_take(shard->scratch_bytes, MEMORY_CORE);
    shard->encoded[0] = memory_take(shard->encoded_bytes, MEMORY_CORE);
    shard->encoded[1] = memory_take(shard->encoded_bytes, MEMORY_CORE);
    shard->requests =
        memory_take(config->requests_per_frame * sizeof *shard->requests, MEMORY_CORE);
    if (shard->events == NULL || shard->plaintext == NULL || shard->scratch == NULL ||
        shard->encoded[0] == NULL || shard->encoded[1] == NULL || shard->requests == NULL)
        return ERR_NO_MEMORY;
    return OK;
}

static enum err make_engines(struct shard *shard)
{
    TRY(tls_engine_create(&shard->tls_engine));
    TRY(websocket_engine_create(&shard->websocket_engine, NULL, NULL));
    struct mesh *mesh = shard->gateway->mesh;
    for (uint32_t i = 0; i < shard->gateway->lane_count; i++)
        TRY(mesh_promise(mesh, shard->index, mesh_lane(mesh, i), MESH_LOG_ANSWER,
                         sizeof(struct border_checkpoint)));
    return OK;
}

/* What main may change while we run. */
static void look_at_generation(struct shard *shard)
{
    struct gateway *gateway = shard->gateway;
    uint32_t generation = atomic_load_explicit(&gateway->generation, memory_order_acquire);
    if (generation == shard->generation)
        return;
    shard->generation = generation;
    if (shard->tls_context != NULL)
        tls_context_release(shard->tls_context);
    shard->tls_context = atomic_load_explicit(&gateway->tls, memory_order_acquire);
    tls_context_retain(shard->tls_context);
    if (shard->jwks != NULL)
        jwks_release(shard->jwks);
    shard->jwks = atomic_load_explicit(&gateway->jwks, memory_order_acquire);
    if (shard->jwks != NULL)
        jwks_retain(shard->jwks);
    atomic_fetch_add_explicit(&gateway->looked, 1, memory_order_release);
}

uint32_t shard_sockets_max(uint32_t connections_max, uint32_t shards)
{
    uint32_t per_shard = connections_max / shards;
    return per_shard + per_shard / 10 + 256;
}

enum err shard_create(struct shard **out, const struct shard_options *options, char *explanation,
                      size_t explanation_size)
{
    struct gateway *gateway = options->gateway;
    const struct config *config = gateway->config;
    struct shard *shard = memory_take_zeroed(sizeof *shard, MEMORY_CORE);
    if (shard == NULL)
        return ERR_NO_MEMORY;
    shard->gateway = gateway;
    if (options->index == 0)
        gateway->state_base = memory_bytes(MEMORY_CHAT);
    shard->index = options->index;
    shard->metrics = gateway->metrics[options->index];
    const struct io_options io_options = {
        .index = options->index,
        .count = gateway->shard_count,
        .connections_max = shard_sockets_max(config->max_connections, gateway->shard_count),
        .buffers_count = RECEIVE_BUFFERS,
        .buffer_bytes = RECEIVE_BUFFER_BYTES,
        .files_max = 256,
        .cpu = config->pin ? options->cpu : -1,
    };
    snprintf(explanation, explanation_size, "out of memory");
    enum err err = io_create(&shard->io, gateway->group, &io_options);
    if (err != OK) {
        snprintf(explanation, explanation_size, "shard %u: io_uring could not be set up (%s): %s",
                 options->index, err_name(err), shard->io != NULL ? io_explain(shard->io) : "");
        memory_give(shard, MEMORY_CORE);
        return err;
    }
    *out = shard;
    log_event(LOG_INFO, "io_uring", LOG_U64("shard", shard->index),
              LOG_TEXT("features", io_features(shard->io)));
    shard->websocket_limits =
        (struct websocket_limits){config->message_bytes, config->fragments, false};
    shard->echo_limits = (struct websocket_limits){16u << 20, 1u << 24, false};
    TRY(make_memory(shard));
    TRY(make_engines(shard));
    shard->now_ns = io_now_ns(shard->io);
    shard->wall_ms = io_wall_ms(shard->io);
    timers_init(&shard->timers, shard->now_ns);
    return lane_create(shard, explanation, explanation_size);
}

static enum err listen_on(struct shard *shard, struct io_listener *listener,
                          struct io_address *bound, const struct io_address *address,
                          uint32_t accepts, uint32_t extra, char *explanation,
                          size_t explanation_size)
{
    struct io_listen_options options = {
        .address = *address,
        .backlog = shard->gateway->config->backlog,
        .accepts = accepts,
        .extra = extra,
        .reuse_port = true,
    };
    enum err err = OK;
    if (shard->index == 0)
        err = io_listen_probe(shard->io, address);
    else
        options.address.port = bound->port;
    struct io_address actual;
    if (err == OK)
        err = io_listen(shard->io, listener, &actual, &options);
    if (err != OK) {
        snprintf(explanation, explanation_size, "%s", io_explain(shard->io));
        return err;
    }
    if (shard->index == 0)
        *bound = actual;
    return OK;
}

enum err shard_listen(struct shard *shard, char *explanation, size_t explanation_size)
{
    struct gateway *gateway = shard->gateway;
    look_at_generation(shard);
    TRY(listen_on(shard, &shard->listener, &gateway->bound_address, &gateway->address,
                  ACCEPTS_ARMED, 0, explanation, explanation_size));
    shard->phase = GATEWAY_SERVING;
    if (shard->index != 0)
        return OK;
    return listen_on(shard, &shard->admin_listener, &gateway->bound_admin_address,
                     &gateway->admin_address, ADMIN_ACCEPTS, ADMIN_EXTRA, explanation,
                     explanation_size);
}

static void free_all(struct shard *shard)
{
    uint32_t at = 0;
    size_t user_at = 0;
    struct connection *connection;
    while ((connection = pool_next(&shard->connections, &at)) != NULL) {
        if (connection->output != NULL)
            connection->output->sending = false;
        connection_release(shard, connection);
    }
    commit_deinit(shard);
    checkpoint_deinit(shard);
    revoked_free_all(shard);
    struct inbox *user;
    while ((user = table_next(&shard->users, &user_at)) != NULL) {
        inbox_deinit(user);
        memory_give(user, MEMORY_CHAT);
    }
    table_deinit(&shard->users);
    table_deinit(&shard->conversations);
    relay_abandon_all(shard);
    pool_deinit(&shard->relays);
    pool_deinit(&shard->connections);
    pool_deinit(&shard->sessions);
    if (shard->tls_context != NULL)
        tls_context_release(shard->tls_context);
    if (shard->jwks != NULL)
        jwks_release(shard->jwks);
    if (shard->websocket_engine != NULL)
        websocket_engine_destroy(shard->websocket_engine);
    if (shard->tls_engine != NULL)
        tls_engine_destroy(shard->tls_engine);
    io_destroy(shard->io);
    memory_give(shard->events, MEMORY_CORE);
    memory_give(shard->plaintext, MEMORY_CORE);
    memory_give(shard->scratch, MEMORY_CORE);
    memory_give(shard->encoded[0], MEMORY_CORE);
    memory_give(shard->encoded[1], MEMORY_CORE);
    memory_give(shard->requests, MEMORY_CORE);
    memory_give(shard, MEMORY_CORE);
}

/* What the layers above the sockets hold. */
static void leave_all(struct shard *shard)
{
    uint32_t at = 0;
    struct connection *connection;
    while ((connection = pool_next(&shard->connections, &at)) != NULL) {
        if (connection->state == CONNECTION_SESSION)
            session_destroy(shard, connection->session);
        else if (connection->state <= CONNECTION_EXCHANGE)
            http_reader_destroy(connection->http);
        else if (connection->state <= CONNECTION_MOVING)
            login_abandon(shard, connection);
        connection->session = NULL;
        connection->state = CONNECTION_DEAD;
    }
}

void shard_destroy(struct shard *shard)
{
    leave_all(shard);
    lane_destroy(shard);
    free_all(shard);
}

void shard_abandon(struct shard *shard)
{
    leave_all(shard);
    lane_abandon(shard);
    free_all(shard);
}

/* ---- the turn */

static void on_event(struct shard *shard, const struct io_event *event)
{
    struct connection *connection = NULL;
    switch (event->kind) {
    case IO_ACCEPTED:
        listener_on_accepted(shard, event);
        return;
    case IO_MOVED_IN:
        migrate_on_moved_in(shard, event);
        return;
    case IO_FILE_DONE:
        CHECK(lane_owns(shard, event->op));
        lane_on_file(shard, event->op);
        return;
    case IO_CONNECTED:
        CHECK(false); /* the gateway connects to nobody */
        return;
    case IO_RECEIVED:
        connection = connection_get(shard, event->owner);
        if (connection != NULL)
            ingress_on_received(shard, connection, event);
        if (event->err == OK)
            io_release(shard->io, event->buffer);
        return;
    case IO_SENT:
    case IO_CLOSED:
    case IO_MOVED_OUT:
    case IO_MOVE_FAILED:
        break;
    }
    connection = connection_get(shard, event->owner);
    if (connection == NULL)
        return; /* a connection that was refused at accept */
    if (event->kind == IO_SENT)
        egress_on_sent(shard, connection, event->err);
    else if (event->kind == IO_CLOSED)
        connection_on_closed(shard, connection);
    else if (event->kind == IO_MOVED_OUT)
        migrate_on_moved_out(shard, connection);
    else
        migrate_on_failed(shard, connection, event);
}

static void on_timers(struct shard *shard)
{
    struct timer *timer;
    timers_advance(&shard->timers, shard->now_ns);
    while ((timer = timers_pop(&shard->timers)) != NULL)
        ingress_on_timer(shard, CONTAINER_OF(timer, struct connection, timer));
}

static bool on_jobs(struct shard *shard)
{
    struct worker_job *job;
    bool any = false;
    while ((job = worker_completed(shard->gateway->workers, shard->index)) != NULL) {
        job->done(job, shard);
        any = true;
    }
    return any;
}

/* An answer: its room is free again. */
static void on_answer(struct shard *shard, uint32_t source, enum mesh_class class,
                      struct bytes message)
{
    const struct border *border = (const void *)message.data;
    size_t promised = 0;
    switch (border->kind) {
    case BORDER_RESULT:
        promised = sizeof(struct border_result);
        request_on_result(shard, message);
        break;
    case BORDER_PULLED:
        promised = ((const struct border_pulled *)(const void *)message.data)->promised;
        session_on_pulled(shard, message);
        break;
    case BORDER_APPENDED:
        promised = sizeof(struct border_appended);
        commit_on_appended(shard, message);
        break;
    case BORDER_FOUND:
        promised = sizeof(struct border_found);
        commit_on_found(shard, message);
        break;
    case BORDER_COUNTED:
        promised = sizeof(struct border_count);
        counting_on_counted(shard, message);
        break;
    case BORDER_RELAY_OPENED:
        promised = sizeof(struct border_relay_opened);
        relay_on_opened(shard, message);
        break;
    case BORDER_CHECKPOINT:
        checkpoint_on_message(shard, message);
        mesh_pop(shard->gateway->mesh, shard->index, source, class);
        return; /* its promise stands */
    default:
        CHECK(false);
    }
    mesh_pop(shard->gateway->mesh, shard->index, source, class);
    mesh_unpromise(shard->gateway->mesh, shard->index, source, class, promised);
}

/* ERR_FULL: it waits for the lane, and stays in its ring. */
static enum err on_request(struct shard *shard, struct bytes message)
{
    const struct border *border = (const void *)message.data;
    if (border->kind >= BORDER_RELAY_OPEN && border->kind <= BORDER_RELAY_GONE) {
        relay_on_message(shard, message);
        return OK;
    }
    return commit_on_request(shard, message);
}

/* ERR_FULL: a watermark that waits for the lane; it stays in its ring. */
static enum err on_fanout(struct shard *shard, struct bytes message)
{
    const struct border *border = (const void *)message.data;
    switch (border->kind) {
    case BORDER_DELIVER:
        return home_on_deliver(shard, message);
    case BORDER_MOVED:
        return home_on_moved(shard, message);
    case BORDER_RECEIPT:
        home_on_receipt(shard, message);
        return OK;
    case BORDER_WATERMARK:
        return commit_on_watermark(shard, message);
    case BORDER_REVOKE:
        home_on_revoke(shard, message);
        return OK;
    case BORDER_CHECKPOINTED:
        checkpointer_on_flushed(shard, message);
        return OK;
    default:
        CHECK(false);
        return OK;
    }
}

static bool drain_answers(struct shard *shard, uint32_t source, enum mesh_class class)
{
    struct bytes message;
    bool any = false;
    while ((message = mesh_peek(shard->gateway->mesh, shard->index, source, class)).size != 0) {
        on_answer(shard, source, class, message);
        any = true;
    }
    return any;
}

/* All rings that end here. Answers always; requests until one of them finds no room further on. */
static bool mesh_phase(struct shard *shard)
{
    struct mesh *mesh = shard->gateway->mesh;
    bool any = false;
    for (uint32_t i = 0; i < shard->gateway->lane_count; i++)
        any |= drain_answers(shard, mesh_lane(mesh, i), MESH_LOG_ANSWER);
    any |= lane_on_messages(shard);
    for (uint32_t source = 0; source < shard->gateway->shard_count; source++) {
        struct bytes message;
        any |= drain_answers(shard, source, MESH_ANSWER);
        while ((message = mesh_peek(mesh, shard->index, source, MESH_REQUEST)).size != 0) {
            if (on_request(shard, message) != OK)
                break;
            mesh_pop(mesh, shard->index, source, MESH_REQUEST);
            any = true;
        }
        while ((message = mesh_peek(mesh, shard->index, source, MESH_FANOUT)).size != 0) {
            if (on_fanout(shard, message) != OK)
                break;
            mesh_pop(mesh, shard->index, source, MESH_FANOUT);
            any = true;
        }
    }
    return any;
}

/* ---- the end: goodbyes, then what is in flight, then the last checkpoint */

static void say_goodbyes(struct shard *shard)
{
    uint32_t at = 0;
    struct connection *connection;
    uint32_t spread_ms = 1000 + pool_used(&shard->connections) / 4; /* 4,000 reconnects a second */
    io_listen_close(shard->io, shard->listener);
    if (shard->index == 0)
        io_listen_close(shard->io, shard->admin_listener);
    while ((connection = pool_next(&shard->connections, &at)) != NULL) {
        uint32_t slot;
        io_entropy(shard->io, &slot, sizeof slot);
        if (connection->state == CONNECTION_ECHO) {
            egress_close_frame(shard, connection, 1001, "shutting down");
            connection_close(shard, connection);
        } else if (connection->state != CONNECTION_EXCHANGE && !migrate_on_its_way(connection) &&
                   connection->state != CONNECTION_RELAYED) { /* who has its session says it */
            ingress_fail(shard, connection, CODE_SHUTTING_DOWN, 500 + slot % spread_ms,
                         "the gateway is restarting");
        }
    }
}

/* Every job has come back: who is told by it must still be there. */
static bool jobs_done(const struct shard *shard)
{
    return worker_pending(shard->gateway->workers, shard->index) == lane_jobs(shard);
}

static bool quiet(const struct shard *shard)
{
    for (uint32_t i = 0; i < shard->gateway->lane_count; i++)
        if (shard->appends[i].oldest != NULL || shard->appends[i].answers_void != 0)
            return false;
    return jobs_done(shard) && shard->revocations == NULL && pool_used(&shard->relays) == 0 &&
           lane_idle(shard);
}

static void drain(struct shard *shard)
{
    struct gateway *gateway = shard->gateway;
    enum gateway_phase phase = atomic_load_explicit(&gateway->phase, memory_order_acquire);
    if (phase >= GATEWAY_DRAINING && !shard->goodbyes_said && shard->phase == GATEWAY_SERVING) {
        shard->goodbyes_said = true;
        shard->phase = GATEWAY_DRAINING;
        shard->drain_due_ns = shard->now_ns + gateway->config->drain_ms * NS_PER_MS;
        say_goodbyes(shard);
    }
    if (shard->phase == GATEWAY_DRAINING && !shard->drained) {
        uint32_t at = 0;
        struct connection *connection;
        if (shard->now_ns >= shard->drain_due_ns)
            while ((connection = pool_next(&shard->connections, &at)) != NULL)
                connection_abort(shard, connection);
        if (pool_used(&shard->connections) != 0 || !quiet(shard))
            return;
        shard->drained = true;
        atomic_fetch_add_explicit(&gateway->drained, 1, memory_order_acq_rel);
    }
    if (shard->phase == GATEWAY_DRAINING && shard->drained &&
        atomic_load_explicit(&gateway->drained, memory_order_acquire) == gateway->shard_count)
        shard->phase = GATEWAY_FINISHING;
    if (shard->phase != GATEWAY_FINISHING)
        return;
    if (shard->index == 0 && checkpointer_finished(lane_checkpointer(shard)))
        atomic_store_explicit(&gateway->phase, GATEWAY_STOPPED, memory_order_release);
    if (atomic_load_explicit(&gateway->phase, memory_order_acquire) == GATEWAY_STOPPED &&
        jobs_done(shard))
        shard->phase = GATEWAY_STOPPED;
}

bool shard_stopped(const struct shard *shard)
{
    return shard->phase == GATEWAY_STOPPED;
}

static bool waits_for_room(const struct shard *shard)
{
    return shard->stalled != NULL || shard->pulls != NULL || shard->retry != NULL ||
           shard->dirty_slices != NULL || shard->dirty_watermarks != NULL ||
           shard->revocations != NULL || shard->relays_waiting != NULL || shard->counting.waits ||
           shard->checkpoint_round != 0 || shard->phase == GATEWAY_DRAINING ||
           shard->phase == GATEWAY_FINISHING;
}

uint64_t shard_next_ns(const struct shard *shard)
{
    uint64_t next_ns = timers_next_ns(&shard->timers);
    uint64_t tick_ns = shard->now_ns + NS_PER_S / 4; /* checkpoints, generations, drain */
    if (tick_ns < next_ns)
        next_ns = tick_ns;
    if (waits_for_room(shard) && shard->now_ns + SOON_NS < next_ns)
        next_ns = shard->now_ns + SOON_NS;
    uint64_t lane_ns = lane_next_ns(shard);
    return lane_ns < next_ns ? lane_ns : next_ns;
}

static size_t poll(struct shard *shard, uint64_t deadline_ns)
{
    struct mesh *mesh = shard->gateway->mesh;
    uint64_t until_ns = shard_next_ns(shard);
    if (deadline_ns < until_ns)
        until_ns = deadline_ns;
    if (shard->work != NULL || !mesh_sleep(mesh, shard->index))
        until_ns = 0;
    size_t count = io_poll(shard->io, shard->events, EVENTS_PER_TURN, until_ns);
    mesh_awake(mesh, shard->index);
    shard->now_ns = io_now_ns(shard->io);
    shard->wall_ms = io_wall_ms(shard->io);
    shard->expiry_ms = expiry_ms(shard->gateway, shard->now_ns, shard->wall_ms);
    return count;
}

bool shard_turn(struct shard *shard, uint64_t deadline_ns)
{
    size_t count = poll(shard, deadline_ns);
    look_at_generation(shard);
    if (shard->tls_context != NULL)
        tls_context_set_period(shard->tls_context, shard->wall_ms / 21600000);
    shard->log_state = gateway_log_state(shard->gateway);
    for (size_t i = 0; i < count; i++)
        on_event(shard, &shard->events[i]);
    on_timers(shard);
    bool any = on_jobs(shard);
    ingress_retry_stalled(shard);
    session_retry_pulls(shard);
    any |= mesh_phase(shard);
    counting_turn(shard);
    commit_flush(shard);
    home_flush_watermarks(shard);
    revocation_flush(shard);
    lane_turn(shard);
    checkpoint_turn(shard);
    drain(shard);
    egress_flush(shard);
    relay_flush(shard);
    mesh_flush(shard->gateway->mesh, shard->index);
    home_evict(shard);
    commit_evict(shard);
    return any || count != 0;
}
