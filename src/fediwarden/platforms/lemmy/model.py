"""What Lemmy says about who is behind a picture, as frozen values; asks nothing, and holds no token, password or key."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Protocol

REDACTED = "redacted"  # stands for an address, a mail address or a user agent in a trace that is not shown in full


class UseKind(StrEnum):
    """What shows a picture."""

    POST = "post"
    COMMENT = "comment"
    PRIVATE_MESSAGE = "private message"
    PROFILE = "profile"  # avatar, banner or biography of a person
    COMMUNITY = "community"
    MULTI_COMMUNITY = "multi-community"
    SITE = "site"
    EMOJI = "emoji"
    TAGLINE = "tagline"
    REPORT = "report"  # keeps a copy of what was reported, and why
    APPLICATION = "application"  # what somebody wrote to be let in, and why they were not
    COMMUNITY_TAG = "community tag"
    NOTE = "note"  # what one account wrote down about another
    MODLOG = "mod log"  # the reason that a moderator gave; public
    RECORD = "record"  # what Lemmy notes for itself of pictures that it fetched, sized or blurred; nobody's


@dataclass(frozen=True, slots=True)
class Person:
    """An account, of this server or of another one."""

    id: int
    name: str
    address: str  # its ActivityPub address
    local: bool
    domain: str = ""  # of its instance
    display_name: str = ""
    created: datetime | None = None
    banned: bool | None = None  # from this server; None where it is not known
    deleted: bool = False
    admin: bool = False
    local_user: int | None = None
    email: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Community:
    """A community in which a picture was shown."""

    id: int
    name: str
    address: str
    domain: str = ""


@dataclass(frozen=True, slots=True)
class Use:
    """One place that shows the picture, or links to it."""

    kind: UseKind
    id: int
    field: str  # "url", "thumbnail_url", "body", "avatar"
    address: str = ""
    by: int | None = None  # the person behind it; None for what is nobody's, such as a report's copy
    community: int | None = None
    at: datetime | None = None
    local: bool | None = None
    removed: bool = False  # by a moderator
    deleted: bool = False  # by its author


@dataclass(frozen=True, slots=True)
class LoginSession:
    """One login that has not ended; the address it was made from is not that of an upload."""

    person: int
    started: datetime | None
    ip: str = field(default="", repr=False)
    user_agent: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Upload:
    """One picture that Lemmy took in."""

    alias: str
    at: datetime | None = None
    person: int | None = None  # None for thumbnails that Lemmy 0.19 fetched
    thumbnail_of: int | None = None  # the post whose preview it is; the person behind it uploaded nothing


@dataclass(frozen=True, slots=True)
class Copy:
    """Another picture that shows the same: the preview that Lemmy made of what was asked about, or the picture that it is the preview of."""

    address: str  # as the post has it
    alias: str  # of this server's pict-rs; "" for a picture of another server
    post: int  # whose `url` and `thumbnail_url` tie the two together
    preview: bool  # whether this is the preview; False: what was asked about is
    by_lemmy: bool = True  # False for a preview that somebody uploaded and chose: the two may show different things

    @property
    def words(self) -> str:
        """What it is, in a few words."""
        of_whom = "that Lemmy made" if self.by_lemmy else "that somebody uploaded, which may show something else"
        return (
            f"the preview of post {self.post} {of_whom}"
            if self.preview
            else f"the picture of post {self.post}, whose preview this is"
        )


@dataclass(frozen=True, slots=True)
class Trace:
    """Who is behind a picture, as far as Lemmy could be asked."""

    version: str  # of Lemmy: "0.19" or "1.0"
    source: str  # "database" or "API"
    aliases: tuple[str, ...]  # what was asked about
    urls: tuple[str, ...]
    uploads: tuple[Upload, ...] = ()
    uses: tuple[Use, ...] = ()
    persons: tuple[Person, ...] = ()
    communities: tuple[Community, ...] = ()
    sessions: tuple[LoginSession, ...] = ()
    other_uploads: tuple[Upload, ...] = ()  # of the same accounts, newest first
    limits: tuple[str, ...] = ()  # what could not be asked, in words
    copies: tuple[Copy, ...] = ()  # other bytes and other aliases, which show the same: they stay public when this one is hidden
    complete: bool = (
        True  # False: something that may show it was not asked, so that few owners are no proof that there are no others
    )

    def person(self, number: int | None) -> Person | None:
        """The person of that number."""
        return next((person for person in self.persons if person.id == number), None)

    @property
    def uploaders(self) -> tuple[Person, ...]:
        """Who uploaded it; whose post merely made Lemmy fetch a preview is not among them."""
        numbers = {upload.person for upload in self.uploads if upload.thumbnail_of is None}
        return tuple(person for person in self.persons if person.id in numbers)

    @property
    def owners(self) -> tuple[Person, ...]:
        """Everybody whose upload, post, comment, message or profile it is: the blast radius of taking it away."""
        numbers = {upload.person for upload in self.uploads} | {use.by for use in self.uses}
        return tuple(person for person in self.persons if person.id in numbers)

    @property
    def counts(self) -> Mapping[str, int]:
        """The trace in numbers, for records and questions."""
        kinds = [use.kind for use in {(use.kind, use.id, use.address): use for use in self.uses}.values()]
        return {
            "uploaders": len(self.uploaders),
            "persons": len(self.owners),
            "posts": kinds.count(UseKind.POST),
            "comments": kinds.count(UseKind.COMMENT),
            "private messages": kinds.count(UseKind.PRIVATE_MESSAGE),
            "profiles": kinds.count(UseKind.PROFILE),
            "other uses": sum(kind not in _COUNTED for kind in kinds),
            "copies": len(self.copies),
            "communities": len(self.communities),
            "sessions": len(self.sessions),
            "other uploads": len(self.other_uploads),
        }

    def redacted(self) -> "Trace":
        """The same without mail addresses, network addresses and user agents; that there are some still shows."""
        return replace(
            self,
            persons=tuple(replace(person, email=_masked(person.email)) for person in self.persons),
            sessions=tuple(
                replace(session, ip=_masked(session.ip), user_agent=_masked(session.user_agent)) for session in self.sessions
            ),
        )

    def as_json(self) -> dict[str, object]:
        """For programs, and for the vault; times are left as they are."""
        return {**asdict(self), "counts": dict(self.counts), "owners": [person.id for person in self.owners]}


_COUNTED = (UseKind.POST, UseKind.COMMENT, UseKind.PRIVATE_MESSAGE, UseKind.PROFILE, UseKind.RECORD)


def _masked(text: str) -> str:
    return REDACTED if text else ""


class Tracer(Protocol):
    """Asks one Lemmy server, by its database or by its API; changes nothing."""

    def trace(self, aliases: Sequence[str], urls: Sequence[str], *, private_messages: bool) -> Trace:
        """Who is behind what pict-rs serves under these aliases, or caches from these remote URLs.

        Private messages are searched only where `private_messages` says so. Raises: Unreached, Refused.
        """

    def aliases(self) -> Iterator[str]:
        """Every alias that Lemmy has on record, for pict-rs 0.4, which cannot list. Raises: Unreached, Refused."""

    def close(self) -> None:
        """Give back connections; may be called twice."""
