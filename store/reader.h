/* reader.h: the inside of a read, for reader*.c only.
 * Flow:       reader.c steps a read from segment to segment and remembers the places it passes;
 *             reader_range.c fetches and takes what stands there; what stands in an archive is
 *             found by reader_archive.c; FIND: reader_find.c
 * Invariants: a state that waits has disk reads of its own in flight, READ_OPS at most; `arrived`:
 *             all are through; the window's places ascend without gaps and are the next to be taken
 * Bounds:     the sums below */
#ifndef STORE_READER_H
#define STORE_READER_H

#include "store/log_private.h"

#define READ_SPANS      8u           /* data blocks of an archive fetched with one disk read, */
#define READ_SPAN_BYTES (128u << 10) /* unless one alone is larger */
#define READ_SIDE_BYTES (256u << 10) /* of several archives, side by side */
#define READ_CANDIDATES 32u
#define READ_OPS        16u  /* disk reads of one state at a time */
#define READ_WINDOW     128u /* places remembered */
#define READ_KNOWN      8u   /* directory entries of archives remembered */

/* archive_want: which block of an archive the disk read is for. */
enum archive_want { WANT_NOTHING, WANT_DIRECTORY, WANT_TABLE, WANT_DATA, WANT_PRINTS };

enum read_phase { READ_NEWEST, READ_SEEK, READ_COLLECT, READ_DATA, READ_PRINT, READ_CANDIDATE };

/* read_place: where a record stands in a segment. */
struct read_place {
    uint64_t seq;
    uint32_t segment; /* id */
    uint32_t offset;
    uint32_t size;
    bool bound; /* from a resident look-up: the record is no larger than size */
};

/* read_op: a disk read. */
struct read_op {
    struct io_file_op op;
    struct read_state *state;
    struct lane_segment *segment;
    uint64_t base;   /* file offset of what it brings */
    uint32_t places; /* of the window, that it is for */
    uint32_t tries;  /* that failed */
};

/* read_known: what the directory of an archive said. */
struct read_known {
    uint32_t id; /* of the archive; 0: none */
    bool found;
    struct archive_entry entry;
};

/* read_part: data blocks of one archive, fetched with one disk read. */
struct read_part {
    uint32_t at; /* index of the archive */
    struct archive_entry entry;
    uint32_t block; /* number of the first */
    uint32_t count;
    struct archive_row spans[READ_SPANS];
};

struct read_state {
    struct log *log;
    struct log_read *read;
    struct read_state *next;
    enum read_phase phase;
    uint32_t at;       /* index of the segment looked at, plus 1 while going back */
    uint32_t start;    /* SEEK: oldest segment with a record ≥ from; UINT32_MAX: none yet */
    uint64_t seq_next; /* RANGE: next to be served */
    uint32_t rebuilt;  /* segment id whose sidecar this read had rebuilt */
    bool lost;         /* a segment on the way could not be looked at */
    bool waiting;      /* for operations of its own */
    bool arrived;      /* they are through */
    struct read_op ops[READ_OPS];
    uint32_t op_count; /* of the newest round */
    uint32_t op_pending;
    uint8_t *data;
    size_t capacity;
    uint32_t hit_count;
    uint32_t hit_at; /* FIND */
    bool hit_bounds; /* their sizes are bounds */
    struct index_hit hits[SIDECAR_HITS];
    struct read_place window[READ_WINDOW];
    uint32_t window_at;
    uint32_t window_count;
    bool gathered;      /* what stands in segments from seq_next on is all in the window */
    uint32_t resume_at; /* SEEK: where to go on, plus 1, after archives were probed */
    bool probed;
    uint32_t probe_lo; /* the first number is in these, below probe_hi, or in no archive */
    uint32_t probe_hi;
    uint32_t probe;     /* the one that is asked; probe_hi: none yet */
    bool restart;       /* the segments have changed while it waited */
    uint64_t seq_first; /* RANGE: where it began; BACK: 0: not known yet */

    /* an archive, reader_archive.c */
    enum archive_want want;
    uint64_t want_offset;
    uint32_t entry_of; /* id of the archive that entry is of; 0: none */
    bool entry_found;
    struct archive_entry entry;
    struct read_known known[READ_KNOWN];
    uint32_t known_next;
    bool block_known; /* block_next: the data block to look at next, else found by the number */
    uint32_t block_next;
    struct read_part parts[READ_OPS]; /* of the disk reads in flight, in their order */
    uint32_t part_count;
    uint64_t gone_last; /* numbers from seq_next to here are gone; 0: not known to be */
    struct buffer raw;  /* of a compressed block */
    uint32_t print_page;
    bool prints_done;
    uint32_t candidates[READ_CANDIDATES]; /* numbers of data blocks with the fingerprint */
    uint32_t candidate_count;
    uint32_t candidate_at;
};

