/* rebuild_compare.c: see rebuild_compare.h. */
#include "gateway/flow/rebuild_compare.h"

#include <inttypes.h>
#include <stdio.h>

#define DIFFERENCES_MAX 20 /* rows that are printed */

const enum catalog_table rebuild_tables[REBUILD_TABLES] = {CATALOG_CONVERSATIONS, CATALOG_INBOX,
                                                           CATALOG_RETENTION, CATALOG_PENDING};
static const char *const table_names[REBUILD_TABLES] = {"conversations", "inbox", "retention",
                                                        "pending"};

/* begins: where the device would begin. */
static uint64_t begins(const struct inbox_row *row, struct device_id device)
{
    uint64_t highest = 0;
    for (uint32_t i = 0; i < row->cursor_count; i++) {
        if (row->cursors[i].device.v == device.v)
            return row->cursors[i].delivered;
        if (row->cursors[i].delivered > highest)
            highest = row->cursors[i].delivered;
    }
    return highest;
}

/* none_further: no device is further in a than in b. */
static bool none_further(const struct inbox_row *a, const struct inbox_row *b)
{
    const struct inbox_row *both[2] = {a, b};
    for (size_t side = 0; side < 2; side++)
        for (uint32_t i = 0; i < both[side]->cursor_count; i++) {
            struct device_id device = both[side]->cursors[i].device;
            if (begins(a, device) > begins(b, device))
                return false;
        }
    return true;
}

/* beyond: a device is further than the conversation: no watermark that a crash took says that. */
static bool beyond(const struct inbox_row *row)
{
    for (uint32_t i = 0; i < row->cursor_count; i++)
        if (row->cursors[i].delivered > row->last_seq)
            return true;
    return false;
}

static enum likeness judge_inbox(const struct inbox_row *a, const struct inbox_row *b)
{
    if (a->last_seq != b->last_seq || a->activity_ms != b->activity_ms ||
        a->read_seq != b->read_seq || a->peer_delivered != b->peer_delivered ||
        a->peer_read != b->peer_read || beyond(b))
        return ROW_DIFFERENT;
    return none_further(b, a) ? ROW_SAME : ROW_AGAIN; /* compare_marks has looked at the rest */
}

static bool same_senders(const struct conversation_row *a, struct conversation_row *b)
{
    if (a->sender_count != b->sender_count)
        return false;
    for (uint32_t i = 0; i < a->sender_count; i++) {
        const struct sender_row *x = &a->senders[i];
        const struct sender_row *y = conversation_row_sender(b, x->user, x->device);
        if (y == NULL || message_id_compare(x->highest, y->highest) != 0)
            return false;
    }
    return true;
}

static enum likeness judge_conversation(struct compare *c)
{
    const struct conversation_row *a = &c->a;
    struct conversation_row *b = &c->b;
    bool same = a->last_seq == b->last_seq && a->last_time_ms == b->last_time_ms &&
                memcmp(a->delivered, b->delivered, sizeof a->delivered) == 0 &&
                memcmp(a->read, b->read, sizeof a->read) == 0 && a->keep.seq == b->keep.seq &&
                a->keep.setting.age_s == b->keep.setting.age_s &&
                a->keep.setting.bytes == b->keep.setting.bytes && same_senders(a, b);
    if (same && c->sizes_known) /* what was there before is counted once it runs */
        same = a->keep.since == b->keep.since;
    return same ? ROW_SAME : ROW_DIFFERENT;
}

/* judge_retention: the setting; whether it is counted is no part of what the log says. */
static enum likeness judge_retention(struct bytes a, struct bytes b)
{
    bool same = a.size == ROW_RETENTION_BYTES && b.size == a.size &&
                memcmp(a.data, b.data, KEEP_BODY_BYTES) == 0;
    return same ? ROW_SAME : ROW_DIFFERENT;
}

static enum err read_inbox(struct catalog_txn *txn, struct bytes key, struct inbox_row *row)
{
    struct user_id user = {__builtin_bswap64(load_u64(key.data))};
    return rows_read_inbox(txn, user, row_key_conversation(key.data), row);
}

static void count_row(struct compare *c, enum likeness like, struct bytes key, const char *what)
{
    char hex[2 * REBUILD_KEY_BYTES_MAX + 1] = "";
    if (c->counts[like]++ >= DIFFERENCES_MAX || like != ROW_DIFFERENT)
        return;
    for (size_t i = 0; i < key.size && i < REBUILD_KEY_BYTES_MAX; i++)
        snprintf(hex + 2 * i, 3, "%02x", key.data[i]);
    inspect_print(c->out, "different      %s %s: %s", table_names[c->table], hex, what);
}

/* judge_row: one that both have, not byte for byte the same. */
static enum err judge_row(struct compare *c, struct bytes key, struct bytes value,
                          struct bytes found, enum likeness *like)
{
    struct inbox_row a;
    struct inbox_row b;
    *like = ROW_DIFFERENT;
    if (rebuild_tables[c->table] == CATALOG_INBOX) {
        TRY(read_inbox(c->rebuilt, key, &a));
        TRY(read_inbox(c->original, key, &b));
        *like = judge_inbox(&a, &b);
    } else if (rebuild_tables[c->table] == CATALOG_CONVERSATIONS) {
        TRY(rows_read_conversation(c->rebuilt, conversation_id_decode(key.data), &c->a));
        TRY(rows_read_conversation(c->original, conversation_id_decode(key.data), &c->b));
        *like = judge_conversation(c);
    } else if (rebuild_tables[c->table] == CATALOG_RETENTION) {
        *like = judge_retention(value, found);
    }
    return OK;
}

