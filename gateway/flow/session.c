/* session.c: see session.h. */
#include "gateway/flow/session.h"

#include "core/text.h"
#include "gateway/flow/egress.h"
#include "gateway/flow/home.h"
#include "gateway/flow/ingress.h"
#include "gateway/flow/lane.h"
#include "gateway/flow/login.h"
#include "gateway/flow/requests.h"
#include "gateway/flow/revoked.h"
#include "gateway/flow/shard.h"

#include <stdio.h>
#include <stdlib.h>

#define EXPIRY_NOTICE_MS 60000

uint64_t session_handle(struct shard *shard, const struct session *session)
{
    return handle_pack(pool_handle(&shard->sessions, session));
}

struct session *session_get(struct shard *shard, uint64_t handle)
{
    return pool_get(&shard->sessions, handle_unpack(handle));
}

struct session *session_create(struct shard *shard, struct connection *connection,
                               const struct identity *identity)
{
    struct session *session = pool_take(&shard->sessions);
    if (session == NULL)
        return NULL;
    session->connection = connection;
    session->device = identity->device;
    session->realm = identity->realm;
    session->generation = identity->generation;
    session->token_expires_ms = identity->token_expires_ms;
    return session;
}

static void list_pull(struct shard *shard, struct session *session)
{
    if (session->pull_listed)
        return;
    session->pull_listed = true;
    session->pull_next = shard->pulls;
    shard->pulls = session;
}

void session_destroy(struct shard *shard, struct session *session)
{
    home_leave(shard, session);
    if (session->ready)
        shard_count(shard, METRIC_SESSIONS_OPEN, (uint64_t)-1);
    if (session->pull_listed) {
        struct session **at = &shard->pulls;
        while (*at != session)
            at = &(*at)->pull_next;
        *at = session->pull_next;
    }
    login_free(session->login);
    memory_give(session->behind, MEMORY_CHAT);
    pool_give(&shard->sessions, session);
}

/* ---- start */

static uint32_t agreed_heartbeat(const struct config *config, uint32_t wanted_ms)
{
    if (wanted_ms == 0)
        return config->heartbeat_ms;
    if (wanted_ms < config->heartbeat_min_ms)
        return config->heartbeat_min_ms;
    return wanted_ms > config->heartbeat_max_ms ? config->heartbeat_max_ms : wanted_ms;
}

static void displace_older(struct shard *shard, const struct session *session)
{
    for (struct session *other = session->user->sessions; other != NULL;) {
        struct session *next = other->sibling;
        if (other->device.v == session->device.v)
            ingress_fail(shard, other->connection, CODE_REPLACED, 0,
                         "a newer connection of this device took over");
        other = next;
    }
}

static MUST_USE enum err behind_add(struct session *session, struct entry *entry)
{
    if (session->behind_count == session->behind_capacity) {
        uint32_t capacity = session->behind_capacity == 0 ? 4 : session->behind_capacity * 2;
        struct entry **grown =
            memory_resize(session->behind, capacity * sizeof *grown, MEMORY_CHAT);
        if (grown == NULL)
            return ERR_NO_MEMORY;
        session->behind = grown;
        session->behind_capacity = capacity;
    }
    session->behind[session->behind_count++] = entry;
    return OK;
}

static int newest_first(const void *a, const void *b)
{
    const struct entry *x = *(struct entry *const *)a;
    const struct entry *y = *(struct entry *const *)b;
    if (x->activity_ms == y->activity_ms)
        return 0;
    return x->activity_ms > y->activity_ms ? -1 : 1;
}

/* Every conversation of which this device has not acknowledged everything is behind. */
static enum err list_pending(struct shard *shard, struct session *session)
{
    struct inbox *user = session->user;
    for (uint32_t i = 0; i < user->entry_count; i++) {
        struct entry *entry = user->entries[i];
        struct cursor_state *cursor;
        bool made;
        TRY(entry_cursor(entry, &cursor, session->device, &made));
        if (made)
            home_watermark_moved(shard, entry);
        cursor->behind = false;
        cursor->sent = session->resume ? cursor->delivered : entry->last_seq;
        if (cursor->sent == entry->last_seq)
            continue;
        TRY(behind_add(session, entry));
        cursor->behind = true;
    }
    if (session->behind_count > 1)
        qsort(session->behind, session->behind_count, sizeof session->behind[0], newest_first);
    return OK;
}

