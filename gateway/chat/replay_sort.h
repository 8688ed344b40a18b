/* replay_sort.h: what is merged in memory, in the order of the rows' keys.
 * Flow:       replay.c, before it reads rows and before it writes them → replay_sort
 * Owns:       nothing
 * Bounds:     n log n comparisons; as much memory again, the caller's */
#ifndef GATEWAY_CHAT_REPLAY_SORT_H
#define GATEWAY_CHAT_REPLAY_SORT_H

#include <stddef.h>
#include <stdint.h>

struct replay_entry;

/* replay_place: a conversation as one of its members sees it. */
struct replay_place {
    uint64_t user;
    uint64_t peer;
    struct replay_entry *entry;
};

static inline int replay_place_before(const struct replay_place *a, const struct replay_place *b)
{
    return a->user != b->user ? a->user < b->user : a->peer < b->peer;
}

/* replay_sort: by user, then by peer; spare: room for count of them. */
void replay_sort(struct replay_place *places, struct replay_place *spare, size_t count);

#endif
