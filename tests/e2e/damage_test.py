#!/usr/bin/python3
"""damage_test.py: a record that is wrong on disk below the durable mark is reported and never served.

The kill test's negative control: SIGKILL alone leaves the page cache, so that here the disk's content
is changed on purpose. Once for a store that was stopped, once for one that was killed: fill several
segments, flip one byte in one record of the first segment and in one of the last, then:
- `roost log verify` exits non-zero and names file and place of both, and nothing else
- the start reports the damage in what it reads (the last segment; history is not read at start)
- history and resume: MISSING_RANGE for exactly these two numbers, everything else as it was sent
- a message goes through afterwards
- `roost log repair`, with the gateway stopped, puts both into quarantine with a description; after that verify is content, a
  second repair finds nothing, and the history is served as before with the same two numbers missing

usage: damage_test.py [BINARY]. Exit: 0 as it must be, 1 not.
"""
import base64
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import uuid

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from kill_client import Closed, Connection, tls_context, wait  # noqa: E402
from kill_gateway import Failure, Gateway, Operator, batches  # noqa: E402

BATCH_HEADER = 72
RECORD_HEADER = 88
MESSAGES = 4000
TIMEOUT_S = 20


def must(condition, text, *args):
    if not condition:
        raise Failure(text.format(*args))


class Client:
    def __init__(self, context, port, token, device, **hello):
        self.connection, self.requests, self.inbox = Connection(context, port), 0, []
        epoch = self.take("welcome")["welcome"]["store_epoch_id"]
        self.connection.send([self.request(hello=dict(hello, token=token, device_key=device,
                                                      store_epoch_id=epoch))])
        self.user = self.take("ready")["ready"]["user"]

    def request(self, **body):
        self.requests += 1
        return dict(body, id=self.requests)

    def take(self, *kinds):
        """The next event of one of these kinds; others before it are dropped."""
        end, dropped = time.monotonic() + TIMEOUT_S, None
        while True:
            while self.inbox:
                event = self.inbox.pop(0)
                if any(kind in event for kind in kinds):
                    return event
                dropped = event
            must(self.connection.open and time.monotonic() < end, "no {} but {}", " or ".join(kinds), dropped)
            if wait([self.connection], 0.5):
                self.inbox += self.connection.receive()


def new_id(number):
    value = (int(time.time() * 1000) << 80) | (7 << 76) | (2 << 62) | number
    return str(uuid.UUID(int=value))


def fill(sender, receiver):
    """Messages 1 … MESSAGES of one conversation: (conversation, {seq: content})."""
    contents, sent, conversation, open_requests = {}, 0, None, {}
    while len(contents) < MESSAGES:
        batch = []
        while sent < MESSAGES and len(open_requests) < 32:
            sent += 1
            content = base64.b64encode(f"{sent:06} ".encode() * 150).decode()
            request = sender.request(send={"message_id": new_id(sent), "to_user": receiver.user,
                                           "payload": {"content": content}})
            open_requests[request["id"]] = content
            batch.append(request)
        if batch:
            sender.connection.send(batch)
        event = sender.take("ack", "error")
        must("ack" in event, "not acknowledged: {}", event)
        conversation = event["ack"]["conversation_id"]
        contents[event["ack"]["seq"]] = open_requests.pop(event["id"])
    return conversation, contents


def records(path):
    """(offset, its batch's offset, kind, seq) of every record, and the offset of the last batch."""
    with open(path, "rb") as file:
        data = file.read()
    out, places = [], batches(path)
    for at in places:
        place = at + BATCH_HEADER
        for _ in range(struct.unpack_from("<I", data, at + 56)[0]):
            size, kind = struct.unpack_from("<IH", data, place + 4)
            out.append((place, at, kind, struct.unpack_from("<Q", data, place + 40)[0]))
            place += (size + 7) // 8 * 8
    return out, places[-1] if places else 0


