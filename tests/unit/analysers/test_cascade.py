"""Which frames the dear analyser is shown, and that the sample is fair, steady and nobody else's to foresee."""

import pytest
from PIL import Image
from tests.support.analysers import Brightness
from tests.support.pictures import frame_of

from fediwarden.analysers.cascade import ASKED, SAMPLED, Cascade
from fediwarden.model import Finding, Frame, Sha256

DEAR = Brightness("dear")


def asks(found: object) -> bool:
    return any(one.score >= 0.5 for one in found)  # type: ignore[attr-defined]


def cascade(sample: float = 0.02, secret: bytes = b"s", *, everything: bool = False) -> Cascade:
    return Cascade(DEAR, None if everything else asks, "rule", sample, secret)


def frame(index: int, source: str = "") -> Frame:
    return frame_of(Image.new("RGB", (4, 4)), index, source)


def cheap(index: int, score: float, source: str = "") -> Finding:
    return Finding("cheap", score, "cheap", "1", index, source)


def shown(found: list[Finding]) -> list[tuple[int, str]]:
    return [(one.frame, one.source) for one in found if one.concept == "dear"]


def marks(found: list[Finding]) -> set[str]:
    return {one.concept for one in found if one.analyser == "cascade"}


def test_only_frames_with_something_in_them_are_shown() -> None:
    frames = [frame(0), frame(1), frame(1), frame(1, "trailing")]

    found = cascade().analyse(frames, [cheap(0, 0.1), cheap(1, 0.7), cheap(1, 0.1, "trailing")], sampled=False)

    assert shown(found) == [(1, ""), (1, "")]  # both views of that moment
    assert marks(found) == {ASKED}


def test_nothing_found_and_not_sampled_costs_nothing() -> None:
    assert cascade().analyse([frame(0)], [cheap(0, 0.1)], sampled=False) == []


def test_of_a_sampled_object_every_frame_is_shown_and_why_is_on_record() -> None:
    found = cascade().analyse([frame(0), frame(1)], [cheap(0, 0.1), cheap(1, 0.9)], sampled=True)

    assert shown(found) == [(0, ""), (1, "")]
    assert marks(found) == {ASKED, SAMPLED}


def test_thorough_shows_everything_and_samples_nothing() -> None:
    thorough = cascade(sample=1.0, everything=True)

    found = thorough.analyse([frame(0), frame(1)], [], sampled=thorough.sampled(Sha256("0" * 64)))

    assert shown(found) == [(0, ""), (1, "")]
    assert marks(found) == {ASKED}


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
def test_the_sample_holds_its_share_of_all_objects(share: float) -> None:
    drawn = cascade(sample=share)

    hits = sum(drawn.sampled(Sha256(f"{number:064x}")) for number in range(20_000))

    assert hits / 20_000 == pytest.approx(share, abs=0.012)


def test_the_same_bytes_are_always_in_the_sample_or_never_and_each_installation_has_its_own() -> None:
    names = [Sha256(f"{number:064x}") for number in range(2_000)]
    ours = [cascade(0.5, b"ours").sampled(name) for name in names]
    theirs = [cascade(0.5, b"theirs").sampled(name) for name in names]

    assert ours == [cascade(0.5, b"ours").sampled(name) for name in names]
    assert 800 < sum(one != other for one, other in zip(ours, theirs, strict=True)) < 1_200


def test_the_version_tells_modes_rules_and_samples_apart() -> None:
    versions = {
        cascade().version,
        cascade(0.1).version,
        cascade(everything=True).version,
        Cascade(DEAR, asks, "other rule", 0.02, b"s").version,
    }

    assert len(versions) == 4
    assert cascade(secret=b"other").version == cascade().version
