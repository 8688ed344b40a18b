/* points.h: where the power is cut.
 * Flow:       lab.c: the recording → points_draw → each tried → points_table
 * Bounds:     64 B a point */
#ifndef TESTS_CRASH_POINTS_H
#define TESTS_CRASH_POINTS_H

#include "tests/crash/device.h"
#include "tests/crash/phase.h"

struct point {
    size_t at;
    enum device_survival survival;
    uint64_t seed;
    const char *mark;
    uint32_t phases; /* that it falls into */
    /* of what the check wrote, if it is cut again */
    size_t second;
    uint64_t second_seed;
};

uint64_t points_random(uint64_t *state, uint64_t below);
/* points_draw: in ascending order, the caller's to free. moves: of those that are drawn by phase
 * half lie in moves to the cold tier. NULL, said: the recording has no place for
 * that control. */
struct point *points_draw(const struct device_log *log, uint64_t count, enum skip control,
                          bool moves, uint64_t *random);
/* points_lacking: a phase, of `log repair` or of the rest, in which the store never was; NULL:
 * there is none, or the load does not tell its phases. */
const char *points_lacking(const struct device_log *log, bool repair);
/* points_table: how many fell into each phase, of `log repair` or of the rest. false: too few into
 * some; true where the load does not tell its phases. */
bool points_table(const struct point *points, uint64_t count, const char *name, bool repair);

#endif
