/* fault_io.c: see fault_io.h. The mutable state at file scope is the disk itself: core/file.h has
 * no context argument, and a test process has one disk. */
#include "tests/unit/fault_io.h"

#include <stdio.h>
#include <stdlib.h>

#define FILES_MAX       4096
#define DESCRIPTORS_MAX 1024
#define OPS_MAX         256
#define SECTOR          512

struct disk_file {
    char path[256]; /* "": free */
    uint8_t *data;
    uint8_t *durable;
    uint64_t size;
    uint64_t durable_size;
    uint64_t capacity;
    bool locked;
    bool linked; /* has another name: nothing may be written into it */
};

struct fault_image {
    struct disk_file files[FILES_MAX];
};

struct io {
    uint64_t now_ns;
    uint64_t random;
};

struct fault_settings fault;
static struct disk_file files[FILES_MAX];
static int descriptors[DESCRIPTORS_MAX]; /* index of file plus 1 */
static bool writable[DESCRIPTORS_MAX];
static struct {
    struct io_file_op *op;
    bool write;
    bool sync;
} ops[OPS_MAX];
static uint32_t op_count;
static struct worker_job *jobs[OPS_MAX];
static uint32_t job_count;
static struct io the_io = {NS_PER_S, 88172645463325252ull};

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static enum err fails(enum fault_op op)
{
    fault.count[op]++;
    if (fault.fail_at[op] == 0)
        return OK;
    if (fault.fail_at[op] > 1) {
        fault.fail_at[op]--;
        return OK;
    }
    if (!fault.fail_sticky)
        fault.fail_at[op] = fault.fail_more > 0 ? 1 : 0;
    fault.fail_more -= fault.fail_more > 0;
    return fault.fail_err == OK ? ERR_IO : fault.fail_err;
}

static void file_free(struct disk_file *file)
{
    free(file->data);
    free(file->durable);
    memset(file, 0, sizeof *file);
}

void fault_calm(void)
{
    struct fault_settings calm = {.capacity = fault.capacity};
    fault = calm;
}

static void close_all(void)
{
    memset(descriptors, 0, sizeof descriptors);
    op_count = job_count = 0;
    for (size_t i = 0; i < FILES_MAX; i++)
        files[i].locked = false;
}

void fault_reset(void)
{
    close_all();
    for (size_t i = 0; i < FILES_MAX; i++)
        file_free(&files[i]);
    memset(&fault, 0, sizeof fault);
    the_io = (struct io){NS_PER_S, 88172645463325252ull};
}

void fault_pass(uint64_t ns)
{
    the_io.now_ns += ns;
}

static struct disk_file *find(const char *path)
{
    for (size_t i = 0; i < FILES_MAX; i++)
        if (files[i].path[0] != 0 && strcmp(files[i].path, path) == 0)
            return &files[i];
    return NULL;
}

uint8_t *fault_data(const char *path, uint64_t *size)
{
    struct disk_file *file = find(path);
    if (file == NULL)
        return NULL;
    *size = file->size;
    return file->data;
}

void fault_settle(void)
{
    for (size_t i = 0; i < FILES_MAX; i++) {
        if (files[i].size != 0)
            memcpy(files[i].durable, files[i].data, files[i].size);
        files[i].durable_size = files[i].size;
    }
}

void fault_link(const char *path)
{
    struct disk_file *file = find(path);
    CHECK(file != NULL);
    file->linked = true;
}

void fault_remove(const char *path)
{
    struct disk_file *file = find(path);
    CHECK(file != NULL);
    file_free(file);
}

void fault_crash(uint64_t seed)
{
    uint64_t random = seed * 0x9e3779b97f4a7c15ull + 1;
    for (size_t i = 0; i < FILES_MAX; i++) {
        struct disk_file *file = &files[i];
        for (uint64_t at = 0; at < file->size; at += SECTOR) {
            uint64_t size = file->size - at < SECTOR ? file->size - at : SECTOR;
            if (memcmp(file->data + at, file->durable + at, size) == 0)
                continue;
            bool survives = seed == 0 ? false : seed == 1 || (next_random(&random) >> 33) % 2 == 0;
            if (!survives)
                memcpy(file->data + at, file->durable + at, size);
        }
    }
    fault_settle();
    close_all();
}

