/* replay.c: see replay.h. Records are gathered, a group at a time, and then taken together: the
 * rows that they are the first to need are read in key order, and memory that will be written is
 * fetched while other records are taken; one after the other, in the order of the log, as they
 * came.
 *
 * An entry is a conversation's row and its two members' inbox rows, decoded as rows.c reads them.
 * What a message changes stands in its first three cache lines: two devices' senders and one
 * device's cursor of each member among it. */
#include "gateway/chat/replay.h"

#include "core/memory.h"
#include "gateway/chat/replay_sort.h"

#define LINE_BYTES 64 /* of a cache */

struct replay_cursors {
    struct inbox_cursor first;
    uint32_t count;
    uint32_t capacity; /* above 1: all stand in `more` of the member's inbox */
};

struct replay_inbox {
    uint64_t last_seq;
    uint64_t activity_ms;
    uint64_t read_seq;
    uint64_t peer_delivered;
    uint64_t peer_read;
    struct inbox_cursor *more;
};

struct replay_entry {
    struct conversation_id id;
    uint64_t last_seq;
    uint64_t last_time_ms;
    uint64_t seen_seq; /* highest number among the records: of both inboxes too */
    uint64_t seen_ms;
    struct keep *keep; /* NULL: nobody set any */
    uint32_t count;    /* senders */
    uint32_t capacity; /* above COUNT_OF(first): all stand in `more` */
    struct sender_row first[2];
    struct replay_cursors cursors[2];
    struct sender_row *more;
    _Alignas(LINE_BYTES) uint64_t delivered[2]; /* from here on: what messages do not touch */
    uint64_t read[2];
    struct replay_inbox inboxes[2]; /* a talk with oneself uses the first */
};

/* gathered: a record that waits to be taken. */
struct gathered {
    struct log_record record; /* its body: what `body` holds; of a message only its size is known */
    uint8_t body[KEEP_BODY_BYTES];
    struct replay_entry *entry;
};

#define CHUNK_ENTRIES 64                                 /* 20 KiB */
#define ENTRY_BYTES   (sizeof(struct replay_entry) + 64) /* and the table's cell, about */
#define APPROACH      12u /* so many records ahead memory is fetched */
#define APPROACH_ROWS 6u  /* the same of rows */

struct replay_chunk {
    struct replay_chunk *next;
    uint32_t count;
    struct replay_entry entries[CHUNK_ENTRIES];
};

struct replay_group {
    struct replay_chunk *fresh; /* entries that this group is the first to need: not loaded yet */
    uint32_t fresh_count;
    uint32_t count;
    struct gathered gathered[REPLAY_GROUP_RECORDS];
};

#define MESSAGE_BYTES offsetof(struct replay_entry, delivered) /* what messages touch */
_Static_assert(MESSAGE_BYTES == 3 * LINE_BYTES, "whole lines");

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

/* ---- life */

static void chunks_give(struct replay_chunk *chunks)
{
    while (chunks != NULL) {
        struct replay_chunk *next = chunks->next;
        memory_give(chunks, MEMORY_CHAT);
        chunks = next;
    }
}

enum err replay_group_create(struct replay_group **out)
{
    struct replay_group *group = memory_take(sizeof *group, MEMORY_CHAT);
    if (group == NULL)
        return ERR_NO_MEMORY;
    group->fresh = NULL;
    group->fresh_count = group->count = 0;
    *out = group;
    return OK;
}

void replay_group_destroy(struct replay_group *group)
{
    if (group != NULL)
        chunks_give(group->fresh);
    memory_give(group, MEMORY_CHAT);
}

void replay_finder_init(struct replay_finder *finder)
{
    table_init(&finder->entries, 1); /* the ids are those of the store's own log */
    finder->count = 0;
}

void replay_finder_forget(struct replay_finder *finder)
{
    table_deinit(&finder->entries);
    finder->count = 0;
}

bool replay_finder_full(const struct replay_finder *finder)
{
    return finder->count * ENTRY_BYTES >= REPLAY_BYTES_MAX;
}

enum err replay_create(struct replay **out)
{
    struct replay *replay = memory_take_zeroed(sizeof *replay, MEMORY_CHAT);
    if (replay == NULL)
        return ERR_NO_MEMORY;
    replay_finder_init(&replay->finder);
    *out = replay;
    return OK;
}

