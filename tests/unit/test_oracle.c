/* test_oracle.c: the oracle is fed every kind of fault and has to see it, and every kind of
 * harmless oddity and has to let it pass. */
#include "loadgen/oracle.h"

#include "tests/unit/check.h"
#include <stdlib.h>

#define CONTENT_BYTES 64
#define ANNA          ((struct user_id){11})
#define BERT          ((struct user_id){22})

static const struct oracle_peer anna = {{11}, 0};
static const struct oracle_peer bert = {{22}, 0};
static const struct oracle_peer bert_two = {{22}, 1};

#define MADE_MS UINT64_C(0x19a00000000) /* of every id */

struct world {
    struct oracle *oracle;
    struct conversation_id conversation;
    bool expires;
};

static struct message_id id_of(uint64_t number)
{
    struct message_id id = {{0}};
    for (int i = 0; i < 6; i++)
        id.v[i] = (uint8_t)(MADE_MS >> (40 - 8 * i));
    store_u64(id.v + 8, number);
    return id;
}

static int setup(void **state)
{
    struct world *world = calloc(1, sizeof *world);
    world->conversation = conversation_id_direct(ANNA, BERT);
    assert_int_equal(oracle_create(&world->oracle, 64), OK);
    assert_int_equal(oracle_join(world->oracle, world->conversation, anna, 1), OK);
    assert_int_equal(oracle_join(world->oracle, world->conversation, bert, 1), OK);
    *state = world;
    return 0;
}

static int teardown(void **state)
{
    struct world *world = *state;
    oracle_destroy(world->oracle);
    free(world);
    return 0;
}

/* push: message `number`, sent by anna, arrives at peer under seq; spoil: flip a byte of it. */
static bool push_spoilt(struct world *world, struct oracle_peer peer, uint32_t connection,
                        uint64_t number, uint64_t seq, bool spoil)
{
    uint8_t content_bytes[CONTENT_BYTES];
    uint8_t payload_bytes[CONTENT_BYTES + 64];
    struct buffer content = buffer_of(content_bytes, sizeof content_bytes);
    struct buffer payload = buffer_of(payload_bytes, sizeof payload_bytes);
    struct message_id id = id_of(number);
    uint64_t intended = 0;
    assert_int_equal(
        oracle_content(&content, CONTENT_BYTES, world->conversation, &id, ANNA, number * 1000), OK);
    if (spoil)
        content_bytes[40] ^= 1;
    assert_int_equal(protocol_payload_text(&payload, buffer_bytes(&content)), OK);
    struct message message = {.conversation = world->conversation,
                              .seq = seq,
                              .message_id = id,
                              .sender = ANNA,
                              .expires_ms = world->expires ? oracle_expiry(&id) : 0,
                              .payload = buffer_bytes(&payload)};
    bool first = oracle_delivered(world->oracle, peer, connection, &message, &intended);
    if (first)
        assert_int_equal(intended, number * 1000);
    return first;
}

static bool push(struct world *world, struct oracle_peer peer, uint32_t connection, uint64_t number,
                 uint64_t seq)
{
    return push_spoilt(world, peer, connection, number, seq, false);
}

static void ack(struct world *world, uint64_t number, uint64_t seq)
{
    struct message_id id = id_of(number);
    oracle_acked(world->oracle, world->conversation, anna, &id, seq);
}

static struct oracle_counts result(struct world *world)
{
    struct oracle_counts counts;
    oracle_result(world->oracle, &counts);
    return counts;
}

/* only: the fault named by `count` and no other was seen, `times` times. */
static void assert_only(struct world *world, size_t offset, uint64_t times)
{
    struct oracle_counts counts = result(world);
    uint64_t *fault = (uint64_t *)(void *)((char *)&counts + offset);
    assert_int_equal(*fault, times);
    assert_false(oracle_clean(&counts));
    *fault = 0;
    assert_true(oracle_clean(&counts));
}
#define ASSERT_ONLY(world, field, times)                                                           \
    assert_only(world, offsetof(struct oracle_counts, field), times)

