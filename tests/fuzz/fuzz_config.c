/* fuzz_config.c: any file either loads within bounds and survives printing and loading again, or
 * is refused with an explanation that begins with its name. */
#include "gateway/config.h"

#include "core/file.h"

#include <stdio.h>
#include <sys/mman.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_round_trip(const struct config *config, const char *path, int fd)
{
    static uint8_t text[CONFIG_FILE_BYTES];
    struct buffer out = buffer_of(text, sizeof text);
    struct config again;
    char explanation[256];
    enum err err = config_format(&out, config);
    CHECK(err == OK);
    err = file_truncate(fd, 0);
    CHECK(err == OK);
    err = file_write(fd, 0, buffer_bytes(&out));
    CHECK(err == OK);
    err = config_load(&again, path, explanation, sizeof explanation);
    CHECK(err == OK);
    CHECK(memcmp(config, &again, sizeof again) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int fd = -1; /* a file in memory, kept over all runs */
    static char path[64];
    struct config config;
    char explanation[256] = "";
    if (fd < 0) {
        fd = memfd_create("roost.ini", 0);
        CHECK(fd >= 0);
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    }
    enum err err = file_truncate(fd, 0);
    CHECK(err == OK);
    err = file_write(fd, 0, bytes_of(data, size));
    CHECK(err == OK);
    err = config_load(&config, path, explanation, sizeof explanation);
    if (err == OK)
        check_round_trip(&config, path, fd);
    else
        CHECK(strncmp(explanation, path, strlen(path)) == 0);
    return 0;
}
