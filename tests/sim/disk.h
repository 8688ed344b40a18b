/* disk.h: the simulated file system: one disk of files and directories, with what is synced and
 * what is not.
 * Flow:       sim_file.c (blocking calls) and sim_io.c (asynchronous ones) → here
 * Owns:       all files; descriptors are numbers that are never used twice
 * Invariants: `data` is what reads see; `durable` plus any subset of the `journal` is what a power
 *             cut leaves. The journal has one entry per 512-byte sector and write, in order, so
 *             that a sector that was written twice may come back as any of its versions and a long
 *             write is torn anywhere. Names change durably when their directory is synced; what was
 *             not synced survives as a prefix of its changes, as on a journaling file system.
 * Failure:    ERR_NO_SPACE above world_options.disk_bytes; ERR_IO by world_faults, and for ever
 *             while the machine is off. A failed sync loses any part of what it should have synced,
 *             and the next one says OK (ext4's and xfs's behaviour). */
#ifndef TESTS_SIM_DISK_H
#define TESTS_SIM_DISK_H

#include "core/bytes.h"

#define DISK_SECTOR   512
#define DISK_PATH_MAX 256

struct world;
struct disk;

struct disk *disk_create(struct world *world);
void disk_destroy(struct disk *disk);

MUST_USE enum err disk_open(struct disk *disk, int *fd, const char *path, uint32_t flags);
void disk_close(struct disk *disk, int fd);
MUST_USE enum err disk_lock(struct disk *disk, int fd);
MUST_USE enum err disk_unlock(struct disk *disk, int fd);
MUST_USE enum err disk_size(struct disk *disk, int fd, uint64_t *size);
MUST_USE enum err disk_read(struct disk *disk, int fd, uint64_t offset, uint8_t *data, size_t size,
                            size_t *done);
MUST_USE enum err disk_write(struct disk *disk, int fd, uint64_t offset, struct bytes data);
/* disk_journal_end, disk_sync_until: what was written before a sync began is durable when it ends,
 * and nothing more. */
uint64_t disk_journal_end(struct disk *disk, int fd);
MUST_USE enum err disk_sync_until(struct disk *disk, int fd, uint64_t end);
MUST_USE enum err disk_truncate(struct disk *disk, int fd, uint64_t size);
MUST_USE enum err disk_rename(struct disk *disk, const char *source, const char *target);
MUST_USE enum err disk_remove(struct disk *disk, const char *path);
MUST_USE enum err disk_make_directory(struct disk *disk, const char *path);
MUST_USE enum err disk_sync_directory(struct disk *disk, const char *path);
uint64_t disk_free_bytes(const struct disk *disk);
MUST_USE enum err disk_list(struct disk *disk, const char *path,
                            enum err (*entry)(void *context, const char *name), void *context);

/* disk_kill: descriptors and locks are gone, the disk answers ERR_IO until disk_restart. power:
 * what was not synced survives in part only. */
void disk_kill(struct disk *disk, bool power);
void disk_restart(struct disk *disk);

/* For scenarios: */
/* disk_set_slow: from now on asynchronous operations on files in the directory take ns longer each.
 * One directory at a time; ns 0: none. */
void disk_set_slow(struct disk *disk, const char *directory, uint64_t ns);
uint64_t disk_slow_ns(const struct disk *disk, int fd);
void disk_set_bytes(struct disk *disk, uint64_t bytes); /* another size of the file system */
/* disk_damage: change every byte of a range for good, as a failing device would. ERR_NOT_FOUND. */
MUST_USE enum err disk_damage(struct disk *disk, const char *path, uint64_t offset, uint64_t size);

#endif
