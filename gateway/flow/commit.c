/* commit.c: see commit.h. */
#include "gateway/flow/commit.h"

#include "gateway/chat/account.h"
#include "gateway/flow/fanout.h"
#include "gateway/flow/lane.h"
#include "gateway/flow/parked.h"

static struct table_key key_of(struct conversation_id id)
{
    return (struct table_key){id.hi, id.lo};
}

/* ---- the table of conversations */

static struct conversation *find_or_make(struct shard *shard, struct conversation_id id)
{
    struct conversation *conversation = table_get(&shard->conversations, key_of(id));
    if (conversation != NULL) {
        conversation->touched = true;
        return conversation;
    }
    conversation = memory_take(sizeof *conversation, MEMORY_CHAT);
    if (conversation == NULL)
        return NULL;
    conversation_init(conversation);
    conversation->touched = true;
    if (table_put(&shard->conversations, key_of(id), conversation) != OK) {
        memory_give(conversation, MEMORY_CHAT);
        return NULL;
    }
    shard_count(shard, METRIC_STATE_CONVERSATIONS, 1);
    return conversation;
}

struct conversation *commit_find(struct shard *shard, struct conversation_id id)
{
    return table_get(&shard->conversations, key_of(id));
}

struct conversation *commit_wake(struct shard *shard, struct conversation_id id)
{
    struct conversation *conversation = find_or_make(shard, id);
    if (conversation == NULL || conversation->work != NULL)
        return conversation;
    const uint32_t home[2] = {shard_of_user(shard->gateway, conversation_user(id, 0)),
                              shard_of_user(shard->gateway, conversation_user(id, 1))};
    return conversation_wake(conversation, id, home) == OK ? conversation : NULL;
}

static void forget(struct shard *shard, struct conversation *conversation)
{
    conversation_deinit(conversation, &shard->cache);
    memory_give(conversation, MEMORY_CHAT);
    shard_count(shard, METRIC_STATE_CONVERSATIONS, (uint64_t)-1);
}

/* Second chance: the hand goes round the table and takes what nobody asked for since it came by. */
void commit_evict(struct shard *shard)
{
    size_t cells = EVICT_CELLS;
    for (int i = 0; i < EVICT_PER_TURN && shard_over_budget(shard); i++) {
        struct table_key key;
        struct conversation *conversation =
            table_visit(&shard->conversations, &key, &shard->conversation_hand, &cells);
        if (conversation == NULL)
            return;
        if (conversation->touched || !conversation_idle(conversation)) {
            conversation->touched = false;
            continue;
        }
        MARK("a conversation is evicted");
        table_remove(&shard->conversations, key);
        forget(shard, conversation);
        shard_count(shard, METRIC_EVICTED, 1);
    }
}

/* The table goes with the shard. */
void commit_deinit(struct shard *shard)
{
    size_t at = 0;
    struct conversation *conversation;
    while ((conversation = table_next(&shard->conversations, &at)) != NULL) {
        struct parked *parked;
        while ((parked = conversation_parked(conversation)) != NULL) {
            conversation->work->parked = parked->next;
            memory_give(parked, MEMORY_CHAT);
        }
        forget(shard, conversation);
    }
    counting_deinit(shard);
}

void commit_mark_dirty(struct shard *shard, struct conversation *conversation)
{
    struct conversation_work *work = conversation->work;
    if (work->dirty)
        return;
    work->dirty = true;
    work->dirty_next = shard->dirty_conversations;
    shard->dirty_conversations = conversation;
}

/* ---- answers to the session's shard; their room was promised */

static void answer(struct shard *shard, uint32_t origin, const struct border_result *result)
{
    struct mesh *mesh = shard->gateway->mesh;
    uint8_t *out = mesh_reserve(mesh, shard->index, origin, MESH_ANSWER, sizeof *result);
    CHECK(out != NULL);
    memcpy(out, result, sizeof *result);
    mesh_commit(mesh, shard->index, origin, MESH_ANSWER, sizeof *result);
}

