/* oracle.c: see oracle.h.
 *
 * A conversation's window is a ring of entries for the numbers base … base + count - 1. What is
 * below base is settled. An entry is born as a placeholder when a number at or above it is seen
 * first, becomes known by the first acknowledgement or delivery of it, and from then on has one
 * message: whoever says otherwise is in conflict with it. `seen` has one bit per joined device.
 *
 *   owed     = sum over acknowledged entries of devices without it
 *   unknown  = placeholders
 *   settled  ⇔ owed = 0 and unknown = 0
 *
 * A sending device knows its own message by the acknowledgement, which may come before or after the
 * pushes around it; so a number that a push passes over is no fault yet. It is one if it comes
 * later on the same connection (reordered), or never (lost).
 *
 * A number that a device was told is gone counts as seen by it. Where nobody knows its message (a
 * sender that never got its acknowledgement) it is known by that alone, and must turn out to be one
 * that had expired when it was told.
 *
 * Content: 8 hex digits CRC32C, ' ', 16 hex digits intended time, ' ', filler up to size. The
 * checksum covers conversation (16 bytes), message id (16), sender (8), and all after it. */
#include "loadgen/oracle.h"

#include "core/hash.h"
#include "core/memory.h"
#include "core/table.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#define WINDOW_DEFAULT 4096
#define SETTLED_KEPT   8 /* settled numbers kept for late acknowledgements and double storing */
#define ENTRIES_FIRST  4
#define LATE_MS        2000 /* between the server's last look at the clock and the device */
#define KNOWN_MS       (24 * 3600 * 1000ull) /* so long a repeat gets the first answer */

struct entry {
    uint64_t hash;    /* of the message id; 0: placeholder */
    uint32_t expires; /* brief; 0: never; gone before it was known: when that was told */
    uint16_t seen;    /* a bit per device */
    uint8_t sender;   /* device + 1, 0: not known */
    bool acked : 1;
    bool gone : 1; /* some device was told so before anybody knew it */
};
_Static_assert(sizeof(struct entry) == 16, "of each number that is on the way");

struct view {
    struct oracle_peer peer;
    uint64_t last_pushed; /* on this connection */
    uint64_t last_seen;   /* highest ever */
    uint64_t confirmed;   /* watermark the server is known to have */
    uint32_t connection;
};

struct conversation {
    struct conversation_id id;
    struct view *views;
    struct entry *entries; /* ring; capacity is a power of two */
    uint64_t base;         /* number of the oldest entry */
    uint32_t count;
    uint32_t capacity;
    struct retention_setting setting;
    uint64_t setting_seq; /* newest number that set the retention; 0: none did */
    uint16_t all;         /* bits of every device */
    uint8_t view_count;
    uint8_t view_capacity;
};

struct oracle {
    struct table conversations;
    struct oracle_counts counts;
    uint64_t owed;
    uint64_t unknown;
    size_t memory;
    uint32_t window_max;
    uint64_t now_ms;
    bool expires;
    bool tight; /* oracle_setting's */
    char fault[ORACLE_FAULT_BYTES];
};

static struct table_key key_of(struct conversation_id id)
{
    return (struct table_key){id.hi, id.lo};
}

/* brief: a time in 32 bits, 0 for none; before: of two that are less than 24 days apart. */
static uint32_t brief(uint64_t ms)
{
    return ms != 0 && (uint32_t)ms == 0 ? 1 : (uint32_t)ms;
}

static bool before(uint32_t a, uint32_t b)
{
    return (int32_t)(a - b) < 0;
}

static uint64_t hash_of(const struct message_id *id)
{
    static const struct hash_key key = {0x6f7261636c650001u, 0x6f7261636c650002u};
    uint64_t hash = hash_u128(&key, load_u64(id->v), load_u64(id->v + 8));
    return hash == 0 ? 1 : hash;
}

/* made_ms: when the id was made (RFC 9562 5.7). */
static uint64_t made_ms(const struct message_id *id)
{
    uint64_t ms = 0;
    for (int i = 0; i < 6; i++)
        ms = ms << 8 | id->v[i];
    return ms;
}

