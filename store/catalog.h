/* catalog.h: the embedded ordered key-value store for what is looked up by id: accounts, devices,
 * conversations, watermarks.
 * Flow:       shard → catalog_submit → a worker runs the job's body in a transaction → the shard's
 *             job.done
 * Owns:       the LMDB environment (catalog_lmdb.c) or a map with commit and crash semantics
 *             (tests/sim/sim_catalog.c)
 * Invariants: all write jobs queued together commit in one transaction; a job is done only after
 *             its commit is on disk; a body that fails has written nothing (CHECKed); no read
 *             transaction outlives its job
 * Failure:    ERR_NO_SPACE, ERR_IO, ERR_CORRUPT, ERR_NEWER (written by a newer roost)
 * Bounds:     map_bytes of address space; keys ≤ 511 bytes */
#ifndef STORE_CATALOG_H
#define STORE_CATALOG_H

#include "core/bytes.h"
#include "core/worker.h"

struct catalog;
struct catalog_txn;

enum catalog_table {
    CATALOG_META, /* name → value: version, store epoch, secrets, checkpoint positions, writer epoch
                   */
    CATALOG_USERS,      /* user id → account row */
    CATALOG_USER_NAMES, /* realm, name → user id */
    CATALOG_DEVICES, /* user id, device number → device row (name, login generation, refresh token
                        hash) */
    CATALOG_DEVICE_KEYS,   /* user id, device key → device number */
    CATALOG_CONVERSATIONS, /* conversation id → row at the last checkpoint */
    CATALOG_INBOX,         /* user id, conversation id → watermarks at the last checkpoint */
    CATALOG_PENDING,       /* user id, conversation id → last activity; only where something is
                              undelivered */
    CATALOG_RETENTION,     /* conversation id → its own retention; only where it has one */
    CATALOG_TABLE_COUNT
};

/* catalog_open: makes the directory where it is missing, refuses a second process (ERR_BUSY);
 * blocks. On failure *explanation is one line for a person (constant text). */
MUST_USE enum err catalog_open(struct catalog **catalog, const char *directory, uint64_t map_bytes,
                               const char **explanation);
void catalog_close(struct catalog *catalog);
/* catalog_used_bytes: of map_bytes, free pages inside included; any thread. */
uint64_t catalog_used_bytes(const struct catalog *catalog);

/* catalog_open_beside: to read and to copy only, beside a process that has it open (or none): does
 * not ask for the directory's owner lock and writes no row. ERR_NOT_FOUND: there is no catalog. Of
 * the real catalog only, as is catalog_copy. */
MUST_USE enum err catalog_open_beside(struct catalog **catalog, const char *directory,
                                      const char **explanation);
/* catalog_copy: all of one transaction's state to a new file, compacted and synced, while others go
 * on writing; a copy opens as a catalog of its own. ERR_EXISTS: path is there. Blocks. */
MUST_USE enum err catalog_copy(struct catalog *catalog, const char *path);

/* Transactions outside jobs: start-up, recovery and tools only; they block. */
MUST_USE enum err catalog_begin(struct catalog *catalog, struct catalog_txn **txn, bool write);
MUST_USE enum err
catalog_commit(struct catalog_txn *txn); /* durable when OK; the transaction is gone either way */
void catalog_abort(struct catalog_txn *txn);

/* catalog_get: the value is valid until the transaction's next write or end. ERR_NOT_FOUND. */
MUST_USE enum err catalog_get(struct catalog_txn *txn, enum catalog_table table, struct bytes key,
                              struct bytes *value);
MUST_USE enum err catalog_put(struct catalog_txn *txn, enum catalog_table table, struct bytes key,
                              struct bytes value);
MUST_USE enum err catalog_delete(struct catalog_txn *txn, enum catalog_table table,
                                 struct bytes key); /* OK if absent */
/* catalog_scan: rows whose key starts with prefix, in key order, until row returns other than OK
 * (which is handed on, except ERR_CANCELLED: stop, OK). row may read but not write (CHECKed). */
MUST_USE enum err catalog_scan(struct catalog_txn *txn, enum catalog_table table,
                               struct bytes prefix,
                               enum err (*row)(void *context, struct bytes key, struct bytes value),
                               void *context);

struct catalog_job {
    struct worker_job job; /* job.done is the caller's to set */
    enum err (*body)(struct catalog_txn *txn, struct catalog_job *job);
    enum err err; /* body's result, or the commit's, which then every job of the batch gets */
    struct catalog *catalog; /* set by catalog_submit */
};

/* catalog_submit: ERR_FULL: queue full. */
MUST_USE enum err catalog_submit(struct catalog *catalog, struct workers *workers,
                                 struct catalog_job *job, bool write, uint32_t shard);
/* catalog_write_batch: the WORKER_CATALOG_WRITE class's batch hook; context is the catalog. */
void catalog_write_batch(void *catalog, struct worker_job *first);

#endif
