"""Pays what the gate let through unscanned: fetches it from pict-rs when no upload waits; answers nobody."""

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from threading import Event, Thread

import structlog

from fediwarden.errors import FediwardenError, Gone, Lost, Refused, Unreached
from fediwarden.gate.workbench import Workbench
from fediwarden.ledger import GATE, Ledger
from fediwarden.model import Blob, Debt, EngineVersion, ObjectRef
from fediwarden.platforms.pictrs.hashes import Hash, formats_of
from fediwarden.stores.interface import Reader

log = structlog.get_logger("fediwarden")

EVERY = 2.0  # seconds between two looks at the list of debts
SLOWEST = 300.0  # seconds between two tries of a debt, or of a store that gives no answer, at most


class Payer:
    """One thread over the open debts. A debt that is on the desk already is left to it."""

    def __init__(
        self,
        ledger: Ledger,
        desk: Workbench,
        reader: Reader | None,
        engine: EngineVersion,
        clock: Callable[[], datetime],
        *,
        object_limit: int,
        lapse: timedelta,
        act: Callable[[], None] | None = None,
    ) -> None:
        """
        Args:
            reader: the pict-rs store; None leaves debts to whatever scan meets their bytes.
            lapse: after how long a debt ends whose object pict-rs does not have.
            act: hides what turned out suspected, within the allowance; None leaves it owed.
        """
        self._ledger = ledger
        self._desk = desk
        self._reader = reader
        self._engine = engine
        self._clock = clock
        self._limit = object_limit
        self._lapse = lapse
        self._act = act
        self._stop = Event()
        self._tries: dict[int, tuple[int, float]] = {}  # a debt's failed tries, and when it may be tried again
        self._thread = Thread(target=self._work, name="gate-debts", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def end(self, seconds: float) -> None:
        """Stop it, and wait so long for it."""
        self._stop.set()
        self._thread.join(seconds)

    def _work(self) -> None:
        paying = acting = 0  # rounds in a row that failed
        act_at = 0.0
        while not self._stop.wait(pause(paying)):
            paying = self._tried("debts wait", self._pass, paying)
            if self._act is not None and time.monotonic() >= act_at:  # whatever keeps it from acting keeps no debt waiting
                acting = self._tried("what turned out suspected is not hidden yet", self._act, acting)
                act_at = time.monotonic() + (pause(acting) if acting else 0.0)

    def _tried(self, words: str, round: Callable[[], None], failures: int) -> int:
        """Do it; how often in a row it has failed now."""
        try:
            round()
        except FediwardenError as error:
            log.warning(words, problem=str(error))
        except Exception:  # the unknown: what was to be done stays to be done, and is tried again
            log.exception(words)
        else:
            return 0
        return failures + 1

    def _pass(self) -> None:
        """Once over the list, oldest first. Raises: Unreached where pict-rs gives no answer."""
        open_ones: set[int] = set()
        for debt in self._ledger.uploads.debts(self._engine):
            open_ones.add(debt.id)
            if self._stop.is_set():
                return
            if debt.broken or self._reader is None or debt.ref.store == GATE or self._desk.busy_with(debt.sha256):
                continue
            if self._tries.get(debt.id, (0, 0.0))[1] <= time.monotonic():
                self._pay(debt, self._reader)
        self._tries = {debt: tries for debt, tries in self._tries.items() if debt in open_ones}

    def _pay(self, debt: Debt, reader: Reader) -> None:
        size = min(debt.ref.size, self._limit)
        while not self._desk.take(size):  # uploads come first
            if self._stop.wait(0.2):
                return
        given = False
        try:
            blob = self._fetch(debt, reader)
            given = blob is not None and self._desk.put(blob, time.monotonic(), debt=True) is not None
            if given:
                self._later(debt)  # what cannot be looked at is not fetched over and over
        finally:
            if not given:
                self._desk.give(size)

    def _fetch(self, debt: Debt, reader: Reader) -> Blob | None:
        """The object, under whichever of its possible hashes pict-rs has it; None for now, or for good where it lapses."""
        for format in formats_of(debt.claimed):
            key = Hash(debt.sha256, debt.ref.size, format).hex
            try:
                blob = reader.fetch(ObjectRef(debt.ref.store, key, debt.ref.size, key), min(debt.ref.size, self._limit))
            except Gone:
                continue
            except Lost as error:  # there, and not to be read: it may come back, and only a person may say that it will not
                log.warning("a debt waits for a file that pict-rs cannot read", sha256=debt.sha256, problem=str(error))
                self._later(debt)
                return None
            except Unreached as error:
                self._later(debt)
                if isinstance(error, Refused):  # it answers, and says no to this one: pict-rs 0.4 knows no content by its hash
                    log.warning("a debt waits for a scan", sha256=debt.sha256, problem=str(error))
                    return None
                raise
            except FediwardenError as error:  # too large, or being written: a scan will say the same
                log.warning("a debt could not be fetched", sha256=debt.sha256, problem=str(error))
                self._later(debt)
                return None
            if blob.sha256 == debt.sha256:
                return blob
        if self._clock() - debt.at >= self._lapse and self._ledger.watching.doubt(debt.ref.store) is not None:
            log.warning("a debt waits: what pict-rs lists is not believed just now", sha256=debt.sha256)
            self._later(debt)
        elif self._clock() - debt.at >= self._lapse:
            self._ledger.uploads.lapse([debt], "pict-rs does not have it", self._clock())
            log.warning("debt lapsed", sha256=debt.sha256)
        else:
            self._later(debt)
        return None

    def _later(self, debt: Debt) -> None:
        tries = self._tries.get(debt.id, (0, 0.0))[0] + 1
        self._tries[debt.id] = (tries, time.monotonic() + pause(tries))


def pause(failures: int) -> float:
    """Seconds to wait after so many failures in a row."""
    return min(EVERY * 2.0 ** min(failures, 16), SLOWEST)  # two to the power of a long night is no number any more
