/* replay.c: see replay.h. Records are gathered, a group at a time, and then taken together: the
 * rows that they are the first to need are read in key order, and memory that will be written is
 * fetched while other records are taken; one after the other, in the order of the log, as they
 * came. Entries: replay_entry.h; their rows: replay_rows.c. */
#include "gateway/chat/replay.h"

#include "core/memory.h"
#include "gateway/chat/replay_entry.h"

#define ENTRY_BYTES   (sizeof(struct replay_entry) + 64) /* and the table's cell, about */
#define APPROACH      12u /* so many records ahead memory is fetched */
#define MESSAGE_BYTES offsetof(struct replay_entry, delivered) /* what messages touch */
_Static_assert(MESSAGE_BYTES == 3 * REPLAY_LINE_BYTES, "whole lines");

/* gathered: a record that waits to be taken. */
struct gathered {
    struct log_record record; /* its body: what `body` holds; of a message only its size is known */
    uint8_t body[KEEP_BODY_BYTES];
    struct replay_entry *entry;
};

struct replay_group {
    struct replay_chunk *fresh; /* entries that this group is the first to need: not loaded yet */
    uint32_t fresh_count;
    uint32_t count;
    struct gathered gathered[REPLAY_GROUP_RECORDS];
};

static struct table_key key_of(struct conversation_id id)
{
    return (struct table_key){id.hi, id.lo};
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

static void forget(struct replay *replay)
{
    for (struct replay_chunk *at = replay->chunks; at != NULL; at = at->next)
        for (uint32_t i = 0; i < at->count; i++)
            replay_entry_deinit(&at->entries[i]);
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

/* ---- taking */

static enum err take_message(struct replay *replay, struct replay_entry *entry,
                             const struct log_record *record)
{
    struct sender_row *sender;
    TRY(replay_sender_of(replay, &sender, entry, record->sender, record->device));
    if (sender != NULL && message_id_compare(record->message_id, sender->highest) > 0)
        sender->highest = record->message_id;
    replay_raise(&entry->last_seq, record->seq);
    replay_raise(&entry->last_time_ms, record->time_ms);
    replay_raise(&entry->seen_seq, record->seq);
    replay_raise(&entry->seen_ms, record->time_ms);
    for (uint32_t i = 0; i < replay_members(entry->id); i++) {
        if (replay_user(entry->id, i) != record->sender.v)
            continue;
        /* The acknowledgement told the sending device. Only where it has a cursor: one made here
         * would be the row's only one, and the user's other devices would begin behind it. */
        struct inbox_cursor *cursors = replay_cursors_of(entry, i);
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
    TRY(replay_cursor_of(replay, &cursor, entry, member, record->device));
    if (cursor != NULL)
        replay_raise(&cursor->delivered, delivered);
    replay_raise(&entry->inboxes[member].read_seq, read);
    replay_raise(&entry->delivered[member], delivered);
    replay_raise(&entry->read[member], read);
    if (replay_members(entry->id) == 2) {
        replay_raise(&entry->inboxes[1 - member].peer_delivered, delivered);
        replay_raise(&entry->inboxes[1 - member].peer_read, read);
    }
    return OK;
}

/* take_retention: an entry with a number, like a message, and what it sets. */
static enum err take_retention(struct replay *replay, struct replay_entry *entry,
                               const struct log_record *record)
{
    struct retention_setting setting;
    TRY(keep_decode(&setting, record->body));
    TRY(replay_keep_of(replay, entry));
    TRY(take_message(replay, entry, record));
    keep_set(entry->keep, record->seq, &setting);
    return OK;
}

/* take_lost: the number was given, and must not be given again. */
static void take_lost(struct replay_entry *entry, uint64_t seq)
{
    replay_raise(&entry->last_seq, seq);
    replay_raise(&entry->seen_seq, seq);
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
    while (*last != NULL)
        last = &(*last)->next;
    *last = known;
    replay->chunks = group->fresh;
    replay->entry_count += count;
    replay->bytes += count * ENTRY_BYTES;
    group->fresh = NULL;
    group->fresh_count = 0;
    return replay_rows_load(replay, txn, known, count);
}

static enum err settle(struct replay *replay, struct catalog_txn *txn, struct replay_group *group)
{
    struct gathered *gathered = group->gathered;
    TRY(load_fresh(replay, txn, group));
    for (uint32_t i = 0; i < group->count; i++) {
        if (i + APPROACH < group->count)
            replay_approach(gathered[i + APPROACH].entry, MESSAGE_BYTES);
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
    if (chunk == NULL || chunk->count == REPLAY_CHUNK_ENTRIES) {
        chunk = memory_take_aligned(sizeof *chunk, REPLAY_LINE_BYTES, MEMORY_CHAT);
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
        TRY(replay_sender_of(replay, &sender, entry, mark->user, mark->device));
        if (sender != NULL && message_id_compare(mark->highest, sender->highest) > 0)
            sender->highest = mark->highest;
    }
    if (mark->marked)
        TRY(take_watermark(replay, entry, &record));
    uint32_t member = mark->user.v == entry->id.hi ? 0 : 1;
    for (uint32_t i = 0; i < entry->cursors[member].count; i++) {
        struct inbox_cursor *cursor = &replay_cursors_of(entry, member)[i];
        if (cursor->device.v != mark->device.v)
            continue;
        if (mark->lead != 0 && cursor->delivered + 1 >= state->first_seq)
            replay_raise(&cursor->delivered, mark->lead);
        if (mark->marked)
            replay_raise(&cursor->delivered, mark->own);
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
    replay_raise(&entry->last_time_ms, state->time_ms);
    replay_raise(&entry->seen_ms, state->time_ms);
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

enum err replay_flush(struct replay *replay, struct catalog_txn *txn)
{
    TRY(take_own(replay, txn));
    replay->failed = replay_rows_write(replay, txn);
    if (replay->failed == OK)
        forget(replay);
    return replay->failed;
}
