/* points.c: see points.h. Of eight points one is drawn anywhere in the recording; two right behind
 * a mark, where an acknowledgement has just been given and nothing after it is safe; five in turn
 * from the phases that the store was in, however short they were. Where a load does not tell its
 * phases half are drawn anywhere. A control's points lie where something is owed (tap.c). */
#include "tests/crash/points.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* A phase gets one in FAIR_SHARE × their number of the points at least: in turn they are given five
 * of eight, or of sixteen where moves get as many. */
#define FAIR_SHARE 4u

struct places {
    const struct device_log *log;
    size_t *of[PHASE_COUNT]; /* how many events to cut behind */
    size_t count[PHASE_COUNT];
    size_t *owed;
    size_t owed_count;
    uint32_t *phases; /* of each such number of events */
};

uint64_t points_random(uint64_t *state, uint64_t below)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return (*state >> 11) % below;
}

/* ledger: what a control owes since the newest flush, which pays everything: SYNC: what it has
 * acknowledged; DIRECTORY: what it has read as gone by an archive that was named since. */
struct ledger {
    enum skip control;
    struct mark_line newest;
    uint32_t paid; /* names, at the newest flush */
    bool owes;
};

static void ledger_mark(struct ledger *ledger, const char *text)
{
    struct mark_line mark;
    if (!mark_line_parse(&mark, text))
        return;
    if (ledger->control == SKIP_SYNC)
        ledger->owes = ledger->owes || mark.acked > ledger->newest.acked;
    if (ledger->control == SKIP_DIRECTORY)
        ledger->owes =
            ledger->owes || (mark.gone > ledger->newest.gone && mark.seen > ledger->paid);
    ledger->newest = mark;
}

static void ledger_flush(struct ledger *ledger)
{
    ledger->paid = ledger->newest.owed;
    ledger->owes = false;
}

static void places_init(struct places *places, const struct device_log *log, enum skip control)
{
    *places = (struct places){.log = log};
    places->phases = calloc(log->count + 1, sizeof *places->phases);
    places->owed = calloc(log->count + 1, sizeof *places->owed);
    CHECK(places->phases != NULL && places->owed != NULL);
    for (uint32_t phase = 0; phase < PHASE_COUNT; phase++) {
        places->of[phase] = calloc(log->count + 1, sizeof *places->of[phase]);
        CHECK(places->of[phase] != NULL);
    }
    struct ledger ledger = {.control = control};
    for (size_t at = 1; at <= log->count; at++) {
        const struct device_event *event = &log->events[at - 1];
        if (event->kind == DEVICE_MARK)
            ledger_mark(&ledger, (const char *)event->data);
        else if (event->kind == DEVICE_FLUSH)
            ledger_flush(&ledger);
        uint32_t phases = places->phases[at] = ledger.newest.phases;
        for (uint32_t phase = 0; phase < PHASE_COUNT; phase++)
            if ((phases >> phase & 1) != 0)
                places->of[phase][places->count[phase]++] = at;
        if (ledger.owes || (control != SKIP_DIRECTORY && ledger.newest.owed != 0))
            places->owed[places->owed_count++] = at;
    }
}

static void places_deinit(struct places *places)
{
    for (uint32_t phase = 0; phase < PHASE_COUNT; phase++)
        free(places->of[phase]);
    free(places->phases);
    free(places->owed);
}

static int point_compare(const void *a, const void *b)
{
    const struct point *x = a;
    const struct point *y = b;
    return x->at < y->at ? -1 : x->at > y->at;
}

/* behind_mark: right behind the first mark at or after a drawn place, or the last one. */
static size_t behind_mark(const struct device_log *log, size_t at)
{
    while (at < log->count && log->events[at].kind != DEVICE_MARK)
        at++;
    while (at > 0 && (at == log->count || log->events[at].kind != DEVICE_MARK))
        at--;
    return at + 1;
}

