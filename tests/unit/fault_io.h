/* fault_io.h: a test double of core/io.h (files, clocks, entropy), core/file.h and core/worker.h: a
 * disk in memory that can fail at the N-th operation, run full, and crash with unsynced sectors
 * torn.
 * Flow:       tests link fault_io.c instead of core/io_uring.c, core/file.c and core/worker.c
 * Owns:       one disk for the whole process (file calls carry no context); fault_reset empties it
 * Invariants: a sector written since the last sync may or may not survive fault_crash, whole
 *             sectors of 512 bytes at a time; names are durable at once */
#ifndef TESTS_UNIT_FAULT_IO_H
#define TESTS_UNIT_FAULT_IO_H

#include "core/file.h"
#include "core/io.h"
#include "core/worker.h"

enum fault_op { FAULT_READ, FAULT_WRITE, FAULT_SYNC, FAULT_OTHER, FAULT_OP_COUNT };

struct fault_settings {
    uint64_t fail_at[FAULT_OP_COUNT]; /* the n-th from now fails, once; 0: none */
    enum err fail_err;                /* ERR_IO by default */
    bool fail_sticky;                 /* every one from the n-th on */
    uint64_t fail_more;               /* so many more after the n-th */
    uint64_t capacity;                /* bytes of all files together; 0: unlimited */
    bool hold;                        /* asynchronous operations and jobs do not complete */
    uint32_t files_max;               /* asynchronous operations in flight; 0: 64 */
    uint64_t count[FAULT_OP_COUNT];   /* operations so far */
    uint64_t reads_async;             /* of those, io_file_read */
};
extern struct fault_settings fault;

void fault_reset(void); /* an empty disk, nothing fails */
void fault_calm(void);  /* nothing fails any more; the disk stays */
/* fault_crash: the power goes: unsynced sectors survive or not by the seed (0: none does, 1: all
 * do); descriptors and operations in flight are gone. */
void fault_crash(uint64_t seed);
/* fault_kill: only the process goes: what it wrote stays readable, unsynced as it was. */
void fault_kill(void);
void fault_pass(uint64_t ns); /* the clock goes on */
/* fault_data: a file's bytes, to damage at will (durable at once: call fault_settle after); NULL:
 * no such file. */
uint8_t *fault_data(const char *path, uint64_t *size);
void fault_settle(void);
void fault_remove(const char *path);
void fault_link(const char *path); /* it has another name from now on: a write into it is a bug */
/* fault_save, fault_load: the whole disk; fault_free gives a saved one back. */
struct fault_image;
struct fault_image *fault_save(void);
void fault_load(const struct fault_image *image);
void fault_free(struct fault_image *image);
uint32_t fault_open_descriptors(void);
struct io *fault_io(void);
struct workers *fault_workers(void);

#endif
