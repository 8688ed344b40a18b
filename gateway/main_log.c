/* main_log.c: `roost log …`: what looks at or mends the log's files. DIR is the log's directory,
 * DATA/log. */
#include "gateway/main.h"

#include "core/text.h"
#include "gateway/flow/checkpoint.h"
#include "store/repair.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATH_BYTES (STORE_PATH_BYTES + 64)

static const char usage_log[] =
    "usage: roost log verify DIR   check every record\n"
    "       roost log stat DIR     segments, records, times, what a start would replay\n"
    "       roost log dump DIR     headers of batches and records, never content\n"
    "       roost log trace DIR MESSAGE_ID | CONVERSATION:SEQ\n"
    "                              one message's life as far as the log knows it\n"
    "       roost log repair DIR --quarantine QDIR\n"
    "                              damaged ranges are copied to QDIR; the log serves the rest\n"
    "DIR is the log's directory, DATA/log. All but repair only read and may run beside a gateway.\n"
    "COLD is store.cold_directory, where that is set: old archives are there.\n"
    "roost log COMMAND --help says more. Exit: 0 done, 1 failed or damage found, 2 wrong usage.\n";

static const char usage_verify[] = "usage: roost log verify DIR [--cold COLD]\n"
                                   "Reads every byte of the log and says what is not as it was "
                                   "written. Exit 1: there is damage. A\n"
                                   "torn tail is none: it was not acknowledged, and the next start "
                                   "cuts it. Beside a running gateway\n"
                                   "the batch that is being written may show as one.\n";

static const char usage_stat[] =
    "usage: roost log stat DIR [--cold COLD] [--json]\n"
    "Segments by state, bytes, records by kind, conversations (within 2 %), oldest and newest "
    "batch,\n"
    "the catalog's checkpoint (DIR/../catalog) and what a start would replay from it, free space.\n"
    "Reads the whole log once.\n";

static const char usage_dump[] = "usage: roost log dump DIR [--conversation ID [--from SEQ] [--to "
                                 "SEQ]] [--segment ID]\n"
                                 "                      [--cold COLD] [--json]\n"
                                 "One line per batch and record, in the log's order: headers only. "
                                 "With --conversation only its\n"
                                 "records, with numbers from … to. --segment takes the hex number "
                                 "of the file's name. --json: one\n"
                                 "object a line.\n";

static const char usage_trace[] =
    "usage: roost log trace DIR MESSAGE_ID | CONVERSATION:SEQ [--cold COLD] [--json]\n"
    "When the message was accepted, in which batch it was written, by when that was durable, and "
    "the\n"
    "first watermark of each device (delivered) and user (read) that reaches it. Watermarks are\n"
    "coalesced: it was delivered or read at that time or before. Exit 1: it is not in the log.\n";

static const char usage_repair[] =
    "usage: roost log repair DIR --quarantine QDIR [--cold COLD]\n"
    "With the gateway stopped. Each damaged range below the durable mark is copied to QDIR, with "
    "a\n"
    "description (JSON: place, conversations and numbers as far as they are known); records that "
    "say\n"
    "\"lost\" take its place, so that the log serves everything else and names what is missing. "
    "Sound\n"
    "records keep their places, nothing is cut. What stands above the mark is a torn tail: the "
    "next\n"
    "start cuts it. A damaged archive is written anew from what is sound in it, which takes as "
    "much "
    "free\n"
    "space as it has bytes. A second run finds nothing to do. Make a copy of DIR first if you "
    "can.\n";

static int explain_failure(const char *directory, enum err err)
{
    char text[PATH_BYTES + 128];
    const char *advice = "";
    if (err == ERR_NOT_FOUND)
        advice = ": there is no log: name the log directory of a store, like ./data/log";
    else if (err == ERR_NEWER)
        advice = ": written by a newer roost: use that one";
    else if (err == ERR_IO)
        advice = ": the device cannot read it";
    snprintf(text, sizeof text, "%s: %s%s", directory, err_name(err), advice);
    return command_fail(text);
}

