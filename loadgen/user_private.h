/* user_private.h: what user.c (engine, states, time), user_receive.c and user_send.c share behind
 * user.h. */
#ifndef LOADGEN_USER_PRIVATE_H
#define LOADGEN_USER_PRIVATE_H

#include "loadgen/user.h"

#define EVENTS_MAX    256
#define FAILURE_BYTES 200
#define REQUESTS_MAX  16 /* per frame; the server's limit may be lower */
#define LOST_BEATS    5  /* half heartbeats of silence until the server counts as gone */

enum want { WANT_UPGRADE = 1, WANT_HELLO = 2, WANT_PING = 4, WANT_RANGE = 8 };

struct user_send {
    struct user_send *next;
    struct message_id id;
    struct user_id to;
    uint64_t intended_ns;
    uint64_t retry_ns; /* refused for now, or to be repeated: held until then; 0: not held */
    uint64_t seq;      /* acknowledged, and repeated; 0: not yet */
    uint32_t request;  /* of the newest attempt */
    uint32_t size;
    bool sent;        /* on this connection */
    uint8_t refusals; /* for now, in a row */
};

struct user_watermark {
    struct conversation_id conversation;
    uint64_t received;
    uint64_t told;
};

struct user_engine {
    const struct user_options *options;
    struct tls_engine *tls;
    struct websocket_engine *websocket;
    struct websocket_limits limits;
    struct user *user; /* at work in user_receive */
    struct buffer plaintext;
    struct bytes rest;     /* of plaintext */
    struct buffer scratch; /* decoding */
    struct buffer element; /* one encoded request */
    struct buffer frame;   /* elements joined */
    struct buffer wire;    /* framed plaintext */
    struct buffer payload;
    struct event events[EVENTS_MAX];
    size_t event_count;
    size_t event_at;
    enum err tls_end; /* what tls_receive ended with, to be told after the plaintext before it */
    uint64_t now_ns;
    uint64_t wall_ms;
    uint64_t random;
    uint32_t requests_max;
    bool has_epoch;
    uint8_t store_epoch[16];
    char server[64];
    char failure[FAILURE_BYTES];
};

void user_set_state(struct user *user, enum user_state state);
/* user_entropy: of the engine's own sequence; context: the engine. */
void user_entropy(void *context, void *out, size_t size);
/* user_backoff_ms: how long to wait after that many failures in a row: a random time between half
 * and the whole of base_ms, doubled that often, up to options.backoff_ms_max. */
uint64_t user_backoff_ms(struct user_engine *engine, uint64_t base_ms, uint32_t failures);
/* user_fail: err, after user_failure's text. */
__attribute__((format(printf, 3, 4))) enum err user_fail(struct user_engine *engine, enum err err,
                                                         const char *format, ...);
/* user_seal: plaintext to output; the caller made sure of the room. */
MUST_USE enum err user_seal(struct user *user, struct user_engine *engine, struct bytes plaintext,
                            struct buffer *output);
/* user_sealed_bytes: what user_seal makes of that many, at most. */
size_t user_sealed_bytes(size_t plaintext);

#endif
