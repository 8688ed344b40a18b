/* disk.c: files and names of the simulated disk, what a crash leaves of them, and injected
 * failures. */
#include "tests/sim/disk.h"

#include "core/file.h"
#include "tests/sim/world.h"

#include <stdio.h>
#include <stdlib.h>

#define FD_FIRST 100

struct content {
    uint8_t *data;
    uint64_t size;
    uint64_t capacity;
};

struct change { /* of a file's content, not yet synced */
    bool truncate;
    uint64_t sector;
    uint64_t size; /* truncate: the file's; else up to where this sector makes the file reach */
    uint8_t data[DISK_SECTOR];
};

struct node {
    uint64_t id;
    bool directory;
    struct content now;
    struct content durable;
    struct change *journal;
    uint64_t journal_first; /* number of journal[0] */
    size_t journal_count;
    size_t journal_capacity;
    int lock_fd; /* 0: none */
    struct node *next;
};

struct name {
    char path[DISK_PATH_MAX];
    struct node *now;     /* NULL: does not exist */
    struct node *durable; /* NULL: would not exist after a crash */
};

struct name_change {            /* not yet synced; paths "" where not used */
    char source[DISK_PATH_MAX]; /* vanishes */
    char target[DISK_PATH_MAX]; /* becomes node */
    struct node *node;
};

struct open_file {
    struct node *node; /* NULL: closed */
    uint32_t flags;
};

struct disk {
    struct world *world;
    uint64_t bytes;
    struct node *nodes;
    uint64_t node_id;
    struct name *names;
    size_t name_count;
    struct name_change *changes;
    size_t change_count;
    struct open_file *files; /* by fd - FD_FIRST */
    size_t file_count;
    bool off; /* killed, not restarted: everything fails */
    char slow[DISK_PATH_MAX];
    uint64_t slow_ns; /* 0: nothing is */
};

/* ---- content */

static void content_resize(struct content *content, uint64_t size)
{
    if (size > content->capacity) {
        uint64_t capacity = size > 2 * content->capacity ? size : 2 * content->capacity;
        content->data = world_resize(content->data, capacity, 1);
        content->capacity = capacity;
    }
    if (size > content->size)
        memset(content->data + content->size, 0, size - content->size);
    content->size = size;
}

static void content_copy(struct content *target, const struct content *source)
{
    content_resize(target, source->size);
    if (source->size > 0)
        memcpy(target->data, source->data, source->size);
}

static void change_apply(struct content *content, const struct change *change)
{
    if (change->truncate) {
        content_resize(content, change->size);
        return;
    }
    if (change->size > content->size)
        content_resize(content, change->size);
    uint64_t at = change->sector * DISK_SECTOR;
    if (at >= content->size)
        return; /* a truncation that survived cut it off */
    uint64_t room = content->size - at;
    memcpy(content->data + at, change->data, room < DISK_SECTOR ? room : DISK_SECTOR);
}

static struct change *journal_add(struct node *node)
{
    if (node->journal_count == node->journal_capacity) {
        node->journal_capacity = 2 * node->journal_capacity + 16;
        node->journal = world_resize(node->journal, node->journal_capacity, sizeof *node->journal);
    }
    struct change *change = &node->journal[node->journal_count++];
    memset(change, 0, sizeof *change);
    return change;
}

static void journal_drop(struct node *node, size_t count)
{
    CHECK(count <= node->journal_count);
    node->journal_count -= count;
    node->journal_first += count;
    if (count > 0)
        memmove(node->journal, node->journal + count, node->journal_count * sizeof *node->journal);
    if (node->journal_count == 0) { /* a pre-written segment's journal is larger than itself */
        free(node->journal);
        node->journal = NULL;
        node->journal_capacity = 0;
    }
}

/* Applies the oldest `count` changes, each with a chance of per_million. */
static void journal_apply(struct disk *disk, struct node *node, size_t count, uint32_t per_million)
{
    for (size_t i = 0; i < count; i++)
        if (per_million >= 1000000 || world_chance(disk->world, per_million))
            change_apply(&node->durable, &node->journal[i]);
    journal_drop(node, count);
}

/* ---- names */

/* Absolute, without empty, "." and ".." parts. */
static enum err path_clean(char out[DISK_PATH_MAX], const char *path)
{
    size_t used = 0;
    while (*path != '\0') {
        size_t size = strcspn(path, "/");
        if (size == 2 && memcmp(path, "..", 2) == 0) {
            while (used > 0 && out[--used] != '/')
                ;
        } else if (size > 0 && !(size == 1 && *path == '.')) {
            if (used + size + 2 > DISK_PATH_MAX)
                return ERR_INVALID;
            out[used++] = '/';
            memcpy(out + used, path, size);
            used += size;
        }
        path += size + (path[size] == '/');
    }
    out[used] = '\0'; /* the root is "" */
    return OK;
}

