/* fuzz_archive.c: a good archive is damaged as the input says, with its blocks' checksums as they
 * were or made to fit again (so that what stands inside them is believed), then the log is opened,
 * read, searched, merged further, verified and opened again: it never crashes or hangs, and without
 * checksums that lie it never serves what was not written. Linked with tests/unit/fault_io.c. */
#include "core/logging.h"
#include "store/archive_walk.h"
#include "store/log_private.h"
#include "store/repair.h"
#include "tests/unit/log_rig.h"

#define CONVERSATIONS 6
#define BLOCKS_MAX    512

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct place {
    uint64_t offset;
    struct archive_block block;
};

static char path[STORE_PATH_BYTES];
static struct archive_header header;
static struct place places[BLOCKS_MAX];
static uint32_t place_count;

static void ignore(void *context, const char *line)
{
    (void)context;
    (void)line;
}

static void note_blocks(const struct archive *archive)
{
    struct archive_walk walk;
    struct walk_item item;
    header = archive->header;
    archive_walk_init(&walk, archive->fd, &archive->key, ARCHIVE_HEADER_BYTES,
                      archive->footer.bytes);
    while (archive_walk_next(&walk, &item) == OK && item.kind == WALK_BLOCK &&
           place_count < BLOCKS_MAX)
        places[place_count++] = (struct place){item.from, item.block};
    archive_walk_deinit(&walk);
}

/* some_expired: they were removed and are found by their ids. */
static uint64_t some_expired(uint32_t conversation, uint64_t seq)
{
    return conversation == 2 || seq % 9 == 0 ? 1 : 0;
}

static struct fault_image *good_log(struct rig *rig)
{
    rig_init(rig);
    rig->merged_replay = true;
    rig->options.segment_bytes = 64 << 10;
    rig->options.batch_bytes_max = 16 << 10;
    rig->options.merge_inputs = 3;
    rig->options.archive_bytes_max = 1 << 30;
    rig->options.compress = true;
    rig->options.trust_clock = true;
    rig->options.retention.repeats_ms = 3600000;
    rig->expires = some_expired;
    CHECK(rig_open(rig) == OK);
    for (uint32_t i = 0; i < 1100; i++) {
        CHECK(rig_append_now(rig, i % CONVERSATIONS) == OK);
        if (i % 9 == 0)
            rig_turn(rig);
    }
    rig_settle(rig);
    uint64_t checkpoint = log_durable(rig->log);
    log_checkpointed(rig->log, checkpoint);
    for (uint32_t i = 0; i < 200; i++) {
        fault_pass(NS_PER_S);
        rig_turn(rig);
    }
    struct lane_segment *oldest = rig->log->segments[0];
    CHECK(oldest->archived && oldest->level >= 1 && oldest->footer.named > 0);
    CHECK(lane_archive_path(rig->log, oldest, path) == OK);
    CHECK(lane_load(rig->log, oldest) == OK);
    note_blocks(oldest->archive);
    rig_close(rig);
    fault_settle();
    rig->options.checkpoint = checkpoint;
    return fault_save();
}

/* damage: six bytes per wound: offset (3), kind, length, value. */
static void damage(const uint8_t *data, size_t size)
{
    uint64_t bytes;
    uint8_t *file = fault_data(path, &bytes);
    for (; size >= 6; data += 6, size -= 6) {
        uint64_t at = (data[0] | (uint64_t)data[1] << 8 | (uint64_t)data[2] << 16) % bytes;
        uint64_t length = 1ull << data[4] % 14;
        if (data[3] >= 128 && place_count > 0) { /* into the content of a block */
            const struct place *place = &places[data[0] % place_count];
            uint32_t stored = place->block.stored == 0 ? 1 : place->block.stored;
            at = place->offset + ARCHIVE_HEAD_BYTES + (data[1] | (uint64_t)data[2] << 8) % stored;
            length = 1 + data[4] % 8;
        }
        if (length > bytes - at)
            length = bytes - at;
        if (data[3] % 3 == 0)
            file[at] ^= (uint8_t)(1 << data[4] % 8);
        else if (data[3] % 3 == 1)
            memset(file + at, data[5], length);
        else
            memmove(file + at, file + (at + 4096) % (bytes - length + 1), length);
    }
}

/* reseal: every block's checksums fit what is there now. */
static void reseal(void)
{
    uint64_t bytes;
    uint8_t *file = fault_data(path, &bytes);
    struct segment_key key = archive_key(&header);
    for (uint32_t i = 0; i < place_count; i++) {
        struct archive_block block = places[i].block;
        uint8_t *head = file + places[i].offset;
        archive_head_encode(head, &block, bytes_of(head + ARCHIVE_HEAD_BYTES, block.stored), &key,
                            places[i].offset);
    }
}

static void read_all(struct rig *rig, bool honest)
{
    for (uint32_t c = 0; c < CONVERSATIONS; c++)
        for (uint64_t next = 1, rounds = 0; next <= 190 && rounds < 2000; rounds++) {
            struct log_read read = rig_range(rig, c, next, 190, 1000, RIG_OUT_BYTES);
            enum err err = rig_await(rig, &read);
            if (honest)
                next += rig_check(rig, &read, c, next);
            else
                next += read.records;
            if (err != OK && err != ERR_CORRUPT && err != ERR_EXPIRED)
                break;
            if (err == OK)
                continue;
            CHECK(read.missing_from == next && read.missing_to >= next);
            next = read.missing_to + 1;
        }
}

static void find_some(struct rig *rig, bool honest)
{
    for (uint32_t c = 0; c < CONVERSATIONS; c++)
        for (uint64_t seq = 1; seq < 180; seq += 57) {
            struct log_record record = rig_record(rig, c, seq);
            struct log_read read = {.kind = LOG_READ_FIND,
                                    .conversation = record.conversation,
                                    .sender = record.sender,
                                    .device = record.device,
                                    .message_id = record.message_id,
                                    .out = buffer_of(rig->out, RIG_OUT_BYTES)};
            if (honest)
                (void)rig_find(rig, c, seq); /* and looks at what it finds */
            else
                (void)rig_await(rig, &read);
            read = rig_range(rig, c, 0, UINT64_MAX, 50, RIG_OUT_BYTES);
            read.kind = LOG_READ_BACK;
            enum err err = rig_await(rig, &read);
            CHECK(err != OK || read.records > 0);
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
    if (size < 1)
        return 0;
    bool honest = data[0] % 2 == 0;
    size = size > 61 ? 61 : size;
    fault_load(image);
    damage(data + 1, size - 1);
    if (!honest)
        reseal();
    fault_settle();
    enum err err = rig_open(&rig);
    CHECK(err == OK || err == ERR_NEWER);
    if (err != OK)
        return 0;
    read_all(&rig, honest);
    find_some(&rig, honest);
    rig.options.merge_inputs = 2;
    if (honest) { /* what lies cannot be merged: its order is checked as a bug would be */
        for (uint32_t i = 0; i < 20; i++) {
            fault_pass(NS_PER_S);
            rig_turn(&rig);
        }
        read_all(&rig, honest);
    }
    rig_close(&rig);
    (void)!log_verify(RIG_DIRECTORY, NULL, ignore, NULL);
    const struct inspect_output out = {.line = ignore};
    struct repair_report report;
    (void)!log_repair(RIG_DIRECTORY, NULL, "quarantine", 1, &out, &report);
    rig.options.merge_inputs = 3;
    CHECK(rig_open(&rig) == OK);
    rig_close(&rig);
    CHECK(fault_open_descriptors() == 0);
    return 0;
}
