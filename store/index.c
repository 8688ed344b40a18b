/* index.c: two chained hash tables over append-only arrays: conversation → its newest record, from
 * there back through `older` and `jump`; message fingerprint → records. The bucket arrays have
 * their final size from the start and the arrays grow by chunks, so no append ever moves what is
 * there. */
#include "store/index.h"

#include "core/memory.h"

#define BUCKET_BYTES 1024u /* of segment per bucket */

enum err index_create(struct index **out, const struct segment_key *key, uint64_t segment_bytes)
{
    struct index *index = memory_take_zeroed(sizeof *index, MEMORY_STORE);
    if (index == NULL)
        return ERR_NO_MEMORY;
    uint32_t buckets = 64;
    while (buckets < segment_bytes / BUCKET_BYTES)
        buckets *= 2;
    uint32_t records_max = (uint32_t)(segment_bytes / RECORD_HEADER_BYTES) + 1;
    index->hash = (struct hash_key){key->nonce, key->id};
    index->mask = buckets - 1;
    index->chunks_max = records_max / INDEX_CHUNK_ENTRIES + 1;
    size_t pointers = index->chunks_max * sizeof(void *);
    index->entries = memory_take_zeroed(pointers, MEMORY_STORE);
    index->conversations = memory_take_zeroed(pointers, MEMORY_STORE);
    index->conversation_buckets = memory_take(buckets * sizeof(uint32_t), MEMORY_STORE);
    index->print_buckets = memory_take(buckets * sizeof(uint32_t), MEMORY_STORE);
    if (index->entries == NULL || index->conversations == NULL ||
        index->conversation_buckets == NULL || index->print_buckets == NULL) {
        index_destroy(index);
        return ERR_NO_MEMORY;
    }
    memset(index->conversation_buckets, 0xff, buckets * sizeof(uint32_t));
    memset(index->print_buckets, 0xff, buckets * sizeof(uint32_t));
    *out = index;
    return OK;
}

void index_destroy(struct index *index)
{
    if (index == NULL)
        return;
    for (uint32_t i = 0; i < index->chunks_max; i++) {
        if (index->entries != NULL)
            memory_give(index->entries[i], MEMORY_STORE);
        if (index->conversations != NULL)
            memory_give(index->conversations[i], MEMORY_STORE);
    }
    memory_give(index->entries, MEMORY_STORE);
    memory_give(index->conversations, MEMORY_STORE);
    memory_give(index->conversation_buckets, MEMORY_STORE);
    memory_give(index->print_buckets, MEMORY_STORE);
    memory_give(index, MEMORY_STORE);
}

bool message_id_given(struct message_id id)
{
    return load_u64(id.v) != 0 || load_u64(id.v + 8) != 0;
}

uint32_t message_print(const struct segment_key *key, struct conversation_id conversation,
                       struct user_id sender, struct device_id device, struct message_id id)
{
    uint8_t bytes[44];
    store_u64(bytes, conversation.hi);
    store_u64(bytes + 8, conversation.lo);
    store_u64(bytes + 16, sender.v);
    memcpy(bytes + 24, id.v, 16);
    store_u32(bytes + 40, device.v);
    struct hash_key hash = {key->nonce, key->id};
    return (uint32_t)hash_bytes(&hash, bytes_of(bytes, sizeof bytes));
}

static uint32_t conversation_bucket(const struct index *index, struct conversation_id id)
{
    return (uint32_t)hash_u128(&index->hash, id.hi, id.lo) & index->mask;
}

static uint32_t conversation_find(const struct index *index, struct conversation_id id,
                                  uint32_t bucket)
{
    uint32_t at = index->conversation_buckets[bucket];
    while (at != INDEX_NONE && !conversation_id_equal(index_conversation(index, at)->id, id))
        at = index_conversation(index, at)->next;
    return at;
}

/* make_room: the chunk that the next entry of an array of count goes to exists. */
static enum err make_room(void **chunks, uint32_t chunks_max, uint32_t count, size_t size)
{
    uint32_t chunk = count / INDEX_CHUNK_ENTRIES;
    if (chunk >= chunks_max)
        return ERR_NO_MEMORY;
    if (chunks[chunk] == NULL)
        chunks[chunk] = memory_take(size * INDEX_CHUNK_ENTRIES, MEMORY_STORE);
    return chunks[chunk] == NULL ? ERR_NO_MEMORY : OK;
}

