/* floor.c: see floor.h. */
#include "store/floor.h"

#include "core/file.h"
#include "core/hash.h"
#include "store/sidecar.h"

#include <stdio.h>

#define FLOOR_BYTES   32
#define FLOOR_VERSION 1

static const uint8_t floor_magic[8] = {'R', 'O', 'O', 'S', 'T', 'F', 'L', 'R'};

static enum err floor_path(char out[STORE_PATH_BYTES], const char *directory, const char *name)
{
    int size = snprintf(out, STORE_PATH_BYTES, "%s/%s", directory, name);
    return size > 0 && size < STORE_PATH_BYTES ? OK : ERR_TOO_BIG;
}

enum err floor_read(const char *directory, uint32_t *floor)
{
    char path[STORE_PATH_BYTES];
    uint8_t in[FLOOR_BYTES];
    size_t done = 0;
    int fd;
    *floor = 0;
    TRY(floor_path(path, directory, "floor"));
    enum err err = file_open(&fd, path, FILE_READ);
    if (err == ERR_NOT_FOUND)
        return OK;
    TRY(err);
    err = file_read(fd, 0, in, sizeof in, &done);
    file_close(fd);
    TRY(err);
    if (done != sizeof in || memcmp(in, floor_magic, sizeof floor_magic) != 0 ||
        load_u32(in + 28) != crc32c(0, bytes_of(in, 28)))
        return ERR_CORRUPT;
    if (load_u16(in + 8) > FLOOR_VERSION)
        return ERR_NEWER;
    *floor = load_u32(in + 12);
    return OK;
}

static enum err write_synced(const char *path, struct bytes data)
{
    int fd;
    TRY(file_open(&fd, path, FILE_WRITE | FILE_CREATE));
    enum err err = file_write(fd, 0, data);
    if (err == OK)
        err = file_sync(fd);
    file_close(fd);
    return err;
}

enum err floor_write(const char *directory, uint32_t floor)
{
    char working[STORE_PATH_BYTES];
    char path[STORE_PATH_BYTES];
    uint8_t out[FLOOR_BYTES] = {0};
    TRY(floor_path(working, directory, "floor.new"));
    TRY(floor_path(path, directory, "floor"));
    memcpy(out, floor_magic, sizeof floor_magic);
    store_u16(out + 8, FLOOR_VERSION);
    store_u32(out + 12, floor);
    store_u32(out + 28, crc32c(0, bytes_of(out, 28)));
    TRY(write_synced(working, bytes_of(out, sizeof out)));
    TRY(file_rename(working, path));
    return file_sync_directory(directory);
}
