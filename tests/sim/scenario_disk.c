/* scenario_disk.c: a writer appends numbered records with io_file_write and sync, keeps a small
 * snapshot file that it replaces by rename, and is killed or loses power at any time.
 * Checks:     after each crash every acknowledged record is whole; the snapshot is one of those
 *             written, not older than the newest that was acknowledged; the file system never holds
 *             half a rename. */
#include "tests/sim/scenario.h"

#include "core/file.h"
#include "core/io.h"
#include "tests/sim/disk.h"

#include <stdio.h>
#include <stdlib.h>

#define RECORD_BYTES  1536 /* three sectors: can be torn */
#define RECORDS_MAX   400
#define PAUSE_NS      (20 * NS_PER_MS)
#define SNAPSHOT_EACH 10

struct writer {
    struct run *run;
    struct io_group *group;
    struct io *io;
    int fd;
    struct io_file_op op;
    bool writing;
    uint8_t record[RECORD_BYTES];
    uint64_t acked;    /* records 0 … acked - 1 are durable */
    uint64_t snapshot; /* newest acknowledged */
    uint64_t next_ns;
};

static void record_make(uint8_t record[RECORD_BYTES], uint64_t number)
{
    for (size_t i = 0; i < RECORD_BYTES; i += 8)
        store_u64(record + i, number * 1000003 + i + 1);
}

static void snapshot_write(struct writer *w)
{
    int fd;
    uint8_t text[8];
    store_u64(text, w->acked);
    enum err err = file_open(&fd, "/data/snapshot.new", FILE_WRITE | FILE_CREATE);
    RUN_EXPECT(w->run, err == OK);
    if (err != OK)
        return;
    err = file_write(fd, 0, bytes_of(text, sizeof text));
    if (err == OK)
        err = file_sync(fd);
    file_close(fd);
    if (err == OK)
        err = file_rename("/data/snapshot.new", "/data/snapshot");
    if (err == OK && world_below(w->run->world, 2) == 0)
        return; /* without the directory's sync it is not acknowledged */
    if (err == OK)
        err = file_sync_directory("/data");
    if (err == OK)
        w->snapshot = w->acked;
}

static void check_records(struct writer *w)
{
    uint8_t found[RECORD_BYTES];
    uint8_t expected[RECORD_BYTES];
    for (uint64_t i = 0; i < w->acked; i++) {
        size_t size = 0;
        enum err err = file_read(w->fd, i * RECORD_BYTES, found, RECORD_BYTES, &size);
        record_make(expected, i);
        RUN_EXPECT(w->run, err == OK && size == RECORD_BYTES);
        RUN_EXPECT(w->run, memcmp(found, expected, RECORD_BYTES) == 0);
    }
}

static void check_snapshot(struct writer *w)
{
    int fd;
    uint8_t text[8] = {0};
    size_t size = 0;
    enum err err = file_open(&fd, "/data/snapshot", FILE_READ);
    RUN_EXPECT(w->run, err == OK || (err == ERR_NOT_FOUND && w->snapshot == 0));
    if (err != OK)
        return;
    err = file_read(fd, 0, text, sizeof text, &size);
    RUN_EXPECT(w->run, err == OK && size == sizeof text);
    RUN_EXPECT(w->run, load_u64(text) >= w->snapshot && load_u64(text) <= w->acked);
    file_close(fd);
}

static void start(struct writer *w)
{
    struct io_options options = {.count = 1,
                                 .connections_max = 1,
                                 .buffers_count = 1,
                                 .buffer_bytes = 16,
                                 .files_max = 1,
                                 .cpu = -1};
    enum err err = io_group_create(&w->group, 1);
    CHECK(err == OK);
    err = io_create(&w->io, w->group, &options);
    CHECK(err == OK);
    err = file_make_directory("/data");
    RUN_EXPECT(w->run, err == OK);
    err = file_sync_directory("/");
    RUN_EXPECT(w->run, err == OK);
    err = file_open(&w->fd, "/data/log", FILE_WRITE | FILE_CREATE);
    RUN_EXPECT(w->run, err == OK);
    err = file_sync_directory("/data");
    RUN_EXPECT(w->run, err == OK);
    err = file_lock(w->fd);
    RUN_EXPECT(w->run, err == OK);
    w->writing = false;
    check_records(w);
    check_snapshot(w);
}

static void stop(struct writer *w)
{
    file_close(w->fd);
    io_destroy(w->io);
    io_group_destroy(w->group);
}

static size_t turn(void *self)
{
    struct writer *w = self;
    struct io_event event;
    size_t count = io_poll(w->io, &event, 1, 0);
    if (count > 0) {
        RUN_EXPECT(w->run, event.kind == IO_FILE_DONE && event.op == &w->op && event.err == OK);
        w->writing = false;
        w->acked++;
        if (w->acked % SNAPSHOT_EACH == 0)
            snapshot_write(w);
        w->next_ns = w->run->world->now_ns + world_below(w->run->world, PAUSE_NS);
    }
    if (w->writing || w->acked == RECORDS_MAX || w->run->world->now_ns < w->next_ns)
        return count;
    record_make(w->record, w->acked);
    enum err err = io_file_write(w->io, &w->op, w->fd, w->acked * RECORD_BYTES,
                                 bytes_of(w->record, RECORD_BYTES), true);
    RUN_EXPECT(w->run, err == OK);
    w->writing = true;
    return count + 1;
}

static uint64_t next_ns(void *self)
{
    struct writer *w = self;
    return w->writing || w->acked == RECORDS_MAX ? UINT64_MAX : w->next_ns;
}

static void set_up(struct run *run)
{
    struct writer *w = world_take(1, sizeof *w);
    w->run = run;
    run->state = w;
    start(w);
    run_add(run, (struct actor){"writer", w, turn, next_ns});
}

static void crash(struct run *run)
{
    struct writer *w = run->state;
    world_kill(run->world, w->group, world_below(run->world, 2) == 0);
    stop(w);
    world_restart(run->world);
    start(w);
}

static bool done(struct run *run)
{
    struct writer *w = run->state;
    return w->acked == RECORDS_MAX && !w->writing;
}

static void check(struct run *run)
{
    check_records(run->state);
    check_snapshot(run->state);
}

static void tear_down(struct run *run)
{
    stop(run->state);
    free(run->state);
}

const struct scenario scenario_disk = {
    .name = "disk",
    .about = "a writer with syncs and renames that is killed and loses power",
    .faults_ns = 5 * NS_PER_S,
    .limit_ns = 100 * NS_PER_S,
    .crashes_max = 12,
    .set_up = set_up,
    .crash = crash,
    .done = done,
    .check = check,
    .tear_down = tear_down,
};
