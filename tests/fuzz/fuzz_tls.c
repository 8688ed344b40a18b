/* fuzz_tls.c: any bytes as a client's: the server engine refuses, waits or answers, in pieces,
 * through small buffers, and gives everything back. The certificate is made once in a private
 * directory. */
#include "gateway/wire/tls.h"

#include "core/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

struct fixture {
    struct tls_context *context;
    struct tls_engine *engine;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct fixture fixture_make(void)
{
    struct fixture f;
    char directory[] = "/tmp/fuzz_tls.XXXXXX", certificate[64], key[64];
    const char *explanation;
    CHECK(mkdtemp(directory) != NULL);
    snprintf(certificate, sizeof certificate, "%s/c.pem", directory);
    snprintf(key, sizeof key, "%s/k.pem", directory);
    CHECK(tls_make_certificate(certificate, key, "localhost", 30, (uint64_t)time(NULL) * 1000) ==
          OK);
    struct tls_server_options options = {certificate, key, {1}};
    CHECK(tls_context_create_server(&f.context, &options, &explanation) == OK);
    CHECK(tls_engine_create(&f.engine) == OK);
    unlink(certificate);
    unlink(key);
    rmdir(directory);
    return f;
}

/* A fuzzer's process has no place for state but this. */
static const struct fixture *fixture(void)
{
    static struct fixture made;
    if (made.context == NULL)
        made = fixture_make();
    return &made;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct fixture *f = fixture();
    if (size < 2)
        return 0;
    size_t chop = 1u + data[0], room = 1u + data[1];
    struct bytes stream = bytes_of(data + 2, size - 2);
    uint8_t opened[64], sealed[256];
    int64_t before = memory_bytes(MEMORY_TLS);
    struct tls *tls;
    CHECK(tls_create(&tls, f->context) == OK);
    enum err err = OK;
    while (stream.size != 0 && (err == OK || err == ERR_FULL)) {
        struct bytes input = bytes_of(stream.data, stream.size < chop ? stream.size : chop);
        size_t offered = input.size;
        struct buffer plaintext = buffer_of(opened, sizeof opened);
        struct buffer answer = buffer_of(sealed, room);
        err = tls_receive(tls, f->engine, &input, &plaintext, &answer);
        CHECK(err == OK || err == ERR_FULL || err == ERR_INVALID || err == ERR_CLOSED);
        CHECK(err != OK || input.size == 0);
        CHECK(err != ERR_FULL || answer.size != 0 || plaintext.size != 0);
        CHECK(!tls_established(tls)); /* nobody guesses a Finished */
        stream = bytes_skip(stream, offered - input.size);
    }
    tls_destroy(tls);
    CHECK(memory_bytes(MEMORY_TLS) <= before + 4096); /* what the library makes on first use */
    return 0;
}
