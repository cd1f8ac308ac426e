"""Budgets, intervals, operating points and their files: the statistics are held to simulations, the files to bad days."""

import json
import math
import os
import random
import stat
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.disks import as_stranger, largest_file

from fediwarden import calibration
from fediwarden.calibration import (
    MOST_TAIL,
    ChosenPoints,
    FlagBudget,
    Sample,
    Seen,
    anonymous,
    choose,
    interval,
    load,
    needed,
    operating_points,
    points,
    save,
)
from fediwarden.errors import CannotWrite, Misconfigured
from fediwarden.model import Finding, OperatingPoints

SCORES = st.floats(0, 1, allow_nan=False)


def finding(score: float, concept: str = "red", version: str = "v1", **measures: float) -> Finding:
    return Finding(concept, score, "clip", version, measures=measures)


def sample_of(scores: Sequence[float], **changes: Any) -> Sample:
    """A sample with one group and these scores."""
    looks = tuple(Seen((finding(score, one=score, two=score / 2),)) for score in scores)
    sample = Sample("v1", "tiny", "fp32", "o", "2026-05-06T12:00:00+00:00", ("media",), 5000, 400, 4.0, 3, 2, ("red",), looks)
    return replace(sample, **changes)


def reaching(scores: Sequence[float]) -> Callable[[OperatingPoints], int]:
    """Counts the scores that reach a point, as the plainest policy would."""
    return lambda points: sum(score >= points.scores["red"] for score in scores)


# -- budgets --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "count", "of"),
    [
        ("10/week", 10, 0),
        (" 10 / Week ", 10, 0),
        ("10 a week", 10, 0),
        ("10 per week", 10, 0),
        ("2/day", 14, 0),
        ("0.5 a day", 3.5, 0),
        ("1/10000", 1, 10_000),
        ("1 in 10,000", 1, 10_000),
        ("3/10_000", 3, 10_000),
        ("2.5 in 1 000", 2.5, 1000),
        ("1/1", 1, 1),
    ],
)
def test_a_budget_is_read_as_a_person_says_it(text: str, count: float, of: int) -> None:
    assert FlagBudget.parse(text) == FlagBudget(count, of)


@pytest.mark.parametrize(
    "text",
    [
        *("", "10", "0/week", "-1/week", "ten a week", "1/0", "2/1", "1/week/day", "nan/week", "inf/week", "1e3/week"),
        *("9" * 400 + "/week", "1/" + "9" * 5000, "٣/week", "1/,", "1 month", "10/weeks", "1/10000000000000000000"),
    ],
)
def test_what_is_no_budget_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        FlagBudget.parse(text)

    assert "10/week" in caught.value.hint


@given(st.integers(1, 10**9 - 1).map(lambda n: n / 100), st.one_of(st.just(0), st.integers(10**7, 10**11)))
def test_a_budget_can_be_read_back_from_its_words(count: float, of: int) -> None:
    budget = FlagBudget(count, of)

    assert FlagBudget.parse(str(budget)) == budget


@given(st.text(max_size=40))
def test_any_text_is_a_budget_or_is_refused(text: str) -> None:
    try:
        budget = FlagBudget.parse(text)
    except Misconfigured:
        return

    assert 0 < budget.share(1000) <= 1
    assert math.isfinite(budget.count)


def test_a_weekly_budget_is_a_share_of_what_comes_in() -> None:
    assert FlagBudget(10).share(20_000) == 0.0005
    assert FlagBudget(10).share(5) == 1.0
    assert FlagBudget(1, 10_000).share(5) == 0.0001


# -- intervals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hits", "of", "low", "high"),
    [(0, 10, 0.0, 0.2775), (1, 10, 0.0179, 0.4042), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662)],
)
def test_the_interval_is_wilson_s(hits: int, of: int, low: float, high: float) -> None:
    found = interval(hits, of)  # reference values: R's binom.wilson and Newcombe 1998, table I

    assert found.low == pytest.approx(low, abs=1e-4)
    assert found.high == pytest.approx(high, abs=1e-4)


