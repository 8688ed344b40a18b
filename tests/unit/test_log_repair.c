/* test_log_repair.c: whatever is damaged: after one repair the log verifies, serves all that it
 * served before and names the rest; the damaged bytes are in quarantine; a second repair finds
 * nothing. */
#include "store/archive_walk.h"
#include "store/repair.h"
#include "tests/unit/log_fixture.h"

#define FIRST         RIG_DIRECTORY "/00000001.segment"
#define QUARANTINE    "quarantine"
#define COLD          "cold"
#define CONVERSATIONS 20

static uint64_t random_state;
static bool verbose; /* set it to see what is found and done */

static uint64_t draw(uint64_t below)
{
    return rig_hash(++random_state, 77) % below;
}

/* fill: in batches of 1 to 30 records, some of them watermarks. */
static void fill(uint32_t records)
{
    for (uint32_t i = 0; i < records; i++) {
        assert_int_equal(rig_append_now(rig, (uint32_t)draw(CONVERSATIONS)), OK);
        if (draw(10) == 0)
            (void)!rig_append_watermark(rig, (uint32_t)draw(CONVERSATIONS));
        if (draw(15) == 0)
            rig_turn(rig);
    }
    rig_settle(rig);
}

static void tell(void *context, const char *line)
{
    (void)context;
    if (verbose)
        print_message("    %s\n", line);
}

static struct repair_report repair(void)
{
    const struct inspect_output out = {.line = tell};
    static uint64_t now_ms = 1000;
    struct repair_report report;
    assert_int_equal(
        log_repair(RIG_DIRECTORY, rig->options.cold_directory, QUARANTINE, now_ms++, &out, &report),
        OK);
    return report;
}

static enum err verify(void)
{
    return log_verify(RIG_DIRECTORY, rig->options.cold_directory, tell, NULL);
}

/* What is told of a number: nothing, or that it is damaged; it can be had; it was removed. */
enum told { TOLD_NOT, TOLD_SERVED, TOLD_GONE };

/* served: how many of all numbers can be had or are told as removed; each other one is named as
 * missing. present[] tells which. */
static uint64_t served(uint8_t *present)
{
    uint64_t count = 0;
    for (uint32_t c = 0; c < CONVERSATIONS; c++) {
        for (uint64_t next = 1; next <= rig->acked[c];) {
            struct log_read read = rig_range(rig, c, next, rig->acked[c], 1000, RIG_OUT_BYTES);
            enum err err = rig_await(rig, &read);
            uint64_t got = rig_check(rig, &read, c, next);
            for (uint64_t i = 0; i < got; i++)
                present[(next + i) * CONVERSATIONS + c] = TOLD_SERVED;
            count += got;
            next += got;
            if (err == ERR_CORRUPT || err == ERR_EXPIRED) {
                assert_true(read.missing_from == next && read.missing_to >= next);
                for (; next <= read.missing_to && err == ERR_EXPIRED; count++, next++)
                    present[next * CONVERSATIONS + c] = TOLD_GONE;
                next = read.missing_to + 1;
            } else if (err == ERR_NOT_FOUND) {
                break; /* of the rest nothing is known */
            } else {
                assert_int_equal(err, OK);
            }
        }
    }
    return count;
}

static void reopen(void)
{
    assert_int_equal(rig_open(rig), OK);
    rig->refused = 0;
}

/* repaired: what holds after any damage below the mark. Returns the records lost. */
static struct repair_report repaired_after(uint64_t lost_before)
{
    uint64_t total = 0;
    for (uint32_t c = 0; c < CONVERSATIONS; c++)
        total += rig->acked[c];
    static uint8_t before[CONVERSATIONS * 5000];
    static uint8_t after[CONVERSATIONS * 5000];
    memset(before, 0, sizeof before);
    memset(after, 0, sizeof after);
    struct fault_image *image = fault_save();
    reopen();
    uint64_t count_before = served(before);
    rig_close(rig);
    fault_load(image);
    fault_free(image);

