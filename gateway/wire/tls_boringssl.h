/* tls_boringssl.h: what tls_boringssl.c (connections) and tls_boringssl_context.c (certificates,
 * tickets, settings) share behind tls.h; nobody else includes it. */
#ifndef GATEWAY_WIRE_TLS_BORINGSSL_H
#define GATEWAY_WIRE_TLS_BORINGSSL_H

#include "gateway/wire/tls.h"

#include <openssl/pool.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <stdatomic.h>

#define EXPLANATION_BYTES 512

struct tls_context {
    SSL_CTX *ssl;
    CRYPTO_BUFFER_POOL *pool; /* outlives ssl and all its sessions: each struct tls retains us */
    X509_STORE *trusted;      /* client: NULL: any certificate */
    _Atomic uint64_t references;
    _Atomic uint64_t period;
    bool server;
    uint8_t ticket_secret[TLS_SECRET_BYTES];
};

struct tls_engine {
    BIO_METHOD *method;
    BIO *bio;
    struct bytes *input;   /* of the call at work; NULL: nothing to read */
    struct buffer *output; /* of the call at work */
    struct tls *tls;       /* at work */
    char explanation[EXPLANATION_BYTES];
};

struct tls {
    SSL *ssl;
    struct tls_context *context;
    SSL_SESSION *session; /* client: the newest ticket, until it is asked for */
    char *server_name;    /* client that verifies: until the handshake is done */
};

/* tls_library_reason: the newest reason in the library's error queue of this thread, and empties
 * it. */
const char *tls_library_reason(void);

#endif
