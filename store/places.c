/* places.c: see places.h.
 *
 *   buckets   by the high bits of the print, one per about 8 conversations: first entry of each
 *   entries   20 bytes per conversation, sorted by print: first number, where its places begin
 *   places    of a segment: 4 bytes per record, by conversation and number: the offset, a multiple
 *             of 8, and in its low bits which power of two bounds the size
 *   blocks    of an archive: 16 bytes per data block, in their order
 *
 * Numbers of a conversation follow on each other within a file; one for which that does not hold
 * (damage), whose numbers do not fit into 32 bits, that has a record larger than the largest class
 * or shares its print with another one has a count of 0: the disk is asked. */
#include "store/places.h"

#include "core/file.h"
#include "core/memory.h"

#include <stdlib.h>

#define CLASS_MASK     7u
#define CLASS_NONE     8u
#define BUCKET_ENTRIES 8u
#define GOES_ON        1u /* of a block's offset */

/* Each at most four times the one before: a quarter of its bound is never more than a record. */
static const uint32_t class_bytes[CLASS_NONE] = {256,  512,  1024,      2048,
                                                 4096, 8192, 24u << 10, 64u << 10};

static uint32_t class_of(uint32_t size)
{
    uint32_t class = 0;
    while (class < CLASS_NONE && class_bytes[class] < size)
        class ++;
    return class;
}

static uint64_t print_of(const struct places *places, struct conversation_id id)
{
    struct hash_key hash = {places->key.nonce, places->key.id};
    return hash_u128(&hash, id.hi, id.lo);
}

/* ---- building: of a segment */

struct builder {
    struct places *places;
    uint32_t entries_max;
    uint32_t records_max;
    uint32_t records;
    struct conversation_id conversation;
    bool sound; /* so far its places can be told */
};

static uint32_t bucket_bits(uint32_t entries)
{
    uint32_t bits = 1;
    while (bits < 24 && entries >> bits > BUCKET_ENTRIES)
        bits++;
    return bits;
}

/* begin: one block of memory for as much as the sidecar may have. */
static enum err begin(struct builder *b, const struct sidecar *sidecar, size_t bytes_max)
{
    uint64_t conversations = sidecar_conversations(sidecar);
    b->records_max = sidecar->entry_blocks * SIDECAR_BLOCK_ENTRIES;
    b->entries_max = conversations < b->records_max ? (uint32_t)conversations : b->records_max;
    uint32_t bits = bucket_bits(b->entries_max);
    size_t buckets = ((size_t)1 << bits) + 1;
    size_t memory = sizeof *b->places + b->entries_max * sizeof(struct places_entry) +
                    b->records_max * sizeof(uint32_t) + buckets * sizeof(uint32_t);
    if (memory > bytes_max)
        return ERR_FULL;
    b->places = memory_take(memory, MEMORY_STORE);
    if (b->places == NULL)
        return ERR_NO_MEMORY;
    *b->places = (struct places){.memory = memory, .key = sidecar->key, .shift = 32 - bits};
    b->places->entry = (struct places_entry *)(void *)(b->places + 1);
    b->places->place = (uint32_t *)(void *)(b->places->entry + b->entries_max);
    b->places->buckets = b->places->place + b->records_max;
    return OK;
}

static enum err add(struct builder *b, const struct sidecar_entry *entry)
{
    struct places *places = b->places;
    bool first =
        places->entries == 0 || !conversation_id_equal(entry->conversation, b->conversation);
    if (first) {
        if (places->entries == b->entries_max)
            return ERR_CORRUPT;
        uint64_t print = print_of(places, entry->conversation);
        places->entry[places->entries++] = (struct places_entry){
            (uint32_t)(print >> 32), (uint32_t)print, (uint32_t)entry->seq, b->records, 0};
        b->conversation = entry->conversation;
        b->sound = true;
    }
    struct places_entry *e = &places->entry[places->entries - 1];
    uint32_t class = class_of(entry->size);
    uint32_t place = b->records - e->start;
    bool sound = b->sound && class != CLASS_NONE && (entry->offset & CLASS_MASK) == 0 &&
                 entry->seq <= UINT32_MAX && entry->seq == (uint64_t)e->first_seq + place;
    if (!sound) {
        b->sound = false;
        b->records = e->start;
        e->count = 0;
        return OK;
    }
    if (b->records == b->records_max)
        return ERR_CORRUPT;
    places->place[b->records++] = entry->offset | class;
    e->count++;
    return OK;
}

static int entry_compare(const void *a, const void *b)
{
    const struct places_entry *x = a;
    const struct places_entry *y = b;
    if (x->print_high != y->print_high)
        return x->print_high < y->print_high ? -1 : 1;
    return x->print_low < y->print_low ? -1 : x->print_low > y->print_low;
}

