/* fuzz_recovery.c: a good log, damaged as the input says (offset, length, kind of damage), is
 * opened, read, appended to, closed and verified: it never crashes, never serves what was not
 * written, and opens again. Linked with the disk of tests/unit/fault_io.c. */
#include "core/logging.h"
#include "store/sidecar.h"
#include "tests/unit/log_rig.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void ignore(void *context, const char *line)
{
    (void)context;
    (void)line;
}

static struct fault_image *good_log(struct rig *rig)
{
    rig_init(rig);
    rig->options.segment_bytes = 64 << 10;
    rig->options.batch_bytes_max = 16 << 10;
    CHECK(rig_open(rig) == OK);
    for (uint32_t i = 0; i < 500; i++) {
        CHECK(rig_append_now(rig, i % 4) == OK);
        if (i % 9 == 0)
            rig_turn(rig);
    }
    rig_settle(rig);
    rig_crash(rig, 1);
    return fault_save();
}

/* damage: six bytes per wound: file, offset (3), kind, length. */
static void damage(const uint8_t *data, size_t size)
{
    static const char *const names[] = {".segment", ".index"};
    for (; size >= 6; data += 6, size -= 6) {
        char path[STORE_PATH_BYTES];
        uint64_t bytes;
        CHECK(store_path(path, RIG_DIRECTORY, 1 + data[0] % 4, names[data[0] / 4 % 2]) == OK);
        uint8_t *file = fault_data(path, &bytes);
        if (file == NULL)
            continue;
        uint64_t at = (data[1] | (uint64_t)data[2] << 8 | (uint64_t)data[3] << 16) % bytes;
        uint64_t length = 1ull << data[5] % 17;
        if (length > bytes - at)
            length = bytes - at;
        uint64_t other = (at + 4096) % (bytes - length + 1);
        if (data[4] % 4 == 0)
            file[at] ^= (uint8_t)(1 << data[5] % 8);
        else if (data[4] % 4 == 1)
            memset(file + at, 0, length);
        else if (data[4] % 4 == 2)
            memset(file + at, data[5], length);
        else
            memmove(file + at, file + other, length); /* misplaced */
    }
    fault_settle();
}

static void read_what_is_there(struct rig *rig)
{
    for (uint32_t c = 0; c < 4; c++)
        for (uint64_t next = 1; next <= 130;) {
            struct log_read read = rig_range(rig, c, next, 130, 1000, RIG_OUT_BYTES);
            enum err err = rig_await(rig, &read);
            next += rig_check(rig, &read, c, next); /* only what was written */
            if (err != OK && err != ERR_CORRUPT)
                break;
            if (err == ERR_CORRUPT) {
                CHECK(read.missing_from == next && read.missing_to >= next);
                next = read.missing_to + 1;
            }
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct rig rig; /* one log is built, once, for all inputs */
    static struct fault_image *image;
    if (image == NULL) {
        logging_init(LOG_ERROR + 1, LOG_KEY_VALUE);
        image = good_log(&rig);
    }
    if (size > 60)
        size = 60;
    fault_load(image);
    damage(data, size);
    rig.damaged = 0;
    enum err err = rig_open(&rig);
    CHECK(err == OK || err == ERR_INVALID || err == ERR_NEWER);
    if (err != OK)
        return 0;
    read_what_is_there(&rig);
    for (uint32_t c = 0; c < 4; c++) /* numbers not used yet, whatever was lost */
        rig.appended[c] = rig.acked[c] = 1000;
    for (uint32_t i = 0; i < 20; i++)
        CHECK(rig_append_now(&rig, i % 4) == OK);
    rig_settle(&rig);
    rig_close(&rig);
    (void)!log_verify(RIG_DIRECTORY, NULL, ignore, NULL);
    uint64_t replayed = rig.replayed;
    CHECK(rig_open(&rig) == OK);
    CHECK(rig.replayed ==
          replayed + 20); /* what was found and what was appended, no more, no less */
    rig_close(&rig);
    CHECK(fault_open_descriptors() == 0);
    return 0;
}
