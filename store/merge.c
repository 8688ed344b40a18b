/* merge.c: see merge.h.
 *
 *   OPEN    each input: open it, load or rebuild its index; a segment is walked once from end to
 *           end: its watermark records are gathered (its index does not have them)
 *   RECORDS conversation by conversation, the inputs in their order: numbers ascend over them
 *   FINISH  footer, sync, rename, sync of the directory
 *
 * Crash safety is a rule of names (archive.c): until the rename the inputs count, from then on the
 * archive, whose range contains theirs; a start removes what is contained. */
#include "store/merge.h"

#include "core/file.h"
#include "core/logging.h"
#include "core/memory.h"
#include "store/merge_cursor.h"

#include <stdio.h>
#include <stdlib.h>

enum merge_phase { MERGE_OPEN, MERGE_RECORDS, MERGE_FINISH, MERGE_DONE };

/* watermark: the newest of one device (or of what has none). */
struct watermark {
    struct conversation_id conversation;
    struct user_id user;
    struct device_id device;
    struct realm_id realm;
    uint64_t delivered;
    uint64_t read;
    uint64_t time_ms;
};

struct marks {
    struct watermark *list;
    size_t count;
    size_t capacity;
};

struct merge {
    struct merge_options options;
    enum merge_phase phase;
    struct merge_input *inputs;
    struct cursor *cursors;
    uint32_t count;
    uint32_t opened;
    struct archive_writer *writer;
    struct merge_result result;
    void *session; /* of the retention's look-ups, in one step */
    bool session_open;

    struct marks marks; /* of the segments; sorted by conversation when all are open */
    size_t marks_at;
    struct marks inlined; /* of the present conversation */

    bool in_conversation;
    struct conversation_id conversation;
    struct retention_rule rule;
    uint32_t at;            /* input that it is read from */
    uint64_t seq_last;      /* taken, 0: none yet */
    struct log_record gone; /* range not written yet: seq 0: none; `range` has its end */
    struct gone_range range;
};

/* ---- watermarks */

static int mark_compare(const void *a, const void *b)
{
    const struct watermark *x = a;
    const struct watermark *y = b;
    int order = conversation_order(x->conversation, y->conversation);
    if (order != 0)
        return order;
    if (x->user.v != y->user.v)
        return x->user.v < y->user.v ? -1 : 1;
    return x->device.v < y->device.v ? -1 : x->device.v > y->device.v;
}

static void mark_raise(struct watermark *mark, const struct watermark *other)
{
    mark->delivered = other->delivered > mark->delivered ? other->delivered : mark->delivered;
    mark->read = other->read > mark->read ? other->read : mark->read;
    mark->time_ms = other->time_ms > mark->time_ms ? other->time_ms : mark->time_ms;
}

/* marks_settle: sorted, one per device. */
static void marks_settle(struct marks *marks)
{
    size_t kept = 0;
    if (marks->count == 0)
        return;
    qsort(marks->list, marks->count, sizeof *marks->list, mark_compare);
    for (size_t i = 1; i < marks->count; i++) {
        if (mark_compare(&marks->list[kept], &marks->list[i]) == 0)
            mark_raise(&marks->list[kept], &marks->list[i]);
        else
            marks->list[++kept] = marks->list[i];
    }
    marks->count = kept + 1;
}

static enum err marks_push(struct marks *marks, const struct watermark *mark)
{
    if (marks->count == marks->capacity) {
        size_t capacity = marks->capacity == 0 ? 256 : marks->capacity * 2;
        void *grown = memory_resize(marks->list, capacity * sizeof *marks->list, MEMORY_STORE);
        if (grown == NULL)
            return ERR_NO_MEMORY;
        marks->list = grown;
        marks->capacity = capacity;
    }
    marks->list[marks->count++] = *mark;
    return OK;
}

static enum err marks_add(void *context, const struct log_record *record)
{
    if (record->body.size != 8)
        return OK; /* of no known form: nothing could read it */
    const struct watermark mark = {.conversation = record->conversation,
                                   .user = record->sender,
                                   .device = record->device,
                                   .realm = record->realm,
                                   .delivered = record->seq,
                                   .read = load_u64(record->body.data),
                                   .time_ms = record->time_ms};
    return marks_push(context, &mark);
}

