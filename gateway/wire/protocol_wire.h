/* protocol_wire.h: the Protocol Buffers wire format, field by field; and what the two encodings
 * offer to protocol.c.
 * Flow:       protocol.c → protocol_binary.c, protocol_json.c → here
 * Owns:       nothing
 * Invariants: a struct wire never points past its end
 * Failure:    ERR_INVALID from malformed bytes, ERR_FULL from out or scratch without room: part may
 *             have been appended then, protocol.c restores the size
 * Bounds:     no recursion over input that the schema does not know: unknown fields are skipped by
 *             their length, groups are refused
 * Standard:   Protocol Buffers encoding, proto2: https://protobuf.dev/programming-guides/encoding
 */
#ifndef GATEWAY_WIRE_PROTOCOL_WIRE_H
#define GATEWAY_WIRE_PROTOCOL_WIRE_H

#include "gateway/wire/protocol_schema.h"

struct wire {
    const uint8_t *at;
    const uint8_t *end;
};

struct wire_field {
    uint32_t number;
    enum wire_type type;
    uint64_t value;    /* VARINT, FIXED64, FIXED32 */
    struct bytes data; /* BYTES */
};

static inline struct wire wire_of(struct bytes bytes)
{
    return (struct wire){bytes.data, bytes.size == 0 ? bytes.data : bytes.data + bytes.size};
}

static inline bool wire_end(const struct wire *wire)
{
    return wire->at == wire->end;
}

/* wire_next: take one field. ERR_INVALID: truncated, a number of 0 or above 2^29-1, a varint over
 * 64 bits, a group. */
MUST_USE enum err wire_next(struct wire *wire, struct wire_field *field);
/* wire_check: that a known field's value is what its row allows (type, range, UTF-8, id length). */
MUST_USE enum err wire_check(const struct schema_field *row, const struct wire_field *field);

MUST_USE enum err wire_put_varint(struct buffer *out, uint64_t value);
MUST_USE enum err wire_put_tag(struct buffer *out, const struct schema_field *row);
MUST_USE enum err wire_put_bytes(struct buffer *out, const struct schema_field *row,
                                 struct bytes data);
/* wire_put_element: the same for a frame's one field, number 1; nothing is appended on ERR_FULL. */
MUST_USE enum err wire_put_element(struct buffer *out, struct bytes encoded);
/* wire_open, wire_close: a field whose length is known only when it is written: wire_open appends
 * the tag and one byte of room; wire_close fills the length in, moving the content if it needs
 * more. */
MUST_USE enum err wire_open(struct buffer *out, const struct schema_field *row, size_t *start);
MUST_USE enum err wire_close(struct buffer *out, size_t start);

/* binary_decode: `in` into the zeroed struct at `base`; repeated fields go to scratch. */
MUST_USE enum err binary_decode(const struct schema_message *message, void *base, struct bytes in,
                                struct buffer *scratch);
MUST_USE enum err binary_encode(struct buffer *out, const struct schema_message *message,
                                const void *base);
/* binary_validate: a message that stays encoded is what its table allows, at every level. */
MUST_USE enum err binary_validate(const struct schema_message *message, struct bytes in);

/* json_encode: a struct as JSON text. */
MUST_USE enum err json_encode(struct buffer *out, const struct schema_message *message,
                              const void *base);
/* json_to_binary: JSON text of a frame to the same frame's binary form, appended to scratch. */
MUST_USE enum err json_to_binary(struct buffer *scratch, const struct schema_message *message,
                                 struct bytes text);

#endif
