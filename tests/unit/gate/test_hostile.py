"""What a hostile reading of the gate asked of it: deadlines with a slow vault, what is lost where nothing can be recorded, restoring."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import pytest
from tests.support.gates import PICTRS, Yard, a_gate, named
from tests.support.waiting import until

from fediwarden.errors import Busy, CannotWrite, Refused, Unreached
from fediwarden.gate import debts, recorder
from fediwarden.ledger import GATE
from fediwarden.model import (
    Act,
    Answer,
    AnswerReason,
    Blob,
    DeedEvent,
    DeedState,
    ObjectRef,
    RunId,
    Sha256,
    StoreName,
)
from fediwarden.platforms.pictrs.hashes import Hash
from fediwarden.stores.memory import MemoryStore

GOOD, BAD = b"good", b"bad"


def key(data: bytes) -> str:
    return Hash.of(data, 7).hex


def met_by_a_scan(yard: Yard, data: bytes) -> None:
    ref = ObjectRef(PICTRS, key(data), len(data), key(data))
    yard.core.ledger.record(yard.core.begun("scan"), [(yard.core.looker.look(Blob(ref, data, named(data))), None)])


def a_debt(yard: Yard, data: bytes, store: StoreName = PICTRS) -> None:
    ref = ObjectRef(store, key(data), len(data), key(data))
    answer = Answer(ref, yard.core.clock(), "pict-rs", True, AnswerReason.LATE, named(data), "image/png", debt=True)
    yard.core.ledger.record(yard.core.begun("gate"), [], [answer])


# --- deadlines


def test_a_vault_that_hangs_makes_no_known_refusal_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs = Event()
    with a_gate(tmp_path, deadline_seconds=1.2) as yard:
        met_by_a_scan(yard, BAD)
        monkeypatch.setattr(yard.vaults.evidence, "check", lambda _: hangs.wait(4))
        began = time.monotonic()

        async def ask() -> bool:
            try:
                return await yard.ask(BAD)
            finally:
                took.append(time.monotonic() - began)

        took: list[float] = []
        assert _run_and_release(ask, hangs) is False
        assert took[0] < 1.2
        (answer,) = yard.answers(BAD)
        assert (answer.why, answer.sealed) == (AnswerReason.KNOWN, False)


def test_a_ledger_that_does_not_answer_makes_no_answer_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs = Event()
    with a_gate(tmp_path, deadline_seconds=1.2) as yard:
        monkeypatch.setattr(yard.core.ledger, "known", lambda *_: hangs.wait(4))
        began = time.monotonic()
        took: list[float] = []

        async def ask() -> bool:
            try:
                return await yard.ask(GOOD)
            finally:
                took.append(time.monotonic() - began)

        _run_and_release(ask, hangs)
        assert took[0] < 1.2


def _run_and_release(ask: Callable[[], object], hangs: Event) -> bool:
    async def whole() -> bool:
        try:
            return bool(await ask())  # type: ignore[misc]
        finally:
            hangs.set()

    return asyncio.run(whole())


def test_a_refusal_that_is_asked_for_on_every_view_reads_no_sealed_file_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with a_gate(tmp_path) as yard:
        met_by_a_scan(yard, BAD)
        check, checked = yard.vaults.evidence.check, list[Sha256]()

        def counted(sha256: Sha256) -> bool:
            checked.append(sha256)
            return check(sha256)

        monkeypatch.setattr(yard.vaults.evidence, "check", counted)
        for _ in range(3):
            assert yard.asked(BAD) == [False]
        assert len(checked) == 1
        assert [answer.sealed for answer in yard.answers(BAD)] == [True] * 3


# --- what cannot be recorded


def test_a_suspected_upload_whose_answer_came_too_late_for_the_ledger_stays_on_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with a_gate(tmp_path, deadline_seconds=1.2) as yard:
        locked = Event()
        record = yard.core.ledger.record

        def slow(*facts: object) -> None:
            locked.wait(10)
            record(*facts)  # type: ignore[arg-type]

        monkeypatch.setattr(yard.gate.recorder, "_record", slow)
        assert yard.asked(GOOD, BAD) == [False, False]
        locked.set()
        until(lambda: [answer.why for answer in yard.answers(BAD)][-1:] == [AnswerReason.UNRECORDED])

        found = yard.core.ledger.known(named(BAD), yard.core.looker.engine)
        assert found is not None  # sealed bytes that no look speaks of would be a riddle
        assert yard.answers(BAD)[-1].sealed is True
        assert {entry.ref.store for entry in yard.core.ledger.entries() if entry.sha256 == named(BAD)} == {GATE}


def test_refusals_that_nobody_waits_for_do_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "MOST", 10)
    busy, locked = Event(), Event()

    def blocked(*_: object) -> None:
        busy.set()
        locked.wait(10)

    keeper = recorder.Recorder(blocked, RunId(1))  # type: ignore[arg-type]
    keeper.start()
    first = keeper.put((), ())
    assert busy.wait(10)  # from here on the thread takes nothing more
    futures = [keeper.put((), ()) for _ in range(50)]
    assert keeper.waiting == 10
    assert [future.done() for future in futures] == [False] * 10 + [True] * 40
    with pytest.raises(CannotWrite):
        futures[-1].result(0)
    locked.set()
    keeper.end(10)
    assert [future.result(0) for future in (first, *futures[:10])] == [None] * 11


def test_what_was_sealed_for_somebody_who_hung_up_is_on_record(tmp_path: Path) -> None:
    async def hang_up(yard: Yard) -> None:
        task = asyncio.create_task(yard.ask(BAD))
        await asyncio.sleep(0.3)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    with a_gate(tmp_path, slow=True) as yard:
        asyncio.run(hang_up(yard))
        yard.hold.set()
        until(lambda: yard.vaults.evidence.check(named(BAD)))
        until(lambda: yard.core.ledger.maintenance.knows(named(BAD)))
        assert [(answer.passed, answer.sealed) for answer in yard.answers(BAD)] == [(False, True)]


def test_a_late_refusal_that_is_found_suspected_later_is_one_answer(tmp_path: Path) -> None:
    with a_gate(tmp_path, slow=True, late="refuse", deadline_seconds=1.2) as yard:
        assert yard.asked(BAD) == [False]
        yard.hold.set()
        until(lambda: yard.core.ledger.known(named(BAD), yard.core.looker.engine) is not None)
        assert [answer.why for answer in yard.answers(BAD)] == [AnswerReason.LATE]


# --- restoring


@contextmanager
def _restoring(yard: Yard, store: StoreName) -> Iterator[None]:
    met_by_a_scan(yard, BAD)
    event = DeedEvent(Act.RESTORE, DeedState.BEGUN, store, "some/key", named(BAD), 1, "alice", yard.core.clock())
    with yard.core.ledger.restoring(event):
        yard.core.ledger.did(event)
        yield


def test_an_altered_copy_that_was_refused_before_passes_while_a_person_restores_it(tmp_path: Path) -> None:
    altered = BAD + b" written anew"
    with a_gate(tmp_path) as yard:
        assert yard.asked(altered) == [False]
        with _restoring(yard, PICTRS):
            assert yard.asked(altered) == [True]
            assert yard.answers(altered)[-1].why is AnswerReason.RESTORING
            assert yard.asked(BAD + b" of somebody else") == [False]


def test_what_was_hidden_in_the_bucket_of_pict_rs_is_let_in_too_while_it_is_restored(tmp_path: Path) -> None:
    with a_gate(tmp_path, beside=[StoreName("bucket")]) as yard, _restoring(yard, StoreName("bucket")):
        assert yard.asked(BAD + b" written anew") == [True]


def test_two_altered_copies_at_once_are_not_both_let_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with a_gate(tmp_path, workers=4) as yard, _restoring(yard, PICTRS):
        known = yard.core.ledger.known

        def slowly(sha256: Sha256, engine: object) -> object:
            found = known(sha256, engine)  # type: ignore[arg-type]
            time.sleep(0.2)
            return found

        monkeypatch.setattr(yard.core.ledger, "known", slowly)
        passed = yard.asked(*(BAD + b" copy %d" % number for number in range(4)))
        assert sum(passed) == 1


# --- debts


def test_days_without_an_answer_do_not_end_the_thread_that_pays(tmp_path: Path) -> None:
    with a_gate(tmp_path) as yard:
        payer = yard.paying(MemoryStore(PICTRS))
        for failures in (0, 5, 2000):
            assert debts.EVERY <= debts.pause(failures) <= debts.SLOWEST
        a_debt(yard, GOOD)
        (debt,) = yard.debts
        payer._tries[debt.id] = (2000, 0.0)
        payer._pass()  # tries it, and puts it off again


def test_hiding_that_fails_does_not_put_off_paying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debts, "EVERY", 0.05)

    def busy() -> None:
        raise Busy("another command is acting")

    with a_gate(tmp_path) as yard:
        store = MemoryStore(PICTRS)
        payer = yard.paying(store, act=busy)
        payer.start()
        try:
            time.sleep(1.6)
            store.put(key(GOOD), GOOD)
            a_debt(yard, GOOD)
            until(lambda: not yard.debts, 1)
        finally:
            payer.end(5)


def test_a_debt_that_the_store_refuses_to_tell_of_holds_up_no_other(tmp_path: Path) -> None:
    class Old(MemoryStore):
        """As pict-rs 0.4: no content can be asked for by its hash."""

        def fetch(self, ref: ObjectRef, limit: int) -> Blob:
            if ref.key == key(GOOD):
                raise Refused("cannot be asked for a content by its hash")
            return super().fetch(ref, limit)

    with a_gate(tmp_path) as yard:
        for data in (GOOD, b"good too"):
            a_debt(yard, data)
        store = Old(PICTRS)
        store.put(key(b"good too"), b"good too")
        yard.paying(store)._pass()
        until(lambda: [debt.sha256 for debt in yard.debts] == [named(GOOD)])


def test_no_answer_at_all_ends_the_round(tmp_path: Path) -> None:
    class Down(MemoryStore):
        def fetch(self, ref: ObjectRef, limit: int) -> Blob:
            raise Unreached("no answer")

    with a_gate(tmp_path) as yard:
        a_debt(yard, GOOD)
        with pytest.raises(Unreached):
            yard.paying(Down(PICTRS))._pass()
