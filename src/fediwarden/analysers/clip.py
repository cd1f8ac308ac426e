"""How well a picture fits short texts, group by group, as an image-text model (CLIP, SigLIP) sees it; no mark on it is in here.

The score of a word is its share against all controls: exp(s c) / (exp(s c) + sum of exp(s k) over the controls k), where c and
k are cosines between the picture's embedding and the texts', and s is the model's own scale: the zero-shot softmax of
A. Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021, section 3.1, of one word
among the controls. It lies between 0 and 1 and is no probability. A group's score is that of its best word. What is high for
one model is low for another: only operating points of the same version (`calibrate`) say which scores are rare.
"""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fediwarden.errors import Misconfigured
from fediwarden.inference.manifest import ImageInput, ModelFile, ModelManifest
from fediwarden.inference.towers import ChosenTower, Tower, text_vectors
from fediwarden.model import Concepts, Finding, Frame

PREPROCESSING = "rgb, bicubic; longest: centred on the mean colour; share of the best word against all controls; 1"
AT_ONCE = 32  # frames in one call of the model at most


class Clip:
    """Per frame one finding for each group of concepts, with the share of each of its words as measures."""

    def __init__(self, tower: Tower, vectors: NDArray[np.float32], concepts: Concepts) -> None:
        """`vectors`: (texts, dimensions), the embeddings of `concepts.texts`. Raises: Misconfigured for no image-text model."""
        special = tower.manifest.image_text
        if special is None:
            raise Misconfigured(f"{tower.manifest.name} is no image-text model", hint="`fediwarden models list` shows what it is")
        self._tower = tower
        self._vectors = np.ascontiguousarray(vectors.T.astype(np.float64))
        self._concepts = concepts
        self._scale = special.scale
        self._image = special.image
        self._version = version_of(tower.manifest, tower.file, vectors, concepts, tower.device if tower.drifts else "")

    @classmethod
    def load(cls, models_dir: Path, choice: ChosenTower, concepts: Concepts, *, threads: int = 1) -> Self:
        """Load the tower and the embeddings. Raises: Misconfigured where one is missing, altered or does not fit."""
        vectors = text_vectors(models_dir, choice.manifest, concepts)
        return cls(Tower(models_dir, choice, threads=threads, most=AT_ONCE), vectors, concepts)

    @property
    def name(self) -> str:
        """See `Analyser.name`."""
        return "clip"

    @property
    def version(self) -> str:
        """Digest of the tower's weights and precision, the texts' embeddings and the preprocessing.

        Where the device moves scores beyond its bound it is part of it too.
        """
        return self._version

    @property
    def model(self) -> str:
        """The model's name."""
        return self._tower.manifest.name

    @property
    def precision(self) -> str:
        """The tower's precision: "int8", "fp16", "fp32"."""
        return self._tower.precision

    @property
    def device(self) -> str:
        """Where the tower computes now: "cpu", "cuda"."""
        return self._tower.device

    @property
    def concepts(self) -> Concepts:
        """What pictures are compared with."""
        return self._concepts

    def analyse(self, frames: Sequence[Frame]) -> list[Finding]:
        """See `Analyser.analyse`. The image tower runs once a frame. Raises: Unreached when the model gives no answer."""
        found: list[Finding] = []
        for start in range(0, len(frames), AT_ONCE):
            part = frames[start : start + AT_ONCE]
            shares = self._shares(self._tower.embed(np.stack([prepared(frame, self._image) for frame in part])))
            for frame, row in zip(part, shares, strict=True):
                found.extend(self._findings(frame, row))
        return found

    def _shares(self, embeddings: NDArray[np.float32]) -> NDArray[np.float64]:
        """(frames, words) out of (frames, dimensions)."""
        logits = self._scale * (embeddings.astype(np.float64) @ self._vectors)
        words = logits.shape[1] - len(self._concepts.controls)
        controls = np.logaddexp.reduce(logits[:, words:], axis=1, keepdims=True)
        shares: NDArray[np.float64] = np.exp(-np.logaddexp(0, controls - logits[:, :words]))
        return shares

    def _findings(self, frame: Frame, shares: NDArray[np.float64]) -> list[Finding]:
        found, start = [], 0
        for group in self._concepts.groups:
            mine = shares[start : start + len(group.words)]
            start += len(group.words)
            measures = {word: float(share) for word, share in zip(group.words, mine, strict=True)}
            found.append(
                Finding(group.name, float(mine.max()), "clip", self._version, frame.index, frame.source, measures=measures)
            )
        return found


def version_of(
    manifest: ModelManifest, tower: ModelFile, vectors: NDArray[np.float32], concepts: Concepts, device: str = ""
) -> str:
    """The version of what a tower and texts find together, without loading the tower; `device` only where scores drift on it."""
    facts = [
        tower.sha256,
        tower.precision,
        sha256(np.ascontiguousarray(vectors, "<f4").tobytes()).hexdigest(),
        concepts.digest,
        repr(manifest.image_text and (manifest.image_text.image, manifest.image_text.scale)),
        PREPROCESSING,
        *([device] if device else ()),
    ]
    return sha256("\n".join(facts).encode()).hexdigest()[:16]


def prepared(frame: Frame, image: ImageInput) -> NDArray[np.float32]:
    """The whole frame as the tower takes it, (3, size, size).

    Nothing is cut off: the usual crop of the middle loses 44 % of a 16:9 picture, and what lies there is never seen.
    """
    picture = Image.frombuffer("RGB", (frame.width, frame.height), frame.rgb, "raw", "RGB", 0, 1)
    if image.resize == "squash":
        width = height = image.size
    else:
        longer = max(picture.size)
        width, height = (max(1, round(side * image.size / longer)) for side in picture.size)
    small = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC), np.float32)
    pixels = np.zeros((3, image.size, image.size), np.float32)  # zero is the mean colour
    left, top = (image.size - width) // 2, (image.size - height) // 2
    scale = 1 / (255 * np.asarray(image.deviation, np.float32))
    shift = np.asarray(image.mean, np.float32) / np.asarray(image.deviation, np.float32)
    np.copyto(pixels[:, top : top + height, left : left + width], (small * scale - shift).transpose(2, 0, 1))
    return pixels
