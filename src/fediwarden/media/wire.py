"""What crosses the wall of the cage, and how little of it is believed: bounded frames and one bounded report.

A request is its facts as JSON and the bytes of an object; a message back is a type byte, a 32-bit length and a body. The reading side treats the writing side as taken over by the
bytes it decoded: every length, count, number and string is checked against a bound before it is used. No pickling.
"""

import json
import math
import os
import select
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fediwarden.model import Frame, Ground, Kind, Note, Reason, Unopened

FORMATS = frozenset({"jpeg", "png", "apng", "gif", "webp", "avif", "bmp", "tiff", "mp4", "webm", "mov", "unknown"})
CODE_PREFIX = "FWDRILL"  # the only texts of two-dimensional codes that may leave the cage begin like this
CODES_PER_FRAME = 4
CODE_LENGTH = 64
LABEL_LENGTH = 240  # of the name of a view, or of the place of an embedded picture
TEXT_LENGTH = 500
FACTS = 200  # notes, and payloads not opened, of one report
REPORT_BYTES = 1 << 20
PATIENCE = 10
EXHAUSTED = 66  # exit status of a child without memory even for a report

_HEAD = struct.Struct(">cI")
_REQUEST = struct.Struct(">IQ")
_FRAME = struct.Struct(">IIIdBHHB")
_GROUNDS = (Ground.OPAQUE, Ground.BLACK, Ground.WHITE)


class Garbled(Exception):
    """The child sent what no honest child sends."""


class Silent(Exception):
    """The child sent nothing for the whole wall time."""


@dataclass(frozen=True, slots=True)
class Report:
    """What the cage found besides frames. The object is broken exactly when `reason` is given."""

    kind: Kind | None = None
    notes: tuple[Note, ...] = ()
    unopened: tuple[Unopened, ...] = ()
    reason: Reason | None = None
    problem: str = ""  # one line for a person: why broken


def clean(text: str, length: int = TEXT_LENGTH) -> str:
    """`text` cut to `length`, with lone surrogates spelled out; control characters stay, as data."""
    return text[: length * 2].encode("utf-8", "backslashreplace").decode("utf-8")[:length]


# --- writing, in the cage -----------------------------------------------------------------------------------------------


def send(pipe: int, kind: bytes, *parts: bytes) -> None:
    """Write one message whole; blocks while the reader is behind, which is what bounds memory."""
    head = _HEAD.pack(kind, sum(map(len, parts)))
    for part in (head + parts[0], *parts[1:]) if parts else (head,):
        view = memoryview(part)
        while view:
            view = view[os.write(pipe, view) :]


def send_frame(pipe: int, frame: Frame) -> None:
    """Send one frame; texts longer than their bounds are cut."""
    labels = [clean(text, LABEL_LENGTH).encode() for text in (frame.view, frame.source)]
    head = _FRAME.pack(
        frame.width,
        frame.height,
        frame.index,
        frame.at,
        _GROUNDS.index(frame.ground),
        len(labels[0]),
        len(labels[1]),
        len(frame.codes),
    )
    codes = b"".join(struct.pack(">H", len(code.encode())) + code.encode() for code in frame.codes)
    send(pipe, b"F", head + labels[0] + labels[1] + codes, frame.rgb)


def send_report(pipe: int, report: Report) -> None:
    """Send the report that ends a look, cut to the bounds of the reader."""
    kind = report.kind
    body = {
        "kind": None if kind is None else [kind.format, kind.width, kind.height, kind.frames, kind.sampled, kind.seconds],
        "notes": [[clean(n.what, 40), clean(n.where, LABEL_LENGTH), n.size, clean(n.detail)] for n in report.notes[:FACTS]],
        "unopened": [[clean(u.where, LABEL_LENGTH), clean(u.why, 40), u.size] for u in report.unopened[:FACTS]],
        "reason": None if report.reason is None else report.reason.value,
        "problem": clean(report.problem),
    }
    send(pipe, b"R", json.dumps(body).encode())


def read_request(pipe: int) -> tuple[dict[str, Any], bytes] | None:
    """The next object to look at, in the cage: its facts and its bytes; None when no more will come."""
    head = _read(pipe, _REQUEST.size)
    if len(head) < _REQUEST.size:
        return None
    facts, size = _REQUEST.unpack(head)
    return json.loads(_read(pipe, facts)), _read(pipe, size)


def _read(pipe: int, size: int) -> bytes:
    buffer = bytearray(size)
    view, got = memoryview(buffer), 0
    while got < size and (n := os.readv(pipe, [view[got:]])):
        got += n
    view.release()
    return bytes(buffer) if got == size else b""


# --- reading, outside ---------------------------------------------------------------------------------------------------


def write_request(pipe: int, facts: Mapping[str, Any], data: bytes, wall_seconds: float) -> None:
    """Hand one object to a child over a non-blocking pipe; raises Silent where it does not take it, BrokenPipeError where it died."""
    poll = select.poll()
    poll.register(pipe, select.POLLOUT)
    told = json.dumps(facts).encode()
    for part in (_REQUEST.pack(len(told), len(data)) + told, data):
        view = memoryview(part)
        while view:
            try:
                view = view[os.write(pipe, view) :]
            except BlockingIOError:
                if not poll.poll(max(1, int(wall_seconds * 1000))):
                    raise Silent from None


