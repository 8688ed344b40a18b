"""roost.py: what the Python checks share: a gateway of their own, REST calls, tokens, and a JSON client over python3-websockets.

A Gateway listens on free ports of 127.0.0.1 with its data under out/e2e/NAME (ROOST_SCRATCH/NAME); a restart keeps both. Only its own process is
ever signalled. Client speaks roost.v1.json: events wait in a list until somebody expects them, in whatever order.
"""
import asyncio
import atexit
import base64
import http.client
import json
import os
import re
import secrets
import shutil
import signal
import ssl
import subprocess
import sys
import time
import uuid

import websockets

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BINARY = os.environ.get("ROOST_BINARY", ROOT + "/out/release/bin/roost")
SCRATCH = os.environ.get("ROOST_SCRATCH", ROOT + "/out/e2e")
TLS = ssl.create_default_context()
TLS.check_hostname = False
TLS.verify_mode = ssl.CERT_NONE
checks = 0


def ok(what):
    global checks
    checks += 1
    print("ok   ", what, flush=True)


def same(what, expected, actual):
    if expected != actual:
        raise AssertionError(f"{what}: expected {expected!r}, got {actual!r}")


class Gateway:
    def __init__(self, name, settings=None, start=True, environment=None):
        """settings: {"section.key": value}; environment: more variables of its process"""
        self.directory = f"{SCRATCH}/{name}"
        self.settings = {"listen.address": "127.0.0.1:0", "listen.admin_address": "127.0.0.1:0",
                         "store.directory": self.directory + "/data", "store.segment_size": "8 MiB", "store.reserve_size": "0",
                         "shards.count": 2, "shards.pin": "no", "limits.max_connections": 2000, "auth.hash_memory": "8 KiB", "auth.hash_passes": 1}
        self.settings.update(settings or {})
        self.environment = {**os.environ, **(environment or {})}
        self.process = None
        atexit.register(self.end)  # also where a later one's start fails
        shutil.rmtree(self.directory, ignore_errors=True)
        os.makedirs(self.directory)
        if start:
            self.start()

    def start(self):
        path = self.directory + "/roost.ini"
        with open(path, "w") as f:
            for key, value in self.settings.items():
                section, name = key.split(".")
                f.write(f"[{section}]\n{name} = {value}\n")
        with open(self.directory + "/start", "w") as out, open(self.directory + "/log", "a") as log:
            self.process = subprocess.Popen([BINARY, "serve", "--config", path], env=self.environment, stdin=subprocess.DEVNULL, stdout=out,
                                            stderr=log)
        until = time.monotonic() + 20
        while time.monotonic() < until and self.process.poll() is None:
            text = open(self.directory + "/start").read()
            port = re.search(r"wss://localhost:(\d+)/connect", text)
            admin = re.search(r"https://127.0.0.1:(\d+)/readyz", text)
            if port and admin:
                self.port, self.admin_port = int(port[1]), int(admin[1])
                self.settings["listen.address"] = f"127.0.0.1:{self.port}"
                self.settings["listen.admin_address"] = f"127.0.0.1:{self.admin_port}"
                if self.admin("/readyz")[0] == 200:
                    return
            time.sleep(0.03)
        raise AssertionError("the gateway did not become ready: " + open(self.directory + "/log").read()[-2000:])

    def stop(self, number=signal.SIGTERM, timeout=15):
        self.process.send_signal(number)
        status = self.process.wait(timeout)
        self.process = None
        same("exit status after a signal", 0 if number == signal.SIGTERM else -number, status)

    def end(self):
        """However the check went: nothing of it is left running."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def request(self, method, path, body=None, token=None, admin=False):
        """(status, headers, parsed JSON or text)"""
        connection = http.client.HTTPSConnection("127.0.0.1", self.admin_port if admin else self.port, context=TLS, timeout=10)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if token is not None:
            headers["Authorization"] = "Bearer " + token
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        response = connection.getresponse()
        text = response.read().decode()
        connection.close()
        if response.headers.get("Content-Type", "").startswith("application/json"):
            text = json.loads(text)
        return response.status, response.headers, text

    def admin(self, path):
        try:
            status, _, text = self.request("GET", path, admin=True)
            return status, text
        except OSError:
            return 0, ""

    def metrics(self):
        return {m[1]: float(m[2]) for m in re.finditer(r"^([a-z_]+(?:\{[^}]*\})?) ([0-9.e+-]+)$", self.admin("/metrics")[1], re.M)}

    def memory(self):
        return sum(v for k, v in self.metrics().items() if k.startswith("roost_memory_bytes"))

    def user(self, name):
        status, _, body = self.request("POST", "/users", {"name": name, "password": "correct horse " + name})
        same("POST /users", 201, status)
        return body["user"]

    def login(self, name, device="default"):
        status, _, body = self.request("POST", "/auth/login",
                                       {"name": name, "password": "correct horse " + name, "device": device})
        same("POST /auth/login", 200, status)
        return body

    def url(self):
        return f"wss://127.0.0.1:{self.port}/connect"


class Identity:
    """An operator's identity system: an Ed25519 key made and used by openssl, tokens signed with it."""

    def __init__(self, directory, issuer="https://id.example", audience="roost"):
        self.directory, self.issuer, self.audience = directory, issuer, audience
        os.makedirs(directory, exist_ok=True)
        self.key = directory + "/identity.pem"
        subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", self.key], check=True)
        public = subprocess.run(["openssl", "pkey", "-in", self.key, "-pubout", "-outform", "DER"],
                                check=True, capture_output=True).stdout[-32:]
        self.jwks = directory + "/jwks.json"
        with open(self.jwks, "w") as f:
            json.dump({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k1", "alg": "EdDSA", "use": "sig",
                                 "x": base64url(public)}]}, f)

    def settings(self):
        return {"auth.jwks": self.jwks, "auth.issuer": self.issuer, "auth.audience": self.audience, "auth.create_users": "yes"}

    def token(self, subject, lifetime_s=600, **claims):
        now = time.time()
        header = {"alg": "EdDSA", "typ": "JWT", "kid": "k1"}
        body = {"iss": self.issuer, "aud": self.audience, "sub": subject, "iat": int(now), "exp": int(now + lifetime_s), **claims}
        text = base64url(json.dumps(header).encode()) + "." + base64url(json.dumps(body).encode())
        path = self.directory + "/to_sign"
        with open(path, "w") as f:
            f.write(text)
        signature = subprocess.run(["openssl", "pkeyutl", "-sign", "-inkey", self.key, "-rawin", "-in", path],
                                   check=True, capture_output=True).stdout
        return text + "." + base64url(signature)


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def uuid7():
    value = (int(time.time() * 1000) << 80) | secrets.randbits(80)
    return str(uuid.UUID(int=value & ~(0xF << 76) & ~(3 << 62) | (7 << 76) | (2 << 62)))


