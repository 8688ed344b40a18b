/* tap.c: see tap.h. Three things go on beside each other, each in one phase or none: sealing,
 * making a segment, a lifecycle's job. Whose names a sync of the directory makes durable is known
 * by the thread: each renames, and syncs right afterwards.
 *
 * What is owed, where a control leaves something out:
 *   FILE, MOVE 1: an archive was not synced, and what it replaces is gone durably; MOVE: until the
 *              next merge, which may replace it
 *   COPY       1: what went into quarantine was not synced, and where it stood is mended durably
 *   DIRECTORY  so many archives were given a name that was not synced */
#include "tests/crash/tap.h"

#include "core/file.h"
#include "core/io.h"
#include "store/background_read.h"
#include "store/look.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define PROMISE_BYTES 200

enum slot { SLOT_SEAL, SLOT_MAKE, SLOT_LIFE, SLOT_COUNT };

static struct tap {
    pthread_mutex_t mutex;
    int control;
    enum skip skip;
    char promise[PROMISE_BYTES];
    enum phase phase[SLOT_COUNT]; /* PHASE_APPEND: none */
    enum phase life;              /* …_WRITE of the present or newest job */
    _Atomic bool clearing;        /* a name was taken away since the newest sync */
    _Atomic bool skipped;
    bool repairing;
    uint32_t
        looked; /* the file that is looked into for what own retentions make due, one at a time */
    _Atomic uint32_t own_due; /* the newest in which something is; 0: none yet */
    uint32_t owed;
    _Atomic uint64_t wall_ms;
} tap = {.mutex = PTHREAD_MUTEX_INITIALIZER, .control = -1};

static __thread enum slot naming = SLOT_COUNT; /* what this thread has just given a name */

/* ---- marks */

static void say(void)
{
    char line[PROMISE_BYTES + 40];
    uint32_t phases = 0;
    for (uint32_t i = 0; i < SLOT_COUNT; i++)
        phases |= tap.phase[i] == PHASE_APPEND ? 0 : 1u << tap.phase[i];
    if (phases == 0)
        phases = 1u << PHASE_APPEND;
    int size = snprintf(line, sizeof line, "%s phases=%x owed=%u", tap.promise, phases, tap.owed);
    if (tap.control >= 0)
        CHECK(pwrite(tap.control, line, (size_t)size, 0) == size);
}

void tap_start(int control, enum skip skip)
{
    tap.control = control;
    tap.skip = skip;
}

void tap_promise(const char *text)
{
    pthread_mutex_lock(&tap.mutex);
    CHECK(snprintf(tap.promise, sizeof tap.promise, "%s", text) < PROMISE_BYTES);
    say();
    pthread_mutex_unlock(&tap.mutex);
}

void tap_repair(void)
{
    tap.repairing = true;
}

void tap_clock_set(uint64_t wall_ms)
{
    tap.wall_ms = wall_ms;
}

static void enter(enum slot slot, enum phase phase)
{
    pthread_mutex_lock(&tap.mutex);
    bool news = tap.phase[slot] != phase;
    tap.phase[slot] = phase;
    if (news)
        say();
    pthread_mutex_unlock(&tap.mutex);
}

static void owe(uint32_t owed)
{
    pthread_mutex_lock(&tap.mutex);
    bool news = tap.owed != owed;
    tap.owed = owed;
    if (news)
        say();
    pthread_mutex_unlock(&tap.mutex);
}

uint32_t tap_owed(void)
{
    pthread_mutex_lock(&tap.mutex);
    uint32_t owed = tap.owed;
    pthread_mutex_unlock(&tap.mutex);
    return owed;
}

/* ---- whose file it is */

static bool ends(const char *path, const char *suffix)
{
    size_t size = strlen(path);
    return size >= strlen(suffix) && strcmp(path + size - strlen(suffix), suffix) == 0;
}

static void path_of(int fd, char out[STORE_PATH_BYTES])
{
    char link[40];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, out, STORE_PATH_BYTES - 1);
    out[size < 0 ? 0 : size] = 0;
}

