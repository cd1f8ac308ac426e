"""How results reach people and programs: escaped text, tables, JSON, progress; results on stdout, talk on stderr. Decides nothing."""

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fediwarden.errors import FediwardenError
from fediwarden.ledger import Entry
from fediwarden.model import Act, Decision, DeedState, Finding, Look, Step
from fediwarden.pipeline import Tally

UNASKED = "the policy has no mark with calibrated = true: what CLIP finds informs and decides nothing (docs/policy.md)"
PLAIN_EVERY = 10.0  # seconds between progress lines where there is no terminal


def plain(text: str, most: int = 0) -> str:
    """Outside words on one line without anything a terminal would obey; cut in the middle to `most` characters (0: never)."""
    safe = "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode("ascii") for char in text
    )
    if most and len(safe) > most:
        half = (most - 1) // 2
        return f"{safe[: most - 1 - half]}…{safe[-half:]}"
    return safe


def console(*, error: bool = False) -> Console:
    """A console that takes text as text: no markup, no emoji, no highlighting."""
    return Console(stderr=error, markup=False, emoji=False, highlight=False, soft_wrap=True)


def say(text: str = "") -> None:
    """Talk, on standard error."""
    sys.stderr.write(text + "\n")


def tell(error: FediwardenError) -> None:
    """One line and a hint for a failure that was foreseen."""
    say(f"fediwarden: {plain(str(error))}")
    if error.hint:
        say(f"  hint: {plain(error.hint)}")


def result(text: str = "") -> None:
    """A result, on standard output."""
    sys.stdout.write(text + "\n")


def emit(value: Mapping[str, object]) -> None:
    """One JSON object on one line of standard output; names that are not UTF-8 keep their surrogate escapes."""
    sys.stdout.write(json.dumps(value, ensure_ascii=True, default=_simple) + "\n")


def _simple(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value)


def table(*columns: str, title: str = "") -> Table:
    """A quiet table."""
    made = Table(box=None, pad_edge=False, title=title or None, title_justify="left", header_style="bold")
    for column in columns:
        made.add_column(column.removeprefix(">"), justify="right" if column.startswith(">") else "left", overflow="fold")
    return made


def row(into: Table, *cells: str) -> None:
    """A row of outside words, escaped."""
    into.add_row(*(Text(plain(cell)) for cell in cells))


def show(made: Table) -> None:
    """Print a table on standard output, as wide as it needs when nobody watches."""
    out = console()
    if not out.is_terminal:
        out.width = 200
    out.print(made)


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"


def size(count: int) -> str:
    """Bytes as a person says them, in powers of ten."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.2f} TB"


def finding_json(found: Finding) -> dict[str, object]:
    """A finding for programs."""
    return {
        "concept": found.concept,
        "score": round(found.score, 4),
        "frame": found.frame,
        "source": found.source,
        "analyser": found.analyser,
        "version": found.version,
        "measures": {name: round(value, 4) for name, value in found.measures.items()},
    }


def kind_json(look: Look | None) -> dict[str, object] | None:
    """What the bytes are, for programs."""
    if look is None or look.kind is None:
        return None
    kind = look.kind
    return {
        "format": kind.format,
        "width": kind.width,
        "height": kind.height,
        "frames": kind.frames,
        "sampled": kind.sampled,
        "seconds": kind.seconds,
    }


def step_name(decision: Decision | None) -> str | None:
    """A decision's step; None where nothing could be decided on."""
    return None if decision is None or decision.step is Step.NONE else decision.step.value


def entry_json(entry: Entry) -> dict[str, object]:
    """One object for programs, as `list --json` promises it."""
    decided = step_name(entry.decision) is not None
    return {
        "store": entry.ref.store,
        "key": entry.ref.key,
        "sha256": entry.sha256,
        "size": entry.ref.size,
        "standing": entry.standing.value if entry.standing else None,
        "partly": entry.look.partly if entry.look else False,
        "problem": entry.last.problem if entry.last else "",
        "not_scanned": entry.lacking,
        "decision": step_name(entry.decision),
        "rule": entry.decision.rule if entry.decision and decided else None,
        "because": entry.decision.because if entry.decision and decided else None,
        "deed": deed_words(entry),
        "gone": entry.gone,
        "hidden": entry.hidden,
    }


def deed_words(entry: Entry) -> str | None:
    """The last deed in one word: hidden or restored, or how far it got."""
    if entry.deed is None:
        return None
    act, state = entry.deed
    match act:
        case Act.HIDE:
            return "hidden" if state is DeedState.DONE else f"hiding: {state.value}"
        case Act.RESTORE:
            return "restored" if state is DeedState.DONE else f"restoring: {state.value}"


@dataclass
class Line:
    """A line that says how far something is: on a terminal it is redrawn, elsewhere a new one is written now and then."""

    quiet: bool = False  # nothing is written
    _said: float = field(default_factory=time.monotonic)
    _drawn: float = 0.0
    _live: Live | None = None

    def __enter__(self) -> Self:
        out = console(error=True)
        if out.is_terminal and not self.quiet:
            self._live = Live(Text(""), console=out, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """A line of talk, above the one that is redrawn."""
        if self.quiet:
            return
        if self._live is not None:
            self._live.console.print(plain(text))
        else:
            say(plain(text))

    def draw(self, text: Callable[[], str]) -> None:
        """Draw if it is time to; the text is made only then."""
        now = time.monotonic()
        if self.quiet:
            return
        if self._live is not None:
            if now - self._drawn > 0.2:
                self._drawn = now
                self._live.update(Text(text()), refresh=True)
        elif now - self._said > PLAIN_EVERY:
            self._said = now
            say(text())


@dataclass
class Progress(Line):
    """How far a scan is."""

    what: str = "looked at"
    _started: float = field(default_factory=time.monotonic)

    def __call__(self, tally: Tally) -> None:
        """Draw if it is time to."""
        self.draw(lambda: self._line(tally, time.monotonic() - self._started))

    def _line(self, tally: Tally, seconds: float) -> str:
        looked = tally.done - tally.skipped
        rate = looked / seconds if seconds > 0 else 0.0
        total = max(tally.expected, tally.listed)
        left = f"{duration((total - tally.done) / rate)} left" if rate > 0 and tally.expected else "counting"
        return (
            f"{self.what} {tally.done:,} of {total:,}{'' if tally.expected else ' so far'} | {rate:.1f}/s | {left} | "
            f"{tally.not_scanned:,} not scanned | {tally.flagged:,} suspected"
        )