@given(st.integers(1, 10**6).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of))))
def test_an_interval_holds_its_estimate_and_shrinks_with_more_looks(numbers: tuple[int, int]) -> None:
    hits, of = numbers
    one, more = interval(hits, of), interval(4 * hits, 4 * of)

    assert 0 <= one.low <= one.share <= one.high <= 1
    assert more.high - more.low < one.high - one.low
    mirrored = interval(of - hits, of)
    assert mirrored.low == pytest.approx(1 - one.high, abs=1e-12)


@given(st.integers(1, 10**7))
def test_nothing_seen_still_allows_almost_four_in_as_many(of: int) -> None:
    assert interval(0, of).high <= 3.85 / of


@pytest.mark.parametrize(("hits", "of"), [(-1, 5), (6, 5), (0, 0), (0, -1)])
def test_an_interval_of_nonsense_is_refused(hits: int, of: int) -> None:
    with pytest.raises(ValueError, match="of"):
        interval(hits, of)


@pytest.mark.parametrize("share", [0.002, 0.01, 0.05, 0.3])
def test_the_interval_holds_the_true_share_about_19_times_in_20(share: float) -> None:
    dice = random.Random(20_260_506)
    trials, looks = 600, 500
    held = 0
    for _ in range(trials):
        found = interval(sum(dice.random() < share for _ in range(looks)), looks)
        held += found.low <= share <= found.high

    assert 0.92 <= held / trials <= 0.99


# -- operating points -----------------------------------------------------------------------------------------------------


@given(st.lists(SCORES, min_size=1, max_size=60), st.floats(0, 1))
def test_at_most_the_tail_s_share_reaches_a_point(scores: list[float], tail: float) -> None:
    looks = [(finding(score, word=1 - score),) for score in scores]

    found = operating_points("v1", ["red"], looks, tail)

    most = math.floor(tail * len(scores) + 1e-9)
    assert sum(score >= found.scores["red"] for score in scores) <= most
    assert sum(1 - score >= found.measures["red"]["word"] for score in scores) <= most


