/* replay_rows.c: the rows of entries, read when the first record needs them and written when all
 * are merged, both in key order: what stands together in the catalog is visited together. Memory
 * that comes next is fetched meanwhile. */
#include "core/memory.h"
#include "gateway/chat/replay_entry.h"
#include "gateway/chat/replay_sort.h"

#define APPROACH_ROWS 6u /* so many rows ahead memory is fetched */

/* ---- loading */

static enum err load_inbox(struct replay *replay, struct catalog_txn *txn,
                           struct replay_entry *entry, uint32_t member)
{
    struct inbox_row *row = &replay->inbox;
    struct replay_inbox *inbox = &entry->inboxes[member];
    const struct user_id user = {replay_user(entry->id, member)};
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
        TRY(replay_cursor_of(replay, &cursor, entry, member, row->cursors[i].device));
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
        TRY(replay_keep_of(replay, entry));
        *entry->keep = row->keep;
    }
    for (uint32_t i = 0; i < row->sender_count; i++) {
        struct sender_row *sender;
        TRY(replay_sender_of(replay, &sender, entry, row->senders[i].user, row->senders[i].device));
        sender->highest = row->senders[i].highest;
    }
    return OK;
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
    memcpy(row->senders, replay_senders_of(entry), entry->count * sizeof *row->senders);
    return rows_put_conversation(txn, entry->id, row);
}

static enum err write_inbox(struct replay *replay, struct catalog_txn *txn,
                            struct replay_entry *entry, uint32_t member)
{
    const struct replay_inbox *inbox = &entry->inboxes[member];
    struct inbox_row *row = &replay->inbox;
    row->last_seq = inbox->last_seq;
    row->activity_ms = inbox->activity_ms;
    replay_raise(&row->last_seq, entry->seen_seq);
    replay_raise(&row->activity_ms, entry->seen_ms);
    row->read_seq = inbox->read_seq;
    row->peer_delivered = inbox->peer_delivered;
    row->peer_read = inbox->peer_read;
    row->cursor_count = entry->cursors[member].count;
    memcpy(row->cursors, replay_cursors_of(entry, member),
           row->cursor_count * sizeof *row->cursors);
    return rows_put_inbox(txn, (struct user_id){replay_user(entry->id, member)}, entry->id, row);
}

/* ---- row by row */

/* row_visits: what is done with each row of the entries: they are read, or written. */
struct row_visits {
    enum err (*conversation)(struct replay *replay, struct catalog_txn *txn,
                             struct replay_entry *entry);
    enum err (*inbox)(struct replay *replay, struct catalog_txn *txn, struct replay_entry *entry,
                      uint32_t member);
};

static void approach_place(const struct replay_place *places, size_t at, size_t count)
{
    if (at < count)
        replay_approach(places[at].entry, sizeof *places[at].entry);
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

enum err replay_rows_load(struct replay *replay, struct catalog_txn *txn,
                          const struct replay_chunk *end, uint32_t count)
{
    static const struct row_visits load = {load_conversation, load_inbox};
    return each_row(replay, txn, &load, end, count);
}

enum err replay_rows_write(struct replay *replay, struct catalog_txn *txn)
{
    static const struct row_visits write = {write_conversation, write_inbox};
    return each_row(replay, txn, &write, NULL, replay->entry_count);
}
