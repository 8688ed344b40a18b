/* test_loadgen_user.c: a simulated user against a small server made of the wire engines, in one
 * process, joined by byte buffers that are delivered whole or byte by byte. */
#include "core/file.h"
#include "core/memory.h"
#include "loadgen/oracle.h"
#include "loadgen/user.h"

#include "tests/unit/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define WIRE_BYTES   (64 * 1024)
#define REQUESTS_MAX 32
#define SERVER_USER  ((struct user_id){500})
#define OTHER_USER   ((struct user_id){900})
#define HEARTBEAT_MS 20000

struct server {
    struct tls_context *context;
    struct tls_engine *tls_engine;
    struct websocket_engine *websocket_engine;
    struct tls *tls;
    struct websocket websocket;
    struct http_reader *http;
    enum encoding encoding;
    bool upgraded;
    unsigned refuse_status; /* answer the upgrade with it */
    bool silent;            /* keep requests, answer nothing */
    struct buffer out;
    uint8_t out_bytes[WIRE_BYTES];
    /* what came */
    struct request requests[REQUESTS_MAX]; /* texts point into copies */
    uint32_t request_count;
    uint8_t copies[WIRE_BYTES * 2];
    struct buffer copied;
    uint32_t pongs;
    char subject[JWT_NAME_BYTES_MAX + 1];
    char hello_path[64];
};

struct rig {
    char directory[64];
    struct jwt_signer signer;
    struct jwks *jwks;
    struct user_options options;
    struct user_engine *engine;
    struct user user;
    struct server server;
    struct user_event events[REQUESTS_MAX];
    struct message messages[REQUESTS_MAX];
    uint32_t event_count;
    enum err end;
    size_t chop;
    struct buffer output;
    uint8_t output_bytes[WIRE_BYTES];
    uint64_t now_ns;
};

/* ---- server */

static void server_seal(struct server *server, struct bytes plaintext)
{
    assert_int_equal(tls_send(server->tls, server->tls_engine, &plaintext, &server->out), OK);
}

static void server_frame(struct server *server, enum websocket_opcode opcode, struct bytes data)
{
    const struct websocket_limits limits = {.message_bytes_max = 65536, .fragments_max = 8};
    static uint8_t bytes[WIRE_BYTES];
    struct buffer frame = buffer_of(bytes, sizeof bytes);
    assert_int_equal(websocket_frame(&frame, server->websocket_engine, &limits, opcode, data), OK);
    server_seal(server, buffer_bytes(&frame));
}

static void server_event(struct server *server, const struct event *event)
{
    static uint8_t element_bytes[WIRE_BYTES];
    static uint8_t frame_bytes[WIRE_BYTES];
    struct buffer element = buffer_of(element_bytes, sizeof element_bytes);
    struct buffer frame = buffer_of(frame_bytes, sizeof frame_bytes);
    enum encoding encoding = server->encoding;
    assert_int_equal(protocol_encode_event(&element, event, encoding), OK);
    assert_int_equal(protocol_frame_open(&frame, encoding, true), OK);
    assert_int_equal(protocol_frame_element(&frame, buffer_bytes(&element), encoding, true), OK);
    assert_int_equal(protocol_frame_close(&frame, encoding), OK);
    server_frame(server, encoding == ENCODING_JSON ? WEBSOCKET_TEXT : WEBSOCKET_BINARY,
                 buffer_bytes(&frame));
}

static void server_message(struct server *server, uint64_t seq)
{
    uint8_t content_bytes[64];
    uint8_t payload_bytes[128];
    struct buffer content = buffer_of(content_bytes, sizeof content_bytes);
    struct buffer payload = buffer_of(payload_bytes, sizeof payload_bytes);
    struct conversation_id conversation = conversation_id_direct(SERVER_USER, OTHER_USER);
    struct event event = {.kind = EVENT_MESSAGE,
                          .message = {.conversation = conversation,
                                      .seq = seq,
                                      .sender = OTHER_USER,
                                      .sender_device = {1},
                                      .time_ms = 1}};
    event.message.message_id.v[6] = 0x70;
    event.message.message_id.v[8] = 0x80;
    event.message.message_id.v[15] = (uint8_t)seq;
    assert_int_equal(oracle_content(&content, sizeof content_bytes, conversation,
                                    &event.message.message_id, OTHER_USER, seq),
                     OK);
    assert_int_equal(protocol_payload_text(&payload, buffer_bytes(&content)), OK);
    event.message.payload = buffer_bytes(&payload);
    server_event(server, &event);
}

