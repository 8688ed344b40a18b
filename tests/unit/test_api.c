/* test_api.c: routing, health, metrics, CORS, documentation: what needs no account. */
#include "gateway/api/jwks_file.h"
#include "tests/unit/api_world.h"
#include "tests/unit/check.h"

#include <jansson.h>

static struct shard *world;

static int setup(void **state)
{
    (void)state;
    world = world_create(64, 64);
    return world != NULL ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    world_destroy(world);
    return 0;
}

static const struct answer *ask(struct ask question)
{
    const struct answer *answer = world_begin(world, &question);
    assert_true(world_finish(world, answer));
    return answer;
}

static const struct answer *get(const char *path)
{
    return ask((struct ask){.method = "GET", .path = path});
}

static const struct answer *admin(const char *path)
{
    return ask((struct ask){.method = "GET", .path = path, .admin = true});
}

static void assert_error(const struct answer *answer, unsigned status, const char *code)
{
    json_t *root = json_loadb(answer->body, answer->body_size, 0, NULL);
    assert_int_equal(answer->status, status);
    assert_string_equal(answer->content_type, "application/json");
    assert_non_null(root);
    json_t *error = json_object_get(root, "error");
    assert_string_equal(json_string_value(json_object_get(error, "code")), code);
    assert_true(json_string_length(json_object_get(error, "message")) > 0);
    json_t *retry = json_object_get(error, "retry_after_s");
    assert_int_equal(retry != NULL, strstr(answer->fields, "Retry-After: ") != NULL);
    json_decref(root);
}

static void test_texts(void **state)
{
    (void)state;
    const struct answer *root = get("/");
    assert_int_equal(root->status, 200);
    assert_non_null(strstr(root->body, "/connect"));
    assert_non_null(strstr(root->body, "roost"));
    const struct answer *health = get("/healthz");
    assert_int_equal(health->status, 200);
    assert_string_equal(health->body, "ok\n");
    assert_int_equal(admin("/healthz")->status, 200);
    assert_non_null(strstr(admin("/")->body, "/metrics"));
}

static void test_listeners_are_apart(void **state)
{
    (void)state;
    assert_error(get("/readyz"), 404, "not_found");
    assert_error(get("/metrics"), 404, "not_found");
    assert_error(admin("/connect"), 404, "not_found");
    assert_error(ask((struct ask){.method = "POST", .path = "/users", .admin = true}), 404,
                 "not_found");
    assert_error(ask((struct ask){.method = "POST", .path = "/metrics"}), 404, "not_found");
}

static void test_unknown_paths(void **state)
{
    static const char *const paths[] = {"/nothing", "/users/",  "/Users",   "",
                                        "//",       "/users/1", "/%75sers", "*"};
    (void)state;
    for (size_t i = 0; i < COUNT_OF(paths); i++)
        assert_error(get(paths[i]), 404, "not_found");
}

static void test_methods(void **state)
{
    (void)state;
    const struct answer *answer = ask((struct ask){.method = "DELETE", .path = "/users"});
    assert_error(answer, 405, "method_not_allowed");
    assert_non_null(strstr(answer->fields, "Allow: POST, GET, HEAD, OPTIONS\r\n"));
    answer = get("/auth/login");
    assert_error(answer, 405, "method_not_allowed");
    assert_non_null(strstr(answer->fields, "Allow: POST, OPTIONS\r\n"));
    assert_error(ask((struct ask){.method = "HEAD", .path = "/auth/login"}), 405,
                 "method_not_allowed");
    assert_error(ask((struct ask){.method = "BREW", .path = "/users"}), 501, "unknown_method");
    assert_error(ask((struct ask){.method = "get", .path = "/"}), 501, "unknown_method");
    answer = ask((struct ask){.method = "HEAD", .path = "/healthz"});
    assert_int_equal(answer->status, 200);
    assert_true(answer->head);
    assert_false(get("/healthz")->head);
}

static void test_options(void **state)
{
    (void)state;
    const struct answer *answer = ask((struct ask){.method = "OPTIONS", .path = "/users"});
    assert_int_equal(answer->status, 204);
    assert_non_null(strstr(answer->fields, "Allow: POST, GET, HEAD, OPTIONS\r\n"));
    assert_null(strstr(answer->fields, "Access-Control"));
    assert_int_equal(ask((struct ask){.method = "OPTIONS", .path = "*"})->status, 204);
    assert_error(ask((struct ask){.method = "OPTIONS", .path = "/nothing"}), 404, "not_found");
}

static const struct answer *preflight(const char *origin)
{
    return ask((struct ask){
        .method = "OPTIONS", .path = "/auth/login", .origin = origin, .preflight = "POST"});
}

