/* tls.h: TLS as an engine of bytes: ciphertext in, plaintext out, and the other way; no sockets,
 * no clock.
 * Flow:       ingress: received bytes → tls_receive → plaintext; egress: frames → tls_send →
 *             ciphertext
 * Owns:       a struct tls per connection; a struct tls_engine per shard lends its BIO to the
 *             one at work, so that nothing in a struct tls is bound to a shard and a connection
 *             can move
 * Invariants: an idle established struct tls holds no read or write buffer and no handshake
 *             state
 * Failure:    ERR_INVALID: fatal, an alert may be in `answer`; ERR_CLOSED: close_notify came;
 *             ERR_FULL: out has no room, call again with room, nothing is lost
 * Standard:   TLS 1.3 RFC 8446, 1.2 with ECDHE and AEAD only RFC 5246/5289; tickets RFC
 *             5077/8446 4.6.1; no 0-RTT
 * Seam:       tls_boringssl.c, or tls_clear.c (the simulator: bytes pass unchanged) */
#ifndef GATEWAY_WIRE_TLS_H
#define GATEWAY_WIRE_TLS_H

#include "core/bytes.h"

struct tls_context; /* a certificate generation; immutable, shared by all shards, counted references
                     */
struct tls_engine;  /* per shard */
struct tls;         /* per connection */

#define TLS_RECORD_OVERHEAD 64 /* bytes that sealing adds per started 16 KiB, at most */
#define TLS_SECRET_BYTES    32

struct tls_server_options {
    const char *certificate_path;            /* PEM, leaf first */
    const char *key_path;                    /* PEM */
    uint8_t ticket_secret[TLS_SECRET_BYTES]; /* ticket keys derive from it and a 6-hour period */
};

/* tls_context_create_server: reads and checks both files (blocking: start and reload only). On
 * failure *explanation is one line for a person (static storage until the next call). OK with a
 * non-empty *explanation: it works, but warn (the certificate is out of its time). */
MUST_USE enum err tls_context_create_server(struct tls_context **context,
                                            const struct tls_server_options *options,
                                            const char **explanation);
/* tls_context_create_client: ca_path NULL: any certificate is accepted (load generator on the own
 * machine). */
MUST_USE enum err tls_context_create_client(struct tls_context **context, const char *ca_path,
                                            const char **explanation);
void tls_context_retain(struct tls_context *context);
void tls_context_release(struct tls_context *context);
/* tls_context_set_period: the current 6-hour period, unix_ms / 21,600,000; the shard tells it once
 * a turn where it changed. */
void tls_context_set_period(struct tls_context *context, uint64_t period);
/* tls_make_certificate: write a self-signed ECDSA P-256 certificate for `names` (DNS names or
 * addresses, comma-separated) and its key (mode 0600), valid days from unix_ms. Blocking. */
MUST_USE enum err tls_make_certificate(const char *certificate_path, const char *key_path,
                                       const char *names, uint32_t days, uint64_t unix_ms);

MUST_USE enum err tls_engine_create(struct tls_engine **engine);
void tls_engine_destroy(struct tls_engine *engine);

MUST_USE enum err tls_create(struct tls **tls,
                             struct tls_context *context); /* server or client as the context is */
void tls_destroy(struct tls *tls);

/* tls_client_start: the first flight. session: from tls_client_session, or empty for a full
 * handshake. */
MUST_USE enum err tls_client_start(struct tls *tls, struct tls_engine *engine,
                                   struct buffer *answer, const char *server_name,
                                   struct bytes session);
/* tls_client_session: a ticket to resume with, serialised, handed out once; ERR_NOT_FOUND until one
 * has arrived. It stays in memory (about 1 KB) until asked for. */
MUST_USE enum err tls_client_session(struct tls *tls, struct buffer *out);

/* tls_receive: take ciphertext off *input (what is not taken stays in it only with ERR_FULL),
 * append plaintext, append what must be sent (handshake, alerts, tickets) to answer. OK also when
 * nothing came out yet. */
MUST_USE enum err tls_receive(struct tls *tls, struct tls_engine *engine, struct bytes *input,
                              struct buffer *plaintext, struct buffer *answer);
/* tls_send: seal from *input as much as fits; OK: all of it; ERR_FULL: the rest stays in *input;
 * ERR_AGAIN: not established yet, nothing done. */
MUST_USE enum err tls_send(struct tls *tls, struct tls_engine *engine, struct bytes *input,
                           struct buffer *ciphertext);
/* tls_close: append close_notify. */
void tls_close(struct tls *tls, struct tls_engine *engine, struct buffer *ciphertext);

bool tls_established(const struct tls *tls);
bool tls_resumed(const struct tls *tls);
const char *tls_version(const struct tls *tls); /* "TLSv1.3" */
const char *tls_library(void); /* which library and build runs, for the start line */
/* tls_explain: the library's reason for the engine's newest failure, for the log; "" if none. */
const char *tls_explain(const struct tls_engine *engine);

#endif
