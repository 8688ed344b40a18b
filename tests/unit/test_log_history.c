/* test_log_history.c: pages of history from segments: what they cost, and that they are right while
 * segments are sealed, their look-ups evicted, merged, and the log opened anew under them. */
#include "core/file.h"
#include "store/archive_write.h"
#include "store/lifecycle.h"
#include "store/reader.h"
#include "tests/unit/log_fixture.h"

static int set_up(void **state)
{
    fixture_set_up(state);
    fixture_merging(0);
    return 0;
}

/* ---- places beside the sidecar they are made of */

#define CONVERSATIONS 300u

struct made {
    struct segment_header header;
    struct sidecar *sidecar;
    uint64_t newest[CONVERSATIONS];
};

static struct conversation_id id_of(uint32_t c)
{
    return (struct conversation_id){c % 3, 77 + c};
}

/* seq_after: conversation 5 has a gap, 6 numbers above 32 bits. */
static uint64_t seq_after(uint32_t c, uint64_t seq)
{
    if (seq == 0)
        return c == 6 ? UINT32_MAX - 1ull : 1 + c % 4 * 1000ull;
    return c == 5 && seq % 7 == 3 ? seq + 2 : seq + 1;
}

static void make_sidecar(struct made *made)
{
    struct index *index;
    uint32_t offset = SEGMENT_DATA_OFFSET;
    *made = (struct made){.header = {.id = 7, .bytes = 64 << 20, .nonce = 0x1234567}};
    struct segment_key key = segment_key_of(&made->header);
    assert_int_equal(index_create(&index, &key, made->header.bytes), OK);
    for (uint32_t i = 0; i < 9000; i++) {
        uint32_t c = i % 5 == 0 ? 1 : (uint32_t)(rig_hash(i, 9) % CONVERSATIONS);
        uint32_t size = 88 + (uint32_t)(rig_hash(i, 1) % (c % 9 == 0 ? 60000 : 4000)) / 8 * 8;
        size = c == 7 ? 70000 : size; /* larger than the largest class */
        struct log_record record = {
            .kind = RECORD_MESSAGE, .conversation = id_of(c), .seq = seq_after(c, made->newest[c])};
        assert_int_equal(index_add(index, &record, offset, size), OK);
        made->newest[c] = record.seq;
        offset += size;
    }
    assert_int_equal(sidecar_write(RIG_DIRECTORY, &made->header, index, offset), OK);
    assert_int_equal(sidecar_load(&made->sidecar, RIG_DIRECTORY, &made->header), OK);
    index_destroy(index);
}

static uint32_t of_sidecar(const struct made *made, uint32_t c, uint64_t from,
                           struct index_hit *hits, bool *before)
{
    static uint8_t block[SIDECAR_READ_BYTES];
    uint64_t offset;
    size_t size;
    size_t done;
    uint32_t count;
    sidecar_range_where(made->sidecar, id_of(c), from, &offset, &size);
    assert_int_equal(file_read(made->sidecar->fd, offset, block, size, &done), OK);
    assert_int_equal(sidecar_range(made->sidecar, bytes_of(block, done), offset, id_of(c), from,
                                   hits, SIDECAR_HITS, &count, before),
                     OK);
    return count;
}

static void compare(const struct made *made, const struct places *places, uint32_t c, uint64_t from)
{
    static struct index_hit wanted[SIDECAR_HITS];
    static struct index_hit hits[SIDECAR_HITS];
    uint32_t count;
    bool before;
    bool wanted_before;
    enum err err = places_range(places, id_of(c), from, hits, SIDECAR_HITS, &count, &before);
    if (c == 5 || c == 6 || c == 7) {
        assert_int_equal(err, ERR_UNSUPPORTED);
        return;
    }
    assert_int_equal(err, OK);
    uint32_t of = of_sidecar(made, c, from, wanted, &wanted_before);
    assert_true(count >= of); /* the sidecar's two blocks may end before the conversation does */
    if (of == 0 || wanted[0].seq != from) /* else the sidecar need not say */
        assert_int_equal(before, wanted_before);
    for (uint32_t i = 0; i < of; i++) {
        assert_true(hits[i].seq == wanted[i].seq && hits[i].offset == wanted[i].offset);
        assert_true(hits[i].size >= wanted[i].size && hits[i].size / 4 <= wanted[i].size);
    }
    assert_true(count == SIDECAR_HITS || count == 0 || hits[count - 1].seq == made->newest[c]);
}

