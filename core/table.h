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

#define TABLE_CELL_BYTES 24 /* a value takes 4/3 (just before the table doubles) to 8/3 of them */

struct table_cell;
struct table_cells {
    struct table_cell *
        *segments; /* NULL: no cells at all; one that is NULL: all its cells are empty */
    size_t mask;   /* number of cells - 1 */
};

struct table {
    /* private */
    struct table_cells cells;
    struct table_cells old; /* being moved over, then given back */
    size_t old_at;          /* next old cell to move; past the last: cells + next segment to give */
    size_t count;           /* live, in both */
    size_t used;            /* cells of `cells` that are not empty */
    uint64_t seed;
};

void table_init(struct table *table, uint64_t seed);
void table_deinit(struct table *table);
void *table_get(const struct table *table, struct table_key key);
/* table_approach: have the memory fetched where a table_get of key, soon after, begins to look. */
void table_approach(const struct table *table, struct table_key key);
MUST_USE enum err table_put(struct table *table, struct table_key key, void *value); /* replaces */
void *table_remove(struct table *table, struct table_key key); /* the old value or NULL */
/* table_next: walks all values; start with *at = 0; NULL at the end. The current value may be
 * removed during the walk; nothing may be put. */
void *table_next(const struct table *table, size_t *at);
/* table_visit: the next value and its key from *at on, round and round, looking at no more than
 * *cells cells, which are counted down; NULL: there was none among them. Between two calls anything
 * may be put and removed: what stays is met within two rounds, unless its cell moves ahead of *at.
 */
void *table_visit(const struct table *table, struct table_key *key, size_t *at, size_t *cells);
/* table_tidy: a put's share of house-keeping without a put, so that the memory of before a doubling
 * does not wait for the next ones; true while there is more to do. */
bool table_tidy(struct table *table);
size_t table_memory(const struct table *table); /* bytes */

#endif
