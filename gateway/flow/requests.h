/* requests.h: what a client asks for, one function per request kind.
 * Flow:       ingress → request_handle → login (hello) | commit (send, watermark) | session (range,
 * credit) Failure:    OK: done or answered; ERR_FULL: a ring between shards is full, ERR_BUSY: it
 * must wait for answers: the same request comes again later; ERR_AGAIN: hello is being looked at:
 * what follows waits */
#ifndef GATEWAY_FLOW_REQUESTS_H
#define GATEWAY_FLOW_REQUESTS_H

#include "gateway/flow/connection.h"

MUST_USE enum err request_handle(struct shard *shard, struct connection *connection,
                                 const struct request *request);
/* request_on_result: BORDER_RESULT: the conversation's answer to a send or a checked watermark. */
void request_on_result(struct shard *shard, struct bytes message);
/* request_error: an Error event for a request; the connection goes on. */
void request_error(struct shard *shard, struct connection *connection, uint64_t request_id,
                   const struct failure *failure);

#endif
