/* background_read.c: see background_read.h. */
#include "store/background_read.h"

#include "core/file.h"
#include "core/logging.h"
#include "core/memory.h"
#include "store/archive_walk.h"
#include "store/scan.h"

#include <stdio.h>

#define COPY_BYTES (256u << 10)

/* ---- moving */

enum move_phase { MOVE_OPEN, MOVE_COPY, MOVE_CHECK };

struct move {
    char from[STORE_PATH_BYTES];
    char working[STORE_PATH_BYTES];
    char to[STORE_PATH_BYTES];
    char directory[STORE_PATH_BYTES];
    enum move_phase phase;
    bool begun; /* the working file exists */
    int in;
    int out;
    uint64_t size;
    uint64_t offset;
    uint8_t *data;
    struct archive *archive; /* CHECK: the copy */
    struct archive_walk walk;
};

enum err move_create(struct move **out, const char *from, const char *directory,
                     const struct archive_header *name)
{
    char text[ARCHIVE_NAME_BYTES];
    struct move *move = memory_take_zeroed(sizeof *move, MEMORY_STORE);
    if (move == NULL)
        return ERR_NO_MEMORY;
    move->in = move->out = -1;
    int size = snprintf(move->from, sizeof move->from, "%s", from);
    archive_name(text, name, ".archiving");
    int working = snprintf(move->working, sizeof move->working, "%s/%s", directory, text);
    archive_name(text, name, ".archive");
    int to = snprintf(move->to, sizeof move->to, "%s/%s", directory, text);
    int parent = snprintf(move->directory, sizeof move->directory, "%s", directory);
    bool fits = size < STORE_PATH_BYTES && working < STORE_PATH_BYTES && to < STORE_PATH_BYTES &&
                parent < STORE_PATH_BYTES;
    move->data = memory_take(COPY_BYTES, MEMORY_STORE);
    if (!fits || move->data == NULL) {
        move_destroy(move);
        return fits ? ERR_NO_MEMORY : ERR_TOO_BIG;
    }
    *out = move;
    return OK;
}

static enum err open_both(struct move *move)
{
    enum err err = file_open(&move->in, move->from, FILE_READ);
    if (err != OK) {
        move->in = -1;
        return err;
    }
    TRY(file_size(move->in, &move->size));
    err = file_open(&move->out, move->working, FILE_WRITE | FILE_CREATE);
    if (err != OK) {
        move->out = -1;
        return err;
    }
    move->begun = true;
    TRY(file_truncate(move->out, 0));
    move->phase = MOVE_COPY;
    return OK;
}

static enum err copy_some(struct move *move, uint64_t *moved)
{
    size_t done = 0;
    uint64_t left = move->size - move->offset;
    size_t part = left < COPY_BYTES ? (size_t)left : COPY_BYTES;
    TRY(file_read(move->in, move->offset, move->data, part, &done));
    if (done != part)
        return ERR_CORRUPT;
    TRY(file_write(move->out, move->offset, bytes_of(move->data, part)));
    move->offset += part;
    *moved += 2 * part;
    if (move->offset < move->size)
        return OK;
    TRY(file_sync(move->out));
    TRY(archive_load(&move->archive, move->working));
    archive_walk_init(&move->walk, move->archive->fd, &move->archive->key, ARCHIVE_HEADER_BYTES,
                      move->size);
    move->phase = MOVE_CHECK;
    return OK;
}

/* check_some: the next block of the copy. ERR_NOT_FOUND: all are sound. */
static enum err check_some(struct move *move, uint64_t *moved)
{
    struct walk_item item;
    uint64_t before = move->walk.bytes_read;
    TRY(archive_walk_next(&move->walk, &item));
    *moved += move->walk.bytes_read - before;
    if (item.kind == WALK_END)
        return ERR_NOT_FOUND;
    return item.kind == WALK_BLOCK ? OK : ERR_CORRUPT;
}

static enum err give_name(struct move *move)
{
    archive_walk_deinit(&move->walk);
    archive_destroy(move->archive);
    move->archive = NULL;
    file_close(move->out);
    move->out = -1;
    TRY(file_rename(move->working, move->to));
    move->begun = false;
    return file_sync_directory(move->directory);
}

enum err move_step(struct move *move, uint64_t budget, uint64_t *moved, char to[STORE_PATH_BYTES])
{
    enum err err = OK;
    *moved = 0;
    while (err == OK && *moved < budget) {
        if (move->phase == MOVE_OPEN)
            err = open_both(move);
        else if (move->phase == MOVE_COPY)
            err = copy_some(move, moved);
        else
            err = check_some(move, moved);
    }
    if (err == OK)
        return ERR_AGAIN;
    if (err != ERR_NOT_FOUND || move->phase != MOVE_CHECK)
        return err;
    memcpy(to, move->to, sizeof move->to);
    return give_name(move);
}

