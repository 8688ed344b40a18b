/* jwt.c: compact JWS (RFC 7515 3.1) with JWT claims (RFC 7519), made and verified.
 *
 * Token:   base64url(header) "." base64url(claims) "." base64url(signature), nothing else
 * Header:  alg EdDSA, ES256 or RS256; kid; typ absent, "JWT" or "at+jwt"; any crit is refused
 * Local:   kid "roost", EdDSA by the store's key; claims sub (user id, decimal text), dev, gen,
 * realm (0: absent), iat, exp. The key signs nothing else, so no issuer or audience is needed
 * Operators': kid of the JWK Set; claims iss, aud (text, or a list that holds it), sub, exp, and
 *          optionally nbf, device (text), realm. exp and nbf are seconds, fractions allowed, with
 *          60 s of leeway, because the clock is another machine's
 * The signature is checked before a claim is looked at. */
#include "gateway/wire/jwt.h"

#include "core/text.h"
#include "gateway/wire/json_text.h"
#include "gateway/wire/jwks.h"

#include <openssl/curve25519.h>

enum { LEEWAY_MS = 60000, JSON_BYTES = 4096 };
#define SECONDS_MAX ((1ull << 53) / 1000)

/* ---- sign */

void jwt_signer_init(struct jwt_signer *signer, const uint8_t secret[JWT_KEY_BYTES])
{
    ED25519_keypair_from_seed(signer->public_key, signer->private_key, secret);
}

static enum err put(struct buffer *out, const char *text)
{
    return buffer_append(out, bytes_of_text(text));
}

/* put_text, put_number: a further member. */
static enum err put_text(struct buffer *out, const char *name, const char *text)
{
    TRY(put(out, name));
    return json_text_put(out, bytes_of_text(text));
}

static enum err put_number(struct buffer *out, const char *name, uint64_t number)
{
    TRY(put(out, name));
    return json_text_put_number(out, number);
}

/* sign: header and claims are complete JSON; start is where the token begins in out. */
static enum err sign(struct buffer *out, const struct jwt_signer *signer, const char *kid,
                     struct bytes claims)
{
    uint8_t memory[JSON_BYTES];
    uint8_t signature[ED25519_SIGNATURE_LEN];
    struct buffer header = buffer_of(memory, sizeof memory);
    size_t start = out->size;

    TRY(put_text(&header, "{\"alg\":\"EdDSA\",\"typ\":\"JWT\",\"kid\":", kid));
    TRY(put(&header, "}"));
    TRY(base64url_encode(out, buffer_bytes(&header)));
    TRY(put(out, "."));
    TRY(base64url_encode(out, claims));
    if (ED25519_sign(signature, out->data + start, out->size - start, signer->private_key) != 1)
        return ERR_NO_MEMORY;
    TRY(put(out, "."));
    TRY(base64url_encode(out, bytes_of(signature, sizeof signature)));
    return out->size - start <= JWT_BYTES_MAX ? OK : ERR_TOO_BIG;
}

static enum err put_local(struct buffer *json, const struct jwt_claims *claims, uint64_t now_ms)
{
    TRY(put_number(json, "{\"sub\":\"", claims->user.v));
    TRY(put_number(json, "\",\"dev\":", claims->device.v));
    TRY(put_number(json, ",\"gen\":", claims->generation));
    if (claims->realm.v != 0)
        TRY(put_number(json, ",\"realm\":", claims->realm.v));
    TRY(put_number(json, ",\"iat\":", now_ms / 1000));
    TRY(put_number(json, ",\"exp\":", claims->expires_ms / 1000));
    return put(json, "}");
}

