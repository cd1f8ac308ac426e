"""Writes an ONNX graph node by node in one precision, and its weights straight to the disk; knows layers, and no models.

The graphs use standard operators only, so that every provider of the runtime takes them; the CPU provider fuses what it can
by itself, and was measured to be no slower than with operators of its own (bench/RESULTS.md).
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from fediwarden.errors import Misconfigured
from fediwarden.inference.build.architecture import Activation

FLOAT, INT64 = 1, 7  # TensorProto.FLOAT and .INT64
_HALF = 10  # TensorProto.FLOAT16
_OPSET = 20
_IR = 9
_SMALL = 4096  # bytes up to which a constant is kept in memory
_LARGEST = (1 << 31) - 1  # bytes of a model: what the runtime reads in one piece
# Weights have seven bits. Processors without VNNI add pairs of products of unsigned and signed bytes in 16 bits, which is
# enough for seven bits (2 * 255 * 63 < 2**15) and not for eight: there the sum saturates, and scores depend on the processor.
_LARGEST_WEIGHT = 63
_LARGEST_INPUT = 127

Make = Callable[[], NDArray[Any]]


def onnx() -> Any:
    """The module onnx. Raises: Misconfigured where it is not installed."""
    try:
        import onnx
    except ImportError as error:
        raise Misconfigured("building a model needs the package onnx", hint="pip install 'fediwarden[build]'") from error
    return onnx


class Graph:
    """A graph that is being written. Values travel as names.

    What is *narrow* is float16 in fp16 and float32 otherwise; what is *wide* is always float32. Sums over blocks and layer
    normalisation are wide, because an activation of 65520 is no float16.
    """

    def __init__(self, precision: str) -> None:
        """`precision` is fp32, fp16 or int8; what is int8 are the matrices of `linear`, computed with eight-bit inputs."""
        self.precision = precision
        self._half = precision == "fp16"
        self._helper = onnx().helper
        self._nodes: list[Any] = []
        self._small: list[Any] = []
        self._large: list[tuple[str, Make]] = []
        self._known: dict[tuple[str, bytes], str] = {}  # small constants that are used again and again
        self._inputs: list[Any] = []
        self._output: Any = None

    def input(self, name: str, kind: int, shape: Sequence[int | str]) -> str:
        """A value that is given; a word in the shape stands for any size."""
        self._inputs.append(self._helper.make_tensor_value_info(name, kind, list(shape)))
        return name

    def output(self, value: str, name: str, shape: Sequence[int | str]) -> None:
        """Name the one result, wide."""
        self._nodes.append(self._helper.make_node("Identity", [value], [name]))
        self._output = self._helper.make_tensor_value_info(name, FLOAT, list(shape))

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """One operator with one result."""
        result = f"{kind}_{len(self._nodes)}"
        self._nodes.append(self._helper.make_node(kind, list(inputs), [result], **attributes))
        return result

    def constant(self, array: NDArray[Any] | np.generic) -> str:
        """A constant of any kind that is at hand already."""
        whole = np.asarray(array)
        if whole.nbytes > _SMALL:
            return self.late(lambda: whole)
        key = (f"{whole.dtype}{whole.shape}", whole.tobytes())
        if key not in self._known:
            self._known[key] = f"constant_{len(self._known)}"
            self._small.append(onnx().numpy_helper.from_array(np.ascontiguousarray(whole).reshape(whole.shape), self._known[key]))
        return self._known[key]

    def late(self, make: Make) -> str:
        """A large constant that is made when it is written, so that one of them at a time is in memory."""
        name = f"weights_{len(self._large)}"
        self._large.append((name, make))
        return name

    def shape(self, *sides: int) -> str:
        """A shape; 0 keeps a side, -1 stands for what is left."""
        return self.constant(np.array(sides, np.int64))

    def number(self, value: float, *, wide: bool = False) -> str:
        """One number, narrow or wide."""
        return self.constant(np.float16(value) if self._half and not wide else np.float32(value))

    def narrow(self, value: str) -> str:
        """See the class."""
        return self.op("Cast", value, to=_HALF) if self._half else value

    def wide(self, value: str) -> str:
        """See the class."""
        return self.op("Cast", value, to=FLOAT) if self._half else value

    def weights(self, make: Callable[[], NDArray[np.float32]]) -> str:
        """A large narrow constant."""
        return self.late(lambda: _halved(make())) if self._half else self.late(make)

    def linear(self, value: str, matrix: Callable[[], NDArray[np.float32]], bias: NDArray[np.float32] | None = None) -> str:
        """`value` @ matrix (in, out) + bias; narrow in and out. In int8 the inputs are rounded token by token."""
        in_bytes = self.precision == "int8"
        found = self._rounded(value, matrix) if in_bytes else self.op("MatMul", value, self.weights(matrix))
        if bias is None:
            return found
        return self.op("Add", found, self.constant(_halved(bias) if self._half else bias))

    def _rounded(self, value: str, matrix: Callable[[], NDArray[np.float32]]) -> str:
        """A product in bytes. Each token has a scale of its own: one scale for all would let the pictures of a batch, and one
        token that stands out, change what the others say.
        """
        integers, scales = _lazily_rounded(matrix)
        most = self.op("ReduceMax", self.op("Abs", value), self.shape(-1), keepdims=1)
        scale = self.op("Div", self.op("Max", most, self.number(1e-20)), self.number(_LARGEST_INPUT))
        zero = self.constant(np.uint8(128))
        rounded = self.op("QuantizeLinear", self.op("Div", value, scale), self.number(1), zero)
        product = self.op("MatMulInteger", rounded, self.late(integers), zero)
        return self.op("Mul", self.op("Mul", self.op("Cast", product, to=FLOAT), scale), self.late(scales))

    def norm(self, value: str, weight: NDArray[np.float32], bias: NDArray[np.float32], epsilon: float) -> str:
        """Layer normalisation over the last dimension; wide in and out."""
        return self.op("LayerNormalization", value, self.constant(weight), self.constant(bias), axis=-1, epsilon=epsilon)

    def act(self, value: str, act: Activation) -> str:
        """An activation; narrow in and out."""
        match act:
            case Activation.QUICK:
                return self.op("Mul", value, self.op("Sigmoid", self.op("Mul", value, self.number(1.702))))
            case Activation.GELU:
                return self.op("Gelu", value, approximate="none")
            case Activation.TANH:
                return self.op("Gelu", value, approximate="tanh")

    def attention(self, query: str, key: str, value: str, heads: int, head: int, mask: NDArray[np.float32] | None = None) -> str:
        """Attention of (batch, tokens, heads * head) each; the query was scaled already. `mask` is added. Narrow in and out."""
        split = self.shape(0, 0, heads, head)
        queries = self.op("Transpose", self.op("Reshape", query, split), perm=[0, 2, 1, 3])
        keys = self.op("Transpose", self.op("Reshape", key, split), perm=[0, 2, 3, 1])
        values = self.op("Transpose", self.op("Reshape", value, split), perm=[0, 2, 1, 3])
        scores = self.wide(self.op("MatMul", queries, keys))
        if mask is not None:
            scores = self.op("Add", scores, self.constant(mask))
        shares = self.narrow(self.op("Softmax", scores, axis=-1))
        joined = self.op("Transpose", self.op("MatMul", shares, values), perm=[0, 2, 1, 3])
        return self.op("Reshape", joined, self.shape(0, 0, heads * head))

    def write(self, path: Path) -> None:
        """Write the model to a new file, one large constant after the other.

        Raises: OSError; Misconfigured for weights that this precision cannot hold, or that are not sound.
        """
        package = onnx()
        graph = self._helper.make_graph(self._nodes, "tower", self._inputs, [self._output], self._small)
        model = self._helper.make_model(
            graph, opset_imports=[self._helper.make_opsetid("", _OPSET)], ir_version=_IR, producer_name="fediwarden"
        )
        with path.open("xb") as out:
            out.write(model.SerializeToString())
            for name, make in self._large:
                array = make()
                tensor = package.TensorProto(
                    name=name, dims=array.shape, data_type=self._helper.np_dtype_to_tensor_dtype(array.dtype)
                ).SerializeToString()
                _append(out, tensor, np.ascontiguousarray(array).reshape(-1).view(np.uint8))
            out.flush()
            size = out.tell()
        if size > _LARGEST:
            with suppress(OSError):
                path.unlink()
            raise Misconfigured(
                f"in {self.precision} this model is larger than 2 GiB, which is more than ONNX Runtime reads in one piece",
                hint="build it in fp16",
            )


def _append(out: BinaryIO, tensor: bytes, raw: NDArray[np.uint8]) -> None:
    """Append one initializer to a model that is written already, without holding it twice.

    A message that occurs again in a protobuf stream is merged into the first, so a second `graph` (field 7) that holds one
    `initializer` (field 5) adds it; its `raw_data` (field 9) are the bytes of the array.
    """
    inner = tensor + b"\x4a" + _varint(len(raw))
    outer = b"\x2a" + _varint(len(inner) + len(raw))
    out.write(b"\x3a" + _varint(len(outer) + len(inner) + len(raw)) + outer + inner)
    out.write(raw.data)


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _halved(array: NDArray[np.float32]) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):
        found = array.astype(np.float16)
    if not np.isfinite(found).all():
        raise Misconfigured("these weights are too large for fp16", hint="build the model in int8 or fp32")
    return found


def _lazily_rounded(matrix: Callable[[], NDArray[np.float32]]) -> tuple[Make, Make]:
    """How to make the whole numbers of a matrix, and the scale of each of its columns."""

    def scales_of(whole: NDArray[np.float32]) -> NDArray[np.float32]:
        largest: NDArray[np.float32] = np.abs(whole).max(axis=0)
        return np.maximum(largest / _LARGEST_WEIGHT, np.float32(1e-20))

    def integers() -> NDArray[Any]:
        whole = matrix()
        found: NDArray[np.int8] = np.rint(whole / scales_of(whole)).astype(np.int8)
        return found

    return integers, lambda: scales_of(matrix())