    assert_int_equal(verify(), ERR_CORRUPT);
    struct repair_report first = repair();
    assert_true(first.ranges > 0);
    assert_int_equal(first.ranges, first.repaired);
    assert_int_equal(verify(), OK);
    struct repair_report second = repair();
    assert_int_equal(second.ranges, 0);
    reopen();
    uint64_t count_after = served(after);
    assert_true(count_after >= count_before);
    for (size_t i = 0; i < sizeof before; i++)
        assert_true(before[i] == TOLD_NOT || before[i] == after[i]);
    assert_true(total - count_after <= first.lost + lost_before);
    rig_close(rig);
    assert_int_equal(verify(), OK);
    return first;
}

static struct repair_report repaired(void)
{
    return repaired_after(0);
}

static uint8_t *segment_data(uint32_t id, uint64_t *size)
{
    char path[STORE_PATH_BYTES];
    assert_int_equal(store_path(path, RIG_DIRECTORY, id, ".segment"), OK);
    uint8_t *data = fault_data(path, size);
    assert_non_null(data);
    return data;
}

static void write_log(uint64_t seed, uint32_t records)
{
    random_state = seed;
    assert_int_equal(rig_open(rig), OK);
    fill(records);
    rig_close(rig);
    assert_int_equal(verify(), OK);
}

/* ---- single kinds */

static void test_sound_log(void **state)
{
    (void)state;
    write_log(1, 3000);
    struct repair_report report = repair();
    assert_int_equal(report.ranges, 0);
    assert_int_equal(verify(), OK);
}

static void test_record(void **state)
{
    uint64_t size;
    (void)state;
    write_log(2, 3000);
    segment_data(1, &size)[SEGMENT_DATA_OFFSET + BATCH_HEADER_BYTES + 30] ^= 1;
    fault_settle();
    struct repair_report report = repaired();
    assert_int_equal(report.ranges, 1);
    assert_int_equal(report.lost, 1);
    assert_int_equal(report.lost_known, 1); /* the index knows it */
}

static void test_batch_header(void **state)
{
    uint64_t size;
    (void)state;
    write_log(3, 3000);
    segment_data(2, &size)[SEGMENT_DATA_OFFSET + 20] ^= 1;
    fault_settle();
    struct repair_report report = repaired();
    assert_int_equal(report.ranges, 1);
    assert_int_equal(report.lost, 0); /* its records are sound, and keep their places */
}

static void test_unsealed(void **state)
{
    uint64_t size;
    (void)state;
    write_log(4, 300); /* one segment, without an index */
    segment_data(1, &size)[SEGMENT_DATA_OFFSET + 20] ^= 1;
    fault_settle();
    struct repair_report report = repaired();
    assert_int_equal(report.lost_known, 0);
}

static void test_segment_headers(void **state)
{
    uint64_t size;
    (void)state;
    write_log(5, 3000);
    segment_data(2, &size)[8] ^= 1;
    fault_settle();
    assert_int_equal(repaired().lost, 0);
    uint8_t *data = segment_data(2, &size);
    data[8] ^= 1;
    data[SEGMENT_BLOCK + 8] ^= 1;
    fault_settle();
    assert_int_equal(repaired().lost, 0); /* the index's nonce makes it anew */
}

static void test_lost_header_without_index(void **state)
{
    uint64_t size;
    (void)state;
    write_log(6, 3000);
    uint8_t *data = segment_data(2, &size);
    data[8] ^= 1;
    data[SEGMENT_BLOCK + 8] ^= 1;
    fault_remove(RIG_DIRECTORY "/00000002.index");
    fault_settle();
    assert_true(repaired().lost > 100);
}

static void test_missing_file(void **state)
{
    (void)state;
    write_log(7, 3000);
    fault_remove(RIG_DIRECTORY "/00000002.segment");
    fault_settle();
    assert_true(repaired().lost > 100);
}

static void test_behind_the_last_batch(void **state)
{
    uint64_t size;
    (void)state;
    write_log(8, 3000);
    uint8_t *data = segment_data(1, &size);
    data[size - 5] = 1;
    fault_settle();
    assert_int_equal(repaired().lost, 0);
}

