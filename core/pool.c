/* pool.c: chunks of objects, each object followed by a trailer.
 *
 *     object (object_bytes, rounded up to 8) | u32 generation | u32 link | padding to 16
 *
 * The generation is odd while the object is in use and even while it is free; it starts at 0 and
 * goes up by one with each take and each give, so generation 0 is never in a handle. The link is
 * the object's own index while in use, the next free index (NONE: last) while free. Under
 * AddressSanitizer the object's part is poisoned while it is free. */
#include "core/pool.h"

#include "core/memory.h"

#include <string.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define POOL_POISON 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#define POOL_POISON 1
#endif
#ifdef POOL_POISON
#include <sanitizer/asan_interface.h>
#define poison(p, size)   ASAN_POISON_MEMORY_REGION(p, size)
#define unpoison(p, size) ASAN_UNPOISON_MEMORY_REGION(p, size)
#else
#define poison(p, size)   ((void)0)
#define unpoison(p, size) ((void)0)
#endif

#define CHUNK_BYTES 65536u /* a chunk's size, unless one object is larger */
#define NONE        UINT32_MAX

struct trailer {
    uint32_t generation;
    uint32_t link;
};

static uint32_t trailer_offset(const struct pool *pool)
{
    return (pool->object_bytes + 7) & ~7u;
}

static uint8_t *object_at(const struct pool *pool, uint32_t index)
{
    uint8_t *chunk = pool->chunks[index / pool->chunk_objects];
    return chunk + (size_t)(index % pool->chunk_objects) * pool->stride;
}

/* trailer_of: the object's memory is 16-byte aligned, the trailer's 8. */
static struct trailer *trailer_of(const struct pool *pool, uint8_t *object)
{
    return (struct trailer *)(void *)(object + trailer_offset(pool));
}

static bool in_use(const struct trailer *trailer)
{
    return trailer->generation % 2 == 1;
}

enum err pool_init(struct pool *pool, uint32_t object_bytes, uint32_t objects_max)
{
    CHECK(object_bytes > 0 && object_bytes <= 1u << 30 && objects_max < NONE);
    *pool = (struct pool){.object_bytes = object_bytes, .objects_max = objects_max};
    pool->stride = (trailer_offset(pool) + (uint32_t)sizeof(struct trailer) + 15) & ~15u;
    pool->chunk_objects = 1;
    while (pool->chunk_objects * 2 <= CHUNK_BYTES / pool->stride &&
           pool->chunk_objects < objects_max)
        pool->chunk_objects *= 2;
    pool->chunk_count =
        objects_max / pool->chunk_objects + (objects_max % pool->chunk_objects != 0);
    pool->free_head = NONE;
    pool->chunks = memory_take_zeroed(pool->chunk_count * sizeof pool->chunks[0], MEMORY_CORE);
    return pool->chunks != NULL ? OK : ERR_NO_MEMORY;
}

void pool_deinit(struct pool *pool)
{
    for (uint32_t i = 0; pool->chunks != NULL && i < pool->chunk_count; i++) {
        if (pool->chunks[i] == NULL)
            continue;
        unpoison(pool->chunks[i], (size_t)pool->chunk_objects * pool->stride);
        memory_give(pool->chunks[i], MEMORY_CORE);
    }
    memory_give(pool->chunks, MEMORY_CORE);
    *pool = (struct pool){0};
}

/* touch_object: an object that was never used, its chunk made if needed; NULL when out of memory.
 */
static uint8_t *touch_object(struct pool *pool)
{
    uint32_t index = pool->touched;
    uint8_t **chunk = &pool->chunks[index / pool->chunk_objects];
    if (*chunk == NULL) {
        size_t size = (size_t)pool->chunk_objects * pool->stride;
        *chunk = memory_take(size, MEMORY_CORE);
        if (*chunk == NULL)
            return NULL;
        poison(*chunk, size);
    }
    uint8_t *object = object_at(pool, index);
    struct trailer *trailer = trailer_of(pool, object);
    unpoison(trailer, sizeof *trailer);
    *trailer = (struct trailer){.generation = 0, .link = NONE};
    pool->touched++;
    return object;
}

void *pool_take(struct pool *pool)
{
    uint8_t *object;
    uint32_t index;
    if (pool->free_head != NONE) {
        index = pool->free_head;
        object = object_at(pool, index);
        pool->free_head = trailer_of(pool, object)->link;
    } else {
        index = pool->touched;
        object = index < pool->objects_max ? touch_object(pool) : NULL;
        if (object == NULL)
            return NULL;
    }
    struct trailer *trailer = trailer_of(pool, object);
    trailer->generation++;
    trailer->link = index;
    pool->used++;
    unpoison(object, pool->object_bytes);
    memset(object, 0, pool->object_bytes);
    return object;
}

/* trailer_in_use: of an object that pool_take gave; anything else is a bug. */
static struct trailer *trailer_in_use(const struct pool *pool, const void *object)
{
    struct trailer *trailer = trailer_of(pool, (uint8_t *)(uintptr_t)object);
    CHECK(in_use(trailer) && trailer->link < pool->touched);
    CHECK(object_at(pool, trailer->link) == object);
    return trailer;
}

void pool_give(struct pool *pool, void *object)
{
    struct trailer *trailer = trailer_in_use(pool, object);
    uint32_t index = trailer->link;
    trailer->generation++;
    trailer->link = pool->free_head;
    pool->free_head = index;
    pool->used--;
    poison(object, trailer_offset(pool));
}

struct handle pool_handle(const struct pool *pool, const void *object)
{
    const struct trailer *trailer = trailer_in_use(pool, object);
    return (struct handle){trailer->link, trailer->generation};
}

void *pool_get(const struct pool *pool, struct handle handle)
{
    if (handle.index >= pool->touched || handle.generation % 2 == 0)
        return NULL;
    uint8_t *object = object_at(pool, handle.index);
    return trailer_of(pool, object)->generation == handle.generation ? object : NULL;
}

void *pool_next(const struct pool *pool, uint32_t *at)
{
    while (*at < pool->touched) {
        uint8_t *object = object_at(pool, (*at)++);
        if (in_use(trailer_of(pool, object)))
            return object;
    }
    return NULL;
}