static int verify(int count, char **arguments)
{
    const char *cold = NULL;
    const struct option_spec specs[] = {{"--cold", &cold, NULL}};
    const char *directory;
    bool help;
    if (!options_parse(count, arguments, specs, COUNT_OF(specs), &directory, 1, usage_verify,
                       &help))
        return 2;
    if (help)
        return 0;
    enum err err = log_verify(directory, cold, print_line, NULL);
    if (err != ERR_CORRUPT)
        return err == OK ? 0 : explain_failure(directory, err);
    char text[PATH_BYTES + 256];
    snprintf(
        text, sizeof text,
        "%s is damaged. Restore the files from a back-up, or stop the gateway and run: roost log "
        "repair %s --quarantine DIRECTORY (copies what is damaged away; the rest is served)",
        directory, directory);
    return command_fail(text);
}

/* checkpoint_of: of the catalog beside the first lane; UINT64_MAX: there is none, or it cannot be
 * read. */
static uint64_t checkpoint_of(const char *directory)
{
    char path[PATH_BYTES];
    struct catalog *catalog;
    struct checkpoint_meta meta;
    const char *why;
    snprintf(path, sizeof path, "%s/../catalog", directory);
    if (catalog_open_beside(&catalog, path, &why) != OK)
        return UINT64_MAX;
    enum err err = checkpoint_read_meta(catalog, &meta);
    catalog_close(catalog);
    return err == OK && meta.lanes != 0 ? meta.positions[0] : UINT64_MAX;
}

static int stat(int count, char **arguments)
{
    struct inspect_output out = {.line = print_line};
    const char *cold = NULL;
    const struct option_spec specs[] = {{"--json", NULL, &out.json}, {"--cold", &cold, NULL}};
    const char *directory;
    bool help;
    if (!options_parse(count, arguments, specs, COUNT_OF(specs), &directory, 1, usage_stat, &help))
        return 2;
    if (help)
        return 0;
    enum err err = log_stat(directory, cold, checkpoint_of(directory), &out);
    return err == OK ? 0 : explain_failure(directory, err);
}

static bool parse_number(uint64_t *out, const char *text)
{
    return text == NULL || decimal_parse(out, bytes_of_text(text)) == OK;
}

static bool parse_conversation(struct conversation_id *out, struct bytes text)
{
    uint8_t id[16];
    if (uuid_parse(id, text) != OK)
        return false;
    *out = conversation_id_decode(id);
    return true;
}

static bool parse_segment(uint32_t *out, const char *text)
{
    char *end;
    if (text == NULL)
        return true;
    unsigned long value = strtoul(text, &end, 16);
    *out = (uint32_t)value;
    return *end == 0 && value != 0 && value <= UINT32_MAX;
}

static int dump(int count, char **arguments)
{
    struct inspect_output out = {.line = print_line};
    struct dump_options options = {.to_seq = UINT64_MAX};
    const char *conversation = NULL;
    const char *from = NULL;
    const char *to = NULL;
    const char *segment = NULL;
    const struct option_spec specs[] = {{"--json", NULL, &out.json},
                                        {"--cold", &options.cold, NULL},
                                        {"--conversation", &conversation, &options.one},
                                        {"--from", &from, NULL},
                                        {"--to", &to, NULL},
                                        {"--segment", &segment, NULL}};
    const char *directory;
    bool help;
    if (!options_parse(count, arguments, specs, COUNT_OF(specs), &directory, 1, usage_dump, &help))
        return 2;
    if (help)
        return 0;
    bool sound = parse_number(&options.from_seq, from) && parse_number(&options.to_seq, to) &&
                 parse_segment(&options.segment, segment) &&
                 (conversation == NULL ||
                  parse_conversation(&options.conversation, bytes_of_text(conversation))) &&
                 (options.one || (from == NULL && to == NULL));
    if (!sound) {
        fputs(usage_dump, stderr);
        return 2;
    }
    enum err err = log_dump(directory, &options, &out);
    return err == OK ? 0 : explain_failure(directory, err);
}