static void server_welcome(struct server *server)
{
    static const uint8_t epoch[16] = {1, 2, 3};
    struct event event = {.kind = EVENT_WELCOME,
                          .welcome = {.version = 1,
                                      .server = bytes_of_text("fake 1"),
                                      .store_epoch = bytes_of(epoch, sizeof epoch),
                                      .heartbeat_ms = HEARTBEAT_MS,
                                      .requests_max = 16}};
    server_event(server, &event);
}

static void server_upgrade(struct server *server, const struct http_request *request)
{
    char accept[29];
    char text[512];
    const struct http_field *key = http_field_find(request, "Sec-WebSocket-Key");
    const struct http_field *protocol = http_field_find(request, "Sec-WebSocket-Protocol");
    assert_non_null(key);
    assert_non_null(protocol);
    assert_true(bytes_equal(request->path, bytes_of_text("/connect")));
    assert_int_equal(websocket_accept_key(accept, key->value), OK);
    if (server->refuse_status != 0) {
        int size =
            snprintf(text, sizeof text, "HTTP/1.1 %u Refused\r\nContent-Length: 4\r\n\r\nlate",
                     server->refuse_status);
        server_seal(server, bytes_of(text, (size_t)size));
        return;
    }
    int size = snprintf(text, sizeof text,
                        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                        "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n"
                        "Sec-WebSocket-Protocol: %.*s\r\n\r\n",
                        accept, (int)protocol->value.size, (const char *)protocol->value.data);
    server_seal(server, bytes_of(text, (size_t)size));
    server->upgraded = true;
    server_welcome(server);
}

static void server_answer(struct rig *rig, const struct request *request)
{
    struct server *server = &rig->server;
    struct event event = {.id = request->id};
    if (server->silent)
        return;
    if (request->kind == REQUEST_HELLO) {
        struct jwt_claims claims;
        assert_int_equal(
            jwt_verify(&claims, request->hello.token, &rig->signer, rig->jwks, 1700000000000), OK);
        (void)snprintf(server->subject, sizeof server->subject, "%s", claims.subject);
        event.kind = EVENT_READY;
        event.ready = (struct ready){
            .user = SERVER_USER, .device = {1}, .heartbeat_ms = HEARTBEAT_MS, .time_ms = 1};
        server_event(server, &event);
    } else if (request->kind == REQUEST_SEND) {
        event.kind = EVENT_ACK;
        event.ack =
            (struct ack){.message_id = request->send.message_id,
                         .conversation = conversation_id_direct(SERVER_USER, request->send.to_user),
                         .seq = 7,
                         .durability = DURABILITY_DISK};
        server_event(server, &event);
    } else if (request->kind == REQUEST_PING) {
        event.kind = EVENT_PONG;
        server_event(server, &event);
    }
}

static void server_requests(struct rig *rig, struct bytes frame)
{
    struct server *server = &rig->server;
    struct request requests[REQUESTS_MAX];
    size_t count = REQUESTS_MAX;
    struct buffer copy = server->copied;
    assert_int_equal(buffer_append(&server->copied, frame), OK);
    struct bytes kept = bytes_of(copy.data + copy.size, frame.size);
    struct buffer scratch =
        buffer_of(server->copied.data + server->copied.size, buffer_room(&server->copied));
    assert_int_equal(protocol_decode_requests(requests, &count, kept, server->encoding, &scratch),
                     OK);
    server->copied.size += scratch.size;
    for (size_t i = 0; i < count; i++) {
        assert_in_range(server->request_count, 0, REQUESTS_MAX - 1);
        server->requests[server->request_count++] = requests[i];
        server_answer(rig, &requests[i]);
    }
}

static void server_plaintext(struct rig *rig, struct bytes rest)
{
    struct server *server = &rig->server;
    const struct websocket_limits limits = {.message_bytes_max = 65536, .fragments_max = 8};
    if (!server->upgraded) {
        struct http_request request;
        if (rest.size == 0 || http_receive(server->http, &rest, &request) != OK)
            return;
        server_upgrade(server, &request);
    }
    struct websocket_message message;
    while (rest.size != 0 && websocket_receive(&server->websocket, server->websocket_engine,
                                               &limits, &rest, &message) == WEBSOCKET_MESSAGE) {
        if (message.opcode == WEBSOCKET_PONG)
            server->pongs++;
        else if (message.opcode == WEBSOCKET_TEXT || message.opcode == WEBSOCKET_BINARY)
            server_requests(rig, message.data);
    }
}

