/* checkpoint.c: see checkpoint.h.
 *
 * CATALOG_META "checkpoint", little-endian:
 *   0 position in lane 0's log 8 | 8 writer epoch 8 | 16 positions in lane 1's …, 8 each
 * How long it is says how many lanes the store has. */
#include "gateway/flow/checkpoint.h"

#include "gateway/flow/lane.h"

#define META_KEY       "checkpoint"
#define META_BYTES_MAX (8 + 8 * LANES_MAX)
#define FLUSH_JOBS_MAX 2
/* Rows of one job: hundreds of ordinary ones, and always the largest. */
#define ROWS_BYTES (256 * 1024)

/* ---- shard 0's side: rounds */

static enum err meta_decode(struct checkpoint_meta *meta, struct bytes value)
{
    if (value.size < 16 || value.size % 8 != 0 || value.size > META_BYTES_MAX)
        return ERR_CORRUPT;
    meta->lanes = (uint32_t)(value.size / 8 - 1);
    meta->positions[0] = load_u64(value.data);
    meta->writer_epoch = load_u64(value.data + 8);
    for (uint32_t i = 1; i < meta->lanes; i++)
        meta->positions[i] = load_u64(value.data + 8 + 8 * (size_t)i);
    return OK;
}

static enum err get_meta(struct catalog_txn *txn, struct checkpoint_meta *meta)
{
    struct bytes value;
    *meta = (struct checkpoint_meta){0};
    TRY(catalog_get(txn, CATALOG_META, bytes_of_text(META_KEY), &value));
    return meta_decode(meta, value);
}

enum err checkpoint_read_meta(struct catalog *catalog, struct checkpoint_meta *meta)
{
    struct catalog_txn *txn;
    *meta = (struct checkpoint_meta){0};
    TRY(catalog_begin(catalog, &txn, false));
    enum err err = get_meta(txn, meta);
    catalog_abort(txn);
    return err == ERR_NOT_FOUND ? OK : err;
}

static enum err put_meta(struct catalog_txn *txn, const struct checkpoint_meta *meta)
{
    uint8_t value[META_BYTES_MAX];
    CHECK(meta->lanes >= 1 && meta->lanes <= LANES_MAX);
    store_u64(value, meta->positions[0]);
    store_u64(value + 8, meta->writer_epoch);
    for (uint32_t i = 1; i < meta->lanes; i++)
        store_u64(value + 8 + 8 * (size_t)i, meta->positions[i]);
    return catalog_put(txn, CATALOG_META, bytes_of_text(META_KEY),
                       bytes_of(value, 8 + 8 * (size_t)meta->lanes));
}

enum err checkpoint_write_meta(struct catalog *catalog, const struct checkpoint_meta *meta)
{
    struct catalog_txn *txn;
    TRY(catalog_begin(catalog, &txn, true));
    enum err err = put_meta(txn, meta);
    if (err != OK) {
        catalog_abort(txn);
        return err;
    }
    return catalog_commit(txn);
}

enum err checkpoint_write_position(struct catalog *catalog, uint32_t lane, uint64_t position)
{
    struct checkpoint_meta meta;
    struct catalog_txn *txn;
    TRY(catalog_begin(catalog, &txn, true));
    enum err err = get_meta(txn, &meta);
    if (err == OK && lane >= meta.lanes)
        err = ERR_CORRUPT;
    if (err == OK) {
        meta.positions[lane] = position;
        err = put_meta(txn, &meta);
    }
    if (err != OK) {
        catalog_abort(txn);
        return err;
    }
    return catalog_commit(txn);
}

struct meta_job {
    struct catalog_job catalog_job;
    struct checkpoint_meta meta;
};

static enum err meta_body(struct catalog_txn *txn, struct catalog_job *job)
{
    return put_meta(txn, &CONTAINER_OF(job, struct meta_job, catalog_job)->meta);
}

static void rest(struct shard *shard, struct checkpointer *checkpointer)
{
    checkpointer->state = CHECKPOINT_RESTING;
    checkpointer->due_ns =
        shard->now_ns + shard->gateway->config->checkpoint_interval_ms * NS_PER_MS;
    checkpointer->done_last = checkpointer->asked_last;
}