static void entry_deinit(struct replay_entry *entry)
{
    for (int i = 0; i < 2; i++)
        memory_give(entry->inboxes[i].more, MEMORY_CHAT);
    memory_give(entry->keep, MEMORY_CHAT);
    memory_give(entry->more, MEMORY_CHAT);
}

static void forget(struct replay *replay)
{
    for (struct replay_chunk *at = replay->chunks; at != NULL; at = at->next)
        for (uint32_t i = 0; i < at->count; i++)
            entry_deinit(&at->entries[i]);
    chunks_give(replay->chunks);
    replay->chunks = NULL;
    replay->entry_count = 0;
    replay->bytes = 0;
    replay_finder_forget(&replay->finder);
}

void replay_destroy(struct replay *replay)
{
    if (replay == NULL)
        return;
    forget(replay);
    replay_group_destroy(replay->group);
    memory_give(replay, MEMORY_CHAT);
}

bool replay_full(const struct replay *replay)
{
    return replay->bytes >= REPLAY_BYTES_MAX;
}

/* ---- an entry's arrays */

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

static struct sender_row *senders_of(struct replay_entry *entry)
{
    return entry->capacity > COUNT_OF(entry->first) ? entry->more : entry->first;
}

/* sender_of: the device's place, made if absent; *out NULL: the row has no more. */
static enum err sender_of(struct replay *replay, struct sender_row **out,
                          struct replay_entry *entry, struct user_id user, struct device_id device)
{
    struct sender_row *senders = senders_of(entry);
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
    *out = &senders_of(entry)[entry->count++];
    **out = (struct sender_row){.user = user, .device = device};
    return OK;
}

static struct inbox_cursor *cursors_of(struct replay_entry *entry, uint32_t member)
{
    struct replay_cursors *cursors = &entry->cursors[member];
    return cursors->capacity > 1 ? entry->inboxes[member].more : &cursors->first;
}

static enum err cursor_of(struct replay *replay, struct inbox_cursor **out,
                          struct replay_entry *entry, uint32_t member, struct device_id device)
{
    struct replay_cursors *cursors = &entry->cursors[member];
    struct inbox_cursor *at = cursors_of(entry, member);
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
    *out = &cursors_of(entry, member)[cursors->count++];
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
    const struct user_id user = {member_user(entry->id, member)};
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
        TRY(cursor_of(replay, &cursor, entry, member, row->cursors[i].device));
        cursor->delivered = row->cursors[i].delivered;
    }
    return OK;
}

static enum err load_conversation(struct replay *replay, struct catalog_txn *txn,
                                  struct replay_entry *entry)
{
    struct conversation_row *row = &replay->row;
    enum err err = rows_read_conversation(txn, entry->id, row);
    if (err == ERR_NOT_FOUND)
        return OK;
    TRY(err);
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
    return OK;
}

/* ---- row by row */

/* row_visits: what is done with each row of the entries: they are read, or written. */
struct row_visits {
    enum err (*conversation)(struct replay *replay, struct catalog_txn *txn,
                             struct replay_entry *entry);
    enum err (*inbox)(struct replay *replay, struct catalog_txn *txn, struct replay_entry *entry,
                      uint32_t member);
};

/* approach: have memory fetched that will be written. */
static void approach(const struct replay_entry *entry, size_t bytes)
{
    for (size_t at = 0; at < bytes; at += LINE_BYTES)
        __builtin_prefetch((const char *)entry + at, 1);
}

static void approach_place(const struct replay_place *places, size_t at, size_t count)
{
    if (at < count)
        approach(places[at].entry, sizeof *places[at].entry);
}

/* each_inbox: first[] is sorted by the first member, second[] by the second, who is another. */
static enum err each_inbox(struct replay *replay, struct catalog_txn *txn,
                           const struct row_visits *visits, const struct replay_place *first,
                           size_t first_count, const struct replay_place *second,
                           size_t second_count)
{
    for (size_t i = 0, j = 0; i < first_count || j < second_count;) {
        bool is_second = i == first_count || (j < second_count && second[j].user <= first[i].user);
        approach_place(first, i + APPROACH_ROWS, first_count);
        approach_place(second, j + APPROACH_ROWS, second_count);
        struct replay_entry *entry = is_second ? second[j++].entry : first[i++].entry;
        TRY(visits->inbox(replay, txn, entry, is_second));
    }
    return OK;
}

