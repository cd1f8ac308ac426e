"""The image tower of an image-text model on the device and in the precision that were chosen; what similarities mean is not here."""

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

from fediwarden.errors import Misconfigured, Unreached
from fediwarden.inference import registry
from fediwarden.inference.manifest import ModelFile, ModelManifest, Role
from fediwarden.inference.sessions import CPU, ModelSession, OnnxSession, OutOfMemory, Steady, devices, open_session
from fediwarden.model import Concepts

log = structlog.get_logger("fediwarden")

SAME_SCORES = 0.9999  # cosine of one picture's embeddings on two devices from which on they count as the same engine
_CHECKED = 4  # pictures that two devices are compared on
_UNIT = 1e-2  # how far from 1 the length of an embedding may be, fp16 included


@dataclass(frozen=True, slots=True)
class ChosenTower:
    """Which tower is used, and where."""

    manifest: ModelManifest
    precision: str
    device: str
    forced: bool  # by a setting: then it is not exchanged for another when it does not work

    @property
    def file(self) -> ModelFile:
        """The image tower's file. Raises: Misconfigured."""
        file = self.manifest.only(Role.IMAGE, precision=self.precision)
        if file is None:
            raise Misconfigured(f"{self.manifest.name} is not built in {self.precision}", hint="fediwarden models build")
        return file


def choose(
    installed: Sequence[ModelManifest], model: str = "", precision: str = "", device: str = "", there: Sequence[str] | None = None
) -> ChosenTower:
    """The model, precision and device in use; empty settings are chosen from what is installed and what the machine has.

    On a GPU fp16 comes first, on the CPU int8. `there` are the devices of the runtime, asked for when not given.
    Raises: Misconfigured for a model, precision or device that is not there.
    """
    usable = [manifest for manifest in installed if manifest.precisions]
    manifest = next((one for one in usable if model in ("", one.name)), None)
    if manifest is None:
        known = ", ".join(one.name for one in usable) or "none"
        raise Misconfigured(
            f"no image tower of {model or 'any image-text model'} is built here",
            hint=f"`fediwarden models list` shows what there is; built are: {known}; `fediwarden models build NAME` builds one",
        )
    there = devices() if there is None else there
    if device and device not in there:
        raise Misconfigured(
            f"this installation of ONNX Runtime cannot compute on {device}",
            hint=f"it knows: {', '.join(there)}; leave [analysis] device empty to choose by itself",
        )
    where = device or next((one for one in there if one in ("cuda", CPU)), CPU)
    order = ("int8", "fp32", "fp16") if where == CPU else ("fp16", "fp32", "int8")
    if precision and precision not in manifest.precisions:
        raise Misconfigured(
            f"{manifest.name} is not built in {precision}",
            hint=f"it is built in {', '.join(manifest.precisions)}; `fediwarden models build {manifest.name} --precision {precision}`",
        )
    best = precision or next(one for one in order if one in manifest.precisions)
    return ChosenTower(manifest, best, where, bool(device))


