/* device.c: see device.h. The safe content moves forward through the recording with the cuts; what
 * is served is the safe content plus the sectors that survived plus what was written since, and is
 * put back block by block before the next cut. */
#include "tests/crash/device.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static bool is_zero(const uint8_t *data, size_t size)
{
    return data[0] == 0 && memcmp(data, data + 1, size - 1) == 0;
}

/* map: of a file, or, -1, of nothing. */
static uint8_t *map(uint64_t bytes, int file)
{
    int flags = file >= 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, file, 0);
    CHECK(p != MAP_FAILED);
    return p;
}

void device_init(struct device *device, uint64_t bytes, uint64_t split)
{
    CHECK(bytes % DEVICE_BLOCK == 0 && split % DEVICE_BLOCK == 0 && split <= bytes);
    memset(device, 0, sizeof *device);
    device->bytes = bytes;
    device->split = split;
    CHECK(pthread_mutex_init(&device->mutex, NULL) == 0);
    device->memory = memfd_create("crash", MFD_CLOEXEC);
    CHECK(device->memory >= 0 && ftruncate(device->memory, (off_t)bytes) == 0);
    device->served = map(bytes, device->memory);
    device->safe = map(bytes, -1);
    device->differs = calloc(bytes / DEVICE_BLOCK, 1);
    device->touched = calloc(bytes / DEVICE_BLOCK, 1);
    CHECK(device->differs != NULL && device->touched != NULL);
}

static void log_clear(struct device_log *log)
{
    for (size_t i = 0; i < log->count; i++)
        free(log->events[i].data);
    log->count = 0;
}

void device_deinit(struct device *device)
{
    log_clear(&device->record);
    log_clear(&device->after);
    log_clear(&device->kept);
    free(device->record.events);
    free(device->after.events);
    free(device->kept.events);
    free(device->differs);
    free(device->touched);
    close(device->memory);
    CHECK(munmap(device->served, device->bytes) == 0);
    CHECK(munmap(device->safe, device->bytes) == 0);
    CHECK(pthread_mutex_destroy(&device->mutex) == 0);
}

static void event_add(struct device *device, enum device_event_kind kind, uint64_t offset,
                      const uint8_t *data, size_t size)
{
    struct device_log *log = device->recording ? &device->record : &device->after;
    if (log->count == log->capacity) {
        log->capacity = log->capacity == 0 ? 1024 : log->capacity * 2;
        log->events = realloc(log->events, log->capacity * sizeof *log->events);
        CHECK(log->events != NULL);
    }
    struct device_event event = {.kind = kind, .offset = offset, .size = size};
    if (size != 0 && (kind == DEVICE_MARK || !is_zero(data, size))) {
        event.data = malloc(size);
        CHECK(event.data != NULL);
        memcpy(event.data, data, size);
    }
    log->events[log->count++] = event;
}

/* ---- what the file systems see */

static uint32_t disk_of(const struct device *device, uint64_t offset)
{
    return offset >= device->split;
}

/* put: into what is served, and, if it is safe, there too. data NULL: zeros. */
static void put(struct device *device, uint64_t offset, const uint8_t *data, size_t size, bool safe)
{
    CHECK(offset <= device->bytes && size <= device->bytes - offset);
    bool touched = data != NULL;
    for (uint64_t at = offset / DEVICE_BLOCK; at * DEVICE_BLOCK < offset + size; at++) {
        device->differs[at] |= !safe;
        device->touched[at] |= data != NULL;
        touched = touched || device->touched[at];
    }
    uint8_t *to[2] = {device->served + offset, safe ? device->safe + offset : NULL};
    for (size_t i = 0; i < COUNT_OF(to) && to[i] != NULL && touched; i++)
        if (data != NULL)
            memcpy(to[i], data, size);
        else
            memset(to[i], 0, size);
}

void device_read(struct device *device, uint64_t offset, uint8_t *out, size_t size)
{
    pthread_mutex_lock(&device->mutex);
    CHECK(offset <= device->bytes && size <= device->bytes - offset);
    bool touched = false;
    for (uint64_t at = offset / DEVICE_BLOCK; at * DEVICE_BLOCK < offset + size; at++)
        touched = touched || device->touched[at];
    if (touched)
        memcpy(out, device->served + offset, size);
    else
        memset(out, 0, size); /* reading would take memory */
    pthread_mutex_unlock(&device->mutex);
}

/* fails: whether this one is the one to fail; *n counts down. */
static bool fails(struct device *device, uint64_t *n)
{
    if (*n == 0 || --*n != 0)
        return false;
    device->failed++;
    return true;
}

int device_write(struct device *device, uint64_t offset, const uint8_t *data, size_t size)
{
    CHECK(offset % DEVICE_SECTOR == 0 && size % DEVICE_SECTOR == 0);
    pthread_mutex_lock(&device->mutex);
    bool bad = fails(device, &device->fail_write);
    if (!bad) {
        put(device, offset, is_zero(data, size) ? NULL : data, size, false);
        event_add(device, DEVICE_WRITE, offset, data, size);
    }
    pthread_mutex_unlock(&device->mutex);
    return bad ? EIO : 0;
}