static void say_ready(struct shard *shard, struct session *session)
{
    const struct login *login = session->login;
    struct event event = {
        .id = login->request_id,
        .kind = EVENT_READY,
        .ready = {.user = session->user->id,
                  .device = session->device,
                  .realm = session->realm,
                  .name = bytes_of_text(login->identity.name),
                  .time_ms = shard->wall_ms,
                  .heartbeat_ms = session->heartbeat_ms,
                  .token_expires_ms = session->token_expires_ms,
                  .store_epoch = bytes_of(shard->gateway->store_epoch, 16),
                  .pending_conversations = session->behind_count},
    };
    egress_event(shard, session->connection, &event);
}

static void say_peer_marks(struct shard *shard, struct session *session)
{
    for (uint32_t i = 0; i < session->user->entry_count; i++) {
        const struct entry *entry = session->user->entries[i];
        if (entry->peer_delivered == 0)
            continue;
        uint64_t self = session->user->id.v;
        struct event event = {
            .kind = EVENT_RECEIPT,
            .receipt = {.conversation = entry->conversation,
                        .user = {entry->conversation.hi == self ? entry->conversation.lo
                                                                : entry->conversation.hi},
                        .delivered_seq = entry->peer_delivered,
                        .read_seq = entry->peer_read},
        };
        egress_event(shard, session->connection, &event);
    }
}

void session_start(struct shard *shard, struct session *session)
{
    struct connection *connection = session->connection;
    const struct login *login = session->login;
    if (revoked_recently(shard, session->user->id, session->device, session->generation)) {
        ingress_fail(shard, connection, CODE_REVOKED, 0, "this device was logged out");
        return;
    }
    displace_older(shard, session);
    session->sibling = session->user->sessions;
    session->user->sessions = session;
    session->resume = login->resume;
    session->credited = login->has_credit;
    session->credit_messages = login->credit.messages;
    session->credit_bytes = login->credit.bytes;
    session->heartbeat_ms = agreed_heartbeat(shard->gateway->config, login->heartbeat_ms);
    session->started_ms = shard->wall_ms;
    enum err err = inbox_add_device(session->user, session->device);
    if ((err != OK && err != ERR_EXISTS) || list_pending(shard, session) != OK) {
        ingress_fail(shard, connection, CODE_OVERLOADED, 1000, "out of memory");
        return;
    }
    session->ready = true;
    shard_count(shard, METRIC_SESSIONS_OPEN, 1);
    metric_observe(shard->metrics, METRIC_CONNECT_SECONDS, shard->now_ns - connection->accepted_ns);
    say_ready(shard, session);
    say_peer_marks(shard, session);
    session_arm_timer(shard, session);
    session_go_on(shard, session);
    ingress_go_on(shard, connection);
}

/* ---- pushing */

static bool has_credit(const struct session *session)
{
    return !session->credited || (session->credit_messages > 0 && session->credit_bytes > 0);
}

bool session_can_push(const struct shard *shard, const struct session *session)
{
    if (!session->ready || session->connection->state != CONNECTION_SESSION)
        return false;
    if (!has_credit(session))
        return false;
    return egress_unsent(session->connection) < shard->gateway->config->output_bytes;
}

void session_pushed(struct shard *shard, struct session *session, size_t bytes)
{
    shard_count(shard, METRIC_MESSAGES_DELIVERED, 1);
    if (!session->credited)
        return;
    session->credit_messages--;
    session->credit_bytes -= (int64_t)bytes;
}