static void test_places_say_what_the_sidecar_says(void **state)
{
    (void)state;
    static struct made made;
    struct places *places;
    uint64_t newest;
    make_sidecar(&made);
    assert_int_equal(places_build(&places, made.sidecar, SIZE_MAX), OK);
    for (uint32_t c = 0; c < CONVERSATIONS; c++) {
        uint64_t first = seq_after(c, 0);
        for (uint64_t from = first - (first > 1); from <= made.newest[c] + 2; from++)
            compare(&made, places, c, from);
        enum err err = places_newest(places, id_of(c), &newest);
        assert_true(err == (c == 5 || c == 6 || c == 7 ? ERR_UNSUPPORTED : OK));
        assert_true(err != OK || newest == made.newest[c]);
    }
    for (uint32_t c = CONVERSATIONS; c < 4 * CONVERSATIONS; c++)
        assert_int_equal(places_newest(places, id_of(c), &newest), ERR_NOT_FOUND);
    size_t memory = places->memory; /* 9,000 records, 300 conversations */
    assert_in_range(memory, 9000 * 4 + CONVERSATIONS * 20, 9127 * 4 + 400 * 24 + 512);
    places_destroy(places);
    assert_int_equal(places_build(&places, made.sidecar, memory - 1), ERR_FULL);
    assert_int_equal(places_build(&places, made.sidecar, memory), OK);
    places_destroy(places);
    sidecar_destroy(made.sidecar);
}

static void test_places_of_a_damaged_sidecar(void **state)
{
    (void)state;
    static struct made made;
    struct places *places;
    char path[STORE_PATH_BYTES];
    uint64_t bytes;
    make_sidecar(&made);
    for (uint64_t n = 1; n <= 9000 / SIDECAR_BLOCK_ENTRIES; n += 11) {
        fault.fail_at[FAULT_READ] = n;
        assert_int_equal(places_build(&places, made.sidecar, SIZE_MAX), ERR_IO);
    }
    fault_calm();
    assert_int_equal(store_path(path, RIG_DIRECTORY, made.header.id, ".index"), OK);
    fault_data(path, &bytes)[SEGMENT_BLOCK * 9 + 100] ^= 1;
    assert_int_equal(places_build(&places, made.sidecar, SIZE_MAX), ERR_CORRUPT);
    sidecar_destroy(made.sidecar);
}

/* ---- places of an archive beside its directory */

/* make_archive: conversation 3 in many blocks, 4 with a state only, 6 above 32 bits. */
static struct archive *make_archive(const char *path, const struct archive_header *header)
{
    static uint8_t body[3000];
    struct archive_writer *writer;
    struct archive *archive;
    assert_int_equal(archive_writer_create(&writer, path, header, CONVERSATIONS, false), OK);
    for (uint32_t c = 0; c < CONVERSATIONS; c++) {
        uint64_t seq = c == 6 ? UINT32_MAX - 2ull : 1 + c % 4 * 1000;
        uint32_t count = c == 3 ? 400 : 1 + (uint32_t)(rig_hash(c, 4) % 9);
        struct log_record record = {
            .kind = RECORD_MESSAGE, .conversation = {c / 100, 77 + c}, .sender = {1}, .time_ms = 1};
        for (uint32_t i = 0; i < count && c != 4; i++) {
            record.seq = seq++;
            record.body = bytes_of(body, rig_hash(c, i) % sizeof body);
            assert_int_equal(archive_writer_add(writer, &record), OK);
        }
        const struct archive_state state = {.conversation = record.conversation, .count = 1};
        const struct archive_mark mark = {.user = {1}, .marked = true, .delivered = 1};
        if (c % 4 == 0)
            assert_int_equal(archive_writer_state(writer, &state, &mark), OK);
    }
    assert_int_equal(archive_writer_finish(writer, 0, NULL), OK);
    archive_writer_destroy(writer);
    assert_int_equal(archive_load(&archive, path), OK);
    return archive;
}

static void compare_entry(const struct archive *archive, const struct places *places, uint32_t c)
{
    uint8_t block[ARCHIVE_PAGE_BYTES];
    struct conversation_id id = {c / 100, 77 + c};
    struct archive_entry wanted;
    struct archive_entry entry;
    size_t done;
    uint64_t offset = archive_directory_at(archive, id);
    assert_int_equal(file_read(archive->fd, offset, block, sizeof block, &done), OK);
    assert_int_equal(archive_directory_find(archive, bytes_of(block, done), offset, id, &wanted),
                     OK);
    enum err err = places_archive_entry(places, id, &entry);
    assert_int_equal(err, c == 4 ? ERR_NOT_FOUND : c == 6 ? ERR_UNSUPPORTED : OK);
    if (err != OK)
        return;
    assert_true(conversation_id_equal(entry.conversation, wanted.conversation));
    assert_true(entry.first_seq == wanted.first_seq && entry.last_seq == wanted.last_seq);
    assert_true(entry.offset == wanted.offset && entry.stored == wanted.stored);
    assert_true(entry.first_block == wanted.first_block && entry.blocks == wanted.blocks);
    assert_true(c == 3 ? entry.blocks > 10 : entry.blocks == 1);
}

