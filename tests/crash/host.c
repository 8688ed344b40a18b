/* host.c: see host.h. */
#include "tests/crash/host.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LOOP_TRIES  20
#define RUN_SECONDS 120
#define BUSY_TRIES  500 /* of 10 ms */
#define CACHE_TRIES 100 /* of 10 ms */

static bool fails(const char *what, const char *path)
{
    fprintf(stderr, "%s %s: %s\n", what, path, strerror(errno));
    return false;
}

const char *host_missing(void)
{
    if (geteuid() != 0)
        return "root";
    if (access("/dev/fuse", R_OK | W_OK) != 0)
        return "/dev/fuse";
    if (access("/dev/loop-control", R_OK | W_OK) != 0)
        return "/dev/loop-control";
    if (access("/sbin/mkfs.ext4", X_OK) != 0 || access("/sbin/mkfs.xfs", X_OK) != 0)
        return "mkfs.ext4 and mkfs.xfs";
    return NULL;
}

bool host_private(void)
{
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return fails("mount namespace", "");
    return true;
}

bool host_directory(const char *path)
{
    return mkdir(path, 0755) == 0 || errno == EEXIST || fails("mkdir", path);
}

static int loop_attach(int file, uint64_t offset, uint64_t bytes, char path[HOST_PATH_BYTES])
{
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    int number = control < 0 ? -1 : ioctl(control, LOOP_CTL_GET_FREE);
    if (control >= 0)
        close(control);
    if (number < 0)
        return -1;
    snprintf(path, HOST_PATH_BYTES, "/dev/loop%d", number);
    int loop = open(path, O_RDWR | O_CLOEXEC);
    if (loop < 0)
        return -1;
    struct loop_config config = {
        .fd = (uint32_t)file,
        .block_size = 512,
        .info = {.lo_flags = LO_FLAGS_AUTOCLEAR, .lo_offset = offset, .lo_sizelimit = bytes}};
    if (ioctl(loop, LOOP_CONFIGURE, &config) == 0)
        return loop;
    close(loop);
    return -1;
}

int host_loop(const char *path_file, uint64_t offset, uint64_t bytes, char path[HOST_PATH_BYTES])
{
    int loop = -1;
    int file = open(path_file, O_RDWR | O_CLOEXEC);
    /* another process may take the free one first */
    for (uint32_t i = 0; file >= 0 && loop < 0 && i < LOOP_TRIES; i++)
        loop = loop_attach(file, offset, bytes, path);
    if (loop < 0)
        fails("loop device on", path_file);
    if (file >= 0)
        close(file);
    return loop;
}

/* cached: pages of the device that the kernel has in its cache; UINT64_MAX: it does not say. */
static uint64_t cached(int loop)
{
    uint64_t bytes = 0;
    if (ioctl(loop, BLKGETSIZE64, &bytes) != 0)
        return UINT64_MAX;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t pages = (size_t)(bytes + page - 1) / page;
    void *map = mmap(NULL, bytes, PROT_READ, MAP_SHARED, loop, 0);
    unsigned char *there = malloc(pages);
    CHECK(there != NULL);
    uint64_t count = 0;
    if (map == MAP_FAILED || mincore(map, bytes, there) != 0)
        count = UINT64_MAX;
    for (size_t i = 0; i < pages && count != UINT64_MAX; i++)
        count += there[i] & 1;
    free(there);
    if (map != MAP_FAILED)
        (void)munmap(map, bytes);
    return count;
}

/* host_loop_forget: the kernel passes over a page that somebody is just looking at, be it only to
 * see how old it is (DAMON); such a page would be served at the next cut too. */
bool host_loop_forget(int loop)
{
    uint64_t left = UINT64_MAX;
    for (uint32_t i = 0; i < CACHE_TRIES && left != 0; i++) {
        if (i != 0)
            nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
        if (ioctl(loop, BLKFLSBUF, 0) != 0 || (left = cached(loop)) == UINT64_MAX)
            return fails("flush", "the loop device");
    }
    errno = EBUSY;
    return left == 0 || fails("forget", "what is cached of the loop device");
}

bool host_mkfs(const char *filesystem, const char *disk)
{
    char path[HOST_PATH_BYTES];
    snprintf(path, sizeof path, "%s", disk);
    bool ext4 = strcmp(filesystem, "ext4") == 0;
    char *const of_ext4[] = {(char *)(uintptr_t) "/sbin/mkfs.ext4",
                             (char *)(uintptr_t) "-q",
                             (char *)(uintptr_t) "-F",
                             (char *)(uintptr_t) "-E",
                             (char *)(uintptr_t) "lazy_itable_init=0,lazy_journal_init=0,nodiscard",
                             (char *)(uintptr_t) "-J",
                             (char *)(uintptr_t) "size=8",
                             path,
                             NULL};
    char *const of_xfs[] = {(char *)(uintptr_t) "/sbin/mkfs.xfs",
                            (char *)(uintptr_t) "-q",
                            (char *)(uintptr_t) "-f",
                            (char *)(uintptr_t) "-K",
                            (char *)(uintptr_t) "--unsupported", /* as is a log below 64 MiB, */
                            (char *)(uintptr_t) "-l", /* all of which each check would read */
                            (char *)(uintptr_t) "size=10m",
                            path,
                            NULL};
    char *const *argv = ext4 ? of_ext4 : of_xfs;
    if (host_run(argv, "/dev/null") == 0)
        return true;
    return host_run(argv, NULL) == 0 || fails("mkfs", filesystem); /* this time it says why */
}

bool host_mount(const char *filesystem, const char *disk, const char *directory)
{
    /* ext4 without its own care for programs that forget to sync what they rename */
    const char *options = strcmp(filesystem, "ext4") == 0 ? "noauto_da_alloc" : NULL;
    return mount(disk, directory, filesystem, MS_NOATIME, options) == 0 || fails("mount", disk);
}

/* host_unmount: a child that another thread is just forking holds all files until it execs. */
bool host_unmount(const char *directory)
{
    int result = umount2(directory, 0);
    for (uint32_t i = 0; i < BUSY_TRIES && result != 0 && errno == EBUSY; i++) {
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
        result = umount2(directory, 0);
    }
    return result == 0 || fails("umount", directory);
}

static void child(char *const argv[], const char *output)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    alarm(RUN_SECONDS); /* survives exec: nothing hangs for ever */
    int out = output == NULL ? -1 : open(output, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (output != NULL && (dup2(out, 1) < 0 || dup2(out, 2) < 0))
        _exit(127);
    execv(argv[0], argv);
    fails("exec", argv[0]);
    _exit(127);
}

int host_run(char *const argv[], const char *output)
{
    int status;
    pid_t pid = fork();
    if (pid == 0)
        child(argv, output);
    if (pid < 0 || waitpid(pid, &status, 0) < 0 || !WIFEXITED(status))
        return -1;
    return WEXITSTATUS(status);
}
