/* test_jwt.c: tokens and key sets: against vectors made by Node's crypto (jwt_vectors.js says how),
 * the gateway's own tokens, every single-byte change of a good token, and failing allocations. */
#include "gateway/wire/jwt.h"

#include "core/memory.h"
#include "core/text.h"
#include "gateway/wire/json_text.h"

#include <openssl/curve25519.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define NOW_MS 1790000000000ull

static json_t *vectors;

static struct bytes member(const json_t *object, const char *name)
{
    struct bytes text = json_text_member(object, name);
    assert_non_null(json_object_get(object, name));
    return text;
}

static struct jwks *vector_keys(void)
{
    struct jwks *jwks;
    const char *explanation;
    enum err err =
        jwks_create(&jwks, member(vectors, "jwks"), "https://id.example", "roost", &explanation);
    if (err != OK)
        print_error("%s\n", explanation);
    assert_int_equal(err, OK);
    return jwks;
}

static struct jwt_signer signer_of(uint8_t fill)
{
    struct jwt_signer signer;
    uint8_t secret[JWT_KEY_BYTES];
    memset(secret, fill, sizeof secret);
    jwt_signer_init(&signer, secret);
    return signer;
}

static void compare_claims(const json_t *want, const struct jwt_claims *claims)
{
    if (want == NULL)
        return;
    assert_string_equal(claims->subject, json_string_value(json_object_get(want, "subject")));
    assert_string_equal(claims->device_key, json_string_value(json_object_get(want, "device")));
    assert_int_equal(claims->realm.v, json_integer_value(json_object_get(want, "realm")));
    assert_int_equal(claims->expires_ms, json_integer_value(json_object_get(want, "expires_ms")));
}

static void tokens_of_another_implementation(void **state)
{
    (void)state;
    struct jwks *jwks = vector_keys();
    const json_t *tokens = json_object_get(vectors, "tokens");
    struct jwt_signer signer = signer_of(1);
    size_t good = 0;

    assert_int_equal(jwks_count(jwks), json_integer_value(json_object_get(vectors, "jwks_count")));
    assert_true(json_array_size(tokens) > 60);
    for (size_t i = 0; i < json_array_size(tokens); i++) {
        const json_t *vector = json_array_get(tokens, i);
        struct jwt_claims claims = {.generation = 99};
        enum err err = jwt_verify(&claims, member(vector, "token"), &signer, jwks, NOW_MS);
        const char *want = json_string_value(json_object_get(vector, "expect"));
        const char *got = err == OK ? "ok" : err_name(err);
        if (strcmp(got, want) != 0)
            print_error("%s: %s, not %s\n", json_string_value(json_object_get(vector, "name")), got,
                        want);
        assert_string_equal(got, want);
        good += err == OK;
        if (err == OK) {
            assert_false(claims.local);
            assert_int_equal(claims.user.v, 0);
            compare_claims(json_object_get(vector, "claims"), &claims);
        } else {
            assert_int_equal(claims.generation, 99); /* untouched */
        }
    }
    assert_true(good >= 12);
    jwks_release(jwks);
}

static void key_sets(void **state)
{
    (void)state;
    const json_t *sets = json_object_get(vectors, "sets");

    for (size_t i = 0; i < json_array_size(sets); i++) {
        const json_t *vector = json_array_get(sets, i);
        const char *wrong = json_string_value(json_object_get(vector, "wrong"));
        const char *explanation = NULL;
        struct jwks *jwks = NULL;
        enum err err = jwks_create(&jwks, member(vector, "jwks"), "i", "a", &explanation);
        if (wrong == NULL) {
            assert_int_equal(err, OK);
            assert_int_equal(jwks_count(jwks),
                             json_integer_value(json_object_get(vector, "count")));
            jwks_retain(jwks);
            jwks_release(jwks);
            jwks_release(jwks);
            continue;
        }
        if (err != ERR_INVALID || strncmp(explanation, wrong, strlen(wrong)) != 0)
            print_error("%s: %s\n", json_string_value(json_object_get(vector, "name")),
                        explanation);
        assert_int_equal(err, ERR_INVALID);
        assert_null(jwks);
        assert_int_equal(strncmp(explanation, wrong, strlen(wrong)), 0);
    }
}

static void key_sets_need_issuer_and_audience(void **state)
{
    (void)state;
    const char *const pairs[][2] = {{"", "a"}, {"i", ""}, {NULL, "a"}, {"i", NULL}};
    const char *explanation;
    struct jwks *jwks;

    for (size_t i = 0; i < COUNT_OF(pairs); i++) {
        enum err err =
            jwks_create(&jwks, member(vectors, "jwks"), pairs[i][0], pairs[i][1], &explanation);
        assert_int_equal(err, ERR_INVALID);
        assert_non_null(strstr(explanation, "issuer"));
    }
}

