/* test_index.c: the index of an unsealed segment and its sorted form, against a plain list of all
 * records: every range, every look-up; numbers with and without gaps, small, large and repeated
 * messages, the smallest and the largest segments; every allocation failing once; what it takes. */
#include "core/memory.h"
#include "store/sidecar.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define CONVERSATIONS 20
#define RECORDS       2500
#define HITS          60

struct model_record {
    uint32_t conversation;
    uint64_t seq;
    uint32_t offset;
    uint32_t size;
    uint32_t print;
    struct log_record record;
};

struct fixture {
    struct index *index;
    struct segment_header header;
    struct segment_key key;
    uint32_t count;
    struct model_record records[RECORDS];
    uint64_t newest[CONVERSATIONS];
    uint64_t random;
};

static struct fixture f;

static uint32_t below_random(uint32_t limit)
{
    f.random = f.random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(f.random >> 33) % limit;
}

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

static uint32_t print_of(const struct log_record *record)
{
    return segment_print(&f.key, record->conversation, record->sender, record->device,
                         record->message_id);
}

static void begin(uint64_t bytes)
{
    memset(&f, 0, sizeof f);
    f.random = bytes;
    f.header = (struct segment_header){.id = 7, .bytes = bytes, .nonce = 0x1234567};
    f.key = segment_key_of(&f.header);
    assert_int_equal(index_create(&f.index, &f.key, bytes), OK);
}

static uint32_t size_random(void)
{
    switch (below_random(8)) {
    case 0:
        return RECORD_HEADER_BYTES;
    case 1:
        return RECORD_HEADER_BYTES + RECORD_ALIGNMENT * below_random(1024); /* some are large */
    case 2: /* about where a place of a large segment ends */
        return RECORD_HEADER_BYTES + RECORD_ALIGNMENT * (10 + below_random(10));
    default:
        return RECORD_HEADER_BYTES + RECORD_ALIGNMENT * below_random(40);
    }
}

/* add: to the index and to the list. repeat: with the key of the conversation's record before. */
static void add(uint32_t conversation, uint64_t seq, bool repeat, bool named)
{
    struct model_record *r = &f.records[f.count];
    const struct model_record *last = f.count == 0 ? NULL : r - 1;
    *r = (struct model_record){.conversation = conversation,
                               .seq = seq,
                               .size = size_random(),
                               .record = record_of(conversation, seq)};
    r->offset = last == NULL ? SEGMENT_DATA_OFFSET : last->offset + last->size;
    r->offset += f.count % 50 == 0 ? 72 : 0;
    if (repeat)
        store_u64(r->record.message_id.v + 8, f.newest[conversation]);
    if (!named)
        memset(r->record.message_id.v, 0, sizeof r->record.message_id.v);
    r->print = print_of(&r->record);
    assert_true(r->offset + r->size <= f.header.bytes);
    if (below_random(3) == 0) /* a hint, right or wrong, changes nothing */
        index_expect(f.index, record_of(below_random(CONVERSATIONS), 1).conversation);
    assert_int_equal(index_add(f.index, &r->record, r->offset, r->size), OK);
    f.newest[conversation] = seq;
    f.count++;
}

/* fill: one big conversation and small ones; gaps: one number in so many is left out, 0: none. */
static void fill(uint64_t bytes, uint32_t gaps)
{
    begin(bytes);
    for (uint32_t i = 0; i < RECORDS; i++) {
        uint32_t c = i % 97 < 60 ? 0 : i * 7 % CONVERSATIONS;
        uint64_t seq = f.newest[c] + 1;
        if (f.newest[c] == 0)
            seq = c == 1 ? 1 : 1000 * c + 1; /* a conversation seldom begins in a segment */
        else if (gaps != 0 && below_random(gaps) == 0)
            seq += 1 + below_random(5);
        add(c, seq, i % 31 == 30, i % 13 != 12);
    }
}

static void end(void)
{
    index_destroy(f.index);
    assert_int_equal(memory_bytes(MEMORY_STORE), 0);
}

/* ---- against the list */

