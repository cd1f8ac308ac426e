"""`lemmy grants` and `lemmy act`: the rights that a trace needs, and acting in Lemmy after sealing what it would delete; decides nothing."""

from collections.abc import Sequence
from enum import StrEnum
from functools import partial

import typer

from fediwarden.app import App
from fediwarden.cli.common import JSON, agreed, build, recorded
from fediwarden.cli.output import emit, plain, result, row, say, show, table
from fediwarden.cli.trace import BECAUSE, STORE, SUBJECT
from fediwarden.errors import Exit
from fediwarden.ledger import GATE
from fediwarden.model import NameKind, ObjectRef, StoreName
from fediwarden.platforms.lemmy.acting import (
    REASON,
    Deed,
    Done,
    ModerationChoice,
    ModerationPlan,
    ModerationStep,
    Moderator,
    plan,
    sent_before,
)
from fediwarden.platforms.lemmy.api import Api
from fediwarden.platforms.lemmy.evidence import Looked, Shelf, Take
from fediwarden.platforms.lemmy.image_urls import matcher
from fediwarden.platforms.lemmy.model import Trace, UseKind
from fediwarden.platforms.lemmy.places import PictureSpot, survey
from fediwarden.platforms.lemmy.queries import OLDEST, grants
from fediwarden.tracing import Subject

app = typer.Typer(no_args_is_help=True, help="Lemmy: the rights that a trace needs, and acting on posts, comments and accounts.")


class LemmySchema(StrEnum):
    """Whose tables the rights are for; 0.19.3 stands for 0.19.0 to 0.19.3."""

    OLDEST = OLDEST
    OLD = "0.19"
    NEW = "1.0"


class RemovalWay(StrEnum):
    """How posts or comments are taken away."""

    REMOVE = "remove"
    PURGE = "purge"


@app.command(name="grants", short_help="Print the SQL that gives a role the rights of a trace.")
def print_grants(
    version: LemmySchema = typer.Option(LemmySchema.OLD, "--version", help="Of Lemmy; 0.19.3 stands for 0.19.0 to 0.19.3."),
    role: str = typer.Option("fediwarden", "--role", help="The role's name."),
    private_messages: bool = typer.Option(
        False, "--private-messages", help="Also private messages; only where the jurisdiction profile lets them be scanned."
    ),
    json: bool = JSON,
) -> int:
    """Print the SQL that gives a PostgreSQL role the rights of a trace: single columns, and no secret among them.

    Make the role first: CREATE ROLE fediwarden LOGIN PASSWORD '...'. Then, as the owner of Lemmy's tables:
    fediwarden lemmy grants | psql lemmy. The role can read no session token, password, key or delete token.
    """
    text = grants(version.value, role, private_messages=private_messages)
    if json:
        emit({"version": version.value, "role": role, "private_messages": private_messages, "sql": text})
    else:
        result(text.rstrip("\n"))
    return Exit.OK


