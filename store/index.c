/* index.c: a chained hash table from a conversation to its run of records, and per run the places
 * of its records in arrival order, which is the order of their numbers.
 *
 * A place is 32 bits: the record's offset / 8 in as many as the segment's size takes (23 for 64
 * MiB), above them its size / 8 - 11 if it fits there, else all ones: then the size stands in
 * `larges`, in order of offsets. A number is not kept: it is the run's first plus the record's rank
 * in the run. A fingerprint is 16 bits; conversation and fingerprint together are what a repeated
 * send is looked up by, so that only the records of its own conversation are looked through.
 *
 * The first record of a run stands in the run itself. From the second on they stand in extents of
 * 16-bit cells: the first cell of the extent before it (2 cells), places (2 each), fingerprints (1
 * each). An extent that begins behind `start` records has room for extent_room(start): a run of n
 * records has O(log n) of them up to 4,608 records, then one per 512. Which one a record stands in
 * follows from its rank, and an index moves nothing once it is there. */
#include "store/index.h"

#include "core/memory.h"

#define BUCKET_BYTES    2048u /* of segment per bucket */
#define EXTENT_ROOM_MIN 3u
#define EXTENT_ROOM_MAX 512u
#define EXTENT_SHARE    8u /* of the records so far is the room of the next extent */
#define LINK_CELLS      2u
#define PLACE_CELLS     2u
#define RECORD_CELLS    3u
#define CELLS_MOST      6u /* per record, for the number of pages: 11 for a run's first two */
#define SIZE_UNITS_MIN  (RECORD_HEADER_BYTES / RECORD_ALIGNMENT)

/* ---- memory */

static enum err pages_create(void *pages, uint32_t count)
{
    void *made = memory_take_zeroed(count * sizeof(void *), MEMORY_STORE);
    memcpy(pages, &made, sizeof made);
    return made == NULL ? ERR_NO_MEMORY : OK;
}

enum err index_create(struct index **out, const struct segment_key *key, uint64_t segment_bytes)
{
    struct index *index = memory_take_zeroed(sizeof *index, MEMORY_STORE);
    if (index == NULL)
        return ERR_NO_MEMORY;
    uint32_t buckets = 64;
    while (buckets < segment_bytes / BUCKET_BYTES)
        buckets *= 2;
    while (1ull << index->offset_bits < segment_bytes / RECORD_ALIGNMENT)
        index->offset_bits++;
    uint32_t records_max = (uint32_t)(segment_bytes / RECORD_HEADER_BYTES) + 1;
    uint32_t extent_max = LINK_CELLS + RECORD_CELLS * EXTENT_ROOM_MAX;
    index->hash = (struct hash_key){key->nonce, key->id};
    for (uint32_t i = 0; i < COUNT_OF(index->expected); i++)
        index->expected[i].hash = hash_u128(&index->hash, 0, 0); /* that of its id, as always */
    index->mask = buckets - 1;
    index->run_pages_max = records_max / INDEX_PAGE_RUNS + 1;
    index->cell_pages_max = records_max / ((INDEX_PAGE_CELLS - extent_max) / CELLS_MOST) + 1;
    index->large_pages_max = records_max / INDEX_PAGE_LARGES + 1;
    enum err err = pages_create(&index->runs, index->run_pages_max);
    if (err == OK)
        err = pages_create(&index->cells, index->cell_pages_max);
    if (err == OK)
        err = pages_create(&index->larges, index->large_pages_max);
    index->buckets = memory_take(buckets * sizeof(uint32_t), MEMORY_STORE);
    if (err != OK || index->buckets == NULL) {
        index_destroy(index);
        return ERR_NO_MEMORY;
    }
    memset(index->buckets, 0xff, buckets * sizeof(uint32_t));
    *out = index;
    return OK;
}

static void pages_destroy(void *pages, uint32_t count)
{
    void **page = pages;
    for (uint32_t i = 0; page != NULL && i < count; i++)
        memory_give(page[i], MEMORY_STORE);
    memory_give(pages, MEMORY_STORE);
}

void index_destroy(struct index *index)
{
    if (index == NULL)
        return;
    pages_destroy(index->runs, index->run_pages_max);
    pages_destroy(index->cells, index->cell_pages_max);
    pages_destroy(index->larges, index->large_pages_max);
    memory_give(index->buckets, MEMORY_STORE);
    memory_give(index, MEMORY_STORE);
}

