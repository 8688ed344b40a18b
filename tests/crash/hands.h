/* hands.h: the process that mounts and runs for the lab.
 * Flow:       lab.c → one order at a time → here → host.h
 * Owns:       the child process, in it the loop devices, the mounts and what it starts
 * Invariants: whoever answers the disk's requests (the lab) never waits for them, not even while it
 *             dies: else both would wait for ever. When either process ends, however, the kernel
 *             clears all of it away
 * Failure:    a status other than 0 */
#ifndef TESTS_CRASH_HANDS_H
#define TESTS_CRASH_HANDS_H

#include "tests/crash/host.h"
#include "tests/crash/serve.h"

#include <sys/types.h>

struct hands_disk {
    const char *filesystem;
    char file[HOST_PATH_BYTES]; /* as it is served */
    char mounted[HOST_PATH_BYTES];
    /* private */
    int loops[2]; /* in the child; the second one directly on the memory */
    char loop_paths[2][HOST_PATH_BYTES];
};

struct hands {
    struct hands_disk disks[DEVICE_DISKS];
    uint32_t count;
    /* private */
    pid_t pid;
    int orders;
    int answers;
};

/* hands_start: the child, with a loop device on each served disk. */
bool hands_start(struct hands *hands, struct serve *serve, const struct device *device);
void hands_stop(struct hands *hands);
/* hands_mkfs, hands_mount, hands_unmount: all or, but for unmounting, none. */
bool hands_mkfs(struct hands *hands);
/* direct: past the served file: what is written is not remembered. */
bool hands_mount(struct hands *hands, bool direct);
bool hands_unmount(struct hands *hands);
/* hands_run: argv as in host_run; variables: "NAME=value", NULL at the end, added to the
 * environment. */
int hands_run(struct hands *hands, char *const argv[], const char *const variables[],
              const char *output);

#endif
