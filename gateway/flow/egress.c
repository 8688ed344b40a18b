/* egress.c: see egress.h. Per connection: elements (clear, one protocol frame) → plain (clear
 * frames) → cipher → flight. */
#include "gateway/flow/egress.h"

#include "gateway/flow/ingress.h"
#include "gateway/flow/migrate.h"
#include "gateway/flow/relay.h"
#include "gateway/flow/session.h"
#include "gateway/flow/shard.h"

enum err buffer_reserve(struct buffer *buffer, size_t more)
{
    if (buffer_room(buffer) >= more)
        return OK;
    size_t capacity = buffer->capacity * 2;
    if (capacity < buffer->size + more)
        capacity = buffer->size + more;
    if (capacity < 256)
        capacity = 256;
    uint8_t *grown = memory_resize(buffer->data, capacity, MEMORY_CONNECTION);
    if (grown == NULL)
        return ERR_NO_MEMORY;
    buffer->data = grown;
    buffer->capacity = capacity;
    return OK;
}

static void buffer_free(struct buffer *buffer)
{
    memory_give(buffer->data, MEMORY_CONNECTION);
    *buffer = (struct buffer){0};
}

void output_free(struct connection *connection)
{
    struct output *output = connection->output;
    if (output == NULL)
        return;
    CHECK(!output->sending);
    buffer_free(&output->elements);
    buffer_free(&output->plain);
    buffer_free(&output->cipher);
    buffer_free(&output->flight);
    memory_give(output, MEMORY_CONNECTION);
    connection->output = NULL;
}

size_t egress_unsent(const struct connection *connection)
{
    const struct output *output = connection->output;
    if (output == NULL)
        return 0;
    return output->elements.size + output->plain.size + output->cipher.size + output->flight.size;
}

static void list(struct shard *shard, struct connection *connection)
{
    if (connection->listed)
        return;
    connection->listed = true;
    connection->work_next = shard->work;
    shard->work = connection;
}

/* No memory: the flush aborts it. Not here: callers walk lists that an abort would change. */
static void doom(struct shard *shard, struct connection *connection)
{
    connection->doomed = true;
    list(shard, connection);
}

/* The output of a connection that may still speak, listed for the flush; NULL: drop what you wanted
 * to say. */
static struct output *output_of(struct shard *shard, struct connection *connection)
{
    if (connection->state == CONNECTION_DEAD || connection->close_sent || connection->doomed)
        return NULL;
    if (connection->output == NULL) {
        connection->output = memory_take_zeroed(sizeof *connection->output, MEMORY_CONNECTION);
        if (connection->output == NULL) {
            doom(shard, connection);
            return NULL;
        }
    }
    list(shard, connection);
    return connection->output;
}

static struct websocket_limits *limits_of(struct shard *shard, const struct connection *connection)
{
    return connection->state == CONNECTION_ECHO ? &shard->echo_limits : &shard->websocket_limits;
}

static enum err append_frame(struct shard *shard, struct connection *connection,
                             enum websocket_opcode opcode, struct bytes data)
{
    struct buffer *plain = &connection->output->plain;
    TRY(buffer_reserve(plain, data.size + WEBSOCKET_FRAME_OVERHEAD));
    return websocket_frame(plain, shard->websocket_engine, limits_of(shard, connection), opcode,
                           data);
}

/* Close the protocol frame being gathered and put it into a WebSocket frame. */
static enum err finish_frame(struct shard *shard, struct connection *connection)
{
    struct output *output = connection->output;
    if (output->element_count == 0)
        return OK;
    enum encoding encoding = (enum encoding)connection->encoding;
    TRY(buffer_reserve(&output->elements, PROTOCOL_ELEMENT_OVERHEAD));
    TRY(protocol_frame_close(&output->elements, encoding));
    TRY(append_frame(shard, connection,
                     encoding == ENCODING_PROTO ? WEBSOCKET_BINARY : WEBSOCKET_TEXT,
                     buffer_bytes(&output->elements)));
    output->elements.size = 0;
    output->element_count = 0;
    return OK;
}

