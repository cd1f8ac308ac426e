"""What CLIP finds in frames, how a frame becomes its input, and when its version changes."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tests.support.clip_models import make_clip_model
from tests.support.pictures import frame_of, gradient, noise

from fediwarden.analysers.clip import Clip, prepared
from fediwarden.inference.manifest import ImageInput
from fediwarden.inference.towers import ChosenTower
from fediwarden.model import ConceptGroup, Concepts

CONCEPTS = Concepts(
    (ConceptGroup("red_things", ("a tomato", "a fire engine")), ConceptGroup("green_things", ("a lawn",))),
    ("a wall", "fog"),
    ("{}",),
)
LONGEST = ImageInput(32, "longest", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def loaded(folder: Path, concepts: Concepts = CONCEPTS, precision: str = "fp32", turned: float = 0.0) -> Clip:
    made = make_clip_model(folder, concepts, precisions=("fp32", "int8", "fp16"), turned=turned)
    return Clip.load(folder, ChosenTower(made, precision, "cpu", forced=False), concepts)


def plain(colour: str) -> Image.Image:
    return Image.new("RGB", (64, 64), colour)


def test_each_frame_gets_one_finding_a_group_with_a_measure_a_word(tmp_path: Path) -> None:
    clip = loaded(tmp_path)

    found = clip.analyse([frame_of(plain("red"), 3), frame_of(plain("lime"), 4, "trailing")])

    assert [(one.concept, one.frame, one.source) for one in found] == [
        ("red_things", 3, ""),
        ("green_things", 3, ""),
        ("red_things", 4, "trailing"),
        ("green_things", 4, "trailing"),
    ]
    assert set(found[0].measures) == {"a tomato", "a fire engine"}
    assert found[0].score == max(found[0].measures.values())
    assert found[0].score > 0.3 > 0.1 > found[1].score
    assert found[3].score > 0.3 > 0.1 > found[2].score


def test_a_score_is_the_share_of_a_word_against_all_controls(tmp_path: Path) -> None:
    clip = loaded(tmp_path)
    pixels = prepared(frame_of(plain("red")), LONGEST)[None]
    embedding = clip._tower.embed(pixels)[0].astype(np.float64)
    cosines = embedding @ clip._vectors
    powers = np.exp(clip._scale * cosines)

    (red, _) = clip.analyse([frame_of(plain("red"))])

    for number, word in enumerate(("a tomato", "a fire engine")):
        assert red.measures[word] == pytest.approx(powers[number] / (powers[number] + powers[3] + powers[4]))


def test_the_encoder_runs_once_a_view(tmp_path: Path) -> None:
    clip = loaded(tmp_path)
    seen: list[int] = []
    embed = clip._tower.embed

    def counting(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        seen.append(len(pixels))
        return embed(pixels)

    clip._tower.embed = counting  # type: ignore[method-assign]
    clip.analyse([frame_of(noise(40, 40, seed), seed) for seed in range(70)])

    assert sum(seen) == 70
    assert max(seen) <= 32


def test_the_version_changes_with_weights_precision_and_concepts_and_with_nothing_else(tmp_path: Path) -> None:
    versions = [
        loaded(tmp_path / "a").version,
        loaded(tmp_path / "b", precision="int8").version,
        loaded(tmp_path / "c", turned=0.1).version,
        loaded(tmp_path / "d", replace(CONCEPTS, controls=("a wall", "rain"))).version,
    ]

    assert len(set(versions)) == len(versions)
    assert loaded(tmp_path / "e").version == versions[0]


def test_all_of_a_wide_or_tall_picture_is_in_the_input_and_keeps_its_shape() -> None:
    wide = Image.new("RGB", (160, 90), "white")
    wide.paste("black", (0, 0, 8, 90))
    tall = wide.transpose(Image.Transpose.ROTATE_90)

    across, down = prepared(frame_of(wide), LONGEST), prepared(frame_of(tall), LONGEST)

    assert across.shape == down.shape == (3, 32, 32)
    rows = np.flatnonzero(np.abs(across[0]).sum(axis=1))
    assert (rows[0], rows[-1]) == (7, 24)  # 18 of 32 rows: 16:9
    assert across[0, 16, 0] == pytest.approx(-1, abs=0.3)  # the black edge, which a crop of the middle would lose
    assert across[0, 16, 31] == pytest.approx(1, abs=0.05)
    assert down[0, 31, 16] == pytest.approx(-1, abs=0.3)
    assert across[:, :6].max() == across[:, :6].min() == 0  # filled with the mean


def test_a_squashed_input_fills_the_square() -> None:
    squashed = prepared(frame_of(gradient(90, 30)), replace(LONGEST, resize="squash"))

    assert squashed.shape == (3, 32, 32)
    assert squashed[0, :, 0].max() < -0.9
    assert squashed[0, :, -1].min() > 0.9


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (7, 5)])
def test_any_shape_becomes_an_input(size: tuple[int, int]) -> None:
    made = prepared(frame_of(noise(*size)), LONGEST)

    assert made.shape == (3, 32, 32)
    assert np.isfinite(made).all()


def test_shares_stay_in_bounds_at_any_scale(tmp_path: Path) -> None:
    clip = loaded(tmp_path)
    clip._scale = 1e6

    found = clip.analyse([frame_of(plain("red")), frame_of(plain("gray")), frame_of(plain("black"))])

    assert all(0 <= one.score <= 1 and math.isfinite(one.score) for one in found)