static bool parse_subject(struct trace_subject *subject, const char *text)
{
    const char *colon = strchr(text, ':');
    *subject = (struct trace_subject){.by_id = colon == NULL};
    if (colon == NULL)
        return uuid_parse(subject->id.v, bytes_of_text(text)) == OK;
    return parse_conversation(&subject->conversation, bytes_of(text, (size_t)(colon - text))) &&
           parse_number(&subject->seq, colon + 1);
}

static int trace(int count, char **arguments)
{
    struct inspect_output out = {.line = print_line};
    const char *cold = NULL;
    const struct option_spec specs[] = {{"--json", NULL, &out.json}, {"--cold", &cold, NULL}};
    struct trace_subject subject;
    const char *operands[2];
    bool help;
    if (!options_parse(count, arguments, specs, COUNT_OF(specs), operands, 2, usage_trace, &help))
        return 2;
    if (help)
        return 0;
    if (!parse_subject(&subject, operands[1])) {
        fputs(usage_trace, stderr);
        return 2;
    }
    subject.cold = cold;
    enum err err = log_trace(operands[0], &subject, &out);
    if (err == ERR_NOT_FOUND)
        return command_fail("that message is not in the log: never accepted, expired, or damaged "
                            "(see log verify)");
    return err == OK ? 0 : explain_failure(operands[0], err);
}

static int explain_repair(const char *directory, const char *quarantine, enum err err)
{
    char text[2 * PATH_BYTES + 128];
    if (err == ERR_BUSY)
        snprintf(text, sizeof text, "a gateway runs on %s: stop it first", directory);
    else if (err == ERR_NOT_FOUND)
        snprintf(text, sizeof text, "%s is no log's directory (or %s cannot be made)", directory,
                 quarantine);
    else
        snprintf(text, sizeof text,
                 "%s: stopped (%s): what was repaired so far is; remove the cause and run it again",
                 directory, err_name(err));
    return command_fail(text);
}

static int repair(int count, char **arguments)
{
    const struct inspect_output out = {.line = print_line};
    const char *quarantine = NULL;
    const char *cold = NULL;
    const struct option_spec specs[] = {{"--quarantine", &quarantine, NULL},
                                        {"--cold", &cold, NULL}};
    struct repair_report report;
    const char *directory;
    bool help;
    if (!options_parse(count, arguments, specs, COUNT_OF(specs), &directory, 1, usage_repair,
                       &help))
        return 2;
    if (help)
        return 0;
    if (quarantine == NULL) {
        fputs(usage_repair, stderr);
        return 2;
    }
    enum err err = log_repair(directory, cold, quarantine, command_now_ms(), &out, &report);
    if (err != OK)
        return explain_repair(directory, quarantine, err);
    if (report.ranges == 0) {
        puts("nothing to repair");
        return 0;
    }
    printf(
        "%" PRIu64 " damaged ranges, %" PRIu64 " repaired; %" PRIu64 " records lost, %" PRIu64
        " of them with known conversation and number: see %s/*.json\n"
        "Next: start the gateway. Clients that ask for what is lost are told MISSING_RANGE. If a "
        "back-up has it, keep it beside %s.\n",
        report.ranges, report.repaired, report.lost, report.lost_known, quarantine, quarantine);
    return report.repaired == report.ranges ? 0 : 1;
}

int main_log(int count, char **arguments)
{
    static const struct {
        const char *name;
        int (*run)(int count, char **arguments);
    } commands[] = {
        {"verify", verify}, {"stat", stat}, {"dump", dump}, {"trace", trace}, {"repair", repair}};
    for (size_t i = 0; count > 0 && i < COUNT_OF(commands); i++)
        if (strcmp(arguments[0], commands[i].name) == 0)
            return commands[i].run(count - 1, arguments + 1);
    bool help = count > 0 && strcmp(arguments[0], "--help") == 0;
    fputs(usage_log, help ? stdout : stderr);
    return help ? 0 : 2;
}
