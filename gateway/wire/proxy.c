/* proxy.c: the header, byte by byte (numbers are big-endian):
 *    0  12  signature 0D 0A 0D 0A 00 0D 0A 51 55 49 54 0A
 *   12   1  version (high half: 2) and command (low half: 0 LOCAL, 1 PROXY)
 *   13   1  address family (high half) and transport (low half): 00 unspecified, 11 TCP over IPv4,
 *           21 TCP over IPv6, 31 stream over a Unix socket; datagrams make no sense here
 *   14   2  bytes that follow: the addresses, then TLVs
 *   16      IPv4: source 4, target 4, source port 2, target port 2
 *           IPv6: source 16, target 16, source port 2, target port 2
 * A wrong byte is refused as soon as it is there: what speaks TLS or version 1 is not waited for.
 */
#include "gateway/wire/proxy.h"

#define PREFIX_BYTES    16
#define SIGNATURE_BYTES 12
#define IPV4_BYTES      12
#define IPV6_BYTES      36

enum { COMMAND_LOCAL = 0x20, COMMAND_PROXY = 0x21 };
enum { FAMILY_UNSPEC = 0x00, FAMILY_TCP4 = 0x11, FAMILY_TCP6 = 0x21, FAMILY_UNIX_STREAM = 0x31 };

static const uint8_t signature[SIGNATURE_BYTES] = {0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d,
                                                   0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a};

static uint16_t load_u16_network(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static size_t address_bytes(uint8_t family)
{
    return family == FAMILY_TCP4 ? IPV4_BYTES : family == FAMILY_TCP6 ? IPV6_BYTES : 0;
}

/* prefix_validate: the first 14 bytes, as many of them as there are. */
static enum err prefix_validate(struct bytes input)
{
    size_t known = input.size < SIGNATURE_BYTES ? input.size : SIGNATURE_BYTES;
    if (known != 0 && memcmp(input.data, signature, known) != 0)
        return ERR_INVALID;
    if (input.size > 12 && input.data[12] != COMMAND_LOCAL && input.data[12] != COMMAND_PROXY)
        return ERR_INVALID;
    if (input.size > 13 && input.data[12] == COMMAND_PROXY) {
        uint8_t family = input.data[13];
        if (family != FAMILY_UNSPEC && family != FAMILY_TCP4 && family != FAMILY_TCP6 &&
            family != FAMILY_UNIX_STREAM)
            return ERR_INVALID;
    }
    return OK;
}

static void peer_set(struct io_address *peer, uint8_t family, const uint8_t *addresses)
{
    if (family == FAMILY_TCP4) {
        memset(peer->ip, 0, 10);
        memset(peer->ip + 10, 0xff, 2);
        memcpy(peer->ip + 12, addresses, 4);
        peer->port = load_u16_network(addresses + 8);
    } else if (family == FAMILY_TCP6) {
        memcpy(peer->ip, addresses, 16);
        peer->port = load_u16_network(addresses + 32);
    }
}

enum err proxy_decode(struct bytes *input, struct io_address *peer)
{
    TRY(prefix_validate(*input));
    if (input->size < PREFIX_BYTES)
        return ERR_AGAIN;
    uint8_t command = input->data[12];
    uint8_t family = input->data[13];
    size_t rest = load_u16_network(input->data + 14);
    if (PREFIX_BYTES + rest > PROXY_HEADER_BYTES_MAX)
        return ERR_TOO_BIG;
    if (command == COMMAND_PROXY && rest < address_bytes(family))
        return ERR_INVALID;
    if (input->size < PREFIX_BYTES + rest)
        return ERR_AGAIN;
    if (command == COMMAND_PROXY)
        peer_set(peer, family, input->data + PREFIX_BYTES);
    *input = bytes_skip(*input, PREFIX_BYTES + rest);
    return OK;
}
