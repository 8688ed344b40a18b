/* err.c: the failures' names, and what a bug does: one line on standard error, then a trap, so that
 * a core file shows the place. */
#include "core/err.h"

#include <stdio.h>
#include <unistd.h>

static const char *const err_names[ERR_COUNT] = {
    [OK] = "ok",
    [ERR_AGAIN] = "again",
    [ERR_FULL] = "full",
    [ERR_INVALID] = "invalid",
    [ERR_TOO_BIG] = "too_big",
    [ERR_NOT_FOUND] = "not_found",
    [ERR_EXISTS] = "exists",
    [ERR_DENIED] = "denied",
    [ERR_EXPIRED] = "expired",
    [ERR_CONFLICT] = "conflict",
    [ERR_CLOSED] = "closed",
    [ERR_RESET] = "reset",
    [ERR_TIMEOUT] = "timeout",
    [ERR_CANCELLED] = "cancelled",
    [ERR_BUSY] = "busy",
    [ERR_IO] = "io",
    [ERR_NO_SPACE] = "no_space",
    [ERR_NO_MEMORY] = "no_memory",
    [ERR_NO_DESCRIPTORS] = "no_descriptors",
    [ERR_ADDRESS] = "address",
    [ERR_CORRUPT] = "corrupt",
    [ERR_NEWER] = "newer",
    [ERR_UNSUPPORTED] = "unsupported",
};

const char *err_name(enum err err)
{
    uint32_t index = (uint32_t)err;
    return index < ERR_COUNT && err_names[index] != NULL ? err_names[index] : "unknown";
}

void check_failed(const char *file, int line, const char *expression)
{
    char text[512];
    int size = snprintf(text, sizeof text, "bug: %s:%d: CHECK(%s)\n", file, line, expression);
    size_t count = size < 0 ? 0 : (size_t)size < sizeof text ? (size_t)size : sizeof text - 1;
    ssize_t ignored = write(STDERR_FILENO, text, count); /* nothing to do if it fails */
    (void)ignored;
    __builtin_trap();
}

#ifdef ROOST_MARKS
/* mark_reached: does nothing; weak, so that the simulator's own, which counts, takes its place. */
__attribute__((weak)) void mark_reached(const char *file, int line, const char *name)
{
    (void)file;
    (void)line;
    (void)name;
}
#endif