static void path_parent(char out[DISK_PATH_MAX], const char *clean)
{
    snprintf(out, DISK_PATH_MAX, "%s", clean);
    char *slash = strrchr(out, '/');
    if (slash)
        *slash = '\0';
}

static bool path_in(const char *clean, const char *directory)
{
    char parent[DISK_PATH_MAX];
    path_parent(parent, clean);
    return clean[0] != '\0' && strcmp(parent, directory) == 0;
}

static struct name *name_find(struct disk *disk, const char *clean)
{
    for (size_t i = 0; i < disk->name_count; i++)
        if (strcmp(disk->names[i].path, clean) == 0)
            return &disk->names[i];
    return NULL;
}

static struct name *name_make(struct disk *disk, const char *clean)
{
    struct name *name = name_find(disk, clean);
    if (name)
        return name;
    disk->names = world_resize(disk->names, disk->name_count + 1, sizeof *disk->names);
    name = &disk->names[disk->name_count++];
    memset(name, 0, sizeof *name);
    snprintf(name->path, sizeof name->path, "%s", clean);
    return name;
}

static struct node *node_find(struct disk *disk, const char *clean)
{
    struct name *name = name_find(disk, clean);
    return name ? name->now : NULL;
}

static bool directory_exists(struct disk *disk, const char *clean)
{
    struct node *node = node_find(disk, clean);
    return clean[0] == '\0' || (node && node->directory);
}

static bool parent_exists(struct disk *disk, const char *clean)
{
    char parent[DISK_PATH_MAX];
    path_parent(parent, clean);
    return directory_exists(disk, parent);
}

static void name_change_apply(struct disk *disk, const struct name_change *change, bool durable)
{
    if (change->source[0] != '\0') {
        struct name *source = name_make(disk, change->source);
        *(durable ? &source->durable : &source->now) = NULL;
    }
    if (change->target[0] != '\0') {
        struct name *target = name_make(disk, change->target);
        *(durable ? &target->durable : &target->now) = change->node;
    }
}

static void name_change(struct disk *disk, const char *source, const char *target,
                        struct node *node)
{
    disk->changes = world_resize(disk->changes, disk->change_count + 1, sizeof *disk->changes);
    struct name_change *change = &disk->changes[disk->change_count++];
    memset(change, 0, sizeof *change);
    snprintf(change->source, sizeof change->source, "%s", source);
    snprintf(change->target, sizeof change->target, "%s", target);
    change->node = node;
    name_change_apply(disk, change, false);
}

/* ---- nodes */

static bool node_used(const struct disk *disk, const struct node *node)
{
    for (size_t i = 0; i < disk->name_count; i++)
        if (disk->names[i].now == node || disk->names[i].durable == node)
            return true;
    for (size_t i = 0; i < disk->change_count; i++)
        if (disk->changes[i].node == node)
            return true;
    for (size_t i = 0; i < disk->file_count; i++)
        if (disk->files[i].node == node)
            return true;
    return false;
}

static void node_free(struct node *node)
{
    free(node->now.data);
    free(node->durable.data);
    free(node->journal);
    free(node);
}

static void nodes_collect(struct disk *disk)
{
    for (struct node **at = &disk->nodes; *at;) {
        struct node *node = *at;
        if (node_used(disk, node)) {
            at = &node->next;
        } else {
            *at = node->next;
            node_free(node);
        }
    }
}

static struct node *node_make(struct disk *disk, bool directory)
{
    struct node *node = world_take(1, sizeof *node);
    node->id = ++disk->node_id;
    node->directory = directory;
    node->next = disk->nodes;
    disk->nodes = node;
    return node;
}

/* ---- descriptors */

static struct open_file *file_of(struct disk *disk, int fd)
{
    CHECK(fd >= FD_FIRST && (size_t)(fd - FD_FIRST) < disk->file_count);
    struct open_file *file = &disk->files[fd - FD_FIRST];
    CHECK(file->node != NULL || disk->off);
    return file;
}

