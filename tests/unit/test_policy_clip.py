"""Concepts, calibrated marks and what is worth a dearer look: read from a policy, held to operating points, refused when wrong."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from fediwarden import config
from fediwarden.errors import Misconfigured
from fediwarden.model import (
    EngineVersion,
    Finding,
    Kind,
    Look,
    ObjectRef,
    OperatingPoints,
    Sha256,
    Standing,
    Step,
    StoreName,
)
from fediwarden.policy import Policy, decide, parse

TEXT = """
version = 1
[concepts]
prompts = ["a photo of {}"]
apparent_minor = ["a child", "a toddler", "a baby"]
sexual_content = ["nudity"]
controls = ["a wall"]
[mark.minor]
finding = "apparent_minor"
calibrated = true
[mark.three]
finding = "apparent_minor"
calibrated = true
words = 3
[mark.low]
finding = "exposed"
score = 0.1
[further]
any = ["low"]
[[rule]]
name = "three words"
all = ["three"]
step = "quarantine"
because = "three words"
[[rule]]
name = "minor"
all = ["minor"]
step = "review"
because = "one group"
"""
POINTS = OperatingPoints(
    "v1", 0.01, {"apparent_minor": 0.5}, {"apparent_minor": {"a child": 0.3, "a toddler": 0.2, "a baby": 0.1}}
)


def policy(*points: OperatingPoints, text: str = TEXT) -> Policy:
    return parse(text, "test", points)


def clip(score: float, version: str = "v1", concept: str = "apparent_minor", **words: float) -> Finding:
    measures = {word.replace("_", " "): value for word, value in words.items()}
    return Finding(concept, score, "clip", version, measures=measures)


def step(made: Policy, *findings: Finding) -> tuple[Step, str]:
    look = Look(
        ObjectRef(StoreName("s"), "k", 1, "e"),
        Standing.SEEN,
        datetime(2026, 5, 1, tzinfo=UTC),
        Sha256("ab" * 32),
        EngineVersion("1"),
        Kind("png", 1, 1),
        findings,
    )
    decision = decide(look, made)
    assert decision is not None
    return decision.step, decision.because


def test_concepts_are_groups_controls_and_prompts() -> None:
    concepts = policy().concepts

    assert concepts is not None
    assert [(group.name, group.words) for group in concepts.groups] == [
        ("apparent_minor", ("a child", "a toddler", "a baby")),
        ("sexual_content", ("nudity",)),
    ]
    assert concepts.texts == ("a child", "a toddler", "a baby", "nudity", "a wall")
    assert concepts.digest != replace(concepts, prompts=("{}",)).digest


@pytest.mark.parametrize(("score", "expected"), [(0.499, Step.PASS), (0.5, Step.REVIEW), (0.9, Step.REVIEW)])
def test_a_score_is_held_to_the_operating_point_of_its_version(score: float, expected: Step) -> None:
    assert step(policy(POINTS), clip(score))[0] is expected


@pytest.mark.parametrize("points", [(), (replace(POINTS, version="v2"),)], ids=["never calibrated", "another version"])
def test_uncalibrated_findings_never_decide_however_high(points: tuple[OperatingPoints, ...]) -> None:
    made = policy(*points)

    assert step(made, clip(1.0, a_child=1.0, a_toddler=1.0, a_baby=1.0))[0] is Step.PASS


def test_words_are_counted_each_against_its_own_point() -> None:
    made = policy(POINTS)

    assert step(made, clip(0.4, a_child=0.3, a_toddler=0.2, a_baby=0.1))[0] is Step.QUARANTINE
    assert step(made, clip(0.4, a_child=0.4, a_toddler=0.4, a_baby=0.09))[0] is Step.PASS


def test_the_reason_names_the_group_and_no_number() -> None:
    said = step(policy(POINTS), clip(0.73))[1]

    assert said == "one group (apparent minor beyond its operating point)"


def test_calibrating_is_another_policy_and_another_version_of_the_same_points_is_too() -> None:
    digests = {
        policy().digest,
        policy(POINTS).digest,
        policy(replace(POINTS, version="v2")).digest,
        policy(replace(POINTS, scores={"apparent_minor": 0.6})).digest,
        policy(POINTS, replace(POINTS, version="v2")).digest,
    }

    assert len(digests) == 5
    assert policy(POINTS, replace(POINTS, version="v2")).digest == policy(replace(POINTS, version="v2"), POINTS).digest


def test_a_policy_without_calibrated_marks_does_not_change_with_calibration() -> None:
    text = (
        TEXT.split("[mark.minor]")[0]
        + '[mark.low]\nfinding = "exposed"\n'
        + '[[rule]]\nname="r"\nall=["low"]\nstep="review"\nbecause="b"'
    )

    assert policy(text=text).digest == policy(POINTS, text=text).digest
    assert not policy(text=text).calibrated


def test_what_is_worth_a_dearer_look_is_said_by_marks() -> None:
    made = policy()

    assert made.asks_further([Finding("exposed", 0.1, "b", "1")])
    assert not made.asks_further([Finding("exposed", 0.09, "b", "1"), Finding("explicit", 1.0, "b", "1")])
    assert not made.asks_further([])
    other = policy(text=TEXT.replace("score = 0.1", "score = 0.2"))
    assert made.further_digest != other.further_digest


def test_the_order_in_which_hints_are_written_makes_no_other_engine() -> None:
    one = "score = 0.1\nat_least = { side = 24, age = 3 }\neither = [{ below = { age = 21 } }, { at_least = { under_18 = 0.4 } }]"
    two = "score = 0.1\nat_least = { age = 3, side = 24 }\neither = [{ at_least = { under_18 = 0.4 } }, { below = { age = 21 } }]"

    digests = {policy(text=TEXT.replace("score = 0.1", words)).further_digest for words in (one, two)}

    assert len(digests) == 1


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("calibrated = true\n[mark.three]", "score = 0.3\n[mark.three]", "calibrated = true"),
        ("calibrated = true\n[mark.three]", "calibrated = true\nscore = 0.3\n[mark.three]", "no number"),
        ("words = 3", "words = 4", "only 3 words"),
        ("words = 3", "words = -1", "whole number"),
        ("words = 3", "words = true", "whole number"),
        ("score = 0.1", "calibrated = true", "for the groups"),
        ("score = 0.1", "words = 1", "for the groups"),
        ("calibrated = true\nwords", 'calibrated = "yes"\nwords', "true or false"),
        ('any = ["low"]', 'any = ["nothing"]', "does not exist"),
        ('any = ["low"]', 'any = ["minor"]', "embedded default only"),
        ('any = ["low"]', 'every = ["low"]', "no such key"),
        ('controls = ["a wall"]\n', "", "1 to 64"),
        ('controls = ["a wall"]', 'controls = ["a wall", "a wall"]', "twice"),
        ('sexual_content = ["nudity"]', "sexual_content = []", "1 to 64"),
        ('sexual_content = ["nudity"]', 'sexual_content = ["  "]', "1 to 64"),
        ('sexual_content = ["nudity"]', 'exposed = ["nudity"]', "none of"),
        ('sexual_content = ["nudity"]', 'Sexual-Content = ["nudity"]', "lower-case"),
        ('["a photo of {}"]', '["a photo"]', "{}"),
        ('["a photo of {}"]', '["{} and {}"]', "{}"),
        ('["a photo of {}"]', '["{} {x}"]', "brace"),
        ('["a photo of {}"]', '["{} at 3} o clock"]', "brace"),
        ('["a photo of {}"]', '["{} in {some place"]', "brace"),
    ],
)
def test_what_is_no_policy_is_refused_with_its_line(old: str, new: str, word: str) -> None:
    assert old in TEXT

    with pytest.raises(Misconfigured) as caught:
        policy(text=TEXT.replace(old, new, 1))
    assert word in str(caught.value)
    assert "line" in str(caught.value) or "test:" in str(caught.value)


@pytest.mark.parametrize("preset", ["default", "fedi-safety"])
def test_a_shipped_policy_quarantines_by_clip_only_for_both_groups_and_only_calibrated(preset: str) -> None:
    text = config.default_policy(preset)
    concepts = parse(text, preset).concepts
    assert concepts is not None
    groups = {group.name: group for group in concepts.groups}
    points = OperatingPoints(
        "v1",
        0.01,
        dict.fromkeys(groups, 0.5),
        {name: dict.fromkeys(group.words, 0.5) for name, group in groups.items()},
    )

    def high(name: str) -> Finding:
        return Finding(name, 0.9, "clip", "v1", measures=dict.fromkeys(groups[name].words, 0.9))

    minor, sexual = high("apparent_minor"), high("sexual_content")
    bound, unbound = parse(text, preset, [points]), parse(text, preset)
    assert step(bound, minor, sexual)[0] is Step.QUARANTINE
    assert step(unbound, minor, sexual)[0] is Step.PASS
    assert step(bound, minor)[0] is Step.PASS
    assert step(bound, sexual)[0] is Step.PASS
    assert parse(text, preset).rules[-1].step is not Step.QUARANTINE


def test_the_presets_share_their_concepts_so_that_switching_needs_no_new_embeddings() -> None:
    first, second = (parse(config.default_policy(name), name).concepts for name in ("default", "fedi-safety"))

    assert first == second


def test_the_default_policy_asks_clip_about_each_cheap_hint() -> None:
    made = parse(config.default_policy(), "default")
    young = Finding("face", 0.3, "b", "1", measures={"side": 30.0, "age": 20.0, "under_18": 0.1})
    adult = replace(young, measures={"side": 30.0, "age": 45.0, "under_18": 0.01})

    for one in (Finding("exposed", 0.1, "b", "1"), Finding("explicit", 0.1, "b", "1"), Finding("flat", 0.4, "b", "1"), young):
        assert made.asks_further([one]), one
    for one in (Finding("exposed", 0.05, "b", "1"), Finding("flat", 0.3, "b", "1"), adult):
        assert not made.asks_further([one]), one
