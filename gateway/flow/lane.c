/* lane.c: see lane.h. */
#include "gateway/flow/lane.h"

#include "core/file.h"
#include "gateway/chat/replay.h"
#include "gateway/flow/checkpoint.h"
#include "gateway/flow/retention.h"
#include "store/segment.h"

#include <inttypes.h>
#include <stdio.h>

/* Answers to appends leave in order: those of the log when it completes them, refusals in their
 * place between them. */
struct owed {
    uint16_t shard;
    uint8_t lane;
    bool wanted;
    enum err err;  /* refused: why */
    bool appended; /* the log has it: its completion says err */
};

struct lane_read {
    struct log_read read;
    uint32_t origin;
    bool find;
    uint64_t session; /* or cookie of a find */
    uint32_t answer_bytes;
    size_t out_bytes;
};

struct lane {
    struct log *log;
    struct metrics *metrics;    /* the shard's, for the first one; else its own */
    uint64_t outstanding;       /* of owed */
    uint64_t answered;          /* position of the newest record answered */
    char cold[LANE_PATH_BYTES]; /* "": none */
};

struct lanes {
    struct lane lanes[LANES_MAX];
    uint32_t count;
    struct owed *owed; /* ring */
    size_t owed_head;
    size_t owed_count;
    size_t owed_capacity;
    uint32_t epoch;
    enum err refusing; /* why the present epoch began; OK: it did not */
    uint32_t reads;
    struct checkpointer checkpointer;
};

/* ---- start: recovery into the catalog */

struct recovery {
    struct catalog *catalog;
    struct catalog_txn *txn;
    struct replay *replay;
    uint64_t records;
    enum err err;
    uint32_t lane;  /* being opened */
    uint32_t lanes; /* ERR_CONFLICT: the store's */
};

static enum err recovery_write(struct recovery *recovery)
{
    if (recovery->txn == NULL)
        return OK;
    TRY(replay_flush(recovery->replay, recovery->txn));
    enum err err = catalog_commit(recovery->txn);
    recovery->txn = NULL;
    return err;
}

static void recover_record(void *context, const struct log_record *record, uint64_t position)
{
    struct recovery *recovery = context;
    (void)position;
    if (recovery->err == OK && replay_full(recovery->replay))
        recovery->err = recovery_write(recovery);
    if (recovery->err == OK && recovery->txn == NULL)
        recovery->err = catalog_begin(recovery->catalog, &recovery->txn, true);
    if (recovery->err == OK)
        recovery->err = replay_record(recovery->replay, recovery->txn, record);
    recovery->records++;
}

static struct log_options options_of(const struct config *config,
                                     const struct checkpoint_meta *meta, uint32_t at)
{
    return (struct log_options){
        .lane = at,
        .shard = LANE_SHARD,
        .segment_bytes = config->segment_bytes,
        .batch_bytes_max = config->batch_bytes,
        .reserve_bytes = config->reserve_bytes,
        .writer_epoch = meta->writer_epoch,
        .checkpoint = meta->positions[at],
        .direct = config->direct,
        .skip_sync = config->unsafe_skip_sync,
        .make_rate = config->make_rate,
        .spare_segments = config->spare_segments,
        .merge_segments = config->merge_segments,
        .merge_inputs = config->merge_inputs,
        .merge_rate = config->merge_rate,
        .archive_bytes_max = config->archive_bytes,
        .compress = config->compress,
        .trust_clock = config->trust_clock,
        .cold_ms = config->cold_age_s * 1000ull,
        .lookup_bytes = config->lookup_bytes / meta->lanes,
        .scrub_rate = config->scrub_rate,
    };
}

static enum err is_segment(void *context, const char *name)
{
    uint32_t id;
    *(bool *)context = *(bool *)context || segment_name_parse(&id, name, ".segment") == OK;
    return OK;
}

/* is_there: that a checkpoint names a place in an empty directory means that it is not the log's:
 * its disk is not mounted. */
static enum err is_there(const char *directory, uint64_t checkpoint)
{
    bool found = checkpoint == 0;
    enum err err = OK;
    if (!found)
        err = file_list(directory, is_segment, &found);
    if (err != OK && err != ERR_NOT_FOUND)
        return err;
    return found ? OK : ERR_NOT_FOUND;
}

