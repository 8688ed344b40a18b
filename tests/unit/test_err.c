/* test_err.c: every failure has its own name; a CHECK says where, and traps. */
#include "tests/unit/check.h"

#include "core/err.h"

#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static void names_are_distinct(void **state)
{
    (void)state;
    for (int i = 0; i < ERR_COUNT; i++) {
        assert_string_not_equal(err_name((enum err)i), "unknown");
        for (int j = 0; j < i; j++)
            assert_string_not_equal(err_name((enum err)i), err_name((enum err)j));
    }
    assert_string_equal(err_name(OK), "ok");
    assert_string_equal(err_name(ERR_NO_DESCRIPTORS), "no_descriptors");
    assert_string_equal(err_name(ERR_UNSUPPORTED), "unsupported");
    assert_string_equal(err_name(ERR_COUNT), "unknown");
}

static enum err try_three(int *steps, enum err second)
{
    (*steps)++;
    TRY(OK);
    (*steps)++;
    TRY(second);
    (*steps)++;
    return OK;
}

static void try_returns_the_failure(void **state)
{
    (void)state;
    int steps = 0;
    assert_int_equal(try_three(&steps, ERR_BUSY), ERR_BUSY);
    assert_int_equal(steps, 2);
    assert_int_equal(try_three(&steps, OK), OK);
    assert_int_equal(steps, 5);
}

static void failed_check_traps_and_tells(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        struct rlimit no_core = {0, 0};
        (void)setrlimit(RLIMIT_CORE, &no_core);
        (void)signal(SIGILL, SIG_DFL);
        (void)signal(SIGTRAP, SIG_DFL);
        (void)dup2(ends[1], STDERR_FILENO);
        volatile int one = 1;
        CHECK(one == 1);
        CHECK(one == 2);
        _exit(0);
    }
    (void)close(ends[1]);
    char text[256] = "";
    ssize_t size = read(ends[0], text, sizeof text - 1);
    (void)close(ends[0]);
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_true(size > 0);
    assert_non_null(strstr(text, "test_err.c:"));
    assert_non_null(strstr(text, "CHECK(one == 2)"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_distinct),
        cmocka_unit_test(try_returns_the_failure),
        cmocka_unit_test(failed_check_traps_and_tells),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
