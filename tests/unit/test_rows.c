/* test_rows.c: rows of conversations and inboxes over the real catalog: merging, pending rows,
 * damage, batches, replay. Most tests work in one transaction that is thrown away, as a failing job
 * would be. */
#include "gateway/chat/replay.h"

#include "core/file.h"
#include "core/memory.h"
#include "tests/unit/check.h"

#include <stdio.h>
#include <stdlib.h>

#define NOW        1800000000000ull
#define USERS      3 /* of random rows */
#define PEERS      4
#define ROWS_COUNT 60
#define DUMP_BYTES (256u << 10)

static struct catalog *catalog;
static struct catalog_txn *txn;
static char directory[64];

static enum err drop_entry(void *context, const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", (const char *)context, name);
    return file_remove(path);
}

static int setup(void **state)
{
    const char *explanation;
    (void)state;
    snprintf(directory, sizeof directory, "/tmp/test_rows_XXXXXX");
    if (mkdtemp(directory) == NULL ||
        catalog_open(&catalog, directory, 64u << 20, &explanation) != OK)
        return -1;
    return catalog_begin(catalog, &txn, true) == OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    memory_fail_at(0);
    catalog_abort(txn);
    catalog_close(catalog);
    return file_list(directory, drop_entry, directory) == OK && remove(directory) == 0 ? 0 : -1;
}

static void start_over(void)
{
    catalog_abort(txn);
    assert_int_equal(catalog_begin(catalog, &txn, true), OK);
}

static struct conversation_id between(uint64_t a, uint64_t b)
{
    return conversation_id_direct((struct user_id){a}, (struct user_id){b});
}

/* ---- the catalog's whole contents as bytes, to compare states */

static enum err dump_row(void *context, struct bytes key, struct bytes value)
{
    struct buffer *out = context;
    TRY(buffer_put_u32(out, (uint32_t)key.size));
    TRY(buffer_append(out, key));
    TRY(buffer_put_u32(out, (uint32_t)value.size));
    return buffer_append(out, value);
}

struct dump {
    struct buffer out;
    uint8_t bytes[DUMP_BYTES];
};

static void dump_take(struct dump *dump)
{
    static const enum catalog_table tables[] = {CATALOG_CONVERSATIONS, CATALOG_INBOX,
                                                CATALOG_PENDING};
    dump->out = buffer_of(dump->bytes, sizeof dump->bytes);
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        assert_int_equal(buffer_put_u32(&dump->out, (uint32_t)i), OK);
        assert_int_equal(catalog_scan(txn, tables[i], bytes_of(NULL, 0), dump_row, &dump->out), OK);
    }
}

static bool dump_same(const struct dump *a, const struct dump *b)
{
    return bytes_equal(buffer_bytes(&a->out), buffer_bytes(&b->out));
}

/* ---- random rows */

struct item {
    bool inbox;
    struct user_id user;
    struct conversation_id conversation;
    struct inbox_row inbox_row;
    struct conversation_row conversation_row;
};

static void make_item(struct item *item, uint64_t *seed)
{
    uint64_t user = 1 + random_below(seed, USERS);
    memset(item, 0, sizeof *item);
    item->inbox = random_below(seed, 2) == 0;
    item->user.v = user;
    item->conversation = between(user, 1 + random_below(seed, PEERS)); /* with oneself, too */
    if (item->inbox) {
        struct inbox_row *row = &item->inbox_row;
        row->last_seq = random_below(seed, 20);
        row->activity_ms = NOW + random_below(seed, 20);
        row->read_seq = random_below(seed, 20);
        row->peer_delivered = random_below(seed, 20);
        row->peer_read = random_below(seed, 20);
        for (uint64_t n = random_below(seed, 4); n > 0; n--)
            inbox_row_cursor(row, (struct device_id){1 + (uint32_t)random_below(seed, 5)})
                ->delivered = random_below(seed, 20);
        return;
    }
    struct conversation_row *row = &item->conversation_row;
    row->last_seq = random_below(seed, 20);
    row->last_time_ms = NOW + random_below(seed, 20);
    for (int i = 0; i < 2; i++) {
        row->delivered[i] = random_below(seed, 20);
        row->read[i] = random_below(seed, 20);
    }
    if (random_below(seed, 2) ==
        0) { /* what a number and what was counted say is always the same */
        row->keep.seq = 1 + random_below(seed, 3);
        row->keep.setting = (struct retention_setting){row->keep.seq * 60, row->keep.seq * 800};
        row->keep.counted = random_below(seed, 2000);
        row->keep.since = random_below(seed, row->keep.counted + 1);
        row->keep.uncounted = random_below(seed, 2) == 0;
        row->keep.mark_count = 1 + (uint32_t)(row->keep.counted % 2);
        row->keep.marks[0] = (struct keep_mark){row->keep.seq, 0};
        if (row->keep.mark_count == 2)
            row->keep.marks[1] = (struct keep_mark){row->keep.seq + 9, row->keep.counted / 2};
    }
    for (uint64_t n = random_below(seed, 4); n > 0; n--) {
        struct device_id device = {1 + (uint32_t)random_below(seed, 3)};
        struct user_id sender = {1 + random_below(seed, 2)};
        conversation_row_sender(row, sender, device)->highest.v[random_below(seed, 2)] =
            (uint8_t)random_below(seed, 250);
    }
}