static enum err open_lane(struct shard *shard, struct lanes *lanes, uint32_t at,
                          struct recovery *recovery, const struct checkpoint_meta *meta)
{
    const struct config *config = shard->gateway->config;
    struct lane *lane = &lanes->lanes[at];
    char directory[LANE_PATH_BYTES];
    uint64_t damaged = 0;
    uint64_t records = recovery->records;
    struct log_options options = options_of(config, meta, at);
    lanes_directory(directory, config->directory, config->lane_directories, at);
    lanes_cold_directory(lane->cold, config->cold_directory, at);
    recovery->lane = at;
    TRY(is_there(directory, meta->positions[at]));
    options.directory = directory;
    options.cold_directory = lane->cold[0] == 0 ? NULL : lane->cold;
    if (at != 0 && options.cold_directory != NULL)
        TRY(file_make_directory(lane->cold));
    retention_fill(&options.retention, config, shard->gateway->catalog);
    options.retention.bytes = (options.retention.bytes + meta->lanes - 1) / meta->lanes;
    lane->metrics = shard->metrics;
    if (at != 0)
        lane->metrics = shard->gateway->metrics[shard->gateway->shard_count + at - 1];
    TRY(log_open(&lane->log, &options, shard->io, shard->gateway->workers, lane->metrics,
                 recover_record, recovery, &damaged));
    TRY(recovery->err);
    lane->answered = log_durable(lane->log);
    log_event(damaged == 0 ? LOG_INFO : LOG_ERROR, "log_recovered", LOG_U64("lane", at),
              LOG_U64("records", recovery->records - records), LOG_U64("damaged", damaged),
              LOG_U64("position", lane->answered));
    return OK;
}

/* open_logs: what is replayed is written before a checkpoint may name it. */
static enum err open_logs(struct shard *shard, struct lanes *lanes, struct recovery *recovery)
{
    struct catalog *catalog = shard->gateway->catalog;
    struct checkpoint_meta meta;
    TRY(checkpoint_read_meta(catalog, &meta));
    if (meta.lanes != 0 && meta.lanes != lanes->count) {
        recovery->lanes = meta.lanes;
        return ERR_CONFLICT;
    }
    meta.lanes = lanes->count;
    meta.writer_epoch++;
    TRY(checkpoint_write_meta(catalog, &meta));
    TRY(lanes_write(catalog, shard->gateway->config->lane_directories));
    for (uint32_t i = 0; i < lanes->count; i++)
        TRY(open_lane(shard, lanes, i, recovery, &meta));
    TRY(recovery_write(recovery));
    for (uint32_t i = 0; i < lanes->count; i++)
        meta.positions[i] = log_durable(lanes->lanes[i].log);
    TRY(checkpoint_write_meta(catalog, &meta));
    for (uint32_t i = 0; i < lanes->count; i++)
        log_checkpointed(lanes->lanes[i].log, meta.positions[i]);
    lanes->checkpointer.meta = meta;
    return OK;
}

static void explain_open(const struct config *config, const struct recovery *recovery, enum err err,
                         char *explanation, size_t size)
{
    char directory[LANE_PATH_BYTES];
    lanes_directory(directory, config->directory, config->lane_directories, recovery->lane);
    if (err == ERR_NO_SPACE)
        snprintf(explanation, size,
                 "no space for the log under %s: a new one needs store.segment_size and "
                 "store.reserve_size (%" PRIu64 " MiB) free on its file system, a start a little; "
                 "or the catalog has reached store.catalog_map_size (%" PRIu64
                 " MiB): raise it. Nothing is lost",
                 directory, (config->segment_bytes + config->reserve_bytes) >> 20,
                 config->catalog_map_bytes >> 20);
    else if (err == ERR_CONFLICT)
        snprintf(explanation, size,
                 "the store in %s has %u lanes, but store.lane_directories names %u (besides the "
                 "first): name all of them, in the same order; how many is settled when a store is "
                 "made",
                 config->directory, recovery->lanes, lanes_count(config->lane_directories) - 1);
    else if (err == ERR_NOT_FOUND)
        snprintf(explanation, size,
                 "the log of this store is not in %s: mount its disk, correct store.directory or "
                 "store.lane_directories, or restore it from a snapshot",
                 directory);
    else if (err == ERR_INVALID)
        snprintf(explanation, size,
                 "%s has a log of another lane or another store: name the directories of "
                 "store.lane_directories in their old order",
                 directory);
    else
        snprintf(explanation, size,
                 "the log under %s could not be opened (%s): run `roost log verify %s`", directory,
                 err_name(err), directory);
}

