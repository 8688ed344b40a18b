/* fleet.c: see fleet.h.
 *
 * A turn: io_poll fills events; on_io hands each to its device (received bytes go through
 * user_receive at once, what they cause to be sent is only marked); then expired timers, new
 * connections, the chat schedule; last, every marked device is flushed into a send buffer. A device
 * has at most two buffers from the pool: one in flight, one gathering.
 *
 * Contacts: user i chats with i ^ 1, i ^ 2 … i ^ contacts, where those exist: a relation that is
 * its own inverse, so that every pair is a pair from both ends. */
#include "loadgen/fleet.h"

#include "core/memory.h"
#include "core/timer.h"

#include <stdio.h>

#define EVENTS_PER_TURN   256
#define CONNECTS_BURST    64  /* new connections per turn */
#define SENDS_BURST       512 /* scheduled messages per turn */
#define STOPS_BURST       256
#define TIMERS_BURST      1024
#define CHUNK_BYTES_MIN   8192
#define FAILURE_BYTES     256
#define PICKS_MAX         8 /* tries to find a random pair that exists */
#define STORM_BATCH_PARTS 100

struct chunk {
    struct chunk *next;
    struct buffer buffer;
};

struct device {
    struct user user;
    struct timer timer;
    struct io_conn conn;
    struct chunk *sending;
    struct chunk *pending;
    struct device *next_dirty;
    uint64_t connect_ns; /* when the first connect began; 0 after the first ready */
    bool connected;      /* TCP is up */
    bool closing;        /* io_close was called */
    bool on_purpose;     /* by us */
    bool leaving;        /* close once what is in flight is sent */
    bool dirty;
    bool established;
};

struct fleet {
    struct fleet_options options;
    struct io *io;
    struct user_engine *engine;
    struct oracle *oracle;
    struct device *devices;
    uint32_t device_count;
    uint32_t next_connect; /* devices below it have begun */
    uint32_t next_stop;
    uint32_t handshakes;
    uint32_t source_at;
    uint32_t open;
    uint32_t ready;
    struct device *dirty;
    struct chunk *spare;
    size_t chunk_bytes;
    uint64_t now_ns;
    uint64_t phase_ns;  /* when the phase began */
    uint64_t scheduled; /* of this phase: connects or messages begun by schedule */
    uint64_t storm_ns;  /* next */
    enum fleet_phase phase;
    _Atomic int phase_wanted;
    bool stopped;
    struct timers timers;
    struct fleet_progress progress;
    struct fleet_latency latency;
    struct io_event events[EVENTS_PER_TURN];
    char tls_version[16];
    char failure[FAILURE_BYTES];
};

static void count(_Atomic uint64_t *counter)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + 1,
                          memory_order_relaxed);
}

static void publish(_Atomic uint64_t *gauge, uint64_t value)
{
    atomic_store_explicit(gauge, value, memory_order_relaxed);
}

/* ---- life */

enum err fleet_create(struct fleet **out, struct io *io, const struct fleet_options *options)
{
    CHECK(options->users % 2 == 0 && options->devices >= 1 && options->contacts >= 1);
    struct fleet *fleet = memory_take_zeroed(sizeof *fleet, MEMORY_CONNECTION);
    if (fleet == NULL)
        return ERR_NO_MEMORY;
    fleet->options = *options;
    fleet->io = io;
    fleet->device_count = options->users * options->devices;
    size_t chunk = 2 * (options->message_bytes + USER_OUTPUT_OVERHEAD) + USER_HELLO_BYTES;
    fleet->chunk_bytes = chunk < CHUNK_BYTES_MIN ? CHUNK_BYTES_MIN : chunk;
    fleet->devices =
        memory_take_zeroed(fleet->device_count * sizeof *fleet->devices, MEMORY_CONNECTION);
    if (fleet->devices == NULL || user_engine_create(&fleet->engine, &fleet->options.user) != OK ||
        oracle_create(&fleet->oracle, 0) != OK) {
        fleet_destroy(fleet);
        return ERR_NO_MEMORY;
    }
    if (options->user.tight_settings)
        oracle_tight(fleet->oracle);
    if (options->user.expiring)
        oracle_expires(fleet->oracle);
    for (uint32_t i = 0; i < fleet->device_count; i++)
        user_init(&fleet->devices[i].user, options->first_user + i / options->devices,
                  i % options->devices);
    fleet->now_ns = io_now_ns(io);
    timers_init(&fleet->timers, fleet->now_ns);
    *out = fleet;
    return OK;
}

