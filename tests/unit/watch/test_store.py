"""One store, watched: nothing is missed, whatever ends the process or the store, and an idle store costs next to nothing."""

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from threading import Thread, Timer, current_thread

import pytest
from structlog.testing import capture_logs
from tests.support.core import Opener
from tests.support.watching import PLAN, DatedStore, NewestStore, Watching

from fediwarden.errors import CannotWrite, Lost, Unreached
from fediwarden.ledger.watching import Watching as Marks
from fediwarden.model import ObjectRef
from fediwarden.stores import memory
from fediwarden.stores.memory import MemoryStore
from fediwarden.watch import store as store_watch
from fediwarden.watch.signals import FolderEvents, ToldPaths, _identity
from fediwarden.watch.store import AT_ONCE, RETRY_FIRST


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with capture_logs():
        yield


@pytest.fixture(params=[DatedStore, NewestStore, MemoryStore], ids=["dated keys", "newest", "listing"])
def watching(request: pytest.FixtureRequest) -> Watching:
    """Every kind of signal that is asked."""
    made = Watching(request.param())
    made.upload(b"dark, the first")
    made.sweep()
    made.watch.round()
    made.pass_time(hours=2)
    return made


def test_what_comes_in_is_looked_at_in_the_next_round_and_once(watching: Watching) -> None:
    watching.upload(b"bad", 1)
    watching.upload(b"dark", 2)
    assert watching.watch.round() == 2
    assert watching.not_looked_at == []
    assert len(list(watching.core.ledger.owed())) == 1

    opened = len(watching.core.opener.opened)
    for _ in range(5):
        watching.pass_time(minutes=1)
        assert watching.watch.round() == 0
    assert len(watching.core.opener.opened) == opened


def test_what_came_in_while_nobody_watched_is_found_from_where_it_was(watching: Watching) -> None:
    for hour in range(72):
        watching.upload(b"dark while away %d" % hour, hour)
        watching.pass_time(hours=1)
    watching.begin()

    watching.watch.round()
    assert watching.not_looked_at == []


def test_an_overlap_catches_what_arrives_late(watching: Watching) -> None:
    watching.upload(b"dark", 1)
    watching.watch.round()
    watching.upload(b"dark, dated before the other", 2, at=watching.clock() - timedelta(minutes=30))

    watching.watch.round()
    assert watching.not_looked_at == []


def test_a_round_that_is_cut_off_leaves_its_objects_to_the_gaps_and_the_position_where_it_was(watching: Watching) -> None:
    watching.upload(b"dark", 1)

    def fetch_fails(step: str, key: str) -> None:
        if step == "fetch":
            raise Unreached("the store went away")

    watching.store.before = fetch_fails
    watching.watch.round()
    assert len(watching.not_looked_at) == 1
    watching.store.before = None
    watching.begin()
    watching.pass_time(seconds=RETRY_FIRST + 1)
    watching.fill()
    assert watching.not_looked_at == []


def test_a_store_that_gives_no_answer_is_told_and_its_position_stays(watching: Watching) -> None:
    def gone(step: str, key: str) -> None:
        raise Unreached("no answer")

    watching.upload(b"dark", 1)
    watching.store.before = gone
    with pytest.raises(Unreached):
        watching.watch.round()
    watching.store.before = None
    watching.watch.round()

    assert watching.not_looked_at == []


