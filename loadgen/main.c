/* main.c: roost-loadgen's command line: run, keys, --version. One table says every option of `run`
 * with its unit and default; --help prints it.
 * Exit:       0 the verdict is pass, 1 it is fail, 2 the run could not be carried out or was asked
 *             for wrongly; then one line says what to do. */
#include "core/logging.h"
#include "core/text.h"
#include "gateway/wire/json_text.h"
#include "loadgen/run.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { EXIT_PASS = 0, EXIT_FAIL = 1, EXIT_USAGE = 2 };

#define CONNECTIONS_MAX 2000000
#define CONTACTS_MAX    15
#define DEVICES_MAX     8
#define RATE_PER_1000   23.0

enum option_kind { OPTION_TEXT, OPTION_COUNT, OPTION_U64, OPTION_REAL, OPTION_SWITCH };

struct option_row {
    const char *name;
    enum option_kind kind;
    size_t offset; /* in struct run_options */
    size_t size;   /* of a text */
    uint64_t min;
    uint64_t max;
    const char *help;
};

#define TEXT(name, field, help)                                                                    \
    {                                                                                              \
        name, OPTION_TEXT, offsetof(struct run_options, field),                                    \
            sizeof(((struct run_options *)0)->field), 0, 0, help                                   \
    }
#define COUNT(name, field, min, max, help)                                                         \
    {                                                                                              \
        name, OPTION_COUNT, offsetof(struct run_options, field), 0, min, max, help                 \
    }

static const struct option_row rows[] = {
    TEXT("target", target, "gateway's address and port (127.0.0.1:8443)"),
    TEXT("server-name", server_name, "name for TLS and the Host header (localhost)"),
    TEXT("ca", ca, "PEM file to check the gateway's certificate by (none: any is taken)"),
    TEXT("keys", keys, "directory made by `roost-loadgen keys` (required)"),
    TEXT("issuer", issuer, "issuer of the users' tokens (roost-loadgen)"),
    TEXT("audience", audience, "audience of the users' tokens (roost)"),
    TEXT("users", name_prefix, "users are called this and a number (load-<random>-)"),
    TEXT("report", report, "directory for report.json and report.txt (none)"),
    TEXT("gateway-version", gateway_version, "for the report (what the gateway says of itself)"),
    COUNT("connections", connections, 2, CONNECTIONS_MAX, "TLS connections in all (1000)"),
    COUNT("devices", devices, 1, DEVICES_MAX, "connections per user (1)"),
    COUNT("contacts", contacts, 1, CONTACTS_MAX, "users each user chats with (4)"),
    COUNT("threads", threads, 1, RUN_THREADS_MAX, "threads (one per CPU)"),
    COUNT("handshakes", handshakes, 1, 100000, "connections between connect and ready (128)"),
    COUNT("connect-rate", connect_rate, 0, 1000000, "connections begun per second (0: unlimited)"),
    COUNT("connect-timeout", connect_timeout_s, 1, 86400,
          "seconds for all to connect (60 + connections/500)"),
    COUNT("idle", idle_s, 0, 86400, "seconds to hold all connections idle (5)"),
    COUNT("duration", duration_s, 0, 86400, "seconds of chat (30)"),
    {"rate", OPTION_REAL, offsetof(struct run_options, rate), 0, 0, 10000000,
     "messages per second, open loop (23 per 1,000 connections)"},
    COUNT("message-bytes", message_bytes, ORACLE_CONTENT_BYTES_MIN, 90000,
          "content of one message in bytes (128)"),
    COUNT("drain", drain_s, 0, 86400, "seconds that the last messages may take (30)"),
    COUNT("reconnect-every", reconnect_every_s, 0, 86400,
          "while chatting, break connections every so many seconds (0: never)"),
    COUNT("reconnect-percent", reconnect_percent, 1, 100, "share of connections broken then (10)"),
    COUNT("heartbeat", heartbeat_ms, 0, 600000, "milliseconds, asked of the gateway (0: its own)"),
    COUNT("gateway-pid", gateway_pid, 1, INT32_MAX, "measure this process's memory (none)"),
    {"seed", OPTION_U64, offsetof(struct run_options, seed), 0, 0, UINT64_MAX,
     "for pairs, ids and jitter (random)"},
    {"json", OPTION_SWITCH, offsetof(struct run_options, json), 0, 0, 0,
     "speak roost.v1.json instead of roost.v1.proto"},
    {"resume-tls", OPTION_SWITCH, offsetof(struct run_options, resume_tls), 0, 0, 0,
     "keep session tickets and resume with them"},
    {"breaks-expected", OPTION_SWITCH, offsetof(struct run_options, breaks_expected), 0, 0, 0,
     "broken connections are no fault: the gateway is killed or restarted meanwhile"},
};