class Tower:
    """Pictures in, embeddings out."""

    def __init__(self, models_dir: Path, choice: ChosenTower, *, threads: int = 1, most: int = 32) -> None:
        """Load and verify the tower. `threads` is per call on the CPU; `most` the largest batch elsewhere.

        Raises: Misconfigured for a file that is missing, altered or of another architecture.
        """
        self.manifest = choice.manifest
        self.precision = choice.precision
        self.file = choice.file
        data = registry.read_file(models_dir, choice.manifest, self.file)
        name = f"{choice.manifest.name} {choice.precision}"
        self._session, self._steady, self.drifts = _opened(data, name, choice, threads, most)

    @property
    def device(self) -> str:
        """Where it computes now: "cpu", "cuda"."""
        return self._steady.device

    def embed(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Embeddings (n, dimensions) of unit length for pixel values (n, 3, size, size).

        Raises: Unreached, also for an answer that is none: zeros of a failing device would be scores like any other.
        """
        found = self._session.run(pixels)
        lengths = np.linalg.norm(found.astype(np.float64), axis=1)
        if len(found) != len(pixels) or not np.all(np.abs(lengths - 1) <= _UNIT):
            raise Unreached(f"the tower of {self.manifest.name} answers with rubbish on {self.device}")
        return found


def _opened(data: bytes, name: str, choice: ChosenTower, threads: int, most: int) -> tuple[ModelSession, Steady, bool]:
    """The session, and whether its device's embeddings differ from the CPU's beyond the bound."""
    try:
        session, steady = open_session(data, name=name, device=choice.device, threads=threads, most=most)
    except Misconfigured as error:
        if choice.device == CPU or choice.forced:
            raise
        log.warning("device not usable, computing on the CPU", model=name, device=choice.device, problem=str(error))
        session, steady = open_session(data, name=name, threads=threads)
    reference = OnnxSession(data, name=name, threads=threads) if steady.device != CPU else None
    check(reference or session, choice.manifest, name)
    drifts = False
    if reference is not None:
        pixels = trial_pixels(choice.manifest, _CHECKED)
        least = float((session.run(pixels) * reference.run(pixels)).sum(axis=1).min())
        drifts = least < SAME_SCORES and steady.device != CPU
        if drifts:
            log.warning("scores depend on the device", model=name, device=steady.device, cosine=least)
            steady.hold()
    return session, steady, drifts


def check(session: ModelSession, manifest: ModelManifest, name: str) -> None:
    """Run a trial picture: an embedding of the right size and of unit length must come out. Raises: Misconfigured."""
    special = manifest.image_text
    if special is None:
        raise Misconfigured(f"{manifest.name} is no image-text model", hint="`fediwarden models list` shows what it is")
    hint = f"`fediwarden models verify`, then `fediwarden models build {manifest.name} --again`"
    try:
        found = session.run(trial_pixels(manifest, 1))
    except OutOfMemory as error:
        raise Misconfigured(
            f"there is not enough memory for the tower of {name}", hint="take int8, or a smaller model"
        ) from error
    except Exception as error:  # the runtime refuses the shape: it is another model's tower
        raise Misconfigured(f"the tower of {name} is of another architecture: {error}", hint=hint) from error
    if found.shape != (1, special.dimensions):
        raise Misconfigured(f"the tower of {name} answers with the shape {found.shape}: another architecture", hint=hint)
    length = float(np.linalg.norm(found[0].astype(np.float64)))
    if not abs(length - 1) <= _UNIT:  # also where it is not a number
        raise Misconfigured(f"the tower of {name} answers with rubbish (an embedding of length {length:.3g})", hint=hint)


def trial_pixels(manifest: ModelManifest, count: int) -> NDArray[np.float32]:
    """The same smooth benign pixel values each time, (count, 3, size, size): waves of different lengths and directions."""
    special = manifest.image_text
    size = special.image.size if special else 1
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    waves = [
        [np.sin((2 + number + channel) * 3 * x + (1 + channel) * 5 * y + number) for channel in range(3)]
        for number in range(count)
    ]
    return np.asarray(waves, np.float32)


def text_vectors(models_dir: Path, manifest: ModelManifest, concepts: Concepts) -> NDArray[np.float32]:
    """The embeddings (texts, dimensions) of `concepts.texts`, made by `models build`.

    Raises: Misconfigured where they were never made for these concepts, or the file holds something else.
    """
    file = manifest.only(Role.TEXT, concepts=concepts.digest)
    if file is None:
        raise Misconfigured(
            f"the concepts of this policy are not embedded for {manifest.name}",
            hint=f"run `fediwarden models build {manifest.name}`; it makes only what is missing",
        )
    data = registry.read_file(models_dir, manifest, file)
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            vectors: NDArray[np.float32] = arrays["vectors"].astype(np.float32, casting="same_kind", copy=False)
            texts = [str(text) for text in arrays["texts"]]
    except (KeyError, ValueError, TypeError, EOFError, OSError, MemoryError, zipfile.BadZipFile) as error:
        raise Misconfigured(f"{file.name} of {manifest.name} cannot be used: {error}", hint="build the model again") from error
    special = manifest.image_text
    sound = special is not None and vectors.shape == (len(concepts.texts), special.dimensions) and texts == list(concepts.texts)
    if not sound or not np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3):
        raise Misconfigured(f"{file.name} of {manifest.name} holds other embeddings", hint="build the model again")
    return vectors
