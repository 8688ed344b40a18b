/* test_index.c: the index of an unsealed segment and its sorted form, against plain arrays. */
#include "core/memory.h"
#include "store/sidecar.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define CONVERSATIONS 20
#define RECORDS       6000

static struct log_record record_of(uint64_t conversation, uint64_t seq)
{
    struct log_record record = {.kind = RECORD_MESSAGE,
                                .conversation = {conversation % 3, conversation},
                                .seq = seq,
                                .sender = {conversation + 5},
                                .device = {2}};
    store_u64(record.message_id.v, conversation + 1);
    store_u64(record.message_id.v + 8, seq);
    return record;
}

struct fixture {
    struct index *index;
    struct segment_header header;
    struct segment_key key;
    uint64_t newest[CONVERSATIONS];
    uint32_t offsets[CONVERSATIONS][RECORDS];
};

static struct fixture f;

static int setup(void **state)
{
    (void)state;
    f.header = (struct segment_header){.id = 7, .bytes = 4 << 20, .nonce = 0x1234567};
    f.key = segment_key_of(&f.header);
    memset(f.newest, 0, sizeof f.newest);
    assert_int_equal(index_create(&f.index, &f.key, f.header.bytes), OK);
    for (uint32_t i = 0; i < RECORDS; i++) {
        uint32_t c = i % 97 < 60 ? 0 : i * 7 % CONVERSATIONS; /* one big conversation */
        struct log_record record = record_of(c, ++f.newest[c]);
        uint32_t offset = SEGMENT_DATA_OFFSET + i * 96;
        assert_int_equal(index_add(f.index, &record, offset, 96), OK);
        f.offsets[c][f.newest[c]] = offset;
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    index_destroy(f.index);
    assert_int_equal(memory_bytes(MEMORY_STORE), 0);
    return 0;
}

static void test_every_range(void **state)
{
    (void)state;
    struct index_hit hits[50];
    for (uint32_t c = 0; c < CONVERSATIONS; c++) {
        struct conversation_id id = record_of(c, 1).conversation;
        for (uint64_t from = 1; from <= f.newest[c] + 2; from++) {
            bool before;
            uint32_t most = 1 + (uint32_t)from % 50;
            uint32_t count = index_range(f.index, id, from, UINT32_MAX, hits, most, &before);
            uint64_t left = from > f.newest[c] ? 0 : f.newest[c] + 1 - from;
            assert_int_equal(count, left < most ? left : most);
            assert_int_equal(before, from > 1);
            for (uint32_t i = 0; i < count; i++) {
                assert_int_equal(hits[i].seq, from + i);
                assert_int_equal(hits[i].offset, f.offsets[c][from + i]);
            }
            uint32_t below = f.offsets[c][f.newest[c] / 2];
            count = index_range(f.index, id, from, below, hits, most, &before);
            for (uint32_t i = 0; i < count; i++)
                assert_true(hits[i].offset < below);
        }
    }
    bool before;
    struct conversation_id none = {9, 9};
    assert_int_equal(index_range(f.index, none, 1, UINT32_MAX, hits, 50, &before), 0);
    assert_false(before);
}

static void test_search_is_short(void **state)
{
    (void)state;
    uint32_t at = f.index->entry_count - 1;
    while (index_entry(f.index, at)->depth < 3000)
        at--;
    uint32_t steps = 0;
    for (; index_entry(f.index, at)->older != INDEX_NONE; steps++)
        at = index_entry(f.index, at)->jump; /* never INDEX_NONE where there is an older one */
    assert_true(steps <= 24);
}

static void test_find(void **state)
{
    (void)state;
    struct index_hit hits[4];
    struct log_record record = record_of(0, 100);
    uint32_t print =
        message_print(&f.key, record.conversation, record.sender, record.device, record.message_id);
    assert_int_equal(index_find(f.index, print, UINT32_MAX, hits, 4), 1);
    assert_int_equal(hits[0].offset, f.offsets[0][100]);
    assert_int_equal(index_find(f.index, print, f.offsets[0][100], hits, 4), 0);
    record.device.v++;
    print =
        message_print(&f.key, record.conversation, record.sender, record.device, record.message_id);
    assert_int_equal(index_find(f.index, print, UINT32_MAX, hits, 4), 0);
}

static void test_descending_is_refused(void **state)
{
    (void)state;
    struct log_record record = record_of(0, f.newest[0]);
    assert_int_equal(index_add(f.index, &record, 1 << 20, 96), ERR_INVALID);
    record.kind = RECORD_WATERMARK;
    uint32_t count = f.index->entry_count;
    assert_int_equal(index_add(f.index, &record, 1 << 20, 96), OK);
    assert_int_equal(f.index->entry_count, count);
}

static void test_sidecar_is_sorted_and_complete(void **state)
{
    (void)state;
    struct bytes file;
    assert_int_equal(sidecar_build(&file, &f.header, f.index, 1 << 20), OK);
    assert_int_equal(file.size % SEGMENT_BLOCK, 0);
    uint32_t blocks = load_u32(file.data + 28);
    uint32_t seen = 0;
    uint64_t last[3] = {0, 0, 0};
    for (uint32_t block = 1; block <= blocks; block++) {
        const uint8_t *p = file.data + (size_t)block * SEGMENT_BLOCK;
        uint32_t count = load_u32(p + 4);
        p += 8;
        for (uint32_t i = 0; i < count; i++, p += 32, seen++) {
            uint64_t now[3] = {load_u64(p), load_u64(p + 8), load_u64(p + 16)};
            bool ascends = now[0] != last[0]   ? now[0] > last[0]
                           : now[1] != last[1] ? now[1] > last[1]
                                               : now[2] > last[2];
            assert_true(ascends);
            assert_int_equal(load_u32(p + 24), f.offsets[now[1]][now[2]]);
            memcpy(last, now, sizeof last);
        }
    }
    assert_int_equal(seen, RECORDS);
    union {
        const uint8_t *in;
        void *out;
    } memory = {.in = file.data};
    memory_give(memory.out, MEMORY_STORE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        TEST(test_every_range),
        TEST(test_search_is_short),
        TEST(test_find),
        TEST(test_descending_is_refused),
        TEST(test_sidecar_is_sorted_and_complete),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
