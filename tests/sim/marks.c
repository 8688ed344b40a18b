/* marks.c: counts MARKs (core/err.h) by file and line, over all seeds of one process. The linked
 * marks are the pointers in the section roost_marks; a mark in an inline function of a header
 * appears once per file that uses it. Its counters are file-scope variables because MARK has no
 * context to hang them on. */
#include "tests/sim/marks.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MARKS_MAX 1024

struct count {
    const char *file;
    int line;
    const char *name;
    uint64_t count;
};

static struct count counts[MARKS_MAX];
static size_t counts_used;

#ifdef ROOST_MARKS
/* Made by the linker where the section exists; weak: there may be no mark at all. */
extern const struct mark *const __start_roost_marks[] __attribute__((weak));
extern const struct mark *const __stop_roost_marks[] __attribute__((weak));

static struct count *count_of(const char *file, int line, const char *name)
{
    for (size_t i = 0; i < counts_used; i++)
        if (counts[i].line == line && strcmp(counts[i].file, file) == 0)
            return &counts[i];
    CHECK(counts_used < MARKS_MAX);
    counts[counts_used] = (struct count){file, line, name, 0};
    return &counts[counts_used++];
}

void mark_reached(const char *file, int line, const char *name)
{
    count_of(file, line, name)->count++;
}

static void find_all(void)
{
    for (const struct mark *const *at = __start_roost_marks; at != __stop_roost_marks; at++)
        (void)count_of((*at)->file, (*at)->line, (*at)->name);
}
#else
static void find_all(void)
{
}
#endif

size_t marks_report(void)
{
    static const char own[] = "tests/sim/"; /* the self-test's */
    size_t marks = 0;
    size_t never = 0;
    find_all();
    for (size_t i = 0; i < counts_used; i++) {
        if (strncmp(counts[i].file, own, strlen(own)) == 0)
            continue;
        marks++;
        printf("%10" PRIu64 "  %s  %s:%d\n", counts[i].count, counts[i].name, counts[i].file,
               counts[i].line);
        never += counts[i].count == 0;
    }
    printf("%zu marks, %zu never reached\n", marks, never);
    return never;
}

uint64_t marks_count(const char *name)
{
    uint64_t count = 0;
    for (size_t i = 0; i < counts_used; i++)
        if (strcmp(counts[i].name, name) == 0)
            count += counts[i].count;
    return count;
}
