/* main.h: the binary's commands beside serve, one file per group: main_log.c, main_store.c.
 * Flow:       main.c finds the group by its word → here → store/, flow/
 * Owns:       standard output and standard error
 * Failure:    exit status 0 done; 1 it could not be done, or damage or a difference was found, with
 *             a line on standard error that says what to do; 2 wrong usage */
#ifndef GATEWAY_MAIN_H
#define GATEWAY_MAIN_H

#include "store/inspect.h"

/* main_log, main_store: arguments behind `roost log`, `roost store`. */
int main_log(int count, char **arguments);
int main_store(int count, char **arguments);

/* ---- what they share, main_options.c */

struct option_spec {
    const char *name;   /* "--from" */
    const char **value; /* gets the next argument; NULL: a flag */
    bool *flag;         /* set where it is given */
};

/* options_parse: sorts arguments into options and operands, of which there must be exactly
 * operand_count. False: usage was printed to standard error. "--help" prints it to standard output
 * and sets *help: nothing else is to be done. */
bool options_parse(int count, char **arguments, const struct option_spec *specs, size_t spec_count,
                   const char **operands, size_t operand_count, const char *usage, bool *help);

void print_line(void *context, const char *line); /* to standard output */
int command_fail(const char *explanation);        /* 1 */
uint64_t command_now_ms(void);
void command_entropy(void *context, void *out, size_t size);

#endif
