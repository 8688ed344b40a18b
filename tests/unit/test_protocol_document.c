/* test_protocol_document.c: PROTOCOL.md's examples are exact in both encodings, and its table of
 * codes is the code's. Run from the repository's root. */
#include "gateway/wire/protocol.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

enum { ELEMENTS = 8, BYTES = 1 << 14 };

static const char document_path[] = "gateway/wire/PROTOCOL.md";

/* A frame decoded, whichever side it is from. */
struct decoded {
    struct request requests[ELEMENTS];
    struct event events[ELEMENTS];
    size_t count;
    uint8_t scratch[BYTES];
};

static struct decoded decoded;
static uint8_t memory_element[BYTES];
static uint8_t memory_frame[BYTES];

static enum err decode(struct bytes frame, enum encoding encoding, bool from_server)
{
    struct buffer scratch = buffer_of(decoded.scratch, sizeof decoded.scratch);

    decoded.count = ELEMENTS;
    return from_server
               ? protocol_decode_events(decoded.events, &decoded.count, frame, encoding, &scratch)
               : protocol_decode_requests(decoded.requests, &decoded.count, frame, encoding,
                                          &scratch);
}

static struct bytes encode_decoded(enum encoding encoding, bool from_server)
{
    struct buffer out = buffer_of(memory_frame, sizeof memory_frame);

    assert_int_equal(protocol_frame_open(&out, encoding, from_server), OK);
    for (size_t i = 0; i < decoded.count; i++) {
        struct buffer element = buffer_of(memory_element, sizeof memory_element);
        assert_int_equal(from_server
                             ? protocol_encode_event(&element, &decoded.events[i], encoding)
                             : protocol_encode_request(&element, &decoded.requests[i], encoding),
                         OK);
        assert_int_equal(protocol_frame_element(&out, buffer_bytes(&element), encoding, i == 0),
                         OK);
    }
    assert_int_equal(protocol_frame_close(&out, encoding), OK);
    return buffer_bytes(&out);
}

static void assert_bytes(struct bytes got, struct bytes want)
{
    if (!bytes_equal(got, want))
        print_error("got  %.*s\nwant %.*s\n", (int)got.size, (const char *)got.data, (int)want.size,
                    (const char *)want.data);
    assert_true(bytes_equal(got, want));
}

struct example {
    bool from_server;
    uint8_t proto[4096];
    size_t proto_size;
    char json[4096];
};

/* read_line: one line of an example: hexadecimal up to '#', or a piece of the JSON text. */
static void read_line(struct example *example, char *line)
{
    line[strcspn(line, "\n")] = '\0';
    if (line[0] == '{' || example->json[0] != '\0') {
        assert_true(strlen(example->json) + strlen(line) < sizeof example->json);
        strcat(example->json, line);
        return;
    }
    line[strcspn(line, "#")] = '\0';
    for (const char *at = line; *at != '\0'; at++) {
        unsigned byte;
        if (*at == ' ')
            continue;
        assert_int_equal(sscanf(at, "%2x", &byte), 1);
        assert_true(example->proto_size < sizeof example->proto);
        example->proto[example->proto_size++] = (uint8_t)byte;
        at++;
    }
}

static bool next_example(FILE *file, struct example *example)
{
    char line[1024];

    memset(example, 0, sizeof *example);
    do {
        if (fgets(line, sizeof line, file) == NULL)
            return false;
    } while (strncmp(line, "```example ", 11) != 0);
    example->from_server = strcmp(line + 11, "server\n") == 0;
    while (fgets(line, sizeof line, file) != NULL && strncmp(line, "```", 3) != 0)
        read_line(example, line);
    return true;
}

static FILE *open_document(void)
{
    FILE *file = fopen(document_path, "r");
    if (file == NULL)
        print_error("%s: run this from the repository's root\n", document_path);
    assert_non_null(file);
    return file;
}

static void examples_are_exact(void **state)
{
    (void)state;
    FILE *file = open_document();
    struct example example;
    size_t count = 0;

    for (; next_example(file, &example); count++) {
        struct bytes proto = bytes_of(example.proto, example.proto_size);
        struct bytes json = bytes_of_text(example.json);
        assert_int_equal(decode(proto, ENCODING_PROTO, example.from_server), OK);
        assert_bytes(encode_decoded(ENCODING_PROTO, example.from_server), proto);
        assert_bytes(encode_decoded(ENCODING_JSON, example.from_server), json);
        assert_int_equal(decode(json, ENCODING_JSON, example.from_server), OK);
        assert_bytes(encode_decoded(ENCODING_PROTO, example.from_server), proto);
        assert_bytes(encode_decoded(ENCODING_JSON, example.from_server), json);
    }
    assert_true(count >= 15);
    fclose(file);
}

/* PROTOCOL.md says what a push costs; flow charges the size of the event's encoding. */
static void pushed_example_costs_67_bytes(void **state)
{
    (void)state;
    FILE *file = open_document();
    struct example example;
    struct buffer out = buffer_of(memory_element, sizeof memory_element);

    do {
        assert_true(next_example(file, &example));
        struct bytes proto = bytes_of(example.proto, example.proto_size);
        assert_int_equal(decode(proto, ENCODING_PROTO, example.from_server), OK);
    } while (!example.from_server || decoded.events[0].kind != EVENT_MESSAGE ||
             decoded.events[0].message.has_retention);
    assert_int_equal(protocol_encode_event(&out, &decoded.events[0], ENCODING_PROTO), OK);
    assert_int_equal(out.size, 67);
    fclose(file);
}

static void codes_are_as_documented(void **state)
{
    (void)state;
    static const char *const verdicts[] = {"FATAL", "RETRY", "RELOGIN", "RESYNC", "DISPLACED"};
    FILE *file = open_document();
    char line[1024];
    unsigned next = 0;

    while (fgets(line, sizeof line, file) != NULL) {
        unsigned number;
        char name[32];
        char verdict[32];
        if (sscanf(line, "| %u | %31[A-Z_] | %31[A-Z] |", &number, name, verdict) != 3)
            continue;
        assert_int_equal(number, next++);
        assert_true(number < CODE_COUNT);
        assert_string_equal(code_name((enum code)number), name);
        assert_string_equal(verdicts[code_verdict((enum code)number)], verdict);
    }
    assert_int_equal(next, CODE_COUNT);
    fclose(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(examples_are_exact),
        cmocka_unit_test(pushed_example_costs_67_bytes),
        cmocka_unit_test(codes_are_as_documented),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
