"""What is done in Lemmy about a picture: planned from a trace, then done call by call and read back; decides nothing and seals nothing.

Lemmy's own purge knows a post's address and preview only and asks pict-rs over the public web; here every post and comment of
the trace is meant, whatever shows the picture in it. What a step would destroy is sealed before (`evidence`). Nothing is ever
reported: a report of 0.19 travels to other servers.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from hashlib import sha256 as digest
from typing import Literal

from fediwarden.errors import FediwardenError, Misconfigured, Refused
from fediwarden.ledger import Ledger
from fediwarden.model import DeedState, PlatformDeed, RunId, Sha256
from fediwarden.platforms.lemmy.api import Api, NotThere, UserReport
from fediwarden.platforms.lemmy.image_urls import Matcher, alias_of, matcher
from fediwarden.platforms.lemmy.model import Person, Trace, UseKind
from fediwarden.platforms.lemmy.places import PICTURES, TEXTS, PictureSpot, without

PLATFORM = "lemmy"
REASON = "against the rules of this server"  # stands in the public moderation log and travels: it accuses nobody
BY_HAND = "by hand"
OWNER_ONLY = "Lemmy lets only its owner change it: by hand, or --ban --remove-data"
LEFT = {  # why what is neither a post nor a comment, an icon nor a text of the site or a community is left
    UseKind.PROFILE: OWNER_ONLY,
    UseKind.PRIVATE_MESSAGE: "only --ban --remove-data removes it",
    UseKind.MODLOG: "a moderator's reason in the public log: it stays",
    UseKind.RECORD: "Lemmy's own record: only in its database",
}
BETA_BANNER = "this Lemmy takes away the icon when asked for the banner: by hand"
ELSEWHERE = "of another server, from which it would come back: a running gate keeps the copy out"
PICTRS_LOST_IT = "pict-rs has it no more, and this Lemmy then refuses: by hand"
NOT_CUT = "the address cannot be cut out of the text: by hand"
SETTLES = 5.0  # seconds until a yes that is not so counts as none: Lemmy keeps `GET /site` for one (CACHE_DURATION_API)
ASK_AGAIN = 0.25  # seconds until it is read back a second time; doubled up to one
OUT_OF_REACH = (  # what is suspected is owed to `apply`; what a restore has brought back is not, and pict-rs alone can delete it
    "`fediwarden apply` takes it out of reach where it is suspected; where it is not, purge it in pict-rs by this alias"
    " (docs/acting-in-lemmy.md)"
)
ACCUSES = re.compile(
    r"csam|csem|\bcp\b|child|minor|underage|pa?edo|abus|exploit|illegal|crim(?:e|inal)|police|porn|offen[cs]e|offender",
    re.IGNORECASE,
)


class Deed(StrEnum):
    """What one step does."""

    SEAL = "seal"  # into the vault, before anything else; nothing in Lemmy
    RESOLVE = "resolve report"
    TAKE = "take away"  # an icon, a banner, an emoji, a tagline
    CUT = "cut out of"  # a sidebar, a description
    REMOVE = "remove"
    PURGE = "purge"
    IMAGE = "delete"  # the picture itself with all aliases and Lemmy's rows about its upload (1.0)
    BAN = "ban"
    BAN_DATA = "ban with data"  # every post removed, every upload deleted
    MESSAGE = "message"


DESTROYS = (Deed.TAKE, Deed.CUT, Deed.PURGE, Deed.IMAGE, Deed.BAN, Deed.BAN_DATA)  # a ban ends sessions, which a trace names


DONE = {  # what was read back
    Deed.REMOVE: "out of sight; the public moderation log keeps it",
    Deed.PURGE: "gone from Lemmy",
    Deed.BAN: "banned",
    Deed.BAN_DATA: "banned, and the profile is empty",
    Deed.TAKE: "away",
    Deed.CUT: "changed",
}


@dataclass(frozen=True, slots=True)
class ModerationChoice:
    """What the administrator asks for."""

    posts: Literal["", "remove", "purge"] = ""
    comments: Literal["", "remove", "purge"] = ""
    ban: bool = False
    persons: tuple[str, ...] = ()  # names or addresses; whom to ban where there are several
    resolve_reports: bool = False
    message: str = ""  # to the other administrators
    reason: str = REASON
    icons: bool = False  # icons and banners of the site and of communities, emoji
    texts: bool = False  # sidebars, descriptions, taglines
    image: bool = False  # the picture itself, by Lemmy (1.0)
    data: bool = False  # whom to ban is banned with everything they posted and uploaded


@dataclass(frozen=True, slots=True)
class ModerationStep:
    """One call."""

    deed: Deed
    kind: str  # "post", "comment", "person", "report", "site", "community", "emoji", "tagline", "picture"
    number: int
    target: str  # its address, for the record
    words: str = ""  # what else a person should know before they agree
    report: UserReport | None = None
    field: str = ""  # the column: "icon", "sidebar"
    value: str = ""  # what stands there now
    text: str = ""  # what shall stand there
    alias: str = ""  # of an icon or banner: what Lemmy has pict-rs delete with it; "" where it asks for nothing

    @property
    def act(self) -> str:
        """What is done, for the record."""
        if self.deed in (Deed.RESOLVE, Deed.MESSAGE):
            return self.deed.value
        if self.deed is Deed.BAN_DATA:
            return "ban person with data"
        column = f" {self.field}" if self.deed in (Deed.TAKE, Deed.CUT) and self.kind in ("site", "community") else ""
        return f"{self.deed.value} {self.kind}{column}"


@dataclass(frozen=True, slots=True)
class ModerationPlan:
    """What would be done, in order; what is so already; and what cannot be done from here."""

    steps: tuple[ModerationStep, ...]
    already: tuple[str, ...]
    left: tuple[str, ...]
    message: str
    reason: str
    notes: tuple[str, ...] = ()  # what the steps do to others, and what they do not reach

    @property
    def forgets(self) -> bool:
        """Whether Lemmy forgets something by it: a trace must be sealed before."""
        return any(step.deed in DESTROYS for step in self.steps)


@dataclass(frozen=True, slots=True)
class Done:
    """What came of one step."""

    step: ModerationStep
    problem: str = ""  # "" when it is done
    note: str = ""


def plan(
    trace: Trace,
    choice: ModerationChoice,
    *,
    reports: Sequence[UserReport],
    admins: Mapping[int, str],
    me: int,
    sent: Sequence[str],
    places: Sequence[PictureSpot] = (),
    known: Callable[[str], tuple[str, ...]] | None = None,
) -> ModerationPlan:
    """Make a plan; pure but for `known`.

    What Lemmy must have pict-rs delete comes before what it can do without a picture: icons, texts, the picture, posts, accounts.

    Args:
        reports: those that nobody has resolved.
        admins: number and address of the administrators, who get the message and are never banned from here.
        me: who acts, and gets no message.
        sent: targets of messages that were sent before.
        places: what else shows the picture now.
        known: every alias of what pict-rs holds under an alias, empty where it holds nothing; None where nobody can be asked.
    Raises: Misconfigured where it is not clear who is meant to be banned; what `known` raises.
    """
    steps: list[ModerationStep] = []
    already: list[str] = []
    left: list[str] = []
    shown = {(use.kind, use.id): use for use in reversed(trace.uses)}
    asked = matcher(trace.aliases, trace.urls, cut_at_ampersand=trace.version == "0.19")
    if choice.resolve_reports:
        kinds = {"post": UseKind.POST, "comment": UseKind.COMMENT, "private_message": UseKind.PRIVATE_MESSAGE}
        for report in reports:
            use = shown.get((kinds[report.kind], report.of))
            if use is not None:
                target = f"{report.kind.replace('_', ' ')} report {report.id}"
                steps.append(ModerationStep(Deed.RESOLVE, "report", report.id, target, f"about {use.address}", report))
    handled: set[tuple[str, int, str]] = set()
    for place in places:
        if choice.icons if place.picture else choice.texts:
            handled.add((place.kind, place.number, place.field))
            made = _at(place, asked, trace.version, known)
            if isinstance(made, ModerationStep):
                steps.append(made)
            else:
                left.append(made)
    if choice.image:
        _plan_image(trace, known, steps, already, left)
    for kind, how in ((UseKind.POST, choice.posts), (UseKind.COMMENT, choice.comments)):
        for use in sorted((use for use in shown.values() if use.kind is kind), key=lambda use: use.id):
            if not how:
                continue
            if how == "remove" and (use.removed or (use.deleted and kind is UseKind.COMMENT)):
                # Lemmy refuses to remove a comment that its author deleted, and shows its text to nobody
                already.append(f"{use.address} is {'removed' if use.removed else 'deleted by its author'} already")
                continue
            fields = {each.field for each in trace.uses if (each.kind, each.id) == (use.kind, use.id)}
            words = "only as the preview of a link" if fields == {"thumbnail_url"} else ""
            if how == "purge" and use.local is False:
                words = "; ".join(filter(None, (words, "of another server: the next vote or edit brings it back")))
            steps.append(ModerationStep(Deed(how), kind.value, use.id, use.address, words))
    if choice.ban:
        for person in _to_ban(trace, choice.persons, admins):
            if person.banned and not choice.data:
                already.append(f"{person.address} is banned already")
                continue
            deed = Deed.BAN_DATA if choice.data else Deed.BAN
            steps.append(ModerationStep(deed, "person", person.id, person.address, "" if person.local else "of another server"))
    if choice.message:
        mark = digest(choice.message.encode()).hexdigest()[:8]
        for number, address in admins.items():
            target = f"{address} ({mark})"
            if number == me:
                continue
            if target in sent:
                already.append(f"{address} was sent this message before")
            else:
                steps.append(ModerationStep(Deed.MESSAGE, "person", number, target))
    emptied = {step.number for step in steps if step.deed is Deed.BAN_DATA}
    left += _left(trace, handled, places, emptied, {step.alias for step in steps})
    return ModerationPlan(
        tuple(steps), tuple(already), tuple(left), choice.message, choice.reason, tuple(_notes(trace, choice.reason, steps))
    )


def _at(place: PictureSpot, asked: Matcher, version: str, known: Callable[[str], tuple[str, ...]] | None) -> ModerationStep | str:
    """What takes the picture out of a place, or why a person has to."""
    where = f"{place.kind} {place.target}: {place.field}"
    if not place.local:
        return f"{where} ({ELSEWHERE})"
    step = ModerationStep(Deed.TAKE, place.kind, place.number, place.target, field=place.field, value=place.value)
    if place.kind == "emoji":
        return replace(step, words="its picture stays in pict-rs")
    if place.kind == "tagline":
        return step
    if place.picture:
        if version == "1.0" and (place.kind, place.field) == ("community", "banner"):
            return f"{where} ({BETA_BANNER})"
        if version == "1.0" and known is not None and not known(place.value.rsplit("/", 1)[-1]):
            return f"{where} ({PICTRS_LOST_IT})"
        alias = place.value.rsplit("/", 1)[-1]
        # 0.19 looks for its row about the upload by these very signs, and asks pict-rs for what it finds there
        if version == "0.19" and alias != alias_of(alias.partition("?")[0]):
            return replace(step, words="its picture stays in pict-rs: Lemmy does not know it as it is spelled there")
        return replace(step, alias=alias_of(alias), words="Lemmy has pict-rs delete this alias")
    text = without(place.value, asked)
    if text is None:
        return f"{where} ({NOT_CUT})"
    return replace(step, deed=Deed.CUT, text=text, words="the rest of the text stays")


def _plan_image(
    trace: Trace,
    known: Callable[[str], tuple[str, ...]] | None,
    steps: list[ModerationStep],
    already: list[str],
    left: list[str],
) -> None:
    if trace.version == "0.19":
        left.append("the picture itself: Lemmy 0.19 has no call for it; `fediwarden apply` hides it")
        return
    met: set[str] = set()
    taken = {step.alias for step in steps}
    for alias in trace.aliases:
        if alias in met:
            continue
        aliases = (alias,) if known is None else known(alias)
        met |= {alias, *aliases}
        if not aliases:
            already.append(f"pict-rs has {alias} no more; Lemmy keeps its row about the upload")
            continue
        rest = [one for one in aliases if one not in taken]
        if not rest:
            already.append(f"pict-rs loses {alias} by the steps before; Lemmy keeps its row about the upload")
            continue
        alias = alias if alias in rest else rest[0]  # Lemmy refuses one that went before
        words = f"with all {len(rest)} aliases; Lemmy forgets who uploaded it" if known else "Lemmy forgets who uploaded it"
        steps.append(ModerationStep(Deed.IMAGE, "picture", 0, alias, words))


def accuses(reason: str) -> str:
    """The word of a reason that accuses somebody; "" where there is none. A plain list of words: it warns and stops nobody."""
    found = ACCUSES.search(reason)
    return found[0] if found else ""


def _notes(trace: Trace, reason: str, steps: Sequence[ModerationStep]) -> Iterator[str]:
    """What the steps do to others and what they do not reach, for whoever has to agree."""
    deeds = {step.deed for step in steps}
    bans = deeds & {Deed.BAN, Deed.BAN_DATA}
    if deeds & {Deed.REMOVE, Deed.PURGE} or bans:
        yield f"removals, purges and bans go to other servers, together with the reason {reason!r}"
        if word := accuses(reason):
            yield f"the reason says {word!r}: it is public, it travels, and it may accuse somebody who is innocent"
    if trace.version == "1.0" and (Deed.REMOVE in deeds or bans):
        yield "Lemmy 1.0 tells the author, by notification and mail, with the reason"
    if Deed.REMOVE in deeds:
        yield (
            "a removed post or comment stays in the public moderation log with its text, and a post with its address and preview;"
            " only a purge takes it out"
        )
    if Deed.PURGE in deeds:
        yield (
            "a purge of a post has pict-rs delete whatever lies under the last part of its address and of its preview,"
            " with all aliases; its comments go too"
        )
    if Deed.RESOLVE in deeds and trace.version == "1.0":
        yield "that a report is resolved goes to the servers concerned"
    if bans:
        yield (
            "a ban ends every session of the account, and its uploads are refused"
            if trace.version == "0.19"
            else "a ban ends no session in Lemmy 1.0 and stops no upload: only what the account posts is refused"
        )
    if Deed.BAN_DATA in deeds:
        yield (
            "every post, comment and message of the account is removed, every upload deleted, its avatar, banner and biography emptied;"
            " communities whose first moderator it is are removed, with icon and banner. Lifting the ban brings back no picture"
        )
    if any(step.deed in (Deed.TAKE, Deed.CUT) and step.kind == "community" for step in steps):
        yield "what changes in a community goes to the servers that follow it"
    if Deed.IMAGE in deeds:
        yield "`fediwarden restore` does not know what Lemmy deleted: it lies in the vault (`fediwarden vault open`)"
    for copy in trace.copies:
        yield f"there is also {copy.alias or copy.address}, {copy.words}: act on that as well"
    if trace.urls:
        yield (
            "where Lemmy proxies pictures (1.0 does unless told otherwise), a cached copy is fetched again at the next view:"
            " only a running gate keeps it out"
        )


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


_OFFERED = {
    *((UseKind.SITE, field) for field in (*PICTURES, *(name for texts in TEXTS.values() for name in texts["site"]))),
    *((UseKind.COMMUNITY, field) for field in (*PICTURES, *(name for texts in TEXTS.values() for name in texts["community"]))),
    (UseKind.EMOJI, "image_url"),
    (UseKind.TAGLINE, "content"),
}


def _left(
    trace: Trace,
    handled: set[tuple[str, int, str]],
    places: Sequence[PictureSpot],
    emptied: Collection[int],
    taken: Collection[str],
) -> Iterator[str]:
    """What shows the picture besides posts and comments, and is neither planned nor said to be done by hand already.

    `emptied`: accounts whose profile and messages go with a ban. `taken`: aliases that go with an icon, and Lemmy's rows about them.
    """
    handled = set(handled)
    for use in trace.uses:
        where = (use.kind.value, 0 if use.kind is UseKind.SITE else use.id, use.field)
        if use.kind in (UseKind.POST, UseKind.COMMENT, UseKind.REPORT) or where in handled:
            continue
        whose = {UseKind.PROFILE: use.id, UseKind.PRIVATE_MESSAGE: use.by}.get(use.kind)
        if whose in emptied:
            continue
        handled.add(where)
        why = LEFT.get(use.kind, BY_HAND)
        if (use.kind, use.field) in _OFFERED:
            why = _offer(use.kind.value, use.field)
        yield f"{use.kind.value} {use.address or use.id}: {use.field} ({why})"
    for place in places:
        if (place.kind, place.number, place.field) not in handled:
            yield f"{place.kind} {place.target}: {place.field} ({_offer(place.kind, place.field)})"
    if any(use.kind is UseKind.REPORT for use in trace.uses):
        yield "copies in reports stay until what was reported is purged"
    if trace.version == "0.19" and any(upload.alias not in taken for upload in trace.uploads):
        yield "Lemmy 0.19 keeps its row about the upload, which names the uploader: only in its database"


def _offer(kind: str, field: str) -> str:
    return "--icons takes it away" if kind == "emoji" or field in PICTURES else "--texts cuts it out"


class Moderator:
    """Does what a plan says, and reads back what came of it. Every call is on record before it is made."""

    def __init__(
        self,
        api: Api,
        ledger: Ledger,
        run: RunId,
        clock: Callable[[], datetime],
        actor: str,
        *,
        wait: Callable[[float], object],
        still: Callable[[Sequence[str]], list[str]] | None = None,
        changed: Callable[[ModerationStep], str] = lambda step: "",
    ) -> None:
        """
        Args:
            wait: waits so many seconds, before what is not so yet is read back again.
            still: which of some aliases pict-rs knows for all that, after waiting for its queue; None where nobody can be asked.
            changed: why a step would by now take something that nobody has sealed; "" where it does not.
        """
        self._api = api
        self._ledger = ledger
        self._run = run
        self._clock = clock
        self._actor = actor
        self._wait = wait
        self._still = still
        self._changed = changed

    def apply(
        self, plan: ModerationPlan, sha256: Sha256 | None, lose: Mapping[ModerationStep, Sequence[str]] | None = None
    ) -> Iterator[Done]:
        """One step after another; a refused one is a result and the next goes on. What is so already counts as done.

        Args:
            lose: the aliases that pict-rs must have lost after a step.
        Raises: Unreached where Lemmy gives no answer or its rate limit stands; what was done is on record.
        """
        for step in plan.steps:
            self._did(step, DeedState.BEGUN, sha256)
            try:
                with self._api.one_question():
                    problem, note = self._do_and_read_back(step, plan, (lose or {}).get(step, ()))
            except FediwardenError as error:
                self._did(step, DeedState.FAILED, sha256, str(error))
                raise
            self._did(step, DeedState.FAILED if problem else DeedState.DONE, sha256, problem or note)
            yield Done(step, problem=problem, note=note)

    def _do_and_read_back(self, step: ModerationStep, plan: ModerationPlan, lose: Sequence[str]) -> tuple[str, str]:
        """What went wrong, "" where nothing did, and what was read back."""
        told = ""
        try:
            if problem := self._moved(step) or self._changed(step):
                return problem, ""
            self._do(step, plan)
        except NotThere as error:
            told = f"not there any more: {error}"
        except Refused as error:
            told = str(error)
        try:
            so = self._is_so(step) if told and not told.startswith("not there") else self._becomes_so(step)
        except Refused as error:
            return told or f"Lemmy said yes, and it could not be read back: {error}", ""
        if told and not told.startswith("not there"):
            if not so:
                return told, ""
            told = f"it was so already: {told}"
        if so is False:
            return f"{told or 'Lemmy said yes'}, and it is not so", ""
        told = told or (DONE.get(step.deed, "") if so else "")
        left = self._still(lose) if lose and self._still else []
        if left:
            some = f"{', '.join(left[:5])}{' ...' if len(left) > 5 else ''}"
            return f"done in Lemmy, and pict-rs still hands out {some}: {OUT_OF_REACH}", told
        return "", "; ".join(filter(None, (told, "pict-rs has it no more" if lose and self._still else "")))

    def _becomes_so(self, step: ModerationStep) -> bool | None:
        """As `_is_so`, asked again for a while: Lemmy may answer from a cache that is older than the step. Raises: Unreached."""
        so = self._is_so(step)
        waited, pause = 0.0, ASK_AGAIN
        while so is False and waited < SETTLES and step.deed is not Deed.IMAGE:  # of that, pict-rs was asked for long enough
            self._wait(pause)
            waited, pause = waited + pause, min(1.0, pause * 2)
            so = self._is_so(step)
        return so

    def _is_so(self, step: ModerationStep) -> bool | None:
        """Whether Lemmy now says what the step is for; None where that cannot be asked. Raises: Unreached."""
        try:
            match step.deed:
                case Deed.REMOVE:
                    row = self._api.post(step.number) if step.kind == "post" else self._api.comment(step.number)
                    return bool(row.get("removed")) or (step.kind == "comment" and bool(row.get("deleted")))
                case Deed.PURGE:
                    (self._api.post if step.kind == "post" else self._api.comment)(step.number)
                    return False
                case Deed.BAN:
                    return bool(self._api.person(step.number)["banned"])
                case Deed.BAN_DATA:
                    row = self._api.person(step.number)
                    return bool(row["banned"]) and not any(row.get(name) for name in ("avatar", "banner", "bio"))
                case Deed.TAKE if step.kind == "emoji":
                    return all(int(row["id"]) != step.number for row in self._api.emoji())
                case Deed.TAKE if step.kind == "tagline":
                    return all(row["content"] != step.value for row in self._api.taglines())
                case Deed.IMAGE if self._still:
                    return not self._still([step.target])
                case Deed.TAKE | Deed.CUT:
                    return self._column(step) != step.value
                case _:
                    return None
        except NotThere:
            return True if step.deed in (Deed.REMOVE, Deed.PURGE, Deed.TAKE, Deed.CUT) else None

    def _moved(self, step: ModerationStep) -> str:
        """Whether something else stands by now where a picture or a text was to be taken away. Raises: Unreached, Refused, NotThere."""
        if step.deed not in (Deed.TAKE, Deed.CUT):
            return ""
        if step.kind == "emoji":
            now = next((str(row["image_url"]) for row in self._api.emoji() if int(row["id"]) == step.number), step.value)
        elif step.kind == "tagline":
            rows = self._api.taglines()
            now = next((str(row["content"]) for row in rows if int(row["id"]) == step.number), step.value)
            now = step.value if any(row["content"] == step.value for row in rows) and self._api.version == "0.19" else now
        else:
            now = self._column(step)
        return "" if now == step.value else "it was changed since the plan was made: give the call again"

    def _column(self, step: ModerationStep) -> str:
        if step.kind == "community":
            return str(self._api.community(step.number).get(step.field) or "")
        view = self._api.site()["site_view"]
        return str({**view.get("local_site", {}), **view.get("site", {})}.get(step.field) or "")

    def _do(self, step: ModerationStep, plan: ModerationPlan) -> None:
        match step.deed:
            case Deed.RESOLVE:
                if step.report is not None:
                    self._api.resolve(step.report)
            case Deed.TAKE if step.kind == "emoji":
                self._api.delete_emoji(step.number)
            case Deed.TAKE if step.kind == "tagline":
                self._api.delete_tagline(step.number, step.value)
            case Deed.TAKE:
                self._api.clear_picture(step.kind, step.number, step.field)
            case Deed.CUT:
                self._api.edit(step.kind, step.number, {step.field: step.text})
            case Deed.REMOVE:
                self._api.remove(step.kind, step.number, plan.reason)
            case Deed.PURGE:
                self._api.purge(step.kind, step.number, plan.reason)
            case Deed.IMAGE:
                self._api.delete_image(step.target)
            case Deed.BAN | Deed.BAN_DATA:
                self._api.ban(step.number, plan.reason, data=step.deed is Deed.BAN_DATA)
            case Deed.MESSAGE:
                self._api.message(step.number, plan.message)
            case Deed.SEAL:  # `evidence` does that, before any plan is done
                raise ValueError("sealing is no call")

    def _did(self, step: ModerationStep, state: DeedState, sha256: Sha256 | None, problem: str = "") -> None:
        deed = PlatformDeed(self._clock(), self._actor, PLATFORM, step.act, step.target, state, sha256, problem)
        self._ledger.platforms.did(self._run, deed)


def sent_before(deeds: Sequence[PlatformDeed]) -> list[str]:
    """Targets of the messages that were sent before."""
    return [deed.target for deed in deeds if deed.act == Deed.MESSAGE.value and deed.state is DeedState.DONE]