def test_a_ledger_that_takes_no_more_stops_the_round_and_nothing_counts_as_met(
    watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    watching.upload(b"dark", 1)

    def full(*_: object) -> None:
        raise CannotWrite("disk full")

    with monkeypatch.context() as full_disk:
        full_disk.setattr(watching.core.ledger, "settle", full)
        with pytest.raises(CannotWrite):
            watching.watch.round()
    watching.watch.round()
    assert watching.not_looked_at == []


def test_a_flood_is_put_into_the_ledger_at_once_and_looked_at_bit_by_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_watch, "LEFT", AT_ONCE + 60)
    watching = Watching(DatedStore())
    watching.upload(b"dark, the first")
    watching.sweep()
    watching.watch.round()
    watching.pass_time(hours=2)
    for number in range(AT_ONCE + 100):
        watching.upload(b"dark %d" % number, number)

    def left() -> int:
        return watching.board.picture().stores[watching.store.name].left

    assert watching.watch.round() == AT_ONCE + 100
    assert (len(watching.not_looked_at), left()) == (100, 60)
    asked = watching.store.requests
    assert watching.watch.round() == 0
    assert watching.store.requests - asked == 60  # fetches: nobody asked again
    assert (len(watching.not_looked_at), left()) == (40, 0)
    watching.fill()
    assert watching.not_looked_at == []
    assert len(watching.core.opener.opened) == AT_ONCE + 101


def test_a_sweep_finds_what_no_signal_told_and_what_is_gone() -> None:
    watching = Watching(DatedStore())
    first = watching.upload(b"dark, the first")
    watching.watch.fill()
    watching.watch.round()
    watching.store.put("not/dated.jpg", b"bad")
    watching.store.delete(first)
    watching.watch.round()
    assert watching.not_looked_at == ["not/dated.jpg"]

    watching.pass_time(hours=25)
    watching.fill()
    assert watching.not_looked_at == []
    entry = watching.core.ledger.entry(watching.store.name, first)
    assert entry is not None
    assert entry.gone


def test_a_sweep_takes_back_nothing_that_came_in_while_it_listed() -> None:
    watching = Watching(NewestStore())
    watching.upload(b"dark, the first")
    watching.watch.round()
    late: list[str] = []

    def meanwhile(step: str, key: str) -> None:
        if step == "fetch" and not late:
            late.append(watching.upload(b"dark, behind the listing's back", 7))
            round_of_its_own = Thread(target=watching.watch.round)
            round_of_its_own.start()
            round_of_its_own.join()

    listing = watching.store.list

    def listing_that_is_over(*_: object) -> object:
        pages = list(listing())
        return iter(pages)

    watching.store.put("older", b"dark, for the sweep")
    watching.store.list = listing_that_is_over  # type: ignore[method-assign, assignment]
    watching.store.before = meanwhile
    watching.sweep()

    entry = watching.core.ledger.entry(watching.store.name, late[0])
    assert entry is not None
    assert not entry.gone


def test_a_sweep_that_is_cut_off_is_due_again_and_declares_nothing_gone() -> None:
    watching = Watching(DatedStore())
    watching.upload(b"dark")
    watching.sweep()
    watching.pass_time(hours=25)
    watching.upload(b"dark", 2)

    def listing_fails(step: str, key: str) -> None:
        if step == "list":
            raise Unreached("no answer")

    watching.store.before = listing_fails
    watching.sweep()
    assert not any(entry.gone for entry in watching.core.ledger.entries())
    watching.store.before = None
    watching.pass_time(hours=1)
    watching.fill()
    assert watching.not_looked_at == []


@pytest.mark.parametrize("jump", [timedelta(days=-2), timedelta(days=2)], ids=["back", "forth"])
def test_a_clock_that_jumps_hides_nothing(watching: Watching, jump: timedelta) -> None:
    watching.clock.now += jump
    watching.watch.round()
    watching.clock.now -= jump
    watching.upload(b"dark, after the jump", 3)
    watching.watch.round()
    watching.fill()
    assert watching.not_looked_at == []


def test_another_engine_looks_at_everything_again_without_listing_the_store() -> None:
    watching = Watching(DatedStore())
    for number in range(20):
        watching.upload(b"dark %d" % number, number)
    watching.sweep()
    watching.watch.round()
    watching.core.engine = "2"
    watching.begin()
    steps: list[str] = []
    watching.store.before = lambda step, _: steps.append(step)
    watching.fill()

    assert watching.not_looked_at == []
    assert steps.count("list") == 2  # which signal the store offers, and what is new


