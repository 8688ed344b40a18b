/* test_parked.c: requests that wait on their conversation, and the times at which those that find
 * no place are told to come again. */
#include "gateway/flow/parked.h"

#include "tests/unit/check.h"

#define PLACES  2
#define HERD    40
#define STAY_NS (6 * NS_PER_MS) /* of a look-up */

struct rig {
    struct config config;
    struct gateway gateway;
    struct shard shard;
    struct conversation_work work;
    struct conversation conversation;
    uint8_t message[sizeof(struct border_send)];
};

static int set_up(void **state)
{
    struct rig *rig = memory_take_zeroed(sizeof *rig, MEMORY_CHAT);
    assert_non_null(rig);
    rig->config.parked_requests = PLACES;
    rig->gateway.config = &rig->config;
    rig->gateway.lane_count = 1;
    rig->shard.gateway = &rig->gateway;
    rig->shard.now_ns = 3600 * NS_PER_S;
    assert_int_equal(metrics_create(&rig->shard.metrics), OK);
    conversation_init(&rig->conversation);
    rig->conversation.state = CONVERSATION_WARM;
    rig->conversation.work = &rig->work;
    *state = rig;
    return 0;
}

static int tear_down(void **state)
{
    struct rig *rig = *state;
    while (rig->work.parked != NULL)
        parked_remove(&rig->shard, rig->work.parked);
    metrics_destroy(rig->shard.metrics);
    memory_give(rig, MEMORY_CHAT);
    return 0;
}

static struct parked *park(struct rig *rig)
{
    return parked_add(&rig->shard, &rig->conversation, bytes_of(rig->message, sizeof rig->message),
                      PARKED_FINDING);
}

static uint32_t refuse(struct rig *rig)
{
    return parked_retry_ms(&rig->shard, &rig->conversation);
}

static void pass(struct rig *rig, uint64_t ns)
{
    rig->shard.now_ns += ns;
}

/* leave: those that have stayed long enough. */
static void leave(struct rig *rig)
{
    while (rig->work.parked != NULL && rig->shard.now_ns - rig->work.parked->since_ns >= STAY_NS)
        parked_remove(&rig->shard, rig->work.parked);
}

/* test_bound: so many, and no more; of several lanes half of them where no state is waited for. */
static void test_bound(void **state)
{
    struct rig *rig = *state;
    struct metrics *const metrics[] = {rig->shard.metrics};
    assert_non_null(park(rig));
    assert_non_null(park(rig));
    assert_null(park(rig));
    assert_true(refuse(rig) > 0);
    assert_int_equal(metrics_sum(metrics, 1, METRIC_PARKED_FULL), 1);
    parked_remove(&rig->shard, rig->work.parked);
    rig->gateway.lane_count = 2;
    assert_null(park(rig));
    rig->conversation.state = CONVERSATION_LOADING;
    assert_non_null(park(rig));
}

/* test_apart: those that are refused together are told different times, as far apart as places
 * become free. */
static void test_apart(void **state)
{
    struct rig *rig = *state;
    for (uint32_t i = 0; i < 100; i++) { /* each stayed 200 ms of late */
        assert_non_null(park(rig));
        pass(rig, 200 * NS_PER_MS);
        parked_remove(&rig->shard, rig->work.parked);
    }
    assert_non_null(park(rig));
    assert_non_null(park(rig));
    uint32_t last_ms = refuse(rig);
    assert_in_range(last_ms, 190, 210);
    for (uint32_t i = 1; i < HERD; i++) {
        uint32_t told_ms = refuse(rig);
        assert_in_range(told_ms - last_ms, 200 / PLACES - 5, 200 / PLACES + 5);
        last_ms = told_ms;
    }
}

/* test_herd: many repeats at once and two places: whoever comes again when it was told finds one
 * soon, so that all are looked up hardly later than two places can. */
static void test_herd(void **state)
{
    struct rig *rig = *state;
    uint64_t due_ns[HERD] = {0}; /* UINT64_MAX: has had its place */
    uint64_t start_ns = rig->shard.now_ns;
    uint32_t left = HERD;
    uint32_t tries = 0;
    while (left > 0) {
        leave(rig);
        for (uint32_t i = 0; i < HERD; i++) {
            if (due_ns[i] > rig->shard.now_ns)
                continue;
            tries++;
            bool placed = park(rig) != NULL;
            due_ns[i] = placed ? UINT64_MAX : rig->shard.now_ns + refuse(rig) * NS_PER_MS;
            left -= placed ? 1 : 0;
        }
        pass(rig, NS_PER_MS);
    }
    print_message("%u repeats, 2 places: %lu ms, %u tries\n", HERD,
                  (unsigned long)((rig->shard.now_ns - start_ns) / NS_PER_MS), tries);
    assert_true(rig->shard.now_ns - start_ns < NS_PER_S);
    assert_true(tries < 4 * HERD);
}

/* test_standing_still: nothing leaves: it is asked less and less, never told more than the longest
 * time, nor all the same; and once places are free again it is as before. */
static void test_standing_still(void **state)
{
    struct rig *rig = *state;
    assert_non_null(park(rig));
    assert_non_null(park(rig));
    uint32_t before_ms = refuse(rig);
    pass(rig, 5 * NS_PER_S);
    assert_in_range(refuse(rig), 5000, RETRY_MS_MAX);
    for (uint32_t i = 0, last_ms = 0; i < 1000; i++) {
        uint32_t told_ms = refuse(rig);
        assert_int_not_equal(told_ms, last_ms);
        assert_in_range(told_ms, 5000, RETRY_MS_MAX);
        last_ms = told_ms;
    }
    while (rig->work.parked != NULL)
        parked_remove(&rig->shard, rig->work.parked);
    for (uint32_t i = 0; i < 100; i++) {
        assert_non_null(park(rig));
        pass(rig, NS_PER_MS);
        parked_remove(&rig->shard, rig->work.parked);
    }
    pass(rig, 3600 * NS_PER_S); /* idle is not standing still */
    assert_non_null(park(rig));
    assert_non_null(park(rig));
    assert_int_equal(refuse(rig), before_ms);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_bound, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_apart, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_herd, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_standing_still, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
