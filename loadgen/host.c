/* host.c: see host.h. Every file is read whole and searched line by line for "name value". */
#include "loadgen/host.h"

#include "core/file.h"
#include "core/memory.h"
#include "core/text.h"

#include <stdio.h>

#define FILE_BYTES_MAX (512 * 1024) /* /proc/cpuinfo of a large machine */
#define PAGE_BYTES     4096

const char *const host_slab_names[HOST_SLABS] = {
    "TCP",    "TCPv6",           "sock_inode_cache", "filp",
    "dentry", "lsm_inode_cache", "tcp_bind_bucket",  "tcp_bind2_bucket",
};

struct text {
    uint8_t *data;
    struct bytes rest;
};

static bool text_open(struct text *text, const char *path)
{
    int fd;
    size_t done = 0;
    *text = (struct text){0};
    if (file_open(&fd, path, FILE_READ) != OK)
        return false;
    text->data = memory_take(FILE_BYTES_MAX, MEMORY_CORE);
    bool whole = text->data != NULL && file_read(fd, 0, text->data, FILE_BYTES_MAX, &done) == OK;
    file_close(fd);
    text->rest = bytes_of(text->data, whole ? done : 0);
    return whole && done != 0;
}

static void text_close(struct text *text)
{
    memory_give(text->data, MEMORY_CORE);
}

static bool line_next(struct bytes *rest, struct bytes *line)
{
    if (rest->size == 0)
        return false;
    const uint8_t *end = memchr(rest->data, '\n', rest->size);
    size_t size = end == NULL ? rest->size : (size_t)(end - rest->data);
    *line = bytes_of(rest->data, size);
    *rest = bytes_skip(*rest, end == NULL ? size : size + 1);
    return true;
}

/* word_next: the next word of a line; {NULL, 0} at its end. */
static struct bytes word_next(struct bytes *line)
{
    while (line->size != 0 && (line->data[0] == ' ' || line->data[0] == '\t'))
        *line = bytes_skip(*line, 1);
    size_t size = 0;
    while (size < line->size && line->data[size] != ' ' && line->data[size] != '\t')
        size++;
    struct bytes word = bytes_of(line->data, size);
    *line = bytes_skip(*line, size);
    return word;
}

/* line_find: what follows `name` in the line that begins with it. */
static bool line_find(const struct text *text, const char *name, struct bytes *out)
{
    struct bytes rest = text->rest;
    struct bytes line;
    size_t size = strlen(name);
    while (line_next(&rest, &line))
        if (line.size >= size && memcmp(line.data, name, size) == 0) {
            *out = bytes_skip(line, size);
            return true;
        }
    return false;
}

static bool number_find(const struct text *text, const char *name, uint64_t *out)
{
    struct bytes line;
    return line_find(text, name, &line) && decimal_parse(out, word_next(&line)) == OK;
}

static bool kib_find(const struct text *text, const char *name, uint64_t *bytes)
{
    if (!number_find(text, name, bytes))
        return false;
    *bytes *= 1024;
    return true;
}

static void text_copy(char out[HOST_TEXT_BYTES], struct bytes source)
{
    (void)snprintf(out, HOST_TEXT_BYTES, "%.*s", (int)source.size, (const char *)source.data);
}

void host_machine_read(struct host_machine *out)
{
    struct text text;
    struct bytes line;
    *out = (struct host_machine){0};
    if (text_open(&text, "/proc/version") && line_next(&text.rest, &line))
        text_copy(out->kernel, line);
    text_close(&text);
    if (text_open(&text, "/proc/cpuinfo")) {
        struct bytes rest = text.rest;
        if (line_find(&text, "model name", &line)) {
            (void)word_next(&line); /* ":" */
            text_copy(out->cpu, line.size == 0 ? line : bytes_skip(line, 1));
        }
        while (line_next(&rest, &line))
            if (line.size >= 9 && memcmp(line.data, "processor", 9) == 0)
                out->cpus++;
    }
    text_close(&text);
    if (text_open(&text, "/proc/meminfo"))
        (void)kib_find(&text, "MemTotal:", &out->memory_bytes);
    text_close(&text);
}

void host_limits_read(struct host_limits *out)
{
    struct text text;
    struct bytes line;
    uint64_t first;
    uint64_t last;
    *out = (struct host_limits){0};
    if (text_open(&text, "/proc/self/limits"))
        (void)number_find(&text, "Max open files", &out->descriptors);
    text_close(&text);
    if (text_open(&text, "/proc/meminfo"))
        (void)kib_find(&text, "MemAvailable:", &out->memory_available);
    text_close(&text);
    if (text_open(&text, "/proc/sys/net/ipv4/ip_local_port_range") &&
        line_next(&text.rest, &line) && decimal_parse(&first, word_next(&line)) == OK &&
        decimal_parse(&last, word_next(&line)) == OK) {
        out->port_first = (uint32_t)first;
        out->port_last = (uint32_t)last;
    }
    text_close(&text);
}

static void process_read(struct host_sample *out, uint32_t pid)
{
    char path[64];
    struct text text;
    uint64_t anonymous;
    uint64_t shared;
    (void)snprintf(path, sizeof path, "/proc/%u/status", pid);
    if (text_open(&text, path) && kib_find(&text, "RssAnon:", &anonymous) &&
        kib_find(&text, "RssShmem:", &shared)) {
        out->process_own = anonymous + shared;
        out->has_process = true;
    }
    text_close(&text);
    (void)snprintf(path, sizeof path, "/proc/%u/smaps_rollup", pid);
    out->has_pss = text_open(&text, path) && kib_find(&text, "Pss:", &out->process_pss);
    text_close(&text);
}

/* slabs_read: rows "name active_objs num_objs objsize …"; live objects times their size. */
static void slabs_read(struct host_sample *out)
{
    struct text text;
    struct bytes line;
    if (text_open(&text, "/proc/slabinfo")) {
        out->has_slabs = true;
        while (line_next(&text.rest, &line)) {
            struct bytes name = word_next(&line);
            uint64_t active;
            uint64_t size;
            if (decimal_parse(&active, word_next(&line)) != OK)
                continue;
            (void)word_next(&line);
            if (decimal_parse(&size, word_next(&line)) != OK)
                continue;
            for (int i = 0; i < HOST_SLABS; i++)
                if (bytes_equal(name, bytes_of_text(host_slab_names[i])))
                    out->slabs[i] = active * size;
        }
    }
    text_close(&text);
}

static bool tcp_read(uint64_t *bytes)
{
    struct text text;
    struct bytes line;
    bool found = false;
    if (text_open(&text, "/proc/net/sockstat") && line_find(&text, "TCP:", &line))
        for (struct bytes word; (word = word_next(&line)).size != 0 && !found;)
            if (bytes_equal(word, bytes_of_text("mem")))
                found = decimal_parse(bytes, word_next(&line)) == OK;
    text_close(&text);
    *bytes *= PAGE_BYTES;
    return found;
}

void host_sample_read(struct host_sample *out, uint32_t pid)
{
    struct text text;
    *out = (struct host_sample){0};
    if (pid != 0)
        process_read(out, pid);
    bool slab = text_open(&text, "/proc/meminfo") && kib_find(&text, "Slab:", &out->kernel_slab);
    text_close(&text);
    out->has_kernel = tcp_read(&out->kernel_tcp) && slab;
    slabs_read(out);
}
