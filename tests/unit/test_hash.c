/* test_hash.c: SipHash-1-3 against a second, plain writing of the paper's algorithm with any number
 * of rounds, which in turn is checked against the paper's own vector for 2-4; CRC32C against
 * RFC 3720 B.4 and bit by bit. */
#include "tests/unit/check.h"

#include "core/hash.h"

static void round_plain(uint64_t v[4])
{
#define ROTATE(x, n) ((x) << (n) | (x) >> (64 - (n)))
    v[0] += v[1];
    v[2] += v[3];
    v[1] = ROTATE(v[1], 13);
    v[3] = ROTATE(v[3], 16);
    v[1] ^= v[0];
    v[3] ^= v[2];
    v[0] = ROTATE(v[0], 32);
    v[2] += v[1];
    v[0] += v[3];
    v[1] = ROTATE(v[1], 17);
    v[3] = ROTATE(v[3], 21);
    v[1] ^= v[2];
    v[3] ^= v[0];
    v[2] = ROTATE(v[2], 32);
#undef ROTATE
}

static uint64_t siphash_plain(int c, int d, struct hash_key key, const uint8_t *data, size_t size)
{
    uint8_t padded[1024] = {0};
    assert_true(size < sizeof padded - 8);
    if (size != 0)
        memcpy(padded, data, size);
    size_t words = size / 8 + 1;
    padded[words * 8 - 1] = (uint8_t)size;
    uint64_t v[4];
    const char *initial = "somepseudorandomlygeneratedbytes";
    for (int i = 0; i < 4; i++) {
        v[i] = i % 2 == 0 ? key.k0 : key.k1;
        for (int j = 0; j < 8; j++)
            v[i] ^= (uint64_t)(uint8_t)initial[i * 8 + j] << (56 - 8 * j);
    }
    for (size_t i = 0; i < words; i++) {
        v[3] ^= load_u64(padded + 8 * i);
        for (int j = 0; j < c; j++)
            round_plain(v);
        v[0] ^= load_u64(padded + 8 * i);
    }
    v[2] ^= 0xff;
    for (int j = 0; j < d; j++)
        round_plain(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

static const struct hash_key paper_key = {0x0706050403020100u, 0x0f0e0d0c0b0a0908u};

static void agrees_with_the_paper(void **state)
{
    (void)state;
    uint8_t data[64];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)i;
    /* appendix A: SipHash-2-4 of 00 … 0e */
    assert_true(siphash_plain(2, 4, paper_key, data, 15) == 0xa129ca6149be45e5u);
    /* SipHash-1-3 of nothing, as other implementations have it */
    assert_true(hash_bytes(&paper_key, bytes_of(data, 0)) == 0xabac0158050fc4dcu);
    uint64_t seed = 1;
    for (size_t size = 0; size <= sizeof data; size++) {
        for (int round = 0; round < 50; round++) {
            struct hash_key key = {random_next(&seed), random_next(&seed)};
            assert_true(hash_bytes(&key, bytes_of(data, size)) ==
                        siphash_plain(1, 3, key, data, size));
            data[random_below(&seed, sizeof data)] = (uint8_t)random_next(&seed);
        }
    }
}

static void numbers_hash_as_their_bytes(void **state)
{
    (void)state;
    uint64_t seed = 2;
    for (int i = 0; i < 1000; i++) {
        struct hash_key key = {random_next(&seed), random_next(&seed)};
        uint64_t v[2] = {random_next(&seed), random_next(&seed)};
        assert_true(hash_u64(&key, v[0]) == hash_bytes(&key, bytes_of(v, 8)));
        assert_true(hash_u128(&key, v[0], v[1]) == hash_bytes(&key, bytes_of(v, 16)));
    }
}

static uint32_t crc32c_plain(const uint8_t *data, size_t size)
{
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < size; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
    }
    return ~crc;
}

static void crc32c_is_the_standard_one(void **state)
{
    (void)state;
    assert_int_equal(crc32c(0, bytes_of_text("123456789")), 0xe3069283);
    uint8_t data[5000] = {0};
    assert_int_equal(crc32c(0, bytes_of(data, 32)), 0x8a9136aa); /* RFC 3720 B.4: 32 zeros */
    memset(data, 0xff, 32);
    assert_int_equal(crc32c(0, bytes_of(data, 32)), 0x62a8ab43); /* 32 ones */
    assert_int_equal(crc32c(0, bytes_of(NULL, 0)), 0);
    uint64_t seed = 3;
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)random_next(&seed);
    for (int i = 0; i < 300; i++) {
        size_t size = random_below(&seed, sizeof data);
        size_t cut = random_below(&seed, size + 1);
        uint32_t whole = crc32c(0, bytes_of(data, size));
        assert_int_equal(whole, crc32c_plain(data, size));
        uint32_t first = crc32c(0, bytes_of(data, cut));
        assert_int_equal(crc32c(first, bytes_of(data + cut, size - cut)), whole);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_the_paper),
        cmocka_unit_test(numbers_hash_as_their_bytes),
        cmocka_unit_test(crc32c_is_the_standard_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
