/* test_pool.c: handles resolve exactly while their object is in use; the bound holds; failed
 * allocations leave the pool as it was. */
#include "tests/unit/check.h"

#include "core/memory.h"
#include "core/pool.h"

#include <string.h>

#define OBJECTS 3000

struct known {
    uint8_t *object; /* NULL: given back */
    struct handle handle;
    uint8_t fill;
};

static void check_known(const struct pool *pool, const struct known *known, uint32_t bytes)
{
    if (known->object == NULL) {
        assert_null(pool_get(pool, known->handle));
        return;
    }
    assert_ptr_equal(pool_get(pool, known->handle), known->object);
    struct handle handle = pool_handle(pool, known->object);
    assert_true(handle_pack(handle) == handle_pack(known->handle));
    for (uint32_t i = 0; i < bytes; i++)
        assert_int_equal(known->object[i], known->fill);
}

static void take(struct pool *pool, struct known *known, uint32_t bytes, uint64_t *seed)
{
    known->object = pool_take(pool);
    assert_non_null(known->object);
    assert_int_equal((uintptr_t)known->object % 16, 0);
    for (uint32_t i = 0; i < bytes; i++)
        assert_int_equal(known->object[i], 0);
    known->fill = (uint8_t)random_next(seed);
    memset(known->object, known->fill, bytes);
    known->handle = pool_handle(pool, known->object);
    assert_true(known->handle.generation != 0);
}

static void random_use(uint32_t bytes)
{
    static struct known known[OBJECTS];
    memset(known, 0, sizeof known);
    int64_t before = memory_bytes(MEMORY_CORE);
    struct pool pool;
    assert_int_equal(pool_init(&pool, bytes, OBJECTS), OK);
    uint64_t seed = 12 + bytes;
    uint32_t used = 0;
    for (int step = 0; step < 30000; step++) {
        bool filling = step / 5000 % 2 == 0;
        struct known *k = &known[random_below(&seed, OBJECTS)];
        check_known(&pool, k, bytes);
        if (k->object == NULL && random_below(&seed, 4) < (filling ? 4 : 1)) {
            take(&pool, k, bytes, &seed);
            used++;
        } else if (k->object != NULL && random_below(&seed, 4) < (filling ? 1 : 4)) {
            pool_give(&pool, k->object);
            k->object = NULL;
            used--;
        }
    }
    uint32_t at = 0;
    uint32_t walked = 0;
    while (pool_next(&pool, &at) != NULL)
        walked++;
    assert_int_equal(walked, used);
    for (int i = 0; i < OBJECTS; i++)
        check_known(&pool, &known[i], bytes);
    pool_deinit(&pool);
    assert_int_equal(memory_bytes(MEMORY_CORE), before);
}

static void handles_resolve_while_in_use(void **state)
{
    (void)state;
    random_use(1);
    random_use(8);
    random_use(100);
    random_use(4000);
    random_use(70000);
}

static void bound_holds(void **state)
{
    (void)state;
    struct pool pool;
    for (uint32_t max = 0; max < 70; max++) {
        assert_int_equal(pool_init(&pool, 1000, max), OK);
        void *last = NULL;
        for (uint32_t i = 0; i < max; i++) {
            last = pool_take(&pool);
            assert_non_null(last);
        }
        assert_null(pool_take(&pool));
        if (last != NULL) {
            struct handle old = pool_handle(&pool, last);
            pool_give(&pool, last);
            assert_null(pool_get(&pool, old));
            assert_ptr_equal(pool_take(&pool), last);
            assert_null(pool_get(&pool, old));
            assert_null(pool_take(&pool));
        }
        pool_deinit(&pool);
    }
}

static void foreign_handles_are_nothing(void **state)
{
    (void)state;
    struct pool pool;
    assert_int_equal(pool_init(&pool, 64, 100), OK);
    void *object = pool_take(&pool);
    struct handle handle = pool_handle(&pool, object);
    assert_ptr_equal(pool_get(&pool, handle_unpack(handle_pack(handle))), object);
    assert_null(pool_get(&pool, (struct handle){0, 0}));
    assert_null(pool_get(&pool, (struct handle){handle.index, handle.generation + 1}));
    assert_null(pool_get(&pool, (struct handle){handle.index, handle.generation + 2}));
    assert_null(pool_get(&pool, (struct handle){1, 1}));
    assert_null(pool_get(&pool, (struct handle){UINT32_MAX, 1}));
    pool_give(&pool, object);
    /* the even generation of a free object is no handle either */
    assert_null(pool_get(&pool, (struct handle){handle.index, handle.generation + 1}));
    pool_deinit(&pool);
}

static void survives_failed_allocations(void **state)
{
    (void)state;
    struct pool pool;
    memory_fail_at(1);
    assert_int_equal(pool_init(&pool, 64, 10000), ERR_NO_MEMORY);
    pool_deinit(&pool);
    assert_int_equal(pool_init(&pool, 64, 10000), OK);
    uint32_t taken = 0;
    for (int i = 0; i < 10100; i++) {
        memory_fail_at(i % 3 == 0 ? 1 : 0);
        taken += pool_take(&pool) != NULL;
        memory_fail_at(0);
    }
    assert_in_range(taken, 9900, 10000);
    pool_deinit(&pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(handles_resolve_while_in_use),
        cmocka_unit_test(bound_holds),
        cmocka_unit_test(foreign_handles_are_nothing),
        cmocka_unit_test(survives_failed_allocations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
