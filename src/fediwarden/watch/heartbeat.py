"""A watch's sign of life in the ledger, once a minute, by which `status` tells of it from another process; asks no store."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Event

from fediwarden.ledger import Ledger
from fediwarden.model import StoreName
from fediwarden.watch.state import Board, Picture, StoreState

FIRST, EVERY = 5.0, 60.0  # seconds until the second sign, and between all others
STALE = timedelta(minutes=3)  # without a sign, after which nobody watches


@dataclass(frozen=True, slots=True)
class Beat:
    """What the last watch of a store said last."""

    store: StoreName
    at: datetime
    running: bool  # it had not ended, and said so lately
    signal: str  # how it learns of what is new; "" before the store first answered
    lag: float | None  # seconds from coming in to being looked at, of the newest arrival; None before the first one
    silent: float  # seconds since the store should have told what is new
    problem: str  # of the last question, "" when it was answered
    requests: int  # for listing, in the hour before
    swept: datetime | None  # when the last complete listing began
    waiting: int  # arrivals that wait for their look
    rate: float  # looks a second in the minute before, of all its stores
    blind: tuple[str, ...]  # why it sees nothing


class Pulse:
    """Writes the signs down, until the stop; a last one says that it has ended."""

    def __init__(self, ledger: Ledger, board: Board, clock: Callable[[], datetime], ticks: Callable[[], float]) -> None:
        """`ticks`: seconds that only go forward."""
        self._ledger = ledger
        self._board = board
        self._clock = clock
        self._ticks = ticks
        self._looks, self._at = 0, ticks()

    def run(self, stop: Event) -> None:
        """Until the stop. Raises: CannotWrite."""
        wait = FIRST
        while not stop.is_set():
            self.beat()
            stop.wait(wait)
            wait = EVERY
        self.beat(ended=True)

    def beat(self, *, ended: bool = False) -> None:
        """One sign for each store. Raises: CannotWrite."""
        seen, now = self._board.picture(), self._ticks()
        looks = sum(seen.looks.values())
        rate = (looks - self._looks) / (now - self._at) if now > self._at else 0.0
        self._looks, self._at = looks, now
        shared = {"ended": ended, "rate": round(rate, 2), "blind": seen.blind}
        for store, state in seen.stores.items():
            self._ledger.watching.remember(_mark(store), shared | _facts(seen, store, state), self._clock())


def _mark(store: StoreName) -> str:
    return f"pulse {store}"


def _facts(seen: Picture, store: StoreName, state: StoreState) -> dict[str, object]:
    return {
        "signal": state.signal,
        "waiting": state.left,
        "lag": round(state.lag, 1) if state.lag else None,  # one that was told and waits for its look has none yet
        "silent": round(seen.silent[store], 1),
        "problem": state.problem,
        "requests": state.listing_last_hour,
        "swept": state.swept.isoformat() if state.swept else "",
    }


def last_beat(ledger: Ledger, store: StoreName, now: datetime) -> Beat | None:
    """The last sign about a store; None where none was ever given, or where it cannot be read."""
    at, mark = ledger.watching.dated_mark(_mark(store))
    if at is None:
        return None
    try:
        swept, lag, blind = str(mark.get("swept") or ""), mark.get("lag"), mark.get("blind")
        return Beat(
            store,
            at,
            not mark.get("ended") and abs(now - at) < STALE,
            str(mark.get("signal", "")),
            None if lag is None else float(str(lag)),
            float(str(mark.get("silent", 0))),
            str(mark.get("problem", "")),
            int(str(mark.get("requests", 0))),
            datetime.fromisoformat(swept) if swept else None,
            int(str(mark.get("waiting", 0))),
            float(str(mark.get("rate", 0))),
            tuple(str(line) for line in blind) if isinstance(blind, list) else (),
        )
    except ValueError:
        return None
