"""What is kept of a long look decides as the whole look would."""

import random

from hypothesis import given
from hypothesis import strategies as st

from fediwarden.analysers import condense
from fediwarden.analysers.condensing import MOST_FACES
from fediwarden.model import Finding


def face(score: float, side: float, age: float, under_18: float, frame: int = 0) -> Finding:
    return Finding("face", score, "test", "1", frame, measures={"side": side, "age": age, "under_18": under_18})


def shows(findings: tuple[Finding, ...], score: float, side: float, age: float, under_18: float) -> tuple[bool, bool]:
    """Whether a usable face is there, and whether one of those looks young."""
    usable = [one for one in findings if one.concept == "face" and one.score >= score and one.measures["side"] >= side]
    return bool(usable), any(one.measures["age"] < age or one.measures["under_18"] >= under_18 for one in usable)


faces = st.builds(face, st.floats(0, 1), st.floats(1, 900), st.floats(0, 80), st.floats(0, 1))


@given(st.lists(faces, max_size=60), st.floats(0, 1), st.floats(0, 900), st.floats(0, 80), st.floats(0, 1))
def test_every_threshold_decides_on_what_is_kept_as_on_everything(
    found: list[Finding], score: float, side: float, age: float, under_18: float
) -> None:
    kept = condense(found)

    if len(kept) < MOST_FACES:
        assert shows(kept, score, side, age, under_18) == shows(tuple(found), score, side, age, under_18)


def test_the_strongest_finding_of_each_concept_is_kept() -> None:
    found = [
        Finding(concept, score / 10, "test", "1", frame)
        for frame, (concept, score) in enumerate(
            [("exposed", 2), ("explicit", 9), ("exposed", 7), ("drill", 10), ("explicit", 1)]
        )
    ]

    assert [(one.concept, one.score, one.frame) for one in condense(found)] == [
        ("drill", 1.0, 3),
        ("explicit", 0.9, 1),
        ("exposed", 0.7, 2),
    ]


def test_a_small_young_face_is_not_hidden_by_a_hundred_clear_grown_ones() -> None:
    crowd = [face(0.9 + n / 1000, 300 + n, 40, 0.01, n) for n in range(100)]
    child = face(0.41, 25, 15, 0.5, 100)

    assert child in condense([*crowd, child])


def test_a_usable_young_face_is_not_hidden_by_unusable_younger_ones() -> None:
    specks = [face(0.26 + n / 10_000, 5 + n / 100, 3 + n / 100, 0.9, n) for n in range(100)]
    young = face(0.8, 120, 16, 0.45, 100)

    assert young in condense([*specks, young])


def test_at_most_32_faces_are_kept_with_the_extremes_among_them() -> None:
    # the surer, the smaller and the older: nobody outdoes anybody
    crowd = [face(n / 1000, 1000 - n, 10 + n / 20, 0.5, n) for n in range(500)]

    kept = condense(crowd)

    assert len(kept) == MOST_FACES
    assert crowd[0] in kept
    assert crowd[-1] in kept


def test_condensing_batch_by_batch_ends_as_condensing_at_once() -> None:
    chance = random.Random(5)
    found = [face(chance.random(), chance.uniform(5, 500), chance.uniform(1, 80), chance.random(), n) for n in range(60)]
    step_by_step: tuple[Finding, ...] = ()
    for start in range(0, 60, 7):
        step_by_step = condense([*step_by_step, *found[start : start + 7]])

    assert step_by_step == condense(found)


def test_nothing_condenses_to_nothing() -> None:
    assert condense([]) == ()
