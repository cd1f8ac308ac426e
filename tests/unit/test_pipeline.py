"""One object's way through real threads, a real ledger and a store in memory: what adds up, what stops, what never does."""

import random
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from threading import Event, Lock

import pytest
from structlog.testing import capture_logs
from tests.support.core import PACE, POLICY, Core, Opener, adds_up, nothing

from fediwarden.errors import CannotWrite, FediwardenError, Gone, Misconfigured, Refused, Unreached
from fediwarden.ledger import Ledger
from fediwarden.model import (
    Answer,
    Blob,
    Decision,
    EngineVersion,
    Finding,
    Frame,
    Look,
    ObjectRef,
    Reason,
    RunId,
    Sha256,
    Standing,
    Step,
    StoreName,
)
from fediwarden.pipeline import DOWN_AFTER, Bytes, Pace, Tally, estimate, rejudge
from fediwarden.policy import parse
from fediwarden.stores.interface import PAGE
from fediwarden.stores.memory import MemoryStore


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Events are collected instead of drawn on a terminal."""
    with capture_logs():
        yield


def many(count: int, content: str = "dark") -> dict[str, bytes]:
    return {f"{number:05}": f"{content} {number}".encode() for number in range(count)}


def fails(*keys: str, step: str = "fetch", error: Exception) -> Callable[[str, str], None]:
    """A bad day for some keys; for all of them where none is named."""

    def before(now: str, key: str) -> None:
        if now == step and (not keys or key in keys):
            raise error

    return before


# -- adding up -------------------------------------------------------------------------------------------------------------


def test_every_object_listed_is_in_exactly_one_number() -> None:
    core = Core(MemoryStore("memory", {"old": b"dark old"}))
    core.scan()
    for key, data in {"a": b"bad", "b": b"hmm", "c": b"broken", "d": b"partly", "e": b"odd", "lost": b"x", "away": b"y"}.items():
        core.store.put(key, data)

    def before(step: str, key: str) -> None:
        if step == "fetch" and key == "lost":
            core.store.delete(key)
        if step == "fetch" and key == "away":
            raise Unreached("no answer")

    core.store.before = before
    tally = core.scan()

    assert (tally.listed, tally.skipped, tally.seen, tally.broken) == (8, 1, 4, 1)
    assert (tally.gone, tally.unreached, tally.partly, tally.not_scanned) == (1, 1, 1, 3)
    assert (tally.flagged, tally.review, tally.passed) == (2, 1, 1)
    assert core.entry("away").lacking == "unreached"
    assert core.entry("lost").gone


@pytest.mark.parametrize("seed", range(8))
def test_the_numbers_add_up_and_nothing_is_forgotten_whatever_happens_to_each_object(seed: int) -> None:
    chance = random.Random(seed)
    core = Core()
    fates = {}
    for number in range(chance.randrange(1, 400)):
        key = f"{number}"
        fates[key] = chance.choice(["seen", "seen", "broken", "gone", "unreached", "odd error", "bad", "partly"])
        core.store.put(key, f"{fates[key] if fates[key] in ('broken', 'bad', 'partly') else 'dark'} {number % 50}".encode())

    def before(step: str, key: str) -> None:
        if step != "fetch":
            return
        match fates[key]:
            case "gone":
                core.store.delete(key)
            case "unreached":
                raise Unreached("no answer")
            case "odd error":
                raise RuntimeError("nobody foresaw this")
            case _:
                pass

    core.store.before = before
    first = core.scan(pace=Pace(workers=2, fetchers=3, in_flight=100, settle_seconds=0.01))
    expected = Counter(fates.values())

    assert first.listed == len(fates)
    assert first.gone == expected["gone"]
    assert first.broken == expected["broken"]
    assert first.unreached == expected["unreached"] + expected["odd error"]
    assert first.seen == expected["seen"] + expected["bad"] + expected["partly"]
    assert first.flagged == expected["bad"]
    assert first.partly == expected["partly"]
    core.store.before = None
    second = core.scan()
    assert second.skipped == first.seen + first.broken
    assert second.seen + second.broken == first.unreached
    third = core.scan()
    assert third.skipped == third.listed


# -- once ------------------------------------------------------------------------------------------------------------------


def test_identical_bytes_met_at_the_same_time_are_analysed_once_and_every_name_is_decided() -> None:
    core = Core(MemoryStore("memory", {f"{number}": b"bad twin" for number in range(200)}))
    core.opener = Opener(before=lambda _: time.sleep(0.05))

    tally = core.scan(pace=Pace(workers=8, fetchers=8, settle_seconds=0.01))

    assert len(core.opener.opened) == 1
    assert (tally.seen, tally.flagged) == (200, 200)
    assert len({owed.ref.key for owed in core.ledger.owed()}) == 200


def test_identical_bytes_that_could_not_be_seen_are_unreached_under_every_name_and_tried_again() -> None:
    core = Core(MemoryStore("memory", {f"{number}": b"twin" for number in range(20)}))

    def no_answer(_: Blob) -> None:
        time.sleep(0.02)
        raise Unreached("the decoder was killed from outside")

    core.opener = Opener(before=no_answer)
    first = core.scan()
    core.opener = Opener()

    assert (first.unreached, first.seen) == (20, 0)
    assert core.scan().seen == 20


def test_an_unchanged_store_is_settled_without_fetching() -> None:
    core = Core(MemoryStore("memory", many(50)))
    core.scan()
    core.store.before = fails(error=AssertionError("an unchanged object was fetched"))

    assert core.scan().skipped == 50


def test_a_new_engine_looks_at_everything_again_and_so_does_who_asks_for_it() -> None:
    core = Core(MemoryStore("memory", many(5)))
    core.scan()
    assert core.scan(again=True).seen == 5
    core.engine = "2"
    assert core.scan().seen == 5
    assert len(core.opener.opened) == 15


# -- one odd object never stops the others -----------------------------------------------------------------------------------


def test_a_reader_that_breaks_for_one_object_leaves_it_unsettled_and_goes_on() -> None:
    core = Core(MemoryStore("memory", many(40)))
    core.store.before = fails("00007", error=ValueError("embedded null byte"))
    tally = core.scan()

    assert (tally.seen, tally.unreached) == (39, 1)
    assert core.entry("00007").look is not None
    assert core.entry("00007").decision is None
    core.store.before = None
    assert core.scan().seen == 1


def test_an_analyser_that_breaks_for_one_object_leaves_it_unsettled_and_goes_on() -> None:
    core = Core(MemoryStore("memory", {**many(40), "odd": b"bad"}))

    class Breaks:
        name = "breaks"
        version = "1"

        def analyse(self, frames: Sequence[Frame]) -> list[Finding]:
            if any(frame.rgb[0] == 255 for frame in frames):
                raise IndexError("nobody foresaw this")
            return []

    core.analysers = [Breaks()]
    tally = core.scan()

    assert (tally.seen, tally.unreached, tally.flagged) == (40, 1, 0)
    assert core.entry("odd").lacking == "unreached"


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_an_answer_that_is_no_number_never_passes_for_nothing_found(score: float) -> None:
    core = Core(MemoryStore("memory", {"a": b"dark"}))

    @dataclass
    class Answers:
        found: Finding
        name = "answers"
        version = "1"

        def analyse(self, frames: Sequence[Frame]) -> list[Finding]:
            return [self.found for _ in frames]

    for found in (Finding("exposed", score, "x", "1"), Finding("face", 0.9, "x", "1", measures={"age": score})):
        core.analysers = [Answers(found)]
        tally = core.scan()
        assert (tally.unreached, tally.passed) == (1, 0)


def test_an_object_of_which_no_view_was_given_is_broken_and_not_passed() -> None:
    core = Core(MemoryStore("memory", {"a": b"blind"}))
    tally = core.scan()

    assert (tally.seen, tally.broken, tally.passed, tally.not_scanned) == (0, 1, 0, 1)
    look = core.entry("a").look
    assert look is not None
    assert look.reason is Reason.MALFORMED


def test_broken_objects_are_neither_passed_nor_accused_and_settled() -> None:
    core = Core(MemoryStore("memory", {"a": b"broken"}))
    tally = core.scan()

    assert (tally.broken, tally.passed, tally.flagged, tally.review) == (1, 0, 0, 0)
    assert core.entry("a").lacking == "broken: truncated"
    assert core.scan().skipped == 1
    assert list(core.ledger.owed()) == []


# -- stores that are away ------------------------------------------------------------------------------------------------------


def test_a_store_that_goes_down_in_the_middle_is_left_alone_and_nothing_counts_as_gone() -> None:
    core = Core(MemoryStore("memory", {**many(300), "zzz": b"here"}))
    core.scan()
    for key in many(300):
        core.store.put(key, b"new " + key.encode())
    core.store.delete("zzz")
    asked: list[str] = []

    def before(step: str, key: str) -> None:
        if step == "fetch":
            asked.append(key)
            if len(asked) > 30:
                raise Unreached("no answer")

    core.store.before = before
    tally = core.scan()

    assert tally.stores_down.keys() == {"memory"}
    assert tally.seen >= 30 - PACE.fetchers
    assert tally.unreached == 300 - tally.seen
    assert len(asked) < 30 + DOWN_AFTER + 2 * PACE.fetchers
    assert not core.entry("zzz").gone
    core.store.before = None
    after = core.scan()
    assert after.seen == tally.unreached
    assert core.entry("zzz").gone


@pytest.mark.parametrize("known", [True, False])
def test_objects_that_no_server_hands_out_never_end_the_scan_of_the_others(known: bool) -> None:
    """Whoever may name objects could otherwise put a row of them in front of what must not be found."""
    core = Core(MemoryStore("memory", {"a": b"dark"}))
    if known:
        core.scan()
    poison = {f"b{number:04}": b"poison" for number in range(3 * DOWN_AFTER)}
    for key, data in {**poison, **{f"c{number}": f"bad {number}".encode() for number in range(20)}}.items():
        core.store.put(key, data)
    core.store.before = fails(*poison, error=Unreached("500 Internal Server Error"))
    tally = core.scan(pace=replace(PACE, fetchers=1))

    assert (tally.flagged, tally.unreached) == (20, len(poison))
    assert tally.stores_down == {}


def test_a_listing_that_breaks_off_marks_nothing_as_gone_and_its_objects_stand() -> None:
    core = Core(MemoryStore("memory", many(PAGE + 10)))
    core.scan()
    core.store.delete("00003")
    core.store.put("00004", b"bad")
    pages: list[str] = []

    def before(step: str, _: str) -> None:
        if step == "list":
            pages.append(step)
            if len(pages) == 2:
                raise Unreached("no answer")

    core.store.before = before
    tally = core.scan()

    assert tally.flagged == 1
    assert tally.stores_down.keys() == {"memory"}
    assert not core.entry("00003").gone
    core.store.before = None
    core.scan()
    assert core.entry("00003").gone


def test_a_reader_that_lists_a_part_only_marks_nothing_as_gone() -> None:
    core = Core(MemoryStore("memory", many(3)))
    core.scan()
    core.store.delete("00001")
    core.scan(partial=True)

    assert not core.entry("00001").gone


@pytest.mark.parametrize("error", [Unreached("no answer"), Refused("no such bucket"), RuntimeError("nobody foresaw this")])
def test_a_store_that_cannot_be_listed_does_not_keep_the_next_from_being_scanned(error: Exception) -> None:
    core = Core()
    away = MemoryStore("away", many(3), before=fails(step="list", error=error))
    here = MemoryStore("here", many(4))
    tally = core.scan(away, here)

    assert tally.stores_down.keys() == {"away"}
    assert (tally.listed, tally.seen) == (4, 4)


# -- young objects ---------------------------------------------------------------------------------------------------------------


def test_an_object_still_being_written_is_looked_at_again_at_the_end_as_it_is_then() -> None:
    core = Core(MemoryStore("memory", many(5)))
    core.store.put("young", b"ba", settled=False)

    def progress(tally: Tally) -> None:
        if tally.seen == 5 and not core.store.objects["young"].endswith(b"d"):
            core.store.put("young", b"bad, whole and longer than it was listed")

    tally = core.scan(progress=progress)
    assert (tally.seen, tally.unreached, tally.flagged) == (6, 0, 1)


def test_an_object_that_is_never_finished_or_vanishes_meanwhile_is_counted_as_such() -> None:
    core = Core(MemoryStore("memory", many(2)))
    core.store.put("forever", b"dark", settled=False)
    core.store.put("vanishes", b"dark", settled=False)

    def progress(tally: Tally) -> None:
        if tally.seen == 2:
            core.store.delete("vanishes")

    tally = core.scan(progress=progress)
    assert (tally.seen, tally.unreached, tally.gone) == (2, 1, 1)


# -- memory ------------------------------------------------------------------------------------------------------------------------


def test_fetched_bytes_never_exceed_what_may_be_in_flight() -> None:
    contents = {f"{number}": f"{number:0100}".encode() for number in range(200)}
    lock = Lock()
    held = peak = 0

    def change(by: int) -> None:
        nonlocal held, peak
        with lock:
            held += by
            peak = max(peak, held)

    core = Core(MemoryStore("memory", contents))
    core.store.before = lambda step, key: change(len(contents[key])) if step == "fetch" else None
    core.opener = Opener(after=lambda blob: change(-len(blob.data)))
    tally = core.scan(pace=Pace(workers=2, fetchers=8, in_flight=350))

    assert tally.seen == 200
    assert 100 <= peak <= 350
    assert held == 0


def test_an_object_larger_than_all_that_may_be_in_flight_passes_alone() -> None:
    core = Core(MemoryStore("memory", {"large": b"bad" + b"." * 5000, **many(20)}))

    assert core.scan(pace=replace(PACE, in_flight=100)).seen == 21


@dataclass
class Listed:
    """Lists a store as it was when this was made, and notes with which limit objects are fetched."""

    store: MemoryStore
    pages: list[Sequence[ObjectRef]] = field(default_factory=list)
    limits: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pages = list(self.store.list())

    @property
    def name(self) -> StoreName:
        return self.store.name

    @property
    def requests(self) -> int:
        return self.store.requests

    def list(self) -> Iterator[Sequence[ObjectRef]]:
        yield from self.pages

    def stat(self, key: str) -> ObjectRef:
        return self.store.stat(key)

    def fetch(self, ref: ObjectRef, limit: int) -> Blob:
        self.limits.append((ref.size, limit))
        return self.store.fetch(ref, limit)

    def close(self) -> None:
        """Nothing to give back."""


def test_an_object_that_grew_after_it_was_listed_gets_room_for_what_it_is_now() -> None:
    core = Core(MemoryStore("memory", {"grows": b"."}))
    listed = Listed(core.store)
    core.store.put("grows", b"bad" + b"." * 9000)
    tally = core.scan(listed)

    assert tally.flagged == 1
    assert all(limit <= size for size, limit in listed.limits)


def test_an_object_too_large_is_broken_settled_and_looked_at_when_more_is_allowed() -> None:
    core = Core(MemoryStore("memory", {"large": b"bad" + b"." * 500}))
    small, large = replace(PACE, object_limit=100), replace(PACE, object_limit=1000)
    first = core.scan(pace=small)

    assert (first.broken, first.not_scanned) == (1, 1)
    assert core.entry("large").lacking == "broken: too large"
    assert core.scan(pace=small).skipped == 1
    assert core.scan(pace=large).flagged == 1
    assert core.scan(pace=large).skipped == 1


def test_room_is_given_back_to_whoever_waits_and_a_stopped_run_waits_no_longer() -> None:
    room, stop = Bytes(10), Event()
    assert room.take(25, stop) == 10
    stop.set()
    assert room.take(1, stop) is None
    room.give(10)
    assert room.take(1, stop) == 1


# -- ends ------------------------------------------------------------------------------------------------------------------------


def test_a_run_that_is_stopped_ends_at_once_records_what_is_finished_and_loses_nothing() -> None:
    core = Core(MemoryStore("memory", many(500)))
    release = Event()

    def slow(_: Blob) -> None:
        if len(core.opener.opened) > 50:
            release.wait(30)

    core.opener = Opener(before=slow)
    scan = core.prepared()
    asked = 0.0

    def progress(tally: Tally) -> None:
        nonlocal asked
        if tally.seen >= 40 and not asked:
            asked = time.monotonic()
            scan.stop()

    tally = scan.run(core.begun(), [core.store], progress)
    took = time.monotonic() - asked
    release.set()

    assert took < 5
    adds_up(tally)
    assert tally.seen >= 40
    assert tally.not_scanned == tally.listed - tally.seen
    recorded = [entry for entry in core.ledger.entries() if entry.standing is Standing.SEEN]
    assert len(recorded) == tally.seen
    core.opener = Opener()
    after = core.scan()
    assert (after.skipped, after.seen) == (tally.seen, 500 - tally.seen)


def test_an_interruption_is_passed_on_after_what_was_finished_is_recorded() -> None:
    core = Core(MemoryStore("memory", many(200)))
    scan = core.prepared()

    def progress(tally: Tally) -> None:
        if tally.seen >= 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan.run(core.begun(), [core.store], progress)

    adds_up(scan.tally)
    assert sum(entry.standing is Standing.SEEN for entry in core.ledger.entries()) == scan.tally.seen >= 20
    assert core.scan().seen == 200 - scan.tally.seen


class Full(Ledger):
    """A ledger whose disk is full from some call on."""

    full: str = ""

    def _check(self, name: str) -> None:
        if name == self.full:
            raise CannotWrite("cannot write the ledger: the disk is full", hint="free some space")

    def settle(self, run: RunId, refs: Sequence[ObjectRef], engine: EngineVersion, limit: int = 0) -> set[str]:
        self._check("settle")
        return super().settle(run, refs, engine, limit)

    def record(self, run: RunId, entries: Sequence[tuple[Look, Decision | None]], answers: Sequence[Answer] = ()) -> None:
        self._check("record")
        super().record(run, entries, answers)

    def known(self, sha256: Sha256, engine: EngineVersion) -> Look | None:
        self._check("known")
        return super().known(sha256, engine)

    def swept(self, run: RunId, store: StoreName, at: datetime | None = None) -> int:
        self._check("swept")
        return super().swept(run, store, at)


@pytest.mark.parametrize("full", ["settle", "record", "known", "swept"])
def test_a_ledger_that_fails_under_any_thread_ends_the_run_with_that_error_and_soon(full: str) -> None:
    ledger = Full.open(":memory:")
    core = Core(MemoryStore("memory", many(100)), ledger)
    ledger.full = full
    started = time.monotonic()

    with pytest.raises(CannotWrite, match="disk is full"):
        core.scan()
    assert time.monotonic() - started < 10
    ledger.full = ""
    after = core.scan()
    assert after.listed == 100
    assert core.scan().skipped == 100


def test_a_ledger_damaged_under_a_run_ends_it_with_a_clear_error(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path / "ledger.sqlite3")
    core = Core(MemoryStore("memory", many(100)), ledger)

    def damage(_: Blob) -> None:
        if len(core.opener.opened) == 1:
            with sqlite3.connect(tmp_path / "ledger.sqlite3", timeout=10) as other:
                other.execute("DROP TABLE findings")
            other.close()

    core.opener = Opener(before=damage)
    with pytest.raises(FediwardenError, match="ledger"):
        core.scan()
    ledger.close()


# -- deciding again ------------------------------------------------------------------------------------------------------------------


def test_a_new_policy_decides_everything_again_without_opening_anything() -> None:
    core = Core(MemoryStore("memory", {"a": b"bad", "b": b"odd", "c": b"hmm", "d": b"dark", "e": b"broken"}))
    core.scan()
    opened = len(core.opener.opened)
    core.store.before = fails(error=AssertionError("fetched"))
    stricter = parse(POLICY.replace('step = "review"', 'step = "quarantine"\nrank = 95'), "stricter")
    tally = rejudge(core.ledger, core.begun("rejudge"), stricter)

    assert (tally.listed, tally.flagged, tally.passed) == (5, 3, 1)
    assert [owed.ref.key for owed in core.ledger.owed()] == ["c", "a", "b"]
    assert len(core.opener.opened) == opened
    assert rejudge(core.ledger, core.begun("rejudge"), stricter).listed == 0


def test_a_person_s_word_stands_over_every_policy_and_every_later_look() -> None:
    core = Core(MemoryStore("memory", {"a": b"bad", "b": b"bad"}))
    core.scan()
    core.ledger.clear(
        core.begun("restore"), core.entry("a").sha256 or Sha256(""), Decision(Step.PASS, "a person", "a cat", by="ada")
    )
    core.store.put("c", b"bad")
    core.engine = "2"
    core.scan()
    rejudge(core.ledger, core.begun(), parse(POLICY + "#", "another"))

    assert list(core.ledger.owed()) == []
    decision = core.entry("c").decision
    assert decision is not None
    assert decision.by == "ada"


# -- before a first pass ---------------------------------------------------------------------------------------------------------------


def test_an_estimate_adds_up_and_fetches_nothing() -> None:
    store = MemoryStore("memory", many(PAGE + 5), before=fails(error=AssertionError("fetched")))
    found = estimate(store)

    assert found.objects == PAGE + 5
    assert found.bytes == sum(map(len, store.objects.values()))
    assert (found.listing_requests, found.requests) == (2, 2 + PAGE + 5)


def test_an_object_that_vanishes_before_the_second_look_at_it_is_gone_and_not_an_error() -> None:
    core = Core(MemoryStore("memory", {"a": b"dark"}))
    core.store.before = fails("a", error=Gone("not there"))
    tally = core.scan(progress=nothing)

    assert (tally.gone, tally.not_scanned) == (1, 0)


def test_an_object_that_is_listed_again_and_again_and_never_handed_out_is_not_scanned_rather_than_gone() -> None:
    core = Core(MemoryStore("memory", {"a/../b": b"bad"}))
    core.store.before = fails("a/../b", error=Gone("the server normalises such names"))
    assert core.scan().gone == 1

    for _ in range(3):
        tally = core.scan()
        assert (tally.gone, tally.unreached, tally.not_scanned) == (0, 1, 1)
    assert core.entry("a/../b").not_scanned
    core.store.delete("a/../b")
    core.scan(accept_gone=True)
    assert core.entry("a/../b").gone


def test_an_object_deleted_twice_under_one_name_is_gone_both_times() -> None:
    core = Core(MemoryStore("memory", {"a": b"dark"}))
    for _ in range(2):
        core.store.before = lambda step, key: core.store.delete(key) if step == "fetch" else None
        assert core.scan().gone == 1
        core.store.put("a", b"dark")


def test_a_second_listing_that_fails_costs_the_estimate_only() -> None:
    core = Core(MemoryStore("memory", many(60)))
    core.opener = Opener(before=lambda _: time.sleep(0.3 if len(core.opener.opened) < 4 else 0))
    listings: list[str] = []

    def before(step: str, _: str) -> None:
        if step == "list":
            listings.append(step)
            if len(listings) > 1:
                raise RuntimeError("closed under it")

    core.store.before = before
    tally = core.scan(pace=Pace(workers=1, fetchers=1))
    assert (tally.seen, tally.expected, len(listings)) == (60, 0, 2)


def test_a_size_that_no_object_has_neither_makes_room_nor_keeps_the_object_from_being_seen() -> None:
    core = Core(MemoryStore("memory", {"a": b"bad"}))
    listed = Listed(core.store)
    listed.pages = [[replace(listed.pages[0][0], size=-(10**12))]]

    assert core.scan(listed).flagged == 1
    room = Bytes(10)
    assert room.take(-5, Event()) == 0


def test_a_setting_that_breaks_the_cage_in_the_middle_settles_nothing() -> None:
    core = Core(MemoryStore("memory", many(3)))

    def broken(_: Blob) -> None:
        raise Misconfigured("the preloaded process of the cage does not start")

    core.opener = Opener(before=broken)
    assert core.scan().unreached == 3
