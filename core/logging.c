/* logging.c: lines.
 *
 * key=value:  time=2026-01-31T12:00:00.123Z level=warn event=listen_failed address=[::1]:8443 n=3
 * JSON:       {"time":"2026-01-31T12:00:00.123Z","level":"warn","event":"listen_failed",…,"n":3}
 *
 * A value is bare if it is not empty and made of letters, digits and _ - . : / @ + , [ ] % only;
 * else it is a JSON string, in both formats: quotes, backslashes and control characters escaped,
 * bytes that are not UTF-8 replaced by U+FFFD. So a line is one line whatever a peer sent, and
 * splits at spaces outside quotes. A value that does not fit is cut and ends in "…"; fields that do
 * not fit at all are left out; either way the line ends in cut=true.
 *
 * A line is written only when poll says that the descriptor takes it: a pipe that is writable has
 * room for PIPE_BUF (4,096) bytes, a line is at most LOG_LINE_BYTES. What is dropped is counted,
 * and the next line that goes out is preceded by one that says how many.
 *
 * The settings are file-scope variables because the header makes them process-wide: set once before
 * threads, constant afterwards. The count of dropped lines is the one atomic. */
#include "core/logging.h"

#include "core/text.h"

#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static enum log_level level_min = LOG_INFO;
static enum log_format line_format = LOG_KEY_VALUE;
static atomic_uint_fast64_t dropped;

/* Content stops at CONTENT_BYTES; what must fit behind it: a value's end ("…" and a quote) and the
 * line's (,"cut":true}, line feed and NUL). */
#define CONTENT_BYTES (LOG_LINE_BYTES - 24)

struct line {
    struct buffer out;
    enum log_format format;
    bool cut;
};

/* line_append: all or nothing. */
static bool line_append(struct line *line, struct bytes text)
{
    size_t size = line->out.size;
    return size <= CONTENT_BYTES && text.size <= CONTENT_BYTES - size &&
           buffer_append(&line->out, text) == OK;
}

/* line_end: into the room kept for ends. */
static void line_end(struct line *line, const char *text)
{
    enum err err = buffer_append(&line->out, bytes_of_text(text));
    CHECK(err == OK);
}

static bool bare(struct bytes value)
{
    for (size_t i = 0; i < value.size; i++) {
        uint8_t c = value.data[i];
        bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                     (c != '\0' && strchr("_-.:/@+,[]%", c) != NULL);
        if (!plain)
            return false;
    }
    return value.size != 0;
}

/* escape_next: one character of value as it stands in a JSON string; returns the bytes taken. */
static size_t escape_next(char out[8], struct bytes value)
{
    uint8_t c = value.data[0];
    if (c == '"' || c == '\\') {
        (void)snprintf(out, 8, "\\%c", c);
    } else if (c == '\n') {
        (void)snprintf(out, 8, "\\n");
    } else if (c < 0x20 || c == 0x7f) {
        (void)snprintf(out, 8, "\\u%04x", c);
    } else {
        size_t size = utf8_size(value);
        if (size == 0) {
            (void)snprintf(out, 8, "\xef\xbf\xbd");
            return 1;
        }
        memcpy(out, value.data, size);
        out[size] = '\0';
        return size;
    }
    return 1;
}

static void put_text(struct line *line, struct bytes value)
{
    if (line->format == LOG_KEY_VALUE && bare(value) && line_append(line, value))
        return;
    if (!line_append(line, bytes_of_text("\""))) {
        line->cut = true; /* the key stands there already: an empty string */
        line_end(line, "\"\"");
        return;
    }
    while (value.size != 0) {
        char escaped[8];
        size_t taken = escape_next(escaped, value);
        if (!line_append(line, bytes_of_text(escaped))) {
            line->cut = true;
            line_end(line, "\xe2\x80\xa6");
            break;
        }
        value = bytes_skip(value, taken);
    }
    line_end(line, "\"");
}

/* put_key: separator and key; false: no room, nothing appended. A key is the program's own text; a
 * character that would break the line becomes an underscore. */
static bool put_key(struct line *line, const char *key)
{
    char text[72];
    size_t at = 0;
    bool json = line->format == LOG_JSON;
    if (line->out.size > (json ? 1u : 0u))
        text[at++] = json ? ',' : ' ';
    if (json)
        text[at++] = '"';
    for (size_t i = 0; i < 64 && key[i] != '\0'; i++)
        text[at++] = bare(bytes_of(key + i, 1)) ? key[i] : '_';
    if (json)
        text[at++] = '"';
    text[at++] = json ? ':' : '=';
    return line_append(line, bytes_of(text, at));
}

