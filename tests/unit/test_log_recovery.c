/* test_log_recovery.c: torn tails are cut, damage is reported and never served, nothing else
 * changes. */
#include "store/scan.h"
#include "tests/unit/log_fixture.h"

#include "core/hash.h"

#define FIRST  RIG_DIRECTORY "/00000001.segment"
#define SECOND RIG_DIRECTORY "/00000002.segment"

/* fill: batches of ten records until `records` are acknowledged. */
static void fill(uint32_t records, uint32_t conversations)
{
    for (uint32_t i = 0; i < records; i++) {
        assert_int_equal(rig_append_now(rig, i % conversations), OK);
        if (i % 10 == 9)
            rig_turn(rig);
    }
    rig_settle(rig);
}

static void reopen(void)
{
    assert_int_equal(rig_open(rig), OK);
    rig_adopt(rig);
}

static void count_line(void *context, const char *line)
{
    (void)line;
    ++*(uint32_t *)context;
}

static enum err verify(void)
{
    uint32_t lines = 0;
    enum err err = log_verify(RIG_DIRECTORY, NULL, count_line, &lines);
    assert_true(lines > 0 || err == ERR_NEWER);
    return err;
}

static void test_reopen_finds_all(void **state)
{
    (void)state;
    assert_int_equal(rig_open(rig), OK);
    fill(2500, 20);
    rig_close(rig);
    assert_int_equal(verify(), OK);
    reopen();
    assert_int_equal(rig->replayed, 2500);
    assert_int_equal(rig->damaged, 0);
    rig_read_all(rig);
    assert_int_equal(rig_find(rig, 3, 2), OK);
    fill(100, 20);
    rig_close(rig);
    assert_int_equal(verify(), OK);
    reopen();
    assert_int_equal(rig->replayed, 2600);
    rig_read_all(rig);
}

static void test_reopen_after_every_prefix(void **state)
{
    (void)state;
    rig->options.segment_bytes = 64 << 10;
    rig->options.batch_bytes_max = 16 << 10;
    rig->body_max = 2000;
    for (uint32_t i = 0; i < 120; i++) {
        assert_int_equal(rig_open(rig), OK);
        assert_int_equal(rig->damaged, 0);
        assert_int_equal(rig->replayed, i);
        rig_adopt(rig);
        fill(1, 3);
        assert_int_equal(rig->appended[i % 3] > 0 || i > 0, 1);
        if (i % 2 == 0)
            rig_close(rig);
        else
            rig_crash(rig, i);
    }
    reopen();
    assert_int_equal(rig->replayed, 120);
    rig_read_all(rig);
}

/* A last batch of 20 KiB; the disk keeps it up to a cut at each multiple of 512 B, then zeros or
 * what else stood there. */
static void test_torn_tail(void **state)
{
    (void)state;
    rig->body_max = 400;
    assert_int_equal(rig_open(rig), OK);
    fill(50, 4);
    uint32_t start = position_offset(log_durable(rig->log));
    uint64_t acked[4];
    memcpy(acked, rig->acked, sizeof acked);
    for (uint32_t i = 0; i < 80; i++)
        assert_int_equal(rig_append(rig, i % 4), OK);
    rig_turn(rig);
    uint32_t end = position_offset(log_durable(rig->log));
    assert_true(end - start > 16 << 10);
    struct fault_image *image = fault_save();
    rig_close(rig);
    for (uint32_t cut = 0; cut < end - start; cut += 512)
        for (uint32_t mode = 0; mode < 3; mode++) {
            fault_load(image);
            uint64_t size;
            uint8_t *data = fault_data(FIRST, &size);
            uint8_t *from = data + start + cut;
            static uint8_t before[64 << 10];
            memcpy(before, from, end - start - cut);
            if (mode == 2 && bytes_zero(from, 512))
                continue; /* padding: was zero before the write too, cannot be stale */
            if (mode == 0)
                memset(from, 0, end - start - cut); /* the rest never came */
            else if (mode == 1)
                memset(from, 0, 512); /* one sector is missing */
            else
                memset(from, 0xa5, 512); /* one is stale */
            bool whole = memcmp(before, from, end - start - cut) == 0;
            fault_settle();
            memset(rig->found, 0, sizeof rig->found);
            rig->acks = 0;
            assert_int_equal(rig_open(rig), OK);
            assert_int_equal(rig->damaged, 0);
            assert_true(rig->replayed == 50 || (whole && rig->replayed == 130));
            if (rig->replayed == 50) {
                data = fault_data(FIRST, &size);
                assert_true(bytes_zero(data + start, size - start)); /* cut and zeroed */
                memcpy(rig->acked, acked, sizeof acked);
                rig_adopt(rig);
                fill(20, 4);
                rig_read_all(rig);
            }
            rig_close(rig);
            assert_int_equal(verify(), OK);
            memset(rig->acked, 0, sizeof rig->acked);
            memset(rig->appended, 0xff, sizeof rig->appended);
        }
    fault_free(image);
}

