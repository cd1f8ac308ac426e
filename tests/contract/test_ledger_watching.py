"""What the ledger promises a watching process: marks that last, objects that still need a look, and a sweep that takes nothing back."""

from datetime import timedelta
from pathlib import Path

from tests.support.ledgers import ENGINE, NOW, a_decision, a_look, a_ref, begun

from fediwarden.ledger import Ledger
from fediwarden.model import EngineVersion, ObjectRef, StoreName

STORE = StoreName("media")


def keys(ledger: Ledger, engine: EngineVersion = ENGINE, limit: int = 1000) -> list[str]:
    return [ref.key for page in ledger.watching.unsettled(a_ref().store, engine, limit) for ref in page]


def test_a_mark_lasts_and_its_newest_value_stands(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        assert ledger.watching.mark("store media") == {}
        ledger.watching.remember("store media", {"position": "a", "count": 1}, NOW)
        ledger.watching.remember("store media", {"position": "b"}, NOW)
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        assert ledger.watching.mark("store media") == {"position": "b"}
        assert ledger.watching.mark("store other") == {}


def test_what_this_engine_has_not_settled_is_known_without_asking_the_store() -> None:
    with Ledger.open(":memory:") as ledger:
        run = begun(ledger)
        refs = [a_ref(f"{number}") for number in range(4)]
        ledger.settle(run, refs, ENGINE)
        assert keys(ledger) == ["3", "2", "1", "0"]

        ledger.record(run, [(a_look(ref), None) for ref in refs[:3]])
        assert keys(ledger) == ["3"]
        assert keys(ledger, EngineVersion("another")) == ["3", "2", "1", "0"]

        replaced = ObjectRef(refs[0].store, refs[0].key, 9, "another stamp")
        ledger.settle(run, [replaced], ENGINE)
        assert keys(ledger) == ["3", "0"]
        ledger.swept(begun(ledger), refs[0].store)
        assert keys(ledger) == []


def test_a_sweep_takes_back_nothing_that_was_looked_at_after_it_began() -> None:
    with Ledger.open(":memory:") as ledger:
        gate = begun(ledger)  # a long-lived run that began before the sweep
        sweep = begun(ledger)
        old, new = a_ref("old"), a_ref("new")
        ledger.record(gate, [(a_look(old, at=NOW - timedelta(hours=1)), None)])
        ledger.record(gate, [(a_look(new, at=NOW + timedelta(minutes=1)), None)])

        assert ledger.swept(sweep, new.store) == 1
        found = {entry.ref.key: entry.gone for entry in ledger.entries()}
        assert found == {"old": True, "new": False}


def test_what_was_suspected_since_is_counted_once_and_drills_are_not() -> None:
    with Ledger.open(":memory:") as ledger:
        run = begun(ledger)
        assert ledger.watching.flagged(0).objects == 0
        ledger.record(run, [(a_look(a_ref("a")), a_decision()), (a_look(a_ref("b")), a_decision(drill=True))])
        first = ledger.watching.flagged(0)
        assert first.objects == 1
        assert ledger.watching.flagged(first.last) == type(first)(0, first.last)


def test_how_long_objects_were_not_scanned_is_told_by_reason() -> None:
    with Ledger.open(":memory:") as ledger:
        run = begun(ledger)
        ledger.settle(run, [ObjectRef(STORE, "a", 1, "s", NOW - timedelta(days=2)), ObjectRef(STORE, "b", 1, "s", NOW)], ENGINE)
        assert ledger.watching.oldest(ENGINE) == {"never looked at": NOW - timedelta(days=2)}
