/* snapshot.h: back-up of a whole store and its return: `roost store snapshot` and `store restore`.
 * Flow:       catalog (hot copy), then log (store/snapshot.h) → directory with a manifest → copies
 *             of all → a store with an epoch of its own
 * Owns:       nothing beyond the call; a snapshot takes no lock and needs no word to the gateway
 * Invariants: the catalog's checkpoint stands at or before the end of the copied log; a directory
 *             without a manifest is no snapshot; a restored store never has the epoch of another
 * Failure:    *explanation is one line that says what to do
 * Bounds:     blocks: command line only
 * Format:     the manifest, in snapshot.c */
#ifndef GATEWAY_FLOW_SNAPSHOT_H
#define GATEWAY_FLOW_SNAPSHOT_H

#include "store/inspect.h"
#include "store/snapshot.h"

struct snapshot_options {
    const char *cold; /* snapshot: store.cold_directory, or NULL */
    uint64_t now_ms;
    void (*entropy)(void *context, void *out, size_t size); /* restore: for the new secrets */
    bool accept_damage; /* restore: damage that the snapshot has is no reason to refuse */
    const struct inspect_output *out;
};

/* store_snapshot: data is a store's directory, in use or not; target must not exist. */
MUST_USE enum err store_snapshot(const char *data, const char *target,
                                 const struct snapshot_options *options,
                                 char explanation[INSPECT_EXPLANATION_BYTES]);

/* store_restore: target must not exist, or be empty. It appears complete or not at all. */
MUST_USE enum err store_restore(const char *snapshot, const char *target,
                                const struct snapshot_options *options,
                                char explanation[INSPECT_EXPLANATION_BYTES]);

#endif
