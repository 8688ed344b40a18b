/* fuzz_proxy.c: any bytes as a PROXY header: refused, waited for or taken whole; every prefix of a
 * good header is waited for. */
#include "gateway/wire/proxy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct io_address peer = {{0}, 0};
    struct bytes input = bytes_of(data, size);
    enum err err = proxy_decode(&input, &peer);
    size_t taken = size - input.size;
    CHECK(err == OK || err == ERR_AGAIN || err == ERR_INVALID || err == ERR_TOO_BIG);
    CHECK(err == OK ? taken >= 16 && taken <= PROXY_HEADER_BYTES_MAX : taken == 0);
    for (size_t prefix = 0; err == OK && prefix < taken; prefix++) {
        struct bytes part = bytes_of(data, prefix);
        CHECK(proxy_decode(&part, &peer) == ERR_AGAIN);
    }
    return 0;
}
