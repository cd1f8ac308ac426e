"""What every analyser owes, whatever it recognises; see `fediwarden.analysers.interface`."""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from PIL import Image
from tests.support.analysers import Brightness
from tests.support.clip_models import make_clip_model
from tests.support.models import loaded_bundled
from tests.support.pictures import drawn_face, frame_of, gradient, noise, shapes

from fediwarden.analysers.clip import Clip
from fediwarden.analysers.drill import DrillAnalyser, DrillKey, make_marker
from fediwarden.analysers.flat import Flat
from fediwarden.analysers.interface import Analyser
from fediwarden.inference.towers import ChosenTower
from fediwarden.model import ConceptGroup, Concepts, Finding, Frame

NOW = datetime(2026, 5, 1, tzinfo=UTC)
KEY = DrillKey(b"k" * 32)
CONCEPTS = Concepts((ConceptGroup("one", ("a", "b")), ConceptGroup("two", ("c",))), ("d",), ("{}",))


@pytest.fixture(params=["bundled", "drill", "brightness", "flat", "clip"])
def analyser(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Analyser:
    match request.param:
        case "bundled":
            return loaded_bundled()
        case "drill":
            return DrillAnalyser(KEY, lambda: NOW)
        case "flat":
            return Flat()
        case "clip":
            folder = tmp_path_factory.mktemp("clip")
            return Clip.load(folder, ChosenTower(make_clip_model(folder, CONCEPTS), "fp32", "cpu", forced=False), CONCEPTS)
        case _:
            return Brightness()


def frames() -> list[Frame]:
    """Every kind of size; one with a valid marker, one with a foreign one; two out of an embedded picture."""
    marker = make_marker(KEY, NOW, timedelta(hours=1))
    return [
        frame_of(Image.new("RGB", (1, 1), "red"), 0),
        frame_of(noise(1, 700), 1),
        frame_of(noise(700, 1), 2),
        frame_of(gradient(33, 77), 3),
        frame_of(shapes(640, 480), 4),
        frame_of(drawn_face(300), 5, "trailing"),
        replace(frame_of(noise(64, 64), 6, "trailing"), codes=("FWDRILL", "\x00", marker)),
        replace(frame_of(noise(64, 64), 7), codes=(make_marker(DrillKey(b"z" * 32), NOW, timedelta(hours=1)),)),
    ]


def by_frame(findings: list[Finding]) -> dict[tuple[int, str], list[Finding]]:
    found: dict[tuple[int, str], list[Finding]] = {}
    for finding in findings:
        found.setdefault((finding.frame, finding.source), []).append(finding)
    return found


def alike(one: Finding, other: Finding) -> bool:
    numbers = [(one.score, other.score), *((one.measures[key], other.measures[key]) for key in one.measures)]
    return one.concept == other.concept and all(math.isclose(a, b, abs_tol=1e-4, rel_tol=1e-4) for a, b in numbers)


def test_no_frames_give_no_findings(analyser: Analyser) -> None:
    assert analyser.analyse([]) == []


def test_findings_repeat_the_index_and_source_of_their_frame(analyser: Analyser) -> None:
    given = {(frame.index, frame.source) for frame in frames()}

    assert set(by_frame(analyser.analyse(frames()))) <= given


def test_findings_say_who_found_them_and_hold_finite_numbers(analyser: Analyser) -> None:
    for finding in analyser.analyse(frames()):
        assert finding.concept
        assert finding.analyser.split("/")[0] == analyser.name
        assert finding.version
        assert 0 <= finding.score <= 1
        assert all(math.isfinite(value) for value in finding.measures.values())


def test_a_frame_is_judged_alone_whatever_else_is_in_the_batch(analyser: Analyser) -> None:
    together = by_frame(analyser.analyse(frames()))

    for frame in reversed(frames()):
        alone = analyser.analyse([frame])
        expected = together.get((frame.index, frame.source), [])
        assert len(alone) == len(expected)
        assert all(alike(one, other) for one, other in zip(alone, expected, strict=True))


def test_threads_may_share_it(analyser: Analyser) -> None:
    expected = analyser.analyse(frames())

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: analyser.analyse(frames()), range(4)))

    for found in results:
        assert len(found) == len(expected)
        assert all(alike(one, other) for one, other in zip(found, expected, strict=True))


def test_name_and_version_are_stable(analyser: Analyser) -> None:
    assert analyser.name == analyser.name.lower().strip()
    assert analyser.version == analyser.version
