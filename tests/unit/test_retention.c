/* test_retention.c: what is due (store/retention.c), and what the catalog says of a conversation
 * (gateway/flow/retention.c). */
#include "gateway/flow/retention.h"

#include "core/file.h"
#include "gateway/chat/account.h"
#include "gateway/chat/conversation.h"
#include "gateway/chat/replay.h"
#include "gateway/chat/rows.h"
#include "store/retention.h"
#include "tests/unit/check.h"

#include <stdio.h>
#include <stdlib.h>

#define NOW 1800000000000ull

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
    snprintf(directory, sizeof directory, "/tmp/test_retention_XXXXXX");
    if (mkdtemp(directory) == NULL)
        return -1;
    return catalog_open(&catalog, directory, 64u << 20, &explanation) == OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    catalog_close(catalog);
    return file_list(directory, drop_entry, directory) == OK && remove(directory) == 0 ? 0 : -1;
}

static void begin(void)
{
    assert_int_equal(catalog_begin(catalog, &txn, true), OK);
}

static void end(void)
{
    assert_int_equal(catalog_commit(txn), OK);
}

static struct user_id make_user(const char *name)
{
    static uint64_t random = 77;
    uint8_t bytes[8];
    struct user_id user = {0};
    store_u64(bytes, random += 1001);
    begin();
    assert_int_equal(
        account_create(txn, &user, (struct realm_id){0}, name, "$argon2id$x", bytes, NOW), OK);
    end();
    return user;
}

static struct device_id login(struct user_id user, const char *key)
{
    static const struct account_policy policy = {.devices_max = 8,
                                                 .refresh_lifetime_ms = 1000000000};
    uint8_t token[REFRESH_TOKEN_BYTES];
    struct identity identity;
    memset(token, (int)strlen(key), sizeof token);
    begin();
    assert_int_equal(account_login(txn, &identity, NULL, user, key, token, &policy, NOW), OK);
    end();
    return identity.device;
}

static void mark(struct user_id user, struct conversation_id conversation, struct device_id device,
                 uint64_t delivered)
{
    struct inbox_row row = {.last_seq = 100, .cursor_count = 1, .cursors = {{device, delivered}}};
    begin();
    assert_int_equal(rows_merge_inbox(txn, user, conversation, &row), OK);
    end();
}

static struct retention_rule ask(struct conversation_id conversation)
{
    struct config config;
    struct retention retention;
    struct retention_rule rule;
    void *session;
    config_defaults(&config);
    retention_fill(&retention, &config, catalog);
    assert_int_equal(retention.age_ms, 365ull * 86400000);
    assert_int_equal(retention.undelivered_ms, 30ull * 86400000);
    assert_int_equal(retention.expiry_delay_ms, 86400000);
    assert_int_equal(retention.repeats_ms, 86400000);
    assert_int_equal(retention.begin(retention.context, &session), OK);
    assert_int_equal(retention.look(session, conversation, &rule), OK);
    retention.end(session);
    return rule;
}

/* The lowest mark of the devices that are logged in, of both members. */
static void lowest_of_existing_devices(void **state)
{
    (void)state;
    struct user_id alice = make_user("alice");
    struct user_id bob = make_user("bob");
    struct conversation_id conversation = conversation_id_direct(alice, bob);
    assert_int_equal(ask(conversation).delivered_seq, 0); /* nobody has a device */
    struct device_id phone = login(alice, "phone");
    struct device_id laptop = login(alice, "laptop+");
    struct device_id other = login(bob, "other++");
    uint64_t generation;
    mark(alice, conversation, phone, 90);
    mark(alice, conversation, laptop, 40);
    assert_int_equal(ask(conversation).delivered_seq, 0); /* bob has no mark */
    mark(bob, conversation, other, 70);
    assert_int_equal(ask(conversation).delivered_seq, 40);
    begin();
    assert_int_equal(account_logout(txn, alice, laptop, 0, &generation), OK);
    end();
    assert_int_equal(ask(conversation).delivered_seq, 70);
    begin();
    assert_int_equal(account_logout(txn, bob, other, 0, &generation), OK);
    end();
    assert_int_equal(ask(conversation).delivered_seq, 0); /* conservative: nobody is left */
}

