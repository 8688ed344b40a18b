/* test_log_append.c: append, commit, completion, states, and every N-th failure. */
#include "tests/unit/log_fixture.h"

static void test_append_completes_in_order(void **state)
{
    (void)state;
    assert_int_equal(rig_open(rig), OK);
    for (uint32_t i = 0; i < 500; i++)
        assert_int_equal(rig_append_now(rig, i % 5), OK);
    rig_settle(rig);
    assert_int_equal(rig->acks, 500);
    rig_read_all(rig);
}

static void test_not_durable_is_not_served(void **state)
{
    (void)state;
    assert_int_equal(rig_open(rig), OK);
    assert_int_equal(rig_append(rig, 0), OK);
    rig_settle(rig);
    assert_int_equal(rig_append(rig, 0), OK);
    struct log_read read = rig_range(rig, 0, 1, 9, 9, RIG_OUT_BYTES);
    fault.hold = true;
    rig_turn(rig); /* the second is in flight */
    assert_int_equal(log_read(rig->log, &read), OK);
    fault.hold = false;
    struct io_event events[8];
    assert_int_equal(io_poll(fault_io(), events, 8, 0), 2);
    for (int i = 0; i < 2; i++)
        if (events[i].op == read.state || events[i].op->data != NULL)
            log_on_file(rig->log, events[i].op);
    struct log_read *done = log_read_done(rig->log);
    assert_ptr_equal(done, &read);
    assert_int_equal(read.err, OK);
    assert_int_equal(rig_check(rig, &read, 0, 1), 1);
    for (int i = 0; i < 2; i++)
        if (events[i].op->data == NULL)
            log_on_file(rig->log, events[i].op);
    rig_take_completions(rig);
    assert_int_equal(rig->acks, 2);
}

static void test_full_batch_refuses_all_until_written(void **state)
{
    (void)state;
    rig->body_max = 0;
    assert_int_equal(rig_open(rig), OK);
    uint32_t count = 0;
    enum err err;
    rig->body_max = 2000;
    while ((err = rig_append(rig, 1)) == OK)
        count++;
    assert_int_equal(err, ERR_FULL);
    assert_true(count > 20);
    assert_int_equal(rig_append_watermark(rig, 1), ERR_FULL); /* though it would fit */
    rig_settle(rig);
    assert_int_equal(rig->acks, count);
    assert_int_equal(rig_append(rig, 1), OK);
}

/* write_gathered: without taking what completed. */
static void write_gathered(void)
{
    struct io_event events[8];
    log_flush(rig->log);
    size_t count = io_poll(fault_io(), events, 8, 0);
    for (size_t i = 0; i < count; i++)
        log_on_file(rig->log, events[i].op);
}

/* test_answers_keep_their_order: however many are owed, and wherever in their ring they begin. */
static void test_answers_keep_their_order(void **state)
{
    (void)state;
    rig->body_max = 8;
    rig->options.segment_bytes = 4 << 20;
    assert_int_equal(rig_open(rig), OK);
    uint64_t owed = 0;
    for (uint32_t round = 0; round < 60; round++) {
        for (uint32_t i = 0; i < 10 + round * 37 % 300; i++, owed++)
            assert_int_equal(rig_append(rig, 0), OK);
        write_gathered();
        uint64_t take = round % 7 == 6 ? owed : owed / 2 + 1;
        if (owed > 800)
            take = owed;
        for (; take > 0; take--, owed--) {
            struct log_completion done;
            assert_true(log_completed(rig->log, &done));
            assert_int_equal(done.err, OK);
            assert_int_equal(done.cookie, ++rig->acked[0]);
            rig->acks++;
        }
    }
    rig_settle(rig);
    assert_int_equal(rig->acked[0], rig->acks);
}

static void test_too_big(void **state)
{
    (void)state;
    assert_int_equal(rig_open(rig), OK);
    struct log_record record = rig_record(rig, 0, 1);
    size_t most = (64 << 10) - BATCH_HEADER_BYTES - RECORD_HEADER_BYTES;
    record.body = bytes_of(rig->body, most + 1);
    assert_int_equal(log_append(rig->log, &record, 0), ERR_TOO_BIG);
    record.body = bytes_of(rig->out, SIZE_MAX - 4);
    assert_int_equal(log_append(rig->log, &record, 0), ERR_TOO_BIG);
    record.body = bytes_of(rig->body, most);
    record.kind = RECORD_WATERMARK;
    record.seq = 0;
    assert_int_equal(log_append(rig->log, &record, (uint64_t)RIG_CONVERSATIONS << 48), OK);
    rig_settle(rig);
    assert_int_equal(rig->acks, 1);
}

static void test_out_of_order_is_refused(void **state)
{
    (void)state;
    assert_int_equal(rig_open(rig), OK);
    assert_int_equal(rig_append(rig, 0), OK);
    assert_int_equal(rig_append(rig, 0), OK);
    struct log_record record = rig_record(rig, 0, 2);
    assert_int_equal(log_append(rig->log, &record, 0), ERR_INVALID);
    rig_settle(rig);
    assert_int_equal(rig->acks, 2);
}

