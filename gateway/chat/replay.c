/* replay.c: see replay.h. An entry is a conversation's row and its two members' inbox rows, decoded
 * as rows.c reads them; two devices' senders and one device's cursor each stand in the entry
 * itself, so that merging mostly touches one piece of memory. */
#include "gateway/chat/replay.h"

#include "core/memory.h"

#include <stdlib.h>

struct replay_inbox {
    uint64_t last_seq;
    uint64_t activity_ms;
    uint64_t read_seq;
    uint64_t peer_delivered;
    uint64_t peer_read;
    struct inbox_cursor *cursors; /* `first`, or memory of its own */
    uint32_t count;
    uint32_t capacity;
    struct inbox_cursor first;
};

struct replay_entry {
    struct conversation_id id;
    uint64_t last_seq;
    uint64_t last_time_ms;
    uint64_t delivered[2];
    uint64_t read[2];
    struct keep *keep;          /* NULL: nobody set any */
    struct sender_row *senders; /* `first`, or memory of its own */
    uint32_t count;
    uint32_t capacity;
    struct sender_row first[2];
    struct replay_inbox inboxes[2]; /* a talk with oneself uses the first */
};

/* inbox_place: what replay_flush sorts. */
struct inbox_place {
    uint64_t user;
    const struct replay_entry *entry;
    uint32_t member;
};

#define ENTRY_OVERHEAD 64 /* of the table's cell and the heap, about */

static void raise(uint64_t *target, uint64_t value)
{
    if (value > *target)
        *target = value;
}

static struct table_key key_of(struct conversation_id id)
{
    return (struct table_key){id.hi, id.lo};
}

static uint64_t member_user(struct conversation_id id, uint32_t member)
{
    return member == 0 ? id.hi : id.lo;
}

static uint32_t members_of(struct conversation_id id)
{
    return id.hi == id.lo ? 1 : 2;
}

enum err replay_create(struct replay **out)
{
    struct replay *replay = memory_take(sizeof *replay, MEMORY_CHAT);
    if (replay == NULL)
        return ERR_NO_MEMORY;
    table_init(&replay->entries, 1); /* the ids are those of the store's own log */
    replay->bytes = 0;
    *out = replay;
    return OK;
}

static void entry_destroy(struct replay_entry *entry)
{
    for (int i = 0; i < 2; i++)
        if (entry->inboxes[i].cursors != &entry->inboxes[i].first)
            memory_give(entry->inboxes[i].cursors, MEMORY_CHAT);
    memory_give(entry->keep, MEMORY_CHAT);
    if (entry->senders != entry->first)
        memory_give(entry->senders, MEMORY_CHAT);
    memory_give(entry, MEMORY_CHAT);
}

static void forget(struct replay *replay)
{
    size_t at = 0;
    struct replay_entry *entry;
    while ((entry = table_next(&replay->entries, &at)) != NULL)
        entry_destroy(entry);
    table_deinit(&replay->entries);
    table_init(&replay->entries, 1);
    replay->bytes = 0;
}

void replay_destroy(struct replay *replay)
{
    if (replay == NULL)
        return;
    forget(replay);
    table_deinit(&replay->entries);
    memory_give(replay, MEMORY_CHAT);
}

bool replay_full(const struct replay *replay)
{
    return replay->bytes >= REPLAY_BYTES_MAX;
}

/* ---- an entry's arrays */

/* grow: room for one more element; the first ones stand in the entry. */
static enum err grow(struct replay *replay, void **array, const void *first, uint32_t *capacity,
                     uint32_t count, size_t size)
{
    if (count < *capacity)
        return OK;
    uint32_t more = *capacity * 2;
    void *grown = *array == first ? memory_take(more * size, MEMORY_CHAT)
                                  : memory_resize(*array, more * size, MEMORY_CHAT);
    if (grown == NULL)
        return ERR_NO_MEMORY;
    if (*array == first)
        memcpy(grown, first, count * size);
    replay->bytes += (more - *capacity) * size;
    *array = grown;
    *capacity = more;
    return OK;
}

