"""Hides what is owed where nobody can be asked: never what several people share, and never over the allowance."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from threading import Event

import structlog

from fediwarden.acting.blast_radius import Radii, Radius
from fediwarden.acting.copies import POLICY, Copied, tie
from fediwarden.acting.executor import Executor, Result
from fediwarden.acting.proposal import Known, Stopped, Terms, known, propose
from fediwarden.backoff import Backoff
from fediwarden.errors import Busy
from fediwarden.ledger import Ledger
from fediwarden.model import Owed, RunId, Step

log = structlog.get_logger("fediwarden")

AGAIN = 600.0  # seconds until it is asked again who shares what was left owed for that, at the earliest
EACH = 6.0  # seconds between two such questions on the average, however much is left owed
ACT_SECONDS = 5.0  # how often something owed is looked for
ACT_AGAIN = 3600.0  # seconds until what could not be done is tried again, at the latest


@dataclass(frozen=True, slots=True)
class Chosen:
    """What may be hidden now without asking anybody."""

    objects: frozenset[Known]
    owed: bool  # whether anything is owed at all
    shared: int  # left, because several people share it, or may: not everybody could be asked
    over: int  # left, because it is over the allowance
    copies: tuple[tuple[Owed, Copied], ...] = ()  # what shows the same as one of these, with which


class Automatic:
    """Chooses first, asking pict-rs and Lemmy who is met while others may act; hides what it chose afterwards."""

    def __init__(
        self,
        ledger: Ledger,
        radii: Callable[[], AbstractContextManager[Radii]],
        clock: Callable[[], datetime],
        stop: Event,
        *,
        allowance: int,
        drill_allowance: int,
        meant: Callable[[Owed], bool] = lambda _: True,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            radii: tells who else is met.
            stop: once it is set, nothing more is asked or begun.
            meant: says which of what is owed is meant; the rest is left to `apply`.
        """
        self._ledger = ledger
        self._radii = radii
        self._clock = clock
        self._stop = stop
        self._terms = Terms(allowance, drill_allowance)
        self._meant = meant
        self._ticks = ticks
        self._shared: dict[Known, float] = {}  # when it is asked again who shares it

    def choose(self) -> Chosen:
        """What may be hidden now; takes no lock. Raises: FediwardenError."""
        now = self._ticks()
        self._shared = {one: at for one, at in self._shared.items() if now < at + AGAIN}  # older: not owed any more
        held = {one for one, at in self._shared.items() if now < at}

        def left(one: Owed) -> bool:
            return known(one) in held or not self._meant(one)

        try:
            found = propose(
                self._ledger,
                self._clock(),
                self._radii,
                self._terms,
                is_shared=self._is_shared,
                leave=left,
                stopped=self._stop.is_set,
            )
        except Stopped:  # who is asked may take long to answer
            return Chosen(frozenset(), True, len(held), 0)
        again = (*found.shared, *found.waiting)
        for number, one in enumerate(again, len(held) + 1):
            self._shared[known(one.owed)] = now + max(AGAIN, number * EACH)
        for one in found.alone:
            self._shared.pop(known(one.owed), None)
        copies = tuple((one.owed, copy) for one in found.alone for copy in one.radius.copies)
        objects = frozenset(known(one.owed) for one in found.alone)
        return Chosen(objects, bool(found.plan.owed), len(held) + len(again), found.plan.over, copies)

    def hide(self, executor: Executor, choice: Chosen) -> Iterator[Result]:
        """Hide what was chosen, as far as it is still owed and allowed, and with it the previews that Lemmy made of it.

        A preview that others show as well, and the picture that something is a preview of, are for a person to decide: they are put
        on record for review. Raises: as `Executor.apply`.
        """
        plan = self._terms.chosen(self._ledger, self._clock(), choice.objects)
        if self._stop.is_set():
            return
        still = {known(one) for one in plan.todo}
        with_copies = choice.objects | {
            (copy.ref.store, copy.ref.key, copy.sha256)
            for one, copy in choice.copies
            if known(one) in still and self._is_tied(executor.run, one, copy)
        }
        if with_copies != choice.objects:
            plan = self._terms.chosen(self._ledger, self._clock(), with_copies)
        for result in executor.apply(plan):
            yield result
            if self._stop.is_set():
                return

    def _is_tied(self, run: RunId, original: Owed, copy: Copied) -> bool:
        """Decide about a copy with its original; whether it is to be hidden."""
        step = Step.QUARANTINE if copy.preview and not copy.shared else Step.REVIEW
        so = tie(self._ledger, run, original, copy, step=step, by=POLICY)
        if step is Step.REVIEW and so:
            log.warning(
                "a copy is left in reach, for a person to decide",
                store=copy.ref.store,
                key=copy.ref.key,
                sha256=copy.sha256,
                shows_the_same_as=original.ref.key,
            )
        return so and step is Step.QUARANTINE

    def _is_shared(self, owed: Owed, radius: Radius) -> bool:
        if radius.perhaps_shared and known(owed) not in self._shared:
            log.warning(
                "left owed: several people share it, and apply asks"
                if radius.shared
                else "left owed: who else uses it is not known for certain, and apply asks",
                store=owed.ref.store,
                key=owed.ref.key,
                sha256=owed.sha256,
                aliases=len(radius.aliases),
                owners=radius.owners,
                problem=radius.problem,
            )
        return radius.perhaps_shared


class Suspected:
    """How many objects were suspected since this was made; asks the ledger only about what is new."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._last = ledger.watching.flagged(0).last
        self._objects = 0

    def __call__(self) -> int:
        """As many as by now."""
        flagged = self._ledger.watching.flagged(self._last)
        self._last = flagged.last
        self._objects += flagged.objects
        return self._objects


class Acting:
    """Hides what is owed, as often as there is something, within the allowance."""

    def __init__(
        self, act: Callable[[], int | None], news: Callable[[], object], ticks: Callable[[], float], stop: Event
    ) -> None:
        """
        Args:
            act: does what the allowance lets it and returns how much was done; None where nothing is owed.
            news: tells something else whenever more is suspected than before, for next to nothing.
        """
        self._act = act
        self._news = news
        self._ticks = ticks
        self._stop = stop
        self._again = Backoff(ACT_SECONDS, ACT_AGAIN)
        self._again_at = 0.0
        self._known: object = None

    def run(self) -> None:
        """Until the stop."""
        while not self._stop.is_set():
            self.turn()
            self._stop.wait(ACT_SECONDS)

    def turn(self) -> None:
        """Act if there is reason to: something new, or enough time since what could not be done. Raises: as `act`."""
        news = self._news()
        if news == self._known and self._ticks() < self._again_at:
            return
        self._known = news
        try:
            done = self._act()
        except Busy:
            done = 0  # somebody runs `apply` by hand
        if done == 0:
            self._again_at = self._ticks() + self._again.failed()
        else:
            self._again.worked()
            self._again_at = 0.0
