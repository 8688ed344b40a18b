/* lane.c: appends of all shards and the lanes' turn (lane.h). */
#include "gateway/flow/lane_private.h"

/* ---- appends */

static enum err owe(struct lanes *lanes, const struct owed *owed)
{
    if (lanes->owed_count == lanes->owed_capacity) {
        size_t capacity = lanes->owed_capacity == 0 ? 1024 : lanes->owed_capacity * 2;
        struct owed *grown = memory_take(capacity * sizeof *grown, MEMORY_STORE);
        if (grown == NULL)
            return ERR_NO_MEMORY;
        for (size_t i = 0; i < lanes->owed_count; i++)
            grown[i] = lanes->owed[(lanes->owed_head + i) % lanes->owed_capacity];
        memory_give(lanes->owed, MEMORY_STORE);
        lanes->owed = grown;
        lanes->owed_capacity = capacity;
        lanes->owed_head = 0;
    }
    lanes->owed[(lanes->owed_head + lanes->owed_count++) % lanes->owed_capacity] = *owed;
    return OK;
}

static struct log_record record_from(const struct border_append *append)
{
    return (struct log_record){.realm = append->realm,
                               .kind = append->kind,
                               .expires_ms = append->expires_ms,
                               .conversation = append->conversation,
                               .seq = append->seq,
                               .sender = append->sender,
                               .device = append->device,
                               .message_id = append->message_id,
                               .time_ms = append->time_ms,
                               .body = bytes_of(append + 1, append->border.payload_bytes)};
}

static enum err on_append(struct shard *shard, const struct border_append *append)
{
    struct lanes *lanes = shard->lanes;
    uint32_t at = lane_of(append->conversation, lanes->count);
    struct owed owed = {
        .shard = append->border.source, .lane = (uint8_t)at, .wanted = append->cookie != 0};
    if (lanes->owed_count == lanes->owed_capacity) { /* make room first: what is appended is owed */
        TRY(owe(lanes, &owed) == OK ? OK : ERR_FULL);
        lanes->owed_count--;
    }
    if (owed.wanted && append->epoch != lanes->epoch) {
        owed.err = lanes->refusing;
        return owe(lanes, &owed);
    }
    struct log_record record = record_from(append);
    enum err err = log_append(lanes->lanes[at].log, &record, owed.wanted);
    if (err == ERR_FULL)
        return err;
    owed.appended = err == OK;
    lanes->lanes[at].outstanding += owed.appended;
    owed.err = err;
    if (err != OK && owed.wanted) {
        lanes->epoch++;
        lanes->refusing = err;
        log_event(LOG_ERROR, "log_refuses", LOG_ERR(err));
    }
    return owe(lanes, &owed);
}

static void answer_append(struct shard *shard, const struct owed *owed)
{
    if (!owed->wanted)
        return;
    struct mesh *mesh = shard->gateway->mesh;
    struct border_appended *out = (struct border_appended *)(void *)mesh_reserve(
        mesh, shard->index, owed->shard, MESH_LOG_ANSWER, sizeof *out);
    CHECK(out != NULL);
    *out = (struct border_appended){
        .border = {BORDER_APPENDED, (uint16_t)shard->index, 0},
        .cookie = 1,
        .err = owed->err,
        .epoch = shard->lanes->epoch,
    };
    mesh_commit(mesh, shard->index, owed->shard, MESH_LOG_ANSWER, sizeof *out);
}

/* The log failed what it had accepted: from here on everything is of an older epoch. */
static void fail_epoch(struct lanes *lanes, enum err err)
{
    if (lanes->refusing == err)
        return;
    lanes->epoch++;
    lanes->refusing = err;
}

static void answer_appends(struct shard *shard)
{
    struct lanes *lanes = shard->lanes;
    struct log_completion completion;
    while (lanes->owed_count != 0) {
        struct owed *owed = &lanes->owed[lanes->owed_head];
        struct lane *lane = &lanes->lanes[owed->lane];
        if (owed->appended) {
            if (!log_completed(lane->log, &completion))
                return;
            lane->outstanding--;
            if (completion.err == OK)
                lane->answered = completion.position;
            owed->err = completion.err;
            if (completion.err != OK)
                fail_epoch(lanes, completion.err);
        }
        answer_append(shard, owed);
        lanes->owed_head = (lanes->owed_head + 1) % lanes->owed_capacity;
        lanes->owed_count--;
    }
}

/* ---- the turn */

enum err lane_on_message(struct shard *shard, struct bytes message)
{
    const struct border *border = (const void *)message.data;
    if (border->kind == BORDER_APPEND)
        return on_append(shard, (const void *)message.data);
    if (border->kind == BORDER_READ)
        return lane_on_read(shard, (const void *)message.data);
    CHECK(border->kind == BORDER_FIND);
    return lane_on_find(shard, (const void *)message.data);
}

/* owner: the log that the operation is of, or NULL. */
static struct log *owner(const struct shard *shard, const struct io_file_op *op)
{
    const struct lanes *lanes = shard->lanes;
    for (uint32_t i = 0; lanes != NULL && i < lanes->count; i++)
        if (log_owns(lanes->lanes[i].log, op))
            return lanes->lanes[i].log;
    return NULL;
}

bool lane_owns(const struct shard *shard, const struct io_file_op *op)
{
    return owner(shard, op) != NULL;
}

void lane_on_file(struct shard *shard, struct io_file_op *op)
{
    log_on_file(owner(shard, op), op);
}

/* settled: the position of each lane below which everything was answered. */
static void settled(const struct lanes *lanes, uint64_t positions[LANES_MAX])
{
    memset(positions, 0, LANES_MAX * sizeof *positions);
    for (uint32_t i = 0; i < lanes->count; i++) {
        const struct lane *lane = &lanes->lanes[i];
        positions[i] = lane->outstanding == 0 ? log_durable(lane->log) : lane->answered;
    }
}

void lane_turn(struct shard *shard)
{
    struct lanes *lanes = shard->lanes;
    uint64_t positions[LANES_MAX];
    enum log_state state = LOG_OPEN;
    if (lanes == NULL)
        return;
    for (uint32_t i = 0; i < lanes->count; i++)
        log_flush(lanes->lanes[i].log);
    answer_appends(shard);
    for (uint32_t i = 0; i < lanes->count; i++) {
        lane_answer_reads(shard, lanes->lanes[i].log);
        if (log_state(lanes->lanes[i].log) > state)
            state = log_state(lanes->lanes[i].log);
    }
    atomic_store_explicit(&shard->gateway->log_state, state, memory_order_relaxed);
    settled(lanes, positions);
    checkpointer_turn(shard, &lanes->checkpointer, positions);
}

bool lane_idle(const struct shard *shard)
{
    const struct lanes *lanes = shard->lanes;
    return lanes == NULL || (lanes->owed_count == 0 && lanes->reads == 0);
}

uint32_t lane_jobs(const struct shard *shard)
{
    const struct lanes *lanes = shard->lanes;
    uint32_t jobs = 0;
    for (uint32_t i = 0; lanes != NULL && i < lanes->count; i++)
        jobs += log_jobs(lanes->lanes[i].log);
    return jobs;
}

void lane_checkpointed(struct shard *shard, const uint64_t positions[LANES_MAX])
{
    for (uint32_t i = 0; i < shard->lanes->count; i++)
        log_checkpointed(shard->lanes->lanes[i].log, positions[i]);
}

struct checkpointer *lane_checkpointer(struct shard *shard)
{
    return &shard->lanes->checkpointer;
}
