/* test_memory.c: bytes per purpose are what was taken less what was given, over all threads; the
 * n-th take fails when asked to; a list that cannot grow is as it was. */
#include "tests/unit/check.h"

#include "core/memory.h"

#include <pthread.h>
#include <string.h>

static void counts_what_is_taken(void **state)
{
    (void)state;
    int64_t before = memory_bytes(MEMORY_CHAT);
    int64_t before_api = memory_bytes(MEMORY_API);
    void *a = memory_take(1000, MEMORY_CHAT);
    assert_non_null(a);
    int64_t one = memory_bytes(MEMORY_CHAT) - before;
    assert_in_range(one, 1000, 1300);
    uint8_t *b = memory_take_zeroed(3000, MEMORY_CHAT);
    for (int i = 0; i < 3000; i++)
        assert_int_equal(b[i], 0);
    memset(b, 7, 3000);
    b = memory_resize(b, 9000, MEMORY_CHAT);
    assert_non_null(b);
    assert_int_equal(b[2999], 7);
    assert_in_range(memory_bytes(MEMORY_CHAT) - before - one, 9000, 12000);
    b = memory_resize(b, 100, MEMORY_CHAT);
    assert_int_equal(b[99], 7);
    memory_give(b, MEMORY_CHAT);
    memory_give(a, MEMORY_CHAT);
    memory_give(NULL, MEMORY_CHAT);
    assert_int_equal(memory_bytes(MEMORY_CHAT), before);
    assert_int_equal(memory_bytes(MEMORY_API), before_api);
}

static void aligns(void **state)
{
    (void)state;
    int64_t before = memory_bytes(MEMORY_STORE);
    for (size_t size = 0; size < 300; size++) {
        void *p = memory_take(size, MEMORY_STORE);
        void *z = memory_take_zeroed(size, MEMORY_STORE);
        assert_int_equal((uintptr_t)p % 16, 0);
        assert_int_equal((uintptr_t)z % 16, 0);
        memory_give(p, MEMORY_STORE);
        memory_give(z, MEMORY_STORE);
    }
    for (size_t alignment = 1; alignment <= 4096; alignment *= 2) {
        void *p = memory_take_aligned(10000, alignment, MEMORY_STORE);
        void *q = memory_take_aligned(1, alignment, MEMORY_STORE);
        assert_int_equal((uintptr_t)p % alignment, 0);
        assert_int_equal((uintptr_t)q % alignment, 0);
        assert_true(memory_bytes(MEMORY_STORE) - before >= 10001);
        memory_give(p, MEMORY_STORE);
        memory_give(q, MEMORY_STORE);
    }
    assert_int_equal(memory_bytes(MEMORY_STORE), before);
}

static void huge_is_counted_and_aligned(void **state)
{
    (void)state;
    int64_t before = memory_bytes(MEMORY_STORE);
    static const size_t sizes[] = {1, 4096, (2 << 20) - 1, 2 << 20, (5 << 20) + 1};
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        uint8_t *p = memory_take_huge(sizes[i], MEMORY_STORE);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % (sizes[i] < 2 << 20 ? 4096 : 2 << 20), 0);
        assert_true(memory_bytes(MEMORY_STORE) - before >= (int64_t)sizes[i]);
        memset(p, 0x5a, sizes[i]);
        memory_give(p, MEMORY_STORE);
        assert_int_equal(memory_bytes(MEMORY_STORE), before);
    }
    memory_fail_at(1);
    assert_null(memory_take_huge(4 << 20, MEMORY_STORE));
}

static void nth_take_fails_once(void **state)
{
    (void)state;
    int64_t before = memory_bytes(MEMORY_API);
    memory_fail_at(3);
    void *a = memory_take(10, MEMORY_API);
    void *b = memory_take_zeroed(10, MEMORY_API);
    assert_non_null(a);
    assert_non_null(b);
    assert_null(memory_resize(a, 100, MEMORY_API)); /* a is still there */
    void *c = memory_take_aligned(10, 64, MEMORY_API);
    assert_non_null(c);
    memory_fail_at(1);
    assert_null(memory_take_aligned(10, 64, MEMORY_API));
    memory_fail_at(1);
    memory_fail_at(0);
    void *d = memory_resize(NULL, 10, MEMORY_API);
    assert_non_null(d);
    memory_give(a, MEMORY_API);
    memory_give(b, MEMORY_API);
    memory_give(c, MEMORY_API);
    memory_give(d, MEMORY_API);
    assert_int_equal(memory_bytes(MEMORY_API), before);
}