@app.command(short_help="Remove or purge what shows an object, ban, resolve reports; a plan first.")
def act(
    subject: str = SUBJECT,
    posts: RemovalWay | None = typer.Option(None, "--posts", help="Posts that show it: out of sight, or deleted for good."),
    comments: RemovalWay | None = typer.Option(None, "--comments", help="Comments that show it: the same."),
    icons: bool = typer.Option(
        False, "--icons", help="Icons and banners of the site and of communities, and emoji: take them away."
    ),
    texts: bool = typer.Option(False, "--texts", help="Sidebars, descriptions and taglines: cut the picture out."),
    image: bool = typer.Option(False, "--image", help="The picture itself, with Lemmy's rows about its upload (1.0)."),
    ban: bool = typer.Option(False, "--ban", help="Ban the uploader; where Lemmy knows none, whoever posted it."),
    remove_data: bool = typer.Option(False, "--remove-data", help="With the ban: all that they posted, and every upload."),
    person: list[str] = typer.Option([], "--person", metavar="ADDRESS", help="Whom to ban, where several are behind it."),
    resolve_reports: bool = typer.Option(False, "--resolve-reports", help="Resolve the open reports about it."),
    message_admins: str = typer.Option("", "--message-admins", metavar="TEXT", help="Send the other administrators this text."),
    reason: str = typer.Option(REASON, "--reason", help="What the moderation log says: it is public and travels; accuse nobody."),
    without_sealing: list[str] = typer.Option(
        [], "--without-sealing", metavar="ALIAS", help="Go on though this picture cannot be sealed: it is then gone for good."
    ),
    because: str = BECAUSE,
    apply: bool = typer.Option(False, "--apply", help="Do it; without, only the plan is shown."),
    yes: bool = typer.Option(False, "--yes", "-y", help="Do it without asking."),
    store: str = STORE,
    json: bool = JSON,
) -> int:
    """Act in Lemmy on what shows an object: remove or purge, take away icons, cut texts, ban, resolve reports.

    Without --apply nothing is done and the plan is shown, with what each step does to others. Every post and comment of the
    trace is meant, whether the picture is its address, its preview or in its text. Before anything that makes Lemmy delete,
    the trace, the old texts and every picture that pict-rs would lose by it are sealed and read back; what cannot be sealed
    stops the command. Every call is on record before it is made, and what came of it is read back. What is so already is
    left, so that an interrupted call can be given again. With Lemmy 1.0, act before `fediwarden apply` hides the picture.
    Exit code 3 if Lemmy refused something or it is not so afterwards, 4 where it must not be done, 5 if it gives no answer or refuses
    the token.
    """
    built = build()
    choice = ModerationChoice(
        posts.value if posts else "",
        comments.value if comments else "",
        ban or bool(person) or remove_data,
        tuple(person),
        resolve_reports,
        message_admins,
        reason,
        icons=icons,
        texts=texts,
        image=image,
        data=remove_data,
    )
    if choice == ModerationChoice(reason=reason):
        raise typer.BadParameter(
            "say what to do: --posts, --comments, --icons, --texts, --image, --ban, --resolve-reports or --message-admins"
        )
    if not reason.strip():
        raise typer.BadParameter("Lemmy 1.0 wants a --reason, and others read it")
    asked = {"subject": subject, "because": because, "apply": str(apply), "without sealing": ", ".join(without_sealing)}
    failed = False
    with recorded(built, "lemmy act", asked) as run, built.tracing(run.id, seals=True) as tracing:
        api = built.lemmy()
        try:
            me = api.need_admin()
            meant = tracing.subject(subject, StoreName(built.store(store).name) if store else None)
            trace = tracing.ask(meant, because)
            with built.evidence(run.id, api, meant) as (evidence, shelf):
                made = plan(
                    trace,
                    choice,
                    reports=list(api.reports()) if resolve_reports else [],
                    admins={int(admin["id"]): str(admin.get("ap_id") or admin.get("actor_id")) for admin in api.admins()},
                    me=me.person,
                    sent=sent_before(built.ledger.platforms.deeds(meant.sha256)) if meant.sha256 else [],
                    places=_places(api, trace) if icons or texts else (),
                    known=shelf.aliases if shelf else None,
                )
                looked = evidence.look(made)
                _tell_plan(made, looked, _in_reach(built, meant, shelf), (*meant.limits, *trace.limits), json=json)
                if not apply:
                    if not json:
                        say("nothing was done; --apply does it")
                    return Exit.OK
                if made.steps and not yes and not agreed(f"{_number(made)} will be done in Lemmy. Go on?"):
                    return Exit.USAGE
                for done in evidence.seal(looked, without_sealing):
                    _tell_done(done, json=json)
                if made.forgets:
                    more = {"lemmy": looked.rows, "pictures": [_take_json(take) for take in looked.takes]}
                    words = "before Lemmy deletes or forgets"
                    for alias in _others(looked, meant):
                        other = tracing.subject(alias)
                        whose = tracing.ask(other, f"Lemmy deletes it together with {meant.text}")
                        tracing.seal(whose, other.sha256, words, other.text, drill=meant.drill)
                    tracing.seal(trace, meant.sha256, words, meant.text, drill=meant.drill, more=more)
                acting = Moderator(
                    api,
                    built.ledger,
                    run.id,
                    built.clock,
                    built.actor,
                    wait=built.stop.wait,
                    still=shelf.still if shelf else None,
                    changed=partial(evidence.changed, looked),
                )
                for done in acting.apply(made, meant.sha256, _lose(looked)):
                    failed |= bool(done.problem)
                    _tell_done(done, json=json)
        finally:
            api.close()
    return Exit.NOT_SCANNED if failed else Exit.OK


def _places(api: Api, trace: Trace) -> tuple[PictureSpot, ...]:
    """Icons, texts and emoji that show it, of the site and of every community that the trace names."""
    communities = {use.id for use in trace.uses if use.kind is UseKind.COMMUNITY}
    communities |= {community.id for community in trace.communities}
    asked = matcher(trace.aliases, trace.urls, cut_at_ampersand=trace.version == "0.19")
    return tuple(survey(api, asked, communities))


