/* test_lane_count.c: what counting reads from a lane's disk: one read at a time, however many ask,
 * and a quarter of the time at most, whatever a read takes. The log is a clock and a page of
 * records. */
#include "gateway/flow/lane_private.h"
#include "store/segment.h"
#include "tests/unit/check.h"

#define SHARDS      3
#define BODY_BYTES  100u
#define READ_PART   40u /* records that one read brings: a page needs two */
#define BELOW       1000u
#define BOUND       20000u /* 200 records of 100 bytes … */
#define BOUND_READS 8      /* … in four pages */

struct rig {
    struct config config;
    struct gateway gateway;
    struct shard shard;
    struct lane lane;
    uint64_t reads;
    uint64_t busy_ns; /* of the disk */
};

static struct log_read *pending;
static enum err refusing;

/* log_read: the product's, replaced. */
enum err log_read(struct log *log, struct log_read *read)
{
    (void)log;
    assert_null(pending);
    if (refusing != OK)
        return refusing;
    pending = read;
    return OK;
}

static int set_up(void **state)
{
    struct rig *rig = memory_take_zeroed(sizeof *rig, MEMORY_CHAT);
    struct mesh_options options = {.shards = SHARDS, .lanes = 1};
    assert_non_null(rig);
    for (int i = 0; i < MESH_CLASS_COUNT; i++)
        options.ring_bytes[i] = 4096;
    assert_int_equal(mesh_create(&rig->gateway.mesh, NULL, &options), OK);
    rig->config.message_bytes = 1000;
    rig->gateway.config = &rig->config;
    rig->gateway.shard_count = SHARDS;
    rig->shard.gateway = &rig->gateway;
    rig->shard.phase = GATEWAY_SERVING;
    rig->shard.now_ns = 3600 * NS_PER_S;
    rig->lane.node = mesh_lane(rig->gateway.mesh, 0);
    pending = NULL;
    refusing = OK;
    *state = rig;
    return 0;
}

static int tear_down(void **state)
{
    struct rig *rig = *state;
    lane_count_deinit(&rig->lane);
    mesh_destroy(rig->gateway.mesh);
    memory_give(rig, MEMORY_CHAT);
    assert_int_equal(memory_bytes(MEMORY_STORE), 0);
    return 0;
}

static void ask(struct rig *rig, uint32_t shard)
{
    const struct border_count out = {.border = {BORDER_COUNT, (uint16_t)shard, 0},
                                     .down = {.below = BELOW, .bound = BOUND}};
    assert_int_equal(
        mesh_promise(rig->gateway.mesh, shard, rig->lane.node, MESH_LOG_ANSWER, sizeof out), OK);
    assert_int_equal(lane_on_count(&rig->config, &rig->lane, &out), OK);
}

/* answered: what the shard was told; ERR_AGAIN: nothing yet. */
static enum err answered(struct rig *rig, uint32_t shard, struct border_count *out)
{
    struct mesh *mesh = rig->gateway.mesh;
    mesh_flush(mesh, 0);
    struct bytes message = mesh_peek(mesh, shard, rig->lane.node, MESH_LOG_ANSWER);
    if (message.size == 0)
        return ERR_AGAIN;
    memcpy(out, message.data, sizeof *out);
    mesh_pop(mesh, shard, rig->lane.node, MESH_LOG_ANSWER);
    mesh_unpromise(mesh, shard, rig->lane.node, MESH_LOG_ANSWER, sizeof *out);
    return (enum err)out->err;
}

/* finish: the read that is under way took so long. */
static void finish(struct rig *rig, uint64_t took_ns)
{
    static const uint8_t body[BODY_BYTES];
    const struct segment_key key = {0};
    struct log_read *read = pending;
    struct buffer *out = &read->out;
    pending = NULL;
    read->records = 0;
    for (uint64_t seq = read->from_seq; seq <= read->to_seq && read->records < READ_PART; seq++) {
        const struct log_record record = {
            .kind = RECORD_MESSAGE, .seq = seq, .body = bytes_of(body, sizeof body)};
        size_t size = record_bytes(sizeof body);
        assert_true(buffer_room(out) >= size);
        record_encode(out->data + out->size, &record, &key, 0);
        out->size += size;
        read->records++;
    }
    read->err = OK;
    rig->shard.now_ns += took_ns;
    rig->busy_ns += took_ns;
    rig->reads++;
    lane_count_on_read(&rig->shard, &rig->lane, read);
}

/* turn: at the next time at which there is one. */
static void turn(struct rig *rig, uint64_t took_ns)
{
    lane_count_turn(&rig->shard, &rig->lane);
    if (pending != NULL)
        finish(rig, took_ns);
    else if (rig->lane.count_due_ns > rig->shard.now_ns)
        rig->shard.now_ns = rig->lane.count_due_ns;
}

