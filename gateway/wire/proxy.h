/* proxy.h: the PROXY protocol's version 2 header, which a load balancer sends before the first
 * byte of TLS.
 * Standard:   The PROXY protocol, versions 1 & 2, HAProxy, 2.2 (binary). Version 1 is refused. */
#ifndef GATEWAY_WIRE_PROXY_H
#define GATEWAY_WIRE_PROXY_H

#include "core/io.h"

#define PROXY_HEADER_BYTES_MAX 536

/* proxy_decode: take the header off *input. OK: *peer is the client's address (unchanged for LOCAL
 * and UNSPEC); ERR_AGAIN: more bytes needed (nothing taken); ERR_INVALID; ERR_TOO_BIG: longer than
 * PROXY_HEADER_BYTES_MAX. */
MUST_USE enum err proxy_decode(struct bytes *input, struct io_address *peer);

#endif
