/* secrets.h: what a store must never lose and nobody else may read: keys and the store's identity,
 * in one file beside the catalog.
 * Flow:       main → secrets_load → tls (tickets), jwt (tokens), flow (placement, welcome)
 * Owns:       DIRECTORY/secrets (byte by byte in secrets.c); struct secrets is the caller's:
 *             OPENSSL_cleanse it at the end
 * Invariants: made once, on the first start; never overwritten: tokens, tickets and the placement
 *             of users depend on it
 * Failure:    ERR_CORRUPT damaged, ERR_NEWER, ERR_DENIED readable by others, ERR_BUSY another
 *             process is just making it, ERR_IO …; *explanation says what to do
 * Bounds:     blocks: start-up only */
#ifndef GATEWAY_CHAT_SECRETS_H
#define GATEWAY_CHAT_SECRETS_H

#include "core/hash.h"

struct secrets {
    uint8_t ticket[32];        /* TLS session ticket keys derive from it */
    uint8_t signing[32];       /* access tokens: jwt_signer_init */
    struct hash_key placement; /* which shard owns a user or conversation */
    uint8_t store_epoch[16];   /* UUID of this store: another one means another history */
    uint64_t created_ms;
};

/* secrets_load: read DIRECTORY/secrets, or make it from entropy where it is missing. The directory
 * exists. explanation_size bytes of explanation are written on failure. */
MUST_USE enum err secrets_load(struct secrets *secrets, const char *directory,
                               void (*entropy)(void *context, void *out, size_t size),
                               void *context, uint64_t now_ms, char *explanation,
                               size_t explanation_size);

#endif
