/* protocol.h: roost.proto's messages as C structs, and their two encodings.
 * Flow:       ingress: frame bytes → protocol_decode_requests; egress: struct event →
 *             protocol_encode_event → frame
 * Owns:       nothing: decoded bytes, text and payloads point into the input or into the scratch
 *             arena, both the caller's
 * Invariants: the tables in protocol_schema.c say the same as roost.proto (a test compares them
 *             through protoc)
 * Failure:    ERR_INVALID malformed, ERR_TOO_BIG over a limit, ERR_FULL no room in out or scratch
 *             (nothing is appended then)
 * Bounds:     no allocation; scratch per frame: SCRATCH bytes of the caller
 * Standard:   Protocol Buffers wire format (proto2) and its JSON mapping as roost.proto says; JSON
 *             RFC 8259 by jansson */
#ifndef GATEWAY_WIRE_PROTOCOL_H
#define GATEWAY_WIRE_PROTOCOL_H

#include "store/ids.h"

enum encoding { ENCODING_PROTO, ENCODING_JSON };

#define SUBPROTOCOL_PROTO "roost.v1.proto"
#define SUBPROTOCOL_JSON  "roost.v1.json"
#define CLOSE_CODE_BASE   4000

/* PROTOCOL_SCRATCH_BYTES: scratch that decoding any valid frame of so many bytes needs at most;
 * ERR_FULL with it means a frame of empty repeated elements: answer like ERR_TOO_BIG. */
#define PROTOCOL_SCRATCH_BYTES(frame_bytes) (3 * (frame_bytes) + 1024)
/* PROTOCOL_EVENT_BYTES: what one event takes at most in either encoding: payloads and texts of so
 * many bytes (a control character is 6 bytes of JSON), in so many messages of a history (else 1). A
 * peer chooses payloads: size buffers by this, or take ERR_FULL for an answer. */
#define PROTOCOL_EVENT_BYTES(payload_bytes, messages)                                              \
    (6 * (payload_bytes) + 512 * (messages) + 1024)

enum verdict { VERDICT_FATAL, VERDICT_RETRY, VERDICT_RELOGIN, VERDICT_RESYNC, VERDICT_DISPLACED };

enum code {
    CODE_NONE,
    CODE_MALFORMED,
    CODE_UNSUPPORTED,
    CODE_TOO_BIG,
    CODE_NOT_HELLO,
    CODE_HELLO_TIMEOUT,
    CODE_UNAUTHENTICATED,
    CODE_TOKEN_EXPIRED,
    CODE_FORBIDDEN,
    CODE_NOT_FOUND,
    CODE_CONFLICT,
    CODE_SEQ_FROM_FUTURE,
    CODE_RATE_LIMITED,
    CODE_OVERLOADED,
    CODE_NO_SPACE,
    CODE_READ_ONLY,
    CODE_MISSING_RANGE,
    CODE_EPOCH_CHANGED,
    CODE_REPLACED,
    CODE_REVOKED,
    CODE_HEARTBEAT_LOST,
    CODE_SHUTTING_DOWN,
    CODE_INTERNAL,
    CODE_COUNT
};

enum message_kind {
    KIND_MESSAGE,
    KIND_REACTION,
    KIND_EDIT,
    KIND_DELETE,
    KIND_MEMBERSHIP,
    KIND_CALL
};
enum durability { DURABILITY_MEMORY, DURABILITY_DISK, DURABILITY_REPLICATED };

/* A field that is absent on the wire is 0, false, {NULL, 0}, or a zero id; `has_…` tells where 0
 * and absent differ. Ids of the wrong length are ERR_INVALID. */

struct credit {
    uint32_t messages;
    uint32_t bytes;
};

struct cursor {
    struct conversation_id conversation;
    uint64_t seq;
};

struct hello {
    struct bytes token;
    struct bytes device_key;
    struct bytes store_epoch; /* 16 bytes or empty */
    const struct cursor *cursors;
    size_t cursor_count;
    bool has_credit;
    struct credit credit;
    uint32_t heartbeat_ms;
    struct bytes client;
    bool has_resume;
    bool resume; /* true if absent */
};

