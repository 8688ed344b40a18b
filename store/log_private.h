/* log_private.h: the inside of a log: what log.c, recovery.c, background.c, lifecycle.c and
 * reader*.c share. Nobody else includes it.
 * Flow:       log.c appends and commits; making.c makes segments, background.c seals and loads
 *             them, on workers; lifecycle.c merges, drops and moves them; recovery.c fills all this
 *             in at log_open; reader.c serves reads
 * Owns:       see the fields
 * Invariants: segments ascend by id, an archive stands where its segments stood; those behind
 *             `active` are READY; durable ≤ written ≤ appended (lane_check); segment states:
 *
 *               READY --lane_roll--> ACTIVE --lane_roll--> SEALING --seal job--> SEALED
 *               SEALED --load job--> LOST (neither header copy can be read)
 *
 * Failure:    lane_fail: LOG_FAILED, sticky
 * Bounds:     the sums below */
#ifndef STORE_LOG_PRIVATE_H
#define STORE_LOG_PRIVATE_H

#include "core/worker.h"
#include "store/archive.h"
#include "store/clock.h"
#include "store/places.h"
#include "store/sidecar.h"

#define LANE_READS_MAX    64u /* reads in flight or waiting; each 280 KB of state at most */
#define LANE_READ_OPS_MAX 64u /* disk reads in flight, and one more of each read */
#define LANE_LOADED_BYTES (64ull << 20)    /* resident parts of sidecars, least recently used go */
#define LANE_LOADED_MAX   256u             /* loaded segments: two descriptors each */
#define LANE_SPARES_MAX   16u              /* freed segments kept to be used again */
#define LANE_RETRY_NS     NS_PER_S         /* between attempts to make, seal or load a segment */
#define LANE_RETRY_MAX_NS (300 * NS_PER_S) /* sealing: twice as long after each, up to this */
#define READ_BUFFER_BYTES (64u << 10)      /* one merged disk read, unless a record is larger */
#define READ_TRIES_MAX    3u               /* of one disk read, before what it wanted is missing */
#define READ_GAP_BYTES    (16u << 10)      /* records nearer than that are read together */
#define LANE_SAY_NS       NS_PER_S         /* between two log lines of one kind about damage */

enum lane_segment_state {
    SEGMENT_READY,
    SEGMENT_ACTIVE,
    SEGMENT_SEALING,
    SEGMENT_SEALED,
    SEGMENT_LOST,
};

/* lane_segment: a segment, or (archived; SEALED or LOST only) an archive, which stands for those
 * from first_id to id. */
struct lane_segment {
    uint32_t id;
    enum lane_segment_state state;
    bool archived;
    bool cold;        /* in the cold directory */
    bool scrubbing;   /* its file is being read: it is not removed */
    bool unmergeable; /* it cannot be read through: left as it is */
    uint32_t merge_failures;
    uint32_t first_id;
    uint32_t level;               /* 0: a segment */
    uint32_t generation;          /* archived */
    struct archive_footer footer; /* archived */
    struct archive *archive;      /* archived and loaded */
    uint64_t expires_min_ms;      /* earliest expiry of its records; 0: none expires */
    bool expiry_known;
    uint64_t rewritten_ms; /* when retention last rewrote it, by the wall clock */
    uint64_t looked_ms;    /* what own rules make due in it was dropped or looked for then */
    bool own_due;          /* and there is some */
    struct lane_segment *retired_next;
    struct segment_header header; /* id 0: not read yet */
    struct segment_key key;
    int write_fd;        /* READY, ACTIVE, SEALING; else -1 */
    int read_fd;         /* -1: not loaded */
    uint32_t data_end;   /* of segment id: end of its last batch, 0: not known; ACTIVE: see lane */
    struct index *index; /* READY (empty), ACTIVE, SEALING; SEALED if no sidecar can be written */
    struct sidecar *sidecar; /* SEALED and loaded */
    struct places *places;   /* beside the sidecar or archive, within options.lookup_bytes; NULL:
                                the disk is read */
    bool unplaced;           /* they cannot be made: not tried again while it is loaded */
    uint32_t seal_failures;
    uint32_t users;    /* disk reads in flight on its descriptors */
    bool busy;         /* a job works on it */
    bool rebuild;      /* its sidecar was found damaged */
    bool unread;       /* recovery could not read all of it: its index lacks something */
    uint64_t retry_ns; /* a failed job is not repeated before */
    enum err load_err; /* of the newest load, if it failed */
    uint64_t used;     /* log.clock at its last use */
};