void session_lag(struct shard *shard, struct session *session, struct entry *entry,
                 struct cursor_state *cursor)
{
    if (behind_add(session, entry) != OK) {
        session->connection->doomed = true; /* it resumes from its cursor */
        return;
    }
    cursor->behind = true;
    shard_count(shard, METRIC_LAGGING, session->live);
    session->live = false;
    struct event event = {
        .kind = EVENT_LAGGING,
        .lagging = {.conversation = entry->conversation,
                    .from_seq = cursor->sent + 1,
                    .to_seq = entry->last_seq},
    };
    egress_event(shard, session->connection, &event);
    list_pull(shard, session);
}

/* ---- pulling */

/* Send the prepared pull; where there is no room it stays prepared and is tried again next turn. */
static void ask(struct shard *shard, struct session *session)
{
    struct mesh *mesh = shard->gateway->mesh;
    struct pull *pull = &session->pull;
    uint32_t target = pull->from_log ? shard_lane(shard->gateway, pull->conversation)
                                     : shard_of_conversation(shard->gateway, pull->conversation);
    enum mesh_class class = pull->from_log ? MESH_LOG : MESH_REQUEST;
    enum mesh_class answer_class = pull->from_log ? MESH_LOG_ANSWER : MESH_ANSWER;
    if (mesh_promise(mesh, shard->index, target, answer_class, pull->answer_bytes) != OK) {
        MARK("pull waits for a promise");
        list_pull(shard, session);
        return;
    }
    struct border_pull *out =
        (struct border_pull *)(void *)mesh_reserve(mesh, shard->index, target, class, sizeof *out);
    if (out == NULL) {
        mesh_unpromise(mesh, shard->index, target, answer_class, pull->answer_bytes);
        list_pull(shard, session);
        return;
    }
    *out = (struct border_pull){
        .border = {pull->from_log ? BORDER_READ : BORDER_PULL, (uint16_t)shard->index, 0},
        .session = session_handle(shard, session),
        .conversation = pull->conversation,
        .from_seq = pull->from_seq,
        .to_seq = pull->to_seq,
        .records_max = pull->records_max,
        .answer_bytes = pull->answer_bytes,
    };
    mesh_commit(mesh, shard->index, target, class, sizeof *out);
    pull->asked = true;
}

static void prepare(struct session *session, enum pull_purpose purpose,
                    struct conversation_id conversation, uint64_t from_seq, uint64_t to_seq,
                    uint32_t records_max)
{
    struct pull *pull = &session->pull;
    bool same = pull->from_log && purpose == PULL_CATCH_UP &&
                conversation_id_equal(pull->conversation, conversation);
    *pull = (struct pull){
        .purpose = purpose,
        .from_log = same,
        .request_id = pull->request_id,
        .conversation = conversation,
        .from_seq = from_seq,
        .to_seq = to_seq,
        .records_max = records_max,
        .answer_bytes = PULL_BYTES + PULLED_OVERHEAD,
    };
}

static void say_error(struct shard *shard, struct session *session, uint64_t request_id,
                      enum code code, struct conversation_id conversation, uint64_t from_seq,
                      uint64_t to_seq, const char *text)
{
    struct failure failure = {.code = code,
                              .conversation = conversation,
                              .from_seq = from_seq,
                              .to_seq = to_seq,
                              .text = bytes_of_text(text)};
    request_error(shard, session->connection, request_id, &failure);
}

void session_gone(struct shard *shard, struct session *session, struct conversation_id conversation,
                  uint64_t from_seq, uint64_t to_seq)
{
    struct event event = {
        .kind = EVENT_GONE,
        .gone = {.conversation = conversation, .from_seq = from_seq, .to_seq = to_seq}};
    egress_event(shard, session->connection, &event);
}

static void say_cursor_from_future(struct shard *shard, struct session *session,
                                   struct conversation_id conversation)
{
    uint8_t id[16];
    char name[UUID_TEXT_BYTES], text[UUID_TEXT_BYTES + 64];
    conversation_id_encode(id, conversation);
    uuid_format(name, id);
    snprintf(text, sizeof text, "cursor beyond the newest message of %s", name);
    ingress_fail(shard, session->connection, CODE_SEQ_FROM_FUTURE, 0, text);
}

