/* lanes.c: see lanes.h. */
#include "gateway/flow/lanes.h"

#include "core/hash.h"

#include <stdio.h>

#define META_KEY "lane_directories"

uint32_t lane_of(struct conversation_id conversation, uint32_t lanes)
{
    static const struct hash_key fixed = {0x6c616e65, 0x726f6f7374};
    return (uint32_t)(hash_u128(&fixed, conversation.hi, conversation.lo) % lanes);
}

uint32_t lanes_count(const char *further)
{
    struct bytes list = bytes_of_text(further);
    struct bytes directory;
    uint32_t count = 1;
    while (list_next(&directory, &list))
        count++;
    return count;
}

void lanes_directory(char out[LANE_PATH_BYTES], const char *data, const char *further, uint32_t at)
{
    struct bytes list = bytes_of_text(further);
    struct bytes directory = {NULL, 0};
    if (at == 0) {
        snprintf(out, LANE_PATH_BYTES, "%s/log", data);
        return;
    }
    for (uint32_t i = 0; i < at; i++)
        CHECK(list_next(&directory, &list));
    snprintf(out, LANE_PATH_BYTES, "%.*s", (int)directory.size, (const char *)directory.data);
}

void lanes_cold_directory(char out[LANE_PATH_BYTES], const char *cold, uint32_t at)
{
    if (cold == NULL || cold[0] == 0)
        out[0] = 0;
    else if (at == 0)
        snprintf(out, LANE_PATH_BYTES, "%s", cold);
    else
        snprintf(out, LANE_PATH_BYTES, "%.1023s/lane-%u", cold, at);
}

enum err lanes_write(struct catalog *catalog, const char *further)
{
    struct catalog_txn *txn;
    char present[CONFIG_TEXT_BYTES];
    TRY(lanes_read(catalog, present));
    if (strcmp(present, further) == 0)
        return OK;
    TRY(catalog_begin(catalog, &txn, true));
    enum err err = catalog_put(txn, CATALOG_META, bytes_of_text(META_KEY), bytes_of_text(further));
    if (err != OK) {
        catalog_abort(txn);
        return err;
    }
    return catalog_commit(txn);
}

enum err lanes_read(struct catalog *catalog, char further[CONFIG_TEXT_BYTES])
{
    struct catalog_txn *txn;
    struct bytes value;
    further[0] = 0;
    TRY(catalog_begin(catalog, &txn, false));
    enum err err = catalog_get(txn, CATALOG_META, bytes_of_text(META_KEY), &value);
    if (err == OK && (value.size >= CONFIG_TEXT_BYTES || memchr(value.data, 0, value.size) != NULL))
        err = ERR_CORRUPT;
    if (err == OK) {
        memcpy(further, value.data, value.size);
        further[value.size] = 0;
    }
    catalog_abort(txn);
    return err == ERR_NOT_FOUND ? OK : err;
}
