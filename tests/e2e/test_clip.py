"""CLIP on the road, through the command line: modes, what it informs of, what it decides once calibrated, what the cascade misses.

The model is the stand-in of `tests/support/clip_models`: red is its first group, green its second, yellow both.
"""

import json

import pytest
from tests.support.clip_models import link_bundled, make_clip_model, plain_picture
from tests.support.command import Home, by_key, write
from tests.support.models import installed_models

from fediwarden import calibration, config
from fediwarden.analysers.clip import Clip
from fediwarden.inference import registry
from fediwarden.inference.towers import ChosenTower
from fediwarden.model import Concepts, Finding
from fediwarden.policy import parse

YELLOW, RED, GREY = (250, 250, 0), (250, 10, 10), (127, 128, 127)


@pytest.fixture
def concepts() -> Concepts:
    found = parse(config.default_policy(), "default").concepts
    assert found is not None
    return found


@pytest.fixture
def clip_home(home: Home, concepts: Concepts) -> Home:
    """A home with the shipped policy, the bundled models and the stand-in; a store of plain colours."""
    models = home.folder / "models"
    if models.is_symlink():
        models.unlink()
    link_bundled(models, installed_models())
    make_clip_model(models, concepts)
    home.settings = {**home.settings, "FEDIWARDEN_POLICY__FILE": ""}
    store = home.folder.parent / "store"
    # grain keeps them from being even, so that nothing cheap speaks for them
    write(
        store,
        {
            **{f"grey-{n}.png": plain_picture(GREY, grain=60, seed=n) for n in range(6)},
            "red.png": plain_picture(RED, grain=60, seed=90),
            "yellow.png": plain_picture(YELLOW, grain=60, seed=91),
        },
    )
    home.add_store("media", url=str(store))
    return home


def calibrate_by_hand(home: Home, concepts: Concepts, mark: float) -> None:
    """Operating points as `calibrate` stores them, made of a hundred grey looks and a few at the mark."""
    models = home.folder / "models"
    (manifest,) = (one for one in registry.image_text(models) if one.name == "tiny-clip")
    clip = Clip.load(models, ChosenTower(manifest, "fp32", "cpu", forced=False), concepts)
    look = tuple(
        Finding(group.name, mark, "clip", clip.version, measures=dict.fromkeys(group.words, mark)) for group in concepts.groups
    )
    seen = (calibration.Seen(look),) * calibration.LEAST
    groups = tuple(group.name for group in concepts.groups)
    sample = calibration.Sample(
        version=clip.version, model="tiny-clip", precision="fp32", at="2026-05-01T00:00:00+00:00", stores=("media",),
        others="", listed=300, weeks=4.0, recent=10, not_seen=0, same=0, groups=groups, looks=seen,
    )  # fmt: skip
    points = calibration.operating_points(clip.version, groups, [look], 0.0)
    calibration.save(home.folder / "calibration", sample, points, "10/week", "thorough", "no policy's")


def test_uncalibrated_it_informs_and_says_so_and_calibrated_it_decides_without_opening_a_picture(
    clip_home: Home, concepts: Concepts
) -> None:
    clip_home.settings["FEDIWARDEN_ANALYSIS__MODE"] = "thorough"
    first = clip_home.run("scan", expect=None)
    assert first.code == 0, (first.out, first.err)
    assert "NOT CALIBRATED" in first.err
    assert "shown to CLIP (100.0%)" in first.out
    told = clip_home.run("explain", "yellow.png").out
    assert "apparent_minor" in told
    assert "not calibrated: informs only" in told
    assert "NOT CALIBRATED" in clip_home.run("status").out

    calibrate_by_hand(clip_home, concepts, mark=0.01)
    (clip_home.folder.parent / "store" / "grey-0.png").rename(clip_home.folder.parent / "moved.png")
    done = clip_home.run("rejudge", "--json").last

    known = by_key(clip_home.run("list", "--json").lines)
    assert done["flagged"] == 1
    assert known["yellow.png"]["decision"] == "quarantine"
    assert known["yellow.png"]["rule"] == "both groups by CLIP"
    assert "beyond its operating point" in str(known["yellow.png"]["because"])
    assert known["red.png"]["decision"] == "pass"
    assert "informs only" not in clip_home.run("explain", "yellow.png").out
    clip_home.run("apply", "--yes")
    assert not (clip_home.folder.parent / "store" / "yellow.png").exists()
    clip_home.run("restore", "yellow.png")
    assert (clip_home.folder.parent / "store" / "yellow.png").exists()