/* A cursor of hello: where the device really is. False: its conversation must be asked first. */
static bool take_cursor(struct session *session, const struct cursor *cursor)
{
    struct inbox *user = session->user;
    if (!conversation_id_is_direct(cursor->conversation) ||
        !conversation_id_has(cursor->conversation, user->id))
        return true; /* not a member: ignored */
    struct entry *entry = inbox_entry(user, cursor->conversation);
    if (entry == NULL || cursor->seq > entry->last_seq)
        return false;
    struct cursor_state *state;
    bool made;
    if (entry_cursor(entry, &state, session->device, &made) != OK)
        return true;
    state->sent = cursor->seq;
    state->presumed = false;
    if (!state->behind && state->sent < entry->last_seq) {
        if (behind_add(session, entry) == OK)
            state->behind = true;
        else
            session->connection->doomed = true;
    }
    return true;
}

/* True: all cursors of hello are worked off. */
static bool cursors_done(struct shard *shard, struct session *session)
{
    struct login *login = session->login;
    if (login == NULL)
        return true;
    while (session->cursor_next < login->cursor_count) {
        const struct cursor *cursor = &login->cursors[session->cursor_next];
        if (!take_cursor(session, cursor)) {
            prepare(session, PULL_CURSOR, cursor->conversation, cursor->seq + 1, UINT64_MAX, 0);
            ask(shard, session);
            return false;
        }
        session->cursor_next++;
    }
    login_free(login);
    session->login = NULL;
    return true;
}

static void say_synced(struct shard *shard, struct session *session)
{
    struct event event = {.kind = EVENT_SYNCED, .synced = {.time_ms = shard->wall_ms}};
    session->live = true;
    session->behind_next = session->behind_count = session->behind_capacity = 0;
    memory_give(session->behind, MEMORY_CHAT);
    session->behind = NULL;
    shard_count(shard, METRIC_SYNCED, 1);
    egress_event(shard, session->connection, &event);
}

void session_go_on(struct shard *shard, struct session *session)
{
    struct pull *pull = &session->pull;
    if (!session->ready || session->connection->state != CONNECTION_SESSION || pull->asked)
        return;
    if (pull->purpose == PULL_HISTORY || pull->purpose == PULL_CURSOR) {
        ask(shard, session);
        return;
    }
    if (!cursors_done(shard, session))
        return;
    while (session->behind_next < session->behind_count) {
        struct entry *entry = session->behind[session->behind_next];
        struct cursor_state *cursor;
        bool made;
        enum err err = entry_cursor(entry, &cursor, session->device, &made);
        CHECK(err == OK && !made);
        if (cursor->sent >= entry->last_seq) {
            cursor->behind = false;
            session->behind_next++;
            continue;
        }
        if (!session_can_push(shard, session))
            return; /* Credit, or the drained output, calls again */
        uint32_t records = PULL_RECORDS;
        if (session->credited && session->credit_messages < records)
            records = (uint32_t)session->credit_messages;
        uint32_t answer_bytes = pull->answer_bytes;
        bool retry = pull->purpose == PULL_CATCH_UP && pull->from_seq == cursor->sent + 1 &&
                     conversation_id_equal(pull->conversation, entry->conversation);
        prepare(session, PULL_CATCH_UP, entry->conversation, cursor->sent + 1, entry->last_seq,
                records);
        if (retry && answer_bytes > pull->answer_bytes)
            pull->answer_bytes = answer_bytes; /* one large message, learned by TOO_SMALL */
        ask(shard, session);
        return;
    }
    pull->purpose = PULL_NONE;
    if (!session->live)
        say_synced(shard, session);
}

void session_retry_pulls(struct shard *shard)
{
    struct session *list = shard->pulls;
    shard->pulls = NULL;
    while (list != NULL) {
        struct session *session = list;
        list = session->pull_next;
        session->pull_listed = false;
        session_go_on(shard, session);
    }
}

/* ---- answers to pulls */

static bool next_record(struct bytes *payload, const struct border_record **record)
{
    if (payload->size < sizeof **record)
        return false;
    *record = (const void *)payload->data;
    *payload = bytes_skip(*payload, border_padded(sizeof **record + (*record)->payload_bytes));
    return true;
}

