"""What an analyser is: a batch of frames in, findings out. It knows no store, no threshold and no verdict.

Every implementation (`tests/contract/test_analysers.py`):
- accepts any mix of frame sizes from 1x1 up, in any number, zero included, and returns findings whose `frame` and
  `source` repeat the frame's `index` and `source`;
- is deterministic for one frame, whatever else is in the batch, within 1e-4;
- may be called from several threads at once;
- raises nothing for any pixels; a missing or altered model raises `Misconfigured` from the constructor.
"""

from collections.abc import Sequence
from typing import Protocol

from fediwarden.model import Finding, Frame


class Analyser(Protocol):
    """One source of evidence."""

    @property
    def name(self) -> str:
        """Short and stable: "bundled", "drill"."""
        ...

    @property
    def version(self) -> str:
        """Digest of weights and preprocessing; part of the engine version unless empty."""
        ...

    def analyse(self, frames: Sequence[Frame]) -> list[Finding]:
        """Findings about these frames, in no particular order."""
        ...
