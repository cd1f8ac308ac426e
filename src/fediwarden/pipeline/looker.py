"""Turns a blob into a look: opened in the cage, seen by every analyser. Fetches nothing and decides nothing."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from math import isfinite
from typing import Protocol

from fediwarden.analysers.cascade import Cascade
from fediwarden.analysers.condensing import condense
from fediwarden.analysers.interface import Analyser
from fediwarden.errors import Unreached
from fediwarden.model import (
    Blob,
    EngineVersion,
    Finding,
    Frame,
    Kind,
    Look,
    Note,
    Reason,
    Standing,
    Unopened,
)

FRAMES_AT_ONCE = 4  # frames of one object in memory while they are analysed


class ObjectReport(Protocol):
    """What the cage says about an object besides its frames; `media.Report` is one."""

    @property
    def kind(self) -> Kind | None: ...
    @property
    def notes(self) -> tuple[Note, ...]: ...
    @property
    def unopened(self) -> tuple[Unopened, ...]: ...
    @property
    def reason(self) -> Reason | None: ...
    @property
    def problem(self) -> str: ...


class OpenedObject(Protocol):
    """One object opened in the cage; `media.Peek` is one."""

    def frames(self) -> Iterator[Frame]: ...
    @property
    def report(self) -> ObjectReport: ...


class Opener(Protocol):
    """Opens foreign bytes where they can do no harm; `media.Cage` is one."""

    def look(self, blob: Blob) -> AbstractContextManager[OpenedObject]: ...


@dataclass(frozen=True, slots=True)
class Looker:
    """Turns a blob into a look: opened in the cage, seen by every analyser."""

    cage: Opener
    analysers: Sequence[Analyser]
    engine: EngineVersion
    clock: Callable[[], datetime]
    cascade: Cascade | None = None  # the dear analyser, asked after the others

    def look(self, blob: Blob) -> Look:
        """What can be seen of these bytes. Broken bytes are a value; Unreached is raised when the cage gave no answer."""
        started = time.perf_counter()
        with self.cage.look(blob) as peek:
            report, findings, views = self._see(peek, sampled=self.cascade is not None and self.cascade.sampled(blob.sha256))
        reason, problem = report.reason, report.problem
        if reason is None and not views:  # whatever the cage says: nothing of it was shown to an analyser
            reason, problem = Reason.MALFORMED, "the decoder gave no view of it"
        return Look(
            ref=blob.ref,
            standing=Standing.BROKEN if reason else Standing.SEEN,
            at=self.clock(),
            sha256=blob.sha256,
            engine=self.engine,
            kind=report.kind,
            findings=findings,
            notes=report.notes,
            unopened=report.unopened,
            reason=reason,
            problem=problem,
            milliseconds=round((time.perf_counter() - started) * 1000),
        )

    def _see(self, peek: OpenedObject, *, sampled: bool) -> tuple[ObjectReport, tuple[Finding, ...], int]:
        """The report, what was found, and how many views there were of the object itself."""
        findings: tuple[Finding, ...] = ()
        views = 0
        frames = peek.frames()
        while batch := list(islice(frames, FRAMES_AT_ONCE)):
            views += sum(not frame.source for frame in batch)
            found = [finding for analyser in self.analysers for finding in analyser.analyse(batch)]
            if self.cascade is not None:
                found += self.cascade.analyse(batch, found, sampled=sampled)
            if odd := next((finding for finding in found if not _counts(finding)), None):
                # no threshold is ever met by what is not a number: it would pass for "nothing found"
                raise Unreached(f"{odd.analyser} answered with something that is not a number")
            findings = condense([*findings, *found])
        return peek.report, findings, views


def _counts(found: Finding) -> bool:
    return isfinite(found.score) and all(isfinite(value) for value in found.measures.values())
