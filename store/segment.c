/* segment.c: the log's format, version 1. All integers little-endian except conversation ids
 * (store/ids.h); "crc" is CRC-32C. A position is segment id << 32 | offset in the file.
 *
 * Segment file "%08x.segment" (id): pre-written with zeros to its full size before its first use.
 *
 *   0     header
 *   4096  the same header again
 *   8192  batch, batch, … each at a multiple of 4096; after the last one zeros to the end
 *
 * Segment header, 4096 bytes. Magic, version and crc keep their place and rule in all versions.
 *   0  8  magic "ROOSTLOG"
 *   8  2  version, 1
 *  10  2  flags, 0
 *  12  4  lane
 *  16  4  segment id
 *  20  4  block size, 4096
 *  24  8  file size in bytes
 *  32  8  base position: that of the first batch
 *  40  8  nonce: random for each life of the file. It seeds every checksum below, so that neither a
 *         block of the file's earlier life nor a client's bytes in a body can pass for a header.
 *  48  8  created, ms since 1970
 *  56  4  0
 *  60  4  crc of the bytes before
 *  64     zeros to 4096
 *
 * Batch header, 72 bytes. Its checksum is its own, so that its length may be trusted before use.
 *   0  4  magic "RBAT"
 *   4  4  crc of bytes 8 … 71, seeded for its position
 *   8  8  position
 *  16  8  end of the batch before it (another segment's, for the first one)
 *  24  8  durable_before: all below this position was durable when the batch was written
 *  32  8  writer epoch
 *  40  8  wall clock, ms since 1970
 *  48  8  records in the lane before this batch: what is lost between two batches can be counted
 *  56  4  records in this batch; 0: a mark that what is before it is durable
 *  60  4  length: from here to the end of the last record
 *  64  4  lane
 *  68  4  flags, 0
 *  72     records; then zeros to a multiple of 4096
 *
 * Record, at a multiple of 8.
 *   0  4  crc of all bytes from 4 to the end of the padding, seeded for its position
 *   4  4  size: 88 + body, without padding
 *   8  2  kind (enum record_kind)
 *  10  2  flags, 0
 *  12  4  realm
 *  16  4  key id, 0: body in clear
 *  20  4  device
 *  24 16  conversation
 *  40  8  sequence number
 *  48  8  sender
 *  56 16  message id
 *  72  8  time, ms since 1970
 *  80  8  expiry, ms since 1970, 0: never
 *  88     body, then zeros to a multiple of 8
 *
 * The seed of a checksum for a position: crc of the nonce's 8 bytes, xor the upper half of position
 * × 0x9e3779b97f4a7c15 mod 2^64: a block that stands where it was not written does not fit.
 *
 * What is 0 here must be 0: a later version that uses it raises the version. */
#include "store/segment.h"

#include "core/hash.h"

#define BATCH_MAGIC 0x54414252u

static const uint8_t segment_magic[8] = {'R', 'O', 'O', 'S', 'T', 'L', 'O', 'G'};

struct segment_key segment_key_of(const struct segment_header *header)
{
    uint8_t nonce[8];
    store_u64(nonce, header->nonce);
    return (struct segment_key){header->id, crc32c(0, bytes_of(nonce, sizeof nonce)),
                                header->nonce};
}

static uint32_t seed_at(const struct segment_key *key, uint32_t offset)
{
    return key->crc ^ (uint32_t)(position_of(key->id, offset) * 0x9e3779b97f4a7c15ull >> 32);
}

void segment_header_encode(uint8_t *out, const struct segment_header *header)
{
    memset(out, 0, SEGMENT_DATA_OFFSET);
    memcpy(out, segment_magic, sizeof segment_magic);
    store_u16(out + 8, SEGMENT_VERSION);
    store_u32(out + 12, header->lane);
    store_u32(out + 16, header->id);
    store_u32(out + 20, SEGMENT_BLOCK);
    store_u64(out + 24, header->bytes);
    store_u64(out + 32, position_of(header->id, SEGMENT_DATA_OFFSET));
    store_u64(out + 40, header->nonce);
    store_u64(out + 48, header->created_ms);
    store_u32(out + 60, crc32c(0, bytes_of(out, 60)));
    memcpy(out + SEGMENT_BLOCK, out, SEGMENT_BLOCK);
}

