/* revoked.c: see revoked.h. */
#include "gateway/flow/revoked.h"

#include "core/logging.h"
#include "gateway/flow/shard.h"

struct revoked {
    struct revoked *next;
    struct user_id user;
    struct device_id device;
    uint64_t generation;
    uint64_t until_ns;
};

static void drop_oldest(struct shard *shard)
{
    struct revoked *oldest = shard->revoked_oldest;
    shard->revoked_oldest = oldest->next;
    if (shard->revoked_oldest == NULL)
        shard->revoked_newest = NULL;
    shard->revoked_count--;
    memory_give(oldest, MEMORY_CHAT);
}

static void drop_due(struct shard *shard)
{
    while (shard->revoked_oldest != NULL && shard->revoked_oldest->until_ns <= shard->now_ns)
        drop_oldest(shard);
}

void revoked_add(struct shard *shard, struct user_id user, struct device_id device,
                 uint64_t generation)
{
    drop_due(shard);
    if (shard->revoked_count == REVOKED_MAX)
        drop_oldest(shard);
    struct revoked *revoked = memory_take(sizeof *revoked, MEMORY_CHAT);
    if (revoked == NULL) {
        log_event(LOG_ERROR, "revocation_lost", LOG_U64("user", user.v),
                  LOG_TEXT("effect", "a session that begins now lives until its token expires"));
        return;
    }
    uint64_t keep_ns =
        REVOKED_KEEP_NS + shard->gateway->config->hello_timeout_ms * (uint64_t)NS_PER_MS;
    *revoked = (struct revoked){NULL, user, device, generation, shard->now_ns + keep_ns};
    if (shard->revoked_newest != NULL)
        shard->revoked_newest->next = revoked;
    else
        shard->revoked_oldest = revoked;
    shard->revoked_newest = revoked;
    shard->revoked_count++;
}

bool revoked_recently(struct shard *shard, struct user_id user, struct device_id device,
                      uint64_t generation)
{
    drop_due(shard);
    for (const struct revoked *r = shard->revoked_oldest; r != NULL; r = r->next)
        if (r->user.v == user.v && r->device.v == device.v && generation <= r->generation)
            return true;
    return false;
}

void revoked_free_all(struct shard *shard)
{
    while (shard->revoked_oldest != NULL)
        drop_oldest(shard);
}