static struct border_result result_for(const struct shard *shard, const struct border_send *send)
{
    return (struct border_result){
        .border = {BORDER_RESULT, (uint16_t)shard->index, 0},
        .session = send->session,
        .request_id = send->request_id,
        .arrived_ns = send->arrived_ns,
        .conversation = send->conversation,
        .message_id = send->message_id,
        .is_send = true,
    };
}

static void answer_code(struct shard *shard, const struct border_send *send, enum code code,
                        uint32_t retry_after_ms)
{
    struct border_result result = result_for(shard, send);
    result.code = code;
    result.retry_after_ms = retry_after_ms;
    answer(shard, send->border.source, &result);
}

/* no_place: it is not parked: too many are. */
static void no_place(struct shard *shard, const struct conversation *conversation,
                     const struct border_send *send)
{
    answer_code(shard, send, CODE_OVERLOADED, parked_retry_ms(shard, conversation));
}

static void answer_mark(struct shard *shard, const struct border_watermark *mark, enum code code,
                        uint32_t retry_after_ms)
{
    const struct border_result result = {
        .border = {BORDER_RESULT, (uint16_t)shard->index, 0},
        .session = mark->session,
        .request_id = mark->request_id,
        .conversation = mark->conversation,
        .seq = mark->delivered > mark->read ? mark->delivered : mark->read,
        .code = code,
        .retry_after_ms = retry_after_ms,
    };
    answer(shard, mark->border.source, &result);
}

static void answer_duplicate(struct shard *shard, const struct border_send *send, uint64_t seq,
                             uint64_t time_ms)
{
    struct border_result result = result_for(shard, send);
    result.seq = seq;
    result.time_ms = time_ms;
    result.duplicate = true;
    shard_count(shard, METRIC_MESSAGES_DUPLICATE, 1);
    answer(shard, send->border.source, &result);
}

/* ---- loading */

struct conversation_load {
    struct catalog_job catalog_job;
    struct conversation_id id;
    bool absent;
    struct conversation_row row;
};

static enum err load_body(struct catalog_txn *txn, struct catalog_job *job)
{
    struct conversation_load *load = CONTAINER_OF(job, struct conversation_load, catalog_job);
    struct realm_id realms[2];
    char name[JWT_NAME_BYTES_MAX + 1];
    for (int i = 0; i < 2; i++) {
        enum err err = account_name(txn, &realms[i], name, conversation_user(load->id, i));
        if (err == ERR_NOT_FOUND) {
            load->absent = true;
            return OK;
        }
        TRY(err);
    }
    load->absent = realms[0].v != realms[1].v; /* tenants do not see each other */
    enum err err = rows_read_conversation(txn, load->id, &load->row);
    return err == ERR_NOT_FOUND ? OK : err;
}

static void run_parked(struct shard *shard, struct conversation *conversation);

static void load_done(struct worker_job *job, void *context)
{
    struct shard *shard = context;
    struct conversation_load *load = CONTAINER_OF(CONTAINER_OF(job, struct catalog_job, job),
                                                  struct conversation_load, catalog_job);
    struct conversation *conversation = table_get(&shard->conversations, key_of(load->id));
    CHECK(conversation != NULL && conversation->state == CONVERSATION_LOADING);
    enum err err = load->catalog_job.err;
    if (err == OK)
        err = conversation_loaded(conversation, &load->row);
    conversation->absent = err == OK && load->absent;
    if (err != OK) {
        conversation->state = CONVERSATION_COLD;
        log_event(LOG_ERROR, "conversation_load_failed", LOG_ERR(err));
    }
    memory_give(load, MEMORY_CHAT);
    run_parked(shard, conversation);
}

