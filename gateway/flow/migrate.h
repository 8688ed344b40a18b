/* migrate.h: a connection moves, once, to its user's shard, between authentication and session.
 * Flow:       login_done → migrate_start → (output drained) migrate_go → io_move → IO_MOVED_IN on
 *             the target → login_finish
 * Owns:       struct cargo: everything of the connection that is not the socket; the source's until
 *             io_move succeeds, then the target's
 * Invariants: nothing is armed or in flight when io_move is called; the source does not look at the
 *             cargo after IO_MOVED_OUT
 * Failure:    IO_MOVE_FAILED: the connection is still here: tried again, then goodbye OVERLOADED
 *             with a retry time */
#ifndef GATEWAY_FLOW_MIGRATE_H
#define GATEWAY_FLOW_MIGRATE_H

#include "gateway/flow/connection.h"

void migrate_start(struct shard *shard, struct connection *connection);
void migrate_go(struct shard *shard, struct connection *connection);
void migrate_retry(struct shard *shard, struct connection *connection);
void migrate_on_moved_in(struct shard *shard, const struct io_event *event);
void migrate_on_moved_out(struct shard *shard, struct connection *connection);
void migrate_on_failed(struct shard *shard, struct connection *connection,
                       const struct io_event *event);

#endif
