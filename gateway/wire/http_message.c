/* http_message.c: what stands in a message, and responses. How one is read: http.c. */
#include "gateway/wire/http.h"

#include "core/text.h"

#include <http_parser.h>
#include <stdio.h>

/* ---- looking into a request */

const struct http_field *http_field_find(const struct http_request *request, const char *name)
{
    for (size_t i = 0; i < request->field_count; i++)
        if (text_equal_ignoring_case(request->fields[i].name, name))
            return &request->fields[i];
    return NULL;
}

bool http_field_repeated(const struct http_request *request, const char *name)
{
    size_t count = 0;
    for (size_t i = 0; i < request->field_count; i++)
        count += text_equal_ignoring_case(request->fields[i].name, name);
    return count > 1;
}

/* item_next: cuts the part before `separator` off *rest. */
static struct bytes item_next(struct bytes *rest, char separator)
{
    const uint8_t *end = rest->size == 0 ? NULL : memchr(rest->data, separator, rest->size);
    size_t size = end == NULL ? rest->size : (size_t)(end - rest->data);
    struct bytes item = bytes_of(rest->data, size);
    *rest = bytes_skip(*rest, end == NULL ? size : size + 1);
    return item;
}

size_t http_field_first_token(const struct http_request *request, const char *name,
                              const char *const *tokens, size_t count)
{
    for (size_t i = 0; i < request->field_count; i++) {
        if (!text_equal_ignoring_case(request->fields[i].name, name))
            continue;
        struct bytes rest = request->fields[i].value;
        while (rest.size != 0) {
            struct bytes item = text_trim(item_next(&rest, ','));
            for (size_t token = 0; token < count; token++)
                if (text_equal_ignoring_case(item, tokens[token]))
                    return token;
        }
    }
    return count;
}

bool http_field_has_token(const struct http_request *request, const char *name, const char *token)
{
    return http_field_first_token(request, name, &token, 1) == 0;
}

/* hexadecimal_value: -1: not a digit. */
static int hexadecimal_value(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* percent_decode: ERR_INVALID, ERR_FULL: out is as before. */
static enum err percent_decode(struct buffer *out, struct bytes text)
{
    size_t start = out->size;
    enum err err = OK;
    for (size_t i = 0; i < text.size && err == OK; i++) {
        uint8_t c = text.data[i];
        if (c == '+') {
            c = ' ';
        } else if (c == '%') {
            int high = text.size - i < 3 ? -1 : hexadecimal_value(text.data[i + 1]);
            int low = text.size - i < 3 ? -1 : hexadecimal_value(text.data[i + 2]);
            if (high < 0 || low < 0) {
                err = ERR_INVALID;
                break;
            }
            c = (uint8_t)(high << 4 | low);
            i += 2;
        }
        err = buffer_put_u8(out, c);
    }
    if (err != OK)
        out->size = start;
    return err;
}

enum err http_query_value(struct buffer *out, struct bytes query, const char *name)
{
    while (query.size != 0) {
        struct bytes value = item_next(&query, '&');
        struct bytes key = item_next(&value, '=');
        if (bytes_equal(key, bytes_of_text(name)))
            return percent_decode(out, value);
    }
    return ERR_NOT_FOUND;
}

struct bytes http_cookie_find(const struct http_request *request, const char *name)
{
    for (size_t i = 0; i < request->field_count; i++) {
        if (!text_equal_ignoring_case(request->fields[i].name, "Cookie"))
            continue;
        struct bytes rest = request->fields[i].value;
        while (rest.size != 0) {
            struct bytes value = text_trim(item_next(&rest, ';'));
            bool has_value = value.size != 0 && memchr(value.data, '=', value.size) != NULL;
            struct bytes key = item_next(&value, '=');
            if (has_value && bytes_equal(text_trim(key), bytes_of_text(name)))
                return text_trim(value);
        }
    }
    return (struct bytes){NULL, 0};
}

/* ---- responses */

const char *http_status_text(unsigned status)
{
    const char *text = http_status_str((enum http_status)status);
    return strcmp(text, "<unknown>") == 0 ? "Unknown" : text;
}

/* body_allowed: RFC 9110 6.4.1, 8.6: these have neither body nor Content-Length. */
static bool body_allowed(unsigned status)
{
    return status >= 200 && status != 204 && status != 304;
}

enum err http_response_encode(struct buffer *out, const struct http_response *response)
{
    char head[HTTP_RESPONSE_OVERHEAD];
    char length[48] = "";
    bool body = body_allowed(response->status);
    const char *type = response->content_type;
    if (body)
        snprintf(length, sizeof length, "Content-Length: %zu\r\n", response->body.size);
    int size = snprintf(head, sizeof head, "HTTP/1.1 %u %s\r\n%s%s%s%s%s", response->status,
                        http_status_text(response->status),
                        type == NULL ? "" : "Content-Type: ", type == NULL ? "" : type,
                        type == NULL ? "" : "\r\n", length,
                        response->close ? "Connection: close\r\n" : "");
    CHECK(size > 0 && (size_t)size < sizeof head);
    size_t start = out->size;
    enum err err = buffer_append(out, bytes_of(head, (size_t)size));
    if (err == OK && response->fields != NULL)
        err = buffer_append(out, bytes_of_text(response->fields));
    if (err == OK)
        err = buffer_append(out, bytes_of("\r\n", 2));
    if (err == OK && body && !response->head)
        err = buffer_append(out, response->body);
    if (err != OK)
        out->size = start;
    return err;
}
