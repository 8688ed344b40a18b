/* log.h: one lane of the append-only segmented log: append, group commit, recovery, read back.
 * Flow:       flow/commit.c → log_append … log_flush → io → log_on_file → log_completed →
 *             flow/commit.c
 * Owns:       the lane's directory, segments, batch buffers and index; lives on one shard; log_open
 *             and log_close block
 * Invariants: replicated ≤ durable ≤ written ≤ appended (asserted); a record is readable only once
 *             durable; OPEN → NO_SPACE → OPEN …; any → FAILED, sticky: after the first write or
 *             sync error nothing is acknowledged and no sync retried
 * Failure:    ERR_NO_SPACE refused before anything was assigned, goes on when space returns; ERR_IO
 *             the lane is FAILED; ERR_FULL the gathering batch is full: come back after the next
 *             completion; ERR_CORRUPT, ERR_NEWER from log_open
 * Bounds:     struct log_options; one batch in flight, one gathering
 * Format:     byte by byte in store/segment.c */
#ifndef STORE_LOG_H
#define STORE_LOG_H

#include "core/io.h"
#include "core/metrics.h"
#include "store/clock.h"
#include "store/ids.h"

struct workers;
struct log;

enum record_kind {                       /* of the log, not of the protocol */
                   RECORD_MESSAGE = 1,   /* has a sequence number */
                   RECORD_WATERMARK = 2, /* sequence number = delivered; body: read watermark u64 */
                   RECORD_MEMBERSHIP = 3, /* has a sequence number */
                   RECORD_GONE = 4, /* in archives only: numbers that no longer exist (archive.h) */
                   RECORD_LOST = 5, /* written by repair: this number was damaged; the body is
                                       filling */
                   RECORD_VOID = 6, /* the same for a record of which nothing is known */
                   RECORD_RETENTION = 7, /* has a sequence number; body: age in seconds u64,
                                            bytes u64, 0: the log's; none */
};

struct log_record {
    struct realm_id realm;
    uint32_t key; /* key id the body is encrypted at rest with; 0: clear */
    uint16_t kind;
    uint64_t expires_ms; /* 0: never */
    struct conversation_id conversation;
    uint64_t seq;
    struct user_id sender;
    struct device_id device;
    struct message_id message_id;
    uint64_t time_ms;
    struct bytes body;
};

/* retention_rule: what the owner of a conversation says about it. */
struct retention_rule {
    uint64_t age_ms;        /* 0: the log's */
    uint64_t delivered_seq; /* every device of every member has all up to here */
    uint64_t setting_seq;   /* the newest entry that set this: it is never dropped; 0: none is */
    uint64_t beyond_seq;    /* up to here beyond its bound in bytes; 0: nothing is */
};

/* retention: when records may be dropped; store/retention.h. */
struct retention {
    uint64_t age_ms;          /* 0: for ever */
    uint64_t age_max_ms;      /* no conversation's own age is above; below age_ms: that is */
    uint64_t bytes;           /* of the whole log, the oldest go first; 0: no bound */
    uint64_t undelivered_ms;  /* what somebody has not got is kept so long whatever else says */
    uint64_t expiry_delay_ms; /* expired records are off the disk that much later */
    uint64_t own_delay_ms;    /* and what a conversation's own rule makes due */
    uint64_t repeats_ms;      /* of what is removed sooner after it was sent the id is kept so long,
                                 so that a repeat finds it, and off the disk expiry_delay_ms after
                                 the last one of its file; 0: none is */
    /* look: on a worker, between begin and end; NULL: everything counts as delivered. A failure is
     * as if nothing of the conversation were delivered. */
    enum err (*begin)(void *context, void **session);
    enum err (*look)(void *session, struct conversation_id conversation,
                     struct retention_rule *rule);
    /* own: of the conversations whose id (ids.h) has that first byte, those that have a rule of
     * their own, ascending; NULL: none has. */
    enum err (*own)(void *session, uint8_t first,
                    enum err (*add)(void *list, struct conversation_id conversation), void *list);
    void (*end)(void *session);
    void *context;
};

struct log_options {
    const char *directory;
    uint32_t lane;
    uint32_t shard;           /* where it lives; worker jobs come back there */
    uint64_t segment_bytes;   /* 64 MiB by default; a multiple of 1 MiB */
    uint32_t batch_bytes_max; /* 4 MiB; bounds one record too */
    uint64_t reserve_bytes; /* refuse with ERR_NO_SPACE rather than leave less than this on the file
                               system */
    uint64_t writer_epoch;  /* raised at every open, kept in the catalog; fencing */
    uint64_t checkpoint;    /* position from which log_open replays; 0: from the beginning */
    bool direct;            /* O_DIRECT where the file system can */
    uint64_t make_rate;     /* bytes per second of a segment made ahead, at least; 0: all at once */
    uint32_t spare_segments;    /* freed segments kept to be used again, wiped; at most 16 */
    uint64_t lookup_bytes;      /* resident look-ups of segments and archives, the newest stay; 0:
                                   none */
    uint32_t merge_segments;    /* segments merged at a time, 1 … 64; 0: as many as archives */
    uint32_t merge_inputs;      /* segments or archives merged at a time, 2 … 64; 0: nothing is */
    uint64_t merge_rate;        /* bytes per second that merging reads and writes, at most */
    uint64_t archive_bytes_max; /* archives that large are not merged further */
    bool compress;              /* archives in zstd where that pays */
    const char *cold_directory; /* NULL: none */
    uint64_t cold_ms;           /* archives whose newest record is older go there */
    uint64_t scrub_rate;        /* bytes per second checked in the background; 0: none */
    bool trust_clock;           /* purge although the wall clock disagrees with the newest batch */
    struct retention retention;
    bool skip_sync; /* the crash test's negative control only */
};