static enum err mark_write(struct merge *m, const struct watermark *mark)
{
    uint8_t read[8];
    store_u64(read, mark->read);
    const struct log_record record = {.realm = mark->realm,
                                      .kind = RECORD_WATERMARK,
                                      .conversation = mark->conversation,
                                      .seq = mark->delivered,
                                      .sender = mark->user,
                                      .device = mark->device,
                                      .time_ms = mark->time_ms,
                                      .body = bytes_of(read, sizeof read)};
    return archive_writer_add(m->writer, &record);
}

/* ---- opening */

static enum err working_path(const struct merge *m, char out[STORE_PATH_BYTES], const char *suffix)
{
    char name[ARCHIVE_NAME_BYTES];
    archive_name(name, &m->options.header, suffix);
    int size = snprintf(out, STORE_PATH_BYTES, "%s/%s", m->options.target, name);
    return size > 0 && size < STORE_PATH_BYTES ? OK : ERR_TOO_BIG;
}

enum err merge_path(const struct merge *m, char out[STORE_PATH_BYTES])
{
    return working_path(m, out, ".archive");
}

static enum err begin_records(struct merge *m)
{
    char path[STORE_PATH_BYTES];
    uint64_t conversations = 0;
    marks_settle(&m->marks);
    for (uint32_t i = 0; i < m->count; i++) {
        m->result.bad_segment = m->inputs[i].id;
        conversations += cursor_conversations(&m->cursors[i]);
        TRY(cursor_start(&m->cursors[i]));
        if (m->cursors[i].freed)
            m->result.retained_away += m->cursors[i].archive->footer.records;
        else if (m->cursors[i].archived)
            m->result.damaged += m->cursors[i].archive->footer.damaged;
    }
    conversations += m->marks.count;
    TRY(working_path(m, path, ".archiving"));
    TRY(archive_writer_create(&m->writer, path, &m->options.header, conversations,
                              m->options.compress));
    m->phase = MERGE_RECORDS;
    return OK;
}

static enum err step_open(struct merge *m)
{
    if (m->opened == m->count)
        return begin_records(m);
    struct cursor *cursor = &m->cursors[m->opened];
    m->result.bad_segment = m->inputs[m->opened].id; /* until the next one is at hand */
    if (!cursor->opened)
        return cursor_open(cursor, m->options.directory, &m->inputs[m->opened]);
    enum err err = cursor_scan(cursor, marks_add, &m->marks);
    if (err != ERR_NOT_FOUND)
        return err;
    marks_settle(&m->marks);
    m->opened++;
    return OK;
}

/* ---- writing one conversation */

static enum err gone_flush(struct merge *m)
{
    uint8_t body[GONE_BODY_BYTES];
    if (m->gone.seq == 0)
        return OK;
    gone_encode(body, &m->range);
    m->gone.body = bytes_of(body, sizeof body);
    TRY(archive_writer_add(m->writer, &m->gone));
    m->gone.seq = 0;
    return OK;
}

/* gone_add: numbers that are not carried over; neighbours of one reason become one range. */
static enum err gone_add(struct merge *m, uint64_t from, uint64_t to, enum gone_reason reason,
                         uint64_t time_ms)
{
    if (m->gone.seq == 0 || m->range.reason != reason || m->range.last + 1 != from) {
        TRY(gone_flush(m));
        m->gone =
            (struct log_record){.kind = RECORD_GONE, .conversation = m->conversation, .seq = from};
        m->range.reason = reason;
    }
    m->range.last = to;
    if (time_ms > m->gone.time_ms)
        m->gone.time_ms = time_ms;
    return OK;
}

static enum err take_damaged(struct merge *m, uint64_t from, uint64_t to)
{
    log_event(LOG_ERROR, "log_records_missing", LOG_U64("from_seq", from), LOG_U64("to_seq", to),
              LOG_TEXT("found_by", "merge"), LOG_END);
    m->result.damaged += to - from + 1;
    return gone_add(m, from, to, GONE_DAMAGED, 0);
}

