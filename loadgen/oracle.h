/* oracle.h: the judge of a run: told every acknowledgement and every delivery, it says what was
 * lost, duplicated, reordered, altered or given two numbers.
 * Flow:       loadgen/fleet or the simulator's clients → oracle_acked, oracle_delivered … →
 *             oracle_result
 * Owns:       one window of sequence numbers per conversation; no I/O, no clock of its own; lives
 *             on one thread
 * Invariants: a number is settled when every joined device has it; settled numbers leave the window
 *             (the newest few are kept to recognise late acknowledgements), so memory follows what
 *             is on the way
 * Failure:    ERR_NO_MEMORY, ERR_FULL from oracle_join; facts that do not fit the window are
 *             counted as `unchecked`, which is no clean verdict either
 * Bounds:     window_max numbers and ORACLE_DEVICES_MAX devices per conversation */
#ifndef LOADGEN_ORACLE_H
#define LOADGEN_ORACLE_H

#include "gateway/wire/protocol.h"

#define ORACLE_DEVICES_MAX       16 /* per conversation, all members together */
#define ORACLE_CONTENT_BYTES_MIN 26 /* checksum, intended time, separators */
#define ORACLE_FAULT_BYTES       200

struct oracle;

/* oracle_peer: one device of one user. */
struct oracle_peer {
    struct user_id user;
    uint32_t device; /* number within the user */
};

/* oracle_counts: all but `lost` and `gaps` are events counted as they happen; those two are the
 * state of now, final once nothing is on the way any more. Per device where a device is concerned.
 */
struct oracle_counts {
    uint64_t acked;       /* sends acknowledged */
    uint64_t delivered;   /* first deliveries, one per message and device */
    uint64_t redelivered; /* seen before, pushed again after a reconnect: at-least-once, no fault */
    uint64_t echoed;      /* own sends pushed to the sending device: no fault */
    uint64_t lost;        /* acknowledged, or passed over by a later number, and not there */
    uint64_t duplicated;  /* pushed twice on one connection, or again though confirmed */
    uint64_t reordered;   /* a lower number after a higher one on one connection */
    uint64_t altered;     /* content, id, sender and conversation do not belong together */
    uint64_t conflicting; /* one number for two messages, one message with two numbers, or with one
                             and refused for good */
    uint64_t gaps;        /* numbers below the newest that no message was ever seen to have */
    uint64_t late;        /* shown though its time had come long before */
    uint64_t strange;     /* conversation or device that never joined */
    uint64_t unchecked;   /* beyond the window: nothing can be said */
};

/* oracle_create: window_max: sequence numbers remembered per conversation while some device lacks
 * them; 0: 4,096. */
MUST_USE enum err oracle_create(struct oracle **oracle, uint32_t window_max);
void oracle_destroy(struct oracle *oracle);
/* oracle_tight: bounds that a run reaches are set (oracle_setting's tight). */
void oracle_tight(struct oracle *oracle);

/* oracle_expires: some messages disappear (oracle_expiry): a device is shown one before its time,
 * or told that it is gone afterwards; nothing else may be told as gone. oracle_time: the wall
 * clock, before anything is judged by it. */
void oracle_expires(struct oracle *oracle);
void oracle_time(struct oracle *oracle, uint64_t wall_ms);

/* oracle_join: from now on the device has to get every message of the conversation from from_seq
 * on. Joining twice changes nothing. Joins belong before the traffic that they expect. */
MUST_USE enum err oracle_join(struct oracle *oracle, struct conversation_id conversation,
                              struct oracle_peer peer, uint64_t from_seq);
bool oracle_knows(const struct oracle *oracle, struct conversation_id conversation);

/* oracle_acked: the server acknowledged this device's send under seq. Once per send, repeated sends
 * included in it. */
void oracle_acked(struct oracle *oracle, struct conversation_id id, struct oracle_peer sender,
                  const struct message_id *message_id, uint64_t seq);

/* oracle_repeated: a send that had been acknowledged under first_seq was sent again, whatever had
 * become of the message, and acknowledged under seq. */
void oracle_repeated(struct oracle *oracle, struct conversation_id id, struct oracle_peer sender,
                     uint64_t first_seq, uint64_t seq);

/* oracle_refused: the server refused this device's send for good. first_seq: it had been
 * acknowledged under that, 0: it had not. What has a number may be sent again for a day after its
 * id was made, whatever has become of it (PROTOCOL.md, 6): until then the refusal is a fault. */
