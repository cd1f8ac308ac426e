"""A tiny analyser for tests that need findings without models: how bright a frame is, as the concept it was told."""

from collections.abc import Sequence
from dataclasses import dataclass

from fediwarden.model import Finding, Frame


@dataclass(frozen=True, slots=True)
class Brightness:
    """Score 1 for white, 0 for black."""

    concept: str = "brightness"

    @property
    def name(self) -> str:
        return "brightness"

    @property
    def version(self) -> str:
        return "1"

    def analyse(self, frames: Sequence[Frame]) -> list[Finding]:
        return [
            Finding(self.concept, sum(frame.rgb) / len(frame.rgb) / 255, self.name, self.version, frame.index, frame.source)
            for frame in frames
        ]
