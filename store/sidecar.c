/* sidecar.c: the index file of a sealed segment, "%08x.index", version 3; little-endian, in blocks
 * of 4096 bytes.
 *
 * Block 0, header:
 *   0  8  magic "ROOSTIDX"
 *   8  2  version, 3
 *  10  2  flags, 0
 *  12  4  segment id
 *  16  8  the segment's nonce
 *  24  4  end of the segment's last batch (offset)
 *  28  4  entry blocks
 *  32  4  print blocks
 *  36  4  filter bytes
 *  40  4  entries
 *  44  4  prints
 *  48  4  crc of the summary
 *  52  8  earliest expiry of the segment's records, ms since 1970; 0: none expires
 *  60  4  crc of the bytes before
 *  64     zeros
 *
 * Entry blocks: crc 4 (over nonce, block number, bytes from 4), count 4, then up to 127 entries of
 * 32 bytes, then zeros: conversation hi 8, lo 8, sequence number 8, record's offset 4, its size
 * with padding 4; sorted by conversation, then sequence number.
 *
 * Print blocks: crc 4, count 4, then up to 340 of 12 bytes, then zeros: fingerprint 4, record's
 * offset 4, its size 4; sorted by fingerprint, then offset. Of h = SipHash-1-3, key (nonce, segment
 * id), of conversation hi 8, lo 8, the fingerprint's upper 16 bits are h's; the lower 16 are the
 * low ones of SipHash-1-3, key (h, segment id), of sender 8, message id 16, device 4; 1 for 0.
 * Records with message id 0 have none.
 *
 * Summary: per entry block the first entry's conversation hi, lo and sequence number (24 bytes);
 * per print block its first fingerprint (4 bytes); the filter: a Bloom filter of conversations, 6
 * probes, bit i = (low + i × (high | 1)) mod bits of SipHash-1-3 (same key) of conversation hi, lo.
 * Zeros to a multiple of 4096. */
#include "store/sidecar.h"

#include "core/file.h"
#include "core/memory.h"

#include <stdio.h>
#include <stdlib.h>

#define ENTRY_BYTES   32u
#define PRINT_BYTES   12u
#define BLOCK_HEAD    8u
#define BLOCK_ENTRIES SIDECAR_BLOCK_ENTRIES
#define BLOCK_PRINTS  ((SEGMENT_BLOCK - BLOCK_HEAD) / PRINT_BYTES)
#define FENCE_BYTES   24u
#define FILTER_PROBES 6u
#define VERSION       3

static const uint8_t sidecar_magic[8] = {'R', 'O', 'O', 'S', 'T', 'I', 'D', 'X'};

struct print {
    uint32_t print;
    uint32_t offset;
    uint32_t size;
};

enum err store_path(char out[STORE_PATH_BYTES], const char *directory, uint32_t id,
                    const char *suffix)
{
    char name[SEGMENT_NAME_BYTES];
    segment_name(name, id, suffix);
    int size = snprintf(out, STORE_PATH_BYTES, "%s/%s", directory, name);
    return size > 0 && size < STORE_PATH_BYTES ? OK : ERR_TOO_BIG;
}

static uint32_t block_crc(const struct segment_key *key, uint32_t number, const uint8_t *block)
{
    uint8_t seed[4];
    store_u32(seed, number);
    return crc32c(crc32c(key->crc, bytes_of(seed, sizeof seed)),
                  bytes_of(block + 4, SEGMENT_BLOCK - 4));
}

static uint64_t conversation_hash(const struct segment_key *key, struct conversation_id id)
{
    struct hash_key hash = {key->nonce, key->id};
    return hash_u128(&hash, id.hi, id.lo);
}

static size_t filter_bit(uint64_t hash, uint32_t probe, uint32_t filter_bytes)
{
    return ((uint32_t)hash + (uint64_t)probe * ((hash >> 32) | 1)) % ((uint64_t)filter_bytes * 8);
}

/* ---- building */

static int run_compare(const void *a, const void *b, void *context)
{
    const struct index *index = context;
    const struct index_run *x = index_run(index, *(const uint32_t *)a);
    const struct index_run *y = index_run(index, *(const uint32_t *)b);
    if (x->id.hi != y->id.hi)
        return x->id.hi < y->id.hi ? -1 : 1;
    if (x->id.lo != y->id.lo)
        return x->id.lo < y->id.lo ? -1 : 1;
    return x->first_seq < y->first_seq ? -1 : x->first_seq > y->first_seq;
}

