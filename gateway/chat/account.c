/* account.c: the rules of accounts; their rows: account_rows.c.
 *
 * Refresh tokens: 32 bytes. The first half names the login and stays; the second half is new with
 * every refresh. A token whose first half fits and whose whole does not was used before, however
 * long ago: it was stolen or a client lost its state, and the device is logged out. A wrong first
 * half is a guess and changes nothing, so nobody can log others out by their ids.
 *
 * A device is live while it is not logged out and its last use is within the refresh lifetime.
 * Others give up their row when a new device needs the room. */
#include "gateway/chat/account.h"

#include "core/text.h"
#include "gateway/chat/account_rows.h"

#include <openssl/mem.h>

#define FAMILY_BYTES    (REFRESH_TOKEN_BYTES / 2)
#define USER_PROBES     16 /* ids tried from a random one on; the first practically always fits */
#define USE_NOTED_PARTS 4  /* an operator's device notes its use once per this part of its life */

/* ---- names */

enum err account_name_local(char out[ACCOUNT_NAME_BYTES_MAX + 1], struct bytes name)
{
    if (name.size == 0 || name.size > ACCOUNT_NAME_BYTES_MAX)
        return ERR_INVALID;
    for (size_t i = 0; i < name.size; i++) {
        char c = (char)name.data[i];
        if (c >= 'A' && c <= 'Z')
            c = (char)(c - 'A' + 'a');
        if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && c != '.' && c != '_' && c != '-')
            return ERR_INVALID;
        out[i] = c;
    }
    out[name.size] = '\0';
    return OK;
}

/* label_check: names of users and devices that others chose. */
static enum err label_check(const char *text)
{
    size_t size = strnlen(text, JWT_NAME_BYTES_MAX + 1);
    if (size == 0 || size > JWT_NAME_BYTES_MAX || !utf8_valid(bytes_of(text, size)))
        return ERR_INVALID;
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)text[i];
        bool c1 = c == 0xc2 && (unsigned char)text[i + 1] < 0xa0; /* U+0080 … U+009F */
        if (c < ' ' || c == 0x7f || c1)
            return ERR_INVALID;
    }
    return OK;
}

static void name_copy(char out[JWT_NAME_BYTES_MAX + 1], struct bytes name)
{
    memcpy(out, name.data, name.size);
    out[name.size] = '\0';
}

/* ---- users */

/* user_pick: an id that nobody has, from a random one on. */
static enum err user_pick(struct catalog_txn *txn, struct user_id *out, const uint8_t random[8])
{
    uint64_t v = load_u64(random) & INT64_MAX;
    for (int i = 0; i < USER_PROBES; i++, v = (v + 1) & INT64_MAX) {
        struct account_key key = account_key_user((struct user_id){v});
        struct bytes value;
        enum err err =
            v == 0 ? OK : catalog_get(txn, CATALOG_USERS, account_key_bytes(&key), &value);
        if (err == ERR_NOT_FOUND) {
            out->v = v;
            return OK;
        }
        TRY(err);
    }
    return ERR_BUSY;
}

enum err account_create(struct catalog_txn *txn, struct user_id *user, struct realm_id realm,
                        const char *name, const char *password_hash, const uint8_t random_user[8],
                        uint64_t now_ms)
{
    struct user_id id;
    TRY(label_check(name));
    if (strlen(password_hash) >= ACCOUNT_HASH_TEXT_BYTES)
        return ERR_INVALID;
    enum err err = account_find(txn, &id, realm, name);
    if (err != ERR_NOT_FOUND)
        return err == OK ? ERR_EXISTS : err;
    TRY(user_pick(txn, &id, random_user));
    struct user_row row = {.realm = realm,
                           .created_ms = now_ms,
                           .hash = bytes_of_text(password_hash),
                           .name = bytes_of_text(name)};
    TRY(user_row_put(txn, id, &row));
    TRY(name_row_put(txn, realm, name, id));
    *user = id;
    return OK;
}

enum err account_find(struct catalog_txn *txn, struct user_id *user, struct realm_id realm,
                      const char *name)
{
    if (label_check(name) != OK)
        return ERR_NOT_FOUND;
    return name_row_get(txn, user, realm, name);
}