static void chunk_give(struct fleet *fleet, struct chunk *chunk)
{
    if (chunk == NULL)
        return;
    chunk->next = fleet->spare;
    fleet->spare = chunk;
}

void fleet_destroy(struct fleet *fleet)
{
    if (fleet == NULL)
        return;
    for (uint32_t i = 0; fleet->engine != NULL && i < fleet->device_count; i++) {
        user_deinit(&fleet->devices[i].user, fleet->engine);
        chunk_give(fleet, fleet->devices[i].sending);
        chunk_give(fleet, fleet->devices[i].pending);
    }
    while (fleet->spare != NULL) {
        struct chunk *chunk = fleet->spare;
        fleet->spare = chunk->next;
        memory_give(chunk, MEMORY_CONNECTION);
    }
    oracle_destroy(fleet->oracle);
    user_engine_destroy(fleet->engine);
    memory_give(fleet->devices, MEMORY_CONNECTION);
    memory_give(fleet, MEMORY_CONNECTION);
}

static struct chunk *chunk_take(struct fleet *fleet)
{
    struct chunk *chunk = fleet->spare;
    if (chunk != NULL)
        fleet->spare = chunk->next;
    else
        chunk = memory_take(sizeof *chunk + fleet->chunk_bytes, MEMORY_CONNECTION);
    if (chunk != NULL)
        chunk->buffer = buffer_of(chunk + 1, fleet->chunk_bytes);
    return chunk;
}

/* ---- one device */

static void rearm(struct fleet *fleet, struct device *device)
{
    if (fleet->phase != FLEET_STOP)
        timer_start(&fleet->timers, &device->timer, user_due_ns(&device->user));
}

static void mark_dirty(struct fleet *fleet, struct device *device)
{
    if (device->dirty)
        return;
    device->dirty = true;
    device->next_dirty = fleet->dirty;
    fleet->dirty = device;
}

static void fail_note(struct fleet *fleet, const struct device *device, const char *reason)
{
    if (fleet->failure[0] == '\0')
        (void)snprintf(fleet->failure, sizeof fleet->failure, "user %s%u device d%u: %s",
                       fleet->options.user.name_prefix, device->user.index, device->user.device,
                       reason);
    atomic_thread_fence(memory_order_release);
}

/* account_end: what the end of a connection means for the counts. */
static void account_end(struct fleet *fleet, struct device *device, const char *reason)
{
    bool was_ready = device->user.state == USER_READY;
    if (was_ready)
        fleet->ready--;
    else
        fleet->handshakes--;
    if (device->on_purpose || fleet->phase == FLEET_STOP)
        return;
    fail_note(fleet, device, reason);
    count(was_ready ? &fleet->progress.dropped : &fleet->progress.failed);
}

/* device_close: end the connection; the user is told at once, io answers with IO_CLOSED. */
static void device_close(struct fleet *fleet, struct device *device, const char *reason)
{
    if (device->closing)
        return;
    account_end(fleet, device, reason);
    device->closing = true;
    user_lost(&device->user, fleet->engine);
    timer_stop(&fleet->timers, &device->timer);
    io_close(fleet->io, device->conn);
}

static void device_gone(struct fleet *fleet, struct device *device)
{
    chunk_give(fleet, device->sending);
    chunk_give(fleet, device->pending);
    device->sending = device->pending = NULL;
    device->conn = (struct io_conn){0};
    device->connected = device->closing = device->on_purpose = device->leaving = false;
    fleet->open--;
    rearm(fleet, device);
}