/* sender_of: the device's place, made if absent; *out NULL: the row has no more. */
static enum err sender_of(struct replay *replay, struct sender_row **out,
                          struct replay_entry *entry, struct user_id user, struct device_id device)
{
    for (uint32_t i = 0; i < entry->count; i++)
        if (entry->senders[i].user.v == user.v && entry->senders[i].device.v == device.v) {
            *out = &entry->senders[i];
            return OK;
        }
    *out = NULL;
    if (entry->count == ROW_SENDERS_MAX)
        return OK;
    void *senders = entry->senders;
    enum err err =
        grow(replay, &senders, entry->first, &entry->capacity, entry->count, sizeof **out);
    entry->senders = senders;
    TRY(err);
    *out = &entry->senders[entry->count++];
    **out = (struct sender_row){.user = user, .device = device};
    return OK;
}

static enum err cursor_of(struct replay *replay, struct inbox_cursor **out,
                          struct replay_inbox *inbox, struct device_id device)
{
    for (uint32_t i = 0; i < inbox->count; i++)
        if (inbox->cursors[i].device.v == device.v) {
            *out = &inbox->cursors[i];
            return OK;
        }
    *out = NULL;
    if (inbox->count == ROW_CURSORS_MAX)
        return OK;
    void *cursors = inbox->cursors;
    enum err err =
        grow(replay, &cursors, &inbox->first, &inbox->capacity, inbox->count, sizeof **out);
    inbox->cursors = cursors;
    TRY(err);
    *out = &inbox->cursors[inbox->count++];
    **out = (struct inbox_cursor){.device = device};
    return OK;
}

/* keep_of: a place for the conversation's own retention. */
static enum err keep_of(struct replay *replay, struct replay_entry *entry)
{
    if (entry->keep != NULL)
        return OK;
    entry->keep = memory_take_zeroed(sizeof *entry->keep, MEMORY_CHAT);
    if (entry->keep == NULL)
        return ERR_NO_MEMORY;
    replay->bytes += sizeof *entry->keep;
    return OK;
}

/* ---- loading */

static enum err load_inbox(struct replay *replay, struct catalog_txn *txn,
                           struct replay_entry *entry, uint32_t member)
{
    struct inbox_row *row = &replay->inbox;
    struct replay_inbox *inbox = &entry->inboxes[member];
    struct user_id user = {member_user(entry->id, member)};
    enum err err = rows_read_inbox(txn, user, entry->id, row);
    if (err == ERR_NOT_FOUND)
        return OK;
    TRY(err);
    inbox->last_seq = row->last_seq;
    inbox->activity_ms = row->activity_ms;
    inbox->read_seq = row->read_seq;
    inbox->peer_delivered = row->peer_delivered;
    inbox->peer_read = row->peer_read;
    for (uint32_t i = 0; i < row->cursor_count; i++) {
        struct inbox_cursor *cursor;
        TRY(cursor_of(replay, &cursor, inbox, row->cursors[i].device));
        cursor->delivered = row->cursors[i].delivered;
    }
    return OK;
}

static enum err load_rows(struct replay *replay, struct catalog_txn *txn,
                          struct replay_entry *entry)
{
    struct conversation_row *row = &replay->row;
    enum err err = rows_read_conversation(txn, entry->id, row);
    if (err != OK && err != ERR_NOT_FOUND)
        return err;
    entry->last_seq = row->last_seq;
    entry->last_time_ms = row->last_time_ms;
    memcpy(entry->delivered, row->delivered, sizeof entry->delivered);
    memcpy(entry->read, row->read, sizeof entry->read);
    if (row->keep.seq != 0) {
        TRY(keep_of(replay, entry));
        *entry->keep = row->keep;
    }
    for (uint32_t i = 0; i < row->sender_count; i++) {
        struct sender_row *sender;
        TRY(sender_of(replay, &sender, entry, row->senders[i].user, row->senders[i].device));
        sender->highest = row->senders[i].highest;
    }
    for (uint32_t i = 0; i < members_of(entry->id); i++)
        TRY(load_inbox(replay, txn, entry, i));
    return OK;
}

