/* writer.c: see writer.h and phase.h, which has the marks. */
#include "tests/crash/writer.h"

#include "core/file.h"
#include "core/logging.h"
#include "tests/crash/load.h"
#include "tests/crash/repair.h"
#include "tests/crash/tap.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define WAITING_MAX   2 /* sealed segments that wait for a merge, before the load waits for it */
#define OBSERVE_EVERY 150u
#define COOKIE_MARK   (1ull << 63) /* what a device said behind a record: of load_mark */

struct writer {
    struct load *load;
    enum skip skip;
    uint64_t records; /* to be appended */
    int control;
    uint64_t appended; /* number of the next record */
    uint64_t acked;
    bool marking;    /* what a device says behind the newest record is to be appended */
    uint64_t told;   /* what devices say behind records 0 … told-1 is acknowledged */
    uint64_t untold; /* appended, and not */
    uint64_t checkpoint;
    uint64_t below;
    uint64_t told_below;
    uint64_t clock_ms;
    uint32_t owed;  /* at the newest swap whose effect was read (load.h) */
    uint64_t swaps; /* up to here all of them have been read */
    uint64_t gone; /* records read as gone; each a line of gone_file, in the order of its reading */
    FILE *gone_file;
    uint8_t states[LOAD_RECORDS_MAX];
    bool known_gone[LOAD_RECORDS_MAX];
};

static void promise(const struct writer *w)
{
    char line[200];
    int size = snprintf(line, sizeof line,
                        "acked=%" PRIu64 " checkpoint=%" PRIu64 " below=%" PRIu64 " clock=%" PRIu64
                        " told=%" PRIu64 " told_below=%" PRIu64 " gone=%" PRIu64 " seen=%" PRIu32,
                        w->acked, w->checkpoint, w->below, w->clock_ms, w->told, w->told_below,
                        w->gone, w->owed);
    CHECK(size > 0 && size < (int)sizeof line);
    tap_promise(line);
}

static void clock_to(struct writer *w, uint64_t clock_ms)
{
    if (clock_ms <= w->clock_ms)
        return;
    w->clock_ms = clock_ms;
    promise(w);
    tap_clock_set(clock_ms);
}

/* take: count what was acknowledged. */
static void take(struct writer *w)
{
    struct log_completion done;
    while (log_completed(w->load->log, &done)) {
        CHECK(done.err == OK);
        if ((done.cookie & COOKIE_MARK) != 0) {
            w->told = (done.cookie & ~COOKIE_MARK) + 1;
            w->untold--;
            continue;
        }
        CHECK(done.cookie == w->acked);
        w->acked++;
    }
}

static bool append_mark(struct writer *w)
{
    struct log_record mark;
    uint64_t n = w->appended - 1;
    if (!w->marking)
        return true;
    CHECK(load_mark(w->load, &mark, n));
    if (log_append(w->load->log, &mark, n | COOKIE_MARK) != OK)
        return false;
    w->untold++;
    w->marking = false;
    return true;
}

/* sets: some record of them sets a retention. */
static bool sets(uint64_t from, uint64_t to)
{
    while (from < to && !load_sets(from))
        from++;
    return from < to;
}

static void burst(struct writer *w, uint64_t until)
{
    uint64_t count = 1 + load_hash(w->appended + 7) % 24;
    uint64_t end = w->appended + count < until ? w->appended + count : until;
    struct log_record mark;
    if (sets(w->below, w->appended)) /* until it is known, what is due is not either */
        end = w->appended;
    for (uint64_t n = w->appended; n < end; n++)
        if (load_sets(n))
            end = n + 1;
    if (w->appended < end)
        clock_to(w, load_time_ms(end - 1));
    while (append_mark(w) && w->appended < end) {
        struct log_record record = load_record(w->load, w->appended);
        if (log_append(w->load->log, &record, w->appended) != OK)
            return;
        w->marking = load_mark(w->load, &mark, w->appended++);
    }
}

/* observe: what is read as gone stays so. */
static void observe(struct writer *w)
{
    uint64_t count;
    uint64_t before = w->gone;
    uint64_t swaps = w->load->swaps;
    CHECK(load_read(w->load, w->states, &count) && count <= w->appended && count >= w->acked);
    for (uint64_t n = 0; n < w->acked; n++) { /* more becomes durable while it is read */
        CHECK(w->states[n] != LOAD_MISSING);
        CHECK(w->states[n] == LOAD_THERE || load_may_go(n, w->clock_ms, w->below));
        CHECK(w->states[n] == LOAD_GONE || !w->known_gone[n]);
        if (w->states[n] == LOAD_THERE || w->known_gone[n])
            continue;
        w->known_gone[n] = true;
        fprintf(w->gone_file, "%" PRIu64 "\n", n);
        w->gone++;
    }
    CHECK(fflush(w->gone_file) == 0);
    bool one = swaps == w->swaps + 1 && w->load->swaps == swaps;
    if (w->load->swaps == swaps)
        w->swaps = swaps;
    if (w->gone == before)
        return;
    if (one) /* all that is new comes from that one */
        w->owed = w->load->swap_owed;
    promise(w);
}

static void take_checkpoint(struct writer *w)
{
    take(w);
    w->checkpoint = log_durable(w->load->log);
    w->below = w->acked;
    w->told_below = w->told;
    promise(w);
    w->load->known = w->below;
    log_checkpointed(w->load->log, w->checkpoint);
}

/* watch: while nothing is appended, whose syncs would make everything durable, let what is due
 * happen, and observe the effect of each job before the next one syncs anything. */
