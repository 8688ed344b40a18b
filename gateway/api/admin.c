/* admin.c: what the operator asks on the admin listener. The metrics' text is built on a worker:
 * it is long, and the process's own figures come from a file. */
#include "gateway/api/rest.h"

#include "core/file.h"
#include "core/memory.h"
#include "core/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#define METRICS_BYTES_MIN (256u << 10)
#define METRICS_BYTES_MAX (8u << 20)
#define METRICS_TYPE      "text/plain; version=0.0.4; charset=utf-8"

void handle_ready(const struct api *api, struct shard *shard, const struct exchange *exchange,
                  const struct reply *reply)
{
    char reason[256] = "not ready";
    (void)exchange;
    bool ready = api->options.ready(api->options.context, shard, reason, sizeof reason - 1);
    if (ready)
        snprintf(reason, sizeof reason, "ready");
    size_t size = strnlen(reason, sizeof reason - 1);
    reason[size++] = '\n';
    rest_respond(shard, reply, ready ? 200 : 503, "text/plain; charset=utf-8",
                 ready ? "Cache-Control: no-store\r\n"
                       : "Cache-Control: no-store\r\nRetry-After: 1\r\n",
                 bytes_of(reason, size));
}

/* ---- metrics */

struct metrics_job {
    struct worker_job job;
    const struct api *api;
    struct reply reply;
    enum err err;
    struct buffer out;
};

static enum err put_format(struct buffer *out, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static enum err put_format(struct buffer *out, const char *format, ...)
{
    char line[256];
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (size < 0 || (size_t)size >= sizeof line)
        return ERR_FULL;
    return buffer_append(out, bytes_of(line, (size_t)size));
}

/* resident_bytes: the second number of /proc/self/statm, in pages (proc(5)). */
static enum err resident_bytes(uint64_t *out)
{
    uint8_t text[128];
    size_t size = 0;
    int fd;
    TRY(file_open(&fd, "/proc/self/statm", FILE_READ));
    enum err err = file_read(fd, 0, text, sizeof text, &size);
    file_close(fd);
    TRY(err);
    const uint8_t *first = memchr(text, ' ', size);
    if (first == NULL)
        return ERR_INVALID;
    struct bytes rest = bytes_skip(bytes_of(text, size), (size_t)(first - text) + 1);
    const uint8_t *second = memchr(rest.data, ' ', rest.size);
    if (second == NULL)
        return ERR_INVALID;
    uint64_t pages;
    TRY(decimal_parse(&pages, bytes_of(rest.data, (size_t)(second - rest.data))));
    *out = pages * (uint64_t)sysconf(_SC_PAGESIZE);
    return OK;
}

static enum err metrics_text(struct buffer *out, const struct api *api)
{
    uint64_t resident;
    TRY(metrics_render(out, api->options.metrics, api->options.metrics_count));
    TRY(put_format(out, "# HELP roost_build_info The running version.\n"
                        "# TYPE roost_build_info gauge\n"
                        "roost_build_info{version=\"" ROOST_VERSION "\"} 1\n"
                        "# HELP roost_shards Threads that serve connections.\n"
                        "# TYPE roost_shards gauge\n"));
    TRY(put_format(out, "roost_shards %u\n", api->options.shard_count));
    TRY(put_format(out, "# HELP roost_memory_bytes Memory in use, by purpose.\n"
                        "# TYPE roost_memory_bytes gauge\n"));
    for (enum memory_purpose p = 0; p < MEMORY_PURPOSE_COUNT; p++)
        TRY(put_format(out, "roost_memory_bytes{purpose=\"%s\"} %lld\n", memory_purpose_name(p),
                       (long long)memory_bytes(p)));
    TRY(put_format(out,
                   "# HELP roost_catalog_used_bytes Of store.catalog_map_size, what was used.\n"
                   "# TYPE roost_catalog_used_bytes gauge\n"
                   "roost_catalog_used_bytes %llu\n",
                   (unsigned long long)catalog_used_bytes(api->options.catalog)));
    if (resident_bytes(&resident) != OK) /* no /proc here: the figure is left out */
        return OK;
    return put_format(out,
                      "# HELP process_resident_memory_bytes Resident memory size in bytes.\n"
                      "# TYPE process_resident_memory_bytes gauge\n"
                      "process_resident_memory_bytes %llu\n",
                      (unsigned long long)resident);
}

static void run_metrics(struct worker_job *worker_job)
{
    struct metrics_job *job = CONTAINER_OF(worker_job, struct metrics_job, job);
    for (size_t size = METRICS_BYTES_MIN; size <= METRICS_BYTES_MAX; size *= 2) {
        uint8_t *data = memory_resize(job->out.data, size, MEMORY_API);
        if (data == NULL) {
            job->err = ERR_NO_MEMORY;
            return;
        }
        job->out = buffer_of(data, size);
        job->err = metrics_text(&job->out, job->api);
        if (job->err != ERR_FULL)
            return;
    }
}

static void on_metrics(struct worker_job *worker_job, void *shard)
{
    struct metrics_job *job = CONTAINER_OF(worker_job, struct metrics_job, job);
    if (job->err == OK)
        rest_respond(shard, &job->reply, 200, METRICS_TYPE, "Cache-Control: no-store\r\n",
                     buffer_bytes(&job->out));
    else
        rest_fail(shard, &job->reply, rest_error_of(job->err));
    memory_give(job->out.data, MEMORY_API);
    memory_give(job, MEMORY_API);
}

void handle_metrics(const struct api *api, struct shard *shard, const struct exchange *exchange,
                    const struct reply *reply)
{
    (void)exchange;
    struct metrics_job *job = memory_take_zeroed(sizeof *job, MEMORY_API);
    enum err err = ERR_NO_MEMORY;
    if (job != NULL) {
        job->api = api;
        job->reply = *reply;
        job->job.run = run_metrics;
        job->job.done = on_metrics;
        err =
            worker_submit(api->options.workers, &job->job, WORKER_CATALOG_READ, shard_index(shard));
    }
    if (err == OK)
        return;
    memory_give(job, MEMORY_API);
    rest_fail(shard, reply, rest_error_of(err));
}
