/* metrics.h: counters, gauges and histograms per shard, summed when read; Prometheus text format
 * 0.0.4.
 * Flow:       every floor counts here → api/admin renders
 * Owns:       one cache-line-aligned block of cells per shard; writing is a plain add by the owner
 *             (relaxed atomic store), reading is any thread's
 * Invariants: names, units and help texts stand in one table (core/metrics_list.h, an X-macro) and
 *             nowhere else
 * Bounds:     a histogram has HISTOGRAM_BUCKETS log-linear buckets (8 per power of two: at most
 *             12.5 % wide) */
#ifndef CORE_METRICS_H
#define CORE_METRICS_H

#include "core/bytes.h"

enum metric {
#define METRIC(id, type, name, help) METRIC_##id,
#include "core/metrics_list.h"
#undef METRIC
    METRIC_COUNT
};

#define HISTOGRAM_BUCKETS 496

struct histogram {
    uint64_t buckets[HISTOGRAM_BUCKETS];
    uint64_t count;
    uint64_t sum;
    uint64_t max;
};

struct metrics; /* one shard's cells */

MUST_USE enum err metrics_create(struct metrics **metrics);
void metrics_destroy(struct metrics *metrics);
void metric_add(struct metrics *metrics, enum metric id, uint64_t n);
void metric_set(struct metrics *metrics, enum metric id, int64_t value);
/* metric_observe: values in the unit the name ends in, times 1e9 for _seconds (that is:
 * nanoseconds), bytes for _bytes. */
void metric_observe(struct metrics *metrics, enum metric id, uint64_t value);
/* metrics_render: all summed, histograms with cumulative buckets; ERR_FULL: out is
 * too small (nothing useful in it). */
MUST_USE enum err metrics_render(struct buffer *out, struct metrics *const *shards, uint32_t count);
int64_t metrics_sum(struct metrics *const *shards, uint32_t count, enum metric id);

void histogram_record(struct histogram *histogram, uint64_t value);
void histogram_merge(struct histogram *target, const struct histogram *source);
/* histogram_quantile: upper edge of the bucket that holds quantile q (0 … 1), at most the largest
 * value recorded; 0 if empty. */
uint64_t histogram_quantile(const struct histogram *histogram, double q);

#endif
