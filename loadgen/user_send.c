/* user_send.c: what is due becomes one frame of as much as has room. */
#include "loadgen/user_private.h"

#include "core/memory.h"
#include "core/text.h"
#include "loadgen/oracle.h"

#include <inttypes.h>
#include <stdio.h>

#define TOKEN_BYTES  1024
#define CLOSE_NORMAL 1000

/* ---- TLS */

enum err user_seal(struct user *user, struct user_engine *engine, struct bytes plaintext,
                   struct buffer *output)
{
    size_t size = output->size;
    enum err err = tls_send(user->tls, engine->tls, &plaintext, output);
    if (err == ERR_FULL)
        output->size = size; /* only before anything was sealed: room was checked */
    return err == OK ? OK : user_fail(engine, err, "TLS cannot seal: %s", err_name(err));
}

size_t user_sealed_bytes(size_t plaintext)
{
    return plaintext + (plaintext / 16384 + 1) * TLS_RECORD_OVERHEAD;
}

/* ---- messages */

enum err user_send(struct user *user, struct user_engine *engine, struct user_id to, uint32_t size,
                   uint64_t intended_ns)
{
    if (user->send_count == USER_SENDS_MAX)
        return ERR_FULL;
    struct user_send *send = memory_take_zeroed(sizeof *send, MEMORY_CONNECTION);
    if (send == NULL)
        return ERR_NO_MEMORY;
    uint8_t random[10];
    user_entropy(engine, random, sizeof random);
    uuid_make_v7(send->id.v, engine->wall_ms, random);
    send->to = to;
    send->intended_ns = intended_ns;
    send->size = size;
    if (user->sends_tail == NULL)
        user->sends = send;
    else
        user->sends_tail->next = send;
    user->sends_tail = send;
    user->send_count++;
    user->unsent++;
    return OK;
}

static enum err flush_upgrade(struct user *user, struct user_engine *engine, struct buffer *output)
{
    uint8_t nonce[16];
    user_entropy(engine, nonce, sizeof nonce);
    uint8_t key[32];
    struct buffer text = buffer_of(key, sizeof key);
    TRY(base64_encode(&text, bytes_of(nonce, sizeof nonce)));
    int size =
        snprintf((char *)engine->wire.data, engine->wire.capacity,
                 "GET /connect HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\n"
                 "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                 "Sec-WebSocket-Key: %.*s\r\nSec-WebSocket-Protocol: %s\r\n\r\n",
                 engine->options->server_name, (int)text.size, (const char *)key,
                 engine->options->encoding == ENCODING_JSON ? SUBPROTOCOL_JSON : SUBPROTOCOL_PROTO);
    CHECK(size > 0 && (size_t)size < engine->wire.capacity);
    if (buffer_room(output) < user_sealed_bytes((size_t)size))
        return ERR_FULL;
    TRY(user_seal(user, engine, bytes_of(engine->wire.data, (size_t)size), output));
    user->want &= (uint8_t)~WANT_UPGRADE;
    return OK;
}

/* frame_add: encode request as the frame's next element; ERR_FULL: the frame has no room for it. */
static enum err frame_add(struct user_engine *engine, const struct request *request,
                          uint32_t *count)
{
    engine->element.size = 0;
    size_t size = engine->frame.size;
    TRY(protocol_encode_request(&engine->element, request, engine->options->encoding));
    enum err err = protocol_frame_element(&engine->frame, buffer_bytes(&engine->element),
                                          engine->options->encoding, *count == 0);
    if (err != OK) {
        engine->frame.size = size;
        return err;
    }
    *count += 1;
    return OK;
}

static size_t framed_bytes(size_t frame)
{
    return user_sealed_bytes(frame + WEBSOCKET_FRAME_OVERHEAD + 2 * PROTOCOL_ELEMENT_OVERHEAD);
}

static enum err frame_seal(struct user *user, struct user_engine *engine, struct buffer *output)
{
    bool json = engine->options->encoding == ENCODING_JSON;
    TRY(protocol_frame_close(&engine->frame, engine->options->encoding));
    engine->wire.size = 0;
    TRY(websocket_frame(&engine->wire, engine->websocket, &engine->limits,
                        json ? WEBSOCKET_TEXT : WEBSOCKET_BINARY, buffer_bytes(&engine->frame)));
    return user_seal(user, engine, buffer_bytes(&engine->wire), output);
}

