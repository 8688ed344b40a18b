/* sidecar.h: the index of a sealed segment, in a file beside it: sorted, checksummed, searched on
 * disk; only fences and a filter of its conversations are resident while it is in use.
 * Flow:       index.c's index → sidecar_write (worker) → file → sidecar_load (worker) → reader.c
 * Owns:       a loaded sidecar owns its descriptor and memory
 * Invariants: derived: rebuilt from the segment whenever it is missing or damaged
 * Failure:    ERR_CORRUPT, ERR_NEWER: rebuild it; ERR_NO_SPACE, ERR_IO
 * Bounds:     a look-up reads SIDECAR_READ_BYTES; resident: 24 B per 127 records, 4 B per 340
 *             records, 10 bits per conversation
 * Format:     byte by byte in sidecar.c */
#ifndef STORE_SIDECAR_H
#define STORE_SIDECAR_H

#include "store/index.h"
#include "store/scan.h"

#define SIDECAR_READ_BYTES (2 * SEGMENT_BLOCK)
#define SIDECAR_HITS       254 /* most records that one range look-up returns */

struct sidecar_fence {
    struct conversation_id conversation;
    uint64_t seq;
};

struct sidecar_entry {
    struct conversation_id conversation;
    uint64_t seq;
    uint32_t offset;
    uint32_t size;
};
#define SIDECAR_BLOCK_ENTRIES 127u

struct sidecar {
    int fd;
    struct segment_key key;
    uint32_t data_end;
    uint64_t expires_min_ms; /* earliest expiry of the segment's records; 0: none expires */
    size_t memory;           /* bytes resident */
    /* private */
    uint32_t entry_blocks;
    uint32_t print_blocks;
    uint32_t filter_bytes;
    uint8_t *summary; /* fences, print fences, filter, as in the file */
};

/* sidecar_build: the file's bytes in fresh memory (memory_give, MEMORY_STORE). */
MUST_USE enum err sidecar_build(struct bytes *out, const struct segment_header *header,
                                const struct index *index, uint32_t data_end);
/* sidecar_write: build, write beside the segment, sync, rename into place. Blocking. */
MUST_USE enum err sidecar_write(const char *directory, const struct segment_header *header,
                                const struct index *index, uint32_t data_end);
/* sidecar_load: open and validate what becomes resident. ERR_NOT_FOUND, ERR_CORRUPT. Blocking. */
MUST_USE enum err sidecar_load(struct sidecar **sidecar, const char *directory,
                               const struct segment_header *header);
void sidecar_destroy(struct sidecar *sidecar);
/* sidecar_nonce: of the segment that DIRECTORY's index of that id was made for, where the segment's
 * own header is lost. Blocking. */
MUST_USE enum err sidecar_nonce(uint64_t *nonce, const char *directory, uint32_t id);
/* index_rebuild: an index of all valid records that scan finds from its segment's beginning.
 * ERR_IO: the device cannot read some of it. */
MUST_USE enum err index_rebuild(struct index **index, struct scan *scan, uint32_t *data_end);

/* sidecar_may_hold: false: the segment has nothing of that conversation. */
bool sidecar_may_hold(const struct sidecar *sidecar, struct conversation_id conversation);
/* Look-ups in two steps: which part of the file to read, then what it says. *size is 0 if nothing
 * needs to be read: nothing is there. ERR_CORRUPT: what was read is damaged. */
void sidecar_range_where(const struct sidecar *sidecar, struct conversation_id conversation,
                         uint64_t from, uint64_t *offset, size_t *size);
MUST_USE enum err sidecar_range(const struct sidecar *sidecar, struct bytes read, uint64_t offset,
                                struct conversation_id conversation, uint64_t from,
                                struct index_hit *hits, uint32_t hits_max, uint32_t *count,
                                bool *before);
/* sidecar_newest: in what was read for sidecar_range_where(…, UINT64_MAX, …): the conversation's
 * highest sequence number, 0: none. */
MUST_USE enum err sidecar_newest(const struct sidecar *sidecar, struct bytes read, uint64_t offset,
                                 struct conversation_id conversation, uint64_t *seq);
void sidecar_find_where(const struct sidecar *sidecar, uint32_t print, uint64_t *offset,
                        size_t *size);
MUST_USE enum err sidecar_find(const struct sidecar *sidecar, struct bytes read, uint64_t offset,
                               uint32_t print, struct index_hit *hits, uint32_t hits_max,
                               uint32_t *count);

/* sidecar_entries: the n-th block of entries, sorted by conversation and sequence number; *count
 * = 0: there is none. Blocking. ERR_CORRUPT. */
MUST_USE enum err sidecar_entries(const struct sidecar *sidecar, uint32_t n,
                                  struct sidecar_entry entries[SIDECAR_BLOCK_ENTRIES],
                                  uint32_t *count);
/* sidecar_conversations: no fewer than the segment has. */
uint64_t sidecar_conversations(const struct sidecar *sidecar);

#define STORE_PATH_BYTES 1100
/* store_path: directory/<id><suffix>. ERR_TOO_BIG. */
MUST_USE enum err store_path(char out[STORE_PATH_BYTES], const char *directory, uint32_t id,
                             const char *suffix);

#endif
