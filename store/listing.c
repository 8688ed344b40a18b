/* listing.c: which files of a directory, and of the cold one, are the log. The names decide:
 *
 * - ".making", ".spare", ".indexing", ".archiving" are leftovers: removed.
 * - What stands in the range of an archive is replaced by it: removed. Of archives with the same
 *   range the highest generation counts; of the same one in both directories, the cold one.
 *
 * An archive is given its name after its bytes were synced, and what it replaces goes after its
 * name was: whatever instant a crash takes, either the old files or the new one are whole. An
 * archive that cannot be read all the same replaces nothing while its segments are there. */
#include "store/log_private.h"

#include "core/file.h"
#include "core/logging.h"
#include "core/memory.h"

#include <stdio.h>
#include <stdlib.h>

struct listed {
    uint32_t first;
    uint32_t last;
    uint32_t generation;
    bool archived;
    bool cold;
    bool gone;
    bool lost;
    struct archive_header header; /* archived and readable */
    struct archive_footer footer;
};

struct listing {
    struct log *log;
    const char *directory;
    bool cold;
    struct listed *list;
    uint32_t count;
    uint32_t capacity;
};

static enum err listed_path(const struct log *log, const struct listed *listed,
                            char out[STORE_PATH_BYTES])
{
    const struct lane_segment like = {.id = listed->last,
                                      .first_id = listed->first,
                                      .generation = listed->generation,
                                      .archived = true,
                                      .cold = listed->cold};
    return listed->archived ? lane_archive_path(log, &like, out)
                            : store_path(out, log->directory, listed->last, ".segment");
}

static enum err add(struct listing *listing, const struct listed *listed)
{
    TRY(memory_grow(&listing->list, &listing->capacity, listing->count + 1, sizeof *listed,
                    MEMORY_STORE));
    listing->list[listing->count++] = *listed;
    return OK;
}

static enum err remove_name(const char *directory, const char *name)
{
    char path[STORE_PATH_BYTES];
    int size = snprintf(path, sizeof path, "%s/%s", directory, name);
    if (size < 0 || size >= STORE_PATH_BYTES)
        return ERR_TOO_BIG;
    return file_remove(path);
}

static enum err list_entry(void *context, const char *name)
{
    struct listing *listing = context;
    struct archive_header header;
    uint32_t id;
    if (segment_name_parse(&id, name, ".making") == OK ||
        segment_name_parse(&id, name, ".spare") == OK ||
        segment_name_parse(&id, name, ".indexing") == OK ||
        archive_name_parse(&header, name, ".archiving") == OK)
        return remove_name(listing->directory, name);
    if (archive_name_parse(&header, name, ".archive") == OK) {
        const struct listed listed = {.first = header.first,
                                      .last = header.last,
                                      .generation = header.generation,
                                      .archived = true,
                                      .cold = listing->cold};
        return add(listing, &listed);
    }
    if (listing->cold || segment_name_parse(&id, name, ".segment") != OK)
        return OK;
    return add(listing, &(const struct listed){.first = id, .last = id});
}

static int listed_compare(const void *a, const void *b)
{
    const struct listed *x = a;
    const struct listed *y = b;
    if (x->last != y->last)
        return x->last < y->last ? -1 : 1;
    if (x->first != y->first)
        return x->first < y->first ? -1 : 1;
    if (x->archived != y->archived)
        return x->archived ? 1 : -1;
    if (x->generation != y->generation)
        return x->generation < y->generation ? -1 : 1;
    return (int)x->cold - (int)y->cold;
}

/* look: what the archive's header and footer say; unreadable: lost. */
static enum err look(const struct log *log, struct listed *listed)
{
    char path[STORE_PATH_BYTES];
    struct archive *archive;
    TRY(listed_path(log, listed, path));
    enum err err = archive_load(&archive, path);
    if (err == OK) {
        listed->header = archive->header;
        listed->footer = archive->footer;
        if (archive->header.lane != log->options.lane || archive->header.first != listed->first ||
            archive->header.last != listed->last)
            err = ERR_CORRUPT;
        if (err == OK && archive->header_damaged)
            log_event(LOG_WARN, "log_archive_header_damaged", LOG_TEXT("file", path),
                      LOG_TEXT("advice", "it is served; stop and run: roost log repair"), LOG_END);
        archive_destroy(archive);
    }
    if (err != ERR_CORRUPT)
        return err;
    listed->lost = true;
    log_event(LOG_ERROR, "log_archive_damaged", LOG_TEXT("file", path),
              LOG_TEXT("advice", "restore this file from a back-up, or run: roost log verify"),
              LOG_END);
    return OK;
}