static void server_receive(struct rig *rig, struct bytes input)
{
    static uint8_t bytes[WIRE_BYTES];
    struct server *server = &rig->server;
    while (input.size != 0) {
        struct buffer plaintext = buffer_of(bytes, sizeof bytes);
        enum err err =
            tls_receive(server->tls, server->tls_engine, &input, &plaintext, &server->out);
        server_plaintext(rig, buffer_bytes(&plaintext));
        if (err != OK)
            return;
    }
}

static void server_open(struct rig *rig)
{
    const struct http_limits limits = {4096, 32, 1024};
    struct server *server = &rig->server;
    assert_int_equal(tls_create(&server->tls, server->context), OK);
    assert_int_equal(http_reader_create(&server->http, &limits, false), OK);
    server->out = buffer_of(server->out_bytes, sizeof server->out_bytes);
    server->copied = buffer_of(server->copies, sizeof server->copies);
    server->upgraded = false;
    server->request_count = 0;
}

static void server_shut(struct rig *rig)
{
    struct server *server = &rig->server;
    if (server->tls == NULL)
        return;
    tls_destroy(server->tls);
    http_reader_destroy(server->http);
    websocket_deinit(&server->websocket, server->websocket_engine);
    server->websocket = (struct websocket){0};
    server->tls = NULL;
}

/* ---- rig */

static void entropy(void *context, void *out, size_t size)
{
    (void)context;
    memset(out, 0x5a, size);
}

static int setup_with(void **state, enum encoding encoding, size_t chop)
{
    static const uint8_t secret[JWT_KEY_BYTES] = {9, 8, 7};
    char certificate[128];
    char key[128];
    uint8_t json[1024];
    struct buffer jwks = buffer_of(json, sizeof json);
    const char *explanation;
    struct rig *rig = calloc(1, sizeof *rig);
    (void)snprintf(rig->directory, sizeof rig->directory, "/tmp/test_user.XXXXXX");
    assert_non_null(mkdtemp(rig->directory));
    (void)snprintf(certificate, sizeof certificate, "%s/c.pem", rig->directory);
    (void)snprintf(key, sizeof key, "%s/k.pem", rig->directory);
    assert_int_equal(
        tls_make_certificate(certificate, key, "localhost", 30, (uint64_t)time(NULL) * 1000), OK);
    struct tls_server_options server = {.certificate_path = certificate, .key_path = key};
    assert_int_equal(tls_context_create_server(&rig->server.context, &server, &explanation), OK);
    assert_int_equal(tls_engine_create(&rig->server.tls_engine), OK);
    assert_int_equal(websocket_engine_create(&rig->server.websocket_engine, entropy, NULL), OK);
    rig->server.encoding = encoding;
    jwt_signer_init(&rig->signer, secret);
    assert_int_equal(jwks_encode(&jwks, &rig->signer, "k1"), OK);
    assert_int_equal(jwks_create(&rig->jwks, buffer_bytes(&jwks), "tests", "roost", &explanation),
                     OK);
    rig->options = (struct user_options){.server_name = "localhost",
                                         .encoding = encoding,
                                         .signer = &rig->signer,
                                         .key_id = "k1",
                                         .issuer = "tests",
                                         .audience = "roost",
                                         .name_prefix = "user-",
                                         .token_lifetime_ms = 3600000,
                                         .ack_messages = 4,
                                         .ack_delay_ms = 200,
                                         .handshake_ms = 5000,
                                         .backoff_ms_min = 1000,
                                         .backoff_ms_max = 8000,
                                         .message_bytes_max = 4096,
                                         .response_bytes_max = 65536,
                                         .seed = 42};
    assert_int_equal(tls_context_create_client(&rig->options.tls_context, NULL, &explanation), OK);
    assert_int_equal(user_engine_create(&rig->engine, &rig->options), OK);
    rig->chop = chop;
    rig->output = buffer_of(rig->output_bytes, sizeof rig->output_bytes);
    rig->now_ns = 1000 * NS_PER_S;
    user_engine_time(rig->engine, rig->now_ns, 1700000000000);
    user_init(&rig->user, 77, 0);
    *state = rig;
    return 0;
}

