"""Turns the frozen words of `model` into the columns of the ledger and back; runs no query."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from math import isnan, nan
from typing import Any

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

Row = Any  # a row of a query; its columns have no types until this module gives them some
Columns = dict[str, object]

LARGEST = 2**63 - 1  # what a column holds; a store may claim more
EMPTY = "broken: empty"  # `lacking` of a file that shows nothing: counted apart
FIRST = "0" * 64  # what the first link of the chain has before it


@dataclass(frozen=True, slots=True)
class Entry:
    """One object with all that is known of it now.

    `look` is the settled look that holds the evidence, or the last attempt where nothing was ever settled, or None where
    nobody looked yet. `last` is the last attempt, which differs from `look` when the object was reached before but not now.
    `lacking` says why the object counts as not scanned ("never looked at", "unreached", "changed since", "partly",
    "broken: truncated"); "" when it does not. `gone` is false for what we hid ourselves: that is `hidden`.
    """

    id: int
    ref: ObjectRef
    sha256: Sha256 | None
    look: Look | None
    last: Look | None
    decision: Decision | None
    decision_id: int | None
    deed: tuple[Act, DeedState] | None
    gone: bool
    hidden: bool
    engine: EngineVersion | None
    lacking: str

    @property
    def standing(self) -> Standing | None:
        """Of the last attempt; None where nobody looked yet."""
        return self.last.standing if self.last else None

    @property
    def not_scanned(self) -> bool:
        """Whether a present object still lacks something, by the engine that last looked."""
        return bool(self.lacking) and self.lacking != EMPTY and not self.gone and not self.hidden


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision with its place in the record."""

    id: int
    run: RunId
    at: datetime
    sha256: Sha256 | None
    decision: Decision


@dataclass(frozen=True, slots=True)
class History:
    """All that ever happened to one object, oldest first."""

    looks: tuple[Look, ...]
    decisions: tuple[Decided, ...]
    deeds: tuple[DeedEvent, ...]


@dataclass(frozen=True, slots=True)
class Totals:
    """The whole ledger in numbers.

    Everything but `items`, `gone`, `hidden`, the owed counts and what begins at `seen` is about present objects.
    """

    objects: int = 0
    items: int = 0  # different contents, gone ones included
    looked_at: int = 0  # settled by this engine version, wholly or not
    not_scanned: int = 0
    lacking: Mapping[str, int] = field(default_factory=dict)  # the same number by reason
    empty: int = 0  # files without a byte: nothing to scan, and so not among those
    flagged: int = 0  # the current decision is quarantine
    review: int = 0
    passed: int = 0
    owed: int = 0  # decisions without their deed, drills left out
    owed_drill: int = 0
    hidden: int = 0  # could be restored
    gone: int = 0
    seen: int = 0  # by this engine version, wholly or partly; present or hidden by us
    further: int = 0  # of these: what the dear analyser was asked about because of what was found in it
    sampled: int = 0  # and what it was asked about only because it is in the random sample
    sampled_contents: int = 0  # how many different contents are in that sample: bytes are drawn, not objects
    sampled_flagged: int = 0  # how many of these contents are suspected, drills left out


def encoded(key: str) -> bytes:
    """A key as it is stored: the very bytes of names that are not UTF-8."""
    try:
        return key.encode("utf-8", "surrogateescape")
    except (
        UnicodeEncodeError
    ):  # half a surrogate pair, which some JSON may hold: no file has such a name, but it must not stop a run
        return key.encode("utf-8", "surrogatepass")


def decoded(key: bytes) -> str:
    """The key back."""
    return bytes(key).decode("utf-8", "surrogateescape")


def clean(text: str) -> str:
    """Text that every database can hold: hostile names inside it are escaped, not refused."""
    if text.isascii() and "\0" not in text:
        return text
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")


def iso(at: datetime) -> str:
    """UTC with microseconds always, so that text order is time order. Raises: ValueError for a time without a zone."""
    if at.tzinfo is None:
        raise ValueError("a time without a zone cannot be recorded")
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def moment(text: str) -> datetime:
    """A recorded time."""
    return datetime.fromisoformat(text)


