/* test_inbox.c: entries, cursors of known and of new devices, loading over what moved meanwhile,
 * and what may be forgotten. */
#include "gateway/chat/inbox.h"

#include "core/memory.h"
#include "tests/unit/check.h"

static const struct user_id anna = {10};
static const struct device_id phone = {1};
static const struct device_id laptop = {2};
static const struct device_id tablet = {3};

struct rig {
    struct inbox inbox;
    int64_t memory_before;
    uint32_t made_count; /* callbacks of inbox_loaded */
    struct entry *made[16];
};

static int setup(void **state)
{
    static struct rig rig;
    rig = (struct rig){.memory_before = memory_bytes(MEMORY_CHAT)};
    inbox_init(&rig.inbox, anna);
    *state = &rig;
    return 0;
}

static int teardown(void **state)
{
    struct rig *rig = *state;
    memory_fail_at(0);
    inbox_deinit(&rig->inbox);
    assert_int_equal(memory_bytes(MEMORY_CHAT), rig->memory_before);
    return 0;
}

static struct conversation_id with(uint64_t peer)
{
    return conversation_id_direct(anna, (struct user_id){peer});
}

static struct entry *make(struct inbox *inbox, uint64_t peer, uint64_t from_seq)
{
    struct entry *entry = NULL;
    bool made = false;
    assert_int_equal(inbox_entry_make(inbox, &entry, with(peer), from_seq, &made), OK);
    assert_true(made);
    assert_ptr_equal(entry->inbox, inbox);
    return entry;
}

static void add_devices(struct inbox *inbox, uint32_t count)
{
    for (uint32_t i = 1; i <= count; i++)
        assert_int_equal(inbox_add_device(inbox, (struct device_id){i}), OK);
}

static struct cursor_state *cursor_of(struct entry *entry, struct device_id device)
{
    struct cursor_state *cursor = NULL;
    bool made = true;
    assert_int_equal(entry_cursor(entry, &cursor, device, &made), OK);
    assert_false(made);
    assert_int_equal(cursor->device.v, device.v);
    return cursor;
}

static void on_made(void *context, struct entry *entry)
{
    struct rig *rig = context;
    assert_true(rig->made_count < 16);
    rig->made[rig->made_count++] = entry;
}

static void load_row(struct inbox *inbox, uint64_t peer, const struct inbox_row *row)
{
    assert_int_equal(inbox_load_row(inbox, with(peer), row), OK);
}

static void assert_sorted(const struct inbox *inbox)
{
    for (uint32_t i = 1; i < inbox->entry_count; i++) {
        uint8_t before[16];
        uint8_t after[16];
        conversation_id_encode(before, inbox->entries[i - 1]->conversation);
        conversation_id_encode(after, inbox->entries[i]->conversation);
        assert_true(memcmp(before, after, 16) < 0);
    }
}

static void entries_are_sorted_and_found(void **state)
{
    struct rig *rig = *state;
    uint64_t seed = 42;
    struct entry *entries[200];
    uint64_t peers[200];
    uint32_t count = 0;
    rig->inbox.state = INBOX_WARM;
    while (count < 200) {
        /* on both sides of the user's own id: it is hi in some and lo in others */
        uint64_t peer = 1 + random_below(&seed, count % 2 == 0 ? 400 : 1u << 30);
        if (inbox_entry(&rig->inbox, with(peer)) != NULL)
            continue;
        peers[count] = peer;
        entries[count++] = make(&rig->inbox, peer, 1);
        assert_int_equal(rig->inbox.entry_count, count);
        assert_sorted(&rig->inbox);
    }
    for (uint32_t i = 0; i < count; i++) {
        struct entry *again = NULL;
        bool made = true;
        assert_ptr_equal(inbox_entry(&rig->inbox, with(peers[i])), entries[i]);
        assert_int_equal(inbox_entry_make(&rig->inbox, &again, with(peers[i]), 77, &made), OK);
        assert_false(made);
        assert_ptr_equal(again, entries[i]);
        assert_int_equal(again->last_seq, 0); /* what is there stays as it is */
    }
    assert_int_equal(rig->inbox.entry_count, count);
    assert_null(inbox_entry(&rig->inbox, with(1ull << 40)));
}

