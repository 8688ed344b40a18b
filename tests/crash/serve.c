/* serve.c: see serve.h. libfuse's high-level interface; its single-threaded loop gives the order.
 */
#define FUSE_USE_VERSION 31

#include "tests/crash/serve.h"

#include <errno.h>
#include <fuse.h>
#include <fuse_lowlevel.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static const char path_disk[] = "/disk";
static const char path_cold[] = "/cold";
static const char path_control[] = "/control";

struct serve {
    struct fuse *fuse;
    pthread_t thread;
};

static struct device *the_device(void)
{
    return fuse_get_context()->private_data;
}

/* is_disk: which one: from where to where. */
static bool is_disk(const char *path, uint64_t *begin, uint64_t *end)
{
    const struct device *device = the_device();
    bool cold = strcmp(path, path_cold) == 0 && device->split < device->bytes;
    *begin = cold ? device->split : 0;
    *end = cold ? device->bytes : device->split;
    return cold || strcmp(path, path_disk) == 0;
}

static int on_getattr(const char *path, struct stat *out, struct fuse_file_info *file)
{
    (void)file;
    memset(out, 0, sizeof *out);
    out->st_nlink = 1;
    out->st_mode = S_IFREG | 0600;
    uint64_t begin;
    uint64_t end;
    if (is_disk(path, &begin, &end))
        out->st_size = (off_t)(end - begin);
    else if (strcmp(path, "/") == 0)
        out->st_mode = S_IFDIR | 0700;
    else if (strcmp(path, path_control) != 0)
        return -ENOENT;
    return 0;
}

static int on_readdir(const char *path, void *buffer, fuse_fill_dir_t fill, off_t offset,
                      struct fuse_file_info *file, enum fuse_readdir_flags flags)
{
    (void)path;
    (void)offset;
    (void)file;
    (void)flags;
    fill(buffer, path_disk + 1, NULL, 0, 0);
    if (the_device()->split < the_device()->bytes)
        fill(buffer, path_cold + 1, NULL, 0, 0);
    fill(buffer, path_control + 1, NULL, 0, 0);
    return 0;
}

static int on_open(const char *path, struct fuse_file_info *file)
{
    (void)path;
    file->direct_io = 1;
    return 0;
}

static int on_read(const char *path, char *out, size_t size, off_t offset,
                   struct fuse_file_info *file)
{
    (void)file;
    uint64_t begin;
    uint64_t end;
    if (!is_disk(path, &begin, &end) || (uint64_t)offset >= end - begin)
        return 0;
    uint64_t at = begin + (uint64_t)offset;
    if (size > end - at)
        size = end - at;
    device_read(the_device(), at, (uint8_t *)out, size);
    return (int)size;
}

static int on_write(const char *path, const char *data, size_t size, off_t offset,
                    struct fuse_file_info *file)
{
    (void)file;
    uint64_t begin;
    uint64_t end;
    if (is_disk(path, &begin, &end)) {
        uint64_t at = begin + (uint64_t)offset;
        int failed = device_write(the_device(), at, (const uint8_t *)data, size);
        return failed != 0 ? -failed : (int)size;
    }
    char line[MARK_BYTES];
    if (size >= sizeof line)
        return -EINVAL;
    memcpy(line, data, size);
    line[size] = 0;
    line[strcspn(line, "\n")] = 0;
    device_command(the_device(), line);
    return (int)size;
}

static int on_fsync(const char *path, int data_only, struct fuse_file_info *file)
{
    (void)data_only;
    (void)file;
    uint64_t begin;
    uint64_t end;
    return is_disk(path, &begin, &end) ? -device_flush(the_device(), begin) : 0;
}

static int on_truncate(const char *path, off_t size, struct fuse_file_info *file)
{
    (void)file;
    (void)size; /* a shell's ">control" */
    return strcmp(path, path_control) == 0 ? 0 : -EPERM;
}

static void *loop(void *context)
{
    struct serve *serve = context;
    (void)fuse_loop(serve->fuse);
    return NULL;
}

struct serve *serve_start(struct device *device, const char *mount)
{
    static const struct fuse_operations operations = {.getattr = on_getattr,
                                                      .readdir = on_readdir,
                                                      .open = on_open,
                                                      .read = on_read,
                                                      .write = on_write,
                                                      .truncate = on_truncate,
                                                      .fsync = on_fsync};
    char *arguments[] = {(char *)(uintptr_t) "crash", NULL};
    struct fuse_args args = FUSE_ARGS_INIT(1, arguments);
    struct serve *serve = calloc(1, sizeof *serve);
    CHECK(serve != NULL);
    serve->fuse = fuse_new(&args, &operations, sizeof operations, device);
    if (serve->fuse != NULL && fuse_mount(serve->fuse, mount) == 0) {
        CHECK(pthread_create(&serve->thread, NULL, loop, serve) == 0);
        return serve;
    }
    if (serve->fuse != NULL)
        fuse_destroy(serve->fuse);
    free(serve);
    return NULL;
}

void serve_forked(struct serve *serve)
{
    close(fuse_session_fd(fuse_get_session(serve->fuse)));
}

void serve_stop(struct serve *serve)
{
    fuse_exit(serve->fuse);
    fuse_unmount(serve->fuse);
    CHECK(pthread_join(serve->thread, NULL) == 0);
    fuse_destroy(serve->fuse);
    free(serve);
}