static enum err flush_hello(struct user *user, struct user_engine *engine, struct buffer *output)
{
    const struct user_options *options = engine->options;
    char name[USER_NAME_BYTES];
    char device[16];
    uint8_t token_bytes[TOKEN_BYTES];
    struct buffer token = buffer_of(token_bytes, sizeof token_bytes);
    (void)snprintf(name, sizeof name, "%s%" PRIu32, options->name_prefix, user->index);
    (void)snprintf(device, sizeof device, "d%" PRIu32, user->device);
    if (buffer_room(output) < USER_HELLO_BYTES)
        return ERR_FULL;
    TRY(jwt_sign_external(&token, options->signer, options->key_id, options->issuer,
                          options->audience, name, device, engine->wall_ms,
                          options->token_lifetime_ms));
    struct request request = {
        .id = ++user->request_id,
        .kind = REQUEST_HELLO,
        .hello = {.token = buffer_bytes(&token),
                  .device_key = bytes_of_text(device),
                  .store_epoch = engine->has_epoch && user->connection > 1
                                     ? bytes_of(engine->store_epoch, sizeof engine->store_epoch)
                                     : (struct bytes){NULL, 0},
                  .heartbeat_ms = options->heartbeat_ms,
                  .client = bytes_of_text("roost-loadgen")}};
    uint32_t count = 0;
    engine->frame.size = 0;
    TRY(protocol_frame_open(&engine->frame, options->encoding, false));
    TRY(frame_add(engine, &request, &count));
    if (buffer_room(output) < framed_bytes(engine->frame.size))
        return ERR_FULL;
    TRY(frame_seal(user, engine, output));
    user->want &= (uint8_t)~WANT_HELLO;
    return OK;
}

static enum err add_setting(struct user *user, struct user_engine *engine, struct user_send *send,
                            uint32_t *count)
{
    struct request request = {.id = ++user->request_id,
                              .kind = REQUEST_SET_RETENTION,
                              .set_retention = {.has_message_id = true,
                                                .message_id = send->id,
                                                .to_user = send->to,
                                                .has_retention = true}};
    oracle_setting(&request.set_retention.retention, conversation_id_direct(user->id, send->to),
                   &send->id, user->id, engine->options->tight_settings);
    TRY(frame_add(engine, &request, count));
    send->request = user->request_id;
    return OK;
}

static enum err add_send(struct user *user, struct user_engine *engine, struct user_send *send,
                         uint32_t *count)
{
    uint8_t *content_start = engine->wire.data; /* free until frame_seal */
    struct buffer content = buffer_of(content_start, engine->wire.capacity);
    if (send->size == 0)
        return add_setting(user, engine, send, count);
    TRY(oracle_content(&content, send->size, conversation_id_direct(user->id, send->to), &send->id,
                       user->id, send->intended_ns));
    engine->payload.size = 0;
    TRY(protocol_payload_text(&engine->payload, buffer_bytes(&content)));
    struct request request = {
        .id = ++user->request_id,
        .kind = REQUEST_SEND,
        .send = {.has_message_id = true,
                 .message_id = send->id,
                 .to_user = send->to,
                 .expires_ms = engine->options->expiring ? oracle_expiry(&send->id) : 0,
                 .payload = buffer_bytes(&engine->payload)}};
    TRY(frame_add(engine, &request, count));
    send->request = user->request_id;
    return OK;
}

struct batch {
    struct user_send *sends[REQUESTS_MAX];
    struct user_watermark *watermarks[REQUESTS_MAX];
    uint32_t send_count;
    uint32_t watermark_count;
    uint32_t count;
    bool ping;
    bool range;
    bool full; /* more is due than went in */
};

/* batch_add: OK: in; otherwise the batch is full, and *full says so. */
static bool batch_room(struct user_engine *engine, struct batch *batch, enum err err, size_t size,
                       struct buffer *output)
{
    if (err == OK && buffer_room(output) >= framed_bytes(engine->frame.size))
        return true;
    if (err == OK) {
        engine->frame.size = size; /* does not fit the output: out again */
        batch->count--;
    }
    batch->full = true;
    return false;
}

static bool batch_one(struct user_engine *engine, struct batch *batch,
                      const struct request *request, struct buffer *output)
{
    size_t size = engine->frame.size;
    enum err err = frame_add(engine, request, &batch->count);
    return batch_room(engine, batch, err, size, output);
}

