"""How long to wait before something that failed is tried again."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Backoff:
    """Waits that double from `first` to `most` while something fails, and begin anew when it works."""

    first: float
    most: float
    failures: int = field(default=0, init=False)

    def failed(self) -> float:
        """One more failure; the seconds to wait now."""
        self.failures += 1
        return self.wait

    def worked(self) -> None:
        """It works again."""
        self.failures = 0

    @property
    def wait(self) -> float:
        """Seconds to wait; nothing while all is well."""
        return 0.0 if not self.failures else min(self.most, self.first * 2.0 ** min(self.failures - 1, 40))