static enum err start_load(struct shard *shard, struct conversation *conversation,
                           struct conversation_id id)
{
    struct conversation_load *load = memory_take(sizeof *load, MEMORY_CHAT);
    if (load == NULL)
        return ERR_NO_MEMORY;
    memset(load, 0, offsetof(struct conversation_load, row.senders));
    load->id = id;
    load->catalog_job.body = load_body;
    load->catalog_job.job.done = load_done;
    enum err err = catalog_submit(shard->gateway->catalog, shard->gateway->workers,
                                  &load->catalog_job, false, shard->index);
    if (err != OK) {
        memory_give(load, MEMORY_CHAT);
        return err;
    }
    conversation->state = CONVERSATION_LOADING;
    return OK;
}

/* ---- sends */

static struct bytes payload_of(const struct border_send *send)
{
    return bytes_of(send + 1, send->border.payload_bytes);
}

static struct appends *appends_of(struct shard *shard, struct conversation_id conversation)
{
    return &shard->appends[lane_of(conversation, shard->gateway->lane_count)];
}

static void remember_in_flight(struct appends *appends, struct cached *message)
{
    message->next = NULL;
    message->previous = appends->newest;
    if (appends->newest != NULL)
        appends->newest->next = message;
    else
        appends->oldest = message;
    appends->newest = message;
}

/* A message of a new id: number it and hand it to the log. */
static enum err accept(struct shard *shard, struct conversation *conversation,
                       const struct border_send *send)
{
    struct mesh *mesh = shard->gateway->mesh;
    struct bytes payload = payload_of(send);
    struct appends *appends = appends_of(shard, send->conversation);
    uint32_t lane = shard_lane(shard->gateway, send->conversation);
    size_t size = sizeof(struct border_append) + payload.size;
    if (!mesh_room(mesh, shard->index, lane, MESH_LOG, size)) {
        MARK("append waits for room");
        return ERR_FULL;
    }
    TRY(mesh_promise(mesh, shard->index, lane, MESH_LOG_ANSWER, sizeof(struct border_appended)));
    struct send_key key = {send->sender, send->device, send->message_id};
    struct cached *message = NULL;
    enum err err = conversation_accept(conversation, &message, send->record, &key, payload,
                                       send->expires_ms, shard->wall_ms);
    if (err != OK) {
        mesh_unpromise(mesh, shard->index, lane, MESH_LOG_ANSWER, sizeof(struct border_appended));
        answer_code(shard, send, CODE_OVERLOADED, 1000);
        return OK;
    }
    struct border_append *out =
        (struct border_append *)(void *)mesh_reserve(mesh, shard->index, lane, MESH_LOG, size);
    CHECK(out != NULL);
    *out = (struct border_append){
        .border = {BORDER_APPEND, (uint16_t)shard->index, (uint32_t)payload.size},
        .cookie = 1,
        .epoch = appends->epoch,
        .kind = send->record,
        .realm = send->realm,
        .device = send->device,
        .conversation = conversation->work->id,
        .seq = message->seq,
        .sender = send->sender,
        .message_id = send->message_id,
        .time_ms = message->time_ms,
        .expires_ms = message->expires_ms,
    };
    memcpy(out + 1, payload.data, payload.size);
    mesh_commit(mesh, shard->index, lane, MESH_LOG, size);
    message->origin = send->border.source;
    message->session = send->session;
    message->request_id = send->request_id;
    message->arrived_ns = send->arrived_ns;
    remember_in_flight(appends, message);
    shard_count(shard, METRIC_MESSAGES_ACCEPTED, 1);
    return OK;
}

static bool must_wait(const struct conversation *conversation, const struct border_send *send,
                      const struct parked *self)
{
    struct send_key key = {send->sender, send->device, send->message_id};
    struct cached *found;
    if (!parked_behind(conversation, send, self))
        return false;
    MARK("a send waits behind one of its device that is looked up");
    return (self != NULL && self->state == PARKED_FOUND) ||
           conversation_check(conversation, &key, &found) != CONVERSATION_LOOK_UP;
}

