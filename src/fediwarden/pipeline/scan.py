"""The threads of one run over some stores, and the queues between them; decides nothing itself."""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from queue import Empty, Full, Queue
from threading import Event, Lock, Thread

import structlog

from fediwarden.errors import CannotWrite, FediwardenError, Gone, Lost, Refused, TooLarge, Unreached, Unsettled
from fediwarden.ledger import Ledger
from fediwarden.model import (
    Blob,
    Decision,
    Look,
    ObjectRef,
    Reason,
    RunId,
    Sha256,
    Standing,
    Step,
    StoreName,
)
from fediwarden.pipeline.bounds import PATIENCE, Bytes, Health, InFlight
from fediwarden.pipeline.listing import conclude
from fediwarden.pipeline.looker import Looker
from fediwarden.pipeline.proving import LOST_STORE, Spread, all_lost, reads_nothing, unreadable
from fediwarden.pipeline.tally import Pace, Tally
from fediwarden.policy import Policy, decide
from fediwarden.stores.interface import Accounting, Proving, Reader

log = structlog.get_logger("fediwarden")

COMMIT_EVERY = 64  # looks in one transaction at most
COMMIT_SECONDS = 2.0  # and no look waits longer than this for its transaction
YOUNG_BOUND = 10_000  # objects still being written that are remembered for the end of the run
HANGS = 1.0  # seconds that a thread which lists or fetches is waited for at the end
END_SECONDS = 3.0  # how long the threads may take to hand over what they have when a run ends
DOUBTED = (
    "see that the disk is mounted, that it is the same server, and that it has its database; if the objects are gone indeed, "
    "`fediwarden scan STORE --accept-gone` takes your word for it"
)
LISTED_ONLY = "the store lists it and does not hand it out"


@dataclass(frozen=True, slots=True)
class _Job:
    reader: Reader
    ref: ObjectRef
    last_try: bool = False


@dataclass(frozen=True, slots=True)
class _Page:
    listed: int
    skipped: int


