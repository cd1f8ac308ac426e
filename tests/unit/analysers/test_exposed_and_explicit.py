"""What the two models are given and how their output is read, with a stand-in for the network that answers as it is told."""

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tests.support.pictures import gradient

from fediwarden.analysers.explicit import Explicit
from fediwarden.analysers.exposed import MOST_FACES, Exposed

FACE, BREAST, BELLY = 4 + 1, 4 + 3, 4 + 13  # rows of the detector's output


class Told:
    """Remembers what it was given, and answers with what it was made with."""

    def __init__(self, answer: NDArray[np.float32]) -> None:
        self.answer = answer
        self.given: NDArray[np.float32] = np.empty(0, np.float32)

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        self.given = batch
        return self.answer


def boxes(*rows: tuple[int, float, tuple[float, float, float, float]]) -> Told:
    """Row of the output, score, and box as centre, width and height in the model's 320 pixels."""
    answer = np.zeros((1, 22, max(1, len(rows))), np.float32)
    for number, (row, score, box) in enumerate(rows):
        answer[0, :4, number] = box
        answer[0, row, number] = score
    return Told(answer)


def test_the_detector_sees_rgb_in_the_upper_left_of_a_black_square() -> None:
    told = boxes()

    Exposed(told).look(Image.new("RGB", (640, 320), (255, 51, 0)))

    assert told.given.shape == (1, 3, 320, 320)
    assert told.given.dtype == np.float32
    assert told.given[0, :, :160].reshape(3, -1).min(axis=1) == pytest.approx([1.0, 0.2, 0.0])
    assert told.given[0, :, :160].reshape(3, -1).max(axis=1) == pytest.approx([1.0, 0.2, 0.0])
    assert told.given[0, :, 160:].max() == 0


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (319, 321)])
def test_the_detector_takes_any_shape(size: tuple[int, int]) -> None:
    told = boxes()

    assert Exposed(told).look(gradient(*size)) == (0.0, [])
    assert told.given.shape == (1, 3, 320, 320)


def test_only_uncovered_parts_that_are_explicit_count() -> None:
    box = (50.0, 50.0, 20.0, 20.0)

    score, faces = Exposed(boxes((BELLY, 0.9, box), (BREAST, 0.1, box))).look(gradient(320, 320))

    assert score == pytest.approx(0.1)
    assert faces == []


def test_a_face_is_told_in_pixels_of_the_frame_and_ends_at_its_edge() -> None:
    told = boxes((FACE, 0.8, (300.0, 80.0, 60.0, 40.0)))

    _, (face,) = Exposed(told).look(gradient(1280, 640))

    assert (face.left, face.top, face.right, face.bottom) == pytest.approx((1080, 240, 1280, 400))
    assert face.side == pytest.approx(160)
    assert face.score == pytest.approx(0.8)


def test_boxes_of_one_face_become_one_and_neighbours_stay_two() -> None:
    told = boxes(
        (FACE, 0.6, (100.0, 100.0, 60.0, 60.0)),
        (4 + 12, 0.9, (104.0, 98.0, 60.0, 62.0)),
        (FACE, 0.5, (165.0, 100.0, 60.0, 60.0)),
        (FACE, 0.2, (250.0, 100.0, 60.0, 60.0)),
    )

    _, faces = Exposed(told).look(gradient(320, 320))

    assert [round(face.score, 2) for face in faces] == [0.9, 0.5]


def test_a_face_in_the_padding_is_none() -> None:
    assert Exposed(boxes((FACE, 0.9, (100.0, 250.0, 60.0, 60.0)))).look(gradient(640, 320))[1] == []


def test_faces_without_end_are_bounded_surest_first() -> None:
    crowd = [(FACE, 0.3 + n / 1000, (3.0 + 6 * (n % 50), 3.0 + 6 * (n // 50), 5.0, 5.0)) for n in range(400)]

    _, faces = Exposed(boxes(*crowd)).look(gradient(320, 320))

    assert len(faces) == MOST_FACES
    assert [face.score for face in faces] == sorted((face.score for face in faces), reverse=True)
    assert faces[0].score == pytest.approx(0.699)


def test_the_whole_picture_model_sees_the_middle_in_bgr_minus_the_mean() -> None:
    told = Told(np.array([[0.25, 0.75]], np.float32))
    picture = Image.new("RGB", (512, 512), (200, 100, 50))

    score = Explicit(told).look(picture)

    assert score == 0.75
    assert told.given.shape == (1, 224, 224, 3)
    assert told.given.dtype == np.float32
    assert told.given[0].mean(axis=(0, 1)) == pytest.approx([50 - 104, 100 - 117, 200 - 123], abs=2)
    assert told.given[0].std(axis=(0, 1)).max() < 1
