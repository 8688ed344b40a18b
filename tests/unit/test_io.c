/* test_io.c: core/io.h against the real kernel over loopback: connections, events, sleep, files.
 * Moving connections: test_io_move.c. */
#include "tests/unit/io_world.h"

/* ---- the tests */

static void test_echo_and_addresses(void **state)
{
    (void)state;
    const struct io_options options = options_of(16, 0, 1);
    struct world *world = world_open(&options);
    struct io_address bound;
    struct io_listener listener = listen_on(world, &bound, 4);
    const struct io_address source = loopback(9, 0);
    struct pair pair = pair_open(world, &bound, &source);
    assert_int_equal(pair.accepted.listener.v, listener.v);
    assert_memory_equal(pair.accepted.peer.ip, source.ip, sizeof source.ip);
    assert_true(pair.accepted.peer.port != 0);
    assert_int_equal(pair.accepted.owner, 0);
    assert_int_equal(transfer(world, pair.client, pair.server, 1, 1), 1);
    (void)transfer(world, pair.client, pair.server, 5000, 2);
    (void)transfer(world, pair.server, pair.client, 8 << 20, 3); /* many partial sends */
    io_set_owner(world->io, pair.server, 4711);
    io_receive(world->io, pair.server);
    io_send(world->io, pair.client, bytes_of("x", 1));
    struct io_event event = wait_for(world, IO_RECEIVED, pair.server);
    assert_int_equal(event.owner, 4711);
    io_release(world->io, event.buffer);
    assert_int_equal(io_connections(world->io), 2);
    close_both(world, &pair);
    assert_int_equal(io_connections(world->io), 0);
    world_close(world);
}

static void test_ipv6_peer(void **state)
{
    (void)state;
    const struct io_options options = options_of(16, 0, 1);
    struct world *world = world_open(&options);
    struct io_address bound;
    struct io_listener listener;
    const struct io_listen_options listen_options = {
        .address = {.ip = {[15] = 1}}, .backlog = 16, .accepts = 2};
    if (io_listen(world->io, &listener, &bound, &listen_options) != OK) {
        world_close(world);
        skip(); /* a host without IPv6 */
    }
    struct pair pair = pair_open(world, &bound, NULL);
    assert_memory_equal(pair.accepted.peer.ip, listen_options.address.ip, 16);
    (void)transfer(world, pair.client, pair.server, 3000, 9);
    close_both(world, &pair);
    world_close(world);
}

static void test_close_is_seen_by_the_peer(void **state)
{
    (void)state;
    const struct io_options options = options_of(16, 0, 1);
    struct world *world = world_open(&options);
    struct io_address bound;
    (void)listen_on(world, &bound, 2);
    struct pair idle = pair_open(world, &bound, NULL); /* its armed poll must delay nobody's end */
    io_receive(world->io, idle.server);
    for (int side = 0; side < 2; side++) {
        struct pair pair = pair_open(world, &bound, NULL);
        struct io_conn closer = side == 0 ? pair.client : pair.server;
        struct io_conn other = side == 0 ? pair.server : pair.client;
        io_receive(world->io, other);
        io_receive(world->io, closer); /* armed: cancelled, answered, then closed */
        settle(world);
        io_close(world->io, closer);
        io_close(world->io, closer); /* twice is once */
        struct io_event event = wait_for(world, IO_RECEIVED, closer);
        assert_int_equal(event.err, ERR_CANCELLED);
        assert_int_equal(wait_for(world, IO_CLOSED, closer).err, OK);
        assert_int_equal(wait_for(world, IO_RECEIVED, other).err, ERR_CLOSED);
        io_close(world->io, other);
        (void)wait_for(world, IO_CLOSED, other);
        settle(world);
        assert_int_equal(world->kept_count, 0);
    }
    close_both(world, &idle);
    world_close(world);
}

