/* archive.c: the archive's format, version 6. Little-endian; crc is CRC-32C.
 *
 * File "%08x-%08x-%04x.archive": first and last segment id that it stands for, generation; in the
 * lane's directory or in the cold one. While it is written: ".archiving", removed at a start.
 *
 *   0     header
 *   4096  blocks, each at a multiple of 8; the last one is the summary
 *   end - 152  footer
 *
 * Header, 4096 bytes. Magic, version and crc keep their place and rule in all versions.
 *   0  8  magic "ROOSTARC"
 *   8  2  version, 6
 *  10  2  flags, 0
 *  12  4  lane
 *  16  4  first segment id
 *  20  4  last segment id
 *  24  8  nonce, random; with the last id it seeds every checksum below
 *  32  8  created, ms since 1970
 *  40  4  level: 1 if merged from segments, else one more than its inputs'
 *  44  4  generation: of several files with the same range the highest counts
 *  48  4  where the last segment's batches ended; 0: not known
 *  52  8  0
 *  60  4  crc of the bytes before
 *  64     zeros to 4096
 *
 * Block: head of 32 bytes, content, zeros to a multiple of 8. The head has a checksum of its own,
 * so that the size may be trusted and a walk goes on behind damaged content.
 *   0  4  crc of bytes 4 … 31, seeded for its offset
 *   4  4  crc of the content as stored, seeded for its offset
 *   8  1  kind: 1 data, 2 directory, 3 table, 4 prints, 5 summary, 6 states
 *   9  1  codec of the content: 0 plain, 1 zstd (data only)
 *  10  2  0
 *  12  4  stored bytes of content
 *  16  4  bytes of content when decompressed
 *  20  4  count of records, entries, rows, prints, states
 *  24  4  number within its kind, from 0
 *  28  4  0
 *
 * Data: records as in a segment (segment.c), their crc with the archive's seed for offset 0; sorted
 * by conversation (hi, then lo), then sequence number; watermark records are not among them, but in
 * the states. One kind more: 4, a range that is gone: sequence number = first, body: last 8, reason
 * 4 (1 expired, 2 retention, 3 damaged), kind 2, 0 2. Without a message id it has neither realm,
 * sender, device nor expiry, its time is that of its newest number or 0, and the kind is 0. With
 * one it is of one number, a message that was removed while a repeat of it must still be told from
 * a new one: realm, sender, device, message id and time are that message's, kind what it was; the
 * expiry: so long the id is known, afterwards it goes when the file is written anew. A conversation
 * whose records fit into one block is never divided.
 *
 * Directory: up to 56 entries of 72 bytes, one per conversation, sorted:
 *   0 16  conversation hi, lo
 *  16  8  first sequence number (gone ranges count), 0: no records, only a state
 *  24  8  last sequence number
 *  32  8  offset of its first data block, 0: none
 *  40  4  bytes of that block, head included
 *  44  4  number of that block
 *  48  4  data blocks
 *  52  4  records with sequence numbers
 *  56  8  ordinal of its first print
 *  64  4  prints
 *  68  4  0
 *
 * States: the block behind each directory block, with its number: one state per entry, in order,
 * from which rows of the catalog are made again whatever became of the records. 48 bytes:
 *   0 16  conversation hi, lo
 *  16  8  first and
 *  24  8  last sequence number, as in the directory
 *  32  8  time of the newest number, gone or not, ms since 1970; 0: not known
 *  40  4  marks
 *  44  4  1: marks of it were lost to damage; else 0
 * and its marks, 80 bytes for each device that sent or acknowledged something, sorted:
 *   0  8  user
 *   8  4  device
 *  12  4  realm
 *  16  8  highest delivered of its watermark records
 *  24  8  highest read of them
 *  32  8  time of the newest of them, ms since 1970
 *  40  8  delivered, or the last one of its own messages that follow it without a gap
 *  48  8  the first sequence number up to this one are all its own messages; 0: the first is not
 *  56 16  highest message id that it sent, 0: it sent nothing
 *  72  4  1: there was a watermark record; else 0, and so are the fields at 16 to 47
 *  76  4  0
 *
 * Table: up to 101 rows of 40 bytes, row n of table block t is data block t × 101 + n:
 *   0 16  conversation hi, lo of its first record
 *  16  8  sequence number of its first record
 *  24  8  offset
 *  32  4  bytes, head included
 *  36  4  records
 *
 * Prints: up to 508 of 8 bytes, one per record with a message id, gone or not, in order:
 * fingerprint 4 (sidecar.c's, key: the archive's), number of its data block 4. Print n of block p
 * has the ordinal p × 508 + n.
 *
 * Summary: per directory block its first conversation hi, lo and its offset (24 bytes); per table
 * block the first row's conversation hi, lo, sequence number, the table block's offset, the row's
 * offset and bytes, and 4 zeros (48); per print block its offset (8); the filter: a Bloom filter of
 * conversations, a power of two bytes, 6 probes, bit i = (low + i × (high | 1)) mod bits of
 * SipHash-1-3, key (nonce, last id), of conversation hi, lo.
 *
 * Footer, 152 bytes:
 *   0  8  magic "ROOSTEND"
 *   8  8  offset of the summary block
 *  16  8  bytes of the file
 *  24  8  records with sequence numbers
 *  32  8  marks with a watermark
 *  40  8  gone ranges, those with a message id among them
 *  48  8  conversations
 *  56  8  records that were damaged where they came from
 *  64  8  time of the oldest record with a sequence number that sets no retention, ms since 1970;
 *         0: there is none
 *  72  8  of the newest
 *  80  8  earliest expiry of its records that are not gone, 0: none expires
 *  88  8  of the records with sequence numbers, those that set a retention: while an archive has
 *         any, it cannot be freed by its directory alone
 *  96  8  gone ranges with a message id
 * 104  8  latest expiry of them, 0: there are none: until then it cannot be freed by its directory
 *         alone either
 * 112  4  data blocks
 * 116  4  directory blocks
 * 120  4  table blocks
 * 124  4  print blocks
 * 128  4  filter bytes
 * 132  8  the header's nonce, lane (4) and level (4) again: with the file's name all that reading
 * 140  4  needs of a header that is damaged
 * 144  4
 * 148  4  crc of the bytes before, seeded with the nonce
 *
 * The seed of a checksum for an offset: crc of the nonce's 8 bytes, xor the upper half of
 * ((last id << 40) + offset) × 0x9e3779b97f4a7c15 mod 2^64. */
