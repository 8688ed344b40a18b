/* config_value.c: text; yes or no; a whole number; a size "64 MiB" (B, KiB, MiB, GiB; no unit:
 * bytes); a time "10 s" (ms, s, min, h, d; the unit is required); an address "[::]:8443"; a list.
 */
#include "gateway/config_value.h"

#include "core/text.h"

#include <stdio.h>

struct unit {
    const char *name;
    uint64_t factor;
};

/* Largest first: printing takes the first that divides. */
static const struct unit size_units[] = {{"GiB", GIB}, {"MiB", MIB}, {"KiB", KIB}, {"B", 1}};
static const struct unit time_units[] = {
    {"d", MS_PER_D}, {"h", MS_PER_H}, {"min", MS_PER_MIN}, {"s", MS_PER_S}, {"ms", 1}};

static const char *const level_names[] = {"debug", "info", "warn", "error"};
static const char *const format_names[] = {"text", "json"};

static void *field_of(struct config *config, const struct config_key *key)
{
    return (uint8_t *)config + key->offset;
}

static uint64_t field_number(const struct config *config, const struct config_key *key)
{
    const uint8_t *field = (const uint8_t *)config + key->offset;
    if (key->width == sizeof(uint64_t))
        return load_u64(field);
    return key->width == sizeof(uint32_t) ? load_u32(field) : *field;
}

static void field_set_number(struct config *config, const struct config_key *key, uint64_t value)
{
    uint8_t *field = field_of(config, key);
    if (key->width == sizeof(uint64_t))
        store_u64(field, value);
    else
        store_u32(field, (uint32_t)value);
}

/* number_parse: digits, blanks, a unit of the list. bare: without a unit the factor is 1. */
static enum err number_parse(uint64_t *out, const char *text, const struct unit *units,
                             size_t unit_count, bool bare)
{
    size_t digits = strspn(text, "0123456789");
    uint64_t value;
    TRY(decimal_parse(&value, bytes_of(text, digits)));
    const char *name = text + digits + strspn(text + digits, " \t");
    if (*name == '\0') {
        *out = value;
        return bare ? OK : ERR_INVALID;
    }
    for (size_t i = 0; i < unit_count; i++) {
        if (strcmp(units[i].name, name) == 0)
            return __builtin_mul_overflow(value, units[i].factor, out) ? ERR_TOO_BIG : OK;
    }
    return ERR_INVALID;
}

static void number_format(char out[VALUE_TEXT_MAX], uint64_t value, const struct unit *units,
                          size_t unit_count)
{
    size_t i = 0;
    while (i + 1 < unit_count && (value == 0 || value % units[i].factor != 0))
        i++;
    snprintf(out, VALUE_TEXT_MAX, "%llu %s", (unsigned long long)(value / units[i].factor),
             units[i].name);
}

void config_value_format(char out[VALUE_TEXT_MAX], const struct config_key *key, uint64_t value)
{
    if (key->kind == KIND_BYTES)
        number_format(out, value, size_units, COUNT_OF(size_units));
    else if (key->kind == KIND_KIB)
        number_format(out, value * KIB, size_units, COUNT_OF(size_units));
    else if (key->kind == KIND_MS)
        number_format(out, value, time_units, COUNT_OF(time_units));
    else if (key->kind == KIND_S)
        number_format(out, value * MS_PER_S, time_units, COUNT_OF(time_units));
    else
        snprintf(out, VALUE_TEXT_MAX, "%llu", (unsigned long long)value);
}

static enum err name_parse(uint64_t *out, const char *text, const char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(names[i], text) == 0) {
            *out = i;
            return OK;
        }
    }
    return ERR_INVALID;
}

/* value_number: the field's value of a number, size, time or name. ERR_INVALID: wrong type. */
static enum err value_number(uint64_t *out, const struct config_key *key, const char *text)
{
    uint64_t value = 0;
    switch (key->kind) {
    case KIND_COUNT:
        TRY(number_parse(&value, text, NULL, 0, true));
        break;
    case KIND_BYTES:
        TRY(number_parse(&value, text, size_units, COUNT_OF(size_units), true));
        break;
    case KIND_KIB:
        TRY(number_parse(&value, text, size_units, COUNT_OF(size_units), true));
        if (value % KIB != 0)
            return ERR_INVALID;
        value /= KIB;
        break;
    case KIND_MS:
        TRY(number_parse(&value, text, time_units, COUNT_OF(time_units), false));
        break;
    case KIND_S:
        TRY(number_parse(&value, text, time_units, COUNT_OF(time_units), false));
        if (value % MS_PER_S != 0)
            return ERR_INVALID;
        value /= MS_PER_S;
        break;
    case KIND_LEVEL:
        TRY(name_parse(&value, text, level_names, COUNT_OF(level_names)));
        break;
    case KIND_FORMAT:
        TRY(name_parse(&value, text, format_names, COUNT_OF(format_names)));
        break;
    case KIND_TEXT:
    case KIND_ADDRESS:
    case KIND_NETWORKS:
    case KIND_ORIGINS:
    case KIND_DIRECTORIES:
    case KIND_BOOL:
        return ERR_INVALID; /* not a number: config_value_set has other branches for these */
    }
    *out = value;
    return key->max != 0 && (value < key->min || value > key->max) ? ERR_TOO_BIG : OK;
}