static void own_retention_of_a_conversation(void **state)
{
    (void)state;
    struct conversation_id conversation = {5, 6};
    struct conversation_row *row = calloc(1, sizeof *row);
    assert_int_equal(ask(conversation).age_ms, 0);
    keep_set(&row->keep, 7, &(struct retention_setting){.age_s = 3600});
    begin();
    assert_int_equal(rows_merge_conversation(txn, conversation, row), OK);
    row->keep = (struct keep){0}; /* a row that knows of none leaves it as it is */
    row->last_seq = 9;
    assert_int_equal(rows_merge_conversation(txn, conversation, row), OK);
    end();
    assert_int_equal(ask(conversation).age_ms, 3600000);
    free(row);
}

static enum err list_one(void *list, struct conversation_id conversation)
{
    struct conversation_id *out = list;
    while (out->hi != 0)
        out++;
    *out = conversation;
    return OK;
}

/* what the planner is told: who has a retention of its own now, in order of ids. */
static void those_with_a_retention_are_listed(void **state)
{
    (void)state;
    struct config config;
    struct retention retention;
    void *session;
    struct conversation_row *row = calloc(1, sizeof *row);
    static const struct conversation_id ids[] = {{7ull << 56, 3}, {7, 8}, {7, 9}, {1, 7}};
    config_defaults(&config);
    retention_fill(&retention, &config, catalog);
    begin();
    for (size_t i = 0; i < COUNT_OF(ids); i++) {
        row->keep = (struct keep){0};
        keep_set(&row->keep, 2, &(struct retention_setting){.bytes = 9});
        assert_int_equal(rows_merge_conversation(txn, ids[i], row), OK);
    }
    row->keep = (struct keep){0};
    assert_int_equal(rows_merge_conversation(txn, (struct conversation_id){1, 2}, row), OK);
    keep_set(&row->keep, 3, &(struct retention_setting){0}); /* as the store says again */
    assert_int_equal(rows_merge_conversation(txn, ids[2], row), OK);
    end();
    assert_int_equal(retention.begin(retention.context, &session), OK);
    struct conversation_id found[5] = {{0}};
    assert_int_equal(retention.own(session, 0, list_one, found), OK);
    assert_true(conversation_id_equal(found[0], ids[3]) && conversation_id_equal(found[1], ids[1]));
    assert_int_equal(found[2].hi, 0);
    memset(found, 0, sizeof found);
    assert_int_equal(retention.own(session, 7, list_one, found), OK);
    assert_true(conversation_id_equal(found[0], ids[0]) && found[1].hi == 0);
    retention.end(session);
    free(row);
}

/* A row that says how far the bound has moved on. */
static void what_is_beyond_the_bound(void **state)
{
    (void)state;
    struct conversation_row *row = calloc(1, sizeof *row);
    keep_set(&row->keep, 5, &(struct retention_setting){.bytes = 80});
    keep_count(&row->keep, 6, 50);
    keep_count(&row->keep, 7, 50);
    begin();
    assert_int_equal(rows_merge_conversation(txn, (struct conversation_id){5, 6}, row), OK);
    end();
    struct retention_rule rule = ask((struct conversation_id){5, 6});
    assert_int_equal(rule.beyond_seq, 5);
    assert_int_equal(rule.setting_seq, 5);
    struct retention retention = {.undelivered_ms = 5000};
    struct log_record record = {.kind = RECORD_MESSAGE, .seq = 5, .time_ms = NOW - 5001};
    assert_int_equal(retention_due(&retention, &rule, &record, NOW, false), RETENTION_DUE);
    record.time_ms = NOW; /* nobody has it */
    assert_int_equal(retention_due(&retention, &rule, &record, NOW, false), RETENTION_KEEP);
    rule.delivered_seq = 6;
    assert_int_equal(retention_due(&retention, &rule, &record, NOW, false), RETENTION_DUE);
    record.kind = RECORD_RETENTION; /* the one in force */
    assert_int_equal(retention_due(&retention, &rule, &record, NOW, true), RETENTION_KEEP);
    rule.setting_seq = 6;
    assert_int_equal(retention_due(&retention, &rule, &record, NOW, false), RETENTION_DUE);
    record.seq = 6;
    assert_int_equal(retention_due(&retention, &rule, &record, NOW, false), RETENTION_KEEP);
    free(row);
}

