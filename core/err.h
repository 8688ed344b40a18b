/* err.h: the kinds of operating failure, and the macros that go with them.
 * Flow:       made where the failure is seen; errno dies in core/io_uring.c and core/file.c
 * Invariants: OK is 0; a MUST_USE result is never dropped
 * Failure:    CHECK is for bugs only: prints place and expression, traps; on in release builds */
#ifndef CORE_ERR_H
#define CORE_ERR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MUST_USE __attribute__((warn_unused_result))

enum err {
    OK = 0,
    ERR_AGAIN,   /* not complete yet: more input, or a later turn */
    ERR_FULL,    /* a bounded thing is full; the policy stands at the call site */
    ERR_INVALID, /* malformed input from a peer, a disk or a person */
    ERR_TOO_BIG, /* well formed, but over a configured limit */
    ERR_NOT_FOUND,
    ERR_EXISTS,
    ERR_DENIED, /* credentials or rights */
    ERR_EXPIRED,
    ERR_CONFLICT, /* the same id with another content; a lost race */
    ERR_CLOSED,   /* the peer closed in order */
    ERR_RESET,    /* the peer or the network broke the connection */
    ERR_TIMEOUT,
    ERR_CANCELLED,
    ERR_BUSY,     /* shed: try again later */
    ERR_IO,       /* a device failed */
    ERR_NO_SPACE, /* disk full */
    ERR_NO_MEMORY,
    ERR_NO_DESCRIPTORS,
    ERR_ADDRESS,     /* address or port in use or not available */
    ERR_CORRUPT,     /* a checksum or a structure on disk is wrong */
    ERR_NEWER,       /* written by a newer version */
    ERR_UNSUPPORTED, /* this kernel or this build cannot */
    ERR_COUNT
};

/* err_name: the constant's name in lower case without its prefix, "full". Never NULL. */
const char *err_name(enum err err);

/* TRY: hand a failure to the caller. Only in functions that own nothing at that point. */
#define TRY(x)                                                                                     \
    do {                                                                                           \
        enum err try_err_ = (x);                                                                   \
        if (__builtin_expect(try_err_ != OK, 0))                                                   \
            return try_err_;                                                                       \
    } while (0)

void check_failed(const char *file, int line, const char *expression)
    __attribute__((noreturn, cold));

/* CHECK: true unless the program is wrong. No side effects in the condition. */
#define CHECK(x) (__builtin_expect(!!(x), 1) ? (void)0 : check_failed(__FILE__, __LINE__, #x))

/* MARK: the simulator must reach this rare branch in its seeds; counts there, costs nothing
 * elsewhere. Every mark that is linked leaves a pointer in the section roost_marks, so that the
 * simulator knows those, too, that were never reached. */
#ifdef ROOST_MARKS
struct mark {
    const char *file;
    int line;
    const char *name;
};
void mark_reached(const char *file, int line, const char *name);
#define MARK(text)                                                                                 \
    do {                                                                                           \
        static const struct mark mark_here_ = {__FILE__, __LINE__, text};                          \
        static const struct mark *const mark_entry_                                                \
            __attribute__((section("roost_marks"), used)) = &mark_here_;                           \
        mark_reached(__FILE__, __LINE__, text);                                                    \
    } while (0)
#else
#define MARK(text) ((void)0)
#endif

#define COUNT_OF(a)                   (sizeof(a) / sizeof((a)[0]))
#define CONTAINER_OF(p, type, member) ((type *)(void *)((char *)(p)-offsetof(type, member)))
#define NS_PER_MS                     1000000ull
#define NS_PER_S                      1000000000ull

#endif
