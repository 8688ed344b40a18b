/* hands.c: see hands.h. An order is one byte, for ORDER_RUN followed by its texts, each with NUL,
 * and its answer an int. */
#include "tests/crash/hands.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define ORDER_BYTES 8192
#define TEXTS_MAX   32

enum order {
    ORDER_MKFS = 'k',
    ORDER_MOUNT = 'm',
    ORDER_DIRECT = 'd',
    ORDER_UNMOUNT = 'u',
    ORDER_RUN = 'r'
};

/* ---- in the child */

/* texts: split the order's rest at its NULs up to an empty one; *at moves behind it. */
static void texts(char *order, size_t *at, char *out[TEXTS_MAX])
{
    size_t count = 0;
    for (; order[*at] != 0; *at += strlen(order + *at) + 1) {
        CHECK(count < TEXTS_MAX - 1);
        out[count++] = order + *at;
    }
    ++*at;
    out[count] = NULL;
}

static int run(char *order)
{
    char *argv[TEXTS_MAX];
    char *variables[TEXTS_MAX];
    char *output[TEXTS_MAX];
    size_t at = 1;
    texts(order, &at, argv);
    texts(order, &at, variables);
    texts(order, &at, output);
    for (size_t i = 0; variables[i] != NULL; i++)
        putenv(variables[i]); /* they stay where they are until the next order */
    int status = host_run(argv, output[0]);
    for (size_t i = 0; variables[i] != NULL; i++) {
        variables[i][strcspn(variables[i], "=")] = 0;
        unsetenv(variables[i]);
    }
    return status;
}

static bool make_all(struct hands *hands)
{
    bool good = true;
    for (uint32_t i = 0; i < hands->count && good; i++)
        good = host_mkfs(hands->disks[i].filesystem, hands->disks[i].loop_paths[0]);
    return good;
}

static bool unmount(struct hands *hands, uint32_t count)
{
    bool good = true;
    for (uint32_t i = 0; i < count; i++)
        good = host_unmount(hands->disks[i].mounted) && good;
    return good;
}

static bool mount_all(struct hands *hands, bool direct)
{
    for (uint32_t i = 0; i < hands->count; i++) {
        const struct hands_disk *disk = &hands->disks[i];
        if (host_loop_forget(disk->loops[direct]) &&
            host_mount(disk->filesystem, disk->loop_paths[direct], disk->mounted))
            continue;
        (void)unmount(hands, i);
        return false;
    }
    return true;
}

static int obey(struct hands *hands, char *order)
{
    switch ((enum order)order[0]) {
    case ORDER_MKFS:
        return make_all(hands) ? 0 : -1;
    case ORDER_MOUNT:
        return mount_all(hands, false) ? 0 : -1;
    case ORDER_DIRECT:
        return mount_all(hands, true) ? 0 : -1;
    case ORDER_UNMOUNT:
        return unmount(hands, hands->count) ? 0 : -1;
    case ORDER_RUN:
        return run(order);
    }
    return -1;
}

/* attach: both loop devices of a disk. */
static bool attach(struct hands_disk *disk, const struct device *device, bool second)
{
    char memory[40];
    uint64_t begin = second ? device->split : 0;
    uint64_t bytes = second ? device->bytes - device->split : device->split;
    snprintf(memory, sizeof memory, "/proc/self/fd/%d", device->memory);
    disk->loops[0] = host_loop(disk->file, 0, bytes, disk->loop_paths[0]);
    disk->loops[1] = host_loop(memory, begin, bytes, disk->loop_paths[1]);
    return disk->loops[0] >= 0 && disk->loops[1] >= 0;
}

static void child(struct hands *hands, struct serve *serve, const struct device *device)
{
    static char order[ORDER_BYTES];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    serve_forked(serve);
    int status = host_private() ? 0 : -1;
    for (uint32_t i = 0; i < hands->count && status == 0; i++)
        status = attach(&hands->disks[i], device, i != 0) ? 0 : -1;
    while (send(hands->answers, &status, sizeof status, 0) == sizeof status &&
           recv(hands->orders, order, sizeof order, 0) > 0)
        status = obey(hands, order);
    _exit(0);
}

/* ---- in the lab */

static int answer(struct hands *hands)
{
    int status = -1;
    if (recv(hands->answers, &status, sizeof status, 0) != sizeof status)
        return -1;
    return status;
}

bool hands_start(struct hands *hands, struct serve *serve, const struct device *device)
{
    int pair[2];
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
    hands->pid = fork();
    CHECK(hands->pid >= 0);
    hands->orders = hands->answers = pair[hands->pid == 0];
    close(pair[hands->pid != 0]);
    if (hands->pid == 0)
        child(hands, serve, device);
    return answer(hands) == 0;
}

void hands_stop(struct hands *hands)
{
    close(hands->orders);
    CHECK(waitpid(hands->pid, NULL, 0) == hands->pid);
}

static int give(struct hands *hands, const char *order, size_t size)
{
    return send(hands->orders, order, size, MSG_NOSIGNAL) == (ssize_t)size ? answer(hands) : -1;
}

static bool give_short(struct hands *hands, enum order order)
{
    char byte = (char)order;
    return give(hands, &byte, 1) == 0;
}

bool hands_mkfs(struct hands *hands)
{
    return give_short(hands, ORDER_MKFS);
}

bool hands_mount(struct hands *hands, bool direct)
{
    return give_short(hands, direct ? ORDER_DIRECT : ORDER_MOUNT);
}

bool hands_unmount(struct hands *hands)
{
    return give_short(hands, ORDER_UNMOUNT);
}

static void put_text(char *order, size_t *size, const char *text)
{
    size_t more = strlen(text) + 1;
    CHECK(more <= ORDER_BYTES - *size);
    memcpy(order + *size, text, more);
    *size += more;
}

int hands_run(struct hands *hands, char *const argv[], const char *const variables[],
              const char *output)
{
    char order[ORDER_BYTES] = {ORDER_RUN};
    size_t size = 1;
    for (size_t i = 0; argv[i] != NULL; i++)
        put_text(order, &size, argv[i]);
    put_text(order, &size, "");
    for (size_t i = 0; variables[i] != NULL; i++)
        put_text(order, &size, variables[i]);
    put_text(order, &size, "");
    if (output != NULL)
        put_text(order, &size, output);
    put_text(order, &size, "");
    return give(hands, order, size);
}