/* In the middle, far below the durable mark: reported, not served, not cut, the rest is served. */
static void test_damage_is_reported_and_kept(void **state)
{
    (void)state;
    assert_int_equal(rig_open(rig), OK);
    fill(300, 3);
    rig_close(rig);
    struct fault_image *image = fault_save();
    uint64_t size;
    for (uint32_t trial = 0; trial < 3; trial++) {
        fault_load(image);
        uint8_t *data = fault_data(FIRST, &size);
        uint32_t offset = SEGMENT_DATA_OFFSET + 5 * 4096;
        if (trial == 0)
            data[offset + BATCH_HEADER_BYTES + 90] ^= 1; /* one record */
        else if (trial == 1)
            data[offset + 9] ^= 1; /* a batch header: ten records or so */
        else
            memset(data + offset, 0x77, 3 * 4096);
        fault_settle();
        assert_int_equal(verify(), ERR_CORRUPT);
        memset(rig->found, 0, sizeof rig->found);
        assert_int_equal(rig_open(rig), OK);
        assert_int_equal(rig->damaged + rig->replayed, 300);
        assert_true(trial == 0 ? rig->damaged == 1 : rig->damaged >= 10);
        rig_adopt(rig);
        uint64_t missing = 0;
        for (uint32_t c = 0; c < 3; c++) {
            uint64_t next = 1;
            while (next <= 100) {
                struct log_read read = rig_range(rig, c, next, 100, 1000, RIG_OUT_BYTES);
                enum err err = rig_await(rig, &read);
                next += rig_check(rig, &read, c, next);
                if (err == OK)
                    continue;
                assert_int_equal(err, ERR_CORRUPT);
                assert_int_equal(read.missing_from, next);
                assert_true(read.missing_to >= next && read.missing_to < 100);
                missing += read.missing_to + 1 - next;
                next = read.missing_to + 1;
            }
        }
        assert_int_equal(missing, rig->damaged);
        data = fault_data(FIRST, &size);
        assert_true(trial != 2 || data[offset] == 0x77); /* left as it was */
        fill(30, 3);
        rig_close(rig);
        memset(rig->acked, 0, sizeof rig->acked);
    }
    fault_free(image);
}

/* A record that goes bad while the log is open. */
static void test_damage_under_way(void **state)
{
    (void)state;
    assert_int_equal(rig_open(rig), OK);
    fill(2500, 5);
    uint64_t size;
    fault_data(FIRST, &size)[SEGMENT_DATA_OFFSET + 20 * 4096 + 200] ^= 4;
    uint64_t missing = 0;
    for (uint32_t c = 0; c < 5; c++)
        for (uint64_t next = 1; next <= rig->acked[c];) {
            struct log_read read = rig_range(rig, c, next, UINT64_MAX, 1000, RIG_OUT_BYTES);
            enum err err = rig_await(rig, &read);
            next += rig_check(rig, &read, c, next);
            if (err == OK)
                continue;
            assert_int_equal(err, ERR_CORRUPT);
            assert_int_equal(read.missing_from, next);
            assert_int_equal(read.missing_to, next);
            missing++;
            next++;
        }
    assert_int_equal(missing, 1);
}

