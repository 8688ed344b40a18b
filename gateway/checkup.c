/* checkup.c: see checkup.h. */
#include "gateway/checkup.h"

#include "core/io.h"
#include "core/mesh.h"
#include "gateway/api/jwks_file.h"
#include "gateway/flow/budget.h"
#include "gateway/flow/lanes.h"
#include "gateway/flow/limits.h"
#include "gateway/flow/shard.h"
#include "gateway/wire/tls.h"

#include <stdio.h>
#include <unistd.h>

#define PROCESS_DESCRIPTORS 64 /* standard streams, listeners, catalog, directories, lock */
#define MIB                 (1024ull * 1024)

uint32_t checkup_shards(const struct config *config, uint32_t cpus)
{
    uint32_t shards = config->shards != 0 ? config->shards : cpus;
    return shards > SHARDS_MAX ? SHARDS_MAX : shards;
}

void checkup_host(struct checkup *out, const struct config *config, uint32_t shards)
{
    uint64_t pages = (uint64_t)sysconf(_SC_PHYS_PAGES);
    uint64_t rings_between = mesh_rings(shards, lanes_count(config->lane_directories));
    memset(out, 0, sizeof *out);
    out->shards = shards;
    out->memory_bytes = pages * (uint64_t)sysconf(_SC_PAGE_SIZE);
    out->connections_bytes =
        config->max_connections * (uint64_t)(budget_connection_bytes() + BUDGET_KERNEL_BYTES);
    out->budgets_bytes =
        config->state_bytes + config->cache_bytes + rings_between * config->mesh_ring_bytes;
    out->rings = io_rings_needed(&out->descriptors_limit,
                                 shard_sockets_max(config->max_connections, shards));
    out->descriptors = shards * (out->rings + 2) + PROCESS_DESCRIPTORS; /* ring, wake-up, table */
}

bool checkup_warning(char *out, size_t out_size, const struct checkup *checkup, uint32_t n)
{
    uint64_t needed = checkup->connections_bytes + checkup->budgets_bytes;
    bool memory = checkup->memory_bytes != 0 && needed > checkup->memory_bytes;
    bool descriptors = checkup->rings == 0 || checkup->descriptors > checkup->descriptors_limit;
    if (memory && n == 0) {
        snprintf(out, out_size,
                 "limits.max_connections, state_size, cache_size and mesh_ring_size promise %llu "
                 "MiB, this host has %llu MiB: lower one of them",
                 (unsigned long long)(needed / MIB),
                 (unsigned long long)(checkup->memory_bytes / MIB));
        return true;
    }
    if (descriptors && n == (memory ? 1 : 0)) {
        snprintf(out, out_size,
                 "RLIMIT_NOFILE of %u is too low for limits.max_connections: raise it (`ulimit "
                 "-n`, LimitNOFILE=), or lower max_connections",
                 checkup->descriptors_limit);
        return true;
    }
    return false;
}

static enum err certificate_check(const struct config *config, char *explanation,
                                  size_t explanation_size)
{
    struct tls_server_options options = {.certificate_path = config->certificate,
                                         .key_path = config->key};
    struct tls_context *context = NULL;
    const char *reason = "";
    if (config->certificate[0] == '\0')
        return OK;
    enum err err = tls_context_create_server(&context, &options, &reason);
    if (err == OK)
        tls_context_release(context);
    snprintf(explanation, explanation_size, "%s", reason);
    return err;
}

enum err checkup_files(const struct config *config, char *explanation, size_t explanation_size)
{
    struct jwks *jwks = NULL;
    explanation[0] = '\0';
    TRY(certificate_check(config, explanation, explanation_size));
    TRY(jwks_file_load(&jwks, config, explanation, explanation_size));
    jwks_release(jwks);
    return OK;
}