static void merge_item(const struct item *item)
{
    if (item->inbox)
        assert_int_equal(rows_merge_inbox(txn, item->user, item->conversation, &item->inbox_row),
                         OK);
    else
        assert_int_equal(rows_merge_conversation(txn, item->conversation, &item->conversation_row),
                         OK);
}

static int compare_cursors(const void *a, const void *b)
{
    const struct inbox_cursor *x = a;
    const struct inbox_cursor *y = b;
    return (x->device.v > y->device.v) - (x->device.v < y->device.v);
}

static int compare_senders(const void *a, const void *b)
{
    const struct sender_row *x = a;
    const struct sender_row *y = b;
    if (x->user.v != y->user.v)
        return x->user.v < y->user.v ? -1 : 1;
    return (x->device.v > y->device.v) - (x->device.v < y->device.v);
}

/* Every row of the random rows, lists in order of device; and that pending rows are where they must
 * be. Lists keep the order in which devices came: that is no part of what a row says. */
static void summarize(struct buffer *out)
{
    static struct conversation_row conversation;
    struct inbox_row inbox;
    for (uint64_t user = 1; user <= USERS; user++)
        for (uint64_t peer = 1; peer <= PEERS; peer++) {
            enum err err =
                rows_read_inbox(txn, (struct user_id){user}, between(user, peer), &inbox);
            uint8_t key[ROW_KEY_BYTES];
            struct bytes value;
            assert_true(err == OK || err == ERR_NOT_FOUND);
            row_key_inbox(key, (struct user_id){user}, between(user, peer));
            enum err pending = catalog_get(txn, CATALOG_PENDING, bytes_of(key, sizeof key), &value);
            assert_int_equal(pending, inbox_row_pending(&inbox) ? OK : ERR_NOT_FOUND);
            assert_true(pending != OK || load_u64(value.data) == inbox.activity_ms);
            qsort(inbox.cursors, inbox.cursor_count, sizeof inbox.cursors[0], compare_cursors);
            assert_int_equal(
                buffer_append(out, bytes_of(&inbox, offsetof(struct inbox_row, cursor_count))), OK);
            for (uint32_t i = 0; i < inbox.cursor_count; i++) {
                assert_int_equal(buffer_put_u32(out, inbox.cursors[i].device.v), OK);
                assert_int_equal(buffer_put_u64(out, inbox.cursors[i].delivered), OK);
            }
            err = rows_read_conversation(txn, between(user, peer), &conversation);
            assert_true(err == OK || err == ERR_NOT_FOUND);
            qsort(conversation.senders, conversation.sender_count, sizeof conversation.senders[0],
                  compare_senders);
            struct bytes fixed =
                bytes_of(&conversation, offsetof(struct conversation_row, sender_count));
            assert_int_equal(buffer_append(out, fixed), OK);
            for (uint32_t i = 0; i < conversation.sender_count; i++) {
                const struct sender_row *sender = &conversation.senders[i];
                assert_int_equal(buffer_put_u64(out, sender->user.v), OK);
                assert_int_equal(buffer_put_u32(out, sender->device.v), OK);
                assert_int_equal(
                    buffer_append(out, bytes_of(sender->highest.v, sizeof sender->highest.v)), OK);
            }
        }
}

static void shuffle(uint32_t *order, uint32_t count, uint64_t *seed)
{
    for (uint32_t i = count; i > 1; i--) {
        uint32_t j = (uint32_t)random_below(seed, i);
        uint32_t kept = order[i - 1];
        order[i - 1] = order[j];
        order[j] = kept;
    }
}

static void the_order_of_merging_does_not_matter(void **state)
{
    static struct item items[ROWS_COUNT];
    static uint8_t first_bytes[32768];
    static uint8_t bytes[32768];
    uint32_t order[ROWS_COUNT];
    uint64_t seed = 7;
    (void)state;
    for (int set = 0; set < 10; set++) {
        struct buffer first = buffer_of(first_bytes, sizeof first_bytes);
        for (uint32_t i = 0; i < ROWS_COUNT; i++) {
            make_item(&items[i], &seed);
            order[i] = i;
        }
        for (int round = 0; round < 8; round++) {
            struct buffer out = buffer_of(bytes, sizeof bytes);
            start_over();
            for (uint32_t i = 0; i < ROWS_COUNT; i++)
                merge_item(&items[order[i]]);
            summarize(round == 0 ? &first : &out);
            assert_true(round == 0 || bytes_equal(buffer_bytes(&first), buffer_bytes(&out)));
            shuffle(order, ROWS_COUNT, &seed);
        }
    }
}

static void merging_again_changes_nothing(void **state)
{
    static struct item items[ROWS_COUNT];
    static struct dump before;
    static struct dump after;
    uint64_t seed = 11;
    (void)state;
    for (uint32_t i = 0; i < ROWS_COUNT; i++) {
        make_item(&items[i], &seed);
        merge_item(&items[i]);
        dump_take(&before);
        for (uint32_t j = 0; j <= i; j++) /* this one, and whatever it is newer than */
            merge_item(&items[j]);
        dump_take(&after);
        assert_true(dump_same(&before, &after));
    }
}