enum err jwt_sign(struct buffer *out, const struct jwt_signer *signer,
                  const struct jwt_claims *claims, uint64_t now_ms)
{
    uint8_t memory[JSON_BYTES];
    struct buffer json = buffer_of(memory, sizeof memory);
    size_t start = out->size;

    if (claims->user.v == 0 || claims->device.v == 0 || claims->generation > INT64_MAX ||
        claims->expires_ms / 1000 > SECONDS_MAX)
        return ERR_INVALID;
    enum err err = put_local(&json, claims, now_ms);
    if (err == OK)
        err = sign(out, signer, JWT_LOCAL_KID, buffer_bytes(&json));
    if (err != OK)
        out->size = start;
    return err;
}

static enum err put_external(struct buffer *json, const char *issuer, const char *audience,
                             const char *subject, const char *device_key, uint64_t now_ms,
                             uint64_t lifetime_ms)
{
    TRY(put_text(json, "{\"iss\":", issuer));
    TRY(put_text(json, ",\"aud\":", audience));
    TRY(put_text(json, ",\"sub\":", subject));
    if (device_key != NULL && device_key[0] != '\0')
        TRY(put_text(json, ",\"device\":", device_key));
    TRY(put_number(json, ",\"iat\":", now_ms / 1000));
    TRY(put_number(json, ",\"exp\":", (now_ms + lifetime_ms) / 1000));
    return put(json, "}");
}

enum err jwt_sign_external(struct buffer *out, const struct jwt_signer *signer, const char *kid,
                           const char *issuer, const char *audience, const char *subject,
                           const char *device_key, uint64_t now_ms, uint64_t lifetime_ms)
{
    uint8_t memory[JSON_BYTES];
    struct buffer json = buffer_of(memory, sizeof memory);
    size_t start = out->size;

    enum err err = put_external(&json, issuer, audience, subject, device_key, now_ms, lifetime_ms);
    if (err == OK)
        err = sign(out, signer, kid, buffer_bytes(&json));
    if (err != OK)
        out->size = start;
    return err;
}

static enum err put_set(struct buffer *out, const struct jwt_signer *signer, const char *kid)
{
    TRY(put_text(out,
                 "{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"use\":\"sig\",\"alg\":"
                 "\"EdDSA\",\"kid\":",
                 kid));
    TRY(put(out, ",\"x\":\""));
    TRY(base64url_encode(out, bytes_of(signer->public_key, sizeof signer->public_key)));
    return put(out, "\"}]}");
}

enum err jwks_encode(struct buffer *out, const struct jwt_signer *signer, const char *kid)
{
    size_t start = out->size;
    enum err err = put_set(out, signer, kid);

    if (err != OK)
        out->size = start;
    return err;
}

/* ---- verify */

struct parts {
    struct bytes header;
    struct bytes claims;
    struct bytes signature;
    struct bytes signed_text; /* header "." claims */
};

static enum err split(struct parts *parts, struct bytes token)
{
    if (token.size == 0 || token.size > JWT_BYTES_MAX)
        return ERR_INVALID;
    const uint8_t *first = memchr(token.data, '.', token.size);
    if (first == NULL)
        return ERR_INVALID;
    size_t header_size = (size_t)(first - token.data);
    struct bytes rest = bytes_skip(token, header_size + 1);
    const uint8_t *second = rest.size == 0 ? NULL : memchr(rest.data, '.', rest.size);
    if (second == NULL)
        return ERR_INVALID;
    size_t claims_size = (size_t)(second - rest.data);
    parts->header = bytes_of(token.data, header_size);
    parts->claims = bytes_of(rest.data, claims_size);
    parts->signature = bytes_skip(rest, claims_size + 1); /* a third dot is no base64url */
    parts->signed_text = bytes_of(token.data, header_size + 1 + claims_size);
    return OK;
}

/* parse: base64url of a JSON object. */
static enum err parse(json_t **root, struct bytes text)
{
    uint8_t memory[JWT_BYTES_MAX / 4 * 3];
    struct buffer json = buffer_of(memory, sizeof memory);

    if (base64url_decode(&json, text) != OK)
        return ERR_INVALID;
    enum err err = json_text_parse(root, buffer_bytes(&json));
    return err == ERR_TOO_BIG ? ERR_INVALID : err;
}

