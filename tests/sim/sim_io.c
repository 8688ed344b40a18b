/* sim_io.c: core/io.h in the simulated world. io_poll never sleeps: it hands out what is ready now,
 * and the driver moves the time. Only a caller that polls again and again within one turn
 * (log_close, start-up) is taken to block: from its second poll without a result, the poll itself
 * moves the time, up to its deadline. Same rules as core/io_uring_conn.c: stale handles are
 * ignored; io_close cancels and answers what is armed; a receive that has data while io_move wants
 * to cancel it gives the data and then IO_MOVE_FAILED, ERR_AGAIN; an io_close during a move takes
 * place when the move has failed. */
#include "tests/sim/disk.h"
#include "tests/sim/net.h"

#include <stdlib.h>

#define NONE            UINT32_MAX
#define EPHEMERAL_FIRST 32768
#define POISON          0xdb /* of a buffer that was given back */
#define FILE_OP_SYNC    1u
#define FILE_OP_READ    2u

/* ---- groups and life */

struct sim_net *sim_net_create(void)
{
    struct sim_net *net = world_take(1, sizeof *net);
    net->port_next = EPHEMERAL_FIRST;
    return net;
}

enum err io_group_create(struct io_group **out, uint32_t count)
{
    CHECK(world_current != NULL && count > 0);
    struct io_group *group = world_take(1, sizeof *group);
    group->world = world_current;
    group->count = count;
    group->ios = world_take(count, sizeof(struct io *));
    group->next = group->world->net->groups;
    group->world->net->groups = group;
    *out = group;
    return OK;
}

void io_group_destroy(struct io_group *group)
{
    group->gone = true;
}

enum err io_create(struct io **out, struct io_group *group, const struct io_options *options)
{
    CHECK(options->index < group->count && options->count == group->count);
    CHECK(group->ios[options->index] == NULL && options->buffers_count > 0);
    struct sim_net *net = group->world->net;
    struct io *io = world_take(1, sizeof *io);
    io->id = ++net->io_count;
    io->world = group->world;
    io->group = group;
    io->options = *options;
    io->now_ns = group->world->now_ns;
    io->wall_ms = world_wall_ms(group->world);
    io->idle_turn = UINT64_MAX;
    io->slots = world_take(options->connections_max, sizeof *io->slots);
    io->buffers = world_take(options->buffers_count, options->buffer_bytes);
    io->buffers_lent = world_take(options->buffers_count, sizeof *io->buffers_lent);
    io->buffers_free = options->buffers_count;
    io->explanation = "";
    io->next = net->ios;
    net->ios = io;
    group->ios[options->index] = io;
    *out = io;
    return OK;
}

static void release_memory(struct io *io)
{
    for (uint32_t i = 0; i < io->listener_count; i++) {
        free(io->listeners[i]->queue);
        free(io->listeners[i]);
    }
    free(io->listeners);
    free(io->slots);
    free(io->buffers);
    free(io->buffers_lent);
    free(io->raws);
    free(io->ready);
}

/* All that hangs on this io ends, as when its descriptors are closed. */
static void io_end(struct io *io, bool tell)
{
    if (io->dead)
        return;
    for (uint32_t i = 0; i < io->options.connections_max; i++)
        if (io->slots[i].state != SLOT_FREE && io->slots[i].link)
            link_close(io->world, io->slots[i].link, io->slots[i].side, tell);
    for (uint32_t i = 1; i <= io->listener_count; i++)
        if (io->listeners[i - 1]->open)
            listener_close(io, i, tell);
    io->dead = true;
    io->ready_count = 0;
}

void io_destroy(struct io *io)
{
    io_end(io, true);
    io->group->ios[io->options.index] = NULL;
}

