/* conversation.c: numbering, repeats and the recent messages of one conversation (conversation.h).
 * No I/O, no clock. */
#include "gateway/chat/conversation.h"

#include "core/memory.h"

static size_t cached_bytes(const struct cached *message)
{
    return sizeof *message + message->size;
}

void conversation_init(struct conversation *conversation, struct conversation_id id,
                       const uint32_t home[2])
{
    memset(conversation, 0, sizeof *conversation);
    conversation->id = id;
    conversation->slices[0] = (struct slice){.shard = home[0], .used = true};
    if (home[1] != home[0])
        conversation->slices[1] = (struct slice){.shard = home[1], .used = true};
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
    struct cached *message = conversation->oldest;
    conversation->oldest = message->newer;
    if (message->newer != NULL)
        message->newer->older = NULL;
    else
        conversation->newest = NULL;
    memory_give(message, MEMORY_CHAT);
}

void conversation_deinit(struct conversation *conversation, struct message_cache *cache)
{
    while (conversation->oldest != NULL) {
        if (conversation->oldest->durable)
            cache_unlink(cache, conversation->oldest);
        forget_oldest(conversation);
    }
    memory_give(conversation->senders, MEMORY_CHAT);
    conversation->senders = NULL;
}

void message_cache_trim(struct message_cache *cache)
{
    while (cache->bytes > cache->bytes_max && cache->oldest != NULL) {
        struct cached *message = cache->oldest;
        CHECK(message->conversation->oldest == message);
        cache_unlink(cache, message);
        forget_oldest(message->conversation);
    }
}

static struct sender_row *find_sender(const struct conversation *conversation, struct user_id user,
                                      struct device_id device)
{
    for (uint32_t i = 0; i < conversation->sender_count; i++) {
        struct sender_row *sender = &conversation->senders[i];
        if (sender->user.v == user.v && sender->device.v == device.v)
            return sender;
    }
    return NULL;
}

static enum err raise_sender(struct conversation *conversation, struct user_id user,
                             struct device_id device, struct message_id id)
{
    struct sender_row *sender = find_sender(conversation, user, device);
    if (sender == NULL) {
        if (conversation->sender_count == ROW_SENDERS_MAX)
            return ERR_FULL;
        size_t size = (conversation->sender_count + 1) * sizeof *sender;
        struct sender_row *grown = memory_resize(conversation->senders, size, MEMORY_CHAT);
        if (grown == NULL)
            return ERR_NO_MEMORY;
        conversation->senders = grown;
        sender = &grown[conversation->sender_count++];
        *sender = (struct sender_row){.user = user, .device = device};
    }
    if (message_id_compare(id, sender->highest) > 0)
        sender->highest = id;
    return OK;
}

enum err conversation_loaded(struct conversation *conversation, const struct conversation_row *row)
{
    CHECK(conversation->state == CONVERSATION_LOADING);
    for (uint32_t i = 0; i < row->sender_count; i++)
        TRY(raise_sender(conversation, row->senders[i].user, row->senders[i].device,
                         row->senders[i].highest));
    conversation->last_seq = row->last_seq;
    conversation->visible_seq = row->last_seq;
    conversation->last_time_ms = row->last_time_ms;
    for (int i = 0; i < 2; i++) {
        conversation->slices[i].seq_told = row->last_seq;
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
    for (struct cached *message = conversation->newest; message != NULL; message = message->older)
        if (message->sender.v == key->sender.v && message->device.v == key->device.v &&
            message_id_compare(message->message_id, key->message_id) == 0) {
            *found = message;
            return CONVERSATION_KNOWN;
        }
    return CONVERSATION_LOOK_UP;
}

enum err conversation_accept(struct conversation *conversation, struct cached **out,
                             const struct send_key *key, struct bytes payload, uint64_t expires_ms,
                             uint64_t now_ms)
{
    CHECK(conversation->state == CONVERSATION_WARM);
    struct cached *message = memory_take(sizeof *message + payload.size, MEMORY_CHAT);
    if (message == NULL)
        return ERR_NO_MEMORY;
    enum err err = raise_sender(conversation, key->sender, key->device, key->message_id);
    if (err != OK) {
        memory_give(message, MEMORY_CHAT);
        return err;
    }
    if (now_ms > conversation->last_time_ms)
        conversation->last_time_ms = now_ms;
    *message = (struct cached){
        .older = conversation->newest,
        .conversation = conversation,
        .seq = ++conversation->last_seq,
        .time_ms = conversation->last_time_ms,
        .expires_ms = expires_ms,
        .sender = key->sender,
        .device = key->device,
        .message_id = key->message_id,
        .size = (uint32_t)payload.size,
    };
    if (payload.size != 0)
        memcpy(message->payload, payload.data, payload.size);
    if (conversation->newest != NULL)
        conversation->newest->newer = message;
    else
        conversation->oldest = message;
    conversation->newest = message;
    conversation->in_flight++;
    *out = message;
    return OK;
}

void conversation_durable(struct conversation *conversation, struct cached *message,
                          struct message_cache *cache)
{
    CHECK(!message->durable && message->seq == conversation->visible_seq + 1);
    conversation->visible_seq = message->seq;
    CHECK(conversation->visible_seq <= conversation->last_seq);
    conversation->in_flight--;
    message->durable = true;
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
    CHECK(!message->durable && conversation->newest == message);
    conversation->newest = message->older;
    if (message->older != NULL)
        message->older->newer = NULL;
    else
        conversation->oldest = NULL;
    conversation->last_seq = message->seq - 1;
    CHECK(conversation->visible_seq <= conversation->last_seq);
    conversation->in_flight--;
    memory_give(message, MEMORY_CHAT);
}

struct cached *conversation_recent(const struct conversation *conversation, uint64_t seq)
{
    if (conversation->oldest == NULL || seq < conversation->oldest->seq ||
        seq > conversation->visible_seq)
        return NULL;
    struct cached *message = conversation->newest;
    while (message != NULL && message->seq > seq)
        message = message->older;
    return message;
}

bool conversation_watermark(struct conversation *conversation, struct user_id user,
                            uint64_t delivered, uint64_t read)
{
    int member = conversation_member(conversation, user);
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
    row->last_seq = conversation->visible_seq;
    row->last_time_ms = conversation->last_time_ms;
    for (int i = 0; i < 2; i++) {
        row->delivered[i] = conversation->delivered[i];
        row->read[i] = conversation->read[i];
    }
    row->sender_count = conversation->sender_count;
    if (conversation->sender_count != 0)
        memcpy(row->senders, conversation->senders,
               conversation->sender_count * sizeof row->senders[0]);
}

bool conversation_idle(const struct conversation *conversation)
{
    if (conversation->in_flight != 0 || conversation->parked != NULL || conversation->dirty ||
        conversation->state == CONVERSATION_LOADING)
        return false;
    for (int i = 0; i < 2; i++)
        if (conversation->slices[i].dirty || conversation->slices[i].receipts_dirty)
            return false;
    return true;
}
