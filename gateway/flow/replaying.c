/* replaying.c: see replaying.h. */
#include "gateway/flow/replaying.h"

#define POLL_NS (100 * NS_PER_MS)

/* ---- on the catalog's writer */

/* settle: a job's body. What fails here has written nothing, or spoilt the transaction: a flush
 * comes last, and fails before its first row or in catalog_put. */
static enum err settle(struct catalog_txn *txn, struct catalog_job *job)
{
    struct replaying_group *group = CONTAINER_OF(job, struct replaying_group, job);
    struct replay *replay = group->replaying->replay;
    TRY(replay_take(replay, txn, group->records));
    group->full = replay_full(replay);
    return group->flush ? replay_flush(replay, txn) : OK;
}

/* ---- on the shard's thread */

static void on_settled(struct worker_job *job, void *shard)
{
    struct replaying_group *group = CONTAINER_OF(job, struct replaying_group, job.job);
    struct replaying *replaying = group->replaying;
    (void)shard;
    group->away = false;
    replaying->full = replaying->full || group->full;
    if (replaying->err == OK)
        replaying->err = group->job.err;
}

static void wait_for(struct replaying *replaying, const struct replaying_group *group)
{
    struct io_event events[16];
    struct worker_job *job;
    while (group->away) {
        while ((job = worker_completed(replaying->workers, replaying->shard)) != NULL)
            job->done(job, NULL);
        if (group->away)
            (void)io_poll(replaying->io, events, COUNT_OF(events),
                          io_now_ns(replaying->io) + POLL_NS);
    }
}

static void wait_for_all(struct replaying *replaying)
{
    for (uint32_t i = 0; i < REPLAYING_GROUPS; i++)
        wait_for(replaying, &replaying->groups[i]);
}

static struct replaying_group *group_after(struct replaying *replaying, uint32_t count)
{
    return &replaying->groups[(replaying->at + count) % REPLAYING_GROUPS];
}

/* submit: ERR_FULL: the queue is full of what is not ours; at a start nothing else is queued. */
static enum err submit(struct replaying *replaying, struct replaying_group *group)
{
    enum err err;
    for (uint32_t i = 1; (err = catalog_submit(replaying->catalog, replaying->workers, &group->job,
                                               true, replaying->shard)) == ERR_FULL &&
                         i < REPLAYING_GROUPS;
         i++)
        wait_for(replaying, group_after(replaying, i));
    return err;
}

/* hand_over: the group that gathers goes to the writer, the next one gathers. Nothing follows a
 * flush before it is known to be written: it would rest on rows that are not there. */
static enum err hand_over(struct replaying *replaying, bool last)
{
    struct replaying_group *group = group_after(replaying, 0);
    TRY(replay_find(&replaying->finder, group->records));
    group->flush = last || replaying->full || replay_finder_full(&replaying->finder);
    TRY(submit(replaying, group));
    group->away = true;
    replaying->at = (replaying->at + 1) % REPLAYING_GROUPS;
    if (group->flush) {
        wait_for_all(replaying);
        replay_finder_forget(&replaying->finder);
        replaying->full = false;
    }
    wait_for(replaying, group_after(replaying, 0));
    return replaying->err;
}

void replaying_record(void *context, const struct log_record *record, uint64_t position)
{
    struct replaying *replaying = context;
    struct replay_group *records = group_after(replaying, 0)->records;
    (void)position;
    replaying->records++;
    if (replaying->err == OK)
        replaying->err = replay_gather(records, record);
    if (replaying->err == OK && replay_group_full(records))
        replaying->err = hand_over(replaying, false);
}

enum err replaying_finish(struct replaying *replaying)
{
    if (replaying->err == OK && replaying->records != 0)
        replaying->err = hand_over(replaying, true);
    return replaying->err;
}

/* ---- life */

enum err replaying_init(struct replaying *replaying, struct catalog *catalog,
                        struct workers *workers, struct io *io, uint32_t shard)
{
    *replaying =
        (struct replaying){.catalog = catalog, .workers = workers, .io = io, .shard = shard};
    replay_finder_init(&replaying->finder);
    for (uint32_t i = 0; i < REPLAYING_GROUPS; i++) {
        struct replaying_group *group = &replaying->groups[i];
        group->replaying = replaying;
        group->job.body = settle;
        group->job.job.done = on_settled;
        TRY(replay_group_create(&group->records));
    }
    return replay_create(&replaying->replay);
}

void replaying_deinit(struct replaying *replaying)
{
    wait_for_all(replaying);
    for (uint32_t i = 0; i < REPLAYING_GROUPS; i++)
        replay_group_destroy(replaying->groups[i].records);
    replay_destroy(replaying->replay);
    replay_finder_forget(&replaying->finder);
}
