/* rebuild.h: everything in the catalog but credentials and keys, made again from the log: `roost
 * store rebuild`.
 * Flow:       walk.h → replay.h, in a copy: the watermarks, then everything → conversations, inbox,
 *             pending; then the checkpoint; then the copy takes the catalog's place
 * Owns:       the store's lock while it works: ERR_BUSY while a gateway runs
 * Invariants: the catalog is the old one or the new one, whenever it is interrupted; of what was
 *             merged, dropped or freed the archives' states tell; where the log is damaged no row
 *             is lowered: a number that was given is not given again
 * Failure:    *explanation is one line that says what to do
 * Bounds:     reads the log three times; memory as replay.h says; the catalog's size again on disk;
 *             blocks */
#ifndef GATEWAY_FLOW_REBUILD_H
#define GATEWAY_FLOW_REBUILD_H

#include "store/inspect.h"

/* store_rebuild: compare: the copy is compared with the catalog row by row and removed:
 * ERR_CONFLICT if they differ. */
MUST_USE enum err store_rebuild(const char *data, const char *cold, bool compare,
                                const struct inspect_output *out,
                                char explanation[INSPECT_EXPLANATION_BYTES]);

#endif
