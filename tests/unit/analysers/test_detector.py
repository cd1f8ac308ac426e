"""The detector in two parts against the model in one piece."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.support.models import models  # noqa: F401 - fixture
from tests.support.pictures import drawn_face, gradient, noise, shapes

from fediwarden.analysers import exposed
from fediwarden.analysers.detector import Detector
from fediwarden.errors import Misconfigured
from fediwarden.inference import registry
from fediwarden.inference.sessions import OnnxSession

PICTURES = {
    "face": drawn_face(400),
    "small face": drawn_face(120),
    "noise": noise(500, 300, seed=3, grain=20),
    "gradient": gradient(320, 200),
    "shapes": shapes(640, 480, seed=1),
}
FACES = [5, 16]  # rows of the answer


def given(image: Image.Image) -> np.ndarray:
    small = np.asarray(image.resize((320, 320)), np.float32) / 255
    return np.ascontiguousarray(small.transpose(2, 0, 1)[np.newaxis])


@pytest.fixture(scope="module")
def whole(models: Path) -> OnnxSession:  # noqa: F811
    return OnnxSession(registry.load(models, exposed.MODEL).only, name="whole")


@pytest.fixture(scope="module")
def parts(models: Path) -> Detector:  # noqa: F811
    return exposed.detector(registry.load(models, exposed.MODEL).only)


def faces(rows: np.ndarray) -> np.ndarray:
    found: np.ndarray = rows[FACES].max(axis=0) >= 0.25
    return found


@pytest.mark.parametrize("name", PICTURES)
def test_scores_are_those_of_the_whole_model(whole: OnnxSession, parts: Detector, name: str) -> None:
    batch = given(PICTURES[name])

    found = parts.run(batch)

    assert found.shape == (1, 22, 2100)
    assert found.dtype == np.float32
    assert np.abs(found[:, 4:] - whole.run(batch)[:, 4:]).max() < 1e-6


def test_boxes_of_faces_are_those_of_the_whole_model_and_no_others_are_there(whole: OnnxSession, parts: Detector) -> None:
    batch = np.concatenate([given(PICTURES[name]) for name in ("noise", "face", "small face")])

    found = parts.run(batch)

    expected = whole.run(batch)
    assert not faces(found[0]).any()
    for number in (1, 2):
        there = faces(expected[number])
        assert there.any()
        assert np.array_equal(there, faces(found[number]))
        assert np.abs(found[number, :4, there] - expected[number, :4, there]).max() < 0.01
    assert not found[0, :4].any()
    assert not found[1, :4, ~faces(found[1])].any()


def test_boxes_are_not_computed_where_no_face_is(parts: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "_reaches", None)

    assert not parts.run(given(PICTURES["noise"]))[0, :4].any()


def test_a_picture_of_another_size_than_the_usual_is_seen(whole: OnnxSession, parts: Detector) -> None:
    batch = np.ascontiguousarray(given(PICTURES["face"])[:, :, :192])

    found = parts.run(batch)

    expected = whole.run(batch)
    assert found.shape == expected.shape
    assert np.abs(found[:, 4:] - expected[:, 4:]).max() < 1e-6


def test_answers_that_are_far_out_are_numbers(parts: Detector) -> None:
    assert np.isfinite(parts.run(np.full((1, 3, 320, 320), 1e6, np.float32))).all()


def test_another_model_is_refused(models: Path) -> None:  # noqa: F811
    with pytest.raises(Misconfigured, match="no part from images"):
        exposed.detector(registry.load(models, "open-nsfw").only)
