/* conversation.c: numbering, repeats and the recent messages of one conversation (conversation.h).
 * No I/O, no clock. */
#include "gateway/chat/conversation.h"

#include "core/memory.h"

static size_t cached_bytes(const struct cached *message)
{
    return sizeof *message + message->size;
}

void conversation_init(struct conversation *conversation)
{
    memset(conversation, 0, sizeof *conversation);
}

enum err conversation_wake(struct conversation *conversation, struct conversation_id id,
                           const uint32_t home[2])
{
    if (conversation->work != NULL)
        return OK;
    struct conversation_work *work = memory_take_zeroed(sizeof *work, MEMORY_CHAT);
    if (work == NULL)
        return ERR_NO_MEMORY;
    work->id = id;
    work->slices[0] = (struct slice){.shard = home[0], .used = true};
    if (home[1] != home[0])
        work->slices[1] = (struct slice){.shard = home[1], .used = true};
    conversation->work = work;
    return OK;
}

/* Nothing but messages that may be forgotten. */
static bool work_idle(const struct conversation_work *work)
{
    if (work->in_flight != 0 || work->parked != NULL || work->dirty || work->listed_slices ||
        work->listed_retry)
        return false;
    for (int i = 0; i < 2; i++)
        if (work->slices[i].dirty || work->slices[i].receipts_dirty)
            return false;
    return true;
}

void conversation_rest(struct conversation *conversation)
{
    struct conversation_work *work = conversation->work;
    if (work == NULL || work->oldest != NULL || !work_idle(work))
        return;
    memory_give(work, MEMORY_CHAT);
    conversation->work = NULL;
}

static void cache_unlink(struct message_cache *cache, struct cached *message)
{
    if (message->previous != NULL)
        message->previous->next = message->next;
    else
        cache->oldest = message->next;
    if (message->next != NULL)
        message->next->previous = message->previous;
    else
        cache->newest = message->previous;
    cache->bytes -= cached_bytes(message);
}

/* Oldest of its conversation always: within a conversation durable order is cache order. */
static void forget_oldest(struct conversation *conversation)
{
    struct conversation_work *work = conversation->work;
    struct cached *message = work->oldest;
    work->oldest = message->newer;
    if (message->newer != NULL)
        message->newer->older = NULL;
    else
        work->newest = NULL;
    memory_give(message, MEMORY_CHAT);
}

void conversation_deinit(struct conversation *conversation, struct message_cache *cache)
{
    struct conversation_work *work = conversation->work;
    while (work != NULL && work->oldest != NULL) {
        if (work->oldest->durable)
            cache_unlink(cache, work->oldest);
        forget_oldest(conversation);
    }
    memory_give(work, MEMORY_CHAT);
    conversation->work = NULL;
    if (conversation->senders != NULL)
        memory_give(conversation->senders->keep, MEMORY_CHAT);
    memory_give(conversation->senders, MEMORY_CHAT);
    conversation->senders = NULL;
}

void message_cache_trim(struct message_cache *cache)
{
    while (cache->bytes > cache->bytes_max && cache->oldest != NULL) {
        struct cached *message = cache->oldest;
        struct conversation *conversation = message->conversation;
        CHECK(conversation->work->oldest == message);
        cache_unlink(cache, message);
        forget_oldest(conversation);
        conversation_rest(conversation);
    }
}

static struct sender_row *find_sender(const struct conversation *conversation, struct user_id user,
                                      struct device_id device)
{
    struct sender_list *list = conversation->senders;
    for (uint32_t i = 0; list != NULL && i < list->count; i++) {
        struct sender_row *sender = &list->rows[i];
        if (sender->user.v == user.v && sender->device.v == device.v)
            return sender;
    }
    return NULL;
}

/* grow_senders: room for one more, or for none but what stands beside them. */
static enum err grow_senders(struct conversation *conversation, uint32_t more)
{
    struct sender_list *list = conversation->senders;
    uint32_t count = list != NULL ? list->count : 0;
    if (count + more > ROW_SENDERS_MAX)
        return ERR_FULL;
    struct sender_list *grown =
        memory_resize(list, sizeof *list + (count + more) * sizeof list->rows[0], MEMORY_CHAT);
    if (grown == NULL)
        return ERR_NO_MEMORY;
    if (list == NULL)
        grown->keep = NULL;
    grown->count = count + more;
    conversation->senders = grown;
    return OK;
}

