/* tap.h: stands between the store and core/file.h in the lab's own processes: it says what is being
 * done, leaves out what a control wants left out, and has the wall clock.
 * Flow:       store/ → here (ld --wrap, TAPPED in the Makefile) → the real ones; marks → the
 *             control file
 * Owns:       one state per process: what it stands in for has no context
 * Invariants: a mark for a phase is written before the first call of it, one for its end after the
 *             last one's return; a clock is promised before it is set */
#ifndef TESTS_CRASH_TAP_H
#define TESTS_CRASH_TAP_H

#include "tests/crash/phase.h"

/* tap_start: marks go to that file (the writer); -1: nowhere (a check). */
void tap_start(int control, enum skip skip);
/* tap_promise: the mark's text up to the phases; written at once. */
void tap_promise(const char *text);
/* tap_owed: what a control owes at the moment (tap.c). */
uint32_t tap_owed(void);
/* tap_repair: from now on it is `log repair` that works. */
void tap_repair(void);
void tap_clock_set(uint64_t wall_ms);

#endif
