/* fuzz_sidecar.c: the index file of a sealed segment, damaged as the input says (offset, length,
 * kind of damage). With the checksums as they are, a look-up says what was written or ERR_CORRUPT;
 * with checksums made to fit the damage (every other input) it may say anything, but stays within
 * its bounds. So with the places made of it. Linked with the disk of tests/unit/fault_io.c. */
#include "core/hash.h"
#include "core/memory.h"
#include "store/places.h"
#include "store/sidecar.h"
#include "tests/unit/fault_io.h"

#include <stdlib.h>

#define CONVERSATIONS 40u
#define RECORDS       1500u
#define DIRECTORY     "disk"
#define WOUND_BYTES   6

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct good {
    struct segment_header header;
    struct segment_key key;
    uint8_t *copy;                            /* of the file, before any damage */
    uint32_t offsets[CONVERSATIONS][RECORDS]; /* by sequence number; 0: none */
    uint64_t newest[CONVERSATIONS];
    uint8_t read[SIDECAR_READ_BYTES];
    struct index_hit hits[SIDECAR_HITS];
};

static struct conversation_id conversation_of(uint32_t c)
{
    return (struct conversation_id){c % 3, c};
}

static struct log_record record_of(uint32_t c, uint64_t seq)
{
    struct log_record record = {.kind = RECORD_MESSAGE,
                                .conversation = conversation_of(c),
                                .seq = seq,
                                .sender = {c + 5},
                                .device = {2}};
    store_u64(record.message_id.v, c + 1);
    store_u64(record.message_id.v + 8, seq);
    return record;
}

static uint8_t *index_file(const struct good *good, uint64_t *bytes)
{
    char path[STORE_PATH_BYTES];
    CHECK(store_path(path, DIRECTORY, good->header.id, ".index") == OK);
    return fault_data(path, bytes);
}

static void build(struct good *good)
{
    struct index *index;
    fault_reset();
    good->header = (struct segment_header){.id = 7, .bytes = 4 << 20, .nonce = 0x1234567};
    good->key = segment_key_of(&good->header);
    CHECK(index_create(&index, &good->key, good->header.bytes) == OK);
    for (uint32_t i = 0; i < RECORDS; i++) {
        uint32_t c = i % 7 < 3 ? 0 : i * 7 % CONVERSATIONS; /* one over several blocks */
        struct log_record record = record_of(c, ++good->newest[c]);
        uint32_t offset = SEGMENT_DATA_OFFSET + i * 96;
        CHECK(index_add(index, &record, offset, 96) == OK);
        good->offsets[c][good->newest[c] - 1] = offset;
    }
    CHECK(sidecar_write(DIRECTORY, &good->header, index, SEGMENT_DATA_OFFSET + RECORDS * 96) == OK);
    index_destroy(index);
    uint64_t bytes;
    const uint8_t *file = index_file(good, &bytes);
    good->copy = malloc(bytes);
    CHECK(good->copy != NULL);
    memcpy(good->copy, file, bytes);
}

/* ---- damage */

static void wound(uint8_t *file, uint64_t bytes, const uint8_t *data)
{
    uint64_t at = (data[0] | (uint64_t)data[1] << 8 | (uint64_t)data[2] << 16) % bytes;
    uint64_t length = 1ull << data[4] % 13;
    if (length > bytes - at)
        length = bytes - at;
    uint64_t other = (at + SEGMENT_BLOCK) % (bytes - length + 1);
    switch (data[3] % 5) {
    case 0:
        file[at] ^= (uint8_t)(1 << data[4] % 8);
        break;
    case 1:
        memset(file + at, 0, length);
        break;
    case 2:
        memset(file + at, data[5], length);
        break;
    case 3:
        memmove(file + at, file + other, length);
        break;
    case 4: /* a field of the header or of an early block's head */
        store_u32(file + at % 64 / 4 * 4, load_u32(data + 2));
        break;
    }
}

/* repair: checksums that fit, as store/sidecar.c describes them. */
static void repair(const struct good *good, uint8_t *file, uint64_t bytes)
{
    uint64_t blocks = (uint64_t)load_u32(file + 28) + load_u32(file + 32);
    memcpy(file, "ROOSTIDX", 8);
    for (uint64_t n = 1; n <= blocks && (n + 1) * SEGMENT_BLOCK <= bytes; n++) {
        uint8_t *block = file + n * SEGMENT_BLOCK;
        uint8_t number[4];
        store_u32(number, (uint32_t)n);
        store_u32(block, crc32c(crc32c(good->key.crc, bytes_of(number, sizeof number)),
                                bytes_of(block + 4, SEGMENT_BLOCK - 4)));
    }
    uint64_t summary = (blocks + 1) * SEGMENT_BLOCK;
    if (summary < bytes)
        store_u32(file + 48, crc32c(good->key.crc, bytes_of(file + summary, bytes - summary)));
    store_u32(file + 60, crc32c(0, bytes_of(file, 60)));
}