def test_balanced_is_chosen_by_itself_and_shows_clip_only_what_a_cheap_model_or_chance_points_at(clip_home: Home) -> None:
    clip_home.settings["FEDIWARDEN_ANALYSIS__SAMPLE"] = "0"
    even = plain_picture(RED, grain=0)
    write(clip_home.folder.parent / "store", {"even.png": even})

    told = clip_home.run("scan", "--json", expect=None).last
    status = json.loads(clip_home.run("status", "--json").out)["analysis"]

    assert (told["seen"], told["further"]) == (9, 1)
    assert (status["mode"], status["model"], status["precision"], status["device"]) == ("balanced", "tiny-clip", "fp32", "cpu")
    assert (status["further"], status["sampled"], status["missed"]) == (1, 0, None)
    assert "apparent_minor" in clip_home.run("explain", "even.png").out
    assert "apparent_minor" not in clip_home.run("explain", "yellow.png").out


@pytest.mark.long
def test_the_sample_estimates_what_the_cascade_misses_with_an_interval(clip_home: Home, concepts: Concepts) -> None:
    clip_home.settings["FEDIWARDEN_ANALYSIS__SAMPLE"] = "0.5"
    key = clip_home.folder / "drill.key"  # what is drawn hangs on it, and one draw in twenty lies outside its interval
    key.write_bytes(b"k" * 32)
    key.chmod(0o600)
    store = clip_home.folder.parent / "store"
    write(store, {f"more-{n}.png": plain_picture(YELLOW if n % 4 == 0 else GREY, grain=60, seed=200 + n) for n in range(60)})
    calibrate_by_hand(clip_home, concepts, mark=0.01)

    clip_home.run("scan", expect=1)
    found = json.loads(clip_home.run("status", "--json").out)["analysis"]
    words = clip_home.run("status").out

    assert found["further"] + found["sampled"] + found["not_shown"] == found["seen"] == 68
    assert 15 < found["sampled"] < 53
    assert 0 < found["sampled_flagged"] < found["sampled"]
    estimate, low, high = found["missed"]
    yellow = 16 - found["sampled_flagged"]  # of those that nobody showed to CLIP
    assert low <= yellow <= high
    assert estimate == pytest.approx(found["not_shown"] * found["sampled_flagged"] / found["sampled"], abs=0.01)
    assert "what the cascade misses" in words
    assert "19 times in 20" in words
    clip_home.run("apply", "--yes")
    hidden = json.loads(clip_home.run("status", "--json").out)["analysis"]
    assert (hidden["seen"], hidden["missed"]) == (found["seen"], found["missed"])


def test_a_policy_that_names_nothing_for_the_cascade_is_thorough_by_itself(clip_home: Home) -> None:
    clip_home.settings["FEDIWARDEN_POLICY__PRESET"] = "fedi-safety"

    assert json.loads(clip_home.run("status", "--json").out)["analysis"]["mode"] == "thorough"


