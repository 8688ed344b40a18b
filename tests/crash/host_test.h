/* host_test.h: that a loop device forgets what is cached of it, or says that it does not: a block
 * from before a cut, served after it, would look like a loss.
 * Flow:       check_crash → crash self → here → host.c
 * Failure:    traps */
#ifndef TESTS_CRASH_HOST_TEST_H
#define TESTS_CRASH_HOST_TEST_H

/* host_test: 0. Only where host_missing says that nothing is. */
int host_test(void);

#endif
