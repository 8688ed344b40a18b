/* test_io_move.c: connections that move between the ios of a group, in one thread and between
 * threads, and an io that outlives its thread. */
#include "core/io_uring.h" /* to make a hint wrong */
#include "tests/unit/io_world.h"

/* ---- moving between threads. Two servers hand every connection to and fro after each message,
 * while a client checks that each byte comes back once and in order. */

enum { MOVERS = 24, MOVE_ROUNDS = 60, MOVE_BYTES = 300 };

struct session {
    uint64_t bytes;
    uint64_t moves;
    uint8_t out[4096];
};

struct mover {
    struct io_group *group;
    struct io_options options;
    struct io_address bound;
    _Atomic bool ready;
    _Atomic bool stop;
    _Atomic uint32_t moved_out, moved_in, failed, lost;
    bool listens;
};

static void mover_event(struct mover *mover, struct io *io, const struct io_event *event)
{
    struct session *session = (struct session *)(uintptr_t)event->owner;
    switch (event->kind) {
    case IO_ACCEPTED:
        session = calloc(1, sizeof *session);
        io_set_owner(io, event->conn, (uint64_t)(uintptr_t)session);
        io_receive(io, event->conn);
        return;
    case IO_RECEIVED:
        if (event->err != OK) {
            if (event->err != ERR_CANCELLED)
                io_close(io, event->conn);
            return;
        }
        memcpy(session->out, event->data.data, event->data.size);
        session->bytes += event->data.size;
        io_release(io, event->buffer);
        io_send(io, event->conn, bytes_of(session->out, event->data.size));
        return;
    case IO_SENT:
        if (event->err == OK) {
            if (session->moves++ % 2 == 0) /* with and without a receive armed */
                io_receive(io, event->conn);
            io_move(io, event->conn, 1 - mover->options.index, session);
        }
        return;
    case IO_MOVED_IN:
        session = event->cargo;
        io_set_owner(io, event->conn, (uint64_t)(uintptr_t)session);
        io_receive(io, event->conn);
        atomic_fetch_add(&mover->moved_in, 1);
        return;
    case IO_MOVED_OUT:
        atomic_fetch_add(&mover->moved_out, 1);
        return;
    case IO_MOVE_FAILED:
        /* with ERR_AGAIN its bytes came before and their echo is on its way */
        if (event->err != ERR_AGAIN)
            io_receive(io, event->conn);
        atomic_fetch_add(&mover->failed, 1);
        return;
    case IO_CLOSED:
        free(session);
        return;
    case IO_CONNECTED:
    case IO_FILE_DONE:
        atomic_fetch_add(&mover->lost, 1);
        return;
    }
}

static void *mover_main(void *argument)
{
    struct mover *mover = argument;
    struct io *io;
    struct io_event events[EVENTS];
    if (io_create(&io, mover->group, &mover->options) != OK)
        abort();
    if (mover->listens) {
        struct io_listener listener;
        const struct io_listen_options options = {
            .address = loopback(1, 0), .backlog = 128, .accepts = 8};
        if (io_listen(io, &listener, &mover->bound, &options) != OK)
            abort();
    }
    atomic_store(&mover->ready, true);
    while (!atomic_load(&mover->stop) || io_connections(io) != 0) {
        size_t count = io_poll(io, events, EVENTS, io_now_ns(io) + 20 * NS_PER_MS);
        for (size_t i = 0; i < count; i++)
            mover_event(mover, io, &events[i]);
    }
    io_destroy(io);
    return NULL;
}

struct caller {
    struct io_conn conn;
    uint32_t rounds;
    uint32_t got;
    uint8_t data[MOVE_BYTES];
};

static void caller_send(struct world *world, struct caller *caller, size_t index)
{
    for (size_t i = 0; i < MOVE_BYTES; i++)
        caller->data[i] = (uint8_t)(index * 3 + caller->rounds * 5 + i);
    caller->got = 0;
    io_send(world->io, caller->conn, bytes_of(caller->data, MOVE_BYTES));
}

/* callers_run: ping-pong on all connections until each had its rounds. */
static void callers_run(struct world *world, struct caller *callers)
{
    uint32_t done = 0;
    for (size_t i = 0; i < MOVERS; i++) {
        caller_send(world, &callers[i], i);
        io_receive(world->io, callers[i].conn);
    }
    while (done < MOVERS) {
        struct io_event event = wait_for(world, IO_RECEIVED, (struct io_conn){0});
        struct caller *caller = &callers[event.owner];
        assert_int_equal(event.err, OK);
        assert_true(event.data.size <= MOVE_BYTES - caller->got);
        assert_memory_equal(event.data.data, caller->data + caller->got, event.data.size);
        caller->got += (uint32_t)event.data.size;
        io_release(world->io, event.buffer);
        if (caller->got == MOVE_BYTES) {
            (void)wait_for(world, IO_SENT, caller->conn);
            if (++caller->rounds == MOVE_ROUNDS) {
                done++;
                continue;
            }
            caller_send(world, caller, event.owner);
        }
        io_receive(world->io, caller->conn);
    }
}