static uint32_t conversation_add(struct index *index, struct conversation_id id, uint32_t bucket)
{
    uint32_t at = index->conversation_count++;
    *index_conversation(index, at) = (struct index_conversation){
        .id = id,
        .newest = INDEX_NONE,
        .next = index->conversation_buckets[bucket],
        .jump = INDEX_NONE,
        .jump_depth = INDEX_NONE,
        .jump_jump_depth = INDEX_NONE,
    };
    index->conversation_buckets[bucket] = at;
    return at;
}

/* jump_next: make the conversation's jump fields those of a new entry on top of newest; keeps every
 * search to O(log n) steps (Myers 1983: if the two newest jumps span equally far, one over both).
 */
static void jump_next(const struct index *index, struct index_conversation *c)
{
    uint32_t depth = c->records - 1; /* of newest */
    if (c->jump_jump_depth != INDEX_NONE &&
        depth - c->jump_depth == c->jump_depth - c->jump_jump_depth) {
        const struct index_entry *over = index_entry(index, c->jump);
        c->jump = over->jump;
        c->jump_depth = c->jump_jump_depth;
        c->jump_jump_depth = over->jump_jump_depth;
    } else {
        c->jump_jump_depth = c->jump_depth;
        c->jump = c->newest;
        c->jump_depth = depth;
    }
}

struct index_place index_prepare(const struct index *index, const struct log_record *record)
{
    struct index_place place = {0};
    if (!record_has_seq(record->kind))
        return place;
    place.bucket = conversation_bucket(index, record->conversation);
    __builtin_prefetch(&index->conversation_buckets[place.bucket]);
    struct segment_key key = {.id = (uint32_t)index->hash.k1, .nonce = index->hash.k0};
    place.print = message_print(&key, record->conversation, record->sender, record->device,
                                record->message_id);
    __builtin_prefetch(&index->print_buckets[place.print & index->mask], 1);
    return place;
}

void index_approach(const struct index *index, const struct index_place *place)
{
    uint32_t at = index->conversation_buckets[place->bucket];
    if (at != INDEX_NONE)
        __builtin_prefetch(index_conversation(index, at), 1);
}

enum err index_add_at(struct index *index, const struct index_place *place,
                      const struct log_record *record, uint32_t offset, uint32_t size)
{
    if (!record_has_seq(record->kind))
        return OK;
    uint32_t conversation = conversation_find(index, record->conversation, place->bucket);
    if (conversation != INDEX_NONE &&
        index_conversation(index, conversation)->newest_seq >= record->seq)
        return ERR_INVALID;
    void **entries = (void **)index->entries;
    void **conversations = (void **)index->conversations;
    TRY(make_room(entries, index->chunks_max, index->entry_count, sizeof(struct index_entry)));
    TRY(make_room(conversations, index->chunks_max, index->conversation_count,
                  sizeof(struct index_conversation)));
    if (conversation == INDEX_NONE)
        conversation = conversation_add(index, record->conversation, place->bucket);
    struct index_conversation *c = index_conversation(index, conversation);
    if (c->records > 0)
        jump_next(index, c);
    uint32_t at = index->entry_count++;
    struct index_entry *entry = index_entry(index, at);
    *entry = (struct index_entry){
        .seq = record->seq,
        .offset = offset,
        .size = size,
        .print = place->print,
        .print_next = INDEX_NONE,
        .older = c->newest,
        .jump = c->jump,
        .depth = c->records,
        .jump_jump_depth = c->jump_jump_depth,
    };
    c->newest = at;
    c->newest_seq = record->seq;
    c->records++;
    if (record->expires_ms != 0 &&
        (index->expires_min_ms == 0 || record->expires_ms < index->expires_min_ms))
        index->expires_min_ms = record->expires_ms;
    if (message_id_given(record->message_id)) {
        uint32_t *head = &index->print_buckets[place->print & index->mask];
        entry->print_next = *head;
        *head = at;
    }
    return OK;
}

