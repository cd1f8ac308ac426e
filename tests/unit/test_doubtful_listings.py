"""Listings that come to their end and hold far too little: nothing is gone, whatever the store, however often they repeat."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from tests.support.core import Core

from fediwarden.errors import Gone, Lost, Unreached
from fediwarden.ledger import Listed
from fediwarden.model import ObjectRef
from fediwarden.pipeline import DOWN_AFTER, Spread, conclude, doubtful
from fediwarden.stores.memory import MemoryStore


def many(count: int) -> dict[str, bytes]:
    return {f"{number:05}": f"dark {number}".encode() for number in range(count)}


def fails(key: str, error: Exception) -> Callable[[str, str], None]:
    """A bad day for one key."""

    def before(step: str, of: str) -> None:
        if step == "fetch" and of == key:
            raise error

    return before


class Apart(MemoryStore):
    """Lists from elsewhere than where its files lie, as pict-rs does; "prove" is a step of its own."""

    def prove(self, ref: ObjectRef) -> None:
        self._step("prove", ref.key)


def away(asked: list[str], error: Exception | None = None) -> Callable[[str, str], None]:
    """The files are not there any more; what they were asked for by."""

    def before(step: str, key: str) -> None:
        if step in ("fetch", "prove"):
            asked.append(f"{step} {key}")
            raise error or Lost("pict-rs knows it, and its file is not there")

    return before


def emptied(core: Core) -> dict[str, bytes]:
    """Take everything out of the store, as when a disk is not mounted; what it was."""
    held = core.store.objects
    for key in held:
        core.store.delete(key)
    return held


@pytest.mark.parametrize(
    ("listed", "accepted", "missing", "doubted"),
    [
        (0, 1, 1, True),  # nothing, where there was something
        (0, 0, 5, False),  # nothing was ever there
        (20, 41, 21, True),  # less than half
        (21, 41, 20, False),
        (50, 41, 41, True),  # something else altogether, however much it is
        (41, 41, 38, True),
        (41, 41, 36, False),
        (0, 41, 0, False),  # nothing is missing: all of it was hidden by us
    ],
)
def test_a_listing_is_believed_or_not_by_what_the_last_one_held(listed: int, accepted: int, missing: int, doubted: bool) -> None:
    assert doubtful(listed, accepted, missing) is doubted


def test_a_store_that_lists_nothing_has_lost_nothing_however_often_it_says_so() -> None:
    core = Core(MemoryStore("memory", {**many(40), "x": b"bad"}))
    core.scan()
    before = core.store._objects.copy()
    emptied(core)

    for _ in range(3):
        tally = core.scan()
        core.clock.turn(days=1)

    doubt = tally.doubts[core.store.name]
    assert (doubt.listed, doubt.accepted, doubt.missing) == (0, 41, 41)
    assert "nothing is taken for gone" in str(tally.stores_down[core.store.name])
    assert [owed.ref.key for owed in core.ledger.owed()] == ["x"]
    assert not any(entry.gone for entry in core.ledger.entries())
    assert [doubt.since for doubt in core.ledger.watching.doubts()] == [core.clock.now - timedelta(days=3)]
    core.store._objects.update(before)  # the disk is mounted again
    assert core.scan().doubts == {}
    assert core.ledger.watching.doubts() == []


def test_a_store_that_was_begun_anew_and_fills_up_has_lost_nothing() -> None:
    core = Core(MemoryStore("memory", many(40)))
    core.scan()
    emptied(core)
    core.scan()
    for number in range(60):
        core.store.put(f"new {number}", b"dark %d" % number)

    tally = core.scan()

    assert tally.doubts[core.store.name].missing == 40
    assert tally.seen == 60  # what is there is looked at all the same
    assert not any(entry.gone for entry in core.ledger.entries())


def test_a_person_s_word_ends_the_doubt_for_this_run_and_is_held_to_afterwards() -> None:
    core = Core(MemoryStore("memory", many(40)))
    core.scan()
    for key in list(core.store.objects)[5:]:
        core.store.delete(key)
    core.scan()

    tally = core.scan(accept_gone=True)

    assert tally.accepted[core.store.name].missing == 35
    assert tally.stores_down == {}
    assert sum(entry.gone for entry in core.ledger.entries()) == 35
    assert core.scan().doubts == {}


def test_an_ordinary_loss_is_noted_as_gone_as_ever() -> None:
    core = Core(MemoryStore("memory", many(40)))
    core.scan()
    for key in list(core.store.objects)[:15]:
        core.store.delete(key)

    tally = core.scan()

    assert tally.doubts == {}
    assert sum(entry.gone for entry in core.ledger.entries()) == 15


def test_a_ledger_that_never_remembered_a_listing_doubts_by_what_was_looked_at() -> None:
    core = Core(MemoryStore("memory", many(40)))
    core.scan()
    core.ledger.watching.remember(f"listing {core.store.name}", {}, core.clock())
    emptied(core)

    assert core.scan().doubts[core.store.name].missing == 40


def test_what_a_doubted_store_does_not_hand_out_is_not_gone_either() -> None:
    core = Core(MemoryStore("memory", {**many(40), "late": b"dark"}))
    core.store.before = fails("late", Unreached("busy"))
    core.scan()
    before = core.store._objects.copy()
    emptied(core)
    core.scan()
    core.store._objects["late"] = before["late"]
    core.store.before = fails("late", Gone("not there"))

    tally = core.scan()

    assert (tally.gone, tally.unreached) == (0, 1)


def test_what_we_hid_ourselves_is_not_missed() -> None:
    core = Core(MemoryStore("memory", many(3)))
    core.scan()
    run = core.begun()
    core.ledger.watching.remember_listed(core.store.name, Listed(10, run), core.clock())

    found = conclude(core.ledger, core.begun(), core.store.name, 2, core.clock(), accounted=8)

    assert found.doubt is None  # eight of ten were left to another store


def test_a_store_that_has_lost_one_file_after_the_other_is_said_to_and_asked_no_more() -> None:
    core = Core(MemoryStore("memory", many(200)))
    asked: list[str] = []

    def lost(step: str, key: str) -> None:
        if step == "fetch":
            asked.append(key)
            raise Lost("pict-rs knows it, and its file is not there")

    core.store.before = lost
    tally = core.scan()

    assert "their files are not there" in str(tally.stores_down[core.store.name])
    assert (tally.gone, tally.unreached) == (0, tally.listed)
    assert len(asked) < DOWN_AFTER + 20


def test_files_lost_side_by_side_end_no_scan_of_the_others() -> None:
    core = Core(MemoryStore("memory", many(100)))
    first: list[ObjectRef] = [ref for page in core.store.list() for ref in page]

    def lost(step: str, key: str) -> None:
        if step == "fetch" and key in {ref.key for ref in first[30:60]}:
            raise Lost("pict-rs knows it, and its file is not there")

    core.store.before = lost
    tally = core.scan()

    assert (tally.seen, tally.unreached, tally.stores_down) == (70, 30, {})


def test_a_store_whose_files_went_away_is_down_though_it_lists_everything_unchanged() -> None:
    core = Core(Apart("memory", many(30)))
    core.scan()
    asked: list[str] = []
    core.store.before = away(asked)

    tally = core.scan()

    assert tally.skipped == 30
    assert str(tally.stores_down[core.store.name]) == "memory: pict-rs lists its objects and cannot read their files"
    assert asked == ["prove 00029", "prove 00015", "prove 00000"]


def test_a_store_that_does_not_hand_out_what_it_lists_is_down_with_its_own_words() -> None:
    core = Core(Apart("memory", many(2)))
    core.scan()
    core.store.before = away([], Unreached("it is broken"))

    down = core.scan().stores_down[core.store.name]

    assert "hands none of them out: it is broken" in str(down)


def test_one_old_file_that_can_be_read_speaks_for_the_store() -> None:
    core = Core(Apart("memory", many(30)))
    core.scan()
    asked: list[str] = []
    lost = away(asked)

    core.store.before = lambda step, key: None if key == "00015" else lost(step, key)
    assert core.scan().stores_down == {}
    assert asked == ["prove 00029"]


@pytest.mark.parametrize(("count", "down"), [(1, False), (2, True), (30, True)])
def test_new_files_that_can_be_read_do_not_speak_for_the_old_ones(count: int, down: bool) -> None:
    core = Core(Apart("memory", many(count)))
    core.scan()
    core.store.put("new", b"dark, new")
    lost = away([])
    core.store.before = lambda step, key: None if step == "fetch" else lost(step, key)

    tally = core.scan()

    assert tally.fetched == 1
    assert ["not those that it had before" in str(problem) for problem in tally.stores_down.values()] == [True] * down


@pytest.mark.parametrize(("count", "again"), [(10, True), (3, False), (1, False)])
def test_a_small_store_that_has_lost_all_it_was_asked_for_is_down(count: int, again: bool) -> None:
    core = Core(Apart("memory", many(count)))
    if again:
        core.scan()
    core.store.before = away([])

    tally = core.scan(again=again)

    assert "cannot read their files" in str(tally.stores_down[core.store.name])
    assert tally.unreached == count


def test_new_files_that_are_lost_by_themselves_are_no_word_about_the_store() -> None:
    core = Core(Apart("memory", many(5)))
    core.scan()
    lost = away([])
    core.store.before = lambda step, key: lost(step, key) if key.startswith("new") else None
    for number in range(4):
        core.store.put(f"new {number}", b"dark, new %d" % number)

    tally = core.scan()

    assert (tally.unreached, tally.stores_down) == (4, {})


@pytest.mark.parametrize(
    ("count", "places"), [(0, []), (1, [0]), (2, [0, 1]), (3, [0, 1, 2]), (16, [0, 7, 15]), (1000, [0, 511, 999])]
)
def test_three_objects_of_a_listing_are_remembered_however_long_it_is(count: int, places: list[int]) -> None:
    spread = Spread()
    refs = [ref for page in MemoryStore("memory", many(count)).list() for ref in page]

    spread.add(refs[:7])
    spread.add(refs[7:])

    assert spread.refs == [refs[place] for place in places]
