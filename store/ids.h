/* ids.h: the ids that the store knows; one-member structs so that two kinds cannot be swapped. */
#ifndef STORE_IDS_H
#define STORE_IDS_H

#include "core/bytes.h"

struct realm_id {
    uint32_t v; /* tenant; 0 is the default realm */
};

struct user_id {
    uint64_t v; /* 1 … 2^63-1, random, unique over all realms; 0: none */
};

struct device_id {
    uint32_t v; /* number within the user, from 1; 0: none */
};

/* A direct conversation's id is its two members' user ids, lower first: canonical, no look-up. hi's
 * top bit marks a group. */
struct conversation_id {
    uint64_t hi;
    uint64_t lo;
};

struct message_id {
    uint8_t v[16]; /* UUIDv7, made by the client */
};

/* message_id_given: the all-zero id is none and is not looked up. */
static inline bool message_id_given(struct message_id id)
{
    return load_u64(id.v) != 0 || load_u64(id.v + 8) != 0;
}

static inline bool conversation_id_equal(struct conversation_id a, struct conversation_id b)
{
    return a.hi == b.hi && a.lo == b.lo;
}

static inline struct conversation_id conversation_id_direct(struct user_id a, struct user_id b)
{
    return a.v < b.v ? (struct conversation_id){a.v, b.v} : (struct conversation_id){b.v, a.v};
}

static inline bool conversation_id_is_direct(struct conversation_id id)
{
    return id.hi != 0 && (id.hi >> 63) == 0 && id.hi <= id.lo && (id.lo >> 63) == 0;
}

static inline bool conversation_id_has(struct conversation_id id, struct user_id user)
{
    return id.hi == user.v || id.lo == user.v;
}

/* Bytes on wire and disk: hi then lo, each big-endian, so that text order is id order. */
static inline void conversation_id_encode(uint8_t out[16], struct conversation_id id)
{
    uint64_t hi = __builtin_bswap64(id.hi);
    uint64_t lo = __builtin_bswap64(id.lo);
    memcpy(out, &hi, 8);
    memcpy(out + 8, &lo, 8);
}

static inline struct conversation_id conversation_id_decode(const uint8_t in[16])
{
    return (struct conversation_id){__builtin_bswap64(load_u64(in)),
                                    __builtin_bswap64(load_u64(in + 8))};
}

#endif
