/* run.h: one run of the load generator: checks, threads, phases, progress, report.
 * Flow:       main: options → run_check → run → report files
 * Owns:       the threads, one fleet and one io on each, and the report
 * Invariants: phases in order: wait (baseline) → connect → idle → chat → drain → stop; memory is
 *             sampled at the end of wait and of idle
 * Failure:    run_check: one line that says what is missing and how to mend it. run: ERR_INVALID:
 *             it could not be carried out (the line is printed); a fail verdict is not an error */
#ifndef LOADGEN_RUN_H
#define LOADGEN_RUN_H

#include "loadgen/fleet.h"
#include "loadgen/report.h"

#define RUN_PATH_BYTES    512
#define RUN_THREADS_MAX   64
#define RUN_EXPLAIN_BYTES 400

struct run_options {
    char target[64]; /* address:port */
    char server_name[128];
    char ca[RUN_PATH_BYTES];   /* "": any certificate */
    char keys[RUN_PATH_BYTES]; /* directory made by `keys` */
    char issuer[128];
    char audience[128];
    char name_prefix[32];
    char report[RUN_PATH_BYTES]; /* directory; "": none */
    char gateway_version[128];
    uint32_t connections;
    uint32_t devices;
    uint32_t contacts;
    uint32_t threads;
    uint32_t handshakes;
    uint32_t connect_rate; /* per s; 0: unlimited */
    uint32_t idle_s;
    uint32_t duration_s;
    uint32_t drain_s;
    uint32_t connect_timeout_s;
    double rate;
    uint32_t message_bytes;
    uint32_t reconnect_every_s;
    uint32_t reconnect_percent;
    uint32_t heartbeat_ms;
    uint32_t gateway_pid;
    uint64_t seed;
    bool json;
    bool resume_tls;
    bool breaks_expected; /* somebody else breaks connections or kills the gateway */
};

struct run; /* everything that runs */

/* run_check: whether this host can do it, before anything is started. */
MUST_USE enum err run_check(const struct run_options *options, char explanation[RUN_EXPLAIN_BYTES]);
/* run: carry it out; the report is written and printed. *pass: the verdict. */
MUST_USE enum err run(const struct run_options *options, bool *pass,
                      char explanation[RUN_EXPLAIN_BYTES]);

/* run_keys: make directory/operator.key (mode 0600, 32 random bytes as hex) unless it is there, and
 * directory/jwks.json. */
MUST_USE enum err run_keys(const char *directory, char explanation[RUN_EXPLAIN_BYTES]);

#define RUN_KEY_ID "loadgen"

#endif
