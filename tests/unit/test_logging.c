/* test_logging.c: exact lines; whatever bytes come in, a line stays one line of valid UTF-8 that
 * splits back into its fields. */
#include "tests/unit/check.h"

#include "core/logging.h"
#include "core/text.h"

#include <fcntl.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#define TIME_MS 1769860800123u /* 2026-01-31T12:00:00.123Z */

static char line[LOG_LINE_BYTES + 1];

static size_t render(enum log_format format, uint64_t ms, const struct log_field *fields)
{
    size_t size = log_render(line, format, ms, LOG_WARN, "listen_failed", fields);
    assert_in_range(size, 1, LOG_LINE_BYTES);
    line[size] = '\0';
    return size;
}

static void render_all_kinds(enum log_format format)
{
    const struct log_field fields[] = {
        LOG_TEXT("address", "[::1]:8443"),
        LOG_TEXT("said", "no \"way\"\n\\ \x01"),
        LOG_TEXT("empty", ""),
        LOG_TEXT("null", NULL),
        LOG_U64("big", UINT64_MAX),
        LOG_I64("small", INT64_MIN),
        LOG_ERR(ERR_ADDRESS),
        LOG_BYTES("raw", bytes_of("a\xff z\xc3\xa4", 6)),
        LOG_END,
    };
    render(format, TIME_MS, fields);
}

static void key_value_line(void **state)
{
    (void)state;
    render_all_kinds(LOG_KEY_VALUE);
    assert_string_equal(line,
                        "time=2026-01-31T12:00:00.123Z level=warn event=listen_failed "
                        "address=[::1]:8443 said=\"no \\\"way\\\"\\n\\\\ \\u0001\" empty=\"\" "
                        "null=\"\" big=18446744073709551615 small=-9223372036854775808 "
                        "err=address raw=\"a\xef\xbf\xbd z\xc3\xa4\"\n");
}

static void json_line(void **state)
{
    (void)state;
    render_all_kinds(LOG_JSON);
    assert_string_equal(
        line,
        "{\"time\":\"2026-01-31T12:00:00.123Z\",\"level\":\"warn\",\"event\":\"listen_failed\","
        "\"address\":\"[::1]:8443\",\"said\":\"no \\\"way\\\"\\n\\\\ \\u0001\",\"empty\":\"\","
        "\"null\":\"\",\"big\":18446744073709551615,\"small\":-9223372036854775808,"
        "\"err\":\"address\",\"raw\":\"a\xef\xbf\xbd z\xc3\xa4\"}\n");
}

static void times_of_all_years(void **state)
{
    (void)state;
    uint64_t seed = 8;
    for (int i = 0; i < 20000; i++) {
        uint64_t ms = random_below(&seed, 253402300800000); /* to the end of 9999 */
        time_t seconds = (time_t)(ms / 1000);
        struct tm parts;
        assert_non_null(gmtime_r(&seconds, &parts));
        char expected[64];
        size_t size = strftime(expected, sizeof expected, "time=%Y-%m-%dT%H:%M:%S", &parts);
        (void)snprintf(expected + size, sizeof expected - size, ".%03uZ ", (unsigned)(ms % 1000));
        render(LOG_KEY_VALUE, ms, (struct log_field[]){LOG_END});
        assert_memory_equal(line, expected, strlen(expected));
    }
}

/* skip_value: over a bare value or a JSON string; fails on anything else. */
static const char *skip_value(const char *p, enum log_format format)
{
    if (*p != '"') {
        const char *start = p;
        while (strchr(format == LOG_JSON ? ",}" : " \n", *p) == NULL) {
            assert_true(*p > ' ' && *p != '"' && *p != '\\' && *p != '=');
            p++;
        }
        assert_true(p > start);
        return p;
    }
    for (p++; *p != '"'; p++) {
        assert_true((unsigned char)*p >= ' ');
        if (*p == '\\') {
            p++;
            assert_non_null(strchr("\"\\nu", *p));
        }
    }
    return p + 1;
}

static void parse_back(enum log_format format, size_t size)
{
    assert_true(utf8_valid(bytes_of(line, size)));
    const char *p = line;
    if (format == LOG_JSON)
        assert_int_equal(*p++, '{');
    for (;;) {
        if (format == LOG_JSON)
            assert_int_equal(*p++, '"');
        size_t key = strspn(p, "abcdefghijklmnopqrstuvwxyz0123456789_");
        assert_true(key > 0);
        p += key;
        if (format == LOG_JSON)
            assert_int_equal(*p++, '"');
        assert_int_equal(*p++, format == LOG_JSON ? ':' : '=');
        p = skip_value(p, format);
        if (*p != (format == LOG_JSON ? ',' : ' '))
            break;
        p++;
    }
    if (format == LOG_JSON)
        assert_int_equal(*p++, '}');
    assert_int_equal(*p++, '\n');
    assert_ptr_equal(p, line + size);
}

