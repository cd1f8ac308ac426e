"""Rows of the lessons about the earlier daemon: errors that nobody saw, uploads of the night, a whole bucket every cycle, futures kept."""

import ast
import signal
import socket
import threading
import time
from collections.abc import Iterator, MutableMapping, Sequence
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.support.command import Home
from tests.support.models import installed_models
from tests.support.waiting import until
from tests.support.watching import DatedStore, NewestStore, Watching

import fediwarden
from fediwarden.errors import Unreached
from fediwarden.model import ObjectRef, StoreName
from fediwarden.stores.memory import MemoryStore
from fediwarden.watch import state, supervisor
from fediwarden.watch import store as store_watch
from fediwarden.watch.session import Watch, Watched
from fediwarden.watch.signals import ToldPaths
from fediwarden.watch.state import Board
from fediwarden.watch.supervisor import Part, Supervisor

SOURCES = sorted(Path(fediwarden.__file__).parent.rglob("*.py"))
NIGHT = timedelta(hours=9)


@pytest.fixture(autouse=True)
def events() -> Iterator[list[MutableMapping[str, Any]]]:
    """What would be in the log."""
    with capture_logs() as logged:
        yield logged


def test_f7_nothing_is_caught_without_a_name() -> None:
    handlers = [
        (file.name, node.lineno)
        for file in SOURCES
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ExceptHandler) and node.type is None
    ]
    assert len(SOURCES) > 50
    assert handlers == []


