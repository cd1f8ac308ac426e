"""From one decoded moment to the frames that leave the cage: both grounds, whole and tiles, codes read. Decodes nothing.

Every pixel of a picture lies in the whole view, and where the shape is so extreme that the whole view shrinks the short
side to nothing, also in a tile that keeps it.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image

from fediwarden.media.codes import read_codes
from fediwarden.media.limits import Limits
from fediwarden.model import Frame, Ground

ASPECT = 2.4  # beyond this, tiles; the longest telephone screens stay below
TILE_ASPECT = 1.5
TILE_STEP = 0.75  # of a tile's length: the rest overlaps
TILES = 24  # of one frame; a still longer shape gets longer tiles
TILED_VIEWS = 256  # over all frames of one picture

_MODES_WITH_ALPHA = frozenset({"RGBA", "LA", "PA", "La", "RGBa"})


def sample(count: int, starts: Sequence[float] | None, limits: Limits) -> list[int]:
    """Which of `count` frames to look at: all up to a bound, else spread evenly over time, the first and last always.

    `starts` are the moments at which the frames appear, in seconds and ascending, or None where nobody knows.
    """
    if count <= limits.all_frames:
        return list(range(count))
    seconds = starts[-1] if starts else 0.0
    size = min(limits.frame_bound, count, max(limits.all_frames, math.ceil(seconds * limits.frames_per_second) + 1))
    if not starts or seconds <= 0:
        return sorted({round(n * (count - 1) / (size - 1)) for n in range(size)})
    moments = (n * seconds / (size - 1) for n in range(size))
    return sorted({0, count - 1, *(max(0, bisect_right(starts, moment) - 1) for moment in moments)})


def tiles(width: int, height: int) -> list[tuple[int, int, int, int]]:
    """Boxes (left, top, right, bottom) along the longer side, overlapping, that cover the whole picture; none for plain shapes."""
    long, short = max(width, height), min(width, height)
    if long <= short * ASPECT:
        return []
    length = short * TILE_ASPECT
    count = math.ceil((long - length) / (length * TILE_STEP)) + 1
    if count > TILES:
        count = TILES
        length = long / (1 + (count - 1) * TILE_STEP)
    length = max(1, math.ceil(length))
    boxes = []
    for n in range(count):
        start = round(n * (long - length) / (count - 1))
        boxes.append((start, 0, start + length, short) if width >= height else (0, start, short, start + length))
    return boxes


def tile_every(frames: int, width: int, height: int) -> int:
    """Tile one frame in so many, so that a long moving strip stays within bounds."""
    return max(1, -(-frames * len(tiles(width, height)) // TILED_VIEWS))


def plain(image: Image.Image) -> Image.Image:
    """`image` as RGB, or as RGBA where some pixel is not opaque, whatever its mode and depth."""
    if image.mode in _MODES_WITH_ALPHA or "transparency" in image.info:
        clear = image if image.mode == "RGBA" else image.convert("RGBA")
        return clear if clear.getchannel("A").getextrema()[0] < 255 else clear.convert("RGB")  # type: ignore[operator]
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return _eight_bits(image).convert("RGB")
    if image.mode == "LAB":
        return image.getchannel(0).convert("RGB")  # lightness alone: shapes stay, colours are beside the point
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Sixteen bits by their upper half, unless the picture uses only a low part of the range or more than it."""
    wide = image if image.mode in ("I", "F") else image.convert("I")
    low, high = (float(v) for v in wide.getextrema())  # type: ignore[arg-type]
    if not (math.isfinite(low) and math.isfinite(high)):
        low, high = 0.0, 1.0
    if low >= 0 and 8192 <= high <= 65535:
        low, high = 0.0, 65535.0
    elif wide.mode == "I" and low >= 0 and high <= 255:
        low, high = 0.0, 255.0
    factor = 255.0 / (high - low) if high > low else 0.0
    return wide.convert("F").point(lambda v: v * factor + -low * factor).convert("L")


@dataclass(slots=True)
class FramePlace:
    """Where and when a decoded moment belongs."""

    index: int = 0
    at: float = 0.0
    source: str = ""
    edge: int = 1280  # longest side of a frame that leaves the cage
    tiled: bool = True


class Views:
    """Sends the frames of one object, within its bound of views; identical neighbours are sent once."""

    def __init__(self, limits: Limits, send: Callable[[Frame], None]) -> None:
        self._left = limits.views
        self._send = send
        self._last: dict[tuple[str, Ground], bytes] = {}  # of one source
        self._source = ""
        self.refused = 0  # views over the bound

    def show(self, image: Image.Image, place: FramePlace) -> None:
        """Every view of one moment; `image` is oriented already and of any mode."""
        boxes = tiles(*image.size) if place.tiled else []
        self._show(image, "whole", place)
        for number, box in enumerate(boxes, 1):
            self._show(image.crop(box), f"tile {number}/{len(boxes)}", place)

    def _show(self, image: Image.Image, view: str, place: FramePlace) -> None:
        if self._left <= 0:
            self.refused += 1
            return
        small = plain(_fitted(image, place.edge))
        if small.mode == "RGB":
            self._emit(small, view, Ground.OPAQUE, place)
            return
        for ground, colour in ((Ground.BLACK, (0, 0, 0)), (Ground.WHITE, (255, 255, 255))):
            behind = Image.new("RGB", small.size, colour)
            behind.paste(small, mask=small.getchannel("A"))
            self._emit(behind, view, ground, place)

    def _emit(self, image: Image.Image, view: str, ground: Ground, place: FramePlace) -> None:
        rgb = image.tobytes()
        if place.source != self._source:
            self._source = place.source
            self._last.clear()
        if self._last.get((view, ground)) == rgb:
            return
        self._last[view, ground] = rgb
        self._left -= 1
        width, height = image.size
        codes = read_codes(image)
        self._send(Frame(rgb, width, height, place.index, place.at, view, ground, place.source, codes))


def _fitted(image: Image.Image, edge: int) -> Image.Image:
    """`image` made smaller, where it is larger than `edge`; modes that cannot be averaged are turned into ones that can."""
    long = max(image.size)
    if long <= edge:
        return image
    size = tuple(max(1, round(side * edge / long)) for side in image.size)
    if image.mode not in ("RGB", "RGBA", "L", "CMYK", "YCbCr"):
        image = plain(image)
    return image.resize((size[0], size[1]), Image.Resampling.BICUBIC, reducing_gap=2.0)
