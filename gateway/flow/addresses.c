/* addresses.c: open addressing without deletion marks: all ADDRESSES_PROBES cells from an address's
 * own place on are always looked at, so a cell that becomes free needs no mark. Two threads may
 * give one address two cells; their counts are added up, and both become free again. */
#include "gateway/flow/addresses.h"

#include "core/memory.h"

#define COUNT_BITS 24
#define COUNT_MASK ((1ull << COUNT_BITS) - 1)
#define CELLS_MIN  1024ull
#define CELLS_MAX  (1ull << COUNT_BITS)
#define TRIES_MAX  1000000 /* each means that another thread got on: only a bug takes so many */

struct place {
    uint64_t at;
    uint64_t print; /* of a cell, shifted into its place */
};

static struct place place_of(const struct addresses *addresses, const struct io_address *peer)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    bool v4 = memcmp(peer->ip, mapped, sizeof mapped) == 0;
    uint64_t hash = hash_bytes(&addresses->key, bytes_of(peer->ip, v4 ? sizeof peer->ip : 8));
    return (struct place){hash & addresses->mask, hash & ~COUNT_MASK};
}

static _Atomic uint64_t *cell_at(struct addresses *addresses, struct place place, uint32_t i)
{
    return &addresses->cells[(place.at + i) & addresses->mask];
}

enum err addresses_init(struct addresses *addresses, uint64_t sockets_max,
                        const struct hash_key *key)
{
    uint64_t cells = CELLS_MIN;
    while (cells < 2 * sockets_max && cells < CELLS_MAX)
        cells *= 2;
    addresses->cells = memory_take_zeroed(cells * sizeof *addresses->cells, MEMORY_CORE);
    addresses->mask = cells - 1;
    addresses->key = *key;
    return addresses->cells == NULL ? ERR_NO_MEMORY : OK;
}

void addresses_deinit(struct addresses *addresses)
{
    memory_give((void *)(uintptr_t)addresses->cells, MEMORY_CORE);
    addresses->cells = NULL;
}

/* look: the counts of an address; *cell one that it has (then *value is not 0), or a free one. */
static uint64_t look(struct addresses *addresses, struct place place, _Atomic uint64_t **cell,
                     uint64_t *value)
{
    uint64_t sum = 0;
    *cell = NULL;
    *value = 0;
    for (uint32_t i = 0; i < ADDRESSES_PROBES; i++) {
        _Atomic uint64_t *one = cell_at(addresses, place, i);
        uint64_t v = atomic_load_explicit(one, memory_order_relaxed);
        if (v != 0 && (v & ~COUNT_MASK) == place.print) {
            sum += v & COUNT_MASK;
            *cell = one;
            *value = v;
        } else if (v == 0 && *cell == NULL) {
            *cell = one;
        }
    }
    return sum;
}

enum err addresses_count(struct addresses *addresses, const struct io_address *peer, uint32_t limit)
{
    struct place place = place_of(addresses, peer);
    for (int tries = 0;; tries++) {
        _Atomic uint64_t *cell;
        uint64_t value;
        CHECK(tries < TRIES_MAX);
        if (look(addresses, place, &cell, &value) >= limit || cell == NULL)
            return ERR_FULL;
        uint64_t next = value == 0 ? (place.print | 1) : value + 1;
        if (atomic_compare_exchange_strong_explicit(cell, &value, next, memory_order_relaxed,
                                                    memory_order_relaxed))
            return OK;
    }
}

void addresses_uncount(struct addresses *addresses, const struct io_address *peer)
{
    struct place place = place_of(addresses, peer);
    for (int tries = 0;; tries++) {
        _Atomic uint64_t *cell;
        uint64_t value;
        CHECK(tries < TRIES_MAX);
        if (look(addresses, place, &cell, &value) == 0)
            continue; /* it is on its way from one cell to another */
        uint64_t next = (value & COUNT_MASK) == 1 ? 0 : value - 1;
        if (atomic_compare_exchange_strong_explicit(cell, &value, next, memory_order_relaxed,
                                                    memory_order_relaxed))
            return;
    }
}