static void test_description(void **state)
{
    uint64_t size;
    (void)state;
    write_log(9, 3000);
    segment_data(1, &size)[SEGMENT_DATA_OFFSET + BATCH_HEADER_BYTES + 30] ^= 1;
    fault_settle();
    const struct inspect_output out = {.line = tell};
    struct repair_report report;
    assert_int_equal(log_repair(RIG_DIRECTORY, NULL, QUARANTINE, 5, &out, &report), OK);
    char path[128];
    uint32_t end = 0;
    /* the range is the batch: find its file by its length */
    for (end = SEGMENT_DATA_OFFSET; end <= 1 << 20; end += SEGMENT_BLOCK) {
        snprintf(path, sizeof path, QUARANTINE "/00000001-8192-%u-5.json", end);
        if (fault_data(path, &size) != NULL)
            break;
    }
    uint8_t *json = fault_data(path, &size);
    assert_non_null(json);
    char *text = calloc(1, size + 1);
    memcpy(text, json, size);
    assert_non_null(strstr(text, "\"records_lost\":1,\"counted\":true,\"unknown\":0"));
    assert_non_null(strstr(text, "{\"conversation\":\"00000000-0000-000"));
    free(text);
    snprintf(path, sizeof path, QUARANTINE "/00000001-8192-%u-5.bytes", end);
    assert_non_null(fault_data(path, &size));
    assert_int_equal(size, end - 8192);
}

static void test_busy(void **state)
{
    struct repair_report report;
    const struct inspect_output out = {.line = tell};
    (void)state;
    assert_int_equal(rig_open(rig), OK);
    assert_int_equal(log_repair(RIG_DIRECTORY, NULL, QUARANTINE, 1, &out, &report), ERR_BUSY);
    rig_close(rig);
}

/* ---- anything */

static void damage_at_random(uint32_t segments)
{
    uint64_t size;
    uint32_t id = 1 + (uint32_t)draw(segments);
    uint8_t *data = segment_data(id, &size);
    uint64_t from = SEGMENT_DATA_OFFSET + draw(size - SEGMENT_DATA_OFFSET - 1);
    uint64_t length = 1;
    switch (draw(4)) {
    case 0:
        break;
    case 1:
        length = 1 + draw(600);
        break;
    case 2:
        length = 1 + draw(20000);
        break;
    default:
        from = draw(SEGMENT_DATA_OFFSET);
        length = 1 + draw(6000);
        break;
    }
    for (uint64_t i = from; i < from + length && i < size; i++)
        data[i] ^= (uint8_t)(1 + draw(255));
    fault_settle();
}

static void test_any_damage(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 80; seed++) {
        fault_reset();
        rig_init(rig);
        write_log(seed * 1000, 3000);
        uint32_t count = 1 + (uint32_t)draw(3);
        for (uint32_t i = 0; i < count; i++)
            damage_at_random(3); /* the fourth is the last: above the mark is a tail */
        if (verify() == OK)
            continue; /* only the tail, or nothing but what is not checked */
        print_message("seed %d\n", (int)seed);
        repaired();
    }
}

/* The n-th write or sync fails: nothing is worse than before, and running it again repairs all. */
static void test_failures(void **state)
{
    uint64_t size;
    (void)state;
    for (uint64_t n = 1; n < 40; n += 2)
        for (enum fault_op op = FAULT_READ; op <= FAULT_SYNC; op++) {
            const struct inspect_output out = {.line = tell};
            struct repair_report report;
            fault_reset();
            rig_init(rig);
            write_log(12, 2500);
            segment_data(1, &size)[SEGMENT_DATA_OFFSET + BATCH_HEADER_BYTES + 30] ^= 1;
            uint8_t *data = segment_data(2, &size);
            data[SEGMENT_DATA_OFFSET + 9000] ^= 1;
            data[10] ^= 1;
            fault_settle();
            fault.fail_at[op] = n;
            enum err err = log_repair(RIG_DIRECTORY, NULL, QUARANTINE, 1, &out, &report);
            fault_calm();
            assert_true(err == OK || err == ERR_IO);
            if (verify() != OK)
                repaired_after(report.lost);
        }
}

