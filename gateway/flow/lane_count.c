/* lane_count.c: how much a conversation has stored below a number (counting.h): its records are
 * read backwards, a page of COUNT_PAGE numbers at a time, until so many bytes have been seen. Only
 * sizes are kept of them.
 *
 * A member may ask for it as often as a send, and it may be of all that the disk has: so a lane
 * counts for one shard at a time, in the order in which they asked, has one read of a page under
 * way, and after each rests COUNT_REST times as long as that took. The disk, whatever it can do and
 * whoever else wants it, is read for this a quarter of the time at most. */
#include "gateway/flow/lane_private.h"

#define COUNT_REST      3u
#define COUNT_AGAIN_NS  NS_PER_MS /* the log has no room for a read */
#define COUNT_PAGE      64u
#define COUNT_OUT_BYTES (128u << 10)
#define COUNT_ABSENT    UINT32_MAX

struct lane_count {
    struct lane_count *next_count; /* asked for later */
    struct log_read read;
    uint64_t began_ns;       /* the read */
    struct border_count ask; /* becomes the answer */
    uint64_t from;           /* page */
    uint64_t to;
    uint64_t next; /* of it, to be read */
    uint32_t sizes[COUNT_PAGE];
    size_t out_bytes;
    uint8_t out[];
};

static void page(struct lane_count *count, uint64_t to)
{
    count->to = to;
    count->from = count->next = to < COUNT_PAGE ? 1 : to + 1 - COUNT_PAGE;
    for (uint32_t i = 0; i < COUNT_PAGE; i++)
        count->sizes[i] = COUNT_ABSENT;
}

/* start_read: what is left of the page. */
static enum err start_read(const struct shard *shard, struct lane *lane, struct lane_count *count)
{
    CHECK(lane->counts == count && !lane->count_reading);
    count->began_ns = shard->now_ns;
    count->read = (struct log_read){.kind = LOG_READ_RANGE,
                                    .cookie = LANE_READ_COUNT,
                                    .conversation = count->ask.conversation,
                                    .from_seq = count->next,
                                    .to_seq = count->to,
                                    .records_max = COUNT_PAGE,
                                    .out = buffer_of(count->out, count->out_bytes)};
    TRY(log_read(lane->log, &count->read));
    lane->count_reading = true;
    return OK;
}

enum err lane_on_count(const struct config *config, struct lane *lane,
                       const struct border_count *ask)
{
    size_t bytes = config->message_bytes + LOG_RECORD_OVERHEAD;
    bytes = bytes > COUNT_OUT_BYTES ? bytes : COUNT_OUT_BYTES;
    struct lane_count *count = memory_take(sizeof *count + bytes, MEMORY_STORE);
    if (count == NULL)
        return ERR_FULL;
    count->next_count = NULL;
    count->ask = *ask;
    count->out_bytes = bytes;
    page(count, ask->down.below);
    struct lane_count **last = &lane->counts;
    while (*last != NULL)
        last = &(*last)->next_count;
    *last = count;
    lane->reads++;
    return OK;
}

/* answer: the first one's asker, who may ask again. */
static void answer(struct shard *shard, struct lane *lane, enum err err)
{
    struct mesh *mesh = shard->gateway->mesh;
    struct lane_count *count = lane->counts;
    uint32_t target = count->ask.border.source;
    struct border_count *out = (struct border_count *)(void *)mesh_reserve(
        mesh, lane->node, target, MESH_LOG_ANSWER, sizeof *out);
    CHECK(out != NULL);
    *out = count->ask;
    out->border = (struct border){BORDER_COUNTED, (uint16_t)shard->index, 0};
    out->err = err;
    mesh_commit(mesh, lane->node, target, MESH_LOG_ANSWER, sizeof *out);
    lane->reads--;
    lane->counts = count->next_count;
    memory_give(count, MEMORY_STORE);
}

void lane_count_turn(struct shard *shard, struct lane *lane)
{
    while (lane->counts != NULL && !lane->count_reading) {
        bool serving = shard->phase == GATEWAY_SERVING;
        if (serving && shard->now_ns < lane->count_due_ns)
            return;
        enum err err = serving ? start_read(shard, lane, lane->counts) : ERR_CANCELLED;
        if (err == ERR_FULL)
            lane->count_due_ns = shard->now_ns + COUNT_AGAIN_NS;
        else if (err != OK)
            answer(shard, lane, err);
    }
}

void lane_count_deinit(struct lane *lane)
{
    while (lane->counts != NULL) {
        struct lane_count *count = lane->counts;
        lane->counts = count->next_count;
        memory_give(count, MEMORY_STORE);
    }
}

static void take_records(struct lane_count *count)
{
    struct bytes encoded = buffer_bytes(&count->read.out);
    struct log_record record;
    while (log_record_next(&encoded, &record) == OK) {
        CHECK(record.seq == count->next && record.seq <= count->to);
        count->sizes[record.seq - count->from] =
            record.kind == RECORD_RETENTION ? 0 : (uint32_t)record.body.size;
        count->next++;
    }
}

/* take: what the read says of the page. What cannot be had any more takes no place. */
static enum err take(struct lane_count *count)
{
    const struct log_read *read = &count->read;
    take_records(count);
    if (read->err == ERR_EXPIRED || read->err == ERR_CORRUPT) {
        CHECK(read->missing_to >= count->next);
        count->next = read->missing_to + 1;
        return OK;
    }
    if (read->err == ERR_NOT_FOUND || (read->err == OK && read->records == 0))
        count->next = count->to + 1;
    return read->err == ERR_NOT_FOUND ? OK : read->err;
}

/* page_through: what is known of the page is counted, from its end down. */
static bool page_through(struct lane_count *count)
{
    for (uint64_t seq = count->to; seq >= count->from; seq--) {
        uint32_t size = count->sizes[seq - count->from];
        if (size != COUNT_ABSENT && keep_down_count(&count->ask.down, seq, size))
            return true;
    }
    return count->from == 1;
}

void lane_count_on_read(struct shard *shard, struct lane *lane, struct log_read *read)
{
    struct lane_count *count = CONTAINER_OF(read, struct lane_count, read);
    CHECK(lane->counts == count && lane->count_reading);
    lane->count_reading = false;
    lane->count_due_ns = shard->now_ns + COUNT_REST * (shard->now_ns - count->began_ns);
    enum err err = shard->phase == GATEWAY_SERVING ? take(count) : ERR_CANCELLED;
    bool through = err == OK && count->next > count->to && page_through(count);
    if (err != OK || through)
        answer(shard, lane, err);
    else if (count->next > count->to)
        page(count, count->from - 1);
}
