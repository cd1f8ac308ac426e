"""`calibrate` at the command line, in a home of its own with a tiny model: what it says, keeps to itself, refuses and survives."""

import json
import os
import random
import signal
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from tests.support.clip_models import colour_for, link_bundled, make_clip_model, plain_picture
from tests.support.command import Home, files_below, write
from tests.support.models import installed_models

from fediwarden import calibration
from fediwarden.policy import parse

STAND_IN = """
version = 1
name = "colours"
[concepts]
prompts = ["{}"]
apparent_minor = ["a", "b", "c"]
sexual_content = ["d", "e"]
controls = ["f", "g"]
[mark.red]
finding = "apparent_minor"
calibrated = true
[mark.green]
finding = "sexual_content"
calibrated = true
[[rule]]
name = "both"
all = ["red", "green"]
step = "quarantine"
because = "both colours"
[[rule]]
name = "green"
all = ["green"]
step = "review"
because = "one colour"
"""


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of small pictures in many colours, of which few are both red and green."""
    dice, folder = random.Random(1), tmp_path_factory.mktemp("colours") / "store"
    pictures = {}
    for number in range(215):
        red, green = min(1.0, abs(dice.gauss(0, 0.4))), min(1.0, abs(dice.gauss(0, 0.3)))
        pictures[f"{number:03} somebody.png"] = plain_picture(colour_for(red, green), grain=2, seed=number, side=24)
    write(folder, pictures | {"nothing.png": b"nothing"}, age=24 * 3600 * 14)
    return folder


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory, colours: Path) -> tuple[Home, dict[str, Any]]:
    """A home that was calibrated once, and what that printed. Copy the home, never use it."""
    home = Home(tmp_path_factory.mktemp("calibrated") / "home")
    home.run("init", "--profile", "other")
    (home.folder / "policy.toml").write_text(STAND_IN)
    home.settings = {"FEDIWARDEN_POLICY__FILE": "policy.toml", "FEDIWARDEN_ANALYSIS__MODE": "thorough"}
    link_bundled(home.folder / "models", installed_models())
    concepts = parse(STAND_IN, "x").concepts
    assert concepts is not None
    make_clip_model(home.folder / "models", concepts)
    ran = home.run("calibrate", colours, "--budget", "1/20", "--json", timeout=300)
    return home, ran.last


@pytest.fixture
def home(calibrated: tuple[Home, dict[str, Any]], tmp_path: Path) -> Home:
    """A calibrated home of this test's own."""
    return calibrated[0].copy(tmp_path / "home")


def test_calibrate_says_what_a_budget_means(calibrated: tuple[Home, dict[str, Any]]) -> None:
    found = calibrated[1]

    assert found["listed"] == found["drawn"] == 216
    assert found["seen"] + found["not_seen"] + found["same"] == 216
    assert found["not_seen"] == 1
    assert found["looked"] is True
    assert found["suspected"]["in_sample"] <= found["allowed"] == 9
    share, low, high = found["suspected"]["share"]
    assert 0 <= low <= share <= high <= 0.2
    assert found["suspected"]["a_week"] == pytest.approx([one * found["per_week"] for one in (share, low, high)], rel=1e-4)
    assert found["per_week"] == pytest.approx(108, rel=0.02)


def test_what_was_calibrated_is_secret_and_names_nothing(calibrated: tuple[Home, dict[str, Any]]) -> None:
    home, _ = calibrated
    folder = home.folder / "calibration"

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    kept = b"".join(files_below(folder).values())
    assert b"somebody" not in kept
    assert b"sha" not in kept
    assert not [event for event in home.events() if "somebody" in json.dumps(event)]


def test_no_score_and_no_name_is_printed(home: Home, colours: Path) -> None:
    ran = home.run("calibrate", colours, "--budget", "1/20")

    (points,) = calibration.points(home.folder / "calibration")
    numbers = [*points.scores.values(), *(value for words in points.measures.values() for value in words.values())]
    assert "somebody" not in ran.out + ran.err
    assert not [value for value in numbers if f"{value:.4f}" in ran.out]


def test_another_budget_takes_no_second_look(home: Home, colours: Path) -> None:
    before = calibration.points(home.folder / "calibration")

    ran = home.run("calibrate", colours, "--budget", "1/200", "--json", timeout=60)

    assert "nothing is looked at" in ran.err
    assert ran.last["looked"] is False
    assert ran.last["suspected"]["in_sample"] == 0
    assert calibration.points(home.folder / "calibration") != before


def test_without_a_budget_the_one_of_last_time_stands(home: Home, colours: Path) -> None:
    assert home.run("calibrate", colours, "--json").last["budget"] == "1 in 20"


def test_a_weekly_budget_needs_arrivals(home: Home, colours: Path) -> None:
    ten, hundred = (
        home.run("calibrate", colours, "--budget", "10/week", "--per-week", str(n), "--json").last for n in (100, 1000)
    )

    assert ten["allowed"] == 20
    assert hundred["allowed"] == 1


def test_a_sample_too_small_for_its_budget_says_how_many_it_takes(home: Home, colours: Path) -> None:
    ran = home.run("calibrate", colours, "--budget", "1/100000")

    assert "THE SAMPLE IS SMALL" in ran.out
    assert "--sample 99,999" in ran.out or "--sample 100,000" in ran.out