enum err account_name(struct catalog_txn *txn, struct realm_id *realm,
                      char name[JWT_NAME_BYTES_MAX + 1], struct user_id user)
{
    struct user_row row;
    TRY(user_row_get(txn, &row, user));
    *realm = row.realm;
    name_copy(name, row.name);
    return OK;
}

enum err account_password_hash(struct catalog_txn *txn, struct realm_id realm, const char *name,
                               struct user_id *user, char out[ACCOUNT_HASH_TEXT_BYTES])
{
    struct user_row row;
    TRY(account_find(txn, user, realm, name));
    TRY(user_row_get(txn, &row, *user));
    if (row.hash.size == 0)
        return ERR_NOT_FOUND;
    if (row.hash.size >= ACCOUNT_HASH_TEXT_BYTES)
        return ERR_CORRUPT;
    memcpy(out, row.hash.data, row.hash.size);
    out[row.hash.size] = '\0';
    return OK;
}

enum err account_password_replace(struct catalog_txn *txn, struct user_id user, const char *old,
                                  const char *new)
{
    struct user_row row;
    char name[JWT_NAME_BYTES_MAX];
    TRY(user_row_get(txn, &row, user));
    if (!bytes_equal(row.hash, bytes_of_text(old)))
        return OK;
    if (strlen(new) >= ACCOUNT_HASH_TEXT_BYTES)
        return ERR_INVALID;
    memcpy(name, row.name.data, row.name.size); /* what row borrows ends with the next write */
    row.name.data = (const uint8_t *)name;
    row.hash = bytes_of_text(new);
    return user_row_put(txn, user, &row);
}

/* ---- devices */

struct device_count {
    uint64_t live_since_ms; /* used before: no longer counted */
    uint32_t live;
    uint32_t rows;
    struct device_id stalest; /* of those that are live; 0: none */
    uint64_t stalest_used_ms;
    struct device_id oldest; /* of those that are not; 0: none */
    uint64_t oldest_used_ms;
    struct bytes oldest_key;
    char oldest_key_text[JWT_NAME_BYTES_MAX];
};

static enum err device_counted(void *context, struct bytes key, struct bytes value)
{
    struct device_count *count = context;
    struct device_row row;
    if (key.size != 12)
        return ERR_CORRUPT;
    TRY(device_row_decode(&row, value));
    count->rows++;
    struct device_id device = {__builtin_bswap32(load_u32(key.data + 8))};
    if ((row.flags & DEVICE_LOGGED_OUT) == 0 && row.used_ms >= count->live_since_ms) {
        if (count->live++ != 0 && row.used_ms >= count->stalest_used_ms)
            return OK;
        count->stalest = device;
        count->stalest_used_ms = row.used_ms;
    } else if (count->oldest.v == 0 || row.used_ms < count->oldest_used_ms) {
        count->oldest = device;
        count->oldest_used_ms = row.used_ms;
        memcpy(count->oldest_key_text, row.key, row.key_size);
        count->oldest_key = bytes_of(count->oldest_key_text, row.key_size);
    }
    return OK;
}

static enum err devices_count(struct catalog_txn *txn, struct device_count *out,
                              struct user_id user, const struct account_policy *policy,
                              uint64_t now_ms)
{
    uint64_t life = policy->refresh_lifetime_ms;
    struct account_key prefix = account_key_user(user);
    memset(out, 0, sizeof *out);
    out->live_since_ms = now_ms > life ? now_ms - life : 0;
    return catalog_scan(txn, CATALOG_DEVICES, account_key_bytes(&prefix), device_counted, out);
}

static void device_log_out(struct device_row *row)
{
    row->flags |= DEVICE_LOGGED_OUT;
    row->generation++;
    row->refresh_expires_ms = 0;
    memset(row->family_hash, 0, sizeof row->family_hash);
    memset(row->token_hash, 0, sizeof row->token_hash);
}

/* device_place: among the live ones; made, where there is none, by logging out the stalest. */
static enum err device_place(struct catalog_txn *txn, struct ended_login *replaced,
                             struct user_id user, const struct device_count *count,
                             const struct account_policy *policy)
{
    struct device_row row;
    if (count->live < policy->devices_max)
        return OK;
    if (replaced == NULL || count->stalest.v == 0)
        return ERR_FULL;
    enum err err = device_row_get(txn, &row, user, count->stalest);
    TRY(err == ERR_NOT_FOUND ? ERR_CORRUPT : err);
    device_log_out(&row);
    *replaced = (struct ended_login){count->stalest, row.generation};
    return device_row_put(txn, user, count->stalest, &row);
}

