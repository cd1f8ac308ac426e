"""Which frames the dear analyser sees: those where a cheap one found something, and a random sample of the rest; judges nothing.

A decision against an object needs two things at once, so that the dear model is asked only where a cheap one shows at
least one of them. What that could miss is estimated from the sample: an object is in it by a keyed hash of its bytes, so
that the same bytes always are, and no stranger can tell which.
"""

import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fediwarden.analysers.interface import Analyser
from fediwarden.model import Finding, Frame, Sha256

ASKED = "further"  # the dear analyser was asked because of what was found, or because it sees everything
SAMPLED = "sampled"  # it was asked only because the object is in the sample
NAME = "cascade"
_VERSION = "1"


def version(dear: str, rule: str, sample: float) -> str:
    """The dear analyser's version, and what decides which frames it is shown; without a rule it is shown everything."""
    return f"{dear} {f'{rule} {sample:g}' if rule else 'everything'} {_VERSION}"


@dataclass(frozen=True, slots=True)
class Cascade:
    """The dear analyser, and who is shown to it.

    `asks` says of the findings about one moment whether it is worth a dear look; None: everything is (mode "thorough").
    """

    dear: Analyser
    asks: Callable[[Sequence[Finding]], bool] | None
    rule: str  # digest of what `asks` asks for
    sample: float  # share of the other objects that are shown all the same
    secret: bytes

    @property
    def version(self) -> str:
        """See `version`."""
        return version(self.dear.version, self.rule if self.asks else "", self.sample)

    def sampled(self, sha256: Sha256) -> bool:
        """Whether the object with these bytes belongs to the sample."""
        if self.asks is None:
            return False
        number = int.from_bytes(hmac.digest(self.secret, b"fediwarden sample\0" + sha256.encode(), "sha256")[:8], "big")
        return number < self.sample * 2**64

    def analyse(self, frames: Sequence[Frame], found: Sequence[Finding], *, sampled: bool) -> list[Finding]:
        """What the dear analyser finds in those of `frames` that it is shown, given what the cheap ones `found` in them.

        With the mark of why it was asked, so that what the cascade saves and misses can be counted.
        """
        asked = [frame for frame in frames if self.asks is None or self._worth(frame, found)]
        shown = list(frames) if sampled else asked
        if not shown:
            return []
        why = [(ASKED, frame) for frame in asked[:1]] + [(SAMPLED, frame) for frame in shown[:1] if sampled]
        marks = [Finding(concept, 1.0, NAME, _VERSION, frame.index, frame.source) for concept, frame in why]
        return [*self.dear.analyse(shown), *marks]

    def _worth(self, frame: Frame, found: Sequence[Finding]) -> bool:
        """Every view of one moment is worth it when one of them is."""
        if self.asks is None:
            return True
        return self.asks([one for one in found if (one.frame, one.source) == (frame.index, frame.source)])