static enum err take_record(struct merge *m, const struct log_record *record)
{
    struct gone_range gone;
    if (record->kind == RECORD_GONE) {
        TRY(gone_decode(&gone, record));
        m->seq_last = gone.last;
        return gone_add(m, record->seq, gone.last, gone.reason, record->time_ms);
    }
    m->seq_last = record->seq;
    switch (retention_due(&m->options.retention, &m->rule, record, m->options.now_ms,
                          m->options.drop_all)) {
    case RETENTION_KEEP:
        TRY(gone_flush(m));
        return archive_writer_add(m->writer, record);
    case RETENTION_EXPIRED:
        m->result.expired++;
        return gone_add(m, record->seq, record->seq, GONE_EXPIRED, record->time_ms);
    case RETENTION_DUE:
        m->result.retained_away++;
        return gone_add(m, record->seq, record->seq, GONE_RETENTION, record->time_ms);
    }
    return ERR_INVALID;
}

static enum err take_item(struct merge *m, const struct cursor_item *item)
{
    uint64_t from = item->lost ? item->from : item->record.seq;
    uint64_t last = m->seq_last;
    if (from <= last) /* twice, or not in order: nothing could read it where it stood */
        return OK;
    if (last != 0 && from > last + 1)
        TRY(take_damaged(m, last + 1, from - 1));
    if (!item->lost)
        return take_record(m, &item->record);
    m->seq_last = item->to;
    return take_damaged(m, item->from, item->to);
}

/* inlined_marks: an archive's watermarks stand before its messages. */
static enum err inlined_marks(struct merge *m, struct cursor *cursor)
{
    const struct cursor_item *item;
    enum err err;
    while ((err = cursor_peek(cursor, &item)) == OK && !item->lost &&
           item->record.kind == RECORD_WATERMARK) {
        TRY(marks_add(&m->inlined, &item->record));
        cursor_next(cursor);
    }
    return err == ERR_NOT_FOUND ? OK : err;
}

static bool has(const struct merge *m, const struct cursor *cursor)
{
    return !cursor->ended && conversation_id_equal(cursor->conversation, m->conversation);
}

static enum err begin_conversation(struct merge *m)
{
    m->in_conversation = true;
    m->at = 0;
    m->seq_last = 0;
    m->gone.seq = 0;
    m->inlined.count = 0;
    m->rule = (struct retention_rule){.delivered_seq =
                                          m->options.retention.look == NULL ? UINT64_MAX : 0};
    if (m->session_open && m->options.retention.look(m->session, m->conversation, &m->rule) != OK)
        m->rule = (struct retention_rule){0};
    for (uint32_t i = 0; i < m->count; i++)
        if (m->cursors[i].archived && has(m, &m->cursors[i]))
            TRY(inlined_marks(m, &m->cursors[i]));
    for (; m->marks_at < m->marks.count &&
           conversation_id_equal(m->marks.list[m->marks_at].conversation, m->conversation);
         m->marks_at++)
        TRY(marks_push(&m->inlined, &m->marks.list[m->marks_at]));
    marks_settle(&m->inlined);
    for (size_t i = 0; i < m->inlined.count; i++)
        TRY(mark_write(m, &m->inlined.list[i]));
    return OK;
}

/* next_conversation: the lowest at hand; false: there is none. */
static bool next_conversation(struct merge *m)
{
    bool found = false;
    if (m->marks_at < m->marks.count) {
        m->conversation = m->marks.list[m->marks_at].conversation;
        found = true;
    }
    for (uint32_t i = 0; i < m->count; i++) {
        const struct cursor *cursor = &m->cursors[i];
        if (!cursor->ended &&
            (!found || conversation_order(cursor->conversation, m->conversation) < 0)) {
            m->conversation = cursor->conversation;
            found = true;
        }
    }
    return found;
}

static enum err step_records(struct merge *m)
{
    const struct cursor_item *item;
    if (!m->in_conversation) {
        if (next_conversation(m))
            return begin_conversation(m);
        m->phase = MERGE_FINISH;
        return OK;
    }
    if (m->at == m->count) {
        m->in_conversation = false;
        return gone_flush(m);
    }
    struct cursor *cursor = &m->cursors[m->at];
    m->result.bad_segment = m->inputs[m->at].id;
    if (!has(m, cursor)) {
        m->at++;
        return OK;
    }
    enum err err = cursor_peek(cursor, &item);
    if (err == ERR_NOT_FOUND) {
        m->at++;
        return cursor_pass(cursor);
    }
    TRY(err);
    TRY(take_item(m, item));
    cursor_next(cursor);
    return OK;
}

