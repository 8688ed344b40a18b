/* retention.h: what the merge asks the catalog about a conversation: its own retention, and up to
 * where every device of every member has everything.
 * Flow:       store/merge.c and store/look.c on a DISK worker → here → catalog (one read
 *             transaction per portion)
 * Invariants: conservative: the catalog lags behind by a checkpoint, so that delivered is never
 *             told too high; a device that is logged in and has no cursor has nothing, if none of
 *             its user's devices has one; a user without devices has nothing
 * Failure:    a row that cannot be read: nothing counts as delivered
 * Bounds:     ROW_CURSORS_MAX devices per user */
#ifndef GATEWAY_FLOW_RETENTION_H
#define GATEWAY_FLOW_RETENTION_H

#include "gateway/config.h"
#include "store/catalog.h"
#include "store/log.h"

/* retention_fill: settings, and the look at the catalog, which must outlive the log. */
void retention_fill(struct retention *retention, const struct config *config,
                    struct catalog *catalog);

#endif