enum err oracle_create(struct oracle **out, uint32_t window_max)
{
    struct oracle *oracle = memory_take_zeroed(sizeof *oracle, MEMORY_CHAT);
    if (oracle == NULL)
        return ERR_NO_MEMORY;
    table_init(&oracle->conversations, 0x6f7261636c650003u);
    oracle->window_max = window_max == 0 ? WINDOW_DEFAULT : window_max;
    oracle->memory = sizeof *oracle;
    *out = oracle;
    return OK;
}

void oracle_tight(struct oracle *oracle)
{
    oracle->tight = true;
}

void oracle_expires(struct oracle *oracle)
{
    oracle->expires = true;
}

void oracle_time(struct oracle *oracle, uint64_t wall_ms)
{
    oracle->now_ms = wall_ms;
}

void oracle_destroy(struct oracle *oracle)
{
    if (oracle == NULL)
        return;
    size_t at = 0;
    struct conversation *conversation;
    while ((conversation = table_next(&oracle->conversations, &at)) != NULL) {
        memory_give(conversation->views, MEMORY_CHAT);
        memory_give(conversation->entries, MEMORY_CHAT);
        memory_give(conversation, MEMORY_CHAT);
    }
    table_deinit(&oracle->conversations);
    memory_give(oracle, MEMORY_CHAT);
}

__attribute__((format(printf, 6, 7))) static void fault(struct oracle *oracle, uint64_t *count,
                                                        struct conversation_id id,
                                                        const struct oracle_peer *peer,
                                                        uint64_t seq, const char *format, ...)
{
    *count += 1;
    if (oracle->fault[0] != 0)
        return;
    int used = snprintf(oracle->fault, sizeof oracle->fault,
                        "conversation %016" PRIx64 "%016" PRIx64 " number %" PRIu64
                        " device %" PRIx64 "/%" PRIu32 ": ",
                        id.hi, id.lo, seq, peer->user.v, peer->device);
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(oracle->fault + used, sizeof oracle->fault - (size_t)used, format, arguments);
    va_end(arguments);
}

/* ---- windows */

static struct entry *entry_at(const struct conversation *conversation, uint64_t seq)
{
    CHECK(seq >= conversation->base && seq - conversation->base < conversation->count);
    return &conversation->entries[seq & (conversation->capacity - 1)];
}

static enum err window_grow(struct oracle *oracle, struct conversation *conversation)
{
    uint32_t capacity = conversation->capacity == 0 ? ENTRIES_FIRST : conversation->capacity * 2;
    struct entry *entries = memory_take_zeroed(capacity * sizeof *entries, MEMORY_CHAT);
    if (entries == NULL)
        return ERR_NO_MEMORY;
    for (uint64_t seq = conversation->base; seq < conversation->base + conversation->count; seq++)
        entries[seq & (capacity - 1)] = *entry_at(conversation, seq);
    oracle->memory += (capacity - conversation->capacity) * sizeof *entries;
    memory_give(conversation->entries, MEMORY_CHAT);
    conversation->entries = entries;
    conversation->capacity = capacity;
    return OK;
}

/* window_slide: forget settled numbers beyond the few that are kept. */
static void window_slide(struct conversation *conversation)
{
    uint32_t settled = 0;
    while (settled < conversation->count &&
           entry_at(conversation, conversation->base + settled)->seen == conversation->all)
        settled++;
    if (settled <= SETTLED_KEPT)
        return;
    conversation->base += settled - SETTLED_KEPT;
    conversation->count -= settled - SETTLED_KEPT;
}

/* window_reach: make entries up to seq; NULL if it lies beyond the window or below base. */
static struct entry *window_reach(struct oracle *oracle, struct conversation *conversation,
                                  uint64_t seq)
{
    if (seq < conversation->base)
        return NULL;
    while (seq - conversation->base >= conversation->count) {
        if (seq - conversation->base >= oracle->window_max)
            return NULL;
        if (conversation->count == conversation->capacity &&
            window_grow(oracle, conversation) != OK)
            return NULL;
        conversation->count++;
        uint64_t born = conversation->base + conversation->count - 1;
        *entry_at(conversation, born) = (struct entry){0};
        oracle->unknown++;
    }
    return entry_at(conversation, seq);
}

