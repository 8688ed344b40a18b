/* http.c: how a message passes.
 *   head     gathered byte by byte into one buffer, up to its empty line, within header_bytes_max;
 *            a CR without LF, an LF without CR, other control bytes and continued lines (obs-fold)
 *            end it at once. Then http_parser reads the whole head in one go, so method, target and
 *            fields are ranges of that buffer
 *   body     with Content-Length: through http_parser as it comes
 *            chunked: each framing line is gathered, judged and given to http_parser whole, each
 *            chunk's data as it comes: http_parser alone would let bare CR and LF pass here
 *   done     the request is lent until http_next, which gives all of it back
 * http_parser 2.9.4 is lenient where proxies and servers may disagree on where a request ends. What
 * is checked here beyond it: line ends, one space between the parts of the request line, field
 * names, the kinds of Transfer-Encoding, Host (RFC 9112 3.2), digits of Content-Length.
 *
 * States: HEAD → BODY_LENGTH | CHUNK_LINE ⇄ CHUNK_DATA → … → DONE; any → FAILED (sticky);
 * http_next: DONE → HEAD. */
#include "gateway/wire/http.h"

#include "core/memory.h"
#include "core/text.h"

#include <http_parser.h>

#define HEAD_BYTES_MIN     512
#define BODY_BYTES_MIN     1024
#define CHUNK_LINE_BYTES   256 /* a chunk's size and extensions, or one trailer field */
#define CHUNK_DIGITS_MAX   8
#define TRAILER_LINES_MAX  16
#define VERSION_TEXT_BYTES 8 /* "HTTP/1.1" */

enum state { HEAD, BODY_LENGTH, CHUNK_LINE, CHUNK_DATA, DONE, FAILED };

/* What the next framing line of a chunked body must be. */
enum line { LINE_SIZE, LINE_AFTER_DATA, LINE_TRAILER };

struct http_reader {
    struct http_limits limits;
    http_parser parser;
    enum state state;
    enum err failure;
    unsigned status;
    bool responses;
    bool continue_wanted;
    bool message_complete;
    /* head */
    struct buffer head;
    size_t line_start; /* of the line being gathered */
    uint32_t lines;
    struct http_field *fields;
    uint32_t field_count;
    struct bytes target;
    bool value_last; /* the newest callback was a value */
    /* body */
    struct buffer body;
    uint64_t chunk_left;
    enum line line;
    uint32_t trailer_lines;
    uint32_t chunk_line_size;
    char chunk_line[CHUNK_LINE_BYTES];
};

/* ---- failures and memory */

static enum err fail(struct http_reader *r, enum err err, unsigned status)
{
    r->state = FAILED;
    r->failure = err;
    r->status = status;
    return err;
}

static bool reserve(struct buffer *b, size_t more, size_t capacity_min, size_t capacity_max)
{
    if (more <= buffer_room(b))
        return true;
    size_t grown = b->capacity == 0 ? capacity_min : b->capacity * 2;
    if (grown < b->size + more)
        grown = b->size + more;
    if (grown > capacity_max && b->size + more <= capacity_max)
        grown = capacity_max;
    uint8_t *data = memory_resize(b->data, grown, MEMORY_API);
    if (data == NULL)
        return false;
    b->data = data;
    b->capacity = grown;
    return true;
}

static void drop(struct http_reader *r)
{
    memory_give(r->head.data, MEMORY_API);
    memory_give(r->body.data, MEMORY_API);
    memory_give(r->fields, MEMORY_API);
    r->head = r->body = (struct buffer){NULL, 0, 0};
    r->fields = NULL;
}

/* ---- what characters may stand where (RFC 9110 5.6.2, 5.5; RFC 9112 3) */

static bool is_token_char(uint8_t c)
{
    if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
        return true;
    return c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL;
}

static bool is_token(struct bytes text)
{
    for (size_t i = 0; i < text.size; i++)
        if (!is_token_char(text.data[i]))
            return false;
    return text.size != 0;
}

