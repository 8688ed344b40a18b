/* test_proxy.c: headers as HAProxy's document writes them, whole and byte by byte. */
#include "gateway/wire/proxy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
#define B(text)   (const uint8_t *)(text), sizeof(text) - 1

#define IPV6_SOURCE "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07"
#define IPV6_TARGET "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01"

#define UNCHANGED                                                                                  \
    {                                                                                              \
        .ip = {1, 2, 3}, .port = 4                                                                 \
    }
static const struct io_address before = UNCHANGED;

struct header {
    const uint8_t *data;
    size_t size;
    enum err err;
    struct io_address peer;
};

static const struct header table[] = {
    {B(SIGNATURE "\x21\x11\x00\x0c\xc0\x00\x02\x01\x0a\x00\x00\x01\xc3\x50\x20\xfb"),
     OK,
     {.ip = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1}, .port = 50000}},
    {B(SIGNATURE "\x21\x21\x00\x24" IPV6_SOURCE IPV6_TARGET "\x01\xbb\x20\xfb"),
     OK,
     {.ip = {0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7}, .port = 443}},
    /* TLVs behind the addresses are skipped */
    {B(SIGNATURE "\x21\x11\x00\x13\xc0\x00\x02\x01\x0a\x00\x00\x01\xc3\x50\x20\xfb\x03\x00\x04"
                 "abcd"),
     OK,
     {.ip = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1}, .port = 50000}},
    /* health checks and what has no address: the peer stays */
    {B(SIGNATURE "\x20\x00\x00\x00"), OK, UNCHANGED},
    {B(SIGNATURE "\x20\x11\x00\x0c\xc0\x00\x02\x01\x0a\x00\x00\x01\xc3\x50\x20\xfb"), OK,
     UNCHANGED},
    {B(SIGNATURE "\x21\x00\x00\x03xyz"), OK, UNCHANGED},
    {B(SIGNATURE "\x21\x31\x00\x02xy"), OK, UNCHANGED},
    /* not for a TCP listener */
    {B(SIGNATURE "\x21\x12\x00\x0c\xc0\x00\x02\x01\x0a\x00\x00\x01\xc3\x50\x20\xfb"), ERR_INVALID,
     UNCHANGED},
    {B(SIGNATURE "\x21\x22\x00\x00"), ERR_INVALID, UNCHANGED},
    {B(SIGNATURE "\x21\x41\x00\x00"), ERR_INVALID, UNCHANGED},
    /* version, command, length */
    {B(SIGNATURE "\x11\x11\x00\x0c"), ERR_INVALID, UNCHANGED},
    {B(SIGNATURE "\x22\x11\x00\x0c"), ERR_INVALID, UNCHANGED},
    {B(SIGNATURE "\x21\x11\x00\x0b\xc0\x00\x02\x01\x0a\x00\x00\x01\xc3\x50\x20"), ERR_INVALID,
     UNCHANGED},
    {B(SIGNATURE "\x21\x21\x00\x23" IPV6_SOURCE IPV6_TARGET "\x01\xbb\x20"), ERR_INVALID,
     UNCHANGED},
    {B(SIGNATURE "\x21\x11\x02\x09"), ERR_TOO_BIG, UNCHANGED},
    {B(SIGNATURE "\x20\x00\xff\xff"), ERR_TOO_BIG, UNCHANGED},
    /* version 1, TLS, a wrong signature */
    {B("PROXY TCP4 192.0.2.1 10.0.0.1 50000 443\r\n"), ERR_INVALID, UNCHANGED},
    {B("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), ERR_INVALID, UNCHANGED},
    {B("\r\n\r\n\0\r\nQUIT\r"), ERR_INVALID, UNCHANGED},
};

static void assert_peer(const struct io_address *a, const struct io_address *b)
{
    assert_memory_equal(a->ip, b->ip, 16);
    assert_int_equal(a->port, b->port);
}

/* decode_prefix: a copy of the first `size` bytes, so that the sanitizer sees reads past them. */
static enum err decode_prefix(const struct header *h, size_t size, size_t *taken,
                              struct io_address *peer)
{
    uint8_t *copy = malloc(size == 0 ? 1 : size);
    assert_non_null(copy);
    memcpy(copy, h->data, size);
    struct bytes input = bytes_of(copy, size);
    enum err err = proxy_decode(&input, peer);
    *taken = size - input.size;
    free(copy);
    return err;
}

static void test_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(table); i++) {
        const struct header *h = &table[i];
        bool refused = false;
        for (size_t size = 0; size <= h->size && !refused; size++) {
            struct io_address peer = before;
            size_t taken;
            enum err err = decode_prefix(h, size, &taken, &peer);
            refused = err == ERR_INVALID || err == ERR_TOO_BIG;
            if (size < h->size && !refused)
                assert_int_equal(err, ERR_AGAIN);
            if (size == h->size || refused)
                assert_int_equal(err, h->err);
            assert_int_equal(taken, err == OK ? h->size : 0);
            assert_peer(&peer, err == OK ? &h->peer : &before);
        }
    }
}

/* A refused byte is not waited on: version 1 and TLS fail with their first. */
static void test_fails_fast(void **state)
{
    (void)state;
    struct io_address peer = before;
    struct bytes input = bytes_of_text("P");
    assert_int_equal(proxy_decode(&input, &peer), ERR_INVALID);
    input = bytes_of("\x16", 1);
    assert_int_equal(proxy_decode(&input, &peer), ERR_INVALID);
    input = bytes_of("\r", 1);
    assert_int_equal(proxy_decode(&input, &peer), ERR_AGAIN);
}

static void test_longest_and_rest(void **state)
{
    (void)state;
    uint8_t data[PROXY_HEADER_BYTES_MAX + 5] = {0};
    memcpy(data, SIGNATURE "\x21\x11", 14);
    data[14] = (PROXY_HEADER_BYTES_MAX - 16) >> 8;
    data[15] = (PROXY_HEADER_BYTES_MAX - 16) & 0xff;
    memcpy(data + PROXY_HEADER_BYTES_MAX, "hello", 5);
    struct io_address peer = before;
    struct bytes input = bytes_of(data, sizeof data);
    assert_int_equal(proxy_decode(&input, &peer), OK);
    assert_true(bytes_equal(input, bytes_of_text("hello")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_fails_fast),
        cmocka_unit_test(test_longest_and_rest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
