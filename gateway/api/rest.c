/* rest.c: from a request to its handler, and from a result to its answer.
 * A request is refused in this order: 501 a method that no route has, 404 a path that the listener
 * does not have, 405 with Allow, 413 a body over the limit; what comes after is the handler's. */
#include "gateway/api/rest.h"

#include "core/logging.h"
#include "core/memory.h"
#include "gateway/wire/json_text.h"

#include <openssl/mem.h>
#include <stdio.h>

#define ERROR_BODY_BYTES 768
#define TEXT             "text/plain; charset=utf-8"
#define ORIGIN_BYTES_MAX 256

static rest_handler handle_root;
static rest_handler handle_admin_root;
static rest_handler handle_health;
static rest_handler handle_openapi;
static rest_handler handle_connect;

static const struct route routes[] = {
    {ROUTE_PUBLIC, "GET", "/", handle_root},
    {ROUTE_PUBLIC | ROUTE_ADMIN, "GET", "/healthz", handle_health},
    {ROUTE_PUBLIC, "GET", "/openapi.json", handle_openapi},
    {ROUTE_PUBLIC, "GET", "/connect", handle_connect},
    {ROUTE_PUBLIC, "POST", "/users", handle_register},
    {ROUTE_PUBLIC, "GET", "/users", handle_user},
    {ROUTE_PUBLIC, "POST", "/auth/login", handle_login},
    {ROUTE_PUBLIC, "POST", "/auth/refresh", handle_refresh},
    {ROUTE_PUBLIC, "POST", "/auth/logout", handle_logout},
    {ROUTE_ADMIN, "GET", "/", handle_admin_root},
    {ROUTE_ADMIN, "GET", "/readyz", handle_ready},
    {ROUTE_ADMIN, "GET", "/metrics", handle_metrics},
};

const struct route *rest_routes(size_t *count)
{
    *count = COUNT_OF(routes);
    return routes;
}

enum err api_create(struct api **out, const struct api_options *options)
{
    const struct config *config = options->config;
    struct api *api = memory_take_zeroed(sizeof *api, MEMORY_API);
    if (api == NULL)
        return ERR_NO_MEMORY;
    api->options = *options;
    api->policy.devices_max = config->devices_per_user;
    api->policy.create_on_first_sight = config->create_users;
    api->policy.refresh_lifetime_ms = 1000ull * config->refresh_token_s;
    enum err err = auth_prepare(api);
    if (err != OK) {
        memory_give(api, MEMORY_API);
        return err;
    }
    *out = api;
    return OK;
}

void api_destroy(struct api *api)
{
    memory_give(api, MEMORY_API);
}

/* ---- answers */

static bool text_is(struct bytes text, const char *expected)
{
    return bytes_equal(text, bytes_of_text(expected));
}

void rest_respond(struct shard *shard, const struct reply *reply, unsigned status,
                  const char *content_type, const char *fields, struct bytes body)
{
    char all[REST_FIELDS_BYTES];
    int size = snprintf(all, sizeof all, "%sX-Content-Type-Options: nosniff\r\n%s", reply->cors,
                        fields != NULL ? fields : "");
    CHECK(size > 0 && (size_t)size < sizeof all);
    struct http_response response = {.status = status,
                                     .content_type = content_type,
                                     .fields = all,
                                     .body = body,
                                     .head = reply->head};
    exchange_respond(shard, reply->exchange, &response);
}

static enum err put(struct buffer *out, const char *text)
{
    return buffer_append(out, bytes_of_text(text));
}

static enum err error_encode(struct buffer *out, const struct rest_error *error)
{
    TRY(put(out, "{\"error\":{\"code\":"));
    TRY(json_text_put(out, bytes_of_text(error->code)));
    TRY(put(out, ",\"message\":"));
    TRY(json_text_put(out, bytes_of_text(error->message)));
    if (error->retry_after_s != 0) {
        TRY(put(out, ",\"retry_after_s\":"));
        TRY(json_text_put_number(out, error->retry_after_s));
    }
    return put(out, "}}\n");
}

static void fail_with_fields(struct shard *shard, const struct reply *reply,
                             struct rest_error error, const char *more_fields)
{
    char body[ERROR_BODY_BYTES], fields[256];
    struct buffer out = buffer_of(body, sizeof body);
    enum err err = error_encode(&out, &error);
    CHECK(err == OK);
    int size = snprintf(fields, sizeof fields, "Cache-Control: no-store\r\n%s", more_fields);
    CHECK(size > 0 && (size_t)size < sizeof fields);
    if (error.retry_after_s != 0)
        snprintf(fields + size, sizeof fields - (size_t)size, "Retry-After: %u\r\n",
                 error.retry_after_s);
    rest_respond(shard, reply, error.status, "application/json", fields, buffer_bytes(&out));
}