static enum err ask_log(struct shard *shard, struct parked *parked)
{
    struct mesh *mesh = shard->gateway->mesh;
    const struct border_send *send = (const void *)parked->message;
    uint32_t lane = shard_lane(shard->gateway, send->conversation);
    TRY(mesh_promise(mesh, shard->index, lane, MESH_LOG_ANSWER, sizeof(struct border_found)));
    struct border_find *out =
        (struct border_find *)(void *)mesh_reserve(mesh, shard->index, lane, MESH_LOG, sizeof *out);
    if (out == NULL) {
        mesh_unpromise(mesh, shard->index, lane, MESH_LOG_ANSWER, sizeof(struct border_found));
        return ERR_FULL;
    }
    *out = (struct border_find){
        .border = {BORDER_FIND, (uint16_t)shard->index, 0},
        .cookie = (uint64_t)(uintptr_t)parked,
        .conversation = send->conversation,
        .sender = send->sender,
        .device = send->device,
        .message_id = send->message_id,
    };
    mesh_commit(mesh, shard->index, lane, MESH_LOG, sizeof *out);
    parked->state = PARKED_FINDING;
    return OK;
}

/* Not the newest id of its device: seen before, or merely late? `self`: the request if it is parked
 * already. */
static enum err look_up(struct shard *shard, struct conversation *conversation,
                        const struct border_send *send, struct parked *self)
{
    struct bytes message = bytes_of(send, sizeof *send + send->border.payload_bytes);
    bool wait = parked_being_found(conversation, send, self);
    bool parked_before = self != NULL;
    if (self == NULL) {
        self = parked_add(shard, conversation, message, wait ? PARKED_WAITING : PARKED_READY);
        if (self == NULL) {
            MARK("a look-up finds no place");
            no_place(shard, conversation, send);
            return OK;
        }
    }
    if (wait) {
        self->state = PARKED_WAITING;
        return OK;
    }
    enum err err = ask_log(shard, self);
    if (err != OK && !parked_before) {
        parked_retry(shard, conversation);
        return OK;
    }
    return err;
}

/* refusal: of a send that is new: one that repeats what was taken in time has its answer. */
static enum code refusal(const struct shard *shard, const struct conversation *conversation,
                         const struct border_send *send)
{
    if (conversation->absent)
        return CODE_NOT_FOUND;
    if (send->expires_ms != 0 && send->expires_ms <= shard->expiry_ms)
        return CODE_MALFORMED;
    if (shard->log_state == LOG_FAILED)
        return CODE_READ_ONLY;
    if (shard->log_state == LOG_NO_SPACE)
        return CODE_NO_SPACE;
    return CODE_NONE;
}

/* A send to a WARM conversation. ERR_FULL: towards the lane; the caller keeps it. */
static enum err process_send(struct shard *shard, struct conversation *conversation,
                             const struct border_send *send, struct parked *self)
{
    struct send_key key = {send->sender, send->device, send->message_id};
    struct cached *found = NULL;
    enum conversation_verdict verdict = conversation_check(conversation, &key, &found);
    if (verdict == CONVERSATION_KNOWN) {
        if (found->kind != send->record ||
            !bytes_equal(payload_of(send), bytes_of(found->payload, found->size)))
            answer_code(shard, send, CODE_CONFLICT, 0);
        else if (found->durable)
            answer_duplicate(shard, send, found->seq, found->time_ms);
        else if (self != NULL)
            self->state = PARKED_WAITING;
        else if (parked_add(shard, conversation,
                            bytes_of(send, sizeof *send + send->border.payload_bytes),
                            PARKED_WAITING) == NULL)
            no_place(shard, conversation, send);
        return OK;
    }
    if (verdict == CONVERSATION_LOOK_UP && (self == NULL || self->state != PARKED_FOUND))
        return look_up(shard, conversation, send, self);
    enum code code = refusal(shard, conversation, send);
    if (code != CODE_NONE) {
        answer_code(shard, send, code, code == CODE_NO_SPACE ? 5000 : 0);
        return OK;
    }
    return accept(shard, conversation, send);
}