/* compare_rows: which block has a number, and where that stands. */
static void compare_rows(const struct archive *archive, const struct places *places, uint32_t c)
{
    struct archive_row rows[ARCHIVE_PAGE_ROWS];
    uint8_t block[ARCHIVE_PAGE_BYTES];
    struct archive_entry entry;
    uint32_t count;
    size_t done;
    assert_int_equal(
        places_archive_entry(places, (struct conversation_id){c / 100, 77 + c}, &entry), OK);
    uint64_t offset = archive_table_offset(archive, 0);
    assert_int_equal(file_read(archive->fd, offset, block, sizeof block, &done), OK);
    assert_int_equal(archive_rows(archive, bytes_of(block, done), offset, rows, &count), OK);
    for (uint64_t seq = entry.first_seq; seq <= entry.last_seq; seq++) {
        uint32_t at = places_archive_at(places, &entry, seq);
        struct archive_row row = places_archive_row(places, &entry, at);
        bool last = at + 1 == entry.first_block + entry.blocks;
        assert_in_range(at, entry.first_block, entry.first_block + entry.blocks - 1);
        assert_true(row.offset == rows[at].offset && row.bytes == rows[at].bytes);
        assert_true(at == entry.first_block || row.seq <= seq);
        assert_true(last || rows[at + 1].seq > seq);
    }
}

static void test_places_say_what_the_directory_says(void **state)
{
    (void)state;
    const struct archive_header header = {.first = 1, .last = 4, .level = 1, .nonce = 99};
    struct places *places;
    struct archive_entry entry;
    uint64_t bytes;
    assert_int_equal(file_make_directory(RIG_DIRECTORY), OK);
    const char *path = RIG_DIRECTORY "/00000001-00000004-0000.archive";
    struct archive *archive = make_archive(path, &header);
    uint64_t memory = places_archive_bytes(&archive->footer);
    assert_int_equal(places_archive_build(&places, archive, memory - 1), ERR_FULL);
    assert_int_equal(places_archive_build(&places, archive, memory), OK);
    assert_true(places->memory == memory);
    for (uint32_t c = 0; c < CONVERSATIONS; c++)
        compare_entry(archive, places, c);
    compare_rows(archive, places, 3);
    compare_rows(archive, places, 5);
    for (uint32_t c = CONVERSATIONS; c < 4 * CONVERSATIONS; c++)
        assert_int_equal(
            places_archive_entry(places, (struct conversation_id){c / 100, 77 + c}, &entry),
            ERR_NOT_FOUND);
    places_destroy(places);
    for (uint64_t n = 1; n <= archive->footer.directory_blocks + 1; n++) {
        fault.fail_at[FAULT_READ] = n;
        assert_int_equal(places_archive_build(&places, archive, memory), ERR_IO);
    }
    fault_calm();
    fault_data(path, &bytes)[archive_directory_offset(archive, 1) + 100] ^= 1;
    assert_int_equal(places_archive_build(&places, archive, memory), ERR_CORRUPT);
    archive_destroy(archive);
}

/* ---- what a page costs */

static void fill(uint32_t records, uint32_t conversations)
{
    for (uint32_t i = 0; i < records; i++) {
        assert_int_equal(rig_append_now(rig, i % conversations), OK);
        if (i % 8 == 0)
            rig_turn(rig);
    }
    rig_settle(rig);
}

static void merge_all(uint32_t inputs)
{
    rig->log->options.merge_inputs = inputs;
    fixture_merge();
    rig->log->options.merge_inputs = 0;
}

static bool sidecar_has(const struct sidecar *sidecar, struct conversation_id id, uint64_t from,
                        uint64_t to)
{
    static struct sidecar_entry entries[SIDECAR_BLOCK_ENTRIES];
    uint32_t count;
    for (uint32_t n = 0; sidecar_entries(sidecar, n, entries, &count) == OK && count > 0; n++)
        for (uint32_t i = 0; i < count; i++)
            if (conversation_id_equal(entries[i].conversation, id) && entries[i].seq >= from &&
                entries[i].seq <= to)
                return true;
    return false;
}

/* holders: segments, not archives, with some of the numbers. */
static uint32_t holders(uint32_t c, uint64_t from, uint64_t to)
{
    struct conversation_id id = {c % 2, 1000 + c};
    uint32_t count = 0;
    for (uint32_t i = 0; i <= rig->log->active; i++) {
        const struct lane_segment *segment = rig->log->segments[i];
        struct index_hit hit;
        bool before;
        if (segment->archived)
            continue;
        if (segment->index != NULL)
            count += index_range(segment->index, id, from, UINT32_MAX, &hit, 1, &before) == 1 &&
                     hit.seq <= to;
        else
            count += sidecar_has(segment->sidecar, id, from, to);
    }
    return count;
}

