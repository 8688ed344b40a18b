/* fuzz_http.c: any bytes as requests or responses (first byte's lowest bit), whole and in pieces
 * (its other bits): both must give the same messages and the same failure. */
#include "gateway/wire/http.h"

#include "core/memory.h"

#include <stdlib.h>

#define MESSAGES_MAX 64

struct outcome {
    enum err err;
    unsigned status;
    size_t messages;
    uint64_t digest; /* of all that was handed out */
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void digest(struct outcome *o, struct bytes b)
{
    for (size_t i = 0; i < b.size; i++)
        o->digest = (o->digest ^ b.data[i]) * 1099511628211ull;
    o->digest = (o->digest ^ 0x100) * 1099511628211ull;
}

static void digest_request(struct outcome *o, const struct http_request *r)
{
    digest(o, r->method);
    digest(o, r->path);
    digest(o, r->query);
    digest(o, r->body);
    for (size_t i = 0; i < r->field_count; i++) {
        digest(o, r->fields[i].name);
        digest(o, r->fields[i].value);
    }
    uint8_t flags[] = {r->keep_alive, r->upgrade, (uint8_t)(r->status >> 8), (uint8_t)r->status};
    digest(o, bytes_of(flags, sizeof flags));
    uint8_t value[64];
    struct buffer b = buffer_of(value, sizeof value);
    if (http_query_value(&b, r->query, "a") == OK)
        digest(o, buffer_bytes(&b));
    digest(o, http_cookie_find(r, "a"));
    o->messages++;
}

static struct outcome feed(struct bytes stream, bool responses, size_t chop)
{
    static const struct http_limits limits = {
        .header_bytes_max = 1024, .header_fields_max = 16, .body_bytes_max = 256};
    struct outcome o = {.err = ERR_AGAIN, .digest = 14695981039346656037ull};
    struct http_reader *reader;
    if (http_reader_create(&reader, &limits, responses) != OK)
        abort();
    while (stream.size != 0 && o.err == ERR_AGAIN && o.messages < MESSAGES_MAX) {
        struct bytes input = stream;
        if (chop != 0 && input.size > chop)
            input.size = chop;
        size_t offered = input.size;
        struct http_request request;
        o.err = http_receive(reader, &input, &request);
        CHECK(o.err != ERR_AGAIN || input.size == 0);
        stream = bytes_skip(stream, offered - input.size);
        if (o.err == OK) {
            digest_request(&o, &request);
            http_next(reader);
            CHECK(http_reader_idle(reader));
            o.err = ERR_AGAIN;
        }
    }
    o.status = http_reader_status(reader);
    http_reader_destroy(reader);
    CHECK(memory_bytes(MEMORY_API) == 0);
    return o;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct bytes stream = bytes_of(data + 1, size - 1);
    bool responses = (data[0] & 1) != 0;
    struct outcome whole = feed(stream, responses, 0);
    struct outcome pieces = feed(stream, responses, 1 + (data[0] >> 1));
    struct outcome bytes = feed(stream, responses, 1);
    CHECK(whole.err == pieces.err && whole.status == pieces.status);
    CHECK(whole.messages == pieces.messages && whole.digest == pieces.digest);
    CHECK(whole.err == bytes.err && whole.status == bytes.status);
    CHECK(whole.messages == bytes.messages && whole.digest == bytes.digest);
    return 0;
}
