/* reader.h: the inside of a read, for reader.c and reader_archive.c only.
 * Flow:       reader.c steps a read from segment to segment; what stands in an archive is found by
 *             reader_archive.c
 * Invariants: a state waits for one disk read of its own at most; `arrived`: it is through
 * Bounds:     the sums below */
#ifndef STORE_READER_H
#define STORE_READER_H

#include "store/log_private.h"

#define READ_SPANS      8u           /* data blocks of an archive fetched with one disk read, */
#define READ_SPAN_BYTES (128u << 10) /* unless one alone is larger */
#define READ_CANDIDATES 32u

/* archive_want: which block of an archive the disk read is for. */
enum archive_want { WANT_NOTHING, WANT_DIRECTORY, WANT_TABLE, WANT_DATA, WANT_PRINTS };

enum read_phase { READ_NEWEST, READ_SEEK, READ_COLLECT, READ_DATA, READ_PRINT, READ_CANDIDATE };

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
    bool waiting;      /* for an operation of its own */
    bool arrived;      /* that operation is through */
    uint32_t tries;    /* of that operation that failed */
    struct lane_segment *segment; /* of the operation in flight */
    uint64_t base;                /* file offset of what is in data */
    struct io_file_op op;
    uint8_t *data;
    size_t capacity;
    uint32_t hit_count;
    uint32_t hit_at;
    uint32_t hit_end; /* DATA: hits of the disk read in flight end here */
    struct index_hit hits[SIDECAR_HITS];
    uint32_t resume_at; /* SEEK: where to go on, plus 1, after archives were probed */
    bool probed;
    bool restart;       /* the segments have changed while it waited */
    bool bottom;        /* SEEK has seen all segments and found nothing before from_seq */
    uint64_t seq_first; /* RANGE: where it began */

    /* an archive, reader_archive.c */
    enum archive_want want;
    uint64_t want_offset;
    uint32_t entry_of; /* id of the archive that entry is of; 0: none */
    bool entry_found;
    struct archive_entry entry;
    bool block_known; /* block_next: the data block to look at next, else found by the number */
    uint32_t block_next;
    struct archive_row spans[READ_SPANS]; /* data blocks of the disk read in flight */
    uint32_t span_count;
    struct buffer raw; /* of a compressed block */
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
/* read_arrived: what the finished disk read brought, from offset on; empty on an error. */
struct bytes read_arrived(const struct read_state *state, uint64_t offset);
/* read_ready: whether the segment can be looked at. ERR_AGAIN: wait; ERR_NOT_FOUND: nothing in it,
 * or it is lost for good (state->lost); else it cannot be loaded now. */
MUST_USE enum err read_ready(struct read_state *state, struct lane_segment *segment);
/* read_finish: the read goes to log_read_done; the state is gone. */
void read_finish(struct read_state *state, enum err err);
void read_finish_missing(struct read_state *state, uint64_t from, uint64_t to);
void read_finish_gone(struct read_state *state, uint64_t from, uint64_t to);
/* read_gap: the numbers from seq_next to before `seq` are not where they should be: damaged, or,
 * before the oldest kept one, freed by retention. Ends the read. */
void read_gap(struct read_state *state, uint64_t seq);
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
