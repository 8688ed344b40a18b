/* secrets.c: the file DIRECTORY/secrets, mode 0600, 124 bytes, integers little-endian:
 *
 *   0 "roostsec" 8 | 8 version 1, 4 | 12 TLS ticket secret 32 | 44 token signing secret 32
 *   76 placement key 16 | 92 store epoch (UUID, version 4) 16 | 108 made, ms since 1970 8
 *   116 zero 4 | 120 CRC32C of bytes 0 … 119, 4
 *
 * It is written to "secrets.new", synced, and renamed, so that a crash leaves either no file or a
 * whole one; the lock on "secrets.new" keeps a second process from making another at that time. */
#include "gateway/chat/secrets.h"

#include "core/file.h"

#include <openssl/mem.h>
#include <stdio.h>

#define SECRETS_VERSION 1u
#define SECRETS_BYTES   124u
#define CRC_AT          120u
#define PATH_BYTES      4096 /* PATH_MAX of Linux */

static const char magic[8] = {'r', 'o', 'o', 's', 't', 's', 'e', 'c'};

struct place {
    char path[PATH_BYTES];
    char path_new[PATH_BYTES];
    const char *directory;
    char *explanation;
    size_t explanation_size;
};

static enum err explain(const struct place *place, enum err err, const char *text)
{
    snprintf(place->explanation, place->explanation_size, "%s: %s", place->path, text);
    return err;
}

static void encode(uint8_t out[SECRETS_BYTES], const struct secrets *secrets)
{
    memset(out, 0, SECRETS_BYTES);
    memcpy(out, magic, sizeof magic);
    store_u32(out + 8, SECRETS_VERSION);
    memcpy(out + 12, secrets->ticket, 32);
    memcpy(out + 44, secrets->signing, 32);
    store_u64(out + 76, secrets->placement.k0);
    store_u64(out + 84, secrets->placement.k1);
    memcpy(out + 92, secrets->store_epoch, 16);
    store_u64(out + 108, secrets->created_ms);
    store_u32(out + CRC_AT, crc32c(0, bytes_of(out, CRC_AT)));
}

static enum err decode(struct secrets *out, struct bytes file)
{
    if (file.size < 12 || memcmp(file.data, magic, sizeof magic) != 0)
        return ERR_CORRUPT;
    if (load_u32(file.data + 8) > SECRETS_VERSION)
        return ERR_NEWER;
    if (file.size != SECRETS_BYTES || load_u32(file.data + 8) != SECRETS_VERSION ||
        load_u32(file.data + CRC_AT) != crc32c(0, bytes_of(file.data, CRC_AT)))
        return ERR_CORRUPT;
    memcpy(out->ticket, file.data + 12, 32);
    memcpy(out->signing, file.data + 44, 32);
    out->placement.k0 = load_u64(file.data + 76);
    out->placement.k1 = load_u64(file.data + 84);
    memcpy(out->store_epoch, file.data + 92, 16);
    out->created_ms = load_u64(file.data + 108);
    return OK;
}

/* read_secrets: ERR_NOT_FOUND: there is no such file. */
static enum err read_secrets(struct secrets *out, const struct place *place)
{
    int fd;
    bool private = false;
    size_t size = 0;
    uint8_t data[SECRETS_BYTES + 1]; /* one more, to see a file that is too long */
    enum err err = file_open(&fd, place->path, FILE_READ);
    if (err == ERR_NOT_FOUND)
        return err;
    if (err != OK)
        return explain(place, err, "cannot be opened: check its owner and rights");
    err = file_is_private(fd, &private);
    if (err == OK)
        err = file_read(fd, 0, data, sizeof data, &size);
    file_close(fd);
    if (err != OK)
        return explain(place, err, "cannot be read");
    if (!private)
        return explain(place, ERR_DENIED,
                       "others can read or write this file of keys: chmod 600 it (and consider "
                       "the keys known)");
    err = decode(out, bytes_of(data, size));
    OPENSSL_cleanse(data, sizeof data);
    if (err == ERR_NEWER)
        return explain(place, err, "written by a newer version: run that one");
    if (err == ERR_CORRUPT)
        return explain(place, err,
                       "is damaged: restore it from a backup (without it users, tokens and the "
                       "store do not fit together)");
    return OK;
}

static void make(struct secrets *out, void (*entropy)(void *context, void *out, size_t size),
                 void *context, uint64_t now_ms)
{
    entropy(context, out->ticket, sizeof out->ticket);
    entropy(context, out->signing, sizeof out->signing);
    entropy(context, &out->placement, sizeof out->placement);
    entropy(context, out->store_epoch, sizeof out->store_epoch);
    out->store_epoch[6] = (uint8_t)((out->store_epoch[6] & 0x0f) | 0x40); /* RFC 9562 5.4 */
    out->store_epoch[8] = (uint8_t)((out->store_epoch[8] & 0x3f) | 0x80);
    out->created_ms = now_ms;
}

/* write_new: into the locked file, then into place. */
static enum err write_new(int fd, const struct place *place, const struct secrets *secrets)
{
    uint8_t data[SECRETS_BYTES];
    encode(data, secrets);
    enum err err = file_truncate(fd, 0);
    if (err == OK)
        err = file_write(fd, 0, bytes_of(data, sizeof data));
    OPENSSL_cleanse(data, sizeof data);
    TRY(err);
    TRY(file_sync(fd));
    TRY(file_rename(place->path_new, place->path));
    return file_sync_directory(place->directory);
}

static enum err make_file(struct secrets *secrets, const struct place *place)
{
    int fd;
    int made;
    enum err err = file_open(&fd, place->path_new, FILE_WRITE | FILE_CREATE | FILE_PRIVATE);
    if (err != OK)
        return explain(place, err, "cannot be made: check the directory's rights");
    err = file_lock(fd);
    if (err != OK) {
        file_close(fd);
        return explain(place, err, "another process is making it: run one at a time");
    }
    bool private = false;
    err = file_is_private(fd, &private);
    if (err != OK || !private) {
        file_close(fd);
        return explain(place, err != OK ? err : ERR_DENIED,
                       "secrets.new is left here and others can read it: remove that file");
    }
    /* Somebody may have made it between our look and our lock. */
    err = file_open(&made, place->path, FILE_READ);
    if (err == OK) {
        file_close(made);
        file_close(fd);
        return explain(place, ERR_BUSY, "another process has just made it: start again");
    }
    if (err == ERR_NOT_FOUND)
        err = write_new(fd, place, secrets);
    file_close(fd);
    return err == OK ? OK : explain(place, err, "cannot be written: check disk and rights");
}

enum err secrets_load(struct secrets *secrets, const char *directory,
                      void (*entropy)(void *context, void *out, size_t size), void *context,
                      uint64_t now_ms, char *explanation, size_t explanation_size)
{
    struct place place = {
        .directory = directory, .explanation = explanation, .explanation_size = explanation_size};
    int size = snprintf(place.path, sizeof place.path, "%s/secrets", directory);
    int size_new = snprintf(place.path_new, sizeof place.path_new, "%s/secrets.new", directory);
    if (size < 0 || size_new < 0 || (size_t)size_new >= sizeof place.path_new)
        return explain(&place, ERR_INVALID, "the path is too long");
    enum err err = read_secrets(secrets, &place);
    if (err != ERR_NOT_FOUND)
        return err;
    make(secrets, entropy, context, now_ms);
    return make_file(secrets, &place);
}
