/* serve.h: a device as the file "disk" of a FUSE file system, its second disk as "cold", beside
 * them the file "control".
 * Flow:       the kernel → one thread here → device.h, one request after the other
 * Owns:       the thread and the mount
 * Invariants: requests are answered in the order in which the device saw them; nothing is cached by
 *             the kernel, so that a cut is seen at once by what reads next
 * Failure:    serve_start: false, with the reason on stderr */
#ifndef TESTS_CRASH_SERVE_H
#define TESTS_CRASH_SERVE_H

#include "tests/crash/device.h"

struct serve;

/* serve_start: mount at `mount`, an existing directory. */
struct serve *serve_start(struct device *device, const char *mount);
/* serve_forked: in a child process: let go of what keeps the mount answering, so that it ends with
 * the parent. */
void serve_forked(struct serve *serve);
/* serve_stop: unmount; nobody may use the files any more. */
void serve_stop(struct serve *serve);

#endif