static void merging_takes_each_fields_maximum(void **state)
{
    const struct user_id user = {5};
    const struct conversation_id conversation = between(5, 9);
    struct inbox_row row;
    const struct inbox_row a = {.last_seq = 9,
                                .activity_ms = 100,
                                .read_seq = 1,
                                .peer_delivered = 4,
                                .peer_read = 4,
                                .cursor_count = 2,
                                .cursors = {{{1}, 9}, {{2}, 3}}};
    const struct inbox_row b = {.last_seq = 7,
                                .activity_ms = 200,
                                .read_seq = 5,
                                .peer_delivered = 3,
                                .peer_read = 8,
                                .cursor_count = 2,
                                .cursors = {{{2}, 4}, {{3}, 1}}};
    (void)state;
    assert_int_equal(rows_read_inbox(txn, user, conversation, &row), ERR_NOT_FOUND);
    assert_int_equal(row.last_seq | row.activity_ms | row.read_seq | row.cursor_count, 0);
    assert_int_equal(rows_merge_inbox(txn, user, conversation, &a), OK);
    assert_int_equal(rows_merge_inbox(txn, user, conversation, &b), OK);
    assert_int_equal(rows_read_inbox(txn, user, conversation, &row), OK);
    assert_int_equal(row.last_seq, 9);
    assert_int_equal(row.activity_ms, 200);
    assert_int_equal(row.read_seq, 5);
    assert_int_equal(row.peer_delivered, 4);
    assert_int_equal(row.peer_read, 8);
    assert_int_equal(row.cursor_count, 3);
    assert_int_equal(inbox_row_cursor(&row, (struct device_id){1})->delivered, 9);
    assert_int_equal(inbox_row_cursor(&row, (struct device_id){2})->delivered, 4);
    assert_int_equal(inbox_row_cursor(&row, (struct device_id){3})->delivered, 1);
    /* the other member's row is another row */
    assert_int_equal(rows_read_inbox(txn, (struct user_id){9}, conversation, &row), ERR_NOT_FOUND);
}

static bool is_pending(struct user_id user, struct conversation_id conversation)
{
    uint8_t key[ROW_KEY_BYTES];
    struct bytes value;
    row_key_inbox(key, user, conversation);
    enum err err = catalog_get(txn, CATALOG_PENDING, bytes_of(key, sizeof key), &value);
    assert_true(err == OK || err == ERR_NOT_FOUND);
    return err == OK;
}

static void pending_rows_come_and_go(void **state)
{
    const struct user_id user = {5};
    const struct conversation_id conversation = between(5, 9);
    (void)state;
    struct inbox_row row = {.read_seq = 0};
    assert_int_equal(rows_merge_inbox(txn, user, conversation, &row), OK);
    assert_false(is_pending(user, conversation)); /* nothing was ever said */
    row.last_seq = 2;
    assert_int_equal(rows_merge_inbox(txn, user, conversation, &row), OK);
    assert_true(is_pending(user, conversation)); /* no device has it */
    inbox_row_cursor(&row, (struct device_id){1})->delivered = 2;
    assert_int_equal(rows_merge_inbox(txn, user, conversation, &row), OK);
    assert_false(is_pending(user, conversation));
    inbox_row_cursor(&row, (struct device_id){2})->delivered = 1;
    assert_int_equal(rows_merge_inbox(txn, user, conversation, &row), OK);
    assert_true(is_pending(user, conversation)); /* one of two has not */
    row.cursors[1].delivered = 2;
    assert_int_equal(rows_merge_inbox(txn, user, conversation, &row), OK);
    assert_false(is_pending(user, conversation));
    row.last_seq = 3;
    assert_int_equal(rows_merge_inbox(txn, user, conversation, &row), OK);
    assert_true(is_pending(user, conversation));
    assert_false(is_pending((struct user_id){9}, conversation));
}

struct expected {
    struct user_id user;
    struct conversation_id previous;
    uint32_t count;
};

static enum err expect_ascending(void *context, struct bytes key, struct bytes value)
{
    struct expected *expected = context;
    assert_int_equal(key.size, ROW_KEY_BYTES);
    assert_int_equal(value.size, 8);
    struct conversation_id id = row_key_conversation(key.data);
    assert_true(conversation_id_has(id, expected->user));
    assert_true(id.hi > expected->previous.hi ||
                (id.hi == expected->previous.hi && id.lo > expected->previous.lo));
    expected->previous = id;
    expected->count++;
    return OK;
}

static void keys_are_in_order_of_ids(void **state)
{
    uint64_t seed = 3;
    /* ids whose order differs by bytes and by value */
    static const uint64_t users[] = {1, 0x100, 0x1ff, 0x10000, 0x7fffffffffffffffull};
    (void)state;
    for (uint32_t i = 0; i < 5; i++)
        for (uint32_t n = 0; n < 40; n++) {
            uint64_t peer = 1 + (random_next(&seed) >> (1 + random_below(&seed, 63)));
            const struct inbox_row row = {.last_seq = 1};
            struct conversation_id id = between(users[i], peer);
            uint8_t key[ROW_KEY_BYTES];
            row_key_inbox(key, (struct user_id){users[i]}, id);
            assert_true(conversation_id_equal(row_key_conversation(key), id));
            assert_int_equal(key[7], users[i] & 0xff);
            assert_int_equal(rows_merge_inbox(txn, (struct user_id){users[i]}, id, &row), OK);
        }
    for (uint32_t i = 0; i < 5; i++) {
        uint8_t key[ROW_KEY_BYTES];
        struct expected expected = {.user = {users[i]}};
        row_key_inbox(key, expected.user, between(1, 1));
        assert_int_equal(
            catalog_scan(txn, CATALOG_PENDING, bytes_of(key, 8), expect_ascending, &expected),
            OK); /* the user's, and nobody else's */
        assert_in_range(expected.count, 30, 40);
    }
}

