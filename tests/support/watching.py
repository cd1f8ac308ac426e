"""A store's watch in memory for tests: stores with each signal, clocks to turn, and lives that end and begin again."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from threading import Event

from tests.support.core import PACE, Clock, Core

from fediwarden.model import ObjectRef
from fediwarden.stores.memory import EPOCH, MemoryStore
from fediwarden.watch.lanes import Turns, queued
from fediwarden.watch.session import Watched, signal_of
from fediwarden.watch.signals import Signal, first_key
from fediwarden.watch.state import Board
from fediwarden.watch.store import Bench, StoreWatch, WatchPlan

UNSETTLED = ("never looked at", "unreached", "changed since")
PLAN = WatchPlan(seconds=60, sweep_hours=24, requests_per_hour=100)


def key_at(moment: datetime, number: int = 0) -> str:
    """A key as pict-rs 0.5.7 makes it at that moment."""
    return f"{first_key(moment)}/7a/bc/9d/ef/{number:012x}.jpeg"


class DatedStore(MemoryStore):
    """Lists a stretch of its keys for one request a page."""

    def between(self, after: str, until: str) -> Iterator[Sequence[ObjectRef]]:
        self._step("list", "")
        with self._lock:
            page = [self._ref(key) for key in sorted(self._objects) if after < key < until]
        for start in range(0, len(page), 1000):
            yield page[start : start + 1000]


class NewestStore(MemoryStore):
    """Lists what came in last first, twenty to a page."""

    def newest(self) -> Iterator[Sequence[ObjectRef]]:
        with self._lock:
            refs = sorted((self._ref(key) for key in self._objects), key=lambda ref: ref.modified or EPOCH, reverse=True)
        for start in range(0, max(1, len(refs)), 20):
            self._step("list", "")
            yield refs[start : start + 20]


@dataclass
class Watching:
    """One store's watch, and what stands around it. `begin` starts another life on the same ledger."""

    store: MemoryStore = field(default_factory=MemoryStore)
    core: Core = field(default_factory=Core)
    plan: WatchPlan = PLAN
    seconds: float = 0.0  # of the clock that only goes forward
    choose: Callable[[], Signal] | None = None

    def __post_init__(self) -> None:
        self.begin()

    @property
    def clock(self) -> Clock:
        return self.core.clock

    def begin(self) -> StoreWatch:
        self.stop = Event()
        self.board = Board(3600, lambda: self.seconds)
        self.turns = Turns(PACE.workers, self.stop)
        watched = Watched(self.store, self.store, "s3://media")
        looker = self.core.looker
        bench = Bench(
            self.core.ledger,
            queued(looker, self.turns, arrival=True),
            queued(looker, self.turns, arrival=False),
            self.core.policy,
            replace(PACE, settle_seconds=0.01),
            self.clock,
            lambda: self.seconds,
            self.board,
            self.stop,
        )
        self.watch = StoreWatch(bench, self.store, self.store, self.choose or (lambda: signal_of(watched, self.clock)), self.plan)
        return self.watch

    def pass_time(self, **by: float) -> None:
        self.clock.turn(**by)
        self.seconds += max(0.0, timedelta(**by).total_seconds())

    def upload(self, data: bytes, number: int = 0, at: datetime | None = None) -> str:
        """As pict-rs would: the key tells when."""
        moment = at or self.clock()
        key = key_at(moment, number)
        self.store.put(key, data, modified=moment)
        return key

    def fill(self) -> None:
        """A round, and all that is due in the gaps."""
        self.watch.round()
        while self.watch.fill():
            continue

    def sweep(self) -> None:
        """A complete listing, and looks at what it finds."""
        self.watch.sweep()
        while self.watch.go_through_backlog():
            continue

    @property
    def not_looked_at(self) -> list[str]:
        """Objects in the store that this engine has not settled, whatever the ledger knows of them."""
        entries = {entry.ref.key: entry for entry in self.core.ledger.entries()}
        return [
            key
            for key in self.store.objects
            if key not in entries
            or entries[key].engine != self.core.engine
            or entries[key].gone
            or entries[key].lacking in UNSETTLED
        ]