void sim_net_destroy(struct sim_net *net)
{
    while (net->links) {
        struct link *link = net->links;
        net->links = link->next;
        free(link->pipe[0].data);
        free(link->pipe[1].data);
        free(link);
    }
    while (net->ios) {
        struct io *io = net->ios;
        net->ios = io->next;
        release_memory(io);
        free(io);
    }
    while (net->groups) {
        struct io_group *group = net->groups;
        net->groups = group->next;
        free(group->ios);
        free(group);
    }
    free(net);
}

const char *io_explain(const struct io *io)
{
    return io->explanation;
}

const char *io_features(const struct io *io)
{
    (void)io;
    return "simulated";
}

uint64_t io_now_ns(const struct io *io)
{
    return io->now_ns;
}

uint64_t io_wall_ms(const struct io *io)
{
    return io->wall_ms;
}

void io_entropy(struct io *io, void *out, size_t size)
{
    world_entropy(io->world, out, size);
}

uint32_t io_connections(const struct io *io)
{
    return io->slots_used;
}

void io_wake(struct io_group *group, uint32_t index)
{
    CHECK(index < group->count);
    if (group->ios[index])
        group->ios[index]->woken = true;
}

/* ---- slots and completions */

uint32_t slot_take(struct io *io)
{
    if (io->slots_used == io->options.connections_max)
        return NONE;
    uint32_t index = (uint32_t)world_below(io->world, io->options.connections_max);
    while (io->slots[index].state != SLOT_FREE)
        index = (index + 1) % io->options.connections_max;
    struct slot *slot = &io->slots[index];
    *slot = (struct slot){.state = SLOT_OPEN, .generation = slot->generation + 1};
    io->slots_used++;
    return index;
}

void slot_give(struct io *io, uint32_t index)
{
    io->slots[index].state = SLOT_FREE;
    io->slots[index].link = NULL;
    io->slots_used--;
    for (uint32_t i = 1; i <= io->listener_count; i++)
        listener_kick(io, i);
}

static struct io_conn handle_of(const struct io *io, uint32_t slot)
{
    return (struct io_conn){(uint64_t)io->slots[slot].generation << 32 | slot};
}

static uint32_t slot_find(const struct io *io, struct io_conn conn)
{
    uint32_t index = (uint32_t)conn.v;
    if (io->dead || index >= io->options.connections_max || io->slots[index].state == SLOT_FREE ||
        io->slots[index].generation != conn.v >> 32)
        return NONE;
    return index;
}

static bool slot_leaving(const struct slot *slot)
{
    return slot->state == SLOT_CLOSING || slot->state == SLOT_CLOSED;
}

static void fire_ready(struct world *world, void *owner, uint64_t index, uint64_t unused)
{
    (void)world;
    (void)unused;
    struct io *io = owner;
    if (io->dead)
        return;
    if (io->ready_count == io->ready_capacity) {
        io->ready_capacity = 2 * io->ready_capacity + 64;
        io->ready = world_resize(io->ready, io->ready_capacity, sizeof *io->ready);
    }
    io->ready[io->ready_count++] = (uint32_t)index;
}

static uint32_t raw_take(struct io *io)
{
    if (io->raw_free == 0) {
        uint32_t count = 2 * io->raw_count + 64;
        io->raws = world_resize(io->raws, count, sizeof *io->raws);
        for (uint32_t i = io->raw_count; i < count; i++) {
            io->raws[i] = (struct raw){.next_free = io->raw_free};
            io->raw_free = i + 1;
        }
        io->raw_count = count;
    }
    uint32_t index = io->raw_free - 1;
    io->raw_free = io->raws[index].next_free;
    return index;
}

static void raw_give(struct io *io, uint32_t index)
{
    io->raws[index] = (struct raw){.next_free = io->raw_free};
    io->raw_free = index + 1;
}

struct raw *post(struct io *io, uint64_t delay_ns, enum raw_kind kind, uint32_t slot, enum err err)
{
    uint32_t index = raw_take(io);
    struct raw *raw = &io->raws[index];
    *raw = (struct raw){.kind = kind, .slot = slot, .err = err};
    raw->generation = slot == NONE ? 0 : io->slots[slot].generation;
    world_after(io->world, delay_ns, fire_ready, io, index, 0);
    return raw;
}