/* ---- archives */

static char archive_file[STORE_PATH_BYTES]; /* the first of those that write_archives made */

static uint64_t long_ago(uint32_t conversation, uint64_t seq)
{
    return 1000 * seq + conversation;
}

/* write_archives: 5,000 records, most of them merged. */
static void write_archives(uint64_t seed, bool compress, bool cold)
{
    random_state = seed;
    fixture_merging(4);
    rig->options.compress = compress;
    rig->options.cold_directory = cold ? COLD : NULL;
    rig->options.cold_ms = 60000;
    rig->options.trust_clock = true;
    rig->time = long_ago;
    assert_int_equal(rig_open(rig), OK);
    fill(5000);
    fixture_merge();
    fixture_checkpoint();
    assert_true(rig->log->segments[0]->archived && rig->log->segments[0]->cold == cold);
    assert_int_equal(lane_archive_path(rig->log, rig->log->segments[0], archive_file), OK);
    rig_close(rig);
    assert_int_equal(verify(), OK);
}

/* block: the at-th of that kind in the archive. */
static bool block(struct walk_item *item, enum archive_kind kind, uint32_t at)
{
    struct archive *archive;
    struct archive_walk walk;
    assert_int_equal(archive_load(&archive, archive_file), OK);
    archive_walk_init(&walk, archive->fd, &archive->key, ARCHIVE_HEADER_BYTES,
                      archive->footer.bytes);
    bool found = false;
    do
        assert_int_equal(archive_walk_next(&walk, item), OK);
    while (item->kind != WALK_END &&
           !(found = item->block.kind == kind && item->block.number == at));
    archive_walk_deinit(&walk);
    archive_destroy(archive);
    return found;
}

static void spoil(uint64_t offset)
{
    uint64_t size;
    uint8_t *data = fault_data(archive_file, &size);
    assert_non_null(data);
    assert_true(offset < size);
    data[offset] ^= 0x10;
    fault_settle();
}

static uint64_t archive_bytes(void)
{
    uint64_t size;
    assert_non_null(fault_data(archive_file, &size));
    return size;
}

/* Damaged records are lost, by conversation and number; all others are served. */
static void test_archive_data(void **state)
{
    struct walk_item item;
    (void)state;
    for (int compress = 0; compress < 2; compress++) {
        fault_reset();
        rig_init(rig);
        write_archives(20, compress, false);
        assert_true(block(&item, ARCHIVE_DATA, 1));
        spoil(item.from + ARCHIVE_HEAD_BYTES + 100);
        struct repair_report report = repaired();
        assert_int_equal(report.ranges, 1);
        assert_true(report.lost > 20 && report.lost <= item.block.count);
        assert_int_equal(report.lost, report.lost_known);
    }
}

/* Nothing is lost of what is not records. */
static void test_archive_lookups(void **state)
{
    struct walk_item item;
    const enum archive_kind kinds[] = {ARCHIVE_DIRECTORY, ARCHIVE_TABLE, ARCHIVE_PRINTS,
                                       ARCHIVE_SUMMARY};
    (void)state;
    for (size_t i = 0; i < COUNT_OF(kinds); i++)
        for (uint64_t at = 5; at <= ARCHIVE_HEAD_BYTES + 5; at += ARCHIVE_HEAD_BYTES) {
            fault_reset();
            rig_init(rig);
            write_archives(21, false, false);
            assert_true(block(&item, kinds[i], 0));
            spoil(item.from + at);
            struct repair_report report = repaired();
            assert_int_equal(report.ranges, 1);
            assert_int_equal(report.lost, 0);
        }
}

