/* archive_load.c: an archive opened (archive.h), and what the part of it that stays in memory says:
 * which block of its directory, table and prints to read, and what stands in a block that was read.
 */
#include "store/archive.h"

#include "core/file.h"
#include "core/hash.h"
#include "core/memory.h"

/* ---- loading */

static enum err read_exact(int fd, uint64_t offset, uint8_t *out, size_t size)
{
    size_t done = 0;
    TRY(file_read(fd, offset, out, size, &done));
    return done == size ? OK : ERR_CORRUPT;
}

static enum err load_summary(struct archive *archive, uint64_t file)
{
    const struct archive_footer *footer = &archive->footer;
    size_t size = (size_t)(file - ARCHIVE_FOOTER_BYTES - footer->summary);
    struct archive_block block;
    struct bytes content;
    archive->summary = memory_take(size, MEMORY_STORE);
    if (archive->summary == NULL)
        return ERR_NO_MEMORY;
    archive->memory = sizeof *archive + size;
    TRY(read_exact(archive->fd, footer->summary, archive->summary, size));
    TRY(archive_block_decode(&block, &content, bytes_of(archive->summary, size), &archive->key,
                             footer->summary));
    size_t directory = (size_t)footer->directory_blocks * ARCHIVE_DIRECTORY_FENCE;
    size_t table = (size_t)footer->table_blocks * ARCHIVE_TABLE_FENCE;
    size_t prints = (size_t)footer->print_blocks * 8;
    if (block.kind != ARCHIVE_SUMMARY || block.codec != ARCHIVE_PLAIN ||
        archive_block_end(footer->summary, &block) != footer->summary + size ||
        content.size != directory + table + prints + footer->filter_bytes)
        return ERR_CORRUPT;
    archive->directory_fences = content.data;
    archive->table_fences = content.data + directory;
    archive->print_offsets = content.data + directory + table;
    archive->filter = content.data + directory + table + prints;
    return OK;
}

/* load_header: from the first block, or, where that is damaged, from the name and the footer, whose
 * checksum then has to vouch for both. */
static enum err load_header(struct archive *archive, const char *path, uint64_t file,
                            const uint8_t footer[ARCHIVE_FOOTER_BYTES])
{
    uint8_t block[ARCHIVE_HEADER_BYTES];
    const char *slash = strrchr(path, '/');
    const char *name = slash == NULL ? path : slash + 1;
    size_t stem = strcspn(name, ".");
    struct archive_footer ignored;
    enum err err =
        file < sizeof block ? ERR_CORRUPT : read_exact(archive->fd, 0, block, sizeof block);
    if (err == OK)
        err = archive_header_decode(&archive->header, block);
    if (err == OK || err == ERR_NEWER)
        return err;
    archive->header_damaged = true;
    TRY(archive_name_parse(&archive->header, name, name + stem) == OK ? OK : ERR_CORRUPT);
    archive_footer_header(&archive->header, footer);
    return archive_footer_decode(&ignored, footer, &archive->header);
}

static enum err load_parts(struct archive *archive, const char *path, bool salvage)
{
    uint8_t footer[ARCHIVE_FOOTER_BYTES] = {0};
    uint64_t file = 0;
    TRY(file_size(archive->fd, &file));
    enum err err = ERR_CORRUPT;
    if (file >= ARCHIVE_HEADER_BYTES + ARCHIVE_HEAD_BYTES + ARCHIVE_FOOTER_BYTES)
        err = read_exact(archive->fd, file - ARCHIVE_FOOTER_BYTES, footer, sizeof footer);
    if (err == OK || salvage)
        err = load_header(archive, path, file, footer);
    TRY(err);
    archive->key = archive_key(&archive->header);
    err = archive_footer_decode(&archive->footer, footer, &archive->header);
    uint32_t tables = (archive->footer.data_blocks + ARCHIVE_PAGE_ROWS - 1) / ARCHIVE_PAGE_ROWS;
    if (err == OK && (archive->footer.bytes != file || archive->footer.table_blocks != tables ||
                      archive->footer.summary > file - ARCHIVE_FOOTER_BYTES - ARCHIVE_HEAD_BYTES ||
                      file - archive->footer.summary > 4ull << 30))
        err = ERR_CORRUPT;
    if (salvage) {
        archive->footer_damaged = err != OK;
        archive->footer.bytes = file;
        return OK;
    }
    TRY(err);
    return load_summary(archive, file);
}

