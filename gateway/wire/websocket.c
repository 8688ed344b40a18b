/* websocket.c: how a frame passes.
 *   header   its bytes are gathered (2 to 14, they may come one by one) and judged as soon as they
 *            are there: reserved bits and opcode with the first byte, mask and control rules with
 * the second, length and limits with the last; so nothing is buffered for a frame that will be
 * refused payload  the header goes to wslay, then the payload through its 4 KiB buffer, where it is
 *            unmasked; text is checked as UTF-8 piece by piece (fail fast, RFC 6455 8.1)
 *   message  one frame that wslay hands out in one piece is lent from there; one frame that is
 * wholly in the input is gathered in the engine's scratch; else in the parser's own buffer, which
 *            grows as bytes arrive and never past message_bytes_max
 * wslay is never given a byte behind the frame it is in (recv_from_input), so between frames its
 * buffer is empty and the parser can be lent to any other connection.
 *
 * A parser's frame:  HEADER → PAYLOAD → HEADER …   A message: IDLE → first frame → (more fragments,
 * control frames between them) → handed out → IDLE; any → failed: the parser is destroyed. */
#include "gateway/wire/websocket.h"

#include "core/memory.h"
#include "core/text.h"

#include <openssl/sha.h>
#include <wslay/wslay.h>

#define SPARES_MAX        32      /* of 4.6 KB: as many incomplete frames as a turn usually has */
#define SCRATCH_KEPT_MAX  1048576 /* a bigger scratch is given back with the next message */
#define CONTROL_BYTES_MAX 125     /* RFC 6455 5.5 */
#define HEADER_BYTES_MAX  14
#define GATHER_BYTES_MIN  512

enum { CODE_PROTOCOL = 1002, CODE_NO_STATUS = 1005, CODE_UTF8 = 1007, CODE_TOO_LARGE = 1009 };
enum { CODE_INTERNAL_ERROR = 1011 };
enum { OPCODE_CONTINUATION = 0 };

/* struct utf8: where a stream of text stands: how many continuation bytes are due and between which
 * bounds the next one must be (RFC 3629 4). */
struct utf8 {
    uint8_t due;
    uint8_t low;
    uint8_t high;
};

struct websocket_parser {
    struct wslay_frame_context *frames;
    struct websocket_parser *next_spare;
    /* the frame */
    struct bytes header_rest; /* not yet given to wslay */
    struct bytes *input;      /* of the call at work */
    uint64_t payload_left;    /* not yet given to wslay */
    uint64_t payload_bytes;
    uint8_t header[HEADER_BYTES_MAX];
    uint8_t header_size;
    uint8_t opcode;
    bool fin;
    bool in_payload;
    /* the message around it */
    uint8_t message_opcode; /* 0: none was begun */
    struct utf8 utf8;
    uint32_t fragments;
    struct buffer gathered; /* its frames so far; data NULL: nothing */
    /* a control frame */
    uint8_t control_size;
    uint8_t control[CONTROL_BYTES_MAX];
};

struct websocket_engine {
    struct websocket_parser *spares;
    uint32_t spare_count;
    struct buffer scratch; /* messages that one input holds, and those just handed out */
    /* wslay goes on masking after one masked frame: a context for each direction */
    struct wslay_frame_context *senders[2];
    struct buffer *out; /* of the websocket_frame at work */
    void (*entropy)(void *context, void *out, size_t size);
    void *context;
};

/* ---- UTF-8 */

/* utf8_lead: what a first byte asks for; false: no character begins with it. */
static bool utf8_lead(struct utf8 *utf8, uint8_t byte)
{
    utf8->low = 0x80;
    utf8->high = 0xbf;
    if (byte < 0xc2 || byte > 0xf4)
        return false;
    if (byte < 0xe0) {
        utf8->due = 1;
    } else if (byte < 0xf0) {
        utf8->due = 2;
        if (byte == 0xe0)
            utf8->low = 0xa0; /* overlong */
        if (byte == 0xed)
            utf8->high = 0x9f; /* surrogates */
    } else {
        utf8->due = 3;
        if (byte == 0xf0)
            utf8->low = 0x90; /* overlong */
        if (byte == 0xf4)
            utf8->high = 0x8f; /* above U+10FFFF */
    }
    return true;
}

