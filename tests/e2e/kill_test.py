#!/usr/bin/python3
"""kill_test.py: SIGKILL under load and restart, round after round, with a ledger of every promise.

usage: kill_test.py [--rounds N] [--seed S] [--binary FILE] [--users N] [--keep DIR]
       kill_test.py --self-test: wipe the newest batches of the log after a kill, which is what a disk
                    does that lied about a sync; passes only if the ledger finds it out

A round: start the gateway on the same directory (perhaps killed during start-up, once or twice;
perhaps with another number of shards, perhaps with small caches), all devices reconnect and resume
and repeat what was not acknowledged (perhaps killed in the middle of that), every conversation is
read back and compared with the ledger, then all send as fast as they are acknowledged until SIGKILL
(sometimes SIGTERM, sometimes SIGTERM and then SIGKILL) at a random instant.

What is checked, each as soon as it can be seen:
- an acknowledged (message id, conversation, seq, time) never changes: not in a repeated ack, not in
  a push, not in a history; it is there after every restart, once
- conversations are 1 … n without gaps, times never go back, contents are what was sent, a message id
  has one sequence number, sends of one device keep their order across crashes
- after a resume everything behind the device's highest watermark is pushed before synced; at rest
  every device has everything; receipts never say more than a device said
- users, devices and the store epoch stay what they were

The choices follow from the seed (printed with every round), the instants do not: a failing round is
repeated with --seed, but may need several attempts. Exit: 0 all kept, 1 a promise was broken (the
directory is kept and named), 2 usage.
"""
import argparse
import base64
import os
import random
import shutil
import sys
import tempfile
import time
import uuid
import zlib

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from kill_client import Closed, Connection, tls_context, wait  # noqa: E402
from kill_gateway import Failure, Gateway, Operator, batches  # noqa: E402

SETTLE_S = 30     # for a resume, the repeated sends and the deliveries to finish
FULL_EVERY = 20   # rounds between two comparisons of everything from sequence number 1


def uuid7(rng, counter):
    """counter: ascending per device (RFC 9562 6.2), as most clients make them; None: only by the ms."""
    low = rng.getrandbits(12) if counter is None else counter % 4096
    value = (int(time.time() * 1000) << 80) | (7 << 76) | (low << 64)
    return str(uuid.UUID(int=value | (2 << 62) | rng.getrandbits(62)))


def hash_of(text):
    return zlib.crc32(text.encode())


def must(condition, text, *args):
    if not condition:
        raise Failure(text.format(*args))


class Send:
    __slots__ = ("id", "device", "peer", "number", "content", "conversation", "seq", "time", "acked",
                 "refused")

    def __init__(self, device, peer, number, message_id, content):
        self.id, self.device, self.peer, self.number, self.content = (message_id, device, peer, number,
                                                                      content)
        self.conversation = self.seq = self.time = None
        self.acked = self.refused = False

    def __str__(self):
        return f"{self.device.user.name}/{self.device.key}#{self.number}{'' if self.acked else ' not acked'}"

    def request(self, number, content=None):
        send = {"message_id": self.id, "payload": {"content": content or self.content}}
        known = self.device.user.conversations.get(self.peer)
        if known is not None and self.number % 2:
            send["conversation_id"] = known.id
        else:
            send["to_user"] = self.peer.id
        return {"id": number, "send": send}


class Conversation:
    def __init__(self, conversation_id, users):
        self.id, self.users = conversation_id, users
        self.by_seq = {}    # seq → Send, from acks, pushes and histories
        self.acked = 0      # highest acknowledged
        self.verified = 0   # read back and compared up to here
        self.time = 0       # of the last verified
        self.claims = []    # receipts to be looked at when everything is known
        self.order = {}     # device → number of its last verified send


class User:
    def __init__(self, name):
        self.name, self.id = name, None
        self.peers, self.devices, self.conversations = [], [], {}


