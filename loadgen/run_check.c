/* run_check.c: before anything is started: the operator's key that signs the users' tokens, and
 * whether this host can do it (run.h). */
#include "loadgen/run_private.h"

#include "core/file.h"
#include "core/text.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#define CONNECTIONS_PER_SOURCE 12000 /* beyond, the kernel's search for a free port gets slow */
#define HANDSHAKES_PER_SOURCE  16    /* the gateway limits what one address has un-upgraded */
#define BYTES_PER_CONNECTION   16000 /* both ends with the kernel's part, generously */
#define PORT_SPARE_PERCENT     90
#define KEY_TEXT_BYTES         64

enum err run_explain(char explanation[RUN_EXPLAIN_BYTES], enum err err, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(explanation, RUN_EXPLAIN_BYTES, format, arguments);
    va_end(arguments);
    return err;
}

/* ---- keys */

enum err run_write_file(const char *path, struct bytes data, uint32_t flags,
                        char explanation[RUN_EXPLAIN_BYTES])
{
    int fd;
    enum err err = file_open(&fd, path, FILE_WRITE | FILE_CREATE | flags);
    if (err == OK) {
        err = file_truncate(fd, 0);
        if (err == OK)
            err = file_write(fd, 0, data);
        file_close(fd);
    }
    return err == OK
               ? OK
               : run_explain(explanation, err, "cannot write %s: %s; check directory and space",
                             path, err_name(err));
}

enum err run_key_read(const char *directory, struct jwt_signer *signer,
                      char explanation[RUN_EXPLAIN_BYTES])
{
    char path[RUN_PATH_BYTES + 32];
    uint8_t text[KEY_TEXT_BYTES];
    uint8_t seed[JWT_KEY_BYTES] = {0};
    size_t done = 0;
    int fd;
    (void)snprintf(path, sizeof path, "%s/operator.key", directory);
    enum err err = file_open(&fd, path, FILE_READ);
    if (err != OK)
        return run_explain(explanation, err,
                           "cannot read %s: %s; make it with: roost-loadgen keys %s", path,
                           err_name(err), directory);
    err = file_read(fd, 0, text, sizeof text, &done);
    file_close(fd);
    if (err != OK || done != sizeof text)
        return run_explain(explanation, ERR_INVALID, "%s is not a key: remove it and make it anew",
                           path);
    for (size_t i = 0; i < sizeof text; i++) {
        const char *digits = "0123456789abcdef";
        const char *digit = memchr(digits, text[i], 16);
        if (digit == NULL)
            return run_explain(explanation, ERR_INVALID,
                               "%s is not a key: remove it and make it anew", path);
        seed[i / 2] = (uint8_t)(seed[i / 2] << 4 | (uint8_t)(digit - digits));
    }
    jwt_signer_init(signer, seed);
    return OK;
}

static enum err entropy_take(uint8_t *out, size_t size, char explanation[RUN_EXPLAIN_BYTES])
{
    int fd;
    size_t done = 0;
    enum err err = file_open(&fd, "/dev/urandom", FILE_READ);
    if (err == OK) {
        err = file_read(fd, 0, out, size, &done);
        file_close(fd);
    }
    return err == OK && done == size
               ? OK
               : run_explain(explanation, ERR_IO, "cannot read /dev/urandom for a key");
}