enum err disk_open(struct disk *disk, int *fd, const char *path, uint32_t flags)
{
    char clean[DISK_PATH_MAX];
    if (disk->off)
        return ERR_IO;
    TRY(path_clean(clean, path));
    struct node *node = node_find(disk, clean);
    if (!parent_exists(disk, clean))
        return ERR_NOT_FOUND;
    if (node && (flags & FILE_EXCLUSIVE))
        return ERR_EXISTS;
    if (!node && !(flags & FILE_CREATE))
        return ERR_NOT_FOUND;
    if ((flags & FILE_DIRECT) && !disk->world->options.disk_direct)
        return ERR_UNSUPPORTED;
    if (node && node->directory)
        return ERR_INVALID;
    if (!node) {
        CHECK(flags & FILE_WRITE);
        node = node_make(disk, false);
        name_change(disk, "", clean, node);
    }
    disk->files = world_resize(disk->files, disk->file_count + 1, sizeof *disk->files);
    disk->files[disk->file_count] = (struct open_file){node, flags};
    *fd = FD_FIRST + (int)disk->file_count++;
    world_trace(disk->world, "open", node->id, flags, bytes_of_text(clean));
    return OK;
}

void disk_close(struct disk *disk, int fd)
{
    struct open_file *file = file_of(disk, fd);
    if (file->node && file->node->lock_fd == fd)
        file->node->lock_fd = 0;
    file->node = NULL;
    nodes_collect(disk);
}

enum err disk_lock(struct disk *disk, int fd)
{
    struct open_file *file = file_of(disk, fd);
    if (disk->off)
        return ERR_IO;
    if (file->node->lock_fd != 0 && file->node->lock_fd != fd)
        return ERR_BUSY;
    file->node->lock_fd = fd;
    return OK;
}

enum err disk_unlock(struct disk *disk, int fd)
{
    struct open_file *file = file_of(disk, fd);
    if (disk->off)
        return ERR_IO;
    if (file->node->lock_fd == fd)
        file->node->lock_fd = 0;
    return OK;
}

enum err disk_size(struct disk *disk, int fd, uint64_t *size)
{
    struct open_file *file = file_of(disk, fd);
    if (disk->off)
        return ERR_IO;
    *size = file->node->now.size;
    return OK;
}

static void check_direct(const struct open_file *file, uint64_t offset, const void *data,
                         size_t size)
{
    if (file->flags & FILE_DIRECT)
        CHECK(offset % DISK_SECTOR == 0 && size % DISK_SECTOR == 0 &&
              (uintptr_t)data % DISK_SECTOR == 0);
}

enum err disk_read(struct disk *disk, int fd, uint64_t offset, uint8_t *data, size_t size,
                   size_t *done)
{
    struct open_file *file = file_of(disk, fd);
    check_direct(file, offset, data, size);
    if (disk->off || world_chance(disk->world, disk->world->options.faults.disk_read_error))
        return ERR_IO;
    const struct content *content = &file->node->now;
    uint64_t left = offset < content->size ? content->size - offset : 0;
    *done = left < size ? (size_t)left : size;
    if (*done > 0)
        memcpy(data, content->data + offset, *done);
    return OK;
}

static uint64_t disk_used(const struct disk *disk)
{
    uint64_t used = 0;
    for (const struct node *node = disk->nodes; node; node = node->next)
        used += node->now.size;
    return used;
}

uint64_t disk_free_bytes(const struct disk *disk)
{
    uint64_t used = disk_used(disk);
    return used < disk->bytes ? disk->bytes - used : 0;
}

static void write_sectors(struct node *node, uint64_t offset, struct bytes data)
{
    uint64_t end = offset + data.size;
    if (data.size == 0)
        return;
    if (end > node->now.size)
        content_resize(&node->now, end);
    memcpy(node->now.data + offset, data.data, data.size);
    for (uint64_t sector = offset / DISK_SECTOR; sector * DISK_SECTOR < end; sector++) {
        uint64_t at = sector * DISK_SECTOR;
        uint64_t room = node->now.size - at;
        struct change *change = journal_add(node);
        change->sector = sector;
        change->size = at + (end - at < DISK_SECTOR ? end - at : DISK_SECTOR);
        memcpy(change->data, node->now.data + at, room < DISK_SECTOR ? room : DISK_SECTOR);
    }
}

enum err disk_write(struct disk *disk, int fd, uint64_t offset, struct bytes data)
{
    struct open_file *file = file_of(disk, fd);
    struct world *world = disk->world;
    check_direct(file, offset, data.data, data.size);
    CHECK(file->flags & FILE_WRITE);
    if (disk->off)
        return ERR_IO;
    uint64_t end = offset + data.size;
    uint64_t growth = end > file->node->now.size ? end - file->node->now.size : 0;
    enum err err = growth > disk_free_bytes(disk)                          ? ERR_NO_SPACE
                   : world_chance(world, world->options.faults.disk_error) ? ERR_IO
                                                                           : OK;
    if (err == ERR_IO) /* part of it may have been written */
        data.size = world_below(world, data.size / DISK_SECTOR + 1) * DISK_SECTOR;
    if (err != ERR_NO_SPACE)
        write_sectors(file->node, offset, data);
    world_trace(world, err == OK ? "write" : "write_failed", file->node->id, offset, data);
    return err;
}

