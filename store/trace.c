/* trace.c: log_trace of inspect.h: finds the message, then looks at everything behind it for what
 * proves it durable and for the watermarks that reach it. Two walks: a subject given by its id is
 * looked for first, because a conversation's watermarks are known by number.
 *
 * What the log knows: accepted (the record's time), durable (its batch was synced before a later
 * batch was written), delivered and read (watermark records: they are coalesced, so each is "at or
 * before" its time). Fan-out and push leave no record. */
#include "store/inspect.h"

#include "core/memory.h"
#include "core/text.h"

#include <inttypes.h>
#include <stdio.h>

#define TRACE_READERS_MAX 512 /* devices and users whose first watermark is remembered */

struct reached {
    struct user_id user;
    struct device_id device; /* 0: a user's read mark */
};

struct trace {
    const struct inspect_output *out;
    struct trace_subject subject;
    uint64_t found; /* its position; 0: not yet */
    bool durable;
    uint32_t reached_count;
    struct reached reached[TRACE_READERS_MAX];
};

static bool is_subject(const struct trace *trace, const struct log_record *record)
{
    if (!record_has_seq(record->kind))
        return false;
    if (trace->subject.by_id)
        return record->kind != RECORD_LOST && message_id_given(record->message_id) &&
               memcmp(record->message_id.v, trace->subject.id.v, sizeof record->message_id.v) == 0;
    return conversation_id_equal(record->conversation, trace->subject.conversation) &&
           record->seq == trace->subject.seq;
}

/* once: true the first time for this pair. */
static bool once(struct trace *trace, struct user_id user, struct device_id device)
{
    for (uint32_t i = 0; i < trace->reached_count; i++)
        if (trace->reached[i].user.v == user.v && trace->reached[i].device.v == device.v)
            return false;
    if (trace->reached_count == TRACE_READERS_MAX)
        return false;
    trace->reached[trace->reached_count++] = (struct reached){user, device};
    return true;
}

static void tell_accepted(const struct trace *trace, const struct log_record *r)
{
    char conversation[UUID_TEXT_BYTES];
    char id[UUID_TEXT_BYTES];
    char time[TIME_TEXT_BYTES];
    uint8_t bytes[16];
    conversation_id_encode(bytes, r->conversation);
    uuid_format(conversation, bytes);
    uuid_format(id, r->message_id.v);
    time_text(time, r->time_ms);
    inspect_print(trace->out,
                  trace->out->json
                      ? "{\"event\":\"accepted\",\"time\":\"%s\",\"kind\":\"%s\",\"conversation\":"
                        "\"%s\",\"seq\":%" PRIu64 ",\"message_id\":\"%s\",\"sender\":\"%" PRIu64
                        "\",\"device\":%" PRIu32 ",\"realm\":%" PRIu32 ",\"body_bytes\":%zu}"
                      : "accepted   %s  %s: conversation %s seq %" PRIu64
                        " id %s, from user %" PRIu64 " device %" PRIu32 ", realm %" PRIu32
                        ", %zu bytes",
                  time, record_kind_name(r->kind), conversation, r->seq, id, r->sender.v,
                  r->device.v, r->realm.v, r->body.size);
}

static void tell_batch(const struct trace *trace, const struct batch_header *header)
{
    char written[TIME_TEXT_BYTES];
    time_text(written, header->wall_ms);
    inspect_print(trace->out,
                  trace->out->json ? "{\"event\":\"batch\",\"time\":\"%s\",\"batch\":\"%016" PRIx64
                                     "\",\"record\":\"%016" PRIx64 "\",\"segment\":%" PRIu32
                                     ",\"records\":%" PRIu32 ",\"writer_epoch\":%" PRIu64 "}"
                                   : "batch      %s  %016" PRIx64 ", the record at %016" PRIx64
                                     " (segment %08" PRIx32 "), %" PRIu32
                                     " records, writer epoch %" PRIu64,
                  written, header->position, trace->found, position_segment(header->position),
                  header->records, header->writer_epoch);
}

static void tell_reached(const struct trace *trace, const char *event,
                         const struct log_record *record, uint64_t mark)
{
    char time[TIME_TEXT_BYTES];
    time_text(time, record->time_ms);
    inspect_print(trace->out,
                  trace->out->json ? "{\"event\":\"%s\",\"time\":\"%s\",\"user\":\"%" PRIu64
                                     "\",\"device\":%" PRIu32 ",\"up_to\":%" PRIu64 "}"
                                   : "%-9s  %s  user %" PRIu64 " device %" PRIu32
                                     ": everything up to %" PRIu64,
                  event, time, record->sender.v, record->device.v, mark);
}