class Device:
    """What the device keeps over connections, and its present connection."""

    def __init__(self, user, key, token):
        self.user, self.key, self.token, self.number = user, key, token, None
        self.counts = hash_of(user.name + key) % 4 != 0  # its message ids ascend
        self.outbox = {}      # message id → Send, not acknowledged, in the order of sending
        self.have = {}        # conversation → everything up to here is present
        self.ahead = {}       # conversation → numbers above a gap
        self.confirmed = {}   # conversation → highest watermark ever sent
        self.sent = 0
        self.connection = None

    def begin(self, connection):
        self.connection, self.requests = connection, 0
        self.ready = self.synced = self.greeted = False
        self.base = {}      # conversation → the resume begins behind this
        self.expected = {}  # conversation → the resume reaches this, at least
        self.pushed = {}    # conversation → numbers pushed or acknowledged on this connection
        self.last_push = {}
        self.answers = {}   # request id → what to do with its answer
        self.in_flight = {} # peer → sends in order, not answered
        self.confirming = True
        self.confirmed_now = {}  # conversation → watermark sent on this connection
        self.unconfirmed = 0

    def ask(self, body, on_answer=None):
        self.requests += 1
        if on_answer is not None:
            self.answers[self.requests] = on_answer
        return dict(body, id=self.requests)

    def present(self, conversation, seq):
        """Count a number as present; True if it is new."""
        have = self.have.get(conversation, 0)
        if seq <= have:
            return False
        ahead = self.ahead.setdefault(conversation, set())
        if seq in ahead:
            return False
        ahead.add(seq)
        while have + 1 in ahead:
            have += 1
            ahead.remove(have)
        self.have[conversation] = have
        return True