/* ---- damage */

static void put_raw(bool inbox, struct bytes value)
{
    uint8_t key[ROW_KEY_BYTES];
    row_key_inbox(key, (struct user_id){5}, between(5, 9));
    struct bytes k = inbox ? bytes_of(key, sizeof key) : bytes_of(key + 8, 16);
    assert_int_equal(catalog_put(txn, inbox ? CATALOG_INBOX : CATALOG_CONVERSATIONS, k, value), OK);
}

/* Reading and merging both refuse, and merging leaves everything as it was. */
static void expect_refused(bool inbox, struct bytes value, enum err expected)
{
    static struct dump before;
    static struct dump after;
    static struct conversation_row row;
    static const struct conversation_row newer = {.last_seq = 100};
    static const struct inbox_row newer_inbox = {.last_seq = 100};
    struct inbox_row inbox_row;
    const struct user_id user = {5};
    put_raw(inbox, value);
    dump_take(&before);
    if (inbox) {
        assert_int_equal(rows_read_inbox(txn, user, between(5, 9), &inbox_row), expected);
        assert_int_equal(rows_merge_inbox(txn, user, between(5, 9), &newer_inbox), expected);
    } else {
        assert_int_equal(rows_read_conversation(txn, between(5, 9), &row), expected);
        assert_int_equal(rows_merge_conversation(txn, between(5, 9), &newer), expected);
    }
    dump_take(&after);
    assert_true(dump_same(&before, &after));
}

static void refuse_damage(bool inbox, struct bytes good)
{
    uint8_t bytes[1024];
    assert_in_range(good.size, 57, sizeof bytes - 1);
    memcpy(bytes, good.data, good.size);
    for (size_t size = 1; size < good.size; size++)
        expect_refused(inbox, bytes_of(bytes, size), ERR_CORRUPT);
    bytes[good.size] = 0;
    expect_refused(inbox, bytes_of(bytes, good.size + 1), ERR_CORRUPT);
    bytes[0] = 0;
    expect_refused(inbox, bytes_of(bytes, good.size), ERR_CORRUPT);
    bytes[0] = (uint8_t)(good.data[0] + 1);
    expect_refused(inbox, bytes_of(bytes, good.size), ERR_NEWER);
    bytes[0] = 255;
    expect_refused(inbox, bytes_of(bytes, 20), ERR_NEWER); /* its size is not ours to judge */
    bytes[0] = good.data[0];
    bytes[2]++; /* one device more than there are */
    expect_refused(inbox, bytes_of(bytes, good.size), ERR_CORRUPT);
    bytes[3] = 255;
    expect_refused(inbox, bytes_of(bytes, good.size), ERR_CORRUPT);
}

static void damaged_rows_are_refused(void **state)
{
    static struct conversation_row row;
    static uint8_t good[1024];
    struct inbox_row inbox = {.last_seq = 3, .cursor_count = 2, .cursors = {{{1}, 2}, {{2}, 3}}};
    uint8_t key[ROW_KEY_BYTES];
    struct bytes value;
    (void)state;
    row_key_inbox(key, (struct user_id){5}, between(5, 9));
    assert_int_equal(rows_merge_inbox(txn, (struct user_id){5}, between(5, 9), &inbox), OK);
    assert_int_equal(catalog_get(txn, CATALOG_INBOX, bytes_of(key, sizeof key), &value), OK);
    memcpy(good, value.data, value.size);
    refuse_damage(true, bytes_of(good, value.size));
    for (uint32_t i = 1; i <= 3; i++)
        conversation_row_sender(&row, (struct user_id){5}, (struct device_id){i})->highest.v[0] = 7;
    assert_int_equal(rows_merge_conversation(txn, between(5, 9), &row), OK);
    assert_int_equal(catalog_get(txn, CATALOG_CONVERSATIONS, bytes_of(key + 8, 16), &value), OK);
    memcpy(good, value.data, value.size);
    refuse_damage(false, bytes_of(good, value.size));
    keep_set(&row.keep, 9, &(struct retention_setting){.age_s = 60, .bytes = 800});
    keep_count(&row.keep, 10, 900);
    assert_int_equal(catalog_delete(txn, CATALOG_CONVERSATIONS, bytes_of(key + 8, 16)), OK);
    assert_int_equal(rows_merge_conversation(txn, between(5, 9), &row), OK);
    assert_int_equal(catalog_get(txn, CATALOG_CONVERSATIONS, bytes_of(key + 8, 16), &value), OK);
    memcpy(good, value.data, value.size);
    refuse_damage(false, bytes_of(good, value.size));
    size_t at = 56 + 3 * 28; /* its own retention */
    good[at + 32]++;         /* a mark more than there is */
    expect_refused(false, bytes_of(good, value.size), ERR_CORRUPT);
    good[at + 32]--;
    good[at + 40] = 11; /* marks that do not ascend */
    expect_refused(false, bytes_of(good, value.size), ERR_CORRUPT);
    good[at + 40] = 9;
    good[1] = 2;
    expect_refused(false, bytes_of(good, value.size), ERR_CORRUPT);
}

/* One list entry more than fits, with a size that agrees. */
static void rows_with_too_many_devices_are_refused(void **state)
{
    static uint8_t bytes[56 + 511 * 28] = {1};
    (void)state;
    store_u16(bytes + 2, ROW_CURSORS_MAX + 1);
    expect_refused(true, bytes_of(bytes, 48 + (ROW_CURSORS_MAX + 1) * 12), ERR_CORRUPT);
    bytes[0] = 2;
    store_u16(bytes + 2, ROW_SENDERS_MAX + 1);
    expect_refused(false, bytes_of(bytes, 56 + (ROW_SENDERS_MAX + 1) * 28), ERR_CORRUPT);
}

