/* load.c: see load.h. */
#include "tests/crash/load.h"

#include "tests/crash/tap.h"
#include "tests/crash/writer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define AGE_MS         (5 * LOAD_DAY_MS)
#define UNDELIVERED_MS (8 * LOAD_DAY_MS)
#define COLD_MS        (3 * LOAD_DAY_MS)
#define LIFE_MS        (6 * 3600000ull) /* of those that expire: every seventh */
#define DELAY_MS       3600000ull
#define REPEATS_MS     (2 * LOAD_DAY_MS)
#define IDLE_TURNS     3u
#define SETS_EVERY     25u /* of the records of LOAD_OWN */

uint64_t load_hash(uint64_t n)
{
    uint64_t x = (n + 1) * 0x9e3779b97f4a7c15ull;
    x = (x ^ x >> 31) * 0x94d049bb133111ebull;
    return x ^ x >> 29;
}

const char *load_environment(const char *name)
{
    const char *value = getenv(name);
    if (value == NULL) {
        fprintf(stderr, "%s is not set: the lab starts this\n", name);
        exit(CHECK_BAD);
    }
    return value;
}

/* ---- records */

uint64_t load_time_ms(uint64_t n)
{
    return LOAD_START_MS + n * LOAD_STEP_MS;
}

bool load_sets(uint64_t n)
{
    return n % LOAD_CONVERSATIONS == LOAD_OWN && n / LOAD_CONVERSATIONS % SETS_EVERY == 3;
}

/* newest_set: the newest setting among the records 0 … known-1; LOAD_RECORDS_MAX: there is none. */
static uint64_t newest_set(uint64_t known)
{
    while (known > 0 && !load_sets(known - 1))
        known--;
    return known > 0 ? known - 1 : LOAD_RECORDS_MAX;
}

/* own_age_ms: what setting n says; 0: the log's. */
static uint64_t own_age_ms(uint64_t n)
{
    static const uint64_t days[] = {2, 1, 0};
    return days[n / LOAD_CONVERSATIONS / SETS_EVERY % COUNT_OF(days)] * LOAD_DAY_MS;
}

static uint64_t expires_ms(uint64_t n)
{
    return n % 7 == 3 && !load_sets(n) ? load_time_ms(n) + LIFE_MS : 0;
}

struct log_record load_record(struct load *load, uint64_t n)
{
    uint64_t h = load_hash(n);
    size_t size = n % 97 == 96 ? h % LOAD_BODY_MAX : h % 900;
    for (size_t i = 0; i < size; i++)
        load->body[i] = (uint8_t)(h >> i % 8 * 8 ^ i ^ i >> 8);
    if (load_sets(n)) {
        size = 16;
        store_u64(load->body, own_age_ms(n) / 1000);
        store_u64(load->body + 8, 0);
    }
    struct log_record record = {
        .kind = load_sets(n) ? RECORD_RETENTION : RECORD_MESSAGE,
        .expires_ms = expires_ms(n),
        .conversation = {1, 1000 + n % LOAD_CONVERSATIONS},
        .seq = n / LOAD_CONVERSATIONS + 1,
        .sender = {h % 7 + 1},
        .device = {(uint32_t)(h % 3) + 1},
        .time_ms = load_time_ms(n),
        .body = bytes_of(load->body, size),
    };
    store_u64(record.message_id.v, h);
    return record;
}

bool load_mark(struct load *load, struct log_record *out, uint64_t n)
{
    if (load_hash(n + 3) % 4 != 0)
        return false;
    uint64_t seq = n / LOAD_CONVERSATIONS + 1;
    store_u64(load->mark, seq - 1); /* read so far */
    *out = (struct log_record){
        .kind = RECORD_WATERMARK,
        .conversation = {1, 1000 + n % LOAD_CONVERSATIONS},
        .seq = seq,
        .sender = {LOAD_READER + load_hash(n + 5) % LOAD_READERS},
        .device = {1},
        .time_ms = load_time_ms(n),
        .body = bytes_of(load->mark, sizeof load->mark),
    };
    return true;
}

static uint64_t number_of(uint64_t conversation, uint64_t seq)
{
    return (seq - 1) * LOAD_CONVERSATIONS + conversation;
}

