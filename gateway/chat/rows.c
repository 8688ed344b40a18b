/* rows.c: see rows.h. All integers little-endian, except ids in keys (big-endian, so that key order
 * is id order).
 *
 * Key of CATALOG_INBOX and CATALOG_PENDING: user id u64 BE, conversation id 16 bytes (ids.h).
 * Key of CATALOG_CONVERSATIONS and CATALOG_RETENTION: conversation id 16 bytes.
 *
 * Inbox row, version 1:
 *   0 u8 version, 1 u8 reserved 0, 2 u16 cursor count, 4 u32 reserved 0,
 *   8 u64 last_seq, 16 u64 activity_ms, 24 u64 read_seq, 32 u64 peer_delivered, 40 u64 peer_read,
 *   48 per cursor: u32 device, u64 delivered
 * Pending row: u64 activity_ms.
 * Retention row: u64 age in seconds, u64 bytes, u8 1: what was there before is to be counted.
 * Conversation row, version 3:
 *   0 u8 version, 1 u8 1: has retention, 2 u16 sender count, 4 u32 reserved 0,
 *   8 u64 last_seq, 16 u64 last_time_ms, 24 u64 delivered[2], 40 u64 read[2],
 *   56 per sender: u64 user, u32 device, 16 bytes highest message id,
 *   then, if it has: u64 number of the entry that set it, u64 age in seconds, u64 bytes,
 *   u64 counted, u64 of it since that entry, u32 marks, u32 1: uncounted, per mark: u64 seq,
 *   u64 counted (keep.h) */
#include "gateway/chat/rows.h"

#include "core/memory.h"

#define ROW_VERSION               1 /* inbox */
#define CONVERSATION_VERSION      3
#define INBOX_FIXED_BYTES         48
#define INBOX_CURSOR_BYTES        12
#define CONVERSATION_FIXED_BYTES  56
#define CONVERSATION_SENDER_BYTES 28
#define KEEP_FIXED_BYTES          48
#define KEEP_MARK_BYTES           16
#define CONVERSATION_BYTES_MAX                                                                     \
    (CONVERSATION_FIXED_BYTES + ROW_SENDERS_MAX * CONVERSATION_SENDER_BYTES + KEEP_FIXED_BYTES +   \
     KEEP_MARKS_MAX * KEEP_MARK_BYTES)

static void raise(uint64_t *target, uint64_t value)
{
    if (value > *target)
        *target = value;
}

void row_key_inbox(uint8_t out[ROW_KEY_BYTES], struct user_id user,
                   struct conversation_id conversation)
{
    uint64_t big = __builtin_bswap64(user.v);
    memcpy(out, &big, 8);
    conversation_id_encode(out + 8, conversation);
}

struct conversation_id row_key_conversation(const uint8_t key[ROW_KEY_BYTES])
{
    return conversation_id_decode(key + 8);
}

struct inbox_cursor *inbox_row_cursor(struct inbox_row *row, struct device_id device)
{
    for (uint32_t i = 0; i < row->cursor_count; i++)
        if (row->cursors[i].device.v == device.v)
            return &row->cursors[i];
    if (row->cursor_count == ROW_CURSORS_MAX)
        return NULL;
    struct inbox_cursor *cursor = &row->cursors[row->cursor_count++];
    *cursor = (struct inbox_cursor){device, 0};
    return cursor;
}

bool inbox_row_pending(const struct inbox_row *row)
{
    if (row->cursor_count == 0)
        return row->last_seq != 0;
    for (uint32_t i = 0; i < row->cursor_count; i++)
        if (row->cursors[i].delivered < row->last_seq)
            return true;
    return false;
}

struct sender_row *conversation_row_sender(struct conversation_row *row, struct user_id user,
                                           struct device_id device)
{
    for (uint32_t i = 0; i < row->sender_count; i++)
        if (row->senders[i].user.v == user.v && row->senders[i].device.v == device.v)
            return &row->senders[i];
    if (row->sender_count == ROW_SENDERS_MAX)
        return NULL;
    struct sender_row *sender = &row->senders[row->sender_count++];
    *sender = (struct sender_row){.user = user, .device = device};
    return sender;
}