static enum err raise_sender(struct conversation *conversation, struct user_id user,
                             struct device_id device, struct message_id id)
{
    struct sender_row *sender = find_sender(conversation, user, device);
    if (sender == NULL) {
        TRY(grow_senders(conversation, 1));
        sender = &conversation->senders->rows[conversation->senders->count - 1];
        *sender = (struct sender_row){.user = user, .device = device};
    }
    if (message_id_compare(id, sender->highest) > 0)
        sender->highest = id;
    return OK;
}

/* make_keep: a place for its own retention, before anything of it may fail no more. */
static enum err make_keep(struct conversation *conversation)
{
    if (conversation->senders == NULL)
        TRY(grow_senders(conversation, 0));
    struct sender_list *list = conversation->senders;
    if (list->keep == NULL)
        list->keep = memory_take_zeroed(sizeof *list->keep, MEMORY_CHAT);
    return list->keep == NULL ? ERR_NO_MEMORY : OK;
}

const struct keep *conversation_keep(const struct conversation *conversation)
{
    const struct sender_list *list = conversation->senders;
    return list != NULL && list->keep != NULL && list->keep->seq != 0 ? list->keep : NULL;
}

bool conversation_counted(struct conversation *conversation, const struct keep_down *down)
{
    struct sender_list *list = conversation->senders;
    return list != NULL && list->keep != NULL && keep_counted(list->keep, down);
}

/* count_kept: what has become durable moves its retention on. */
static void count_kept(const struct conversation *conversation, const struct cached *message)
{
    struct retention_setting setting;
    struct keep *keep = conversation->senders->keep; /* whoever sent is in the list */
    if (keep == NULL)
        return;
    if (message->kind != RECORD_RETENTION)
        keep_count(keep, message->seq, message->size);
    else if (keep_decode(&setting, bytes_of(message->payload, message->size)) == OK)
        keep_set(keep, message->seq, &setting);
}

static void set_time(struct conversation *conversation, uint64_t ms)
{
    ms = ms < CONVERSATION_TIME_MAX ? ms : CONVERSATION_TIME_MAX; /* a clock gone mad */
    conversation->last_time_ms = ms & CONVERSATION_TIME_MAX;
}

enum err conversation_loaded(struct conversation *conversation, const struct conversation_row *row)
{
    CHECK(conversation->state == CONVERSATION_LOADING);
    for (uint32_t i = 0; i < row->sender_count; i++)
        TRY(raise_sender(conversation, row->senders[i].user, row->senders[i].device,
                         row->senders[i].highest));
    if (row->keep.seq != 0) {
        TRY(make_keep(conversation));
        *conversation->senders->keep = row->keep;
    }
    conversation->last_seq = row->last_seq;
    set_time(conversation, row->last_time_ms);
    for (int i = 0; i < 2; i++) {
        if (row->delivered[i] > conversation->delivered[i])
            conversation->delivered[i] = row->delivered[i];
        if (row->read[i] > conversation->read[i])
            conversation->read[i] = row->read[i];
    }
    conversation->state = CONVERSATION_WARM;
    return OK;
}

enum conversation_verdict conversation_check(const struct conversation *conversation,
                                             const struct send_key *key, struct cached **found)
{
    *found = NULL;
    const struct sender_row *sender = find_sender(conversation, key->sender, key->device);
    if (sender == NULL || message_id_compare(key->message_id, sender->highest) > 0)
        return CONVERSATION_NEW;
    const struct conversation_work *work = conversation->work;
    for (struct cached *message = work != NULL ? work->newest : NULL; message != NULL;
         message = message->older)
        if (message->sender.v == key->sender.v && message->device.v == key->device.v &&
            message_id_compare(message->message_id, key->message_id) == 0) {
            *found = message;
            return CONVERSATION_KNOWN;
        }
    return CONVERSATION_LOOK_UP;
}