static void test_rolls_and_seals(void **state)
{
    (void)state;
    assert_int_equal(rig_open(rig), OK);
    for (uint32_t i = 0; i < 4000; i++) {
        assert_int_equal(rig_append_now(rig, i % 50), OK);
        if (i % 100 == 0)
            rig_turn(rig);
    }
    rig_settle(rig);
    uint64_t size;
    assert_non_null(fault_data(RIG_DIRECTORY "/00000001.index", &size));
    assert_non_null(fault_data(RIG_DIRECTORY "/00000004.segment", &size));
    rig_read_all(rig);
    for (uint32_t i = 1; i < 80; i += 7)
        assert_int_equal(rig_find(rig, i % 50, i), i <= rig->acked[i % 50] ? OK : ERR_NOT_FOUND);
}

/* alike: a message of conversation 0 whose fingerprint in the first segment is `print`, if any is
 * from *id on. */
static struct log_record alike(uint64_t seq, uint16_t print, uint64_t *id)
{
    struct log_record record = rig_record(rig, 0, seq);
    record.sender.v = record.device.v = 1;
    record.body = bytes_of(NULL, 0);
    do
        store_u64(record.message_id.v, ++*id);
    while ((uint16_t)segment_print(&rig->log->segments[0]->key, record.conversation, record.sender,
                                   record.device, record.message_id) != print);
    return record;
}

static enum err find(const struct log_record *record)
{
    struct log_read read = {.kind = LOG_READ_FIND,
                            .conversation = record->conversation,
                            .sender = record->sender,
                            .device = record->device,
                            .message_id = record->message_id,
                            .records_max = 1,
                            .out = buffer_of(rig->out, RIG_OUT_BYTES)};
    return rig_await(rig, &read);
}

/* test_too_many_alike: a message that is not among as many as are looked at may still be there. */
static void test_too_many_alike(void **state)
{
    (void)state;
    const uint16_t print = 77;
    uint64_t id = 0;
    rig->options.segment_bytes = 4 << 20;
    assert_int_equal(rig_open(rig), OK);
    struct log_record first = alike(1, print, &id);
    for (uint32_t seq = 1; seq <= SIDECAR_HITS; seq++) {
        struct log_record record = seq == 1 ? first : alike(seq, print, &id);
        if (seq == SIDECAR_HITS) {
            struct log_record none = record;
            assert_int_equal(find(&none), ERR_NOT_FOUND);
            assert_int_equal(find(&first), OK);
        }
        assert_int_equal(log_append(rig->log, &record, seq), OK);
        rig->appended[0] = seq;
        rig_turn(rig);
    }
    struct log_record none = alike(SIDECAR_HITS + 1, print, &id);
    assert_int_equal(find(&none), ERR_CORRUPT);
    assert_int_equal(find(&first), OK);
}

static void test_no_space_and_back(void **state)
{
    (void)state;
    fault.capacity = 4 * (256 << 10);
    rig->options.reserve_bytes = 256 << 10;
    assert_int_equal(rig_open(rig), OK);
    enum err err;
    while ((err = rig_append_now(rig, 3)) == OK)
        ;
    assert_int_equal(err, ERR_NO_SPACE);
    assert_int_equal(log_state(rig->log), LOG_NO_SPACE);
    rig_settle(rig);
    assert_int_equal(rig->acked[3], rig->appended[3]); /* all that was accepted */
    rig_read_all(rig);
    assert_int_equal(rig_append(rig, 3), ERR_NO_SPACE);
    fault.capacity = 0;
    uint64_t opens = fault.count[FAULT_OTHER];
    rig_turn(rig);
    rig_turn(rig);
    assert_int_equal(fault.count[FAULT_OTHER], opens); /* not before a second has passed */
    assert_int_equal(rig_append(rig, 3), ERR_NO_SPACE);
    fault_pass(NS_PER_S);
    rig_settle(rig);
    assert_int_equal(log_state(rig->log), LOG_OPEN);
    for (uint32_t i = 0; i < 100; i++)
        assert_int_equal(rig_append_now(rig, 3), OK);
    rig_settle(rig);
    rig_read_all(rig);
}

/* scenario: open, 300 records over two segments, reads, close; stops at the first refusal. */
static void scenario(void)
{
    if (rig_open(rig) != OK)
        return;
    for (uint32_t i = 0; i < 3000 && log_state(rig->log) == LOG_OPEN; i++) {
        if (rig_append(rig, i % 9) != OK)
            rig_turn(rig);
        if (i % 50 == 0)
            rig_turn(rig);
        if (i % 500 == 499) {
            struct log_read read = rig_range(rig, i % 9, 1, UINT64_MAX, 100, RIG_OUT_BYTES);
            rig_await(rig, &read);
            rig_check(rig, &read, i % 9, 1);
        }
    }
    rig_close(rig);
}

