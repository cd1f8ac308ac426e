"""Measuring: what it counts, when it ends, and the hours that follow from it."""

import threading
import time

import pytest

from fediwarden.media import benign
from fediwarden.pipeline.measuring import Speeds, blobs, measure, memory


def test_a_measurement_ends_in_time_and_counts_what_was_finished() -> None:
    done: list[int] = []
    lock = threading.Lock()

    def work(number: int) -> None:
        time.sleep(0.02)
        with lock:
            done.append(number)

    rate = measure(work, workers=3, seconds=0.5)

    counted = [number for number in done if number >= 0]  # the others are warming up
    assert rate.images == len(counted)
    assert sorted(counted) == list(range(len(counted)))
    assert 0.5 <= rate.seconds < 1.0
    assert rate.per_second == pytest.approx(rate.images / rate.seconds)
    assert rate.memory > 10 << 20


def test_what_work_raises_ends_the_measurement() -> None:
    def work(number: int) -> None:
        if number == 5:
            raise ValueError("bad day")

    with pytest.raises(ValueError, match="bad day"):
        measure(work, workers=2, seconds=30)


def test_hours_are_those_of_the_share_that_reaches_clip() -> None:
    speeds = Speeds(embedded=0.1, further=1.0)

    assert speeds.hours(36_000, 0) == pytest.approx(1.0)
    assert speeds.hours(36_000, 0.3) == pytest.approx(4.0)
    assert speeds.hours(36_000, 1) == pytest.approx(11.0)
    assert speeds.hours(0, 1) == 0


def test_the_pictures_are_jpegs_all_different_and_the_same_each_time() -> None:
    made = list(benign.jpegs(3))

    assert all(data.startswith(b"\xff\xd8") for data in made)
    assert len(set(made)) == 3
    assert made == list(benign.jpegs(3))
    assert len({blob.sha256 for blob in blobs(made)}) == 3


def test_memory_is_told_in_bytes() -> None:
    before = memory()
    held = bytearray(b"x" * (64 << 20))

    assert memory() - before > 48 << 20
    assert held
