"""A TCP proxy on loopback that gives HTTP clients bad days: 503, silence, bodies cut short, resets; per request, by plan."""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

SLOW_DOWN = b'<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>'


@dataclass
class FaultProxy:
    """Stands between a client and a server that speaks HTTP/1.1, one request at a time on each connection.

    `plan(number, first_line)` is asked for every request and answers what happens to it: "" (pass on), "503", "500",
    "reset" (before the server hears of it), "lost" (the server does it, the answer never arrives), "cut" (half of the body),
    "slow:SECONDS" (before passing on), "drip" (a byte at a time). `seen` has the first line of every request.
    """

    server_port: int
    port: int = 0
    plan: Callable[[int, str], str] = lambda number, line: ""
    seen: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _over: threading.Event = field(default_factory=threading.Event)

    def heal(self) -> None:
        """From now on everything is passed on."""
        self.plan = lambda number, line: ""

    def _serve(self, listener: socket.socket) -> None:
        while not self._over.is_set():
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._attend, args=(client,), daemon=True).start()

    def _attend(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            client.settimeout(30)
            while not self._over.is_set():
                head, body = _message(client)
                if not head:
                    return
                line = head.split(b"\r\n", 1)[0].decode("latin-1")
                with self._lock:
                    number = len(self.seen)
                    self.seen.append(line)
                fault, _, value = self.plan(number, line).partition(":")
                if fault in ("500", "503"):
                    words = b"Service Unavailable" if fault == "503" else b"Internal Server Error"
                    client.sendall(b"HTTP/1.1 %s %s\r\nContent-Length: %d\r\n\r\n" % (fault.encode(), words, len(SLOW_DOWN)))
                    client.sendall(b"" if line.startswith("HEAD") else SLOW_DOWN)
                    if line.startswith("HEAD"):
                        return
                    continue
                if fault == "reset":
                    _reset(client)
                    return
                if fault == "slow":
                    self._over.wait(float(value))
                answer, payload = self._ask(head, body, head_only=line.startswith("HEAD"))
                if fault == "lost":
                    _reset(client)
                    return
                if fault == "cut":
                    client.sendall(answer + payload[: len(payload) // 2])
                    return
                if fault == "drip":
                    client.sendall(answer)
                    for byte in payload:
                        client.sendall(bytes([byte]))
                        time.sleep(0.01)
                        if self._over.is_set():
                            return
                    continue
                client.sendall(answer + payload)

    def _ask(self, head: bytes, body: bytes, *, head_only: bool) -> tuple[bytes, bytes]:
        with socket.create_connection(("127.0.0.1", self.server_port), timeout=30) as server:
            server.sendall(head + body)
            return _message(server, head_only=head_only)


def _message(connection: socket.socket, *, head_only: bool = False) -> tuple[bytes, bytes]:
    """One HTTP message: head with its empty line, and the body as it was sent."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return b"", b""
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    head += b"\r\n\r\n"
    lower = head.lower()
    if head_only:
        return head, b""
    if b"\r\ntransfer-encoding: chunked" in lower:
        while not body.endswith(b"0\r\n\r\n"):
            body += connection.recv(65536)
        return head, body
    length = int(lower.split(b"\r\ncontent-length:")[1].split(b"\r\n")[0]) if b"\r\ncontent-length:" in lower else 0
    pieces = [body]
    got = len(body)
    while got < length:
        piece = connection.recv(1 << 20)
        if not piece:
            break
        pieces.append(piece)
        got += len(piece)
    return head, b"".join(pieces)


def _reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@contextmanager
def bad_days(server_port: int) -> Generator[FaultProxy]:
    """A fault proxy in front of the server at that port; it passes everything on until it is given a plan."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        proxy = FaultProxy(server_port, listener.getsockname()[1])
        thread = threading.Thread(target=proxy._serve, args=(listener,), daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            proxy._over.set()
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            thread.join(5)