struct device_envelope {
    struct user_id user;
    struct device_id device;
    uint32_t registration;
    struct bytes content;
};

struct send {
    bool has_message_id;
    struct message_id message_id;
    bool has_conversation;
    struct conversation_id conversation;
    struct user_id to_user;
    struct bytes payload; /* an encoded, validated Payload, whatever the connection's encoding */
    uint64_t expires_ms;
};

struct retention_setting { /* of one conversation */
    uint64_t age_s;        /* 0: the store's */
    uint64_t bytes;        /* 0: no bound */
};

struct set_retention {
    bool has_message_id;
    struct message_id message_id;
    bool has_conversation;
    struct conversation_id conversation;
    struct user_id to_user;
    bool has_retention;
    struct retention_setting retention; /* all 0 if absent */
};

struct watermark {
    struct conversation_id conversation;
    uint64_t delivered_seq;
    uint64_t read_seq;
};

struct range {
    struct conversation_id conversation;
    uint64_t from_seq;
    uint64_t to_seq;
    uint32_t limit;
};

struct goodbye {
    enum code code;
    enum verdict verdict;
    uint32_t retry_after_ms;
    bool resume;
    struct bytes text;
    struct bytes location;
};

enum request_kind {
    REQUEST_NONE, /* no body known to this version: answered with CODE_UNSUPPORTED */
    REQUEST_HELLO,
    REQUEST_RENEW,
    REQUEST_SEND,
    REQUEST_WATERMARK,
    REQUEST_RANGE,
    REQUEST_CREDIT,
    REQUEST_PING,
    REQUEST_GOODBYE,
    REQUEST_SET_RETENTION,
};

struct request {
    uint64_t id;
    enum request_kind kind; /* two bodies in one request: ERR_INVALID */
    union {
        struct hello hello;
        struct {
            struct bytes token;
        } renew;
        struct send send;
        struct watermark watermark;
        struct range range;
        struct credit credit;
        struct {
            uint64_t time_ms;
        } ping;
        struct goodbye goodbye;
        struct set_retention set_retention;
    };
};

struct welcome {
    uint32_t version;
    struct bytes server;
    uint64_t time_ms;
    struct bytes store_epoch; /* 16 bytes */
    uint32_t heartbeat_ms;
    uint32_t heartbeat_min_ms;
    uint32_t heartbeat_max_ms;
    uint32_t hello_timeout_ms;
    uint32_t message_bytes_max;
    uint32_t fragments_max;
    uint32_t requests_max;
    const struct bytes *features;
    size_t feature_count;
    uint64_t retention_age_s;
    uint64_t retention_age_max_s;
};

struct ready {
    struct user_id user;
    struct device_id device;
    struct realm_id realm;
    struct bytes name;
    uint64_t time_ms;
    uint32_t heartbeat_ms;
    uint64_t token_expires_ms;
    struct bytes store_epoch;
    uint32_t pending_conversations;
};

struct ack {
    struct message_id message_id;
    struct conversation_id conversation;
    uint64_t seq;
    uint64_t time_ms;
    enum durability durability;
    bool duplicate;
    const struct device_envelope *missing;
    size_t missing_count;
    const struct device_envelope *stale;
    size_t stale_count;
};

struct message {
    struct conversation_id conversation;
    uint64_t seq;
    struct message_id message_id;
    struct user_id sender;
    struct device_id sender_device;
    uint64_t time_ms;
    struct bytes payload; /* encoded Payload */
    uint64_t expires_ms;
    bool has_retention; /* an entry that set it: no payload */
    struct retention_setting retention;
};

struct receipt {
    struct conversation_id conversation;
    struct user_id user;
    uint64_t delivered_seq;
    uint64_t read_seq;
};

struct gone {
    struct conversation_id conversation; /* 0 in a history, which names its own */
    uint64_t from_seq;
    uint64_t to_seq;
};

struct history {
    struct conversation_id conversation;
    const struct message *messages;
    size_t message_count;
    uint64_t next_seq;
    uint64_t last_seq;
    const struct gone *gone;
    size_t gone_count;
    bool has_retention;
    struct retention_setting retention;
};

struct lagging {
    struct conversation_id conversation;
    uint64_t from_seq;
    uint64_t to_seq;
};