void session_fill_message(struct message *out, struct conversation_id conversation,
                          const struct border_record *record)
{
    const struct bytes body = bytes_of(record + 1, record->payload_bytes);
    *out = (struct message){.conversation = conversation,
                            .seq = record->seq,
                            .message_id = record->message_id,
                            .sender = record->sender,
                            .sender_device = record->device,
                            .time_ms = record->time_ms,
                            .expires_ms = record->expires_ms};
    if (record->kind == RECORD_RETENTION)
        out->has_retention = keep_decode(&out->retention, body) == OK;
    else
        out->payload = body;
}

static void push_record(struct shard *shard, struct session *session, struct entry *entry,
                        struct cursor_state *cursor, const struct border_record *record)
{
    if (record->seq != cursor->sent + 1)
        return; /* it arrived live meanwhile, or belongs to an older question */
    cursor->sent = record->seq;
    if (record->sender.v == session->user->id.v && record->device.v == session->device.v &&
        record->time_ms >= session->started_ms) {
        if (cursor->delivered + 1 == record->seq)
            cursor->delivered = record->seq; /* this very session sent it and has the ack */
        return;
    }
    if (border_record_expired(record, shard->expiry_ms)) {
        MARK("a message has disappeared before a device catches up");
        session_gone(shard, session, entry->conversation, record->seq, record->seq);
        return;
    }
    enum encoding encoding = (enum encoding)session->connection->encoding;
    struct message message;
    session_fill_message(&message, entry->conversation, record);
    struct bytes encoded = egress_encode_message(shard, encoding, &message);
    egress_element(shard, session->connection, encoded);
    session_pushed(shard, session, encoded.size);
}

static void on_catch_up(struct shard *shard, struct session *session,
                        const struct border_pulled *pulled, struct bytes payload)
{
    struct entry *entry = inbox_entry(session->user, pulled->conversation);
    struct cursor_state *cursor;
    const struct border_record *record;
    bool made;
    if (entry == NULL || entry_cursor(entry, &cursor, session->device, &made) != OK)
        return;
    uint64_t before = cursor->sent;
    while (has_credit(session) && next_record(&payload, &record))
        push_record(shard, session, entry, cursor, record);
    if (pulled->outcome == PULL_DAMAGED && pulled->missing_from <= cursor->sent + 1 &&
        pulled->missing_to > cursor->sent) {
        say_error(shard, session, 0, CODE_MISSING_RANGE, entry->conversation, cursor->sent + 1,
                  pulled->missing_to, "these messages are damaged on disk and cannot be had");
        cursor->sent = pulled->missing_to;
    }
    if (pulled->outcome == PULL_GONE && pulled->missing_from <= cursor->sent + 1 &&
        pulled->missing_to > cursor->sent) {
        session_gone(shard, session, entry->conversation, cursor->sent + 1, pulled->missing_to);
        cursor->sent = pulled->missing_to;
    }
    if (cursor->sent == before) {
        MARK("a pull brought nothing");
        list_pull(shard, session);
        return;
    }
    session_go_on(shard, session);
}

/* add_gone: neighbours become one range. */
static void add_gone(struct history_scratch *scratch, uint64_t from_seq, uint64_t to_seq)
{
    struct gone *last = scratch->gone_count == 0 ? NULL : &scratch->gone[scratch->gone_count - 1];
    if (last != NULL && last->to_seq + 1 == from_seq)
        last->to_seq = to_seq;
    else
        scratch->gone[scratch->gone_count++] =
            (struct gone){.from_seq = from_seq, .to_seq = to_seq};
}

/* take_history: the answer's records, what has expired as a range. Returns the last number. */
static uint64_t take_history(struct shard *shard, struct history_scratch *scratch,
                             const struct border_pulled *pulled, struct bytes payload)
{
    const struct border_record *record;
    uint64_t at = 0;
    scratch->count = scratch->gone_count = 0;
    while (scratch->count + scratch->gone_count < HISTORY_RECORDS_MAX &&
           next_record(&payload, &record)) {
        at = record->seq;
        if (border_record_expired(record, shard->expiry_ms))
            add_gone(scratch, at, at);
        else
            session_fill_message(&scratch->messages[scratch->count++], pulled->conversation,
                                 record);
    }
    return at;
}