static bool is(struct bytes text, const char *constant)
{
    return bytes_equal(text, bytes_of_text(constant));
}

struct header {
    enum jwt_algorithm algorithm;
    bool has_kid;
    size_t kid_size;
    char kid[JWT_NAME_BYTES_MAX];
};

static enum err read_header(struct header *header, const json_t *root)
{
    struct bytes algorithm = json_text_member(root, "alg");
    struct bytes type = json_text_member(root, "typ");
    struct bytes kid = json_text_member(root, "kid");

    if (is(algorithm, "EdDSA"))
        header->algorithm = JWT_EDDSA;
    else if (is(algorithm, "ES256"))
        header->algorithm = JWT_ES256;
    else if (is(algorithm, "RS256"))
        header->algorithm = JWT_RS256;
    else
        return ERR_INVALID;
    if (json_object_get(root, "crit") != NULL)
        return ERR_INVALID;
    if (json_object_get(root, "typ") != NULL && !is(type, "JWT") && !is(type, "jwt") &&
        !is(type, "at+jwt"))
        return ERR_INVALID;
    header->has_kid = json_object_get(root, "kid") != NULL;
    if (header->has_kid && (kid.size == 0 || kid.size > sizeof header->kid))
        return ERR_INVALID;
    memcpy(header->kid, kid.data == NULL ? (const uint8_t *)"" : kid.data, kid.size);
    header->kid_size = kid.size;
    return OK;
}

/* read_number: an integer member of 0 … max. ERR_NOT_FOUND: absent. */
static enum err read_number(uint64_t *out, const json_t *root, const char *name, uint64_t max)
{
    const json_t *value = json_object_get(root, name);

    if (value == NULL)
        return ERR_NOT_FOUND;
    if (!json_is_integer(value) || json_integer_value(value) < 0 ||
        (uint64_t)json_integer_value(value) > max)
        return ERR_INVALID;
    *out = (uint64_t)json_integer_value(value);
    return OK;
}

/* read_time_ms: a NumericDate (RFC 7519 2) in milliseconds. ERR_NOT_FOUND: absent. */
static enum err read_time_ms(uint64_t *out, const json_t *root, const char *name)
{
    const json_t *value = json_object_get(root, name);

    if (json_is_real(value)) {
        double seconds = json_real_value(value);
        if (!(seconds >= 0 && seconds <= (double)SECONDS_MAX))
            return ERR_INVALID;
        *out = (uint64_t)(seconds * 1000);
        return OK;
    }
    TRY(read_number(out, root, name, SECONDS_MAX));
    *out *= 1000;
    return OK;
}

/* read_name: text of up to JWT_NAME_BYTES_MAX bytes without control characters; "" if absent. */
static enum err read_name(char out[JWT_NAME_BYTES_MAX + 1], const json_t *root, const char *name)
{
    struct bytes text = json_text_member(root, name);

    out[0] = '\0';
    if (json_object_get(root, name) == NULL)
        return OK;
    if (text.size == 0 || text.size > JWT_NAME_BYTES_MAX)
        return ERR_INVALID;
    for (size_t i = 0; i < text.size; i++)
        if (text.data[i] < 0x20 || text.data[i] == 0x7f)
            return ERR_INVALID;
    memcpy(out, text.data, text.size);
    out[text.size] = '\0';
    return OK;
}

static enum err read_realm(struct realm_id *realm, const json_t *root)
{
    uint64_t number = 0;
    enum err err = read_number(&number, root, "realm", UINT32_MAX);

    if (err != OK && err != ERR_NOT_FOUND)
        return err;
    realm->v = (uint32_t)number;
    return OK;
}

static enum err required(enum err err)
{
    return err == ERR_NOT_FOUND ? ERR_INVALID : err;
}

static enum err read_local(struct jwt_claims *claims, const json_t *root, uint64_t now_ms)
{
    uint64_t device;

