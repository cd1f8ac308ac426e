"""What `status` learns of a watch from another process."""

from collections.abc import Iterator
from datetime import timedelta
from threading import Event

import pytest
from structlog.testing import capture_logs
from tests.support.core import Core
from tests.support.watching import DatedStore, Watching, key_at

from fediwarden.model import StoreName
from fediwarden.pipeline import Tally
from fediwarden.watch.heartbeat import Pulse, last_beat
from fediwarden.watch.state import Board

STORE = StoreName("memory")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with capture_logs():
        yield


def test_a_sign_of_life_says_how_the_watching_goes() -> None:
    watching = Watching(DatedStore())
    watching.seconds = 10.0
    pulse = Pulse(watching.core.ledger, watching.board, watching.clock, lambda: watching.seconds)
    now = watching.clock()
    watching.store.put(key_at(now - timedelta(seconds=4)), b"some bytes", modified=now - timedelta(seconds=4))
    watching.watch.round()
    watching.seconds = 30.0
    pulse.beat()
    beat = last_beat(watching.core.ledger, watching.store.name, watching.clock())
    assert beat is not None
    assert (beat.running, beat.signal, beat.problem, beat.waiting, beat.blind) == (True, "dated keys", "", 0, ())
    assert beat.lag is not None
    assert beat.lag >= 4
    assert beat.rate == 0.05  # one look in twenty seconds
    assert beat.requests == watching.board.picture().stores[watching.store.name].listing_last_hour


def test_a_watch_that_ended_or_fell_silent_is_not_running() -> None:
    core = Core()
    board = Board(3600, lambda: 0.0)
    board.store(STORE, signal="newest")
    pulse = Pulse(core.ledger, board, core.clock, lambda: 0.0)
    assert last_beat(core.ledger, STORE, core.clock()) is None
    pulse.beat()
    for later, running in ((0, True), (2, True), (4, False), (-4, False)):
        beat = last_beat(core.ledger, STORE, core.clock() + timedelta(minutes=later))
        assert beat is not None
        assert beat.running is running
    stop = Event()
    stop.set()
    pulse.run(stop)  # told to end before it began: the last sign still says so
    beat = last_beat(core.ledger, STORE, core.clock())
    assert beat is not None
    assert not beat.running


def test_a_blind_watch_says_why() -> None:
    core = Core()
    seconds = 0.0
    board = Board(60, lambda: seconds)
    board.silent(STORE, "no route to it")
    board.looked(Tally(), Tally(unreached=1))
    seconds = 3600.0
    Pulse(core.ledger, board, core.clock, lambda: seconds).beat()
    beat = last_beat(core.ledger, STORE, core.clock())
    assert beat is not None
    assert beat.problem == "no route to it"
    assert len(beat.blind) == 2
    assert beat.lag is None


@pytest.mark.parametrize("value", [{}, {"swept": "yesterday"}, {"lag": "long"}, {"blind": "yes"}, {"waiting": None}])
def test_a_sign_of_another_version_is_no_error(value: dict[str, object]) -> None:
    core = Core()
    core.ledger.watching.remember(f"pulse {STORE}", value, core.clock())
    beat = last_beat(core.ledger, STORE, core.clock())
    assert beat is None or beat.running
