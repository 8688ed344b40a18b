/* metrics_list.h: every metric: id, type (COUNTER, GAUGE, HISTOGRAM, or STATE: a gauge of which
 * the highest counts, not the sum), Prometheus name, help. No include guard: an X-macro. A line per
 * metric; README's list is checked against this file. */
METRIC(CONNECTIONS_ACCEPTED, COUNTER, "roost_connections_accepted_total",
       "Connections taken from the kernel.")
METRIC(CONNECTIONS_OPEN, GAUGE, "roost_connections_open", "Connections open now.")
METRIC(CONNECTIONS_REFUSED, COUNTER, "roost_connections_refused_total",
       "Connections refused because max_connections or a limit per address was reached.")
METRIC(UPGRADE_TIMEOUTS, COUNTER, "roost_upgrade_timeouts_total",
       "Connections closed because no request was complete in time, idle ones of HTTP included.")
METRIC(HELLO_TIMEOUTS, COUNTER, "roost_hello_timeouts_total",
       "Connections closed because no valid token came in time.")
METRIC(HEARTBEATS_LOST, COUNTER, "roost_heartbeats_lost_total",
       "Sessions ended because nothing was heard for 1.5 heartbeats.")
METRIC(LOGINS_REFUSED, COUNTER, "roost_logins_refused_total",
       "Tokens of hello and renew refused: not valid, expired, too many devices, or load.")
METRIC(CONNECTIONS_CLOSED, COUNTER, "roost_connections_closed_total",
       "Connections closed, whoever began.")
METRIC(CONNECTIONS_MOVED, COUNTER, "roost_connections_moved_total",
       "Connections moved to their user's shard.")
METRIC(CONNECTIONS_MOVE_FAILED, COUNTER, "roost_connections_move_failed_total",
       "Moves refused by a full shard; tried again, then the connection is relayed.")
METRIC(CONNECTIONS_RELAYED, GAUGE, "roost_connections_relayed",
       "Connections whose user's shard has no slot for their socket: served through the shard they "
       "are on.")
METRIC(CONNECTION_BUDGET, GAUGE, "roost_connection_budget_bytes",
       "User memory that one idle connection is budgeted; times connections_max is the promise.")
METRIC(SESSIONS_OPEN, GAUGE, "roost_sessions_open", "Authenticated sessions open now.")
METRIC(TLS_HANDSHAKES, COUNTER, "roost_tls_handshakes_total", "TLS handshakes completed.")
METRIC(TLS_RESUMED, COUNTER, "roost_tls_resumed_total", "TLS handshakes that resumed a session.")
METRIC(TLS_FAILED, COUNTER, "roost_tls_failed_total", "TLS handshakes or records that failed.")
METRIC(BYTES_RECEIVED, COUNTER, "roost_received_bytes_total",
       "Bytes received from clients, as on the wire.")
METRIC(BYTES_SENT, COUNTER, "roost_sent_bytes_total", "Bytes sent to clients, as on the wire.")
METRIC(HTTP_REQUESTS, COUNTER, "roost_http_requests_total",
       "HTTP requests answered, upgrades included.")
METRIC(HTTP_ERRORS, COUNTER, "roost_http_errors_total",
       "HTTP requests answered with status 400 or above.")
METRIC(PROTOCOL_ERRORS, COUNTER, "roost_protocol_errors_total",
       "Malformed input of any layer above TLS.")
METRIC(MESSAGES_ACCEPTED, COUNTER, "roost_messages_accepted_total",
       "Messages given a sequence number.")
METRIC(MESSAGES_ACKED, COUNTER, "roost_messages_acked_total",
       "Messages acknowledged to their sender, after the sync.")
METRIC(MESSAGES_DUPLICATE, COUNTER, "roost_messages_duplicate_total",
       "Repeated sends answered with the first result.")
METRIC(MESSAGES_REFUSED, COUNTER, "roost_messages_refused_total", "Sends refused with an error.")
METRIC(MESSAGES_DELIVERED, COUNTER, "roost_messages_delivered_total", "Messages pushed to devices.")
METRIC(RECEIPTS, COUNTER, "roost_receipts_total",
       "Delivered and read watermarks taken from devices.")
METRIC(LAGGING, COUNTER, "roost_sessions_lagging_total",
       "Times a live session fell back to catching up.")
METRIC(SYNCED, COUNTER, "roost_sessions_synced_total", "Times a session caught up.")
METRIC(MESH_FULL, COUNTER, "roost_mesh_full_total", "Times a ring between shards was full.")
METRIC(PARKED_FULL, COUNTER, "roost_parked_full_total",
       "Requests refused because too many wait: for state to load, for the look-up of their id, or "
       "for "
       "room towards their lane.")
METRIC(RATE_LIMITED, COUNTER, "roost_rate_limited_total", "Requests refused by a rate limit.")
METRIC(HASH_QUEUE_FULL, COUNTER, "roost_hash_queue_full_total",
       "Logins and registrations refused because the hashing queue was full.")
METRIC(LOG_APPENDED, COUNTER, "roost_log_records_total", "Records made durable.")
METRIC(LOG_APPENDED_BYTES, COUNTER, "roost_log_written_bytes_total",
       "Bytes written to the log, padding included.")