static enum err each_sorted(struct replay *replay, struct catalog_txn *txn,
                            const struct row_visits *visits, struct replay_place *places,
                            size_t count)
{
    struct replay_place *second = places + count;
    struct replay_place *spare = second + count;
    size_t second_count = 0;
    for (size_t i = 0; i < count; i++) {
        struct replay_place place = places[i];
        if (place.user != place.peer)
            second[second_count++] = (struct replay_place){place.peer, place.user, place.entry};
    }
    replay_sort(places, spare, count);
    replay_sort(second, spare, second_count);
    for (size_t i = 0; i < count; i++) {
        approach_place(places, i + APPROACH_ROWS, count);
        TRY(visits->conversation(replay, txn, places[i].entry));
    }
    return each_inbox(replay, txn, visits, places, count, second, second_count);
}

/* each_row: of the count entries that stand before `end`, in key order: all their conversations'
 * rows, then the inboxes'. */
static enum err each_row(struct replay *replay, struct catalog_txn *txn,
                         const struct row_visits *visits, const struct replay_chunk *end,
                         uint32_t count)
{
    if (count == 0)
        return OK;
    struct replay_place *places = memory_take(3 * (size_t)count * sizeof *places, MEMORY_CHAT);
    if (places == NULL)
        return ERR_NO_MEMORY;
    size_t at = 0;
    for (struct replay_chunk *chunk = replay->chunks; chunk != end; chunk = chunk->next)
        for (uint32_t i = 0; i < chunk->count; i++) {
            struct replay_entry *entry = &chunk->entries[i];
            places[at++] = (struct replay_place){entry->id.hi, entry->id.lo, entry};
        }
    enum err err = each_sorted(replay, txn, visits, places, count);
    memory_give(places, MEMORY_CHAT);
    return err;
}

/* ---- taking */

static enum err take_message(struct replay *replay, struct replay_entry *entry,
                             const struct log_record *record)
{
    struct sender_row *sender;
    TRY(sender_of(replay, &sender, entry, record->sender, record->device));
    if (sender != NULL && message_id_compare(record->message_id, sender->highest) > 0)
        sender->highest = record->message_id;
    raise(&entry->last_seq, record->seq);
    raise(&entry->last_time_ms, record->time_ms);
    raise(&entry->seen_seq, record->seq);
    raise(&entry->seen_ms, record->time_ms);
    for (uint32_t i = 0; i < members_of(entry->id); i++) {
        if (member_user(entry->id, i) != record->sender.v)
            continue;
        /* The acknowledgement told the sending device. Only where it has a cursor: one made here
         * would be the row's only one, and the user's other devices would begin behind it. */
        struct inbox_cursor *cursors = cursors_of(entry, i);
        for (uint32_t j = 0; j < entry->cursors[i].count; j++)
            if (cursors[j].device.v == record->device.v && cursors[j].delivered + 1 == record->seq)
                cursors[j].delivered = record->seq;
    }
    return OK;
}

/* take_counted: a message, whose bytes count unless the row has counted them. */
static enum err take_counted(struct replay *replay, struct replay_entry *entry,
                             const struct log_record *record)
{
    bool counted = record->seq <= entry->last_seq;
    TRY(take_message(replay, entry, record));
    if (entry->keep != NULL && !counted)
        keep_count(entry->keep, record->seq, record->body.size);
    return OK;
}

static enum err take_watermark(struct replay *replay, struct replay_entry *entry,
                               const struct log_record *record)
{
    uint64_t read = load_u64(record->body.data);
    uint64_t delivered = record->seq;
    uint32_t member = record->sender.v == entry->id.hi ? 0 : 1;
    struct inbox_cursor *cursor;
    TRY(cursor_of(replay, &cursor, entry, member, record->device));
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
    raise(&entry->seen_seq, seq);
}

static enum err take(struct replay *replay, struct replay_entry *entry,
                     const struct log_record *record)
{
    switch ((enum record_kind)record->kind) {
    case RECORD_MESSAGE:
        return take_counted(replay, entry, record);
    case RECORD_RETENTION:
        return take_retention(replay, entry, record);
    case RECORD_WATERMARK:
        return take_watermark(replay, entry, record);
    case RECORD_LOST:
        take_lost(entry, record->seq);
        return OK;
    case RECORD_VOID:
    case RECORD_MEMBERSHIP:
    case RECORD_GONE:
        break;
    }
    return ERR_UNSUPPORTED; /* replay_gather lets none in */
}