static void an_entry_of_a_warm_user_begins_below_what_moved(void **state)
{
    struct rig *rig = *state;
    add_devices(&rig->inbox, 3);
    rig->inbox.state = INBOX_WARM;
    struct entry *entry = make(&rig->inbox, 20, 8);
    assert_int_equal(entry->last_seq, 7);
    assert_int_equal(entry->cursor_count, 3);
    for (uint32_t i = 1; i <= 3; i++) {
        struct cursor_state *cursor = cursor_of(entry, (struct device_id){i});
        assert_int_equal(cursor->delivered, 7);
        assert_int_equal(cursor->sent, 7);
        assert_true(cursor->told == UINT64_MAX);
        assert_false(cursor->behind);
        assert_false(cursor->presumed);
    }
    assert_int_equal(entry_delivered(entry), 7);
}

static void an_entry_of_a_cold_user_waits_for_its_row(void **state)
{
    struct rig *rig = *state;
    add_devices(&rig->inbox, 2);
    for (int i = 0; i < 2; i++) {
        rig->inbox.state = i == 0 ? INBOX_COLD : INBOX_LOADING;
        struct entry *entry = make(&rig->inbox, (uint64_t)(20 + i), 8);
        assert_int_equal(entry->cursor_count, 0);
        assert_int_equal(entry->last_seq, 0);
    }
}

static void loading_merges_what_moved_meanwhile(void **state)
{
    static const struct inbox_row rows[] = {
        /* 1: phone, 2: laptop */
        {.last_seq = 6,
         .activity_ms = 600,
         .read_seq = 5,
         .peer_delivered = 6,
         .peer_read = 2,
         .cursor_count = 2,
         .cursors = {{{1}, 6}, {{2}, 4}}},
        {.last_seq = 4,
         .activity_ms = 400,
         .read_seq = 2,
         .cursor_count = 1,
         .cursors = {{{1}, 3}}},
        {.last_seq = 2},
        {.last_seq = 1, .cursor_count = 1, .cursors = {{{1}, 1}}}}; /* large */
    struct rig *rig = *state;
    struct inbox *inbox = &rig->inbox;
    struct entry *ahead = make(inbox, 20, 9); /* fan-out came before the row */
    ahead->last_seq = 9;
    ahead->activity_ms = 900;
    ahead->read_seq = 8;
    ahead->peer_delivered = 3;
    ahead->peer_read = 9;
    ahead->dirty = true;
    struct entry *stale = make(inbox, 30, 1);
    stale->last_seq = 1;
    inbox->state = INBOX_LOADING;
    add_devices(inbox, 2);
    load_row(inbox, 20, &rows[0]);
    load_row(inbox, 30, &rows[1]);
    load_row(inbox, 15, &rows[2]); /* nothing moved: a new entry */
    assert_int_equal(inbox->entry_count, 3);
    assert_sorted(inbox);
    assert_ptr_equal(inbox_entry(inbox, with(20)), ahead);
    assert_int_equal(ahead->last_seq, 9);
    assert_int_equal(ahead->activity_ms, 900);
    assert_int_equal(ahead->read_seq, 8);
    assert_int_equal(ahead->read_told, 0);
    assert_int_equal(ahead->peer_delivered, 6);
    assert_int_equal(ahead->peer_read, 9);
    assert_true(ahead->dirty);
    assert_int_equal(cursor_of(ahead, phone)->delivered, 6);
    assert_int_equal(cursor_of(ahead, phone)->sent, 6);
    assert_int_equal(cursor_of(ahead, phone)->told, 6);
    assert_int_equal(cursor_of(ahead, laptop)->delivered, 4);
    assert_int_equal(stale->last_seq, 4);
    assert_int_equal(stale->activity_ms, 400);
    assert_int_equal(stale->read_seq, 2);
    assert_int_equal(stale->read_told, 2); /* the conversation's checkpoint wrote that row */
    /* the same row again, and an older one, change nothing */
    load_row(inbox, 30, &rows[3]);
    assert_int_equal(stale->last_seq, 4);
    assert_int_equal(stale->cursor_count, 1);
    assert_int_equal(cursor_of(stale, phone)->delivered, 3);
}