/* log_open: recover: cut the torn tail, index what is unsealed, and hand every valid record at or
 * after `checkpoint` to replay in order (replay != NULL). Blocking. *damaged counts records that
 * are lost below the durable mark (never served, reported). */
MUST_USE enum err log_open(struct log **log, const struct log_options *options, struct io *io,
                           struct workers *workers, struct metrics *metrics,
                           void (*replay)(void *context, const struct log_record *record,
                                          uint64_t position),
                           void *context, uint64_t *damaged);
/* log_jobs: of the shard's pending worker jobs, those that are the log's own. */
uint32_t log_jobs(const struct log *log);
/* log_close: everything durable and closed in order; blocks. Polls io and takes finished worker
 * jobs of the shard itself: call it when nothing else of the shard is in flight (other events are
 * dropped). Reads still under way are given up: they do not come out of log_read_done. */
void log_close(struct log *log);
/* log_close_all: of several lanes on one io; count ≥ 1. */
void log_close_all(struct log *const logs[], uint32_t count);
/* log_abandon: tests of a crash: give the memory back and leave the files as they are. Nothing may
 * be in flight in the io or on the workers any more. */
void log_abandon(struct log *log);

/* log_append: copy the record into the gathering batch. cookie comes back in log_completed. Order
 * of appends is order of completions. ERR_FULL: the batch is full or the next segment is still
 * being made; every append is refused until there is room, so that order holds: try again each
 * turn, after log_flush. ERR_TOO_BIG; ERR_INVALID: a conversation's sequence numbers must ascend.
 */
MUST_USE enum err log_append(struct log *log, const struct log_record *record, uint64_t cookie);
/* log_expect: the record after the next to be appended will be of that conversation: a hint, for
 * the sake of the processor's cache. Nothing comes of a wrong one. */
void log_expect(struct log *log, struct conversation_id conversation);
/* log_flush: start a batch if something is gathered and none is in flight. Call once a turn. */
void log_flush(struct log *log);
/* log_on_file: an IO_FILE_DONE whose op->owner is the log's (log_owns). */
bool log_owns(const struct log *log, const struct io_file_op *op);
void log_on_file(struct log *log, struct io_file_op *op);

struct log_completion {
    uint64_t cookie;
    enum err err;      /* OK: durable */
    uint64_t position; /* of the record: segment id << 32 | offset */
};
/* log_completed: the next result in append order; false if none. */
bool log_completed(struct log *log, struct log_completion *out);

enum log_state { LOG_OPEN, LOG_NO_SPACE, LOG_FAILED };
enum log_state log_state(const struct log *log);
/* log_durable: everything below this position is durable: what a checkpoint may name. */
uint64_t log_durable(const struct log *log);
/* log_dropped_ms: what is younger by its stamp stands in the log as it did when the log was opened
 * or it was appended: retention and expiry have removed nothing of it since. It only grows. */
uint64_t log_dropped_ms(const struct log *log);
/* log_clock: by which the wall clock is judged; constant. */
const struct clock *log_clock(const struct log *log);
/* log_checkpointed: the catalog holds everything below position; older segments need no replay. */
void log_checkpointed(struct log *log, uint64_t position);

/* ---- reading: asynchronous, finished reads come out of log_read_done */

enum log_read_kind {
    LOG_READ_RANGE,
    LOG_READ_FIND,
    LOG_READ_BACK, /* a page backwards: the last records_max numbers up to to_seq (UINT64_MAX: the
                      newest); from_seq becomes its first; then as a RANGE, ascending in out: what
                      does not fit is had by RANGE */
};

struct log_read {
    enum log_read_kind kind;
    uint64_t cookie;
    struct conversation_id conversation;
    uint64_t from_seq; /* RANGE: first wanted; only records with sequence numbers of their own
                          (message, membership) */
    uint64_t to_seq;   /* RANGE: last wanted */
    uint32_t records_max;
    struct user_id sender; /* FIND: an earlier record of that key */
    struct device_id device;
    struct message_id message_id;
    struct buffer out; /* caller's memory: encoded records, ascending, for log_record_next */
    /* result */
    enum err err; /* OK; ERR_NOT_FOUND; ERR_FULL: not even the first record fits, size_needed says
                     what would; ERR_CORRUPT: from missing_from to missing_to cannot be had (what
                     came before is in out): damaged, or a gap in the numbers, which go from 1 on;
                     FIND: not found, but a part of the log could not be searched; ERR_EXPIRED: from
                     missing_from to missing_to do not exist any more, by expiry or retention (what
                     came before is in out); ERR_IO, ERR_NO_MEMORY …: not now */
    uint32_t records;
    size_t size_needed;
    uint64_t missing_from;
    uint64_t missing_to;
    /* private */
    struct log_read *next;
    void *state;
};

/* log_read: start; the read is the log's until log_read_done returns it. ERR_FULL: too many in
 * flight. */
MUST_USE enum err log_read(struct log *log, struct log_read *read);
struct log_read *log_read_done(struct log *log);
/* log_record_next: take one record off *encoded (log_read.out's bytes); body points into it.
 * ERR_NOT_FOUND at the end. */
MUST_USE enum err log_record_next(struct bytes *encoded, struct log_record *out);
#define LOG_RECORD_OVERHEAD                                                                        \
    128 /* bytes that a record in log_read.out costs beyond its body, at most */

/* log_verify: `roost log verify DIR`: walks every segment and archive, calls back per finding.
 * Blocking. cold: where old archives were moved to, or NULL. ERR_CORRUPT: some finding is damage.
 */
MUST_USE enum err log_verify(const char *directory, const char *cold,
                             void (*finding)(void *context, const char *line), void *context);

#endif
