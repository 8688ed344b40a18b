/* self_test.c: the simulated world's own promises, each alone, with faults where the promise is
 * about them. */
#include "tests/sim/marks.h"
#include "tests/sim/scenario.h"

#include "core/file.h"
#include "core/io.h"
#include "gateway/wire/tls.h"
#include "store/catalog.h"
#include "tests/sim/disk.h"

#include <stdio.h>
#include <stdlib.h>

struct test {
    struct world *world;
    struct io_group *group;
    struct io *io[2];
    size_t failed;
    size_t torn; /* power cuts that left part of a write */
};

static bool expect(struct test *test, bool condition, int line, const char *text)
{
    if (!condition) {
        fprintf(stderr, "self-test: self_test.c:%d: expected %s\n", line, text);
        test->failed++;
    }
    return condition;
}

#define EXPECT(x)   expect(test, (x), __LINE__, #x)
#define SUCCEEDS(x) expect(test, (x) == OK, __LINE__, #x)

static void world_open(struct test *test, uint64_t seed)
{
    struct world_options options = {
        .seed = seed, .socket_bytes = 4096, .faults = {.latency_ns_max = NS_PER_MS}};
    test->world = world_create(&options);
    SUCCEEDS(io_group_create(&test->group, 2));
    for (uint32_t i = 0; i < 2; i++) {
        struct io_options io = {.index = i,
                                .count = 2,
                                .connections_max = 2,
                                .buffers_count = 2,
                                .buffer_bytes = 1024,
                                .files_max = 2,
                                .cpu = -1};
        SUCCEEDS(io_create(&test->io[i], test->group, &io));
    }
}

static void world_close(struct test *test)
{
    io_destroy(test->io[0]);
    io_destroy(test->io[1]);
    io_group_destroy(test->group);
    world_destroy(test->world);
}

/* The next event of an io within a second; kind -1 cannot be: the caller's expectation fails. */
static struct io_event next_event(struct test *test, uint32_t index)
{
    struct io_event event = {0};
    uint64_t deadline = test->world->now_ns + NS_PER_S;
    test->world->turn++;
    size_t count = io_poll(test->io[index], &event, 1, deadline);
    if (count == 0)
        count = io_poll(test->io[index], &event, 1, deadline); /* the second one blocks */
    if (count == 0)
        event.kind = (enum io_event_kind)99;
    return event;
}

static bool is(struct io_event event, enum io_event_kind kind, enum err err)
{
    return event.kind == kind && event.err == err;
}

/* A connection from io 0 to io 1. */
static void connect_pair(struct test *test, struct io_conn pair[2])
{
    struct io_listener listener;
    struct io_listen_options listen = {.backlog = 2, .accepts = 1};
    struct io_address bound;
    SUCCEEDS(io_listen(test->io[1], &listener, &bound, &listen));
    SUCCEEDS(io_connect(test->io[0], &pair[0], &bound, NULL, 7));
    struct io_event event = next_event(test, 0);
    EXPECT(is(event, IO_CONNECTED, OK) && event.owner == 7);
    event = next_event(test, 1);
    EXPECT(is(event, IO_ACCEPTED, OK) && event.peer.ip[12] == 127 && event.peer.port != 0);
    pair[1] = event.conn;
    io_listen_close(test->io[1], listener);
}

static void test_back_pressure(struct test *test)
{
    static uint8_t data[20000];
    struct io_conn pair[2];
    connect_pair(test, pair);
    io_send(test->io[0], pair[0], bytes_of(data, sizeof data));
    for (int i = 0; i < 20; i++)
        EXPECT(next_event(test, 0).kind == 99); /* 4 KiB of buffers, nobody reads */
    size_t received = 0;
    while (received < sizeof data) {
        io_receive(test->io[1], pair[1]);
        struct io_event event = next_event(test, 1);
        if (!EXPECT(is(event, IO_RECEIVED, OK)))
            return;
        received += event.data.size;
        io_release(test->io[1], event.buffer);
    }
    EXPECT(received == sizeof data);
    EXPECT(is(next_event(test, 0), IO_SENT, OK));
}

