/* auth.c: accounts and logins. Each request is a chain of stages; [x] runs on that worker class:
 *
 *   POST /users         → [read] is the name free? → [hash] password → [write] account_create
 *   POST /auth/login    → [read] hash of the name → [hash] verify → ([write] hash made anew)
 *                       → [write] account_login → [read] sign
 *   POST /auth/refresh  → [write] account_refresh → [read] sign
 *   POST /auth/logout   → [read] token → ([write] make user or device) → [write] account_logout
 *   GET /users          → [read] token, look-up → ([write] make user or device, look-up)
 *
 * An unknown name is verified against a hash of the same cost, and answered like a wrong password.
 * A body that must be committed though its answer is a failure reports it in call.result. */
#include "gateway/api/rest.h"

#include "core/io.h"
#include "core/logging.h"
#include "core/text.h"
#include "gateway/wire/json_text.h"

#include <argon2.h>
#include <openssl/mem.h>
#include <stdio.h>
#include <strings.h>

#define HASH_BYTES     32
#define HASH_LANES     1
#define BODY_BYTES     4096
#define NO_STORE       "Cache-Control: no-store\r\n"
#define DEVICE_DEFAULT "default"

static const struct rest_error error_credentials = {401, "invalid_credentials",
                                                    "the name or the password is wrong", 0};
static const struct rest_error error_token = {
    401, "unauthenticated", "send a valid access token: Authorization: Bearer …", 0};
static const struct rest_error error_expired = {401, "token_expired", "the token has expired", 0};

static enum err put(struct buffer *out, const char *text)
{
    return buffer_append(out, bytes_of_text(text));
}

/* wipe_body: jansson's copies of passwords and tokens; the tree is given back. */
static void wipe_body(json_t *body)
{
    static const char *const names[] = {"password", "refresh_token"};
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        json_t *value = json_object_get(body, names[i]);
        if (json_is_string(value))
            OPENSSL_cleanse((void *)(uintptr_t)json_string_value(value), json_string_length(value));
    }
    json_decref(body);
}

static void text_copy(char *out, struct bytes text)
{
    memcpy(out, text.data, text.size);
    out[text.size] = '\0';
}

/* ---- hashing */

static int hash_password(char out[ACCOUNT_HASH_TEXT_BYTES], const struct config *config,
                         struct bytes password, const uint8_t salt[SALT_BYTES])
{
    return argon2id_hash_encoded(config->hash_passes, config->hash_memory_kib, HASH_LANES,
                                 password.data, password.size, salt, SALT_BYTES, HASH_BYTES, out,
                                 ACCOUNT_HASH_TEXT_BYTES);
}

enum err auth_prepare(struct api *api)
{
    static const uint8_t salt[SALT_BYTES] = {0};
    const struct config *config = api->options.config;
    int result = hash_password(api->hash_dummy, config, bytes_of_text("nobody's password"), salt);
    if (result != ARGON2_OK) {
        log_event(LOG_ERROR, "hash_refused", LOG_TEXT("reason", argon2_error_message(result)),
                  LOG_END);
        return result == ARGON2_MEMORY_ALLOCATION_ERROR ? ERR_NO_MEMORY : ERR_INVALID;
    }
    /* 50 ms is what 19 MiB and two passes take here; more memory takes more */
    uint64_t each_ms = 50ull * config->hash_memory_kib * config->hash_passes / (2 * 19456) + 1;
    uint64_t queue_s = each_ms * config->hash_queue / config->hash_threads / 1000 + 1;
    api->hash_retry_s = (uint32_t)(queue_s < 60 ? queue_s : 60);
    return OK;
}

static void run_hash(struct worker_job *job)
{
    struct call *call = call_of_worker(job);
    int result = hash_password(call->hash, call->api->options.config,
                               bytes_of(call->password, call->password_size), call->salt);
    OPENSSL_cleanse(call->password, sizeof call->password);
    call->result = result == ARGON2_OK                        ? OK
                   : result == ARGON2_MEMORY_ALLOCATION_ERROR ? ERR_NO_MEMORY
                                                              : ERR_INVALID;
}

