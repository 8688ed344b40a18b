/* link.c: what happens between two ends: bytes on the way, ends of stream, resets, silence, and who
 * is connected to whom. Latency is drawn per piece, but a piece never overtakes an older one of its
 * direction (pipe.last_ns). */
#include "tests/sim/net.h"

#include <stdlib.h>

#define CONNECT_RETRY_NS (1 * NS_PER_S) /* a SYN that a full backlog dropped */
#define CONNECT_TRIES    5

uint64_t latency(struct world *world)
{
    uint64_t most = world->options.faults.latency_ns_max;
    return world_between(world, 1000, most > 1000 ? most : 1000);
}

/* When the next piece of this direction may arrive, as a delay from now. */
static uint64_t in_order(struct world *world, struct pipe *pipe)
{
    uint64_t at = world->now_ns + latency(world);
    pipe->last_ns = at > pipe->last_ns ? at : pipe->last_ns;
    return pipe->last_ns - world->now_ns;
}

static void wake_reader(struct link *link, uint32_t side)
{
    if (link->end[side].io)
        slot_readable(link->end[side].io, link->end[side].slot);
}

/* The end hears of a reset: its send fails, its receive too, after what had arrived or instead of
 * it. */
static void end_reset(struct world *world, struct link *link, uint32_t side)
{
    struct end *end = &link->end[side];
    if (end->closed || end->reset)
        return;
    end->reset = true;
    world_trace(world, "reset", link->id, side, bytes_of(NULL, 0));
    if (world_below(world, 2) == 0)
        link->pipe[1 - side].arrived = 0; /* what was not read yet is thrown away */
    if (end->io) {
        slot_sent(end->io, end->slot, ERR_RESET);
        slot_readable(end->io, end->slot);
    }
}

static void fire_reset(struct world *world, void *owner, uint64_t side, uint64_t unused)
{
    (void)unused;
    struct link *link = owner;
    if (!link->silent)
        end_reset(world, link, (uint32_t)side);
}

static void fire_fin(struct world *world, void *owner, uint64_t writer, uint64_t unused)
{
    (void)unused;
    struct link *link = owner;
    (void)world;
    if (link->silent)
        return;
    link->pipe[writer].fin = true;
    wake_reader(link, 1 - (uint32_t)writer);
}

static void fire_arrive(struct world *world, void *owner, uint64_t writer, uint64_t count)
{
    struct link *link = owner;
    struct pipe *pipe = &link->pipe[writer];
    const struct world_faults *faults = &world->options.faults;
    uint32_t reader = 1 - (uint32_t)writer;
    if (link->silent || link->end[reader].reset)
        return;
    if (world_chance(world, faults->silence)) {
        link->silent = true;
        world_trace(world, "silence", link->id, 0, bytes_of(NULL, 0));
        return;
    }
    if (world_chance(world, faults->reset)) {
        end_reset(world, link, 0);
        end_reset(world, link, 1);
        return;
    }
    if (link->end[reader].closed) { /* nobody is there any more */
        world_after(world, latency(world), fire_reset, link, writer, 0);
        return;
    }
    pipe->arrived += count;
    CHECK(pipe->arrived <= pipe->size);
    wake_reader(link, reader);
}

static void fire_room(struct world *world, void *owner, uint64_t writer, uint64_t unused)
{
    (void)world;
    (void)unused;
    struct link *link = owner;
    if (link->end[writer].io)
        link_push(link->end[writer].io, link->end[writer].slot);
}

static void pipe_write(struct world *world, struct pipe *pipe, struct bytes data)
{
    size_t capacity = world->options.socket_bytes;
    if (!pipe->data)
        pipe->data = world_take(capacity, 1);
    for (size_t done = 0; done < data.size;) {
        size_t at = (pipe->head + pipe->size) % capacity;
        size_t step = capacity - at < data.size - done ? capacity - at : data.size - done;
        memcpy(pipe->data + at, data.data + done, step);
        pipe->size += step;
        done += step;
    }
}

void link_push(struct io *io, uint32_t slot_index)
{
    struct world *world = io->world;
    struct slot *slot = &io->slots[slot_index];
    struct link *link = slot->link;
    struct pipe *pipe = &link->pipe[slot->side];
    if (!slot->sending || slot->sent_posted)
        return;
    if (link->end[slot->side].reset) {
        slot_sent(io, slot_index, ERR_RESET);
        return;
    }
    while (slot->send.size > 0 && pipe->size < world->options.socket_bytes) {
        size_t room = world->options.socket_bytes - pipe->size;
        size_t count = room < slot->send.size ? room : slot->send.size;
        if (count > 1 && world_chance(world, world->options.faults.partial))
            count = (size_t)world_between(world, 1, count);
        pipe_write(world, pipe, bytes_of(slot->send.data, count));
        slot->send = bytes_skip(slot->send, count);
        world_after(world, in_order(world, pipe), fire_arrive, link, slot->side, count);
    }
    if (slot->send.size == 0)
        slot_sent(io, slot_index, OK);
}

bool link_has_data(const struct link *link, uint32_t side)
{
    return link->pipe[1 - side].arrived > 0;
}

