#!/usr/bin/python3
"""roost_load.py write|check: the real gateway in the crash lab (tests/crash/lab.c), with its catalog.

write: a gateway on the recorded disk, users who chat, set retentions and confirm what they got; whenever acks were read, a
       mark says how many. The first life ends by SIGTERM, the second by SIGKILL.
check: a gateway on what the power cut left: everything that the mark counts is there, once, under its number, users are
       who they were, every device is pushed all that it had not confirmed when the power went, no receipt says more than
       its user did, of a conversation's retentions the newest is in force, and sending goes on.
Takes CRASH_MOUNT, CRASH_CONTROL, CRASH_SCRATCH, CRASH_MARK, ROOST_BINARY from the environment.
Exit: 0 kept, 1 else, 3 something acknowledged is lost.
"""
import base64
import json
import os
import signal
import sys
import time
import uuid

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
from kill_client import Closed, Connection, tls_context, wait  # noqa: E402
from kill_gateway import Failure, Gateway, Operator, end_with_parent  # noqa: E402

USERS = 6
IN_FLIGHT = 4
SET_EVERY = 17
ACKS = int(os.environ.get("CRASH_ACKS", "600"))
ANSWER_S = 20


def text_of(retention):
    return f"set {retention.get('age_s')} {retention.get('bytes')}"


class Lost(Exception):
    pass


class User:
    def __init__(self, index, token):
        self.index, self.token, self.id, self.connection = index, token, None, None
        self.ready = self.synced = False
        self.have = {}       # conversation → numbers that are present: pushed, or own and acknowledged
        self.confirmed = {}  # conversation → the newest watermark
        self.receipts = []
        self.requests = 0
        self.asked = {}  # request id → what

    def present(self, conversation):
        """The last number up to which everything is present."""
        last, have = 0, self.have[conversation]
        while last + 1 in have:
            last += 1
        return last

    def ask(self, body, what):
        self.requests += 1
        self.asked[self.requests] = what
        self.connection.send([dict(body, id=self.requests)])