/* page: its cost in disk reads. */
static uint64_t page(enum log_read_kind kind, uint32_t c, uint64_t from, uint64_t to)
{
    struct log_read read = rig_range(rig, c, from, to, (uint32_t)(to - from + 1), RIG_OUT_BYTES);
    read.kind = kind;
    uint64_t before = fault.reads_async;
    assert_int_equal(rig_await(rig, &read), OK);
    assert_int_equal(read.records, to - from + 1);
    assert_int_equal(rig_check(rig, &read, c, from), to - from + 1);
    assert_int_equal(read.from_seq, from);
    return fault.reads_async - before;
}

static void test_a_page_reads_each_segment_once(void **state)
{
    (void)state;
    assert_int_equal(rig_open(rig), OK);
    fill(6000, 16); /* so near to each other that one read has a segment's part of a page */
    assert_true(rig->log->active >= 20);
    rig_read_all(rig); /* everything is loaded */
    for (uint32_t c = 0; c < 16; c++)
        for (uint64_t from = 1; from + 49 <= rig->acked[c]; from += 13) {
            uint32_t least = holders(c, from, from + 49);
            assert_int_equal(page(LOG_READ_RANGE, c, from, from + 49), least);
            assert_int_equal(page(LOG_READ_BACK, c, from, from + 49), least);
        }
}

static void test_without_lookups_one_more_for_each(void **state)
{
    (void)state;
    rig->options.lookup_bytes = 0;
    assert_int_equal(rig_open(rig), OK);
    fill(6000, 16);
    rig_read_all(rig);
    for (uint32_t c = 0; c < 16; c++) {
        uint64_t to = rig->acked[c];
        uint32_t least = holders(c, to - 49, to);
        assert_in_range(page(LOG_READ_RANGE, c, to - 49, to), least, 2 * least + 1);
        assert_in_range(page(LOG_READ_BACK, c, to - 49, to), least, 2 * least + 2);
    }
}

/* test_more_than_is_remembered: reads of more records than the window or a sidecar's blocks hold.
 */
static void test_more_than_is_remembered(void **state)
{
    (void)state;
    for (uint32_t lookups = 0; lookups < 4; lookups++) {
        rig->options.lookup_bytes = lookups / 2 << 20;
        assert_int_equal(rig_open(rig), OK);
        for (uint32_t i = 0; i < 2000; i++) /* in large batches: 200 in a segment */
            assert_int_equal(rig_append_now(rig, i % (1 + lookups % 2)), OK);
        rig_settle(rig);
        rig_read_all(rig);
        for (uint64_t from = 1; from + 699 <= rig->acked[0]; from += 97) {
            (void)page(LOG_READ_RANGE, 0, from, from + 699);
            (void)page(LOG_READ_BACK, 0, from, from + 699);
        }
        rig_close(rig);
        fault_reset();
        memset(rig->acked, 0, sizeof rig->acked);
        memset(rig->appended, 0, sizeof rig->appended);
    }
}

static void test_scattered_records_are_read_side_by_side(void **state)
{
    (void)state;
    rig->body_max = 3000;
    rig->options.segment_bytes = 256 << 10;
    assert_int_equal(rig_open(rig), OK);
    fill(1500, 40); /* 60 KB between two records of a conversation */
    rig_read_all(rig);
    struct log_read read = rig_range(rig, 3, 2, 21, 20, RIG_OUT_BYTES);
    uint64_t before = fault.reads_async;
    fault.hold = true;
    assert_int_equal(log_read(rig->log, &read), OK);
    assert_in_range(fault.reads_async - before, READ_OPS / 2, READ_OPS);
    fault.hold = false;
    for (uint32_t i = 0; i < 100 && log_read_done(rig->log) == NULL; i++)
        rig_turn(rig);
    assert_int_equal(read.err, OK);
    assert_int_equal(rig_check(rig, &read, 3, 2), 20);
    assert_int_equal(fault.reads_async - before, 20);
    fault.files_max = 1; /* what does not go along now is fetched later */
    assert_true(page(LOG_READ_RANGE, 3, 2, 21) >= 20);
}

static void test_pages_at_the_archives_edge(void **state)
{
    (void)state;
    assert_int_equal(rig_open(rig), OK);
    fill(3000, 16);
    merge_all(4);
    uint64_t edge[16];
    memcpy(edge, rig->acked, sizeof edge);
    fill(3000, 16);
    rig_read_all(rig);
    for (uint32_t c = 0; c < 16; c++) {
        uint64_t from = edge[c] + 1; /* no archive is asked */
        assert_int_equal(page(LOG_READ_RANGE, c, from, from + 29), holders(c, from, from + 29));
        from = edge[c] - 60; /* within: directory, table, data */
        uint32_t least = holders(c, from, from + 49);
        assert_in_range(page(LOG_READ_RANGE, c, from, from + 49), 1, 6 + least);
    }
    rig_close(rig);
    rig->options.checkpoint = 0;
    memset(rig->acked, 0, sizeof rig->acked);
}

