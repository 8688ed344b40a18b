/* retention.h: what may be dropped from the log, and when.
 * Flow:       gateway/flow/retention.c fills it in (settings and a look at the catalog) → merge.c
 *             and look.c ask per conversation, on a worker
 * Invariants: a record is due when it is older than its conversation's age (or the global one), or
 *             beyond its conversation's bound in bytes, and everybody has it, or it is older than
 *             undelivered_ms; by expiry as soon as its time has come, delivered or not; never the
 *             newest entry that set a conversation's retention, or a rebuild from the log alone
 *             would not know it
 * Failure:    a look-up that fails keeps everything that the age of undelivered messages does not
 *             make due */
#ifndef STORE_RETENTION_H
#define STORE_RETENTION_H

#include "store/log.h"

/* retention_due: may the record go? */
enum retention_verdict { RETENTION_KEEP, RETENTION_EXPIRED, RETENTION_DUE };
enum retention_verdict retention_due(const struct retention *retention,
                                     const struct retention_rule *rule,
                                     const struct log_record *record, uint64_t now_ms,
                                     bool drop_all);

#endif
