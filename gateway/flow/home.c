/* home.c: see home.h. */
#include "gateway/flow/home.h"

#include "gateway/flow/egress.h"
#include "gateway/flow/ingress.h"
#include "gateway/flow/login.h"
#include "gateway/flow/requests.h"
#include "gateway/flow/revoked.h"
#include "gateway/flow/shard.h"

static struct table_key user_key(struct user_id id)
{
    return (struct table_key){0, id.v};
}

static void lru_remove(struct shard *shard, struct inbox *user)
{
    if (user->lru_previous != NULL)
        user->lru_previous->lru_next = user->lru_next;
    else
        shard->user_lru_oldest = user->lru_next;
    if (user->lru_next != NULL)
        user->lru_next->lru_previous = user->lru_previous;
    else
        shard->user_lru_newest = user->lru_previous;
}

static void lru_append(struct shard *shard, struct inbox *user)
{
    user->lru_next = NULL;
    user->lru_previous = shard->user_lru_newest;
    if (shard->user_lru_newest != NULL)
        shard->user_lru_newest->lru_next = user;
    else
        shard->user_lru_oldest = user;
    shard->user_lru_newest = user;
}

static struct inbox *find(struct shard *shard, struct user_id id)
{
    return table_get(&shard->users, user_key(id));
}

static struct inbox *find_or_make(struct shard *shard, struct user_id id)
{
    struct inbox *user = find(shard, id);
    if (user != NULL)
        return user;
    user = memory_take(sizeof *user, MEMORY_CHAT);
    if (user == NULL)
        return NULL;
    inbox_init(user, id);
    if (table_put(&shard->users, user_key(id), user) != OK) {
        memory_give(user, MEMORY_CHAT);
        return NULL;
    }
    lru_append(shard, user);
    shard_count(shard, METRIC_STATE_USERS, 1);
    return user;
}

static void forget(struct shard *shard, struct inbox *user)
{
    lru_remove(shard, user);
    table_remove(&shard->users, user_key(user->id));
    inbox_deinit(user);
    memory_give(user, MEMORY_CHAT);
    shard_count(shard, METRIC_STATE_USERS, (uint64_t)-1);
}

void home_evict(struct shard *shard)
{
    for (int i = 0; i < EVICT_PER_TURN && shard->user_lru_oldest != NULL; i++) {
        struct inbox *user = shard->user_lru_oldest;
        if (!shard_over_budget(shard))
            return;
        if (inbox_idle(user)) {
            MARK("a user is evicted");
            forget(shard, user);
            shard_count(shard, METRIC_EVICTED, 1);
            continue;
        }
        lru_remove(shard, user);
        lru_append(shard, user);
    }
}

void home_mark_dirty(struct shard *shard, struct entry *entry)
{
    entry->dirty = true;
    if (entry->inbox->dirty)
        return;
    entry->inbox->dirty = true;
    entry->inbox->dirty_next = shard->dirty_users;
    shard->dirty_users = entry->inbox;
}

void home_watermark_moved(struct shard *shard, struct entry *entry)
{
    home_mark_dirty(shard, entry);
    if (entry->watermark_dirty)
        return;
    entry->watermark_dirty = true;
    entry->watermark_next = shard->dirty_watermarks;
    shard->dirty_watermarks = entry;
}

/* ---- loading: devices and what is pending, by a catalog job */

struct load_row {
    struct conversation_id conversation;
    struct inbox_row row;
};

struct load {
    struct catalog_job catalog_job;
    struct user_id user;
    struct device_id devices[ROW_CURSORS_MAX];
    uint32_t device_count;
    struct catalog_txn *txn;
    struct buffer rows; /* struct load_row, cut behind its last cursor, padded to 8 */
};

static size_t load_row_bytes(const struct load_row *row)
{
    return offsetof(struct load_row, row.cursors) +
           row->row.cursor_count * sizeof row->row.cursors[0];
}

