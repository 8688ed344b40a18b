/* protocol.c: the public functions: frames, one encoding or the other, codes, payload helpers. */
#include "gateway/wire/protocol.h"

#include "gateway/wire/protocol_wire.h"

/* ---- decode */

/* decode_frame: every element of a binary frame into the caller's array of `size` byte structs. */
static enum err decode_frame(uint8_t *out, size_t size, size_t *count, struct bytes frame,
                             const struct schema_message *schema, struct buffer *scratch)
{
    const struct schema_field *row = &schema->fields[0];
    struct wire wire = wire_of(frame);
    size_t room = *count;

    *count = 0;
    while (!wire_end(&wire)) {
        struct wire_field field;
        TRY(wire_next(&wire, &field));
        if (field.number != row->number)
            continue;
        TRY(wire_check(row, &field));
        if (*count == room)
            return ERR_TOO_BIG;
        uint8_t *element = out + *count * size;
        memset(element, 0, size);
        TRY(binary_decode(row->message, element, field.data, scratch));
        ++*count;
    }
    return OK;
}

/* to_binary: *frame is in scratch then, if it was JSON. */
static enum err to_binary(struct bytes *frame, const struct schema_message *schema,
                          enum encoding encoding, struct buffer *scratch)
{
    if (encoding == ENCODING_PROTO)
        return OK;
    size_t start = scratch->size;
    TRY(json_to_binary(scratch, schema, *frame));
    *frame = bytes_of(scratch->data + start, scratch->size - start);
    return OK;
}

static enum err decode(void *out, size_t size, size_t *count, struct bytes frame,
                       const struct schema_message *schema, enum encoding encoding,
                       struct buffer *scratch)
{
    size_t room = *count;
    *count = 0;
    TRY(to_binary(&frame, schema, encoding, scratch));
    *count = room;
    return decode_frame(out, size, count, frame, schema, scratch);
}

enum err protocol_requests_to_binary(struct bytes *frame, enum encoding encoding,
                                     struct buffer *scratch)
{
    return to_binary(frame, &schema_client_frame, encoding, scratch);
}

enum err protocol_decode_requests(struct request *out, size_t *count, struct bytes frame,
                                  enum encoding encoding, struct buffer *scratch)
{
    return decode(out, sizeof *out, count, frame, &schema_client_frame, encoding, scratch);
}

enum err protocol_decode_events(struct event *out, size_t *count, struct bytes frame,
                                enum encoding encoding, struct buffer *scratch)
{
    return decode(out, sizeof *out, count, frame, &schema_server_frame, encoding, scratch);
}

/* ---- encode */

static enum err encode(struct buffer *out, const struct schema_message *schema, const void *base,
                       enum encoding encoding)
{
    size_t start = out->size;
    enum err err = encoding == ENCODING_PROTO ? binary_encode(out, schema, base)
                                              : json_encode(out, schema, base);
    if (err != OK)
        out->size = start;
    return err;
}

enum err protocol_encode_event(struct buffer *out, const struct event *event,
                               enum encoding encoding)
{
    return encode(out, &schema_event, event, encoding);
}

enum err protocol_encode_request(struct buffer *out, const struct request *request,
                                 enum encoding encoding)
{
    return encode(out, &schema_request, request, encoding);
}

/* ---- frames */

enum err protocol_frame_open(struct buffer *out, enum encoding encoding, bool from_server)
{
    if (encoding == ENCODING_PROTO)
        return OK;
    return buffer_append(out, bytes_of_text(from_server ? "{\"events\":[" : "{\"requests\":["));
}

enum err protocol_frame_element(struct buffer *out, struct bytes encoded, enum encoding encoding,
                                bool first)
{
    size_t start = out->size;
    enum err err = OK;

    if (encoding == ENCODING_PROTO)
        return wire_put_element(out, encoded);
    if (!first)
        err = buffer_put_u8(out, ',');
    if (err == OK)
        err = buffer_append(out, encoded);
    if (err != OK)
        out->size = start;
    return err;
}

