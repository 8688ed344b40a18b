/* fanout.c: see fanout.h. */
#include "gateway/flow/fanout.h"

#include "gateway/flow/commit.h"
#include "gateway/flow/lane.h"

static void list_slices(struct shard *shard, struct conversation *conversation)
{
    struct conversation_work *work = conversation->work;
    if (work->listed_slices)
        return;
    work->listed_slices = true;
    work->slices_next = shard->dirty_slices;
    shard->dirty_slices = conversation;
}

static struct border_record record_of(const struct cached *message)
{
    return (struct border_record){.seq = message->seq,
                                  .time_ms = message->time_ms,
                                  .expires_ms = message->expires_ms,
                                  .sender = message->sender,
                                  .device = message->device,
                                  .payload_bytes = message->size,
                                  .message_id = message->message_id,
                                  .kind = message->kind};
}

static bool deliver(struct shard *shard, const struct conversation *conversation, uint32_t target,
                    const struct cached *message)
{
    struct mesh *mesh = shard->gateway->mesh;
    size_t size = sizeof(struct border_deliver) + message->size;
    struct border_deliver *out = (struct border_deliver *)(void *)mesh_reserve(
        mesh, shard->index, target, MESH_FANOUT, size);
    if (out == NULL)
        return false;
    *out = (struct border_deliver){
        .border = {BORDER_DELIVER, (uint16_t)shard->index, message->size},
        .conversation = conversation->work->id,
        .arrived_ns = message->arrived_ns,
        .record = record_of(message),
    };
    memcpy(out + 1, message->payload, message->size);
    mesh_commit(mesh, shard->index, target, MESH_FANOUT, size);
    return true;
}

void fanout_message(struct shard *shard, struct conversation *conversation,
                    const struct cached *message)
{
    for (int i = 0; i < 2; i++) {
        struct slice *slice = &conversation->work->slices[i];
        if (!slice->used || (!slice->dirty && deliver(shard, conversation, slice->shard, message)))
            continue;
        if (!slice->dirty)
            slice->seq_told = message->seq - 1;
        slice->dirty = true;
        shard_count(shard, METRIC_MESH_FULL, 1);
        list_slices(shard, conversation);
    }
}

static bool tell_moved(struct shard *shard, const struct conversation *conversation,
                       struct slice *slice)
{
    struct mesh *mesh = shard->gateway->mesh;
    struct border_moved *out = (struct border_moved *)(void *)mesh_reserve(
        mesh, shard->index, slice->shard, MESH_FANOUT, sizeof *out);
    if (out == NULL)
        return false;
    *out = (struct border_moved){
        .border = {BORDER_MOVED, (uint16_t)shard->index, 0},
        .conversation = conversation->work->id,
        .from_seq = slice->seq_told + 1,
        .to_seq = conversation_visible(conversation),
        .time_ms = conversation->last_time_ms,
    };
    mesh_commit(mesh, shard->index, slice->shard, MESH_FANOUT, sizeof *out);
    slice->dirty = false;
    return true;
}

static bool tell_receipts(struct shard *shard, const struct conversation *conversation,
                          struct slice *slice)
{
    struct mesh *mesh = shard->gateway->mesh;
    struct border_receipt *out = (struct border_receipt *)(void *)mesh_reserve(
        mesh, shard->index, slice->shard, MESH_FANOUT, sizeof *out);
    if (out == NULL)
        return false;
    *out = (struct border_receipt){
        .border = {BORDER_RECEIPT, (uint16_t)shard->index, 0},
        .conversation = conversation->work->id,
        .delivered = {conversation->delivered[0], conversation->delivered[1]},
        .read = {conversation->read[0], conversation->read[1]},
    };
    mesh_commit(mesh, shard->index, slice->shard, MESH_FANOUT, sizeof *out);
    slice->receipts_dirty = false;
    return true;
}

void fanout_flush(struct shard *shard)
{
    struct conversation *list = shard->dirty_slices;
    shard->dirty_slices = NULL;
    while (list != NULL) {
        struct conversation *conversation = list;
        list = conversation->work->slices_next;
        conversation->work->listed_slices = false;
        for (int i = 0; i < 2; i++) {
            struct slice *slice = &conversation->work->slices[i];
            if (slice->dirty && !tell_moved(shard, conversation, slice))
                list_slices(shard, conversation);
            if (slice->receipts_dirty && !tell_receipts(shard, conversation, slice))
                list_slices(shard, conversation);
        }
        conversation_rest(conversation);
    }
}

/* A record of the watermark, so that it survives a crash: in the order in which the home shard
 * tells them, because where a device begins must be known before another of the user gets further.
 */