/* is_current: the hash was made with today's parameters. */
static bool is_current(const char *hash, const struct config *config)
{
    char expected[64];
    snprintf(expected, sizeof expected, "$argon2id$v=%d$m=%u,t=%u,p=%d$", ARGON2_VERSION_NUMBER,
             config->hash_memory_kib, config->hash_passes, HASH_LANES);
    return strncmp(hash, expected, strlen(expected)) == 0;
}

/* hash_anew: parameters that the operator changed reach an account at its next login. Where it
 * fails the old hash stays good. */
static void hash_anew(struct call *call)
{
    const struct config *config = call->api->options.config;
    if (!is_current(call->hash, config) &&
        hash_password(call->hash_new, config, bytes_of(call->password, call->password_size),
                      call->salt) != ARGON2_OK)
        call->hash_new[0] = '\0';
}

static void run_verify(struct worker_job *job)
{
    struct call *call = call_of_worker(job);
    const char *hash = call->known ? call->hash : call->api->hash_dummy;
    int result = argon2id_verify(hash, call->password, call->password_size);
    if (result == ARGON2_OK && call->known)
        hash_anew(call);
    OPENSSL_cleanse(call->password, sizeof call->password);
    if (result == ARGON2_OK)
        call->result = call->known ? OK : ERR_DENIED;
    else if (result == ARGON2_MEMORY_ALLOCATION_ERROR)
        call->result = ERR_NO_MEMORY;
    else
        call->result = result == ARGON2_VERIFY_MISMATCH ? ERR_DENIED : ERR_CORRUPT;
}

/* ---- tokens as answers of login and refresh */

static void run_sign(struct worker_job *job)
{
    struct call *call = call_of_worker(job);
    const struct identity *identity = &call->identity;
    struct jwt_claims claims = {.local = true,
                                .realm = identity->realm,
                                .user = identity->user,
                                .device = identity->device,
                                .generation = identity->generation,
                                .expires_ms = call->now_ms +
                                              1000ull * call->api->options.config->access_token_s};
    struct buffer out = buffer_of(call->access, sizeof call->access);
    call->result = jwt_sign(&out, call->api->options.signer, &claims, call->now_ms);
    call->access_size = out.size;
}

static enum err tokens_encode(struct buffer *out, const struct call *call)
{
    const struct config *config = call->api->options.config;
    const struct identity *identity = &call->identity;
    uint8_t refresh[REFRESH_WIRE_BYTES];
    account_refresh_encode(refresh, identity->user, identity->device, call->refresh);
    TRY(put(out, "{\"access_token\":"));
    TRY(json_text_put(out, bytes_of(call->access, call->access_size)));
    TRY(put(out, ",\"token_type\":\"Bearer\",\"expires_in\":"));
    TRY(json_text_put_number(out, config->access_token_s));
    TRY(put(out, ",\"refresh_token\":\""));
    TRY(base64url_encode(out, bytes_of(refresh, sizeof refresh)));
    TRY(put(out, "\",\"refresh_expires_in\":"));
    TRY(json_text_put_number(out, config->refresh_token_s));
    TRY(put(out, ",\"user\":\""));
    TRY(json_text_put_number(out, identity->user.v));
    TRY(put(out, "\",\"device\":"));
    TRY(json_text_put_number(out, identity->device.v));
    OPENSSL_cleanse(refresh, sizeof refresh);
    return put(out, "}\n");
}

static void on_signed(struct call *call, struct shard *shard)
{
    char body[BODY_BYTES];
    struct buffer out = buffer_of(body, sizeof body);
    enum err err = call->result;
    if (err == OK)
        err = tokens_encode(&out, call);
    if (err == OK)
        call_respond(call, shard, 200, "application/json", NO_STORE, buffer_bytes(&out));
    else
        call_fail(call, shard, rest_error_of(err));
    OPENSSL_cleanse(body, sizeof body);
}

/* ---- POST /users */

static enum err user_encode(struct buffer *out, struct user_id user, const char *name)
{
    TRY(put(out, "{\"user\":\""));
    TRY(json_text_put_number(out, user.v));
    TRY(put(out, "\",\"name\":"));
    TRY(json_text_put(out, bytes_of_text(name)));
    return put(out, "}\n");
}