def test_an_object_that_is_never_reached_is_tried_ever_more_rarely() -> None:
    watching = Watching(DatedStore())
    watching.upload(b"dark, the first")
    watching.sweep()
    poisoned = watching.upload(b"dark, and poisoned", 1)
    tries = 0

    def poison(step: str, key: str) -> None:
        nonlocal tries
        if step == "fetch" and key == poisoned:
            tries += 1
            raise Unreached("it never comes")

    watching.store.before = poison
    watching.watch.round()
    for _ in range(24 * 60):
        watching.pass_time(minutes=1)
        watching.watch.round()
        watching.watch.fill()

    assert 5 <= tries <= 15
    assert watching.not_looked_at == [poisoned]


@pytest.mark.parametrize("kind", [DatedStore, NewestStore])
def test_an_idle_store_costs_one_request_a_round_and_the_ledger_nothing(
    kind: type[MemoryStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    watching = Watching(kind())
    for number in range(10):
        watching.upload(b"dark %d" % number, number)
        watching.pass_time(minutes=30)
    watching.sweep()
    watching.watch.round()
    watching.pass_time(hours=2)
    watching.watch.round()
    written: list[object] = []
    monkeypatch.setattr(Marks, "remember", lambda *facts: written.append(facts))
    before = watching.store.requests
    for _ in range(9):
        watching.pass_time(minutes=1)
        watching.watch.round()

    assert watching.store.requests - before == 9
    assert written == []


def test_whatever_happens_to_a_store_for_a_day_in_the_end_everything_that_is_there_was_looked_at() -> None:
    for seed in range(3):
        chance = random.Random(seed)
        kind = (DatedStore, NewestStore, MemoryStore)[seed]
        watching = Watching(kind())
        number = 0
        for _ in range(20):
            for _ in range(chance.randrange(3)):
                number += 1
                watching.upload(chance.choice([b"dark", b"bad", b"broken"]) + b" %d" % number, number)
            match chance.randrange(10):
                case 0 if watching.store.objects:
                    watching.store.delete(chance.choice(list(watching.store.objects)))
                case 1:
                    watching.begin()
                case 2:
                    watching.store.before = _no_answer
                case 3 if watching.store.objects:
                    key = chance.choice(list(watching.store.objects))
                    watching.store.put(key, b"dark, replaced %d" % number, modified=watching.clock())
                case 4:
                    watching.clock.now += timedelta(hours=chance.choice([-5, 5]))
                case _:
                    watching.store.before = None
            for work in (watching.watch.round, watching.watch.fill):
                try:
                    work()
                except Unreached:
                    continue
            watching.pass_time(hours=1)
        watching.store.before = None
        for _ in range(8):
            watching.pass_time(hours=6)
            watching.watch.round()
            watching.watch.fill()
        assert watching.not_looked_at == [], (seed, kind)
        gone = {entry.ref.key for entry in watching.core.ledger.entries() if not entry.gone} - set(watching.store.objects)
        assert gone == set(), (seed, kind)


def _no_answer(step: str, key: str) -> None:
    raise Unreached("no answer")


def test_the_stop_ends_a_scan_under_way_and_what_was_not_looked_at_stays_on_the_list() -> None:
    watching = Watching(DatedStore())
    watching.upload(b"dark, the first")
    watching.sweep()
    for number in range(50):
        watching.upload(b"dark %d" % number, number)
    watching.core.opener = Opener(before=lambda _: time.sleep(0.05))
    watching.begin()
    ending = Timer(0.3, watching.stop.set)
    ending.start()
    watching.watch.round()
    ending.join()
    left = len(watching.not_looked_at)
    assert left > 0
    watching.core.opener = Opener()
    watching.begin()
    watching.fill()
    assert watching.not_looked_at == []


# -- arrivals never wait for the back-catalogue -------------------------------------------------------------------------------


class _Dear(DatedStore):
    """A whole listing costs a thousand requests more, as that of a million objects does."""

    def list(self) -> Iterator[Sequence[ObjectRef]]:
        self._requests += 1000
        return super().list()


def test_what_a_whole_listing_costs_does_not_put_off_the_next_question() -> None:
    watching = Watching(_Dear())
    watching.upload(b"dark")
    watching.watch.round()
    watching.sweep()
    watching.pass_time(minutes=1)
    watching.watch.round()
    assert watching.watch._next - watching.seconds == watching.plan.seconds


def test_a_later_sweep_lists_a_page_when_the_requests_allow_it_and_looks_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "PAGE", 10)
    watching = Watching(DatedStore(), plan=replace(PLAN, requests_per_hour=6))
    for number in range(25):
        watching.upload(b"dark", number)
    watching.fill()
    watching.pass_time(hours=25)
    watching.store.put("zz/late", b"bad, on the last page")
    watching.watch.round()
    pages = []
    watching.store.before = lambda step, _: pages.append(watching.seconds) if step == "list" else None
    began = watching.seconds
    for _ in range(90):
        watching.pass_time(minutes=1)
        watching.watch.fill()
    assert watching.not_looked_at == []
    assert len(pages) == 3
    assert pages[-1] - began >= 20 * 60


def test_a_slow_answer_does_not_put_off_the_next_question() -> None:
    watching = Watching(DatedStore())
    watching.store.before = lambda step, _: watching.pass_time(seconds=50) if step == "list" else None
    watching.watch.round()
    assert watching.watch._next - watching.seconds <= 2 * watching.plan.seconds


def test_a_sweep_that_is_due_does_not_wait_for_the_whole_back_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_watch, "STRETCH", 5)
    monkeypatch.setattr(store_watch, "STRETCH_SECONDS", -1.0)
    watching = Watching(DatedStore())
    for number in range(60):
        watching.upload(b"dark %d" % number, number, at=watching.clock() - timedelta(days=2))
    watching.upload(b"dark, the newest")
    watching.fill()
    watching.core.engine = "2"
    watching.begin()
    watching.watch.round()
    assert watching.watch.fill()
    assert len(watching.not_looked_at) == 55
    first = watching.watch._swept
    watching.pass_time(hours=25)
    for _ in range(2):
        assert watching.watch.fill()
    assert watching.watch._swept != first
    assert len(watching.not_looked_at) == 55
    watching.fill()
    assert watching.not_looked_at == []


