/* look.c: see look.h. */
#include "store/look.h"

#include "core/file.h"
#include "core/memory.h"

#define PARTS 256u /* by the first byte of the id */
#define HITS  8u   /* records of a segment that are looked at: behind settings in force */

struct look {
    const struct retention *retention;
    const char *directory;
    struct merge_input input;
    bool ask; /* no file is looked into */
    uint64_t now_ms;
    struct look_result result;
    void *session;
    uint32_t part; /* listed next */
    struct conversation_id *list;
    uint32_t count;
    uint32_t capacity;
    uint32_t at;
    bool opened;
    struct archive *archive;
    struct archive_walk walk;
    uint64_t page_offset; /* of the directory block in page; 0: none */
    int fd;               /* of a segment */
    struct segment_key key;
    struct sidecar *sidecar;
    uint8_t page[SIDECAR_READ_BYTES];
    struct buffer record;
};

enum err look_create(struct look **out, const char *directory, const struct merge_input *input,
                     const struct retention *retention, uint64_t now_ms)
{
    struct look *look = memory_take_zeroed(sizeof *look, MEMORY_STORE);
    if (look == NULL)
        return ERR_NO_MEMORY;
    look->retention = retention;
    look->directory = directory;
    look->ask = input == NULL;
    if (input != NULL)
        look->input = *input;
    look->now_ms = now_ms;
    look->fd = -1;
    *out = look;
    return OK;
}

void look_destroy(struct look *look)
{
    if (look == NULL)
        return;
    if (look->archive != NULL)
        archive_walk_deinit(&look->walk);
    archive_destroy(look->archive);
    if (look->fd >= 0)
        file_close(look->fd);
    sidecar_destroy(look->sidecar);
    memory_give(look->record.data, MEMORY_STORE);
    memory_give(look->list, MEMORY_STORE);
    memory_give(look, MEMORY_STORE);
}

const struct look_result *look_result(const struct look *look)
{
    return &look->result;
}

/* ---- who has a rule */

static enum err add(void *context, struct conversation_id conversation)
{
    struct look *look = context;
    if (look->count == look->capacity) {
        uint32_t capacity = look->capacity == 0 ? 64 : look->capacity * 2;
        void *grown = memory_resize(look->list, capacity * sizeof *look->list, MEMORY_STORE);
        if (grown == NULL)
            return ERR_NO_MEMORY;
        look->list = grown;
        look->capacity = capacity;
    }
    look->list[look->count++] = conversation;
    look->result.any = true;
    return OK;
}

/* ---- what the file has of it */

static enum err open_segment(struct look *look)
{
    char path[STORE_PATH_BYTES];
    struct scan scan;
    TRY(store_path(path, look->directory, look->input.id, ".segment"));
    enum err err = file_open(&look->fd, path, FILE_READ);
    if (err != OK) {
        look->fd = -1;
        return err;
    }
    err = scan_open(&scan, look->fd);
    if (err == OK) {
        look->key = scan.key;
        err = sidecar_load(&look->sidecar, look->directory, &scan.header);
    }
    scan_close(&scan);
    return err;
}

static enum err open_file(struct look *look)
{
    look->opened = true;
    if (!look->input.archived)
        return open_segment(look);
    TRY(archive_load(&look->archive, look->input.path));
    archive_walk_init(&look->walk, look->archive->fd, &look->archive->key, ARCHIVE_HEADER_BYTES,
                      look->archive->footer.bytes);
    return OK;
}

/* judge: *told: the record says whether anything of its conversation is due here. */
static void judge(struct look *look, const struct retention_rule *rule,
                  const struct log_record *record, bool *told)
{
    bool gone = record->kind == RECORD_GONE || record->kind == RECORD_LOST;
    bool in_force = record->kind == RECORD_RETENTION && record->seq >= rule->setting_seq;
    struct log_record lasting = *record;
    lasting.expires_ms = 0; /* what has expired may wait for longer than those behind it */
    *told = record_has_seq(record->kind) && !gone && !in_force;
    if (*told)
        look->result.due =
            retention_due(look->retention, rule, &lasting, look->now_ms, false) == RETENTION_DUE;
}

/* entry_of: the archive's entry for the conversation. ERR_NOT_FOUND. */
static enum err entry_of(struct look *look, struct conversation_id conversation,
                         struct archive_entry *entry)
{
    size_t done;
    if (!archive_may_hold(look->archive, conversation))
        return ERR_NOT_FOUND;
    uint64_t offset = archive_directory_at(look->archive, conversation);
    if (offset == 0)
        return ERR_NOT_FOUND;
    if (offset != look->page_offset) {
        look->page_offset = 0;
        TRY(file_read(look->archive->fd, offset, look->page, ARCHIVE_PAGE_BYTES, &done));
        memset(look->page + done, 0, ARCHIVE_PAGE_BYTES - done);
        look->page_offset = offset;
        look->result.bytes_read += done;
    }
    return archive_directory_find(look->archive, bytes_of(look->page, ARCHIVE_PAGE_BYTES), offset,
                                  conversation, entry);
}

