/* migrate.h: a connection moves, once, to its user's shard, between authentication and session.
 * Flow:       login_done → migrate_start → (output drained) migrate_go → io_move → IO_MOVED_IN on
 *             the target → login_finish
 * Owns:       struct cargo: everything of the connection that is not the socket; the source's until
 *             io_move succeeds, then the target's
 * Invariants: nothing is armed or in flight when io_move is called; the source does not look at the
 *             cargo after IO_MOVED_OUT
 * Failure:    IO_MOVE_FAILED: the connection is still here: tried again, then served through its
 *             user's shard without moving (relay.h) */
#ifndef GATEWAY_FLOW_MIGRATE_H
#define GATEWAY_FLOW_MIGRATE_H

#include "gateway/flow/connection.h"

/* baggage: what a connection between authentication and session has above TLS. */
struct baggage {
    struct login *login;
    struct backlog *backlog;
    struct io_address peer;
    uint64_t accepted_ns;
    uint64_t timer_due_ns;
    uint8_t encoding;
};

void migrate_start(struct shard *shard, struct connection *connection);
void migrate_go(struct shard *shard, struct connection *connection);
/* migrate_on_its_way: nothing can be said to it until it has arrived or the move has failed. */
bool migrate_on_its_way(const struct connection *connection);
void migrate_retry(struct shard *shard, struct connection *connection);
void migrate_on_moved_in(struct shard *shard, const struct io_event *event);
void migrate_on_moved_out(struct shard *shard, struct connection *connection);
void migrate_on_failed(struct shard *shard, struct connection *connection,
                       const struct io_event *event);

/* baggage_pack: takes it off the connection. */
void baggage_pack(const struct shard *shard, struct connection *connection,
                  struct baggage *baggage);
/* baggage_unpack: back to where it was packed. */
void baggage_unpack(struct connection *connection, struct baggage *baggage);
void baggage_free(struct baggage *baggage);
/* baggage_arrive: a new connection on the user's shard goes on with it: login_finish. */
void baggage_arrive(struct shard *shard, struct connection *connection, struct baggage *baggage);

#endif