/* compare_rebuilt: a rebuilt row with the catalog's. */
static enum err compare_rebuilt(void *context, struct bytes key, struct bytes value)
{
    struct compare *c = context;
    struct bytes found;
    enum likeness like = ROW_SAME;
    c->rows++;
    enum err err = catalog_get(c->original, rebuild_tables[c->table], key, &found);
    if (err != OK && err != ERR_NOT_FOUND)
        return err;
    if (err == OK && !bytes_equal(found, value))
        TRY(judge_row(c, key, value, found, &like));
    if (err != OK)
        like = ROW_DIFFERENT;
    count_row(c, like, key, err == OK ? "not what the log says" : "missing in the catalog");
    return OK;
}

/* compare_original: a row of the catalog that the rebuilt one has not. */
static enum err compare_original(void *context, struct bytes key, struct bytes value)
{
    struct compare *c = context;
    struct bytes found;
    (void)value;
    enum err err = catalog_get(c->rebuilt, rebuild_tables[c->table], key, &found);
    if (err == ERR_NOT_FOUND)
        count_row(c, ROW_DIFFERENT, key, "the log knows nothing of it");
    return err == ERR_NOT_FOUND ? OK : err;
}

/* compare_pending: a row says nothing but what follows from its inbox row, in the catalog itself.
 */
static enum err compare_pending(void *context, struct bytes key, struct bytes value)
{
    struct compare *c = context;
    struct inbox_row row;
    c->rows++;
    enum err err = read_inbox(c->original, key, &row);
    if (err != OK && err != ERR_NOT_FOUND)
        return err;
    bool same = err == OK && inbox_row_pending(&row) && value.size == 8 &&
                load_u64(value.data) == row.activity_ms;
    count_row(c, same ? ROW_SAME : ROW_DIFFERENT, key, "not what its inbox row says");
    return OK;
}

static enum err compare_not_pending(void *context, struct bytes key, struct bytes value)
{
    struct compare *c = context;
    struct inbox_row row;
    struct bytes found;
    (void)value;
    TRY(read_inbox(c->original, key, &row));
    if (!inbox_row_pending(&row))
        return OK;
    enum err err = catalog_get(c->original, CATALOG_PENDING, key, &found);
    if (err == ERR_NOT_FOUND)
        count_row(c, ROW_DIFFERENT, key, "missing, as its inbox row says");
    return err == ERR_NOT_FOUND ? OK : err;
}

/* compare_mark: an inbox row of nothing but the log's watermarks: no cursor of the catalog is
 * before them. A row that the catalog has not is reported with the others. */
static enum err compare_mark(void *context, struct bytes key, struct bytes value)
{
    struct compare *c = context;
    struct inbox_row a;
    struct inbox_row b;
    (void)value;
    TRY(read_inbox(c->rebuilt, key, &a));
    enum err err = read_inbox(c->original, key, &b);
    if (err == OK && !none_further(&a, &b))
        count_row(c, ROW_DIFFERENT, key, "a device has acknowledged more, by the log");
    return err == ERR_NOT_FOUND ? OK : err;
}

static enum err compare_begin(struct compare *c, struct catalog *rebuilt)
{
    TRY(catalog_begin(rebuilt, &c->rebuilt, false));
    enum err err = catalog_begin(c->beside, &c->original, false);
    if (err != OK)
        catalog_abort(c->rebuilt);
    return err;
}

static void compare_end(struct compare *c)
{
    catalog_abort(c->original);
    catalog_abort(c->rebuilt);
}

enum err compare_marks(struct compare *c, struct catalog *rebuilt)
{
    TRY(compare_begin(c, rebuilt));
    c->table = 1;
    enum err err = catalog_scan(c->rebuilt, CATALOG_INBOX, bytes_of(NULL, 0), compare_mark, c);
    compare_end(c);
    return err;
}

static enum err compare_tables(struct compare *c)
{
    struct bytes all = bytes_of(NULL, 0);
    for (c->table = 0; rebuild_tables[c->table] != CATALOG_PENDING; c->table++) {
        TRY(catalog_scan(c->rebuilt, rebuild_tables[c->table], all, compare_rebuilt, c));
        TRY(catalog_scan(c->original, rebuild_tables[c->table], all, compare_original, c));
    }
    TRY(catalog_scan(c->original, CATALOG_PENDING, all, compare_pending, c));
    return catalog_scan(c->original, CATALOG_INBOX, all, compare_not_pending, c);
}

enum err compare_all(struct compare *c, struct catalog *rebuilt)
{
    TRY(compare_begin(c, rebuilt));
    enum err err = compare_tables(c);
    compare_end(c);
    TRY(err);
    inspect_print(c->out,
                  "compared       %" PRIu64 " rows: %" PRIu64 " the same, %" PRIu64
                  " where the log knows less of a device and something would be delivered again, "
                  "%" PRIu64 " different",
                  c->rows, c->counts[ROW_SAME], c->counts[ROW_AGAIN], c->counts[ROW_DIFFERENT]);
    return c->counts[ROW_DIFFERENT] == 0 ? OK : ERR_CONFLICT;
}