static void watch(struct writer *w)
{
    for (uint32_t idle = 0; idle < 3;) {
        uint64_t swaps = w->load->swaps;
        load_turn(w->load);
        if (w->load->swaps != swaps)
            observe(w);
        log_flush(w->load->log);
        idle = log_jobs(w->load->log) == 0 ? idle + 1 : 0;
    }
}

static bool behind(const struct writer *w)
{
    return w->load->options.merge_inputs != 0 &&
           metrics_sum(&w->load->metrics, 1, METRIC_MERGE_WAITING) > WAITING_MAX;
}

static void live(struct writer *w, uint64_t until)
{
    uint64_t observed = w->acked;
    while (w->acked < until || w->marking || w->untold != 0) {
        uint64_t before = w->acked;
        uint64_t told = w->told;
        if (!behind(w) && (w->skip != SKIP_DIRECTORY || w->acked == w->appended))
            burst(w, until);
        else if (w->checkpoint < log_durable(w->load->log))
            take_checkpoint(w); /* what stands above one is not merged */
        load_turn(w->load);
        take(w);
        if (w->acked == before && w->told == told)
            continue;
        promise(w);
        if (load_hash(w->acked) % 4 == 0 || sets(w->below, w->acked))
            take_checkpoint(w);
        if (w->skip == SKIP_NONE && w->acked - observed >= OBSERVE_EVERY) {
            observe(w);
            observed = w->acked;
        }
        if (w->skip == SKIP_DIRECTORY && w->acked == w->appended)
            watch(w);
    }
}

/* life: open, append, let everything that is due happen, close. */
static void life(struct writer *w, uint64_t number, uint64_t until)
{
    uint64_t damaged;
    struct log_options options = load_options(w->load, number);
    options.checkpoint = w->checkpoint;
    if (w->skip == SKIP_SYNC) { /* large segments: making one syncs, and a sync of any file is one
                                   of the whole disk */
        options.segment_bytes = 8 << 20;
        options.merge_inputs = 0;
        options.skip_sync = true;
    }
    if (w->skip == SKIP_DIRECTORY)
        options.spare_segments = 0; /* wiping one syncs */
    CHECK(load_open(w->load, &options, &damaged) == OK);
    CHECK(damaged == 0 && !w->load->wrong);
    live(w, until);
    if (w->skip != SKIP_SYNC && w->skip != SKIP_DIRECTORY) {
        take_checkpoint(w);
        load_settle(w->load);
        observe(w);
    }
    if (w->skip == SKIP_NONE && number + 1 == LOAD_LIVES) { /* everything becomes due */
        clock_to(w, w->clock_ms + 9 * LOAD_DAY_MS);
        load_settle(w->load);
        observe(w);
    }
    log_close(w->load->log);
}

/* say_done: what happened at all; the lab's table says where the cuts fell. */
static void say_done(const struct writer *w)
{
    struct metrics *metrics = w->load->metrics;
    printf("%" PRIi64 " inputs merged, %" PRIi64 " moved, %" PRIi64 " recycled; %" PRIi64
           " records expired, %" PRIi64 " retained away, %" PRIu64 " seen as gone\n",
           metrics_sum(&metrics, 1, METRIC_MERGE_INPUTS),
           metrics_sum(&metrics, 1, METRIC_MOVED_COLD),
           metrics_sum(&metrics, 1, METRIC_LOG_RECYCLED),
           metrics_sum(&metrics, 1, METRIC_RECORDS_EXPIRED),
           metrics_sum(&metrics, 1, METRIC_RECORDS_RETAINED_AWAY), w->gone);
}

static struct writer *writer_create(void)
{
    char path[300];
    struct writer *w = calloc(1, sizeof *w);
    CHECK(w != NULL);
    w->load = load_create();
    w->skip = skip_parse(load_environment("CRASH_SKIP"));
    w->records = strtoull(load_environment("CRASH_RECORDS"), NULL, 10);
    w->control = open(load_environment("CRASH_CONTROL"), O_WRONLY | O_CLOEXEC);
    CHECK(w->control >= 0 && w->skip < SKIP_COUNT && w->records < LOAD_RECORDS_MAX / 2);
    snprintf(path, sizeof path, "%s/gone", load_environment("CRASH_SCRATCH"));
    w->gone_file = fopen(path, "w");
    CHECK(w->gone_file != NULL && file_make_directory(w->load->cold) == OK);
    logging_init(LOG_WARN, LOG_KEY_VALUE);
    tap_start(w->control, w->skip);
    clock_to(w, LOAD_START_MS);
    return w;
}

static void writer_destroy(struct writer *w)
{
    fclose(w->gone_file);
    close(w->control);
    load_destroy(w->load);
    free(w);
}

int writer_write(void)
{
    struct writer *w = writer_create();
    uint64_t lives = w->skip == SKIP_SYNC ? 1 : LOAD_LIVES;
    for (uint64_t i = 0; i < lives; i++)
        life(w, i, w->records * (i + 1) / lives);
    say_done(w);
    writer_destroy(w);
    return 0;
}

int writer_repair(void)
{
    struct writer *w = writer_create();
    life(w, 0, w->records / 4);
    life(w, 1, w->records / 2);
    uint64_t damaged;
    struct log_options options = load_options(w->load, 2);
    options.checkpoint = w->checkpoint;
    options.merge_inputs = 0; /* some segments stay segments */
    CHECK(load_open(w->load, &options, &damaged) == OK && damaged == 0);
    live(w, w->records * 3 / 4);
    load_settle(w->load);
    take_checkpoint(w);
    log_close(w->load->log);
    repair_write(w->load, w->checkpoint, w->control);
    writer_destroy(w);
    return 0;
}