static enum err load_pending(void *context, struct bytes key, struct bytes value)
{
    struct load *load = context;
    struct load_row row;
    (void)value;
    if (key.size != ROW_KEY_BYTES)
        return ERR_CORRUPT;
    row.conversation = row_key_conversation(key.data);
    TRY(rows_read_inbox(load->txn, load->user, row.conversation, &row.row));
    size_t size = load_row_bytes(&row);
    TRY(buffer_reserve(&load->rows, size));
    return buffer_append(&load->rows, bytes_of(&row, size));
}

static enum err load_body(struct catalog_txn *txn, struct catalog_job *job)
{
    struct load *load = CONTAINER_OF(job, struct load, catalog_job);
    uint64_t prefix = __builtin_bswap64(load->user.v);
    load->txn = txn;
    TRY(account_devices(txn, load->user, load->devices, COUNT_OF(load->devices),
                        &load->device_count));
    return catalog_scan(txn, CATALOG_PENDING, bytes_of(&prefix, sizeof prefix), load_pending, load);
}

static enum err take_load(struct inbox *user, const struct load *load)
{
    for (uint32_t i = 0; i < load->device_count; i++) {
        enum err err = inbox_add_device(user, load->devices[i]);
        if (err != OK && err != ERR_EXISTS)
            return err;
    }
    struct bytes rows = buffer_bytes(&load->rows);
    while (rows.size != 0) {
        struct load_row row;
        memcpy(&row, rows.data, offsetof(struct load_row, row.cursors));
        size_t size = load_row_bytes(&row);
        memcpy(&row, rows.data, size);
        TRY(inbox_load_row(user, row.conversation, &row.row));
        rows = bytes_skip(rows, size);
    }
    return OK;
}

static void start_waiting(struct shard *shard, struct inbox *user, enum err err)
{
    struct session *waiting = user->waiting;
    user->waiting = NULL;
    while (waiting != NULL) {
        struct session *session = waiting;
        waiting = session->sibling;
        session->sibling = NULL;
        if (err == OK)
            session_start(shard, session);
        else
            ingress_fail(shard, session->connection, CODE_INTERNAL, 5000,
                         "the user's state could not be read");
    }
}

static void cursor_made(void *context, struct entry *entry)
{
    home_watermark_moved(context, entry);
}

static void load_done(struct worker_job *job, void *context)
{
    struct shard *shard = context;
    struct load *load =
        CONTAINER_OF(CONTAINER_OF(job, struct catalog_job, job), struct load, catalog_job);
    struct inbox *user = find(shard, load->user);
    CHECK(user != NULL && user->state == INBOX_LOADING);
    enum err err = load->catalog_job.err;
    if (err == OK)
        err = take_load(user, load);
    if (err == OK)
        err = inbox_loaded(user, cursor_made, shard);
    if (err != OK)
        user->state = INBOX_COLD;
    if (err != OK)
        log_event(LOG_ERROR, "user_load_failed", LOG_U64("user", user->id.v), LOG_ERR(err));
    memory_give(load->rows.data, MEMORY_CONNECTION);
    memory_give(load, MEMORY_CHAT);
    start_waiting(shard, user, err);
}

static enum err start_load(struct shard *shard, struct inbox *user)
{
    struct load *load = memory_take_zeroed(sizeof *load, MEMORY_CHAT);
    if (load == NULL)
        return ERR_NO_MEMORY;
    load->user = user->id;
    load->catalog_job.body = load_body;
    load->catalog_job.job.done = load_done;
    enum err err = catalog_submit(shard->gateway->catalog, shard->gateway->workers,
                                  &load->catalog_job, false, shard->index);
    if (err != OK) {
        memory_give(load, MEMORY_CHAT);
        return err;
    }
    user->state = INBOX_LOADING;
    return OK;
}

