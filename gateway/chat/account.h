/* account.h: users, devices, logins: rows of the catalog and the rules on them. All functions run
 * inside catalog transactions, on worker threads; no I/O of their own, no clock (time is an
 * argument).
 * Flow:       api/auth (passwords, refresh), flow's hello (tokens) → here → catalog
 * Owns:       the rows of CATALOG_USERS, _USER_NAMES, _DEVICES, _DEVICE_KEYS (account_rows.h)
 * Invariants: a name belongs to one user of its realm, made here with a password or by an
 *             operator's token, never both: an operator's token for a name that has a password is
 *             refused, so that nobody can register a name of an operator's user first and share it;
 *             device numbers of a user are never given twice
 * Failure:    ERR_EXISTS name taken, ERR_NOT_FOUND, ERR_DENIED wrong or revoked, ERR_EXPIRED,
 *             ERR_FULL devices_max, ERR_INVALID name; ERR_CORRUPT, ERR_NEWER from rows. Except for
 *             ERR_CONFLICT of account_refresh, a function that fails has written nothing
 * Bounds:     names 1 … 64 bytes of [a-z0-9._-] after lower-casing for registration here; names
 *             from operators' tokens up to JWT_NAME_BYTES_MAX bytes of UTF-8 without control
 *             characters; devices_max per user */
#ifndef GATEWAY_CHAT_ACCOUNT_H
#define GATEWAY_CHAT_ACCOUNT_H

#include "gateway/wire/jwt.h"
#include "store/catalog.h"

#define REFRESH_TOKEN_BYTES     32
#define REFRESH_WIRE_BYTES      (REFRESH_TOKEN_BYTES + 12) /* user id, device number, secret */
#define ACCOUNT_NAME_BYTES_MAX  64
#define ACCOUNT_HASH_TEXT_BYTES 256

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

/* account_name_local: name lower-cased into out; ERR_INVALID unless it is then one that
 * registration here allows. */
MUST_USE enum err account_name_local(char out[ACCOUNT_NAME_BYTES_MAX + 1], struct bytes name);

/* account_create: password_hash is argon2's encoded string, or "" for users of an operator's
 * system. random_user: 8 random bytes. */
MUST_USE enum err account_create(struct catalog_txn *txn, struct user_id *user,
                                 struct realm_id realm, const char *name, const char *password_hash,
                                 const uint8_t random_user[8], uint64_t now_ms);
MUST_USE enum err account_find(struct catalog_txn *txn, struct user_id *user, struct realm_id realm,
                               const char *name);
/* account_name: of a user, with its realm. ERR_NOT_FOUND. */
MUST_USE enum err account_name(struct catalog_txn *txn, struct realm_id *realm,
                               char name[JWT_NAME_BYTES_MAX + 1], struct user_id user);
/* account_devices: numbers of the user's devices that are not logged out. ERR_FULL: more than
 * capacity. */
MUST_USE enum err account_devices(struct catalog_txn *txn, struct user_id user,
                                  struct device_id *devices, size_t capacity, uint32_t *count);
/* account_password_hash: for the HASH worker to verify against; ERR_NOT_FOUND: hash something
 * anyway, so that the time tells nothing. */
MUST_USE enum err account_password_hash(struct catalog_txn *txn, struct realm_id realm,
                                        const char *name, struct user_id *user,
                                        char out[ACCOUNT_HASH_TEXT_BYTES]);
/* account_password_replace: the hash `old` by another one of the same password. OK also where it is
 * no longer there: somebody else was faster. */
MUST_USE enum err account_password_replace(struct catalog_txn *txn, struct user_id user,
                                           const char *old, const char *new);
/* ended_login: of a device; device 0: none ended. */
struct ended_login {
    struct device_id device;
    uint64_t generation; /* this one and those before */
};
/* account_login: after the password was right: find or make the device of that key, raise its
 * generation, set its refresh token. devices_max devices are logged in: with `replaced` the one
 * that was used longest ago is logged out (the caller closes its session after the commit), with
 * NULL ERR_FULL. */
MUST_USE enum err account_login(struct catalog_txn *txn, struct identity *out,
                                struct ended_login *replaced, struct user_id user,
                                const char *device_key,
                                const uint8_t refresh_token[REFRESH_TOKEN_BYTES],
                                const struct account_policy *policy, uint64_t now_ms);
/* account_refresh: exchange a refresh token, once; a second use of the same revokes the device
 * (theft): ERR_CONFLICT: commit the transaction and close the session of out's user and device.
 * new_token comes in random; its first half is set to the old one's, by which tokens of one login
 * are known for ever. */
MUST_USE enum err account_refresh(struct catalog_txn *txn, struct identity *out,
                                  const uint8_t old_token[REFRESH_WIRE_BYTES],
                                  uint8_t new_token[REFRESH_TOKEN_BYTES],
                                  const struct account_policy *policy, uint64_t now_ms);
/* account_logout: the device's login ends; *generation: it and those before it. token_expires_ms:
 * of the operator's token that asked, 0 for a local one: operators' tokens up to this expiry are
 * refused for this device from now on. */
MUST_USE enum err account_logout(struct catalog_txn *txn, struct user_id user,
                                 struct device_id device, uint64_t token_expires_ms,
                                 uint64_t *generation);

/* account_refresh_encode, _decode: a refresh token's bytes on the wire. */
void account_refresh_encode(uint8_t out[REFRESH_WIRE_BYTES], struct user_id user,
                            struct device_id device, const uint8_t secret[REFRESH_TOKEN_BYTES]);
void account_refresh_decode(struct user_id *user, struct device_id *device,
                            const uint8_t token[REFRESH_WIRE_BYTES]);

/* account_authenticate: verified claims (+ hello's device key) → identity. For local tokens: the
 * device's generation must still hold. For operators': look the user and device up; ERR_AGAIN: one
 * of them must be made, or its last use noted (rarely): call again with write = true in a write
 * transaction. */
MUST_USE enum err account_authenticate(struct catalog_txn *txn, struct identity *out,
                                       const struct jwt_claims *claims, const char *device_key,
                                       const struct account_policy *policy, bool write,
                                       const uint8_t random_user[8], uint64_t now_ms);

#endif