static void test_end_of_stream(struct test *test)
{
    struct io_conn pair[2];
    connect_pair(test, pair);
    io_receive(test->io[1], pair[1]);
    io_send(test->io[0], pair[0], bytes_of("bye", 3));
    EXPECT(is(next_event(test, 0), IO_SENT, OK));
    io_close(test->io[0], pair[0]);
    EXPECT(is(next_event(test, 0), IO_CLOSED, OK));
    struct io_event event = next_event(test, 1);
    EXPECT(is(event, IO_RECEIVED, OK) && bytes_equal(event.data, bytes_of("bye", 3)));
    io_release(test->io[1], event.buffer);
    io_receive(test->io[1], pair[1]);
    EXPECT(is(next_event(test, 1), IO_RECEIVED, ERR_CLOSED));
    io_send(test->io[1], pair[1], bytes_of("late", 4)); /* into a closed end: a reset comes back */
    EXPECT(is(next_event(test, 1), IO_SENT, OK));
    next_event(test, 1);
    io_receive(test->io[1], pair[1]);
    EXPECT(is(next_event(test, 1), IO_RECEIVED, ERR_RESET));
    io_receive(test->io[0], pair[0]); /* a stale handle reaches nobody */
    EXPECT(next_event(test, 0).kind == 99);
}

static void test_close_cancels(struct test *test)
{
    struct io_conn pair[2];
    static uint8_t data[9000];
    connect_pair(test, pair);
    io_receive(test->io[0], pair[0]);
    io_send(test->io[0], pair[0], bytes_of(data, sizeof data));
    io_close(test->io[0], pair[0]);
    bool received = false;
    bool sent = false;
    for (int i = 0; i < 2; i++) {
        struct io_event event = next_event(test, 0);
        received |= is(event, IO_RECEIVED, ERR_CANCELLED);
        sent |= is(event, IO_SENT, ERR_CANCELLED);
    }
    EXPECT(received && sent);
    EXPECT(is(next_event(test, 0), IO_CLOSED, OK));
    EXPECT(io_connections(test->io[0]) == 0);
    EXPECT(next_event(test, 0).kind == 99);
}

static void test_move(struct test *test)
{
    struct io_conn pair[2];
    int cargo;
    connect_pair(test, pair);
    io_set_owner(test->io[1], pair[1], 9);
    io_receive(test->io[1], pair[1]);
    io_move(test->io[1], pair[1], 0, &cargo);
    struct io_event event = next_event(test, 1);
    EXPECT(is(event, IO_RECEIVED, ERR_CANCELLED) && event.owner == 9);
    event = next_event(test, 1);
    EXPECT(is(event, IO_MOVED_OUT, OK) && event.cargo == &cargo && event.owner == 9);
    event = next_event(test, 0);
    EXPECT(is(event, IO_MOVED_IN, OK) && event.cargo == &cargo && event.owner == 0);
    EXPECT(io_connections(test->io[1]) == 0 && io_connections(test->io[0]) == 2);
    struct io_conn moved = event.conn;
    io_send(test->io[0], pair[0], bytes_of("x", 1)); /* both ends are on io 0 now */
    EXPECT(is(next_event(test, 0), IO_SENT, OK));
    io_receive(test->io[0], moved);
    event = next_event(test, 0);
    EXPECT(is(event, IO_RECEIVED, OK) && event.data.size == 1 && event.data.data[0] == 'x');
}