static struct conversation *find(const struct oracle *oracle, struct conversation_id id)
{
    return table_get(&oracle->conversations, key_of(id));
}

static int view_index(const struct conversation *conversation, const struct oracle_peer *peer)
{
    for (int i = 0; i < conversation->view_count; i++) {
        const struct oracle_peer *at = &conversation->views[i].peer;
        if (at->user.v == peer->user.v && at->device == peer->device)
            return i;
    }
    return -1;
}

static enum err conversation_make(struct oracle *oracle, struct conversation **out,
                                  struct conversation_id id)
{
    struct conversation *conversation = memory_take_zeroed(sizeof *conversation, MEMORY_CHAT);
    if (conversation == NULL)
        return ERR_NO_MEMORY;
    conversation->id = id;
    conversation->base = 1;
    if (table_put(&oracle->conversations, key_of(id), conversation) != OK) {
        memory_give(conversation, MEMORY_CHAT);
        return ERR_NO_MEMORY;
    }
    oracle->memory += sizeof *conversation;
    *out = conversation;
    return OK;
}

/* view_catch_up: what a device that joins late does not have to get counts as seen; the rest of
 * what was acknowledged is owed to it. */
static void view_catch_up(struct oracle *oracle, struct conversation *conversation, uint16_t bit,
                          uint64_t from_seq)
{
    uint64_t end = conversation->base + conversation->count;
    for (uint64_t seq = conversation->base; seq < end; seq++) {
        struct entry *entry = entry_at(conversation, seq);
        if (seq < from_seq)
            entry->seen |= bit;
        else if (entry->acked)
            oracle->owed++;
    }
}

enum err oracle_join(struct oracle *oracle, struct conversation_id id, struct oracle_peer peer,
                     uint64_t from_seq)
{
    struct conversation *conversation = find(oracle, id);
    if (conversation == NULL)
        TRY(conversation_make(oracle, &conversation, id));
    if (view_index(conversation, &peer) >= 0)
        return OK;
    if (conversation->view_count == ORACLE_DEVICES_MAX)
        return ERR_FULL;
    if (conversation->view_count == conversation->view_capacity) {
        uint8_t capacity =
            (uint8_t)(conversation->view_capacity == 0 ? 2 : conversation->view_capacity * 2);
        struct view *views =
            memory_resize(conversation->views, capacity * sizeof *views, MEMORY_CHAT);
        if (views == NULL)
            return ERR_NO_MEMORY;
        oracle->memory += (size_t)(capacity - conversation->view_capacity) * sizeof *views;
        conversation->views = views;
        conversation->view_capacity = capacity;
    }
    uint16_t bit = (uint16_t)(1u << conversation->view_count);
    conversation->views[conversation->view_count++] =
        (struct view){.peer = peer, .last_seen = from_seq == 0 ? 0 : from_seq - 1};
    conversation->all |= bit;
    view_catch_up(oracle, conversation, bit, from_seq);
    return OK;
}

bool oracle_knows(const struct oracle *oracle, struct conversation_id id)
{
    return find(oracle, id) != NULL;
}

/* ---- facts */

/* number_of: where the message stands, as far as that is remembered; 0: nowhere. */
static uint64_t number_of(const struct conversation *conversation, uint64_t hash)
{
    uint64_t end = conversation->base + conversation->count;
    for (uint64_t seq = conversation->base; seq < end; seq++)
        if (entry_at(conversation, seq)->hash == hash)
            return seq;
    return 0;
}