void fault_kill(void)
{
    close_all();
}

struct fault_image *fault_save(void)
{
    struct fault_image *image = calloc(1, sizeof *image);
    for (size_t i = 0; i < FILES_MAX; i++) {
        image->files[i] = files[i];
        if (files[i].data == NULL)
            continue;
        image->files[i].data = malloc(files[i].capacity);
        image->files[i].durable = malloc(files[i].capacity);
        memcpy(image->files[i].data, files[i].data, files[i].capacity);
        memcpy(image->files[i].durable, files[i].durable, files[i].capacity);
    }
    return image;
}

void fault_load(const struct fault_image *image)
{
    close_all();
    for (size_t i = 0; i < FILES_MAX; i++) {
        file_free(&files[i]);
        files[i] = image->files[i];
        files[i].locked = false;
        if (files[i].data == NULL)
            continue;
        files[i].data = malloc(files[i].capacity);
        files[i].durable = malloc(files[i].capacity);
        memcpy(files[i].data, image->files[i].data, files[i].capacity);
        memcpy(files[i].durable, image->files[i].durable, files[i].capacity);
    }
}

void fault_free(struct fault_image *image)
{
    for (size_t i = 0; i < FILES_MAX; i++)
        file_free(&image->files[i]);
    free(image);
}

uint32_t fault_open_descriptors(void)
{
    uint32_t count = 0;
    for (size_t i = 0; i < DESCRIPTORS_MAX; i++)
        count += descriptors[i] != 0;
    return count;
}

/* ---- core/file.h */

static struct disk_file *of(int fd)
{
    CHECK(fd >= 0 && fd < DESCRIPTORS_MAX && descriptors[fd] != 0);
    return &files[descriptors[fd] - 1];
}

static bool grow(struct disk_file *file, uint64_t size)
{
    if (size <= file->capacity)
        return true;
    uint64_t used = 0;
    for (size_t i = 0; i < FILES_MAX; i++)
        used += files[i].capacity;
    uint64_t capacity = (size + 4095) / 4096 * 4096;
    if (fault.capacity != 0 && used - file->capacity + capacity > fault.capacity)
        return false;
    file->data = realloc(file->data, capacity);
    file->durable = realloc(file->durable, capacity);
    memset(file->data + file->capacity, 0, capacity - file->capacity);
    memset(file->durable + file->capacity, 0, capacity - file->capacity);
    file->capacity = capacity;
    return true;
}

enum err file_open(int *fd, const char *path, uint32_t flags)
{
    *fd = -1;
    enum err err = fails(FAULT_OTHER);
    if (err != OK)
        return err;
    struct disk_file *file = find(path);
    if (file != NULL && (flags & FILE_EXCLUSIVE))
        return ERR_EXISTS;
    if (file == NULL && !(flags & FILE_CREATE))
        return ERR_NOT_FOUND;
    for (size_t i = 0; i < FILES_MAX && file == NULL; i++)
        if (files[i].path[0] == 0) {
            file = &files[i];
            snprintf(file->path, sizeof file->path, "%s", path);
        }
    CHECK(file != NULL);
    for (int i = 3; i < DESCRIPTORS_MAX; i++)
        if (descriptors[i] == 0) {
            descriptors[i] = (int)(file - files) + 1;
            writable[i] = (flags & FILE_WRITE) != 0;
            *fd = i;
            return OK;
        }
    return ERR_NO_DESCRIPTORS;
}

void file_close(int fd)
{
    struct disk_file *file = of(fd);
    for (uint32_t i = 0; i < op_count; i++)
        CHECK(ops[i].op->fd != fd); /* closed under an operation in flight */
    if (writable[fd])
        file->locked = false;
    descriptors[fd] = 0;
}

enum err file_size(int fd, uint64_t *size)
{
    enum err err = fails(FAULT_OTHER);
    *size = of(fd)->size;
    return err;
}

static enum err read_at(int fd, uint64_t offset, uint8_t *data, size_t size, size_t *done)
{
    const struct disk_file *file = of(fd);
    enum err err = fails(FAULT_READ);
    *done = 0;
    if (err != OK)
        return err;
    if (offset >= file->size)
        return OK;
    *done = file->size - offset < size ? (size_t)(file->size - offset) : size;
    memcpy(data, file->data + offset, *done);
    return OK;
}

