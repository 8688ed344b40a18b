/* config_list.c: settings that are lists: networks, origins, directories. */
#include "gateway/config_value.h"

#include "core/text.h"

#include <arpa/inet.h>

bool list_next(struct bytes *element, struct bytes *list)
{
    while (list->size != 0 && strchr(", \t", list->data[0]) != NULL)
        *list = bytes_skip(*list, 1);
    size_t size = 0;
    while (size < list->size && strchr(", \t", list->data[size]) == NULL)
        size++;
    *element = bytes_of(list->data, size);
    *list = bytes_skip(*list, size);
    return size != 0;
}

/* ---- networks */

static enum err network_parse(struct network *network, struct bytes text)
{
    char ip[64];
    uint64_t bits;
    const uint8_t *slash = text.size != 0 ? memchr(text.data, '/', text.size) : NULL;
    size_t size = slash != NULL ? (size_t)(slash - text.data) : text.size;
    if (size == 0 || size >= sizeof ip)
        return ERR_INVALID;
    memcpy(ip, text.data, size);
    ip[size] = '\0';
    bool v4 = inet_pton(AF_INET, ip, network->ip + 12) == 1;
    if (v4)
        memcpy(network->ip, "\0\0\0\0\0\0\0\0\0\0\xff\xff", 12);
    else if (inet_pton(AF_INET6, ip, network->ip) != 1)
        return ERR_INVALID;
    uint64_t bits_max = v4 ? 32 : 128;
    bits = bits_max;
    if (slash != NULL)
        TRY(decimal_parse(&bits, bytes_skip(text, size + 1)));
    if (bits > bits_max)
        return ERR_INVALID;
    network->bits = (uint8_t)(v4 ? 96 + bits : bits);
    return OK;
}

enum err network_next(struct network *network, struct bytes *list)
{
    struct bytes rest = text_trim(*list);
    if (rest.size == 0)
        return ERR_NOT_FOUND;
    const uint8_t *comma = memchr(rest.data, ',', rest.size);
    size_t size = comma != NULL ? (size_t)(comma - rest.data) : rest.size;
    *list = bytes_skip(rest, comma != NULL ? size + 1 : size);
    return network_parse(network, text_trim(bytes_of(rest.data, size)));
}

bool network_contains(const struct network *network, const uint8_t ip[16])
{
    size_t whole = network->bits / 8;
    if (memcmp(network->ip, ip, whole) != 0)
        return false;
    unsigned rest = network->bits % 8;
    return rest == 0 || ((network->ip[whole] ^ ip[whole]) >> (8 - rest)) == 0;
}

/* ---- origins */

bool origins_contain(const char *origins, struct bytes origin)
{
    struct bytes list = bytes_of_text(origins);
    struct bytes one;
    while (list_next(&one, &list))
        if (bytes_equal(one, origin))
            return true;
    return false;
}

/* ---- checks */

enum err config_networks_validate(const char *text)
{
    struct bytes list = bytes_of_text(text);
    struct network network;
    enum err err;
    while ((err = network_next(&network, &list)) == OK) {
    }
    return err == ERR_NOT_FOUND ? OK : err;
}

/* origin_check: scheme "://" host [ ":" port ], as browsers write it (RFC 6454 6.2): lower case,
 * without a path. Another form would never be equal to one. */
static enum err origin_check(struct bytes origin)
{
    size_t at = 0;
    while (at < origin.size &&
           strchr("abcdefghijklmnopqrstuvwxyz0123456789+-.", origin.data[at]) != NULL)
        at++;
    if (at == 0 || origin.size - at < 4 || memcmp(origin.data + at, "://", 3) != 0)
        return ERR_INVALID;
    for (at += 3; at < origin.size; at++)
        if (strchr("abcdefghijklmnopqrstuvwxyz0123456789-._~:[]%", origin.data[at]) == NULL)
            return ERR_INVALID;
    return OK;
}

enum err config_origins_validate(const char *text)
{
    struct bytes list = bytes_of_text(text);
    struct bytes origin;
    if (strcmp(text, "*") == 0)
        return OK;
    while (list_next(&origin, &list))
        TRY(origin_check(origin));
    return OK;
}

enum err config_directories_validate(const char *text)
{
    struct bytes list = bytes_of_text(text);
    struct bytes directory;
    uint32_t count = 0;
    while (list_next(&directory, &list))
        if (directory.size < 2 || directory.data[0] != '/' || ++count > CONFIG_LANE_DIRECTORIES_MAX)
            return ERR_INVALID;
    return OK;
}
