/* scenario_echo.c: clients send streams of bytes to an echo service on several ios and compare what
 * comes back, while the service moves connections between its ios and the network breaks them.
 * Checks:     every byte comes back once and in order on each connection; every connection ends in
 *             exactly one IO_CLOSED or IO_MOVED_OUT; after the faults every client gets its whole
 *             stream echoed; nothing is left at the end. */
#include "tests/sim/scenario.h"

#include "core/io.h"

#include <stdlib.h>

#define SERVERS      3
#define CLIENTS      12
#define STREAM_BYTES 40000
#define CHUNK_MAX    4096
#define PORT         7000
#define SILENT_NS    (20 * NS_PER_S) /* a peer that says nothing for so long is given up */

struct echo_conn { /* of a server; moves between servers as cargo */
    struct io_conn conn;
    bool receiving;
    bool moving;
    bool closing;
    uint64_t heard_ns;
    uint8_t pending[CHUNK_MAX];
    size_t pending_size;
    struct echo_conn *next;
    struct echo_conn **link;
};

struct echo;

struct server {
    struct echo *echo;
    struct io *io;
    uint32_t index;
    struct io_listener listener;
    struct echo_conn *conns;
    uint64_t gained; /* accepted and moved in */
    uint64_t lost;   /* closed and moved out */
};

struct client {
    struct io_conn conn;
    bool connected;
    bool closing;
    bool finished;
    bool in_calm;  /* this connection began after the faults */
    uint64_t next; /* when to connect, or to give up */
    size_t sent;
    size_t sending;
    size_t echoed;
    uint8_t stream[STREAM_BYTES];
};

struct clients {
    struct echo *echo;
    struct io *io;
    struct client client[CLIENTS];
};

struct echo {
    struct run *run;
    struct io_group *server_group;
    struct io_group *client_group;
    struct server server[SERVERS];
    struct clients clients;
    uint64_t moves;
};

/* ---- the service */

static void conn_add(struct server *server, struct echo_conn *c)
{
    c->next = server->conns;
    c->link = &server->conns;
    if (c->next)
        c->next->link = &c->next;
    server->conns = c;
}

static void conn_remove(struct echo_conn *c)
{
    *c->link = c->next;
    if (c->next)
        c->next->link = c->link;
}

static void server_close(struct server *server, struct echo_conn *c)
{
    if (!c->closing)
        io_close(server->io, c->conn);
    c->closing = true;
}

/* What the connection does next: answer, move away, or listen (and perhaps then move away). */
static void server_continue(struct server *server, struct echo_conn *c)
{
    struct world *world = server->echo->run->world;
    if (c->closing || c->moving)
        return;
    if (c->pending_size > 0) {
        io_send(server->io, c->conn, bytes_of(c->pending, c->pending_size));
        return;
    }
    bool move = world_below(world, 8) == 0;
    if (!move || world_below(world, 2) == 0) {
        io_receive(server->io, c->conn);
        c->receiving = true;
    }
    if (!move)
        return;
    c->moving = true;
    conn_remove(c);
    uint32_t target = (server->index + 1 + (uint32_t)world_below(world, SERVERS - 1)) % SERVERS;
    io_move(server->io, c->conn, target, c);
    c->closing = world_below(world, 20) == 0;
    if (c->closing)
        io_close(server->io, c->conn); /* takes place if the move fails */
}

static void server_gain(struct server *server, struct echo_conn *c, struct io_conn conn)
{
    c->conn = conn;
    c->heard_ns = io_now_ns(server->io);
    c->moving = c->receiving = c->closing = false;
    io_set_owner(server->io, conn, (uint64_t)(uintptr_t)c);
    conn_add(server, c);
    server->gained++;
    server_continue(server, c);
}

static void server_received(struct server *server, struct echo_conn *c,
                            const struct io_event *event)
{
    RUN_EXPECT(server->echo->run, c->receiving);
    c->receiving = false;
    c->heard_ns = io_now_ns(server->io);
    if (event->err == OK) {
        memcpy(c->pending, event->data.data, event->data.size);
        c->pending_size = event->data.size;
        io_release(server->io, event->buffer);
        server_continue(server, c);
    } else if (event->err != ERR_CANCELLED) {
        if (c->moving)
            return; /* cannot be: a move cancels */
        server_close(server, c);
    }
}

/* A failed move leaves the connection here; one that io_close was called for meanwhile is being
 * closed already. */
static void server_move_failed(struct server *server, struct echo_conn *c,
                               const struct io_event *event)
{
    struct run *run = server->echo->run;
    RUN_EXPECT(run, event->cargo == c && c->moving && !c->receiving);
    RUN_EXPECT(run,
               event->err == ERR_AGAIN || event->err == ERR_FULL || event->err == ERR_CANCELLED);
    RUN_EXPECT(run, event->err != ERR_AGAIN || c->pending_size > 0);
    conn_add(server, c);
    c->moving = false;
    server_continue(server, c);
}

