/* addresses.h: how many connections of each address have not upgraded yet, over all shards.
 * Flow:       listener (accept, PROXY header) → addresses_count; connection → addresses_uncount
 * Owns:       one table, shared by all shards, of atomic cells: no lock, a few compare-and-swaps
 *             per connection and none per message
 * Invariants: the counts of an address, over its cells, sum up to the connections that are
 *             counted; an address is its IPv4 address, or the /64 of its IPv6 address, since who
 *             has one of these has all of it
 * Failure:    addresses_count: ERR_FULL over the limit
 * Bounds:     two cells of 8 bytes per socket that the process has room for; ADDRESSES_PROBES
 *             cells are looked at. The table is at most half full, so that none of them is free
 *             has odds of 2^-32; then the connection is refused. Two addresses are taken for one
 *             with odds of 2^-40 per pair that meets; nobody can aim, the hash is keyed */
#ifndef GATEWAY_FLOW_ADDRESSES_H
#define GATEWAY_FLOW_ADDRESSES_H

#include "core/hash.h"
#include "core/io.h"

#include <stdatomic.h>

#define ADDRESSES_PROBES 32

struct addresses {
    /* private */
    _Atomic uint64_t *cells; /* 0: free; else 40 bits of the address's hash, 24 bits of count */
    uint64_t mask;
    struct hash_key key;
};

/* addresses_init: room for the addresses of so many sockets. ERR_NO_MEMORY. */
MUST_USE enum err addresses_init(struct addresses *addresses, uint64_t sockets_max,
                                 const struct hash_key *key);
void addresses_deinit(struct addresses *addresses);
/* addresses_count, addresses_uncount: any thread. limit: at most so many of one address; two
 * threads that count a new address in the same instant may pass it by one. */
MUST_USE enum err addresses_count(struct addresses *addresses, const struct io_address *peer,
                                  uint32_t limit);
void addresses_uncount(struct addresses *addresses, const struct io_address *peer);

#endif
