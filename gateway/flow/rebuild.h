/* rebuild.h: everything in the catalog but credentials and keys, made again from the log: `roost
 * store rebuild`.
 * Flow:       walk.h → replay.h, as at a start → conversations, inbox, pending; then the checkpoint
 * Owns:       the store's lock while it works: ERR_BUSY while a gateway runs
 * Invariants: the checkpoint is 0 from the first to the last transaction, so that a start after an
 *             interrupted rebuild replays everything; where the log is not whole (archives,
 *             retention, damage), no row is lowered: a number that was given is not given again
 * Failure:    *explanation is one line that says what to do
 * Bounds:     reads the log twice; memory as replay.h says; blocks */
#ifndef GATEWAY_FLOW_REBUILD_H
#define GATEWAY_FLOW_REBUILD_H

#include "store/inspect.h"

/* store_rebuild: compare: in a copy, which is then compared with the catalog row by row and
 * removed: ERR_CONFLICT if they differ. */
MUST_USE enum err store_rebuild(const char *data, const char *cold, bool compare,
                                const struct inspect_output *out,
                                char explanation[INSPECT_EXPLANATION_BYTES]);

#endif
