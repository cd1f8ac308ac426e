"""`lemmy grants` and `lemmy act`: the rights that a trace needs, and acting in Lemmy once pict-rs has lost the picture; decides nothing."""

from enum import StrEnum

import typer

from fediwarden.app import App
from fediwarden.cli.common import JSON, agreed, build, recorded
from fediwarden.cli.output import emit, plain, result, row, say, show, table
from fediwarden.cli.trace import BECAUSE, STORE, SUBJECT
from fediwarden.errors import Exit, Misconfigured
from fediwarden.ledger import GATE
from fediwarden.model import StoreName
from fediwarden.platforms.lemmy.acting import REASON, Acting, Choice, Deed, Done, Plan, Step, plan, sent_before
from fediwarden.platforms.lemmy.queries import OLDEST, grants
from fediwarden.tracing import Subject

app = typer.Typer(no_args_is_help=True, help="Lemmy: the rights that a trace needs, and acting on posts, comments and accounts.")


class Version(StrEnum):
    """Whose tables the rights are for; 0.19.3 stands for 0.19.0 to 0.19.3."""

    OLDEST = OLDEST
    OLD = "0.19"
    NEW = "1.0"


class Way(StrEnum):
    """How posts or comments are taken away."""

    REMOVE = "remove"
    PURGE = "purge"


@app.command(name="grants", short_help="Print the SQL that gives a role the rights of a trace.")
def print_grants(
    version: Version = typer.Option(Version.OLD, "--version", help="Of Lemmy; 0.19.3 stands for 0.19.0 to 0.19.3."),
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
    posts: Way | None = typer.Option(None, "--posts", help="Posts that show it: out of sight, or deleted for good."),
    comments: Way | None = typer.Option(None, "--comments", help="Comments that show it: the same."),
    ban: bool = typer.Option(False, "--ban", help="Ban the uploader; where Lemmy knows none, whoever posted it."),
    person: list[str] = typer.Option([], "--person", metavar="ADDRESS", help="Whom to ban, where several are behind it."),
    resolve_reports: bool = typer.Option(False, "--resolve-reports", help="Resolve the open reports about it."),
    message_admins: str = typer.Option("", "--message-admins", metavar="TEXT", help="Send the other administrators this text."),
    reason: str = typer.Option(REASON, "--reason", help="What the moderation log says; it is public, and should accuse nobody."),
    because: str = BECAUSE,
    apply: bool = typer.Option(False, "--apply", help="Do it; without, only the plan is shown."),
    yes: bool = typer.Option(False, "--yes", "-y", help="Do it without asking."),
    store: str = STORE,
    json: bool = JSON,
) -> int:
    """Act in Lemmy on what shows an object, once pict-rs has lost it: remove or purge, ban, resolve reports.

    Without --apply nothing is done and the plan is shown. Every post and comment of the trace is meant, whether the picture
    is its address, its preview or in its text. Hide the object first (`fediwarden apply`): Lemmy's own purge tells pict-rs
    too, and what was not sealed before is lost. Before a purge or a ban the whole trace is sealed. Every call is on record
    before it is made; what is so already is left, so that an interrupted call can be given again.
    Exit code 3 if Lemmy refused something, 5 if it gives no answer.
    """
    built = build()
    choice = Choice(
        posts.value if posts else "",
        comments.value if comments else "",
        ban or bool(person),
        tuple(person),
        resolve_reports,
        message_admins,
        reason,
    )
    if choice == Choice(reason=reason):
        raise typer.BadParameter("say what to do: --posts, --comments, --ban, --resolve-reports or --message-admins")
    asked = {"subject": subject, "because": because, "apply": str(apply)}
    failed = False
    with recorded(built, "lemmy act", asked) as run, built.tracing(run.id, seals=True) as tracing:
        profile = built.profile  # acting needs one
        api = built.lemmy()
        try:
            me = api.need_admin()
            meant = tracing.subject(subject, StoreName(built.store(store).name) if store else None)
            trace = tracing.ask(meant, because)
            made = plan(
                trace,
                choice,
                reports=list(api.reports()) if resolve_reports else [],
                admins={int(admin["id"]): str(admin.get("ap_id") or admin.get("actor_id")) for admin in api.admins()},
                me=me.person,
                sent=sent_before(built.ledger.platforms.deeds(meant.sha256)) if meant.sha256 else [],
            )
            in_reach = _in_reach(meant)
            if any(step.deed is Deed.PURGE for step in made.steps):
                _need_sealed(built, meant, in_reach, seals=profile.keep == "preserve")
            _tell_plan(made, in_reach, json=json)
            if not apply:
                if not json:
                    say("nothing was done; --apply does it")
                return Exit.OK
            if made.steps and not yes and not agreed(f"{_number(made)} will be done in Lemmy. Go on?"):
                return Exit.USAGE
            if made.forgets:
                tracing.seal(trace, meant.sha256, "before a ban or purge in Lemmy", meant.text, drill=meant.drill)
            for done in Acting(api, built.ledger, run.id, built.clock, built.actor).apply(made, meant.sha256):
                failed |= bool(done.problem)
                _tell_done(done, json=json)
        finally:
            api.close()
    return Exit.NOT_SCANNED if failed else Exit.OK


def _in_reach(meant: Subject) -> list[str]:
    """Objects that hold the bytes and are neither hidden nor gone."""
    return [
        f"{entry.ref.store}: {entry.ref.key}"
        for entry in meant.objects
        if entry.ref.store != GATE and not entry.hidden and not entry.gone
    ]


def _need_sealed(built: App, meant: Subject, in_reach: list[str], *, seals: bool) -> None:
    """A purge destroys: the bytes must be away, and sealed where the profile keeps evidence. Raises: Misconfigured."""
    if meant.sha256 is None or in_reach:
        raise Misconfigured(
            f"{plain(meant.text)} is not hidden, and Lemmy's purge would destroy it unsealed",
            hint="`fediwarden apply` first; or take posts out of sight: --posts remove",
        )
    if seals and not built.vault(drill=meant.drill).check(meant.sha256):
        raise Misconfigured(
            f"the vault does not hold {meant.sha256[:12]}, and a purge leaves nothing to restore",
            hint="take posts out of sight instead: --posts remove",
        )


def _number(made: Plan) -> str:
    return "1 step" if len(made.steps) == 1 else f"{len(made.steps)} steps"


def _tell_plan(made: Plan, in_reach: list[str], *, json: bool) -> None:
    if json:
        emit(
            {
                "plan": [_step_json(step) for step in made.steps],
                "already": list(made.already),
                "left": list(made.left),
                "in_reach": in_reach,
            }
        )
        return
    shown = table("what", "target", "", title=f"{_number(made)} in Lemmy")
    for step in made.steps:
        row(shown, step.act, step.target, step.words)
    show(shown)
    for line in made.already:
        result(f"already: {plain(line)}")
    for line in made.left:
        result(f"left: {plain(line)}")
    for line in in_reach:
        say(f"STILL IN REACH: {plain(line)}; `fediwarden apply` hides it, and acting in Lemmy alone does not")


def _tell_done(done: Done, *, json: bool) -> None:
    if json:
        emit(
            {**_step_json(done.step), "outcome": "failed" if done.problem else "done", "problem": done.problem, "note": done.note}
        )
        return
    words = "FAILED" if done.problem else "done"
    detail = done.problem or done.note
    result(f"{words}: {plain(done.step.act)}: {plain(done.step.target)}{f': {plain(detail)}' if detail else ''}")


def _step_json(step: Step) -> dict[str, object]:
    return {"act": step.act, "target": step.target, "words": step.words}