static void set_health(struct shard *shard, struct checkpointer *checkpointer,
                       enum checkpoint_health health, enum err err)
{
    if (checkpointer->health == health || checkpointer->health == CHECKPOINT_FAILED)
        return;
    checkpointer->health = health;
    metric_set(shard->metrics, METRIC_CHECKPOINT_STATE, health);
    switch (health) {
    case CHECKPOINT_WORKING:
        log_event(LOG_INFO, "checkpoint_goes_on", LOG_END);
        return;
    case CHECKPOINT_NO_SPACE:
        log_event(LOG_ERROR, "checkpoint_without_space", LOG_ERR(err),
                  LOG_TEXT("effect", "messages go on; a start would replay the log from the "
                                     "previous one; it is tried again every second"),
                  LOG_TEXT("advice", "free disk space, or raise store.catalog_map_size and start "
                                     "again"));
        return;
    case CHECKPOINT_FAILED:
        shard_count(shard, METRIC_CHECKPOINTS_FAILED, 1);
        log_event(LOG_ERROR, "checkpoint_failed", LOG_ERR(err),
                  LOG_TEXT("effect", "the next start replays the log from the previous one"));
        return;
    }
}

/* round_failed: what the round could not write is kept (no space) or lost to the catalog until the
 * next start replays it. */
static void round_failed(struct shard *shard, struct checkpointer *checkpointer, enum err err)
{
    bool space = err == ERR_NO_SPACE;
    set_health(shard, checkpointer, space ? CHECKPOINT_NO_SPACE : CHECKPOINT_FAILED, err);
    atomic_store_explicit(&shard->gateway->rows_changed, true, memory_order_relaxed);
    rest(shard, checkpointer);
    if (checkpointer->due_ns < shard->now_ns + CHECKPOINT_RETRY_NS)
        checkpointer->due_ns = shard->now_ns + CHECKPOINT_RETRY_NS;
}

static void meta_done(struct worker_job *job, void *context)
{
    struct shard *shard = context;
    struct meta_job *meta_job =
        CONTAINER_OF(CONTAINER_OF(job, struct catalog_job, job), struct meta_job, catalog_job);
    enum err err = meta_job->catalog_job.err;
    if (shard->lanes != NULL) {
        struct checkpointer *checkpointer = lane_checkpointer(shard);
        if (err == OK) {
            shard_count(shard, METRIC_CHECKPOINTS, 1);
            for (uint32_t i = 0; i < meta_job->meta.lanes; i++)
                atomic_store_explicit(&shard->gateway->lanes[i].checkpointed,
                                      meta_job->meta.positions[i], memory_order_release);
            if (checkpointer->health == CHECKPOINT_NO_SPACE)
                MARK("checkpoints go on after the catalog was full");
            set_health(shard, checkpointer, CHECKPOINT_WORKING, OK);
            rest(shard, checkpointer);
        } else {
            shard_count(shard, METRIC_CHECKPOINTS_REFUSED, err == ERR_NO_SPACE);
            round_failed(shard, checkpointer, err);
        }
    }
    memory_give(meta_job, MEMORY_STORE);
}

static void write_meta(struct shard *shard, struct checkpointer *checkpointer)
{
    struct meta_job *job = memory_take_zeroed(sizeof *job, MEMORY_STORE);
    if (job == NULL)
        return; /* next turn */
    job->meta = (struct checkpoint_meta){.writer_epoch = shard->gateway->writer_epoch,
                                         .lanes = shard->gateway->lane_count};
    memcpy(job->meta.positions, checkpointer->positions, sizeof job->meta.positions);
    job->catalog_job.body = meta_body;
    job->catalog_job.job.done = meta_done;
    if (catalog_submit(shard->gateway->catalog, shard->gateway->workers, &job->catalog_job, true,
                       shard->index) != OK) {
        memory_give(job, MEMORY_STORE);
        return;
    }
    checkpointer->state = CHECKPOINT_WRITING;
}