static void test_move_fails(struct test *test)
{
    struct io_conn pair[2];
    struct io_conn filler;
    int cargo;
    struct io_address nowhere = {.port = 9};
    connect_pair(test, pair);
    SUCCEEDS(io_connect(test->io[0], &filler, &nowhere, NULL, 0)); /* io 0 is full now */
    io_move(test->io[1], pair[1], 0, &cargo);
    struct io_event event = {.kind = (enum io_event_kind)99};
    struct io_conn other;
    EXPECT(io_connect(test->io[0], &other, &nowhere, NULL, 0) == ERR_FULL);
    event = next_event(test, 1);
    EXPECT(is(event, IO_MOVE_FAILED, ERR_FULL) || is(event, IO_MOVED_OUT, OK));
    if (event.kind != IO_MOVE_FAILED)
        return; /* the refusal of `filler` came first */
    EXPECT(event.cargo == &cargo);
    io_receive(test->io[1], pair[1]); /* still here, still working */
    io_send(test->io[0], pair[0], bytes_of("y", 1));
    event = next_event(test, 1);
    EXPECT(is(event, IO_RECEIVED, OK) && event.data.data[0] == 'y');
}

static void test_move_meets_data(struct test *test)
{
    struct io_conn pair[2];
    int cargo;
    connect_pair(test, pair);
    io_receive(test->io[1], pair[1]);
    io_send(test->io[0], pair[0], bytes_of("z", 1));
    (void)world_advance(test->world, test->world->now_ns + 2 * NS_PER_MS); /* it is there */
    io_move(test->io[1], pair[1], 0, &cargo);
    struct io_event event = next_event(test, 1);
    EXPECT(is(event, IO_RECEIVED, OK) && event.data.data[0] == 'z');
    io_release(test->io[1], event.buffer);
    event = next_event(test, 1);
    EXPECT(is(event, IO_MOVE_FAILED, ERR_AGAIN) && event.cargo == &cargo);
    io_receive(test->io[1], pair[1]); /* the old cancellation must not meet this one */
    EXPECT(next_event(test, 1).kind == 99);
}

static void test_close_while_moving(struct test *test)
{
    struct io_conn pair[2];
    int cargo;
    connect_pair(test, pair);
    io_move(test->io[1], pair[1], 0, &cargo);
    io_close(test->io[0], pair[0]);
    EXPECT(is(next_event(test, 0), IO_CLOSED, OK) || io_connections(test->io[0]) == 2);
    struct io_event event = next_event(test, 0);
    if (event.kind == IO_CLOSED)
        event = next_event(test, 0);
    EXPECT(is(next_event(test, 1), IO_MOVED_OUT, OK));
    EXPECT(io_connections(test->io[1]) == 0);
    if (event.kind != IO_MOVED_IN)
        return; /* IO_MOVED_IN came first of all */
    io_receive(test->io[0], event.conn);
    EXPECT(is(next_event(test, 0), IO_RECEIVED, ERR_CLOSED));
}

static void test_listeners(struct test *test)
{
    struct io_address address = {.port = 80};
    struct io_listen_options options = {
        .address = address, .backlog = 1, .accepts = 1, .reuse_port = true};
    struct io_listener listener;
    struct io_address bound;
    SUCCEEDS(io_listen_probe(test->io[0], &address));
    SUCCEEDS(io_listen(test->io[0], &listener, &bound, &options));
    SUCCEEDS(io_listen(test->io[1], &listener, &bound, &options));
    EXPECT(io_listen_probe(test->io[0], &address) == ERR_ADDRESS);
    options.reuse_port = false;
    EXPECT(io_listen(test->io[1], &listener, &bound, &options) == ERR_ADDRESS);
    EXPECT(io_explain(test->io[1])[0] != '\0');
    struct io_conn conn;
    struct io_address nowhere = {.port = 81};
    SUCCEEDS(io_connect(test->io[0], &conn, &nowhere, NULL, 0));
    EXPECT(is(next_event(test, 0), IO_CONNECTED, ERR_RESET));
}

/* ---- disk */

static uint8_t first_byte(struct test *test, const char *path, uint64_t offset)
{
    int fd;
    uint8_t byte = 0;
    size_t done = 0;
    if (!SUCCEEDS(file_open(&fd, path, FILE_READ)))
        return 0;
    SUCCEEDS(file_read(fd, offset, &byte, 1, &done));
    file_close(fd);
    return done == 1 ? byte : 0;
}

static void power_cut(struct test *test)
{
    world_kill(test->world, test->group, true);
    world_restart(test->world);
}

