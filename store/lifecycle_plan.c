/* lifecycle_plan.c: what is due, most urgent first:
 *
 * - free: the oldest archive with messages, when its newest one is older than any rule keeps one:
 *   of it and those freed before only the range of numbers of each conversation stays, in one
 *   archive: they were given and are not given again, also after a rebuild from the log alone; and
 *   entries that set a retention which is in force. While a repeat of what was in them may come it
 *   is not freed by its directory, but written anew: what it names is forgotten later
 * - names: an archive of which all names (gone_named) are needed no more, since longer than
 *   expiry_delay: it is written anew without them
 * - expiry: what has records that expired longer ago than expiry_delay: segments are merged early,
 *   an archive is written anew, the active segment ends
 * - bytes: the log is larger than retention.bytes, names apart: the oldest is written anew without
 *   what may go
 * - age: an archive of which by its times half is due is written anew: so everything goes late by
 *   its own span at most, and is rewritten seldom
 * - own: every file is looked into once in own_delay for what a conversation's own rule makes due
 *   (look.c): if there is some it is written anew, or merged early. Where there are such rules the
 *   active segment ends after that time too, whatever is in it
 * - merge: merge_segments segments, or merge_inputs archives of one level, the lowest level first;
 *   fewer where what follows them is merged already, or more would be too large (half at least)
 * - cold: an archive whose newest record is older than cold_ms moves to the cold directory
 *
 * After a start: what stands in order of arrival costs a page of history one read per message.
 * Those are served from memory while they are recent, but then nothing is in memory. So what is old
 * (from before the start) and not sorted yet is sorted soon:
 *
 * - the segment that was active ends, in the first turn with nothing gathered, if batches fill more
 *   than 1/OLD_PARTS of it: starts close upon each other leave no archive each, and at worst
 *   OLD_PARTS archives stand for a segment, which merge_inputs = 16 makes one of in one more merge.
 *   It goes on where segments are not merged, or where space is short: what it would still have
 *   taken is better than a segment behind the next one, and merging would pause
 * - it and those before it are merged as soon as the checkpoint is past them, though they be fewer
 *   than merge_segments: what was full already becomes no smaller archives by that than by default
 */
#include "store/lifecycle.h"

#include "core/file.h"
#include "core/logging.h"
#include "store/merge.h"

#define REWRITE_PAUSE_MS (24ull * 3600 * 1000) /* before retention looks at an archive again */
#define RETRY_SOON_MS    (60ull * 1000)
#define LOOK_PAUSE_MS    1000ull /* between two looks into a file, at least */
#define OLD_PARTS        16u
#define OLD_SPACE        4u /* segments: one is made next (and its sidecar), merging needs two */

uint64_t lifecycle_bytes(const struct log *log)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < log->segment_count; i++)
        bytes += log->segments[i]->archived ? log->segments[i]->footer.bytes
                                            : log->options.segment_bytes;
    return bytes;
}

uint64_t lifecycle_named(const struct log *log)
{
    uint64_t count = 0;
    for (uint32_t i = 0; i < log->segment_count; i++)
        count += log->segments[i]->footer.named;
    return count;
}

uint32_t lifecycle_waiting(const struct log *log)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < log->segment_count; i++)
        count += !log->segments[i]->archived && log->segments[i]->state == SEGMENT_SEALED;
    return count;
}

/* ---- a start; the clock */

/* old_id: of the newest segment that is sorted soon. */
static uint32_t old_id(const struct log *log)
{
    const struct log_options *options = &log->options;
    const struct lane_segment *active = log->segments[log->active];
    uint64_t space = 0;
    if (options->merge_inputs == 0)
        return 0;
    if (log->gather.offset - SEGMENT_DATA_OFFSET > active->header.bytes / OLD_PARTS &&
        file_free_bytes(log->directory, &space) == OK &&
        space >= options->reserve_bytes + OLD_SPACE * options->segment_bytes)
        return active->id;
    return active->id - 1;
}