static struct replay_entry *entry_create(struct conversation_id id)
{
    struct replay_entry *entry = memory_take_zeroed(sizeof *entry, MEMORY_CHAT);
    if (entry == NULL)
        return NULL;
    entry->id = id;
    entry->senders = entry->first;
    entry->capacity = COUNT_OF(entry->first);
    for (int i = 0; i < 2; i++) {
        entry->inboxes[i].cursors = &entry->inboxes[i].first;
        entry->inboxes[i].capacity = 1;
    }
    return entry;
}

static enum err entry_get(struct replay *replay, struct catalog_txn *txn, struct replay_entry **out,
                          struct conversation_id id)
{
    *out = table_get(&replay->entries, key_of(id));
    if (*out != NULL)
        return OK;
    size_t bytes = replay->bytes;
    struct replay_entry *entry = entry_create(id);
    if (entry == NULL)
        return ERR_NO_MEMORY;
    enum err err = load_rows(replay, txn, entry);
    if (err == OK)
        err = table_put(&replay->entries, key_of(id), entry);
    if (err != OK) {
        entry_destroy(entry);
        replay->bytes = bytes;
        return err;
    }
    replay->bytes += sizeof *entry + ENTRY_OVERHEAD;
    *out = entry;
    return OK;
}

/* ---- merging */

static enum err take_message(struct replay *replay, struct replay_entry *entry,
                             const struct log_record *record)
{
    struct sender_row *sender;
    TRY(sender_of(replay, &sender, entry, record->sender, record->device));
    if (sender != NULL && message_id_compare(record->message_id, sender->highest) > 0)
        sender->highest = record->message_id;
    raise(&entry->last_seq, record->seq);
    raise(&entry->last_time_ms, record->time_ms);
    for (uint32_t i = 0; i < members_of(entry->id); i++) {
        struct replay_inbox *inbox = &entry->inboxes[i];
        raise(&inbox->last_seq, record->seq);
        raise(&inbox->activity_ms, record->time_ms);
        if (member_user(entry->id, i) != record->sender.v)
            continue;
        /* The acknowledgement told the sending device. Only where it has a cursor: one made here
         * would be the row's only one, and the user's other devices would begin behind it. */
        for (uint32_t j = 0; j < inbox->count; j++)
            if (inbox->cursors[j].device.v == record->device.v &&
                inbox->cursors[j].delivered + 1 == record->seq)
                inbox->cursors[j].delivered = record->seq;
    }
    return OK;
}

static enum err take_watermark(struct replay *replay, struct replay_entry *entry,
                               const struct log_record *record)
{
    uint64_t read = load_u64(record->body.data);
    uint64_t delivered = record->seq;
    uint32_t member = record->sender.v == entry->id.hi ? 0 : 1;
    struct inbox_cursor *cursor;
    TRY(cursor_of(replay, &cursor, &entry->inboxes[member], record->device));
    if (cursor != NULL)
        raise(&cursor->delivered, delivered);
    raise(&entry->inboxes[member].read_seq, read);
    raise(&entry->delivered[member], delivered);
    raise(&entry->read[member], read);
    if (members_of(entry->id) == 2) {
        raise(&entry->inboxes[1 - member].peer_delivered, delivered);
        raise(&entry->inboxes[1 - member].peer_read, read);
    }
    return OK;
}

/* take_retention: an entry with a number, like a message, and what it sets. */
static enum err take_retention(struct replay *replay, struct replay_entry *entry,
                               const struct log_record *record)
{
    struct retention_setting setting;
    TRY(keep_decode(&setting, record->body));
    TRY(keep_of(replay, entry));
    TRY(take_message(replay, entry, record));
    keep_set(entry->keep, record->seq, &setting);
    return OK;
}

