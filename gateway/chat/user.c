/* user.c: entries and cursors of one user (user.h). No I/O, no clock. */
#include "gateway/chat/user.h"

#include "core/memory.h"

void user_init(struct user *user, struct user_id id)
{
    memset(user, 0, sizeof *user);
    user->id = id;
}

static void entry_free(struct entry *entry)
{
    memory_give(entry->cursors, MEMORY_CHAT);
    memory_give(entry, MEMORY_CHAT);
}

void user_deinit(struct user *user)
{
    for (uint32_t i = 0; i < user->entry_count; i++)
        entry_free(user->entries[i]);
    memory_give(user->entries, MEMORY_CHAT);
    memory_give(user->devices, MEMORY_CHAT);
    user->entries = NULL;
    user->entry_count = user->entry_capacity = 0;
    user->devices = NULL;
    user->device_count = 0;
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
static uint32_t position_of(const struct user *user, struct conversation_id conversation)
{
    uint32_t low = 0;
    uint32_t high = user->entry_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (id_compare(user->entries[middle]->conversation, conversation) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct entry *user_entry(const struct user *user, struct conversation_id conversation)
{
    uint32_t at = position_of(user, conversation);
    if (at < user->entry_count &&
        conversation_id_equal(user->entries[at]->conversation, conversation))
        return user->entries[at];
    return NULL;
}

static enum err entry_insert(struct user *user, struct entry **out,
                             struct conversation_id conversation)
{
    if (user->entry_count == user->entry_capacity) {
        uint32_t capacity = user->entry_capacity == 0 ? 2 : user->entry_capacity * 2;
        struct entry **grown = memory_resize(user->entries, capacity * sizeof *grown, MEMORY_CHAT);
        if (grown == NULL)
            return ERR_NO_MEMORY;
        user->entries = grown;
        user->entry_capacity = capacity;
    }
    struct entry *entry = memory_take_zeroed(sizeof *entry, MEMORY_CHAT);
    if (entry == NULL)
        return ERR_NO_MEMORY;
    entry->conversation = conversation;
    entry->user = user;
    uint32_t at = position_of(user, conversation);
    memmove(&user->entries[at + 1], &user->entries[at],
            (user->entry_count - at) * sizeof(struct entry *));
    user->entries[at] = entry;
    user->entry_count++;
    *out = entry;
    return OK;
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

enum err user_entry_make(struct user *user, struct entry **out, struct conversation_id conversation,
                         uint64_t from_seq, bool *made)
{
    *made = false;
    *out = user_entry(user, conversation);
    if (*out != NULL)
        return OK;
    struct entry *entry = NULL;
    TRY(entry_insert(user, &entry, conversation));
    *made = true;
    *out = entry;
    if (user->state != USER_WARM)
        return OK; /* the row will tell who has what */
    entry->last_seq = from_seq - 1;
    for (uint32_t i = 0; i < user->device_count; i++) {
        struct cursor_state *cursor;
        TRY(add_cursor(entry, &cursor, user->devices[i], from_seq - 1));
    }
    return OK;
}

enum err user_load_row(struct user *user, struct conversation_id conversation,
                       const struct inbox_row *row)
{
    struct entry *entry = user_entry(user, conversation);
    if (entry == NULL)
        TRY(entry_insert(user, &entry, conversation));
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

enum err user_add_device(struct user *user, struct device_id device)
{
    for (uint32_t i = 0; i < user->device_count; i++)
        if (user->devices[i].v == device.v)
            return ERR_EXISTS;
    if (user->device_count == ROW_CURSORS_MAX)
        return ERR_FULL;
    struct device_id *grown =
        memory_resize(user->devices, (user->device_count + 1) * sizeof *grown, MEMORY_CHAT);
    if (grown == NULL)
        return ERR_NO_MEMORY;
    user->devices = grown;
    user->devices[user->device_count++] = device;
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

void user_drop_idle(struct user *user)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < user->entry_count; i++) {
        if (user->state == USER_WARM && entry_idle(user->entries[i]))
            entry_free(user->entries[i]);
        else
            user->entries[kept++] = user->entries[i];
    }
    user->entry_count = kept;
}

bool user_idle(const struct user *user)
{
    if (user->sessions != NULL || user->waiting != NULL || user->dirty ||
        user->state == USER_LOADING)
        return false;
    for (uint32_t i = 0; i < user->entry_count; i++)
        if (user->entries[i]->dirty || user->entries[i]->watermark_dirty)
            return false;
    return true;
}
