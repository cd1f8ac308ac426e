"""Drawing a sample, looking at it, and counting what a whole policy makes of it."""

import logging
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from threading import Event
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.analysers import Brightness
from tests.support.core import PACE, START, Clock, Opener, nothing

from fediwarden import config
from fediwarden.calibration import FlagBudget, Sample, Seen, choose, operating_points
from fediwarden.errors import Unreached
from fediwarden.model import (
    EngineVersion,
    Finding,
    ObjectRef,
    OperatingPoints,
    Step,
    StoreName,
)
from fediwarden.pipeline import DOWN_AFTER, Looker, Tally
from fediwarden.pipeline.calibrating import Drawn, Judged, Sampling, draw, held_to, why_again
from fediwarden.policy import parse
from fediwarden.stores.memory import MemoryStore

# -- drawing --------------------------------------------------------------------------------------------------------------


@dataclass
class Listed:
    """A reader that lists names and has nothing else."""

    names: Sequence[str]
    modified: datetime | None = START
    requests: int = 0

    @property
    def name(self) -> StoreName:
        return StoreName("listed")

    def list(self) -> Iterator[Sequence[ObjectRef]]:
        for start in range(0, len(self.names), 7):
            yield [ObjectRef(self.name, key, 1, "1", self.modified) for key in self.names[start : start + 7]]

    def fetch(self, ref: ObjectRef, limit: int) -> Any:
        raise NotImplementedError

    def stat(self, key: str) -> ObjectRef:
        raise NotImplementedError

    def close(self) -> None: ...


def drawn_from(readers: Sequence[Any], size: int, seed: int = 0, now: datetime = START) -> Drawn:
    return draw(readers, size, now, random.Random(seed), nothing, Event())