static enum err inbox_decode(struct bytes in, struct inbox_row *row)
{
    struct reader r = reader_of(in);
    uint8_t version = reader_u8(&r);
    reader_u8(&r);
    row->cursor_count = reader_u16(&r);
    reader_u32(&r);
    row->last_seq = reader_u64(&r);
    row->activity_ms = reader_u64(&r);
    row->read_seq = reader_u64(&r);
    row->peer_delivered = reader_u64(&r);
    row->peer_read = reader_u64(&r);
    if (r.failed || version != ROW_VERSION)
        return version > ROW_VERSION ? ERR_NEWER : ERR_CORRUPT;
    if (row->cursor_count > ROW_CURSORS_MAX ||
        r.rest.size != (size_t)row->cursor_count * INBOX_CURSOR_BYTES)
        return ERR_CORRUPT;
    for (uint32_t i = 0; i < row->cursor_count; i++) {
        row->cursors[i].device.v = reader_u32(&r);
        row->cursors[i].delivered = reader_u64(&r);
    }
    return OK;
}

static struct bytes inbox_encode(const struct inbox_row *row, uint8_t *out)
{
    memset(out, 0, INBOX_FIXED_BYTES);
    out[0] = ROW_VERSION;
    store_u16(out + 2, (uint16_t)row->cursor_count);
    store_u64(out + 8, row->last_seq);
    store_u64(out + 16, row->activity_ms);
    store_u64(out + 24, row->read_seq);
    store_u64(out + 32, row->peer_delivered);
    store_u64(out + 40, row->peer_read);
    uint8_t *p = out + INBOX_FIXED_BYTES;
    for (uint32_t i = 0; i < row->cursor_count; i++, p += INBOX_CURSOR_BYTES) {
        store_u32(p, row->cursors[i].device.v);
        store_u64(p + 4, row->cursors[i].delivered);
    }
    return bytes_of(out, (size_t)(p - out));
}

enum err rows_read_inbox(struct catalog_txn *txn, struct user_id user,
                         struct conversation_id conversation, struct inbox_row *row)
{
    uint8_t key[ROW_KEY_BYTES];
    struct bytes value;
    memset(row, 0, offsetof(struct inbox_row, cursors));
    row_key_inbox(key, user, conversation);
    TRY(catalog_get(txn, CATALOG_INBOX, bytes_of(key, sizeof key), &value));
    return inbox_decode(value, row);
}

enum err rows_put_inbox(struct catalog_txn *txn, struct user_id user,
                        struct conversation_id conversation, const struct inbox_row *row)
{
    uint8_t key[ROW_KEY_BYTES];
    uint8_t encoded[INBOX_FIXED_BYTES + ROW_CURSORS_MAX * INBOX_CURSOR_BYTES];
    row_key_inbox(key, user, conversation);
    struct bytes k = bytes_of(key, sizeof key);
    TRY(catalog_put(txn, CATALOG_INBOX, k, inbox_encode(row, encoded)));
    if (!inbox_row_pending(row))
        return catalog_delete(txn, CATALOG_PENDING, k);
    return catalog_put(txn, CATALOG_PENDING, k, bytes_of(&row->activity_ms, 8));
}

enum err rows_merge_inbox(struct catalog_txn *txn, struct user_id user,
                          struct conversation_id conversation, const struct inbox_row *row)
{
    struct inbox_row stored;
    enum err err = rows_read_inbox(txn, user, conversation, &stored);
    if (err != OK && err != ERR_NOT_FOUND)
        return err;
    raise(&stored.last_seq, row->last_seq);
    raise(&stored.activity_ms, row->activity_ms);
    raise(&stored.read_seq, row->read_seq);
    raise(&stored.peer_delivered, row->peer_delivered);
    raise(&stored.peer_read, row->peer_read);
    for (uint32_t i = 0; i < row->cursor_count; i++) {
        struct inbox_cursor *cursor = inbox_row_cursor(&stored, row->cursors[i].device);
        if (cursor != NULL)
            raise(&cursor->delivered, row->cursors[i].delivered);
    }
    return rows_put_inbox(txn, user, conversation, &stored);
}

