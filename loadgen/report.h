/* report.h: what a run measured, as JSON for programs and as text for people.
 * Flow:       main fills struct report → report_json, report_text → files
 * Invariants: a figure that was not measured is null in JSON and "not measured" in the text
 * Failure:    ERR_FULL: out is too small
 * Bounds:     REPORT_BYTES_MAX */
#ifndef LOADGEN_REPORT_H
#define LOADGEN_REPORT_H

#include "core/bytes.h"
#include "core/metrics.h"
#include "loadgen/host.h"
#include "loadgen/oracle.h"

#define REPORT_BYTES_MAX  (64 * 1024)
#define REPORT_FAULTS_MAX 16
#define REPORT_LINE_BYTES 320

struct report_options { /* what was asked for */
    uint32_t connections;
    uint32_t users;
    uint32_t threads;
    double rate;
    double duration_s;
    uint32_t message_bytes;
    uint32_t handshakes_max;
    uint32_t sources;
    const char *encoding;
    bool local; /* both ends on this machine */
};

struct report {
    struct report_options options;
    /* connections */
    uint64_t established;
    uint64_t failed;
    uint64_t dropped;
    uint64_t reconnects;
    uint64_t resumed_tls;
    const char *tls; /* "" unknown */
    bool has_connect;
    double connect_s; /* first connect to last ready */
    /* memory: only with a gateway pid */
    bool has_memory;
    uint64_t memory_connections; /* ready when `idle` was taken */
    struct host_sample baseline;
    struct host_sample idle;
    /* messages */
    bool has_chat;
    double chat_s;
    uint64_t sent;
    uint64_t acked;
    uint64_t delivered;
    uint64_t refused;
    uint64_t retried;
    uint64_t unsent;
    struct oracle_counts oracle;
    struct histogram connect_ns;
    struct histogram ack_ns;
    struct histogram deliver_ns;
    struct host_machine machine;
    const char *loadgen_version;
    const char *gateway_version; /* "" unknown */
    const char *tls_library;
    char faults[REPORT_FAULTS_MAX][REPORT_LINE_BYTES]; /* why the verdict is not "pass" */
    uint32_t fault_count;
};

/* report_fault: one more reason; beyond REPORT_FAULTS_MAX they are dropped (the first matter). */
void report_fault(struct report *report, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* report_judge: add the faults that the figures themselves show. breaks_expected: connections that
 * break, or cannot be made for a while, are none. */
void report_judge(struct report *report, bool breaks_expected);
MUST_USE enum err report_json(struct buffer *out, const struct report *report);
MUST_USE enum err report_text(struct buffer *out, const struct report *report);

#endif
