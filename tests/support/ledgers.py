"""Makers of looks, decisions and deeds for tests of the ledger and of what stands on it."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from fediwarden.ledger import Ledger
from fediwarden.model import (
    Act,
    Decision,
    DeedEvent,
    DeedState,
    EngineVersion,
    Finding,
    Kind,
    Look,
    Note,
    ObjectRef,
    Place,
    Reason,
    RunId,
    Sha256,
    Standing,
    Step,
    StoreName,
    Unopened,
)

NOW = datetime(2026, 3, 4, 5, 6, 7, 89, tzinfo=UTC)
ENGINE = EngineVersion("engine-1")
STORE = StoreName("media")


def a_hash(text: str) -> Sha256:
    """The hash of stand-in bytes."""
    return Sha256(sha256(text.encode("utf-8", "surrogateescape")).hexdigest())


def a_ref(key: str = "a.jpg", *, stamp: str | None = None, store: StoreName = STORE, size: int = 10) -> ObjectRef:
    """An object as a listing names it."""
    return ObjectRef(store, key, size, f"stamp of {key}" if stamp is None else stamp, NOW - timedelta(days=1))


def a_finding(score: float = 0.25) -> Finding:
    """Evidence."""
    return Finding("exposed", score, "stand-in", "v1", 3, "trailing/\udcff.jpg", {"age": 30.5, "side": 41.0})


def a_look(
    ref: ObjectRef | None = None,
    standing: Standing = Standing.SEEN,
    *,
    content: str | None = None,
    engine: EngineVersion = ENGINE,
    findings: Sequence[Finding] = (),
    partly: bool = False,
    reason: Reason | None = None,
    at: datetime = NOW,
) -> Look:
    """A look; `content` stands for the bytes, by default the key."""
    ref = ref or a_ref()
    settles = standing in (Standing.SEEN, Standing.BROKEN)
    return Look(
        ref=ref,
        standing=standing,
        at=at,
        sha256=a_hash(content or ref.key) if settles else None,
        engine=engine if settles else None,
        kind=Kind("gif", 640, 480, 12, 6, 1.5) if standing is Standing.SEEN else None,
        findings=tuple(findings),
        notes=(Note("trailing", "trailing", 12, "\udcfe\0"),) if standing is Standing.SEEN else (),
        unopened=(Unopened("trailing/zip", "encrypted", 9),) if partly else (),
        reason=reason or (Reason.TRUNCATED if standing is Standing.BROKEN else None),
        problem="" if standing is Standing.SEEN else "a line for a person",
        milliseconds=7,
    )


def a_decision(
    step: Step = Step.QUARANTINE, *, rank: int = 1, policy: str = "policy-1", by: str = "policy", drill: bool = False
) -> Decision:
    """What policy (or `by`) makes of it."""
    return Decision(step, "rule-1", "because of a stand-in", policy if by == "policy" else "", rank, by, drill)


def an_event(
    ledger: Ledger, ref: ObjectRef, state: DeedState, act: Act = Act.HIDE, *, at: datetime = NOW, content: str | None = None
) -> DeedEvent:
    """An event about the current decision of an object."""
    entry = ledger.entry(ref.store, ref.key)
    assert entry is not None
    assert entry.decision is not None
    assert entry.decision_id is not None
    place = Place(ref.store, ref.key, "moved", "spot", {"mode": "0644"}) if state in (DeedState.MOVED, DeedState.DONE) else None
    return DeedEvent(
        act=act,
        state=state,
        store=ref.store,
        key=ref.key,
        sha256=a_hash(content or ref.key),
        decision=entry.decision_id,
        actor="ada",
        at=at,
        drill=entry.decision.drill,
        place=place,
        problem="it broke" if state is DeedState.FAILED else "",
    )


def begun(ledger: Ledger) -> RunId:
    """A run to record in."""
    return ledger.begin("scan", {"store": "media"}, NOW)


def flagged(ledger: Ledger, ref: ObjectRef, *, rank: int = 1, drill: bool = False, content: str | None = None) -> None:
    """Record a look at `ref` with a decision to quarantine it."""
    run = begun(ledger)
    ledger.settle(run, [ref], ENGINE)
    ledger.record(run, [(a_look(ref, content=content, findings=[a_finding(0.9)]), a_decision(rank=rank, drill=drill))])


def do(ledger: Ledger, ref: ObjectRef, *states: DeedState, act: Act = Act.HIDE) -> None:
    """Record events one after the other."""
    for state in states:
        ledger.did(an_event(ledger, ref, state, act))
