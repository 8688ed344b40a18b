/* test_metrics.c: sums over shards, the histogram's edges, and the text, which promtool must like.
 */
#include "tests/unit/check.h"

#include "core/metrics.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

static char text[256 * 1024];

static const char *render(struct metrics *const *shards, uint32_t count)
{
    struct buffer out = buffer_of(text, sizeof text - 1);
    assert_int_equal(metrics_render(&out, shards, count), OK);
    text[out.size] = '\0';
    return text;
}

static void has_line(const char *line)
{
    char wanted[300];
    (void)snprintf(wanted, sizeof wanted, "\n%s\n", line);
    if (strstr(text, wanted) == NULL)
        fail_msg("no line: %s", line);
}

static void create(struct metrics **shards, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        assert_int_equal(metrics_create(&shards[i]), OK);
}

static void shards_are_summed(void **state)
{
    (void)state;
    struct metrics *shards[3];
    create(shards, 3);
    metric_add(shards[0], METRIC_MESSAGES_ACKED, 5);
    metric_add(shards[2], METRIC_MESSAGES_ACKED, 7);
    metric_set(shards[0], METRIC_CONNECTIONS_OPEN, 10);
    metric_set(shards[1], METRIC_CONNECTIONS_OPEN, -3);
    metric_add(shards[1], METRIC_CONNECTIONS_OPEN, 1);
    metric_set(shards[0], METRIC_LOG_STATE, 1);
    metric_set(shards[2], METRIC_LOG_STATE, 1);
    assert_int_equal(metrics_sum(shards, 3, METRIC_LOG_STATE), 1); /* the worst, not the sum */
    metric_observe(shards[0], METRIC_ACK_SECONDS, 1000000);        /* 1 ms */
    metric_observe(shards[1], METRIC_ACK_SECONDS, 2500000000);     /* 2.5 s */
    metric_observe(shards[1], METRIC_ACK_SECONDS, 100 * NS_PER_S);
    assert_int_equal(metrics_sum(shards, 3, METRIC_MESSAGES_ACKED), 12);
    assert_int_equal(metrics_sum(shards, 3, METRIC_CONNECTIONS_OPEN), 8);
    assert_int_equal(metrics_sum(shards, 3, METRIC_ACK_SECONDS), 3);
    render(shards, 3);
    has_line("roost_messages_acked_total 12");
    has_line("roost_connections_open 8");
    has_line("# HELP roost_connections_open Connections open now.");
    has_line("# TYPE roost_connections_open gauge");
    has_line("# TYPE roost_messages_acked_total counter");
    has_line("# TYPE roost_ack_seconds histogram");
    has_line("roost_ack_seconds_bucket{le=\"0.000016383\"} 0");
    has_line("roost_ack_seconds_bucket{le=\"0.000524287\"} 0");
    has_line("roost_ack_seconds_bucket{le=\"0.001048575\"} 1");
    has_line("roost_ack_seconds_bucket{le=\"4.294967295\"} 2");
    has_line("roost_ack_seconds_bucket{le=\"8.589934591\"} 2");
    has_line("roost_ack_seconds_bucket{le=\"+Inf\"} 3");
    has_line("roost_ack_seconds_sum 102.501000000");
    has_line("roost_ack_seconds_count 3");
    for (int i = 0; i < 3; i++)
        metrics_destroy(shards[i]);
}

static void small_room_is_refused(void **state)
{
    (void)state;
    struct metrics *shards[1];
    create(shards, 1);
    size_t size = strlen(render(shards, 1));
    struct buffer out = buffer_of(text, size);
    assert_int_equal(metrics_render(&out, shards, 1), OK);
    for (size_t room = 0; room < size; room += 97) {
        out = buffer_of(text, room);
        assert_int_equal(metrics_render(&out, shards, 1), ERR_FULL);
        assert_true(out.size <= room);
    }
    metrics_destroy(shards[0]);
}

/* quantile_of: of a histogram with one value and one that is larger, so that max does not cap it.
 */
static uint64_t edge_of(uint64_t value)
{
    struct histogram histogram = {.count = 0};
    histogram_record(&histogram, value);
    histogram_record(&histogram, UINT64_MAX);
    return histogram_quantile(&histogram, 0.5);
}

