/* test_account.c: accounts over the real catalog, a transaction per step as a job would have it. */
#include "gateway/chat/account.h"

#include "core/file.h"
#include "tests/unit/check.h"

#include <stdio.h>
#include <stdlib.h>

#define DAY_MS            (86400ull * 1000)
#define NOW               1800000000000ull
#define FAMILY_TEST_BYTES 16 /* half a refresh token */

static struct catalog *catalog;
static char directory[64];
static struct catalog_txn *txn;
static const struct account_policy policy = {
    .devices_max = 3, .create_on_first_sight = true, .refresh_lifetime_ms = 30 * DAY_MS};
static const struct realm_id realm0 = {0};

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
    snprintf(directory, sizeof directory, "/tmp/test_account_XXXXXX");
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

static void begin(bool write)
{
    assert_int_equal(catalog_begin(catalog, &txn, write), OK);
}

/* end: what the catalog's jobs do: a failed body has written nothing, so committing is harmless. */
static void end(void)
{
    assert_int_equal(catalog_commit(txn), OK);
}

static enum err make_in(struct realm_id realm, struct user_id *user, const char *name,
                        const char *hash, uint64_t random)
{
    uint8_t bytes[8];
    store_u64(bytes, random);
    begin(true);
    enum err err = account_create(txn, user, realm, name, hash, bytes, NOW);
    end();
    return err;
}

static struct user_id make(const char *name)
{
    static uint64_t random = 1000;
    struct user_id user = {0};
    assert_int_equal(make_in(realm0, &user, name, "$argon2id$x", random += 7), OK);
    return user;
}

static void secret(uint8_t out[REFRESH_TOKEN_BYTES], uint8_t seed)
{
    for (size_t i = 0; i < REFRESH_TOKEN_BYTES; i++)
        out[i] = (uint8_t)(seed * 31 + i);
}

static enum err login_at(struct identity *out, struct user_id user, const char *device,
                         uint8_t seed, uint64_t now_ms)
{
    uint8_t token[REFRESH_TOKEN_BYTES];
    secret(token, seed);
    begin(true);
    enum err err = account_login(txn, out, NULL, user, device, token, &policy, now_ms);
    end();
    return err;
}

static struct identity login(struct user_id user, const char *device, uint8_t seed)
{
    struct identity identity;
    assert_int_equal(login_at(&identity, user, device, seed, NOW), OK);
    return identity;
}

static enum err refresh_at(struct identity *out, uint8_t token[REFRESH_WIRE_BYTES], uint8_t seed,
                           uint64_t now_ms)
{
    uint8_t fresh[REFRESH_TOKEN_BYTES];
    secret(fresh, seed);
    begin(true);
    enum err err = account_refresh(txn, out, token, fresh, &policy, now_ms);
    end();
    if (err == OK)
        account_refresh_encode(token, out->user, out->device, fresh);
    return err;
}

static struct jwt_claims claims_of(const struct identity *identity)
{
    return (struct jwt_claims){.local = true,
                               .realm = identity->realm,
                               .user = identity->user,
                               .device = identity->device,
                               .generation = identity->generation,
                               .expires_ms = NOW + 900000};
}

static struct jwt_claims claims_operator(const char *subject, const char *device)
{
    struct jwt_claims claims = {.expires_ms = NOW + 900000};
    snprintf(claims.subject, sizeof claims.subject, "%s", subject);
    snprintf(claims.device_key, sizeof claims.device_key, "%s", device);
    return claims;
}

static enum err authenticate_at(struct identity *out, const struct jwt_claims *claims,
                                const char *device, const struct account_policy *rules,
                                uint64_t now_ms, bool write)
{
    static const uint8_t random[8] = {9, 9, 9, 9, 9, 9, 9, 9};
    begin(write);
    enum err err = account_authenticate(txn, out, claims, device, rules, write, random, now_ms);
    end();
    return err;
}

static enum err authenticate(struct identity *out, const struct jwt_claims *claims, bool write)
{
    return authenticate_at(out, claims, NULL, &policy, NOW, write);
}

static enum err logout(const struct identity *identity, uint64_t token_expires_ms)
{
    begin(true);
    uint64_t generation = 0;
    enum err err =
        account_logout(txn, identity->user, identity->device, token_expires_ms, &generation);
    assert_true(err != OK || generation > identity->generation);
    end();
    return err;
}