void home_join(struct shard *shard, struct session *session, struct login *login)
{
    struct inbox *user = find_or_make(shard, login->identity.user);
    session->login = login;
    if (user == NULL) {
        ingress_fail(shard, session->connection, CODE_OVERLOADED, 1000, "out of memory");
        return;
    }
    user->realm = login->identity.realm;
    session->user = user;
    lru_remove(shard, user);
    lru_append(shard, user);
    if (user->state == INBOX_WARM) {
        session_start(shard, session);
        return;
    }
    if (user->state == INBOX_COLD && start_load(shard, user) != OK) {
        session->user = NULL;
        ingress_fail(shard, session->connection, CODE_OVERLOADED, 1000, "too many logins at once");
        return;
    }
    session->sibling = user->waiting;
    user->waiting = session;
}

static void unlink_session(struct session **list, struct session *session)
{
    while (*list != NULL && *list != session)
        list = &(*list)->sibling;
    if (*list != NULL)
        *list = session->sibling;
}

void home_leave(struct shard *shard, struct session *session)
{
    struct inbox *user = session->user;
    if (user == NULL)
        return;
    unlink_session(&user->sessions, session);
    unlink_session(&user->waiting, session);
    for (uint32_t i = session->behind_next; i < session->behind_count; i++) {
        bool made;
        struct cursor_state *cursor;
        if (entry_cursor(session->behind[i], &cursor, session->device, &made) == OK)
            cursor->behind = false;
    }
    inbox_drop_idle(user);
    (void)shard;
}

/* ---- what conversations tell */

static struct bytes encode_message(struct shard *shard, enum encoding encoding,
                                   const struct border_deliver *deliver)
{
    struct message message;
    session_fill_message(&message, deliver->conversation, &deliver->record);
    return egress_encode_message(shard, encoding, &message);
}

/* One session's share of a new message: it is the next one and fits, or the session lags. */
static enum err deliver_to(struct shard *shard, struct session *session, struct entry *entry,
                           const struct border_deliver *deliver, struct bytes encoded[2])
{
    const struct border_record *record = &deliver->record;
    struct cursor_state *cursor;
    bool made;
    TRY(entry_cursor(entry, &cursor, session->device, &made));
    if (cursor->behind || cursor->sent >= record->seq)
        return OK;
    bool own = record->sender.v == entry->inbox->id.v && record->device.v == session->device.v;
    if (cursor->sent + 1 == record->seq && own) {
        cursor->sent = record->seq; /* the acknowledgement told it */
        if (cursor->delivered + 1 == record->seq)
            cursor->delivered = record->seq;
        return OK;
    }
    /* while hello's cursors are worked off it is not known where pushing begins */
    if (session->login != NULL || cursor->sent + 1 != record->seq ||
        !session_can_push(shard, session)) {
        session_lag(shard, session, entry, cursor);
        return OK;
    }
    if (border_record_expired(record, shard->expiry_ms)) {
        MARK("a message has disappeared before it is pushed");
        cursor->sent = record->seq;
        session_gone(shard, session, deliver->conversation, record->seq, record->seq);
        return OK;
    }
    enum encoding encoding = (enum encoding)session->connection->encoding;
    if (encoded[encoding].size == 0)
        encoded[encoding] = encode_message(shard, encoding, deliver);
    cursor->sent = record->seq;
    egress_element(shard, session->connection, encoded[encoding]);
    session_pushed(shard, session, encoded[encoding].size);
    if (!own)
        metric_observe(shard->metrics, METRIC_DELIVER_SECONDS, shard->now_ns - deliver->arrived_ns);
    return OK;
}

static void fill_watermark(struct shard *shard, struct border_watermark *out, uint16_t kind,
                           const struct inbox *user, struct device_id device)
{
    *out = (struct border_watermark){
        .border = {kind, (uint16_t)shard->index, 0},
        .user = user->id,
        .device = device,
        .realm = user->realm,
    };
}

/* tell_start: the first message of a conversation is the user's own, and it has one device: the log
 * is told that this one begins at 0, so that what it sends counts from there when the catalog is
 * made again. Before the cursor moves on: nobody is to be told a receipt. */