static void assert_clean(struct world *world)
{
    struct oracle_counts counts = result(world);
    assert_true(oracle_clean(&counts));
    assert_string_equal(oracle_fault(world->oracle), "");
}

static void long_chat_is_clean_and_bounded(void **state)
{
    struct world *world = *state;
    size_t before = 0;
    for (uint64_t n = 1; n <= 10000; n++) {
        ack(world, n, n);
        assert_true(push(world, bert, 1, n, n));
        if (n == 100)
            before = oracle_memory(world->oracle);
    }
    assert_int_equal(oracle_memory(world->oracle), before);
    assert_true(oracle_settled(world->oracle));
    assert_clean(world);
    assert_int_equal(result(world).acked, 10000);
    assert_int_equal(result(world).delivered, 10000);
}

static void lost_message_is_owed(void **state)
{
    struct world *world = *state;
    ack(world, 1, 1);
    assert_false(oracle_settled(world->oracle));
    ASSERT_ONLY(world, lost, 1);
    assert_true(push(world, bert, 1, 1, 1));
    assert_true(oracle_settled(world->oracle));
    assert_clean(world);
}

static void every_device_is_owed(void **state)
{
    struct world *world = *state;
    assert_int_equal(oracle_join(world->oracle, world->conversation, bert_two, 1), OK);
    ack(world, 1, 1);
    assert_true(push(world, bert, 1, 1, 1));
    ASSERT_ONLY(world, lost, 1);
    assert_false(oracle_settled(world->oracle));
    assert_true(push(world, bert_two, 1, 1, 1));
    assert_clean(world);
}

static void late_joiner_is_owed_from_its_first_number_on(void **state)
{
    struct world *world = *state;
    ack(world, 1, 1);
    ack(world, 2, 2);
    assert_int_equal(oracle_join(world->oracle, world->conversation, bert_two, 2), OK);
    push(world, bert, 1, 1, 1);
    push(world, bert, 1, 2, 2);
    ASSERT_ONLY(world, lost, 1);
    push(world, bert_two, 1, 2, 2);
    assert_clean(world);
}

static void passed_over_number_is_lost_though_never_acknowledged(void **state)
{
    struct world *world = *state;
    push(world, anna, 1, 1, 1); /* anna's own, pushed back: known, not acknowledged */
    ack(world, 2, 2);
    push(world, bert, 1, 2, 2);
    ASSERT_ONLY(world, lost, 1);
}

static void unknown_number_is_a_gap(void **state)
{
    struct world *world = *state;
    ack(world, 1, 1);
    push(world, bert, 1, 1, 1);
    ack(world, 3, 3);
    push(world, bert, 1, 3, 3);
    assert_false(oracle_settled(world->oracle));
    struct oracle_counts counts = result(world);
    assert_int_equal(counts.gaps, 1);
    assert_int_equal(counts.lost, 2); /* neither device has number 2 */
}

static void second_push_on_one_connection_is_a_duplicate(void **state)
{
    struct world *world = *state;
    ack(world, 1, 1);
    assert_true(push(world, bert, 1, 1, 1));
    assert_false(push(world, bert, 1, 1, 1));
    ASSERT_ONLY(world, duplicated, 1);
    assert_true(oracle_fault(world->oracle)[0] != '\0');
}

static void old_push_on_one_connection_is_a_duplicate(void **state)
{
    struct world *world = *state;
    for (uint64_t n = 1; n <= 40; n++) {
        ack(world, n, n);
        push(world, bert, 1, n, n);
    }
    assert_false(push(world, bert, 1, 2, 2)); /* long out of the window */
    ASSERT_ONLY(world, duplicated, 1);
}

static void push_after_reconnect_is_redelivery(void **state)
{
    struct world *world = *state;
    for (uint64_t n = 1; n <= 3; n++) {
        ack(world, n, n);
        push(world, bert, 1, n, n);
    }
    assert_false(push(world, bert, 2, 2, 2));
    assert_false(push(world, bert, 2, 3, 3));
    ack(world, 4, 4);
    assert_true(push(world, bert, 2, 4, 4));
    assert_clean(world);
    assert_int_equal(result(world).redelivered, 2);
}

