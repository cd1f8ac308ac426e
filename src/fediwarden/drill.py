"""Proves a deployment end to end with a harmless marked picture on the administrator's own store; touches no other object.

The gate and the road of uploads are proved in `drill_uploads`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from fediwarden.acting.executor import Executor, Outcome
from fediwarden.acting.plan import planned
from fediwarden.errors import FediwardenError, Gone
from fediwarden.ledger import Ledger
from fediwarden.model import Blob, Look, ObjectRef, Place, RunId, Standing, Step, StoreName
from fediwarden.pipeline import Scan
from fediwarden.stores.interface import Keeper, Reader
from fediwarden.vault import Vault

PREFIX = "fediwarden-drill-"
MOST = 16 << 20  # bytes that a drill picture may have when it comes back


@dataclass(frozen=True, slots=True)
class Station:
    """One station of the road and whether the drill picture came through it."""

    name: str
    passed: bool
    detail: str
    unproved: str = ""  # what it left out, and how to have it tried


class OneObject:
    """A reader that lists a single object of another reader, so that a drill need not look at the whole store."""

    def __init__(self, reader: Reader, key: str) -> None:
        self._reader = reader
        self._key = key

    @property
    def name(self) -> StoreName:
        """As the reader behind it."""
        return self._reader.name

    @property
    def requests(self) -> int:
        """As the reader behind it."""
        return self._reader.requests

    def list(self) -> Iterator[Sequence[ObjectRef]]:
        """The one object, if it is there."""
        yield [self.stat(self._key)]

    def stat(self, key: str) -> ObjectRef:
        """As the reader behind it."""
        return self._reader.stat(key)

    def fetch(self, ref: ObjectRef, limit: int) -> Blob:
        """As the reader behind it."""
        return self._reader.fetch(ref, limit)

    def close(self) -> None:
        """The reader behind it is closed by who opened it."""


@dataclass(frozen=True, slots=True)
class Drill:
    """Everything one drill needs; `picture` is the PNG and `key` the name that is asked for it in the store.

    A pict-rs names it after its content and may write it anew, so the stations go by what `put` returned.
    """

    picture: bytes
    key: str
    reader: Reader
    keeper: Keeper
    ledger: Ledger
    executor: Executor
    vault: Vault | None
    identities: Sequence[Path]
    removes: bool
    allowance: int
    clock: Callable[[], datetime]
    facts: Mapping[str, str] = field(default_factory=dict)  # what the store's places need besides

    def put(self) -> Blob:
        """Write the picture into the store. Raises: Unreached, Refused, Occupied."""
        place = Place(self.keeper.name, self.key, "removed", "", {"content-type": "image/png", **self.facts})
        ref = self.keeper.put_back(place, self.picture)
        if ref.key != self.key:
            return self.keeper.fetch(ref, MOST)
        return Blob.of(ref, self.picture, "image/png")

    def road(self, run: RunId, blob: Blob, scan: Scan) -> Iterator[Station]:
        """Station after station; stops at the first that fails."""
        key = blob.ref.key
        listed = any(ref.key == key for page in self.reader.list() for ref in page)
        yield Station("listed", listed, "the store lists it" if listed else "the store's listing does not hold it")
        if not listed:
            return
        scan.run(run, [OneObject(self.reader, key)], lambda _: None)
        entry = self.ledger.entry(self.reader.name, key)
        look = entry.look if entry else None
        if look is None or look.standing is not Standing.SEEN:
            yield Station("looked at", False, (look.problem if look else "") or "nothing was recorded")
            return
        yield Station("looked at", True, f"{look.kind.format if look.kind else 'unknown'}, {len(look.findings)} findings")
        decision = entry.decision if entry else None
        decided = decision is not None and decision.step is Step.QUARANTINE and decision.drill
        yield Station("decided", decided, decision.because if decision else "no rule matched")
        if not decided:
            return
        yield from self._acted(blob)

    def _acted(self, blob: Blob) -> Iterator[Station]:
        plan = planned(self.ledger, self.clock(), allowance=0, drill_allowance=self.allowance, only=[blob.ref.key])
        yield Station(
            "owed",
            bool(plan.todo),
            "the ledger lists it" if plan.todo else "today's drill allowance is used up, or the ledger does not list it",
        )
        if not plan.todo:
            return
        result = next(iter(self.executor.apply(plan)))
        if self.vault is None:
            yield Station("sealed", True, "left out: the profile keeps metadata only")
        else:
            yield Station("sealed", self.vault.check(blob.sha256), "in the drill vault")
        gone = self._is_gone(blob.ref.key)
        yield Station(
            "hidden",
            result.outcome is Outcome.DONE and gone,
            result.problem or ("gone from the store" if gone else "it is still there"),
        )
        if result.outcome is not Outcome.DONE:
            return
        if self.removes and not self.identities:
            unproved = "not proved: that it comes back. Give --identity FILE, a private key of the vault"
            yield Station("restored", True, "left out: the vault holds the only copy, and no --identity was given", unproved)
            return
        hidden = next(self.ledger.hidden(key=blob.ref.key, store=self.reader.name), None)
        if hidden is None:
            yield Station("restored", False, "the ledger does not know where it lies")
            return
        back = self.executor.restore(hidden, self.identities, "drill")
        same = back.outcome is Outcome.DONE and (
            back.altered is not None or self.reader.fetch(self.reader.stat(blob.ref.key), MOST).data == blob.data
        )
        yield Station("restored", same, back.problem or "byte for byte")

    def clean_up(self, run: RunId, blob: Blob) -> Station:
        """Take the drill picture out of the store again, whatever happened before."""
        try:
            self.keeper.remove(blob.ref, blob.sha256)
        except Gone:
            pass  # hidden and not restored: the store no longer shows it
        except FediwardenError as error:
            return Station("cleaned up", False, f"{error}; remove {blob.ref.key} by hand")
        self.ledger.record(run, [(Look(blob.ref, Standing.GONE, self.clock(), problem="the drill is over"), None)])
        return Station("cleaned up", True, "the drill picture is out of the store")

    def _is_gone(self, key: str) -> bool:
        try:
            self.reader.stat(key)
        except Gone:
            return True
        return False
