/* lane_count.c: how much a conversation has stored below a number (counting.h): its records are
 * read backwards, a page of COUNT_PAGE numbers at a time, until so many bytes have been seen. Only
 * sizes are kept of them. One disk read is under way at a time, so that a large bound takes its
 * time and holds nobody up. */
#include "gateway/flow/lane_private.h"

#define COUNT_PAGE      64u
#define COUNT_OUT_BYTES (128u << 10)
#define COUNT_ABSENT    UINT32_MAX

struct lane_count {
    struct log_read read;
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

static enum err read_page(struct lane *lane, struct lane_count *count)
{
    count->read = (struct log_read){.kind = LOG_READ_RANGE,
                                    .cookie = LANE_READ_COUNT,
                                    .conversation = count->ask.conversation,
                                    .from_seq = count->next,
                                    .to_seq = count->to,
                                    .records_max = COUNT_PAGE,
                                    .out = buffer_of(count->out, count->out_bytes)};
    return log_read(lane->log, &count->read);
}

enum err lane_on_count(const struct config *config, struct lane *lane,
                       const struct border_count *ask)
{
    size_t bytes = config->message_bytes + LOG_RECORD_OVERHEAD;
    bytes = bytes > COUNT_OUT_BYTES ? bytes : COUNT_OUT_BYTES;
    struct lane_count *count = memory_take(sizeof *count + bytes, MEMORY_STORE);
    if (count == NULL)
        return ERR_FULL;
    count->ask = *ask;
    count->out_bytes = bytes;
    page(count, ask->down.below);
    if (read_page(lane, count) != OK) {
        memory_give(count, MEMORY_STORE);
        return ERR_FULL;
    }
    lane->reads++;
    return OK;
}

static void answer(struct shard *shard, struct lane *lane, struct lane_count *count, enum err err)
{
    struct mesh *mesh = shard->gateway->mesh;
    uint32_t target = count->ask.border.source;
    struct border_count *out = (struct border_count *)(void *)mesh_reserve(
        mesh, lane->node, target, MESH_LOG_ANSWER, sizeof *out);
    CHECK(out != NULL);
    *out = count->ask;
    out->border = (struct border){BORDER_COUNTED, (uint16_t)shard->index, 0};
    out->err = err;
    mesh_commit(mesh, lane->node, target, MESH_LOG_ANSWER, sizeof *out);
    lane->reads--;
    memory_give(count, MEMORY_STORE);
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

/* through: what is known of the page is counted, from its end down. */
static bool through(struct lane_count *count)
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
    enum err err = shard->phase == GATEWAY_SERVING ? take(count) : ERR_CANCELLED;
    if (err == OK && count->next > count->to) {
        if (through(count)) {
            answer(shard, lane, count, OK);
            return;
        }
        page(count, count->from - 1);
    }
    if (err == OK)
        err = read_page(lane, count);
    if (err != OK)
        answer(shard, lane, count, err);
}
