/* log_rig.c: every record follows from a hash of (conversation, sequence number), so that whatever
 * is replayed or read is compared with what was appended without remembering it. */
#include "tests/unit/log_rig.h"

#include "store/archive.h"

struct log_record rig_record(struct rig *rig, uint32_t conversation, uint64_t seq)
{
    uint64_t hash = rig_hash(conversation, seq);
    size_t size = (size_t)(hash % (rig->body_max + 1));
    for (size_t i = 0; i < size; i++)
        rig->body[i] = (uint8_t)(hash >> i % 8 * 8 ^ i);
    struct log_record record = {
        .realm = {(uint32_t)(hash >> 7)},
        .key = (uint32_t)(hash >> 11),
        .kind = rig->setting != NULL && rig->setting(conversation, seq) ? RECORD_RETENTION
                : hash % 16 == 0                                        ? RECORD_MEMBERSHIP
                                                                        : RECORD_MESSAGE,
        .expires_ms = rig->expires != NULL ? rig->expires(conversation, seq) : hash | 1ull << 62,
        .conversation = {conversation % 2, 1000 + conversation},
        .seq = seq,
        .sender = {hash % 7 + 1},
        .device = {(uint32_t)(hash % 3) + 1},
        .time_ms = rig->time != NULL ? rig->time(conversation, seq) : hash >> 20,
        .body = bytes_of(rig->body, size),
    };
    store_u64(record.message_id.v, hash);
    store_u64(record.message_id.v + 8, seq);
    return record;
}

static bool same(const struct log_record *a, const struct log_record *b)
{
    return a->realm.v == b->realm.v && a->key == b->key && a->kind == b->kind &&
           a->expires_ms == b->expires_ms &&
           conversation_id_equal(a->conversation, b->conversation) && a->seq == b->seq &&
           a->sender.v == b->sender.v && a->device.v == b->device.v && a->time_ms == b->time_ms &&
           memcmp(a->message_id.v, b->message_id.v, 16) == 0 && bytes_equal(a->body, b->body);
}

/* is_given: what is told of a message that was removed and whose id is known. */
static bool is_given(const struct log_record *record, const struct log_record *first)
{
    struct log_record left = *record;
    left.key = first->key;
    left.kind = first->kind;
    left.expires_ms = first->expires_ms;
    left.body = first->body;
    return record->kind == RECORD_MESSAGE && record->body.size == 0 && same(&left, first);
}

static void replay(void *context, const struct log_record *record, uint64_t position)
{
    struct rig *rig = context;
    CHECK(position > rig->replay_last || rig->replayed == 0 || rig->merged_replay);
    rig->replay_last = position;
    rig->replayed++;
    if (record->kind == RECORD_WATERMARK || record->kind == RECORD_VOID)
        return;
    uint32_t conversation = (uint32_t)record->conversation.lo - 1000;
    CHECK(conversation < RIG_CONVERSATIONS);
    struct log_record expected = rig_record(rig, conversation, record->seq);
    CHECK(record->kind == RECORD_LOST || same(record, &expected) || is_given(record, &expected));
    CHECK(record->seq > rig->found[conversation] || rig->options.checkpoint != 0);
    if (record->seq > rig->found[conversation])
        rig->found[conversation] = record->seq;
}

void rig_init(struct rig *rig)
{
    memset(rig, 0, sizeof *rig);
    rig->body_max = 300;
    rig->options = (struct log_options){
        .directory = RIG_DIRECTORY,
        .segment_bytes = 256 << 10,
        .batch_bytes_max = 64 << 10,
        .writer_epoch = 1,
        .direct = true,
        .lookup_bytes = 1 << 20,
    };
}

enum err rig_open(struct rig *rig)
{
    rig->replayed = 0;
    rig->log = NULL;
    if (rig->options.checkpoint == 0)
        memset(rig->found, 0, sizeof rig->found);
    rig->options.writer_epoch++;
    return log_open(&rig->log, &rig->options, fault_io(), fault_workers(), rig->metrics, replay,
                    rig, &rig->damaged);
}

void rig_take_completions(struct rig *rig)
{
    struct log_completion done;
    while (log_completed(rig->log, &done)) {
        uint32_t conversation = (uint32_t)(done.cookie >> 48);
        uint64_t seq = done.cookie & ((1ull << 48) - 1);
        if (done.err != OK) {
            rig->refused++;
            continue;
        }
        CHECK(rig->refused == 0); /* nothing is acknowledged after a failure */
        CHECK(done.position < log_durable(rig->log));
        rig->acks++;
        if (conversation == RIG_CONVERSATIONS)
            continue;                               /* a watermark */
        CHECK(seq == rig->acked[conversation] + 1); /* in order, each once */
        rig->acked[conversation] = seq;
    }
}

void rig_turn(struct rig *rig)
{
    struct io_event events[8];
    log_flush(rig->log);
    size_t count = io_poll(fault_io(), events, 8, 0);
    for (size_t i = 0; i < count; i++) {
        CHECK(log_owns(rig->log, events[i].op));
        log_on_file(rig->log, events[i].op);
    }
    struct worker_job *job = worker_completed(fault_workers(), 0);
    if (job != NULL)
        job->done(job, NULL);
    rig_take_completions(rig);
}

enum err rig_append(struct rig *rig, uint32_t conversation)
{
    uint64_t seq = rig->appended[conversation] + 1;
    struct log_record record = rig_record(rig, conversation, seq);
    TRY(log_append(rig->log, &record, (uint64_t)conversation << 48 | seq));
    rig->appended[conversation] = seq;
    return OK;
}

