/* fuzz_websocket.c: any bytes as frames to a server or a client (first byte's lowest bit), whole
 * and in pieces (its other bits): both must give the same messages and the same close code; every
 * text is UTF-8, every limit holds. */
#include "gateway/wire/websocket.h"

#include "core/memory.h"
#include "core/text.h"

#include <stdlib.h>

struct outcome {
    enum websocket_result last;
    size_t messages;
    uint64_t digest;
    bool idle;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void digest(struct outcome *o, const void *data, size_t size)
{
    for (size_t i = 0; i < size; i++)
        o->digest = (o->digest ^ ((const uint8_t *)data)[i]) * 1099511628211ull;
    o->digest = (o->digest ^ size) * 1099511628211ull;
}

static void message_check(const struct websocket_message *m, const struct websocket_limits *limits)
{
    if (m->opcode == WEBSOCKET_TEXT || m->opcode == WEBSOCKET_CLOSE)
        CHECK(utf8_valid(m->data));
    CHECK(m->data.size <= (m->opcode >= WEBSOCKET_CLOSE ? 125 : limits->message_bytes_max));
}

static struct outcome feed(struct bytes stream, bool client, size_t chop)
{
    struct websocket_limits limits = {
        .message_bytes_max = 6000, .fragments_max = 5, .client = client};
    struct outcome o = {.last = WEBSOCKET_MORE, .digest = 14695981039346656037ull};
    struct websocket_engine *engine;
    struct websocket w = {0};
    if (websocket_engine_create(&engine, NULL, NULL) != OK)
        abort();
    while (stream.size != 0 && o.last != WEBSOCKET_FAILED) {
        struct bytes input = stream;
        if (chop != 0 && input.size > chop)
            input.size = chop;
        size_t offered = input.size;
        struct websocket_message m;
        o.last = websocket_receive(&w, engine, &limits, &input, &m);
        CHECK(o.last != WEBSOCKET_MORE || input.size == 0);
        stream = bytes_skip(stream, offered - input.size);
        if (o.last == WEBSOCKET_MORE)
            continue;
        digest(&o, &m.close_code, sizeof m.close_code);
        if (o.last == WEBSOCKET_MESSAGE) {
            message_check(&m, &limits);
            digest(&o, &m.opcode, sizeof m.opcode);
            digest(&o, m.data.data, m.data.size);
            o.messages++;
        }
    }
    o.idle = websocket_idle(&w);
    websocket_deinit(&w, engine);
    websocket_engine_destroy(engine);
    CHECK(memory_bytes(MEMORY_CONNECTION) == 0);
    return o;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct bytes stream = bytes_of(data + 1, size - 1);
    bool client = (data[0] & 1) != 0;
    struct outcome whole = feed(stream, client, 0);
    struct outcome pieces = feed(stream, client, 1 + (data[0] >> 1));
    CHECK(whole.messages == pieces.messages && whole.digest == pieces.digest);
    CHECK((whole.last == WEBSOCKET_FAILED) == (pieces.last == WEBSOCKET_FAILED));
    CHECK(whole.idle == pieces.idle);
    return 0;
}