static void put_number(struct line *line, size_t start, const char *digits)
{
    if (line_append(line, bytes_of_text(digits)))
        return;
    line->out.size = start; /* half a number is a wrong number: without its key */
    line->cut = true;
}

static void put_field(struct line *line, const struct log_field *field)
{
    char digits[24];
    size_t start = line->out.size;
    if (!put_key(line, field->key)) {
        line->cut = true;
        return;
    }
    switch (field->kind) {
    case LOG_FIELD_U64:
        (void)snprintf(digits, sizeof digits, "%llu", (unsigned long long)field->value.u64);
        put_number(line, start, digits);
        break;
    case LOG_FIELD_I64:
        (void)snprintf(digits, sizeof digits, "%lld", (long long)field->value.i64);
        put_number(line, start, digits);
        break;
    case LOG_FIELD_TEXT:
        put_text(line, bytes_of_text(field->value.text != NULL ? field->value.text : ""));
        break;
    case LOG_FIELD_ERR:
        put_text(line, bytes_of_text(err_name(field->value.err)));
        break;
    case LOG_FIELD_BYTES:
        put_text(line, field->value.bytes);
        break;
    case LOG_FIELD_END:
        break;
    }
}

/* format_time: RFC 3339 in UTC with milliseconds. Own arithmetic, because gmtime_r takes the time
 * zone's lock. Days are counted from 1 March of year 0, so that a leap day is the last of its year;
 * 400 years have 146,097 days. */
static void format_time(char out[40], uint64_t unix_ms)
{
    uint64_t seconds = unix_ms / 1000;
    uint64_t days = seconds / 86400 + 719468;
    uint64_t era = days / 146097;
    uint64_t day_of_era = days % 146097;
    uint64_t year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    uint64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    uint64_t month_from_march = (5 * day_of_year + 2) / 153;
    uint64_t day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    uint64_t month = month_from_march < 10 ? month_from_march + 3 : month_from_march - 9;
    uint64_t year = era * 400 + year_of_era + (month <= 2);
    (void)snprintf(out, 40, "%04u-%02u-%02uT%02u:%02u:%02u.%03uZ", (unsigned)(year % 10000),
                   (unsigned)month, (unsigned)day, (unsigned)(seconds / 3600 % 24),
                   (unsigned)(seconds / 60 % 60), (unsigned)(seconds % 60),
                   (unsigned)(unix_ms % 1000));
}

size_t log_render(char out[LOG_LINE_BYTES], enum log_format format, uint64_t unix_ms,
                  enum log_level level, const char *event, const struct log_field *fields)
{
    static const char *const level_names[] = {"debug", "info", "warn", "error"};
    struct line line = {.out = buffer_of(out, LOG_LINE_BYTES), .format = format};
    char time[40];
    format_time(time, unix_ms);
    if (format == LOG_JSON)
        line_end(&line, "{");
    put_field(&line, &LOG_TEXT("time", time));
    put_field(&line, &LOG_TEXT("level", level_names[level]));
    put_field(&line, &LOG_TEXT("event", event));
    for (; fields->kind != LOG_FIELD_END; fields++)
        put_field(&line, fields);
    if (line.cut)
        line_end(&line, format == LOG_JSON ? ",\"cut\":true" : " cut=true");
    line_end(&line, format == LOG_JSON ? "}\n" : "\n");
    return line.out.size;
}

/* ---- output */

/* write_line: false: the descriptor does not take it now. */
static bool write_line(const char *line, size_t size)
{
    struct pollfd ready = {.fd = STDERR_FILENO, .events = POLLOUT};
    if (poll(&ready, 1, 0) != 1 || (ready.revents & POLLOUT) == 0)
        return false;
    return write(STDERR_FILENO, line, size) == (ssize_t)size;
}

void logging_init(enum log_level level, enum log_format format)
{
    level_min = level;
    line_format = format;
}

void log_fields(enum log_level level, const char *event, const struct log_field *fields)
{
    if (level < level_min)
        return;
    struct timespec now;
    uint64_t unix_ms = 0;
    if (clock_gettime(CLOCK_REALTIME, &now) == 0)
        unix_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / NS_PER_MS;
    char line[LOG_LINE_BYTES];
    uint64_t lost = atomic_exchange(&dropped, 0);
    if (lost != 0) {
        struct log_field count[] = {LOG_U64("count", lost), LOG_END};
        size_t size = log_render(line, line_format, unix_ms, LOG_WARN, "log_lines_dropped", count);
        if (!write_line(line, size))
            atomic_fetch_add(&dropped, lost);
    }
    size_t size = log_render(line, line_format, unix_ms, level, event, fields);
    if (!write_line(line, size))
        atomic_fetch_add(&dropped, 1);
}

uint64_t log_lines_dropped(void)
{
    return atomic_load(&dropped);
}