static void confirmed_message_must_not_come_again(void **state)
{
    struct world *world = *state;
    ack(world, 1, 1);
    ack(world, 2, 2);
    push(world, bert, 1, 1, 1);
    push(world, bert, 1, 2, 2);
    oracle_confirmed(world->oracle, world->conversation, bert, 1);
    push(world, bert, 2, 2, 2); /* not confirmed: fine */
    assert_clean(world);
    push(world, bert, 3, 1, 1);
    ASSERT_ONLY(world, duplicated, 1);
}

static void later_number_first_is_reordering(void **state)
{
    struct world *world = *state;
    ack(world, 1, 1);
    ack(world, 2, 2);
    assert_true(push(world, bert, 1, 2, 2));
    assert_true(push(world, bert, 1, 1, 1));
    ASSERT_ONLY(world, reordered, 1);
}

static void redelivery_out_of_order_is_a_fault_too(void **state)
{
    struct world *world = *state;
    for (uint64_t n = 1; n <= 3; n++) {
        ack(world, n, n);
        push(world, bert, 1, n, n);
    }
    push(world, bert, 2, 3, 3);
    push(world, bert, 2, 2, 2);
    ASSERT_ONLY(world, duplicated, 1);
}

static void own_message_may_be_known_by_a_late_acknowledgement(void **state)
{
    struct world *world = *state;
    struct message_id id = id_of(2);
    ack(world, 1, 1);
    push(world, bert, 1, 1, 1);
    /* number 2 is bert's; anna's 3 overtakes its acknowledgement on bert's connection */
    ack(world, 3, 3);
    assert_true(push(world, bert, 1, 3, 3));
    oracle_acked(world->oracle, world->conversation, bert, &id, 2);
    ASSERT_ONLY(world, lost, 1); /* anna lacks it still */
    push(world, anna, 1, 2, 2);
}

static void own_message_pushed_back_is_an_echo(void **state)
{
    struct world *world = *state;
    ack(world, 1, 1);
    assert_false(push(world, anna, 1, 1, 1));
    push(world, bert, 1, 1, 1);
    assert_clean(world);
    assert_int_equal(result(world).echoed, 1);
    push(world, anna, 1, 1, 1);
    ASSERT_ONLY(world, duplicated, 1);
}

static void altered_content_is_seen(void **state)
{
    struct world *world = *state;
    ack(world, 1, 1);
    assert_false(push_spoilt(world, bert, 1, 1, 1, true));
    struct oracle_counts counts = result(world);
    assert_int_equal(counts.altered, 1);
    assert_int_equal(counts.lost, 1); /* what came is not the message */
}

static void two_messages_under_one_number_conflict(void **state)
{
    struct world *world = *state;
    ack(world, 1, 1);
    push(world, bert, 1, 2, 1);
    struct oracle_counts counts = result(world);
    assert_int_equal(counts.conflicting, 1);
}

static void one_message_under_two_numbers_conflicts(void **state)
{
    struct world *world = *state;
    ack(world, 1, 1);
    push(world, bert, 1, 1, 1);
    push(world, anna, 1, 1, 2);
    push(world, bert, 1, 1, 2);
    ASSERT_ONLY(world, conflicting, 1);
}

/* Neither for one that was never acknowledged, whatever became of it meanwhile. */
static void a_repeat_that_is_numbered_again_conflicts(void **state)
{
    struct world *world = *state;
    push(world, bert, 1, 1, 1);
    ack(world, 1, 2);
    push(world, bert, 1, 1, 2);
    struct oracle_counts counts = result(world);
    assert_true(counts.conflicting > 0);
}

static void a_repeat_has_the_first_number(void **state)
{
    struct world *world = *state;
    ack(world, 1, 1);
    push(world, bert, 1, 1, 1);
    oracle_repeated(world->oracle, world->conversation, anna, 1, 1);
    assert_clean(world);
    oracle_repeated(world->oracle, world->conversation, anna, 1, 2);
    ASSERT_ONLY(world, conflicting, 1);
}