enum err conversation_accept(struct conversation *conversation, struct cached **out, uint16_t kind,
                             const struct send_key *key, struct bytes payload, uint64_t expires_ms,
                             uint64_t now_ms)
{
    struct conversation_work *work = conversation->work;
    CHECK(conversation->state == CONVERSATION_WARM && work != NULL);
    struct cached *message = memory_take(sizeof *message + payload.size, MEMORY_CHAT);
    if (message == NULL)
        return ERR_NO_MEMORY;
    enum err err = kind == RECORD_RETENTION ? make_keep(conversation) : OK;
    if (err == OK)
        err = raise_sender(conversation, key->sender, key->device, key->message_id);
    if (err != OK) {
        memory_give(message, MEMORY_CHAT);
        return err;
    }
    if (now_ms > conversation->last_time_ms)
        set_time(conversation, now_ms);
    *message = (struct cached){
        .older = work->newest,
        .conversation = conversation,
        .seq = ++conversation->last_seq,
        .time_ms = conversation->last_time_ms,
        .expires_ms = expires_ms,
        .sender = key->sender,
        .device = key->device,
        .message_id = key->message_id,
        .kind = kind,
        .size = (uint32_t)payload.size,
    };
    if (payload.size != 0)
        memcpy(message->payload, payload.data, payload.size);
    if (work->newest != NULL)
        work->newest->newer = message;
    else
        work->oldest = message;
    work->newest = message;
    work->in_flight++;
    *out = message;
    return OK;
}

void conversation_durable(struct conversation *conversation, struct cached *message,
                          struct message_cache *cache)
{
    CHECK(!message->durable && message->seq == conversation_visible(conversation) + 1);
    conversation->work->in_flight--;
    message->durable = true;
    count_kept(conversation, message);
    message->session = 0;
    message->previous = cache->newest;
    message->next = NULL;
    if (cache->newest != NULL)
        cache->newest->next = message;
    else
        cache->oldest = message;
    cache->newest = message;
    cache->bytes += cached_bytes(message);
}

void conversation_refused(struct conversation *conversation, struct cached *message)
{
    struct conversation_work *work = conversation->work;
    CHECK(!message->durable && work->newest == message && message->seq == conversation->last_seq);
    work->newest = message->older;
    if (message->older != NULL)
        message->older->newer = NULL;
    else
        work->oldest = NULL;
    conversation->last_seq--;
    work->in_flight--;
    memory_give(message, MEMORY_CHAT);
}

struct cached *conversation_recent(const struct conversation *conversation, uint64_t seq)
{
    const struct conversation_work *work = conversation->work;
    if (work == NULL || work->oldest == NULL || seq < work->oldest->seq ||
        seq > conversation_visible(conversation))
        return NULL;
    struct cached *message = work->newest;
    while (message != NULL && message->seq > seq)
        message = message->older;
    return message;
}

bool conversation_watermark(struct conversation *conversation, struct user_id user,
                            uint64_t delivered, uint64_t read)
{
    int member = conversation_member(conversation->work->id, user);
    bool changed = false;
    if (read > delivered)
        delivered = read; /* read implies delivered */
    if (delivered > conversation->delivered[member]) {
        conversation->delivered[member] = delivered;
        changed = true;
    }
    if (read > conversation->read[member]) {
        conversation->read[member] = read;
        changed = true;
    }
    return changed;
}

void conversation_to_row(const struct conversation *conversation, struct conversation_row *row)
{
    memset(row, 0, offsetof(struct conversation_row, senders));
    row->last_seq = conversation_visible(conversation);
    row->last_time_ms = conversation->last_time_ms;
    for (int i = 0; i < 2; i++) {
        row->delivered[i] = conversation->delivered[i];
        row->read[i] = conversation->read[i];
    }
    const struct sender_list *list = conversation->senders;
    if (list == NULL)
        return;
    if (list->keep != NULL)
        row->keep = *list->keep;
    row->sender_count = list->count;
    memcpy(row->senders, list->rows, list->count * sizeof row->senders[0]);
}

bool conversation_idle(const struct conversation *conversation)
{
    return conversation->state != CONVERSATION_LOADING &&
           (conversation->work == NULL || work_idle(conversation->work));
}
