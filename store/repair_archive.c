/* repair_archive.c: a damaged archive is written anew, one generation higher, in two passes:
 *
 *   look    every block: which stretches are damaged, what the sound directory and state blocks
 *           promise: each says it for the other
 *   rewrite the sound records in their order; where the directory or the numbers around it say that
 *           some are missing, a range that is gone, reason damaged (archive.c)
 *
 * Then each damaged stretch, with the numbers missed behind it, goes into quarantine, and only then
 * the new file gets its name and the old one goes. Directory, table, prints, summary and footer are
 * all made anew: where only these are damaged nothing is lost. A lost state block leaves incomplete
 * states (archive.c). */
#include "store/repair.h"

#include "core/file.h"
#include "core/hash.h"
#include "core/memory.h"
#include "store/archive_state.h"
#include "store/archive_walk.h"
#include "store/archive_write.h"

#include <inttypes.h>
#include <stdio.h>

/* promise: what a directory block and a state say of a conversation. */
struct promise {
    struct conversation_id conversation;
    uint64_t first_seq; /* 0: no records */
    uint64_t last_seq;
    bool stated;
    uint32_t state_at; /* its state, encoded, in `states` */
};

struct stretch {
    uint64_t from;
    uint64_t to;
    const char *what;
    uint32_t lost_at; /* of what is missed behind it, in `lost` */
};

struct list {
    void *items;
    uint32_t count;
    uint32_t capacity;
};

struct salvage {
    const struct repair_target *target;
    struct archive *archive;
    struct archive_writer *writer;
    struct list promises; /* struct promise, ascending */
    struct list stretches;
    struct list states; /* bytes */
    struct list lost;   /* struct lost_record */
    uint64_t conversations;
    bool compressed;
    bool disordered; /* sound checksums, but no order: not ours to mend */

    uint32_t promise_at;           /* the next one not reached */
    bool open;                     /* a conversation is */
    const struct promise *promise; /* of it, or NULL */
    struct conversation_id conversation;
    uint64_t seq;      /* taken or missed, 0: not known */
    uint64_t last_seq; /* promised, 0: nothing is */
    uint64_t missed;   /* numbers */
};

static enum err push(struct list *list, const void *item, size_t size)
{
    TRY(memory_grow(&list->items, &list->capacity, list->count + 1, size, MEMORY_STORE));
    memcpy((uint8_t *)list->items + list->count++ * size, item, size);
    return OK;
}

/* ---- look */

/* add_stretch: neighbours are one. */
static enum err add_stretch(struct salvage *s, uint64_t from, uint64_t to, const char *what)
{
    struct stretch *stretches = s->stretches.items;
    if (s->stretches.count > 0 && stretches[s->stretches.count - 1].to == from) {
        stretches[s->stretches.count - 1].to = to;
        return OK;
    }
    const struct stretch stretch = {.from = from, .to = to, .what = what};
    return push(&s->stretches, &stretch, sizeof stretch);
}

/* promised: by the block before. NULL: it is new. */
static struct promise *promised(struct salvage *s, struct conversation_id conversation)
{
    struct promise *promises = s->promises.items;
    for (uint32_t i = s->promises.count;
         i-- > 0 && conversation_order(promises[i].conversation, conversation) >= 0;)
        if (conversation_id_equal(promises[i].conversation, conversation))
            return &promises[i];
    return NULL;
}

static enum err add_promise(struct salvage *s, const struct promise *promise)
{
    const struct promise *last = s->promises.items;
    if (s->promises.count > 0 &&
        conversation_order(last[s->promises.count - 1].conversation, promise->conversation) >= 0)
        s->disordered = true;
    return push(&s->promises, promise, sizeof *promise);
}

