/* budget.h: what an idle connection costs this process, line by line.
 * Flow:       main → budget_connection_bytes (the promise of max_connections) → metric, warning at
 * start Invariants: a connection that is idle (authenticated, nothing in motion) holds what the
 * table says and nothing else: no receive or send buffer, no parser, no handshake state Bounds: the
 * kernel's share (socket, descriptor, poll) is BUDGET_KERNEL_BYTES on top */
#ifndef GATEWAY_FLOW_BUDGET_H
#define GATEWAY_FLOW_BUDGET_H

#include <stddef.h>
#include <stdint.h>

#define BUDGET_KERNEL_BYTES 4300 /* TCP, inode, file, dentry, LSM, poll: bench/results */

struct budget_line {
    const char *what;
    size_t bytes;
};

/* budget_lines: the table; *count lines. */
const struct budget_line *budget_lines(size_t *count);
size_t budget_connection_bytes(void);

#endif
