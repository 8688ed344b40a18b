/* repair.c: see repair.h. What was served is handed to the checks in the file "served" in
 * CRASH_SCRATCH: struct served as it is in memory. */
#include "tests/crash/repair.h"

#include "core/file.h"
#include "core/logging.h"
#include "store/repair.h"
#include "tests/crash/tap.h"
#include "tests/crash/writer.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define FILES_MAX     256u
#define SPOILT_MAX    64u
#define PATTERN_BYTES 16u
#define NAME_BYTES    160u
#define FILE_BYTES    (4u << 20)
#define SPARED        2u /* of the segments, the newest: what is damaged there may be a tail */

struct served {
    uint64_t checkpoint;
    uint64_t count; /* records that are known */
    uint64_t spoilt;
    uint8_t pattern[SPOILT_MAX][PATTERN_BYTES]; /* what the damaged places were overwritten with */
    uint8_t states[LOAD_RECORDS_MAX];
    uint8_t sound[LOAD_RECORDS_MAX]; /* … before anything was damaged: none is missing */
};

/* ---- files */

struct listed {
    char names[FILES_MAX][NAME_BYTES];
    uint32_t count;
    const char *suffix; /* NULL: all */
};

static enum err add_name(void *context, const char *name)
{
    struct listed *listed = context;
    size_t size = strlen(name);
    size_t end = listed->suffix == NULL ? 0 : strlen(listed->suffix);
    if (name[0] == '.' || size >= NAME_BYTES || size < end ||
        (end != 0 && strcmp(name + size - end, listed->suffix) != 0))
        return OK;
    CHECK(listed->count < FILES_MAX);
    memcpy(listed->names[listed->count++], name, size + 1);
    return OK;
}

static int name_compare(const void *a, const void *b)
{
    return strcmp(a, b);
}

static void list(struct listed *listed, const char *directory, const char *suffix)
{
    *listed = (struct listed){.suffix = suffix};
    enum err err = file_list(directory, add_name, listed);
    CHECK(err == OK || err == ERR_NOT_FOUND);
    qsort(listed->names, listed->count, NAME_BYTES, name_compare);
}

static void path_of(char out[400], const char *directory, const char *name)
{
    CHECK(snprintf(out, 400, "%s/%s", directory, name) < 400);
}

static void quarantine_of(char out[400])
{
    path_of(out, load_environment("CRASH_MOUNT"), "quarantine");
}

/* ---- spoiling */

/* spoil: one place of the file, anywhere or (behind) in its last quarter, is overwritten with what
 * is nowhere else. */
static void spoil(struct served *served, const char *directory, const char *name, bool behind)
{
    char path[400];
    int fd;
    uint64_t size;
    uint8_t *pattern = served->pattern[served->spoilt];
    uint64_t draw = load_hash(served->spoilt + 1000);
    CHECK(served->spoilt < SPOILT_MAX);
    store_u64(pattern, draw);
    store_u64(pattern + 8, load_hash(draw));
    path_of(path, directory, name);
    CHECK(file_open(&fd, path, FILE_WRITE) == OK && file_size(fd, &size) == OK);
    uint64_t from = behind ? size - size / 4 : 0;
    uint64_t at = from + draw % (size - from - PATTERN_BYTES);
    CHECK(file_write(fd, at, bytes_of(pattern, PATTERN_BYTES)) == OK);
    CHECK(file_sync(fd) == OK);
    file_close(fd);
    served->spoilt++;
}

/* spoil_all: of archives every other one behind its records, where the directory and states are. */
static void spoil_all(struct served *served, const struct load *load)
{
    const char *const directories[] = {load->directory, load->cold};
    static struct listed listed;
    for (size_t i = 0; i < COUNT_OF(directories); i++) {
        list(&listed, directories[i], ".archive");
        for (uint32_t j = 0; j < listed.count; j++)
            spoil(served, directories[i], listed.names[j], j % 2 == 1);
    }
    list(&listed, load->directory, ".segment");
    CHECK(listed.count > SPARED);
    for (uint32_t j = 0; j < listed.count - SPARED; j++)
        spoil(served, load->directory, listed.names[j], false);
}