void lifecycle_open(struct log *log, uint64_t newest_ms)
{
    struct lifecycle *life = &log->lifecycle;
    for (uint32_t i = 0; i < log->segment_count; i++)
        if (log->segments[i]->archived && log->segments[i]->footer.time_max_ms > newest_ms)
            newest_ms = log->segments[i]->footer.time_max_ms;
    clock_init(&life->clock, io_now_ns(log->io), io_wall_ms(log->io), newest_ms,
               log->options.trust_clock);
    life->active_ms = log->segments[log->active]->header.created_ms;
    life->old_id = old_id(log);
}

uint64_t lifecycle_purge_ms(struct log *log)
{
    struct lifecycle *life = &log->lifecycle;
    uint64_t now_ns = io_now_ns(log->io);
    uint64_t now_ms = io_wall_ms(log->io);
    uint64_t purge_ms = clock_purge_ms(&life->clock, now_ns, now_ms);
    bool wrong = purge_ms == 0;
    if (wrong != life->clock_wrong) {
        life->clock_wrong = wrong;
        log_event(wrong ? LOG_ERROR : LOG_INFO, wrong ? "purge_paused" : "purge_resumed",
                  LOG_U64("wall_ms", now_ms),
                  LOG_U64("expected_ms", clock_expected_ms(&life->clock, now_ns)),
                  LOG_TEXT("advice",
                           wrong ? "set the clock, or confirm it: store.trust_clock = yes" : ""),
                  LOG_END);
        if (log->metrics != NULL)
            metric_set(log->metrics, METRIC_PURGE_PAUSED, wrong);
    }
    return purge_ms;
}

/* ---- what may be touched */

static bool mergeable(const struct log *log, const struct lane_segment *segment)
{
    return segment->state == SEGMENT_SEALED && !segment->unmergeable && !segment->busy &&
           (segment->archived || lane_below(segment, log->checkpointed));
}

static uint64_t bytes_of_entry(const struct log *log, const struct lane_segment *segment)
{
    return segment->archived ? segment->footer.bytes : log->options.segment_bytes;
}

static bool older(uint64_t time_ms, uint64_t age_ms, uint64_t now_ms)
{
    return now_ms > age_ms && time_ms < now_ms - age_ms;
}

/* alone: write one entry anew; a segment takes its unmerged neighbours with it. */
static void plan_from(const struct log *log, struct lifecycle_plan *plan, uint32_t at)
{
    *plan = (struct lifecycle_plan){.kind = LIFECYCLE_MERGE, .lo = at, .hi = at};
    if (log->segments[at]->archived)
        return;
    while (plan->hi + 1 < log->segment_count && plan->hi + 1 - at < log->options.merge_inputs &&
           !log->segments[plan->hi + 1]->archived && mergeable(log, log->segments[plan->hi + 1]))
        plan->hi++;
}

/* ---- each rule */

/* messages: what rules drop; entries that set a retention are kept as long as they are in force. */
static uint64_t messages(const struct lane_segment *segment)
{
    return segment->footer.records - segment->footer.settings;
}

/* names: ids that repeats may still be looked up by. */
static bool names(const struct lane_segment *segment, uint64_t now_ms)
{
    return segment->footer.named_until_ms > now_ms;
}

/* freed: of an archive only the numbers are left, and settings. */
static bool freed(const struct log *log, uint32_t at, uint64_t now_ms)
{
    const struct lane_segment *segment = log->segments[at];
    return at < log->active && segment->archived && mergeable(log, segment) &&
           messages(segment) == 0 && !names(segment, now_ms);
}

/* kept_ms: no rule keeps what is older. */
static uint64_t kept_ms(const struct retention *retention)
{
    uint64_t age_ms =
        retention->age_max_ms > retention->age_ms ? retention->age_max_ms : retention->age_ms;
    return age_ms < retention->undelivered_ms ? retention->undelivered_ms : age_ms;
}

/* all_due: no rule keeps a message of the archive; sure: nor would one that is repeated be known by
 * what was kept of it. */