static int print_compare(const void *a, const void *b)
{
    const struct print *x = a;
    const struct print *y = b;
    if (x->print != y->print)
        return x->print < y->print ? -1 : 1;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

struct builder {
    const struct index *index;
    struct segment_key key;
    uint32_t *runs;       /* sorted */
    struct print *prints; /* sorted */
    uint32_t print_count;
    uint32_t entry_blocks;
    uint32_t print_blocks;
    uint32_t filter_bytes;
    size_t summary_bytes;
    size_t size;
    uint8_t *out;
};

static void take_prints(struct builder *b, const struct index_run *run)
{
    uint32_t upper = (uint32_t)(conversation_hash(&b->key, run->id) >> 48) << 16;
    struct index_walk walk;
    index_walk_init(&walk, b->index, run);
    while (index_walk_next(&walk))
        if (walk.print != 0)
            b->prints[b->print_count++] =
                (struct print){upper | walk.print, walk.hit.offset, walk.hit.size};
}

static enum err builder_init(struct builder *b, const struct index *index,
                             const struct segment_header *header)
{
    uint32_t entries = index->entry_count;
    *b = (struct builder){.index = index, .key = segment_key_of(header)};
    b->runs = memory_take((index->run_count + 1) * sizeof(uint32_t), MEMORY_STORE);
    b->prints = memory_take((entries + 1) * sizeof(struct print), MEMORY_STORE);
    if (b->runs == NULL || b->prints == NULL)
        return ERR_NO_MEMORY;
    for (uint32_t i = 0; i < index->run_count; i++) {
        b->runs[i] = i;
        take_prints(b, index_run(index, i));
    }
    union {
        const struct index *in;
        void *out;
    } context = {.in = index};
    qsort_r(b->runs, index->run_count, sizeof(uint32_t), run_compare, context.out);
    qsort(b->prints, b->print_count, sizeof(struct print), print_compare);
    b->entry_blocks = (entries + BLOCK_ENTRIES - 1) / BLOCK_ENTRIES;
    b->print_blocks = (b->print_count + BLOCK_PRINTS - 1) / BLOCK_PRINTS;
    b->filter_bytes = (uint32_t)align_up((size_t)index->conversation_count * 10 / 8 + 64, 64);
    b->summary_bytes = align_up((size_t)b->entry_blocks * FENCE_BYTES +
                                    (size_t)b->print_blocks * 4 + b->filter_bytes,
                                SEGMENT_BLOCK);
    b->size = (size_t)(1 + b->entry_blocks + b->print_blocks) * SEGMENT_BLOCK + b->summary_bytes;
    b->out = memory_take_aligned(b->size, SEGMENT_BLOCK, MEMORY_STORE);
    if (b->out == NULL)
        return ERR_NO_MEMORY;
    memset(b->out, 0, b->size);
    return OK;
}

static void block_seal(struct builder *b, uint32_t number, uint32_t count)
{
    uint8_t *block = b->out + (size_t)number * SEGMENT_BLOCK;
    store_u32(block + 4, count);
    store_u32(block, block_crc(&b->key, number, block));
}

static void build_entry(struct builder *b, uint32_t n, struct conversation_id id,
                        const struct index_hit *hit)
{
    uint32_t block = n / BLOCK_ENTRIES;
    uint8_t *p =
        b->out + (size_t)(1 + block) * SEGMENT_BLOCK + BLOCK_HEAD + n % BLOCK_ENTRIES * ENTRY_BYTES;
    store_u64(p, id.hi);
    store_u64(p + 8, id.lo);
    store_u64(p + 16, hit->seq);
    store_u32(p + 24, hit->offset);
    store_u32(p + 28, hit->size);
    if (n % BLOCK_ENTRIES == 0) {
        uint8_t *summary = b->out + (size_t)(1 + b->entry_blocks + b->print_blocks) * SEGMENT_BLOCK;
        memcpy(summary + (size_t)block * FENCE_BYTES, p, FENCE_BYTES);
    }
}

static void build_entries(struct builder *b, uint8_t *filter)
{
    uint32_t base = 0;
    for (uint32_t i = 0; i < b->index->run_count; i++) {
        const struct index_run *run = index_run(b->index, b->runs[i]);
        uint64_t hash = conversation_hash(&b->key, run->id);
        for (uint32_t probe = 0; probe < FILTER_PROBES; probe++) {
            size_t bit = filter_bit(hash, probe, b->filter_bytes);
            filter[bit / 8] = (uint8_t)(filter[bit / 8] | 1u << bit % 8);
        }
        struct index_walk walk;
        index_walk_init(&walk, b->index, run);
        for (uint32_t n = run->count; n-- > 0 && index_walk_next(&walk);)
            build_entry(b, base + n, run->id, &walk.hit);
        base += run->count;
    }
    for (uint32_t block = 0; block < b->entry_blocks; block++) {
        uint32_t left = base - block * BLOCK_ENTRIES;
        block_seal(b, 1 + block, left < BLOCK_ENTRIES ? left : BLOCK_ENTRIES);
    }
}

static void build_prints(struct builder *b, uint8_t *fences)
{
    for (uint32_t block = 0; block < b->print_blocks; block++) {
        uint32_t first = block * BLOCK_PRINTS;
        uint32_t left = b->print_count - first;
        uint32_t count = left < BLOCK_PRINTS ? left : BLOCK_PRINTS;
        uint32_t number = 1 + b->entry_blocks + block;
        uint8_t *p = b->out + (size_t)number * SEGMENT_BLOCK + BLOCK_HEAD;
        for (uint32_t i = 0; i < count; i++, p += PRINT_BYTES) {
            store_u32(p, b->prints[first + i].print);
            store_u32(p + 4, b->prints[first + i].offset);
            store_u32(p + 8, b->prints[first + i].size);
        }
        store_u32(fences + (size_t)block * 4, b->prints[first].print);
        block_seal(b, number, count);
    }
}

static void build_header(struct builder *b, uint32_t data_end, const uint8_t *summary)
{
    uint8_t *out = b->out;
    memcpy(out, sidecar_magic, sizeof sidecar_magic);
    store_u16(out + 8, VERSION);
    store_u32(out + 12, b->key.id);
    store_u64(out + 16, b->key.nonce);
    store_u32(out + 24, data_end);
    store_u32(out + 28, b->entry_blocks);
    store_u32(out + 32, b->print_blocks);
    store_u32(out + 36, b->filter_bytes);
    store_u32(out + 40, b->index->entry_count);
    store_u32(out + 44, b->print_count);
    store_u32(out + 48, crc32c(b->key.crc, bytes_of(summary, b->summary_bytes)));
    store_u64(out + 52, b->index->expires_min_ms);
    store_u32(out + 60, crc32c(0, bytes_of(out, 60)));
}

enum err sidecar_build(struct bytes *out, const struct segment_header *header,
                       const struct index *index, uint32_t data_end)
{
    struct builder b;
    enum err err = builder_init(&b, index, header);
    if (err == OK) {
        uint8_t *summary = b.out + (size_t)(1 + b.entry_blocks + b.print_blocks) * SEGMENT_BLOCK;
        uint8_t *prints = summary + (size_t)b.entry_blocks * FENCE_BYTES;
        build_entries(&b, prints + (size_t)b.print_blocks * 4);
        build_prints(&b, prints);
        build_header(&b, data_end, summary);
        *out = bytes_of(b.out, b.size);
    }
    memory_give(b.runs, MEMORY_STORE);
    memory_give(b.prints, MEMORY_STORE);
    return err;
}

static enum err write_and_sync(const char *path, struct bytes data)
{
    int fd;
    TRY(file_open(&fd, path, FILE_WRITE | FILE_CREATE));
    enum err err = file_truncate(fd, 0);
    if (err == OK)
        err = file_write(fd, 0, data);
    if (err == OK)
        err = file_sync(fd);
    file_close(fd);
    return err;
}

enum err sidecar_write(const char *directory, const struct segment_header *header,
                       const struct index *index, uint32_t data_end)
{
    char working[STORE_PATH_BYTES];
    char path[STORE_PATH_BYTES];
    struct bytes data;
    TRY(store_path(working, directory, header->id, ".indexing"));
    TRY(store_path(path, directory, header->id, ".index"));
    TRY(sidecar_build(&data, header, index, data_end));
    enum err err = write_and_sync(working, data);
    if (err == OK)
        err = file_rename(working, path);
    if (err == OK)
        err = file_sync_directory(directory);
    else
        (void)!file_remove(working);
    union {
        const uint8_t *in;
        void *out;
    } memory = {.in = data.data};
    memory_give(memory.out, MEMORY_STORE);
    return err;
}

enum err index_rebuild(struct index **out, struct scan *scan, uint32_t *data_end)
{
    struct index *index;
    TRY(index_create(&index, &scan->key, scan->header.bytes));
    *data_end = SEGMENT_DATA_OFFSET;
    enum err err;
    struct scan_item item;
    while ((err = scan_next(scan, &item)) == OK && item.kind != SCAN_END) {
        if (item.unreadable)
            err = ERR_IO; /* not now; an index without what stands there would hide it for good */
        if (err != OK)
            break;
        if (item.kind != SCAN_BATCH)
            continue;
        *data_end = item.to;
        struct batch_walk walk;
        batch_walk_init(&walk, &scan->key, &item);
        while (err == OK && batch_walk_next(&walk)) {
            err = index_add(index, &walk.record, walk.offset, walk.size);
            if (err == ERR_INVALID)
                err = OK; /* not in order: readable by nobody, harmless */
        }
        if (err != OK)
            break;
    }
    if (err == OK && item.unreadable)
        err = ERR_IO;
    if (err != OK) {
        index_destroy(index);
        return err;
    }
    *out = index;
    return OK;
}

/* ---- loading and searching */

static enum err header_decode(struct sidecar *sidecar, const uint8_t *block, uint32_t *summary_crc)
{
    if (memcmp(block, sidecar_magic, sizeof sidecar_magic) != 0 ||
        load_u32(block + 60) != crc32c(0, bytes_of(block, 60)))
        return ERR_CORRUPT;
    if (load_u16(block + 8) > VERSION)
        return ERR_NEWER;
    if (load_u16(block + 8) < VERSION) /* other fields or fingerprints: made again */
        return ERR_CORRUPT;
    if (load_u32(block + 12) != sidecar->key.id || load_u64(block + 16) != sidecar->key.nonce)
        return ERR_CORRUPT;
    sidecar->data_end = load_u32(block + 24);
    sidecar->entry_blocks = load_u32(block + 28);
    sidecar->print_blocks = load_u32(block + 32);
    sidecar->filter_bytes = load_u32(block + 36);
    sidecar->expires_min_ms = load_u64(block + 52);
    *summary_crc = load_u32(block + 48);
    uint32_t blocks_max = SEGMENT_BYTES_MAX / RECORD_HEADER_BYTES / BLOCK_ENTRIES + 1;
    bool sound = sidecar->entry_blocks <= blocks_max && sidecar->print_blocks <= blocks_max &&
                 sidecar->filter_bytes > 0 && sidecar->filter_bytes <= SEGMENT_BYTES_MAX / 8;
    return sound ? OK : ERR_CORRUPT;
}

static enum err sidecar_read(struct sidecar *sidecar)
{
    uint8_t block[SEGMENT_BLOCK];
    size_t done = 0;
    uint32_t crc = 0;
    TRY(file_read(sidecar->fd, 0, block, sizeof block, &done));
    if (done != sizeof block)
        return ERR_CORRUPT;
    TRY(header_decode(sidecar, block, &crc));
    size_t size = align_up((size_t)sidecar->entry_blocks * FENCE_BYTES +
                               (size_t)sidecar->print_blocks * 4 + sidecar->filter_bytes,
                           SEGMENT_BLOCK);
    uint64_t offset = (uint64_t)(1 + sidecar->entry_blocks + sidecar->print_blocks) * SEGMENT_BLOCK;
    uint64_t file = 0;
    TRY(file_size(sidecar->fd, &file));
    if (file != offset + size)
        return ERR_CORRUPT;
    sidecar->summary = memory_take(size, MEMORY_STORE);
    if (sidecar->summary == NULL)
        return ERR_NO_MEMORY;
    sidecar->memory = sizeof *sidecar + size;
    TRY(file_read(sidecar->fd, offset, sidecar->summary, size, &done));
    if (done != size || crc32c(sidecar->key.crc, bytes_of(sidecar->summary, size)) != crc)
        return ERR_CORRUPT;
    return OK;
}

enum err sidecar_load(struct sidecar **out, const char *directory,
                      const struct segment_header *header)
{
    char path[STORE_PATH_BYTES];
    TRY(store_path(path, directory, header->id, ".index"));
    struct sidecar *sidecar = memory_take_zeroed(sizeof *sidecar, MEMORY_STORE);
    if (sidecar == NULL)
        return ERR_NO_MEMORY;
    sidecar->key = segment_key_of(header);
    sidecar->fd = -1;
    enum err err = file_open(&sidecar->fd, path, FILE_READ);
    if (err != OK)
        sidecar->fd = -1;
    else
        err = sidecar_read(sidecar);
    if (err != OK) {
        sidecar_destroy(sidecar);
        return err;
    }
    *out = sidecar;
    return OK;
}

void sidecar_destroy(struct sidecar *sidecar)
{
    if (sidecar == NULL)
        return;
    if (sidecar->fd >= 0)
        file_close(sidecar->fd);
    memory_give(sidecar->summary, MEMORY_STORE);
    memory_give(sidecar, MEMORY_STORE);
}

bool sidecar_may_hold(const struct sidecar *sidecar, struct conversation_id conversation)
{
    const uint8_t *filter = sidecar->summary + (size_t)sidecar->entry_blocks * FENCE_BYTES +
                            (size_t)sidecar->print_blocks * 4;
    uint64_t hash = conversation_hash(&sidecar->key, conversation);
    for (uint32_t probe = 0; probe < FILTER_PROBES; probe++) {
        size_t bit = filter_bit(hash, probe, sidecar->filter_bytes);
        if ((filter[bit / 8] >> bit % 8 & 1) == 0)
            return false;
    }
    return true;
}

static int key_compare(const uint8_t *p, struct conversation_id id, uint64_t seq)
{
    uint64_t hi = load_u64(p);
    uint64_t lo = load_u64(p + 8);
    uint64_t s = load_u64(p + 16);
    if (hi != id.hi)
        return hi < id.hi ? -1 : 1;
    if (lo != id.lo)
        return lo < id.lo ? -1 : 1;
    return s < seq ? -1 : s > seq;
}

void sidecar_range_where(const struct sidecar *sidecar, struct conversation_id conversation,
                         uint64_t from, uint64_t *offset, size_t *size)
{
    /* The last block whose first entry is at or before (conversation, from): the entry before that
     * key is in it, the first one from it on in it or the next. */
    uint32_t low = 0;
    uint32_t high = sidecar->entry_blocks;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (key_compare(sidecar->summary + (size_t)middle * FENCE_BYTES, conversation, from) <= 0)
            low = middle;
        else
            high = middle;
    }
    uint32_t left = sidecar->entry_blocks - low;
    *offset = (uint64_t)(1 + low) * SEGMENT_BLOCK;
    *size = (size_t)(left < 2 ? left : 2) * SEGMENT_BLOCK;
}

