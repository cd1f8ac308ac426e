"""What the ledger owes the gate and the platforms: no answer is lost, a debt ends only by a look or with a reason, names are kept."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from tests.support.ledgers import ENGINE, NOW, STORE, a_decision, a_hash, a_look, a_ref, an_event, begun, do, flagged

from fediwarden.errors import Busy, CannotWrite
from fediwarden.ledger import GATE, Ledger
from fediwarden.model import (
    Act,
    Answer,
    AnswerReason,
    Debt,
    DeedState,
    EngineVersion,
    Name,
    NameKind,
    ObjectRef,
    PlatformDeed,
    Standing,
    Step,
    StoreName,
    TraceRecord,
)

PICTRS = StoreName("pictrs")


@pytest.fixture(name="ledger", params=["file", "memory"])
def _ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "ledger.sqlite" if request.param == "file" else ":memory:") as ledger:
        yield ledger
        assert ledger.verify() == []


def upload(key: str = "one", *, store: StoreName = PICTRS) -> ObjectRef:
    return a_ref(key, store=store)


def answered(key: str = "one", *, passed: bool = True, why: AnswerReason = AnswerReason.LOOKED, debt: bool = False) -> Answer:
    store = PICTRS if passed else GATE
    return Answer(upload(key, store=store), NOW, "pict-rs", passed, why, a_hash(key), "image/png", debt, milliseconds=5)


def test_a_passed_upload_is_an_object_of_its_store_and_settled_there(ledger: Ledger) -> None:
    run = begun(ledger)
    ledger.record(run, [(a_look(upload()), a_decision(Step.PASS))], [answered()])

    assert ledger.settle(run, [upload()], ENGINE) == {"one"}
    assert list(ledger.uploads.debts(ENGINE)) == []
    assert ledger.uploads.totals(ENGINE, NOW).passed == {AnswerReason.LOOKED: 1}


def test_a_refused_upload_is_on_record_and_never_owed(ledger: Ledger) -> None:
    refused = answered(passed=False)
    ledger.record(begun(ledger), [(a_look(refused.ref), a_decision())], [refused])

    assert list(ledger.owed()) == []
    entry = ledger.entry(GATE, "one")
    assert entry is not None
    assert entry.gone
    assert entry.decision is not None
    assert entry.decision.step is Step.QUARANTINE
    assert ledger.uploads.totals(ENGINE, NOW).refused == {AnswerReason.LOOKED: 1}


def test_what_is_suspected_in_a_store_is_owed_whatever_the_gate_refuses_later(ledger: Ledger) -> None:
    flagged(ledger, upload())
    ledger.record(begun(ledger), [], [answered(passed=False, why=AnswerReason.KNOWN)])

    assert [owed.ref.key for owed in ledger.owed()] == ["one"]


def test_a_debt_is_paid_by_a_seen_look_at_its_bytes_under_any_name(ledger: Ledger) -> None:
    ledger.record(
        begun(ledger), [], [answered(debt=True, why=AnswerReason.LATE), answered("two", debt=True, why=AnswerReason.BUSY)]
    )
    assert [(debt.ref.key, debt.why, debt.at) for debt in ledger.uploads.debts(ENGINE)] == [
        ("one", AnswerReason.LATE, NOW),
        ("two", AnswerReason.BUSY, NOW),
    ]

    ledger.record(begun(ledger), [(a_look(a_ref("elsewhere"), content="one"), None)])

    assert [debt.ref.key for debt in ledger.uploads.debts(ENGINE)] == ["two"]
    totals = ledger.uploads.totals(ENGINE, NOW)
    assert (totals.debts, totals.oldest_debt, totals.lapsed) == (1, NOW, 0)


@pytest.mark.parametrize("standing", [Standing.BROKEN, Standing.UNREACHED, Standing.GONE])
def test_a_look_that_saw_nothing_pays_no_debt(ledger: Ledger, standing: Standing) -> None:
    ledger.record(begun(ledger), [], [answered(debt=True, why=AnswerReason.LATE)])
    ledger.record(begun(ledger), [(a_look(upload(), standing), None)])

    (debt,) = ledger.uploads.debts(ENGINE)
    assert debt.broken == (standing is Standing.BROKEN)
    assert ledger.uploads.totals(ENGINE, NOW).debts_broken == int(standing is Standing.BROKEN)
    (other,) = ledger.uploads.debts(EngineVersion("another"))
    assert not other.broken  # a newer engine has not tried yet


def test_a_debt_recorded_with_its_own_look_is_paid_at_once(ledger: Ledger) -> None:
    ledger.record(begun(ledger), [(a_look(upload()), None)], [answered(debt=True, why=AnswerReason.LATE)])

    assert list(ledger.uploads.debts(ENGINE)) == []


def test_a_debt_whose_object_never_came_lapses_with_a_reason_and_is_counted(ledger: Ledger) -> None:
    ledger.record(begun(ledger), [], [answered(debt=True, why=AnswerReason.LATE)])
    debts = list(ledger.uploads.debts(ENGINE))

    ledger.uploads.lapse(debts, "pict-rs never kept it", NOW)
    ledger.uploads.lapse(debts, "said twice", NOW)

    assert list(ledger.uploads.debts(ENGINE)) == []
    assert ledger.uploads.totals(ENGINE, NOW).lapsed == 1


def test_only_what_passed_can_be_a_debt(ledger: Ledger) -> None:
    for wrong in (replace(answered(passed=False), debt=True), replace(answered(debt=True), sha256=None)):
        with pytest.raises(ValueError, match="debt"):
            ledger.record(begun(ledger), [(a_look(upload()), None)], [wrong])
    assert ledger.entry(PICTRS, "one") is None  # nothing of that transaction is there


def test_answers_keep_both_hashes_and_drills_are_counted_apart(ledger: Ledger) -> None:
    drill = replace(answered(passed=False), drill=True, sealed=True)
    ledger.record(begun(ledger), [], [replace(answered(), original=a_hash("as uploaded")), drill])

    (found,) = ledger.uploads.answers(a_hash("as uploaded"))
    assert (found.sha256, found.face, found.passed, found.milliseconds) == (a_hash("one"), "pict-rs", True, 5)
    assert ledger.uploads.totals(ENGINE, NOW).refused == {}


def test_answers_are_counted_from_a_moment_on_and_unsealed_ones_stand_out(ledger: Ledger) -> None:
    ledger.record(begun(ledger), [], [replace(answered(passed=False), sealed=False), answered(passed=False)])

    assert ledger.uploads.totals(ENGINE, NOW).unsealed == 1
    assert ledger.uploads.totals(ENGINE, NOW + timedelta(seconds=1)).refused == {}


def a_restore(ledger: Ledger, ref: ObjectRef) -> AbstractContextManager[None]:
    """Somebody has a restoring of it in hand."""
    return ledger.restoring(an_event(ledger, ref, DeedState.BEGUN, Act.RESTORE))


def test_what_is_being_restored_is_known_while_its_command_is_at_it_and_its_time_is_not_over(ledger: Ledger) -> None:
    ref, other = upload(), upload("two")
    for each in (ref, other):
        flagged(ledger, each)
    ledger.begin("restore", {}, NOW)
    with a_restore(ledger, ref):
        do(ledger, ref, DeedState.BEGUN, DeedState.MOVED, act=Act.RESTORE)

        assert ledger.uploads.restoring([PICTRS, STORE], NOW) == [a_hash("one")]
        assert ledger.uploads.restoring([PICTRS], NOW + timedelta(hours=1)) == []
        assert ledger.uploads.restoring([STORE], NOW) == []

    assert ledger.uploads.restoring([PICTRS], NOW) == []  # the command is gone, and recorded no end
    with a_restore(ledger, other):
        do(ledger, other, DeedState.BEGUN, act=Act.RESTORE)
        assert ledger.uploads.restoring([PICTRS], NOW) == [a_hash("two")]  # and not what another command left


@pytest.mark.parametrize(
    ("act", "state"),
    [(Act.RESTORE, DeedState.DONE), (Act.RESTORE, DeedState.FAILED), (Act.HIDE, DeedState.BEGUN), (Act.HIDE, DeedState.CHANGED)],
)
def test_any_later_deed_ends_what_is_being_restored(ledger: Ledger, act: Act, state: DeedState) -> None:
    ref = upload()
    flagged(ledger, ref)
    with a_restore(ledger, ref):
        do(ledger, ref, DeedState.BEGUN, DeedState.MOVED, act=Act.RESTORE)
        do(ledger, ref, state, act=act)

        assert ledger.uploads.restoring([PICTRS], NOW) == []


def test_the_same_object_is_in_one_hand_only(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger, Ledger.open(tmp_path / "ledger.sqlite") as other:
        flagged(ledger, upload())
        with a_restore(ledger, upload()):
            do(ledger, upload(), DeedState.BEGUN, act=Act.RESTORE)
            assert other.uploads.restoring([PICTRS], NOW) == [a_hash("one")]
            with pytest.raises(Busy), a_restore(other, upload()):
                pass
            assert other.uploads.restoring([PICTRS], NOW) == [a_hash("one")]


def test_names_are_kept_with_the_listing_and_found_again(ledger: Ledger) -> None:
    alias, url = Name(NameKind.ALIAS, "a.png"), Name(NameKind.PROXIED, "https://remote.example/ä b.png?x=1&y=2")
    run = begun(ledger)
    for _ in range(2):
        ledger.settle(run, [replace(upload(), names=(alias, url))], ENGINE)
    ledger.platforms.add_names(run, [replace(upload("two"), names=(alias,))])

    assert ledger.platforms.names_of(PICTRS, "one") == (alias, url)
    assert ledger.platforms.named("a.png") == [(PICTRS, "one"), (PICTRS, "two")]
    assert ledger.platforms.named(url.text) == [(PICTRS, "one")]
    assert ledger.platforms.named("b.png") == []


def test_who_asked_for_a_trace_and_what_was_done_on_a_platform_stays_on_record(ledger: Ledger) -> None:
    record = TraceRecord(NOW, "alice", "ticket 7", "a.png", a_hash("one"), None, {"posts": 2}, "no database")
    deed = PlatformDeed(NOW, "alice", "lemmy", "remove post", "https://l.example/post/1", DeedState.BEGUN, a_hash("one"))
    run = begun(ledger)
    ledger.platforms.traced(run, record)
    ledger.platforms.did(run, deed)
    ledger.platforms.did(run, replace(deed, state=DeedState.FAILED, problem="not an admin"))

    assert ledger.platforms.traces(a_hash("one")) == [record]
    assert [(one.state, one.problem) for one in ledger.platforms.deeds(a_hash("one"))] == [
        (DeedState.BEGUN, ""),
        (DeedState.FAILED, "not an admin"),
    ]


def test_which_objects_hold_bytes_can_be_asked(ledger: Ledger) -> None:
    flagged(ledger, upload())
    ledger.record(begun(ledger), [(a_look(a_ref("copy"), content="one"), None)])

    assert ledger.platforms.holding(a_hash("one")) == [(STORE, "copy"), (PICTRS, "one")]


def test_a_read_only_ledger_takes_no_answer(tmp_path: Path) -> None:
    Ledger.open(tmp_path / "ledger.sqlite").close()
    with Ledger.open(tmp_path / "ledger.sqlite", read_only=True) as ledger, pytest.raises(CannotWrite):
        ledger.uploads.lapse([Debt(1, upload(), a_hash("one"), NOW, AnswerReason.LATE)], "x", NOW)