static bool all_due(const struct log *log, const struct lane_segment *segment, bool sure,
                    uint64_t now_ms)
{
    const struct retention *retention = &log->options.retention;
    uint64_t age_ms = kept_ms(retention);
    if (sure && age_ms < retention->repeats_ms)
        age_ms = retention->repeats_ms;
    return retention->age_ms != 0 && segment->archived && mergeable(log, segment) &&
           older(segment->footer.time_max_ms, age_ms, now_ms);
}

/* plan_free: the oldest archive with messages, whole, when all of them are due: it becomes one with
 * what is left of those before it. Where there are no settings, no conversation is looked at and no
 * record read. */
static bool plan_free(const struct log *log, struct lifecycle_plan *plan, uint64_t now_ms)
{
    uint32_t count = 0;
    while (count < MERGE_INPUTS_MAX && freed(log, count, now_ms))
        count++;
    if (count < MERGE_INPUTS_MAX && count < log->active) {
        const struct lane_segment *oldest = log->segments[count];
        *plan = (struct lifecycle_plan){.kind = LIFECYCLE_MERGE, .hi = count, .free = true};
        if (all_due(log, oldest, true, now_ms) && !names(oldest, now_ms))
            return true;
    }
    *plan = (struct lifecycle_plan){.kind = LIFECYCLE_MERGE, .hi = count - 1, .free = true};
    return count > 1;
}

/* plan_young: one that would be freed, were repeats of what is in it not to be known. Nothing but
 * names is left of it then, so that it is written anew once. */
static bool plan_young(const struct log *log, struct lifecycle_plan *plan, uint64_t now_ms)
{
    for (uint32_t i = 0; i < log->active; i++) {
        const struct lane_segment *segment = log->segments[i];
        if (!all_due(log, segment, false, now_ms) || all_due(log, segment, true, now_ms) ||
            messages(segment) == 0)
            continue;
        bool tried = all_due(log, segment, false, segment->rewritten_ms);
        if (tried && !older(segment->rewritten_ms, RETRY_SOON_MS, now_ms))
            continue;
        plan_from(log, plan, i);
        return true;
    }
    return false;
}

/* plan_names: where nothing else is left, by the directory alone. */
static bool plan_names(const struct log *log, struct lifecycle_plan *plan, uint64_t now_ms)
{
    for (uint32_t i = 0; i < log->active; i++) {
        const struct lane_segment *segment = log->segments[i];
        uint64_t until_ms = segment->footer.named_until_ms;
        if (!segment->archived || !mergeable(log, segment) || until_ms == 0 ||
            !older(until_ms, log->options.retention.expiry_delay_ms, now_ms) ||
            !older(segment->rewritten_ms, RETRY_SOON_MS, now_ms))
            continue;
        plan_from(log, plan, i);
        plan->free = messages(segment) == 0;
        return true;
    }
    return false;
}

static bool expired(const struct log *log, uint64_t expires_min_ms, uint64_t now_ms)
{
    return expires_min_ms != 0 &&
           older(expires_min_ms, log->options.retention.expiry_delay_ms, now_ms);
}

static bool plan_expiry(const struct log *log, struct lifecycle_plan *plan, uint64_t now_ms)
{
    for (uint32_t i = 0; i < log->active; i++) {
        const struct lane_segment *segment = log->segments[i];
        if (!mergeable(log, segment))
            continue;
        *plan = (struct lifecycle_plan){.kind = LIFECYCLE_LOAD, .lo = i, .hi = i};
        if (!segment->expiry_known && segment->retry_ns > io_now_ns(log->io))
            continue;
        if (!segment->expiry_known)
            return true;
        plan_from(log, plan, i);
        if (expired(log, segment->expires_min_ms, now_ms) &&
            older(segment->rewritten_ms, RETRY_SOON_MS, now_ms))
            return true;
    }
    const struct lane_segment *active = log->segments[log->active];
    *plan = (struct lifecycle_plan){.kind = LIFECYCLE_ROLL};
    return active->index != NULL && expired(log, active->index->expires_min_ms, now_ms);
}