/* take_lost: the number was given, and must not be given again. */
static void take_lost(struct replay_entry *entry, uint64_t seq)
{
    raise(&entry->last_seq, seq);
    for (uint32_t i = 0; i < members_of(entry->id); i++)
        raise(&entry->inboxes[i].last_seq, seq);
}

/* take_mark: what the device sent and acknowledged, of whatever became of the messages. */
static enum err take_mark(struct replay *replay, struct replay_entry *entry,
                          const struct archive_state *state, const struct archive_mark *mark)
{
    static const struct message_id none;
    struct sender_row *sender;
    uint8_t read[8];
    const struct log_record record = archive_mark_record(mark, state->conversation, read);
    if (mark->user.v != entry->id.hi && mark->user.v != entry->id.lo)
        return ERR_CORRUPT;
    if (message_id_compare(mark->highest, none) != 0) {
        TRY(sender_of(replay, &sender, entry, mark->user, mark->device));
        if (sender != NULL && message_id_compare(mark->highest, sender->highest) > 0)
            sender->highest = mark->highest;
    }
    if (mark->marked)
        TRY(take_watermark(replay, entry, &record));
    struct replay_inbox *inbox = &entry->inboxes[mark->user.v == entry->id.hi ? 0 : 1];
    for (uint32_t i = 0; i < inbox->count; i++) {
        struct inbox_cursor *cursor = &inbox->cursors[i];
        if (cursor->device.v != mark->device.v)
            continue;
        if (mark->lead != 0 && cursor->delivered + 1 >= state->first_seq)
            raise(&cursor->delivered, mark->lead);
        if (mark->marked)
            raise(&cursor->delivered, mark->own);
    }
    return OK;
}

enum err replay_state(struct replay *replay, struct catalog_txn *txn,
                      const struct archive_state *state)
{
    struct replay_entry *entry;
    struct archive_mark mark;
    if (!conversation_id_is_direct(state->conversation))
        return ERR_UNSUPPORTED;
    TRY(entry_get(replay, txn, &entry, state->conversation));
    take_lost(entry, state->last_seq);
    raise(&entry->last_time_ms, state->time_ms);
    for (uint32_t i = 0; i < members_of(entry->id); i++)
        raise(&entry->inboxes[i].activity_ms, state->time_ms);
    for (uint32_t i = 0; i < state->count; i++) {
        archive_state_mark(&mark, state, i);
        TRY(take_mark(replay, entry, state, &mark));
    }
    return OK;
}

enum err replay_record(struct replay *replay, struct catalog_txn *txn,
                       const struct log_record *record)
{
    if (record->kind == RECORD_VOID)
        return OK;
    if (!conversation_id_is_direct(record->conversation))
        return ERR_UNSUPPORTED;
    struct replay_entry *entry;
    switch ((enum record_kind)record->kind) {
    case RECORD_MESSAGE:
        TRY(entry_get(replay, txn, &entry, record->conversation));
        bool counted = record->seq <= entry->last_seq; /* by the row */
        TRY(take_message(replay, entry, record));
        if (entry->keep != NULL && !counted)
            keep_count(entry->keep, record->seq, record->body.size);
        return OK;
    case RECORD_RETENTION:
        TRY(entry_get(replay, txn, &entry, record->conversation));
        return take_retention(replay, entry, record);
    case RECORD_WATERMARK:
        if (record->body.size != 8 || (record->sender.v != record->conversation.hi &&
                                       record->sender.v != record->conversation.lo))
            return ERR_CORRUPT;
        TRY(entry_get(replay, txn, &entry, record->conversation));
        return take_watermark(replay, entry, record);
    case RECORD_LOST:
        TRY(entry_get(replay, txn, &entry, record->conversation));
        take_lost(entry, record->seq);
        return OK;
    case RECORD_VOID:
    case RECORD_MEMBERSHIP:
    case RECORD_GONE: /* stands in archives only, which are not replayed */
        return ERR_UNSUPPORTED;
    }
    return ERR_UNSUPPORTED;
}