/* device_make_room: for a new device beside those that are live. Twice devices_max rows are kept,
 * so that a device that comes back keeps its number. */
static enum err device_make_room(struct catalog_txn *txn, struct ended_login *replaced,
                                 struct user_id user, const struct account_policy *policy,
                                 uint64_t now_ms)
{
    struct device_count count;
    TRY(devices_count(txn, &count, user, policy, now_ms));
    TRY(device_place(txn, replaced, user, &count, policy));
    if (count.rows < 2 * policy->devices_max || count.oldest.v == 0)
        return OK;
    return device_row_delete(txn, user, count.oldest, count.oldest_key);
}

/* device_add: the next number for a new key; the row itself is the caller's to put. */
static enum err device_add(struct catalog_txn *txn, struct device_id *device,
                           struct device_row *row, struct ended_login *replaced,
                           struct user_id user, const char *device_key,
                           const struct account_policy *policy, uint64_t now_ms)
{
    struct user_row owner;
    TRY(device_make_room(txn, replaced, user, policy, now_ms));
    TRY(user_row_get(txn, &owner, user));
    /* what owner borrows ends with the next write */
    char hash[ACCOUNT_HASH_TEXT_BYTES], name[JWT_NAME_BYTES_MAX];
    memcpy(hash, owner.hash.data, owner.hash.size);
    memcpy(name, owner.name.data, owner.name.size);
    owner.hash.data = (const uint8_t *)hash;
    owner.name.data = (const uint8_t *)name;
    if (owner.device_last == UINT32_MAX)
        return ERR_FULL;
    device->v = ++owner.device_last;
    TRY(user_row_put(txn, user, &owner));
    struct bytes key_text = bytes_of_text(device_key);
    TRY(device_key_row_put(txn, user, key_text, *device));
    memset(row, 0, sizeof *row);
    row->key_size = (uint8_t)key_text.size;
    memcpy(row->key, key_text.data, key_text.size);
    return OK;
}

/* device_for_login: the device of that key, made if there is none. A device that is not live takes
 * a place like a new one. */
static enum err device_for_login(struct catalog_txn *txn, struct device_id *device,
                                 struct device_row *row, struct ended_login *replaced,
                                 struct user_id user, const char *device_key,
                                 const struct account_policy *policy, uint64_t now_ms)
{
    enum err err = device_key_row_get(txn, device, user, bytes_of_text(device_key));
    if (err == ERR_NOT_FOUND)
        return device_add(txn, device, row, replaced, user, device_key, policy, now_ms);
    TRY(err);
    err = device_row_get(txn, row, user, *device);
    TRY(err == ERR_NOT_FOUND ? ERR_CORRUPT : err);
    struct device_count count;
    TRY(devices_count(txn, &count, user, policy, now_ms));
    if ((row->flags & DEVICE_LOGGED_OUT) == 0 && row->used_ms >= count.live_since_ms)
        return OK;
    return device_place(txn, replaced, user, &count, policy);
}

static void token_hashes(struct device_row *row, const uint8_t token[REFRESH_TOKEN_BYTES])
{
    SHA256(token, FAMILY_BYTES, row->family_hash);
    SHA256(token, REFRESH_TOKEN_BYTES, row->token_hash);
}

/* identify: fill out from rows. Before the device's row is put, because a failure must not follow a
 * write. */
static enum err identify(struct catalog_txn *txn, struct identity *out, struct user_id user,
                         struct device_id device, const struct device_row *row)
{
    memset(out, 0, sizeof *out);
    TRY(account_name(txn, &out->realm, out->name, user));
    out->user = user;
    out->device = device;
    out->generation = row->generation;
    return OK;
}