static void server_event(struct server *server, const struct io_event *event)
{
    struct echo_conn *c = (struct echo_conn *)(uintptr_t)event->owner;
    switch (event->kind) {
    case IO_ACCEPTED:
        RUN_EXPECT(server->echo->run, event->peer.port != 0 && event->listener.v != 0);
        server_gain(server, world_take(1, sizeof *c), event->conn);
        return;
    case IO_MOVED_IN:
        server->echo->moves++;
        server_gain(server, event->cargo, event->conn);
        return;
    case IO_RECEIVED:
        server_received(server, c, event);
        return;
    case IO_SENT:
        c->pending_size = 0;
        c->heard_ns = io_now_ns(server->io);
        if (event->err == OK)
            server_continue(server, c);
        else
            server_close(server, c);
        return;
    case IO_CLOSED:
        server->lost++;
        conn_remove(c);
        free(c);
        return;
    case IO_MOVED_OUT:
        server->lost++;
        return;
    case IO_MOVE_FAILED:
        server_move_failed(server, c, event);
        return;
    case IO_CONNECTED:
    case IO_FILE_DONE:
        run_fail(server->echo->run, "an event that nobody asked for");
        return;
    }
}

static size_t server_turn(void *self)
{
    struct server *server = self;
    struct io_event events[8];
    size_t count = io_poll(server->io, events, COUNT_OF(events), 0);
    for (size_t i = 0; i < count; i++)
        server_event(server, &events[i]);
    for (struct echo_conn *c = server->conns; c; c = c->next)
        if (io_now_ns(server->io) > c->heard_ns + SILENT_NS)
            server_close(server, c);
    return count;
}

static uint64_t server_next_ns(void *self)
{
    struct server *server = self;
    uint64_t next = UINT64_MAX;
    for (struct echo_conn *c = server->conns; c; c = c->next)
        if (!c->closing && c->heard_ns + SILENT_NS < next)
            next = c->heard_ns + SILENT_NS + 1;
    return next;
}

/* ---- the clients */

static struct io_address server_address(void)
{
    return (struct io_address){.ip = {[10] = 0xff, [11] = 0xff, [12] = 127, [15] = 1},
                               .port = PORT};
}

static void client_send(struct clients *clients, struct client *client)
{
    struct world *world = clients->echo->run->world;
    size_t left = STREAM_BYTES - client->sent;
    if (left == 0 || client->sending > 0 || client->closing)
        return;
    size_t most = left < CHUNK_MAX ? left : CHUNK_MAX;
    client->sending = (size_t)world_between(world, 1, most);
    io_send(clients->io, client->conn, bytes_of(client->stream + client->sent, client->sending));
}

static void client_close(struct clients *clients, struct client *client)
{
    if (!client->closing)
        io_close(clients->io, client->conn);
    client->closing = true;
}

static void client_lost(struct clients *clients, struct client *client)
{
    struct world *world = clients->echo->run->world;
    bool finished = client->finished;
    client->conn = (struct io_conn){0};
    client->connected = client->closing = false;
    client->sent = client->sending = client->echoed = 0;
    client->next = world->now_ns + (finished ? 0 : world_below(world, NS_PER_S));
}

static void client_received(struct clients *clients, struct client *client,
                            const struct io_event *event)
{
    struct run *run = clients->echo->run;
    if (event->err != OK) {
        client_close(clients, client);
        return;
    }
    RUN_EXPECT(run, client->echoed + event->data.size <= client->sent + client->sending);
    RUN_EXPECT(run,
               memcmp(client->stream + client->echoed, event->data.data, event->data.size) == 0);
    client->echoed += event->data.size;
    client->next = run->world->now_ns + SILENT_NS;
    io_release(clients->io, event->buffer);
    if (client->echoed < STREAM_BYTES) {
        io_receive(clients->io, client->conn);
        return;
    }
    client->finished = client->in_calm;
    client_close(clients, client);
}

static void client_event(struct clients *clients, const struct io_event *event)
{
    struct client *client = (struct client *)(uintptr_t)event->owner;
    switch (event->kind) {
    case IO_CONNECTED:
        client->connected = event->err == OK;
        if (event->err != OK) {
            client_lost(clients, client);
            return;
        }
        io_receive(clients->io, client->conn);
        client_send(clients, client);
        return;
    case IO_SENT:
        client->sent += event->err == OK ? client->sending : 0;
        client->sending = 0;
        if (event->err == OK)
            client_send(clients, client);
        else
            client_close(clients, client);
        return;
    case IO_RECEIVED:
        client_received(clients, client, event);
        return;
    case IO_CLOSED:
        client_lost(clients, client);
        return;
    case IO_ACCEPTED:
    case IO_MOVED_IN:
    case IO_MOVED_OUT:
    case IO_MOVE_FAILED:
    case IO_FILE_DONE:
        run_fail(clients->echo->run, "an event that nobody asked for");
        return;
    }
}

