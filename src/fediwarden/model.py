"""The words of `docs/words.md` as frozen values; nothing here does I/O, holds a threshold or imports a library."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import NewType, Self

StoreName = NewType("StoreName", str)
Sha256 = NewType("Sha256", str)  # 64 lower-case hexadecimal digits
EngineVersion = NewType("EngineVersion", str)  # digest of models, preprocessing, views and decoder settings
RunId = NewType("RunId", int)


class Standing(StrEnum):
    """How far one look got. Only SEEN and BROKEN settle an object; all but a wholly seen one count as not scanned."""

    SEEN = "seen"
    BROKEN = "broken"
    GONE = "gone"
    UNREACHED = "unreached"


class Reason(StrEnum):
    """Why a look is broken: what stands in the way of decoding these very bytes, now and next time."""

    EMPTY = "empty"
    TRUNCATED = "truncated"
    UNSUPPORTED = "unsupported"
    MALFORMED = "malformed"
    TOO_LARGE = "too large"
    BOMB = "bomb"  # would need more pixels or memory than the cage allows
    TOO_SLOW = "too slow"  # used up the cage's CPU seconds
    CRASHED = "crashed the decoder"


class Step(StrEnum):
    """What policy asks for. Nothing stronger exists: destruction is never a step.

    NONE is on record for broken objects that no rule spoke about: not passed, not accused, still counted as not scanned.
    """

    NONE = "none"
    PASS = "pass"  # noqa: S105 - a step, not a password
    REVIEW = "review"
    QUARANTINE = "quarantine"


class Ground(StrEnum):
    """What lies behind transparent pixels in a frame."""

    OPAQUE = "opaque"
    BLACK = "black"
    WHITE = "white"


class Act(StrEnum):
    """What a deed does to an object."""

    HIDE = "hide"
    RESTORE = "restore"


class DeedState(StrEnum):
    """The events of one deed, in order: begun -> sealed -> moved -> done; failed or changed end a try.

    begun    the intention is on record, nothing was touched
    sealed   the exact bytes are in the vault (left out under a metadata-only profile)
    moved    the store was told (of a restoring: is being told); not yet read back
    done     read back and confirmed
    failed   a step did not succeed; still owed, tried again by the next apply
    changed  other bytes lie under the key now; no longer owed until they are looked at
    """

    BEGUN = "begun"
    SEALED = "sealed"
    MOVED = "moved"
    DONE = "done"
    FAILED = "failed"
    CHANGED = "changed"


class NameKind(StrEnum):
    """What another name of an object is."""

    ALIAS = "alias"  # a platform serves it under this
    IDENTIFIER = "identifier"  # key of the original in the store behind the platform
    VARIANT = "variant"  # key of a rendering of it there, such as a thumbnail
    ADDRESS = "served from"  # public address of its file, where a bucket or CDN serves it and not the platform itself
    PROXIED = "proxied from"  # URL of the remote picture that it is a cached copy of


class AnswerReason(StrEnum):
    """Why the gate answered as it did. LATE to FAILED let an upload pass as a debt, or refuse it, as the settings say."""

    LOOKED = "looked"  # it was looked at for this upload
    KNOWN = "known"  # the same bytes were looked at before by this engine version
    PERSON = "person"  # a person decided about these bytes
    RESTORING = "restoring"  # a person is putting it back just now
    LATE = "late"  # no result within the deadline
    BUSY = "busy"  # too much was waiting
    LARGE = "large"  # larger than the gate holds in memory
    BROKEN = "broken"  # it was looked at and cannot be decoded
    FAILED = "failed"  # the analysis did not work
    UNRECORDED = "unrecorded"  # the ledger could take no more: refused, whatever the settings say
    UNREAD = "unread"  # the body did not arrive whole, or was no request at all
    MISREAD = "misread"  # it came, and is neither a picture's bytes nor a form with one part

    @property
    def words(self) -> str:
        """For a person."""
        return _WHY[self]


_WHY = {
    AnswerReason.LOOKED: "looked at",
    AnswerReason.KNOWN: "known bytes",
    AnswerReason.PERSON: "a person had decided",
    AnswerReason.RESTORING: "a person was restoring it",
    AnswerReason.LATE: "no result in time",
    AnswerReason.BUSY: "too much was waiting",
    AnswerReason.LARGE: "too large to hold",
    AnswerReason.BROKEN: "cannot be decoded",
    AnswerReason.FAILED: "the analysis failed",
    AnswerReason.UNRECORDED: "the ledger could take no more",
    AnswerReason.UNREAD: "the upload never arrived whole",
    AnswerReason.MISREAD: "what carried it was not understood",
}


@dataclass(frozen=True, slots=True)
class Name:
    """Another name of an object, as its platform told it."""

    kind: NameKind
    text: str


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """One stored file, named the way its store names it.

    `key` may hold anything a store allows: names that are not UTF-8 carry surrogate escapes (PEP 383). `stamp` is what
    the store says about the content without fetching it (ETag, or size and modification time in nanoseconds); equal
    stamps mean "not replaced since". An empty stamp never settles.
    """

    store: StoreName
    key: str
    size: int
    stamp: str
    modified: datetime | None = None
    names: tuple[Name, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Blob:
    """The bytes of an object with their SHA-256, and the type that the store or the name claims for them."""

    ref: ObjectRef
    data: bytes
    sha256: Sha256
    claimed: str = ""  # Content-Type as the store has it; "" where it keeps none

    @classmethod
    def of(cls, ref: ObjectRef, data: bytes, claimed: str = "") -> Self:
        """Hash `data` and join it with its reference."""
        return cls(ref, data, Sha256(sha256(data).hexdigest()), claimed)


@dataclass(frozen=True, slots=True)
class Kind:
    """What the bytes really are, as the cage found it."""

    format: str  # "jpeg", "png", "apng", "gif", "webp", "avif", "bmp", "tiff", "mp4", "webm", "mov", or "unknown"
    width: int = 0  # pixels, after orientation
    height: int = 0
    frames: int = 1  # frames or pages in all; 0 where nobody can know
    sampled: int = 0  # how many of them were looked at
    seconds: float = 0.0  # playing time, 0 for stills


@dataclass(frozen=True, slots=True)
class Note:
    """A fact about structure that a person or the policy may care about, such as bytes after the end of the picture."""

    what: str  # "trailing", "segment", "chunk", "comment", "archive", "document", "script", "picture", "video", "claim"
    where: str  # "trailing", "APP1", "tEXt", "trailing/zip/a.jpg"
    size: int = 0  # bytes
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Unopened:
    """A payload nobody looked into. One of these makes a look *partly* seen."""

    where: str
    why: str  # "encrypted", "too deep", "too large", "too many", "unsupported", "broken"
    size: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One view of one moment of a picture as it left the cage: `height` x `width` x 3 bytes, RGB, row by row, oriented."""

    rgb: bytes
    width: int
    height: int
    index: int = 0  # which frame or page of the source, from 0
    at: float = 0.0  # seconds from the start, videos and animations
    view: str = "whole"  # or "tile 2/5"
    ground: Ground = Ground.OPAQUE
    source: str = ""  # "" for the object itself, else where the embedded picture was found
    codes: tuple[str, ...] = ()  # texts of two-dimensional codes that begin as a drill marker does


