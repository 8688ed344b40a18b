/* lane.c: appends of all shards and the lanes' turn (lane.h). */
#include "gateway/flow/lane_private.h"

/* ---- appends */

static enum err owe(struct lane *lane, const struct owed *owed)
{
    if (lane->owed_count == lane->owed_capacity) {
        size_t capacity = lane->owed_capacity == 0 ? 1024 : lane->owed_capacity * 2;
        struct owed *grown = memory_take(capacity * sizeof *grown, MEMORY_STORE);
        if (grown == NULL)
            return ERR_NO_MEMORY;
        for (size_t i = 0; i < lane->owed_count; i++)
            grown[i] = lane->owed[(lane->owed_head + i) % lane->owed_capacity];
        memory_give(lane->owed, MEMORY_STORE);
        lane->owed = grown;
        lane->owed_capacity = capacity;
        lane->owed_head = 0;
    }
    lane->owed[(lane->owed_head + lane->owed_count++) % lane->owed_capacity] = *owed;
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

static enum err on_append(struct lane *lane, const struct border_append *append)
{
    struct owed owed = {.shard = append->border.source, .wanted = append->cookie != 0};
    if (lane->owed_count == lane->owed_capacity) { /* make room first: what is appended is owed */
        TRY(owe(lane, &owed) == OK ? OK : ERR_FULL);
        lane->owed_count--;
    }
    if (owed.wanted && append->epoch != lane->epoch) {
        owed.err = lane->refusing;
        return owe(lane, &owed);
    }
    struct log_record record = record_from(append);
    enum err err = log_append(lane->log, &record, owed.wanted);
    if (err == ERR_FULL)
        return err;
    owed.appended = err == OK;
    lane->outstanding += owed.appended;
    owed.err = err;
    if (err != OK && owed.wanted) {
        lane->epoch++;
        lane->refusing = err;
        log_event(LOG_ERROR, "log_refuses", LOG_U64("lane", lane->index), LOG_ERR(err));
    }
    return owe(lane, &owed);
}

static void answer_append(struct shard *shard, const struct lane *lane, const struct owed *owed)
{
    if (!owed->wanted)
        return;
    struct mesh *mesh = shard->gateway->mesh;
    struct border_appended *out = (struct border_appended *)(void *)mesh_reserve(
        mesh, lane->node, owed->shard, MESH_LOG_ANSWER, sizeof *out);
    CHECK(out != NULL);
    *out = (struct border_appended){
        .border = {BORDER_APPENDED, (uint16_t)shard->index, 0},
        .cookie = 1,
        .err = owed->err,
        .epoch = lane->epoch,
        .lane = lane->index,
    };
    mesh_commit(mesh, lane->node, owed->shard, MESH_LOG_ANSWER, sizeof *out);
}

/* The log failed what it had accepted: from here on everything is of an older epoch. */
static void fail_epoch(struct lane *lane, enum err err)
{
    if (lane->refusing == err)
        return;
    lane->epoch++;
    lane->refusing = err;
}

static void answer_appends(struct shard *shard, struct lane *lane)
{
    struct log_completion completion;
    while (lane->owed_count != 0) {
        struct owed *owed = &lane->owed[lane->owed_head];
        if (owed->appended) {
            if (!log_completed(lane->log, &completion))
                return;
            lane->outstanding--;
            if (completion.err == OK)
                lane->answered = completion.position;
            owed->err = completion.err;
            if (completion.err != OK)
                fail_epoch(lane, completion.err);
        }
        answer_append(shard, lane, owed);
        lane->owed_head = (lane->owed_head + 1) % lane->owed_capacity;
        lane->owed_count--;
    }
}

/* ---- the turn */

static enum err on_message(struct shard *shard, struct lane *lane, struct bytes message)
{
    const struct border *border = (const void *)message.data;
    CHECK(border->kind == BORDER_APPEND || border->kind == BORDER_READ ||
          border->kind == BORDER_FIND || border->kind == BORDER_COUNT);
    if (border->kind == BORDER_APPEND)
        return on_append(lane, (const void *)message.data);
    if (border->kind == BORDER_READ)
        return lane_on_read(lane, (const void *)message.data);
    if (border->kind == BORDER_COUNT)
        return lane_on_count(shard->gateway->config, lane, (const void *)message.data);
    return lane_on_find(shard->gateway->config, lane, (const void *)message.data);
}

/* expect: the append after the next one is on its way already: the log is told. */
static void expect(struct mesh *mesh, struct lane *lane, uint32_t source, struct bytes message)
{
    for (int i = 0; i < 2; i++)
        message = mesh_peek_after(mesh, lane->node, source, MESH_LOG, message);
    const struct border_append *append = (const void *)message.data;
    if (append != NULL && append->border.kind == BORDER_APPEND)
        log_expect(lane->log, append->conversation);
}

bool lane_on_messages(struct shard *shard)
{
    struct mesh *mesh = shard->gateway->mesh;
    struct lanes *lanes = shard->lanes;
    bool any = false;
    for (uint32_t i = 0; lanes != NULL && i < lanes->count; i++) {
        struct lane *lane = &lanes->lanes[i];
        for (uint32_t source = 0; source < shard->gateway->shard_count; source++) {
            struct bytes message;
            while ((message = mesh_peek(mesh, lane->node, source, MESH_LOG)).size != 0) {
                expect(mesh, lane, source, message);
                if (on_message(shard, lane, message) != OK)
                    break;
                mesh_pop(mesh, lane->node, source, MESH_LOG);
                any = true;
            }
        }
    }
    return any;
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

/* Everything before the position was answered before this, on the same rings. */
static void tell_shards(struct shard *shard, const struct lane *lane, uint64_t position)
{
    struct mesh *mesh = shard->gateway->mesh;
    for (uint32_t target = 0; target < shard->gateway->shard_count; target++) {
        struct border_checkpoint *out = (struct border_checkpoint *)(void *)mesh_reserve(
            mesh, lane->node, target, MESH_LOG_ANSWER, sizeof *out);
        CHECK(out != NULL); /* the standing promise */
        *out = (struct border_checkpoint){
            .border = {BORDER_CHECKPOINT, (uint16_t)shard->index, 0},
            .round = lane->round,
            .lane = lane->index,
            .position = position,
        };
        mesh_commit(mesh, lane->node, target, MESH_LOG_ANSWER, sizeof *out);
    }
}

/* What the lane says of itself, and hears, in every turn: after answer_appends. */
static void report(struct shard *shard, struct lane *lane)
{
    struct lane_status *status = lane->status;
    uint64_t settled = lane->outstanding == 0 ? log_durable(lane->log) : lane->answered;
    uint64_t round = atomic_load_explicit(&shard->gateway->checkpoint_round, memory_order_acquire);
    atomic_store_explicit(&status->state, log_state(lane->log), memory_order_relaxed);
    atomic_store_explicit(&status->settled, settled, memory_order_release);
    log_checkpointed(lane->log, atomic_load_explicit(&status->checkpointed, memory_order_acquire));
    if (round == lane->round)
        return;
    lane->round = round;
    tell_shards(shard, lane, settled);
}

void lane_turn(struct shard *shard)
{
    struct lanes *lanes = shard->lanes;
    if (lanes == NULL)
        return;
    if (shard->index == 0)
        checkpointer_turn(shard, &lanes->checkpointer);
    for (uint32_t i = 0; i < lanes->count; i++) {
        struct lane *lane = &lanes->lanes[i];
        log_flush(lane->log);
        answer_appends(shard, lane);
        atomic_store_explicit(&lane->status->dropped_ms, log_dropped_ms(lane->log),
                              memory_order_release);
        lane_count_turn(shard, lane); /* before: what has no need of the disk is read at once */
        lane_answer_reads(shard, lane);
        report(shard, lane);
    }
}

uint64_t lane_next_ns(const struct shard *shard)
{
    const struct lanes *lanes = shard->lanes;
    uint64_t next_ns = UINT64_MAX;
    for (uint32_t i = 0; lanes != NULL && i < lanes->count; i++) {
        const struct lane *lane = &lanes->lanes[i];
        if (lane->counts != NULL && !lane->count_reading && lane->count_due_ns < next_ns)
            next_ns = lane->count_due_ns;
    }
    return next_ns;
}

bool lane_idle(const struct shard *shard)
{
    const struct lanes *lanes = shard->lanes;
    for (uint32_t i = 0; lanes != NULL && i < lanes->count; i++)
        if (lanes->lanes[i].owed_count != 0 || lanes->lanes[i].reads != 0)
            return false;
    return true;
}

uint32_t lane_jobs(const struct shard *shard)
{
    const struct lanes *lanes = shard->lanes;
    uint32_t jobs = 0;
    for (uint32_t i = 0; lanes != NULL && i < lanes->count; i++)
        jobs += log_jobs(lanes->lanes[i].log);
    return jobs;
}

struct checkpointer *lane_checkpointer(struct shard *shard)
{
    return &shard->lanes->checkpointer;
}