static void close_logs(struct lanes *lanes)
{
    struct log *logs[LANES_MAX];
    uint32_t count = 0;
    for (uint32_t i = 0; i < lanes->count; i++)
        if (lanes->lanes[i].log != NULL)
            logs[count++] = lanes->lanes[i].log;
    if (count != 0)
        log_close_all(logs, count);
    memory_give(lanes->owed, MEMORY_STORE);
    memory_give(lanes, MEMORY_STORE);
}

enum err lane_create(struct shard *shard, char *explanation, size_t explanation_size)
{
    const struct config *config = shard->gateway->config;
    struct recovery recovery = {.catalog = shard->gateway->catalog};
    if (config->cold_directory[0] != 0 && file_sync_directory(config->cold_directory) != OK) {
        snprintf(
            explanation, explanation_size,
            "store.cold_directory %s cannot be used: mount it, make it, or correct the setting",
            config->cold_directory);
        return ERR_NOT_FOUND;
    }
    struct lanes *lanes = memory_take_zeroed(sizeof *lanes, MEMORY_STORE);
    if (lanes == NULL)
        return ERR_NO_MEMORY;
    lanes->count = lanes_count(config->lane_directories);
    enum err err = replay_create(&recovery.replay);
    if (err == OK)
        err = open_logs(shard, lanes, &recovery);
    replay_destroy(recovery.replay);
    if (err != OK) {
        if (recovery.txn != NULL)
            catalog_abort(recovery.txn);
        close_logs(lanes);
        explain_open(config, &recovery, err, explanation, explanation_size);
        return err;
    }
    shard->lanes = lanes;
    return OK;
}

void lane_destroy(struct shard *shard)
{
    if (shard->lanes != NULL)
        close_logs(shard->lanes);
    shard->lanes = NULL;
}

void lane_abandon(struct shard *shard)
{
    struct lanes *lanes = shard->lanes;
    if (lanes == NULL)
        return;
    for (uint32_t i = 0; i < lanes->count; i++)
        log_abandon(lanes->lanes[i].log);
    memory_give(lanes->owed, MEMORY_STORE);
    memory_give(lanes, MEMORY_STORE);
    shard->lanes = NULL;
}

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

/* ---- reads and look-ups */

static enum err start_read(struct shard *shard, struct lane_read *read)
{
    struct lanes *lanes = shard->lanes;
    uint32_t at = lane_of(read->read.conversation, lanes->count);
    enum err err = log_read(lanes->lanes[at].log, &read->read);
    if (err != OK) {
        memory_give(read, MEMORY_STORE);
        return ERR_FULL;
    }
    lanes->reads++;
    return OK;
}

static struct lane_read *make_read(size_t out_bytes)
{
    struct lane_read *read = memory_take(sizeof *read + out_bytes, MEMORY_STORE);
    if (read == NULL)
        return NULL;
    memset(read, 0, sizeof *read);
    read->out_bytes = out_bytes;
    read->read.out = buffer_of(read + 1, out_bytes);
    return read;
}

static enum err on_read(struct shard *shard, const struct border_pull *pull)
{
    /* encoded records of the log are never smaller than those of the answer */
    struct lane_read *read = make_read(pull->answer_bytes);
    if (read == NULL)
        return ERR_FULL;
    read->origin = pull->border.source;
    read->session = pull->session;
    read->answer_bytes = pull->answer_bytes;
    read->read.kind = LOG_READ_RANGE;
    read->read.conversation = pull->conversation;
    read->read.from_seq = pull->from_seq;
    read->read.to_seq = pull->to_seq;
    read->read.records_max = pull->records_max;
    return start_read(shard, read);
}

static enum err on_find(struct shard *shard, const struct border_find *find)
{
    size_t bytes = shard->gateway->config->message_bytes + LOG_RECORD_OVERHEAD;
    struct lane_read *read = make_read(bytes);
    if (read == NULL)
        return ERR_FULL;
    read->origin = find->border.source;
    read->find = true;
    read->session = find->cookie;
    read->read.kind = LOG_READ_FIND;
    read->read.conversation = find->conversation;
    read->read.sender = find->sender;
    read->read.device = find->device;
    read->read.message_id = find->message_id;
    read->read.records_max = 1;
    return start_read(shard, read);
}

