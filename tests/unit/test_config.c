/* test_config.c: every key's path through defaults, file, bounds and printing. */
#include "gateway/config.h"

#include "core/file.h"
#include "tests/unit/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char directory[] = "/tmp/test_config_XXXXXX";
static char path[64];
static char explanation[1024];

static int setup(void **state)
{
    (void)state;
    if (mkdtemp(directory) == NULL)
        return -1;
    snprintf(path, sizeof path, "%s/roost.ini", directory);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(directory);
}

static enum err load_bytes(struct config *config, const void *data, size_t size)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    fclose(file);
    explanation[0] = '\0';
    return config_load(config, path, explanation, sizeof explanation);
}

static enum err load(struct config *config, const char *text)
{
    return load_bytes(config, text, strlen(text));
}

/* refused: loading text fails at that line with words in the explanation. */
static void refused(const char *text, unsigned line, const char *words)
{
    struct config config;
    char place[96];
    assert_int_equal(load(&config, text), ERR_INVALID);
    snprintf(place, sizeof place, "%s:%u: ", path, line);
    if (strncmp(explanation, place, strlen(place)) != 0 || strstr(explanation, words) == NULL)
        fail_msg("explanation \"%s\" does not start with \"%s\" or lacks \"%s\"", explanation,
                 place, words);
}

static void test_defaults(void **state)
{
    struct config c;
    (void)state;
    config_defaults(&c);
    assert_string_equal(c.address, "[::]:8443");
    assert_string_equal(c.admin_address, "127.0.0.1:9443");
    assert_string_equal(c.directory, "./data");
    assert_string_equal(c.certificate, "");
    assert_int_equal(c.segment_bytes, 64u << 20);
    assert_int_equal(c.reserve_bytes, 256u << 20);
    assert_int_equal(c.catalog_map_bytes, 16ull << 30);
    assert_int_equal(c.batch_bytes, 4u << 20);
    assert_int_equal(c.checkpoint_interval_ms, 10000);
    assert_int_equal(c.shards, 0);
    assert_true(c.pin);
    assert_int_equal(c.max_connections, 100000);
    assert_int_equal(c.connections_per_address, 64);
    assert_int_equal(c.upgrade_timeout_ms, 10000);
    assert_int_equal(c.hello_timeout_ms, 10000);
    assert_int_equal(c.header_bytes, 8192);
    assert_int_equal(c.header_fields, 64);
    assert_int_equal(c.body_bytes, 65536);
    assert_int_equal(c.message_bytes, 96 * 1024);
    assert_int_equal(c.fragments, 64);
    assert_int_equal(c.requests_per_frame, 64);
    assert_int_equal(c.heartbeat_ms, 120000);
    assert_int_equal(c.heartbeat_min_ms, 15000);
    assert_int_equal(c.heartbeat_max_ms, 600000);
    assert_int_equal(c.devices_per_user, 8);
    assert_int_equal(c.sends_per_second, 50);
    assert_int_equal(c.sends_burst, 200);
    assert_int_equal(c.output_bytes, 256 * 1024);
    assert_int_equal(c.parked_requests, 4096);
    assert_int_equal(c.state_bytes, 1u << 30);
    assert_int_equal(c.cache_bytes, 256u << 20);
    assert_int_equal(c.mesh_ring_bytes, 1u << 20);
    assert_int_equal(c.access_token_s, 900);
    assert_int_equal(c.refresh_token_s, 30 * 86400);
    assert_int_equal(c.hash_threads, 1);
    assert_int_equal(c.hash_queue, 64);
    assert_int_equal(c.hash_memory_kib, 19456);
    assert_int_equal(c.hash_passes, 2);
    assert_int_equal(c.drain_ms, 5000);
    assert_int_equal(c.log_level, LOG_INFO);
    assert_int_equal(c.log_format, LOG_KEY_VALUE);
    assert_true(c.registration);
    assert_false(c.create_users);
    assert_false(c.echo);
}

static void test_no_file_is_defaults(void **state)
{
    static struct config a, b; /* large */
    (void)state;
    config_defaults(&a);
    memset(&b, 0xff, sizeof b);
    assert_int_equal(config_load(&b, NULL, explanation, sizeof explanation), OK);
    assert_memory_equal(&a, &b, sizeof a);
    assert_int_equal(load(&b, ""), OK);
    assert_memory_equal(&a, &b, sizeof a);
}

