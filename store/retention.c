/* retention.c: see retention.h. */
#include "store/retention.h"

static bool older(const struct log_record *record, uint64_t age_ms, uint64_t now_ms)
{
    return record->time_ms + age_ms < now_ms && record->time_ms + age_ms >= age_ms;
}

enum retention_verdict retention_due(const struct retention *retention,
                                     const struct retention_rule *rule,
                                     const struct log_record *record, uint64_t now_ms,
                                     bool drop_all)
{
    if (now_ms == 0 || (record->kind == RECORD_RETENTION && record->seq >= rule->setting_seq))
        return RETENTION_KEEP;
    if (record->expires_ms != 0 && record->expires_ms <= now_ms)
        return RETENTION_EXPIRED;
    uint64_t most_ms =
        retention->age_max_ms > retention->age_ms ? retention->age_max_ms : retention->age_ms;
    uint64_t age_ms = rule->age_ms != 0 ? rule->age_ms : retention->age_ms;
    if (retention->age_ms != 0 && age_ms > most_ms)
        age_ms = most_ms; /* whole files are freed by that */
    bool beyond = drop_all || record->seq <= rule->beyond_seq;
    if (!beyond && (age_ms == 0 || !older(record, age_ms, now_ms)))
        return RETENTION_KEEP;
    if (record->seq > rule->delivered_seq && !older(record, retention->undelivered_ms, now_ms))
        return RETENTION_KEEP;
    return RETENTION_DUE;
}