void rest_fail(struct shard *shard, const struct reply *reply, struct rest_error error)
{
    /* RFC 9110 11.6.1: a 401 names the way to authenticate */
    fail_with_fields(shard, reply, error,
                     error.status == 401 ? "WWW-Authenticate: Bearer\r\n" : "");
}

struct rest_error rest_error_of(enum err err)
{
    if (err == ERR_FULL || err == ERR_BUSY || err == ERR_NO_MEMORY)
        return (struct rest_error){503, "overloaded", "too much to do: try again later", 1};
    log_event(LOG_ERROR, "api_failed", LOG_ERR(err), LOG_END);
    if (err == ERR_NO_SPACE)
        return (struct rest_error){503, "no_space", "the server's disk is full", 10};
    if (err == ERR_IO)
        return (struct rest_error){503, "read_only", "the server cannot write", 10};
    return (struct rest_error){500, "internal", "the server failed", 0};
}

/* ---- CORS: the Fetch standard, 3.2 */

static void cors_set(struct reply *reply, const struct api *api, const struct http_request *request)
{
    const char *list = api->options.config->origins;
    const struct http_field *field = http_field_find(request, "Origin");
    reply->cors[0] = '\0';
    if (list[0] == '\0')
        return;
    if (strcmp(list, "*") == 0) {
        if (field != NULL)
            snprintf(reply->cors, sizeof reply->cors, "Access-Control-Allow-Origin: *\r\n");
        return;
    }
    if (field == NULL || field->value.size > ORIGIN_BYTES_MAX ||
        !origins_contain(list, field->value))
        snprintf(reply->cors, sizeof reply->cors, "Vary: Origin\r\n");
    else
        snprintf(reply->cors, sizeof reply->cors,
                 "Vary: Origin\r\nAccess-Control-Allow-Origin: %.*s\r\n", (int)field->value.size,
                 (const char *)field->value.data);
}

static void respond_options(struct shard *shard, const struct reply *reply, const char *allow,
                            const struct http_request *request)
{
    char fields[384];
    bool preflight = strstr(reply->cors, "Access-Control-Allow-Origin") != NULL &&
                     http_field_find(request, "Access-Control-Request-Method") != NULL;
    snprintf(fields, sizeof fields, "Allow: %s\r\n%s%s%s", allow,
             preflight ? "Access-Control-Allow-Methods: " : "", preflight ? allow : "",
             preflight ? "\r\nAccess-Control-Allow-Headers: Authorization, Content-Type\r\n"
                         "Access-Control-Max-Age: 600\r\n"
                       : "");
    rest_respond(shard, reply, 204, NULL, fields, bytes_of(NULL, 0));
}

/* ---- routing */

/* allow_list: methods of a path, "" if there is no such path. */
static void allow_list(char *out, size_t size, unsigned listener, struct bytes path)
{
    size_t at = 0;
    out[0] = '\0';
    for (size_t i = 0; i < COUNT_OF(routes); i++) {
        const struct route *route = &routes[i];
        if ((route->listeners & listener) == 0 || !text_is(path, route->path))
            continue;
        int n = snprintf(out + at, size - at, "%s%s", route->method,
                         strcmp(route->method, "GET") == 0 ? ", HEAD, " : ", ");
        CHECK(n > 0 && (size_t)n < size - at);
        at += (size_t)n;
    }
    if (at != 0)
        snprintf(out + at, size - at, "OPTIONS");
}

static const struct route *route_find(unsigned listener, struct bytes method, struct bytes path)
{
    for (size_t i = 0; i < COUNT_OF(routes); i++) {
        const struct route *route = &routes[i];
        if ((route->listeners & listener) != 0 && text_is(path, route->path) &&
            text_is(method, route->method))
            return route;
    }
    return NULL;
}

static bool method_known(struct bytes method)
{
    static const char *const known[] = {"GET",   "HEAD",    "POST",    "PUT",  "DELETE",
                                        "PATCH", "OPTIONS", "CONNECT", "TRACE"};
    for (size_t i = 0; i < COUNT_OF(known); i++) {
        if (text_is(method, known[i]))
            return true;
    }
    return false;
}

static void refuse_method(struct shard *shard, const struct reply *reply, const char *allow)
{
    char fields[128];
    if (allow[0] == '\0') {
        rest_fail(shard, reply,
                  (struct rest_error){404, "not_found", "there is nothing at this path", 0});
        return;
    }
    snprintf(fields, sizeof fields, "Allow: %s\r\n", allow);
    fail_with_fields(shard, reply,
                     (struct rest_error){405, "method_not_allowed",
                                         "this path does not take this method; see Allow", 0},
                     fields);
}

