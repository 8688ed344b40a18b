/* main.c: the simulator's command line.
 *     sim SEED [--verbose] [--scenario NAME]
 *         one seed, all scenarios or one; prints the trace hashes
 *     sim SEED --seeds N
 *         N seeds from SEED on, each twice: their hashes must agree
 *     sim --marks N [--jobs J]
 *         N seeds, one in MARKS_AGAIN twice, in J processes; fails if a MARK of the linked code was
 *         never reached
 *     sim --self-test
 *         the world's own promises */
#include "tests/sim/marks.h"
#include "tests/sim/scenario.h"

#include "core/logging.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct scenario *const scenarios[] = {
    &scenario_echo, &scenario_disk, &scenario_catalog, &scenario_gateway, &scenario_log,
};

#define MARKS_AGAIN 8 /* --marks: one seed in so many runs twice */
#define JOBS_MAX    256

struct command {
    uint64_t seed;
    uint64_t seeds; /* 0: one, not repeated */
    uint64_t marks;
    uint64_t jobs; /* 0: 1 */
    bool has_seed;
    bool verbose;
    bool self_test;
    const char *scenario;
};

static int usage(void)
{
    fprintf(stderr, "usage: sim SEED [--seeds N] [--verbose] [--scenario NAME] | sim --marks N "
                    "[--jobs J] | sim --self-test\n");
    for (size_t i = 0; i < COUNT_OF(scenarios); i++)
        fprintf(stderr, "  %-10s %s\n", scenarios[i]->name, scenarios[i]->about);
    return 2;
}

static bool parse_number(uint64_t *out, const char *text)
{
    char *end;
    if (!text || *text < '0' || *text > '9')
        return false;
    *out = strtoull(text, &end, 10);
    return *end == '\0';
}

static bool chosen(const struct command *command, const struct scenario *scenario)
{
    return !command->scenario || strcmp(command->scenario, scenario->name) == 0;
}

static bool any_chosen(const struct command *command)
{
    for (size_t i = 0; i < COUNT_OF(scenarios); i++)
        if (chosen(command, scenarios[i]))
            return true;
    return false;
}

static bool parse(struct command *command, char **argv)
{
    for (char **at = argv + 1; *at; at++) {
        if (strcmp(*at, "--verbose") == 0)
            command->verbose = true;
        else if (strcmp(*at, "--self-test") == 0)
            command->self_test = true;
        else if (strcmp(*at, "--scenario") == 0 && at[1])
            command->scenario = *++at;
        else if (strcmp(*at, "--seeds") == 0 && parse_number(&command->seeds, at[1]))
            at++;
        else if (strcmp(*at, "--marks") == 0 && parse_number(&command->marks, at[1]))
            at++;
        else if (strcmp(*at, "--jobs") == 0 && parse_number(&command->jobs, at[1]) &&
                 command->jobs <= JOBS_MAX)
            at++;
        else if (parse_number(&command->seed, *at))
            command->has_seed = true;
        else
            return false;
    }
    return any_chosen(command) && (command->has_seed || command->self_test || command->marks > 0);
}

/* One scenario with one seed; again: a second time, which must be the same. */
static size_t run_one(const struct command *command, const struct scenario *scenario, uint64_t seed,
                      bool again)
{
    struct run_result result = scenario_run(scenario, seed, command->verbose);
    size_t failed = result.failed;
    if (!again)
        printf("%-10s seed %" PRIu64 ": %s, trace %016" PRIx64 ", %" PRIu64
               " events, %.3f s simulated\n",
               scenario->name, seed, result.failed ? "FAILED" : "ok", result.trace,
               result.trace_count, (double)result.simulated_ns / 1e9);
    if (again && scenario_run(scenario, seed, false).trace != result.trace) {
        fprintf(stderr, "%s, seed %" PRIu64 ": the second run went another way\n", scenario->name,
                seed);
        failed = 1;
    }
    if (failed > 0)
        fprintf(stderr, "again: sim %" PRIu64 " --scenario %s --verbose\n", seed, scenario->name);
    return failed;
}

/* next: the seeds are taken from here, by several processes perhaps; again: every so many seeds a
 * second time; 0: none. */
static size_t run_seeds(const struct command *command, _Atomic uint64_t *next, uint64_t end,
                        uint64_t again)
{
    size_t failed = 0;
    size_t runs = 0;
    for (uint64_t seed = (*next)++; seed < end; seed = (*next)++)
        for (size_t i = 0; i < COUNT_OF(scenarios); i++)
            if (chosen(command, scenarios[i])) {
                failed += run_one(command, scenarios[i], seed, again != 0 && seed % again == 0);
                runs++;
            }
    printf("%zu runs, %zu failed\n", runs, failed);
    return failed;
}

static size_t run_marks(const struct command *command)
{
    uint64_t jobs = command->jobs > 0 ? command->jobs : 1;
    pid_t children[JOBS_MAX];
    size_t failed = 0;
    int status;
    _Atomic uint64_t *next =
        mmap(NULL, sizeof *next, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(next != MAP_FAILED);
    *next = 1;
    marks_share();
    (void)fflush(stdout);
    (void)setvbuf(stdout, NULL, _IOLBF, BUFSIZ); /* lines of several processes stay whole */
    for (uint64_t i = 0; i < jobs; i++) {
        children[i] = fork();
        CHECK(children[i] >= 0);
        if (children[i] == 0)
            exit(run_seeds(command, next, 1 + command->marks, MARKS_AGAIN) > 0 ? 1 : 0);
    }
    for (uint64_t i = 0; i < jobs; i++) {
        CHECK(waitpid(children[i], &status, 0) == children[i]);
        failed += !WIFEXITED(status) || WEXITSTATUS(status) != 0;
    }
    return failed + marks_report();
}

int main(int argc, char **argv)
{
    struct command command = {0};
    (void)argc;
    if (!parse(&command, argv))
        return usage();
    logging_init(command.verbose ? LOG_DEBUG : LOG_ERROR, LOG_KEY_VALUE);
    size_t failed = 0;
    if (command.self_test)
        failed += self_test();
    if (command.has_seed) {
        _Atomic uint64_t next = command.seed;
        bool twice = command.seeds > 0;
        failed += run_seeds(&command, &next, command.seed + (twice ? command.seeds : 1), twice);
    }
    if (command.marks > 0)
        failed += run_marks(&command);
    return failed > 0 ? 1 : 0;
}