/* clear: a name of what was replaced is about to go. */
static void clear(void)
{
    if (tap.phase[SLOT_LIFE] == PHASE_APPEND)
        enter(SLOT_LIFE, tap.life + 2);
}

/* repairs: a write of `log repair`. */
static void repairs(const char *path)
{
    if (ends(path, ".bytes") || ends(path, ".json")) {
        enter(SLOT_LIFE, PHASE_REPAIR_COPY);
    } else if (ends(path, ".segment")) {
        enter(SLOT_LIFE, PHASE_REPAIR_MEND);
    } else if (ends(path, ".archiving")) {
        tap.life = PHASE_REPAIR_WRITE;
        enter(SLOT_LIFE, PHASE_REPAIR_WRITE);
    }
}

/* ---- what stands in for the real ones */

enum err __real_file_write(int fd, uint64_t offset, struct bytes data);
enum err __wrap_file_write(int fd, uint64_t offset, struct bytes data);
enum err __wrap_file_write(int fd, uint64_t offset, struct bytes data)
{
    char path[STORE_PATH_BYTES];
    path_of(fd, path);
    if (tap.repairing)
        repairs(path);
    if (ends(path, ".making") && tap.phase[SLOT_MAKE] == PHASE_APPEND)
        enter(SLOT_MAKE, PHASE_MAKE);
    else if (ends(path, ".spare"))
        enter(SLOT_MAKE,
              offset == 0 && data.size == SEGMENT_DATA_OFFSET ? PHASE_RECYCLE : PHASE_WIPE);
    else if (ends(path, ".indexing"))
        enter(SLOT_SEAL, PHASE_SEAL);
    return __real_file_write(fd, offset, data);
}

/* left_out: the control leaves out the sync of this file. */
static bool left_out(const char *path)
{
    switch (tap.skip) {
    case SKIP_FILE:
        return ends(path, ".archiving");
    case SKIP_MOVE:
        return ends(path, ".archiving") && tap.life == PHASE_MOVE_WRITE;
    case SKIP_COPY:
        return tap.repairing && ends(path, ".bytes");
    case SKIP_NONE:
    case SKIP_SYNC:
    case SKIP_DIRECTORY:
    case SKIP_COUNT:
        break;
    }
    return false;
}

enum err __real_file_sync(int fd);
enum err __wrap_file_sync(int fd);
enum err __wrap_file_sync(int fd)
{
    char path[STORE_PATH_BYTES];
    path_of(fd, path);
    if (left_out(path)) {
        tap.skipped = true;
        tap.clearing = false; /* what went before is not what this replaces */
        return OK;
    }
    enum err err = __real_file_sync(fd);
    if (tap.skip == SKIP_COPY && tap.skipped && ends(path, ".segment"))
        owe(1);
    if (ends(path, ".spare") && tap.phase[SLOT_MAKE] == PHASE_WIPE)
        enter(SLOT_MAKE, PHASE_APPEND);
    return err;
}

enum err __real_file_rename(const char *source, const char *target);
enum err __wrap_file_rename(const char *source, const char *target);
enum err __wrap_file_rename(const char *source, const char *target)
{
    bool freed = ends(target, ".spare");
    naming = SLOT_COUNT;
    if (ends(source, ".making") || ends(source, ".spare")) {
        naming = SLOT_MAKE;
    } else if (ends(source, ".archiving")) {
        naming = SLOT_LIFE;
        enter(SLOT_LIFE, tap.life + 1);
        if (tap.skip == SKIP_DIRECTORY)
            owe(tap.owed + 1);
    } else if (ends(source, ".indexing")) {
        naming = SLOT_SEAL;
    } else if (freed) {
        clear();
    }
    enum err err = __real_file_rename(source, target);
    if (freed)
        tap.clearing = true;
    return err;
}

enum err __real_file_remove(const char *path);
enum err __wrap_file_remove(const char *path);
enum err __wrap_file_remove(const char *path)
{
    bool freed = ends(path, ".segment") || ends(path, ".archive");
    if (freed)
        clear();
    enum err err = __real_file_remove(path);
    if (freed)
        tap.clearing = true;
    return err;
}