static void buckets_are_narrow_and_in_order(void **state)
{
    (void)state;
    uint64_t seed = 13;
    uint64_t previous = 0;
    for (uint64_t value = 0; value < 5000; value++) {
        uint64_t edge = edge_of(value);
        assert_true(edge >= value && edge >= previous);
        assert_true(edge - value <= value / 8);
        previous = edge;
    }
    for (int i = 0; i < 100000; i++) {
        uint64_t value = random_next(&seed) >> random_below(&seed, 64);
        uint64_t edge = edge_of(value);
        assert_true(edge >= value && edge - value <= value / 8);
        if (edge != UINT64_MAX) {
            assert_true(edge_of(edge) == edge);
            assert_true(edge_of(edge + 1) > edge);
        }
    }
    assert_true(edge_of(UINT64_MAX) == UINT64_MAX);
}

static void quantiles(void **state)
{
    (void)state;
    struct histogram histogram = {.count = 0};
    assert_int_equal(histogram_quantile(&histogram, 0.5), 0);
    for (uint64_t v = 1; v <= 1000; v++)
        histogram_record(&histogram, v);
    assert_in_range(histogram_quantile(&histogram, 0), 1, 1);
    assert_in_range(histogram_quantile(&histogram, 0.5), 500, 562);
    assert_in_range(histogram_quantile(&histogram, 0.99), 990, 1000);
    assert_int_equal(histogram_quantile(&histogram, 1), 1000);
    assert_int_equal(histogram.sum, 500500);
    struct histogram other = {.count = 0};
    histogram_record(&other, 5000);
    histogram_merge(&other, &histogram);
    assert_int_equal(other.count, 1001);
    assert_int_equal(other.sum, 505500);
    assert_int_equal(other.max, 5000);
    assert_int_equal(histogram_quantile(&other, 1), 5000);
    assert_in_range(histogram_quantile(&other, 0.5), 500, 562);
}

static void promtool_likes_the_text(void **state)
{
    (void)state;
    struct metrics *shards[2];
    create(shards, 2);
    metric_observe(shards[1], METRIC_CONNECT_SECONDS, 12345);
    render(shards, 2);
    FILE *promtool = popen("promtool check metrics", "w");
    assert_non_null(promtool);
    assert_int_equal(fwrite(text, 1, strlen(text), promtool), strlen(text));
    assert_int_equal(pclose(promtool), 0);
    metrics_destroy(shards[0]);
    metrics_destroy(shards[1]);
}

static atomic_bool stop;
static void *observe_for_ever(void *metrics)
{
    uint64_t seed = 14;
    while (!atomic_load(&stop)) {
        metric_observe(metrics, METRIC_CONNECT_SECONDS, random_below(&seed, NS_PER_S));
        metric_add(metrics, METRIC_SYNCED, 1);
    }
    return NULL;
}

static void reading_while_writing(void **state)
{
    (void)state;
    struct metrics *shards[1];
    create(shards, 1);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, observe_for_ever, shards[0]), 0);
    for (int i = 0; i < 200; i++) {
        render(shards, 1);
        unsigned long long infinite = 0;
        unsigned long long count = 1;
        const char *inf = strstr(text, "roost_connect_seconds_bucket{le=\"+Inf\"} ");
        const char *counted = strstr(text, "roost_connect_seconds_count ");
        assert_int_equal(sscanf(inf, "roost_connect_seconds_bucket{le=\"+Inf\"} %llu", &infinite),
                         1);
        assert_int_equal(sscanf(counted, "roost_connect_seconds_count %llu", &count), 1);
        assert_true(infinite == count);
    }
    atomic_store(&stop, true);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(metrics_sum(shards, 1, METRIC_SYNCED) ==
                metrics_sum(shards, 1, METRIC_CONNECT_SECONDS));
    metrics_destroy(shards[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shards_are_summed),
        cmocka_unit_test(small_room_is_refused),
        cmocka_unit_test(buckets_are_narrow_and_in_order),
        cmocka_unit_test(quantiles),
        cmocka_unit_test(promtool_likes_the_text),
        cmocka_unit_test(reading_while_writing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
