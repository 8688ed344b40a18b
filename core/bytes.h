/* bytes.h: borrowed byte ranges, appendable buffers, and bounded little-endian cursors.
 * Owns:       nothing; a buffer's memory belongs to whoever initialised it
 * Invariants: buffer: size ≤ capacity; a reader that failed once fails for ever (check at the end)
 * Failure:    ERR_FULL from appends that do not fit: nothing is appended then */
#ifndef CORE_BYTES_H
#define CORE_BYTES_H

#include "core/err.h"

#include <string.h>

struct bytes {
    const uint8_t *data;
    size_t size;
};

struct buffer {
    uint8_t *data;
    size_t size;     /* bytes in use */
    size_t capacity; /* bytes; never grows by itself */
};

static inline struct bytes bytes_of(const void *data, size_t size)
{
    return (struct bytes){data, size};
}

static inline struct bytes bytes_of_text(const char *text)
{
    return (struct bytes){(const uint8_t *)text, strlen(text)};
}

static inline bool bytes_equal(struct bytes a, struct bytes b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

/* bytes_skip: the rest after the first count bytes; count ≤ size. */
static inline struct bytes bytes_skip(struct bytes b, size_t count)
{
    CHECK(count <= b.size);
    return (struct bytes){b.data + count, b.size - count};
}

static inline struct buffer buffer_of(void *data, size_t capacity)
{
    return (struct buffer){data, 0, capacity};
}

static inline struct bytes buffer_bytes(const struct buffer *b)
{
    return (struct bytes){b->data, b->size};
}

static inline size_t buffer_room(const struct buffer *b)
{
    return b->capacity - b->size;
}

static inline MUST_USE enum err buffer_append(struct buffer *b, struct bytes source)
{
    if (source.size > b->capacity - b->size)
        return ERR_FULL;
    if (source.size != 0)
        memcpy(b->data + b->size, source.data, source.size);
    b->size += source.size;
    return OK;
}

static inline void store_u16(uint8_t *p, uint16_t v)
{
    memcpy(p, &v, sizeof v);
}
static inline void store_u32(uint8_t *p, uint32_t v)
{
    memcpy(p, &v, sizeof v);
}
static inline void store_u64(uint8_t *p, uint64_t v)
{
    memcpy(p, &v, sizeof v);
}
static inline uint16_t load_u16(const uint8_t *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline uint32_t load_u32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline uint64_t load_u64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "formats are little-endian; big-endian hosts need swaps");

/* reader: takes fields off a borrowed range. After any failure every take returns 0 and `failed`
 * stays set. */
struct reader {
    struct bytes rest;
    bool failed;
};

static inline struct reader reader_of(struct bytes b)
{
    return (struct reader){b, false};
}

static inline struct bytes reader_bytes(struct reader *r, size_t count)
{
    if (r->failed || count > r->rest.size) {
        r->failed = true;
        return (struct bytes){NULL, 0};
    }
    struct bytes out = {r->rest.data, count};
    r->rest = bytes_skip(r->rest, count);
    return out;
}

static inline uint8_t reader_u8(struct reader *r)
{
    struct bytes b = reader_bytes(r, 1);
    return r->failed ? 0 : b.data[0];
}

static inline uint16_t reader_u16(struct reader *r)
{
    struct bytes b = reader_bytes(r, 2);
    return r->failed ? 0 : load_u16(b.data);
}

static inline uint32_t reader_u32(struct reader *r)
{
    struct bytes b = reader_bytes(r, 4);
    return r->failed ? 0 : load_u32(b.data);
}

static inline uint64_t reader_u64(struct reader *r)
{
    struct bytes b = reader_bytes(r, 8);
    return r->failed ? 0 : load_u64(b.data);
}

static inline MUST_USE enum err buffer_put_u8(struct buffer *b, uint8_t v)
{
    return buffer_append(b, bytes_of(&v, sizeof v));
}
static inline MUST_USE enum err buffer_put_u16(struct buffer *b, uint16_t v)
{
    return buffer_append(b, bytes_of(&v, sizeof v));
}
static inline MUST_USE enum err buffer_put_u32(struct buffer *b, uint32_t v)
{
    return buffer_append(b, bytes_of(&v, sizeof v));
}
static inline MUST_USE enum err buffer_put_u64(struct buffer *b, uint64_t v)
{
    return buffer_append(b, bytes_of(&v, sizeof v));
}

#endif