static struct buffer *device_output(struct fleet *fleet, struct device *device)
{
    if (device->pending == NULL)
        device->pending = chunk_take(fleet);
    return device->pending == NULL ? NULL : &device->pending->buffer;
}

/* device_flush: seal what is due and send it, if nothing is in flight. */
static void device_flush(struct fleet *fleet, struct device *device)
{
    if (!device->connected || device->closing || device->sending != NULL)
        return;
    struct buffer *output = device_output(fleet, device);
    if (output == NULL) {
        device_close(fleet, device, "no memory for a send buffer");
        return;
    }
    enum err err = device->leaving ? OK : user_flush(&device->user, fleet->engine, output);
    if (err != OK && err != ERR_FULL) {
        device_close(fleet, device, user_failure(fleet->engine));
        return;
    }
    if (output->size == 0) {
        chunk_give(fleet, device->pending);
        device->pending = NULL;
        if (device->leaving) {
            device_close(fleet, device, "");
            return;
        }
    } else {
        device->sending = device->pending;
        device->pending = NULL;
        io_send(fleet->io, device->conn, buffer_bytes(&device->sending->buffer));
    }
    rearm(fleet, device);
}

static enum err device_connect(struct fleet *fleet, struct device *device)
{
    const struct fleet_options *options = &fleet->options;
    const struct io_address *source =
        options->source_count == 0 ? NULL
                                   : &options->sources[fleet->source_at++ % options->source_count];
    enum err err = io_connect(fleet->io, &device->conn, &options->target, source,
                              (uint64_t)(device - fleet->devices) + 1);
    if (err != OK) {
        fail_note(fleet, device, io_explain(fleet->io));
        count(&fleet->progress.failed);
        timer_start(&fleet->timers, &device->timer, fleet->now_ns + NS_PER_S);
        return err;
    }
    if (!device->established && device->connect_ns == 0)
        device->connect_ns = fleet->now_ns;
    fleet->handshakes++;
    fleet->open++;
    user_connecting(&device->user, fleet->engine);
    rearm(fleet, device);
    return OK;
}

/* ---- what users report */

static void on_ready(struct fleet *fleet, struct device *device)
{
    fleet->handshakes--;
    fleet->ready++;
    if (device->established) {
        count(&fleet->progress.reconnects);
    } else {
        device->established = true;
        count(&fleet->progress.established);
        histogram_record(&fleet->latency.connect_ns, fleet->now_ns - device->connect_ns);
    }
    if (user_tls_resumed(&device->user))
        count(&fleet->progress.resumed_tls);
    if (fleet->tls_version[0] == '\0')
        (void)snprintf(fleet->tls_version, sizeof fleet->tls_version, "%s",
                       user_tls_version(&device->user));
}

static struct oracle_peer peer_of(const struct device *device)
{
    return (struct oracle_peer){device->user.id, device->user.device};
}

static uint64_t since(const struct fleet *fleet, uint64_t then_ns)
{
    return fleet->now_ns > then_ns ? fleet->now_ns - then_ns : 0;
}

static void on_first_sight(struct fleet *fleet, uint64_t after_ns)
{
    count(&fleet->progress.delivered);
    histogram_record(&fleet->latency.deliver_ns, after_ns);
    if (after_ns > atomic_load_explicit(&fleet->progress.worst_ns, memory_order_relaxed))
        publish(&fleet->progress.worst_ns, after_ns);
}

