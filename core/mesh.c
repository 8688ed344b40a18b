/* mesh.c: the rings.
 *
 * A ring is a power of two of bytes. Positions count bytes since the start and never wrap (2^64);
 * position p lies at data[p mod capacity]. A message is
 *
 *     u32 size | u32 kind: 0 message, 1 padding | size bytes, rounded up to 8
 *
 * and never crosses the ring's end: what is left there and too small becomes padding, whose size is
 * everything up to the end. Positions are multiples of 8, so a head always fits.
 *
 * Who writes what: the source its tail, the committed count and both published values; the target
 * head and the popped count; each side's on cache lines of their own. Published and head are stored
 * with release and loaded with acquire by the other side, which reads the other's line only when
 * its own copy says empty or full. Padding is committed with the message behind it, so it is never
 * the last thing in the ring.
 *
 * No wake-up is lost. mesh_flush stores published (seq_cst), then loads the target's sleeping flag
 * (seq_cst). mesh_sleep stores the flag, then loads published, both seq_cst. In the one total order
 * of these four either the flag's store comes before the flag's load: the source sees it and calls
 * io_wake, which also ends a sleep that only begins afterwards; or the flag's load comes first,
 * then so does the store of published, before the load in mesh_sleep: the target sees the message
 * and does not sleep. A flag that is still set while its owner is already awake costs one needless
 * io_wake.
 *
 * No promise overflows. Cost of a message: its bytes with head, rounded. The target keeps for each
 * of its answer rings the sum and number of promised costs and the largest cost ever promised, and
 * makes a promise only while
 *
 *     promised + (largest - 8) ≤ capacity   and   promises ≤ messages_max
 *
 * Consider the source committing an answer, and let R be the newest request it took from the
 * target. It sees at least the head that the target had stored when it promised for R (the head was
 * stored before the request was published, and it acquired that). What then lies between that head
 * and the new tail are answers to promises made no later than R's, and none was given back before
 * R's promise was made, because giving back follows popping: all of them, this answer included, are
 * in the sum that was checked for R. Padding: one run ends at each multiple of the capacity. If a
 * run lay in the region and this answer needed another, the messages between the two would have
 * filled the ring from its start to where the answer does not fit: with the answer more than the
 * capacity, against the sum. So at most one run, shorter than the cost of the message that did not
 * fit, hence at most largest - 8. Sum and padding fit. */
#include "core/mesh.h"

#include "core/io.h"
#include "core/memory.h"

#include <stdatomic.h>

#define LINE_BYTES       64
#define KIND_MESSAGE     0
#define KIND_PADDING     1
#define RING_BYTES_MIN   64
#define RESERVED_NOTHING UINT64_MAX

struct ring {
    /* constant */
    _Alignas(LINE_BYTES) uint8_t *data;
    uint64_t capacity;
    uint32_t messages_max; /* UINT32_MAX: no limit */

    /* the source's */
    _Alignas(LINE_BYTES) uint64_t tail; /* committed */
    uint64_t head_seen;
    uint64_t reserved_at; /* where the reserved message starts, padding skipped */
    uint32_t reserved_size;
    uint32_t committed_count; /* wraps */
    uint32_t popped_seen;

    _Alignas(LINE_BYTES) _Atomic uint64_t published;
    _Atomic uint32_t published_count;

    /* the target's */
    _Alignas(LINE_BYTES) _Atomic uint64_t head;
    _Atomic uint32_t popped_count; /* wraps */

    _Alignas(LINE_BYTES) uint64_t published_seen;
    uint64_t promised; /* bytes; classes of answers only, as the next two */
    uint64_t promise_largest;
    uint32_t promises;
};

struct side {                                       /* of a node */
    _Alignas(LINE_BYTES) _Atomic uint32_t sleeping; /* of a shard */
    /* as source: which of its rings have committed, unpublished messages */
    _Alignas(LINE_BYTES) uint8_t *dirty; /* per target, a bit per class */
    uint32_t dirty_count;                /* targets with a bit */
};

struct mesh {
    struct io_group *group;
    uint32_t shards;
    uint32_t nodes; /* driven by the shard of their number mod shards */
    struct side *sides;
    uint8_t *dirty;
    struct ring *rings; /* [source][target][class] */
};

static bool ring_exists(uint32_t shards, uint32_t source, uint32_t target, enum mesh_class class)
{
    bool source_is_lane = source >= shards;
    bool target_is_lane = target >= shards;
    switch (class) {
    case MESH_LOG_ANSWER:
        return source_is_lane && !target_is_lane;
    case MESH_LOG:
        return !source_is_lane && target_is_lane;
    case MESH_ANSWER:
    case MESH_REQUEST:
    case MESH_FANOUT:
        return !source_is_lane && !target_is_lane;
    case MESH_CLASS_COUNT:
        break;
    }
    return false;
}