uint64_t disk_journal_end(struct disk *disk, int fd)
{
    struct open_file *file = file_of(disk, fd);
    return disk->off ? 0 : file->node->journal_first + file->node->journal_count;
}

enum err disk_sync_until(struct disk *disk, int fd, uint64_t end)
{
    struct open_file *file = file_of(disk, fd);
    struct world *world = disk->world;
    if (disk->off)
        return ERR_IO;
    struct node *node = file->node;
    uint64_t first = node->journal_first;
    size_t count = end > first ? (size_t)(end - first) : 0;
    CHECK(count <= node->journal_count);
    bool failed = world_chance(world, world->options.faults.disk_error);
    journal_apply(disk, node, count, failed ? 500000 : 1000000);
    world_trace(world, failed ? "sync_failed" : "sync", node->id, end, bytes_of(NULL, 0));
    return failed ? ERR_IO : OK;
}

enum err disk_truncate(struct disk *disk, int fd, uint64_t size)
{
    struct open_file *file = file_of(disk, fd);
    CHECK(file->flags & FILE_WRITE);
    if (disk->off)
        return ERR_IO;
    if (size > file->node->now.size && size - file->node->now.size > disk_free_bytes(disk))
        return ERR_NO_SPACE;
    struct change *change = journal_add(file->node);
    change->truncate = true;
    change->size = size;
    content_resize(&file->node->now, size);
    world_trace(disk->world, "truncate", file->node->id, size, bytes_of(NULL, 0));
    return OK;
}

/* ---- directories */

enum err disk_rename(struct disk *disk, const char *source, const char *target)
{
    char from[DISK_PATH_MAX];
    char to[DISK_PATH_MAX];
    if (disk->off)
        return ERR_IO;
    TRY(path_clean(from, source));
    TRY(path_clean(to, target));
    struct node *node = node_find(disk, from);
    if (!node || !parent_exists(disk, to))
        return ERR_NOT_FOUND;
    CHECK(!node->directory); /* nobody here renames directories; their contents' names would stay */
    if (strcmp(from, to) != 0)
        name_change(disk, from, to, node);
    nodes_collect(disk);
    world_trace(disk->world, "rename", node->id, 0, bytes_of_text(to));
    return OK;
}

static bool directory_empty(struct disk *disk, const char *clean)
{
    for (size_t i = 0; i < disk->name_count; i++)
        if (disk->names[i].now && path_in(disk->names[i].path, clean))
            return false;
    return true;
}

enum err disk_remove(struct disk *disk, const char *path)
{
    char clean[DISK_PATH_MAX];
    if (disk->off)
        return ERR_IO;
    TRY(path_clean(clean, path));
    struct node *node = node_find(disk, clean);
    if (!node)
        return ERR_NOT_FOUND;
    if (node->directory && !directory_empty(disk, clean))
        return ERR_EXISTS;
    name_change(disk, clean, "", NULL);
    world_trace(disk->world, "remove", node->id, 0, bytes_of_text(clean));
    nodes_collect(disk);
    return OK;
}

enum err disk_make_directory(struct disk *disk, const char *path)
{
    char clean[DISK_PATH_MAX];
    if (disk->off)
        return ERR_IO;
    TRY(path_clean(clean, path));
    if (directory_exists(disk, clean))
        return OK;
    if (!parent_exists(disk, clean))
        return ERR_NOT_FOUND;
    if (node_find(disk, clean))
        return ERR_EXISTS;
    name_change(disk, "", clean, node_make(disk, true));
    return OK;
}

enum err disk_sync_directory(struct disk *disk, const char *path)
{
    char clean[DISK_PATH_MAX];
    if (disk->off)
        return ERR_IO;
    TRY(path_clean(clean, path));
    if (!directory_exists(disk, clean))
        return ERR_NOT_FOUND;
    size_t kept = 0;
    for (size_t i = 0; i < disk->change_count; i++) {
        struct name_change *change = &disk->changes[i];
        if (path_in(change->source, clean) || path_in(change->target, clean))
            name_change_apply(disk, change, true);
        else
            disk->changes[kept++] = *change;
    }
    disk->change_count = kept;
    world_trace(disk->world, "sync_directory", 0, 0, bytes_of_text(clean));
    nodes_collect(disk);
    return OK;
}

