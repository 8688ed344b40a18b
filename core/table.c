/* table.c: linear probing, with marks for what was removed.
 *
 * A cell is empty (value NULL), removed (value &removed_mark) or live. table_remove only ever
 * marks, so that a walk (table_next) may remove what it stands on: no cell moves except in
 * table_put. table_put also does the house-keeping, at most MOVE_STEP cells of it per call:
 *
 *     used (live + removed) at 3/4 of the cells: a new array; the old cells move over step by step
 *         live > 3/8: twice the size; live < 1/8: half; else the same (only marks are shed)
 *     live < 1/4 of the cells, more than CELLS_MIN: the same, with half the size
 *
 * Why a move is always over before the next begins: with N old cells it takes N / MOVE_STEP puts,
 * and N / SEGMENT_CELLS more to give the old memory back. The new array has 3/4 of its cells to
 * fill, less what moves in. Doubling: 3/4 × 2N - 15/16 N > N / 2 puts; same size: 3/4 N - 3/8 N;
 * halving: 3/8 N - 1/4 N = N / 8 puts. N / 16 + N / 1024 is less than each. A put that cannot take
 * its step for lack of memory fails, so puts never outrun the move. Where a move cannot begin, the
 * table fills up to 15/16 before table_put says ERR_NO_MEMORY.
 *
 * Cells come in segments, taken when their first cell is filled and given back one per put, so that
 * no put clears or frees the memory of a whole large array. Old cells that were moved are marked
 * removed, so that probing through them goes on. */
#include "core/table.h"

#include "core/hash.h"
#include "core/memory.h"

#define CELLS_MIN     16
#define MOVE_STEP     16
#define SEGMENT_CELLS 1024 /* 24 KiB */

_Static_assert(sizeof(struct table_cell *) + 2 * sizeof(uint64_t) == TABLE_CELL_BYTES,
               "key and value");

struct table_cell {
    uint64_t hi;
    uint64_t lo;
    void *value;
};

static const char removed_mark;

/* removed: as a cell's value; compared, never followed or written through. */
static void *removed(void)
{
    return (void *)(uintptr_t)&removed_mark;
}

static bool cell_live(const struct table_cell *cell)
{
    return cell != NULL && cell->value != NULL && cell->value != removed();
}

/* cell_at: NULL: empty, its segment was never taken. */
static struct table_cell *cell_at(const struct table_cells *cells, size_t at)
{
    struct table_cell *segment = cells->segments[at / SEGMENT_CELLS];
    return segment != NULL ? &segment[at % SEGMENT_CELLS] : NULL;
}

static size_t cells_count(const struct table_cells *cells)
{
    return cells->segments != NULL ? cells->mask + 1 : 0;
}

static size_t segments_count(const struct table_cells *cells)
{
    return (cells_count(cells) + SEGMENT_CELLS - 1) / SEGMENT_CELLS;
}

static size_t segment_bytes(const struct table_cells *cells)
{
    size_t count = cells->mask < SEGMENT_CELLS ? cells->mask + 1 : SEGMENT_CELLS;
    return count * sizeof(struct table_cell);
}

static void cells_give(struct table_cells *cells)
{
    for (size_t i = 0; i < segments_count(cells); i++)
        memory_give(cells->segments[i], MEMORY_CORE);
    memory_give(cells->segments, MEMORY_CORE);
    *cells = (struct table_cells){NULL, 0};
}

static size_t key_hash(const struct table *table, struct table_key key)
{
    struct hash_key seed = {table->seed, ~table->seed};
    return hash_u128(&seed, key.hi, key.lo);
}

/* cells_find: the live cell of key and its number, or NULL. There is always an empty cell to stop
 * at: used < cells. */