/* load_fresh: the group's new entries are the replay's from here on. */
static enum err load_fresh(struct replay *replay, struct catalog_txn *txn,
                           struct replay_group *group)
{
    struct replay_chunk *known = replay->chunks;
    struct replay_chunk **last = &group->fresh;
    uint32_t count = group->fresh_count;
    static const struct row_visits load = {load_conversation, load_inbox};
    while (*last != NULL)
        last = &(*last)->next;
    *last = known;
    replay->chunks = group->fresh;
    replay->entry_count += count;
    replay->bytes += count * ENTRY_BYTES;
    group->fresh = NULL;
    group->fresh_count = 0;
    return each_row(replay, txn, &load, known, count);
}

static enum err settle(struct replay *replay, struct catalog_txn *txn, struct replay_group *group)
{
    struct gathered *gathered = group->gathered;
    TRY(load_fresh(replay, txn, group));
    for (uint32_t i = 0; i < group->count; i++) {
        if (i + APPROACH < group->count)
            approach(gathered[i + APPROACH].entry, MESSAGE_BYTES);
        TRY(take(replay, gathered[i].entry, &gathered[i].record));
    }
    group->count = 0;
    return OK;
}

enum err replay_take(struct replay *replay, struct catalog_txn *txn, struct replay_group *group)
{
    TRY(replay->failed);
    replay->failed = settle(replay, txn, group);
    return replay->failed;
}

/* ---- gathering */

/* judge: whether the record can be taken. */
static enum err judge(const struct log_record *record)
{
    struct retention_setting setting;
    if (!conversation_id_is_direct(record->conversation))
        return ERR_UNSUPPORTED;
    switch ((enum record_kind)record->kind) {
    case RECORD_MESSAGE:
    case RECORD_LOST:
        return OK;
    case RECORD_RETENTION:
        return keep_decode(&setting, record->body);
    case RECORD_WATERMARK:
        return record->body.size == 8 && conversation_id_has(record->conversation, record->sender)
                   ? OK
                   : ERR_CORRUPT;
    case RECORD_VOID:
    case RECORD_MEMBERSHIP:
    case RECORD_GONE: /* stands in archives only, which are not replayed */
        break;
    }
    return ERR_UNSUPPORTED;
}

bool replay_group_full(const struct replay_group *group)
{
    return group->count == REPLAY_GROUP_RECORDS;
}

/* replay_gather: with as much of its body as taking it needs. */
enum err replay_gather(struct replay_group *group, const struct log_record *record)
{
    CHECK(!replay_group_full(group));
    if (record->kind == RECORD_VOID)
        return OK;
    TRY(judge(record));
    struct gathered *to = &group->gathered[group->count++];
    to->record = *record;
    to->record.body.data = to->body;
    if (record->kind == RECORD_WATERMARK || record->kind == RECORD_RETENTION)
        memcpy(to->body, record->body.data, record->body.size);
    return OK;
}

/* ---- finding */

static enum err entry_create(struct replay_entry **out, struct replay_group *group,
                             struct conversation_id id)
{
    struct replay_chunk *chunk = group->fresh;
    if (chunk == NULL || chunk->count == CHUNK_ENTRIES) {
        chunk = memory_take_aligned(sizeof *chunk, LINE_BYTES, MEMORY_CHAT);
        if (chunk == NULL)
            return ERR_NO_MEMORY;
        chunk->next = group->fresh;
        chunk->count = 0;
        group->fresh = chunk;
    }
    struct replay_entry *entry = &chunk->entries[chunk->count++];
    *entry = (struct replay_entry){.id = id, .capacity = COUNT_OF(entry->first)};
    for (int i = 0; i < 2; i++)
        entry->cursors[i].capacity = 1;
    group->fresh_count++;
    *out = entry;
    return OK;
}

/* find: the conversation's entry, found or made. */
static enum err find(struct replay_entry **out, struct replay_finder *finder,
                     struct replay_group *group, struct conversation_id id)
{
    *out = table_get(&finder->entries, key_of(id));
    if (*out != NULL)
        return OK;
    TRY(entry_create(out, group, id));
    finder->count++;
    return table_put(&finder->entries, key_of(id), *out);
}

