/* text.c: UUIDs, base64, UTF-8, decimal numbers, addresses. */
#include "core/text.h"

#include "core/io.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <strings.h>

/* ---- UUID */

static const char hex_digits[] = "0123456789abcdef";

/* uuid_hyphen: whether the text form has a hyphen at this place (8-4-4-4-12). */
static bool uuid_hyphen(size_t at)
{
    return at == 8 || at == 13 || at == 18 || at == 23;
}

void uuid_format(char out[UUID_TEXT_BYTES], const uint8_t uuid[16])
{
    size_t at = 0;
    for (size_t i = 0; i < 16; i++) {
        if (uuid_hyphen(at))
            out[at++] = '-';
        out[at++] = hex_digits[uuid[i] >> 4];
        out[at++] = hex_digits[uuid[i] & 15];
    }
    out[at] = '\0';
}

/* hex_value: 0 … 15, or -1. */
static int hex_value(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

enum err uuid_parse(uint8_t uuid[16], struct bytes text)
{
    if (text.size != UUID_TEXT_BYTES - 1)
        return ERR_INVALID;
    uint8_t out[16];
    size_t at = 0;
    for (size_t i = 0; i < 16; i++) {
        if (uuid_hyphen(at) && text.data[at++] != '-')
            return ERR_INVALID;
        int high = hex_value(text.data[at++]);
        int low = hex_value(text.data[at++]);
        if (high < 0 || low < 0)
            return ERR_INVALID;
        out[i] = (uint8_t)(high << 4 | low);
    }
    memcpy(uuid, out, sizeof out);
    return OK;
}

void uuid_make_v7(uint8_t uuid[16], uint64_t unix_ms, const uint8_t random[10])
{
    for (int i = 0; i < 6; i++)
        uuid[i] = (uint8_t)(unix_ms >> (40 - 8 * i));
    memcpy(uuid + 6, random, 10);
    uuid[6] = (uint8_t)(0x70 | (uuid[6] & 0x0f)); /* version 7 */
    uuid[8] = (uint8_t)(0x80 | (uuid[8] & 0x3f)); /* variant of RFC 9562 4.1 */
}

bool uuid_is_v7(const uint8_t uuid[16])
{
    return uuid[6] >> 4 == 7 && uuid[8] >> 6 == 2;
}

/* ---- base64 */

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char alphabet_url[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static enum err encode_base64(struct buffer *out, struct bytes data, const char *digits, bool pad)
{
    size_t tail = data.size % 3;
    size_t tail_size = tail == 0 ? 0 : pad ? 4 : tail + 1;
    size_t whole = data.size - tail;
    size_t room = buffer_room(out);
    if (tail_size > room || whole / 3 > (room - tail_size) / 4)
        return ERR_FULL;
    uint8_t *p = out->data + out->size;
    for (size_t i = 0; i < whole; i += 3) {
        uint32_t v =
            (uint32_t)data.data[i] << 16 | (uint32_t)data.data[i + 1] << 8 | data.data[i + 2];
        *p++ = (uint8_t)digits[v >> 18];
        *p++ = (uint8_t)digits[v >> 12 & 63];
        *p++ = (uint8_t)digits[v >> 6 & 63];
        *p++ = (uint8_t)digits[v & 63];
    }
    if (tail != 0) {
        uint32_t v = (uint32_t)data.data[whole] << 16;
        if (tail == 2)
            v |= (uint32_t)data.data[whole + 1] << 8;
        *p++ = (uint8_t)digits[v >> 18];
        *p++ = (uint8_t)digits[v >> 12 & 63];
        if (tail == 2)
            *p++ = (uint8_t)digits[v >> 6 & 63];
        for (size_t i = tail; pad && i < 3; i++)
            *p++ = '=';
    }
    out->size = (size_t)(p - out->data);
    return OK;
}

/* base64_value: 0 … 63, or 64 for what is not in the alphabet. */
static uint32_t base64_value(uint8_t c, const char *digits)
{
    if (c >= 'A' && c <= 'Z')
        return (uint32_t)(c - 'A');
    if (c >= 'a' && c <= 'z')
        return (uint32_t)(c - 'a') + 26;
    if (c >= '0' && c <= '9')
        return (uint32_t)(c - '0') + 52;
    if (c == (uint8_t)digits[62])
        return 62;
    return c == (uint8_t)digits[63] ? 63 : 64;
}

/* decode_base64: text without padding. A text that encode would not make (bits set behind the last
 * byte, RFC 4648 3.5) is invalid, so that one value has one text. */
static enum err decode_base64(struct buffer *out, struct bytes text, const char *digits)
{
    size_t tail = text.size % 4;
    if (tail == 1)
        return ERR_INVALID;
    size_t size = text.size / 4 * 3 + (tail == 0 ? 0 : tail - 1);
    if (size > buffer_room(out))
        return ERR_FULL;
    uint8_t *p = out->data + out->size;
    uint32_t bits = 0;
    uint32_t bit_count = 0;
    for (size_t i = 0; i < text.size; i++) {
        uint32_t v = base64_value(text.data[i], digits);
        if (v == 64)
            return ERR_INVALID;
        bits = bits << 6 | v;
        bit_count += 6;
        if (bit_count >= 8) {
            bit_count -= 8;
            *p++ = (uint8_t)(bits >> bit_count);
            bits &= (1u << bit_count) - 1;
        }
    }
    if (bits != 0)
        return ERR_INVALID;
    out->size += size;
    return OK;
}

enum err base64_encode(struct buffer *out, struct bytes data)
{
    return encode_base64(out, data, alphabet, true);
}

enum err base64_decode(struct buffer *out, struct bytes text)
{
    if (text.size % 4 != 0)
        return ERR_INVALID;
    for (int i = 0; i < 2 && text.size != 0 && text.data[text.size - 1] == '='; i++)
        text.size--;
    return decode_base64(out, text, alphabet);
}

enum err base64url_encode(struct buffer *out, struct bytes data)
{
    return encode_base64(out, data, alphabet_url, false);
}

enum err base64url_decode(struct buffer *out, struct bytes text)
{
    return decode_base64(out, text, alphabet_url);
}

/* ---- UTF-8 */

/* The ranges of RFC 3629 4 leave out overlong forms, surrogates and everything past U+10FFFF. */
size_t utf8_size(struct bytes text)
{
    const uint8_t *p = text.data;
    uint8_t first = p[0];
    if (first < 0x80)
        return 1;
    if (first < 0xc2 || first > 0xf4)
        return 0;
    size_t size = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    if (size > text.size)
        return 0;
    uint8_t low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    uint8_t high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    if (p[1] < low || p[1] > high)
        return 0;
    for (size_t i = 2; i < size; i++) {
        if (p[i] >> 6 != 2)
            return 0;
    }
    return size;
}

bool utf8_valid(struct bytes text)
{
    while (text.size != 0) {
        if (text.size >= 8 && (load_u64(text.data) & 0x8080808080808080u) == 0) {
            text = bytes_skip(text, 8);
            continue;
        }
        size_t size = utf8_size(text);
        if (size == 0)
            return false;
        text = bytes_skip(text, size);
    }
    return true;
}

/* ---- numbers and addresses */

struct bytes text_trim(struct bytes text)
{
    while (text.size != 0 && (text.data[0] == ' ' || text.data[0] == '\t'))
        text = bytes_skip(text, 1);
    while (text.size != 0 && (text.data[text.size - 1] == ' ' || text.data[text.size - 1] == '\t'))
        text.size--;
    return text;
}

bool text_equal_ignoring_case(struct bytes a, const char *b)
{
    return a.size == strlen(b) && strncasecmp((const char *)a.data, b, a.size) == 0;
}

enum err decimal_parse(uint64_t *out, struct bytes text)
{
    uint64_t v = 0;
    if (text.size == 0)
        return ERR_INVALID;
    for (size_t i = 0; i < text.size; i++) {
        uint8_t c = text.data[i];
        if (c < '0' || c > '9' || __builtin_mul_overflow(v, 10, &v) ||
            __builtin_add_overflow(v, (uint64_t)(c - '0'), &v))
            return ERR_INVALID;
    }
    *out = v;
    return OK;
}

static const uint8_t mapped_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

void address_format(char out[54], const struct io_address *address)
{
    char host[INET6_ADDRSTRLEN];
    bool v4 = memcmp(address->ip, mapped_prefix, sizeof mapped_prefix) == 0;
    const char *text = v4 ? inet_ntop(AF_INET, address->ip + 12, host, sizeof host)
                          : inet_ntop(AF_INET6, address->ip, host, sizeof host);
    CHECK(text != NULL);
    (void)snprintf(out, 54, v4 ? "%s:%u" : "[%s]:%u", host, (unsigned)address->port);
}

enum err address_parse(struct io_address *address, const char *text)
{
    const char *colon = strrchr(text, ':');
    if (colon == NULL)
        return ERR_INVALID;
    uint64_t port;
    TRY(decimal_parse(&port, bytes_of_text(colon + 1)));
    bool bracketed = text[0] == '[';
    size_t host_size = (size_t)(colon - text);
    if (bracketed) {
        if (host_size < 2 || colon[-1] != ']')
            return ERR_INVALID;
        text++;
        host_size -= 2;
    }
    char host[INET6_ADDRSTRLEN];
    if (port > UINT16_MAX || host_size >= sizeof host)
        return ERR_INVALID;
    memcpy(host, text, host_size);
    host[host_size] = '\0';
    struct io_address out = {.port = (uint16_t)port};
    if (!bracketed)
        memcpy(out.ip, mapped_prefix, sizeof mapped_prefix);
    if (inet_pton(bracketed ? AF_INET6 : AF_INET, host, bracketed ? out.ip : out.ip + 12) != 1)
        return ERR_INVALID;
    *address = out;
    return OK;
}
