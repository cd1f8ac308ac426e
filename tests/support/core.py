"""A whole installation in memory for tests of the core: a store, a ledger, an opener without decoders, and a clock to turn.

The bytes of an object say what happens to it: `bad`, `odd` and `hmm` make its only frame bright (quarantine at rank 90, at
rank 50, review), `broken` shows nothing, `cut` shows its frame and is broken all the same, `partly` has a payload that was
not opened, `blind` gives neither a frame nor a reason. Anything else is dark and passes.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from tests.support.analysers import Brightness

from fediwarden.analysers.cascade import Cascade
from fediwarden.analysers.interface import Analyser
from fediwarden.ledger import Entry, Ledger
from fediwarden.media import Report
from fediwarden.model import Blob, EngineVersion, Frame, Kind, Reason, RunId, Sha256, Unopened
from fediwarden.pipeline import Looker, Pace, Scan, Tally
from fediwarden.policy import Policy, parse
from fediwarden.stores.interface import Reader
from fediwarden.stores.memory import MemoryStore

START = datetime(2026, 5, 6, 12, 0, tzinfo=UTC)
PACE = Pace(workers=3, fetchers=4, settle_seconds=0.02)
BRIGHT = {b"bad": 255, b"odd": 160, b"hmm": 100}
POLICY = """
version = 1
[mark.bright]
finding = "exposed"
score = 0.9
[mark.light]
finding = "exposed"
score = 0.6
[mark.grey]
finding = "exposed"
score = 0.3
[mark.drill]
finding = "drill"
[[rule]]
name = "drill"
all = ["drill"]
step = "quarantine"
rank = 100
because = "a stand-in for a drill"
[[rule]]
name = "bright"
all = ["bright"]
step = "quarantine"
rank = 90
because = "it is bright"
[[rule]]
name = "light"
all = ["light"]
step = "quarantine"
rank = 50
because = "it is light"
[[rule]]
name = "grey"
all = ["grey"]
step = "review"
because = "it is grey"
"""


def nothing(*_: object) -> None:
    """Happens."""


@dataclass
class Clock:
    """Tells the time it was set to."""

    now: datetime = START

    def __call__(self) -> datetime:
        return self.now

    def turn(self, **by: float) -> None:
        self.now += timedelta(**by)


@dataclass
class Sight:
    """One object as the opener shows it."""

    data: bytes

    def frames(self) -> Iterator[Frame]:
        if not self.data.startswith((b"broken", b"blind")):
            value = next((value for word, value in BRIGHT.items() if word in self.data), 0)
            yield Frame(bytes([value] * 3), 1, 1)

    @property
    def report(self) -> Report:
        broken = self.data.startswith((b"broken", b"cut"))
        unopened = (Unopened("trailing", "encrypted", 1),) if self.data.startswith(b"partly") else ()
        return Report(
            Kind("png", 1, 1),
            unopened=unopened,
            reason=Reason.TRUNCATED if broken else None,
            problem="it ends too early" if broken else "",
        )


@dataclass
class Opener:
    """Opens bytes without a cage; `before` and `after` are called around each and may wait or raise."""

    before: Callable[[Blob], None] = nothing
    after: Callable[[Blob], None] = nothing
    opened: list[Sha256] = field(default_factory=list)

    @contextmanager
    def look(self, blob: Blob) -> Iterator[Sight]:
        self.opened.append(blob.sha256)
        self.before(blob)
        yield Sight(blob.data)
        self.after(blob)


@dataclass
class Core:
    """A store, a ledger and what looks at one for the other."""

    store: MemoryStore = field(default_factory=MemoryStore)
    ledger: Ledger = field(default_factory=lambda: Ledger.open(":memory:"))
    opener: Opener = field(default_factory=Opener)
    analysers: Sequence[Analyser] = (Brightness("exposed"),)
    policy: Policy = field(default_factory=lambda: parse(POLICY, "a test"))
    clock: Clock = field(default_factory=Clock)
    engine: str = "1"
    cascade: Cascade | None = None

    @property
    def looker(self) -> Looker:
        return Looker(self.opener, self.analysers, EngineVersion(self.engine), self.clock, self.cascade)

    def begun(self, command: str = "scan") -> RunId:
        return self.ledger.begin(command, {}, self.clock())

    def prepared(self, *, pace: Pace = PACE, again: bool = False, partial: bool = False, accept_gone: bool = False) -> Scan:
        return Scan(
            self.ledger, self.looker, self.policy, pace, self.clock, again=again, partial=partial, accept_gone=accept_gone
        )

    def scan(
        self,
        *readers: Reader,
        pace: Pace = PACE,
        again: bool = False,
        partial: bool = False,
        accept_gone: bool = False,
        progress: Callable[[Tally], None] = nothing,
    ) -> Tally:
        """One whole run, whose numbers add up."""
        tally = self.prepared(pace=pace, again=again, partial=partial, accept_gone=accept_gone).run(
            self.begun(), readers or (self.store,), progress
        )
        adds_up(tally)
        return tally

    def entry(self, key: str) -> Entry:
        found = self.ledger.entry(self.store.name, key)
        assert found is not None
        return found


def adds_up(tally: Tally) -> None:
    """The promise of every run that has ended."""
    assert tally.listed == tally.skipped + tally.seen + tally.broken + tally.gone + tally.unreached
