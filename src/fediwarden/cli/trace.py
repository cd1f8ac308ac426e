"""`trace`: who is behind an object, for whoever may ask; decides nothing, and changes nothing but the record of who asked."""

from collections.abc import Iterator
from datetime import datetime

import typer

from fediwarden.cli.common import JSON, build, recorded
from fediwarden.cli.output import emit, plain, result, row, say, show, table
from fediwarden.errors import Exit
from fediwarden.model import StoreName
from fediwarden.platforms.lemmy.model import REDACTED, Person, Trace, Upload, Use
from fediwarden.tracing import Subject

STORE = typer.Option("", "--store", help="The store, where several hold this key.")
BECAUSE = typer.Option(
    "", "--because", metavar="REASON", help="Why it is asked, for the record; needed where nothing is suspected."
)
SUBJECT = typer.Argument(..., metavar="SUBJECT", help="An object's key, an alias of pict-rs, a SHA-256, or a picture's address.")


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command(short_help="Say who is behind an object: uploader, posts, comments, communities, sessions.")(trace)


def trace(
    subject: str = SUBJECT,
    because: str = BECAUSE,
    full: bool = typer.Option(
        False, "--full", help="Also mail addresses, network addresses and user agents; that they were shown is on record."
    ),
    tree: bool = typer.Option(False, "--tree", help="As a tree: each person with what is theirs."),
    store: str = STORE,
    json: bool = JSON,
) -> int:
    """Say who is behind an object: who uploaded it, what shows it, where, and with which sessions.

    A trace tells about people. It needs an object that is suspected, hidden or was refused, or a reason (--because); who
    asked and why is recorded before anything is shown, and mail addresses, network addresses and user agents are left out
    unless --full asks for them. Who shows a picture is not thereby guilty of anything: many pass on what they have not seen.
    Exit code 4 where nothing is suspected and no reason is given, 5 if Lemmy or its database gives no
    answer or refuses.
    """
    app = build()
    arguments = {"subject": subject, "because": because, "full": str(full)}
    with recorded(app, "trace", arguments) as run, app.tracing(run.id) as tracing:
        meant = tracing.subject(subject, StoreName(app.store(store).name) if store else None)
        whole = tracing.ask(meant, because, full=full)
        run.counts.update(whole.counts)
    seen = whole if full else whole.redacted()
    if json:
        emit(trace_json(meant, seen, full=full))
        return Exit.OK
    (_tell_tree if tree else _tell)(meant, seen)
    for limit in (*meant.limits, *seen.limits):
        say(f"not asked: {plain(limit)}")
    if not full and any(REDACTED in (session.ip, session.user_agent) for session in seen.sessions):
        say("mail addresses, network addresses and user agents are left out; --full shows them, and is recorded")
    return Exit.OK


def trace_json(meant: Subject, seen: Trace, *, full: bool) -> dict[str, object]:
    """A trace for programs."""
    told = seen.as_json()
    return {
        "subject": meant.text,
        "sha256": meant.sha256,
        "suspected": meant.suspected or None,
        "objects": [{"store": entry.ref.store, "key": entry.ref.key, "hidden": entry.hidden} for entry in meant.objects],
        "redacted": not full,
        **told,
        "limits": [*meant.limits, *seen.limits],
    }


def _tell(meant: Subject, seen: Trace) -> None:
    _head(meant, seen)
    if seen.persons:
        people = table("who", "", "account", "first seen", "mail", title="Persons")
        for person in seen.persons:
            row(people, _role(seen, person), person.address, _facts(person), _day(person.created), person.email)
        show(people)
    if seen.uses:
        uses = table("what", ">number", "where in it", "by", "community", "when", "", title="Shown in")
        for use in seen.uses:
            row(uses, use.kind.value, str(use.id), use.field, _by(seen, use), _community(seen, use), _day(use.at), _state(use))
        show(uses)
    if seen.sessions:
        sessions = table("person", "since", "address of the login", "user agent", title="Sessions (of logins, not of uploads)")
        for session in seen.sessions:
            row(sessions, _name(seen, session.person), _day(session.started), session.ip, session.user_agent)
        show(sessions)
    if seen.other_uploads:
        others = table("alias", "when", title=f"{len(seen.other_uploads):,} other uploads of the same accounts")
        for upload in seen.other_uploads:
            row(others, upload.alias, _day(upload.at))
        show(others)


