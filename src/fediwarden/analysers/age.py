"""How old a visible face looks: its five points, the upright 64x64 cut-out, the age network; finding faces is `exposed`'s matter.

An apparent age is off by tens of years under ordinary changes of light and contrast, and means nothing on a drawing. It is a
lead that policy weighs together with others. Positions in the plane are complex numbers, so that turning, scaling and
shifting a shape is one multiplication and one addition.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fediwarden.analysers.exposed import Face
from fediwarden.inference.landmarks import Landmarks
from fediwarden.inference.sessions import ModelSession

MODEL = "age-v1"
LANDMARK_MODEL = "face-landmarks-5"
PREPROCESSING = (
    "five points on the mean of rgb, chip 64 with padding 0.2, binomial pyramid, rgb, mean 122.78 117.00 104.30, over 256"
)

_CHIP = 64
_PADDING = 0.2  # of the chip's face, on each side
# where the five points lie in an upright face, as fractions of its square: dlib's mean face (get_face_chip_details)
_UPRIGHT = np.array(
    [
        0.8595674595992 + 0.2134981538014j,
        0.6460604764104 + 0.2289674387677j,
        0.1205750620789 + 0.2137274526848j,
        0.3340850613712 + 0.2290642403242j,
        0.4901123135679 + 0.6277975316475j,
    ]
)
_IN_CHIP = (_PADDING * (1 + 1j) + _UPRIGHT) / (1 + 2 * _PADDING) * _CHIP
_MEAN_RGB = np.array([122.781998, 117.000999, 104.297997], np.float32).reshape(3, 1, 1)
_SCALE = np.float32(1 / 256)
_AGES = np.array([0.25, *range(1, 81)], np.float32)  # years, for the 81 outputs
_ADULT = 18
_LOST = 1.25 + 0.75j  # what dlib takes off a halved position; (1 + 1j) would be exact, but the network was trained behind this
_SMALLEST = 8  # pixels a side that must be left after halving


@dataclass(frozen=True, slots=True)
class ApparentAge:
    """Expected years, and the probability of fewer than 18."""

    years: float
    under_18: float


class Age:
    """Landmarks and network; as thread-safe as the session."""

    def __init__(self, landmarks: Landmarks, session: ModelSession) -> None:
        self._points = PointFinder(landmarks)
        self._session = session

    def look(self, rgb: NDArray[np.uint8], image: Image.Image, faces: Sequence[Face]) -> list[ApparentAge]:
        """One apparent age for each face. `rgb` (height, width, 3) and `image` hold the same pixels."""
        if not faces:
            return []
        batch = np.empty((len(faces), 3, _CHIP, _CHIP), np.float32)
        for row, points in zip(batch, self._points.find(rgb, faces), strict=True):
            np.subtract(np.asarray(upright(image, points)).transpose(2, 0, 1), _MEAN_RGB, out=row)
        batch *= _SCALE
        probabilities = self._session.run(batch)
        years = probabilities @ _AGES
        under = probabilities[:, :_ADULT].sum(axis=1)
        return [ApparentAge(float(y), min(1.0, float(u))) for y, u in zip(years, under, strict=True)]


class PointFinder:
    """Runs the landmark cascade over all faces of a picture at once."""

    def __init__(self, model: Landmarks) -> None:
        self._mean = _complex(model.mean).astype(np.complex128)
        self._spread = self._mean - self._mean.mean()
        self._energy = float((np.abs(self._spread) ** 2).sum())
        self._offset = _complex(model.offset)
        self._anchor = model.anchor.astype(np.intp)
        cascades, trees, nodes = model.first.shape
        self._first = model.first.reshape(cascades, -1).astype(np.intp)
        self._second = model.second.reshape(cascades, -1).astype(np.intp)
        self._threshold = model.threshold.reshape(cascades, -1)
        self._depth = (nodes + 1).bit_length() - 1
        self._leaf = model.leaf.reshape(cascades, trees * (nodes + 1), -1)
        self._trees = np.arange(trees) * nodes  # where each tree's nodes begin, and below its leaves, counted on from them
        self._leaves = np.arange(trees) * (nodes + 1) - nodes

    def find(self, rgb: NDArray[np.uint8], faces: Sequence[Face]) -> NDArray[np.complex128]:
        """The points of each face, (faces, points), as x + iy in whole pixels of the picture."""
        height, width, _ = rgb.shape
        flat = rgb.reshape(-1, 3)
        corner = np.array([[math.floor(face.left), math.floor(face.top)] for face in faces], np.float64)
        size = np.array([[math.floor(face.right), math.floor(face.bottom)] for face in faces], np.float64) - corner
        left, top = corner[:, :1], corner[:, 1:]
        across, down = size[:, :1], size[:, 1:]
        begin = self._trees + np.arange(len(faces))[:, np.newaxis] * self._first.shape[1]
        shape = np.repeat(self._mean[np.newaxis], len(faces), axis=0)
        for level in range(len(self._first)):
            turn = (shape @ self._spread.conj())[:, np.newaxis] / self._energy  # of the mean shape, to lie best on this one
            at = shape[:, self._anchor[level]] + turn * self._offset[level]
            x = np.floor(left + at.real * across + 0.5).astype(np.intp)
            y = np.floor(top + at.imag * down + 0.5).astype(np.intp)
            inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
            grey = flat.take(np.where(inside, y * width + x, 0), axis=0).sum(axis=2, dtype=np.int32) // 3
            grey = np.where(inside, grey, 0)
            difference = grey.take(self._first[level], axis=1) - grey.take(self._second[level], axis=1)
            right = (difference <= self._threshold[level]).ravel()
            node = np.zeros((len(faces), self._trees.size), np.intp)
            for _ in range(self._depth):
                node = 2 * node + 1 + right.take(node + begin)
            leaf = self._leaf[level].take(node + self._leaves, axis=0)
            shape = shape + _complex(leaf.sum(axis=1).reshape(len(faces), -1, 2))
        found: NDArray[np.complex128] = np.floor(left + shape.real * across + 0.5) + 1j * np.floor(top + shape.imag * down + 0.5)
        return found


def upright(image: Image.Image, points: NDArray[np.complex128]) -> Image.Image:
    """The face with these five points, turned upright and scaled to 64x64; black where it reaches out of the picture.

    Follows dlib's `get_face_chip_details` and `extract_image_chip`: the similarity that puts the mean face best onto the
    points, read from a pyramid of the picture, halved while a pixel of the chip would still be larger than one of it.
    """
    spread = _IN_CHIP - _IN_CHIP.mean()
    step = complex((spread.conj() * points).sum() / (np.abs(spread) ** 2).sum())  # a chip's pixel, in the picture
    middle = complex(points.mean()) + step * (_CHIP / 2 * (1 + 1j) - complex(_IN_CHIP.mean()))
    scale = abs(step)
    if scale > 0:  # the middles of the outermost pixels lie on the edge of the square, as dlib has it
        step *= max(0.0, scale * _CHIP - 1) / (_CHIP - 1) / scale
    halvings = max(0, math.ceil(math.log2(abs(step))) - 1) if step else 0
    if halvings:
        reach = abs(step) * _CHIP * 0.75 + 4 * 2**halvings  # half a diagonal, and what the smoothing looks at
        left, top = max(0, math.floor(middle.real - reach)), max(0, math.floor(middle.imag - reach))
        right, bottom = min(image.width, math.ceil(middle.real + reach)), min(image.height, math.ceil(middle.imag + reach))
        if min(right - left, bottom - top) < _SMALLEST << halvings:
            halvings = 0  # almost all of the face lies outside the picture
        else:
            middle -= complex(left, top)
            planes = np.asarray(image.crop((left, top, right, bottom))).transpose(2, 0, 1)
            for _ in range(halvings):
                planes = _halved(planes)
                middle, step = middle / 2 - _LOST, step / 2
            image = Image.fromarray(np.ascontiguousarray(planes.transpose(1, 2, 0)))
    # Image.transform maps the middle of a pixel to where it is read, and the middle of the first pixel is (0.5, 0.5)
    origin = middle - step * (_CHIP - 1) / 2 * (1 + 1j) + 0.5 * (1 + 1j) - step * 0.5 * (1 + 1j)
    coefficients = (step.real, -step.imag, origin.real, step.imag, step.real, origin.imag)
    return image.transform((_CHIP, _CHIP), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)


def _halved(planes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(3, height, width) smoothed with a binomial kernel, every second pixel of every second row, without the edges."""
    rows = _smoothed([planes[:, k : planes.shape[1] - 4 + k : 2] for k in range(5)])
    both = _smoothed([rows[:, :, k : rows.shape[2] - 4 + k : 2] for k in range(5)])
    return (both >> 8).astype(np.uint8)


def _smoothed(shifted: Sequence[NDArray[np.uint8] | NDArray[np.uint16]]) -> NDArray[np.uint16]:
    """Weighted 1 4 6 4 1; twice that is at most 255 * 256, which just fits."""
    total: NDArray[np.uint16] = np.add(shifted[1], shifted[3], dtype=np.uint16)
    total *= 4
    total += shifted[0]
    total += shifted[4]
    total += np.multiply(shifted[2], 6, dtype=np.uint16)
    return total


def _complex(pairs: NDArray[np.float32]) -> NDArray[np.complex64]:
    """(..., 2) to (...), x + iy."""
    result: NDArray[np.complex64] = pairs[..., 0] + np.complex64(1j) * pairs[..., 1]
    return result
