"""One upload's way: looked at once, recorded before it passes, answered in time, and a debt wherever it was not seen."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event, Timer
from typing import Any

import pytest
from tests.support.core import Core
from tests.support.gates import ENGINE, PICTRS, Yard, a_gate, named

from fediwarden.errors import CannotWrite, Lost, Unreached
from fediwarden.ledger import GATE, Doubt, Listed
from fediwarden.model import (
    Act,
    Answer,
    AnswerReason,
    Blob,
    Decision,
    DeedEvent,
    DeedState,
    ObjectRef,
    Step,
)
from fediwarden.platforms.pictrs.hashes import Hash
from fediwarden.policy import decide
from fediwarden.stores.memory import MemoryStore

GOOD, BAD, GREY, BROKEN = b"good", b"bad", b"hmm", b"broken"


def key(data: bytes, format: int = 7) -> str:
    return Hash.of(data, format).hex


def test_what_nothing_speaks_against_passes_and_is_an_object_of_its_store(tmp_path: Path) -> None:
    with a_gate(tmp_path) as yard:
        assert yard.asked(GOOD, GREY) == [True, True]

        (answer,) = yard.answers(GOOD)
        assert (answer.passed, answer.why, answer.debt) == (True, AnswerReason.LOOKED, False)
        entry = yard.core.ledger.entry(PICTRS, key(GOOD))
        assert entry is not None
        assert (entry.gone, entry.sha256) == (False, named(GOOD))
        assert yard.core.ledger.settle(yard.core.begun(), [entry.ref], ENGINE) == {key(GOOD)}


def test_what_is_suspected_is_sealed_then_refused_and_never_owed(tmp_path: Path) -> None:
    with a_gate(tmp_path) as yard:
        assert yard.asked(BAD) == [False]

        (answer,) = yard.answers(BAD)
        assert (answer.passed, answer.why, answer.sealed) == (False, AnswerReason.LOOKED, True)
        assert yard.vaults.evidence.check(named(BAD))
        assert list(yard.core.ledger.owed()) == []
        entry = yard.core.ledger.entry(GATE, key(BAD))
        assert entry is not None
        assert entry.gone
        assert yard.core.ledger.entry(PICTRS, key(BAD)) is None


def test_known_bytes_are_looked_at_once_and_answered_from_the_ledger(tmp_path: Path) -> None:
    with a_gate(tmp_path) as yard:
        for _ in range(3):
            assert yard.asked(GOOD, BAD) == [True, False]

        assert sorted(yard.core.opener.opened) == sorted([named(GOOD), named(BAD)])
        assert [answer.why for answer in yard.answers(BAD)] == [AnswerReason.LOOKED, AnswerReason.KNOWN, AnswerReason.KNOWN]
        assert [answer.sealed for answer in yard.answers(BAD)] == [True, True, True]


def test_a_known_refusal_takes_as_long_as_a_new_picture(tmp_path: Path) -> None:
    with a_gate(tmp_path) as yard:
        assert yard.asked(BAD) == [False]
        yard.gate.desk._durations.extend([0.4] * 9)
        began = time.monotonic()

        assert yard.asked(BAD) == [False]
        assert time.monotonic() - began >= 0.4
        began = time.monotonic()
        yard.asked(GOOD)
        assert yard.asked(GOOD) == [True]
        assert time.monotonic() - began < 0.4


def test_the_same_bytes_in_flight_are_analysed_once_for_all(tmp_path: Path) -> None:
    with a_gate(tmp_path, slow=True) as yard:
        Timer(0.3, yard.hold.set).start()

        assert yard.asked(*[BAD] * 8, *[GOOD] * 8) == [False] * 8 + [True] * 8
        assert len(yard.core.opener.opened) == 2


def test_a_late_upload_passes_as_a_debt_in_time_and_is_looked_at_next(tmp_path: Path) -> None:
    with a_gate(tmp_path, slow=True, deadline_seconds=1.5) as yard:
        began = time.monotonic()
        assert yard.asked(GOOD, BAD) == [True, True]
        assert time.monotonic() - began < 1.5
        assert {(debt.sha256, debt.why, debt.ref.key) for debt in yard.debts} == {
            (named(GOOD), AnswerReason.LATE, key(GOOD)),
            (named(BAD), AnswerReason.LATE, key(BAD)),
        }

        yard.hold.set()
        _until(lambda: not yard.debts)
        assert [owed.ref.key for owed in yard.core.ledger.owed()] == [key(BAD)]
        assert yard.asked(BAD) == [False]  # known by now


@pytest.mark.parametrize("why", ["late", "busy", "large", "broken", "failed"])
def test_what_cannot_be_looked_at_is_refused_where_the_settings_say_so(tmp_path: Path, why: str) -> None:
    with _unable(tmp_path, why, **{why: "refuse"}) as (yard, data):
        assert yard.asked(data) == [False]
        (answer,) = yard.answers(data)
        assert (answer.why.value, answer.debt, answer.passed) == (why, False, False)
        assert yard.debts == []


@pytest.mark.parametrize("why", ["late", "busy", "large", "broken", "failed"])
def test_what_cannot_be_looked_at_is_a_debt_where_the_settings_say_so(tmp_path: Path, why: str) -> None:
    with _unable(tmp_path, why, **{why: "debt"}) as (yard, data):
        assert yard.asked(data) == [True]
        assert [(debt.sha256, debt.why.value) for debt in yard.debts if debt.sha256 == named(data)] == [(named(data), why)]
        assert yard.totals.debts_broken == int(why == "broken")


def test_videos_may_be_treated_otherwise(tmp_path: Path) -> None:
    with a_gate(tmp_path, videos="refuse", broken="debt") as yard:
        assert yard.asked(BROKEN, claimed="video/mp4") == [False]
        assert yard.asked(BROKEN + b"2", claimed="image/jxl") == [True]


def test_a_debt_that_cannot_be_decoded_stays_and_is_not_doubled(tmp_path: Path) -> None:
    with a_gate(tmp_path) as yard:
        for _ in range(3):
            assert yard.asked(BROKEN) == [True]
        (debt,) = yard.debts
        assert debt.broken
        assert len(yard.answers(BROKEN)) == 3
        assert len(yard.core.opener.opened) == 1


def test_a_ledger_that_takes_nothing_lets_nothing_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with a_gate(tmp_path) as yard:

        def full(*_: object) -> None:
            raise CannotWrite("cannot write the ledger: the disk is full")

        monkeypatch.setattr(yard.gate.recorder, "_record", full)
        assert yard.asked(GOOD, BAD, BROKEN) == [False, False, False]

        monkeypatch.undo()
        assert yard.asked(GOOD) == [True]


def test_a_ledger_locked_by_others_lets_nothing_pass_and_nothing_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with a_gate(tmp_path, deadline_seconds=1.2) as yard:
        locked = Event()
        record = yard.core.ledger.record

        def slow(*facts: object) -> None:
            locked.wait(10)
            record(*facts)  # type: ignore[arg-type]

        monkeypatch.setattr(yard.gate.recorder, "_record", slow)
        began = time.monotonic()
        assert yard.asked(GOOD, GREY) == [False, False]
        assert time.monotonic() - began < 1.3
        locked.set()
        _until(lambda: any(answer.why is AnswerReason.UNRECORDED for answer in yard.answers(GOOD)))


def test_a_vault_that_takes_nothing_stops_no_refusal_and_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with a_gate(tmp_path) as yard:

        def full(*_: object, **__: object) -> None:
            raise CannotWrite("the disk is full")

        monkeypatch.setattr(yard.vaults.evidence, "seal", full)
        assert yard.asked(BAD) == [False]
        assert [answer.sealed for answer in yard.answers(BAD)] == [False]
        assert yard.totals.unsealed == 1


def test_a_person_s_word_stands_over_the_policy(tmp_path: Path) -> None:
    with a_gate(tmp_path) as yard:
        assert yard.asked(BAD) == [False]
        yard.core.ledger.clear(yard.core.begun("clear"), named(BAD), Decision(Step.PASS, "cleared", "a lesson", by="alice"))

        assert yard.asked(BAD) == [True]
        assert yard.answers(BAD)[-1].why is AnswerReason.PERSON


def test_a_new_engine_or_policy_forgets_no_bytes_and_decides_anew(tmp_path: Path) -> None:
    core = Core()
    with a_gate(tmp_path, core=core) as yard:
        assert yard.asked(BAD) == [False]
    core.engine = "2"
    with a_gate(tmp_path / "second", core=core) as yard:
        assert yard.asked(BAD) == [False]
        assert len(core.opener.opened) == 2


def test_a_body_that_does_not_come_is_given_up_at_the_deadline(tmp_path: Path) -> None:
    async def trickle(yard: Yard) -> bool:
        async def chunks() -> AsyncIterator[bytes]:
            while True:
                yield b"x"
                await asyncio.sleep(0.05)

        return await yard.gate.judge("pict-rs", "image/png", chunks(), time.monotonic())

    with a_gate(tmp_path, deadline_seconds=1.5) as yard:
        began = time.monotonic()
        assert asyncio.run(trickle(yard)) is False
        assert time.monotonic() - began < 1.5
        assert yard.gate.desk.held == 0
        assert yard.totals.refused == {AnswerReason.UNREAD: 1}


def test_memory_is_bounded_and_given_back(tmp_path: Path) -> None:
    big = [bytes([number]) * 300_000 for number in range(12)]
    with a_gate(tmp_path, slow=True, in_flight_mb=1, deadline_seconds=1.5) as yard:
        assert yard.asked(*big) == [True] * 12
        assert yard.gate.counts.most_held <= 1 << 20
        whys = [debt.why for debt in yard.debts]
        assert len(whys) == 12
        assert AnswerReason.BUSY in whys
        yard.hold.set()
        _until(lambda: yard.gate.desk.held == 0 and yard.gate.desk.waiting == 0)


def test_who_hangs_up_takes_what_nobody_began_with_them(tmp_path: Path) -> None:
    async def hang_up(yard: Yard) -> None:
        tasks = [asyncio.create_task(yard.ask(data)) for data in (b"first", b"second", b"third")]
        await asyncio.sleep(0.3)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    with a_gate(tmp_path, slow=True, workers=1) as yard:
        asyncio.run(hang_up(yard))
        assert yard.gate.desk.waiting == 1  # the one that was begun
        yard.hold.set()
        _until(lambda: yard.gate.desk.waiting == 0 and yard.gate.desk.held == 0)
        assert len(yard.core.opener.opened) == 1
        assert yard.debts == []


def test_a_gate_that_is_stopped_answers_what_it_has_in_hand(tmp_path: Path) -> None:
    with a_gate(tmp_path, slow=True, deadline_seconds=60) as yard:
        Timer(0.2, yard.gate.close).start()
        began = time.monotonic()

        assert yard.asked(GOOD) == [True]
        assert time.monotonic() - began < 4
        assert [debt.why for debt in yard.debts] == [AnswerReason.LATE]


def _suspected(yard: Yard) -> DeedEvent:
    """BAD as a scan met it, and the beginning of its restoring, not on record yet."""
    ledger, run = yard.core.ledger, yard.core.begun("scan")
    ref = ObjectRef(PICTRS, key(BAD), 3, key(BAD))
    look = yard.core.looker.look(Blob(ref, BAD, named(BAD)))
    ledger.record(run, [(look, decide(look, yard.core.policy))])
    return DeedEvent(Act.RESTORE, DeedState.BEGUN, PICTRS, ref.key, named(BAD), 1, "alice", yard.core.clock())


def test_what_is_being_restored_passes_without_a_word_and_an_altered_copy_of_it_once(tmp_path: Path) -> None:
    with a_gate(tmp_path) as yard:
        ledger, event = yard.core.ledger, _suspected(yard)
        assert yard.asked(BAD) == [False]
        with ledger.restoring(event):
            ledger.did(event)

            anew, other_shape = BAD + b" written anew", BAD + b" odd"
            assert yard.asked(BAD, anew) == [True, True]
            assert [yard.answers(data)[-1].why for data in (BAD, anew)] == [AnswerReason.RESTORING] * 2
            assert yard.asked(other_shape) == [False]  # one restoring lets one copy in
            assert yard.asked(anew, BAD) == [True, True]  # and that one under every alias
        assert [ledger.verdict(named(data)) for data in (BAD, anew)] == [None, None]


@pytest.mark.parametrize("state", [DeedState.DONE, DeedState.FAILED])
def test_when_a_restoring_ends_without_a_word_its_bytes_are_refused_again(tmp_path: Path, state: DeedState) -> None:
    with a_gate(tmp_path) as yard:
        event, anew = _suspected(yard), BAD + b" written anew"
        with yard.core.ledger.restoring(event):
            yard.core.ledger.did(event)
            assert yard.asked(BAD, anew) == [True, True]

            yard.core.ledger.did(replace(event, state=state))
            assert yard.asked(BAD, anew) == [False, False]


def test_a_restoring_opens_the_gate_for_ten_minutes_at_most(tmp_path: Path) -> None:
    with a_gate(tmp_path) as yard:
        event = _suspected(yard)
        with yard.core.ledger.restoring(event):
            yard.core.ledger.did(event)
            yard.core.clock.turn(minutes=9)
            assert yard.asked(BAD) == [True]

            yard.core.clock.turn(minutes=2)
            assert yard.asked(BAD) == [False]


@pytest.mark.parametrize("ends", [True, False])
def test_a_restoring_that_was_killed_or_interrupted_opens_the_gate_no_more(tmp_path: Path, ends: bool) -> None:
    with a_gate(tmp_path) as yard:
        event, anew = _suspected(yard), BAD + b" written anew"
        run = yard.core.begun("restore")
        with yard.core.ledger.restoring(event):
            yard.core.ledger.did(event)
            assert yard.asked(BAD, anew) == [True, True]
        if ends:
            yard.core.ledger.end(run, "interrupted", {}, yard.core.clock())

        assert yard.asked(BAD, anew) == [False, False]


def test_what_was_hidden_again_is_refused_though_somebody_is_at_it(tmp_path: Path) -> None:
    with a_gate(tmp_path) as yard:
        event = _suspected(yard)
        with yard.core.ledger.restoring(event):
            yard.core.ledger.did(event)
            yard.core.ledger.did(replace(event, act=Act.HIDE))

            assert yard.asked(BAD) == [False]


def test_what_a_person_had_confirmed_passes_while_a_person_restores_it(tmp_path: Path) -> None:
    with a_gate(tmp_path) as yard:
        event = _suspected(yard)
        run = yard.core.begun("restore")
        yard.core.ledger.clear(run, named(BAD), Decision(Step.QUARANTINE, "confirmed", "seen", by="alice"))
        assert yard.asked(BAD) == [False]
        with yard.core.ledger.restoring(event):
            yard.core.ledger.did(event)

            assert yard.asked(BAD) == [True]


# --- debts


def test_debts_without_bytes_are_fetched_and_paid_oldest_first(tmp_path: Path) -> None:
    with a_gate(tmp_path, max_upload_mb=1) as yard:
        large = [b"good" + bytes(1_100_000), b"bad" + bytes(1_100_000)]
        assert yard.asked(*large) == [True, True]
        assert [debt.why for debt in yard.debts] == [AnswerReason.LARGE, AnswerReason.LARGE]
        store = MemoryStore(PICTRS)
        for data in large:
            store.put(key(data), data)
        payer = yard.paying(store, object_limit=8 << 20)

        payer._pass()
        _until(lambda: not yard.debts)
        assert [owed.ref.key for owed in yard.core.ledger.owed()] == [key(large[1])]


def test_a_debt_lapses_only_when_its_object_has_been_missing_for_long(tmp_path: Path) -> None:
    with a_gate(tmp_path, slow=True, deadline_seconds=1.2, workers=1) as yard:
        _debt(yard, GOOD)
        payer = yard.paying(MemoryStore(PICTRS))
        payer._pass()
        assert len(yard.debts) == 1

        yard.core.clock.turn(hours=25)
        payer = yard.paying(MemoryStore(PICTRS))
        payer._pass()
        assert yard.debts == []
        assert yard.totals.lapsed == 1


def test_a_file_that_pictrs_has_lost_makes_no_debt_lapse_and_holds_up_no_other(tmp_path: Path) -> None:
    class Losing(MemoryStore):
        def fetch(self, ref: ObjectRef, limit: int) -> Blob:
            if ref.key == key(GOOD):
                raise Lost("pict-rs knows it, and its file is not there")
            return super().fetch(ref, limit)

    with a_gate(tmp_path) as yard:
        for data in (GOOD, b"good too"):
            _debt(yard, data)
        yard.core.clock.turn(days=30)
        store = Losing(PICTRS)
        store.put(key(b"good too"), b"good too")
        yard.paying(store)._pass()

        _until(lambda: [debt.sha256 for debt in yard.debts] == [named(GOOD)])
        assert yard.totals.lapsed == 0


def test_no_debt_lapses_while_what_pictrs_lists_is_not_believed(tmp_path: Path) -> None:
    """As after an upgrade that began on an empty database beside the old files."""
    with a_gate(tmp_path) as yard:
        _debt(yard, GOOD)
        yard.core.clock.turn(days=30)
        doubt = Doubt(PICTRS, 0, 41, 41, yard.core.clock())
        yard.core.ledger.watching.remember_listed(PICTRS, Listed(41, yard.core.begun(), doubt), yard.core.clock())

        yard.paying(MemoryStore(PICTRS))._pass()

        assert len(yard.debts) == 1


def test_a_store_that_does_not_answer_makes_no_debt_lapse(tmp_path: Path) -> None:
    class Down(MemoryStore):
        def fetch(self, ref: ObjectRef, limit: int) -> Blob:
            raise Unreached("no answer")

    with a_gate(tmp_path) as yard:
        _debt(yard, GOOD)
        yard.core.clock.turn(days=30)
        with pytest.raises(Unreached):
            yard.paying(Down(PICTRS))._pass()
        assert len(yard.debts) == 1


def test_a_debt_under_another_of_its_possible_hashes_is_found(tmp_path: Path) -> None:
    with a_gate(tmp_path) as yard:
        _debt(yard, GOOD, claimed="image/webp")
        store = MemoryStore(PICTRS)
        store.put(key(GOOD, 3), GOOD)  # pict-rs calls it an animation

        yard.paying(store)._pass()
        _until(lambda: not yard.debts)


def test_what_is_suspected_after_all_can_be_acted_on_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fediwarden.gate.debts.EVERY", 0.01)
    acted: list[str] = []
    with a_gate(tmp_path) as yard:
        payer = yard.paying(None, act=lambda: acted.append("now"))
        payer.start()
        _until(lambda: bool(acted))
        payer.end(5)


def test_without_a_pict_rs_store_a_debt_waits_for_any_scan_of_its_bytes(tmp_path: Path) -> None:
    with a_gate(tmp_path, store=None, slow=True, deadline_seconds=1.2) as yard:
        assert yard.asked(BAD) == [True]
        yard.paying(None)._pass()
        assert len(yard.debts) == 1
        yard.hold.set()
        _until(lambda: not yard.debts)
        assert list(yard.core.ledger.owed()) == []  # nobody knows where it lies; the scan of the store will


# --- helpers


def _debt(yard: Yard, data: bytes, claimed: str = "image/png") -> None:
    """A debt from an earlier life: on record, and nowhere in memory."""
    ref = yard.gate._ref(named(data), len(data), claimed)
    at = yard.core.clock()
    yard.core.ledger.record(
        yard.core.begun("gate"), [], [Answer(ref, at, "pict-rs", True, AnswerReason.LATE, named(data), claimed, debt=True)]
    )


def _until(true: Callable[[], bool], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


def _fail(_: Blob) -> None:
    raise Unreached("the cage gave no answer")


@contextmanager
def _unable(folder: Path, why: str, **settings: Any) -> Iterator[tuple[Yard, bytes]]:
    """A gate that cannot look, for that reason, at the bytes that come with it."""
    core = Core()
    data, more = GOOD, settings
    workers = 2
    match why:
        case "late":
            more["deadline_seconds"] = 1.2
        case "large":
            data, more["max_upload_mb"] = GOOD + bytes(1_100_000), 1
        case "broken":
            data = BROKEN
        case "busy":
            more |= {"queue": 1, "deadline_seconds": 1.2}
            workers = 1
        case _:
            pass
    with a_gate(folder, core=core, slow=why in ("late", "busy"), workers=workers, **more) as yard:
        if why == "failed":
            core.opener.before = _fail
        if why == "busy":
            for other in (b"one", b"two"):
                blob = Blob(yard.gate._ref(named(other), 3, "image/png"), other, named(other))
                assert yard.gate.desk.take(3)
                assert yard.gate.desk.put(blob, time.monotonic()) is not None
                time.sleep(0.2)  # the first is taken up, the second waits
        yield yard, data