static enum err text_check(const struct config_key *key, const char *text)
{
    struct io_address address;
    if (!utf8_valid(bytes_of_text(text)) || text[0] == ';') /* behind a blank it begins a comment */
        return ERR_INVALID;
    for (const char *c = text; *c != '\0'; c++) {
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            return ERR_INVALID;
    }
    if (strlen(text) >= CONFIG_TEXT_BYTES)
        return ERR_TOO_BIG;
    if (key->kind == KIND_ADDRESS)
        return address_parse(&address, text);
    if (key->kind == KIND_ORIGINS)
        return config_origins_validate(text);
    if (key->kind == KIND_DIRECTORIES)
        return config_directories_validate(text);
    return key->kind == KIND_NETWORKS ? config_networks_validate(text) : OK;
}

enum err config_value_set(struct config *config, const struct config_key *key, const char *text)
{
    uint64_t number;
    switch (key->kind) {
    case KIND_TEXT:
    case KIND_ADDRESS:
    case KIND_NETWORKS:
    case KIND_ORIGINS:
    case KIND_DIRECTORIES:
        TRY(text_check(key, text));
        memcpy(field_of(config, key), text, strlen(text) + 1);
        return OK;
    case KIND_BOOL:
        if (strcmp(text, "yes") != 0 && strcmp(text, "no") != 0)
            return ERR_INVALID;
        *(bool *)field_of(config, key) = text[0] == 'y';
        return OK;
    case KIND_COUNT:
    case KIND_BYTES:
    case KIND_KIB:
    case KIND_MS:
    case KIND_S:
    case KIND_LEVEL:
    case KIND_FORMAT:
        TRY(value_number(&number, key, text));
        field_set_number(config, key, number);
        return OK;
    }
    return ERR_INVALID;
}

enum err config_value_put(struct buffer *out, const struct config *config,
                          const struct config_key *key)
{
    char number[VALUE_TEXT_MAX];
    switch (key->kind) {
    case KIND_TEXT:
    case KIND_ADDRESS:
    case KIND_NETWORKS:
    case KIND_ORIGINS:
    case KIND_DIRECTORIES:
        return buffer_append(out, bytes_of_text((const char *)config + key->offset));
    case KIND_BOOL:
        return buffer_append(out,
                             bytes_of_text(*((const bool *)config + key->offset) ? "yes" : "no"));
    case KIND_LEVEL:
        return buffer_append(out, bytes_of_text(level_names[field_number(config, key)]));
    case KIND_FORMAT:
        return buffer_append(out, bytes_of_text(format_names[field_number(config, key)]));
    case KIND_COUNT:
    case KIND_BYTES:
    case KIND_KIB:
    case KIND_MS:
    case KIND_S:
        config_value_format(number, key, field_number(config, key));
        return buffer_append(out, bytes_of_text(number));
    }
    return ERR_INVALID;
}

const char *config_value_expects(enum config_kind kind)
{
    switch (kind) {
    case KIND_TEXT:
        return "UTF-8 text without control characters, not beginning with a semicolon";
    case KIND_ADDRESS:
        return "an address with a port, like 127.0.0.1:8443 or [::]:8443";
    case KIND_NETWORKS:
        return "networks separated by commas, like 10.0.0.0/8, fd00::/8";
    case KIND_ORIGINS:
        return "origins separated by commas, like https://chat.example, https://localhost:8443 "
               "(lower case, no path), or * alone";
    case KIND_DIRECTORIES:
        return "up to 7 directories that begin with /, separated by commas, like /disk2/log, "
               "/disk3/log";
    case KIND_BOOL:
        return "yes or no";
    case KIND_COUNT:
        return "a whole number";
    case KIND_BYTES:
        return "a size, like 64 MiB (units: B, KiB, MiB, GiB)";
    case KIND_KIB:
        return "a size in whole KiB, like 64 MiB (units: B, KiB, MiB, GiB)";
    case KIND_MS:
        return "a time with its unit, like 10 s (units: ms, s, min, h, d)";
    case KIND_S:
        return "a time of whole seconds with its unit, like 15 min (units: s, min, h, d)";
    case KIND_LEVEL:
        return "debug, info, warn or error";
    case KIND_FORMAT:
        return "text or json";
    }
    return "";
}