def text_payload(text):
    return {"kind": "MESSAGE", "type": "TEXT", "content": base64.b64encode(text.encode()).decode()}


def text_of(message):
    return base64.b64decode(message["payload"].get("content", "")).decode()


class Client:
    """One connection. `kinds` are event names as in roost.proto; an event is (id, kind, body)."""

    def __init__(self, gateway):
        self.gateway, self.pending, self.arrived = gateway, [], asyncio.Event()
        self.reading = asyncio.Event()
        self.reading.set()
        self.next_id = 1
        self.close_code = None

    async def open(self, **options):
        options.setdefault("max_queue", 8)
        self.socket = await websockets.connect(self.gateway.url(), ssl=TLS, subprotocols=["roost.v1.json"], compression=None,
                                               ping_interval=None, max_size=1 << 20, close_timeout=2, **options)
        self.reader = asyncio.ensure_future(self.read())
        self.welcome = await self.expect("welcome")
        return self

    async def read(self):
        try:
            while True:
                await self.reading.wait()
                frame = json.loads(await self.socket.recv())
                for event in frame["events"]:
                    kind = next(k for k in event if k != "id")
                    self.pending.append((event.get("id", 0), kind, event[kind]))
                self.arrived.set()
        except websockets.ConnectionClosed:
            self.close_code = self.socket.close_code
            self.arrived.set()

    async def expect(self, kind, id=None, timeout=8, where=lambda body: True):
        until = time.monotonic() + timeout
        while True:
            for i, (event_id, event_kind, body) in enumerate(self.pending):
                if event_kind == kind and (id is None or id == event_id) and where(body):
                    del self.pending[i]
                    return body
            if self.close_code is not None:
                raise AssertionError(f"closed with {self.close_code} while waiting for {kind}; there is: {self.pending[:4]}")
            left = until - time.monotonic()
            self.arrived.clear()
            try:
                await asyncio.wait_for(self.arrived.wait(), max(left, 0))
            except asyncio.TimeoutError:
                raise AssertionError(f"no {kind} (id {id}) in {timeout} s; there is: {str(self.pending)[:600]}") from None

    async def expect_none(self, kind, seconds):
        await asyncio.sleep(seconds)
        found = [e for e in self.pending if e[1] == kind]
        if found:
            raise AssertionError(f"unexpected {kind}: {found[:3]}")

    async def expect_goodbye(self, code, number, verdict, timeout=8):
        goodbye = await self.expect("goodbye", timeout=timeout)
        same("goodbye's code", code, goodbye.get("code"))
        same("goodbye's verdict", verdict, goodbye.get("verdict", "FATAL"))
        await self.expect_close(4000 + number)
        same("close reason", code, self.socket.close_reason)
        return goodbye

    async def expect_close(self, code, timeout=8):
        await asyncio.wait_for(asyncio.shield(self.reader), timeout)
        same("close code", code, self.close_code)

    async def request(self, kind, body, id=None):
        if id is None:
            id, self.next_id = self.next_id, self.next_id + 1
        await self.socket.send(json.dumps({"requests": [{"id": id, kind: body}]}))
        return id

    async def hello(self, token, **fields):
        id = await self.request("hello", {"token": token, "client": "python3-websockets", **fields})
        self.ready = await self.expect("ready", id)
        return self

    async def send(self, text, to=None, conversation=None, message_id=None):
        """The ack, with the message id that was used."""
        ack = await self.expect("ack", await self.send_only(text, to, conversation, message_id))
        same("durability", "DISK", ack["durability"])
        return ack

    async def send_only(self, text, to=None, conversation=None, message_id=None):
        target = {"to_user": to} if to is not None else {"conversation_id": conversation}
        return await self.request("send", {"message_id": message_id or uuid7(), "payload": text_payload(text), **target})

    async def message(self, text, seq=None):
        """The next message must be this one."""
        message = await self.expect("message")
        same("text", text, text_of(message))
        if seq is not None:
            same("seq", seq, message["seq"])
        return message

    async def messages(self, count, timeout=10):
        return [await self.expect("message", timeout=timeout) for _ in range(count)]

    async def drop(self):
        """As when a network goes: no goodbye, no closing handshake."""
        self.reader.cancel()
        self.socket.transport.abort()
        await asyncio.sleep(0)

    async def close(self):
        await self.request("goodbye", {})
        await self.expect_close(1000)