static void fill_rows(struct inbox_row *inbox, struct conversation_row *row)
{
    memset(inbox, 0, sizeof *inbox);
    memset(row, 0, sizeof *row);
    for (uint32_t i = 1; i <= ROW_CURSORS_MAX; i++)
        inbox_row_cursor(inbox, (struct device_id){i})->delivered = i;
    for (uint32_t i = 1; i <= ROW_SENDERS_MAX; i++)
        conversation_row_sender(row, (struct user_id){1 + i % 2}, (struct device_id){i})
            ->highest.v[15] = (uint8_t)i;
}

static void full_rows_keep_whom_they_know(void **state)
{
    static struct inbox_row inbox;
    static struct conversation_row row;
    const struct user_id user = {1};
    (void)state;
    fill_rows(&inbox, &row);
    assert_null(inbox_row_cursor(&inbox, (struct device_id){1000}));
    assert_null(conversation_row_sender(&row, user, (struct device_id){1000}));
    assert_int_equal(rows_merge_inbox(txn, user, between(1, 2), &inbox), OK);
    assert_int_equal(rows_merge_conversation(txn, between(1, 2), &row), OK);
    const struct inbox_row more = {
        .last_seq = 3, .cursor_count = 2, .cursors = {{{1000}, 9}, {{7}, 99}}};
    assert_int_equal(rows_merge_inbox(txn, user, between(1, 2), &more), OK);
    assert_int_equal(rows_read_inbox(txn, user, between(1, 2), &inbox), OK);
    assert_int_equal(inbox.cursor_count, ROW_CURSORS_MAX);
    assert_int_equal(inbox_row_cursor(&inbox, (struct device_id){7})->delivered, 99);
    assert_int_equal(inbox_row_cursor(&inbox, (struct device_id){255})->delivered, 255);
    assert_int_equal(rows_read_conversation(txn, between(1, 2), &row), OK);
    assert_int_equal(row.sender_count, ROW_SENDERS_MAX);
    assert_int_equal(
        conversation_row_sender(&row, (struct user_id){1}, (struct device_id){510})->highest.v[15],
        (uint8_t)510);
}

/* ---- batches */

static void batch_item(struct buffer *batch, const struct item *item)
{
    if (item->inbox)
        assert_int_equal(rows_batch_inbox(batch, item->user, item->conversation, &item->inbox_row),
                         OK);
    else
        assert_int_equal(
            rows_batch_conversation(batch, item->conversation, &item->conversation_row), OK);
}

static void a_batch_merges_like_its_rows(void **state)
{
    static struct item items[ROWS_COUNT];
    static uint8_t bytes[64 << 10];
    static struct dump one_by_one;
    static struct dump batched;
    struct buffer batch = buffer_of(bytes, sizeof bytes);
    uint64_t seed = 23;
    (void)state;
    assert_int_equal(rows_batch_merge(txn, bytes_of(NULL, 0)), OK);
    for (uint32_t i = 0; i < ROWS_COUNT; i++) {
        make_item(&items[i], &seed);
        merge_item(&items[i]);
        batch_item(&batch, &items[i]);
    }
    dump_take(&one_by_one);
    start_over();
    assert_int_equal(rows_batch_merge(txn, buffer_bytes(&batch)), OK);
    dump_take(&batched);
    assert_true(dump_same(&one_by_one, &batched));
}

static void a_full_batch_refuses_and_keeps_what_it_has(void **state)
{
    static struct inbox_row inbox;
    static struct conversation_row row;
    static uint8_t bytes[2 * ROWS_BATCH_ITEM_MAX];
    static uint8_t copy[2 * ROWS_BATCH_ITEM_MAX];
    (void)state;
    fill_rows(&inbox, &row);
    /* the largest of both kinds keep the bound */
    struct buffer batch = buffer_of(bytes, ROWS_BATCH_ITEM_MAX);
    assert_int_equal(rows_batch_inbox(&batch, (struct user_id){1}, between(1, 2), &inbox), OK);
    size_t inbox_bytes = batch.size;
    batch = buffer_of(bytes, ROWS_BATCH_ITEM_MAX);
    assert_int_equal(rows_batch_conversation(&batch, between(1, 2), &row), OK);
    size_t conversation_bytes = batch.size;
    /* room for one, and for the next but for a byte */
    batch = buffer_of(bytes, conversation_bytes + inbox_bytes - 1);
    assert_int_equal(rows_batch_conversation(&batch, between(1, 2), &row), OK);
    memcpy(copy, bytes, sizeof bytes);
    assert_int_equal(rows_batch_inbox(&batch, (struct user_id){1}, between(1, 2), &inbox),
                     ERR_FULL);
    assert_int_equal(rows_batch_conversation(&batch, between(1, 2), &row), ERR_FULL);
    assert_int_equal(batch.size, conversation_bytes);
    assert_memory_equal(bytes, copy, sizeof bytes);
    batch.capacity++;
    assert_int_equal(rows_batch_inbox(&batch, (struct user_id){1}, between(1, 2), &inbox), OK);
    assert_int_equal(batch.size, batch.capacity);
    assert_int_equal(rows_batch_merge(txn, buffer_bytes(&batch)), OK);
}