static void client_tick(struct clients *clients, struct client *client)
{
    struct world *world = clients->echo->run->world;
    if (world->now_ns < client->next || client->finished || client->closing)
        return;
    client->next = world->now_ns + SILENT_NS;
    if (client->conn.v != 0) { /* silent for too long */
        if (client->connected)
            client_close(clients, client);
        return;
    }
    struct io_address target = server_address();
    client->in_calm = clients->echo->run->calm;
    for (size_t i = 0; i < STREAM_BYTES; i++)
        client->stream[i] = (uint8_t)world_random(world);
    enum err err =
        io_connect(clients->io, &client->conn, &target, NULL, (uint64_t)(uintptr_t)client);
    RUN_EXPECT(clients->echo->run, err == OK);
}

static size_t clients_turn(void *self)
{
    struct clients *clients = self;
    struct io_event events[8];
    size_t count = io_poll(clients->io, events, COUNT_OF(events), 0);
    for (size_t i = 0; i < count; i++)
        client_event(clients, &events[i]);
    for (size_t i = 0; i < CLIENTS; i++)
        client_tick(clients, &clients->client[i]);
    return count;
}

static uint64_t clients_next_ns(void *self)
{
    struct clients *clients = self;
    uint64_t next = UINT64_MAX;
    for (size_t i = 0; i < CLIENTS; i++)
        if (!clients->client[i].finished && clients->client[i].next < next)
            next = clients->client[i].next;
    return next;
}

/* ---- the story */

static struct io *make_io(struct io_group *group, uint32_t index, uint32_t count,
                          uint32_t connections, uint32_t buffers)
{
    struct io_options options = {.index = index,
                                 .count = count,
                                 .connections_max = connections,
                                 .buffers_count = buffers,
                                 .buffer_bytes = CHUNK_MAX,
                                 .files_max = 4,
                                 .cpu = -1};
    struct io *io;
    enum err err = io_create(&io, group, &options);
    CHECK(err == OK);
    return io;
}

static void set_up(struct run *run)
{
    struct echo *echo = world_take(1, sizeof *echo);
    run->state = echo;
    echo->run = run;
    enum err err = io_group_create(&echo->server_group, SERVERS);
    CHECK(err == OK);
    err = io_group_create(&echo->client_group, 1);
    CHECK(err == OK);
    for (uint32_t i = 0; i < SERVERS; i++) {
        struct server *server = &echo->server[i];
        struct io_listen_options listen = {
            .address = server_address(), .backlog = 4, .accepts = 2, .reuse_port = true};
        struct io_address bound;
        server->echo = echo;
        server->index = i;
        server->io = make_io(echo->server_group, i, SERVERS, CLIENTS, 2);
        err = io_listen(server->io, &server->listener, &bound, &listen);
        CHECK(err == OK);
        run_add(run, (struct actor){"server", server, server_turn, server_next_ns});
    }
    echo->clients.echo = echo;
    echo->clients.io = make_io(echo->client_group, 0, 1, CLIENTS, 3);
    run_add(run, (struct actor){"clients", &echo->clients, clients_turn, clients_next_ns});
}

static bool done(struct run *run)
{
    struct echo *echo = run->state;
    for (size_t i = 0; i < CLIENTS; i++)
        if (!echo->clients.client[i].finished || echo->clients.client[i].conn.v != 0)
            return false;
    for (size_t i = 0; i < SERVERS; i++)
        if (io_connections(echo->server[i].io) > 0)
            return false;
    return true;
}

static void check(struct run *run)
{
    struct echo *echo = run->state;
    for (size_t i = 0; i < SERVERS; i++) {
        RUN_EXPECT(run, echo->server[i].gained == echo->server[i].lost);
        RUN_EXPECT(run, echo->server[i].conns == NULL);
    }
    RUN_EXPECT(run, io_connections(echo->clients.io) == 0);
    RUN_EXPECT(run, echo->moves > 0);
}

static void tear_down(struct run *run)
{
    struct echo *echo = run->state;
    for (size_t i = 0; i < SERVERS; i++) {
        while (echo->server[i].conns) {
            struct echo_conn *c = echo->server[i].conns;
            conn_remove(c);
            free(c);
        }
        io_destroy(echo->server[i].io);
    }
    io_destroy(echo->clients.io);
    io_group_destroy(echo->server_group);
    io_group_destroy(echo->client_group);
    free(echo);
}

const struct scenario scenario_echo = {
    .name = "echo",
    .about = "streams echoed by a service that moves its connections, over a bad network",
    .faults_ns = 8 * NS_PER_S,
    .limit_ns = 600 * NS_PER_S,
    .set_up = set_up,
    .done = done,
    .check = check,
    .tear_down = tear_down,
};
