/* logging.h: structured log lines to standard error: one line per event, key=value or JSON; never
 * message content.
 * Flow:       every floor → here → fd 2 (one write per line; a full pipe drops the line and counts
 *             it)
 * Use:        log_event(LOG_WARN, "listen_failed", LOG_TEXT("address", text),
 *             LOG_U64("attempt", n), LOG_END);
 * Bounds:     a line is at most LOG_LINE_BYTES; what does not fit is cut and marked */
#ifndef CORE_LOGGING_H
#define CORE_LOGGING_H

#include "core/bytes.h"

#define LOG_LINE_BYTES 2048

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };
enum log_format { LOG_KEY_VALUE, LOG_JSON };

enum log_field_kind {
    LOG_FIELD_END,
    LOG_FIELD_TEXT,
    LOG_FIELD_U64,
    LOG_FIELD_I64,
    LOG_FIELD_ERR,
    LOG_FIELD_BYTES
};

struct log_field {
    enum log_field_kind kind;
    const char *key;
    union {
        const char *text;
        uint64_t u64;
        int64_t i64;
        enum err err;
        struct bytes bytes; /* text without NUL */
    } value;
};

#define LOG_END        ((struct log_field){.kind = LOG_FIELD_END})
#define LOG_TEXT(k, v) ((struct log_field){.kind = LOG_FIELD_TEXT, .key = (k), .value.text = (v)})
#define LOG_U64(k, v)  ((struct log_field){.kind = LOG_FIELD_U64, .key = (k), .value.u64 = (v)})
#define LOG_I64(k, v)  ((struct log_field){.kind = LOG_FIELD_I64, .key = (k), .value.i64 = (v)})
#define LOG_ERR(v)     ((struct log_field){.kind = LOG_FIELD_ERR, .key = "err", .value.err = (v)})
#define LOG_BYTES(k, v)                                                                            \
    ((struct log_field){.kind = LOG_FIELD_BYTES, .key = (k), .value.bytes = (v)})

/* logging_init: once, before threads. The settings are process-wide and constant afterwards. */
void logging_init(enum log_level level, enum log_format format);
void log_fields(enum log_level level, const char *event, const struct log_field *fields);
/* log_event: fields end by themselves; a line without any gives LOG_END. */
#define log_event(level, event, ...)                                                               \
    log_fields(level, event, (const struct log_field[]){__VA_ARGS__, LOG_END})

/* log_render: the line, line feed included, not NUL-terminated; returns its size. No clock, no I/O.
 */
size_t log_render(char out[LOG_LINE_BYTES], enum log_format format, uint64_t unix_ms,
                  enum log_level level, const char *event, const struct log_field *fields);
/* log_lines_dropped: lines that standard error did not take, not yet reported by a later line. */
uint64_t log_lines_dropped(void);

#endif
