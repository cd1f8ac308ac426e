"""A copy is decided about with its original and tied to it on record: nobody need have looked at it, and a person's word stands."""

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest
from tests.support.ledgers import NOW, STORE, a_decision, a_hash, a_look, a_ref, an_event

from fediwarden.acting.blast_radius import Radius
from fediwarden.acting.copies import POLICY, RULE, Copied, because_of, tie, tied
from fediwarden.acting.proposal import known
from fediwarden.app import App
from fediwarden.cli import apply
from fediwarden.ledger import Ledger
from fediwarden.model import Act, Decision, DeedState, Name, NameKind, Owed, RunId, Step


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with Ledger.open(":memory:") as opened:
        run = opened.begin("scan", {}, NOW)
        opened.record(run, [(a_look(), a_decision())])
        yield opened


@pytest.fixture
def original(ledger: Ledger) -> Owed:
    """The suspected one."""
    return next(ledger.owed())


def a_copy(key: str = "b.jpg", *, preview: bool = True) -> Copied:
    """One that no scan has met."""
    ref = replace(a_ref(key), names=(Name(NameKind.ALIAS, "small.webp"),))
    return Copied(ref, a_hash(key), "the preview of post 1 that Lemmy made", preview)


def begun(ledger: Ledger) -> RunId:
    return ledger.begin("apply", {}, NOW)


def test_a_copy_that_nobody_looked_at_is_owed_after_its_original_and_still_lacks_its_look(ledger: Ledger, original: Owed) -> None:
    assert tie(ledger, begun(ledger), original, a_copy(), step=Step.QUARANTINE, by="ada")

    assert [owed.ref.key for owed in ledger.owed()] == ["a.jpg", "b.jpg"]
    entry = ledger.entry(STORE, "b.jpg")
    assert entry is not None
    assert entry.decision is not None
    assert (entry.decision.rule, entry.decision.because, entry.decision.by) == (RULE, because_of(STORE, "a.jpg"), "ada")
    assert [each.ref.key for each in ledger.entries(not_scanned=True)] == ["b.jpg"]
    assert ledger.platforms.names_of(STORE, "b.jpg") == (Name(NameKind.ALIAS, "small.webp"),)
    assert ledger.verify() == []


def test_a_copy_that_passed_its_own_look_is_owed_with_its_original(ledger: Ledger, original: Owed) -> None:
    ledger.record(begun(ledger), [(a_look(a_ref("b.jpg")), a_decision(Step.PASS))])

    assert tie(ledger, begun(ledger), original, a_copy(), step=Step.QUARANTINE, by=POLICY)

    assert [owed.ref.key for owed in ledger.owed()] == ["a.jpg", "b.jpg"]
    assert [each.ref.key for each in ledger.entries(not_scanned=True)] == []


def test_a_persons_word_that_a_copy_passes_stands(ledger: Ledger, original: Owed) -> None:
    ledger.clear(begun(ledger), a_hash("b.jpg"), Decision(Step.PASS, "cleared by a person", "a cat", by="eve"))

    assert not tie(ledger, begun(ledger), original, a_copy(), step=Step.QUARANTINE, by="ada")
    assert [owed.ref.key for owed in ledger.owed()] == ["a.jpg"]


def test_other_bytes_that_were_looked_at_under_its_key_are_not_hidden_for_it(ledger: Ledger, original: Owed) -> None:
    ledger.record(begun(ledger), [(a_look(a_ref("b.jpg"), content="something else"), a_decision(Step.PASS))])

    assert not tie(ledger, begun(ledger), original, a_copy(), step=Step.QUARANTINE, by="ada")
    assert [owed.ref.key for owed in ledger.owed()] == ["a.jpg"]


def test_a_copy_that_is_owed_anyway_is_decided_once(ledger: Ledger, original: Owed) -> None:
    ledger.record(begun(ledger), [(a_look(a_ref("b.jpg")), a_decision())])

    assert tie(ledger, begun(ledger), original, a_copy(), step=Step.QUARANTINE, by="ada")
    assert not tie(ledger, begun(ledger), original, a_copy(), step=Step.REVIEW, by=POLICY)
    assert len(ledger.history(STORE, "b.jpg").decisions) == 1


def test_what_was_hidden_because_of_an_object_is_found_until_it_is_restored(ledger: Ledger, original: Owed) -> None:
    for copy in (a_copy("b.jpg"), a_copy("c.jpg", preview=False)):
        tie(ledger, begun(ledger), original, copy, step=Step.QUARANTINE, by="ada")
    for key in ("b.jpg", "c.jpg"):
        ledger.did(an_event(ledger, a_ref(key), DeedState.DONE))

    assert {event.key for event in tied(ledger, STORE, "a.jpg")} == {"b.jpg", "c.jpg"}
    assert list(tied(ledger, STORE, "b.jpg")) == []
    ledger.did(an_event(ledger, a_ref("c.jpg"), DeedState.DONE, Act.RESTORE))
    assert [event.key for event in tied(ledger, STORE, "a.jpg")] == ["b.jpg"]


@pytest.mark.parametrize(("leave", "step"), [(set(), Step.QUARANTINE), ({"b.jpg"}, Step.REVIEW), (None, Step.REVIEW)])
def test_copies_that_are_left_are_on_record_for_review(
    ledger: Ledger, original: Owed, leave: set[str] | None, step: Step, capsys: pytest.CaptureFixture[str]
) -> None:
    app = cast(App, SimpleNamespace(ledger=ledger, actor="ada"))
    around = {known(original): Radius(copies=(a_copy(),))}

    along = apply._tie(app, begun(ledger), [original], around, leave=leave)

    (entry,) = ledger.entries(key="b.jpg")
    assert entry.decision is not None
    assert (entry.decision.step, entry.decision.by) == (step, "ada" if step is Step.QUARANTINE else "policy")
    assert [key for _, key, _ in along] == (["b.jpg"] if step is Step.QUARANTINE else [])
    assert ("still in reach" in capsys.readouterr().err) is (step is Step.REVIEW)