enum err account_login(struct catalog_txn *txn, struct identity *out, struct ended_login *replaced,
                       struct user_id user, const char *device_key,
                       const uint8_t refresh_token[REFRESH_TOKEN_BYTES],
                       const struct account_policy *policy, uint64_t now_ms)
{
    struct device_id device;
    struct device_row row;
    struct user_row owner;
    if (replaced != NULL)
        *replaced = (struct ended_login){0};
    TRY(label_check(device_key));
    TRY(user_row_get(txn, &owner, user));
    TRY(device_for_login(txn, &device, &row, replaced, user, device_key, policy, now_ms));
    row.flags = 0;
    row.generation++;
    row.used_ms = now_ms;
    row.refresh_expires_ms = now_ms + policy->refresh_lifetime_ms;
    token_hashes(&row, refresh_token);
    TRY(identify(txn, out, user, device, &row));
    return device_row_put(txn, user, device, &row);
}

/* ---- refresh and logout */

void account_refresh_encode(uint8_t out[REFRESH_WIRE_BYTES], struct user_id user,
                            struct device_id device, const uint8_t secret[REFRESH_TOKEN_BYTES])
{
    store_u64(out, __builtin_bswap64(user.v));
    store_u32(out + 8, __builtin_bswap32(device.v));
    memcpy(out + 12, secret, REFRESH_TOKEN_BYTES);
}

void account_refresh_decode(struct user_id *user, struct device_id *device,
                            const uint8_t token[REFRESH_WIRE_BYTES])
{
    user->v = __builtin_bswap64(load_u64(token));
    device->v = __builtin_bswap32(load_u32(token + 8));
}

enum err account_refresh(struct catalog_txn *txn, struct identity *out,
                         const uint8_t old_token[REFRESH_WIRE_BYTES],
                         uint8_t new_token[REFRESH_TOKEN_BYTES],
                         const struct account_policy *policy, uint64_t now_ms)
{
    struct user_id user;
    struct device_id device;
    struct device_row row, offered;
    account_refresh_decode(&user, &device, old_token);
    enum err err = device_row_get(txn, &row, user, device);
    if (err != OK)
        return err == ERR_NOT_FOUND ? ERR_DENIED : err;
    token_hashes(&offered, old_token + 12);
    if ((row.flags & DEVICE_LOGGED_OUT) != 0 || row.refresh_expires_ms == 0 ||
        CRYPTO_memcmp(row.family_hash, offered.family_hash, sizeof row.family_hash) != 0)
        return ERR_DENIED;
    if (CRYPTO_memcmp(row.token_hash, offered.token_hash, sizeof row.token_hash) != 0) {
        device_log_out(&row);
        TRY(identify(txn, out, user, device, &row));
        TRY(device_row_put(txn, user, device, &row));
        return ERR_CONFLICT;
    }
    if (now_ms >= row.refresh_expires_ms)
        return ERR_EXPIRED;
    memcpy(new_token, old_token + 12, FAMILY_BYTES);
    token_hashes(&row, new_token);
    row.used_ms = now_ms;
    row.refresh_expires_ms = now_ms + policy->refresh_lifetime_ms;
    TRY(identify(txn, out, user, device, &row));
    return device_row_put(txn, user, device, &row);
}

enum err account_logout(struct catalog_txn *txn, struct user_id user, struct device_id device,
                        uint64_t token_expires_ms, uint64_t *generation)
{
    struct device_row row;
    TRY(device_row_get(txn, &row, user, device));
    if ((row.flags & DEVICE_LOGGED_OUT) == 0)
        device_log_out(&row);
    *generation = row.generation; /* the next login has a higher one */
    if (token_expires_ms > row.refused_until_ms)
        row.refused_until_ms = token_expires_ms;
    return device_row_put(txn, user, device, &row);
}

/* ---- access tokens */

static enum err authenticate_local(struct catalog_txn *txn, struct identity *out,
                                   const struct jwt_claims *claims)
{
    struct device_row row;
    enum err err = device_row_get(txn, &row, claims->user, claims->device);
    if (err != OK)
        return err == ERR_NOT_FOUND ? ERR_DENIED : err;
    if ((row.flags & DEVICE_LOGGED_OUT) != 0 || row.generation != claims->generation)
        return ERR_DENIED;
    TRY(identify(txn, out, claims->user, claims->device, &row));
    return out->realm.v == claims->realm.v ? OK : ERR_DENIED;
}