/* in_phase: the next phase in turn that there is, of moves only or of all; false: there is none. */
static bool in_phase(const struct places *places, bool move, uint32_t *turn, uint64_t *random,
                     size_t *at)
{
    uint32_t first = move ? PHASE_MOVE_WRITE : 0;
    uint32_t phases = move ? PHASE_MOVE_CLEAR - PHASE_MOVE_WRITE + 1 : PHASE_COUNT;
    for (uint32_t i = 0; i < phases; i++) {
        *turn = first + (*turn + 1 - first) % phases;
        size_t count = places->count[*turn];
        if (count == 0)
            continue;
        *at = places->of[*turn][points_random(random, count)];
        return true;
    }
    return false;
}

static void draw_control(const struct places *places, struct point *point, uint64_t *random)
{
    point->at = places->owed[points_random(random, places->owed_count)];
    /* a cache that is lost, or written in any order */
    point->survival = points_random(random, 2) == 0 ? DEVICE_NONE : DEVICE_FEW;
}

struct point *points_draw(const struct device_log *log, uint64_t count, enum skip control,
                          bool moves, uint64_t *random)
{
    struct places places;
    uint32_t turns[2] = {0, PHASE_MOVE_CLEAR};
    places_init(&places, log, control);
    bool possible = control == SKIP_NONE || places.owed_count > 0;
    struct point *points = possible ? calloc(count, sizeof *points) : NULL;
    CHECK(!possible || points != NULL);
    for (uint64_t i = 0; i < count && possible; i++) {
        struct point *point = &points[i];
        point->at = points_random(random, log->count + 1);
        point->survival = points_random(random, DEVICE_SURVIVAL_COUNT);
        bool move = moves && i / 8 % 2 == 0;
        bool phased = i % 8 < 5 && in_phase(&places, move, &turns[move], random, &point->at);
        if (!phased && i % 2 == 0)
            point->at = behind_mark(log, point->at);
        if (control != SKIP_NONE)
            draw_control(&places, point, random);
        point->seed = points_random(random, 1u << 30);
        point->phases = places.phases[point->at];
    }
    if (control != SKIP_NONE)
        printf("    | something is owed behind %zu of %zu events\n", places.owed_count, log->count);
    if (possible)
        qsort(points, count, sizeof *points, point_compare);
    places_deinit(&places);
    return points;
}

const char *points_lacking(const struct device_log *log, bool repair)
{
    struct places places;
    const char *lacking = NULL;
    size_t told = 0;
    places_init(&places, log, SKIP_NONE);
    for (uint32_t phase = 0; phase < PHASE_COUNT; phase++)
        told += places.count[phase];
    uint32_t end = repair ? PHASE_COUNT : PHASE_REPAIR;
    for (uint32_t phase = repair ? PHASE_REPAIR : 0; phase < end && told != 0; phase++)
        if (places.count[phase] == 0)
            lacking = phase_name(phase);
    places_deinit(&places);
    return lacking;
}

bool points_table(const struct point *points, uint64_t count, const char *name, bool repair)
{
    uint64_t in[PHASE_COUNT] = {0};
    uint64_t told = 0;
    for (uint64_t i = 0; i < count; i++) {
        told += points[i].phases != 0;
        for (uint32_t phase = 0; phase < PHASE_COUNT; phase++)
            in[phase] += points[i].phases >> phase & 1;
    }
    if (told == 0)
        return true;
    bool fair = true;
    uint32_t end = repair ? PHASE_COUNT : PHASE_REPAIR;
    uint32_t begin = repair ? PHASE_REPAIR : 0;
    for (uint32_t phase = begin; phase < end; phase++) {
        bool few = in[phase] < count / (FAIR_SHARE * (end - begin));
        printf("%s: %6" PRIu64 " %s%s\n", name, in[phase], phase_name(phase),
               few ? ": too few" : "");
        fair = fair && !few;
    }
    return fair;
}
