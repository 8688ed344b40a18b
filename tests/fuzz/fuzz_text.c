/* fuzz_text.c: every parser of core/text on any bytes. What is taken must come back the same from
 * the formatter (one value, one text), and what the formatter makes must be taken. */
#include "core/io.h"
#include "core/text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void base64_both(struct bytes text, bool url)
{
    static uint8_t value_room[65536];
    static uint8_t text_room[90000];
    struct buffer value = buffer_of(value_room, sizeof value_room);
    struct buffer again = buffer_of(text_room, sizeof text_room);
    enum err err = url ? base64url_decode(&value, text) : base64_decode(&value, text);
    if (err == OK) {
        enum err back = url ? base64url_encode(&again, buffer_bytes(&value))
                            : base64_encode(&again, buffer_bytes(&value));
        CHECK(back == OK);
        CHECK(bytes_equal(buffer_bytes(&again), text));
    }
    again.size = 0;
    enum err err_encode = url ? base64url_encode(&again, text) : base64_encode(&again, text);
    if (err_encode != OK)
        return;
    value.size = 0;
    enum err err_decode = url ? base64url_decode(&value, buffer_bytes(&again))
                              : base64_decode(&value, buffer_bytes(&again));
    CHECK(err_decode == OK);
    CHECK(bytes_equal(buffer_bytes(&value), text));
}

static void address_there_and_back(struct bytes text)
{
    char copy[128];
    if (text.size >= sizeof copy)
        return;
    if (text.size != 0)
        memcpy(copy, text.data, text.size);
    copy[text.size] = '\0';
    struct io_address address;
    if (address_parse(&address, copy) != OK)
        return;
    char formatted[54];
    struct io_address again;
    address_format(formatted, &address);
    enum err err = address_parse(&again, formatted);
    CHECK(err == OK);
    CHECK(memcmp(again.ip, address.ip, sizeof again.ip) == 0 && again.port == address.port);
}

static void utf8_by_characters(struct bytes text)
{
    bool valid = utf8_valid(text);
    while (text.size != 0) {
        size_t size = utf8_size(text);
        CHECK(size <= text.size);
        if (size == 0) {
            CHECK(!valid);
            return;
        }
        text = bytes_skip(text, size);
    }
    CHECK(valid);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bytes text = bytes_of(data, size);
    base64_both(text, false);
    base64_both(text, true);
    address_there_and_back(text);
    utf8_by_characters(text);
    uint64_t number;
    enum err err = decimal_parse(&number, text);
    CHECK(err == OK || err == ERR_INVALID);
    uint8_t uuid[16];
    if (uuid_parse(uuid, text) == OK) {
        char formatted[UUID_TEXT_BYTES];
        uint8_t again[16];
        uuid_format(formatted, uuid);
        err = uuid_parse(again, bytes_of_text(formatted));
        CHECK(err == OK);
        CHECK(memcmp(uuid, again, sizeof uuid) == 0);
    }
    return 0;
}
