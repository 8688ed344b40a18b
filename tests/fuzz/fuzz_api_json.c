/* fuzz_api_json.c: any request to the api gets exactly one answer, and its failures say why. The
 * first byte chooses method, path and fields; up to a line feed comes a header value or query, then
 * the body. The workers' queues hold nothing: what is well formed ends in 503. */
#include "gateway/api/rest.h"
#include "tests/unit/api_world.h"

#include "gateway/wire/json_text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_answer(const struct answer *answer)
{
    json_t *root;
    CHECK(answer->given);
    if (answer->status < 400)
        return;
    enum err err = json_text_parse(&root, bytes_of(answer->body, answer->body_size));
    CHECK(err == OK);
    const json_t *error = json_object_get(root, "error");
    CHECK(json_is_string(json_object_get(error, "code")));
    CHECK(json_is_string(json_object_get(error, "message")));
    json_decref(root);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct shard *world; /* one for all runs: making it takes long */
    static const char *const methods[] = {"POST", "POST", "GET", "HEAD", "OPTIONS", "PUT", "X", ""};
    static const char *const paths[] = {"/users", "/auth/login", "/auth/refresh", "/auth/logout"};
    char line[512];
    if (world == NULL) {
        world = world_create(0, 0);
        CHECK(world != NULL);
        snprintf(world->config.origins, sizeof world->config.origins, "https://a.example");
    }
    if (size == 0)
        return 0;
    uint8_t choice = data[0];
    struct bytes rest = bytes_of(data + 1, size - 1);
    const uint8_t *feed = rest.size != 0 ? memchr(rest.data, '\n', rest.size) : NULL;
    size_t line_size = feed != NULL ? (size_t)(feed - rest.data) : 0;
    size_t kept = line_size < sizeof line ? line_size : sizeof line - 1;
    if (kept != 0)
        memcpy(line, rest.data, kept);
    line[kept] = '\0';
    if (feed != NULL)
        rest = bytes_skip(rest, line_size + 1);
    struct ask question = {.method = methods[choice & 7],
                           .path = paths[choice >> 3 & 3],
                           .query = line,
                           .content_type = (choice & 32) != 0 ? line : "application/json",
                           .bearer = (choice & 64) != 0 ? line : NULL,
                           .origin = (choice & 128) != 0 ? line : NULL,
                           .body = rest};
    check_answer(world_begin(world, &question));
    return 0;
}
