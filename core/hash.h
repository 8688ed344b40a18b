/* hash.h: SipHash-1-3 keyed hash (placement, tables), CRC32C (RFC 3720 B.4 polynomial) for formats.
 */
#ifndef CORE_HASH_H
#define CORE_HASH_H

#include "core/bytes.h"

struct hash_key {
    uint64_t k0;
    uint64_t k1;
};

uint64_t hash_bytes(const struct hash_key *key, struct bytes data);
uint64_t hash_u64(const struct hash_key *key, uint64_t v);
uint64_t hash_u128(const struct hash_key *key, uint64_t hi, uint64_t lo);
/* crc32c: continue `seed` (0 to begin) over data; ISA-L underneath. */
uint32_t crc32c(uint32_t seed, struct bytes data);

#endif