static void test_close_with_a_send_in_flight(void **state)
{
    (void)state;
    const struct io_options options = options_of(16, 0, 1);
    struct world *world = world_open(&options);
    struct io_address bound;
    (void)listen_on(world, &bound, 2);
    struct pair pair = pair_open(world, &bound, NULL);
    size_t size = 64 << 20; /* more than the kernel's buffers */
    uint8_t *data = calloc(1, size);
    assert_non_null(data);
    io_send(world->io, pair.server, bytes_of(data, size));
    settle(world);
    assert_int_equal(world->kept_count, 0);
    io_close(world->io, pair.server);
    assert_int_equal(wait_for(world, IO_SENT, pair.server).err, ERR_CANCELLED);
    assert_int_equal(wait_for(world, IO_CLOSED, pair.server).err, OK);
    free(data);
    io_close(world->io, pair.client);
    (void)wait_for(world, IO_CLOSED, pair.client);
    world_close(world);
}

static void test_peer_reset(void **state)
{
    (void)state;
    const struct io_options options = options_of(16, 0, 1);
    struct world *world = world_open(&options);
    struct io_address bound;
    (void)listen_on(world, &bound, 2);
    struct pair pair = pair_open(world, &bound, NULL);
    /* closing with unread bytes resets */
    io_send(world->io, pair.client, bytes_of("unread", 6));
    assert_int_equal(wait_for(world, IO_SENT, pair.client).err, OK);
    settle(world);
    io_receive(world->io, pair.client);
    io_close(world->io, pair.server);
    (void)wait_for(world, IO_CLOSED, pair.server);
    struct io_event event = wait_for(world, IO_RECEIVED, pair.client);
    assert_true(event.err == ERR_RESET || event.err == ERR_CLOSED);
    enum err err = OK;
    for (int i = 0; i < 3 && err == OK; i++) {
        io_send(world->io, pair.client, bytes_of("more", 4));
        err = wait_for(world, IO_SENT, pair.client).err;
    }
    assert_int_equal(err, ERR_RESET);
    io_close(world->io, pair.client);
    (void)wait_for(world, IO_CLOSED, pair.client);
    world_close(world);
}

/* An old kernel frees closed sockets only after what was armed before them, so that polls are armed
 * anew while others close: a silent connection and a full one must not notice. */
static void test_closes_disturb_nobody(void **state)
{
    (void)state;
    const struct io_options options = options_of(16, 0, 1);
    struct world *world = world_open(&options);
    struct io_address bound;
    (void)listen_on(world, &bound, 4);
    struct pair idle = pair_open(world, &bound, NULL);
    struct pair full = pair_open(world, &bound, NULL);
    static uint8_t data[8 << 20];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 31 + i / 251);
    io_receive(world->io, idle.server);
    io_send(world->io, full.server, bytes_of(data, sizeof data));
    for (int i = 0; i < 700; i++) {
        struct pair pair = pair_open(world, &bound, NULL);
        close_both(world, &pair);
    }
    assert_int_equal(world->kept_count, 0);
    io_send(world->io, idle.client, bytes_of("still here", 10));
    struct io_event event = wait_for(world, IO_RECEIVED, idle.server);
    assert_int_equal(event.err, OK);
    assert_int_equal(event.data.size, 10);
    io_release(world->io, event.buffer);
    for (size_t at = 0; at < sizeof data;) {
        io_receive(world->io, full.client);
        event = wait_for(world, IO_RECEIVED, full.client);
        assert_int_equal(event.err, OK);
        assert_true(event.data.size <= sizeof data - at);
        assert_memory_equal(event.data.data, data + at, event.data.size);
        at += event.data.size;
        io_release(world->io, event.buffer);
    }
    assert_int_equal(wait_for(world, IO_SENT, full.server).err, OK);
    close_both(world, &idle);
    close_both(world, &full);
    world_close(world);
}

static void test_stale_handles_reach_nobody(void **state)
{
    (void)state;
    const struct io_options options = options_of(4, 0, 1);
    struct world *world = world_open(&options);
    struct io_address bound;
    (void)listen_on(world, &bound, 1);
    struct pair first = pair_open(world, &bound, NULL);
    close_both(world, &first);
    struct pair second = pair_open(world, &bound, NULL); /* the same entries again */
    assert_true(second.server.v != first.server.v);
    const struct io_conn stale[] = {first.client, first.server, {0}, {UINT64_MAX}, {1ull << 32}};
    for (size_t i = 0; i < COUNT_OF(stale); i++) {
        io_set_owner(world->io, stale[i], 99);
        io_receive(world->io, stale[i]);
        io_send(world->io, stale[i], bytes_of("not for you", 11));
        io_close(world->io, stale[i]);
    }
    settle(world);
    assert_int_equal(world->kept_count, 0);
    (void)transfer(world, second.client, second.server, 100, 5);
    io_receive(world->io, second.client);
    io_send(world->io, second.server, bytes_of("y", 1));
    struct io_event event = wait_for(world, IO_RECEIVED, second.client);
    assert_int_equal(event.owner, 77);
    assert_int_equal(event.data.size, 1);
    io_release(world->io, event.buffer);
    (void)wait_for(world, IO_SENT, second.server);
    close_both(world, &second);
    world_close(world);
}

