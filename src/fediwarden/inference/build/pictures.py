"""Benign pictures made in code, on which towers are tried and compared: noise, gradients, shapes, drawn scenes; no files.

They are always the same. They are no photographs, so they show a tower that is broken or drifts far, not how it does on a
store's media; `fediwarden calibrate` is for that.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from fediwarden.inference.manifest import ImageInput

PICTURES = 48

Picture = NDArray[np.float64]  # (size, size, 3), 0 to 1


def pictures(given: ImageInput, count: int = PICTURES) -> NDArray[np.float32]:
    """Pixel values (count, 3, size, size) as the tower takes them."""
    made = np.stack([_KINDS[number % len(_KINDS)](given.size, np.random.default_rng(number)) for number in range(count)])
    normal = (np.clip(made, 0, 1) - np.array(given.mean)) / np.array(given.deviation)
    return np.ascontiguousarray(normal.transpose(0, 3, 1, 2), np.float32)


def _noise(size: int, chance: np.random.Generator) -> Picture:
    grain = int(chance.choice([1, 2, 4, 8, 16]))
    side = -(-size // grain)
    coarse = chance.random((side, side, 3))
    return coarse.repeat(grain, 0).repeat(grain, 1)[:size, :size]


def _gradient(size: int, chance: np.random.Generator) -> Picture:
    y, x = _plane(size)
    angle = chance.uniform(0, 2 * np.pi)
    along = 0.5 + 0.5 * (np.cos(angle) * (x - 0.5) + np.sin(angle) * (y - 0.5))
    first, last = chance.random((2, 3))
    found: Picture = first + along[..., None] * (last - first)
    return found


def _waves(size: int, chance: np.random.Generator) -> Picture:
    y, x = _plane(size)
    many = chance.uniform(-40, 40, (3, 2))
    return np.stack([0.5 + 0.5 * np.sin(many[channel, 0] * x + many[channel, 1] * y) for channel in range(3)], -1)


def _shapes(size: int, chance: np.random.Generator) -> Picture:
    made = np.full((size, size, 3), chance.random(3))
    for _ in range(int(chance.integers(3, 12))):
        _paint(made, chance.random(3), *chance.random(2), *chance.uniform(0.04, 0.3, 2), round_=bool(chance.integers(2)))
    return made


def _checks(size: int, chance: np.random.Generator) -> Picture:
    y, x = _plane(size)
    many = int(chance.integers(2, 24))
    odd = ((x * many).astype(int) + (y * many).astype(int)) % 2
    found: Picture = chance.random((2, 3))[odd]
    return found


def _writing(size: int, chance: np.random.Generator) -> Picture:
    """Dark strokes in lines on paper."""
    made = np.full((size, size, 3), chance.uniform(0.85, 1, 3))
    for line in np.arange(0.08, 0.95, chance.uniform(0.05, 0.12)):
        at = 0.06
        while at < 0.9:
            wide = chance.uniform(0.005, 0.06)
            _paint(made, chance.uniform(0, 0.3, 3), at + wide / 2, line, wide / 2, chance.uniform(0.008, 0.02), round_=False)
            at += wide + chance.uniform(0.006, 0.03)
    return made


def _landscape(size: int, chance: np.random.Generator) -> Picture:
    """Sky, sun, hills and trees."""
    y, x = _plane(size)
    made = chance.uniform(0.4, 0.7, 3) * [0.7, 0.9, 1.4] + (0.4 * y)[..., None]
    _paint(made, np.array([1, 0.9, 0.3]), chance.uniform(0.1, 0.9), chance.uniform(0.1, 0.3), 0.08, 0.08, round_=True)
    for height in (0.5, 0.65, 0.8):
        hill = y > height + 0.08 * np.sin(chance.uniform(4, 12) * x + chance.uniform(0, 6))
        made[hill] = chance.uniform(0.1, 0.4, 3) * [0.7, 1.6, 0.5]
    for _ in range(int(chance.integers(2, 9))):
        across, down = chance.random(), chance.uniform(0.6, 0.9)
        _paint(made, np.array([0.35, 0.22, 0.1]), across, down, 0.008, 0.06, round_=False)
        _paint(made, np.array([0.1, 0.35, 0.12]), across, down - 0.07, 0.05, 0.06, round_=True)
    return np.asarray(made + chance.normal(0, 0.02, made.shape))


def _street(size: int, chance: np.random.Generator) -> Picture:
    """Houses with windows along a road."""
    made = np.full((size, size, 3), chance.uniform(0.6, 0.9, 3))
    at = 0.0
    while at < 1:
        wide, top = chance.uniform(0.1, 0.25), chance.uniform(0.15, 0.55)
        _paint(made, chance.random(3), at + wide / 2, (top + 0.85) / 2, wide / 2, (0.85 - top) / 2, round_=False)
        for down in np.arange(top + 0.05, 0.8, 0.1):
            for across in np.arange(at + 0.03, at + wide - 0.02, 0.05):
                _paint(made, chance.uniform(0.5, 1, 3), across, down, 0.014, 0.025, round_=False)
        at += wide
    _paint(made, np.full(3, 0.3), 0.5, 0.95, 0.5, 0.1, round_=False)
    return np.asarray(made + chance.normal(0, 0.01, made.shape))


_KINDS: Sequence[Callable[[int, np.random.Generator], Picture]] = (
    _noise,
    _gradient,
    _waves,
    _shapes,
    _checks,
    _writing,
    _landscape,
    _street,
)


def _plane(size: int) -> NDArray[np.float64]:
    """How far down and how far across each pixel is, 0 to 1."""
    return np.mgrid[0:size, 0:size] / size


def _paint(
    made: Picture, colour: NDArray[np.float64], across: float, down: float, half_width: float, half_height: float, *, round_: bool
) -> None:
    """Fill an ellipse or a rectangle, in shares of the picture."""
    y, x = _plane(len(made))
    far_x, far_y = (x - across) / half_width, (y - down) / half_height
    made[far_x**2 + far_y**2 <= 1 if round_ else np.maximum(abs(far_x), abs(far_y)) <= 1] = colour