static bool replaces(const struct listed *by, const struct listed *what)
{
    return by != what && !by->gone && by->archived && by->first <= what->first &&
           what->last <= by->last && listed_compare(by, what) != 0 &&
           (by->first != what->first || by->last != what->last || listed_compare(by, what) > 0);
}

/* settle: what each readable archive replaces is gone; then what each damaged one does, if it is
 * not itself replaced by what it was made of. */
static void settle(struct listing *listing)
{
    for (uint32_t pass = 0; pass < 2; pass++)
        for (uint32_t i = 0; i < listing->count; i++) {
            struct listed *by = &listing->list[i];
            if (by->lost != (pass == 1) || by->gone)
                continue;
            for (uint32_t j = 0; j < listing->count && !by->gone; j++) {
                struct listed *what = &listing->list[j];
                if (what->gone || !replaces(by, what))
                    continue;
                if (by->lost && !what->lost)
                    by->gone = true; /* its inputs are still there and count */
                else
                    what->gone = true;
            }
        }
}

static enum err remove_gone(struct listing *listing)
{
    struct log *log = listing->log;
    for (uint32_t i = 0; i < listing->count; i++) {
        const struct listed *listed = &listing->list[i];
        char path[STORE_PATH_BYTES];
        if (!listed->gone)
            continue;
        TRY(listed_path(log, listed, path));
        TRY(file_remove(path));
        if (listed->archived)
            continue;
        TRY(store_path(path, log->directory, listed->last, ".index"));
        enum err err = file_remove(path);
        if (err != OK && err != ERR_NOT_FOUND)
            return err;
    }
    return OK;
}

static enum err make_entries(struct listing *listing)
{
    struct log *log = listing->log;
    for (uint32_t i = 0; i < listing->count; i++) {
        const struct listed *listed = &listing->list[i];
        if (listed->last >= log->id_next)
            log->id_next = listed->last + 1;
        if (listed->gone)
            continue;
        struct lane_segment *segment = lane_segment_add(log, listed->last);
        if (segment == NULL)
            return ERR_NO_MEMORY;
        segment->state = listed->lost ? SEGMENT_LOST : SEGMENT_SEALED;
        if (!listed->archived)
            continue;
        segment->archived = true;
        segment->cold = listed->cold;
        segment->first_id = listed->first;
        segment->generation = listed->generation;
        segment->data_end = listed->header.data_end;
        segment->level = listed->lost ? 1 : listed->header.level;
        segment->footer = listed->footer;
        segment->expires_min_ms = listed->footer.expires_min_ms;
        segment->expiry_known = true;
    }
    return OK;
}

static enum err list_both(struct listing *listing)
{
    struct log *log = listing->log;
    listing->directory = log->directory;
    TRY(file_list(log->directory, list_entry, listing));
    if (log->options.cold_directory == NULL)
        return OK;
    listing->directory = log->options.cold_directory;
    listing->cold = true;
    enum err err = file_list(log->options.cold_directory, list_entry, listing);
    if (err != OK)
        log_event(LOG_ERROR, "cold_directory_unreadable",
                  LOG_TEXT("directory", log->options.cold_directory), LOG_ERR(err),
                  LOG_TEXT("advice", "mount it, make it, or correct store.cold_directory"),
                  LOG_END);
    return err;
}

/* look_for_missing: a log begins with segment 1. */
static void look_for_missing(const struct log *log)
{
    uint32_t first = log->segment_count == 0 ? 0 : log->segments[0]->first_id;
    if (first > 1)
        log_event(LOG_ERROR, "log_files_missing", LOG_TEXT("directory", log->directory),
                  LOG_U64("first_found", first),
                  LOG_TEXT("advice", "set store.cold_directory if older archives are there, or "
                                     "restore the files from a back-up"),
                  LOG_END);
}

enum err lane_list(struct log *log)
{
    struct listing listing = {.log = log};
    enum err err = list_both(&listing);
    if (err == OK && listing.count > 0)
        qsort(listing.list, listing.count, sizeof *listing.list, listed_compare);
    for (uint32_t i = 0; i < listing.count && err == OK; i++)
        if (listing.list[i].archived)
            err = look(log, &listing.list[i]);
    if (err == OK) {
        settle(&listing);
        err = remove_gone(&listing);
    }
    if (err == OK)
        err = make_entries(&listing);
    if (err == OK)
        look_for_missing(log);
    memory_give(listing.list, MEMORY_STORE);
    return err;
}