static void respond_user(struct call *call, struct shard *shard, unsigned status)
{
    char body[JWT_NAME_BYTES_MAX * 6 + 64];
    struct buffer out = buffer_of(body, sizeof body);
    enum err err = user_encode(&out, call->user, call->name);
    if (err == OK)
        call_respond(call, shard, status, "application/json", NO_STORE, buffer_bytes(&out));
    else
        call_fail(call, shard, rest_error_of(err));
}

static struct rest_error error_of_create(enum err err)
{
    if (err == ERR_EXISTS)
        return (struct rest_error){409, "name_taken", "this name is taken", 0};
    return rest_error_of(err);
}

static void on_created(struct call *call, struct shard *shard)
{
    if (call->job.err != OK)
        call_fail(call, shard, error_of_create(call->job.err));
    else
        respond_user(call, shard, 201);
}

static enum err body_create(struct catalog_txn *txn, struct catalog_job *job)
{
    struct call *call = call_of(job);
    return account_create(txn, &call->user, call->realm, call->name, call->hash, call->random_user,
                          call->now_ms);
}

static void on_hashed(struct call *call, struct shard *shard)
{
    if (call->result != OK)
        call_fail(call, shard, rest_error_of(call->result));
    else
        call_catalog(call, shard, body_create, true, on_created);
}

static enum err body_name_free(struct catalog_txn *txn, struct catalog_job *job)
{
    struct call *call = call_of(job);
    enum err err = account_find(txn, &call->user, call->realm, call->name);
    return err == ERR_NOT_FOUND ? OK : err == OK ? ERR_EXISTS : err;
}

static void on_name_free(struct call *call, struct shard *shard)
{
    if (call->job.err != OK)
        call_fail(call, shard, error_of_create(call->job.err));
    else
        call_work(call, shard, run_hash, WORKER_HASH, on_hashed);
}

/* take_password: the field into the call; it is wiped as soon as it was hashed. */
static bool take_password(struct call *call, struct shard *shard, const json_t *body)
{
    struct bytes password;
    if (!rest_text(&password, shard, &call->reply, body, "password", PASSWORD_BYTES_MIN,
                   PASSWORD_BYTES_MAX, true))
        return false;
    memcpy(call->password, password.data, password.size);
    call->password_size = password.size;
    return true;
}

static bool take_registration(struct call *call, struct shard *shard, const json_t *body)
{
    struct bytes name;
    if (!rest_text(&name, shard, &call->reply, body, "name", 1, ACCOUNT_NAME_BYTES_MAX, false))
        return false;
    if (account_name_local(call->name, name) != OK) {
        rest_fail(shard, &call->reply,
                  (struct rest_error){400, "invalid_field",
                                      "the field \"name\" may hold a-z, 0-9, '.', '_' and '-'", 0});
        return false;
    }
    return take_password(call, shard, body);
}

void handle_register(const struct api *api, struct shard *shard, const struct exchange *exchange,
                     const struct reply *reply)
{
    if (!api->options.config->registration) {
        rest_fail(shard, reply,
                  (struct rest_error){403, "registration_closed",
                                      "accounts are not made here: ask the operator", 0});
        return;
    }
    json_t *body = rest_body(shard, exchange, reply);
    if (body == NULL)
        return;
    struct call *call = call_create(api, shard, reply, bytes_of(NULL, 0));
    if (call != NULL && take_registration(call, shard, body)) {
        io_entropy(shard_io(shard), call->salt, sizeof call->salt);
        io_entropy(shard_io(shard), call->random_user, sizeof call->random_user);
        call_catalog(call, shard, body_name_free, false, on_name_free);
    } else if (call != NULL) {
        call_destroy(call);
    }
    wipe_body(body);
}

/* ---- POST /auth/login */