def test_nothing_is_recorded_but_that_it_ran(calibrated: tuple[Home, dict[str, Any]]) -> None:
    with calibrated[0].ledger() as ledger:
        assert list(ledger.entries()) == []


def test_rejudge_and_scan_decide_by_the_points(home: Home, colours: Path) -> None:
    ran = home.run("scan", colours, "--json", expect=None, timeout=300)

    assert ran.last["flagged"] == home.run("calibrate", colours, "--json").last["suspected"]["in_sample"] > 0


@pytest.mark.long
def test_points_that_were_counted_for_another_mode_or_policy_say_so_until_they_are_counted_anew(
    home: Home, colours: Path
) -> None:
    fitting = json.loads(home.run("status", "--json").out)["analysis"]["counted_otherwise"]
    home.settings["FEDIWARDEN_ANALYSIS__MODE"] = "balanced"
    policy = home.folder / "policy.toml"
    policy.write_text(policy.read_text().replace('step = "review"', 'step = "quarantine"'))

    told = home.run("status").out
    scanned = home.run("scan", colours, expect=None).err
    home.run("calibrate", colours)

    assert fitting is None
    assert "calibrated for the mode thorough and another policy" in told
    assert "CLIP was calibrated for the mode thorough" in scanned
    assert json.loads(home.run("status", "--json").out)["analysis"]["counted_otherwise"] is None


def test_it_says_what_the_numbers_are_worth(home: Home, colours: Path) -> None:
    text = home.run("calibrate", colours, "--budget", "10/week").out

    assert "19 times in 20" in text
    assert "A flag is a lead, not a fact" in text
    assert "fediwarden rejudge" in text


def test_without_clip_it_says_what_to_do(home: Home, colours: Path) -> None:
    home.settings["FEDIWARDEN_ANALYSIS__MODE"] = "fast"

    ran = home.run("calibrate", colours, expect=4)

    assert ran.out == ""
    assert len(ran.err.splitlines()) == 2
    assert "models pull" in ran.err


def test_a_policy_without_calibrated_marks_is_refused(home: Home, colours: Path) -> None:
    text = STAND_IN.replace('finding = "apparent_minor"\ncalibrated = true', 'finding = "exposed"')
    (home.folder / "policy.toml").write_text(
        text.replace('finding = "sexual_content"\ncalibrated = true', 'finding = "explicit"')
    )

    assert "calibrated = true" in home.run("calibrate", colours, expect=4).err


def test_too_few_objects_are_refused_before_anything_is_looked_at(home: Home, tmp_path: Path) -> None:
    write(tmp_path / "few", {f"{number}.png": plain_picture((number, 0, 0)) for number in range(5)})

    ran = home.run("calibrate", tmp_path / "few", expect=4)

    assert "5 objects" in ran.err
    assert "hint" in ran.err


def test_a_sample_of_rubbish_is_refused_and_nothing_stored(home: Home, tmp_path: Path) -> None:
    write(tmp_path / "rubbish", {f"{number}.png": b"nothing %d" % number for number in range(210)})
    before = files_below(home.folder / "calibration")

    ran = home.run("calibrate", tmp_path / "rubbish", expect=4)

    assert "only 0 of 210 objects could be seen" in ran.err
    assert files_below(home.folder / "calibration") == before


def test_a_store_that_is_not_there_ends_with_its_code(home: Home, tmp_path: Path) -> None:
    assert home.run("calibrate", tmp_path / "nowhere", expect=5).out == ""


def test_a_corrupt_calibration_is_one_line(home: Home, colours: Path) -> None:
    (path,) = (home.folder / "calibration").glob("*.sample.json")
    path.write_text('{"format": 1')

    ran = home.run("calibrate", colours, expect=4)

    assert "Traceback" not in ran.err
    assert len(ran.err.splitlines()) == 2


def test_ctrl_c_ends_it_within_five_seconds_and_stores_nothing(home: Home, colours: Path) -> None:
    before = files_below(home.folder / "calibration")
    process = home.start("calibrate", colours, "--again")
    deadline = time.monotonic() + 60
    while not _children(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)  # until the cage is there: it looks
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    stopped = time.monotonic()
    _, err = process.communicate(timeout=30)

    assert time.monotonic() - stopped < 5
    assert process.returncode == 130
    assert b"no calibration was stored" in err
    assert b"goes on from here" not in err
    assert files_below(home.folder / "calibration") == before


def _children(pid: int) -> list[str]:
    return [child for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]


@pytest.mark.long
def test_a_flood_of_pictures_that_raise_the_points_is_told_of(home: Home, colours: Path, tmp_path: Path) -> None:
    flooded = tmp_path / "flooded"
    flooded.mkdir()
    for path in colours.iterdir():
        os.link(path, flooded / path.name)
    flood = {f"flood {n}.png": plain_picture(colour_for(1, 1), grain=3, seed=5000 + n, side=24) for n in range(160)}
    write(flooded, flood, age=24 * 3600 * 2)

    ran = home.run("calibrate", flooded, "--budget", "1/20", timeout=300)

    assert "THE POINTS ROSE" in ran.out
    assert "other stores" in ran.err