/* bytes_kept: what removing messages can make less: names are not. */
static uint64_t bytes_kept(const struct log *log)
{
    uint64_t bytes = lifecycle_bytes(log);
    for (uint32_t i = 0; i < log->segment_count; i++) {
        const struct archive_footer *footer = &log->segments[i]->footer;
        uint64_t named = footer->named * record_bytes(GONE_BODY_BYTES);
        bytes -= named < footer->bytes ? named : footer->bytes;
    }
    return bytes;
}

static bool plan_bytes(const struct log *log, struct lifecycle_plan *plan, uint64_t now_ms)
{
    uint64_t bytes_max = log->options.retention.bytes;
    if (bytes_max == 0 || bytes_kept(log) <= bytes_max)
        return false;
    for (uint32_t i = 0; i < log->active; i++) {
        const struct lane_segment *segment = log->segments[i];
        if (!mergeable(log, segment) || !older(segment->rewritten_ms, REWRITE_PAUSE_MS, now_ms))
            continue;
        if (segment->archived && messages(segment) == 0)
            continue;
        plan_from(log, plan, i);
        plan->drop_all = true;
        return true;
    }
    return false;
}

static bool plan_age(const struct log *log, struct lifecycle_plan *plan, uint64_t now_ms)
{
    uint64_t age_ms = log->options.retention.age_ms;
    if (age_ms == 0 || now_ms <= age_ms)
        return false;
    uint64_t cut_ms = now_ms - age_ms;
    for (uint32_t i = 0; i < log->active; i++) {
        const struct lane_segment *segment = log->segments[i];
        const struct archive_footer *footer = &segment->footer;
        if (!segment->archived || !mergeable(log, segment) || messages(segment) == 0 ||
            footer->time_min_ms >= cut_ms ||
            cut_ms - footer->time_min_ms < (footer->time_max_ms - footer->time_min_ms) / 2 ||
            !older(segment->rewritten_ms, REWRITE_PAUSE_MS, now_ms))
            continue;
        plan_from(log, plan, i);
        return true;
    }
    return false;
}

/* plan_own: what was rewritten by rules has nothing due by them: it is looked into as late. */
static bool plan_own(const struct log *log, struct lifecycle_plan *plan, uint64_t now_ms)
{
    const struct retention *retention = &log->options.retention;
    uint64_t pause_ms =
        retention->own_delay_ms > LOOK_PAUSE_MS ? retention->own_delay_ms : LOOK_PAUSE_MS;
    if (retention->own == NULL)
        return false;
    for (uint32_t i = 0; i < log->active; i++) {
        const struct lane_segment *segment = log->segments[i];
        if (!mergeable(log, segment) || (segment->archived && messages(segment) == 0))
            continue;
        plan_from(log, plan, i);
        if (segment->own_due)
            return true;
        plan->kind = LIFECYCLE_LOOK;
        if (older(segment->looked_ms, pause_ms, now_ms))
            return true;
    }
    const struct lifecycle *life = &log->lifecycle;
    if (log->gather.offset <= SEGMENT_DATA_OFFSET || !older(life->active_ms, pause_ms, now_ms))
        return false;
    *plan = (struct lifecycle_plan){.kind = life->own_any ? LIFECYCLE_ROLL : LIFECYCLE_LOOK,
                                    .lo = log->active,
                                    .hi = log->active};
    return life->own_any || older(life->asked_ms, pause_ms, now_ms);
}

/* run: neighbours of one level and tier that are merged together. */
struct run {
    uint32_t lo;
    uint32_t count;
    uint64_t bytes;
};

static void run_add(const struct log *log, struct run *run, uint32_t at, uint64_t bytes_max)
{
    if (run->count == 0)
        *run = (struct run){.lo = at};
    run->count++;
    run->bytes += bytes_of_entry(log, log->segments[at]);
    while (run->bytes > bytes_max && run->count > 1) {
        run->bytes -= bytes_of_entry(log, log->segments[run->lo++]);
        run->count--;
    }
}