static void refuse(struct world *world, uint64_t number, uint64_t first_seq)
{
    struct message_id id = id_of(number);
    oracle_refused(world->oracle, world->conversation, anna, &id, first_seq, CODE_MALFORMED);
}

/* For a day, also when the message has long been everywhere. */
static void a_repeat_is_not_refused(void **state)
{
    struct world *world = *state;
    for (uint64_t n = 1; n <= 20; n++) {
        ack(world, n, n);
        push(world, bert, 1, n, n);
    }
    oracle_time(world->oracle, MADE_MS + 24 * 3600 * 1000 - 1);
    refuse(world, 1, 1);
    ASSERT_ONLY(world, conflicting, 1);
    assert_non_null(strstr(oracle_fault(world->oracle), "number 1 "));
    assert_non_null(strstr(oracle_fault(world->oracle), "MALFORMED"));
}

static void a_repeat_after_a_day_may_be_refused(void **state)
{
    struct world *world = *state;
    ack(world, 1, 1);
    push(world, bert, 1, 1, 1);
    oracle_time(world->oracle, MADE_MS + 24 * 3600 * 1000);
    refuse(world, 1, 1);
    assert_clean(world);
}

/* Its acknowledgement did not get through; somebody else was shown it. */
static void what_was_delivered_is_not_refused(void **state)
{
    struct world *world = *state;
    push(world, bert, 1, 1, 1);
    oracle_time(world->oracle, MADE_MS + 5000);
    refuse(world, 2, 0);
    assert_int_equal(result(world).conflicting, 0);
    refuse(world, 1, 0);
    assert_int_equal(result(world).conflicting, 1);
}

static void acknowledgement_and_delivery_disagree(void **state)
{
    struct world *world = *state;
    push(world, bert, 1, 1, 1);
    ack(world, 1, 2);
    struct oracle_counts counts = result(world);
    assert_int_equal(counts.conflicting, 1);
}

static void number_zero_conflicts(void **state)
{
    struct world *world = *state;
    ack(world, 1, 0);
    ASSERT_ONLY(world, conflicting, 1);
}

static void number_beyond_the_window_is_not_clean(void **state)
{
    struct world *world = *state;
    push(world, bert, 1, 1, 1000000);
    ASSERT_ONLY(world, unchecked, 1);
}

static void stranger_is_not_clean(void **state)
{
    struct world *world = *state;
    push(world, bert_two, 1, 1, 1);
    ASSERT_ONLY(world, strange, 1);
}

static void repeated_send_acknowledged_late_is_fine(void **state)
{
    struct world *world = *state;
    push(world, bert, 1, 1, 1); /* delivered; the acknowledgement was lost with the connection */
    assert_true(oracle_settled(world->oracle));
    ack(world, 1, 1);
    assert_true(oracle_settled(world->oracle));
    assert_clean(world);
}

static void unacknowledged_newest_message_is_not_promised(void **state)
{
    struct world *world = *state;
    push(world, anna, 1, 1, 1);
    assert_clean(world);
    assert_true(oracle_settled(world->oracle));
}

static void fetched_message_fills_a_hole_in_any_order(void **state)
{
    struct world *world = *state;
    uint8_t content_bytes[CONTENT_BYTES];
    uint8_t payload_bytes[CONTENT_BYTES + 64];
    struct buffer content = buffer_of(content_bytes, sizeof content_bytes);
    struct buffer payload = buffer_of(payload_bytes, sizeof payload_bytes);
    struct message_id id = id_of(1);
    uint64_t intended;
    ack(world, 1, 1);
    ack(world, 2, 2);
    push(world, bert, 1, 2, 2);
    assert_int_equal(oracle_content(&content, CONTENT_BYTES, world->conversation, &id, ANNA, 7),
                     OK);
    assert_int_equal(protocol_payload_text(&payload, buffer_bytes(&content)), OK);
    struct message message = {.conversation = world->conversation,
                              .seq = 1,
                              .message_id = id,
                              .sender = ANNA,
                              .payload = buffer_bytes(&payload)};
    assert_true(oracle_fetched(world->oracle, bert, &message, &intended));
    assert_false(oracle_fetched(world->oracle, bert, &message, &intended));
    assert_int_equal(intended, 7);
    assert_clean(world);
}