static int setup_binary(void **state)
{
    return setup_with(state, ENCODING_PROTO, 0);
}

static int setup_chopped(void **state)
{
    return setup_with(state, ENCODING_PROTO, 1);
}

static int setup_json(void **state)
{
    return setup_with(state, ENCODING_JSON, 0);
}

static int teardown(void **state)
{
    struct rig *rig = *state;
    char path[128];
    user_deinit(&rig->user, rig->engine);
    server_shut(rig);
    user_engine_destroy(rig->engine);
    websocket_engine_destroy(rig->server.websocket_engine);
    tls_engine_destroy(rig->server.tls_engine);
    tls_context_release(rig->server.context);
    tls_context_release(rig->options.tls_context);
    jwks_release(rig->jwks);
    (void)snprintf(path, sizeof path, "%s/c.pem", rig->directory);
    (void)unlink(path);
    (void)snprintf(path, sizeof path, "%s/k.pem", rig->directory);
    (void)unlink(path);
    (void)rmdir(rig->directory);
    free(rig);
    return 0;
}

static void advance(struct rig *rig, uint64_t ms)
{
    rig->now_ns += ms * NS_PER_MS;
    user_engine_time(rig->engine, rig->now_ns, 1700000000000 + rig->now_ns / NS_PER_MS);
}

/* take: hand input to the user, collect events, note how it ended. */
static void take(struct rig *rig, struct bytes input)
{
    struct user_event event;
    enum err err;
    while ((err = user_receive(&rig->user, rig->engine, &input, &rig->output, &event)) == OK) {
        assert_in_range(rig->event_count, 0, REQUESTS_MAX - 1);
        if (event.message != NULL)
            rig->messages[rig->event_count] = *event.message;
        rig->events[rig->event_count++] = event;
    }
    if (err != ERR_AGAIN)
        rig->end = err;
}

/* pump: carry bytes both ways until nothing moves. */
static void pump(struct rig *rig)
{
    static uint8_t bytes[WIRE_BYTES];
    for (bool more = true; more && rig->end == OK;) {
        more = false;
        while (user_flush(&rig->user, rig->engine, &rig->output) == ERR_FULL)
            continue;
        if (rig->output.size != 0) {
            server_receive(rig, buffer_bytes(&rig->output));
            rig->output.size = 0;
            more = true;
        }
        size_t size = rig->server.out.size;
        memcpy(bytes, rig->server.out_bytes, size);
        rig->server.out.size = 0;
        for (size_t at = 0; at < size && rig->end == OK;) {
            size_t part = rig->chop == 0 || rig->chop > size - at ? size - at : rig->chop;
            take(rig, bytes_of(bytes + at, part));
            at += part;
            more = true;
        }
    }
}

static void connect_user(struct rig *rig)
{
    server_open(rig);
    rig->end = OK;
    user_connecting(&rig->user, rig->engine);
    assert_int_equal(user_connected(&rig->user, rig->engine, &rig->output), OK);
    pump(rig);
}

static void lose(struct rig *rig)
{
    user_lost(&rig->user, rig->engine);
    server_shut(rig);
    rig->output.size = 0;
    rig->event_count = 0;
}

static uint32_t count_requests(const struct rig *rig, enum request_kind kind)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < rig->server.request_count; i++)
        count += rig->server.requests[i].kind == kind;
    return count;
}

static const struct request *last_request(const struct rig *rig, enum request_kind kind)
{
    for (uint32_t i = rig->server.request_count; i > 0; i--)
        if (rig->server.requests[i - 1].kind == kind)
            return &rig->server.requests[i - 1];
    fail_msg("no request of kind %d came", (int)kind);
    return NULL;
}

static void tick(struct rig *rig)
{
    assert_int_equal(user_tick(&rig->user, rig->engine), OK);
    pump(rig);
}

/* ---- tests */

static void becomes_ready(void **state)
{
    struct rig *rig = *state;
    connect_user(rig);
    assert_int_equal(rig->end, OK);
    assert_int_equal(rig->user.state, USER_READY);
    assert_int_equal(rig->user.id.v, SERVER_USER.v);
    assert_int_equal(rig->event_count, 1);
    assert_int_equal(rig->events[0].kind, USER_EVENT_READY);
    assert_string_equal(rig->server.subject, "user-77");
    assert_string_equal(user_engine_server(rig->engine), "fake 1");
    assert_string_equal(user_tls_version(&rig->user), "TLSv1.3");
    assert_int_equal(last_request(rig, REQUEST_HELLO)->hello.device_key.size, 2);
}