/* in_block: the conversation's records in a data block, until one tells. */
static enum err in_block(struct look *look, const struct retention_rule *rule,
                         struct conversation_id conversation, struct bytes records, bool *told)
{
    struct log_record record;
    struct bytes encoded;
    enum err err = OK;
    while (!*told &&
           (err = archive_record_next(&record, &encoded, &records, &look->archive->key)) == OK)
        if (conversation_id_equal(record.conversation, conversation))
            judge(look, rule, &record, told);
    return *told || err == ERR_NOT_FOUND ? OK : err;
}

static enum err in_archive(struct look *look, const struct retention_rule *rule,
                           struct conversation_id conversation, const struct archive_entry *entry)
{
    bool told = false;
    uint64_t before = look->walk.bytes_read;
    look->walk.offset = entry->offset;
    for (uint32_t i = 0; i < entry->blocks && !told; i++) {
        struct walk_item item;
        struct bytes records;
        TRY(archive_walk_next(&look->walk, &item));
        if (item.kind != WALK_BLOCK || item.block.kind != ARCHIVE_DATA)
            break; /* damage: scrubbing tells it */
        TRY(archive_walk_records(&look->walk, &item, &records));
        TRY(in_block(look, rule, conversation, records, &told));
    }
    look->result.bytes_read += look->walk.bytes_read - before;
    return OK;
}

/* read_hit: the record that a segment's index names. */
static enum err read_hit(struct look *look, const struct index_hit *hit, struct log_record *record)
{
    size_t done;
    size_t taken;
    if (hit->size > look->record.capacity) {
        uint8_t *grown = memory_resize(look->record.data, hit->size, MEMORY_STORE);
        if (grown == NULL)
            return ERR_NO_MEMORY;
        look->record.data = grown;
        look->record.capacity = hit->size;
    }
    TRY(file_read(look->fd, hit->offset, look->record.data, hit->size, &done));
    look->result.bytes_read += done;
    return record_decode(record, bytes_of(look->record.data, done), &look->key, hit->offset,
                         &taken);
}

static enum err in_segment(struct look *look, const struct retention_rule *rule,
                           struct conversation_id conversation)
{
    struct index_hit hits[HITS];
    uint32_t count = 0;
    uint64_t offset;
    size_t size;
    size_t done;
    bool before;
    bool told = false;
    sidecar_range_where(look->sidecar, conversation, 1, &offset, &size);
    if (size == 0)
        return OK;
    TRY(file_read(look->sidecar->fd, offset, look->page, size, &done));
    look->result.bytes_read += done;
    TRY(sidecar_range(look->sidecar, bytes_of(look->page, done), offset, conversation, 1, hits,
                      HITS, &count, &before));
    for (uint32_t i = 0; i < count && !told; i++) {
        struct log_record record;
        enum err err = read_hit(look, &hits[i], &record);
        if (err == ERR_CORRUPT)
            continue; /* the merge says so */
        TRY(err);
        judge(look, rule, &record, &told);
    }
    return OK;
}

static enum err look_at(struct look *look, struct conversation_id conversation)
{
    struct archive_entry entry;
    struct retention_rule rule;
    if (!look->opened)
        TRY(open_file(look));
    if (look->input.archived) {
        enum err err = entry_of(look, conversation, &entry);
        if (err == ERR_NOT_FOUND || (err == OK && entry.records == 0))
            return OK;
        TRY(err);
    } else if (!sidecar_may_hold(look->sidecar, conversation)) {
        return OK;
    }
    TRY(look->retention->look(look->session, conversation, &rule));
    return look->input.archived ? in_archive(look, &rule, conversation, &entry)
                                : in_segment(look, &rule, conversation);
}

/* ---- the whole */

static enum err step(struct look *look)
{
    if (look->at < look->count)
        return look_at(look, look->list[look->at++]);
    look->at = look->count = 0;
    return look->retention->own(look->session, (uint8_t)look->part++, add, look);
}

static bool through(const struct look *look)
{
    bool known = look->result.due || (look->ask && look->result.any);
    return known || (look->part == PARTS && look->at == look->count);
}

enum err look_step(struct look *look, uint64_t budget)
{
    uint64_t before = look->result.bytes_read;
    TRY(look->retention->begin(look->retention->context, &look->session));
    enum err err = OK;
    while (err == OK && !through(look) && look->result.bytes_read - before < budget)
        err = step(look);
    look->retention->end(look->session);
    if (!look->input.archived && look->opened &&
        (err == ERR_CORRUPT || err == ERR_NOT_FOUND || err == ERR_NEWER)) {
        look->result.due = true;
        return OK;
    }
    return err == OK && !through(look) ? ERR_AGAIN : err;
}