/* A job's body that fails must not have written: damage under the last of three rows. */
static void a_batch_over_a_damaged_row_writes_nothing(void **state)
{
    static const struct conversation_row row = {.last_seq = 4};
    static const struct inbox_row inbox = {.last_seq = 4};
    static struct dump before;
    static struct dump after;
    uint8_t bytes[1024];
    (void)state;
    for (int damaged = 0; damaged < 2; damaged++) {
        struct buffer batch = buffer_of(bytes, sizeof bytes);
        start_over();
        put_raw(damaged == 0, bytes_of("\x01\x00\x09", 3));
        assert_int_equal(rows_batch_inbox(&batch, (struct user_id){1}, between(1, 2), &inbox), OK);
        assert_int_equal(rows_batch_conversation(&batch, between(1, 2), &row), OK);
        if (damaged == 0)
            assert_int_equal(rows_batch_inbox(&batch, (struct user_id){5}, between(5, 9), &inbox),
                             OK);
        else
            assert_int_equal(rows_batch_conversation(&batch, between(5, 9), &row), OK);
        dump_take(&before);
        assert_int_equal(rows_batch_merge(txn, buffer_bytes(&batch)), ERR_CORRUPT);
        dump_take(&after);
        assert_true(dump_same(&before, &after));
    }
}

/* ---- records of the log */

static struct log_record message_record(uint64_t sender, uint32_t device, uint64_t peer,
                                        uint64_t seq)
{
    struct log_record record = {.kind = RECORD_MESSAGE,
                                .conversation = between(sender, peer),
                                .seq = seq,
                                .sender = {sender},
                                .device = {device},
                                .time_ms = NOW + seq};
    record.message_id.v[0] = (uint8_t)seq;
    return record;
}

static struct log_record watermark_record(uint64_t user, uint32_t device, uint64_t peer,
                                          uint64_t delivered, const uint8_t read[8])
{
    return (struct log_record){.kind = RECORD_WATERMARK,
                               .conversation = between(user, peer),
                               .seq = delivered,
                               .sender = {user},
                               .device = {device},
                               .body = bytes_of(read, 8)};
}

/* merge_record: recovery's way of one record alone. */
static enum err merge_record(const struct log_record *record)
{
    struct replay *replay;
    TRY(replay_create(&replay));
    enum err err = replay_record(replay, txn, record);
    if (err == OK)
        err = replay_flush(replay, txn);
    replay_destroy(replay);
    return err;
}

static void replay_message(uint64_t sender, uint32_t device, uint64_t peer, uint64_t seq)
{
    struct log_record record = message_record(sender, device, peer, seq);
    assert_int_equal(merge_record(&record), OK);
}

static void replay_watermark(uint64_t user, uint32_t device, uint64_t peer, uint64_t delivered,
                             uint64_t read)
{
    uint8_t body[8];
    store_u64(body, read);
    struct log_record record = watermark_record(user, device, peer, delivered, body);
    assert_int_equal(merge_record(&record), OK);
}

/* A talk of two, as the log has it: 5 (device 1) and 9 (device 2). */
static void replay_talk(void)
{
    replay_message(5, 1, 9, 1);
    replay_message(5, 1, 9, 2);
    replay_watermark(9, 2, 5, 2, 1);
    replay_message(9, 2, 5, 3);
    replay_watermark(5, 1, 9, 3, 3);
    replay_message(5, 1, 9, 4);
}

static void records_say_who_has_what(void **state)
{
    static struct conversation_row row;
    static struct dump before;
    static struct dump after;
    struct inbox_row inbox;
    (void)state;
    replay_talk();
    assert_int_equal(rows_read_conversation(txn, between(5, 9), &row), OK);
    assert_int_equal(row.last_seq, 4);
    assert_int_equal(row.last_time_ms, NOW + 4);
    assert_int_equal(row.delivered[0], 3);
    assert_int_equal(row.read[0], 3);
    assert_int_equal(row.delivered[1], 2);
    assert_int_equal(row.read[1], 1);
    assert_int_equal(row.sender_count, 2);
    assert_int_equal(
        conversation_row_sender(&row, (struct user_id){5}, (struct device_id){1})->highest.v[0], 4);
    assert_int_equal(
        conversation_row_sender(&row, (struct user_id){9}, (struct device_id){2})->highest.v[0], 3);

    assert_int_equal(rows_read_inbox(txn, (struct user_id){5}, between(5, 9), &inbox), OK);
    assert_int_equal(inbox.last_seq, 4);
    assert_int_equal(inbox.activity_ms, NOW + 4);
    assert_int_equal(inbox.read_seq, 3);
    assert_int_equal(inbox.peer_delivered, 2);
    assert_int_equal(inbox.peer_read, 1);
    assert_int_equal(inbox.cursor_count, 1);
    assert_int_equal(inbox.cursors[0].delivered, 4); /* its own, up to the last */
    assert_false(is_pending((struct user_id){5}, between(5, 9)));
    assert_int_equal(rows_read_inbox(txn, (struct user_id){9}, between(5, 9), &inbox), OK);
    assert_int_equal(inbox.cursors[0].delivered, 3);
    assert_int_equal(inbox.peer_delivered, 3);
    assert_int_equal(inbox.peer_read, 3);
    assert_true(is_pending((struct user_id){9}, between(5, 9))); /* 4 */

    /* the checkpoint did not move: the next start replays it all */
    dump_take(&before);
    replay_talk();
    dump_take(&after);
    assert_true(dump_same(&before, &after));
}