void api_handle(void *context, struct shard *shard, const struct exchange *exchange)
{
    const struct api *api = context;
    const struct http_request *request = exchange->request;
    unsigned listener = exchange->admin ? ROUTE_ADMIN : ROUTE_PUBLIC;
    struct reply reply = {.exchange = exchange->id, .head = text_is(request->method, "HEAD")};
    char allow[96];
    cors_set(&reply, api, request);
    if (!method_known(request->method)) {
        rest_fail(shard, &reply,
                  (struct rest_error){501, "unknown_method", "this method is not known here", 0});
        return;
    }
    allow_list(allow, sizeof allow, listener, request->path);
    struct bytes method = reply.head ? bytes_of_text("GET") : request->method;
    const struct route *route = route_find(listener, method, request->path);
    if (route == NULL && text_is(method, "OPTIONS") &&
        (allow[0] != '\0' || text_is(request->path, "*")))
        respond_options(shard, &reply, allow[0] != '\0' ? allow : "GET, HEAD, POST, OPTIONS",
                        request);
    else if (route == NULL)
        refuse_method(shard, &reply, allow);
    else if (request->body.size > api->options.config->body_bytes)
        rest_fail(shard, &reply,
                  (struct rest_error){413, "too_big", "the body is over the server's limit", 0});
    else
        route->handler(api, shard, exchange, &reply);
}

/* ---- bodies */

static bool is_json(const struct http_request *request)
{
    static const char json[] = "application/json";
    const struct http_field *field = http_field_find(request, "Content-Type");
    size_t size = sizeof json - 1;
    if (field == NULL || field->value.size < size ||
        strncasecmp((const char *)field->value.data, json, size) != 0)
        return false;
    /* parameters may follow (RFC 9110 8.3.1); JSON defines none */
    return field->value.size == size || strchr("; \t", field->value.data[size]) != NULL;
}

json_t *rest_body(struct shard *shard, const struct exchange *exchange, const struct reply *reply)
{
    json_t *body = NULL;
    if (!is_json(exchange->request)) {
        rest_fail(shard, reply,
                  (struct rest_error){415, "unsupported_media_type",
                                      "send a body with Content-Type: application/json", 0});
        return NULL;
    }
    enum err err = exchange->request->body.size == 0
                       ? ERR_INVALID
                       : json_text_parse(&body, exchange->request->body);
    if (err == OK)
        return body;
    if (err == ERR_NO_MEMORY)
        rest_fail(shard, reply, rest_error_of(err));
    else
        rest_fail(shard, reply,
                  (struct rest_error){400, "malformed", "the body is not one JSON object", 0});
    return NULL;
}

bool rest_text(struct bytes *out, struct shard *shard, const struct reply *reply,
               const json_t *body, const char *name, size_t min, size_t max, bool nul)
{
    char message[160];
    const json_t *value = json_object_get(body, name);
    if (value == NULL) {
        snprintf(message, sizeof message, "the field \"%s\" is missing", name);
    } else if (!json_is_string(value)) {
        snprintf(message, sizeof message, "the field \"%s\" must be text", name);
    } else {
        *out = bytes_of(json_string_value(value), json_string_length(value));
        if (out->size >= min && out->size <= max &&
            (nul || memchr(out->data, '\0', out->size) == NULL))
            return true;
        snprintf(message, sizeof message, "the field \"%s\" must have %zu to %zu bytes%s", name,
                 min, max, nul ? "" : " and no zero byte");
    }
    rest_fail(shard, reply, (struct rest_error){400, "invalid_field", message, 0});
    return false;
}

bool rest_flag(bool *out, struct shard *shard, const struct reply *reply, const json_t *body,
               const char *name)
{
    char message[160];
    const json_t *value = json_object_get(body, name);
    *out = json_is_true(value);
    if (value == NULL || json_is_boolean(value))
        return true;
    snprintf(message, sizeof message, "the field \"%s\" must be true or false", name);
    rest_fail(shard, reply, (struct rest_error){400, "invalid_field", message, 0});
    return false;
}

/* ---- calls */

struct call *call_of(struct catalog_job *job)
{
    return CONTAINER_OF(job, struct call, job);
}

struct call *call_of_worker(struct worker_job *job)
{
    return call_of(CONTAINER_OF(job, struct catalog_job, job));
}

static void on_done(struct worker_job *job, void *shard)
{
    struct call *call = call_of_worker(job);
    call->next(call, shard);
}

