/* migrate.c: see migrate.h. What travels: TLS state, and the baggage: clear text not yet worked
 * off, the login with its identity. */
#include "gateway/flow/migrate.h"

#include "gateway/flow/egress.h"
#include "gateway/flow/ingress.h"
#include "gateway/flow/login.h"
#include "gateway/flow/relay.h"
#include "gateway/flow/shard.h"

#define MOVE_TRIES    4 /* a slot that is given back meanwhile spares the detour for good */
#define MOVE_RETRY_NS (50 * NS_PER_MS)

struct cargo {
    struct tls *tls;
    struct baggage baggage;
};

/* ---- baggage */

void baggage_pack(const struct shard *shard, struct connection *connection, struct baggage *baggage)
{
    *baggage = (struct baggage){
        .login = connection->login,
        .backlog = connection->backlog,
        .peer = connection->peer,
        .accepted_ns = connection->accepted_ns,
        .timer_due_ns =
            connection->accepted_ns + shard->gateway->config->hello_timeout_ms * NS_PER_MS,
        .encoding = connection->encoding,
    };
    connection->login = NULL;
    connection->backlog = NULL;
}

void baggage_unpack(struct connection *connection, struct baggage *baggage)
{
    connection->login = baggage->login;
    connection->backlog = baggage->backlog;
    *baggage = (struct baggage){0};
}

void baggage_free(struct baggage *baggage)
{
    struct connection shell = {.tls = NULL};
    baggage_unpack(&shell, baggage);
    backlog_free(&shell);
    login_free(shell.login);
}

static void say_shutting_down(struct shard *shard, struct connection *connection)
{
    MARK("on its way when the goodbyes were said");
    ingress_fail(shard, connection, CODE_SHUTTING_DOWN, 1000, "the gateway is restarting");
}

void baggage_arrive(struct shard *shard, struct connection *connection, struct baggage *baggage)
{
    uint64_t due_ns = baggage->timer_due_ns;
    connection->encoding = baggage->encoding;
    connection->accepted_ns = baggage->accepted_ns;
    connection->state = CONNECTION_AUTHENTICATING;
    baggage_unpack(connection, baggage);
    connection->login->connection = connection_handle(shard, connection);
    if (shard->goodbyes_said) {
        say_shutting_down(shard, connection);
        return;
    }
    timer_start(&shard->timers, &connection->timer, due_ns);
    login_finish(shard, connection);
}

/* ---- moving */

void migrate_start(struct shard *shard, struct connection *connection)
{
    connection_set_state(connection, CONNECTION_MOVING);
    timer_stop(&shard->timers, &connection->timer);
    if (connection->output == NULL)
        migrate_go(shard, connection);
}

void migrate_go(struct shard *shard, struct connection *connection)
{
    CHECK(websocket_idle(&connection->websocket) && !connection->receiving);
    if (timer_running(&connection->timer) || migrate_on_its_way(connection))
        return; /* waits for its retry */
    struct cargo *cargo = memory_take_zeroed(sizeof *cargo, MEMORY_CONNECTION);
    if (cargo == NULL) {
        connection_abort(shard, connection);
        return;
    }
    uint32_t target = shard_of_user(shard->gateway, connection->login->identity.user);
    cargo->tls = connection->tls;
    connection->tls = NULL;
    baggage_pack(shard, connection, &cargo->baggage);
    io_move(shard->io, connection->io, target, cargo);
}

static void cargo_free(struct cargo *cargo)
{
    baggage_free(&cargo->baggage);
    tls_destroy(cargo->tls);
    memory_give(cargo, MEMORY_CONNECTION);
}

bool migrate_on_its_way(const struct connection *connection)
{
    return connection->state == CONNECTION_MOVING && connection->tls == NULL;
}

void migrate_on_moved_out(struct shard *shard, struct connection *connection)
{
    shard_count(shard, METRIC_CONNECTIONS_MOVED, 1);
    if (connection->state != CONNECTION_DEAD)
        connection_set_state(connection, CONNECTION_DEAD);
    /* the target counts it among the open ones from now on */
    atomic_fetch_add_explicit(&shard->gateway->connections, 1, memory_order_relaxed);
    connection_free(shard, connection);
}

void migrate_on_failed(struct shard *shard, struct connection *connection,
                       const struct io_event *event)
{
    struct cargo *cargo = event->cargo;
    shard_count(shard, METRIC_CONNECTIONS_MOVE_FAILED, 1);
    if (connection->state != CONNECTION_MOVING) {
        cargo_free(cargo);
        return;
    }
    connection->tls = cargo->tls;
    baggage_unpack(connection, &cargo->baggage);
    memory_give(cargo, MEMORY_CONNECTION);
    if (shard->goodbyes_said) {
        say_shutting_down(shard, connection);
        return;
    }
    if (++connection->login->move_tries > MOVE_TRIES) {
        relay_start(shard, connection,
                    shard_of_user(shard->gateway, connection->login->identity.user));
        return;
    }
    MARK("move tried again");
    timer_start(&shard->timers, &connection->timer, shard->now_ns + MOVE_RETRY_NS);
}

void migrate_retry(struct shard *shard, struct connection *connection)
{
    if (connection->output == NULL)
        migrate_go(shard, connection);
}

void migrate_on_moved_in(struct shard *shard, const struct io_event *event)
{
    struct cargo *cargo = event->cargo;
    struct connection *connection = connection_open(shard, event->conn, &cargo->baggage.peer);
    if (connection == NULL) {
        atomic_fetch_sub_explicit(&shard->gateway->connections, 1, memory_order_relaxed);
        shard_count(shard, METRIC_CONNECTIONS_REFUSED, 1);
        cargo_free(cargo);
        io_set_owner(shard->io, event->conn, 0);
        io_close(shard->io, event->conn);
        return;
    }
    connection->tls = cargo->tls;
    baggage_arrive(shard, connection, &cargo->baggage);
    memory_give(cargo, MEMORY_CONNECTION);
}
