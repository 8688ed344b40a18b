/* test_text.c: the standards' own examples, round trips, and what must be refused. */
#include "tests/unit/check.h"

#include "core/io.h"
#include "core/text.h"

static void uuids(void **state)
{
    (void)state;
    /* RFC 9562 A.6 */
    const char *example = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f";
    uint8_t uuid[16];
    assert_int_equal(uuid_parse(uuid, bytes_of_text(example)), OK);
    assert_true(uuid_is_v7(uuid));
    char text[UUID_TEXT_BYTES];
    uuid_format(text, uuid);
    assert_string_equal(text, example);
    uint8_t made[16];
    uuid_make_v7(made, 0x017f22e279b0, uuid + 6);
    assert_memory_equal(made, uuid, 16);
    uint8_t ones[10];
    memset(ones, 0xff, sizeof ones);
    uuid_make_v7(made, 1, ones);
    assert_true(uuid_is_v7(made));
    uuid_format(text, made);
    assert_string_equal(text, "00000000-0001-7fff-bfff-ffffffffffff");

    assert_int_equal(uuid_parse(uuid, bytes_of_text("017F22E2-79B0-7CC3-98C4-DC0C0C07398F")), OK);
    const char *wrong[] = {
        "",
        "017f22e2-79b0-7cc3-98c4-dc0c0c07398",
        "017f22e2-79b0-7cc3-98c4-dc0c0c07398f0",
        "017f22e279b0-7cc3-98c4-dc0c0c07398f-",
        "017f22e2-79b0-7cc3-98c4-dc0c0c07398g",
        "{17f22e2-79b0-7cc3-98c4-dc0c0c07398}",
    };
    for (size_t i = 0; i < COUNT_OF(wrong); i++)
        assert_int_equal(uuid_parse(uuid, bytes_of_text(wrong[i])), ERR_INVALID);
    uuid[6] = 0x4c;
    assert_false(uuid_is_v7(uuid));
    uuid[6] = 0x7c;
    uuid[8] = 0xc8;
    assert_false(uuid_is_v7(uuid));
}

typedef enum err convert(struct buffer *out, struct bytes in);

static void converts(convert *function, const char *in, enum err err, const char *expected)
{
    uint8_t room[64];
    struct buffer out = buffer_of(room, sizeof room);
    assert_int_equal(function(&out, bytes_of_text(in)), err);
    assert_int_equal(out.size, strlen(expected));
    assert_memory_equal(room, expected, out.size);
}

static void base64_of_the_rfc(void **state)
{
    (void)state;
    static const char *const pairs[][3] = {
        /* RFC 4648 10, and without padding */
        {"", "", ""},
        {"f", "Zg==", "Zg"},
        {"fo", "Zm8=", "Zm8"},
        {"foo", "Zm9v", "Zm9v"},
        {"foob", "Zm9vYg==", "Zm9vYg"},
        {"fooba", "Zm9vYmE=", "Zm9vYmE"},
        {"foobar", "Zm9vYmFy", "Zm9vYmFy"},
        {"\xfb\xff\xbe", "+/++", "-_--"},
    };
    for (size_t i = 0; i < COUNT_OF(pairs); i++) {
        converts(base64_encode, pairs[i][0], OK, pairs[i][1]);
        converts(base64_decode, pairs[i][1], OK, pairs[i][0]);
        converts(base64url_encode, pairs[i][0], OK, pairs[i][2]);
        converts(base64url_decode, pairs[i][2], OK, pairs[i][0]);
    }
    static const char *const wrong[] = {"Z",    "Zg=",  "Zg",   "Zh==",     "Zm9=",
                                        "Z===", "====", "Zm 9", "Zg==Zg==", "Zm9v\n",
                                        "-_--", "Zg=a", "=Zg="};
    for (size_t i = 0; i < COUNT_OF(wrong); i++)
        converts(base64_decode, wrong[i], ERR_INVALID, "");
    static const char *const wrong_url[] = {"Z", "Zh", "Zm9", "Zg==", "+/++", "Zm9v\n", "Zm8="};
    for (size_t i = 0; i < COUNT_OF(wrong_url); i++)
        converts(base64url_decode, wrong_url[i], ERR_INVALID, "");
}

static void base64_keeps_to_its_room(void **state)
{
    (void)state;
    uint64_t seed = 4;
    for (int i = 0; i < 2000; i++) {
        uint8_t data[64];
        size_t size = random_below(&seed, sizeof data);
        for (size_t j = 0; j < size; j++)
            data[j] = (uint8_t)random_next(&seed);
        convert *encode = i % 2 == 0 ? base64_encode : base64url_encode;
        convert *decode = i % 2 == 0 ? base64_decode : base64url_decode;
        uint8_t text[100];
        struct buffer out = buffer_of(text, sizeof text);
        assert_int_equal(encode(&out, bytes_of(data, size)), OK);
        uint8_t back[64];
        struct buffer exact = buffer_of(back, size);
        assert_int_equal(decode(&exact, buffer_bytes(&out)), OK);
        assert_int_equal(exact.size, size);
        assert_memory_equal(back, data, size);
        if (size == 0)
            continue;
        struct buffer small = buffer_of(back, size - 1);
        assert_int_equal(decode(&small, buffer_bytes(&out)), ERR_FULL);
        assert_int_equal(small.size, 0);
        small = buffer_of(text, out.size - 1);
        assert_int_equal(encode(&small, bytes_of(data, size)), ERR_FULL);
        assert_int_equal(small.size, 0);
    }
}

