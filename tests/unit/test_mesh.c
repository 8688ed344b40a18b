/* test_mesh.c: order, wrapping and bounds in one thread against a model; promises that always hold;
 * two threads that sleep and wake over the real io. A lost wake-up shows as a sleep that runs into
 * its deadline. */
#include "tests/unit/check.h"

#include "core/io.h"
#include "core/memory.h"
#include "core/mesh.h"

#include <pthread.h>
#include <stdio.h>

static struct mesh *make(uint32_t shards, uint32_t ring_bytes, uint32_t messages_max,
                         struct io_group *group)
{
    struct mesh_options options = {.shards = shards, .lanes = 1};
    for (int i = 0; i < MESH_CLASS_COUNT; i++) {
        options.ring_bytes[i] = ring_bytes;
        options.messages_max[i] = messages_max;
    }
    struct mesh *mesh;
    assert_int_equal(mesh_create(&mesh, group, &options), OK);
    return mesh;
}

/* fill: a message's bytes follow from its number. */
static void fill(uint8_t *data, size_t size, uint64_t number)
{
    for (size_t i = 0; i < size; i++)
        data[i] = (uint8_t)(number * 31 + i);
}

static void assert_filled(struct bytes message, size_t size, uint64_t number)
{
    assert_non_null(message.data);
    assert_int_equal(message.size, size);
    assert_int_equal((uintptr_t)message.data % 8, 0);
    for (size_t i = 0; i < size; i++)
        assert_int_equal(message.data[i], (uint8_t)(number * 31 + i));
}

#define QUEUE 4096
struct model {
    size_t sizes[QUEUE]; /* by number mod QUEUE */
    uint64_t sent;
    uint64_t published;
    uint64_t taken;
};

/* agrees_behind: what is published behind the oldest message; returns how many were seen. */
static uint64_t agrees_behind(struct mesh *mesh, const struct model *m, uint32_t target,
                              uint32_t source, enum mesh_class class, struct bytes message)
{
    uint64_t at = m->taken;
    while ((message = mesh_peek_after(mesh, target, source, class, message)).data != NULL) {
        assert_true(++at < m->published);
        assert_filled(message, m->sizes[at % QUEUE], at);
    }
    assert_null(mesh_peek_after(mesh, target, source, class, message).data);
    return at - m->taken;
}

static void random_ring(uint32_t ring_bytes, uint32_t messages_max, uint64_t seed)
{
    static struct model models[3][3][MESH_CLASS_COUNT];
    memset(models, 0, sizeof models);
    struct mesh *mesh = make(2, ring_bytes, messages_max, NULL);
    uint64_t refused = 0;
    uint64_t behind = 0;
    for (int step = 0; step < 60000; step++) {
        enum mesh_class class = (enum mesh_class)random_below(&seed, MESH_CLASS_COUNT);
        uint32_t source = (uint32_t)random_below(&seed, 2);
        uint32_t target = (uint32_t)random_below(&seed, 2);
        if (class == MESH_LOG_ANSWER)
            source = mesh_lane(mesh, 0);
        else if (class == MESH_LOG)
            target = mesh_lane(mesh, 0);
        struct model *m = &models[source][target][class];
        size_t size = random_below(&seed, ring_bytes / 2 - MESH_HEAD_BYTES + 1);
        if (random_below(&seed, 2) == 0)
            size = random_below(&seed, size / 8 + 1);
        switch (random_below(&seed, 5)) {
        case 0:
        case 1: {
            bool room = mesh_room(mesh, source, target, class, size);
            uint8_t *p = mesh_reserve(mesh, source, target, class, size);
            assert_int_equal(p != NULL, room);
            refused += p == NULL;
            if (m->sent == m->taken) /* whatever the offset, an empty ring takes a message */
                assert_non_null(p);
            if (p == NULL || random_below(&seed, 8) == 0)
                break; /* void reservation */
            memset(p, 0xee, size);
            size_t used = random_below(&seed, 4) == 0 ? random_below(&seed, size + 1) : size;
            fill(p, used, m->sent);
            m->sizes[m->sent++ % QUEUE] = used;
            mesh_commit(mesh, source, target, class, used);
            break;
        }
        case 2:
            mesh_flush(mesh, source % 2); /* shard 0 drives the lane, node 2 */
            for (uint32_t i = source % 2; i < 3; i += 2)
                for (uint32_t j = 0; j < 3; j++)
                    for (uint32_t k = 0; k < MESH_CLASS_COUNT; k++)
                        models[i][j][k].published = models[i][j][k].sent;
            break;
        default: {
            struct bytes message = mesh_peek(mesh, target, source, class);
            if (m->published == m->taken) {
                assert_null(message.data);
                break;
            }
            assert_filled(message, m->sizes[m->taken % QUEUE], m->taken);
            behind += agrees_behind(mesh, m, target, source, class, message);
            mesh_pop(mesh, target, source, class);
            m->taken++;
        }
        }
        assert_int_equal(mesh_depth(mesh, source, target, class), m->published - m->taken);
        assert_true(messages_max == 0 || m->sent - m->taken <= messages_max);
    }
    assert_true(refused > 100 && (behind > 100 || messages_max == 1));
    mesh_destroy(mesh);
}