static void test_checkpoint(void **state)
{
    (void)state;
    assert_int_equal(rig_open(rig), OK);
    fill(1500, 7);
    uint64_t checkpoint = log_durable(rig->log);
    log_checkpointed(rig->log, checkpoint);
    fill(800, 7);
    uint64_t acked = rig->acks;
    rig_close(rig);
    rig->options.checkpoint = checkpoint;
    reopen();
    assert_int_equal(rig->replayed, acked - 1500);
    assert_int_equal(rig->damaged, 0);
    rig_read_all(rig); /* history before the checkpoint too */
    assert_int_equal(rig_find(rig, 1, 1), OK);
    assert_int_equal(rig_find(rig, 1, 300), OK);
    checkpoint = log_durable(rig->log);
    rig_close(rig);
    rig->options.checkpoint = checkpoint; /* the newest state: nothing to replay */
    assert_int_equal(rig_open(rig), OK);
    assert_int_equal(rig->replayed, 0);
    rig_read_all(rig);
    fill(10, 7);
    rig_close(rig);
    assert_int_equal(rig_open(rig), OK);
    assert_int_equal(rig->replayed, 10);
}

/* A checkpoint ahead of the log (the log lost its end, or is an older copy): reported, and what is
 * appended from then on is replayed from that checkpoint. */
static void test_checkpoint_ahead(void **state)
{
    (void)state;
    static const uint64_t ahead[] = {40960, 1ull << 32, 5ull << 32};
    for (size_t i = 0; i < COUNT_OF(ahead); i++) {
        fault_reset();
        rig_init(rig);
        assert_int_equal(rig_open(rig), OK);
        fill(100, 2);
        uint64_t end = log_durable(rig->log);
        rig_close(rig);
        rig->options.checkpoint = align_up(end + ahead[i], 4096);
        assert_int_equal(rig_open(rig), OK);
        assert_true(rig->damaged > 0);
        assert_int_equal(rig->replayed, 0);
        fill(50, 2);
        assert_true(log_durable(rig->log) > rig->options.checkpoint);
        rig_read_all(rig);
        rig_crash(rig, 7);
        assert_int_equal(rig_open(rig), OK);
        assert_int_equal(rig->replayed, 50);
        rig_read_all(rig);
        rig_close(rig);
    }
}

static void test_sidecar_lost_or_damaged(void **state)
{
    (void)state;
    assert_int_equal(rig_open(rig), OK);
    fill(4000, 30);
    uint64_t checkpoint = log_durable(rig->log);
    rig_close(rig);
    rig->options.checkpoint = checkpoint;
    fault_remove(RIG_DIRECTORY "/00000001.index");
    uint64_t size;
    uint8_t *data = fault_data(RIG_DIRECTORY "/00000002.index", &size);
    data[4096 + 100] ^= 1; /* an entry block: seen when it is read */
    data = fault_data(RIG_DIRECTORY "/00000003.index", &size);
    data[size - 1] ^= 1; /* the summary: seen when it is loaded */
    fault_settle();
    assert_int_equal(verify(), ERR_CORRUPT);
    assert_int_equal(rig_open(rig), OK);
    rig_read_all(rig);
    rig_close(rig);
    assert_int_equal(verify(), OK); /* all were rebuilt */
}

/* The sidecar of another life: the same id, another nonce; what it says is not believed. */
static void test_sidecar_of_another_life(void **state)
{
    (void)state;
    uint64_t size;
    uint8_t *stale;
    int fd;
    assert_int_equal(rig_open(rig), OK);
    fill(2000, 3);
    rig_close(rig);
    uint8_t *data = fault_data(RIG_DIRECTORY "/00000001.index", &size);
    assert_non_null(data);
    stale = malloc(size);
    memcpy(stale, data, size);
    fault_reset();
    io_entropy(fault_io(), &fd, sizeof fd); /* other nonces */
    rig_init(rig);
    assert_int_equal(rig_open(rig), OK);
    fill(4000, 30);
    uint64_t checkpoint = log_durable(rig->log);
    rig_close(rig);
    for (uint32_t round = 0; round < 2; round++) {
        fault_remove(RIG_DIRECTORY "/00000001.index");
        assert_int_equal(file_open(&fd, RIG_DIRECTORY "/00000001.index", FILE_WRITE | FILE_CREATE),
                         OK);
        assert_int_equal(file_write(fd, 0, bytes_of(stale, size)), OK);
        file_close(fd);
        fault_settle();
        rig->options.checkpoint = round == 0 ? checkpoint : 0; /* loaded later; or walked */
        memcpy(rig->found, rig->acked, sizeof rig->found);
        assert_int_equal(rig_open(rig), OK);
        rig_adopt(rig);
        rig_read_all(rig);
        rig_close(rig);
        assert_int_equal(verify(), OK); /* it was rebuilt */
    }
    free(stale);
}