static void on_login(struct call *call, struct shard *shard)
{
    if (call->job.err == ERR_FULL) {
        call_fail(call, shard,
                  (struct rest_error){409, "too_many_devices",
                                      "log out another device of this user first, or say "
                                      "\"replace\": true: the one used longest ago is logged out",
                                      0});
        return;
    }
    if (call->job.err != OK) {
        call_fail(call, shard, rest_error_of(call->job.err));
        return;
    }
    if (call->replaced.device.v != 0) {
        log_event(LOG_INFO, "device_replaced", LOG_U64("user", call->identity.user.v),
                  LOG_U64("device", call->replaced.device.v), LOG_END);
        shard_revoke(shard, call->identity.user, call->replaced.device, call->replaced.generation);
    }
    call_work(call, shard, run_sign, WORKER_CATALOG_READ, on_signed);
}

static enum err body_login(struct catalog_txn *txn, struct catalog_job *job)
{
    struct call *call = call_of(job);
    return account_login(txn, &call->identity, call->replace ? &call->replaced : NULL, call->user,
                         call->device_key, call->refresh, &call->api->policy, call->now_ms);
}

/* The new hash, in a transaction of its own: a login that is refused must not have written. Whether
 * it was stored or not, the password was right. */
static enum err body_hash_anew(struct catalog_txn *txn, struct catalog_job *job)
{
    struct call *call = call_of(job);
    return account_password_replace(txn, call->user, call->hash, call->hash_new);
}

static void on_hashed_anew(struct call *call, struct shard *shard)
{
    call_catalog(call, shard, body_login, true, on_login);
}

static void on_verified(struct call *call, struct shard *shard)
{
    if (call->result == ERR_DENIED) {
        call_fail(call, shard, error_credentials);
    } else if (call->result != OK) {
        call_fail(call, shard, rest_error_of(call->result));
    } else {
        call->now_ms = io_wall_ms(shard_io(shard));
        bool anew = call->hash_new[0] != '\0';
        call_catalog(call, shard, anew ? body_hash_anew : body_login, true,
                     anew ? on_hashed_anew : on_login);
    }
}

static enum err body_password(struct catalog_txn *txn, struct catalog_job *job)
{
    struct call *call = call_of(job);
    enum err err = account_password_hash(txn, call->realm, call->name, &call->user, call->hash);
    call->known = err == OK;
    return err == ERR_NOT_FOUND ? OK : err;
}

static void on_password(struct call *call, struct shard *shard)
{
    if (call->job.err != OK)
        call_fail(call, shard, rest_error_of(call->job.err));
    else
        call_work(call, shard, run_verify, WORKER_HASH, on_verified);
}

static bool take_login(struct call *call, struct shard *shard, const json_t *body)
{
    struct bytes name, device = bytes_of_text(DEVICE_DEFAULT);
    if (!rest_text(&name, shard, &call->reply, body, "name", 1, JWT_NAME_BYTES_MAX, true))
        return false;
    if (account_name_local(call->name, name) != OK)
        call->name[0] = '\0'; /* nobody's: goes the same long way as an unknown one */
    if (json_object_get(body, "device") != NULL &&
        !rest_text(&device, shard, &call->reply, body, "device", 1, JWT_NAME_BYTES_MAX, false))
        return false;
    text_copy(call->device_key, device);
    return rest_flag(&call->replace, shard, &call->reply, body, "replace") &&
           take_password(call, shard, body);
}

void handle_login(const struct api *api, struct shard *shard, const struct exchange *exchange,
                  const struct reply *reply)
{
    json_t *body = rest_body(shard, exchange, reply);
    if (body == NULL)
        return;
    struct call *call = call_create(api, shard, reply, bytes_of(NULL, 0));
    if (call != NULL && take_login(call, shard, body)) {
        io_entropy(shard_io(shard), call->refresh, sizeof call->refresh);
        io_entropy(shard_io(shard), call->salt, sizeof call->salt);
        call_catalog(call, shard, body_password, false, on_password);
    } else if (call != NULL) {
        call_destroy(call);
    }
    wipe_body(body);
}

/* ---- POST /auth/refresh */