static void sends_and_is_acknowledged(void **state)
{
    struct rig *rig = *state;
    struct bytes content;
    uint64_t intended = 0;
    connect_user(rig);
    assert_int_equal(user_send(&rig->user, rig->engine, OTHER_USER, 100, 12345), OK);
    assert_false(user_quiet(&rig->user));
    pump(rig);
    const struct send *send = &last_request(rig, REQUEST_SEND)->send;
    assert_int_equal(send->to_user.v, OTHER_USER.v);
    assert_int_equal(protocol_payload_content(&content, send->payload), OK);
    assert_int_equal(content.size, 100);
    assert_int_equal(oracle_content_check(content, conversation_id_direct(SERVER_USER, OTHER_USER),
                                          &send->message_id, SERVER_USER, &intended),
                     OK);
    assert_int_equal(intended, 12345);
    assert_int_equal(rig->event_count, 2);
    assert_int_equal(rig->events[1].kind, USER_EVENT_ACKED);
    assert_int_equal(rig->events[1].seq, 7);
    assert_int_equal(rig->events[1].intended_ns, 12345);
    assert_true(user_quiet(&rig->user));
}

static void confirms_once_for_several_messages(void **state)
{
    struct rig *rig = *state;
    connect_user(rig);
    server_message(&rig->server, 1);
    server_message(&rig->server, 2);
    pump(rig);
    assert_int_equal(rig->events[2].kind, USER_EVENT_MESSAGE);
    assert_int_equal(rig->messages[2].seq, 2);
    tick(rig);
    assert_int_equal(count_requests(rig, REQUEST_WATERMARK), 0);
    assert_true(user_due_ns(&rig->user) <= rig->now_ns + 200 * NS_PER_MS);
    advance(rig, 200);
    tick(rig);
    assert_int_equal(count_requests(rig, REQUEST_WATERMARK), 1);
    assert_int_equal(last_request(rig, REQUEST_WATERMARK)->watermark.delivered_seq, 2);
    advance(rig, 1000);
    tick(rig);
    assert_int_equal(count_requests(rig, REQUEST_WATERMARK), 1);
}

static void confirms_at_once_after_enough_messages(void **state)
{
    struct rig *rig = *state;
    connect_user(rig);
    for (uint64_t seq = 1; seq <= 4; seq++)
        server_message(&rig->server, seq);
    pump(rig);
    assert_int_equal(last_request(rig, REQUEST_WATERMARK)->watermark.delivered_seq, 4);
}

static void confirms_again_what_is_pushed_again(void **state)
{
    struct rig *rig = *state;
    connect_user(rig);
    for (uint64_t seq = 1; seq <= 4; seq++)
        server_message(&rig->server, seq);
    pump(rig);
    lose(rig);
    connect_user(rig);
    server_message(&rig->server, 3);
    server_message(&rig->server, 4);
    pump(rig);
    advance(rig, 200);
    tick(rig);
    assert_int_equal(count_requests(rig, REQUEST_WATERMARK), 1);
    assert_int_equal(last_request(rig, REQUEST_WATERMARK)->watermark.delivered_seq, 4);
}

static void beats_and_notices_silence(void **state)
{
    struct rig *rig = *state;
    connect_user(rig);
    for (int i = 0; i < 5; i++) { /* answered pings keep it alive */
        advance(rig, HEARTBEAT_MS);
        tick(rig);
    }
    assert_int_equal(count_requests(rig, REQUEST_PING), 5);
    rig->server.silent = true;
    advance(rig, HEARTBEAT_MS * 2);
    tick(rig);
    advance(rig, HEARTBEAT_MS);
    assert_int_equal(user_tick(&rig->user, rig->engine), ERR_TIMEOUT);
    assert_non_null(strstr(user_failure(rig->engine), "silence"));
}

static void answers_websocket_pings(void **state)
{
    struct rig *rig = *state;
    connect_user(rig);
    server_frame(&rig->server, WEBSOCKET_PING, bytes_of_text("are you there"));
    pump(rig);
    assert_int_equal(rig->server.pongs, 1);
}