def test_an_arrival_that_was_not_reached_is_tried_again_soon_and_by_whom_it_was_met(watching: Watching) -> None:
    watching.upload(b"dark", 1)
    watching.store.before = _fetch_fails
    watching.watch.round()
    watching.store.before = None
    watching.pass_time(seconds=store_watch.LATER[0])
    watching.watch.round()
    assert watching.not_looked_at == []


def _fetch_fails(step: str, key: str) -> None:
    if step == "fetch":
        raise Unreached("the store went away")


def test_when_a_store_answers_again_everything_is_tried_at_once(watching: Watching) -> None:
    watching.upload(b"dark", 1)
    watching.store.before = _fetch_fails
    for _ in range(12):
        watching.pass_time(minutes=30)
        watching.watch.round()
        watching.watch.fill()
        watching.watch.fill()
    assert watching.watch._retry_at > watching.seconds
    watching.store.before = _no_answer
    with pytest.raises(Unreached):
        watching.watch.round()
    assert not watching.watch.fill()  # nobody else asks meanwhile
    watching.store.before = None
    watching.fill()
    assert watching.not_looked_at == []


def test_arrivals_and_gaps_never_look_at_the_same_object(watching: Watching) -> None:
    key = watching.upload(b"dark", 1)
    watching.watch._ask()  # in the ledger, and waiting for its look
    opened = len(watching.core.opener.opened)
    while watching.watch.go_through_backlog():
        pass
    assert len(watching.core.opener.opened) == opened
    watching.watch._look_at_arrivals()
    assert len(watching.core.opener.opened) == opened + 1
    assert key not in watching.not_looked_at