/* anything_new: some lane has answered what no checkpoint covers, or rows have changed by
 * themselves. */
static bool anything_new(const struct gateway *gateway)
{
    if (atomic_load_explicit(&gateway->rows_changed, memory_order_acquire))
        return true;
    for (uint32_t i = 0; i < gateway->lane_count; i++) {
        const struct lane_status *lane = &gateway->lanes[i];
        if (atomic_load_explicit(&lane->settled, memory_order_acquire) !=
            atomic_load_explicit(&lane->checkpointed, memory_order_acquire))
            return true;
    }
    return false;
}

static void begin(struct shard *shard, struct checkpointer *checkpointer)
{
    struct gateway *gateway = shard->gateway;
    bool last = shard->phase == GATEWAY_FINISHING && !checkpointer->asked_last;
    if (!last && shard->now_ns < checkpointer->due_ns)
        return;
    checkpointer->asked_last = last || checkpointer->asked_last;
    if (!anything_new(gateway) || checkpointer->health == CHECKPOINT_FAILED) {
        rest(shard, checkpointer);
        return;
    }
    checkpointer->state = CHECKPOINT_FLUSHING;
    checkpointer->round++;
    checkpointer->reported = 0;
    checkpointer->no_space = false;
    atomic_store_explicit(&gateway->rows_changed, false, memory_order_relaxed);
    atomic_store_explicit(&gateway->checkpoint_round, checkpointer->round, memory_order_release);
    for (uint32_t i = 1; i < gateway->shard_count && i < gateway->lane_count; i++)
        io_wake(gateway->group, i); /* whoever drives a lane tells of it */
}

void checkpointer_turn(struct shard *shard, struct checkpointer *checkpointer)
{
    switch (checkpointer->state) {
    case CHECKPOINT_RESTING:
        begin(shard, checkpointer);
        return;
    case CHECKPOINT_FLUSHING:
        if (checkpointer->reported == shard->gateway->shard_count)
            write_meta(shard, checkpointer);
        return;
    case CHECKPOINT_WRITING:
        return;
    }
}

void checkpointer_on_flushed(struct shard *shard, struct bytes message)
{
    const struct border_checkpoint *flushed = (const void *)message.data;
    struct checkpointer *checkpointer = lane_checkpointer(shard);
    CHECK(checkpointer->state == CHECKPOINT_FLUSHING && flushed->round == checkpointer->round);
    checkpointer->reported++;
    enum err err = (enum err)flushed->err;
    if (err == ERR_NO_SPACE)
        checkpointer->no_space = true;
    else if (err != OK)
        set_health(shard, checkpointer, CHECKPOINT_FAILED, err);
    if (checkpointer->reported != shard->gateway->shard_count)
        return;
    if (checkpointer->health == CHECKPOINT_FAILED)
        rest(shard, checkpointer);
    else if (checkpointer->no_space)
        round_failed(shard, checkpointer, ERR_NO_SPACE);
}

bool checkpointer_finished(const struct checkpointer *checkpointer)
{
    return checkpointer->done_last;
}

/* ---- every shard's side: rows */

struct flush_job {
    struct catalog_job catalog_job;
    struct flush_job *next; /* in flush_kept */
    struct buffer rows;
    uint8_t bytes[ROWS_BYTES];
};

static enum err flush_body(struct catalog_txn *txn, struct catalog_job *job)
{
    return rows_batch_merge(txn,
                            buffer_bytes(&CONTAINER_OF(job, struct flush_job, catalog_job)->rows));
}

static void flush_done(struct worker_job *worker_job, void *context)
{
    struct shard *shard = context;
    struct flush_job *job = CONTAINER_OF(CONTAINER_OF(worker_job, struct catalog_job, job),
                                         struct flush_job, catalog_job);
    enum err err = job->catalog_job.err;
    shard->checkpoint_jobs--;
    if (err == ERR_NO_SPACE) {
        MARK("the catalog is full: a checkpoint's rows are kept");
        shard_count(shard, METRIC_CHECKPOINTS_REFUSED, 1);
        shard->flush_no_space = true;
        job->next = shard->flush_kept;
        shard->flush_kept = job;
        return;
    }
    if (err != OK && shard->checkpoint_err == OK)
        shard->checkpoint_err = err;
    memory_give(job, MEMORY_STORE);
}