/* utf8_feed: false as soon as a byte cannot belong to valid text. */
static bool utf8_feed(struct utf8 *utf8, const uint8_t *data, size_t size)
{
    size_t at = 0;
    while (at < size) {
        if (utf8->due == 0) {
            while (at + 8 <= size && (load_u64(data + at) & 0x8080808080808080ull) == 0)
                at += 8;
            if (at == size)
                break;
            if (data[at] >= 0x80 && !utf8_lead(utf8, data[at]))
                return false;
        } else {
            if (data[at] < utf8->low || data[at] > utf8->high)
                return false;
            utf8->due--;
            utf8->low = 0x80;
            utf8->high = 0xbf;
        }
        at++;
    }
    return true;
}

/* ---- wslay's callbacks */

/* recv_from_input: the header, then the payload; never more than the frame has. */
static ssize_t recv_from_input(uint8_t *target, size_t size, int flags, void *context)
{
    (void)flags;
    struct websocket_parser *p = context;
    struct bytes *source = p->header_rest.size != 0 ? &p->header_rest : p->input;
    size_t count = source->size < size ? source->size : size;
    if (source == p->input) {
        if (count > p->payload_left)
            count = (size_t)p->payload_left;
        p->payload_left -= count;
    }
    if (count == 0)
        return -1;
    memcpy(target, source->data, count);
    *source = bytes_skip(*source, count);
    return (ssize_t)count;
}

static ssize_t send_to_out(const uint8_t *data, size_t size, int flags, void *context)
{
    (void)flags;
    struct websocket_engine *engine = context;
    return buffer_append(engine->out, bytes_of(data, size)) == OK ? (ssize_t)size : -1;
}

static int mask_from_entropy(uint8_t *out, size_t size, void *context)
{
    struct websocket_engine *engine = context;
    CHECK(engine->entropy != NULL);
    engine->entropy(engine->context, out, size);
    return 0;
}

/* ---- parsers */

static void parser_destroy(struct websocket_parser *p)
{
    memory_give(p->gathered.data, MEMORY_CONNECTION);
    wslay_frame_context_free(p->frames);
    memory_give(p, MEMORY_CONNECTION);
}

static struct websocket_parser *parser_take(struct websocket_engine *engine)
{
    struct websocket_parser *p = engine->spares;
    if (p != NULL) {
        engine->spares = p->next_spare;
        engine->spare_count--;
        return p;
    }
    p = memory_take_zeroed(sizeof *p, MEMORY_CONNECTION);
    if (p == NULL)
        return NULL;
    struct wslay_frame_callbacks callbacks = {send_to_out, recv_from_input, NULL};
    if (wslay_frame_context_init(&p->frames, &callbacks, p) != 0) {
        memory_give(p, MEMORY_CONNECTION);
        return NULL;
    }
    return p;
}

/* parser_give: p is between messages: nothing of a connection is left in it. */
static void parser_give(struct websocket_engine *engine, struct websocket_parser *p)
{
    if (engine->spare_count == SPARES_MAX) {
        /* the message just handed out may lie in p: another spare goes instead */
        struct websocket_parser *other = engine->spares;
        engine->spares = other->next_spare;
        engine->spare_count--;
        parser_destroy(other);
    }
    p->next_spare = engine->spares;
    engine->spares = p;
    engine->spare_count++;
}

static bool parser_idle(const struct websocket_parser *p)
{
    return p->header_size == 0 && p->message_opcode == 0;
}

/* ---- gathering */

static bool buffer_reserve(struct buffer *b, size_t capacity, size_t capacity_max)
{
    if (capacity <= b->capacity)
        return true;
    size_t grown = b->capacity < GATHER_BYTES_MIN ? GATHER_BYTES_MIN : b->capacity;
    while (grown < capacity)
        grown *= 2;
    if (grown > capacity_max && capacity <= capacity_max)
        grown = capacity_max;
    uint8_t *data = memory_resize(b->data, grown, MEMORY_CONNECTION);
    if (data == NULL)
        return false;
    b->data = data;
    b->capacity = grown;
    return true;
}

