/* revoked.h: which logins ended a moment ago, on their users' home shard. A session whose token was
 * looked at before its device was logged out may arrive only afterwards (it waited for a worker,
 * moved between shards, waited for its user to load): it must not begin.
 * Flow:       home_on_revoke → revoked_add; session_start → revoked_recently
 * Owns:       a list in the shard, oldest first
 * Bounds:     REVOKED_MAX entries of 48 bytes, the oldest goes; each for REVOKED_KEEP_NS beyond
 *             limits.hello_timeout, which no login lasts */
#ifndef GATEWAY_FLOW_REVOKED_H
#define GATEWAY_FLOW_REVOKED_H

#include "gateway/flow/shard.h"

#define REVOKED_MAX     4096
#define REVOKED_KEEP_NS (60 * NS_PER_S)

/* revoked_add: logins of the device up to this generation have ended. */
void revoked_add(struct shard *shard, struct user_id user, struct device_id device,
                 uint64_t generation);
bool revoked_recently(struct shard *shard, struct user_id user, struct device_id device,
                      uint64_t generation);
void revoked_free_all(struct shard *shard);

#endif