/* entry_know: the entry is about this message; false if it is about another one already. */
static bool entry_know(struct oracle *oracle, struct conversation *conversation, uint64_t seq,
                       const struct message_id *id, const struct oracle_peer *peer)
{
    struct entry *entry = entry_at(conversation, seq);
    uint64_t hash = hash_of(id);
    uint32_t expires = oracle->expires ? brief(oracle_expiry(id)) : 0;
    if (entry->hash == hash)
        return true;
    if (entry->hash != 0) {
        fault(oracle, &oracle->counts.conflicting, conversation->id, peer, seq,
              "two messages under one number");
        return false;
    }
    uint64_t other = number_of(conversation, hash);
    if (other != 0)
        fault(oracle, &oracle->counts.conflicting, conversation->id, peer, seq,
              "the message has number %" PRIu64 " already", other);
    if (!entry->gone)
        oracle->unknown--;
    else if (expires == 0 || before(entry->expires, expires))
        fault(oracle, &oracle->counts.lost, conversation->id, peer, seq, "was told as gone");
    entry->hash = hash;
    entry->expires = expires;
    return true;
}

static void entry_see(struct oracle *oracle, struct entry *entry, struct view *view, uint16_t bit,
                      uint64_t seq)
{
    if ((entry->seen & bit) == 0) {
        entry->seen |= bit;
        if (entry->acked)
            oracle->owed--;
    }
    if (seq > view->last_seen)
        view->last_seen = seq;
}

void oracle_acked(struct oracle *oracle, struct conversation_id id, struct oracle_peer sender,
                  const struct message_id *message_id, uint64_t seq)
{
    struct conversation *conversation = find(oracle, id);
    int index = conversation == NULL ? -1 : view_index(conversation, &sender);
    oracle->counts.acked++;
    if (index < 0) {
        fault(oracle, &oracle->counts.strange, id, &sender, seq, "acknowledged, never joined");
        return;
    }
    if (seq == 0) {
        fault(oracle, &oracle->counts.conflicting, id, &sender, seq, "acknowledged as number 0");
        return;
    }
    if (seq < conversation->base)
        return; /* at every device long ago */
    struct entry *entry = window_reach(oracle, conversation, seq);
    if (entry == NULL) {
        fault(oracle, &oracle->counts.unchecked, id, &sender, seq, "acknowledged beyond window");
        return;
    }
    if (!entry_know(oracle, conversation, seq, message_id, &sender))
        return;
    if (!entry->acked) {
        entry->acked = true;
        unsigned missing = (unsigned)conversation->all & ~(unsigned)entry->seen;
        oracle->owed += (uint64_t)__builtin_popcount(missing);
    }
    entry->sender = (uint8_t)(index + 1);
    entry_see(oracle, entry, &conversation->views[index], (uint16_t)(1u << index), seq);
    window_slide(conversation);
}

void oracle_repeated(struct oracle *oracle, struct conversation_id id, struct oracle_peer sender,
                     uint64_t first_seq, uint64_t seq)
{
    if (seq != first_seq)
        fault(oracle, &oracle->counts.conflicting, id, &sender, seq,
              "a repeat of what has number %" PRIu64, first_seq);
}

void oracle_refused(struct oracle *oracle, struct conversation_id id, struct oracle_peer sender,
                    const struct message_id *message_id, uint64_t first_seq, enum code code)
{
    const struct conversation *conversation = find(oracle, id);
    if (oracle->now_ms >= made_ms(message_id) + KNOWN_MS)
        return;
    if (first_seq == 0 && conversation != NULL)
        first_seq = number_of(conversation, hash_of(message_id));
    if (first_seq != 0)
        fault(oracle, &oracle->counts.conflicting, id, &sender, first_seq,
              "has its number, and was refused when it was sent again: %s", code_name(code));
}

/* judge_order: what pushing seq on this connection means; true if it is the device's first sight of
 * it. */
