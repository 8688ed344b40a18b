/* check.c: see writer.h.
 *
 *   open, read everything, compare with the mark → close or not → open again, the same must be
 *   there → in some points: open with merging and a later clock, append, until nothing is due: what
 *   was there and is not due is there, what was gone is → close, verify */
#include "core/file.h"
#include "core/logging.h"
#include "tests/crash/load.h"
#include "tests/crash/tap.h"
#include "tests/crash/writer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define EXTRA    20u /* records that a check appends */
#define FINDS    7u  /* of so many records about two are looked up by their ids */
#define GOES_ON  4u  /* one point in so many: what that takes is most of a point's time */
#define LATER_MS (2 * LOAD_DAY_MS)

struct check {
    struct load *load;
    uint64_t seed;
    struct mark_line mark; /* its clock moved on, if a check has gone on with this disk before */
    uint64_t count;        /* records that there were before the cut, acknowledged or not */
    uint8_t states[LOAD_RECORDS_MAX];
    uint8_t later[LOAD_RECORDS_MAX];
};

static void read_mark(struct check *check)
{
    const char *text = load_environment("CRASH_MARK");
    bool again = strcmp(load_environment("CRASH_AGAIN"), "1") == 0;
    check->seed = strtoull(load_environment("CRASH_SEED"), NULL, 10);
    if (!mark_line_parse(&check->mark, text))
        check->mark.clock_ms = LOAD_START_MS;
    if (again)
        check->mark.clock_ms += LATER_MS;
    tap_clock_set(check->mark.clock_ms);
    check->load->known = check->mark.below;
}

/* open_log: from the mark's checkpoint or from the beginning; merging or still. CHECK_KEPT: it is.
 */
static int open_log(struct check *check, uint64_t seed, bool merging)
{
    uint64_t damaged;
    struct log_options options = load_options(check->load, seed / 2);
    options.checkpoint = seed % 2 == 0 && !merging ? 0 : check->mark.checkpoint;
    if (!merging)
        options.merge_inputs = 0;
    enum err err = load_open(check->load, &options, &damaged);
    if (err != OK) {
        printf("does not open: %s\n", err_name(err));
        return CHECK_BAD;
    }
    if (damaged != 0)
        printf("%" PRIu64 " records reported damaged\n", damaged);
    return damaged != 0 ? CHECK_LOST : check->load->wrong ? CHECK_BAD : CHECK_KEPT;
}

/* ---- what must be there */

/* stays_gone: what was read as gone before the cut; a list of numbers, one a line. */
static int stays_gone(const struct check *check)
{
    char path[300];
    snprintf(path, sizeof path, "%s/gone", load_environment("CRASH_SCRATCH"));
    FILE *file = fopen(path, "r");
    CHECK(file != NULL);
    int result = CHECK_KEPT;
    for (uint64_t i = 0; i < check->mark.gone && result == CHECK_KEPT; i++) {
        uint64_t n = 0;
        CHECK(fscanf(file, "%" SCNu64, &n) == 1 && n < LOAD_RECORDS_MAX);
        if (check->states[n] == LOAD_GONE)
            continue;
        printf("record %" PRIu64 " was gone and is %s\n", n,
               check->states[n] == LOAD_THERE ? "back" : "not known any more");
        result = CHECK_BAD;
    }
    fclose(file);
    return result;
}

/* replayed: of what stands behind the checkpoint nothing is left out, and nothing is invented or
 * told to be gone that is not. */
static bool replayed(const struct check *check)
{
    uint64_t from = check->load->options.checkpoint == 0 ? 0 : check->mark.below;
    for (uint64_t n = 0; n < check->count; n++) {
        bool there = check->states[n] == LOAD_THERE;
        if (check->load->replayed[n] ? !there : there && n >= from) {
            printf("record %" PRIu64 " is %s, and was %s\n", n, there ? "there" : "not there",
                   check->load->replayed[n] ? "replayed" : "not replayed");
            return false;
        }
        if (check->load->replayed_gone[n] && check->states[n] != LOAD_GONE) {
            printf("record %" PRIu64 " was replayed as gone, and is %s\n", n,
                   there ? "there" : "not known");
            return false;
        }
    }
    return true;
}

/* told: what devices said they have got is known, from the log alone or from it and the catalog. */
static bool told(const struct check *check)
{
    struct log_record mark;
    uint64_t from = check->load->options.checkpoint == 0 ? 0 : check->mark.told_below;
    for (uint64_t n = from; n < check->mark.told; n++) {
        if (!load_mark(check->load, &mark, n))
            continue;
        uint64_t known =
            check->load->replay_mark[mark.conversation.lo - 1000][mark.sender.v - LOAD_READER];
        if (known >= mark.seq)
            continue;
        printf("user %" PRIu64 " had %" PRIu64 " of conversation %" PRIu64 ", and has %" PRIu64
               "\n",
               mark.sender.v, mark.seq, mark.conversation.lo - 1000, known);
        return false;
    }
    return true;
}

/* ids: a repeated send is known: of what is there, and of what is gone but for its id. */
static bool ids(const struct check *check, const uint8_t *states, uint64_t count, uint64_t clock_ms)
{
    for (uint64_t n = check->seed % FINDS; n < count; n += 1 + load_hash(n + check->seed) % FINDS) {
        if (states[n] != LOAD_THERE && !load_repeats(n, clock_ms))
            continue;
        enum err err = load_find(check->load, n);
        if (err == OK)
            continue;
        printf("record %" PRIu64 " is %s, and by its id %s\n", n,
               states[n] == LOAD_THERE ? "there" : "gone", err_name(err));
        return false;
    }
    return true;
}