static void check_range(uint32_t c, uint64_t from, uint32_t below, uint32_t most)
{
    struct index_hit hits[HITS];
    struct index_hit expected[HITS];
    uint32_t count = 0;
    uint32_t taken = 0;
    bool expected_before = false;
    bool before;
    for (uint32_t i = 0; i < f.count; i++) {
        const struct model_record *r = &f.records[i];
        if (r->conversation != c)
            continue;
        expected_before = expected_before || r->seq < from;
        if (r->seq < from || taken == most)
            continue;
        taken++;
        if (r->offset < below)
            expected[count++] = (struct index_hit){r->seq, r->offset, r->size};
    }
    uint32_t got =
        index_range(f.index, record_of(c, 1).conversation, from, below, hits, most, &before);
    assert_int_equal(got, count);
    assert_int_equal(before, expected_before);
    for (uint32_t i = 0; i < count; i++) {
        assert_int_equal(hits[i].seq, expected[i].seq);
        assert_int_equal(hits[i].offset, expected[i].offset);
        assert_int_equal(hits[i].size, expected[i].size);
    }
}

static void check_ranges(void)
{
    for (uint32_t c = 0; c < CONVERSATIONS; c++) {
        uint64_t first = c == 1 ? 1 : 1000 * c + 1;
        for (uint64_t from = first - 1; from <= f.newest[c] + 2; from++)
            check_range(c, from, UINT32_MAX, 1 + (uint32_t)from % HITS);
        for (uint32_t i = 0; i < 300; i++) {
            uint64_t from = first + below_random((uint32_t)(f.newest[c] - first) + 3);
            check_range(c, from, f.records[below_random(f.count)].offset, 1 + below_random(HITS));
        }
        check_range(c, 0, UINT32_MAX, HITS);
        check_range(c, UINT64_MAX, UINT32_MAX, HITS);
        check_range(c, first, 0, HITS);
    }
    check_range(CONVERSATIONS + 4, 1, UINT32_MAX, HITS); /* there is none */
}

static void check_newest(void)
{
    for (uint32_t c = 0; c <= CONVERSATIONS; c++) {
        uint64_t newest = 0;
        struct conversation_id id = record_of(c, 1).conversation;
        for (uint32_t i = 0; i < f.count; i++) {
            if (i % 7 == c % 7)
                assert_int_equal(index_newest(f.index, id, f.records[i].offset), newest);
            if (f.records[i].conversation == c)
                newest = f.records[i].seq;
        }
        assert_int_equal(index_newest(f.index, id, UINT32_MAX), newest);
    }
}

/* check_find: exactly those of the conversation with that lower half, newest first. */
static void check_find(const struct log_record *record, uint32_t c, uint32_t below, uint32_t most)
{
    struct index_hit hits[HITS];
    uint32_t print = print_of(record);
    uint32_t count = index_find(f.index, record->conversation, print, below, hits, most);
    uint32_t at = 0;
    for (uint32_t i = f.count; i-- > 0 && at < most;) {
        const struct model_record *r = &f.records[i];
        bool fits = r->conversation == c && r->offset < below &&
                    message_id_given(r->record.message_id) && r->print == print;
        if (!fits)
            continue;
        assert_true(at < count);
        assert_int_equal(hits[at].offset, r->offset);
        assert_int_equal(hits[at].size, r->size);
        assert_int_equal(hits[at].seq, r->seq);
        at++;
    }
    assert_int_equal(at, count);
}

static void check_finds(void)
{
    uint32_t repeated = 0;
    for (uint32_t i = 0; i < f.count; i += 3) {
        const struct model_record *r = &f.records[i];
        struct index_hit hits[HITS];
        if (!message_id_given(r->record.message_id))
            continue;
        check_find(&r->record, r->conversation, UINT32_MAX, HITS);
        check_find(&r->record, r->conversation, UINT32_MAX, 1);
        check_find(&r->record, r->conversation, r->offset, HITS);
        repeated +=
            index_find(f.index, r->record.conversation, r->print, UINT32_MAX, hits, HITS) > 1;
        struct log_record other = r->record;
        other.device.v++;
        check_find(&other, r->conversation, UINT32_MAX, HITS);
        other.conversation.lo += 100;
        check_find(&other, CONVERSATIONS + 1, UINT32_MAX, HITS);
    }
    assert_true(repeated > 10);
}

