/* run.c: see run.h; keys and what this host can do: run_check.c. The main thread has an io of its
 * own, only for its clock and sleep; every fleet has its thread. They share the phase (written by
 * main) and the progress (written by the fleet).
 */
#include "loadgen/run_private.h"

#include "core/file.h"
#include "core/memory.h"
#include "core/text.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>

#define SETTLE_MS            1000
#define STOP_S_MAX           60
#define TICK_MS              100
#define FAILURES_TO_GIVE_UP  3
#define TOKEN_LIFETIME_MS    (24u * 3600 * 1000)
#define RECEIVE_BUFFERS      256
#define RECEIVE_BUFFER_BYTES 8192

enum thread_state { THREAD_STARTING, THREAD_RUNNING, THREAD_FAILED, THREAD_ENDED };

struct thread {
    struct run *run;
    pthread_t id;
    uint32_t index;
    _Atomic int state;
    _Atomic bool end; /* main is done with the fleet */
    struct fleet_options options;
    struct io *io;
    struct fleet *fleet;
    char explanation[RUN_EXPLAIN_BYTES];
};

struct totals {
    uint64_t ready;
    uint64_t established;
    uint64_t failed;
    uint64_t dropped;
    uint64_t reconnects;
    uint64_t resumed_tls;
    uint64_t sent;
    uint64_t acked;
    uint64_t delivered;
    uint64_t refused;
    uint64_t retried;
    uint64_t unsent;
    uint64_t settled;
};

struct run {
    const struct run_options *options;
    struct io_group *group;
    struct io *io; /* the main thread's: clock and sleep */
    struct tls_context *tls_context;
    struct jwt_signer signer;
    struct io_address target;
    struct io_address *sources;
    uint32_t source_count;
    struct thread threads[RUN_THREADS_MAX];
    uint32_t thread_count; /* started */
    uint64_t start_ns;
    uint64_t printed_ns;
    struct totals printed;
    struct report report;
};

/* ---- threads */

static void fill_user_options(struct run *run, struct user_options *user, uint32_t index)
{
    const struct run_options *options = run->options;
    *user = (struct user_options){
        .tls_context = run->tls_context,
        .server_name = options->server_name,
        .encoding = options->json ? ENCODING_JSON : ENCODING_PROTO,
        .signer = &run->signer,
        .key_id = RUN_KEY_ID,
        .issuer = options->issuer,
        .audience = options->audience,
        .name_prefix = options->name_prefix,
        .token_lifetime_ms = TOKEN_LIFETIME_MS,
        .heartbeat_ms = options->heartbeat_ms,
        .ack_messages = 16,
        .ack_delay_ms = 200,
        .handshake_ms = 30000,
        .backoff_ms_min = 1000,
        .backoff_ms_max = 30000,
        .message_bytes_max = options->message_bytes,
        .response_bytes_max = 256 * 1024,
        .resume_tls = options->resume_tls,
        .seed = options->seed + index * 0x9e3779b97f4a7c15u,
    };
}

/* share: part `index` of `count` of a whole number of pairs, so that the parts are even. */
static uint32_t share(uint32_t users, uint32_t index, uint32_t count)
{
    uint64_t pairs = users / 2;
    return (uint32_t)(pairs * (index + 1) / count - pairs * index / count) * 2;
}

static uint32_t at_least_one(uint32_t value)
{
    return value == 0 ? 1 : value;
}

static void fill_fleet_options(struct run *run, struct fleet_options *fleet, uint32_t index)
{
    const struct run_options *options = run->options;
    uint32_t users = options->connections / options->devices;
    uint32_t threads = options->threads;
    *fleet = (struct fleet_options){
        .target = run->target,
        .sources = run->sources,
        .source_count = run->source_count,
        .users = share(users, index, threads),
        .devices = options->devices,
        .contacts = options->contacts,
        .handshakes_max = at_least_one(options->handshakes / threads),
        .connects_per_s = (double)options->connect_rate / threads,
        .message_bytes = options->message_bytes,
        .reconnect_every_ms = options->reconnect_every_s * 1000,
        .reconnect_percent = options->reconnect_percent,
    };
    for (uint32_t i = 0; i < index; i++)
        fleet->first_user += share(users, i, threads);
    fleet->messages_per_s = options->rate * fleet->users / users;
    fill_user_options(run, &fleet->user, index);
}

