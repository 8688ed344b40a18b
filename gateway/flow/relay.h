/* relay.h: a connection that cannot move because its user's shard has no slot for another socket:
 * socket and TLS stay where they are (the guest's end), everything above them lives on the user's
 * shard (the home's end), and clear bytes travel between the two as messages of the mesh.
 * Flow:       migrate_on_failed → relay_start → OPEN → home: relay_on_open → login_finish …
 *             guest: ingress → relay_input → IN → home: ingress; home: egress → relay_send → OUT →
 *             guest: egress → SENT
 * Owns:       struct relay, one at each end, in the shard's pool; the guest's keeps the
 *             baggage until OPEN is answered
 * Invariants: to its home's end a relay is what io.h is to a socket: one receive armed (WANT → IN,
 *             the last one marked), one send in flight (OUT, the last one marked → SENT), and
 *             exactly one GONE, the last of all; handling a message never needs room in a ring, so
 *             relays cannot deadlock shards: what is to be told waits in the shard's list
 * Failure:    ERR_FULL, ERR_NO_MEMORY in the answer to OPEN: the guest says goodbye OVERLOADED
 * Bounds:     guest: what one receive decrypted; home: nothing beyond its connection's output
 *
 *   guest: OFFERED → OPEN → GONE          home: OPEN → CLOSING (CLOSE told) → GONE */
#ifndef GATEWAY_FLOW_RELAY_H
#define GATEWAY_FLOW_RELAY_H

#include "gateway/flow/migrate.h"

struct relay {
    struct relay *next;            /* the shard's list of those with something to tell */
    struct connection *connection; /* NULL: gone here */
    uint64_t other;                /* handle of the other end; 0: it has not answered yet */
    uint32_t other_shard;
    bool home;
    bool listed;
    /* to be told when there is room */
    bool tell_open;
    bool tell_want;
    bool tell_out;
    bool tell_sent;
    bool tell_close;
    bool tell_gone;
    /* guest */
    bool wanted;         /* home has armed a receive */
    bool owes_sent;      /* SENT is owed when the socket has taken everything */
    struct buffer input; /* decrypted; from input_told on not told yet */
    size_t input_told;
    struct baggage baggage; /* until OPEN is answered */
    /* home */
    bool abrupt;       /* CLOSE: without flushing */
    struct bytes send; /* the rest of what relay_send was given */
};

/* relay_start: the guest's end: connection is MOVING with its login; it becomes RELAYED, or says
 * goodbye. */
void relay_start(struct shard *shard, struct connection *connection, uint32_t home);
/* relay_input: the guest's end decrypted something. */
void relay_input(struct shard *shard, struct connection *connection, struct bytes plain);
bool relay_wants_bytes(const struct connection *connection);
/* relay_drained: the guest's socket has taken everything it was given. */
void relay_drained(struct shard *shard, struct connection *connection);
/* relay_leave: the guest's connection ends. */
void relay_leave(struct shard *shard, struct connection *connection);

/* The home's end, as io_receive, io_send and io_close. */
void relay_receive(struct shard *shard, struct connection *connection);
void relay_send(struct shard *shard, struct connection *connection, struct bytes data);
void relay_close(struct shard *shard, struct connection *connection, bool abrupt);

void relay_on_message(struct shard *shard, struct bytes message);
void relay_on_opened(struct shard *shard, struct bytes message);
/* relay_flush: tell what is to be told, once a turn. */
void relay_flush(struct shard *shard);
/* relay_abandon_all: the shard ends: give back what relays hold. */
void relay_abandon_all(struct shard *shard);

#endif