/* look_states: what stands behind a directory block that was read, or instead of it. */
static enum err look_states(struct salvage *s, const struct walk_item *item)
{
    struct bytes content = item->content;
    struct archive_state state;
    enum err err;
    const uint8_t *from = content.data;
    while ((err = archive_state_next(&state, &content)) == OK) {
        const struct promise promise = {state.conversation, state.first_seq, state.last_seq, true,
                                        s->states.count};
        struct promise *known = promised(s, state.conversation);
        uint32_t size = (uint32_t)archive_state_bytes(&state);
        if (known == NULL)
            TRY(add_promise(s, &promise));
        else
            *known = promise;
        TRY(memory_grow(&s->states.items, &s->states.capacity, s->states.count + size, 1,
                        MEMORY_STORE));
        memcpy((uint8_t *)s->states.items + s->states.count, from, size);
        s->states.count += size;
        from = content.data;
    }
    if (err == ERR_NOT_FOUND)
        return OK;
    return add_stretch(s, item->from, item->to, "a state block makes no sense");
}

static enum err look_directory(struct salvage *s, const struct walk_item *item)
{
    if (item->block.stored != item->block.count * ARCHIVE_ENTRY_BYTES)
        return add_stretch(s, item->from, item->to, "a directory block makes no sense");
    for (uint32_t i = 0; i < item->block.count; i++) {
        struct archive_entry entry;
        archive_entry_decode(&entry, item->content.data + (size_t)i * ARCHIVE_ENTRY_BYTES);
        const struct promise promise = {.conversation = entry.conversation,
                                        .first_seq = entry.first_seq,
                                        .last_seq = entry.last_seq};
        TRY(add_promise(s, &promise));
    }
    return OK;
}

/* look_data: a block whose records cannot be taken apart is damaged as one whose checksum fails. */
static enum err look_data(struct salvage *s, struct archive_walk *walk,
                          const struct walk_item *item, bool *sound)
{
    struct bytes records;
    struct bytes encoded;
    struct log_record record;
    struct conversation_id last = {0, 0};
    enum err err = archive_walk_records(walk, item, &records);
    while (err == OK &&
           (err = archive_record_next(&record, &encoded, &records, &s->archive->key)) == OK) {
        s->conversations += !conversation_id_equal(last, record.conversation);
        last = record.conversation;
    }
    s->compressed = s->compressed || item->block.codec == ARCHIVE_ZSTD;
    *sound = err == ERR_NOT_FOUND;
    return err == ERR_NO_MEMORY ? err : OK;
}

static enum err look_block(struct salvage *s, struct archive_walk *walk,
                           const struct walk_item *item)
{
    bool sound = true;
    switch (item->block.kind) {
    case ARCHIVE_DATA:
        TRY(look_data(s, walk, item, &sound));
        break;
    case ARCHIVE_DIRECTORY:
        TRY(look_directory(s, item));
        break;
    case ARCHIVE_STATES:
        TRY(look_states(s, item));
        break;
    case ARCHIVE_TABLE:
    case ARCHIVE_PRINTS:
    case ARCHIVE_SUMMARY:
        break;
    }
    if (!sound)
        return add_stretch(s, item->from, item->to, "damaged records");
    return item->dirty ? add_stretch(s, item->from, item->to, "padding is not zero") : OK;
}

/* look_header: the header's block; its checksum does not cover the zeros behind its fields. */
static enum err look_header(struct salvage *s)
{
    uint8_t found[ARCHIVE_HEADER_BYTES];
    uint8_t expected[ARCHIVE_HEADER_BYTES];
    size_t done = 0;
    enum err err = file_read(s->archive->fd, 0, found, sizeof found, &done);
    archive_header_encode(expected, &s->archive->header);
    if (err == OK && done == sizeof found && !s->archive->header_damaged &&
        memcmp(found, expected, sizeof found) == 0)
        return OK;
    return add_stretch(s, 0, ARCHIVE_HEADER_BYTES, "the header is damaged");
}

