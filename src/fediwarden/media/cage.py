"""The outside of the cage: hands bytes in, takes checked frames and a report out. It imports no image library.

`Cage` owns one preloaded process (`fork_server`), which forks the children that decode. A fresh child for every object costs
more than decoding a two-megapixel JPEG, so one that met nothing but plain, whole pictures goes on to the next, a bounded
number of times; anything odd ends it, and a failure in a used child is tried again in a fresh one. A child that hangs, is
killed or was never born makes an object *unreached*, to be tried again; one that dies of its bytes makes it *broken*.
"""

import fcntl
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Self

from fediwarden.errors import Misconfigured, Unreached
from fediwarden.media import wire
from fediwarden.media.limits import Limits
from fediwarden.media.lockdown import LAYERS
from fediwarden.media.wire import Garbled, Report, Silent
from fediwarden.model import Blob, Frame, Reason

MEDIA_VERSION = "1"  # raised by whoever changes what a look sees: views, sampling, carving, codes, decoder settings

_START_SECONDS = 60.0
_END_SECONDS = 10.0  # for the kernel to end a child that was killed, or that closed its pipe
_PIPE_BYTES = 1 << 20
_SUSPECT = (Reason.BOMB, Reason.TOO_SLOW, Reason.CRASHED)  # what a child's past may bring about
_BOOT = "import sys; sys.path.append(sys.argv.pop(1)); from fediwarden.media.fork_server import main; sys.exit(main())"

_ORDINARY = frozenset({"claim", "comment", "segment", "coverage"})  # notes that do not end a child's life

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Child:
    """One child as seen from outside: where to hand objects in and read results, and what is known of its end."""

    number: int
    requests: int
    results: int
    served: int = 0
    ended: threading.Event = field(default_factory=threading.Event)
    status: int | None = None  # as `waitpid` gives it; None where nobody knows
    cpu: float = 0.0
    why: str = ""


class Cage:
    """Looks at any bytes. Safe to use from many threads at once; looks under way never share a process.

    With `reduced`, a missing layer of the lockdown is accepted. `close` may be called twice.
    """

    _boot = _BOOT  # what the preloaded process runs

    def __init__(self, limits: Limits, *, reduced: bool = False) -> None:
        self._limits = limits
        self._reduced = reduced
        self._lock = threading.Lock()
        self._server: _ForkServer | None = None
        self._layers: Mapping[str, bool] | None = None
        self._formats: frozenset[str] = frozenset()
        self._closed = False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def start(self) -> None:
        """Start the preloaded process and prove in a real child that the cage holds; raises Misconfigured where it does not."""
        if self._layers is not None:
            return
        server = self._running()
        try:
            layers, answers = server.test(self._limits.wall_seconds)
        except (Garbled, Silent, Unreached) as error:
            self.close()
            raise Misconfigured(f"the cage for decoders cannot be tested: {error}", hint="see `fediwarden doctor`") from error
        missing = [layer for layer in LAYERS if not layers.get(layer)]
        leaks = [name for name, answer in answers.items() if answer != "refused"]
        if (missing or leaks) and not self._reduced:
            self.close()
            what = f"without {', '.join(missing)}" if missing else f"and lets through: {', '.join(leaks)}"
            raise Misconfigured(
                f"the cage for decoders stands {what}",
                hint='this kernel or processor cannot lock decoders in; set cage = "reduced" to scan with what there is',
            )
        self._layers = {layer: layer not in missing for layer in LAYERS}

    @property
    def layers(self) -> Mapping[str, bool]:
        """Which walls stand: "rlimits", "no_new_privs", "landlock", "seccomp"; starts the cage if need be."""
        self.start()
        return self._layers or {}

    @property
    def formats(self) -> frozenset[str]:
        """What can be opened here; starts the cage if need be."""
        self.start()
        return self._formats

    @property
    def version(self) -> str:
        """A digest of all that decides what a look sees; the same on every host with the same extras and limits."""
        facts = [MEDIA_VERSION, sorted(self.formats), self._limits.what_is_seen()]
        return sha256(json.dumps(facts).encode()).hexdigest()[:16]

    def look(self, blob: Blob) -> AbstractContextManager["Peek"]:
        """Open `blob` in a child of its own. Entering raises Unreached where there is no child to be had."""
        return self._look(blob)

    @contextmanager
    def _look(self, blob: Blob) -> Iterator["Peek"]:
        report = None
        if not blob.data:
            report = Report(reason=Reason.EMPTY, problem="the object is empty")
        elif len(blob.data) > self._limits.memory_mb << 19:  # half: the child needs room to decode
            report = Report(reason=Reason.TOO_LARGE, problem=f"{len(blob.data)} bytes")
        else:
            self.start()
        peek = Peek(None if report else self._running(), blob, self._limits, report)
        try:
            yield peek
        finally:
            peek.close()

    def close(self) -> None:
        """End the preloaded process and every child."""
        with self._lock:
            self._closed = True
            server, self._server = self._server, None
        if server is not None:
            server.close()

    def _running(self) -> "_ForkServer":
        """The preloaded process, a new one if the last has died."""
        with self._lock:
            if self._closed:
                raise Unreached("the cage is closed")
            if self._server is None or self._server.dead:
                if self._server is not None:
                    log.warning("the preloaded process of the cage has died; starting another")
                    self._server.close()
                self._server = _ForkServer(self._limits, self._boot, reduced=self._reduced)
                self._formats = self._server.formats
            return self._server