def _others(looked: Looked, meant: Subject) -> list[str]:
    """One alias of every other picture that goes as a whole: 1.0 then forgets who uploaded it."""
    found: dict[frozenset[str], str] = {}
    for take in looked.takes:
        if take.whole and not take.problem and set(meant.aliases).isdisjoint(take.aliases):
            found.setdefault(frozenset(take.aliases), take.alias)
    return list(found.values())


def _lose(looked: Looked) -> dict[ModerationStep, list[str]]:
    """What pict-rs must not know any more after each step."""
    lose: dict[ModerationStep, list[str]] = {}
    for take in looked.takes:
        lose.setdefault(take.step, []).extend(take.loses)
    return lose


def _in_reach(built: App, meant: Subject, shelf: Shelf) -> list[str]:
    """Objects that hold the bytes and are neither hidden nor gone; of pict-rs only those that it still knows. Raises: Unreached."""
    found = [entry.ref for entry in meant.objects if entry.ref.store != GATE and not entry.hidden and not entry.gone]
    return [f"{ref.store}: {ref.key}" for ref in found if not (built.is_pictrs(ref.store) and shelf.lost(_aliases(ref, meant)))]


def _aliases(ref: ObjectRef, meant: Subject) -> list[str]:
    """By which pict-rs may know it: those that it told once, and those of what is asked about."""
    told = [name.text for name in ref.names if name.kind is NameKind.ALIAS]
    return list(dict.fromkeys([*told, *meant.aliases]))


def _number(made: ModerationPlan) -> str:
    return "1 step" if len(made.steps) == 1 else f"{len(made.steps)} steps"


def _tell_plan(made: ModerationPlan, looked: Looked, in_reach: list[str], limits: Sequence[str], *, json: bool) -> None:
    """`limits`: what the trace behind it was not asked, so that no step can be about it."""
    notes = (*made.notes, *looked.notes)
    if json:
        emit(
            {
                "plan": [_step_json(step) for step in made.steps],
                "already": list(made.already),
                "left": list(made.left),
                "takes": [_take_json(take) for take in looked.takes],
                "notes": list(notes),
                "in_reach": in_reach,
                "limits": list(limits),
            }
        )
        return
    shown = table("what", "target", "", title=f"{_number(made)} in Lemmy")
    for step in made.steps:
        row(shown, step.act, step.target, step.words)
    show(shown)
    if looked.takes:
        lost = table("picture", "by", "", title="What pict-rs loses by it; sealed before")
        for take in looked.takes:
            row(
                lost,
                take.alias,
                f"{take.step.act} {take.step.target}",
                f"CANNOT BE SEALED: {take.problem}" if take.problem else _how_much(take),
            )
        show(lost)
    for line in made.already:
        result(f"already: {plain(line)}")
    for line in made.left:
        result(f"left: {plain(line)}")
    for line in limits:
        say(f"not asked: {plain(line)}")
    for line in notes:
        say(plain(line))
    for line in in_reach if not any(step.deed is Deed.IMAGE for step in made.steps) else ():
        say(f"STILL IN REACH: {plain(line)}; `fediwarden apply` hides it, and acting in Lemmy alone does not")


def _how_much(take: Take) -> str:
    if take.before is not None:
        by = f"{take.before.act} {take.before.target}"
        stay = f"; its {len(take.rest)} other aliases are not reached by this" if take.rest else ""
        return f"nothing: {by} takes this alias before{stay}".replace("its 1 other aliases are", "its other alias is")
    if take.whole:
        return "its only alias" if len(take.rest) == 1 else f"all {len(take.rest)} aliases"
    return f"this one of {len(take.rest)} aliases"


def _take_json(take: Take) -> dict[str, object]:
    return {
        "alias": take.alias,
        "address": take.address,
        "by": f"{take.step.act} {take.step.target}",
        "aliases": list(take.aliases),
        "whole": take.whole and take.before is None,
        "before": f"{take.before.act} {take.before.target}" if take.before else None,
        "sha256": take.sha256,
        "problem": take.problem,
    }


def _tell_done(done: Done, *, json: bool) -> None:
    if json:
        emit(
            {**_step_json(done.step), "outcome": "failed" if done.problem else "done", "problem": done.problem, "note": done.note}
        )
        return
    words = "FAILED" if done.problem else "done"
    detail = done.problem or done.note
    result(f"{words}: {plain(done.step.act)}: {plain(done.step.target)}{f': {plain(detail)}' if detail else ''}")


def _step_json(step: ModerationStep) -> dict[str, object]:
    return {"act": step.act, "target": step.target, "words": step.words}