static enum err put_conversation(struct shard *shard, struct buffer *rows,
                                 const struct conversation *conversation)
{
    struct conversation_row *row = (struct conversation_row *)(void *)shard->scratch;
    struct inbox_row inbox;
    if (buffer_room(rows) < 2 * ROWS_BATCH_ITEM_MAX)
        return ERR_FULL;
    conversation_to_row(conversation, row);
    TRY(rows_batch_conversation(rows, conversation->work->id, row));
    for (int i = 0; i < 2; i++) {
        if (i == 1 && conversation->work->id.hi == conversation->work->id.lo)
            break;
        memset(&inbox, 0, offsetof(struct inbox_row, cursors));
        inbox.last_seq = row->last_seq;
        inbox.activity_ms = row->last_seq == 0 ? 0 : row->last_time_ms;
        inbox.read_seq = conversation->read[i];
        inbox.peer_delivered = conversation->delivered[1 - i];
        inbox.peer_read = conversation->read[1 - i];
        TRY(rows_batch_inbox(rows, conversation_user(conversation->work->id, i),
                             conversation->work->id, &inbox));
    }
    return OK;
}

static enum err put_user(struct buffer *rows, struct inbox *user)
{
    struct inbox_row row;
    for (uint32_t i = 0; i < user->entry_count; i++) {
        struct entry *entry = user->entries[i];
        if (!entry->dirty)
            continue;
        entry_to_row(entry, &row);
        TRY(rows_batch_inbox(rows, user->id, entry->conversation, &row));
        entry->dirty = false; /* a user cut in two by a full batch goes on here */
    }
    return OK;
}

/* Rows of what is on the round's lists, until the batch is full. */
static void gather(struct shard *shard, struct flush_job *job)
{
    struct buffer *rows = &job->rows;
    while (shard->flush_conversations != NULL) {
        struct conversation *conversation = shard->flush_conversations;
        struct conversation *next = conversation->work->dirty_next;
        if (put_conversation(shard, rows, conversation) != OK)
            return;
        shard->flush_conversations = next;
        conversation->work->dirty = false;
        conversation_rest(conversation);
    }
    while (shard->flush_users != NULL) {
        struct inbox *user = shard->flush_users;
        struct inbox *next = user->dirty_next;
        if (put_user(rows, user) != OK)
            return;
        shard->flush_users = next;
        user->dirty = false;
    }
}

static struct flush_job *make_job(struct shard *shard)
{
    struct flush_job *job = memory_take(sizeof *job, MEMORY_STORE);
    if (job == NULL)
        return NULL;
    memset(job, 0, offsetof(struct flush_job, bytes));
    job->rows = buffer_of(job->bytes, sizeof job->bytes);
    job->catalog_job.body = flush_body;
    job->catalog_job.job.done = flush_done;
    gather(shard, job);
    return job;
}

/* One more job on its way, or, without room in the catalog's queue, waiting in `flush_waiting`. */
static void submit_one(struct shard *shard)
{
    if (shard->flush_waiting == NULL && shard->flush_kept != NULL) {
        shard->flush_waiting = shard->flush_kept;
        shard->flush_kept = shard->flush_kept->next;
    } else if (shard->flush_waiting == NULL) {
        shard->flush_waiting = make_job(shard);
    }
    if (shard->flush_waiting == NULL ||
        catalog_submit(shard->gateway->catalog, shard->gateway->workers,
                       &shard->flush_waiting->catalog_job, true, shard->index) != OK)
        return;
    shard->flush_waiting = NULL;
    shard->checkpoint_jobs++;
}

