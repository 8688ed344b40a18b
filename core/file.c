/* file.c: the blocking file calls, each retried when a signal interrupted it and when it moved
 * only part of the bytes. errno ends here (core/errno.h).
 *
 * fdatasync serves files: it also writes the size. A directory's sync is fsync of its descriptor,
 * which makes the names in it durable. */
#include "core/file.h"

#include "core/errno.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define TRANSFER_MAX (1u << 30) /* Linux moves at most 2 GiB - 4 KiB in one call */

static enum err last_error(void)
{
    return err_from_errno(errno);
}

enum err file_open(int *fd, const char *path, uint32_t flags)
{
    int mode = (flags & FILE_WRITE) != 0 ? O_RDWR : O_RDONLY;
    if ((flags & FILE_CREATE) != 0)
        mode |= O_CREAT;
    if ((flags & FILE_EXCLUSIVE) != 0)
        mode |= O_EXCL;
    if ((flags & FILE_DIRECT) != 0)
        mode |= O_DIRECT;
    int opened;
    do
        opened = open(path, mode | O_CLOEXEC, (flags & FILE_PRIVATE) != 0 ? 0600 : 0640);
    while (opened < 0 && errno == EINTR);
    if (opened < 0)
        return errno == EINVAL && (flags & FILE_DIRECT) != 0 ? ERR_UNSUPPORTED : last_error();
    *fd = opened;
    return OK;
}

void file_close(int fd)
{
    (void)close(fd); /* what had to be durable was synced before */
}

enum err file_size(int fd, uint64_t *size)
{
    struct stat status;
    if (fstat(fd, &status) < 0)
        return last_error();
    *size = (uint64_t)status.st_size;
    return OK;
}

enum err file_read(int fd, uint64_t offset, uint8_t *data, size_t size, size_t *done)
{
    *done = 0;
    while (*done < size) {
        size_t part = size - *done < TRANSFER_MAX ? size - *done : TRANSFER_MAX;
        ssize_t got = pread(fd, data + *done, part, (off_t)(offset + *done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return last_error();
        if (got == 0)
            break;
        *done += (size_t)got;
    }
    return OK;
}

void file_read_ahead(int fd, uint64_t offset, uint64_t size)
{
    (void)posix_fadvise(fd, (off_t)offset, (off_t)size, POSIX_FADV_WILLNEED);
}

enum err file_write(int fd, uint64_t offset, struct bytes data)
{
    while (data.size > 0) {
        size_t part = data.size < TRANSFER_MAX ? data.size : TRANSFER_MAX;
        ssize_t put = pwrite(fd, data.data, part, (off_t)offset);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return last_error();
        if (put == 0) /* no progress and no reason: going on could last for ever */
            return ERR_IO;
        offset += (uint64_t)put;
        data = bytes_skip(data, (size_t)put);
    }
    return OK;
}

enum err file_sync(int fd)
{
    return fdatasync(fd) < 0 ? last_error() : OK;
}

enum err file_truncate(int fd, uint64_t size)
{
    int res;
    do
        res = ftruncate(fd, (off_t)size);
    while (res < 0 && errno == EINTR);
    return res < 0 ? last_error() : OK;
}

enum err file_link(const char *source, const char *target)
{
    if (link(source, target) == 0)
        return OK;
    return errno == EXDEV || errno == EPERM || errno == EMLINK || errno == EOPNOTSUPP
               ? ERR_UNSUPPORTED
               : last_error();
}

enum err file_rename(const char *source, const char *target)
{
    return rename(source, target) < 0 ? last_error() : OK;
}

enum err file_remove(const char *path)
{
    return remove(path) < 0 ? last_error() : OK;
}

enum err file_make_directory(const char *path)
{
    char parent[PATH_MAX];
    struct stat status;
    if ((size_t)snprintf(parent, sizeof parent, "%s/..", path) >= sizeof parent)
        return ERR_TOO_BIG;
    if (mkdir(path, 0750) == 0)
        return file_sync_directory(parent);
    if (errno != EEXIST)
        return last_error();
    if (stat(path, &status) < 0)
        return last_error();
    return S_ISDIR(status.st_mode) ? file_sync_directory(parent) : ERR_EXISTS;
}

enum err file_make_private_directory(const char *path)
{
    char parent[PATH_MAX];
    if ((size_t)snprintf(parent, sizeof parent, "%s/..", path) >= sizeof parent)
        return ERR_TOO_BIG;
    if (mkdir(path, 0700) < 0)
        return last_error();
    return file_sync_directory(parent);
}

enum err file_sync_directory(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return last_error();
    enum err err = fsync(fd) < 0 ? last_error() : OK;
    (void)close(fd);
    return err;
}

enum err file_is_private(int fd, bool *private)
{
    struct stat status;
    if (fstat(fd, &status) < 0)
        return last_error();
    *private = (status.st_mode & (S_IRWXG | S_IRWXO)) == 0;
    return OK;
}

static enum err lock(int fd, int operation)
{
    int res;
    do
        res = flock(fd, operation | LOCK_NB);
    while (res < 0 && errno == EINTR);
    if (res == 0)
        return OK;
    return errno == EWOULDBLOCK ? ERR_BUSY : last_error();
}

enum err file_lock(int fd)
{
    return lock(fd, LOCK_EX);
}

enum err file_lock_shared(int fd)
{
    return lock(fd, LOCK_SH);
}

enum err file_unlock(int fd)
{
    return lock(fd, LOCK_UN);
}

enum err file_names(int fd, uint64_t *count)
{
    struct stat status;
    if (fstat(fd, &status) < 0)
        return last_error();
    *count = status.st_nlink;
    return OK;
}

enum err file_free_bytes(const char *path, uint64_t *bytes)
{
    struct statvfs status;
    int res;
    do
        res = statvfs(path, &status);
    while (res < 0 && errno == EINTR);
    if (res < 0)
        return last_error();
    *bytes = (uint64_t)status.f_bavail * status.f_frsize;
    return OK;
}

enum err file_list(const char *path, enum err (*entry)(void *context, const char *name),
                   void *context)
{
    DIR *directory = opendir(path);
    if (directory == NULL)
        return last_error();
    enum err err = OK;
    while (err == OK) {
        errno = 0;
        /* cppcheck-suppress readdirCalled ; the stream is ours alone; readdir_r is deprecated */
        const struct dirent *found = readdir(directory);
        if (found == NULL) {
            err = last_error(); /* 0 at the end */
            break;
        }
        if (strcmp(found->d_name, ".") != 0 && strcmp(found->d_name, "..") != 0)
            err = entry(context, found->d_name);
    }
    (void)closedir(directory);
    return err;
}
