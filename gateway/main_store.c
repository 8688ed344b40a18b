/* main_store.c: `roost store …`: what concerns a whole data directory. */
#include "gateway/main.h"

#include "gateway/flow/rebuild.h"
#include "gateway/flow/snapshot.h"

#include <stdio.h>
#include <string.h>

static const char usage_store[] =
    "usage: roost store snapshot DATA --to DIR   a consistent copy, beside a running gateway\n"
    "       roost store restore DIR --to DATA    a snapshot becomes a store with a new epoch\n"
    "       roost store rebuild DATA             the catalog's derived rows again from the log\n"
    "roost store COMMAND --help says more. Exit: 0 done, 1 failed or a difference was found, 2 "
    "wrong\n"
    "usage.\n";

static const char usage_snapshot[] =
    "usage: roost store snapshot DATA --to DIR [--cold COLD]\n"
    "Copies the store in DATA to the new directory DIR while the gateway serves (or not): the "
    "catalog\n"
    "as of one transaction, then the log. Everything acknowledged before the command began is in "
    "it.\n"
    "Sealed log files are hard links where DIR is on the same file system: the snapshot is made "
    "in\n"
    "seconds and shares their disk space; copy DIR elsewhere for a back-up, and remove it to let "
    "the\n"
    "space go. COLD is store.cold_directory, where that is set. Keys are not in it; password "
    "hashes are: guard it like the store.\n";

static const char usage_restore[] = "usage: roost store restore DIR --to DATA [--accept-damage]\n"
                                    "Copies the snapshot in DIR to DATA, which must not exist or "
                                    "be empty, and checks every record.\n"
                                    "The restored store has new keys and a new epoch: tokens from "
                                    "before do not hold, clients are told\n"
                                    "EPOCH_CHANGED and resync. --accept-damage: a damaged snapshot "
                                    "is restored all the same, and what\n"
                                    "is missing in it is named to clients.\n";

static const char usage_rebuild[] = "usage: roost store rebuild DATA [--compare]\n"
                                    "With the gateway stopped. Conversations, inboxes, what is "
                                    "pending and the checkpoint are deleted\n"
                                    "from the catalog and made again from the log; accounts, "
                                    "devices and credentials stay. Where the\n"
                                    "log is not whole, rows are raised and none is deleted. An "
                                    "interrupted run does no harm: the next\n"
                                    "start replays the whole log. --compare: changes nothing, and "
                                    "tells where the catalog is not what\n"
                                    "the log says (exit 1).\n";

static int snapshot(int count, char **arguments)
{
    const struct inspect_output out = {.line = print_line};
    struct snapshot_options options = {.now_ms = command_now_ms(), .out = &out};
    const char *target = NULL;
    const struct option_spec specs[] = {{"--to", &target, NULL}, {"--cold", &options.cold, NULL}};
    char explanation[INSPECT_EXPLANATION_BYTES] = "";
    const char *data;
    bool help;
    if (!options_parse(count, arguments, specs, COUNT_OF(specs), &data, 1, usage_snapshot, &help))
        return 2;
    if (help)
        return 0;
    if (target == NULL) {
        fputs(usage_snapshot, stderr);
        return 2;
    }
    return store_snapshot(data, target, &options, explanation) == OK ? 0
                                                                     : command_fail(explanation);
}

static int restore(int count, char **arguments)
{
    const struct inspect_output out = {.line = print_line};
    struct snapshot_options options = {
        .now_ms = command_now_ms(), .entropy = command_entropy, .out = &out};
    const char *target = NULL;
    const struct option_spec specs[] = {{"--to", &target, NULL},
                                        {"--accept-damage", NULL, &options.accept_damage}};
    char explanation[INSPECT_EXPLANATION_BYTES] = "";
    const char *source;
    bool help;
    if (!options_parse(count, arguments, specs, COUNT_OF(specs), &source, 1, usage_restore, &help))
        return 2;
    if (help)
        return 0;
    if (target == NULL) {
        fputs(usage_restore, stderr);
        return 2;
    }
    return store_restore(source, target, &options, explanation) == OK ? 0
                                                                      : command_fail(explanation);
}

static int rebuild(int count, char **arguments)
{
    const struct inspect_output out = {.line = print_line};
    bool compare = false;
    const char *cold = NULL;
    const struct option_spec specs[] = {{"--compare", NULL, &compare}, {"--cold", &cold, NULL}};
    char explanation[INSPECT_EXPLANATION_BYTES] = "";
    const char *data;
    bool help;
    if (!options_parse(count, arguments, specs, COUNT_OF(specs), &data, 1, usage_rebuild, &help))
        return 2;
    if (help)
        return 0;
    return store_rebuild(data, cold, compare, &out, explanation) == OK ? 0
                                                                       : command_fail(explanation);
}

int main_store(int count, char **arguments)
{
    static const struct {
        const char *name;
        int (*run)(int count, char **arguments);
    } commands[] = {{"snapshot", snapshot}, {"restore", restore}, {"rebuild", rebuild}};
    for (size_t i = 0; count > 0 && i < COUNT_OF(commands); i++)
        if (strcmp(arguments[0], commands[i].name) == 0)
            return commands[i].run(count - 1, arguments + 1);
    bool help = count > 0 && strcmp(arguments[0], "--help") == 0;
    fputs(usage_store, help ? stdout : stderr);
    return help ? 0 : 2;
}