static bool marks_sound(const struct keep *keep)
{
    for (uint32_t i = 0; i < keep->mark_count; i++)
        if (keep->marks[i].counted > keep->counted ||
            (i > 0 && (keep->marks[i].seq <= keep->marks[i - 1].seq ||
                       keep->marks[i].counted < keep->marks[i - 1].counted)))
            return false;
    return (keep->setting.bytes != 0) == (keep->mark_count != 0) && keep->since <= keep->counted &&
           (!keep->uncounted || keep->mark_count != 0);
}

static enum err keep_read(struct keep *keep, struct reader *r)
{
    keep->seq = reader_u64(r);
    keep->setting.age_s = reader_u64(r);
    keep->setting.bytes = reader_u64(r);
    keep->counted = reader_u64(r);
    keep->since = reader_u64(r);
    keep->mark_count = reader_u32(r);
    uint32_t uncounted = reader_u32(r);
    if (r->failed || keep->seq == 0 || keep->mark_count > KEEP_MARKS_MAX || uncounted > 1)
        return ERR_CORRUPT;
    keep->uncounted = uncounted == 1;
    for (uint32_t i = 0; i < keep->mark_count; i++) {
        keep->marks[i].seq = reader_u64(r);
        keep->marks[i].counted = reader_u64(r);
    }
    return !r->failed && marks_sound(keep) ? OK : ERR_CORRUPT;
}

static uint8_t *keep_write(const struct keep *keep, uint8_t *p)
{
    store_u64(p, keep->seq);
    store_u64(p + 8, keep->setting.age_s);
    store_u64(p + 16, keep->setting.bytes);
    store_u64(p + 24, keep->counted);
    store_u64(p + 32, keep->since);
    store_u32(p + 40, keep->mark_count);
    store_u32(p + 44, keep->uncounted);
    p += KEEP_FIXED_BYTES;
    for (uint32_t i = 0; i < keep->mark_count; i++, p += KEEP_MARK_BYTES) {
        store_u64(p, keep->marks[i].seq);
        store_u64(p + 8, keep->marks[i].counted);
    }
    return p;
}

static enum err conversation_decode(struct bytes in, struct conversation_row *row)
{
    struct reader r = reader_of(in);
    uint8_t version = reader_u8(&r);
    uint8_t has_keep = reader_u8(&r);
    row->sender_count = reader_u16(&r);
    row->keep = (struct keep){0};
    reader_u32(&r);
    row->last_seq = reader_u64(&r);
    row->last_time_ms = reader_u64(&r);
    for (int i = 0; i < 2; i++)
        row->delivered[i] = reader_u64(&r);
    for (int i = 0; i < 2; i++)
        row->read[i] = reader_u64(&r);
    if (r.failed || version != CONVERSATION_VERSION)
        return version > CONVERSATION_VERSION ? ERR_NEWER : ERR_CORRUPT;
    if (row->sender_count > ROW_SENDERS_MAX || has_keep > 1 ||
        r.rest.size < (size_t)row->sender_count * CONVERSATION_SENDER_BYTES)
        return ERR_CORRUPT;
    for (uint32_t i = 0; i < row->sender_count; i++) {
        row->senders[i].user.v = reader_u64(&r);
        row->senders[i].device.v = reader_u32(&r);
        memcpy(row->senders[i].highest.v, reader_bytes(&r, 16).data, 16);
    }
    if (has_keep != 0)
        TRY(keep_read(&row->keep, &r));
    return r.rest.size == 0 ? OK : ERR_CORRUPT;
}

static struct bytes conversation_encode(const struct conversation_row *row, uint8_t *out)
{
    memset(out, 0, CONVERSATION_FIXED_BYTES);
    out[0] = CONVERSATION_VERSION;
    out[1] = row->keep.seq != 0;
    store_u16(out + 2, (uint16_t)row->sender_count);
    store_u64(out + 8, row->last_seq);
    store_u64(out + 16, row->last_time_ms);
    for (int i = 0; i < 2; i++) {
        store_u64(out + 24 + i * 8, row->delivered[i]);
        store_u64(out + 40 + i * 8, row->read[i]);
    }
    uint8_t *p = out + CONVERSATION_FIXED_BYTES;
    for (uint32_t i = 0; i < row->sender_count; i++, p += CONVERSATION_SENDER_BYTES) {
        store_u64(p, row->senders[i].user.v);
        store_u32(p + 8, row->senders[i].device.v);
        memcpy(p + 12, row->senders[i].highest.v, 16);
    }
    if (row->keep.seq != 0)
        p = keep_write(&row->keep, p);
    return bytes_of(out, (size_t)(p - out));
}

