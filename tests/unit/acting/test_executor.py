"""What is owed is done once, within the allowance, sealed before it is hidden, and can be undone; whatever breaks in between."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from itertools import count
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from structlog.testing import capture_logs
from tests.support.core import POLICY, Core
from tests.support.installation import METADATA, Crash, Mortal, Yard

from fediwarden.acting.executor import Outcome, spot_of
from fediwarden.acting.plan import midnight
from fediwarden.app import acting_alone
from fediwarden.errors import BadEvidence, Busy, CannotWrite, Misconfigured, Refused, Unreached
from fediwarden.ledger import Doubt, Listed
from fediwarden.model import Act, Decision, DeedState, Finding, Frame, Sha256, Step, StoreName
from fediwarden.pipeline import rejudge
from fediwarden.policy import parse
from fediwarden.stores.memory import MemoryStore
from fediwarden.vault import Identity, make_identities


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Events are collected instead of drawn on a terminal."""
    with capture_logs():
        yield


@pytest.fixture(scope="session")
def identities(tmp_path_factory: pytest.TempPathFactory) -> list[Identity]:
    return make_identities(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def new_yard(tmp_path: Path, identities: list[Identity]) -> Callable[..., Yard]:
    numbers = count()

    def make(objects: dict[str, bytes] | None = None, **other: object) -> Yard:
        yard = Yard(
            MemoryStore("memory", objects or {}), Mortal.open(":memory:"), folder=tmp_path / f"{next(numbers)}", keys=identities
        )
        yard = replace(yard, **other)  # type: ignore[arg-type]
        yard.scan()
        return yard

    return make


HIDDEN = [(Act.HIDE, state) for state in (DeedState.BEGUN, DeedState.SEALED, DeedState.MOVED, DeedState.DONE)]


# -- hiding ------------------------------------------------------------------------------------------------------------------


def test_what_is_owed_is_sealed_then_hidden_then_read_back_and_nothing_else_is_touched(new_yard: Callable[..., Yard]) -> None:
    yard = new_yard({"a": b"bad", "b": b"dark", "c": b"hmm"})

    def before(step: str, key: str) -> None:
        assert key == "a"
        if step in ("copy", "delete"):
            assert yard.sealed(b"bad")
            assert yard.states("a")[-1] == (Act.HIDE, DeedState.SEALED)

    yard.store.before = before
    results = yard.apply()

    assert [(result.key, result.outcome) for result in results] == [("a", Outcome.DONE)]
    assert yard.store.objects == {"b": b"dark", "c": b"hmm"}
    assert list(yard.store.hidden.values()) == [b"bad"]
    assert yard.states("a") == HIDDEN
    assert yard.owed == []
    assert yard.apply() == []


def test_a_spot_is_told_by_content_and_name_whatever_the_name_holds() -> None:
    digest = Sha256("ab" * 32)
    names = ["a", "b", "../../etc/passwd", "a\nb", "\udcff", "x" * 2000]
    spots = {spot_of(StoreName("media"), name, digest) for name in names}

    assert len(spots) == len(names)
    assert all(spot.startswith(f"ab/{digest}-") and len(spot) < 100 for spot in spots)
    assert spot_of(StoreName("media"), "a", digest) == spot_of(StoreName("media"), "a", digest)


# -- the allowance -------------------------------------------------------------------------------------------------------------


def test_the_allowance_takes_the_worst_first_and_begins_anew_at_midnight_utc(new_yard: Callable[..., Yard]) -> None:
    yard = new_yard({"odd": b"odd", "bad1": b"bad 1", "bad2": b"bad 2", "odd2": b"odd 2", "bad3": b"bad 3"})
    plan = yard.plan(allowance=2, drill_allowance=0)
    assert (plan.owed, plan.left_today, plan.over, len(plan.todo)) == (5, 2, 3, 2)

    assert all(key.startswith("bad") for key in yard.keys_of(yard.apply(2)))
    assert yard.apply(2) == []
    yard.clock.turn(hours=11, minutes=59)
    assert yard.apply(2) == []
    yard.clock.turn(minutes=1)
    assert len(yard.apply(2)) == 2
    assert len(yard.owed) == 1
    yard.clock.turn(days=3)
    assert len(yard.apply(2)) == 1


def test_midnight_is_that_of_utc_wherever_the_clock_is() -> None:
    here = datetime(2026, 5, 7, 1, 30, tzinfo=ZoneInfo("Europe/Berlin"))
    assert midnight(here) == datetime(2026, 5, 6, tzinfo=UTC)


def test_a_clock_that_jumps_back_gives_no_second_allowance(new_yard: Callable[..., Yard]) -> None:
    yard = new_yard({f"{number}": f"bad {number}".encode() for number in range(6)})
    assert len(yard.apply(2)) == 2
    yard.clock.now = datetime(1970, 1, 1, tzinfo=UTC)

    assert yard.apply(2) == []
    assert yard.plan(allowance=2, drill_allowance=0).over == 4


def test_limit_only_and_a_zero_allowance_do_what_they_say(new_yard: Callable[..., Yard]) -> None:
    yard = new_yard({"a": b"bad a", "b": b"bad b", "c": b"odd c"})
    assert yard.apply(0) == []
    assert len(yard.apply(limit=1)) == 1
    executor = yard.executor
    (result,) = executor.apply(yard.plan(allowance=9, drill_allowance=0, only=["c"]))
    assert result.key == "c"
    assert len(yard.owed) == 1


@dataclass
class Marks:
    """An analyser that finds a drill marker in frames of one brightness."""

    value: int
    name: str = "drill"
    version: str = ""

    def analyse(self, frames: object) -> list[Finding]:
        assert isinstance(frames, list)
        marked = [frame for frame in frames if isinstance(frame, Frame) and frame.rgb[0] == self.value]
        return [Finding("drill", 1.0, "drill", "", frame.index) for frame in marked]


def test_drills_have_an_allowance_and_a_vault_of_their_own(new_yard: Callable[..., Yard]) -> None:
    yard = new_yard({"d1": b"hmm 1", "d2": b"hmm 2", "bad": b"bad"}, analysers=(*Core().analysers, Marks(100)))
    first = yard.apply(allowance=0, drills=1)

    assert [result.drill for result in first] == [True]
    assert yard.vaults.drills.check(first[0].sha256)
    assert not yard.vaults.evidence.check(first[0].sha256)
    assert yard.apply(allowance=0, drills=1) == []
    assert yard.keys_of(yard.apply(allowance=1, drills=0)) == ["bad"]
    assert yard.plan(allowance=1, drill_allowance=2).left_today == 0


# -- what fails stays owed ---------------------------------------------------------------------------------------------------------


def test_a_deed_that_failed_stays_owed_is_free_the_same_day_and_counts_once_on_another(new_yard: Callable[..., Yard]) -> None:
    yard = new_yard({"a": b"bad a", "b": b"odd b"})

    def immovable(step: str, key: str) -> None:
        if step == "copy" and key == "a":
            raise Refused("immutable", hint="chattr -i")

    yard.store.before = immovable
    (failed,) = yard.apply(1)
    assert (failed.key, failed.outcome, failed.hint) == ("a", Outcome.FAILED, "chattr -i")
    assert yard.store.objects["a"] == b"bad a"
    assert yard.owed == ["a", "b"]
    (again,) = yard.apply(1)
    assert (again.key, again.outcome) == ("a", Outcome.FAILED)
    assert yard.plan(allowance=1, drill_allowance=0).over == 1

    yard.clock.turn(days=1)
    assert yard.keys_of(yard.apply(1)) == ["b"]  # what was never tried comes before what failed on another day
    yard.clock.turn(days=1)
    yard.store.before = None
    assert yard.keys_of(yard.apply(1)) == ["a"]
    assert yard.apply(1) == []


def test_objects_that_cannot_be_hidden_do_not_use_up_the_allowance_of_every_day(new_yard: Callable[..., Yard]) -> None:
    stuck, free = (
        {f"{word}{n}": f"{light} {n}".encode() for n in range(8)} for word, light in (("stuck", "bad"), ("free", "odd"))
    )
    yard = new_yard(stuck | free)

    def immovable(step: str, key: str) -> None:
        if step == "copy" and key.startswith("stuck"):
            raise Refused("immutable")

    yard.store.before = immovable
    for _ in range(6):
        assert len(yard.apply(3, drills=0)) == 3
        yard.clock.turn(days=1)

    assert yard.store.objects == stuck
    assert sorted(yard.owed) == sorted(stuck)
    plan = yard.plan(allowance=3, drill_allowance=0)
    assert (len(plan.todo), plan.over, plan.owed) == (3, 5, 8)


def test_other_bytes_under_the_key_are_left_alone_and_not_owed_until_they_are_looked_at(new_yard: Callable[..., Yard]) -> None:
    yard = new_yard({"a": b"bad"})
    yard.store.put("a", b"odd")
    (result,) = yard.apply()

    assert result.outcome is Outcome.CHANGED
    assert yard.store.objects == {"a": b"odd"}
    assert not yard.sealed(b"bad")
    assert yard.owed == []
    yard.scan()
    assert yard.owed == ["a"]
    assert yard.keys_of(yard.apply()) == ["a"]


def test_an_object_somebody_else_took_away_is_gone_and_owed_no_more(new_yard: Callable[..., Yard]) -> None:
    yard = new_yard({"a": b"bad"})
    yard.store.delete("a")
    (result,) = yard.apply()

    assert result.outcome is Outcome.GONE
    assert yard.owed == []
    assert yard.entry("a").gone


def test_what_a_store_that_is_not_believed_does_not_have_stays_owed(new_yard: Callable[..., Yard]) -> None:
    yard = new_yard({"a": b"bad"})
    yard.store.delete("a")
    doubt = Doubt(yard.store.name, 0, 41, 41, yard.clock())
    yard.ledger.watching.remember_listed(yard.store.name, Listed(41, yard.begun(), doubt), yard.clock())

    (result,) = yard.apply()

    assert (result.outcome, result.unreached) == (Outcome.FAILED, True)
    assert "listed 41 when that was last believed" in result.problem
    assert yard.owed == ["a"]
    assert not yard.entry("a").gone


def test_an_object_larger_than_may_be_held_is_a_failure_that_shows_and_stays(new_yard: Callable[..., Yard]) -> None:
    yard = new_yard({"a": b"bad" * 100, "b": b"odd"}, limit=100)
    results = yard.apply()

    assert {result.key: result.outcome for result in results} == {"a": Outcome.FAILED, "b": Outcome.DONE}
    assert yard.owed == ["a"]


@pytest.mark.parametrize(
    "error",
    [ValueError("embedded null byte"), BadEvidence("not what was sealed"), Misconfigured("no credentials"), Unreached("no")],
)
def test_one_odd_object_never_keeps_the_others_from_being_hidden(new_yard: Callable[..., Yard], error: Exception) -> None:
    yard = new_yard({"a": b"bad", "b": b"odd b", "c": b"odd c"})

    def breaks(_: str, key: str) -> None:
        if key == "a":
            raise error

    yard.store.before = breaks
    executor = yard.executor
    plan = yard.plan(allowance=9, drill_allowance=0)
    raises: AbstractContextManager[object] = pytest.raises(Misconfigured) if isinstance(error, Misconfigured) else nullcontext()
    with raises:  # when all the others were tried
        list(executor.apply(plan))
    assert yard.store.objects == {"a": b"bad"}
    assert yard.states("a")[-1] == (Act.HIDE, DeedState.FAILED)
    assert yard.owed == ["a"]


def test_a_damaged_sealed_copy_stops_its_own_object_only(new_yard: Callable[..., Yard]) -> None:
    yard = new_yard({"a": b"bad", "b": b"odd"})
    vault = yard.vaults.evidence
    sealed = vault.seal(b"bad", yard.entry("a").sha256 or Sha256(""), store=StoreName("x"), key="x", at=yard.clock(), because={})
    sealed.path.write_bytes(b"damaged")
    results = {result.key: result for result in yard.apply()}

    assert results["b"].outcome is Outcome.DONE
    assert results["a"].outcome is Outcome.FAILED
    assert "damaged" in results["a"].problem
    assert yard.store.objects == {"a": b"bad"}


def test_a_full_disk_under_the_vault_touches_nothing_and_stops(new_yard: Callable[..., Yard]) -> None:
    yard = new_yard({"a": b"bad"})
    (yard.folder).mkdir(exist_ok=True)
    (yard.folder / "vault-False").write_text("not a folder")

    with pytest.raises(CannotWrite):
        yard.apply()
    assert yard.store.objects == {"a": b"bad"}
    assert yard.owed == ["a"]


def test_a_hidden_copy_that_strangers_can_fetch_is_an_alarm_until_it_is_not(new_yard: Callable[..., Yard]) -> None:
    yard = new_yard({"a": b"bad"})
    yard.store.public = True
    (result,) = yard.apply()

    assert result.outcome is Outcome.FAILED
    assert "anybody" in result.problem
    assert result.hint
    assert yard.owed == ["a"]
    yard.store.public = False
    (result,) = yard.apply()
    assert result.outcome is Outcome.DONE
    assert len(yard.store.hidden) == 1


def test_a_hidden_copy_that_is_missing_at_the_next_try_is_never_called_gone(new_yard: Callable[..., Yard]) -> None:
    """Such as after the quarantine place was changed in the configuration: the copy still lies somewhere, perhaps in public."""
    yard = new_yard({"a": b"bad"})
    yard.store.public = True
    yard.apply()
    elsewhere = MemoryStore("memory")
    yard.stores["memory"] = elsewhere
    (result,) = yard.apply()

    assert result.outcome is Outcome.FAILED
    assert "quarantine" in result.hint
    assert yard.owed == ["a"]


def test_what_was_decided_anew_after_the_plan_was_made_is_left_alone(new_yard: Callable[..., Yard]) -> None:
    yard = new_yard({"a": b"bad", "b": b"odd"})
    executor = yard.executor
    plan = yard.plan(allowance=9, drill_allowance=0)
    digest = yard.entry("a").sha256
    assert digest is not None
    yard.ledger.clear(yard.begun("restore"), digest, Decision(Step.PASS, "a person", "a cat", by="ada"))
    rejudge(yard.ledger, yard.begun("rejudge"), parse(_policy("odd is worse"), "x"))
    results = {result.key: result.outcome for result in executor.apply(plan)}

    assert results == {"a": Outcome.CHANGED, "b": Outcome.DONE}
    assert yard.store.objects == {"a": b"bad"}
    assert yard.states("a") == []
    assert yard.owed == []


def _policy(words: str) -> str:
    return POLICY.replace("it is light", words)


def test_a_scan_that_fetched_before_and_records_after_an_apply_makes_nothing_happen_twice(new_yard: Callable[..., Yard]) -> None:
    yard = new_yard({"a": b"bad"})
    look = yard.entry("a").look
    decision = yard.entry("a").decision
    assert look is not None
    yard.apply()
    yard.ledger.record(yard.begun(), [(look, decision)])
    yard.apply()
    yard.scan()

    assert list(yard.store.hidden.values()) == [b"bad"]
    assert yard.owed == []
    assert len(list(yard.ledger.hidden())) == 1
    assert yard.restore("a").outcome is Outcome.DONE
    assert yard.store.objects == {"a": b"bad"}


# -- profiles and places ---------------------------------------------------------------------------------------------------------------


def test_a_profile_that_keeps_metadata_only_seals_nothing_and_can_still_be_undone(new_yard: Callable[..., Yard]) -> None:
    yard = new_yard({"a": b"bad"}, profile=METADATA)
    (result,) = yard.apply()

    assert result.outcome is Outcome.DONE
    assert yard.states("a") == [state for state in HIDDEN if state[1] is not DeedState.SEALED]
    assert not yard.folder.exists()
    assert yard.restore("a").outcome is Outcome.DONE
    assert yard.store.objects == {"a": b"bad"}


def test_removing_without_sealing_is_refused_for_it_would_destroy(new_yard: Callable[..., Yard]) -> None:
    yard = new_yard({"a": b"bad"}, profile=METADATA, removes=True)

    with pytest.raises(Misconfigured, match="only copy would be destroyed"):
        yard.apply()
    assert yard.store.objects == {"a": b"bad"}
    assert yard.owed == ["a"]


def test_what_only_the_vault_holds_comes_back_with_a_private_key_and_not_without(new_yard: Callable[..., Yard]) -> None:
    yard = new_yard({"a": b"bad"}, removes=True)
    yard.apply()
    assert (yard.store.objects, yard.store.hidden) == ({}, {})

    with pytest.raises(Misconfigured, match="only the vault"):
        yard.restore("a")
    assert yard.states("a")[-1] == (Act.RESTORE, DeedState.FAILED)
    assert yard.restore("a", with_key=True).outcome is Outcome.DONE
    assert yard.store.objects == {"a": b"bad"}


def test_a_lost_quarantine_copy_comes_back_from_the_vault(new_yard: Callable[..., Yard]) -> None:
    yard = new_yard({"a": b"bad"})
    yard.apply()
    yard.stores["memory"] = MemoryStore("memory")

    without = yard.restore("a")
    assert without.outcome is Outcome.FAILED
    assert yard.restore("a", with_key=True).outcome is Outcome.DONE
    assert yard.stores["memory"].objects == {"a": b"bad"}


# -- restoring -------------------------------------------------------------------------------------------------------------------------


def test_a_person_s_word_is_on_record_with_done_and_not_before(new_yard: Callable[..., Yard]) -> None:
    yard = new_yard({"a": b"bad"})
    yard.apply()
    digest = yard.entry("a").sha256
    assert digest is not None
    words: list[Decision | None] = []
    yard.store.before = lambda _step, _key: words.append(yard.ledger.verdict(digest))

    assert yard.restore("a").outcome is Outcome.DONE

    assert words
    assert set(words) == {None}
    verdict = yard.ledger.verdict(digest)
    assert verdict is not None
    assert (verdict.step, verdict.by, verdict.because) == (Step.PASS, "ada", "a cat")
    yard.store.before = None
    yard.scan()
    assert yard.owed == []
    assert yard.apply() == []


def test_a_ledger_that_can_take_no_more_at_the_end_of_a_restore_has_neither_word_nor_done(new_yard: Callable[..., Yard]) -> None:
    yard = new_yard({"a": b"bad"})
    yard.apply()
    assert isinstance(yard.ledger, Mortal)
    yard.ledger.dies_at, yard.ledger.before = 3, True  # begun, moved, done

    with pytest.raises(Crash):
        yard.restore("a")

    assert yard.ledger.verdict(Sha256(sha256(b"bad").hexdigest())) is None
    assert yard.states("a")[-1] == (Act.RESTORE, DeedState.MOVED)


@pytest.mark.parametrize("error", [Unreached("no answer"), ValueError("of ours")])
@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_restore_that_fails_leaves_no_word_and_what_it_brought_back_is_hidden_again(
    new_yard: Callable[..., Yard], step: int, error: Exception
) -> None:
    yard = new_yard({"a": b"bad"})
    yard.apply()
    steps = count(1)

    def fail(_step: str, _key: str) -> None:
        if next(steps) == step:
            raise error

    yard.store.before = fail
    result = yard.restore("a")

    assert result.outcome is Outcome.FAILED
    assert "nothing of it is back" in result.problem
    assert yard.store.objects == {}
    assert yard.ledger.verdict(result.sha256) is None
    assert yard.owed == []
    assert len(list(yard.ledger.hidden())) == 1
    yard.store.before = None
    assert yard.restore("a").outcome is Outcome.DONE
    assert yard.store.objects == {"a": b"bad"}


def test_what_a_failed_restore_brought_back_is_owed_where_it_cannot_be_hidden_again_and_the_next_apply_hides_it(
    new_yard: Callable[..., Yard],
) -> None:
    yard = new_yard({"a": b"bad"}, removes=True)
    yard.apply()
    steps = count(1)

    def fail(_step: str, _key: str) -> None:
        if next(steps) > 1:  # written, and from then on no answer
            raise Unreached("no answer")

    yard.store.before = fail
    result = yard.restore("a", with_key=True)

    assert (result.outcome, yard.store.objects) == (Outcome.FAILED, {"a": b"bad"})
    assert "owed" in result.problem
    assert yard.owed == ["a"]
    yard.store.before = None
    assert yard.keys_of(yard.apply(0)) == ["a"]  # it was counted when it was hidden first
    assert yard.store.objects == {}


def test_a_restore_without_the_key_it_needs_touches_nothing_and_makes_nothing_owed(new_yard: Callable[..., Yard]) -> None:
    yard = new_yard({"a": b"bad"}, removes=True)
    yard.apply()

    with pytest.raises(Misconfigured, match="only the vault holds"):
        yard.restore("a")

    assert yard.owed == []
    assert yard.ledger.verdict(Sha256(sha256(b"bad").hexdigest())) is None
    assert yard.states("a")[-1] == (Act.RESTORE, DeedState.FAILED)


def test_a_word_that_an_earlier_failed_restore_left_is_told_by_the_next_one_and_by_the_record(
    new_yard: Callable[..., Yard],
) -> None:
    yard = new_yard({"a": b"bad"}, removes=True)
    yard.apply()
    digest = Sha256(sha256(b"bad").hexdigest())
    yard.ledger.clear(yard.begun("restore"), digest, Decision(Step.PASS, "restored by a person", "a cat", by="ada"))
    yard.store.before = lambda _step, _key: (_ for _ in ()).throw(Unreached("no answer"))

    result = yard.restore("a", with_key=True)

    assert "left a word" in result.problem
    assert [event.sha256 for event in yard.ledger.maintenance.words_left()] == [digest]
    yard.store.before = None
    yard.restore("a", with_key=True)
    assert list(yard.ledger.maintenance.words_left()) == []


def test_a_key_taken_by_other_bytes_is_not_overwritten_and_the_hidden_copy_stays(new_yard: Callable[..., Yard]) -> None:
    yard = new_yard({"a": b"bad"})
    yard.apply()
    yard.store.put("a", b"somebody else's")
    result = yard.restore("a")

    assert result.outcome is Outcome.FAILED
    assert yard.store.objects == {"a": b"somebody else's"}
    assert list(yard.store.hidden.values()) == [b"bad"]
    assert len(list(yard.ledger.hidden())) == 1


def test_a_restored_object_s_twins_are_owed_no_more(new_yard: Callable[..., Yard]) -> None:
    yard = new_yard({"a": b"bad", "b": b"bad"})
    assert len(yard.apply(1)) == 1
    (hidden,) = yard.ledger.hidden()
    yard.restore(hidden.key)

    assert yard.owed == []
    assert yard.store.objects == {"a": b"bad", "b": b"bad"}


# -- death between any two lines ---------------------------------------------------------------------------------------------------------


def _settled(yard: Yard, data: bytes) -> None:
    """After whatever happened and a rerun: hidden once, sealed once, restorable, nothing owed, the record whole."""
    assert yard.owed == []
    assert "a" not in yard.store.objects
    assert yard.ledger.verify() == []
    assert len(list(yard.ledger.hidden())) == 1
    if yard.profile.keep == "preserve":
        assert len(list(yard.vaults.evidence.sealed())) == 1
    if not yard.removes:
        assert list(yard.store.hidden.values()) == [data]
    assert yard.restore("a", with_key=yard.removes).outcome is Outcome.DONE
    assert yard.store.objects == {"a": data}
    assert yard.store.hidden == {}
    yard.scan()
    assert yard.owed == []


MODES = [
    pytest.param({}, id="moved"),
    pytest.param({"removes": True}, id="removed"),
    pytest.param({"profile": METADATA}, id="metadata only"),
]


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("event", [1, 2, 3, 4])
def test_death_at_any_event_of_a_hiding_loses_nothing_and_does_nothing_twice(
    new_yard: Callable[..., Yard], event: int, mode: dict[str, object], before: bool
) -> None:
    yard = new_yard({"a": b"bad"}, **mode)
    assert isinstance(yard.ledger, Mortal)
    yard.ledger.dies_at, yard.ledger.before = event, before
    last = 3 if yard.profile is METADATA else 4
    if event > last:
        yard.apply()
    else:
        with pytest.raises(Crash):
            yard.apply()
        assert yard.owed == (["a"] if event < last or before else [])
    yard.ledger.dies_at = 0
    yard.scan()
    yard.apply()

    assert yard.ledger.acted(midnight(yard.clock()), drill=False) == 1
    _settled(yard, b"bad")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("step", range(1, 9))
def test_death_at_any_step_in_the_store_loses_nothing_and_does_nothing_twice(
    new_yard: Callable[..., Yard], step: int, mode: dict[str, object]
) -> None:
    yard = new_yard({"a": b"bad"}, **mode)
    steps = count(1)

    def die(_step: str, _key: str) -> None:
        if next(steps) == step:
            raise Crash

    yard.store.before = die
    try:
        yard.apply()
    except Crash:
        assert yard.owed == ["a"]
    yard.store.before = None
    yard.apply()

    _settled(yard, b"bad")


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("removes", [False, True])
@pytest.mark.parametrize("event", [1, 2, 3])
def test_death_at_any_event_of_a_restoring_is_undone_by_apply_or_completed_by_the_next(
    new_yard: Callable[..., Yard], event: int, removes: bool, before: bool
) -> None:
    yard = new_yard({"a": b"bad"}, removes=removes)
    yard.apply()
    assert isinstance(yard.ledger, Mortal)
    yard.ledger.dies_at, yard.ledger.before = event, before

    with pytest.raises(Crash):
        yard.restore("a", with_key=removes)
    yard.ledger.dies_at = 0
    yard.apply()
    done = event == 3 and not before
    assert yard.store.objects == ({"a": b"bad"} if done else {})
    yard.scan()
    if list(yard.ledger.hidden()):
        assert yard.restore("a", with_key=removes).outcome is Outcome.DONE
    assert yard.store.objects == {"a": b"bad"}
    assert yard.store.hidden == {}
    assert list(yard.ledger.hidden()) == []
    assert yard.owed == []


@pytest.mark.parametrize("event", [2, 3])
@pytest.mark.parametrize("removes", [False, True])
def test_an_upload_after_death_in_the_middle_hides_neither_of_the_two_from_the_record(
    new_yard: Callable[..., Yard], event: int, removes: bool
) -> None:
    """Died after the store was told and before it was on record; then somebody puts other bytes under the key."""
    yard = new_yard({"a": b"bad"}, removes=removes)
    assert isinstance(yard.ledger, Mortal)
    yard.ledger.dies_at, yard.ledger.before = event, event == 3
    with pytest.raises(Crash):
        yard.apply()
    yard.ledger.dies_at = 0
    yard.store.put("a", b"a new upload")
    yard.apply()

    assert yard.store.objects == {"a": b"a new upload"}
    assert yard.sealed(b"bad")
    if event == 3:  # it had been taken away: that is on record, and can be undone
        (hidden,) = yard.ledger.hidden()
        assert hidden.sha256 == sha256(b"bad").hexdigest()
        yard.store.delete("a")
        assert yard.restore("a", with_key=removes).outcome is Outcome.DONE
        assert yard.store.objects == {"a": b"bad"}


# -- two at once -----------------------------------------------------------------------------------------------------------------------


def test_only_one_acts_on_a_ledger_at_a_time_and_the_other_is_told(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.sqlite3"
    with acting_alone(ledger):
        with pytest.raises(Busy, match="process") as refused, acting_alone(ledger):
            pass
        with acting_alone(tmp_path / "another.sqlite3"):
            pass
    assert refused.value.hint
    with acting_alone(ledger):
        pass


def test_a_lock_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotWrite), acting_alone(tmp_path / "file" / "ledger.sqlite3"):
        pass


def test_a_store_that_stopped_answering_is_left_alone_for_the_run_and_everything_stays_owed(
    new_yard: Callable[..., Yard],
) -> None:
    yard = new_yard({f"{number}": b"bad %d" % number for number in range(6)})
    asked: list[str] = []

    def silent(step: str, key: str) -> None:
        asked.append(key)
        raise Unreached("no answer")

    yard.store.before = silent
    results = yard.apply()

    assert [result.outcome for result in results] == [Outcome.FAILED] * 6
    assert all(result.unreached for result in results)
    assert len(set(asked)) == 3
    assert len(yard.owed) == 6

    yard.store.before = None
    assert [result.outcome for result in yard.apply()] == [Outcome.DONE] * 6
