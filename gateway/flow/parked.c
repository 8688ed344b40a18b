/* parked.c: see parked.h. */
#include "gateway/flow/parked.h"

bool parked_several_lanes(const struct shard *shard)
{
    return shard->gateway->lane_count > 1;
}

/* parked_max: half of them is for requests that wait for state, which no lane's disk holds up. */
static uint32_t parked_max(const struct shard *shard, const struct conversation *conversation)
{
    uint32_t max = shard->gateway->config->parked_requests;
    return parked_several_lanes(shard) && conversation->state == CONVERSATION_WARM ? (max + 1) / 2
                                                                                   : max;
}

struct parked *parked_add(struct shard *shard, struct conversation *conversation,
                          struct bytes message, enum parked_state state)
{
    if (shard->places.used >= parked_max(shard, conversation))
        return NULL;
    struct parked *parked = memory_take(sizeof *parked + message.size, MEMORY_CHAT);
    if (parked == NULL)
        return NULL;
    memset(parked, 0, sizeof *parked);
    parked->conversation = conversation;
    parked->since_ns = shard->now_ns;
    parked->state = state;
    parked->size = message.size;
    memcpy(parked->message, message.data, message.size);
    struct parked **end = &conversation->work->parked;
    while (*end != NULL)
        end = &(*end)->next;
    *end = parked;
    if (shard->places.used++ == 0)
        shard->places.moved_ns = shard->now_ns;
    return parked;
}

/* Places become free one after the other, a stay divided by their number apart, and whoever is
 * refused has those before it that were. While nothing leaves, a stay is at least as long as that
 * lasts, so that a shard that stands still is asked less and less. Past the longest time it begins
 * anew at half of it. */
uint32_t parked_retry_ms(struct shard *shard, const struct conversation *conversation)
{
    struct places *places = &shard->places;
    uint64_t still_ns = places->used == 0 ? 0 : shard->now_ns - places->moved_ns;
    uint64_t stay_ns = places->stay_ns > still_ns ? places->stay_ns : still_ns;
    if (stay_ns < RETRY_MS_MIN * NS_PER_MS)
        stay_ns = RETRY_MS_MIN * NS_PER_MS;
    uint64_t gap_ns = stay_ns / parked_max(shard, conversation);
    if (gap_ns < RETRY_GAP_NS_MIN)
        gap_ns = RETRY_GAP_NS_MIN;
    uint64_t retry_ms = (stay_ns + places->refused * gap_ns) / NS_PER_MS + 1;
    if (retry_ms > RETRY_MS_MAX) {
        retry_ms = RETRY_MS_MAX / 2;
        places->refused /= 2;
    }
    places->refused++;
    shard_count(shard, METRIC_PARKED_FULL, 1);
    return (uint32_t)retry_ms;
}

void parked_remove(struct shard *shard, struct parked *parked)
{
    struct parked **at = &parked->conversation->work->parked;
    while (*at != parked)
        at = &(*at)->next;
    *at = parked->next;
    struct places *places = &shard->places;
    places->used--;
    places->refused = places->used == 0 || places->refused == 0 ? 0 : places->refused - 1;
    places->moved_ns = shard->now_ns;
    places->stay_ns = (places->stay_ns * 7 + (shard->now_ns - parked->since_ns)) / 8;
    memory_give(parked, MEMORY_CHAT);
}

void parked_retry(struct shard *shard, struct conversation *conversation)
{
    struct conversation_work *work = conversation->work;
    if (work->listed_retry)
        return;
    work->listed_retry = true;
    work->retry_next = shard->retry;
    shard->retry = conversation;
}

bool parked_for_lane(struct shard *shard, struct conversation *conversation, struct bytes message)
{
    if (parked_add(shard, conversation, message, PARKED_READY) == NULL)
        return false;
    MARK("a request waits for its lane");
    parked_retry(shard, conversation);
    return true;
}

void parked_wake(struct shard *shard, struct conversation *conversation)
{
    bool any = false;
    for (struct parked *parked = conversation_parked(conversation); parked != NULL;
         parked = parked->next)
        if (parked->state == PARKED_WAITING) {
            parked->state = PARKED_READY;
            any = true;
        }
    if (any)
        parked_retry(shard, conversation);
}

bool parked_watermark(const struct conversation *conversation)
{
    for (struct parked *parked = conversation_parked(conversation); parked != NULL;
         parked = parked->next)
        if (((const struct border *)(const void *)parked->message)->kind == BORDER_WATERMARK)
            return true;
    return false;
}

static bool same_key(const struct border_send *a, const struct border_send *b)
{
    return a->sender.v == b->sender.v && a->device.v == b->device.v &&
           message_id_compare(a->message_id, b->message_id) == 0;
}

bool parked_behind(const struct conversation *conversation, const struct border_send *send,
                   const struct parked *self)
{
    for (struct parked *parked = conversation_parked(conversation);
         parked != NULL && parked != self; parked = parked->next) {
        const struct border_send *other = (const void *)parked->message;
        if (other->border.kind == BORDER_SEND && other->sender.v == send->sender.v &&
            other->device.v == send->device.v)
            return true;
    }
    return false;
}

bool parked_being_found(const struct conversation *conversation, const struct border_send *send,
                        const struct parked *self)
{
    for (struct parked *parked = conversation_parked(conversation); parked != NULL;
         parked = parked->next) {
        const struct border *border = (const void *)parked->message;
        if (parked != self && parked->state == PARKED_FINDING && border->kind == BORDER_SEND &&
            same_key((const void *)parked->message, send))
            return true;
    }
    return false;
}