static void tell_start(struct shard *shard, struct entry *entry)
{
    struct mesh *mesh = shard->gateway->mesh;
    uint32_t target = shard_of_conversation(shard->gateway, entry->conversation);
    struct border_watermark *out = (struct border_watermark *)(void *)mesh_reserve(
        mesh, shard->index, target, MESH_FANOUT, sizeof *out);
    if (out == NULL) {
        home_watermark_moved(shard, entry); /* later, with what it has by then */
        return;
    }
    fill_watermark(shard, out, BORDER_WATERMARK, entry->inbox, entry->cursors[0].device);
    out->conversation = entry->conversation;
    mesh_commit(mesh, shard->index, target, MESH_FANOUT, sizeof *out);
    entry->cursors[0].told = 0;
}

/* deliver_to_user: may come again with the same message, which then changes nothing twice. */
static enum err deliver_to_user(struct shard *shard, struct user_id id,
                                const struct border_deliver *deliver, struct bytes encoded[2])
{
    const struct border_record *record = &deliver->record;
    struct inbox *user = find_or_make(shard, id);
    struct entry *entry = NULL;
    bool made = false;
    if (user == NULL)
        return ERR_NO_MEMORY;
    TRY(inbox_entry_make(user, &entry, deliver->conversation, record->seq, &made));
    entry_told(entry, record->seq);
    if (record->seq > entry->last_seq)
        entry->last_seq = record->seq;
    if (record->time_ms > entry->activity_ms)
        entry->activity_ms = record->time_ms;
    home_mark_dirty(shard, entry);
    if (made && user->device_count > 1)
        home_watermark_moved(shard, entry); /* where each device starts must survive a crash */
    else if (made && record->seq == 1 && record->sender.v == id.v && entry->cursor_count == 1)
        tell_start(shard, entry);
    for (struct session *session = user->sessions; session != NULL; session = session->sibling)
        TRY(deliver_to(shard, session, entry, deliver, encoded));
    return OK;
}

static bool is_home(const struct shard *shard, struct user_id user)
{
    return shard_of_user(shard->gateway, user) == shard->index;
}

enum err home_on_deliver(struct shard *shard, struct bytes message)
{
    const struct border_deliver *deliver = (const void *)message.data;
    struct bytes encoded[2] = {{NULL, 0}, {NULL, 0}};
    struct user_id first = {deliver->conversation.hi};
    struct user_id second = {deliver->conversation.lo};
    if (is_home(shard, first))
        TRY(deliver_to_user(shard, first, deliver, encoded));
    if (second.v != first.v && is_home(shard, second))
        TRY(deliver_to_user(shard, second, deliver, encoded));
    return OK;
}

static enum err moved_for_user(struct shard *shard, struct user_id id,
                               const struct border_moved *moved)
{
    struct inbox *user = find_or_make(shard, id);
    struct entry *entry = NULL;
    bool made = false;
    if (user == NULL)
        return ERR_NO_MEMORY;
    TRY(inbox_entry_make(user, &entry, moved->conversation, moved->from_seq, &made));
    entry_told(entry, moved->from_seq);
    if (moved->to_seq > entry->last_seq)
        entry->last_seq = moved->to_seq;
    if (moved->time_ms > entry->activity_ms)
        entry->activity_ms = moved->time_ms;
    home_mark_dirty(shard, entry);
    if (made && (user->device_count > 1 || moved->from_seq == 1))
        home_watermark_moved(shard, entry);
    for (struct session *session = user->sessions; session != NULL; session = session->sibling) {
        struct cursor_state *cursor;
        TRY(entry_cursor(entry, &cursor, session->device, &made));
        if (!cursor->behind && cursor->sent < entry->last_seq)
            session_lag(shard, session, entry, cursor);
    }
    return OK;
}