static void print_help(FILE *out)
{
    fprintf(out, "roost-loadgen: simulated users for roost, with an oracle that checks every "
                 "message\n\n"
                 "roost-loadgen keys DIR         make DIR/operator.key and DIR/jwks.json: the "
                 "gateway trusts the\n"
                 "                               users' tokens by the latter ([auth] jwks)\n"
                 "roost-loadgen run OPTIONS      connect, hold idle, chat, drain, judge\n"
                 "roost-loadgen --version\n\noptions of run (default):\n");
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        fprintf(out, "  --%-18s %s%s\n", rows[i].name,
                rows[i].kind == OPTION_SWITCH ? "" : "VALUE: ", rows[i].help);
    fprintf(out, "\nexit: 0 verdict pass, 1 verdict fail, 2 not carried out\n");
}

static bool number_fits(const char *value, uint64_t min, uint64_t max, uint64_t *out)
{
    return decimal_parse(out, bytes_of_text(value)) == OK && *out >= min && *out <= max;
}

static bool option_store(struct run_options *options, const struct option_row *row,
                         const char *value)
{
    char *field = (char *)options + row->offset;
    uint64_t number;
    char *end;
    double real;
    switch (row->kind) {
    case OPTION_TEXT:
        if (strlen(value) >= row->size)
            return false;
        memcpy(field, value, strlen(value) + 1);
        return true;
    case OPTION_COUNT:
        if (!number_fits(value, row->min, row->max, &number))
            return false;
        memcpy(field, &(uint32_t){(uint32_t)number}, sizeof(uint32_t));
        return true;
    case OPTION_U64:
        if (!number_fits(value, row->min, row->max, &number))
            return false;
        memcpy(field, &number, sizeof number);
        return true;
    case OPTION_REAL:
        real = strtod(value, &end);
        if (*value == '\0' || *end != '\0' || !(real >= 0 && real <= (double)row->max))
            return false;
        memcpy(field, &real, sizeof real);
        return true;
    case OPTION_SWITCH:
        memcpy(field, &(bool){true}, sizeof(bool));
        return true;
    }
    return false;
}

static const struct option_row *option_find(const char *name, size_t size)
{
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        if (strlen(rows[i].name) == size && memcmp(rows[i].name, name, size) == 0)
            return &rows[i];
    return NULL;
}

/* options_parse: --name value or --name=value; says itself what is wrong. */
static bool options_parse(struct run_options *options, int count, char **arguments)
{
    for (int i = 0; i < count; i++) {
        const char *argument = arguments[i];
        const char *name = strncmp(argument, "--", 2) == 0 ? argument + 2 : "";
        const struct option_row *row = option_find(name, strcspn(name, "="));
        if (row == NULL) {
            fprintf(stderr, "roost-loadgen: unknown option %s; see roost-loadgen --help\n",
                    argument);
            return false;
        }
        const char *value = strchr(name, '=');
        if (value != NULL)
            value++;
        else if (row->kind != OPTION_SWITCH && i + 1 < count)
            value = arguments[++i];
        if ((row->kind == OPTION_SWITCH) != (value == NULL) || !option_store(options, row, value)) {
            fprintf(stderr, "roost-loadgen: --%s takes %s", row->name, row->help);
            if (row->kind == OPTION_COUNT)
                fprintf(stderr, ", a whole number from %" PRIu64 " to %" PRIu64, row->min,
                        row->max);
            fprintf(stderr, "\n");
            return false;
        }
    }
    return true;
}