static void buffer_drop(struct buffer *b)
{
    memory_give(b->data, MEMORY_CONNECTION);
    *b = (struct buffer){NULL, 0, 0};
}

/* ---- the frame's header */

static bool opcode_known(uint8_t opcode)
{
    return opcode <= WEBSOCKET_BINARY || (opcode >= WEBSOCKET_CLOSE && opcode <= WEBSOCKET_PONG);
}

static bool opcode_is_control(uint8_t opcode)
{
    return opcode >= WEBSOCKET_CLOSE;
}

/* first_byte_validate: FIN, reserved bits and opcode (RFC 6455 5.2, 5.4). */
static uint16_t first_byte_validate(const struct websocket_parser *p)
{
    uint8_t byte = p->header[0];
    uint8_t opcode = byte & 0x0f;
    if ((byte & 0x70) != 0 || !opcode_known(opcode))
        return CODE_PROTOCOL;
    if (opcode_is_control(opcode))
        return (byte & 0x80) != 0 ? 0 : CODE_PROTOCOL;
    bool continues = opcode == OPCODE_CONTINUATION;
    return continues == (p->message_opcode != 0) ? 0 : CODE_PROTOCOL;
}

/* second_byte_validate: who masks (5.1), and the length of control frames (5.5). */
static uint16_t second_byte_validate(const struct websocket_parser *p, bool client)
{
    bool masked = (p->header[1] & 0x80) != 0;
    if (masked == client)
        return CODE_PROTOCOL;
    if (opcode_is_control(p->header[0] & 0x0f) && (p->header[1] & 0x7f) > CONTROL_BYTES_MAX)
        return CODE_PROTOCOL;
    return 0;
}

static size_t header_length_bytes(const uint8_t *header)
{
    uint8_t length = header[1] & 0x7f;
    return length == 126 ? 2 : length == 127 ? 8 : 0;
}

/* header_needed: bytes of the header as far as it is known. */
static size_t header_needed(const struct websocket_parser *p)
{
    if (p->header_size < 2)
        return 2;
    return 2 + header_length_bytes(p->header) + ((p->header[1] & 0x80) != 0 ? 4 : 0);
}

/* header_finish: the header is whole: its length (minimal encoding, 5.2) against the limits. */
static uint16_t header_finish(struct websocket_parser *p, const struct websocket_limits *limits)
{
    size_t length_bytes = header_length_bytes(p->header);
    uint64_t length = p->header[1] & 0x7f;
    if (length_bytes != 0) {
        length = 0;
        for (size_t i = 0; i < length_bytes; i++)
            length = length << 8 | p->header[2 + i];
        if (length < (length_bytes == 2 ? 126 : 65536) || length >> 63 != 0)
            return CODE_PROTOCOL;
    }
    p->opcode = p->header[0] & 0x0f;
    p->fin = (p->header[0] & 0x80) != 0;
    if (opcode_is_control(p->opcode)) {
        p->control_size = 0;
    } else {
        if (p->opcode != OPCODE_CONTINUATION) {
            p->message_opcode = p->opcode;
            p->fragments = 0;
            p->utf8 = (struct utf8){0};
            p->gathered.size = 0;
        }
        if (++p->fragments > limits->fragments_max ||
            length > limits->message_bytes_max - p->gathered.size)
            return CODE_TOO_LARGE;
    }
    p->payload_bytes = length;
    p->payload_left = length;
    p->header_rest = bytes_of(p->header, p->header_size);
    p->in_payload = true;
    return 0;
}

/* header_receive: 0 and !in_payload: more bytes needed. */
static uint16_t header_receive(struct websocket_parser *p, const struct websocket_limits *limits,
                               struct bytes *input)
{
    while (input->size != 0) {
        p->header[p->header_size++] = input->data[0];
        *input = bytes_skip(*input, 1);
        uint16_t code = 0;
        if (p->header_size == 1)
            code = first_byte_validate(p);
        else if (p->header_size == 2)
            code = second_byte_validate(p, limits->client);
        if (code != 0)
            return code;
        if (p->header_size >= 2 && p->header_size == header_needed(p))
            return header_finish(p, limits);
    }
    return 0;
}