static void test_connect_refused_and_cancelled(void **state)
{
    (void)state;
    const struct io_options options = options_of(8, 0, 1);
    struct world *world = world_open(&options);
    struct io_address bound;
    struct io_listener listener = listen_on(world, &bound, 1);
    io_listen_close(world->io, listener);
    settle(world);
    struct io_conn conn;
    const struct io_conn any = {0};
    assert_int_equal(io_connect(world->io, &conn, &bound, NULL, 5), OK);
    struct io_event event = wait_for(world, IO_CONNECTED, any);
    assert_int_equal(event.err, ERR_RESET);
    assert_int_equal(event.owner, 5);
    assert_int_equal(event.conn.v, conn.v);
    assert_int_equal(io_connections(world->io), 0);
    /* closed before it is connected: one answer, IO_CONNECTED */
    (void)listen_on(world, &bound, 1);
    assert_int_equal(io_connect(world->io, &conn, &bound, NULL, 6), OK);
    io_close(world->io, conn);
    assert_int_equal(wait_for(world, IO_CONNECTED, conn).err, ERR_CANCELLED);
    settle(world);
    assert_false(take(world, &event, IO_CLOSED, conn));
    /* a source that is not ours */
    const struct io_address foreign = {.ip = {[10] = 0xff, [11] = 0xff, 192, 0, 2, 1}};
    assert_int_equal(io_connect(world->io, &conn, &bound, &foreign, 7), ERR_ADDRESS);
    assert_non_null(strstr(io_explain(world->io), "192.0.2.1"));
    world_close(world);
}

static void test_busy_port_is_explained(void **state)
{
    (void)state;
    const struct io_options options = options_of(8, 0, 1);
    struct world *world = world_open(&options);
    struct io_address bound, other;
    struct io_listener listener = listen_on(world, &bound, 1);
    struct io_listener second;
    const struct io_listen_options again = {.address = bound, .backlog = 1, .accepts = 1};
    assert_int_equal(io_listen(world->io, &second, &other, &again), ERR_ADDRESS);
    char port[16];
    (void)snprintf(port, sizeof port, ":%u:", bound.port);
    assert_non_null(strstr(io_explain(world->io), port));
    assert_null(strchr(io_explain(world->io), '\n'));
    assert_int_equal(io_listen_probe(world->io, &bound), ERR_ADDRESS);
    io_listen_close(world->io, listener);
    settle(world);
    assert_int_equal(io_listen_probe(world->io, &bound), OK);
    world_close(world);
}

static void test_reuse_port_listeners_share(void **state)
{
    (void)state;
    const struct io_options options = options_of(128, 0, 1);
    struct world *world = world_open(&options);
    struct io_address bound, same;
    struct io_listener one, two;
    struct io_listen_options listen_options = {
        .address = loopback(1, 0), .backlog = 64, .accepts = 4, .reuse_port = true};
    assert_int_equal(io_listen(world->io, &one, &bound, &listen_options), OK);
    listen_options.address = bound;
    assert_int_equal(io_listen(world->io, &two, &same, &listen_options), OK);
    bool seen[2] = {false, false};
    for (int i = 0; i < 30; i++)
        seen[pair_open(world, &bound, NULL).accepted.listener.v == two.v] = true;
    assert_true(seen[0] && seen[1]);
    world_close(world);
}

static void wait_for_connections(struct world *world, uint32_t count)
{
    uint64_t limit = io_now_ns(world->io) + PATIENCE_NS;
    while (io_connections(world->io) < count && io_now_ns(world->io) < limit)
        world_poll(world, limit);
}