static void test_values(void **state)
{
    struct config c;
    (void)state;
    assert_int_equal(load(&c, "\xef\xbb\xbf# a comment\r\n"
                              "[listen]\r\n"
                              "address = 0.0.0.0:443 ; inline\r\n"
                              "[limits]\n"
                              "body_size = 2KiB\n"
                              "message_size = 131072\n"
                              "heartbeat = 2 min\n"
                              "hello_timeout=1500ms\n"
                              "[auth]\n"
                              "refresh_token = 1 h\n"
                              "hash_memory = 64 MiB\n"
                              "[limits]\n"
                              "fragments = 7\n"
                              "[log]\nlevel = debug\nformat = json\n"
                              "[bench]\necho = yes"),
                     OK);
    assert_string_equal(c.address, "0.0.0.0:443");
    assert_int_equal(c.body_bytes, 2048);
    assert_int_equal(c.message_bytes, 131072);
    assert_int_equal(c.heartbeat_ms, 120000);
    assert_int_equal(c.hello_timeout_ms, 1500);
    assert_int_equal(c.refresh_token_s, 3600);
    assert_int_equal(c.hash_memory_kib, 65536);
    assert_int_equal(c.fragments, 7);
    assert_int_equal(c.log_level, LOG_DEBUG);
    assert_int_equal(c.log_format, LOG_JSON);
    assert_true(c.echo);
}

static void test_long_value(void **state)
{
    struct config c;
    char text[2048] = "[auth]\nissuer = ";
    (void)state;
    size_t at = strlen(text);
    memset(text + at, 'o', CONFIG_TEXT_BYTES - 1);
    assert_int_equal(load(&c, text), OK);
    assert_int_equal(strlen(c.issuer), CONFIG_TEXT_BYTES - 1);
    text[at + CONFIG_TEXT_BYTES - 1] = 'o';
    refused(text, 2, "at most 1023 bytes");
    memset(text + at, 'o', CONFIG_TEXT_BYTES + 500);
    refused(text, 2, "line is too long");
}

static void test_unknown(void **state)
{
    (void)state;
    refused("[limits]\nmax_conections = 5\n", 2, "unknown key \"max_conections\"");
    refused("\n\n[limit]\nmax_connections = 5\n", 4, "unknown section [limit]");
    refused("max_connections = 5\n", 1, "before any [section]");
    refused("[limits]\n# fine\nnonsense\n", 3, "neither [section]");
    refused("[limits\n", 1, "neither [section]");
    refused("[store]\nmax_connections = 5\n", 2, "unknown key");
}

static void test_duplicate(void **state)
{
    (void)state;
    refused("[limits]\nfragments = 5\n[log]\n[limits]\nfragments = 5\n", 5, "set in line 2");
}

static void test_origins(void **state)
{
    struct config c;
    (void)state;
    assert_int_equal(load(&c, "[listen]\norigins = *\n"), OK);
    assert_false(origins_contain(c.origins, bytes_of_text("https://a.example")));
    assert_int_equal(load(&c, "[listen]\norigins = https://a.example,http://[::1]:80 , app://x\n"),
                     OK);
    assert_true(origins_contain(c.origins, bytes_of_text("https://a.example")));
    assert_true(origins_contain(c.origins, bytes_of_text("http://[::1]:80")));
    assert_true(origins_contain(c.origins, bytes_of_text("app://x")));
    assert_false(origins_contain(c.origins, bytes_of_text("https://a.example:443")));
    assert_false(origins_contain(c.origins, bytes_of_text("")));
    static const char *const wrong[] = {
        "chat.example",       "https://", "https://a.example/", "https://a.example/chat",
        "https://A.example",  "null",     "https//a",           "*, https://a.example",
        "https://*.a.example"};
    for (size_t i = 0; i < COUNT_OF(wrong); i++) {
        char text[128];
        snprintf(text, sizeof text, "[listen]\norigins = %s\n", wrong[i]);
        refused(text, 2, "origins separated by commas");
    }
}

