/* log_rig.h: a lane on the disk of fault_io.h, driven by hand, whose records can all be made again
 * from (conversation, sequence number): what was acknowledged is known, what is read back can be
 * checked.
 * Flow:       test_log_*.c, fuzz_recovery.c include it
 * Invariants: after rig_open everything acknowledged was replayed or stands below the
 *             checkpoint */
#ifndef TESTS_UNIT_LOG_RIG_H
#define TESTS_UNIT_LOG_RIG_H

#include "core/memory.h"
#include "store/segment.h"
#include "tests/unit/fault_io.h"

#include <stdio.h>
#include <stdlib.h>

#define RIG_CONVERSATIONS 64
#define RIG_DIRECTORY     "disk"
#define RIG_OUT_BYTES     (1u << 20)

struct rig {
    struct log *log;
    struct log_options options;
    struct metrics *metrics; /* may be NULL */
    uint64_t damaged;
    uint64_t appended[RIG_CONVERSATIONS]; /* highest sequence number given to log_append */
    uint64_t acked[RIG_CONVERSATIONS];    /* highest acknowledged */
    uint64_t found[RIG_CONVERSATIONS];    /* highest replayed, or below the checkpoint */
    uint64_t acks;
    uint64_t refused; /* completions with an error */
    uint64_t replayed;
    uint64_t replay_last; /* position of the newest record replayed */
    uint64_t body_max;
    uint64_t (*expires)(uint32_t conversation, uint64_t seq); /* NULL: in a far future */
    uint64_t (*time)(uint32_t conversation, uint64_t seq);    /* NULL: any */
    bool (*setting)(uint32_t conversation, uint64_t seq);     /* a RECORD_RETENTION; NULL: none */
    bool merged_replay; /* what is replayed may stand in archives: in order per conversation only */
    uint8_t body[1 << 17];
    uint8_t out[RIG_OUT_BYTES];
};

static inline uint64_t rig_hash(uint64_t a, uint64_t b)
{
    uint64_t x = a * 0x9e3779b97f4a7c15ull ^ (b + 1) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 31) * 0x94d049bb133111ebull;
    return x ^ x >> 29;
}

struct log_record rig_record(struct rig *rig, uint32_t conversation, uint64_t seq);
void rig_init(struct rig *rig);
MUST_USE enum err rig_open(struct rig *rig);
void rig_take_completions(struct rig *rig);
/* rig_turn: what a shard does in a turn. */
void rig_turn(struct rig *rig);
MUST_USE enum err rig_append(struct rig *rig, uint32_t conversation);
MUST_USE enum err rig_append_watermark(struct rig *rig, uint32_t conversation);
/* rig_append_now: turns until there is room. */
MUST_USE enum err rig_append_now(struct rig *rig, uint32_t conversation);
void rig_settle(struct rig *rig);
void rig_close(struct rig *rig);
/* rig_crash: the process and the power go; the log's memory is given back on a disk that is then
 * forgotten. */
void rig_crash(struct rig *rig, uint64_t seed);
/* rig_adopt: after a reopen: what was found is what is there; acknowledged ⊆ found. */
void rig_adopt(struct rig *rig);
struct log_read rig_range(struct rig *rig, uint32_t conversation, uint64_t from, uint64_t to,
                          uint32_t records_max, size_t room);
/* rig_await: run a read to its end. */
enum err rig_await(struct rig *rig, struct log_read *read);
/* rig_check: what a read brought is from, from + 1, … of the conversation; how many. */
uint64_t rig_check(struct rig *rig, const struct log_read *read, uint32_t conversation,
                   uint64_t from);
/* rig_read_all: every acknowledged record can be read and found, nothing else. */
void rig_read_all(struct rig *rig);
/* rig_gone: what a read says does not exist any more; every number of it may be gone. */
void rig_gone(struct rig *rig, const struct log_read *read, uint32_t conversation,
              bool (*may_go)(const struct rig *rig, const struct log_record *record));
/* rig_walk: every acknowledged number is served, or gone and may be; how many are gone. */
uint64_t rig_walk(struct rig *rig, uint32_t conversation,
                  bool (*may_go)(const struct rig *rig, const struct log_record *record));
/* rig_find: a record by its id. ERR_EXPIRED: it was removed, and what names it is as it was. */
enum err rig_find(struct rig *rig, uint32_t conversation, uint64_t seq);

#endif
