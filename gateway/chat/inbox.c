/* inbox.c: entries and cursors of one user (inbox.h). No I/O, no clock. */
#include "gateway/chat/inbox.h"

#include "core/memory.h"

void inbox_init(struct inbox *inbox, struct user_id id)
{
    memset(inbox, 0, sizeof *inbox);
    inbox->id = id;
}

static void entry_free(struct entry *entry)
{
    memory_give(entry->cursors, MEMORY_CHAT);
    memory_give(entry, MEMORY_CHAT);
}

void inbox_deinit(struct inbox *inbox)
{
    for (uint32_t i = 0; i < inbox->entry_count; i++)
        entry_free(inbox->entries[i]);
    memory_give(inbox->entries, MEMORY_CHAT);
    memory_give(inbox->devices, MEMORY_CHAT);
    inbox->entries = NULL;
    inbox->entry_count = inbox->entry_capacity = 0;
    inbox->devices = NULL;
    inbox->device_count = 0;
}

static int id_compare(struct conversation_id a, struct conversation_id b)
{
    if (a.hi != b.hi)
        return a.hi < b.hi ? -1 : 1;
    if (a.lo != b.lo)
        return a.lo < b.lo ? -1 : 1;
    return 0;
}

/* The position of the conversation's entry, or where it would stand. */
static uint32_t position_of(const struct inbox *inbox, struct conversation_id conversation)
{
    uint32_t low = 0;
    uint32_t high = inbox->entry_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (id_compare(inbox->entries[middle]->conversation, conversation) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct entry *inbox_entry(const struct inbox *inbox, struct conversation_id conversation)
{
    uint32_t at = position_of(inbox, conversation);
    if (at < inbox->entry_count &&
        conversation_id_equal(inbox->entries[at]->conversation, conversation))
        return inbox->entries[at];
    return NULL;
}

static enum err entry_insert(struct inbox *inbox, struct entry **out,
                             struct conversation_id conversation)
{
    if (inbox->entry_count == inbox->entry_capacity) {
        uint32_t capacity = inbox->entry_capacity == 0 ? 2 : inbox->entry_capacity * 2;
        struct entry **grown = memory_resize(inbox->entries, capacity * sizeof *grown, MEMORY_CHAT);
        if (grown == NULL)
            return ERR_NO_MEMORY;
        inbox->entries = grown;
        inbox->entry_capacity = capacity;
    }
    struct entry *entry = memory_take_zeroed(sizeof *entry, MEMORY_CHAT);
    if (entry == NULL)
        return ERR_NO_MEMORY;
    entry->conversation = conversation;
    entry->inbox = inbox;
    uint32_t at = position_of(inbox, conversation);
    memmove(&inbox->entries[at + 1], &inbox->entries[at],
            (inbox->entry_count - at) * sizeof(struct entry *));
    inbox->entries[at] = entry;
    inbox->entry_count++;
    *out = entry;
    return OK;
}

static void entry_remove(struct inbox *inbox, struct entry *entry)
{
    uint32_t at = position_of(inbox, entry->conversation);
    inbox->entry_count--;
    memmove(&inbox->entries[at], &inbox->entries[at + 1],
            (inbox->entry_count - at) * sizeof(struct entry *));
    entry_free(entry);
}

static struct cursor_state *find_cursor(const struct entry *entry, struct device_id device)
{
    for (uint32_t i = 0; i < entry->cursor_count; i++)
        if (entry->cursors[i].device.v == device.v)
            return &entry->cursors[i];
    return NULL;
}

static enum err add_cursor(struct entry *entry, struct cursor_state **out, struct device_id device,
                           uint64_t delivered)
{
    if (entry->cursor_count == ROW_CURSORS_MAX)
        return ERR_FULL;
    struct cursor_state *grown =
        memory_resize(entry->cursors, (entry->cursor_count + 1) * sizeof *grown, MEMORY_CHAT);
    if (grown == NULL)
        return ERR_NO_MEMORY;
    entry->cursors = grown;
    *out = &grown[entry->cursor_count++];
    **out = (struct cursor_state){
        .device = device, .delivered = delivered, .sent = delivered, .told = UINT64_MAX};
    return OK;
}

enum err inbox_entry_make(struct inbox *inbox, struct entry **out,
                          struct conversation_id conversation, uint64_t from_seq, bool *made)
{
    *made = false;
    *out = inbox_entry(inbox, conversation);
    if (*out != NULL)
        return OK;
    struct entry *entry = NULL;
    TRY(entry_insert(inbox, &entry, conversation));
    if (inbox->state == INBOX_WARM) { /* else the row will tell who has what */
        entry->last_seq = from_seq - 1;
        for (uint32_t i = 0; i < inbox->device_count; i++) {
            struct cursor_state *cursor;
            enum err err = add_cursor(entry, &cursor, inbox->devices[i], from_seq - 1);
            if (err != OK) {
                entry_remove(inbox, entry);
                return err;
            }
        }
    }
    *made = true;
    *out = entry;
    return OK;
}

enum err inbox_load_row(struct inbox *inbox, struct conversation_id conversation,
                        const struct inbox_row *row)
{
    struct entry *entry = inbox_entry(inbox, conversation);
    if (entry == NULL)
        TRY(entry_insert(inbox, &entry, conversation));
    if (row->last_seq > entry->last_seq)
        entry->last_seq = row->last_seq;
    if (row->activity_ms > entry->activity_ms)
        entry->activity_ms = row->activity_ms;
    if (row->read_seq > entry->read_seq)
        entry->read_seq = entry->read_told = row->read_seq;
    if (row->peer_delivered > entry->peer_delivered)
        entry->peer_delivered = row->peer_delivered;
    if (row->peer_read > entry->peer_read)
        entry->peer_read = row->peer_read;
    for (uint32_t i = 0; i < row->cursor_count; i++) {
        struct cursor_state *cursor = find_cursor(entry, row->cursors[i].device);
        if (cursor == NULL)
            TRY(add_cursor(entry, &cursor, row->cursors[i].device, 0));
        if (row->cursors[i].delivered > cursor->delivered)
            cursor->delivered = row->cursors[i].delivered;
        if (cursor->sent < cursor->delivered)
            cursor->sent = cursor->delivered;
        cursor->told = cursor->delivered;
    }
    return OK;
}

enum err inbox_loaded(struct inbox *inbox, void (*made)(void *context, struct entry *entry),
                      void *context)
{
    for (uint32_t i = 0; i < inbox->entry_count; i++) {
        struct entry *entry = inbox->entries[i];
        uint64_t start = entry_delivered(entry);
        bool any = false;
        for (uint32_t j = 0; j < inbox->device_count; j++) {
            struct cursor_state *cursor;
            if (find_cursor(entry, inbox->devices[j]) != NULL)
                continue;
            TRY(add_cursor(entry, &cursor, inbox->devices[j], start));
            any = true;
        }
        if (any)
            made(context, entry);
    }
    inbox->state = INBOX_WARM;
    return OK;
}

enum err inbox_add_device(struct inbox *inbox, struct device_id device)
{
    for (uint32_t i = 0; i < inbox->device_count; i++)
        if (inbox->devices[i].v == device.v)
            return ERR_EXISTS;
    if (inbox->device_count == ROW_CURSORS_MAX)
        return ERR_FULL;
    struct device_id *grown =
        memory_resize(inbox->devices, (inbox->device_count + 1) * sizeof *grown, MEMORY_CHAT);
    if (grown == NULL)
        return ERR_NO_MEMORY;
    inbox->devices = grown;
    inbox->devices[inbox->device_count++] = device;
    return OK;
}

uint64_t entry_delivered(const struct entry *entry)
{
    uint64_t highest = 0;
    for (uint32_t i = 0; i < entry->cursor_count; i++)
        if (entry->cursors[i].delivered > highest)
            highest = entry->cursors[i].delivered;
    return highest;
}

enum err entry_cursor(struct entry *entry, struct cursor_state **out, struct device_id device,
                      bool *made)
{
    *made = false;
    *out = find_cursor(entry, device);
    if (*out != NULL)
        return OK;
    *made = true;
    return add_cursor(entry, out, device, entry_delivered(entry));
}

void entry_presume(struct entry *entry)
{
    for (uint32_t i = 0; i < entry->cursor_count; i++)
        entry->cursors[i].presumed = true;
}

void entry_told(struct entry *entry, uint64_t from_seq)
{
    for (uint32_t i = 0; i < entry->cursor_count; i++) {
        struct cursor_state *cursor = &entry->cursors[i];
        if (cursor->presumed && !cursor->behind && cursor->delivered >= from_seq)
            cursor->delivered = cursor->sent = from_seq - 1;
        cursor->presumed = false; /* fan-out tells in order: nothing lower comes */
    }
}

void entry_to_row(const struct entry *entry, struct inbox_row *row)
{
    memset(row, 0, offsetof(struct inbox_row, cursors));
    row->last_seq = entry->last_seq;
    row->activity_ms = entry->activity_ms;
    row->read_seq = entry->read_seq;
    row->peer_delivered = entry->peer_delivered;
    row->peer_read = entry->peer_read;
    row->cursor_count = entry->cursor_count;
    for (uint32_t i = 0; i < entry->cursor_count; i++)
        row->cursors[i] =
            (struct inbox_cursor){entry->cursors[i].device, entry->cursors[i].delivered};
}

static bool entry_idle(const struct entry *entry)
{
    if (entry->dirty || entry->watermark_dirty)
        return false;
    for (uint32_t i = 0; i < entry->cursor_count; i++)
        if (entry->cursors[i].behind || entry->cursors[i].delivered < entry->last_seq)
            return false;
    return entry->cursor_count != 0 || entry->last_seq == 0;
}

void inbox_drop_idle(struct inbox *inbox)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < inbox->entry_count; i++) {
        if (inbox->state == INBOX_WARM && entry_idle(inbox->entries[i]))
            entry_free(inbox->entries[i]);
        else
            inbox->entries[kept++] = inbox->entries[i];
    }
    inbox->entry_count = kept;
}

bool inbox_idle(const struct inbox *inbox)
{
    if (inbox->sessions != NULL || inbox->waiting != NULL || inbox->dirty ||
        inbox->state == INBOX_LOADING)
        return false;
    for (uint32_t i = 0; i < inbox->entry_count; i++)
        if (inbox->entries[i]->dirty || inbox->entries[i]->watermark_dirty)
            return false;
    return true;
}