static void test_cors(void **state)
{
    (void)state;
    assert_null(strstr(preflight("https://a.example")->fields, "Access-Control"));
    snprintf(world->config.origins, sizeof world->config.origins,
             "https://a.example, https://b.example");
    const struct answer *answer = preflight("https://b.example");
    assert_int_equal(answer->status, 204);
    assert_non_null(strstr(answer->fields, "Access-Control-Allow-Origin: https://b.example\r\n"));
    assert_non_null(strstr(answer->fields, "Access-Control-Allow-Methods: POST, OPTIONS\r\n"));
    assert_non_null(
        strstr(answer->fields, "Access-Control-Allow-Headers: Authorization, Content-Type\r\n"));
    assert_non_null(strstr(answer->fields, "Vary: Origin\r\n"));
    static const char *const others[] = {"https://c.example", "https://a.example.evil",
                                         "https://a.exampl", "null", ","};
    for (size_t i = 0; i < COUNT_OF(others); i++) {
        answer = preflight(others[i]);
        assert_null(strstr(answer->fields, "Access-Control"));
        assert_non_null(strstr(answer->fields, "Vary: Origin\r\n"));
    }
    answer = ask((struct ask){.method = "GET", .path = "/nothing", .origin = "https://a.example"});
    assert_error(answer, 404, "not_found"); /* pages may read errors too */
    assert_non_null(strstr(answer->fields, "Access-Control-Allow-Origin: https://a.example\r\n"));
    snprintf(world->config.origins, sizeof world->config.origins, "*");
    assert_non_null(strstr(preflight("null")->fields, "Access-Control-Allow-Origin: *\r\n"));
    world->config.origins[0] = '\0';
}

static void test_too_big(void **state)
{
    static uint8_t body[70000];
    (void)state;
    assert_error(ask((struct ask){.method = "POST",
                                  .path = "/users",
                                  .content_type = "application/json",
                                  .body = bytes_of(body, world->config.body_bytes + 1)}),
                 413, "too_big");
    assert_error(ask((struct ask){.method = "POST",
                                  .path = "/users",
                                  .content_type = "application/json",
                                  .body = bytes_of(body, world->config.body_bytes)}),
                 400, "malformed");
}

static void test_connect_without_upgrade(void **state)
{
    (void)state;
    const struct answer *answer = get("/connect");
    assert_error(answer, 426, "upgrade_required");
    assert_non_null(strstr(answer->fields, "Upgrade: websocket\r\n"));
}

static void test_ready(void **state)
{
    (void)state;
    const struct answer *answer = admin("/readyz");
    assert_int_equal(answer->status, 200);
    assert_string_equal(answer->body, "ready\n");
    world->ready = false;
    answer = admin("/readyz");
    assert_int_equal(answer->status, 503);
    assert_string_equal(answer->body, "the log is being replayed\n");
    world->ready = true;
}

static void test_metrics(void **state)
{
    (void)state;
    metric_add(world->metrics, METRIC_HASH_QUEUE_FULL, 41);
    const struct answer *answer = admin("/metrics");
    assert_int_equal(answer->status, 200);
    assert_string_equal(answer->content_type, "text/plain; version=0.0.4; charset=utf-8");
    static const char *const lines[] = {"\nroost_hash_queue_full_total 41\n",
                                        "\nroost_build_info{version=\"",
                                        "\nroost_memory_bytes{purpose=\"", "\nroost_shards 1\n",
                                        "\n# TYPE process_resident_memory_bytes gauge\n"};
    for (size_t i = 0; i < COUNT_OF(lines); i++)
        assert_non_null(strstr(answer->body, lines[i]));
    const char *resident = strstr(answer->body, "\nprocess_resident_memory_bytes ");
    assert_non_null(resident);
    assert_true(strtoull(resident + 31, NULL, 10) > 1000000);
    assert_int_equal(answer->body[answer->body_size - 1], '\n');
}

/* ---- openapi.json says what the table says */

static json_t *operation_of(json_t *document, const struct route *route)
{
    char method[8];
    snprintf(method, sizeof method, "%s", route->method);
    for (char *c = method; *c != '\0'; c++)
        *c = (char)(*c - 'A' + 'a');
    json_t *paths = json_object_get(document, "paths");
    return json_object_get(json_object_get(paths, route->path), method);
}

static bool route_exists(const char *path, const char *method)
{
    size_t count;
    const struct route *routes = rest_routes(&count);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(routes[i].path, path) == 0 && strcasecmp(routes[i].method, method) == 0)
            return true;
    }
    return false;
}