enum err index_add(struct index *index, const struct log_record *record, uint32_t offset,
                   uint32_t size)
{
    struct index_place place = index_prepare(index, record);
    return index_add_at(index, &place, record, offset, size);
}

/* oldest_from: the oldest entry with seq ≥ from on the chain below `at`, which has; INDEX_NONE if
 * `at` has not. */
static uint32_t oldest_from(const struct index *index, uint32_t at, uint64_t from)
{
    if (at == INDEX_NONE || index_entry(index, at)->seq < from)
        return INDEX_NONE;
    for (;;) {
        const struct index_entry *entry = index_entry(index, at);
        if (entry->jump != INDEX_NONE && index_entry(index, entry->jump)->seq >= from)
            at = entry->jump;
        else if (entry->older != INDEX_NONE && index_entry(index, entry->older)->seq >= from)
            at = entry->older;
        else
            return at;
    }
}

/* at_depth: the entry of that depth on the chain below `at`, which is no shallower. */
static uint32_t at_depth(const struct index *index, uint32_t at, uint32_t depth)
{
    while (index_entry(index, at)->depth != depth) {
        const struct index_entry *entry = index_entry(index, at);
        at = entry->jump != INDEX_NONE && index_entry(index, entry->jump)->depth >= depth
                 ? entry->jump
                 : entry->older;
    }
    return at;
}

uint32_t index_range(const struct index *index, struct conversation_id conversation, uint64_t from,
                     uint32_t below, struct index_hit *hits, uint32_t hits_max, bool *before)
{
    *before = false;
    uint32_t found =
        conversation_find(index, conversation, conversation_bucket(index, conversation));
    if (found == INDEX_NONE)
        return 0;
    uint32_t newest = index_conversation(index, found)->newest;
    uint32_t first = oldest_from(index, newest, from);
    if (first == INDEX_NONE) {
        *before = true;
        return 0;
    }
    uint32_t depth = index_entry(index, first)->depth;
    *before = depth > 0;
    uint32_t last = index_entry(index, newest)->depth;
    if (last - depth >= hits_max)
        last = depth + hits_max - 1;
    uint32_t at = at_depth(index, newest, last);
    uint32_t count = 0;
    for (uint32_t i = last - depth + 1; i-- > 0; at = index_entry(index, at)->older) {
        const struct index_entry *entry = index_entry(index, at);
        if (entry->offset >= below)
            continue;
        hits[i] = (struct index_hit){entry->seq, entry->offset, entry->size};
        count = count == 0 ? i + 1 : count;
    }
    return count;
}

uint64_t index_newest(const struct index *index, struct conversation_id conversation,
                      uint32_t below)
{
    uint32_t found =
        conversation_find(index, conversation, conversation_bucket(index, conversation));
    if (found == INDEX_NONE)
        return 0;
    uint32_t at = index_conversation(index, found)->newest;
    while (at != INDEX_NONE && index_entry(index, at)->offset >= below)
        at = index_entry(index, at)->older; /* not durable yet: a batch's worth at most */
    return at == INDEX_NONE ? 0 : index_entry(index, at)->seq;
}

uint32_t index_find(const struct index *index, uint32_t print, uint32_t below,
                    struct index_hit *hits, uint32_t hits_max)
{
    uint32_t count = 0;
    uint32_t at = index->print_buckets[print & index->mask];
    for (; at != INDEX_NONE && count < hits_max; at = index_entry(index, at)->print_next) {
        const struct index_entry *entry = index_entry(index, at);
        if (entry->print == print && entry->offset < below)
            hits[count++] = (struct index_hit){entry->seq, entry->offset, entry->size};
    }
    return count;
}

size_t index_memory(const struct index *index)
{
    size_t bytes = sizeof *index + 2 * index->chunks_max * sizeof(void *) +
                   2 * ((size_t)index->mask + 1) * sizeof(uint32_t);
    for (uint32_t i = 0; i < index->chunks_max; i++) {
        bytes += index->entries[i] ? INDEX_CHUNK_ENTRIES * sizeof(struct index_entry) : 0;
        bytes +=
            index->conversations[i] ? INDEX_CHUNK_ENTRIES * sizeof(struct index_conversation) : 0;
    }
    return bytes;
}