/* finish: sorted by print; what shares one is not told apart. */
static void finish(struct places *places)
{
    struct places_entry *entry = places->entry;
    qsort(entry, places->entries, sizeof *entry, entry_compare);
    for (uint32_t i = 1; i < places->entries; i++)
        if (entry_compare(&entry[i], &entry[i - 1]) == 0)
            entry[i].count = entry[i - 1].count = 0;
    uint32_t at = 0;
    uint32_t buckets = 1u << (32 - places->shift);
    for (uint32_t bucket = 0; bucket < buckets; bucket++) {
        while (at < places->entries && entry[at].print_high >> places->shift < bucket)
            at++;
        places->buckets[bucket] = at;
    }
    places->buckets[buckets] = places->entries;
}

enum err places_build(struct places **out, const struct sidecar *sidecar, size_t bytes_max)
{
    struct sidecar_entry entries[SIDECAR_BLOCK_ENTRIES];
    struct builder b = {0};
    TRY(begin(&b, sidecar, bytes_max));
    enum err err = OK;
    uint32_t count = 0;
    for (uint32_t n = 0; n < sidecar->entry_blocks && err == OK; n++) {
        err = sidecar_entries(sidecar, n, entries, &count);
        for (uint32_t i = 0; i < count && err == OK; i++)
            err = add(&b, &entries[i]);
    }
    if (err != OK) {
        places_destroy(b.places);
        return err;
    }
    finish(b.places);
    *out = b.places;
    return OK;
}

void places_destroy(struct places *places)
{
    memory_give(places, MEMORY_STORE);
}

/* ---- building: of an archive */

static uint64_t archive_entries(const struct archive_footer *footer)
{
    uint64_t most = (uint64_t)footer->directory_blocks * ARCHIVE_PAGE_ENTRIES;
    return footer->conversations < most ? footer->conversations : most;
}

uint64_t places_archive_bytes(const struct archive_footer *footer)
{
    uint64_t entries = archive_entries(footer);
    uint64_t buckets =
        (1ull << bucket_bits(entries < UINT32_MAX ? (uint32_t)entries : UINT32_MAX)) + 1;
    return sizeof(struct places) + footer->data_blocks * sizeof(struct places_block) +
           entries * sizeof(struct places_entry) + buckets * sizeof(uint32_t);
}

static enum err archive_begin(struct places **out, const struct archive *archive, size_t bytes_max)
{
    const struct archive_footer *footer = &archive->footer;
    uint64_t entries = archive_entries(footer);
    uint64_t memory = places_archive_bytes(footer);
    if (memory > bytes_max || entries >= UINT32_MAX)
        return ERR_FULL;
    struct places *places = memory_take_zeroed((size_t)memory, MEMORY_STORE);
    if (places == NULL)
        return ERR_NO_MEMORY;
    *places = (struct places){.memory = (size_t)memory,
                              .key = archive->key,
                              .shift = 32 - bucket_bits((uint32_t)entries),
                              .blocks = footer->data_blocks};
    places->block = (struct places_block *)(void *)(places + 1);
    places->entry = (struct places_entry *)(void *)(places->block + footer->data_blocks);
    places->buckets = (uint32_t *)(void *)(places->entry + entries);
    *out = places;
    return OK;
}

static enum err archive_blocks(struct places *places, const struct archive *archive)
{
    struct archive_row rows[ARCHIVE_PAGE_ROWS];
    uint8_t data[ARCHIVE_PAGE_BYTES];
    uint32_t taken = 0;
    for (uint32_t n = 0; n < archive->footer.table_blocks; n++) {
        uint64_t offset = archive_table_offset(archive, n);
        size_t done = 0;
        uint32_t count;
        TRY(file_read(archive->fd, offset, data, sizeof data, &done));
        TRY(archive_rows(archive, bytes_of(data, done), offset, rows, &count));
        for (uint32_t i = 0; i < count; i++) {
            if (taken == places->blocks || (rows[i].offset & CLASS_MASK) != 0)
                return ERR_CORRUPT;
            places->block[taken++] =
                (struct places_block){rows[i].offset, rows[i].bytes, (uint32_t)rows[i].seq};
        }
    }
    return taken == places->blocks ? OK : ERR_CORRUPT;
}

