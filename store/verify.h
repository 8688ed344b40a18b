/* verify.h: the inside of log_verify: verify.c walks segments, verify_archive.c archives.
 * Flow:       log_verify → here → finding, line by line */
#ifndef STORE_VERIFY_H
#define STORE_VERIFY_H

#include "store/archive.h"

struct verify {
    const char *directory;
    void (*finding)(void *context, const char *line);
    void *context;
    uint32_t *ids;
    uint32_t count;
    uint32_t capacity;
    struct archive_header *archives; /* names only: first, last, generation */
    uint32_t archive_count;
    uint32_t archive_capacity;
    uint64_t mark; /* below it nothing may be wrong */
    uint64_t base; /* records before the next batch */
    uint64_t end;  /* of the newest valid batch */
    uint64_t records;
    bool have_base;
    bool damage;
};

void verify_report(struct verify *v, bool damage, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* verify_archive: every byte of one archive. ERR_NEWER, ERR_NO_MEMORY. */
MUST_USE enum err verify_archive(struct verify *v, const struct archive_header *name);

#endif