def test_f7_a_part_that_fails_is_in_the_log_is_counted_and_begins_anew(
    events: list[MutableMapping[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "FIRST", 0.01)
    seen, stop, tries = Board(3600, lambda: 0.0), Event(), 0

    def fails_twice() -> None:
        nonlocal tries
        tries += 1
        if tries <= 2:
            raise RuntimeError("out of thin air")
        stop.wait()

    parts = Supervisor([Part("arrivals media", fails_twice), Part("other", stop.wait)], stop, seen.restarted)
    parts.start()
    until(lambda: tries == 3)
    assert parts.end() == []
    failed = [event for event in events if event["event"] == "part failed"]
    assert [event["part"] for event in failed] == ["arrivals media"] * 2
    assert all(event["exc_info"] for event in failed)
    assert seen.picture().restarts == {"arrivals media": 2}


def test_f7_a_store_without_an_answer_is_in_the_log_and_an_hour_of_it_is_an_alarm(events: list[MutableMapping[str, Any]]) -> None:
    watching = Watching(DatedStore())

    def down(step: str, key: str) -> None:
        watching.pass_time(minutes=61)
        watching.stop.set()
        raise Unreached("no answer")

    watching.store.before = down
    watching.watch.watch_arrivals()
    assert [event["log_level"] for event in events if event["event"] == "store unreached"] == ["warning"]
    assert watching.board.picture().stores[watching.store.name].failures == 1
    assert [line for line in watching.board.blind if watching.store.name in line]


def test_f7_the_first_ctrl_c_ends_a_watch_whose_store_is_down(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.run("init", "--profile", "other")
    (home.folder / "models").symlink_to(installed_models())
    credentials = tmp_path / "s3.toml"
    credentials.write_text('access_key_id = "a"\nsecret_access_key = "b"\n')
    credentials.chmod(0o600)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and never answers
        silent.settimeout(40)
        home.add_store("media", url="s3://media", endpoint=f"http://127.0.0.1:{silent.getsockname()[1]}", credentials=credentials)
        process = home.start("watch")
        try:
            asking, _ = silent.accept()
            with asking:
                began = time.monotonic()
                process.send_signal(signal.SIGINT)
                _, err = process.communicate(timeout=20)
        finally:
            process.kill()
    assert time.monotonic() - began < 5
    assert (process.returncode, b"Traceback" in err) == (130, False), err


@pytest.mark.parametrize("kind", [DatedStore, NewestStore, MemoryStore], ids=["dated keys", "newest", "listing"])
def test_f8_what_came_in_while_the_machine_slept_is_looked_at(kind: type[MemoryStore]) -> None:
    """Every twenty minutes of a night an upload; the window of the earlier daemon sees the last one."""
    watching = Watching(kind())
    watching.upload(b"dark, in the evening")
    watching.sweep()
    watching.watch.round()
    slept = [watching.clock() + minutes for minutes in (timedelta(minutes=20 * number) for number in range(1, 27))]
    for number, moment in enumerate(slept):
        watching.upload(b"dark %d" % number, number, at=moment)
    watching.pass_time(seconds=NIGHT.total_seconds())

    watching.begin()
    assert watching.watch.round() == len(slept)
    assert watching.not_looked_at == []


def test_f8_a_sweep_proves_what_no_question_for_new_objects_could_tell() -> None:
    watching = Watching(DatedStore())
    watching.upload(b"dark")
    watching.sweep()
    watching.watch.round()
    late = watching.upload(b"dark, and two days late", 1, at=watching.clock() - timedelta(days=2))
    watching.watch.round()
    assert watching.not_looked_at == [late]
    watching.pass_time(hours=24)
    watching.fill()
    assert watching.not_looked_at == []


class _Counting(DatedStore):
    """Counts what its listings told, and in how many whole listings."""

    told = 0
    whole = 0

    def between(self, after: str, until: str) -> Iterator[Sequence[ObjectRef]]:
        for page in super().between(after, until):
            self.told += len(page)
            yield page

    def list(self) -> Iterator[Sequence[ObjectRef]]:
        self.whole += 1
        return super().list()


def test_f9_hours_of_questions_cost_one_request_each_and_the_bucket_is_listed_once_a_day() -> None:
    store = _Counting()
    watching = Watching(store)
    for number in range(3000):
        watching.upload(b"dark", number, at=watching.clock() - timedelta(minutes=number))
    watching.sweep()
    watching.watch.round()
    watching.pass_time(hours=2)
    store.whole = store.told = 0
    before = store.requests
    for _ in range(60):
        watching.pass_time(minutes=1)
        watching.watch.round()
    assert store.whole == 0
    assert store.told <= 60 * 61  # what the overlap shows again, of 3,000
    assert store.requests - before == 60
    watching.pass_time(hours=23)
    watching.fill()
    assert store.whole == 1


@pytest.mark.parametrize("kind", [DatedStore, NewestStore, MemoryStore], ids=["dated keys", "newest", "listing"])
def test_f9_an_empty_bucket_is_a_store_like_any_other(kind: type[MemoryStore]) -> None:
    watching = Watching(kind())
    assert watching.watch.round() == 0
    watching.sweep()
    assert list(watching.core.ledger.entries()) == []
    watching.upload(b"bad, the first of all")
    watching.pass_time(minutes=1)
    watching.watch.round()
    watching.fill()
    assert watching.not_looked_at == []


def _sizes(whatever: object) -> dict[str, int]:
    """How much every container of an object holds, of those inside it too."""
    found: dict[str, int] = {}
    for name, value in vars(whatever).items():
        if isinstance(value, (list, dict, set, tuple)) or hasattr(value, "maxlen"):
            found[name] = len(value)
    return found


def test_f25_rounds_without_end_keep_nothing_of_what_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_watch, "MET", 40)
    monkeypatch.setattr(state, "LAGS", 40)
    watching = Watching(MemoryStore())
    for number in range(60):
        watching.store.delete(f"{number - 1}")
        watching.store.put(f"{number}", b"dark")
        watching.pass_time(hours=1)
        watching.watch._unsettled(watching.watch._its_run(), next(iter(watching.store.list())))
        watching.watch._count()
        watching.board.lagged(StoreName("memory"), 1.0)
    assert watching.watch.round() == 0

    def held() -> dict[str, int]:
        return {**_sizes(watching.watch), **_sizes(watching.watch._budget), **_sizes(watching.board)}

    first = held()
    for number in range(60, 120):
        watching.store.delete(f"{number - 1}")
        watching.store.put(f"{number}", b"dark")
        watching.pass_time(hours=1)
        watching.watch._unsettled(watching.watch._its_run(), next(iter(watching.store.list())))
        watching.watch._count()
        watching.board.lagged(StoreName("memory"), 1.0)
    assert {name: size for name, size in held().items() if size > first[name] + 1} == {}
    assert first["_met"] == 40


def test_f25_what_a_folder_tells_is_bounded_and_what_is_over_it_is_left_to_a_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fediwarden.watch.signals.TOLD_BOUND", 3)
    told = ToldPaths()
    for number in range(10):
        told.tell(f"{number}")
    assert told.take() == ["0", "1", "2"]
    assert told.take_lost()


def test_f25_the_end_leaves_no_thread_behind() -> None:
    watching = Watching(DatedStore())
    for number in range(20):
        watching.upload(b"dark %d" % number, number)
    before = set(threading.enumerate())
    bench = watching.watch._bench
    whole = Watch(bench, [Watched(watching.store, watching.store, "s3://media")], watching.plan, [], None)
    whole.start()
    until(lambda: not watching.not_looked_at)
    watching.stop.set()
    whole.end()
    until(lambda: set(threading.enumerate()) <= before, 5)
