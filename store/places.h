/* places.h: where the records of a sealed segment, or the conversations of an archive, stand, in
 * memory: what its sidecar or its directory says, made small, so that a page of history costs no
 * read of an index.
 * Flow:       sidecar, archive → places_build, places_archive_build (worker: background.c) →
 *             reader*.c looks up → data reads
 * Owns:       its one block of memory; constant once built
 * Invariants: derived: may go at any time, then the blocks on disk are read instead; tells
 *             conversations apart by 64 bits of a hash keyed with the file's nonce
 * Failure:    ERR_FULL: larger than the caller has room for; ERR_CORRUPT: sidecar or directory is
 *             damaged
 * Bounds:     segment: 4 B per record, 21 B per conversation; archive: 21 B per conversation, 16 B
 *             per data block (of 32 KiB) */
#ifndef STORE_PLACES_H
#define STORE_PLACES_H

#include "store/archive.h"
#include "store/sidecar.h"

/* places_entry: one conversation. */
struct places_entry {
    uint32_t print_high;
    uint32_t print_low;
    uint32_t first_seq;
    uint32_t start; /* of its places; archive: number of its first data block */
    uint32_t count; /* of numbers; 0: only the disk can say */
};

/* places_block: a data block of an archive. */
struct places_block {
    uint64_t offset; /* its lowest bit: it goes on with the conversation of the one before */
    uint32_t bytes;
    uint32_t seq; /* of its first record */
};

struct places {
    size_t memory; /* bytes */
    /* private */
    struct segment_key key;
    uint32_t shift;   /* bucket = print_high >> shift */
    uint32_t entries; /* sorted by print */
    uint32_t *buckets;
    struct places_entry *entry;
    uint32_t *place;            /* segment: offset, in its low 3 bits the class of the size */
    struct places_block *block; /* archive */
    uint32_t blocks;
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

/* places_archive_bytes: what those of an archive take in memory. */
uint64_t places_archive_bytes(const struct archive_footer *footer);
/* places_archive_build: of a loaded archive, by reading its directory and tables; as places_build.
 */
MUST_USE enum err places_archive_build(struct places **places, const struct archive *archive,
                                       size_t bytes_max);
/* places_archive_entry: as archive_directory_find, in memory: all but what FIND needs (records and
 * prints). ERR_NOT_FOUND: nothing of it has a number; ERR_UNSUPPORTED: only the disk can say. */
MUST_USE enum err places_archive_entry(const struct places *places,
                                       struct conversation_id conversation,
                                       struct archive_entry *entry);
/* places_archive_at: number of the conversation's data block that the sequence number is in, if it
 * is in any. */
uint32_t places_archive_at(const struct places *places, const struct archive_entry *entry,
                           uint64_t seq);
/* places_archive_row: a data block of that conversation; without its count. */
struct archive_row places_archive_row(const struct places *places,
                                      const struct archive_entry *entry, uint32_t block);

#endif