static void gives_up_a_handshake_that_takes_too_long(void **state)
{
    struct rig *rig = *state;
    server_open(rig);
    user_connecting(&rig->user, rig->engine);
    assert_int_equal(user_connected(&rig->user, rig->engine, &rig->output), OK);
    advance(rig, 4999);
    assert_int_equal(user_tick(&rig->user, rig->engine), OK);
    assert_int_equal(user_due_ns(&rig->user), rig->now_ns + NS_PER_MS);
    advance(rig, 1);
    assert_int_equal(user_tick(&rig->user, rig->engine), ERR_TIMEOUT);
}

static void repeats_unacknowledged_sends_with_their_ids(void **state)
{
    struct rig *rig = *state;
    connect_user(rig);
    rig->server.silent = true;
    assert_int_equal(user_send(&rig->user, rig->engine, OTHER_USER, 64, 1), OK);
    assert_int_equal(user_send(&rig->user, rig->engine, OTHER_USER, 64, 2), OK);
    pump(rig);
    assert_int_equal(count_requests(rig, REQUEST_SEND), 2);
    struct message_id newest = last_request(rig, REQUEST_SEND)->send.message_id;
    lose(rig);
    rig->server.silent = false;
    connect_user(rig);
    assert_int_equal(count_requests(rig, REQUEST_SEND), 2);
    assert_memory_equal(last_request(rig, REQUEST_SEND)->send.message_id.v, newest.v, 16);
    assert_int_equal(last_request(rig, REQUEST_HELLO)->hello.store_epoch.size, 16);
    assert_true(user_quiet(&rig->user));
}

static void takes_on_no_more_than_its_bound(void **state)
{
    struct rig *rig = *state;
    for (int i = 0; i < USER_SENDS_MAX; i++)
        assert_int_equal(user_send(&rig->user, rig->engine, OTHER_USER, 64, 1), OK);
    assert_int_equal(user_send(&rig->user, rig->engine, OTHER_USER, 64, 1), ERR_FULL);
}

static void backs_off_with_jitter(void **state)
{
    struct rig *rig = *state;
    uint64_t limit_ms = 1000;
    for (int i = 0; i < 8; i++) {
        server_open(rig);
        user_connecting(&rig->user, rig->engine);
        assert_int_equal(user_connected(&rig->user, rig->engine, &rig->output), OK);
        lose(rig);
        uint64_t wait_ms = (user_due_ns(&rig->user) - rig->now_ns) / NS_PER_MS;
        assert_in_range(wait_ms, limit_ms / 2, limit_ms);
        limit_ms = limit_ms * 2 > 8000 ? 8000 : limit_ms * 2;
    }
    connect_user(rig); /* ready: begins anew */
    lose(rig);
    assert_in_range((user_due_ns(&rig->user) - rig->now_ns) / NS_PER_MS, 500, 1000);
}

/* refuse: the newest request, a send. */
static void refuse(struct rig *rig, enum verdict verdict)
{
    const struct request *request = last_request(rig, REQUEST_SEND);
    struct event event = {
        .id = request->id,
        .kind = EVENT_ERROR,
        .error = {.code = verdict == VERDICT_RETRY ? CODE_OVERLOADED : CODE_FORBIDDEN,
                  .verdict = verdict,
                  .retry_after_ms = verdict == VERDICT_RETRY ? 700 : 0,
                  .has_message_id = true,
                  .message_id = request->send.message_id,
                  .text = bytes_of_text("no")}};
    server_event(&rig->server, &event);
    pump(rig);
}

static void refused(struct rig *rig, enum verdict verdict)
{
    rig->server.silent = true;
    assert_int_equal(user_send(&rig->user, rig->engine, OTHER_USER, 64, 1), OK);
    pump(rig);
    refuse(rig, verdict);
}

/* Once to twice the time it was told, doubled with each refusal, up to the longest back-off. */
static void repeats_a_send_refused_for_now(void **state)
{
    struct rig *rig = *state;
    uint32_t longest_ms = 1400;
    connect_user(rig);
    refused(rig, VERDICT_RETRY);
    assert_int_equal(rig->events[1].kind, USER_EVENT_RETRY);
    assert_int_equal(rig->events[1].code, CODE_OVERLOADED);
    for (uint32_t i = 1; i <= 5; i++) {
        advance(rig, longest_ms / 2 - 1);
        tick(rig);
        assert_int_equal(count_requests(rig, REQUEST_SEND), i);
        rig->server.silent = i < 5;
        advance(rig, longest_ms - (longest_ms / 2 - 1));
        tick(rig);
        assert_int_equal(count_requests(rig, REQUEST_SEND), i + 1);
        if (i < 5)
            refuse(rig, VERDICT_RETRY);
        longest_ms = longest_ms * 2 > 8000 ? 8000 : longest_ms * 2;
    }
    assert_true(user_quiet(&rig->user));
}

