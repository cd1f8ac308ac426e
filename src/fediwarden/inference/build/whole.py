"""Builds what a model lacks: image towers, each tried and compared before it is kept, and the text embeddings of a policy's concepts.

What is built lies in a workspace of its own until it is whole; then the model's folder changes in one step. Which tower is
used, and what the numbers mean, is not decided here.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fediwarden.errors import Misconfigured
from fediwarden.inference import folder as folders
from fediwarden.inference import manifest as manifests
from fediwarden.inference import registry
from fediwarden.inference.build import architecture as architectures
from fediwarden.inference.build import exported, tokens, transformer
from fediwarden.inference.build import weights as stored
from fediwarden.inference.build.architecture import Architecture, TowerFamily
from fediwarden.inference.build.pictures import pictures
from fediwarden.inference.build.weights import Tensors
from fediwarden.inference.manifest import PRECISIONS, Agreement, ImageText, ModelFile, ModelManifest, Role
from fediwarden.inference.sessions import devices, runtime
from fediwarden.model import Concepts

# The smallest cosine to the fp32 embedding, over all pictures, with which a tower is kept. 0.98 turns an embedding by 11
# degrees; spread over 768 dimensions that moves its cosine with a word by about 0.007, which at CLIP's scale of 100 is 0.7
# in log-odds. A policy's marks are set on the tower in use, so what counts is that its order of pictures stays the same.
LEAST = {"fp16": 0.999, "int8": 0.98}

_UNIT = 1e-3  # how far from 1 the length of an embedding may be
_SAME = 1e-3  # how far apart the embeddings of a picture, alone and among others, may be
_TEXTS = 16  # at once
_BATCH = 3
_HALF_BATCH = 8
_SAY_EVERY = 15.0  # seconds

Progress = Callable[[str], None]
Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Refusal:
    """An image tower that was built and not kept."""

    precision: str
    why: str


@dataclass(frozen=True, slots=True)
class Built:
    """What one run did."""

    manifest: ModelManifest  # as it is now
    towers: tuple[str, ...]  # precisions that were built
    texts: int  # words that were embedded
    agreements: tuple[Agreement, ...]  # of the towers that were built, kept or not
    refused: tuple[Refusal, ...] = ()


def build(
    models_dir: Path,
    name: str,
    concepts: Concepts | None,
    precisions: Sequence[str] = (),
    progress: Progress = lambda _: None,
    *,
    again: bool = False,
    discard_source: bool = False,
) -> Built:
    """Build the image towers of these precisions (none named: those that make sense) and the embeddings of these concepts,
    as far as they are missing.

    With `again`, also what is there. Without `concepts` only image towers are built. A tower that answers with rubbish, or
    that is further from fp32 than `LEAST`, is not kept, and the older one of its precision stays. With `discard_source` the
    pulled weights are dropped at the end. `progress` is told what is being done, a line at a time.

    Raises: Misconfigured when the model is not there or altered, its weights are not those of its architecture, or a package
    is missing; CannotWrite when the disk is full. Nothing is changed then.
    """
    unknown = [precision for precision in precisions if precision not in PRECISIONS]
    if unknown:
        raise Misconfigured(f"there is no precision {unknown[0]}", hint=f"there are {', '.join(PRECISIONS)}")
    manifest = manifests.read(_folder(models_dir, name), registry.pull_hint(name))
    special = manifest.image_text
    if special is None:
        raise Misconfigured(f"{name} is not a model that is built: it was installed whole")
    wanted = precisions or _sensible(special)
    towers = [precision for precision in wanted if again or precision not in manifest.precisions]
    text = concepts if concepts and (again or manifest.only(Role.TEXT, concepts=concepts.digest) is None) else None
    source = manifest.only(Role.SOURCE)
    if not towers and text is None and not (discard_source and source):
        return Built(manifest, (), 0, ())
    if (towers or text) and source is None:
        raise Misconfigured(f"the weights of {name} were discarded, and are needed for this", hint=registry.pull_hint(name))
    with folders.workspace(models_dir, name) as work:
        job = _Job(models_dir, manifest, special, work, progress)
        if source and (towers or text):
            job.begin(source)
            with stored.opened(models_dir / name / source.name) as weights:
                if towers:
                    job.build_towers(weights, towers)
                if text:
                    job.embed(weights, text)
        progress("putting it in place")

        def changed(now: ModelManifest) -> ModelManifest:
            if now.image_text is None or now.only(Role.SOURCE) != source:
                raise Misconfigured(f"{name} was changed by another command meanwhile", hint=registry.build_hint(name))
            replaced = {file.name for file in job.files}
            kept = [file for file in now.files if file.name not in replaced and not (discard_source and file.role is Role.SOURCE)]
            numbers = {one.precision: one for one in now.image_text.agreements} | {
                one.precision: one for one in job.agreements if one.precision in job.kept
            }
            agreements = tuple(numbers[precision] for precision in PRECISIONS if precision in numbers)
            return replace(now, files=(*kept, *job.files), image_text=replace(now.image_text, agreements=agreements))

        after = registry.replace_files(models_dir, name, changed, {file.name: work / file.name for file in job.files})
    words = len(text.texts) if text else 0
    return Built(after, tuple(job.kept), words, tuple(job.agreements), tuple(job.refused))


def _folder(models_dir: Path, name: str) -> Path:
    if not manifests.PLAIN_NAME.fullmatch(name) or not (models_dir / name / manifests.MANIFEST).is_file():
        raise Misconfigured(f"the model {name} is not installed in {models_dir}", hint=registry.pull_hint(name))
    return models_dir / name


def _sensible(special: ImageText) -> tuple[str, ...]:
    """The precisions that are of use on this machine."""
    if architectures.known(special.architecture) is None:
        return ("fp32",)
    return ("int8", "fp32", "fp16") if "cuda" in devices() else ("int8", "fp32")


class _Job:
    """One build: what it made so far."""

    def __init__(self, models_dir: Path, manifest: ModelManifest, special: ImageText, work: Path, progress: Progress) -> None:
        self.models_dir, self.manifest, self.special, self.work, self.progress = models_dir, manifest, special, work, progress
        self.architecture: Architecture | None = architectures.known(special.architecture)
        self._source = models_dir
        self.files: list[ModelFile] = []
        self.kept: list[str] = []
        self.agreements: list[Agreement] = []
        self.refused: list[Refusal] = []

    @property
    def name(self) -> str:
        """Of the model."""
        return self.manifest.name

    def begin(self, source: ModelFile) -> None:
        """Hash the weights, so that a damaged disk is not built upon."""
        self.progress(f"checking the weights of {self.name} ({source.size / 1e6:.0f} MB)")
        self._source = self._verify(source)
        if self.architecture is None:
            exported.require(self.special.architecture)

    def _verify(self, file: ModelFile) -> Path:
        path = self.models_dir / self.name / file.name
        try:
            found = folders.digest_of(path)
        except OSError as error:
            raise Misconfigured(f"{path} cannot be read: {error.strerror}", hint=registry.pull_hint(self.name)) from error
        if found != (file.sha256, file.size):
            raise Misconfigured(f"{path} was altered: its SHA-256 is not the recorded one", hint=registry.pull_hint(self.name))
        return path

    def build_towers(self, weights: Tensors, wanted: Sequence[str]) -> None:
        """Build the towers one after the other, the fp32 one first: the others are compared with it."""
        trial = pictures(self.special.image)
        there = self.manifest.only(Role.IMAGE, precision="fp32")
        path = self._verify(there) if there and "fp32" not in wanted else self._write(weights, "fp32")
        self.progress(f"trying the image tower in fp32 on {len(trial)} pictures")
        reference = self._tried(path, "fp32", trial)
        if "fp32" in wanted:
            self._keep(path, "fp32")
        for precision in (one for one in PRECISIONS if one in wanted and one != "fp32"):
            if self.architecture is None:
                self.refused.append(Refusal(precision, exported.ONLY_FP32))
                continue
            path = self._write(weights, precision)
            self.progress(f"comparing the image tower in {precision} with fp32 on {len(trial)} pictures")
            self._judge(path, precision, trial, reference)

    def _write(self, weights: Tensors, precision: str) -> Path:
        path = self.work / f"image-{precision}.onnx"
        self.progress(f"writing the image tower in {precision}")
        with folders.writing(self.models_dir):
            if self.architecture is not None:
                transformer.image_tower(weights, self.architecture, self.special, precision).write(path)
            else:
                exported.image_tower(self._source, self.special, path)
        return path

    def _judge(self, path: Path, precision: str, trial: Array, reference: Array) -> None:
        try:
            found = self._tried(path, precision, trial)
        except Misconfigured as error:
            self._refuse(path, precision, str(error))
            return
        agreement = agree(precision, found, reference)
        self.agreements.append(agreement)
        if agreement.least < LEAST[precision]:
            why = f"its smallest cosine to fp32 is {agreement.least:.4f}, under the bound of {LEAST[precision]}"
            self._refuse(path, precision, why)
        else:
            self._keep(path, precision)

    def _keep(self, path: Path, precision: str) -> None:
        self.files.append(registry.weigh(path, Role.IMAGE, precision=precision))
        self.kept.append(precision)

    def _refuse(self, path: Path, precision: str, why: str) -> None:
        self.refused.append(Refusal(precision, why))
        path.unlink()

    def _tried(self, path: Path, precision: str, trial: Array) -> Array:
        """The embeddings of the trial pictures. Raises: Misconfigured when they are rubbish, or depend on their neighbours."""
        run = _opened(path, f"{self.name} {precision}")
        # alone, as the CPU gets them; fp16 is for GPUs, and a CPU spends most of its time on making its weights float32
        step = _HALF_BATCH if precision == "fp16" else 1
        parts: list[Array] = []
        said = time.monotonic()
        for start in range(0, len(trial), step):
            parts.append(run({transformer.IMAGE_INPUT: trial[start : start + step]}))
            if time.monotonic() - said > _SAY_EVERY:
                said = time.monotonic()
                self.progress(f"{start + len(parts[-1])} of {len(trial)} pictures")
        found: Array = np.concatenate(parts)
        together = run({transformer.IMAGE_INPUT: trial[:_BATCH]})
        what = f"the image tower in {precision}"
        if found.shape != (len(trial), self.special.dimensions) or together.shape != (_BATCH, self.special.dimensions):
            raise Misconfigured(f"{what} answers with the shape {list(found.shape)}: it is of another architecture")
        if not np.isfinite(found).all() or not np.isfinite(together).all():
            raise Misconfigured(f"{what} answers with what is no number", hint="check the weights: pull or import them again")
        if not np.allclose(np.linalg.norm(found, axis=1), 1, atol=_UNIT):
            raise Misconfigured(f"{what} answers with embeddings that have not the length 1")
        if not np.allclose(together, found[:_BATCH], atol=_SAME):
            raise Misconfigured(f"{what} says something else about a picture among others than about it alone")
        return found

    def embed(self, weights: Tensors, concepts: Concepts) -> None:
        """Embed the words of a policy's concepts."""
        texts = [prompt.format(word) for word in concepts.texts for prompt in concepts.prompts]
        self.progress(f"embedding {len(concepts.texts)} words in {len(concepts.prompts)} sentences each")
        files = [file for file in self.manifest.files if file.role is Role.TOKENIZER]
        paths = [self._verify(file) for file in files]
        if self.architecture is not None:
            embedded = self._embedded(weights, self.architecture, paths, texts)
        else:
            embedded = exported.embed(self._source, self.special, tokens.read(paths, TowerFamily.CLIP), texts)
        if not np.isfinite(embedded).all() or not (np.linalg.norm(embedded, axis=1) > 0).all():
            raise Misconfigured(
                "the text tower answers with what is no number", hint="check the weights: pull or import them again"
            )
        sentences = _unit(embedded).reshape(len(concepts.texts), len(concepts.prompts), -1)
        vectors = _unit(sentences.mean(axis=1))
        path = self.work / f"text-{concepts.digest}.npz"
        with folders.writing(self.models_dir), path.open("xb") as out:
            np.savez(out, vectors=vectors, texts=np.array(concepts.texts))
        self.files.append(registry.weigh(path, Role.TEXT, concepts=concepts.digest))

    def _embedded(self, weights: Tensors, architecture: Architecture, paths: Sequence[Path], texts: Sequence[str]) -> Array:
        tokenizer = tokens.read(paths, architecture.family)
        prefix = transformer.text_prefix(weights)
        length, _ = weights.shape(f"{prefix}positional_embedding", 2)
        given = tokenizer(texts, length)
        path = self.work / "text.onnx"
        with folders.writing(self.models_dir):
            transformer.text_tower(weights, architecture, self.special).write(path)
        run = _opened(path, f"the text tower of {self.name}")
        parts: list[Array] = []
        for start in range(0, len(texts), _TEXTS):
            part = slice(start, start + _TEXTS)
            rows = weights.rows(f"{prefix}token_embedding.weight", given.numbers[part])
            parts.append(run({transformer.TEXT_INPUT: rows, transformer.TEXT_PLACES: given.places[part]}))
        path.unlink()
        return np.concatenate(parts)


def agree(precision: str, found: Array, reference: Array) -> Agreement:
    """How far the embeddings of the same pictures, of unit length, are from those of fp32."""
    cosines = np.sum(found.astype(np.float64) * reference, axis=1)
    return Agreement(precision, len(cosines), round(float(cosines.mean()), 6), round(float(cosines.min()), 6))


def _unit(rows: Array) -> Array:
    found: Array = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    return found


def _opened(path: Path, name: str) -> Callable[[dict[str, NDArray[Any]]], Array]:
    """A model run from its file on all cores; `sessions.OnnxSession` would hold its bytes besides."""
    onnxruntime = runtime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's own errors have no root of their own
        raise Misconfigured(f"the runtime does not accept {name}: {error}") from error

    def run(given: dict[str, NDArray[Any]]) -> Array:
        try:
            (found,) = session.run(None, given)
        except Exception as error:
            raise Misconfigured(f"{name} cannot be run: {error}") from error
        result: Array = found
        return result

    return run
