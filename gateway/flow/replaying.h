/* replaying.h: at a start, the log's tail on its way into the catalog, on two threads at once.
 * Flow:       the shard's thread: log_open reads, checks, decodes, indexes → replaying_record
 *             gathers group k + 1, and finds its entries → catalog_submit
 *             the catalog's writer (worker.h): replay_take of group k; replay_flush when memory was
 *             full and behind the last group → worker_completed
 * Owns:       the groups, the finder, what is merged (replay.h). A group belongs to the thread that
 *             fills it, goes to the writer with its job and comes back with it; the finder stays
 *             with the shard's thread, what is merged with the writer while any group is there
 * Invariants: groups are taken in the order of the log: the writer is one thread and first in,
 *             first out; rows are written by a flush only, all of them in the transaction that its
 *             job is in; after an error nothing is taken or written any more
 * Failure:    the first error sticks and comes out of replaying_finish: replay.h's, the catalog's
 * Bounds:     REPLAYING_GROUPS groups of 8 MiB; while all are with the writer, reading waits; and
 *             replay.h's. Rows of very many devices are counted only when a group comes back: those
 *             of REPLAYING_GROUPS groups may be on their way then */
#ifndef GATEWAY_FLOW_REPLAYING_H
#define GATEWAY_FLOW_REPLAYING_H

#include "core/io.h"
#include "gateway/chat/replay.h"

#define REPLAYING_GROUPS                                                                           \
    3u /* one gathers, one is taken, one is next: neither waits for the other */

struct replaying;

struct replaying_group {
    struct catalog_job job;
    struct replaying *replaying;
    struct replay_group *records;
    bool away;  /* with the writer */
    bool flush; /* behind it */
    bool full;  /* memory was, when it came back */
};

struct replaying {
    struct catalog *catalog;
    struct workers *workers;
    struct io *io; /* of the shard: woken when a group comes back */
    uint32_t shard;
    uint64_t records; /* that came */
    enum err err;     /* the first */
    /* private */
    struct replay_finder finder;
    struct replay *replay; /* the writer's */
    struct replaying_group groups[REPLAYING_GROUPS];
    uint32_t at; /* group that gathers */
    bool full;   /* flush behind it */
};

/* replaying_init: for a shard's thread, with nothing else of that shard in flight until
 * replaying_deinit: other events of its io are dropped. replaying_deinit also after a failure. */
MUST_USE enum err replaying_init(struct replaying *replaying, struct catalog *catalog,
                                 struct workers *workers, struct io *io, uint32_t shard);
/* replaying_deinit: waits for what is with the writer. */
void replaying_deinit(struct replaying *replaying);
/* replaying_record: log_open's callback; context is the struct replaying. Blocks while all groups
 * are with the writer. */
void replaying_record(void *context, const struct log_record *record, uint64_t position);
/* replaying_finish: OK: all that came is in the catalog, durable. Once. */
MUST_USE enum err replaying_finish(struct replaying *replaying);

#endif
