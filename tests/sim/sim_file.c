/* sim_file.c: core/file.h over the simulated disk of world_current: blocking calls take no
 * simulated time. */
#include "core/file.h"

#include "tests/sim/disk.h"
#include "tests/sim/world.h"

#include <stdio.h>

static struct disk *disk(void)
{
    CHECK(world_current != NULL);
    return world_current->disk;
}

enum err file_open(int *fd, const char *path, uint32_t flags)
{
    return disk_open(disk(), fd, path, flags);
}

void file_close(int fd)
{
    disk_close(disk(), fd);
}

enum err file_size(int fd, uint64_t *size)
{
    return disk_size(disk(), fd, size);
}

void file_read_ahead(int fd, uint64_t offset, uint64_t size)
{
    (void)fd;
    (void)offset;
    (void)size;
}

enum err file_read(int fd, uint64_t offset, uint8_t *data, size_t size, size_t *done)
{
    return disk_read(disk(), fd, offset, data, size, done);
}

enum err file_write(int fd, uint64_t offset, struct bytes data)
{
    return disk_write(disk(), fd, offset, data);
}

enum err file_sync(int fd)
{
    return disk_sync_until(disk(), fd, disk_journal_end(disk(), fd));
}

enum err file_truncate(int fd, uint64_t size)
{
    return disk_truncate(disk(), fd, size);
}

enum err file_rename(const char *source, const char *target)
{
    return disk_rename(disk(), source, target);
}

enum err file_remove(const char *path)
{
    return disk_remove(disk(), path);
}

enum err file_make_directory(const char *path)
{
    char parent[256];
    TRY(disk_make_directory(disk(), path));
    snprintf(parent, sizeof parent, "%s", path);
    char *slash = strrchr(parent, '/');
    if (slash != NULL)
        slash[slash == parent ? 1 : 0] = 0;
    return disk_sync_directory(disk(), slash != NULL ? parent : ".");
}

enum err file_sync_directory(const char *path)
{
    return disk_sync_directory(disk(), path);
}

enum err file_lock(int fd)
{
    return disk_lock(disk(), fd);
}

/* The world has no second process that reads files, and no hard links. */
enum err file_lock_shared(int fd)
{
    return disk_lock(disk(), fd);
}

enum err file_unlock(int fd)
{
    return disk_unlock(disk(), fd);
}

enum err file_names(int fd, uint64_t *count)
{
    *count = 1;
    return file_size(fd, &(uint64_t){0});
}

enum err file_free_bytes(const char *path, uint64_t *bytes)
{
    (void)path; /* one file system */
    *bytes = disk_free_bytes(disk());
    return OK;
}

enum err file_list(const char *path, enum err (*entry)(void *context, const char *name),
                   void *context)
{
    return disk_list(disk(), path, entry, context);
}
