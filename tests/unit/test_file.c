/* test_file.c: core/file.h on the real file system, in a directory of its own, and copies of files
 * (store/snapshot.h). */
#include "core/file.h"
#include "store/snapshot.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char directory[] = "out/test_file.XXXXXX";

static const char *path_of(const char *name)
{
    static char path[4][128];
    static unsigned at;
    char *out = path[at++ % 4];
    (void)snprintf(out, sizeof path[0], "%s/%s", directory, name);
    return out;
}

static int setup(void **state)
{
    (void)state;
    return mkdtemp(directory) == NULL;
}

static int teardown(void **state)
{
    (void)state;
    return file_remove(directory) != OK;
}

static int make(const char *name, uint32_t flags)
{
    int fd = -1;
    assert_int_equal(file_open(&fd, path_of(name), FILE_WRITE | FILE_CREATE | flags), OK);
    assert_true(fd >= 0);
    return fd;
}

static void test_write_read_size_truncate(void **state)
{
    (void)state;
    int fd = make("a", 0);
    static uint8_t data[10000], got[20000];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 13);
    uint64_t size = 1;
    size_t done = 1;
    assert_int_equal(file_size(fd, &size), OK);
    assert_int_equal(size, 0);
    assert_int_equal(file_read(fd, 0, got, sizeof got, &done), OK);
    assert_int_equal(done, 0);
    assert_int_equal(file_write(fd, 5, bytes_of(data, sizeof data)), OK);
    assert_int_equal(file_sync(fd), OK);
    assert_int_equal(file_size(fd, &size), OK);
    assert_int_equal(size, sizeof data + 5);
    assert_int_equal(file_read(fd, 5, got, sizeof got, &done), OK);
    assert_int_equal(done, sizeof data);
    assert_memory_equal(got, data, sizeof data);
    assert_int_equal(file_read(fd, 100, got, 50, &done), OK);
    assert_int_equal(done, 50);
    assert_memory_equal(got, data + 95, 50);
    assert_int_equal(file_truncate(fd, 20), OK);
    assert_int_equal(file_read(fd, 15, got, 50, &done), OK);
    assert_int_equal(done, 5);
    assert_int_equal(file_truncate(fd, 4096), OK);
    assert_int_equal(file_size(fd, &size), OK);
    assert_int_equal(size, 4096);
    file_close(fd);
    assert_int_equal(file_remove(path_of("a")), OK);
}