int device_flush(struct device *device, uint64_t offset)
{
    pthread_mutex_lock(&device->mutex);
    bool bad = fails(device, &device->fail_flush);
    if (!bad)
        event_add(device, DEVICE_FLUSH, offset, NULL, 0);
    pthread_mutex_unlock(&device->mutex);
    return bad ? EIO : 0;
}

/* ---- what the lab does */

/* settle: what is served becomes safe (forward), or the other way round. */
static void settle(struct device *device, bool forward)
{
    for (uint64_t i = 0; i < device->bytes / DEVICE_BLOCK; i++) {
        if (!device->differs[i])
            continue;
        uint8_t *served = device->served + i * DEVICE_BLOCK;
        uint8_t *safe = device->safe + i * DEVICE_BLOCK;
        memcpy(forward ? safe : served, forward ? served : safe, DEVICE_BLOCK);
        device->differs[i] = 0;
    }
}

void device_command(struct device *device, const char *line)
{
    static const char write[] = "fail write ";
    static const char flush[] = "fail flush ";
    pthread_mutex_lock(&device->mutex);
    if (strncmp(line, write, sizeof write - 1) == 0) {
        device->fail_write = strtoull(line + sizeof write - 1, NULL, 10);
    } else if (strncmp(line, flush, sizeof flush - 1) == 0) {
        device->fail_flush = strtoull(line + sizeof flush - 1, NULL, 10);
    } else if (strcmp(line, "begin") == 0) {
        settle(device, true);
        log_clear(&device->record);
    } else {
        char text[MARK_BYTES];
        int size = snprintf(text, sizeof text, "%s", line);
        CHECK(size >= 0 && size < MARK_BYTES);
        event_add(device, DEVICE_MARK, 0, (const uint8_t *)text, (size_t)size + 1);
    }
    pthread_mutex_unlock(&device->mutex);
}

void device_begin(struct device *device)
{
    pthread_mutex_lock(&device->mutex);
    settle(device, true);
    log_clear(&device->after);
    device->recording = true;
    pthread_mutex_unlock(&device->mutex);
}

void device_end(struct device *device)
{
    pthread_mutex_lock(&device->mutex);
    device->recording = false;
    pthread_mutex_unlock(&device->mutex);
}

static uint64_t draw(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state >> 20;
}

/* chances: how many of the 8 parts of chance a sector has. */
static uint64_t chances(enum device_survival survival, bool last)
{
    switch (survival) {
    case DEVICE_NONE:
        return 0;
    case DEVICE_ALL:
        return 8;
    case DEVICE_RANDOM:
        return 4;
    case DEVICE_FEW:
        return 1;
    case DEVICE_MOST:
        return 7;
    case DEVICE_TORN:
        return 8;
    case DEVICE_TORN_ANY:
        return last ? 4 : 8;
    case DEVICE_SURVIVAL_COUNT:
        break;
    }
    CHECK(false);
    return 0;
}

/* torn_at: of a write that was torn, how many sectors are there; `blocks`: up to a block's end. */
static size_t torn_at(const struct device_event *event, bool blocks, uint64_t *random)
{
    size_t sectors = draw(random) % (event->size / DEVICE_SECTOR + 1);
    uint64_t end = event->offset + sectors * DEVICE_SECTOR;
    if (blocks && sectors < event->size / DEVICE_SECTOR)
        end -= end % DEVICE_BLOCK;
    return end < event->offset ? 0 : (size_t)((end - event->offset) / DEVICE_SECTOR);
}

/* write_survives: the sectors of one write that do. */
static void write_survives(struct device *device, const struct device_event *event,
                           enum device_survival survival, bool last, uint64_t *random)
{
    size_t sectors = event->size / DEVICE_SECTOR;
    bool blocks = device->whole_blocks;
    uint64_t first = disk_of(device, event->offset) == 0 ? 0 : device->split;
    if (last && survival == DEVICE_TORN)
        sectors = torn_at(event, blocks, random);
    bool there = false;
    for (size_t i = 0; i < sectors; i++) {
        uint64_t offset = event->offset + i * DEVICE_SECTOR;
        const uint8_t *data = event->data == NULL ? NULL : event->data + i * DEVICE_SECTOR;
        bool inside = i != 0 && offset % DEVICE_BLOCK != 0;
        bool whole = inside && (blocks || offset - first < DEVICE_BLOCK);
        there = whole ? there : draw(random) % 8 < chances(survival, last);
        if (there)
            put(device, offset, data, DEVICE_SECTOR, false);
    }
}

/* survivors: what of the writes before `to` reached the disks that were not flushed since: from its
 * disk's `from` on. */