class Peek:
    """One look under way. Iterate `frames` to its end, then read `report`; leaving early ends the child."""

    def __init__(self, server: "_ForkServer | None", blob: Blob, limits: Limits, report: Report | None = None) -> None:
        self._server = server
        self._blob = blob
        self._limits = limits
        self._report = report
        self._child: _Child | None = None if server is None else server.take()

    @property
    def report(self) -> Report:
        """What was found besides frames; valid once `frames` is exhausted."""
        if self._report is None:
            raise RuntimeError("frames() was not read to its end")
        return self._report

    def frames(self) -> Iterator[Frame]:
        """Every view, as the child gets to it; at most one is held here and a pipe's worth on the way.

        Raises Unreached where the child fell silent, was killed from outside, or the preloaded process died.
        """
        if self._report is not None or self._server is None or self._child is None:
            return
        sent = 0
        try:
            for frame in self._attempt(self._child):
                sent += 1
                yield frame
            if self._suspect(self._child):
                # what an earlier object left behind in this child may be to blame: once more, in a fresh one
                self._report = None
                self._server.kill(self._child)
                self._child = self._server.take(fresh=True)
                for number, frame in enumerate(self._attempt(self._child)):
                    if number >= sent:
                        yield frame
        finally:
            self.close()

    def _suspect(self, child: "_Child") -> bool:
        return self._report is not None and self._report.reason in _SUSPECT and child.served > 1

    def close(self) -> None:
        """Let the child go: back to its kin after a plain picture, else to its end."""
        if self._child is None or self._server is None:
            return
        child, self._child = self._child, None
        if self._report is not None and _plain(self._report) and child.served < self._limits.objects_per_child:
            self._server.give_back(child)
        elif self._report is not None and self._report.reason is None:
            self._server.dismiss(child)
        else:
            self._server.kill(child)

    def _attempt(self, child: "_Child") -> Iterator[Frame]:
        """Send the object to one child and yield its frames; afterwards there is a report."""
        reader = wire.WireReader(
            child.results, self._limits.wall_seconds, max(self._limits.frame_edge, self._limits.animated_edge)
        )
        facts = {"claimed": wire.clean(self._blob.claimed, 100), "ending": _ending(self._blob.ref.key)}
        child.served += 1
        sent = 0
        try:
            with suppress(BrokenPipeError):  # how it died is asked below
                wire.write_request(child.requests, facts, self._blob.data, self._limits.wall_seconds)
            while True:
                message = reader.next()
                if isinstance(message, Frame):
                    sent += 1
                    if sent > self._limits.views:
                        raise Garbled("more frames than there can be")  # noqa: TRY301
                    yield message
                elif isinstance(message, Report):
                    self._report = message
                    return
                elif message is None:
                    self._report = self._obituary(child, "")
                    return
                else:
                    raise Garbled("a message out of place")  # noqa: TRY301
        except Silent as error:
            raise Unreached(f"the decoder gave no sign of life for {self._limits.wall_seconds:g} seconds") from error
        except Garbled as error:
            self._report = self._obituary(child, str(error))

    def _obituary(self, child: "_Child", garbled: str) -> Report:
        """What the end of a child without a report means; raises Unreached where its bytes may not be the cause."""
        if not child.ended.wait(1.0 if garbled else _END_SECONDS):
            if garbled:
                return Report(reason=Reason.CRASHED, problem=f"the decoder sent {garbled}")
            raise Unreached("the decoder closed its pipe and did not end")
        if child.status is None:
            raise Unreached(child.why or "the preloaded process of the cage died")
        number = os.WTERMSIG(child.status) if os.WIFSIGNALED(child.status) else 0
        slow = number == signal.SIGKILL and child.cpu >= self._limits.cpu_seconds
        if slow or number in (signal.SIGPROF, signal.SIGXCPU):
            return Report(reason=Reason.TOO_SLOW, problem=f"used up its {self._limits.cpu_seconds} seconds of processor time")
        if number == signal.SIGKILL:
            raise Unreached("the decoder was killed from outside, perhaps for want of memory")
        if number:
            return Report(reason=Reason.CRASHED, problem=f"the decoder died of {signal.Signals(number).name}")
        if os.waitstatus_to_exitcode(child.status) == wire.EXHAUSTED:
            return Report(reason=Reason.BOMB, problem="needs more memory than the cage allows")
        return Report(reason=Reason.CRASHED, problem=f"the decoder sent {garbled or 'no report'}")