/* as_written: the record is number n, in every field; said if not. */
static bool as_written(struct load *load, const struct log_record *a, uint64_t n)
{
    const struct log_record b = load_record(load, n);
    bool same = a->kind == b.kind && conversation_id_equal(a->conversation, b.conversation) &&
                a->seq == b.seq && a->sender.v == b.sender.v && a->device.v == b.device.v &&
                a->time_ms == b.time_ms && a->expires_ms == b.expires_ms &&
                memcmp(a->message_id.v, b.message_id.v, 16) == 0 && bytes_equal(a->body, b.body);
    if (!same)
        printf("record %" PRIu64 " is not what was written (kind %u, number %" PRIu64 ")\n", n,
               a->kind, a->seq);
    return same;
}

/* own_may_go: by a setting that is or was in force: the clock stands still until the next one is
 * known. */
static bool own_may_go(uint64_t n, uint64_t clock_ms, uint64_t known)
{
    uint64_t end_ms = clock_ms;
    for (uint64_t at = newest_set(known); at != LOAD_RECORDS_MAX; at = newest_set(at)) {
        if (own_age_ms(at) != 0 && load_time_ms(n) + own_age_ms(at) < end_ms)
            return true;
        end_ms = load_time_ms(at);
    }
    return false;
}

bool load_may_go(uint64_t n, uint64_t clock_ms, uint64_t known)
{
    uint64_t newest = newest_set(known);
    if (load_sets(n) && (newest == LOAD_RECORDS_MAX || n >= newest))
        return false;
    if (n % LOAD_CONVERSATIONS == LOAD_OWN && own_may_go(n, clock_ms, known))
        return true;
    uint64_t age_ms = n % LOAD_CONVERSATIONS == LOAD_KEPT ? UNDELIVERED_MS : AGE_MS;
    return (expires_ms(n) != 0 && expires_ms(n) <= clock_ms) || load_time_ms(n) + age_ms < clock_ms;
}

/* ---- the world */

struct load *load_create(void)
{
    struct load *load = calloc(1, sizeof *load);
    CHECK(load != NULL);
    const char *mount = load_environment("CRASH_MOUNT");
    snprintf(load->directory, sizeof load->directory, "%s/log", mount);
    const char *cold = getenv("CRASH_COLD"); /* another file system */
    snprintf(load->cold, sizeof load->cold, "%s/cold", cold == NULL ? mount : cold);
    struct io_options io = {.count = 1,
                            .connections_max = 1,
                            .buffers_count = 1,
                            .buffer_bytes = 4096,
                            .files_max = 64,
                            .cpu = -1};
    struct worker_options workers = {
        .shards = 1, .threads = {[WORKER_DISK] = 2}, .queue_max = {[WORKER_DISK] = 64}};
    CHECK(io_group_create(&load->group, 1) == OK);
    CHECK(io_create(&load->io, load->group, &io) == OK);
    CHECK(workers_create(&load->workers, load->group, &workers) == OK);
    CHECK(metrics_create(&load->metrics) == OK);
    return load;
}

void load_destroy(struct load *load)
{
    workers_destroy(load->workers);
    io_destroy(load->io);
    io_group_destroy(load->group);
    metrics_destroy(load->metrics);
    free(load);
}

static enum err look_begin(void *context, void **session)
{
    *session = context;
    return OK;
}

static enum err look(void *session, struct conversation_id conversation,
                     struct retention_rule *rule)
{
    struct load *load = session;
    bool kept = conversation.lo == 1000 + LOAD_KEPT;
    *rule = (struct retention_rule){.delivered_seq = kept ? 0 : UINT64_MAX};
    uint64_t set = newest_set(load->known);
    if (conversation.lo != 1000 + LOAD_OWN || set == LOAD_RECORDS_MAX)
        return OK;
    rule->age_ms = own_age_ms(set);
    rule->setting_seq = set / LOAD_CONVERSATIONS + 1;
    return OK;
}

static enum err own(void *session, uint8_t first,
                    enum err (*add)(void *list, struct conversation_id conversation), void *list)
{
    struct load *load = session;
    bool any = first == 0 && newest_set(load->known) != LOAD_RECORDS_MAX;
    return any ? add(list, (struct conversation_id){1, 1000 + LOAD_OWN}) : OK;
}

static void look_end(void *session)
{
    (void)session;
}