static void test_accepts_stop_and_go_on(void **state)
{
    (void)state;
    const struct io_options server_options = options_of(5, 0, 1);
    const struct io_options client_options = options_of(16, 0, 1);
    struct world *server = world_open(&server_options);
    struct world *client = world_open(&client_options);
    struct io_address bound;
    struct io_listener listener = listen_on(server, &bound, 8);
    struct io_conn conns[9];
    for (size_t i = 0; i < COUNT_OF(conns); i++)
        assert_int_equal(io_connect(client->io, &conns[i], &bound, NULL, i), OK);
    for (size_t i = 0; i < COUNT_OF(conns); i++) /* four of them by the backlog */
        assert_int_equal(wait_for(client, IO_CONNECTED, conns[i]).err, OK);
    wait_for_connections(server, 5);
    settle(server);
    assert_int_equal(io_connections(server->io), 5);
    struct io_event event;
    struct io_conn none;
    assert_int_equal(io_connect(server->io, &none, &bound, NULL, 0), ERR_FULL);
    for (uint32_t i = 0; i < 4; i++) { /* each end lets one in */
        assert_true(take(server, &event, IO_ACCEPTED, (struct io_conn){0}));
        io_close(server->io, event.conn);
        (void)wait_for(server, IO_CLOSED, event.conn);
        wait_for_connections(server, 5);
        settle(server);
        assert_int_equal(io_connections(server->io), 5);
    }
    assert_int_equal(drain(server, IO_ACCEPTED), 5);
    /* pause: the next waits in the backlog until resume */
    io_accept_pause(server->io, listener);
    settle(server);
    io_close(client->io, conns[8]);
    (void)wait_for(client, IO_CLOSED, conns[8]);
    settle(server);
    world_close(client);
    world_close(server);
}

static void test_accept_pause_and_resume(void **state)
{
    (void)state;
    const struct io_options options = options_of(16, 0, 1);
    struct world *world = world_open(&options);
    struct io_address bound;
    struct io_listener listener = listen_on(world, &bound, 4);
    const struct io_conn any = {0};
    io_accept_pause(world->io, listener);
    settle(world);
    struct io_conn conn;
    struct io_event event;
    assert_int_equal(io_connect(world->io, &conn, &bound, NULL, 0), OK);
    assert_int_equal(wait_for(world, IO_CONNECTED, conn).err, OK);
    settle(world);
    assert_false(take(world, &event, IO_ACCEPTED, any));
    io_accept_resume(world->io, listener);
    (void)wait_for(world, IO_ACCEPTED, any);
    io_listen_close(world->io, listener);
    assert_int_equal(io_connect(world->io, &conn, &bound, NULL, 0), OK);
    assert_int_equal(wait_for(world, IO_CONNECTED, conn).err, ERR_RESET);
    world_close(world);
}

static void test_thousand_connections_over_banks(void **state)
{
    (void)state;
    enum { COUNT = 500 }; /* pairs: 1,000 connections of one io, under 256 descriptors */
    const struct io_options options = options_of(2 * COUNT + 16, 0, 1);
    struct world *world = world_open(&options);
    struct io_address bound;
    (void)listen_on(world, &bound, 16);
    static struct pair pairs[COUNT];
    for (size_t i = 0; i < COUNT; i++)
        pairs[i] = pair_open(world, &bound, NULL);
    assert_int_equal(io_connections(world->io), 2 * COUNT);
    for (size_t i = 0; i < COUNT; i++) { /* all armed; every one gets its own bytes */
        io_receive(world->io, pairs[i].server);
        io_set_owner(world->io, pairs[i].server, i);
    }
    static uint32_t messages[COUNT];
    static bool answered[COUNT];
    for (uint32_t i = 0; i < COUNT; i++) {
        messages[i] = i;
        io_send(world->io, pairs[i].client, bytes_of(&messages[i], sizeof messages[i]));
    }
    for (uint32_t i = 0; i < COUNT; i++) {
        struct io_event event = wait_for(world, IO_RECEIVED, (struct io_conn){0});
        assert_int_equal(event.err, OK);
        assert_int_equal(event.data.size, sizeof messages[0]);
        assert_int_equal(load_u32(event.data.data), event.owner);
        assert_false(answered[event.owner]);
        answered[event.owner] = true;
        io_release(world->io, event.buffer); /* 64 buffers for 500: the others waited */
    }
    for (uint32_t i = 0; i < COUNT; i++)
        (void)wait_for(world, IO_SENT, pairs[i].client);
    for (size_t i = 0; i < COUNT; i++) {
        io_close(world->io, pairs[i].client);
        io_close(world->io, pairs[i].server);
    }
    for (size_t i = 0; i < 2 * COUNT; i++)
        (void)wait_for(world, IO_CLOSED, (struct io_conn){0});
    assert_int_equal(io_connections(world->io), 0);
    settle(world);
    struct pair again = pair_open(world, &bound, NULL);
    (void)transfer(world, again.client, again.server, 10000, 1);
    world_close(world);
}