enum err rig_append_watermark(struct rig *rig, uint32_t conversation)
{
    uint8_t read[8] = {1};
    struct log_record record = {.kind = RECORD_WATERMARK,
                                .conversation = {conversation % 2, 1000 + conversation},
                                .seq = 1,
                                .sender = {3},
                                .body = bytes_of(read, sizeof read)};
    return log_append(rig->log, &record, (uint64_t)RIG_CONVERSATIONS << 48);
}

enum err rig_append_now(struct rig *rig, uint32_t conversation)
{
    enum err err;
    for (uint32_t i = 0; (err = rig_append(rig, conversation)) == ERR_FULL && i < 1000; i++)
        rig_turn(rig);
    return err;
}

void rig_settle(struct rig *rig)
{
    for (uint32_t i = 0; i < 6; i++)
        rig_turn(rig);
}

void rig_close(struct rig *rig)
{
    rig_settle(rig);
    log_close(rig->log);
    rig->log = NULL;
}

void rig_crash(struct rig *rig, uint64_t seed)
{
    struct fault_image *image = fault_save();
    fault_calm();
    log_close(rig->log);
    fault_load(image);
    fault_free(image);
    fault_crash(seed);
    rig->log = NULL;
}

void rig_adopt(struct rig *rig)
{
    for (uint32_t i = 0; i < RIG_CONVERSATIONS; i++) {
        CHECK(rig->found[i] >= rig->acked[i]);
        CHECK(rig->found[i] <= rig->appended[i]);
        rig->appended[i] = rig->acked[i] = rig->found[i];
    }
    rig->refused = 0;
}

struct log_read rig_range(struct rig *rig, uint32_t conversation, uint64_t from, uint64_t to,
                          uint32_t records_max, size_t room)
{
    return (struct log_read){.kind = LOG_READ_RANGE,
                             .conversation = {conversation % 2, 1000 + conversation},
                             .from_seq = from,
                             .to_seq = to,
                             .records_max = records_max,
                             .out = buffer_of(rig->out, room)};
}

enum err rig_await(struct rig *rig, struct log_read *read)
{
    TRY(log_read(rig->log, read));
    for (uint32_t i = 0;; i++) {
        CHECK(i < 10000); /* a read never hangs */
        struct log_read *done = log_read_done(rig->log);
        if (done != NULL) {
            CHECK(done == read);
            return read->err;
        }
        rig_turn(rig);
    }
}

uint64_t rig_check(struct rig *rig, const struct log_read *read, uint32_t conversation,
                   uint64_t from)
{
    struct bytes rest = buffer_bytes(&read->out);
    struct log_record record;
    uint64_t count = 0;
    while (log_record_next(&rest, &record) == OK) {
        struct log_record expected = rig_record(rig, conversation, from + count);
        CHECK(same(&record, &expected));
        count++;
    }
    CHECK(rest.size == 0 && count == read->records);
    return count;
}

void rig_read_all(struct rig *rig)
{
    for (uint32_t c = 0; c < RIG_CONVERSATIONS; c++) {
        uint64_t next = 1;
        while (next <= rig->acked[c]) {
            struct log_read read = rig_range(rig, c, next, UINT64_MAX, 1000, RIG_OUT_BYTES);
            CHECK(rig_await(rig, &read) == OK);
            next += rig_check(rig, &read, c, next);
        }
        CHECK(next == rig->acked[c] + 1);
        struct log_read read = rig_range(rig, c, next, UINT64_MAX, 10, RIG_OUT_BYTES);
        CHECK(rig_await(rig, &read) == ERR_NOT_FOUND);
    }
}

void rig_gone(struct rig *rig, const struct log_read *read, uint32_t conversation,
              bool (*may_go)(const struct rig *rig, const struct log_record *record))
{
    CHECK(read->missing_from >= 1 && read->missing_from <= read->missing_to);
    CHECK(read->missing_to <= rig->appended[conversation]);
    for (uint64_t seq = read->missing_from; seq <= read->missing_to; seq++) {
        struct log_record record = rig_record(rig, conversation, seq);
        CHECK(may_go(rig, &record));
    }
}

uint64_t rig_walk(struct rig *rig, uint32_t conversation,
                  bool (*may_go)(const struct rig *rig, const struct log_record *record))
{
    uint64_t gone = 0;
    for (uint64_t next = 1; next <= rig->acked[conversation];) {
        struct log_read read =
            rig_range(rig, conversation, next, rig->acked[conversation], 1000, RIG_OUT_BYTES);
        enum err err = rig_await(rig, &read);
        next += rig_check(rig, &read, conversation, next);
        if (err == OK)
            continue;
        CHECK(err == ERR_EXPIRED && read.missing_from == next);
        rig_gone(rig, &read, conversation, may_go);
        gone += read.missing_to + 1 - next;
        next = read.missing_to + 1;
    }
    return gone;
}

enum err rig_find(struct rig *rig, uint32_t conversation, uint64_t seq)
{
    struct log_record record = rig_record(rig, conversation, seq);
    struct log_read read = {.kind = LOG_READ_FIND,
                            .conversation = record.conversation,
                            .sender = record.sender,
                            .device = record.device,
                            .message_id = record.message_id,
                            .out = buffer_of(rig->out, RIG_OUT_BYTES)};
    struct log_record found;
    struct log_record given;
    enum err err = rig_await(rig, &read);
    if (err != OK)
        return err;
    struct bytes rest = buffer_bytes(&read.out);
    CHECK(log_record_next(&rest, &found) == OK);
    if (found.kind != RECORD_GONE) {
        CHECK(rig_check(rig, &read, conversation, seq) == 1);
        return OK;
    }
    CHECK(gone_given(&given, &found) == OK && is_given(&given, &record));
    return ERR_EXPIRED;
}