static void report(struct shard *shard)
{
    struct mesh *mesh = shard->gateway->mesh;
    struct border_checkpoint *out = (struct border_checkpoint *)(void *)mesh_reserve(
        mesh, shard->index, 0, MESH_FANOUT, sizeof *out);
    if (out == NULL)
        return; /* next turn */
    *out = (struct border_checkpoint){
        .border = {BORDER_CHECKPOINTED, (uint16_t)shard->index, 0},
        .round = shard->checkpoint_round,
        .err = shard->checkpoint_err == OK && shard->flush_no_space ? ERR_NO_SPACE
                                                                    : shard->checkpoint_err,
    };
    mesh_commit(mesh, shard->index, 0, MESH_FANOUT, sizeof *out);
    shard->checkpoint_round = 0;
    shard->flush_no_space = false;
}

/* What a round without space left on its lists, then what became dirty since. */
static void add_dirty(struct shard *shard)
{
    struct conversation **conversations = &shard->flush_conversations;
    struct inbox **users = &shard->flush_users;
    while (*conversations != NULL)
        conversations = &(*conversations)->work->dirty_next;
    while (*users != NULL)
        users = &(*users)->dirty_next;
    *conversations = shard->dirty_conversations;
    *users = shard->dirty_users;
    shard->dirty_conversations = NULL;
    shard->dirty_users = NULL;
}

void checkpoint_on_message(struct shard *shard, struct bytes message)
{
    const struct border_checkpoint *checkpoint = (const void *)message.data;
    CHECK(shard->checkpoint_round == 0);
    if (shard->index == 0)
        lane_checkpointer(shard)->positions[checkpoint->lane] = checkpoint->position;
    if (++shard->checkpoint_told < shard->gateway->lane_count)
        return;
    shard->checkpoint_told = 0;
    shard->checkpoint_round = checkpoint->round;
    add_dirty(shard);
}

void checkpoint_turn(struct shard *shard)
{
    if (shard->checkpoint_round == 0)
        return;
    /* one job a turn, and few at a time: neither a turn nor the catalog's disk is held up */
    bool left = shard->flush_waiting != NULL || shard->flush_kept != NULL ||
                shard->flush_conversations != NULL || shard->flush_users != NULL;
    if (left && !shard->flush_no_space) {
        if (shard->checkpoint_jobs < FLUSH_JOBS_MAX)
            submit_one(shard);
        return;
    }
    if (shard->checkpoint_jobs == 0)
        report(shard);
}

void checkpoint_deinit(struct shard *shard)
{
    while (shard->flush_kept != NULL) {
        struct flush_job *job = shard->flush_kept;
        shard->flush_kept = job->next;
        memory_give(job, MEMORY_STORE);
    }
    memory_give(shard->flush_waiting, MEMORY_STORE);
    shard->flush_waiting = NULL;
}

/* ---- revocations */

void revocation_add(struct shard *shard, struct user_id user, struct device_id device,
                    uint64_t generation)
{
    struct revocation *revocation = memory_take(sizeof *revocation, MEMORY_CHAT);
    if (revocation == NULL) {
        log_event(LOG_ERROR, "revocation_lost", LOG_U64("user", user.v),
                  LOG_TEXT("effect", "the session lives until its token expires"));
        return;
    }
    *revocation = (struct revocation){shard->revocations, user, device, generation};
    shard->revocations = revocation;
}

void revocation_flush(struct shard *shard)
{
    struct mesh *mesh = shard->gateway->mesh;
    while (shard->revocations != NULL) {
        struct revocation *revocation = shard->revocations;
        uint32_t target = shard_of_user(shard->gateway, revocation->user);
        struct border_revoke *out = (struct border_revoke *)(void *)mesh_reserve(
            mesh, shard->index, target, MESH_FANOUT, sizeof *out);
        if (out == NULL)
            return;
        *out = (struct border_revoke){
            .border = {BORDER_REVOKE, (uint16_t)shard->index, 0},
            .user = revocation->user,
            .device = revocation->device,
            .generation = revocation->generation,
        };
        mesh_commit(mesh, shard->index, target, MESH_FANOUT, sizeof *out);
        shard->revocations = revocation->next;
        memory_give(revocation, MEMORY_CHAT);
    }
}
