/* account_rows.c: accounts as rows of the catalog.
 *
 * Keys are big-endian, so that key order is id order; values are little-endian and begin with a
 * version, now 1; a higher one is ERR_NEWER, another length than the version says ERR_CORRUPT.
 *
 * CATALOG_USERS        key: user id 8
 *   0 version 1 | 1 realm 4 | 5 created, ms since 1970 8 | 13 last device number given 4
 *   17 password hash's length 1, its text (argon2 encoded; empty: an operator's user)
 *   .. name's length 1, its UTF-8
 * CATALOG_USER_NAMES   key: realm 4, name
 *   0 version 1 | 1 user id 8
 * CATALOG_DEVICES      key: user id 8, device number 4
 *   0 version 1 | 1 flags 1 (bit 0: logged out) | 2 login generation 8
 *   10 last login, refresh or noted use, ms 8 | 18 refresh token expires, ms 8 (0: has none)
 *   26 operators' tokens are refused up to this expiry, ms 8
 *   34 SHA-256 of the refresh token's first 16 bytes 32 | 66 SHA-256 of all its 32 bytes 32
 *   98 device key's length 1, its UTF-8
 * CATALOG_DEVICE_KEYS  key: user id 8, device key
 *   0 version 1 | 1 device number 4 */
#include "gateway/chat/account_rows.h"

#define ROW_VERSION    1
#define USER_ROW_MAX   (19 + ACCOUNT_HASH_TEXT_BYTES + JWT_NAME_BYTES_MAX)
#define DEVICE_ROW_MAX (99 + JWT_NAME_BYTES_MAX)

/* ---- keys */

struct bytes account_key_bytes(const struct account_key *key)
{
    return bytes_of(key->data, key->size);
}

static void key_put(struct account_key *key, const void *data, size_t size)
{
    CHECK(size <= sizeof key->data - key->size);
    memcpy(key->data + key->size, data, size);
    key->size += size;
}

struct account_key account_key_user(struct user_id user)
{
    struct account_key key = {.size = 0};
    uint64_t big = __builtin_bswap64(user.v);
    key_put(&key, &big, sizeof big);
    return key;
}

static struct account_key key_device(struct user_id user, struct device_id device)
{
    struct account_key key = account_key_user(user);
    uint32_t big = __builtin_bswap32(device.v);
    key_put(&key, &big, sizeof big);
    return key;
}

static struct account_key key_device_key(struct user_id user, struct bytes device_key)
{
    struct account_key key = account_key_user(user);
    key_put(&key, device_key.data, device_key.size);
    return key;
}

static struct account_key key_name(struct realm_id realm, const char *name)
{
    struct account_key key = {.size = 0};
    uint32_t big = __builtin_bswap32(realm.v);
    key_put(&key, &big, sizeof big);
    key_put(&key, name, strlen(name));
    return key;
}

/* ---- rows */

static enum err version_check(struct reader *r)
{
    uint8_t version = reader_u8(r);
    if (r->failed || version == 0)
        return ERR_CORRUPT;
    return version > ROW_VERSION ? ERR_NEWER : OK;
}

static enum err end_check(const struct reader *r)
{
    return r->failed || r->rest.size != 0 ? ERR_CORRUPT : OK;
}

static enum err user_decode(struct user_row *out, struct bytes value)
{
    struct reader r = reader_of(value);
    TRY(version_check(&r));
    out->realm.v = reader_u32(&r);
    out->created_ms = reader_u64(&r);
    out->device_last = reader_u32(&r);
    out->hash = reader_bytes(&r, reader_u8(&r));
    out->name = reader_bytes(&r, reader_u8(&r));
    TRY(end_check(&r));
    return out->name.size == 0 || out->name.size > JWT_NAME_BYTES_MAX ? ERR_CORRUPT : OK;
}

/* user_encode: into room for USER_ROW_MAX bytes; never fails on rows within their bounds. */
static void user_encode(struct buffer *out, const struct user_row *row)
{
    CHECK(row->hash.size < ACCOUNT_HASH_TEXT_BYTES && row->name.size <= JWT_NAME_BYTES_MAX);
    enum err err = buffer_put_u8(out, ROW_VERSION);
    err = err != OK ? err : buffer_put_u32(out, row->realm.v);
    err = err != OK ? err : buffer_put_u64(out, row->created_ms);
    err = err != OK ? err : buffer_put_u32(out, row->device_last);
    err = err != OK ? err : buffer_put_u8(out, (uint8_t)row->hash.size);
    err = err != OK ? err : buffer_append(out, row->hash);
    err = err != OK ? err : buffer_put_u8(out, (uint8_t)row->name.size);
    err = err != OK ? err : buffer_append(out, row->name);
    CHECK(err == OK);
}

enum err user_row_get(struct catalog_txn *txn, struct user_row *out, struct user_id user)
{
    struct account_key key = account_key_user(user);
    struct bytes value;
    TRY(catalog_get(txn, CATALOG_USERS, account_key_bytes(&key), &value));
    return user_decode(out, value);
}

