/* budget.h: what an idle connection costs this process, line by line.
 * Flow:       main → budget_connection_bytes (max_connections is a promise) → metric, warning
 * Owns:       nothing
 * Invariants: a connection that is idle (authenticated, nothing in motion) holds what the table
 *             says and nothing else: no send or receive buffer, no parser, no handshake state
 * Failure:    none
 * Bounds:     the kernel's share (socket, descriptor, poll), BUDGET_KERNEL_BYTES, is on top */
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
