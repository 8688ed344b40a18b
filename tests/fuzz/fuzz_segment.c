/* fuzz_segment.c: segment, batch and record decoders. Checksums are repaired first in every other
 * input, so that what is behind them is reached; what decodes must encode to the same bytes. */
#include "core/hash.h"
#include "core/memory.h"
#include "store/segment.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_header(const uint8_t *data, size_t size, bool repair)
{
    static uint8_t block[SEGMENT_BLOCK];
    static uint8_t again[SEGMENT_DATA_OFFSET];
    struct segment_header header;
    memset(block, 0, sizeof block);
    memcpy(block, data, size < sizeof block ? size : sizeof block);
    if (repair) {
        memcpy(block, "ROOSTLOG", 8);
        store_u32(block + 60, crc32c(0, bytes_of(block, 60)));
    }
    if (segment_header_decode(&header, block) != OK)
        return;
    segment_header_encode(again, &header);
    CHECK(memcmp(again, block, 64) == 0);
}

static void try_batch(const struct segment_key *key, uint8_t *data, bool repair)
{
    struct batch_header header;
    uint8_t again[BATCH_HEADER_BYTES];
    if (repair) {
        /* encode what it says, with a checksum that fits */
        header = (struct batch_header){.position = position_of(key->id, SEGMENT_DATA_OFFSET),
                                       .previous_end = load_u64(data + 16),
                                       .durable_before = load_u64(data + 24),
                                       .records = load_u32(data + 56),
                                       .length = load_u32(data + 60)};
        batch_header_encode(data, &header, key);
    }
    if (batch_header_decode(&header, data, key, SEGMENT_DATA_OFFSET, 1 << 20) != OK)
        return;
    CHECK(header.length <= (1 << 20) - SEGMENT_DATA_OFFSET);
    batch_header_encode(again, &header, key);
    CHECK(memcmp(again, data, sizeof again) == 0);
}

static void try_records(const struct segment_key *key, struct bytes data)
{
    struct log_record record;
    size_t taken;
    static uint8_t again[1 << 17];
    if (record_decode(&record, data, key, 8192, &taken) == OK)
        CHECK(taken <= data.size);
    while (log_record_next(&data, &record) == OK)
        if (record_bytes(record.body.size) <= sizeof again) {
            record_encode(again, &record, key, 4096 * 3);
            struct bytes encoded = bytes_of(again, record_bytes(record.body.size));
            struct log_record decoded;
            CHECK(record_decode(&decoded, encoded, key, 4096 * 3, &taken) == OK);
            CHECK(taken == encoded.size && decoded.seq == record.seq &&
                  bytes_equal(decoded.body, record.body));
            CHECK(record_decode(&decoded, encoded, key, 4096 * 3 + 8, &taken) == ERR_CORRUPT);
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < BATCH_HEADER_BYTES + 1)
        return 0;
    struct segment_header header = {.id = 3, .bytes = 1 << 20, .nonce = load_u64(data)};
    struct segment_key key = segment_key_of(&header);
    bool repair = data[0] % 2 == 0;
    uint8_t batch[BATCH_HEADER_BYTES];
    memcpy(batch, data + 1, sizeof batch);
    try_header(data + 1, size - 1, repair);
    try_batch(&key, batch, repair);
    try_records(&key, bytes_of(data + 1, size - 1));
    return 0;
}