def test_another_mode_is_another_engine_and_fast_needs_no_clip(clip_home: Home) -> None:
    engines = {}
    for mode in ("fast", "balanced", "thorough"):
        clip_home.settings["FEDIWARDEN_ANALYSIS__MODE"] = mode
        engines[mode] = json.loads(clip_home.run("status", "--json").out)["engine"]

    assert len(set(engines.values())) == 3
    (clip_home.folder / "models" / "tiny-clip" / "image-fp32.onnx").write_bytes(b"cut short")
    told = clip_home.run("scan", expect=4)
    assert "tiny-clip" in told.err
    assert "altered" in told.err
    assert len(told.err.strip().splitlines()) <= 2
    clip_home.settings["FEDIWARDEN_ANALYSIS__MODE"] = "fast"
    clip_home.run("scan")


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"FEDIWARDEN_ANALYSIS__MODEL": "nothing"}, "nothing"),
        ({"FEDIWARDEN_ANALYSIS__PRECISION": "int8"}, "int8"),
        ({"FEDIWARDEN_ANALYSIS__DEVICE": "cuda"}, "cuda"),
        ({"FEDIWARDEN_ANALYSIS__SAMPLE": "2"}, "sample"),
    ],
)
def test_a_setting_that_cannot_be_met_stops_with_a_line_and_a_hint(clip_home: Home, settings: dict[str, str], word: str) -> None:
    clip_home.settings.update(settings)

    told = clip_home.run("scan", expect=4)

    assert word in told.err
    assert "hint" in told.err


def test_concepts_of_ones_own_that_are_not_embedded_yet_are_told_with_the_command_for_it(clip_home: Home) -> None:
    own = clip_home.folder / "own.toml"
    own.write_text(config.default_policy().replace('"a baby", ', ""))
    clip_home.settings["FEDIWARDEN_POLICY__FILE"] = str(own)

    told = clip_home.run("scan", expect=4)

    assert "not embedded for tiny-clip" in told.err
    assert "models build tiny-clip" in told.err


def test_without_a_built_model_the_mode_is_fast(home: Home) -> None:
    assert json.loads(home.run("status", "--json").out)["analysis"]["mode"] == "fast"
    home.settings["FEDIWARDEN_ANALYSIS__MODE"] = "balanced"
    told = home.run("scan", str(home.folder.parent), expect=4)
    assert "models build" in told.err or "models list" in told.err


def test_the_preset_of_fedi_safety_counts_words(clip_home: Home, concepts: Concepts) -> None:
    clip_home.settings |= {"FEDIWARDEN_ANALYSIS__MODE": "thorough", "FEDIWARDEN_POLICY__PRESET": "fedi-safety"}
    calibrate_by_hand(clip_home, concepts, mark=0.001)

    clip_home.run("scan", expect=1)

    known = by_key(clip_home.run("list", "--json").lines)
    assert known["yellow.png"]["rule"] == "three apparent-minor words, one sexual word"
    assert known["red.png"]["decision"] == "pass"


def test_towers_from_elsewhere_that_take_the_place_of_ours_are_told_of_and_are_uncalibrated(
    clip_home: Home, concepts: Concepts
) -> None:
    calibrate_by_hand(clip_home, concepts, mark=0.01)
    other = clip_home.folder.parent / "elsewhere"
    make_clip_model(other, concepts, turned=0.1)
    assert json.loads(clip_home.run("status", "--json").out)["analysis"]["calibrated"] is True

    told = clip_home.run("models", "import", other / "tiny-clip")

    assert "exchanged for those of" in told.err
    assert json.loads(clip_home.run("status", "--json").out)["analysis"]["calibrated"] is False


def test_a_policy_that_asks_nothing_of_clip_is_told_so_and_not_sent_to_calibrate(clip_home: Home, concepts: Concepts) -> None:
    own = clip_home.folder / "own.toml"
    section = config.default_policy().split("\n[concepts]\n")[1].split("# Where CLIP is asked")[0]
    own.write_text(f'version = 1\n[concepts]\n{section}\n[[rule]]\nname = "all"\nstep = "pass"\nbecause = "a test"\n')
    clip_home.settings["FEDIWARDEN_POLICY__FILE"] = str(own)

    told = clip_home.run("scan")

    assert "no mark with calibrated = true" in told.err
    assert "fediwarden calibrate" not in told.err