enum err disk_list(struct disk *disk, const char *path,
                   enum err (*entry)(void *context, const char *name), void *context)
{
    char clean[DISK_PATH_MAX];
    if (disk->off)
        return ERR_IO;
    TRY(path_clean(clean, path));
    if (!directory_exists(disk, clean))
        return ERR_NOT_FOUND;
    size_t count = disk->name_count;
    size_t start = count > 0 ? (size_t)world_below(disk->world, count) : 0; /* no order promised */
    for (size_t i = 0; i < count; i++) {
        char copy[DISK_PATH_MAX]; /* entry may open and remove files, which moves the names */
        struct name *name = &disk->names[(start + i) % count];
        if (!name->now || !path_in(name->path, clean))
            continue;
        snprintf(copy, sizeof copy, "%s", strrchr(name->path, '/') + 1);
        TRY(entry(context, copy));
    }
    return OK;
}

/* ---- the disk as a whole */

struct disk *disk_create(struct world *world)
{
    struct disk *disk = world_take(1, sizeof *disk);
    disk->world = world;
    disk->bytes = world->options.disk_bytes;
    return disk;
}

void disk_destroy(struct disk *disk)
{
    while (disk->nodes) {
        struct node *node = disk->nodes;
        disk->nodes = node->next;
        node_free(node);
    }
    free(disk->names);
    free(disk->changes);
    free(disk->files);
    free(disk);
}

/* Directories whose own name was lost take what is in them along. */
static void names_drop_orphans(struct disk *disk)
{
    for (bool again = true; again;) {
        again = false;
        for (size_t i = 0; i < disk->name_count; i++) {
            struct name *name = &disk->names[i];
            if (name->now && !parent_exists(disk, name->path)) {
                name->now = name->durable = NULL;
                again = true;
            }
        }
    }
}

static void power_cut(struct disk *disk)
{
    struct world *world = disk->world;
    static const uint32_t survival[] = {0, 100000, 500000, 900000, 1000000};
    size_t kept = disk->change_count > 0 ? (size_t)world_below(world, disk->change_count + 1) : 0;
    for (size_t i = 0; i < kept; i++)
        name_change_apply(disk, &disk->changes[i], true);
    disk->change_count = 0;
    for (size_t i = 0; i < disk->name_count; i++)
        disk->names[i].now = disk->names[i].durable;
    names_drop_orphans(disk);
    nodes_collect(disk);
    for (struct node *node = disk->nodes; node; node = node->next) {
        uint32_t chance = survival[world_below(world, COUNT_OF(survival))];
        journal_apply(disk, node, node->journal_count, chance);
        content_copy(&node->now, &node->durable);
        world_trace(world, "survived", node->id, chance, bytes_of(node->now.data, node->now.size));
    }
}

void disk_kill(struct disk *disk, bool power)
{
    for (size_t i = 0; i < disk->file_count; i++)
        disk->files[i].node = NULL;
    for (struct node *node = disk->nodes; node; node = node->next)
        node->lock_fd = 0;
    disk->off = true;
    if (power)
        power_cut(disk);
    nodes_collect(disk);
}

void disk_restart(struct disk *disk)
{
    disk->off = false;
}

void disk_set_bytes(struct disk *disk, uint64_t bytes)
{
    disk->bytes = bytes;
}

void disk_set_slow(struct disk *disk, const char *directory, uint64_t ns)
{
    enum err err = path_clean(disk->slow, directory);
    CHECK(err == OK);
    disk->slow_ns = ns;
}

uint64_t disk_slow_ns(const struct disk *disk, int fd)
{
    const struct node *node = disk->files[fd - FD_FIRST].node;
    for (size_t i = 0; disk->slow_ns != 0 && node != NULL && i < disk->name_count; i++)
        if (disk->names[i].now == node)
            return path_in(disk->names[i].path, disk->slow) ? disk->slow_ns : 0;
    return 0;
}

enum err disk_damage(struct disk *disk, const char *path, uint64_t offset, uint64_t size)
{
    char clean[DISK_PATH_MAX];
    TRY(path_clean(clean, path));
    struct node *node = node_find(disk, clean);
    if (!node || offset + size > node->now.size)
        return ERR_NOT_FOUND;
    for (uint64_t at = offset; at < offset + size; at++) {
        uint8_t flip = (uint8_t)world_between(disk->world, 1, 255);
        node->now.data[at] ^= flip;
        if (at < node->durable.size)
            node->durable.data[at] ^= flip;
    }
    return OK;
}