static void test_archive_ends(void **state)
{
    (void)state;
    write_archives(22, false, false);
    spoil(archive_bytes() - 20); /* the footer: it cannot be loaded until it is repaired */
    assert_int_equal(repaired().lost, 0);
    fault_reset();
    rig_init(rig);
    write_archives(22, false, false);
    spoil(20); /* the header: the footer stands in for it, it is served all the time */
    uint8_t *present = calloc(CONVERSATIONS, 5000);
    uint64_t total = 0;
    for (uint32_t c = 0; c < CONVERSATIONS; c++)
        total += rig->acked[c];
    reopen();
    assert_int_equal(served(present), total);
    rig_close(rig);
    free(present);
    assert_int_equal(repaired().lost, 0);
    fault_reset();
    rig_init(rig);
    write_archives(22, false, false);
    spoil(3000); /* zeros behind the header */
    assert_int_equal(repaired().lost, 0);
}

/* Without header and footer nothing can be told from noise: it is left, and said so. */
static void test_archive_beyond_repair(void **state)
{
    (void)state;
    write_archives(23, false, false);
    spoil(20);
    spoil(archive_bytes() - 20);
    struct repair_report report = repair();
    assert_int_equal(report.ranges, 1);
    assert_int_equal(report.repaired, 0);
    assert_int_equal(verify(), ERR_CORRUPT);
}

static void test_archive_in_the_cold(void **state)
{
    struct walk_item item;
    (void)state;
    write_archives(24, true, true);
    assert_int_equal(strncmp(archive_file, COLD "/", strlen(COLD "/")), 0);
    assert_true(block(&item, ARCHIVE_DATA, 0));
    spoil(item.from + ARCHIVE_HEAD_BYTES + 50);
    assert_int_equal(repaired().ranges, 1);
}

/* damage_archive: up to three stretches of it, anywhere but in the footer. */
static void damage_archive(void)
{
    uint64_t size;
    uint8_t *data = fault_data(archive_file, &size);
    for (uint64_t i = 0; i <= draw(3); i++) {
        uint64_t from = draw(size - ARCHIVE_FOOTER_BYTES);
        uint64_t length = 1 + draw(draw(2) == 0 ? 600 : 50000);
        for (uint64_t at = from; at < from + length && at < size - ARCHIVE_FOOTER_BYTES; at++)
            data[at] ^= (uint8_t)(1 + draw(255));
    }
    fault_settle();
}

static void test_archive_any_damage(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        fault_reset();
        rig_init(rig);
        write_archives(seed * 1000, seed % 2, false);
        damage_archive();
        print_message("seed %d\n", (int)seed);
        repaired();
    }
}

/* The n-th operation fails: as in segments; the old file is there until the new one counts. */
static void test_archive_failures(void **state)
{
    struct walk_item item;
    (void)state;
    for (uint64_t n = 1; n < 40; n++)
        for (enum fault_op op = FAULT_READ; op < FAULT_OP_COUNT; op++) {
            const struct inspect_output out = {.line = tell};
            struct repair_report report;
            fault_reset();
            rig_init(rig);
            write_archives(25, false, false);
            assert_true(block(&item, ARCHIVE_DATA, 2));
            spoil(item.from + ARCHIVE_HEAD_BYTES + 50);
            fault.fail_at[op] = n;
            enum err err = log_repair(RIG_DIRECTORY, NULL, QUARANTINE, 1, &out, &report);
            fault_calm();
            assert_true(err == OK || err == ERR_IO);
            if (verify() != OK)
                repaired_after(report.lost);
        }
}

/* ---- archives with names of what was removed */

/* What is sent to even conversations expires in an hour, in half of the others every second message
 * does: blocks of names, of messages, and of both. */
static uint64_t some_expire(uint32_t conversation, uint64_t seq)
{
    bool expires = conversation % 2 == 0 || (conversation % 4 == 3 && seq % 2 == 0);
    return expires ? fixture_times_now(conversation, seq) + HOUR_MS : 1ull << 62;
}

static void write_names(uint64_t seed, bool compress)
{
    random_state = seed;
    fixture_merging(4);
    fixture_naming(DAY_MS);
    rig->options.compress = compress;
    rig->expires = some_expire;
    assert_int_equal(rig_open(rig), OK);
    fill(5000);
    fixture_merge();
    fixture_hours(2);
    fixture_checkpoint();
    assert_true(rig->log->segments[0]->archived && rig->log->segments[0]->footer.named > 1000);
    assert_int_equal(lane_archive_path(rig->log, rig->log->segments[0], archive_file), OK);
    rig_close(rig);
    assert_int_equal(verify(), OK);
}

