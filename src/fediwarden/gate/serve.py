"""The listening socket and the signals: stopping answers what is in hand, and starting anew keeps the socket open."""

import asyncio
import gc
import logging
import os
import signal
import socket
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fediwarden.errors import CannotWrite, Misconfigured
from fediwarden.gate.core import CLOSING, Gate
from fediwarden.gate.protocols import BEGAN

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

FIRST_FD = 3  # where systemd's socket activation begins
INHERITED = "FEDIWARDEN_GATE_FD"  # the socket that an earlier life of this process hands over
BACKLOG = 2048
UNIX = "unix:"
SETTLE = 0.5  # seconds
MOST = 800  # connections at a time; further ones are closed, which is a clean failure for pict-rs
HEARING = 5.0  # seconds in which a connection has to say what it wants


def listening(listen: str, environment: Mapping[str, str]) -> socket.socket:
    """The socket: handed over by an earlier life or by systemd, else a new one on `listen`.

    Raises:
        Misconfigured: `listen` is no address, or it is taken.
        CannotWrite: the place for a Unix socket cannot be written.
    """
    if handed := environment.get(INHERITED):
        return socket.socket(fileno=int(handed))
    if environment.get("LISTEN_PID") == str(os.getpid()) and int(environment.get("LISTEN_FDS") or 0) >= 1:
        return socket.socket(fileno=FIRST_FD)
    if listen.startswith(UNIX):
        return _unix(Path(listen.removeprefix(UNIX)))
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise Misconfigured(f"{listen!r} is no address to listen on", hint="write 127.0.0.1:8970, or unix:/path/gate.sock")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, int(port)))
        made.listen(BACKLOG)
    except OSError as error:
        made.close()
        raise Misconfigured(
            f"cannot listen on {listen}: {error.strerror or error}",
            hint="is another gate running? `gate.listen` names the address",
        ) from error
    return made


def _unix(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
            _clear(path)
        before = os.umask(0o117)
        try:
            made.bind(str(path))
        finally:
            os.umask(before)
        made.listen(BACKLOG)
    except Misconfigured:
        made.close()
        raise
    except OSError as error:
        made.close()
        raise CannotWrite(
            f"cannot listen on {path}: {error.strerror or error}", hint="check its folder, and who owns it"
        ) from error
    return made


def _clear(path: Path) -> None:
    """Take away the socket of a gate that is no more. Raises: Misconfigured when one listens there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            client.connect(str(path))
        except OSError:
            path.unlink()
            return
    raise Misconfigured(f"something listens on {path} already", hint="is another gate running?")


def is_local(bound: socket.socket) -> bool:
    """Whether only this machine can reach it."""
    import ipaddress

    if bound.family == socket.AF_UNIX:
        return True
    return ipaddress.ip_address(bound.getsockname()[0]).is_loopback


class Ended:
    """How a serving ended."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    @property
    def again(self) -> bool:
        """It was told to start anew."""
        return self.signal is signal.SIGHUP

    @property
    def interrupted(self) -> bool:
        """A person pressed Ctrl-C."""
        return self.signal is signal.SIGINT


def server_of(app: "FastAPI") -> "uvicorn.Server":
    """What speaks HTTP for it, with bounds on connections; deaf to signals."""
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Protocol(H11Protocol):
        """One connection; whoever says nothing is not waited for."""

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            self.app_state = {**self.app_state, BEGAN: time.monotonic()}
            super().connection_made(transport)
            if len(self.connections) > MOST:
                transport.abort()
            else:
                self.loop.call_later(HEARING, self._heard)

        def send_400_response(self, msg: str) -> None:
            request: object = self.cycle
            if request is None:
                super().send_400_response(msg)
            else:  # what broke is the body of a request whose answer may be under way: no second one
                self.transport.close()

        def _heard(self) -> None:
            request: object = self.cycle  # None until there is one, whatever its type says
            if request is None:
                self.transport.close()

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:  # `serve` hears them
            yield

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            for listener in self.servers:
                listener.close()
            await asyncio.sleep(SETTLE)  # who was let in just now has yet to say what it wants; after this nobody is cut off
            await super().shutdown(sockets)

    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=int(CLOSING) + 1,
        backlog=BACKLOG,
        http=Protocol,
        ws="none",
        loop="asyncio",
    )
    return Server(config)


def serve(app: "FastAPI", gate: Gate, bound: socket.socket, fit: Callable[[], bool] = lambda: True) -> Ended:
    """Take requests until a signal comes; what is in hand is answered before this returns. The socket stays open.

    `fit` is asked on SIGHUP whether a new life could begin; where not, this one goes on.
    """
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # strangers' broken requests would fill the log
    server = server_of(app)
    ended = Ended()

    def end(number: signal.Signals) -> None:
        if number is signal.SIGHUP and not fit():
            return
        if ended.signal in (None, signal.SIGHUP):  # a stop stands over a start that was asked for before
            ended.signal = number
        gate.close()
        server.should_exit = True

    async def run() -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, end, number)
        await server.serve(sockets=[bound.dup()])

    gc.collect()
    gc.freeze()  # what is there now stays; looking through it again and again would hold up answers
    asyncio.run(run())
    return ended


def start_anew(bound: socket.socket, arguments: list[str], environment: Mapping[str, str]) -> None:
    """Become a fresh process that listens on the same socket; connections wait in its backlog meanwhile. Never returns."""
    os.set_inheritable(bound.fileno(), True)
    fresh = {**environment, INHERITED: str(bound.fileno())}
    os.execve(arguments[0], arguments, fresh)  # noqa: S606 - this program again
