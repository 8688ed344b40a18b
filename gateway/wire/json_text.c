/* json_text.c: a scan that bounds depth and number of values before jansson allocates for them,
 * then jansson; and the few lines that write JSON, which needs no tree. */
#include "gateway/wire/json_text.h"

#include "core/memory.h"
#include "core/text.h"

static void *jansson_take(size_t size)
{
    return memory_take(size, MEMORY_API);
}

static void jansson_give(void *p)
{
    memory_give(p, MEMORY_API);
}

void json_text_init(uint32_t seed)
{
    json_set_alloc_funcs(jansson_take, jansson_give);
    json_object_seed(seed == 0 ? 1 : seed);
}

/* scan_string: the index of the closing quote, or one at or behind the end. */
static size_t scan_string(struct bytes text, size_t i)
{
    while (i < text.size && text.data[i] != '"')
        i += text.data[i] == '\\' ? 2 : 1;
    return i;
}

/* scan: nesting and number of values, without judging the rest: every value but the first follows
 * a comma, a colon or an opening bracket. */
static enum err scan(struct bytes text)
{
    size_t depth = 0;
    size_t values = 1;

    for (size_t i = 0; i < text.size; i++) {
        uint8_t c = text.data[i];
        if (c == '"') {
            i = scan_string(text, i + 1);
        } else if (c == '{' || c == '[') {
            if (++depth > JSON_TEXT_DEPTH_MAX)
                return ERR_INVALID;
            values++;
        } else if (c == '}' || c == ']') {
            if (depth-- == 0)
                return ERR_INVALID;
        } else if (c == ',') {
            values++;
        }
        if (values > JSON_TEXT_VALUES_MAX)
            return ERR_TOO_BIG;
    }
    return OK;
}

enum err json_text_parse(json_t **root, struct bytes text)
{
    json_error_t error;

    TRY(scan(text));
    json_t *tree = json_loadb((const char *)text.data, text.size,
                              JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    if (tree == NULL)
        return json_error_code(&error) == json_error_out_of_memory ? ERR_NO_MEMORY : ERR_INVALID;
    if (!json_is_object(tree)) {
        json_decref(tree);
        return ERR_INVALID;
    }
    *root = tree;
    return OK;
}

struct bytes json_text_member(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    if (!json_is_string(value))
        return (struct bytes){NULL, 0};
    return bytes_of(json_string_value(value), json_string_length(value));
}

static enum err put_escape(struct buffer *out, uint8_t c)
{
    static const char hex[] = "0123456789abcdef";
    char text[6] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};

    if (c == '"' || c == '\\') {
        text[1] = (char)c;
        return buffer_append(out, bytes_of(text, 2));
    }
    return buffer_append(out, bytes_of(text, sizeof text));
}

enum err json_text_put(struct buffer *out, struct bytes text)
{
    if (!utf8_valid(text))
        return ERR_INVALID;
    TRY(buffer_put_u8(out, '"'));
    size_t plain = 0; /* start of what needs no escape and is not appended yet */
    for (size_t i = 0; i < text.size; i++) {
        uint8_t c = text.data[i];
        if (c >= 0x20 && c != '"' && c != '\\')
            continue;
        TRY(buffer_append(out, bytes_of(text.data + plain, i - plain)));
        TRY(put_escape(out, c));
        plain = i + 1;
    }
    if (plain < text.size)
        TRY(buffer_append(out, bytes_of(text.data + plain, text.size - plain)));
    return buffer_put_u8(out, '"');
}

enum err json_text_put_number(struct buffer *out, uint64_t value)
{
    char text[20];
    size_t at = sizeof text;

    do {
        text[--at] = (char)('0' + value % 10);
        value /= 10;
    } while (value != 0);
    return buffer_append(out, bytes_of(text + at, sizeof text - at));
}
