/* bench_io.c: echo round trips over loopback through core/io.h, both ends on one io and one thread:
 * each round trip is two sends, two polls and two receives. `--smoke` runs for a moment. */
#include "core/io.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#define CONNECTIONS_MAX 1024u
#define MESSAGE_BYTES   128u
#define EVENTS          256

struct echo {
    struct io *io;
    uint64_t round_trips;
    uint8_t in_flight[2 * CONNECTIONS_MAX][MESSAGE_BYTES]; /* one per end */
    uint32_t ends;
};

static void die(const char *what, enum err err, const struct io *io)
{
    fprintf(stderr, "bench_io: %s: %s %s\n", what, err_name(err), io_explain(io));
    exit(1);
}

/* Owners: 0 … n-1 clients, CONNECTIONS_MAX + n servers. */
static void on_event(struct echo *echo, const struct io_event *event)
{
    uint8_t *data = echo->in_flight[event->owner];
    switch (event->kind) {
    case IO_ACCEPTED:
        io_set_owner(echo->io, event->conn, CONNECTIONS_MAX + echo->ends++);
        io_receive(echo->io, event->conn);
        return;
    case IO_CONNECTED:
        if (event->err != OK)
            die("connect", event->err, echo->io);
        io_receive(echo->io, event->conn);
        io_send(echo->io, event->conn, bytes_of(data, MESSAGE_BYTES));
        return;
    case IO_RECEIVED:
        if (event->err != OK || event->data.size != MESSAGE_BYTES)
            die("receive", event->err, echo->io);
        memcpy(data, event->data.data, MESSAGE_BYTES);
        io_release(echo->io, event->buffer);
        io_receive(echo->io, event->conn);
        io_send(echo->io, event->conn, bytes_of(data, MESSAGE_BYTES));
        echo->round_trips += event->owner < CONNECTIONS_MAX;
        return;
    case IO_SENT:
        if (event->err != OK)
            die("send", event->err, echo->io);
        return;
    case IO_CLOSED:
    case IO_MOVED_IN:
    case IO_MOVED_OUT:
    case IO_MOVE_FAILED:
    case IO_FILE_DONE:
        die("unexpected event", event->err, echo->io);
    }
}

static void run_until(struct echo *echo, uint64_t end_ns)
{
    static struct io_event events[EVENTS];
    do {
        size_t count = io_poll(echo->io, events, EVENTS, end_ns);
        for (size_t i = 0; i < count; i++)
            on_event(echo, &events[i]);
    } while (io_now_ns(echo->io) < end_ns);
}

static uint64_t cpu_ns(void)
{
    struct rusage usage;
    (void)getrusage(RUSAGE_SELF, &usage);
    return ((uint64_t)usage.ru_utime.tv_sec + (uint64_t)usage.ru_stime.tv_sec) * NS_PER_S +
           ((uint64_t)usage.ru_utime.tv_usec + (uint64_t)usage.ru_stime.tv_usec) * 1000;
}

static void measure(uint32_t connections, uint64_t duration_ns)
{
    static struct echo echo;
    memset(&echo, 0, sizeof echo);
    struct io_group *group;
    struct io_address bound;
    struct io_listener listener;
    const struct io_options options = {.count = 1,
                                       .connections_max = 2 * CONNECTIONS_MAX + 64,
                                       .buffers_count = 256,
                                       .buffer_bytes = 4096,
                                       .files_max = 1,
                                       .cpu = -1};
    const struct io_listen_options listen_options = {
        .address = {.ip = {[10] = 0xff, [11] = 0xff, 127, 0, 0, 1}},
        .backlog = CONNECTIONS_MAX,
        .accepts = 32};
    enum err err = io_group_create(&group, 1);
    if (err != OK)
        die("group", err, NULL);
    if ((err = io_create(&echo.io, group, &options)) != OK)
        die("create", err, echo.io);
    if ((err = io_listen(echo.io, &listener, &bound, &listen_options)) != OK)
        die("listen", err, echo.io);
    for (uint32_t i = 0; i < connections; i++) {
        struct io_conn conn;
        if ((err = io_connect(echo.io, &conn, &bound, NULL, i)) != OK)
            die("connect", err, echo.io);
    }
    run_until(&echo, io_now_ns(echo.io) + duration_ns / 5); /* connect, warm up */
    uint64_t before = echo.round_trips, start_ns = io_now_ns(echo.io), start_cpu = cpu_ns();
    run_until(&echo, start_ns + duration_ns);
    uint64_t trips = echo.round_trips - before;
    if (trips == 0 || io_connections(echo.io) != 2 * connections)
        die("no round trips", ERR_TIMEOUT, echo.io);
    printf("bench_io connections=%u message_bytes=%u round_trips=%llu "
           "ns_per_round_trip=%llu cpu_ns_per_round_trip=%llu\n",
           connections, MESSAGE_BYTES, (unsigned long long)trips,
           (unsigned long long)((io_now_ns(echo.io) - start_ns) / trips),
           (unsigned long long)((cpu_ns() - start_cpu) / trips));
    io_destroy(echo.io);
    io_group_destroy(group);
}

int main(int argc, char **argv)
{
    bool smoke = argc > 1 && strcmp(argv[1], "--smoke") == 0;
    uint64_t duration_ns = smoke ? 100 * NS_PER_MS : 3 * NS_PER_S;
    measure(1, duration_ns);
    measure(64, duration_ns);
    measure(CONNECTIONS_MAX, duration_ns);
    return 0;
}
