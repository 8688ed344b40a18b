/* home.h: users on their home shard: loading, what arrives for them from conversations, what they
 * acknowledge.
 * Flow:       login → home_join → (catalog) → session_start; BORDER_DELIVER, _MOVED, _RECEIPT →
 *             sessions or cursors; watermarks → BORDER_WATERMARK
 * Owns:       struct inbox and its entries
 * Bounds:     limits.state_bytes: users without sessions are evicted once the catalog has them */
#ifndef GATEWAY_FLOW_HOME_H
#define GATEWAY_FLOW_HOME_H

#include "gateway/flow/session.h"

/* home_join: the session's user, loaded if need be; then session_start. */
void home_join(struct shard *shard, struct session *session, struct login *login);
/* home_leave: a session ends. */
void home_leave(struct shard *shard, struct session *session);
/* home_on_deliver, home_on_moved: ERR_NO_MEMORY: come back with the same message: if it were
 * dropped, an absent entry would say that everybody has everything. */
MUST_USE enum err home_on_deliver(struct shard *shard, struct bytes message);
MUST_USE enum err home_on_moved(struct shard *shard, struct bytes message);
void home_on_receipt(struct shard *shard, struct bytes message);
void home_on_revoke(struct shard *shard, struct bytes message);
/* home_on_watermark: a client's acknowledgement. ERR_FULL: come back. */
MUST_USE enum err home_on_watermark(struct shard *shard, struct session *session,
                                    uint64_t request_id, const struct watermark *watermark);
/* home_on_mark_checked: the conversation's shard knows the number that the client acknowledged. */
void home_on_mark_checked(struct shard *shard, struct session *session,
                          struct conversation_id conversation, uint64_t delivered);
/* home_flush_watermarks: tell conversations what changed, once a turn. */
void home_flush_watermarks(struct shard *shard);
void home_mark_dirty(struct shard *shard, struct entry *entry);
/* home_watermark_moved: the entry's marks go to its conversation with the next flush. */
void home_watermark_moved(struct shard *shard, struct entry *entry);
void home_evict(struct shard *shard);

#endif