static struct ring *ring_of(const struct mesh *mesh, uint32_t source, uint32_t target,
                            enum mesh_class class)
{
    CHECK(source < mesh->nodes && target < mesh->nodes);
    return &mesh->rings[((size_t)source * mesh->nodes + target) * MESH_CLASS_COUNT + class];
}

static uint64_t cost_of(size_t size)
{
    return ((uint64_t)size + MESH_HEAD_BYTES + 7) & ~(uint64_t)7;
}

/* ---- making */

static enum err ring_init(struct ring *ring, uint32_t bytes, uint32_t messages_max)
{
    CHECK(bytes >= RING_BYTES_MIN && (bytes & (bytes - 1)) == 0);
    ring->data = memory_take_aligned(bytes, LINE_BYTES, MEMORY_CORE);
    if (ring->data == NULL)
        return ERR_NO_MEMORY;
    ring->capacity = bytes;
    ring->messages_max = messages_max == 0 ? UINT32_MAX : messages_max;
    ring->reserved_at = RESERVED_NOTHING;
    return OK;
}

static void *take_lines(size_t count, size_t size)
{
    void *p = memory_take_aligned(count * size, LINE_BYTES, MEMORY_CORE);
    if (p != NULL)
        memset(p, 0, count * size);
    return p;
}

enum err mesh_create(struct mesh **out, struct io_group *group, const struct mesh_options *options)
{
    uint32_t nodes = options->shards + options->lanes;
    CHECK(options->shards > 0 && nodes <= 4096);
    *out = NULL;
    struct mesh *mesh = memory_take_zeroed(sizeof *mesh, MEMORY_CORE);
    if (mesh == NULL)
        return ERR_NO_MEMORY;
    size_t ring_count = (size_t)nodes * nodes * MESH_CLASS_COUNT;
    mesh->group = group;
    mesh->shards = options->shards;
    mesh->nodes = nodes;
    mesh->sides = take_lines(nodes, sizeof *mesh->sides);
    mesh->dirty = take_lines((size_t)nodes * nodes, 1);
    mesh->rings = take_lines(ring_count, sizeof *mesh->rings);
    if (mesh->sides == NULL || mesh->dirty == NULL || mesh->rings == NULL)
        goto fail_memory;
    for (uint32_t i = 0; i < nodes; i++)
        mesh->sides[i].dirty = mesh->dirty + (size_t)i * nodes;
    for (size_t i = 0; i < ring_count; i++) {
        enum mesh_class class = (enum mesh_class)(i % MESH_CLASS_COUNT);
        uint32_t pair = (uint32_t)(i / MESH_CLASS_COUNT);
        if (ring_exists(mesh->shards, pair / nodes, pair % nodes, class) &&
            ring_init(&mesh->rings[i], options->ring_bytes[class], options->messages_max[class]))
            goto fail_memory;
    }
    *out = mesh;
    return OK;

fail_memory:
    mesh_destroy(mesh);
    return ERR_NO_MEMORY;
}

void mesh_destroy(struct mesh *mesh)
{
    if (mesh == NULL)
        return;
    size_t ring_count = (size_t)mesh->nodes * mesh->nodes * MESH_CLASS_COUNT;
    for (size_t i = 0; mesh->rings != NULL && i < ring_count; i++)
        memory_give(mesh->rings[i].data, MEMORY_CORE);
    memory_give(mesh->rings, MEMORY_CORE);
    memory_give(mesh->dirty, MEMORY_CORE);
    memory_give(mesh->sides, MEMORY_CORE);
    memory_give(mesh, MEMORY_CORE);
}

uint64_t mesh_rings(uint32_t shards, uint32_t lanes)
{
    return (uint64_t)shards * shards * 3 + (uint64_t)shards * lanes * 2; /* ring_exists */
}

uint32_t mesh_lane(const struct mesh *mesh, uint32_t lane)
{
    CHECK(lane < mesh->nodes - mesh->shards);
    return mesh->shards + lane;
}

/* ---- the source's side */

/* ring_place: where a message of this cost would start; false: it does not fit now. */
static bool ring_place(struct ring *ring, uint64_t cost, uint64_t *out_at)
{
    CHECK(cost <= ring->capacity / 2);
    uint64_t to_end = ring->capacity - (ring->tail & (ring->capacity - 1));
    uint64_t at = to_end < cost ? ring->tail + to_end : ring->tail;
    if (at + cost - ring->head_seen > ring->capacity)
        ring->head_seen = atomic_load_explicit(&ring->head, memory_order_acquire);
    if (at + cost - ring->head_seen > ring->capacity)
        return false;
    if (ring->committed_count - ring->popped_seen >= ring->messages_max)
        ring->popped_seen = atomic_load_explicit(&ring->popped_count, memory_order_acquire);
    *out_at = at;
    return ring->committed_count - ring->popped_seen < ring->messages_max;
}