static void on_user_event(struct fleet *fleet, struct device *device,
                          const struct user_event *event)
{
    uint64_t intended_ns;
    switch (event->kind) {
    case USER_EVENT_READY:
        on_ready(fleet, device);
        break;
    case USER_EVENT_ACKED:
        if (event->first_seq != 0) {
            oracle_repeated(fleet->oracle, event->conversation, peer_of(device), event->first_seq,
                            event->seq);
            break;
        }
        oracle_acked(fleet->oracle, event->conversation, peer_of(device), &event->id, event->seq);
        count(&fleet->progress.acked);
        histogram_record(&fleet->latency.ack_ns, since(fleet, event->intended_ns));
        break;
    case USER_EVENT_MESSAGE:
        if (!oracle_delivered(fleet->oracle, peer_of(device), device->user.connection,
                              event->message, &intended_ns))
            break;
        if (event->message->sender.v == device->user.id.v && fleet->options.devices == 1)
            break; /* an own send that came back before its acknowledgement */
        on_first_sight(fleet, since(fleet, intended_ns));
        break;
    case USER_EVENT_GONE:
        oracle_gone(fleet->oracle, event->conversation, peer_of(device), device->user.connection,
                    event->seq, event->to_seq);
        break;
    case USER_EVENT_HISTORY:
        oracle_history(fleet->oracle, peer_of(device), event->seq, event->history);
        break;
    case USER_EVENT_REFUSED:
        oracle_refused(fleet->oracle, event->conversation, peer_of(device), &event->id,
                       event->first_seq, event->code);
        fail_note(fleet, device, user_failure(fleet->engine));
        count(&fleet->progress.refused);
        break;
    case USER_EVENT_RETRY:
        count(&fleet->progress.retried);
        break;
    case USER_EVENT_ERROR:
        fail_note(fleet, device, user_failure(fleet->engine));
        count(&fleet->progress.errors);
        break;
    case USER_EVENT_SYNCED:
    case USER_EVENT_LAGGING:
        break;
    }
}

/* ---- phase 1: what io has to tell */

static void on_connected(struct fleet *fleet, struct device *device, enum err err)
{
    if (err != OK) { /* no IO_CLOSED follows */
        char reason[FAILURE_BYTES];
        (void)snprintf(reason, sizeof reason, "cannot connect: %s %s", err_name(err),
                       io_explain(fleet->io));
        account_end(fleet, device, reason);
        user_lost(&device->user, fleet->engine);
        device_gone(fleet, device);
        return;
    }
    device->connected = true;
    struct buffer *output = device_output(fleet, device);
    if (output == NULL || user_connected(&device->user, fleet->engine, output) != OK) {
        device_close(fleet, device, user_failure(fleet->engine));
        return;
    }
    io_receive(fleet->io, device->conn);
    mark_dirty(fleet, device);
}

static void on_bytes(struct fleet *fleet, struct device *device, struct bytes input)
{
    struct buffer *output = device_output(fleet, device);
    if (output == NULL) {
        device_close(fleet, device, "no memory for a send buffer");
        return;
    }
    struct user_event event;
    enum err err;
    while ((err = user_receive(&device->user, fleet->engine, &input, output, &event)) == OK)
        on_user_event(fleet, device, &event);
    if (err != ERR_AGAIN) {
        device_close(fleet, device, user_failure(fleet->engine));
        return;
    }
    io_receive(fleet->io, device->conn);
    mark_dirty(fleet, device);
}

static void on_received(struct fleet *fleet, struct device *device, const struct io_event *event)
{
    if (event->err == OK) {
        if (!device->closing && !device->leaving)
            on_bytes(fleet, device, event->data);
        io_release(fleet->io, event->buffer);
        return;
    }
    if (!device->closing)
        device_close(fleet, device,
                     event->err == ERR_CLOSED ? "the server closed the connection"
                                              : "the connection broke");
}

static void on_sent(struct fleet *fleet, struct device *device, enum err err)
{
    chunk_give(fleet, device->sending);
    device->sending = NULL;
    if (device->closing)
        return;
    if (err != OK)
        device_close(fleet, device, "the connection broke while sending");
    else if (device->leaving && device->pending == NULL)
        device_close(fleet, device, "");
    else
        mark_dirty(fleet, device);
}

