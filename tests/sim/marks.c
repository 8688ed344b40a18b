/* marks.c: counts MARKs (core/err.h) by file and line, over all seeds of one process. The linked
 * marks are the pointers in the section roost_marks; a mark in an inline function of a header
 * appears once per file that uses it. Its counters are file-scope variables because MARK has no
 * context to hang them on. Several processes count together after marks_share: the table is
 * complete then, and its counters lie in memory that they share. */
#include "tests/sim/marks.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define MARKS_MAX 1024

struct count {
    const char *file;
    int line;
    const char *name;
    _Atomic uint64_t count;
};

static struct count own_counts[MARKS_MAX];
static struct count *counts = own_counts;
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
    struct count *count = &counts[counts_used++];
    count->file = file;
    count->line = line;
    count->name = name;
    return count;
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

void marks_share(void)
{
    CHECK(counts == own_counts);
    find_all();
    counts =
        mmap(NULL, sizeof own_counts, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(counts != MAP_FAILED);
    memcpy(counts, own_counts, sizeof own_counts);
}

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
        printf("%10" PRIu64 "  %s  %s:%d\n", (uint64_t)counts[i].count, counts[i].name,
               counts[i].file, counts[i].line);
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