/* ---- users */

static void test_names(void **state)
{
    char out[ACCOUNT_NAME_BYTES_MAX + 1];
    char longest[66];
    (void)state;
    assert_int_equal(account_name_local(out, bytes_of_text("A.b_c-9")), OK);
    assert_string_equal(out, "a.b_c-9");
    memset(longest, 'z', sizeof longest);
    assert_int_equal(account_name_local(out, bytes_of(longest, 64)), OK);
    assert_int_equal(account_name_local(out, bytes_of(longest, 65)), ERR_INVALID);
    static const char *const bad[] = {"", "a b", "a/b", "a\xc3\xa4", "a@b", "\x7f", "a:b", "[x]"};
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        assert_int_equal(account_name_local(out, bytes_of_text(bad[i])), ERR_INVALID);
    assert_int_equal(account_name_local(out, bytes_of("a\0b", 3)), ERR_INVALID);
}

static void test_create_and_find(void **state)
{
    struct user_id user, found;
    struct realm_id realm = {77};
    char name[JWT_NAME_BYTES_MAX + 1], hash[ACCOUNT_HASH_TEXT_BYTES];
    (void)state;
    assert_int_equal(make_in(realm0, &user, "alice", "$hash", 42), OK);
    assert_int_equal(user.v, 42);
    begin(false);
    assert_int_equal(account_find(txn, &found, realm0, "alice"), OK);
    assert_int_equal(found.v, 42);
    assert_int_equal(account_find(txn, &found, realm0, "alic"), ERR_NOT_FOUND);
    assert_int_equal(account_find(txn, &found, realm, "alice"), ERR_NOT_FOUND);
    assert_int_equal(account_find(txn, &found, realm0, ""), ERR_NOT_FOUND);
    assert_int_equal(account_name(txn, &realm, name, user), OK);
    assert_string_equal(name, "alice");
    assert_int_equal(realm.v, 0);
    assert_int_equal(account_name(txn, &realm, name, (struct user_id){43}), ERR_NOT_FOUND);
    assert_int_equal(account_password_hash(txn, realm0, "alice", &found, hash), OK);
    assert_string_equal(hash, "$hash");
    assert_int_equal(account_password_hash(txn, realm0, "bob", &found, hash), ERR_NOT_FOUND);
    end();
}

static void test_name_taken(void **state)
{
    struct user_id user;
    (void)state;
    make("taken");
    assert_int_equal(make_in(realm0, &user, "taken", "$h", 50), ERR_EXISTS);
    assert_int_equal(make_in((struct realm_id){1}, &user, "taken", "$h", 50), OK);
}

static void test_ids_do_not_collide(void **state)
{
    struct user_id a, b, c;
    (void)state;
    assert_int_equal(make_in(realm0, &a, "id.a", "$h", 500000), OK);
    assert_int_equal(make_in(realm0, &b, "id.b", "$h", 500000), OK);
    assert_int_equal(a.v, 500000);
    assert_int_equal(b.v, 500001);
    assert_int_equal(make_in(realm0, &c, "id.c", "$h", 1ull << 63), OK);
    assert_int_equal(c.v, 1); /* 0 is nobody's, the top bit is not used */
}

