/* inspect.h: what a lane's files say, for people and scripts: `roost log dump`, `stat` and `trace`.
 * Flow:       walk.h → here → a line at a time → gateway/main_log.c
 * Owns:       nothing beyond the call; takes no lock and writes nothing: runs beside a gateway
 * Invariants: headers only: not one byte of a body, except the read watermark, is ever printed
 * Failure:    walk.h's; what is damaged is told as a line and passed over
 * Bounds:     reads the whole log once; stat holds 16 KiB to count conversations */
#ifndef STORE_INSPECT_H
#define STORE_INSPECT_H

#include "store/walk.h"

struct inspect_output {
    void (*line)(void *context, const char *line);
    void *context;
    bool json; /* one JSON object per line */
};

struct dump_options {
    const char *cold; /* directory of old archives, or NULL */
    uint32_t segment; /* 0: all */
    bool one;         /* only `conversation` */
    struct conversation_id conversation;
    uint64_t from_seq;
    uint64_t to_seq;
};

/* log_dump: batches (not where a conversation is asked for) and records, in the log's order. */
MUST_USE enum err log_dump(const char *directory, const struct dump_options *options,
                           const struct inspect_output *out);

/* log_stat: segments by state, bytes, records, conversations (counted by a sketch: within 2 %,
 * exact when few), times; checkpoint: the catalog's position, or UINT64_MAX: not known. */
MUST_USE enum err log_stat(const char *directory, const char *cold, uint64_t checkpoint,
                           const struct inspect_output *out);

struct trace_subject {
    const char *cold; /* directory of old archives, or NULL */
    bool by_id;
    struct message_id id;
    struct conversation_id conversation;
    uint64_t seq;
};

/* log_trace: the life of one message as far as the log knows it. ERR_NOT_FOUND: it is nowhere. */
MUST_USE enum err log_trace(const char *directory, const struct trace_subject *subject,
                            const struct inspect_output *out);

/* inspect_print: a printf to one line. time_text: "2026-11-26T04:12:15.123Z". */
#define INSPECT_LINE_BYTES 1024
void inspect_print(const struct inspect_output *out, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* inspect_explain: one line of INSPECT_EXPLANATION_BYTES at most that ends with the error's name.
 * Returns err, which is not OK. */
#define INSPECT_EXPLANATION_BYTES 2400
enum err inspect_explain(char *explanation, enum err err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
#define TIME_TEXT_BYTES 32
void time_text(char out[TIME_TEXT_BYTES], uint64_t unix_ms);
const char *record_kind_name(uint16_t kind);

#endif