/* read_fetch: blocks that cover [offset, offset + size) of the segment's file. OK: on its way;
 * ERR_AGAIN: the io is busy. */
MUST_USE enum err read_fetch(struct read_state *state, struct lane_segment *segment, int fd,
                             uint64_t offset, size_t size);
/* read_issue: one more disk read of this round, of whole blocks into data. OK; ERR_AGAIN: not now.
 */
MUST_USE enum err read_issue(struct read_state *state, struct lane_segment *segment, int fd,
                             uint64_t base, uint8_t *data, size_t bytes);
/* read_room: the state's buffer takes that many bytes. ERR_NO_MEMORY. */
MUST_USE enum err read_room(struct read_state *state, size_t bytes);
/* read_of: the finished round was one disk read of that segment. */
static inline bool read_of(const struct read_state *state, const struct lane_segment *segment)
{
    return state->arrived && state->op_count == 1 && state->ops[0].segment == segment;
}
/* read_op_bytes: what one brought; empty on an error. */
static inline struct bytes read_op_bytes(const struct read_op *op)
{
    return bytes_of(op->op.data, op->op.err == OK ? op->op.done_bytes : 0);
}
/* read_arrived: what a disk read brought, from offset on; empty on an error. */
struct bytes read_arrived(const struct read_op *op, uint64_t offset);
/* read_ready: whether the segment can be looked at. ERR_AGAIN: wait; ERR_NOT_FOUND: nothing in it,
 * or it is lost for good (state->lost); else it cannot be loaded now. */
MUST_USE enum err read_ready(struct read_state *state, struct lane_segment *segment);
/* read_look: fill hits with the segment's records from seq_next on (RANGE) or with the fingerprint
 * (FIND). ERR_AGAIN: an operation is under way or must wait; ERR_NOT_FOUND: cannot look. */
MUST_USE enum err read_look(struct read_state *state, struct lane_segment *segment, bool *before);
/* read_begin: at the newest segment; what is already taken stays. */
void read_begin(struct read_state *state);
/* read_finish: the read goes to log_read_done; the state is gone. */
void read_finish(struct read_state *state, enum err err);
void read_finish_missing(struct read_state *state, uint64_t from, uint64_t to);
void read_finish_gone(struct read_state *state, uint64_t from, uint64_t to);
/* read_gap: the numbers from seq_next to before `seq` are not where they should be: damaged. Ends
 * the read. */
void read_gap(struct read_state *state, uint64_t seq);
/* read_end: of a RANGE: there is no more, or no more is wanted. */
void read_end(struct read_state *state);
/* read_say: whether to log something of that kind of damage now; *suppressed: what was not. */
MUST_USE bool read_say(struct log *log, enum lane_say_kind kind, uint64_t *suppressed);
/* hit_sound: a place that can be a record's; sidecars are checksummed, but still bytes from disk.
 */
static inline bool hit_sound(const struct lane_segment *segment, uint32_t offset, uint32_t size)
{
    return size >= RECORD_HEADER_BYTES && offset >= SEGMENT_DATA_OFFSET &&
           offset <= segment->header.bytes && size <= segment->header.bytes - offset;
}

/* ---- reader_range.c: steps return ERR_AGAIN: wait; ERR_CLOSED: the read is finished */

/* read_remember: going back, put the hits of a segment before what the window has. */
void read_remember(struct read_state *state, const struct lane_segment *segment);
MUST_USE enum err read_step_collect(struct read_state *state);
MUST_USE enum err read_step_data(struct read_state *state);

/* ---- reader_find.c */

MUST_USE enum err read_step_print(struct read_state *state);
MUST_USE enum err read_step_candidate(struct read_state *state);
bool read_same_message(const struct log_record *record, const struct log_read *read);

/* ---- reader_archive.c */

/* read_archive_newest: the conversation's highest number in it, 0: none. */
MUST_USE enum err read_archive_newest(struct read_state *state, struct lane_segment *segment,
                                      uint64_t *seq);
/* read_archive_seek: *has: it has numbers from seq_next on; *before: and before. */
MUST_USE enum err read_archive_seek(struct read_state *state, struct lane_segment *segment,
                                    bool *has, bool *before);
/* read_archive_collect: take what it has from seq_next on. ERR_NOT_FOUND: no more; OK: call again;
 * ERR_CLOSED: the read is finished. */
MUST_USE enum err read_archive_collect(struct read_state *state, struct lane_segment *segment);
/* read_archive_find: FIND. ERR_NOT_FOUND: it is not here; ERR_CLOSED: the read is finished. */
MUST_USE enum err read_archive_find(struct read_state *state, struct lane_segment *segment);

#endif
