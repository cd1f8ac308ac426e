"""What is done in Lemmy about a picture that pict-rs has lost already: planned from a trace, then done call by call; decides nothing.

Lemmy's own purge knows a post's address and preview only and asks pict-rs over the public web; here every post and comment of
the trace is meant, whatever shows the picture in it. Nothing is ever reported: a report of 0.19 travels to other servers.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import sha256 as digest
from typing import Literal

from fediwarden.errors import FediwardenError, Misconfigured, Refused
from fediwarden.ledger import Ledger
from fediwarden.model import DeedState, PlatformDeed, RunId, Sha256
from fediwarden.platforms.lemmy.api import Api, NotThere, Report
from fediwarden.platforms.lemmy.model import Person, Trace, UseKind

PLATFORM = "lemmy"
REASON = "against the rules of this server"  # stands in the public moderation log: it accuses nobody
BY_HAND = "Lemmy has no call for it: by hand"


class Deed(StrEnum):
    """What one step does."""

    RESOLVE = "resolve report"
    REMOVE = "remove"
    PURGE = "purge"
    BAN = "ban"
    MESSAGE = "message"


@dataclass(frozen=True, slots=True)
class Choice:
    """What the administrator asks for."""

    posts: Literal["", "remove", "purge"] = ""
    comments: Literal["", "remove", "purge"] = ""
    ban: bool = False
    persons: tuple[str, ...] = ()  # names or addresses; whom to ban where there are several
    resolve_reports: bool = False
    message: str = ""  # to the other administrators
    reason: str = REASON


@dataclass(frozen=True, slots=True)
class Step:
    """One call."""

    deed: Deed
    kind: str  # "post", "comment", "person", "report"
    number: int
    target: str  # its address, for the record
    words: str = ""  # what else a person should know before they agree
    report: Report | None = None

    @property
    def act(self) -> str:
        """What is done, for the record."""
        return self.deed.value if self.deed in (Deed.RESOLVE, Deed.MESSAGE) else f"{self.deed.value} {self.kind}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be done, in order; what is so already; and what cannot be done from here."""

    steps: tuple[Step, ...]
    already: tuple[str, ...]
    left: tuple[str, ...]
    message: str
    reason: str

    @property
    def forgets(self) -> bool:
        """Whether Lemmy forgets something by it: a trace must be sealed before."""
        return any(step.deed in (Deed.PURGE, Deed.BAN) for step in self.steps)


@dataclass(frozen=True, slots=True)
class Done:
    """What came of one step."""

    step: Step
    problem: str = ""  # "" when it is done
    note: str = ""


def plan(
    trace: Trace, choice: Choice, *, reports: Sequence[Report], admins: Mapping[int, str], me: int, sent: Sequence[str]
) -> Plan:
    """Make a plan; pure.

    Args:
        reports: those that nobody has resolved.
        admins: number and address of the administrators, who get the message and are never banned from here.
        me: who acts, and gets no message.
        sent: targets of messages that were sent before.
    Raises: Misconfigured where it is not clear who is meant to be banned.
    """
    steps: list[Step] = []
    already: list[str] = []
    shown = {(use.kind, use.id): use for use in reversed(trace.uses)}
    if choice.resolve_reports:
        kinds = {"post": UseKind.POST, "comment": UseKind.COMMENT, "private_message": UseKind.PRIVATE_MESSAGE}
        for report in reports:
            use = shown.get((kinds[report.kind], report.of))
            if use is not None:
                target = f"{report.kind.replace('_', ' ')} report {report.id}"
                steps.append(Step(Deed.RESOLVE, "report", report.id, target, f"about {use.address}", report))
    for kind, how in ((UseKind.POST, choice.posts), (UseKind.COMMENT, choice.comments)):
        for use in sorted((use for use in shown.values() if use.kind is kind), key=lambda use: use.id):
            if not how:
                continue
            if how == "remove" and use.removed:
                already.append(f"{use.address} is removed already")
                continue
            fields = {each.field for each in trace.uses if (each.kind, each.id) == (use.kind, use.id)}
            words = "only as the preview of a link" if fields == {"thumbnail_url"} else ""
            steps.append(Step(Deed(how), kind.value, use.id, use.address, words))
    if choice.ban:
        for person in _to_ban(trace, choice.persons, admins):
            if person.banned:
                already.append(f"{person.address} is banned already")
            else:
                steps.append(Step(Deed.BAN, "person", person.id, person.address, "" if person.local else "of another server"))
    if choice.message:
        mark = digest(choice.message.encode()).hexdigest()[:8]
        for number, address in admins.items():
            target = f"{address} ({mark})"
            if number == me:
                continue
            if target in sent:
                already.append(f"{address} was sent this message before")
            else:
                steps.append(Step(Deed.MESSAGE, "person", number, target))
    return Plan(tuple(steps), tuple(already), tuple(_left(trace)), choice.message, choice.reason)


