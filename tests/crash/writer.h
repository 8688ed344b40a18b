/* writer.h: a log under load that says what it acknowledged (writer.c), and the check that it is
 * still there (check.c).
 * Flow:       lab.c starts us as processes of their own, inside the mounted file system
 * Invariants: a mark is written after log_completed gave the records it counts, never before;
 *             record n can be made again from n alone
 * Failure:    exit statuses */
#ifndef TESTS_CRASH_WRITER_H
#define TESTS_CRASH_WRITER_H

#define CHECK_KEPT 0
#define CHECK_BAD  1 /* does not open, serves what was not written, reports damage … */
#define CHECK_LOST 3 /* something acknowledged is not there */

/* writer_write: append for a while; several lives, O_DIRECT and not, while segments are sealed,
 * merged, recycled, moved and purged. Takes CRASH_MOUNT, CRASH_SCRATCH, CRASH_CONTROL and
 * CRASH_RECORDS from the environment; CRASH_SKIP names what a control leaves out (phase.h). */
int writer_write(void);
/* writer_repair: fill a log, then repair.h. */
int writer_repair(void);
/* writer_check: open twice, compare with CRASH_MARK, go on, verify. CRASH_SEED draws how;
 * CRASH_AGAIN=1: a check has gone on with this disk before. */
int writer_check(void);

#endif
