/* fleet.h: one thread's share of the simulated users, over core/io.h only.
 * Flow:       fleet_turn: poll → receive → timers → connect → chat → submit; main (or the
 *             simulator) says the phase and reads the progress
 * Owns:       its users, their connections, send buffers, oracle and histograms; one thread
 * Invariants: both members of every conversation live on the same fleet, so that every fact about
 *             it reaches one oracle in the order in which it happened here; one send in flight per
 *             connection; latency counts from the intended time of an open-loop schedule, which
 *             never waits for answers
 * Failure:    a broken connection is counted and repeated with back-off; what ends the run is
 *             main's to decide from the progress
 * Bounds:     connections, handshakes_max, USER_SENDS_MAX per user; send buffers only while bytes
 *             are in motion */
#ifndef LOADGEN_FLEET_H
#define LOADGEN_FLEET_H

#include "core/io.h"
#include "core/metrics.h"
#include "loadgen/oracle.h"
#include "loadgen/user.h"

#include <stdatomic.h>

#define FLEET_SOURCES_MAX 1024

struct fleet_options {
    struct user_options user;
    struct io_address target;
    const struct io_address *sources; /* taken in turn; port 0 */
    uint32_t source_count;            /* 0: the kernel's choice */
    uint32_t first_user;         /* this fleet's users are first_user … first_user + users - 1 */
    uint32_t users;              /* even */
    uint32_t devices;            /* connections per user, at least 1 */
    uint32_t contacts;           /* users that each user chats with, 1 … 15 */
    uint32_t handshakes_max;     /* connections between connect and ready */
    double connects_per_s;       /* 0: as fast as handshakes_max allows */
    double messages_per_s;       /* of this fleet */
    uint32_t message_bytes;      /* content of one message */
    uint32_t settings_every;     /* one send in so many sets the retention instead; 0: none */
    uint32_t reconnect_every_ms; /* while chatting: break connections so often; 0: never */
    uint32_t reconnect_percent;  /* … this share of them */
};

enum fleet_phase {
    FLEET_WAIT,    /* nothing */
    FLEET_CONNECT, /* connect everybody, and from here on keep everybody connected */
    FLEET_CHAT,
    FLEET_DRAIN, /* no new messages; what is on the way arrives */
    FLEET_STOP,  /* close everything */
};

/* fleet_progress: written by the fleet's thread, read by any (relaxed). */
struct fleet_progress {
    _Atomic uint64_t ready;       /* connections ready now */
    _Atomic uint64_t established; /* connections that were ready at least once */
    _Atomic uint64_t failed;      /* connections that ended before they were ready */
    _Atomic uint64_t dropped;     /* ready ones that ended without our doing */
    _Atomic uint64_t reconnects;  /* ready again */
    _Atomic uint64_t resumed_tls; /* handshakes that resumed */
    _Atomic uint64_t sent;        /* messages taken on */
    _Atomic uint64_t acked;
    _Atomic uint64_t delivered;
    _Atomic uint64_t refused; /* given up: the server's final answer was no */
    _Atomic uint64_t retried; /* refused for now, repeated */
    _Atomic uint64_t unsent;  /* the schedule's messages that found no room or no known recipient */
    _Atomic uint64_t errors;  /* error events about no message */
    _Atomic uint64_t settled; /* 1: nothing is on the way (while draining) */
    _Atomic uint64_t open;    /* connections that io holds */
    _Atomic uint64_t worst_ns; /* slowest delivery since the reader set it to 0 */
};

struct fleet_latency {
    struct histogram connect_ns; /* from connect to ready, first time */
    struct histogram ack_ns;     /* from the intended time */
    struct histogram deliver_ns; /* from the intended time to the first sight by each device */
};

struct fleet;

/* fleet_create: io is borrowed and polled by fleet_turn alone; options are copied. */
MUST_USE enum err fleet_create(struct fleet **fleet, struct io *io,
                               const struct fleet_options *options);
void fleet_destroy(struct fleet *fleet);

/* fleet_turn: one bounded turn. Sleeps until something happens, the fleet's next own time, or
 * sleep_until_ns (0: does not sleep). */
void fleet_turn(struct fleet *fleet, uint64_t sleep_until_ns);
/* fleet_next_ns: when the fleet wants its next turn at the latest. */
uint64_t fleet_next_ns(const struct fleet *fleet);

/* fleet_set_phase: any thread; forward only. Taken up in the next turn. */
void fleet_set_phase(struct fleet *fleet, enum fleet_phase phase);
struct fleet_progress *fleet_progress(struct fleet *fleet);
/* fleet_stopped: FLEET_STOP is done: io holds no connection of the fleet. */
bool fleet_stopped(const struct fleet *fleet);

/* Only from the fleet's thread, or when it has ended. */
const struct fleet_latency *fleet_latency(const struct fleet *fleet);
const struct oracle *fleet_oracle(const struct fleet *fleet);
const char *fleet_server(const struct fleet *fleet);
const char *fleet_tls_version(const struct fleet *fleet); /* of the newest ready connection */
/* fleet_failure: one line on the first failed connection, "" if none. Any thread, once failed or
 * dropped is not 0. */
const char *fleet_failure(const struct fleet *fleet);
size_t fleet_user_bytes(void); /* what one connection costs here beside TLS and unsent bytes */

#endif
