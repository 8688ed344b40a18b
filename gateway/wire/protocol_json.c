/* protocol_json.c: the JSON encoding, by the rules in roost.proto's head.
 *
 * Out:  straight from the struct to text; a Payload is walked in its binary form. Absent is left
 *       out. Members of a Payload that this version does not know are not shown.
 * In:   text → jansson's tree → the same frame in binary form, in scratch → protocol_binary.c. So
 *       both encodings mean the same by construction, and what a JSON client sends is stored as
 *       what a binary client would have sent. Unknown members are ignored, null is absent.
 * An unknown enum name is ignored where only this side reads it, and refused inside a Payload,
 * which would otherwise be stored with another meaning than its sender's. */
#include "gateway/wire/json_text.h"
#include "gateway/wire/protocol_wire.h"

#include "core/text.h"

/* ---- out */

static enum err put_text(struct buffer *out, const char *text)
{
    return buffer_append(out, bytes_of_text(text));
}

/* put_key: the member's name, after a comma unless it is the first. */
static enum err put_key(struct buffer *out, const struct schema_field *row, bool *first)
{
    TRY(put_text(out, *first ? "\"" : ",\""));
    *first = false;
    TRY(put_text(out, row->name));
    return put_text(out, "\":");
}

static enum err put_quoted_number(struct buffer *out, uint64_t value)
{
    TRY(buffer_put_u8(out, '"'));
    TRY(json_text_put_number(out, value));
    return buffer_put_u8(out, '"');
}

static enum err put_uuid(struct buffer *out, struct bytes id)
{
    char text[UUID_TEXT_BYTES];

    if (id.size != 16)
        return ERR_INVALID;
    uuid_format(text, id.data);
    TRY(buffer_put_u8(out, '"'));
    TRY(put_text(out, text));
    return buffer_put_u8(out, '"');
}

static enum err put_base64(struct buffer *out, struct bytes data)
{
    TRY(buffer_put_u8(out, '"'));
    TRY(base64_encode(out, data));
    return buffer_put_u8(out, '"');
}

/* put_enum: the name, or the number of a value that this version does not know (negative ones are
 * 64 bits of two's complement on the binary wire). */
static enum err put_enum(struct buffer *out, const struct schema_field *row, uint64_t value)
{
    const struct schema_value *known = schema_value_find(row->values, value);

    if (known != NULL) {
        TRY(buffer_put_u8(out, '"'));
        TRY(put_text(out, known->name));
        return buffer_put_u8(out, '"');
    }
    int32_t number = (int32_t)(uint32_t)value;
    if (number >= 0)
        return json_text_put_number(out, (uint64_t)number);
    TRY(buffer_put_u8(out, '-'));
    return json_text_put_number(out, (uint64_t)(-(int64_t)number));
}

static enum err put_encoded(struct buffer *out, const struct schema_message *message,
                            struct bytes in);

static enum err put_value(struct buffer *out, const struct schema_field *row, uint64_t value,
                          struct bytes data)
{
    switch ((enum schema_type)row->type) {
    case TYPE_UINT64:
    case TYPE_UINT32:
        return json_text_put_number(out, value);
    case TYPE_BOOL:
        return put_text(out, value != 0 ? "true" : "false");
    case TYPE_ENUM:
        return put_enum(out, row, value);
    case TYPE_FIXED64:
        return put_quoted_number(out, value);
    case TYPE_STRING:
        return json_text_put(out, data);
    case TYPE_BYTES:
        return put_base64(out, data);
    case TYPE_UUID:
        return put_uuid(out, data);
    case TYPE_MESSAGE:
        return put_encoded(out, row->message, data);
    }
    return ERR_UNSUPPORTED;
}

/* put_encoded_array: all elements of one repeated field, wherever they stand in the message. */
static enum err put_encoded_array(struct buffer *out, const struct schema_field *row,
                                  struct bytes in)
{
    struct wire wire = wire_of(in);
    bool first = true;

    TRY(buffer_put_u8(out, '['));
    while (!wire_end(&wire)) {
        struct wire_field field;
        TRY(wire_next(&wire, &field));
        if (field.number != row->number)
            continue;
        if (!first)
            TRY(buffer_put_u8(out, ','));
        first = false;
        TRY(put_value(out, row, field.value, field.data));
    }
    return buffer_put_u8(out, ']');
}

/* put_encoded: a message in binary form as JSON text. */
static enum err put_encoded(struct buffer *out, const struct schema_message *message,
                            struct bytes in)
{
    struct wire_field last[SCHEMA_FIELDS_MAX + 1];
    uint32_t seen = 0;
    struct wire wire = wire_of(in);

    while (!wire_end(&wire)) {
        struct wire_field field;
        TRY(wire_next(&wire, &field));
        const struct schema_field *row = schema_field_find(message, field.number);
        if (row == NULL)
            continue;
        TRY(wire_check(row, &field));
        last[row->number] = field;
        seen |= 1u << row->number;
    }
    bool first = true;
    TRY(buffer_put_u8(out, '{'));
    for (size_t i = 0; i < message->field_count; i++) {
        const struct schema_field *row = &message->fields[i];
        if ((seen & 1u << row->number) == 0)
            continue;
        TRY(put_key(out, row, &first));
        if (row->repeated)
            TRY(put_encoded_array(out, row, in));
        else
            TRY(put_value(out, row, last[row->number].value, last[row->number].data));
    }
    return buffer_put_u8(out, '}');
}