def _head(meant: Subject, seen: Trace) -> None:
    result(f"{plain(meant.text)}, as Lemmy {seen.version} tells it ({seen.source})")
    result(f"  sha256    {meant.sha256 or 'not known'}")
    result(f"  known as  {', '.join(plain(name) for name in (*seen.aliases, *seen.urls))}")
    result(f"  standing  {plain(meant.suspected) or 'not suspected'}")
    if not seen.uploads and not seen.uses:
        result("  Lemmy knows of no upload and of nothing that shows it")
    for upload in seen.uploads:
        result(f"  uploaded  {_uploaded(seen, upload)}")
    for copy in seen.copies:
        result(f"  also as   {plain(copy.alias or copy.address)}: {copy.words}")


def _uploaded(seen: Trace, upload: Upload) -> str:
    when = f", {_day(upload.at)}" if upload.at else ""
    if upload.thumbnail_of is not None:
        return f"by Lemmy, as the preview of post {upload.thumbnail_of}{when}"
    who = seen.person(upload.person)
    return f"by {plain(who.address)}{when}" if who else f"by nobody that Lemmy knows: a preview that it made{when}"


def _tell_tree(meant: Subject, seen: Trace) -> None:
    _head(meant, seen)
    for person in seen.persons:
        branches = list(_branches(seen, person))
        result(
            f"{plain(person.address)} ({_role(seen, person)}; {plain(_facts(person))}{f'; {plain(person.email)}' if person.email else ''})"
        )
        for number, branch in enumerate(branches, 1):
            result(f"{'└─' if number == len(branches) else '├─'} {plain(branch)}")
    nobodys = [use for use in seen.uses if seen.person(use.by) is None]
    if nobodys:
        result("nobody's")
        for number, use in enumerate(nobodys, 1):
            result(f"{'└─' if number == len(nobodys) else '├─'} {plain(_words(seen, use))}")


def _branches(seen: Trace, person: Person) -> Iterator[str]:
    for upload in seen.uploads:
        if upload.person == person.id and upload.thumbnail_of is None:
            yield f"uploaded {upload.alias} {_day(upload.at)}"
    for use in seen.uses:
        if use.by == person.id:
            yield _words(seen, use)
    for session in seen.sessions:
        if session.person == person.id:
            yield f"session since {_day(session.started)} from {session.ip or 'an unknown address'} {session.user_agent}".rstrip()
    others = sum(upload.person == person.id for upload in seen.other_uploads)
    if others:
        yield f"{others:,} other uploads"


def _words(seen: Trace, use: Use) -> str:
    community = _community(seen, use)
    state = _state(use)
    place = f"{use.kind.value} {use.address or use.id} ({use.field})"
    return f"{place}{f' in {community}' if community else ''} {_day(use.at)}{f', {state}' if state else ''}"


def _role(seen: Trace, person: Person) -> str:
    if person in seen.uploaders:
        return "uploaded it"
    return "shows it" if any(use.by == person.id for use in seen.uses) else "a preview was made for"


def _facts(person: Person) -> str:
    facts = ["local" if person.local else f"of {person.domain or 'another server'}"]
    facts += ["administrator"] if person.admin else []
    facts += ["banned"] if person.banned else []
    facts += ["deleted"] if person.deleted else []
    return ", ".join(facts)


def _name(seen: Trace, number: int) -> str:
    person = seen.person(number)
    return person.name if person else str(number)


def _by(seen: Trace, use: Use) -> str:
    person = seen.person(use.by)
    return person.name if person else ""


def _community(seen: Trace, use: Use) -> str:
    found = next((each for each in seen.communities if each.id == use.community), None)
    return f"{found.name}@{found.domain}" if found else ""


def _state(use: Use) -> str:
    return ", ".join([*(["removed"] if use.removed else []), *(["deleted"] if use.deleted else [])])


def _day(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M}" if at else ""
