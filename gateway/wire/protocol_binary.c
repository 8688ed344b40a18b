/* protocol_binary.c: the binary encoding: structs of protocol.h ↔ protobuf, driven by the tables.
 *
 * Written:  fields in the order of their numbers, absent ones (0, empty) left out unless a flag
 * says present, varints as short as they go: one value has one encoding Read:     fields in any
 * order; unknown numbers skipped; a known number with another wire type refused; of a singular
 * scalar that comes twice the last counts; a singular message that comes twice is refused (merging,
 * as protobuf does it, would need a copy); enum values that this version does not know are ignored
 * like unknown fields Repeated: a first pass counts them, scratch gives one array, the second pass
 * fills it */
#include "gateway/wire/protocol_wire.h"

#include "core/text.h"

#define LIKELY(x) __builtin_expect(!!(x), 1)

/* ---- the wire format */

static inline enum err take_varint(struct wire *wire, uint64_t *out)
{
    const uint8_t *at = wire->at;
    uint64_t value = 0;

    if (LIKELY(at != wire->end && *at < 0x80)) {
        *out = *at;
        wire->at = at + 1;
        return OK;
    }
    for (unsigned shift = 0; shift < 64 && at != wire->end; shift += 7) {
        uint8_t byte = *at++;
        if (shift == 63 && byte > 1)
            return ERR_INVALID;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            *out = value;
            wire->at = at;
            return OK;
        }
    }
    return ERR_INVALID;
}

static inline enum err take_bytes(struct wire *wire, size_t size, struct bytes *out)
{
    if (size > (size_t)(wire->end - wire->at))
        return ERR_INVALID;
    *out = bytes_of(wire->at, size);
    wire->at += size;
    return OK;
}

static inline enum err next(struct wire *wire, struct wire_field *field)
{
    uint64_t tag;
    struct bytes fixed;

    TRY(take_varint(wire, &tag));
    if (tag < 8 || tag > UINT32_MAX)
        return ERR_INVALID;
    field->number = (uint32_t)(tag >> 3);
    field->data = (struct bytes){NULL, 0};
    switch (tag & 7) {
    case WIRE_VARINT:
        field->type = WIRE_VARINT;
        return take_varint(wire, &field->value);
    case WIRE_FIXED64:
        field->type = WIRE_FIXED64;
        TRY(take_bytes(wire, 8, &fixed));
        field->value = load_u64(fixed.data);
        return OK;
    case WIRE_BYTES:
        field->type = WIRE_BYTES;
        TRY(take_varint(wire, &field->value));
        return take_bytes(wire, field->value, &field->data);
    case WIRE_FIXED32:
        field->type = WIRE_FIXED32;
        TRY(take_bytes(wire, 4, &fixed));
        field->value = load_u32(fixed.data);
        return OK;
    default: /* groups, and types that do not exist */
        return ERR_INVALID;
    }
}

enum err wire_next(struct wire *wire, struct wire_field *field)
{
    return next(wire, field);
}

static inline enum err check_value(const struct schema_field *row, const struct wire_field *field)
{
    if (field->type != (enum wire_type)row->wire)
        return ERR_INVALID;
    switch ((enum schema_type)row->type) {
    case TYPE_UINT64:
        return field->value <= SCHEMA_INTEGER_MAX ? OK : ERR_INVALID;
    case TYPE_UINT32:
        return field->value <= UINT32_MAX ? OK : ERR_INVALID;
    case TYPE_STRING:
        return utf8_valid(field->data) ? OK : ERR_INVALID;
    case TYPE_UUID:
        return field->data.size == 16 ? OK : ERR_INVALID;
    case TYPE_BOOL:
    case TYPE_ENUM:
    case TYPE_FIXED64:
    case TYPE_BYTES:
    case TYPE_MESSAGE:
        return OK;
    }
    return OK;
}

enum err wire_check(const struct schema_field *row, const struct wire_field *field)
{
    return check_value(row, field);
}

static inline size_t varint_size(uint64_t value)
{
    return ((size_t)(63 - __builtin_clzll(value | 1)) * 9 + 73) / 64;
}

enum err wire_put_varint(struct buffer *out, uint64_t value)
{
    if (varint_size(value) > buffer_room(out))
        return ERR_FULL;
    uint8_t *at = out->data + out->size;
    for (; value >= 0x80; value >>= 7)
        *at++ = (uint8_t)(value | 0x80);
    *at++ = (uint8_t)value;
    out->size = (size_t)(at - out->data);
    return OK;
}

