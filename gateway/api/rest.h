/* rest.h: inside api/ only: routes, answers, and the calls that wait for workers.
 * Flow:       api_handle finds the route; its handler answers at once (rest_respond, rest_fail) or
 *             makes a struct call and passes it from stage to stage: call_catalog or call_work now,
 *             `next` on the shard when the worker is done; the last stage ends in call_respond or
 *             call_fail, which give the call back
 * Owns:       see api.h
 * Bounds:     REST_FIELDS_BYTES of header lines; bodies are built by the handlers */
#ifndef GATEWAY_API_REST_H
#define GATEWAY_API_REST_H

#include "gateway/api/api.h"
#include "gateway/chat/account.h"

#include <jansson.h>

#define REST_CORS_BYTES    512
#define REST_FIELDS_BYTES  1024
#define PASSWORD_BYTES_MIN 8
#define PASSWORD_BYTES_MAX 1024
#define SALT_BYTES         16
#define ACCESS_TOKEN_BYTES 2048 /* room for one that we sign */

struct api {
    struct api_options options;
    struct account_policy policy;
    uint32_t hash_retry_s;                    /* Retry-After where the hashing queue is full */
    char hash_dummy[ACCOUNT_HASH_TEXT_BYTES]; /* verified against for unknown users */
};

/* Where and how to answer, apart from the answer. */
struct reply {
    struct exchange_id exchange;
    bool head;
    char cors[REST_CORS_BYTES]; /* header lines */
};

typedef void rest_handler(const struct api *api, struct shard *shard,
                          const struct exchange *exchange, const struct reply *reply);

enum route_listener { ROUTE_PUBLIC = 1, ROUTE_ADMIN = 2 };

struct route {
    unsigned listeners; /* of enum route_listener */
    const char *method;
    const char *path;
    rest_handler *handler;
};

/* rest_routes: the whole table, for the router and for the test that compares it with
 * openapi.json. */
const struct route *rest_routes(size_t *count);

/* rest_respond: fields may be NULL, else header lines. */
void rest_respond(struct shard *shard, const struct reply *reply, unsigned status,
                  const char *content_type, const char *fields, struct bytes body);

/* A failure as clients see it. */
struct rest_error {
    unsigned status;
    const char *code;
    const char *message;
    uint32_t retry_after_s; /* 0: none */
};
void rest_fail(struct shard *shard, const struct reply *reply, struct rest_error error);
/* rest_error_of: of a failed job: overload, full disk, or an internal error, which is logged. */
struct rest_error rest_error_of(enum err err);

/* rest_body: the request's JSON object, checked; NULL: answered with the reason. */
json_t *rest_body(struct shard *shard, const struct exchange *exchange, const struct reply *reply);
/* rest_text: a member that must be text of min … max bytes; false: answered with the reason. The
 * result is borrowed from body. A NUL inside is refused unless nul says otherwise. */
bool rest_text(struct bytes *out, struct shard *shard, const struct reply *reply,
               const json_t *body, const char *name, size_t min, size_t max, bool nul);

/* rest_flag: a member that may be missing (false) and else must be true or false. */
bool rest_flag(bool *out, struct shard *shard, const struct reply *reply, const json_t *body,
               const char *name);

/* ---- calls */

struct call {
    struct catalog_job job; /* of the running stage */
    const struct api *api;
    struct reply reply;
    uint32_t shard;
    void (*next)(struct call *call, struct shard *shard);
    enum err result; /* where a job's failure must be told from the transaction's */
    uint64_t now_ms;
    struct realm_id realm;
    char name[JWT_NAME_BYTES_MAX + 1];
    char device_key[JWT_NAME_BYTES_MAX + 1];
    char password[PASSWORD_BYTES_MAX];
    size_t password_size;
    bool known; /* the name exists and has a password */
    char hash[ACCOUNT_HASH_TEXT_BYTES];
    char hash_new[ACCOUNT_HASH_TEXT_BYTES]; /* "": the stored one stays */
    uint8_t salt[SALT_BYTES];
    uint8_t random_user[8];
    uint8_t refresh[REFRESH_TOKEN_BYTES]; /* the new one */
    uint8_t refresh_old[REFRESH_WIRE_BYTES];
    struct identity identity;
    bool replace; /* rather than be one device too many */
    struct ended_login replaced;
    struct user_id user;
    struct jwks *jwks; /* retained */
    struct jwt_claims claims;
    bool claims_known;
    bool write; /* the running transaction may write */
    char access[ACCESS_TOKEN_BYTES];
    size_t access_size;
    struct bytes bearer; /* in the memory behind the struct */
    size_t size;         /* of all of it */
};

/* call_create: NULL: answered with 503. bearer is copied. */
struct call *call_create(const struct api *api, struct shard *shard, const struct reply *reply,
                         struct bytes bearer);
/* call_destroy: wiped and given back; for a call that was answered through its reply. */
void call_destroy(struct call *call);
/* call_catalog: run body in a transaction, then next; call_work: run on a worker, then next. Where
 * the queue is full the call is answered with 503 and given back. */
void call_catalog(struct call *call, struct shard *shard,
                  enum err (*body)(struct catalog_txn *txn, struct catalog_job *job), bool write,
                  void (*next)(struct call *call, struct shard *shard));
void call_work(struct call *call, struct shard *shard, void (*run)(struct worker_job *job),
               enum worker_class class, void (*next)(struct call *call, struct shard *shard));
void call_respond(struct call *call, struct shard *shard, unsigned status, const char *content_type,
                  const char *fields, struct bytes body);
void call_fail(struct call *call, struct shard *shard, struct rest_error error);
struct call *call_of(struct catalog_job *job);
struct call *call_of_worker(struct worker_job *job);

/* auth_prepare: the dummy hash and what follows from the hashing parameters; see api_create. */
MUST_USE enum err auth_prepare(struct api *api);

/* ---- handlers, auth.c and admin.c */

rest_handler handle_register;
rest_handler handle_login;
rest_handler handle_refresh;
rest_handler handle_logout;
rest_handler handle_user;
rest_handler handle_ready;
rest_handler handle_metrics;

/* ---- embedded files, openapi.c */

struct bytes openapi_document(void);

#endif
