/* report.c: see report.h. The JSON object's fields:
 *   connections{target, established, failed, dropped, reconnects, resumed, tls}
 *   connect{per_s, p50_ms, p99_ms}
 *   memory{user_bytes_per_connection, kernel_bytes_per_connection, total_bytes_per_connection,
 *          user_pss_bytes_per_connection, user_bytes_at_start, connections}
 *   messages{sent, acked, delivered, lost, duplicated, reordered, redelivered, altered,
 * conflicting, gaps, refused, retried, unsent, unchecked, per_s} latency_ms{ack{p50, p95, p99,
 * p999, max}, deliver{…}} load{…}, machine{…}, versions{…}, faults[…], verdict: "pass" or "fail" */
#include "loadgen/report.h"

#include "gateway/wire/json_text.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#define NS_PER_MS_F 1e6

void report_fault(struct report *report, const char *format, ...)
{
    if (report->fault_count == REPORT_FAULTS_MAX)
        return;
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(report->faults[report->fault_count++], REPORT_LINE_BYTES, format, arguments);
    va_end(arguments);
}

static void judge_count(struct report *report, uint64_t count, const char *what)
{
    if (count != 0)
        report_fault(report, "%" PRIu64 " %s", count, what);
}

void report_judge(struct report *report, bool breaks_expected)
{
    const struct oracle_counts *oracle = &report->oracle;
    if (report->established != report->options.connections)
        report_fault(report, "%" PRIu64 " of %" PRIu32 " connections established",
                     report->established, report->options.connections);
    if (!breaks_expected) {
        judge_count(report, report->failed, "connections failed before they were ready");
        judge_count(report, report->dropped, "connections broke");
    }
    judge_count(report, oracle->lost, "messages lost");
    judge_count(report, oracle->duplicated, "messages duplicated");
    judge_count(report, oracle->reordered, "messages reordered");
    judge_count(report, oracle->altered, "messages altered");
    judge_count(report, oracle->conflicting, "sequence numbers or messages in conflict");
    judge_count(report, oracle->gaps, "sequence numbers without a message");
    judge_count(report, oracle->strange, "facts about conversations nobody opened");
    judge_count(report, oracle->unchecked, "facts beyond the oracle's window: not checked");
    judge_count(report, report->refused, "sends refused");
    judge_count(report, report->unsent, "scheduled messages could not be sent");
    if (report->has_chat && report->sent == 0)
        report_fault(report, "no message was sent");
    if (report->acked + report->refused < report->sent)
        report_fault(report, "%" PRIu64 " sends were never acknowledged",
                     report->sent - report->acked - report->refused);
}

/* ---- a writer that remembers that it failed */

struct writer {
    struct buffer *out;
    enum err err;
    bool first;
};

__attribute__((format(printf, 2, 3))) static void put(struct writer *writer, const char *format,
                                                      ...)
{
    if (writer->err != OK)
        return;
    struct buffer *out = writer->out;
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf((char *)out->data + out->size, buffer_room(out), format, arguments);
    va_end(arguments);
    if (size < 0 || (size_t)size >= buffer_room(out))
        writer->err = ERR_FULL;
    else
        out->size += (size_t)size;
}

static void key(struct writer *writer, const char *name)
{
    put(writer, "%s\"%s\":", writer->first ? "" : ",", name);
    writer->first = false;
}

static void object_open(struct writer *writer, const char *name)
{
    if (name != NULL)
        key(writer, name);
    put(writer, "{");
    writer->first = true;
}

static void object_close(struct writer *writer)
{
    put(writer, "}");
    writer->first = false;
}

static void number(struct writer *writer, const char *name, uint64_t value)
{
    key(writer, name);
    put(writer, "%" PRIu64, value);
}

static void real(struct writer *writer, const char *name, bool measured, double value)
{
    key(writer, name);
    if (measured)
        put(writer, "%.3f", value);
    else
        put(writer, "null");
}

static void string(struct writer *writer, const char *name, const char *value)
{
    key(writer, name);
    if (value == NULL || value[0] == '\0')
        put(writer, "null");
    else if (writer->err == OK)
        writer->err = json_text_put(writer->out, bytes_of_text(value));
}

/* ---- figures made of figures */

static double quantile_ms(const struct histogram *histogram, double q)
{
    return (double)histogram_quantile(histogram, q) / NS_PER_MS_F;
}

