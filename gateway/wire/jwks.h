/* jwks.h: what jwt.c needs of a key set beside jwt.h: checking one signature.
 * Flow:       jwt_verify → here → BoringSSL
 * Owns:       nothing
 * Invariants: the key decides the algorithm: a token that names another is refused
 * Failure:    ERR_DENIED: no such key, more than one without a key id, another algorithm, a wrong
 *             signature
 * Bounds:     signatures up to JWT_SIGNATURE_BYTES_MAX bytes */
#ifndef GATEWAY_WIRE_JWKS_H
#define GATEWAY_WIRE_JWKS_H

#include "gateway/wire/jwt.h"

/* JWT_LOCAL_KID: of the gateway's own tokens; no operator's key may use it. */
#define JWT_LOCAL_KID           "roost"
#define JWT_SIGNATURE_BYTES_MAX 1024 /* RSA 8192 */

enum jwt_algorithm { JWT_EDDSA, JWT_ES256, JWT_RS256 };

/* jwks_verify: signature over signed_text by the key `kid`; has_kid false: by the only key of that
 * algorithm. */
MUST_USE enum err jwks_verify(const struct jwks *jwks, enum jwt_algorithm algorithm, bool has_kid,
                              struct bytes kid, struct bytes signed_text, struct bytes signature);
const char *jwks_issuer(const struct jwks *jwks);
const char *jwks_audience(const struct jwks *jwks);

#endif