/* sorted: each sealed segment becomes an archive of its own. */
static void sort_all(void)
{
    rig->log->options.merge_segments = 1;
    rig->log->options.archive_bytes_max = 1; /* and is not merged further */
    merge_all(4);
}

/* archives_with: of them, with some of the numbers, by their directories. */
static uint32_t archives_with(uint32_t c, uint64_t from, uint64_t to)
{
    struct conversation_id id = {c % 2, 1000 + c};
    uint32_t count = 0;
    for (uint32_t i = 0; i <= rig->log->active; i++) {
        const struct archive *archive = rig->log->segments[i]->archive;
        struct archive_entry entry;
        uint8_t block[ARCHIVE_PAGE_BYTES];
        size_t done;
        uint64_t offset = archive == NULL ? 0 : archive_directory_at(archive, id);
        if (offset == 0)
            continue;
        assert_int_equal(file_read(archive->fd, offset, block, sizeof block, &done), OK);
        count += archive_directory_find(archive, bytes_of(block, done), offset, id, &entry) == OK &&
                 entry.first_seq <= to && entry.last_seq >= from;
    }
    return count;
}

static void test_a_page_reads_each_archive_once(void **state)
{
    (void)state;
    uint32_t most = 0;
    rig->body_max = 3000; /* far apart as they were appended */
    assert_int_equal(rig_open(rig), OK);
    fill(1500, 16);
    uint64_t edge[16];
    memcpy(edge, rig->acked, sizeof edge);
    sort_all();
    assert_true(rig->log->segments[rig->log->active - 1]->archived && rig->log->active >= 20);
    rig_read_all(rig); /* everything is loaded */
    rig_read_all(rig);
    for (uint32_t c = 0; c < 16; c++)
        for (uint64_t from = 1; from + 39 <= edge[c]; from += 13) {
            uint64_t to = from + 39;
            uint32_t least = archives_with(c, from, to);
            most = least > most ? least : most;
            uint32_t scattered = holders(c, from, to) > 0 ? 40 : 0; /* one each in the active one */
            assert_in_range(page(LOG_READ_RANGE, c, from, to), least, least + scattered);
            assert_in_range(page(LOG_READ_BACK, c, from, to), least, least + scattered);
        }
    assert_true(most >= 10);
}

/* newest_pages: their cost, and that of one read per archive that holds some. */
static uint64_t newest_pages(uint64_t *least)
{
    uint64_t cost = 0;
    *least = 0;
    for (uint32_t c = 0; c < 16; c++) {
        uint64_t to = rig->acked[c];
        *least += archives_with(c, to - 19, to);
        cost += page(LOG_READ_BACK, c, to - 19, to);
        *least += archives_with(c, to - 24, to - 5);
        cost += page(LOG_READ_RANGE, c, to - 24, to - 5);
    }
    return cost;
}

/* test_a_start_sorts_what_was_active: nothing of it is in anybody's memory then. It does not wait
 * for others, nor do those that waited before the start. */
static void test_a_start_sorts_what_was_active(void **state)
{
    (void)state;
    uint64_t least;
    rig->body_max = 3000;
    rig->options.segment_bytes = 256 << 10;
    rig->options.merge_segments = 4;
    rig->options.merge_inputs = 16;
    assert_int_equal(rig_open(rig), OK);
    fill(1500, 16);
    fixture_merge();
    assert_in_range(lifecycle_waiting(rig->log), 1, 3);
    fixture_reopen(log_durable(rig->log));
    rig_read_all(rig); /* everything is loaded */
    assert_true(newest_pages(&least) >= 32 * 10);
    fixture_merge();
    assert_int_equal(lifecycle_waiting(rig->log), 0);
    rig_read_all(rig);
    rig_read_all(rig);
    uint64_t cost = newest_pages(&least);
    assert_int_equal(cost, least);
    assert_in_range(cost, 32, 32 * 2);
    fill(300, 16);
    rig_read_all(rig);
}

/* active_id: an end of the active segment makes it another. */
static uint32_t active_id(void)
{
    return rig->log->segments[rig->log->active]->id;
}

static uint32_t restart(void)
{
    fixture_reopen(log_durable(rig->log));
    rig_settle(rig);
    return active_id();
}

/* test_a_start_ends_what_has_enough: more than a 16th of a segment, where segments are merged and
 * there is room for it; later nothing ends early. */