static enum err write_at(int fd, uint64_t offset, struct bytes data)
{
    struct disk_file *file = of(fd);
    CHECK(writable[fd] && !file->linked);
    enum err err = fails(FAULT_WRITE);
    if (err != OK) {
        /* half of it may have reached the disk */
        uint64_t half = data.size / 2;
        if (offset + half <= file->size)
            memcpy(file->data + offset, data.data, half);
        return err;
    }
    if (!grow(file, offset + data.size))
        return ERR_NO_SPACE;
    memcpy(file->data + offset, data.data, data.size);
    if (offset + data.size > file->size)
        file->size = offset + data.size;
    return OK;
}

static enum err sync_file(int fd)
{
    struct disk_file *file = of(fd);
    enum err err = fails(FAULT_SYNC);
    if (err != OK)
        return err;
    if (file->size != 0)
        memcpy(file->durable, file->data, file->size);
    file->durable_size = file->size;
    return OK;
}

void file_read_ahead(int fd, uint64_t offset, uint64_t size)
{
    (void)fd;
    (void)offset;
    (void)size;
}

enum err file_read(int fd, uint64_t offset, uint8_t *data, size_t size, size_t *done)
{
    return read_at(fd, offset, data, size, done);
}

enum err file_write(int fd, uint64_t offset, struct bytes data)
{
    return write_at(fd, offset, data);
}

enum err file_sync(int fd)
{
    return sync_file(fd);
}

enum err file_truncate(int fd, uint64_t size)
{
    struct disk_file *file = of(fd);
    enum err err = fails(FAULT_OTHER);
    if (err != OK)
        return err;
    if (!grow(file, size))
        return ERR_NO_SPACE;
    if (size < file->size)
        memset(file->data + size, 0, file->size - size);
    file->size = size;
    return OK;
}

enum err file_rename(const char *source, const char *target)
{
    enum err err = fails(FAULT_OTHER);
    if (err != OK)
        return err;
    struct disk_file *file = find(source);
    if (file == NULL)
        return ERR_NOT_FOUND;
    struct disk_file *old = find(target);
    if (old != NULL)
        file_free(old);
    snprintf(file->path, sizeof file->path, "%s", target);
    return OK;
}

enum err file_remove(const char *path)
{
    enum err err = fails(FAULT_OTHER);
    if (err != OK)
        return err;
    struct disk_file *file = find(path);
    if (file == NULL)
        return ERR_NOT_FOUND;
    for (size_t i = 0; i < DESCRIPTORS_MAX; i++)
        CHECK(descriptors[i] != (int)(file - files) + 1); /* removed while open: not modelled */
    file_free(file);
    return OK;
}

enum err file_make_directory(const char *path)
{
    (void)path;
    return fails(FAULT_OTHER);
}

enum err file_sync_directory(const char *path)
{
    (void)path;
    return fails(FAULT_SYNC);
}

enum err file_lock(int fd)
{
    struct disk_file *file = of(fd);
    if (file->locked)
        return ERR_BUSY;
    file->locked = true;
    return OK;
}

enum err file_lock_shared(int fd)
{
    return of(fd)->locked ? ERR_BUSY : OK;
}

enum err file_unlock(int fd)
{
    of(fd)->locked = false;
    return fails(FAULT_OTHER);
}

enum err file_names(int fd, uint64_t *count)
{
    *count = of(fd)->linked ? 2 : 1;
    return fails(FAULT_OTHER);
}

enum err file_free_bytes(const char *path, uint64_t *bytes)
{
    (void)path;
    enum err err = fails(FAULT_OTHER);
    uint64_t used = 0;
    for (size_t i = 0; i < FILES_MAX; i++)
        used += files[i].capacity;
    *bytes = fault.capacity == 0     ? UINT64_MAX / 2
             : fault.capacity > used ? fault.capacity - used
                                     : 0;
    return err;
}