static void test_lane_directories(void **state)
{
    struct config c;
    (void)state;
    assert_int_equal(load(&c, "[store]\nlane_directories = /disk2/log,/disk3/log , /d\n"), OK);
    struct bytes list = bytes_of_text(c.lane_directories);
    struct bytes one;
    assert_true(list_next(&one, &list) && bytes_equal(one, bytes_of_text("/disk2/log")));
    assert_true(list_next(&one, &list) && bytes_equal(one, bytes_of_text("/disk3/log")));
    assert_true(list_next(&one, &list) && bytes_equal(one, bytes_of_text("/d")));
    assert_false(list_next(&one, &list));
    refused("[store]\nlane_directories = disk2/log\n", 2, "begin with /");
    refused("[store]\nlane_directories = /\n", 2, "begin with /");
    refused("[store]\nlane_directories = /1 /2 /3 /4 /5 /6 /7 /8\n", 2, "up to 7");
}

static void test_wrong_type(void **state)
{
    (void)state;
    refused("[tls]\ncertificate = a\nkey =;b\n", 3, "semicolon");
    refused("[shards]\npin = true\n", 2, "yes or no");
    refused("[limits]\nfragments = five\n", 2, "a whole number");
    refused("[limits]\nfragments = -5\n", 2, "a whole number");
    refused("[limits]\nfragments = 5 KiB\n", 2, "a whole number");
    refused("[limits]\nfragments =\n", 2, "a whole number");
    refused("[limits]\nbody_size = 5 KB\n", 2, "a size");
    refused("[limits]\nbody_size = KiB\n", 2, "a size");
    refused("[limits]\nheartbeat = 60\n", 2, "a time with its unit");
    refused("[limits]\nheartbeat = 1 fortnight\n", 2, "a time with its unit");
    refused("[auth]\naccess_token = 15500 ms\n", 2, "a time of whole seconds");
    refused("[auth]\nhash_memory = 1000 B\n", 2, "whole KiB");
    refused("[listen]\naddress = localhost\n", 2, "an address with a port");
    refused("[listen]\naddress =\n", 2, "an address with a port");
    refused("[listen]\nproxy_sources = 10.0.0.0/33\n", 2, "networks");
    refused("[log]\nlevel = loud\n", 2, "debug, info");
    refused("[log]\nformat = xml\n", 2, "text or json");
    refused("[auth]\nissuer = \xff\n", 2, "UTF-8");
}

static void test_bounds(void **state)
{
    struct config c;
    (void)state;
    refused("[limits]\nfragments = 0\n", 2, "write 1 to 65535");
    refused("[limits]\nfragments = 65536\n", 2, "write 1 to 65535");
    refused("[limits]\nfragments = 99999999999999999999999\n", 2, "");
    refused("[limits]\nbody_size = 17 MiB\n", 2, "write 1 KiB to 16 MiB");
    refused("[limits]\nbody_size = 17179869184 GiB\n", 2, "out of bounds");
    refused("[limits]\nheartbeat = 500 ms\n", 2, "write 1 s to 1 h");
    assert_int_equal(load(&c, "[limits]\nfragments = 65535\nbody_size = 16 MiB\n"), OK);
}

static void test_together(void **state)
{
    (void)state;
    refused("[tls]\ncertificate = a.pem\n", 2, "belong together");
    refused("[tls]\n\nkey = a.pem\n", 3, "belong together");
    refused("[auth]\njwks = keys.json\nissuer = me\n", 2, "issuer and audience");
    refused("[store]\nsegment_size = 65537 KiB\n", 2, "multiple of 1 MiB");
    refused("[store]\nbatch_size = 64 MiB\n", 2, "above batch_size");
    refused("[limits]\nmessage_size = 3 MiB\n", 2, "fit twice");
    refused("[limits]\nheartbeat = 60 s\nheartbeat_min = 61 s\n", 3, "between");
    refused("[limits]\nmesh_ring_size = 3 MiB\n", 2, "power of two");
    refused("[limits]\nheartbeat = 10 s\n", 2, "between");
    refused("[auth]\naccess_token = 1 h\nrefresh_token = 1 h\n", 3, "longer");
    refused("[store]\ndirectory =\n", 2, "empty");
}

static void test_bytes_that_are_no_text(void **state)
{
    struct config c;
    (void)state;
    assert_int_equal(load_bytes(&c, "[log]\nlevel = in\0fo\n", 20), ERR_INVALID);
    assert_non_null(strstr(explanation, ":2: contains a zero byte"));
}

static void test_missing_file(void **state)
{
    struct config c;
    (void)state;
    assert_int_equal(config_load(&c, "/nonexistent/roost.ini", explanation, sizeof explanation),
                     ERR_NOT_FOUND);
    assert_non_null(strstr(explanation, "/nonexistent/roost.ini: cannot be read"));
}

