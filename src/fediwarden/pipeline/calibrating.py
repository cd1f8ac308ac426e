"""What `calibrate` looks at and counts: a random sample of the stores, and what a whole policy makes of it.

Which points are chosen is `calibration`'s matter. Nothing is recorded here, nothing is shown, and no name, hash or pixel of
an object outlives its look.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from queue import Empty, Queue
from random import Random
from threading import BoundedSemaphore, Event, Lock, Thread

import structlog

from fediwarden.calibration import Sample, Seen, anonymous, lowest_points
from fediwarden.errors import FediwardenError, Gone, Refused, TooLarge, Unreached
from fediwarden.model import (
    Blob,
    Finding,
    Kind,
    Look,
    Note,
    ObjectRef,
    OperatingPoints,
    Sha256,
    Standing,
    Step,
    StoreName,
    Unopened,
)
from fediwarden.pipeline.bounds import PATIENCE, Bytes, Health
from fediwarden.pipeline.looker import Looker
from fediwarden.pipeline.tally import Pace, Tally
from fediwarden.policy import Policy, decide
from fediwarden.stores.interface import Reader

log = structlog.get_logger("fediwarden")

RECENT_WEEKS = 4.0
END_SECONDS = 3.0  # how long the threads may take to end
_NOWHERE = ObjectRef(StoreName(""), "", 0, "")
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Drawn:
    """Objects drawn at random, and what the listing told about all of them."""

    objects: Sequence[tuple[Reader, ObjectRef]]
    listed: int
    recent: int  # came in the `weeks` before
    weeks: float  # four, or less where the oldest object is younger; 0 where not every object has a date


def draw(
    readers: Sequence[Reader], size: int, now: datetime, random: Random, progress: Callable[[Tally], None], stop: Event
) -> Drawn:
    """List the stores once and draw `size` objects, each with the same chance (Vitter's algorithm R); memory is the sample's.

    `random` must be one that no uploader can foresee. Raises: Unreached, Refused: part of a store is no sample of it.
    """
    kept: list[tuple[Reader, ObjectRef]] = []
    tally = Tally()
    since, recent, undated, oldest = now - timedelta(weeks=RECENT_WEEKS), 0, 0, now
    for reader in readers:
        for page in reader.list():
            for ref in page:
                place = len(kept) if len(kept) < size else random.randrange(tally.listed + 1)
                if place < len(kept):
                    kept[place] = (reader, ref)
                elif place < size:
                    kept.append((reader, ref))
                tally.listed += 1
                undated += ref.modified is None
                if ref.modified is not None:
                    recent += ref.modified > since
                    oldest = min(oldest, ref.modified)
            progress(tally)
            if stop.is_set():
                break
    random.shuffle(kept)
    weeks = 0.0 if undated or not tally.listed else max(1.0, min(RECENT_WEEKS, (now - oldest) / timedelta(weeks=1)))
    return Drawn(kept, tally.listed, recent, weeks)


class Sampling:
    """Looks at drawn objects with a few threads. Make one, call `run` once; `seen` and `tally` say what came of it."""

    def __init__(self, looker: Looker, pace: Pace, stop: Event) -> None:
        """`stop` ends it early, and is set at the end."""
        self._looker = looker
        self._pace = pace
        self._stop = stop
        self._budget = Bytes(pace.in_flight)
        self._turn = BoundedSemaphore(pace.workers)  # to look; the other threads fetch meanwhile
        self._health = Health()
        self._events: Queue[Seen | Standing | None] = Queue()
        self._lock = Lock()
        self._todo: list[tuple[Reader, ObjectRef]] = []
        self._met: set[Sha256] = set()
        self._down: Unreached | None = None
        self.seen: list[Seen] = []
        self.tally = Tally()  # skipped: the same bytes as another object of the sample

    def run(self, drawn: Drawn, progress: Callable[[Tally], None]) -> list[Seen]:
        """What was seen, in no order that says anything. Raises: Unreached when a store stopped answering."""
        self._todo = list(drawn.objects)
        self.tally.listed = self.tally.expected = len(self._todo)
        count = min(len(self._todo), self._pace.workers + self._pace.fetchers)
        threads = [Thread(target=self._work, name=f"sample-{number}", daemon=True) for number in range(count)]
        for thread in threads:
            thread.start()
        try:
            while self.tally.done < self.tally.expected and not self._stop.is_set():
                with suppress(Empty):
                    self._count(self._events.get(timeout=PATIENCE))
                progress(self.tally)
        finally:
            self._stop.set()
            deadline = time.monotonic() + END_SECONDS
            for thread in threads:
                thread.join(max(0.0, deadline - time.monotonic()))
        if self._down is not None:
            raise self._down
        return self.seen

    def _count(self, event: Seen | Standing | None) -> None:
        match event:
            case Seen():
                self.seen.append(event)
                self.tally.seen += 1
            case None:
                self.tally.skipped += 1
            case Standing.GONE:
                self.tally.gone += 1
            case Standing.BROKEN:
                self.tally.broken += 1
            case _:
                self.tally.unreached += 1

    # -- the threads --------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while not self._stop.is_set():
            with self._lock:
                if not self._todo:
                    return
                reader, ref = self._todo.pop()
            taken = self._budget.take(min(ref.size, self._pace.object_limit), self._stop)
            if taken is None:
                return
            try:
                event = self._see(reader, ref)
            except Exception as error:  # noqa: BLE001 - the unknown: not seen, the others go on; its words could name the object
                log.warning("sample look failed", error=type(error).__name__)
                event = Standing.UNREACHED
            finally:
                self._budget.give(taken)
            self._events.put(event)

    def _see(self, reader: Reader, ref: ObjectRef) -> Seen | Standing | None:
        blob = self._fetch(reader, ref)
        if not isinstance(blob, Blob):
            return blob
        with self._lock:
            if blob.sha256 in self._met:
                return None
            self._met.add(blob.sha256)
        with self._turn:
            if self._stop.is_set():
                return Standing.UNREACHED
            try:
                look = self._looker.look(blob)
            except Unreached:
                return Standing.UNREACHED
        if look.standing is not Standing.SEEN:
            return look.standing
        return Seen(
            anonymous(look.findings),
            tuple(sorted({note.what for note in look.notes})),
            tuple(sorted({item.why for item in look.unopened})),
            look.kind.format if look.kind else "",
        )

    def _fetch(self, reader: Reader, ref: ObjectRef) -> Blob | Standing:
        try:
            blob = reader.fetch(ref, min(ref.size, self._pace.object_limit))
        except Gone:
            self._health.answered(reader.name)
            return Standing.GONE
        except TooLarge:
            self._health.answered(reader.name)
            return Standing.BROKEN
        except FediwardenError as error:
            if isinstance(error, Unreached) and not isinstance(error, Refused):
                self._failed(reader)
            return Standing.UNREACHED
        self._health.answered(reader.name)
        return blob

    def _failed(self, reader: Reader) -> None:
        """What is left of a sample when its store goes away is no random sample any more: end it."""
        self._health.failed(reader.name)
        if self._health.down(reader.name):
            self._down = Unreached(f"{reader.name} stopped answering", hint="run it again when the store is back")
            self._stop.set()


def why_again(sample: Sample, others: str, stores: Sequence[str], size: int) -> str:
    """Why a stored sample does not do for what is asked for now, in words; "" where it does."""
    if sample.others != others:
        return "the other analysers, or the cage, are not those of the stored sample"
    if set(sample.stores) != set(stores):
        return "the stored sample is of other stores"
    if sample.drawn < min(size, sample.listed):
        return f"the stored sample has {sample.drawn:,} objects only"
    return ""


class Judged:
    """What a whole policy makes of a sample, at any operating points.

    Only looks in which some calibrated mark shows at the lowest points there may be are decided again each time: in the
    others none ever shows.
    """

    def __init__(self, policy: Policy, sample: Sample, *, everything: bool, drawn: float = 0.0) -> None:
        """`everything` says that the calibrated analyser sees every picture; else it sees what the policy asks it about.

        And of the rest the share `drawn`: those that the cascade shows it at random. Here every so-manieth look stands for
        them, for the looks are in no order that says anything.
        """
        self._policy = policy
        self._open: list[Look] = []
        self._settled: Counter[Step] = Counter()
        lowest = [mark for mark in held_to(policy, lowest_points(sample)).marks if mark.calibrated]
        uncalibrated = held_to(policy, None)
        self.alone = 0  # flagged without any operating point
        for number, seen in enumerate(sample.looks):
            shown = everything or int((number + 1) * drawn) > int(number * drawn)
            look = _look(seen, sample.version, policy, everything=shown)
            step = _step(look, uncalibrated)
            self.alone += step is Step.QUARANTINE
            if any(mark.meets(found) for mark in lowest for found in look.findings):
                self._open.append(look)
            else:
                self._settled[step] += 1

    def steps(self, points: OperatingPoints) -> Counter[Step]:
        """How many looks of the sample get which decision."""
        policy = held_to(self._policy, points)
        return self._settled + Counter(_step(look, policy) for look in self._open)

    def flags(self, points: OperatingPoints) -> int:
        """How many are suspected."""
        return self.steps(points)[Step.QUARANTINE]


def held_to(policy: Policy, points: OperatingPoints | None) -> Policy:
    """The same policy with its calibrated marks held to these points only, or to none; its digest stays and means nothing."""
    known = () if points is None else (points,)
    return replace(policy, marks=tuple(replace(mark, points=known) if mark.calibrated else mark for mark in policy.marks))


def _step(look: Look, policy: Policy) -> Step:
    decision = decide(look, policy)
    return Step.NONE if decision is None or decision.drill else decision.step


def _look(seen: Seen, version: str, policy: Policy, *, everything: bool) -> Look:
    findings: tuple[Finding, ...] = seen.findings
    if not everything:
        cheap = tuple(found for found in findings if found.version != version)
        findings = findings if policy.asks_further(cheap) else cheap
    return Look(
        _NOWHERE,
        Standing.SEEN,
        _LONG_AGO,
        kind=Kind(seen.format) if seen.format else None,
        findings=findings,
        notes=tuple(Note(what, "") for what in seen.notes),
        unopened=tuple(Unopened("", why) for why in seen.unopened),
    )
