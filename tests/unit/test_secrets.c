/* test_secrets.c: made once, read back, and refused in every way it can be wrong. */
#include "gateway/chat/secrets.h"

#include "core/file.h"
#include "tests/unit/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define NOW 1800000000000ull

static char directory[64];
static char path[80];
static char explanation[512];

static int setup(void **state)
{
    (void)state;
    snprintf(directory, sizeof directory, "/tmp/test_secrets_XXXXXX");
    if (mkdtemp(directory) == NULL)
        return -1;
    snprintf(path, sizeof path, "%s/secrets", directory);
    return 0;
}

static enum err drop_entry(void *context, const char *name)
{
    char entry[512];
    snprintf(entry, sizeof entry, "%s/%s", (const char *)context, name);
    return file_remove(entry);
}

static int teardown(void **state)
{
    (void)state;
    return file_list(directory, drop_entry, directory) == OK ? rmdir(directory) : -1;
}

static void entropy(void *context, void *out, size_t size)
{
    uint64_t *state = context;
    for (size_t i = 0; i < size; i++)
        ((uint8_t *)out)[i] = (uint8_t)(random_next(state) >> 32);
}

static enum err load(struct secrets *secrets, uint64_t seed)
{
    memset(secrets, 0, sizeof *secrets);
    explanation[0] = '\0';
    enum err err =
        secrets_load(secrets, directory, entropy, &seed, NOW, explanation, sizeof explanation);
    assert_int_equal(err == OK, explanation[0] == '\0');
    if (err != OK)
        assert_non_null(strstr(explanation, path));
    return err;
}

static size_t read_file(uint8_t out[256])
{
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    size_t size = fread(out, 1, 256, file);
    fclose(file);
    return size;
}

static void write_file(const void *data, size_t size)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    fclose(file);
    assert_int_equal(chmod(path, 0600), 0);
}

static void test_made_and_read_back(void **state)
{
    struct secrets a, b;
    struct stat st;
    static const uint8_t zero[32];
    (void)state;
    assert_int_equal(load(&a, 1), OK);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(st.st_size, 124);
    assert_int_equal(load(&b, 2), OK); /* other entropy, not used */
    assert_memory_equal(a.ticket, b.ticket, 32);
    assert_memory_equal(a.signing, b.signing, 32);
    assert_memory_equal(&a.placement, &b.placement, 16);
    assert_memory_equal(a.store_epoch, b.store_epoch, 16);
    assert_int_equal(b.created_ms, NOW);
    assert_memory_not_equal(a.ticket, zero, 32);
    assert_memory_not_equal(a.signing, zero, 32);
    assert_memory_not_equal(a.ticket, a.signing, 32);
    assert_int_equal(a.store_epoch[6] >> 4, 4);
    assert_int_equal(a.store_epoch[8] >> 6, 2);
}

static void test_every_flipped_bit_is_seen(void **state)
{
    struct secrets a, b;
    uint8_t data[256], bad[256];
    (void)state;
    assert_int_equal(load(&a, 1), OK);
    size_t size = read_file(data);
    for (size_t i = 0; i < size; i++) {
        memcpy(bad, data, size);
        bad[i] = (uint8_t)(bad[i] ^ 1u << (i % 8));
        write_file(bad, size);
        enum err err = load(&b, 2);
        assert_true(err == ERR_CORRUPT || (i >= 8 && i < 12 && err == ERR_NEWER));
    }
    write_file(data, size);
    assert_int_equal(load(&b, 2), OK);
    assert_memory_equal(a.signing, b.signing, 32);
}

static void test_wrong_length(void **state)
{
    struct secrets a, b;
    uint8_t data[256] = {0}, after[256];
    (void)state;
    assert_int_equal(load(&a, 1), OK);
    read_file(data);
    for (size_t size = 0; size < 130; size++) {
        if (size == 124)
            continue;
        write_file(data, size);
        assert_int_equal(load(&b, 2), ERR_CORRUPT);
        assert_int_equal(read_file(after), size); /* left as it is */
    }
}

static void test_newer(void **state)
{
    struct secrets a;
    uint8_t data[256];
    (void)state;
    assert_int_equal(load(&a, 1), OK);
    size_t size = read_file(data);
    data[8] = 2;
    write_file(data, size);
    assert_int_equal(load(&a, 2), ERR_NEWER);
    assert_non_null(strstr(explanation, "newer version"));
}

static void test_readable_by_others(void **state)
{
    static const mode_t modes[] = {0640, 0604, 0644, 0620, 0601};
    struct secrets a;
    (void)state;
    assert_int_equal(load(&a, 1), OK);
    for (size_t i = 0; i < COUNT_OF(modes); i++) {
        assert_int_equal(chmod(path, modes[i]), 0);
        assert_int_equal(load(&a, 2), ERR_DENIED);
        assert_non_null(strstr(explanation, "chmod 600"));
    }
    assert_int_equal(chmod(path, 0400), 0);
    assert_int_equal(load(&a, 2), OK);
}

static void test_leftover_of_a_crash(void **state)
{
    struct secrets a, b;
    char leftover[96];
    (void)state;
    snprintf(leftover, sizeof leftover, "%s.new", path);
    FILE *file = fopen(leftover, "w");
    assert_non_null(file);
    for (int i = 0; i < 300; i++)
        fputc('x', file);
    fclose(file);
    assert_int_equal(chmod(leftover, 0644), 0);
    assert_int_equal(load(&a, 1), ERR_DENIED);
    assert_int_equal(chmod(leftover, 0600), 0);
    assert_int_equal(load(&a, 1), OK);
    assert_int_equal(load(&b, 2), OK);
    assert_memory_equal(a.signing, b.signing, 32);
    assert_int_equal(access(leftover, F_OK), -1);
}

static void test_two_at_once(void **state)
{
    struct secrets a;
    char leftover[96];
    int fd;
    (void)state;
    snprintf(leftover, sizeof leftover, "%s.new", path);
    assert_int_equal(file_open(&fd, leftover, FILE_WRITE | FILE_CREATE | FILE_PRIVATE), OK);
    assert_int_equal(file_lock(fd), OK);
    assert_int_equal(load(&a, 1), ERR_BUSY);
    assert_int_equal(access(path, F_OK), -1);
    file_close(fd);
    assert_int_equal(load(&a, 1), OK);
}

static void test_no_directory(void **state)
{
    struct secrets a;
    uint64_t seed = 1;
    (void)state;
    assert_int_equal(
        secrets_load(&a, "/nonexistent/data", entropy, &seed, NOW, explanation, sizeof explanation),
        ERR_NOT_FOUND);
    assert_non_null(strstr(explanation, "/nonexistent/data/secrets: cannot be made"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_made_and_read_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_every_flipped_bit_is_seen, setup, teardown),
        cmocka_unit_test_setup_teardown(test_wrong_length, setup, teardown),
        cmocka_unit_test_setup_teardown(test_newer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_readable_by_others, setup, teardown),
        cmocka_unit_test_setup_teardown(test_leftover_of_a_crash, setup, teardown),
        cmocka_unit_test_setup_teardown(test_two_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_directory, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
