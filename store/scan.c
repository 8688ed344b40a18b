/* scan.c: at each block boundary where a batch should be: a valid header → the batch, and on behind
 * its padding; else block by block until a valid header (damage) or the end of the file. The nonce
 * in every checksum is what makes it safe to look for headers among bytes that clients sent. */
#include "store/scan.h"

#include "core/file.h"
#include "core/memory.h"

/* Looking for the next valid record behind a damaged one costs a checksum per plausible place; what
 * a client sent can make every place plausible. */
#define RESYNC_BYTES_MAX (256ull << 20)

bool bytes_zero(const uint8_t *data, size_t size)
{
    return size == 0 || (data[0] == 0 && memcmp(data, data + 1, size - 1) == 0);
}

static bool unreadable(const struct scan *scan, uint64_t from, uint64_t to)
{
    return scan->unreadable_from < to && from < scan->unreadable_to;
}

/* fill_blocks: read size bytes at offset block by block; what cannot be read becomes zeros. */
static void fill_blocks(struct scan *scan, uint64_t offset, size_t size)
{
    for (size_t at = 0; at < size; at += SEGMENT_BLOCK) {
        size_t done = 0;
        if (file_read(scan->fd, offset + at, scan->window + at, SEGMENT_BLOCK, &done) != OK) {
            done = 0;
            if (scan->unreadable_from == scan->unreadable_to)
                scan->unreadable_from = offset + at;
            scan->unreadable_to = offset + at + SEGMENT_BLOCK;
        }
        memset(scan->window + at + done, 0, SEGMENT_BLOCK - done);
    }
}

/* read_ahead: keep the disk at work while this part is looked through. */
static void read_ahead(struct scan *scan, uint64_t from)
{
    uint64_t to = from + SCAN_AHEAD_BYTES;
    if (to > scan->header.bytes)
        to = scan->header.bytes;
    if (from > scan->ahead)
        scan->ahead = from;
    if (to >= scan->ahead + SCAN_AHEAD_BYTES / 2 ||
        (to == scan->header.bytes && to > scan->ahead)) {
        file_read_ahead(scan->fd, scan->ahead, to - scan->ahead);
        scan->ahead = to;
    }
}

/* window_get: size bytes at offset, valid until the next call; zeros behind the end of the file. */
static enum err window_get(struct scan *scan, uint64_t offset, size_t size, const uint8_t **data)
{
    if (offset < scan->window_start || offset + size > scan->window_start + scan->window_size) {
        size_t want = align_up(size, SEGMENT_BLOCK);
        size_t ahead =
            scan->header.bytes < SCAN_WINDOW_BYTES ? scan->header.bytes : SCAN_WINDOW_BYTES;
        if (want < ahead) /* 0 while the header is read */
            want = ahead;
        if (want > scan->window_capacity) {
            uint8_t *grown = memory_resize(scan->window, want, MEMORY_STORE);
            if (grown == NULL)
                return ERR_NO_MEMORY;
            scan->window = grown;
            scan->window_capacity = want;
        }
        size_t done = 0;
        scan->unreadable_from = scan->unreadable_to = 0;
        read_ahead(scan, offset);
        if (file_read(scan->fd, offset, scan->window, want, &done) != OK)
            fill_blocks(scan, offset, want);
        else
            memset(scan->window + done, 0, want - done);
        scan->window_start = offset;
        scan->window_size = want;
    }
    *data = scan->window + (offset - scan->window_start);
    return OK;
}