/* ---- writing */

static int entry_compare(const void *a, const void *b)
{
    struct conversation_id x = (*(struct replay_entry *const *)a)->id;
    struct conversation_id y = (*(struct replay_entry *const *)b)->id;
    if (x.hi != y.hi)
        return x.hi < y.hi ? -1 : 1;
    return x.lo < y.lo ? -1 : x.lo > y.lo;
}

static int place_compare(const void *a, const void *b)
{
    const struct inbox_place *x = a;
    const struct inbox_place *y = b;
    if (x->user != y->user)
        return x->user < y->user ? -1 : 1;
    return entry_compare(&x->entry, &y->entry);
}

static enum err write_conversation(struct replay *replay, struct catalog_txn *txn,
                                   const struct replay_entry *entry)
{
    struct conversation_row *row = &replay->row;
    row->last_seq = entry->last_seq;
    row->last_time_ms = entry->last_time_ms;
    memcpy(row->delivered, entry->delivered, sizeof row->delivered);
    memcpy(row->read, entry->read, sizeof row->read);
    row->keep = (struct keep){0};
    if (entry->keep != NULL)
        row->keep = *entry->keep;
    row->sender_count = entry->count;
    if (entry->count != 0)
        memcpy(row->senders, entry->senders, entry->count * sizeof *row->senders);
    return rows_put_conversation(txn, entry->id, row);
}

static enum err write_inbox(struct replay *replay, struct catalog_txn *txn,
                            const struct inbox_place *place)
{
    const struct replay_inbox *inbox = &place->entry->inboxes[place->member];
    struct inbox_row *row = &replay->inbox;
    row->last_seq = inbox->last_seq;
    row->activity_ms = inbox->activity_ms;
    row->read_seq = inbox->read_seq;
    row->peer_delivered = inbox->peer_delivered;
    row->peer_read = inbox->peer_read;
    row->cursor_count = inbox->count;
    if (inbox->count != 0)
        memcpy(row->cursors, inbox->cursors, inbox->count * sizeof *row->cursors);
    return rows_put_inbox(txn, (struct user_id){place->user}, place->entry->id, row);
}

static enum err write_sorted(struct replay *replay, struct catalog_txn *txn,
                             struct replay_entry **entries, struct inbox_place *places)
{
    size_t count = 0;
    size_t place_count = 0;
    size_t at = 0;
    struct replay_entry *entry;
    while ((entry = table_next(&replay->entries, &at)) != NULL) {
        entries[count++] = entry;
        for (uint32_t i = 0; i < members_of(entry->id); i++)
            places[place_count++] = (struct inbox_place){member_user(entry->id, i), entry, i};
    }
    qsort(entries, count, sizeof(void *), entry_compare);
    qsort(places, place_count, sizeof *places, place_compare);
    for (size_t i = 0; i < count; i++)
        TRY(write_conversation(replay, txn, entries[i]));
    for (size_t i = 0; i < place_count; i++)
        TRY(write_inbox(replay, txn, &places[i]));
    return OK;
}

enum err replay_flush(struct replay *replay, struct catalog_txn *txn)
{
    size_t count = replay->entries.count;
    if (count == 0)
        return OK;
    struct replay_entry **entries = memory_take(count * sizeof(void *), MEMORY_CHAT);
    struct inbox_place *places = memory_take(2 * count * sizeof *places, MEMORY_CHAT);
    enum err err = ERR_NO_MEMORY;
    if (entries != NULL && places != NULL)
        err = write_sorted(replay, txn, entries, places);
    memory_give(places, MEMORY_CHAT);
    memory_give(entries, MEMORY_CHAT);
    if (err == OK)
        forget(replay);
    return err;
}