static void content_binds_all_it_names(void **state)
{
    (void)state;
    uint8_t bytes[CONTENT_BYTES];
    struct buffer out = buffer_of(bytes, sizeof bytes);
    struct conversation_id conversation = conversation_id_direct(ANNA, BERT);
    struct conversation_id other = conversation_id_direct(ANNA, (struct user_id){33});
    struct message_id id = id_of(5);
    struct message_id other_id = id_of(6);
    uint64_t intended = 0;
    assert_int_equal(oracle_content(&out, CONTENT_BYTES, conversation, &id, ANNA, 0xabcdef), OK);
    struct bytes made = buffer_bytes(&out);
    assert_int_equal(oracle_content_check(made, conversation, &id, ANNA, &intended), OK);
    assert_int_equal(intended, 0xabcdef);
    assert_int_equal(oracle_content_check(made, other, &id, ANNA, &intended), ERR_CORRUPT);
    assert_int_equal(oracle_content_check(made, conversation, &other_id, ANNA, &intended),
                     ERR_CORRUPT);
    assert_int_equal(oracle_content_check(made, conversation, &id, BERT, &intended), ERR_CORRUPT);
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] ^= 0x20;
        assert_int_equal(oracle_content_check(made, conversation, &id, ANNA, &intended),
                         ERR_CORRUPT);
        bytes[i] ^= 0x20;
    }
    made.size--;
    assert_int_equal(oracle_content_check(made, conversation, &id, ANNA, &intended), ERR_CORRUPT);
    out.size = 0;
    assert_int_equal(oracle_content(&out, CONTENT_BYTES + 1, conversation, &id, ANNA, 0), ERR_FULL);
    assert_int_equal(oracle_content(&out, 3, conversation, &id, ANNA, 0), ERR_INVALID);
}

/* ---- messages that disappear */

/* number_that: the first from `from` on whose message disappears, or does not. */
static uint64_t number_that(uint64_t from, bool disappears)
{
    for (;; from++) {
        struct message_id id = id_of(from);
        if ((oracle_expiry(&id) != 0) == disappears)
            return from;
    }
}

static uint64_t expiry_of(uint64_t number)
{
    struct message_id id = id_of(number);
    return oracle_expiry(&id);
}

static void gone(struct world *world, struct oracle_peer peer, uint64_t from_seq, uint64_t to_seq)
{
    oracle_gone(world->oracle, world->conversation, peer, 1, from_seq, to_seq);
}

static void expiring(struct world *world, uint64_t now_ms)
{
    world->expires = true;
    oracle_expires(world->oracle);
    oracle_time(world->oracle, now_ms);
}

static void one_in_four_disappears_soon(void **state)
{
    (void)state;
    uint32_t count = 0;
    for (uint64_t n = 1; n <= 10000; n++) {
        uint64_t at_ms = expiry_of(n);
        count += at_ms != 0;
        if (at_ms != 0)
            assert_in_range(at_ms, MADE_MS + 20, MADE_MS + 20 + 54 * 54);
    }
    assert_in_range(count, 2300, 2700);
}

static void gone_after_its_time_is_as_good_as_shown(void **state)
{
    struct world *world = *state;
    uint64_t a = number_that(1, true);
    uint64_t b = number_that(a + 1, true);
    expiring(world, MADE_MS);
    ack(world, a, 1);
    ack(world, b, 2);
    assert_false(oracle_settled(world->oracle));
    oracle_time(world->oracle, MADE_MS + 3300);
    gone(world, bert, 1, 2);
    assert_true(oracle_settled(world->oracle));
    assert_clean(world);
}

static void gone_before_its_time_is_lost(void **state)
{
    struct world *world = *state;
    uint64_t n = number_that(1, true);
    expiring(world, expiry_of(n) - 1);
    ack(world, n, 1);
    gone(world, bert, 1, 1);
    ASSERT_ONLY(world, lost, 1);
}