/* page_make: the page exists. */
static enum err page_make(void *pages, uint32_t page, uint32_t pages_max, size_t bytes)
{
    void **at = (void **)pages + page;
    if (page >= pages_max)
        return ERR_NO_MEMORY;
    if (*at == NULL)
        *at = memory_take(bytes, MEMORY_STORE);
    return *at == NULL ? ERR_NO_MEMORY : OK;
}

static size_t pages_bytes(void *pages, uint32_t count, size_t bytes)
{
    void **page = pages;
    size_t sum = count * sizeof(void *);
    for (uint32_t i = 0; i < count; i++)
        sum += page[i] == NULL ? 0 : bytes;
    return sum;
}

size_t index_memory(const struct index *index)
{
    return sizeof *index + ((size_t)index->mask + 1) * sizeof(uint32_t) +
           pages_bytes(index->runs, index->run_pages_max,
                       INDEX_PAGE_RUNS * sizeof(struct index_run)) +
           pages_bytes(index->cells, index->cell_pages_max, INDEX_PAGE_CELLS * sizeof(uint16_t)) +
           pages_bytes(index->larges, index->large_pages_max,
                       INDEX_PAGE_LARGES * sizeof(struct index_large));
}

/* ---- fingerprints */

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

/* print_of: the lower half; conversation: the hash of its id. */
static uint16_t print_of(uint64_t conversation, uint64_t segment, struct user_id sender,
                         struct device_id device, struct message_id id)
{
    uint8_t bytes[28];
    store_u64(bytes, sender.v);
    memcpy(bytes + 8, id.v, 16);
    store_u32(bytes + 24, device.v);
    struct hash_key hash = {conversation, segment};
    uint16_t print = (uint16_t)hash_bytes(&hash, bytes_of(bytes, sizeof bytes));
    return print == 0 ? 1 : print;
}

uint32_t segment_print(const struct segment_key *key, struct conversation_id conversation,
                       struct user_id sender, struct device_id device, struct message_id id)
{
    struct hash_key hash = {key->nonce, key->id};
    uint64_t of = hash_u128(&hash, conversation.hi, conversation.lo);
    return (uint32_t)(of >> 48) << 16 | print_of(of, key->id, sender, device, id);
}

/* ---- runs */

static uint64_t run_newest(const struct index_run *run)
{
    return run->first_seq + (run->count - 1);
}

/* run_find: the first run of the conversation from `at` on in its bucket; NULL: there is none. */
static struct index_run *run_find(const struct index *index, struct conversation_id id, uint32_t at)
{
    while (at != INDEX_NONE) {
        struct index_run *run = index_run(index, at);
        if (conversation_id_equal(run->id, id))
            return run;
        at = run->next;
    }
    return NULL;
}

/* run_of: the conversation's newest run. */
static struct index_run *run_of(const struct index *index, struct conversation_id id)
{
    uint32_t bucket = (uint32_t)hash_u128(&index->hash, id.hi, id.lo) & index->mask;
    return run_find(index, id, index->buckets[bucket]);
}

/* ---- places */

static uint32_t place_of(const struct index *index, uint32_t offset, uint32_t size, bool *large)
{
    uint32_t most = UINT32_MAX >> index->offset_bits;
    uint32_t units = size / RECORD_ALIGNMENT - SIZE_UNITS_MIN;
    *large = units >= most;
    return (*large ? most : units) << index->offset_bits | offset / RECORD_ALIGNMENT;
}

static struct index_large *large_at(const struct index *index, uint32_t n)
{
    return &index->larges[n / INDEX_PAGE_LARGES][n % INDEX_PAGE_LARGES];
}

static uint32_t large_size(const struct index *index, uint32_t offset)
{
    uint32_t low = 0;
    uint32_t high = index->large_count;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (large_at(index, middle)->offset <= offset)
            low = middle;
        else
            high = middle;
    }
    return large_at(index, low)->size;
}

/* ---- extents */

static uint32_t extent_room(uint32_t start)
{
    uint32_t room = start / EXTENT_SHARE;
    if (room < EXTENT_ROOM_MIN)
        return EXTENT_ROOM_MIN;
    return room > EXTENT_ROOM_MAX ? EXTENT_ROOM_MAX : room;
}

/* extent_before: the start s of the extent before the one at `start`: s + extent_room(s) = start.
 */