/* ---- the frame's payload */

static void frame_finish(struct websocket_parser *p)
{
    p->header_size = 0;
    p->in_payload = false;
}

/* close_validate: RFC 6455 5.5.1, 7.4: code and reason of a close frame. */
static uint16_t close_validate(const struct websocket_parser *p, struct websocket_message *out)
{
    struct bytes data = bytes_of(p->control, p->control_size);
    out->close_code = CODE_NO_STATUS;
    out->data = bytes_of(p->control, 0);
    if (data.size == 0)
        return 0;
    if (data.size == 1)
        return CODE_PROTOCOL;
    uint16_t code = (uint16_t)(data.data[0] << 8 | data.data[1]);
    bool assigned = code >= 1000 && code <= 1014 && code != 1004 && code != 1005 && code != 1006;
    if (!assigned && (code < 3000 || code > 4999))
        return CODE_PROTOCOL;
    struct utf8 utf8 = {0};
    struct bytes reason = bytes_skip(data, 2);
    if (!utf8_feed(&utf8, reason.data, reason.size) || utf8.due != 0)
        return CODE_UTF8;
    out->close_code = code;
    out->data = reason;
    return 0;
}

/* message_sink: where the message's bytes are gathered: the engine's scratch if this one frame is
 * all of it and all of it is here, else the parser's own buffer. */
static struct buffer *message_sink(struct websocket_engine *engine, struct websocket_parser *p)
{
    bool alone = p->fin && p->opcode != OPCODE_CONTINUATION;
    bool first = p->payload_left == p->payload_bytes;
    if (alone && first && p->input->size >= p->payload_left && p->gathered.size == 0) {
        engine->scratch.size = 0;
        return &engine->scratch;
    }
    return &p->gathered;
}

/* piece_take: one piece of unmasked payload. 0 or the code to fail with. */
static uint16_t piece_take(struct websocket_parser *p, const struct websocket_limits *limits,
                           struct buffer *sink, struct bytes piece)
{
    if (opcode_is_control(p->opcode)) {
        memcpy(p->control + p->control_size, piece.data, piece.size);
        p->control_size = (uint8_t)(p->control_size + piece.size);
        return 0;
    }
    if (p->message_opcode == WEBSOCKET_TEXT && !utf8_feed(&p->utf8, piece.data, piece.size))
        return CODE_UTF8;
    if (!buffer_reserve(sink, sink->size + piece.size, limits->message_bytes_max))
        return CODE_INTERNAL_ERROR;
    return buffer_append(sink, piece) == OK ? 0 : CODE_INTERNAL_ERROR;
}

/* payload_receive: *done: the frame is complete; *data: the message's bytes if it ends here. */
static uint16_t payload_receive(struct websocket_engine *engine, struct websocket_parser *p,
                                const struct websocket_limits *limits, struct bytes *data,
                                bool *done)
{
    struct buffer *sink = message_sink(engine, p);
    uint64_t taken = p->payload_bytes - p->payload_left;
    for (;;) {
        struct wslay_frame_iocb iocb;
        ssize_t count = wslay_frame_recv(p->frames, &iocb);
        if (count == WSLAY_ERR_WANT_READ)
            return 0;
        if (count < 0)
            return CODE_PROTOCOL;
        struct bytes piece = bytes_of(iocb.data, iocb.data_length);
        taken += piece.size;
        bool whole = piece.size == p->payload_bytes && p->fin && sink->size == 0;
        if (whole && !opcode_is_control(p->opcode)) {
            if (p->message_opcode == WEBSOCKET_TEXT && !utf8_feed(&p->utf8, piece.data, piece.size))
                return CODE_UTF8;
            *data = piece;
            *done = true;
            return 0;
        }
        if (piece.size != 0) {
            uint16_t code = piece_take(p, limits, sink, piece);
            if (code != 0)
                return code;
        }
        if (taken == p->payload_bytes) {
            *data = buffer_bytes(sink);
            *done = true;
            return 0;
        }
    }
}