static void ones_own_message_does_not_jump_a_gap(void **state)
{
    struct inbox_row inbox;
    (void)state;
    replay_watermark(5, 1, 9, 0, 0); /* its cursor */
    replay_message(9, 2, 5, 1);
    replay_message(5, 1, 9, 2); /* 5's device has not acknowledged 1 */
    assert_int_equal(rows_read_inbox(txn, (struct user_id){5}, between(5, 9), &inbox), OK);
    assert_int_equal(inbox_row_cursor(&inbox, (struct device_id){1})->delivered, 0);
    assert_true(is_pending((struct user_id){5}, between(5, 9)));
}

/* A random record of a few conversations, repeats and old numbers among them. */
static struct log_record random_record(uint64_t *seed, uint8_t body[8])
{
    uint64_t user = 1 + random_below(seed, USERS);
    uint64_t peer = 1 + random_below(seed, PEERS);
    uint32_t device = 1 + (uint32_t)random_below(seed, 3);
    uint64_t seq = random_below(seed, 20);
    if (random_below(seed, 2) == 0)
        return message_record(user, device, peer, seq + 1);
    store_u64(body, random_below(seed, 20));
    return watermark_record(user, device, peer, seq, body);
}

/* merge_random: random records, written after every one (way 0), now and then (1), at the end (2).
 */
static void merge_random(struct dump *dump, uint64_t start, int records, uint64_t way)
{
    uint64_t seed = start;
    uint64_t pause = start;
    struct replay *replay;
    start_over();
    assert_int_equal(replay_create(&replay), OK);
    for (int i = 0; i < records; i++) {
        uint8_t body[8];
        struct log_record record = random_record(&seed, body);
        assert_int_equal(replay_record(replay, txn, &record), OK);
        if (way == 0 || (way == 1 && random_below(&pause, 20) == 0))
            assert_int_equal(replay_flush(replay, txn), OK);
    }
    assert_int_equal(replay_flush(replay, txn), OK);
    replay_destroy(replay);
    dump_take(dump);
}

static void records_merged_in_memory_make_the_same_rows(void **state)
{
    static struct dump dumps[3];
    (void)state;
    for (uint64_t start = 1; start <= 50; start++)
        for (uint64_t way = 0; way < 3; way++) {
            merge_random(&dumps[way], start, 200, way);
            assert_true(dump_same(&dumps[0], &dumps[way]));
        }
    for (uint64_t way = 1; way < 3; way++) /* more than are gathered before they are taken */
        merge_random(&dumps[way], 11, 2 * REPLAY_GROUP_RECORDS + 9000, way);
    assert_true(dump_same(&dumps[1], &dumps[2]));
}

/* What follows it could rest on rows that were never read. */
static void after_a_damaged_row_nothing_is_written(void **state)
{
    static struct dump before;
    static struct dump after;
    uint8_t key[16];
    struct replay *replay;
    (void)state;
    conversation_id_encode(key, between(5, 9));
    assert_int_equal(
        catalog_put(txn, CATALOG_CONVERSATIONS, bytes_of(key, sizeof key), bytes_of(key, 5)), OK);
    dump_take(&before);
    assert_int_equal(replay_create(&replay), OK);
    struct log_record record = message_record(1, 1, 2, 1);
    assert_int_equal(replay_record(replay, txn, &record), OK);
    record = message_record(5, 1, 9, 1);
    assert_int_equal(replay_record(replay, txn, &record), OK);
    assert_int_equal(replay_flush(replay, txn), ERR_CORRUPT);
    record = message_record(1, 1, 2, 2);
    assert_int_equal(replay_record(replay, txn, &record), ERR_CORRUPT);
    assert_int_equal(replay_flush(replay, txn), ERR_CORRUPT);
    replay_destroy(replay);
    dump_take(&after);
    assert_true(dump_same(&before, &after));
}

/* Its cursor would be the row's only one, and the user's other devices would begin behind it. */
static void ones_own_message_makes_no_cursor(void **state)
{
    struct inbox_row inbox;
    (void)state;
    replay_message(5, 1, 9, 1);
    assert_int_equal(rows_read_inbox(txn, (struct user_id){5}, between(5, 9), &inbox), OK);
    assert_int_equal(inbox.last_seq, 1);
    assert_int_equal(inbox.cursor_count, 0);
    assert_true(is_pending((struct user_id){5}, between(5, 9)));
}

static void a_talk_with_oneself_has_one_inbox(void **state)
{
    struct inbox_row inbox;
    (void)state;
    replay_watermark(5, 1, 5, 0, 0);
    replay_message(5, 1, 5, 1);
    assert_false(is_pending((struct user_id){5}, between(5, 5)));
    replay_watermark(5, 2, 5, 0, 0); /* another device joins */
    assert_true(is_pending((struct user_id){5}, between(5, 5)));
    replay_watermark(5, 2, 5, 1, 1);
    assert_int_equal(rows_read_inbox(txn, (struct user_id){5}, between(5, 5), &inbox), OK);
    assert_int_equal(inbox.cursor_count, 2);
    assert_int_equal(inbox.peer_delivered, 0); /* there is no peer */
    assert_false(is_pending((struct user_id){5}, between(5, 5)));
}