static struct table_cell *cells_find(const struct table_cells *cells, struct table_key key,
                                     size_t hash, size_t *out_at)
{
    for (size_t at = hash & cells->mask;; at = (at + 1) & cells->mask) {
        struct table_cell *cell = cell_at(cells, at);
        if (cell == NULL || cell->value == NULL)
            return NULL;
        if (cell->lo == key.lo && cell->hi == key.hi && cell->value != removed()) {
            *out_at = at;
            return cell;
        }
    }
}

static bool moving(const struct table *table)
{
    return table->old_at < cells_count(&table->old);
}

#define IN_OLD SIZE_MAX

/* table_find: the live cell of key or NULL; at: its number, IN_OLD if it is not in the new array.
 */
static struct table_cell *table_find(const struct table *table, struct table_key key,
                                     size_t *out_at)
{
    if (table->count == 0)
        return NULL;
    size_t hash = key_hash(table, key);
    struct table_cell *cell = cells_find(&table->cells, key, hash, out_at);
    if (cell == NULL && moving(table)) {
        cell = cells_find(&table->old, key, hash, out_at);
        *out_at = IN_OLD;
    }
    return cell;
}

/* cells_add: key is not there. Takes the first cell that is not live. */
static MUST_USE enum err cells_add(struct table *table, struct table_key key, void *value)
{
    size_t at = key_hash(table, key) & table->cells.mask;
    while (cell_live(cell_at(&table->cells, at)))
        at = (at + 1) & table->cells.mask;
    struct table_cell **segment = &table->cells.segments[at / SEGMENT_CELLS];
    if (*segment == NULL)
        *segment = memory_take_zeroed(segment_bytes(&table->cells), MEMORY_CORE);
    if (*segment == NULL)
        return ERR_NO_MEMORY;
    struct table_cell *cell = &(*segment)[at % SEGMENT_CELLS];
    if (cell->value == NULL)
        table->used++;
    *cell = (struct table_cell){key.hi, key.lo, value};
    return OK;
}

static MUST_USE enum err move_cell(struct table *table)
{
    struct table_cell *cell = cell_at(&table->old, table->old_at);
    if (cell_live(cell)) {
        TRY(cells_add(table, (struct table_key){cell->hi, cell->lo}, cell->value));
        cell->value = removed();
    }
    table->old_at++;
    return OK;
}

/* move_step: MOVE_STEP cells or, when all are moved, one segment given back. */
static MUST_USE enum err move_step(struct table *table)
{
    struct table_cells *old = &table->old;
    if (moving(table)) {
        for (int i = 0; i < MOVE_STEP && moving(table); i++)
            TRY(move_cell(table));
        return OK;
    }
    size_t segment = table->old_at++ - cells_count(old);
    memory_give(old->segments[segment], MEMORY_CORE);
    old->segments[segment] = NULL;
    if (segment + 1 == segments_count(old))
        cells_give(old);
    return OK;
}

/* move_begin: ERR_NO_MEMORY: nothing changed. */
static MUST_USE enum err move_begin(struct table *table, size_t count)
{
    struct table_cells cells = {NULL, count - 1};
    size_t segments = (count + SEGMENT_CELLS - 1) / SEGMENT_CELLS;
    cells.segments = memory_take_zeroed(segments * sizeof(struct table_cell *), MEMORY_CORE);
    if (cells.segments == NULL)
        return ERR_NO_MEMORY;
    CHECK(table->old.segments == NULL);
    table->old = table->cells;
    table->old_at = 0;
    table->cells = cells;
    table->used = 0;
    return OK;
}

/* make_room: before one cell is added. */
static MUST_USE enum err make_room(struct table *table)
{
    size_t size = cells_count(&table->cells);
    if (size == 0)
        return move_begin(table, CELLS_MIN);
    if (table->old.segments != NULL)
        return move_step(table);
    if (table->used >= size / 4 * 3) {
        size_t next = size;
        if (table->count > size / 8 * 3)
            next = size * 2;
        else if (table->count < size / 8 && size > CELLS_MIN)
            next = size / 2;
        enum err err = move_begin(table, next);
        return table->used >= size / 16 * 15 ? err : OK; /* without memory there is still room */
    }
    if (size > CELLS_MIN && table->count < size / 4) {
        enum err err = move_begin(table, size / 2);
        (void)err; /* without memory it stays large */
    }
    return OK;
}