enum err file_list(const char *path, enum err (*entry)(void *context, const char *name),
                   void *context)
{
    TRY(fails(FAULT_OTHER));
    size_t size = strlen(path);
    for (size_t i = FILES_MAX; i-- > 0;) {
        char name[256];
        if (strncmp(files[i].path, path, size) != 0 || files[i].path[size] != '/')
            continue;
        snprintf(name, sizeof name, "%s", files[i].path + size + 1);
        TRY(entry(context, name));
    }
    return OK;
}

/* ---- core/io.h */

struct io *fault_io(void)
{
    return &the_io;
}

uint64_t io_now_ns(const struct io *io)
{
    return io->now_ns;
}

uint64_t io_wall_ms(const struct io *io)
{
    return 1700000000000ull + io->now_ns / NS_PER_MS;
}

void io_entropy(struct io *io, void *out, size_t size)
{
    uint8_t *bytes = out;
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)(next_random(&io->random) >> 32);
}

static enum err submit(struct io_file_op *op, bool write, bool sync)
{
    uint32_t most = fault.files_max == 0 ? 64 : fault.files_max;
    if (op_count >= most)
        return ERR_FULL;
    ops[op_count].op = op;
    ops[op_count].write = write;
    ops[op_count++].sync = sync;
    return OK;
}

enum err io_file_write(struct io *io, struct io_file_op *op, int fd, uint64_t offset,
                       struct bytes data, bool sync)
{
    (void)io;
    op->fd = fd;
    op->size = data.size;
    op->offset = offset;
    op->done_bytes = 0;
    TRY(submit(op, true, sync));
    op->err = write_at(fd, offset, data); /* in flight: in the cache, or half there */
    return OK;
}

enum err io_file_read(struct io *io, struct io_file_op *op, int fd, uint64_t offset, uint8_t *data,
                      size_t size)
{
    (void)io;
    CHECK(offset % 4096 == 0 && size % 4096 == 0 && (uintptr_t)data % 4096 == 0);
    op->fd = fd;
    op->data = data;
    op->size = size;
    op->offset = offset;
    fault.reads_async++;
    return submit(op, false, false);
}

void io_file_submit(struct io *io)
{
    (void)io;
}

void io_file_advance(struct io *io)
{
    (void)io; /* a sync here follows its write by itself */
}

enum err io_file_pin(struct io *io, uint8_t *data, size_t size)
{
    (void)io;
    (void)data;
    (void)size;
    return ERR_UNSUPPORTED;
}

void io_file_unpin(struct io *io, const uint8_t *data)
{
    (void)io;
    (void)data;
}

size_t io_poll(struct io *io, struct io_event *events, size_t capacity, uint64_t deadline_ns)
{
    io->now_ns += NS_PER_MS;
    if (deadline_ns != UINT64_MAX && deadline_ns > io->now_ns)
        io->now_ns = deadline_ns;
    if (fault.hold)
        return 0;
    size_t count = 0;
    while (op_count > 0 && count < capacity) {
        uint32_t at = (uint32_t)(next_random(&io->random) % op_count); /* any order */
        struct io_file_op *op = ops[at].op;
        if (!ops[at].write)
            op->err = read_at(op->fd, op->offset, op->data, op->size, &op->done_bytes);
        else if (op->err == OK && ops[at].sync)
            op->err = sync_file(op->fd);
        if (ops[at].write && op->err == OK)
            op->done_bytes = op->size;
        ops[at] = ops[--op_count];
        events[count++] = (struct io_event){.kind = IO_FILE_DONE, .op = op};
    }
    return count;
}

void io_wake(struct io_group *group, uint32_t index)
{
    (void)group;
    (void)index;
}

/* ---- core/worker.h */

struct workers *fault_workers(void)
{
    return (struct workers *)(void *)&the_io; /* never looked into */
}

enum err worker_submit(struct workers *workers, struct worker_job *job, enum worker_class class,
                       uint32_t shard)
{
    (void)workers;
    (void)class;
    (void)shard;
    if (job_count == OPS_MAX)
        return ERR_FULL;
    jobs[job_count++] = job;
    return OK;
}

struct worker_job *worker_completed(struct workers *workers, uint32_t shard)
{
    (void)workers;
    (void)shard;
    if (job_count == 0 || fault.hold)
        return NULL;
    struct worker_job *job = jobs[0];
    memmove(jobs, jobs + 1, --job_count * sizeof *jobs);
    job->run(job);
    return job;
}