/* block_valid: the block's checksum and count. */
static enum err block_valid(const struct sidecar *sidecar, const uint8_t *block, uint64_t offset,
                            uint32_t *count, uint32_t count_max)
{
    *count = load_u32(block + 4);
    uint32_t number = (uint32_t)(offset / SEGMENT_BLOCK);
    bool sound = load_u32(block) == block_crc(&sidecar->key, number, block) && *count <= count_max;
    return sound ? OK : ERR_CORRUPT;
}

enum err sidecar_range(const struct sidecar *sidecar, struct bytes read, uint64_t offset,
                       struct conversation_id conversation, uint64_t from, struct index_hit *hits,
                       uint32_t hits_max, uint32_t *count, bool *before)
{
    *count = 0;
    *before = false;
    for (size_t at = 0; at + SEGMENT_BLOCK <= read.size; at += SEGMENT_BLOCK) {
        const uint8_t *block = read.data + at;
        uint32_t entries;
        TRY(block_valid(sidecar, block, offset + at, &entries, BLOCK_ENTRIES));
        const uint8_t *p = block + BLOCK_HEAD;
        for (uint32_t i = 0; i < entries && *count < hits_max; i++, p += ENTRY_BYTES) {
            if (load_u64(p) != conversation.hi || load_u64(p + 8) != conversation.lo)
                continue;
            uint64_t seq = load_u64(p + 16);
            if (seq < from)
                *before = true;
            else
                hits[(*count)++] = (struct index_hit){seq, load_u32(p + 24), load_u32(p + 28)};
        }
    }
    return OK;
}

