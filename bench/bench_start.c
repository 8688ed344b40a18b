/* bench_start.c: how long a store takes to start, after a kill with a tail that no checkpoint
 * covers and after a clean stop, and what of it stays in memory.
 * Use:        bench_start [--smoke] [--messages N] [--conversations N] [--tail MIB] [DIRECTORY]
 *             builds a store of N messages of 256 bytes in DIRECTORY (out/bench_start), N × 750
 *             bytes of disk while it runs, and removes it. Ends with status 1 if a start takes
 *             longer than 2 s + 1 s per 256 MiB of tail or a resting conversation is too large
 * Counted:    catalog_open, log_open with its replay into the catalog, the checkpoint: what
 *             flow/lane_open.c does before a gateway serves. The log is written with O_DIRECT, so
 *             that it is read from the disk; the catalog may be in the machine's cache
 * Checked:    after the kill every conversation's row says the last number that was appended */
#include "core/file.h"
#include "core/memory.h"
#include "gateway/chat/conversation.h"
#include "gateway/chat/inbox.h"
#include "gateway/flow/checkpoint.h"
#include "gateway/flow/replaying.h"
#include "store/index.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define BODY_BYTES    256u
#define SEGMENT_BYTES (64u << 20)
#define BATCH_BYTES   (4u << 20)
#define MAP_BYTES     (16ull << 30)
#define START_S       2.0
#define TAIL_S        1.0 /* more per 256 MiB */
#define RESTING_BYTES 96  /* per conversation, members apart */
#define LOG_MS        1700000000000ull

struct bench {
    struct io_group *group;
    struct io *io;
    struct workers *workers;
    struct catalog *catalog;
    struct log *log;
    char directory[512];
    char log_directory[600];
    uint64_t messages;
    uint32_t conversations;
    uint64_t tail_bytes;
    uint64_t *seqs;
    uint64_t random;
    uint64_t completed;
    uint64_t replayed;
    bool missed;
};