enum err wire_put_tag(struct buffer *out, const struct schema_field *row)
{
    return wire_put_varint(out, (uint64_t)row->number << 3 | row->wire);
}

enum err wire_put_bytes(struct buffer *out, const struct schema_field *row, struct bytes data)
{
    TRY(wire_put_tag(out, row));
    TRY(wire_put_varint(out, data.size));
    return buffer_append(out, data);
}

enum err wire_put_element(struct buffer *out, struct bytes encoded)
{
    size_t start = out->size;
    enum err err = wire_put_bytes(out, &schema_client_frame.fields[0], encoded);

    if (err != OK)
        out->size = start;
    return err;
}

enum err wire_open(struct buffer *out, const struct schema_field *row, size_t *start)
{
    TRY(wire_put_tag(out, row));
    TRY(buffer_put_u8(out, 0));
    *start = out->size;
    return OK;
}

enum err wire_close(struct buffer *out, size_t start)
{
    size_t size = out->size - start;

    if (LIKELY(size < 0x80)) {
        out->data[start - 1] = (uint8_t)size;
        return OK;
    }
    size_t more = varint_size(size) - 1;
    if (more > buffer_room(out))
        return ERR_FULL;
    memmove(out->data + start + more, out->data + start, size);
    out->size = start - 1;
    TRY(wire_put_varint(out, size));
    out->size += size;
    return OK;
}

/* ---- encode */

static enum err put_scalar(struct buffer *out, const struct schema_field *row,
                           const struct schema_scalar *scalar)
{
    switch ((enum wire_type)row->wire) {
    case WIRE_VARINT:
        TRY(wire_put_tag(out, row));
        return wire_put_varint(out, scalar->value);
    case WIRE_FIXED64:
        TRY(wire_put_tag(out, row));
        return buffer_put_u64(out, scalar->value);
    case WIRE_BYTES:
        return wire_put_bytes(out, row, scalar->data);
    case WIRE_FIXED32: /* the schema has none */
        break;
    }
    return ERR_UNSUPPORTED;
}

static enum err put_struct(struct buffer *out, const struct schema_field *row, const uint8_t *base)
{
    size_t start;

    TRY(wire_open(out, row, &start));
    TRY(binary_encode(out, row->message, base));
    return wire_close(out, start);
}

static enum err put_array(struct buffer *out, const struct schema_field *row, const uint8_t *base)
{
    size_t count;
    const uint8_t *element = schema_array(&count, row, base);

    for (; count > 0; count--, element += row->element_size) {
        if (row->type == TYPE_MESSAGE) {
            TRY(put_struct(out, row, element));
        } else {
            struct bytes text;
            memcpy(&text, element, sizeof text);
            TRY(wire_put_bytes(out, row, text));
        }
    }
    return OK;
}

enum err binary_encode(struct buffer *out, const struct schema_message *message, const void *base)
{
    const uint8_t *from = base;

    for (size_t i = 0; i < message->field_count; i++) {
        const struct schema_field *row = &message->fields[i];
        if (row->form == FORM_STRUCT) {
            if (schema_struct_present(message, row, from))
                TRY(put_struct(out, row, from + row->offset));
        } else if (row->form == FORM_ARRAY) {
            TRY(put_array(out, row, from));
        } else {
            struct schema_scalar scalar;
            if (schema_load(&scalar, row, from))
                TRY(put_scalar(out, row, &scalar));
        }
    }
    return OK;
}

/* ---- validate what stays encoded */

enum err binary_validate(const struct schema_message *message, struct bytes in)
{
    struct wire wire = wire_of(in);
    uint32_t seen = 0;

    while (!wire_end(&wire)) {
        struct wire_field field;
        TRY(next(&wire, &field));
        const struct schema_field *row = schema_field_find(message, field.number);
        if (row == NULL)
            continue;
        TRY(check_value(row, &field));
        if (row->type != TYPE_MESSAGE)
            continue;
        if (!row->repeated && (seen & 1u << row->number))
            return ERR_INVALID;
        seen |= 1u << row->number;
        TRY(binary_validate(row->message, field.data));
    }
    return OK;
}

/* ---- decode */

/* take_array: zeroed, 8-byte aligned memory off scratch. */
static enum err take_array(uint8_t **out, size_t size, struct buffer *scratch)
{
    uintptr_t at = (uintptr_t)(scratch->data + scratch->size);
    size_t pad = (size_t)(-at & 7);