enum err segment_header_decode(struct segment_header *header, const uint8_t *block)
{
    if (memcmp(block, segment_magic, sizeof segment_magic) != 0 ||
        load_u32(block + 60) != crc32c(0, bytes_of(block, 60)))
        return ERR_CORRUPT;
    if (load_u16(block + 8) > SEGMENT_VERSION)
        return ERR_NEWER;
    *header = (struct segment_header){
        .lane = load_u32(block + 12),
        .id = load_u32(block + 16),
        .bytes = load_u64(block + 24),
        .nonce = load_u64(block + 40),
        .created_ms = load_u64(block + 48),
    };
    bool sound = load_u16(block + 8) == SEGMENT_VERSION && load_u16(block + 10) == 0 &&
                 load_u32(block + 20) == SEGMENT_BLOCK && load_u32(block + 56) == 0 &&
                 load_u64(block + 32) == position_of(header->id, SEGMENT_DATA_OFFSET) &&
                 header->id != 0 && header->bytes >= SEGMENT_BYTES_MIN &&
                 header->bytes <= SEGMENT_BYTES_MAX && header->bytes % SEGMENT_BLOCK == 0;
    return sound ? OK : ERR_CORRUPT;
}

void batch_header_encode(uint8_t *out, const struct batch_header *header,
                         const struct segment_key *key)
{
    store_u32(out, BATCH_MAGIC);
    store_u64(out + 8, header->position);
    store_u64(out + 16, header->previous_end);
    store_u64(out + 24, header->durable_before);
    store_u64(out + 32, header->writer_epoch);
    store_u64(out + 40, header->wall_ms);
    store_u64(out + 48, header->record_base);
    store_u32(out + 56, header->records);
    store_u32(out + 60, header->length);
    store_u32(out + 64, header->lane);
    store_u32(out + 68, 0);
    store_u32(out + 4, crc32c(seed_at(key, position_offset(header->position)),
                              bytes_of(out + 8, BATCH_HEADER_BYTES - 8)));
}

enum err batch_header_decode(struct batch_header *header, const uint8_t *data,
                             const struct segment_key *key, uint32_t offset, uint64_t segment_bytes)
{
    if (load_u32(data) != BATCH_MAGIC ||
        load_u32(data + 4) !=
            crc32c(seed_at(key, offset), bytes_of(data + 8, BATCH_HEADER_BYTES - 8)))
        return ERR_CORRUPT;
    *header = (struct batch_header){
        .position = load_u64(data + 8),
        .previous_end = load_u64(data + 16),
        .durable_before = load_u64(data + 24),
        .writer_epoch = load_u64(data + 32),
        .wall_ms = load_u64(data + 40),
        .record_base = load_u64(data + 48),
        .records = load_u32(data + 56),
        .length = load_u32(data + 60),
        .lane = load_u32(data + 64),
    };
    bool sound = header->position == position_of(key->id, offset) &&
                 header->previous_end <= header->position &&
                 header->durable_before <= header->position &&
                 header->length >= BATCH_HEADER_BYTES && offset <= segment_bytes &&
                 header->length <= segment_bytes - offset &&
                 header->length % RECORD_ALIGNMENT == 0 && load_u32(data + 68) == 0 &&
                 header->records <= (header->length - BATCH_HEADER_BYTES) / RECORD_HEADER_BYTES;
    return sound ? OK : ERR_CORRUPT;
}

