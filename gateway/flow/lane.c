/* lane.c: see lane.h. */
#include "gateway/flow/lane.h"

#include "core/file.h"
#include "gateway/chat/replay.h"
#include "gateway/flow/checkpoint.h"
#include "gateway/flow/retention.h"

#include <inttypes.h>
#include <stdio.h>

/* Answers to appends leave in order: those of the log when it completes them, refusals in their
 * place between them. */
struct owed {
    uint16_t shard;
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

static enum err open_log(struct shard *shard, struct lane *lane, struct recovery *recovery,
                         uint64_t *damaged)
{
    const struct config *config = shard->gateway->config;
    char directory[CONFIG_TEXT_BYTES + 8];
    struct checkpoint_meta meta;
    TRY(checkpoint_read_meta(shard->gateway->catalog, &meta));
    meta.writer_epoch++;
    TRY(checkpoint_write_meta(shard->gateway->catalog, &meta));
    snprintf(directory, sizeof directory, "%s/log", config->directory);
    struct log_options options = {
        .directory = directory,
        .lane = 0,
        .shard = shard->index,
        .segment_bytes = config->segment_bytes,
        .batch_bytes_max = config->batch_bytes,
        .reserve_bytes = config->reserve_bytes,
        .writer_epoch = meta.writer_epoch,
        .checkpoint = meta.position,
        .direct = config->direct,
        .skip_sync = config->unsafe_skip_sync,
        .merge_segments = config->merge_segments,
        .merge_inputs = config->merge_inputs,
        .merge_rate = config->merge_rate,
        .archive_bytes_max = config->archive_bytes,
        .compress = config->compress,
        .trust_clock = config->trust_clock,
        .cold_directory = config->cold_directory[0] == 0 ? NULL : config->cold_directory,
        .cold_ms = config->cold_age_s * 1000ull,
        .lookup_bytes = config->lookup_bytes,
        .scrub_rate = config->scrub_rate,
    };
    retention_fill(&options.retention, config, shard->gateway->catalog);
    TRY(log_open(&lane->log, &options, shard->io, shard->gateway->workers, shard->metrics,
                 recover_record, recovery, damaged));
    TRY(recovery->err);
    TRY(recovery_write(recovery));
    meta.position = log_durable(lane->log);
    TRY(checkpoint_write_meta(shard->gateway->catalog, &meta));
    log_checkpointed(lane->log, meta.position);
    lane->checkpointer.meta = meta;
    return OK;
}

static void explain_open(const struct config *config, enum err err, char *explanation, size_t size)
{
    if (err == ERR_NO_SPACE)
        snprintf(
            explanation, size,
            "no space for the log under %s/log: a new one needs store.segment_size and "
            "store.reserve_size (%" PRIu64 " MiB) free on its file system, a start a little; or "
            "the catalog has reached store.catalog_map_size (%" PRIu64 " MiB): raise it. Nothing "
            "is lost",
            config->directory, (config->segment_bytes + config->reserve_bytes) >> 20,
            config->catalog_map_bytes >> 20);
    else
        snprintf(explanation, size,
                 "the log under %s/log could not be opened (%s): run `roost log verify %s/log`",
                 config->directory, err_name(err), config->directory);
}

enum err lane_create(struct shard *shard, char *explanation, size_t explanation_size)
{
    struct lane *lane = memory_take_zeroed(sizeof *lane, MEMORY_STORE);
    struct recovery recovery = {.catalog = shard->gateway->catalog};
    uint64_t damaged = 0;
    if (lane == NULL)
        return ERR_NO_MEMORY;
    const char *cold = shard->gateway->config->cold_directory;
    if (cold[0] != 0 && file_sync_directory(cold) != OK) {
        memory_give(lane, MEMORY_STORE);
        snprintf(
            explanation, explanation_size,
            "store.cold_directory %s cannot be used: mount it, make it, or correct the setting",
            cold);
        return ERR_NOT_FOUND;
    }
    enum err err = replay_create(&recovery.replay);
    if (err == OK)
        err = open_log(shard, lane, &recovery, &damaged);
    replay_destroy(recovery.replay);
    if (err != OK) {
        if (recovery.txn != NULL)
            catalog_abort(recovery.txn);
        if (lane->log != NULL)
            log_close(lane->log);
        memory_give(lane, MEMORY_STORE);
        explain_open(shard->gateway->config, err, explanation, explanation_size);
        return err;
    }
    shard->lane = lane;
    log_event(damaged == 0 ? LOG_INFO : LOG_ERROR, "log_recovered",
              LOG_U64("records", recovery.records), LOG_U64("damaged", damaged),
              LOG_U64("position", log_durable(lane->log)));
    return OK;
}

void lane_destroy(struct shard *shard)
{
    struct lane *lane = shard->lane;
    if (lane == NULL)
        return;
    if (lane->log != NULL)
        log_close(lane->log);
    memory_give(lane->owed, MEMORY_STORE);
    memory_give(lane, MEMORY_STORE);
    shard->lane = NULL;
}

void lane_abandon(struct shard *shard)
{
    struct lane *lane = shard->lane;
    if (lane == NULL)
        return;
    log_abandon(lane->log);
    memory_give(lane->owed, MEMORY_STORE);
    memory_give(lane, MEMORY_STORE);
    shard->lane = NULL;
}

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

static enum err on_append(struct shard *shard, const struct border_append *append)
{
    struct lane *lane = shard->lane;
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
    owed.err = err;
    if (err != OK && owed.wanted) {
        lane->epoch++;
        lane->refusing = err;
        log_event(LOG_ERROR, "log_refuses", LOG_ERR(err));
    }
    return owe(lane, &owed);
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
        .epoch = shard->lane->epoch,
    };
    mesh_commit(mesh, shard->index, owed->shard, MESH_LOG_ANSWER, sizeof *out);
}