/* message_finish: hands out a data message; its bytes stay alive until the engine's next use. */
static uint16_t message_finish(struct websocket_engine *engine, struct websocket_parser *p,
                               struct bytes data, struct websocket_message *out)
{
    if (p->message_opcode == WEBSOCKET_TEXT && p->utf8.due != 0)
        return CODE_UTF8;
    out->opcode = (enum websocket_opcode)p->message_opcode;
    out->data = data;
    out->close_code = 0;
    p->message_opcode = 0;
    if (p->gathered.data != NULL) {
        /* the gathered bytes become the scratch: the parser goes back without them */
        if (data.data == p->gathered.data) {
            buffer_drop(&engine->scratch);
            engine->scratch = p->gathered;
            p->gathered = (struct buffer){NULL, 0, 0};
        } else {
            buffer_drop(&p->gathered);
        }
    }
    return 0;
}

/* frame_receive: one frame's worth of input. *got: out is filled. */
static uint16_t frame_receive(struct websocket_engine *engine, struct websocket_parser *p,
                              const struct websocket_limits *limits, struct websocket_message *out,
                              bool *got)
{
    if (!p->in_payload) {
        uint16_t code = header_receive(p, limits, p->input);
        if (code != 0 || !p->in_payload)
            return code;
    }
    struct bytes data = {NULL, 0};
    bool done = false;
    uint16_t code = payload_receive(engine, p, limits, &data, &done);
    if (code != 0 || !done)
        return code;
    frame_finish(p);
    if (opcode_is_control(p->opcode)) {
        *got = true;
        out->opcode = (enum websocket_opcode)p->opcode;
        out->data = bytes_of(p->control, p->control_size);
        out->close_code = 0;
        return p->opcode == WEBSOCKET_CLOSE ? close_validate(p, out) : 0;
    }
    *got = p->fin;
    return p->fin ? message_finish(engine, p, data, out) : 0;
}

enum websocket_result websocket_receive(struct websocket *websocket,
                                        struct websocket_engine *engine,
                                        const struct websocket_limits *limits, struct bytes *input,
                                        struct websocket_message *out)
{
    uint16_t code = 0;
    bool got = false;
    if (engine->scratch.capacity > SCRATCH_KEPT_MAX)
        buffer_drop(&engine->scratch);
    while (input->size != 0 && !websocket->close_received && code == 0 && !got) {
        if (websocket->parser == NULL)
            websocket->parser = parser_take(engine);
        struct websocket_parser *p = websocket->parser;
        if (p == NULL) {
            code = CODE_INTERNAL_ERROR;
            break;
        }
        p->input = input;
        code = frame_receive(engine, p, limits, out, &got);
        p->input = NULL;
        if (code == 0 && parser_idle(p)) {
            websocket->parser = NULL;
            parser_give(engine, p);
        }
    }
    if (code != 0) {
        websocket_deinit(websocket, engine);
        websocket->close_received = true;
        out->data = (struct bytes){NULL, 0};
        out->close_code = code;
        return WEBSOCKET_FAILED;
    }
    if (got) {
        websocket->close_received = out->opcode == WEBSOCKET_CLOSE;
        return WEBSOCKET_MESSAGE;
    }
    if (websocket->close_received)
        *input = bytes_skip(*input, input->size); /* RFC 6455 5.5.1: nothing follows a close */
    return WEBSOCKET_MORE;
}

bool websocket_idle(const struct websocket *websocket)
{
    return websocket->parser == NULL;
}

void websocket_deinit(struct websocket *websocket, struct websocket_engine *engine)
{
    (void)engine; /* what is in the middle of a frame cannot become a spare again */
    if (websocket->parser != NULL)
        parser_destroy(websocket->parser);
    websocket->parser = NULL;
}

/* ---- the engine */