static void survivors(struct device *device, const struct device_log *log,
                      const size_t from[DEVICE_DISKS], size_t to, enum device_survival survival,
                      uint64_t seed)
{
    uint64_t random = (seed + 1) * 0x9e3779b97f4a7c15ull | 1;
    size_t first = from[0] < from[1] ? from[0] : from[1];
    size_t last = to;
    while (last > first && log->events[last - 1].kind != DEVICE_WRITE)
        last--;
    for (size_t i = first; i < last; i++) {
        const struct device_event *event = &log->events[i];
        if (event->kind == DEVICE_WRITE && i >= from[disk_of(device, event->offset)])
            write_survives(device, event, survival, i == last - 1, &random);
    }
}

/* newest_flush: index behind the newest flush of each disk before `point`, or 0. */
static void newest_flush(const struct device *device, const struct device_log *log, size_t point,
                         size_t out[DEVICE_DISKS])
{
    for (uint32_t disk = 0; disk < DEVICE_DISKS; disk++) {
        size_t at = point;
        while (at > 0 && (log->events[at - 1].kind != DEVICE_FLUSH ||
                          disk_of(device, log->events[at - 1].offset) != disk))
            at--;
        out[disk] = at;
    }
}

/* all: the writes of one disk in [from, to). */
static void all(struct device *device, const struct device_log *log, uint32_t disk, size_t from,
                size_t to, bool safe)
{
    for (size_t i = from; i < to; i++) {
        const struct device_event *event = &log->events[i];
        if (event->kind == DEVICE_WRITE && disk_of(device, event->offset) == disk)
            put(device, event->offset, event->data, event->size, safe);
    }
}

static void cut(struct device *device, size_t point, enum device_survival survival, uint64_t seed)
{
    const struct device_log *log = &device->record;
    CHECK(point <= log->count);
    settle(device, false);
    size_t flushed[DEVICE_DISKS];
    newest_flush(device, log, point, flushed);
    for (uint32_t disk = 0; disk < DEVICE_DISKS; disk++) {
        CHECK(flushed[disk] >= device->safe_at[disk]);
        all(device, log, disk, device->safe_at[disk], flushed[disk], true);
        device->safe_at[disk] = flushed[disk];
    }
    survivors(device, log, flushed, point, survival, seed);
    device->recording = false;
}

const char *device_cut(struct device *device, size_t point, enum device_survival survival,
                       uint64_t seed)
{
    pthread_mutex_lock(&device->mutex);
    cut(device, point, survival, seed);
    log_clear(&device->after);
    pthread_mutex_unlock(&device->mutex);
    while (point > 0 && device->record.events[point - 1].kind != DEVICE_MARK)
        point--;
    return point == 0 ? "" : (const char *)device->record.events[point - 1].data;
}

void device_compare(struct device *device)
{
    off_t end;
    pthread_mutex_lock(&device->mutex);
    for (off_t from = lseek(device->memory, 0, SEEK_DATA); from >= 0;
         from = lseek(device->memory, end, SEEK_DATA)) {
        end = lseek(device->memory, from, SEEK_HOLE);
        CHECK(end > from && from % DEVICE_BLOCK == 0);
        for (uint64_t at = (uint64_t)from; at < (uint64_t)end; at += DEVICE_BLOCK) {
            if (memcmp(device->served + at, device->safe + at, DEVICE_BLOCK) == 0)
                continue;
            device->differs[at / DEVICE_BLOCK] = 1;
            device->touched[at / DEVICE_BLOCK] = 1;
        }
    }
    pthread_mutex_unlock(&device->mutex);
}

size_t device_keep(struct device *device)
{
    pthread_mutex_lock(&device->mutex);
    struct device_log kept = device->kept;
    log_clear(&kept);
    device->kept = device->after;
    device->after = kept;
    pthread_mutex_unlock(&device->mutex);
    return device->kept.count;
}

void device_cut_again(struct device *device, size_t point, enum device_survival survival,
                      uint64_t seed, size_t second, uint64_t second_seed)
{
    pthread_mutex_lock(&device->mutex);
    const struct device_log *log = &device->kept;
    CHECK(second <= log->count);
    cut(device, point, survival, seed);
    size_t flushed[DEVICE_DISKS];
    newest_flush(device, log, second, flushed);
    for (uint32_t disk = 0; disk < DEVICE_DISKS; disk++)
        all(device, log, disk, 0, flushed[disk], false);
    survivors(device, log, flushed, second, second_seed % DEVICE_SURVIVAL_COUNT, second_seed);
    log_clear(&device->after);
    pthread_mutex_unlock(&device->mutex);
}

void device_tear(struct device *device, bool whole_blocks)
{
    device->whole_blocks = whole_blocks;
}

bool device_save(struct device *device, const char *path)
{
    static const uint8_t zeros[DEVICE_BLOCK];
    FILE *file = fopen(path, "wb");
    if (file == NULL)
        return false;
    bool good = true;
    for (uint64_t at = 0; at < device->bytes && good; at += DEVICE_BLOCK) {
        bool last = at + DEVICE_BLOCK == device->bytes;
        if (last || memcmp(device->served + at, zeros, sizeof zeros) != 0)
            good = fseek(file, (long)at, SEEK_SET) == 0 &&
                   fwrite(device->served + at, DEVICE_BLOCK, 1, file) == 1;
    }
    return fclose(file) == 0 && good;
}
