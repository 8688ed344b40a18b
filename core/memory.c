/* memory.c: mimalloc with a count per purpose.
 *
 * A shard is one thread, and mimalloc keeps a heap per thread: that heap is the shard's. Sizes are
 * counted as what the allocator really set aside (usable size), so that memory_give needs no size
 * and rounding is not hidden. Under a sanitizer everything goes to malloc, which it watches.
 *
 * Mutable file-scope and thread-local state, which STYLE 7 forbids elsewhere: the header asks for
 * counters per thread, and an allocator has no shard to hang them on (BoringSSL's hooks carry no
 * context). Each thread takes a cell of its own on first use and adds to it without a lock; when
 * the cells run out, the rest share the last one, with atomic additions. Cells are never given
 * back: a thread that ended may have allocated what lives on. */
#include "core/memory.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define MEMORY_WATCHED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MEMORY_WATCHED 1
#endif

#ifdef MEMORY_WATCHED
#include <malloc.h>
#define raw_malloc(size)                  malloc(size)
#define raw_zalloc(size)                  calloc(1, size)
#define raw_realloc(p, size)              realloc(p, size)
#define raw_aligned(size, alignment, out) posix_memalign(out, alignment, size)
#define raw_free(p)                       free(p)
#define raw_size(p)                       malloc_usable_size(p)
#else
#include <mimalloc.h>
#define raw_malloc(size)                  mi_malloc(size)
#define raw_zalloc(size)                  mi_zalloc(size)
#define raw_realloc(p, size)              mi_realloc(p, size)
#define raw_aligned(size, alignment, out) mi_posix_memalign(out, alignment, size)
#define raw_free(p)                       mi_free(p)
#define raw_size(p)                       mi_usable_size(p)
#endif

/* Both allocators align to 16 from this size on. */
#define SIZE_MIN 16

#define PAGE_BYTES 4096u
#define HUGE_BYTES (2u << 20) /* a huge page */

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif

#define CELLS 256 /* shards + workers + spare; more threads share the last one */

struct cell {
    _Alignas(64) atomic_int_fast64_t bytes[MEMORY_PURPOSE_COUNT];
};

static struct cell cells[CELLS];
static atomic_uint cells_used;
static _Thread_local struct cell *own_cell;
static _Thread_local uint64_t fail_at;

static struct cell *cell_of_thread(void)
{
    if (own_cell == NULL) {
        uint32_t index = atomic_fetch_add_explicit(&cells_used, 1, memory_order_relaxed);
        own_cell = &cells[index < CELLS - 1 ? index : CELLS - 1];
    }
    return own_cell;
}

static void count_bytes(enum memory_purpose purpose, int64_t delta)
{
    CHECK((uint32_t)purpose < MEMORY_PURPOSE_COUNT);
    struct cell *cell = cell_of_thread();
    atomic_int_fast64_t *bytes = &cell->bytes[purpose];
    if (cell == &cells[CELLS - 1]) {
        atomic_fetch_add_explicit(bytes, delta, memory_order_relaxed);
    } else {
        int64_t old = atomic_load_explicit(bytes, memory_order_relaxed);
        atomic_store_explicit(bytes, old + delta, memory_order_relaxed);
    }
}

/* take_fails: whether this take is the one that a test wants to fail. */
static bool take_fails(void)
{
    return __builtin_expect(fail_at != 0, 0) && --fail_at == 0;
}

static void *counted(void *p, enum memory_purpose purpose)
{
    if (p != NULL)
        count_bytes(purpose, (int64_t)raw_size(p));
    return p;
}

void *memory_take(size_t size, enum memory_purpose purpose)
{
    if (take_fails())
        return NULL;
    return counted(raw_malloc(size < SIZE_MIN ? SIZE_MIN : size), purpose);
}

