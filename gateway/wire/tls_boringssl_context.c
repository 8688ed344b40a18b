/* tls_boringssl_context.c: certificates, tickets and settings of tls.h over BoringSSL.
 *   tickets  name 16 | IV 16 | AES-256-CBC(session) | HMAC-SHA256 32, with
 *            name 16, cipher key 32, MAC key 32 = HKDF-SHA256(ticket_secret, info "roost ticket
 *            key" and the period as 8 bytes, little-endian). Derived per handshake (3 µs), so that
 *            the context stays immutable but for the period
 *   clients  sessions are plain SSL_SESSION serialisations; the certificate chain is in them,
 *            parsed only while it is verified (TLS_with_buffers_method) */
#include "gateway/wire/tls_boringssl.h"

#include "core/file.h"
#include "core/memory.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hkdf.h>
#include <openssl/hmac.h>
#include <openssl/mem.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdio.h>

#define PEM_BYTES_MAX     1048576
#define CHAIN_MAX         16
#define SESSION_S_MAX     (12 * 3600) /* what two ticket periods can cover */
#define TICKET_NAME_BYTES 16
#define TICKET_IV_BYTES   16

/* TLS 1.2: ECDHE with AEAD only; clients without AES hardware choose ChaCha20. 1.3 has its own. */
#define CIPHERS                                                                                    \
    "[ECDHE-ECDSA-AES128-GCM-SHA256|ECDHE-ECDSA-CHACHA20-POLY1305]:"                               \
    "[ECDHE-RSA-AES128-GCM-SHA256|ECDHE-RSA-CHACHA20-POLY1305]:"                                   \
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384"
#define CURVES "X25519:P-256"

struct ticket_keys {
    uint8_t name[TICKET_NAME_BYTES];
    uint8_t cipher[32];
    uint8_t mac[32];
};

/* ---- explanations */

/* explanation_text: the one mutable static here: tls.h promises storage until the next call, and
 * contexts are created at start and reload, on one thread. */
static char *explanation_text(void)
{
    static char explanation[EXPLANATION_BYTES];
    return explanation;
}

__attribute__((format(printf, 2, 3))) static enum err explain(enum err err, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(explanation_text(), EXPLANATION_BYTES, format, arguments);
    va_end(arguments);
    ERR_clear_error();
    return err;
}

/* ---- PEM files */

/* file_load: the whole file into *bio. */
static enum err file_load(BIO **bio, const char *path, const char *what)
{
    int fd = -1;
    enum err err = file_open(&fd, path, FILE_READ);
    if (err != OK)
        return explain(err, "cannot open the %s %s: %s", what, path,
                       err == ERR_NOT_FOUND ? "there is no such file" : err_name(err));
    uint64_t size = 0;
    size_t done = 0;
    uint8_t *data = NULL;
    err = file_size(fd, &size);
    if (err == OK && (size == 0 || size > PEM_BYTES_MAX))
        err = ERR_INVALID;
    if (err == OK && (data = memory_take((size_t)size, MEMORY_TLS)) == NULL)
        err = ERR_NO_MEMORY;
    if (err == OK)
        err = file_read(fd, 0, data, (size_t)size, &done);
    if (err == OK && (*bio = BIO_new(BIO_s_mem())) == NULL)
        err = ERR_NO_MEMORY;
    if (err == OK && BIO_write(*bio, data, (int)done) != (int)done) {
        BIO_free(*bio);
        err = ERR_NO_MEMORY;
    }
    if (data != NULL)
        OPENSSL_cleanse(data, (size_t)size);
    memory_give(data, MEMORY_TLS);
    file_close(fd);
    return err == OK ? OK : explain(err, "cannot read the %s %s: %s", what, path, err_name(err));
}

static int no_passphrase(char *out, int size, int writing, void *context)
{
    (void)out, (void)size, (void)writing, (void)context;
    return 0; /* never ask the terminal */
}

struct chain {
    X509 *certificates[CHAIN_MAX];
    size_t count;
};

static void chain_free(struct chain *chain)
{
    for (size_t i = 0; i < chain->count; i++)
        X509_free(chain->certificates[i]);
    chain->count = 0;
}

