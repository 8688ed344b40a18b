/* login.h: from hello to session: who is it (a catalog job), then to the user's shard (migrate.c),
 * then the user's state.
 * Flow:       requests.c (hello) → login_begin → worker → login_done → migrate_start or
 *             login_finish → session_start
 * Owns:       struct login: with the connection, but with the job while one is under way; freed by
 *             whoever comes last
 * Failure:    goodbye UNAUTHENTICATED, TOKEN_EXPIRED, OVERLOADED … and close
 * Bounds:     hello.cursors ≤ LOGIN_CURSORS_MAX, token ≤ JWT_BYTES_MAX */
#ifndef GATEWAY_FLOW_LOGIN_H
#define GATEWAY_FLOW_LOGIN_H

#include "gateway/chat/account.h"
#include "gateway/flow/connection.h"
#include "gateway/flow/migrate.h"

#define LOGIN_CURSORS_MAX 1024

struct login {
    struct catalog_job catalog_job;
    struct gateway *gateway;
    struct jwks *jwks;   /* a reference while the job runs */
    uint64_t connection; /* handle; 0: it is gone */
    uint64_t now_ms;
    bool running; /* the job owns this struct */
    bool write;   /* second round: something must be made */
    bool renew;   /* in-band token renewal, not a login */
    uint8_t random_user[8];
    uint64_t request_id;
    struct jwt_claims claims;
    struct identity identity;
    char device_key[JWT_NAME_BYTES_MAX + 1];
    /* of hello */
    bool has_credit;
    bool resume;
    struct credit credit;
    uint32_t heartbeat_ms;
    uint32_t move_tries;
    struct cursor *cursors;
    size_t cursor_count;
    struct io_conn moved; /* on the target: until connection_open */
    size_t token_bytes;
    uint8_t token[];
};

MUST_USE enum err login_create(struct login **login, struct bytes token);
/* login_begin: ERR_AGAIN: under way (the connection is AUTHENTICATING); ERR_FULL: no worker free,
 * come back. Else closed. */
MUST_USE enum err login_begin(struct shard *shard, struct connection *connection,
                              uint64_t request_id, const struct hello *hello);
/* login_renew: a Renew request; OK: under way, answered later. */
MUST_USE enum err login_renew(struct shard *shard, struct connection *connection,
                              uint64_t request_id, struct bytes token);
/* login_finish: on the user's shard: load the user, then start the session. */
void login_finish(struct shard *shard, struct connection *connection);
/* login_abandon: the connection closes. */
void login_abandon(struct shard *shard, struct connection *connection);
void login_free(struct login *login);

#endif
