/* upgrade.c: a complete HTTP request: a WebSocket handshake (RFC 6455 4.2), or an exchange for
 * api/. The Origin rule: a browser always names one, and then it must be allowed; a request without
 * one may not use a cookie. */
#include "gateway/flow/egress.h"
#include "gateway/flow/ingress.h"
#include "gateway/flow/login.h"

#include <stdio.h>

#define COOKIE_NAME "roost_access"

static void answer(struct shard *shard, struct connection *connection, unsigned status,
                   const char *fields, const char *text)
{
    struct http_response response = {.status = status,
                                     .content_type = "text/plain",
                                     .fields = fields,
                                     .body = bytes_of_text(text),
                                     .close = true};
    exchange_respond(shard, (struct exchange_id){connection_handle(shard, connection)}, &response);
}

/* "https://host[:port]" against the Host field: the page came from this very host. */
static bool same_host(struct bytes origin, const struct http_request *request)
{
    const struct http_field *host = http_field_find(request, "Host");
    static const char scheme[] = "https://";
    size_t prefix = sizeof scheme - 1;
    return host != NULL && origin.size > prefix && memcmp(origin.data, scheme, prefix) == 0 &&
           bytes_equal(bytes_skip(origin, prefix), host->value);
}

/* The origin is known: named by the operator, or this very host where none is named. Only such a
 * page may use a cookie: with origins = * any page could speak as whoever visits it. */
static bool origin_trusted(const struct shard *shard, const struct http_request *request,
                           struct bytes origin)
{
    const char *list = shard->gateway->config->origins;
    return list[0] == 0 ? same_host(origin, request) : origins_contain(list, origin);
}

static bool origin_allowed(const struct shard *shard, const struct http_request *request,
                           struct bytes origin)
{
    return strcmp(shard->gateway->config->origins, "*") == 0 ||
           origin_trusted(shard, request, origin);
}

/* The handshake's own rules; status 0: fine. */
static unsigned handshake_fault(const struct http_request *request, const char **text)
{
    const struct http_field *version = http_field_find(request, "Sec-WebSocket-Version");
    if (!bytes_equal(request->method, bytes_of_text("GET"))) {
        *text = "use GET to open a WebSocket";
        return 405;
    }
    if (!request->upgrade || !http_field_has_token(request, "Upgrade", "websocket")) {
        *text = "this is a WebSocket endpoint: connect with wss://";
        return 426;
    }
    if (version == NULL || !bytes_equal(version->value, bytes_of_text("13"))) {
        *text = "Sec-WebSocket-Version must be 13";
        return 426;
    }
    return 0;
}

/* Fields that may come once (RFC 6455 11.3, RFC 6454 7.3): with two of them a proxy before us may
 * have judged another one. */
static bool fields_single(const struct http_request *request)
{
    static const char *const names[] = {"Origin", "Sec-WebSocket-Key", "Sec-WebSocket-Version"};
    for (size_t i = 0; i < COUNT_OF(names); i++)
        if (http_field_repeated(request, names[i]))
            return false;
    return true;
}

/* The first in the client's list that is known here: its order is its wish (RFC 6455 4.1). */
static const char *choose_subprotocol(struct connection *connection,
                                      const struct http_request *request)
{
    static const char *const names[] = {
        [ENCODING_PROTO] = SUBPROTOCOL_PROTO, [ENCODING_JSON] = SUBPROTOCOL_JSON};
    size_t chosen =
        http_field_first_token(request, "Sec-WebSocket-Protocol", names, COUNT_OF(names));
    if (chosen == COUNT_OF(names))
        return NULL;
    connection->encoding = (uint8_t)chosen;
    return names[chosen];
}

static void switch_protocols(struct shard *shard, struct connection *connection,
                             const char *accept_key, const char *subprotocol)
{
    char text[256];
    int size = snprintf(text, sizeof text,
                        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                        "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n%s%s%s\r\n",
                        accept_key, subprotocol != NULL ? "Sec-WebSocket-Protocol: " : "",
                        subprotocol != NULL ? subprotocol : "", subprotocol != NULL ? "\r\n" : "");
    egress_plain(shard, connection, bytes_of(text, (size_t)size));
    shard_count(shard, METRIC_HTTP_REQUESTS, 1);
    connection_uncount(shard, connection);
    http_reader_destroy(connection->http);
    connection->http = NULL;
}

