"""The five-point landmark model as arrays: read from dlib's file once, kept as .npz; finding points in pixels is not here.

The model is a cascade of regression forests (V. Kazemi and J. Sullivan, "One millisecond face alignment with an ensemble of
regression trees", CVPR 2014), stored in the serialisation format of dlib: integers as a length byte and little-endian
magnitude, floats as mantissa and binary exponent. Reading it takes about two seconds; loading the .npz takes milliseconds.
"""

import io
import math
import zipfile
from dataclasses import dataclass, fields
from hashlib import sha256
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fediwarden.errors import Misconfigured

_FORMAT = 1  # the only version of the serialisation there is
_MOST = 1 << 22  # no count in a sound file comes near; stops a damaged one from asking for gigabytes


@dataclass(frozen=True, slots=True, eq=False)
class Landmarks:
    """C cascades of T trees with S inner nodes and S + 1 leaves, over F sampled pixels, for P points.

    Coordinates are relative to the face's box: 0 is its left or top edge, 1 its right or bottom one.
    """

    mean: NDArray[np.float32]  # (P, 2), the shape that every search begins with
    first: NDArray[np.int32]  # (C, T, S), pixel compared at a node ...
    second: NDArray[np.int32]  # (C, T, S), ... with this one
    threshold: NDArray[np.float32]  # (C, T, S), go to the left child when first - second is above it
    leaf: NDArray[np.float32]  # (C, T, S + 1, 2P), what a leaf adds to the points
    anchor: NDArray[np.int32]  # (C, F), the point that a sampled pixel lies near
    offset: NDArray[np.float32]  # (C, F, 2), and how far from it, in the mean shape

    @classmethod
    def from_dlib(cls, data: bytes) -> Self:
        """Parse the content of a `shape_predictor_*.dat`. Raises: Misconfigured for anything else."""
        try:
            return cls._parse(_Reader(data))
        except (IndexError, ValueError, OverflowError) as error:
            raise Misconfigured(f"the landmark file is not a dlib shape predictor: {error}") from error

    @classmethod
    def _parse(cls, read: "_Reader") -> Self:
        if read.integer() != _FORMAT:
            raise ValueError("unknown format version")
        mean = read.matrix()
        first: list[list[list[int]]] = []
        second: list[list[list[int]]] = []
        threshold: list[list[list[float]]] = []
        leaf: list[list[list[list[float]]]] = []
        for _ in range(read.count()):
            forest: tuple[list[list[int]], list[list[int]], list[list[float]], list[list[list[float]]]] = ([], [], [], [])
            for _ in range(read.count()):
                splits = [(read.integer(), read.integer(), read.real()) for _ in range(read.count())]
                forest[0].append([split[0] for split in splits])
                forest[1].append([split[1] for split in splits])
                forest[2].append([split[2] for split in splits])
                forest[3].append([read.matrix() for _ in range(read.count())])
            first.append(forest[0])
            second.append(forest[1])
            threshold.append(forest[2])
            leaf.append(forest[3])
        anchor = [[read.integer() for _ in range(read.count())] for _ in range(read.count())]
        offset = [[(read.real(), read.real()) for _ in range(read.count())] for _ in range(read.count())]
        read.finish()
        return cls(
            mean=np.array(mean, np.float32).reshape(-1, 2),
            first=np.array(first, np.int32),
            second=np.array(second, np.int32),
            threshold=np.array(threshold, np.float32),
            leaf=np.array(leaf, np.float32),
            anchor=np.array(anchor, np.int32),
            offset=np.array(offset, np.float32),
        ).checked()

    def checked(self) -> Self:
        """Itself, when shapes and indices agree with one another. Raises: ValueError."""
        cascades, trees, nodes = self.first.shape
        pixels = self.anchor.shape[1]
        expected: dict[str, tuple[int, ...]] = {
            "mean": (self.mean.shape[0], 2),
            "first": (cascades, trees, nodes),
            "second": (cascades, trees, nodes),
            "threshold": (cascades, trees, nodes),
            "leaf": (cascades, trees, nodes + 1, 2 * self.mean.shape[0]),
            "anchor": (cascades, pixels),
            "offset": (cascades, pixels, 2),
        }
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has the shape {getattr(self, name).shape}, not {shape}")
        if (nodes + 1) & nodes:
            raise ValueError("trees are not complete")
        for indices, bound in ((self.first, pixels), (self.second, pixels), (self.anchor, self.mean.shape[0])):
            if indices.size and (int(indices.min()) < 0 or int(indices.max()) >= bound):
                raise ValueError("an index points outside the model")
        return self

    def to_npz(self) -> bytes:
        """The arrays as an uncompressed .npz."""
        out = io.BytesIO()
        np.savez(out, **{field.name: getattr(self, field.name) for field in fields(self)})
        return out.getvalue()

    @classmethod
    def from_npz(cls, data: bytes) -> Self:
        """The arrays of `to_npz`. Raises: Misconfigured for anything else; a pickled object in there is never opened."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                found = {field.name: arrays[field.name] for field in fields(cls)}
            for name in ("first", "second", "anchor"):
                found[name] = found[name].astype(np.int32, casting="safe", copy=False)
            for name in ("mean", "threshold", "leaf", "offset"):
                found[name] = found[name].astype(np.float32, casting="safe", copy=False)
            return cls(**found).checked()
        except (KeyError, ValueError, TypeError, AttributeError, EOFError, OSError, zipfile.BadZipFile) as error:
            raise Misconfigured(
                f"the landmark file cannot be used: {error}", hint="run `fediwarden models install` again"
            ) from error

    @property
    def digest(self) -> str:
        """SHA-256 over names, shapes and values: the same whatever version of numpy wrote the file."""
        total = sha256()
        for field in fields(self):
            array: NDArray[np.float32] | NDArray[np.int32] = getattr(self, field.name)
            total.update(f"{field.name} {array.dtype.kind} {array.shape}\n".encode())
            total.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
        return total.hexdigest()


class _Reader:
    """Walks over the serialised values; reading past the end is an IndexError."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def integer(self) -> int:
        head = self._data[self._at]
        length = head & 0x0F
        begin = self._at + 1
        self._at = begin + length
        if self._at > len(self._data):
            raise IndexError("it ends in the middle of a number")
        value = int.from_bytes(self._data[begin : self._at], "little")
        return -value if head & 0x80 else value

    def real(self) -> float:
        mantissa = self.integer()
        exponent = self.integer()
        if exponent >= 32_000:  # how infinities and NaN are written
            raise ValueError("a value is not a number")
        return math.ldexp(mantissa, exponent)

    def count(self) -> int:
        value = self.integer()
        if not 0 <= value <= _MOST:
            raise ValueError("a count is out of bounds")
        return value

    def matrix(self) -> list[float]:
        """Rows and columns are written negated, to tell this format from an older one."""
        rows, columns = abs(self.integer()), abs(self.integer())
        if rows * columns > _MOST:
            raise ValueError("a matrix is out of bounds")
        return [self.real() for _ in range(rows * columns)]

    def finish(self) -> None:
        if self._at != len(self._data):
            raise ValueError("bytes follow its end")
