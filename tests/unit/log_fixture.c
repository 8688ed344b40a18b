/* log_fixture.c: the one rig of a test, and its rules. */
#include "tests/unit/log_fixture.h"

struct rig *rig;
struct retention_rule rules[RIG_CONVERSATIONS];
uint32_t looks;

static struct rig *kept; /* as it was when the image was made */
static struct fault_image *image;
static uint64_t image_ns; /* the clock then */

int fixture_set_up(void **state)
{
    (void)state;
    fault_reset();
    memset(rules, 0, sizeof rules);
    looks = 0;
    rig = malloc(sizeof *rig);
    rig_init(rig);
    return 0;
}

int fixture_tear_down(void **state)
{
    (void)state;
    fault_calm();
    if (rig->log != NULL)
        rig_close(rig);
    metrics_destroy(rig->metrics);
    assert_int_equal(fault_open_descriptors(), 0);
    if (image != NULL)
        fault_free(image);
    free(kept);
    free(rig);
    image = NULL;
    kept = NULL;
    assert_int_equal(memory_bytes(MEMORY_STORE), 0);
    return 0;
}

void fixture_small(void)
{
    rig->options.segment_bytes = 64 << 10;
    rig->options.batch_bytes_max = 16 << 10;
}

void fixture_merging(uint32_t inputs)
{
    fixture_small();
    rig->merged_replay = true;
    rig->options.merge_inputs = inputs;
    rig->options.archive_bytes_max = 1 << 30;
}

void fixture_fill(uint32_t records, uint32_t conversations, bool marks)
{
    for (uint32_t i = 0; i < records; i++) {
        assert_int_equal(rig_append_now(rig, (i * 7 + i / 5) % conversations), OK);
        if (marks && i % 50 == 0)
            while (rig_append_watermark(rig, i / 50 % conversations) == ERR_FULL)
                rig_turn(rig);
        if (i % 8 == 0)
            rig_turn(rig);
    }
    rig_settle(rig);
}

void fixture_merge(void)
{
    log_checkpointed(rig->log, log_durable(rig->log));
    for (uint32_t i = 0; i < 400; i++) {
        fault_pass(NS_PER_S);
        rig_turn(rig);
    }
}

void fixture_hours(uint32_t count)
{
    for (uint32_t i = 0; i < count * 60; i++) {
        fault_pass(HOUR_MS / 60 * NS_PER_MS);
        for (uint32_t j = 0; j < 8; j++)
            rig_turn(rig);
        log_checkpointed(rig->log, log_durable(rig->log));
    }
}

void fixture_checkpoint(void)
{
    rig_take_completions(rig);
    rig->options.checkpoint = log_durable(rig->log);
    log_checkpointed(rig->log, rig->options.checkpoint);
    memcpy(rig->found, rig->acked, sizeof rig->found);
}

void fixture_reopen(uint64_t checkpoint)
{
    rig_close(rig);
    rig->options.checkpoint = checkpoint;
    memcpy(rig->found, rig->acked, sizeof rig->found);
    assert_int_equal(rig_open(rig), OK);
    assert_int_equal(rig->damaged, 0);
    rig_adopt(rig);
}

uint64_t fixture_count(uint32_t conversation, uint64_t *served)
{
    uint64_t gone = 0;
    *served = 0;
    for (uint64_t next = 1; next <= rig->acked[conversation];) {
        struct log_read read =
            rig_range(rig, conversation, next, rig->acked[conversation], 1000, RIG_OUT_BYTES);
        enum err err = rig_await(rig, &read);
        uint64_t count = rig_check(rig, &read, conversation, next);
        *served += count;
        next += count;
        if (err == OK)
            continue;
        assert_int_equal(err, ERR_EXPIRED);
        assert_int_equal(read.missing_from, next);
        gone += read.missing_to + 1 - next;
        next = read.missing_to + 1;
    }
    return gone;
}

void fixture_say(void *context, const char *line)
{
    (void)context;
    (void)line;
}

uint64_t fixture_times_rise(uint32_t conversation, uint64_t seq)
{
    return WALL_MS - 100 * DAY_MS + seq * (DAY_MS / 4) + conversation;
}