    if (pad > buffer_room(scratch) || size > buffer_room(scratch) - pad)
        return ERR_FULL;
    *out = scratch->data + scratch->size + pad;
    memset(*out, 0, size);
    scratch->size += pad + size;
    return OK;
}

/* prepare: initial values, and an array of the right size for each repeated field; the count in the
 * struct stays 0 until elements are decoded. */
static enum err prepare(const struct schema_message *message, uint8_t *base, struct bytes in,
                        struct buffer *scratch)
{
    size_t counts[SCHEMA_FIELDS_MAX + 1] = {0};
    struct wire wire = wire_of(in);

    while (!wire_end(&wire)) {
        struct wire_field field;
        TRY(next(&wire, &field));
        if (field.number <= message->field_count)
            counts[field.number]++;
    }
    for (size_t i = 0; i < message->field_count; i++) {
        const struct schema_field *row = &message->fields[i];
        if (row->initial)
            base[row->offset] = 1;
        if (row->form != FORM_ARRAY || counts[row->number] == 0)
            continue;
        uint8_t *elements;
        TRY(take_array(&elements, counts[row->number] * row->element_size, scratch));
        memcpy(base + row->offset, &elements, sizeof elements);
    }
    return OK;
}

static enum err take_element(const struct schema_field *row, uint8_t *base,
                             const struct wire_field *field, struct buffer *scratch)
{
    uint8_t *elements;
    size_t count;

    memcpy(&elements, base + row->offset, sizeof elements);
    memcpy(&count, base + row->count_offset, sizeof count);
    uint8_t *element = elements + count * row->element_size;
    if (row->type == TYPE_MESSAGE)
        TRY(binary_decode(row->message, element, field->data, scratch));
    else
        memcpy(element, &field->data, sizeof field->data);
    count++;
    memcpy(base + row->count_offset, &count, sizeof count);
    return OK;
}

static enum err take_struct(const struct schema_message *message, const struct schema_field *row,
                            uint8_t *base, const struct wire_field *field, struct buffer *scratch)
{
    if (schema_struct_present(message, row, base))
        return ERR_INVALID;
    if (message->kind_offset != SCHEMA_NONE) {
        if (load_u32(base + message->kind_offset) != 0) /* a second body */
            return ERR_INVALID;
        store_u32(base + message->kind_offset, row->body);
    }
    if (row->has_offset != SCHEMA_NONE)
        base[row->has_offset] = 1;
    return binary_decode(row->message, base + row->offset, field->data, scratch);
}

static enum err take_scalar(const struct schema_field *row, uint8_t *base,
                            const struct wire_field *field)
{
    uint8_t *at = base + row->offset;

    switch ((enum schema_form)row->form) {
    case FORM_U64:
        store_u64(at, field->value);
        break;
    case FORM_U32:
        if (row->type == TYPE_ENUM && schema_value_find(row->values, field->value) == NULL)
            return OK;
        store_u32(at, (uint32_t)field->value);
        break;
    case FORM_BOOL:
        *at = field->value != 0;
        break;
    case FORM_BYTES:
        if (row->type == TYPE_MESSAGE) {
            if (((const struct bytes *)(const void *)at)->size != 0)
                return ERR_INVALID;
            TRY(binary_validate(row->message, field->data));
        }
        memcpy(at, &field->data, sizeof field->data);
        break;
    case FORM_MESSAGE_ID:
        memcpy(at, field->data.data, 16);
        break;
    case FORM_CONVERSATION: {
        struct conversation_id id = conversation_id_decode(field->data.data);
        memcpy(at, &id, sizeof id);
        break;
    }
    case FORM_NONE:
    case FORM_STRUCT:
    case FORM_ARRAY:
        return ERR_UNSUPPORTED;
    }
    if (row->has_offset != SCHEMA_NONE)
        base[row->has_offset] = 1;
    return OK;
}

enum err binary_decode(const struct schema_message *message, void *base, struct bytes in,
                       struct buffer *scratch)
{
    struct wire wire = wire_of(in);

    if (message->prepared)
        TRY(prepare(message, base, in, scratch));
    while (!wire_end(&wire)) {
        struct wire_field field;
        TRY(next(&wire, &field));
        const struct schema_field *row = schema_field_find(message, field.number);
        if (row == NULL)
            continue;
        TRY(check_value(row, &field));
        if (row->form == FORM_STRUCT)
            TRY(take_struct(message, row, base, &field, scratch));
        else if (row->form == FORM_ARRAY)
            TRY(take_element(row, base, &field, scratch));
        else
            TRY(take_scalar(row, base, &field));
    }
    return OK;
}