static void follow(struct trace *trace, const struct log_record *record)
{
    if (record->kind != RECORD_WATERMARK || record->body.size != 8 ||
        !conversation_id_equal(record->conversation, trace->subject.conversation))
        return;
    uint64_t read = load_u64(record->body.data);
    if (record->seq >= trace->subject.seq && once(trace, record->sender, record->device))
        tell_reached(trace, "delivered", record, record->seq);
    if (read >= trace->subject.seq && once(trace, record->sender, (struct device_id){0}))
        tell_reached(trace, "read", record, read);
}

static enum err look_for(void *context, const struct scan_item *batch, const struct batch_walk *at)
{
    struct trace *trace = context;
    if (!is_subject(trace, &at->record))
        return OK;
    trace->subject.conversation = at->record.conversation;
    trace->subject.seq = at->record.seq;
    trace->found = position_of(position_segment(batch->header.position), at->offset);
    return ERR_CANCELLED;
}

/* In an archive a record stands by conversation and number; it was merged long after its sync. */
static enum err look_for_archived(void *context, const struct archive_header *archive,
                                  const struct log_record *record)
{
    struct trace *trace = context;
    if (!is_subject(trace, record))
        return OK;
    trace->subject.conversation = record->conversation;
    trace->subject.seq = record->seq;
    (void)archive;
    return ERR_CANCELLED;
}

/* tell_gone: of one that was removed there is what its name says, or nothing. */
static void tell_gone(const struct trace *trace, const struct log_record *record)
{
    struct log_record given;
    char until[TIME_TEXT_BYTES];
    if (!gone_named(record) || gone_given(&given, record) != OK) {
        inspect_print(trace->out, trace->out->json ? "{\"event\":\"gone\"}"
                                                   : "gone       nothing is known of it any more");
        return;
    }
    tell_accepted(trace, &given);
    time_text(until, record->expires_ms);
    inspect_print(trace->out,
                  trace->out->json ? "{\"event\":\"gone\",\"id_until\":\"%s\"}"
                                   : "gone       its content was removed; its id is known until %s",
                  until);
}

static enum err tell_archived(void *context, const struct archive_header *archive,
                              const struct log_record *record)
{
    struct trace *trace = context;
    char name[ARCHIVE_NAME_BYTES];
    bool subject = is_subject(trace, record);
    trace->durable = trace->durable || subject;
    if (subject && record->kind == RECORD_GONE) {
        tell_gone(trace, record);
    } else if (subject) {
        tell_accepted(trace, record);
        archive_name(name, archive, ".archive");
        inspect_print(trace->out,
                      trace->out->json ? "{\"event\":\"archived\",\"archive\":\"%s\"}"
                                       : "archived   %s: durable long since",
                      name);
    }
    follow(trace, record);
    return OK;
}

static enum err tell_durable(void *context, const struct scan *scan, const struct scan_item *item)
{
    struct trace *trace = context;
    char time[TIME_TEXT_BYTES];
    (void)scan;
    if (item->kind != SCAN_BATCH || trace->durable || item->header.durable_before <= trace->found)
        return OK;
    trace->durable = true;
    time_text(time, item->header.wall_ms);
    inspect_print(trace->out,
                  trace->out->json ? "{\"event\":\"durable\",\"time\":\"%s\"}"
                                   : "durable    %s  at the latest: the next batch says so; the "
                                     "sender was told after the sync",
                  time);
    return OK;
}

static enum err tell(void *context, const struct scan_item *batch, const struct batch_walk *at)
{
    struct trace *trace = context;
    uint64_t position = position_of(position_segment(batch->header.position), at->offset);
    if (position == trace->found) {
        tell_accepted(trace, &at->record);
        tell_batch(trace, &batch->header);
    } else if (position > trace->found) {
        follow(trace, &at->record);
    }
    return OK;
}

enum err log_trace(const char *directory, const struct trace_subject *subject,
                   const struct inspect_output *out)
{
    struct walk walk;
    struct trace *trace = memory_take_zeroed(sizeof *trace, MEMORY_STORE);
    if (trace == NULL)
        return ERR_NO_MEMORY;
    trace->out = out;
    trace->subject = *subject;
    const struct walk_visitor first = {
        .context = trace, .record = look_for, .archived = look_for_archived};
    const struct walk_visitor second = {
        .context = trace, .item = tell_durable, .record = tell, .archived = tell_archived};
    enum err err = walk_open(&walk, directory, subject->cold);
    if (err == OK) {
        err = walk_records(&walk, &first);
        if (err == OK)
            err = ERR_NOT_FOUND;
        else if (err == ERR_CANCELLED)
            err = walk_records(&walk, &second);
        if (err == OK && !trace->durable)
            inspect_print(out, out->json ? "{\"event\":\"last\"}"
                                         : "           it is in the newest batch of the log: "
                                           "acknowledged if that batch was synced");
        walk_close(&walk);
    }
    memory_give(trace, MEMORY_STORE);
    return err;
}
