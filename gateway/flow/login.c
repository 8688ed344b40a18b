/* login.c: see login.h. */
#include "gateway/flow/login.h"

#include "gateway/flow/egress.h"
#include "gateway/flow/home.h"
#include "gateway/flow/ingress.h"
#include "gateway/flow/session.h"
#include "gateway/flow/shard.h"

enum err login_create(struct login **out, struct bytes token)
{
    if (token.size > JWT_BYTES_MAX)
        return ERR_TOO_BIG;
    struct login *login = memory_take(sizeof *login + token.size + 1, MEMORY_CONNECTION);
    if (login == NULL)
        return ERR_NO_MEMORY;
    memset(login, 0, sizeof *login);
    login->token_bytes = token.size;
    if (token.size != 0)
        memcpy(login->token, token.data, token.size);
    *out = login;
    return OK;
}

void login_free(struct login *login)
{
    if (login == NULL)
        return;
    if (login->jwks != NULL)
        jwks_release(login->jwks);
    explicit_bzero(login->token, login->token_bytes);
    memory_give(login->cursors, MEMORY_CONNECTION);
    memory_give(login, MEMORY_CONNECTION);
}

void login_abandon(struct shard *shard, struct connection *connection)
{
    struct login *login = connection->login;
    connection->login = NULL;
    if (login == NULL)
        return;
    login->connection = 0;
    if (!login->running)
        login_free(login);
    (void)shard;
}

/* On a worker, in a transaction. */
static enum err authenticate(struct catalog_txn *txn, struct catalog_job *job)
{
    struct login *login = CONTAINER_OF(job, struct login, catalog_job);
    const struct config *config = login->gateway->config;
    const struct account_policy policy = {
        .devices_max = config->devices_per_user,
        .create_on_first_sight = config->create_users,
        .refresh_lifetime_ms = (uint64_t)config->refresh_token_s * 1000,
    };
    if (!login->write)
        TRY(jwt_verify(&login->claims, bytes_of(login->token, login->token_bytes),
                       &login->gateway->signer, login->jwks, login->now_ms));
    return account_authenticate(txn, &login->identity, &login->claims, login->device_key, &policy,
                                login->write, login->random_user, login->now_ms);
}

static void login_done(struct worker_job *job, void *context);

static enum err submit(struct shard *shard, struct login *login, bool write)
{
    login->write = write;
    login->catalog_job.body = authenticate;
    login->catalog_job.job.done = login_done;
    TRY(catalog_submit(shard->gateway->catalog, shard->gateway->workers, &login->catalog_job, write,
                       shard->index));
    login->running = true;
    return OK;
}

static void refuse(struct shard *shard, struct connection *connection, enum err err)
{
    shard_count(shard, METRIC_LOGINS_REFUSED, 1);
    if (err == ERR_EXPIRED)
        ingress_fail(shard, connection, CODE_TOKEN_EXPIRED, 0, "the token has expired");
    else if (err == ERR_FULL)
        ingress_fail(shard, connection, CODE_FORBIDDEN, 0,
                     "this user has as many devices as allowed; log one out first");
    else if (err == ERR_BUSY || err == ERR_AGAIN)
        ingress_fail(shard, connection, CODE_OVERLOADED, 1000, "too many logins at once");
    else if (err == ERR_NO_SPACE)
        ingress_fail(shard, connection, CODE_NO_SPACE, 5000, "the disk is full");
    else if (err == ERR_IO || err == ERR_NO_MEMORY || err == ERR_CORRUPT)
        ingress_fail(shard, connection, CODE_INTERNAL, 5000, "the account store failed");
    else
        ingress_fail(shard, connection, CODE_UNAUTHENTICATED, 0, "the token is not valid here");
}

static void renewed(struct shard *shard, struct connection *connection, struct login *login,
                    enum err err)
{
    if (connection == NULL || connection->state != CONNECTION_SESSION)
        return;
    struct session *session = connection->session;
    struct event event = {.id = login->request_id};
    CHECK(session->awaited != 0);
    session->awaited--;
    session->renewing = false;
    if (err == OK && login->identity.user.v == session->user->id.v &&
        login->identity.device.v == session->device.v) {
        session->token_expires_ms = login->identity.token_expires_ms;
        session->notified = false;
        event.kind = EVENT_RENEWED;
        event.renewed.token_expires_ms = session->token_expires_ms;
        session_arm_timer(shard, session);
    } else {
        shard_count(shard, METRIC_LOGINS_REFUSED, 1);
        event.kind = EVENT_ERROR;
        event.error.code = err == ERR_EXPIRED ? CODE_TOKEN_EXPIRED
                           : err == OK        ? CODE_FORBIDDEN /* a good one of somebody else */
                                              : CODE_UNAUTHENTICATED;
        event.error.verdict = code_verdict(event.error.code);
        event.error.text = bytes_of_text("this token cannot renew this session");
    }
    egress_event(shard, connection, &event);
}