static double per(const struct report *report, uint64_t before, uint64_t after)
{
    return ((double)after - (double)before) / (double)report->memory_connections;
}

static bool has_user(const struct report *report)
{
    return report->has_memory && report->baseline.has_process && report->idle.has_process &&
           report->memory_connections != 0;
}

static bool has_kernel(const struct report *report)
{
    return report->has_memory && report->baseline.has_kernel && report->idle.has_kernel &&
           report->memory_connections != 0;
}

static bool has_pss(const struct report *report)
{
    return has_user(report) && report->baseline.has_pss && report->idle.has_pss;
}

static double user_bytes(const struct report *report)
{
    return has_user(report) ? per(report, report->baseline.process_own, report->idle.process_own)
                            : 0;
}

/* kernel_bytes: of the server's end: half of the growth where both ends are on this machine. The
 * whole of Slab may have shrunk meanwhile for other reasons: not less than the sockets' objects. */
static double kernel_bytes(const struct report *report)
{
    if (!has_kernel(report))
        return 0;
    double growth = per(report, report->baseline.kernel_slab + report->baseline.kernel_tcp,
                        report->idle.kernel_slab + report->idle.kernel_tcp);
    double objects = 0;
    for (int i = 0; i < HOST_SLABS; i++)
        objects += per(report, report->baseline.slabs[i], report->idle.slabs[i]);
    if (report->baseline.has_slabs && report->idle.has_slabs && objects > growth)
        growth = objects;
    return report->options.local ? growth / 2 : growth;
}

/* ---- JSON */

static void json_connections(struct writer *w, const struct report *report)
{
    object_open(w, "connections");
    number(w, "target", report->options.connections);
    number(w, "established", report->established);
    number(w, "failed", report->failed);
    number(w, "dropped", report->dropped);
    number(w, "reconnects", report->reconnects);
    number(w, "resumed", report->resumed_tls);
    string(w, "tls", report->tls);
    object_close(w);
    bool some = report->connect_ns.count != 0;
    object_open(w, "connect");
    real(w, "per_s", report->has_connect && report->connect_s > 0,
         report->connect_s > 0 ? (double)report->established / report->connect_s : 0);
    real(w, "p50_ms", some, quantile_ms(&report->connect_ns, 0.50));
    real(w, "p99_ms", some, quantile_ms(&report->connect_ns, 0.99));
    object_close(w);
}

static void json_memory(struct writer *w, const struct report *report)
{
    bool user = has_user(report);
    bool kernel = has_kernel(report);
    object_open(w, "memory");
    real(w, "user_bytes_per_connection", user, user_bytes(report));
    real(w, "kernel_bytes_per_connection", kernel, kernel_bytes(report));
    real(w, "total_bytes_per_connection", user && kernel,
         user_bytes(report) + kernel_bytes(report));
    real(w, "user_pss_bytes_per_connection", has_pss(report),
         has_pss(report) ? per(report, report->baseline.process_pss, report->idle.process_pss) : 0);
    if (user) {
        number(w, "user_bytes_at_start", report->baseline.process_own);
        number(w, "connections", report->memory_connections);
    }
    object_close(w);
}

static void json_messages(struct writer *w, const struct report *report)
{
    const struct oracle_counts *oracle = &report->oracle;
    object_open(w, "messages");
    number(w, "sent", report->sent);
    number(w, "acked", report->acked);
    number(w, "delivered", report->delivered);
    number(w, "lost", oracle->lost);
    number(w, "duplicated", oracle->duplicated);
    number(w, "reordered", oracle->reordered);
    number(w, "redelivered", oracle->redelivered);
    number(w, "altered", oracle->altered);
    number(w, "conflicting", oracle->conflicting);
    number(w, "gaps", oracle->gaps);
    number(w, "unchecked", oracle->unchecked);
    number(w, "refused", report->refused);
    number(w, "retried", report->retried);
    number(w, "unsent", report->unsent);
    real(w, "per_s", report->has_chat && report->chat_s > 0,
         report->chat_s > 0 ? (double)report->sent / report->chat_s : 0);
    object_close(w);
}

