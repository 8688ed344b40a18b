/* metrics.c: cells per shard, and their text.
 *
 * A cell is written by its shard only and read by whichever thread renders: relaxed atomic loads
 * and stores, which on this machine are plain moves. A reader may see a histogram in the middle of
 * an observation (its count one ahead of its sum); the text's _count is therefore taken from the
 * buckets it prints, so that the +Inf bucket and _count always agree.
 *
 * Buckets: values below 8 have their own; above, 8 per power of two:
 *     index(v) = (e - 2) * 8 + the 3 bits below v's highest, e = the highest bit's number
 * The text shows EDGES of their edges, one per power of two, each "up to 2^n - 1 units", exactly:
 * 16 µs to 8.6 s for _seconds, 64 B to 32 MiB for everything else. */
#include "core/metrics.h"

#include "core/memory.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

enum metric_kind { METRIC_COUNTER, METRIC_GAUGE, METRIC_STATE, METRIC_HISTOGRAM };

/* Histograms get places of their own: PLACE_ACK_SECONDS … */
#define PLACE_COUNTER(id)
#define PLACE_GAUGE(id)
#define PLACE_STATE(id)
#define PLACE_HISTOGRAM(id) PLACE_##id,
enum histogram_place {
#define METRIC(id, type, name, help) PLACE_##type(id)
#include "core/metrics_list.h"
#undef METRIC
    PLACE_COUNT
};

#define INDEX_COUNTER(id)   0
#define INDEX_GAUGE(id)     0
#define INDEX_STATE(id)     0
#define INDEX_HISTOGRAM(id) PLACE_##id

static const struct {
    enum metric_kind kind;
    uint32_t place;
    const char *name;
    const char *help;
} descriptions[METRIC_COUNT] = {
#define METRIC(id, type, name, help) [METRIC_##id] = {METRIC_##type, INDEX_##type(id), name, help},
#include "core/metrics_list.h"
#undef METRIC
};

struct metrics {
    _Alignas(64) uint64_t values[METRIC_COUNT];
    struct histogram histograms[PLACE_COUNT];
};

#define EDGES              20
#define EDGE_SECONDS_FIRST 14 /* 2^14 ns */
#define EDGE_BYTES_FIRST   6

static uint64_t cell_load(const uint64_t *cell)
{
    return __atomic_load_n(cell, __ATOMIC_RELAXED);
}

static void cell_add(uint64_t *cell, uint64_t n)
{
    __atomic_store_n(cell, cell_load(cell) + n, __ATOMIC_RELAXED);
}

enum err metrics_create(struct metrics **metrics)
{
    *metrics = memory_take_aligned(sizeof **metrics, 64, MEMORY_CORE);
    if (*metrics == NULL)
        return ERR_NO_MEMORY;
    memset(*metrics, 0, sizeof **metrics);
    return OK;
}

void metrics_destroy(struct metrics *metrics)
{
    memory_give(metrics, MEMORY_CORE);
}

void metric_add(struct metrics *metrics, enum metric id, uint64_t n)
{
    CHECK(descriptions[id].kind != METRIC_HISTOGRAM);
    cell_add(&metrics->values[id], n);
}

void metric_set(struct metrics *metrics, enum metric id, int64_t value)
{
    CHECK(descriptions[id].kind == METRIC_GAUGE || descriptions[id].kind == METRIC_STATE);
    __atomic_store_n(&metrics->values[id], (uint64_t)value, __ATOMIC_RELAXED);
}

void metric_observe(struct metrics *metrics, enum metric id, uint64_t value)
{
    CHECK(descriptions[id].kind == METRIC_HISTOGRAM);
    histogram_record(&metrics->histograms[descriptions[id].place], value);
}

int64_t metrics_sum(struct metrics *const *shards, uint32_t count, enum metric id)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < count; i++) {
        bool histogram = descriptions[id].kind == METRIC_HISTOGRAM;
        uint64_t value = histogram ? cell_load(&shards[i]->histograms[descriptions[id].place].count)
                                   : cell_load(&shards[i]->values[id]);
        if (descriptions[id].kind == METRIC_STATE)
            sum = value > sum ? value : sum;
        else
            sum += value;
    }
    return (int64_t)sum;
}

/* ---- histograms */

static uint32_t bucket_of(uint64_t value)
{
    if (value < 8)
        return (uint32_t)value;
    uint32_t exponent = 63u - (uint32_t)__builtin_clzll(value);
    return (exponent - 2) * 8 + (uint32_t)(value >> (exponent - 3) & 7);
}

/* bucket_edge: the largest value that belongs to the bucket. */
static uint64_t bucket_edge(uint32_t bucket)
{
    if (bucket < 8)
        return bucket;
    uint32_t shift = bucket / 8 - 1;
    return ((uint64_t)(8 + bucket % 8) << shift) + ((1ull << shift) - 1);
}