static void on_io(struct fleet *fleet, const struct io_event *event)
{
    if (event->owner == 0 || event->owner > fleet->device_count)
        return;
    struct device *device = &fleet->devices[event->owner - 1];
    switch (event->kind) {
    case IO_CONNECTED:
        on_connected(fleet, device, event->err);
        break;
    case IO_RECEIVED:
        on_received(fleet, device, event);
        break;
    case IO_SENT:
        on_sent(fleet, device, event->err);
        break;
    case IO_CLOSED:
        device_gone(fleet, device);
        break;
    case IO_ACCEPTED:
    case IO_MOVED_IN:
    case IO_MOVED_OUT:
    case IO_MOVE_FAILED:
    case IO_FILE_DONE:
        CHECK(event->kind == IO_CLOSED); /* a fleet neither listens nor moves nor reads files */
        break;
    }
}

/* ---- phase 2: time */

static void on_timer(struct fleet *fleet, struct device *device)
{
    if (device->user.state == USER_OFFLINE) {
        if (device->conn.v != 0 || fleet->phase == FLEET_STOP)
            return;
        if (fleet->now_ns < user_due_ns(&device->user))
            rearm(fleet, device);
        else if (fleet->handshakes >= fleet->options.handshakes_max)
            timer_start(&fleet->timers, &device->timer,
                        fleet->now_ns + (20 + user_engine_random(fleet->engine) % 80) * NS_PER_MS);
        else
            (void)device_connect(fleet, device); /* a failure is counted and tried again */
        return;
    }
    if (user_tick(&device->user, fleet->engine) != OK) {
        device_close(fleet, device, user_failure(fleet->engine));
        return;
    }
    mark_dirty(fleet, device);
    rearm(fleet, device);
}

static void run_timers(struct fleet *fleet)
{
    timers_advance(&fleet->timers, fleet->now_ns);
    for (int i = 0; i < TIMERS_BURST; i++) {
        struct timer *timer = timers_pop(&fleet->timers);
        if (timer == NULL)
            return;
        on_timer(fleet, CONTAINER_OF(timer, struct device, timer));
    }
}

/* ---- phase 3: new connections */

/* allowed: how many events of a schedule of rate per second are due by now. */
static uint64_t allowed(const struct fleet *fleet, double rate)
{
    return (uint64_t)((double)(fleet->now_ns - fleet->phase_ns) / (double)NS_PER_S * rate) + 1;
}

static void run_connects(struct fleet *fleet)
{
    const struct fleet_options *options = &fleet->options;
    for (int i = 0; i < CONNECTS_BURST && fleet->next_connect < fleet->device_count; i++) {
        if (fleet->handshakes >= options->handshakes_max)
            return;
        if (options->connects_per_s > 0 &&
            fleet->scheduled >= allowed(fleet, options->connects_per_s))
            return;
        fleet->scheduled++;
        if (device_connect(fleet, &fleet->devices[fleet->next_connect++]) != OK)
            return;
    }
}

/* ---- phase 4: chat */

static struct device *first_device(struct fleet *fleet, uint32_t user)
{
    return &fleet->devices[user * fleet->options.devices];
}

static bool conversation_open(struct fleet *fleet, struct conversation_id id, uint32_t a,
                              uint32_t b)
{
    if (oracle_knows(fleet->oracle, id))
        return true;
    const uint32_t members[2] = {a, b};
    for (int m = 0; m < 2; m++)
        for (uint32_t d = 0; d < fleet->options.devices; d++) {
            struct oracle_peer peer = {first_device(fleet, members[m])->user.id, d};
            if (oracle_join(fleet->oracle, id, peer, 1) != OK)
                return false;
        }
    return true;
}

/* pick: a random user and a random contact of it, both known to the server. */
static bool pick(struct fleet *fleet, uint32_t *sender, uint32_t *recipient)
{
    for (int i = 0; i < PICKS_MAX; i++) {
        uint64_t random = user_engine_random(fleet->engine);
        uint32_t from = (uint32_t)((random >> 32) % fleet->options.users);
        uint32_t to = from ^ (1 + (uint32_t)(random & 0xffff) % fleet->options.contacts);
        if (to >= fleet->options.users || first_device(fleet, from)->user.id.v == 0 ||
            first_device(fleet, to)->user.id.v == 0)
            continue;
        *sender = from;
        *recipient = to;
        return true;
    }
    return false;
}