static enum err chain_load(struct chain *chain, const char *path, const char *what)
{
    BIO *bio = NULL;
    TRY(file_load(&bio, path, what));
    X509 *certificate;
    enum err err = OK;
    while (err == OK && (certificate = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL)) != NULL) {
        if (chain->count == CHAIN_MAX) {
            X509_free(certificate);
            err = explain(ERR_TOO_BIG, "the %s %s holds more than %d certificates", what, path,
                          CHAIN_MAX);
        } else {
            chain->certificates[chain->count++] = certificate;
        }
    }
    BIO_free(bio);
    uint32_t code = (uint32_t)ERR_peek_last_error();
    bool end = ERR_GET_LIB(code) == ERR_LIB_PEM && ERR_GET_REASON(code) == PEM_R_NO_START_LINE;
    if (err == OK && (chain->count == 0 || !end))
        err =
            explain(ERR_INVALID, "the %s %s is not a chain of PEM certificates: %s", what, path,
                    chain->count == 0 && end ? "no BEGIN CERTIFICATE in it" : tls_library_reason());
    if (err != OK)
        chain_free(chain);
    ERR_clear_error();
    return err;
}

static enum err key_load(EVP_PKEY **key, const char *path)
{
    BIO *bio = NULL;
    TRY(file_load(&bio, path, "private key"));
    *key = PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL);
    BIO_free(bio);
    if (*key == NULL)
        return explain(ERR_INVALID,
                       "the private key %s is not a readable PEM key without passphrase: %s", path,
                       tls_library_reason());
    return OK;
}

/* ---- contexts */

static void ticket_keys_derive(struct ticket_keys *keys, const struct tls_context *context,
                               uint64_t period)
{
    static const char label[] = "roost ticket key";
    uint8_t info[sizeof label - 1 + sizeof period];
    uint8_t out[sizeof *keys];
    memcpy(info, label, sizeof label - 1);
    store_u64(info + sizeof label - 1, period);
    CHECK(HKDF(out, sizeof out, EVP_sha256(), context->ticket_secret, TLS_SECRET_BYTES, NULL, 0,
               info, sizeof info) == 1);
    memcpy(keys->name, out, sizeof keys->name);
    memcpy(keys->cipher, out + sizeof keys->name, sizeof keys->cipher);
    memcpy(keys->mac, out + sizeof keys->name + sizeof keys->cipher, sizeof keys->mac);
    OPENSSL_cleanse(out, sizeof out);
}

static int ticket_seal(const struct ticket_keys *keys, uint8_t *name, uint8_t *iv,
                       EVP_CIPHER_CTX *cipher, HMAC_CTX *mac)
{
    memcpy(name, keys->name, TICKET_NAME_BYTES);
    RAND_bytes(iv, TICKET_IV_BYTES);
    if (EVP_EncryptInit_ex(cipher, EVP_aes_256_cbc(), NULL, keys->cipher, iv) != 1 ||
        HMAC_Init_ex(mac, keys->mac, sizeof keys->mac, EVP_sha256(), NULL) != 1)
        return -1;
    return 1;
}

static int ticket_open(const struct ticket_keys *keys, const uint8_t *iv, EVP_CIPHER_CTX *cipher,
                       HMAC_CTX *mac)
{
    if (EVP_DecryptInit_ex(cipher, EVP_aes_256_cbc(), NULL, keys->cipher, iv) != 1 ||
        HMAC_Init_ex(mac, keys->mac, sizeof keys->mac, EVP_sha256(), NULL) != 1)
        return -1;
    return 1;
}

/* on_ticket_key: the library's convention: 1 done, 2 done and give the client a new ticket, 0 not
 * our key: a full handshake follows, -1 abort. */
static int on_ticket_key(SSL *ssl, uint8_t *name, uint8_t *iv, EVP_CIPHER_CTX *cipher,
                         HMAC_CTX *mac, int sealing)
{
    struct tls_context *context = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
    uint64_t period = atomic_load_explicit(&context->period, memory_order_relaxed);
    struct ticket_keys keys;
    int result = 0;
    for (uint64_t age = 0; age < 2 && age <= period && result == 0; age++) {
        ticket_keys_derive(&keys, context, period - age);
        if (sealing) {
            result = ticket_seal(&keys, name, iv, cipher, mac);
        } else if (CRYPTO_memcmp(name, keys.name, TICKET_NAME_BYTES) == 0) {
            result = ticket_open(&keys, iv, cipher, mac);
            if (result == 1 && age == 1)
                result = 2;
        }
    }
    OPENSSL_cleanse(&keys, sizeof keys);
    return result;
}

