/* fuzz_jwt.c: any bytes as a token, as the header or claims of a token that is signed, and as a key
 * set. Nothing that the key did not sign is ever taken. */
#include "gateway/wire/jwt.h"

#include "core/text.h"

#include <openssl/curve25519.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define NOW_MS 1790000000000ull

static struct jwks *key_set(const struct jwt_signer *signer)
{
    uint8_t memory[512];
    struct buffer json = buffer_of(memory, sizeof memory);
    const char *explanation;
    struct jwks *jwks;

    CHECK(jwks_encode(&json, signer, "k") == OK);
    CHECK(jwks_create(&jwks, buffer_bytes(&json), "iss", "aud", &explanation) == OK);
    return jwks;
}

/* try_signed: header and claims under a good signature; the claims that come out are bounded. */
static void try_signed(const struct jwt_signer *signer, const struct jwks *jwks, const char *header,
                       struct bytes claims)
{
    static const size_t room = 2 * JWT_BYTES_MAX;
    uint8_t *memory = malloc(room);
    uint8_t signature[64];
    struct buffer token = buffer_of(memory, room);
    struct jwt_claims out;

    CHECK(memory != NULL);
    CHECK(base64url_encode(&token, bytes_of_text(header)) == OK);
    CHECK(buffer_put_u8(&token, '.') == OK);
    if (base64url_encode(&token, claims) == OK && token.size + 90 < room) {
        CHECK(ED25519_sign(signature, token.data, token.size, signer->private_key) == 1);
        CHECK(buffer_put_u8(&token, '.') == OK);
        CHECK(base64url_encode(&token, bytes_of(signature, sizeof signature)) == OK);
        if (jwt_verify(&out, buffer_bytes(&token), signer, jwks, NOW_MS) == OK) {
            CHECK(token.size <= JWT_BYTES_MAX);
            CHECK(out.expires_ms > NOW_MS);
            CHECK(out.local ||
                  (out.subject[0] != '\0' && strlen(out.subject) <= JWT_NAME_BYTES_MAX &&
                   utf8_valid(bytes_of_text(out.subject))));
        }
    }
    free(memory);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t secret[JWT_KEY_BYTES] = {1};
    static const uint8_t other_secret[JWT_KEY_BYTES] = {2};
    struct jwt_signer signer;
    struct jwt_signer other;
    struct jwt_claims claims;
    const char *explanation;
    struct jwks *any;

    jwt_signer_init(&signer, secret);
    jwt_signer_init(&other, other_secret);
    struct jwks *jwks = key_set(&signer);
    struct bytes input = bytes_of(data, size);
    /* signed by nobody whose key the fuzzer has: never good */
    CHECK(jwt_verify(&claims, input, &other, NULL, NOW_MS) != OK);
    try_signed(&signer, jwks, "{\"alg\":\"EdDSA\",\"kid\":\"k\"}", input);
    try_signed(&signer, jwks, "{\"alg\":\"EdDSA\",\"kid\":\"roost\"}", input);
    if (size < 1000) {
        char header[1001];
        if (size != 0)
            memcpy(header, data, size);
        header[size] = '\0';
        try_signed(
            &signer, jwks, header,
            bytes_of_text("{\"iss\":\"iss\",\"aud\":\"aud\",\"sub\":\"a\",\"exp\":1800000000}"));
    }
    if (jwks_create(&any, input, "iss", "aud", &explanation) == OK) {
        CHECK(jwks_count(any) > 0);
        CHECK(jwt_verify(&claims, bytes_of_text("e30.e30.AAAA"), NULL, any, NOW_MS) != OK);
        jwks_release(any);
    }
    jwks_release(jwks);
    return 0;
}