/* serve: what is served now. false: it cannot be opened or read, or serves what was not written. */
static bool serve(struct load *load, uint64_t checkpoint, struct served *served)
{
    uint64_t damaged;
    struct log_options options = load_options(load, 0);
    options.checkpoint = checkpoint;
    options.merge_inputs = 0;
    load->damaged = true;
    if (load_open(load, &options, &damaged) != OK || load->wrong)
        return false;
    bool good = load_read(load, served->states, &served->count);
    load_settle(load);
    log_close(load->log);
    load->log = NULL;
    return good;
}

/* ---- repairing */

static void on_line(void *context, const char *line)
{
    (void)context;
    printf("repair: %s\n", line);
}

static bool mend(const struct load *load, uint64_t now_ms, struct repair_report *report)
{
    const struct inspect_output out = {.line = on_line};
    char quarantine[400];
    quarantine_of(quarantine);
    *report = (struct repair_report){0};
    enum err err = log_repair(load->directory, load->cold, quarantine, now_ms, &out, report);
    if (err == OK && report->ranges == report->repaired)
        return true;
    printf("repair: %s, %" PRIu64 " of %" PRIu64 " ranges\n", err_name(err), report->repaired,
           report->ranges);
    return false;
}

static void promise(uint64_t repairs)
{
    char line[100];
    CHECK(snprintf(line, sizeof line,
                   "acked=%" PRIu64 " checkpoint=0 below=0 clock=%llu told=0 told_below=0 gone=0"
                   " seen=0",
                   repairs, LOAD_START_MS) < (int)sizeof line);
    tap_promise(line);
}

static void served_path(char out[400])
{
    path_of(out, load_environment("CRASH_SCRATCH"), "served-before");
}

/* note_sound: what was there before anything is damaged. */
static void note_sound(struct served *served, struct load *load)
{
    CHECK(serve(load, served->checkpoint, served));
    for (uint64_t n = 0; n < served->count; n++)
        CHECK(served->states[n] != LOAD_MISSING);
    memcpy(served->sound, served->states, sizeof served->sound);
}

static void count_states(const struct served *served)
{
    uint64_t in[LOAD_GONE + 1] = {0};
    for (uint64_t n = 0; n < served->count; n++)
        in[served->states[n]]++;
    printf("%" PRIu64 " places damaged; of %" PRIu64 " records %" PRIu64 " served, %" PRIu64
           " missing, %" PRIu64 " gone\n",
           served->spoilt, served->count, in[LOAD_THERE], in[LOAD_MISSING], in[LOAD_GONE]);
}

