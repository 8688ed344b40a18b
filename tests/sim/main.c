/* main.c: the simulator's command line.
 *     sim SEED [--verbose] [--scenario NAME]
 *         one seed, all scenarios or one; prints the trace hashes
 *     sim SEED --seeds N
 *         N seeds from SEED on, each twice: their hashes must agree
 *     sim --marks N
 *         N seeds, one in MARKS_AGAIN twice; fails if a MARK of the linked code was never reached
 *     sim --self-test
 *         the world's own promises */
#include "tests/sim/marks.h"
#include "tests/sim/scenario.h"

#include "core/logging.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static const struct scenario *const scenarios[] = {
    &scenario_echo, &scenario_disk, &scenario_catalog, &scenario_gateway, &scenario_log,
};

#define MARKS_AGAIN 8 /* --marks: one seed in so many runs twice */

struct command {
    uint64_t seed;
    uint64_t seeds; /* 0: one, not repeated */
    uint64_t marks;
    bool has_seed;
    bool verbose;
    bool self_test;
    const char *scenario;
};

static int usage(void)
{
    fprintf(stderr, "usage: sim SEED [--seeds N] [--verbose] [--scenario NAME] | sim --marks N | "
                    "sim --self-test\n");
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
        else if (parse_number(&command->seed, *at))
            command->has_seed = true;
        else
            return false;
    }
    return command->has_seed || command->self_test || command->marks > 0;
}

static bool chosen(const struct command *command, const struct scenario *scenario)
{
    return !command->scenario || strcmp(command->scenario, scenario->name) == 0;
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

/* again: every so many seeds a second time; 0: none. */
static size_t run_seeds(const struct command *command, uint64_t first, uint64_t count,
                        uint64_t again)
{
    size_t failed = 0;
    size_t runs = 0;
    for (uint64_t seed = first; seed < first + count; seed++)
        for (size_t i = 0; i < COUNT_OF(scenarios); i++)
            if (chosen(command, scenarios[i])) {
                failed += run_one(command, scenarios[i], seed, again != 0 && seed % again == 0);
                runs++;
            }
    if (runs == 0)
        return 1 + (size_t)usage();
    if (count > 1)
        printf("%zu runs, %zu failed\n", runs, failed);
    return failed;
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
    if (command.has_seed)
        failed += run_seeds(&command, command.seed, command.seeds > 0 ? command.seeds : 1,
                            command.seeds > 0 ? 1 : 0);
    if (command.marks > 0) {
        failed += run_seeds(&command, 1, command.marks, MARKS_AGAIN);
        failed += marks_report();
    }
    return failed > 0 ? 1 : 0;
}
