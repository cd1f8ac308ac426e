"""What a run came to, and how much of it may happen at once; counts, and does nothing."""

from dataclasses import dataclass, field

from fediwarden.analysers.cascade import ASKED, SAMPLED
from fediwarden.errors import FediwardenError
from fediwarden.ledger import Doubt
from fediwarden.model import (
    Decision,
    Look,
    Standing,
    Step,
    StoreName,
)


@dataclass(slots=True)
class Tally:
    """What one run came to; `listed == skipped + seen + broken + gone + unreached` whenever a run has ended."""

    listed: int = 0
    skipped: int = 0
    seen: int = 0
    broken: int = 0
    empty: int = 0  # of the broken ones: without a byte, and so with nothing to scan
    gone: int = 0
    unreached: int = 0
    partly: int = 0
    flagged: int = 0
    review: int = 0
    passed: int = 0
    further: int = 0  # seen, and the dear analyser was asked about them
    bytes: int = 0
    fetched: int = 0  # objects that their stores handed out, whatever came of it
    expected: int = 0  # objects the store is known to hold; 0 while nobody has counted
    stores_down: dict[StoreName, FediwardenError] = field(default_factory=dict)
    doubts: dict[StoreName, Doubt] = field(default_factory=dict)  # listings that concluded nothing
    accepted: dict[StoreName, Doubt] = field(default_factory=dict)  # the same, where a person said that they are right

    @property
    def not_scanned(self) -> int:
        """The headline: what this run listed and could not look at, or not wholly."""
        return self.broken - self.empty + self.unreached + self.partly

    @property
    def done(self) -> int:
        """Objects that need no more work in this run."""
        return self.skipped + self.seen + self.broken + self.gone + self.unreached

    def add(self, look: Look, decision: Decision | None) -> None:
        """Count one look and its decision."""
        self.bytes += look.ref.size if look.settles else 0
        match look.standing:
            case Standing.SEEN:
                self.seen += 1
                self.partly += look.partly
                self.further += any(found.concept in (ASKED, SAMPLED) for found in look.findings)
            case Standing.BROKEN:
                self.broken += 1
                self.empty += look.empty
            case Standing.GONE:
                self.gone += 1
            case Standing.UNREACHED:
                self.unreached += 1
        if decision is not None:
            match decision.step:
                case Step.QUARANTINE:
                    self.flagged += 1
                case Step.REVIEW:
                    self.review += 1
                case Step.PASS:
                    self.passed += look.standing is Standing.SEEN
                case Step.NONE:
                    pass


@dataclass(frozen=True, slots=True)
class Pace:
    """How much is done at the same time, and how much is held in memory for it."""

    workers: int = 2
    fetchers: int = 8
    object_limit: int = 256 << 20  # bytes
    in_flight: int = 384 << 20  # bytes
    settle_seconds: float = 2.0