void repair_write(struct load *load, uint64_t checkpoint, int control)
{
    char path[400];
    struct repair_report report;
    struct served *served = calloc(1, sizeof *served);
    CHECK(served != NULL);
    served->checkpoint = checkpoint;
    note_sound(served, load);
    spoil_all(served, load);
    CHECK(serve(load, checkpoint, served));
    served_path(path);
    FILE *file = fopen(path, "w");
    CHECK(file != NULL && fwrite(served, sizeof *served, 1, file) == 1 && fclose(file) == 0);
    int mount = open(load->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHECK(mount >= 0 && syncfs(mount) == 0 && close(mount) == 0);
    CHECK(pwrite(control, "begin", 5, 0) == 5);
    promise(0);
    tap_repair();
    CHECK(mend(load, LOAD_START_MS, &report) && report.ranges != 0);
    promise(1);
    count_states(served);
    free(served);
}

/* ---- checking */

struct repaired {
    struct load *load;
    struct mark_line mark;
    uint64_t seed;
    uint64_t now_ms; /* names what goes into quarantine */
    struct served before;
    struct served after;
    uint8_t file[FILE_BYTES];
};

static void read_before(struct repaired *r)
{
    char path[400];
    served_path(path);
    FILE *file = fopen(path, "r");
    CHECK(file != NULL && fread(&r->before, sizeof r->before, 1, file) == 1);
    fclose(file);
}

/* remains: of one record; what was missing may be found again, if as nothing but what it was. */
static bool remains(const struct repaired *r, uint64_t n)
{
    switch ((enum load_state)r->after.states[n]) {
    case LOAD_MISSING:
        return r->before.states[n] == LOAD_MISSING;
    case LOAD_THERE:
    case LOAD_GONE:
        return r->after.states[n] == r->before.sound[n];
    }
    return false;
}

/* still_served: all that was; nothing that was gone has come back, nothing else is told as gone. */
static int still_served(struct repaired *r, const char *when)
{
    if (!serve(r->load, r->before.checkpoint, &r->after)) {
        printf("%s: it does not open, or serves what was not written\n", when);
        return CHECK_BAD;
    }
    for (uint64_t n = 0; n < r->before.count; n++) {
        if (remains(r, n))
            continue;
        printf("%s: record %" PRIu64
               " was %u, damaged %u, and is %u (0 missing, 1 there, 2 gone)\n",
               when, n, r->before.sound[n], r->before.states[n], r->after.states[n]);
        return r->after.states[n] == LOAD_THERE ? CHECK_BAD : CHECK_LOST;
    }
    if (r->after.count != r->before.count)
        printf("%s: %" PRIu64 " records, and there were %" PRIu64 "\n", when, r->after.count,
               r->before.count);
    return r->after.count == r->before.count ? CHECK_KEPT : CHECK_LOST;
}

/* look_in: mark the patterns that a file of the directory has. */
static void look_in(struct repaired *r, const char *directory, bool found[SPOILT_MAX])
{
    static struct listed listed;
    char path[400];
    list(&listed, directory, NULL);
    for (uint32_t i = 0; i < listed.count; i++) {
        int fd;
        size_t size;
        path_of(path, directory, listed.names[i]);
        CHECK(file_open(&fd, path, FILE_READ) == OK &&
              file_read(fd, 0, r->file, FILE_BYTES, &size) == OK && size < FILE_BYTES);
        file_close(fd);
        for (uint64_t j = 0; j < r->before.spoilt; j++)
            found[j] =
                found[j] || memmem(r->file, size, r->before.pattern[j], PATTERN_BYTES) != NULL;
    }
}

/* kept: what was damaged is in the log, or in quarantine. */
static int kept(struct repaired *r, const char *when)
{
    char quarantine[400];
    bool found[SPOILT_MAX] = {false};
    quarantine_of(quarantine);
    look_in(r, r->load->directory, found);
    look_in(r, r->load->cold, found);
    look_in(r, quarantine, found);
    for (uint64_t i = 0; i < r->before.spoilt; i++) {
        if (found[i])
            continue;
        printf("%s: what was damaged at place %" PRIu64 " is nowhere\n", when, i);
        return CHECK_LOST;
    }
    return CHECK_KEPT;
}

static void on_finding(void *context, const char *line)
{
    (void)context;
    printf("verify: %s\n", line);
}

static int repair_again(struct repaired *r)
{
    struct repair_report report;
    if (!mend(r->load, r->now_ms, &report) || (r->mark.acked != 0 && report.ranges != 0))
        return CHECK_BAD;
    if (!mend(r->load, r->now_ms + 1, &report) || report.ranges != 0)
        return CHECK_BAD;
    bool content = log_verify(r->load->directory, r->load->cold, on_finding, NULL) == OK;
    return content ? CHECK_KEPT : CHECK_BAD;
}

int repair_check(void)
{
    struct repaired *r = calloc(1, sizeof *r);
    CHECK(r != NULL);
    r->load = load_create();
    logging_init(LOG_ERROR, LOG_KEY_VALUE);
    tap_start(-1, SKIP_NONE);
    tap_clock_set(LOAD_START_MS);
    bool again = strcmp(load_environment("CRASH_AGAIN"), "1") == 0;
    r->seed = strtoull(load_environment("CRASH_SEED"), NULL, 10);
    r->now_ms = LOAD_START_MS + (again ? 2000 : 1000);
    (void)mark_line_parse(&r->mark, load_environment("CRASH_MARK"));
    read_before(r);
    int result = kept(r, "after the cut");
    if (result == CHECK_KEPT && r->seed % 2 == 0)
        result = still_served(r, "after the cut");
    if (result == CHECK_KEPT)
        result = repair_again(r);
    if (result == CHECK_KEPT)
        result = kept(r, "after another repair");
    if (result == CHECK_KEPT)
        result = still_served(r, "after another repair");
    load_destroy(r->load);
    free(r);
    return result;
}