void slot_readable(struct io *io, uint32_t index)
{
    struct slot *slot = &io->slots[index];
    if (!slot->receiving || slot->readable_posted)
        return;
    slot->readable_posted = true;
    (void)post(io, 0, RAW_READABLE, index, OK);
}

void slot_sent(struct io *io, uint32_t index, enum err err)
{
    struct slot *slot = &io->slots[index];
    if (!slot->sending || slot->sent_posted)
        return;
    slot->send.size = 0;
    slot->sent_posted = true;
    (void)post(io, world_below(io->world, 10000), RAW_SENT, index, err);
}

/* ---- listening and connecting */

static bool address_taken(const struct world *world, const struct io_address *address, bool reuse)
{
    for (const struct io *io = world->net->ios; io; io = io->next)
        for (uint32_t i = 0; !io->dead && i < io->listener_count; i++) {
            const struct listener *listener = io->listeners[i];
            if (listener->open && listener->address.port == address->port &&
                !(reuse && listener->options.reuse_port))
                return true;
        }
    return false;
}

enum err io_listen(struct io *io, struct io_listener *out, struct io_address *out_address,
                   const struct io_listen_options *options)
{
    struct io_address address = options->address;
    CHECK(options->accepts > 0 && options->backlog > 0);
    while (address.port == 0 ||
           (options->address.port == 0 && address_taken(io->world, &address, false)))
        address.port = io->world->net->port_next++;
    if (address_taken(io->world, &address, options->reuse_port)) {
        io->explanation = "the address is in use";
        return ERR_ADDRESS;
    }
    struct listener *listener = world_take(1, sizeof *listener);
    *listener = (struct listener){.options = *options, .address = address, .open = true};
    io->listeners = world_resize(io->listeners, io->listener_count + 1, sizeof(struct listener *));
    io->listeners[io->listener_count++] = listener;
    *out_address = address;
    out->v = io->listener_count;
    return OK;
}

enum err io_listen_probe(struct io *io, const struct io_address *address)
{
    if (!address_taken(io->world, address, false))
        return OK;
    io->explanation = "the address is in use";
    return ERR_ADDRESS;
}

void io_accept_pause(struct io *io, struct io_listener number)
{
    io->listeners[number.v - 1]->paused = true;
}

void io_accept_resume(struct io *io, struct io_listener number)
{
    io->listeners[number.v - 1]->paused = false;
    listener_kick(io, number.v);
}

void io_listen_close(struct io *io, struct io_listener number)
{
    if (!io->dead && io->listeners[number.v - 1]->open)
        listener_close(io, number.v, true);
}

enum err io_connect(struct io *io, struct io_conn *conn, const struct io_address *target,
                    const struct io_address *source, uint64_t owner)
{
    static const struct io_address loopback = {
        .ip = {[10] = 0xff, [11] = 0xff, [12] = 127, [15] = 1}};
    uint32_t index = io->dead ? NONE : slot_take(io);
    if (index == NONE)
        return ERR_FULL;
    struct slot *slot = &io->slots[index];
    slot->state = SLOT_CONNECTING;
    slot->owner = owner;
    slot->target = *target;
    slot->source = source ? *source : loopback;
    if (slot->source.port == 0)
        slot->source.port = (uint16_t)world_between(io->world, EPHEMERAL_FIRST, UINT16_MAX);
    world_after(io->world, latency(io->world), link_connect, io, index, slot->generation);
    *conn = handle_of(io, index);
    return OK;
}

void io_set_owner(struct io *io, struct io_conn conn, uint64_t owner)
{
    uint32_t index = slot_find(io, conn);
    if (index != NONE)
        io->slots[index].owner = owner;
}

/* ---- receive, send, close, move */

