/* hash.c: SipHash-1-3 (Aumasson, Bernstein: "SipHash: a fast short-input PRF", with one compression
 * and three finalisation rounds) and CRC32C. */
#include "core/hash.h"

#include <isa-l/crc.h>

struct sip {
    uint64_t v0;
    uint64_t v1;
    uint64_t v2;
    uint64_t v3;
};

static inline uint64_t rotate_left(uint64_t v, int count)
{
    return v << count | v >> (64 - count);
}

static inline struct sip sip_start(const struct hash_key *key)
{
    return (struct sip){
        key->k0 ^ 0x736f6d6570736575u,
        key->k1 ^ 0x646f72616e646f6du,
        key->k0 ^ 0x6c7967656e657261u,
        key->k1 ^ 0x7465646279746573u,
    };
}

static inline void sip_round(struct sip *s)
{
    s->v0 += s->v1;
    s->v1 = rotate_left(s->v1, 13) ^ s->v0;
    s->v0 = rotate_left(s->v0, 32);
    s->v2 += s->v3;
    s->v3 = rotate_left(s->v3, 16) ^ s->v2;
    s->v0 += s->v3;
    s->v3 = rotate_left(s->v3, 21) ^ s->v0;
    s->v2 += s->v1;
    s->v1 = rotate_left(s->v1, 17) ^ s->v2;
    s->v2 = rotate_left(s->v2, 32);
}

static inline void sip_word(struct sip *s, uint64_t word)
{
    s->v3 ^= word;
    sip_round(s);
    s->v0 ^= word;
}

/* sip_finish: the last word has the low byte of the input's length on top. */
static inline uint64_t sip_finish(struct sip *s, uint64_t last_word)
{
    sip_word(s, last_word);
    s->v2 ^= 0xff;
    sip_round(s);
    sip_round(s);
    sip_round(s);
    return s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
}

uint64_t hash_bytes(const struct hash_key *key, struct bytes data)
{
    struct sip s = sip_start(key);
    size_t whole = data.size & ~(size_t)7;
    for (size_t i = 0; i < whole; i += 8)
        sip_word(&s, load_u64(data.data + i));
    uint64_t last = (uint64_t)data.size << 56;
    size_t rest = data.size - whole;
    if (rest != 0 && whole != 0)
        return sip_finish(&s, last | load_u64(data.data + data.size - 8) >> (64 - 8 * rest));
    for (size_t i = 0; i < rest; i++)
        last |= (uint64_t)data.data[i] << (8 * i);
    return sip_finish(&s, last);
}

uint64_t hash_u64(const struct hash_key *key, uint64_t v)
{
    struct sip s = sip_start(key);
    sip_word(&s, v);
    return sip_finish(&s, (uint64_t)8 << 56);
}

uint64_t hash_u128(const struct hash_key *key, uint64_t hi, uint64_t lo)
{
    struct sip s = sip_start(key);
    sip_word(&s, hi);
    sip_word(&s, lo);
    return sip_finish(&s, (uint64_t)16 << 56);
}

/* ISA-L's function is the bare shift register: it neither presets nor inverts, and counts in int.
 */
uint32_t crc32c(uint32_t seed, struct bytes data)
{
    const size_t step_max = (size_t)1 << 30;
    uint32_t state = ~seed;
    while (data.size != 0) {
        size_t step = data.size < step_max ? data.size : step_max;
        /* through uintptr_t: the library's prototype lacks the const that its code keeps */
        state = crc32_iscsi((unsigned char *)(uintptr_t)data.data, (int)step, state);
        data = bytes_skip(data, step);
    }
    return ~state;
}