METRIC(LOG_BATCHES, COUNTER, "roost_log_batches_total", "Batches written and synced.")
METRIC(LOG_MADE_BYTES, COUNTER, "roost_log_made_bytes_total",
       "Zeros written to make segments ahead.")
METRIC(LOG_RECYCLED, COUNTER, "roost_log_recycled_total",
       "Segments made from one that a merge or retention had freed.")
METRIC(LOG_SPARES, GAUGE, "roost_log_spare_segments",
       "Freed segments that are kept to be used again.")
METRIC(LOG_READS, COUNTER, "roost_log_reads_total", "Disk reads for history and catch-up.")
METRIC(LOG_LOOKUP_BYTES, GAUGE, "roost_log_lookup_bytes",
       "Memory of the look-ups of segments and archives, at most store.lookup_memory.")
METRIC(LOG_LOOKUPS_EVICTED, COUNTER, "roost_log_lookups_evicted_total",
       "Look-ups of sealed segments given up for newer ones: their index is read from disk.")
METRIC(LOG_SEGMENTS, GAUGE, "roost_log_segments", "Segments in the log.")
METRIC(LOG_ARCHIVES, GAUGE, "roost_log_archives", "Archives (merged segments) in the log.")
METRIC(LOG_BYTES, GAUGE, "roost_log_bytes", "Bytes of all segments and archives.")
METRIC(LOG_NAMED, GAUGE, "roost_log_removed_ids",
       "Removed messages whose ids are kept for store.repeat_age, so that repeats are known.")
METRIC(MERGE_WAITING, GAUGE, "roost_log_merge_waiting_segments",
       "Sealed segments that are not merged yet: the merge's lag behind the head.")
METRIC(MERGE_INPUTS, COUNTER, "roost_log_merged_total",
       "Segments and archives that were merged or written anew.")
METRIC(MERGE_BYTES, COUNTER, "roost_log_merge_bytes_total",
       "Bytes that merging read and wrote; over roost_log_written_bytes_total: its amplification.")
METRIC(MERGE_WRITTEN_BYTES, COUNTER, "roost_log_merge_written_bytes_total",
       "Bytes of them that were written; over roost_log_written_bytes_total: write amplification.")
METRIC(RECORDS_EXPIRED, COUNTER, "roost_log_expired_records_total",
       "Disappearing messages removed from the disk.")
METRIC(RETENTION_COUNTED, COUNTER, "roost_retention_counted_total",
       "Conversations whose stored bytes were counted for a bound of their own.")
METRIC(RECORDS_RETAINED_AWAY, COUNTER, "roost_log_retained_away_records_total",
       "Records removed by retention.")
METRIC(MOVED_COLD, COUNTER, "roost_log_moved_cold_total", "Archives moved to the cold directory.")
METRIC(SCRUBBED_BYTES, COUNTER, "roost_log_scrubbed_bytes_total",
       "Bytes of segments and archives read and checked in the background.")
METRIC(SCRUB_DAMAGED, COUNTER, "roost_log_scrub_damaged_total",
       "Damaged blocks and batches that scrubbing found; again at every round.")
METRIC(PURGE_PAUSED, STATE, "roost_log_purge_paused",
       "1: the wall clock disagrees with the log, nothing is purged until it agrees or is trusted.")
METRIC(LOG_STATE, STATE, "roost_log_state",
       "0 working, 1 no space (sends refused), 2 failed (read-only until restart).")
METRIC(LOG_CORRUPT, COUNTER, "roost_log_corrupt_records_total",
       "Damaged records found and not served.")
METRIC(CHECKPOINTS, COUNTER, "roost_checkpoints_total", "Checkpoints committed to the catalog.")
METRIC(CHECKPOINTS_REFUSED, COUNTER, "roost_checkpoint_writes_refused_total",
       "Writes of checkpoints for which the catalog's map or its disk had no space.")
METRIC(CHECKPOINT_STATE, STATE, "roost_checkpoint_state",
       "0 working, 1 no space in the catalog (tried again), 2 failed (not until a restart).")
METRIC(CHECKPOINTS_FAILED, COUNTER, "roost_checkpoints_failed_total",
       "Checkpoints that could not be written: the log keeps what they would have freed.")
METRIC(EVICTED, COUNTER, "roost_state_evicted_total",
       "User and conversation states evicted to stay in their budget.")
METRIC(STATE_USERS, GAUGE, "roost_state_users", "User states in memory.")
METRIC(STATE_CONVERSATIONS, GAUGE, "roost_state_conversations", "Conversation states in memory.")
METRIC(SYNC_SECONDS, HISTOGRAM, "roost_log_commit_seconds", "Write and sync of one batch.")
METRIC(ACK_SECONDS, HISTOGRAM, "roost_ack_seconds", "From a send's arrival to its acknowledgement.")
METRIC(DELIVER_SECONDS, HISTOGRAM, "roost_deliver_seconds",
       "From a send's arrival to the first push to a recipient.")
METRIC(CONNECT_SECONDS, HISTOGRAM, "roost_connect_seconds", "From accept to ready.")