static void login_done(struct worker_job *job, void *context)
{
    struct shard *shard = context;
    struct login *login =
        CONTAINER_OF(CONTAINER_OF(job, struct catalog_job, job), struct login, catalog_job);
    struct connection *connection = connection_get(shard, login->connection);
    enum err err = login->catalog_job.err;
    login->running = false;
    if (err == ERR_AGAIN && !login->write && connection != NULL) {
        io_entropy(shard->io, login->random_user, sizeof login->random_user);
        err = submit(shard, login, true);
        if (err == OK)
            return;
        err = ERR_BUSY;
    }
    if (login->renew) {
        renewed(shard, connection, login, err);
        login_free(login);
        return;
    }
    if (connection == NULL || connection->login != login) {
        login_free(login);
        return;
    }
    if (err != OK) {
        refuse(shard, connection, err);
        return;
    }
    if (shard_of_user(shard->gateway, login->identity.user) == shard->index)
        login_finish(shard, connection);
    else
        migrate_start(shard, connection);
}

static enum err take_hello(struct login *login, const struct hello *hello)
{
    login->has_credit = hello->has_credit;
    login->credit = hello->credit;
    login->resume = hello->resume;
    login->heartbeat_ms = hello->heartbeat_ms;
    if (hello->device_key.size != 0)
        memcpy(login->device_key, hello->device_key.data, hello->device_key.size);
    if (hello->cursor_count == 0)
        return OK;
    size_t size = hello->cursor_count * sizeof *login->cursors;
    login->cursors = memory_take(size, MEMORY_CONNECTION);
    if (login->cursors == NULL)
        return ERR_NO_MEMORY;
    memcpy(login->cursors, hello->cursors, size);
    login->cursor_count = hello->cursor_count;
    return OK;
}

static struct login *make(struct shard *shard, struct connection *connection, uint64_t request_id,
                          struct bytes token)
{
    struct login *login = NULL;
    if (login_create(&login, token) != OK)
        return NULL;
    login->gateway = shard->gateway;
    login->jwks = shard->jwks;
    if (login->jwks != NULL)
        jwks_retain(login->jwks);
    login->connection = connection_handle(shard, connection);
    login->request_id = request_id;
    login->now_ms = shard->wall_ms;
    return login;
}

static enum err hello_fault(struct shard *shard, struct connection *connection,
                            const struct hello *hello)
{
    if (hello->store_epoch.size == 16 &&
        !bytes_equal(hello->store_epoch, bytes_of(shard->gateway->store_epoch, 16))) {
        ingress_fail(shard, connection, CODE_EPOCH_CHANGED, 0,
                     "this store is not the one you know: forget sequence numbers, hello again");
        return ERR_CONFLICT;
    }
    if (hello->cursor_count != 0 && hello->store_epoch.size == 0) {
        ingress_fail(shard, connection, CODE_MALFORMED, 0, "cursors need store_epoch_id");
        return ERR_INVALID;
    }
    if (hello->device_key.size > JWT_NAME_BYTES_MAX || hello->cursor_count > LOGIN_CURSORS_MAX ||
        hello->token.size > JWT_BYTES_MAX) {
        ingress_fail(shard, connection, CODE_TOO_BIG, 0,
                     "device_key up to 128 bytes, cursors up to 1024, token up to 8192 bytes");
        return ERR_TOO_BIG;
    }
    return OK;
}

enum err login_begin(struct shard *shard, struct connection *connection, uint64_t request_id,
                     const struct hello *hello)
{
    TRY(hello_fault(shard, connection, hello));
    struct login *cookie = connection->login;
    struct bytes token = hello->token;
    if (token.size == 0 && cookie != NULL)
        token = bytes_of(cookie->token, cookie->token_bytes);
    struct login *login = make(shard, connection, request_id, token);
    if (login == NULL || take_hello(login, hello) != OK) {
        login_free(login);
        connection_abort(shard, connection);
        return ERR_NO_MEMORY;
    }
    if (submit(shard, login, false) != OK) {
        login_free(login);
        shard_count(shard, METRIC_LOGINS_REFUSED, 1);
        ingress_fail(shard, connection, CODE_OVERLOADED, 1000, "too many logins at once");
        return ERR_BUSY;
    }
    login_free(cookie);
    connection->login = login;
    connection_set_state(connection, CONNECTION_AUTHENTICATING);
    return ERR_AGAIN;
}

enum err login_renew(struct shard *shard, struct connection *connection, uint64_t request_id,
                     struct bytes token)
{
    if (token.size > JWT_BYTES_MAX)
        return ERR_TOO_BIG;
    struct login *login = make(shard, connection, request_id, token);
    if (login == NULL)
        return ERR_NO_MEMORY;
    login->renew = true;
    enum err err = submit(shard, login, false);
    if (err != OK)
        login_free(login);
    return err;
}

void login_finish(struct shard *shard, struct connection *connection)
{
    struct login *login = connection->login;
    struct session *session = session_create(shard, connection, &login->identity);
    if (session == NULL) {
        ingress_fail(shard, connection, CODE_OVERLOADED, 1000, "no room for another session");
        return;
    }
    connection_set_state(connection, CONNECTION_SESSION);
    connection->session = session;
    home_join(shard, session, login);
}