static void *thread_main(void *context)
{
    struct thread *thread = context;
    struct io_options options = {.index = thread->index,
                                 .count = thread->run->options->threads + 1,
                                 .connections_max = thread->options.users * thread->options.devices,
                                 .buffers_count = RECEIVE_BUFFERS,
                                 .buffer_bytes = RECEIVE_BUFFER_BYTES,
                                 .files_max = 1,
                                 .cpu = -1};
    enum err err = io_create(&thread->io, thread->run->group, &options);
    if (err == OK)
        err = fleet_create(&thread->fleet, thread->io, &thread->options);
    if (err != OK) {
        const char *reason = thread->io == NULL ? "" : io_explain(thread->io);
        (void)run_explain(thread->explanation, err, "thread %" PRIu32 " cannot start: %s %s",
                          thread->index, err_name(err), reason);
        atomic_store(&thread->state, THREAD_FAILED);
        return NULL;
    }
    atomic_store(&thread->state, THREAD_RUNNING);
    while (!fleet_stopped(thread->fleet) && !atomic_load(&thread->end))
        fleet_turn(thread->fleet, io_now_ns(thread->io) + TICK_MS * NS_PER_MS);
    atomic_store(&thread->state, THREAD_ENDED);
    return NULL;
}

static enum err threads_start(struct run *run, char explanation[RUN_EXPLAIN_BYTES])
{
    for (uint32_t i = 0; i < run->options->threads; i++) {
        struct thread *thread = &run->threads[i];
        thread->run = run;
        thread->index = i;
        fill_fleet_options(run, &thread->options, i);
        if (pthread_create(&thread->id, NULL, thread_main, thread) != 0)
            return run_explain(explanation, ERR_NO_MEMORY, "cannot start thread %" PRIu32, i);
        run->thread_count++;
    }
    for (uint32_t i = 0; i < run->thread_count; i++) {
        int state;
        while ((state = atomic_load(&run->threads[i].state)) == THREAD_STARTING)
            (void)io_poll(run->io, &(struct io_event){0}, 1,
                          io_now_ns(run->io) + TICK_MS * NS_PER_MS);
        if (state == THREAD_FAILED)
            return run_explain(explanation, ERR_UNSUPPORTED, "%s", run->threads[i].explanation);
    }
    return OK;
}

static void threads_end(struct run *run)
{
    for (uint32_t i = 0; i < run->thread_count; i++)
        atomic_store(&run->threads[i].end, true);
    for (uint32_t i = 0; i < run->thread_count; i++)
        (void)pthread_join(run->threads[i].id, NULL);
}

/* ---- progress */

