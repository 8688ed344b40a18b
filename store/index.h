/* index.h: where the records of one unsealed segment stand, in memory.
 * Flow:       log_append, recovery → index_add; reader.c looks up; sidecar.c sorts and writes it
 * Owns:       its chunks; lives on one shard; constant, and shared with a worker, while sealing
 * Invariants: within a conversation sequence numbers ascend with offsets
 * Failure:    ERR_NO_MEMORY from index_add, nothing is added then
 * Bounds:     40 B per record, 48 B per conversation that the segment holds, in chunks of 4,096;
 *             4 B per KiB of segment for each of two bucket arrays */
#ifndef STORE_INDEX_H
#define STORE_INDEX_H

#include "core/hash.h"
#include "store/segment.h"

#define INDEX_NONE          UINT32_MAX
#define INDEX_CHUNK_ENTRIES 4096u

struct index_entry {
    uint64_t seq;
    uint32_t offset;
    uint32_t size;  /* with padding */
    uint32_t print; /* fingerprint of the message key */
    uint32_t print_next;
    uint32_t older;           /* previous record of the conversation in this segment */
    uint32_t jump;            /* an older one still: skew-binary skip pointer, O(log n) search */
    uint32_t depth;           /* records of the conversation before it in this segment */
    uint32_t jump_jump_depth; /* of jump's jump, INDEX_NONE: there is none; saves a look at it */
};

struct index_conversation {
    struct conversation_id id;
    uint64_t newest_seq;
    uint32_t newest;
    uint32_t next;
    uint32_t records;
    uint32_t jump;            /* of newest; with the two depths, so that an append seldom has to */
    uint32_t jump_depth;      /* touch older entries: INDEX_NONE: there is none */
    uint32_t jump_jump_depth; /* of jump's jump */
};

struct index {
    /* private */
    struct hash_key hash;
    struct index_entry **entries;
    struct index_conversation **conversations;
    uint32_t *conversation_buckets;
    uint32_t *print_buckets;
    uint32_t mask;
    uint32_t chunks_max;
    uint32_t entry_count;
    uint32_t conversation_count;
    uint64_t expires_min_ms; /* of all records added; 0: none expires */
};

/* index_hit: a place that a look-up names. */
struct index_hit {
    uint64_t seq;
    uint32_t offset;
    uint32_t size;
};

MUST_USE enum err index_create(struct index **index, const struct segment_key *key,
                               uint64_t segment_bytes);
void index_destroy(struct index *index);

/* index_place: where a record's look-ups begin. */
struct index_place {
    uint32_t bucket;
    uint32_t print;
};
/* index_prepare, index_approach, index_add_at: index_add in three steps. The first two have memory
 * fetched for the next one, so that a caller with other work to do between them does not wait for
 * it. */
struct index_place index_prepare(const struct index *index, const struct log_record *record);
void index_approach(const struct index *index, const struct index_place *place);
MUST_USE enum err index_add_at(struct index *index, const struct index_place *place,
                               const struct log_record *record, uint32_t offset, uint32_t size);
/* index_add: a record of size bytes at offset. Those without a sequence number are passed over.
 * ERR_INVALID: the conversation already has that sequence number or a higher one here. */
MUST_USE enum err index_add(struct index *index, const struct log_record *record, uint32_t offset,
                            uint32_t size);

/* index_range: up to hits_max records of the conversation with seq ≥ from, ascending, below offset
 * `below`; *before: there is one with seq < from. Returns how many. */
uint32_t index_range(const struct index *index, struct conversation_id conversation, uint64_t from,
                     uint32_t below, struct index_hit *hits, uint32_t hits_max, bool *before);
/* index_newest: highest sequence number of the conversation below offset `below`; 0: none. */
uint64_t index_newest(const struct index *index, struct conversation_id conversation,
                      uint32_t below);
/* index_find: up to hits_max records, newest first, whose message key has that fingerprint. */
uint32_t index_find(const struct index *index, uint32_t print, uint32_t below,
                    struct index_hit *hits, uint32_t hits_max);

/* message_print: fingerprint of (conversation, sender, device, message id) in a segment. */
uint32_t message_print(const struct segment_key *key, struct conversation_id conversation,
                       struct user_id sender, struct device_id device, struct message_id id);
/* message_id_given: the all-zero id is none and is not looked up. */
bool message_id_given(struct message_id id);

static inline struct index_entry *index_entry(const struct index *index, uint32_t at)
{
    return &index->entries[at / INDEX_CHUNK_ENTRIES][at % INDEX_CHUNK_ENTRIES];
}
static inline struct index_conversation *index_conversation(const struct index *index, uint32_t at)
{
    return &index->conversations[at / INDEX_CHUNK_ENTRIES][at % INDEX_CHUNK_ENTRIES];
}
size_t index_memory(const struct index *index); /* bytes */

#endif
