/* phase.h: what a store is just doing to its files, as the marks of a recording say it.
 * Flow:       tap.c writes the line → device.h → lab.c draws and counts points by it
 * Format:     a mark of writer.c is one line (repair.h has its own):
 *               acked=N checkpoint=POSITION below=M clock=MS told=T told_below=B gone=G seen=S
 *               phases=HEX owed=O
 *             records 0 … N-1 are acknowledged, 0 … M-1 stand below the checkpoint, and so do what
 *             devices said behind records 0 … T-1 and 0 … B-1; no clock went beyond MS, the first G
 *             of the list of what was read as gone stay so (the file "gone" in CRASH_SCRATCH); bit
 *             p of HEX is phase p, several at a time; O: what a control owes (tap.c), S: the same
 *             when the newest of G went */
#ifndef TESTS_CRASH_PHASE_H
#define TESTS_CRASH_PHASE_H

#include "core/bytes.h"

/* of a lifecycle's job: its output is written and synced; named, until that is durable; what it
 * replaces goes, until that is durable too */
enum phase {
    PHASE_APPEND,      /* nothing else */
    PHASE_SEAL,        /* an index */
    PHASE_MAKE,        /* a new file of zeros */
    PHASE_WIPE,        /* zeros over a freed segment */
    PHASE_RECYCLE,     /* it gets its header and its name */
    PHASE_MERGE_WRITE, /* of segments */
    PHASE_MERGE_NAME,
    PHASE_MERGE_CLEAR,
    PHASE_HIGHER_WRITE, /* of archives */
    PHASE_HIGHER_NAME,
    PHASE_HIGHER_CLEAR,
    PHASE_REWRITE_WRITE, /* one archive anew: expiry, retention */
    PHASE_REWRITE_NAME,
    PHASE_REWRITE_CLEAR,
    PHASE_OWN_WRITE, /* a segment or archive anew: a conversation's own retention */
    PHASE_OWN_NAME,
    PHASE_OWN_CLEAR,
    PHASE_FREE_WRITE, /* whole archives: their numbers only */
    PHASE_FREE_NAME,
    PHASE_FREE_CLEAR,
    PHASE_MOVE_WRITE, /* to the cold directory */
    PHASE_MOVE_NAME,
    PHASE_MOVE_CLEAR,
    PHASE_REPAIR_COPY,  /* `log repair`, a load of its own: what is damaged goes into quarantine */
    PHASE_REPAIR_MEND,  /* a segment, in place */
    PHASE_REPAIR_WRITE, /* an archive anew */
    PHASE_REPAIR_NAME,
    PHASE_REPAIR_CLEAR,
    PHASE_COUNT
};
#define PHASE_REPAIR PHASE_REPAIR_COPY /* the first of that load */

/* phase_name: for people. */
const char *phase_name(enum phase phase);
struct mark_line {
    uint64_t acked;
    uint64_t checkpoint;
    uint64_t below;
    uint64_t clock_ms;
    uint64_t told;
    uint64_t told_below;
    uint64_t gone;
    uint32_t seen;
    uint32_t phases;
    uint32_t owed;
};

/* mark_line_parse: false: another load's; all 0. */
bool mark_line_parse(struct mark_line *mark, const char *text);

/* skip: what a negative control leaves out. */
enum skip {
    SKIP_NONE,
    SKIP_SYNC,      /* the log's own syncs */
    SKIP_FILE,      /* the sync of an archive before it gets its name */
    SKIP_DIRECTORY, /* every sync of a directory */
    SKIP_MOVE,      /* the sync of an archive that moves to the cold directory */
    SKIP_COPY,      /* in a repair: the sync of what went into quarantine */
    SKIP_COUNT
};
const char *skip_name(enum skip skip);
/* skip_says: the same for people. */
const char *skip_says(enum skip skip);
/* skip_parse: of a name; SKIP_COUNT: there is none such. */
enum skip skip_parse(const char *name);

#endif