static void test_small_capacity_loses_no_event(void **state)
{
    (void)state;
    enum { COUNT = 40 };
    const struct io_options options = options_of(512, 0, 1); /* three banks */
    struct world *world = world_open(&options);
    struct io_address bound;
    (void)listen_on(world, &bound, 8);
    struct pair pairs[COUNT];
    for (size_t i = 0; i < COUNT; i++)
        pairs[i] = pair_open(world, &bound, NULL);
    for (size_t i = 0; i < COUNT; i++) {
        io_receive(world->io, pairs[i].server);
        io_send(world->io, pairs[i].client, bytes_of("m", 1));
    }
    uint32_t received = 0, sent = 0;
    uint64_t limit = io_now_ns(world->io) + PATIENCE_NS;
    while ((received < COUNT || sent < COUNT) && io_now_ns(world->io) < limit) {
        struct io_event event;
        if (io_poll(world->io, &event, 1, limit) == 0)
            continue;
        received += event.kind == IO_RECEIVED;
        sent += event.kind == IO_SENT;
        if (event.kind == IO_RECEIVED)
            io_release(world->io, event.buffer);
    }
    assert_int_equal(received, COUNT);
    assert_int_equal(sent, COUNT);
    world_close(world);
}

static void test_receive_waits_for_a_buffer(void **state)
{
    (void)state;
    struct io_options options = options_of(16, 0, 1);
    options.buffers_count = 1;
    struct world *world = world_open(&options);
    struct io_address bound;
    (void)listen_on(world, &bound, 4);
    struct pair pairs[4];
    for (size_t i = 0; i < 4; i++) {
        pairs[i] = pair_open(world, &bound, NULL);
        io_receive(world->io, pairs[i].server);
        io_send(world->io, pairs[i].client, bytes_of("z", 1));
        assert_int_equal(wait_for(world, IO_SENT, pairs[i].client).err, OK);
    }
    settle(world);
    struct io_event first = wait_for(world, IO_RECEIVED, (struct io_conn){0});
    assert_int_equal(first.err, OK);
    settle(world);
    assert_int_equal(world->kept_count, 0); /* three wait */
    io_close(world->io, pairs[2].server);   /* one of them leaves: answered, then closed */
    assert_int_equal(wait_for(world, IO_RECEIVED, pairs[2].server).err, ERR_CANCELLED);
    (void)wait_for(world, IO_CLOSED, pairs[2].server);
    io_release(world->io, first.buffer);
    uint32_t got = 1;
    for (size_t i = 0; i < 4; i++) {
        struct io_event event;
        if (i == 2 || pairs[i].server.v == first.conn.v)
            continue;
        event = wait_for(world, IO_RECEIVED, pairs[i].server);
        assert_int_equal(event.err, OK);
        io_release(world->io, event.buffer);
        got++;
    }
    assert_int_equal(got, 3);
    world_close(world);
}

/* ---- sleeping and waking */

static uint64_t elapsed_ms(uint64_t since_ns, const struct io *io)
{
    return (io_now_ns(io) - since_ns) / NS_PER_MS;
}

