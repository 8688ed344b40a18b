/* test_conversation.c: numbering, stamps, repeats, refusal, the cache's budget and watermarks. */
#include "gateway/chat/conversation.h"

#include "core/memory.h"
#include "tests/unit/check.h"

#define NOW 1800000000000ull

static const struct user_id anna = {10};
static const struct user_id bert = {20};
static const struct device_id phone = {1};
static const struct device_id laptop = {2};

struct rig {
    struct conversation conversation;
    struct message_cache cache;
    int64_t memory_before;
};

static void conversation_warm(struct conversation *conversation, struct conversation_id id,
                              const struct conversation_row *row)
{
    const uint32_t home[2] = {0, 1};
    conversation_init(conversation);
    assert_int_equal(conversation_wake(conversation, id, home), OK);
    conversation->state = CONVERSATION_LOADING;
    assert_int_equal(conversation_loaded(conversation, row), OK);
    assert_int_equal(conversation->state, CONVERSATION_WARM);
}

static int setup(void **state)
{
    static struct rig rig;
    static const struct conversation_row empty;
    rig = (struct rig){.cache = {.bytes_max = 1u << 20}};
    rig.memory_before = memory_bytes(MEMORY_CHAT);
    conversation_warm(&rig.conversation, conversation_id_direct(anna, bert), &empty);
    *state = &rig;
    return 0;
}

static int teardown(void **state)
{
    struct rig *rig = *state;
    memory_fail_at(0);
    conversation_deinit(&rig->conversation, &rig->cache);
    assert_null(rig->cache.oldest);
    assert_null(rig->cache.newest);
    assert_int_equal(rig->cache.bytes, 0);
    assert_int_equal(memory_bytes(MEMORY_CHAT), rig->memory_before);
    return 0;
}

/* Ids as clients make them: the higher the number, the later. */
static struct send_key key_of(struct user_id sender, struct device_id device, uint32_t number)
{
    struct send_key key = {.sender = sender, .device = device};
    for (int i = 0; i < 4; i++)
        key.message_id.v[i] = (uint8_t)(number >> (24 - 8 * i));
    return key;
}

static struct cached *accept_at(struct conversation *conversation, struct send_key key,
                                const char *text, uint64_t now_ms)
{
    struct cached *message = NULL;
    assert_int_equal(conversation_accept(conversation, &message, RECORD_MESSAGE, &key,
                                         bytes_of_text(text), 0, now_ms),
                     OK);
    return message;
}

static void numbers_begin_at_one_without_gaps(void **state)
{
    struct rig *rig = *state;
    for (uint32_t n = 1; n <= 50; n++) {
        struct send_key key = key_of(n % 3 == 0 ? bert : anna, n % 2 == 0 ? phone : laptop, n);
        struct cached *message = accept_at(&rig->conversation, key, "text", NOW);
        assert_int_equal(message->seq, n);
        assert_int_equal(rig->conversation.last_seq, n);
        assert_int_equal(rig->conversation.work->in_flight, 1);
        assert_int_equal(conversation_visible(&rig->conversation), n - 1);
        assert_null(conversation_recent(&rig->conversation, n)); /* not before it is durable */
        conversation_durable(&rig->conversation, message, &rig->cache);
        assert_int_equal(conversation_visible(&rig->conversation), n);
        assert_int_equal(rig->conversation.work->in_flight, 0);
        assert_ptr_equal(conversation_recent(&rig->conversation, n), message);
    }
    assert_null(conversation_recent(&rig->conversation, 0));
    assert_null(conversation_recent(&rig->conversation, 51));
    assert_int_equal(conversation_recent(&rig->conversation, 1)->seq, 1);
    assert_int_equal(conversation_recent(&rig->conversation, 27)->seq, 27);
}