void move_destroy(struct move *move)
{
    if (move == NULL)
        return;
    if (move->archive != NULL)
        archive_walk_deinit(&move->walk);
    archive_destroy(move->archive);
    if (move->in >= 0)
        file_close(move->in);
    if (move->out >= 0)
        file_close(move->out);
    if (move->begun)
        (void)!file_remove(move->working);
    memory_give(move->data, MEMORY_STORE);
    memory_give(move, MEMORY_STORE);
}

/* ---- scrubbing */

struct scrub {
    char path[STORE_PATH_BYTES];
    bool archived;
    bool opened;
    int fd; /* a segment's */
    struct scan scan;
    struct archive *archive;
    struct archive_walk walk;
};

enum err scrub_create(struct scrub **out, const char *path, bool archived)
{
    struct scrub *scrub = memory_take_zeroed(sizeof *scrub, MEMORY_STORE);
    if (scrub == NULL)
        return ERR_NO_MEMORY;
    scrub->archived = archived;
    scrub->fd = -1;
    size_t size = strlen(path);
    CHECK(size < sizeof scrub->path);
    memcpy(scrub->path, path, size + 1);
    *out = scrub;
    return OK;
}

static void say_damaged(const struct scrub *scrub, uint64_t from, uint64_t to, enum err err)
{
    log_event(LOG_ERROR, "scrub_found_damage", LOG_TEXT("file", scrub->path), LOG_U64("from", from),
              LOG_U64("to", to), LOG_ERR(err),
              LOG_TEXT("advice", "restore this file from a back-up, or run: roost log verify"),
              LOG_END);
}

static enum err scrub_open(struct scrub *scrub, uint64_t *damaged)
{
    scrub->opened = true;
    if (scrub->archived) {
        TRY(archive_load(&scrub->archive, scrub->path));
        if (scrub->archive->header_damaged) {
            *damaged += 1;
            say_damaged(scrub, 0, ARCHIVE_HEADER_BYTES, ERR_CORRUPT);
        }
        archive_walk_init(&scrub->walk, scrub->archive->fd, &scrub->archive->key,
                          ARCHIVE_HEADER_BYTES, scrub->archive->footer.bytes);
        return OK;
    }
    enum err err = file_open(&scrub->fd, scrub->path, FILE_READ);
    if (err != OK) {
        scrub->fd = -1;
        return err;
    }
    return scan_open(&scrub->scan, scrub->fd);
}

/* scrub_item: the next block or batch. ERR_NOT_FOUND: through. */
static enum err scrub_item(struct scrub *scrub, uint64_t *read, uint64_t *damaged)
{
    struct walk_item block;
    struct scan_item batch;
    if (scrub->archived) {
        TRY(archive_walk_next(&scrub->walk, &block));
        *read += block.to - block.from;
        if (block.kind == WALK_END)
            return ERR_NOT_FOUND;
        if (block.kind == WALK_BLOCK)
            return OK;
        *damaged += 1;
        say_damaged(scrub, block.from, block.to, scrub->walk.unreadable ? ERR_IO : ERR_CORRUPT);
        return OK;
    }
    TRY(scan_next(&scrub->scan, &batch));
    *read += batch.to - batch.from;
    bool sound = batch.kind == SCAN_BATCH ? batch_sound(&scrub->scan.key, &batch) && !batch.dirty
                                          : batch.kind == SCAN_END && !batch.dirty;
    if (!sound || batch.unreadable) {
        *damaged += 1;
        say_damaged(scrub, batch.from, batch.to, batch.unreadable ? ERR_IO : ERR_CORRUPT);
    }
    return batch.kind == SCAN_END ? ERR_NOT_FOUND : OK;
}

enum err scrub_step(struct scrub *scrub, uint64_t budget, uint64_t *read, uint64_t *damaged)
{
    enum err err = OK;
    *read = *damaged = 0;
    if (!scrub->opened) {
        err = scrub_open(scrub, damaged);
        if (err == ERR_CORRUPT || err == ERR_IO || err == ERR_NOT_FOUND) {
            *damaged += 1;
            say_damaged(scrub, 0, 0, err);
            return OK;
        }
    }
    while (err == OK && *read < budget)
        err = scrub_item(scrub, read, damaged);
    if (err == OK)
        return ERR_AGAIN;
    return err == ERR_NOT_FOUND ? OK : err;
}

void scrub_destroy(struct scrub *scrub)
{
    if (scrub == NULL)
        return;
    if (scrub->archive != NULL)
        archive_walk_deinit(&scrub->walk);
    archive_destroy(scrub->archive);
    scan_close(&scrub->scan);
    if (scrub->fd >= 0)
        file_close(scrub->fd);
    memory_give(scrub, MEMORY_STORE);
}