static void test_move_under_traffic(void **state)
{
    (void)state;
    struct io_group *group;
    assert_int_equal(io_group_create(&group, 2), OK);
    static struct mover movers[2];
    static struct caller callers[MOVERS];
    pthread_t threads[2];
    for (uint32_t i = 0; i < 2; i++) {
        memset(&movers[i], 0, sizeof movers[i]);
        movers[i].group = group;
        movers[i].options = options_of(i == 0 ? 64 : 400, i, 2); /* one bank, several */
        movers[i].listens = i == 0;
        assert_int_equal(pthread_create(&threads[i], NULL, mover_main, &movers[i]), 0);
    }
    while (!atomic_load(&movers[0].ready) || !atomic_load(&movers[1].ready))
        (void)sched_yield();
    const struct io_options options = options_of(64, 0, 1);
    struct world *world = world_open(&options);
    memset(callers, 0, sizeof callers);
    for (size_t i = 0; i < MOVERS; i++)
        assert_int_equal(io_connect(world->io, &callers[i].conn, &movers[0].bound, NULL, i), OK);
    for (size_t i = 0; i < MOVERS; i++)
        assert_int_equal(wait_for(world, IO_CONNECTED, callers[i].conn).err, OK);
    callers_run(world, callers);
    for (size_t i = 0; i < MOVERS; i++) {
        io_close(world->io, callers[i].conn);
        (void)wait_for(world, IO_CLOSED, callers[i].conn);
    }
    for (uint32_t i = 0; i < 2; i++) {
        atomic_store(&movers[i].stop, true);
        assert_int_equal(pthread_join(threads[i], NULL), 0); /* all connections have ended */
    }
    uint32_t out = movers[0].moved_out + movers[1].moved_out;
    assert_int_equal(out, movers[0].moved_in + movers[1].moved_in);
    assert_true(out > MOVERS * MOVE_ROUNDS / 2); /* most moves happen, some meet new bytes */
    assert_int_equal(movers[0].lost + movers[1].lost, 0);
    world_close(world);
    io_group_destroy(group);
}

/* Two ios in one thread: what the kernel says about a full target, and an armed receive. */
static void test_move_to_a_full_target(void **state)
{
    (void)state;
    static struct world source, target;
    memset(&source, 0, sizeof source);
    memset(&target, 0, sizeof target);
    const struct io_options options[2] = {options_of(16, 0, 2), options_of(1, 1, 2)};
    assert_int_equal(io_group_create(&source.group, 2), OK);
    assert_int_equal(io_create(&source.io, source.group, &options[0]), OK);
    struct io_address bound;
    (void)listen_on(&source, &bound, 4);
    struct pair pair = pair_open(&source, &bound, NULL);
    int cargo;
    io_move(source.io, pair.server, 1, &cargo); /* nobody there yet */
    struct io_event event = wait_for(&source, IO_MOVE_FAILED, pair.server);
    assert_int_equal(event.err, ERR_FULL);
    assert_ptr_equal(event.cargo, &cargo);
    assert_int_equal(io_create(&target.io, source.group, &options[1]), OK);
    /* its receive is cancelled and answered first */
    io_receive(source.io, pair.server);
    settle(&source);
    io_move(source.io, pair.server, 1, &cargo);
    assert_int_equal(wait_for(&source, IO_RECEIVED, pair.server).err, ERR_CANCELLED);
    event = wait_for(&source, IO_MOVED_OUT, pair.server);
    assert_ptr_equal(event.cargo, &cargo);
    event = wait_for(&target, IO_MOVED_IN, (struct io_conn){0});
    assert_ptr_equal(event.cargo, &cargo);
    struct io_conn moved = event.conn;
    assert_int_equal(io_connections(source.io), 1);
    assert_int_equal(io_connections(target.io), 1);
    io_receive(target.io, moved);
    io_send(source.io, pair.client, bytes_of("here", 4));
    assert_int_equal(wait_for(&source, IO_SENT, pair.client).err, OK);
    event = wait_for(&target, IO_RECEIVED, moved);
    assert_int_equal(event.err, OK);
    assert_memory_equal(event.data.data, "here", 4);
    io_release(target.io, event.buffer);
    /* the second finds it full, and works where it is; with its receive armed, which is answered */
    struct pair second = pair_open(&source, &bound, NULL);
    io_receive(source.io, second.server);
    io_move(source.io, second.server, 1, &cargo);
    assert_int_equal(wait_for(&source, IO_RECEIVED, second.server).err, ERR_CANCELLED);
    assert_int_equal(wait_for(&source, IO_MOVE_FAILED, second.server).err, ERR_FULL);
    (void)transfer(&source, second.client, second.server, 3000, 8);
    (void)transfer(&source, second.server, second.client, 3000, 8);
    /* closed while it moves: the move fails or succeeds, then the end is one event */
    io_receive(source.io, second.server);
    settle(&source);
    io_move(source.io, second.server, 1, &cargo);
    io_close(source.io, second.server);
    assert_int_equal(wait_for(&source, IO_RECEIVED, second.server).err, ERR_CANCELLED);
    assert_int_equal(wait_for(&source, IO_MOVE_FAILED, second.server).err, ERR_CANCELLED);
    (void)wait_for(&source, IO_CLOSED, second.server);
    /* the moved one's end is seen by its peer */
    io_receive(source.io, pair.client);
    io_close(target.io, moved);
    (void)wait_for(&target, IO_CLOSED, moved);
    assert_int_equal(wait_for(&source, IO_RECEIVED, pair.client).err, ERR_CLOSED);
    io_destroy(target.io);
    io_destroy(source.io);
    io_group_destroy(source.group);
}