static void numbers_go_on_after_loading(void **state)
{
    struct rig *rig = *state;
    struct conversation loaded;
    static const struct conversation_row row = {
        .last_seq = 41, .last_time_ms = NOW + 5, .delivered = {7, 3}, .read = {2, 3}};
    const uint32_t home[2] = {4, 4};
    conversation_init(&loaded);
    assert_null(loaded.work);
    assert_int_equal(conversation_wake(&loaded, conversation_id_direct(anna, bert), home), OK);
    assert_true(loaded.work->slices[0].used);
    assert_false(loaded.work->slices[1].used);                 /* both members live on one shard */
    assert_true(conversation_watermark(&loaded, bert, 30, 1)); /* COLD: welcome all the same */
    loaded.state = CONVERSATION_LOADING;
    assert_int_equal(conversation_loaded(&loaded, &row), OK);
    assert_int_equal(conversation_visible(&loaded), 41);
    assert_int_equal(loaded.delivered[0], 7);
    assert_int_equal(loaded.delivered[1], 30); /* the higher one of row and memory */
    assert_int_equal(loaded.read[0], 2);
    assert_int_equal(loaded.read[1], 3);
    struct cached *message = accept_at(&loaded, key_of(anna, phone, 1), "", NOW);
    assert_int_equal(message->seq, 42);
    assert_int_equal(message->time_ms, NOW + 5); /* the row's stamp counts, too */
    conversation_deinit(&loaded, &rig->cache);   /* in flight: given back as well */
}

static void stamps_never_go_back(void **state)
{
    struct rig *rig = *state;
    static const uint64_t clock[] = {NOW, NOW + 10, NOW + 3, 0, NOW + 10, NOW + 11, NOW};
    static const uint64_t stamps[] = {NOW,      NOW + 10, NOW + 10, NOW + 10,
                                      NOW + 10, NOW + 11, NOW + 11};
    for (uint32_t i = 0; i < 7; i++) {
        struct cached *message =
            accept_at(&rig->conversation, key_of(anna, phone, i + 1), "", clock[i]);
        assert_int_equal(message->time_ms, stamps[i]);
        assert_int_equal(rig->conversation.last_time_ms, stamps[i]);
    }
}

static enum conversation_verdict verdict(const struct rig *rig, struct user_id sender,
                                         struct device_id device, uint32_t number,
                                         struct cached **found)
{
    struct send_key key = key_of(sender, device, number);
    *found = (struct cached *)(uintptr_t)16; /* must be overwritten */
    return conversation_check(&rig->conversation, &key, found);
}

static void repeats_are_told_from_news(void **state)
{
    struct rig *rig = *state;
    struct cached *found;
    assert_int_equal(verdict(rig, anna, phone, 5, &found), CONVERSATION_NEW);
    assert_null(found);
    struct cached *first = accept_at(&rig->conversation, key_of(anna, phone, 5), "a", NOW);
    assert_int_equal(verdict(rig, anna, phone, 5, &found), CONVERSATION_KNOWN); /* in flight */
    assert_ptr_equal(found, first);
    conversation_durable(&rig->conversation, first, &rig->cache);
    struct cached *second = accept_at(&rig->conversation, key_of(anna, phone, 9), "b", NOW);
    conversation_durable(&rig->conversation, second, &rig->cache);

    assert_int_equal(verdict(rig, anna, phone, 5, &found), CONVERSATION_KNOWN);
    assert_ptr_equal(found, first);
    assert_int_equal(verdict(rig, anna, phone, 9, &found), CONVERSATION_KNOWN);
    assert_ptr_equal(found, second);
    assert_int_equal(verdict(rig, anna, phone, 10, &found), CONVERSATION_NEW);
    assert_null(found);
    assert_int_equal(verdict(rig, anna, phone, 7, &found), CONVERSATION_LOOK_UP); /* never seen */
    assert_null(found);
    /* ids count per device and per user */
    assert_int_equal(verdict(rig, anna, laptop, 5, &found), CONVERSATION_NEW);
    assert_int_equal(verdict(rig, bert, phone, 5, &found), CONVERSATION_NEW);
    struct cached *other = accept_at(&rig->conversation, key_of(bert, phone, 5), "c", NOW);
    assert_int_equal(verdict(rig, bert, phone, 5, &found), CONVERSATION_KNOWN);
    assert_ptr_equal(found, other);
    struct cached *third = accept_at(&rig->conversation, key_of(anna, laptop, 5), "d", NOW);
    assert_int_equal(verdict(rig, anna, laptop, 5, &found), CONVERSATION_KNOWN);
    assert_ptr_equal(found, third);
    assert_int_equal(verdict(rig, anna, phone, 5, &found), CONVERSATION_KNOWN);
    assert_ptr_equal(found, first); /* not the newer one of that id */

    /* forgotten by the cache: only the log knows */
    rig->cache.bytes_max = 0;
    message_cache_trim(&rig->cache);
    assert_int_equal(verdict(rig, anna, phone, 5, &found), CONVERSATION_LOOK_UP);
    assert_int_equal(verdict(rig, anna, phone, 9, &found), CONVERSATION_LOOK_UP);
    assert_int_equal(verdict(rig, anna, phone, 10, &found), CONVERSATION_NEW);
    assert_null(found);
}

