/* counting.c: see counting.h. */
#include "gateway/flow/counting.h"

#include "gateway/chat/rows.h"
#include "gateway/flow/commit.h"
#include "gateway/flow/lane.h"

static enum err add(struct counting *counting, struct conversation_id id)
{
    TRY(memory_grow(&counting->list, &counting->capacity, counting->count + 1,
                    sizeof *counting->list, MEMORY_CHAT));
    counting->list[counting->count++] = id;
    return OK;
}

void counting_note(struct shard *shard, struct conversation *conversation,
                   struct conversation_id id)
{
    const struct keep *keep = conversation_keep(conversation);
    if (keep == NULL || !keep->uncounted || conversation->counting)
        return;
    conversation->counting = add(&shard->counting, id) == OK;
    shard->counting.missed = shard->counting.missed || !conversation->counting;
}

/* note_missed: what is not in the catalog yet is dirty, once no rows are on their way there; the
 * rest is found by another look. */
static void note_missed(struct shard *shard)
{
    struct counting *counting = &shard->counting;
    struct conversation *lists[] = {shard->dirty_conversations, shard->flush_conversations};
    if (shard->checkpoint_round != 0 || shard->checkpoint_jobs != 0 ||
        shard->flush_waiting != NULL || shard->flush_kept != NULL)
        return;
    counting->missed = counting->looked = false;
    for (size_t i = 0; i < COUNT_OF(lists); i++)
        for (struct conversation *at = lists[i]; at != NULL; at = at->work->dirty_next)
            counting_note(shard, at, at->work->id);
    if (counting->missed)
        counting->due_ns = shard->now_ns + COUNTING_RETRY_NS;
}

void counting_deinit(struct shard *shard)
{
    memory_give(shard->counting.list, MEMORY_CHAT);
    shard->counting = (struct counting){0};
}

/* ---- at start: what a crash, or a rebuild, left uncounted */

struct counting_look {
    struct catalog_job catalog_job;
    const struct gateway *gateway;
    uint32_t shard;
    struct conversation_id *found;
    uint32_t count;
    uint32_t capacity;
};

static enum err look_row(void *context, struct bytes key, struct bytes value)
{
    struct counting_look *look = context;
    if (key.size != 16)
        return ERR_CORRUPT;
    struct conversation_id id = conversation_id_decode(key.data);
    if (!row_retention_uncounted(value) || shard_of_conversation(look->gateway, id) != look->shard)
        return OK;
    TRY(memory_grow(&look->found, &look->capacity, look->count + 1, sizeof id, MEMORY_CHAT));
    look->found[look->count++] = id;
    return OK;
}

static enum err look_body(struct catalog_txn *txn, struct catalog_job *job)
{
    struct counting_look *look = CONTAINER_OF(job, struct counting_look, catalog_job);
    return catalog_scan(txn, CATALOG_RETENTION, bytes_of(NULL, 0), look_row, look);
}

/* look_done: those that were noted meanwhile are counted once: the second time nothing is left. */
static void look_done(struct worker_job *job, void *context)
{
    struct shard *shard = context;
    struct counting_look *look =
        CONTAINER_OF(CONTAINER_OF(job, struct catalog_job, job), struct counting_look, catalog_job);
    enum err err = look->catalog_job.err;
    for (uint32_t i = 0; i < look->count && err == OK; i++)
        err = add(&shard->counting, look->found[i]);
    if (err != OK) {
        shard->counting.looked = false;
        shard->counting.due_ns = shard->now_ns + COUNTING_RETRY_NS;
    }
    memory_give(look->found, MEMORY_CHAT);
    memory_give(look, MEMORY_CHAT);
}

static void look_at_catalog(struct shard *shard)
{
    struct counting_look *look = memory_take_zeroed(sizeof *look, MEMORY_CHAT);
    enum err err = look == NULL ? ERR_NO_MEMORY : OK;
    if (err == OK) {
        look->gateway = shard->gateway;
        look->shard = shard->index;
        look->catalog_job.body = look_body;
        look->catalog_job.job.done = look_done;
        err = catalog_submit(shard->gateway->catalog, shard->gateway->workers, &look->catalog_job,
                             false, shard->index);
    }
    shard->counting.looked = err == OK;
    if (err == OK)
        return;
    memory_give(look, MEMORY_CHAT);
    shard->counting.due_ns = shard->now_ns + COUNTING_RETRY_NS;
}