static bool judge_order(struct oracle *oracle, struct conversation *conversation, int index,
                        uint32_t connection, uint64_t seq)
{
    struct view *view = &conversation->views[index];
    bool below = seq < conversation->base;
    struct entry *entry = below ? NULL : entry_at(conversation, seq);
    bool seen = below || (entry->seen >> index & 1) != 0;
    bool own = !below && entry->sender == index + 1;
    if (view->connection != connection) {
        view->connection = connection;
        view->last_pushed = 0;
    }
    if (seq <= view->last_pushed && seen)
        fault(oracle, &oracle->counts.duplicated, conversation->id, &view->peer, seq,
              "pushed again on one connection, after %" PRIu64, view->last_pushed);
    else if (seq <= view->last_pushed)
        fault(oracle, &oracle->counts.reordered, conversation->id, &view->peer, seq,
              "pushed after %" PRIu64, view->last_pushed);
    else if (seen && seq <= view->confirmed)
        fault(oracle, &oracle->counts.duplicated, conversation->id, &view->peer, seq,
              "pushed again, confirmed up to %" PRIu64, view->confirmed);
    else if (seen && own)
        oracle->counts.echoed++;
    else if (seen)
        oracle->counts.redelivered++;
    if (seq > view->last_pushed)
        view->last_pushed = seq;
    return !seen;
}

/* is_whole: what it says is what its id was sent with. */
static bool is_whole(const struct oracle *oracle, const struct message *message,
                     uint64_t *intended_ns)
{
    struct bytes content;
    struct retention_setting expected;
    bool expires = oracle->expires && !message->has_retention;
    if (message->expires_ms != (expires ? oracle_expiry(&message->message_id) : 0))
        return false;
    if (!message->has_retention)
        return protocol_payload_content(&content, message->payload) == OK &&
               oracle_content_check(content, message->conversation, &message->message_id,
                                    message->sender, intended_ns) == OK;
    oracle_setting(&expected, message->conversation, &message->message_id, message->sender,
                   oracle->tight);
    return message->payload.size == 0 && message->retention.age_s == expected.age_s &&
           message->retention.bytes == expected.bytes;
}

static bool is_late(const struct oracle *oracle, const struct message *message)
{
    return message->expires_ms != 0 && message->expires_ms + LATE_MS < oracle->now_ms;
}

static bool take(struct oracle *oracle, struct oracle_peer *peer, const uint32_t *connection,
                 const struct message *message, uint64_t *intended_ns)
{
    struct conversation_id id = message->conversation;
    struct conversation *conversation = find(oracle, id);
    int index = conversation == NULL ? -1 : view_index(conversation, peer);
    if (index < 0) {
        fault(oracle, &oracle->counts.strange, id, peer, message->seq, "delivered, never joined");
        return false;
    }
    if (message->seq == 0 || !is_whole(oracle, message, intended_ns)) {
        fault(oracle, &oracle->counts.altered, id, peer, message->seq, "content does not fit");
        return false;
    }
    if (message->has_retention && message->seq > conversation->setting_seq) {
        conversation->setting_seq = message->seq;
        conversation->setting = message->retention;
    }
    bool below = message->seq < conversation->base;
    if (!below && window_reach(oracle, conversation, message->seq) == NULL) {
        fault(oracle, &oracle->counts.unchecked, id, peer, message->seq, "beyond window");
        return false;
    }
    if (!below && !entry_know(oracle, conversation, message->seq, &message->message_id, peer))
        return false;
    if (is_late(oracle, message))
        fault(oracle, &oracle->counts.late, id, peer, message->seq, "shown %" PRIu64 " ms late",
              oracle->now_ms - message->expires_ms);
    bool first;
    if (connection != NULL)
        first = judge_order(oracle, conversation, index, *connection, message->seq);
    else
        first = !below && (entry_at(conversation, message->seq)->seen >> index & 1) == 0;
    if (below)
        return false;
    if (first)
        oracle->counts.delivered++;
    entry_see(oracle, entry_at(conversation, message->seq), &conversation->views[index],
              (uint16_t)(1u << index), message->seq);
    window_slide(conversation);
    return first && !message->has_retention;
}

bool oracle_setting_next(const struct oracle *oracle, size_t *at, struct conversation_id *id,
                         uint64_t *seq, struct retention_setting *setting)
{
    const struct conversation *conversation;
    while ((conversation = table_next(&oracle->conversations, at)) != NULL) {
        if (conversation->setting_seq == 0)
            continue;
        *id = conversation->id;
        *seq = conversation->setting_seq;
        *setting = conversation->setting;
        return true;
    }
    return false;
}