uint8_t *mesh_reserve(struct mesh *mesh, uint32_t source, uint32_t target, enum mesh_class class,
                      size_t size)
{
    struct ring *ring = ring_of(mesh, source, target, class);
    ring->reserved_at = RESERVED_NOTHING;
    CHECK(size <= ring->capacity / 2);
    uint64_t at;
    if (!ring_place(ring, cost_of(size), &at))
        return NULL;
    ring->reserved_at = at;
    ring->reserved_size = (uint32_t)size;
    return ring->data + (at & (ring->capacity - 1)) + MESH_HEAD_BYTES;
}

static void write_head(struct ring *ring, uint64_t at, uint32_t size, uint32_t kind)
{
    uint8_t *p = ring->data + (at & (ring->capacity - 1));
    store_u32(p, size);
    store_u32(p + 4, kind);
}

void mesh_commit(struct mesh *mesh, uint32_t source, uint32_t target, enum mesh_class class,
                 size_t size)
{
    struct ring *ring = ring_of(mesh, source, target, class);
    CHECK(ring->reserved_at != RESERVED_NOTHING && size <= ring->reserved_size);
    if (ring->reserved_at != ring->tail) {
        uint64_t padding = ring->reserved_at - ring->tail;
        write_head(ring, ring->tail, (uint32_t)(padding - MESH_HEAD_BYTES), KIND_PADDING);
    }
    write_head(ring, ring->reserved_at, (uint32_t)size, KIND_MESSAGE);
    ring->tail = ring->reserved_at + cost_of(size);
    ring->reserved_at = RESERVED_NOTHING;
    ring->committed_count++;

    struct side *side = &mesh->sides[source];
    if (side->dirty[target] == 0)
        side->dirty_count++;
    side->dirty[target] |= (uint8_t)(1u << class);
}

bool mesh_room(struct mesh *mesh, uint32_t source, uint32_t target, enum mesh_class class,
               size_t size)
{
    struct ring *ring = ring_of(mesh, source, target, class);
    uint64_t at;
    return ring_place(ring, cost_of(size), &at);
}

static void publish(struct mesh *mesh, uint32_t source, uint32_t target, uint32_t classes)
{
    for (uint32_t class = 0; class < MESH_CLASS_COUNT; class ++) {
        if ((classes & 1u << class) == 0)
            continue;
        struct ring *ring = ring_of(mesh, source, target, (enum mesh_class) class);
        atomic_store_explicit(&ring->published_count, ring->committed_count, memory_order_relaxed);
        atomic_store_explicit(&ring->published, ring->tail, memory_order_seq_cst);
    }
}

static void flush_node(struct mesh *mesh, uint32_t shard, uint32_t source)
{
    struct side *side = &mesh->sides[source];
    for (uint32_t target = 0; side->dirty_count != 0 && target < mesh->nodes; target++) {
        uint32_t driver = target % mesh->shards;
        if (side->dirty[target] == 0)
            continue;
        publish(mesh, source, target, side->dirty[target]);
        side->dirty[target] = 0;
        side->dirty_count--;
        if (driver != shard && mesh->group != NULL &&
            atomic_load_explicit(&mesh->sides[driver].sleeping, memory_order_seq_cst) != 0)
            io_wake(mesh->group, driver);
    }
}

void mesh_flush(struct mesh *mesh, uint32_t shard)
{
    CHECK(shard < mesh->shards);
    for (uint32_t node = shard; node < mesh->nodes; node += mesh->shards)
        flush_node(mesh, shard, node);
}

/* ---- the target's side */

/* ring_message: size of the published message at *at; steps over padding. */
static uint32_t ring_message(const struct ring *ring, uint64_t *at)
{
    const uint8_t *p = ring->data + (*at & (ring->capacity - 1));
    if (load_u32(p + 4) == KIND_PADDING) {
        *at += MESH_HEAD_BYTES + load_u32(p);
        CHECK(*at < ring->published_seen && (*at & (ring->capacity - 1)) == 0);
        p = ring->data;
    }
    return load_u32(p);
}

