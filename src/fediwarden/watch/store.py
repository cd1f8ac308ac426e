"""One store, watched: what is new at once, the back-catalogue in the gaps, and sweeps that prove nothing was missed.

    arrivals:  Signal.news() -> not met yet -> Scan          every few seconds, or as the store tells
    gaps:      Reader.list() -> what is new, what is gone     a sweep, every so many hours or after an absence
               Ledger.watching.unsettled() -> Scan            what was not reached, or another engine version looked at

Every object is in the ledger before the position moves, so that whatever ends this process leaves the object to the gaps.
A sweep only lists, page by page as the requests allow; what it finds is looked at between its pages.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from threading import Event, Lock

import structlog

from fediwarden.backoff import Backoff
from fediwarden.errors import Lost, Unreached
from fediwarden.ledger import Ledger
from fediwarden.model import Blob, ObjectRef, RunId, StoreName
from fediwarden.pipeline import Looker, Pace, Scan, Spread, Tally, conclude, unreadable
from fediwarden.policy import Policy
from fediwarden.stores.interface import Accounting, Proving, Reader
from fediwarden.watch.request_budget import RequestBudget
from fediwarden.watch.signals import Listing, Signal
from fediwarden.watch.state import Board

log = structlog.get_logger("fediwarden")

MET = 20_000  # objects remembered as handed over, so that what the overlap shows again costs nothing
AT_ONCE = 500  # arrivals that are looked at before the next question
LEFT = 20_000  # arrivals that wait for their look; what is over it goes to the gaps
LATER = (30.0, 120.0, 480.0, 1920.0)  # seconds until an arrival that was not reached is tried again; then it goes to the gaps
LATER_BOUND = 5_000  # of them that are remembered
COUNTED = ("listed", "skipped", "seen", "broken", "gone", "unreached", "not_scanned", "flagged")
UNSEEN = ("never looked at", "unreached", "changed since")
DISK_AT_REST = 100  # times as long as a folder was listed, it is left alone
GAP_SECONDS = 15.0  # how often the gaps look whether something is due
LISTENING = 0.5  # the same, while a folder is not listened to yet
STRETCH, STRETCH_SECONDS = (
    50,
    30.0,
)  # the back-catalogue is gone through in stretches, so that a sweep need not wait for all of it
RETRY_FIRST = 300.0  # seconds until what was not reached is tried again; doubles while nothing comes of it
RETRY_MOST = 6 * 3600.0
SILENT_FIRST, SILENT_MOST = 2.0, 300.0  # seconds between questions to a store that gives no answer
NOTED = timedelta(minutes=10)
SWEPT_AGAIN = 600.0  # seconds until a sweep that was cut off begins anew; doubles


@dataclass(frozen=True, slots=True)
class WatchPlan:
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


@dataclass(slots=True)
class _Sweep:
    """A complete listing under way."""

    run: RunId
    began: datetime
    pages: Iterator[Sequence[ObjectRef]]
    unbounded: bool  # the first one: until it has ended nobody knows what is there
    listed: int = 0
    skipped: int = 0
    unchanged: Spread = field(default_factory=Spread)


@dataclass(slots=True)
class _Pass:
    """The back-catalogue as it is gone through, from its newest key to its oldest."""

    run: RunId
    pages: Iterator[Sequence[ObjectRef]]
    rest: Sequence[ObjectRef] = ()
    counts: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class _Later:
    """Arrivals that were not reached."""

    due: float
    tries: int
    refs: Sequence[ObjectRef]


class _Claims:
    """Which objects are being looked at, so that arrivals and gaps never look at the same one."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._keys: set[str] = set()

    def take(self, refs: Sequence[ObjectRef]) -> list[ObjectRef]:
        """Those of them that were free; they are the caller's until `give`."""
        with self._lock:
            free = [ref for ref in refs if ref.key not in self._keys]
            self._keys.update(ref.key for ref in free)
            return free

    def give(self, refs: Sequence[ObjectRef]) -> None:
        """They are free again."""
        with self._lock:
            self._keys.difference_update(ref.key for ref in refs)