static void test_disk_sync(struct test *test)
{
    int fd;
    static uint8_t ones[4096];
    memset(ones, 1, sizeof ones);
    SUCCEEDS(file_open(&fd, "synced", FILE_WRITE | FILE_CREATE));
    SUCCEEDS(file_sync_directory("."));
    SUCCEEDS(file_write(fd, 0, bytes_of(ones, sizeof ones)));
    SUCCEEDS(file_sync(fd));
    memset(ones, 2, sizeof ones);
    SUCCEEDS(file_write(fd, 0, bytes_of(ones, sizeof ones)));
    EXPECT(first_byte(test, "/synced", 0) == 2);
    power_cut(test);
    uint32_t lost = 0;
    for (uint64_t at = 0; at < sizeof ones; at += DISK_SECTOR) {
        uint8_t byte = first_byte(test, "synced", at);
        EXPECT(byte == 1 || byte == 2);
        EXPECT(first_byte(test, "synced", at + DISK_SECTOR - 1) == byte);
        lost += byte == 1;
    }
    if (lost > 0 && lost < sizeof ones / DISK_SECTOR)
        test->torn++;
}

static void test_disk_names(struct test *test)
{
    int fd;
    SUCCEEDS(file_open(&fd, "a", FILE_WRITE | FILE_CREATE));
    EXPECT(file_open(&fd, "a", FILE_WRITE | FILE_CREATE | FILE_EXCLUSIVE) == ERR_EXISTS);
    EXPECT(file_open(&fd, "none", FILE_READ) == ERR_NOT_FOUND);
    EXPECT(file_open(&fd, "no/a", FILE_WRITE | FILE_CREATE) == ERR_NOT_FOUND);
    SUCCEEDS(file_sync_directory("."));
    SUCCEEDS(file_rename("a", "b"));
    EXPECT(file_open(&fd, "a", FILE_READ) == ERR_NOT_FOUND);
    power_cut(test);
    bool a = file_open(&fd, "a", FILE_READ) == OK;
    bool b = file_open(&fd, "b", FILE_READ) == OK;
    EXPECT(a != b); /* never both, never neither */
    SUCCEEDS(file_remove(a ? "a" : "b"));
    EXPECT(file_remove("a") == ERR_NOT_FOUND);
}

static void test_disk_limits(struct test *test)
{
    int fd;
    int second;
    uint64_t bytes;
    static uint8_t data[8192];
    disk_set_bytes(test->world->disk, 6000);
    SUCCEEDS(file_open(&fd, "f", FILE_WRITE | FILE_CREATE));
    EXPECT(file_write(fd, 0, bytes_of(data, sizeof data)) == ERR_NO_SPACE);
    SUCCEEDS(file_write(fd, 0, bytes_of(data, 6000)));
    SUCCEEDS(file_free_bytes("f", &bytes));
    EXPECT(bytes == 0);
    SUCCEEDS(file_write(fd, 100, bytes_of(data, 5900))); /* overwriting needs no space */
    SUCCEEDS(file_truncate(fd, 100));
    SUCCEEDS(file_size(fd, &bytes));
    EXPECT(bytes == 100);
    SUCCEEDS(file_lock(fd));
    SUCCEEDS(file_open(&second, "f", FILE_READ));
    EXPECT(file_lock(second) == ERR_BUSY);
    file_close(fd);
    SUCCEEDS(file_lock(second));
    EXPECT(file_open(&fd, "f", FILE_READ | FILE_DIRECT) == ERR_UNSUPPORTED);
}