static enum err look_footer(struct salvage *s)
{
    struct archive *whole;
    uint64_t bytes = s->archive->footer.bytes;
    if (s->archive->footer_damaged)
        return add_stretch(s, bytes < ARCHIVE_FOOTER_BYTES ? 0 : bytes - ARCHIVE_FOOTER_BYTES,
                           bytes, "the footer is damaged");
    enum err err = archive_load(&whole, s->target->path);
    if (err == OK)
        archive_destroy(whole);
    if (err != ERR_CORRUPT && err != ERR_IO)
        return err;
    if (s->stretches.count == 0)
        return add_stretch(s, s->archive->footer.summary, bytes, "the summary is damaged");
    return OK;
}

static enum err look(struct salvage *s)
{
    struct archive_walk walk;
    struct walk_item item = {.kind = WALK_BLOCK};
    TRY(look_header(s));
    archive_walk_init(&walk, s->archive->fd, &s->archive->key, ARCHIVE_HEADER_BYTES,
                      s->archive->footer.bytes);
    enum err err = OK;
    while (err == OK && (err = archive_walk_next(&walk, &item)) == OK && item.kind != WALK_END)
        err = item.kind == WALK_BLOCK
                  ? look_block(s, &walk, &item)
                  : add_stretch(s, item.from, item.to,
                                item.kind == WALK_LOST ? "damaged block" : "no block's head");
    archive_walk_deinit(&walk);
    return err == OK ? look_footer(s) : err;
}

/* ---- rewrite */

static enum err miss(struct salvage *s, uint64_t from, uint64_t to)
{
    uint8_t body[GONE_BODY_BYTES];
    const struct gone_range gone = {.last = to, .reason = GONE_DAMAGED};
    const struct lost_record lost = {.conversation = s->conversation, .seq = from, .last = to};
    gone_encode(body, &gone);
    const struct log_record record = {.kind = RECORD_GONE,
                                      .conversation = s->conversation,
                                      .seq = from,
                                      .body = bytes_of(body, sizeof body)};
    s->missed += to - from + 1;
    s->seq = to;
    TRY(push(&s->lost, &lost, sizeof lost));
    return archive_writer_add(s->writer, &record);
}

static enum err keep_state(struct salvage *s)
{
    struct archive_state state = {.conversation = s->conversation, .incomplete = true};
    struct list marks = {0};
    enum err err = OK;
    if (s->promise != NULL && s->promise->stated) {
        uint32_t at = s->promise->state_at;
        struct bytes encoded =
            bytes_of((const uint8_t *)s->states.items + at, s->states.count - at);
        TRY(archive_state_next(&state, &encoded));
    }
    for (uint32_t i = 0; i < state.count && err == OK; i++) {
        struct archive_mark mark;
        archive_state_mark(&mark, &state, i);
        err = push(&marks, &mark, sizeof mark);
    }
    if (err == OK)
        err = archive_writer_state(s->writer, &state, marks.items);
    memory_give(marks.items, MEMORY_STORE);
    return err;
}

static enum err end_conversation(struct salvage *s)
{
    if (!s->open)
        return OK;
    s->open = false;
    if (s->seq < s->last_seq)
        TRY(miss(s, s->seq + 1, s->last_seq));
    return keep_state(s);
}

static void begin_conversation(struct salvage *s, struct conversation_id conversation,
                               const struct promise *promise)
{
    s->open = true;
    s->promise = promise;
    s->conversation = conversation;
    s->last_seq = promise == NULL ? 0 : promise->last_seq;
    s->seq = promise == NULL || promise->first_seq == 0 ? 0 : promise->first_seq - 1;
}

/* reach: promised conversations that come before this one are lost as a whole; all: to the end. */
static enum err reach(struct salvage *s, struct conversation_id conversation, bool all)
{
    const struct promise *promises = s->promises.items;
    TRY(end_conversation(s));
    for (; s->promise_at < s->promises.count; s->promise_at++) {
        const struct promise *promise = &promises[s->promise_at];
        int order = all ? -1 : conversation_order(promise->conversation, conversation);
        if (order > 0)
            break;
        begin_conversation(s, promise->conversation, promise);
        if (order == 0) {
            s->promise_at++;
            return OK;
        }
        TRY(end_conversation(s));
    }
    if (!all)
        begin_conversation(s, conversation, NULL);
    return OK;
}