struct failure {
    enum code code;
    enum verdict verdict;
    uint32_t retry_after_ms;
    struct bytes text;
    bool has_message_id;
    struct message_id message_id;
    struct conversation_id conversation;
    uint64_t from_seq;
    uint64_t to_seq;
};

enum event_kind {
    EVENT_NONE,
    EVENT_WELCOME,
    EVENT_READY,
    EVENT_RENEWED,
    EVENT_ACK,
    EVENT_MESSAGE,
    EVENT_RECEIPT,
    EVENT_HISTORY,
    EVENT_SYNCED,
    EVENT_LAGGING,
    EVENT_PONG,
    EVENT_ERROR,
    EVENT_GOODBYE,
    EVENT_TOKEN_EXPIRING,
    EVENT_GONE,
};

struct event {
    uint64_t id;
    enum event_kind kind;
    union {
        struct welcome welcome;
        struct ready ready;
        struct {
            uint64_t token_expires_ms;
        } renewed;
        struct ack ack;
        struct message message;
        struct receipt receipt;
        struct history history;
        struct {
            uint64_t time_ms;
        } synced;
        struct lagging lagging;
        struct {
            uint64_t time_ms;
            uint64_t server_time_ms;
        } pong;
        struct failure error;
        struct goodbye goodbye;
        struct {
            uint64_t token_expires_ms;
        } token_expiring;
        struct gone gone;
    };
};

/* protocol_decode_requests: one WebSocket message → requests. *count in: room in out; out: how
 * many. ERR_TOO_BIG: more requests than room. Scratch receives what the input does not hold as
 * bytes (JSON text, base64, repeated fields). */
MUST_USE enum err protocol_decode_requests(struct request *out, size_t *count, struct bytes frame,
                                           enum encoding encoding, struct buffer *scratch);
/* protocol_requests_to_binary: *frame, a ClientFrame of that encoding, becomes the same one in
 * ENCODING_PROTO, a JSON one in the scratch: what must be decoded again later is parsed once. Fails
 * as protocol_decode_requests does on the frame's text. */
MUST_USE enum err protocol_requests_to_binary(struct bytes *frame, enum encoding encoding,
                                              struct buffer *scratch);
/* protocol_decode_events: the client's side of it. */
MUST_USE enum err protocol_decode_events(struct event *out, size_t *count, struct bytes frame,
                                         enum encoding encoding, struct buffer *scratch);

/* protocol_encode_event, _request: append one event's encoding, without a frame around it. Several
 * are joined by protocol_frame_begin, _next, _end: binary needs a tag and length before each, JSON
 * brackets and commas. */
MUST_USE enum err protocol_encode_event(struct buffer *out, const struct event *event,
                                        enum encoding encoding);
MUST_USE enum err protocol_encode_request(struct buffer *out, const struct request *request,
                                          enum encoding encoding);

/* protocol_frame_event: append `encoded` (from protocol_encode_event) as the next element of the
 * frame being built in out. A frame is: protocol_frame_open, any number of protocol_frame_event,
 * protocol_frame_close. A binary frame's open and close add nothing; JSON's {"events":[ and ]}. */
MUST_USE enum err protocol_frame_open(struct buffer *out, enum encoding encoding, bool from_server);
MUST_USE enum err protocol_frame_element(struct buffer *out, struct bytes encoded,
                                         enum encoding encoding, bool first);
MUST_USE enum err protocol_frame_close(struct buffer *out, enum encoding encoding);
/* PROTOCOL_ELEMENT_OVERHEAD: bytes that one element costs beyond its encoding, at most; the same
 * covers open + close. */
#define PROTOCOL_ELEMENT_OVERHEAD 16

/* protocol_payload_text: a Payload around a text content, for tests and the load generator. */
MUST_USE enum err protocol_payload_text(struct buffer *out, struct bytes content);
/* protocol_payload_content: its content again; ERR_INVALID. */
MUST_USE enum err protocol_payload_content(struct bytes *content, struct bytes payload);

const char *code_name(enum code code);     /* "MALFORMED" */
enum verdict code_verdict(enum code code); /* the verdict that PROTOCOL.md gives the code */

#endif
