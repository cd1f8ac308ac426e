"""Reading the landmark file, keeping it as .npz, and finding and cutting out an upright face with it."""

import io
import math
import random
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from tests.support.pictures import drawn_face, noise

from fediwarden.analysers.age import PointFinder, upright
from fediwarden.analysers.exposed import Face
from fediwarden.errors import Misconfigured
from fediwarden.inference.landmarks import Landmarks


def integer(value: int) -> bytes:
    """A number as the file format has it."""
    size = max(1, (abs(value).bit_length() + 7) // 8)
    return bytes([size | (0x80 if value < 0 else 0)]) + abs(value).to_bytes(size, "little")


def real(value: float) -> bytes:
    mantissa, exponent = math.frexp(value)
    return integer(int(mantissa * 2**53)) + integer(exponent - 53)


def matrix(values: list[float]) -> bytes:
    return integer(-len(values)) + integer(-1) + b"".join(map(real, values))


def small_model(seed: int = 0, points: int = 5, cascades: int = 2, trees: int = 3, depth: int = 2, pixels: int = 7) -> Landmarks:
    chance = np.random.Generator(np.random.PCG64(seed))
    nodes = 2**depth - 1

    def floats(*shape: int) -> NDArray[np.float32]:
        return (chance.random(shape) - 0.5).astype(np.float32)

    def indices(bound: int, *shape: int) -> NDArray[np.int32]:
        return chance.integers(0, bound, shape).astype(np.int32)

    return Landmarks(
        mean=floats(points, 2) + np.float32(0.5),
        first=indices(pixels, cascades, trees, nodes),
        second=indices(pixels, cascades, trees, nodes),
        threshold=floats(cascades, trees, nodes) * np.float32(100),
        leaf=floats(cascades, trees, nodes + 1, 2 * points) / np.float32(20),
        anchor=indices(points, cascades, pixels),
        offset=floats(cascades, pixels, 2) / np.float32(4),
    ).checked()


def as_file(model: Landmarks) -> bytes:
    """The model as dlib would have written it."""
    cascades, trees, nodes = model.first.shape
    out = [integer(1), matrix(model.mean.ravel().tolist()), integer(cascades)]
    for c in range(cascades):
        out.append(integer(trees))
        for t in range(trees):
            out.append(integer(nodes))
            for n in range(nodes):
                out += [integer(int(model.first[c, t, n])), integer(int(model.second[c, t, n]))]
                out.append(real(float(model.threshold[c, t, n])))
            out.append(integer(nodes + 1))
            out += [matrix(leaf.tolist()) for leaf in model.leaf[c, t]]
    out.append(integer(cascades))
    for anchors in model.anchor.tolist():
        out += [integer(len(anchors)), *map(integer, anchors)]
    out.append(integer(cascades))
    for offsets in model.offset.tolist():
        out += [integer(len(offsets)), *(real(value) for pair in offsets for value in pair)]
    return b"".join(out)


def same(one: Landmarks, other: Landmarks) -> bool:
    return all(np.array_equal(getattr(one, field.name), getattr(other, field.name)) for field in fields(Landmarks))


def test_a_file_is_read_exactly() -> None:
    model = small_model()

    assert same(Landmarks.from_dlib(as_file(model)), model)


def test_arrays_come_back_from_npz_as_they_were() -> None:
    model = small_model(seed=1)

    again = Landmarks.from_npz(model.to_npz())

    assert same(again, model)
    assert again.digest == model.digest != small_model(seed=2).digest


def test_every_cut_of_a_file_is_refused() -> None:
    whole = as_file(small_model())

    for end in range(0, len(whole), 7):
        with pytest.raises(Misconfigured):
            Landmarks.from_dlib(whole[:end])
    with pytest.raises(Misconfigured, match="follow"):
        Landmarks.from_dlib(whole + b"\x00")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_model_or_refused(data: bytes) -> None:
    for read in (Landmarks.from_dlib, Landmarks.from_npz):
        with pytest.raises(Misconfigured):
            read(data)


def test_a_damaged_file_is_a_model_or_refused() -> None:
    chance = random.Random(3)
    whole = as_file(small_model())
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        try:
            model = Landmarks.from_dlib(bytes(damaged))
        except Misconfigured:
            continue
        assert model.first.shape == model.second.shape


def test_indices_outside_the_model_are_refused() -> None:
    model = small_model()
    for wrong in (replace(model, first=model.first + 7), replace(model, anchor=model.anchor - 6)):
        with pytest.raises(Misconfigured, match="outside"):
            Landmarks.from_npz(wrong.to_npz())


def test_a_pickle_in_an_npz_is_never_opened() -> None:
    out = io.BytesIO()
    arrays = {field.name: getattr(small_model(), field.name) for field in fields(Landmarks)}
    np.savez(out, **{**arrays, "mean": np.array([object()], dtype=object)})

    with pytest.raises(Misconfigured, match="allow_pickle"):
        Landmarks.from_npz(out.getvalue())


def slowly(model: Landmarks, rgb: NDArray[np.uint8], face: Face) -> list[list[float]]:
    """The cascade one number at a time, as its paper describes it."""
    height, width, _ = rgb.shape
    left, top = math.floor(face.left), math.floor(face.top)
    across, down = math.floor(face.right) - left, math.floor(face.bottom) - top
    mean = [complex(*pair) for pair in model.mean.tolist()]
    shape = list(mean)
    centre = sum(mean) / len(mean)
    for c in range(len(model.first)):
        turn = sum((m - centre).conjugate() * s for m, s in zip(mean, shape, strict=True)) / sum(
            abs(m - centre) ** 2 for m in mean
        )
        grey = []
        for a, o in zip(model.anchor[c].tolist(), model.offset[c].tolist(), strict=True):
            at = shape[a] + turn * complex(*o)
            x, y = math.floor(left + at.real * across + 0.5), math.floor(top + at.imag * down + 0.5)
            grey.append(int(rgb[y, x].astype(int).sum()) // 3 if 0 <= x < width and 0 <= y < height else 0)
        for t in range(model.first.shape[1]):
            node, nodes = 0, model.first.shape[2]
            while node < nodes:
                goes_left = grey[model.first[c, t, node]] - grey[model.second[c, t, node]] > model.threshold[c, t, node]
                node = 2 * node + (1 if goes_left else 2)
            for p, pair in enumerate(model.leaf[c, t, node - nodes].reshape(-1, 2).tolist()):
                shape[p] += complex(*pair)
    return [[math.floor(left + s.real * across + 0.5), math.floor(top + s.imag * down + 0.5)] for s in shape]


@pytest.mark.parametrize("seed", range(5))
def test_points_of_many_faces_at_once_are_those_of_each_alone_found_slowly(seed: int) -> None:
    model = small_model(seed=seed, cascades=4, trees=20, depth=3, pixels=40)
    picture = np.asarray(noise(120, 90, seed=seed, grain=4))
    faces = [Face(10, 10, 90, 80, 1), Face(-20.5, -30.2, 60.7, 50, 1), Face(100, 70, 140, 110, 1), Face(3, 4, 5, 6, 1)]

    found = PointFinder(model).find(picture, faces)

    for points, face in zip(found, faces, strict=True):
        assert [[point.real, point.imag] for point in points] == slowly(model, picture, face)


def eyes_and_nose(size: int, turned: float) -> NDArray[np.complex128]:
    """Where a person would put the five points on `drawn_face`."""
    places = np.array([0.665 + 0.44j, 0.555 + 0.44j, 0.335 + 0.44j, 0.445 + 0.44j, 0.5 + 0.6j]) * size
    centre = size / 2 * (1 + 1j)
    turned_places: NDArray[np.complex128] = (places - centre) * np.exp(-1j * math.radians(turned)) + centre
    return turned_places


@pytest.mark.parametrize("size", [120, 200, 400, 900])
@pytest.mark.parametrize("turned", [-35.0, 0.0, 90.0, 180.0])
def test_a_turned_face_is_cut_out_upright_at_every_size(size: int, turned: float) -> None:
    expected = np.asarray(upright(drawn_face(400), eyes_and_nose(400, 0)), np.float32)

    chip = upright(drawn_face(size, turned), eyes_and_nose(size, turned))

    assert chip.size == (64, 64)
    assert np.abs(np.asarray(chip, np.float32) - expected).mean() < (8 if size < 200 else 6)


@pytest.mark.parametrize(
    "points", [np.zeros(5, complex), np.full(5, 900 + 900j), eyes_and_nose(5000, 0), -eyes_and_nose(4000, 0)]
)
def test_points_outside_the_picture_or_on_one_spot_still_give_a_chip(points: NDArray[np.complex128]) -> None:
    for picture in (drawn_face(100), Image.new("RGB", (1, 1))):
        assert upright(picture, points).size == (64, 64)
