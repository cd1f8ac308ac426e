"""What is known about the watching itself: per store and in all, for metrics, notices and the health page; judges only blindness."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from threading import Lock
from typing import TypedDict, Unpack

from fediwarden.model import StoreName
from fediwarden.pipeline import Tally

LAGS = 500  # arrivals whose lag is remembered


@dataclass(slots=True)
class StoreState:
    """One store as it is watched now."""

    signal: str = ""
    answered: bool = False  # whether it ever told what is new
    due: float | None = None  # when its next answer is due; seconds of the clock that only goes forward
    problem: str = ""  # of the last try; "" when it worked
    failures: int = 0
    requests: int = 0  # all that were ever sent by this process
    listing_last_hour: int = 0
    arrivals: int = 0
    left: int = 0  # arrivals that were told, and wait for their look or have it now
    lag: float = 0.0  # seconds from coming in to being looked at, of the newest arrival
    swept: datetime | None = None  # the last complete listing
    doubt: str = ""  # why that, or a later one, concluded nothing; "" where it was believed
    unreadable: str = ""  # why the store can read none of the files that it lists


class Facts(TypedDict, total=False):
    """What parts note about a store, each as in `StoreState`."""

    signal: str
    requests: int
    listing_last_hour: int
    left: int
    lag: float
    swept: datetime | None
    doubt: str
    unreadable: str


@dataclass(slots=True)
class Picture:
    """A copy of the board at one moment."""

    stores: dict[StoreName, StoreState]
    looks: Counter[str]
    restarts: Counter[str]
    notices: Counter[str]
    arrivals: list[float]  # seconds from coming in to being looked at
    blind: list[str]
    silent: dict[StoreName, float]  # seconds since the answer of each store was due


class Board:
    """Written by the parts, read by metrics and notices; any thread may do either."""

    def __init__(self, blind_after: float, clock: Callable[[], float]) -> None:
        """
        Args:
            blind_after: seconds without an answer of a store, or without a look that worked, after which this is blind.
            clock: seconds that only go forward.
        """
        self._blind_after = blind_after
        self._clock = clock
        self._lock = Lock()
        self._began = clock()
        self._stores: dict[StoreName, StoreState] = {}
        self._failing: float | None = None  # since when no look has worked
        self._looking = 0  # scans under way
        self._moved = 0.0  # when a look was last finished, or the first of these scans began
        self._looks: Counter[str] = Counter()
        self._restarts: Counter[str] = Counter()
        self._notices: Counter[str] = Counter()
        self._lags: list[float] = []

    def store(self, name: StoreName, **facts: Unpack[Facts]) -> None:
        """Note facts about one store."""
        with self._lock:
            self._stores[name] = replace(self._stores.get(name, StoreState()), **facts)

    def answered(self, name: StoreName, arrivals: int = 0, due: float | None = None) -> None:
        """A store told what is new; the next answer is due at `due`."""
        with self._lock:
            state = self._stores.setdefault(name, StoreState())
            state.answered = True
            state.due = max(self._clock(), due or 0.0)
            state.problem, state.failures = "", 0
            state.arrivals += arrivals

    def expect(self, name: StoreName, due: float) -> None:
        """Nobody asks a store while what it told is looked at."""
        with self._lock:
            state = self._stores.setdefault(name, StoreState())
            state.due = max(due, state.due or 0.0)

    @contextmanager
    def looking(self) -> Iterator[None]:
        """While a scan is under way, looks have to be finished now and then."""
        with self._lock:
            self._moved = self._moved if self._looking else self._clock()
            self._looking += 1
        try:
            yield
        finally:
            with self._lock:
                self._looking -= 1

    def silent(self, name: StoreName, problem: str) -> None:
        """A store did not."""
        with self._lock:
            state = self._stores.setdefault(name, StoreState())
            state.problem = problem
            state.failures += 1

    def looked(self, before: Tally, now: Tally) -> None:
        """A scan went on from one tally to the other."""
        fields = ("seen", "broken", "gone", "unreached", "flagged", "review")
        more = {name: getattr(now, name) - getattr(before, name) for name in fields}
        with self._lock:
            self._moved = self._clock()
            self._looks.update({name: count for name, count in more.items() if count > 0})
            if more["seen"] or more["broken"] or more["gone"]:
                self._failing = None
            elif more["unreached"] and self._failing is None:
                self._failing = self._clock()

    def lagged(self, name: StoreName, seconds: float) -> None:
        """An arrival was looked at so long after it came in."""
        with self._lock:
            self._stores.setdefault(name, StoreState()).lag = seconds
            self._lags.append(seconds)
            del self._lags[:-LAGS]

    def restarted(self, part: str) -> None:
        """A part failed and begins anew."""
        with self._lock:
            self._restarts[part] += 1

    def told(self, outcome: str) -> None:
        """A notice went out, or did not."""
        with self._lock:
            self._notices[outcome] += 1

    @property
    def blind(self) -> list[str]:
        """Why this watch sees nothing, a line each; empty while it sees."""
        with self._lock:
            return self._why_blind()

    @property
    def sees(self) -> bool:
        """Whether every store has told something in this life, and nothing speaks for blindness."""
        with self._lock:
            return self._failing is None and self._well()

    @property
    def well(self) -> bool:
        """The same, where a look that failed just now speaks for nothing yet."""
        with self._lock:
            return self._well()

    def _well(self) -> bool:
        return all(state.answered for state in self._stores.values()) and not self._why_blind()

    def picture(self) -> Picture:
        """A copy of everything."""
        with self._lock:
            return Picture(
                {name: replace(state) for name, state in self._stores.items()},
                Counter(self._looks),
                Counter(self._restarts),
                Counter(self._notices),
                list(self._lags),
                self._why_blind(),
                {name: self._silence(state) for name, state in self._stores.items()},
            )

    def _silence(self, state: StoreState) -> float:
        return max(0.0, self._clock() - (self._began if state.due is None else state.due))

    def _why_blind(self) -> list[str]:
        why = [
            f"store {name} has not told what is new for {round(silence / 60)} minutes"
            for name, state in self._stores.items()
            if (silence := self._silence(state)) > self._blind_after
        ]
        why += [state.unreadable for state in self._stores.values() if state.unreadable]
        if self._failing is not None and (failing := self._clock() - self._failing) > self._blind_after:
            why.append(f"no look has worked for {round(failing / 60)} minutes")
        if self._looking and (stuck := self._clock() - self._moved) > self._blind_after:
            why.append(f"no look has ended for {round(stuck / 60)} minutes")
        return why