static enum err add_element(struct shard *shard, struct connection *connection,
                            struct bytes encoded)
{
    struct output *output = connection->output;
    enum encoding encoding = (enum encoding)connection->encoding;
    if (output->element_count != 0 && output->elements.size + encoded.size > FRAME_BYTES)
        TRY(finish_frame(shard, connection));
    TRY(buffer_reserve(&output->elements, encoded.size + 2 * PROTOCOL_ELEMENT_OVERHEAD));
    bool first = output->element_count == 0;
    if (first)
        TRY(protocol_frame_open(&output->elements, encoding, true));
    TRY(protocol_frame_element(&output->elements, encoded, encoding, first));
    output->element_count++;
    return OK;
}

void egress_element(struct shard *shard, struct connection *connection, struct bytes encoded)
{
    if (output_of(shard, connection) == NULL)
        return;
    if (add_element(shard, connection, encoded) != OK)
        doom(shard, connection);
}

static struct bytes encode(struct shard *shard, enum encoding encoding, const struct event *event,
                           const struct event *otherwise)
{
    struct buffer out = buffer_of(shard->encoded[encoding], shard->encoded_bytes);
    enum err err = protocol_encode_event(&out, event, encoding);
    if (err == ERR_INVALID)
        err = protocol_encode_event(&out, otherwise, encoding);
    CHECK(err == OK); /* shard.c sizes the buffer by PROTOCOL_EVENT_BYTES */
    return buffer_bytes(&out);
}

void egress_event(struct shard *shard, struct connection *connection, const struct event *event)
{
    const struct event otherwise = {
        .id = event->id,
        .kind = EVENT_ERROR,
        .error = {.code = CODE_INTERNAL,
                  .verdict = code_verdict(CODE_INTERNAL),
                  .text = bytes_of_text("the answer holds what cannot be encoded")},
    };
    enum encoding encoding = (enum encoding)connection->encoding;
    egress_element(shard, connection, encode(shard, encoding, event, &otherwise));
}

struct bytes egress_encode_message(struct shard *shard, enum encoding encoding,
                                   const struct message *message)
{
    const struct event event = {.kind = EVENT_MESSAGE, .message = *message};
    const struct event otherwise = {
        .kind = EVENT_ERROR,
        .error = {.code = CODE_MISSING_RANGE,
                  .verdict = code_verdict(CODE_MISSING_RANGE),
                  .text = bytes_of_text("the stored message cannot be encoded"),
                  .conversation = message->conversation,
                  .from_seq = message->seq,
                  .to_seq = message->seq},
    };
    return encode(shard, encoding, &event, &otherwise);
}

void egress_frame(struct shard *shard, struct connection *connection, enum websocket_opcode opcode,
                  struct bytes data)
{
    if (output_of(shard, connection) == NULL)
        return;
    if (finish_frame(shard, connection) != OK ||
        append_frame(shard, connection, opcode, data) != OK)
        doom(shard, connection);
}

void egress_close_frame(struct shard *shard, struct connection *connection, uint16_t code,
                        const char *reason)
{
    struct output *output = output_of(shard, connection);
    if (output == NULL)
        return;
    if (finish_frame(shard, connection) != OK || buffer_reserve(&output->plain, 160) != OK ||
        websocket_frame_close(&output->plain, shard->websocket_engine, limits_of(shard, connection),
                              code, reason) != OK) {
        doom(shard, connection);
        return;
    }
    connection->close_sent = true;
}

void egress_plain(struct shard *shard, struct connection *connection, struct bytes data)
{
    struct output *output = output_of(shard, connection);
    if (output == NULL)
        return;
    if (buffer_reserve(&output->plain, data.size) != OK ||
        buffer_append(&output->plain, data) != OK)
        doom(shard, connection);
}

void egress_cipher(struct shard *shard, struct connection *connection, struct bytes data)
{
    struct output *output = output_of(shard, connection);
    if (output == NULL)
        return;
    if (buffer_reserve(&output->cipher, data.size) != OK ||
        buffer_append(&output->cipher, data) != OK)
        doom(shard, connection);
}