void io_receive(struct io *io, struct io_conn conn)
{
    uint32_t index = slot_find(io, conn);
    if (index == NONE || slot_leaving(&io->slots[index]))
        return;
    struct slot *slot = &io->slots[index];
    CHECK(slot->state == SLOT_OPEN && !slot->receiving);
    slot->receiving = true;
    slot->receive_number++;
    if (link_has_data(slot->link, slot->side) || slot->link->pipe[1 - slot->side].fin ||
        slot->link->end[slot->side].reset)
        slot_readable(io, index);
}

void io_release(struct io *io, uint32_t buffer)
{
    if (io->dead)
        return;
    CHECK(buffer < io->options.buffers_count && io->buffers_lent[buffer]);
    io->buffers_lent[buffer] = false;
    io->buffers_free++;
    memset(io->buffers + (size_t)buffer * io->options.buffer_bytes, POISON,
           io->options.buffer_bytes);
    for (uint32_t i = 0; i < io->options.connections_max; i++) {
        if (io->slots[i].state == SLOT_FREE || !io->slots[i].waits_buffer)
            continue;
        io->slots[i].waits_buffer = false;
        slot_readable(io, i);
        return;
    }
}

void io_send(struct io *io, struct io_conn conn, struct bytes data)
{
    uint32_t index = slot_find(io, conn);
    if (index == NONE || slot_leaving(&io->slots[index]))
        return;
    struct slot *slot = &io->slots[index];
    CHECK(slot->state == SLOT_OPEN && !slot->sending && data.size > 0);
    slot->sending = true;
    slot->sent_posted = false;
    slot->send = data;
    link_push(io, index);
}

static void close_continue(struct io *io, uint32_t index)
{
    struct slot *slot = &io->slots[index];
    if (slot->receiving || slot->sending)
        return;
    slot->state = SLOT_CLOSED;
    link_close(io->world, slot->link, slot->side, true);
    (void)post(io, latency(io->world) / 8, RAW_CLOSED, index, OK);
}

static void receive_cancel(struct io *io, uint32_t index)
{
    struct raw *raw = post(io, world_below(io->world, 10000), RAW_CANCELLED, index, OK);
    raw->receive_number = io->slots[index].receive_number;
}

static void close_begin(struct io *io, uint32_t index)
{
    struct slot *slot = &io->slots[index];
    slot->state = SLOT_CLOSING;
    if (slot->receiving)
        receive_cancel(io, index);
    slot_sent(io, index, ERR_CANCELLED);
    close_continue(io, index);
}

void io_close(struct io *io, struct io_conn conn)
{
    uint32_t index = slot_find(io, conn);
    if (index == NONE)
        return;
    struct slot *slot = &io->slots[index];
    switch (slot->state) {
    case SLOT_OPEN:
        close_begin(io, index);
        return;
    case SLOT_CONNECTING:
        if (!slot->close_wanted && !slot->link)
            (void)post(io, 0, RAW_CONNECTED, index, ERR_CANCELLED);
        slot->close_wanted = true;
        return;
    case SLOT_DETACHING:
    case SLOT_MOVING:
        slot->close_wanted = true;
        return;
    case SLOT_CLOSING:
    case SLOT_CLOSED:
    case SLOT_FREE:
        return;
    }
}

static void move_fail(struct io *io, uint32_t index, enum err err)
{
    io->slots[index].state = SLOT_MOVING; /* nothing is armed any more; the answer is on its way */
    (void)post(io, 0, RAW_MOVE_FAILED, index, err);
}

