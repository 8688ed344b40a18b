/* inspect.c: see inspect.h. Positions are printed as the segment's id and the offset in hex, 16
 * digits, as in the log's own messages. */
#include "store/inspect.h"

#include "core/file.h"
#include "core/memory.h"
#include "core/text.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

void inspect_print(const struct inspect_output *out, const char *format, ...)
{
    char line[INSPECT_LINE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    out->line(out->context, line);
}

enum err inspect_explain(char *explanation, enum err err, const char *format, ...)
{
    const int room = INSPECT_EXPLANATION_BYTES - 32;
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(explanation, (size_t)room, format, arguments);
    va_end(arguments);
    if (size > 0 && size < room)
        snprintf(explanation + size, 32, " (%s)", err_name(err));
    return err;
}

void time_text(char out[TIME_TEXT_BYTES], uint64_t unix_ms)
{
    time_t seconds = (time_t)(unix_ms / 1000);
    struct tm tm;
    if (unix_ms > 253402300799999 || gmtime_r(&seconds, &tm) == NULL) /* the year 9999 */
        snprintf(out, TIME_TEXT_BYTES, "%" PRIu64 "ms", unix_ms);
    else
        snprintf(out, TIME_TEXT_BYTES, "%04d-%02d-%02dT%02d:%02d:%02d.%03uZ",
                 (tm.tm_year + 1900) % 10000, (tm.tm_mon + 1) % 100, tm.tm_mday % 100,
                 tm.tm_hour % 100, tm.tm_min % 100, tm.tm_sec % 100, (unsigned)(unix_ms % 1000));
}

const char *record_kind_name(uint16_t kind)
{
    switch ((enum record_kind)kind) {
    case RECORD_MESSAGE:
        return "message";
    case RECORD_WATERMARK:
        return "watermark";
    case RECORD_MEMBERSHIP:
        return "membership";
    case RECORD_GONE:
        return "gone";
    case RECORD_LOST:
        return "lost";
    case RECORD_VOID:
        return "void";
    case RECORD_RETENTION:
        return "retention";
    }
    return "unknown";
}

static void conversation_text(char out[UUID_TEXT_BYTES], struct conversation_id id)
{
    uint8_t bytes[16];
    conversation_id_encode(bytes, id);
    uuid_format(out, bytes);
}

/* ---- dump */

struct dump {
    const struct dump_options *options;
    const struct inspect_output *out;
};

static enum err dump_lost(void *context, uint32_t id, enum err err)
{
    const struct dump *dump = context;
    inspect_print(dump->out,
                  dump->out->json ? "{\"type\":\"lost\",\"segment\":%" PRIu32 ",\"err\":\"%s\"}"
                                  : "lost segment %08" PRIx32 ": no readable header (%s)",
                  id, err_name(err));
    return OK;
}

static void dump_batch(const struct dump *dump, const struct batch_header *header, bool sound)
{
    char time[TIME_TEXT_BYTES];
    time_text(time, header->wall_ms);
    inspect_print(
        dump->out,
        dump->out->json ? "{\"type\":\"batch\",\"position\":\"%016" PRIx64 "\",\"segment\":%" PRIu32
                          ",\"offset\":%" PRIu32 ",\"length\":%" PRIu32 ",\"records\":%" PRIu32
                          ",\"record_base\":%" PRIu64 ",\"previous_end\":\"%016" PRIx64
                          "\",\"durable_before\":\"%016" PRIx64 "\",\"writer_epoch\":%" PRIu64
                          ",\"lane\":%" PRIu32 ",\"time\":\"%s\",\"sound\":%s}"
                        : "batch %016" PRIx64 " segment %08" PRIx32 " offset %" PRIu32
                          " length %" PRIu32 " records %" PRIu32 " base %" PRIu64
                          " previous_end %016" PRIx64 " durable_before %016" PRIx64
                          " writer_epoch %" PRIu64 " lane %" PRIu32 " time %s sound %s",
        header->position, position_segment(header->position), position_offset(header->position),
        header->length, header->records, header->record_base, header->previous_end,
        header->durable_before, header->writer_epoch, header->lane, time, sound ? "true" : "false");
}

static enum err dump_item(void *context, const struct scan *scan, const struct scan_item *item)
{
    const struct dump *dump = context;
    if (item->kind == SCAN_BATCH) {
        if (!dump->options->one)
            dump_batch(dump, &item->header, batch_sound(&scan->key, item));
        return OK;
    }
    if (item->kind == SCAN_END && !item->dirty && !item->unreadable)
        return OK;
    inspect_print(dump->out,
                  dump->out->json ? "{\"type\":\"unreadable\",\"segment\":%" PRIu32
                                    ",\"from\":%" PRIu32 ",\"to\":%" PRIu32 "}"
                                  : "unreadable segment %08" PRIx32 " offset %" PRIu32
                                    " to %" PRIu32 ": no valid batch header",
                  scan->header.id, item->from, item->to);
    return OK;
}

/* dump_one: place is 16 hex digits of its position, or its archive's name. */
static enum err dump_one(const struct dump *dump, const struct log_record *r, const char *place)
{
    const struct dump_options *options = dump->options;
    if (options->one && (!conversation_id_equal(r->conversation, options->conversation) ||
                         r->seq < options->from_seq || r->seq > options->to_seq))
        return OK;
    char conversation[UUID_TEXT_BYTES];
    char id[UUID_TEXT_BYTES];
    char time[TIME_TEXT_BYTES];
    char read[32] = "";
    conversation_text(conversation, r->conversation);
    uuid_format(id, r->message_id.v);
    time_text(time, r->time_ms);
    bool json = dump->out->json;
    if (r->kind == RECORD_WATERMARK && r->body.size == 8)
        snprintf(read, sizeof read, json ? ",\"read\":%" PRIu64 : " read %" PRIu64,
                 load_u64(r->body.data));
    inspect_print(dump->out,
                  json
                      ? "{\"type\":\"record\",\"position\":\"%s\",\"kind\":\"%s\",\"conversation\":"
                        "\"%s\",\"seq\":%" PRIu64 ",\"sender\":\"%" PRIu64 "\",\"device\":%" PRIu32
                        ",\"message_id\":\"%s\",\"time\":\"%s\",\"expires_ms\":%" PRIu64
                        ",\"realm\":%" PRIu32 ",\"key\":%" PRIu32 ",\"body_bytes\":%zu%s}"
                      : "record %s %s conversation %s seq %" PRIu64 " sender %" PRIu64
                        " device %" PRIu32 " id %s time %s expires %" PRIu64 " realm %" PRIu32
                        " key %" PRIu32 " body %zu bytes%s",
                  place, record_kind_name(r->kind), conversation, r->seq, r->sender.v, r->device.v,
                  id, time, r->expires_ms, r->realm.v, r->key, r->body.size, read);
    return OK;
}

static enum err dump_record(void *context, const struct scan_item *batch,
                            const struct batch_walk *at)
{
    char place[20];
    snprintf(place, sizeof place, "%016" PRIx64,
             position_of(position_segment(batch->header.position), at->offset));
    return dump_one(context, &at->record, place);
}

static enum err dump_archived(void *context, const struct archive_header *archive,
                              const struct log_record *record)
{
    char name[ARCHIVE_NAME_BYTES];
    archive_name(name, archive, ".archive");
    return dump_one(context, record, name);
}

enum err log_dump(const char *directory, const struct dump_options *options,
                  const struct inspect_output *out)
{
    struct walk walk;
    struct dump dump = {options, out};
    const struct walk_visitor visitor = {.context = &dump,
                                         .segment = options->segment,
                                         .lost = dump_lost,
                                         .item = dump_item,
                                         .record = dump_record,
                                         .archived = dump_archived};
    TRY(walk_open(&walk, directory, options->cold));
    enum err err = walk_records(&walk, &visitor);
    walk_close(&walk);
    return err;
}

/* ---- stat */

/* A sketch of distinct conversations (HyperLogLog with 2^14 registers: standard error 0.8 %); while
 * many registers are empty, counting those is nearly exact. */
#define SKETCH_BITS 14
#define SKETCH_SIZE (1u << SKETCH_BITS)

enum segment_use { USE_SEALED, USE_UNSEALED, USE_ACTIVE, USE_READY, USE_LOST, USE_COUNT };

struct stat {
    const char *directory;
    const struct inspect_output *out;
    uint64_t checkpoint;
    uint64_t segments[USE_COUNT];
    uint64_t segment_bytes;
    uint64_t data_bytes;
    uint64_t batches;
    uint64_t kinds[RECORD_RETENTION + 1];
    uint64_t records;
    uint64_t damaged; /* ranges */
    uint64_t oldest_ms;
    uint64_t newest_ms;
    uint64_t end; /* of the newest batch */
    uint64_t tail_bytes;
    uint64_t tail_records;
    uint32_t used_last; /* newest segment with a batch */
    const struct walk *walk;
    uint8_t sketch[SKETCH_SIZE];
};

static void sketch_add(struct stat *stat, struct conversation_id id)
{
    const struct hash_key key = {0x726f6f7374737461, 0x74};
    uint64_t hash = hash_u128(&key, id.hi, id.lo);
    uint64_t rest = hash << SKETCH_BITS | 1ull << (SKETCH_BITS - 1);
    uint8_t rank = (uint8_t)(__builtin_clzll(rest) + 1);
    uint8_t *slot = &stat->sketch[hash >> (64 - SKETCH_BITS)];
    if (rank > *slot)
        *slot = rank;
}

static uint64_t sketch_count(const struct stat *stat)
{
    double sum = 0;
    uint32_t empty = 0;
    const double size = SKETCH_SIZE;
    for (uint32_t i = 0; i < SKETCH_SIZE; i++) {
        sum += 1 / (double)(1ull << stat->sketch[i]);
        empty += stat->sketch[i] == 0;
    }
    double estimate = 0.7213 / (1 + 1.079 / size) * size * size / sum;
    if (estimate <= 2.5 * size && empty != 0)
        estimate = size * log(size / empty);
    return (uint64_t)(estimate + 0.5);
}

static enum err stat_lost(void *context, uint32_t id, enum err err)
{
    struct stat *stat = context;
    (void)id;
    (void)err;
    stat->segments[USE_LOST]++;
    return OK;
}

static enum err stat_item(void *context, const struct scan *scan, const struct scan_item *item)
{
    struct stat *stat = context;
    if (walk_damaged(stat->walk, scan, item))
        stat->damaged++;
    if (item->kind == SCAN_END)
        stat->segment_bytes += scan->header.bytes;
    if (item->kind != SCAN_BATCH)
        return OK;
    uint64_t position = item->header.position;
    stat->batches++;
    stat->data_bytes += item->to - item->from;
    if (stat->oldest_ms == 0)
        stat->oldest_ms = item->header.wall_ms;
    stat->newest_ms = item->header.wall_ms;
    stat->end = position_of(scan->header.id, item->to);
    stat->used_last = scan->header.id;
    if (position >= stat->checkpoint) {
        stat->tail_bytes += item->to - item->from;
        stat->tail_records += item->header.records;
    }
    return OK;
}

static enum err stat_record(void *context, const struct scan_item *batch,
                            const struct batch_walk *at)
{
    struct stat *stat = context;
    (void)batch;
    stat->records++;
    if (at->record.kind <= RECORD_RETENTION)
        stat->kinds[at->record.kind]++;
    if (at->record.kind != RECORD_VOID)
        sketch_add(stat, at->record.conversation);
    return OK;
}

static enum err stat_archived(void *context, const struct archive_header *archive,
                              const struct log_record *record)
{
    struct stat *stat = context;
    (void)archive;
    stat->records++;
    if (record->kind <= RECORD_RETENTION)
        stat->kinds[record->kind]++;
    sketch_add(stat, record->conversation);
    return OK;
}

/* count_states: as the files show it: a sealed one has its index beside it. */
static enum err count_states(struct stat *stat)
{
    for (uint32_t i = 0; i < stat->walk->count; i++) {
        uint32_t id = stat->walk->ids[i];
        char path[STORE_PATH_BYTES];
        int fd;
        TRY(store_path(path, stat->directory, id, ".index"));
        enum err err = file_open(&fd, path, FILE_READ);
        if (err == OK)
            file_close(fd);
        if (id > stat->used_last)
            stat->segments[USE_READY]++;
        else if (id == stat->used_last)
            stat->segments[USE_ACTIVE]++;
        else
            stat->segments[err == OK ? USE_SEALED : USE_UNSEALED]++;
    }
    return OK;
}

static void stat_print_text(const struct stat *stat, uint64_t space, const char *checkpoint)
{
    char oldest[TIME_TEXT_BYTES];
    char newest[TIME_TEXT_BYTES];
    const struct inspect_output *out = stat->out;
    time_text(oldest, stat->oldest_ms);
    time_text(newest, stat->newest_ms);
    inspect_print(out,
                  "segments       %" PRIu32 " (%" PRIu64 " sealed, %" PRIu64
                  " being sealed, %" PRIu64 " active, %" PRIu64 " ready, %" PRIu64
                  " without a readable header)",
                  stat->walk->count, stat->segments[USE_SEALED], stat->segments[USE_UNSEALED],
                  stat->segments[USE_ACTIVE], stat->segments[USE_READY], stat->segments[USE_LOST]);
    inspect_print(out, "archives       %" PRIu32, stat->walk->archive_count);
    inspect_print(out, "bytes          %" PRIu64 " in segments, %" PRIu64 " of them written",
                  stat->segment_bytes, stat->data_bytes);
    inspect_print(out, "batches        %" PRIu64, stat->batches);
    inspect_print(out,
                  "records        %" PRIu64 " (%" PRIu64 " messages, %" PRIu64
                  " watermarks, %" PRIu64 " membership, %" PRIu64 " retention, %" PRIu64
                  " gone, %" PRIu64 " lost, %" PRIu64 " void)",
                  stat->records, stat->kinds[RECORD_MESSAGE], stat->kinds[RECORD_WATERMARK],
                  stat->kinds[RECORD_MEMBERSHIP], stat->kinds[RECORD_RETENTION],
                  stat->kinds[RECORD_GONE], stat->kinds[RECORD_LOST], stat->kinds[RECORD_VOID]);
    inspect_print(out, "conversations  about %" PRIu64, sketch_count(stat));
    inspect_print(out, "oldest batch   %s", stat->batches == 0 ? "none" : oldest);
    inspect_print(out, "newest batch   %s", stat->batches == 0 ? "none" : newest);
    inspect_print(out, "end            %016" PRIx64, stat->end);
    inspect_print(out, "checkpoint     %s", checkpoint);
    if (stat->checkpoint != UINT64_MAX)
        inspect_print(out, "to replay      %" PRIu64 " bytes, %" PRIu64 " records",
                      stat->tail_bytes, stat->tail_records);
    inspect_print(out, "damaged        %" PRIu64 " ranges%s", stat->damaged,
                  stat->damaged != 0 ? ": run roost log verify" : "");
    inspect_print(out, "free space     %" PRIu64 " bytes on its file system", space);
}

static void stat_print_json(const struct stat *stat, uint64_t space, const char *checkpoint)
{
    char tail[96] = "";
    if (stat->checkpoint != UINT64_MAX)
        snprintf(tail, sizeof tail,
                 ",\"checkpoint\":\"%s\",\"replay_bytes\":%" PRIu64 ",\"replay_records\":%" PRIu64,
                 checkpoint, stat->tail_bytes, stat->tail_records);
    inspect_print(
        stat->out,
        "{\"segments\":%" PRIu32 ",\"archives\":%" PRIu32 ",\"sealed\":%" PRIu64
        ",\"sealing\":%" PRIu64 ",\"active\":%" PRIu64 ",\"ready\":%" PRIu64
        ",\"unreadable\":%" PRIu64 ",\"segment_bytes\":%" PRIu64 ",\"written_bytes\":%" PRIu64
        ",\"batches\":%" PRIu64 ",\"records\":%" PRIu64 ",\"messages\":%" PRIu64
        ",\"watermarks\":%" PRIu64 ",\"membership\":%" PRIu64 ",\"retention\":%" PRIu64
        ",\"gone\":%" PRIu64 ",\"lost\":%" PRIu64 ",\"void\":%" PRIu64 ",\"conversations\":%" PRIu64
        ",\"oldest_ms\":%" PRIu64 ",\"newest_ms\":%" PRIu64 ",\"end\":\"%016" PRIx64
        "\"%s,\"damaged_ranges\":%" PRIu64 ",\"free_bytes\":%" PRIu64 "}",
        stat->walk->count, stat->walk->archive_count, stat->segments[USE_SEALED],
        stat->segments[USE_UNSEALED], stat->segments[USE_ACTIVE], stat->segments[USE_READY],
        stat->segments[USE_LOST], stat->segment_bytes, stat->data_bytes, stat->batches,
        stat->records, stat->kinds[RECORD_MESSAGE], stat->kinds[RECORD_WATERMARK],
        stat->kinds[RECORD_MEMBERSHIP], stat->kinds[RECORD_RETENTION], stat->kinds[RECORD_GONE],
        stat->kinds[RECORD_LOST], stat->kinds[RECORD_VOID], sketch_count(stat), stat->oldest_ms,
        stat->newest_ms, stat->end, tail, stat->damaged, space);
}

enum err log_stat(const char *directory, const char *cold, uint64_t checkpoint,
                  const struct inspect_output *out)
{
    struct walk walk;
    uint64_t space = 0;
    char position[64] = "not known (no catalog beside the log)";
    struct stat *stat = memory_take_zeroed(sizeof *stat, MEMORY_STORE);
    if (stat == NULL)
        return ERR_NO_MEMORY;
    *stat =
        (struct stat){.directory = directory, .out = out, .checkpoint = checkpoint, .walk = &walk};
    const struct walk_visitor visitor = {.context = stat,
                                         .lost = stat_lost,
                                         .item = stat_item,
                                         .record = stat_record,
                                         .archived = stat_archived};
    enum err err = walk_open(&walk, directory, cold);
    if (err == OK) {
        err = walk_records(&walk, &visitor);
        if (err == OK)
            err = count_states(stat);
        if (err == OK)
            err = file_free_bytes(directory, &space);
        if (checkpoint != UINT64_MAX)
            snprintf(position, sizeof position, "%016" PRIx64, checkpoint);
        if (err == OK)
            (out->json ? stat_print_json : stat_print_text)(stat, space, position);
        walk_close(&walk);
    }
    memory_give(stat, MEMORY_STORE);
    return err;
}
