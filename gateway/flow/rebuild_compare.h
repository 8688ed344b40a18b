/* rebuild_compare.h: what a rebuilt catalog and the one in use have in common, row by row.
 * Flow:       rebuild.c: its rows of watermarks alone → compare_marks; all of them → compare_all
 * Owns:       nothing; a transaction of each catalog while it works
 * Failure:    ERR_CONFLICT they differ; the catalog's own
 * Bounds:     two conversations' rows */
#ifndef GATEWAY_FLOW_REBUILD_COMPARE_H
#define GATEWAY_FLOW_REBUILD_COMPARE_H

#include "gateway/chat/rows.h"
#include "store/inspect.h"

/* How a row of the catalog stands to the rebuilt one. All must be the same; a device's cursor
 * stands where the log says if that is between its newest watermark and the last of its own
 * messages that follow: whether those were counted already depends on what came first, on two
 * shards. Where the log knows less (of watermarks that a crash took, after the catalog had them),
 * something would be delivered again; it must never know more. */
enum likeness { ROW_SAME, ROW_AGAIN, ROW_DIFFERENT, ROW_LIKENESSES };

struct compare {
    struct catalog *beside; /* the original */
    const struct inspect_output *out;
    bool sizes_known; /* no message was dropped: what was counted behind a setting is exact */
    /* private */
    struct catalog_txn *rebuilt;
    struct catalog_txn *original;
    size_t table;
    uint64_t rows;
    uint64_t counts[ROW_LIKENESSES];
    struct conversation_row a;
    struct conversation_row b;
};

#define REBUILD_KEY_BYTES_MAX 64
/* rebuild_tables: what is made from the log; pending ones come last. */
#define REBUILD_TABLES 4u
extern const enum catalog_table rebuild_tables[REBUILD_TABLES];

MUST_USE enum err compare_marks(struct compare *compare, struct catalog *rebuilt);
/* compare_all: prints what differs, and the counts. */
MUST_USE enum err compare_all(struct compare *compare, struct catalog *rebuilt);

#endif