void oracle_refused(struct oracle *oracle, struct conversation_id id, struct oracle_peer sender,
                    const struct message_id *message_id, uint64_t first_seq, enum code code);

/* oracle_delivered: a message was pushed to the device; connection: a number that differs between
 * the device's connections. True if it is new to the device and its content is whole:
 * *intended_ns is then the time oracle_content was given. False for entries that set a retention,
 * which are judged like messages but carry no time. */
bool oracle_delivered(struct oracle *oracle, struct oracle_peer peer, uint32_t connection,
                      const struct message *message, uint64_t *intended_ns);
/* oracle_fetched: the same for a message that the device asked for (history): in no particular
 * order and as often as it likes. */
bool oracle_fetched(struct oracle *oracle, struct oracle_peer peer, const struct message *message,
                    uint64_t *intended_ns);
/* oracle_gone: the device was told that these numbers no longer exist. */
void oracle_gone(struct oracle *oracle, struct conversation_id conversation,
                 struct oracle_peer peer, uint32_t connection, uint64_t from_seq, uint64_t to_seq);
/* oracle_history: an answer to the device's question for everything from from_seq on: each number
 * is there once, in order, as a message or among those that are gone, by the same rules. Nothing
 * counts as delivered by that. */
void oracle_history(struct oracle *oracle, struct oracle_peer peer, uint64_t from_seq,
                    const struct history *history);
/* oracle_confirmed: the server is known to have taken the device's delivered watermark and not to
 * have crashed since: pushing any of it again is a duplicate even after a reconnect. */
void oracle_confirmed(struct oracle *oracle, struct conversation_id conversation,
                      struct oracle_peer peer, uint64_t seq);

/* oracle_debt: a number that a device lacks; known: a message is known to have it. */
struct oracle_debt {
    struct conversation_id conversation;
    uint64_t seq;
    struct oracle_peer peer;
    bool known;
};
/* oracle_owed: up to max debts, for whoever looks for a fault; returns how many. */
size_t oracle_owed(const struct oracle *oracle, struct oracle_debt *out, size_t max);
/* oracle_setting_next: walk the conversations that have a retention: the newest number that set
 * one, and what. *at: 0 at first. False: no more. */
bool oracle_setting_next(const struct oracle *oracle, size_t *at, struct conversation_id *id,
                         uint64_t *seq, struct retention_setting *setting);
/* oracle_settled: nothing is owed: each acknowledged message is at each device, no number is
 * missing. */
bool oracle_settled(const struct oracle *oracle);
/* oracle_result: walks every window: at the end, or now and then. */
void oracle_result(const struct oracle *oracle, struct oracle_counts *out);
void oracle_counts_add(struct oracle_counts *target, const struct oracle_counts *source);
/* oracle_clean: no fault of any kind. */
bool oracle_clean(const struct oracle_counts *counts);
/* oracle_fault: the first fault in words, for a person; "" if none. */
const char *oracle_fault(const struct oracle *oracle);
size_t oracle_memory(const struct oracle *oracle); /* bytes */

/* oracle_content: `size` bytes (at least ORACLE_CONTENT_BYTES_MIN) of text content that carry the
 * intended send time and a checksum over themselves, conversation, id and sender. The same
 * arguments give the same bytes, so that a repeated send need not keep them. */
MUST_USE enum err oracle_content(struct buffer *out, size_t size,
                                 struct conversation_id conversation, const struct message_id *id,
                                 struct user_id sender, uint64_t intended_ns);
/* oracle_setting: the retention that an entry of that id sets: between 30 and 330 days, and no
 * bound or one that no run reaches; tight: some are reached soon. The same arguments give the same.
 */
void oracle_setting(struct retention_setting *out, struct conversation_id conversation,
                    const struct message_id *id, struct user_id sender, bool tight);
/* oracle_expiry: when the message of that id disappears, where some do: one in four, 20 ms to 3 s
 * after its id was made, many of them soon; 0: it stays. */
uint64_t oracle_expiry(const struct message_id *id);
/* oracle_content_check: ERR_CORRUPT if anything of it was changed. */
MUST_USE enum err oracle_content_check(struct bytes content, struct conversation_id conversation,
                                       const struct message_id *id, struct user_id sender,
                                       uint64_t *intended_ns);

#endif
