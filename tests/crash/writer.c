/* writer.c: see writer.h. A mark is one line:
 *   acked=N checkpoint=POSITION below=M     records 0 … N-1 are acknowledged, 0 … M-1 stand below
 *                                           the checkpoint */
#include "tests/crash/writer.h"

#include "core/file.h"
#include "core/logging.h"
#include "core/worker.h"
#include "store/log.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define CONVERSATIONS 6u
#define LIVES         3u
#define BODY_MAX      (24u << 10)
#define EXTRA         20u /* records that a check appends */

struct writer {
    struct io_group *group;
    struct io *io;
    struct workers *workers;
    struct log *log;
    char directory[256];
    uint64_t appended; /* number of the next record */
    uint64_t acked;
    uint64_t checkpoint;
    uint64_t below;
    uint64_t next; /* replay: what comes next */
    uint64_t holes;
    bool wrong;
    bool skip_sync; /* the control: and large segments, since making one syncs, and a sync of any
                       file is one of the whole disk */
    uint8_t body[BODY_MAX];
    uint8_t out[1 << 20];
};

static uint64_t hash(uint64_t n)
{
    uint64_t x = (n + 1) * 0x9e3779b97f4a7c15ull;
    x = (x ^ x >> 31) * 0x94d049bb133111ebull;
    return x ^ x >> 29;
}

static struct log_record record_of(struct writer *w, uint64_t n)
{
    uint64_t h = hash(n);
    size_t size = n % 97 == 96 ? h % BODY_MAX : h % 900;
    for (size_t i = 0; i < size; i++)
        w->body[i] = (uint8_t)(h >> i % 8 * 8 ^ i ^ i >> 8);
    struct log_record record = {
        .kind = RECORD_MESSAGE,
        .conversation = {1, 1000 + n % CONVERSATIONS},
        .seq = n / CONVERSATIONS + 1,
        .sender = {h % 7 + 1},
        .device = {(uint32_t)(h % 3) + 1},
        .time_ms = h >> 20,
        .body = bytes_of(w->body, size),
    };
    store_u64(record.message_id.v, h);
    return record;
}

static bool same(const struct log_record *a, const struct log_record *b)
{
    return a->kind == b->kind && conversation_id_equal(a->conversation, b->conversation) &&
           a->seq == b->seq && a->sender.v == b->sender.v && a->device.v == b->device.v &&
           a->time_ms == b->time_ms && memcmp(a->message_id.v, b->message_id.v, 16) == 0 &&
           bytes_equal(a->body, b->body);
}

static const char *environment(const char *name)
{
    const char *value = getenv(name);
    if (value == NULL) {
        fprintf(stderr, "%s is not set: the lab starts this\n", name);
        exit(CHECK_BAD);
    }
    return value;
}

/* ---- the world */

static struct writer *writer_create(void)
{
    struct writer *w = calloc(1, sizeof *w);
    CHECK(w != NULL);
    snprintf(w->directory, sizeof w->directory, "%s/log", environment("CRASH_MOUNT"));
    struct io_options io = {.count = 1,
                            .connections_max = 1,
                            .buffers_count = 1,
                            .buffer_bytes = 4096,
                            .files_max = 64,
                            .cpu = -1};
    struct worker_options workers = {
        .shards = 1, .threads = {[WORKER_DISK] = 1}, .queue_max = {[WORKER_DISK] = 64}};
    CHECK(io_group_create(&w->group, 1) == OK);
    CHECK(io_create(&w->io, w->group, &io) == OK);
    CHECK(workers_create(&w->workers, w->group, &workers) == OK);
    return w;
}

static void writer_destroy(struct writer *w)
{
    workers_destroy(w->workers);
    io_destroy(w->io);
    io_group_destroy(w->group);
    free(w);
}

static void on_replay(void *context, const struct log_record *record, uint64_t position)
{
    struct writer *w = context;
    uint64_t n = (record->seq - 1) * CONVERSATIONS + (record->conversation.lo - 1000);
    struct log_record expected = record_of(w, n);
    if (n < w->next || !same(record, &expected)) {
        printf("at %" PRIx64 ": record %" PRIu64 " came after %" PRIu64 "%s\n", position, n,
               w->next, same(record, &expected) ? "" : ", with another content");
        w->wrong = true;
        return;
    }
    w->holes += n - w->next;
    w->next = n + 1;
}

static enum err writer_open(struct writer *w, bool direct, uint64_t *damaged)
{
    struct log_options options = {.directory = w->directory,
                                  .segment_bytes = w->skip_sync ? 8 << 20 : 256 << 10,
                                  .batch_bytes_max = 64 << 10,
                                  .writer_epoch = 1,
                                  .checkpoint = w->checkpoint,
                                  .direct = direct,
                                  .skip_sync = w->skip_sync};
    w->next = w->below;
    w->holes = 0;
    enum err err = log_open(&w->log, &options, w->io, w->workers, NULL, on_replay, w, damaged);
    w->appended = w->next;
    return err;
}

/* turn: what a shard does in one; waits for something to happen. */
static void turn(struct writer *w)
{
    struct io_event events[8];
    struct worker_job *job;
    log_flush(w->log);
    size_t count = io_poll(w->io, events, COUNT_OF(events), io_now_ns(w->io) + NS_PER_MS);
    for (size_t i = 0; i < count; i++)
        if (events[i].kind == IO_FILE_DONE)
            log_on_file(w->log, events[i].op);
    while ((job = worker_completed(w->workers, 0)) != NULL)
        job->done(job, NULL);
}