enum err rows_read_conversation(struct catalog_txn *txn, struct conversation_id conversation,
                                struct conversation_row *row)
{
    uint8_t key[16];
    struct bytes value;
    memset(row, 0, offsetof(struct conversation_row, senders));
    conversation_id_encode(key, conversation);
    TRY(catalog_get(txn, CATALOG_CONVERSATIONS, bytes_of(key, sizeof key), &value));
    return conversation_decode(value, row);
}

/* newer: of two states of one conversation's keep, in the order in which it goes through them. */
static bool newer(const struct keep *a, const struct keep *b)
{
    if (a->seq != b->seq)
        return a->seq > b->seq;
    if (a->uncounted != b->uncounted)
        return b->uncounted;
    return a->counted > b->counted;
}

static void conversation_row_raise(struct conversation_row *stored,
                                   const struct conversation_row *row)
{
    if (newer(&row->keep, &stored->keep))
        stored->keep = row->keep;
    raise(&stored->last_seq, row->last_seq);
    raise(&stored->last_time_ms, row->last_time_ms);
    for (int i = 0; i < 2; i++) {
        raise(&stored->delivered[i], row->delivered[i]);
        raise(&stored->read[i], row->read[i]);
    }
    for (uint32_t i = 0; i < row->sender_count; i++) {
        const struct sender_row *from = &row->senders[i];
        struct sender_row *to = conversation_row_sender(stored, from->user, from->device);
        if (to != NULL && message_id_compare(from->highest, to->highest) > 0)
            to->highest = from->highest;
    }
}

/* put_keep: what the merge's planner asks for; a row without a keep never had one. */
static enum err put_keep(struct catalog_txn *txn, struct bytes key, const struct keep *keep)
{
    uint8_t value[ROW_RETENTION_BYTES];
    keep_encode(value, &keep->setting);
    value[KEEP_BODY_BYTES] = keep->uncounted;
    if (keep->setting.age_s == 0 && keep->setting.bytes == 0)
        return catalog_delete(txn, CATALOG_RETENTION, key);
    return catalog_put(txn, CATALOG_RETENTION, key, bytes_of(value, sizeof value));
}

bool row_retention_uncounted(struct bytes value)
{
    return value.size == ROW_RETENTION_BYTES && value.data[KEEP_BODY_BYTES] != 0;
}

enum err rows_put_conversation(struct catalog_txn *txn, struct conversation_id conversation,
                               const struct conversation_row *row)
{
    uint8_t key[16];
    uint8_t encoded[CONVERSATION_BYTES_MAX];
    conversation_id_encode(key, conversation);
    struct bytes k = bytes_of(key, sizeof key);
    TRY(catalog_put(txn, CATALOG_CONVERSATIONS, k, conversation_encode(row, encoded)));
    return row->keep.seq == 0 ? OK : put_keep(txn, k, &row->keep);
}

/* What merging a conversation needs: taken once, before anything is written. */
struct merge_space {
    struct conversation_row row; /* of a batch */
    struct conversation_row stored;
};

static enum err merge_conversation(struct catalog_txn *txn, struct conversation_id conversation,
                                   const struct conversation_row *row, struct merge_space *space)
{
    enum err err = rows_read_conversation(txn, conversation, &space->stored);
    if (err != OK && err != ERR_NOT_FOUND)
        return err;
    conversation_row_raise(&space->stored, row);
    return rows_put_conversation(txn, conversation, &space->stored);
}

enum err rows_merge_conversation(struct catalog_txn *txn, struct conversation_id conversation,
                                 const struct conversation_row *row)
{
    struct merge_space *space = memory_take(sizeof *space, MEMORY_CHAT);
    if (space == NULL)
        return ERR_NO_MEMORY;
    enum err err = merge_conversation(txn, conversation, row, space);
    memory_give(space, MEMORY_CHAT);
    return err;
}

