/* hands.h: the process that mounts and runs for the lab.
 * Flow:       lab.c → one order at a time → here → host.h
 * Owns:       the child process, in it the loop device, the mounts and what it starts
 * Invariants: whoever answers the disk's requests (the lab) never waits for them, not even while it
 *             dies: else both would wait for ever. When either process ends, however, the kernel
 *             clears all of it away
 * Failure:    a status other than 0 */
#ifndef TESTS_CRASH_HANDS_H
#define TESTS_CRASH_HANDS_H

#include "tests/crash/host.h"
#include "tests/crash/serve.h"

#include <sys/types.h>

struct hands {
    const char *filesystem;
    const char *file; /* the served disk */
    const char *mounted;
    /* private */
    pid_t pid;
    int orders;
    int answers;
    int loop; /* in the child */
    char loop_path[HOST_PATH_BYTES];
};

/* hands_start: the child, with a loop device on the served disk. */
bool hands_start(struct hands *hands, struct serve *serve);
void hands_stop(struct hands *hands);
bool hands_mkfs(struct hands *hands);
bool hands_mount(struct hands *hands);
bool hands_unmount(struct hands *hands);
/* hands_run: argv as in host_run; variables: "NAME=value", NULL at the end, added to the
 * environment. */
int hands_run(struct hands *hands, char *const argv[], const char *const variables[],
              const char *output);

#endif
