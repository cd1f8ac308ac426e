"""One store, watched: what is new at once, the back-catalogue in the gaps, and sweeps that prove nothing was missed.

    arrivals:  Signal.news() -> not met yet -> Scan          every few seconds, or as the store tells
    gaps:      Reader.list() -> Scan -> what is gone          a sweep, every so many hours or after an absence
               Ledger.watching.unsettled() -> Scan            what was not reached, or another engine version looked at

Every object is in the ledger before the position moves, so that whatever ends this process leaves the object to the gaps.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import chain
from threading import Event, Lock

import structlog

from fediwarden.errors import Unreached
from fediwarden.ledger import Ledger
from fediwarden.model import Blob, ObjectRef, RunId, StoreName
from fediwarden.pipeline import Looker, Pace, Scan, Tally
from fediwarden.policy import Policy
from fediwarden.stores.interface import Reader
from fediwarden.watch.board import Board
from fediwarden.watch.rhythm import Backoff, Budget
from fediwarden.watch.signals import Listing, Signal

log = structlog.get_logger("fediwarden")

MET = 20_000  # objects remembered as handed over, so that what the overlap shows again costs nothing
AT_ONCE = 500  # arrivals of one round that are looked at before the next question; the rest goes to the gaps
GAP_SECONDS = 15.0  # how often the gaps look whether something is due
RETRY_FIRST = 300.0  # seconds until what was not reached is tried again; doubles while nothing comes of it
RETRY_MOST = 6 * 3600.0
SILENT_FIRST, SILENT_MOST = 2.0, 300.0  # seconds between questions to a store that gives no answer
NOTED = timedelta(minutes=10)
SWEPT_AGAIN = 600.0  # seconds until a sweep that was cut off begins anew; doubles


@dataclass(frozen=True, slots=True)
class Plan:
    """How a store is watched, as the settings say."""

    seconds: float
    sweep_hours: float
    requests_per_hour: int


@dataclass(frozen=True, slots=True)
class Bench:
    """What every store's watch works with."""

    ledger: Ledger
    arrivals: Looker
    gaps: Looker
    policy: Policy
    pace: Pace
    clock: Callable[[], datetime]
    ticks: Callable[[], float]  # seconds that only go forward
    board: Board
    stop: Event


