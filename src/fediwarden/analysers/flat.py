"""How much of a picture is even colour, as in drawings, screenshots and graphics; it cannot tell one of these from another.

The share of blocks of 8 by 8 pixels, of the frame scaled to 256 on its longer side, in which no channel spans more than 8 of
256 steps. Photographs have grain and gradients nearly everywhere but in the sky; what was drawn by a program has neither.
Cheap (about a millisecond), and only good for deciding what is worth a dearer look.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from fediwarden.model import Finding, Frame

CONCEPT = "flat"
VERSION = "1"  # raised with any of the numbers below
_EDGE = 256  # pixels on the longer side
_BLOCK = 8  # pixels a side
_SPAN = 8  # of 256 steps


class Flat:
    """Per frame one finding "flat" with the share of even blocks, 0 to 1."""

    @property
    def name(self) -> str:
        """See `Analyser.name`."""
        return "flat"

    @property
    def version(self) -> str:
        """See `Analyser.version`."""
        return VERSION

    def analyse(self, frames: Sequence[Frame]) -> list[Finding]:
        """See `Analyser.analyse`."""
        return [Finding(CONCEPT, evenness(frame), self.name, VERSION, frame.index, frame.source) for frame in frames]


def evenness(frame: Frame) -> float:
    """The share of even blocks; 0 where the frame is too small to have one."""
    picture = Image.frombuffer("RGB", (frame.width, frame.height), frame.rgb, "raw", "RGB", 0, 1)
    longer = max(picture.size)
    if longer > _EDGE:
        width, height = (max(1, round(side * _EDGE / longer)) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BOX)
    pixels = np.asarray(picture)
    rows, columns = pixels.shape[0] // _BLOCK, pixels.shape[1] // _BLOCK
    if not rows or not columns:
        return 0.0
    blocks = pixels[: rows * _BLOCK, : columns * _BLOCK].reshape(rows, _BLOCK, columns, _BLOCK, 3)
    span = blocks.max(axis=(1, 3)) - blocks.min(axis=(1, 3))
    return float((span.max(axis=2) <= _SPAN).mean())