def _plain(report: Report) -> bool:
    """Whether nothing about the object was out of the ordinary, so that the child that decoded it may do another."""
    still = report.kind is not None and report.kind.format not in ("mp4", "mov", "webm", "unknown")
    return still and report.reason is None and not report.unopened and all(note.what in _ORDINARY for note in report.notes)


class _ForkServer:
    """The running preloaded process, seen from outside. A thread of its own hears how children ended."""

    def __init__(self, limits: Limits, boot: str, *, reduced: bool) -> None:
        self._reduced = reduced
        self._lock = threading.Lock()
        self._children: dict[int, _Child] = {}
        self._idle: list[_Child] = []
        self._last = 0
        self._closed = False
        self.dead = False
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        complaints = os.memfd_create("fork_server", os.MFD_CLOEXEC)
        try:
            with theirs:
                self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                    [
                        *(sys.executable, "-I", "-c", boot, str(Path(__file__).parents[2])),
                        *("--socket", str(theirs.fileno()), "--limits", json.dumps(limits.as_json())),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=complaints,
                    pass_fds=(theirs.fileno(),),
                    env={"MALLOC_ARENA_MAX": "1", "LD_BIND_NOW": "1"},
                    cwd="/",
                    start_new_session=True,
                )
            self.formats = self._ready(complaints)
        except OSError as error:
            self._channel.close()
            raise Unreached(f"cannot start the preloaded process of the cage: {error.strerror}") from error
        finally:
            os.close(complaints)
        self._listener = threading.Thread(target=self._listen, name="cage", daemon=True)
        self._listener.start()

    def _ready(self, complaints: int) -> frozenset[str]:
        self._channel.settimeout(_START_SECONDS)
        with suppress(TimeoutError, ConnectionResetError):
            message = self._channel.recv(65536)
            if message:
                self._channel.settimeout(None)
                return frozenset(json.loads(message)["ready"]) & wire.FORMATS
        self._channel.close()
        self._process.kill()
        self._process.wait()
        said = os.pread(complaints, 65536, 0).decode("utf-8", "replace").strip().splitlines()
        raise Misconfigured(
            f"the preloaded process of the cage does not start: {wire.clean(said[-1], 200) if said else 'no answer'}",
            hint="is Pillow installed in this environment? see `fediwarden doctor`",
        )

    def take(self, *, fresh: bool = False) -> _Child:
        """A child that waits for an object: one that has done plain pictures before, or a new one."""
        with self._lock:
            if self.dead:
                raise Unreached("the preloaded process of the cage died")
            if self._idle and not fresh:
                return self._idle.pop()
            self._last += 1
            number = self._last
        opened: list[int] = []
        try:
            for _ in range(2):
                opened += os.pipe()
            theirs_in, requests, results, theirs_out = opened
            for ours in (requests, results):
                os.set_blocking(ours, False)
                with suppress(OSError):  # a full share of pipe memory only makes it slower
                    fcntl.fcntl(ours, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            child = _Child(number, requests, results)
            with self._lock:
                self._children[number] = child
            order = json.dumps({"fork": number, "reduced": self._reduced}).encode()
            socket.send_fds(self._channel, [order], [theirs_in, theirs_out])
            opened = [theirs_in, theirs_out]
        except OSError as error:
            with self._lock:
                self._children.pop(number, None)
            raise Unreached(f"no child for the decoder: {error.strerror}") from error
        finally:
            for descriptor in opened:
                os.close(descriptor)
        return child

    def give_back(self, child: _Child) -> None:
        """Keep a child for the next object."""
        with self._lock:
            if not self.dead and not self._closed:
                self._idle.append(child)
                return
        self.dismiss(child)

    def dismiss(self, child: _Child) -> None:
        """Close the pipes of a child, which ends an honest one."""
        for descriptor in (child.requests, child.results):
            os.close(descriptor)
        with self._lock:
            self._children.pop(child.number, None)

    def kill(self, child: _Child) -> None:
        """End a child and wait until it has ended, so that its memory is free again."""
        if not child.ended.is_set():
            with suppress(OSError):
                self._channel.send(json.dumps({"kill": child.number}).encode())
            child.ended.wait(_END_SECONDS)
        self.dismiss(child)

    def test(self, seconds: float) -> tuple[Mapping[str, bool], Mapping[str, str]]:
        """Which layers stand in a child, and how each forbidden thing was answered there."""
        child = self.take(fresh=True)
        try:
            with suppress(BrokenPipeError):
                wire.write_request(child.requests, {"test": True}, b"", seconds)
            message = wire.WireReader(child.results, seconds, 1).next()
            if not isinstance(message, bytes):
                child.ended.wait(_END_SECONDS)
                raise Garbled(f"no self-test came back (status {child.status})")
            return wire.self_test(message)
        finally:
            self.kill(child)

    def close(self) -> None:
        """Close the socket, which ends the process and its children."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for child in idle:
            self.dismiss(child)
        with suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._listener.join(_END_SECONDS)
        self._channel.close()

    def _listen(self) -> None:
        while True:
            try:
                message = self._channel.recv(65536)
            except OSError:
                message = b""
            if not message:
                break
            said = json.loads(message)
            with self._lock:
                child = self._children.get(said.get("ended", 0))
            if child is not None:
                child.status, child.cpu, child.why = said["status"], said.get("cpu", 0.0), said.get("why", "")
                child.ended.set()
        with self._lock:
            self.dead = True
            orphans = list(self._children.values())
        for child in orphans:
            child.why = child.why or "the preloaded process of the cage died"
            child.ended.set()


def _ending(key: str) -> str:
    """The ending of the name, where it looks like one."""
    _, dot, ending = key.rpartition("/")[2].rpartition(".")
    return ending if dot and len(ending) <= 8 and ending.isascii() and ending.isalnum() else ""
