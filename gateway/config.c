/* config.c: the table of all keys, and its four uses: defaults, loading, checking, printing.
 * File:   INI as libinih reads it: "[section]", "key = value", comments after '#' or ';' at a
 *         line's start or after " ;". A key appears once; sections may be repeated.
 * Values: config_value.c, config_list.c. */
#include "gateway/config_value.h"

#include "core/file.h"
#include "core/memory.h"
#include "core/text.h"

#include <ini.h>
#include <stdarg.h>
#include <stdio.h>

#define FILE_BYTES_MAX  MIB
#define LINE_BYTES_MAX  (CONFIG_TEXT_BYTES + 256)
#define CONFIG_KEYS_MAX 96

#define FIELD(f)  offsetof(struct config, f), sizeof(((struct config *)NULL)->f)
#define UNBOUNDED 0, 0

static const struct config_key keys[] = {
    {"listen", "address", KIND_ADDRESS, FIELD(address), "[::]:8443", UNBOUNDED,
     "Where clients connect; [::] takes IPv4 too, 0.0.0.0 only IPv4."},
    {"listen", "admin_address", KIND_ADDRESS, FIELD(admin_address), "127.0.0.1:9443", UNBOUNDED,
     "Where /readyz and /metrics are served; keep it off the public network."},
    {"listen", "backlog", KIND_COUNT, FIELD(backlog), "4096", 1, 65535,
     "Connections that may wait in the kernel to be accepted, per shard."},
    {"listen", "proxy_sources", KIND_NETWORKS, FIELD(proxy_sources), "", UNBOUNDED,
     "Networks of load balancers that send a PROXY v2 header, like 10.0.0.0/8, fd00::/8; empty: "
     "none."},
    {"listen", "origins", KIND_ORIGINS, FIELD(origins), "", UNBOUNDED,
     "Origins of web pages that may connect and make REST calls (CORS), like https://chat.example; "
     "*: any, but then no token in a cookie counts; empty: only pages from this host."},
    {"tls", "certificate", KIND_TEXT, FIELD(certificate), "", UNBOUNDED,
     "PEM file, leaf first; empty: a self-signed certificate is made in the store's directory."},
    {"tls", "key", KIND_TEXT, FIELD(key), "", UNBOUNDED,
     "PEM file with the certificate's private key."},
    {"store", "directory", KIND_TEXT, FIELD(directory), "./data", UNBOUNDED,
     "Where everything that must last is kept."},
    {"store", "lane_directories", KIND_DIRECTORIES, FIELD(lane_directories), "", UNBOUNDED,
     "Directories of further lanes of the log, each best on a disk of its own, like /disk2/log, "
     "/disk3/log; the first lane is in directory. Up to 7; how many is settled when a store is "
     "made, where they are is not."},
    {"store", "segment_size", KIND_BYTES, FIELD(segment_bytes), "64 MiB", MIB, 2 * GIB,
     "Size of one file of the log; a multiple of 1 MiB."},
    {"store", "reserve_size", KIND_BYTES, FIELD(reserve_bytes), "256 MiB", 0, 1024 * GIB,
     "Sends are refused rather than leave less than this free on the disk."},
    {"store", "catalog_map_size", KIND_BYTES, FIELD(catalog_map_bytes), "16 GiB", 16 * MIB,
     16384 * GIB, "Address space for the catalog; it cannot grow beyond this."},
    {"store", "batch_size", KIND_BYTES, FIELD(batch_bytes), "4 MiB", 256 * KIB, 64 * MIB,
     "What is written and synced at once, at most."},
    {"store", "checkpoint_interval", KIND_MS, FIELD(checkpoint_interval_ms), "10 s", 100, MS_PER_H,
     "How often the catalog catches up with the log; a restart replays the rest."},
    {"store", "direct", KIND_BOOL, FIELD(direct), "yes", UNBOUNDED,
     "Write the log with O_DIRECT where the file system can."},
    {"store", "make_rate", KIND_BYTES, FIELD(make_rate), "4 MiB", 0, 64 * GIB,
     "A segment is made ahead so fast (per second) while little is sent, and as fast as the one "
     "before it fills otherwise; 0 B: at once."},
    {"store", "spare_segments", KIND_COUNT, FIELD(spare_segments), "2", 0, 16,
     "Freed segments that are kept to become the next ones; they are overwritten with zeros at "
     "make_rate, so what was in them is gone after that number of segments at that rate."},
    {"store", "merge_segments", KIND_COUNT, FIELD(merge_segments), "1", 1, 64,
     "Full segments that are merged into one archive, sorted by conversation, at a time, in the "
     "background, as soon as the checkpoint is past them: fewer make recent history cheaper to "
     "read, more write less."},
    {"store", "merge_inputs", KIND_COUNT, FIELD(merge_inputs), "16", 0, 64,
     "Archives that are merged into one larger one at a time; 0: nothing is merged, and nothing is "
     "ever purged."},
    {"store", "merge_rate", KIND_BYTES, FIELD(merge_rate), "64 MiB", 64 * KIB, 64 * GIB,
     "What merging reads and writes per second, at most; with merge_segments 1 about 7 times what "
     "is sent, so this is enough for 9 MB of it per second."},
    {"store", "archive_size", KIND_BYTES, FIELD(archive_bytes), "16 GiB", 16 * MIB, 16384 * GIB,
     "Archives are not merged into larger ones; merging needs as much free space for a while."},
    {"store", "compress", KIND_BOOL, FIELD(compress), "yes", UNBOUNDED,
     "Keep archives in zstd blocks where that saves at least an eighth."},
    {"store", "retention_age", KIND_S, FIELD(retention_age_s), "365 d", 0, 3153600000u,
     "Messages older than this are removed; 0 s: none is. Late by half of the time that their "
     "archive spans, at most."},
    {"store", "retention_age_max", KIND_S, FIELD(retention_age_max_s), "0 s", 0, 3153600000u,
     "A conversation's own retention may be this long; below retention_age: that long."},
    {"store", "retention_size", KIND_BYTES, FIELD(retention_bytes), "0 B", 0, 1048576 * GIB,
     "The oldest messages are removed while the log is larger; 0 B: none is."},
    {"store", "retention_delay", KIND_S, FIELD(retention_delay_s), "24 h", 0, 31536000,
     "What a conversation's own retention makes due is off the disk this long after its time, at "
     "most, and the time that merging takes; each file that has some is written anew so often."},
    {"store", "undelivered_age", KIND_S, FIELD(undelivered_age_s), "30 d", 0, 3153600000u,
     "Messages that a member's device has not got are kept this long whatever else says."},
    {"store", "expiry_delay", KIND_S, FIELD(expiry_delay_s), "24 h", 0, 31536000,
     "Disappearing messages are off the disk this long after their time, at most, and the time "
     "that merging takes; they are never served after it."},
    {"store", "repeat_age", KIND_S, FIELD(repeat_age_s), "24 h", 86400, 31536000,
     "A send is known by its id so long, and its repeat answered as it was first, although the "
     "message was removed before: its sender, id and time stay, about 120 bytes that "
     "retention_size does not count, and go from the disk with the last of their archive, "
     "expiry_delay later."},
    {"store", "trust_clock", KIND_BOOL, FIELD(trust_clock), "no", UNBOUNDED,
     "Confirm the wall clock: purge although it disagrees with the newest batch by more than an "
     "hour."},
    {"store", "cold_directory", KIND_TEXT, FIELD(cold_directory), "", UNBOUNDED,
     "Where old archives are kept, on cheaper disks; it must exist; empty: they stay."},
    {"store", "cold_age", KIND_S, FIELD(cold_age_s), "30 d", 1, 3153600000u,
     "Archives whose newest message is older move to cold_directory."},
    {"store", "lookup_memory", KIND_BYTES, FIELD(lookup_bytes), "64 MiB", 0, 64 * GIB,
     "Memory for where messages stand in segments and conversations in archives, the newest first, "
     "so that history reads no index there (4 B per message of a segment not merged yet; 21 B per "
     "conversation of each segment and archive)."},
    {"store", "scrub_rate", KIND_BYTES, FIELD(scrub_rate), "1 MiB", 0, 64 * GIB,
     "Segments and archives that are read and checked per second, round and round; 0 B: none are."},
    {"shards", "count", KIND_COUNT, FIELD(shards), "0", 0, 256,
     "Threads that serve connections; 0: one per CPU of this process."},
    {"shards", "pin", KIND_BOOL, FIELD(pin), "yes", UNBOUNDED, "Pin each shard to its CPU."},
    {"limits", "max_connections", KIND_COUNT, FIELD(max_connections), "100000", 1, 4000000,
     "Connections that are promised room; the next one is refused with a time to retry."},
    {"limits", "connections_per_address", KIND_COUNT, FIELD(connections_per_address), "64", 1,
     4000000,
     "Connections of one address (IPv6: of one /64) that have not upgraded to WebSocket yet."},
    {"limits", "upgrade_timeout", KIND_MS, FIELD(upgrade_timeout_ms), "10 s", 100, MS_PER_H,
     "From accept to the WebSocket upgrade or a complete request."},
    {"limits", "hello_timeout", KIND_MS, FIELD(hello_timeout_ms), "10 s", 100, MS_PER_H,
     "From the upgrade to an accepted token."},
    {"limits", "header_size", KIND_BYTES, FIELD(header_bytes), "8 KiB", 512, 64 * KIB,
     "Headers of one HTTP request."},
    {"limits", "header_fields", KIND_COUNT, FIELD(header_fields), "64", 8, 256,
     "Header fields of one HTTP request."},
    {"limits", "body_size", KIND_BYTES, FIELD(body_bytes), "64 KiB", KIB, 16 * MIB,
     "Body of one HTTP request."},
    {"limits", "message_size", KIND_BYTES, FIELD(message_bytes), "96 KiB", KIB, 16 * MIB,
     "One WebSocket message from a client, all fragments together."},
    {"limits", "fragments", KIND_COUNT, FIELD(fragments), "64", 1, 65535,
     "Fragments of one WebSocket message."},
    {"limits", "requests_per_frame", KIND_COUNT, FIELD(requests_per_frame), "64", 1, 1024,
     "Requests in one WebSocket message."},
    {"limits", "heartbeat", KIND_MS, FIELD(heartbeat_ms), "120 s", MS_PER_S, MS_PER_H,
     "Silence after which a connection is taken for dead, where the client asks for nothing else."},
    {"limits", "heartbeat_min", KIND_MS, FIELD(heartbeat_min_ms), "15 s", MS_PER_S, MS_PER_H,
     "Shortest heartbeat that a client may ask for."},
    {"limits", "heartbeat_max", KIND_MS, FIELD(heartbeat_max_ms), "600 s", MS_PER_S, MS_PER_H,
     "Longest heartbeat that a client may ask for."},
    {"limits", "devices_per_user", KIND_COUNT, FIELD(devices_per_user), "8", 1, 64,
     "Devices of one user that are logged in."},
    {"limits", "sends_per_second", KIND_COUNT, FIELD(sends_per_second), "50", 1, 1000000,
     "Messages per second from one device, sustained."},
    {"limits", "sends_burst", KIND_COUNT, FIELD(sends_burst), "200", 1, 1000000,
     "Messages that one device may send at once after a pause."},
    {"limits", "output_size", KIND_BYTES, FIELD(output_bytes), "256 KiB", 16 * KIB, 64 * MIB,
     "Unsent bytes of one connection before it falls back to catching up."},
    {"limits", "parked_requests", KIND_COUNT, FIELD(parked_requests), "4096", 1, 1000000,
     "Requests per shard that may wait: for state to load, or for the look-up of a send's id that "
     "may be a repeat; with several lanes half of it for look-ups and for room towards a lane."},
    {"limits", "state_size", KIND_BYTES, FIELD(state_bytes), "1 GiB", MIB, 1024 * GIB,
     "Memory for the state of users and conversations, over all shards."},
    {"limits", "cache_size", KIND_BYTES, FIELD(cache_bytes), "256 MiB", MIB, 1024 * GIB,
     "Memory for recent messages, over all shards."},
    {"limits", "mesh_ring_size", KIND_BYTES, FIELD(mesh_ring_bytes), "1 MiB", 256 * KIB, GIB,
     "One ring of messages between two shards, or a shard and a lane, a power of two; raised "
     "where message_size needs it."},
    {"auth", "issuer", KIND_TEXT, FIELD(issuer), "", UNBOUNDED,
     "Claim iss that tokens of your identity system must carry."},
    {"auth", "audience", KIND_TEXT, FIELD(audience), "", UNBOUNDED,
     "Claim aud that tokens of your identity system must carry."},
    {"auth", "jwks", KIND_TEXT, FIELD(jwks), "", UNBOUNDED,
     "File with the public keys (JWK Set) of your identity system; empty: none."},
    {"auth", "create_users", KIND_BOOL, FIELD(create_users), "no", UNBOUNDED,
     "Make a user when a token of your identity system names a new one."},
    {"auth", "registration", KIND_BOOL, FIELD(registration), "yes", UNBOUNDED,
     "Anybody may make an account with POST /users."},
    {"auth", "access_token", KIND_S, FIELD(access_token_s), "900 s", 10, 86400,
     "Life of an access token."},
    {"auth", "refresh_token", KIND_S, FIELD(refresh_token_s), "30 d", 60, 31536000,
     "Life of a refresh token, and how long a silent device counts as logged in."},
    {"auth", "hash_threads", KIND_COUNT, FIELD(hash_threads), "1", 1, 64,
     "Threads that hash passwords."},
    {"auth", "hash_queue", KIND_COUNT, FIELD(hash_queue), "64", 1, 65535,
     "Logins and registrations that may wait for hashing; the next gets 503 and Retry-After."},
    {"auth", "hash_memory", KIND_KIB, FIELD(hash_memory_kib), "19456 KiB", 8, 4194304,
     "Memory of one argon2id hash; an older password's hash is made anew at its next login."},
    {"auth", "hash_passes", KIND_COUNT, FIELD(hash_passes), "2", 1, 64,
     "Passes of one argon2id hash; an older password's hash is made anew at its next login."},
    {"log", "level", KIND_LEVEL, FIELD(log_level), "info", UNBOUNDED,
     "Least important line that is written: debug, info, warn or error."},
    {"log", "format", KIND_FORMAT, FIELD(log_format), "text", UNBOUNDED,
     "text (key=value) or json, one line per event, on standard error."},
    {"drain", "timeout", KIND_MS, FIELD(drain_ms), "5 s", 0, MS_PER_H,
     "After SIGTERM: time for clients to take their goodbye before the process ends."},
    {"bench", "echo", KIND_BOOL, FIELD(echo), "no", UNBOUNDED,
     "Serve /echo, which answers every message with itself; for conformance suites only."},
    {"bench", "unsafe_skip_sync", KIND_BOOL, FIELD(unsafe_skip_sync), "no", UNBOUNDED,
     "Acknowledge without syncing the disk: loses messages; the crash tests' negative control."},
};