struct call *call_create(const struct api *api, struct shard *shard, const struct reply *reply,
                         struct bytes bearer)
{
    size_t size = sizeof(struct call) + bearer.size;
    struct call *call = memory_take_zeroed(size, MEMORY_API);
    if (call == NULL) {
        rest_fail(shard, reply, rest_error_of(ERR_NO_MEMORY));
        return NULL;
    }
    uint8_t *behind = (uint8_t *)(call + 1);
    call->api = api;
    call->reply = *reply;
    call->shard = shard_index(shard);
    call->now_ms = io_wall_ms(shard_io(shard));
    call->job.job.done = on_done;
    call->size = size;
    if (bearer.size != 0)
        memcpy(behind, bearer.data, bearer.size);
    call->bearer = bytes_of(behind, bearer.size);
    if (api->options.jwks != NULL)
        call->jwks = api->options.jwks(api->options.context, shard);
    if (call->jwks != NULL)
        jwks_retain(call->jwks);
    return call;
}

void call_destroy(struct call *call)
{
    if (call->jwks != NULL)
        jwks_release(call->jwks);
    OPENSSL_cleanse(call, call->size);
    memory_give(call, MEMORY_API);
}

void call_catalog(struct call *call, struct shard *shard,
                  enum err (*body)(struct catalog_txn *txn, struct catalog_job *job), bool write,
                  void (*next)(struct call *call, struct shard *shard))
{
    call->next = next;
    call->write = write;
    call->job.body = body;
    enum err err = catalog_submit(call->api->options.catalog, call->api->options.workers,
                                  &call->job, write, call->shard);
    if (err != OK)
        call_fail(call, shard, rest_error_of(err));
}

void call_work(struct call *call, struct shard *shard, void (*run)(struct worker_job *job),
               enum worker_class class, void (*next)(struct call *call, struct shard *shard))
{
    call->next = next;
    call->job.job.run = run;
    enum err err = worker_submit(call->api->options.workers, &call->job.job, class, call->shard);
    if (err == OK)
        return;
    struct rest_error error = rest_error_of(err);
    if (class == WORKER_HASH && err == ERR_FULL) {
        metric_add(shard_metrics(shard), METRIC_HASH_QUEUE_FULL, 1);
        error.retry_after_s = call->api->hash_retry_s;
    }
    call_fail(call, shard, error);
}

void call_respond(struct call *call, struct shard *shard, unsigned status, const char *content_type,
                  const char *fields, struct bytes body)
{
    rest_respond(shard, &call->reply, status, content_type, fields, body);
    call_destroy(call);
}

void call_fail(struct call *call, struct shard *shard, struct rest_error error)
{
    rest_fail(shard, &call->reply, error);
    call_destroy(call);
}

/* ---- what needs no worker */

static void respond_text(struct shard *shard, const struct reply *reply, const char *text)
{
    rest_respond(shard, reply, 200, TEXT, "Cache-Control: no-cache\r\n", bytes_of_text(text));
}

static void handle_root(const struct api *api, struct shard *shard, const struct exchange *exchange,
                        const struct reply *reply)
{
    (void)api;
    (void)exchange;
    respond_text(shard, reply,
                 "This is roost " ROOST_VERSION ", a messaging gateway.\n\n"
                 "WebSocket:      /connect (subprotocols roost.v1.proto, roost.v1.json)\n"
                 "Accounts:       POST /users, POST /auth/login\n"
                 "Documentation:  /openapi.json\n");
}

static void handle_admin_root(const struct api *api, struct shard *shard,
                              const struct exchange *exchange, const struct reply *reply)
{
    (void)api;
    (void)exchange;
    respond_text(shard, reply,
                 "roost " ROOST_VERSION ", admin listener: /healthz, /readyz, /metrics\n");
}

static void handle_health(const struct api *api, struct shard *shard,
                          const struct exchange *exchange, const struct reply *reply)
{
    (void)api;
    (void)exchange;
    respond_text(shard, reply, "ok\n");
}

static void handle_openapi(const struct api *api, struct shard *shard,
                           const struct exchange *exchange, const struct reply *reply)
{
    (void)api;
    (void)exchange;
    rest_respond(shard, reply, 200, "application/json", "Cache-Control: no-cache\r\n",
                 openapi_document());
}

/* handle_connect: upgrades never come here (flow takes them); this one forgot to ask. */
static void handle_connect(const struct api *api, struct shard *shard,
                           const struct exchange *exchange, const struct reply *reply)
{
    (void)api;
    (void)exchange;
    fail_with_fields(
        shard, reply,
        (struct rest_error){426, "upgrade_required", "connect here with a WebSocket client", 0},
        "Upgrade: websocket\r\nConnection: upgrade\r\n");
}