enum err scan_open(struct scan *scan, int fd)
{
    *scan = (struct scan){.fd = fd, .offset = SEGMENT_DATA_OFFSET};
    const uint8_t *data;
    TRY(window_get(scan, 0, SEGMENT_DATA_OFFSET, &data));
    enum err first = segment_header_decode(&scan->header, data);
    if (first == OK && memcmp(data, data + SEGMENT_BLOCK, SEGMENT_BLOCK) == 0)
        goto found;
    scan->copy_damaged = true;
    struct segment_header second_header;
    enum err second = segment_header_decode(&second_header, data + SEGMENT_BLOCK);
    if (first != OK) {
        if (first == ERR_NEWER || second != OK) {
            bool device = unreadable(scan, 0, SEGMENT_DATA_OFFSET);
            scan_close(scan);
            return first == ERR_NEWER || second == ERR_NEWER ? ERR_NEWER
                   : device                                  ? ERR_IO
                                                             : ERR_CORRUPT;
        }
        scan->header = second_header;
    }
found:
    scan->key = segment_key_of(&scan->header);
    return OK;
}

void scan_close(struct scan *scan)
{
    memory_give(scan->window, MEMORY_STORE);
    scan->window = NULL;
}

void scan_rewind(struct scan *scan)
{
    scan->offset = SEGMENT_DATA_OFFSET;
    scan->ahead = 0;
}

/* find_batch: the next valid header at or behind offset; found = false: none up to the end. */
static enum err find_batch(struct scan *scan, struct scan_item *item, uint64_t offset, bool *found)
{
    *found = false;
    uint64_t from = item->from;
    for (; offset + SEGMENT_BLOCK <= scan->header.bytes; offset += SEGMENT_BLOCK) {
        const uint8_t *data;
        TRY(window_get(scan, offset, SEGMENT_BLOCK, &data));
        item->unreadable = item->unreadable || unreadable(scan, from, offset + SEGMENT_BLOCK);
        if (batch_header_decode(&item->header, data, &scan->key, (uint32_t)offset,
                                scan->header.bytes) == OK) {
            *found = true;
            break;
        }
        item->dirty = item->dirty || !bytes_zero(data, SEGMENT_BLOCK);
    }
    item->to = (uint32_t)offset;
    return OK;
}

enum err scan_next(struct scan *scan, struct scan_item *item)
{
    *item = (struct scan_item){.from = scan->offset};
    bool found;
    TRY(find_batch(scan, item, scan->offset, &found));
    if (!found || item->to != item->from) {
        item->kind = found ? SCAN_DAMAGE : SCAN_END;
        scan->offset = item->to;
        return OK;
    }
    size_t padded = align_up(item->header.length, SEGMENT_BLOCK);
    const uint8_t *data;
    TRY(window_get(scan, item->from, padded, &data));
    item->kind = SCAN_BATCH;
    item->data = bytes_of(data, item->header.length);
    item->to = (uint32_t)(item->from + padded);
    item->unreadable = unreadable(scan, item->from, item->to);
    item->dirty = !bytes_zero(data + item->header.length, padded - item->header.length);
    scan->offset = item->to;
    return OK;
}

void batch_walk_init(struct batch_walk *walk, const struct segment_key *key,
                     const struct scan_item *item)
{
    *walk = (struct batch_walk){
        .key = key, .data = item->data, .start = item->from, .at = BATCH_HEADER_BYTES};
}

bool batch_walk_next(struct batch_walk *walk)
{
    for (; walk->at < walk->data.size && walk->wasted < RESYNC_BYTES_MAX;
         walk->at += RECORD_ALIGNMENT) {
        size_t taken;
        uint32_t offset = walk->start + walk->at;
        struct bytes rest = bytes_skip(walk->data, walk->at);
        if (record_parse(&walk->record, rest, &taken) != OK)
            continue;
        if (record_decode(&walk->record, rest, walk->key, offset, &taken) != OK) {
            walk->wasted += taken;
            continue;
        }
        walk->offset = offset;
        walk->size = (uint32_t)taken;
        walk->at += (uint32_t)taken;
        walk->valid++;
        return true;
    }
    return false;
}

bool batch_sound(const struct segment_key *key, const struct scan_item *item)
{
    struct batch_walk walk;
    size_t bytes = BATCH_HEADER_BYTES;
    batch_walk_init(&walk, key, item);
    while (batch_walk_next(&walk))
        bytes += walk.size;
    return walk.valid == item->header.records && bytes == item->header.length;
}