static void test_a_quarter_of_the_time(void **state)
{
    struct rig *rig = *state;
    const uint64_t times_ns[] = {0, 50000, 8 * NS_PER_MS, 2 * NS_PER_S};
    for (size_t i = 0; i < COUNT_OF(times_ns); i++) {
        struct border_count out;
        uint64_t began_ns = rig->shard.now_ns;
        rig->busy_ns = rig->reads = 0;
        ask(rig, 1);
        while (answered(rig, 1, &out) == ERR_AGAIN)
            turn(rig, times_ns[i]);
        assert_int_equal(out.err, OK);
        assert_int_equal(out.down.bytes, BOUND);
        assert_int_equal(rig->reads, BOUND_READS);
        assert_int_equal(rig->lane.reads, 0);
        if (rig->lane.count_due_ns > rig->shard.now_ns) /* nor does the next one begin before */
            rig->shard.now_ns = rig->lane.count_due_ns;
        assert_int_equal(rig->shard.now_ns - began_ns, 4 * rig->busy_ns);
    }
}

/* test_one_after_the_other: also when all ask, and again: the rest is the lane's. */
static void test_one_after_the_other(void **state)
{
    struct rig *rig = *state;
    struct border_count out;
    uint64_t began_ns = rig->shard.now_ns;
    for (uint32_t i = 0; i < SHARDS; i++)
        ask(rig, (i + 1) % SHARDS);
    assert_int_equal(rig->lane.reads, SHARDS);
    for (uint32_t i = 0; i < SHARDS; i++) {
        while (answered(rig, (i + 1) % SHARDS, &out) == ERR_AGAIN)
            turn(rig, NS_PER_MS);
        assert_int_equal(out.err, OK);
        assert_int_equal(rig->reads, BOUND_READS * (i + 1));
        assert_int_equal(answered(rig, (i + 2) % SHARDS, &out), ERR_AGAIN);
    }
    assert_true(rig->shard.now_ns - began_ns >= 4 * rig->busy_ns - 3 * NS_PER_MS);
}

/* test_no_room: in the log: what was counted stays, it goes on when there is. */
static void test_no_room(void **state)
{
    struct rig *rig = *state;
    struct border_count out;
    ask(rig, 1);
    turn(rig, NS_PER_MS);
    refusing = ERR_FULL;
    for (int i = 0; i < 10; i++)
        turn(rig, NS_PER_MS);
    assert_int_equal(answered(rig, 1, &out), ERR_AGAIN);
    assert_true(rig->lane.count_due_ns >= rig->shard.now_ns); /* nobody spins */
    refusing = OK;
    while (answered(rig, 1, &out) == ERR_AGAIN)
        turn(rig, NS_PER_MS);
    assert_int_equal(out.err, OK);
    assert_int_equal(rig->reads, BOUND_READS);
}

/* test_failure: of one is told to its asker; the next one has its turn. */
static void test_failure(void **state)
{
    struct rig *rig = *state;
    struct border_count out;
    ask(rig, 1);
    ask(rig, 2);
    refusing = ERR_NO_MEMORY;
    turn(rig, 0);
    assert_int_equal(answered(rig, 1, &out), ERR_NO_MEMORY);
    assert_int_equal(answered(rig, 2, &out), ERR_NO_MEMORY);
    ask(rig, 1);
    refusing = OK;
    while (answered(rig, 1, &out) == ERR_AGAIN)
        turn(rig, NS_PER_MS);
    assert_int_equal(out.err, OK);
}

/* test_drain: it is over for all, as soon as nothing is under way. */
static void test_drain(void **state)
{
    struct rig *rig = *state;
    struct border_count out;
    for (uint32_t i = 0; i < SHARDS; i++)
        ask(rig, i);
    lane_count_turn(&rig->shard, &rig->lane);
    assert_non_null(pending);
    rig->shard.phase = GATEWAY_DRAINING;
    lane_count_turn(&rig->shard, &rig->lane);
    assert_int_equal(rig->lane.reads, SHARDS);
    finish(rig, NS_PER_S);
    lane_count_turn(&rig->shard, &rig->lane);
    assert_int_equal(rig->lane.reads, 0);
    for (uint32_t i = 0; i < SHARDS; i++)
        assert_int_equal(answered(rig, i, &out), ERR_CANCELLED);
}

/* test_crash: nobody is answered any more: tear_down finds no memory left. */
static void test_crash(void **state)
{
    struct rig *rig = *state;
    ask(rig, 0);
    ask(rig, 1);
    lane_count_turn(&rig->shard, &rig->lane);
    assert_non_null(pending);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_quarter_of_the_time, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_one_after_the_other, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_no_room, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_failure, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_drain, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_crash, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
