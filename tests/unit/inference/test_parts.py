"""Parts of a model: the same values as the whole, nothing left in that is not needed, and plain words for what has no part."""

import numpy as np
import pytest
from onnx import TensorProto, helper, load_model_from_string, numpy_helper

from fediwarden.errors import Misconfigured
from fediwarden.inference.parts import ModelPart, cut
from fediwarden.inference.sessions import Failed, OnnxSession

SHAPE = (2, 1, 3, 3)


def whole() -> bytes:
    """x -> twice -> (less, more) -> both; `more` alone needs the weights `ten`, and `clipped` leaves an input out."""
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 1, 3, 3]) for name in ("x", "both")]
    weights = [numpy_helper.from_array(np.full((1,), number, np.float32), name) for name, number in (("two", 2), ("ten", 10))]
    nodes = [
        helper.make_node("Mul", ["x", "two"], ["twice"]),
        helper.make_node("Clip", ["twice", "", "ten"], ["clipped"]),
        helper.make_node("Sub", ["twice", "two"], ["less"]),
        helper.make_node("Add", ["twice", "ten"], ["more"]),
        helper.make_node("Mul", ["less", "more"], ["both"]),
    ]
    graph = helper.make_graph(nodes, "whole", value[:1], value[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    data: bytes = model.SerializeToString()
    return data


def given() -> np.ndarray:
    return np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)


def test_two_parts_give_what_the_whole_gives() -> None:
    first = ModelPart(whole(), name="first", inputs=["x"], outputs=["less", "twice"])
    second = ModelPart(whole(), name="second", inputs=["twice", "less"], outputs=["both"])

    less, twice = first.values(given())
    (both,) = second.values(twice, less)

    assert np.array_equal(less, 2 * given() - 2)
    assert np.array_equal(both, OnnxSession(whole(), name="whole").run(given()))


def test_a_part_holds_only_what_it_needs() -> None:
    part = load_model_from_string(cut(whole(), ["x"], ["less"])).graph

    assert [node.op_type for node in part.node] == ["Mul", "Sub"]
    assert [weights.name for weights in part.initializer] == ["two"]
    assert [value.name for value in part.input] == ["x"]
    assert [value.name for value in part.output] == ["less"]


def test_an_input_that_is_left_out_stays_left_out() -> None:
    part = ModelPart(whole(), name="part", inputs=["x"], outputs=["clipped"])

    assert part.values(given())[0].max() == 10


@pytest.mark.parametrize(
    ("inputs", "outputs", "why"),
    [
        (["x"], ["nowhere"], "nothing makes nowhere"),
        (["more"], ["both"], "nothing makes x"),
        (["x", "less"], ["more"], "nothing reads less"),
    ],
)
def test_a_way_that_is_none_is_said(inputs: list[str], outputs: list[str], why: str) -> None:
    with pytest.raises(Misconfigured, match=why):
        cut(whole(), inputs, outputs)


@pytest.mark.parametrize("size", [0, 1, 40, 200])
def test_what_is_no_model_or_half_of_one_has_no_part(size: int) -> None:
    with pytest.raises(Misconfigured, match="no part from x to both"):
        cut(whole()[:size], ["x"], ["both"])


def test_no_bytes_break_the_reader() -> None:
    random = np.random.default_rng(5)
    for _ in range(300):
        damaged = bytearray(whole())
        for place in random.integers(0, len(damaged), 4):
            damaged[place] = random.integers(0, 256)
        try:
            cut(bytes(damaged), ["x"], ["both"])
        except Misconfigured:
            continue


def test_values_that_do_not_fit_are_a_failure() -> None:
    part = ModelPart(whole(), name="part", inputs=["x"], outputs=["less"])

    with pytest.raises(Failed):
        part.values(np.zeros((1, 2), np.float32))