static enum err keep(struct salvage *s, const struct log_record *record)
{
    struct gone_range gone = {.last = record->seq};
    int order = s->open ? conversation_order(s->conversation, record->conversation) : -1;
    if (order != 0)
        TRY(reach(s, record->conversation, false));
    if (record->kind == RECORD_GONE && gone_decode(&gone, record) != OK)
        return ERR_CORRUPT;
    if (order > 0 || record->seq <= s->seq || !record_has_seq(record->kind))
        return ERR_CORRUPT;
    if (record->seq > s->seq + 1 && (s->seq != 0 || s->last_seq != 0))
        TRY(miss(s, s->seq + 1, record->seq - 1));
    s->seq = gone.last;
    return archive_writer_add(s->writer, record);
}

static enum err keep_block(struct salvage *s, struct archive_walk *walk,
                           const struct walk_item *item)
{
    struct bytes records;
    struct bytes encoded;
    struct log_record record;
    if (archive_walk_records(walk, item, &records) != OK)
        return OK; /* look has told */
    enum err err;
    while ((err = archive_record_next(&record, &encoded, &records, &s->archive->key)) == OK)
        TRY(keep(s, &record));
    return OK;
}

/* pass_stretches: what is missed from here on is missed for the newest stretch before offset. */
static void pass_stretches(struct salvage *s, uint32_t *at, uint64_t offset)
{
    struct stretch *stretches = s->stretches.items;
    for (; *at < s->stretches.count && stretches[*at].from <= offset; (*at)++)
        stretches[*at].lost_at = s->lost.count;
}

static enum err rewrite(struct salvage *s)
{
    struct archive_walk walk;
    struct walk_item item = {.kind = WALK_BLOCK};
    uint32_t at = 0;
    archive_walk_init(&walk, s->archive->fd, &s->archive->key, ARCHIVE_HEADER_BYTES,
                      s->archive->footer.bytes);
    enum err err = OK;
    while (err == OK && (err = archive_walk_next(&walk, &item)) == OK && item.kind != WALK_END) {
        pass_stretches(s, &at, item.from);
        if (item.kind == WALK_BLOCK && item.block.kind == ARCHIVE_DATA)
            err = keep_block(s, &walk, &item);
    }
    archive_walk_deinit(&walk);
    if (err == OK)
        err = reach(s, s->conversation, true);
    pass_stretches(s, &at, UINT64_MAX);
    return err;
}

/* ---- putting away, and the names */

static enum err put_stretches(struct salvage *s, const char *name)
{
    const struct repair_target *target = s->target;
    const struct stretch *stretches = s->stretches.items;
    const struct lost_record *lost = s->lost.items;
    for (uint32_t i = 0; i < s->stretches.count; i++) {
        uint32_t from = i == 0 ? 0 : stretches[i].lost_at;
        uint32_t to = i + 1 < s->stretches.count ? stretches[i + 1].lost_at : s->lost.count;
        struct quarantine_entry entry = {.archive = name,
                                         .from = stretches[i].from,
                                         .to = stretches[i].to,
                                         .what = stretches[i].what,
                                         .counted = !s->disordered,
                                         .known = to > from ? &lost[from] : NULL,
                                         .known_count = to - from,
                                         .now_ms = target->now_ms};
        for (uint32_t j = from; j < to; j++)
            entry.lost += lost[j].last - lost[j].seq + 1;
        TRY(quarantine_put(target->quarantine, s->archive->fd, &entry));
        inspect_print(target->out,
                      "archive %s offset %" PRIu64 " to %" PRIu64 ": %s; %" PRIu64
                      " records lost; copied to %s",
                      name, entry.from, entry.to, entry.what, entry.lost, target->quarantine);
        target->report->lost += entry.lost;
        target->report->lost_known += entry.lost;
    }
    return OK;
}

