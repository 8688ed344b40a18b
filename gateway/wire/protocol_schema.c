/* protocol_schema.c: the tables. A row reads: number, name, type, struct, member. Rows stand in
 * the order of roost.proto; tests/tidy/check_schema compares both field by field. */
#include "gateway/wire/protocol_schema.h"

/* ---- rows */

#define AT(type, member) offsetof(struct type, member)

#define ROW(n, nm, ty, wi, fo, off)                                                                \
    .name = #nm, .number = n, .type = ty, .wire = wi, .form = fo, .offset = (uint16_t)(off),       \
    .has_offset = SCHEMA_NONE, .count_offset = SCHEMA_NONE

#define UINT64(n, nm, off)   ROW(n, nm, TYPE_UINT64, WIRE_VARINT, FORM_U64, off)
#define UINT32(n, nm, off)   ROW(n, nm, TYPE_UINT32, WIRE_VARINT, FORM_U32, off)
#define FIXED64(n, nm, off)  ROW(n, nm, TYPE_FIXED64, WIRE_FIXED64, FORM_U64, off)
#define BOOL(n, nm, off)     ROW(n, nm, TYPE_BOOL, WIRE_VARINT, FORM_BOOL, off)
#define STRING(n, nm, off)   ROW(n, nm, TYPE_STRING, WIRE_BYTES, FORM_BYTES, off)
#define BYTES(n, nm, off)    ROW(n, nm, TYPE_BYTES, WIRE_BYTES, FORM_BYTES, off)
#define EPOCH(n, nm, off)    ROW(n, nm, TYPE_UUID, WIRE_BYTES, FORM_BYTES, off)
#define MESSAGE_ID(n, off)   ROW(n, message_id, TYPE_UUID, WIRE_BYTES, FORM_MESSAGE_ID, off)
#define CONVERSATION(n, off) ROW(n, conversation_id, TYPE_UUID, WIRE_BYTES, FORM_CONVERSATION, off)
#define ENUM(n, nm, en, off) ROW(n, nm, TYPE_ENUM, WIRE_VARINT, FORM_U32, off), .values = &(en)
#define STRUCT(n, nm, me, off)                                                                     \
    ROW(n, nm, TYPE_MESSAGE, WIRE_BYTES, FORM_STRUCT, off), .message = &(me)
#define ENCODED(n, nm, me, off)                                                                    \
    ROW(n, nm, TYPE_MESSAGE, WIRE_BYTES, FORM_BYTES, off), .message = &(me)
#define HAS(type, member) .has_offset = (uint16_t)AT(type, member)
#define ARRAY(st, pointer, count)                                                                  \
    .form = FORM_ARRAY, .repeated = true, .offset = (uint16_t)AT(st, pointer),                     \
    .count_offset = (uint16_t)AT(st, count),                                                       \
    .element_size = (uint16_t)sizeof(*((struct st *)NULL)->pointer)
/* A part of a Payload: no struct holds it. */
#define PART(n, nm, ty, wi) ROW(n, nm, ty, wi, FORM_NONE, SCHEMA_NONE)

/* ARRAY and initial values replace what ROW said. */
#pragma GCC diagnostic ignored "-Woverride-init"
#ifdef __clang__
#pragma GCC diagnostic ignored "-Winitializer-overrides"
#endif

