/* jwks.c: a JWK Set (RFC 7517) of an operator's public keys, loaded strictly, and signatures by it.
 *
 * Taken:   kty OKP crv Ed25519 (RFC 8037), kty EC crv P-256, kty RSA of 2048 … 8192 bits with an
 * odd exponent of 3 … 2^32-1; a kid of 1 … 128 bytes or none Ignored: keys for another use than
 * signatures, of types, curves and algorithms not on the list, as RFC 7517 5 asks; a set in which
 * nothing is left is refused Refused: the whole set, when a key holds a secret (kty oct, member d),
 * is malformed or too weak, or when two share a key id */
#include "gateway/wire/jwks.h"

#include "core/memory.h"
#include "core/text.h"
#include "gateway/wire/json_text.h"

#include <openssl/bn.h>
#include <openssl/curve25519.h>
#include <openssl/ec_key.h>
#include <openssl/ecdsa.h>
#include <openssl/nid.h>
#include <openssl/rsa.h>
#include <openssl/sha.h>
#include <stdio.h>

enum { KEYS_MAX = 64, TEXT_BYTES = 1024, RSA_BITS_MIN = 2048, RSA_BITS_MAX = 8192 };

struct key {
    char kid[JWT_NAME_BYTES_MAX + 1];
    size_t kid_size; /* 0: has none */
    enum jwt_algorithm algorithm;
    uint8_t ed25519[32];
    EC_KEY *ec;
    RSA *rsa;
};

struct jwks {
    uint32_t references;
    char issuer[TEXT_BYTES];
    char audience[TEXT_BYTES];
    size_t count;
    struct key keys[KEYS_MAX];
};

/* The one mutable file-scope variable: jwks_create promises an explanation that names the key, and
 * gives nobody to own its memory. Start-up and reload are the only callers, on one thread. */
static char explained[192];

/* ---- loading */

static enum err fault(const char **explanation, size_t index, const struct key *key,
                      const char *text)
{
    (void)snprintf(explained, sizeof explained, "key %zu%s%.64s%s: %s", index + 1,
                   key->kid_size != 0 ? " \"" : "", key->kid, key->kid_size != 0 ? "\"" : "", text);
    *explanation = explained;
    return ERR_INVALID;
}

/* take_number: a member that is base64url of at most room bytes. */
static enum err take_number(struct buffer *out, const json_t *jwk, const char *name)
{
    struct bytes text = json_text_member(jwk, name);
    TRY(base64url_decode(out, text));
    return out->size == 0 ? ERR_INVALID : OK;
}

static const char *load_ed25519(struct key *key, const json_t *jwk)
{
    struct buffer x = buffer_of(key->ed25519, sizeof key->ed25519);

    key->algorithm = JWT_EDDSA;
    if (take_number(&x, jwk, "x") != OK || x.size != sizeof key->ed25519)
        return "x must be 32 bytes of base64url";
    return NULL;
}

static const char *load_ec(struct key *key, const json_t *jwk)
{
    uint8_t memory[2][32];
    struct buffer x = buffer_of(memory[0], 32);
    struct buffer y = buffer_of(memory[1], 32);

    key->algorithm = JWT_ES256;
    if (take_number(&x, jwk, "x") != OK || x.size != 32 || take_number(&y, jwk, "y") != OK ||
        y.size != 32)
        return "x and y must be 32 bytes of base64url each";
    BIGNUM *bx = BN_bin2bn(x.data, x.size, NULL);
    BIGNUM *by = BN_bin2bn(y.data, y.size, NULL);
    key->ec = EC_KEY_new_by_curve_name(NID_X9_62_prime256v1);
    bool good = bx != NULL && by != NULL && key->ec != NULL &&
                EC_KEY_set_public_key_affine_coordinates(key->ec, bx, by) == 1;
    BN_free(bx);
    BN_free(by);
    return good ? NULL : "x and y are no point of P-256";
}

static const char *load_rsa(struct key *key, const json_t *jwk)
{
    uint8_t memory_n[RSA_BITS_MAX / 8 + 1];
    uint8_t memory_e[4];
    struct buffer n = buffer_of(memory_n, sizeof memory_n);
    struct buffer e = buffer_of(memory_e, sizeof memory_e);

    key->algorithm = JWT_RS256;
    if (take_number(&e, jwk, "e") != OK || (e.data[e.size - 1] & 1) == 0 ||
        (e.size == 1 && e.data[0] < 3))
        return "e must be an odd number of 3 to 2^32-1 in base64url";
    if (take_number(&n, jwk, "n") != OK || (n.data[n.size - 1] & 1) == 0)
        return "n must be an odd number of at most 8192 bits in base64url";
    BIGNUM *bn = BN_bin2bn(n.data, n.size, NULL);
    BIGNUM *be = BN_bin2bn(e.data, e.size, NULL);
    unsigned bits = bn == NULL ? 0 : BN_num_bits(bn);
    key->rsa = RSA_new();
    if (be == NULL || key->rsa == NULL || bits < RSA_BITS_MIN || bits > RSA_BITS_MAX ||
        RSA_set0_key(key->rsa, bn, be, NULL) != 1) {
        BN_free(bn);
        BN_free(be);
        return bits < RSA_BITS_MIN ? "an RSA key needs at least 2048 bits"
                                   : "an RSA key may have at most 8192 bits";
    }
    return NULL;
}