struct log_options load_options(struct load *load, uint64_t life)
{
    static const uint32_t segments[LOAD_LIVES] = {1, 0, 2};
    static const uint32_t inputs[LOAD_LIVES] = {2, 3, 2};
    static const uint32_t spares[LOAD_LIVES] = {2, 3, 1};
    uint64_t kind = life % LOAD_LIVES;
    return (struct log_options){
        .directory = load->directory,
        .segment_bytes = 64 << 10,
        .batch_bytes_max = 64 << 10,
        .writer_epoch = 1,
        .direct = kind != 1,
        .spare_segments = spares[kind],
        .lookup_bytes = 1 << 20,
        .merge_segments = segments[kind],
        .merge_inputs = inputs[kind],
        .archive_bytes_max = 192 << 10,
        .compress = kind == 1,
        .cold_directory = load->cold,
        .cold_ms = COLD_MS,
        .trust_clock = true,
        .retention = {.age_ms = AGE_MS,
                      .undelivered_ms = UNDELIVERED_MS,
                      .expiry_delay_ms = DELAY_MS,
                      .own_delay_ms = DELAY_MS,
                      .repeats_ms = REPEATS_MS,
                      .begin = look_begin,
                      .look = look,
                      .own = own,
                      .context = load,
                      .end = look_end},
    };
}

/* replay_mark: what a device said, or the newest that it did. */
static void replay_mark(struct load *load, const struct log_record *record)
{
    struct log_record b;
    uint64_t c = record->conversation.lo - 1000;
    uint64_t reader = record->sender.v - LOAD_READER;
    uint64_t n = c < LOAD_CONVERSATIONS && record->seq > 0 ? number_of(c, record->seq) : 0;
    bool same = reader < LOAD_READERS && n < LOAD_RECORDS_MAX && load_mark(load, &b, n) &&
                conversation_id_equal(record->conversation, b.conversation) &&
                record->seq == b.seq && record->sender.v == b.sender.v &&
                record->device.v == b.device.v && record->time_ms == b.time_ms &&
                bytes_equal(record->body, b.body);
    if (!same || record->seq < load->replay_mark[c][reader]) {
        printf("replayed: user %" PRIu64 " has %" PRIu64 " of conversation %" PRIu64 "\n",
               record->sender.v, record->seq, c);
        load->wrong = true;
        return;
    }
    load->replay_mark[c][reader] = record->seq;
}

/* named: record n is gone but for its id, and that is told right. */
static bool named(struct load *load, const struct log_record *a, uint64_t n)
{
    const struct log_record b = load_record(load, n);
    return a->kind == RECORD_MESSAGE && conversation_id_equal(a->conversation, b.conversation) &&
           a->seq == b.seq && a->sender.v == b.sender.v && a->device.v == b.device.v &&
           a->time_ms == b.time_ms && a->expires_ms == b.time_ms + REPEATS_MS &&
           memcmp(a->message_id.v, b.message_id.v, 16) == 0 && a->body.size == 0;
}

static void on_replay(void *context, const struct log_record *record, uint64_t position)
{
    struct load *load = context;
    if (record->kind == RECORD_WATERMARK) {
        replay_mark(load, record);
        return;
    }
    uint64_t c = record->conversation.lo - 1000;
    bool known = c < LOAD_CONVERSATIONS && record->seq > load->replay_seq[c];
    uint64_t n = known ? number_of(c, record->seq) : LOAD_RECORDS_MAX;
    bool given = record->kind == RECORD_LOST || /* the last number of a range that is gone */
                 (n < LOAD_RECORDS_MAX && named(load, record, n));
    if (n >= LOAD_RECORDS_MAX || (!given && !as_written(load, record, n))) {
        printf("replayed at %" PRIx64 ": conversation %" PRIu64 ", number %" PRIu64
               " after %" PRIu64 "\n",
               position, c, record->seq, c < LOAD_CONVERSATIONS ? load->replay_seq[c] : 0);
        load->wrong = true;
        return;
    }
    load->replay_seq[c] = record->seq;
    load->replayed[n] = !given;
    load->replayed_gone[n] = given;
}

enum err load_open(struct load *load, const struct log_options *options, uint64_t *damaged)
{
    memset(load->replay_seq, 0, sizeof load->replay_seq);
    memset(load->replayed, 0, sizeof load->replayed);
    memset(load->replayed_gone, 0, sizeof load->replayed_gone);
    memset(load->replay_mark, 0, sizeof load->replay_mark);
    load->options = *options;
    return log_open(&load->log, options, load->io, load->workers, load->metrics, on_replay, load,
                    damaged);
}

/* swapped: a number that changes with every merge and move. */
static int64_t swapped(const struct load *load)
{
    return metrics_sum(&load->metrics, 1, METRIC_MERGE_INPUTS) +
           metrics_sum(&load->metrics, 1, METRIC_MOVED_COLD);
}

