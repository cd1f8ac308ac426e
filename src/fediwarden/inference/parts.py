"""Parts of an ONNX model as models of their own: the nodes between some of its values and others, without the package onnx.

What a model computes and nobody reads costs time all the same; and what is read only now and then can wait in a part of its
own. A part holds the very nodes and weights of the whole, so that its values are the same. Models with branches or loops are
not meant here: their inner graphs may read values that no node names.

An ONNX file is a protocol buffer: fields, each a number and a length or value, in any order.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from fediwarden.errors import Misconfigured
from fediwarden.inference.sessions import Failed, OnnxSession

_GRAPH = 7  # of a model
_NODE, _WEIGHTS, _INPUT, _OUTPUT, _VALUE = 1, 5, 11, 12, 13  # of a graph; the last are shapes that are known on the way
_READ, _WRITTEN = 1, 2  # of a node
_NAME, _WEIGHTS_NAME = 1, 8
_FLOAT_OF_FOUR = b"\x12\x0e\x0a\x0c\x08\x01\x12\x08" + b"\x0a\x00" * 4  # a value's type: float32, four sides of any length
_VARINT, _LONG, _BYTES, _SHORT = 0, 1, 2, 5  # how a field is stored


class ModelPart(OnnxSession):
    """A part of a model on the CPU. Its values are float32 and have four dimensions."""

    def __init__(self, model: bytes, *, name: str, inputs: Sequence[str], outputs: Sequence[str], threads: int = 1) -> None:
        """See `cut` and `OnnxSession`. Raises: Misconfigured as those."""
        super().__init__(cut(model, inputs, outputs), name=name, threads=threads)
        self._inputs, self._outputs = list(inputs), list(outputs)

    def values(self, *given: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """The values at the end of the part, for those at its beginning, each in the order they were named in. Raises: Failed."""
        try:
            found: list[NDArray[np.float32]] = self._session.run(self._outputs, dict(zip(self._inputs, given, strict=True)))
        except Exception as error:  # the runtime's own errors have no root of their own
            raise Failed(str(error).strip().split("\n")[0][:300] or type(error).__name__) from error
        return found


def cut(model: bytes, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    """The model that leads from the values `inputs` to the values `outputs`, each float32 with four dimensions.

    Raises: Misconfigured where `model` is no ONNX model or has no way from these inputs to these outputs.
    """
    try:
        fields = list(_fields(memoryview(model)))
        (graph,) = (content for number, content, _ in fields if number == _GRAPH)
        rest = b"".join(raw for number, _, raw in fields if number != _GRAPH)
        return rest + _field(_GRAPH, _part(graph, inputs, outputs))
    except (ValueError, IndexError, UnicodeDecodeError) as error:
        raise Misconfigured(f"the model has no part from {', '.join(inputs)} to {', '.join(outputs)}: {error}") from error


def _part(graph: memoryview, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    fields = list(_fields(graph))
    nodes = [(raw, _texts(content, _READ), _texts(content, _WRITTEN)) for number, content, raw in fields if number == _NODE]
    weights = {_texts(content, _WEIGHTS_NAME)[0]: raw for number, content, raw in fields if number == _WEIGHTS}
    given = {_texts(content, _NAME)[0]: raw for number, content, raw in fields if number == _INPUT}

    source = {value: number for number, (_, _, written) in enumerate(nodes) for value in written}
    needed: set[int] = set()
    used: set[str] = set()
    todo = list(outputs)
    while todo:
        value = todo.pop()
        if value in used or not value:  # an optional input that is left out has an empty name
            continue
        used.add(value)
        if value in inputs or value in weights:
            continue
        if value not in source:
            raise ValueError(f"nothing makes {value}")
        if source[value] not in needed:
            needed.add(source[value])
            todo += nodes[source[value]][1]
    if idle := set(inputs) - used:
        raise ValueError(f"nothing reads {', '.join(sorted(idle))}")

    parts: list[bytes | memoryview] = [
        raw for number, _, raw in fields if number not in (_NODE, _WEIGHTS, _INPUT, _OUTPUT, _VALUE)
    ]
    parts += [nodes[number][0] for number in sorted(needed)]  # the order of a model is one in which it can be computed
    parts += [raw for name, raw in weights.items() if name in used]
    parts += [given.get(name) or _field(_INPUT, _value(name)) for name in inputs]
    parts += [_field(_OUTPUT, _value(name)) for name in outputs]
    return b"".join(parts)


def _value(name: str) -> bytes:
    return _field(_NAME, name.encode()) + _FLOAT_OF_FOUR


def _texts(message: memoryview, wanted: int) -> list[str]:
    return [bytes(content).decode() for number, content, _ in _fields(message) if number == wanted]


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview, memoryview]]:
    """Number, content and the whole of each field; of numbers the content is empty. Raises: ValueError, IndexError."""
    at = 0
    while at < len(message):
        begin = at
        key, at = _varint(message, at)
        content = at
        match key & 7:
            case wire if wire == _BYTES:
                size, content = _varint(message, at)
                at = content + size
            case wire if wire == _VARINT:
                _, at = _varint(message, at)
                content = at
            case wire if wire in (_LONG, _SHORT):
                content = at = at + (8 if wire == _LONG else 4)
            case _:
                raise ValueError("it is no protocol buffer")
        if at > len(message):
            raise ValueError("it ends in the middle of a field")
        yield key >> 3, message[content:at], message[begin:at]


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and where it ends."""
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number has no end")


def _field(number: int, content: bytes) -> bytes:
    return _packed(number << 3 | _BYTES) + _packed(len(content)) + content


def _packed(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