enum err sidecar_newest(const struct sidecar *sidecar, struct bytes read, uint64_t offset,
                        struct conversation_id conversation, uint64_t *seq)
{
    *seq = 0;
    for (size_t at = 0; at + SEGMENT_BLOCK <= read.size; at += SEGMENT_BLOCK) {
        const uint8_t *block = read.data + at;
        uint32_t entries;
        TRY(block_valid(sidecar, block, offset + at, &entries, BLOCK_ENTRIES));
        const uint8_t *p = block + BLOCK_HEAD;
        for (uint32_t i = 0; i < entries; i++, p += ENTRY_BYTES)
            if (load_u64(p) == conversation.hi && load_u64(p + 8) == conversation.lo)
                *seq = load_u64(p + 16); /* ascending */
    }
    return OK;
}

void sidecar_find_where(const struct sidecar *sidecar, uint32_t print, uint64_t *offset,
                        size_t *size)
{
    /* The last block that begins below the fingerprint: equal ones begin in it or the next. */
    const uint8_t *fences = sidecar->summary + (size_t)sidecar->entry_blocks * FENCE_BYTES;
    uint32_t low = 0;
    uint32_t high = sidecar->print_blocks;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (load_u32(fences + (size_t)middle * 4) < print)
            low = middle;
        else
            high = middle;
    }
    uint32_t left = sidecar->print_blocks - low;
    *offset = (uint64_t)(1 + sidecar->entry_blocks + low) * SEGMENT_BLOCK;
    *size = (size_t)(left < 2 ? left : 2) * SEGMENT_BLOCK;
}