static void test_deadline(void **state)
{
    (void)state;
    for (uint32_t connections = 8; connections < 1024; connections += 700) { /* 1 bank, several */
        const struct io_options options = options_of(connections, 0, 1);
        struct world *world = world_open(&options);
        struct io_event events[4];
        for (int i = 0; i < 3; i++)
            (void)io_poll(world->io, events, 4, 0);
        uint64_t start = io_now_ns(world->io);
        assert_int_equal(io_poll(world->io, events, 4, 0), 0);
        assert_true(elapsed_ms(start, world->io) < 20);
        start = io_now_ns(world->io);
        assert_int_equal(io_poll(world->io, events, 4, start + 60 * NS_PER_MS), 0);
        assert_in_range(elapsed_ms(start, world->io), 59, 500);
        start = io_now_ns(world->io);
        assert_int_equal(io_poll(world->io, events, 4, start - 1), 0); /* past */
        assert_true(elapsed_ms(start, world->io) < 20);
        struct timespec wall;
        assert_int_equal(clock_gettime(CLOCK_REALTIME, &wall), 0);
        uint64_t wall_ms = (uint64_t)wall.tv_sec * 1000 + (uint64_t)wall.tv_nsec / NS_PER_MS;
        assert_true(wall_ms - io_wall_ms(world->io) < 1000);
        world_close(world);
    }
}

struct waker {
    struct io_group *group;
    _Atomic uint32_t round;
    _Atomic uint32_t seen;
    uint32_t rounds;
    bool slowly;
};

static void *waker_main(void *argument)
{
    struct waker *waker = argument;
    const struct timespec pause = {.tv_nsec = 2 * (long)NS_PER_MS};
    for (uint32_t i = 1; i <= waker->rounds; i++) {
        if (waker->slowly)
            (void)nanosleep(&pause, NULL);
        atomic_store(&waker->round, i);
        io_wake(waker->group, 0);
        while (waker->slowly && atomic_load(&waker->seen) != i)
            (void)sched_yield();
    }
    return NULL;
}

static void test_wake_from_another_thread(void **state)
{
    (void)state;
    for (int variant = 0; variant < 4; variant++) {
        const struct io_options options = options_of(variant % 2 == 0 ? 8 : 700, 0, 1);
        struct world *world = world_open(&options);
        struct waker waker = {.group = world->group,
                              .rounds = variant / 2 == 0 ? 50 : 20000,
                              .slowly = variant / 2 == 0};
        struct io_event events[4];
        pthread_t thread;
        /* one before: the next sleep does not happen */
        io_wake(world->group, 0);
        uint64_t start = io_now_ns(world->io);
        assert_int_equal(io_poll(world->io, events, 4, UINT64_MAX), 0);
        assert_true(elapsed_ms(start, world->io) < 1000);
        assert_int_equal(pthread_create(&thread, NULL, waker_main, &waker), 0);
        uint32_t seen = 0;
        while (seen < waker.rounds) { /* a lost wake-up would sleep for ever: the deadline shows */
            start = io_now_ns(world->io);
            (void)io_poll(world->io, events, 4, start + PATIENCE_NS);
            assert_true(io_now_ns(world->io) < start + PATIENCE_NS);
            seen = atomic_load(&waker.round);
            atomic_store(&waker.seen, seen);
        }
        assert_int_equal(pthread_join(thread, NULL), 0);
        world_close(world);
    }
}

static void test_entropy(void **state)
{
    (void)state;
    const struct io_options options = options_of(8, 0, 1);
    struct world *world = world_open(&options);
    uint8_t a[64] = {0}, b[64] = {0};
    io_entropy(world->io, a, sizeof a);
    io_entropy(world->io, b, sizeof b);
    assert_memory_not_equal(a, b, sizeof a);
    world_close(world);
}

static void test_options_the_host_refuses(void **state)
{
    (void)state;
    struct io_options options = options_of(8, 0, 1);
    struct io_group *group;
    struct io *io;
    assert_int_equal(io_group_create(&group, 1), OK);
    options.cpu = 1023;
    assert_int_equal(io_create(&io, group, &options), ERR_INVALID);
    assert_non_null(strstr(io_explain(io), "CPU 1023"));
    io_destroy(io);
    options.cpu = -1;
    options.connections_max = 3000000; /* 256 descriptors: too many rings */
    assert_int_equal(io_create(&io, group, &options), ERR_NO_DESCRIPTORS);
    assert_non_null(strstr(io_explain(io), "RLIMIT_NOFILE"));
    assert_null(strchr(io_explain(io), '\n'));
    io_destroy(io);
    io_group_destroy(group);
}