@given(st.integers(0, 60), st.integers(1, 40), st.integers(0, 1000))
def test_a_sample_holds_as_many_different_objects_as_it_may(objects: int, size: int, seed: int) -> None:
    names = [str(number) for number in range(objects)]

    found = drawn_from([Listed(names[: objects // 3]), Listed(names[objects // 3 :])], size, seed)

    keys = [ref.key for _, ref in found.objects]
    assert found.listed == objects
    assert len(keys) == len(set(keys)) == min(size, objects)
    assert set(keys) <= set(names)


def test_every_object_has_the_same_chance() -> None:
    reader, hits = Listed([str(number) for number in range(40)]), Counter[str]()
    for seed in range(2000):
        hits.update(ref.key for _, ref in drawn_from([reader], 10, seed).objects)

    assert set(hits) == set(reader.names)
    assert min(hits.values()) > 400  # of 500 expected; five standard deviations
    assert max(hits.values()) < 600


def test_arrivals_are_counted_over_four_weeks() -> None:
    old, new = Listed(["a"] * 30, START - timedelta(days=400)), Listed(["b"] * 20, START - timedelta(days=20))

    found = drawn_from([old, new], 5)

    assert (found.recent, found.weeks) == (20, 4.0)


def test_a_young_store_s_arrivals_are_counted_over_its_age() -> None:
    found = drawn_from([Listed(["a"] * 20, START - timedelta(days=14))], 5)

    assert (found.recent, found.weeks) == (20, 2.0)


def test_a_store_that_was_filled_today_is_taken_for_a_week_s_arrivals() -> None:
    assert drawn_from([Listed(["a"] * 20, START)], 5).weeks == 1.0


def test_without_dates_nobody_knows_how_many_come_in() -> None:
    assert drawn_from([Listed(["a"] * 20), Listed(["b"], None)], 5).weeks == 0.0
    assert drawn_from([], 5).weeks == 0.0


# -- looking --------------------------------------------------------------------------------------------------------------


def looker(opener: Opener | None = None) -> Looker:
    return Looker(opener or Opener(), (Brightness("exposed"),), EngineVersion("1"), Clock())


def looked(store: MemoryStore, opener: Opener | None = None, stop: Event | None = None) -> Sampling:
    sampling = Sampling(looker(opener), PACE, stop or Event())
    sampling.run(drawn_from([store], 1000), nothing)
    return sampling


def test_what_is_seen_is_kept_and_what_is_not_is_counted() -> None:
    store = MemoryStore(objects={"a": b"bad", "b": b"fine", "c": b"broken", "d": b"partly"})

    found = looked(store)

    assert (found.tally.seen, found.tally.broken, found.tally.done) == (3, 1, 4)
    assert {tuple(round(one.score, 3) for one in seen.findings) for seen in found.seen} == {(1.0,), (0.0,)}
    assert [seen.unopened for seen in found.seen if seen.unopened] == [("encrypted",)]


def test_identical_bytes_are_counted_once() -> None:
    opener = Opener()

    found = looked(MemoryStore(objects={str(number): b"the same" for number in range(50)}), opener)

    assert (found.tally.seen, found.tally.skipped) == (1, 49)
    assert len(opener.opened) == 1


def test_nothing_that_names_an_object_is_kept() -> None:
    store = MemoryStore(objects={"somebody's name.png": b"partly bad"})

    (seen,) = looked(store).seen

    assert "somebody" not in repr(seen)
    assert "trailing" not in repr(seen)  # where in it a payload was


def test_an_object_that_is_gone_or_not_reached_is_not_seen() -> None:
    store = MemoryStore(objects={"gone": b"1", "away": b"2", "there": b"3"})

    def bad_day(step: str, key: str) -> None:
        if (step, key) == ("fetch", "away"):
            raise Unreached("no answer")

    drawn = drawn_from([store], 10)
    store.before = bad_day
    store.remove(store.stat("gone"), store.fetch(store.stat("gone"), 10).sha256)
    sampling = Sampling(looker(), PACE, Event())
    sampling.run(drawn, nothing)

    assert (sampling.tally.seen, sampling.tally.gone, sampling.tally.unreached) == (1, 1, 1)


def test_a_store_that_stops_answering_ends_it() -> None:
    store = MemoryStore(objects={str(number): b"%d" % number for number in range(10 * DOWN_AFTER)})

    def down(step: str, _: str) -> None:
        if step == "fetch":
            raise Unreached("no answer")

    store.before = down

    with pytest.raises(Unreached, match="stopped answering"):
        looked(store)


def test_an_error_of_ours_costs_one_object_and_its_words_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    def fail(blob: Any) -> None:
        if blob.data == b"odd":
            raise RuntimeError("the key is somebody's name.png")

    with caplog.at_level(logging.INFO):
        found = looked(MemoryStore(objects={"a": b"odd", "b": b"fine"}), Opener(before=fail))

    assert (found.tally.seen, found.tally.unreached) == (1, 1)
    assert "somebody" not in caplog.text


def test_being_stopped_ends_it_soon() -> None:
    stop = Event()
    store = MemoryStore(objects={str(number): b"%d" % number for number in range(500)})
    opener = Opener(before=lambda _: time.sleep(0.05))
    sampling = Sampling(looker(opener), PACE, stop)

    def progress(tally: Tally) -> None:
        if tally.seen >= 5:
            stop.set()

    started = time.monotonic()
    sampling.run(drawn_from([store], 1000), progress)

    assert time.monotonic() - started < 4
    assert sampling.tally.seen < 100


def test_no_more_look_at_once_than_workers() -> None:
    now, most = 0, 0

    def enter(_: Any) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        time.sleep(0.002)

    def leave(_: Any) -> None:
        nonlocal now
        now -= 1

    looked(MemoryStore(objects={str(number): b"%d" % number for number in range(100)}), Opener(before=enter, after=leave))

    assert 1 <= most <= PACE.workers


def test_no_more_bytes_are_held_than_a_run_may_hold() -> None:
    store = MemoryStore(objects={str(number): bytes([number]) * 1000 for number in range(60)})
    sampling = Sampling(looker(), replace(PACE, in_flight=2500), Event())
    held, most = sampling._budget, 0

    def progress(_: Tally) -> None:
        nonlocal most
        most = max(most, 2500 - held._free)

    sampling.run(drawn_from([store], 100), progress)

    assert sampling.tally.seen == 60
    assert most <= 2500


def test_a_stored_sample_is_used_again_only_where_it_fits() -> None:
    sample = sample_of([(0.0, 0.0)] * 200)

    assert why_again(sample, "o", ["media"], 200) == ""
    assert why_again(sample, "o", ["media"], 100) == ""
    assert "other stores" in why_again(sample, "o", ["media", "more"], 200)
    assert "analysers" in why_again(sample, "p", ["media"], 200)
    assert "only" in why_again(sample, "o", ["media"], 5000)
    assert why_again(replace(sample, listed=200), "o", ["media"], 5000) == ""  # there is no more


# -- what a policy makes of it --------------------------------------------------------------------------------------------

POLICY = """
version = 1
[concepts]
red = ["one", "two", "three"]
green = ["four"]
controls = ["grey"]
[further]
any = ["skin"]
[mark.skin]
finding = "exposed"
score = 0.1
[mark.reddish]
finding = "red"
calibrated = true
[mark.greenish]
finding = "green"
calibrated = true
[mark.locked]
payload = ["encrypted"]
[mark.script]
note = ["script"]
[mark.bitmap]
format = ["bmp"]
[[rule]]
name = "both"
all = ["reddish", "greenish"]
step = "quarantine"
because = "both"
[[rule]]
name = "bitmap"
all = ["bitmap"]
step = "quarantine"
because = "a bitmap"
[[rule]]
name = "one"
any = ["greenish", "locked", "script"]
step = "review"
because = "one"
"""


def seen_of(red: float, green: float, exposed: float = 1.0, **facts: Any) -> Seen:
    findings = (
        Finding("red", red, "clip", "v1", measures={"one": red, "two": red / 2, "three": 1 - red}),
        Finding("green", green, "clip", "v1", measures={"four": green}),
        Finding("exposed", exposed, "bundled", "b1"),
    )
    return Seen(findings, **facts)


def sample_of(scores: Sequence[tuple[float, float]], *more: Seen) -> Sample:
    looks = (*(seen_of(red, green) for red, green in scores), *more)
    at = START.isoformat()
    return Sample("v1", "tiny", "fp32", "o", at, ("media",), 9000, 400, 4.0, 0, 0, ("red", "green"), looks)


def points_at(red: float, green: float) -> OperatingPoints:
    return OperatingPoints("v1", 0.0, {"red": red, "green": green}, {})


def test_the_whole_policy_counts_and_not_the_marks_alone() -> None:
    dim = [(0.1, 0.1)] * 100
    more = (seen_of(0, 0, format="bmp"), seen_of(0, 0, unopened=("encrypted",)), seen_of(0, 0, notes=("script",)))
    judged = Judged(parse(POLICY, "a test"), sample_of([*dim, (0.9, 0.9), (0.9, 0.1), (0.1, 0.9)], *more), everything=True)

    steps = judged.steps(points_at(0.5, 0.5))

    assert (steps[Step.QUARANTINE], steps[Step.REVIEW], judged.alone) == (2, 3, 1)
    assert steps.total() == 106


def test_where_clip_is_only_asked_about_some_only_those_count() -> None:
    automatic = seen_of(0.9, 0.9, exposed=0.0)
    sample = sample_of([(0.1, 0.1)] * 100, automatic, seen_of(0.9, 0.9))
    policy = parse(POLICY, "a test")

    assert Judged(policy, sample, everything=True).flags(points_at(0.5, 0.5)) == 2
    assert Judged(policy, sample, everything=False).flags(points_at(0.5, 0.5)) == 1


def test_what_the_cascade_draws_at_random_counts_by_its_share() -> None:
    automatic = [seen_of(score, score, exposed=0.0) for score in [0.9] * 100 + [0.1] * 2000]
    random.Random(1).shuffle(automatic)
    judged = [Judged(parse(POLICY, "a test"), sample_of([], *automatic), everything=False, drawn=share) for share in (0, 0.5, 1)]

    none, half, every = (one.flags(points_at(0.5, 0.5)) for one in judged)

    assert (none, every) == (0, 100)
    assert 35 <= half <= 65


def test_drill_pictures_in_a_store_do_not_use_up_the_budget() -> None:
    drill = Seen((Finding("drill", 1.0, "drill", ""),))
    policy = parse(config.default_policy("default"), "the default")

    assert Judged(policy, sample_of([(0.1, 0.1)] * 20, drill), everything=True).alone == 0


@pytest.mark.parametrize("policy", [POLICY, POLICY.replace("calibrated = true", "calibrated = true\nwords = 1")])
@pytest.mark.parametrize("everything", [True, False])
def test_counting_only_what_may_change_gives_what_counting_all_gives(policy: str, everything: bool) -> None:
    dice = random.Random(5)
    scores = [(dice.random(), dice.random()) for _ in range(300)]
    sample = sample_of(scores, *(seen_of(dice.random(), dice.random(), dice.random() / 5) for _ in range(100)))
    rules = parse(policy, "a test")
    judged = Judged(rules, sample, everything=everything)
    every = Judged(rules, sample, everything=everything)
    every._open, every._settled = [_whole(seen, everything) for seen in sample.looks], Counter()

    for tail in (0.0, 0.01, 0.02, 0.05):
        points = operating_points("v1", sample.groups, [seen.findings for seen in sample.looks], tail)
        assert judged.steps(points) == every.steps(points)


def _whole(seen: Seen, everything: bool) -> Any:
    from fediwarden.pipeline.calibrating import _look

    return _look(seen, "v1", parse(POLICY, "a test"), everything=everything)


def test_a_policy_held_to_points_is_the_same_in_all_else() -> None:
    policy = parse(POLICY, "a test")

    held = held_to(policy, points_at(0.5, 0.5))

    assert held.rules == policy.rules
    assert [mark.name for mark in held.marks] == [mark.name for mark in policy.marks]
    assert held_to(held, None) == policy


def test_two_thousand_looks_are_weighed_in_two_seconds() -> None:
    dice = random.Random(6)
    sample = sample_of([(dice.random(), dice.random()) for _ in range(2000)])
    policy = parse(config.default_policy("default").replace("apparent_minor", "red").replace("sexual_content", "green"), "x")

    started = time.perf_counter()
    found = choose(sample, FlagBudget(1, 400), 0, Judged(policy, sample, everything=True).flags)

    assert time.perf_counter() - started < 2
    assert found.bound
    assert found.hits <= 4