static void test_a_start_ends_what_has_enough(void **state)
{
    (void)state;
    rig->body_max = 40;
    rig->options.segment_bytes = 1 << 20;
    rig->options.merge_inputs = 4;
    assert_int_equal(rig_open(rig), OK);
    fill(5, 5);
    assert_int_equal(restart(), 1);
    fill(200, 5); /* in batches of 4 KiB */
    assert_int_equal(active_id(), 1);
    rig->options.merge_inputs = 0;
    assert_int_equal(restart(), 1);
    rig->options.merge_inputs = 4;
    rig->options.reserve_bytes = UINT64_MAX / 2 - (3 << 20);
    assert_int_equal(restart(), 1);
    rig->options.reserve_bytes = UINT64_MAX / 2 - (5 << 20);
    assert_int_equal(restart(), 2);
    assert_int_equal(restart(), 2);
    fill(200, 5);
    assert_int_equal(active_id(), 2);
    fixture_reopen(log_durable(rig->log));
    for (uint32_t i = 0; i < 100; i++) { /* there is always something to write, and in flight */
        assert_int_equal(rig_append_now(rig, i % 5), OK);
        fault.hold = i % 4 != 3;
        rig_turn(rig);
        assert_int_equal(rig_append_now(rig, i % 5), OK);
    }
    fault.hold = false;
    rig_settle(rig);
    assert_int_equal(active_id(), 3);
    rig_read_all(rig);
}

static void test_archives_are_read_side_by_side(void **state)
{
    (void)state;
    assert_int_equal(rig_open(rig), OK);
    fill(6000, 40);
    sort_all();
    rig_read_all(rig);
    struct log_read read = rig_range(rig, 3, 20, 49, 30, RIG_OUT_BYTES);
    uint32_t least = archives_with(3, 20, 49);
    assert_in_range(least, 6, READ_OPS);
    uint64_t before = fault.reads_async;
    fault.hold = true;
    assert_int_equal(log_read(rig->log, &read), OK);
    assert_in_range(fault.reads_async - before, least / 2, least);
    fault.hold = false;
    for (uint32_t i = 0; i < 100 && log_read_done(rig->log) == NULL; i++)
        rig_turn(rig);
    assert_int_equal(read.err, OK);
    assert_int_equal(rig_check(rig, &read, 3, 20), 30);
    assert_int_equal(fault.reads_async - before, least);
    fault.files_max = 1; /* what does not go along now is fetched later */
    assert_true(page(LOG_READ_RANGE, 3, 20, 49) >= least);
    fault.files_max = 0;
    for (uint64_t n = 1; n <= least; n++) { /* once: it is repeated */
        fault.fail_at[FAULT_READ] = n;
        page(LOG_READ_RANGE, 3, 20, 49);
    }
    for (uint64_t n = 1; n <= least; n++) { /* for good: what came before is served */
        fault.fail_at[FAULT_READ] = n;
        fault.fail_sticky = true;
        read = rig_range(rig, 3, 20, 49, 30, RIG_OUT_BYTES);
        assert_int_equal(rig_await(rig, &read), ERR_CORRUPT);
        assert_int_equal(read.missing_from, 20 + rig_check(rig, &read, 3, 20));
        fault_calm();
    }
}

/* test_archives_beyond_the_budget: which one has the page is found by halving. */
static void test_archives_beyond_the_budget(void **state)
{
    (void)state;
    rig->options.lookup_bytes = 0;
    assert_int_equal(rig_open(rig), OK);
    fill(12000, 16);
    sort_all();
    uint32_t archives = rig->log->active;
    assert_in_range(archives, 33, 128);
    rig_read_all(rig);
    for (uint32_t c = 0; c < 16; c++)
        for (uint64_t from = 1; from + 200 <= rig->acked[c]; from += 17) {
            uint32_t with = archives_with(c, from, from + 9);
            /* 7 halvings of 128; then a directory (but the first one's) and data each */
            assert_in_range(page(LOG_READ_RANGE, c, from, from + 9), 2, 7 + 2 * with - 1);
        }
}

/* ---- right whatever happens to the segments */

static uint64_t lookup_bytes(uint32_t *segments)
{
    uint64_t bytes = 0;
    *segments = 0;
    for (uint32_t i = 0; i < rig->log->segment_count; i++)
        if (rig->log->segments[i]->places != NULL) {
            bytes += rig->log->segments[i]->places->memory;
            ++*segments;
        }
    return bytes;
}

static void test_the_newest_lookups_stay(void **state)
{
    (void)state;
    uint32_t segments;
    assert_int_equal(metrics_create(&rig->metrics), OK);
    struct metrics *const all[] = {rig->metrics};
    rig->options.lookup_bytes = 10000;
    assert_int_equal(rig_open(rig), OK);
    fill(6000, 16);
    for (uint32_t round = 0; round < 2; round++) {
        rig_read_all(rig);
        uint64_t bytes = lookup_bytes(&segments);
        assert_in_range(bytes, 5000, 10000);
        assert_in_range(segments, 2, rig->log->active - 2);
        assert_int_equal(metrics_sum(all, 1, METRIC_LOG_LOOKUP_BYTES), bytes);
        assert_true(metrics_sum(all, 1, METRIC_LOG_LOOKUPS_EVICTED) > 0);
        for (uint32_t i = rig->log->active; segments > 0; segments--) {
            while (rig->log->segments[--i]->state != SEGMENT_SEALED)
                continue;
            assert_non_null(rig->log->segments[i]->places);
        }
        rig_close(rig);
        assert_int_equal(rig_open(rig), OK);
        rig_adopt(rig);
    }
}