def _to_ban(trace: Trace, named: Sequence[str], admins: Mapping[int, str]) -> list[Person]:
    """The uploader; where Lemmy knows none, whoever posted it; several only if each is named. Raises: Misconfigured."""
    authors = {use.by for use in trace.uses if use.kind in (UseKind.POST, UseKind.COMMENT)}
    candidates = list(trace.uploaders) or [person for person in trace.persons if person.id in authors]
    if named:
        candidates = list(dict.fromkeys(_called(trace, name) for name in named))
    if len(candidates) > 1 and not named:
        raise Misconfigured(
            f"{len(candidates)} persons are behind it: {', '.join(person.address for person in candidates)}",
            hint="name whom to ban: --person ADDRESS, once for each; who merely passed it on may know nothing of it",
        )
    kept = [person for person in candidates if person.admin or person.id in admins]
    if kept:
        raise Misconfigured(f"{kept[0].address} is an administrator", hint="an administrator is not banned from here")
    return candidates


def _called(trace: Trace, name: str) -> Person:
    """Whom an administrator means by an address, or by a name that only one of them has. Raises: Misconfigured."""
    meant = [person for person in trace.owners if person.address == name]
    meant = meant or [person for person in trace.owners if person.name == name]
    if not meant:
        raise Misconfigured(f"the trace names no {name!r}", hint="`fediwarden trace` names who is behind it")
    if len(meant) > 1:
        raise Misconfigured(
            f"{name!r} is the name of {len(meant)} persons: {', '.join(person.address for person in meant)}",
            hint="give the address: --person ADDRESS",
        )
    return meant[0]


def _left(trace: Trace) -> Iterator[str]:
    seen: set[tuple[UseKind, int, str]] = set()
    for use in trace.uses:
        where = (use.kind, use.id, use.field)
        if use.kind in (UseKind.POST, UseKind.COMMENT, UseKind.REPORT) or where in seen:
            continue
        seen.add(where)
        yield f"{use.kind.value} {use.address or use.id}: {use.field} ({BY_HAND})"
    if any(use.kind is UseKind.REPORT for use in trace.uses):
        yield "copies in reports stay until what was reported is purged"
    if trace.version == "0.19" and trace.uploads:
        yield "Lemmy 0.19 keeps its row about the upload, which names the uploader and leads to no picture any more"


class Acting:
    """Does what a plan says. Every call is on record before it is made."""

    def __init__(self, api: Api, ledger: Ledger, run: RunId, clock: Callable[[], datetime], actor: str) -> None:
        self._api = api
        self._ledger = ledger
        self._run = run
        self._clock = clock
        self._actor = actor

    def apply(self, plan: Plan, sha256: Sha256 | None) -> Iterator[Done]:
        """One step after another; a refused one is a result and the next goes on. What is so already counts as done.

        Raises: Unreached where Lemmy gives no answer or its rate limit stands; what was done is on record.
        """
        for step in plan.steps:
            self._did(step, DeedState.BEGUN, sha256)
            note = ""
            try:
                self._do(step, plan)
            except NotThere as error:
                note = f"not there any more: {error}"
            except Refused as error:
                self._did(step, DeedState.FAILED, sha256, str(error))
                yield Done(step, problem=str(error))
                continue
            except FediwardenError as error:
                self._did(step, DeedState.FAILED, sha256, str(error))
                raise
            self._did(step, DeedState.DONE, sha256, note)
            yield Done(step, note=note)

    def _do(self, step: Step, plan: Plan) -> None:
        match step.deed:
            case Deed.RESOLVE:
                if step.report is not None:
                    self._api.resolve(step.report)
            case Deed.REMOVE:
                self._api.remove(step.kind, step.number, plan.reason)
            case Deed.PURGE:
                self._api.purge(step.kind, step.number, plan.reason)
            case Deed.BAN:
                self._api.ban(step.number, plan.reason)
            case Deed.MESSAGE:
                self._api.message(step.number, plan.message)

    def _did(self, step: Step, state: DeedState, sha256: Sha256 | None, problem: str = "") -> None:
        deed = PlatformDeed(self._clock(), self._actor, PLATFORM, step.act, step.target, state, sha256, problem)
        self._ledger.platforms.did(self._run, deed)


def sent_before(deeds: Sequence[PlatformDeed]) -> list[str]:
    """Targets of the messages that were sent before."""
    return [deed.target for deed in deeds if deed.act == Deed.MESSAGE.value and deed.state is DeedState.DONE]