_Static_assert(COUNT_OF(keys) <= CONFIG_KEYS_MAX, "a loader has a line number per key");

/* ---- loading */

struct loader {
    struct config *config;
    const char *path;
    struct bytes rest; /* of the file */
    uint32_t line;
    uint32_t lines[CONFIG_KEYS_MAX]; /* where each key was set, 0: not yet */
    bool failed;
    char *explanation;
    size_t explanation_size;
};

/* loader_fail: the first failure is kept. Returns 0: libinih's "stop". */
static int loader_fail(struct loader *l, uint32_t line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static int loader_fail(struct loader *l, uint32_t line, const char *format, ...)
{
    if (l->failed)
        return 0;
    l->failed = true;
    char text[CONFIG_TEXT_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (line == 0)
        snprintf(l->explanation, l->explanation_size, "%s: %s", l->path, text);
    else
        snprintf(l->explanation, l->explanation_size, "%s:%u: %s", l->path, line, text);
    return 0;
}

static int loader_fail_value(struct loader *l, const struct config_key *key, enum err err,
                             const char *value)
{
    if (err == ERR_TOO_BIG && key->max != 0) {
        char min[VALUE_TEXT_MAX], max[VALUE_TEXT_MAX];
        config_value_format(min, key, key->min);
        config_value_format(max, key, key->max);
        return loader_fail(l, l->line, "%s = %.64s is out of bounds: write %s to %s", key->name,
                           value, min, max);
    }
    if (err == ERR_TOO_BIG)
        return loader_fail(l, l->line, "%s is too long: write at most %u bytes", key->name,
                           CONFIG_TEXT_BYTES - 1);
    return loader_fail(l, l->line, "%s = %.64s is not understood: write %s", key->name, value,
                       config_value_expects(key->kind));
}

static int on_key(void *context, const char *section, const char *name, const char *value)
{
    struct loader *l = context;
    bool section_known = false;
    if (l->failed)
        return 0;
    for (size_t i = 0; i < COUNT_OF(keys); i++) {
        if (strcmp(keys[i].section, section) != 0)
            continue;
        section_known = true;
        if (strcmp(keys[i].name, name) != 0)
            continue;
        if (l->lines[i] != 0)
            return loader_fail(l, l->line, "%s was set in line %u already: remove one of the two",
                               name, l->lines[i]);
        l->lines[i] = l->line;
        enum err err = config_value_set(l->config, &keys[i], value);
        return err == OK ? 1 : loader_fail_value(l, &keys[i], err, value);
    }
    if (section[0] == '\0')
        return loader_fail(l, l->line, "key \"%.64s\" stands before any [section]: move it", name);
    if (!section_known)
        return loader_fail(l, l->line,
                           "unknown section [%.64s]: remove it (`roost check-config` "
                           "prints all that exist)",
                           section);
    return loader_fail(l, l->line,
                       "unknown key \"%.64s\" in [%.64s]: remove it (`roost check-config` prints "
                       "all that exist)",
                       name, section);
}

/* read_line: fgets over the loaded bytes; counts lines, because libinih's handler is not told
 * them. */
static char *read_line(char *out, int capacity, void *context)
{
    struct loader *l = context;
    if (l->rest.size == 0 || l->failed)
        return NULL;
    l->line++;
    const uint8_t *end = memchr(l->rest.data, '\n', l->rest.size);
    size_t size = end != NULL ? (size_t)(end - l->rest.data) + 1 : l->rest.size;
    if (memchr(l->rest.data, '\0', size) != NULL) {
        loader_fail(l, l->line, "contains a zero byte: write the file as plain text");
        return NULL;
    }
    if (size >= (size_t)capacity) {
        loader_fail(l, l->line, "line is too long: write at most %d bytes", capacity - 1);
        return NULL;
    }
    memcpy(out, l->rest.data, size);
    out[size] = '\0';
    l->rest = bytes_skip(l->rest, size);
    return out;
}

static uint32_t line_of(const struct loader *l, const char *section, const char *name)
{
    for (size_t i = 0; i < COUNT_OF(keys); i++) {
        if (strcmp(keys[i].section, section) == 0 && strcmp(keys[i].name, name) == 0)
            return l->lines[i];
    }
    CHECK(section == NULL); /* no such key in the table */
    return 0;
}

/* line_of_last: where the last of some keys of one section, up to a NULL, was set. */
static uint32_t line_of_last(const struct loader *l, const char *section, const char *const *names)
{
    uint32_t last = 0;
    for (; *names != NULL; names++) {
        uint32_t line = line_of(l, section, *names);
        last = line > last ? line : last;
    }
    return last;
}

#define LINE_OF_LAST(l, section, ...)                                                              \
    line_of_last(l, section, (const char *const[]){__VA_ARGS__, NULL})

/* check_together: what one key's bounds cannot say. */
static void check_together(struct loader *l)
{
    const struct config *c = l->config;
    if ((c->certificate[0] == '\0') != (c->key[0] == '\0')) {
        uint32_t line = LINE_OF_LAST(l, "tls", "certificate", "key");
        loader_fail(l, line, "[tls] certificate and key belong together: set both, or neither");
    }
    if (c->jwks[0] != '\0' && (c->issuer[0] == '\0' || c->audience[0] == '\0'))
        loader_fail(l, line_of(l, "auth", "jwks"),
                    "[auth] jwks needs issuer and audience: set both, so that tokens made for "
                    "others are refused");
    if (c->directory[0] == '\0')
        loader_fail(l, line_of(l, "store", "directory"), "[store] directory is empty: name one");
    if (c->segment_bytes % MIB != 0)
        loader_fail(l, line_of(l, "store", "segment_size"),
                    "segment_size is not a multiple of 1 MiB: round it");
    if (c->segment_bytes < c->batch_bytes + MIB)
        loader_fail(l, LINE_OF_LAST(l, "store", "segment_size", "batch_size"),
                    "segment_size must be at least 1 MiB above batch_size: raise it");
    uint32_t message_line = line_of(l, "limits", "message_size");
    uint32_t batch_line = line_of(l, "store", "batch_size");
    if (c->batch_bytes < 2ull * c->message_bytes)
        loader_fail(l, message_line > batch_line ? message_line : batch_line,
                    "a message must fit twice into [store] batch_size: lower message_size or "
                    "raise batch_size");
    if ((c->mesh_ring_bytes & (c->mesh_ring_bytes - 1)) != 0)
        loader_fail(l, line_of(l, "limits", "mesh_ring_size"),
                    "mesh_ring_size must be a power of two: round it");
    if (c->heartbeat_ms < c->heartbeat_min_ms || c->heartbeat_ms > c->heartbeat_max_ms)
        loader_fail(l, LINE_OF_LAST(l, "limits", "heartbeat", "heartbeat_min", "heartbeat_max"),
                    "heartbeat must lie between heartbeat_min and heartbeat_max: change one");
    if (c->refresh_token_s <= c->access_token_s)
        loader_fail(l, LINE_OF_LAST(l, "auth", "refresh_token", "access_token"),
                    "refresh_token must live longer than access_token: raise it");
}

static void parse(struct loader *l)
{
    /* libinih's settings are process-wide; these are the only ones that any part here uses. */
    ini_max_line = LINE_BYTES_MAX;
    ini_allow_multiline = false;
    int line = ini_parse_stream(read_line, l, on_key, l);
    if (line > 0)
        loader_fail(l, (uint32_t)line, "is neither [section], key = value nor a comment");
    else if (line < 0)
        loader_fail(l, 0, "could not be read: out of memory");
    if (!l->failed)
        check_together(l);
}

static enum err file_load(struct bytes *out, const char *path)
{
    int fd;
    uint64_t size = 0;
    TRY(file_open(&fd, path, FILE_READ));
    enum err err = file_size(fd, &size);
    if (err == OK && size > FILE_BYTES_MAX)
        err = ERR_TOO_BIG;
    uint8_t *data = NULL;
    size_t done = 0;
    if (err == OK && (data = memory_take((size_t)size + 1, MEMORY_API)) == NULL)
        err = ERR_NO_MEMORY;
    if (err == OK)
        err = file_read(fd, 0, data, (size_t)size, &done);
    file_close(fd);
    if (err != OK) {
        memory_give(data, MEMORY_API);
        return err;
    }
    *out = bytes_of(data, done);
    return OK;
}

void config_defaults(struct config *config)
{
    memset(config, 0, sizeof *config);
    for (size_t i = 0; i < COUNT_OF(keys); i++) {
        enum err err = config_value_set(config, &keys[i], keys[i].initial);
        CHECK(err == OK);
    }
}

enum err config_load(struct config *config, const char *path, char *explanation,
                     size_t explanation_size)
{
    config_defaults(config);
    if (path == NULL)
        return OK;
    struct loader loader = {.config = config,
                            .path = path,
                            .explanation = explanation,
                            .explanation_size = explanation_size};
    enum err err = file_load(&loader.rest, path);
    if (err != OK) {
        loader_fail(&loader, 0, "cannot be read (%s): check the path and its rights",
                    err_name(err));
        return err;
    }
    const uint8_t *data = loader.rest.data;
    parse(&loader);
    memory_give((void *)(uintptr_t)data, MEMORY_API);
    return loader.failed ? ERR_INVALID : OK;
}

/* ---- printing */

static enum err put(struct buffer *out, const char *text)
{
    return buffer_append(out, bytes_of_text(text));
}

static enum err put_key(struct buffer *out, const struct config *config,
                        const struct config_key *key)
{
    char line[512];
    TRY(put(out, "# "));
    TRY(put(out, key->meaning));
    if (key->max != 0) {
        char min[VALUE_TEXT_MAX], max[VALUE_TEXT_MAX];
        config_value_format(min, key, key->min);
        config_value_format(max, key, key->max);
        snprintf(line, sizeof line, "\n# %s; %s to %s; default: %s\n",
                 config_value_expects(key->kind), min, max, key->initial);
    } else {
        snprintf(line, sizeof line, "\n# %s; default: %s\n", config_value_expects(key->kind),
                 key->initial[0] == '\0' ? "empty" : key->initial);
    }
    TRY(put(out, line));
    TRY(put(out, key->name));
    TRY(put(out, " = "));
    TRY(config_value_put(out, config, key));
    return put(out, "\n");
}

enum err config_format(struct buffer *out, const struct config *config)
{
    TRY(put(out, "# roost's configuration: every key with its meaning, what may be written, and "
                 "its default.\n"));
    for (size_t i = 0; i < COUNT_OF(keys); i++) {
        if (i == 0 || strcmp(keys[i].section, keys[i - 1].section) != 0) {
            TRY(put(out, "\n["));
            TRY(put(out, keys[i].section));
            TRY(put(out, "]\n"));
        }
        TRY(put_key(out, config, &keys[i]));
    }
    return OK;
}

void config_print(const struct config *config)
{
    uint8_t *data = memory_take(CONFIG_FILE_BYTES, MEMORY_API);
    struct buffer out = buffer_of(data, data != NULL ? CONFIG_FILE_BYTES : 0);
    if (config_format(&out, config) == OK)
        fwrite(out.data, 1, out.size, stdout);
    memory_give(data, MEMORY_API);
}