static void rows_carry_who_sent_what(void **state)
{
    struct rig *rig = *state;
    struct cached *found;
    static struct conversation_row row;
    struct cached *message = accept_at(&rig->conversation, key_of(anna, phone, 8), "a", NOW + 1);
    conversation_durable(&rig->conversation, message, &rig->cache);
    accept_at(&rig->conversation, key_of(bert, laptop, 3), "b", NOW + 2);
    conversation_watermark(&rig->conversation, bert, 1, 1);
    conversation_to_row(&rig->conversation, &row);
    assert_int_equal(row.last_seq, 1); /* what is in flight is not in the row */
    assert_int_equal(row.delivered[1], 1);
    assert_int_equal(row.read[1], 1);
    assert_int_equal(row.delivered[0], 0);
    assert_int_equal(row.sender_count, 2);

    conversation_deinit(&rig->conversation, &rig->cache);
    conversation_warm(&rig->conversation, conversation_id_direct(anna, bert), &row);
    assert_int_equal(verdict(rig, anna, phone, 8, &found), CONVERSATION_LOOK_UP);
    assert_int_equal(verdict(rig, anna, phone, 9, &found), CONVERSATION_NEW);
    assert_int_equal(verdict(rig, bert, laptop, 3, &found), CONVERSATION_LOOK_UP);
    assert_int_equal(verdict(rig, bert, phone, 3, &found), CONVERSATION_NEW);
}

static void an_older_id_does_not_lower_the_highest(void **state)
{
    struct rig *rig = *state;
    struct cached *found;
    accept_at(&rig->conversation, key_of(anna, phone, 9), "", NOW);
    accept_at(&rig->conversation, key_of(anna, phone, 4), "", NOW); /* the log did not know it */
    assert_int_equal(verdict(rig, anna, phone, 8, &found), CONVERSATION_LOOK_UP);
    assert_int_equal(verdict(rig, anna, phone, 10, &found), CONVERSATION_NEW);
}

static void refusal_takes_numbers_back_newest_first(void **state)
{
    struct rig *rig = *state;
    struct cached *messages[6];
    struct cached *found;
    for (uint32_t n = 1; n <= 5; n++)
        messages[n] = accept_at(&rig->conversation, key_of(anna, phone, n), "x", NOW);
    conversation_durable(&rig->conversation, messages[1], &rig->cache);
    conversation_durable(&rig->conversation, messages[2], &rig->cache);
    assert_int_equal(rig->conversation.work->in_flight, 3);
    for (uint32_t n = 5; n >= 3; n--) {
        conversation_refused(&rig->conversation, messages[n]);
        assert_int_equal(rig->conversation.last_seq, n - 1);
        assert_int_equal(rig->conversation.work->in_flight, n - 3);
        assert_int_equal(conversation_visible(&rig->conversation), 2);
        assert_ptr_equal(rig->conversation.work->newest, messages[n - 1]);
        assert_null(rig->conversation.work->newest->newer);
    }
    /* it may be in the log after all (who knows what a failed write left): ask it */
    assert_int_equal(verdict(rig, anna, phone, 4, &found), CONVERSATION_LOOK_UP);
    struct cached *again = accept_at(&rig->conversation, key_of(anna, phone, 3), "x", NOW);
    assert_int_equal(again->seq, 3);
    conversation_durable(&rig->conversation, again, &rig->cache);
    assert_ptr_equal(conversation_recent(&rig->conversation, 3), again);
}

