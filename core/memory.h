/* memory.h: where memory comes from: mimalloc's heap of the current thread, counted per purpose.
 * Flow:       everybody → here → mimalloc; BoringSSL's OPENSSL_memory_* hooks land here too
 *             (gateway/wire/tls.c)
 * Invariants: bytes(purpose) = allocated - freed over all threads, in usable sizes (counters are
 *             per thread, summed when read)
 * Failure:    NULL when out of memory or when a test's N-th take fails (memory_fail_at) */
#ifndef CORE_MEMORY_H
#define CORE_MEMORY_H

#include "core/err.h"

enum memory_purpose {
    MEMORY_CORE, /* rings, pools, tables, mesh */
    MEMORY_TLS,
    MEMORY_CONNECTION, /* connections, parsers, output */
    MEMORY_CHAT,       /* users, sessions, conversations, cached messages */
    MEMORY_STORE,
    MEMORY_API, /* HTTP, JSON */
    MEMORY_PURPOSE_COUNT
};

void *memory_take(size_t size, enum memory_purpose purpose); /* uninitialised, 16-byte aligned */
void *memory_take_zeroed(size_t size, enum memory_purpose purpose);
/* memory_resize: as realloc: on NULL old is untouched; size 0 keeps a small piece. */
void *memory_resize(void *old, size_t size, enum memory_purpose purpose);
/* memory_grow: *list (a pointer to items of item_bytes each) gets room for at least `count` of
 * them: at least twice what it had. ERR_NO_MEMORY: nothing has changed. */
MUST_USE enum err memory_grow(void *list, uint32_t *capacity, uint32_t count, size_t item_bytes,
                              enum memory_purpose purpose);
void memory_give(void *p, enum memory_purpose purpose); /* any thread; NULL is fine */
/* memory_take_aligned: for O_DIRECT and rings; give back with memory_give. */
void *memory_take_aligned(size_t size, size_t alignment, enum memory_purpose purpose);
/* memory_take_huge: for what a device reads from or writes to often: at a page, from 2 MiB on in
 * huge pages where the kernel has some. A device is given a buffer as physically contiguous pieces;
 * of 4 KiB pages a MiB has 256, more than many take at a time. Give back with memory_give. */
void *memory_take_huge(size_t size, enum memory_purpose purpose);
int64_t memory_bytes(enum memory_purpose purpose);
const char *memory_purpose_name(enum memory_purpose purpose);
/* memory_fail_at: tests: the n-th take (or resize) of this thread from now fails, once (0: never).
 * Returns how many the order before still had to go: 0: it was carried out, or there was none. */
uint64_t memory_fail_at(uint64_t n);

#endif