static void json_latency(struct writer *w, const char *name, const struct histogram *histogram)
{
    bool some = histogram->count != 0;
    object_open(w, name);
    real(w, "p50", some, quantile_ms(histogram, 0.50));
    real(w, "p95", some, quantile_ms(histogram, 0.95));
    real(w, "p99", some, quantile_ms(histogram, 0.99));
    real(w, "p999", some, quantile_ms(histogram, 0.999));
    real(w, "max", some, (double)histogram->max / NS_PER_MS_F);
    object_close(w);
}

static void json_setting(struct writer *w, const struct report *report)
{
    object_open(w, "load");
    number(w, "users", report->options.users);
    number(w, "threads", report->options.threads);
    real(w, "rate_per_s", true, report->options.rate);
    real(w, "duration_s", true, report->options.duration_s);
    number(w, "message_bytes", report->options.message_bytes);
    number(w, "handshakes_in_flight", report->options.handshakes_max);
    number(w, "source_addresses", report->options.sources);
    string(w, "encoding", report->options.encoding);
    object_close(w);
    object_open(w, "machine");
    string(w, "kernel", report->machine.kernel);
    string(w, "cpu", report->machine.cpu);
    number(w, "cpus", report->machine.cpus);
    number(w, "memory_bytes", report->machine.memory_bytes);
    object_close(w);
    object_open(w, "versions");
    string(w, "loadgen", report->loadgen_version);
    string(w, "gateway", report->gateway_version);
    string(w, "tls_library", report->tls_library);
    object_close(w);
}

enum err report_json(struct buffer *out, const struct report *report)
{
    struct writer writer = {.out = out, .first = true};
    struct writer *w = &writer;
    object_open(w, NULL);
    json_connections(w, report);
    json_memory(w, report);
    json_messages(w, report);
    object_open(w, "latency_ms");
    json_latency(w, "ack", &report->ack_ns);
    json_latency(w, "deliver", &report->deliver_ns);
    object_close(w);
    json_setting(w, report);
    key(w, "faults");
    put(w, "[");
    for (uint32_t i = 0; i < report->fault_count; i++) {
        put(w, "%s", i == 0 ? "" : ",");
        if (w->err == OK)
            w->err = json_text_put(out, bytes_of_text(report->faults[i]));
    }
    put(w, "]");
    string(w, "verdict", report->fault_count == 0 ? "pass" : "fail");
    object_close(w);
    put(w, "\n");
    return w->err;
}

/* ---- text */

static void text_latency(struct writer *w, const char *name, const struct histogram *histogram)
{
    if (histogram->count == 0) {
        put(w, "  %-22s not measured\n", name);
        return;
    }
    put(w, "  %-22s p50 %.2f  p95 %.2f  p99 %.2f  p99.9 %.2f  max %.2f ms\n", name,
        quantile_ms(histogram, 0.50), quantile_ms(histogram, 0.95), quantile_ms(histogram, 0.99),
        quantile_ms(histogram, 0.999), (double)histogram->max / NS_PER_MS_F);
}

static void text_figure(struct writer *w, const char *name, bool measured, double value)
{
    if (measured)
        put(w, "  %-22s %.0f bytes per connection\n", name, value);
    else
        put(w, "  %-22s not measured\n", name);
}

static void text_slabs(struct writer *w, const struct report *report)
{
    if (!has_kernel(report) || !report->baseline.has_slabs || !report->idle.has_slabs)
        return;
    put(w, "    of this pair's kernel objects (both ends, bytes per connection):\n     ");
    for (int i = 0; i < HOST_SLABS; i++) {
        double grown = per(report, report->baseline.slabs[i], report->idle.slabs[i]);
        if (grown >= 1)
            put(w, " %s %.0f", host_slab_names[i], grown);
    }
    put(w, "\n");
}