static void on_refreshed(struct call *call, struct shard *shard)
{
    enum err err = call->job.err != OK ? call->job.err : call->result;
    if (err == ERR_CONFLICT) {
        log_event(LOG_WARN, "refresh_token_reused", LOG_U64("user", call->identity.user.v),
                  LOG_U64("device", call->identity.device.v), LOG_END);
        shard_revoke(shard, call->identity.user, call->identity.device, call->identity.generation);
        call_fail(call, shard,
                  (struct rest_error){401, "refresh_token_reused",
                                      "this token was used before, so the device was logged out: "
                                      "log in again",
                                      0});
    } else if (err == ERR_DENIED) {
        call_fail(call, shard,
                  (struct rest_error){401, "invalid_refresh_token",
                                      "this token is not valid: log in again", 0});
    } else if (err == ERR_EXPIRED) {
        call_fail(call, shard, error_expired);
    } else if (err != OK) {
        call_fail(call, shard, rest_error_of(err));
    } else {
        call_work(call, shard, run_sign, WORKER_CATALOG_READ, on_signed);
    }
}

static enum err body_refresh(struct catalog_txn *txn, struct catalog_job *job)
{
    struct call *call = call_of(job);
    call->result = account_refresh(txn, &call->identity, call->refresh_old, call->refresh,
                                   &call->api->policy, call->now_ms);
    return call->result == ERR_CONFLICT ? OK : call->result;
}

static bool take_refresh(struct call *call, struct shard *shard, const json_t *body)
{
    struct bytes text;
    struct buffer token = buffer_of(call->refresh_old, sizeof call->refresh_old);
    if (!rest_text(&text, shard, &call->reply, body, "refresh_token", 1, 128, false))
        return false;
    if (base64url_decode(&token, text) == OK && token.size == sizeof call->refresh_old)
        return true;
    rest_fail(shard, &call->reply,
              (struct rest_error){400, "invalid_field",
                                  "the field \"refresh_token\" is not one of ours", 0});
    return false;
}

void handle_refresh(const struct api *api, struct shard *shard, const struct exchange *exchange,
                    const struct reply *reply)
{
    json_t *body = rest_body(shard, exchange, reply);
    if (body == NULL)
        return;
    struct call *call = call_create(api, shard, reply, bytes_of(NULL, 0));
    if (call != NULL && take_refresh(call, shard, body)) {
        io_entropy(shard_io(shard), call->refresh, sizeof call->refresh);
        call_catalog(call, shard, body_refresh, true, on_refreshed);
    } else if (call != NULL) {
        call_destroy(call);
    }
    wipe_body(body);
}

/* ---- bearer tokens: RFC 6750 2.1 */

/* take_bearer: a call that holds the token; NULL: answered with 401 or 503. */
static struct call *take_bearer(const struct api *api, struct shard *shard,
                                const struct exchange *exchange, const struct reply *reply)
{
    static const char scheme[] = "Bearer ";
    const struct http_field *field = http_field_find(exchange->request, "Authorization");
    size_t size = sizeof scheme - 1;
    if (field == NULL || field->value.size <= size || field->value.size > size + JWT_BYTES_MAX ||
        strncasecmp((const char *)field->value.data, scheme, size) != 0) {
        rest_fail(shard, reply, error_token);
        return NULL;
    }
    struct call *call = call_create(api, shard, reply, bytes_skip(field->value, size));
    if (call != NULL)
        io_entropy(shard_io(shard), call->random_user, sizeof call->random_user);
    return call;
}

/* identify: the token's signature (once), then who it names. ERR_AGAIN: needs a write. */
static enum err identify(struct catalog_txn *txn, struct call *call)
{
    const struct api_options *options = &call->api->options;
    if (!call->claims_known)
        TRY(jwt_verify(&call->claims, call->bearer, options->signer, call->jwks, call->now_ms));
    call->claims_known = true;
    return account_authenticate(txn, &call->identity, &call->claims, NULL, &call->api->policy,
                                call->write, call->random_user, call->now_ms);
}

static struct rest_error error_of_token(enum err err)
{
    if (err == ERR_EXPIRED)
        return error_expired;
    if (err == ERR_DENIED || err == ERR_INVALID)
        return error_token;
    return rest_error_of(err);
}

/* ---- POST /auth/logout */

