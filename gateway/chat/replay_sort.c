/* replay_sort.c: see replay_sort.h. Runs of RUN places are sorted by insertion, then merged, twice
 * as long each time, there and back. (The C library's qsort calls back for each comparison, and
 * takes memory of its own that no bound of ours knows.) */
#include "gateway/chat/replay_sort.h"

#include <string.h>

#define RUN 8u

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static void insert_all(struct replay_place *places, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        struct replay_place place = places[i];
        size_t at = i;
        for (; at > 0 && replay_place_before(&place, &places[at - 1]); at--)
            places[at] = places[at - 1];
        places[at] = place;
    }
}

static void merge(struct replay_place *to, const struct replay_place *a, size_t a_count,
                  const struct replay_place *b, size_t b_count)
{
    const struct replay_place *a_end = a + a_count;
    const struct replay_place *b_end = b + b_count;
    while (a != a_end && b != b_end)
        *to++ = replay_place_before(b, a) ? *b++ : *a++;
    memcpy(to, a, (size_t)(a_end - a) * sizeof *a);
    memcpy(to + (a_end - a), b, (size_t)(b_end - b) * sizeof *b);
}

void replay_sort(struct replay_place *places, struct replay_place *spare, size_t count)
{
    struct replay_place *from = places;
    struct replay_place *to = spare;
    for (size_t at = 0; at < count; at += RUN)
        insert_all(places + at, least(RUN, count - at));
    for (size_t run = RUN; run < count; run *= 2) {
        for (size_t at = 0; at < count; at += 2 * run) {
            size_t middle = least(at + run, count);
            size_t end = least(at + 2 * run, count);
            merge(to + at, from + at, middle - at, from + middle, end - middle);
        }
        struct replay_place *swap = from;
        from = to;
        to = swap;
    }
    if (from != places)
        memcpy(places, from, count * sizeof *places);
}
