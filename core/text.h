/* text.h: small conversions between bytes and text that several floors need. All outputs are
 * NUL-terminated. Standards:  UUID text form RFC 9562 4; base64 and base64url RFC 4648 4 and 5;
 * UTF-8 RFC 3629 */
#ifndef CORE_TEXT_H
#define CORE_TEXT_H

#include "core/bytes.h"

#define UUID_TEXT_BYTES 37

void uuid_format(char out[UUID_TEXT_BYTES], const uint8_t uuid[16]);
MUST_USE enum err uuid_parse(uint8_t uuid[16], struct bytes text);
/* uuid_make_v7: time-sortable id (RFC 9562 5.7) of the given time and 10 random bytes. */
void uuid_make_v7(uint8_t uuid[16], uint64_t unix_ms, const uint8_t random[10]);
bool uuid_is_v7(const uint8_t uuid[16]);

/* base64_encode: standard alphabet with padding; out needs (size + 2) / 3 * 4 bytes of room. */
MUST_USE enum err base64_encode(struct buffer *out, struct bytes data);
MUST_USE enum err base64_decode(struct buffer *out, struct bytes text);    /* strict */
MUST_USE enum err base64url_encode(struct buffer *out, struct bytes data); /* no padding */
MUST_USE enum err base64url_decode(struct buffer *out, struct bytes text); /* strict, no padding */

/* utf8_size: bytes of the well-formed character that text (not empty) begins with, 0: none. */
size_t utf8_size(struct bytes text);
bool utf8_valid(struct bytes text);
/* text_trim: without the blanks and tabs around it. */
struct bytes text_trim(struct bytes text);
bool text_equal_ignoring_case(struct bytes a, const char *b);      /* of A-Z only */
MUST_USE enum err decimal_parse(uint64_t *out, struct bytes text); /* digits only, no overflow */

/* address_format: "192.0.2.1:443" or "[2001:db8::1]:443"; at most 54 bytes with NUL. */
struct io_address;
void address_format(char out[54], const struct io_address *address);
MUST_USE enum err address_parse(struct io_address *address,
                                const char *text); /* host literal with port */

#endif
