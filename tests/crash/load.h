/* load.h: a log under the lab's own load: records that can be made again from their number alone,
 * the options it is opened with, and what is there of them. One conversation has a retention of its
 * own, set anew now and then; behind some records a device says how far it has got.
 * Flow:       writer.c appends, check.c compares; both → here → store/log.h
 * Owns:       io, workers, metrics and the open log
 * Invariants: what may be gone follows from a record's number and the clock alone (load_may_go),
 *             not from the store's own rules: its options are made from the same constants
 * Bounds:     LOAD_RECORDS_MAX */
#ifndef TESTS_CRASH_LOAD_H
#define TESTS_CRASH_LOAD_H

#include "core/metrics.h"
#include "core/worker.h"
#include "store/log.h"

#define LOAD_CONVERSATIONS 6u
#define LOAD_OWN           4u   /* this one has a retention of its own */
#define LOAD_KEPT          5u   /* nobody has got what is in this one: it stays longer */
#define LOAD_READER        100u /* the first of those who only read … */
#define LOAD_READERS       2u   /* … of each conversation */
#define LOAD_LIVES         3u   /* each with other options */
#define LOAD_RECORDS_MAX   (64u << 10)
#define LOAD_BODY_MAX      (24u << 10)
#define LOAD_START_MS      1800000000000ull /* the clock begins here … */
#define LOAD_STEP_MS       600000ull        /* … and goes on by so much with every record */
#define LOAD_DAY_MS        86400000ull

/* load_state: of one record. */
enum load_state {
    LOAD_MISSING,
    LOAD_THERE,
    LOAD_GONE, /* reported so: by expiry or retention */
};

struct load {
    struct io_group *group;
    struct io *io;
    struct workers *workers;
    struct metrics *metrics;
    struct log *log;
    struct log_options options;
    uint64_t swaps;     /* merges and moves that reads see */
    uint32_t swap_owed; /* tap_owed at the newest of them */
    char directory[256];
    char cold[256];
    _Atomic uint64_t known; /* what stands in records 0 … known-1 is what a catalog would know */
    /* replay: what it had of each record; `wrong`: what was never written, or out of order */
    bool wrong;
    uint64_t replay_seq[LOAD_CONVERSATIONS];
    bool replayed[LOAD_RECORDS_MAX];
    bool replayed_gone[LOAD_RECORDS_MAX]; /* as a number that was given, without its record */
    uint64_t replay_mark[LOAD_CONVERSATIONS][LOAD_READERS]; /* delivered */
    uint8_t body[LOAD_BODY_MAX];
    uint8_t mark[8];
    uint8_t out[1 << 20];
    bool damaged; /* reads may find damage: what they miss is missing */
};

struct load *load_create(void);
void load_destroy(struct load *load);
/* load_environment: a variable that the lab sets; the process ends without it. */
const char *load_environment(const char *name);

uint64_t load_hash(uint64_t n);
/* load_time_ms: when record n is sent; the clock is never behind it. */
uint64_t load_time_ms(uint64_t n);
/* load_record: record n; its body lives until the next call. */
struct log_record load_record(struct load *load, uint64_t n);
/* load_mark: whether a device says behind record n that it has got it; then *out is what it says.
 * Its body lives until the next call. */
bool load_mark(struct load *load, struct log_record *out, uint64_t n);
/* load_sets: record n sets the retention of its conversation. */
bool load_sets(uint64_t n);
/* load_may_go: at that clock some rule allows record n to be dropped, where the settings among the
 * records 0 … known-1 have been in force, the newest still is. Never one that is in force. */
bool load_may_go(uint64_t n, uint64_t clock_ms, uint64_t known);

/* load_options: of a life, or of whatever a check draws. */
struct log_options load_options(struct load *load, uint64_t life);
MUST_USE enum err load_open(struct load *load, const struct log_options *options,
                            uint64_t *damaged);
/* load_turn: what a shard does in one; waits for something to happen, a millisecond at most. */
void load_turn(struct load *load);
/* load_settle: until nothing more is due. */
void load_settle(struct load *load);
/* load_read: the state of every record, by range reads; *count: behind the last one known. false:
 * it serves what was not written, or it fails (said on stdout). */
bool load_read(struct load *load, uint8_t states[LOAD_RECORDS_MAX], uint64_t *count);

/* load_repeats: at that clock record n's id must be known, whatever has become of it. */
bool load_repeats(uint64_t n, uint64_t clock_ms);
/* load_find: by record n's id. ERR_NOT_FOUND; ERR_CORRUPT: it is told to be another number's. */
MUST_USE enum err load_find(struct load *load, uint64_t n);

#endif
