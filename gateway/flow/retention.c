/* retention.c: see retention.h. */
#include "gateway/flow/retention.h"

#include "core/memory.h"
#include "gateway/chat/account.h"
#include "gateway/chat/rows.h"

struct look {
    struct catalog_txn *txn;
    struct conversation_row conversation;
    struct inbox_row inbox;
    struct device_id devices[ROW_CURSORS_MAX];
};

static enum err begin(void *context, void **session)
{
    struct look *look = memory_take(sizeof *look, MEMORY_STORE);
    if (look == NULL)
        return ERR_NO_MEMORY;
    enum err err = catalog_begin(context, &look->txn, false);
    if (err != OK) {
        memory_give(look, MEMORY_STORE);
        return err;
    }
    *session = look;
    return OK;
}

static void end(void *session)
{
    struct look *look = session;
    catalog_abort(look->txn);
    memory_give(look, MEMORY_STORE);
}

/* delivered_to: the lowest mark of the user's devices that still exist. */
static enum err delivered_to(struct look *look, struct user_id user,
                             struct conversation_id conversation, uint64_t *delivered)
{
    uint32_t count = 0;
    bool any = false;
    *delivered = 0;
    TRY(account_devices(look->txn, user, look->devices, COUNT_OF(look->devices), &count));
    enum err err = rows_read_inbox(look->txn, user, conversation, &look->inbox);
    if (err == ERR_NOT_FOUND)
        return OK;
    TRY(err);
    for (uint32_t i = 0; i < look->inbox.cursor_count; i++) {
        const struct inbox_cursor *cursor = &look->inbox.cursors[i];
        bool exists = false;
        for (uint32_t j = 0; j < count; j++)
            exists = exists || look->devices[j].v == cursor->device.v;
        if (exists && (!any || cursor->delivered < *delivered))
            *delivered = cursor->delivered;
        any = any || exists;
    }
    return OK;
}

static enum err look_at(void *session, struct conversation_id conversation,
                        struct retention_rule *rule)
{
    struct look *look = session;
    uint64_t delivered[2];
    *rule = (struct retention_rule){0};
    enum err err = rows_read_conversation(look->txn, conversation, &look->conversation);
    if (err != OK && err != ERR_NOT_FOUND)
        return err;
    rule->age_ms = look->conversation.keep.setting.age_s * 1000ull;
    rule->setting_seq = look->conversation.keep.seq;
    rule->beyond_seq = keep_due(&look->conversation.keep);
    if (!conversation_id_is_direct(conversation))
        return OK;
    TRY(delivered_to(look, (struct user_id){conversation.hi}, conversation, &delivered[0]));
    TRY(delivered_to(look, (struct user_id){conversation.lo}, conversation, &delivered[1]));
    rule->delivered_seq = delivered[0] < delivered[1] ? delivered[0] : delivered[1];
    return OK;
}

struct own {
    enum err (*add)(void *list, struct conversation_id conversation);
    void *list;
};

static enum err own_row(void *context, struct bytes key, struct bytes value)
{
    const struct own *own = context;
    (void)value;
    return key.size == 16 ? own->add(own->list, conversation_id_decode(key.data)) : ERR_CORRUPT;
}

static enum err own(void *session, uint8_t first,
                    enum err (*add)(void *list, struct conversation_id conversation), void *list)
{
    struct look *look = session;
    struct own rows = {add, list};
    return catalog_scan(look->txn, CATALOG_RETENTION, bytes_of(&first, 1), own_row, &rows);
}

void retention_fill(struct retention *retention, const struct config *config,
                    struct catalog *catalog)
{
    *retention = (struct retention){
        .age_ms = config->retention_age_s * 1000ull,
        .age_max_ms = config->retention_age_max_s * 1000ull,
        .bytes = config->retention_bytes,
        .undelivered_ms = config->undelivered_age_s * 1000ull,
        .expiry_delay_ms = config->expiry_delay_s * 1000ull,
        .repeats_ms = config->repeat_age_s * 1000ull,
        .own_delay_ms = config->retention_delay_s * 1000ull,
        .begin = begin,
        .look = look_at,
        .own = own,
        .end = end,
        .context = catalog,
    };
}