/* names_in: how many of a data block's records are names. */
static uint32_t names_in(struct archive *archive, struct archive_walk *walk,
                         const struct walk_item *item)
{
    struct bytes records;
    struct bytes encoded;
    struct log_record record;
    uint32_t count = 0;
    assert_int_equal(archive_walk_records(walk, item, &records), OK);
    while (archive_record_next(&record, &encoded, &records, &archive->key) == OK)
        count += gone_named(&record);
    return count;
}

enum holding { HOLDS_MESSAGES, HOLDS_NAMES, HOLDS_BOTH };

/* block_holding: the first data block that holds nothing else. Returns how many are names. */
static uint32_t block_holding(struct walk_item *item, enum holding holding)
{
    struct archive *archive;
    struct archive_walk walk;
    uint32_t named = 0;
    bool found = false;
    assert_int_equal(archive_load(&archive, archive_file), OK);
    archive_walk_init(&walk, archive->fd, &archive->key, ARCHIVE_HEADER_BYTES,
                      archive->footer.bytes);
    while (!found) {
        assert_int_equal(archive_walk_next(&walk, item), OK);
        assert_true(item->kind == WALK_BLOCK);
        if (item->block.kind != ARCHIVE_DATA)
            continue;
        named = names_in(archive, &walk, item);
        found = holding == (named == 0                   ? HOLDS_MESSAGES
                            : named == item->block.count ? HOLDS_NAMES
                                                         : HOLDS_BOTH);
    }
    archive_walk_deinit(&walk);
    archive_destroy(archive);
    return named;
}

/* expect_repeats: what is served or was removed is found by its id, the latter under its first
 * number; what is damaged, before the repair, is never taken for unknown. Returns how many are not
 * found. */
static uint64_t expect_repeats(const uint8_t *present, bool is_repaired)
{
    uint64_t missed = 0;
    for (uint32_t c = 0; c < CONVERSATIONS; c++)
        for (uint64_t seq = 1; seq <= rig->acked[c]; seq++) {
            enum told told = present[seq * CONVERSATIONS + c];
            enum err err = rig_find(rig, c, seq);
            enum err expected = told == TOLD_SERVED ? OK : ERR_EXPIRED;
            bool lost = is_repaired ? told == TOLD_NOT && err == ERR_NOT_FOUND : err == ERR_CORRUPT;
            assert_true(lost || (told != TOLD_NOT && err == expected));
            missed += lost;
        }
    return missed;
}

/* expect_all_given: every number is known to be given, whatever has become of what it was given
 * to, also where the catalog knows nothing. */
static void expect_all_given(void)
{
    uint64_t checkpoint = rig->options.checkpoint;
    rig->options.checkpoint = 0;
    reopen();
    assert_memory_equal(rig->found, rig->acked, sizeof rig->found);
    rig_close(rig);
    rig->options.checkpoint = checkpoint;
    memcpy(rig->found, rig->acked, sizeof rig->found);
}

/* expect_forgotten: the names go when their time has come, and nothing else does. */
static void expect_forgotten(const uint8_t *present)
{
    static uint8_t later[CONVERSATIONS * 5000];
    memset(later, 0, sizeof later);
    reopen();
    fixture_hours(26);
    assert_int_equal(rig->log->segments[0]->footer.named, 0);
    (void)served(later);
    for (size_t i = 0; i < sizeof later; i++)
        assert_true(later[i] == present[i] || (present[i] == TOLD_SERVED && later[i] == TOLD_GONE));
    for (uint32_t c = 0; c < CONVERSATIONS; c++)
        for (uint64_t seq = 1; seq <= rig->acked[c]; seq += 7)
            assert_int_equal(rig_find(rig, c, seq),
                             later[seq * CONVERSATIONS + c] == TOLD_SERVED ? OK : ERR_NOT_FOUND);
    rig_close(rig);
}