static void say_history(struct shard *shard, struct session *session, const struct pull *pull,
                        const struct history_scratch *scratch, uint64_t at, uint64_t last_seq)
{
    uint64_t to_seq = pull->to_seq < last_seq ? pull->to_seq : last_seq;
    if (at == 0)
        at = to_seq;
    struct event event = {
        .id = pull->request_id,
        .kind = EVENT_HISTORY,
        .history = {.conversation = pull->conversation,
                    .messages = scratch->messages,
                    .message_count = scratch->count,
                    .next_seq = at < to_seq ? at + 1 : 0,
                    .last_seq = last_seq,
                    .gone = scratch->gone,
                    .gone_count = scratch->gone_count,
                    .has_retention = pull->retention.age_s != 0 || pull->retention.bytes != 0,
                    .retention = pull->retention},
    };
    egress_event(shard, session->connection, &event);
}

static void on_history(struct shard *shard, struct session *session,
                       const struct border_pulled *pulled, struct bytes payload)
{
    struct pull pull = session->pull;
    struct history_scratch *scratch = (struct history_scratch *)(void *)shard->scratch;
    session->pull.purpose = PULL_NONE;
    uint64_t at = take_history(shard, scratch, pulled, payload);
    uint64_t last_seq = pulled->last_seq != 0 ? pulled->last_seq : pull.last_seq;
    if (at > last_seq)
        last_seq = at; /* the log was asked later, and has more by now */
    if (pulled->outcome == PULL_GONE && pulled->missing_from <= last_seq) {
        at = pulled->missing_to < last_seq ? pulled->missing_to : last_seq;
        add_gone(scratch, pulled->missing_from, at);
    }
    if (pulled->outcome == PULL_DAMAGED && at == 0)
        say_error(shard, session, pull.request_id, CODE_MISSING_RANGE, pull.conversation,
                  pulled->missing_from, pulled->missing_to,
                  "these messages are damaged on disk and cannot be had");
    else if (last_seq == 0)
        say_error(shard, session, pull.request_id, CODE_NOT_FOUND, pull.conversation, 0, 0,
                  "nobody has written in this conversation");
    else if (pull.from_seq > last_seq + 1)
        say_error(shard, session, pull.request_id, CODE_SEQ_FROM_FUTURE, pull.conversation,
                  pull.from_seq, last_seq, "from_seq is beyond the newest message");
    else
        say_history(shard, session, &pull, scratch, at, last_seq);
    session_go_on(shard, session);
    ingress_go_on(shard, session->connection);
}

static void on_cursor(struct shard *shard, struct session *session,
                      const struct border_pulled *pulled)
{
    const struct cursor *cursor = &session->login->cursors[session->cursor_next];
    struct entry *entry;
    bool made;
    session->pull.purpose = PULL_NONE;
    if (cursor->seq > pulled->last_seq) {
        say_cursor_from_future(shard, session, pulled->conversation);
        return;
    }
    if (inbox_entry_make(session->user, &entry, pulled->conversation, pulled->last_seq + 1,
                         &made) != OK)
        session->connection->doomed = true;
    else if (made)
        entry_presume(entry);
    else if (pulled->last_seq > entry->last_seq)
        entry->last_seq = pulled->last_seq; /* fan-out is on its way */
    session_go_on(shard, session);          /* take_cursor finds what it needs now */
}