static void chat_one(struct fleet *fleet, uint64_t intended_ns)
{
    uint32_t from;
    uint32_t to;
    if (!pick(fleet, &from, &to)) {
        count(&fleet->progress.unsent);
        return;
    }
    uint32_t device_at = (uint32_t)(user_engine_random(fleet->engine) % fleet->options.devices);
    struct device *device = first_device(fleet, from) + device_at;
    struct user_id recipient = first_device(fleet, to)->user.id;
    struct user_id sender = first_device(fleet, from)->user.id;
    uint32_t every = fleet->options.settings_every;
    bool setting = every != 0 && user_engine_random(fleet->engine) % every == 0;
    if (device->user.id.v == 0 ||
        !conversation_open(fleet, conversation_id_direct(sender, recipient), from, to) ||
        user_send(&device->user, fleet->engine, recipient,
                  setting ? 0 : fleet->options.message_bytes, intended_ns) != OK) {
        count(&fleet->progress.unsent);
        return;
    }
    count(&fleet->progress.sent);
    mark_dirty(fleet, device);
}

static void run_chat(struct fleet *fleet)
{
    double rate = fleet->options.messages_per_s;
    if (rate <= 0)
        return;
    uint64_t due = allowed(fleet, rate);
    for (int i = 0; i < SENDS_BURST && fleet->scheduled < due; i++) {
        uint64_t at =
            fleet->phase_ns + (uint64_t)((double)fleet->scheduled / rate * (double)NS_PER_S);
        fleet->scheduled++;
        chat_one(fleet, at);
    }
}

/* run_storm: break a share of the connections without a word, all at once. */
static void run_storm(struct fleet *fleet)
{
    const struct fleet_options *options = &fleet->options;
    if (options->reconnect_every_ms == 0 || fleet->now_ns < fleet->storm_ns)
        return;
    fleet->storm_ns = fleet->now_ns + options->reconnect_every_ms * NS_PER_MS;
    for (uint32_t i = 0; i < fleet->device_count; i++) {
        struct device *device = &fleet->devices[i];
        if (device->user.state != USER_READY || device->closing ||
            user_engine_random(fleet->engine) % STORM_BATCH_PARTS >= options->reconnect_percent)
            continue;
        device->on_purpose = true;
        device_close(fleet, device, "");
    }
}

/* ---- drain and stop */

static void check_settled(struct fleet *fleet)
{
    bool settled = oracle_settled(fleet->oracle) && fleet->ready == fleet->device_count;
    for (uint32_t i = 0; settled && i < fleet->device_count; i++)
        settled = user_quiet(&fleet->devices[i].user);
    publish(&fleet->progress.settled, settled ? 1 : 0);
}

static void leave(struct fleet *fleet, struct device *device)
{
    timer_stop(&fleet->timers, &device->timer);
    if (device->conn.v == 0 || device->closing)
        return;
    device->on_purpose = true;
    struct buffer *output = device->user.state == USER_READY ? device_output(fleet, device) : NULL;
    if (output == NULL) {
        device_close(fleet, device, "");
        return;
    }
    user_leave(&device->user, fleet->engine, output);
    device->leaving = true;
    mark_dirty(fleet, device);
}

static void run_stop(struct fleet *fleet)
{
    for (int i = 0; i < STOPS_BURST && fleet->next_stop < fleet->device_count; i++)
        leave(fleet, &fleet->devices[fleet->next_stop++]);
    fleet->stopped = fleet->next_stop == fleet->device_count && fleet->open == 0;
}

/* ---- the turn */

static void take_phase(struct fleet *fleet)
{
    enum fleet_phase wanted =
        (enum fleet_phase)atomic_load_explicit(&fleet->phase_wanted, memory_order_acquire);
    if (wanted <= fleet->phase)
        return;
    fleet->phase = wanted;
    fleet->phase_ns = fleet->now_ns;
    fleet->scheduled = 0;
    fleet->storm_ns = fleet->now_ns + fleet->options.reconnect_every_ms * NS_PER_MS;
}

