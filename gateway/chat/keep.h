/* keep.h: what a conversation's members set about how much of it is kept, and how far its bound in
 * bytes has moved on.
 * Flow:       conversation.c (as messages become durable), replay.c (as records are replayed) →
 *             here → rows.c; flow/retention.c tells the merge what follows. What stood there before
 *             the bound: flow/counting.c asks → flow/lane_count.c reads back → keep_down →
 *             keep_counted
 * Owns:       nothing
 * Invariants: the entry with the highest number counts; marks ascend in seq and in counted; a mark
 *             is made every KEEP_PART of the bound, so that keep_due is exact to that. Uncounted:
 *             some of what the bound allows may stand below the oldest mark; until that is counted
 *             it is beyond only once so many bytes came after it
 * Failure:    ERR_CORRUPT: a body that is no setting
 * Bounds:     KEEP_MARKS_MAX marks: only where a bound in bytes is set do they mean anything */
#ifndef GATEWAY_CHAT_KEEP_H
#define GATEWAY_CHAT_KEEP_H

#include "gateway/wire/protocol.h"

#define KEEP_PARTS      8u                /* precision: one of so many parts of the bound */
#define KEEP_MARKS_MAX  (KEEP_PARTS + 2u) /* one that is due, the parts, one more */
#define KEEP_BODY_BYTES 16u               /* of a RECORD_RETENTION */

struct keep_mark {
    uint64_t seq;
    uint64_t counted; /* keep.counted when that message had been counted */
};

struct keep {
    uint64_t seq; /* of the entry that set it; 0: none ever did */
    struct retention_setting setting;
    uint64_t counted; /* bytes of payload: since there is a bound, and what was counted before */
    uint64_t since;   /* of them, behind the entry in force */
    uint32_t mark_count;
    bool uncounted;
    struct keep_mark marks[KEEP_MARKS_MAX];
};

/* keep_encode, keep_decode: body of a RECORD_RETENTION, little-endian: age in seconds u64, bytes
 * u64. */
void keep_encode(uint8_t out[KEEP_BODY_BYTES], const struct retention_setting *setting);
MUST_USE enum err keep_decode(struct retention_setting *setting, struct bytes body);

/* keep_set: the entry `seq` sets it; an older one than the one in force changes nothing. */
void keep_set(struct keep *keep, uint64_t seq, const struct retention_setting *setting);
/* keep_count: the message `seq`, of so many bytes, is behind all that were counted. Entries that
 * set a retention are not counted. */
void keep_count(struct keep *keep, uint64_t seq, uint64_t bytes);
/* keep_due: everything up to this number is beyond the bound in bytes; 0: nothing is. */
uint64_t keep_due(const struct keep *keep);

/* keep_down: what stands below a mark, counted from there down. */
struct keep_down {
    uint64_t below; /* numbers up to this one are counted */
    uint64_t bound; /* so many bytes */
    uint64_t bytes; /* counted */
    uint32_t mark_count;
    struct keep_mark marks[KEEP_PARTS]; /* descending; counted: the bytes above */
};

/* keep_down_begin: false: nothing is uncounted. */
bool keep_down_begin(const struct keep *keep, struct keep_down *down);
/* keep_down_count: the next lower number that there still is. True: the bound is reached. */
bool keep_down_count(struct keep_down *down, uint64_t seq, uint64_t bytes);
/* keep_counted: all that the bound allows has been. False: another entry is in force, or marks have
 * moved on: nothing has changed. */
bool keep_counted(struct keep *keep, const struct keep_down *down);

#endif
