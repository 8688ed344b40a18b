/* log_fixture.h: what the log's unit tests begin and end with, and do in between: one rig on an
 * empty disk, filled, merged, opened again, kept and gone back to while call after call fails.
 * Flow:       test_log_*.c → here → log_rig.h, fault_io.h
 * Owns:       the rig, one for the whole test, with its metrics; the disk that fixture_keep kept
 * Invariants: after fixture_tear_down no descriptor is open and none of the store's memory taken */
#ifndef TESTS_UNIT_LOG_FIXTURE_H
#define TESTS_UNIT_LOG_FIXTURE_H

#include "store/log_private.h"
#include "tests/unit/check.h"
#include "tests/unit/log_rig.h"

#define DAY_MS  86400000ull
#define HOUR_MS (DAY_MS / 24)
#define WALL_MS 1700000000000ull /* the test disk's clock begins here */

extern struct rig *rig;

#define FIXTURE_TEST(test) cmocka_unit_test_setup_teardown(test, fixture_set_up, fixture_tear_down)
/* FIXTURE_TEST_AFTER: set_up calls fixture_set_up first and then sets what it wants otherwise. */
#define FIXTURE_TEST_AFTER(set_up, test)                                                           \
    cmocka_unit_test_setup_teardown(test, set_up, fixture_tear_down)
int fixture_set_up(void **state); /* a rig of rig_init on an empty disk, not opened */
int fixture_tear_down(void **state);
/* fixture_small: segments of 64 KiB and batches of 16 KiB. */
void fixture_small(void);
/* fixture_merging: small ones that are merged, `inputs` at a time; replayed as such. */
void fixture_merging(uint32_t inputs);

/* fixture_fill: records in `conversations` conversations, their order mixed; with marks, now and
 * then a watermark. */
void fixture_fill(uint32_t records, uint32_t conversations, bool marks);
/* fixture_merge: everything that is due in 400 s, from the present checkpoint on. */
void fixture_merge(void);
/* fixture_hours: turns in every minute of them, and a checkpoint each. */
void fixture_hours(uint32_t count);
/* fixture_checkpoint: what it includes is what was acknowledged when it named its position. */
void fixture_checkpoint(void);
/* fixture_reopen: after a clean stop, with everything below that checkpoint; nothing is damaged. */
void fixture_reopen(uint64_t checkpoint);
/* fixture_count: every number of the conversation is served or gone, once, in order. Returns how
 * many are gone. */
uint64_t fixture_count(uint32_t conversation, uint64_t *served);
void fixture_say(void *context, const char *line); /* of log_verify: nothing */

/* Times of records: four a day since a hundred days; now. */
uint64_t fixture_times_rise(uint32_t conversation, uint64_t seq);
uint64_t fixture_times_now(uint32_t conversation, uint64_t seq);

/* What the log is told of a conversation when it asks, nothing at first; how often it asked. */
extern struct retention_rule rules[RIG_CONVERSATIONS];
extern uint32_t looks;
/* fixture_retention: its callbacks are the rules; own is NULL: set it to fixture_own where
 * conversations have ages and bounds of their own. */
void fixture_retention(uint64_t age_ms, uint64_t undelivered_ms);
enum err fixture_begin_looks(void *context, void **session);
void fixture_end_looks(void *session);
enum err fixture_own(void *session, uint8_t first,
                     enum err (*add)(void *list, struct conversation_id conversation), void *list);
void fixture_all_delivered(void);
/* fixture_naming: records are from now, everything is delivered, what is due goes without delay,
 * and its name is kept for known_ms. */
void fixture_naming(uint64_t known_ms);

/* fixture_keep: the rig, closed, its disk and the clock, for fixture_go_back. */
void fixture_keep(void);
void fixture_go_back(void);
/* fixture_every_call_fails: the n-th call of a kind fails, from `first` on every `stride`-th n,
 * until a life makes fewer: from what was kept, life(), then nothing is open or taken, the machine
 * works again, perhaps after a power cut, and mended() looks. Returns the n that would be next. */
uint64_t fixture_every_call_fails(enum fault_op op, enum err err, bool sticky, uint64_t first,
                                  uint64_t stride, void (*life)(void), void (*mended)(void));
uint64_t fixture_every_allocation_fails(uint64_t stride, void (*life)(void), void (*mended)(void));

#endif
