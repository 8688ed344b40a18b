/* host.h: what the lab asks of the kernel: a mount namespace of its own, a loop device on the
 * served file, file systems, child processes.
 * Flow:       hands.c → here → system calls, mkfs
 * Owns:       nothing beyond what each call says; mounts and the loop device end with the
 *             namespace and the last descriptor, however the lab ends
 * Failure:    false, with a line on stderr */
#ifndef TESTS_CRASH_HOST_H
#define TESTS_CRASH_HOST_H

#include "core/bytes.h"

#define HOST_PATH_BYTES 512

/* host_missing: what this host lacks to run the lab ("root", …), NULL if nothing. */
const char *host_missing(void);
/* host_private: mounts from now on are seen by this process and its children only. */
bool host_private(void);
bool host_directory(const char *path);
/* host_loop: attach a free loop device to a part of a file; path gets its name. -1: none. It is
 * detached when the last of its descriptors and mounts is gone. */
int host_loop(const char *file, uint64_t offset, uint64_t bytes, char path[HOST_PATH_BYTES]);
/* host_loop_forget: the kernel forgets what it has cached of the device. false: within a second
 * some of it was still in use. */
bool host_loop_forget(int loop);
/* host_mkfs, host_mount: filesystem is "ext4" or "xfs". */
bool host_mkfs(const char *filesystem, const char *disk);
bool host_mount(const char *filesystem, const char *disk, const char *directory);
bool host_unmount(const char *directory);
/* host_run: start argv, wait; its exit status, -1 if it did not exit by itself. output: a file its
 * output goes to, NULL: ours. It is killed if we end, and after two minutes. */
int host_run(char *const argv[], const char *output);

#endif
