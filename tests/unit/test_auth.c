/* test_auth.c: accounts and logins through the api's handler, over real workers and catalog. */
#include "tests/unit/api_world.h"
#include "tests/unit/check.h"

#include <jansson.h>
#include <time.h>

static struct shard *world;
static char text[4096]; /* of the newest body that was sent */

static int setup(void **state)
{
    (void)state;
    world = world_create(64, 64);
    return world != NULL ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    world_destroy(world);
    return 0;
}

static const struct answer *ask(struct ask question)
{
    const struct answer *answer = world_begin(world, &question);
    assert_true(world_finish(world, answer));
    return answer;
}

static const struct answer *post_bytes(const char *path, const void *body, size_t size)
{
    return ask((struct ask){.method = "POST",
                            .path = path,
                            .content_type = "application/json",
                            .body = bytes_of(body, size)});
}

static const struct answer *post(const char *path, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static const struct answer *post(const char *path, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    assert_true(size >= 0 && (size_t)size < sizeof text);
    return post_bytes(path, text, (size_t)size);
}

static const struct answer *bearer(const char *method, const char *path, const char *query,
                                   const char *token)
{
    return ask((struct ask){.method = method, .path = path, .query = query, .bearer = token});
}

static void assert_error(const struct answer *answer, unsigned status, const char *code)
{
    char expected[64];
    snprintf(expected, sizeof expected, "{\"error\":{\"code\":\"%s\",\"message\":\"", code);
    if (answer->status != status || strncmp(answer->body, expected, strlen(expected)) != 0)
        fail_msg("wanted %u %s, got %u %s", status, code, answer->status, answer->body);
    assert_int_equal(status == 401, strstr(answer->fields, "WWW-Authenticate: Bearer\r\n") != NULL);
}

static void assert_error_names(const struct answer *answer, unsigned status, const char *code,
                               const char *word)
{
    assert_error(answer, status, code);
    if (strstr(answer->body, word) == NULL)
        fail_msg("\"%s\" is missing in %s", word, answer->body);
}

/* member: of the answer's JSON object, as text; numbers in decimal. */
static const char *member(char out[2048], const struct answer *answer, const char *name)
{
    json_t *root = json_loadb(answer->body, answer->body_size, 0, NULL);
    json_t *value = json_object_get(root, name);
    assert_non_null(value);
    if (json_is_string(value))
        snprintf(out, 2048, "%s", json_string_value(value));
    else
        snprintf(out, 2048, "%lld", (long long)json_integer_value(value));
    json_decref(root);
    return out;
}

struct tokens {
    char access[1024];
    char refresh[64];
    char user[24];
    char device[16];
};

static void take_member(char *out, size_t size, const struct answer *answer, const char *name)
{
    char value[2048];
    assert_true(strlen(member(value, answer, name)) < size);
    memcpy(out, value, strlen(value) + 1);
}

static void take_tokens(struct tokens *out, const struct answer *answer)
{
    char expires[16];
    if (answer->status != 200)
        fail_msg("wanted tokens, got %u %s", answer->status, answer->body);
    take_member(out->access, sizeof out->access, answer, "access_token");
    take_member(out->refresh, sizeof out->refresh, answer, "refresh_token");
    take_member(out->user, sizeof out->user, answer, "user");
    take_member(out->device, sizeof out->device, answer, "device");
    take_member(expires, sizeof expires, answer, "expires_in");
    assert_string_equal(expires, "900");
    assert_int_equal(strlen(out->refresh), 59);
    assert_non_null(strstr(answer->fields, "Cache-Control: no-store\r\n"));
}

static void make(const char *name)
{
    const struct answer *answer =
        post("/users", "{\"name\":\"%s\",\"password\":\"right horse\"}", name);
    assert_int_equal(answer->status, 201);
}

static void login(struct tokens *out, const char *name, const char *device)
{
    take_tokens(out, post("/auth/login",
                          "{\"name\":\"%s\",\"password\":\"right horse\",\"device\":\"%s\"}", name,
                          device));
}

/* ---- POST /users */

static void test_register(void **state)
{
    char user[2048], name[2048];
    (void)state;
    const struct answer *answer =
        post("/users", "{\"name\":\"Alice\",\"password\":\"12345678\",\"more\":[1]}");
    assert_int_equal(answer->status, 201);
    assert_string_equal(member(name, answer, "name"), "alice");
    assert_true(strtoull(member(user, answer, "user"), NULL, 10) > 0);
    assert_int_equal(strspn(user, "0123456789"), strlen(user));
    assert_error(post("/users", "{\"name\":\"aLICE\",\"password\":\"another one\"}"), 409,
                 "name_taken");
}

static void test_registration_closed(void **state)
{
    (void)state;
    world->config.registration = false;
    assert_error(post("/users", "{\"name\":\"late\",\"password\":\"12345678\"}"), 403,
                 "registration_closed");
    world->config.registration = true;
}

static void test_bad_fields(void **state)
{
    static const struct {
        const char *body;
        const char *field;
    } bad[] = {
        {"{}", "name"},
        {"{\"name\":5,\"password\":\"12345678\"}", "name"},
        {"{\"name\":null,\"password\":\"12345678\"}", "name"},
        {"{\"name\":[],\"password\":\"12345678\"}", "name"},
        {"{\"name\":\"\",\"password\":\"12345678\"}", "name"},
        {"{\"name\":\"a b\",\"password\":\"12345678\"}", "name"},
        {"{\"name\":\"a\\u0000b\",\"password\":\"12345678\"}", "name"},
        {"{\"name\":\"\\u00e4\",\"password\":\"12345678\"}", "name"},
        {"{\"name\":\"ok\"}", "password"},
        {"{\"name\":\"ok\",\"password\":12345678}", "password"},
        {"{\"name\":\"ok\",\"password\":\"1234567\"}", "password"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        assert_error_names(post("/users", "%s", bad[i].body), 400, "invalid_field", bad[i].field);
    memset(text, 'x', sizeof text);
    memcpy(text, "{\"name\":\"ok\",\"password\":\"", 25);
    memcpy(text + 25 + 1025, "\"}", 2);
    assert_error_names(post_bytes("/users", text, 25 + 1025 + 2), 400, "invalid_field", "password");
    assert_error_names(
        post("/auth/login", "{\"name\":\"ok\",\"password\":\"12345678\",\"device\":1}"), 400,
        "invalid_field", "device");
    assert_error_names(post("/auth/refresh", "{\"refresh_token\":true}"), 400, "invalid_field",
                       "refresh_token");
    assert_error_names(post("/auth/refresh", "{\"refresh_token\":\"short\"}"), 400, "invalid_field",
                       "refresh_token");
}

static void test_bad_bodies(void **state)
{
    static const char *const bad[] = {"",
                                      "{",
                                      "[]",
                                      "\"x\"",
                                      "{\"name\":\"a\",\"name\":\"b\",\"password\":\"12345678\"}",
                                      "{} x",
                                      "\xff\xfe",
                                      "null"};
    static const char *const types[] = {NULL, "text/plain", "application/jsonp",
                                        "application/x-www-form-urlencoded", "application/jso"};
    (void)state;
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        assert_error(post("/users", "%s", bad[i]), 400, "malformed");
    for (size_t i = 0; i < COUNT_OF(types); i++)
        assert_error(ask((struct ask){.method = "POST",
                                      .path = "/auth/login",
                                      .content_type = types[i],
                                      .body = bytes_of_text("{}")}),
                     415, "unsupported_media_type");
    assert_error(ask((struct ask){.method = "POST",
                                  .path = "/auth/login",
                                  .content_type = "Application/JSON; charset=utf-8",
                                  .body = bytes_of_text("{}")}),
                 400, "invalid_field");
}

static enum err row_has_password(void *context, struct bytes key, struct bytes value)
{
    (void)key;
    ++*(int *)context;
    return memmem(value.data, value.size, "right horse", 11) != NULL ? ERR_EXISTS : OK;
}

static void test_passwords_are_stored_hashed(void **state)
{
    struct catalog_txn *txn = NULL;
    int rows = 0;
    (void)state;
    make("stored");
    assert_int_equal(catalog_begin(world->catalog, &txn, false), OK);
    assert_int_equal(catalog_scan(txn, CATALOG_USERS, bytes_of(NULL, 0), row_has_password, &rows),
                     OK);
    catalog_abort(txn);
    assert_true(rows > 0);
}

/* ---- POST /auth/login */

static void test_login(void **state)
{
    struct tokens tokens, again;
    struct jwt_claims claims;
    (void)state;
    make("bob");
    login(&tokens, "bob", "laptop");
    assert_string_equal(tokens.device, "1");
    uint64_t now_ms = io_wall_ms(world->io);
    assert_int_equal(
        jwt_verify(&claims, bytes_of_text(tokens.access), &world->signer, NULL, now_ms), OK);
    assert_true(claims.local);
    assert_int_equal(claims.user.v, strtoull(tokens.user, NULL, 10));
    assert_int_equal(claims.device.v, 1);
    assert_int_equal(claims.generation, 1);
    assert_true(claims.expires_ms > now_ms + 890000 && claims.expires_ms <= now_ms + 910000);
    login(&again, "BOB", "laptop");
    assert_string_equal(again.device, "1");
    login(&again, "bob", "phone");
    assert_string_equal(again.device, "2");
    take_tokens(&again, post("/auth/login", "{\"name\":\"bob\",\"password\":\"right horse\"}"));
    assert_string_equal(again.device, "3");
}

static void test_wrong_credentials_look_alike(void **state)
{
    char wrong[512];
    (void)state;
    make("carol");
    const struct answer *answer =
        post("/auth/login", "{\"name\":\"carol\",\"password\":\"wrong horse\"}");
    assert_error(answer, 401, "invalid_credentials");
    snprintf(wrong, sizeof wrong, "%s", answer->body);
    static const char *const names[] = {"nobody", "no body", "\xc3\xa4", "carol\\u0000"};
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        answer = post("/auth/login", "{\"name\":\"%s\",\"password\":\"right horse\"}", names[i]);
        assert_error(answer, 401, "invalid_credentials");
        assert_string_equal(answer->body, wrong);
    }
}

/* cpu_ns: of the process, all threads: what others on the machine do does not count. */
static uint64_t cpu_ns(void)
{
    struct timespec now;
    assert_int_equal(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now), 0);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

/* login_ns: of processor, the least of three. */
static uint64_t login_ns(const char *name)
{
    uint64_t best = UINT64_MAX;
    for (int i = 0; i < 3; i++) {
        uint64_t begin = cpu_ns();
        assert_error(post("/auth/login", "{\"name\":\"%s\",\"password\":\"wrong horse\"}", name),
                     401, "invalid_credentials");
        uint64_t took = cpu_ns() - begin;
        best = took < best ? took : best;
    }
    return best;
}

static void test_unknown_users_cost_the_same(void **state)
{
    struct api *cheap = world->api;
    (void)state;
    world->config.hash_memory_kib = 16384;
    assert_int_equal(world_api(world), OK);
    make("dave");
    uint64_t known = login_ns("dave");
    uint64_t unknown = login_ns("nobody");
    uint64_t impossible = login_ns("no body");
    assert_true(unknown > known / 4 && unknown < known * 4);
    assert_true(impossible > known / 4 && impossible < known * 4);
    world->config.hash_memory_kib = 64;
    api_destroy(world->api);
    world->api = cheap;
}

static void hash_of(char out[ACCOUNT_HASH_TEXT_BYTES], const char *name)
{
    struct catalog_txn *txn = NULL;
    struct user_id user;
    assert_int_equal(catalog_begin(world->catalog, &txn, false), OK);
    assert_int_equal(account_password_hash(txn, (struct realm_id){0}, name, &user, out), OK);
    catalog_abort(txn);
}

/* Parameters that changed reach an account when its password is next seen, and only if it is right.
 */
static void test_login_hashes_anew(void **state)
{
    struct api *before = world->api;
    struct tokens tokens;
    char first[ACCOUNT_HASH_TEXT_BYTES], second[ACCOUNT_HASH_TEXT_BYTES];
    char third[ACCOUNT_HASH_TEXT_BYTES];
    (void)state;
    make("old");
    hash_of(first, "old");
    assert_non_null(strstr(first, "$m=64,t=1,p=1$"));
    login(&tokens, "old", "phone");
    hash_of(second, "old");
    assert_string_equal(first, second);
    world->config.hash_memory_kib = 96;
    world->config.hash_passes = 2;
    assert_int_equal(world_api(world), OK);
    assert_error(post("/auth/login", "{\"name\":\"old\",\"password\":\"wrong horse\"}"), 401,
                 "invalid_credentials");
    hash_of(second, "old");
    assert_string_equal(first, second);
    login(&tokens, "old", "phone");
    hash_of(second, "old");
    assert_non_null(strstr(second, "$m=96,t=2,p=1$"));
    login(&tokens, "old", "phone");
    hash_of(third, "old");
    assert_string_equal(second, third);
    world->config.hash_passes = 3;
    for (char device[] = "a"; device[0] < 'a' + 7; device[0]++)
        login(&tokens, "old", device);
    world->config.hash_passes = 4; /* a login that is refused, with a hash to be made anew */
    assert_error(
        post("/auth/login", "{\"name\":\"old\",\"password\":\"right horse\",\"device\":\"z\"}"),
        409, "too_many_devices");
    world->config.hash_memory_kib = 64;
    world->config.hash_passes = 1;
    api_destroy(world->api);
    world->api = before;
    login(&tokens, "old", "phone"); /* and back: the operator's word counts */
    hash_of(third, "old");
    assert_non_null(strstr(third, "$m=64,t=1,p=1$"));
}

static void test_too_many_devices(void **state)
{
    struct tokens tokens;
    char device[16];
    (void)state;
    make("erin");
    for (uint32_t i = 0; i < world->config.devices_per_user; i++) {
        snprintf(device, sizeof device, "d%u", i);
        login(&tokens, "erin", device);
    }
    assert_error(post("/auth/login",
                      "{\"name\":\"erin\",\"password\":\"right horse\",\"device\":\"one more\"}"),
                 409, "too_many_devices");
    assert_int_equal(bearer("POST", "/auth/logout", NULL, tokens.access)->status, 204);
    login(&tokens, "erin", "one more");
}

/* Who has lost all devices gets in by logging out the one used longest ago. */
static void test_replace_a_device(void **state)
{
    struct tokens first, tokens;
    char device[16];
    (void)state;
    make("greta");
    login(&first, "greta", "d0");
    for (uint32_t i = 1; i < world->config.devices_per_user; i++) {
        snprintf(device, sizeof device, "d%u", i);
        login(&tokens, "greta", device);
    }
    assert_error(post("/auth/login", "{\"name\":\"greta\",\"password\":\"right horse\","
                                     "\"device\":\"new\",\"replace\":1}"),
                 400, "invalid_field");
    assert_error(post("/auth/login", "{\"name\":\"greta\",\"password\":\"right horse\","
                                     "\"device\":\"new\",\"replace\":false}"),
                 409, "too_many_devices");
    assert_int_equal(post("/auth/login", "{\"name\":\"greta\",\"password\":\"right horse\","
                                         "\"device\":\"new\",\"replace\":true}")
                         ->status,
                     200);
    assert_int_equal(bearer("GET", "/users", "name=greta", first.access)->status, 401);
    assert_int_equal(bearer("GET", "/users", "name=greta", tokens.access)->status, 200);
    assert_int_equal(post("/auth/login", "{\"name\":\"greta\",\"password\":\"right horse\","
                                         "\"device\":\"d1\",\"replace\":true}")
                         ->status,
                     200); /* one that is logged in replaces nobody */
    assert_int_equal(bearer("GET", "/users", "name=greta", tokens.access)->status, 200);
    login(&tokens, "greta", "new");
}

static void test_full_hash_queue(void **state)
{
    const struct answer *answers[16];
    struct ask question = {.method = "POST",
                           .path = "/auth/login",
                           .content_type = "application/json",
                           .body = bytes_of_text("{\"name\":\"a\",\"password\":\"12345678\"}")};
    unsigned refused = 0, answered = 0;
    (void)state;
    struct shard *small = world_create(1, 64);
    assert_non_null(small);
    api_destroy(small->api);
    small->config.hash_memory_kib = 65536; /* slow enough for the rest to pile up */
    assert_int_equal(world_api(small), OK);
    for (size_t i = 0; i < COUNT_OF(answers); i++)
        answers[i] = world_begin(small, &question);
    for (size_t i = 0; i < COUNT_OF(answers); i++) {
        assert_true(world_finish(small, answers[i]));
        refused += answers[i]->status == 503;
        answered += answers[i]->status == 401;
        if (answers[i]->status == 503)
            assert_non_null(strstr(answers[i]->fields, "Retry-After: "));
    }
    assert_true(refused > 0 && answered > 0);
    assert_int_equal(refused + answered, COUNT_OF(answers));
    assert_int_equal(metrics_sum(&small->metrics, 1, METRIC_HASH_QUEUE_FULL), refused);
    world_destroy(small);
}

/* ---- POST /auth/refresh, /auth/logout */

static void test_refresh(void **state)
{
    struct tokens first, second, third;
    (void)state;
    make("frank");
    login(&first, "frank", "laptop");
    take_tokens(&second, post("/auth/refresh", "{\"refresh_token\":\"%s\"}", first.refresh));
    assert_string_not_equal(first.refresh, second.refresh);
    assert_string_equal(first.user, second.user);
    take_tokens(&third, post("/auth/refresh", "{\"refresh_token\":\"%s\"}", second.refresh));
    assert_int_equal(bearer("GET", "/users", "name=frank", third.access)->status, 200);
    assert_int_equal(bearer("GET", "/users", "name=frank", first.access)->status, 200);
    uint32_t before = world->revocations;
    assert_error(post("/auth/refresh", "{\"refresh_token\":\"%s\"}", first.refresh), 401,
                 "refresh_token_reused");
    assert_int_equal(world->revocations, before + 1);
    assert_int_equal(world->revoked_user.v, strtoull(first.user, NULL, 10));
    assert_int_equal(world->revoked_device.v, 1);
    assert_error(post("/auth/refresh", "{\"refresh_token\":\"%s\"}", third.refresh), 401,
                 "invalid_refresh_token");
    assert_error(bearer("GET", "/users", "name=frank", third.access), 401, "unauthenticated");
}

static void test_refresh_of_nobody(void **state)
{
    uint32_t before = world->revocations;
    char token[60];
    (void)state;
    memset(token, 'A', 59);
    token[59] = '\0';
    assert_error(post("/auth/refresh", "{\"refresh_token\":\"%s\"}", token), 401,
                 "invalid_refresh_token");
    assert_int_equal(world->revocations, before);
}

static void test_logout(void **state)
{
    struct tokens tokens;
    (void)state;
    make("grace");
    login(&tokens, "grace", "laptop");
    uint32_t before = world->revocations;
    const struct answer *answer = bearer("POST", "/auth/logout", NULL, tokens.access);
    assert_int_equal(answer->status, 204);
    assert_int_equal(answer->body_size, 0);
    assert_int_equal(world->revocations, before + 1);
    assert_int_equal(world->revoked_user.v, strtoull(tokens.user, NULL, 10));
    assert_error(bearer("POST", "/auth/logout", NULL, tokens.access), 401, "unauthenticated");
    assert_error(post("/auth/refresh", "{\"refresh_token\":\"%s\"}", tokens.refresh), 401,
                 "invalid_refresh_token");
}

/* ---- GET /users */

static void test_find_user(void **state)
{
    struct tokens tokens;
    char name[2048], user[2048], query[64];
    (void)state;
    make("heidi");
    make("ivan");
    login(&tokens, "heidi", "laptop");
    const struct answer *answer = bearer("GET", "/users", "name=ivan", tokens.access);
    assert_int_equal(answer->status, 200);
    assert_string_equal(member(name, answer, "name"), "ivan");
    snprintf(query, sizeof query, "id=%s", member(user, answer, "user"));
    answer = bearer("GET", "/users", query, tokens.access);
    assert_int_equal(answer->status, 200);
    assert_string_equal(member(name, answer, "name"), "ivan");
    answer = bearer("GET", "/users", "name=%49VAN", tokens.access);
    assert_int_equal(answer->status, 200);
    assert_error(bearer("GET", "/users", "name=judy", tokens.access), 404, "not_found");
    assert_error(bearer("GET", "/users", "id=5", tokens.access), 404, "not_found");
    static const char *const bad[] = {
        "",        "id=",         "id=0",   "id=x",     "id=-1",
        "name=",   "name=a&id=1", "nome=a", "name=%zz", "id=99999999999999999999",
        "name=%00"};
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        assert_error(bearer("GET", "/users", bad[i], tokens.access), 400, "invalid_query");
    answer = bearer("HEAD", "/users", "name=ivan", tokens.access);
    assert_int_equal(answer->status, 200);
    assert_true(answer->head);
}

static void test_other_realms_are_not_seen(void **state)
{
    static const uint8_t random[8] = {5, 5, 5};
    struct catalog_txn *txn = NULL;
    struct user_id stranger;
    struct tokens tokens;
    char query[64];
    (void)state;
    make("niaj");
    login(&tokens, "niaj", "laptop");
    assert_int_equal(catalog_begin(world->catalog, &txn, true), OK);
    assert_int_equal(
        account_create(txn, &stranger, (struct realm_id){5}, "stranger", "$h", random, 1), OK);
    assert_int_equal(catalog_commit(txn), OK);
    snprintf(query, sizeof query, "id=%llu", (unsigned long long)stranger.v);
    assert_error(bearer("GET", "/users", query, tokens.access), 404, "not_found");
    assert_error(bearer("GET", "/users", "name=stranger", tokens.access), 404, "not_found");
}

static void test_bad_tokens(void **state)
{
    struct tokens tokens;
    static char long_token[JWT_BYTES_MAX + 2];
    (void)state;
    make("kim");
    login(&tokens, "kim", "laptop");
    assert_error(ask((struct ask){.method = "GET", .path = "/users", .query = "name=kim"}), 401,
                 "unauthenticated");
    assert_error(bearer("GET", "/users", "name=kim", ""), 401, "unauthenticated");
    assert_error(bearer("GET", "/users", "name=kim", "a.b.c"), 401, "unauthenticated");
    memset(long_token, 'a', sizeof long_token - 1);
    assert_error(bearer("GET", "/users", "name=kim", long_token), 401, "unauthenticated");
    size_t last = strlen(tokens.access) - 2;
    tokens.access[last] = tokens.access[last] == 'A' ? 'B' : 'A';
    assert_error(bearer("GET", "/users", "name=kim", tokens.access), 401, "unauthenticated");
    world->config.access_token_s = 0;
    struct answer const *answer =
        post("/auth/login", "{\"name\":\"kim\",\"password\":\"right horse\"}");
    world->config.access_token_s = 900;
    char access[2048];
    assert_error(bearer("GET", "/users", "name=kim", member(access, answer, "access_token")), 401,
                 "token_expired");
}

/* ---- tokens of an operator */

static void sign_external(char out[2048], const char *subject, uint64_t lifetime_ms)
{
    struct buffer token = buffer_of(out, 2047);
    assert_int_equal(jwt_sign_external(&token, &world->signer, "one", "issuer", "audience", subject,
                                       "web", io_wall_ms(world->io), lifetime_ms),
                     OK);
    out[token.size] = '\0';
}

static void test_operator_tokens(void **state)
{
    static uint8_t keys[1024];
    struct buffer out = buffer_of(keys, sizeof keys);
    const char *explanation;
    char token[2048], later[2048], name[2048];
    struct api *closed = world->api;
    (void)state;
    make("local.user");
    sign_external(token, "Ext User", 600000);
    assert_error(bearer("GET", "/users", "name=local.user", token), 401, "unauthenticated");
    assert_int_equal(jwks_encode(&out, &world->signer, "one"), OK);
    assert_int_equal(
        jwks_create(&world->jwks, buffer_bytes(&out), "issuer", "audience", &explanation), OK);
    assert_error(bearer("GET", "/users", "name=local.user", token), 401, "unauthenticated");
    world->config.create_users = true;
    assert_int_equal(world_api(world), OK);
    assert_int_equal(bearer("GET", "/users", "name=local.user", token)->status, 200);
    const struct answer *answer = bearer("GET", "/users", "name=Ext%20User", token);
    assert_int_equal(answer->status, 200);
    assert_string_equal(member(name, answer, "name"), "Ext User");
    sign_external(later, "First Look Fails", 600000);
    assert_error(bearer("GET", "/users", "name=judy", later), 404, "not_found");
    assert_int_equal(bearer("GET", "/users", "name=First+Look+Fails", later)->status, 200);
    assert_int_equal(bearer("POST", "/auth/logout", NULL, token)->status, 204);
    assert_error(bearer("GET", "/users", "name=local.user", token), 401, "unauthenticated");
    sign_external(later, "Ext User", 700000);
    assert_int_equal(bearer("GET", "/users", "name=local.user", later)->status, 200);
    sign_external(later, "local.user", 600000); /* has a password: not the operator's */
    assert_error(bearer("GET", "/users", "name=local.user", later), 401, "unauthenticated");
    api_destroy(world->api);
    world->api = closed;
    world->config.create_users = false;
}

/* ---- nothing is kept, whatever fails */

static void test_memory_is_given_back(void **state)
{
    struct tokens tokens;
    int64_t before = memory_bytes(MEMORY_API);
    (void)state;
    make("leo");
    login(&tokens, "leo", "laptop");
    post("/auth/login", "{\"name\":\"leo\",\"password\":\"wrong horse\"}");
    post("/users", "{\"name\":\"leo\",\"password\":\"right horse\"}");
    bearer("GET", "/users", "name=leo", tokens.access);
    bearer("POST", "/auth/logout", NULL, tokens.access);
    assert_int_equal(memory_bytes(MEMORY_API), before);
}

static void test_every_allocation_may_fail(void **state)
{
    int64_t before = memory_bytes(MEMORY_API);
    unsigned refused = 0;
    (void)state;
    make("mia");
    for (uint64_t n = 1; n <= 12; n++) {
        memory_fail_at(n);
        const struct answer *answer =
            post("/auth/login", "{\"name\":\"mia\",\"password\":\"right horse\"}");
        memory_fail_at(0);
        assert_true(answer->status == 200 || answer->status == 503);
        refused += answer->status == 503;
    }
    assert_true(refused > 0);
    assert_int_equal(memory_bytes(MEMORY_API), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_register),
        cmocka_unit_test(test_registration_closed),
        cmocka_unit_test(test_bad_fields),
        cmocka_unit_test(test_bad_bodies),
        cmocka_unit_test(test_passwords_are_stored_hashed),
        cmocka_unit_test(test_login),
        cmocka_unit_test(test_wrong_credentials_look_alike),
        cmocka_unit_test(test_unknown_users_cost_the_same),
        cmocka_unit_test(test_login_hashes_anew),
        cmocka_unit_test(test_too_many_devices),
        cmocka_unit_test(test_replace_a_device),
        cmocka_unit_test(test_full_hash_queue),
        cmocka_unit_test(test_refresh),
        cmocka_unit_test(test_refresh_of_nobody),
        cmocka_unit_test(test_logout),
        cmocka_unit_test(test_find_user),
        cmocka_unit_test(test_other_realms_are_not_seen),
        cmocka_unit_test(test_bad_tokens),
        cmocka_unit_test(test_operator_tokens),
        cmocka_unit_test(test_memory_is_given_back),
        cmocka_unit_test(test_every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