def test_what_changes_while_the_gaps_look_at_it_is_looked_at_again(watching: Watching) -> None:
    key = watching.upload(b"dark", 1)
    watching.watch._ask()
    watching.watch._claims.give(watching.watch._left)
    watching.watch._left.clear()

    def changed(_: object) -> None:
        watching.core.opener.before = lambda _: None
        watching.store.put(key, b"bad, and other bytes", modified=watching.clock())
        watching.watch._ask()

    watching.core.opener.before = changed
    while watching.watch.go_through_backlog():
        pass
    watching.watch.round()
    entry = watching.core.entry(key)
    assert entry.sha256 == sha256(b"bad, and other bytes").hexdigest()
    assert watching.not_looked_at == []


class _Telling(FolderEvents):
    """Is told of paths by the test."""

    kind = "events"

    def __init__(self, store: MemoryStore) -> None:
        self._reader = store
        self._told = ToldPaths()
        self._told.ready.set()
        self._root = Path("/")
        self._folder = _identity(self._root)
        self._thread = current_thread()

    def close(self) -> None:
        """Nothing listens."""


def test_what_was_told_to_a_ledger_that_took_nothing_is_found_by_a_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    telling = _Telling(store)
    watching = Watching(store, choose=lambda: telling)
    watching.fill()
    store.put("new", b"bad")
    telling._told.tell("new")

    def full(*_: object) -> None:
        raise CannotWrite("disk full")

    with monkeypatch.context() as full_disk:
        full_disk.setattr(watching.core.ledger, "settle", full)
        with pytest.raises(CannotWrite):
            watching.watch.round()
    watching.fill()
    assert watching.not_looked_at == []


def test_one_that_took_long_to_come_in_hides_nothing_behind_it() -> None:
    watching = Watching(NewestStore())
    watching.upload(b"dark")
    watching.sweep()
    watching.watch.round()
    watching.pass_time(hours=3)
    store = watching.store
    keys = [watching.upload(b"dark %d" % number, number) for number in range(60)]
    pages = [[store.stat(key) for key in keys[start : start + 20]] for start in range(0, 60, 20)]
    pages[0][7] = replace(pages[0][7], modified=watching.clock() - timedelta(days=1))
    store.newest = lambda: iter(pages)  # type: ignore[attr-defined]
    watching.watch.round()
    assert watching.not_looked_at == []


def test_a_position_of_a_clock_that_ran_ahead_does_not_hide_what_comes_in_now() -> None:
    watching = Watching(DatedStore())
    watching.upload(b"dark")
    watching.sweep()
    watching.clock.now += timedelta(days=3)
    ahead = watching.upload(b"dark, of the third day", 1)
    watching.watch.round()
    watching.store.delete(ahead)
    watching.clock.now -= timedelta(days=3)
    watching.upload(b"dark, of today", 2)
    watching.watch.round()
    assert watching.not_looked_at == []


class PagedStore(DatedStore):
    """One request a page."""

    def between(self, after: str, until: str) -> Iterator[Sequence[ObjectRef]]:
        for page in super().between(after, until):
            self._step("list", "")
            yield page


def test_what_the_first_question_costs_does_not_put_off_the_second() -> None:
    """It goes back for weeks in keys that carry their date; what comes in meanwhile is looked at within the minute."""
    watching = Watching(PagedStore())
    for number in range(3001):
        watching.upload(b"dark", number, watching.clock() - timedelta(days=2))
    asked = watching.store.requests
    watching.watch._ask()
    assert watching.store.requests - asked == 2 + 5  # are its keys dated; then four pages
    assert watching.watch._next - watching.seconds == watching.plan.seconds
    watching.pass_time(minutes=1)
    watching.upload(b"dark, new", 9000)
    assert watching.watch._ask() == 1
    assert watching.watch._next - watching.seconds > watching.plan.seconds  # from here on a question pays for itself


