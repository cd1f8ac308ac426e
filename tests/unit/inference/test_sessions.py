"""Sessions on good and bad days: halved batches, lost devices, answers that are no numbers, threads that share one model."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.support.clip_models import SIDE, tower

from fediwarden.errors import Misconfigured, Unreached
from fediwarden.inference.sessions import Batched, Failed, OnnxSession, OutOfMemory, Steady, devices, open_session

Rows = NDArray[np.float32]


class Doubling:
    """A session that doubles what it is given, as long as it is in the mood; remembers the batches it was asked for."""

    def __init__(self, trouble: Callable[[Rows], Exception | None] = lambda _: None) -> None:
        self.trouble = trouble
        self.batches: list[int] = []

    def run(self, batch: Rows) -> Rows:
        self.batches.append(len(batch))
        error = self.trouble(batch)
        if error is not None:
            raise error
        return 2 * batch


def rows(count: int, start: int = 0) -> Rows:
    return np.arange(start, start + count, dtype=np.float32).reshape(count, 1)


def full_at(limit: int) -> Callable[[Rows], Exception | None]:
    return lambda batch: OutOfMemory("CUDA out of memory") if len(batch) > limit else None


def test_a_batch_that_does_not_fit_is_halved_and_the_answers_stay_in_order() -> None:
    session = Doubling(full_at(3))
    steady = Steady(session, name="m", device="cuda", fallback=Doubling)

    found = steady.run(rows(10))

    assert found.ravel().tolist() == [2.0 * number for number in range(10)]
    assert steady.device == "cuda"
    assert session.batches == [10, 5, 2, 2, 2, 2, 2]


def test_what_did_not_fit_once_is_not_tried_again() -> None:
    session = Doubling(full_at(4))
    steady = Steady(session, name="m", device="cuda", fallback=Doubling)
    steady.run(rows(8))
    session.batches.clear()

    steady.run(rows(8))

    assert session.batches == [4, 4]


def test_a_gpu_with_no_room_for_one_picture_is_left_for_the_processor() -> None:
    steady = Steady(Doubling(full_at(0)), name="m", device="cuda", fallback=Doubling)

    found = steady.run(rows(4))

    assert found.ravel().tolist() == [0, 2, 4, 6]
    assert steady.device == "cpu"


@pytest.mark.parametrize("trouble", [Failed("CUDA error 999: device lost"), None], ids=["an error", "rubbish"])
def test_a_lost_gpu_falls_back_to_the_processor_once_and_for_all(trouble: Exception | None) -> None:
    class Lost(Doubling):
        def run(self, batch: Rows) -> Rows:
            super().run(batch)
            return np.full_like(batch, np.nan)

    made: list[Doubling] = []

    def fallback() -> Doubling:
        made.append(Doubling())
        return made[-1]

    lost = Doubling(lambda _: trouble) if trouble else Lost()
    steady = Steady(lost, name="m", device="cuda", fallback=fallback)

    first, again = steady.run(rows(2)), steady.run(rows(3))

    assert first.ravel().tolist() == [0, 2]
    assert again.ravel().tolist() == [0, 2, 4]
    assert steady.device == "cpu"
    assert len(made) == 1
    assert lost.batches == [2]


@pytest.mark.parametrize("kind", [OutOfMemory, Failed])
def test_on_the_processor_a_failure_is_no_answer_and_never_a_verdict(kind: type[Exception]) -> None:
    steady = Steady(Doubling(lambda _: kind("bad day")), name="m", device="cpu", fallback=None)

    with pytest.raises(Unreached, match="bad day") as caught:
        steady.run(rows(1))
    assert caught.value.retry


def test_a_device_whose_scores_drift_is_not_exchanged_under_the_same_version() -> None:
    steady = Steady(Doubling(lambda _: Failed("lost")), name="m", device="cuda", fallback=Doubling)
    steady.hold()

    with pytest.raises(Unreached):
        steady.run(rows(1))


def test_nothing_in_gives_nothing_out() -> None:
    assert Steady(Doubling(), name="m", device="cpu", fallback=None).run(rows(0)).shape == (0, 1)


def test_threads_that_ask_at_once_share_batches_and_each_gets_its_own_rows() -> None:
    begun, go = threading.Event(), threading.Event()

    def wait(_: Rows) -> None:
        begun.set()
        go.wait(10)

    session = Doubling(wait)
    shared = Batched(session, most=8)

    with ThreadPoolExecutor(16) as pool:
        first = pool.submit(shared.run, rows(1, 1000))
        begun.wait(10)
        others = [pool.submit(shared.run, rows(2, 10 * number)) for number in range(12)]
        while len(shared._queue) < 12:
            pass
        go.set()
        found = [future.result(10) for future in others]

    assert first.result().ravel().tolist() == [2000]
    assert [one.ravel().tolist() for one in found] == [[20.0 * n, 20.0 * n + 2] for n in range(12)]
    assert session.batches == [1, 8, 8, 8]


def test_a_failure_reaches_everyone_in_the_batch_and_nobody_else() -> None:
    session = Doubling(lambda batch: Unreached("lost") if batch[0, 0] == 7 else None)
    shared = Batched(session, most=4)

    with pytest.raises(Unreached):
        shared.run(rows(1, 7))
    assert shared.run(rows(1, 1)).ravel().tolist() == [2]


def test_a_request_larger_than_the_batch_still_runs() -> None:
    assert len(Batched(Doubling(), most=4).run(rows(9))) == 9


def test_the_processor_is_always_there_and_says_so_itself() -> None:
    assert "cpu" in devices()
    assert OnnxSession(tower(), name="tiny").device == "cpu"


def test_a_device_that_is_not_there_is_refused_instead_of_silently_exchanged() -> None:
    missing = next(device for device in ("cuda", "tensorrt", "coreml") if device not in devices())

    with pytest.raises(Misconfigured, match=missing) as caught:
        OnnxSession(tower(), name="tiny", device=missing)
    assert "doctor" in caught.value.hint


def test_an_open_session_on_the_processor_lets_every_caller_compute_at_once() -> None:
    session, steady = open_session(tower(), name="tiny")

    assert session is steady
    assert session.run(np.zeros((2, 3, SIDE, SIDE), np.float32)).shape == (2, 4)


def test_an_input_of_another_shape_is_an_answer_of_the_runtime_and_no_crash() -> None:
    with pytest.raises(Failed):
        OnnxSession(tower(), name="tiny").run(np.zeros((1, 3, 5, 5), np.float32))
