/* egress.h: the way out: events → elements → WebSocket frames → TLS records → one send.
 * Flow:       requests, deliver, session … → egress_* gather; egress_flush (once a turn) seals and
 *             sends; egress_on_sent frees
 * Owns:       struct output while something is unsent
 * Invariants: bytes leave in the order in which they were given; sealing happens only when nothing
 *             is in flight, so what a slow client has not taken stays in clear elements, counted by
 *             egress_unsent
 * Failure:    no memory: the connection is aborted (its client resumes); nothing is reported */
#ifndef GATEWAY_FLOW_EGRESS_H
#define GATEWAY_FLOW_EGRESS_H

#include "gateway/flow/connection.h"

void egress_event(struct shard *shard, struct connection *connection, const struct event *event);
/* egress_element: an event that is already encoded in the connection's encoding. */
void egress_element(struct shard *shard, struct connection *connection, struct bytes encoded);
/* egress_frame: one WebSocket frame (control, echo) behind what was gathered. */
void egress_frame(struct shard *shard, struct connection *connection, enum websocket_opcode opcode,
                  struct bytes data);
void egress_close_frame(struct shard *shard, struct connection *connection, uint16_t code,
                        const char *reason);
/* egress_plain: bytes of HTTP. */
void egress_plain(struct shard *shard, struct connection *connection, struct bytes data);
/* egress_cipher: what TLS itself wants to say; not sealed again. */
void egress_cipher(struct shard *shard, struct connection *connection, struct bytes data);
/* egress_encode_message: a message as an event, in the shard's buffer of that encoding (valid until
 * the next event of it). A stored payload that does not encode is told as MISSING_RANGE, so that
 * the gap is explicit. */
struct bytes egress_encode_message(struct shard *shard, enum encoding encoding,
                                   const struct message *message);
size_t egress_unsent(const struct connection *connection);
void egress_flush(struct shard *shard);
void egress_on_sent(struct shard *shard, struct connection *connection, enum err err);
void output_free(struct connection *connection);
/* buffer_reserve: room for at least `more` bytes behind size. */
MUST_USE enum err buffer_reserve(struct buffer *buffer, size_t more);

#endif