static void test_openapi(void **state)
{
    size_t count;
    const struct route *routes = rest_routes(&count);
    (void)state;
    const struct answer *answer = get("/openapi.json");
    assert_int_equal(answer->status, 200);
    assert_string_equal(answer->content_type, "application/json");
    json_t *document = json_loadb(answer->body, answer->body_size, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(document);
    assert_string_equal(json_string_value(json_object_get(document, "openapi")), "3.1.0");
    for (size_t i = 0; i < count; i++) {
        json_t *operation = operation_of(document, &routes[i]);
        if (!json_is_object(json_object_get(operation, "responses")))
            fail_msg("openapi.json lacks %s %s", routes[i].method, routes[i].path);
    }
    const char *path, *member;
    json_t *item, *operation;
    json_object_foreach(json_object_get(document, "paths"), path, item)
    {
        json_object_foreach(item, member, operation)
        {
            if (strcmp(member, "servers") != 0 && !route_exists(path, member))
                fail_msg("openapi.json has %s %s, which does not exist", member, path);
        }
    }
    json_decref(document);
}

/* ---- a queue that is full, an allocation that fails */

static void test_full_queue(void **state)
{
    (void)state;
    struct shard *full = world_create(0, 0);
    assert_non_null(full);
    struct ask question = {.method = "GET", .path = "/metrics", .admin = true};
    const struct answer *answer = world_begin(full, &question);
    assert_true(world_finish(full, answer));
    assert_error(answer, 503, "overloaded");
    question = (struct ask){.method = "POST",
                            .path = "/users",
                            .content_type = "application/json",
                            .body = bytes_of_text("{\"name\":\"a\",\"password\":\"12345678\"}")};
    answer = world_begin(full, &question);
    assert_true(world_finish(full, answer));
    assert_error(answer, 503, "overloaded");
    world_destroy(full);
}

static void test_no_memory(void **state)
{
    int64_t before = memory_bytes(MEMORY_API);
    unsigned refused = 0;
    (void)state;
    for (uint64_t n = 1; n <= 4; n++) {
        memory_fail_at(n);
        const struct answer *answer = admin("/metrics");
        memory_fail_at(0);
        assert_true(answer->status == 200 || answer->status == 503);
        refused += answer->status == 503;
    }
    assert_true(refused > 0);
    assert_int_equal(memory_bytes(MEMORY_API), before);
}

static void test_hashing_that_cannot_work(void **state)
{
    struct api *api = world->api;
    (void)state;
    world->config.hash_memory_kib = 1; /* argon2 wants 8 KiB at least */
    assert_int_equal(world_api(world), ERR_INVALID);
    world->config.hash_memory_kib = 64;
    world->api = api;
}

/* ---- jwks_file */

static enum err load_keys(struct jwks **keys, const char *text, char explanation[512])
{
    struct config config;
    char path[128];
    snprintf(path, sizeof path, "%s/keys.json", world->directory);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    config_defaults(&config);
    snprintf(config.jwks, sizeof config.jwks, "%s", path);
    snprintf(config.issuer, sizeof config.issuer, "issuer");
    snprintf(config.audience, sizeof config.audience, "audience");
    return jwks_file_load(keys, &config, explanation, 512);
}

static void test_jwks_file(void **state)
{
    uint8_t text[1024];
    struct buffer out = buffer_of(text, sizeof text - 1);
    struct jwks *keys = NULL;
    struct config config;
    char explanation[512];
    (void)state;
    assert_int_equal(jwks_encode(&out, &world->signer, "one"), OK);
    text[out.size] = '\0';
    assert_int_equal(load_keys(&keys, (const char *)text, explanation), OK);
    assert_int_equal(jwks_count(keys), 1);
    struct jwks *kept = keys;
    assert_int_equal(load_keys(&keys, "{\"keys\":[{}]}", explanation), ERR_INVALID);
    assert_non_null(strstr(explanation, "keys.json: "));
    assert_ptr_equal(keys, kept); /* a bad reload leaves what there was */
    jwks_release(kept);
    config_defaults(&config);
    assert_int_equal(jwks_file_load(&keys, &config, explanation, sizeof explanation), OK);
    assert_null(keys);
    snprintf(config.jwks, sizeof config.jwks, "/nonexistent/keys.json");
    assert_int_equal(jwks_file_load(&keys, &config, explanation, sizeof explanation),
                     ERR_NOT_FOUND);
    assert_non_null(strstr(explanation, "/nonexistent/keys.json: cannot be read"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts),         cmocka_unit_test(test_listeners_are_apart),
        cmocka_unit_test(test_unknown_paths), cmocka_unit_test(test_methods),
        cmocka_unit_test(test_options),       cmocka_unit_test(test_cors),
        cmocka_unit_test(test_too_big),       cmocka_unit_test(test_connect_without_upgrade),
        cmocka_unit_test(test_ready),         cmocka_unit_test(test_metrics),
        cmocka_unit_test(test_openapi),       cmocka_unit_test(test_full_queue),
        cmocka_unit_test(test_no_memory),     cmocka_unit_test(test_hashing_that_cannot_work),
        cmocka_unit_test(test_jwks_file),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