/* on_protocol: of what a client offers (RFC 7301) only HTTP/1 is spoken here: 1.1, which WebSocket
 * needs, or 1.0; a client that offers others only would take us for one of them. */
static int on_protocol(SSL *ssl, const uint8_t **out, uint8_t *out_size, const uint8_t *offered,
                       unsigned offered_size, void *context)
{
    static const uint8_t ours[] = "\x08http/1.1\x08http/1.0";
    (void)ssl, (void)context;
    uint8_t *chosen = NULL;
    int result =
        SSL_select_next_proto(&chosen, out_size, ours, sizeof ours - 1, offered, offered_size);
    *out = chosen;
    return result == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

/* on_session: a ticket for a client. 1: the reference is ours now. */
static int on_session(SSL *ssl, SSL_SESSION *session)
{
    BIO *bio = SSL_get_rbio(ssl);
    struct tls_engine *engine = bio == NULL ? NULL : BIO_get_data(bio);
    if (engine == NULL || engine->tls == NULL)
        return 0;
    SSL_SESSION_free(engine->tls->session);
    engine->tls->session = session;
    return 1;
}

static X509 *peer_chain_parse(const SSL *ssl, STACK_OF(X509) * others)
{
    const STACK_OF(CRYPTO_BUFFER) *chain = SSL_get0_peer_certificates(ssl);
    X509 *leaf = NULL;
    for (size_t i = 0; chain != NULL && i < sk_CRYPTO_BUFFER_num(chain); i++) {
        X509 *certificate = X509_parse_from_buffer(sk_CRYPTO_BUFFER_value(chain, i));
        if (certificate == NULL)
            break;
        if (i == 0)
            leaf = certificate;
        else if (!sk_X509_push(others, certificate))
            X509_free(certificate);
    }
    return leaf;
}

/* on_verify: the server's certificate against the trusted ones, and its name (RFC 6125). */
static enum ssl_verify_result_t on_verify(SSL *ssl, uint8_t *alert)
{
    struct tls_context *context = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
    struct tls_engine *engine = BIO_get_data(SSL_get_rbio(ssl));
    const char *name = engine->tls->server_name;
    if (context->trusted == NULL)
        return ssl_verify_ok;
    *alert = SSL_AD_BAD_CERTIFICATE;
    STACK_OF(X509) *others = sk_X509_new_null();
    X509 *leaf = others == NULL ? NULL : peer_chain_parse(ssl, others);
    X509_STORE_CTX *check = X509_STORE_CTX_new();
    bool good = leaf != NULL && check != NULL &&
                X509_STORE_CTX_init(check, context->trusted, leaf, others) == 1 &&
                X509_STORE_CTX_set_default(check, "ssl_server") == 1 &&
                X509_verify_cert(check) == 1;
    if (good && name != NULL)
        good = X509_check_ip_asc(leaf, name, 0) == 1 ||
               X509_check_host(leaf, name, strlen(name), 0, NULL) == 1;
    X509_STORE_CTX_free(check);
    X509_free(leaf);
    sk_X509_pop_free(others, X509_free);
    return good ? ssl_verify_ok : ssl_verify_invalid;
}

/* context_create: what both sides share. */
static enum err context_create(struct tls_context **out, bool server)
{
    struct tls_context *context = memory_take_zeroed(sizeof *context, MEMORY_TLS);
    if (context == NULL)
        return explain(ERR_NO_MEMORY, "out of memory");
    context->server = server;
    atomic_init(&context->references, 1);
    atomic_init(&context->period, 0);
    context->ssl = SSL_CTX_new(TLS_with_buffers_method());
    CRYPTO_BUFFER_POOL *pool = CRYPTO_BUFFER_POOL_new();
    SSL_CTX *ssl = context->ssl;
    if (ssl == NULL || pool == NULL || SSL_CTX_set_min_proto_version(ssl, TLS1_2_VERSION) != 1 ||
        SSL_CTX_set_max_proto_version(ssl, TLS1_3_VERSION) != 1 ||
        SSL_CTX_set_strict_cipher_list(ssl, CIPHERS) != 1 ||
        SSL_CTX_set1_curves_list(ssl, CURVES) != 1) {
        CRYPTO_BUFFER_POOL_free(pool);
        SSL_CTX_free(ssl);
        memory_give(context, MEMORY_TLS);
        return explain(ERR_NO_MEMORY, "cannot set up TLS: %s", tls_library_reason());
    }
    SSL_CTX_set0_buffer_pool(ssl, pool);
    context->pool = pool;
    SSL_CTX_set_app_data(ssl, context);
    SSL_CTX_set_early_data_enabled(ssl, 0);
    SSL_CTX_set_mode(ssl, SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_ENABLE_PARTIAL_WRITE |
                              SSL_MODE_NO_AUTO_CHAIN);
    SSL_CTX_set_timeout(ssl, SESSION_S_MAX);
    SSL_CTX_set_session_psk_dhe_timeout(ssl, SESSION_S_MAX);
    *out = context;
    return OK;
}

/* leaf_validate: the key belongs to the leaf, and a warning where the leaf is out of its time. */
static enum err leaf_validate(X509 *leaf, const EVP_PKEY *key,
                              const struct tls_server_options *options)
{
    EVP_PKEY *public_key = X509_get_pubkey(leaf);
    int kind = EVP_PKEY_id(key);
    bool known = kind == EVP_PKEY_EC || kind == EVP_PKEY_RSA || kind == EVP_PKEY_ED25519;
    bool same = public_key != NULL && EVP_PKEY_cmp(public_key, key) == 1;
    EVP_PKEY_free(public_key);
    if (!known)
        return explain(ERR_UNSUPPORTED, "the private key %s is neither ECDSA, RSA nor Ed25519",
                       options->key_path);
    if (!same)
        return explain(ERR_CONFLICT,
                       "the private key %s does not belong to the first certificate in %s",
                       options->key_path, options->certificate_path);
    explanation_text()[0] = '\0';
    if (X509_cmp_current_time(X509_get0_notAfter(leaf)) < 0)
        return explain(OK, "the certificate %s has expired", options->certificate_path);
    if (X509_cmp_current_time(X509_get0_notBefore(leaf)) > 0)
        return explain(OK, "the certificate %s is not valid yet", options->certificate_path);
    return OK;
}

static CRYPTO_BUFFER *certificate_buffer(X509 *certificate, CRYPTO_BUFFER_POOL *pool)
{
    uint8_t *der = NULL;
    int size = i2d_X509(certificate, &der);
    if (size <= 0)
        return NULL;
    CRYPTO_BUFFER *buffer = CRYPTO_BUFFER_new(der, (size_t)size, pool);
    OPENSSL_free(der);
    return buffer;
}

static enum err chain_install(struct tls_context *context, const struct chain *chain, EVP_PKEY *key)
{
    CRYPTO_BUFFER *buffers[CHAIN_MAX];
    size_t count = 0;
    for (; count < chain->count; count++) {
        buffers[count] = certificate_buffer(chain->certificates[count], context->pool);
        if (buffers[count] == NULL)
            break;
    }
    bool good = count == chain->count &&
                SSL_CTX_set_chain_and_key(context->ssl, buffers, count, key, NULL) == 1;
    while (count > 0)
        CRYPTO_BUFFER_free(buffers[--count]);
    return good ? OK
                : explain(ERR_INVALID, "the certificate cannot be used for TLS: %s",
                          tls_library_reason());
}

static void server_settings(struct tls_context *context, const struct tls_server_options *options)
{
    static const uint8_t session_context[] = "roost"; /* a ticket of another context resumes too */
    memcpy(context->ticket_secret, options->ticket_secret, TLS_SECRET_BYTES);
    SSL_CTX *ssl = context->ssl;
    SSL_CTX_set_session_cache_mode(ssl, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_session_id_context(ssl, session_context, sizeof session_context - 1);
    SSL_CTX_set_tlsext_ticket_key_cb(ssl, on_ticket_key);
    SSL_CTX_set_alpn_select_cb(ssl, on_protocol, NULL);
    SSL_CTX_set_num_tickets(ssl, 1);
    SSL_CTX_set_options(ssl, SSL_OP_CIPHER_SERVER_PREFERENCE);
}

enum err tls_context_create_server(struct tls_context **context,
                                   const struct tls_server_options *options,
                                   const char **explanation)
{
    struct tls_context *created = NULL;
    struct chain chain = {.count = 0};
    EVP_PKEY *key = NULL;
    *explanation = explanation_text();
    enum err err = chain_load(&chain, options->certificate_path, "certificate");
    if (err == OK)
        err = key_load(&key, options->key_path);
    if (err == OK)
        err = context_create(&created, true);
    if (err == OK)
        err = leaf_validate(chain.certificates[0], key, options);
    if (err == OK)
        err = chain_install(created, &chain, key);
    if (err == OK) {
        server_settings(created, options);
        *context = created;
    } else {
        tls_context_release(created);
    }
    chain_free(&chain);
    EVP_PKEY_free(key);
    return err;
}

static enum err trusted_load(struct tls_context *context, const char *path)
{
    struct chain chain = {.count = 0};
    TRY(chain_load(&chain, path, "certificate authority file"));
    context->trusted = X509_STORE_new();
    /* what is in the file is trusted as it stands, a self-signed leaf too */
    bool good = context->trusted != NULL &&
                X509_STORE_set_flags(context->trusted, X509_V_FLAG_PARTIAL_CHAIN) == 1;
    for (size_t i = 0; good && i < chain.count; i++)
        good = X509_STORE_add_cert(context->trusted, chain.certificates[i]) == 1;
    chain_free(&chain);
    return good ? OK : explain(ERR_NO_MEMORY, "cannot trust %s: %s", path, tls_library_reason());
}

enum err tls_context_create_client(struct tls_context **context, const char *ca_path,
                                   const char **explanation)
{
    static const uint16_t verified[] = {
        SSL_SIGN_ECDSA_SECP256R1_SHA256, SSL_SIGN_ED25519,
        SSL_SIGN_RSA_PSS_RSAE_SHA256,    SSL_SIGN_RSA_PKCS1_SHA256,
        SSL_SIGN_ECDSA_SECP384R1_SHA384, SSL_SIGN_RSA_PSS_RSAE_SHA384,
        SSL_SIGN_RSA_PKCS1_SHA384,
    };
    struct tls_context *created = NULL;
    *explanation = explanation_text();
    TRY(context_create(&created, false));
    enum err err = ca_path == NULL ? OK : trusted_load(created, ca_path);
    if (err == OK &&
        SSL_CTX_set_verify_algorithm_prefs(created->ssl, verified, COUNT_OF(verified)) != 1)
        err = explain(ERR_NO_MEMORY, "cannot set up TLS: %s", tls_library_reason());
    if (err != OK) {
        tls_context_release(created);
        return err;
    }
    SSL_CTX_set_custom_verify(created->ssl, SSL_VERIFY_PEER, on_verify);
    SSL_CTX_set_session_cache_mode(created->ssl,
                                   SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(created->ssl, on_session);
    explanation_text()[0] = '\0';
    *context = created;
    return OK;
}

void tls_context_retain(struct tls_context *context)
{
    atomic_fetch_add_explicit(&context->references, 1, memory_order_relaxed);
}

void tls_context_release(struct tls_context *context)
{
    if (context == NULL ||
        atomic_fetch_sub_explicit(&context->references, 1, memory_order_acq_rel) != 1)
        return;
    SSL_CTX_free(context->ssl);
    X509_STORE_free(context->trusted);
    CRYPTO_BUFFER_POOL_free(context->pool);
    OPENSSL_cleanse(context->ticket_secret, sizeof context->ticket_secret);
    memory_give(context, MEMORY_TLS);
}

void tls_context_set_period(struct tls_context *context, uint64_t period)
{
    atomic_store_explicit(&context->period, period, memory_order_relaxed);
}