static void refusing_the_only_message_leaves_nothing(void **state)
{
    struct rig *rig = *state;
    struct cached *message = accept_at(&rig->conversation, key_of(anna, phone, 1), "x", NOW);
    assert_false(conversation_idle(&rig->conversation));
    conversation_refused(&rig->conversation, message);
    assert_null(rig->conversation.work->oldest);
    assert_null(rig->conversation.work->newest);
    assert_int_equal(rig->conversation.last_seq, 0);
    assert_true(conversation_idle(&rig->conversation));
}

static void the_budget_forgets_the_oldest(void **state)
{
    struct rig *rig = *state;
    static const struct conversation_row empty;
    struct conversation other;
    struct conversation *both[2] = {&rig->conversation, &other};
    size_t each = sizeof(struct cached) + 4;
    conversation_warm(&other, conversation_id_direct(anna, (struct user_id){30}), &empty);
    rig->cache.bytes_max = 3 * each;
    /* 1, 2, 3 alternately in both: six messages, room for three */
    for (uint32_t n = 0; n < 6; n++) {
        struct cached *message = accept_at(both[n % 2], key_of(anna, phone, n + 1), "four", NOW);
        conversation_durable(both[n % 2], message, &rig->cache);
        assert_int_equal(rig->cache.bytes, (n < 3 ? n + 1 : 4) * each);
        message_cache_trim(&rig->cache);
        assert_int_equal(rig->cache.bytes, (n < 3 ? n + 1 : 3) * each);
    }
    for (uint64_t seq = 1; seq <= 3; seq++) {
        assert_int_equal(conversation_recent(both[0], seq) != NULL, seq > 2);
        assert_int_equal(conversation_recent(both[1], seq) != NULL, seq > 1);
    }
    rig->cache.bytes_max--; /* a byte too many is one message too many */
    message_cache_trim(&rig->cache);
    assert_int_equal(rig->cache.bytes, 2 * each);
    assert_null(conversation_recent(both[1], 2));
    assert_int_equal(conversation_visible(both[0]), 3); /* forgetting a copy changes no number */

    /* what is in flight is nobody's to forget */
    struct cached *flying = accept_at(both[0], key_of(anna, phone, 99), "four", NOW);
    rig->cache.bytes_max = 0;
    message_cache_trim(&rig->cache);
    assert_int_equal(rig->cache.bytes, 0);
    assert_ptr_equal(both[0]->work->oldest, flying);
    assert_ptr_equal(both[0]->work->newest, flying);
    assert_null(both[1]->work);
    conversation_durable(both[0], flying, &rig->cache);
    assert_memory_equal(conversation_recent(both[0], 4)->payload, "four", 4);

    /* one of them goes: its messages leave the cache, the other's stay */
    const uint32_t home[2] = {0, 1};
    assert_int_equal(
        conversation_wake(both[1], conversation_id_direct(anna, (struct user_id){30}), home), OK);
    struct cached *kept = accept_at(both[1], key_of(anna, phone, 100), "12345678", NOW);
    conversation_durable(both[1], kept, &rig->cache);
    conversation_deinit(both[0], &rig->cache);
    assert_ptr_equal(rig->cache.oldest, kept);
    assert_ptr_equal(rig->cache.newest, kept);
    assert_int_equal(rig->cache.bytes, sizeof(struct cached) + 8);
    conversation_deinit(both[1], &rig->cache);
}