static void new_devices_begin_where_the_others_are_at_most(void **state)
{
    struct rig *rig = *state;
    struct inbox *inbox = &rig->inbox;
    inbox->state = INBOX_LOADING;
    add_devices(inbox, 3);
    /* two know it, the tablet is new */
    load_row(inbox, 20,
             &(struct inbox_row){
                 .last_seq = 9, .cursor_count = 2, .cursors = {{phone, 5}, {laptop, 7}}});
    /* nobody ever acknowledged anything */
    load_row(inbox, 30, &(struct inbox_row){.last_seq = 4});
    /* everybody is known */
    load_row(inbox, 40,
             &(struct inbox_row){.last_seq = 4,
                                 .cursor_count = 3,
                                 .cursors = {{phone, 4}, {laptop, 0}, {tablet, 1}}});
    assert_int_equal(inbox_loaded(inbox, on_made, rig), OK);
    assert_int_equal(inbox->state, INBOX_WARM);

    struct entry *entry = inbox_entry(inbox, with(20));
    assert_int_equal(cursor_of(entry, phone)->delivered, 5);
    assert_int_equal(cursor_of(entry, laptop)->delivered, 7);
    assert_int_equal(cursor_of(entry, tablet)->delivered, 7);
    assert_int_equal(cursor_of(entry, tablet)->sent, 7);
    assert_true(cursor_of(entry, tablet)->told == UINT64_MAX);
    struct entry *untouched = inbox_entry(inbox, with(30));
    assert_int_equal(untouched->cursor_count, 3);
    for (uint32_t i = 1; i <= 3; i++)
        assert_int_equal(cursor_of(untouched, (struct device_id){i})->delivered, 0);
    struct entry *known = inbox_entry(inbox, with(40));
    assert_int_equal(known->cursor_count, 3);
    assert_int_equal(cursor_of(known, laptop)->delivered, 0);
    /* told of exactly those in which a cursor was made, once each */
    assert_int_equal(rig->made_count, 2);
    assert_ptr_equal(rig->made[0], entry);
    assert_ptr_equal(rig->made[1], untouched);
}

static void a_cursor_is_made_where_the_others_are_at_most(void **state)
{
    struct rig *rig = *state;
    struct cursor_state *cursor;
    bool made = false;
    struct entry *entry = make(&rig->inbox, 20, 1);
    assert_int_equal(entry_cursor(entry, &cursor, phone, &made), OK);
    assert_true(made);
    assert_int_equal(cursor->delivered, 0); /* the first one */
    cursor->delivered = 6;
    assert_int_equal(entry_cursor(entry, &cursor, laptop, &made), OK);
    assert_true(made);
    assert_int_equal(cursor->delivered, 6);
    assert_int_equal(cursor->sent, 6);
    assert_true(cursor->told == UINT64_MAX);
    cursor->delivered = 2;
    assert_int_equal(entry_delivered(entry), 6);
    assert_int_equal(entry_cursor(entry, &cursor, tablet, &made), OK);
    assert_int_equal(cursor->delivered, 6);
    assert_int_equal(cursor_of(entry, laptop)->delivered, 2); /* made once */
    assert_int_equal(entry->cursor_count, 3);
}

static void devices_are_counted_and_bounded(void **state)
{
    struct rig *rig = *state;
    struct cursor_state *cursor;
    bool made;
    add_devices(&rig->inbox, ROW_CURSORS_MAX);
    assert_int_equal(inbox_add_device(&rig->inbox, phone), ERR_EXISTS);
    assert_int_equal(inbox_add_device(&rig->inbox, (struct device_id){ROW_CURSORS_MAX}),
                     ERR_EXISTS);
    assert_int_equal(inbox_add_device(&rig->inbox, (struct device_id){ROW_CURSORS_MAX + 1}),
                     ERR_FULL);
    assert_int_equal(rig->inbox.device_count, ROW_CURSORS_MAX);
    rig->inbox.state = INBOX_WARM;
    struct entry *entry = make(&rig->inbox, 20, 5);
    assert_int_equal(entry->cursor_count, ROW_CURSORS_MAX);
    assert_int_equal(entry_cursor(entry, &cursor, (struct device_id){ROW_CURSORS_MAX + 1}, &made),
                     ERR_FULL);
    assert_int_equal(entry->cursor_count, ROW_CURSORS_MAX);
}

