/* test_addresses.c: the limit of each address is its own, whoever else is there. */
#include "gateway/flow/addresses.h"

#include "tests/unit/check.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define LIMIT 64

static const struct hash_key key = {1, 2};

static struct io_address v4(uint32_t n)
{
    struct io_address a = {.ip = {[10] = 0xff, [11] = 0xff, [12] = 10}};
    a.ip[13] = (uint8_t)(n >> 16);
    a.ip[14] = (uint8_t)(n >> 8);
    a.ip[15] = (uint8_t)n;
    a.port = (uint16_t)rand();
    return a;
}

static struct io_address v6(uint8_t network, uint8_t host)
{
    return (struct io_address){.ip = {0x20, 0x01, [7] = network, [15] = host}};
}

static uint32_t fill(struct addresses *t, const struct io_address *a, uint32_t limit)
{
    uint32_t count = 0;
    while (addresses_count(t, a, limit) == OK)
        count++;
    return count;
}

static void assert_empty(const struct addresses *t)
{
    for (uint64_t i = 0; i <= t->mask; i++)
        assert_int_equal(atomic_load(&t->cells[i]), 0);
}

/* The innocent: 20,000 addresses of an attacker hold all they may; everybody else gets all of
 * theirs. */
static void test_exact(void **state)
{
    struct addresses t;
    const uint32_t attackers = 20000, others = 2000;
    (void)state;
    assert_int_equal(addresses_init(&t, attackers + others, &key), OK);
    for (uint32_t n = 0; n < attackers; n++) {
        struct io_address a = v4(n);
        assert_int_equal(fill(&t, &a, LIMIT), LIMIT);
    }
    for (uint32_t n = attackers; n < attackers + others; n++) {
        struct io_address a = v4(n);
        assert_int_equal(fill(&t, &a, LIMIT), LIMIT);
    }
    for (uint32_t n = 0; n < attackers + others; n++) {
        struct io_address a = v4(n);
        addresses_uncount(&t, &a);
        assert_int_equal(fill(&t, &a, LIMIT), 1);
        for (int i = 0; i < LIMIT; i++)
            addresses_uncount(&t, &a);
    }
    assert_empty(&t);
    addresses_deinit(&t);
}

static void test_v6_by_network(void **state)
{
    struct addresses t;
    struct io_address a = v6(1, 1), b = v6(1, 2), c = v6(2, 1);
    (void)state;
    assert_int_equal(addresses_init(&t, 100, &key), OK);
    assert_int_equal(fill(&t, &a, LIMIT), LIMIT);
    assert_int_equal(fill(&t, &b, LIMIT), 0);
    assert_int_equal(fill(&t, &c, LIMIT), LIMIT);
    addresses_uncount(&t, &b);
    assert_int_equal(fill(&t, &a, LIMIT), 1);
    addresses_deinit(&t);
}

static void test_large_limit(void **state)
{
    struct addresses t;
    struct io_address a = v4(1);
    (void)state;
    assert_int_equal(addresses_init(&t, 100, &key), OK);
    assert_int_equal(fill(&t, &a, 200000), 200000);
    for (uint32_t i = 0; i < 200000; i++)
        addresses_uncount(&t, &a);
    assert_empty(&t);
    addresses_deinit(&t);
}

static void test_full(void **state)
{
    struct addresses t;
    uint32_t counted = 0, refused = 0;
    (void)state;
    assert_int_equal(addresses_init(&t, 1, &key), OK);
    for (uint32_t n = 0; n < 4096; n++) {
        struct io_address a = v4(n);
        if (addresses_count(&t, &a, LIMIT) == OK)
            counted++;
        else
            refused++;
    }
    assert_true(counted <= t.mask + 1 && counted > (t.mask + 1) / 2 && refused != 0);
    addresses_deinit(&t);
}

static void *churn(void *context)
{
    struct addresses *t = context;
    for (uint32_t round = 0; round < 200000; round++) {
        struct io_address a = v4(round % 3);
        if (addresses_count(t, &a, 2) == OK)
            addresses_uncount(t, &a);
    }
    return NULL;
}

static void test_threads(void **state)
{
    struct addresses t;
    pthread_t threads[4];
    (void)state;
    assert_int_equal(addresses_init(&t, 8, &key), OK);
    for (size_t i = 0; i < COUNT_OF(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, churn, &t), 0);
    for (size_t i = 0; i < COUNT_OF(threads); i++)
        pthread_join(threads[i], NULL);
    assert_empty(&t);
    addresses_deinit(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exact),       cmocka_unit_test(test_v6_by_network),
        cmocka_unit_test(test_large_limit), cmocka_unit_test(test_full),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
