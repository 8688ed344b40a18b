/* verify.h: the inside of log_verify: verify.c walks segments, verify_archive.c archives.
 * Flow:       log_verify → walk.h → here → finding, line by line */
#ifndef STORE_VERIFY_H
#define STORE_VERIFY_H

#include "store/walk.h"

struct verify {
    const struct walk *walk;
    void (*finding)(void *context, const char *line);
    void *context;
    uint64_t base; /* records before the next batch */
    uint64_t end;  /* of the newest valid batch */
    uint64_t records;
    bool have_base;
    bool damage;
};

void verify_report(struct verify *v, bool damage, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* verify_archive: every byte of one archive. ERR_NEWER, ERR_NO_MEMORY. */
MUST_USE enum err verify_archive(struct verify *v, const struct walk_archive *archive);

#endif