uint64_t fixture_times_now(uint32_t conversation, uint64_t seq)
{
    return WALL_MS + conversation + seq;
}

/* ---- rules */

enum err fixture_begin_looks(void *context, void **session)
{
    *session = context;
    return OK;
}

void fixture_end_looks(void *session)
{
    assert_ptr_equal(session, rig->options.retention.context);
}

static enum err look(void *session, struct conversation_id conversation,
                     struct retention_rule *rule)
{
    assert_ptr_equal(session, &looks);
    looks++;
    *rule = rules[conversation.lo - 1000];
    return OK;
}

/* fixture_own: of the rig's ids the first byte is 0. */
enum err fixture_own(void *session, uint8_t first,
                     enum err (*add)(void *list, struct conversation_id conversation), void *list)
{
    (void)session;
    for (uint64_t hi = 0; hi < 2 && first == 0; hi++)
        for (uint32_t c = (uint32_t)hi; c < RIG_CONVERSATIONS; c += 2)
            if (rules[c].age_ms != 0 || rules[c].beyond_seq != 0)
                TRY(add(list, (struct conversation_id){hi, 1000 + c}));
    return OK;
}

void fixture_retention(uint64_t age_ms, uint64_t undelivered_ms)
{
    rig->options.trust_clock = true;
    rig->options.retention = (struct retention){.age_ms = age_ms,
                                                .undelivered_ms = undelivered_ms,
                                                .expiry_delay_ms = DAY_MS,
                                                .begin = fixture_begin_looks,
                                                .look = look,
                                                .end = fixture_end_looks,
                                                .context = &looks};
}

void fixture_all_delivered(void)
{
    for (uint32_t c = 0; c < RIG_CONVERSATIONS; c++)
        rules[c].delivered_seq = UINT64_MAX;
}

void fixture_naming(uint64_t known_ms)
{
    fixture_retention(0, 0);
    fixture_all_delivered();
    rig->time = fixture_times_now;
    rig->options.retention.repeats_ms = known_ms;
    rig->options.retention.expiry_delay_ms = 0;
    rig->options.retention.own_delay_ms = 0;
}

/* ---- call after call fails */

void fixture_keep(void)
{
    kept = malloc(sizeof *kept);
    memcpy(kept, rig, sizeof *rig);
    image = fault_save();
    image_ns = io_now_ns(fault_io());
}

void fixture_go_back(void)
{
    memcpy(rig, kept, sizeof *rig);
    fault_calm();
    fault_load(image);
    fault_pass(image_ns - io_now_ns(fault_io())); /* back */
}

static void mend(uint64_t n, void (*mended)(void))
{
    assert_int_equal(fault_open_descriptors(), 0);
    assert_int_equal(memory_bytes(MEMORY_STORE), 0);
    fault_calm();
    if (n % 2 == 0)
        fault_crash(n + 2);
    assert_int_equal(rig_open(rig), OK);
    assert_int_equal(rig->damaged, 0);
    rig_adopt(rig); /* acknowledged ⊆ found */
    mended();
    rig_close(rig);
}

uint64_t fixture_every_call_fails(enum fault_op op, enum err err, bool sticky, uint64_t first,
                                  uint64_t stride, void (*life)(void), void (*mended)(void))
{
    for (uint64_t n = first;; n += stride) {
        fixture_go_back();
        uint64_t calls = fault.count[op];
        fault.fail_at[op] = n;
        fault.fail_err = err;
        fault.fail_sticky = sticky;
        life();
        bool reached = fault.count[op] - calls >= n;
        mend(n, mended);
        if (!reached)
            return n + stride;
    }
}

uint64_t fixture_every_allocation_fails(uint64_t stride, void (*life)(void), void (*mended)(void))
{
    for (uint64_t n = 1;; n += stride) {
        fixture_go_back();
        memory_fail_at(n);
        life();
        uint64_t left = memory_fail_at(0);
        mend(n, mended);
        if (left != 0)
            return n + stride;
    }
}