static void batch_watermarks(struct user *user, struct user_engine *engine, struct batch *batch,
                             struct buffer *output)
{
    for (uint32_t i = 0; i < user->watermark_count && !batch->full; i++) {
        struct user_watermark *watermark = &user->watermarks[i];
        if (watermark->told >= watermark->received)
            continue;
        if (batch->count == engine->requests_max) {
            batch->full = true;
            return;
        }
        struct request request = {.kind = REQUEST_WATERMARK,
                                  .watermark = {.conversation = watermark->conversation,
                                                .delivered_seq = watermark->received}};
        size_t size = engine->frame.size;
        enum err err = frame_add(engine, &request, &batch->count);
        if (batch_room(engine, batch, err, size, output))
            batch->watermarks[batch->watermark_count++] = watermark;
    }
}

static void batch_sends(struct user *user, struct user_engine *engine, struct batch *batch,
                        struct buffer *output)
{
    for (struct user_send *send = user->sends; send != NULL && !batch->full; send = send->next) {
        if (send->sent || send->retry_ns != 0)
            continue;
        if (batch->count == engine->requests_max) {
            batch->full = true;
            return;
        }
        size_t size = engine->frame.size;
        enum err err = add_send(user, engine, send, &batch->count);
        if (batch_room(engine, batch, err, size, output))
            batch->sends[batch->send_count++] = send;
    }
}

static void batch_done(struct user *user, struct user_engine *engine, const struct batch *batch,
                       bool watermarks)
{
    for (uint32_t i = 0; i < batch->watermark_count; i++)
        batch->watermarks[i]->told = batch->watermarks[i]->received;
    for (uint32_t i = 0; i < batch->send_count; i++) {
        batch->sends[i]->sent = true;
        user->unsent--;
    }
    if (batch->ping)
        user->want &= (uint8_t)~WANT_PING;
    if (batch->range)
        user->want &= (uint8_t)~WANT_RANGE;
    if (watermarks && !batch->full) {
        user->ack_ns = 0;
        user->unacked_messages = 0;
    }
    /* everything sent says that this device is alive */
    user->ping_ns = engine->now_ns + user->heartbeat_ms * NS_PER_MS;
}

static enum err flush_requests(struct user *user, struct user_engine *engine, struct buffer *output)
{
    struct batch batch = {0};
    bool watermarks = user->ack_ns != 0 && user->ack_ns <= engine->now_ns;
    engine->frame.size = 0;
    TRY(protocol_frame_open(&engine->frame, engine->options->encoding, false));
    if ((user->want & WANT_PING) != 0) {
        struct request request = {
            .id = ++user->request_id, .kind = REQUEST_PING, .ping = {.time_ms = engine->wall_ms}};
        batch.ping = batch_one(engine, &batch, &request, output);
    }
    if ((user->want & WANT_RANGE) != 0 && !batch.full) {
        struct request request = {
            .id = ++user->request_id,
            .kind = REQUEST_RANGE,
            .range = {.conversation = user->watermarks[user->asked].conversation,
                      .from_seq = user->asked_seq}};
        batch.range = batch_one(engine, &batch, &request, output);
    }
    if (watermarks && !batch.full)
        batch_watermarks(user, engine, &batch, output);
    if (!batch.full)
        batch_sends(user, engine, &batch, output);
    if (batch.count != 0)
        TRY(frame_seal(user, engine, output));
    if (batch.count != 0 || !batch.full)
        batch_done(user, engine, &batch, watermarks);
    return batch.full ? ERR_FULL : OK;
}

enum err user_flush(struct user *user, struct user_engine *engine, struct buffer *output)
{
    if ((user->want & WANT_UPGRADE) != 0)
        return flush_upgrade(user, engine, output);
    if ((user->want & WANT_HELLO) != 0)
        return flush_hello(user, engine, output);
    if (user->state != USER_READY)
        return OK;
    bool watermarks = user->ack_ns != 0 && user->ack_ns <= engine->now_ns;
    if (user->unsent == 0 && !watermarks && (user->want & (WANT_PING | WANT_RANGE)) == 0)
        return OK;
    return flush_requests(user, engine, output);
}

void user_leave(struct user *user, struct user_engine *engine, struct buffer *output)
{
    if (user->tls == NULL || !tls_established(user->tls))
        return;
    engine->wire.size = 0;
    if (user->state >= USER_WELCOME && buffer_room(output) >= user_sealed_bytes(32) &&
        websocket_frame_close(&engine->wire, engine->websocket, &engine->limits, CLOSE_NORMAL,
                              "") == OK &&
        user_seal(user, engine, buffer_bytes(&engine->wire), output) != OK)
        return;
    tls_close(user->tls, engine->tls, output);
}