static void test_disk_error(struct test *test)
{
    int fd;
    SUCCEEDS(file_open(&fd, "f", FILE_WRITE | FILE_CREATE));
    SUCCEEDS(file_sync_directory("."));
    static uint8_t data[64 * DISK_SECTOR];
    memset(data, 3, sizeof data);
    SUCCEEDS(file_write(fd, 0, bytes_of(data, sizeof data)));
    test->world->options.faults.disk_error = 1000000;
    EXPECT(file_sync(fd) == ERR_IO);
    test->world->options.faults.disk_error = 0;
    SUCCEEDS(file_sync(fd)); /* says OK, and yet: */
    power_cut(test);
    uint32_t lost = 0;
    SUCCEEDS(file_open(&fd, "f", FILE_READ));
    for (uint64_t at = 0; at < sizeof data; at += DISK_SECTOR) {
        uint8_t byte = 0;
        size_t done = 0;
        SUCCEEDS(file_read(fd, at, &byte, 1, &done));
        lost += byte != 3;
    }
    EXPECT(lost > 0);
}

static void test_dead_process(struct test *test)
{
    int fd;
    struct io_conn pair[2];
    connect_pair(test, pair);
    SUCCEEDS(file_open(&fd, "f", FILE_WRITE | FILE_CREATE));
    world_kill(test->world, test->group, false);
    EXPECT(file_write(fd, 0, bytes_of("x", 1)) == ERR_IO);
    EXPECT(file_rename("f", "g") == ERR_IO);
    io_send(test->io[0], pair[0], bytes_of("x", 1));
    EXPECT(next_event(test, 0).kind == 99);
    file_close(fd);
    world_restart(test->world);
    uint64_t size = 1;
    SUCCEEDS(file_open(&fd, "f", FILE_READ)); /* the page cache outlives a kill */
    SUCCEEDS(file_size(fd, &size));
    EXPECT(size == 0);
}

/* ---- the rest */

static enum err count_row(void *context, struct bytes key, struct bytes value)
{
    uint32_t *count = context;
    (void)value;
    return ++*count == 3 || key.size == 0 ? ERR_CANCELLED : OK;
}

static void put(struct test *test, struct catalog_txn *txn, const char *key, const char *value)
{
    SUCCEEDS(catalog_put(txn, CATALOG_META, bytes_of_text(key), bytes_of_text(value)));
}

static bool has(struct catalog_txn *txn, const char *key, const char *value)
{
    struct bytes found;
    return catalog_get(txn, CATALOG_META, bytes_of_text(key), &found) == OK &&
           bytes_equal(found, bytes_of_text(value));
}

static void test_catalog(struct test *test)
{
    struct catalog *catalog;
    struct catalog *second;
    struct catalog_txn *writer;
    struct catalog_txn *reader;
    const char *explanation;
    uint32_t count = 0;
    SUCCEEDS(catalog_open(&catalog, "c", 1 << 20, &explanation));
    EXPECT(catalog_open(&second, "c", 1 << 20, &explanation) == ERR_BUSY);
    SUCCEEDS(catalog_begin(catalog, &writer, true));
    put(test, writer, "a", "1");
    put(test, writer, "a", "2");
    SUCCEEDS(catalog_begin(catalog, &reader, false));
    EXPECT(has(writer, "a", "2") && !has(reader, "a", "2"));
    SUCCEEDS(catalog_commit(writer));
    EXPECT(!has(reader, "a", "2")); /* keeps what it began with */
    catalog_abort(reader);
    SUCCEEDS(catalog_begin(catalog, &writer, true));
    put(test, writer, "b", "1");
    put(test, writer, "a", "3");
    SUCCEEDS(catalog_delete(writer, CATALOG_META, bytes_of_text("a")));
    catalog_abort(writer);
    SUCCEEDS(catalog_begin(catalog, &writer, true));
    EXPECT(has(writer, "a", "2") && !has(writer, "b", "1"));
    put(test, writer, "aa", "1");
    put(test, writer, "ab", "1");
    put(test, writer, "ac", "1");
    put(test, writer, "b", "1");
    SUCCEEDS(catalog_scan(writer, CATALOG_META, bytes_of_text("aa"), count_row, &count));
    EXPECT(count == 1);
    count = 0;
    SUCCEEDS(catalog_scan(writer, CATALOG_META, bytes_of_text("a"), count_row, &count));
    EXPECT(count == 3);
    world_kill(test->world, test->group, true);
    EXPECT(catalog_commit(writer) == ERR_IO); /* of a dead process: nothing happens */
    catalog_close(catalog);
    world_restart(test->world);
    SUCCEEDS(catalog_open(&catalog, "c", 1 << 20, &explanation));
    SUCCEEDS(catalog_begin(catalog, &reader, false));
    EXPECT(has(reader, "a", "2") && !has(reader, "aa", "1"));
    catalog_abort(reader);
    catalog_close(catalog);
}