/* Some, once, also after a new connection, and says what was acknowledged first. */
static void repeats_some_acknowledged_sends(void **state)
{
    struct rig *rig = *state;
    connect_user(rig);
    rig->options.repeat_ms = 5000;
    for (uint32_t i = 0; i < 12; i++) {
        assert_int_equal(user_send(&rig->user, rig->engine, OTHER_USER, 64, 1), OK);
        pump(rig);
    }
    uint32_t events = rig->event_count;
    uint32_t repeats = rig->user.send_count;
    assert_int_equal(events, 13);
    assert_in_range(repeats, 1, 6);
    advance(rig, 4999);
    tick(rig);
    assert_int_equal(count_requests(rig, REQUEST_SEND), 12);
    advance(rig, 1);
    tick(rig);
    assert_int_equal(count_requests(rig, REQUEST_SEND), 12 + repeats);
    assert_int_equal(rig->event_count, events + repeats);
    assert_int_equal(rig->events[1].first_seq, 0);
    assert_int_equal(rig->events[events].kind, USER_EVENT_ACKED);
    assert_int_equal(rig->events[events].first_seq, 7);
    assert_true(user_quiet(&rig->user));
}

/* Each at its own time, not all that were refused at once. */
static void repeats_refused_sends_apart(void **state)
{
    struct rig *rig = *state;
    uint32_t distinct = 0;
    connect_user(rig);
    for (uint32_t i = 0; i < 8; i++)
        refused(rig, VERDICT_RETRY);
    uint32_t count = count_requests(rig, REQUEST_SEND);
    assert_int_equal(count, 8);
    rig->server.silent = false;
    for (uint32_t ms = 0; ms < 1400; ms++) {
        advance(rig, 1);
        tick(rig);
        distinct += count_requests(rig, REQUEST_SEND) > count ? 1 : 0;
        count = count_requests(rig, REQUEST_SEND);
    }
    assert_int_equal(count, 16);
    assert_true(distinct >= 6);
    assert_true(user_quiet(&rig->user));
}

static void gives_up_a_send_refused_for_good(void **state)
{
    struct rig *rig = *state;
    connect_user(rig);
    refused(rig, VERDICT_FATAL);
    assert_int_equal(rig->events[1].kind, USER_EVENT_REFUSED);
    assert_true(user_quiet(&rig->user));
    assert_int_equal(rig->events[1].first_seq, 0);
    assert_non_null(strstr(user_failure(rig->engine), "FORBIDDEN"));
}

/* It is said which send that was, and under which number it had been acknowledged. */
static void tells_of_a_repeat_refused_for_good(void **state)
{
    struct rig *rig = *state;
    connect_user(rig);
    rig->options.repeat_ms = 5000;
    while (rig->user.send_count == 0) {
        assert_int_equal(user_send(&rig->user, rig->engine, OTHER_USER, 64, 1), OK);
        pump(rig);
    }
    uint32_t events = rig->event_count;
    rig->server.silent = true;
    advance(rig, 5000);
    tick(rig);
    refuse(rig, VERDICT_FATAL);
    assert_int_equal(rig->event_count, events + 1);
    const struct user_event *event = &rig->events[events];
    assert_int_equal(event->kind, USER_EVENT_REFUSED);
    assert_int_equal(event->first_seq, 7);
    assert_memory_equal(&event->id, &rig->events[events - 1].id, sizeof event->id);
    assert_true(conversation_id_equal(event->conversation,
                                      conversation_id_direct(SERVER_USER, OTHER_USER)));
    assert_true(user_quiet(&rig->user));
}

static void says_why_the_upgrade_failed(void **state)
{
    struct rig *rig = *state;
    rig->server.refuse_status = 503;
    connect_user(rig);
    assert_int_equal(rig->end, ERR_DENIED);
    assert_non_null(strstr(user_failure(rig->engine), "503"));
}