static void test_bad_rows_to_create(void **state)
{
    char long_hash[ACCOUNT_HASH_TEXT_BYTES + 1];
    char long_name[JWT_NAME_BYTES_MAX + 2];
    struct user_id user;
    (void)state;
    memset(long_hash, 'x', sizeof long_hash - 1);
    long_hash[sizeof long_hash - 1] = '\0';
    memset(long_name, 'x', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = '\0';
    assert_int_equal(make_in(realm0, &user, "hash", long_hash, 60), ERR_INVALID);
    assert_int_equal(make_in(realm0, &user, long_name, "", 60), ERR_INVALID);
    long_name[JWT_NAME_BYTES_MAX] = '\0';
    assert_int_equal(make_in(realm0, &user, long_name, "", 60), OK);
    static const char *const bad[] = {"", "a\nb", "\x7f", "a\xff", "\xc2\x85", "a\xc2\x9f"};
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        assert_int_equal(make_in(realm0, &user, bad[i], "", 61), ERR_INVALID);
    assert_int_equal(make_in(realm0, &user, "\xc3\x84\xc2\xa0 \xe2\x82\xac", "", 62), OK);
}

/* ---- logins */

static void test_login_makes_and_finds_device(void **state)
{
    struct user_id user = make("login");
    (void)state;
    struct identity a = login(user, "phone", 1);
    assert_int_equal(a.user.v, user.v);
    assert_int_equal(a.device.v, 1);
    assert_int_equal(a.generation, 1);
    assert_string_equal(a.name, "login");
    struct identity b = login(user, "laptop", 2);
    assert_int_equal(b.device.v, 2);
    struct identity c = login(user, "phone", 3);
    assert_int_equal(c.device.v, 1);
    assert_int_equal(c.generation, 2);
    struct identity out;
    assert_int_equal(login_at(&out, user, "", 1, NOW), ERR_INVALID);
    assert_int_equal(login_at(&out, (struct user_id){999999999}, "x", 1, NOW), ERR_NOT_FOUND);
}

static void test_login_ends_older_tokens_of_the_device(void **state)
{
    struct user_id user = make("older");
    struct identity out;
    uint8_t wire[REFRESH_WIRE_BYTES], token[REFRESH_TOKEN_BYTES];
    (void)state;
    struct identity a = login(user, "phone", 1);
    struct jwt_claims claims = claims_of(&a);
    assert_int_equal(authenticate(&out, &claims, false), OK);
    login(user, "phone", 2);
    assert_int_equal(authenticate(&out, &claims, false), ERR_DENIED);
    secret(token, 1);
    account_refresh_encode(wire, user, a.device, token);
    assert_int_equal(refresh_at(&out, wire, 3, NOW), ERR_DENIED);
}

static void test_devices_max(void **state)
{
    struct user_id user = make("many");
    struct identity out;
    (void)state;
    struct identity a = login(user, "a", 1);
    login(user, "b", 2);
    login(user, "c", 3);
    assert_int_equal(login_at(&out, user, "d", 4, NOW), ERR_FULL);
    assert_int_equal(login_at(&out, user, "a", 4, NOW), OK); /* it has its place */
    assert_int_equal(logout(&a, 0), OK);
    assert_int_equal(login_at(&out, user, "d", 5, NOW), OK);
    assert_int_equal(out.device.v, 4);
    assert_int_equal(login_at(&out, user, "a", 6, NOW), ERR_FULL); /* its place is taken */
    /* after a refresh lifetime of silence nobody counts as logged in */
    assert_int_equal(login_at(&out, user, "a", 6, NOW + 31 * DAY_MS), OK);
    assert_int_equal(out.device.v, 1);
}

static enum err count_row(void *context, struct bytes key, struct bytes value)
{
    (void)key;
    (void)value;
    ++*(uint32_t *)context;
    return OK;
}

static void test_old_devices_give_up_their_rows(void **state)
{
    struct user_id user = make("rows");
    struct identity out;
    uint8_t prefix[8];
    uint32_t devices = 0, keys = 0;
    (void)state;
    for (uint8_t i = 0; i < 40; i++) {
        char key[16];
        snprintf(key, sizeof key, "device-%u", i);
        assert_int_equal(login_at(&out, user, key, i, NOW + i), OK);
        assert_int_equal(out.device.v, i + 1u);
        assert_int_equal(logout(&out, 0), OK);
    }
    store_u64(prefix, __builtin_bswap64(user.v));
    begin(false);
    assert_int_equal(catalog_scan(txn, CATALOG_DEVICES, bytes_of(prefix, 8), count_row, &devices),
                     OK);
    assert_int_equal(catalog_scan(txn, CATALOG_DEVICE_KEYS, bytes_of(prefix, 8), count_row, &keys),
                     OK);
    end();
    assert_int_equal(devices, 2 * policy.devices_max);
    assert_int_equal(keys, devices);
    assert_int_equal(login_at(&out, user, "device-39", 1, NOW + 99), OK); /* the newest is kept */
    assert_int_equal(out.device.v, 40);
    assert_int_equal(login_at(&out, user, "device-0", 1, NOW + 99), OK); /* numbers never again */
    assert_int_equal(out.device.v, 41);
}

/* ---- refresh */

static void first_token(uint8_t wire[REFRESH_WIRE_BYTES], const struct identity *identity,
                        uint8_t seed)
{
    uint8_t token[REFRESH_TOKEN_BYTES];
    secret(token, seed);
    account_refresh_encode(wire, identity->user, identity->device, token);
}

static void test_refresh_chain(void **state)
{
    struct identity a = login(make("chain"), "phone", 1), out;
    uint8_t wire[REFRESH_WIRE_BYTES];
    struct user_id user;
    struct device_id device;
    (void)state;
    first_token(wire, &a, 1);
    for (uint8_t i = 2; i < 20; i++)
        assert_int_equal(refresh_at(&out, wire, i, NOW + (i - 1u) * 29 * DAY_MS), OK);
    account_refresh_decode(&user, &device, wire);
    assert_int_equal(user.v, a.user.v);
    assert_int_equal(device.v, a.device.v);
    assert_int_equal(out.generation, a.generation); /* access tokens stay good */
    assert_string_equal(out.name, "chain");
}

static void test_refresh_twice_revokes(void **state)
{
    struct identity a = login(make("theft"), "phone", 1), out;
    uint8_t stolen[REFRESH_WIRE_BYTES], wire[REFRESH_WIRE_BYTES];
    struct jwt_claims claims = claims_of(&a);
    (void)state;
    first_token(stolen, &a, 1);
    memcpy(wire, stolen, sizeof wire);
    for (uint8_t i = 2; i < 6; i++) /* however many lie between */
        assert_int_equal(refresh_at(&out, wire, i, NOW), OK);
    assert_int_equal(authenticate(&out, &claims, false), OK);
    memset(&out, 0, sizeof out);
    assert_int_equal(refresh_at(&out, stolen, 9, NOW), ERR_CONFLICT);
    assert_int_equal(out.user.v, a.user.v);
    assert_int_equal(out.device.v, a.device.v);
    assert_int_equal(refresh_at(&out, wire, 9, NOW), ERR_DENIED);
    assert_int_equal(refresh_at(&out, stolen, 9, NOW), ERR_DENIED);
    assert_int_equal(authenticate(&out, &claims, false), ERR_DENIED);
}

static void test_guesses_revoke_nobody(void **state)
{
    struct identity a = login(make("guess"), "phone", 1), out;
    uint8_t wire[REFRESH_WIRE_BYTES], guess[REFRESH_WIRE_BYTES];
    (void)state;
    first_token(wire, &a, 1);
    for (uint8_t i = 100; i < 120; i++) {
        first_token(guess, &a, i);
        assert_int_equal(refresh_at(&out, guess, 2, NOW), ERR_DENIED);
    }
    struct identity nobody = {.user = {987654321}, .device = {1}};
    first_token(guess, &nobody, 1);
    assert_int_equal(refresh_at(&out, guess, 2, NOW), ERR_DENIED);
    assert_int_equal(refresh_at(&out, wire, 2, NOW), OK);
}

static void test_refresh_expires(void **state)
{
    struct identity a = login(make("late"), "phone", 1), out;
    uint8_t wire[REFRESH_WIRE_BYTES];
    (void)state;
    first_token(wire, &a, 1);
    assert_int_equal(refresh_at(&out, wire, 2, NOW + 30 * DAY_MS), ERR_EXPIRED);
    assert_int_equal(refresh_at(&out, wire, 2, NOW + 30 * DAY_MS - 1), OK);
}

static enum err holds_token(void *context, struct bytes key, struct bytes value)
{
    (void)key;
    return memmem(value.data, value.size, context, FAMILY_TEST_BYTES) != NULL ? ERR_EXISTS : OK;
}

static void test_tokens_are_not_stored(void **state)
{
    uint8_t token[REFRESH_TOKEN_BYTES];
    (void)state;
    login(make("hashed"), "phone", 77);
    secret(token, 77);
    begin(false);
    assert_int_equal(catalog_scan(txn, CATALOG_DEVICES, bytes_of(NULL, 0), holds_token, token), OK);
    assert_int_equal(catalog_scan(txn, CATALOG_DEVICES, bytes_of(NULL, 0), holds_token, token + 16),
                     OK);
    end();
}

static void test_logout(void **state)
{
    struct identity a = login(make("bye"), "phone", 1), out;
    uint8_t wire[REFRESH_WIRE_BYTES];
    struct jwt_claims claims = claims_of(&a);
    (void)state;
    first_token(wire, &a, 1);
    assert_int_equal(logout(&a, 0), OK);
    assert_int_equal(authenticate(&out, &claims, false), ERR_DENIED);
    assert_int_equal(refresh_at(&out, wire, 2, NOW), ERR_DENIED);
    assert_int_equal(logout(&a, 0), OK); /* again */
    struct identity back = login(a.user, "phone", 3);
    assert_int_equal(back.device.v, a.device.v);
    assert_true(back.generation > a.generation);
    assert_int_equal(authenticate(&out, &claims, false), ERR_DENIED);
    struct identity nobody = {.user = a.user, .device = {99}};
    assert_int_equal(logout(&nobody, 0), ERR_NOT_FOUND);
}

/* ---- tokens */

static void test_local_tokens(void **state)
{
    struct identity a = login(make("local"), "phone", 1), out;
    struct jwt_claims claims = claims_of(&a);
    (void)state;
    assert_int_equal(authenticate(&out, &claims, false), OK);
    assert_int_equal(out.user.v, a.user.v);
    assert_int_equal(out.device.v, a.device.v);
    assert_int_equal(out.token_expires_ms, claims.expires_ms);
    assert_string_equal(out.name, "local");
    struct jwt_claims other = claims;
    other.generation++;
    assert_int_equal(authenticate(&out, &other, false), ERR_DENIED);
    other = claims;
    other.device.v++;
    assert_int_equal(authenticate(&out, &other, false), ERR_DENIED);
    other = claims;
    other.realm.v = 1;
    assert_int_equal(authenticate(&out, &other, false), ERR_DENIED);
}

static void test_operator_creates_on_first_sight(void **state)
{
    struct jwt_claims claims = claims_operator("Zo\xc3\xab Q", "");
    struct account_policy closed = policy;
    struct identity a, b;
    (void)state;
    closed.create_on_first_sight = false;
    assert_int_equal(authenticate_at(&a, &claims, "web", &closed, NOW, true), ERR_DENIED);
    assert_int_equal(authenticate_at(&a, &claims, "web", &policy, NOW, false), ERR_AGAIN);
    assert_int_equal(authenticate_at(&a, &claims, "web", &policy, NOW, true), OK);
    assert_string_equal(a.name, "Zo\xc3\xab Q");
    assert_int_equal(a.device.v, 1);
    assert_int_equal(a.generation, 1);
    assert_int_equal(authenticate_at(&b, &claims, "web", &closed, NOW, false), OK);
    assert_int_equal(b.user.v, a.user.v);
    assert_int_equal(b.generation, 1);
    assert_int_equal(authenticate_at(&b, &claims, "phone", &closed, NOW, false), ERR_AGAIN);
    assert_int_equal(authenticate_at(&b, &claims, "phone", &closed, NOW, true), OK);
    assert_int_equal(b.device.v, 2);
    assert_int_equal(authenticate_at(&b, &claims, "", &policy, NOW, true), OK);
    assert_int_equal(b.device.v, 3);
    assert_int_equal(authenticate_at(&b, &claims, "fourth", &policy, NOW, true), ERR_FULL);
    struct jwt_claims named = claims_operator("Zo\xc3\xab Q", "phone");
    assert_int_equal(authenticate_at(&b, &named, "web", &policy, NOW, false), OK);
    assert_int_equal(b.device.v, 2); /* the token's device counts, not the client's */
    assert_int_equal(authenticate_at(&b, &claims, "a\nb", &policy, NOW, true), ERR_INVALID);
    struct jwt_claims bad = claims_operator("a\x01", "");
    assert_int_equal(authenticate_at(&b, &bad, "web", &policy, NOW, true), ERR_DENIED);
}

static void test_operator_cannot_take_a_password_account(void **state)
{
    struct jwt_claims claims = claims_operator("squatted", "");
    struct identity out;
    struct user_id user = make("squatted");
    char hash[ACCOUNT_HASH_TEXT_BYTES];
    (void)state;
    assert_int_equal(authenticate(&out, &claims, false), ERR_DENIED);
    assert_int_equal(authenticate(&out, &claims, true), ERR_DENIED);
    claims = claims_operator("theirs", "");
    assert_int_equal(authenticate(&out, &claims, true), OK);
    assert_int_equal(make_in(realm0, &user, "theirs", "$h", 70), ERR_EXISTS);
    begin(false);
    assert_int_equal(account_password_hash(txn, realm0, "theirs", &user, hash), ERR_NOT_FOUND);
    end();
}

static void test_operator_logout_refuses_older_tokens(void **state)
{
    struct jwt_claims claims = claims_operator("oidc", "web");
    struct identity a, out;
    (void)state;
    assert_int_equal(authenticate(&a, &claims, true), OK);
    assert_int_equal(logout(&a, claims.expires_ms), OK);
    assert_int_equal(authenticate(&out, &claims, true), ERR_DENIED);
    claims.expires_ms += 1000; /* a new token */
    assert_int_equal(authenticate(&out, &claims, false), ERR_AGAIN);
    assert_int_equal(authenticate(&out, &claims, true), OK);
    assert_int_equal(out.device.v, a.device.v);
    assert_true(out.generation > a.generation);
}

static void test_operator_use_is_noted(void **state)
{
    struct jwt_claims claims = claims_operator("noted", "web");
    struct identity out;
    (void)state;
    assert_int_equal(authenticate(&out, &claims, true), OK);
    assert_int_equal(authenticate_at(&out, &claims, "", &policy, NOW + 7 * DAY_MS, false), OK);
    assert_int_equal(authenticate_at(&out, &claims, "", &policy, NOW + 8 * DAY_MS, false),
                     ERR_AGAIN);
    assert_int_equal(authenticate_at(&out, &claims, "", &policy, NOW + 8 * DAY_MS, true), OK);
    assert_int_equal(out.generation, 1);
    assert_int_equal(authenticate_at(&out, &claims, "", &policy, NOW + 9 * DAY_MS, false), OK);
}

/* ---- rows from elsewhere */

static void put_user_row(struct user_id user, const void *data, size_t size)
{
    uint8_t key[8];
    store_u64(key, __builtin_bswap64(user.v));
    begin(true);
    assert_int_equal(
        catalog_put(txn, CATALOG_USERS, bytes_of(key, sizeof key), bytes_of(data, size)), OK);
    end();
}

static void test_bad_rows(void **state)
{
    static const uint8_t row[] = {1, 0, 0, 0, 0, 8, 7,   6,   5, 4,   3,   2,
                                  1, 3, 0, 0, 0, 2, '$', 'h', 3, 'b', 'a', 'd'};
    struct user_id user = make("bad");
    struct realm_id realm;
    char name[JWT_NAME_BYTES_MAX + 1];
    uint8_t data[sizeof row + 1];
    (void)state;
    memcpy(data, row, sizeof row);
    put_user_row(user, data, sizeof row); /* the format of the head comment, by hand */
    begin(false);
    assert_int_equal(account_name(txn, &realm, name, user), OK);
    assert_string_equal(name, "bad");
    end();
    for (size_t size = 0; size <= sizeof data; size++) {
        if (size == sizeof row)
            continue;
        put_user_row(user, data, size);
        begin(false);
        assert_int_equal(account_name(txn, &realm, name, user), ERR_CORRUPT);
        end();
    }
    data[0] = 2;
    put_user_row(user, data, sizeof row);
    begin(false);
    assert_int_equal(account_name(txn, &realm, name, user), ERR_NEWER);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_create_and_find),
        cmocka_unit_test(test_name_taken),
        cmocka_unit_test(test_ids_do_not_collide),
        cmocka_unit_test(test_bad_rows_to_create),
        cmocka_unit_test(test_login_makes_and_finds_device),
        cmocka_unit_test(test_login_ends_older_tokens_of_the_device),
        cmocka_unit_test(test_devices_max),
        cmocka_unit_test(test_old_devices_give_up_their_rows),
        cmocka_unit_test(test_refresh_chain),
        cmocka_unit_test(test_refresh_twice_revokes),
        cmocka_unit_test(test_guesses_revoke_nobody),
        cmocka_unit_test(test_refresh_expires),
        cmocka_unit_test(test_tokens_are_not_stored),
        cmocka_unit_test(test_logout),
        cmocka_unit_test(test_local_tokens),
        cmocka_unit_test(test_operator_creates_on_first_sight),
        cmocka_unit_test(test_operator_cannot_take_a_password_account),
        cmocka_unit_test(test_operator_logout_refuses_older_tokens),
        cmocka_unit_test(test_operator_use_is_noted),
        cmocka_unit_test(test_bad_rows),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
