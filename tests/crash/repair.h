/* repair.h: `log repair --quarantine` under power cuts: a log is damaged in many places, then
 * repaired, and the repair is what is recorded (repair_write); a check looks at what a cut left,
 * repairs again, and holds that to the promises of store/repair.h (repair_check).
 * Flow:       main.c → repair_check; writer.c fills a log → repair_write → store/repair.h
 * Invariants: what was served after the damage is served after every cut, before the second repair
 *             and after it; the damaged bytes are somewhere in the log or in quarantine; then the
 *             log verifies, and a further repair finds nothing
 * Format:     a mark is that of phase.h; acked: repairs that ended, 0 or 1
 * Failure:    as writer.h's */
#ifndef TESTS_CRASH_REPAIR_H
#define TESTS_CRASH_REPAIR_H

#include "tests/crash/load.h"

/* repair_write: the load's log is closed; checkpoint: where it is opened from; control: where marks
 * go. */
void repair_write(struct load *load, uint64_t checkpoint, int control);
int repair_check(void);

#endif