@dataclass(frozen=True, slots=True)
class Finding:
    """One analyser's evidence about one frame. Never a verdict, and never compared with a threshold before policy."""

    concept: str  # "exposed", "explicit", "face", "drill"
    score: float
    analyser: str
    version: str
    frame: int = 0
    source: str = ""
    measures: Mapping[str, float] = field(default_factory=dict)  # a face's "age", "under_18", "side"


@dataclass(frozen=True, slots=True)
class ConceptGroup:
    """What a picture is compared with under one name: several short, clinical words for the same thing."""

    name: str  # the concept of the findings: "apparent_minor"
    words: tuple[str, ...]  # "a child"; each is a measure of the finding


@dataclass(frozen=True, slots=True)
class Concepts:
    """The groups that an image-text model compares pictures with, and the controls that they are weighed against."""

    groups: tuple[ConceptGroup, ...]
    controls: tuple[str, ...]
    prompts: tuple[str, ...]  # sentences with {} for the word; a word's embedding is the mean over them

    @property
    def texts(self) -> tuple[str, ...]:
        """Every word, the groups' in their order and then the controls: the rows of the embeddings."""
        return (*(word for group in self.groups for word in group.words), *self.controls)

    @property
    def digest(self) -> str:
        """Changes exactly when an embedding, or what it belongs to, could."""
        facts = [[[group.name, group.words] for group in self.groups], self.controls, self.prompts]
        return sha256(json.dumps(facts).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class OperatingPoints:
    """Marks on the scores of one version of an analyser, set on the operator's own media by `calibrate`.

    A score (or measure) at or above its point is higher than a share of 1 - `tail` of those media.
    """

    version: str  # of the findings that they are about
    tail: float
    scores: Mapping[str, float]  # a group's name: the point on its score
    measures: Mapping[str, Mapping[str, float]]  # a group's name: each word's point


@dataclass(frozen=True, slots=True)
class Look:
    """One attempt to see one object, whatever came of it."""

    ref: ObjectRef
    standing: Standing
    at: datetime
    sha256: Sha256 | None = None
    engine: EngineVersion | None = None
    kind: Kind | None = None
    findings: tuple[Finding, ...] = ()
    notes: tuple[Note, ...] = ()
    unopened: tuple[Unopened, ...] = ()
    reason: Reason | None = None  # BROKEN only
    problem: str = ""  # one line for a person: why broken, gone or unreached
    milliseconds: int = 0

    @property
    def partly(self) -> bool:
        """Whether something inside the object was not opened."""
        return bool(self.unopened)

    @property
    def settles(self) -> bool:
        """Whether these bytes need no other look by this engine version."""
        return self.standing in (Standing.SEEN, Standing.BROKEN)

    @property
    def not_scanned(self) -> bool:
        """The headline number of every surface counts these (a gone object has nothing left to scan)."""
        return (self.standing in (Standing.BROKEN, Standing.UNREACHED) and not self.empty) or self.partly

    @property
    def empty(self) -> bool:
        """Whether there is not one byte to look at: broken, and nothing that could be scanned."""
        return self.reason is Reason.EMPTY

    def about(self, ref: ObjectRef, at: datetime) -> "Look":
        """The same look, for another object that holds the same bytes."""
        return replace(self, ref=ref, at=at, milliseconds=0)


@dataclass(frozen=True, slots=True)
class Decision:
    """What policy, or a person over it, makes of a look."""

    step: Step
    rule: str
    because: str  # words a moderator understands
    policy: str = ""  # digest of the policy that decided; "" when a person did
    rank: int = 0  # the worse, the higher; orders what is owed
    by: str = "policy"  # or the person's name
    drill: bool = False  # decided on a drill picture: acted on with its own allowance and vault


@dataclass(frozen=True, slots=True)
class Place:
    """Where a hidden object lies, with all that is needed to put it back as it was."""

    store: StoreName
    key: str
    how: str  # "moved" into the quarantine place, "removed" when only the vault holds it
    where: str  # inside the quarantine place; "" when removed
    facts: Mapping[str, str] = field(default_factory=dict)  # content type, mode, owner, times: what restore must set again


@dataclass(frozen=True, slots=True)
class DeedEvent:
    """One line of the hash-chained record of what was done."""

    act: Act
    state: DeedState
    store: StoreName
    key: str
    sha256: Sha256
    decision: int  # ledger number of the decision behind it
    actor: str
    at: datetime
    drill: bool = False
    place: Place | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Owed:
    """A quarantine decision whose deed is not done, with the last event of the unfinished deed if there is one."""

    ref: ObjectRef
    sha256: Sha256
    decision_id: int
    decision: Decision
    last: DeedEvent | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of the gate. A passed one with `debt` was let through unscanned, and stays a debt until these bytes are seen."""

    ref: ObjectRef  # where the upload will lie: the platform's store and key; the pseudo-store "gate" where it will not
    at: datetime
    face: str  # which protocol asked: "pict-rs", "pictrs-safety"
    passed: bool
    why: AnswerReason
    sha256: Sha256 | None = None  # None when the body never arrived whole
    claimed: str = ""  # Content-Type of the request
    debt: bool = False
    original: Sha256 | None = None  # of the bytes as uploaded, where they were seen and differ
    sealed: bool | None = None  # refused bytes only: whether the vault has them
    drill: bool = False
    problem: str = ""
    milliseconds: int = 0


@dataclass(frozen=True, slots=True)
class Debt:
    """Something the gate let through unscanned, waiting to be scanned."""

    id: int
    ref: ObjectRef
    sha256: Sha256
    at: datetime
    why: AnswerReason
    claimed: str = ""
    broken: bool = False  # it was looked at since, and cannot be decoded by this engine version


@dataclass(frozen=True, slots=True)
class TraceRecord:
    """That somebody asked who is behind an object, and why; the answer itself lies in the vault, or nowhere."""

    at: datetime
    actor: str
    reason: str
    subject: str
    sha256: Sha256 | None = None
    sealed: Sha256 | None = None  # of the trace in the vault
    counts: Mapping[str, int] = field(default_factory=dict)  # "posts": 2
    problem: str = ""


@dataclass(frozen=True, slots=True)
class PlatformDeed:
    """One line of what was done on a platform: a post removed, an account banned, a report resolved."""

    at: datetime
    actor: str
    platform: str  # "lemmy"
    act: str  # "remove post"
    target: str  # the platform's own address of what it was done to
    state: DeedState  # BEGUN, DONE or FAILED
    sha256: Sha256 | None = None
    problem: str = ""