/* ---- files */

static void file_test(const char *path, size_t size, bool pin)
{
    const struct io_options options = options_of(8, 0, 1);
    struct world *world = world_open(&options);
    const struct io_conn any = {0};
    int fd;
    assert_int_equal(file_open(&fd, path, FILE_WRITE | FILE_CREATE), OK);
    uint8_t *data = malloc(size);
    uint8_t *got = calloc(1, size + 100);
    assert_non_null(data);
    assert_non_null(got);
    if (pin && io_file_pin(world->io, data, size) != OK) {
        print_message("SKIPPED pinned write: RLIMIT_MEMLOCK\n");
        pin = false;
    }
    if (pin) {
        assert_int_equal(io_file_pin(world->io, got, size), ERR_FULL);
        io_file_unpin(world->io, got); /* not the one */
        assert_int_equal(io_file_pin(world->io, got, size), ERR_FULL);
    }
    for (size_t i = 0; i < size; i++)
        data[i] = (uint8_t)(i * 7 + i / 1000);
    struct io_file_op op = {.owner = 12};
    assert_int_equal(io_file_write(world->io, &op, fd, 512, bytes_of(data, size), true), OK);
    struct io_event event = wait_for(world, IO_FILE_DONE, any);
    assert_int_equal(event.err, OK);
    assert_ptr_equal(event.op, &op);
    assert_int_equal(event.owner, 12);
    assert_int_equal(op.err, OK);
    assert_int_equal(op.done_bytes, size);
    assert_int_equal(io_file_read(world->io, &op, fd, 512, got, size + 100), OK);
    assert_int_equal(wait_for(world, IO_FILE_DONE, any).err, OK);
    assert_int_equal(op.done_bytes, size); /* short at the end */
    assert_memory_equal(got, data, size);
    if (pin) {
        io_file_unpin(world->io, data);
        assert_int_equal(io_file_pin(world->io, got, size), OK);
    }
    free(data);
    free(got);
    file_close(fd);
    assert_int_equal(file_remove(path), OK);
    world_close(world);
}

static void test_file_write_sync_and_read(void **state)
{
    (void)state;
    char path[64];
    (void)snprintf(path, sizeof path, "out/test_io.%d.tmp", (int)getpid());
    file_test(path, 100, false);
    file_test(path, 3 << 20, false);
    file_test(path, 3 << 20, true);
}

/* advanced: a direct write's sync ends without io_poll. */
static bool advanced(struct world *world, int fd, uint8_t *block)
{
    struct io_file_op op = {.owner = 3};
    struct io_event event;
    assert_int_equal(io_file_write(world->io, &op, fd, 0, bytes_of(block, 4096), true), OK);
    io_file_submit(world->io);
    for (int i = 0; i < 200; i++) {
        (void)usleep(1000);
        io_file_advance(world->io);
    }
    if (io_poll(world->io, &event, 1, 0) == 1) { /* one that had to begin the sync reaps nothing */
        assert_ptr_equal(event.op, &op);
        return true;
    }
    assert_ptr_equal(wait_for(world, IO_FILE_DONE, (struct io_conn){0}).op, &op);
    return false;
}

static void test_file_advance_begins_the_sync(void **state)
{
    (void)state;
    const struct io_options options = options_of(8, 0, 1);
    struct world *world = world_open(&options);
    char path[64];
    int fd;
    (void)snprintf(path, sizeof path, "out/test_io.%d.tmp", (int)getpid());
    if (strstr(io_features(world->io), "taskrun_flag") == NULL ||
        file_open(&fd, path, FILE_WRITE | FILE_CREATE | FILE_DIRECT) != OK) {
        print_message("SKIPPED: no taskrun_flag, or no O_DIRECT here\n");
        world_close(world);
        return;
    }
    uint8_t *block = aligned_alloc(4096, 4096);
    assert_non_null(block);
    memset(block, 1, 4096);
    bool any = false; /* a disk may be slow for a while */
    for (int i = 0; i < 20 && !any; i++)
        any = advanced(world, fd, block);
    assert_true(any);
    free(block);
    file_close(fd);
    assert_int_equal(file_remove(path), OK);
    world_close(world);
}