static bool is_target(struct bytes text)
{
    for (size_t i = 0; i < text.size; i++)
        if (text.data[i] <= ' ' || text.data[i] > '~' || text.data[i] == '#')
            return false;
    return text.size != 0;
}

/* ---- http_parser's callbacks; the head is given in one piece, so each names a whole range */

static struct http_reader *reader_at(http_parser *parser)
{
    return parser->data;
}

static int on_url(http_parser *parser, const char *at, size_t size)
{
    reader_at(parser)->target = bytes_of(at, size);
    return 0;
}

static int on_header_field(http_parser *parser, const char *at, size_t size)
{
    struct http_reader *r = reader_at(parser);
    if (r->state != HEAD) /* a trailer: judged as a line, not kept */
        return 0;
    if (r->field_count == r->lines) /* fields has room for one per line */
        return 1;
    r->fields[r->field_count++] = (struct http_field){bytes_of(at, size), bytes_of(at, 0)};
    r->value_last = false;
    return 0;
}

static int on_header_value(http_parser *parser, const char *at, size_t size)
{
    struct http_reader *r = reader_at(parser);
    if (r->state != HEAD || r->field_count == 0)
        return 0;
    struct http_field *field = &r->fields[r->field_count - 1];
    if (r->value_last) /* a second piece of the same value lies right behind the first */
        field->value.size = (size_t)((const uint8_t *)at + size - field->value.data);
    else
        field->value = bytes_of(at, size);
    r->value_last = true;
    return 0;
}

static int on_body(http_parser *parser, const char *at, size_t size)
{
    struct http_reader *r = reader_at(parser);
    if (!reserve(&r->body, size, BODY_BYTES_MIN, r->limits.body_bytes_max))
        return 1;
    return buffer_append(&r->body, bytes_of(at, size)) == OK ? 0 : 1;
}

static int on_chunk_header(http_parser *parser)
{
    reader_at(parser)->chunk_left = parser->content_length;
    return 0;
}

static int on_message_complete(http_parser *parser)
{
    reader_at(parser)->message_complete = true;
    http_parser_pause(parser, 1);
    return 0;
}

static const http_parser_settings settings = {
    .on_url = on_url,
    .on_header_field = on_header_field,
    .on_header_value = on_header_value,
    .on_body = on_body,
    .on_chunk_header = on_chunk_header,
    .on_message_complete = on_message_complete,
};

/* ---- the head's bytes */

/* head_byte_validate: 0, or the status to fail with. What comes before it is in r->head. */
static unsigned head_byte_validate(const struct http_reader *r, uint8_t c)
{
    size_t size = r->head.size;
    bool after_cr = size != 0 && r->head.data[size - 1] == '\r';
    if (after_cr != (c == '\n'))
        return 400;
    if (c < ' ' && c != '\t' && c != '\r' && c != '\n')
        return 400;
    if (c == 0x7f)
        return 400;
    if (size == r->line_start && r->lines != 0 && (c == ' ' || c == '\t'))
        return 400; /* obs-fold, or a field before the first name */
    return 0;
}

/* head_gather: takes bytes up to the head's empty line. ERR_AGAIN: all taken. */
static enum err head_gather(struct http_reader *r, struct bytes *input)
{
    while (input->size != 0) {
        uint8_t c = input->data[0];
        if (r->head.size == r->limits.header_bytes_max)
            return fail(r, ERR_TOO_BIG, r->lines == 0 ? 414 : 431);
        unsigned status = head_byte_validate(r, c);
        if (status != 0)
            return fail(r, ERR_INVALID, status);
        if (!reserve(&r->head, 1, HEAD_BYTES_MIN, r->limits.header_bytes_max))
            return fail(r, ERR_NO_MEMORY, 503);
        r->head.data[r->head.size++] = c;
        *input = bytes_skip(*input, 1);
        if (c != '\n')
            continue;
        bool empty = r->head.size - r->line_start == 2;
        if (empty && r->lines == 0) { /* RFC 9112 2.2: empty lines before a request are ignored */
            r->head.size = 0;
            continue;
        }
        if (empty)
            return OK;
        r->line_start = r->head.size;
        if (++r->lines > r->limits.header_fields_max + 1)
            return fail(r, ERR_TOO_BIG, 431);
    }
    return ERR_AGAIN;
}