static void other_issuer_and_audience_are_denied(void **state)
{
    (void)state;
    const char *const pairs[][2] = {{"https://id.example", "other"}, {"https://id.other", "roost"}};
    const json_t *token = json_array_get(json_object_get(vectors, "tokens"), 0);
    const char *explanation;

    for (size_t i = 0; i < COUNT_OF(pairs); i++) {
        struct jwks *jwks;
        struct jwt_claims claims;
        assert_int_equal(
            jwks_create(&jwks, member(vectors, "jwks"), pairs[i][0], pairs[i][1], &explanation),
            OK);
        assert_int_equal(jwt_verify(&claims, member(token, "token"), NULL, jwks, NOW_MS),
                         ERR_DENIED);
        jwks_release(jwks);
    }
}

static struct bytes sign_local(struct buffer *out, const struct jwt_signer *signer,
                               uint64_t expires_ms)
{
    struct jwt_claims claims = {.user = {INT64_MAX},
                                .device = {UINT32_MAX},
                                .realm = {UINT32_MAX},
                                .generation = INT64_MAX,
                                .expires_ms = expires_ms};
    assert_int_equal(jwt_sign(out, signer, &claims, NOW_MS), OK);
    return buffer_bytes(out);
}

static void local_tokens(void **state)
{
    (void)state;
    struct jwt_signer signer = signer_of(1);
    struct jwt_signer other = signer_of(2);
    struct jwks *jwks = vector_keys();
    uint8_t memory[1024];
    struct buffer out = buffer_of(memory, sizeof memory);
    struct bytes token = sign_local(&out, &signer, NOW_MS + 900999);
    struct jwt_claims claims;

    assert_int_equal(jwt_verify(&claims, token, &signer, jwks, NOW_MS), OK);
    assert_true(claims.local);
    assert_true(claims.user.v == INT64_MAX);
    assert_int_equal(claims.device.v, UINT32_MAX);
    assert_int_equal(claims.realm.v, UINT32_MAX);
    assert_true(claims.generation == INT64_MAX);
    assert_string_equal(claims.subject, "");
    assert_true(claims.expires_ms == NOW_MS + 900000); /* whole seconds */
    assert_int_equal(jwt_verify(&claims, token, &signer, NULL, NOW_MS + 899999), OK);
    assert_int_equal(jwt_verify(&claims, token, &signer, NULL, NOW_MS + 900000), ERR_EXPIRED);
    assert_int_equal(jwt_verify(&claims, token, &other, jwks, NOW_MS), ERR_DENIED);
    assert_int_equal(jwt_verify(&claims, token, NULL, jwks, NOW_MS), ERR_DENIED);
    assert_int_equal(jwt_verify(&claims, token, NULL, NULL, NOW_MS), ERR_DENIED);
    jwks_release(jwks);
}

/* sign_raw: any header and claims under a good signature. */
static struct bytes sign_raw(struct buffer *out, const struct jwt_signer *signer,
                             const char *header, const char *claims)
{
    uint8_t signature[64];

    out->size = 0;
    assert_int_equal(base64url_encode(out, bytes_of_text(header)), OK);
    assert_int_equal(buffer_put_u8(out, '.'), OK);
    assert_int_equal(base64url_encode(out, bytes_of_text(claims)), OK);
    assert_int_equal(ED25519_sign(signature, out->data, out->size, signer->private_key), 1);
    assert_int_equal(buffer_put_u8(out, '.'), OK);
    assert_int_equal(base64url_encode(out, bytes_of(signature, sizeof signature)), OK);
    return buffer_bytes(out);
}

