"""A core that can act: vaults, keys and a executor over a store in memory, and a ledger whose process may die at any deed."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

from tests.support.core import Core

from fediwarden.acting.executor import Custody, Executor, Outcome, Result
from fediwarden.acting.plan import Plan, planned
from fediwarden.config import Profile, profile
from fediwarden.ledger import Ledger
from fediwarden.model import Act, Decision, DeedEvent, DeedState, ObjectRef, RunId, Sha256, StoreName
from fediwarden.stores.memory import MemoryStore
from fediwarden.vault import Identity, Vault, Vaults

PRESERVE = profile("other")
METADATA = replace(PRESERVE, name="metadata", keep="metadata only")


class Crash(BaseException):
    """The process dies here: nothing of ours catches it."""


class Mortal(Ledger):
    """A ledger whose process dies right before or right after a chosen deed event is on record."""

    dies_at: int = 0  # the number of the event, from 1; 0 never
    before: bool = False

    def did(self, event: DeedEvent) -> None:
        with self._dying():
            super().did(event)

    def restored(self, run: RunId, event: DeedEvent, words: Mapping[Sha256, Decision], ref: ObjectRef | None = None) -> None:
        with self._dying():
            super().restored(run, event, words, ref)

    @contextmanager
    def _dying(self) -> Iterator[None]:
        self.dies_at -= 1
        if self.dies_at == 0 and self.before:
            raise Crash
        yield
        if self.dies_at == 0:
            raise Crash


@dataclass
class Yard(Core):
    """A core with vaults and somebody who acts."""

    folder: Path = Path()
    keys: list[Identity] = field(default_factory=list)
    profile: Profile = PRESERVE
    removes: bool = False
    limit: int = 1 << 20
    stores: dict[str, MemoryStore] = field(default_factory=dict)

    @property
    def vaults(self) -> Vaults:
        publics = [identity.public for identity in self.keys]
        return Vaults(Vault(self.folder / "vault-False", publics), Vault(self.folder / "vault-True", publics))

    def hold(self, name: StoreName) -> Custody:
        return Custody(self.stores.get(name, self.store), self.removes)

    @property
    def executor(self) -> Executor:
        vaults = self.vaults if self.profile.keep == "preserve" else None
        return Executor(self.ledger, self.begun("apply"), self.hold, vaults, self.profile, self.clock, "ada", self.limit)

    def apply(self, allowance: int = 50, drills: int = 5, limit: int | None = None) -> list[Result]:
        return list(self.executor.apply(self.plan(allowance=allowance, drill_allowance=drills, limit=limit)))

    def plan(self, *, allowance: int, drill_allowance: int, only: Sequence[str] = (), limit: int | None = None) -> Plan:
        """What may be done now."""
        return planned(self.ledger, self.clock(), allowance=allowance, drill_allowance=drill_allowance, only=only, limit=limit)

    def keys_of(self, results: list[Result], outcome: Outcome = Outcome.DONE) -> list[str]:
        return [result.key for result in results if result.outcome is outcome]

    def restore(self, key: str, *, with_key: bool = False) -> Result:
        (hidden,) = self.ledger.hidden(key=key)
        executor = self.executor
        self.begun("restore")  # what the gate goes by
        return executor.restore(hidden, [self.keys[0].path] if with_key else [], "a cat")

    @property
    def owed(self) -> list[str]:
        return [owed.ref.key for owed in self.ledger.owed()]

    def states(self, key: str) -> list[tuple[Act, DeedState]]:
        return [(event.act, event.state) for event in self.ledger.history(self.store.name, key).deeds]

    def sealed(self, data: bytes) -> bool:
        return self.vaults.evidence.check(Sha256(sha256(data).hexdigest()))