/* encode_plain: any number, also those UTF-8 forbids, in `size` bytes. */
static void encode_plain(uint8_t *out, uint32_t code, size_t size)
{
    static const uint8_t first[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = size; i-- > 1; code >>= 6)
        out[i] = (uint8_t)(0x80 | (code & 63));
    out[0] = (uint8_t)(size == 1 ? code : first[size] | code);
}

static void utf8_exactly(void **state)
{
    (void)state;
    static const uint32_t size_min[] = {0, 0, 0x80, 0x800, 0x10000};
    static const uint32_t size_end[] = {0, 0x80, 0x800, 0x10000, 0x200000};
    uint8_t text[24];
    for (size_t size = 1; size <= 4; size++) {
        for (uint32_t code = 0; code < size_end[size]; code++) {
            memset(text, 'a', sizeof text);
            encode_plain(text + 9, code, size);
            bool good =
                code >= size_min[size] && code <= 0x10ffff && !(code >= 0xd800 && code < 0xe000);
            if (utf8_valid(bytes_of(text, sizeof text)) != good)
                fail_msg("U+%X in %zu bytes", code, size);
            if (good && size > 1 && utf8_valid(bytes_of(text, 9 + size - 1)))
                fail_msg("U+%X cut", code);
        }
    }
    assert_true(utf8_valid(bytes_of(NULL, 0)));
    assert_false(utf8_valid(bytes_of("\x80", 1)));
    assert_false(utf8_valid(bytes_of("\xff", 1)));
    assert_false(utf8_valid(bytes_of("\xf8\x88\x80\x80\x80", 5)));
    assert_false(utf8_valid(bytes_of("\xc3(", 2)));
    assert_int_equal(utf8_size(bytes_of_text("\xe2\x82\xac!")), 3);
}

static void decimals(void **state)
{
    (void)state;
    uint64_t v = 7;
    assert_int_equal(decimal_parse(&v, bytes_of_text("0")), OK);
    assert_true(v == 0);
    assert_int_equal(decimal_parse(&v, bytes_of_text("18446744073709551615")), OK);
    assert_true(v == UINT64_MAX);
    const char *wrong[] = {
        "", "18446744073709551616", "99999999999999999999", "-1", "+1", " 1", "1 ", "0x1", "1.0"};
    for (size_t i = 0; i < COUNT_OF(wrong); i++)
        assert_int_equal(decimal_parse(&v, bytes_of_text(wrong[i])), ERR_INVALID);
    assert_true(v == UINT64_MAX);
}

static void addresses(void **state)
{
    (void)state;
    static const char *const good[] = {
        "192.0.2.1:443",
        "127.0.0.1:0",
        "[2001:db8::1]:443",
        "[::]:65535",
        "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
    };
    for (size_t i = 0; i < COUNT_OF(good); i++) {
        struct io_address address;
        char text[54];
        assert_int_equal(address_parse(&address, good[i]), OK);
        address_format(text, &address);
        assert_string_equal(text, good[i]);
    }
    struct io_address address;
    char text[54];
    assert_int_equal(address_parse(&address, "[::ffff:192.0.2.1]:5"), OK);
    address_format(text, &address);
    assert_string_equal(text, "192.0.2.1:5");
    assert_int_equal(address.ip[10], 0xff);
    assert_int_equal(address.ip[15], 1);
    static const char *const wrong[] = {
        "",
        "192.0.2.1",
        "192.0.2.1:",
        "192.0.2.1:65536",
        "192.0.2:1",
        ":443",
        "localhost:443",
        "::1:443",
        "[::1]",
        "[::1:443",
        "[::1]443",
        "[192.0.2.1]:443",
        "[]:443",
        "[:443",
        "192.0.2.1:4 ",
        "256.0.0.1:1",
        "[fe80::1%eth0]:1",
    };
    for (size_t i = 0; i < COUNT_OF(wrong); i++) {
        if (address_parse(&address, wrong[i]) != ERR_INVALID)
            fail_msg("took %s", wrong[i]);
    }
}

static void blanks_and_case(void **state)
{
    (void)state;
    assert_true(bytes_equal(text_trim(bytes_of_text(" \ta b\t ")), bytes_of_text("a b")));
    assert_int_equal(text_trim(bytes_of_text(" \t ")).size, 0);
    assert_int_equal(text_trim(bytes_of_text("\r")).size, 1);
    assert_true(text_equal_ignoring_case(bytes_of_text("KEEP-alive"), "keep-Alive"));
    assert_false(text_equal_ignoring_case(bytes_of_text("keep"), "keep-alive"));
    assert_false(text_equal_ignoring_case(bytes_of_text("keep-alive"), "keep"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(uuids),           cmocka_unit_test(base64_of_the_rfc),
        cmocka_unit_test(utf8_exactly),    cmocka_unit_test(base64_keeps_to_its_room),
        cmocka_unit_test(decimals),        cmocka_unit_test(addresses),
        cmocka_unit_test(blanks_and_case),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