static void grows_by_doubling(void **state)
{
    (void)state;
    int64_t before = memory_bytes(MEMORY_STORE);
    uint32_t *list = NULL;
    uint32_t capacity = 0;
    assert_int_equal(memory_grow(&list, &capacity, 0, sizeof *list, MEMORY_STORE), OK);
    assert_null(list); /* nothing is taken for nothing */
    for (uint32_t i = 0; i < 5000; i++) {
        uint32_t old = capacity;
        const uint32_t *place = list;
        assert_int_equal(memory_grow(&list, &capacity, i + 1, sizeof *list, MEMORY_STORE), OK);
        assert_true(capacity > i);
        if (i < old)
            assert_true(capacity == old && list == place);
        else
            assert_true(capacity >= 2 * old);
        list[i] = i;
    }
    assert_int_equal(memory_grow(&list, &capacity, 100000, sizeof *list, MEMORY_STORE), OK);
    assert_true(capacity >= 100000); /* in one step, however far */
    list[99999] = 7;
    for (uint32_t i = 0; i < 5000; i++)
        assert_int_equal(list[i], i);
    assert_true(memory_bytes(MEMORY_STORE) - before >= (int64_t)(capacity * sizeof *list));
    memory_give(list, MEMORY_STORE);
    assert_int_equal(memory_bytes(MEMORY_STORE), before);
}

static void what_cannot_grow_stays_whole(void **state)
{
    (void)state;
    uint64_t *list = NULL;
    uint32_t capacity = 0;
    memory_fail_at(1);
    assert_int_equal(memory_grow(&list, &capacity, 1, sizeof *list, MEMORY_STORE), ERR_NO_MEMORY);
    assert_true(list == NULL && capacity == 0);
    assert_int_equal(memory_grow(&list, &capacity, 10, sizeof *list, MEMORY_STORE), OK);
    for (uint32_t i = 0; i < capacity; i++)
        list[i] = i;
    const uint64_t *place = list;
    uint32_t old = capacity;
    int64_t bytes = memory_bytes(MEMORY_STORE);
    memory_fail_at(1);
    assert_int_equal(memory_grow(&list, &capacity, old + 1, sizeof *list, MEMORY_STORE),
                     ERR_NO_MEMORY);
    /* more items than can be counted, more bytes than can be */
    assert_int_equal(memory_grow(&list, &capacity, UINT32_MAX, sizeof *list, MEMORY_STORE),
                     ERR_NO_MEMORY);
    for (size_t item_bytes = SIZE_MAX; item_bytes > SIZE_MAX / 8; item_bytes -= SIZE_MAX / 8)
        assert_int_equal(memory_grow(&list, &capacity, old + 1, item_bytes, MEMORY_STORE),
                         ERR_NO_MEMORY);
    size_t wraps = SIZE_MAX / (2 * old) + 2; /* times 2 * old: hardly anything, modulo 2^64 */
    assert_int_equal(memory_grow(&list, &capacity, old + 1, wraps, MEMORY_STORE), ERR_NO_MEMORY);
    assert_true(list == place && capacity == old && memory_bytes(MEMORY_STORE) == bytes);
    for (uint32_t i = 0; i < capacity; i++)
        assert_int_equal(list[i], i);
    memory_give(list, MEMORY_STORE);
}

#define PASSED 1000
static void *take_on_thread(void *argument)
{
    void **out = argument;
    for (int i = 0; i < PASSED; i++)
        out[i] = memory_take(100, MEMORY_CONNECTION);
    return NULL;
}

static void threads_are_summed(void **state)
{
    (void)state;
    int64_t before = memory_bytes(MEMORY_CONNECTION);
    /* more threads than cells, so that some share the last one */
    for (int round = 0; round < 270; round += 2) {
        pthread_t threads[2];
        static void *taken[2][PASSED];
        for (int i = 0; i < 2; i++)
            assert_int_equal(pthread_create(&threads[i], NULL, take_on_thread, taken[i]), 0);
        for (int i = 0; i < 2; i++)
            assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_true(memory_bytes(MEMORY_CONNECTION) - before >= 2 * PASSED * 100);
        for (int i = 0; i < PASSED; i++) {
            memory_give(taken[0][i], MEMORY_CONNECTION);
            memory_give(taken[1][i], MEMORY_CONNECTION);
        }
        assert_int_equal(memory_bytes(MEMORY_CONNECTION), before);
    }
}

static void purposes_have_names(void **state)
{
    (void)state;
    for (int i = 0; i < MEMORY_PURPOSE_COUNT; i++) {
        assert_string_not_equal(memory_purpose_name((enum memory_purpose)i), "unknown");
        for (int j = 0; j < i; j++)
            assert_string_not_equal(memory_purpose_name((enum memory_purpose)i),
                                    memory_purpose_name((enum memory_purpose)j));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_what_is_taken),
        cmocka_unit_test(aligns),
        cmocka_unit_test(huge_is_counted_and_aligned),
        cmocka_unit_test(nth_take_fails_once),
        cmocka_unit_test(threads_are_summed),
        cmocka_unit_test(purposes_have_names),
        cmocka_unit_test(grows_by_doubling),
        cmocka_unit_test(what_cannot_grow_stays_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