struct lane_ack {
    uint64_t cookie;
    uint64_t position;
};

/* lane_batch: one of the two buffers. */
struct lane_batch {
    uint8_t *data;
    size_t size; /* 0: empty */
    uint32_t records;
    uint32_t offset; /* in the segment */
    struct lane_segment *segment;
};

/* lane_spare: a freed segment, "<id>.spare"; making.c. */
struct lane_spare {
    uint32_t id;
    bool wiped;
};

/* lane_say: log lines about damage: what is met at every read is not said at every read. */
enum lane_say_kind { SAY_RECORD, SAY_MISSING, SAY_BLOCK, SAY_KINDS };
struct lane_say {
    uint64_t due_ns;     /* nothing is said before */
    uint64_t suppressed; /* since it was said last */
};

/* lifecycle: what becomes of sealed segments; lifecycle.c. */
struct lifecycle {
    struct lifecycle_job *job;    /* the one that is under way, also between its portions */
    struct lifecycle_job *parked; /* a long one that was, and waits while segments are sorted */
    bool running;                 /* it is on a worker */
    uint64_t due_ns;              /* nothing is begun or gone on with before */
    struct lane_segment *retired; /* replaced: in use by reads still, then their files go */
    bool no_space;                /* pausing */
    bool clock_wrong;
    struct clock clock;
    uint32_t old_id;    /* segments up to it are from before the start, and sorted soon */
    uint64_t active_ms; /* wall clock when the active segment became it, or before */
    bool own_any;       /* some conversation had a rule of its own when that was looked for last */
    uint64_t asked_ms;  /* that was asked for the active segment's sake */
    struct scrub_job *scrub; /* beside the job */
    bool scrub_running;
    uint64_t scrub_due_ns;
    uint32_t scrub_id; /* of what is or was scrubbed last */
};

struct log {
    struct log_options options;
    char directory[STORE_PATH_BYTES];
    struct io *io;
    struct workers *workers;
    struct metrics *metrics; /* may be NULL */
    enum log_state state;
    int lock_fd;
    size_t batch_bytes_max; /* header and padding included */

    struct lane_segment **segments;
    uint32_t segment_count;
    uint32_t segment_capacity;
    uint32_t active; /* index into segments */
    uint32_t id_next;
    bool segment_full; /* nothing more goes into the active one */

    uint8_t *buffers; /* of both batches, one region */
    struct lane_batch gather;
    struct lane_batch flight;
    bool gather_closed; /* refused a record: refuses all until it is written, to keep their order */
    bool in_flight;
    size_t looked; /* gather.size at the newest io_file_advance */
    struct io_file_op write_op;
    uint64_t flight_start_ns;

    uint64_t appended;
    uint64_t written;
    uint64_t durable;
    uint64_t flight_end;
    uint64_t previous_end; /* of the newest batch started */
    uint64_t record_count; /* in the lane, those of started batches */
    uint64_t checkpointed;
    uint64_t dropped_ms; /* log_dropped_ms */
    bool marked;         /* nothing was written since the newest durable mark */

    struct lane_ack *acks; /* ring: popped ≤ done ≤ appended */
    uint64_t ack_mask;     /* what is used of it: as much as needed */
    uint64_t ack_mask_max;
    uint64_t ack_popped;
    uint64_t ack_done;
    uint64_t ack_appended;

    struct making *making; /* the segment that is being made; making.c */
    bool make_refused;     /* the newest attempt failed */
    uint64_t make_retry_ns;
    struct lane_spare spares[LANE_SPARES_MAX];
    uint32_t spare_count;
    uint32_t jobs; /* on the workers now */

    struct read_state *reads;      /* active, any order */
    struct read_state *reads_free; /* spare states with their buffers */
    uint32_t read_count;
    uint32_t read_ops; /* disk reads in flight */
    bool closing;      /* log_close: nothing new is started but writing what is gathered */
    struct log_read *done_first;
    struct log_read **done_last;
    uint64_t clock; /* counts uses, for eviction */
    struct lane_say say[SAY_KINDS];