class World:
    def __init__(self, arguments, directory):
        self.rng = random.Random(arguments.seed)
        lanes = 1 if arguments.self_test else 1 + arguments.seed % 3
        self.gateway = Gateway(arguments.binary, directory, lanes)
        self.context = tls_context()
        self.epoch = None
        self.sends = {}
        self.conversations = {}
        self.counts = {"acked": 0, "duplicates": 0, "pushed": 0, "kills": 0, "start_kills": 0, "stops": 0,
                       "conflicts": 0, "resume_kills": 0, "other_shards": 0}
        self.first_ack = self.shards = None
        operator = Operator(directory)
        self.users = [User(f"user-{i}") for i in range(arguments.users)]
        self.devices = []
        for i, user in enumerate(self.users):
            for step in (1, 2):
                peer = self.users[i ^ 1 if step == 1 else (i + 2) % len(self.users)]
                user.peers.append(peer)
                if step == 2:
                    peer.peers.append(user)
            for d in range(2 if i % 4 == 0 else 1):
                key = f"device-{d}"
                user.devices.append(Device(user, key, operator.token(user.name, key)))
            self.devices += user.devices

    # ---- events

    def connected(self):
        return [d.connection for d in self.devices if d.connection is not None and d.connection.open]

    def pump(self, timeout_s):
        """Act on what has come. Closed if any connection has ended."""
        connections = self.connected()
        by_connection = {d.connection: d for d in self.devices if d.connection is not None}
        for connection in wait(connections, timeout_s):
            device = by_connection[connection]
            requests = []
            for event in connection.receive():
                self.on_event(device, event, requests)
            if requests and connection.open:
                for i in range(0, len(requests), 32):
                    connection.send(requests[i:i + 32])
        if len(self.connected()) != len(self.devices):
            raise Closed("connection lost")

    def on_event(self, device, event, requests):
        kind = next((k for k in event if k != "id"), None)
        body = event.get(kind, {})
        answer = device.answers.pop(event.get("id"), None)
        if kind == "message":
            self.on_push(device, body, requests)
        elif kind in ("ack", "history"):
            must(answer is not None, "{} for a request that was not made: {}", kind, event)
            answer(body, None, requests)
        elif kind == "error":
            if answer is not None:
                answer(None, body, requests)
            else:
                raise Failure(f"error that answers nothing: {body}")
        elif kind == "welcome":
            self.same(self, "epoch", body["store_epoch_id"], "store epoch")
            device.greeted = True
        elif kind == "ready":
            self.same(device.user, "id", body["user"], f"id of {device.user.name}")
            self.same(device, "number", body["device"], f"device number of {device.key}")
            device.ready = True
        elif kind == "synced":
            self.on_synced(device)
        elif kind == "receipt":
            self.on_receipt(device, body)
        elif kind == "goodbye":
            must(body.get("code") == "SHUTTING_DOWN", "goodbye: {}", body)
        else:
            must(kind in ("lagging", "pong", "token_expiring"), "unexpected {}", event)

    @staticmethod
    def same(owner, name, value, what):
        known = getattr(owner, name)
        must(known in (None, value), "{} was {} and is {}", what, known, value)
        setattr(owner, name, value)

    def learn(self, conversation, seq, send, where):
        """The one place where a number and a message meet; they stay together for ever."""
        known = conversation.by_seq.get(seq)
        must(known in (None, send), "{}: {} of {} was {} and is {}", where, seq, conversation.id,
             known and known.id, send.id)
        must(send.seq in (None, seq), "{}: {} had number {} and has {}", where, send.id, send.seq, seq)
        must(send.conversation in (None, conversation), "{}: {} changed its conversation", where, send.id)
        conversation.by_seq[seq], send.seq, send.conversation = send, seq, conversation

    def on_push(self, device, message, requests):
        send, conversation = self.check_message(message, "push")
        seq = message["seq"]
        self.counts["pushed"] += 1
        must(seq > device.last_push.get(conversation, 0), "{} of {}: push {} after {}", device.key,
             device.user.name, seq, device.last_push.get(conversation))
        device.last_push[conversation] = seq
        device.pushed.setdefault(conversation, set()).add(seq)
        device.present(conversation, seq)
        device.unconfirmed += 1
        if device.confirming and device.unconfirmed >= 20:
            device.unconfirmed = 0
            self.confirm(device, conversation, requests)

    def confirm(self, device, conversation, requests):
        have = device.have.get(conversation, 0)
        if have > device.confirmed.get(conversation, 0):
            device.confirmed[conversation] = device.confirmed_now[conversation] = have
            body = {"conversation_id": conversation.id, "delivered_seq": have}
            if have % 3 == 0:
                body["read_seq"] = have
            requests.append(device.ask({"watermark": body}))

    def check_message(self, message, where):
        send = self.sends.get(message.get("message_id"))
        must(send is not None, "{}: a message nobody sent: {}", where, message)
        must(message["payload"].get("content") == send.content, "{}: content of {} changed", where, send.id)
        must(message["sender"] == send.device.user.id and message["sender_device"] == send.device.number,
             "{}: sender of {} changed: {}", where, send.id, message)
        conversation = self.conversation(message["conversation_id"], send.device.user, send.peer)
        self.learn(conversation, message["seq"], send, where)
        must(send.time in (None, message["time_ms"]), "{}: time of {} was {} and is {}", where, send.id,
             send.time, message["time_ms"])
        send.time = message["time_ms"]
        return send, conversation

    def conversation(self, conversation_id, one, other):
        known = one.conversations.get(other)
        if known is None:
            must(conversation_id not in self.conversations, "conversation {} has two pairs", conversation_id)
            known = self.conversations[conversation_id] = Conversation(conversation_id, (one, other))
            one.conversations[other] = other.conversations[one] = known
        must(known.id == conversation_id, "a pair has two conversations: {} {}", known.id, conversation_id)
        return known

    def on_synced(self, device):
        if device.synced:
            return
        must(device.ready, "synced before ready")
        device.synced = True
        for conversation, last in device.expected.items():
            base = device.base.get(conversation, device.confirmed_before.get(conversation, 0))
            # what it confirmed meanwhile need not be pushed any more
            base = max(base, device.confirmed_now.get(conversation, 0))
            # its own sends directly behind the watermark count as known: it repeats them until acknowledged
            while base + 1 in conversation.by_seq and conversation.by_seq[base + 1].device is device:
                base += 1
            got = device.pushed.get(conversation, ())
            missing = [s for s in range(base + 1, last + 1) if s not in got]
            must(not missing, "{} of {}: synced, but {} of {} were not pushed (confirmed {}, acknowledged {})",
                 device.key, device.user.name, [(s, str(conversation.by_seq.get(s))) for s in missing[:10]],
                 conversation.id, base, last)

    def on_receipt(self, device, receipt):
        conversation = self.conversations.get(receipt["conversation_id"])
        if conversation is None:
            return
        user = next((u for u in conversation.users if u.id == receipt["user"]), None)
        must(user is not None, "receipt of a stranger: {}", receipt)
        most = max(max(d.confirmed.get(conversation, 0), d.have.get(conversation, 0)) for d in user.devices)
        said = max(receipt.get("delivered_seq", 0), receipt.get("read_seq", 0))
        if said > most:  # right if what is between are sends of its own, acknowledged or not
            conversation.claims.append((user, most, said))

    @staticmethod
    def check_claims(conversation):
        for user, most, said in conversation.claims:
            while most < said and conversation.by_seq[most + 1].device.user is user:
                most += 1
            must(said <= most, "{}: a receipt says that {} has {}, more than {}", conversation.id, user.name,
                 said, most)
        conversation.claims = []

    # ---- sending

    def new_send(self, device):
        rng = self.rng
        device.sent += 1
        message_id = uuid7(rng, device.sent if device.counts else None)
        size = rng.choice((0, 20, 100, 100, 300)) if rng.random() < 0.97 else rng.randrange(9000)
        content = base64.b64encode(message_id.encode() + rng.randbytes(size)).decode()
        send = Send(device, rng.choice(device.user.peers), device.sent, message_id, content)
        self.sends[message_id] = send
        device.outbox[message_id] = send
        return send

    def transmit(self, device, send):
        device.in_flight.setdefault(send.peer, []).append(send)
        return device.ask(send.request(0), lambda a, e, r: self.on_ack(device, send, a, e, r))

    def on_ack(self, device, send, ack, error, requests):
        line = device.in_flight[send.peer]
        must(line[0] is send or (ack or {}).get("duplicate"), "{} is acknowledged before {}, which was sent before",
             send.id, line[0].id)
        line.remove(send)
        if error is not None:
            must(error.get("verdict") == "RETRY", "send refused: {}", error)
            send.refused = True  # its order among the others is lost with this
            requests.append(self.transmit(device, send))
            return
        must(ack.get("message_id") == send.id, "ack of another message: {}", ack)
        must(ack.get("durability") == "DISK", "ack without durability: {}", ack)
        conversation = self.conversation(ack["conversation_id"], device.user, send.peer)
        self.learn(conversation, ack["seq"], send, "ack")
        must(send.time in (None, ack["time_ms"]), "ack: time of {} was {} and is {}", send.id, send.time,
             ack["time_ms"])
        send.time = ack["time_ms"]
        must(not send.acked or ack.get("duplicate"), "{} was acknowledged before and is called new", send.id)
        if ack.get("duplicate"):
            self.counts["duplicates"] += 1
        if not send.acked:
            self.counts["acked"] += 1
        send.acked = True
        conversation.acked = max(conversation.acked, ack["seq"])
        device.outbox.pop(send.id, None)
        device.present(conversation, ack["seq"])
        device.pushed.setdefault(conversation, set()).add(ack["seq"])
        if self.first_ack is None:
            self.first_ack = time.monotonic()
        if device.confirming and hash_of(send.id) % 8 == 0:  # an ack may be faster than fan-out
            self.confirm(device, conversation, requests)
        if self.loading:
            requests.append(self.transmit(device, self.new_send(device)))
            if self.rng.random() < 0.02:  # a client that did not see the ack
                requests.append(self.transmit(device, send))

    # ---- phases of a round

    def start(self, rng, shards):
        self.counts["other_shards"] += self.shards not in (None, shards)
        self.shards = shards
        options = {"shards.count": str(shards), "store.direct": rng.choice(("yes", "no"))}
        if rng.random() < 0.3:
            options.update({"limits.cache_size": "1 MiB", "limits.state_size": "1 MiB"})
        if rng.random() < 0.3:
            options.update({"store.batch_size": "256 KiB", "limits.output_size": "16 KiB"})
        for _ in range(rng.choice((0, 0, 0, 1, 2))):
            self.gateway.spawn(options)
            time.sleep(rng.uniform(0, 0.12))
            self.gateway.kill()
            self.counts["start_kills"] += 1
        self.gateway.spawn(options)
        self.start_s = self.gateway.wait_listening()
        self.counts["start_s"] = max(self.counts.get("start_s", 0), self.start_s)

    def connect(self, rng):
        order = self.devices[:]
        rng.shuffle(order)
        self.loading = False
        for device in order:
            device.begin(Connection(self.context, self.gateway.port))
        for device in order:
            device.confirming = rng.random() < 0.6
            hello = {"token": device.token, "device_key": device.key}
            device.confirmed_before = dict(device.confirmed)
            device.expected = {c: c.acked for c in device.user.conversations.values()}
            if rng.random() < 0.3 and self.epoch is not None:
                hello["store_epoch_id"] = self.epoch
                hello["cursors"] = self.cursors(device, rng)
            requests = [device.ask({"hello": hello})]
            if rng.random() < 0.5:
                requests += self.repeat(device)
            device.connection.send(requests)

    @staticmethod
    def cursors(device, rng):
        cursors = []
        for conversation, have in device.have.items():
            if rng.random() < 0.5:
                # what is present, or a little less than is present: the device lost something
                seq = have if rng.random() < 0.7 else max(0, have - rng.randrange(50))
                device.base[conversation] = seq
                device.confirmed[conversation] = max(seq, device.confirmed.get(conversation, 0))
                cursors.append({"conversation_id": conversation.id, "seq": seq})
        return cursors

    def repeat(self, device):
        device.repeated = self.connections_begun
        return [self.transmit(device, send) for send in list(device.outbox.values())]

    def settle(self, done, what):
        end = time.monotonic() + SETTLE_S
        while not done():
            must(time.monotonic() < end, "{} within {} s: {}", what, SETTLE_S, self.unsettled())
            self.pump(0.1)

    def unsettled(self):
        return [f"{d.user.name}/{d.key} ready={d.ready} synced={d.synced} outbox={len(d.outbox)} "
                f"answers={len(d.answers)}" for d in self.devices
                if not d.synced or d.outbox or d.answers][:5] or "deliveries missing: " + str(self.lacking()[:5])

    def lacking(self):
        return [self.lack(d, c) for c in self.conversations.values() for u in c.users for d in u.devices
                if d.have.get(c, 0) < c.verified]

    @staticmethod
    def lack(device, conversation):
        have = device.have.get(conversation, 0)
        return (f"{device.user.name}/{device.key} has {have} of {conversation.verified} in {conversation.id}; "
                f"next is {conversation.by_seq.get(have + 1)}, last push {device.last_push.get(conversation)}, "
                f"confirmed {device.confirmed.get(conversation)} (on this connection "
                f"{device.confirmed_now.get(conversation)}), cursor {device.base.get(conversation)}, "
                f"ahead {sorted(device.ahead.get(conversation, ()))[:5]}")

    def resume(self, rng):
        self.connections_begun = getattr(self, "connections_begun", 0) + 1
        self.connect(rng)
        self.settle(lambda: all(d.synced for d in self.devices), "not synced")
        for device in self.devices:
            if getattr(device, "repeated", 0) != self.connections_begun:
                requests = self.repeat(device)
                for i in range(0, len(requests), 32):
                    device.connection.send(requests[i:i + 32])
        self.settle(lambda: not any(d.outbox for d in self.devices), "not acknowledged")

    def verify(self, full):
        """Read every conversation and compare; then wait until every device has everything."""
        waiting = set()
        for conversation in list(self.conversations.values()):
            if full:
                conversation.verified, conversation.time, conversation.order = 0, 0, {}
            waiting.add(conversation)
            self.ask_history(conversation, waiting)
        self.settle(lambda: not waiting, "histories not complete")
        self.settle(lambda: not self.lacking(), "not delivered")

    def ask_history(self, conversation, waiting):
        device = self.rng.choice(self.rng.choice(conversation.users).devices)
        body = {"conversation_id": conversation.id, "from_seq": conversation.verified + 1}
        device.connection.send([device.ask(
            {"range": body}, lambda h, e, r: self.on_history(conversation, waiting, h, e))])

    def on_history(self, conversation, waiting, history, error):
        must(error is None, "history of {} from {}: {}", conversation.id, conversation.verified + 1, error)
        for message in history.get("messages", ()):
            must(message["seq"] == conversation.verified + 1, "history of {}: {} follows {} (acknowledged {})",
                 conversation.id, message["seq"], conversation.verified, conversation.acked)
            send, owner = self.check_message(message, "history")
            must(owner is conversation, "history of {} has a message of {}", conversation.id, owner.id)
            must(send.time >= conversation.time, "history of {}: time goes back at {}", conversation.id, send.seq)
            if not send.refused:
                must(send.number > conversation.order.get(send.device, 0),
                     "history of {}: {} of one device's sends overtook another", conversation.id, send.id)
                conversation.order[send.device] = send.number
            conversation.verified, conversation.time = send.seq, send.time
        if "next_seq" in history:
            must(history["next_seq"] == conversation.verified + 1, "next_seq {} after {}", history["next_seq"],
                 conversation.verified)
            self.ask_history(conversation, waiting)
            return
        must(history.get("last_seq", 0) == conversation.verified, "history of {} ends at {}, not at {}",
             conversation.id, conversation.verified, history.get("last_seq"))
        must(conversation.verified >= conversation.acked, "{}: {} was acknowledged, {} is the last",
             conversation.id, conversation.acked, conversation.verified)
        self.check_claims(conversation)
        waiting.discard(conversation)

    def conflict(self):
        """An id that was acknowledged, with another content, is refused and changes nothing."""
        device = self.rng.choice(self.devices)
        old = [s for s in device.user.conversations.values() for s in list(s.by_seq.values())[-200:]
               if s.device is device and s.acked]
        if not old:
            return
        send, outcome = self.rng.choice(old), []
        device.connection.send([device.ask(send.request(0, base64.b64encode(b"other").decode()),
                                           lambda a, e, r: outcome.append((a, e)))])
        self.settle(lambda: outcome, "conflict not answered")
        must(outcome[0][1] is not None and outcome[0][1].get("code") == "CONFLICT",
             "{} with another content: {}", send.id, outcome[0])
        self.counts["conflicts"] += 1

    def load(self, rng, duration_s, window):
        """Everybody sends; returns duration_s after the first ack."""
        self.first_ack, self.loading = None, True
        for device in self.devices:
            for _ in range(0, window, 8):
                device.connection.send([self.transmit(device, self.new_send(device)) for _ in range(8)])
        begin = time.monotonic()
        while self.first_ack is None or time.monotonic() < self.first_ack + duration_s:
            must(self.first_ack is not None or time.monotonic() < begin + SETTLE_S, "no ack within {} s",
                 SETTLE_S)
            self.pump(0.001 if self.first_ack is None else
                      min(0.01, self.first_ack + duration_s - time.monotonic()))

    def disconnect(self):
        """What the gateway managed to say is still heard: an ack that was read is a promise."""
        self.loading = False
        for device in self.devices:
            if device.connection is not None:
                for event in device.connection.receive():
                    self.on_event(device, event, [])
                device.connection.close()
                device.connection = None

    def stop(self, rng):
        """However the round ends, the process is gone afterwards."""
        way = rng.random()
        if way < 0.8:
            self.gateway.kill()
            self.counts["kills"] += 1
        else:
            self.gateway.terminate()
            if way < 0.9:
                time.sleep(rng.uniform(0, 0.4))
                if self.gateway.alive():
                    self.gateway.kill()
                    self.counts["kills"] += 1
                self.gateway.process = None
            else:
                try:
                    end = time.monotonic() + 2
                    while time.monotonic() < end:
                        self.pump(0.05)
                except Closed:
                    pass
                self.gateway.wait_stopped()
                self.counts["stops"] += 1
        self.disconnect()

    def resume_killed(self, rng):
        """Killed at some instant of everybody's resume."""
        self.connections_begun = getattr(self, "connections_begun", 0) + 1
        self.connect(rng)
        end = time.monotonic() + rng.uniform(0, 0.15)
        while time.monotonic() < end:
            self.pump(end - time.monotonic())
        self.gateway.kill()
        self.counts["resume_kills"] += 1
        self.disconnect()

    def round(self, index, seed):
        rng = self.rng = random.Random(seed)
        shards = rng.choice((1, 2, 3))
        self.start(rng, shards)
        if rng.random() < 0.25:
            self.resume_killed(rng)
            self.start(rng, rng.choice((1, 2, 3)))
        self.resume(rng)
        self.verify(index % FULL_EVERY == 0)
        if index > 0:
            self.conflict()
        self.load(rng, rng.uniform(0.005, 0.4), rng.choice((8, 16, 32)))
        self.stop(rng)
        if rng.random() < 0.2:
            code, text = self.gateway.verify_log()
            must(code == 0, "roost log verify after a kill: exit {}\n{}", code, text)

    def self_test(self, seed):
        """One round, then acknowledged messages are taken from the disk. The next round must fail."""
        rng = self.rng = random.Random(seed)
        self.start(rng, 2)
        self.resume(rng)
        self.load(rng, 0.3, 16)
        self.gateway.kill()
        self.disconnect()
        wiped = wipe_newest(f"{self.gateway.data}/log", 20)
        try:
            self.start(rng, 1)
            self.resume(rng)
            self.verify(True)
        except Failure as failure:
            print(f"self-test: {wiped} batches wiped, found out: {failure}")
            return
        raise Failure(f"self-test: {wiped} batches were wiped, and nothing was noticed")

    def finish(self):
        self.rng = random.Random(0)
        self.gateway.spawn({"shards.count": "3"})
        self.gateway.wait_listening()
        self.resume(self.rng)
        self.verify(True)
        self.disconnect()
        self.gateway.terminate()
        self.gateway.wait_stopped()
        code, text = self.gateway.verify_log()
        must(code == 0, "roost log verify: exit {}\n{}", code, text)