static void gone_though_it_stays_is_lost(void **state)
{
    struct world *world = *state;
    expiring(world, MADE_MS + 10000);
    ack(world, number_that(1, false), 1);
    gone(world, bert, 1, 1);
    ASSERT_ONLY(world, lost, 1);
}

static void gone_and_acknowledged_late_is_judged_then(void **state)
{
    struct world *world = *state;
    uint64_t n = number_that(1, true);
    expiring(world, expiry_of(n));
    gone(world, bert, 1, 2);
    assert_true(oracle_settled(world->oracle)); /* nobody acknowledged them */
    ack(world, n, 1);
    assert_clean(world);
    ack(world, number_that(1, false), 2);
    ASSERT_ONLY(world, lost, 1);
}

static void a_sender_is_owed_the_number_that_others_were_told(void **state)
{
    struct world *world = *state;
    uint64_t stays = number_that(1, false);
    expiring(world, MADE_MS + 3300);
    gone(world, bert, 1, 1);
    ack(world, stays, 2);
    push(world, bert, 1, stays, 2);
    ASSERT_ONLY(world, lost, 1);
    gone(world, anna, 1, 1);
    assert_clean(world);
}

static void shown_long_after_its_time_is_late(void **state)
{
    struct world *world = *state;
    uint64_t n = number_that(1, true);
    expiring(world, expiry_of(n) + 2000); /* it was on its way */
    ack(world, n, 1);
    assert_true(push(world, bert, 1, n, 1));
    assert_clean(world);
    oracle_time(world->oracle, expiry_of(n) + 2001);
    push(world, bert, 2, n, 1);
    ASSERT_ONLY(world, late, 1);
}

static void another_expiry_than_was_asked_for_is_altered(void **state)
{
    struct world *world = *state;
    expiring(world, MADE_MS);
    world->expires = false;
    push(world, bert, 1, number_that(1, true), 1);
    ASSERT_ONLY(world, altered, 1);
}

/* ---- history */

/* ask: an answer from number 1 on: count messages, anna's `numbers`, and at most one range. */
static void ask(struct world *world, const uint64_t *numbers, size_t count, struct gone range,
                uint64_t last_seq)
{
    static uint8_t bytes[8][CONTENT_BYTES + 64];
    struct message messages[8] = {0};
    for (size_t i = 0; i < count; i++) {
        uint8_t content_bytes[CONTENT_BYTES];
        struct buffer content = buffer_of(content_bytes, sizeof content_bytes);
        struct buffer payload = buffer_of(bytes[i], sizeof bytes[i]);
        struct message_id id = id_of(numbers[i]);
        assert_int_equal(oracle_content(&content, CONTENT_BYTES, world->conversation, &id, ANNA, 5),
                         OK);
        assert_int_equal(protocol_payload_text(&payload, buffer_bytes(&content)), OK);
        uint64_t skipped =
            range.from_seq != 0 && range.from_seq <= i + 1 ? range.to_seq + 1 - range.from_seq : 0;
        messages[i] = (struct message){.conversation = world->conversation,
                                       .seq = i + 1 + skipped,
                                       .message_id = id,
                                       .sender = ANNA,
                                       .expires_ms = world->expires ? oracle_expiry(&id) : 0,
                                       .payload = buffer_bytes(&payload)};
    }
    const struct history history = {.conversation = world->conversation,
                                    .messages = messages,
                                    .message_count = count,
                                    .gone = &range,
                                    .gone_count = range.from_seq != 0 ? 1 : 0,
                                    .last_seq = last_seq};
    oracle_history(world->oracle, bert, 1, &history);
}

static void a_history_is_complete(void **state)
{
    struct world *world = *state;
    const uint64_t numbers[] = {1, 2, 3};
    for (uint64_t n = 1; n <= 3; n++) {
        ack(world, n, n);
        assert_true(push(world, bert, 1, n, n));
    }
    ask(world, numbers, 3, (struct gone){0}, 3);
    ask(world, numbers, 3, (struct gone){.from_seq = 2, .to_seq = 4}, 6); /* retention */
    assert_clean(world);
    ask(world, numbers, 2, (struct gone){0}, 3);
    ASSERT_ONLY(world, gaps, 1);
}