    struct lifecycle lifecycle;
};

/* ---- log.c */
void lane_check(const struct log *log);
void lane_fail(struct log *log, enum err err, const char *what);
void lane_set_state(struct log *log, enum log_state state);
void lane_count(struct log *log, enum metric metric, uint64_t n);

/* ---- making.c */

/* lane_make_now: make the next segment, blocking; for log_open. */
MUST_USE enum err lane_make_now(struct log *log);
/* lane_make_turn: begin or go on with the next segment, if that is due; once a turn. */
void lane_make_turn(struct log *log);
/* lane_make_close: give up what is being made; nothing of it is on a worker. */
void lane_make_close(struct log *log);
/* lane_spare_room: a freed segment is kept. */
bool lane_spare_room(const struct log *log);
/* lane_spare_add: "<id>.spare" is there, and its name durable; there is room. */
void lane_spare_add(struct log *log, uint32_t id);

/* ---- background.c */

struct lane_job; /* seal, load or place one segment; runs on a WORKER_DISK thread */

/* lane_segment_add: a new entry in order of ids; NULL: no memory. */
struct lane_segment *lane_segment_add(struct log *log, uint32_t id);
void lane_segment_destroy(struct lane_segment *segment);
/* lane_maintain: start what is due: the next segment, sealing; once a turn. */
void lane_maintain(struct log *log);
/* lane_next_ready: the segment after the active one, if it is ready. */
struct lane_segment *lane_next_ready(const struct log *log);
/* lane_roll: the next segment becomes active. There must be one, and nothing gathered. */
void lane_roll(struct log *log);
/* lane_load: have a sealed segment loaded. OK: it is; ERR_AGAIN: later (reader_wake follows);
 * ERR_CORRUPT: it is lost. */
MUST_USE enum err lane_load(struct log *log, struct lane_segment *segment);
/* lane_direct_flags: FILE_DIRECT if configured. */
uint32_t lane_direct_flags(const struct log *log);
/* lane_loaded: it can be looked into. */
bool lane_loaded(const struct lane_segment *segment);
void lane_evict(struct log *log);

/* ---- lookups.c */

/* lane_lookup_room: memory for the look-up of a segment or archive, beside those of newer ones. */
size_t lane_lookup_room(const struct log *log, uint32_t id);
/* lane_lookups_evict: the oldest go until the rest fits. */
void lane_lookups_evict(struct log *log);

/* ---- lifecycle.c */

/* lifecycle_open: `newest_ms`: wall clock of the newest batch, 0: there is none. */
void lifecycle_open(struct log *log, uint64_t newest_ms);
/* lifecycle_measure: how many files and bytes there are, for the metrics. */
void lifecycle_measure(struct log *log);
/* lifecycle_turn: begin or go on with what is due; once a turn. */
void lifecycle_turn(struct log *log);
/* lifecycle_close: nothing is on a worker any more. */
void lifecycle_close(struct log *log);
/* lane_archive_path: where an archived one stands. */
MUST_USE enum err lane_archive_path(const struct log *log, const struct lane_segment *segment,
                                    char out[STORE_PATH_BYTES]);

/* ---- listing.c */

/* lane_list: the directory's segments and archives become entries; leftovers and what an archive
 * has replaced are removed. Blocking. */
MUST_USE enum err lane_list(struct log *log);

/* ---- recovery.c */

/* lane_below: nothing of it stands at or above the position; false if that is not known. */
bool lane_below(const struct lane_segment *segment, uint64_t position);
MUST_USE enum err lane_recover(struct log *log,
                               void (*replay)(void *context, const struct log_record *record,
                                              uint64_t position),
                               void *context, uint64_t *damaged);

/* ---- reader.c */
void reader_wake(struct log *log); /* segments were loaded: go on with what waits */
/* reader_restart: the array of segments has changed: every read looks for its place anew. */
void reader_restart(struct log *log);
void reader_on_file(struct log *log, struct io_file_op *op);
void reader_close(struct log *log);

#endif