class World:
    def __init__(self):
        self.scratch = os.environ["CRASH_SCRATCH"] + "/roost"
        self.state_path = self.scratch + "/state.json"
        os.makedirs(self.scratch, exist_ok=True)
        self.gateway = Gateway(os.environ.get("ROOST_BINARY", "out/release/bin/roost"), self.scratch)
        self.gateway.data = os.environ["CRASH_MOUNT"] + "/data"
        self.context = tls_context()
        self.users = []
        self.sent = 0
        self.said = []       # [acks read before, index, conversation, delivered]: each watermark
        self.acks = []       # [conversation, seq, text, index of the sender], in the order of their reading
        self.histories = {}  # conversation → {seq: text}
        self.waiting = set()

    def start(self):
        options = {"store.directory": self.gateway.data, "store.segment_size": "2 MiB",
                   "store.batch_size": "256 KiB", "store.reserve_size": "1 MiB", "store.catalog_map_size": "64 MiB",
                   "shards.count": "2"}
        if os.environ.get("CRASH_SKIP") == "sync":
            options["bench.unsafe_skip_sync"] = "yes"
        self.gateway.spawn(options)
        self.gateway.wait_listening()
        for user in self.users:
            user.connection, user.ready, user.asked = Connection(self.context, self.gateway.port), False, {}
            user.ask({"hello": {"token": user.token, "device_key": "one"}}, ("hello",))
        self.pump_until(lambda: all(u.ready for u in self.users), "ready")

    def pump_until(self, done, what):
        end = time.monotonic() + ANSWER_S
        by_connection = {u.connection: u for u in self.users}
        while not done():
            if time.monotonic() > end:
                raise Failure(f"no {what} within {ANSWER_S} s")
            for connection in wait([u.connection for u in self.users], 0.1):
                for event in connection.receive():
                    self.on_event(by_connection[connection], event)
                if not connection.open:
                    raise Failure("a connection ended")

    def on_event(self, user, event):
        kind = next((k for k in event if k != "id"), None)
        body = event.get(kind, {})
        asked = user.asked.pop(event.get("id"), None)
        if kind == "ready":
            user.ready = True
            if user.id not in (None, body["user"]):
                raise Lost(f"user {user.index} was {user.id} and is {body['user']}")
            user.id = body["user"]
        elif kind == "ack":
            self.acks.append([body["conversation_id"], body["seq"], asked[1], user.index])
            user.have.setdefault(body["conversation_id"], set()).add(body["seq"])
        elif kind == "message":
            user.have.setdefault(body["conversation_id"], set()).add(body["seq"])
        elif kind == "synced":
            user.synced = True
        elif kind == "receipt":
            user.receipts.append(body)
        elif kind == "history":
            self.on_history(user, asked[1], body)
        elif kind == "error":
            if asked is not None and asked[0] == "range":
                raise Lost(f"history of {asked[1]}: {body}")
            raise Failure(f"{asked}: {body}")

    def send(self, user):
        self.sent += 1
        peer = self.users[user.index ^ 1 if self.sent % 2 else (user.index + 2) % USERS]
        text = f"{user.index}-{self.sent}-" + "x" * (self.sent * 7919 % 700)
        message_id = (int(time.time() * 1000) << 80) | (7 << 76) | (2 << 62) | self.sent
        body = {"message_id": str(uuid.UUID(int=message_id)), "to_user": peer.id}
        if self.sent % SET_EVERY == 0:  # no two are alike, and none removes anything meanwhile
            retention = {"age_s": 86400 + self.sent, "bytes": 1 << 20}
            user.ask({"set_retention": dict(body, retention=retention)}, ("send", text_of(retention)))
            return
        payload = {"content": base64.b64encode(text.encode()).decode()}
        user.ask({"send": dict(body, payload=payload)}, ("send", text))

    # ---- write

    def mark(self, control):
        os.pwrite(control, f"acked={len(self.acks)}".encode(), 0)

    def confirm(self, user):
        for conversation in user.have:
            last = user.present(conversation)
            if last <= user.confirmed.get(conversation, 0):
                continue
            user.confirmed[conversation] = last
            self.said.append([len(self.acks), user.index, conversation, last])
            body = {"conversation_id": conversation, "delivered_seq": last}
            user.ask({"watermark": dict(body, read_seq=last) if last % 3 == 0 else body}, ("watermark",))
            user.asked.pop(user.requests)  # nothing answers it

    def chat(self, control, until):
        while len(self.acks) < until:
            for user in self.users:
                if (len(self.acks) + user.index) % 4 == 0:
                    self.confirm(user)
                while len(user.asked) < IN_FLIGHT:
                    self.send(user)
            before = len(self.acks)
            self.pump_until(lambda: len(self.acks) > before, "ack")
            self.mark(control)

    def write(self):
        operator = Operator(self.scratch)
        self.users = [User(i, operator.token(f"user-{i}", "one")) for i in range(USERS)]
        control = os.open(os.environ["CRASH_CONTROL"], os.O_WRONLY)
        self.start()
        self.chat(control, ACKS // 2)
        self.gateway.terminate()
        self.gateway.wait_stopped()
        self.start()
        self.chat(control, ACKS)
        self.gateway.kill()
        os.close(control)
        with open(self.state_path, "w", encoding="ascii") as out:
            json.dump({"acks": self.acks, "said": self.said, "sent": self.sent, "users": [[u.token, u.id] for u in self.users]}, out)

    # ---- check

    def on_history(self, user, conversation, history):
        there = self.histories[conversation]
        for message in history.get("messages", ()):
            if message["seq"] != len(there) + 1:
                raise Failure(f"{conversation}: {message['seq']} follows {len(there)}")
            if "retention" in message:
                text = text_of(message["retention"])
            else:
                text = base64.b64decode(message["payload"]["content"]).decode()
            if text in there.values():
                raise Failure(f"{conversation}: {text} is there twice")
            there[message["seq"]] = text
        if "next_seq" in history:
            self.range(user, conversation)
        else:
            self.waiting.discard(conversation)
            newest = next((text for _, text in sorted(there.items(), reverse=True) if text.startswith("set ")), None)
            if newest != (text_of(history["retention"]) if "retention" in history else None):
                raise Lost(f"{conversation}: '{newest}' is not in force, but {history.get('retention')}")

    def range(self, user, conversation):
        user.ask({"range": {"conversation_id": conversation, "from_seq": len(self.histories[conversation]) + 1}},
                 ("range", conversation))

    def most(self, said, user, conversation):
        """The most that its device may be thought to have: its newest watermark, and what may be own messages behind it."""
        last = max((s[3] for s in said if s[1] == user.index and s[2] == conversation), default=0)
        there = self.histories[conversation]
        # what stands under a number that was not promised may be another message, sent after the cut
        senders = {ack[1]: ack[3] for ack in self.before if ack[0] == conversation and there.get(ack[1]) == ack[2]}
        while last + 1 in there and senders.get(last + 1, user.index) == user.index:
            last += 1
        return last

    def check_cursors(self, said):
        for conversation, history in self.histories.items():
            members = {str(int(conversation.replace("-", "")[i:i + 16], 16)) for i in (0, 16)}
            for user in self.users:
                if str(user.id) not in members:
                    continue
                pushed = user.have.get(conversation, set())
                missing = set(range(self.most(said, user, conversation) + 1, len(history) + 1)) - pushed
                if missing:
                    raise Lost(f"{conversation}: {sorted(missing)} were not pushed to user {user.index}")
        for user in self.users:
            for receipt in user.receipts:
                conversation = receipt["conversation_id"]
                whose = next(u for u in self.users if str(u.id) == str(receipt["user"]))
                told = max(receipt.get("delivered_seq", 0), receipt.get("read_seq", 0))
                if conversation in self.histories and told > self.most(said, whose, conversation):
                    raise Failure(f"{conversation}: a receipt says that user {whose.index} has {told}")

    def check(self):
        with open(self.state_path, encoding="ascii") as file:
            state = json.load(file)
        acked = int((os.environ["CRASH_MARK"] or "acked=0").split("=")[1])
        promised = state["acks"][:acked]
        self.before = state["acks"]
        self.sent = state["sent"]
        known = {ack[3] for ack in promised}
        self.users = [User(i, token) for i, (token, _) in enumerate(state["users"])]
        for user, (_, user_id) in zip(self.users, state["users"]):
            user.id = user_id if user.index in known else None
        self.start()
        for conversation, _, _, index in promised:
            if conversation not in self.histories:
                self.histories[conversation] = {}
                self.waiting.add(conversation)
                self.range(self.users[index], conversation)
        self.pump_until(lambda: not self.waiting, "history")
        for conversation, seq, text, _ in promised:
            if self.histories[conversation].get(seq) != text:
                raise Lost(f"{conversation}: {seq} was '{text[:20]}' and is "
                           f"'{self.histories[conversation].get(seq, 'missing')[:20]}'")
        self.pump_until(lambda: all(u.synced for u in self.users), "synced")
        self.check_cursors([said for said in state["said"] if said[0] <= acked])
        for user in self.users:
            self.send(user)
        self.pump_until(lambda: len(self.acks) == USERS, "ack of what is sent afterwards")
        self.gateway.kill()
        code, text = self.gateway.verify_log()
        if code != 0:
            raise Failure(f"roost log verify: exit {code}\n{text}")


def too_long(_number, _frame):
    raise Failure("it takes too long")


def main():
    end_with_parent()
    signal.signal(signal.SIGALRM, too_long)  # host.c sets it
    world = World()
    try:
        if sys.argv[1] == "write":
            world.write()
        else:
            world.check()
    except Lost as lost:
        print(f"lost: {lost}")
        return 3
    except (Failure, Closed) as failure:
        print(f"bad: {failure}\n{world.gateway.log_since(world.gateway.spawned_at)[-3000:]}")
        return 1
    finally:
        if world.gateway.process is not None:
            world.gateway.process.kill()
            world.gateway.process.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