@given(st.lists(SCORES, min_size=1, max_size=60), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_tail_never_raises_a_point(scores: list[float], one: float, other: float) -> None:
    looks = [(finding(score, word=score**2),) for score in scores]
    low, high = (operating_points("v1", ["red"], looks, tail) for tail in sorted((one, other)))

    assert high.scores["red"] <= low.scores["red"]
    assert high.measures["red"]["word"] <= low.measures["red"]["word"]


@given(st.lists(SCORES, min_size=1, max_size=60, unique=True), st.data())
def test_with_distinct_scores_a_point_is_reached_by_just_the_tail(scores: list[float], data: st.DataObject) -> None:
    beyond = data.draw(st.integers(0, len(scores)))
    looks = [(finding(score),) for score in scores]

    found = operating_points("v1", ["red"], looks, beyond / len(scores))

    assert sum(score >= found.scores["red"] for score in scores) == beyond


def test_a_tail_of_nothing_lies_just_above_the_largest_score() -> None:
    found = operating_points("v1", ["red"], [(finding(0.25),), (finding(1.0),)], 0)

    assert found.scores["red"] == math.nextafter(1.0, 2)


def test_equal_scores_stay_below_together() -> None:
    looks = [(finding(score),) for score in (0.9, 0.9, 0.9, 0.1)]

    found = operating_points("v1", ["red"], looks, 0.5)

    assert found.scores["red"] > 0.9


def test_other_versions_and_other_concepts_do_not_count() -> None:
    looks = [(finding(0.9, version="v0"), finding(0.8, "face"), finding(0.1)), (finding(0.2),), ()]

    found = operating_points("v1", ["red", "green"], looks, 0)

    assert found.scores == {"red": math.nextafter(0.2, 1)}
    assert found.measures == {"red": {}, "green": {}}


def test_a_look_in_which_nothing_could_be_found_counts_as_below_every_point() -> None:
    looks = [(finding(0.5),), (), (), ()]

    assert operating_points("v1", ["red"], looks, 0.25).scores["red"] == 0.5


def test_points_of_no_looks_are_refused() -> None:
    with pytest.raises(ValueError, match="no looks"):
        operating_points("v1", ["red"], [], 0.1)


# -- choosing -------------------------------------------------------------------------------------------------------------


@given(st.lists(SCORES, min_size=20, max_size=300), st.integers(1, 40))
def test_the_largest_tail_that_keeps_to_the_budget_is_chosen(scores: list[float], of: int) -> None:
    sample, budget, flags = sample_of(scores), FlagBudget(1, of), reaching(scores)

    found = choose(sample, budget, 0, flags)

    assert found.hits == flags(found.points) <= found.allowed
    assert found.allowed <= budget.share(0) * len(scores)
    assert found.points.tail <= MOST_TAIL
    tail = round(found.points.tail * len(scores))
    larger = [(tail + n) / len(scores) for n in range(1, len(scores)) if (tail + n) <= MOST_TAIL * len(scores)]
    assert found.bound == bool(larger)
    looks = [look.findings for look in sample.looks]
    assert all(flags(operating_points("v1", ["red"], looks, one)) > found.allowed for one in larger)


def test_where_a_policy_flags_less_with_a_larger_tail_the_budget_is_kept_to_all_the_same() -> None:
    sample = sample_of([n / 400 for n in range(400)])

    found = choose(sample, FlagBudget(1, 100), 0, lambda points: 40 if 0.01 < points.tail < 0.02 else 0)

    assert found.hits <= found.allowed == 3


def test_rules_that_flag_more_than_the_budget_by_themselves_leave_a_tail_of_nothing() -> None:
    sample = sample_of([n / 400 for n in range(400)])

    found = choose(sample, FlagBudget(1, 1000), 0, lambda _: 17)

    assert found.points.tail == 0
    assert (found.hits, found.allowed) == (17, 0)
    assert found.flags == interval(17, 400)


def test_a_budget_that_is_never_used_up_leaves_the_points_at_their_lowest() -> None:
    sample = sample_of([n / 400 for n in range(400)])

    found = choose(sample, FlagBudget(10), 100, lambda _: 0)

    assert found.points.tail == MOST_TAIL
    assert not found.bound
    assert found.flags.share == 0


@pytest.mark.parametrize("share", [1 / 1000, 1 / 100, 0.04])
def test_on_average_no_more_is_flagged_than_the_budget_asks_for(share: float) -> None:
    """The points are chosen on the very sample that they are counted on: k of n would promise too little."""
    dice = random.Random(4)
    looks, trials = 999 if share < 0.005 else 300, 150
    true, promised, held = [], [], 0
    for _ in range(trials):
        scores = [dice.random() for _ in range(looks)]
        found = choose(sample_of(scores), FlagBudget(share * 1e6, 10**6), 0, reaching(scores))
        true.append(1 - found.points.scores["red"])  # scores are even: what lies beyond a point is known
        promised.append(found.flags.share)
        held += found.flags.low <= true[-1] <= found.flags.high

    assert mean(true) == pytest.approx(mean(promised), rel=0.25)
    assert mean(true) <= share * 1.2
    assert 0.89 <= held / trials <= 1.0


@given(st.floats(1e-6, 0.5))
def test_with_as_many_looks_as_are_needed_a_budget_can_be_kept_to(share: float) -> None:
    budget = FlagBudget(share * 1000, 1000)
    looks = needed(budget, 0)

    assert 1 / (looks + 1) <= budget.share(0) * (1 + 1e-6)
    assert looks == 1 or 1 / looks > budget.share(0) * (1 - 1e-6)


def test_the_estimate_lies_in_its_interval() -> None:
    for hits in range(8):
        found = ChosenPoints(OperatingPoints("v1", 0.01, {}, {}), hits, 7, 1000, bound=True).flags

        assert found.low <= found.share <= found.high


def test_where_in_an_object_something_was_found_is_not_kept() -> None:
    (found,) = anonymous([Finding("red", 0.5, "clip", "v1", 7, "trailing/name of a person.jpg")])

    assert (found.frame, found.source, found.score) == (0, "", 0.5)


# -- files ----------------------------------------------------------------------------------------------------------------

SCORES_200 = [n / 250 for n in range(250)]


def saved(folder: Path, **changes: Any) -> Sample:
    sample = sample_of(SCORES_200, **changes)
    save(
        folder,
        sample,
        operating_points("v1", ["red"], [look.findings for look in sample.looks], 0.02),
        "10 a week",
        "balanced",
        "rules-1",
    )
    return sample


def test_a_sample_and_its_points_are_read_back_as_they_were(tmp_path: Path) -> None:
    looks = (*sample_of(SCORES_200).looks, Seen((), ("script",), ("encrypted", "too deep"), "gif"))
    sample = saved(tmp_path / "calibration", looks=looks)

    assert load(tmp_path / "calibration", "v1") == sample
    (found,) = points(tmp_path / "calibration")
    assert found == operating_points("v1", ["red"], [look.findings for look in looks], 0.02)
    (chosen,) = calibration.chosen(tmp_path / "calibration")
    assert (chosen.model, chosen.precision, chosen.seen, chosen.budget) == ("tiny", "fp32", 251, "10 a week")


def test_without_a_calibration_there_are_no_points(tmp_path: Path) -> None:
    assert points(tmp_path / "none") == ()
    assert load(tmp_path / "none", "v1") is None


def test_several_versions_lie_side_by_side(tmp_path: Path) -> None:
    saved(tmp_path)
    other = tuple(Seen(tuple(replace(found, version="v2") for found in look.findings)) for look in sample_of(SCORES_200).looks)
    sample = sample_of(SCORES_200, version="v2", looks=other)
    save(
        tmp_path, sample, operating_points("v2", ["red"], [look.findings for look in other], 0), "1 in 100", "thorough", "rules-1"
    )

    assert [found.version for found in points(tmp_path)] == ["v1", "v2"]


def test_only_their_owner_may_read_the_files(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        saved(tmp_path / "calibration")
    finally:
        os.umask(before)

    assert stat.S_IMODE((tmp_path / "calibration").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "calibration").iterdir()} == {0o600}


def test_the_files_name_no_object(tmp_path: Path) -> None:
    saved(tmp_path)

    facts = json.loads((tmp_path / "v1.sample.json").read_text())
    assert set(facts) == {"format", "looks", *calibration._FACTS}
    assert {len(look) for look in facts["looks"]} == {4}


@pytest.mark.parametrize("size", [0, 100, 3000])
def test_a_disk_that_fills_leaves_the_calibration_as_it_was(tmp_path: Path, size: int) -> None:
    before = saved(tmp_path)
    kept = points(tmp_path)

    with pytest.raises(CannotWrite) as caught, largest_file(size):
        saved(tmp_path, at="2027-01-01T00:00:00+00:00")

    assert caught.value.hint
    assert load(tmp_path, "v1") == before
    assert points(tmp_path) == kept
    assert not list(tmp_path.glob(".v1*"))


def test_a_folder_that_may_not_be_written_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "calibration").mkdir(mode=0o755)

    with pytest.raises(CannotWrite), as_stranger():
        saved(tmp_path / "calibration")