static void check_sidecar(void)
{
    struct bytes file;
    assert_int_equal(sidecar_build(&file, &f.header, f.index, 1 << 20), OK);
    assert_int_equal(file.size % SEGMENT_BLOCK, 0);
    uint32_t entry_blocks = load_u32(file.data + 28);
    uint32_t seen = 0;
    uint64_t last[3] = {0, 0, 0};
    for (uint32_t block = 1; block <= entry_blocks; block++) {
        const uint8_t *p = file.data + (size_t)block * SEGMENT_BLOCK;
        uint32_t count = load_u32(p + 4);
        p += 8;
        for (uint32_t i = 0; i < count; i++, p += 32, seen++) {
            uint64_t now[3] = {load_u64(p), load_u64(p + 8), load_u64(p + 16)};
            bool ascends = now[0] != last[0]   ? now[0] > last[0]
                           : now[1] != last[1] ? now[1] > last[1]
                                               : now[2] > last[2];
            assert_true(ascends);
            uint32_t at = 0;
            while (f.records[at].conversation != now[1] || f.records[at].seq != now[2])
                assert_true(++at < f.count);
            assert_int_equal(load_u32(p + 24), f.records[at].offset);
            assert_int_equal(load_u32(p + 28), f.records[at].size);
            memcpy(last, now, sizeof last);
        }
    }
    assert_int_equal(seen, f.count);
    uint32_t named = 0;
    for (uint32_t i = 0; i < f.count; i++)
        named += message_id_given(f.records[i].record.message_id);
    assert_int_equal(load_u32(file.data + 44), named);
    for (uint32_t block = 0; block < load_u32(file.data + 32); block++) {
        const uint8_t *p = file.data + (size_t)(1 + entry_blocks + block) * SEGMENT_BLOCK;
        uint32_t count = load_u32(p + 4);
        p += 8;
        for (uint32_t i = 0; i < count; i++, p += 12, named--) {
            uint32_t at = 0;
            while (f.records[at].offset != load_u32(p + 4))
                assert_true(++at < f.count);
            assert_int_equal(load_u32(p), f.records[at].print);
            assert_int_equal(load_u32(p + 8), f.records[at].size);
        }
    }
    assert_int_equal(named, 0);
    union {
        const uint8_t *in;
        void *out;
    } memory = {.in = file.data};
    memory_give(memory.out, MEMORY_STORE);
}

static void check_all(uint64_t bytes, uint32_t gaps)
{
    fill(bytes, gaps);
    check_ranges();
    check_newest();
    check_finds();
    check_sidecar();
    end();
}

static void test_without_gaps(void **state)
{
    (void)state;
    check_all(8 << 20, 0);
}

static void test_with_gaps(void **state)
{
    (void)state;
    check_all(8 << 20, 10);
}

static void test_nothing_but_gaps(void **state)
{
    (void)state;
    check_all(64 << 20, 1);
}

static void test_largest_segment(void **state)
{
    (void)state;
    check_all(SEGMENT_BYTES_MAX, 20); /* 4 bits of a place are left for the size */
}

/* test_long_run: all extents up to those of one size; each record is found from everywhere. */
static void test_long_run(void **state)
{
    (void)state;
    const uint32_t records = 12000;
    begin(8 << 20);
    for (uint32_t i = 0; i < records; i++) {
        struct log_record record = record_of(1, 77 + i);
        assert_int_equal(index_add(f.index, &record, 8192 + i * 96, 96), OK);
        struct index_hit hits[3];
        bool before;
        for (uint32_t back = 1; back <= i; back += 1 + back / 2) {
            uint32_t count = index_range(f.index, record.conversation, 77 + i - back, UINT32_MAX,
                                         hits, 3, &before);
            assert_int_equal(count, back + 1 < 3 ? back + 1 : 3);
            assert_int_equal(hits[0].seq, 77 + i - back);
            assert_int_equal(hits[0].offset, 8192 + (i - back) * 96);
            assert_int_equal(hits[1].offset, 8192 + (i - back + 1) * 96);
            assert_int_equal(before, back < i);
        }
    }
    end();
}

static void test_refused(void **state)
{
    (void)state;
    fill(8 << 20, 0);
    struct log_record record = record_of(0, f.newest[0]);
    uint32_t count = f.index->entry_count;
    assert_int_equal(index_add(f.index, &record, 7 << 20, 96), ERR_INVALID);
    record.seq--;
    assert_int_equal(index_add(f.index, &record, 7 << 20, 96), ERR_INVALID);
    record.seq = UINT64_MAX;
    record.kind = RECORD_WATERMARK;
    assert_int_equal(index_add(f.index, &record, 7 << 20, 96), OK);
    assert_int_equal(f.index->entry_count, count);
    check_sidecar();
    end();
}

