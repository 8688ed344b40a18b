/* run_private.h: what run.c and run_check.c share; nobody else includes it.
 * Flow:       run_check.c → run.c
 * Owns:       nothing */
#ifndef LOADGEN_RUN_PRIVATE_H
#define LOADGEN_RUN_PRIVATE_H

#include "loadgen/run.h"

/* run_explain: err, with what is missing and how to mend it in explanation. */
__attribute__((format(printf, 3, 4))) enum err run_explain(char explanation[RUN_EXPLAIN_BYTES],
                                                           enum err err, const char *format, ...);
/* run_write_file: all of it, made or written over. */
MUST_USE enum err run_write_file(const char *path, struct bytes data, uint32_t flags,
                                 char explanation[RUN_EXPLAIN_BYTES]);
bool run_is_loopback(const struct io_address *address);
/* run_key_read: the key that run_keys made. */
MUST_USE enum err run_key_read(const char *directory, struct jwt_signer *signer,
                               char explanation[RUN_EXPLAIN_BYTES]);
/* run_sources_needed: how many 127.0.0.x to connect from; 0: not loopback, the kernel chooses. */
uint32_t run_sources_needed(const struct run_options *options, const struct io_address *target);

#endif