def test_a_first_question_that_fails_every_time_stays_within_the_requests() -> None:
    watching = Watching(PagedStore())
    for number in range(3001):
        watching.upload(b"dark", number, watching.clock() - timedelta(days=2))
    watching.watch._signal()
    asked = watching.store.requests

    def cut(step: str, _key: str) -> None:
        if step == "list" and watching.store.requests - asked > 3:
            raise Unreached("cut off")

    watching.store.before = cut
    with pytest.raises(Unreached):
        watching.watch._ask()
    assert watching.watch._next - watching.seconds > 2 * watching.plan.seconds


class ApartStore(DatedStore):
    """Lists from elsewhere than where its files lie, as pict-rs does."""

    def prove(self, ref: ObjectRef) -> None:
        self._step("prove", ref.key)


def without_files(step: str, _key: str) -> None:
    """They are not there any more."""
    if step in ("fetch", "prove"):
        raise Lost("pict-rs knows it, and its file is not there")


def test_a_store_that_is_empty_all_at_once_has_lost_nothing_however_often_it_is_swept(watching: Watching) -> None:
    for number in range(20):
        watching.upload(b"bad %d" % number, number)
    watching.fill()
    watching.pass_time(hours=25)
    watching.fill()
    held = watching.store._objects.copy()
    for key in held:
        watching.store.delete(key)

    for _ in range(5):
        watching.pass_time(hours=30)
        watching.fill()

    assert not any(entry.gone for entry in watching.core.ledger.entries())
    assert len(list(watching.core.ledger.owed())) == 20
    assert "nothing is taken for gone" in watching.board.picture().stores[watching.watch.name].doubt
    watching.store._objects.update(held)
    watching.pass_time(hours=30)
    watching.fill()
    assert watching.board.picture().stores[watching.watch.name].doubt == ""
    assert watching.core.ledger.watching.doubts() == []


def test_a_store_whose_files_went_away_is_said_to_be_blind_until_one_can_be_read_again() -> None:
    watching = Watching(ApartStore())
    for number in range(20):
        watching.upload(b"dark %d" % number, number)
    watching.fill()
    watching.pass_time(hours=25)
    watching.store.before = without_files

    watching.fill()

    assert watching.board.blind == [f"{watching.watch.name}: pict-rs lists its objects and cannot read their files"]
    watching.store.before = None
    watching.pass_time(hours=25)
    watching.fill()
    assert watching.board.blind == []


def test_new_files_that_arrive_where_the_old_ones_are_not_keep_it_blind_until_those_are_back() -> None:
    watching = Watching(ApartStore())
    for number in range(20):
        watching.upload(b"dark %d" % number, number)
    watching.fill()
    watching.pass_time(hours=25)
    old = set(watching.store.objects)
    watching.store.before = lambda step, key: without_files(step, key) if key in old else None
    watching.upload(b"dark, new", 25 * 60)
    watching.fill()

    watching.upload(b"dark, newer", 25 * 60 + 1)
    watching.pass_time(minutes=2)
    watching.watch.round()

    assert "not those that it had before" in watching.board.blind[0]
    watching.store.before = None
    watching.pass_time(hours=25)
    watching.fill()
    assert watching.board.blind == []


def test_a_new_file_that_is_handed_out_ends_that_at_once() -> None:
    watching = Watching(ApartStore())
    watching.upload(b"dark")
    watching.fill()
    watching.pass_time(hours=25)
    watching.store.before = without_files
    watching.fill()
    watching.store.before = None
    watching.pass_time(minutes=2)
    watching.upload(b"dark, new", 2)

    watching.watch.round()

    assert watching.board.blind == []