void *memory_take_zeroed(size_t size, enum memory_purpose purpose)
{
    if (take_fails())
        return NULL;
    return counted(raw_zalloc(size < SIZE_MIN ? SIZE_MIN : size), purpose);
}

void *memory_resize(void *old, size_t size, enum memory_purpose purpose)
{
    if (old == NULL)
        return memory_take(size, purpose);
    if (take_fails())
        return NULL;
    int64_t old_size = (int64_t)raw_size(old);
    void *p = raw_realloc(old, size < SIZE_MIN ? SIZE_MIN : size);
    if (p != NULL)
        count_bytes(purpose, (int64_t)raw_size(p) - old_size);
    return p;
}

enum err memory_grow(void *list, uint32_t *capacity, uint32_t count, size_t item_bytes,
                     enum memory_purpose purpose)
{
    void *items;
    size_t bytes;
    if (count <= *capacity)
        return OK;
    uint32_t more = *capacity == 0 ? 16 : *capacity;
    while (more < count || more == *capacity) {
        if (more > UINT32_MAX / 2)
            return ERR_NO_MEMORY;
        more *= 2;
    }
    if (__builtin_mul_overflow(more, item_bytes, &bytes))
        return ERR_NO_MEMORY;
    memcpy(&items, list, sizeof items);
    items = memory_resize(items, bytes, purpose);
    if (items == NULL)
        return ERR_NO_MEMORY;
    memcpy(list, &items, sizeof items);
    *capacity = more;
    return OK;
}

void memory_give(void *p, enum memory_purpose purpose)
{
    if (p == NULL)
        return;
    count_bytes(purpose, -(int64_t)raw_size(p));
    raw_free(p);
}

void *memory_take_aligned(size_t size, size_t alignment, enum memory_purpose purpose)
{
    CHECK(alignment != 0 && (alignment & (alignment - 1)) == 0);
    if (take_fails())
        return NULL;
    void *p = NULL;
    if (alignment < SIZE_MIN)
        alignment = SIZE_MIN;
    if (raw_aligned(size < SIZE_MIN ? SIZE_MIN : size, alignment, &p) != 0)
        return NULL;
    return counted(p, purpose);
}

/* huge_advise: refused, or none there: small pages. Memory that the allocator gives out again may
 * have some already: these are moved together. */
static void huge_advise(void *p, size_t size)
{
    (void)madvise(p, size, MADV_HUGEPAGE);
    (void)madvise(p, size, MADV_COLLAPSE);
}

void *memory_take_huge(size_t size, enum memory_purpose purpose)
{
    bool huge = size >= HUGE_BYTES;
    void *p = memory_take_aligned(size, huge ? HUGE_BYTES : PAGE_BYTES, purpose);
    if (p != NULL && huge)
        huge_advise(p, size / HUGE_BYTES * HUGE_BYTES);
    return p;
}

int64_t memory_bytes(enum memory_purpose purpose)
{
    CHECK((uint32_t)purpose < MEMORY_PURPOSE_COUNT);
    int64_t sum = 0;
    uint32_t used = atomic_load_explicit(&cells_used, memory_order_relaxed);
    for (size_t i = 0; i < CELLS && i < used; i++) /* a shard asks every turn: no empty cells */
        sum += atomic_load_explicit(&cells[i].bytes[purpose], memory_order_relaxed);
    return sum;
}

const char *memory_purpose_name(enum memory_purpose purpose)
{
    switch (purpose) {
    case MEMORY_CORE:
        return "core";
    case MEMORY_TLS:
        return "tls";
    case MEMORY_CONNECTION:
        return "connection";
    case MEMORY_CHAT:
        return "chat";
    case MEMORY_STORE:
        return "store";
    case MEMORY_API:
        return "api";
    case MEMORY_PURPOSE_COUNT:
        break;
    }
    return "unknown";
}

uint64_t memory_fail_at(uint64_t n)
{
    uint64_t left = fail_at;
    fail_at = n;
    return left;
}