enum err link_pull(struct io *io, uint32_t slot_index, uint8_t *data, size_t size, size_t *done)
{
    struct world *world = io->world;
    struct slot *slot = &io->slots[slot_index];
    struct link *link = slot->link;
    struct pipe *pipe = &link->pipe[1 - slot->side];
    size_t capacity = world->options.socket_bytes;
    if (pipe->arrived == 0)
        return link->end[slot->side].reset ? ERR_RESET : pipe->fin ? ERR_CLOSED : ERR_AGAIN;
    size_t count = pipe->arrived < size ? pipe->arrived : size;
    if (count > 1 && world_chance(world, world->options.faults.partial))
        count = (size_t)world_between(world, 1, count);
    for (size_t i = 0; i < count; i++)
        data[i] = pipe->data[(pipe->head + i) % capacity];
    pipe->head = (pipe->head + count) % capacity;
    pipe->size -= count;
    pipe->arrived -= count;
    *done = count;
    world_after(world, latency(world), fire_room, link, 1 - slot->side, 0);
    return OK;
}

void link_close(struct world *world, struct link *link, uint32_t side, bool tell)
{
    struct end *end = &link->end[side];
    if (end->closed)
        return;
    struct pipe *pipe = &link->pipe[side];
    bool unread = link_has_data(link, side);
    end->closed = true;
    end->io = NULL;
    if (link->end[1 - side].closed) { /* both: nothing will be read any more */
        free(link->pipe[0].data);
        free(link->pipe[1].data);
        link->pipe[0] = link->pipe[1] = (struct pipe){0};
        link->silent = true;
    } else if (tell && unread) { /* as the kernel does: what was not read is answered by a reset */
        world_after(world, in_order(world, pipe), fire_reset, link, 1 - side, 0);
    } else if (tell && !end->reset) {
        world_after(world, in_order(world, pipe), fire_fin, link, side, 0);
    }
}

/* ---- connecting */

static bool ip_any(const uint8_t ip[16])
{
    static const uint8_t v4_any[16] = {[10] = 0xff, [11] = 0xff};
    static const uint8_t v6_any[16] = {0};
    return memcmp(ip, v4_any, 16) == 0 || memcmp(ip, v6_any, 16) == 0;
}

static bool listens(const struct listener *listener, const struct io_address *target)
{
    return listener->open && listener->address.port == target->port &&
           (ip_any(listener->address.ip) || memcmp(listener->address.ip, target->ip, 16) == 0);
}

/* One of those that listen on the address (SO_REUSEPORT: chosen by chance). */
static struct io *find_listener(struct world *world, const struct io_address *target,
                                uint32_t *number)
{
    struct io *found = NULL;
    uint64_t count = 0;
    for (struct io *io = world->net->ios; io; io = io->next)
        for (uint32_t i = 0; !io->dead && i < io->listener_count; i++)
            if (listens(io->listeners[i], target) && world_below(world, ++count) == 0) {
                found = io;
                *number = i + 1;
            }
    return found;
}

static struct link *link_make(struct world *world)
{
    struct link *link = world_take(1, sizeof *link);
    link->id = ++world->net->link_count;
    link->next = world->net->links;
    world->net->links = link;
    return link;
}

static void establish(struct io *client, uint32_t slot_index, struct io *server, uint32_t number)
{
    struct world *world = client->world;
    struct slot *slot = &client->slots[slot_index];
    struct listener *listener = server->listeners[number - 1];
    struct link *link = link_make(world);
    link->end[0] = (struct end){.io = client, .slot = slot_index, .address = slot->source};
    link->end[1] = (struct end){.address = slot->target};
    slot->link = link;
    slot->side = 0;
    listener->queue =
        world_resize(listener->queue, listener->queue_count + 1, sizeof *listener->queue);
    listener->queue[listener->queue_count++] = link;
    world_trace(world, "connected", link->id, server->id, bytes_of(NULL, 0));
    (void)post(client, latency(world), RAW_CONNECTED, slot_index, OK);
    listener_kick(server, number);
}

void link_connect(struct world *world, void *owner, uint64_t slot_index, uint64_t generation)
{
    struct io *client = owner;
    uint32_t number = 0;
    if (client->dead)
        return;
    struct slot *slot = &client->slots[slot_index];
    if (slot->generation != generation || slot->state != SLOT_CONNECTING || slot->close_wanted)
        return;
    struct io *server = find_listener(world, &slot->target, &number);
    bool refused = world_chance(world, world->options.faults.connect_refused);
    if (!server || refused) {
        (void)post(client, latency(world), RAW_CONNECTED, (uint32_t)slot_index, ERR_RESET);
        return;
    }
    struct listener *listener = server->listeners[number - 1];
    if (listener->queue_count < listener->options.backlog)
        establish(client, (uint32_t)slot_index, server, number);
    else if (++slot->connect_tries < CONNECT_TRIES)
        world_after(world, CONNECT_RETRY_NS, link_connect, client, slot_index, generation);
    else
        (void)post(client, 0, RAW_CONNECTED, (uint32_t)slot_index, ERR_TIMEOUT);
}

void listener_kick(struct io *io, uint32_t number)
{
    struct listener *listener = io->listeners[number - 1];
    while (!io->dead && listener->open && !listener->paused &&
           listener->armed < listener->queue_count && listener->armed < listener->options.accepts &&
           io->slots_used + listener->armed < io->options.connections_max) {
        listener->armed++;
        struct raw *raw = post(io, latency(io->world) / 8, RAW_ACCEPT, UINT32_MAX, OK);
        raw->listener = number;
    }
}

void listener_close(struct io *io, uint32_t number, bool tell)
{
    struct listener *listener = io->listeners[number - 1];
    listener->open = false;
    for (size_t i = 0; i < listener->queue_count; i++) {
        struct link *link = listener->queue[i];
        link->end[1].closed = true;
        if (tell)
            world_after(io->world, latency(io->world), fire_reset, link, 0, 0);
    }
    listener->queue_count = 0;
}
