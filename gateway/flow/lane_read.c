/* lane_read.c: reads and look-ups of all shards in the lanes of this one (lane.h). */
#include "gateway/flow/lane_private.h"

#include "store/archive.h"

struct lane_read {
    struct log_read read;
    uint32_t origin;
    bool find;
    uint64_t session; /* or cookie of a find */
    uint32_t answer_bytes;
    size_t out_bytes;
};

static enum err start_read(struct lane *lane, struct lane_read *read)
{
    enum err err = log_read(lane->log, &read->read);
    if (err != OK) {
        memory_give(read, MEMORY_STORE);
        return ERR_FULL;
    }
    lane->reads++;
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

enum err lane_on_read(struct lane *lane, const struct border_pull *pull)
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
    return start_read(lane, read);
}

enum err lane_on_find(const struct config *config, struct lane *lane,
                      const struct border_find *find)
{
    size_t bytes = config->message_bytes + LOG_RECORD_OVERHEAD;
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
    return start_read(lane, read);
}

static void tell_found(struct border_found *out, const struct log_record *record)
{
    struct gone_range gone;
    out->gone = gone_decode(&gone, record) == OK;
    out->kind = out->gone ? gone.kind : record->kind;
    out->payload_hash = crc32c(0, record->body);
    out->payload_size = record->body.size;
    out->seq = record->seq;
    out->time_ms = record->time_ms;
}

static void answer_find(struct shard *shard, const struct lane *lane, const struct lane_read *read)
{
    struct mesh *mesh = shard->gateway->mesh;
    struct border_found *out = (struct border_found *)(void *)mesh_reserve(
        mesh, lane->node, read->origin, MESH_LOG_ANSWER, sizeof *out);
    CHECK(out != NULL);
    *out = (struct border_found){.border = {BORDER_FOUND, (uint16_t)shard->index, 0},
                                 .cookie = read->session,
                                 .err = read->read.err};
    struct bytes encoded = buffer_bytes(&read->read.out);
    struct log_record record;
    if (read->read.err == OK && log_record_next(&encoded, &record) == OK)
        tell_found(out, &record);
    else if (read->read.err == OK)
        out->err = ERR_NOT_FOUND;
    mesh_commit(mesh, lane->node, read->origin, MESH_LOG_ANSWER, sizeof *out);
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

static void answer_read(struct shard *shard, const struct lane *lane, const struct lane_read *read)
{
    struct mesh *mesh = shard->gateway->mesh;
    struct border_pulled *out = (struct border_pulled *)(void *)mesh_reserve(
        mesh, lane->node, read->origin, MESH_LOG_ANSWER, read->answer_bytes);
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
    mesh_commit(mesh, lane->node, read->origin, MESH_LOG_ANSWER,
                sizeof *out + out->border.payload_bytes);
}

void lane_answer_reads(struct shard *shard, struct lane *lane)
{
    struct log_read *done;
    while ((done = log_read_done(lane->log)) != NULL) {
        if (done->cookie == LANE_READ_COUNT) {
            lane_count_on_read(shard, lane, done);
            continue;
        }
        struct lane_read *read = CONTAINER_OF(done, struct lane_read, read);
        if (read->find)
            answer_find(shard, lane, read);
        else
            answer_read(shard, lane, read);
        lane->reads--;
        memory_give(read, MEMORY_STORE);
    }
}
