/* table.c: linear probing, with marks for what was removed.
 *
 * A cell is empty (value NULL), removed (value &removed_mark) or live. table_remove only ever
 * marks, so that a walk (table_next) may remove what it stands on: no cell moves except in
 * table_put. table_put also does the house-keeping, at most MOVE_STEP cells of it per call:
 *
 *     used (live + removed) reaches 3/4 of the cells   → a new array, old cells move over step by
 * step live > 3/8: twice the size; live < 1/8: half; else the same (only marks are shed) live < 1/4
 * of the cells (and more than CELLS_MIN) → the same, with half the size
 *
 * Why a move is always over before the next begins: with N old cells it takes N / MOVE_STEP puts.
 * The new array has 3/4 of its cells to fill, less what moves in. Doubling: 3/4 × 2N - 15/16 N >
 * N / 2 puts; same size: 3/4 N - 3/8 N; halving: 3/8 N - 1/4 N = N / 8 puts. N / 16 is less than
 * each. A failed allocation lets the table fill up to 15/16 before table_put says ERR_NO_MEMORY.
 *
 * Old cells below old_at were moved and are marked removed, so that probing through them goes on.
 */
#include "core/table.h"

#include "core/hash.h"
#include "core/memory.h"

#define CELLS_MIN 16
#define MOVE_STEP 16

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
    return cell->value != NULL && cell->value != removed();
}

static size_t key_hash(const struct table *table, struct table_key key)
{
    struct hash_key seed = {table->seed, ~table->seed};
    return hash_u128(&seed, key.hi, key.lo);
}

/* cells_find: the live cell of key, or NULL. There is always an empty cell: used < cells. */
static struct table_cell *cells_find(struct table_cell *cells, size_t mask, struct table_key key,
                                     size_t hash)
{
    if (cells == NULL)
        return NULL;
    for (size_t at = hash & mask; cells[at].value != NULL; at = (at + 1) & mask) {
        if (cells[at].lo == key.lo && cells[at].hi == key.hi && cells[at].value != removed())
            return &cells[at];
    }
    return NULL;
}

static struct table_cell *table_find(const struct table *table, struct table_key key, size_t hash)
{
    struct table_cell *cell = cells_find(table->cells, table->mask, key, hash);
    return cell != NULL ? cell : cells_find(table->old_cells, table->old_mask, key, hash);
}

/* cells_add: key is not there. Takes the first cell that is not live. */
static void cells_add(struct table *table, struct table_key key, size_t hash, void *value)
{
    size_t at = hash & table->mask;
    while (cell_live(&table->cells[at]))
        at = (at + 1) & table->mask;
    if (table->cells[at].value == NULL)
        table->used++;
    table->cells[at] = (struct table_cell){key.hi, key.lo, value};
}

static void drop_old(struct table *table)
{
    memory_give(table->old_cells, MEMORY_CORE);
    table->old_cells = NULL;
    table->old_mask = 0;
    table->old_at = 0;
    table->old_count = 0;
}

static void move_step(struct table *table)
{
    for (int i = 0; i < MOVE_STEP && table->old_cells != NULL; i++) {
        struct table_cell *cell = &table->old_cells[table->old_at++];
        if (cell_live(cell)) {
            struct table_key key = {cell->hi, cell->lo};
            cells_add(table, key, key_hash(table, key), cell->value);
            cell->value = removed();
            table->old_count--;
        }
        if (table->old_at > table->old_mask || table->old_count == 0)
            drop_old(table);
    }
}

/* move_begin: false: out of memory, nothing changed. */
static bool move_begin(struct table *table, size_t cells_count)
{
    struct table_cell *cells =
        memory_take_zeroed(cells_count * sizeof(struct table_cell), MEMORY_CORE);
    if (cells == NULL)
        return false;
    CHECK(table->old_cells == NULL);
    table->old_cells = table->cells;
    table->old_mask = table->mask;
    table->old_at = 0;
    table->old_count = table->count;
    table->cells = cells;
    table->mask = cells_count - 1;
    table->used = 0;
    if (table->old_count == 0)
        drop_old(table);
    return true;
}

