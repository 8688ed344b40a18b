"""kill_client.py: a small roost.v1.json client for many connections in one thread.

It knows TLS (the standard library's), just enough of RFC 6455, and nothing of chat: requests in,
events out. Frames are masked with a zero key, which RFC 6455 allows and which costs nothing.
"""
import base64
import json
import os
import select
import socket
import ssl
import struct

HANDSHAKE_S = 10


class Closed(Exception):
    pass


def tls_context():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the gateway's own development certificate
    return context


class Connection:
    """Closed is raised by open and pump when the other side is gone."""

    def __init__(self, context, port):
        self.out = bytearray()
        self.data = bytearray()
        self.open = False
        self.close_code = None
        try:
            raw = socket.create_connection(("127.0.0.1", port), HANDSHAKE_S)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.socket = context.wrap_socket(raw, server_hostname="localhost")
            key = base64.b64encode(os.urandom(16)).decode()
            self.socket.sendall((f"GET /connect HTTP/1.1\r\nHost: localhost:{port}\r\nUpgrade: websocket\r\n"
                                 f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
                                 "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: roost.v1.json\r\n"
                                 "\r\n").encode())
            while b"\r\n\r\n" not in self.data:
                some = self.socket.recv(65536)
                if not some:
                    raise Closed("before the upgrade")
                self.data += some
        except OSError as error:
            raise Closed(str(error)) from None
        head, _, rest = bytes(self.data).partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101"):
            raise Closed(head.split(b"\r\n")[0].decode())
        self.data = bytearray(rest)
        self.fresh = bool(rest)  # frames came together with the upgrade: not to be waited for
        self.socket.setblocking(False)
        self.open = True

    def fileno(self):
        return self.socket.fileno()

    def close(self):
        self.open = False
        self.socket.close()

    def send(self, requests):
        self._frame(0x81, json.dumps({"requests": requests}, separators=(",", ":")).encode())

    def _frame(self, first, payload):
        size = len(payload)
        if size < 126:
            head = struct.pack("!BB", first, 0x80 | size)
        elif size < 65536:
            head = struct.pack("!BBH", first, 0x80 | 126, size)
        else:
            head = struct.pack("!BBQ", first, 0x80 | 127, size)
        self.out += head + b"\0\0\0\0" + payload
        self.flush()

    def flush(self):
        try:
            while self.out and self.open:
                sent = self.socket.send(self.out)
                del self.out[:sent]
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            pass
        except OSError:
            self.open = False

    def receive(self):
        """Events that have come. At the end of the connection open is False."""
        try:
            while True:
                some = self.socket.recv(262144)
                if not some:
                    self.open = False
                    break
                self.data += some
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError:
            self.open = False
        self.fresh = False
        events = []
        while True:
            payload = self._next_frame()
            if payload is None:
                return events
            if payload:
                events += json.loads(payload)["events"]

    def _next_frame(self):
        data = self.data
        if len(data) < 2:
            return None
        size, at = data[1] & 0x7F, 2
        if size == 126:
            at = 4
            if len(data) >= 4:
                size = struct.unpack_from("!H", data, 2)[0]
        elif size == 127:
            at = 10
            if len(data) >= 10:
                size = struct.unpack_from("!Q", data, 2)[0]
        if len(data) < at + size:
            return None
        opcode, payload = data[0] & 15, bytes(data[at:at + size])
        del data[:at + size]
        if opcode == 8:
            self.close_code = struct.unpack("!H", payload[:2])[0] if payload else 1005
            self.open = False
            return b""
        if opcode == 9:
            self._frame(0x8A, payload)
            return b""
        return payload


def wait(connections, timeout_s):
    """Connections that can be read, after at most timeout_s; pending output is flushed."""
    fresh = [c for c in connections if c.fresh]
    if fresh:
        return fresh
    poll = select.poll()
    by_fd = {}
    for connection in connections:
        by_fd[connection.fileno()] = connection
        poll.register(connection.fileno(), select.POLLIN | (select.POLLOUT if connection.out else 0))
    ready = []
    for fd, what in poll.poll(max(0, timeout_s) * 1000):
        if what & select.POLLOUT:
            by_fd[fd].flush()
        if what & ~select.POLLOUT:
            ready.append(by_fd[fd])
    return ready