class WireReader:
    """Reads messages of one child from a non-blocking pipe, for at most `wall_seconds` of silence at a time.

    All its silences together may last PATIENCE times as long: a child that was taken over could send a byte now and then.
    """

    def __init__(self, pipe: int, wall_seconds: float, edge: int) -> None:
        self._pipe = pipe
        self._poll = select.poll()
        self._poll.register(pipe, select.POLLIN)
        self._milliseconds = max(1, int(wall_seconds * 1000))
        self._patience = wall_seconds * PATIENCE
        self._edge = edge  # longest side a frame may have

    def next(self) -> Frame | Report | bytes | None:
        """The next message: a frame, a report, the body of a self-test, or None at the end; raises Garbled or Silent."""
        head = self._exactly(_HEAD.size, may_end=True)
        if not head:
            return None
        kind, length = _HEAD.unpack(head)
        match kind:
            case b"F":
                return self._frame(length)
            case b"R" if length <= REPORT_BYTES:
                return _report(self._exactly(length))
            case b"S" if length <= REPORT_BYTES:
                return bytes(self._exactly(length))
            case _:
                raise Garbled("unknown or oversized message")

    def _frame(self, length: int) -> Frame:
        width, height, index, at, ground, *lengths, count = _FRAME.unpack(self._exactly(_FRAME.size))
        if not (0 < width <= self._edge and 0 < height <= self._edge):
            raise Garbled("a frame of impossible size")
        if ground >= len(_GROUNDS) or not math.isfinite(at) or at < 0 or count > CODES_PER_FRAME:
            raise Garbled("a frame with impossible facts")
        view, source = (self._text(size, LABEL_LENGTH) for size in lengths)
        codes = []
        read = _FRAME.size + sum(lengths)
        for _ in range(count):
            (size,) = struct.unpack(">H", self._exactly(2))
            code = self._text(size, CODE_LENGTH)
            if not code.startswith(CODE_PREFIX):
                raise Garbled("a code that is none of ours")
            codes.append(code)
            read += 2 + size
        if length != read + width * height * 3:
            raise Garbled("a frame whose length and size disagree")
        rgb = bytes(self._exactly(width * height * 3))
        return Frame(rgb, width, height, index, at, view, _GROUNDS[ground], source, tuple(codes))

    def _text(self, size: int, longest: int) -> str:
        if size > longest * 4:
            raise Garbled("an oversized text")
        try:
            text = bytes(self._exactly(size)).decode("utf-8")
        except UnicodeDecodeError as error:
            raise Garbled("a text that is none") from error
        if len(text) > longest:
            raise Garbled("an oversized text")
        return text

    def _exactly(self, size: int, *, may_end: bool = False) -> bytearray:
        buffer = bytearray(size)
        view, got = memoryview(buffer), 0
        while got < size:
            try:
                n = os.readv(self._pipe, [view[got:]])
            except BlockingIOError:
                began = time.monotonic()
                if not self._poll.poll(self._milliseconds) or self._patience < 0:
                    raise Silent from None
                self._patience -= time.monotonic() - began
                continue
            if n == 0:
                if may_end and got == 0:
                    return bytearray()
                raise Garbled("a message cut short")
            got += n
        return buffer


def _report(body: bytearray) -> Report:
    try:
        raw = json.loads(body)
        return Report(
            kind=None if raw["kind"] is None else _kind(raw["kind"]),
            notes=tuple(
                Note(_string(what, 40), _string(where, LABEL_LENGTH), _count(size), _string(detail))
                for what, where, size, detail in _rows(raw["notes"])
            ),
            unopened=tuple(
                Unopened(_string(where, LABEL_LENGTH), _string(why, 40), _count(size))
                for where, why, size in _rows(raw["unopened"])
            ),
            reason=None if raw["reason"] is None else Reason(raw["reason"]),
            problem=_string(raw["problem"]),
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Garbled("a report that is none") from error


def _rows(value: object) -> list[list[Any]]:
    if not isinstance(value, list) or len(value) > FACTS:
        raise ValueError("not a bounded list")
    return value


def _string(value: object, length: int = TEXT_LENGTH) -> str:
    if not isinstance(value, str) or len(value) > length:
        raise ValueError("not a bounded text")
    return clean(value, length)


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 53:
        raise ValueError("not a count")
    return value


def _kind(row: list[Any]) -> Kind:
    name, width, height, frames, sampled, seconds = row
    if name not in FORMATS or not isinstance(seconds, int | float) or not math.isfinite(seconds) or seconds < 0:
        raise ValueError("not a kind")
    return Kind(name, _count(width), _count(height), _count(frames), _count(sampled), float(seconds))


def self_test(body: bytes) -> tuple[Mapping[str, bool], Mapping[str, str]]:
    """Which layers stand, and what the kernel answered to each forbidden thing, from the body of a self-test."""
    try:
        raw = json.loads(body)
        layers = {_string(k): v is True for k, v in raw["layers"].items()}
        answers = {_string(k): _string(v) for k, v in raw["answers"].items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Garbled("a self-test that is none") from error
    return layers, answers