static uint32_t extent_before(uint32_t start)
{
    if (start < EXTENT_ROOM_MIN * (EXTENT_SHARE + 1))
        return start - EXTENT_ROOM_MIN;
    if (start < EXTENT_ROOM_MAX * (EXTENT_SHARE + 1))
        return start - start / (EXTENT_SHARE + 1);
    return start - EXTENT_ROOM_MAX;
}

static uint16_t *cell(const struct index *index, uint32_t at)
{
    return &index->cells[at / INDEX_PAGE_CELLS][at % INDEX_PAGE_CELLS];
}

static uint16_t *extent_place(const struct index *index, uint32_t extent, uint32_t n)
{
    return cell(index, extent) + LINK_CELLS + (size_t)n * PLACE_CELLS;
}

static uint16_t *extent_print(const struct index *index, uint32_t extent, uint32_t room, uint32_t n)
{
    return cell(index, extent) + LINK_CELLS + (size_t)room * PLACE_CELLS + n;
}

static void extent_set(struct index *index, uint32_t extent, uint32_t room, uint32_t n,
                       uint32_t place, uint16_t print)
{
    memcpy(extent_place(index, extent, n), &place, sizeof place);
    *extent_print(index, extent, room, n) = print;
}

/* extent_take: a new one for `room` records, behind `before`. */
static enum err extent_take(struct index *index, uint32_t *extent, uint32_t room, uint32_t before)
{
    uint32_t cells = LINK_CELLS + room * RECORD_CELLS;
    uint32_t at = index->cell_count;
    if (at % INDEX_PAGE_CELLS + cells > INDEX_PAGE_CELLS)
        at = (at / INDEX_PAGE_CELLS + 1) * INDEX_PAGE_CELLS;
    TRY(page_make(index->cells, at / INDEX_PAGE_CELLS, index->cell_pages_max,
                  INDEX_PAGE_CELLS * sizeof(uint16_t)));
    index->cell_count = at + cells;
    memcpy(cell(index, at), &before, sizeof before);
    *extent = at;
    return OK;
}

/* ---- adding */

/* run_fetch: the bucket's first run, as a rule the only one. */
static void run_fetch(const struct index *index, uint32_t bucket)
{
    uint32_t at = index->buckets[bucket];
    if (at == INDEX_NONE)
        return;
    const struct index_run *run = index_run(index, at);
    __builtin_prefetch(run, 1);
    __builtin_prefetch(&run->used, 1); /* it may lie across two lines */
}

/* cells_fetch: where that run's next record will stand. */
static void cells_fetch(const struct index *index, uint32_t bucket)
{
    uint32_t at = index->buckets[bucket];
    if (at == INDEX_NONE)
        return;
    const struct index_run *run = index_run(index, at);
    uint32_t room = extent_room(run->count - run->used);
    if (run->count == 1 || run->used == room)
        return; /* in a new extent */
    __builtin_prefetch(extent_place(index, run->at, run->used), 1);
    __builtin_prefetch(extent_print(index, run->at, room, run->used), 1);
}

void index_expect(struct index *index, struct conversation_id conversation)
{
    const struct index_expected *before =
        &index->expected[index->expect_count++ % COUNT_OF(index->expected)];
    struct index_expected *now = &index->expected[index->expect_count % COUNT_OF(index->expected)];
    run_fetch(index, (uint32_t)before->hash & index->mask);
    *now = (struct index_expected){conversation,
                                   hash_u128(&index->hash, conversation.hi, conversation.lo)};
    __builtin_prefetch(&index->buckets[(uint32_t)now->hash & index->mask]);
}

/* hash_of: of the conversation's id; *expected: its run was fetched. */
static uint64_t hash_of(const struct index *index, struct conversation_id id, bool *expected)
{
    for (uint32_t i = 0; i < COUNT_OF(index->expected); i++) {
        *expected = conversation_id_equal(index->expected[i].id, id);
        if (*expected)
            return index->expected[i].hash;
    }
    return hash_u128(&index->hash, id.hi, id.lo);
}

struct index_place index_prepare(const struct index *index, const struct log_record *record)
{
    struct index_place place = {0};
    if (!record_has_seq(record->kind))
        return place;
    uint64_t of = hash_of(index, record->conversation, &place.expected);
    place.bucket = (uint32_t)of & index->mask;
    if (place.expected)
        cells_fetch(index, place.bucket);
    else
        __builtin_prefetch(&index->buckets[place.bucket]);
    if (message_id_given(record->message_id))
        place.print =
            print_of(of, index->hash.k1, record->sender, record->device, record->message_id);
    return place;
}