enum err home_on_moved(struct shard *shard, struct bytes message)
{
    const struct border_moved *moved = (const void *)message.data;
    MARK("fan-out ring was full: told by number");
    struct user_id first = {moved->conversation.hi};
    struct user_id second = {moved->conversation.lo};
    if (is_home(shard, first))
        TRY(moved_for_user(shard, first, moved));
    if (second.v != first.v && is_home(shard, second))
        TRY(moved_for_user(shard, second, moved));
    return OK;
}

static void receipt_for_user(struct shard *shard, int member, const struct border_receipt *receipt)
{
    struct inbox *user = find(shard, conversation_user(receipt->conversation, member));
    if (user == NULL)
        return;
    struct entry *entry = inbox_entry(user, receipt->conversation);
    struct event events[2];
    size_t count = 0;
    for (int whose = 0; whose < 2; whose++) {
        if (whose == 1 && receipt->conversation.hi == receipt->conversation.lo)
            break;
        if (receipt->delivered[whose] == 0 && receipt->read[whose] == 0)
            continue;
        if (whose == member && receipt->read[whose] == 0)
            continue; /* own delivered marks are per device and no news */
        events[count++] = (struct event){
            .kind = EVENT_RECEIPT,
            .receipt = {.conversation = receipt->conversation,
                        .user = conversation_user(receipt->conversation, whose),
                        .delivered_seq = receipt->delivered[whose],
                        .read_seq = receipt->read[whose]},
        };
    }
    if (entry != NULL) {
        entry->peer_delivered = receipt->delivered[1 - member];
        entry->peer_read = receipt->read[1 - member];
        if (receipt->read[member] > entry->read_seq)
            entry->read_seq = receipt->read[member];
    }
    for (struct session *session = user->sessions; session != NULL; session = session->sibling)
        for (size_t i = 0; i < count; i++)
            if (egress_unsent(session->connection) < shard->gateway->config->output_bytes)
                egress_event(shard, session->connection, &events[i]);
}

void home_on_receipt(struct shard *shard, struct bytes message)
{
    const struct border_receipt *receipt = (const void *)message.data;
    for (int member = 0; member < 2; member++) {
        if (member == 1 && receipt->conversation.hi == receipt->conversation.lo)
            break;
        if (is_home(shard, conversation_user(receipt->conversation, member)))
            receipt_for_user(shard, member, receipt);
    }
}

void home_on_revoke(struct shard *shard, struct bytes message)
{
    const struct border_revoke *revoke = (const void *)message.data;
    struct inbox *user = find(shard, revoke->user);
    /* those that are on their way, or wait for their user to load, look there when they begin */
    revoked_add(shard, revoke->user, revoke->device, revoke->generation);
    if (user == NULL)
        return;
    for (struct session *session = user->sessions; session != NULL;) {
        struct session *next = session->sibling;
        if (revoke->device.v == session->device.v && session->generation <= revoke->generation)
            ingress_fail(shard, session->connection, CODE_REVOKED, 0, "this device was logged out");
        session = next;
    }
}

/* ---- what users acknowledge */

/* The conversation is not in the inbox (everything was delivered long ago), or fan-out has not told
 * of this number yet (an ack or a history was faster): only its owner knows how far it goes. */
static enum err ask_owner(struct shard *shard, struct session *session, uint64_t request_id,
                          const struct watermark *watermark)
{
    struct mesh *mesh = shard->gateway->mesh;
    uint32_t target = shard_of_conversation(shard->gateway, watermark->conversation);
    TRY(mesh_promise(mesh, shard->index, target, MESH_ANSWER, sizeof(struct border_result)));
    struct border_watermark *out = (struct border_watermark *)(void *)mesh_reserve(
        mesh, shard->index, target, MESH_REQUEST, sizeof *out);
    if (out == NULL) {
        mesh_unpromise(mesh, shard->index, target, MESH_ANSWER, sizeof(struct border_result));
        return ERR_FULL;
    }
    fill_watermark(shard, out, BORDER_MARK_CHECK, session->user, session->device);
    out->session = session_handle(shard, session);
    out->request_id = request_id;
    out->conversation = watermark->conversation;
    out->delivered = watermark->delivered_seq;
    out->read = watermark->read_seq;
    mesh_commit(mesh, shard->index, target, MESH_REQUEST, sizeof *out);
    return OK;
}