/* A device that refuses once while the active segment is read: its index lacks something, and the
 * sidecar that is written when it is sealed must not. */
static void test_unread_is_read_again(void **state)
{
    (void)state;
    rig->options.segment_bytes = 64 << 10;
    rig->options.batch_bytes_max = 16 << 10;
    assert_int_equal(rig_open(rig), OK);
    fill(150, 5);
    uint64_t checkpoint = log_durable(rig->log);
    memcpy(rig->found, rig->acked, sizeof rig->found);
    rig_close(rig);
    rig->options.checkpoint = checkpoint;
    struct fault_image *image = fault_save();
    struct rig *before = malloc(sizeof *before);
    memcpy(before, rig, sizeof *rig);
    uint32_t unread = 0;
    for (uint64_t n = 1; n < 60; n++) {
        memcpy(rig, before, sizeof *rig);
        fault_calm();
        fault_load(image);
        fault.fail_at[FAULT_READ] = n;
        fault.fail_more = 1; /* the window, and its first block */
        enum err err = rig_open(rig);
        bool reached = fault.fail_at[FAULT_READ] == 0;
        fault_calm();
        if (err != OK)
            continue;
        rig_adopt(rig);
        unread += rig->log->segments[rig->log->active]->unread;
        fill(500, 5); /* it is sealed */
        fault_pass(2 * LANE_RETRY_NS);
        fill(10, 5);
        rig_read_all(rig);
        rig_close(rig);
        if (!reached)
            break;
    }
    assert_true(unread > 0);
    free(before);
    fault_free(image);
}

/* test_sealing_backs_off: what cannot be read is tried again seldom, and soon enough. */
static void test_sealing_backs_off(void **state)
{
    (void)state;
    rig->options.segment_bytes = 64 << 10;
    rig->options.batch_bytes_max = 16 << 10;
    assert_int_equal(rig_open(rig), OK);
    fill(150, 5);
    rig_settle(rig);
    struct lane_segment *segment = rig->log->segments[rig->log->active];
    segment->unread = true; /* as after a refused read while it was opened */
    fault.fail_at[FAULT_READ] = 1;
    fault.fail_sticky = true;
    fill(500, 5); /* it would be sealed */
    for (uint32_t s = 0; s < 3600; s++) {
        fault_pass(NS_PER_S);
        rig_turn(rig);
    }
    assert_int_equal(segment->state, SEGMENT_SEALING);
    assert_in_range(segment->seal_failures, 12, 24); /* 1, 2, 4 … 256 s, then every 5 min */
    fault_calm();
    fault_pass(LANE_RETRY_MAX_NS);
    rig_settle(rig);
    assert_int_equal(segment->state, SEGMENT_SEALED);
    rig_read_all(rig);
}

static void test_header_copies(void **state)
{
    (void)state;
    assert_int_equal(rig_open(rig), OK);
    fill(2500, 10);
    rig_close(rig);
    uint64_t size;
    fault_data(FIRST, &size)[3] ^= 1;
    fault_data(SECOND, &size)[SEGMENT_BLOCK + 3] ^= 1;
    fault_settle();
    assert_int_equal(verify(), ERR_CORRUPT);
    reopen();
    assert_int_equal(rig->damaged, 0); /* no record is lost */
    rig_read_all(rig);
    rig_close(rig);
    /* both copies of one: that segment's records are lost, exactly counted, the rest serves */
    fault_data(FIRST, &size)[SEGMENT_BLOCK + 3] ^= 1;
    fault_settle();
    memset(rig->found, 0, sizeof rig->found);
    assert_int_equal(rig_open(rig), OK);
    assert_int_equal(rig->damaged + rig->replayed, 2500);
    assert_true(rig->damaged > 500);
    struct log_read read = rig_range(rig, 0, 1, UINT64_MAX, 1000, RIG_OUT_BYTES);
    assert_int_equal(rig_await(rig, &read), ERR_CORRUPT);
    assert_int_equal(read.missing_from, 1);
    assert_true(read.missing_to > 10);
    uint64_t next = read.missing_to + 1;
    read = rig_range(rig, 0, next, UINT64_MAX, 1000, RIG_OUT_BYTES);
    assert_int_equal(rig_await(rig, &read), OK);
    assert_int_equal(rig_check(rig, &read, 0, next), rig->acked[0] + 1 - next);
}

