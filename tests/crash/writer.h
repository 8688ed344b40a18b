/* writer.h: a log under load that says what it acknowledged, and the check that it is still there.
 * Flow:       lab.c starts us as a process of its own, inside the mounted file system
 * Invariants: a mark is written after log_completed gave the records it counts, never before;
 *             record n can be made again from n alone
 * Failure:    exit statuses */
#ifndef TESTS_CRASH_WRITER_H
#define TESTS_CRASH_WRITER_H

#define CHECK_KEPT 0
#define CHECK_BAD  1 /* does not open, serves what was not written, reports damage */
#define CHECK_LOST 3 /* something acknowledged is not there */

/* writer_write: append for a while; several lives, O_DIRECT and not. Takes CRASH_MOUNT,
 * CRASH_CONTROL and CRASH_RECORDS from the environment; CRASH_SKIP_SYNC=1 is the control. */
int writer_write(void);
/* writer_check: open, compare with CRASH_MARK, read, append, close, verify. CRASH_SEED odd: from
 * the mark's checkpoint. */
int writer_check(void);

#endif