static enum err archive_beside(const struct salvage *s, char out[STORE_PATH_BYTES],
                               const struct archive_header *header, const char *suffix)
{
    char name[ARCHIVE_NAME_BYTES];
    archive_name(name, header, suffix);
    int size = snprintf(out, STORE_PATH_BYTES, "%s/%s", s->target->directory, name);
    return size > 0 && size < STORE_PATH_BYTES ? OK : ERR_TOO_BIG;
}

static enum err give_name(struct salvage *s, const struct archive_header *header,
                          const char *working)
{
    char path[STORE_PATH_BYTES];
    uint64_t damaged = s->missed;
    if (!s->archive->footer_damaged)
        damaged += s->archive->footer.damaged;
    TRY(archive_beside(s, path, header, ".archive"));
    TRY(archive_writer_finish(s->writer, damaged, NULL));
    TRY(file_rename(working, path));
    TRY(file_sync_directory(s->target->directory));
    archive_destroy(s->archive);
    s->archive = NULL;
    TRY(file_remove(s->target->path));
    return file_sync_directory(s->target->directory);
}

static enum err write_anew(struct salvage *s, const char *name)
{
    char working[STORE_PATH_BYTES];
    const struct hash_key key = {s->archive->header.nonce, s->target->now_ms};
    struct archive_header header = s->archive->header;
    if (header.generation == UINT16_MAX)
        return ERR_FULL;
    header.generation++;
    header.nonce = hash_u64(&key, header.last);
    header.created_ms = s->target->now_ms;
    TRY(archive_beside(s, working, &header, ".archiving"));
    TRY(archive_writer_create(&s->writer, working, &header, s->conversations + s->promises.count,
                              s->compressed));
    enum err err = rewrite(s);
    if (err == OK)
        err = put_stretches(s, name);
    if (err == OK)
        err = give_name(s, &header, working);
    archive_writer_destroy(s->writer);
    if (err != OK)
        (void)!file_remove(working);
    return err;
}

static void give_up(const struct repair_target *target, const char *name, const char *why)
{
    inspect_print(target->out, "archive %s: left as it is: %s", name, why);
}

static enum err mend(struct salvage *s, const char *name)
{
    enum err err = look(s);
    struct repair_report *report = s->target->report;
    report->ranges += s->stretches.count;
    if (err != OK || s->stretches.count == 0)
        return err;
    err = s->disordered ? ERR_CORRUPT : write_anew(s, name);
    if (err == OK)
        report->repaired += s->stretches.count;
    if (err == ERR_CORRUPT)
        give_up(s->target, name, "its records are not in order: restore it from a back-up");
    else if (err == ERR_FULL)
        give_up(s->target, name, "it was rewritten 65,535 times: restore it from a back-up");
    return err == ERR_CORRUPT || err == ERR_FULL ? OK : err;
}

enum err repair_archive(const struct repair_target *target)
{
    struct salvage s = {.target = target};
    const char *slash = strrchr(target->path, '/');
    const char *name = slash == NULL ? target->path : slash + 1;
    enum err err = archive_salvage(&s.archive, target->path);
    if (err == ERR_CORRUPT) {
        target->report->ranges++;
        give_up(target, name,
                "its header and its footer are both damaged, so that nothing in it can be told "
                "from noise: restore it from a back-up");
        return OK;
    }
    if (err == OK)
        err = mend(&s, name);
    archive_destroy(s.archive);
    memory_give(s.promises.items, MEMORY_STORE);
    memory_give(s.states.items, MEMORY_STORE);
    memory_give(s.stretches.items, MEMORY_STORE);
    memory_give(s.lost.items, MEMORY_STORE);
    return err;
}
