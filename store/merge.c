/* merge.c: see merge.h.
 *
 *   OPEN    each input: open it, load or rebuild its index; a segment is walked once from end to
 *           end: its watermark records are gathered (its index does not have them)
 *   RECORDS conversation by conversation, the inputs in their order: numbers ascend over them; what
 *           watermarks and messages, dropped ones too, say of its devices becomes its state
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

/* watermark: of a segment, the newest of one device. */
struct watermark {
    struct conversation_id conversation;
    struct user_id user;
    struct device_id device;
    struct realm_id realm;
    uint64_t delivered;
    uint64_t read;
    uint64_t time_ms;
};

struct watermarks {
    struct watermark *list;
    uint32_t count;
    uint32_t capacity;
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

    struct watermarks watermarks; /* of the segments; sorted by conversation when all are open */
    uint32_t watermark_at;

    bool in_conversation;
    struct conversation_id conversation;
    struct archive_state state; /* what will be told of it */
    struct archive_mark *marks;
    uint32_t mark_capacity;
    struct retention_rule rule;
    uint32_t at;            /* input that it is read from */
    bool entered;           /* that one's state was looked at */
    uint64_t seq_last;      /* taken, 0: none yet */
    struct log_record gone; /* range not written yet: seq 0: none; `range` has its end */
    struct gone_range range;
};

/* ---- watermarks */

static int watermark_compare(const void *a, const void *b)
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

static void raise(uint64_t *target, uint64_t value)
{
    if (value > *target)
        *target = value;
}

/* watermarks_settle: sorted, one per device. */
static void watermarks_settle(struct watermarks *marks)
{
    uint32_t kept = 0;
    if (marks->count == 0)
        return;
    qsort(marks->list, marks->count, sizeof *marks->list, watermark_compare);
    for (uint32_t i = 1; i < marks->count; i++) {
        struct watermark *mark = &marks->list[i];
        struct watermark *same = &marks->list[kept];
        if (watermark_compare(same, mark) == 0) {
            raise(&same->delivered, mark->delivered);
            raise(&same->read, mark->read);
            raise(&same->time_ms, mark->time_ms);
        } else {
            marks->list[++kept] = *mark;
        }
    }
    marks->count = kept + 1;
}

static enum err watermark_add(void *context, const struct log_record *record)
{
    struct watermarks *marks = context;
    if (record->body.size != 8)
        return OK; /* of no known form: nothing could read it */
    TRY(memory_grow(&marks->list, &marks->capacity, marks->count + 1, sizeof *marks->list,
                    MEMORY_STORE));
    marks->list[marks->count++] = (struct watermark){.conversation = record->conversation,
                                                     .user = record->sender,
                                                     .device = record->device,
                                                     .realm = record->realm,
                                                     .delivered = record->seq,
                                                     .read = load_u64(record->body.data),
                                                     .time_ms = record->time_ms};
    return OK;
}

/* ---- the state of one conversation (archive_state.h) */

