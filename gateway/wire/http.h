/* http.h: HTTP/1.1 requests in, responses out (and the other way for the load generator),
 * through http_parser.
 * Flow:       ingress: plaintext → http_receive → struct http_request → upgrade or api/;
 *             exchange → http_response_encode
 * Owns:       a struct http_reader exists only while a request is incomplete or being answered
 * Failure:    ERR_INVALID 400, ERR_TOO_BIG 413/414/431, ERR_UNSUPPORTED 417/501/505, ERR_NO_MEMORY
 *             503: http_reader_status says which; sticky; a response without a length (it would
 *             end with the connection) is ERR_UNSUPPORTED
 * Bounds:     header bytes and fields, body bytes: struct http_limits
 * Standard:   RFC 9110, RFC 9112. Both Transfer-Encoding and Content-Length, or a bare LF trick:
 *             refused (request smuggling) */
#ifndef GATEWAY_WIRE_HTTP_H
#define GATEWAY_WIRE_HTTP_H

#include "core/bytes.h"

struct http_limits {
    uint32_t header_bytes_max;
    uint32_t header_fields_max;
    uint32_t body_bytes_max;
};

struct http_field {
    struct bytes name;  /* as received; compare with http_field_find */
    struct bytes value; /* surrounding blanks removed */
};

struct http_request {
    struct bytes method; /* "GET" */
    struct bytes path;   /* without query; not decoded */
    struct bytes query;  /* without '?' */
    const struct http_field *fields;
    size_t field_count;
    struct bytes body;
    bool keep_alive;
    bool upgrade;    /* Connection: upgrade is present */
    unsigned status; /* of a response (client side), else 0 */
};

struct http_reader;
MUST_USE enum err http_reader_create(struct http_reader **reader, const struct http_limits *limits,
                                     bool responses);
void http_reader_destroy(struct http_reader *reader);
/* http_receive: take bytes off *input. OK: one request is complete (valid until http_next), the
 * rest of input belongs to what follows; ERR_AGAIN: all taken, more needed; else the request is
 * bad. */
MUST_USE enum err http_receive(struct http_reader *reader, struct bytes *input,
                               struct http_request *out);
/* http_next: forget the request, be ready for the next on the same connection. */
void http_next(struct http_reader *reader);
/* http_reader_status: after a failure, the status code to answer with. */
unsigned http_reader_status(const struct http_reader *reader);
/* http_reader_wants_continue: after ERR_AGAIN, true once where the client waits for "100 Continue"
 * before it sends its body (RFC 9110 10.1.1). Other expectations fail with ERR_UNSUPPORTED, 417. */
bool http_reader_wants_continue(struct http_reader *reader);
/* http_reader_idle: no byte of a further request was seen. */
bool http_reader_idle(const struct http_reader *reader);

/* http_field_find: the first field of that name (case-insensitive), or NULL. */
const struct http_field *http_field_find(const struct http_request *request, const char *name);
/* http_field_repeated: there is more than one of that name, where only one makes sense. */
bool http_field_repeated(const struct http_request *request, const char *name);
/* http_field_has_token: a comma-separated list field contains the token (case-insensitive), over
 * all fields of that name. */
bool http_field_has_token(const struct http_request *request, const char *name, const char *token);
/* http_field_first_token: which of count tokens the list names first; count: none of them. */
size_t http_field_first_token(const struct http_request *request, const char *name,
                              const char *const *tokens, size_t count);
/* http_query_value: the decoded value of a query parameter into out; ERR_NOT_FOUND, ERR_INVALID
 * (bad %-escape), ERR_FULL. */
MUST_USE enum err http_query_value(struct buffer *out, struct bytes query, const char *name);
/* http_cookie_find: value of a cookie (RFC 6265 5.4 order), {NULL, 0} if absent. */
struct bytes http_cookie_find(const struct http_request *request, const char *name);

struct http_response {
    unsigned status;
    const char *content_type; /* NULL: no body type */
    const char *fields;       /* further header lines, each ending in CRLF, or NULL */
    struct bytes body;
    bool close; /* Connection: close, and close after it */
    bool head;  /* answer to HEAD: length without body */
};

/* http_response_encode: status line, Date-less headers, body. ERR_FULL: nothing appended. */
MUST_USE enum err http_response_encode(struct buffer *out, const struct http_response *response);
#define HTTP_RESPONSE_OVERHEAD 512 /* beyond fields and body */
const char *http_status_text(unsigned status);

#endif
