/* account_rows.h: the catalog's rows of accounts: users, their names, their devices and the keys
 * that name these; read, checked and written one by one. No rules: those are account.c's.
 * Flow:       account.c → here → catalog
 * Owns:       nothing; what a row borrows ends with the transaction or its next write
 * Failure:    ERR_NOT_FOUND; ERR_CORRUPT, ERR_NEWER; what the catalog says
 * Bounds:     rows up to 403 bytes, on the stack
 * Format:     byte by byte in account_rows.c */
#ifndef GATEWAY_CHAT_ACCOUNT_ROWS_H
#define GATEWAY_CHAT_ACCOUNT_ROWS_H

#include "gateway/chat/account.h"

#include <openssl/sha.h>

#define DEVICE_LOGGED_OUT     1
#define ACCOUNT_KEY_BYTES_MAX (8 + JWT_NAME_BYTES_MAX)

struct user_row {
    struct realm_id realm;
    uint64_t created_ms;
    uint32_t device_last;
    struct bytes hash; /* borrowed from the transaction or the caller */
    struct bytes name;
};

struct device_row {
    uint8_t flags;
    uint64_t generation;
    uint64_t used_ms;
    uint64_t refresh_expires_ms;
    uint64_t refused_until_ms;
    uint8_t family_hash[SHA256_DIGEST_LENGTH];
    uint8_t token_hash[SHA256_DIGEST_LENGTH];
    uint8_t key_size;
    char key[JWT_NAME_BYTES_MAX];
};

struct account_key {
    uint8_t data[ACCOUNT_KEY_BYTES_MAX];
    size_t size;
};

struct bytes account_key_bytes(const struct account_key *key);
/* account_key_user: also the prefix of all keys of the user's devices. */
struct account_key account_key_user(struct user_id user);

MUST_USE enum err user_row_get(struct catalog_txn *txn, struct user_row *out, struct user_id user);
MUST_USE enum err user_row_put(struct catalog_txn *txn, struct user_id user,
                               const struct user_row *row);
/* name_row: which user has the name. */
MUST_USE enum err name_row_get(struct catalog_txn *txn, struct user_id *out, struct realm_id realm,
                               const char *name);
MUST_USE enum err name_row_put(struct catalog_txn *txn, struct realm_id realm, const char *name,
                               struct user_id user);

/* device_row_decode: a value of CATALOG_DEVICES. */
MUST_USE enum err device_row_decode(struct device_row *out, struct bytes value);
MUST_USE enum err device_row_get(struct catalog_txn *txn, struct device_row *out,
                                 struct user_id user, struct device_id device);
MUST_USE enum err device_row_put(struct catalog_txn *txn, struct user_id user,
                                 struct device_id device, const struct device_row *row);
/* device_row_delete: its row and that of its key. */
MUST_USE enum err device_row_delete(struct catalog_txn *txn, struct user_id user,
                                    struct device_id device, struct bytes device_key);
/* device_key_row: which device of the user has the key. */
MUST_USE enum err device_key_row_get(struct catalog_txn *txn, struct device_id *out,
                                     struct user_id user, struct bytes device_key);
MUST_USE enum err device_key_row_put(struct catalog_txn *txn, struct user_id user,
                                     struct bytes device_key, struct device_id device);

#endif