bool oracle_delivered(struct oracle *oracle, struct oracle_peer peer, uint32_t connection,
                      const struct message *message, uint64_t *intended_ns)
{
    return take(oracle, &peer, &connection, message, intended_ns);
}

bool oracle_fetched(struct oracle *oracle, struct oracle_peer peer, const struct message *message,
                    uint64_t *intended_ns)
{
    return take(oracle, &peer, NULL, message, intended_ns);
}

/* gone_one: it has expired, if it is known; nobody may say otherwise later. */
static void gone_one(struct oracle *oracle, struct conversation *conversation, int index,
                     uint64_t seq)
{
    struct entry *entry = entry_at(conversation, seq);
    struct view *view = &conversation->views[index];
    uint32_t now = brief(oracle->now_ms);
    bool seen = (entry->seen >> index & 1) != 0;
    if (entry->hash == 0 && !entry->gone) {
        entry->gone = true;
        entry->expires = now;
        oracle->unknown--;
    } else if (entry->hash != 0 && !seen && (entry->expires == 0 || before(now, entry->expires))) {
        fault(oracle, &oracle->counts.lost, conversation->id, &view->peer, seq, "told as gone");
    }
    entry_see(oracle, entry, view, (uint16_t)(1u << index), seq);
}

void oracle_gone(struct oracle *oracle, struct conversation_id id, struct oracle_peer peer,
                 uint32_t connection, uint64_t from_seq, uint64_t to_seq)
{
    struct conversation *conversation = find(oracle, id);
    int index = conversation == NULL ? -1 : view_index(conversation, &peer);
    if (index < 0) {
        fault(oracle, &oracle->counts.strange, id, &peer, from_seq, "gone, never joined");
        return;
    }
    if (!oracle->expires)
        return; /* retention: whoever lacks it is owed it */
    struct view *view = &conversation->views[index];
    if (view->connection != connection) {
        view->connection = connection;
        view->last_pushed = 0;
    }
    if (from_seq < conversation->base)
        from_seq = conversation->base;
    for (uint64_t seq = from_seq; seq <= to_seq; seq++) {
        if (window_reach(oracle, conversation, seq) == NULL) {
            fault(oracle, &oracle->counts.unchecked, id, &peer, seq, "gone beyond window");
            return;
        }
        gone_one(oracle, conversation, index, seq);
    }
    if (to_seq > view->last_pushed)
        view->last_pushed = to_seq;
    window_slide(conversation);
}

/* history_message: it is whole, in time, and the one of its number, as far as that is remembered.
 */
static void history_message(struct oracle *oracle, const struct conversation *conversation,
                            const struct oracle_peer *peer, const struct message *message)
{
    struct conversation_id id = conversation->id;
    uint64_t intended_ns;
    bool kept = message->seq >= conversation->base &&
                message->seq - conversation->base < conversation->count;
    const struct entry *entry = kept ? entry_at(conversation, message->seq) : NULL;
    if (!is_whole(oracle, message, &intended_ns))
        fault(oracle, &oracle->counts.altered, id, peer, message->seq, "history: does not fit");
    if (is_late(oracle, message))
        fault(oracle, &oracle->counts.late, id, peer, message->seq, "history: shown late");
    if (entry != NULL && entry->hash != 0 && entry->hash != hash_of(&message->message_id))
        fault(oracle, &oracle->counts.conflicting, id, peer, message->seq, "history: another one");
}

/* history_gone: what is remembered of it had expired. */
static void history_gone(struct oracle *oracle, const struct conversation *conversation,
                         const struct oracle_peer *peer, const struct gone *gone)
{
    uint32_t now = brief(oracle->now_ms);
    uint64_t end = conversation->base + conversation->count;
    uint64_t seq = gone->from_seq > conversation->base ? gone->from_seq : conversation->base;
    for (; oracle->expires && seq <= gone->to_seq && seq < end; seq++) {
        const struct entry *entry = entry_at(conversation, seq);
        if (entry->hash != 0 && (entry->expires == 0 || before(now, entry->expires)))
            fault(oracle, &oracle->counts.lost, conversation->id, peer, seq, "history: gone");
    }
}