/* look: what is told of every number, and of the repeat of each. Returns how many repeats are not
 * found. */
static uint64_t look(uint8_t *present, bool is_repaired)
{
    memset(present, 0, CONVERSATIONS * 5000);
    reopen();
    (void)served(present);
    uint64_t missed = expect_repeats(present, is_repaired);
    rig_close(rig);
    return missed;
}

/* repaired_repeats: what holds beside `repaired` after any damage. */
static struct repair_report repaired_repeats(uint8_t *present)
{
    struct fault_image *image = fault_save();
    (void)look(present, false);
    fault_load(image);
    fault_free(image);
    struct repair_report report = repaired();
    assert_true(look(present, true) <= report.lost);
    return report;
}

/* repaired_names: and what holds where only one block was damaged. */
static struct repair_report repaired_names(void)
{
    static uint8_t present[CONVERSATIONS * 5000];
    struct repair_report report = repaired_repeats(present);
    assert_int_equal(report.ranges, 1);
    assert_int_equal(look(present, true), report.lost);
    assert_int_equal(report.lost_known, report.lost);
    expect_all_given();
    expect_forgotten(present);
    return report;
}

/* Where only what finds them is damaged, nothing is lost. */
static void test_names_lookups(void **state)
{
    struct walk_item item;
    const enum archive_kind kinds[] = {ARCHIVE_DIRECTORY, ARCHIVE_TABLE, ARCHIVE_PRINTS,
                                       ARCHIVE_STATES, ARCHIVE_SUMMARY};
    (void)state;
    for (size_t i = 0; i < COUNT_OF(kinds); i++) {
        fault_reset();
        rig_init(rig);
        write_names(30, false);
        assert_true(block(&item, kinds[i], 0));
        spoil(item.from + ARCHIVE_HEAD_BYTES + 5);
        assert_int_equal(repaired_names().lost, 0);
    }
}

/* A block's records are lost, by conversation and number, be they messages or names. */
static void test_names_data(void **state)
{
    struct walk_item item;
    (void)state;
    for (enum holding holding = HOLDS_MESSAGES; holding <= HOLDS_BOTH; holding++)
        for (int compress = 0; compress < 2; compress++) {
            fault_reset();
            rig_init(rig);
            write_names(31, compress);
            uint32_t named = block_holding(&item, holding);
            assert_true(named > 20 || holding == HOLDS_MESSAGES);
            spoil(item.from + ARCHIVE_HEAD_BYTES + 100);
            assert_int_equal(repaired_names().lost, item.block.count);
        }
}

static void test_names_any_damage(void **state)
{
    static uint8_t present[CONVERSATIONS * 5000];
    (void)state;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        fault_reset();
        rig_init(rig);
        write_names(seed * 1000, seed % 2);
        damage_archive();
        print_message("seed %d\n", (int)seed);
        (void)repaired_repeats(present);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(test_sound_log),           FIXTURE_TEST(test_record),
        FIXTURE_TEST(test_batch_header),        FIXTURE_TEST(test_unsealed),
        FIXTURE_TEST(test_segment_headers),     FIXTURE_TEST(test_lost_header_without_index),
        FIXTURE_TEST(test_missing_file),        FIXTURE_TEST(test_behind_the_last_batch),
        FIXTURE_TEST(test_description),         FIXTURE_TEST(test_busy),
        FIXTURE_TEST(test_any_damage),          FIXTURE_TEST(test_failures),
        FIXTURE_TEST(test_archive_data),        FIXTURE_TEST(test_archive_lookups),
        FIXTURE_TEST(test_archive_ends),        FIXTURE_TEST(test_archive_beyond_repair),
        FIXTURE_TEST(test_archive_in_the_cold), FIXTURE_TEST(test_archive_any_damage),
        FIXTURE_TEST(test_archive_failures),    FIXTURE_TEST(test_names_lookups),
        FIXTURE_TEST(test_names_data),          FIXTURE_TEST(test_names_any_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
