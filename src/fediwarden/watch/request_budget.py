"""When something is due and how many requests it may cost: arithmetic with clocks that are handed in; asks nobody."""

from collections import deque
from collections.abc import Callable
from threading import Lock

HOUR = 3600.0
BURST = 1 / 6  # of an hour's requests may be saved up


class RequestBudget:
    """Requests per hour, saved up a little; what has to be asked may overdraw it, and the rest waits until it is even."""

    def __init__(self, per_hour: int, clock: Callable[[], float]) -> None:
        """`clock`: seconds that only go forward."""
        self._per_hour = per_hour
        self._clock = clock
        self._lock = Lock()
        self._most = max(1.0, per_hour * BURST)
        self._left = self._most
        self._at = clock()
        self._spent: deque[tuple[float, int]] = deque()

    def spend(self, requests: int) -> None:
        """So many were sent."""
        with self._lock:
            self._refill()
            self._left -= requests
            if requests:
                self._spent.append((self._clock(), requests))

    def wait(self) -> float:
        """Seconds until one more may be sent."""
        with self._lock:
            self._refill()
            return max(0.0, (1.0 - self._left) * HOUR / self._per_hour)

    @property
    def last_hour(self) -> int:
        """How many were sent in the last hour."""
        with self._lock:
            while self._spent and self._spent[0][0] < self._clock() - HOUR:
                self._spent.popleft()
            return sum(requests for _, requests in self._spent)

    def _refill(self) -> None:
        now = self._clock()
        self._left = min(self._most, self._left + (now - self._at) * self._per_hour / HOUR)
        self._at = now