static void key_deinit(struct key *key)
{
    EC_KEY_free(key->ec);
    RSA_free(key->rsa);
}

static bool is(struct bytes text, const char *constant)
{
    return bytes_equal(text, bytes_of_text(constant));
}

/* for_signatures: use, key_ops and alg, where present, leave the key to verify `algorithm` with. */
static bool for_signatures(const json_t *jwk, const char *algorithm)
{
    const json_t *ops = json_object_get(jwk, "key_ops");
    bool verifies = ops == NULL;

    for (size_t i = 0; i < json_array_size(ops); i++) {
        const json_t *op = json_array_get(ops, i);
        verifies |= json_is_string(op) && strcmp(json_string_value(op), "verify") == 0;
    }
    return verifies &&
           (json_object_get(jwk, "use") == NULL || is(json_text_member(jwk, "use"), "sig")) &&
           (json_object_get(jwk, "alg") == NULL || is(json_text_member(jwk, "alg"), algorithm));
}

/* load: one key. *loaded false: not for us. Returns what is wrong, or NULL. */
static const char *load(struct key *key, bool *loaded, const json_t *jwk)
{
    struct bytes type = json_text_member(jwk, "kty");
    struct bytes curve = json_text_member(jwk, "crv");
    const char *(*loader)(struct key *, const json_t *) = NULL;
    const char *algorithm = "";

    if (type.size == 0)
        return "no kty";
    if (is(type, "oct") || json_object_get(jwk, "d") != NULL || json_object_get(jwk, "k") != NULL)
        return "this is a secret key; only public keys belong here";
    if (is(type, "OKP") && is(curve, "Ed25519")) {
        loader = load_ed25519;
        algorithm = "EdDSA";
    } else if (is(type, "EC") && is(curve, "P-256")) {
        loader = load_ec;
        algorithm = "ES256";
    } else if (is(type, "RSA")) {
        loader = load_rsa;
        algorithm = "RS256";
    }
    *loaded = loader != NULL && for_signatures(jwk, algorithm);
    return *loaded ? loader(key, jwk) : NULL;
}

static const char *load_kid(struct key *key, const json_t *jwk)
{
    struct bytes kid = json_text_member(jwk, "kid");

    if (json_object_get(jwk, "kid") == NULL)
        return NULL;
    if (kid.size == 0 || kid.size > JWT_NAME_BYTES_MAX)
        return "kid must be text of 1 to 128 bytes";
    for (size_t i = 0; i < kid.size; i++)
        if (kid.data[i] < 0x20)
            return "kid holds control characters";
    if (is(kid, JWT_LOCAL_KID))
        return "this kid is reserved for the gateway's own tokens";
    memcpy(key->kid, kid.data, kid.size);
    key->kid_size = kid.size;
    return NULL;
}

static bool kid_taken(const struct jwks *jwks, const struct key *key)
{
    for (size_t i = 0; key->kid_size != 0 && i < jwks->count; i++)
        if (bytes_equal(bytes_of(jwks->keys[i].kid, jwks->keys[i].kid_size),
                        bytes_of(key->kid, key->kid_size)))
            return true;
    return false;
}

static enum err load_all(struct jwks *jwks, const json_t *root, const char **explanation)
{
    const json_t *list = json_object_get(root, "keys");

    *explanation = "a JWK Set needs an array \"keys\"";
    if (!json_is_array(list))
        return ERR_INVALID;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *jwk = json_array_get(list, i);
        struct key key = {.kid_size = 0};
        bool loaded = false;
        const char *wrong = json_is_object(jwk) ? load_kid(&key, jwk) : "not an object";
        if (wrong == NULL)
            wrong = load(&key, &loaded, jwk);
        if (wrong == NULL && loaded && kid_taken(jwks, &key))
            wrong = "another key has the same kid";
        if (wrong == NULL && loaded && jwks->count == KEYS_MAX)
            wrong = "more than 64 keys";
        if (wrong != NULL) {
            key_deinit(&key);
            return fault(explanation, i, &key, wrong);
        }
        if (loaded)
            jwks->keys[jwks->count++] = key;
    }
    *explanation = "no key in the set is one of Ed25519, P-256 or RSA for signatures";
    return jwks->count == 0 ? ERR_INVALID : OK;
}

