/* scenario_catalog.c: jobs raise counters in pairs of rows through worker threads, and the process
 * is killed.
 * Checks:     both rows of a pair always agree, in reads too; after a kill a counter is at least
 *             what was acknowledged and at most what was asked for; every job comes back once, to
 *             its shard, unless the process was killed. */
#include "tests/sim/scenario.h"

#include "core/io.h"
#include "store/catalog.h"

#include <stdlib.h>

#define PAIRS      6
#define RAISES_MAX 100
#define SHARDS     2

struct teller;

struct raise {
    struct catalog_job job;
    struct teller *teller;
    uint8_t key;
    bool write;
    bool running;
    uint64_t seen;
};

struct teller { /* one shard */
    struct bank *bank;
    struct io *io;
    uint32_t shard;
    struct raise raise[PAIRS]; /* pairs of this shard only */
    uint64_t asked[PAIRS];
    uint64_t acked[PAIRS];
};

struct bank {
    struct run *run;
    struct io_group *group;
    struct workers *workers;
    struct catalog *catalog;
    struct teller teller[SHARDS];
};

static uint64_t counter_get(struct run *run, struct catalog_txn *txn, enum catalog_table table,
                            const uint8_t *key)
{
    struct bytes value;
    enum err err = catalog_get(txn, table, bytes_of(key, 1), &value);
    RUN_EXPECT(run, err == ERR_NOT_FOUND || (err == OK && value.size == 8));
    return err == OK ? load_u64(value.data) : 0;
}

static enum err body(struct catalog_txn *txn, struct catalog_job *job)
{
    struct raise *raise = CONTAINER_OF(job, struct raise, job);
    struct run *run = raise->teller->bank->run;
    raise->seen = counter_get(run, txn, CATALOG_USERS, &raise->key);
    RUN_EXPECT(run, counter_get(run, txn, CATALOG_DEVICES, &raise->key) == raise->seen);
    if (!raise->write)
        return OK;
    uint8_t value[8];
    store_u64(value, raise->seen + 1);
    TRY(catalog_put(txn, CATALOG_USERS, bytes_of(&raise->key, 1), bytes_of(value, 8)));
    return catalog_put(txn, CATALOG_DEVICES, bytes_of(&raise->key, 1), bytes_of(value, 8));
}

static void done_job(struct worker_job *worker_job, void *shard)
{
    struct catalog_job *job = CONTAINER_OF(worker_job, struct catalog_job, job);
    struct raise *raise = CONTAINER_OF(job, struct raise, job);
    struct teller *teller = shard;
    struct run *run = teller->bank->run;
    size_t pair = (size_t)(raise - teller->raise);
    RUN_EXPECT(run, raise->teller == teller && raise->running);
    raise->running = false;
    RUN_EXPECT(run, job->err == OK || job->err == ERR_NO_SPACE);
    if (job->err != OK) {
        teller->asked[pair] -= raise->write;
        return;
    }
    RUN_EXPECT(run, raise->seen >= teller->acked[pair] && raise->seen <= teller->asked[pair]);
    if (raise->write)
        teller->acked[pair] = raise->seen + 1;
}

static size_t turn(void *self)
{
    struct teller *teller = self;
    struct bank *bank = teller->bank;
    struct io_event event;
    size_t work = io_poll(teller->io, &event, 1, 0);
    struct worker_job *job;
    while ((job = worker_completed(bank->workers, teller->shard)) != NULL) {
        job->done(job, teller);
        work++;
    }
    for (size_t i = 0; i < PAIRS; i++) {
        struct raise *raise = &teller->raise[i];
        if (raise->running || teller->acked[i] >= RAISES_MAX ||
            world_below(bank->run->world, 2) == 0)
            continue;
        *raise = (struct raise){.teller = teller,
                                .key = (uint8_t)(teller->shard * PAIRS + i),
                                .write = world_below(bank->run->world, 3) > 0,
                                .job = {.job = {.done = done_job}, .body = body}};
        enum err err =
            catalog_submit(bank->catalog, bank->workers, &raise->job, raise->write, teller->shard);
        RUN_EXPECT(bank->run, err == OK || err == ERR_FULL);
        raise->running = err == OK;
        teller->asked[i] += err == OK && raise->write;
        work += err == OK;
    }
    return work;
}

