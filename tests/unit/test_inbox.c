/* test_inbox.c: an entry that was made for a cursor's sake holds back no message that fan-out
 * brings afterwards. */
#include "tests/unit/check.h"

#include "gateway/chat/inbox.h"

#define PHONE  1
#define LAPTOP 2

static const struct conversation_id conversation = {101, 202};

static struct entry *made(struct inbox *inbox, uint64_t from_seq)
{
    struct entry *entry;
    bool is_new;
    inbox_init(inbox, (struct user_id){101});
    inbox->state = INBOX_WARM;
    assert_int_equal(inbox_add_device(inbox, (struct device_id){PHONE}), OK);
    assert_int_equal(inbox_add_device(inbox, (struct device_id){LAPTOP}), OK);
    assert_int_equal(inbox_entry_make(inbox, &entry, conversation, from_seq, &is_new), OK);
    assert_true(is_new);
    return entry;
}

static struct cursor_state *cursor_of(struct entry *entry, uint32_t device)
{
    struct cursor_state *cursor;
    bool is_new;
    assert_int_equal(entry_cursor(entry, &cursor, (struct device_id){device}, &is_new), OK);
    assert_false(is_new);
    return cursor;
}

static void fan_out_corrects_a_presumption(void **state)
{
    (void)state;
    struct inbox inbox;
    struct entry *entry = made(&inbox, 11); /* the conversation is at 10 */
    entry_presume(entry);
    cursor_of(entry, PHONE)->presumed = false; /* it said itself that it has 10 */
    entry_told(entry, 8);
    assert_int_equal(cursor_of(entry, LAPTOP)->delivered, 7);
    assert_int_equal(cursor_of(entry, LAPTOP)->sent, 7);
    assert_int_equal(cursor_of(entry, PHONE)->delivered, 10);
    entry_told(entry, 5); /* presumed no more */
    assert_int_equal(cursor_of(entry, LAPTOP)->delivered, 7);
    inbox_deinit(&inbox);
}

static void news_confirm_a_presumption(void **state)
{
    (void)state;
    struct inbox inbox;
    struct entry *entry = made(&inbox, 11);
    entry_presume(entry);
    entry_told(entry, 11);
    assert_int_equal(cursor_of(entry, LAPTOP)->delivered, 10);
    assert_false(cursor_of(entry, LAPTOP)->presumed);
    inbox_deinit(&inbox);
}

static void a_made_entry_is_no_presumption(void **state)
{
    (void)state;
    struct inbox inbox;
    struct entry *entry = made(&inbox, 11);
    entry_told(entry, 8);
    assert_int_equal(cursor_of(entry, LAPTOP)->delivered, 10);
    inbox_deinit(&inbox);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fan_out_corrects_a_presumption),
        cmocka_unit_test(news_confirm_a_presumption),
        cmocka_unit_test(a_made_entry_is_no_presumption),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
