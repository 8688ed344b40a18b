/* places.h: where the records of a sealed segment stand, in memory: what its sidecar says, made
 * small, so that a page of history costs no read of the index.
 * Flow:       sidecar → places_build (worker: background.c) → reader.c looks up → data reads
 * Owns:       its one block of memory; constant once built
 * Invariants: derived: may go at any time, then the sidecar's blocks are read instead; tells
 *             conversations apart by 64 bits of a hash keyed with the segment's nonce
 * Failure:    ERR_FULL: larger than the caller has room for; ERR_CORRUPT: the sidecar is damaged
 * Bounds:     4 B per record, 21 B per conversation of the segment */
#ifndef STORE_PLACES_H
#define STORE_PLACES_H

#include "store/sidecar.h"

/* places_entry: one conversation. */
struct places_entry {
    uint32_t print_high;
    uint32_t print_low;
    uint32_t first_seq;
    uint32_t start; /* of its places */
    uint32_t count; /* 0: only the sidecar can say */
};

struct places {
    size_t memory; /* bytes */
    /* private */
    struct segment_key key;
    uint32_t shift;   /* bucket = print_high >> shift */
    uint32_t entries; /* sorted by print */
    uint32_t *buckets;
    struct places_entry *entry;
    uint32_t *place; /* offset, in its low 3 bits the class of the size */
};

/* places_build: of a loaded sidecar, by reading its blocks; at most bytes_max in memory. ERR_FULL,
 * ERR_NO_MEMORY, ERR_CORRUPT, ERR_IO. Blocking. */
MUST_USE enum err places_build(struct places **places, const struct sidecar *sidecar,
                               size_t bytes_max);
void places_destroy(struct places *places);

/* places_range: as sidecar_range, in one step; a hit's size is a bound: the record is no longer.
 * ERR_NOT_FOUND: nothing of the conversation; ERR_UNSUPPORTED: only the sidecar can say. */
MUST_USE enum err places_range(const struct places *places, struct conversation_id conversation,
                               uint64_t from, struct index_hit *hits, uint32_t hits_max,
                               uint32_t *count, bool *before);
/* places_newest: the conversation's highest number; errors as of places_range. */
MUST_USE enum err places_newest(const struct places *places, struct conversation_id conversation,
                                uint64_t *seq);

#endif
