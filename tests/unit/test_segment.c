/* test_segment.c: the format's bytes, and a lane on real files through the real io. */
#include "core/file.h"
#include "core/hash.h"
#include "core/memory.h"
#include "core/worker.h"
#include "store/segment.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static const struct segment_header header = {
    .id = 5, .lane = 2, .bytes = 1 << 20, .nonce = 0x1122334455667788, .created_ms = 99};

static void test_header_bytes(void **state)
{
    (void)state;
    uint8_t bytes[SEGMENT_DATA_OFFSET];
    struct segment_header back;
    segment_header_encode(bytes, &header);
    assert_memory_equal(bytes, "ROOSTLOG\1\0\0\0\2\0\0\0\5\0\0\0\0\x10\0\0\0\0\x10\0\0\0\0\0", 32);
    assert_int_equal(load_u64(bytes + 32), 5ull << 32 | 8192);
    assert_memory_equal(bytes, bytes + SEGMENT_BLOCK, SEGMENT_BLOCK);
    assert_int_equal(segment_header_decode(&back, bytes), OK);
    assert_memory_equal(&back, &header, sizeof back);
    for (uint32_t bit = 0; bit < 64 * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(segment_header_decode(&back, bytes), ERR_CORRUPT);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

static void test_batch_header(void **state)
{
    (void)state;
    struct segment_key key = segment_key_of(&header);
    struct batch_header batch = {.position = position_of(5, 12288),
                                 .previous_end = position_of(5, 12288),
                                 .durable_before = position_of(5, 8192),
                                 .writer_epoch = 3,
                                 .wall_ms = 4,
                                 .record_base = 77,
                                 .records = 2,
                                 .length = 72 + 176,
                                 .lane = 2};
    uint8_t bytes[BATCH_HEADER_BYTES];
    struct batch_header back;
    batch_header_encode(bytes, &batch, &key);
    assert_int_equal(batch_header_decode(&back, bytes, &key, 12288, 1 << 20), OK);
    uint8_t again[BATCH_HEADER_BYTES]; /* the structs have padding */
    batch_header_encode(again, &back, &key);
    assert_memory_equal(again, bytes, sizeof again);
    assert_int_equal(batch_header_decode(&back, bytes, &key, 16384, 1 << 20), ERR_CORRUPT);
    struct segment_header other = header;
    other.nonce++; /* the file's next life */
    struct segment_key other_key = segment_key_of(&other);
    assert_int_equal(batch_header_decode(&back, bytes, &other_key, 12288, 1 << 20), ERR_CORRUPT);
    assert_int_equal(batch_header_decode(&back, bytes, &key, 12288, 12288 + 100), ERR_CORRUPT);
    batch.records = 3; /* more than fit */
    batch_header_encode(bytes, &batch, &key);
    assert_int_equal(batch_header_decode(&back, bytes, &key, 12288, 1 << 20), ERR_CORRUPT);
    batch.records = 2;
    batch.durable_before = batch.position + 1; /* from the future */
    batch_header_encode(bytes, &batch, &key);
    assert_int_equal(batch_header_decode(&back, bytes, &key, 12288, 1 << 20), ERR_CORRUPT);
}

static void test_record(void **state)
{
    (void)state;
    struct segment_key key = segment_key_of(&header);
    struct log_record record = {.realm = {1},
                                .key = 2,
                                .kind = RECORD_MEMBERSHIP,
                                .expires_ms = 3,
                                .conversation = {4, 5},
                                .seq = 6,
                                .sender = {7},
                                .device = {8},
                                .message_id = {{9, 10}},
                                .time_ms = 11,
                                .body = bytes_of("hello", 5)};
    uint8_t bytes[96];
    struct log_record back;
    size_t taken;
    assert_int_equal(record_bytes(5), 96);
    memset(bytes, 0xff, sizeof bytes);
    record_encode(bytes, &record, &key, 8264);
    assert_int_equal(record_decode(&back, bytes_of(bytes, 96), &key, 8264, &taken), OK);
    assert_int_equal(taken, 96);
    assert_int_equal(back.realm.v + back.key + back.kind + back.expires_ms, 1 + 2 + 3 + 3);
    assert_int_equal(back.conversation.hi * 10 + back.conversation.lo, 45);
    assert_int_equal(back.seq * 1000 + back.sender.v * 100 + back.device.v, 6708);
    assert_int_equal(back.time_ms, 11);
    assert_memory_equal(back.message_id.v, record.message_id.v, 16);
    assert_true(bytes_equal(back.body, record.body));
    for (uint32_t bit = 0; bit < 96 * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(record_decode(&back, bytes_of(bytes, 96), &key, 8264, &taken),
                         ERR_CORRUPT);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    assert_int_equal(record_decode(&back, bytes_of(bytes, 95), &key, 8264, &taken), ERR_CORRUPT);
    assert_int_equal(record_decode(&back, bytes_of(bytes, 96), &key, 8272, &taken), ERR_CORRUPT);
    struct bytes encoded = bytes_of(bytes, 96);
    assert_int_equal(log_record_next(&encoded, &back), OK);
    assert_int_equal(log_record_next(&encoded, &back), ERR_NOT_FOUND);
    encoded = bytes_of(bytes, 40);
    assert_int_equal(log_record_next(&encoded, &back), ERR_CORRUPT);
}

static void test_names(void **state)
{
    (void)state;
    char name[SEGMENT_NAME_BYTES];
    uint32_t id;
    segment_name(name, 0x2a, ".segment");
    assert_string_equal(name, "0000002a.segment");
    assert_int_equal(segment_name_parse(&id, name, ".segment"), OK);
    assert_int_equal(id, 0x2a);
    assert_int_equal(segment_name_parse(&id, "0000002a.index", ".segment"), ERR_INVALID);
    assert_int_equal(segment_name_parse(&id, "00000000.segment", ".segment"), ERR_INVALID);
    assert_int_equal(segment_name_parse(&id, "2a.segment", ".segment"), ERR_INVALID);
    assert_int_equal(segment_name_parse(&id, "0000002A.segment", ".segment"), ERR_INVALID);
}

/* ---- on real files */

struct real {
    struct io_group *group;
    struct io *io;
    struct workers *workers;
    struct log *log;
    uint64_t completed;
    uint64_t replayed;
};

static void real_turn(struct real *r)
{
    struct io_event events[8];
    struct worker_job *job;
    struct log_completion done;
    log_flush(r->log);
    size_t count = io_poll(r->io, events, 8, io_now_ns(r->io) + 5 * NS_PER_MS);
    for (size_t i = 0; i < count; i++)
        if (events[i].kind == IO_FILE_DONE && log_owns(r->log, events[i].op))
            log_on_file(r->log, events[i].op);
    while ((job = worker_completed(r->workers, 0)) != NULL)
        job->done(job, NULL);
    while (log_completed(r->log, &done)) {
        assert_int_equal(done.err, OK);
        assert_int_equal(done.cookie, ++r->completed);
    }
}

static void on_replay(void *context, const struct log_record *record, uint64_t position)
{
    struct real *r = context;
    (void)position;
    assert_int_equal(record->seq, ++r->replayed);
}

static void real_open(struct real *r, const char *directory)
{
    struct log_options options = {.directory = directory,
                                  .segment_bytes = 1 << 20,
                                  .batch_bytes_max = 256 << 10,
                                  .writer_epoch = 1,
                                  .direct = true};
    uint64_t damaged;
    r->replayed = 0;
    assert_int_equal(log_open(&r->log, &options, r->io, r->workers, NULL, on_replay, r, &damaged),
                     OK);
    assert_int_equal(damaged, 0);
}

static void print_finding(void *context, const char *line)
{
    (void)context;
    puts(line);
}

static void real_read_all(struct real *r, uint64_t records)
{
    static uint8_t out[1 << 20];
    for (uint64_t next = 1; next <= records;) {
        struct log_read read = {.kind = LOG_READ_RANGE,
                                .conversation = {1, 2},
                                .from_seq = next,
                                .to_seq = records,
                                .records_max = 700,
                                .out = buffer_of(out, sizeof out)};
        assert_int_equal(log_read(r->log, &read), OK);
        while (log_read_done(r->log) == NULL)
            real_turn(r);
        assert_int_equal(read.err, OK);
        struct bytes rest = buffer_bytes(&read.out);
        struct log_record record;
        while (log_record_next(&rest, &record) == OK) {
            assert_int_equal(record.seq, next++);
            assert_int_equal(load_u64(record.body.data), record.seq);
        }
    }
}

static enum err remove_entry(void *context, const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", (const char *)context, name);
    return file_remove(path);
}

static void test_on_real_files(void **state)
{
    (void)state;
    char directory[] = "out/test_segment.XXXXXX";
    assert_non_null(mkdtemp(directory));
    struct real r = {.log = NULL};
    struct io_options io = {.count = 1,
                            .connections_max = 16,
                            .buffers_count = 16,
                            .buffer_bytes = 4096,
                            .files_max = 64,
                            .cpu = -1};
    struct worker_options workers = {.shards = 1};
    for (uint32_t i = 0; i < WORKER_CLASS_COUNT; i++) {
        workers.threads[i] = 1;
        workers.queue_max[i] = 16;
    }
    assert_int_equal(io_group_create(&r.group, 1), OK);
    assert_int_equal(io_create(&r.io, r.group, &io), OK);
    assert_int_equal(workers_create(&r.workers, r.group, &workers), OK);
    real_open(&r, directory);
    uint8_t body[1000] = {0};
    const uint64_t records = 4000; /* four segments */
    for (uint64_t seq = 1; seq <= records;) {
        store_u64(body, seq);
        struct log_record record = {.kind = RECORD_MESSAGE,
                                    .conversation = {1, 2},
                                    .seq = seq,
                                    .sender = {3},
                                    .message_id = {{1}},
                                    .body = bytes_of(body, sizeof body)};
        enum err err = log_append(r.log, &record, seq);
        assert_true(err == OK || err == ERR_FULL);
        seq += err == OK;
        if (err == ERR_FULL || seq % 100 == 0)
            real_turn(&r);
    }
    while (r.completed < records)
        real_turn(&r);
    real_read_all(&r, records);
    log_close(r.log);
    assert_int_equal(log_verify(directory, NULL, print_finding, NULL), OK);
    real_open(&r, directory);
    assert_int_equal(r.replayed, records);
    real_read_all(&r, records);
    log_close(r.log);
    workers_destroy(r.workers);
    io_destroy(r.io);
    io_group_destroy(r.group);
    assert_int_equal(memory_bytes(MEMORY_STORE), 0);
    assert_int_equal(file_list(directory, remove_entry, directory), OK);
    assert_int_equal(remove(directory), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_header_bytes),  cmocka_unit_test(test_batch_header),
        cmocka_unit_test(test_record),        cmocka_unit_test(test_names),
        cmocka_unit_test(test_on_real_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