/* The connection changes hands; the two answers come in any order. */
static void fire_move(struct world *world, void *owner, uint64_t slot_index, uint64_t generation)
{
    struct io *io = owner;
    uint32_t index = (uint32_t)slot_index;
    struct slot *slot = io->dead ? NULL : &io->slots[index];
    if (!slot || slot->generation != generation || slot->state != SLOT_MOVING)
        return;
    struct io *target = io->group->ios[slot->move_target];
    bool full = world_chance(world, world->options.faults.move_full);
    uint32_t taken = target && !target->dead && !full ? slot_take(target) : NONE;
    if (taken == NONE) {
        move_fail(io, index, ERR_FULL);
        return;
    }
    struct slot *arrived = &target->slots[taken];
    arrived->link = slot->link;
    arrived->side = slot->side;
    arrived->cargo = slot->cargo;
    slot->link->end[slot->side].io = target;
    slot->link->end[slot->side].slot = taken;
    slot->link = NULL;
    world_trace(world, "moved", arrived->link->id, target->id, bytes_of(NULL, 0));
    (void)post(target, world_below(world, 20000), RAW_MOVED_IN, taken, OK);
    (void)post(io, world_below(world, 20000), RAW_MOVED_OUT, index, OK);
}

static void move_continue(struct io *io, uint32_t index)
{
    struct slot *slot = &io->slots[index];
    if (slot->close_wanted) {
        move_fail(io, index, ERR_CANCELLED);
        return;
    }
    slot->state = SLOT_MOVING;
    world_after(io->world, latency(io->world) / 8, fire_move, io, index, slot->generation);
}

void io_move(struct io *io, struct io_conn conn, uint32_t target, void *cargo)
{
    uint32_t index = slot_find(io, conn);
    if (index == NONE || slot_leaving(&io->slots[index]))
        return;
    struct slot *slot = &io->slots[index];
    CHECK(target < io->group->count && target != io->options.index);
    CHECK(slot->state == SLOT_OPEN && !slot->sending);
    slot->state = SLOT_DETACHING;
    slot->move_target = target;
    slot->cargo = cargo;
    if (slot->receiving)
        receive_cancel(io, index);
    else
        move_continue(io, index);
}

/* ---- files */

static uint64_t disk_time(struct world *world, int fd)
{
    uint64_t most = world->options.faults.disk_ns_max;
    return world_between(world, 1000, most > 1000 ? most : 1000) + disk_slow_ns(world->disk, fd);
}

static void fire_sync(struct world *world, void *owner, uint64_t index, uint64_t unused)
{
    (void)unused;
    struct io *io = owner;
    if (io->dead)
        return;
    struct raw *raw = &io->raws[index];
    raw->op->err = disk_sync_until(world->disk, raw->op->fd, raw->journal_end);
    fire_ready(world, io, index, 0);
}

static void fire_file(struct world *world, void *owner, uint64_t index, uint64_t unused)
{
    (void)unused;
    struct io *io = owner;
    if (io->dead)
        return;
    struct raw *raw = &io->raws[index];
    struct io_file_op *op = raw->op;
    if (op->flags & FILE_OP_READ) {
        op->err = disk_read(world->disk, op->fd, op->offset, op->data, op->size, &op->done_bytes);
    } else {
        op->err = disk_write(world->disk, op->fd, op->offset, bytes_of(op->data, op->size));
        raw->applied = true;
        op->done_bytes = op->err == OK ? op->size : 0;
        if (op->err == OK && (op->flags & FILE_OP_SYNC)) {
            raw->journal_end = disk_journal_end(world->disk, op->fd);
            world_after(world, disk_time(world, op->fd), fire_sync, io, index, 0);
            return;
        }
    }
    fire_ready(world, io, index, 0);
}

static enum err file_start(struct io *io, struct io_file_op *op)
{
    op->err = OK;
    op->done_bytes = 0;
    CHECK(op->size > 0);
    if (io->dead)
        return ERR_FULL;
    if (io->files_inflight >= io->options.files_max)
        return ERR_FULL;
    io->files_inflight++;
    uint32_t index = raw_take(io);
    io->raws[index] = (struct raw){.kind = RAW_FILE, .slot = NONE, .op = op};
    world_after(io->world, disk_time(io->world, op->fd), fire_file, io, index, 0);
    return OK;
}