def test_a_folder_that_may_not_be_read_is_not_taken_for_no_calibration(tmp_path: Path) -> None:
    saved(tmp_path / "calibration")

    with pytest.raises(Misconfigured), as_stranger():
        points(tmp_path / "calibration")


def test_what_a_killed_command_left_is_replaced_by_the_next(tmp_path: Path) -> None:
    (tmp_path / ".v1.json").write_text("half")
    (tmp_path / ".v1.sample.json").write_text("half")
    assert points(tmp_path) == ()

    saved(tmp_path)

    assert {path.name for path in tmp_path.iterdir()} == {".lock", "v1.json", "v1.sample.json"}


def test_two_calibrations_at_once_do_not_mix(tmp_path: Path) -> None:
    def one(number: int) -> None:
        sample = sample_of([value / (number + 1) for value in SCORES_200], listed=1000 + number)
        for _ in range(5):
            save(
                tmp_path,
                sample,
                operating_points("v1", ["red"], [look.findings for look in sample.looks], 0),
                f"{number}/week",
                "balanced",
                "rules-1",
            )

    threads = [threading.Thread(target=one, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    sample, (chosen,) = load(tmp_path, "v1"), calibration.chosen(tmp_path)
    assert sample is not None
    number = sample.listed - 1000
    assert chosen.budget == f"{number}/week"
    assert chosen.points.scores["red"] == math.nextafter(249 / 250 / (number + 1), 2)


RUBBISH = ["", "{", "null", "[]", "7", '"x"', "{}", "[" * 100_000, '{"format": 2}', "\x00\xff", '{"format": 1, "version": "v2"}']
TWISTS: list[tuple[str, Any]] = [
    ("scores", []),
    ("scores", {"red": "high"}),
    ("scores", {"red": None}),
    ("scores", {"red": float("nan")}),
    ("scores", {"red": float("-inf")}),
    ("scores", {"red": True}),
    ("scores", {"red": 10**400}),
    ("measures", {"red": 1}),
    ("measures", {"red": {"one": float("inf")}}),
    ("measures", None),
    ("tail", "0"),
    ("tail", -0.1),
    ("tail", 0.5),
    ("tail", 1e999),
    ("budget", 5),
    ("seen", -1),
    ("seen", 2.5),
    ("version", "v2"),
    ("version", "../v1"),
]


@pytest.mark.parametrize("text", RUBBISH, ids=range(len(RUBBISH)))
def test_rubbish_in_place_of_the_points_is_one_line_with_a_hint(tmp_path: Path, text: str) -> None:
    (tmp_path / "v1.json").write_text(text, encoding="latin-1")

    with pytest.raises(Misconfigured) as caught:
        points(tmp_path)

    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
    assert "fediwarden calibrate" in caught.value.hint


@pytest.mark.parametrize(("name", "value"), TWISTS, ids=str)
def test_points_that_are_none_are_refused(tmp_path: Path, name: str, value: object) -> None:
    saved(tmp_path)
    path = tmp_path / "v1.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))

    with pytest.raises(Misconfigured, match=r"v1\.json cannot be used"):
        points(tmp_path)


@pytest.mark.parametrize("text", RUBBISH, ids=range(len(RUBBISH)))
def test_rubbish_in_place_of_the_sample_is_one_line_with_a_hint(tmp_path: Path, text: str) -> None:
    (tmp_path / "v1.sample.json").write_text(text, encoding="latin-1")

    with pytest.raises(Misconfigured, match="cannot be used"):
        load(tmp_path, "v1")


GOOD_LOOK = [[["red", 0.5, "clip", "v1", {}]], [], [], ""]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("looks", []),
        ("looks", [GOOD_LOOK] * 199),
        ("looks", [GOOD_LOOK] * 200 + [[]]),
        ("looks", [GOOD_LOOK] * 200 + [None]),
        ("looks", [GOOD_LOOK] * 200 + [[[["red", float("nan"), "clip", "v1", {}]], [], [], ""]]),
        ("looks", [GOOD_LOOK] * 200 + [[[["red", 0.5, "clip", "v1", {"one": 1e999}]], [], [], ""]]),
        ("looks", [GOOD_LOOK] * 200 + [[[["red", 0.5, "clip", "v1", []]], [], [], ""]]),
        ("looks", [GOOD_LOOK] * 200 + [[[["red", 0.5, "clip"]], [], [], ""]]),
        ("looks", [GOOD_LOOK] * 200 + [[[], [1], [], ""]]),
        ("at", "yesterday"),
        ("at", 5),
        ("listed", "many"),
        ("recent", 1e300),
        ("weeks", float("nan")),
        ("weeks", -1),
        ("groups", "red"),
        ("stores", [1]),
        ("model", None),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_sample_that_is_none_is_refused(tmp_path: Path, name: str, value: object) -> None:
    saved(tmp_path)
    path = tmp_path / "v1.sample.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))

    with pytest.raises(Misconfigured, match=r"v1\.sample\.json cannot be used"):
        load(tmp_path, "v1")


@pytest.mark.parametrize("name", ["v1.json", "v1.sample.json"])
def test_a_pipe_or_a_folder_in_place_of_a_file_keeps_nobody_waiting(tmp_path: Path, name: str) -> None:
    read: Callable[[], object] = (lambda: points(tmp_path)) if name == "v1.json" else (lambda: load(tmp_path, "v1"))
    os.mkfifo(tmp_path / name)
    if name == "v1.json":
        with pytest.raises(Misconfigured):
            read()
    else:
        assert read() is None
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()

    if name == "v1.json":
        with pytest.raises(Misconfigured):
            read()
    else:
        assert read() is None


def test_a_file_of_points_that_is_far_too_large_is_not_read_whole(tmp_path: Path) -> None:
    with (tmp_path / "v1.json").open("wb") as file:
        file.truncate(1 << 40)

    with pytest.raises(Misconfigured, match="too large"):
        points(tmp_path)
