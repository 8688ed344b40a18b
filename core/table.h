/* table.h: open-addressing hash table from fixed-size keys (8 or 16 bytes) to pointers; grows by
 * doubling, shrinks at a quarter (with the next put); incremental, so that no single insert of a
 * million-row table stalls a turn by more than a bounded step.
 * Owns:       its cells; the values belong to the caller
 * Invariants: keys are unique; NULL is no value
 * Failure:    ERR_NO_MEMORY from table_put
 * Note:       keys are hashed with the table's own seed (core/hash.h) */
#ifndef CORE_TABLE_H
#define CORE_TABLE_H

#include "core/err.h"

struct table_key {
    uint64_t hi;
    uint64_t lo;
};

struct table_cell;
struct table {
    /* private */
    struct table_cell *cells;
    struct table_cell *old_cells; /* being moved over, or NULL */
    size_t mask;
    size_t old_mask;
    size_t old_at;
    size_t count;     /* live, in both arrays */
    size_t old_count; /* live, in old_cells */
    size_t used;      /* cells of `cells` that are not empty */
    uint64_t seed;
};

void table_init(struct table *table, uint64_t seed);
void table_deinit(struct table *table);
void *table_get(const struct table *table, struct table_key key);
MUST_USE enum err table_put(struct table *table, struct table_key key, void *value); /* replaces */
void *table_remove(struct table *table, struct table_key key); /* the old value or NULL */
/* table_next: walks all values; start with *at = 0; NULL at the end. The current value may be
 * removed during the walk; nothing may be put. */
void *table_next(const struct table *table, size_t *at);
size_t table_memory(const struct table *table); /* bytes */

#endif