/* The log failed what it had accepted: from here on everything is of an older epoch. */
static void fail_epoch(struct lane *lane, enum err err)
{
    if (lane->refusing == err)
        return;
    lane->epoch++;
    lane->refusing = err;
}

static void answer_appends(struct shard *shard)
{
    struct lane *lane = shard->lane;
    struct log_completion completion;
    while (lane->owed_count != 0) {
        struct owed *owed = &lane->owed[lane->owed_head];
        if (owed->appended) {
            if (!log_completed(lane->log, &completion))
                return;
            owed->err = completion.err;
            if (completion.err != OK)
                fail_epoch(lane, completion.err);
        }
        answer_append(shard, owed);
        lane->owed_head = (lane->owed_head + 1) % lane->owed_capacity;
        lane->owed_count--;
    }
}

/* ---- reads and look-ups */

static enum err start_read(struct shard *shard, struct lane_read *read)
{
    enum err err = log_read(shard->lane->log, &read->read);
    if (err != OK) {
        memory_give(read, MEMORY_STORE);
        return ERR_FULL;
    }
    shard->lane->reads++;
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
                                             .message_id = record.message_id};
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

static void answer_reads(struct shard *shard)
{
    struct log_read *done;
    while ((done = log_read_done(shard->lane->log)) != NULL) {
        struct lane_read *read = CONTAINER_OF(done, struct lane_read, read);
        if (read->find)
            answer_find(shard, read);
        else
            answer_read(shard, read);
        shard->lane->reads--;
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

bool lane_owns(const struct shard *shard, const struct io_file_op *op)
{
    return shard->lane != NULL && log_owns(shard->lane->log, op);
}

void lane_on_file(struct shard *shard, struct io_file_op *op)
{
    log_on_file(shard->lane->log, op);
}

void lane_turn(struct shard *shard)
{
    struct lane *lane = shard->lane;
    if (lane == NULL)
        return;
    log_flush(lane->log);
    answer_appends(shard);
    answer_reads(shard);
    atomic_store_explicit(&shard->gateway->log_state, log_state(lane->log), memory_order_relaxed);
    checkpointer_turn(shard, &lane->checkpointer, lane->log);
}

bool lane_idle(const struct shard *shard)
{
    const struct lane *lane = shard->lane;
    return lane == NULL || (lane->owed_count == 0 && lane->reads == 0);
}

uint32_t lane_jobs(const struct shard *shard)
{
    return shard->lane == NULL ? 0 : log_jobs(shard->lane->log);
}

void lane_checkpointed(struct shard *shard, uint64_t position)
{
    log_checkpointed(shard->lane->log, position);
}

struct checkpointer *lane_checkpointer(struct shard *shard)
{
    return &shard->lane->checkpointer;
}