static void agrees_with_model(void **state)
{
    (void)state;
    int64_t before = memory_bytes(MEMORY_CORE);
    random_ring(64, 0, 15);
    random_ring(256, 0, 16);
    random_ring(4096, 0, 17);
    random_ring(4096, 1, 18);
    random_ring(1024, 3, 19);
    assert_int_equal(memory_bytes(MEMORY_CORE), before);
}

/* Requests with promised answers of any size; whatever the interleaving, the answer's place is
 * there. */
static void promises(uint32_t ring_bytes, uint32_t messages_max, uint64_t seed)
{
    struct mesh *mesh = make(2, ring_bytes, messages_max, NULL);
    static size_t asked[QUEUE];
    uint64_t sent = 0;
    uint64_t answered = 0;
    uint64_t received = 0;
    uint64_t refused = 0;
    for (int step = 0; step < 100000; step++) {
        size_t size_max = ring_bytes / 2 - MESH_HEAD_BYTES;
        if (step % 2000 < 1500) /* mostly small ones, so that many are out at a time */
            size_max = size_max / 8 + 1;
        size_t size = random_below(&seed, size_max + 1);
        switch (random_below(&seed, 3)) {
        case 0: /* shard 0 asks */
            if (!mesh_room(mesh, 0, 1, MESH_REQUEST, 8))
                break;
            if (mesh_promise(mesh, 0, 1, MESH_ANSWER, size) != OK) {
                assert_true(sent > received); /* with nothing out there is always room for one */
                refused++;
                break;
            }
            if (random_below(&seed, 10) == 0) {
                mesh_unpromise(mesh, 0, 1, MESH_ANSWER, size);
                break;
            }
            store_u64(mesh_reserve(mesh, 0, 1, MESH_REQUEST, 8), size);
            mesh_commit(mesh, 0, 1, MESH_REQUEST, 8);
            asked[sent++ % QUEUE] = size;
            mesh_flush(mesh, 0);
            break;
        case 1: { /* shard 1 answers, with up to what was promised */
            struct bytes request = mesh_peek(mesh, 1, 0, MESH_REQUEST);
            if (request.data == NULL)
                break;
            size_t promised = load_u64(request.data);
            mesh_pop(mesh, 1, 0, MESH_REQUEST);
            uint8_t *p = mesh_reserve(mesh, 1, 0, MESH_ANSWER, promised);
            assert_non_null(p);
            fill(p, promised, answered);
            mesh_commit(mesh, 1, 0, MESH_ANSWER, random_below(&seed, 2) ? promised : promised / 2);
            answered++;
            mesh_flush(mesh, 1);
            break;
        }
        default: {
            struct bytes answer = mesh_peek(mesh, 0, 1, MESH_ANSWER);
            if (answer.data == NULL)
                break;
            assert_filled(answer, answer.size, received);
            mesh_pop(mesh, 0, 1, MESH_ANSWER);
            mesh_unpromise(mesh, 0, 1, MESH_ANSWER, asked[received++ % QUEUE]);
        }
        }
    }
    assert_true(received > 10000 && refused > 100);
    mesh_destroy(mesh);
}

static void promised_room_is_there(void **state)
{
    (void)state;
    promises(64, 0, 20);
    promises(512, 0, 21);
    promises(8192, 0, 22);
    promises(8192, 1, 23);
    promises(1024, 5, 24);
}