void session_on_pulled(struct shard *shard, struct bytes message)
{
    const struct border_pulled *pulled = (const void *)message.data;
    struct session *session = session_get(shard, pulled->session);
    if (session == NULL)
        return;
    struct pull *pull = &session->pull;
    struct bytes payload = bytes_of(pulled + 1, pulled->border.payload_bytes);
    CHECK(pull->asked);
    pull->asked = false;
    if (pulled->last_seq != 0) { /* by the conversation itself: the log knows neither */
        pull->last_seq = pulled->last_seq;
        pull->retention = pulled->retention;
    }
    switch ((enum pull_outcome)pulled->outcome) {
    case PULL_MISS:
        if (pull->purpose == PULL_CURSOR)
            break;
        pull->from_log = true;
        ask(shard, session);
        return;
    case PULL_BUSY:
        list_pull(shard, session);
        return;
    case PULL_TOO_SMALL:
        MARK("a message larger than a pull");
        pull->answer_bytes = (uint32_t)pulled->size_needed;
        ask(shard, session);
        return;
    case PULL_OK:
    case PULL_DAMAGED:
    case PULL_GONE:
        break;
    }
    if (pull->purpose == PULL_HISTORY)
        on_history(shard, session, pulled, payload);
    else if (pull->purpose == PULL_CURSOR)
        on_cursor(shard, session, pulled);
    else
        on_catch_up(shard, session, pulled, payload);
}

enum err session_history(struct shard *shard, struct session *session, uint64_t request_id,
                         const struct range *range)
{
    if (!conversation_id_is_direct(range->conversation) ||
        !conversation_id_has(range->conversation, session->user->id)) {
        say_error(shard, session, request_id, CODE_NOT_FOUND, range->conversation, 0, 0,
                  "no such conversation");
        return OK;
    }
    if (range->to_seq != 0 && range->to_seq < range->from_seq) {
        say_error(shard, session, request_id, CODE_MALFORMED, range->conversation, range->from_seq,
                  range->to_seq, "to_seq is before from_seq");
        return OK;
    }
    if (session->pull.asked || session->pull.purpose == PULL_HISTORY ||
        session->pull.purpose == PULL_CURSOR)
        return ERR_FULL;
    uint32_t limit = range->limit == 0 || range->limit > HISTORY_RECORDS_MAX ? HISTORY_RECORDS_MAX
                                                                             : range->limit;
    prepare(session, PULL_HISTORY, range->conversation, range->from_seq == 0 ? 1 : range->from_seq,
            range->to_seq == 0 ? UINT64_MAX : range->to_seq, limit);
    session->pull.request_id = request_id;
    ask(shard, session);
    return OK;
}

/* ---- time */

void session_arm_timer(struct shard *shard, struct session *session)
{
    struct connection *connection = session->connection;
    uint64_t due_ns = connection->received_ns + session->heartbeat_ms * NS_PER_MS * 3 / 2;
    uint64_t notice_ms = session->notified || session->token_expires_ms < EXPIRY_NOTICE_MS
                             ? session->token_expires_ms
                             : session->token_expires_ms - EXPIRY_NOTICE_MS;
    uint64_t left_ms = notice_ms > shard->wall_ms ? notice_ms - shard->wall_ms : 0;
    if (left_ms < session->heartbeat_ms * 2ull && shard->now_ns + left_ms * NS_PER_MS < due_ns)
        due_ns = shard->now_ns + left_ms * NS_PER_MS;
    timer_start(&shard->timers, &connection->timer, due_ns);
}

void session_on_timer(struct shard *shard, struct session *session)
{
    struct connection *connection = session->connection;
    if (shard->now_ns >= connection->received_ns + session->heartbeat_ms * NS_PER_MS * 3 / 2) {
        shard_count(shard, METRIC_HEARTBEATS_LOST, 1);
        ingress_fail(shard, connection, CODE_HEARTBEAT_LOST, 0, "nothing was heard from you");
        return;
    }
    if (shard->wall_ms >= session->token_expires_ms) {
        ingress_fail(shard, connection, CODE_TOKEN_EXPIRED, 0, "the token has expired");
        return;
    }
    if (!session->notified && shard->wall_ms + EXPIRY_NOTICE_MS >= session->token_expires_ms) {
        struct event event = {.kind = EVENT_TOKEN_EXPIRING,
                              .token_expiring = {session->token_expires_ms}};
        session->notified = true;
        egress_event(shard, connection, &event);
    }
    session_arm_timer(shard, session);
}