/* ---- the head's meaning */

static struct bytes first_line(const struct http_reader *r)
{
    const uint8_t *end = memchr(r->head.data, '\r', r->head.size);
    CHECK(end != NULL);
    return bytes_of(r->head.data, (size_t)(end - r->head.data));
}

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

/* ends_with_version: " HTTP/d.d" (RFC 9112 2.3). */
static bool ends_with_version(struct bytes line)
{
    if (line.size < VERSION_TEXT_BYTES + 1)
        return false;
    const uint8_t *v = line.data + line.size - VERSION_TEXT_BYTES;
    return memcmp(v - 1, " HTTP/", 6) == 0 && is_digit(v[5]) && v[6] == '.' && is_digit(v[7]);
}

/* request_line_fail: the parser refused the head: which status says why. */
static enum err request_line_fail(struct http_reader *r)
{
    struct bytes line = first_line(r);
    const uint8_t *space = memchr(line.data, ' ', line.size);
    enum http_errno reason = HTTP_PARSER_ERRNO(&r->parser);
    bool token = space != NULL && is_token(bytes_of(line.data, (size_t)(space - line.data)));
    if (reason == HPE_INVALID_METHOD && !r->responses && token)
        return fail(r, ERR_UNSUPPORTED, 501);
    if (reason == HPE_INVALID_VERSION && ends_with_version(line))
        return fail(r, ERR_UNSUPPORTED, 505);
    if (reason == HPE_HEADER_OVERFLOW) /* the library's own bound, 80 KiB */
        return fail(r, ERR_TOO_BIG, 431);
    return fail(r, ERR_INVALID, 400);
}

/* request_line_validate: method SP target SP HTTP/d.d, exactly (RFC 9112 3), and a version known
 * here. */
static enum err request_line_validate(struct http_reader *r)
{
    if (r->target.data == NULL)
        return fail(r, ERR_INVALID, 400);
    struct bytes line = first_line(r);
    size_t method_size = (size_t)(r->target.data - line.data) - 1;
    if (!is_target(r->target) || !is_token(bytes_of(line.data, method_size)) ||
        method_size + 1 + r->target.size + 1 + VERSION_TEXT_BYTES != line.size ||
        !ends_with_version(line))
        return fail(r, ERR_INVALID, 400);
    if (r->parser.http_major != 1 || r->parser.http_minor > 1)
        return fail(r, ERR_UNSUPPORTED, 505);
    if (r->parser.method == HTTP_CONNECT)
        return fail(r, ERR_UNSUPPORTED, 501);
    return OK;
}

static const struct http_field *field_find(const struct http_reader *r, const char *name,
                                           size_t *count)
{
    const struct http_field *first = NULL;
    *count = 0;
    for (uint32_t i = 0; i < r->field_count; i++) {
        if (!text_equal_ignoring_case(r->fields[i].name, name))
            continue;
        if ((*count)++ == 0)
            first = &r->fields[i];
    }
    return first;
}

static bool version_is_1_1(const struct http_reader *r)
{
    return r->parser.http_minor == 1;
}

/* framing_validate: where the message ends must be beyond doubt (RFC 9112 6.3). */
static enum err framing_validate(struct http_reader *r)
{
    size_t encodings, lengths;
    const struct http_field *encoding = field_find(r, "Transfer-Encoding", &encodings);
    const struct http_field *length = field_find(r, "Content-Length", &lengths);
    uint64_t size = 0;
    if (encodings > 1 || lengths > 1 || (encodings != 0 && lengths != 0))
        return fail(r, ERR_INVALID, 400);
    if (encodings != 0) {
        if (!version_is_1_1(r))
            return fail(r, ERR_INVALID, 400);
        if (!text_equal_ignoring_case(encoding->value, "chunked"))
            return fail(r, ERR_UNSUPPORTED, 501);
    }
    if (lengths != 0) {
        if (decimal_parse(&size, length->value) != OK)
            return fail(r, ERR_INVALID, 400);
        if (size > r->limits.body_bytes_max)
            return fail(r, ERR_TOO_BIG, 413);
    }
    return OK;
}