static void sleep_refused_while_something_waits(void **state)
{
    (void)state;
    struct mesh *mesh = make(2, 256, 0, NULL);
    assert_true(mesh_sleep(mesh, 1));
    mesh_awake(mesh, 1);
    assert_non_null(mesh_reserve(mesh, 0, 1, MESH_FANOUT, 4));
    mesh_commit(mesh, 0, 1, MESH_FANOUT, 4);
    assert_true(mesh_sleep(mesh, 1)); /* not published yet */
    mesh_awake(mesh, 1);
    mesh_flush(mesh, 0);
    assert_false(mesh_sleep(mesh, 1));
    mesh_pop(mesh, 1, 0, MESH_FANOUT);
    assert_true(mesh_sleep(mesh, 1));
    mesh_awake(mesh, 1);
    assert_non_null(mesh_reserve(mesh, 1, 1, MESH_FANOUT, 4)); /* to itself, not flushed */
    mesh_commit(mesh, 1, 1, MESH_FANOUT, 4);
    assert_false(mesh_sleep(mesh, 1));
    mesh_pop(mesh, 1, 1, MESH_FANOUT);
    assert_true(mesh_sleep(mesh, 0));
    mesh_awake(mesh, 0);
    uint32_t lane = mesh_lane(mesh, 0); /* shard 0's */
    assert_non_null(mesh_reserve(mesh, 1, lane, MESH_LOG, 4));
    mesh_commit(mesh, 1, lane, MESH_LOG, 4);
    assert_true(mesh_sleep(mesh, 1));
    mesh_awake(mesh, 1);
    assert_false(mesh_sleep(mesh, 0));
    mesh_pop(mesh, lane, 1, MESH_LOG);
    assert_non_null(mesh_reserve(mesh, lane, 1, MESH_LOG_ANSWER, 4));
    mesh_commit(mesh, lane, 1, MESH_LOG_ANSWER, 4);
    assert_true(mesh_sleep(mesh, 1)); /* its shard has not flushed yet */
    mesh_awake(mesh, 1);
    assert_true(mesh_sleep(mesh, 0));
    assert_false(mesh_sleep(mesh, 1));
    mesh_destroy(mesh);
}

static void a_full_lane_holds_up_no_other(void **state)
{
    (void)state;
    struct mesh_options options = {.shards = 2,
                                   .lanes = 3,
                                   .ring_bytes = {64, 64, 64, 64, 64},
                                   .messages_max = {1, 1, 1, 1, 1}};
    struct mesh *mesh;
    assert_int_equal(mesh_create(&mesh, NULL, &options), OK);
    for (uint32_t lane = 0; lane < 3; lane++) { /* 0 and 2 are driven by the same shard */
        uint32_t node = mesh_lane(mesh, lane);
        assert_int_equal(mesh_promise(mesh, 1, node, MESH_LOG_ANSWER, 8), OK);
        assert_int_equal(mesh_promise(mesh, 1, node, MESH_LOG_ANSWER, 8), ERR_FULL);
        assert_non_null(mesh_reserve(mesh, 1, node, MESH_LOG, 8));
        mesh_commit(mesh, 1, node, MESH_LOG, 8);
        assert_null(mesh_reserve(mesh, 1, node, MESH_LOG, 8));
    }
    mesh_flush(mesh, 1);
    for (uint32_t lane = 0; lane < 3; lane++)
        assert_int_equal(mesh_peek(mesh, mesh_lane(mesh, lane), 1, MESH_LOG).size, 8);
    mesh_destroy(mesh);
    assert_int_equal(mesh_rings(2, 3), 2 * 2 * 3 + 2 * 3 * 2);
}

static void survives_failed_allocations(void **state)
{
    (void)state;
    int64_t before = memory_bytes(MEMORY_CORE);
    struct mesh_options options = {.shards = 2, .lanes = 2, .ring_bytes = {64, 64, 64, 64, 64}};
    for (uint64_t n = 1;; n++) {
        struct mesh *mesh;
        memory_fail_at(n);
        enum err err = mesh_create(&mesh, NULL, &options);
        memory_fail_at(0);
        if (err == OK) {
            mesh_destroy(mesh);
            assert_true(n > 16);
            break;
        }
        assert_int_equal(err, ERR_NO_MEMORY);
        assert_null(mesh);
        assert_int_equal(memory_bytes(MEMORY_CORE), before);
    }
    assert_int_equal(memory_bytes(MEMORY_CORE), before);
}

/* ---- two threads */

