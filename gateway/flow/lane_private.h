/* lane_private.h: the inside of the lanes on their shard: what lane.c, lane_open.c and lane_read.c
 * share. Nobody else includes it.
 * Flow:       lane_open.c makes and ends struct lanes; lane.c: appends and the turn; lane_read.c:
 *             reads and look-ups; lane_count.c: what stands below a number
 * Owns:       see the fields
 * Invariants: lane.h's */
#ifndef GATEWAY_FLOW_LANE_PRIVATE_H
#define GATEWAY_FLOW_LANE_PRIVATE_H

#include "gateway/flow/lane.h"

/* Answers to a lane's appends leave in order: those of the log when it completes them, refusals in
 * their place between them. */
struct owed {
    uint16_t shard;
    bool wanted;
    enum err err;  /* refused: why */
    bool appended; /* the log has it: its completion says err */
};

struct lane {
    uint32_t index; /* in the store */
    uint32_t node;  /* in the mesh */
    struct lane_status *status;
    struct log *log;
    struct metrics *metrics; /* shard 0's, for the first one; else its own */
    struct owed *owed;       /* ring */
    size_t owed_head;
    size_t owed_count;
    size_t owed_capacity;
    uint64_t outstanding; /* owed that the log has */
    uint64_t answered;    /* position of the newest record answered */
    uint32_t epoch;
    enum err refusing;         /* why the present epoch began; OK: it did not */
    uint32_t reads;            /* under way, counts that wait among them */
    struct lane_count *counts; /* asked for first … last: the first is under way or rests */
    uint64_t count_due_ns;     /* its next read, not before */
    bool count_reading;
    uint64_t round;             /* the newest checkpoint round that it told of */
    char cold[LANE_PATH_BYTES]; /* "": none */
};

struct lanes {
    struct lane lanes[LANES_MAX]; /* every shards-th of the store's */
    uint32_t count;
    struct checkpointer checkpointer; /* shard 0's */
};

/* ---- lane_read.c */
/* lane_on_read, lane_on_find: ERR_FULL: leave it in the ring. */
MUST_USE enum err lane_on_read(struct lane *lane, const struct border_pull *pull);
MUST_USE enum err lane_on_find(const struct config *config, struct lane *lane,
                               const struct border_find *find);
#define LANE_READ_COUNT 1u /* log_read.cookie of lane_count.c's */
/* lane_answer_reads: those that are finished. */
void lane_answer_reads(struct shard *shard, struct lane *lane);

/* ---- lane_count.c */
/* lane_on_count: it waits for its turn. ERR_FULL: leave it in the ring. */
MUST_USE enum err lane_on_count(const struct config *config, struct lane *lane,
                                const struct border_count *ask);
/* lane_count_turn: once a turn: the next read, if it is due. */
void lane_count_turn(struct shard *shard, struct lane *lane);
/* lane_count_on_read: some of its page has been read: the answer, or more when that is due. */
void lane_count_on_read(struct shard *shard, struct lane *lane, struct log_read *read);
/* lane_count_deinit: those that nobody will answer; the log is closed. */
void lane_count_deinit(struct lane *lane);

#endif