static enum err load(struct archive **out, const char *path, bool salvage)
{
    struct archive *archive = memory_take_zeroed(sizeof *archive, MEMORY_STORE);
    if (archive == NULL)
        return ERR_NO_MEMORY;
    enum err err = file_open(&archive->fd, path, FILE_READ);
    if (err != OK)
        archive->fd = -1;
    else
        err = load_parts(archive, path, salvage);
    if (err != OK) {
        archive_destroy(archive);
        return err;
    }
    *out = archive;
    return OK;
}

enum err archive_load(struct archive **archive, const char *path)
{
    return load(archive, path, false);
}

enum err archive_salvage(struct archive **archive, const char *path)
{
    return load(archive, path, true);
}

void archive_destroy(struct archive *archive)
{
    if (archive == NULL)
        return;
    if (archive->fd >= 0)
        file_close(archive->fd);
    memory_give(archive->summary, MEMORY_STORE);
    memory_give(archive, MEMORY_STORE);
}

/* ---- look-ups */

uint64_t archive_conversation_hash(const struct segment_key *key, struct conversation_id id)
{
    struct hash_key hash = {key->nonce, key->id};
    return hash_u128(&hash, id.hi, id.lo);
}

size_t archive_filter_bit(uint64_t hash, uint32_t probe, size_t filter_bytes)
{
    uint64_t step = (hash >> 32) | 1;
    return ((uint32_t)hash + probe * step) & (filter_bytes * 8 - 1);
}

bool archive_may_hold(const struct archive *archive, struct conversation_id conversation)
{
    uint64_t hash = archive_conversation_hash(&archive->key, conversation);
    for (uint32_t probe = 0; probe < ARCHIVE_FILTER_PROBES; probe++) {
        size_t bit = archive_filter_bit(hash, probe, archive->footer.filter_bytes);
        if ((archive->filter[bit / 8] >> bit % 8 & 1) == 0)
            return false;
    }
    return true;
}

/* fence_find: the last of count fences at or before (conversation, seq); 0 if none is. Fences of
 * directories have no number: with seq UINT64_MAX none is compared. */
static uint32_t fence_find(const uint8_t *fences, size_t size, uint32_t count,
                           struct conversation_id conversation, uint64_t seq)
{
    uint32_t low = 0;
    uint32_t high = count;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        const uint8_t *p = fences + (size_t)middle * size;
        struct conversation_id id = {load_u64(p), load_u64(p + 8)};
        int order = conversation_order(id, conversation);
        if (order == 0 && seq != UINT64_MAX)
            order = load_u64(p + 16) <= seq ? 0 : 1;
        if (order <= 0)
            low = middle;
        else
            high = middle;
    }
    return low;
}

uint64_t archive_directory_at(const struct archive *archive, struct conversation_id conversation)
{
    if (archive->footer.directory_blocks == 0)
        return 0;
    uint32_t at = fence_find(archive->directory_fences, ARCHIVE_DIRECTORY_FENCE,
                             archive->footer.directory_blocks, conversation, UINT64_MAX);
    return load_u64(archive->directory_fences + (size_t)at * ARCHIVE_DIRECTORY_FENCE + 16);
}

/* page: a directory, table or print block that was read, of that many entries at most. */
static enum err page(const struct archive *archive, struct bytes read, uint64_t offset,
                     enum archive_kind kind, size_t entry_bytes, struct bytes *content,
                     uint32_t *count)
{
    struct archive_block block;
    TRY(archive_block_decode(&block, content, read, &archive->key, offset));
    *count = block.count;
    bool sound = block.kind == kind && block.codec == ARCHIVE_PLAIN &&
                 block.stored == block.count * entry_bytes && block.count > 0;
    return sound ? OK : ERR_CORRUPT;
}

uint64_t archive_directory_offset(const struct archive *archive, uint32_t number)
{
    if (number >= archive->footer.directory_blocks)
        return 0;
    return load_u64(archive->directory_fences + (size_t)number * ARCHIVE_DIRECTORY_FENCE + 16);
}

