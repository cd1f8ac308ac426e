"""How even a picture's colour is."""

import pytest
from PIL import Image, ImageFilter
from tests.support.pictures import drawn_face, frame_of, gradient, noise, shapes

from fediwarden.analysers.flat import Flat, evenness


def test_graphics_are_even_and_grain_is_not() -> None:
    assert evenness(frame_of(Image.new("RGB", (300, 200), "teal"))) == 1.0
    assert evenness(frame_of(shapes(640, 480))) > 0.6
    assert evenness(frame_of(noise(640, 480))) < 0.1
    assert evenness(frame_of(noise(640, 480, grain=9).filter(ImageFilter.GaussianBlur(3)))) < 0.2
    assert evenness(frame_of(gradient(640, 480))) < 0.6


@pytest.mark.parametrize("size", [(1, 1), (7, 700), (8, 8), (2000, 9)])
def test_any_shape_has_an_answer(size: tuple[int, int]) -> None:
    assert 0 <= evenness(frame_of(noise(*size))) <= 1


def test_one_finding_a_frame() -> None:
    found = Flat().analyse([frame_of(drawn_face(200), 1), frame_of(drawn_face(200), 2, "trailing")])

    assert [(one.concept, one.frame, one.source) for one in found] == [("flat", 1, ""), ("flat", 2, "trailing")]