static void feed(struct test *test, struct tls *tls, struct tls_engine *engine, struct bytes input,
                 struct buffer *plaintext, struct buffer *answer)
{
    for (size_t i = 0; i < input.size; i++) {
        struct bytes one = bytes_of(input.data + i, 1);
        SUCCEEDS(tls_receive(tls, engine, &one, plaintext, answer));
    }
}

static void test_tls(struct test *test)
{
    struct tls_context *context[2];
    struct tls_engine *engine;
    struct tls *tls[2];
    const char *explanation;
    uint8_t memory[3][64];
    struct buffer wire[2] = {buffer_of(memory[0], 64), buffer_of(memory[1], 64)};
    struct buffer plaintext = buffer_of(memory[2], 3);
    SUCCEEDS(tls_engine_create(&engine));
    SUCCEEDS(tls_context_create_client(&context[0], NULL, &explanation));
    SUCCEEDS(tls_context_create_server(&context[1], NULL, &explanation));
    for (size_t i = 0; i < 2; i++)
        SUCCEEDS(tls_create(&tls[i], context[i]));
    SUCCEEDS(tls_client_start(tls[0], engine, &wire[0], "x", bytes_of(NULL, 0)));
    feed(test, tls[1], engine, buffer_bytes(&wire[0]), &plaintext, &wire[1]);
    EXPECT(tls_established(tls[1]) && !tls_established(tls[0]));
    feed(test, tls[0], engine, buffer_bytes(&wire[1]), &plaintext, &wire[0]);
    EXPECT(tls_established(tls[0]) && !tls_resumed(tls[0]) && plaintext.size == 0);
    struct bytes input = bytes_of("hello", 5);
    EXPECT(tls_receive(tls[0], engine, &input, &plaintext, &wire[0]) == ERR_FULL);
    EXPECT(input.size == 2 && memcmp(plaintext.data, "hel", 3) == 0);
    struct tls *stranger;
    SUCCEEDS(tls_create(&stranger, context[1]));
    input = bytes_of("GET / ", 6);
    EXPECT(tls_receive(stranger, engine, &input, &plaintext, &wire[0]) == ERR_INVALID);
    EXPECT(tls_explain(engine)[0] != '\0');
    tls_destroy(stranger);
    for (size_t i = 0; i < 2; i++) {
        tls_destroy(tls[i]);
        tls_context_release(context[i]);
    }
    tls_engine_destroy(engine);
}

static void test_marks(struct test *test)
{
#ifdef ROOST_MARKS
    uint64_t before = marks_count("self_test_mark");
    MARK("self_test_mark");
    EXPECT(marks_count("self_test_mark") == before + 1);
#else
    (void)test;
#endif
}

size_t self_test(void)
{
    static void (*const tests[])(struct test * test) = {
        test_back_pressure, test_end_of_stream,
        test_close_cancels, test_move,
        test_move_fails,    test_move_meets_data,
        test_listeners,     test_disk_sync,
        test_disk_names,    test_disk_limits,
        test_disk_error,    test_dead_process,
        test_catalog,       test_tls,
        test_marks,         test_close_while_moving,
    };
    struct test test = {0};
    for (uint64_t seed = 1; seed <= 50; seed++)
        for (size_t i = 0; i < COUNT_OF(tests); i++) {
            world_open(&test, seed);
            tests[i](&test);
            world_close(&test);
        }
    if (test.torn == 0) {
        fprintf(stderr, "self-test: no write was ever torn\n");
        test.failed++;
    }
    printf("self-test: %zu tests with 50 seeds each, %zu expectations failed\n", COUNT_OF(tests),
           test.failed);
    return test.failed;
}