static int judge(const struct check *check)
{
    if (check->count < check->mark.acked) {
        printf("%" PRIu64 " acknowledged, %" PRIu64 " there\n", check->mark.acked, check->count);
        return CHECK_LOST;
    }
    for (uint64_t n = 0; n < check->count; n++) {
        bool due = load_may_go(n, check->mark.clock_ms, check->mark.below);
        if (check->states[n] == LOAD_THERE || (check->states[n] == LOAD_GONE && due))
            continue;
        printf("record %" PRIu64 " is %s, of %" PRIu64 " (%" PRIu64 " acknowledged)%s\n", n,
               check->states[n] == LOAD_GONE ? "gone" : "missing", check->count, check->mark.acked,
               due ? "; it may be gone" : "");
        return CHECK_LOST;
    }
    if (!told(check) || !ids(check, check->states, check->count, check->mark.clock_ms))
        return CHECK_LOST;
    return replayed(check) ? stays_gone(check) : CHECK_BAD;
}

static int first(struct check *check)
{
    int result = open_log(check, check->seed, false);
    if (result != CHECK_KEPT)
        return result;
    if (!load_read(check->load, check->states, &check->count))
        return CHECK_LOST;
    return judge(check);
}

/* second: another recovery gives the same; before it the log was closed, or not. */
static int second(struct check *check)
{
    uint64_t count = 0;
    load_settle(check->load); /* nothing is in flight when it is abandoned */
    if (check->seed / 8 % 2 == 0)
        log_close(check->load->log);
    else
        log_abandon(check->load->log);
    check->load->log = NULL;
    int result = open_log(check, check->seed / 16, false);
    if (result != CHECK_KEPT)
        return CHECK_BAD;
    bool same = load_read(check->load, check->later, &count) && count == check->count &&
                memcmp(check->later, check->states, sizeof check->later) == 0;
    if (!same)
        printf("a second recovery gives something else: %" PRIu64 " records, not %" PRIu64 "\n",
               count, check->count);
    return same && replayed(check) && told(check) ? CHECK_KEPT : CHECK_BAD;
}

/* ---- going on */

static bool append_more(struct check *check)
{
    struct load *load = check->load;
    struct log_completion done;
    uint64_t appended = check->count;
    uint64_t acked = appended;
    while (acked < check->count + EXTRA) {
        while (appended < check->count + EXTRA) {
            struct log_record record = load_record(load, appended);
            if (log_append(load->log, &record, appended) != OK)
                break;
            appended++;
        }
        load_turn(load);
        for (; log_completed(load->log, &done); acked++)
            if (done.err != OK || done.cookie != acked)
                return false;
    }
    return true;
}

static int went_on(const struct check *check, uint64_t count)
{
    if (count != check->count + EXTRA) {
        printf("after going on %" PRIu64 " records, not %" PRIu64 "\n", count,
               check->count + EXTRA);
        return CHECK_BAD;
    }
    for (uint64_t n = 0; n < count; n++) {
        bool was_gone = n < check->count && check->states[n] == LOAD_GONE;
        bool gone = check->later[n] == LOAD_GONE;
        bool due = load_may_go(n, check->mark.clock_ms + LATER_MS, check->mark.below);
        if (check->later[n] == LOAD_THERE ? !was_gone : gone && due)
            continue;
        printf("after going on record %" PRIu64 " is %s\n", n,
               check->later[n] == LOAD_THERE ? "back"
               : gone                        ? "gone"
                                             : "missing");
        return CHECK_BAD;
    }
    return CHECK_KEPT;
}

/* third: with everything that is due at a later clock. */
static int third(struct check *check)
{
    uint64_t count = 0;
    log_close(check->load->log);
    check->load->log = NULL;
    tap_clock_set(check->mark.clock_ms + LATER_MS);
    int result = open_log(check, check->seed / 32, true);
    if (result != CHECK_KEPT)
        return CHECK_BAD;
    if (!append_more(check)) {
        printf("it does not go on\n");
        return CHECK_BAD;
    }
    load_settle(check->load);
    if (!load_read(check->load, check->later, &count))
        return CHECK_BAD;
    result = went_on(check, count);
    if (result == CHECK_KEPT && !ids(check, check->later, count, check->mark.clock_ms + LATER_MS))
        result = CHECK_LOST;
    return result;
}

static void on_finding(void *context, const char *line)
{
    (void)context;
    printf("verify: %s\n", line);
}

int writer_check(void)
{
    struct check *check = calloc(1, sizeof *check);
    CHECK(check != NULL);
    check->load = load_create();
    logging_init(LOG_INFO, LOG_KEY_VALUE);
    tap_start(-1, SKIP_NONE);
    read_mark(check);
    CHECK(file_make_directory(check->load->cold) == OK);
    int result = first(check);
    if (result == CHECK_KEPT)
        result = second(check);
    if (result == CHECK_KEPT && check->seed / 64 % GOES_ON == 0)
        result = third(check);
    if (check->load->log != NULL)
        log_close(check->load->log);
    if (result == CHECK_KEPT &&
        log_verify(check->load->directory, check->load->cold, on_finding, NULL) != OK)
        result = CHECK_BAD;
    load_destroy(check->load);
    free(check);
    return result;
}