/* test_highest_number: nothing follows it, and ranges end. */
static void test_highest_number(void **state)
{
    (void)state;
    struct index_hit hits[4];
    bool before;
    begin(1 << 20);
    for (uint64_t i = 2; i-- > 0;) {
        struct log_record record = record_of(3, UINT64_MAX - i);
        assert_int_equal(index_add(f.index, &record, 8192 + 96 * (1 - (uint32_t)i), 96), OK);
    }
    struct log_record record = record_of(3, 0);
    assert_int_equal(index_add(f.index, &record, 9000, 96), ERR_INVALID);
    assert_int_equal(index_range(f.index, record.conversation, 0, UINT32_MAX, hits, 4, &before), 2);
    assert_int_equal(hits[1].seq, UINT64_MAX);
    assert_int_equal(index_newest(f.index, record.conversation, UINT32_MAX), UINT64_MAX);
    end();
}

/* test_every_allocation_fails_once: nothing is added then, and the next attempt goes on. */
static void test_every_allocation_fails_once(void **state)
{
    (void)state;
    uint32_t failed = 0;
    begin(64 << 20);
    for (uint32_t i = 0; i < RECORDS; i++) {
        uint32_t c = i * 7 % CONVERSATIONS;
        struct log_record record = record_of(c, f.newest[c] + 1 + i % 2);
        uint32_t before = f.index->entry_count;
        uint32_t offset = 8192 + i * 8000;
        uint32_t size = i % 3 == 0 ? 8000 : 96;
        memory_fail_at(1);
        enum err err = index_add(f.index, &record, offset, size);
        memory_fail_at(0);
        if (err != OK) {
            assert_int_equal(err, ERR_NO_MEMORY);
            assert_int_equal(f.index->entry_count, before);
            assert_int_equal(index_newest(f.index, record.conversation, UINT32_MAX), f.newest[c]);
            assert_int_equal(index_add(f.index, &record, offset, size), OK);
            failed++;
        }
        f.newest[c] = record.seq;
        assert_int_equal(index_newest(f.index, record.conversation, UINT32_MAX), record.seq);
    }
    assert_true(failed >= 3);
    end();
}

/* ---- what it takes */

/* memory_of: bytes per record of a full segment of 64 MiB; not random: they take turns. */
static double memory_of(uint32_t conversations, size_t body, bool random)
{
    uint64_t *newest = calloc(conversations, sizeof *newest);
    assert_non_null(newest);
    begin(64 << 20);
    uint32_t size = (uint32_t)record_bytes(body);
    uint32_t count = 0;
    for (uint32_t at = 8192; at + size <= f.header.bytes; at += size, count++) {
        uint32_t c = random ? below_random(conversations) : count % conversations;
        struct log_record record = record_of(c, ++newest[c]);
        assert_int_equal(index_add(f.index, &record, at, size), OK);
    }
    double bytes = (double)index_memory(f.index) / count;
    print_message("index of 64 MiB, body %zu: %u records in %u conversations (%u there): %.1f B "
                  "per record\n",
                  body, count, conversations, f.index->conversation_count, bytes);
    free(newest);
    end();
    return bytes;
}

static void test_memory(void **state)
{
    (void)state;
    assert_int_equal(sizeof(struct index_run), 40);
    assert_true(memory_of(1, 256, false) < 7.5);
    assert_true(memory_of(1000, 256, true) < 8.2);
    assert_true(memory_of(20000, 256, true) < 13.6);
    assert_true(memory_of(200000, 256, true) < 33.5);
    assert_true(memory_of(1000, 1024, true) < 11.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_without_gaps),     cmocka_unit_test(test_with_gaps),
        cmocka_unit_test(test_nothing_but_gaps), cmocka_unit_test(test_largest_segment),
        cmocka_unit_test(test_long_run),         cmocka_unit_test(test_refused),
        cmocka_unit_test(test_highest_number),   cmocka_unit_test(test_every_allocation_fails_once),
        cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
