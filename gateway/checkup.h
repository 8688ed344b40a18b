/* checkup.h: what a configuration needs of this host and of its files, told before anything runs.
 * Flow:       `roost check-config`, and the start: config → here → warnings, or one line why not
 * Owns:       nothing
 * Failure:    checkup_files: as tls_context_create_server and jwks_file_load; explained in one line
 * Bounds:     reads the files that the configuration names, writes nothing */
#ifndef GATEWAY_CHECKUP_H
#define GATEWAY_CHECKUP_H

#include "gateway/config.h"

/* What limits.max_connections and the budgets promise, and what is there to keep it. */
struct checkup {
    uint64_t connections_bytes; /* user and kernel memory of max_connections idle connections */
    uint64_t budgets_bytes;     /* state, cache, rings between shards */
    uint64_t memory_bytes;      /* of the host; 0: unknown */
    uint32_t shards;
    uint32_t rings;             /* per shard */
    uint32_t descriptors;       /* that the process needs for itself: rings, files, wake-ups */
    uint32_t descriptors_limit; /* RLIMIT_NOFILE, hard */
};

/* checkup_shards: how many shards a configuration makes where this process may run on cpus. */
uint32_t checkup_shards(const struct config *config, uint32_t cpus);
void checkup_host(struct checkup *out, const struct config *config, uint32_t shards);
/* checkup_warning: the n-th thing that this host cannot keep, into out; false: there are no more.
 */
bool checkup_warning(char *out, size_t out_size, const struct checkup *checkup, uint32_t n);
/* checkup_files: the certificate, its key and the JWK Set, as the start would read them. OK with a
 * non-empty explanation: usable, but warn. */
MUST_USE enum err checkup_files(const struct config *config, char *explanation,
                                size_t explanation_size);

#endif
