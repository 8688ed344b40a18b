/* jwks_file.c: file → bytes → jwks_create. */
#include "gateway/api/jwks_file.h"

#include "core/file.h"
#include "core/memory.h"

#include <stdio.h>

#define JWKS_FILE_BYTES_MAX (1u << 20)

static enum err load(uint8_t **data, size_t *size, const char *path)
{
    int fd;
    uint64_t bytes = 0;
    TRY(file_open(&fd, path, FILE_READ));
    enum err err = file_size(fd, &bytes);
    if (err == OK && bytes > JWKS_FILE_BYTES_MAX)
        err = ERR_TOO_BIG;
    if (err == OK && (*data = memory_take((size_t)bytes + 1, MEMORY_API)) == NULL)
        err = ERR_NO_MEMORY;
    if (err == OK)
        err = file_read(fd, 0, *data, (size_t)bytes, size);
    file_close(fd);
    return err;
}

enum err jwks_file_load(struct jwks **jwks, const struct config *config, char *explanation,
                        size_t explanation_size)
{
    uint8_t *data = NULL;
    size_t size = 0;
    struct jwks *made;
    const char *reason = "";
    if (config->jwks[0] == '\0') {
        *jwks = NULL;
        return OK;
    }
    enum err err = load(&data, &size, config->jwks);
    if (err != OK) {
        snprintf(explanation, explanation_size,
                 "%s: cannot be read (%s): check [auth] jwks, the file's rights and its size",
                 config->jwks, err_name(err));
    } else {
        err = jwks_create(&made, bytes_of(data, size), config->issuer, config->audience, &reason);
        if (err == OK)
            *jwks = made;
        else
            snprintf(explanation, explanation_size, "%s: %s: mend the file", config->jwks, reason);
    }
    memory_give(data, MEMORY_API);
    return err;
}