void index_approach(const struct index *index, const struct index_place *place)
{
    if (!place->expected)
        run_fetch(index, place->bucket);
}

/* run_add: a run of one record. */
static enum err run_add(struct index *index, struct conversation_id id, uint32_t bucket,
                        uint64_t seq, uint32_t place, uint16_t print)
{
    uint32_t at = index->run_count;
    TRY(page_make(index->runs, at / INDEX_PAGE_RUNS, index->run_pages_max,
                  INDEX_PAGE_RUNS * sizeof(struct index_run)));
    *index_run(index, at) = (struct index_run){
        .id = id,
        .first_seq = seq,
        .count = 1,
        .next = index->buckets[bucket],
        .at = place,
        .print = print,
    };
    index->buckets[bucket] = at;
    index->run_count++;
    return OK;
}

/* run_extend: one record more. */
static enum err run_extend(struct index *index, struct index_run *run, uint32_t place,
                           uint16_t print)
{
    uint32_t extent = run->at;
    if (run->count == 1) {
        TRY(extent_take(index, &extent, EXTENT_ROOM_MIN, INDEX_NONE));
        extent_set(index, extent, EXTENT_ROOM_MIN, 0, run->at, run->print);
        run->used = 1;
    } else if (run->used == extent_room(run->count - run->used)) {
        TRY(extent_take(index, &extent, extent_room(run->count), run->at));
        run->used = 0;
    }
    uint32_t room = extent_room(run->count - run->used);
    extent_set(index, extent, room, run->used, place, print);
    run->at = extent;
    run->used++;
    run->count++;
    return OK;
}

static void note(struct index *index, const struct log_record *record, uint32_t offset,
                 uint32_t size, bool large)
{
    if (large)
        *large_at(index, index->large_count++) = (struct index_large){offset, size};
    if (record->expires_ms != 0 &&
        (index->expires_min_ms == 0 || record->expires_ms < index->expires_min_ms))
        index->expires_min_ms = record->expires_ms;
    index->entry_count++;
    index->end = offset + size;
}

enum err index_add_at(struct index *index, const struct index_place *at,
                      const struct log_record *record, uint32_t offset, uint32_t size)
{
    if (!record_has_seq(record->kind))
        return OK;
    CHECK(offset >= index->end && size >= RECORD_HEADER_BYTES && size % RECORD_ALIGNMENT == 0);
    struct index_run *run = run_find(index, record->conversation, index->buckets[at->bucket]);
    if (run != NULL && run_newest(run) >= record->seq)
        return ERR_INVALID;
    bool large;
    uint32_t place = place_of(index, offset, size, &large);
    if (large)
        TRY(page_make(index->larges, index->large_count / INDEX_PAGE_LARGES, index->large_pages_max,
                      INDEX_PAGE_LARGES * sizeof(struct index_large)));
    if (run != NULL && run_newest(run) + 1 == record->seq)
        TRY(run_extend(index, run, place, (uint16_t)at->print));
    else
        TRY(run_add(index, record->conversation, at->bucket, record->seq, place,
                    (uint16_t)at->print));
    index->conversation_count += run == NULL;
    note(index, record, offset, size, large);
    return OK;
}

enum err index_add(struct index *index, const struct log_record *record, uint32_t offset,
                   uint32_t size)
{
    struct index_place place = index_prepare(index, record);
    return index_add_at(index, &place, record, offset, size);
}

/* ---- walking */

void index_walk_init(struct index_walk *walk, const struct index *index,
                     const struct index_run *run)
{
    *walk = (struct index_walk){
        .index = index,
        .run = run,
        .extent = run->at,
        .start = run->count == 1 ? 0 : run->count - run->used,
        .at = run->count,
    };
    walk->room = extent_room(walk->start);
}

/* walk_back: to the extent before. */
static void walk_back(struct index_walk *walk)
{
    memcpy(&walk->extent, cell(walk->index, walk->extent), sizeof walk->extent);
    walk->start = extent_before(walk->start);
    walk->room = extent_room(walk->start);
}

/* walk_skip: the next one is that before the n-th of the run. */
static void walk_skip(struct index_walk *walk, uint32_t n)
{
    while (n < walk->start)
        walk_back(walk);
    walk->at = n;
}