/* take: count what was acknowledged; false: something was refused. */
static bool take(struct writer *w)
{
    struct log_completion done;
    while (log_completed(w->log, &done)) {
        if (done.err != OK)
            return false;
        CHECK(done.cookie == w->acked);
        w->acked++;
    }
    return true;
}

static enum err append(struct writer *w)
{
    struct log_record record = record_of(w, w->appended);
    TRY(log_append(w->log, &record, w->appended));
    w->appended++;
    return OK;
}

/* ---- writing */

static void mark(struct writer *w, int control)
{
    char line[96];
    int size =
        snprintf(line, sizeof line, "acked=%" PRIu64 " checkpoint=%" PRIu64 " below=%" PRIu64,
                 w->acked, w->checkpoint, w->below);
    CHECK(pwrite(control, line, (size_t)size, 0) == size);
}

static void live(struct writer *w, int control, uint64_t until)
{
    while (w->acked < until) {
        uint64_t before = w->acked;
        uint64_t burst = 1 + hash(w->appended + 7) % 24;
        while (burst-- > 0 && w->appended < until && append(w) == OK)
            continue;
        turn(w);
        CHECK(take(w));
        if (w->acked == before)
            continue;
        if (hash(w->acked) % 16 == 0) {
            w->checkpoint = log_durable(w->log);
            w->below = w->acked;
            log_checkpointed(w->log, w->checkpoint);
        }
        mark(w, control);
    }
}

int writer_write(void)
{
    struct writer *w = writer_create();
    uint64_t records = strtoull(environment("CRASH_RECORDS"), NULL, 10);
    int control = open(environment("CRASH_CONTROL"), O_WRONLY | O_CLOEXEC);
    CHECK(control >= 0);
    logging_init(LOG_WARN, LOG_KEY_VALUE);
    w->skip_sync = strcmp(environment("CRASH_SKIP_SYNC"), "1") == 0;
    uint64_t lives = w->skip_sync ? 1 : LIVES;
    for (uint64_t i = 0; i < lives; i++) {
        uint64_t damaged;
        CHECK(writer_open(w, i != 1, &damaged) == OK);
        CHECK(damaged == 0 && !w->wrong && w->next == w->acked);
        live(w, control, records * (i + 1) / lives);
        log_close(w->log);
    }
    close(control);
    writer_destroy(w);
    return 0;
}

/* ---- checking */

/* read_conversation: everything of it, by range reads. */
static bool read_conversation(struct writer *w, uint64_t conversation, uint64_t records)
{
    for (uint64_t seq = 1; seq <= records;) {
        struct log_read read = {.kind = LOG_READ_RANGE,
                                .conversation = {1, 1000 + conversation},
                                .from_seq = seq,
                                .to_seq = UINT64_MAX,
                                .records_max = 1000,
                                .out = buffer_of(w->out, sizeof w->out)};
        CHECK(log_read(w->log, &read) == OK);
        while (log_read_done(w->log) == NULL)
            turn(w);
        struct bytes rest = buffer_bytes(&read.out);
        struct log_record record;
        for (; log_record_next(&rest, &record) == OK; seq++) {
            struct log_record expected = record_of(w, (seq - 1) * CONVERSATIONS + conversation);
            if (!same(&record, &expected))
                return false;
        }
        if (read.err != OK) {
            printf("conversation %" PRIu64 " from %" PRIu64 ": %s\n", conversation, seq,
                   err_name(read.err));
            return false;
        }
    }
    return true;
}

static bool goes_on(struct writer *w)
{
    uint64_t until = w->appended + EXTRA;
    for (w->acked = w->appended; w->acked < until;) {
        while (w->appended < until && append(w) == OK)
            continue;
        turn(w);
        if (!take(w))
            return false;
    }
    return true;
}

static void on_finding(void *context, const char *line)
{
    (void)context;
    printf("verify: %s\n", line);
}

static int check_open(struct writer *w, uint64_t acked, uint64_t damaged)
{
    if (w->wrong)
        return CHECK_BAD;
    if (w->next < acked || w->holes != 0) {
        printf("%" PRIu64 " acknowledged, %" PRIu64 " there, %" PRIu64 " of them missing\n", acked,
               w->next, w->holes);
        return CHECK_LOST;
    }
    if (damaged != 0) {
        printf("%" PRIu64 " records reported damaged\n", damaged);
        return CHECK_BAD;
    }
    for (uint64_t c = 0; c < CONVERSATIONS; c++)
        if (!read_conversation(w, c, (w->next + CONVERSATIONS - 1 - c) / CONVERSATIONS))
            return CHECK_BAD;
    return goes_on(w) ? CHECK_KEPT : CHECK_BAD;
}

int writer_check(void)
{
    struct writer *w = writer_create();
    uint64_t seed = strtoull(environment("CRASH_SEED"), NULL, 10);
    uint64_t acked = 0;
    uint64_t damaged;
    const char *text = environment("CRASH_MARK");
    logging_init(LOG_INFO, LOG_KEY_VALUE);
    if (*text != 0)
        CHECK(sscanf(text, "acked=%" SCNu64 " checkpoint=%" SCNu64 " below=%" SCNu64, &acked,
                     &w->checkpoint, &w->below) == 3);
    if (seed % 2 == 0)
        w->checkpoint = w->below = 0;
    enum err err = writer_open(w, seed / 2 % 2 == 0, &damaged);
    if (err != OK) {
        printf("does not open: %s\n", err_name(err));
        return CHECK_BAD;
    }
    int result = check_open(w, acked, damaged);
    log_close(w->log);
    if (result == CHECK_KEPT && log_verify(w->directory, NULL, on_finding, NULL) != OK)
        result = CHECK_BAD;
    writer_destroy(w);
    return result;
}