/* make_room: before one cell is added. */
static enum err make_room(struct table *table)
{
    if (table->cells == NULL)
        return move_begin(table, CELLS_MIN) ? OK : ERR_NO_MEMORY;
    move_step(table);
    if (table->old_cells != NULL)
        return OK;
    size_t size = table->mask + 1;
    if (table->used >= size / 4 * 3) {
        size_t next = table->count > size / 8 * 3                   ? size * 2
                      : table->count < size / 8 && size > CELLS_MIN ? size / 2
                                                                    : size;
        if (!move_begin(table, next) && table->used >= size / 16 * 15)
            return ERR_NO_MEMORY;
    } else if (size > CELLS_MIN && table->count < size / 4) {
        (void)move_begin(table, size / 2); /* without memory it stays large */
    }
    return OK;
}

void table_init(struct table *table, uint64_t seed)
{
    *table = (struct table){.seed = seed};
}

void table_deinit(struct table *table)
{
    memory_give(table->cells, MEMORY_CORE);
    memory_give(table->old_cells, MEMORY_CORE);
    *table = (struct table){.seed = table->seed};
}

void *table_get(const struct table *table, struct table_key key)
{
    struct table_cell *cell = table_find(table, key, key_hash(table, key));
    return cell != NULL ? cell->value : NULL;
}

enum err table_put(struct table *table, struct table_key key, void *value)
{
    CHECK(value != NULL);
    size_t hash = key_hash(table, key);
    struct table_cell *cell = table_find(table, key, hash);
    if (cell != NULL) {
        cell->value = value;
        return OK;
    }
    TRY(make_room(table));
    CHECK(table->used < table->mask);
    cells_add(table, key, hash, value);
    table->count++;
    return OK;
}

/* forget_marks: at is marked removed and its next cell is empty: nothing probes on through the
 * marks that end there, they become empty. */
static void forget_marks(struct table *table, size_t at)
{
    while (table->cells[at].value == removed()) {
        table->cells[at].value = NULL;
        table->used--;
        at = (at - 1) & table->mask;
    }
}

void *table_remove(struct table *table, struct table_key key)
{
    struct table_cell *cell = table_find(table, key, key_hash(table, key));
    if (cell == NULL)
        return NULL;
    void *value = cell->value;
    cell->value = removed();
    table->count--;
    if (table->count == 0 && table->mask + 1 > CELLS_MIN) {
        table_deinit(table);
        return value;
    }
    if (table->old_cells != NULL && cell >= table->old_cells &&
        cell <= table->old_cells + table->old_mask) {
        table->old_count--; /* the array goes with the next put */
    } else {
        size_t at = (size_t)(cell - table->cells);
        if (table->cells[(at + 1) & table->mask].value == NULL)
            forget_marks(table, at);
    }
    return value;
}

void *table_next(const struct table *table, size_t *at)
{
    size_t old_size = table->old_cells != NULL ? table->old_mask + 1 : 0;
    for (; *at < old_size; (*at)++) {
        if (cell_live(&table->old_cells[*at]))
            return table->old_cells[(*at)++].value;
    }
    size_t size = table->cells != NULL ? table->mask + 1 : 0;
    for (; *at - old_size < size; (*at)++) {
        const struct table_cell *cell = &table->cells[*at - old_size];
        if (cell_live(cell)) {
            (*at)++;
            return cell->value;
        }
    }
    return NULL;
}

size_t table_memory(const struct table *table)
{
    size_t cells = table->cells != NULL ? table->mask + 1 : 0;
    size_t old_cells = table->old_cells != NULL ? table->old_mask + 1 : 0;
    return (cells + old_cells) * sizeof(struct table_cell);
}
