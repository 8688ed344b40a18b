/* json_text.h: the one door to jansson: bounded parsing of peers' JSON, and a writer of JSON text.
 * Flow:       protocol_json.c, jwt.c, jwks.c (and api/ for request bodies) → here → jansson
 * Owns:       nothing; a parsed tree belongs to the caller until json_decref
 * Invariants: a tree has no duplicate key, is at most JSON_TEXT_DEPTH_MAX deep and holds at most
 *             JSON_TEXT_VALUES_MAX values; text is valid UTF-8 and may hold NUL
 * Failure:    ERR_INVALID not JSON, a duplicate key, or too deep; ERR_TOO_BIG too many values;
 *             ERR_NO_MEMORY
 * Bounds:     a tree takes about 200 bytes per value; nothing is kept after json_decref
 * Standard:   RFC 8259; duplicate names are refused (its section 4 leaves them open) */
#ifndef GATEWAY_WIRE_JSON_TEXT_H
#define GATEWAY_WIRE_JSON_TEXT_H

#include "core/bytes.h"

#include <jansson.h>

#define JSON_TEXT_DEPTH_MAX  32
#define JSON_TEXT_VALUES_MAX 8192

/* json_text_init: route jansson's memory through core/memory.h (MEMORY_API) and seed its hash
 * tables (a seed of 0 is made 1). Call once, from main, before any thread: jansson keeps both in
 * globals of its own. Without it jansson uses malloc and seeds itself: fine for tests. */
void json_text_init(uint32_t seed);

/* json_text_parse: one JSON object; *root is the caller's, on success only. */
MUST_USE enum err json_text_parse(json_t **root, struct bytes text);

/* json_text_member: a member that is text; {NULL, 0} if absent or of another type. Borrowed. */
struct bytes json_text_member(const json_t *object, const char *name);

/* json_text_put: append text in quotes, escaped; ERR_INVALID: not UTF-8; ERR_FULL: part of it may
 * have been appended, the caller restores out->size. */
MUST_USE enum err json_text_put(struct buffer *out, struct bytes text);
/* json_text_put_number: append it in decimal. */
MUST_USE enum err json_text_put_number(struct buffer *out, uint64_t value);

#endif
