/* segment.h: the bytes of the log: segment header, batch header, record; encode, decode, validate.
 * Flow:       log.c encodes → disk → scan.c, reader.c validate and decode
 * Owns:       nothing: bytes in, bytes out, no I/O
 * Invariants: nothing is decoded whose checksum does not fit its segment and position
 * Failure:    ERR_CORRUPT; ERR_NEWER: a segment header of a later version
 * Bounds:     a record ≤ a batch ≤ a segment - SEGMENT_DATA_OFFSET; a segment < 2 GiB
 * Format:     byte by byte in segment.c */
#ifndef STORE_SEGMENT_H
#define STORE_SEGMENT_H

#include "store/log.h"

#define SEGMENT_VERSION     1
#define SEGMENT_BLOCK       4096u /* unit of direct I/O: batches start and end here */
#define SEGMENT_DATA_OFFSET 8192u /* the first batch; below are two copies of the header */
#define SEGMENT_BYTES_MIN   (64u << 10)
#define SEGMENT_BYTES_MAX   (2u << 30)
#define BATCH_HEADER_BYTES  72u
#define RECORD_HEADER_BYTES 88u
#define RECORD_ALIGNMENT    8u
#define SEGMENT_NAME_BYTES  20 /* "0000002a.segment" and NUL, or ".index" */

struct segment_header {
    uint32_t id; /* from 1, ascending */
    uint32_t lane;
    uint64_t bytes;      /* size of the file */
    uint64_t nonce;      /* random; seeds every checksum of the segment */
    uint64_t created_ms; /* wall clock */
};

/* segment_key: what seeds the checksums of one segment's batches and records. */
struct segment_key {
    uint32_t id;
    uint32_t crc;   /* over nonce */
    uint64_t nonce; /* also keys the segment's hashes */
};

struct batch_header {
    uint64_t position;       /* its own */
    uint64_t previous_end;   /* where the batch before it ended; = position within a segment */
    uint64_t durable_before; /* everything below was durable when this was written */
    uint64_t writer_epoch;
    uint64_t wall_ms;
    uint64_t record_base; /* records in the lane before this batch */
    uint32_t records;
    uint32_t length; /* bytes from the header's start to the end of the last record */
    uint32_t lane;
};

static inline uint64_t position_of(uint32_t segment, uint64_t offset)
{
    return (uint64_t)segment << 32 | offset;
}
static inline uint32_t position_segment(uint64_t position)
{
    return (uint32_t)(position >> 32);
}
static inline uint32_t position_offset(uint64_t position)
{
    return (uint32_t)position;
}
static inline size_t align_up(size_t size, size_t alignment)
{
    return (size + alignment - 1) & ~(alignment - 1);
}
static inline size_t align_down(size_t size, size_t alignment)
{
    return size & ~(alignment - 1);
}

struct segment_key segment_key_of(const struct segment_header *header);

/* segment_header_encode: SEGMENT_DATA_OFFSET bytes: both copies. */
void segment_header_encode(uint8_t *out, const struct segment_header *header);
/* segment_header_decode: one copy, SEGMENT_BLOCK bytes. */
MUST_USE enum err segment_header_decode(struct segment_header *header, const uint8_t *block);

void batch_header_encode(uint8_t *out, const struct batch_header *header,
                         const struct segment_key *key);
/* batch_header_decode: BATCH_HEADER_BYTES found at offset of a segment of segment_bytes. */
MUST_USE enum err batch_header_decode(struct batch_header *header, const uint8_t *data,
                                      const struct segment_key *key, uint32_t offset,
                                      uint64_t segment_bytes);

/* record_bytes: what a body of that size takes in a batch, padding included. */
static inline size_t record_bytes(size_t body)
{
    return align_up(RECORD_HEADER_BYTES + body, RECORD_ALIGNMENT);
}
/* record_encode: record_bytes(record->body.size) bytes at out, which stand at offset. */
void record_encode(uint8_t *out, const struct log_record *record, const struct segment_key *key,
                   uint32_t offset);
/* record_copy, record_seal: the two halves of record_encode: all but the checksum; the checksum of
 * a record of `size` bytes, padding included. */
void record_copy(uint8_t *out, const struct log_record *record);
void record_seal(uint8_t *out, size_t size, const struct segment_key *key, uint32_t offset);
/* record_parse: fields only, no checksum (of bytes that were validated before). *taken: with
 * padding. ERR_CORRUPT: does not fit in data. */
MUST_USE enum err record_parse(struct log_record *record, struct bytes data, size_t *taken);
/* record_decode: validate and parse what stands at offset. */
MUST_USE enum err record_decode(struct log_record *record, struct bytes data,
                                const struct segment_key *key, uint32_t offset, size_t *taken);

/* record_has_seq: has a sequence number of its own, so that range reads serve it. */
static inline bool record_has_seq(uint16_t kind)
{
    return kind != RECORD_WATERMARK && kind != RECORD_VOID;
}

/* segment_name: "0000002a" and suffix (".segment", ".index", ".making", ".spare"). */
void segment_name(char out[SEGMENT_NAME_BYTES], uint32_t id, const char *suffix);
/* segment_name_parse: ERR_INVALID: not a name of that suffix. */
MUST_USE enum err segment_name_parse(uint32_t *id, const char *name, const char *suffix);

#endif
