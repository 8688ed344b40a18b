/* phase.c: see phase.h. */
#include "tests/crash/phase.h"

#include <inttypes.h>
#include <stdio.h>

const char *phase_name(enum phase phase)
{
    static const char *const names[PHASE_COUNT] = {
        [PHASE_APPEND] = "appending only",
        [PHASE_SEAL] = "sealing",
        [PHASE_MAKE] = "new segment",
        [PHASE_WIPE] = "wiping a spare",
        [PHASE_RECYCLE] = "recycling it",
        [PHASE_MERGE_WRITE] = "merge of segments: writing",
        [PHASE_MERGE_NAME] = "merge of segments: naming",
        [PHASE_MERGE_CLEAR] = "merge of segments: clearing",
        [PHASE_HIGHER_WRITE] = "merge of archives: writing",
        [PHASE_HIGHER_NAME] = "merge of archives: naming",
        [PHASE_HIGHER_CLEAR] = "merge of archives: clearing",
        [PHASE_REWRITE_WRITE] = "expiry, retention: writing",
        [PHASE_REWRITE_NAME] = "expiry, retention: naming",
        [PHASE_REWRITE_CLEAR] = "expiry, retention: clearing",
        [PHASE_OWN_WRITE] = "own retention: writing",
        [PHASE_OWN_NAME] = "own retention: naming",
        [PHASE_OWN_CLEAR] = "own retention: clearing",
        [PHASE_FREE_WRITE] = "freeing archives: writing",
        [PHASE_FREE_NAME] = "freeing archives: naming",
        [PHASE_FREE_CLEAR] = "freeing archives: clearing",
        [PHASE_MOVE_WRITE] = "to the cold tier: writing",
        [PHASE_MOVE_NAME] = "to the cold tier: naming",
        [PHASE_MOVE_CLEAR] = "to the cold tier: clearing",
        [PHASE_REPAIR_COPY] = "repair: into quarantine",
        [PHASE_REPAIR_MEND] = "repair: segment in place",
        [PHASE_REPAIR_WRITE] = "repair of archives: writing",
        [PHASE_REPAIR_NAME] = "repair of archives: naming",
        [PHASE_REPAIR_CLEAR] = "repair of archives: clearing",
    };
    return names[phase];
}

bool mark_line_parse(struct mark_line *mark, const char *text)
{
    *mark = (struct mark_line){0};
    int fields = sscanf(text,
                        "acked=%" SCNu64 " checkpoint=%" SCNu64 " below=%" SCNu64 " clock=%" SCNu64
                        " told=%" SCNu64 " told_below=%" SCNu64 " gone=%" SCNu64
                        " seen=%u phases=%x owed=%u",
                        &mark->acked, &mark->checkpoint, &mark->below, &mark->clock_ms, &mark->told,
                        &mark->told_below, &mark->gone, &mark->seen, &mark->phases, &mark->owed);
    if (fields != 10)
        *mark = (struct mark_line){0};
    return fields == 10;
}

const char *skip_name(enum skip skip)
{
    static const char *const names[SKIP_COUNT] = {
        [SKIP_NONE] = "none",           [SKIP_SYNC] = "sync", [SKIP_FILE] = "file",
        [SKIP_DIRECTORY] = "directory", [SKIP_MOVE] = "move", [SKIP_COPY] = "copy"};
    return names[skip];
}

const char *skip_says(enum skip skip)
{
    static const char *const texts[SKIP_COUNT] = {[SKIP_NONE] = "anything",
                                                  [SKIP_SYNC] = "syncs",
                                                  [SKIP_FILE] = "the sync of archives",
                                                  [SKIP_DIRECTORY] = "syncs of directories",
                                                  [SKIP_MOVE] = "the sync of what moves",
                                                  [SKIP_COPY] = "the sync of what is put away"};
    return texts[skip];
}

enum skip skip_parse(const char *name)
{
    enum skip skip = SKIP_NONE;
    while (skip < SKIP_COUNT && strcmp(skip_name(skip), name) != 0)
        skip++;
    return skip;
}
