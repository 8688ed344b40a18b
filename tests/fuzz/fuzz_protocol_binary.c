/* fuzz_protocol_binary.c: any bytes as a frame from a client and as one from a server: decoding
 * never reads or writes astray; what decodes encodes, and its encodings, binary and JSON, decode to
 * the same again. */
#include "gateway/wire/protocol.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { ELEMENTS = 64, IN_BYTES = 1 << 16, OUT_BYTES = 16 * IN_BYTES };

/* One pass: a frame decoded, and its elements encoded again. */
struct pass {
    union {
        struct request requests[ELEMENTS];
        struct event events[ELEMENTS];
    };
    size_t count;
    uint8_t scratch[4 * OUT_BYTES];
    uint8_t element[OUT_BYTES];
    uint8_t out[OUT_BYTES];
};

static enum err decode(struct pass *pass, struct bytes frame, enum encoding encoding,
                       bool from_server)
{
    struct buffer scratch = buffer_of(pass->scratch, sizeof pass->scratch);
    pass->count = ELEMENTS;
    return from_server
               ? protocol_decode_events(pass->events, &pass->count, frame, encoding, &scratch)
               : protocol_decode_requests(pass->requests, &pass->count, frame, encoding, &scratch);
}

static struct bytes encode(struct pass *pass, enum encoding encoding, bool from_server)
{
    struct buffer out = buffer_of(pass->out, sizeof pass->out);

    CHECK(protocol_frame_open(&out, encoding, from_server) == OK);
    for (size_t i = 0; i < pass->count; i++) {
        struct buffer one = buffer_of(pass->element, sizeof pass->element);
        enum err err = from_server ? protocol_encode_event(&one, &pass->events[i], encoding)
                                   : protocol_encode_request(&one, &pass->requests[i], encoding);
        CHECK(err == OK);
        CHECK(protocol_frame_element(&out, buffer_bytes(&one), encoding, i == 0) == OK);
    }
    CHECK(protocol_frame_close(&out, encoding) == OK);
    return buffer_bytes(&out);
}

static void check(struct pass *first, struct pass *second, bool from_server)
{
    struct bytes proto = encode(first, ENCODING_PROTO, from_server);
    CHECK(decode(second, proto, ENCODING_PROTO, from_server) == OK);
    CHECK(second->count == first->count);
    CHECK(bytes_equal(encode(second, ENCODING_PROTO, from_server), proto));

    /* A payload of unknown fields alone is {} in JSON, which is absent when read again. */
    struct bytes json = encode(first, ENCODING_JSON, from_server);
    enum err err = decode(second, json, ENCODING_JSON, from_server);
    if (err == ERR_TOO_BIG) /* more values than JSON may have */
        return;
    CHECK(err == OK);
    CHECK(second->count == first->count);
    if (memmem(json.data, json.size, "\"payload\":{}", 12) == NULL)
        CHECK(bytes_equal(encode(second, ENCODING_JSON, from_server), json));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct pass *first; /* made once: a fresh megabyte per input is slow to poison */
    static struct pass *second;

    if (size > IN_BYTES)
        return 0;
    if (first == NULL) {
        first = malloc(sizeof *first);
        second = malloc(sizeof *second);
        CHECK(first != NULL && second != NULL);
    }
    for (int from_server = 0; from_server < 2; from_server++)
        if (decode(first, bytes_of(data, size), ENCODING_PROTO, from_server != 0) == OK)
            check(first, second, from_server != 0);
    return 0;
}