static void test_open_flags(void **state)
{
    (void)state;
    int fd = -1;
    assert_int_equal(file_open(&fd, path_of("none"), FILE_READ), ERR_NOT_FOUND);
    assert_int_equal(file_open(&fd, path_of("none"), FILE_WRITE), ERR_NOT_FOUND);
    assert_int_equal(file_open(&fd, path_of("none/deep"), FILE_READ), ERR_NOT_FOUND);
    assert_int_equal(fd, -1);
    file_close(make("b", FILE_PRIVATE | FILE_EXCLUSIVE));
    struct stat status;
    assert_int_equal(stat(path_of("b"), &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    assert_int_equal(file_open(&fd, path_of("b"), FILE_WRITE | FILE_CREATE | FILE_EXCLUSIVE),
                     ERR_EXISTS);
    assert_int_equal(file_open(&fd, path_of("b"), FILE_READ), OK);
    assert_int_equal(file_write(fd, 0, bytes_of("x", 1)), ERR_INVALID); /* not for writing */
    file_close(fd);
    assert_int_equal(file_open(&fd, "/proc/self/status", FILE_READ | FILE_DIRECT), ERR_UNSUPPORTED);
    assert_int_equal(file_remove(path_of("b")), OK);
    assert_int_equal(file_remove(path_of("b")), ERR_NOT_FOUND);
}

static void test_errors_of_devices(void **state)
{
    (void)state;
    int fd = -1;
    assert_int_equal(file_open(&fd, "/dev/full", FILE_WRITE), OK);
    assert_int_equal(file_write(fd, 0, bytes_of("x", 1)), ERR_NO_SPACE);
    file_close(fd);
    assert_int_equal(file_open(&fd, "/dev/null", FILE_WRITE), OK);
    assert_int_equal(file_sync(fd), ERR_INVALID);
    file_close(fd);
    size_t done = 0;
    uint8_t byte;
    assert_int_equal(file_read(-1, 0, &byte, 1, &done), ERR_INVALID);
    uint64_t size;
    assert_int_equal(file_size(-1, &size), ERR_INVALID);
}

static void test_rename_replaces(void **state)
{
    (void)state;
    int fd = make("old", 0);
    assert_int_equal(file_write(fd, 0, bytes_of("new content", 11)), OK);
    file_close(fd);
    file_close(make("target", 0));
    assert_int_equal(file_rename(path_of("old"), path_of("target")), OK);
    assert_int_equal(file_rename(path_of("old"), path_of("target")), ERR_NOT_FOUND);
    assert_int_equal(file_sync_directory(directory), OK);
    assert_int_equal(file_sync_directory(path_of("none")), ERR_NOT_FOUND);
    assert_int_equal(file_open(&fd, path_of("target"), FILE_READ), OK);
    uint64_t size = 0;
    assert_int_equal(file_size(fd, &size), OK);
    assert_int_equal(size, 11);
    file_close(fd);
    assert_int_equal(file_remove(path_of("target")), OK);
}

static void test_lock_is_exclusive(void **state)
{
    (void)state;
    int one = make("lock", 0);
    int two = make("lock", 0);
    assert_int_equal(file_lock(one), OK);
    assert_int_equal(file_lock(one), OK);
    assert_int_equal(file_lock(two), ERR_BUSY);
    file_close(one);
    assert_int_equal(file_lock(two), OK);
    file_close(two);
    assert_int_equal(file_remove(path_of("lock")), OK);
}

struct listing {
    uint32_t count;
    uint32_t sum;
    uint32_t stop_at;
};

static enum err on_entry(void *context, const char *name)
{
    struct listing *listing = context;
    listing->count++;
    listing->sum += (uint32_t)strtoul(name + 1, NULL, 10);
    return listing->count == listing->stop_at ? ERR_BUSY : OK;
}

static void test_directories_and_list(void **state)
{
    (void)state;
    assert_int_equal(file_make_directory(path_of("d")), OK);
    assert_int_equal(file_make_directory(path_of("d")), OK);
    assert_int_equal(file_make_directory(path_of("none/d")), ERR_NOT_FOUND);
    for (int i = 0; i < 20; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "d/f%d", i);
        file_close(make(name, 0));
    }
    assert_int_equal(file_make_directory(path_of("d/f3")), ERR_EXISTS); /* a file is in the way */
    struct listing all = {0};
    assert_int_equal(file_list(path_of("d"), on_entry, &all), OK);
    assert_int_equal(all.count, 20);
    assert_int_equal(all.sum, 190);
    struct listing some = {.stop_at = 7};
    assert_int_equal(file_list(path_of("d"), on_entry, &some), ERR_BUSY);
    assert_int_equal(some.count, 7);
    assert_int_equal(file_list(path_of("none"), on_entry, &some), ERR_NOT_FOUND);
    assert_int_equal(file_remove(path_of("d")), ERR_EXISTS); /* not empty */
    for (int i = 0; i < 20; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "d/f%d", i);
        assert_int_equal(file_remove(path_of(name)), OK);
    }
    assert_int_equal(file_remove(path_of("d")), OK);
}

/* A copy ends where it is told, with zeros behind it, however much larger its source is. */
static void test_copy_that_ends_early(void **state)
{
    static const uint64_t ends[] = {0, 5000, 1 << 20, (1 << 20) + 1, 5 << 20, UINT64_MAX};
    static uint8_t data[5 << 20], got[5 << 20];
    uint64_t size = 0;
    size_t done = 0;
    (void)state;
    memset(data, 0xa5, sizeof data);
    int fd = make("large", 0);
    assert_int_equal(file_write(fd, 0, bytes_of(data, sizeof data)), OK);
    file_close(fd);
    for (size_t i = 0; i < COUNT_OF(ends); i++) {
        size_t end = ends[i] > sizeof data ? sizeof data : (size_t)ends[i];
        assert_int_equal(file_copy(path_of("large"), path_of("copy"), ends[i], NULL), OK);
        assert_int_equal(file_open(&fd, path_of("copy"), FILE_READ), OK);
        assert_int_equal(file_size(fd, &size), OK);
        assert_int_equal(size, sizeof data);
        assert_int_equal(file_read(fd, 0, got, sizeof got, &done), OK);
        assert_memory_equal(got, data, end);
        assert_true(bytes_zero(got + end, sizeof got - end));
        file_close(fd);
        assert_int_equal(file_remove(path_of("copy")), OK);
    }
    assert_int_equal(file_remove(path_of("large")), OK);
}

static void test_free_bytes(void **state)
{
    (void)state;
    uint64_t bytes = 0;
    assert_int_equal(file_free_bytes(directory, &bytes), OK);
    assert_true(bytes > 0);
    assert_int_equal(file_free_bytes(path_of("none"), &bytes), ERR_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_write_read_size_truncate),
        cmocka_unit_test(test_open_flags),
        cmocka_unit_test(test_errors_of_devices),
        cmocka_unit_test(test_rename_replaces),
        cmocka_unit_test(test_lock_is_exclusive),
        cmocka_unit_test(test_directories_and_list),
        cmocka_unit_test(test_copy_that_ends_early),
        cmocka_unit_test(test_free_bytes),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
