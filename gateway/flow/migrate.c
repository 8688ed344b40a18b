/* migrate.c: see migrate.h. What travels: TLS state, clear text not yet worked off, the login with
 * its identity. */
#include "gateway/flow/migrate.h"

#include "gateway/flow/egress.h"
#include "gateway/flow/ingress.h"
#include "gateway/flow/login.h"
#include "gateway/flow/shard.h"

#define MOVE_TRIES    20
#define MOVE_RETRY_NS (50 * NS_PER_MS)

struct cargo {
    struct tls *tls;
    struct login *login;
    struct backlog *backlog;
    struct io_address peer;
    uint64_t accepted_ns;
    uint64_t timer_due_ns;
    uint8_t encoding;
};

void migrate_start(struct shard *shard, struct connection *connection)
{
    connection_set_state(connection, CONNECTION_MOVING);
    timer_stop(&shard->timers, &connection->timer);
    if (connection->output == NULL)
        migrate_go(shard, connection);
}

void migrate_go(struct shard *shard, struct connection *connection)
{
    struct login *login = connection->login;
    CHECK(websocket_idle(&connection->websocket) && !connection->receiving);
    if (timer_running(&connection->timer) || connection->tls == NULL)
        return; /* waits for its retry, or is on its way */
    struct cargo *cargo = memory_take_zeroed(sizeof *cargo, MEMORY_CONNECTION);
    if (cargo == NULL) {
        connection_abort(shard, connection);
        return;
    }
    cargo->tls = connection->tls;
    cargo->login = login;
    cargo->backlog = connection->backlog;
    cargo->peer = connection->peer;
    cargo->accepted_ns = connection->accepted_ns;
    cargo->timer_due_ns =
        connection->accepted_ns + shard->gateway->config->hello_timeout_ms * NS_PER_MS;
    cargo->encoding = connection->encoding;
    connection->tls = NULL;
    connection->login = NULL;
    connection->backlog = NULL;
    io_move(shard->io, connection->io, shard_of_user(shard->gateway, login->identity.user), cargo);
}

static void take_back(struct connection *connection, struct cargo *cargo)
{
    connection->tls = cargo->tls;
    connection->login = cargo->login;
    connection->backlog = cargo->backlog;
    memory_give(cargo, MEMORY_CONNECTION);
}

static void cargo_free(struct cargo *cargo)
{
    struct connection shell = {.tls = NULL};
    take_back(&shell, cargo);
    backlog_free(&shell);
    tls_destroy(shell.tls);
    login_free(shell.login);
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
    shard_count(shard, METRIC_CONNECTIONS_MOVE_FAILED, 1);
    if (connection->state != CONNECTION_MOVING) {
        cargo_free(event->cargo);
        return;
    }
    take_back(connection, event->cargo);
    if (++connection->login->move_tries > MOVE_TRIES) {
        MARK("move refused for good");
        ingress_fail(shard, connection, CODE_OVERLOADED, 1000,
                     "the shard of this user has no free slot; try again");
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
    struct connection *connection = connection_open(shard, event->conn, &cargo->peer);
    if (connection == NULL) {
        atomic_fetch_sub_explicit(&shard->gateway->connections, 1, memory_order_relaxed);
        shard_count(shard, METRIC_CONNECTIONS_REFUSED, 1);
        cargo_free(cargo);
        io_set_owner(shard->io, event->conn, 0);
        io_close(shard->io, event->conn);
        return;
    }
    connection->encoding = cargo->encoding;
    connection->accepted_ns = cargo->accepted_ns;
    connection->state = CONNECTION_AUTHENTICATING;
    uint64_t due_ns = cargo->timer_due_ns;
    take_back(connection, cargo);
    connection->login->connection = connection_handle(shard, connection);
    timer_start(&shard->timers, &connection->timer, due_ns);
    login_finish(shard, connection);
}
