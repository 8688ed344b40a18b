/* quarantine.c: copies of damaged ranges, each with a description:
 *
 *   {"segment":"0000002a","from":8192,"to":12288,"bytes":4096,"unreadable_bytes":0,
 *    "what":"…","records_lost":3,"counted":true,"unknown":1,
 *    "gone":[{"conversation":"…","from_seq":4,"to_seq":5}, …],"claimed":[…],"copy":"….bytes"}
 *
 * Of an archive "archive":"<name>" stands for "segment". "gone" is what the segment's index, or the
 * archive's directory and the numbers around the place, vouch for. "claimed" is what the damaged
 * bytes themselves look like, with wrong checksums: a hint for a person, not used for anything. */
#include "store/repair.h"

#include "core/file.h"
#include "core/memory.h"
#include "core/text.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define COPY_BYTES  (1u << 20)
#define CLAIMS_MAX  1000
#define STEM_BYTES  112
#define PATH_BYTES  (STORE_PATH_BYTES + STEM_BYTES)
#define PIECE_BYTES 512

struct description {
    int fd;
    uint64_t size;
    enum err err; /* first failed write */
};

__attribute__((format(printf, 2, 3))) static void put(struct description *d, const char *format,
                                                      ...)
{
    char text[PIECE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    CHECK(size >= 0 && size < PIECE_BYTES);
    if (d->err == OK)
        d->err = file_write(d->fd, d->size, bytes_of(text, (size_t)size));
    d->size += (uint64_t)size;
}

/* copy_range: block by block where the device refuses; *unreadable counts what was left zero. */
static enum err copy_range(int source, int target, uint64_t from, uint64_t to, uint64_t *unreadable)
{
    uint8_t *data = memory_take(COPY_BYTES, MEMORY_STORE);
    if (data == NULL)
        return ERR_NO_MEMORY;
    enum err err = OK;
    size_t step = COPY_BYTES;
    for (uint64_t at = from; at < to && err == OK;) {
        size_t size = to - at < step ? (size_t)(to - at) : step;
        size_t done = 0;
        if (file_read(source, at, data, size, &done) != OK) {
            if (step > SEGMENT_BLOCK) {
                step = SEGMENT_BLOCK;
                continue;
            }
            *unreadable += size;
            done = 0;
        }
        memset(data + done, 0, size - done);
        err = file_write(target, at - from, bytes_of(data, size));
        at += size;
    }
    memory_give(data, MEMORY_STORE);
    return err;
}

static int known_compare(const void *a, const void *b)
{
    const struct lost_record *x = a;
    const struct lost_record *y = b;
    if (x->conversation.hi != y->conversation.hi)
        return x->conversation.hi < y->conversation.hi ? -1 : 1;
    if (x->conversation.lo != y->conversation.lo)
        return x->conversation.lo < y->conversation.lo ? -1 : 1;
    return x->seq < y->seq ? -1 : x->seq > y->seq;
}

static void put_range(struct description *d, bool first, struct conversation_id id, uint64_t from,
                      uint64_t to)
{
    char text[UUID_TEXT_BYTES];
    uint8_t bytes[16];
    conversation_id_encode(bytes, id);
    uuid_format(text, bytes);
    put(d, "%s\n  {\"conversation\":\"%s\",\"from_seq\":%" PRIu64 ",\"to_seq\":%" PRIu64 "}",
        first ? "" : ",", text, from, to);
}

static enum err put_known(struct description *d, const struct quarantine_entry *entry)
{
    size_t bytes = entry->known_count * sizeof *entry->known;
    struct lost_record *sorted = memory_take(bytes + 1, MEMORY_STORE);
    if (sorted == NULL)
        return ERR_NO_MEMORY;
    if (bytes != 0) {
        memcpy(sorted, entry->known, bytes);
        qsort(sorted, entry->known_count, sizeof *sorted, known_compare);
    }
    for (uint32_t i = 0, end; i < entry->known_count; i = end) {
        for (end = i + 1; end < entry->known_count &&
                          conversation_id_equal(sorted[end].conversation, sorted[i].conversation) &&
                          sorted[end].seq == sorted[end - 1].last + 1;
             end++)
            ;
        put_range(d, i == 0, sorted[i].conversation, sorted[i].seq, sorted[end - 1].last);
    }
    memory_give(sorted, MEMORY_STORE);
    return OK;
}

/* put_claims: what parses as a record where one could be. */
static void put_claims(struct description *d, struct bytes data)
{
    uint32_t claims = 0;
    for (size_t at = 0; at + RECORD_HEADER_BYTES <= data.size && claims < CLAIMS_MAX;) {
        struct log_record record;
        size_t taken;
        bool likely = record_parse(&record, bytes_skip(data, at), &taken) == OK &&
                      ((record.kind >= RECORD_MESSAGE && record.kind <= RECORD_MEMBERSHIP) ||
                       record.kind == RECORD_RETENTION) &&
                      record.conversation.lo != 0 && record.seq < 1ull << 48;
        if (!likely) {
            at += RECORD_ALIGNMENT;
            continue;
        }
        put_range(d, claims++ == 0, record.conversation, record.seq, record.seq);
        at += taken;
    }
}

static uint64_t known_numbers(const struct quarantine_entry *entry)
{
    uint64_t count = 0;
    for (uint32_t i = 0; i < entry->known_count; i++)
        count += entry->known[i].last - entry->known[i].seq + 1;
    return count;
}

static enum err describe(int fd, int copy, const struct quarantine_entry *entry, const char *stem,
                         uint64_t unreadable)
{
    struct description d = {.fd = fd};
    size_t size = (size_t)(entry->to - entry->from);
    size_t done = 0;
    uint8_t *data = memory_take(size + 1, MEMORY_STORE);
    if (data == NULL)
        return ERR_NO_MEMORY;
    enum err err = file_read(copy, 0, data, size, &done);
    if (entry->archive != NULL)
        put(&d, "{\"archive\":\"%s\"", entry->archive);
    else
        put(&d, "{\"segment\":\"%08" PRIx32 "\"", entry->segment);
    put(&d,
        ",\"from\":%" PRIu64 ",\"to\":%" PRIu64 ",\"bytes\":%" PRIu64
        ",\"unreadable_bytes\":%" PRIu64 ",\n \"what\":\"%s\",\n",
        entry->from, entry->to, entry->to - entry->from, unreadable, entry->what);
    put(&d, " \"records_lost\":%" PRIu64 ",\"counted\":%s,\"unknown\":%" PRIu64 ",\n \"gone\":[",
        entry->lost, entry->counted ? "true" : "false",
        entry->lost > known_numbers(entry) ? entry->lost - known_numbers(entry) : 0);
    if (err == OK)
        err = put_known(&d, entry);
    put(&d, "],\n \"claimed\":[");
    put_claims(&d, bytes_of(data, done));
    put(&d, "],\n \"copy\":\"%s.bytes\"}\n", stem);
    memory_give(data, MEMORY_STORE);
    if (err == OK)
        err = d.err;
    return err == OK ? file_sync(fd) : err;
}

enum err quarantine_put(const char *directory, int fd, const struct quarantine_entry *entry)
{
    char stem[STEM_BYTES];
    char copy_path[PATH_BYTES];
    char text_path[PATH_BYTES];
    int copy;
    int text;
    uint64_t unreadable = 0;
    char segment[9];
    snprintf(segment, sizeof segment, "%08" PRIx32, entry->segment);
    snprintf(stem, sizeof stem, "%s-%" PRIu64 "-%" PRIu64 "-%" PRIu64,
             entry->archive != NULL ? entry->archive : segment, entry->from, entry->to,
             entry->now_ms);
    if (strlen(directory) >= STORE_PATH_BYTES - 16)
        return ERR_TOO_BIG;
    snprintf(copy_path, sizeof copy_path, "%s/%s.bytes", directory, stem);
    snprintf(text_path, sizeof text_path, "%s/%s.json", directory, stem);
    TRY(file_open(&copy, copy_path, FILE_WRITE | FILE_CREATE | FILE_EXCLUSIVE | FILE_PRIVATE));
    enum err err = copy_range(fd, copy, entry->from, entry->to, &unreadable);
    if (err == OK)
        err = file_sync(copy);
    if (err == OK)
        err = file_open(&text, text_path, FILE_WRITE | FILE_CREATE | FILE_EXCLUSIVE | FILE_PRIVATE);
    if (err == OK) {
        err = describe(text, copy, entry, stem, unreadable);
        file_close(text);
    }
    file_close(copy);
    return err == OK ? file_sync_directory(directory) : err;
}
