/* websocket.h: RFC 6455 frames through wslay, as an engine of bytes; the handshake's key
 * arithmetic.
 * Flow:       ingress: plaintext → websocket_receive → messages; egress: message bytes →
 *             websocket_frame → plaintext
 * Owns:       a struct websocket is embedded in its connection: two words when idle; the wslay
 *             context and the assembly buffer exist only while a frame or message is incomplete
 *             and come from the shard's struct websocket_engine
 * Invariants: text messages are valid UTF-8 when handed out; control frames are handed out
 *             between fragments as they come
 * Failure:    WEBSOCKET_FAILED with the close code to send (1002 protocol, 1007 UTF-8, 1009 too
 *             big or too many fragments, 1011 out of memory); what follows it, or a close frame,
 *             is swallowed
 * Bounds:     message_bytes_max, fragments_max; per connection in the middle of a frame or
 *             message 4.6 KB + what arrived of it ≤ message_bytes_max; 32 spare parsers per
 *             engine
 * Standard:   RFC 6455; no extensions (permessage-deflate is never agreed to) */
#ifndef GATEWAY_WIRE_WEBSOCKET_H
#define GATEWAY_WIRE_WEBSOCKET_H

#include "core/bytes.h"

enum websocket_opcode { /* RFC 6455 11.8 */
                        WEBSOCKET_TEXT = 1,
                        WEBSOCKET_BINARY = 2,
                        WEBSOCKET_CLOSE = 8,
                        WEBSOCKET_PING = 9,
                        WEBSOCKET_PONG = 10,
};

struct websocket_engine; /* per shard: spare parsers */

struct websocket_limits {
    uint32_t message_bytes_max;
    uint32_t fragments_max;
    bool client; /* this side is the client: frames sent are masked, frames received must not be */
};

struct websocket {
    /* private */
    struct websocket_parser *parser; /* NULL: nothing incomplete */
    bool close_received;
};

enum websocket_result {
    WEBSOCKET_MORE,    /* all input taken, no complete message */
    WEBSOCKET_MESSAGE, /* out is valid until the next call with this websocket or engine; call again
                          for what is left of input */
    WEBSOCKET_FAILED,  /* out.close_code says why; the connection is to be closed */
};

struct websocket_message {
    enum websocket_opcode opcode;
    struct bytes data;   /* unmasked; for CLOSE: the reason text */
    uint16_t close_code; /* CLOSE: as received, 1005 if none; FAILED: to send */
};

/* entropy: masks of client frames; may be NULL for a server. */
MUST_USE enum err websocket_engine_create(struct websocket_engine **engine,
                                          void (*entropy)(void *context, void *out, size_t size),
                                          void *context);
void websocket_engine_destroy(struct websocket_engine *engine);
void websocket_deinit(struct websocket *websocket, struct websocket_engine *engine);

enum websocket_result websocket_receive(struct websocket *websocket,
                                        struct websocket_engine *engine,
                                        const struct websocket_limits *limits, struct bytes *input,
                                        struct websocket_message *out);
bool websocket_idle(const struct websocket *websocket); /* nothing incomplete is held */

/* websocket_frame: append one unfragmented frame. ERR_FULL: nothing appended. */
MUST_USE enum err websocket_frame(struct buffer *out, struct websocket_engine *engine,
                                  const struct websocket_limits *limits,
                                  enum websocket_opcode opcode, struct bytes data);
MUST_USE enum err websocket_frame_close(struct buffer *out, struct websocket_engine *engine,
                                        const struct websocket_limits *limits, uint16_t close_code,
                                        const char *reason);
#define WEBSOCKET_FRAME_OVERHEAD 14

/* websocket_accept_key: Sec-WebSocket-Accept for a Sec-WebSocket-Key (RFC 6455 4.2.2); ERR_INVALID
 * unless the key is 16 bytes of base64. */
MUST_USE enum err websocket_accept_key(char out[29], struct bytes key);

#endif