#define ROUNDS      20000
#define SLEEP_NS    (20 * NS_PER_S) /* nobody needs to sleep that long */
#define BURST_BYTES 200

struct player {
    struct mesh *mesh;
    struct io_group *group;
    uint32_t index;
    uint64_t sent;
    uint64_t received;
    uint64_t sleeps;
    uint64_t lost_wakes;
    uint64_t wrong;
    enum err err;
};

static void receive_all(struct player *p)
{
    for (;;) {
        struct bytes message = mesh_peek(p->mesh, p->index, 1 - p->index, MESH_REQUEST);
        if (message.data == NULL)
            return;
        if (message.size < 8 || load_u64(message.data) != p->received)
            p->wrong++;
        for (size_t i = 8; i < message.size; i++)
            p->wrong += message.data[i] != (uint8_t)(p->received + i);
        mesh_pop(p->mesh, p->index, 1 - p->index, MESH_REQUEST);
        p->received++;
    }
}

/* send_burst: at most one more than the other answered, so that both sleep often; with a full ring,
 * what fits. */
static void send_burst(struct player *p, uint64_t *seed)
{
    uint64_t limit = p->received + (p->index == 0 ? 1 + random_below(seed, 30) : 0);
    while (p->sent < limit && p->sent < ROUNDS) {
        size_t size = 8 + random_below(seed, BURST_BYTES);
        uint8_t *out = mesh_reserve(p->mesh, p->index, 1 - p->index, MESH_REQUEST, size);
        if (out == NULL)
            return;
        store_u64(out, p->sent);
        for (size_t i = 8; i < size; i++)
            out[i] = (uint8_t)(p->sent + i);
        mesh_commit(p->mesh, p->index, 1 - p->index, MESH_REQUEST, size);
        p->sent++;
    }
}

static void play(struct player *p, struct io *io)
{
    uint64_t seed = 25 + p->index;
    struct io_event events[4];
    (void)io_poll(io, events, 4, 0);
    while (p->received < ROUNDS || p->sent < ROUNDS) {
        receive_all(p);
        send_burst(p, &seed);
        mesh_flush(p->mesh, p->index);
        bool stuck =
            p->sent < ROUNDS && p->sent < p->received; /* a full ring: nobody would wake us */
        if (!stuck && mesh_sleep(p->mesh, p->index)) {
            uint64_t before = io_now_ns(io);
            if (p->received == ROUNDS && p->sent == ROUNDS)
                break;
            (void)io_poll(io, events, 4, before + SLEEP_NS);
            p->sleeps++;
            p->lost_wakes += io_now_ns(io) >= before + SLEEP_NS;
            mesh_awake(p->mesh, p->index);
        }
    }
    mesh_flush(p->mesh, p->index);
}

static void *player_thread(void *argument)
{
    struct player *p = argument;
    struct io_options options = {.index = p->index,
                                 .count = 2,
                                 .connections_max = 8,
                                 .buffers_count = 8,
                                 .buffer_bytes = 4096,
                                 .files_max = 8,
                                 .cpu = -1};
    struct io *io;
    p->err = io_create(&io, p->group, &options);
    if (p->err != OK)
        return NULL;
    play(p, io);
    io_destroy(io);
    return NULL;
}

static void two_threads_sleep_and_wake(void **state)
{
    (void)state;
    struct io_group *group;
    assert_int_equal(io_group_create(&group, 2), OK);
    struct mesh *mesh = make(2, 2048, 0, group);
    struct player players[2];
    pthread_t threads[2];
    for (uint32_t i = 0; i < 2; i++) {
        players[i] = (struct player){.mesh = mesh, .group = group, .index = i};
        assert_int_equal(pthread_create(&threads[i], NULL, player_thread, &players[i]), 0);
    }
    for (uint32_t i = 0; i < 2; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(players[i].err, OK);
        assert_int_equal(players[i].received, ROUNDS);
        assert_int_equal(players[i].wrong, 0);
        assert_int_equal(players[i].lost_wakes, 0);
        assert_true(players[i].sleeps > 0);
    }
    mesh_destroy(mesh);
    io_group_destroy(group);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_model),
        cmocka_unit_test(promised_room_is_there),
        cmocka_unit_test(sleep_refused_while_something_waits),
        cmocka_unit_test(a_full_lane_holds_up_no_other),
        cmocka_unit_test(survives_failed_allocations),
        cmocka_unit_test(two_threads_sleep_and_wake),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