enum err archive_directory_entries(const struct archive *archive, struct bytes read,
                                   uint64_t offset,
                                   struct archive_entry entries[ARCHIVE_PAGE_ENTRIES],
                                   uint32_t *count)
{
    struct bytes content;
    TRY(page(archive, read, offset, ARCHIVE_DIRECTORY, ARCHIVE_ENTRY_BYTES, &content, count));
    if (*count > ARCHIVE_PAGE_ENTRIES)
        return ERR_CORRUPT;
    for (uint32_t i = 0; i < *count; i++) {
        archive_entry_decode(&entries[i], content.data + (size_t)i * ARCHIVE_ENTRY_BYTES);
        if (!archive_entry_sound(archive, &entries[i]))
            return ERR_CORRUPT;
    }
    return OK;
}

enum err archive_directory_find(const struct archive *archive, struct bytes read, uint64_t offset,
                                struct conversation_id conversation, struct archive_entry *entry)
{
    struct bytes content;
    uint32_t high;
    TRY(page(archive, read, offset, ARCHIVE_DIRECTORY, ARCHIVE_ENTRY_BYTES, &content, &high));
    uint32_t low = 0;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        archive_entry_decode(entry, content.data + (size_t)middle * ARCHIVE_ENTRY_BYTES);
        int order = conversation_order(entry->conversation, conversation);
        if (order == 0)
            return archive_entry_sound(archive, entry) ? OK : ERR_CORRUPT;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return ERR_NOT_FOUND;
}

uint32_t archive_table_at(const struct archive *archive, struct conversation_id conversation,
                          uint64_t seq)
{
    if (seq == UINT64_MAX)
        seq--;
    return fence_find(archive->table_fences, ARCHIVE_TABLE_FENCE, archive->footer.table_blocks,
                      conversation, seq);
}

uint64_t archive_table_offset(const struct archive *archive, uint32_t number)
{
    if (number >= archive->footer.table_blocks)
        return 0;
    return load_u64(archive->table_fences + (size_t)number * ARCHIVE_TABLE_FENCE + 24);
}

bool archive_table_first(const struct archive *archive, uint32_t number, struct archive_row *row)
{
    if (number >= archive->footer.table_blocks)
        return false;
    const uint8_t *p = archive->table_fences + (size_t)number * ARCHIVE_TABLE_FENCE;
    *row = (struct archive_row){.conversation = {load_u64(p), load_u64(p + 8)},
                                .seq = load_u64(p + 16),
                                .offset = load_u64(p + 32),
                                .bytes = load_u32(p + 40)};
    return true;
}

enum err archive_rows(const struct archive *archive, struct bytes read, uint64_t offset,
                      struct archive_row rows[ARCHIVE_PAGE_ROWS], uint32_t *count)
{
    struct bytes content;
    TRY(page(archive, read, offset, ARCHIVE_TABLE, ARCHIVE_ROW_BYTES, &content, count));
    if (*count > ARCHIVE_PAGE_ROWS)
        return ERR_CORRUPT;
    for (uint32_t i = 0; i < *count; i++) {
        archive_row_decode(&rows[i], content.data + (size_t)i * ARCHIVE_ROW_BYTES);
        if (rows[i].bytes < ARCHIVE_HEAD_BYTES || rows[i].offset >= archive->footer.summary ||
            rows[i].bytes > archive->footer.summary - rows[i].offset ||
            (i > 0 && rows[i].offset < rows[i - 1].offset + rows[i - 1].bytes))
            return ERR_CORRUPT;
    }
    return OK;
}

uint64_t archive_prints_offset(const struct archive *archive, uint32_t number)
{
    if (number >= archive->footer.print_blocks)
        return 0;
    return load_u64(archive->print_offsets + (size_t)number * 8);
}

enum err archive_prints(const struct archive *archive, struct bytes read, uint64_t offset,
                        struct bytes *prints)
{
    uint32_t count;
    return page(archive, read, offset, ARCHIVE_PRINTS, ARCHIVE_PRINT_BYTES, prints, &count);
}
