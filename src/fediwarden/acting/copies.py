"""Copies that a platform made of an object: decided about with it and tied to it on record, hidden and restored each by itself.

A copy has other bytes and a hash of its own. No analyser need have seen it: what is done to it is done because of the original.
Nothing here asks a platform or touches a store.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from fediwarden.ledger import Ledger
from fediwarden.model import Decision, DeedEvent, ObjectRef, Owed, RunId, Sha256, Step, StoreName

RULE = "copy of what is hidden"  # the rule of decisions that hang on another object
POLICY = "policy"  # who decides where no person was asked


@dataclass(frozen=True, slots=True)
class Copied:
    """A copy as the platform has it now."""

    ref: ObjectRef
    sha256: Sha256
    words: str  # "the preview of post 401 that Lemmy made"
    preview: bool  # made from the original; False: the original was made from it
    shared: bool = False  # others than the original's people may lose it


def because_of(store: StoreName, key: str, preview: bool = True) -> str:
    """The reason on record, by which copies are found again."""
    return f"a copy that Lemmy made of {store}: {key}" if preview else f"what {store}: {key} is a copy of, that Lemmy made"


def tie(ledger: Ledger, run: RunId, original: Owed, copy: Copied, *, step: Step, by: str) -> bool:
    """Put on record what is to be done about a copy, because of its original, before anything is done.

    `by`: whoever agreed, whose word then stands over later looks; POLICY where nobody was asked. Returns whether it is so now: a
    person's word that these bytes pass stands, as do other bytes that were looked at under the key. Raises: CannotWrite.
    """
    said = ledger.verdict(copy.sha256)
    if said is not None and said.step is Step.PASS:
        return False
    entry = ledger.entry(copy.ref.store, copy.ref.key)
    decided = entry.decision if entry is not None and entry.sha256 == copy.sha256 and not entry.hidden else None
    if decided is not None and (decided.step is Step.QUARANTINE or decided.step is step):
        return decided.step is step
    because = because_of(original.ref.store, original.ref.key, copy.preview)
    decision = Decision(step, RULE, because, original.decision.policy, original.decision.rank, by, original.decision.drill)
    return ledger.tie(run, copy.ref, copy.sha256, decision)


def tied(ledger: Ledger, store: StoreName, key: str) -> Iterator[DeedEvent]:
    """What is hidden because this object was, and could be restored with it."""
    yield from ledger.hidden_because(RULE, {because_of(store, key, preview) for preview in (True, False)})