def spoil(path):
    """Flip one byte in the body of a message in the middle, not in the last batch. (its batch's offset, seq)"""
    found, last = records(path)
    messages = [r for r in found if r[2] == 1 and r[0] < last]
    must(messages, "{} has no message below its last batch", path)
    offset, batch, _, seq = messages[len(messages) // 2]
    with open(path, "r+b") as file:
        file.seek(offset + RECORD_HEADER + 20)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    return batch, seq


def segments(gateway):
    directory = f"{gateway.data}/log"
    names = sorted(n for n in os.listdir(directory) if re.fullmatch(r"[0-9a-f]{8}\.segment", n))
    return [f"{directory}/{n}" for n in names if records(f"{directory}/{n}")[0]]


def check_verify(gateway, spoilt):
    code, text = gateway.verify_log()
    must(code != 0, "roost log verify found nothing:\n{}", text)
    for path, batch, _ in spoilt:
        where = f"segment {os.path.basename(path)[:8]} offset {batch}:"
        must(where in text, "roost log verify does not name {}:\n{}", where, text)
    must(text.count(" offset ") == len(spoilt), "roost log verify found more:\n{}", text)
    print("  " + "\n  ".join(text.strip().splitlines()))


def repair(gateway, directory):
    done = subprocess.run([gateway.binary, "log", "repair", f"{gateway.data}/log", "--quarantine", f"{directory}/quarantine"],
                          text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return done.returncode, done.stdout


def check_repair(gateway, directory, spoilt):
    """Refused while the gateway runs; then each damaged range is in quarantine, and nothing is left to do."""
    code, text = gateway.verify_log()
    must("roost log repair" in text, "verify does not name the repair: {}", text)
    code, text = repair(gateway, directory)
    must(code == 1 and "stop it first" in text, "repaired beside a running gateway: {}", text)
    gateway.terminate()
    gateway.wait_stopped()
    code, text = repair(gateway, directory)
    must(code == 0, "not repaired: {}", text)
    print("  " + "\n  ".join(text.strip().splitlines()))
    described = [json.load(open(f"{directory}/quarantine/{n}", encoding="ascii"))
                 for n in os.listdir(f"{directory}/quarantine") if n.endswith(".json")]
    places = sorted((d["segment"], d["from"], d["records_lost"]) for d in described)
    must(places == sorted((os.path.basename(path)[:8], batch, 1) for path, batch, _ in spoilt), "in quarantine: {}", places)
    known = {(g["from_seq"], g["to_seq"]) for d in described for g in d["gone"]}
    must(known == {(spoilt[0][2],) * 2}, "the index knows the sealed one: {}", known)
    must({c["from_seq"] for d in described for c in d["claimed"]} >= {seq for _, _, seq in spoilt}, "claims: {}", described)
    code, text = gateway.verify_log()
    must(code == 0, "damaged after the repair: {}", text)
    code, text = repair(gateway, directory)
    must(code == 0 and "nothing to repair" in text, "a second repair: {}", text)


def check_history(client, conversation, contents, missing):
    at, gone = 1, set()
    while at <= MESSAGES:
        client.connection.send([client.request(range={"conversation_id": conversation, "from_seq": at})])
        event = client.take("history", "error")
        while "id" not in event:  # the resume says so too, by itself
            event = client.take("history", "error")
        if "error" in event:
            error = event["error"]
            must(error["code"] == "MISSING_RANGE" and error["from_seq"] <= at <= error["to_seq"],
                 "history from {}: {}", at, error)
            gone.update(range(error["from_seq"], error["to_seq"] + 1))
            at = error["to_seq"] + 1
            continue
        for message in event["history"].get("messages", ()):
            must(message["seq"] == at, "history: {} where {} is next", message["seq"], at)
            must(message["payload"]["content"] == contents[at], "history: content of {} is wrong", at)
            at += 1
    must(gone == missing, "history: missing {}, not {}", sorted(gone), sorted(missing))


def check_resume(client, conversation, contents, missing):
    at, gone = 1, set()
    while True:
        event = client.take("message", "error", "synced")
        if "synced" in event:
            break
        if "error" in event:
            error = event["error"]
            must(error["code"] == "MISSING_RANGE" and error["from_seq"] == at and
                 error["conversation_id"] == conversation, "resume at {}: {}", at, error)
            gone.update(range(error["from_seq"], error["to_seq"] + 1))
            at = error["to_seq"] + 1
            continue
        message = event["message"]
        must(message["seq"] == at, "resume: {} where {} is next", message["seq"], at)
        must(message["payload"]["content"] == contents[at], "resume: content of {} is wrong", at)
        at += 1
    must(at == MESSAGES + 1 and gone == missing, "resume: up to {}, missing {}, not {}", at - 1, sorted(gone),
         sorted(missing))


def run(binary, directory, killed):
    operator, gateway, context = Operator(directory), Gateway(binary, directory), tls_context()
    alice, bob = operator.token("alice", "a"), operator.token("bob", "b")
    options = {"limits.cache_size": "1 MiB", "shards.count": "2",
               "store.merge_inputs": "0"}  # what is spoilt are segments; archives: test_log_repair
    try:
        gateway.spawn(options)
        gateway.wait_listening()
        receiver = Client(context, gateway.port, bob, "b")
        sender = Client(context, gateway.port, alice, "a")
        conversation, contents = fill(sender, receiver)
        if killed:
            gateway.kill()
        else:
            gateway.terminate()
            gateway.wait_stopped()
        files = segments(gateway)
        must(len(files) >= 3, "only {} segments were written", len(files))
        code, text = gateway.verify_log()
        must(code == 0, "damage before anything was spoilt: {}", text)
        spoilt = [(path, *spoil(path)) for path in (files[0], files[-1])]
        missing = {seq for _, _, seq in spoilt}
        check_verify(gateway, spoilt)
        before = gateway.log_size()
        gateway.spawn(options)
        gateway.wait_listening()
        said = gateway.log_since(before)
        # the newest segment is always read; the oldest only where no checkpoint came behind it before a kill
        reported = {int(number) for number in re.findall(r"event=log_damage .*?segment=(\d+)", said)}
        number = {path: int(os.path.basename(path).split(".")[0], 16) for path in (files[0], files[-1])}
        must(number[files[-1]] in reported and reported <= set(number.values()), "the start reports damage in {}: {}", reported, said)
        must(f"damaged={len(reported)}" in said, "the start counts other than {} damaged: {}", len(reported), said)
        reader = Client(context, gateway.port, alice, "a")
        check_history(reader, conversation, contents, missing)
        whole = Client(context, gateway.port, bob, "b", cursors=[{"conversation_id": conversation, "seq": 0}])
        check_resume(whole, conversation, contents, missing)
        reader.connection.send([reader.request(send={"message_id": new_id(0), "to_user": whole.user,
                                                     "payload": {"content": "YWZ0ZXI="}})])
        must(reader.take("ack", "error").get("ack", {}).get("seq") == MESSAGES + 1, "no message afterwards")
        must(whole.take("message")["message"]["seq"] == MESSAGES + 1, "no delivery afterwards")
        contents[MESSAGES + 1] = "YWZ0ZXI="
        check_verify(gateway, spoilt)  # still there: damage is never cut, never mended by itself
        check_repair(gateway, directory, spoilt)
        gateway.spawn(options)
        gateway.wait_listening()
        reader = Client(context, gateway.port, alice, "a")
        check_history(reader, conversation, contents, missing)
        reader.connection.send([reader.request(send={"message_id": new_id(1), "to_user": whole.user,
                                                     "payload": {"content": "cmVwYWlyZWQ="}})])
        must(reader.take("ack", "error").get("ack", {}).get("seq") == MESSAGES + 2, "no message after the repair")
        gateway.terminate()
        gateway.wait_stopped()
        code, text = gateway.verify_log()
        must(code == 0, "damaged after the repair: {}", text)
    finally:
        if gateway.alive():
            gateway.process.kill()
            gateway.process.wait()


def main():
    binary = sys.argv[1] if len(sys.argv) > 1 else "out/release/bin/roost"
    for killed in (False, True):
        directory = tempfile.mkdtemp(prefix="roost-damage-")
        print("killed" if killed else "stopped")
        try:
            run(binary, directory, killed)
        except (Failure, Closed) as failure:
            print(f"FAILED: {failure}\nkept: {directory}")
            return 1
        shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