/* Work is taken up by chance: without an event the next turn comes a little later. */
static uint64_t next_ns(void *self)
{
    struct teller *teller = self;
    for (size_t i = 0; i < PAIRS; i++)
        if (teller->acked[i] < RAISES_MAX && !teller->raise[i].running)
            return teller->bank->run->world->now_ns + NS_PER_MS;
    return UINT64_MAX;
}

static void start(struct bank *bank)
{
    struct worker_options options = {.shards = SHARDS};
    const char *explanation;
    for (size_t i = 0; i < WORKER_CLASS_COUNT; i++) {
        options.threads[i] = i == WORKER_CATALOG_READ ? 3 : 1;
        options.queue_max[i] = 4;
    }
    enum err err = catalog_open(&bank->catalog, "/data/catalog", 1 << 20, &explanation);
    CHECK(err == OK);
    err = io_group_create(&bank->group, SHARDS);
    CHECK(err == OK);
    options.batch[WORKER_CATALOG_WRITE] = catalog_write_batch;
    options.batch_context[WORKER_CATALOG_WRITE] = bank->catalog;
    err = workers_create(&bank->workers, bank->group, &options);
    CHECK(err == OK);
    for (uint32_t i = 0; i < SHARDS; i++) {
        struct teller *teller = &bank->teller[i];
        struct io_options io = {.index = i,
                                .count = SHARDS,
                                .connections_max = 1,
                                .buffers_count = 1,
                                .buffer_bytes = 16,
                                .files_max = 1,
                                .cpu = -1};
        teller->bank = bank;
        teller->shard = i;
        memset(teller->raise, 0, sizeof teller->raise);
        err = io_create(&teller->io, bank->group, &io);
        CHECK(err == OK);
    }
}

static void stop(struct bank *bank)
{
    workers_destroy(bank->workers);
    catalog_close(bank->catalog);
    for (size_t i = 0; i < SHARDS; i++)
        io_destroy(bank->teller[i].io);
    io_group_destroy(bank->group);
}

static void set_up(struct run *run)
{
    struct bank *bank = world_take(1, sizeof *bank);
    bank->run = run;
    run->state = bank;
    start(bank);
    for (size_t i = 0; i < SHARDS; i++)
        run_add(run, (struct actor){"teller", &bank->teller[i], turn, next_ns});
}

/* Reads every counter outside jobs; what a kill left unanswered is known from here on. */
static void check_rows(struct run *run)
{
    struct bank *bank = run->state;
    struct catalog_txn *txn;
    enum err err = catalog_begin(bank->catalog, &txn, false);
    CHECK(err == OK);
    for (size_t t = 0; t < SHARDS; t++)
        for (size_t i = 0; i < PAIRS; i++) {
            struct teller *teller = &bank->teller[t];
            uint8_t key = (uint8_t)(t * PAIRS + i);
            uint64_t value = counter_get(run, txn, CATALOG_USERS, &key);
            RUN_EXPECT(run, counter_get(run, txn, CATALOG_DEVICES, &key) == value);
            RUN_EXPECT(run, value >= teller->acked[i] && value <= teller->asked[i]);
            teller->acked[i] = teller->asked[i] = value;
        }
    catalog_abort(txn);
}

static void crash(struct run *run)
{
    struct bank *bank = run->state;
    world_kill(run->world, bank->group, world_below(run->world, 2) == 0);
    stop(bank);
    world_restart(run->world);
    start(bank);
    check_rows(run);
}

static bool done(struct run *run)
{
    struct bank *bank = run->state;
    for (size_t t = 0; t < SHARDS; t++)
        for (size_t i = 0; i < PAIRS; i++)
            if (bank->teller[t].acked[i] < RAISES_MAX || bank->teller[t].raise[i].running)
                return false;
    return true;
}

static void options(struct world_options *options)
{
    options->faults.catalog_full = 20000;
}

static void tear_down(struct run *run)
{
    stop(run->state);
    free(run->state);
}

const struct scenario scenario_catalog = {
    .name = "catalog",
    .about = "counters raised by catalog jobs on simulated workers, with kills",
    .faults_ns = 3 * NS_PER_S,
    .limit_ns = 600 * NS_PER_S,
    .crashes_max = 8,
    .options = options,
    .set_up = set_up,
    .crash = crash,
    .done = done,
    .check = check_rows,
    .tear_down = tear_down,
};