/* Batch item: u32 bytes of the row, u32 1 = inbox, 2 = conversation; u64 user (0 for
 * conversations); 16 bytes conversation id; the row as above. */
#define BATCH_HEADER_BYTES 32

static enum err batch_put(struct buffer *batch, uint32_t type, struct user_id user,
                          struct conversation_id conversation, struct bytes row)
{
    if (buffer_room(batch) < BATCH_HEADER_BYTES + row.size)
        return ERR_FULL;
    uint8_t *p = batch->data + batch->size;
    store_u32(p, (uint32_t)row.size);
    store_u32(p + 4, type);
    store_u64(p + 8, user.v);
    conversation_id_encode(p + 16, conversation);
    memcpy(p + BATCH_HEADER_BYTES, row.data, row.size);
    batch->size += BATCH_HEADER_BYTES + row.size;
    return OK;
}

enum err rows_batch_inbox(struct buffer *batch, struct user_id user,
                          struct conversation_id conversation, const struct inbox_row *row)
{
    uint8_t encoded[INBOX_FIXED_BYTES + ROW_CURSORS_MAX * INBOX_CURSOR_BYTES];
    return batch_put(batch, 1, user, conversation, inbox_encode(row, encoded));
}

enum err rows_batch_conversation(struct buffer *batch, struct conversation_id conversation,
                                 const struct conversation_row *row)
{
    size_t size = CONVERSATION_FIXED_BYTES + (size_t)row->sender_count * CONVERSATION_SENDER_BYTES;
    if (row->keep.seq != 0)
        size += KEEP_FIXED_BYTES + row->keep.mark_count * KEEP_MARK_BYTES;
    if (buffer_room(batch) < BATCH_HEADER_BYTES + size)
        return ERR_FULL;
    struct bytes encoded = conversation_encode(row, batch->data + batch->size + BATCH_HEADER_BYTES);
    uint8_t *p = batch->data + batch->size;
    store_u32(p, (uint32_t)encoded.size);
    store_u32(p + 4, 2);
    store_u64(p + 8, 0);
    conversation_id_encode(p + 16, conversation);
    batch->size += BATCH_HEADER_BYTES + encoded.size;
    return OK;
}

/* The batch's first item: merged, or, where write is false, only looked at with the row that is
 * stored. */
static enum err batch_item(struct catalog_txn *txn, struct bytes item, struct merge_space *space,
                           bool write)
{
    struct user_id user = {load_u64(item.data + 8)};
    struct conversation_id conversation = conversation_id_decode(item.data + 16);
    struct bytes encoded = bytes_of(item.data + BATCH_HEADER_BYTES, load_u32(item.data));
    struct inbox_row inbox;
    enum err err;
    if (load_u32(item.data + 4) == 1) {
        TRY(inbox_decode(encoded, &inbox));
        if (write)
            return rows_merge_inbox(txn, user, conversation, &inbox);
        err = rows_read_inbox(txn, user, conversation, &inbox);
    } else {
        TRY(conversation_decode(encoded, &space->row));
        if (write)
            return merge_conversation(txn, conversation, &space->row, space);
        err = rows_read_conversation(txn, conversation, &space->stored);
    }
    return err == ERR_NOT_FOUND ? OK : err;
}

/* Twice over the batch: a job that fails must not have written (catalog.h), so that everything is
 * looked at before the first row is merged. What fails then is a put, which spoils the transaction.
 */
enum err rows_batch_merge(struct catalog_txn *txn, struct bytes batch)
{
    struct merge_space *space = memory_take(sizeof *space, MEMORY_CHAT);
    if (space == NULL)
        return ERR_NO_MEMORY;
    enum err err = OK;
    for (int write = 0; write < 2; write++)
        for (struct bytes rest = batch; err == OK && rest.size != 0;
             rest = bytes_skip(rest, BATCH_HEADER_BYTES + load_u32(rest.data)))
            err = batch_item(txn, rest, space, write != 0);
    memory_give(space, MEMORY_CHAT);
    return err;
}
