"""NudeNet's 320n detector in two parts, so that boxes are computed only for pictures with a face; what they mean is `exposed`'s matter.

Its last layers have two arms that share nothing: one says what is where, the other how far its box reaches. The second takes
a fifth of the time, and only a face's box is ever looked at.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from fediwarden.inference.parts import ModelPart

_PICTURE = "images"
_STRIDES = (8, 16, 32)  # pixels of the picture, a step of each of the three grids of places
_GRIDS = range(len(_STRIDES))
_FEATURES = [f"/model.{layer}/cv2/act/Mul_output_0" for layer in (15, 18, 21)]
_CLASSES = [f"/model.22/cv3.{grid}/cv3.{grid}.2/Conv_output_0" for grid in _GRIDS]  # logits
_REACHES = [f"/model.22/cv2.{grid}/cv2.{grid}.2/Conv_output_0" for grid in _GRIDS]
_SIDES = 4  # left, top, right, bottom; and of a box in the answer: centre, width and height
_BINS = 16  # how far a side lies from its place is told as a distribution over so many steps
_CERTAIN = -80.0  # a logit as good as any below; exp(80) still is a float32


class Detector:
    """The model as a `Session`: (batch, 3, height, width) to (batch, 4 + 18, places)."""

    def __init__(self, model: bytes, *, name: str, faces: NDArray[np.intp], face_from: float, threads: int = 1) -> None:
        """`faces` are the rows of the answer that speak of faces; from `face_from` on one is there.

        Raises: Misconfigured for another model than this one, or a missing runtime.
        """
        self._classes = ModelPart(model, name=name, inputs=[_PICTURE], outputs=[*_CLASSES, *_FEATURES], threads=threads)
        self._reaches = ModelPart(model, name=name, inputs=_FEATURES, outputs=_REACHES, threads=threads)
        self._faces = faces
        self._face_from = np.float32(face_from)

    @property
    def device(self) -> str:
        """Where the runtime really computes, as it says itself: "cpu"."""
        return self._classes.device

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Every score, and the boxes of the places where a face is; the other boxes are 0. See `Session.run`."""
        found = self._classes.values(batch)
        maps, features = found[: len(_GRIDS)], found[len(_GRIDS) :]
        logits = np.concatenate([one.reshape(*one.shape[:2], -1) for one in maps], axis=2)
        rows = np.zeros((len(batch), _SIDES + logits.shape[1], logits.shape[2]), np.float32)
        np.divide(1, 1 + np.exp(-np.maximum(logits, np.float32(_CERTAIN))), out=rows[:, _SIDES:])
        picture, place = np.nonzero(rows[:, self._faces].max(axis=1) >= self._face_from)
        if place.size:
            reaches = [one.reshape(*one.shape[:2], -1) for one in self._reaches.values(*features)]
            middles = _middles(tuple(one.shape[2:] for one in maps))
            rows[picture, :_SIDES, place] = _boxes(np.concatenate(reaches, axis=2)[picture, :, place], middles[place])
        return rows


@cache
def _middles(grids: tuple[tuple[int, ...], ...]) -> NDArray[np.float32]:
    """(places, 3): the middle of each place of all grids in steps of its grid, and the step in pixels."""
    parts = []
    for (height, width), stride in zip(grids, _STRIDES, strict=True):
        y, x = np.mgrid[:height, :width].reshape(2, -1) + 0.5
        parts.append(np.stack([x, y, np.full(x.size, stride)], axis=1))
    return np.concatenate(parts).astype(np.float32)


def _boxes(reaches: NDArray[np.float32], middles: NDArray[np.float32]) -> NDArray[np.float32]:
    """(found, 4): centre, width and height in pixels, from (found, 4 * 16) logits and (found, 3) places."""
    logits = reaches.reshape(-1, _SIDES, _BINS)
    chances = np.exp(logits - logits.max(axis=2, keepdims=True))
    reach = chances @ np.arange(_BINS, dtype=np.float32) / chances.sum(axis=2)
    first, last = middles[:, :2] - reach[:, :2], middles[:, :2] + reach[:, 2:]
    boxes: NDArray[np.float32] = np.concatenate([(first + last) / 2, last - first], axis=1) * middles[:, 2:]
    return boxes
