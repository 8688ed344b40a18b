/* test_schema.c: the tables of roost.proto hold together; and the tool through which
 * tests/tidy/check_schema compares them, and both encodings, with what protoc makes of roost.proto.
 *
 *   test_schema            the tests
 *   test_schema --dump     one line per field and enum value
 *   test_schema --filter   lines "q p HEX", "q j JSON", "e p HEX", "e j JSON" (request or event
 *                          frame, binary or JSON) on stdin → "HEX JSON" or "error NAME" on stdout
 */
#include "gateway/wire/protocol_schema.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { LINE_BYTES = 1 << 20, ELEMENTS = 64 };

/* ---- tests */

static void rows_are_dense(void **state)
{
    (void)state;
    for (size_t m = 0; m < schema_message_count; m++) {
        const struct schema_message *message = schema_messages[m];
        assert_in_range(message->field_count, 1, SCHEMA_FIELDS_MAX);
        for (size_t i = 0; i < message->field_count; i++) {
            assert_int_equal(message->fields[i].number, i + 1);
            assert_ptr_equal(schema_field_find(message, (uint32_t)i + 1), &message->fields[i]);
        }
        assert_null(schema_field_find(message, 0));
        assert_null(schema_field_find(message, message->field_count + 1u));
    }
}

static void rows_know_their_kind(void **state)
{
    (void)state;
    for (size_t m = 0; m < schema_message_count; m++)
        for (size_t i = 0; i < schema_messages[m]->field_count; i++) {
            const struct schema_field *row = &schema_messages[m]->fields[i];
            assert_int_equal(row->type == TYPE_MESSAGE, row->message != NULL);
            assert_int_equal(row->type == TYPE_ENUM, row->values != NULL);
            if (row->form == FORM_ARRAY) {
                assert_true(row->repeated);
                assert_true(schema_messages[m]->prepared);
                assert_int_not_equal(row->element_size, 0);
                assert_int_not_equal(row->count_offset, SCHEMA_NONE);
            }
            if (row->form == FORM_STRUCT) /* present by a flag or by the kind */
                assert_true((row->has_offset != SCHEMA_NONE) !=
                            (schema_messages[m]->kind_offset != SCHEMA_NONE && row->body != 0));
            if (row->initial)
                assert_true(schema_messages[m]->prepared);
        }
}

static size_t depth_of(const struct schema_message *message)
{
    size_t deepest = 0;
    for (size_t i = 0; i < message->field_count; i++)
        if (message->fields[i].message != NULL) {
            size_t depth = depth_of(message->fields[i].message);
            deepest = depth > deepest ? depth : deepest;
        }
    return deepest + 1;
}

static void nesting_is_bounded(void **state)
{
    (void)state;
    assert_int_equal(depth_of(&schema_client_frame), 5);
    assert_int_equal(depth_of(&schema_server_frame), 6);
}

static void enums_ascend(void **state)
{
    (void)state;
    for (size_t e = 0; e < schema_enum_count; e++)
        for (size_t i = 0; i < schema_enums[e]->value_count; i++) {
            const struct schema_value *value = &schema_enums[e]->values[i];
            assert_true(i == 0 || value->number > value[-1].number);
            assert_ptr_equal(schema_value_find(schema_enums[e], value->number), value);
        }
    assert_null(schema_value_find(schema_enums[1], 5)); /* the gap before CUSTOM */
    assert_null(schema_value_find(schema_enums[1], UINT64_MAX));
}

static void codes_have_the_enums_names(void **state)
{
    (void)state;
    const struct schema_enum *codes = schema_enums[schema_enum_count - 1];
    assert_int_equal(codes->value_count, CODE_COUNT);
    for (enum code code = 0; code < CODE_COUNT; code++)
        assert_string_equal(code_name(code), codes->values[code].name);
}

/* ---- dump */