enum err home_on_watermark(struct shard *shard, struct session *session, uint64_t request_id,
                           const struct watermark *watermark)
{
    struct inbox *user = session->user;
    struct failure failure = {.conversation = watermark->conversation};
    if (!conversation_id_is_direct(watermark->conversation) ||
        !conversation_id_has(watermark->conversation, user->id)) {
        failure.code = CODE_NOT_FOUND;
        failure.text = bytes_of_text("no such conversation");
        request_error(shard, session->connection, request_id, &failure);
        return OK;
    }
    struct entry *entry = inbox_entry(user, watermark->conversation);
    uint64_t delivered = watermark->delivered_seq;
    if (watermark->read_seq > delivered)
        delivered = watermark->read_seq;
    if (entry == NULL || delivered > entry->last_seq)
        return ask_owner(shard, session, request_id, watermark);
    struct cursor_state *cursor;
    bool made;
    if (entry_cursor(entry, &cursor, session->device, &made) != OK)
        return OK;
    if (delivered <= cursor->delivered && watermark->read_seq <= entry->read_seq)
        return OK;
    if (delivered > cursor->delivered)
        cursor->delivered = delivered;
    if (cursor->sent < cursor->delivered)
        cursor->sent = cursor->delivered;
    if (watermark->read_seq > entry->read_seq)
        entry->read_seq = watermark->read_seq;
    shard_count(shard, METRIC_RECEIPTS, 1);
    home_watermark_moved(shard, entry);
    return OK;
}

void home_on_mark_checked(struct shard *shard, struct session *session,
                          struct conversation_id conversation, uint64_t delivered)
{
    struct entry *entry = inbox_entry(session->user, conversation);
    struct cursor_state *cursor;
    bool made;
    if (entry == NULL || entry_cursor(entry, &cursor, session->device, &made) != OK)
        return;
    if (delivered > entry->last_seq)
        entry->last_seq = delivered;
    if (delivered > cursor->delivered)
        cursor->told = cursor->delivered = delivered;
    if (cursor->sent < cursor->delivered)
        cursor->sent = cursor->delivered;
    home_mark_dirty(shard, entry);
}

static bool tell(struct shard *shard, struct entry *entry)
{
    struct mesh *mesh = shard->gateway->mesh;
    uint32_t target = shard_of_conversation(shard->gateway, entry->conversation);
    bool read_news = entry->read_told != entry->read_seq;
    for (uint32_t i = 0; i < entry->cursor_count; i++) {
        struct cursor_state *cursor = &entry->cursors[i];
        if (cursor->told == cursor->delivered && !read_news)
            continue;
        struct border_watermark *out = (struct border_watermark *)(void *)mesh_reserve(
            mesh, shard->index, target, MESH_FANOUT, sizeof *out);
        if (out == NULL)
            return false;
        fill_watermark(shard, out, BORDER_WATERMARK, entry->inbox, cursor->device);
        out->conversation = entry->conversation;
        out->delivered = cursor->delivered;
        out->read = entry->read_seq;
        mesh_commit(mesh, shard->index, target, MESH_FANOUT, sizeof *out);
        cursor->told = cursor->delivered;
    }
    entry->read_told = entry->read_seq;
    return true;
}

void home_flush_watermarks(struct shard *shard)
{
    struct entry *list = shard->dirty_watermarks;
    shard->dirty_watermarks = NULL;
    while (list != NULL) {
        struct entry *entry = list;
        list = entry->watermark_next;
        if (tell(shard, entry)) {
            entry->watermark_dirty = false;
            continue;
        }
        MARK("watermark waits for room");
        entry->watermark_next = shard->dirty_watermarks;
        shard->dirty_watermarks = entry;
    }
}