static void welcome(struct shard *shard, struct connection *connection)
{
    const struct config *config = shard->gateway->config;
    struct event event = {
        .kind = EVENT_WELCOME,
        .welcome = {.version = 1,
                    .server = bytes_of_text(shard->gateway->server),
                    .time_ms = shard->wall_ms,
                    .store_epoch = bytes_of(shard->gateway->store_epoch, 16),
                    .heartbeat_ms = config->heartbeat_ms,
                    .heartbeat_min_ms = config->heartbeat_min_ms,
                    .heartbeat_max_ms = config->heartbeat_max_ms,
                    .hello_timeout_ms = config->hello_timeout_ms,
                    .message_bytes_max = config->message_bytes,
                    .fragments_max = config->fragments,
                    .requests_max = config->requests_per_frame,
                    .retention_age_s = config->retention_age_s,
                    .retention_age_max_s = config_retention_age_max_s(config)},
    };
    egress_event(shard, connection, &event);
}

static bool upgrade_connect(struct shard *shard, struct connection *connection,
                            const struct http_request *request, const char *accept_key)
{
    const struct http_field *origin = http_field_find(request, "Origin");
    if (origin != NULL && !origin_allowed(shard, request, origin->value)) {
        answer(shard, connection, 403, NULL,
               "this Origin is not on the gateway's list (listen.origins)");
        return false;
    }
    const char *subprotocol = choose_subprotocol(connection, request);
    if (subprotocol == NULL) {
        answer(shard, connection, 400, NULL,
               "Sec-WebSocket-Protocol must offer " SUBPROTOCOL_PROTO " or " SUBPROTOCOL_JSON);
        return false;
    }
    struct bytes cookie = {NULL, 0};
    if (origin != NULL && origin_trusted(shard, request, origin->value))
        cookie = http_cookie_find(request, COOKIE_NAME);
    struct login *login = NULL;
    if (cookie.size != 0 && login_create(&login, cookie) != OK) {
        answer(shard, connection, 503, "Retry-After: 1\r\n", "out of memory");
        return false;
    }
    switch_protocols(shard, connection, accept_key, subprotocol);
    connection_set_state(connection, CONNECTION_UPGRADED);
    connection->login = login;
    timer_start(&shard->timers, &connection->timer,
                shard->now_ns + shard->gateway->config->hello_timeout_ms * NS_PER_MS);
    welcome(shard, connection);
    return true;
}

static void exchange(struct shard *shard, struct connection *connection,
                     const struct http_request *request)
{
    struct exchange exchange = {
        .id = {connection_handle(shard, connection)},
        .request = request,
        .peer = connection->peer,
        .admin = connection->admin,
    };
    shard->gateway->api(shard->gateway->api_context, shard, &exchange);
}

bool upgrade_request(struct shard *shard, struct connection *connection,
                     const struct http_request *request)
{
    bool connect = bytes_equal(request->path, bytes_of_text("/connect"));
    bool echo = shard->gateway->config->echo && bytes_equal(request->path, bytes_of_text("/echo"));
    const char *text = NULL;
    char accept_key[29];
    connection_set_state(connection, CONNECTION_EXCHANGE);
    if (connection->refused) {
        shard_count(shard, METRIC_CONNECTIONS_REFUSED, 1);
        answer(shard, connection, 503, "Retry-After: 5\r\n",
               "the gateway is full (limits.max_connections)");
        return false;
    }
    if (connection->admin || (!connect && !echo)) {
        exchange(shard, connection, request);
        return false;
    }
    if (shard->phase != GATEWAY_SERVING) {
        answer(shard, connection, 503, "Retry-After: 1\r\n", "the gateway is shutting down");
        return false;
    }
    unsigned status = handshake_fault(request, &text);
    if (status != 0) {
        answer(shard, connection, status,
               status == 405 ? "Allow: GET\r\n"
                             : "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
               text);
        return false;
    }
    if (!fields_single(request)) {
        answer(shard, connection, 400, NULL,
               "Origin, Sec-WebSocket-Key and Sec-WebSocket-Version may come once");
        return false;
    }
    const struct http_field *key = http_field_find(request, "Sec-WebSocket-Key");
    if (key == NULL || websocket_accept_key(accept_key, key->value) != OK) {
        answer(shard, connection, 400, NULL, "Sec-WebSocket-Key must be 16 bytes in base64");
        return false;
    }
    if (connect)
        return upgrade_connect(shard, connection, request, accept_key);
    switch_protocols(shard, connection, accept_key, NULL);
    connection_set_state(connection, CONNECTION_ECHO);
    timer_stop(&shard->timers, &connection->timer);
    return true;
}