static enum err put_array(struct buffer *out, const struct schema_field *row,
                          const uint8_t *element, size_t count)
{
    TRY(buffer_put_u8(out, '['));
    for (size_t i = 0; i < count; i++, element += row->element_size) {
        if (i > 0)
            TRY(buffer_put_u8(out, ','));
        if (row->type == TYPE_MESSAGE) {
            TRY(json_encode(out, row->message, element));
        } else {
            struct bytes text;
            memcpy(&text, element, sizeof text);
            TRY(put_value(out, row, 0, text));
        }
    }
    return buffer_put_u8(out, ']');
}

static enum err put_field(struct buffer *out, const struct schema_message *message,
                          const struct schema_field *row, const uint8_t *base, bool *first)
{
    if (row->form == FORM_STRUCT) {
        if (!schema_struct_present(message, row, base))
            return OK;
        TRY(put_key(out, row, first));
        return json_encode(out, row->message, base + row->offset);
    }
    if (row->form == FORM_ARRAY) {
        size_t count;
        const uint8_t *elements = schema_array(&count, row, base);
        if (count == 0)
            return OK;
        TRY(put_key(out, row, first));
        return put_array(out, row, elements, count);
    }
    struct schema_scalar scalar;
    if (!schema_load(&scalar, row, base))
        return OK;
    TRY(put_key(out, row, first));
    return put_value(out, row, scalar.value, scalar.data);
}

enum err json_encode(struct buffer *out, const struct schema_message *message, const void *base)
{
    bool first = true;

    TRY(buffer_put_u8(out, '{'));
    for (size_t i = 0; i < message->field_count; i++)
        TRY(put_field(out, message, &message->fields[i], base, &first));
    return buffer_put_u8(out, '}');
}

/* ---- in */

static enum err take_object(struct buffer *out, const struct schema_message *message,
                            const json_t *object);

/* take_enum: ERR_NOT_FOUND: a name that this version does not know. */
static enum err take_enum(uint64_t *out, const struct schema_field *row, const json_t *value)
{
    if (json_is_integer(value)) {
        json_int_t number = json_integer_value(value);
        if (number < INT32_MIN || number > INT32_MAX)
            return ERR_INVALID;
        *out = (uint64_t)number;
        return OK;
    }
    if (!json_is_string(value))
        return ERR_INVALID;
    struct bytes name = bytes_of(json_string_value(value), json_string_length(value));
    for (size_t i = 0; i < row->values->value_count; i++)
        if (bytes_equal(name, bytes_of_text(row->values->values[i].name))) {
            *out = row->values->values[i].number;
            return OK;
        }
    return ERR_NOT_FOUND;
}

static enum err take_varint(struct buffer *out, const struct schema_field *row, const json_t *value)
{
    uint64_t number = 0;

    if (row->type == TYPE_ENUM) {
        enum err err = take_enum(&number, row, value);
        if (err == ERR_NOT_FOUND)
            return row->form == FORM_NONE ? ERR_INVALID : OK;
        TRY(err);
    } else if (row->type == TYPE_BOOL) {
        if (!json_is_boolean(value))
            return ERR_INVALID;
        number = json_is_true(value);
    } else {
        if (!json_is_integer(value) || json_integer_value(value) < 0)
            return ERR_INVALID;
        number = (uint64_t)json_integer_value(value);
    }
    TRY(wire_put_tag(out, row));
    return wire_put_varint(out, number);
}

static enum err take_text(struct buffer *out, const struct schema_field *row, struct bytes text)
{
    uint64_t number;
    uint8_t uuid[16];
    size_t start;

    switch ((enum schema_type)row->type) {
    case TYPE_FIXED64:
        TRY(decimal_parse(&number, text));
        TRY(wire_put_tag(out, row));
        return buffer_put_u64(out, number);
    case TYPE_STRING:
        return wire_put_bytes(out, row, text);
    case TYPE_UUID:
        TRY(uuid_parse(uuid, text));
        return wire_put_bytes(out, row, bytes_of(uuid, sizeof uuid));
    case TYPE_BYTES:
        TRY(wire_open(out, row, &start));
        TRY(base64_decode(out, text));
        return wire_close(out, start);
    case TYPE_UINT64:
    case TYPE_UINT32:
    case TYPE_BOOL:
    case TYPE_ENUM:
    case TYPE_MESSAGE:
        break;
    }
    return ERR_INVALID;
}

static enum err take_value(struct buffer *out, const struct schema_field *row, const json_t *value)
{
    if (row->type == TYPE_MESSAGE) {
        size_t start;
        if (!json_is_object(value))
            return ERR_INVALID;
        TRY(wire_open(out, row, &start));
        TRY(take_object(out, row->message, value));
        return wire_close(out, start);
    }
    if (row->wire == WIRE_VARINT)
        return take_varint(out, row, value);
    if (!json_is_string(value))
        return ERR_INVALID;
    return take_text(out, row, bytes_of(json_string_value(value), json_string_length(value)));
}

static enum err take_object(struct buffer *out, const struct schema_message *message,
                            const json_t *object)
{
    for (size_t i = 0; i < message->field_count; i++) {
        const struct schema_field *row = &message->fields[i];
        const json_t *value = json_object_get(object, row->name);
        if (value == NULL || json_is_null(value))
            continue;
        if (!row->repeated) {
            TRY(take_value(out, row, value));
            continue;
        }
        if (!json_is_array(value))
            return ERR_INVALID;
        for (size_t k = 0; k < json_array_size(value); k++)
            TRY(take_value(out, row, json_array_get(value, k)));
    }
    return OK;
}

enum err json_to_binary(struct buffer *scratch, const struct schema_message *message,
                        struct bytes text)
{
    json_t *root;

    TRY(json_text_parse(&root, text));
    enum err err = take_object(scratch, message, root);
    json_decref(root);
    return err;
}