static bool other_payload(const struct parked *parked)
{
    struct bytes payload = payload_of((const void *)parked->message);
    return parked->found_size != payload.size || parked->found_hash != crc32c(0, payload);
}

/* The log has answered a look-up. */
static enum err process_found(struct shard *shard, struct conversation *conversation,
                              struct parked *parked)
{
    const struct border_send *send = (const void *)parked->message;
    if (parked->found_err == ERR_NOT_FOUND)
        return process_send(shard, conversation, send, parked);
    if (parked->found_gone) /* its payload cannot be compared any more */
        MARK("a repeat of a message that was removed");
    if (parked->found_err != OK)
        answer_code(shard, send, CODE_OVERLOADED, 1000);
    else if (parked->found_kind != send->record || (!parked->found_gone && other_payload(parked)))
        answer_code(shard, send, CODE_CONFLICT, 0);
    else
        answer_duplicate(shard, send, parked->found_seq, parked->found_time_ms);
    return OK;
}

static enum err process_mark(struct shard *shard, struct conversation *conversation,
                             const struct border_watermark *mark)
{
    uint64_t highest = mark->delivered > mark->read ? mark->delivered : mark->read;
    if (conversation->absent)
        answer_mark(shard, mark, CODE_NOT_FOUND, 0);
    else if (highest > conversation_visible(conversation))
        answer_mark(shard, mark, CODE_SEQ_FROM_FUTURE, 0);
    else {
        TRY(fanout_watermark(shard, conversation, mark));
        answer_mark(shard, mark, CODE_NONE, 0);
    }
    return OK;
}

/* One parked request goes on. ERR_FULL: it stays. */
static enum err run_one(struct shard *shard, struct conversation *conversation,
                        struct parked *parked)
{
    const struct border *border = (const void *)parked->message;
    if (border->kind == BORDER_WATERMARK) {
        TRY(fanout_watermark(shard, conversation, (const void *)parked->message));
    } else if (conversation->state != CONVERSATION_WARM) { /* its load failed */
        if (border->kind == BORDER_SEND)
            answer_code(shard, (const void *)parked->message, CODE_OVERLOADED, 1000);
        else
            answer_mark(shard, (const void *)parked->message, CODE_OVERLOADED, 1000);
    } else if (border->kind == BORDER_MARK_CHECK) {
        TRY(process_mark(shard, conversation, (const void *)parked->message));
    } else {
        const struct border_send *send = (const void *)parked->message;
        if (must_wait(conversation, send, parked))
            return OK;
        TRY(parked->state == PARKED_FOUND ? process_found(shard, conversation, parked)
                                          : process_send(shard, conversation, send, parked));
        if (parked->state == PARKED_WAITING || parked->state == PARKED_FINDING)
            return OK; /* it stays parked */
    }
    parked_remove(shard, parked);
    return OK;
}

static void run_parked(struct shard *shard, struct conversation *conversation)
{
    struct parked *parked = conversation_parked(conversation);
    while (parked != NULL) {
        struct parked *next = parked->next;
        if ((parked->state == PARKED_READY || parked->state == PARKED_FOUND) &&
            conversation->state != CONVERSATION_LOADING) {
            if (run_one(shard, conversation, parked) != OK) {
                parked_retry(shard, conversation);
                return;
            }
        }
        parked = next;
    }
    conversation_rest(conversation);
}

/* ---- requests */

struct conversation *commit_load(struct shard *shard, struct conversation_id id)
{
    struct conversation *conversation = commit_wake(shard, id);
    if (conversation == NULL || conversation->state != CONVERSATION_COLD ||
        start_load(shard, conversation, id) == OK)
        return conversation;
    conversation_rest(conversation);
    return NULL;
}