enum err replay_find(struct replay_finder *finder, struct replay_group *group)
{
    struct gathered *gathered = group->gathered;
    for (uint32_t i = 0; i < group->count; i++) {
        if (i + APPROACH < group->count)
            table_approach(&finder->entries, key_of(gathered[i + APPROACH].record.conversation));
        TRY(find(&gathered[i].entry, finder, group, gathered[i].record.conversation));
    }
    return OK;
}

/* ---- both in one */

/* take_own: what replay_record has gathered. */
static enum err take_own(struct replay *replay, struct catalog_txn *txn)
{
    TRY(replay->failed);
    if (replay->group == NULL)
        return OK;
    replay->failed = replay_find(&replay->finder, replay->group);
    return replay->failed == OK ? replay_take(replay, txn, replay->group) : replay->failed;
}

static enum err own_group(struct replay *replay)
{
    return replay->group == NULL ? replay_group_create(&replay->group) : OK;
}

enum err replay_record(struct replay *replay, struct catalog_txn *txn,
                       const struct log_record *record)
{
    TRY(replay->failed);
    TRY(own_group(replay));
    TRY(replay_gather(replay->group, record));
    return replay_group_full(replay->group) ? take_own(replay, txn) : OK;
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
    uint32_t member = mark->user.v == entry->id.hi ? 0 : 1;
    for (uint32_t i = 0; i < entry->cursors[member].count; i++) {
        struct inbox_cursor *cursor = &cursors_of(entry, member)[i];
        if (cursor->device.v != mark->device.v)
            continue;
        if (mark->lead != 0 && cursor->delivered + 1 >= state->first_seq)
            raise(&cursor->delivered, mark->lead);
        if (mark->marked)
            raise(&cursor->delivered, mark->own);
    }
    return OK;
}

static enum err take_state(struct replay *replay, struct catalog_txn *txn,
                           const struct archive_state *state)
{
    struct replay_entry *entry;
    struct archive_mark mark;
    TRY(own_group(replay));
    TRY(take_own(replay, txn));
    TRY(find(&entry, &replay->finder, replay->group, state->conversation));
    TRY(load_fresh(replay, txn, replay->group));
    take_lost(entry, state->last_seq);
    raise(&entry->last_time_ms, state->time_ms);
    raise(&entry->seen_ms, state->time_ms);
    for (uint32_t i = 0; i < state->count; i++) {
        archive_state_mark(&mark, state, i);
        TRY(take_mark(replay, entry, state, &mark));
    }
    return OK;
}

enum err replay_state(struct replay *replay, struct catalog_txn *txn,
                      const struct archive_state *state)
{
    if (!conversation_id_is_direct(state->conversation))
        return ERR_UNSUPPORTED;
    TRY(replay->failed);
    replay->failed = take_state(replay, txn, state);
    return replay->failed;
}

/* ---- writing */

static enum err write_conversation(struct replay *replay, struct catalog_txn *txn,
                                   struct replay_entry *entry)
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
    memcpy(row->senders, senders_of(entry), entry->count * sizeof *row->senders);
    return rows_put_conversation(txn, entry->id, row);
}

static enum err write_inbox(struct replay *replay, struct catalog_txn *txn,
                            struct replay_entry *entry, uint32_t member)
{
    const struct replay_inbox *inbox = &entry->inboxes[member];
    struct inbox_row *row = &replay->inbox;
    row->last_seq = inbox->last_seq;
    row->activity_ms = inbox->activity_ms;
    raise(&row->last_seq, entry->seen_seq);
    raise(&row->activity_ms, entry->seen_ms);
    row->read_seq = inbox->read_seq;
    row->peer_delivered = inbox->peer_delivered;
    row->peer_read = inbox->peer_read;
    row->cursor_count = entry->cursors[member].count;
    memcpy(row->cursors, cursors_of(entry, member), row->cursor_count * sizeof *row->cursors);
    return rows_put_inbox(txn, (struct user_id){member_user(entry->id, member)}, entry->id, row);
}

enum err replay_flush(struct replay *replay, struct catalog_txn *txn)
{
    static const struct row_visits write = {write_conversation, write_inbox};
    TRY(take_own(replay, txn));
    replay->failed = each_row(replay, txn, &write, NULL, replay->entry_count);
    if (replay->failed == OK)
        forget(replay);
    return replay->failed;
}
