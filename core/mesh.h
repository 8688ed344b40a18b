/* mesh.h: bounded single-producer single-consumer rings of variable-size messages between shards,
 * and between shards and the log's lanes.
 * Flow:       a shard's turn → mesh_reserve/mesh_commit → the target's mesh phase →
 *             mesh_peek/mesh_pop; mesh_flush once a turn publishes what was committed and wakes
 *             sleepers
 * Owns:       the rings' memory; a message is copied in once and read in place
 * Nodes:      sources and targets below. Shard i is node i; lane i is node shards + i (mesh_lane),
 *             driven by shard i mod shards: that shard reserves, commits, peeks and pops for it,
 *             flushes it and is woken for it. A lane has rings of its own, so that a full one holds
 *             up nobody who asks another lane
 * Invariants: messages of one (source, target, class) arrive in order; a shard talks to itself
 *             through the same rings; per ring: head ≤ published ≤ tail ≤ head + capacity
 * Failure:    ERR_FULL: no room; who called decides (STYLE 5)
 * Bounds:     ring_bytes per ring; a message ≤ ring_bytes / 2 - MESH_HEAD_BYTES (CHECKed) */
#ifndef CORE_MESH_H
#define CORE_MESH_H

#include "core/bytes.h"

#define MESH_HEAD_BYTES 8

struct io_group;
struct mesh;

/* Classes are separate rings, so that nothing waits behind what cannot make progress (DESIGN 2). */
enum mesh_class {
    MESH_LOG_ANSWER, /* lane → shard that asked it; room was promised; always drained */
    MESH_ANSWER,  /* conversation → session; room was promised; always drained. Not one with the
                     above: a send holds a place here while it waits for one there */
    MESH_LOG,     /* shard → lane; needs only MESH_LOG_ANSWER to proceed */
    MESH_REQUEST, /* session → conversation; may wait for MESH_LOG */
    MESH_FANOUT,  /* conversation → home shard; never waited for: full means a dirty mark */
    MESH_CLASS_COUNT
};

struct mesh_options {
    uint32_t shards;
    uint32_t lanes;
    uint32_t ring_bytes[MESH_CLASS_COUNT];   /* power of two, at least 64 */
    uint32_t messages_max[MESH_CLASS_COUNT]; /* messages per ring at one time; 0: only bytes count.
                                                The simulator uses 1. */
};

/* mesh_create: group may be NULL: then nobody is woken (one thread runs all shards). */
MUST_USE enum err mesh_create(struct mesh **mesh, struct io_group *group,
                              const struct mesh_options *options);
void mesh_destroy(struct mesh *mesh);
/* mesh_rings: how many that makes. */
uint64_t mesh_rings(uint32_t shards, uint32_t lanes);
/* mesh_lane: the lane's node. */
uint32_t mesh_lane(const struct mesh *mesh, uint32_t lane);

/* mesh_reserve: size writable bytes at the ring's tail, 8-byte aligned, or NULL when full. One at a
 * time per source; followed by mesh_commit with the bytes really used (≤ size), or by nothing: then
 * the reservation is void. */
uint8_t *mesh_reserve(struct mesh *mesh, uint32_t source, uint32_t target, enum mesh_class class,
                      size_t size);
void mesh_commit(struct mesh *mesh, uint32_t source, uint32_t target, enum mesh_class class,
                 size_t size);

/* mesh_promise: book room for one future answer of up to size bytes (source → target), by the
 * shard that will read it (the target): how a requester reserves its answer's place. ERR_FULL. Kept
 * by the target, so no shared writes; the source never needs to ask: what it commits in MESH_ANSWER
 * was promised, so its mesh_reserve succeeds once it has taken the request off its ring, as long as
 * every message of the class to that target was promised. */
MUST_USE enum err mesh_promise(struct mesh *mesh, uint32_t target, uint32_t source,
                               enum mesh_class class, size_t size);
/* mesh_unpromise: with the size that was promised: after the target popped the answer, or when none
 * will ever come. */
void mesh_unpromise(struct mesh *mesh, uint32_t target, uint32_t source, enum mesh_class class,
                    size_t size);

/* mesh_peek: the oldest unread published message of a ring, or {NULL, 0}; valid until mesh_pop. */
struct bytes mesh_peek(struct mesh *mesh, uint32_t target, uint32_t source, enum mesh_class class);
/* mesh_peek_after: the one behind `message`, which came from mesh_peek or here and is not popped;
 * {NULL, 0}: none is known to be published. Of {NULL, 0}: the same. */
struct bytes mesh_peek_after(struct mesh *mesh, uint32_t target, uint32_t source,
                             enum mesh_class class, struct bytes message);
void mesh_pop(struct mesh *mesh, uint32_t target, uint32_t source, enum mesh_class class);

/* mesh_flush: publish all that the shard and the lanes it drives committed; wake shards that sleep.
 */
void mesh_flush(struct mesh *mesh, uint32_t shard);
/* mesh_sleep: shard is about to sleep: flushes, and returns false if a message is waiting for it
 * (then it must not). After true and the sleep: mesh_awake. */
bool mesh_sleep(struct mesh *mesh, uint32_t shard);
void mesh_awake(struct mesh *mesh, uint32_t shard);

/* mesh_room: whether a message of size bytes would fit now. */
bool mesh_room(struct mesh *mesh, uint32_t source, uint32_t target, enum mesh_class class,
               size_t size);
/* mesh_depth: published messages not yet popped; exact for source and target, a guess for others.
 */
uint32_t mesh_depth(const struct mesh *mesh, uint32_t source, uint32_t target,
                    enum mesh_class class);

#endif