static void a_history_has_what_was_delivered(void **state)
{
    struct world *world = *state;
    ack(world, 1, 1);
    assert_true(push(world, bert, 1, 1, 1));
    ask(world, (const uint64_t[]){2}, 1, (struct gone){0}, 1);
    ASSERT_ONLY(world, conflicting, 1);
}

static void a_history_tells_what_disappeared(void **state)
{
    struct world *world = *state;
    uint64_t stays = number_that(1, false);
    uint64_t n = number_that(1, true);
    expiring(world, MADE_MS);
    ack(world, n, 1);
    ack(world, stays, 2);
    assert_true(push(world, bert, 1, n, 1));
    assert_true(push(world, bert, 1, stays, 2));
    ask(world, (const uint64_t[]){n, stays}, 2, (struct gone){0}, 2);
    oracle_time(world->oracle, expiry_of(n));
    ask(world, &stays, 1, (struct gone){.from_seq = 1, .to_seq = 1}, 2);
    assert_clean(world);
    ask(world, NULL, 0, (struct gone){.from_seq = 1, .to_seq = 2}, 2);
    ASSERT_ONLY(world, lost, 1);
}

static void a_history_shows_nothing_late(void **state)
{
    struct world *world = *state;
    uint64_t n = number_that(1, true);
    expiring(world, expiry_of(n) + 2001);
    ask(world, &n, 1, (struct gone){0}, 1);
    ASSERT_ONLY(world, late, 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(long_chat_is_clean_and_bounded),
        TEST(lost_message_is_owed),
        TEST(every_device_is_owed),
        TEST(late_joiner_is_owed_from_its_first_number_on),
        TEST(passed_over_number_is_lost_though_never_acknowledged),
        TEST(unknown_number_is_a_gap),
        TEST(second_push_on_one_connection_is_a_duplicate),
        TEST(old_push_on_one_connection_is_a_duplicate),
        TEST(push_after_reconnect_is_redelivery),
        TEST(confirmed_message_must_not_come_again),
        TEST(later_number_first_is_reordering),
        TEST(redelivery_out_of_order_is_a_fault_too),
        TEST(own_message_may_be_known_by_a_late_acknowledgement),
        TEST(own_message_pushed_back_is_an_echo),
        TEST(altered_content_is_seen),
        TEST(two_messages_under_one_number_conflict),
        TEST(one_message_under_two_numbers_conflicts),
        TEST(a_repeat_that_is_numbered_again_conflicts),
        TEST(a_repeat_has_the_first_number),
        TEST(a_repeat_is_not_refused),
        TEST(a_repeat_after_a_day_may_be_refused),
        TEST(what_was_delivered_is_not_refused),
        TEST(acknowledgement_and_delivery_disagree),
        TEST(number_zero_conflicts),
        TEST(number_beyond_the_window_is_not_clean),
        TEST(stranger_is_not_clean),
        TEST(repeated_send_acknowledged_late_is_fine),
        TEST(unacknowledged_newest_message_is_not_promised),
        TEST(fetched_message_fills_a_hole_in_any_order),
        TEST(one_in_four_disappears_soon),
        TEST(gone_after_its_time_is_as_good_as_shown),
        TEST(gone_before_its_time_is_lost),
        TEST(gone_though_it_stays_is_lost),
        TEST(gone_and_acknowledged_late_is_judged_then),
        TEST(a_sender_is_owed_the_number_that_others_were_told),
        TEST(shown_long_after_its_time_is_late),
        TEST(another_expiry_than_was_asked_for_is_altered),
        TEST(a_history_is_complete),
        TEST(a_history_has_what_was_delivered),
        TEST(a_history_tells_what_disappeared),
        TEST(a_history_shows_nothing_late),
        cmocka_unit_test(content_binds_all_it_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
