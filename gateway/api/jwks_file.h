/* jwks_file.h: the operator's public keys from the file that [auth] jwks names, at start and on
 * SIGHUP.
 * Owns:       the new struct jwks is the caller's (jwks_release)
 * Failure:    as file.h and jwks_create; *explanation is "FILE: what is wrong and what to do"
 * Bounds:     a file of at most 1 MiB; blocks: never on a shard's turn */
#ifndef GATEWAY_API_JWKS_FILE_H
#define GATEWAY_API_JWKS_FILE_H

#include "gateway/config.h"
#include "gateway/wire/jwt.h"

/* jwks_file_load: OK with *jwks NULL where config names no file. On failure *jwks is unchanged, so
 * that a reload keeps the keys it had. */
MUST_USE enum err jwks_file_load(struct jwks **jwks, const struct config *config, char *explanation,
                                 size_t explanation_size);

#endif