static uint64_t get(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

static struct totals totals_of(const struct run *run)
{
    struct totals sum = {0};
    for (uint32_t i = 0; i < run->thread_count; i++) {
        const struct fleet_progress *p = fleet_progress(run->threads[i].fleet);
        sum.ready += get(&p->ready);
        sum.established += get(&p->established);
        sum.failed += get(&p->failed);
        sum.dropped += get(&p->dropped);
        sum.reconnects += get(&p->reconnects);
        sum.resumed_tls += get(&p->resumed_tls);
        sum.sent += get(&p->sent);
        sum.acked += get(&p->acked);
        sum.delivered += get(&p->delivered);
        sum.refused += get(&p->refused);
        sum.retried += get(&p->retried);
        sum.unsent += get(&p->unsent);
        sum.settled += get(&p->settled);
    }
    atomic_thread_fence(memory_order_acquire);
    return sum;
}

/* worst_ms: the slowest delivery since the last call. */
static double worst_ms(struct run *run)
{
    uint64_t worst = 0;
    for (uint32_t i = 0; i < run->thread_count; i++) {
        _Atomic uint64_t *at = &fleet_progress(run->threads[i].fleet)->worst_ns;
        uint64_t ns = atomic_exchange_explicit(at, 0, memory_order_relaxed);
        worst = ns > worst ? ns : worst;
    }
    return (double)worst / (double)NS_PER_MS;
}

/* tick: sleep a moment; print a progress line once a second. */
static struct totals tick(struct run *run, const char *phase)
{
    struct io_event event;
    (void)io_poll(run->io, &event, 1, io_now_ns(run->io) + TICK_MS * NS_PER_MS);
    uint64_t now = io_now_ns(run->io);
    struct totals at = totals_of(run);
    if (now - run->printed_ns < NS_PER_S)
        return at;
    double seconds = (double)(now - run->printed_ns) / (double)NS_PER_S;
    const struct totals *was = &run->printed;
    printf("%4" PRIu64 " s  %-7s ready %" PRIu64 "/%" PRIu32 " (+%.0f/s)",
           (uint64_t)((now - run->start_ns) / NS_PER_S), phase, at.ready, run->options->connections,
           (double)(at.established - was->established) / seconds);
    if (at.failed + at.dropped != 0)
        printf(" failed %" PRIu64 " broke %" PRIu64, at.failed, at.dropped);
    if (at.sent != 0)
        printf("  sent %.0f/s acked %.0f/s delivered %.0f/s, slowest %.1f ms, on the way %" PRIu64,
               (double)(at.sent - was->sent) / seconds, (double)(at.acked - was->acked) / seconds,
               (double)(at.delivered - was->delivered) / seconds, worst_ms(run),
               at.sent > at.acked + at.refused ? at.sent - at.acked - at.refused : 0);
    printf("\n");
    (void)fflush(stdout);
    run->printed = at;
    run->printed_ns = now;
    return at;
}

static void set_phase(struct run *run, enum fleet_phase phase)
{
    for (uint32_t i = 0; i < run->thread_count; i++) {
        fleet_set_phase(run->threads[i].fleet, phase);
        io_wake(run->group, i);
    }
}

static uint64_t in_seconds(struct run *run, double seconds)
{
    return io_now_ns(run->io) + (uint64_t)(seconds * (double)NS_PER_S);
}

static const char *first_failure(const struct run *run)
{
    for (uint32_t i = 0; i < run->thread_count; i++)
        if (fleet_failure(run->threads[i].fleet)[0] != '\0')
            return fleet_failure(run->threads[i].fleet);
    return "";
}

/* ---- phases */

static enum err phase_connect(struct run *run, char explanation[RUN_EXPLAIN_BYTES])
{
    const struct run_options *options = run->options;
    uint64_t begin = io_now_ns(run->io);
    uint64_t end = in_seconds(run, options->connect_timeout_s);
    set_phase(run, FLEET_CONNECT);
    struct totals at;
    do {
        at = tick(run, "connect");
        if (at.established == 0 && at.failed >= FAILURES_TO_GIVE_UP)
            return run_explain(explanation, ERR_CLOSED, "no connection to %s: %s", options->target,
                               first_failure(run));
    } while (at.established < options->connections && io_now_ns(run->io) < end);
    if (at.established == 0)
        return run_explain(explanation, ERR_TIMEOUT, "no connection to %s within %" PRIu32 " s",
                           options->target, options->connect_timeout_s);
    run->report.has_connect = true;
    run->report.connect_s = (double)(io_now_ns(run->io) - begin) / (double)NS_PER_S;
    return OK;
}

static void phase_wait(struct run *run, const char *name, double seconds)
{
    uint64_t end = in_seconds(run, seconds);
    while (io_now_ns(run->io) < end)
        (void)tick(run, name);
}

static void phase_idle(struct run *run)
{
    phase_wait(run, "idle", run->options->idle_s);
    if (run->options->gateway_pid == 0)
        return;
    host_sample_read(&run->report.idle, run->options->gateway_pid);
    run->report.memory_connections = totals_of(run).ready;
    run->report.has_memory = run->report.memory_connections != 0;
}

static void phase_chat(struct run *run)
{
    uint64_t begin = io_now_ns(run->io);
    if (run->options->rate <= 0 || run->options->duration_s == 0)
        return;
    set_phase(run, FLEET_CHAT);
    phase_wait(run, "chat", run->options->duration_s);
    run->report.has_chat = true;
    run->report.chat_s = (double)(io_now_ns(run->io) - begin) / (double)NS_PER_S;
}

static void phase_drain(struct run *run)
{
    uint64_t end = in_seconds(run, run->options->drain_s);
    bool settled = false;
    set_phase(run, FLEET_DRAIN);
    while (!settled && io_now_ns(run->io) < end)
        settled = tick(run, "drain").settled == run->thread_count;
    if (!settled)
        report_fault(&run->report, "not everything had arrived %" PRIu32 " s after the last send",
                     run->options->drain_s);
}

static void phase_stop(struct run *run)
{
    uint64_t end = in_seconds(run, STOP_S_MAX);
    bool stopped = false;
    set_phase(run, FLEET_STOP);
    while (!stopped && io_now_ns(run->io) < end) {
        (void)tick(run, "stop");
        stopped = true;
        for (uint32_t i = 0; i < run->thread_count; i++)
            stopped = stopped && atomic_load(&run->threads[i].state) == THREAD_ENDED;
    }
}

/* ---- report */

static void gather_totals(struct run *run)
{
    struct report *report = &run->report;
    struct totals at = totals_of(run); /* before the end: stopping is not breaking */
    report->established = at.established;
    report->failed = at.failed;
    report->dropped = at.dropped;
    report->reconnects = at.reconnects;
    report->resumed_tls = at.resumed_tls;
    report->sent = at.sent;
    report->acked = at.acked;
    report->delivered = at.delivered;
    report->refused = at.refused;
    report->retried = at.retried;
    report->unsent = at.unsent;
}

static void gather_fleets(struct run *run)
{
    struct report *report = &run->report;
    report->tls = "";
    for (uint32_t i = 0; i < run->thread_count; i++) {
        const struct fleet *fleet = run->threads[i].fleet;
        const struct fleet_latency *latency = fleet_latency(fleet);
        struct oracle_counts counts;
        oracle_result(fleet_oracle(fleet), &counts);
        oracle_counts_add(&report->oracle, &counts);
        histogram_merge(&report->connect_ns, &latency->connect_ns);
        histogram_merge(&report->ack_ns, &latency->ack_ns);
        histogram_merge(&report->deliver_ns, &latency->deliver_ns);
        if (report->tls[0] == '\0')
            report->tls = fleet_tls_version(fleet);
        if (report->gateway_version[0] == '\0')
            report->gateway_version = fleet_server(fleet);
    }
    report_judge(report, run->options->breaks_expected);
    for (uint32_t i = 0; i < run->thread_count; i++) {
        const char *fault = oracle_fault(fleet_oracle(run->threads[i].fleet));
        if (fault[0] != '\0')
            report_fault(report, "oracle's first: %s", fault);
    }
    if (first_failure(run)[0] != '\0' && report->fault_count != 0)
        report_fault(report, "first failure: %s", first_failure(run));
}

static enum err report_write(struct run *run, char explanation[RUN_EXPLAIN_BYTES])
{
    char path[RUN_PATH_BYTES + 32];
    const char *directory = run->options->report;
    uint8_t *memory = memory_take(REPORT_BYTES_MAX, MEMORY_CORE);
    struct buffer out = buffer_of(memory, REPORT_BYTES_MAX);
    if (memory == NULL)
        return run_explain(explanation, ERR_NO_MEMORY, "no memory for the report");
    enum err err = report_text(&out, &run->report);
    CHECK(err == OK); /* REPORT_BYTES_MAX is a bound */
    printf("\n%.*s", (int)out.size, (const char *)out.data);
    if (directory[0] != '\0') {
        err = file_make_directory(directory);
        if (err != OK)
            (void)run_explain(explanation, err, "cannot make directory %s: %s", directory,
                              err_name(err));
        (void)snprintf(path, sizeof path, "%s/report.txt", directory);
        if (err == OK)
            err = run_write_file(path, buffer_bytes(&out), 0, explanation);
        out.size = 0;
        CHECK(report_json(&out, &run->report) == OK);
        (void)snprintf(path, sizeof path, "%s/report.json", directory);
        if (err == OK)
            err = run_write_file(path, buffer_bytes(&out), 0, explanation);
    }
    memory_give(memory, MEMORY_CORE);
    return err;
}

/* ---- the run */

static enum err sources_make(struct run *run)
{
    run->source_count = run_sources_needed(run->options, &run->target);
    if (run->source_count == 0)
        return OK;
    run->sources = memory_take_zeroed(run->source_count * sizeof *run->sources, MEMORY_CORE);
    if (run->sources == NULL)
        return ERR_NO_MEMORY;
    for (uint32_t i = 0; i < run->source_count; i++) {
        uint8_t *ip = run->sources[i].ip;
        ip[10] = ip[11] = 0xff;
        ip[12] = 127;
        ip[14] = (uint8_t)(1 + i / 250); /* 127.0.1.1 …: away from the servers' 127.0.0.x */
        ip[15] = (uint8_t)(1 + i % 250);
    }
    return OK;
}

static enum err run_prepare(struct run *run, char explanation[RUN_EXPLAIN_BYTES])
{
    const struct run_options *options = run->options;
    const char *reason;
    struct io_options io = {.index = options->threads,
                            .count = options->threads + 1,
                            .connections_max = 1,
                            .buffers_count = 2,
                            .buffer_bytes = 4096,
                            .files_max = 1,
                            .cpu = -1};
    TRY(run_key_read(options->keys, &run->signer, explanation));
    enum err err = address_parse(&run->target, options->target);
    if (err == OK)
        err = sources_make(run);
    if (err != OK)
        return run_explain(explanation, err, "cannot prepare addresses: %s", err_name(err));
    if (tls_context_create_client(&run->tls_context, options->ca[0] == '\0' ? NULL : options->ca,
                                  &reason) != OK)
        return run_explain(explanation, ERR_INVALID, "%s", reason);
    err = io_group_create(&run->group, options->threads + 1);
    if (err == OK)
        err = io_create(&run->io, run->group, &io);
    if (err != OK)
        return run_explain(explanation, err, "cannot use io_uring: %s %s", err_name(err),
                           run->io == NULL ? "" : io_explain(run->io));
    host_machine_read(&run->report.machine);
    run->report.options =
        (struct report_options){.connections = options->connections,
                                .users = options->connections / options->devices,
                                .threads = options->threads,
                                .rate = options->rate,
                                .duration_s = options->duration_s,
                                .message_bytes = options->message_bytes,
                                .handshakes_max = options->handshakes,
                                .sources = run->source_count == 0 ? 1 : run->source_count,
                                .encoding = options->json ? SUBPROTOCOL_JSON : SUBPROTOCOL_PROTO,
                                .local = run_is_loopback(&run->target)};
    run->report.loadgen_version = ROOST_VERSION;
    run->report.gateway_version = options->gateway_version;
    run->report.tls_library = tls_library();
    return OK;
}

static void run_release(struct run *run)
{
    for (uint32_t i = 0; i < run->thread_count; i++) {
        fleet_destroy(run->threads[i].fleet);
        if (run->threads[i].io != NULL)
            io_destroy(run->threads[i].io);
    }
    if (run->io != NULL)
        io_destroy(run->io);
    if (run->group != NULL)
        io_group_destroy(run->group);
    if (run->tls_context != NULL)
        tls_context_release(run->tls_context);
    memory_give(run->sources, MEMORY_CORE);
    memory_give(run, MEMORY_CORE);
}

static enum err run_phases(struct run *run, char explanation[RUN_EXPLAIN_BYTES])
{
    run->start_ns = run->printed_ns = io_now_ns(run->io);
    phase_wait(run, "settle", (double)SETTLE_MS / 1000);
    if (run->options->gateway_pid != 0)
        host_sample_read(&run->report.baseline, run->options->gateway_pid);
    TRY(phase_connect(run, explanation));
    phase_idle(run);
    phase_chat(run);
    phase_drain(run);
    gather_totals(run);
    phase_stop(run);
    return OK;
}

enum err run(const struct run_options *options, bool *pass, char explanation[RUN_EXPLAIN_BYTES])
{
    struct run *run = memory_take_zeroed(sizeof *run, MEMORY_CORE);
    if (run == NULL)
        return run_explain(explanation, ERR_NO_MEMORY, "no memory");
    run->options = options;
    enum err err = run_prepare(run, explanation);
    if (err == OK)
        err = threads_start(run, explanation);
    if (err == OK)
        err = run_phases(run, explanation);
    threads_end(run);
    if (err == OK) {
        gather_fleets(run);
        err = report_write(run, explanation);
        *pass = run->report.fault_count == 0;
    }
    run_release(run);
    return err;
}
