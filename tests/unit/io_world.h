/* io_world.h: for tests of core/io.h: an io over loopback, whose events are kept until somebody
 * asks for them.
 * Invariants: RLIMIT_NOFILE is lowered to DESCRIPTORS first, so that more connections than that
 *             need several rings */
#ifndef TESTS_UNIT_IO_WORLD_H
#define TESTS_UNIT_IO_WORLD_H

#include "core/io.h"

#include "core/file.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define DESCRIPTORS 256u
#define EVENTS      64
#define PATIENCE_NS (10 * NS_PER_S)

struct world {
    struct io_group *group;
    struct io *io;
    struct io_event kept[4096];
    size_t kept_count;
};

static inline struct io_options options_of(uint32_t connections, uint32_t index, uint32_t count)
{
    return (struct io_options){
        .index = index,
        .count = count,
        .connections_max = connections,
        .buffers_count = 64,
        .buffer_bytes = 4096,
        .files_max = 8,
        .cpu = -1,
    };
}

static inline struct world *world_open(const struct io_options *options)
{
    struct world *world = calloc(1, sizeof *world);
    assert_non_null(world);
    assert_int_equal(io_group_create(&world->group, options->count), OK);
    enum err err = io_create(&world->io, world->group, options);
    if (err != OK)
        print_error("%s\n", io_explain(world->io));
    assert_int_equal(err, OK);
    return world;
}

static inline void world_close(struct world *world)
{
    io_destroy(world->io);
    io_group_destroy(world->group);
    free(world);
}

static inline void world_poll(struct world *world, uint64_t deadline_ns)
{
    struct io_event *at = world->kept + world->kept_count;
    assert_true(world->kept_count + EVENTS <= COUNT_OF(world->kept));
    world->kept_count += io_poll(world->io, at, EVENTS, deadline_ns);
}

/* take: the oldest kept event of that kind for that connection (0: any); false: none. */
static inline bool take(struct world *world, struct io_event *out, enum io_event_kind kind,
                        struct io_conn conn)
{
    for (size_t i = 0; i < world->kept_count; i++) {
        if (world->kept[i].kind != kind || (conn.v != 0 && world->kept[i].conn.v != conn.v))
            continue;
        *out = world->kept[i];
        world->kept_count--;
        memmove(world->kept + i, world->kept + i + 1,
                (world->kept_count - i) * sizeof *world->kept);
        return true;
    }
    return false;
}

static inline struct io_event wait_for(struct world *world, enum io_event_kind kind,
                                       struct io_conn conn)
{
    struct io_event event;
    uint64_t limit = io_now_ns(world->io) + PATIENCE_NS;
    while (!take(world, &event, kind, conn)) {
        if (io_now_ns(world->io) >= limit)
            fail_msg("event %d did not come", (int)kind);
        world_poll(world, limit);
    }
    return event;
}

/* settle: 50 ms of turns, in which what should not happen could. */
static inline void settle(struct world *world)
{
    uint64_t limit = io_now_ns(world->io) + 50 * NS_PER_MS;
    do
        world_poll(world, limit);
    while (io_now_ns(world->io) < limit);
}

static inline struct io_address loopback(uint8_t host, uint16_t port)
{
    struct io_address address = {.ip = {[10] = 0xff, [11] = 0xff, 127, 0, 0, host}, .port = port};
    return address;
}

static inline struct io_listener listen_on(struct world *world, struct io_address *bound,
                                           uint32_t accepts)
{
    struct io_listener listener;
    const struct io_listen_options options = {
        .address = loopback(1, 0), .backlog = 1024, .accepts = accepts, .reuse_port = false};
    assert_int_equal(io_listen(world->io, &listener, bound, &options), OK);
    assert_true(bound->port != 0);
    return listener;
}

struct pair {
    struct io_conn client, server;
    struct io_event accepted;
};

static inline struct pair pair_open(struct world *world, const struct io_address *bound,
                                    const struct io_address *source)
{
    struct pair pair;
    const struct io_conn any = {0};
    assert_int_equal(io_connect(world->io, &pair.client, bound, source, 77), OK);
    struct io_event event = wait_for(world, IO_CONNECTED, pair.client);
    assert_int_equal(event.err, OK);
    assert_int_equal(event.owner, 77);
    pair.accepted = wait_for(world, IO_ACCEPTED, any);
    assert_int_equal(pair.accepted.err, OK);
    pair.server = pair.accepted.conn;
    return pair;
}

/* transfer: size patterned bytes from one to the other, checked; returns the reads it took. */
static inline uint32_t transfer(struct world *world, struct io_conn source, struct io_conn target,
                                size_t size, uint8_t salt)
{
    uint8_t *data = malloc(size);
    uint8_t *got = malloc(size);
    uint32_t reads = 0;
    assert_non_null(data);
    assert_non_null(got);
    for (size_t i = 0; i < size; i++)
        data[i] = (uint8_t)(i * 31 + i / 251 + salt);
    io_send(world->io, source, bytes_of(data, size));
    for (size_t at = 0; at < size; reads++) {
        io_receive(world->io, target);
        struct io_event event = wait_for(world, IO_RECEIVED, target);
        assert_int_equal(event.err, OK);
        assert_true(event.data.size > 0 && event.data.size <= size - at);
        memcpy(got + at, event.data.data, event.data.size);
        at += event.data.size;
        io_release(world->io, event.buffer);
    }
    assert_int_equal(wait_for(world, IO_SENT, source).err, OK);
    assert_memory_equal(data, got, size);
    free(data);
    free(got);
    return reads;
}

static inline void close_both(struct world *world, const struct pair *pair)
{
    io_close(world->io, pair->client);
    io_close(world->io, pair->server);
    (void)wait_for(world, IO_CLOSED, pair->client);
    (void)wait_for(world, IO_CLOSED, pair->server);
}

/* drain: takes all kept events of a kind, counts them. */
static inline uint32_t drain(struct world *world, enum io_event_kind kind)
{
    struct io_event event;
    uint32_t count = 0;
    while (take(world, &event, kind, (struct io_conn){0}))
        count++;
    return count;
}

static inline bool descriptors_lower(void)
{
    const struct rlimit limit = {DESCRIPTORS, DESCRIPTORS};
    return setrlimit(RLIMIT_NOFILE, &limit) == 0;
}

#endif
