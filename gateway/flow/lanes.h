/* lanes.h: which lanes a store's log has, and where they are.
 * Flow:       lane_open.c (a start), snapshot.c and rebuild.c (tools) → here
 * Invariants: a conversation's lane never changes: how many there are is settled when a store is
 *             made; their directories may move between starts
 * Bounds:     LANES_MAX */
#ifndef GATEWAY_FLOW_LANES_H
#define GATEWAY_FLOW_LANES_H

#include "gateway/config.h"
#include "gateway/flow/limits.h"
#include "store/catalog.h"
#include "store/ids.h"

#define LANE_PATH_BYTES (CONFIG_TEXT_BYTES + 16)

/* lane_of: in a store with that many. */
uint32_t lane_of(struct conversation_id conversation, uint32_t lanes);
/* lanes_count: with `further` (config.lane_directories) beside the first one. */
uint32_t lanes_count(const char *further);
/* lanes_directory: of the at-th lane: DATA/log, or the at-th of `further`. */
void lanes_directory(char out[LANE_PATH_BYTES], const char *data, const char *further, uint32_t at);
/* lanes_cold_directory: each but the first has a directory of its own in COLD; "" if cold is "" or
 * NULL. */
void lanes_cold_directory(char out[LANE_PATH_BYTES], const char *cold, uint32_t at);

/* lanes_write, lanes_read: `further` of the newest start, for tools, which have no configuration.
 * CATALOG_META "lane_directories": the text; absent: there is one lane. */
MUST_USE enum err lanes_write(struct catalog *catalog, const char *further);
MUST_USE enum err lanes_read(struct catalog *catalog, char further[CONFIG_TEXT_BYTES]);

#endif
