/* floor.h: the file "floor" beside the segments: what was below was freed by retention, so that
 * numbers before the oldest kept ones are not taken for damage.
 * Flow:       lifecycle.c writes it, durably, before whole files go; listing.c reads it
 * Failure:    ERR_CORRUPT: the file is damaged; ERR_NEWER
 * Format:     32 bytes, little-endian: 0 8 magic "ROOSTFLR", 8 2 version 1, 10 2 0, 12 4 segment
 *             id: everything below is gone, 16 12 zeros, 28 4 crc of the bytes before */
#ifndef STORE_FLOOR_H
#define STORE_FLOOR_H

#include "core/bytes.h"

/* floor_read: *floor = 0: there is no such file. Blocking. */
MUST_USE enum err floor_read(const char *directory, uint32_t *floor);
/* floor_write: written beside, synced, renamed, directory synced. Blocking. */
MUST_USE enum err floor_write(const char *directory, uint32_t floor);

#endif