/* walk_hand_out: the record at `at`. */
static void walk_hand_out(struct index_walk *walk)
{
    const struct index *index = walk->index;
    uint32_t place = walk->run->at;
    walk->print = walk->run->print;
    if (walk->run->count > 1) {
        uint32_t n = walk->at - walk->start;
        memcpy(&place, extent_place(index, walk->extent, n), sizeof place);
        walk->print = *extent_print(index, walk->extent, walk->room, n);
    }
    uint32_t most = UINT32_MAX >> index->offset_bits;
    uint32_t units = place >> index->offset_bits;
    uint32_t offset = (place & ((1u << index->offset_bits) - 1)) * RECORD_ALIGNMENT;
    walk->hit = (struct index_hit){
        .seq = walk->run->first_seq + walk->at,
        .offset = offset,
        .size =
            units == most ? large_size(index, offset) : (units + SIZE_UNITS_MIN) * RECORD_ALIGNMENT,
    };
}

bool index_walk_next(struct index_walk *walk)
{
    if (walk->at == 0)
        return false;
    if (walk->at == walk->start)
        walk_back(walk);
    walk->at--;
    walk_hand_out(walk);
    return true;
}

/* walk_find: the next one with that fingerprint. */
static bool walk_find(struct index_walk *walk, uint16_t print)
{
    while (walk->at > 0) {
        if (walk->at == walk->start)
            walk_back(walk);
        const uint16_t *prints = walk->run->count == 1
                                     ? &walk->run->print
                                     : extent_print(walk->index, walk->extent, walk->room, 0);
        while (walk->at > walk->start)
            if (prints[--walk->at - walk->start] == print) {
                walk_hand_out(walk);
                return true;
            }
    }
    return false;
}

/* ---- looking up */

/* run_from: of the conversation's runs the oldest that has a record with seq ≥ from; *before: some
 * has one with seq < from. */
static const struct index_run *run_from(const struct index *index, const struct index_run *newest,
                                        uint64_t from, bool *before)
{
    const struct index_run *found = NULL;
    *before = false;
    for (const struct index_run *run = newest; run != NULL && !*before;
         run = run_find(index, newest->id, run->next)) {
        if (run_newest(run) >= from)
            found = run;
        *before = run->first_seq < from;
    }
    return found;
}

uint32_t index_range(const struct index *index, struct conversation_id conversation, uint64_t from,
                     uint32_t below, struct index_hit *hits, uint32_t hits_max, bool *before)
{
    const struct index_run *newest = run_of(index, conversation);
    const struct index_run *run = run_from(index, newest, from, before);
    uint32_t count = 0;
    while (run != NULL && count < hits_max) {
        uint32_t first = run->first_seq < from ? (uint32_t)(from - run->first_seq) : 0;
        uint32_t take = run->count - first;
        if (take > hits_max - count)
            take = hits_max - count;
        struct index_walk walk;
        index_walk_init(&walk, index, run);
        walk_skip(&walk, first + take);
        for (uint32_t i = count + take; i > count && index_walk_next(&walk); i--)
            hits[i - 1] = walk.hit;
        count += take;
        from = run_newest(run) + 1;
        bool passed;
        run = run == newest ? NULL : run_from(index, newest, from, &passed);
    }
    while (count > 0 && hits[count - 1].offset >= below)
        count--; /* not durable yet */
    return count;
}

uint64_t index_newest(const struct index *index, struct conversation_id conversation,
                      uint32_t below)
{
    const struct index_run *run = run_of(index, conversation);
    for (; run != NULL; run = run_find(index, conversation, run->next)) {
        struct index_walk walk;
        index_walk_init(&walk, index, run);
        while (index_walk_next(&walk))
            if (walk.hit.offset < below)
                return walk.hit.seq; /* above are those not durable yet: a batch's worth at most */
    }
    return 0;
}

uint32_t index_find(const struct index *index, struct conversation_id conversation, uint32_t print,
                    uint32_t below, struct index_hit *hits, uint32_t hits_max)
{
    uint32_t count = 0;
    const struct index_run *run = run_of(index, conversation);
    for (; run != NULL; run = run_find(index, conversation, run->next)) {
        struct index_walk walk;
        index_walk_init(&walk, index, run);
        while (count < hits_max && walk_find(&walk, (uint16_t)print))
            if (walk.hit.offset < below)
                hits[count++] = walk.hit;
    }
    return count;
}