static void answer_find(struct shard *shard, const struct lane_read *read)
{
    struct mesh *mesh = shard->gateway->mesh;
    struct border_found *out = (struct border_found *)(void *)mesh_reserve(
        mesh, shard->index, read->origin, MESH_LOG_ANSWER, sizeof *out);
    CHECK(out != NULL);
    *out = (struct border_found){.border = {BORDER_FOUND, (uint16_t)shard->index, 0},
                                 .cookie = read->session,
                                 .err = read->read.err};
    struct bytes encoded = buffer_bytes(&read->read.out);
    struct log_record record;
    if (read->read.err == OK) {
        if (log_record_next(&encoded, &record) == OK) {
            out->payload_hash = crc32c(0, record.body);
            out->payload_size = record.body.size;
            out->kind = record.kind;
            out->seq = record.seq;
            out->time_ms = record.time_ms;
        } else {
            out->err = ERR_NOT_FOUND;
        }
    }
    mesh_commit(mesh, shard->index, read->origin, MESH_LOG_ANSWER, sizeof *out);
}

static void copy_records(struct border_pulled *out, size_t room, struct bytes encoded)
{
    uint8_t *at = (uint8_t *)(out + 1);
    const uint8_t *end = (const uint8_t *)out + room;
    struct log_record record;
    while (log_record_next(&encoded, &record) == OK) {
        const struct border_record header = {.seq = record.seq,
                                             .time_ms = record.time_ms,
                                             .expires_ms = record.expires_ms,
                                             .sender = record.sender,
                                             .device = record.device,
                                             .payload_bytes = (uint32_t)record.body.size,
                                             .message_id = record.message_id,
                                             .kind = record.kind};
        size_t size = border_padded(sizeof header + record.body.size);
        if (size > (size_t)(end - at)) {
            if (out->records == 0) {
                out->outcome = PULL_TOO_SMALL;
                out->size_needed = sizeof *out + size;
            }
            break;
        }
        memcpy(at, &header, sizeof header);
        memcpy(at + sizeof header, record.body.data, record.body.size);
        at += size;
        out->records++;
    }
    out->border.payload_bytes = (uint32_t)(at - (uint8_t *)(out + 1));
}

static void answer_read(struct shard *shard, const struct lane_read *read)
{
    struct mesh *mesh = shard->gateway->mesh;
    struct border_pulled *out = (struct border_pulled *)(void *)mesh_reserve(
        mesh, shard->index, read->origin, MESH_LOG_ANSWER, read->answer_bytes);
    CHECK(out != NULL);
    *out = (struct border_pulled){.border = {BORDER_PULLED, (uint16_t)shard->index, 0},
                                  .session = read->session,
                                  .conversation = read->read.conversation,
                                  .outcome = PULL_OK,
                                  .promised = read->answer_bytes};
    enum err err = read->read.err;
    if (err == ERR_FULL) {
        out->outcome = PULL_TOO_SMALL;
        out->size_needed = sizeof *out + read->read.size_needed + LOG_RECORD_OVERHEAD;
    } else if (err == ERR_NOT_FOUND) {
        out->outcome = PULL_DAMAGED;
        out->missing_from = read->read.from_seq;
        out->missing_to = read->read.to_seq;
    } else if (err == ERR_CORRUPT || err == ERR_EXPIRED) {
        out->outcome = err == ERR_CORRUPT ? PULL_DAMAGED : PULL_GONE;
        out->missing_from = read->read.missing_from;
        out->missing_to = read->read.missing_to;
    } else if (err != OK) {
        out->outcome = PULL_BUSY; /* the device did not answer this time */
    }
    if (out->outcome == PULL_OK || out->outcome == PULL_DAMAGED || out->outcome == PULL_GONE)
        copy_records(out, read->answer_bytes, buffer_bytes(&read->read.out));
    mesh_commit(mesh, shard->index, read->origin, MESH_LOG_ANSWER,
                sizeof *out + out->border.payload_bytes);
}

static void answer_reads(struct shard *shard, struct log *log)
{
    struct log_read *done;
    while ((done = log_read_done(log)) != NULL) {
        struct lane_read *read = CONTAINER_OF(done, struct lane_read, read);
        if (read->find)
            answer_find(shard, read);
        else
            answer_read(shard, read);
        shard->lanes->reads--;
        memory_give(read, MEMORY_STORE);
    }
}

/* ---- the turn */

enum err lane_on_message(struct shard *shard, struct bytes message)
{
    const struct border *border = (const void *)message.data;
    if (border->kind == BORDER_APPEND)
        return on_append(shard, (const void *)message.data);
    if (border->kind == BORDER_READ)
        return on_read(shard, (const void *)message.data);
    CHECK(border->kind == BORDER_FIND);
    return on_find(shard, (const void *)message.data);
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
        answer_reads(shard, lanes->lanes[i].log);
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