static void fail_every(enum fault_op op, enum err err)
{
    uint64_t most = UINT64_MAX;
    for (uint64_t n = 0; n <= most; n++) {
        fault_reset();
        uint64_t body_max = rig->body_max;
        rig_init(rig);
        rig->body_max = body_max;
        fault.fail_at[op] = n;
        fault.fail_err = err;
        scenario();
        if (n == 0)
            most = fault.count[op];
        assert_int_equal(fault_open_descriptors(), 0);
        /* whatever was acknowledged is there when the disk works again */
        fault_calm();
        fault_crash(n + 2);
        uint64_t acked = rig->acks;
        assert_int_equal(rig_open(rig), OK);
        assert_int_equal(rig->damaged, 0);
        assert_true(rig->replayed >= acked);
        rig_adopt(rig);
        rig_read_all(rig);
        rig_close(rig);
        if (n == most)
            assert_true(n > 3);
    }
}

static void test_every_write_fails(void **state)
{
    (void)state;
    rig->body_max = 900;
    fail_every(FAULT_WRITE, ERR_IO);
    fail_every(FAULT_WRITE, ERR_NO_SPACE);
}

static void test_every_sync_fails(void **state)
{
    (void)state;
    rig->body_max = 900;
    fail_every(FAULT_SYNC, ERR_IO);
}

static void test_every_read_fails(void **state)
{
    (void)state;
    fail_every(FAULT_READ, ERR_IO);
}

static void test_every_other_call_fails(void **state)
{
    (void)state;
    fail_every(FAULT_OTHER, ERR_IO);
    fail_every(FAULT_OTHER, ERR_NO_DESCRIPTORS);
}

static void test_every_allocation_fails(void **state)
{
    (void)state;
    for (uint64_t n = 1; n < 200; n++) {
        fault_reset();
        rig_init(rig);
        memory_fail_at(n);
        scenario();
        memory_fail_at(0);
        assert_int_equal(memory_bytes(MEMORY_STORE), 0);
        fault_crash(n + 2);
        assert_int_equal(rig_open(rig), OK);
        assert_int_equal(rig->damaged, 0);
        rig_adopt(rig);
        rig_read_all(rig);
        rig_close(rig);
    }
}

static void test_failed_is_sticky(void **state)
{
    (void)state;
    assert_int_equal(rig_open(rig), OK);
    for (uint32_t i = 0; i < 10; i++)
        assert_int_equal(rig_append(rig, 0), OK);
    rig_settle(rig);
    assert_int_equal(rig->acks, 10);
    assert_int_equal(rig_append(rig, 0), OK);
    fault.fail_at[FAULT_SYNC] = 1;
    log_flush(rig->log);
    assert_int_equal(rig_append(rig, 0), OK); /* gathers meanwhile */
    rig_settle(rig);
    assert_int_equal(log_state(rig->log), LOG_FAILED);
    assert_int_equal(rig->refused, 2);
    assert_int_equal(rig->acks, 10);
    assert_int_equal(rig_append(rig, 0), ERR_IO);
    uint64_t writes = fault.count[FAULT_WRITE];
    uint64_t syncs = fault.count[FAULT_SYNC];
    fault_pass(10 * NS_PER_S);
    rig_settle(rig);
    assert_int_equal(fault.count[FAULT_WRITE], writes); /* nothing is tried again */
    assert_int_equal(fault.count[FAULT_SYNC], syncs);
    rig_read_all(rig); /* what is durable is still read */
}

static void test_second_opener_is_refused(void **state)
{
    (void)state;
    assert_int_equal(rig_open(rig), OK);
    struct log *second;
    uint64_t damaged;
    assert_int_equal(
        log_open(&second, &rig->options, fault_io(), fault_workers(), NULL, NULL, NULL, &damaged),
        ERR_BUSY);
}

static void test_skip_sync_loses(void **state)
{
    (void)state;
    rig->options.skip_sync = true;
    assert_int_equal(rig_open(rig), OK);
    for (uint32_t i = 0; i < 100; i++)
        assert_int_equal(rig_append_now(rig, 0), OK);
    rig_settle(rig);
    assert_int_equal(rig->acks, 100);
    rig_crash(rig, 0);
    assert_int_equal(rig_open(rig), OK);
    assert_int_equal(rig->replayed, 0);
    rig->options.skip_sync = false;
    memset(rig->acked, 0, sizeof rig->acked);
    rig_adopt(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(test_append_completes_in_order),
        FIXTURE_TEST(test_not_durable_is_not_served),
        FIXTURE_TEST(test_full_batch_refuses_all_until_written),
        FIXTURE_TEST(test_answers_keep_their_order),
        FIXTURE_TEST(test_too_big),
        FIXTURE_TEST(test_out_of_order_is_refused),
        FIXTURE_TEST(test_rolls_and_seals),
        FIXTURE_TEST(test_too_many_alike),
        FIXTURE_TEST(test_no_space_and_back),
        FIXTURE_TEST(test_failed_is_sticky),
        FIXTURE_TEST(test_second_opener_is_refused),
        FIXTURE_TEST(test_skip_sync_loses),
        FIXTURE_TEST(test_every_write_fails),
        FIXTURE_TEST(test_every_sync_fails),
        FIXTURE_TEST(test_every_read_fails),
        FIXTURE_TEST(test_every_other_call_fails),
        FIXTURE_TEST(test_every_allocation_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