/* Every rule with every other: what each says alone, and which one has the last word. */
static void every_rule_with_every_other(void **state)
{
    (void)state;
    for (uint32_t bits = 0; bits < 1u << 8; bits++) {
        bool whole = (bits & 1) != 0;        /* the store is too large */
        bool aged = (bits & 2) != 0;         /* older than the store's age */
        bool own = (bits & 4) != 0;          /* the conversation has an age, that is longer */
        bool outlived = (bits & 8) != 0;     /* the message is older than that */
        bool beyond = (bits & 16) != 0;      /* the bound */
        bool delivered = (bits & 32) != 0;   /* to everybody */
        bool undelivered = (bits & 64) != 0; /* older than what is undelivered is kept */
        bool in_force = (bits & 128) != 0;   /* it set the retention */
        uint64_t age_ms = outlived ? 4000 : aged ? 2500 : 500;
        struct retention retention = {.age_ms = 1000,
                                      .age_max_ms = 3000,
                                      .bytes = 1,
                                      .undelivered_ms = undelivered ? age_ms - 100 : 9000};
        struct retention_rule rule = {.age_ms = own ? 3000 : 0,
                                      .setting_seq = in_force ? 7 : 3,
                                      .delivered_seq = delivered ? 9 : 6,
                                      .beyond_seq = beyond ? 7 : 6};
        struct log_record record = {.kind = in_force ? RECORD_RETENTION : RECORD_MESSAGE,
                                    .seq = 7,
                                    .time_ms = NOW - age_ms};
        bool due = whole || beyond || (own ? outlived : aged || outlived);
        bool gone = due && (delivered || undelivered) && !in_force;
        assert_int_equal(retention_due(&retention, &rule, &record, NOW, whole),
                         gone ? RETENTION_DUE : RETENTION_KEEP);
        record.expires_ms = NOW - 1; /* whatever else says, but for what is in force */
        assert_int_equal(retention_due(&retention, &rule, &record, NOW, whole),
                         in_force ? RETENTION_KEEP : RETENTION_EXPIRED);
        assert_int_equal(retention_due(&retention, &rule, &record, 0, whole), RETENTION_KEEP);
        record.expires_ms = 0;
        rule.age_ms = own ? 100000 : 0; /* above what the store allows: as long as that */
        assert_int_equal(retention_due(&retention, &rule, &record, NOW, whole),
                         gone ? RETENTION_DUE : RETENTION_KEEP);
    }
}

/* ---- the same, whether it was told live or replayed */

#define ENTRIES 400

struct told {
    struct log_record records[ENTRIES];
    uint8_t bodies[ENTRIES][200];
    struct conversation_row rows[ENTRIES]; /* of the live conversation, after each */
};

/* tell: one more message or setting becomes durable in the live conversation. */
static void tell(struct told *told, uint32_t at, struct conversation *live,
                 struct message_cache *cache, uint64_t *seed)
{
    struct log_record *record = &told->records[at];
    struct cached *cached;
    bool setting = random_below(seed, 12) == 0;
    size_t size = setting ? KEEP_BODY_BYTES : 1 + random_below(seed, sizeof told->bodies[0]);
    struct send_key key = {{5}, {1}, {{0}}};
    store_u32(key.message_id.v, __builtin_bswap32(at + 1));
    if (setting)
        keep_encode(told->bodies[at], &(struct retention_setting){random_below(seed, 1000),
                                                                  random_below(seed, 4) * 700});
    *record = (struct log_record){.kind = setting ? RECORD_RETENTION : RECORD_MESSAGE,
                                  .conversation = {5, 6},
                                  .sender = key.sender,
                                  .device = key.device,
                                  .message_id = key.message_id,
                                  .time_ms = NOW + at,
                                  .body = bytes_of(told->bodies[at], size)};
    assert_int_equal(
        conversation_accept(live, &cached, record->kind, &key, record->body, 0, record->time_ms),
        OK);
    record->seq = cached->seq;
    conversation_durable(live, cached, cache);
    conversation_to_row(live, &told->rows[at]);
}

static void replay_from(const struct told *told, uint32_t from, uint32_t to)
{
    struct replay *replay;
    assert_int_equal(replay_create(&replay), OK);
    begin();
    for (uint32_t i = from; i < to; i++)
        assert_int_equal(replay_record(replay, txn, &told->records[i]), OK);
    assert_int_equal(replay_flush(replay, txn), OK);
    end();
    replay_destroy(replay);
}

static void assert_kept(const struct told *told, uint32_t count)
{
    static struct conversation_row row;
    const struct keep *a = &told->rows[count - 1].keep;
    begin();
    assert_int_equal(rows_read_conversation(txn, (struct conversation_id){5, 6}, &row), OK);
    end();
    assert_int_equal(row.keep.seq, a->seq);
    assert_int_equal(row.keep.setting.age_s, a->setting.age_s);
    assert_int_equal(row.keep.setting.bytes, a->setting.bytes);
    assert_int_equal(row.keep.counted, a->counted);
    assert_int_equal(row.keep.mark_count, a->mark_count);
    assert_memory_equal(row.keep.marks, a->marks, a->mark_count * sizeof a->marks[0]);
}