void oracle_history(struct oracle *oracle, struct oracle_peer peer, uint64_t from_seq,
                    const struct history *history)
{
    const struct conversation *conversation = find(oracle, history->conversation);
    uint64_t next = from_seq;
    size_t m = 0;
    size_t g = 0;
    if (conversation == NULL || view_index(conversation, &peer) < 0) {
        fault(oracle, &oracle->counts.strange, history->conversation, &peer, 0, "never joined");
        return;
    }
    for (;;) {
        if (m < history->message_count && history->messages[m].seq == next) {
            history_message(oracle, conversation, &peer, &history->messages[m++]);
            next++;
        } else if (g < history->gone_count && history->gone[g].from_seq == next &&
                   history->gone[g].to_seq >= next) {
            history_gone(oracle, conversation, &peer, &history->gone[g]);
            next = history->gone[g++].to_seq + 1;
        } else {
            break;
        }
    }
    bool all = m == history->message_count && g == history->gone_count;
    if (!all || next != (history->next_seq != 0 ? history->next_seq : history->last_seq + 1))
        fault(oracle, &oracle->counts.gaps, conversation->id, &peer, next,
              "not in the history from %" PRIu64 ": %zu messages, %zu ranges, next %" PRIu64
              ", last %" PRIu64,
              from_seq, history->message_count, history->gone_count, history->next_seq,
              history->last_seq);
}

void oracle_confirmed(struct oracle *oracle, struct conversation_id id, struct oracle_peer peer,
                      uint64_t seq)
{
    struct conversation *conversation = find(oracle, id);
    int index = conversation == NULL ? -1 : view_index(conversation, &peer);
    if (index >= 0 && seq > conversation->views[index].confirmed)
        conversation->views[index].confirmed = seq;
}

/* ---- verdict */

size_t oracle_owed(const struct oracle *oracle, struct oracle_debt *out, size_t max)
{
    size_t at = 0;
    size_t count = 0;
    const struct conversation *conversation;
    while (count < max && (conversation = table_next(&oracle->conversations, &at)) != NULL)
        for (uint64_t seq = conversation->base;
             seq < conversation->base + conversation->count && count < max; seq++) {
            const struct entry *entry = entry_at(conversation, seq);
            for (int i = 0; i < conversation->view_count && count < max; i++)
                if ((entry->seen & (1u << i)) == 0)
                    out[count++] = (struct oracle_debt){
                        conversation->id, seq, conversation->views[i].peer, entry->hash != 0};
        }
    return count;
}

bool oracle_settled(const struct oracle *oracle)
{
    return oracle->owed == 0 && oracle->unknown == 0;
}

static void count_window(const struct conversation *conversation, struct oracle_counts *out)
{
    uint64_t end = conversation->base + conversation->count;
    for (uint64_t seq = conversation->base; seq < end; seq++) {
        const struct entry *entry = entry_at(conversation, seq);
        if (entry->hash == 0 && !entry->gone)
            out->gaps++;
        for (int i = 0; i < conversation->view_count; i++)
            if ((entry->seen >> i & 1) == 0 &&
                (entry->acked || seq < conversation->views[i].last_seen))
                out->lost++;
    }
}

void oracle_result(const struct oracle *oracle, struct oracle_counts *out)
{
    *out = oracle->counts;
    size_t at = 0;
    const struct conversation *conversation;
    while ((conversation = table_next(&oracle->conversations, &at)) != NULL)
        count_window(conversation, out);
}

