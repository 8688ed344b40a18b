/* budget.c: see budget.h. Every per-connection byte of user memory has a line here. */
#include "gateway/flow/budget.h"

#include "gateway/flow/session.h"
#include "gateway/flow/shard.h"

#define HANDLE_BYTES 8 /* generation and free link of a pool's object */
#define IO_SLOT_BYTES                                                                              \
    40 /* core/io_uring.h: struct conn, twice as many as slots, untouched ones cost nothing */
#define TLS_IDLE_BYTES                                                                             \
    2688 /* BoringSSL's SSL after the handshake, by allocator size classes (bench_wire) */

static const struct budget_line lines[] = {
    {"struct connection: state, peer, timer", sizeof(struct connection) + HANDLE_BYTES},
    {"struct session: cursors' heads, credit, token", sizeof(struct session) + HANDLE_BYTES},
    {"struct inbox: the user's devices and entries", sizeof(struct inbox)},
    {"the user's device list", 16},
    {"cell of the table of users, at most half full", 2 * TABLE_CELL_BYTES},
    {"slot of the io's table", IO_SLOT_BYTES},
    {"TLS: traffic keys, session, read and write state", TLS_IDLE_BYTES},
};

const struct budget_line *budget_lines(size_t *count)
{
    *count = COUNT_OF(lines);
    return lines;
}

size_t budget_connection_bytes(void)
{
    size_t sum = 0;
    for (size_t i = 0; i < COUNT_OF(lines); i++)
        sum += lines[i].bytes;
    return sum;
}