static enum err send_to(struct shard *shard, struct conversation *conversation,
                        struct bytes message)
{
    const struct border_send *send = (const void *)message.data;
    /* behind what waits already, so that a device's sends keep their order */
    if (conversation->state != CONVERSATION_WARM || conversation->work->listed_retry ||
        must_wait(conversation, send, NULL)) {
        if (parked_add(shard, conversation, message, PARKED_READY) == NULL)
            no_place(shard, conversation, send);
        return OK;
    }
    enum err err = process_send(shard, conversation, send, NULL);
    if (err != ERR_FULL || !parked_several_lanes(shard))
        return err;
    if (!parked_for_lane(shard, conversation, message))
        no_place(shard, conversation, send);
    return OK;
}

static enum err on_send(struct shard *shard, struct bytes message)
{
    const struct border_send *send = (const void *)message.data;
    struct conversation *conversation = commit_load(shard, send->conversation);
    if (conversation == NULL) {
        answer_code(shard, send, CODE_OVERLOADED, 1000);
        return OK;
    }
    enum err err = send_to(shard, conversation, message);
    conversation_rest(conversation);
    return err;
}

static enum err on_mark_check(struct shard *shard, struct bytes message)
{
    const struct border_watermark *mark = (const void *)message.data;
    struct conversation *conversation = commit_load(shard, mark->conversation);
    enum err err = OK;
    if (conversation == NULL) {
        answer_mark(shard, mark, CODE_OVERLOADED, 1000);
        return OK;
    }
    if (conversation->state == CONVERSATION_WARM)
        err = process_mark(shard, conversation, mark);
    else if (parked_add(shard, conversation, message, PARKED_READY) == NULL)
        answer_mark(shard, mark, CODE_OVERLOADED, parked_retry_ms(shard, conversation));
    if (err == ERR_FULL && parked_several_lanes(shard)) {
        if (!parked_for_lane(shard, conversation, message))
            answer_mark(shard, mark, CODE_OVERLOADED, parked_retry_ms(shard, conversation));
        err = OK;
    }
    conversation_rest(conversation);
    return err;
}

static void on_pull(struct shard *shard, const struct border_pull *pull)
{
    struct conversation *conversation = find_or_make(shard, pull->conversation);
    bool warm = conversation != NULL && conversation->state == CONVERSATION_WARM;
    if (conversation != NULL && conversation->state == CONVERSATION_COLD &&
        start_load(shard, conversation, pull->conversation) != OK)
        MARK("load refused during a pull");
    fanout_answer_pull(shard, warm ? conversation : NULL, pull);
}

enum err commit_on_request(struct shard *shard, struct bytes message)
{
    const struct border *border = (const void *)message.data;
    if (border->kind == BORDER_SEND)
        return on_send(shard, message);
    if (border->kind == BORDER_MARK_CHECK)
        return on_mark_check(shard, message);
    else
        on_pull(shard, (const void *)message.data);
    return OK;
}

enum err commit_on_watermark(struct shard *shard, struct bytes message)
{
    const struct border_watermark *mark = (const void *)message.data;
    struct conversation *conversation = commit_wake(shard, mark->conversation);
    if (conversation == NULL)
        return ERR_FULL;
    enum err err = ERR_FULL;
    if (!parked_watermark(conversation))
        err = fanout_watermark(shard, conversation, mark);
    if (err == ERR_FULL && parked_several_lanes(shard) &&
        parked_for_lane(shard, conversation, message))
        err = OK;
    conversation_rest(conversation);
    return err;
}

/* ---- answers of the lane */

static struct cached *take_oldest(struct appends *appends)
{
    struct cached *message = appends->oldest;
    CHECK(message != NULL);
    appends->oldest = message->next;
    if (message->next != NULL)
        message->next->previous = NULL;
    else
        appends->newest = NULL;
    return message;
}