static void local_claims_are_checked(void **state)
{
    (void)state;
    static const char header[] = "{\"alg\":\"EdDSA\",\"kid\":\"roost\"}";
    static const char good[] = "{\"sub\":\"5\",\"dev\":1,\"gen\":2,\"exp\":1790000001}";
    static const char *const bad[] = {
        "{\"sub\":5,\"dev\":1,\"gen\":2,\"exp\":1790000001}",
        "{\"sub\":\"5\",\"dev\":-1,\"gen\":2,\"exp\":1790000001}",
        "{\"sub\":\"5\",\"dev\":4294967296,\"gen\":2,\"exp\":1790000001}",
        "{\"sub\":\"5\",\"gen\":2,\"exp\":1790000001}",
        "{\"sub\":\"5\",\"dev\":1,\"exp\":1790000001}",
        "{\"sub\":\"5\",\"dev\":1,\"gen\":2}",
        "{\"sub\":\"5\",\"dev\":1,\"gen\":\"2\",\"exp\":1790000001}",
        "{\"sub\":\"5\",\"dev\":1,\"gen\":2,\"realm\":\"0\",\"exp\":1790000001}",
    };
    struct jwt_signer signer = signer_of(1);
    struct jwt_claims claims;
    uint8_t memory[1024];
    struct buffer out = buffer_of(memory, sizeof memory);

    assert_int_equal(
        jwt_verify(&claims, sign_raw(&out, &signer, header, good), &signer, NULL, NOW_MS), OK);
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        assert_int_equal(
            jwt_verify(&claims, sign_raw(&out, &signer, header, bad[i]), &signer, NULL, NOW_MS),
            ERR_INVALID);
    /* another algorithm's name over the very same kind of signature */
    assert_int_equal(
        jwt_verify(&claims, sign_raw(&out, &signer, "{\"alg\":\"ES256\",\"kid\":\"roost\"}", good),
                   &signer, NULL, NOW_MS),
        ERR_DENIED);
}

static void tokens_have_a_longest(void **state)
{
    (void)state;
    static char header[8192];
    static char claims[8192];
    static uint8_t memory[2 * JWT_BYTES_MAX];
    struct jwt_signer signer = signer_of(1);
    struct jwt_claims read;

    for (int pad = 2850; pad < 2950; pad++) {
        struct buffer out = buffer_of(memory, sizeof memory);
        (void)snprintf(header, sizeof header,
                       "{\"alg\":\"EdDSA\",\"kid\":\"roost\",\"x\":\"%0*d\"}", pad, 0);
        (void)snprintf(claims, sizeof claims,
                       "{\"sub\":\"5\",\"dev\":1,\"gen\":2,\"exp\":1790000001,\"x\":\"%03100d\"}",
                       0);
        struct bytes token = sign_raw(&out, &signer, header, claims);
        assert_int_equal(jwt_verify(&read, token, &signer, NULL, NOW_MS),
                         token.size <= JWT_BYTES_MAX ? OK : ERR_INVALID);
        assert_true(pad != 2850 || token.size <= JWT_BYTES_MAX);
        assert_true(pad != 2949 || token.size > JWT_BYTES_MAX);
    }
}

static void local_tokens_need_user_and_device(void **state)
{
    (void)state;
    struct jwt_signer signer = signer_of(1);
    const struct jwt_claims bad[] = {
        {.device = {1}, .expires_ms = NOW_MS + 1},
        {.user = {1}, .expires_ms = NOW_MS + 1},
        {.user = {1}, .device = {1}, .generation = 1ull << 63, .expires_ms = NOW_MS + 1},
        {.user = {1}, .device = {1}, .expires_ms = UINT64_MAX},
    };
    uint8_t memory[1024];

    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct buffer out = buffer_of(memory, sizeof memory);
        assert_int_equal(jwt_sign(&out, &signer, &bad[i], NOW_MS), ERR_INVALID);
        assert_int_equal(out.size, 0);
    }
}

static void no_room_appends_nothing(void **state)
{
    (void)state;
    struct jwt_signer signer = signer_of(1);
    struct jwt_claims claims = {.user = {1}, .device = {1}, .expires_ms = NOW_MS + 1000};
    uint8_t memory[1024];
    struct buffer out = buffer_of(memory, sizeof memory);

    assert_int_equal(jwt_sign(&out, &signer, &claims, NOW_MS), OK);
    size_t size = out.size;
    for (size_t room = 0; room < size; room++) {
        out = buffer_of(memory, 3 + room);
        out.size = 3;
        assert_int_equal(jwt_sign(&out, &signer, &claims, NOW_MS), ERR_FULL);
        assert_int_equal(out.size, 3);
    }
    out = buffer_of(memory, size);
    assert_int_equal(jwt_sign(&out, &signer, &claims, NOW_MS), OK);
}