async def client(gateway, token, **fields):
    return await (await Client(gateway).open()).hello(token, **fields)


def run(tests, gateways):
    """Runs the tests; exit status 1 and what the gateway said last if one fails. gateways: list that they fill."""
    failed = 0
    only = sys.argv[1:]
    try:
        for test in tests:
            if only and test.__name__ not in only:
                continue
            began = time.monotonic()
            try:
                asyncio.run(asyncio.wait_for(test(), 60))
                ok(f"{test.__doc__ or test.__name__} ({time.monotonic() - began:.1f} s)")
            except Exception as error:  # every kind of failure of a test is told alike, and the next test runs
                failed += 1
                print(f"FAIL  {test.__name__}: {type(error).__name__}: {error}", flush=True)
                if "-v" in os.environ.get("ROOST_TEST", ""):
                    import traceback
                    traceback.print_exc()
        for gateway in gateways:
            if gateway.process is not None:
                gateway.stop()
                ok("SIGTERM ends the gateway with status 0")
    except Exception as error:
        failed += 1
        print(f"FAIL  {type(error).__name__}: {error}", flush=True)
    finally:
        for gateway in gateways:
            gateway.end()
            if failed:
                print(f"      {gateway.directory}/log:\n", open(gateway.directory + "/log").read()[-1500:])
            else:
                shutil.rmtree(gateway.directory, ignore_errors=True)
    print(f"{checks} checks, {failed} failed")
    sys.exit(1 if failed else 0)
