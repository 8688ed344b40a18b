"""kill_gateway.py: a gateway of our own to kill: directory, configuration, tokens, start, stop.

Only the process started here is ever signalled, by its own pid. Everything lies in one scratch
directory: data/ (the store), jwks.json, operator.pem, gateway.ini, gateway.log (all lives).
"""
import base64
import ctypes
import json
import os
import signal
import socket
import struct
import subprocess
import time

ISSUER = "kill-test"
AUDIENCE = "roost"
BLOCK = 4096
START_S = 30
STOP_S = 20


def b64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def end_with_parent():
    """In a child: SIGKILL when the process that started it ends, however that ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Failure(Exception):
    """What the product did wrong."""


def batches(path):
    """Offsets of the batches in a segment of the log (store/segment.c)."""
    with open(path, "rb") as file:
        data = file.read()
    out, at = [], 2 * BLOCK
    while data[at:at + 4] == b"RBAT":
        out.append(at)
        at += -(-struct.unpack_from("<I", data, at + 60)[0] // BLOCK) * BLOCK
    return out


class Operator:
    """An identity system whose public key the gateway trusts."""

    def __init__(self, directory):
        self.key = f"{directory}/operator.pem"
        subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", self.key], check=True)
        der = subprocess.run(["openssl", "pkey", "-in", self.key, "-pubout", "-outform", "DER"],
                             check=True, capture_output=True).stdout
        jwk = {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": "kill",
               "x": b64url(der[-32:])}
        with open(f"{directory}/jwks.json", "w", encoding="ascii") as out:
            json.dump({"keys": [jwk]}, out)
        self.scratch = f"{directory}/token"

    def token(self, user, device):
        now = int(time.time())
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": user, "device": device, "iat": now,
                  "exp": now + 86400}
        head = b64url(json.dumps({"alg": "EdDSA", "kid": "kill", "typ": "JWT"}).encode())
        text = f"{head}.{b64url(json.dumps(claims).encode())}"
        with open(self.scratch, "w", encoding="ascii") as out:
            out.write(text)
        signature = subprocess.run(["openssl", "pkeyutl", "-sign", "-rawin", "-inkey", self.key,
                                    "-in", self.scratch], check=True, capture_output=True).stdout
        return f"{text}.{b64url(signature)}"


class Gateway:
    """One store and the processes that serve it one after another."""

    def __init__(self, binary, directory, lanes=1):
        self.binary = binary
        self.directory = directory
        self.data = f"{directory}/data"
        self.lanes = [f"{os.path.abspath(directory)}/lane{i}" for i in range(1, lanes)]  # but the first
        self.port, admin = self._free_ports()
        self.fixed = {
            "listen": {"address": f"127.0.0.1:{self.port}", "admin_address": f"127.0.0.1:{admin}"},
            "store": {"directory": self.data, "segment_size": "2 MiB", "batch_size": "1 MiB", "checkpoint_interval": "100 ms",
                      "reserve_size": "16 MiB", "catalog_map_size": "1 GiB"},
            "shards": {"pin": "no"},
            "limits": {"max_connections": "1000", "connections_per_address": "1000",
                       "sends_per_second": "1000000", "sends_burst": "1000000"},
            "auth": {"issuer": ISSUER, "audience": AUDIENCE, "jwks": f"{directory}/jwks.json",
                     "create_users": "yes"},
            "drain": {"timeout": "300 ms"},
        }
        if lanes > 1:
            self.fixed["store"]["lane_directories"] = ", ".join(self.lanes)
        self.process = None
        self.log = open(f"{directory}/gateway.log", "ab")

    @staticmethod
    def _free_ports():
        taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        ports = [s.getsockname()[1] for s in taken]
        for s in taken:
            s.close()
        return ports

    def spawn(self, options):
        """options: {"section.key": value} over the fixed ones."""
        sections = {name: dict(keys) for name, keys in self.fixed.items()}
        for name, value in options.items():
            section, key = name.split(".")
            sections.setdefault(section, {})[key] = value
        path = f"{self.directory}/gateway.ini"
        with open(path, "w", encoding="ascii") as out:
            for section, keys in sections.items():
                out.write(f"[{section}]\n" + "".join(f"{k} = {v}\n" for k, v in keys.items()))
        self.spawned_at = self.log_size()
        self.process = subprocess.Popen([self.binary, "serve", "--config", path], stdout=self.log,
                                        stderr=self.log, stdin=subprocess.DEVNULL, preexec_fn=end_with_parent)

    def wait_listening(self):
        """Seconds from now until it accepts connections."""
        begin = time.monotonic()
        while time.monotonic() - begin < START_S:
            if self.process.poll() is not None:
                raise Failure(f"the gateway did not start: exit {self.process.returncode}")
            if "event=serving" in self.log_since(self.spawned_at):
                return time.monotonic() - begin
            time.sleep(0.002)
        raise Failure(f"the gateway does not listen after {START_S} s")

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def kill(self):
        if self.process is None:
            return
        if self.process.poll() is not None and self.process.returncode != -signal.SIGKILL:
            raise Failure(f"the gateway ended by itself: exit {self.process.returncode}")
        self.process.kill()
        self.process.wait()
        self.process = None

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    def wait_stopped(self):
        try:
            code = self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise Failure(f"the gateway did not stop within {STOP_S} s of SIGTERM") from None
        finally:
            self.process = None
        if code != 0:
            raise Failure(f"exit {code} after SIGTERM, not 0")

    def verify_log(self):
        """Exit code and output of `roost log verify` of all lanes."""
        code, text = 0, ""
        for log in [f"{self.data}/log", *self.lanes]:
            done = subprocess.run([self.binary, "log", "verify", log], text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
            code, text = code or done.returncode, text + done.stdout
        return code, text

    def log_size(self):
        self.log.flush()
        return os.path.getsize(f"{self.directory}/gateway.log")

    def log_since(self, offset):
        with open(f"{self.directory}/gateway.log", encoding="utf-8", errors="replace") as text:
            text.seek(offset)
            return text.read()
