"""One thread that puts answers on record, many in one transaction; nobody is told to pass before it is durable."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, Queue
from threading import Thread
from typing import Protocol

import structlog

from fediwarden.errors import CannotWrite, FediwardenError
from fediwarden.model import Answer, Decision, Look, RunId

log = structlog.get_logger("fediwarden")

AT_ONCE = 64  # entries in one transaction at most
MOST = 20_000  # entries that wait; a ledger that takes nothing for hours must not fill the memory


class Record(Protocol):
    """`Ledger.record`."""

    def __call__(self, run: RunId, entries: Sequence[tuple[Look, Decision | None]], answers: Sequence[Answer] = ()) -> None: ...


@dataclass(frozen=True, slots=True, eq=False)
class _Entry:
    looks: Sequence[tuple[Look, Decision | None]]
    answers: Sequence[Answer]
    future: "Future[None]" = field(default_factory=Future)


class Recorder:
    """Makes the gate's facts durable. `put` may be called from any thread."""

    def __init__(self, record: Record, run: RunId, recorded: Callable[[Answer], None] = lambda _: None) -> None:
        """`recorded` is told of every answer that is durable."""
        self._record = record
        self._run = run
        self._recorded = recorded
        self._entries: Queue[_Entry | None] = Queue()
        self._thread = Thread(target=self._work, name="gate-record", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def end(self, seconds: float) -> None:
        """Record what was put, for so long."""
        self._entries.put(None)
        self._thread.join(seconds)

    @property
    def waiting(self) -> int:
        """Entries that are not written yet."""
        return self._entries.qsize()

    def put(self, looks: Sequence[tuple[Look, Decision | None]], answers: Sequence[Answer]) -> "Future[None]":
        """Put facts on record; the future ends when they are durable, or with the error that kept them out.

        A future that was cancelled before its turn leaves nothing on record.
        """
        entry = _Entry(looks, answers)
        if self.waiting >= MOST:
            _fail([entry], CannotWrite(f"{MOST:,} entries wait for the ledger already"))
            log.warning("not on record: the ledger takes nothing", answers=len(answers), looks=len(looks))
        else:
            self._entries.put(entry)
        return entry.future

    def _work(self) -> None:
        while (first := self._entries.get()) is not None:
            entries, last = self._gathered(first)
            wanted = [entry for entry in entries if entry.future.set_running_or_notify_cancel()]
            if wanted:
                self._write(wanted)
            if last:
                return

    def _gathered(self, first: _Entry) -> tuple[list[_Entry], bool]:
        entries = [first]
        while len(entries) < AT_ONCE:
            try:
                entry = self._entries.get_nowait()  # what came while the last ones were written; waiting for more gains nothing
            except Empty:
                break
            if entry is None:
                return entries, True
            entries.append(entry)
        return entries, False

    def _write(self, entries: Sequence[_Entry]) -> None:
        try:
            self._record(
                self._run,
                [look for entry in entries for look in entry.looks],
                [one for entry in entries for one in entry.answers],
            )
        except FediwardenError as error:
            _fail(entries, error)
        except Exception as error:  # the unknown: one entry that cannot be recorded must not take the others with it
            log.exception("answers of the gate could not be recorded", entries=len(entries))
            if len(entries) > 1:
                for entry in entries:
                    self._write([entry])
            else:
                ours = FediwardenError(f"an error of ours while recording ({type(error).__name__})")
                _fail(entries, ours)
        else:
            for entry in entries:
                with suppress(InvalidStateError):
                    entry.future.set_result(None)
            for entry in entries:
                for answer in entry.answers:
                    self._recorded(answer)


def _fail(entries: Sequence[_Entry], error: FediwardenError) -> None:
    for entry in entries:
        with suppress(InvalidStateError):
            entry.future.set_exception(error)