class StoreWatch:
    """Watches one store; `watch_arrivals` and `watch_gaps` run until the bench's stop, each in a thread of its own."""

    def __init__(self, bench: Bench, reader: Reader, asking: Reader, choose: Callable[[], Signal], plan: Plan) -> None:
        """
        Args:
            reader: fetches.
            asking: the same store, for listing only, so that the requests of the two are told apart.
            choose: makes the signal, on `asking`; may ask the store, and so raise Unreached.
        """
        self._bench = bench
        self._reader = reader
        self._asking = asking
        self._choose = choose
        self._chosen: Signal | None = None
        self._plan = plan
        self._budget = Budget(plan.requests_per_hour, bench.ticks)
        self._met: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._turn = Lock()  # a sweep begins between two rounds, never inside one
        self._hurry = Event()  # there is something for the gaps at once
        self._run: RunId | None = None
        self._remembered = bench.ledger.watching.mark(self._name_of_mark)
        self._must_sweep = False
        self._sweep_after = 0.0
        self._retry = Backoff(RETRY_FIRST, RETRY_MOST)
        self._retry_at = 0.0
        self._sweeps = Backoff(SWEPT_AGAIN, plan.sweep_hours * 3600)
        self._counted = asking.requests
        self._pause = 0.0  # what the last round cost, in seconds to wait until the next
        bench.board.store(self.name, swept=self._swept)

    @property
    def name(self) -> StoreName:
        """The store's name."""
        return self._reader.name

    @property
    def _signal(self) -> Signal:
        """The signal, chosen when it is first needed. Raises: Unreached, Refused."""
        if self._chosen is None:
            chosen = self._choose()
            self._chosen = chosen
            self._must_sweep = self._must_sweep or not chosen.bridges(self._position)
            self._bench.board.store(self.name, signal=chosen.kind)
        return self._chosen

    def wake(self) -> None:
        """End every waiting, for the stop."""
        self._hurry.set()
        if self._chosen is not None and self._chosen.told is not None:
            self._chosen.told.lose()

    def close(self) -> None:
        """End what runs by itself, and the run of arrivals on record."""
        if self._chosen is not None:
            self._chosen.close()
        if self._run is not None:
            run, self._run = self._run, None
            self._bench.ledger.end(run, "finished", {}, self._bench.clock())

    @property
    def _name_of_mark(self) -> str:
        return f"store {self._reader.name}"

    @property
    def _position(self) -> str:
        """Where the signal was; "" where another signal, or none, was used before."""
        position = self._remembered.get("position", "") if self._remembered.get("signal") == self._signal.kind else ""
        return str(position)

    @property
    def _swept(self) -> datetime | None:
        text = self._remembered.get("swept")
        return datetime.fromisoformat(str(text)) if text else None

    def _about_now(self) -> str:
        """When the store last told what is new, for `status`; written down a few times an hour only."""
        now = self._bench.clock()
        before = str(self._remembered.get("answered", ""))
        known = datetime.fromisoformat(before) if before else None
        return before if known is not None and timedelta(0) <= now - known < NOTED else now.isoformat()

    def _remember(self, **facts: object) -> None:
        now = {**self._remembered, "signal": self._signal.kind, **facts}
        if now != self._remembered:
            self._bench.ledger.watching.remember(self._name_of_mark, now, self._bench.clock())
            self._remembered = now

    # -- arrivals -----------------------------------------------------------------------------------------------------

    def watch_arrivals(self) -> None:
        """Ask, or be told, what is new, until the stop. Raises what is no matter of the store's: CannotWrite, errors of ours."""
        silent = Backoff(SILENT_FIRST, SILENT_MOST)
        while not self._bench.stop.is_set():
            try:
                self.round()
            except Unreached as error:
                self._bench.board.silent(self.name, str(error))
                log.warning("store unreached", store=self.name, problem=str(error), failures=silent.failures + 1)
                self._drop_events()
                self._bench.stop.wait(max(silent.failed(), min(self._budget.wait(), SILENT_MOST)))
                continue
            silent.worked()
            self._wait()

    def _drop_events(self) -> None:
        """What does not bridge an absence is of no use after one: choose again, and sweep."""
        with self._turn:
            if self._chosen is not None and self._chosen.told is not None:
                self._chosen.close()
                self._chosen = None

    def round(self) -> int:
        """One question for what is new, and looks at it; returns how many objects needed a look.

        Raises: Unreached, Refused: the position stays; what was told before that is in the ledger, and looked at.
        """
        with self._turn:
            signal, run = self._signal, self._its_run()
            position, beyond = self._position, 0
            batch: list[ObjectRef] = []
            failure: Unreached | None = None
            began, before = self._bench.ticks(), self._asking.requests
            try:
                for page in signal.news(position):
                    position = signal.advance(position, page)
                    unsettled = self._unsettled(run, page)
                    room = AT_ONCE - len(batch)
                    batch += unsettled[:room]
                    beyond += len(unsettled[room:])
                    if self._bench.stop.is_set():
                        return 0
            except Unreached as error:
                failure = error
            listing = self._bench.ticks() - began
            self._pause = max(listing * 100, (self._asking.requests - before) * 3600 / self._plan.requests_per_hour)
            self._count()
            self._take_lost()
            if batch:
                tally = self._scan(run, _Only(self._reader, iter([batch])), self._bench.arrivals, partial=True)
                self._measure(batch)
                if tally.unreached:
                    self._retry_at = min(self._retry_at, self._bench.ticks() + RETRY_FIRST)
            if beyond:
                self._retry_at = 0.0
                self._hurry.set()
            if failure is not None:
                raise failure
            self._remember(position=position, answered=self._about_now())
            self._bench.board.answered(self.name, len(batch) + beyond)
            return len(batch) + beyond

    def _unsettled(self, run: RunId, page: Sequence[ObjectRef]) -> list[ObjectRef]:
        """What of a page needs a look and was not handed over before; all of it is in the ledger's index then."""
        fresh = [ref for ref in page if (ref.key, ref.stamp) not in self._met]
        settled = self._bench.ledger.settle(run, fresh, self._bench.arrivals.engine, self._bench.pace.object_limit)
        for ref in fresh:
            self._met[ref.key, ref.stamp] = None
        while len(self._met) > MET:
            self._met.popitem(last=False)
        return [ref for ref in fresh if ref.key not in settled]

    def _take_lost(self) -> None:
        told = self._signal.told
        if told is not None and told.take_lost():
            self._must_sweep = True
            self._hurry.set()

    def _measure(self, batch: Sequence[ObjectRef]) -> None:
        now = self._bench.clock()
        for ref in batch:
            if ref.modified is not None:
                self._bench.board.lagged(self.name, max(0.0, (now - ref.modified).total_seconds()))

    def _wait(self) -> None:
        told = self._signal.told
        if told is not None:
            told.wait(self._plan.seconds, self._bench.stop)
        else:
            # a question may cost a thousand requests, or minutes of a disk: the more it costs, the rarer it is asked
            self._bench.stop.wait(max(self._plan.seconds, self._budget.wait(), self._pause))

    # -- gaps ---------------------------------------------------------------------------------------------------------

    def watch_gaps(self) -> None:
        """Sweep when that is due, and go through what still needs a look, until the stop. Raises as `watch_arrivals`."""
        while not self._bench.stop.is_set():
            try:
                busy = self.fill()
            except Unreached as error:
                log.warning("store unreached", store=self.name, problem=str(error))
                busy = False
            if not busy:
                self._hurry.wait(GAP_SECONDS)
                self._hurry.clear()

    def fill(self) -> bool:
        """Do one thing that is due; False where nothing is."""
        if self._sweep_is_due():
            self.sweep()
            return True
        if self._bench.ticks() >= self._retry_at:
            return self.go_through_backlog() is not None
        return False

    def _sweep_is_due(self) -> bool:
        """Raises: Unreached where the signal is not chosen yet, and cannot be."""
        with self._turn:
            _ = self._signal
        if self._bench.ticks() < self._sweep_after:
            return False
        swept = self._swept
        if self._must_sweep or swept is None:
            return True
        age = self._bench.clock() - swept
        return age >= timedelta(hours=self._plan.sweep_hours) or age < timedelta(0)  # the clock was set back: nothing is proved

    def sweep(self) -> Tally:
        """A complete listing; looks at everything in it that is not settled, and notes what is gone."""
        self._until_listening()
        began = self._bench.clock()
        first = self._swept is None
        with self._turn:
            run = self._begin("sweep")
            self._run = None  # rounds that begin from here on carry a later number than the sweep, and so outlast it
        self._must_sweep = False
        self._bench.board.store(self.name, sweeping=True)
        paced = _Only(self._reader, self._pages(unpaced=first))
        try:
            tally = self._scan(run, paced, self._bench.gaps, partial=False)
        except BaseException:
            self._must_sweep = True
            self._sweep_after = self._bench.ticks() + self._sweeps.failed()
            raise
        finally:
            self._count()
            self._bench.board.store(self.name, sweeping=False)
        if tally.stores_down or self._bench.stop.is_set():
            self._must_sweep = True
            self._sweep_after = self._bench.ticks() + self._sweeps.failed()
        else:
            self._sweeps.worked()
            self._sweep_after = 0.0
            self._choose_again()
            self._remember(swept=began.isoformat())
            self._bench.board.store(self.name, swept=began)
        self._end(run, tally)
        return tally

    def _choose_again(self) -> None:
        """A store that was listed whole for want of dated keys may have some by now."""
        with self._turn:
            if isinstance(self._chosen, Listing):
                self._chosen = None

    def go_through_backlog(self) -> Tally | None:
        """Look at what the ledger knows to need it, without listing the store; None where there is nothing."""
        unsettled = self._bench.ledger.watching.unsettled(self.name, self._bench.gaps.engine, self._bench.pace.object_limit)
        first = next(unsettled, None)
        if first is None:
            self._retry.worked()
            self._retry_at = self._bench.ticks() + RETRY_FIRST
            return None
        self._hurry.clear()
        self._bench.board.store(self.name, backlog=True)
        run = self._begin("backlog")
        try:
            tally = self._scan(run, _Only(self._reader, chain([first], unsettled)), self._bench.gaps, partial=True)
        finally:
            self._bench.board.store(self.name, backlog=False)
        if tally.seen + tally.broken + tally.gone:
            self._retry.worked()
        self._retry_at = self._bench.ticks() + self._retry.failed()
        self._end(run, tally)
        return tally

    # -- both ---------------------------------------------------------------------------------------------------------

    def _scan(self, run: RunId, reader: Reader, looker: Looker, *, partial: bool) -> Tally:
        bench = self._bench
        scan = Scan(bench.ledger, looker, bench.policy, bench.pace, bench.clock, partial=partial, counting=False)
        last = Tally()

        def progress(tally: Tally) -> None:
            nonlocal last
            if tally != last:
                bench.board.looked(last, tally)
                last = replace(tally)
            if bench.stop.is_set():
                scan.stop()

        return scan.run(run, [reader], progress)

    def _its_run(self) -> RunId:
        if self._run is None:
            self._run = self._begin("arrivals")
        return self._run

    def _begin(self, what: str) -> RunId:
        return self._bench.ledger.begin("watch", {"store": self.name, "what": what}, self._bench.clock())

    def _end(self, run: RunId, tally: Tally) -> None:
        counts = {"listed": tally.listed, "skipped": tally.skipped, "seen": tally.seen, "not_scanned": tally.not_scanned}
        stopped = "interrupted" if self._bench.stop.is_set() else "finished"
        self._bench.ledger.end(run, stopped, {**counts, "flagged": tally.flagged}, self._bench.clock())

    def _count(self) -> None:
        """Take the listing requests since the last time from the budget."""
        requests = self._asking.requests
        spent, self._counted = requests - self._counted, requests
        self._budget.spend(max(0, spent))
        self._bench.board.store(
            self.name,
            signal=self._signal.kind,
            requests=requests + self._reader.requests,
            listing_last_hour=self._budget.last_hour,
        )

    def _pages(self, *, unpaced: bool) -> Iterator[Sequence[ObjectRef]]:
        """A complete listing, as fast as the requests per hour allow. Raises: Unreached when everything ends meanwhile."""
        for page in self._asking.list():
            yield page
            self._count()
            if not unpaced and self._asking.requests:
                self._bench.stop.wait(self._budget.wait())
            if self._bench.stop.is_set():
                raise Unreached("the listing was stopped")

    def _until_listening(self) -> None:
        """What comes in while a sweep lists must be told: wait until the file system is listened to."""
        while (told := self._signal.told) is not None and not told.ready.wait(1.0) and not self._bench.stop.is_set():
            continue


class _Only:
    """A reader that lists what it is given."""

    def __init__(self, reader: Reader, pages: Iterator[Sequence[ObjectRef]]) -> None:
        self._reader = reader
        self._pages = pages

    @property
    def name(self) -> StoreName:
        return self._reader.name

    @property
    def requests(self) -> int:
        return self._reader.requests

    def list(self) -> Iterator[Sequence[ObjectRef]]:
        return self._pages

    def stat(self, key: str) -> ObjectRef:
        return self._reader.stat(key)

    def fetch(self, ref: ObjectRef, limit: int) -> Blob:
        return self._reader.fetch(ref, limit)

    def close(self) -> None:
        """The reader is somebody else's."""