/* ---- one after the other */

static void ask(struct shard *shard, struct conversation_id id, const struct keep_down *down)
{
    struct mesh *mesh = shard->gateway->mesh;
    struct counting *counting = &shard->counting;
    uint32_t lane = shard_lane(shard->gateway, id);
    counting->waits =
        mesh_promise(mesh, shard->index, lane, MESH_LOG_ANSWER, sizeof(struct border_count)) != OK;
    if (counting->waits)
        return;
    struct border_count *out = (struct border_count *)(void *)mesh_reserve(mesh, shard->index, lane,
                                                                           MESH_LOG, sizeof *out);
    counting->waits = out == NULL;
    if (out == NULL) {
        mesh_unpromise(mesh, shard->index, lane, MESH_LOG_ANSWER, sizeof(struct border_count));
        return;
    }
    *out = (struct border_count){
        .border = {BORDER_COUNT, (uint16_t)shard->index, 0}, .conversation = id, .down = *down};
    mesh_commit(mesh, shard->index, lane, MESH_LOG, sizeof *out);
    counting->asked = true;
}

static void pass(struct counting *counting)
{
    counting->loading = false;
    if (++counting->at == counting->count)
        counting->at = counting->count = 0;
}

/* later: what cannot be had now is tried again. */
static void later(struct shard *shard)
{
    shard->counting.loading = false;
    shard->counting.due_ns = shard->now_ns + COUNTING_RETRY_NS;
}

/* take: what the lane has counted. True: not now. */
static bool take(struct shard *shard, struct conversation_id id)
{
    struct counting *counting = &shard->counting;
    struct conversation *conversation = commit_wake(shard, id);
    if (conversation == NULL) {
        later(shard);
        return true;
    }
    counting->answered = false;
    if (conversation_counted(conversation, &counting->down)) {
        commit_mark_dirty(shard, conversation);
        atomic_store_explicit(&shard->gateway->rows_changed, true, memory_order_release);
        shard_count(shard, METRIC_RETENTION_COUNTED, 1);
    } else {
        MARK("a bound has changed while it was counted");
    }
    conversation_rest(conversation);
    return false;
}

/* begin: true: the first one was done with at once. */
static bool begin(struct shard *shard)
{
    struct counting *counting = &shard->counting;
    struct conversation_id id = counting->list[counting->at];
    struct keep_down down;
    bool was_loading = counting->loading;
    struct conversation *conversation = commit_find(shard, id);
    bool warm = conversation != NULL && conversation->state == CONVERSATION_WARM;
    bool cold = conversation == NULL || conversation->state == CONVERSATION_COLD;
    if (cold && (was_loading || commit_load(shard, id) == NULL)) {
        later(shard);
        return false;
    }
    counting->loading = !warm;
    if (!warm || (counting->answered && take(shard, id)))
        return false;
    const struct keep *keep = conversation_keep(conversation);
    if (keep == NULL || !keep_down_begin(keep, &down)) {
        conversation->counting = false;
        pass(counting);
        return true;
    }
    ask(shard, id, &down);
    return false;
}

void counting_turn(struct shard *shard)
{
    struct counting *counting = &shard->counting;
    if (shard->phase != GATEWAY_SERVING || counting->asked || shard->now_ns < counting->due_ns)
        return;
    if (counting->missed)
        note_missed(shard);
    if (!counting->looked)
        look_at_catalog(shard);
    while (counting->at < counting->count && begin(shard))
        ;
}

void counting_on_counted(struct shard *shard, struct bytes message)
{
    const struct border_count *counted = (const void *)message.data;
    struct counting *counting = &shard->counting;
    CHECK(counting->asked);
    counting->asked = false;
    if (counted->err != OK) {
        later(shard);
        return;
    }
    counting->down = counted->down;
    counting->answered = true;
}
