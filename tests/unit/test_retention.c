/* test_retention.c: what is due (store/retention.c), and what the catalog says of a conversation
 * (gateway/flow/retention.c). */
#include "gateway/flow/retention.h"

#include "core/file.h"
#include "gateway/chat/account.h"
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
    row->retention_s = 3600;
    begin();
    assert_int_equal(rows_merge_conversation(txn, conversation, row), OK);
    row->retention_s = 0; /* what a checkpoint writes leaves it as it is */
    row->last_seq = 9;
    assert_int_equal(rows_merge_conversation(txn, conversation, row), OK);
    end();
    assert_int_equal(ask(conversation).age_ms, 3600000);
    free(row);
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
        cmocka_unit_test(what_is_due),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
