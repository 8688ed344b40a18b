/* test_table.c: the table against a plain array indexed by key, through growth, shrinking, failed
 * allocations and walks that remove. */
#include "tests/unit/check.h"

#include "core/memory.h"
#include "core/table.h"

#include <string.h>

#define KEYS 5000

static char objects[KEYS]; /* values: addresses in here */

static struct table_key key_of(size_t i)
{
    return (struct table_key){i % 3, i / 3 * 64};
}

struct model {
    void *values[KEYS];
    size_t count;
};

static void walk_agrees(const struct table *table, const struct model *model)
{
    static uint8_t seen[KEYS];
    memset(seen, 0, sizeof seen);
    size_t at = 0;
    size_t count = 0;
    for (char *value; (value = table_next(table, &at)) != NULL; count++)
        assert_int_equal(seen[value - objects]++, 0);
    assert_int_equal(count, model->count);
    assert_null(table_next(table, &at));
}

static void all_agree(const struct table *table, const struct model *model)
{
    for (size_t i = 0; i < KEYS; i++)
        assert_ptr_equal(table_get(table, key_of(i)), model->values[i]);
    walk_agrees(table, model);
}

static void put(struct table *table, struct model *model, size_t i, uint64_t *seed)
{
    bool fails = random_below(seed, 4) == 0;
    memory_fail_at(fails ? 1 + random_below(seed, 3) : 0);
    /* a value of its own per key, so that a walk can tell them apart */
    void *value = &objects[i];
    enum err err = table_put(table, key_of(i), value);
    memory_fail_at(0);
    if (err != OK) {
        assert_true(fails);
        assert_int_equal(err, ERR_NO_MEMORY);
        assert_int_equal(table_put(table, key_of(i), value), OK);
    }
    model->count += model->values[i] == NULL;
    model->values[i] = value;
}

static void agrees_with_model(void **state)
{
    (void)state;
    static struct model model;
    int64_t before = memory_bytes(MEMORY_CORE);
    struct table table;
    table_init(&table, 0x1234);
    uint64_t seed = 10;
    for (int phase = 0; phase < 40; phase++) {
        size_t range = 1 + random_below(&seed, KEYS);
        uint64_t put_share = random_below(&seed, 101);
        for (int step = 0; step < 8000; step++) {
            size_t i = random_below(&seed, range);
            if (random_below(&seed, 100) < put_share) {
                put(&table, &model, i, &seed);
            } else {
                assert_ptr_equal(table_remove(&table, key_of(i)), model.values[i]);
                model.count -= model.values[i] != NULL;
                model.values[i] = NULL;
            }
            size_t probe = random_below(&seed, KEYS);
            table_approach(&table, key_of(probe));
            assert_ptr_equal(table_get(&table, key_of(probe)), model.values[probe]);
            if (step % 500 == 0)
                walk_agrees(&table, &model);
        }
        all_agree(&table, &model);
    }
    table_deinit(&table);
    assert_int_equal(table_memory(&table), 0);
    assert_int_equal(memory_bytes(MEMORY_CORE), before);
}

static void replaces(void **state)
{
    (void)state;
    struct table table;
    table_init(&table, 1);
    table_approach(&table, key_of(0));
    assert_null(table_get(&table, key_of(0)));
    assert_null(table_remove(&table, key_of(0)));
    for (size_t round = 0; round < 2; round++) {
        for (size_t i = 0; i < 1000; i++)
            assert_int_equal(table_put(&table, key_of(i), &objects[i + round * 1000]), OK);
    }
    for (size_t i = 0; i < 1000; i++)
        assert_ptr_equal(table_get(&table, key_of(i)), &objects[i + 1000]);
    assert_int_equal(table.count, 1000);
    table_deinit(&table);
}