class Scan:
    """One run over some stores. Make one, call `run` once."""

    def __init__(
        self,
        ledger: Ledger,
        looker: Looker,
        policy: Policy,
        pace: Pace,
        clock: Callable[[], datetime],
        *,
        again: bool = False,
        partial: bool = False,
        counting: bool = True,
        accept_gone: bool = False,
    ) -> None:
        """
        Args:
            again: look at everything, settled or not.
            partial: the readers list less than the store holds, so that what they do not list is not gone.
            counting: list a second time for an estimate, where there is enough to wait for.
            accept_gone: a person's word that what the stores do not list is gone, however much it is.
        """
        self._ledger = ledger
        self._looker = looker
        self._policy = policy
        self._pace = pace
        self._clock = clock
        self._again = again
        self._partial = partial
        self._counting = counting
        self._accept_gone = accept_gone
        self._doubted: frozenset[StoreName] = frozenset()  # stores of which an earlier listing was not believed
        self._stop = Event()
        self._budget = Bytes(pace.in_flight)
        self._in_flight = InFlight()
        self._health = Health()
        self._jobs: Queue[_Job] = Queue(maxsize=4 * pace.fetchers)
        self._blobs: Queue[tuple[Blob, int]] = Queue(maxsize=2 * pace.workers)
        self._events: Queue[_Page | Look] = Queue(maxsize=1024)
        self._young: deque[_Job] = deque()
        self._young_lock = Lock()
        self._listed: Counter[StoreName] = Counter()
        self._unchanged: dict[StoreName, Spread] = {}
        self._counters: dict[StoreName, Thread] = {}
        self._fatal: FediwardenError | None = None
        self.tally = Tally()

    def stop(self) -> None:
        """Ask for an end: what is finished is recorded, the rest stays as it was."""
        self._stop.set()

    def run(self, run: RunId, readers: Sequence[Reader], progress: Callable[[Tally], None]) -> Tally:
        """Look at everything the readers list.

        Raises:
            CannotWrite: the ledger can take no more; nothing that is not recorded was counted as done.
            KeyboardInterrupt: passed on after what was finished is recorded.
        """
        if not self._accept_gone:
            self._doubted = frozenset(doubt.store for doubt in self._ledger.watching.doubts())
        lister = Thread(target=self._list, args=(run, readers), name="list", daemon=True)
        lookers = [Thread(target=self._look_all, name=f"look-{number}", daemon=True) for number in range(self._pace.workers)]
        others = [
            lister,
            *(Thread(target=self._fetch_all, name=f"fetch-{number}", daemon=True) for number in range(self._pace.fetchers)),
        ]
        for thread in (*others, *lookers):
            thread.start()
        try:
            self._record_until(
                run, progress, lambda: not lister.is_alive() and self.tally.done == self.tally.listed - len(self._young)
            )
            self._look_at_young(run, progress)
            self._prove(readers)
        except CannotWrite:
            self._end(lookers, others)
            self._close_count()
            raise
        except BaseException:
            self._end(lookers, others)
            try:
                self._drain(run)
            finally:
                self._close_count()
            raise
        self._end(lookers, others)
        self._drain(run)
        self._close_count()
        self.tally.fetched = sum(self._health.in_all(reader.name)[1] for reader in readers)
        progress(self.tally)
        if self._fatal is not None:
            raise self._fatal
        return self.tally

    def _end(self, lookers: Sequence[Thread], others: Sequence[Thread]) -> None:
        """Looks have something to hand over, and are waited for; who lists or fetches has not, and may hang in a store that does."""
        self._stop.set()
        for threads, seconds in ((lookers, END_SECONDS), (others, HANGS)):
            deadline = time.monotonic() + seconds
            for thread in threads:
                thread.join(max(0.0, deadline - time.monotonic()))

    # -- the caller's thread ------------------------------------------------------------------------------------------

    def _record_until(self, run: RunId, progress: Callable[[Tally], None], finished: Callable[[], bool]) -> None:
        looks: list[Look] = []
        oldest = time.monotonic()
        while True:
            try:
                event = self._events.get(timeout=0.1)
            except Empty:
                event = None
            if isinstance(event, Look):
                if not looks:
                    oldest = time.monotonic()
                looks.append(event)
            elif event is not None:
                self._count(event)
            if looks and (len(looks) >= COMMIT_EVERY or time.monotonic() - oldest > COMMIT_SECONDS or event is None):
                self._record(run, looks)
                looks.clear()
            progress(self.tally)
            if event is None and (self._stop.is_set() or (self._events.empty() and finished())):
                return

    def _count(self, page: _Page) -> None:
        self.tally.listed += page.listed
        self.tally.skipped += page.skipped

    def _record(self, run: RunId, looks: Sequence[Look]) -> None:
        entries = [(look, self._decide(look)) for look in looks]
        self._ledger.record(run, entries)
        for look, decision in entries:
            self.tally.add(look, decision)
            if look.sha256:
                self._in_flight.forget(look.sha256)
            log.info(
                "object looked",
                store=look.ref.store,
                key=look.ref.key,
                sha256=look.sha256,
                standing=look.standing.value,
                partly=look.partly,
                problem=look.problem,
                decision=decision.step.value if decision else Step.NONE.value,
                rule=decision.rule if decision else None,
                ms=look.milliseconds,
            )

    def _decide(self, look: Look) -> Decision | None:
        verdict = self._ledger.verdict(look.sha256) if look.sha256 else None
        return decide(look, self._policy, verdict)

    def _drain(self, run: RunId) -> None:
        """Record what the threads finished while the run was being stopped."""
        looks: list[Look] = []
        while True:
            try:
                event = self._events.get_nowait()
            except Empty:
                break
            if isinstance(event, Look):
                looks.append(event)
            else:
                self._count(event)
        if looks:
            self._record(run, looks)

    def _close_count(self) -> None:
        """What was listed and not finished when a run was cut off was not scanned in it. The ledger says the same without a row."""
        self.tally.unreached += self.tally.listed - self.tally.done

    def _look_at_young(self, run: RunId, progress: Callable[[Tally], None]) -> None:
        """Objects that were being written get their second chance when everything else is done."""
        if not self._young or self._stop.is_set():
            return
        newest = max((job.ref.modified for job in self._young if job.ref.modified), default=None)
        if newest is not None:
            age = (self._clock() - newest).total_seconds()
            self._stop.wait(min(self._pace.settle_seconds, max(0.0, self._pace.settle_seconds - age)) + 0.05)
        else:
            self._stop.wait(self._pace.settle_seconds)
        jobs = list(self._young)
        self._young.clear()
        feeder = Thread(target=self._feed, args=(jobs,), name="young", daemon=True)
        feeder.start()
        self._record_until(run, progress, lambda: not feeder.is_alive() and self.tally.done == self.tally.listed)

    def _prove(self, readers: Sequence[Reader]) -> None:
        """Ask a store for a few of the files that were fetched in an earlier run: that it lists well does not show that it reads them."""
        for reader in readers:
            store = reader.name
            lost, fetched = self._health.in_all(store)
            if self._partial or self._stop.is_set() or store in self.tally.stores_down:
                continue
            known = self._unchanged[store].refs if store in self._unchanged else []
            problem = unreadable(reader, known, fetched=fetched > 0) if isinstance(reader, Proving) else None
            if problem is None and not known and all_lost(self._listed[store], lost, fetched):
                problem = reads_nothing(store)
            if problem is not None:
                self._down(store, problem)

    # -- the lister's thread ------------------------------------------------------------------------------------------

    def _list(self, run: RunId, readers: Sequence[Reader]) -> None:
        for reader in readers:
            if self._stop.is_set():
                return
            listed = 0
            try:
                for page in reader.list():
                    listed += len(page)
                    if not self._handle_page(run, reader, page):
                        break
                else:
                    if not self._partial:
                        self._conclude(run, reader, listed)
            except Unreached as error:
                self._down(reader.name, error)
            except FediwardenError as error:
                self._fail(error)
                return
            except Exception:  # the unknown: the run must end with what it has, and say so
                log.exception("listing failed", store=reader.name)
                self._down(reader.name, Unreached(f"listing {reader.name} failed; the log has the details"))

    def _conclude(self, run: RunId, reader: Reader, listed: int) -> None:
        accounted = reader.accounted if isinstance(reader, Accounting) else 0
        found = conclude(self._ledger, run, reader.name, listed, self._clock(), accounted=accounted, accept=self._accept_gone)
        if found.accepted is not None:
            self.tally.accepted[reader.name] = found.accepted
        if found.doubt is not None:
            self.tally.doubts[reader.name] = found.doubt
            self._down(reader.name, Unreached(found.doubt.words, hint=DOUBTED))

    def _handle_page(self, run: RunId, reader: Reader, page: Sequence[ObjectRef]) -> bool:
        settled = self._ledger.settle(run, page, self._looker.engine, self._pace.object_limit)
        todo = [ref for ref in page if self._again or ref.key not in settled]
        if settled:
            self._health.good(min((ref for ref in page if ref.key in settled), key=lambda ref: ref.size))
        self._put(_Page(len(page), len(page) - len(todo)))
        self._listed[reader.name] += len(page)
        if not self._again:
            self._unchanged.setdefault(reader.name, Spread()).add([ref for ref in page if ref.key in settled])
        for number, ref in enumerate(todo):
            if self._health.down(reader.name):
                why = self._stopped(reader.name)
                for rest in todo[number:]:
                    self._put(self._unreached(rest, why))
                return False
            if not self._send(_Job(reader, ref)):
                return False
        return True

    def _send(self, job: _Job) -> bool:
        if self._jobs.full():
            self._begin_counting(job.reader)
        while not self._stop.is_set():
            try:
                self._jobs.put(job, timeout=PATIENCE)
            except Full:
                continue
            return True
        return False

    def _feed(self, jobs: Sequence[_Job]) -> None:
        for job in jobs:
            down = self._health.down(job.ref.store)
            again = self._unreached(job.ref, self._stopped(job.ref.store)) if down else self._as_it_is_now(job)
            if isinstance(again, Look):
                self._put(again)
            elif not self._send(again):
                return

    def _as_it_is_now(self, job: _Job) -> _Job | Look:
        try:
            return _Job(job.reader, job.reader.stat(job.ref.key), last_try=True)
        except Gone as error:
            return self._vanished(job.ref, str(error))
        except FediwardenError as error:
            return self._unreached(job.ref, str(error))
        except Exception as error:  # the unknown: this object stays unsettled, the others go on
            log.exception("stat failed", store=job.ref.store, key=job.ref.key)
            return self._unreached(job.ref, f"an error of ours while asking ({type(error).__name__})")

    def _begin_counting(self, reader: Reader) -> None:
        """There is real work to wait for: list once more, only counting, so that the time left can be told."""
        if self._counting and reader.name not in self._counters:
            self._counters[reader.name] = Thread(target=self._count_objects, args=(reader,), name="count", daemon=True)
            self._counters[reader.name].start()

    def _count_objects(self, reader: Reader) -> None:
        try:
            count = 0
            for page in reader.list():
                count += len(page)
                if self._stop.is_set():
                    return
        except FediwardenError:
            return  # only the estimate is lost; the listing itself says what is wrong
        except Exception:  # the unknown, such as a reader that was closed under it
            log.exception("counting failed", store=reader.name)
            return
        self.tally.expected += count

    def _stopped(self, store: StoreName) -> str:
        """Put on the tally that a store is left alone for the rest of the run; why, for what was not asked for any more."""
        if self._health.lost(store):
            words = f"{store} hands out none of its objects: it knows them, and their files are not there"
            self._down(store, Unreached(words, hint=LOST_STORE))
            return "the store has lost one file after the other"
        self._down(store, Unreached(f"{store} stopped answering", hint="run the scan again when it is back"))
        return "the store stopped answering"

    def _down(self, store: StoreName, error: FediwardenError) -> None:
        if self.tally.stores_down.setdefault(store, error) is error:
            log.warning("store unreached", store=store, problem=str(error))

    def _fail(self, error: FediwardenError) -> None:
        """The ledger failed under another thread: end the run; the caller's thread raises the error."""
        self._fatal = error
        self._stop.set()

    # -- the fetchers' threads ----------------------------------------------------------------------------------------

    def _fetch_all(self) -> None:
        while not self._stop.is_set():
            try:
                job = self._jobs.get(timeout=PATIENCE)
            except Empty:
                continue
            if self._health.down(job.ref.store):
                self._put(self._unreached(job.ref, self._stopped(job.ref.store)))
                continue
            taken = self._budget.take(min(job.ref.size, self._pace.object_limit), self._stop)
            if taken is None:
                return
            try:
                outcome = self._fetch(job)
            except Exception as error:  # the unknown: this object stays unsettled, the others go on
                log.exception("fetch failed", store=job.ref.store, key=job.ref.key)
                outcome = self._unreached(job.ref, f"an error of ours while fetching ({type(error).__name__})")
            if isinstance(outcome, Blob):
                if not self._offer(outcome, taken):
                    return
            else:
                self._budget.give(taken)
                if outcome is not None:
                    self._put(outcome)

    def _fetch(self, job: _Job) -> Blob | Look | None:
        """The blob, or the look that says why there is none, or None when the object is put off to the end of the run."""
        try:
            # never more than there is room taken for: who grows it between listing and fetching waits for the end of the run
            blob = job.reader.fetch(job.ref, min(job.ref.size, self._pace.object_limit))
        except Gone as error:
            self._health.answered(job.ref.store)
            return self._gone(job.ref, str(error))
        except TooLarge as error:
            self._health.answered(job.ref.store)
            if job.ref.size <= self._pace.object_limit:
                return self._later(job, f"it grew after it was listed: {error}")
            return Look(
                job.ref, Standing.BROKEN, self._clock(), engine=self._looker.engine, reason=Reason.TOO_LARGE, problem=str(error)
            )
        except Unsettled as error:
            self._health.answered(job.ref.store)
            return self._later(job, str(error))
        except FediwardenError as error:
            if isinstance(error, Unreached) and not isinstance(error, Refused):
                self._failed(job.reader, lost=isinstance(error, Lost))
            return self._unreached(job.ref, str(error))
        self._health.fetched(blob.ref)
        return blob

    def _failed(self, reader: Reader, *, lost: bool) -> None:
        """One failed fetch more. Objects that no server hands out, side by side, must not end the scan of all the others."""
        known = self._health.failed(reader.name, lost=lost)
        if known is not None and self._answers(reader, known):
            self._health.answered(reader.name)
        elif self._health.down(reader.name):
            self._stopped(reader.name)

    def _answers(self, reader: Reader, known: ObjectRef) -> bool:
        try:
            reader.fetch(known, known.size)
        except (Gone, TooLarge, Unsettled):
            return True
        except FediwardenError:
            return False
        return True

    def _gone(self, ref: ObjectRef, problem: str) -> Look:
        """Deleted since it was listed; unless it was so the last time, and is listed all the same.

        Some servers list names that they never hand out, such as those with dots for a folder, and yet show them to the web.
        """
        looks = self._ledger.history(ref.store, ref.key).looks
        if looks and looks[-1].ref.stamp == ref.stamp and _was_gone(looks[-1]):
            return self._unreached(ref, f"{LISTED_ONLY} ({problem})")
        return self._vanished(ref, problem)

    def _vanished(self, ref: ObjectRef, problem: str) -> Look:
        """Gone, where the store can be believed."""
        if ref.store in self._doubted:
            return self._unreached(ref, f"{problem}; but what {ref.store} lists is not believed just now")
        return Look(ref, Standing.GONE, self._clock(), problem=problem)

    def _later(self, job: _Job, problem: str) -> Look | None:
        return None if not job.last_try and self._put_off(job) else self._unreached(job.ref, problem)

    def _put_off(self, job: _Job) -> bool:
        with self._young_lock:
            if len(self._young) >= YOUNG_BOUND:
                return False
            self._young.append(job)
            return True

    def _offer(self, blob: Blob, taken: int) -> bool:
        while not self._stop.is_set():
            try:
                self._blobs.put((blob, taken), timeout=PATIENCE)
            except Full:
                continue
            return True
        return False

    def _unreached(self, ref: ObjectRef, problem: str) -> Look:
        return Look(ref, Standing.UNREACHED, self._clock(), problem=problem)

    # -- the lookers' threads -----------------------------------------------------------------------------------------

    def _look_all(self) -> None:
        while not self._stop.is_set():
            try:
                blob, taken = self._blobs.get(timeout=PATIENCE)
            except Empty:
                continue
            try:
                looks = self._looks_for(blob)
            finally:
                self._budget.give(taken)
            for look in looks:
                self._put(look)

    def _looks_for(self, blob: Blob) -> Iterator[Look]:
        claim = self._in_flight.claim(blob)
        if isinstance(claim, Look):
            return iter([claim.about(blob.ref, self._clock())])
        if not claim:
            return iter(())
        look = self._look_at(blob)
        if look.standing is Standing.UNREACHED and self._stop.is_set():
            self._in_flight.answer(blob.sha256, look)
            return iter(())  # cut off by the end of the run: not a try
        twins = self._in_flight.answer(blob.sha256, look)
        return iter([look, *(look.about(ref, look.at) for ref in twins)])

    def _look_at(self, blob: Blob) -> Look:
        try:
            known = None if self._again else self._known(blob.sha256)
            return self._looker.look(blob) if known is None else known.about(blob.ref, self._clock())
        except Unreached as error:
            return self._unreached(blob.ref, str(error))
        except Exception as error:  # the unknown: this object stays unsettled, the others go on
            log.exception("look failed", store=blob.ref.store, key=blob.ref.key, sha256=blob.sha256)
            return self._unreached(blob.ref, f"an error of ours while looking ({type(error).__name__})")

    def _known(self, sha256: Sha256) -> Look | None:
        try:
            return self._ledger.known(sha256, self._looker.engine)
        except FediwardenError as error:
            self._fail(error)
            raise Unreached("the ledger could not be asked") from error

    def _put(self, event: _Page | Look) -> None:
        while True:
            try:
                self._events.put(event, timeout=PATIENCE)
            except Full:
                if self._stop.is_set():
                    return
            else:
                return


def _was_gone(last: Look) -> bool:
    return last.standing is Standing.GONE or last.problem.startswith(LISTED_ONLY)