def dumps(value: object) -> str:
    """JSON in one form only: sorted, tight, ASCII (so that names that are not UTF-8 survive)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def counts_of(text: str) -> dict[str, int]:
    """Numbers by their names, back from JSON."""
    return {str(name): int(value) for name, value in json.loads(text).items()}


def ref_columns(ref: ObjectRef) -> Columns:
    """The reference, without store and key."""
    return {"size": min(ref.size, LARGEST), "stamp": clean(ref.stamp), "modified": iso(ref.modified) if ref.modified else None}


def ref_of(store: str, key: bytes, row: Row) -> ObjectRef:
    """A reference from a row that has its columns."""
    return ObjectRef(StoreName(store), decoded(key), row.size, row.stamp, moment(row.modified) if row.modified else None)


def evidence_columns(look: Look) -> Columns:
    """What a look that repeats another leaves empty."""
    kind = look.kind
    return {
        "kind": None if kind is None else dumps([kind.format, kind.width, kind.height, kind.frames, kind.sampled, kind.seconds]),
        "notes": dumps([[note.what, note.where, note.size, note.detail] for note in look.notes]) if look.notes else None,
        "unopened": dumps([[item.where, item.why, item.size] for item in look.unopened]) if look.unopened else None,
    }


def kind_of(text: str | None) -> Kind | None:
    """The kind back."""
    return Kind(*json.loads(text)) if text else None


def notes_of(text: str | None) -> tuple[Note, ...]:
    """The notes back."""
    return tuple(Note(*note) for note in json.loads(text)) if text else ()


def unopened_of(text: str | None) -> tuple[Unopened, ...]:
    """The unopened payloads back."""
    return tuple(Unopened(*item) for item in json.loads(text)) if text else ()


def look_of(row: Row, ref: ObjectRef, findings: Sequence[Finding]) -> Look:
    """A look from a row of `looks`."""
    return Look(
        ref=ref,
        standing=Standing(row.standing),
        at=moment(row.at),
        sha256=Sha256(row.sha256) if row.sha256 else None,
        engine=EngineVersion(row.engine) if row.engine else None,
        kind=kind_of(row.kind),
        findings=tuple(findings),
        notes=notes_of(row.notes),
        unopened=unopened_of(row.unopened),
        reason=Reason(row.reason) if row.reason else None,
        problem=row.problem,
        milliseconds=row.milliseconds,
    )


def finding_columns(finding: Finding) -> Columns:
    """One finding, without its numbers in the record."""
    return {
        "concept": clean(finding.concept),
        "score": None if isnan(finding.score) else float(finding.score),
        "analyser": clean(finding.analyser),
        "version": clean(finding.version),
        "frame": finding.frame,
        "source": dumps(finding.source) if finding.source else "",
        "measures": dumps(dict(finding.measures)) if finding.measures else "",
    }


def finding_of(row: Row) -> Finding:
    """The finding back."""
    return Finding(
        concept=row.concept,
        score=nan if row.score is None else row.score,
        analyser=row.analyser,
        version=row.version,
        frame=row.frame,
        source=json.loads(row.source) if row.source else "",
        measures=json.loads(row.measures) if row.measures else {},
    )


def decision_columns(decision: Decision) -> Columns:
    """One decision, without its numbers in the record."""
    return {
        "step": decision.step.value,
        "rule": clean(decision.rule),
        "because": clean(decision.because),
        "policy": clean(decision.policy),
        "rank": decision.rank,
        "decided_by": clean(decision.by),
        "drill": int(decision.drill),
    }


def decision_of(row: Row) -> Decision:
    """The decision back."""
    return Decision(Step(row.step), row.rule, row.because, row.policy, row.rank, row.decided_by, bool(row.drill))


def decided_of(row: Row) -> Decided:
    """A row of `decisions`."""
    found = Sha256(row.sha256) if row.sha256 else None
    return Decided(row.id, RunId(row.run), moment(row.at), found, decision_of(row))


def place_text(place: Place | None) -> str | None:
    """Where a hidden object lies, as JSON."""
    if place is None:
        return None
    return dumps({"store": place.store, "key": place.key, "how": place.how, "where": place.where, "facts": dict(place.facts)})


def place_of(text: str | None) -> Place | None:
    """The place back."""
    if not text:
        return None
    read = json.loads(text)
    return Place(StoreName(read["store"]), read["key"], read["how"], read["where"], read["facts"])


def deed_columns(event: DeedEvent) -> Columns:
    """One event, without its place in the chain."""
    return {
        "act": event.act.value,
        "state": event.state.value,
        "store": clean(event.store),
        "key": encoded(event.key),
        "sha256": event.sha256,
        "decision": event.decision,
        "actor": clean(event.actor),
        "at": iso(event.at),
        "drill": int(event.drill),
        "place": place_text(event.place),
        "problem": clean(event.problem),
    }


def link(seq: int, previous: str, content: Mapping[str, object]) -> str:
    """The hash of one link: SHA-256 over the JSON of its number, the hash before it, and its columns (the key in hex)."""
    key = content["key"]
    if not isinstance(key, bytes):
        raise TypeError("a key is hashed as the bytes it is stored as")
    return sha256(dumps({**content, "key": key.hex(), "seq": seq, "previous": previous}).encode("ascii")).hexdigest()


def deed_of(row: Row) -> DeedEvent:
    """A row of `deeds`."""
    return DeedEvent(
        act=Act(row.act),
        state=DeedState(row.state),
        store=StoreName(row.store),
        key=decoded(row.key),
        sha256=Sha256(row.sha256),
        decision=row.decision,
        actor=row.actor,
        at=moment(row.at),
        drill=bool(row.drill),
        place=place_of(row.place),
        problem=row.problem,
    )


def entry_of(row: Row, findings: Mapping[int, Sequence[Finding]]) -> Entry:
    """A row of the view `entries`."""
    ref = ref_of(row.store, row.key, row)
    look: Look | None = None
    if row.look is not None:
        look = Look(
            ref=ref,
            standing=Standing(row.look_standing),
            at=moment(row.look_at),
            sha256=Sha256(row.look_sha256) if row.look_sha256 else None,
            engine=EngineVersion(row.look_engine) if row.look_engine else None,
            kind=kind_of(row.look_kind),
            findings=tuple(findings.get(row.look, ())),
            notes=notes_of(row.look_notes),
            unopened=unopened_of(row.look_unopened),
            reason=Reason(row.look_reason) if row.look_reason else None,
            problem=row.look_problem,
            milliseconds=row.look_milliseconds,
        )
    last: Look | None = look
    if row.attempt is not None and row.attempt != row.look:
        if look is not None and row.attempt_same_as == row.look:
            last = look = look.about(ref, moment(row.attempt_at))
        else:
            last = Look(
                ref=ref,
                standing=Standing(row.attempt_standing),
                at=moment(row.attempt_at),
                sha256=Sha256(row.attempt_sha256) if row.attempt_sha256 else None,
                engine=EngineVersion(row.attempt_engine) if row.attempt_engine else None,
                reason=Reason(row.attempt_reason) if row.attempt_reason else None,
                problem=row.attempt_problem,
                milliseconds=row.attempt_milliseconds,
            )
            look = look or last
    away = row.gone_at is not None
    return Entry(
        id=row.id,
        ref=ref,
        sha256=Sha256(row.sha256) if row.sha256 else None,
        look=look,
        last=last,
        decision=decision_of(row) if row.decision is not None else None,
        decision_id=row.decision,
        deed=(Act(row.deed_act), DeedState(row.deed_state)) if row.deed_act else None,
        gone=away and row.hidden_by is None,
        hidden=away and row.hidden_by is not None,
        engine=EngineVersion(row.engine) if row.engine else None,
        lacking=row.lacking or "",
    )