static uint32_t level_max(void)
{
    uint32_t level = 0;
    for (uint32_t i = 0; i < rig->log->active; i++)
        level = rig->log->segments[i]->level > level ? rig->log->segments[i]->level : level;
    return level;
}

/* second: of appending, with a checkpoint at its end. */
static void second(void)
{
    for (uint32_t i = 0; i < 40; i++)
        assert_int_equal(rig_append_now(rig, i % 16), OK);
    log_checkpointed(rig->log, log_durable(rig->log));
    fault_pass(NS_PER_S);
    rig_settle(rig);
}

/* park: a merge of 16 archives is under way, and a segment is sorted before it goes on. */
static void park(void)
{
    rig->options.merge_segments = 1;
    rig->options.merge_inputs = 16;
    rig->options.merge_rate = 128 << 10; /* portions of two seconds, a segment in six */
    assert_int_equal(rig_open(rig), OK);
    rig_adopt(rig);
    for (uint32_t i = 0; rig->log->lifecycle.parked == NULL; i++) {
        second();
        assert_true(i < 1000 && level_max() < 2);
    }
    rig_settle(rig);
    rig_read_all(rig);
}

static void test_segments_are_sorted_beside_a_long_merge(void **state)
{
    (void)state;
    park();
    for (uint32_t i = 0; level_max() < 2; i++) {
        second();
        assert_in_range(lifecycle_waiting(rig->log), 0, 3);
        assert_true(i < 1000);
    }
    rig_read_all(rig);
    rig_close(rig); /* with one waiting, also when the power goes: nothing is left of it */
    for (uint32_t crash = 0; crash < 4; crash++) {
        fault_reset();
        memset(rig->acked, 0, sizeof rig->acked);
        memset(rig->appended, 0, sizeof rig->appended);
        rig->options.checkpoint = 0;
        park();
        if (crash == 0)
            rig_close(rig);
        else
            rig_crash(rig, crash);
        assert_int_equal(fault_open_descriptors(), 0);
        assert_int_equal(rig_open(rig), OK);
        rig_adopt(rig);
        rig_read_all(rig);
        merge_all(16);
        assert_int_equal(level_max(), 2);
        rig_read_all(rig);
        rig_close(rig);
    }
}

#define AT_ONCE 12u

struct under_way {
    struct log_read read;
    bool busy;
    uint32_t c;
    uint8_t *out;
};

static void begin_page(struct under_way *u, uint64_t random, uint32_t conversations)
{
    u->c = (uint32_t)(random % conversations);
    uint64_t newest = rig->acked[u->c];
    if (newest == 0)
        return;
    u->read = rig_range(rig, u->c, 1 + random / 64 % newest, UINT64_MAX,
                        1 + (uint32_t)(random / 4096 % 60), 0);
    u->read.kind = random >> 60 < 8 ? LOG_READ_RANGE : LOG_READ_BACK;
    u->read.out = buffer_of(u->out, 1 << 16);
    if (u->read.kind == LOG_READ_BACK && random >> 59 & 1)
        u->read.to_seq = u->read.from_seq;
    u->busy = log_read(rig->log, &u->read) == OK;
}

static uint64_t end_pages(void)
{
    uint64_t ended = 0;
    struct log_read *read;
    while ((read = log_read_done(rig->log)) != NULL) {
        struct under_way *u = CONTAINER_OF(read, struct under_way, read);
        assert_int_equal(read->err, OK);
        assert_true(read->records > 0);
        rig_check(rig, read, u->c, read->from_seq);
        u->busy = false;
        ended++;
    }
    return ended;
}

/* test_pages_while_all_changes: pages in flight over appending, sealing, eviction and merging. */
static void test_pages_while_all_changes(void **state)
{
    (void)state;
    static const uint64_t budgets[] = {0, 4000, 1 << 20};
    static struct under_way pages[AT_ONCE];
    uint64_t ended = 0;
    for (uint32_t i = 0; i < AT_ONCE; i++)
        pages[i].out = malloc(1 << 16);
    rig->options.lookup_bytes = 4000;
    rig->options.merge_inputs = 3;
    assert_int_equal(rig_open(rig), OK);
    for (uint64_t i = 0; i < 9000; i++) {
        assert_int_equal(rig_append_now(rig, (uint32_t)(rig_hash(i, 2) % 24)), OK);
        uint64_t random = rig_hash(i, 3);
        if (!pages[i % AT_ONCE].busy)
            begin_page(&pages[i % AT_ONCE], random, 24);
        if (random % 3 == 0)
            rig_turn(rig);
        if (random % 101 == 0)
            log_checkpointed(rig->log, log_durable(rig->log));
        if (random % 307 == 0)
            rig->log->options.lookup_bytes = budgets[random / 1000 % 3];
        if (random % 53 == 0)
            fault_pass(NS_PER_S);
        ended += end_pages();
    }
    for (uint32_t i = 0; i < 50; i++) {
        rig_turn(rig);
        ended += end_pages();
    }
    assert_true(ended > 1000);
    assert_true(rig->log->segments[0]->archived);
    for (uint32_t i = 0; i < AT_ONCE; i++) {
        assert_false(pages[i].busy);
        free(pages[i].out);
    }
}

