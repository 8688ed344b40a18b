/* config.h: the configuration file (INI, read by libinih): every key, its unit, default and bounds
 * in one table (config.c). A field's key is its name, with _bytes written _size and the unit of a
 * time left out, because values carry their units ("64 MiB", "10 s").
 * Owns:       nothing; values are copied into struct config
 * Invariants: a loaded struct config is complete and within bounds; constant afterwards
 * Failure:    config_load: ERR_INVALID with "file:line: what is wrong and what to do"
 * Bounds:     a file up to 1 MiB, a value up to CONFIG_TEXT_BYTES - 1 bytes */
#ifndef GATEWAY_CONFIG_H
#define GATEWAY_CONFIG_H

#include "core/io.h"
#include "core/logging.h"

#define CONFIG_TEXT_BYTES 1024

struct config {
    /* [listen] */
    char address[CONFIG_TEXT_BYTES];       /* "0.0.0.0:8443" */
    char admin_address[CONFIG_TEXT_BYTES]; /* "127.0.0.1:9443" */
    uint32_t backlog;
    char proxy_sources[CONFIG_TEXT_BYTES]; /* comma-separated networks that send PROXY v2; "": none
                                            */
    char origins[CONFIG_TEXT_BYTES]; /* comma-separated allowed Origins; "*": any; "": same host
                                        only */
    /* [tls] */
    char certificate[CONFIG_TEXT_BYTES];
    char key[CONFIG_TEXT_BYTES];
    /* [store] */
    char directory[CONFIG_TEXT_BYTES];        /* "./data" */
    char lane_directories[CONFIG_TEXT_BYTES]; /* comma-separated; "": the log has one lane */
    uint64_t segment_bytes;
    uint64_t reserve_bytes;
    uint64_t catalog_map_bytes;
    uint32_t batch_bytes;
    uint32_t checkpoint_interval_ms;
    bool direct;
    uint64_t make_rate; /* per second, at least */
    uint32_t spare_segments;
    uint32_t merge_segments;
    uint32_t merge_inputs;
    uint64_t merge_rate;    /* per second */
    uint64_t archive_bytes; /* archives that large are not merged further */
    bool compress;
    uint32_t retention_age_s;     /* 0: for ever */
    uint32_t retention_age_max_s; /* bounds what a conversation's own may be */
    uint64_t retention_bytes;     /* 0: no bound */
    uint32_t retention_delay_s;   /* of what a conversation's own retention makes due */
    uint32_t undelivered_age_s;
    uint32_t expiry_delay_s;
    uint32_t repeat_age_s; /* of what was removed the id is known so long */
    bool trust_clock;
    char cold_directory[CONFIG_TEXT_BYTES]; /* "": none */
    uint32_t cold_age_s;
    uint64_t lookup_bytes;
    uint64_t scrub_rate; /* bytes per second */
    /* [shards] */
    uint32_t shards; /* 0: one per CPU of the process's affinity */
    bool pin;
    /* [limits] */
    uint32_t max_connections;
    uint32_t connections_per_address; /* not yet upgraded */
    uint32_t upgrade_timeout_ms;
    uint32_t hello_timeout_ms;
    uint32_t header_bytes;
    uint32_t header_fields;
    uint32_t body_bytes;
    uint32_t message_bytes;
    uint32_t fragments;
    uint32_t requests_per_frame;
    uint32_t heartbeat_ms;
    uint32_t heartbeat_min_ms;
    uint32_t heartbeat_max_ms;
    uint32_t devices_per_user;
    uint32_t sends_per_second; /* per device, sustained */
    uint32_t sends_burst;
    uint32_t output_bytes;    /* unsent bytes per connection before it is switched to catching up */
    uint32_t parked_requests; /* per shard, that wait on their conversation */
    uint64_t state_bytes;     /* budget for user and conversation state, over all shards */
    uint64_t cache_bytes;     /* recent messages kept in memory, over all shards */
    uint32_t mesh_ring_bytes;
    /* [auth] */
    char issuer[CONFIG_TEXT_BYTES];
    char audience[CONFIG_TEXT_BYTES];
    char jwks[CONFIG_TEXT_BYTES]; /* file of operators' public keys; "": none */
    bool create_users;            /* make users of operators' tokens on first sight */
    bool registration;            /* POST /users is open */
    uint32_t access_token_s;
    uint32_t refresh_token_s;
    uint32_t hash_threads;
    uint32_t hash_queue;
    uint32_t hash_memory_kib;
    uint32_t hash_passes;
    /* [log] */
    enum log_level log_level;
    enum log_format log_format;
    /* [drain] */
    uint32_t drain_ms;
    /* [bench] */
    bool echo;
    bool unsafe_skip_sync;
};

/* config_defaults: what an empty file means. */
void config_defaults(struct config *config);
/* config_load: path NULL: defaults alone. explanation_size bytes of explanation are written on
 * failure. */
MUST_USE enum err config_load(struct config *config, const char *path, char *explanation,
                              size_t explanation_size);
/* config_retention_age_max_s: the longest age that a conversation may set for itself; 0: any. */
static inline uint32_t config_retention_age_max_s(const struct config *config)
{
    bool longer = config->retention_age_s > config->retention_age_max_s;
    return longer ? config->retention_age_s : config->retention_age_max_s;
}
/* config_format: what config_print prints, appended to out. ERR_FULL: CONFIG_FILE_BYTES is always
 * enough room. */
MUST_USE enum err config_format(struct buffer *out, const struct config *config);
#define CONFIG_FILE_BYTES 32768

/* config_print: every key with its value, unit, default and meaning, as a file that config_load
 * reads (`roost check-config`). */
void config_print(const struct config *config);

/* network: addresses whose first `bits` bits are those of ip; IPv4 is v4-mapped, as in io_address.
 */
struct network {
    uint8_t ip[16];
    uint8_t bits; /* 0 … 128 */
};
/* network_next: take one element off a comma-separated list ("10.0.0.0/8, ::1"; no prefix length:
 * one address), such as config.proxy_sources. ERR_NOT_FOUND at the end, ERR_INVALID. */
MUST_USE enum err network_next(struct network *network, struct bytes *list);
bool network_contains(const struct network *network, const uint8_t ip[16]);

/* list_next: take one element off a list separated by commas or blanks, such as config.origins and
 * config.lane_directories; false: there is no more. */
bool list_next(struct bytes *element, struct bytes *list);
#define CONFIG_LANE_DIRECTORIES_MAX 7u

/* origins_contain: whether config.origins names this origin itself; "*" names none. */
bool origins_contain(const char *origins, struct bytes origin);

#endif
