/* archive_walk.c: see archive_walk.h. Where no valid head stands, the next one is looked for in
 * steps of 8 bytes: its checksum is seeded with the archive's nonce and the offset, so that neither
 * a client's bytes nor a misplaced block pass for one. */
#include "store/archive_walk.h"

#include "core/file.h"
#include "core/memory.h"
#include "store/scan.h"

void archive_walk_init(struct archive_walk *walk, int fd, const struct segment_key *key,
                       uint64_t offset, uint64_t bytes)
{
    *walk = (struct archive_walk){
        .fd = fd,
        .key = *key,
        .offset = offset,
        .end = bytes < ARCHIVE_FOOTER_BYTES ? 0 : (bytes - ARCHIVE_FOOTER_BYTES) & ~7ull};
}

void archive_walk_deinit(struct archive_walk *walk)
{
    memory_give(walk->window, MEMORY_STORE);
    memory_give(walk->raw.data, MEMORY_STORE);
    walk->window = NULL;
    walk->raw = (struct buffer){0};
}

/* get: size bytes at offset; zeros where they cannot be read. */
static enum err get(struct archive_walk *walk, uint64_t offset, size_t size, const uint8_t **data)
{
    if (offset < walk->start || offset + size > walk->start + walk->size) {
        size_t want = size > WALK_WINDOW_BYTES ? size : WALK_WINDOW_BYTES;
        if (want > walk->capacity) {
            uint8_t *grown = memory_resize(walk->window, want, MEMORY_STORE);
            if (grown == NULL)
                return ERR_NO_MEMORY;
            walk->window = grown;
            walk->capacity = want;
        }
        size_t done = 0;
        if (file_read(walk->fd, offset, walk->window, want, &done) != OK) {
            walk->unreadable = true;
            memset(walk->window, 0, want);
            for (size_t at = 0; at < want; at += SEGMENT_BLOCK) {
                size_t part = want - at < SEGMENT_BLOCK ? want - at : SEGMENT_BLOCK;
                if (file_read(walk->fd, offset + at, walk->window + at, part, &done) != OK)
                    memset(walk->window + at, 0, part);
            }
            done = want;
        }
        memset(walk->window + done, 0, want - done);
        walk->start = offset;
        walk->size = want;
        walk->bytes_read += done;
    }
    *data = walk->window + (offset - walk->start);
    return OK;
}

static bool fits(const struct archive_walk *walk, const struct archive_block *block,
                 uint64_t offset)
{
    return archive_block_end(offset, block) <= walk->end;
}

/* resync: the next valid head at or behind item->from; END: none. */
static enum err resync(struct archive_walk *walk, struct walk_item *item)
{
    const uint8_t *head;
    uint64_t offset = item->from;
    for (; offset + ARCHIVE_HEAD_BYTES <= walk->end; offset += 8) {
        TRY(get(walk, offset, ARCHIVE_HEAD_BYTES, &head));
        if (archive_head_decode(&item->block, head, &walk->key, offset) == OK &&
            fits(walk, &item->block, offset))
            break;
    }
    if (offset + ARCHIVE_HEAD_BYTES > walk->end)
        offset = walk->end;
    item->kind = WALK_DAMAGED;
    item->to = offset;
    walk->offset = offset;
    return OK;
}

enum err archive_walk_next(struct archive_walk *walk, struct walk_item *item)
{
    const uint8_t *data;
    *item = (struct walk_item){.kind = WALK_END, .from = walk->offset, .to = walk->offset};
    if (walk->offset >= walk->end)
        return OK;
    if (walk->offset + ARCHIVE_HEAD_BYTES > walk->end)
        return resync(walk, item);
    TRY(get(walk, walk->offset, ARCHIVE_HEAD_BYTES, &data));
    if (archive_head_decode(&item->block, data, &walk->key, walk->offset) != OK ||
        !fits(walk, &item->block, walk->offset))
        return resync(walk, item);
    item->to = archive_block_end(item->from, &item->block);
    TRY(get(walk, item->from, (size_t)(item->to - item->from), &data));
    enum err err = archive_block_decode(&item->block, &item->content,
                                        bytes_of(data, (size_t)(item->to - item->from)), &walk->key,
                                        item->from);
    item->kind = err == OK ? WALK_BLOCK : WALK_LOST;
    size_t used = ARCHIVE_HEAD_BYTES + item->block.stored;
    item->dirty = !bytes_zero(data + used, (size_t)(item->to - item->from) - used);
    walk->offset = item->to;
    return OK;
}

enum err archive_walk_records(struct archive_walk *walk, const struct walk_item *item,
                              struct bytes *records)
{
    if (item->kind != WALK_BLOCK || item->block.kind != ARCHIVE_DATA)
        return ERR_INVALID;
    return archive_inflate(records, &item->block, item->content, &walk->raw);
}