void table_init(struct table *table, uint64_t seed)
{
    *table = (struct table){.seed = seed};
}

void table_deinit(struct table *table)
{
    cells_give(&table->cells);
    cells_give(&table->old);
    *table = (struct table){.seed = table->seed};
}

void *table_get(const struct table *table, struct table_key key)
{
    size_t at;
    const struct table_cell *cell = table_find(table, key, &at);
    return cell != NULL ? cell->value : NULL;
}

void table_approach(const struct table *table, struct table_key key)
{
    if (table->count != 0)
        __builtin_prefetch(cell_at(&table->cells, key_hash(table, key) & table->cells.mask));
}

enum err table_put(struct table *table, struct table_key key, void *value)
{
    CHECK(value != NULL);
    size_t at;
    struct table_cell *cell = table_find(table, key, &at);
    if (cell != NULL) {
        cell->value = value;
        return OK;
    }
    TRY(make_room(table));
    CHECK(table->used < table->cells.mask);
    TRY(cells_add(table, key, value));
    table->count++;
    return OK;
}

/* forget_marks: at is marked removed. If the next cell is empty, nothing probes on through the
 * marks that end there: they become empty. */
static void forget_marks(struct table *table, size_t at)
{
    const struct table_cells *cells = &table->cells;
    const struct table_cell *next = cell_at(cells, (at + 1) & cells->mask);
    if (next != NULL && next->value != NULL)
        return;
    struct table_cell *cell;
    while ((cell = cell_at(cells, at)) != NULL && cell->value == removed()) {
        cell->value = NULL;
        table->used--;
        at = (at - 1) & cells->mask;
    }
}

void *table_remove(struct table *table, struct table_key key)
{
    size_t at;
    struct table_cell *cell = table_find(table, key, &at);
    if (cell == NULL)
        return NULL;
    void *value = cell->value;
    cell->value = removed();
    table->count--;
    if (table->count == 0 && table->cells.mask >= CELLS_MIN)
        table_deinit(table);
    else if (at != IN_OLD)
        forget_marks(table, at);
    return value;
}

/* cell_number: counted through both arrays. */
static const struct table_cell *cell_number(const struct table *table, size_t at)
{
    size_t old_count = cells_count(&table->old);
    return at < old_count ? cell_at(&table->old, at) : cell_at(&table->cells, at - old_count);
}

void *table_next(const struct table *table, size_t *at)
{
    size_t count = cells_count(&table->old) + cells_count(&table->cells);
    for (; *at < count; (*at)++) {
        const struct table_cell *cell = cell_number(table, *at);
        if (cell_live(cell)) {
            (*at)++;
            return cell->value;
        }
    }
    return NULL;
}

void *table_visit(const struct table *table, struct table_key *key, size_t *at, size_t *cells)
{
    size_t count = cells_count(&table->old) + cells_count(&table->cells);
    while (count != 0 && *cells > 0) {
        if (*at >= count)
            *at = 0;
        (*cells)--;
        const struct table_cell *cell = cell_number(table, (*at)++);
        if (!cell_live(cell))
            continue;
        *key = (struct table_key){cell->hi, cell->lo};
        return cell->value;
    }
    return NULL;
}

bool table_tidy(struct table *table)
{
    return table->old.segments != NULL && move_step(table) == OK;
}

static size_t cells_memory(const struct table_cells *cells)
{
    size_t bytes = segments_count(cells) * sizeof(struct table_cell *);
    for (size_t i = 0; i < segments_count(cells); i++)
        bytes += cells->segments[i] != NULL ? segment_bytes(cells) : 0;
    return bytes;
}

size_t table_memory(const struct table *table)
{
    return cells_memory(&table->cells) + cells_memory(&table->old);
}