/* The target's word on its room is a hint; when it is wrong the kernel's table decides. */
static void test_move_when_the_hint_was_wrong(void **state)
{
    (void)state;
    enum { COUNT = 30 };
    static struct world source, target;
    memset(&source, 0, sizeof source);
    memset(&target, 0, sizeof target);
    const struct io_options options[2] = {options_of(2 * COUNT, 0, 2), options_of(10, 1, 2)};
    assert_int_equal(io_group_create(&source.group, 2), OK);
    assert_int_equal(io_create(&source.io, source.group, &options[0]), OK);
    assert_int_equal(io_create(&target.io, source.group, &options[1]), OK);
    struct io_address bound;
    (void)listen_on(&source, &bound, 4);
    struct pair pairs[COUNT - 10];
    for (size_t i = 0; i < COUNT_OF(pairs); i++)
        pairs[i] = pair_open(&source, &bound, NULL);
    /* what it would say if many sources had believed it at the same time */
    atomic_store(&source.group->peers[1].banks[0].room, 1000);
    for (size_t i = 0; i < COUNT_OF(pairs); i++)
        io_move(source.io, pairs[i].server, 1, &pairs[i]);
    uint32_t out = 0, failed = 0;
    uint64_t limit = io_now_ns(source.io) + PATIENCE_NS;
    while (out + failed < COUNT_OF(pairs) && io_now_ns(source.io) < limit) {
        world_poll(&source, io_now_ns(source.io) + NS_PER_MS);
        out += drain(&source, IO_MOVED_OUT);
        struct io_event event;
        while (take(&source, &event, IO_MOVE_FAILED, (struct io_conn){0})) {
            assert_int_equal(event.err, ERR_FULL);
            failed++;
            struct pair *pair = event.cargo;
            (void)transfer(&source, pair->client, event.conn, 500, 1);
        }
    }
    assert_int_equal(out + failed, COUNT_OF(pairs));
    assert_true(failed > 0 && out > 0);
    settle(&target);
    assert_int_equal(drain(&target, IO_MOVED_IN), out);
    io_destroy(target.io);
    io_destroy(source.io);
    io_group_destroy(source.group);
}

/* ---- an io outlives its thread */

struct leaver {
    struct io_group *group;
    struct io *io;
    enum err err;
};

static void *leaver_main(void *argument)
{
    struct leaver *leaver = argument;
    const struct io_options options = options_of(700, 1, 2);
    struct io_listener listener;
    struct io_address bound;
    struct io_conn conn;
    struct io_event events[8];
    const struct io_listen_options listen_options = {
        .address = loopback(1, 0), .backlog = 16, .accepts = 4};
    leaver->err = io_create(&leaver->io, leaver->group, &options);
    if (leaver->err == OK)
        leaver->err = io_listen(leaver->io, &listener, &bound, &listen_options);
    if (leaver->err == OK)
        leaver->err = io_connect(leaver->io, &conn, &bound, NULL, 0);
    for (int i = 0; i < 20 && leaver->err == OK; i++) {
        size_t count = io_poll(leaver->io, events, 8, io_now_ns(leaver->io) + NS_PER_MS);
        for (size_t j = 0; j < count; j++)
            io_receive(leaver->io, events[j].conn); /* left armed */
    }
    return NULL;
}

static void test_destroy_after_its_thread_ended(void **state)
{
    (void)state;
    static struct world world;
    memset(&world, 0, sizeof world);
    assert_int_equal(io_group_create(&world.group, 2), OK);
    const struct io_options options = options_of(64, 0, 2);
    assert_int_equal(io_create(&world.io, world.group, &options), OK);
    struct leaver leaver = {.group = world.group};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, leaver_main, &leaver), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(leaver.err, OK);
    assert_int_equal(io_connections(leaver.io), 2);
    io_destroy(leaver.io);
    struct io_address bound; /* our own is untouched by that */
    (void)listen_on(&world, &bound, 4);
    struct pair pair = pair_open(&world, &bound, NULL);
    (void)transfer(&world, pair.client, pair.server, 5000, 1);
    close_both(&world, &pair);
    io_destroy(world.io);
    io_group_destroy(world.group);
}

int main(void)
{
    if (!descriptors_lower())
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_move_under_traffic),
        cmocka_unit_test(test_move_to_a_full_target),
        cmocka_unit_test(test_move_when_the_hint_was_wrong),
        cmocka_unit_test(test_destroy_after_its_thread_ended),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
