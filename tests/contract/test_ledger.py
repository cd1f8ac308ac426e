"""What every ledger owes: facts are kept, the index follows them, nothing is owed twice or forgotten."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from math import inf, isnan, nan
from pathlib import Path
from threading import Thread

import pytest
from tests.support.ledgers import (
    ENGINE,
    NOW,
    STORE,
    a_decision,
    a_finding,
    a_hash,
    a_look,
    a_ref,
    an_event,
    begun,
    do,
    flagged,
)

from fediwarden.ledger import Ledger, Totals
from fediwarden.model import (
    Act,
    DeedState,
    EngineVersion,
    Finding,
    ObjectRef,
    Reason,
    Standing,
    Step,
    StoreName,
)

HOSTILE = [
    "a\nb",
    "\x1b[31m",
    "../../etc/passwd",
    "x" * 1000,
    "bytes \udcff\udc80",
    "'; DROP TABLE looks; --",
    "",
    "é",
    "%s :key",
    "nul\0nul",
]


@pytest.fixture(name="ledger", params=["file", "memory"])
def _ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "home" / "ledger.sqlite" if request.param == "file" else ":memory:") as ledger:
        yield ledger
        assert ledger.verify() == []


# --- runs


def test_an_installation_has_one_random_name(ledger: Ledger) -> None:
    with Ledger.open(":memory:") as other:
        assert ledger.installation == ledger.installation
        assert len(ledger.installation) == 32
        assert other.installation != ledger.installation


def test_runs_are_numbered_and_end_once(ledger: Ledger) -> None:
    first, second = begun(ledger), begun(ledger)
    ledger.end(first, "done", {"seen": 3}, NOW)

    assert second > first


def test_a_time_without_a_zone_is_refused(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match="zone"):
        ledger.begin("scan", {}, NOW.replace(tzinfo=None))


# --- listing and looking


def test_what_was_never_looked_at_needs_a_look_and_counts(ledger: Ledger) -> None:
    run = begun(ledger)

    assert ledger.settle(run, [a_ref("a"), a_ref("b")], ENGINE) == set()
    assert ledger.totals(ENGINE).lacking == {"never looked at": 2}


def test_an_unchanged_object_needs_no_second_look(ledger: Ledger) -> None:
    run = begun(ledger)
    ledger.settle(run, [a_ref("a"), a_ref("b")], ENGINE)
    ledger.record(run, [(a_look(a_ref("a")), None), (a_look(a_ref("b"), Standing.BROKEN), None)])

    assert ledger.settle(begun(ledger), [a_ref("a"), a_ref("b"), a_ref("c")], ENGINE) == {"a", "b"}


@pytest.mark.parametrize("stamp", ["another stamp", ""])
def test_an_object_with_another_stamp_needs_a_look_until_it_had_one(ledger: Ledger, stamp: str) -> None:
    ledger.record(begun(ledger), [(a_look(), None)])
    changed = a_ref(stamp=stamp)

    assert ledger.settle(begun(ledger), [changed], ENGINE) == set()
    assert ledger.totals(ENGINE).lacking == {"changed since": 1}
    assert ledger.settle(begun(ledger), [changed], ENGINE) == set()
    assert ledger.settle(begun(ledger), [a_ref()], ENGINE) == set()


def test_an_empty_stamp_never_settles(ledger: Ledger) -> None:
    ref = a_ref(stamp="")
    ledger.record(begun(ledger), [(a_look(ref), None)])

    assert ledger.settle(begun(ledger), [ref], ENGINE) == set()


def test_another_engine_version_looks_again(ledger: Ledger) -> None:
    ledger.record(begun(ledger), [(a_look(), None)])
    other = EngineVersion("engine-2")

    assert ledger.settle(begun(ledger), [a_ref()], other) == set()
    assert ledger.totals(other).lacking == {"other engine version": 1}
    assert ledger.totals(other).looked_at == 0
    assert [entry.ref.key for entry in ledger.entries(not_scanned=True, engine=other)] == ["a.jpg"]


@pytest.mark.parametrize("key", HOSTILE)
def test_a_hostile_key_is_a_key_like_any_other(ledger: Ledger, key: str) -> None:
    ref = a_ref(key, stamp="\udcff stamp")
    flagged(ledger, ref)
    do(ledger, ref, DeedState.BEGUN)

    assert ledger.settle(begun(ledger), [ref], ENGINE) == {key}
    assert [owed.ref.key for owed in ledger.owed(only=[key])] == [key]
    assert [entry.ref.key for entry in ledger.entries(key=key)] == [key]
    assert ledger.history(STORE, key).deeds[0].key == key


def test_half_a_surrogate_pair_in_a_key_stops_nothing(ledger: Ledger) -> None:
    ref = a_ref("half \ud800")
    ledger.record(begun(ledger), [(replace(a_look(ref, content="x"), problem="half \ud800"), a_decision())])

    assert ledger.settle(begun(ledger), [ref], ENGINE) == {ref.key}
    assert len(list(ledger.owed(only=[ref.key]))) == 1


def test_stores_do_not_know_one_another(ledger: Ledger) -> None:
    other = a_ref(store=StoreName("other"))
    ledger.record(begun(ledger), [(a_look(), None)])

    assert ledger.settle(begun(ledger), [other], ENGINE) == set()
    assert [entry.ref.store for entry in ledger.entries(store=StoreName("other"))] == ["other"]
    with pytest.raises(ValueError, match="one store"):
        ledger.settle(begun(ledger), [a_ref(), other], ENGINE)


def test_a_look_comes_back_as_it_was(ledger: Ledger) -> None:
    look = a_look(findings=[a_finding(), a_finding(0.5)], partly=True)
    ledger.record(begun(ledger), [(look, a_decision())])

    assert ledger.known(a_hash("a.jpg"), ENGINE) == look
    [entry] = ledger.entries()
    assert entry.look == entry.last == look
    assert entry.decision == a_decision()
    assert ledger.history(STORE, "a.jpg").looks == (look,)


def test_a_score_that_is_no_number_is_kept_as_that(ledger: Ledger) -> None:
    scores = [Finding("exposed", score, "stand-in", "v1") for score in (nan, inf, -inf)]
    ledger.record(begun(ledger), [(a_look(findings=scores), None)])

    known = ledger.known(a_hash("a.jpg"), ENGINE)
    assert known is not None
    assert isnan(known.findings[0].score)
    assert [finding.score for finding in known.findings[1:]] == [inf, -inf]


def test_times_of_other_zones_are_the_same_moments(ledger: Ledger) -> None:
    at = datetime(2026, 3, 4, 12, tzinfo=timezone(timedelta(hours=9)))
    ledger.record(begun(ledger), [(a_look(at=at), None)])

    [entry] = ledger.entries()
    assert entry.look is not None
    assert entry.look.at == at


def test_the_same_bytes_under_other_names_share_one_evidence(ledger: Ledger) -> None:
    run = begun(ledger)
    first = a_look(a_ref("a"), content="same", findings=[a_finding()])
    ledger.record(run, [(first, a_decision())])
    ledger.record(run, [(a_look(a_ref(key), content="same", findings=[a_finding()]), a_decision()) for key in "bc"])

    assert [entry.look and entry.look.findings for entry in ledger.entries()] == [first.findings] * 3
    assert [look.findings for look in ledger.history(STORE, "c").looks] == [first.findings]
    assert ledger.totals(ENGINE).items == 1
    with ledger._reading() as connection:
        assert connection.exec_driver_sql("SELECT COUNT(*) FROM findings").scalar() == 1


def test_the_same_object_twice_in_one_batch_ends_as_the_last(ledger: Ledger) -> None:
    ledger.record(begun(ledger), [(a_look(content="one"), a_decision()), (a_look(content="two"), a_decision(Step.PASS))])

    [entry] = ledger.entries()
    assert entry.sha256 == a_hash("two")
    assert entry.decision == a_decision(Step.PASS)
    assert len(ledger.history(STORE, "a.jpg").looks) == 2


def test_broken_once_and_seen_later_are_two_evidences_and_the_seen_one_is_known(ledger: Ledger) -> None:
    run = begun(ledger)
    ledger.record(run, [(a_look(a_ref("a"), Standing.BROKEN, content="same", reason=Reason.TOO_SLOW), None)])
    ledger.record(run, [(a_look(a_ref("b"), content="same"), None)])

    known = ledger.known(a_hash("same"), ENGINE)
    assert known is not None
    assert known.standing is Standing.SEEN
    assert [entry.standing for entry in ledger.entries()] == [Standing.BROKEN, Standing.SEEN]


def test_unknown_bytes_are_not_known(ledger: Ledger) -> None:
    ledger.record(begun(ledger), [(a_look(), None), (a_look(a_ref("b"), Standing.UNREACHED), None)])

    assert ledger.known(a_hash("a.jpg"), EngineVersion("engine-2")) is None
    assert ledger.known(a_hash("b"), ENGINE) is None


def test_an_unreached_object_keeps_its_evidence_but_counts_as_not_scanned_until_it_is_reached(ledger: Ledger) -> None:
    look = a_look(findings=[a_finding()])
    ledger.record(begun(ledger), [(look, a_decision())])
    ledger.record(begun(ledger), [(a_look(standing=Standing.UNREACHED), None)])

    [entry] = ledger.entries(not_scanned=True)
    assert entry.look == look
    assert entry.standing is Standing.UNREACHED
    assert entry.decision == a_decision()
    assert ledger.totals(ENGINE).lacking == {"unreached": 1}
    assert [owed.sha256 for owed in ledger.owed()] == [look.sha256]
    assert ledger.settle(begun(ledger), [a_ref()], ENGINE) == set()

    ledger.record(begun(ledger), [(look, a_decision())])
    assert ledger.totals(ENGINE).lacking == {}
    assert ledger.settle(begun(ledger), [a_ref()], ENGINE) == {"a.jpg"}


def test_a_decision_about_an_unreached_object_takes_no_earlier_one_away(ledger: Ledger) -> None:
    flagged(ledger, a_ref())
    ledger.record(begun(ledger), [(a_look(standing=Standing.UNREACHED), a_decision(Step.PASS))])

    assert len(list(ledger.owed())) == 1
    assert len(ledger.history(STORE, "a.jpg").decisions) == 2


def test_an_object_too_large_to_be_hashed_settles_all_the_same(ledger: Ledger) -> None:
    look = replace(a_look(standing=Standing.BROKEN, reason=Reason.TOO_LARGE), sha256=None)
    ledger.record(begun(ledger), [(look, a_decision(Step.REVIEW))])

    assert ledger.settle(begun(ledger), [a_ref()], ENGINE) == {"a.jpg"}
    assert ledger.totals(ENGINE).lacking == {"broken: too large": 1}
    [entry] = ledger.entries()
    assert entry.sha256 is None


def test_a_gone_object_is_gone_until_it_is_listed_again(ledger: Ledger) -> None:
    ledger.record(begun(ledger), [(a_look(), a_decision())])
    ledger.record(begun(ledger), [(a_look(standing=Standing.GONE), None)])

    [entry] = ledger.entries()
    assert entry.gone
    assert list(ledger.owed()) == []
    assert ledger.totals(ENGINE).gone == 1
    assert ledger.settle(begun(ledger), [a_ref()], ENGINE) == {"a.jpg"}
    assert len(list(ledger.owed())) == 1


def test_what_a_complete_listing_did_not_meet_is_gone(ledger: Ledger) -> None:
    first = begun(ledger)
    ledger.settle(first, [a_ref("a"), a_ref("b")], ENGINE)
    ledger.settle(first, [a_ref("c", store=StoreName("other"))], ENGINE)
    second = begun(ledger)
    ledger.settle(second, [a_ref("a")], ENGINE)

    assert ledger.swept(second, STORE) == 1
    assert ledger.swept(second, STORE) == 0
    assert {entry.ref.key: entry.gone for entry in ledger.entries()} == {"a": False, "b": True, "c": False}


def test_a_sweep_spares_what_a_later_run_met(ledger: Ledger) -> None:
    early, late = begun(ledger), begun(ledger)
    ledger.settle(late, [a_ref("uploaded meanwhile")], ENGINE)
    ledger.settle(early, [a_ref("a")], ENGINE)

    assert ledger.swept(early, STORE) == 0


def test_a_size_that_no_column_holds_is_a_size_all_the_same(ledger: Ledger) -> None:
    ledger.settle(begun(ledger), [a_ref(size=2**70)], ENGINE)

    assert [entry.ref.size for entry in ledger.entries()] == [2**63 - 1]


# --- deciding


def test_a_persons_word_outlives_the_policy(ledger: Ledger) -> None:
    flagged(ledger, a_ref("a"), content="same")
    flagged(ledger, a_ref("b"), content="same")
    cleared = a_decision(Step.PASS, by="ada")

    assert ledger.verdict(a_hash("same")) is None
    assert ledger.clear(begun(ledger), a_hash("same"), cleared) == 2
    assert ledger.verdict(a_hash("same")) == cleared
    assert list(ledger.owed()) == []
    assert list(ledger.stale("policy-2")) == []
    assert [entry.decision for entry in ledger.entries()] == [cleared] * 2


def test_a_persons_word_about_bytes_nobody_holds_is_kept(ledger: Ledger) -> None:
    assert ledger.clear(begun(ledger), a_hash("nowhere"), a_decision(Step.PASS, by="ada")) == 0
    assert ledger.verdict(a_hash("nowhere")) == a_decision(Step.PASS, by="ada")


def test_only_what_another_policy_decided_is_stale(ledger: Ledger) -> None:
    run = begun(ledger)
    ledger.record(
        run,
        [
            (a_look(a_ref("old")), a_decision(Step.PASS, policy="old")),
            (a_look(a_ref("new")), a_decision(Step.PASS, policy="new")),
            (a_look(a_ref("none")), None),
            (a_look(a_ref("unreached"), Standing.UNREACHED), None),
            (a_look(a_ref("gone")), a_decision(Step.PASS, policy="old")),
        ],
    )
    ledger.record(run, [(a_look(a_ref("gone"), Standing.GONE), None)])

    assert [entry.ref.key for page in ledger.stale("new") for entry in page] == ["old", "none"]


def test_a_new_decision_replaces_the_old_one_and_both_stay_on_record(ledger: Ledger) -> None:
    ledger.record(begun(ledger), [(a_look(), a_decision(Step.PASS, policy="old"))])
    [[entry]] = ledger.stale("new")
    ledger.decide(begun(ledger), [(entry, a_decision(policy="new"))])

    assert [decided.decision.policy for decided in ledger.history(STORE, "a.jpg").decisions] == ["old", "new"]
    assert [owed.decision.policy for owed in ledger.owed()] == ["new"]
    assert list(ledger.stale("new")) == []


def test_a_rejudgement_never_overrules_a_person_or_speaks_of_other_bytes(ledger: Ledger) -> None:
    ledger.record(begun(ledger), [(a_look(a_ref("a")), a_decision(Step.PASS)), (a_look(a_ref("b")), a_decision(Step.PASS))])
    [[a, b]] = ledger.stale("new")
    ledger.clear(begun(ledger), a_hash("a"), a_decision(Step.PASS, by="ada"))
    ledger.record(begun(ledger), [(a_look(a_ref("b"), content="other"), a_decision(Step.PASS, policy="new"))])
    ledger.decide(begun(ledger), [(a, a_decision()), (b, a_decision())])

    assert list(ledger.owed()) == []


def test_many_stale_pages_are_walked_while_they_are_decided(ledger: Ledger) -> None:
    ledger.record(begun(ledger), [(a_look(a_ref(f"{n:04}")), a_decision(Step.PASS)) for n in range(1200)])
    run = begun(ledger)
    for page in ledger.stale("new"):
        ledger.decide(run, [(entry, a_decision(Step.PASS, policy="new")) for entry in page])

    assert [entry for page in ledger.stale("new") for entry in page] == []
    assert {entry.decision and entry.decision.policy for entry in ledger.entries()} == {"new"}


# --- owing and doing


def test_the_worst_is_owed_first_and_then_the_oldest(ledger: Ledger) -> None:
    for key, rank in (("a", 1), ("b", 9), ("c", 1), ("d", 9)):
        flagged(ledger, a_ref(key), rank=rank)

    assert [owed.ref.key for owed in ledger.owed()] == ["b", "d", "a", "c"]
    assert [owed.ref.key for owed in ledger.owed(only=["a", "d", "nowhere"])] == ["d", "a"]


def test_more_than_a_page_is_owed_once_each(ledger: Ledger) -> None:
    run = begun(ledger)
    ledger.record(run, [(a_look(a_ref(f"{n}")), a_decision(rank=n % 3)) for n in range(1100)])

    keys = [owed.ref.key for owed in ledger.owed()]
    assert len(keys) == len(set(keys)) == ledger.totals(ENGINE).owed == 1100


def test_passed_and_reviewed_objects_owe_nothing(ledger: Ledger) -> None:
    ledger.record(begun(ledger), [(a_look(a_ref("a")), a_decision(Step.PASS)), (a_look(a_ref("b")), a_decision(Step.REVIEW))])

    assert list(ledger.owed()) == []


def test_drills_are_owed_and_counted_apart(ledger: Ledger) -> None:
    flagged(ledger, a_ref("real"))
    flagged(ledger, a_ref("drill"), drill=True)
    do(ledger, a_ref("drill"), DeedState.BEGUN)

    assert [owed.ref.key for owed in ledger.owed(drill=True)] == ["drill"]
    assert [owed.ref.key for owed in ledger.owed(drill=False)] == ["real"]
    assert (ledger.acted(NOW, drill=True), ledger.acted(NOW, drill=False)) == (1, 0)
    totals = ledger.totals(ENGINE)
    assert (totals.owed, totals.owed_drill) == (1, 1)


@pytest.mark.parametrize("states", [["begun"], ["begun", "sealed"], ["begun", "sealed", "moved"], ["begun", "failed"]])
def test_an_unfinished_deed_is_still_owed_and_tells_how_far_it_got(ledger: Ledger, states: list[str]) -> None:
    flagged(ledger, a_ref())
    do(ledger, a_ref(), *map(DeedState, states))

    [owed] = ledger.owed()
    assert owed.last == an_event(ledger, a_ref(), DeedState(states[-1]))


def test_an_unfinished_deed_is_owed_even_if_the_object_is_no_longer_listed(ledger: Ledger) -> None:
    flagged(ledger, a_ref())
    do(ledger, a_ref(), DeedState.BEGUN, DeedState.SEALED)
    ledger.swept(begun(ledger), STORE)

    assert [owed.ref.key for owed in ledger.owed()] == ["a.jpg"]


def test_a_done_deed_is_not_owed_and_the_object_is_hidden_not_gone(ledger: Ledger) -> None:
    flagged(ledger, a_ref())
    do(ledger, a_ref(), DeedState.BEGUN, DeedState.SEALED, DeedState.MOVED, DeedState.DONE)
    assert ledger.swept(begun(ledger), STORE) == 0

    assert list(ledger.owed()) == []
    [entry] = ledger.entries(deed=DeedState.DONE)
    assert entry.hidden
    assert not entry.gone
    assert entry.deed == (Act.HIDE, DeedState.DONE)
    assert [event.state for event in ledger.hidden()] == [DeedState.DONE]
    assert ledger.totals(ENGINE) == Totals(items=1, hidden=1, seen=1)


def test_a_rejudged_hidden_object_is_not_owed(ledger: Ledger) -> None:
    flagged(ledger, a_ref())
    [entry] = ledger.entries()
    do(ledger, a_ref(), DeedState.BEGUN, DeedState.DONE)
    ledger.decide(begun(ledger), [(entry, a_decision(policy="new"))])

    assert list(ledger.owed()) == []


def test_the_same_bytes_put_back_by_their_uploader_are_looked_at_and_owed_again(ledger: Ledger) -> None:
    flagged(ledger, a_ref())
    do(ledger, a_ref(), DeedState.BEGUN, DeedState.DONE)

    run = begun(ledger)
    assert ledger.settle(run, [a_ref()], ENGINE) == set()
    assert list(ledger.owed()) == []
    ledger.record(run, [(a_look(), a_decision())])
    assert [owed.last for owed in ledger.owed()] == [None]


def test_a_hidden_object_that_a_running_scan_still_listed_is_hidden_again_after_the_next_sweep(ledger: Ledger) -> None:
    flagged(ledger, a_ref())
    do(ledger, a_ref(), DeedState.BEGUN, DeedState.DONE)
    run = begun(ledger)
    ledger.settle(run, [a_ref()], ENGINE)
    ledger.record(run, [(a_look(standing=Standing.GONE), None)])

    [entry] = ledger.entries()
    assert entry.hidden
    assert list(ledger.owed()) == []


def test_changed_bytes_owe_nothing_until_they_are_looked_at(ledger: Ledger) -> None:
    flagged(ledger, a_ref())
    do(ledger, a_ref(), DeedState.BEGUN, DeedState.CHANGED)

    assert list(ledger.owed()) == []
    assert ledger.totals(ENGINE).lacking == {"changed since": 1}
    assert ledger.settle(begun(ledger), [a_ref()], ENGINE) == set()
    ledger.record(begun(ledger), [(a_look(), a_decision())])
    assert len(list(ledger.owed())) == 1


def test_a_deed_about_bytes_no_longer_there_says_nothing_about_the_new_ones(ledger: Ledger) -> None:
    flagged(ledger, a_ref())
    done = an_event(ledger, a_ref(), DeedState.DONE)
    flagged(ledger, a_ref(), content="new bytes")
    ledger.did(done)

    [entry] = ledger.entries()
    assert not entry.hidden
    assert entry.deed is None
    assert [owed.sha256 for owed in ledger.owed()] == [a_hash("new bytes")]
    assert [event.sha256 for event in ledger.hidden()] == [a_hash("a.jpg")]


def test_a_restored_object_is_back_and_owes_nothing(ledger: Ledger) -> None:
    flagged(ledger, a_ref())
    do(ledger, a_ref(), DeedState.BEGUN, DeedState.DONE)
    ledger.clear(begun(ledger), a_hash("a.jpg"), a_decision(Step.PASS, by="ada"))
    do(ledger, a_ref(), DeedState.BEGUN, act=Act.RESTORE)
    assert len(list(ledger.hidden())) == 1
    do(ledger, a_ref(), DeedState.DONE, act=Act.RESTORE)

    assert list(ledger.hidden()) == []
    assert list(ledger.owed()) == []
    [entry] = ledger.entries()
    assert not entry.hidden
    assert not entry.gone
    assert [event.state for event in ledger.history(STORE, "a.jpg").deeds] == [
        DeedState.BEGUN,
        DeedState.DONE,
        DeedState.BEGUN,
        DeedState.DONE,
    ]


def test_what_is_hidden_is_found_by_store_and_key_newest_first(ledger: Ledger) -> None:
    for key in ("a", "b"):
        flagged(ledger, a_ref(key))
        do(ledger, a_ref(key), DeedState.BEGUN, DeedState.MOVED, DeedState.DONE)

    assert [event.key for event in ledger.hidden()] == ["b", "a"]
    assert [event.key for event in ledger.hidden(key="a", store=STORE)] == ["a"]
    assert list(ledger.hidden(key="a", store=StoreName("other"))) == []
    place = next(ledger.hidden()).place
    assert place is not None
    assert place.facts == {"mode": "0644"}


def test_the_allowance_counts_objects_not_tries_and_only_since_then(ledger: Ledger) -> None:
    for key in ("a", "b"):
        flagged(ledger, a_ref(key))
    yesterday = NOW - timedelta(days=1)
    ledger.did(an_event(ledger, a_ref("a"), DeedState.BEGUN, at=yesterday))
    do(ledger, a_ref("b"), DeedState.BEGUN, DeedState.FAILED, DeedState.BEGUN)

    assert ledger.acted(NOW - timedelta(hours=1), drill=False) == 1
    assert ledger.acted(yesterday, drill=False) == 2


# --- seeing


def test_entries_come_in_order_and_by_condition(ledger: Ledger) -> None:
    run = begun(ledger)
    keys = [f"{n:04}" for n in range(1100)]
    ledger.settle(run, [a_ref(key) for key in reversed(keys[:1000])], ENGINE)
    ledger.settle(run, [a_ref(key) for key in keys[1000:]], ENGINE)
    ledger.record(
        run,
        [
            (a_look(a_ref("0001")), a_decision()),
            (a_look(a_ref("0002"), Standing.BROKEN), a_decision(Step.PASS)),
            (a_look(a_ref("0003"), partly=True), a_decision(Step.REVIEW)),
        ],
    )

    assert [entry.ref.key for entry in ledger.entries()] == keys
    assert [entry.ref.key for entry in ledger.entries(step=Step.QUARANTINE)] == ["0001"]
    assert [entry.ref.key for entry in ledger.entries(standing=Standing.BROKEN)] == ["0002"]
    assert [entry.ref.key for entry in ledger.entries(store=STORE, key="0003")] == ["0003"]
    assert len(list(ledger.entries(not_scanned=True))) == 1099
    assert ledger.totals(ENGINE) == Totals(
        objects=1100,
        items=3,
        looked_at=3,
        not_scanned=1099,
        lacking={"never looked at": 1097, "broken: truncated": 1, "partly": 1},
        flagged=1,
        review=1,
        passed=1,
        owed=1,
        seen=2,
    )


def test_an_unknown_object_has_no_history(ledger: Ledger) -> None:
    history = ledger.history(STORE, "nowhere")

    assert (history.looks, history.decisions, history.deeds) == ((), (), ())
    assert ledger.entry(STORE, "nowhere") is None


def test_many_threads_write_and_read_at_once(ledger: Ledger) -> None:
    failures: list[BaseException] = []

    def work(name: str) -> None:
        try:
            run = begun(ledger)
            for n in range(10):
                refs: list[ObjectRef] = [a_ref(f"{name}/{n}/{m}") for m in range(5)]
                ledger.settle(run, refs, ENGINE)
                ledger.record(run, [(a_look(ref), a_decision()) for ref in refs])
                assert ledger.known(a_hash(refs[0].key), ENGINE) is not None
                do(ledger, refs[0], DeedState.BEGUN, DeedState.DONE)
                list(ledger.entries())
        except BaseException as error:  # noqa: BLE001 - told to the test
            failures.append(error)

    threads = [Thread(target=work, args=(str(n),)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert ledger.totals(ENGINE).owed == 160
    assert len(list(ledger.hidden())) == 40


# --- what the cascade showed


def drawn(score: float = 0.0) -> list[Finding]:
    """What is found in an object that the dear analyser saw only because it was drawn."""
    return [Finding("sampled", 1.0, "cascade", "1"), a_finding(score)]


def test_what_the_sample_found_still_counts_when_it_was_hidden(ledger: Ledger) -> None:
    run = begun(ledger)
    ledger.record(run, [(a_look(a_ref("found"), findings=drawn(0.9)), a_decision())])
    ledger.record(run, [(a_look(a_ref(f"other-{n}"), findings=drawn()), a_decision(Step.PASS)) for n in range(3)])
    before = ledger.totals(ENGINE)

    do(ledger, a_ref("found"), DeedState.BEGUN, DeedState.SEALED, DeedState.MOVED, DeedState.DONE)
    after = ledger.totals(ENGINE)

    assert (before.seen, before.sampled, before.sampled_contents, before.sampled_flagged) == (4, 4, 4, 1)
    assert (after.seen, after.sampled, after.sampled_contents, after.sampled_flagged) == (4, 4, 4, 1)
    assert (after.objects, after.hidden) == (3, 1)


def test_the_sample_is_of_contents_so_that_the_same_bytes_count_once(ledger: Ledger) -> None:
    run = begun(ledger)
    many = [(a_look(a_ref(f"copy-{n}"), content="one", findings=drawn(0.9)), a_decision()) for n in range(9)]

    ledger.record(run, [*many, (a_look(a_ref("other"), findings=drawn()), a_decision(Step.PASS))])

    found = ledger.totals(ENGINE)
    assert (found.seen, found.sampled, found.sampled_contents, found.sampled_flagged) == (10, 10, 2, 1)


def test_drills_are_no_find_of_the_sample_and_what_was_not_seen_is_not_in_it(ledger: Ledger) -> None:
    run = begun(ledger)
    ledger.record(run, [(a_look(a_ref("drill"), findings=drawn()), a_decision(drill=True))])
    ledger.record(run, [(a_look(a_ref("broken"), Standing.BROKEN, findings=drawn(0.9)), a_decision())])
    ledger.record(run, [(a_look(a_ref("later"), findings=drawn()), a_decision(Step.PASS))])
    ledger.record(run, [(a_look(a_ref("later"), Standing.UNREACHED), None)])

    found = ledger.totals(ENGINE)

    assert (found.seen, found.further, found.sampled, found.sampled_flagged) == (1, 0, 1, 0)