enum err websocket_engine_create(struct websocket_engine **engine,
                                 void (*entropy)(void *context, void *out, size_t size),
                                 void *context)
{
    struct websocket_engine *e = memory_take_zeroed(sizeof *e, MEMORY_CONNECTION);
    if (e == NULL)
        return ERR_NO_MEMORY;
    struct wslay_frame_callbacks callbacks = {send_to_out, NULL, mask_from_entropy};
    for (size_t i = 0; i < COUNT_OF(e->senders); i++) {
        if (wslay_frame_context_init(&e->senders[i], &callbacks, e) != 0) {
            e->senders[i] = NULL;
            websocket_engine_destroy(e);
            return ERR_NO_MEMORY;
        }
    }
    e->entropy = entropy;
    e->context = context;
    *engine = e;
    return OK;
}

void websocket_engine_destroy(struct websocket_engine *engine)
{
    if (engine == NULL)
        return;
    while (engine->spares != NULL) {
        struct websocket_parser *p = engine->spares;
        engine->spares = p->next_spare;
        parser_destroy(p);
    }
    buffer_drop(&engine->scratch);
    for (size_t i = 0; i < COUNT_OF(engine->senders); i++)
        wslay_frame_context_free(engine->senders[i]);
    memory_give(engine, MEMORY_CONNECTION);
}

/* ---- sending */

static size_t header_bytes(size_t payload, bool masked)
{
    return 2u + (payload < 126 ? 0u : payload < 65536 ? 2u : 8u) + (masked ? 4u : 0u);
}

enum err websocket_frame(struct buffer *out, struct websocket_engine *engine,
                         const struct websocket_limits *limits, enum websocket_opcode opcode,
                         struct bytes data)
{
    size_t header = header_bytes(data.size, limits->client);
    if (buffer_room(out) < header || buffer_room(out) - header < data.size)
        return ERR_FULL;
    struct wslay_frame_iocb iocb = {
        .fin = 1,
        .opcode = (uint8_t)opcode,
        .payload_length = data.size,
        .mask = limits->client,
        .data = data.data,
        .data_length = data.size,
    };
    engine->out = out;
    size_t end = out->size + header + data.size;
    do {
        ssize_t count = wslay_frame_send(engine->senders[limits->client], &iocb);
        CHECK(count >= 0); /* room was checked; only a control frame over 125 bytes is refused */
        iocb.data += count;
        iocb.data_length -= (size_t)count;
    } while (iocb.data_length != 0);
    CHECK(out->size == end);
    engine->out = NULL;
    return OK;
}

enum err websocket_frame_close(struct buffer *out, struct websocket_engine *engine,
                               const struct websocket_limits *limits, uint16_t close_code,
                               const char *reason)
{
    uint8_t payload[CONTROL_BYTES_MAX];
    struct buffer body = buffer_of(payload, sizeof payload);
    if (close_code != CODE_NO_STATUS) {
        size_t size = reason == NULL ? 0 : strlen(reason);
        if (size > CONTROL_BYTES_MAX - 2) {
            size = CONTROL_BYTES_MAX - 2;
            while (size > 0 && ((uint8_t)reason[size] & 0xc0) == 0x80)
                size--; /* cut before the character, not inside it */
        }
        TRY(buffer_put_u8(&body, (uint8_t)(close_code >> 8)));
        TRY(buffer_put_u8(&body, (uint8_t)close_code));
        TRY(buffer_append(&body, bytes_of(reason, size)));
    }
    return websocket_frame(out, engine, limits, WEBSOCKET_CLOSE, buffer_bytes(&body));
}

/* ---- the handshake */

enum err websocket_accept_key(char out[29], struct bytes key)
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"; /* RFC 6455 1.3 */
    uint8_t nonce[16];
    struct buffer decoded = buffer_of(nonce, sizeof nonce);
    if (key.size != 24 || base64_decode(&decoded, key) != OK || decoded.size != sizeof nonce)
        return ERR_INVALID;
    uint8_t digest[SHA_DIGEST_LENGTH];
    SHA_CTX sha;
    SHA1_Init(&sha);
    SHA1_Update(&sha, key.data, key.size);
    SHA1_Update(&sha, guid, sizeof guid - 1);
    SHA1_Final(digest, &sha);
    struct buffer text = buffer_of(out, 28);
    TRY(base64_encode(&text, bytes_of(digest, sizeof digest)));
    out[text.size] = '\0';
    return OK;
}