static void test_newer_version(void **state)
{
    (void)state;
    assert_int_equal(rig_open(rig), OK);
    fill(10, 1);
    rig_close(rig);
    uint64_t size;
    uint8_t *data = fault_data(FIRST, &size);
    for (uint32_t copy = 0; copy < 2; copy++, data += SEGMENT_BLOCK) {
        store_u16(data + 8, SEGMENT_VERSION + 1);
        store_u32(data + 60, crc32c(0, bytes_of(data, 60)));
    }
    fault_settle();
    assert_int_equal(rig_open(rig), ERR_NEWER);
    assert_int_equal(verify(), ERR_NEWER);
}

/* The device refuses to read: not the same as torn. Nothing may be cut. */
static void test_unreadable_tail_refuses(void **state)
{
    (void)state;
    assert_int_equal(rig_open(rig), OK);
    fill(40, 2);
    rig_crash(rig, 1);
    struct fault_image *image = fault_save();
    for (uint64_t n = 1; n < 30; n++) {
        fault_load(image);
        fault.fail_at[FAULT_READ] = n;
        fault.fail_sticky = true;
        memset(rig->found, 0, sizeof rig->found);
        enum err err = rig_open(rig);
        assert_true(err == ERR_IO || (err == OK && rig->replayed == 40));
        fault_calm();
        if (err == OK)
            rig_close(rig);
        memset(rig->found, 0, sizeof rig->found);
        assert_int_equal(rig_open(rig), OK);
        assert_int_equal(rig->replayed, 40);
        rig_close(rig);
    }
    fault_free(image);
}

/* Bytes of a client that look like a batch from an older life of the segment are not taken for one.
 */
static void test_forged_batch_in_a_body(void **state)
{
    (void)state;
    assert_int_equal(rig_open(rig), OK);
    fill(1, 1);
    rig_close(rig);
    reopen();
    static uint8_t body[5 * 4096];
    struct segment_header header = {.id = 1, .bytes = rig->options.segment_bytes, .nonce = 12345};
    struct segment_key key = segment_key_of(&header);
    uint64_t size;
    uint32_t start = position_offset(log_durable(rig->log));
    uint32_t first = start + BATCH_HEADER_BYTES + RECORD_HEADER_BYTES;
    struct batch_header batch = {.position = position_of(1, start + 4096),
                                 .previous_end = position_of(1, start + 4096),
                                 .durable_before = position_of(1, start + 4096),
                                 .length = BATCH_HEADER_BYTES};
    batch_header_encode(body + (start + 4096 - first), &batch, &key);
    struct log_record record = {.kind = RECORD_WATERMARK, .body = bytes_of(body, sizeof body)};
    assert_int_equal(log_append(rig->log, &record, (uint64_t)RIG_CONVERSATIONS << 48), OK);
    rig_turn(rig);
    fault_data(FIRST, &size)[start + 8] ^= 1; /* its header is torn */
    rig_crash(rig, 1);
    memset(rig->found, 0, sizeof rig->found);
    assert_int_equal(rig_open(rig), OK);
    assert_int_equal(rig->damaged, 0); /* tail, not damage */
    assert_int_equal(rig->replayed, 1);
}