/* What an operator's system does, played by the load generator. */
static void external_tokens(void **state)
{
    (void)state;
    struct jwt_signer elsewhere = signer_of(3);
    uint8_t set_memory[512];
    uint8_t token_memory[2048];
    struct buffer set = buffer_of(set_memory, sizeof set_memory);
    struct buffer token = buffer_of(token_memory, sizeof token_memory);
    const char *explanation;
    struct jwks *jwks;
    struct jwt_claims claims;

    assert_int_equal(jwks_encode(&set, &elsewhere, "load \"1\""), OK);
    assert_int_equal(jwks_create(&jwks, buffer_bytes(&set), "iss", "aud", &explanation), OK);
    assert_int_equal(jwt_sign_external(&token, &elsewhere, "load \"1\"", "iss", "aud", "user-7",
                                       "d", NOW_MS, 60000),
                     OK);
    assert_int_equal(jwt_verify(&claims, buffer_bytes(&token), NULL, jwks, NOW_MS), OK);
    assert_string_equal(claims.subject, "user-7");
    assert_string_equal(claims.device_key, "d");
    assert_true(claims.expires_ms == NOW_MS + 120000);
    assert_false(claims.local);
    token.size = 0;
    assert_int_equal(jwt_sign_external(&token, &elsewhere, "load \"1\"", "iss", "aud", "user-7", "",
                                       NOW_MS, 60000),
                     OK);
    assert_int_equal(jwt_verify(&claims, buffer_bytes(&token), NULL, jwks, NOW_MS), OK);
    assert_string_equal(claims.device_key, "");
    jwks_release(jwks);
}

static void any_changed_byte_is_refused(void **state)
{
    (void)state;
    struct jwks *jwks = vector_keys();
    struct jwt_signer signer = signer_of(1);
    uint8_t memory[4096];
    uint8_t own[1024];
    struct buffer out = buffer_of(own, sizeof own);
    const json_t *tokens = json_object_get(vectors, "tokens");
    struct bytes cases[] = {
        sign_local(&out, &signer, NOW_MS + 1000), member(json_array_get(tokens, 0), "token"),
        member(json_array_get(tokens, 2), "token"), member(json_array_get(tokens, 3), "token")};

    for (size_t c = 0; c < COUNT_OF(cases); c++) {
        struct jwt_claims claims;
        memcpy(memory, cases[c].data, cases[c].size);
        for (size_t i = 0; i < cases[c].size; i++)
            for (uint8_t bit = 1; bit < 0x80; bit = (uint8_t)(bit << 1)) {
                memory[i] ^= bit;
                struct bytes token = bytes_of(memory, cases[c].size);
                assert_int_not_equal(jwt_verify(&claims, token, &signer, jwks, NOW_MS), OK);
                memory[i] ^= bit;
            }
        for (size_t size = 0; size < cases[c].size; size++) {
            struct bytes token = bytes_of(memory, size);
            assert_int_not_equal(jwt_verify(&claims, token, &signer, jwks, NOW_MS), OK);
        }
        assert_int_equal(jwt_verify(&claims, cases[c], &signer, jwks, NOW_MS), OK);
    }
    jwks_release(jwks);
}

static void failing_allocations(void **state)
{
    (void)state;
    struct bytes text = member(vectors, "jwks");
    struct jwks *jwks = NULL;
    const char *explanation;
    int64_t before = memory_bytes(MEMORY_API);
    uint64_t n = 0;
    enum err err;

    do {
        memory_fail_at(++n);
        err = jwks_create(&jwks, text, "https://id.example", "roost", &explanation);
        memory_fail_at(0);
        if (err != OK)
            assert_int_equal(memory_bytes(MEMORY_API), before);
    } while (err != OK && n < 1000);
    assert_in_range(n, 10, 999);

    struct bytes token = member(json_array_get(json_object_get(vectors, "tokens"), 0), "token");
    struct jwt_claims claims;
    before = memory_bytes(MEMORY_API);
    n = 0;
    do {
        memory_fail_at(++n);
        err = jwt_verify(&claims, token, NULL, jwks, NOW_MS);
        memory_fail_at(0);
        assert_int_equal(memory_bytes(MEMORY_API), before);
    } while (err != OK && n < 1000);
    assert_in_range(n, 10, 999);
    jwks_release(jwks);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_of_another_implementation),
        cmocka_unit_test(key_sets),
        cmocka_unit_test(key_sets_need_issuer_and_audience),
        cmocka_unit_test(other_issuer_and_audience_are_denied),
        cmocka_unit_test(local_tokens),
        cmocka_unit_test(local_claims_are_checked),
        cmocka_unit_test(tokens_have_a_longest),
        cmocka_unit_test(local_tokens_need_user_and_device),
        cmocka_unit_test(no_room_appends_nothing),
        cmocka_unit_test(external_tokens),
        cmocka_unit_test(any_changed_byte_is_refused),
        cmocka_unit_test(failing_allocations),
    };
    json_text_init(1);
    vectors = json_load_file("tests/unit/jwt_vectors.json", 0, NULL);
    if (vectors == NULL) {
        print_error("tests/unit/jwt_vectors.json: run this from the repository's root\n");
        return 1;
    }
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    json_decref(vectors);
    return failed;
}
