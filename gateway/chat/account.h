/* account.h: users, devices, logins: rows of the catalog and the rules on them. All functions run
 * inside catalog transactions, on worker threads; no I/O of their own, no clock (time is an
 * argument). Owns:       the row formats of CATALOG_USERS, _USER_NAMES, _DEVICES, _DEVICE_KEYS
 * (byte by byte in account.c) Failure:    ERR_EXISTS name taken, ERR_NOT_FOUND, ERR_DENIED wrong or
 * revoked, ERR_EXPIRED, ERR_FULL devices_max, ERR_INVALID name Bounds:     names 1 … 64 bytes of
 * [a-z0-9._-] after lower-casing for registration here; names from operators' tokens up to
 *             JWT_NAME_BYTES_MAX bytes of UTF-8 without control characters; devices_max per user */
#ifndef GATEWAY_CHAT_ACCOUNT_H
#define GATEWAY_CHAT_ACCOUNT_H

#include "gateway/wire/jwt.h"
#include "store/catalog.h"

#define REFRESH_TOKEN_BYTES 32

struct identity {
    struct realm_id realm;
    struct user_id user;
    struct device_id device;
    uint64_t generation; /* of the device's login */
    uint64_t token_expires_ms;
    char name[JWT_NAME_BYTES_MAX + 1];
};

struct account_policy {
    uint32_t devices_max;
    bool create_on_first_sight; /* users of operators' tokens */
    uint64_t refresh_lifetime_ms;
};

/* account_create: password_hash is argon2's encoded string, or "" for users of an operator's
 * system. random_user: 8 random bytes. */
MUST_USE enum err account_create(struct catalog_txn *txn, struct user_id *user,
                                 struct realm_id realm, const char *name, const char *password_hash,
                                 const uint8_t random_user[8], uint64_t now_ms);
MUST_USE enum err account_find(struct catalog_txn *txn, struct user_id *user, struct realm_id realm,
                               const char *name);
/* account_password_hash: for the HASH worker to verify against; ERR_NOT_FOUND: hash something
 * anyway, so that the time tells nothing. */
MUST_USE enum err account_password_hash(struct catalog_txn *txn, struct realm_id realm,
                                        const char *name, struct user_id *user, char out[256]);
/* account_login: after the password was right: find or make the device of that key, raise its
 * generation, set its refresh token. */
MUST_USE enum err account_login(struct catalog_txn *txn, struct identity *out, struct user_id user,
                                const char *device_key,
                                const uint8_t refresh_token[REFRESH_TOKEN_BYTES],
                                const struct account_policy *policy, uint64_t now_ms);
/* account_refresh: exchange a refresh token, once; a second use of the same revokes the device
 * (theft). */
MUST_USE enum err account_refresh(struct catalog_txn *txn, struct identity *out,
                                  const uint8_t old_token[REFRESH_TOKEN_BYTES + 12],
                                  const uint8_t new_token[REFRESH_TOKEN_BYTES],
                                  const struct account_policy *policy, uint64_t now_ms);
MUST_USE enum err account_logout(struct catalog_txn *txn, struct user_id user,
                                 struct device_id device);

/* account_authenticate: verified claims (+ hello's device key) → identity. For local tokens: the
 * device's generation must still hold. For operators': look the user and device up; ERR_AGAIN: one
 * of them must be made: call again with write = true in a write transaction. */
MUST_USE enum err account_authenticate(struct catalog_txn *txn, struct identity *out,
                                       const struct jwt_claims *claims, const char *device_key,
                                       const struct account_policy *policy, bool write,
                                       const uint8_t random_user[8], uint64_t now_ms);

#endif
