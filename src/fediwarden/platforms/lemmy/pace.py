"""How many requests a Lemmy lets through, reckoned from what it says of its limits; waits for nothing and asks nobody."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class RequestPace:
    """So many requests in so many seconds: 0.19 gives them back bit by bit, 1.0 all at once when its window is over.

    Others may ask from the same address, so that Lemmy can refuse all the same; then what it says decides.
    """

    most: int
    seconds: float
    bit_by_bit: bool
    _left: float = field(init=False)
    _since: float | None = field(default=None, init=False)  # when the window began, or what is left was reckoned

    def __post_init__(self) -> None:
        self._left = float(self.most)

    def due(self, now: float) -> float:
        """Seconds until the next request may be made; nothing where it may be made at once."""
        self._reckon(now)
        if self._left >= 1 or self._since is None:
            return 0.0
        if self.bit_by_bit:
            return (1 - self._left) * self.seconds / self.most
        return max(0.0, self._since + self.seconds - now)

    def took(self, now: float) -> None:
        """A request was let through."""
        self._reckon(now)
        if self._since is None:
            self._since = now
        self._left = max(0.0, self._left - 1)

    def emptied(self, now: float, again: float | None) -> None:
        """The server says that none is left, and perhaps in how many seconds there are some again."""
        self._reckon(now)
        self._left = 0.0
        if again is not None and not self.bit_by_bit:
            self._since = now + again - self.seconds
        elif self._since is None:
            self._since = now

    def _reckon(self, now: float) -> None:
        if self._since is None:
            return
        if self.bit_by_bit:
            self._left = min(float(self.most), self._left + (now - self._since) * self.most / self.seconds)
            self._since = now
        elif now - self._since >= self.seconds:
            self._left, self._since = float(self.most), None