enum err io_file_write(struct io *io, struct io_file_op *op, int fd, uint64_t offset,
                       struct bytes data, bool sync)
{
    op->fd = fd;
    op->data = (uint8_t *)(uintptr_t)data.data; /* only read from */
    op->size = data.size;
    op->offset = offset;
    op->flags = sync ? FILE_OP_SYNC : 0;
    return file_start(io, op);
}

enum err io_file_read(struct io *io, struct io_file_op *op, int fd, uint64_t offset, uint8_t *data,
                      size_t size)
{
    op->fd = fd;
    op->data = data;
    op->size = size;
    op->offset = offset;
    op->flags = FILE_OP_READ;
    return file_start(io, op);
}

void io_file_submit(struct io *io)
{
    (void)io;
}

void io_file_advance(struct io *io)
{
    (void)io; /* a sync here follows its write by itself */
}

enum err io_file_pin(struct io *io, uint8_t *data, size_t size)
{
    (void)io;
    (void)data;
    (void)size;
    return ERR_UNSUPPORTED;
}

void io_file_unpin(struct io *io, const uint8_t *data)
{
    (void)io;
    (void)data;
}

/* ---- events */

static void conn_event(struct io *io, struct io_event *event, enum io_event_kind kind,
                       uint32_t index, enum err err)
{
    *event = (struct io_event){.kind = kind, .err = err, .conn = handle_of(io, index)};
    event->owner = io->slots[index].owner;
}

static uint32_t buffer_take(struct io *io)
{
    uint32_t index = (uint32_t)world_below(io->world, io->options.buffers_count);
    while (io->buffers_lent[index])
        index = (index + 1) % io->options.buffers_count;
    io->buffers_lent[index] = true;
    io->buffers_free--;
    return index;
}

static bool on_received(struct io *io, uint32_t index, enum err err, struct io_event *event)
{
    struct slot *slot = &io->slots[index];
    slot->receiving = false;
    slot->waits_buffer = false;
    conn_event(io, event, IO_RECEIVED, index, err);
    return true;
}

static bool on_readable(struct io *io, uint32_t index, struct io_event *event)
{
    struct slot *slot = &io->slots[index];
    slot->readable_posted = false;
    if (!slot->receiving || slot_leaving(slot))
        return false;
    bool data = link_has_data(slot->link, slot->side);
    if (data && io->buffers_free == 0) {
        slot->waits_buffer = true;
        return false;
    }
    if (!data && slot->state == SLOT_DETACHING)
        return false; /* the cancellation is on its way and answers */
    uint32_t buffer = data ? buffer_take(io) : 0;
    uint8_t *room = io->buffers + (size_t)buffer * io->options.buffer_bytes;
    size_t size = 0;
    enum err err = link_pull(io, index, room, io->options.buffer_bytes, &size);
    if (err == ERR_AGAIN)
        return false;
    (void)on_received(io, index, err, event);
    if (err == OK) {
        event->data = bytes_of(room, size);
        event->buffer = buffer;
    }
    if (slot->state == SLOT_DETACHING)
        move_fail(io, index, ERR_AGAIN);
    return true;
}

static bool on_cancelled(struct io *io, const struct raw *raw, struct io_event *event)
{
    uint32_t index = raw->slot;
    struct slot *slot = &io->slots[index];
    if (!slot->receiving || slot->receive_number != raw->receive_number)
        return false; /* it completed before */
    CHECK(slot->state == SLOT_DETACHING || slot->state == SLOT_CLOSING);
    if (slot->state == SLOT_DETACHING && link_has_data(slot->link, slot->side) &&
        io->buffers_free > 0)
        return on_readable(io, index, event);
    (void)on_received(io, index, ERR_CANCELLED, event);
    if (slot->state == SLOT_CLOSING)
        close_continue(io, index);
    else
        move_continue(io, index);
    return true;
}