/* mark_of: the device's mark, made if absent. */
static enum err mark_of(struct merge *m, struct archive_mark **out, struct user_id user,
                        struct device_id device)
{
    uint32_t low = 0;
    uint32_t high = m->state.count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        int order = archive_mark_order(&m->marks[middle], user, device);
        if (order == 0) {
            *out = &m->marks[middle];
            return OK;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    TRY(memory_grow(&m->marks, &m->mark_capacity, m->state.count + 1, sizeof *m->marks,
                    MEMORY_STORE));
    memmove(&m->marks[low + 1], &m->marks[low], (m->state.count - low) * sizeof *m->marks);
    m->state.count++;
    *out = &m->marks[low];
    **out = (struct archive_mark){.user = user, .device = device};
    return OK;
}

static void raise_id(struct message_id *highest, struct message_id id)
{
    if (memcmp(id.v, highest->v, sizeof id.v) > 0)
        *highest = id;
}

static enum err add_mark(struct merge *m, const struct archive_mark *from)
{
    struct archive_mark *mark;
    TRY(mark_of(m, &mark, from->user, from->device));
    raise_id(&mark->highest, from->highest);
    if (!from->marked)
        return OK;
    mark->marked = true;
    mark->realm = from->realm;
    raise(&mark->delivered, from->delivered);
    raise(&mark->read, from->read);
    raise(&mark->time_ms, from->time_ms);
    raise(&mark->own, from->own);
    return OK;
}

/* add_state: of an input that is an archive: all but what depends on the numbers before its own. */
static enum err add_state(struct merge *m, const struct archive_state *from)
{
    struct archive_mark mark;
    raise(&m->state.time_ms, from->time_ms);
    m->state.incomplete = m->state.incomplete || from->incomplete;
    for (uint32_t i = 0; i < from->count; i++) {
        archive_state_mark(&mark, from, i);
        TRY(add_mark(m, &mark));
    }
    return OK;
}

/* enter: an archive's numbers of the conversation come next: those that are gone cannot be looked
 * at one by one any more. */
static enum err enter(struct merge *m, const struct archive_state *from)
{
    struct archive_mark before;
    struct archive_mark *mark;
    for (uint32_t i = 0; i < from->count; i++) {
        archive_state_mark(&before, from, i);
        if (before.lead == 0)
            continue;
        TRY(mark_of(m, &mark, before.user, before.device));
        bool leads =
            m->state.first_seq == 0 || (mark->lead != 0 && mark->lead + 1 == from->first_seq);
        if (leads)
            mark->lead = before.lead;
        if (mark->marked && mark->own + 1 >= from->first_seq)
            raise(&mark->own, before.lead);
    }
    return OK;
}

/* note: a message, kept or not. */
static enum err note(struct merge *m, const struct log_record *record)
{
    struct archive_mark *mark;
    if (record->kind == RECORD_LOST)
        return OK; /* nothing is known of it */
    TRY(mark_of(m, &mark, record->sender, record->device));
    raise_id(&mark->highest, record->message_id);
    if (mark->marked && mark->own + 1 == record->seq)
        mark->own = record->seq;
    if (record->seq == m->state.first_seq || (mark->lead != 0 && mark->lead + 1 == record->seq))
        mark->lead = record->seq;
    return OK;
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
    watermarks_settle(&m->watermarks);
    for (uint32_t i = 0; i < m->count; i++) {
        m->result.bad_segment = m->inputs[i].id;
        conversations += cursor_conversations(&m->cursors[i]);
        TRY(cursor_start(&m->cursors[i]));
        if (m->cursors[i].freed) {
            const struct archive_footer *footer = &m->cursors[i].archive->footer;
            m->result.retained_away += footer->records;
            raise(&m->result.dropped_ms, footer->time_max_ms);
        } else if (m->cursors[i].archived) {
            m->result.damaged += m->cursors[i].archive->footer.damaged;
        }
    }
    conversations += m->watermarks.count;
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
    enum err err = cursor_scan(cursor, watermark_add, &m->watermarks);
    if (err != ERR_NOT_FOUND)
        return err;
    watermarks_settle(&m->watermarks);
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

/* gone_add: numbers that are not carried over; neighbours of one reason become one range, in which
 * nobody is named. */
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

/* take_gone: what was removed before. A name that is not needed any more goes, by the same clock as
 * messages do. */
static enum err take_gone(struct merge *m, const struct log_record *record)
{
    struct gone_range gone;
    uint64_t now_ms = m->options.now_ms;
    TRY(gone_decode(&gone, record));
    m->seq_last = gone.last;
    if (!gone_named(record) || (now_ms != 0 && record->expires_ms <= now_ms))
        return gone_add(m, record->seq, gone.last, gone.reason, record->time_ms);
    TRY(gone_flush(m));
    return archive_writer_add(m->writer, record);
}

/* drop: the record is due. While a repeat of it may come its id stays. */
static enum err drop(struct merge *m, const struct log_record *record, enum gone_reason reason)
{
    uint8_t body[GONE_BODY_BYTES];
    uint64_t repeats_ms = m->options.retention.repeats_ms;
    uint64_t until_ms = record->time_ms + repeats_ms;
    raise(&m->result.dropped_ms, record->time_ms);
    if (!message_id_given(record->message_id) || until_ms < repeats_ms ||
        until_ms <= m->options.now_ms)
        return gone_add(m, record->seq, record->seq, reason, record->time_ms);
    TRY(gone_flush(m));
    const struct log_record named = gone_name(body, record, reason, until_ms);
    return archive_writer_add(m->writer, &named);
}

static enum err take_record(struct merge *m, const struct log_record *record)
{
    if (record->kind == RECORD_GONE)
        return take_gone(m, record);
    m->seq_last = record->seq;
    TRY(note(m, record));
    enum retention_verdict verdict = retention_due(&m->options.retention, &m->rule, record,
                                                   m->options.now_ms, m->options.drop_all);
    switch (verdict) {
    case RETENTION_KEEP:
        TRY(gone_flush(m));
        return archive_writer_add(m->writer, record);
    case RETENTION_EXPIRED:
        m->result.expired++;
        return drop(m, record, GONE_EXPIRED);
    case RETENTION_DUE:
        m->result.retained_away++;
        return drop(m, record, GONE_RETENTION);
    }
    return ERR_INVALID;
}

static enum err take_item(struct merge *m, const struct cursor_item *item)
{
    uint64_t from = item->lost ? item->from : item->record.seq;
    uint64_t last = m->seq_last;
    if (from <= last) /* twice, or not in order: nothing could read it where it stood */
        return OK;
    if (m->state.first_seq == 0)
        m->state.first_seq = from;
    if (last != 0 && from > last + 1)
        TRY(take_damaged(m, last + 1, from - 1));
    if (!item->lost)
        return take_record(m, &item->record);
    m->seq_last = item->to;
    return take_damaged(m, item->from, item->to);
}

static bool has(const struct merge *m, const struct cursor *cursor)
{
    return !cursor->ended && conversation_id_equal(cursor->conversation, m->conversation);
}

/* gather_state: all that the inputs know before the first of their numbers is looked at. */
static enum err gather_state(struct merge *m)
{
    m->state = (struct archive_state){.conversation = m->conversation};
    for (uint32_t i = 0; i < m->count; i++)
        if (m->cursors[i].archived && has(m, &m->cursors[i]))
            TRY(add_state(m, &m->cursors[i].state));
    for (; m->watermark_at < m->watermarks.count; m->watermark_at++) {
        const struct watermark *from = &m->watermarks.list[m->watermark_at];
        if (!conversation_id_equal(from->conversation, m->conversation))
            break;
        const struct archive_mark mark = {.user = from->user,
                                          .device = from->device,
                                          .realm = from->realm,
                                          .marked = true,
                                          .delivered = from->delivered,
                                          .read = from->read,
                                          .time_ms = from->time_ms,
                                          .own = from->delivered};
        TRY(add_mark(m, &mark));
    }
    return OK;
}

static enum err begin_conversation(struct merge *m)
{
    m->in_conversation = true;
    m->at = 0;
    m->entered = false;
    m->seq_last = 0;
    m->gone.seq = 0;
    m->rule = (struct retention_rule){.delivered_seq =
                                          m->options.retention.look == NULL ? UINT64_MAX : 0};
    if (m->session_open && m->options.retention.look(m->session, m->conversation, &m->rule) != OK)
        m->rule = (struct retention_rule){0};
    return gather_state(m);
}

static enum err end_conversation(struct merge *m)
{
    m->in_conversation = false;
    TRY(gone_flush(m));
    return archive_writer_state(m->writer, &m->state, m->marks);
}

/* next_conversation: the lowest at hand; false: there is none. */
static bool next_conversation(struct merge *m)
{
    bool found = false;
    if (m->watermark_at < m->watermarks.count) {
        m->conversation = m->watermarks.list[m->watermark_at].conversation;
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
    if (m->at == m->count)
        return end_conversation(m);
    struct cursor *cursor = &m->cursors[m->at];
    m->result.bad_segment = m->inputs[m->at].id;
    if (!has(m, cursor)) {
        m->at++;
        return OK;
    }
    if (cursor->archived && !m->entered)
        TRY(enter(m, &cursor->state));
    m->entered = true;
    enum err err = cursor_peek(cursor, &item);
    if (err == ERR_NOT_FOUND) {
        m->at++;
        m->entered = false;
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
    memory_give(m->watermarks.list, MEMORY_STORE);
    memory_give(m->marks, MEMORY_STORE);
    memory_give(m->cursors, MEMORY_STORE);
    memory_give(m->inputs, MEMORY_STORE);
    memory_give(m, MEMORY_STORE);
}

const struct merge_result *merge_result(const struct merge *m)
{
    return &m->result;
}