static void damage(const struct good *good, const uint8_t *data, size_t size, bool fits)
{
    uint64_t bytes;
    uint8_t *file = index_file(good, &bytes);
    memcpy(file, good->copy, bytes);
    for (; size >= WOUND_BYTES; data += WOUND_BYTES, size -= WOUND_BYTES)
        wound(file, bytes, data);
    if (fits)
        repair(good, file, bytes);
}

/* ---- looking up */

static struct bytes read_where(struct good *good, const struct sidecar *sidecar, uint64_t offset,
                               size_t size)
{
    size_t done = 0;
    CHECK(size <= sizeof good->read && offset % SEGMENT_BLOCK == 0);
    CHECK(file_read(sidecar->fd, offset, good->read, size, &done) == OK);
    return bytes_of(good->read, done);
}

static void look_up_range(struct good *good, const struct sidecar *sidecar, uint32_t c,
                          uint64_t from, bool fits)
{
    uint64_t offset;
    size_t size;
    uint32_t count;
    bool before;
    struct conversation_id id = conversation_of(c);
    CHECK(fits || sidecar_may_hold(sidecar, id));
    sidecar_range_where(sidecar, id, from, &offset, &size);
    struct bytes read = read_where(good, sidecar, offset, size);
    enum err err =
        sidecar_range(sidecar, read, offset, id, from, good->hits, SIDECAR_HITS, &count, &before);
    CHECK(count <= SIDECAR_HITS && (err == OK || err == ERR_CORRUPT));
    if (fits || err != OK)
        return;
    CHECK(count > 0 && (from > 1 || !before)); /* from is one that is there */
    for (uint32_t i = 0; i < count; i++)
        CHECK(good->hits[i].seq == from + i && good->hits[i].size == 96 &&
              good->hits[i].offset == good->offsets[c][from + i - 1]);
}

static void look_up_print(struct good *good, const struct sidecar *sidecar, uint32_t c,
                          uint64_t seq, bool fits)
{
    uint64_t offset;
    size_t size;
    uint32_t count;
    bool found = false;
    struct log_record record = record_of(c, seq);
    uint32_t print = segment_print(&good->key, record.conversation, record.sender, record.device,
                                   record.message_id);
    sidecar_find_where(sidecar, print, &offset, &size);
    struct bytes read = read_where(good, sidecar, offset, size);
    enum err err = sidecar_find(sidecar, read, offset, print, good->hits, SIDECAR_HITS, &count);
    CHECK(count <= SIDECAR_HITS && (err == OK || err == ERR_CORRUPT));
    for (uint32_t i = 0; i < count; i++)
        found = found || good->hits[i].offset == good->offsets[c][seq - 1];
    CHECK(fits || err != OK || found);
}

/* look_up_places: as look_up_range, in what is made of the file. */
static void look_up_places(struct good *good, const struct places *places, uint32_t c,
                           uint64_t from, bool fits)
{
    uint32_t count;
    bool before;
    enum err err =
        places_range(places, conversation_of(c), from, good->hits, SIDECAR_HITS, &count, &before);
    CHECK(count <= SIDECAR_HITS && (err == OK || count == 0));
    if (fits)
        return;
    CHECK(err == OK && count > 0 && before == (from > 1));
    for (uint32_t i = 0; i < count; i++)
        CHECK(good->hits[i].seq == from + i && good->hits[i].size >= 96 &&
              good->hits[i].offset == good->offsets[c][from + i - 1]);
}

static void look_up(struct good *good, const struct sidecar *sidecar, const uint8_t *data,
                    bool fits)
{
    struct places *places = NULL;
    enum err err = places_build(&places, sidecar, 1 << 20);
    CHECK(err == OK || err == ERR_CORRUPT || err == ERR_FULL);
    for (uint32_t c = data[1] % 8; c < CONVERSATIONS; c += 8) {
        uint64_t seq = 1 + (data[2] | (uint64_t)data[3] << 8) % good->newest[c];
        look_up_range(good, sidecar, c, seq, fits);
        look_up_print(good, sidecar, c, seq, fits);
        if (places != NULL)
            look_up_places(good, places, c, seq, fits);
    }
    places_destroy(places);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct good good; /* one index is built, once, for all inputs */
    struct sidecar *sidecar;
    if (good.copy == NULL)
        build(&good);
    if (size < 4)
        return 0;
    if (size > 64)
        size = 64;
    bool fits = data[0] % 2 == 1;
    damage(&good, data + 4, size - 4, fits);
    enum err err = sidecar_load(&sidecar, DIRECTORY, &good.header);
    CHECK(err == OK || err == ERR_CORRUPT || err == ERR_NEWER);
    if (err == OK) {
        look_up(&good, sidecar, data, fits);
        sidecar_destroy(sidecar);
    }
    CHECK(fault_open_descriptors() == 0);
    return 0;
}
