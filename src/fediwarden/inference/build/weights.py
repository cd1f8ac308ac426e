"""Reads the tensors of a safetensors file where they lie, without loading it; what a tensor means is not known here."""

import math
import mmap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fediwarden.errors import Misconfigured
from fediwarden.inference.weights import Array, read_header

_TYPES: Mapping[str, str] = {  # others (masks, indices) are never read
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
}


class Tensors:
    """The tensors of one file, each read when it is asked for."""

    def __init__(self, data: memoryview, places: Mapping[str, Array], path: Path) -> None:
        """Use `opened` instead."""
        self._data = data
        self._places = places
        self._path = path

    def __contains__(self, name: str) -> bool:
        return name in self._places

    @property
    def names(self) -> tuple[str, ...]:
        """Of all tensors, in the order of the file."""
        return tuple(self._places)

    def shape(self, name: str, sides: int) -> tuple[int, ...]:
        """The shape of a tensor. Raises: Misconfigured when the file has none of this name with so many sides, none of them 0."""
        shape = self._place(name).shape
        if len(shape) != sides or 0 in shape:
            raise self._other(f"{name} has the shape {list(shape)}")
        return shape

    def read(self, name: str, *shape: int) -> NDArray[np.float32]:
        """A tensor as float32; one that is float32 in the file is not copied.

        Raises: Misconfigured when the file has none of this name, or one of another shape, or with numbers that are not
        finite.
        """
        place = self._place(name)
        if shape and place.shape != shape:
            raise self._other(f"{name} has the shape {list(place.shape)} where {list(shape)} was expected")
        stored = np.frombuffer(self._bytes(place), _TYPES[place.kind]).reshape(place.shape)
        if place.kind == "BF16":  # the upper half of a float32
            found = (stored.astype(np.uint32) << 16).view(np.float32)
        else:
            found = stored.astype(np.float32, copy=False)
        if not np.isfinite(found).all():
            raise Misconfigured(
                f"{self._path.name} holds numbers that are not finite in {name}",
                hint="these weights are damaged: pull them again",
            )
        return found

    def rows(self, name: str, wanted: NDArray[np.int64]) -> NDArray[np.float32]:
        """Some rows of a matrix that is too large to be read whole. Raises: Misconfigured, also for a row it has not."""
        place = self._place(name)
        if len(place.shape) != 2 or place.kind not in ("F32", "F16", "BF16"):
            raise self._other(f"{name} is no matrix")
        if wanted.size and not 0 <= int(wanted.min()) <= int(wanted.max()) < place.shape[0]:
            raise Misconfigured(
                f"the tokenizer names token {int(wanted.max())}, and {name} has {place.shape[0]}",
                hint="the tokenizer belongs to another model: pull them together",
            )
        stored = np.frombuffer(self._bytes(place), _TYPES[place.kind]).reshape(place.shape)[wanted]
        return (stored.astype(np.uint32) << 16).view(np.float32) if place.kind == "BF16" else stored.astype(np.float32)

    def _place(self, name: str) -> Array:
        if name not in self._places:
            raise self._other(f"it has no tensor {name}")
        return self._places[name]

    def _bytes(self, place: Array) -> memoryview:
        return self._data[place.at : place.at + math.prod(place.shape) * np.dtype(_TYPES[place.kind]).itemsize]

    def _other(self, what: str) -> Misconfigured:
        return Misconfigured(
            f"{self._path.name} does not hold the weights of this architecture: {what}",
            hint="check the model's architecture with `fediwarden models show`",
        )


@contextmanager
def opened(path: Path) -> Iterator[Tensors]:
    """Map a file into memory for as long as its tensors are read. Raises: Misconfigured when it is no whole safetensors file."""
    try:
        places = {name: array for name, array in read_header(path, path.name).items() if array.kind in _TYPES}
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # ValueError: nothing to map
        raise Misconfigured(f"{path} cannot be read: {error}", hint="pull or import the weights again") from error
    try:
        yield Tensors(memoryview(mapped), places, path)
    finally:
        with suppress(BufferError):  # somebody still holds an array of it, and the map goes when that does
            mapped.close()
