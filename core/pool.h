/* pool.h: fixed-size objects with generation handles, in chunks that come from the shard's heap on
 * demand up to a maximum.
 * Owns:       the objects' memory; given back only by pool_deinit
 * Invariants: a handle of a freed object never resolves again until its 32-bit generation wraps;
 *             an object never moves, is 16-byte aligned, and is poisoned for ASan while it is free
 * Failure:    pool_take: NULL when objects_max are in use, or out of memory. Giving back what is
 *             not in use is a bug (CHECK)
 * Bounds:     (object_bytes + 8, rounded up to 16) × objects_max */
#ifndef CORE_POOL_H
#define CORE_POOL_H

#include "core/err.h"

struct handle {
    uint32_t index;
    uint32_t generation; /* 0: none */
};

static inline uint64_t handle_pack(struct handle h)
{
    return (uint64_t)h.generation << 32 | h.index;
}
static inline struct handle handle_unpack(uint64_t v)
{
    return (struct handle){(uint32_t)v, (uint32_t)(v >> 32)};
}

struct pool {
    /* private */
    uint8_t **chunks;
    uint32_t chunk_count;
    uint32_t chunk_objects; /* power of two */
    uint32_t stride;
    uint32_t object_bytes;
    uint32_t objects_max;
    uint32_t free_head;
    uint32_t used;
    uint32_t touched;
};

MUST_USE enum err pool_init(struct pool *pool, uint32_t object_bytes, uint32_t objects_max);
void pool_deinit(struct pool *pool);
void *pool_take(struct pool *pool); /* zeroed */
void pool_give(struct pool *pool, void *object);
struct handle pool_handle(const struct pool *pool, const void *object);
void *pool_get(const struct pool *pool, struct handle handle); /* NULL: freed */
/* pool_used: objects in use. */
static inline uint32_t pool_used(const struct pool *pool)
{
    return pool->used;
}
/* pool_next: walks objects in use; start with *at = 0; NULL at the end. Taking and giving during
 * the walk is fine. */
void *pool_next(const struct pool *pool, uint32_t *at);

#endif