static bool run_goes_on(const struct log *log, const struct run *run, uint32_t at, uint32_t level)
{
    const struct lane_segment *segment = log->segments[at];
    return mergeable(log, segment) && segment->level == level &&
           (run->count == 0 || log->segments[at - 1]->cold == segment->cold);
}

/* last_old: the newest of those that are sorted soon. */
static bool last_old(const struct log *log, uint32_t at)
{
    uint32_t old_id = log->lifecycle.old_id;
    return log->segments[at]->id <= old_id && log->segments[at + 1]->id > old_id;
}

/* plan_level: the oldest run of that level, as many as are merged at a time; or fewer where the run
 * cannot grow any more, because what follows was merged already; or of what is old. */
static bool plan_level(const struct log *log, struct lifecycle_plan *plan, uint32_t level)
{
    const struct log_options *options = &log->options;
    uint32_t wanted = level == 0 && options->merge_segments != 0 ? options->merge_segments
                                                                 : options->merge_inputs;
    uint64_t bytes_max = level == 0 ? UINT64_MAX : options->archive_bytes_max;
    struct run run = {0};
    for (uint32_t i = 0; i < log->active; i++) {
        *plan = (struct lifecycle_plan){
            .kind = LIFECYCLE_MERGE, .lo = run.lo, .hi = run.lo + run.count - 1};
        if (!run_goes_on(log, &run, i, level)) {
            bool enclosed = log->segments[i]->level > level;
            if (enclosed && run.bytes <= bytes_max && run.count > (level == 0 ? 0 : 1))
                return true; /* one archive alone would only be copied */
            run.count = 0;
        }
        if (!run_goes_on(log, &run, i, level))
            continue;
        if (2 * run.count >= wanted && run.count > 1 &&
            run.bytes + bytes_of_entry(log, log->segments[i]) > bytes_max)
            return true; /* as much as one archive may have */
        run_add(log, &run, i, bytes_max);
        *plan = (struct lifecycle_plan){.kind = LIFECYCLE_MERGE, .lo = run.lo, .hi = i};
        if (run.count == wanted && run.bytes <= bytes_max)
            return true;
        if (level == 0 && last_old(log, i))
            return true;
    }
    return false;
}

bool lifecycle_plan_sort(const struct log *log, struct lifecycle_plan *plan)
{
    return log->options.merge_inputs != 0 && plan_level(log, plan, 0);
}

static bool plan_merge(const struct log *log, struct lifecycle_plan *plan)
{
    uint32_t highest = 0;
    for (uint32_t i = 0; i < log->active; i++)
        if (log->segments[i]->level > highest)
            highest = log->segments[i]->level;
    for (uint32_t level = 0; level <= highest; level++)
        if (plan_level(log, plan, level))
            return true;
    return false;
}

static bool plan_move(const struct log *log, struct lifecycle_plan *plan, uint64_t now_ms)
{
    if (log->options.cold_directory == NULL || log->options.cold_ms == 0)
        return false;
    for (uint32_t i = 0; i < log->active; i++) {
        const struct lane_segment *segment = log->segments[i];
        if (!segment->archived || segment->cold || !mergeable(log, segment) ||
            !older(segment->footer.time_max_ms, log->options.cold_ms, now_ms))
            continue;
        *plan = (struct lifecycle_plan){.kind = LIFECYCLE_MOVE, .lo = i, .hi = i};
        return true;
    }
    return false;
}

bool lifecycle_plan(const struct log *log, struct lifecycle_plan *plan, uint64_t now_ms)
{
    if (log->options.merge_inputs == 0)
        return false;
    if (now_ms != 0 && (plan_free(log, plan, now_ms) || plan_young(log, plan, now_ms) ||
                        plan_expiry(log, plan, now_ms) || plan_names(log, plan, now_ms) ||
                        plan_bytes(log, plan, now_ms) || plan_age(log, plan, now_ms) ||
                        plan_own(log, plan, now_ms)))
        return true;
    return plan_merge(log, plan) || (now_ms != 0 && plan_move(log, plan, now_ms));
}