static void refuses_malformed_frames(void **state)
{
    struct rig *rig = *state;
    connect_user(rig);
    server_frame(&rig->server, WEBSOCKET_BINARY, bytes_of_text("\xff\xff\xff\xff"));
    pump(rig);
    assert_int_not_equal(rig->end, OK);
}

static void honours_goodbye(void **state)
{
    struct rig *rig = *state;
    struct event event = {
        .kind = EVENT_GOODBYE,
        .goodbye = {.code = CODE_SHUTTING_DOWN, .verdict = VERDICT_RETRY, .retry_after_ms = 60000}};
    connect_user(rig);
    server_event(&rig->server, &event);
    pump(rig);
    assert_int_equal(rig->end, ERR_CLOSED);
    assert_non_null(strstr(user_failure(rig->engine), "SHUTTING_DOWN"));
    lose(rig);
    assert_true(user_due_ns(&rig->user) >= rig->now_ns + 60 * NS_PER_S);
}

static void resumes_tls_if_asked(void **state)
{
    struct rig *rig = *state;
    connect_user(rig);
    lose(rig);
    connect_user(rig);
    assert_false(user_tls_resumed(&rig->user));
    lose(rig);
    rig->options.resume_tls = true;
    connect_user(rig);
    lose(rig);
    connect_user(rig);
    assert_int_equal(rig->user.state, USER_READY);
    assert_true(user_tls_resumed(&rig->user));
}

static void closes_in_order(void **state)
{
    struct rig *rig = *state;
    connect_user(rig);
    user_leave(&rig->user, rig->engine, &rig->output);
    assert_true(rig->output.size != 0);
    static uint8_t bytes[1024];
    struct buffer plaintext = buffer_of(bytes, sizeof bytes);
    struct bytes input = buffer_bytes(&rig->output);
    assert_int_equal(
        tls_receive(rig->server.tls, rig->server.tls_engine, &input, &plaintext, &rig->server.out),
        ERR_CLOSED);
    assert_int_equal(bytes[0], 0x88); /* a whole close frame */
}

static void idle_user_costs_little(void **state)
{
    struct rig *rig = *state;
    connect_user(rig); /* fills what the engines keep for all users */
    lose(rig);
    int64_t connection = memory_bytes(MEMORY_CONNECTION);
    int64_t tls = memory_bytes(MEMORY_TLS);
    connect_user(rig);
    assert_int_equal(rig->user.state, USER_READY);
    http_reader_destroy(rig->server.http);
    assert_true(sizeof(struct user) <= 256);
    assert_int_equal(memory_bytes(MEMORY_CONNECTION), connection);
    tls = memory_bytes(MEMORY_TLS) - tls;
    print_message("TLS of both ends after the handshake: %d bytes\n", (int)tls);
    assert_in_range(tls, 0, 9000);
    const struct http_limits limits = {4096, 32, 1024};
    assert_int_equal(http_reader_create(&rig->server.http, &limits, false), OK);
}

#define BINARY(name) cmocka_unit_test_setup_teardown(name, setup_binary, teardown)
#define ALL(name)                                                                                  \
    BINARY(name), cmocka_unit_test_setup_teardown(name, setup_chopped, teardown),                  \
        cmocka_unit_test_setup_teardown(name, setup_json, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ALL(becomes_ready),
        ALL(sends_and_is_acknowledged),
        ALL(confirms_once_for_several_messages),
        BINARY(confirms_at_once_after_enough_messages),
        BINARY(confirms_again_what_is_pushed_again),
        BINARY(beats_and_notices_silence),
        ALL(answers_websocket_pings),
        BINARY(gives_up_a_handshake_that_takes_too_long),
        ALL(repeats_unacknowledged_sends_with_their_ids),
        BINARY(takes_on_no_more_than_its_bound),
        BINARY(backs_off_with_jitter),
        BINARY(repeats_a_send_refused_for_now),
        BINARY(repeats_refused_sends_apart),
        BINARY(repeats_some_acknowledged_sends),
        BINARY(gives_up_a_send_refused_for_good),
        BINARY(tells_of_a_repeat_refused_for_good),
        ALL(says_why_the_upgrade_failed),
        ALL(refuses_malformed_frames),
        BINARY(honours_goodbye),
        BINARY(resumes_tls_if_asked),
        BINARY(closes_in_order),
        BINARY(idle_user_costs_little),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
