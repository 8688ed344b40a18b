/* jwt.h: JSON Web Tokens: the gateway's own access tokens signed and verified, operators' tokens
 * verified by a JWKS.
 * Owns:       a struct jwks is immutable and shared by all threads, counted references
 * Failure:    ERR_INVALID malformed or an algorithm not on the list; ERR_DENIED signature, issuer
 *             or audience; ERR_EXPIRED exp or nbf; jwt_explain-free by intent: the peer learns only
 *             the kind
 * Bounds:     tokens up to 8 KiB
 * Standard:   JWS RFC 7515, JWK RFC 7517, JWT RFC 7519, JWA RFC 7518, EdDSA RFC 8037, BCP RFC 8725.
 *             Accepted: EdDSA (Ed25519), ES256, RS256 (2048 bit or more) by key id; "none" and HMAC
 *             never for operators' keys; the key decides the algorithm, not the token */
#ifndef GATEWAY_WIRE_JWT_H
#define GATEWAY_WIRE_JWT_H

#include "store/ids.h"

#define JWT_BYTES_MAX      8192
#define JWT_KEY_BYTES      32
#define JWT_NAME_BYTES_MAX 128

struct jwks;

/* jwks_create: from a JWK Set's JSON. On failure *explanation names the key and the fault. */
MUST_USE enum err jwks_create(struct jwks **jwks, struct bytes json, const char *issuer,
                              const char *audience, const char **explanation);
void jwks_retain(struct jwks *jwks);
void jwks_release(struct jwks *jwks);
size_t jwks_count(const struct jwks *jwks);

/* jwt_claims: what the gateway uses. Names are copied in. */
struct jwt_claims {
    bool local;                           /* signed by this gateway */
    char subject[JWT_NAME_BYTES_MAX + 1]; /* operator's tokens: the user's name in their system */
    char device_key[JWT_NAME_BYTES_MAX + 1]; /* claim "device", "" if absent */
    struct realm_id realm;                   /* claim "realm" */
    struct user_id user;                     /* local tokens */
    struct device_id device;                 /* local tokens */
    uint64_t generation; /* local tokens: the device's login generation: revocation compares it */
    uint64_t expires_ms;
};

/* The gateway's own tokens: Ed25519 key pair from a 32-byte secret of the store. */
struct jwt_signer {
    uint8_t private_key[64];
    uint8_t public_key[32];
};
void jwt_signer_init(struct jwt_signer *signer, const uint8_t secret[JWT_KEY_BYTES]);
MUST_USE enum err jwt_sign(struct buffer *out, const struct jwt_signer *signer,
                           const struct jwt_claims *claims, uint64_t now_ms);
/* jwt_verify: local first by key id, then jwks (NULL: only local). Costs one signature check: call
 * it on a worker. */
MUST_USE enum err jwt_verify(struct jwt_claims *claims, struct bytes token,
                             const struct jwt_signer *signer, const struct jwks *jwks,
                             uint64_t now_ms);

/* jwt_sign_external: what an operator's identity system does, for the load generator, tests and
 * demos: EdDSA with key id `kid`. */
MUST_USE enum err jwt_sign_external(struct buffer *out, const struct jwt_signer *signer,
                                    const char *kid, const char *issuer, const char *audience,
                                    const char *subject, const char *device_key, uint64_t now_ms,
                                    uint64_t lifetime_ms);
/* jwks_encode: the public half as a JWK Set, for the same. */
MUST_USE enum err jwks_encode(struct buffer *out, const struct jwt_signer *signer, const char *kid);

#endif