static enum err log_watermark(struct shard *shard, const struct border_watermark *mark)
{
    struct mesh *mesh = shard->gateway->mesh;
    uint32_t lane = shard_lane(shard->gateway, mark->conversation);
    size_t size = sizeof(struct border_append) + 8;
    struct border_append *out =
        (struct border_append *)(void *)mesh_reserve(mesh, shard->index, lane, MESH_LOG, size);
    if (out == NULL) {
        MARK("a watermark waits for the log");
        shard_count(shard, METRIC_MESH_FULL, 1);
        return ERR_FULL;
    }
    *out = (struct border_append){
        .border = {BORDER_APPEND, (uint16_t)shard->index, 8},
        .kind = RECORD_WATERMARK,
        .realm = mark->realm,
        .device = mark->device,
        .conversation = mark->conversation,
        .seq = mark->delivered,
        .sender = mark->user,
        .time_ms = shard->wall_ms,
    };
    store_u64((uint8_t *)(out + 1), mark->read);
    mesh_commit(mesh, shard->index, lane, MESH_LOG, size);
    return OK;
}

enum err fanout_watermark(struct shard *shard, struct conversation *conversation,
                          const struct border_watermark *mark)
{
    TRY(log_watermark(shard, mark));
    if (!conversation_watermark(conversation, mark->user, mark->delivered, mark->read))
        return OK;
    commit_mark_dirty(shard, conversation);
    for (int i = 0; i < 2; i++)
        if (conversation->work->slices[i].used)
            conversation->work->slices[i].receipts_dirty = true;
    list_slices(shard, conversation);
    return OK;
}

/* in_memory: the first message asked for, if memory has it and the log still has: what retention or
 * expiry has taken off the disk is served to nobody, and what is as old, the log knows. */
static const struct cached *in_memory(struct shard *shard, const struct conversation *conversation,
                                      const struct border_pull *pull)
{
    uint32_t lane = lane_of(pull->conversation, shard->gateway->lane_count);
    uint64_t dropped_ms =
        atomic_load_explicit(&shard->gateway->lanes[lane].dropped_ms, memory_order_acquire);
    const struct cached *message = conversation_recent(conversation, pull->from_seq);
    if (message == NULL || message->time_ms > dropped_ms) /* stamps never go back */
        return message;
    MARK("what memory has may be gone from the disk");
    return NULL;
}

/* Messages from memory into the answer, as many as fit. Returns how many; *needed: bytes for the
 * first if it did not. */
static uint32_t fill(struct border_pulled *out, size_t room, const struct cached *message,
                     const struct border_pull *pull, size_t *needed)
{
    uint8_t *at = (uint8_t *)(out + 1);
    uint8_t *end = (uint8_t *)out + room;
    uint32_t records = 0;
    *needed = 0;
    for (; message != NULL && message->durable && message->seq <= pull->to_seq &&
           records < pull->records_max;
         message = message->newer) {
        size_t size = border_padded(sizeof(struct border_record) + message->size);
        if (size > (size_t)(end - at)) {
            *needed = records == 0 ? size : 0;
            break;
        }
        struct border_record record = record_of(message);
        memcpy(at, &record, sizeof record);
        memcpy(at + sizeof record, message->payload, message->size);
        at += size;
        records++;
    }
    out->border.payload_bytes = (uint32_t)(at - (uint8_t *)(out + 1));
    out->records = records;
    return records;
}

void fanout_answer_pull(struct shard *shard, const struct conversation *conversation,
                        const struct border_pull *pull)
{
    struct mesh *mesh = shard->gateway->mesh;
    uint32_t target = pull->border.source;
    struct border_pulled *out = (struct border_pulled *)(void *)mesh_reserve(
        mesh, shard->index, target, MESH_ANSWER, pull->answer_bytes);
    CHECK(out != NULL);
    *out = (struct border_pulled){
        .border = {BORDER_PULLED, (uint16_t)shard->index, 0},
        .session = pull->session,
        .conversation = pull->conversation,
        .outcome = PULL_BUSY,
        .promised = pull->answer_bytes,
    };
    if (conversation != NULL) {
        size_t needed = 0;
        const struct keep *keep = conversation_keep(conversation);
        if (keep != NULL)
            out->retention = keep->setting;
        out->last_seq = conversation_visible(conversation);
        if (pull->from_seq > out->last_seq || pull->records_max == 0)
            out->outcome = PULL_OK;
        else if (fill(out, pull->answer_bytes, in_memory(shard, conversation, pull), pull,
                      &needed) != 0)
            out->outcome = PULL_OK;
        else
            out->outcome = needed != 0 ? PULL_TOO_SMALL : PULL_MISS;
        out->size_needed = needed + sizeof *out;
    }
    mesh_commit(mesh, shard->index, target, MESH_ANSWER, sizeof *out + out->border.payload_bytes);
}
