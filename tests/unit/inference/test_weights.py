"""Headers of weights, sound and hostile; nothing in them is loaded."""

import json
import struct
import tracemalloc
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.hub_server import SCALE, framed, safetensors, tiny

from fediwarden.errors import Misconfigured
from fediwarden.inference import weights
from fediwarden.inference.catalogue import Tensor

ENTRY, FILES = tiny(side=4)
SOUND = FILES["open_clip_model.safetensors"]


def row(**values: object) -> dict[str, object]:
    return {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], **values}


def test_sound_weights_say_their_precision_number_and_scale(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(SOUND)

    found = weights.check(tmp_path / "w", ENTRY)

    assert (found.precision, found.values) == ("fp32", 33)
    assert found.scale == pytest.approx(100, rel=1e-5)


@pytest.mark.parametrize(
    "data",
    [
        (1 << 62).to_bytes(8, "little") + b"{}",
        (0).to_bytes(8, "little"),
        (30).to_bytes(8, "little") + b"{}",
        framed(b"[]", b""),
        framed(b"{}", b""),
        framed(b"{" * 100_000, b""),
        framed(b"[" * 100_000 + b"]" * 100_000, b""),
        framed(b'{"a": 5}', b""),
        framed(b"\xff\xfe", b""),
        framed(json.dumps({"a": row(data_offsets=[0, 8])}).encode(), bytes(8)),
        framed(json.dumps({"a": row(data_offsets=[4, 8])}).encode(), bytes(8)),
        framed(json.dumps({"a": row(), "b": row()}).encode(), bytes(4)),
        framed(json.dumps({"a": row(shape=[-1, -1])}).encode(), bytes(4)),
        framed(json.dumps({"a": row(shape=[1.0])}).encode(), bytes(4)),
        framed(json.dumps({"a": row(shape=[True])}).encode(), bytes(4)),
        framed(json.dumps({"a": row(shape=[1] * 9)}).encode(), bytes(4)),
        framed(json.dumps({"a": row(dtype="PICKLE")}).encode(), bytes(4)),
        framed(json.dumps({"a": row(shape=[1 << 62, 1 << 62])}).encode(), bytes(4)),
        framed(b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "a": {}}', bytes(4)),
        framed(json.dumps({"a": row()}).encode(), bytes(5)),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "w").write_bytes(data)

    with pytest.raises(Misconfigured, match="not a safetensors file"):
        weights.check(tmp_path / "w", ENTRY)


@given(at=st.integers(0, len(SOUND) - 1), cut=st.booleans(), byte=st.integers(0, 255))
def test_whatever_happened_to_a_file_the_answer_is_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, at: int, cut: bool, byte: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed"
    path.write_bytes(SOUND[:at] if cut else SOUND[:at] + bytes([byte]) + SOUND[at + 1 :])

    with suppress(Misconfigured):  # and nothing else
        weights.check(path, ENTRY)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -5.0, 12.0, 1e30])
def test_a_scale_that_no_training_ends_at_is_refused(tmp_path: Path, number: float) -> None:

    (tmp_path / "w").write_bytes(SOUND.replace(struct.pack("<f", SCALE), struct.pack("<f", number)))

    with pytest.raises(Misconfigured, match="logit_scale"):
        weights.check(tmp_path / "w", ENTRY)


def test_a_large_file_is_judged_without_being_read(tmp_path: Path) -> None:
    entry = replace(ENTRY, values=2 * 5000 * 5000 + 1, tensors=(Tensor("visual.proj", (5000, 5000)),))
    side = 5000 * 5000 * 4
    header = {
        "visual.proj": {"dtype": "F32", "shape": [5000, 5000], "data_offsets": [0, side]},
        "token_embedding.weight": {"dtype": "F32", "shape": [5000, 5000], "data_offsets": [side, 2 * side]},
        "logit_scale": {"dtype": "F32", "shape": [], "data_offsets": [2 * side, 2 * side + 4]},
    }
    text = json.dumps(header).encode()
    with (tmp_path / "w").open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        out.seek(8 + len(text) + 2 * side)
        out.write(safetensors({"logit_scale": ()})[-4:])
    tracemalloc.start()

    found = weights.check(tmp_path / "w", entry)

    assert found.values == entry.values
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()