static void text_memory(struct writer *w, const struct report *report)
{
    bool user = has_user(report);
    bool kernel = has_kernel(report);
    put(w, "\nmemory per idle connection");
    if (!user && !kernel) {
        put(w, ": not measured (needs the gateway's process id)\n");
        return;
    }
    put(w, ", %" PRIu64 " connections held idle\n", report->memory_connections);
    text_figure(w, "gateway, user memory", user, user_bytes(report));
    text_figure(w, "kernel, server's end", kernel, kernel_bytes(report));
    text_figure(w, "together", user && kernel, user_bytes(report) + kernel_bytes(report));
    text_figure(
        w, "gateway, Pss", has_pss(report),
        has_pss(report) ? per(report, report->baseline.process_pss, report->idle.process_pss) : 0);
    if (user)
        put(w, "  %-22s %.1f MiB\n", "gateway at the start",
            (double)report->baseline.process_own / (double)(1u << 20));
    text_slabs(w, report);
    put(w, "  How: growth from just before the first connection to the end of the idle phase.\n"
           "  User: RssAnon + RssShmem of the gateway's /proc/PID/status; Pss counts the mapped\n"
           "  pages of the catalog's file too. Kernel: Slab of /proc/meminfo and the socket\n"
           "  buffers of /proc/net/sockstat, at least the objects named above. Other programs'\n"
           "  kernel memory is in it: thousands of connections on a quiet machine are needed.\n");
    if (report->options.local)
        put(w,
            "  Both ends of every connection live in this machine's kernel: half of the growth\n"
            "  is taken as the server's. The clients' local ports (tcp_bind_bucket) are in that\n"
            "  sum too, so the server's own share is, if anything, lower.\n");
}

static void text_head(struct writer *w, const struct report *report)
{
    put(w, "roost load report: %s\n\n", report->fault_count == 0 ? "PASS" : "FAIL");
    put(w, "machine                  %s, %" PRIu32 " CPUs, %.1f GiB\n", report->machine.cpu,
        report->machine.cpus, (double)report->machine.memory_bytes / (double)(1u << 30));
    put(w, "kernel                   %.90s\n", report->machine.kernel);
    put(w, "versions                 loadgen %s, gateway %s, TLS %s\n", report->loadgen_version,
        report->gateway_version[0] == '\0' ? "not known" : report->gateway_version,
        report->tls_library);
    put(w,
        "load                     %" PRIu32 " users, %" PRIu32 " connections from %" PRIu32
        " addresses, %.0f messages/s of %" PRIu32 " bytes for %.0f s, %s\n",
        report->options.users, report->options.connections, report->options.sources,
        report->options.rate, report->options.message_bytes, report->options.duration_s,
        report->options.encoding);
}

enum err report_text(struct buffer *out, const struct report *report)
{
    struct writer writer = {.out = out};
    struct writer *w = &writer;
    const struct oracle_counts *oracle = &report->oracle;
    text_head(w, report);
    put(w,
        "\nconnections              %" PRIu64 " of %" PRIu32 " established, %" PRIu64
        " failed, %" PRIu64 " broke, %s\n",
        report->established, report->options.connections, report->failed, report->dropped,
        report->tls[0] == '\0' ? "TLS version not known" : report->tls);
    if (report->has_connect && report->connect_s > 0)
        put(w,
            "  rate                   %.0f per second over %.1f s, %" PRIu32
            " handshakes in flight\n",
            (double)report->established / report->connect_s, report->connect_s,
            report->options.handshakes_max);
    text_latency(w, "connect to ready", &report->connect_ns);
    if (report->reconnects != 0)
        put(w, "  reconnected            %" PRIu64 " times, TLS resumed %" PRIu64 " times\n",
            report->reconnects, report->resumed_tls);
    text_memory(w, report);
    put(w,
        "\nmessages                 %" PRIu64 " sent, %" PRIu64 " acknowledged, %" PRIu64
        " delivered\n",
        report->sent, report->acked, report->delivered);
    text_latency(w, "acknowledged after", &report->ack_ns);
    text_latency(w, "delivered after", &report->deliver_ns);
    put(w, "  from the intended time of an open-loop schedule\n");
    put(w,
        "\noracle                   lost %" PRIu64 ", duplicated %" PRIu64 ", reordered %" PRIu64
        "\n",
        oracle->lost, oracle->duplicated, oracle->reordered);
    put(w,
        "  altered %" PRIu64 ", conflicting %" PRIu64 ", gaps %" PRIu64 ", unchecked %" PRIu64
        ", pushed again after a reconnect %" PRIu64 "\n",
        oracle->altered, oracle->conflicting, oracle->gaps, oracle->unchecked, oracle->redelivered);
    put(w, "\nverdict                  %s\n", report->fault_count == 0 ? "PASS" : "FAIL");
    for (uint32_t i = 0; i < report->fault_count; i++)
        put(w, "  - %s\n", report->faults[i]);
    return w->err;
}