static void what_was_presumed_is_taken_back_once(void **state)
{
    struct rig *rig = *state;
    add_devices(&rig->inbox, 3);
    rig->inbox.state = INBOX_WARM;
    struct entry *entry = make(&rig->inbox, 20, 11); /* all are believed to have 10 */
    entry_presume(entry);
    cursor_of(entry, laptop)->behind = true; /* its session says better than fan-out */
    cursor_of(entry, tablet)->delivered = 6; /* below what comes: it stays */
    cursor_of(entry, tablet)->sent = 6;
    entry_told(entry, 8); /* but 8 … 10 were on their way */
    assert_int_equal(cursor_of(entry, phone)->delivered, 7);
    assert_int_equal(cursor_of(entry, phone)->sent, 7);
    assert_int_equal(cursor_of(entry, laptop)->delivered, 10);
    assert_int_equal(cursor_of(entry, tablet)->delivered, 6);
    cursor_of(entry, phone)->delivered = 9; /* acknowledged: no presumption any more */
    entry_told(entry, 9);
    assert_int_equal(cursor_of(entry, phone)->delivered, 9);
    cursor_of(entry, laptop)->behind = false;
    entry_told(entry, 9);
    assert_int_equal(cursor_of(entry, laptop)->delivered, 10);
}

static void fan_out_corrects_a_presumption(void **state)
{
    struct rig *rig = *state;
    add_devices(&rig->inbox, 2);
    rig->inbox.state = INBOX_WARM;
    struct entry *entry = make(&rig->inbox, 20, 11); /* the conversation is at 10 */
    entry_presume(entry);
    cursor_of(entry, phone)->presumed = false; /* it said itself that it has 10 */
    entry_told(entry, 8);
    assert_int_equal(cursor_of(entry, laptop)->delivered, 7);
    assert_int_equal(cursor_of(entry, laptop)->sent, 7);
    assert_int_equal(cursor_of(entry, phone)->delivered, 10);
    entry_told(entry, 5); /* presumed no more */
    assert_int_equal(cursor_of(entry, laptop)->delivered, 7);
}

static void news_confirm_a_presumption(void **state)
{
    struct rig *rig = *state;
    add_devices(&rig->inbox, 2);
    rig->inbox.state = INBOX_WARM;
    struct entry *entry = make(&rig->inbox, 20, 11);
    entry_presume(entry);
    entry_told(entry, 11);
    assert_int_equal(cursor_of(entry, laptop)->delivered, 10);
    assert_false(cursor_of(entry, laptop)->presumed);
}

static void a_made_entry_is_no_presumption(void **state)
{
    struct rig *rig = *state;
    add_devices(&rig->inbox, 2);
    rig->inbox.state = INBOX_WARM;
    struct entry *entry = make(&rig->inbox, 20, 11);
    entry_told(entry, 8);
    assert_int_equal(cursor_of(entry, laptop)->delivered, 10);
}

static void rows_say_what_entries_hold(void **state)
{
    struct rig *rig = *state;
    struct inbox_row row;
    struct inbox_row back;
    row = (struct inbox_row){.last_seq = 9,
                             .activity_ms = 900,
                             .read_seq = 5,
                             .peer_delivered = 8,
                             .peer_read = 7,
                             .cursor_count = 2,
                             .cursors = {{phone, 9}, {laptop, 5}}};
    rig->inbox.state = INBOX_LOADING;
    load_row(&rig->inbox, 20, &row);
    entry_to_row(inbox_entry(&rig->inbox, with(20)), &back);
    assert_memory_equal(&row, &back, offsetof(struct inbox_row, cursor_count));
    assert_int_equal(back.cursor_count, 2);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(back.cursors[i].device.v, row.cursors[i].device.v);
        assert_int_equal(back.cursors[i].delivered, row.cursors[i].delivered);
    }
}

/* Entries 20 … 26 in every condition; only 20 and 26 are caught up and clean. */
static void make_conditions(struct inbox *inbox)
{
    for (uint64_t peer = 20; peer <= 26; peer++)
        make(inbox, peer, 5);
    inbox_entry(inbox, with(21))->dirty = true;
    inbox_entry(inbox, with(22))->watermark_dirty = true;
    cursor_of(inbox_entry(inbox, with(23)), laptop)->behind = true;
    cursor_of(inbox_entry(inbox, with(24)), laptop)->delivered = 3;
    inbox_entry(inbox, with(25))->last_seq = 5;
}