static void on_logged_out(struct call *call, struct shard *shard)
{
    if (call->job.err != OK && call->job.err != ERR_NOT_FOUND) {
        call_fail(call, shard, rest_error_of(call->job.err));
        return;
    }
    shard_revoke(shard, call->identity.user, call->identity.device, call->identity.generation);
    call_respond(call, shard, 204, NULL, NO_STORE, bytes_of(NULL, 0));
}

static enum err body_logout(struct catalog_txn *txn, struct catalog_job *job)
{
    struct call *call = call_of(job);
    return account_logout(txn, call->identity.user, call->identity.device,
                          call->claims.local ? 0 : call->claims.expires_ms,
                          &call->identity.generation);
}

static enum err body_identify(struct catalog_txn *txn, struct catalog_job *job)
{
    return identify(txn, call_of(job));
}

static void on_logout_identified(struct call *call, struct shard *shard)
{
    if (call->job.err == ERR_AGAIN && !call->write)
        call_catalog(call, shard, body_identify, true, on_logout_identified);
    else if (call->job.err != OK)
        call_fail(call, shard, error_of_token(call->job.err));
    else
        call_catalog(call, shard, body_logout, true, on_logged_out);
}

void handle_logout(const struct api *api, struct shard *shard, const struct exchange *exchange,
                   const struct reply *reply)
{
    struct call *call = take_bearer(api, shard, exchange, reply);
    if (call != NULL)
        call_catalog(call, shard, body_identify, false, on_logout_identified);
}

/* ---- GET /users?name=… or ?id=… */

static enum err find_user(struct catalog_txn *txn, struct call *call)
{
    char lower[ACCOUNT_NAME_BYTES_MAX + 1];
    struct realm_id realm;
    if (call->user.v == 0) {
        enum err err = account_find(txn, &call->user, call->identity.realm, call->name);
        if (err == ERR_NOT_FOUND && account_name_local(lower, bytes_of_text(call->name)) == OK)
            err = account_find(txn, &call->user, call->identity.realm, lower);
        TRY(err);
    }
    TRY(account_name(txn, &realm, call->name, call->user));
    return realm.v == call->identity.realm.v ? OK : ERR_NOT_FOUND;
}

/* body_lookup: who asks may have been made in this transaction, so a failed look-up must not
 * fail it. */
static enum err body_lookup(struct catalog_txn *txn, struct catalog_job *job)
{
    struct call *call = call_of(job);
    TRY(identify(txn, call));
    call->result = find_user(txn, call);
    return OK;
}

static void on_lookup(struct call *call, struct shard *shard)
{
    if (call->job.err == ERR_AGAIN && !call->write)
        call_catalog(call, shard, body_lookup, true, on_lookup);
    else if (call->job.err != OK)
        call_fail(call, shard, error_of_token(call->job.err));
    else if (call->result == ERR_NOT_FOUND)
        call_fail(call, shard, (struct rest_error){404, "not_found", "there is no such user", 0});
    else if (call->result != OK)
        call_fail(call, shard, rest_error_of(call->result));
    else
        respond_user(call, shard, 200);
}

/* take_query: name or id, exactly one. */
static bool take_query(struct call *call, struct bytes query)
{
    char text[24];
    struct buffer name = buffer_of(call->name, sizeof call->name - 1);
    struct buffer id = buffer_of(text, sizeof text);
    enum err by_name = http_query_value(&name, query, "name");
    enum err by_id = http_query_value(&id, query, "id");
    if (by_name == OK && by_id == ERR_NOT_FOUND)
        return name.size != 0 && memchr(name.data, '\0', name.size) == NULL;
    if (by_id != OK || by_name != ERR_NOT_FOUND)
        return false;
    return decimal_parse(&call->user.v, buffer_bytes(&id)) == OK && call->user.v != 0;
}

void handle_user(const struct api *api, struct shard *shard, const struct exchange *exchange,
                 const struct reply *reply)
{
    struct call *call = take_bearer(api, shard, exchange, reply);
    if (call == NULL)
        return;
    if (take_query(call, exchange->request->query))
        call_catalog(call, shard, body_lookup, false, on_lookup);
    else
        call_fail(call, shard,
                  (struct rest_error){400, "invalid_query", "ask with ?name=… or with ?id=…", 0});
}