enum err protocol_frame_close(struct buffer *out, enum encoding encoding)
{
    return encoding == ENCODING_PROTO ? OK : buffer_append(out, bytes_of_text("]}"));
}

/* ---- payload */

enum { PAYLOAD_CONTENT = 3 };

enum err protocol_payload_text(struct buffer *out, struct bytes content)
{
    size_t start = out->size;
    enum err err = wire_put_bytes(out, &schema_payload.fields[PAYLOAD_CONTENT - 1], content);

    if (err != OK)
        out->size = start;
    return err;
}

enum err protocol_payload_content(struct bytes *content, struct bytes payload)
{
    struct wire wire = wire_of(payload);

    *content = (struct bytes){NULL, 0};
    while (!wire_end(&wire)) {
        struct wire_field field;
        TRY(wire_next(&wire, &field));
        if (field.number != PAYLOAD_CONTENT)
            continue;
        TRY(wire_check(&schema_payload.fields[PAYLOAD_CONTENT - 1], &field));
        *content = field.data;
    }
    return OK;
}

/* ---- codes */

struct code_row {
    const char *name;
    enum verdict verdict;
};

/* The verdicts of PROTOCOL.md, section "Codes"; a test compares both. */
static const struct code_row codes[CODE_COUNT] = {
    [CODE_NONE] = {"NONE", VERDICT_RETRY},
    [CODE_MALFORMED] = {"MALFORMED", VERDICT_FATAL},
    [CODE_UNSUPPORTED] = {"UNSUPPORTED", VERDICT_FATAL},
    [CODE_TOO_BIG] = {"TOO_BIG", VERDICT_FATAL},
    [CODE_NOT_HELLO] = {"NOT_HELLO", VERDICT_FATAL},
    [CODE_HELLO_TIMEOUT] = {"HELLO_TIMEOUT", VERDICT_RETRY},
    [CODE_UNAUTHENTICATED] = {"UNAUTHENTICATED", VERDICT_RELOGIN},
    [CODE_TOKEN_EXPIRED] = {"TOKEN_EXPIRED", VERDICT_RELOGIN},
    [CODE_FORBIDDEN] = {"FORBIDDEN", VERDICT_FATAL},
    [CODE_NOT_FOUND] = {"NOT_FOUND", VERDICT_FATAL},
    [CODE_CONFLICT] = {"CONFLICT", VERDICT_FATAL},
    [CODE_SEQ_FROM_FUTURE] = {"SEQ_FROM_FUTURE", VERDICT_RESYNC},
    [CODE_RATE_LIMITED] = {"RATE_LIMITED", VERDICT_RETRY},
    [CODE_OVERLOADED] = {"OVERLOADED", VERDICT_RETRY},
    [CODE_NO_SPACE] = {"NO_SPACE", VERDICT_RETRY},
    [CODE_READ_ONLY] = {"READ_ONLY", VERDICT_RETRY},
    [CODE_MISSING_RANGE] = {"MISSING_RANGE", VERDICT_RESYNC},
    [CODE_EPOCH_CHANGED] = {"EPOCH_CHANGED", VERDICT_RESYNC},
    [CODE_REPLACED] = {"REPLACED", VERDICT_DISPLACED},
    [CODE_REVOKED] = {"REVOKED", VERDICT_RELOGIN},
    [CODE_HEARTBEAT_LOST] = {"HEARTBEAT_LOST", VERDICT_RETRY},
    [CODE_SHUTTING_DOWN] = {"SHUTTING_DOWN", VERDICT_RETRY},
    [CODE_INTERNAL] = {"INTERNAL", VERDICT_RETRY},
};

const char *code_name(enum code code)
{
    CHECK(code < CODE_COUNT);
    return codes[code].name;
}

enum verdict code_verdict(enum code code)
{
    CHECK(code < CODE_COUNT);
    return codes[code].verdict;
}
