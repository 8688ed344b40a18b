/* replay_entry.c: the arrays of an entry: their first elements stand in it, more in memory of their
 * own, which counts against the replay's bound. */
#include "gateway/chat/replay_entry.h"

#include "core/memory.h"

/* grow: room for one more element; the first ones stand in the entry, then all in *more. */
static enum err grow(struct replay *replay, void **more, const void *first, uint32_t *capacity,
                     uint32_t count, size_t size)
{
    if (count < *capacity)
        return OK;
    uint32_t doubled = *capacity * 2;
    void *grown = memory_resize(*more, doubled * size, MEMORY_CHAT);
    if (grown == NULL)
        return ERR_NO_MEMORY;
    if (*more == NULL)
        memcpy(grown, first, count * size);
    replay->bytes += (doubled - *capacity) * size;
    *more = grown;
    *capacity = doubled;
    return OK;
}

struct sender_row *replay_senders_of(struct replay_entry *entry)
{
    return entry->capacity > COUNT_OF(entry->first) ? entry->more : entry->first;
}

enum err replay_sender_of(struct replay *replay, struct sender_row **out,
                          struct replay_entry *entry, struct user_id user, struct device_id device)
{
    struct sender_row *senders = replay_senders_of(entry);
    for (uint32_t i = 0; i < entry->count; i++)
        if (senders[i].user.v == user.v && senders[i].device.v == device.v) {
            *out = &senders[i];
            return OK;
        }
    *out = NULL;
    if (entry->count == ROW_SENDERS_MAX)
        return OK;
    void *more = entry->more;
    TRY(grow(replay, &more, entry->first, &entry->capacity, entry->count, sizeof **out));
    entry->more = more;
    *out = &replay_senders_of(entry)[entry->count++];
    **out = (struct sender_row){.user = user, .device = device};
    return OK;
}

struct inbox_cursor *replay_cursors_of(struct replay_entry *entry, uint32_t member)
{
    struct replay_cursors *cursors = &entry->cursors[member];
    return cursors->capacity > 1 ? entry->inboxes[member].more : &cursors->first;
}

enum err replay_cursor_of(struct replay *replay, struct inbox_cursor **out,
                          struct replay_entry *entry, uint32_t member, struct device_id device)
{
    struct replay_cursors *cursors = &entry->cursors[member];
    struct inbox_cursor *at = replay_cursors_of(entry, member);
    for (uint32_t i = 0; i < cursors->count; i++)
        if (at[i].device.v == device.v) {
            *out = &at[i];
            return OK;
        }
    *out = NULL;
    if (cursors->count == ROW_CURSORS_MAX)
        return OK;
    void *more = entry->inboxes[member].more;
    TRY(grow(replay, &more, &cursors->first, &cursors->capacity, cursors->count, sizeof **out));
    entry->inboxes[member].more = more;
    *out = &replay_cursors_of(entry, member)[cursors->count++];
    **out = (struct inbox_cursor){.device = device};
    return OK;
}

enum err replay_keep_of(struct replay *replay, struct replay_entry *entry)
{
    if (entry->keep != NULL)
        return OK;
    entry->keep = memory_take_zeroed(sizeof *entry->keep, MEMORY_CHAT);
    if (entry->keep == NULL)
        return ERR_NO_MEMORY;
    replay->bytes += sizeof *entry->keep;
    return OK;
}

void replay_entry_deinit(struct replay_entry *entry)
{
    for (int i = 0; i < 2; i++)
        memory_give(entry->inboxes[i].more, MEMORY_CHAT);
    memory_give(entry->keep, MEMORY_CHAT);
    memory_give(entry->more, MEMORY_CHAT);
}