static double now_s(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static enum err remove_entry(void *context, const char *name)
{
    char path[1200];
    snprintf(path, sizeof path, "%s/%s", (const char *)context, name);
    (void)!file_remove(path); /* "log" is a directory */
    return OK;
}

static void clear(struct bench *b)
{
    CHECK(file_make_directory(b->directory) == OK);
    CHECK(file_make_directory(b->log_directory) == OK);
    CHECK(file_list(b->log_directory, remove_entry, b->log_directory) == OK);
    CHECK(file_list(b->directory, remove_entry, b->directory) == OK);
}

static struct conversation_id conversation_at(uint32_t at)
{
    return conversation_id_direct((struct user_id){2 * (uint64_t)at + 1},
                                  (struct user_id){2 * (uint64_t)at + 2});
}

/* ---- opening, as flow/lane_open.c does */

static void open_store(struct bench *b)
{
    const char *explanation;
    struct checkpoint_meta meta;
    struct replaying replaying;
    uint64_t damaged;
    CHECK(catalog_open(&b->catalog, b->directory, MAP_BYTES, &explanation) == OK);
    CHECK(checkpoint_read_meta(b->catalog, &meta) == OK);
    meta.lanes = 1;
    meta.writer_epoch++;
    CHECK(checkpoint_write_meta(b->catalog, &meta) == OK);
    CHECK(replaying_init(&replaying, b->catalog, b->workers, b->io, 0) == OK);
    const struct log_options options = {.directory = b->log_directory,
                                        .segment_bytes = SEGMENT_BYTES,
                                        .batch_bytes_max = BATCH_BYTES,
                                        .writer_epoch = meta.writer_epoch,
                                        .checkpoint = meta.positions[0],
                                        .direct = true};
    CHECK(log_open(&b->log, &options, b->io, b->workers, NULL, replaying_record, &replaying,
                   &damaged) == OK);
    CHECK(replaying_finish(&replaying) == OK);
    replaying_deinit(&replaying);
    b->replayed = replaying.records;
    CHECK(damaged == 0);
    meta.positions[0] = log_durable(b->log);
    CHECK(checkpoint_write_meta(b->catalog, &meta) == OK);
    log_checkpointed(b->log, meta.positions[0]);
}

/* ---- building */

static void turn(struct bench *b, uint64_t deadline_ns)
{
    struct io_event events[8];
    size_t count = io_poll(b->io, events, COUNT_OF(events), deadline_ns);
    for (size_t i = 0; i < count; i++)
        if (events[i].kind == IO_FILE_DONE)
            log_on_file(b->log, events[i].op);
    struct worker_job *job;
    while ((job = worker_completed(b->workers, 0)) != NULL)
        job->done(job, NULL);
    log_flush(b->log);
    struct log_completion done;
    while (log_completed(b->log, &done)) {
        CHECK(done.err == OK);
        b->completed++;
    }
}

static void append(struct bench *b, uint64_t number)
{
    static const uint8_t body[BODY_BYTES] = {1};
    b->random = b->random * 6364136223846793005u + 1442695040888963407u;
    uint32_t at = (uint32_t)((b->random >> 32) * b->conversations >> 32);
    struct log_record record = {.kind = RECORD_MESSAGE,
                                .conversation = conversation_at(at),
                                .seq = b->seqs[at] + 1,
                                .sender = {2 * (uint64_t)at + 1 + (b->seqs[at] & 1)},
                                .device = {1},
                                .time_ms = LOG_MS + number,
                                .body = bytes_of(body, sizeof body)};
    store_u64(record.message_id.v, __builtin_bswap64(number + 1));
    enum err err;
    while ((err = log_append(b->log, &record, number)) == ERR_FULL)
        turn(b, io_now_ns(b->io) + NS_PER_S);
    CHECK(err == OK);
    b->seqs[at]++;
    if (number % 256 == 0)
        turn(b, 0);
}

static void settle(struct bench *b, uint64_t appended)
{
    while (b->completed < appended)
        turn(b, io_now_ns(b->io) + NS_PER_S);
}

/* checkpoint: rows of all conversations as they are now, and the position that they include. */
static void checkpoint(struct bench *b)
{
    static struct conversation_row row;
    static struct inbox_row inbox;
    struct catalog_txn *txn;
    CHECK(catalog_begin(b->catalog, &txn, true) == OK);
    for (uint32_t at = 0; at < b->conversations; at++) {
        struct conversation_id id = conversation_at(at);
        row = (struct conversation_row){.last_seq = b->seqs[at], .last_time_ms = LOG_MS};
        inbox = (struct inbox_row){.last_seq = b->seqs[at], .activity_ms = LOG_MS};
        inbox_row_cursor(&inbox, (struct device_id){1})->delivered = b->seqs[at];
        CHECK(rows_put_conversation(txn, id, &row) == OK);
        for (int i = 0; i < 2; i++)
            CHECK(rows_put_inbox(txn, conversation_user(id, i), id, &inbox) == OK);
    }
    CHECK(catalog_commit(txn) == OK);
    struct checkpoint_meta meta;
    CHECK(checkpoint_read_meta(b->catalog, &meta) == OK);
    meta.positions[0] = log_durable(b->log);
    CHECK(checkpoint_write_meta(b->catalog, &meta) == OK);
    log_checkpointed(b->log, meta.positions[0]);
}

static uint64_t build(struct bench *b)
{
    uint64_t tail = b->tail_bytes / record_bytes(BODY_BYTES);
    uint64_t number = 0;
    if (tail > b->messages)
        tail = b->messages;
    for (; number < b->messages - tail; number++)
        append(b, number);
    settle(b, number);
    checkpoint(b);
    for (; number < b->messages; number++)
        append(b, number);
    settle(b, number);
    return tail;
}

/* leave: as a kill does: nothing more is written. Jobs of the background are awaited first, since
 * they are threads of this process. */
static void leave(struct bench *b)
{
    for (int i = 0; i < 20; i++)
        turn(b, io_now_ns(b->io) + NS_PER_S / 10);
    workers_destroy(b->workers);
    log_abandon(b->log);
    catalog_close(b->catalog);
}

/* ---- starting */

static void workers_start(struct bench *b)
{
    struct worker_options workers = {.shards = 1};
    for (uint32_t i = 0; i < WORKER_CLASS_COUNT; i++) {
        workers.threads[i] = 1;
        workers.queue_max[i] = 64;
    }
    CHECK(workers_create(&b->workers, b->group, &workers) == OK);
}

static void start(struct bench *b, const char *what, uint64_t expected)
{
    double limit = START_S + TAIL_S * (double)(expected * record_bytes(BODY_BYTES)) / (256 << 20);
    int64_t memory = memory_bytes(MEMORY_STORE);
    double cpu = now_s(CLOCK_PROCESS_CPUTIME_ID);
    double began = now_s(CLOCK_MONOTONIC);
    open_store(b);
    cpu = now_s(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    double took = now_s(CLOCK_MONOTONIC) - began;
    CHECK(b->replayed == expected);
    b->missed = b->missed || took > limit;
    printf("start after %s: %6.2f s (at most %.2f), %.2f s of processor, %" PRIu64
           " records replayed, %.1f MiB of the "
           "store's memory\n",
           what, took, limit, cpu, b->replayed,
           (double)(memory_bytes(MEMORY_STORE) - memory) / (1 << 20));
}

static void check_rows(struct bench *b)
{
    static struct conversation_row row;
    struct catalog_txn *txn;
    CHECK(catalog_begin(b->catalog, &txn, false) == OK);
    for (uint32_t at = 0; at < b->conversations; at++) {
        enum err err = rows_read_conversation(txn, conversation_at(at), &row);
        CHECK(err == OK && row.last_seq == b->seqs[at]);
    }
    catalog_abort(txn);
}

/* resident: what all conversations take that were loaded and rest, with the table that finds them.
 */
static void resident(struct bench *b)
{
    static struct message_cache cache;
    static struct conversation_row row;
    struct table table;
    size_t at = 0;
    struct conversation *conversation;
    int64_t before = memory_bytes(MEMORY_CHAT);
    table_init(&table, 1);
    for (uint32_t i = 0; i < b->conversations; i++) {
        struct conversation_id id = conversation_at(i);
        row = (struct conversation_row){.last_seq = 1, .last_time_ms = LOG_MS, .sender_count = 2};
        for (uint32_t j = 0; j < 2; j++)
            row.senders[j].device.v = j + 1;
        conversation = memory_take(sizeof *conversation, MEMORY_CHAT);
        CHECK(conversation != NULL);
        conversation_init(conversation);
        conversation->state = CONVERSATION_LOADING;
        CHECK(conversation_loaded(conversation, &row) == OK);
        CHECK(table_put(&table, (struct table_key){id.hi, id.lo}, conversation) == OK);
    }
    while (table_tidy(&table)) /* as a shard's turns do */
        continue;
    double all = (double)(memory_bytes(MEMORY_CHAT) - before) / b->conversations;
    double cells = (double)table_memory(&table) / b->conversations;
    const int rest = CONVERSATION_BYTES - CONVERSATION_MEMBERS_BYTES;
    b->missed = b->missed || rest + cells > RESTING_BYTES;
    double senders = all - CONVERSATION_BYTES;
    printf("memory of a resting conversation: %.1f B without members (at most %d) = %d + %.1f of "
           "the table; members: %d B of watermarks and list, %.1f for the devices that sent\n",
           rest + cells, RESTING_BYTES, rest, cells, CONVERSATION_MEMBERS_BYTES, senders);
    while ((conversation = table_next(&table, &at)) != NULL) {
        conversation_deinit(conversation, &cache);
        memory_give(conversation, MEMORY_CHAT);
    }
    table_deinit(&table);
}

static void sizes(struct bench *b)
{
    resident(b);
    printf("memory: %zu B more per conversation while it is busy; inbox entry %zu B + %zu per "
           "device; message in an unsealed segment %u B and room for growth (bench_index) + "
           "2 per KiB of segment + %zu per conversation there\n",
           sizeof(struct conversation_work), sizeof(struct entry), sizeof(struct cursor_state),
           INDEX_RECORD_BYTES, sizeof(struct index_run));
}

static uint64_t number_of(const char *text)
{
    char *end;
    uint64_t number = strtoull(text, &end, 10);
    if (*text == '\0' || *end != '\0') {
        fprintf(stderr, "bench_start: '%s' is not a number\n", text);
        exit(2);
    }
    return number;
}

int main(int argc, char **argv)
{
    struct bench b = {.messages = 20000000, .conversations = 200000, .tail_bytes = 512 << 20};
    const char *directory = "out/bench_start";
    for (int i = 1; i < argc; i++) {
        bool more = i + 1 < argc;
        if (strcmp(argv[i], "--smoke") == 0) {
            b.messages = 20000;
            b.conversations = 500;
            b.tail_bytes = 2 << 20;
        } else if (more && strcmp(argv[i], "--messages") == 0) {
            b.messages = number_of(argv[++i]);
        } else if (more && strcmp(argv[i], "--conversations") == 0) {
            b.conversations = (uint32_t)number_of(argv[++i]);
        } else if (more && strcmp(argv[i], "--tail") == 0) {
            b.tail_bytes = number_of(argv[++i]) << 20;
        } else {
            directory = argv[i];
        }
    }
    struct io_options options = {.count = 1,
                                 .connections_max = 16,
                                 .buffers_count = 16,
                                 .buffer_bytes = 4096,
                                 .files_max = 64,
                                 .cpu = -1};
    snprintf(b.directory, sizeof b.directory, "%s", directory);
    snprintf(b.log_directory, sizeof b.log_directory, "%s/log", directory);
    b.seqs = memory_take_zeroed(b.conversations * sizeof *b.seqs, MEMORY_CHAT);
    CHECK(b.seqs != NULL && b.conversations > 0);
    CHECK(io_group_create(&b.group, 1) == OK);
    CHECK(io_create(&b.io, b.group, &options) == OK);
    clear(&b);
    workers_start(&b);
    double began = now_s(CLOCK_MONOTONIC);
    open_store(&b);
    uint64_t tail = build(&b);
    printf("built: %" PRIu64 " messages in %u conversations, %.1f s\n", b.messages, b.conversations,
           now_s(CLOCK_MONOTONIC) - began);
    sizes(&b);
    leave(&b);
    workers_start(&b);
    start(&b, "a kill", tail);
    check_rows(&b);
    log_close(b.log);
    catalog_close(b.catalog);
    start(&b, "a clean stop", 0);
    log_close(b.log);
    catalog_close(b.catalog);
    workers_destroy(b.workers);
    clear(&b);
    memory_give(b.seqs, MEMORY_CHAT);
    io_destroy(b.io);
    io_group_destroy(b.group);
    return b.missed ? 1 : 0;
}