enum err run_keys(const char *directory, char explanation[RUN_EXPLAIN_BYTES])
{
    char path[RUN_PATH_BYTES + 32];
    uint8_t seed[JWT_KEY_BYTES];
    char text[KEY_TEXT_BYTES + 1];
    uint8_t json[1024];
    struct buffer jwks = buffer_of(json, sizeof json);
    struct jwt_signer signer;
    int fd;
    enum err err = file_make_directory(directory);
    if (err != OK)
        return run_explain(explanation, err, "cannot make directory %s: %s", directory,
                           err_name(err));
    (void)snprintf(path, sizeof path, "%s/operator.key", directory);
    if (file_open(&fd, path, FILE_READ) == OK) {
        file_close(fd);
    } else {
        TRY(entropy_take(seed, sizeof seed, explanation));
        for (size_t i = 0; i < sizeof seed; i++)
            (void)snprintf(text + 2 * i, 3, "%02x", seed[i]);
        TRY(run_write_file(path, bytes_of(text, KEY_TEXT_BYTES), FILE_PRIVATE, explanation));
    }
    TRY(run_key_read(directory, &signer, explanation));
    err = jwks_encode(&jwks, &signer, RUN_KEY_ID);
    if (err != OK)
        return run_explain(explanation, err, "cannot encode the key set: %s", err_name(err));
    (void)snprintf(path, sizeof path, "%s/jwks.json", directory);
    return run_write_file(path, buffer_bytes(&jwks), 0, explanation);
}

/* ---- can this host do it */

bool run_is_loopback(const struct io_address *address)
{
    static const uint8_t mapped[13] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127};
    return memcmp(address->ip, mapped, sizeof mapped) == 0;
}

uint32_t run_sources_needed(const struct run_options *options, const struct io_address *target)
{
    if (!run_is_loopback(target))
        return 0;
    uint32_t by_ports = options->connections / CONNECTIONS_PER_SOURCE + 1;
    uint32_t by_handshakes = options->handshakes / HANDSHAKES_PER_SOURCE + 1;
    uint32_t count = by_ports > by_handshakes ? by_ports : by_handshakes;
    return count < FLEET_SOURCES_MAX ? count : FLEET_SOURCES_MAX;
}

static enum err check_ports(const struct run_options *options, const struct io_address *target,
                            const struct host_limits *limits, char explanation[RUN_EXPLAIN_BYTES])
{
    if (limits->port_first == 0 || limits->port_last < limits->port_first)
        return OK; /* not readable: connecting will tell */
    uint32_t sources = run_sources_needed(options, target);
    uint64_t ports = (uint64_t)(limits->port_last - limits->port_first + 1) *
                     (sources == 0 ? 1 : sources) * PORT_SPARE_PERCENT / 100;
    if (ports >= options->connections)
        return OK;
    return run_explain(explanation, ERR_INVALID,
                       "%" PRIu32 " connections need more local ports than %" PRIu32 "-%" PRIu32
                       " gives from %" PRIu32
                       " address(es): as root: sysctl net.ipv4.ip_local_port_range=\"1024 65535\"",
                       options->connections, limits->port_first, limits->port_last,
                       sources == 0 ? 1 : sources);
}

enum err run_check(const struct run_options *options, char explanation[RUN_EXPLAIN_BYTES])
{
    struct io_address target;
    struct host_limits limits;
    struct jwt_signer signer;
    if (address_parse(&target, options->target) != OK)
        return run_explain(explanation, ERR_INVALID,
                           "--target %s is not an address with a port, such as 127.0.0.1:8443",
                           options->target);
    TRY(run_key_read(options->keys, &signer, explanation));
    host_limits_read(&limits);
    if (limits.descriptors != 0 && limits.descriptors < 1024)
        return run_explain(explanation, ERR_NO_DESCRIPTORS,
                           "at most %" PRIu64
                           " open files are allowed, 1024 are needed: raise it with ulimit -n 1024",
                           limits.descriptors);
    uint64_t needed = (uint64_t)options->connections *
                      (run_is_loopback(&target) ? BYTES_PER_CONNECTION : BYTES_PER_CONNECTION / 2);
    if (limits.memory_available != 0 && limits.memory_available < needed)
        return run_explain(explanation, ERR_NO_MEMORY,
                           "%" PRIu32 " connections need about %" PRIu64 " MiB of memory, %" PRIu64
                           " MiB are available: use fewer with --connections, or free memory",
                           options->connections, needed >> 20, limits.memory_available >> 20);
    return check_ports(options, &target, &limits, explanation);
}