/* durable: the directory's names are; cleared: so is what went before the sync began. */
static void durable(bool cleared)
{
    enum slot mine = naming;
    naming = SLOT_COUNT;
    if (tap.skipped && cleared) /* of FILE, MOVE, or COPY in an archive */
        owe(1);
    if (tap.skip != SKIP_DIRECTORY && cleared && mine != SLOT_LIFE) {
        tap.clearing = false;
        enter(SLOT_LIFE, PHASE_APPEND);
    }
    if (mine == SLOT_LIFE)
        enter(SLOT_LIFE, tap.life + 2);
    else if (mine != SLOT_COUNT)
        enter(mine, PHASE_APPEND);
}

enum err __real_file_sync_directory(const char *path);
enum err __wrap_file_sync_directory(const char *path);
enum err __wrap_file_sync_directory(const char *path)
{
    bool cleared = tap.clearing;
    enum err err = OK;
    if (tap.skip != SKIP_DIRECTORY)
        err = __real_file_sync_directory(path);
    durable(cleared);
    return err;
}

enum err __real_merge_create(struct merge **merge, const struct merge_options *options,
                             const struct merge_input *inputs, uint32_t count);
enum err __wrap_merge_create(struct merge **merge, const struct merge_options *options,
                             const struct merge_input *inputs, uint32_t count);
enum err __wrap_merge_create(struct merge **merge, const struct merge_options *options,
                             const struct merge_input *inputs, uint32_t count)
{
    bool own = false;
    for (uint32_t i = 0; i < count; i++)
        own = own || inputs[i].id == tap.own_due;
    if (inputs[0].freed)
        tap.life = PHASE_FREE_WRITE;
    else if (own)
        tap.life = PHASE_OWN_WRITE;
    else if (options->header.generation > 0)
        tap.life = PHASE_REWRITE_WRITE;
    else
        tap.life = options->header.level > 1 ? PHASE_HIGHER_WRITE : PHASE_MERGE_WRITE;
    tap.own_due = own ? 0 : tap.own_due;
    if (tap.skip == SKIP_MOVE) { /* it may replace what was moved */
        tap.skipped = false;
        owe(0);
    }
    enter(SLOT_LIFE, tap.life);
    return __real_merge_create(merge, options, inputs, count);
}

enum err __real_look_create(struct look **look, const char *directory,
                            const struct merge_input *input, const struct retention *retention,
                            uint64_t now_ms);
enum err __wrap_look_create(struct look **look, const char *directory,
                            const struct merge_input *input, const struct retention *retention,
                            uint64_t now_ms);
enum err __wrap_look_create(struct look **look, const char *directory,
                            const struct merge_input *input, const struct retention *retention,
                            uint64_t now_ms)
{
    tap.looked = input == NULL ? 0 : input->id;
    return __real_look_create(look, directory, input, retention, now_ms);
}

enum err __real_look_step(struct look *look, uint64_t budget);
enum err __wrap_look_step(struct look *look, uint64_t budget);
enum err __wrap_look_step(struct look *look, uint64_t budget)
{
    enum err err = __real_look_step(look, budget);
    if (err == OK && look_result(look)->due)
        tap.own_due = tap.looked;
    return err;
}

enum err __real_move_create(struct move **move, const char *from, const char *directory,
                            const struct archive_header *name);
enum err __wrap_move_create(struct move **move, const char *from, const char *directory,
                            const struct archive_header *name);
enum err __wrap_move_create(struct move **move, const char *from, const char *directory,
                            const struct archive_header *name)
{
    tap.life = PHASE_MOVE_WRITE;
    enter(SLOT_LIFE, tap.life);
    return __real_move_create(move, from, directory, name);
}

uint64_t __wrap_io_wall_ms(const struct io *io);
uint64_t __wrap_io_wall_ms(const struct io *io)
{
    (void)io;
    return tap.wall_ms;
}
