"""A watch at work: the parts of every store, of acting, telling and measuring, under one supervisor; decides nothing itself."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import structlog

from fediwarden.errors import FediwardenError, Refused
from fediwarden.stores.interface import NewestFirst, Ordered, Reader
from fediwarden.stores.url import TargetKind, parse_target
from fediwarden.watch.metrics import MetricsPage
from fediwarden.watch.signals import DatedKeys, Elsewhere, FolderEvents, Listing, Newest, Signal, dated
from fediwarden.watch.state import Board
from fediwarden.watch.store import Bench, StoreWatch, WatchPlan
from fediwarden.watch.supervisor import Part, Supervisor

log = structlog.get_logger("fediwarden")


@dataclass(frozen=True, slots=True)
class Watched:
    """One store to watch."""

    reader: Reader  # fetches
    asking: Reader  # lists
    url: str
    through: str = ""  # the pict-rs store that tells of what comes in here
    overlap: timedelta = timedelta(hours=1)


def signal_of(store: Watched, clock: Callable[[], datetime]) -> Signal:
    """The cheapest signal this store offers; may ask it once. Raises: Unreached, Refused."""
    target = parse_target(store.url)
    if store.through:
        return Elsewhere(store.through)
    if isinstance(store.asking, NewestFirst):
        try:
            store.asking.newest()
        except Refused:  # a pict-rs 0.4
            return Listing(store.asking)
        return Newest(store.asking, store.overlap, clock)
    if isinstance(store.asking, Ordered) and dated(store.asking, target.prefix, clock()):
        return DatedKeys(store.asking, target.prefix, store.overlap, clock)
    if target.kind is TargetKind.FOLDER and FolderEvents.possible():
        return FolderEvents(store.asking, Path(target.path))
    return Listing(store.asking)


class Watch:
    """Everything that runs. Make one, `start` it, and `end` it."""

    def __init__(
        self,
        bench: Bench,
        stores: Sequence[Watched],
        plan: WatchPlan,
        more: Sequence[Part],
        page: Callable[[], MetricsPage] | None,
    ) -> None:
        """
        Args:
            more: parts besides those of the stores.
            page: opens the page of metrics.
        """
        self._bench = bench
        self._open_page = page
        self.page: MetricsPage | None = None
        self.stores = [
            StoreWatch(bench, store.reader, store.asking, lambda store=store: signal_of(store, bench.clock), plan)  # type: ignore[misc]
            for store in stores
        ]
        parts = [
            part
            for store in self.stores
            for part in (
                Part(f"arrivals {store.name}", store.watch_arrivals, lambda store=store: store.asking),  # type: ignore[misc]
                Part(f"gaps {store.name}", store.watch_gaps),
            )
        ]
        self._supervisor = Supervisor([*parts, *more], bench.stop, bench.board.restarted)

    @property
    def board(self) -> Board:
        """What is known about the watching."""
        return self._bench.board

    @property
    def complete(self) -> bool:
        """Whether every part runs, or waits to run again."""
        return self._supervisor.complete

    def start(self) -> None:
        """Start every part. Raises: Misconfigured where the page of metrics cannot be opened."""
        if self._open_page is not None:
            self.page = self._open_page()
        self._supervisor.start()

    def end(self) -> None:
        """End every part within five seconds; what was finished is recorded."""
        for store in self.stores:
            store.wake()
        late = self._supervisor.end()
        if late:
            log.warning("parts did not end in time", parts=late)
        if self.page is not None:
            self.page.close()
        for store in self.stores:
            try:
                store.close()
            except FediwardenError as error:
                log.warning("store not closed", store=store.name, problem=str(error))