static void only_what_is_caught_up_is_forgotten(void **state)
{
    struct rig *rig = *state;
    struct inbox *inbox = &rig->inbox;
    add_devices(inbox, 2);
    inbox->state = INBOX_WARM;
    make_conditions(inbox);
    inbox->state = INBOX_LOADING; /* its rows are not all there: everything stays */
    inbox_drop_idle(inbox);
    assert_int_equal(inbox->entry_count, 7);
    inbox->state = INBOX_COLD;
    inbox_drop_idle(inbox);
    assert_int_equal(inbox->entry_count, 7);
    inbox->state = INBOX_WARM;
    inbox_drop_idle(inbox);
    assert_int_equal(inbox->entry_count, 5);
    assert_sorted(inbox);
    for (uint64_t peer = 20; peer <= 26; peer++)
        assert_int_equal(inbox_entry(inbox, with(peer)) != NULL, peer >= 21 && peer <= 25);
    inbox_entry(inbox, with(21))->dirty = false;
    inbox_entry(inbox, with(22))->watermark_dirty = false;
    cursor_of(inbox_entry(inbox, with(23)), laptop)->behind = false;
    cursor_of(inbox_entry(inbox, with(24)), laptop)->delivered = 4;
    for (uint32_t i = 1; i <= 2; i++)
        cursor_of(inbox_entry(inbox, with(25)), (struct device_id){i})->delivered = 5;
    inbox_drop_idle(inbox);
    assert_int_equal(inbox->entry_count, 0);
}

static void a_user_without_devices_keeps_what_is_for_them(void **state)
{
    struct rig *rig = *state;
    rig->inbox.state = INBOX_WARM;
    struct entry *entry = make(&rig->inbox, 20, 5);
    entry->last_seq = 5;
    make(&rig->inbox, 30, 1); /* nothing in it */
    inbox_drop_idle(&rig->inbox);
    assert_int_equal(rig->inbox.entry_count, 1);
    assert_ptr_equal(inbox_entry(&rig->inbox, with(20)), entry);
}

static void idle_means_nothing_would_be_lost(void **state)
{
    struct rig *rig = *state;
    struct inbox *inbox = &rig->inbox;
    assert_true(inbox_idle(inbox));
    inbox->state = INBOX_LOADING;
    assert_false(inbox_idle(inbox));
    inbox->state = INBOX_WARM;
    struct entry *entry = make(inbox, 20, 1);
    assert_true(inbox_idle(inbox));
    bool *marks[] = {&inbox->dirty, &entry->dirty, &entry->watermark_dirty};
    for (size_t i = 0; i < sizeof marks / sizeof marks[0]; i++) {
        *marks[i] = true;
        assert_false(inbox_idle(inbox));
        *marks[i] = false;
    }
    struct session **lists[] = {&inbox->sessions, &inbox->waiting};
    for (size_t i = 0; i < 2; i++) {
        *lists[i] = (struct session *)(uintptr_t)16;
        assert_false(inbox_idle(inbox));
        *lists[i] = NULL;
    }
    assert_true(inbox_idle(inbox));
}

/* For every n: an entry is made with all its cursors, or there is none. */
static void making_an_entry_without_memory_changes_nothing(void **state)
{
    struct rig *rig = *state;
    struct inbox *inbox = &rig->inbox;
    add_devices(inbox, 3);
    inbox->state = INBOX_WARM;
    make(inbox, 20, 5);
    make(inbox, 40, 5); /* the array is full: the next one grows it */
    assert_int_equal(inbox->entry_count, inbox->entry_capacity);
    uint64_t n = 0;
    enum err err = ERR_NO_MEMORY;
    while (err != OK) {
        struct entry *entry = NULL;
        bool made = false;
        memory_fail_at(++n);
        err = inbox_entry_make(inbox, &entry, with(30), 9, &made);
        memory_fail_at(0);
        assert_int_equal(err, n <= 4 ? ERR_NO_MEMORY : OK); /* the grown array stays */
        assert_int_equal(made, err == OK);
        assert_int_equal(inbox->entry_count, err == OK ? 3 : 2);
        assert_ptr_equal(inbox_entry(inbox, with(30)), err == OK ? entry : NULL);
        assert_sorted(inbox);
    }
    assert_int_equal(inbox_entry(inbox, with(30))->cursor_count, 3);
    assert_int_equal(inbox_entry(inbox, with(40))->cursor_count, 3);
}