static void acknowledge(struct shard *shard, const struct cached *message)
{
    const struct border_result result = {
        .border = {BORDER_RESULT, (uint16_t)shard->index, 0},
        .session = message->session,
        .request_id = message->request_id,
        .arrived_ns = message->arrived_ns,
        .conversation = message->conversation->work->id,
        .message_id = message->message_id,
        .seq = message->seq,
        .time_ms = message->time_ms,
        .is_send = true,
    };
    answer(shard, message->origin, &result);
}

/* The lane refuses everything of this epoch: what is in flight to it is taken back, newest first,
 * so that no number is skipped. */
static void take_back_all(struct shard *shard, struct appends *appends, enum err err)
{
    enum code code = err == ERR_NO_SPACE ? CODE_NO_SPACE : CODE_READ_ONLY;
    shard->log_state = err == ERR_NO_SPACE ? LOG_NO_SPACE : LOG_FAILED;
    appends->answers_void = 0;
    while (appends->newest != NULL) {
        struct cached *message = appends->newest;
        struct conversation *conversation = message->conversation;
        const struct border_result result = {
            .border = {BORDER_RESULT, (uint16_t)shard->index, 0},
            .session = message->session,
            .request_id = message->request_id,
            .conversation = conversation->work->id,
            .message_id = message->message_id,
            .code = code,
            .retry_after_ms = code == CODE_NO_SPACE ? 5000 : 0,
            .is_send = true,
        };
        appends->newest = message->previous;
        if (message->previous != NULL)
            message->previous->next = NULL;
        else
            appends->oldest = NULL;
        answer(shard, message->origin, &result);
        conversation_refused(conversation, message);
        parked_wake(shard, conversation);
        conversation_rest(conversation);
        appends->answers_void++;
    }
    CHECK(appends->answers_void > 0);
    appends->answers_void--; /* the one that is being looked at */
}

void commit_on_appended(struct shard *shard, struct bytes message)
{
    const struct border_appended *appended = (const void *)message.data;
    struct appends *appends = &shard->appends[appended->lane];
    if (appends->answers_void > 0) {
        CHECK(appended->err != OK);
        appends->answers_void--;
        return;
    }
    if (appended->err != OK) {
        MARK("the log refused");
        appends->epoch = appended->epoch;
        take_back_all(shard, appends, (enum err)appended->err);
        return;
    }
    struct cached *cached = take_oldest(appends);
    struct conversation *conversation = cached->conversation;
    acknowledge(shard, cached);
    conversation_durable(conversation, cached, &shard->cache);
    counting_note(shard, conversation, conversation->work->id);
    commit_mark_dirty(shard, conversation);
    fanout_message(shard, conversation, cached);
    parked_wake(shard, conversation);
}

void commit_on_found(struct shard *shard, struct bytes message)
{
    const struct border_found *found = (const void *)message.data;
    struct parked *parked = (struct parked *)(uintptr_t)found->cookie;
    CHECK(parked->state == PARKED_FINDING);
    parked->state = PARKED_FOUND;
    parked->found_err = (enum err)found->err;
    parked->found_hash = found->payload_hash;
    parked->found_kind = found->kind;
    parked->found_gone = found->gone;
    parked->found_size = found->payload_size;
    parked->found_seq = found->seq;
    parked->found_time_ms = found->time_ms;
    struct conversation *conversation = parked->conversation;
    parked_wake(shard, conversation);
    run_parked(shard, conversation);
}

void commit_flush(struct shard *shard)
{
    struct conversation *list = shard->retry;
    shard->retry = NULL;
    while (list != NULL) {
        struct conversation *conversation = list;
        list = conversation->work->retry_next;
        conversation->work->listed_retry = false;
        run_parked(shard, conversation);
    }
    fanout_flush(shard);
    table_tidy(&shard->conversations);
    message_cache_trim(&shard->cache);
}