static bool on_sent(struct io *io, const struct raw *raw, struct io_event *event)
{
    struct slot *slot = &io->slots[raw->slot];
    slot->sending = false;
    conn_event(io, event, IO_SENT, raw->slot, raw->err);
    if (slot->state == SLOT_CLOSING)
        close_continue(io, raw->slot);
    return true;
}

static bool on_connected(struct io *io, const struct raw *raw, struct io_event *event)
{
    struct slot *slot = &io->slots[raw->slot];
    enum err err = slot->close_wanted ? ERR_CANCELLED : raw->err;
    conn_event(io, event, IO_CONNECTED, raw->slot, err);
    slot->state = SLOT_OPEN;
    if (err == OK)
        return true;
    if (slot->link)
        link_close(io->world, slot->link, slot->side, true);
    slot_give(io, raw->slot);
    return true;
}

static bool on_accept(struct io *io, const struct raw *raw, struct io_event *event)
{
    struct listener *listener = io->listeners[raw->listener - 1];
    listener->armed--;
    if (!listener->open || listener->queue_count == 0)
        return false;
    uint32_t index = slot_take(io);
    if (index == NONE)
        return false; /* slot_give kicks */
    struct link *link = listener->queue[0];
    listener->queue_count--;
    memmove(listener->queue, listener->queue + 1, listener->queue_count * sizeof link);
    io->slots[index].link = link;
    io->slots[index].side = 1;
    link->end[1].io = io;
    link->end[1].slot = index;
    conn_event(io, event, IO_ACCEPTED, index, OK);
    event->listener.v = raw->listener;
    event->peer = link->end[0].address;
    listener_kick(io, raw->listener);
    return true;
}

static bool on_moved(struct io *io, const struct raw *raw, struct io_event *event)
{
    struct slot *slot = &io->slots[raw->slot];
    enum io_event_kind kind = raw->kind == RAW_MOVED_IN    ? IO_MOVED_IN
                              : raw->kind == RAW_MOVED_OUT ? IO_MOVED_OUT
                                                           : IO_MOVE_FAILED;
    conn_event(io, event, kind, raw->slot, raw->err);
    event->cargo = slot->cargo;
    slot->cargo = NULL;
    if (raw->kind == RAW_MOVED_OUT)
        slot_give(io, raw->slot);
    if (raw->kind != RAW_MOVE_FAILED)
        return true;
    slot->state = SLOT_OPEN;
    if (slot->close_wanted)
        close_begin(io, raw->slot);
    return true;
}

static bool on_file(struct io *io, const struct raw *raw, struct io_event *event)
{
    io->files_inflight--;
    *event = (struct io_event){
        .kind = IO_FILE_DONE, .err = raw->op->err, .owner = raw->op->owner, .op = raw->op};
    return true;
}

/* judge: what a completion means now; false: nothing to tell. */
static bool judge(struct io *io, const struct raw *raw, struct io_event *event)
{
    if (raw->slot != NONE && (io->slots[raw->slot].generation != raw->generation ||
                              io->slots[raw->slot].state == SLOT_FREE))
        return false;
    switch (raw->kind) {
    case RAW_READABLE:
        return on_readable(io, raw->slot, event);
    case RAW_CANCELLED:
        return on_cancelled(io, raw, event);
    case RAW_SENT:
        return on_sent(io, raw, event);
    case RAW_CLOSED:
        conn_event(io, event, IO_CLOSED, raw->slot, OK);
        slot_give(io, raw->slot);
        return true;
    case RAW_CONNECTED:
        return on_connected(io, raw, event);
    case RAW_ACCEPT:
        return on_accept(io, raw, event);
    case RAW_MOVE_FAILED:
    case RAW_MOVED_OUT:
    case RAW_MOVED_IN:
        return on_moved(io, raw, event);
    case RAW_FILE:
        return on_file(io, raw, event);
    case RAW_FREE:
        break;
    }
    CHECK(raw->kind != RAW_FREE);
    return false;
}