static void marks_only_rise_and_read_implies_delivered(void **state)
{
    struct rig *rig = *state;
    struct conversation *c = &rig->conversation;
    assert_true(conversation_watermark(c, anna, 3, 0));
    assert_int_equal(c->delivered[0], 3);
    assert_int_equal(c->read[0], 0);
    assert_false(conversation_watermark(c, anna, 3, 0));
    assert_false(conversation_watermark(c, anna, 2, 0));
    assert_int_equal(c->delivered[0], 3);
    assert_true(conversation_watermark(c, anna, 0, 5)); /* read 5: so 5 were delivered */
    assert_int_equal(c->delivered[0], 5);
    assert_int_equal(c->read[0], 5);
    assert_true(conversation_watermark(c, anna, 8, 2));
    assert_int_equal(c->delivered[0], 8);
    assert_int_equal(c->read[0], 5);
    assert_true(conversation_watermark(c, anna, 1, 6)); /* raises read alone */
    assert_int_equal(c->delivered[0], 8);
    assert_int_equal(c->read[0], 6);
    assert_int_equal(c->delivered[1], 0); /* the other's are the other's */
    assert_int_equal(c->read[1], 0);
    assert_true(conversation_watermark(c, bert, 1, 1));
    assert_int_equal(c->delivered[1], 1);
    assert_int_equal(c->delivered[0], 8);
}

static void too_many_senders_are_refused(void **state)
{
    struct rig *rig = *state;
    struct cached *message;
    struct cached *found;
    for (uint32_t i = 0; i < ROW_SENDERS_MAX; i++)
        accept_at(&rig->conversation, key_of(anna, (struct device_id){i + 1}, 1), "", NOW);
    struct send_key key = key_of(bert, phone, 1);
    int64_t memory = memory_bytes(MEMORY_CHAT);
    assert_int_equal(conversation_accept(&rig->conversation, &message, RECORD_MESSAGE, &key,
                                         bytes_of("x", 1), 0, NOW + 9),
                     ERR_FULL);
    assert_int_equal(memory_bytes(MEMORY_CHAT), memory);
    assert_int_equal(rig->conversation.last_seq, ROW_SENDERS_MAX);
    assert_int_equal(rig->conversation.last_time_ms, NOW);
    assert_int_equal(rig->conversation.senders->count, ROW_SENDERS_MAX);
    assert_int_equal(verdict(rig, bert, phone, 1, &found), CONVERSATION_NEW);
    /* a device that is listed may go on */
    assert_int_equal(accept_at(&rig->conversation, key_of(anna, phone, 2), "", NOW)->seq,
                     ROW_SENDERS_MAX + 1);
}

static void idle_means_nothing_would_be_lost(void **state)
{
    struct rig *rig = *state;
    struct conversation *c = &rig->conversation;
    struct cached *message = accept_at(c, key_of(anna, phone, 1), "", NOW);
    assert_false(conversation_idle(c));
    conversation_durable(c, message, &rig->cache);
    assert_true(conversation_idle(c));
    struct conversation_work *work = c->work;
    bool *marks[] = {&work->dirty,
                     &work->listed_slices,
                     &work->listed_retry,
                     &work->slices[0].dirty,
                     &work->slices[1].dirty,
                     &work->slices[0].receipts_dirty,
                     &work->slices[1].receipts_dirty};
    for (size_t i = 0; i < sizeof marks / sizeof marks[0]; i++) {
        *marks[i] = true;
        assert_false(conversation_idle(c));
        conversation_rest(c);
        assert_ptr_equal(c->work, work);
        *marks[i] = false;
    }
    c->state = CONVERSATION_LOADING;
    assert_false(conversation_idle(c));
    c->state = CONVERSATION_WARM;
    work->parked = (struct parked *)(uintptr_t)16;
    assert_false(conversation_idle(c));
    work->parked = NULL;
    assert_true(conversation_idle(c));
    conversation_rest(c);
    assert_ptr_equal(c->work, work); /* it has a message in memory */
    rig->cache.bytes_max = 0;
    message_cache_trim(&rig->cache);
    assert_null(c->work);
    assert_true(conversation_idle(c));
    assert_int_equal(conversation_visible(c), 1);
    assert_null(conversation_recent(c, 1));
}