    claims->local = true;
    TRY(decimal_parse(&claims->user.v, json_text_member(root, "sub")));
    TRY(required(read_number(&device, root, "dev", UINT32_MAX)));
    claims->device.v = (uint32_t)device;
    TRY(required(read_number(&claims->generation, root, "gen", INT64_MAX)));
    TRY(read_realm(&claims->realm, root));
    TRY(required(read_time_ms(&claims->expires_ms, root, "exp")));
    return now_ms < claims->expires_ms ? OK : ERR_EXPIRED;
}

/* audience_named: aud is the audience, or a list that holds it (RFC 7519 4.1.3). */
static bool audience_named(const json_t *root, const char *audience)
{
    const json_t *aud = json_object_get(root, "aud");

    if (json_is_string(aud))
        return is(json_text_member(root, "aud"), audience);
    for (size_t i = 0; json_is_array(aud) && i < json_array_size(aud); i++) {
        const json_t *one = json_array_get(aud, i);
        if (json_is_string(one) &&
            is(bytes_of(json_string_value(one), json_string_length(one)), audience))
            return true;
    }
    return false;
}

static enum err read_external(struct jwt_claims *claims, const json_t *root,
                              const struct jwks *jwks, uint64_t now_ms)
{
    uint64_t not_before_ms = 0;

    if (!is(json_text_member(root, "iss"), jwks_issuer(jwks)) ||
        !audience_named(root, jwks_audience(jwks)))
        return ERR_DENIED;
    TRY(required(read_time_ms(&claims->expires_ms, root, "exp")));
    claims->expires_ms += LEEWAY_MS;
    enum err err = read_time_ms(&not_before_ms, root, "nbf");
    if (err != OK && err != ERR_NOT_FOUND)
        return err;
    if (now_ms >= claims->expires_ms || now_ms + LEEWAY_MS < not_before_ms)
        return ERR_EXPIRED;
    TRY(read_name(claims->subject, root, "sub"));
    TRY(read_name(claims->device_key, root, "device"));
    TRY(read_realm(&claims->realm, root));
    return claims->subject[0] != '\0' ? OK : ERR_INVALID;
}

static enum err check_signature(const struct header *header, const struct parts *parts, bool local,
                                const struct jwt_signer *signer, const struct jwks *jwks)
{
    uint8_t memory[JWT_SIGNATURE_BYTES_MAX];
    struct buffer signature = buffer_of(memory, sizeof memory);

    if (base64url_decode(&signature, parts->signature) != OK)
        return ERR_INVALID;
    if (local) {
        bool good = header->algorithm == JWT_EDDSA && signature.size == ED25519_SIGNATURE_LEN &&
                    ED25519_verify(parts->signed_text.data, parts->signed_text.size, signature.data,
                                   signer->public_key) == 1;
        return good ? OK : ERR_DENIED;
    }
    if (jwks == NULL)
        return ERR_DENIED;
    return jwks_verify(jwks, header->algorithm, header->has_kid,
                       bytes_of(header->kid, header->kid_size), parts->signed_text,
                       buffer_bytes(&signature));
}

enum err jwt_verify(struct jwt_claims *claims, struct bytes token, const struct jwt_signer *signer,
                    const struct jwks *jwks, uint64_t now_ms)
{
    struct parts parts;
    struct header header;
    json_t *root;

    TRY(split(&parts, token));
    TRY(parse(&root, parts.header));
    enum err err = read_header(&header, root);
    json_decref(root);
    TRY(err);
    bool local = signer != NULL && is(bytes_of(header.kid, header.kid_size), JWT_LOCAL_KID);
    TRY(check_signature(&header, &parts, local, signer, jwks));
    TRY(parse(&root, parts.claims));
    struct jwt_claims read = {.local = false};
    err = local ? read_local(&read, root, now_ms) : read_external(&read, root, jwks, now_ms);
    json_decref(root);
    if (err == OK)
        *claims = read;
    return err;
}