class StoreWatch:
    """Watches one store; `watch_arrivals` and `watch_gaps` run until the bench's stop, each in a thread of its own."""

    def __init__(self, bench: Bench, reader: Reader, asking: Reader, choose: Callable[[], Signal], plan: WatchPlan) -> None:
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
        self._budget = RequestBudget(plan.requests_per_hour, bench.ticks)
        self._turn = Lock()  # a sweep begins between two rounds, never inside one
        self._small = Lock()  # over what both threads write: the mark, and what was counted
        self._remembered = bench.ledger.watching.mark(self._name_of_mark)
        self._counted = asking.requests
        # arrivals
        self._met: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._left: deque[ObjectRef] = deque()
        self._later: deque[_Later] = deque()
        self._busy: list[ObjectRef] = []  # told while the gaps looked at them: they may have changed meanwhile
        self._run: RunId | None = None
        self._pause = 0.0  # what the last question cost, in seconds to wait until the next
        self._asked = 0.0
        self._silent = False
        self.asking = False  # whether arrivals wait for the store's answer, and so hold nothing that could be lost
        # gaps
        self._fetched = False  # something was, since the last sweep began
        self._lost_the_old = False  # what is new can be read, and what was there before not; only another sweep ends it
        self._down = False  # it tells what is new, and hands nothing out
        self._claims = _Claims()
        self._hurry = Event()  # there is something for the gaps at once
        self._more = False  # something came to the back-catalogue that a pass under way may have gone by
        self._must_sweep = False
        self._sweep_after = 0.0
        self._sweeping: _Sweep | None = None
        self._passing: _Pass | None = None
        self._retry = Backoff(RETRY_FIRST, RETRY_MOST)
        self._retry_at = 0.0
        self._sweeps = Backoff(SWEPT_AGAIN, plan.sweep_hours * 3600)
        bench.board.store(self.name, swept=self._swept)

    @property
    def name(self) -> StoreName:
        """The store's name."""
        return self._reader.name

    def wake(self) -> None:
        """End every waiting, for the stop."""
        self._hurry.set()
        chosen = self._chosen
        if chosen is not None:
            chosen.stop()

    def close(self) -> None:
        """End what runs by itself, and the run of arrivals on record."""
        if self._chosen is not None:
            self._chosen.close()
        self._end_arrivals()

    def _signal(self) -> Signal:
        """The signal, chosen when it is first needed; `_turn` is held. Raises: Unreached, Refused."""
        if self._chosen is None:
            chosen = self._choose()
            self._chosen = chosen
            self._must_sweep = self._must_sweep or not chosen.bridges(self._position(chosen))
            self._bench.board.store(self.name, signal=chosen.kind)
        return self._chosen

    @property
    def _name_of_mark(self) -> str:
        return f"store {self._reader.name}"

    def _position(self, signal: Signal) -> str:
        """Where the signal was; "" where another signal, or none, was used before."""
        return str(self._remembered.get("position", "")) if self._remembered.get("signal") == signal.kind else ""

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
        with self._small:
            now = {**self._remembered, **facts}
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
                self._bench.stop.wait(max(silent.failed(), min(self._pause, SILENT_MOST)))
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
        failure: Unreached | None = None
        found = 0
        if not self._left or self._bench.ticks() >= self._next:
            try:
                found = self._ask()
            except Unreached as error:
                failure = error
                self._silent = True
            else:
                self._answered(found)
        self._try_later_ones()
        self._look_at_arrivals()
        if failure is not None:
            raise failure
        return found

    def _ask(self) -> int:
        """Ask what is new, and put it into the ledger and among those that wait; returns how many they are."""
        self.asking = True
        try:
            return self._ask_now()
        finally:
            self.asking = False

    def _ask_now(self) -> int:
        with self._turn:
            began, before = self._bench.ticks(), self._asking.requests
            found, first = 0, False  # `first`: it went back for weeks, once, as the first sweep lists everything
            try:
                signal, run = self._signal(), self._its_run()
                position = self._position(signal)
                known = position
                if self._busy:
                    busy, self._busy = self._busy, []
                    found += self._take_in(self._unsettled(run, busy))
                try:
                    for page in signal.news(position):
                        position = signal.advance(position, page)
                        found += self._take_in(self._unsettled(run, page))
                        if self._bench.stop.is_set():
                            return found
                except BaseException:
                    self._must_sweep = self._must_sweep or signal.told is not None  # what it told is told only once
                    raise
                self._take_lost(signal)
                self._bench.board.store(self.name, signal=signal.kind)
                self._remember(signal=signal.kind, position=position, answered=self._about_now())
                first = signal.goes_on and not known
            finally:
                self._asked = self._bench.ticks()
                # a question may cost a thousand requests, or minutes of a disk: the more it costs, the rarer it is asked
                spent = self._asking.requests - before
                per_request = 3600 / self._plan.requests_per_hour
                self._pause = spent * per_request if spent else (self._asked - began) * DISK_AT_REST
                if first:  # what comes in does not wait for that; a first question without a whole answer pays for itself
                    self._pause = 0.0
                self._count()
            return found

    @property
    def _next(self) -> float:
        """When the next question is due."""
        return self._asked + max(self._plan.seconds, self._pause)

    def _answered(self, found: int) -> None:
        self._bench.board.answered(self.name, found, self._next)
        if self._must_sweep and self._sweeping is None:
            self._hurry.set()
        if self._silent:  # what was not reached meanwhile can be
            self._silent = False
            self._later = deque(replace(group, due=0.0) for group in self._later)
            self._retry.worked()
            self._hand_to_gaps()

    def _hand_to_gaps(self) -> None:
        self._more = True
        self._retry_at = 0.0
        self._hurry.set()

    def _unsettled(self, run: RunId, page: Sequence[ObjectRef]) -> list[ObjectRef]:
        """What of a page needs a look and was not handed over before; all of it is in the ledger's index then."""
        fresh = [ref for ref in page if (ref.key, ref.stamp) not in self._met]
        settled = self._bench.ledger.settle(run, fresh, self._bench.arrivals.engine, self._bench.pace.object_limit)
        for ref in fresh:
            self._met[ref.key, ref.stamp] = None
        while len(self._met) > MET:
            self._met.popitem(last=False)
        return [ref for ref in fresh if ref.key not in settled]

    def _take_in(self, refs: Sequence[ObjectRef]) -> int:
        """Let them wait for their look; what there is no room for goes to the gaps. Returns how many they are."""
        room = max(0, LEFT - len(self._left))
        mine = self._claims.take(refs[:room])
        self._left += mine
        free = {ref.key for ref in mine}
        for ref in refs[:room]:
            if ref.key not in free:
                self._met.pop((ref.key, ref.stamp), None)
                self._busy.append(ref)
        self._bench.board.store(self.name, left=len(self._left))
        if len(refs) > room:
            self._hand_to_gaps()
        return len(refs)

    def _try_later_ones(self) -> None:
        now = self._bench.ticks()
        for _ in range(len(self._later)):
            group = self._later.popleft()
            if group.due > now:
                self._later.append(group)
            else:
                self._look(self._claims.take(group.refs), group.tries)
            if self._bench.stop.is_set():
                return

    def _look_at_arrivals(self) -> None:
        batch = [self._left.popleft() for _ in range(min(AT_ONCE, len(self._left)))]
        if batch:
            self._look(batch, 0)
            self._bench.board.store(self.name, left=len(self._left))

    def _look(self, batch: Sequence[ObjectRef], tries: int) -> None:
        """Look at arrivals, which are claimed; those that were not reached are tried again later."""
        if not batch:
            return
        try:
            pages = (batch[start : start + STRETCH] for start in range(0, len(batch), STRETCH))
            tally = self._scan(self._its_run(), _Only(self._reader, pages), self._bench.arrivals)
        except BaseException:
            self._hand_to_gaps()
            raise
        finally:
            self._claims.give(batch)
            self._count()
        failed = self._unseen(batch) if tally.unreached or tally.stores_down else []
        unreached = {ref.key for ref in failed}
        self._measure([ref for ref in batch if ref.key not in unreached])
        if failed and tries < len(LATER) and sum(len(group.refs) for group in self._later) < LATER_BOUND:
            self._later.append(_Later(self._bench.ticks() + LATER[tries], tries + 1, failed))
        elif failed:
            self._retry_at = min(self._retry_at, self._bench.ticks() + RETRY_FIRST)
        if self._down and tally.seen:  # it hands out objects again
            self._hand_to_gaps()

    def _unseen(self, batch: Sequence[ObjectRef]) -> list[ObjectRef]:
        found = []
        for ref in batch:
            entry = self._bench.ledger.entry(ref.store, ref.key)
            if entry is None or (not entry.gone and entry.lacking in UNSEEN):
                found.append(ref)
        return found

    def _take_lost(self, signal: Signal) -> None:
        if signal.told is not None and signal.told.take_lost():
            self._must_sweep = True
            self._hurry.set()

    def _measure(self, batch: Sequence[ObjectRef]) -> None:
        now = self._bench.clock()
        for ref in batch:
            if ref.modified is not None:
                self._bench.board.lagged(self.name, max(0.0, (now - ref.modified).total_seconds()))

    def _wait(self) -> None:
        if self._left:
            return
        due = min((group.due for group in self._later), default=self._next)
        chosen = self._chosen
        seconds = max(0.0, min(self._next, due) - self._bench.ticks())
        if chosen is not None and chosen.told is not None:
            chosen.told.wait(seconds, self._bench.stop)
        else:
            self._bench.stop.wait(seconds)

    # -- gaps ---------------------------------------------------------------------------------------------------------

    def watch_gaps(self) -> None:
        """Sweep when that is due, and go through what still needs a look, until the stop. Raises as `watch_arrivals`."""
        while not self._bench.stop.is_set():
            if not self.fill():
                self._hurry.wait(GAP_SECONDS if self._listening else LISTENING)
                self._hurry.clear()

    @property
    def _listening(self) -> bool:
        """Whether a signal was chosen and, where it listens to a folder, has begun to."""
        chosen = self._chosen
        return chosen is not None and (chosen.told is None or chosen.told.ready.is_set())

    def fill(self) -> bool:
        """Do one thing that is due; False where nothing is."""
        if self._silent or self._chosen is None:
            return False  # arrivals ask until it answers, and nobody else has to
        if self._sweeping is None and self._sweep_is_due():
            self._begin_sweep()
        if self._sweeping is not None and self._may_list(self._sweeping):
            self._sweep_on(self._sweeping)
            return True
        if self._passing is not None or self._bench.ticks() >= self._retry_at:
            return self.go_through_backlog()
        return False

    def _sweep_is_due(self) -> bool:
        if self._bench.ticks() < self._sweep_after:
            return False
        if not self._listening:
            return False  # what comes in while a sweep lists must be told
        swept = self._swept
        if self._must_sweep or swept is None:
            return True
        age = self._bench.clock() - swept
        return age >= timedelta(hours=self._plan.sweep_hours) or age < timedelta(0)  # the clock was set back: nothing is proved

    def sweep(self) -> None:
        """A complete listing at once, however much it costs; notes what is new and what is gone."""
        if self._sweeping is None:
            self._begin_sweep()
        while self._sweeping is not None and not self._bench.stop.is_set():
            self._sweep_on(self._sweeping)

    def _begin_sweep(self) -> None:
        began = self._bench.clock()
        with self._turn:
            run = self._begin("sweep")
            self._end_arrivals()  # rounds that begin from here on carry a later number than the sweep, and so outlast it
            self._must_sweep = False
            self._fetched = False
        self._sweeping = _Sweep(run, began, iter(self._asking.list()), unbounded=self._swept is None)

    def _may_list(self, sweep: _Sweep) -> bool:
        return sweep.unbounded or not self._asking.requests or self._budget.wait() == 0.0

    def _sweep_on(self, sweep: _Sweep) -> None:
        """One page more. A sweep that is cut off declares nothing gone, and is due again."""
        try:
            page = next(sweep.pages, None)
            if page is None:
                self._conclude(sweep)
                return
            settled = self._bench.ledger.settle(sweep.run, page, self._bench.gaps.engine, self._bench.pace.object_limit)
        except BaseException as error:
            self._sweeping = None
            self._must_sweep = True
            self._sweep_after = self._bench.ticks() + self._sweeps.failed()
            if not isinstance(error, Unreached):
                raise
            log.warning("store unreached", store=self.name, problem=str(error), doing="sweep")
            self._close_sweep(sweep, "interrupted")
            return
        finally:
            self._count()
        sweep.listed += len(page)
        sweep.skipped += len(settled)
        sweep.unchanged.add([ref for ref in page if ref.key in settled])
        if len(settled) < len(page):
            self._hand_to_gaps()

    def _conclude(self, sweep: _Sweep) -> None:
        """Nobody is here to say that what is missing is gone: a listing that is not believed stays so, and is made again."""
        accounted = self._asking.accounted if isinstance(self._asking, Accounting) else 0
        bench = self._bench
        doubt = conclude(bench.ledger, sweep.run, self.name, sweep.listed, bench.clock(), accounted=accounted).doubt
        bench.board.store(self.name, doubt=doubt.words if doubt else "")
        problem = "" if doubt is not None else self._unreadable(sweep)
        if doubt is None and not problem:
            self._end_sweep(sweep)
            return
        if doubt is None:
            log.warning("store unreached", store=self.name, problem=problem, doing="sweep")
        else:
            log.warning(
                "listing not believed", store=self.name, listed=doubt.listed, accepted=doubt.accepted, missing=doubt.missing
            )
        self._sweeping = None
        self._must_sweep = True
        self._sweep_after = bench.ticks() + self._sweeps.failed()
        self._close_sweep(sweep, "not believed" if doubt is not None else "files not read")

    def _unreadable(self, sweep: _Sweep) -> str:
        """Why the store can read none of the files that it had before; "" where it reads one of them."""
        known = sweep.unchanged.refs
        problem = unreadable(self._asking, known, fetched=self._fetched) if isinstance(self._asking, Proving) else None
        words = "" if problem is None else str(problem)
        self._lost_the_old = isinstance(problem, Lost)
        self._bench.board.store(self.name, unreadable=words)
        return words

    def _end_sweep(self, sweep: _Sweep) -> None:
        self._sweeping = None
        self._sweeps.worked()
        self._sweep_after = 0.0
        self._remember(swept=sweep.began.isoformat())
        self._bench.board.store(self.name, swept=sweep.began)
        self._close_sweep(sweep, "finished")
        with self._turn:
            if isinstance(self._chosen, Listing):  # for want of dated keys; there may be some by now
                self._chosen = None
                try:
                    self._signal()
                except Unreached as error:
                    log.warning("store unreached", store=self.name, problem=str(error))

    def _close_sweep(self, sweep: _Sweep, outcome: str) -> None:
        self._bench.ledger.end(sweep.run, outcome, {"listed": sweep.listed, "skipped": sweep.skipped}, self._bench.clock())

    def go_through_backlog(self) -> bool:
        """Look at a stretch of what the ledger knows to need it, without listing the store; False where nothing is left."""
        now = self._passing
        if now is not None and not self._more:
            page = now.rest or next(now.pages, ())
        else:  # from its first key on
            self._more = False
            pages = self._bench.ledger.watching.unsettled(self.name, self._bench.gaps.engine, self._bench.pace.object_limit)
            page = next(pages, ())
            if now is not None:
                now.pages = pages
            elif page:
                now = self._passing = _Pass(self._begin("backlog"), pages)
            else:
                self._retry.worked()
                self._retry_at = self._bench.ticks() + RETRY_FIRST
                return False
        now.rest = ()
        if not page:
            self._end_pass(now)
            return False
        mine = self._claims.take(page)
        try:
            tally = self._scan(now.run, _Only(self._reader, self._stretches(now, mine)), self._bench.gaps)
        except BaseException:
            self._passing = None
            self._retry_at = self._bench.ticks() + self._retry.failed()
            raise
        finally:
            self._claims.give(mine)
            self._count()
        now.counts.update({name: getattr(tally, name) for name in COUNTED})
        self._down = bool(tally.stores_down)
        if self._down:
            self._end_pass(now)
            self._retry_at = self._bench.ticks() + RETRY_FIRST
        return True

    def _stretches(self, now: _Pass, refs: Sequence[ObjectRef]) -> Iterator[Sequence[ObjectRef]]:
        """The objects of a page, until a while has passed; the rest waits."""
        began = self._bench.ticks()
        for start in range(0, len(refs), STRETCH):
            if start and self._bench.ticks() - began > STRETCH_SECONDS:
                now.rest = refs[start:]
                return
            yield refs[start : start + STRETCH]

    def _end_pass(self, now: _Pass) -> None:
        self._passing = None
        if now.counts["seen"] + now.counts["broken"] + now.counts["gone"]:
            self._retry.worked()
        self._retry_at = 0.0 if self._more else self._bench.ticks() + self._retry.failed()
        self._bench.ledger.end(now.run, "finished", dict(now.counts), self._bench.clock())

    # -- both ---------------------------------------------------------------------------------------------------------

    def _scan(self, run: RunId, reader: Reader, looker: Looker) -> Tally:
        bench = self._bench
        scan = Scan(bench.ledger, looker, bench.policy, bench.pace, bench.clock, partial=True, counting=False)
        last = Tally()

        def progress(tally: Tally) -> None:
            nonlocal last
            if tally != last:
                bench.board.looked(last, tally)
                if looker is bench.arrivals:
                    bench.board.expect(self.name, bench.ticks() + self._plan.seconds)
                last = replace(tally)
            if bench.stop.is_set():
                scan.stop()

        with bench.board.looking():
            tally = scan.run(run, [reader], progress)
        if tally.fetched:
            self._fetched = True
            if not self._lost_the_old:
                bench.board.store(self.name, unreadable="")
        return tally

    def _its_run(self) -> RunId:
        if self._run is None:
            self._run = self._begin("arrivals")
        return self._run

    def _end_arrivals(self) -> None:
        if self._run is not None:
            run, self._run = self._run, None
            self._bench.ledger.end(run, "finished", {}, self._bench.clock())

    def _begin(self, what: str) -> RunId:
        return self._bench.ledger.begin("watch", {"store": self.name, "what": what}, self._bench.clock())

    def _count(self) -> None:
        """Take the listing requests since the last time from the budget."""
        with self._small:
            requests = self._asking.requests
            spent, self._counted = requests - self._counted, requests
            self._budget.spend(max(0, spent))
        self._bench.board.store(self.name, requests=requests + self._reader.requests, listing_last_hour=self._budget.last_hour)


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
