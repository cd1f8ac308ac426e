"""Acting through a platform: traces before hiding, removals that were not waited for, pictures that come back written anew."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tests.support.installation import METADATA, Yard

from fediwarden.acting.executor import Custody, Executor, Outcome, Result
from fediwarden.errors import Misconfigured, Unreached
from fediwarden.ledger import Ledger
from fediwarden.model import Act, DeedState, ObjectRef, Owed, Place, Sha256, Step, StoreName
from fediwarden.stores.memory import MemoryStore
from fediwarden.vault import Identity, make_identities


def a_hash(data: bytes) -> Sha256:
    return Sha256(sha256(data).hexdigest())


class Platform(MemoryStore):
    """Removes by a queue that nobody may wait for, forgets what it removed, and writes anew what is put back."""

    queued = False
    anew = b""

    def remove(self, ref: ObjectRef, sha256: Sha256) -> Place:
        place = super().remove(ref, sha256)
        self._removed.clear()
        if self.queued:
            self.queued = False
            raise Unreached("queued, not done yet")
        return place

    def put_back(self, place: Place, data: bytes) -> ObjectRef:
        return super().put_back(place, data + self.anew)


@dataclass
class Served(Yard):
    """A yard whose store is a platform."""

    seal_trace: Callable[[Owed], str] | None = None

    def hold(self, name: StoreName) -> Custody:
        return Custody(self.store, removes=True, platform=True)

    @property
    def executor(self) -> Executor:
        run = self.begun("apply")
        return Executor(self.ledger, run, self.hold, self.vaults, self.profile, self.clock, "ada", 1 << 20, self.seal_trace)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with capture_logs():
        yield


@pytest.fixture(scope="session")
def identities(tmp_path_factory: pytest.TempPathFactory) -> list[Identity]:
    return make_identities(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def yard(tmp_path: Path, identities: list[Identity]) -> Served:
    made = Served(Platform("memory", {"a": b"bad", "b": b"dark"}), Ledger.open(":memory:"), folder=tmp_path, keys=identities)
    made.scan()
    return made


def test_a_trace_is_sealed_after_the_bytes_and_before_anything_is_taken_away(yard: Served) -> None:
    seen: list[tuple[str, bool, bool]] = []

    def trace(owed: Owed) -> str:
        seen.append((owed.ref.key, yard.sealed(b"bad"), "a" in yard.store.objects))
        return ""

    yard.seal_trace = trace
    (done,) = yard.apply()
    assert (done.outcome, done.trace) == (Outcome.DONE, "")
    assert seen == [("a", True, True)]


@pytest.mark.parametrize("error", [Unreached("no answer"), ValueError("of ours")])
def test_a_trace_that_fails_never_keeps_an_object_in_public_reach_and_is_on_record(yard: Served, error: Exception) -> None:
    def trace(_: Owed) -> str:
        raise error

    yard.seal_trace = trace
    (done,) = yard.apply()
    assert done.outcome is Outcome.DONE
    assert done.trace
    (record,) = yard.ledger.platforms.traces(a_hash(b"bad"))
    assert (record.actor, record.problem, record.sealed) == ("ada", done.trace, None)
    assert done.trace in ("no answer", "an error of ours (ValueError)")


def test_a_purge_that_was_queued_and_not_waited_for_is_completed_by_the_next_try_and_can_be_restored(yard: Served) -> None:
    yard.store.queued = True  # type: ignore[attr-defined]
    (first,) = yard.apply()
    assert (first.outcome, first.unreached) == (Outcome.FAILED, True)
    assert yard.owed == ["a"]

    (second,) = yard.apply()

    assert second.outcome is Outcome.DONE
    assert yard.owed == []
    (hidden,) = yard.ledger.hidden(key="a")
    assert hidden.place == Place(yard.store.name, "a", "removed", "")
    assert yard.restore("a", with_key=True).outcome is Outcome.DONE
    assert yard.store.objects["a"] == b"bad"


def test_what_somebody_else_took_away_before_any_try_is_gone_and_not_called_hidden(yard: Served) -> None:
    yard.store.delete("a")
    (done,) = yard.apply()
    assert done.outcome is Outcome.GONE
    assert list(yard.ledger.hidden()) == []


def test_a_profile_that_seals_nothing_lets_no_platform_destroy_the_only_copy(tmp_path: Path, identities: list[Identity]) -> None:
    yard = Served(Platform("memory", {"a": b"bad"}), Ledger.open(":memory:"), folder=tmp_path, keys=identities, profile=METADATA)
    yard.scan()
    executor = yard.executor
    results: list[Result] = []
    with pytest.raises(Misconfigured, match="the only copy"):
        results.extend(executor.apply(yard.plan(allowance=5, drill_allowance=0)))
    assert yard.store.objects == {"a": b"bad"}
    assert yard.owed == ["a"]


def test_what_a_platform_wrote_anew_is_restored_said_to_differ_and_not_hidden_again(yard: Served) -> None:
    yard.apply()
    yard.store.anew = b" bad"  # type: ignore[attr-defined]

    done = yard.restore("a", with_key=True)

    assert done.outcome is Outcome.DONE
    assert done.altered == a_hash(b"bad bad")
    assert "other bytes" in done.problem
    assert yard.states("a")[-1] == (Act.RESTORE, DeedState.DONE)
    assert yard.ledger.uploads.restoring([yard.store.name], yard.clock()) == []
    yard.scan()
    decision = yard.entry("a").decision
    assert decision is not None
    assert (decision.step, decision.by) == (Step.PASS, "ada")
    assert yard.owed == []


def test_a_store_that_is_no_platform_restores_byte_for_byte_or_not_at_all(yard: Served) -> None:
    yard.apply()
    yard.store.anew = b"!"  # type: ignore[attr-defined]
    yard.hold = lambda name: Custody(yard.store, removes=True)  # type: ignore[method-assign]
    assert yard.restore("a", with_key=True).outcome is Outcome.FAILED