static void test_every_bit_flip_is_detected(void **state)
{
    (void)state;
    rig->options.segment_bytes = 64 << 10;
    rig->options.batch_bytes_max = 8 << 10;
    rig->body_max = 200;
    assert_int_equal(rig_open(rig), OK);
    fill(20, 2);
    uint8_t zeros[7000] = {0}; /* fills the segment with bytes that need no flips */
    struct log_record record = {.kind = RECORD_WATERMARK, .body = bytes_of(zeros, sizeof zeros)};
    while (position_segment(log_durable(rig->log)) == 1) {
        uint64_t cookie = (uint64_t)RIG_CONVERSATIONS << 48;
        assert_int_equal(log_append(rig->log, &record, cookie), OK);
        rig_settle(rig);
    }
    rig_close(rig);
    assert_int_equal(verify(), OK);
    bool every = getenv("ROOST_EVERY_BIT") != NULL;
    uint64_t size;
    for (uint32_t file = 0; file < 2; file++) {
        const char *path = file == 0 ? FIRST : RIG_DIRECTORY "/00000001.index";
        uint8_t *data = fault_data(path, &size);
        assert_non_null(data);
        /* Every bit of every byte that is not zero and of those around it; of long runs of zeros
         * (padding) one bit in 64 bytes, or, with ROOST_EVERY_BIT, every bit too. */
        for (uint64_t at = 0; at < size; at++) {
            bool padding = !every && at >= 8 && at + 8 < size && bytes_zero(data + at - 8, 16);
            if (padding && at % 64 != 0)
                continue;
            for (uint32_t bit = padding ? at / 64 % 8 : 0; bit < 8; bit += padding ? 8 : 1) {
                data[at] ^= (uint8_t)(1u << bit);
                if (verify() != ERR_CORRUPT)
                    fail_msg("%s byte %u bit %u", path, (unsigned)at, bit);
                data[at] ^= (uint8_t)(1u << bit);
            }
        }
    }
    assert_int_equal(verify(), OK);
}

/* A killed process leaves a batch that is written but not synced; what recovery then hands out must
 * survive the power cut that follows. */
static void test_what_was_recovered_is_durable(void **state)
{
    (void)state;
    assert_int_equal(rig_open(rig), OK);
    fill(10, 1);
    rig->options.skip_sync = true;
    for (uint32_t i = 0; i < 5; i++)
        assert_int_equal(rig_append(rig, 0), OK);
    fault.hold = true;
    log_flush(rig->log); /* written, its sync never returns */
    struct fault_image *image = fault_save();
    fault_calm();
    log_close(rig->log);
    fault_load(image);
    fault_free(image);
    fault_kill();
    rig->options.skip_sync = false;
    reopen();
    assert_int_equal(rig->replayed, 15);
    image = fault_save();
    log_abandon(rig->log);
    fault_load(image);
    fault_free(image);
    fault_crash(0);
    reopen();
    assert_int_equal(rig->replayed, 15);
    assert_int_equal(rig->damaged, 0);
    rig_read_all(rig);
}

static void test_foreign_directory_is_refused(void **state)
{
    (void)state;
    assert_int_equal(rig_open(rig), OK);
    fill(10, 1);
    rig_close(rig);
    rig->options.lane = 1;
    assert_int_equal(rig_open(rig), ERR_INVALID);
}

static void test_crash_while_making_segments(void **state)
{
    (void)state;
    rig->options.segment_bytes = 64 << 10;
    rig->options.batch_bytes_max = 16 << 10;
    for (uint64_t seed = 2; seed < 60; seed++) {
        assert_int_equal(rig_open(rig), OK);
        rig_adopt(rig);
        for (uint32_t i = 0; i < seed * 3; i++) {
            assert_int_equal(rig_append_now(rig, i % 5), OK);
            if (i % 7 == 0)
                rig_turn(rig);
        }
        rig_crash(rig, seed);
    }
    reopen();
    assert_int_equal(rig->damaged, 0);
    rig_read_all(rig);
    rig_close(rig);
    assert_int_equal(verify(), OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(test_reopen_finds_all),
        FIXTURE_TEST(test_reopen_after_every_prefix),
        FIXTURE_TEST(test_torn_tail),
        FIXTURE_TEST(test_damage_is_reported_and_kept),
        FIXTURE_TEST(test_damage_under_way),
        FIXTURE_TEST(test_checkpoint),
        FIXTURE_TEST(test_checkpoint_ahead),
        FIXTURE_TEST(test_sidecar_lost_or_damaged),
        FIXTURE_TEST(test_sidecar_of_another_life),
        FIXTURE_TEST(test_unread_is_read_again),
        FIXTURE_TEST(test_sealing_backs_off),
        FIXTURE_TEST(test_header_copies),
        FIXTURE_TEST(test_newer_version),
        FIXTURE_TEST(test_unreadable_tail_refuses),
        FIXTURE_TEST(test_forged_batch_in_a_body),
        FIXTURE_TEST(test_what_was_recovered_is_durable),
        FIXTURE_TEST(test_foreign_directory_is_refused),
        FIXTURE_TEST(test_crash_while_making_segments),
        FIXTURE_TEST(test_every_bit_flip_is_detected),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
