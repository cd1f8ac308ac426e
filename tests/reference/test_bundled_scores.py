"""The bundled scores against stored numbers, against an independent slow computation, and against dlib's own points."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.support import reference_scores
from tests.support.models import bundled, models  # noqa: F401 - fixtures
from tests.support.pictures import drawn_face, frame_of, noise

from fediwarden.analysers import age
from fediwarden.analysers.bundled import Bundled
from fediwarden.analysers.exposed import Face
from fediwarden.inference import registry

PICTURES = reference_scores.pictures()
DLIB = json.loads((Path(__file__).parent / "dlib_faces.json").read_text())


@pytest.mark.parametrize("name", PICTURES)
def test_scores_are_the_stored_ones(bundled: Bundled, name: str) -> None:  # noqa: F811
    stored = json.loads(reference_scores.STORED.read_text())[name]

    found = reference_scores.measured(bundled, PICTURES[name])

    # processors round differently; a change of preprocessing moves scores by far more
    assert found["exposed"] == pytest.approx(stored["exposed"], abs=2e-3)
    assert found["explicit"] == pytest.approx(stored["explicit"], abs=2e-3)
    assert len(found["faces"]) == len(stored["faces"])
    for face, expected in zip(found["faces"], stored["faces"], strict=True):
        assert face["score"] == pytest.approx(expected["score"], abs=5e-3)
        assert face["side"] == pytest.approx(expected["side"], rel=0.02)
        assert face["age"] == pytest.approx(expected["age"], abs=1.0)


@pytest.mark.parametrize("name", PICTURES)
def test_scores_are_those_of_a_plain_slow_computation(bundled: Bundled, models: Path, name: str) -> None:  # noqa: F811
    image = PICTURES[name]
    part, face = reference_scores.exposed(image, models)

    found = {one.concept: one.score for one in reversed(bundled.analyse([frame_of(image)]))}

    assert found["exposed"] == pytest.approx(part, abs=1e-4)
    assert found["explicit"] == pytest.approx(reference_scores.explicit(image, models), abs=1e-4)
    assert found.get("face", 0.0) == pytest.approx(face if face >= 0.25 else 0.0, abs=1e-4)


def test_a_drawn_face_is_seen_as_one_face_where_it_is(bundled: Bundled) -> None:  # noqa: F811
    faces = [one for one in bundled.analyse([frame_of(drawn_face(400))]) if one.concept == "face"]

    (face,) = faces
    assert 0.25 <= face.score <= 1
    assert 0.4 * 400 < face.measures["side"] < 0.9 * 400
    assert 0 < face.measures["age"] < 80
    assert 0 <= face.measures["under_18"] <= 1


@pytest.mark.parametrize("name", DLIB)
def test_points_and_cut_out_are_those_of_dlib(models: Path, name: str) -> None:  # noqa: F811
    """dlib 20.0.1 was asked once, with the same model file, the same picture and the same box."""
    expected = DLIB[name]
    image = drawn_face(expected["size"], expected["turned"]) if expected["size"] else noise(300, 300, seed=9, grain=12)
    finder = age.PointFinder(registry.load_landmarks(models, age.LANDMARK_MODEL))

    left, top, right, bottom = expected["box"]
    (points,) = finder.find(np.asarray(image), [Face(left, top, right, bottom, 1.0)])
    chip = age.upright(image, np.array([complex(x, y) for x, y in expected["points"]]))

    assert [[point.real, point.imag] for point in points] == expected["points"]
    small = np.asarray(chip.resize((8, 8), Image.Resampling.BOX), np.int32)
    assert np.abs(small - np.array(expected["chip"])).mean() < 0.6
    assert np.abs(small - np.array(expected["chip"])).max() <= 8