void record_copy(uint8_t *out, const struct log_record *record)
{
    size_t size = RECORD_HEADER_BYTES + record->body.size;
    size_t padded = record_bytes(record->body.size);
    store_u32(out + 4, (uint32_t)size);
    store_u16(out + 8, record->kind);
    store_u16(out + 10, 0);
    store_u32(out + 12, record->realm.v);
    store_u32(out + 16, record->key);
    store_u32(out + 20, record->device.v);
    conversation_id_encode(out + 24, record->conversation);
    store_u64(out + 40, record->seq);
    store_u64(out + 48, record->sender.v);
    memcpy(out + 56, record->message_id.v, sizeof record->message_id.v);
    store_u64(out + 72, record->time_ms);
    store_u64(out + 80, record->expires_ms);
    if (record->body.size != 0)
        memcpy(out + RECORD_HEADER_BYTES, record->body.data, record->body.size);
    memset(out + size, 0, padded - size);
}

void record_seal(uint8_t *out, size_t size, const struct segment_key *key, uint32_t offset)
{
    store_u32(out, crc32c(seed_at(key, offset), bytes_of(out + 4, size - 4)));
}

void record_encode(uint8_t *out, const struct log_record *record, const struct segment_key *key,
                   uint32_t offset)
{
    record_copy(out, record);
    record_seal(out, record_bytes(record->body.size), key, offset);
}

enum err record_parse(struct log_record *record, struct bytes data, size_t *taken)
{
    if (data.size < RECORD_HEADER_BYTES)
        return ERR_CORRUPT;
    const uint8_t *p = data.data;
    size_t size = load_u32(p + 4);
    if (size < RECORD_HEADER_BYTES || align_up(size, RECORD_ALIGNMENT) > data.size)
        return ERR_CORRUPT;
    *record = (struct log_record){
        .realm = {load_u32(p + 12)},
        .key = load_u32(p + 16),
        .kind = load_u16(p + 8),
        .expires_ms = load_u64(p + 80),
        .conversation = conversation_id_decode(p + 24),
        .seq = load_u64(p + 40),
        .sender = {load_u64(p + 48)},
        .device = {load_u32(p + 20)},
        .time_ms = load_u64(p + 72),
        .body = bytes_of(p + RECORD_HEADER_BYTES, size - RECORD_HEADER_BYTES),
    };
    memcpy(record->message_id.v, p + 56, sizeof record->message_id.v);
    *taken = align_up(size, RECORD_ALIGNMENT);
    return OK;
}

enum err record_decode(struct log_record *record, struct bytes data, const struct segment_key *key,
                       uint32_t offset, size_t *taken)
{
    size_t padded;
    TRY(record_parse(record, data, &padded));
    if (load_u32(data.data) != crc32c(seed_at(key, offset), bytes_of(data.data + 4, padded - 4)))
        return ERR_CORRUPT;
    *taken = padded;
    return OK;
}

enum err log_record_next(struct bytes *encoded, struct log_record *out)
{
    size_t taken;
    if (encoded->size == 0)
        return ERR_NOT_FOUND;
    TRY(record_parse(out, *encoded, &taken));
    *encoded = bytes_skip(*encoded, taken);
    return OK;
}

void segment_name(char out[SEGMENT_NAME_BYTES], uint32_t id, const char *suffix)
{
    static const char digits[] = "0123456789abcdef";
    size_t size = strlen(suffix);
    CHECK(8 + size < SEGMENT_NAME_BYTES);
    for (uint32_t i = 0; i < 8; i++)
        out[i] = digits[id >> (28 - 4 * i) & 15];
    memcpy(out + 8, suffix, size + 1);
}

enum err segment_name_parse(uint32_t *id, const char *name, const char *suffix)
{
    uint32_t value = 0;
    for (uint32_t i = 0; i < 8; i++) {
        char c = name[i];
        if (c >= '0' && c <= '9')
            value = value << 4 | (uint32_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            value = value << 4 | (uint32_t)(c - 'a' + 10);
        else
            return ERR_INVALID;
    }
    if (value == 0 || strcmp(name + 8, suffix) != 0)
        return ERR_INVALID;
    *id = value;
    return OK;
}