void histogram_record(struct histogram *histogram, uint64_t value)
{
    cell_add(&histogram->buckets[bucket_of(value)], 1);
    cell_add(&histogram->count, 1);
    cell_add(&histogram->sum, value);
    if (value > cell_load(&histogram->max))
        __atomic_store_n(&histogram->max, value, __ATOMIC_RELAXED);
}

void histogram_merge(struct histogram *target, const struct histogram *source)
{
    for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++)
        target->buckets[i] += cell_load(&source->buckets[i]);
    target->count += cell_load(&source->count);
    target->sum += cell_load(&source->sum);
    uint64_t max = cell_load(&source->max);
    if (max > target->max)
        target->max = max;
}

uint64_t histogram_quantile(const struct histogram *histogram, double q)
{
    uint64_t total = histogram->count;
    if (total == 0)
        return 0;
    double wanted = q * (double)total;
    uint64_t rank = wanted <= 1 ? 1 : (uint64_t)wanted;
    if ((double)rank < wanted)
        rank++;
    if (rank > total)
        rank = total;
    uint64_t seen = 0;
    for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += histogram->buckets[i];
        if (seen >= rank)
            return bucket_edge(i) < histogram->max ? bucket_edge(i) : histogram->max;
    }
    return histogram->max;
}

/* ---- text */

__attribute__((format(printf, 2, 3))) static MUST_USE enum err
append_format(struct buffer *out, const char *format, ...)
{
    char line[256];
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    CHECK(size >= 0 && (size_t)size < sizeof line);
    return buffer_append(out, bytes_of(line, (size_t)size));
}

/* append_value: value / 10^9 without rounding if nanoseconds, else as it is. */
static MUST_USE enum err append_value(struct buffer *out, uint64_t value, bool nanoseconds)
{
    if (!nanoseconds)
        return append_format(out, "%" PRIu64, value);
    return append_format(out, "%" PRIu64 ".%09" PRIu64, value / (uint64_t)NS_PER_S,
                         value % (uint64_t)NS_PER_S);
}

/* append_head: HELP with backslash and line feed escaped, and TYPE. */
static MUST_USE enum err append_head(struct buffer *out, enum metric id)
{
    static const char *const types[] = {"counter", "gauge", "gauge", "histogram"};
    TRY(append_format(out, "# HELP %s ", descriptions[id].name));
    for (const char *c = descriptions[id].help; *c != '\0'; c++) {
        if (*c == '\\' || *c == '\n')
            TRY(buffer_append(out, bytes_of_text(*c == '\n' ? "\\n" : "\\\\")));
        else
            TRY(buffer_append(out, bytes_of(c, 1)));
    }
    return append_format(out, "\n# TYPE %s %s\n", descriptions[id].name,
                         types[descriptions[id].kind]);
}

static bool name_ends_in(const char *name, const char *end)
{
    size_t size = strlen(name);
    size_t end_size = strlen(end);
    return size >= end_size && strcmp(name + size - end_size, end) == 0;
}

static MUST_USE enum err append_histogram(struct buffer *out, const char *name,
                                          const struct histogram *histogram)
{
    bool seconds = name_ends_in(name, "_seconds");
    uint32_t exponent = seconds ? EDGE_SECONDS_FIRST : EDGE_BYTES_FIRST;
    uint64_t seen = 0;
    uint32_t bucket = 0;
    for (uint32_t i = 0; i < EDGES; i++) {
        uint64_t edge = (1ull << (exponent + i)) - 1;
        for (; bucket_edge(bucket) <= edge; bucket++)
            seen += histogram->buckets[bucket];
        TRY(append_format(out, "%s_bucket{le=\"", name));
        TRY(append_value(out, edge, seconds));
        TRY(append_format(out, "\"} %" PRIu64 "\n", seen));
    }
    for (; bucket < HISTOGRAM_BUCKETS; bucket++)
        seen += histogram->buckets[bucket];
    TRY(append_format(out, "%s_bucket{le=\"+Inf\"} %" PRIu64 "\n%s_sum ", name, seen, name));
    TRY(append_value(out, histogram->sum, seconds));
    return append_format(out, "\n%s_count %" PRIu64 "\n", name, seen);
}

enum err metrics_render(struct buffer *out, struct metrics *const *shards, uint32_t count)
{
    for (uint32_t i = 0; i < METRIC_COUNT; i++) {
        enum metric id = (enum metric)i;
        const char *name = descriptions[id].name;
        TRY(append_head(out, id));
        if (descriptions[id].kind == METRIC_HISTOGRAM) {
            struct histogram sum = {.count = 0};
            for (uint32_t shard = 0; shard < count; shard++)
                histogram_merge(&sum, &shards[shard]->histograms[descriptions[id].place]);
            TRY(append_histogram(out, name, &sum));
        } else {
            TRY(append_format(out, "%s %" PRId64 "\n", name, metrics_sum(shards, count, id)));
        }
    }
    return OK;
}
