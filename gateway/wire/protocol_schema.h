/* protocol_schema.h: roost.proto as constant tables: one row per field, one table per message.
 * Flow:       roost.proto → (a test compares them through protoc) → here → protocol_binary.c,
 *             protocol_json.c
 * Owns:       nothing; everything is const
 * Invariants: field numbers of a message are 1, 2, 3 … without gaps, so fields[number - 1] is the
 *             row; singular fields of a message never contain the message again, so nesting is
 *             bounded by the schema (6 levels)
 * Failure:    none
 * Bounds:     at most SCHEMA_FIELDS_MAX fields per message */
#ifndef GATEWAY_WIRE_PROTOCOL_SCHEMA_H
#define GATEWAY_WIRE_PROTOCOL_SCHEMA_H

#include "gateway/wire/protocol.h"

#define SCHEMA_FIELDS_MAX  16
#define SCHEMA_NONE        0xffff             /* no such offset */
#define SCHEMA_INTEGER_MAX ((1ull << 53) - 1) /* what JSON's numbers carry exactly */

/* What the field is in roost.proto; TYPE_UUID: bytes whose name ends in _id. */
enum schema_type {
    TYPE_UINT64,
    TYPE_UINT32,
    TYPE_BOOL,
    TYPE_ENUM,
    TYPE_FIXED64,
    TYPE_STRING,
    TYPE_BYTES,
    TYPE_UUID,
    TYPE_MESSAGE,
};

/* What it is in protocol.h's structs. */
enum schema_form {
    FORM_NONE,         /* nowhere: part of a Payload, which stays encoded */
    FORM_U64,          /* uint64_t, struct user_id */
    FORM_U32,          /* uint32_t, enum, struct device_id, struct realm_id */
    FORM_BOOL,         /* bool */
    FORM_BYTES,        /* struct bytes: text, bytes, 16-byte ids, and a Payload, encoded */
    FORM_MESSAGE_ID,   /* struct message_id */
    FORM_CONVERSATION, /* struct conversation_id */
    FORM_STRUCT,       /* an embedded struct */
    FORM_ARRAY,        /* pointer at `offset`, size_t at `count_offset` */
};

enum wire_type { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

struct schema_value {
    const char *name;
    uint32_t number;
};

struct schema_enum {
    const char *name;
    const struct schema_value *values; /* numbers ascending */
    size_t value_count;
};

struct schema_message;

struct schema_field {
    const char *name;
    uint8_t number;
    uint8_t type; /* enum schema_type */
    uint8_t form; /* enum schema_form */
    uint8_t wire; /* enum wire_type */
    uint8_t body; /* of Request and Event: the value of `kind` that selects it */
    bool repeated;
    bool initial;          /* a bool that is true when absent */
    uint16_t offset;       /* into the struct */
    uint16_t has_offset;   /* of the presence flag, or SCHEMA_NONE: present unless 0 */
    uint16_t count_offset; /* FORM_ARRAY */
    uint16_t element_size; /* FORM_ARRAY */
    const struct schema_message *message; /* TYPE_MESSAGE */
    const struct schema_enum *values;     /* TYPE_ENUM */
};

struct schema_message {
    const char *name;
    const struct schema_field *fields;
    uint8_t field_count;
    bool prepared;        /* has arrays or initial values: decoding prepares the struct first */
    uint16_t kind_offset; /* of `kind` in struct request and struct event, else SCHEMA_NONE */
};

extern const struct schema_message schema_client_frame;
extern const struct schema_message schema_server_frame;
extern const struct schema_message schema_request;
extern const struct schema_message schema_event;
extern const struct schema_message schema_payload;

/* schema_messages: every message and enum, for the comparison with roost.proto. */
extern const struct schema_message *const schema_messages[];
extern const size_t schema_message_count;
extern const struct schema_enum *const schema_enums[];
extern const size_t schema_enum_count;

/* schema_field_find: the row of a field number, or NULL: unknown to this version. */
static inline const struct schema_field *schema_field_find(const struct schema_message *message,
                                                           uint32_t number)
{
    return number - 1 < message->field_count ? &message->fields[number - 1] : NULL;
}

/* schema_value_find: the row of an enum's number, or NULL. */
const struct schema_value *schema_value_find(const struct schema_enum *values, uint64_t number);

/* schema_scalar: what a scalar of a struct looks like on both wires. `data` points into the
 * struct's memory or, for a conversation id, into the scalar itself: do not copy a scalar. */
struct schema_scalar {
    uint64_t value;
    struct bytes data;
    uint8_t id[16];
};

/* schema_load: read a singular scalar field; false: absent, nothing is to be written. */
static inline bool schema_load(struct schema_scalar *out, const struct schema_field *field,
                               const uint8_t *base)
{
    const uint8_t *at = base + field->offset;
    bool present = false;

    out->value = 0;
    out->data = (struct bytes){NULL, 0};
    switch ((enum schema_form)field->form) {
    case FORM_U64:
        out->value = load_u64(at);
        present = out->value != 0;
        break;
    case FORM_U32:
        out->value = load_u32(at);
        present = out->value != 0;
        break;
    case FORM_BOOL:
        out->value = *at != 0;
        present = out->value != 0;
        break;
    case FORM_BYTES:
        memcpy(&out->data, at, sizeof out->data);
        present = out->data.size != 0;
        break;
    case FORM_MESSAGE_ID:
        out->data = bytes_of(at, 16);
        present = (load_u64(at) | load_u64(at + 8)) != 0;
        break;
    case FORM_CONVERSATION: {
        struct conversation_id id;
        memcpy(&id, at, sizeof id);
        conversation_id_encode(out->id, id);
        out->data = bytes_of(out->id, 16);
        present = (id.hi | id.lo) != 0;
        break;
    }
    case FORM_NONE:
    case FORM_STRUCT:
    case FORM_ARRAY:
        break;
    }
    return field->has_offset == SCHEMA_NONE ? present : base[field->has_offset] != 0;
}

/* schema_array: elements and how many of a FORM_ARRAY field. */
static inline const uint8_t *schema_array(size_t *count, const struct schema_field *field,
                                          const uint8_t *base)
{
    const uint8_t *elements;
    memcpy(&elements, base + field->offset, sizeof elements);
    memcpy(count, base + field->count_offset, sizeof *count);
    return elements;
}

/* schema_struct_present: an embedded struct: by its flag, or as the body that `kind` selects. */
static inline bool schema_struct_present(const struct schema_message *message,
                                         const struct schema_field *field, const uint8_t *base)
{
    if (message->kind_offset != SCHEMA_NONE)
        return load_u32(base + message->kind_offset) == field->body;
    return field->has_offset != SCHEMA_NONE && base[field->has_offset] != 0;
}

#endif
