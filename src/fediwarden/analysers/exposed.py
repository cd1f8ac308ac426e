"""Uncovered body parts and faces, as NudeNet's 320n detector sees them; how old a face looks is `age`'s matter."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fediwarden.analysers.detector import Detector
from fediwarden.inference.sessions import ModelSession

MODEL = "nudenet-320n"
PREPROCESSING = "rgb, bilinear to 320 on the longer side, black below and right of it, 0 to 1; nms 0.45; faces from 0.25"

_SIDE = 320
_COORDINATES = 4  # rows 0 to 3 of the output are a box's centre, width and height; the classes follow
# FEMALE_BREAST, BUTTOCKS, FEMALE_GENITALIA, ANUS and MALE_GENITALIA, each EXPOSED, as rows of the output
_EXPOSED = np.array([2, 3, 4, 6, 14]) + _COORDINATES
_FACES = np.array([1, 12]) + _COORDINATES  # FACE_FEMALE and FACE_MALE
_FACE_FROM = np.float32(0.25)  # what is worth reporting; which face counts is the policy's matter
_OVERLAP = 0.45  # boxes that share more of their union than this are one face
MOST_FACES = 32  # in one frame; the surest ones


@dataclass(frozen=True, slots=True)
class Face:
    """A face's box in pixels of the frame, inside it, and how sure the detector is."""

    left: float
    top: float
    right: float
    bottom: float
    score: float

    @property
    def side(self) -> float:
        """The shorter side in pixels."""
        return min(self.right - self.left, self.bottom - self.top)


def detector(model: bytes, *, threads: int = 1) -> Detector:
    """The session that `Exposed` needs, without the boxes that it never reads. Raises: Misconfigured as `Detector`."""
    return Detector(model, name=MODEL, faces=_FACES, face_from=float(_FACE_FROM), threads=threads)


class Exposed:
    """The detector behind one session; as thread-safe as that."""

    def __init__(self, session: ModelSession) -> None:
        self._session = session

    def look(self, image: Image.Image) -> tuple[float, list[Face]]:
        """The highest score of an uncovered part anywhere in an RGB image, and the faces in it, surest first."""
        width, height = image.size
        rows = self._session.run(prepared(image))[0]
        return float(rows[_EXPOSED].max()), _faces(rows, width, height)


def prepared(image: Image.Image) -> NDArray[np.float32]:
    """The whole picture in the upper left of a black square, as (1, 3, 320, 320).

    The square of the original picture is never built: scaling first and padding then has the same geometry. The channels
    stay in RGB order although the model's own wrapper swaps them (NudeNet issue 203): faces score higher that way.
    """
    width, height = image.size
    longer = max(width, height)
    size = max(1, round(width * _SIDE / longer)), max(1, round(height * _SIDE / longer))
    small = np.asarray(image.resize(size, Image.Resampling.BILINEAR))
    batch = np.zeros((1, 3, _SIDE, _SIDE), np.float32)
    np.multiply(small.transpose(2, 0, 1), np.float32(1 / 255), out=batch[0, :, : size[1], : size[0]])
    return batch


def _faces(rows: NDArray[np.float32], width: int, height: int) -> list[Face]:
    """Faces out of the model's (22, N) output, overlapping ones reduced to the surest."""
    scores = rows[_FACES].max(axis=0)
    (found,) = np.nonzero(scores >= _FACE_FROM)
    if not found.size:
        return []
    found = found[np.argsort(-scores[found], kind="stable")]
    x, y, w, h = rows[:_COORDINATES, found] * np.float32(max(width, height) / _SIDE)
    left, right = np.clip(x - w / 2, 0, width), np.clip(x + w / 2, 0, width)
    top, bottom = np.clip(y - h / 2, 0, height), np.clip(y + h / 2, 0, height)
    area = (right - left) * (bottom - top)
    faces: list[Face] = []
    left_over = np.flatnonzero(area > 0)  # a box wholly in the padding is no face
    while left_over.size and len(faces) < MOST_FACES:
        best, rest = left_over[0], left_over[1:]
        faces.append(
            Face(float(left[best]), float(top[best]), float(right[best]), float(bottom[best]), float(scores[found[best]]))
        )
        across = np.minimum(right[best], right[rest]) - np.maximum(left[best], left[rest])
        down = np.minimum(bottom[best], bottom[rest]) - np.maximum(top[best], top[rest])
        shared = across.clip(0) * down.clip(0)
        left_over = rest[shared <= _OVERLAP * (area[best] + area[rest] - shared)]
    return faces
