"""Rows of the lessons that the ledger answers: F2, F15 and F16."""

from pathlib import Path

from tests.support.ledgers import ENGINE, NOW, STORE, a_decision, a_finding, a_hash, a_look, a_ref, begun, do

from fediwarden.ledger import Ledger
from fediwarden.model import Act, DeedState, EngineVersion, Standing, Step


def test_f2_a_scan_without_apply_never_exempts_an_object_from_a_later_apply(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    keys = [f"{n}.png" for n in range(6)]
    with Ledger.open(path) as ledger:
        run = begun(ledger)
        ledger.settle(run, [a_ref(key) for key in keys], ENGINE)
        ledger.record(run, [(a_look(a_ref(key)), a_decision()) for key in keys])
        ledger.end(run, "done", {"flagged": 6}, NOW)

    with Ledger.open(path) as ledger:
        assert ledger.settle(begun(ledger), [a_ref(key) for key in keys], ENGINE) == set(keys)
        assert [owed.ref.key for owed in ledger.owed()] == keys


def test_f2_look_decision_and_deed_are_three_records() -> None:
    with Ledger.open(":memory:") as ledger:
        ledger.record(begun(ledger), [(a_look(), None)])
        assert ledger.history(STORE, "a.jpg").decisions == ()
        [[entry]] = ledger.stale("policy-1")
        ledger.decide(begun(ledger), [(entry, a_decision())])
        assert ledger.history(STORE, "a.jpg").deeds == ()
        do(ledger, a_ref(), DeedState.BEGUN)

        history = ledger.history(STORE, "a.jpg")
        assert (len(history.looks), len(history.decisions), len(history.deeds)) == (1, 1, 1)


def test_f15_what_was_hidden_stays_on_record_with_all_that_restoring_needs() -> None:
    with Ledger.open(":memory:") as ledger:
        ledger.record(begun(ledger), [(a_look(), a_decision())])
        do(ledger, a_ref(), DeedState.BEGUN, DeedState.SEALED, DeedState.MOVED, DeedState.DONE)
        [event] = ledger.hidden(key="a.jpg")

        assert event.place is not None
        assert (event.place.store, event.place.key, event.place.where) == (STORE, "a.jpg", "spot")
        assert event.place.facts == {"mode": "0644"}
        assert event.sha256 == a_hash("a.jpg")
        assert {act.value for act in Act} == {"hide", "restore"}


def test_f16_a_verdict_is_about_bytes_not_about_a_name() -> None:
    with Ledger.open(":memory:") as ledger:
        run = begun(ledger)
        ledger.record(run, [(a_look(a_ref("a"), content="one"), a_decision(Step.PASS))])

        assert ledger.settle(run, [a_ref("a", stamp="replaced")], ENGINE) == set()
        ledger.record(run, [(a_look(a_ref("a", stamp="replaced"), content="two"), a_decision())])
        assert [owed.sha256 for owed in ledger.owed()] == [a_hash("two")]
        renamed = ledger.known(a_hash("one"), ENGINE)
        assert renamed is not None
        assert renamed.standing is Standing.SEEN


def test_f16_scores_and_versions_are_kept_and_a_new_engine_looks_at_everything_again() -> None:
    with Ledger.open(":memory:") as ledger:
        ledger.record(begun(ledger), [(a_look(findings=[a_finding(0.75)]), a_decision(policy="p1"))])
        [entry] = ledger.entries()

        assert entry.look is not None
        assert [(finding.score, finding.version) for finding in entry.look.findings] == [(0.75, "v1")]
        assert entry.engine == ENGINE
        assert entry.decision is not None
        assert entry.decision.policy == "p1"
        assert ledger.settle(begun(ledger), [a_ref()], EngineVersion("engine-2")) == set()