/* options_complete: what depends on something else. */
static void options_complete(struct run_options *options)
{
    struct host_machine machine;
    uint64_t random = 0;
    int written = 0;
    host_machine_read(&machine);
    if (options->threads == 0)
        options->threads = machine.cpus == 0                ? 1
                           : machine.cpus > RUN_THREADS_MAX ? RUN_THREADS_MAX
                                                            : machine.cpus;
    uint32_t pair = 2 * options->devices;
    options->connections = (options->connections + pair - 1) / pair * pair;
    if (options->threads > options->connections / pair)
        options->threads = options->connections / pair;
    if (options->rate < 0)
        options->rate = RATE_PER_1000 * options->connections / 1000;
    if (options->connect_timeout_s == 0)
        options->connect_timeout_s = 60 + options->connections / 500;
    FILE *entropy = fopen("/dev/urandom", "rb");
    if (entropy != NULL) {
        if (fread(&random, sizeof random, 1, entropy) != 1)
            random = 0;
        (void)fclose(entropy);
    }
    if (options->seed == 0)
        options->seed = random | 1;
    if (options->name_prefix[0] == '\0')
        written = snprintf(options->name_prefix, sizeof options->name_prefix, "load-%08" PRIx32 "-",
                           (uint32_t)(random >> 32));
    CHECK(written >= 0 && (size_t)written < sizeof options->name_prefix);
}

static int main_run(int count, char **arguments)
{
    char explanation[RUN_EXPLAIN_BYTES] = "";
    bool pass = false;
    struct run_options options = {
        .target = "127.0.0.1:8443",
        .server_name = "localhost",
        .issuer = "roost-loadgen",
        .audience = "roost",
        .connections = 1000,
        .devices = 1,
        .contacts = 4,
        .handshakes = 128,
        .idle_s = 5,
        .duration_s = 30,
        .drain_s = 30,
        .rate = -1,
        .message_bytes = 128,
        .reconnect_percent = 10,
    };
    if (!options_parse(&options, count, arguments))
        return EXIT_USAGE;
    if (options.keys[0] == '\0') {
        fprintf(stderr, "roost-loadgen: --keys is missing: make keys with: roost-loadgen keys "
                        "DIR\n");
        return EXIT_USAGE;
    }
    options_complete(&options);
    if (run_check(&options, explanation) != OK || run(&options, &pass, explanation) != OK) {
        fprintf(stderr, "roost-loadgen: %s\n", explanation);
        return EXIT_USAGE;
    }
    return pass ? EXIT_PASS : EXIT_FAIL;
}

static int main_keys(const char *directory)
{
    char explanation[RUN_EXPLAIN_BYTES] = "";
    if (strcmp(directory, "--help") == 0) {
        print_help(stdout);
        return EXIT_PASS;
    }
    if (directory[0] == '-') {
        fprintf(stderr,
                "roost-loadgen: keys takes a directory and no options; ./%s is one that begins "
                "like an option\n",
                directory);
        return EXIT_USAGE;
    }
    if (run_keys(directory, explanation) != OK) {
        fprintf(stderr, "roost-loadgen: %s\n", explanation);
        return EXIT_USAGE;
    }
    printf("%s/jwks.json\n", directory);
    return EXIT_PASS;
}

int main(int count, char **arguments)
{
    const char *command = count > 1 ? arguments[1] : "";
    logging_init(LOG_WARN, LOG_KEY_VALUE);
    json_text_init(0);
    if (strcmp(command, "run") == 0) {
        if (count > 2 && strcmp(arguments[2], "--help") == 0) {
            print_help(stdout);
            return EXIT_PASS;
        }
        return main_run(count - 2, arguments + 2);
    }
    if (strcmp(command, "keys") == 0 && count == 3)
        return main_keys(arguments[2]);
    if (strcmp(command, "--version") == 0) {
        printf("roost-loadgen %s (%s)\n", ROOST_VERSION, tls_library());
        return EXIT_PASS;
    }
    bool help = strcmp(command, "--help") == 0 || strcmp(command, "help") == 0;
    print_help(help ? stdout : stderr);
    return help ? EXIT_PASS : EXIT_USAGE;
}
