/* index.h: where the records of one unsealed segment stand, in memory.
 * Flow:       log_append, recovery → index_add; reader.c looks up; sidecar.c sorts and writes it
 * Owns:       its chunks; lives on one shard; constant, and shared with a worker, while sealing
 * Invariants: offsets ascend from record to record; within a conversation sequence numbers ascend
 *             with them; what a look-up answers is exact, but for index_find's fingerprints
 * Failure:    ERR_NO_MEMORY from index_add, nothing is added then
 * Bounds:     6 B per record, of a second one of a conversation on up to 1 in 8 of them more for
 *             room to grow, 4 B per extent (index.c); 40 B per run, that is per conversation that
 *             the segment holds and per gap in its numbers; 8 B per record too large for a place
 *             (4,168 B in a segment of 64 MiB); 2 B per KiB of segment for the bucket array */
#ifndef STORE_INDEX_H
#define STORE_INDEX_H

#include "core/hash.h"
#include "store/segment.h"

#define INDEX_NONE         UINT32_MAX
#define INDEX_RECORD_BYTES 6u     /* place and fingerprint */
#define INDEX_PAGE_RUNS    1024u  /* 40 KiB */
#define INDEX_PAGE_CELLS   32768u /* 64 KiB */
#define INDEX_PAGE_LARGES  1024u  /* 8 KiB */

/* index_run: records of one conversation whose numbers follow each other without a gap. A
 * conversation with gaps in this segment has several, the newest first in its bucket. */
struct index_run {
    struct conversation_id id;
    uint64_t first_seq;
    uint32_t count;
    uint32_t next;  /* in the bucket */
    uint32_t at;    /* of one record: its place; else the newest extent's first cell */
    uint16_t print; /* of one record: its fingerprint */
    uint16_t used;  /* records in the newest extent */
};

/* index_large: the size of a record that its place cannot say. */
struct index_large {
    uint32_t offset;
    uint32_t size;
};

/* index_expected: a conversation that index_expect named, and the hash of its id. */
struct index_expected {
    struct conversation_id id;
    uint64_t hash;
};

struct index {
    /* private */
    struct hash_key hash;
    struct index_expected expected[4]; /* the newest ones, in turn */
    uint32_t expect_count;             /* wraps */
    struct index_run **runs;           /* pages */
    uint16_t **cells;
    struct index_large **larges;
    uint32_t *buckets;
    uint32_t mask;
    uint32_t offset_bits; /* of a place: offset / RECORD_ALIGNMENT; the rest is the size's */
    uint32_t run_pages_max;
    uint32_t cell_pages_max;
    uint32_t large_pages_max;
    uint32_t run_count;
    uint32_t cell_count; /* taken, in whole pages but for the last */
    uint32_t large_count;
    uint32_t entry_count;
    uint32_t conversation_count;
    uint32_t end;            /* offsets go on from here */
    uint64_t expires_min_ms; /* of all records added; 0: none expires */
};

/* index_hit: a place that a look-up names. */
struct index_hit {
    uint64_t seq;
    uint32_t offset;
    uint32_t size; /* with padding */
};

MUST_USE enum err index_create(struct index **index, const struct segment_key *key,
                               uint64_t segment_bytes);
void index_destroy(struct index *index);

/* index_place: where a record's look-ups begin. */
struct index_place {
    uint32_t bucket;
    uint32_t print;
    bool expected;
};
/* index_expect: the record after the next one will be of that conversation: a hint; of one that is
 * expected in time index_add_at finds all it looks at in the processor's cache. */
void index_expect(struct index *index, struct conversation_id conversation);
/* index_prepare, index_approach, index_add_at: index_add in three steps. The first two have memory
 * fetched for the next one, so that a caller with other work to do between them does not wait for
 * it. */
struct index_place index_prepare(const struct index *index, const struct log_record *record);
void index_approach(const struct index *index, const struct index_place *place);
MUST_USE enum err index_add_at(struct index *index, const struct index_place *place,
                               const struct log_record *record, uint32_t offset, uint32_t size);
/* index_add: a record of size bytes at offset, behind all that were added before. Those without a
 * sequence number are passed over. ERR_INVALID: the conversation already has that sequence number
 * or a higher one here. */
MUST_USE enum err index_add(struct index *index, const struct log_record *record, uint32_t offset,
                            uint32_t size);

/* index_range: up to hits_max records of the conversation with seq ≥ from, ascending, below offset
 * `below`; *before: there is one with seq < from. Returns how many. */
uint32_t index_range(const struct index *index, struct conversation_id conversation, uint64_t from,
                     uint32_t below, struct index_hit *hits, uint32_t hits_max, bool *before);
/* index_newest: highest sequence number of the conversation below offset `below`; 0: none. */
uint64_t index_newest(const struct index *index, struct conversation_id conversation,
                      uint32_t below);
/* index_find: up to hits_max records of the conversation below offset `below`, newest first, whose
 * message key has that fingerprint (segment_print); of others, one in 65,536. As many as hits_max:
 * there may be more, below the last one's offset. */
uint32_t index_find(const struct index *index, struct conversation_id conversation, uint32_t print,
                    uint32_t below, struct index_hit *hits, uint32_t hits_max);

/* message_print: fingerprint of (conversation, sender, device, message id) in an archive. */
uint32_t message_print(const struct segment_key *key, struct conversation_id conversation,
                       struct user_id sender, struct device_id device, struct message_id id);
/* segment_print: the same in a segment: the upper half is the conversation's, so that the lower
 * half, never 0, is all that an index keeps per record. */
uint32_t segment_print(const struct segment_key *key, struct conversation_id conversation,
                       struct user_id sender, struct device_id device, struct message_id id);

/* index_walk: the records of one run, newest first. */
struct index_walk {
    struct index_hit hit;
    uint32_t print; /* lower half of segment_print; 0: no message id */
    /* private */
    const struct index *index;
    const struct index_run *run;
    uint32_t extent; /* its first cell */
    uint32_t start;  /* records of the run before it */
    uint32_t room;   /* records that it can hold */
    uint32_t at;     /* records of the run before the one handed out last */
};
void index_walk_init(struct index_walk *walk, const struct index *index,
                     const struct index_run *run);
/* index_walk_next: false: there is no older one. */
bool index_walk_next(struct index_walk *walk);

static inline struct index_run *index_run(const struct index *index, uint32_t at)
{
    return &index->runs[at / INDEX_PAGE_RUNS][at % INDEX_PAGE_RUNS];
}
size_t index_memory(const struct index *index); /* bytes */

#endif