static enum err request_fields_validate(struct http_reader *r)
{
    size_t hosts, expects;
    const struct http_field *host = field_find(r, "Host", &hosts);
    const struct http_field *expect = field_find(r, "Expect", &expects);
    if (hosts > 1 || (hosts == 0 && version_is_1_1(r)))
        return fail(r, ERR_INVALID, 400);
    if (host != NULL && memchr(host->value.data, ' ', host->value.size) != NULL)
        return fail(r, ERR_INVALID, 400);
    if (expect != NULL && version_is_1_1(r)) {
        if (expects > 1 || !text_equal_ignoring_case(expect->value, "100-continue"))
            return fail(r, ERR_UNSUPPORTED, 417);
        r->continue_wanted = true;
    }
    return OK;
}

/* response_validate: a response without a length would end with the connection: not read here. */
static enum err response_validate(struct http_reader *r)
{
    if (r->parser.http_major != 1 || r->parser.http_minor > 1)
        return fail(r, ERR_UNSUPPORTED, 505);
    if (!r->message_complete && (r->parser.flags & (F_CHUNKED | F_CONTENTLENGTH)) == 0)
        return fail(r, ERR_UNSUPPORTED, 501);
    return OK;
}

static enum err fields_validate(struct http_reader *r)
{
    for (uint32_t i = 0; i < r->field_count; i++) {
        if (!is_token(r->fields[i].name))
            return fail(r, ERR_INVALID, 400);
        r->fields[i].value = text_trim(r->fields[i].value);
    }
    return OK;
}

/* head_parse: the whole head is gathered: read it and decide how the body comes. */
static enum err head_parse(struct http_reader *r)
{
    size_t room = (r->lines == 0 ? 1 : r->lines) * sizeof *r->fields;
    r->fields = memory_take_zeroed(room, MEMORY_API);
    if (r->fields == NULL)
        return fail(r, ERR_NO_MEMORY, 503);
    size_t count =
        http_parser_execute(&r->parser, &settings, (const char *)r->head.data, r->head.size);
    enum http_errno reason = HTTP_PARSER_ERRNO(&r->parser);
    if (count != r->head.size && !r->message_complete)
        return request_line_fail(r);
    if (reason != HPE_OK && reason != HPE_PAUSED)
        return request_line_fail(r);
    if (!r->responses)
        TRY(request_line_validate(r));
    TRY(fields_validate(r));
    TRY(framing_validate(r));
    if (r->responses)
        TRY(response_validate(r));
    else
        TRY(request_fields_validate(r));
    if (r->message_complete) {
        r->continue_wanted = false;
        r->state = DONE;
    } else {
        r->state = (r->parser.flags & F_CHUNKED) != 0 ? CHUNK_LINE : BODY_LENGTH;
        r->line = LINE_SIZE;
    }
    return OK;
}

/* ---- the body */

/* body_execute: bytes of the body or of its framing through http_parser. */
static enum err body_execute(struct http_reader *r, struct bytes data)
{
    size_t count = http_parser_execute(&r->parser, &settings, (const char *)data.data, data.size);
    enum http_errno reason = HTTP_PARSER_ERRNO(&r->parser);
    if (reason == HPE_CB_body)
        return fail(r, ERR_NO_MEMORY, 503);
    if ((reason != HPE_OK && reason != HPE_PAUSED) || (count != data.size && !r->message_complete))
        return fail(r, ERR_INVALID, 400);
    if (r->message_complete)
        r->state = DONE;
    return OK;
}

static enum err body_receive(struct http_reader *r, struct bytes *input)
{
    uint64_t left = r->parser.content_length;
    struct bytes piece = *input;
    if (piece.size > left)
        piece.size = (size_t)left;
    *input = bytes_skip(*input, piece.size);
    return body_execute(r, piece);
}