static bool copy_text(char out[TEXT_BYTES], const char *text)
{
    if (text == NULL || text[0] == '\0' || strlen(text) >= TEXT_BYTES)
        return false;
    memcpy(out, text, strlen(text) + 1);
    return true;
}

enum err jwks_create(struct jwks **out, struct bytes json, const char *issuer, const char *audience,
                     const char **explanation)
{
    json_t *root;
    struct jwks *jwks = memory_take_zeroed(sizeof *jwks, MEMORY_API);

    *explanation = "out of memory";
    if (jwks == NULL)
        return ERR_NO_MEMORY;
    jwks->references = 1;
    enum err err = ERR_INVALID;
    *explanation = "a key set needs the issuer and the audience that its tokens must name";
    if (!copy_text(jwks->issuer, issuer) || !copy_text(jwks->audience, audience))
        goto fail_create;
    err = json_text_parse(&root, json);
    *explanation = "not a JSON object";
    if (err != OK)
        goto fail_create;
    err = load_all(jwks, root, explanation);
    json_decref(root);
    if (err != OK)
        goto fail_create;
    *explanation = "";
    *out = jwks;
    return OK;

fail_create:
    jwks_release(jwks);
    return err;
}

void jwks_retain(struct jwks *jwks)
{
    __atomic_add_fetch(&jwks->references, 1, __ATOMIC_RELAXED);
}

void jwks_release(struct jwks *jwks)
{
    if (jwks == NULL || __atomic_sub_fetch(&jwks->references, 1, __ATOMIC_ACQ_REL) != 0)
        return;
    for (size_t i = 0; i < jwks->count; i++)
        key_deinit(&jwks->keys[i]);
    memory_give(jwks, MEMORY_API);
}

size_t jwks_count(const struct jwks *jwks)
{
    return jwks->count;
}

const char *jwks_issuer(const struct jwks *jwks)
{
    return jwks->issuer;
}

const char *jwks_audience(const struct jwks *jwks)
{
    return jwks->audience;
}

/* ---- signatures */

/* verify_es256: r and s, 32 bytes each (RFC 7518 3.4). */
static bool verify_es256(const EC_KEY *ec, struct bytes text, struct bytes signature)
{
    uint8_t digest[SHA256_DIGEST_LENGTH];
    ECDSA_SIG *sig = ECDSA_SIG_new();

    if (sig == NULL || signature.size != 64) {
        ECDSA_SIG_free(sig);
        return false;
    }
    BIGNUM *r = BN_bin2bn(signature.data, 32, NULL);
    BIGNUM *s = BN_bin2bn(signature.data + 32, 32, NULL);
    bool good = false;
    if (r != NULL && s != NULL && ECDSA_SIG_set0(sig, r, s) == 1) {
        SHA256(text.data, text.size, digest);
        good = ECDSA_do_verify(digest, sizeof digest, sig, ec) == 1;
    } else {
        BN_free(r);
        BN_free(s);
    }
    ECDSA_SIG_free(sig);
    return good;
}

static bool verify(const struct key *key, struct bytes text, struct bytes signature)
{
    uint8_t digest[SHA256_DIGEST_LENGTH];

    switch (key->algorithm) {
    case JWT_EDDSA:
        return signature.size == ED25519_SIGNATURE_LEN &&
               ED25519_verify(text.data, text.size, signature.data, key->ed25519) == 1;
    case JWT_ES256:
        return verify_es256(key->ec, text, signature);
    case JWT_RS256:
        SHA256(text.data, text.size, digest);
        return RSA_verify(NID_sha256, digest, sizeof digest, signature.data, signature.size,
                          key->rsa) == 1;
    }
    return false;
}

enum err jwks_verify(const struct jwks *jwks, enum jwt_algorithm algorithm, bool has_kid,
                     struct bytes kid, struct bytes signed_text, struct bytes signature)
{
    const struct key *found = NULL;

    for (size_t i = 0; i < jwks->count; i++) {
        const struct key *key = &jwks->keys[i];
        if (has_kid && !bytes_equal(kid, bytes_of(key->kid, key->kid_size)))
            continue;
        if (!has_kid && key->algorithm != algorithm)
            continue;
        if (found != NULL) /* without a key id only where there is no choice */
            return ERR_DENIED;
        found = key;
    }
    if (found == NULL || found->algorithm != algorithm)
        return ERR_DENIED;
    return verify(found, signed_text, signature) ? OK : ERR_DENIED;
}