static void dump(void)
{
    static const char *const types[] = {"uint64", "uint32", "bool",  "enum",   "fixed64",
                                        "string", "bytes",  "bytes", "message"};
    for (size_t m = 0; m < schema_message_count; m++)
        for (size_t i = 0; i < schema_messages[m]->field_count; i++) {
            const struct schema_field *row = &schema_messages[m]->fields[i];
            printf("field %s %u %s %s %s %s %s %s\n", schema_messages[m]->name, row->number,
                   row->name, types[row->type], row->repeated ? "repeated" : "optional",
                   row->message != NULL  ? row->message->name
                   : row->values != NULL ? row->values->name
                                         : "-",
                   row->initial ? "true" : "-", row->type == TYPE_UUID ? "uuid" : "-");
        }
    for (size_t e = 0; e < schema_enum_count; e++)
        for (size_t i = 0; i < schema_enums[e]->value_count; i++)
            printf("value %s %u %s\n", schema_enums[e]->name, schema_enums[e]->values[i].number,
                   schema_enums[e]->values[i].name);
}

/* ---- filter */

struct filter {
    struct request requests[ELEMENTS];
    struct event events[ELEMENTS];
    size_t count;
    bool from_server;
    uint8_t in[LINE_BYTES];
    uint8_t scratch[4 * LINE_BYTES];
    uint8_t element[4 * LINE_BYTES];
    uint8_t out[4 * LINE_BYTES];
};

static size_t take_hex(uint8_t *out, const char *hex)
{
    size_t size = 0;
    unsigned byte;
    for (; sscanf(hex, "%2x", &byte) == 1; hex += 2)
        out[size++] = (uint8_t)byte;
    return size;
}

static enum err decode(struct filter *f, struct bytes frame, enum encoding encoding)
{
    struct buffer scratch = buffer_of(f->scratch, sizeof f->scratch);
    f->count = ELEMENTS;
    return f->from_server
               ? protocol_decode_events(f->events, &f->count, frame, encoding, &scratch)
               : protocol_decode_requests(f->requests, &f->count, frame, encoding, &scratch);
}

static enum err encode(struct filter *f, struct buffer *out, enum encoding encoding)
{
    TRY(protocol_frame_open(out, encoding, f->from_server));
    for (size_t i = 0; i < f->count; i++) {
        struct buffer element = buffer_of(f->element, sizeof f->element);
        if (f->from_server)
            TRY(protocol_encode_event(&element, &f->events[i], encoding));
        else
            TRY(protocol_encode_request(&element, &f->requests[i], encoding));
        TRY(protocol_frame_element(out, buffer_bytes(&element), encoding, i == 0));
    }
    return protocol_frame_close(out, encoding);
}

static void answer(struct filter *f, struct bytes frame, enum encoding encoding)
{
    enum err err = decode(f, frame, encoding);
    struct buffer proto = buffer_of(f->out, sizeof f->out / 2);
    struct buffer json = buffer_of(f->out + sizeof f->out / 2, sizeof f->out / 2);

    if (err == OK)
        err = encode(f, &proto, ENCODING_PROTO);
    if (err == OK)
        err = encode(f, &json, ENCODING_JSON);
    if (err != OK) {
        printf("error %s\n", err_name(err));
        return;
    }
    for (size_t i = 0; i < proto.size; i++)
        printf("%02x", proto.data[i]);
    printf(" %.*s\n", (int)json.size, (const char *)json.data);
}

static void filter(void)
{
    struct filter *f = malloc(sizeof *f);
    char *line = malloc(2 * LINE_BYTES);

    while (f != NULL && line != NULL && fgets(line, 2 * LINE_BYTES, stdin) != NULL) {
        size_t size = strcspn(line, "\n");
        line[size] = '\0';
        if (size < 4)
            continue;
        f->from_server = line[0] == 'e';
        if (line[2] == 'p')
            answer(f, bytes_of(f->in, take_hex(f->in, line + 4)), ENCODING_PROTO);
        else
            answer(f, bytes_of(line + 4, size - 4), ENCODING_JSON);
        fflush(stdout);
    }
    free(line);
    free(f);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_dense),
        cmocka_unit_test(rows_know_their_kind),
        cmocka_unit_test(nesting_is_bounded),
        cmocka_unit_test(enums_ascend),
        cmocka_unit_test(codes_have_the_enums_names),
    };
    if (argc == 2 && strcmp(argv[1], "--dump") == 0)
        dump();
    else if (argc == 2 && strcmp(argv[1], "--filter") == 0)
        filter();
    else
        return cmocka_run_group_tests(tests, NULL, NULL);
    return 0;
}