static void test_reads_of_a_page_fail(void **state)
{
    (void)state;
    rig->body_max = 3000;
    assert_int_equal(rig_open(rig), OK);
    fill(1500, 40);
    rig_read_all(rig);
    for (uint64_t n = 1; n <= 22; n++) { /* once: it is repeated */
        fault.fail_at[FAULT_READ] = n;
        page(LOG_READ_RANGE, 3, 2, 21);
    }
    for (uint64_t n = 1; n <= 20; n++) { /* for good: what came before is served, the rest named */
        fault.fail_at[FAULT_READ] = n;
        fault.fail_sticky = true;
        struct log_read read = rig_range(rig, 3, 2, 21, 20, RIG_OUT_BYTES);
        assert_int_equal(rig_await(rig, &read), ERR_CORRUPT);
        assert_int_equal(read.missing_from, 2 + rig_check(rig, &read, 3, 2));
        fault_calm();
    }
    page(LOG_READ_RANGE, 3, 2, 21);
}

/* test_damage_is_said_once: a record that is gone for good is met at every read of it. */
static void test_damage_is_said_once(void **state)
{
    (void)state;
    char path[STORE_PATH_BYTES];
    uint64_t bytes;
    assert_int_equal(metrics_create(&rig->metrics), OK);
    struct metrics *const all[] = {rig->metrics};
    assert_int_equal(rig_open(rig), OK);
    fill(2000, 16);
    rig_read_all(rig);
    const struct lane_segment *segment = rig->log->segments[1];
    assert_int_equal(store_path(path, RIG_DIRECTORY, segment->id, ".segment"), OK);
    memset(fault_data(path, &bytes) + SEGMENT_DATA_OFFSET, 0, 30000);
    fault_settle();
    uint64_t said = 0;
    for (uint32_t i = 0; i < 100; i++) {
        struct log_read read = rig_range(rig, 3, 1, UINT64_MAX, 1000, RIG_OUT_BYTES);
        assert_int_equal(rig_await(rig, &read), ERR_CORRUPT);
        said = 100 - rig->log->say[SAY_RECORD].suppressed;
    }
    assert_int_equal(metrics_sum(all, 1, METRIC_LOG_CORRUPT), 100);
    assert_in_range(said, 1, 2);
    fault_pass(2 * NS_PER_S);
    struct log_read read = rig_range(rig, 3, 1, UINT64_MAX, 1000, RIG_OUT_BYTES);
    assert_int_equal(rig_await(rig, &read), ERR_CORRUPT);
    assert_int_equal(rig->log->say[SAY_RECORD].suppressed, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST_AFTER(set_up, test_places_say_what_the_sidecar_says),
        FIXTURE_TEST_AFTER(set_up, test_places_of_a_damaged_sidecar),
        FIXTURE_TEST_AFTER(set_up, test_places_say_what_the_directory_says),
        FIXTURE_TEST_AFTER(set_up, test_a_page_reads_each_segment_once),
        FIXTURE_TEST_AFTER(set_up, test_a_page_reads_each_archive_once),
        FIXTURE_TEST_AFTER(set_up, test_a_start_sorts_what_was_active),
        FIXTURE_TEST_AFTER(set_up, test_a_start_ends_what_has_enough),
        FIXTURE_TEST_AFTER(set_up, test_archives_are_read_side_by_side),
        FIXTURE_TEST_AFTER(set_up, test_archives_beyond_the_budget),
        FIXTURE_TEST_AFTER(set_up, test_without_lookups_one_more_for_each),
        FIXTURE_TEST_AFTER(set_up, test_more_than_is_remembered),
        FIXTURE_TEST_AFTER(set_up, test_scattered_records_are_read_side_by_side),
        FIXTURE_TEST_AFTER(set_up, test_pages_at_the_archives_edge),
        FIXTURE_TEST_AFTER(set_up, test_the_newest_lookups_stay),
        FIXTURE_TEST_AFTER(set_up, test_segments_are_sorted_beside_a_long_merge),
        FIXTURE_TEST_AFTER(set_up, test_pages_while_all_changes),
        FIXTURE_TEST_AFTER(set_up, test_reads_of_a_page_fail),
        FIXTURE_TEST_AFTER(set_up, test_damage_is_said_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