void load_turn(struct load *load)
{
    struct io_event events[8];
    struct worker_job *job;
    int64_t before = swapped(load);
    log_flush(load->log);
    size_t count = io_poll(load->io, events, COUNT_OF(events), io_now_ns(load->io) + NS_PER_MS);
    for (size_t i = 0; i < count; i++)
        if (events[i].kind == IO_FILE_DONE)
            log_on_file(load->log, events[i].op);
    while ((job = worker_completed(load->workers, 0)) != NULL)
        job->done(job, NULL);
    if (swapped(load) == before)
        return;
    load->swaps++; /* the next one begins in another turn */
    load->swap_owed = tap_owed();
}

void load_settle(struct load *load)
{
    for (uint32_t idle = 0; idle < IDLE_TURNS;) {
        load_turn(load);
        log_flush(load->log);
        idle = log_jobs(load->log) == 0 ? idle + 1 : 0;
    }
}

/* ---- reading */

/* take_page: what one read brought. false: it is not what was written, or it failed. */
static bool take_page(struct load *load, struct log_read *read, uint8_t *states, uint64_t *seq)
{
    uint64_t c = read->conversation.lo - 1000;
    struct bytes rest = buffer_bytes(&read->out);
    struct log_record record;
    for (; log_record_next(&rest, &record) == OK; ++*seq) {
        if (number_of(c, *seq) >= LOAD_RECORDS_MAX ||
            !as_written(load, &record, number_of(c, *seq)))
            return false;
        states[number_of(c, *seq)] = LOAD_THERE;
    }
    if (read->err == OK)
        return true;
    bool said = read->err == ERR_EXPIRED || (read->err == ERR_CORRUPT && load->damaged);
    if (!said || read->missing_from != *seq || read->missing_to < *seq ||
        number_of(c, read->missing_to) >= LOAD_RECORDS_MAX) {
        printf("conversation %" PRIu64 " at %" PRIu64 ": %s, %" PRIu64 " to %" PRIu64 "\n", c, *seq,
               err_name(read->err), read->missing_from, read->missing_to);
        return false;
    }
    for (; *seq <= read->missing_to; ++*seq)
        states[number_of(c, *seq)] = read->err == ERR_EXPIRED ? LOAD_GONE : LOAD_MISSING;
    return true;
}

static bool read_conversation(struct load *load, uint64_t c, uint8_t *states, uint64_t *next)
{
    for (*next = 1;;) {
        struct log_read read = {.kind = LOG_READ_RANGE,
                                .conversation = {1, 1000 + c},
                                .from_seq = *next,
                                .to_seq = UINT64_MAX,
                                .records_max = 1000,
                                .out = buffer_of(load->out, sizeof load->out)};
        CHECK(log_read(load->log, &read) == OK);
        while (log_read_done(load->log) == NULL)
            load_turn(load);
        if (read.err == ERR_NOT_FOUND)
            return true;
        if (!take_page(load, &read, states, next))
            return false;
    }
}

bool load_read(struct load *load, uint8_t states[LOAD_RECORDS_MAX], uint64_t *count)
{
    memset(states, LOAD_MISSING, LOAD_RECORDS_MAX);
    *count = 0;
    for (uint64_t c = 0; c < LOAD_CONVERSATIONS; c++) {
        uint64_t next;
        if (!read_conversation(load, c, states, &next))
            return false;
        if (next > 1 && number_of(c, next - 1) >= *count)
            *count = number_of(c, next - 1) + 1;
    }
    return true;
}

bool load_repeats(uint64_t n, uint64_t clock_ms)
{
    return load_time_ms(n) + REPEATS_MS > clock_ms;
}

enum err load_find(struct load *load, uint64_t n)
{
    struct log_record wanted = load_record(load, n);
    struct log_record found;
    struct log_read read = {.kind = LOG_READ_FIND,
                            .conversation = wanted.conversation,
                            .sender = wanted.sender,
                            .device = wanted.device,
                            .message_id = wanted.message_id,
                            .out = buffer_of(load->out, sizeof load->out)};
    CHECK(log_read(load->log, &read) == OK);
    while (log_read_done(load->log) == NULL)
        load_turn(load);
    if (read.err != OK)
        return read.err;
    struct bytes rest = buffer_bytes(&read.out);
    return log_record_next(&rest, &found) == OK && found.seq == wanted.seq ? OK : ERR_CORRUPT;
}