static enum err step_finish(struct merge *m)
{
    char working[STORE_PATH_BYTES];
    char path[STORE_PATH_BYTES];
    TRY(working_path(m, working, ".archiving"));
    TRY(merge_path(m, path));
    m->result.bad_segment = 0;
    TRY(archive_writer_finish(m->writer, m->result.damaged, &m->result.footer));
    archive_writer_destroy(m->writer);
    m->writer = NULL;
    TRY(file_rename(working, path));
    m->phase = MERGE_DONE; /* from here on the archive may count, whatever the sync says */
    return file_sync_directory(m->options.target);
}

/* ---- the whole */

enum err merge_create(struct merge **out, const struct merge_options *options,
                      const struct merge_input *inputs, uint32_t count)
{
    CHECK(count > 0 && count <= MERGE_INPUTS_MAX);
    struct merge *m = memory_take_zeroed(sizeof *m, MEMORY_STORE);
    if (m == NULL)
        return ERR_NO_MEMORY;
    m->options = *options;
    m->count = count;
    m->inputs = memory_take(count * sizeof *inputs, MEMORY_STORE);
    m->cursors = memory_take_zeroed(count * sizeof *m->cursors, MEMORY_STORE);
    if (m->inputs == NULL || m->cursors == NULL) {
        merge_destroy(m);
        return ERR_NO_MEMORY;
    }
    memcpy(m->inputs, inputs, count * sizeof *inputs);
    *out = m;
    return OK;
}

static uint64_t moved(const struct merge *m)
{
    uint64_t bytes = m->writer != NULL ? archive_writer_bytes(m->writer) : 0;
    for (uint32_t i = 0; i < m->count; i++)
        bytes += m->cursors[i].bytes_read;
    return bytes;
}

static enum err step(struct merge *m)
{
    switch (m->phase) {
    case MERGE_OPEN:
        return step_open(m);
    case MERGE_RECORDS:
        return step_records(m);
    case MERGE_FINISH:
        return step_finish(m);
    case MERGE_DONE:
        return OK;
    }
    return ERR_INVALID;
}

enum err merge_step(struct merge *m, uint64_t budget)
{
    uint64_t before = moved(m);
    enum err err = OK;
    const struct retention *retention = &m->options.retention;
    m->session_open =
        retention->look != NULL && retention->begin(retention->context, &m->session) == OK;
    while (err == OK && m->phase != MERGE_DONE && moved(m) - before < budget)
        err = step(m);
    if (m->session_open)
        retention->end(m->session);
    m->session_open = false;
    if (m->phase == MERGE_DONE || m->writer != NULL)
        m->result.bytes_written =
            m->phase == MERGE_DONE ? m->result.footer.bytes : archive_writer_bytes(m->writer);
    m->result.bytes_read = 0;
    for (uint32_t i = 0; i < m->count; i++)
        m->result.bytes_read += m->cursors[i].bytes_read;
    if (err == OK && m->phase != MERGE_DONE)
        return ERR_AGAIN;
    return err;
}

void merge_destroy(struct merge *m)
{
    char path[STORE_PATH_BYTES];
    if (m == NULL)
        return;
    bool begun = m->writer != NULL;
    for (uint32_t i = 0; i < m->count && m->cursors != NULL; i++)
        if (m->cursors[i].opened)
            cursor_close(&m->cursors[i]);
    archive_writer_destroy(m->writer);
    if (begun && m->phase != MERGE_DONE && working_path(m, path, ".archiving") == OK)
        (void)!file_remove(path);
    memory_give(m->marks.list, MEMORY_STORE);
    memory_give(m->inlined.list, MEMORY_STORE);
    memory_give(m->cursors, MEMORY_STORE);
    memory_give(m->inputs, MEMORY_STORE);
    memory_give(m, MEMORY_STORE);
}

const struct merge_result *merge_result(const struct merge *m)
{
    return &m->result;
}