/* user_of_operator: the user a token names, made where policy allows. */
static enum err user_of_operator(struct catalog_txn *txn, struct user_id *user,
                                 const struct jwt_claims *claims,
                                 const struct account_policy *policy, bool write,
                                 const uint8_t random_user[8], uint64_t now_ms)
{
    struct user_row row;
    if (label_check(claims->subject) != OK)
        return ERR_DENIED;
    enum err err = account_find(txn, user, claims->realm, claims->subject);
    if (err == ERR_NOT_FOUND) {
        if (!policy->create_on_first_sight)
            return ERR_DENIED;
        return write ? account_create(txn, user, claims->realm, claims->subject, "", random_user,
                                      now_ms)
                     : ERR_AGAIN;
    }
    TRY(err);
    err = user_row_get(txn, &row, *user);
    TRY(err == ERR_NOT_FOUND ? ERR_CORRUPT : err);
    return row.hash.size == 0 ? OK : ERR_DENIED; /* the name has a password: not the operator's */
}

static enum err authenticate_operator(struct catalog_txn *txn, struct identity *out,
                                      const struct jwt_claims *claims, const char *device_key,
                                      const struct account_policy *policy, bool write,
                                      const uint8_t random_user[8], uint64_t now_ms)
{
    struct user_id user;
    struct device_id device;
    struct device_row row;
    const char *key = claims->device_key[0] != '\0' ? claims->device_key : device_key;
    key = key == NULL || key[0] == '\0' ? "default" : key;
    TRY(label_check(key));
    TRY(user_of_operator(txn, &user, claims, policy, write, random_user, now_ms));
    enum err err = device_key_row_get(txn, &device, user, bytes_of_text(key));
    if (err == OK)
        err = device_row_get(txn, &row, user, device);
    if (err != OK && err != ERR_NOT_FOUND)
        return err;
    if (err == OK) {
        if (claims->expires_ms <= row.refused_until_ms)
            return ERR_DENIED;
        uint64_t unused_ms = now_ms > row.used_ms ? now_ms - row.used_ms : 0;
        if ((row.flags & DEVICE_LOGGED_OUT) == 0 &&
            unused_ms < policy->refresh_lifetime_ms / USE_NOTED_PARTS)
            return identify(txn, out, user, device, &row);
    }
    if (!write)
        return ERR_AGAIN;
    TRY(device_for_login(txn, &device, &row, NULL, user, key, policy, now_ms));
    if (row.generation == 0 || (row.flags & DEVICE_LOGGED_OUT) != 0)
        row.generation++;
    row.flags = 0;
    row.used_ms = now_ms;
    TRY(identify(txn, out, user, device, &row));
    return device_row_put(txn, user, device, &row);
}

enum err account_authenticate(struct catalog_txn *txn, struct identity *out,
                              const struct jwt_claims *claims, const char *device_key,
                              const struct account_policy *policy, bool write,
                              const uint8_t random_user[8], uint64_t now_ms)
{
    TRY(claims->local ? authenticate_local(txn, out, claims)
                      : authenticate_operator(txn, out, claims, device_key, policy, write,
                                              random_user, now_ms));
    out->token_expires_ms = claims->expires_ms;
    return OK;
}

struct device_list {
    struct device_id *devices;
    size_t capacity;
    uint32_t count;
};

static enum err list_device(void *context, struct bytes key, struct bytes value)
{
    struct device_list *list = context;
    struct device_row row;
    if (key.size != 12)
        return ERR_CORRUPT;
    TRY(device_row_decode(&row, value));
    if ((row.flags & DEVICE_LOGGED_OUT) != 0)
        return OK;
    if (list->count == list->capacity)
        return ERR_FULL;
    uint32_t number;
    memcpy(&number, key.data + 8, sizeof number);
    list->devices[list->count++].v = __builtin_bswap32(number);
    return OK;
}

enum err account_devices(struct catalog_txn *txn, struct user_id user, struct device_id *devices,
                         size_t capacity, uint32_t *count)
{
    struct device_list list = {devices, capacity, 0};
    struct account_key prefix = account_key_user(user);
    TRY(catalog_scan(txn, CATALOG_DEVICES, account_key_bytes(&prefix), list_device, &list));
    *count = list.count;
    return OK;
}