static enum err seal(struct shard *shard, struct connection *connection)
{
    struct output *output = connection->output;
    TRY(finish_frame(shard, connection));
    if (output->plain.size == 0)
        return OK;
    if (connection->remote) { /* sealed where its socket is */
        CHECK(output->cipher.size == 0);
        struct buffer empty = output->cipher;
        output->cipher = output->plain;
        output->plain = empty;
        return OK;
    }
    struct bytes clear = buffer_bytes(&output->plain);
    TRY(buffer_reserve(&output->cipher,
                       clear.size + TLS_RECORD_OVERHEAD * (clear.size / 16384 + 2)));
    enum err err = tls_send(connection->tls, shard->tls_engine, &clear, &output->cipher);
    while (err == ERR_FULL) {
        TRY(buffer_reserve(&output->cipher, clear.size + 16384 + TLS_RECORD_OVERHEAD));
        err = tls_send(connection->tls, shard->tls_engine, &clear, &output->cipher);
    }
    output->plain.size = 0;
    return err;
}

/* Our last words are sealed: say so in TLS too, so that nobody can cut the stream short unnoticed
 * (RFC 8446 6.1). */
static void say_close_notify(struct shard *shard, struct connection *connection)
{
    if (connection->state != CONNECTION_CLOSING || connection->notified || connection->remote)
        return;
    connection->notified = true;
    if (tls_established(connection->tls) && buffer_reserve(&connection->output->cipher, 128) == OK)
        tls_close(connection->tls, shard->tls_engine, &connection->output->cipher);
}

/* Nothing is left to send. */
static void drained(struct shard *shard, struct connection *connection)
{
    output_free(connection);
    if (connection->state == CONNECTION_CLOSING) {
        if (connection->peer_closed || connection->remote)
            connection_abort(shard, connection);
        return; /* else the peer closes, or the timer does */
    }
    if (connection->state == CONNECTION_RELAYED) {
        relay_drained(shard, connection);
        return;
    }
    if (connection->state == CONNECTION_MOVING) {
        migrate_go(shard, connection);
        return;
    }
    if (connection->state == CONNECTION_SESSION)
        session_go_on(shard, connection->session);
    /* what waited for room; a frame behind an exchange or a hello waits for that */
    if (connection->state == CONNECTION_ECHO)
        connection_arm(shard, connection);
    else if (connection->state == CONNECTION_SESSION || connection->state == CONNECTION_HTTP ||
             connection->state == CONNECTION_UPGRADED)
        ingress_go_on(shard, connection);
}

static void flush_one(struct shard *shard, struct connection *connection)
{
    struct output *output = connection->output;
    if (connection->state == CONNECTION_DEAD)
        return;
    if (connection->doomed) {
        connection_abort(shard, connection);
        return;
    }
    if (output == NULL || output->sending)
        return;
    if (seal(shard, connection) != OK) {
        connection_abort(shard, connection);
        return;
    }
    say_close_notify(shard, connection);
    if (output->cipher.size == 0) {
        drained(shard, connection);
        return;
    }
    struct buffer empty = output->flight;
    output->flight = output->cipher;
    output->cipher = empty;
    output->sending = true;
    if (connection->remote) {
        relay_send(shard, connection, buffer_bytes(&output->flight));
        return;
    }
    shard_count(shard, METRIC_BYTES_SENT, output->flight.size);
    io_send(shard->io, connection->io, buffer_bytes(&output->flight));
}

void egress_flush(struct shard *shard)
{
    while (shard->work != NULL) {
        struct connection *connection = shard->work;
        shard->work = connection->work_next;
        connection->listed = false;
        flush_one(shard, connection);
    }
}

void egress_on_sent(struct shard *shard, struct connection *connection, enum err err)
{
    struct output *output = connection->output;
    CHECK(output != NULL && output->sending);
    output->sending = false;
    output->flight.size = 0;
    if (connection->state == CONNECTION_DEAD)
        return;
    if (err != OK) {
        connection_abort(shard, connection);
        return;
    }
    list(shard, connection);
}