static enum err archive_add(struct places *places, uint64_t entries_max,
                            const struct archive_entry *entry)
{
    if (entry->first_seq == 0) /* no records, only a state */
        return OK;
    const struct places_block *first = &places->block[entry->first_block];
    if (places->entries == entries_max || (first->offset & ~(uint64_t)GOES_ON) != entry->offset ||
        first->bytes != entry->stored)
        return ERR_CORRUPT;
    uint64_t print = print_of(places, entry->conversation);
    bool sound = entry->last_seq <= UINT32_MAX;
    places->entry[places->entries++] = (struct places_entry){
        (uint32_t)(print >> 32), (uint32_t)print, (uint32_t)entry->first_seq, entry->first_block,
        sound ? (uint32_t)(entry->last_seq - entry->first_seq + 1) : 0};
    for (uint32_t i = 1; i < entry->blocks; i++)
        places->block[entry->first_block + i].offset |= GOES_ON;
    return OK;
}

static enum err archive_directory(struct places *places, const struct archive *archive)
{
    struct archive_entry entries[ARCHIVE_PAGE_ENTRIES];
    uint8_t data[ARCHIVE_PAGE_BYTES];
    for (uint32_t n = 0; n < archive->footer.directory_blocks; n++) {
        uint64_t offset = archive_directory_offset(archive, n);
        size_t done = 0;
        uint32_t count;
        TRY(file_read(archive->fd, offset, data, sizeof data, &done));
        TRY(archive_directory_entries(archive, bytes_of(data, done), offset, entries, &count));
        for (uint32_t i = 0; i < count; i++)
            TRY(archive_add(places, archive_entries(&archive->footer), &entries[i]));
    }
    return OK;
}

enum err places_archive_build(struct places **out, const struct archive *archive, size_t bytes_max)
{
    struct places *places;
    TRY(archive_begin(&places, archive, bytes_max));
    enum err err = archive_blocks(places, archive);
    if (err == OK)
        err = archive_directory(places, archive);
    if (err != OK) {
        places_destroy(places);
        return err;
    }
    finish(places);
    *out = places;
    return OK;
}

/* ---- looking up */

static enum err find(const struct places *places, struct conversation_id conversation,
                     struct places_entry *out)
{
    uint64_t print = print_of(places, conversation);
    uint32_t bucket = (uint32_t)(print >> 32) >> places->shift;
    for (uint32_t i = places->buckets[bucket]; i < places->buckets[bucket + 1]; i++) {
        const struct places_entry *entry = &places->entry[i];
        if (entry->print_high != (uint32_t)(print >> 32) || entry->print_low != (uint32_t)print)
            continue;
        *out = *entry;
        return out->count == 0 ? ERR_UNSUPPORTED : OK;
    }
    return ERR_NOT_FOUND;
}

enum err places_range(const struct places *places, struct conversation_id conversation,
                      uint64_t from, struct index_hit *hits, uint32_t hits_max, uint32_t *count,
                      bool *before)
{
    struct places_entry entry;
    *count = 0;
    *before = false;
    TRY(find(places, conversation, &entry));
    *before = from > entry.first_seq;
    uint64_t skip = *before ? from - entry.first_seq : 0;
    for (uint64_t i = skip; i < entry.count && *count < hits_max; i++) {
        uint32_t place = places->place[entry.start + i];
        hits[(*count)++] = (struct index_hit){entry.first_seq + i, place & ~CLASS_MASK,
                                              class_bytes[place & CLASS_MASK]};
    }
    return OK;
}

enum err places_newest(const struct places *places, struct conversation_id conversation,
                       uint64_t *seq)
{
    struct places_entry entry;
    *seq = 0;
    TRY(find(places, conversation, &entry));
    *seq = (uint64_t)entry.first_seq + entry.count - 1;
    return OK;
}

enum err places_archive_entry(const struct places *places, struct conversation_id conversation,
                              struct archive_entry *out)
{
    struct places_entry entry;
    TRY(find(places, conversation, &entry));
    const struct places_block *first = &places->block[entry.start];
    *out = (struct archive_entry){.conversation = conversation,
                                  .first_seq = entry.first_seq,
                                  .last_seq = (uint64_t)entry.first_seq + entry.count - 1,
                                  .offset = first->offset & ~(uint64_t)GOES_ON,
                                  .stored = first->bytes,
                                  .first_block = entry.start,
                                  .blocks = 1};
    while (entry.start + out->blocks < places->blocks && (first[out->blocks].offset & GOES_ON) != 0)
        out->blocks++;
    return OK;
}

uint32_t places_archive_at(const struct places *places, const struct archive_entry *entry,
                           uint64_t seq)
{
    uint32_t low = entry->first_block;
    uint32_t high = low + entry->blocks;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (places->block[middle].seq <= seq)
            low = middle;
        else
            high = middle;
    }
    return low;
}

struct archive_row places_archive_row(const struct places *places,
                                      const struct archive_entry *entry, uint32_t block)
{
    const struct places_block *at = &places->block[block];
    return (struct archive_row){.conversation = entry->conversation,
                                .seq = at->seq,
                                .offset = at->offset & ~(uint64_t)GOES_ON,
                                .bytes = at->bytes};
}