static void run_phase(struct fleet *fleet)
{
    switch (fleet->phase) {
    case FLEET_WAIT:
        break;
    case FLEET_CONNECT:
        run_connects(fleet);
        break;
    case FLEET_CHAT:
        run_chat(fleet);
        run_storm(fleet);
        break;
    case FLEET_DRAIN:
        check_settled(fleet);
        break;
    case FLEET_STOP:
        run_stop(fleet);
        break;
    }
}

static void run_flushes(struct fleet *fleet)
{
    struct device *device = fleet->dirty;
    fleet->dirty = NULL;
    while (device != NULL) {
        struct device *next = device->next_dirty;
        device->dirty = false;
        device_flush(fleet, device);
        device = next;
    }
}

void fleet_turn(struct fleet *fleet, uint64_t sleep_until_ns)
{
    uint64_t next = fleet_next_ns(fleet);
    uint64_t deadline = next < sleep_until_ns ? next : sleep_until_ns;
    size_t events = io_poll(fleet->io, fleet->events, EVENTS_PER_TURN, deadline);
    fleet->now_ns = io_now_ns(fleet->io);
    user_engine_time(fleet->engine, fleet->now_ns, io_wall_ms(fleet->io));
    oracle_time(fleet->oracle, io_wall_ms(fleet->io));
    take_phase(fleet);
    for (size_t i = 0; i < events; i++)
        on_io(fleet, &fleet->events[i]);
    run_timers(fleet);
    run_phase(fleet);
    run_flushes(fleet);
    publish(&fleet->progress.ready, fleet->ready);
    publish(&fleet->progress.open, fleet->open);
}

uint64_t fleet_next_ns(const struct fleet *fleet)
{
    uint64_t next = timers_next_ns(&fleet->timers);
    uint64_t own = UINT64_MAX;
    double rate = 0;
    if (fleet->dirty != NULL)
        return 0;
    if (fleet->phase == FLEET_CHAT)
        rate = fleet->options.messages_per_s;
    else if (fleet->phase == FLEET_CONNECT && fleet->next_connect < fleet->device_count)
        rate = fleet->options.connects_per_s;
    if (rate > 0)
        own = fleet->phase_ns + (uint64_t)((double)fleet->scheduled / rate * (double)NS_PER_S);
    if (fleet->phase == FLEET_CONNECT && fleet->next_connect < fleet->device_count && rate <= 0)
        own = 0;
    if (fleet->phase == FLEET_STOP && fleet->next_stop < fleet->device_count)
        own = 0;
    if (fleet->phase == FLEET_DRAIN)
        own = fleet->now_ns + 10 * NS_PER_MS;
    /* a full set of handshakes waits for events, not for the schedule */
    if (fleet->phase == FLEET_CONNECT && fleet->handshakes >= fleet->options.handshakes_max)
        own = UINT64_MAX;
    return own < next ? own : next;
}

void fleet_set_phase(struct fleet *fleet, enum fleet_phase phase)
{
    atomic_store_explicit(&fleet->phase_wanted, (int)phase, memory_order_release);
}

struct fleet_progress *fleet_progress(struct fleet *fleet)
{
    return &fleet->progress;
}

bool fleet_stopped(const struct fleet *fleet)
{
    return fleet->stopped;
}

const struct fleet_latency *fleet_latency(const struct fleet *fleet)
{
    return &fleet->latency;
}

const struct oracle *fleet_oracle(const struct fleet *fleet)
{
    return fleet->oracle;
}

const char *fleet_server(const struct fleet *fleet)
{
    return user_engine_server(fleet->engine);
}

const char *fleet_tls_version(const struct fleet *fleet)
{
    return fleet->tls_version;
}

const char *fleet_failure(const struct fleet *fleet)
{
    return fleet->failure;
}

size_t fleet_user_bytes(void)
{
    return sizeof(struct device);
}
