"""The image-text models that are known by name: where they are, what they take, what is published of them; fetches none of them.

The list that comes with the program is `catalogue.toml`; an operator's own file of the same form adds to it, or stands over
an entry of the same name.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from fediwarden.errors import Misconfigured
from fediwarden.inference.manifest import DIGEST, PLAIN_NAME, ImageInput, ImageText, ModelManifest, Role, image_text_of

NAME = "catalogue.toml"
REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
REVISION = re.compile(r"[0-9a-f]{40}")
_LARGEST = 1 << 20  # bytes of an operator's own file
_MOST_WEIGHTS = 16  # bytes a value at most, so that no hub can send without end
_MOST_TOKENIZER = 256_000_000


@dataclass(frozen=True, slots=True)
class KnownFile:
    """A file of a model as a release knows it; sha256 "" and size 0 where nobody had it in hand."""

    name: str
    role: Role
    sha256: str
    size: int
    about_mb: int  # what the hub's pages say of its size


@dataclass(frozen=True, slots=True)
class Tensor:
    """An array in the weights that tells the architecture from others."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """A model that can be pulled by name."""

    name: str
    title: str
    about: str
    measures: str
    licence: str
    research_only: bool
    blind: tuple[str, ...]  # what it cannot see or tell, a sentence each
    repository: str  # "owner/name" on the hub
    revision: str  # 40 hexadecimal digits, or "" where none is known
    architecture: str  # name of its configuration in open_clip
    dimensions: int
    values: int  # numbers in the weights, all arrays together
    accuracy: float  # zero-shot ImageNet, top 1, per cent, as published; 0 where nothing is
    accuracy_source: str
    image: ImageInput
    tensors: tuple[Tensor, ...]
    files: tuple[KnownFile, ...]

    @property
    def verified(self) -> bool:
        """Whether this release knows the revision and every hash beforehand."""
        return bool(self.revision) and all(file.sha256 for file in self.files)

    @property
    def about_mb(self) -> int:
        """How much there is to fetch."""
        return sum(file.about_mb for file in self.files)

    def most(self, file: KnownFile) -> int:
        """Bytes beyond which a file cannot be what the entry describes."""
        return file.size or (max(self.values * _MOST_WEIGHTS, 1 << 24) if file.role is Role.SOURCE else _MOST_TOKENIZER)

    def image_text(self, scale: float) -> ImageText:
        """What the manifest says of it, with the scale that its weights hold."""
        return ImageText(self.architecture, self.dimensions, scale, self.image)


def shipped() -> tuple[CatalogueEntry, ...]:
    """The entries that come with the program."""
    text = files("fediwarden.inference").joinpath(NAME).read_text(encoding="utf-8")
    return tuple(_entry(row) for row in tomllib.loads(text)["model"])


def known(own: Path | None = None) -> tuple[CatalogueEntry, ...]:
    """Every known entry, by name. Raises: Misconfigured when the operator's own file cannot be used."""
    entries = {entry.name: entry for entry in shipped()}
    if own is not None:
        try:
            with own.open("rb") as source:
                table = tomllib.loads(source.read(_LARGEST).decode("utf-8"))
            entries |= {entry.name: entry for entry in map(_entry, table["model"])}
        except FileNotFoundError:
            pass
        except (OSError, KeyError, TypeError, ValueError) as error:  # TOML's and UTF-8's errors are ValueErrors
            said = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise Misconfigured(f"the catalogue {own} cannot be used: {said}", hint="mend it, or move it away") from error
    return tuple(entries[name] for name in sorted(entries))


def find(name: str, entries: tuple[CatalogueEntry, ...]) -> CatalogueEntry:
    """The entry of that name. Raises: Misconfigured."""
    for entry in entries:
        if entry.name == name:
            return entry
    raise Misconfigured(f"no model {name!r} is known", hint=f"choose one of {', '.join(entry.name for entry in entries)}")


def of(manifest: ModelManifest, entries: tuple[CatalogueEntry, ...]) -> CatalogueEntry | None:
    """The entry that an installed model was made from, if it is still known."""
    special = manifest.image_text
    return next(
        (one for one in entries if special and (one.name, one.architecture) == (manifest.name, special.architecture)), None
    )


def _entry(row: Mapping[str, Any]) -> CatalogueEntry:
    words = ("name", "title", "about", "measures", "licence", "repository", "revision", "architecture", "accuracy_source")
    text = {key: row[key] for key in words}
    if not all(isinstance(value, str) for value in text.values()):
        raise TypeError("what should be words are none")
    numbers = image_text_of({**row, "scale": 1.0})
    entry = CatalogueEntry(
        **text,
        research_only=bool(row["research_only"]),
        blind=tuple(str(one) for one in row["blind"]),
        dimensions=numbers.dimensions,
        values=int(row["values"]),
        accuracy=float(row["accuracy"]),
        image=numbers.image,
        tensors=tuple(Tensor(str(one["name"]), tuple(int(side) for side in one["shape"])) for one in row["tensors"]),
        files=tuple(
            KnownFile(str(one["name"]), Role(one["role"]), str(one["sha256"]), int(one["size"]), int(one["about_mb"]))
            for one in row["files"]
        ),
    )
    if not PLAIN_NAME.fullmatch(entry.name) or not REPOSITORY.fullmatch(entry.repository):
        raise ValueError(f"{entry.name!r} or its repository is not a plain name")
    if entry.revision and not REVISION.fullmatch(entry.revision):
        raise ValueError(f"the revision of {entry.name} is not one of 40 hexadecimal digits")
    if any(file.sha256 and not DIGEST.fullmatch(file.sha256) for file in entry.files):
        raise ValueError(f"a SHA-256 of {entry.name} is none")
    if not all(PLAIN_NAME.fullmatch(file.name) for file in entry.files) or len({file.name for file in entry.files}) != len(
        entry.files
    ):
        raise ValueError(f"a file of {entry.name} has no plain name of its own")
    if [file.role for file in entry.files].count(Role.SOURCE) != 1 or not {file.role for file in entry.files} <= {
        Role.SOURCE,
        Role.TOKENIZER,
    }:
        raise ValueError(f"{entry.name} should have one source and its tokenizer's files")
    return entry