static enum err file_result(struct world *world, const char *path, uint32_t flags, bool sync)
{
    int fd;
    struct io_file_op op = {.owner = 1};
    assert_int_equal(file_open(&fd, path, flags), OK);
    assert_int_equal(io_file_write(world->io, &op, fd, 0, bytes_of("data", 4), sync), OK);
    struct io_event event = wait_for(world, IO_FILE_DONE, (struct io_conn){0});
    assert_int_equal(event.err, op.err);
    settle(world);
    assert_int_equal(world->kept_count, 0); /* one answer for write and sync */
    file_close(fd);
    return event.err;
}

static void test_file_errors(void **state)
{
    (void)state;
    const struct io_options options = options_of(8, 0, 1);
    struct world *world = world_open(&options);
    assert_int_equal(file_result(world, "/dev/full", FILE_WRITE, false), ERR_NO_SPACE);
    assert_int_equal(file_result(world, "/dev/full", FILE_WRITE, true), ERR_NO_SPACE);
    /* the write goes well, the sync does not (EINVAL on a device): not durable, an error */
    assert_int_equal(file_result(world, "/dev/null", FILE_WRITE, false), OK);
    assert_int_equal(file_result(world, "/dev/null", FILE_WRITE, true), ERR_INVALID);
    /* not open for writing */
    assert_int_equal(file_result(world, "/dev/zero", FILE_READ, true), ERR_INVALID);
    struct io_file_op ops[9] = {0};
    uint8_t byte[9];
    int fd;
    assert_int_equal(file_open(&fd, "/dev/zero", FILE_READ), OK);
    for (size_t i = 0; i < 8; i++)
        assert_int_equal(io_file_read(world->io, &ops[i], fd, 0, &byte[i], 1), OK);
    assert_int_equal(io_file_read(world->io, &ops[8], fd, 0, &byte[8], 1), ERR_FULL);
    for (size_t i = 0; i < 8; i++)
        assert_int_equal(wait_for(world, IO_FILE_DONE, (struct io_conn){0}).err, OK);
    assert_int_equal(io_file_read(world->io, &ops[8], fd, 0, &byte[8], 1), OK);
    world_close(world); /* waits for it */
    file_close(fd);
    assert_int_equal(ops[8].err, OK);
    assert_int_equal(ops[8].done_bytes, 1);
}

static void test_features(void **state)
{
    (void)state;
    const struct io_options options = options_of(8, 0, 1);
    struct world *world = world_open(&options);
    print_message("features: %s\n", io_features(world->io));
    assert_non_null(strstr(io_features(world->io), "close"));
    world_close(world);
}

int main(void)
{
    if (!descriptors_lower())
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_features),
        cmocka_unit_test(test_echo_and_addresses),
        cmocka_unit_test(test_ipv6_peer),
        cmocka_unit_test(test_close_is_seen_by_the_peer),
        cmocka_unit_test(test_close_with_a_send_in_flight),
        cmocka_unit_test(test_peer_reset),
        cmocka_unit_test(test_closes_disturb_nobody),
        cmocka_unit_test(test_stale_handles_reach_nobody),
        cmocka_unit_test(test_connect_refused_and_cancelled),
        cmocka_unit_test(test_busy_port_is_explained),
        cmocka_unit_test(test_reuse_port_listeners_share),
        cmocka_unit_test(test_accepts_stop_and_go_on),
        cmocka_unit_test(test_accept_pause_and_resume),
        cmocka_unit_test(test_thousand_connections_over_banks),
        cmocka_unit_test(test_small_capacity_loses_no_event),
        cmocka_unit_test(test_receive_waits_for_a_buffer),
        cmocka_unit_test(test_deadline),
        cmocka_unit_test(test_wake_from_another_thread),
        cmocka_unit_test(test_entropy),
        cmocka_unit_test(test_options_the_host_refuses),
        cmocka_unit_test(test_file_write_sync_and_read),
        cmocka_unit_test(test_file_advance_begins_the_sync),
        cmocka_unit_test(test_file_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