void oracle_counts_add(struct oracle_counts *target, const struct oracle_counts *source)
{
    target->acked += source->acked;
    target->delivered += source->delivered;
    target->redelivered += source->redelivered;
    target->echoed += source->echoed;
    target->lost += source->lost;
    target->duplicated += source->duplicated;
    target->reordered += source->reordered;
    target->altered += source->altered;
    target->conflicting += source->conflicting;
    target->gaps += source->gaps;
    target->late += source->late;
    target->strange += source->strange;
    target->unchecked += source->unchecked;
}

bool oracle_clean(const struct oracle_counts *c)
{
    return (c->lost | c->duplicated | c->reordered | c->altered | c->conflicting | c->gaps |
            c->late | c->strange | c->unchecked) == 0;
}

const char *oracle_fault(const struct oracle *oracle)
{
    return oracle->fault;
}

size_t oracle_memory(const struct oracle *oracle)
{
    return oracle->memory + table_memory(&oracle->conversations);
}

/* ---- content */

static uint32_t content_sum(struct bytes covered, struct conversation_id conversation,
                            const struct message_id *id, struct user_id sender)
{
    uint8_t head[40];
    conversation_id_encode(head, conversation);
    memcpy(head + 16, id->v, 16);
    store_u64(head + 32, sender.v);
    return crc32c(crc32c(0, bytes_of(head, sizeof head)), covered);
}

enum err oracle_content(struct buffer *out, size_t size, struct conversation_id conversation,
                        const struct message_id *id, struct user_id sender, uint64_t intended_ns)
{
    if (size < ORACLE_CONTENT_BYTES_MIN)
        return ERR_INVALID;
    if (buffer_room(out) < size)
        return ERR_FULL;
    char *text = (char *)out->data + out->size;
    char head[ORACLE_CONTENT_BYTES_MIN + 1];
    (void)snprintf(head, sizeof head, "00000000 %016" PRIx64 " ", intended_ns);
    memcpy(text, head, ORACLE_CONTENT_BYTES_MIN);
    for (size_t i = ORACLE_CONTENT_BYTES_MIN; i < size; i++)
        text[i] = (char)('a' + (i + id->v[15]) % 26);
    uint32_t sum = content_sum(bytes_of(text + 8, size - 8), conversation, id, sender);
    (void)snprintf(head, sizeof head, "%08" PRIx32, sum);
    memcpy(text, head, 8);
    out->size += size;
    return OK;
}

void oracle_setting(struct retention_setting *out, struct conversation_id conversation,
                    const struct message_id *id, struct user_id sender, bool tight)
{
    uint32_t sum = content_sum(bytes_of(NULL, 0), conversation, id, sender);
    out->age_s = 30 * 86400 + sum % (300 * 86400);
    out->bytes = sum % 2 == 0 ? 0 : (1ull << 40) + sum;
    if (tight && sum % 8 < 3)
        out->bytes = 500 + sum % 10000;
    if (tight && sum % 16 == 4)
        out->age_s = 1;
}

uint64_t oracle_expiry(const struct message_id *id)
{
    uint64_t hash = hash_of(id);
    uint64_t root = hash / 4 % 55;
    return hash % 4 != 0 ? 0 : made_ms(id) + 20 + root * root;
}

static bool hex_parse(uint64_t *out, const uint8_t *text, size_t digits)
{
    uint64_t value = 0;
    for (size_t i = 0; i < digits; i++) {
        uint8_t c = text[i];
        uint8_t digit;
        if (c >= '0' && c <= '9')
            digit = (uint8_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            digit = (uint8_t)(c - 'a' + 10);
        else
            return false;
        value = value << 4 | digit;
    }
    *out = value;
    return true;
}

enum err oracle_content_check(struct bytes content, struct conversation_id conversation,
                              const struct message_id *id, struct user_id sender,
                              uint64_t *intended_ns)
{
    uint64_t sum;
    if (content.size < ORACLE_CONTENT_BYTES_MIN || !hex_parse(&sum, content.data, 8) ||
        !hex_parse(intended_ns, content.data + 9, 16))
        return ERR_CORRUPT;
    return sum == content_sum(bytes_skip(content, 8), conversation, id, sender) ? OK : ERR_CORRUPT;
}