enum err user_row_put(struct catalog_txn *txn, struct user_id user, const struct user_row *row)
{
    uint8_t data[USER_ROW_MAX];
    struct buffer out = buffer_of(data, sizeof data);
    struct account_key key = account_key_user(user);
    user_encode(&out, row);
    return catalog_put(txn, CATALOG_USERS, account_key_bytes(&key), buffer_bytes(&out));
}

enum err name_row_get(struct catalog_txn *txn, struct user_id *out, struct realm_id realm,
                      const char *name)
{
    struct account_key key = key_name(realm, name);
    struct bytes value;
    TRY(catalog_get(txn, CATALOG_USER_NAMES, account_key_bytes(&key), &value));
    struct reader r = reader_of(value);
    TRY(version_check(&r));
    out->v = reader_u64(&r);
    return end_check(&r);
}

enum err name_row_put(struct catalog_txn *txn, struct realm_id realm, const char *name,
                      struct user_id user)
{
    uint8_t value[9] = {ROW_VERSION};
    struct account_key key = key_name(realm, name);
    store_u64(value + 1, user.v);
    return catalog_put(txn, CATALOG_USER_NAMES, account_key_bytes(&key),
                       bytes_of(value, sizeof value));
}

enum err device_row_decode(struct device_row *out, struct bytes value)
{
    struct reader r = reader_of(value);
    TRY(version_check(&r));
    out->flags = reader_u8(&r);
    out->generation = reader_u64(&r);
    out->used_ms = reader_u64(&r);
    out->refresh_expires_ms = reader_u64(&r);
    out->refused_until_ms = reader_u64(&r);
    struct bytes family = reader_bytes(&r, sizeof out->family_hash);
    struct bytes token = reader_bytes(&r, sizeof out->token_hash);
    out->key_size = reader_u8(&r);
    struct bytes key = reader_bytes(&r, out->key_size);
    TRY(end_check(&r));
    if (key.size == 0 || key.size > sizeof out->key)
        return ERR_CORRUPT;
    memcpy(out->family_hash, family.data, sizeof out->family_hash);
    memcpy(out->token_hash, token.data, sizeof out->token_hash);
    memcpy(out->key, key.data, key.size);
    return OK;
}

enum err device_row_get(struct catalog_txn *txn, struct device_row *out, struct user_id user,
                        struct device_id device)
{
    struct account_key key = key_device(user, device);
    struct bytes value;
    TRY(catalog_get(txn, CATALOG_DEVICES, account_key_bytes(&key), &value));
    return device_row_decode(out, value);
}

enum err device_row_put(struct catalog_txn *txn, struct user_id user, struct device_id device,
                        const struct device_row *row)
{
    uint8_t data[DEVICE_ROW_MAX];
    struct buffer out = buffer_of(data, sizeof data);
    enum err err = buffer_put_u8(&out, ROW_VERSION);
    err = err != OK ? err : buffer_put_u8(&out, row->flags);
    err = err != OK ? err : buffer_put_u64(&out, row->generation);
    err = err != OK ? err : buffer_put_u64(&out, row->used_ms);
    err = err != OK ? err : buffer_put_u64(&out, row->refresh_expires_ms);
    err = err != OK ? err : buffer_put_u64(&out, row->refused_until_ms);
    err = err != OK ? err : buffer_append(&out, bytes_of(row->family_hash, 32));
    err = err != OK ? err : buffer_append(&out, bytes_of(row->token_hash, 32));
    err = err != OK ? err : buffer_put_u8(&out, row->key_size);
    err = err != OK ? err : buffer_append(&out, bytes_of(row->key, row->key_size));
    CHECK(err == OK);
    struct account_key key = key_device(user, device);
    return catalog_put(txn, CATALOG_DEVICES, account_key_bytes(&key), buffer_bytes(&out));
}

enum err device_key_row_get(struct catalog_txn *txn, struct device_id *out, struct user_id user,
                            struct bytes device_key)
{
    struct account_key key = key_device_key(user, device_key);
    struct bytes value;
    TRY(catalog_get(txn, CATALOG_DEVICE_KEYS, account_key_bytes(&key), &value));
    struct reader r = reader_of(value);
    TRY(version_check(&r));
    out->v = reader_u32(&r);
    return end_check(&r);
}

enum err device_key_row_put(struct catalog_txn *txn, struct user_id user, struct bytes device_key,
                            struct device_id device)
{
    uint8_t value[5] = {ROW_VERSION};
    struct account_key key = key_device_key(user, device_key);
    store_u32(value + 1, device.v);
    return catalog_put(txn, CATALOG_DEVICE_KEYS, account_key_bytes(&key),
                       bytes_of(value, sizeof value));
}

enum err device_row_delete(struct catalog_txn *txn, struct user_id user, struct device_id device,
                           struct bytes device_key)
{
    struct account_key row = key_device(user, device);
    struct account_key name = key_device_key(user, device_key);
    TRY(catalog_delete(txn, CATALOG_DEVICES, account_key_bytes(&row)));
    return catalog_delete(txn, CATALOG_DEVICE_KEYS, account_key_bytes(&name));
}
