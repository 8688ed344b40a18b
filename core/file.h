/* file.h: blocking file calls, for start-up, recovery, command-line tools and worker threads; never
 * on a shard's turn.
 * Flow:       store/ → here → the kernel (core/file.c) or the simulated disk (tests/sim/sim_file.c)
 * Failure:    enum err; a failed sync must not be retried (the page cache may have dropped the
 *             data) */
#ifndef CORE_FILE_H
#define CORE_FILE_H

#include "core/bytes.h"

enum file_flags {
    FILE_READ = 0,
    FILE_WRITE = 1,
    FILE_CREATE = 2,    /* with FILE_WRITE: make it if missing */
    FILE_EXCLUSIVE = 4, /* with FILE_CREATE: ERR_EXISTS if there */
    FILE_DIRECT = 8,    /* O_DIRECT; ERR_UNSUPPORTED where the file system cannot */
    FILE_PRIVATE = 16,  /* mode 0600 instead of 0640 */
};

MUST_USE enum err file_open(int *fd, const char *path, uint32_t flags);
void file_close(int fd);
MUST_USE enum err file_size(int fd, uint64_t *size);
/* file_read: up to size bytes, short only at the end of the file. */
MUST_USE enum err file_read(int fd, uint64_t offset, uint8_t *data, size_t size, size_t *done);
/* file_read_ahead: that part will be read soon; a hint, returns at once. */
void file_read_ahead(int fd, uint64_t offset, uint64_t size);
MUST_USE enum err file_write(int fd, uint64_t offset, struct bytes data);
MUST_USE enum err file_sync(int fd);
MUST_USE enum err file_truncate(int fd, uint64_t size);
/* file_link: another name for source's bytes. ERR_UNSUPPORTED: not on this file system, or between
 * two. Tools on real files only: the simulated disk has none. */
MUST_USE enum err file_link(const char *source, const char *target);
MUST_USE enum err file_rename(const char *source, const char *target);
MUST_USE enum err file_remove(const char *path);
/* file_make_directory: OK if it exists; its parent is synced, so that no power cut takes it away.
 */
MUST_USE enum err file_make_directory(const char *path);
/* file_make_private_directory: mode 0700; ERR_EXISTS if there is anything of that name. */
MUST_USE enum err file_make_private_directory(const char *path);
MUST_USE enum err file_sync_directory(const char *path);
/* file_is_private: nobody but the owner has any right on it (mode & 077 is 0). */
MUST_USE enum err file_is_private(int fd, bool *private);
/* file_lock: exclusive advisory lock, held until the descriptor is closed. ERR_BUSY: another
 * process has it. */
MUST_USE enum err file_lock(int fd);
/* file_lock_shared: the same beside other shared ones; ERR_BUSY: another has it alone. */
MUST_USE enum err file_lock_shared(int fd);
MUST_USE enum err file_unlock(int fd);
/* file_names: how many names the file has; above 1: hard links. */
MUST_USE enum err file_names(int fd, uint64_t *count);
/* file_free_bytes: space that an unprivileged writer still has on path's file system. */
MUST_USE enum err file_free_bytes(const char *path, uint64_t *bytes);
/* file_list: calls back for every entry (no order promised, no "." and "..") until it returns other
 * than OK. */
MUST_USE enum err file_list(const char *path, enum err (*entry)(void *context, const char *name),
                            void *context);

#endif