/* For every n: what fails while loading can be loaded again and is then as if it had not failed. */
static void loading_without_memory_can_be_repeated(void **state)
{
    struct rig *rig = *state;
    const struct inbox_row row = {.last_seq = 9,
                                  .activity_ms = 900,
                                  .read_seq = 2,
                                  .cursor_count = 2,
                                  .cursors = {{phone, 5}, {laptop, 7}}};
    uint64_t n = 0;
    bool failed = true;
    while (failed) {
        struct inbox inbox;
        struct rig calls = {.made_count = 0};
        inbox_init(&inbox, anna);
        make(&inbox, 20, 9)->last_seq = 10;
        inbox.state = INBOX_LOADING;
        memory_fail_at(++n);
        failed = false;
        for (int attempt = 0; inbox.state != INBOX_WARM; attempt++) {
            enum err err = OK;
            for (uint32_t i = 1; err == OK && i <= 4; i++) {
                err = inbox_add_device(&inbox, (struct device_id){i});
                err = err == ERR_EXISTS ? OK : err;
            }
            for (uint64_t peer = 20; err == OK && peer <= 40; peer += 10)
                err = inbox_load_row(&inbox, with(peer), &row);
            if (err == OK)
                err = inbox_loaded(&inbox, on_made, &calls);
            assert_int_equal(inbox.state == INBOX_WARM, err == OK);
            assert_true(err == OK || (err == ERR_NO_MEMORY && attempt == 0));
            failed = failed || err != OK;
        }
        memory_fail_at(0);
        assert_int_equal(inbox.entry_count, 3);
        assert_int_equal(calls.made_count, 3);
        for (uint32_t i = 0; i < 3; i++) {
            struct entry *entry = inbox.entries[i];
            assert_int_equal(entry->last_seq, i == 0 ? 10 : 9);
            assert_int_equal(entry->read_told, 2);
            assert_int_equal(entry->cursor_count, 4);
            assert_int_equal(cursor_of(entry, phone)->delivered, 5);
            assert_int_equal(cursor_of(entry, laptop)->delivered, 7);
            assert_int_equal(cursor_of(entry, tablet)->delivered, 7);
            assert_int_equal(cursor_of(entry, (struct device_id){4})->delivered, 7);
        }
        inbox_deinit(&inbox);
    }
    assert_true(n > 15); /* 4 devices, 2 entries, an array, 12 cursors */
    (void)rig;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(entries_are_sorted_and_found, setup, teardown),
        cmocka_unit_test_setup_teardown(an_entry_of_a_warm_user_begins_below_what_moved, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(an_entry_of_a_cold_user_waits_for_its_row, setup, teardown),
        cmocka_unit_test_setup_teardown(loading_merges_what_moved_meanwhile, setup, teardown),
        cmocka_unit_test_setup_teardown(new_devices_begin_where_the_others_are_at_most, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_cursor_is_made_where_the_others_are_at_most, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(devices_are_counted_and_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(what_was_presumed_is_taken_back_once, setup, teardown),
        cmocka_unit_test_setup_teardown(fan_out_corrects_a_presumption, setup, teardown),
        cmocka_unit_test_setup_teardown(news_confirm_a_presumption, setup, teardown),
        cmocka_unit_test_setup_teardown(a_made_entry_is_no_presumption, setup, teardown),
        cmocka_unit_test_setup_teardown(rows_say_what_entries_hold, setup, teardown),
        cmocka_unit_test_setup_teardown(only_what_is_caught_up_is_forgotten, setup, teardown),
        cmocka_unit_test_setup_teardown(a_user_without_devices_keeps_what_is_for_them, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(idle_means_nothing_would_be_lost, setup, teardown),
        cmocka_unit_test_setup_teardown(making_an_entry_without_memory_changes_nothing, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(loading_without_memory_can_be_repeated, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
