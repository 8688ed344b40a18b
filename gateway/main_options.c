/* main_options.c: arguments, output, clock and entropy of the commands. */
#include "gateway/main.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

static const struct option_spec *find(const struct option_spec *specs, size_t count,
                                      const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(specs[i].name, name) == 0)
            return &specs[i];
    return NULL;
}

bool options_parse(int count, char **arguments, const struct option_spec *specs, size_t spec_count,
                   const char **operands, size_t operand_count, const char *usage, bool *help)
{
    size_t found = 0;
    *help = false;
    for (int i = 0; i < count; i++) {
        const char *argument = arguments[i];
        if (strcmp(argument, "--help") == 0 || strcmp(argument, "-h") == 0) {
            fputs(usage, stdout);
            *help = true;
            return true;
        }
        if (strncmp(argument, "--", 2) != 0) {
            if (found < operand_count)
                operands[found] = argument;
            found++;
            continue;
        }
        const struct option_spec *spec = find(specs, spec_count, argument);
        if (spec == NULL || (spec->value != NULL && i + 1 == count)) {
            fprintf(stderr, "roost: %s %s\n%s", argument,
                    spec == NULL ? "is not an option of this command" : "needs a value", usage);
            return false;
        }
        if (spec->value != NULL)
            *spec->value = arguments[++i];
        if (spec->flag != NULL)
            *spec->flag = true;
    }
    if (found != operand_count)
        fputs(usage, stderr);
    return found == operand_count;
}

void print_line(void *context, const char *line)
{
    (void)context;
    puts(line);
}

int command_fail(const char *explanation)
{
    fflush(stdout);
    fprintf(stderr, "roost: %s\n", explanation);
    return 1;
}

uint64_t command_now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

void command_entropy(void *context, void *out, size_t size)
{
    (void)context;
    for (size_t done = 0; done < size;) {
        ssize_t got = getrandom((char *)out + done, size - done, 0);
        CHECK(got > 0);
        done += (size_t)got;
    }
}