/* For every n: accepting with the n-th allocation failing changes nothing. */
static void accepting_without_memory_changes_nothing(void **state)
{
    struct rig *rig = *state;
    struct conversation *c = &rig->conversation;
    struct cached *first = accept_at(c, key_of(anna, phone, 1), "one", NOW);
    struct send_key key = key_of(bert, laptop, 1); /* not yet listed: the list grows */
    uint64_t n = 0;
    enum err err = ERR_NO_MEMORY;
    while (err != OK) {
        struct cached *message;
        struct cached *found;
        struct conversation before = *c;
        int64_t memory = memory_bytes(MEMORY_CHAT);
        memory_fail_at(++n);
        err =
            conversation_accept(c, &message, RECORD_MESSAGE, &key, bytes_of("two", 3), 0, NOW + 7);
        memory_fail_at(0);
        if (err == OK) {
            assert_int_equal(message->seq, 2);
            break;
        }
        assert_int_equal(err, ERR_NO_MEMORY);
        assert_int_equal(memory_bytes(MEMORY_CHAT), memory);
        assert_memory_equal(&before, c, sizeof before);
        assert_ptr_equal(c->work->newest, first);
        assert_null(first->newer);
        assert_int_equal(conversation_check(c, &key, &found), CONVERSATION_NEW);
    }
    assert_int_equal(n, 3); /* the message, the list, and then none fails */
}

static void assert_same_row(const struct conversation_row *a, const struct conversation_row *b)
{
    assert_memory_equal(a, b, offsetof(struct conversation_row, sender_count));
    assert_int_equal(a->sender_count, b->sender_count);
    for (uint32_t i = 0; i < a->sender_count; i++) { /* one by one: padding differs */
        assert_int_equal(a->senders[i].user.v, b->senders[i].user.v);
        assert_int_equal(a->senders[i].device.v, b->senders[i].device.v);
        assert_int_equal(message_id_compare(a->senders[i].highest, b->senders[i].highest), 0);
    }
}

/* For every n: loading fails, stays LOADING, and loading again gives what it should have been. */
static void loading_without_memory_can_be_repeated(void **state)
{
    struct rig *rig = *state;
    static struct conversation_row row;
    static struct conversation_row back;
    row = (struct conversation_row){.last_seq = 12, .last_time_ms = NOW, .read = {1, 2}};
    for (uint32_t i = 0; i < 5; i++)
        conversation_row_sender(&row, anna, (struct device_id){i + 1})->highest =
            key_of(anna, phone, i + 1).message_id;
    for (uint64_t n = 1; n <= 6; n++) {
        struct conversation c;
        conversation_init(&c);
        c.state = CONVERSATION_LOADING;
        memory_fail_at(n);
        enum err err = conversation_loaded(&c, &row);
        memory_fail_at(0);
        assert_int_equal(err, n <= 5 ? ERR_NO_MEMORY : OK);
        if (err != OK) {
            assert_int_equal(c.state, CONVERSATION_LOADING);
            assert_int_equal(c.last_seq, 0);
            assert_int_equal(c.read[1], 0);
            assert_int_equal(conversation_loaded(&c, &row), OK);
        }
        conversation_to_row(&c, &back);
        assert_same_row(&back, &row);
        conversation_deinit(&c, &rig->cache);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(numbers_begin_at_one_without_gaps, setup, teardown),
        cmocka_unit_test_setup_teardown(numbers_go_on_after_loading, setup, teardown),
        cmocka_unit_test_setup_teardown(stamps_never_go_back, setup, teardown),
        cmocka_unit_test_setup_teardown(repeats_are_told_from_news, setup, teardown),
        cmocka_unit_test_setup_teardown(rows_carry_who_sent_what, setup, teardown),
        cmocka_unit_test_setup_teardown(an_older_id_does_not_lower_the_highest, setup, teardown),
        cmocka_unit_test_setup_teardown(refusal_takes_numbers_back_newest_first, setup, teardown),
        cmocka_unit_test_setup_teardown(refusing_the_only_message_leaves_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(the_budget_forgets_the_oldest, setup, teardown),
        cmocka_unit_test_setup_teardown(marks_only_rise_and_read_implies_delivered, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(too_many_senders_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(idle_means_nothing_would_be_lost, setup, teardown),
        cmocka_unit_test_setup_teardown(accepting_without_memory_changes_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(loading_without_memory_can_be_repeated, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