/* printed: config's file, loaded again, is config. */
static void printed(const struct config *config)
{
    static uint8_t text[CONFIG_FILE_BYTES];
    static struct config again; /* large */
    struct buffer out = buffer_of(text, sizeof text);
    assert_int_equal(config_format(&out, config), OK);
    enum err err = load_bytes(&again, text, out.size);
    if (err != OK)
        fail_msg("%s\n%.*s", explanation, (int)out.size, (char *)text);
    assert_memory_equal(config, &again, sizeof again);
}

static void test_print_defaults(void **state)
{
    struct config c;
    (void)state;
    config_defaults(&c);
    printed(&c);
}

static void test_print_changed(void **state)
{
    struct config c;
    (void)state;
    assert_int_equal(load(&c, "[listen]\naddress = [2001:db8::1]:1\nbacklog = 3\n"
                              "proxy_sources = 10.0.0.0/8, ::1\norigins = https://a.example\n"
                              "[tls]\ncertificate = c\nkey = k\n"
                              "[store]\ndirectory = /var/lib/roost\nsegment_size = 65 MiB\n"
                              "direct = no\ncheckpoint_interval = 1500 ms\n"
                              "[shards]\ncount = 7\npin = no\n"
                              "[limits]\nbody_size = 1025\nheartbeat = 61 s\n"
                              "[auth]\njwks = j\nissuer = i\naudience = a b\n"
                              "refresh_token = 90061 s\nhash_memory = 9 KiB\nregistration = no\n"
                              "create_users = yes\n[log]\nlevel = error\nformat = json\n"
                              "[drain]\ntimeout = 0 s\n[bench]\necho = yes\n"),
                     OK);
    printed(&c);
}

static void test_print_longest_fits(void **state)
{
    static uint8_t text[CONFIG_FILE_BYTES];
    struct buffer out = buffer_of(text, sizeof text);
    struct config c;
    (void)state;
    config_defaults(&c);
    char *const texts[] = {c.proxy_sources, c.origins, c.certificate, c.key,
                           c.directory,     c.issuer,  c.audience,    c.jwks};
    for (size_t i = 0; i < COUNT_OF(texts); i++)
        memset(texts[i], 'x', CONFIG_TEXT_BYTES - 1);
    assert_int_equal(config_format(&out, &c), OK);
    struct buffer small = buffer_of(text, 1000);
    assert_int_equal(config_format(&small, &c), ERR_FULL);
}

static void test_networks(void **state)
{
    struct bytes list = bytes_of_text(" 10.1.0.0/20 ,2001:db8::/33,192.0.2.7");
    struct network n;
    uint8_t ip[16] = {[10] = 0xff, [11] = 0xff, [12] = 10, [13] = 1, [14] = 15, [15] = 255};
    (void)state;
    assert_int_equal(network_next(&n, &list), OK);
    assert_true(network_contains(&n, ip));
    ip[14] = 16;
    assert_false(network_contains(&n, ip));
    assert_int_equal(network_next(&n, &list), OK);
    uint8_t six[16] = {0x20, 0x01, 0x0d, 0xb8, 0x7f};
    assert_true(network_contains(&n, six));
    six[4] = 0x80;
    assert_false(network_contains(&n, six));
    assert_int_equal(network_next(&n, &list), OK);
    assert_int_equal(n.bits, 128);
    assert_int_equal(network_next(&n, &list), ERR_NOT_FOUND);
    static const char *const bad[] = {"10.0.0.0/33", "::/129", "x",         "1.2.3.4/",
                                      "1.2.3.4/a",   ",",      "1.2.3.4/-1"};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        list = bytes_of_text(bad[i]);
        assert_int_equal(network_next(&n, &list), ERR_INVALID);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),      cmocka_unit_test(test_no_file_is_defaults),
        cmocka_unit_test(test_values),        cmocka_unit_test(test_long_value),
        cmocka_unit_test(test_unknown),       cmocka_unit_test(test_duplicate),
        cmocka_unit_test(test_origins),       cmocka_unit_test(test_lane_directories),
        cmocka_unit_test(test_wrong_type),    cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_together),      cmocka_unit_test(test_bytes_that_are_no_text),
        cmocka_unit_test(test_missing_file),  cmocka_unit_test(test_print_defaults),
        cmocka_unit_test(test_print_changed), cmocka_unit_test(test_print_longest_fits),
        cmocka_unit_test(test_networks),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
