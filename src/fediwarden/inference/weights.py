"""What is in a file of weights, read from its safetensors header without loading an array; a pickle, which is a program, is refused.

A safetensors file is eight bytes with the header's length, a JSON object that names each array with its kind of number, shape
and place, and the arrays. Nothing in it can run.
"""

import json
import math
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fediwarden.errors import Misconfigured
from fediwarden.inference.catalogue import CatalogueEntry

_LARGEST_HEADER = 16 << 20  # bytes; the largest model here has 200 kB
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_BYTES |= {"U16": 2, "U32": 4, "U64": 8}
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_PRECISIONS = {"F64": "fp64", "F32": "fp32", "F16": "fp16", "BF16": "bf16"}
_SCALE = "logit_scale"
_TOLERANCE = 0.01  # of the number of values: a file may hold a counter or a buffer more


@dataclass(frozen=True, slots=True)
class Array:
    """One array of the file: its kind of number, shape, and first byte in the file."""

    kind: str
    shape: tuple[int, ...]
    at: int


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """What a checked file holds."""

    precision: str  # of most values
    values: int
    scale: float  # what cosines are multiplied with


def is_pickle(name: str) -> bool:
    """Whether a file's name says that it is a pickle."""
    return name.endswith(_PICKLES)


def check(path: Path, entry: CatalogueEntry, called: str = "") -> WeightsFile:
    """Hold a file of weights to the architecture it should have. Raises: Misconfigured saying what it is instead; OSError."""
    called = called or path.name
    arrays = read_header(path, called)
    for tensor in entry.tensors:
        found = arrays.get(tensor.name)
        if found is None:
            raise _other(called, entry, f"it has no array {tensor.name}")
        if found.shape != tensor.shape:
            raise _other(called, entry, f"{tensor.name} is {_sides(found.shape)} and should be {_sides(tensor.shape)}")
    values = sum(math.prod(array.shape) for array in arrays.values())
    if abs(values - entry.values) > entry.values * _TOLERANCE:
        raise _other(called, entry, f"it holds {values:,} values and should hold {entry.values:,}")
    counts: dict[str, int] = {}
    for array in arrays.values():
        counts[array.kind] = counts.get(array.kind, 0) + math.prod(array.shape)
    return WeightsFile(_PRECISIONS.get(max(counts, key=lambda kind: counts[kind]), "other"), values, _scale(path, arrays, called))


def read_header(path: Path, called: str) -> Mapping[str, Array]:
    """The arrays of a safetensors file, every one inside the file and none over another. Raises: Misconfigured, OSError."""
    with path.open("rb") as source:
        size = os.fstat(source.fileno()).st_size
        start = source.read(8)
        if start[:4] == b"PK\x03\x04" or start[:1] == b"\x80":
            raise Misconfigured(
                f"{called} is a pickle, which is a program, whatever its name says; it was not opened",
                hint="take the same weights as .safetensors",
            )
        length = int.from_bytes(start, "little") if len(start) == 8 else 0
        if not 2 <= length <= min(_LARGEST_HEADER, size - 8):
            raise _broken(called, "it has no header")
        text = source.read(length)
    try:
        table = json.loads(text.decode("utf-8"), object_pairs_hook=_once)
        arrays = {name: _array(row, 8 + length) for name, row in table.items() if name != "__metadata__"}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _broken(called, "its header cannot be read") from error
    end = 8 + length
    for array in sorted(arrays.values(), key=lambda one: (one.at, math.prod(one.shape))):
        if array.at != end:
            raise _broken(called, "its arrays overlap or leave holes")
        end += math.prod(array.shape) * _BYTES[array.kind]
    if end != size or not arrays:
        raise _broken(called, f"its arrays end at byte {end:,} and the file at {size:,}")
    return arrays


def _array(row: Mapping[str, Any], base: int) -> Array:
    begin, end = row["data_offsets"]
    shape = tuple(row["shape"])
    if not all(type(number) is int and number >= 0 for number in (begin, end, *shape)) or len(shape) > 8:
        raise ValueError("not a shape")
    if end - begin != math.prod(shape) * _BYTES[row["dtype"]]:
        raise ValueError("an array of another length than its shape says")
    return Array(row["dtype"], shape, base + begin)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name is there twice")
    return table


def _scale(path: Path, arrays: Mapping[str, Array], called: str) -> float:
    """The trained scale of the cosines: the exponential of one number in the file."""
    array = arrays.get(_SCALE)
    forms = {"F64": "<d", "F32": "<f", "F16": "<e", "BF16": "<f"}
    if array is None or math.prod(array.shape) != 1 or array.kind not in forms:
        raise _broken(called, f"it has no number {_SCALE}")
    with path.open("rb") as source:
        source.seek(array.at)
        raw = source.read(_BYTES[array.kind])
    if array.kind == "BF16":
        raw = b"\0\0" + raw  # the upper half of a 32-bit number
    (number,) = struct.unpack(forms[array.kind], raw)
    scale = math.exp(number) if -20 < number < 20 else math.nan
    if not 1 <= scale <= 1000:
        raise _broken(called, f"its {_SCALE} of {number} is none that a model was trained to")
    return scale


def _sides(shape: tuple[int, ...]) -> str:
    return " x ".join(str(side) for side in shape) or "one number"


def _other(called: str, entry: CatalogueEntry, because: str) -> Misconfigured:
    return Misconfigured(
        f"{called} does not hold weights of {entry.architecture}: {because}",
        hint=f"{entry.name} needs the weights of {entry.repository} in open_clip's layout",
    )


def _broken(called: str, because: str) -> Misconfigured:
    return Misconfigured(
        f"{called} is not a safetensors file: {because}", hint="it may be cut short or something else; fetch it again"
    )