static void any_bytes_stay_one_line(void **state)
{
    (void)state;
    uint64_t seed = 9;
    static uint8_t data[3000];
    int cuts = 0;
    for (int i = 0; i < 20000; i++) {
        size_t sizes[3];
        for (int j = 0; j < 3; j++)
            sizes[j] = random_below(&seed, i % 3 == 0 ? 1000 : 40);
        for (size_t j = 0; j < sizeof data / (i % 3 == 0 ? 1 : 10); j++)
            data[j] = (uint8_t)(i % 2 == 0 ? random_next(&seed) : 'a' + random_below(&seed, 26));
        enum log_format format = i % 4 < 2 ? LOG_JSON : LOG_KEY_VALUE;
        size_t size = render(format, TIME_MS,
                             (struct log_field[]){LOG_BYTES("a", bytes_of(data, sizes[0])),
                                                  LOG_U64("n", random_next(&seed)),
                                                  LOG_BYTES("b", bytes_of(data + 1000, sizes[1])),
                                                  LOG_BYTES("c", bytes_of(data + 2000, sizes[2])),
                                                  LOG_ERR(ERR_FULL), LOG_END});
        parse_back(format, size);
        cuts += strstr(line, "cut") != NULL && size > LOG_LINE_BYTES - 80;
    }
    assert_true(cuts > 100);
}

static void every_length_is_cut_cleanly(void **state)
{
    (void)state;
    static uint8_t data[2200];
    memset(data, 'x', sizeof data);
    for (size_t size = 1800; size < sizeof data; size++) {
        for (int format = 0; format < 2; format++) {
            data[0] = size % 2 == 0 ? ' ' : 'x';
            const struct log_field fields[] = {LOG_BYTES("a", bytes_of(data, size)),
                                               LOG_U64("number", 123456), LOG_TEXT("t", "u v"),
                                               LOG_END};
            size_t line_size = render((enum log_format)format, TIME_MS, fields);
            parse_back((enum log_format)format, line_size);
            bool whole = strstr(line, "u v") != NULL && strstr(line, "123456") != NULL &&
                         strstr(line, "\xe2\x80\xa6") == NULL;
            bool marked =
                strstr(line, format == LOG_JSON ? ",\"cut\":true}" : " cut=true\n") != NULL;
            assert_int_equal(whole, !marked);
        }
    }
}

static void full_pipe_drops_and_counts(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(pipe2(ends, O_NONBLOCK), 0);
    int saved = dup(STDERR_FILENO);
    assert_int_equal(dup2(ends[1], STDERR_FILENO), STDERR_FILENO);
    logging_init(LOG_WARN, LOG_KEY_VALUE);
    log_event(LOG_INFO, "not_shown", LOG_END);
    int lines = 0;
    while (log_lines_dropped() < 3 && lines < 100000) {
        log_event(LOG_WARN, "filler", LOG_U64("n", (uint64_t)lines), LOG_END);
        lines++;
    }
    uint64_t lost = log_lines_dropped();
    static char text[1 << 20];
    ssize_t size = read(ends[0], text, sizeof text - 1);
    log_event(LOG_ERROR, "after", LOG_END);
    char tail[512] = "";
    ssize_t tail_size = read(ends[0], tail, sizeof tail - 1);
    (void)dup2(saved, STDERR_FILENO);
    (void)close(saved);
    assert_int_equal(lost, 3);
    assert_true(size > 0 && tail_size > 0);
    assert_null(strstr(text, "not_shown"));
    assert_non_null(strstr(text, "event=filler n=0\n"));
    int seen = 0;
    for (const char *p = text; (p = strchr(p, '\n')) != NULL; p++)
        seen++;
    assert_int_equal(seen + 3, lines);
    assert_non_null(strstr(tail, "event=log_lines_dropped count=3\n"));
    assert_non_null(strstr(tail, "level=error event=after\n"));
    assert_int_equal(log_lines_dropped(), 0);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(key_value_line),
        cmocka_unit_test(json_line),
        cmocka_unit_test(times_of_all_years),
        cmocka_unit_test(any_bytes_stay_one_line),
        cmocka_unit_test(every_length_is_cut_cleanly),
        cmocka_unit_test(full_pipe_drops_and_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