static void a_lost_number_is_not_given_again(void **state)
{
    static struct dump before;
    static struct dump after;
    static struct conversation_row row;
    struct inbox_row inbox;
    (void)state;
    struct log_record record = {.kind = RECORD_LOST, .conversation = between(5, 9), .seq = 7};
    assert_int_equal(merge_record(&record), OK);
    assert_int_equal(rows_read_conversation(txn, between(5, 9), &row), OK);
    assert_int_equal(row.last_seq, 7);
    assert_int_equal(row.sender_count, 0);
    assert_int_equal(rows_read_inbox(txn, (struct user_id){9}, between(5, 9), &inbox), OK);
    assert_int_equal(inbox.last_seq, 7);
    dump_take(&before);
    record = (struct log_record){.kind = RECORD_VOID};
    assert_int_equal(merge_record(&record), OK);
    dump_take(&after);
    assert_true(dump_same(&before, &after));
}

static void records_that_do_not_belong_are_refused(void **state)
{
    static struct dump before;
    static struct dump after;
    uint8_t body[8] = {0};
    (void)state;
    dump_take(&before);
    struct log_record record = message_record(5, 1, 9, 1);
    record.conversation.hi |= 1ull << 63; /* a group */
    assert_int_equal(merge_record(&record), ERR_UNSUPPORTED);
    record = message_record(5, 1, 9, 1);
    record.kind = RECORD_MEMBERSHIP;
    assert_int_equal(merge_record(&record), ERR_UNSUPPORTED);
    record.kind = 77;
    assert_int_equal(merge_record(&record), ERR_UNSUPPORTED);
    record = watermark_record(5, 1, 9, 1, body);
    record.body.size = 7;
    assert_int_equal(merge_record(&record), ERR_CORRUPT);
    dump_take(&after);
    assert_true(dump_same(&before, &after));
}

/* ---- without memory: for every n an error, and nothing written */

static struct item memory_items[6];
static struct buffer memory_batch;

static enum err merge_one_conversation(void)
{
    static const struct conversation_row row = {.last_seq = 4};
    return rows_merge_conversation(txn, between(1, 2), &row);
}

static enum err merge_one_message(void)
{
    struct log_record record = message_record(5, 1, 9, 1);
    return merge_record(&record);
}

static enum err merge_one_watermark(void)
{
    const uint8_t body[8] = {1};
    struct log_record record = watermark_record(5, 1, 9, 1, body);
    return merge_record(&record);
}

static enum err merge_one_batch(void)
{
    return rows_batch_merge(txn, buffer_bytes(&memory_batch));
}

static void without_memory_nothing_is_written(void **state)
{
    static enum err (*const works[])(void) = {merge_one_conversation, merge_one_message,
                                              merge_one_watermark, merge_one_batch};
    static uint8_t bytes[16 << 10];
    static struct dump before;
    static struct dump after;
    uint64_t seed = 5;
    (void)state;
    memory_batch = buffer_of(bytes, sizeof bytes);
    for (uint32_t i = 0; i < 6; i++) {
        do
            make_item(&memory_items[i], &seed);
        while (memory_items[i].inbox != (i % 2 == 0)); /* both kinds, an inbox first */
        batch_item(&memory_batch, &memory_items[i]);
    }
    for (size_t i = 0; i < sizeof works / sizeof works[0]; i++) {
        int64_t memory = memory_bytes(MEMORY_CHAT);
        enum err err = ERR_NO_MEMORY;
        uint64_t n = 0;
        start_over();
        dump_take(&before);
        while (err != OK) {
            memory_fail_at(++n);
            err = works[i]();
            memory_fail_at(0);
            assert_true(err == OK || err == ERR_NO_MEMORY);
            dump_take(&after);
            assert_int_equal(dump_same(&before, &after), err != OK);
            assert_int_equal(memory_bytes(MEMORY_CHAT), memory);
        }
        assert_true(n > 1); /* something was made to fail */
    }
}

/* What is committed is there for the next transaction. */
static void committed_rows_stay(void **state)
{
    struct inbox_row inbox;
    (void)state;
    replay_talk();
    assert_int_equal(catalog_commit(txn), OK);
    assert_int_equal(catalog_begin(catalog, &txn, false), OK);
    assert_int_equal(rows_read_inbox(txn, (struct user_id){9}, between(5, 9), &inbox), OK);
    assert_int_equal(inbox.last_seq, 4);
    assert_true(is_pending((struct user_id){9}, between(5, 9)));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(merging_takes_each_fields_maximum),
        TEST(merging_again_changes_nothing),
        TEST(the_order_of_merging_does_not_matter),
        TEST(pending_rows_come_and_go),
        TEST(keys_are_in_order_of_ids),
        TEST(damaged_rows_are_refused),
        TEST(rows_with_too_many_devices_are_refused),
        TEST(full_rows_keep_whom_they_know),
        TEST(a_batch_merges_like_its_rows),
        TEST(a_full_batch_refuses_and_keeps_what_it_has),
        TEST(a_batch_over_a_damaged_row_writes_nothing),
        TEST(records_say_who_has_what),
        TEST(records_merged_in_memory_make_the_same_rows),
        TEST(after_a_damaged_row_nothing_is_written),
        TEST(ones_own_message_does_not_jump_a_gap),
        TEST(ones_own_message_makes_no_cursor),
        TEST(a_talk_with_oneself_has_one_inbox),
        TEST(a_lost_number_is_not_given_again),
        TEST(records_that_do_not_belong_are_refused),
        TEST(without_memory_nothing_is_written),
        TEST(committed_rows_stay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
