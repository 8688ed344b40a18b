/* device_test.h: the lab's disk against its own promises (device.h); one that loses what was
 * flushed, or tears what it must not, would find its own bugs in the store.
 * Flow:       check_crash → crash self → here → device.c
 * Failure:    traps */
#ifndef TESTS_CRASH_DEVICE_TEST_H
#define TESTS_CRASH_DEVICE_TEST_H

/* device_test: 0. */
int device_test(void);

#endif