static void trace_event(struct io *io, const struct io_event *event)
{
    static const char *const names[] = {
        [IO_ACCEPTED] = "accepted",   [IO_CONNECTED] = "io_connected",
        [IO_RECEIVED] = "received",   [IO_SENT] = "sent",
        [IO_CLOSED] = "closed",       [IO_MOVED_IN] = "moved_in",
        [IO_MOVED_OUT] = "moved_out", [IO_MOVE_FAILED] = "move_failed",
        [IO_FILE_DONE] = "file_done",
    };
    world_trace(io->world, names[event->kind], (uint64_t)io->id << 32 | (uint32_t)event->err,
                event->conn.v, event->data);
}

static size_t hand_out(struct io *io, struct io_event *events, size_t capacity)
{
    size_t count = 0;
    size_t taken = 0;
    if (capacity > 1 && world_chance(io->world, io->world->options.faults.partial))
        capacity = (size_t)world_between(io->world, 1, capacity);
    while (count < capacity && taken < io->ready_count) {
        uint32_t index = io->ready[taken++];
        struct raw raw = io->raws[index];
        raw_give(io, index);
        if (judge(io, &raw, &events[count]))
            trace_event(io, &events[count++]);
    }
    io->ready_count -= taken;
    if (taken > 0)
        memmove(io->ready, io->ready + taken, io->ready_count * sizeof *io->ready);
    return count;
}

static void read_clocks(struct io *io)
{
    io->now_ns = io->world->now_ns;
    io->wall_ms = world_wall_ms(io->world);
}

/* The caller blocks: see the head comment. */
static size_t wait_for(struct io *io, struct io_event *events, size_t capacity, uint64_t deadline)
{
    struct world *world = io->world;
    size_t count = 0;
    while (count == 0 && !io->woken && !io->dead && world->now_ns < deadline) {
        uint64_t next = world_next_ns(world);
        CHECK(next != UINT64_MAX || deadline != UINT64_MAX); /* it would sleep for ever */
        (void)world_advance(world, next < deadline ? next : deadline);
        count = hand_out(io, events, capacity);
    }
    return count;
}

size_t io_poll(struct io *io, struct io_event *events, size_t capacity, uint64_t deadline_ns)
{
    CHECK(capacity > 0);
    if (io->dead)
        return 0;
    size_t count = hand_out(io, events, capacity);
    if (count == 0 && !io->woken && io->idle_turn == io->world->turn)
        count = wait_for(io, events, capacity, deadline_ns);
    io->idle_turn = count == 0 ? io->world->turn : UINT64_MAX;
    io->woken = false;
    read_clocks(io);
    return count;
}

bool world_awake(const struct world *world)
{
    for (const struct io *io = world->net->ios; io; io = io->next)
        if (!io->dead && (io->woken || io->ready_count > 0))
            return true;
    return false;
}

/* ---- crashes */

/* A write that the kernel had may still happen; its data is there only now. */
static void finish_writes(struct io *io)
{
    for (uint32_t i = 0; i < io->raw_count; i++) {
        struct raw *raw = &io->raws[i];
        if (raw->kind != RAW_FILE || raw->applied || (raw->op->flags & FILE_OP_READ) ||
            world_below(io->world, 2) == 0)
            continue;
        enum err ignored = disk_write(io->world->disk, raw->op->fd, raw->op->offset,
                                      bytes_of(raw->op->data, raw->op->size));
        (void)ignored; /* nobody is there to hear of it */
    }
}

void sim_io_kill(struct world *world, struct io_group *group, bool power)
{
    (void)world;
    for (uint32_t i = 0; i < group->count; i++) {
        if (!group->ios[i] || group->ios[i]->dead)
            continue;
        finish_writes(group->ios[i]);
        io_end(group->ios[i], !power);
    }
}