def wipe_newest(directory, count):
    """Zero the newest batches of a log; how many. The rest of the log is sound afterwards."""
    name = max(n for n in os.listdir(directory) if n.endswith(".segment") and batches(f"{directory}/{n}"))
    places = batches(f"{directory}/{name}")[-count:]
    with open(f"{directory}/{name}", "r+b") as file:
        file.seek(places[0])
        file.write(bytes(os.path.getsize(f"{directory}/{name}") - places[0]))
    return len(places)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--users", type=int, default=40)
    parser.add_argument("--binary", default="out/release/bin/roost")
    parser.add_argument("--self-test", action="store_true")
    parser.add_argument("--keep", help="use and keep this directory")
    arguments = parser.parse_args()
    directory = arguments.keep or tempfile.mkdtemp(prefix="roost-kill-")
    os.makedirs(directory, exist_ok=True)
    world = World(arguments, directory)
    begin = time.monotonic()
    index = 0
    try:
        if arguments.self_test:
            world.self_test(arguments.seed)
            shutil.rmtree(directory)
            return 0
        for index in range(arguments.rounds):
            world.round(index, arguments.seed + index)
            if index % 10 == 9:
                print(f"{index + 1} rounds, {time.monotonic() - begin:.0f} s, {world.counts}", flush=True)
        world.finish()
        must(arguments.rounds < 12 or world.counts["other_shards"] > 0, "every start had the same number of shards")
    except (Failure, Closed) as failure:
        print(f"FAILED in round {index} (--seed {arguments.seed} --rounds {index + 1}; "
              f"round's seed {arguments.seed + index}): {failure}\nkept: {directory}")
        return 1
    finally:
        if world.gateway.alive():
            world.gateway.process.kill()
            world.gateway.process.wait()
    print(f"{arguments.rounds} rounds, {time.monotonic() - begin:.0f} s, seed {arguments.seed}: "
          f"nothing lost, doubled or reordered; {len(world.conversations)} conversations, {world.counts}")
    if arguments.keep is None:
        shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