#include "store/archive.h"

#include "core/hash.h"
#include "core/memory.h"

#include <zstd.h>

static const uint8_t header_magic[8] = {'R', 'O', 'O', 'S', 'T', 'A', 'R', 'C'};
static const uint8_t footer_magic[8] = {'R', 'O', 'O', 'S', 'T', 'E', 'N', 'D'};

static uint32_t seed_at(const struct segment_key *key, uint64_t offset)
{
    return key->crc ^
           (uint32_t)((((uint64_t)key->id << 40) + offset) * 0x9e3779b97f4a7c15ull >> 32);
}

/* ---- names */

static void hex_put(char *out, uint32_t value, uint32_t digits)
{
    static const char names[] = "0123456789abcdef";
    for (uint32_t i = 0; i < digits; i++)
        out[i] = names[value >> (4 * (digits - 1 - i)) & 15];
}

static bool hex_take(uint32_t *value, const char *in, uint32_t digits)
{
    *value = 0;
    for (uint32_t i = 0; i < digits; i++) {
        char c = in[i];
        if (c >= '0' && c <= '9')
            *value = *value << 4 | (uint32_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            *value = *value << 4 | (uint32_t)(c - 'a' + 10);
        else
            return false;
    }
    return true;
}

void archive_name(char out[ARCHIVE_NAME_BYTES], const struct archive_header *header,
                  const char *suffix)
{
    size_t size = strlen(suffix);
    CHECK(22 + size < ARCHIVE_NAME_BYTES && header->generation <= 0xffff);
    hex_put(out, header->first, 8);
    out[8] = out[17] = '-';
    hex_put(out + 9, header->last, 8);
    hex_put(out + 18, header->generation, 4);
    memcpy(out + 22, suffix, size + 1);
}

enum err archive_name_parse(struct archive_header *header, const char *name, const char *suffix)
{
    *header = (struct archive_header){0};
    bool sound = strlen(name) > 22 && name[8] == '-' && name[17] == '-' &&
                 strcmp(name + 22, suffix) == 0 && hex_take(&header->first, name, 8) &&
                 hex_take(&header->last, name + 9, 8) &&
                 hex_take(&header->generation, name + 18, 4) && header->first != 0 &&
                 header->first <= header->last;
    return sound ? OK : ERR_INVALID;
}

/* ---- header, footer, blocks */

struct segment_key archive_key(const struct archive_header *header)
{
    const struct segment_header like = {.id = header->last, .nonce = header->nonce};
    return segment_key_of(&like);
}

void archive_header_encode(uint8_t out[ARCHIVE_HEADER_BYTES], const struct archive_header *header)
{
    memset(out, 0, ARCHIVE_HEADER_BYTES);
    memcpy(out, header_magic, sizeof header_magic);
    store_u16(out + 8, ARCHIVE_VERSION);
    store_u32(out + 12, header->lane);
    store_u32(out + 16, header->first);
    store_u32(out + 20, header->last);
    store_u64(out + 24, header->nonce);
    store_u64(out + 32, header->created_ms);
    store_u32(out + 40, header->level);
    store_u32(out + 44, header->generation);
    store_u32(out + 48, header->data_end);
    store_u32(out + 60, crc32c(0, bytes_of(out, 60)));
}

enum err archive_header_decode(struct archive_header *header,
                               const uint8_t block[ARCHIVE_HEADER_BYTES])
{
    if (memcmp(block, header_magic, sizeof header_magic) != 0 ||
        load_u32(block + 60) != crc32c(0, bytes_of(block, 60)))
        return ERR_CORRUPT;
    if (load_u16(block + 8) > ARCHIVE_VERSION)
        return ERR_NEWER;
    *header = (struct archive_header){
        .lane = load_u32(block + 12),
        .first = load_u32(block + 16),
        .last = load_u32(block + 20),
        .nonce = load_u64(block + 24),
        .created_ms = load_u64(block + 32),
        .level = load_u32(block + 40),
        .generation = load_u32(block + 44),
        .data_end = load_u32(block + 48),
    };
    bool sound = load_u16(block + 8) == ARCHIVE_VERSION && load_u16(block + 10) == 0 &&
                 header->first != 0 && header->first <= header->last;
    return sound ? OK : ERR_CORRUPT;
}

void archive_footer_encode(uint8_t out[ARCHIVE_FOOTER_BYTES], const struct archive_footer *footer,
                           const struct archive_header *header)
{
    const struct segment_key key = archive_key(header);
    const uint64_t wide[] = {footer->summary,        footer->bytes,       footer->records,
                             footer->watermarks,     footer->gone,        footer->conversations,
                             footer->damaged,        footer->time_min_ms, footer->time_max_ms,
                             footer->expires_min_ms, footer->settings,    footer->named,
                             footer->named_until_ms};
    memset(out, 0, ARCHIVE_FOOTER_BYTES);
    memcpy(out, footer_magic, sizeof footer_magic);
    for (size_t i = 0; i < COUNT_OF(wide); i++)
        store_u64(out + 8 + 8 * i, wide[i]);
    store_u32(out + 112, footer->data_blocks);
    store_u32(out + 116, footer->directory_blocks);
    store_u32(out + 120, footer->table_blocks);
    store_u32(out + 124, footer->print_blocks);
    store_u32(out + 128, footer->filter_bytes);
    store_u64(out + 132, header->nonce);
    store_u32(out + 140, header->lane);
    store_u32(out + 144, header->level);
    store_u32(out + 148, crc32c(key.crc, bytes_of(out, 148)));
}

void archive_footer_header(struct archive_header *header, const uint8_t in[ARCHIVE_FOOTER_BYTES])
{
    header->nonce = load_u64(in + 132);
    header->lane = load_u32(in + 140);
    header->level = load_u32(in + 144);
}

enum err archive_footer_decode(struct archive_footer *footer,
                               const uint8_t in[ARCHIVE_FOOTER_BYTES],
                               const struct archive_header *header)
{
    const struct segment_key key = archive_key(header);
    struct archive_header same = *header;
    archive_footer_header(&same, in);
    if (memcmp(in, footer_magic, sizeof footer_magic) != 0 ||
        load_u32(in + 148) != crc32c(key.crc, bytes_of(in, 148)) || same.nonce != header->nonce ||
        same.lane != header->lane || same.level != header->level)
        return ERR_CORRUPT;
    *footer = (struct archive_footer){
        .summary = load_u64(in + 8),
        .bytes = load_u64(in + 16),
        .records = load_u64(in + 24),
        .watermarks = load_u64(in + 32),
        .gone = load_u64(in + 40),
        .conversations = load_u64(in + 48),
        .damaged = load_u64(in + 56),
        .time_min_ms = load_u64(in + 64),
        .time_max_ms = load_u64(in + 72),
        .expires_min_ms = load_u64(in + 80),
        .settings = load_u64(in + 88),
        .named = load_u64(in + 96),
        .named_until_ms = load_u64(in + 104),
        .data_blocks = load_u32(in + 112),
        .directory_blocks = load_u32(in + 116),
        .table_blocks = load_u32(in + 120),
        .print_blocks = load_u32(in + 124),
        .filter_bytes = load_u32(in + 128),
    };
    bool sound = footer->summary >= ARCHIVE_HEADER_BYTES && footer->summary % 8 == 0 &&
                 footer->bytes > footer->summary && footer->filter_bytes >= 64 &&
                 footer->filter_bytes <= ARCHIVE_FILTER_MAX &&
                 (footer->filter_bytes & (footer->filter_bytes - 1)) == 0 &&
                 footer->settings <= footer->records && footer->named <= footer->gone;
    return sound ? OK : ERR_CORRUPT;
}

void archive_head_encode(uint8_t *out, struct archive_block *block, struct bytes content,
                         const struct segment_key *key, uint64_t offset)
{
    uint32_t seed = seed_at(key, offset);
    block->crc = crc32c(seed, content);
    memset(out, 0, ARCHIVE_HEAD_BYTES);
    store_u32(out + 4, block->crc);
    out[8] = (uint8_t)block->kind;
    out[9] = (uint8_t)block->codec;
    store_u32(out + 12, block->stored);
    store_u32(out + 16, block->raw);
    store_u32(out + 20, block->count);
    store_u32(out + 24, block->number);
    store_u32(out, crc32c(seed, bytes_of(out + 4, ARCHIVE_HEAD_BYTES - 4)));
}

enum err archive_head_decode(struct archive_block *block, const uint8_t *head,
                             const struct segment_key *key, uint64_t offset)
{
    if (load_u32(head) != crc32c(seed_at(key, offset), bytes_of(head + 4, ARCHIVE_HEAD_BYTES - 4)))
        return ERR_CORRUPT;
    bool sound = head[8] >= ARCHIVE_DATA && head[8] <= ARCHIVE_STATES && head[9] <= ARCHIVE_ZSTD &&
                 load_u16(head + 10) == 0 && load_u32(head + 28) == 0;
    *block = (struct archive_block){
        .kind = (enum archive_kind)head[8],
        .codec = (enum archive_codec)head[9],
        .stored = load_u32(head + 12),
        .raw = load_u32(head + 16),
        .count = load_u32(head + 20),
        .number = load_u32(head + 24),
        .crc = load_u32(head + 4),
    };
    sound = sound && block->stored <= ARCHIVE_RAW_MAX && block->raw <= ARCHIVE_RAW_MAX &&
            (block->codec == ARCHIVE_ZSTD || block->raw == block->stored);
    return sound ? OK : ERR_CORRUPT;
}

enum err archive_block_decode(struct archive_block *block, struct bytes *content, struct bytes data,
                              const struct segment_key *key, uint64_t offset)
{
    if (data.size < ARCHIVE_HEAD_BYTES)
        return ERR_CORRUPT;
    TRY(archive_head_decode(block, data.data, key, offset));
    if (block->stored > data.size - ARCHIVE_HEAD_BYTES)
        return ERR_CORRUPT;
    *content = bytes_of(data.data + ARCHIVE_HEAD_BYTES, block->stored);
    return crc32c(seed_at(key, offset), *content) == block->crc ? OK : ERR_CORRUPT;
}

enum err archive_inflate(struct bytes *raw, const struct archive_block *block, struct bytes content,
                         struct buffer *scratch)
{
    if (block->codec == ARCHIVE_PLAIN) {
        *raw = content;
        return OK;
    }
    if (scratch->capacity < block->raw) {
        uint8_t *grown = memory_resize(scratch->data, block->raw, MEMORY_STORE);
        if (grown == NULL)
            return ERR_NO_MEMORY;
        scratch->data = grown;
        scratch->capacity = block->raw;
    }
    size_t size = ZSTD_decompress(scratch->data, block->raw, content.data, content.size);
    if (ZSTD_isError(size) || size != block->raw)
        return ERR_CORRUPT;
    *raw = bytes_of(scratch->data, size);
    return OK;
}

enum err archive_record_next(struct log_record *record, struct bytes *encoded,
                             struct bytes *content, const struct segment_key *key)
{
    if (content->size == 0)
        return ERR_NOT_FOUND;
    size_t taken;
    TRY(record_decode(record, *content, key, 0, &taken));
    *encoded = bytes_of(content->data, taken);
    *content = bytes_skip(*content, taken);
    return OK;
}

void gone_encode(uint8_t out[GONE_BODY_BYTES], const struct gone_range *gone)
{
    store_u64(out, gone->last);
    store_u32(out + 8, gone->reason);
    store_u16(out + 12, gone->kind);
    store_u16(out + 14, 0);
}

/* name_sound: it names one message, or none. */
static bool name_sound(const struct gone_range *gone, const struct log_record *record)
{
    if (!gone_named(record))
        return gone->kind == 0;
    return gone->last == record->seq && gone->reason != GONE_DAMAGED && record->expires_ms != 0 &&
           record_has_seq(gone->kind) && gone->kind != RECORD_GONE && gone->kind != RECORD_LOST;
}

enum err gone_decode(struct gone_range *gone, const struct log_record *record)
{
    if (record->kind != RECORD_GONE || record->body.size != GONE_BODY_BYTES)
        return ERR_CORRUPT;
    uint32_t reason = load_u32(record->body.data + 8);
    gone->last = load_u64(record->body.data);
    gone->reason = (enum gone_reason)reason;
    gone->kind = load_u16(record->body.data + 12);
    bool sound = reason >= GONE_EXPIRED && reason <= GONE_DAMAGED && gone->last >= record->seq;
    return sound && name_sound(gone, record) ? OK : ERR_CORRUPT;
}

struct log_record gone_name(uint8_t body[GONE_BODY_BYTES], const struct log_record *record,
                            enum gone_reason reason, uint64_t until_ms)
{
    const struct gone_range range = {.last = record->seq, .reason = reason, .kind = record->kind};
    struct log_record named = *record;
    gone_encode(body, &range);
    named.kind = RECORD_GONE;
    named.key = 0;
    named.expires_ms = until_ms;
    named.body = bytes_of(body, GONE_BODY_BYTES);
    return named;
}

enum err gone_given(struct log_record *given, const struct log_record *record)
{
    struct gone_range gone;
    TRY(gone_decode(&gone, record));
    *given = *record;
    given->kind = gone_named(record) ? RECORD_MESSAGE : RECORD_LOST;
    given->seq = gone.last;
    given->body = bytes_of(NULL, 0);
    return OK;
}

/* ---- entries and rows */

void archive_entry_encode(uint8_t out[ARCHIVE_ENTRY_BYTES], const struct archive_entry *entry)
{
    store_u64(out, entry->conversation.hi);
    store_u64(out + 8, entry->conversation.lo);
    store_u64(out + 16, entry->first_seq);
    store_u64(out + 24, entry->last_seq);
    store_u64(out + 32, entry->offset);
    store_u32(out + 40, entry->stored);
    store_u32(out + 44, entry->first_block);
    store_u32(out + 48, entry->blocks);
    store_u32(out + 52, entry->records);
    store_u64(out + 56, entry->first_print);
    store_u32(out + 64, entry->prints);
    store_u32(out + 68, 0);
}

void archive_entry_decode(struct archive_entry *entry, const uint8_t in[ARCHIVE_ENTRY_BYTES])
{
    *entry = (struct archive_entry){
        .conversation = {load_u64(in), load_u64(in + 8)},
        .first_seq = load_u64(in + 16),
        .last_seq = load_u64(in + 24),
        .offset = load_u64(in + 32),
        .stored = load_u32(in + 40),
        .first_block = load_u32(in + 44),
        .blocks = load_u32(in + 48),
        .records = load_u32(in + 52),
        .first_print = load_u64(in + 56),
        .prints = load_u32(in + 64),
    };
}

bool archive_entry_sound(const struct archive *archive, const struct archive_entry *entry)
{
    const struct archive_footer *footer = &archive->footer;
    uint64_t prints = (uint64_t)footer->print_blocks * ARCHIVE_PAGE_PRINTS;
    if (entry->blocks == 0) /* of a conversation that has only a state */
        return entry->first_seq == 0 && entry->last_seq == 0 && entry->prints == 0;
    return (uint64_t)entry->first_block + entry->blocks <= footer->data_blocks &&
           entry->stored >= ARCHIVE_HEAD_BYTES && entry->offset < footer->summary &&
           entry->stored <= footer->summary - entry->offset && entry->first_print <= prints &&
           entry->prints <= prints - entry->first_print && entry->first_seq != 0 &&
           entry->first_seq <= entry->last_seq;
}

void archive_row_encode(uint8_t out[ARCHIVE_ROW_BYTES], const struct archive_row *row)
{
    store_u64(out, row->conversation.hi);
    store_u64(out + 8, row->conversation.lo);
    store_u64(out + 16, row->seq);
    store_u64(out + 24, row->offset);
    store_u32(out + 32, row->bytes);
    store_u32(out + 36, row->count);
}

void archive_row_decode(struct archive_row *row, const uint8_t in[ARCHIVE_ROW_BYTES])
{
    *row = (struct archive_row){
        .conversation = {load_u64(in), load_u64(in + 8)},
        .seq = load_u64(in + 16),
        .offset = load_u64(in + 24),
        .bytes = load_u32(in + 32),
        .count = load_u32(in + 36),
    };
}