#define TABLE(id, nm, ...)                                                                         \
    static const struct schema_field id##_fields[] = {__VA_ARGS__};                                \
    _Static_assert(COUNT_OF(id##_fields) <= SCHEMA_FIELDS_MAX, "SCHEMA_FIELDS_MAX");               \
    static const struct schema_message id = {.name = nm,                                           \
                                             .fields = id##_fields,                                \
                                             .field_count = COUNT_OF(id##_fields),                 \
                                             .kind_offset = SCHEMA_NONE}
#define TABLE_PREPARED(id, nm, ...)                                                                \
    static const struct schema_field id##_fields[] = {__VA_ARGS__};                                \
    _Static_assert(COUNT_OF(id##_fields) <= SCHEMA_FIELDS_MAX, "SCHEMA_FIELDS_MAX");               \
    static const struct schema_message id = {.name = nm,                                           \
                                             .fields = id##_fields,                                \
                                             .field_count = COUNT_OF(id##_fields),                 \
                                             .prepared = true,                                     \
                                             .kind_offset = SCHEMA_NONE}

/* ---- enums */

#define VALUES(id, nm, ...)                                                                        \
    static const struct schema_value id##_values[] = {__VA_ARGS__};                                \
    static const struct schema_enum id = {nm, id##_values, COUNT_OF(id##_values)}

VALUES(kind_enum, "Kind", {"MESSAGE", KIND_MESSAGE}, {"REACTION", KIND_REACTION},
       {"EDIT", KIND_EDIT}, {"DELETE", KIND_DELETE}, {"MEMBERSHIP", KIND_MEMBERSHIP},
       {"CALL", KIND_CALL});
VALUES(content_enum, "ContentType", {"TEXT", 0}, {"IMAGE", 1}, {"VIDEO", 2}, {"AUDIO", 3},
       {"DOCUMENT", 4}, {"CUSTOM", 15});
VALUES(durability_enum, "Durability", {"MEMORY", DURABILITY_MEMORY}, {"DISK", DURABILITY_DISK},
       {"REPLICATED", DURABILITY_REPLICATED});
VALUES(verdict_enum, "Verdict", {"FATAL", VERDICT_FATAL}, {"RETRY", VERDICT_RETRY},
       {"RELOGIN", VERDICT_RELOGIN}, {"RESYNC", VERDICT_RESYNC}, {"DISPLACED", VERDICT_DISPLACED});
VALUES(code_enum, "Code", {"NONE", CODE_NONE}, {"MALFORMED", CODE_MALFORMED},
       {"UNSUPPORTED", CODE_UNSUPPORTED}, {"TOO_BIG", CODE_TOO_BIG}, {"NOT_HELLO", CODE_NOT_HELLO},
       {"HELLO_TIMEOUT", CODE_HELLO_TIMEOUT}, {"UNAUTHENTICATED", CODE_UNAUTHENTICATED},
       {"TOKEN_EXPIRED", CODE_TOKEN_EXPIRED}, {"FORBIDDEN", CODE_FORBIDDEN},
       {"NOT_FOUND", CODE_NOT_FOUND}, {"CONFLICT", CODE_CONFLICT},
       {"SEQ_FROM_FUTURE", CODE_SEQ_FROM_FUTURE}, {"RATE_LIMITED", CODE_RATE_LIMITED},
       {"OVERLOADED", CODE_OVERLOADED}, {"NO_SPACE", CODE_NO_SPACE}, {"READ_ONLY", CODE_READ_ONLY},
       {"MISSING_RANGE", CODE_MISSING_RANGE}, {"EPOCH_CHANGED", CODE_EPOCH_CHANGED},
       {"REPLACED", CODE_REPLACED}, {"REVOKED", CODE_REVOKED},
       {"HEARTBEAT_LOST", CODE_HEARTBEAT_LOST}, {"SHUTTING_DOWN", CODE_SHUTTING_DOWN},
       {"INTERNAL", CODE_INTERNAL});
_Static_assert(COUNT_OF(code_enum_values) == CODE_COUNT, "a code without a row");

/* ---- payload and what it holds */

TABLE(encryption, "Encryption", {PART(1, algorithm, TYPE_STRING, WIRE_BYTES)},
      {PART(2, key, TYPE_STRING, WIRE_BYTES)});
TABLE(media, "Media", {PART(1, url, TYPE_STRING, WIRE_BYTES)},
      {PART(2, size_bytes, TYPE_UINT64, WIRE_VARINT)},
      {PART(3, duration_ms, TYPE_UINT32, WIRE_VARINT)}, {PART(4, width, TYPE_UINT32, WIRE_VARINT)},
      {PART(5, height, TYPE_UINT32, WIRE_VARINT)}, {PART(6, mime, TYPE_STRING, WIRE_BYTES)},
      {PART(7, thumbnail, TYPE_BYTES, WIRE_BYTES)});
TABLE(device_envelope, "DeviceEnvelope", {FIXED64(1, user, AT(device_envelope, user))},
      {UINT32(2, device, AT(device_envelope, device))},
      {UINT32(3, registration, AT(device_envelope, registration))},
      {BYTES(4, content, AT(device_envelope, content))});

static const struct schema_field payload_fields[] = {
    {PART(1, kind, TYPE_ENUM, WIRE_VARINT), .values = &kind_enum},
    {PART(2, type, TYPE_ENUM, WIRE_VARINT), .values = &content_enum},
    {PART(3, content, TYPE_BYTES, WIRE_BYTES)},
    {PART(4, parent_id, TYPE_UUID, WIRE_BYTES)},
    {PART(5, encryption, TYPE_MESSAGE, WIRE_BYTES), .message = &encryption},
    {PART(6, media, TYPE_MESSAGE, WIRE_BYTES), .message = &media},
    {PART(7, envelopes, TYPE_MESSAGE, WIRE_BYTES), .message = &device_envelope, .repeated = true},
    {PART(8, preview, TYPE_BYTES, WIRE_BYTES)},
};
const struct schema_message schema_payload = {.name = "Payload",
                                              .fields = payload_fields,
                                              .field_count = COUNT_OF(payload_fields),
                                              .kind_offset = SCHEMA_NONE};

/* ---- beginning and end */

TABLE(credit, "Credit", {UINT32(1, messages, AT(credit, messages))},
      {UINT32(2, bytes, AT(credit, bytes))});
TABLE(cursor, "Cursor", {CONVERSATION(1, AT(cursor, conversation))},
      {UINT64(2, seq, AT(cursor, seq))});
TABLE_PREPARED(welcome, "Welcome", {UINT32(1, version, AT(welcome, version))},
               {STRING(2, server, AT(welcome, server))}, {UINT64(3, time_ms, AT(welcome, time_ms))},
               {EPOCH(4, store_epoch_id, AT(welcome, store_epoch))},
               {UINT32(5, heartbeat_ms, AT(welcome, heartbeat_ms))},
               {UINT32(6, heartbeat_min_ms, AT(welcome, heartbeat_min_ms))},
               {UINT32(7, heartbeat_max_ms, AT(welcome, heartbeat_max_ms))},
               {UINT32(8, hello_timeout_ms, AT(welcome, hello_timeout_ms))},
               {UINT32(9, message_bytes_max, AT(welcome, message_bytes_max))},
               {UINT32(10, fragments_max, AT(welcome, fragments_max))},
               {UINT32(11, requests_max, AT(welcome, requests_max))},
               {STRING(12, features, 0), ARRAY(welcome, features, feature_count)},
               {UINT64(13, retention_age_s, AT(welcome, retention_age_s))},
               {UINT64(14, retention_age_max_s, AT(welcome, retention_age_max_s))});
TABLE_PREPARED(hello, "Hello", {STRING(1, token, AT(hello, token))},
               {STRING(2, device_key, AT(hello, device_key))},
               {EPOCH(3, store_epoch_id, AT(hello, store_epoch))},
               {STRUCT(4, cursors, cursor, 0), ARRAY(hello, cursors, cursor_count)},
               {STRUCT(5, credit, credit, AT(hello, credit)), HAS(hello, has_credit)},
               {UINT32(6, heartbeat_ms, AT(hello, heartbeat_ms))},
               {STRING(7, client, AT(hello, client))},
               {BOOL(8, resume, AT(hello, resume)), HAS(hello, has_resume), .initial = true});
TABLE(ready, "Ready", {FIXED64(1, user, AT(ready, user))}, {UINT32(2, device, AT(ready, device))},
      {UINT32(3, realm, AT(ready, realm))}, {STRING(4, name, AT(ready, name))},
      {UINT64(5, time_ms, AT(ready, time_ms))}, {UINT32(6, heartbeat_ms, AT(ready, heartbeat_ms))},
      {UINT64(7, token_expires_ms, AT(ready, token_expires_ms))},
      {EPOCH(8, store_epoch_id, AT(ready, store_epoch))},
      {UINT32(9, pending_conversations, AT(ready, pending_conversations))});
/* These have no struct of their own: offsets within their member of the union. */
#define INNER(outer, body, member) (AT(outer, body.member) - AT(outer, body))
TABLE(renew, "Renew", {STRING(1, token, INNER(request, renew, token))});
TABLE(renewed, "Renewed", {UINT64(1, token_expires_ms, INNER(event, renewed, token_expires_ms))});
TABLE(token_expiring, "TokenExpiring",
      {UINT64(1, token_expires_ms, INNER(event, token_expiring, token_expires_ms))});
TABLE(goodbye, "Goodbye", {ENUM(1, code, code_enum, AT(goodbye, code))},
      {ENUM(2, verdict, verdict_enum, AT(goodbye, verdict))},
      {UINT32(3, retry_after_ms, AT(goodbye, retry_after_ms))},
      {BOOL(4, resume, AT(goodbye, resume))}, {STRING(5, text, AT(goodbye, text))},
      {STRING(6, location, AT(goodbye, location))});

/* ---- messages */

TABLE(send, "Send", {MESSAGE_ID(1, AT(send, message_id)), HAS(send, has_message_id)},
      {CONVERSATION(2, AT(send, conversation)), HAS(send, has_conversation)},
      {FIXED64(3, to_user, AT(send, to_user))},
      {ENCODED(4, payload, schema_payload, AT(send, payload))},
      {UINT64(5, expires_ms, AT(send, expires_ms))});
TABLE_PREPARED(ack, "Ack", {MESSAGE_ID(1, AT(ack, message_id))},
               {CONVERSATION(2, AT(ack, conversation))}, {UINT64(3, seq, AT(ack, seq))},
               {UINT64(4, time_ms, AT(ack, time_ms))},
               {ENUM(5, durability, durability_enum, AT(ack, durability))},
               {BOOL(6, duplicate, AT(ack, duplicate))},
               {STRUCT(7, missing, device_envelope, 0), ARRAY(ack, missing, missing_count)},
               {STRUCT(8, stale, device_envelope, 0), ARRAY(ack, stale, stale_count)});
TABLE(retention, "Retention", {UINT64(1, age_s, AT(retention_setting, age_s))},
      {UINT64(2, bytes, AT(retention_setting, bytes))});
TABLE(set_retention, "SetRetention",
      {MESSAGE_ID(1, AT(set_retention, message_id)), HAS(set_retention, has_message_id)},
      {CONVERSATION(2, AT(set_retention, conversation)), HAS(set_retention, has_conversation)},
      {FIXED64(3, to_user, AT(set_retention, to_user))},
      {STRUCT(4, retention, retention, AT(set_retention, retention)),
       HAS(set_retention, has_retention)});
TABLE(message, "Message", {CONVERSATION(1, AT(message, conversation))},
      {UINT64(2, seq, AT(message, seq))}, {MESSAGE_ID(3, AT(message, message_id))},
      {FIXED64(4, sender, AT(message, sender))},
      {UINT32(5, sender_device, AT(message, sender_device))},
      {UINT64(6, time_ms, AT(message, time_ms))},
      {ENCODED(7, payload, schema_payload, AT(message, payload))},
      {UINT64(8, expires_ms, AT(message, expires_ms))},
      {STRUCT(9, retention, retention, AT(message, retention)), HAS(message, has_retention)});

/* ---- receipts, history, flow */

TABLE(watermark, "Watermark", {CONVERSATION(1, AT(watermark, conversation))},
      {UINT64(2, delivered_seq, AT(watermark, delivered_seq))},
      {UINT64(3, read_seq, AT(watermark, read_seq))});
TABLE(receipt, "Receipt", {CONVERSATION(1, AT(receipt, conversation))},
      {FIXED64(2, user, AT(receipt, user))}, {UINT64(3, delivered_seq, AT(receipt, delivered_seq))},
      {UINT64(4, read_seq, AT(receipt, read_seq))});
TABLE(range, "Range", {CONVERSATION(1, AT(range, conversation))},
      {UINT64(2, from_seq, AT(range, from_seq))}, {UINT64(3, to_seq, AT(range, to_seq))},
      {UINT32(4, limit, AT(range, limit))});
TABLE(gone, "Gone", {CONVERSATION(1, AT(gone, conversation))},
      {UINT64(2, from_seq, AT(gone, from_seq))}, {UINT64(3, to_seq, AT(gone, to_seq))});
TABLE_PREPARED(history, "History", {CONVERSATION(1, AT(history, conversation))},
               {STRUCT(2, messages, message, 0), ARRAY(history, messages, message_count)},
               {UINT64(3, next_seq, AT(history, next_seq))},
               {UINT64(4, last_seq, AT(history, last_seq))},
               {STRUCT(5, gone, gone, 0), ARRAY(history, gone, gone_count)},
               {STRUCT(6, retention, retention, AT(history, retention)),
                HAS(history, has_retention)});
TABLE(synced, "Synced", {UINT64(1, time_ms, INNER(event, synced, time_ms))});
TABLE(lagging, "Lagging", {CONVERSATION(1, AT(lagging, conversation))},
      {UINT64(2, from_seq, AT(lagging, from_seq))}, {UINT64(3, to_seq, AT(lagging, to_seq))});
TABLE(ping, "Ping", {UINT64(1, time_ms, INNER(request, ping, time_ms))});
TABLE(pong, "Pong", {UINT64(1, time_ms, INNER(event, pong, time_ms))},
      {UINT64(2, server_time_ms, INNER(event, pong, server_time_ms))});
TABLE(error, "Error", {ENUM(1, code, code_enum, AT(failure, code))},
      {ENUM(2, verdict, verdict_enum, AT(failure, verdict))},
      {UINT32(3, retry_after_ms, AT(failure, retry_after_ms))},
      {STRING(4, text, AT(failure, text))},
      {MESSAGE_ID(5, AT(failure, message_id)), HAS(failure, has_message_id)},
      {CONVERSATION(6, AT(failure, conversation))}, {UINT64(7, from_seq, AT(failure, from_seq))},
      {UINT64(8, to_seq, AT(failure, to_seq))});

/* ---- envelopes and frames */

#define BODY(n, outer, me, value)                                                                  \
    {                                                                                              \
        STRUCT(n, me, me, AT(outer, me)), .body = value                                            \
    }

static const struct schema_field request_fields[] = {
    {UINT64(1, id, AT(request, id))},
    BODY(2, request, hello, REQUEST_HELLO),
    BODY(3, request, renew, REQUEST_RENEW),
    BODY(4, request, send, REQUEST_SEND),
    BODY(5, request, watermark, REQUEST_WATERMARK),
    BODY(6, request, range, REQUEST_RANGE),
    BODY(7, request, credit, REQUEST_CREDIT),
    BODY(8, request, ping, REQUEST_PING),
    BODY(9, request, goodbye, REQUEST_GOODBYE),
    BODY(10, request, set_retention, REQUEST_SET_RETENTION),
};
const struct schema_message schema_request = {.name = "Request",
                                              .fields = request_fields,
                                              .field_count = COUNT_OF(request_fields),
                                              .kind_offset = AT(request, kind)};

static const struct schema_field event_fields[] = {
    {UINT64(1, id, AT(event, id))},          BODY(2, event, welcome, EVENT_WELCOME),
    BODY(3, event, ready, EVENT_READY),      BODY(4, event, renewed, EVENT_RENEWED),
    BODY(5, event, ack, EVENT_ACK),          BODY(6, event, message, EVENT_MESSAGE),
    BODY(7, event, receipt, EVENT_RECEIPT),  BODY(8, event, history, EVENT_HISTORY),
    BODY(9, event, synced, EVENT_SYNCED),    BODY(10, event, lagging, EVENT_LAGGING),
    BODY(11, event, pong, EVENT_PONG),       BODY(12, event, error, EVENT_ERROR),
    BODY(13, event, goodbye, EVENT_GOODBYE), BODY(14, event, token_expiring, EVENT_TOKEN_EXPIRING),
    BODY(15, event, gone, EVENT_GONE),
};
const struct schema_message schema_event = {.name = "Event",
                                            .fields = event_fields,
                                            .field_count = COUNT_OF(event_fields),
                                            .kind_offset = AT(event, kind)};

static const struct schema_field client_frame_fields[] = {
    {PART(1, requests, TYPE_MESSAGE, WIRE_BYTES), .message = &schema_request, .repeated = true},
};
const struct schema_message schema_client_frame = {.name = "ClientFrame",
                                                   .fields = client_frame_fields,
                                                   .field_count = 1,
                                                   .kind_offset = SCHEMA_NONE};
static const struct schema_field server_frame_fields[] = {
    {PART(1, events, TYPE_MESSAGE, WIRE_BYTES), .message = &schema_event, .repeated = true},
};
const struct schema_message schema_server_frame = {.name = "ServerFrame",
                                                   .fields = server_frame_fields,
                                                   .field_count = 1,
                                                   .kind_offset = SCHEMA_NONE};

/* ---- lists for the comparison with roost.proto */

const struct schema_message *const schema_messages[] = {
    &schema_client_frame,
    &schema_server_frame,
    &schema_request,
    &schema_event,
    &welcome,
    &hello,
    &cursor,
    &ready,
    &renew,
    &renewed,
    &token_expiring,
    &goodbye,
    &encryption,
    &media,
    &device_envelope,
    &schema_payload,
    &send,
    &ack,
    &retention,
    &set_retention,
    &message,
    &watermark,
    &receipt,
    &range,
    &history,
    &gone,
    &synced,
    &lagging,
    &credit,
    &ping,
    &pong,
    &error,
};
const size_t schema_message_count = COUNT_OF(schema_messages);

const struct schema_enum *const schema_enums[] = {
    &kind_enum, &content_enum, &durability_enum, &verdict_enum, &code_enum,
};
const size_t schema_enum_count = COUNT_OF(schema_enums);

const struct schema_value *schema_value_find(const struct schema_enum *values, uint64_t number)
{
    if (number < values->value_count && values->values[number].number == number)
        return &values->values[number];
    for (size_t i = 0; i < values->value_count; i++)
        if (values->values[i].number == number)
            return &values->values[i];
    return NULL;
}