/* ring_next: whether an unread published message is at head. */
static bool ring_next(struct ring *ring, uint64_t *out_head, uint32_t *out_size)
{
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    if (head == ring->published_seen) {
        ring->published_seen = atomic_load_explicit(&ring->published, memory_order_acquire);
        if (head == ring->published_seen)
            return false;
    }
    *out_size = ring_message(ring, &head);
    *out_head = head;
    return true;
}

struct bytes mesh_peek(struct mesh *mesh, uint32_t target, uint32_t source, enum mesh_class class)
{
    struct ring *ring = ring_of(mesh, source, target, class);
    uint64_t head;
    uint32_t size;
    if (!ring_next(ring, &head, &size))
        return (struct bytes){NULL, 0};
    return bytes_of(ring->data + (head & (ring->capacity - 1)) + MESH_HEAD_BYTES, size);
}

struct bytes mesh_peek_after(struct mesh *mesh, uint32_t target, uint32_t source,
                             enum mesh_class class, struct bytes message)
{
    const struct ring *ring = ring_of(mesh, source, target, class);
    if (message.data == NULL)
        return message;
    uint64_t mask = ring->capacity - 1;
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    uint64_t offset = (uint64_t)(message.data - ring->data) - MESH_HEAD_BYTES;
    uint64_t at = head + ((offset - head) & mask) + cost_of(message.size);
    CHECK(at <= ring->published_seen);
    if (at == ring->published_seen)
        return bytes_of(NULL, 0);
    uint32_t size = ring_message(ring, &at);
    return bytes_of(ring->data + (at & mask) + MESH_HEAD_BYTES, size);
}

void mesh_pop(struct mesh *mesh, uint32_t target, uint32_t source, enum mesh_class class)
{
    struct ring *ring = ring_of(mesh, source, target, class);
    uint64_t head;
    uint32_t size;
    bool found = ring_next(ring, &head, &size);
    CHECK(found);
    head += cost_of(size);
    CHECK(head <= ring->published_seen);
    uint32_t popped = atomic_load_explicit(&ring->popped_count, memory_order_relaxed);
    atomic_store_explicit(&ring->popped_count, popped + 1, memory_order_release);
    atomic_store_explicit(&ring->head, head, memory_order_release);
}

enum err mesh_promise(struct mesh *mesh, uint32_t target, uint32_t source, enum mesh_class class,
                      size_t size)
{
    struct ring *ring = ring_of(mesh, source, target, class);
    CHECK(size <= ring->capacity / 2 - MESH_HEAD_BYTES);
    uint64_t cost = cost_of(size);
    uint64_t largest = cost > ring->promise_largest ? cost : ring->promise_largest;
    if (ring->promises >= ring->messages_max ||
        ring->promised + cost + (largest - 8) > ring->capacity)
        return ERR_FULL;
    ring->promise_largest = largest;
    ring->promised += cost;
    ring->promises++;
    return OK;
}

void mesh_unpromise(struct mesh *mesh, uint32_t target, uint32_t source, enum mesh_class class,
                    size_t size)
{
    struct ring *ring = ring_of(mesh, source, target, class);
    CHECK(ring->promises > 0 && ring->promised >= cost_of(size));
    ring->promised -= cost_of(size);
    ring->promises--;
}

/* ---- sleeping */

static bool waiting_for(struct mesh *mesh, uint32_t target)
{
    for (uint32_t source = 0; source < mesh->nodes; source++) {
        for (uint32_t class = 0; class < MESH_CLASS_COUNT; class ++) {
            struct ring *ring = ring_of(mesh, source, target, (enum mesh_class) class);
            uint64_t published = atomic_load_explicit(&ring->published, memory_order_seq_cst);
            if (published != atomic_load_explicit(&ring->head, memory_order_relaxed))
                return true;
        }
    }
    return false;
}

bool mesh_sleep(struct mesh *mesh, uint32_t shard)
{
    mesh_flush(mesh, shard);
    atomic_store_explicit(&mesh->sides[shard].sleeping, 1, memory_order_seq_cst);
    bool waiting = false;
    for (uint32_t node = shard; node < mesh->nodes; node += mesh->shards)
        waiting = waiting || waiting_for(mesh, node);
    if (waiting)
        mesh_awake(mesh, shard);
    return !waiting;
}

void mesh_awake(struct mesh *mesh, uint32_t shard)
{
    atomic_store_explicit(&mesh->sides[shard].sleeping, 0, memory_order_relaxed);
}

uint32_t mesh_depth(const struct mesh *mesh, uint32_t source, uint32_t target,
                    enum mesh_class class)
{
    const struct ring *ring = ring_of(mesh, source, target, class);
    uint32_t popped = atomic_load_explicit(&ring->popped_count, memory_order_acquire);
    return atomic_load_explicit(&ring->published_count, memory_order_acquire) - popped;
}