/* A checkpoint writes the live row, a start replays from somewhere before it: in whatever order,
 * the row says in the end what the live conversation said; and so does a replay of everything. */
static void replayed_as_it_was_told(void **state)
{
    (void)state;
    struct told *told = calloc(1, sizeof *told);
    struct conversation live;
    struct message_cache cache = {.bytes_max = 1 << 20};
    const uint32_t home[2] = {0, 0};
    uint64_t seed = 21;
    conversation_init(&live);
    assert_int_equal(conversation_wake(&live, (struct conversation_id){5, 6}, home), OK);
    live.state = CONVERSATION_WARM;
    assert_null(conversation_keep(&live));
    uint32_t checkpoint = 0;
    for (uint32_t i = 0; i < ENTRIES; i++) {
        tell(told, i, &live, &cache, &seed);
        if (random_below(&seed, 30) == 0) {
            begin();
            assert_int_equal(
                rows_merge_conversation(txn, (struct conversation_id){5, 6}, &told->rows[i]), OK);
            end();
            checkpoint = (uint32_t)random_below(&seed, i + 2); /* what it names lies before */
        }
        if (random_below(&seed, 30) == 0)
            replay_from(told, checkpoint, i + 1);
    }
    replay_from(told, checkpoint, ENTRIES);
    assert_kept(told, ENTRIES);
    replay_from(told, 0, ENTRIES);
    assert_kept(told, ENTRIES);
    assert_int_equal(conversation_keep(&live)->seq, told->rows[ENTRIES - 1].keep.seq);
    begin();
    uint8_t key[16];
    conversation_id_encode(key, (struct conversation_id){5, 6});
    assert_int_equal(catalog_delete(txn, CATALOG_CONVERSATIONS, bytes_of(key, sizeof key)), OK);
    end();
    replay_from(told, 0, ENTRIES);
    assert_kept(told, ENTRIES);
    conversation_deinit(&live, &cache);
    free(told);
}

static void what_is_due(void **state)
{
    (void)state;
    struct retention retention = {.age_ms = 1000, .undelivered_ms = 5000};
    struct retention_rule rule = {.delivered_seq = 10};
    struct log_record record = {.seq = 10, .time_ms = NOW - 1000};
    assert_int_equal(retention_due(&retention, &rule, &record, NOW, false), RETENTION_KEEP);
    record.time_ms--;
    assert_int_equal(retention_due(&retention, &rule, &record, NOW, false), RETENTION_DUE);
    assert_int_equal(retention_due(&retention, &rule, &record, 0, false), RETENTION_KEEP);
    record.seq = 11; /* undelivered */
    assert_int_equal(retention_due(&retention, &rule, &record, NOW, false), RETENTION_KEEP);
    assert_int_equal(retention_due(&retention, &rule, &record, NOW, true), RETENTION_KEEP);
    record.time_ms = NOW - 5001;
    assert_int_equal(retention_due(&retention, &rule, &record, NOW, false), RETENTION_DUE);
    rule.age_ms = 100000; /* its own, as long as one may be */
    assert_int_equal(retention_due(&retention, &rule, &record, NOW, false), RETENTION_DUE);
    retention.age_max_ms = 100000;
    assert_int_equal(retention_due(&retention, &rule, &record, NOW, false), RETENTION_KEEP);
    assert_int_equal(retention_due(&retention, &rule, &record, NOW, true), RETENTION_DUE);
    record.expires_ms = NOW; /* expired, delivered or not */
    record.time_ms = NOW;
    assert_int_equal(retention_due(&retention, &rule, &record, NOW - 1, true), RETENTION_KEEP);
    assert_int_equal(retention_due(&retention, &rule, &record, NOW, false), RETENTION_EXPIRED);
    record.expires_ms = 0;
    record.time_ms = UINT64_MAX - 5; /* of a clock gone mad: never due */
    assert_int_equal(retention_due(&retention, &rule, &record, NOW, true), RETENTION_KEEP);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(lowest_of_existing_devices, setup, teardown),
        cmocka_unit_test_setup_teardown(own_retention_of_a_conversation, setup, teardown),
        cmocka_unit_test_setup_teardown(those_with_a_retention_are_listed, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_beyond_the_bound, setup, teardown),
        cmocka_unit_test_setup_teardown(replayed_as_it_was_told, setup, teardown),
        cmocka_unit_test(what_is_due),
        cmocka_unit_test(every_rule_with_every_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
