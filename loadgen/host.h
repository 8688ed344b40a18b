/* host.h: what the kernel says about this machine and a process, from /proc, for checks before a
 * run and for memory measured in it.
 * Flow:       main → here → core/file.h
 * Owns:       nothing
 * Failure:    what cannot be read is marked as not measured, never guessed
 * Standard:   proc(5); slabinfo is readable by root only: its rows are then absent */
#ifndef LOADGEN_HOST_H
#define LOADGEN_HOST_H

#include "core/bytes.h"

#define HOST_TEXT_BYTES 160
#define HOST_SLABS      8

/* host_slab_names: kernel objects that belong to a socket, HOST_SLABS of them. */
extern const char *const host_slab_names[HOST_SLABS];

struct host_machine {
    char kernel[HOST_TEXT_BYTES];
    char cpu[HOST_TEXT_BYTES];
    uint32_t cpus;
    uint64_t memory_bytes;
};

struct host_limits {
    uint64_t descriptors;      /* soft RLIMIT_NOFILE; 0: not readable */
    uint64_t memory_available; /* bytes; 0: not readable */
    uint32_t port_first;       /* ip_local_port_range; 0: not readable */
    uint32_t port_last;
};

struct host_sample {
    bool has_process;
    bool has_pss;
    bool has_kernel;
    bool has_slabs;
    uint64_t process_own;       /* RssAnon + RssShmem: memory of the process alone */
    uint64_t process_pss;       /* proportional share of everything mapped, files included */
    uint64_t kernel_slab;       /* Slab of /proc/meminfo */
    uint64_t kernel_tcp;        /* socket buffers: mem of /proc/net/sockstat */
    uint64_t slabs[HOST_SLABS]; /* bytes of live objects */
};

void host_machine_read(struct host_machine *out);
void host_limits_read(struct host_limits *out);
/* host_sample_read: pid 0: the kernel's part alone. */
void host_sample_read(struct host_sample *out, uint32_t pid);

#endif