enum err sidecar_find(const struct sidecar *sidecar, struct bytes read, uint64_t offset,
                      uint32_t print, struct index_hit *hits, uint32_t hits_max, uint32_t *count)
{
    *count = 0;
    for (size_t at = 0; at + SEGMENT_BLOCK <= read.size; at += SEGMENT_BLOCK) {
        const uint8_t *block = read.data + at;
        uint32_t prints;
        TRY(block_valid(sidecar, block, offset + at, &prints, BLOCK_PRINTS));
        const uint8_t *p = block + BLOCK_HEAD;
        for (uint32_t i = 0; i < prints && *count < hits_max; i++, p += PRINT_BYTES)
            if (load_u32(p) == print)
                hits[(*count)++] = (struct index_hit){0, load_u32(p + 4), load_u32(p + 8)};
    }
    return OK;
}

/* ---- walking */

enum err sidecar_entries(const struct sidecar *sidecar, uint32_t n,
                         struct sidecar_entry entries[SIDECAR_BLOCK_ENTRIES], uint32_t *count)
{
    uint8_t block[SEGMENT_BLOCK];
    uint64_t offset = (uint64_t)(1 + n) * SEGMENT_BLOCK;
    size_t done = 0;
    *count = 0;
    if (n >= sidecar->entry_blocks)
        return OK;
    TRY(file_read(sidecar->fd, offset, block, sizeof block, &done));
    if (done != sizeof block)
        return ERR_CORRUPT;
    TRY(block_valid(sidecar, block, offset, count, BLOCK_ENTRIES));
    const uint8_t *p = block + BLOCK_HEAD;
    for (uint32_t i = 0; i < *count; i++, p += ENTRY_BYTES)
        entries[i] = (struct sidecar_entry){
            {load_u64(p), load_u64(p + 8)}, load_u64(p + 16), load_u32(p + 24), load_u32(p + 28)};
    return OK;
}

uint64_t sidecar_conversations(const struct sidecar *sidecar)
{
    return (uint64_t)sidecar->filter_bytes * 8 / 10;
}

/* ---- for repair */

enum err sidecar_nonce(uint64_t *nonce, const char *directory, uint32_t id)
{
    char path[STORE_PATH_BYTES];
    uint8_t block[SEGMENT_BLOCK];
    size_t done = 0;
    int fd;
    TRY(store_path(path, directory, id, ".index"));
    TRY(file_open(&fd, path, FILE_READ));
    enum err err = file_read(fd, 0, block, sizeof block, &done);
    file_close(fd);
    TRY(err);
    if (done != sizeof block || memcmp(block, sidecar_magic, sizeof sidecar_magic) != 0 ||
        load_u32(block + 60) != crc32c(0, bytes_of(block, 60)) || load_u32(block + 12) != id)
        return ERR_CORRUPT;
    *nonce = load_u64(block + 16);
    return OK;
}