static bool is_hexadecimal(uint8_t c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* size_line_validate: 1*HEXDIG [ ";" extensions ] (RFC 9112 7.1). */
static bool size_line_validate(struct bytes line)
{
    size_t digits = 0;
    while (digits < line.size && is_hexadecimal(line.data[digits]))
        digits++;
    if (digits == 0 || digits > CHUNK_DIGITS_MAX)
        return false;
    return digits == line.size || line.data[digits] == ';';
}

static bool trailer_line_validate(struct bytes line)
{
    const uint8_t *colon = memchr(line.data, ':', line.size);
    return colon != NULL && is_token(bytes_of(line.data, (size_t)(colon - line.data)));
}

/* chunk_line_finish: one framing line is whole, without its CRLF in `line`. */
static enum err chunk_line_finish(struct http_reader *r)
{
    struct bytes raw = bytes_of(r->chunk_line, r->chunk_line_size);
    struct bytes line = bytes_of(raw.data, raw.size - 2);
    r->chunk_line_size = 0;
    bool valid = r->line == LINE_SIZE         ? size_line_validate(line)
                 : r->line == LINE_AFTER_DATA ? line.size == 0
                                              : line.size == 0 || trailer_line_validate(line);
    if (!valid)
        return fail(r, ERR_INVALID, 400);
    if (r->line == LINE_TRAILER && ++r->trailer_lines > TRAILER_LINES_MAX)
        return fail(r, ERR_TOO_BIG, 431);
    TRY(body_execute(r, raw));
    if (r->state == DONE)
        return OK;
    if (r->line == LINE_AFTER_DATA) {
        r->line = LINE_SIZE;
    } else if (r->line == LINE_SIZE && r->chunk_left == 0) {
        r->line = LINE_TRAILER;
    } else if (r->line == LINE_SIZE) {
        if (r->chunk_left > r->limits.body_bytes_max - r->body.size)
            return fail(r, ERR_TOO_BIG, 413);
        r->state = CHUNK_DATA;
    }
    return OK;
}

static enum err chunk_line_receive(struct http_reader *r, struct bytes *input)
{
    while (input->size != 0) {
        char c = (char)input->data[0];
        bool after_cr = r->chunk_line_size != 0 && r->chunk_line[r->chunk_line_size - 1] == '\r';
        bool control = (uint8_t)c < ' ' && c != '\t' && c != '\r' && c != '\n';
        if (after_cr != (c == '\n') || control || c == 0x7f)
            return fail(r, ERR_INVALID, 400);
        if (r->chunk_line_size == CHUNK_LINE_BYTES)
            return fail(r, ERR_TOO_BIG, 431);
        r->chunk_line[r->chunk_line_size++] = c;
        *input = bytes_skip(*input, 1);
        if (c == '\n')
            return chunk_line_finish(r);
    }
    return OK;
}

static enum err chunk_data_receive(struct http_reader *r, struct bytes *input)
{
    struct bytes piece = *input;
    if (piece.size > r->chunk_left)
        piece.size = (size_t)r->chunk_left;
    *input = bytes_skip(*input, piece.size);
    r->chunk_left -= piece.size;
    TRY(body_execute(r, piece));
    if (r->chunk_left == 0) {
        r->state = CHUNK_LINE;
        r->line = LINE_AFTER_DATA;
    }
    return OK;
}

/* ---- the request as handed out */

/* authority_skip: "http://host:port" off an absolute-form target (RFC 9112 3.2.2). */
static enum err authority_skip(struct bytes *target)
{
    struct http_parser_url url;
    http_parser_url_init(&url);
    if (http_parser_parse_url((const char *)target->data, target->size, 0, &url) != 0 ||
        (url.field_set & (1 << UF_SCHEMA)) == 0 || (url.field_set & (1 << UF_HOST)) == 0 ||
        (url.field_set & (1 << UF_USERINFO)) != 0)
        return ERR_INVALID;
    size_t at = url.field_data[UF_SCHEMA].len + sizeof "://" - 1;
    while (at < target->size && target->data[at] != '/' && target->data[at] != '?')
        at++;
    *target = bytes_skip(*target, at);
    return OK;
}

/* target_split: origin-form, absolute-form or "*" (RFC 9112 3.2) into path and query. */
static enum err target_split(struct http_reader *r, struct http_request *out)
{
    struct bytes rest = r->target;
    bool origin = rest.data[0] == '/' || (rest.size == 1 && rest.data[0] == '*');
    if (!origin && authority_skip(&rest) != OK)
        return fail(r, ERR_INVALID, 400);
    size_t path_size = 0;
    while (path_size < rest.size && rest.data[path_size] != '?')
        path_size++;
    out->path = path_size == 0 ? bytes_of("/", 1) : bytes_of(rest.data, path_size);
    out->query = path_size == rest.size ? bytes_of(rest.data + path_size, 0)
                                        : bytes_skip(rest, path_size + 1);
    return OK;
}

static enum err hand_out(struct http_reader *r, struct http_request *out)
{
    *out = (struct http_request){
        .fields = r->fields,
        .field_count = r->field_count,
        .body = buffer_bytes(&r->body),
        .keep_alive = http_should_keep_alive(&r->parser) != 0,
        .status = r->responses ? r->parser.status_code : 0,
    };
    out->upgrade = version_is_1_1(r) && http_field_has_token(out, "Connection", "upgrade");
    if (r->responses)
        return OK;
    out->method = bytes_of(r->head.data, (size_t)(r->target.data - r->head.data) - 1);
    return target_split(r, out);
}

/* ---- the reader */

static void restart(struct http_reader *r)
{
    drop(r);
    http_parser_init(&r->parser, r->responses ? HTTP_RESPONSE : HTTP_REQUEST);
    r->parser.data = r;
    r->state = HEAD;
    r->continue_wanted = r->message_complete = r->value_last = false;
    r->line_start = 0;
    r->lines = r->field_count = r->trailer_lines = r->chunk_line_size = 0;
    r->target = (struct bytes){NULL, 0};
    r->chunk_left = 0;
}

enum err http_reader_create(struct http_reader **reader, const struct http_limits *limits,
                            bool responses)
{
    struct http_reader *r = memory_take_zeroed(sizeof *r, MEMORY_API);
    if (r == NULL)
        return ERR_NO_MEMORY;
    r->limits = *limits;
    r->responses = responses;
    restart(r);
    *reader = r;
    return OK;
}

void http_reader_destroy(struct http_reader *reader)
{
    if (reader == NULL)
        return;
    drop(reader);
    memory_give(reader, MEMORY_API);
}

enum err http_receive(struct http_reader *reader, struct bytes *input, struct http_request *out)
{
    if (reader->state == FAILED)
        return reader->failure;
    while (reader->state != DONE) {
        if (input->size == 0)
            return ERR_AGAIN;
        switch (reader->state) {
        case HEAD:
            TRY(head_gather(reader, input));
            TRY(head_parse(reader));
            break;
        case BODY_LENGTH:
            TRY(body_receive(reader, input));
            break;
        case CHUNK_LINE:
            TRY(chunk_line_receive(reader, input));
            break;
        case CHUNK_DATA:
            TRY(chunk_data_receive(reader, input));
            break;
        case DONE:
        case FAILED:
            break;
        }
    }
    return hand_out(reader, out);
}

void http_next(struct http_reader *reader)
{
    CHECK(reader->state == DONE);
    restart(reader);
}

unsigned http_reader_status(const struct http_reader *reader)
{
    return reader->status;
}

bool http_reader_idle(const struct http_reader *reader)
{
    return reader->state == HEAD && reader->head.size == 0;
}

bool http_reader_wants_continue(struct http_reader *reader)
{
    bool wanted = reader->continue_wanted && reader->body.size == 0 &&
                  (reader->state == BODY_LENGTH || reader->state == CHUNK_LINE);
    reader->continue_wanted = false;
    return wanted;
}