static void walk_may_remove(void **state)
{
    (void)state;
    uint64_t seed = 11;
    for (int round = 0; round < 60; round++) {
        struct table table;
        table_init(&table, random_next(&seed));
        size_t count = 1 + random_below(&seed, KEYS);
        for (size_t i = 0; i < count; i++)
            assert_int_equal(table_put(&table, key_of(i), &objects[i]), OK);
        size_t at = 0;
        size_t visited = 0;
        size_t kept = 0;
        for (char *value; (value = table_next(&table, &at)) != NULL; visited++) {
            if (round % 2 == 0 || random_below(&seed, 2) == 0)
                assert_ptr_equal(table_remove(&table, key_of((size_t)(value - objects))), value);
            else
                kept++;
        }
        assert_int_equal(visited, count);
        assert_int_equal(table.count, kept);
        table_deinit(&table);
    }
}

/* A hand that goes round meets everything, in bounded steps, whatever happens in between. */
static void visits_round_and_round(void **state)
{
    (void)state;
    struct table table;
    table_init(&table, 4);
    uint64_t seed = 12;
    size_t at = 12345; /* nothing there: not even cells */
    size_t cells = 100;
    struct table_key key;
    assert_null(table_visit(&table, &key, &at, &cells));
    for (size_t i = 0; i < KEYS; i++)
        assert_int_equal(table_put(&table, key_of(i), &objects[i]), OK);
    while (random_below(&seed, 100) != 0 && table_tidy(&table))
        continue; /* in the middle of a move, if one is under way */
    for (size_t left = KEYS; left != 0;) {
        cells = 7;
        size_t before = at;
        char *value = table_visit(&table, &key, &at, &cells);
        assert_true(value != NULL || cells == 0);
        assert_true(at - before <= 7 || at < 7);
        if (value == NULL)
            continue;
        assert_memory_equal(&key, &(struct table_key[]){key_of((size_t)(value - objects))},
                            sizeof key);
        assert_ptr_equal(table_remove(&table, key), value);
        left--;
    }
    assert_int_equal(table.count, 0);
    table_deinit(&table);
}

static void shrinks_and_sheds_marks(void **state)
{
    (void)state;
    struct table table;
    table_init(&table, 2);
    for (size_t i = 0; i < KEYS; i++)
        assert_int_equal(table_put(&table, key_of(i), &objects[i]), OK);
    size_t full = table_memory(&table);
    for (size_t i = 10; i < KEYS; i++)
        assert_non_null(table_remove(&table, key_of(i)));
    /* a small set that changes for ever must not keep or take a large table */
    for (size_t i = 10; i < 200000; i++) {
        assert_int_equal(table_put(&table, key_of(i), &objects[0]), OK);
        assert_non_null(table_remove(&table, key_of(i)));
    }
    assert_true(table_memory(&table) * 64 < full);
    for (size_t i = 0; i < 10; i++)
        assert_ptr_equal(table_remove(&table, key_of(i)), &objects[i]);
    assert_int_equal(table.count, 0);
    table_deinit(&table);
}

/* However large the table, a put moves at most 16 cells and takes at most 17 segments. */
static void growth_is_in_steps(void **state)
{
    (void)state;
    struct table table;
    table_init(&table, 3);
    size_t moves = 0;
    for (size_t i = 0; i < 500000; i++) {
        const void *old_before = table.old.segments;
        size_t at_before = table.old_at;
        int64_t bytes_before = memory_bytes(MEMORY_CORE);
        assert_int_equal(table_put(&table, key_of(i), &objects[0]), OK);
        if (old_before != NULL && table.old.segments == old_before)
            assert_in_range(table.old_at - at_before, 1, 16);
        assert_true(memory_bytes(MEMORY_CORE) - bytes_before < 17 * 32 * 1024);
        assert_true(memory_bytes(MEMORY_CORE) - bytes_before > -2 * 32 * 1024);
        moves += old_before != NULL;
    }
    assert_true(moves > 10000);
    while (table_tidy(&table))
        continue;
    assert_null(table.old.segments);
    for (size_t i = 0; i < 500000; i++)
        assert_ptr_equal(table_get(&table, key_of(i)), &objects[0]);
    table_deinit(&table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_model),  cmocka_unit_test(replaces),
        cmocka_unit_test(walk_may_remove),    cmocka_unit_test(shrinks_and_sheds_marks),
        cmocka_unit_test(growth_is_in_steps), cmocka_unit_test(visits_round_and_round),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
