/* config_value.h: one setting, and its value between text and struct config; config.c has the table
 * of them all. */
#ifndef GATEWAY_CONFIG_VALUE_H
#define GATEWAY_CONFIG_VALUE_H

#include "gateway/config.h"

#define KIB            1024ull
#define MIB            (1024 * KIB)
#define GIB            (1024 * MIB)
#define MS_PER_S       1000ull
#define MS_PER_MIN     (60 * MS_PER_S)
#define MS_PER_H       (60 * MS_PER_MIN)
#define MS_PER_D       (24 * MS_PER_H)
#define VALUE_TEXT_MAX 32

enum config_kind {
    KIND_TEXT,
    KIND_ADDRESS,
    KIND_NETWORKS,
    KIND_ORIGINS,
    KIND_DIRECTORIES,
    KIND_BOOL,
    KIND_COUNT,
    KIND_BYTES,
    KIND_KIB, /* written as a size, kept in KiB */
    KIND_MS,
    KIND_S, /* written as a time, kept in seconds */
    KIND_LEVEL,
    KIND_FORMAT,
};

struct config_key {
    const char *section;
    const char *name;
    enum config_kind kind;
    uint16_t offset;
    uint16_t width;      /* bytes of the field */
    const char *initial; /* default, as it would be written in the file */
    uint64_t min;        /* in the field's unit */
    uint64_t max;
    const char *meaning;
};

/* config_value_set: ERR_INVALID wrong type, ERR_TOO_BIG out of bounds; the field is unchanged then.
 */
MUST_USE enum err config_value_set(struct config *config, const struct config_key *key,
                                   const char *text);
/* config_value_put: the field as config_value_set takes it. ERR_FULL. */
MUST_USE enum err config_value_put(struct buffer *out, const struct config *config,
                                   const struct config_key *key);
/* config_value_format: a number in the field's unit (a bound), as it would be written. */
void config_value_format(char out[VALUE_TEXT_MAX], const struct config_key *key, uint64_t value);
/* config_value_expects: what may be written for such a key: "yes or no". */
const char *config_value_expects(enum config_kind kind);

/* lists, see config_list.c: ERR_INVALID: an element that is none, or too many. */
MUST_USE enum err config_networks_validate(const char *text);
MUST_USE enum err config_origins_validate(const char *text);
MUST_USE enum err config_directories_validate(const char *text);

#endif
