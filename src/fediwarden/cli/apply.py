"""`apply` and `restore`: the only commands that change a store, and only as the ledger says; decides nothing."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import typer

from fediwarden.acting.blast_radius import Radius
from fediwarden.acting.copies import POLICY, Copied, tie, tied
from fediwarden.acting.executor import Outcome, Result
from fediwarden.acting.plan import Plan
from fediwarden.acting.proposal import Known, Proposal, Proposed, Terms, known, propose, uploaded_meanwhile
from fediwarden.app import App
from fediwarden.cli.common import JSON, agreed, build, recorded
from fediwarden.cli.facts import means
from fediwarden.cli.output import emit, plain, result, row, say, show, table, tell
from fediwarden.errors import Exit, FediwardenError, Misconfigured
from fediwarden.model import Act, DeedEvent, DeedState, NameKind, Owed, RunId, Step, StoreName
from fediwarden.stores.pictrs import changed_by_import
from fediwarden.stores.url import TargetKind, parse_target

SHOWN = 20  # owed objects listed before the question; the rest is counted
ALTERED = (
    "pict-rs imports it anew, within its limits of today; some formats come back with other bytes. "
    "Delete tokens that were given out no longer work"
)
STALE_TOKENS = "Lemmy 0.19 keeps the old token: when the uploader deletes the picture there, pict-rs goes on serving it"

Around = Mapping[Known, Radius]


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command(short_help="Hide what is suspected: sealed first, within a daily allowance.")(apply)
    app.command(short_help="Put hidden objects back, byte for byte.")(restore)


def apply(
    yes: bool = typer.Option(False, "--yes", "-y", help="Do it without asking."),
    limit: int | None = typer.Option(None, "--limit", min=1, help="Do at most this many now."),
    only: list[str] = typer.Option(
        [], "--only", metavar="KEY", help="Only this object, by key, SHA-256, alias or other name; may be given several times."
    ),
    budget: int | None = typer.Option(
        None, "--budget", min=1, help="For a first pass: allow this many today instead of the daily allowance."
    ),
    shared: bool = typer.Option(
        False, "--shared", help="Also what several people share (the same bytes, uploaded or used by more than one)."
    ),
    copies: bool = typer.Option(
        True, "--copies/--no-copies", help="With each object, the copies that Lemmy made of it or it of them; or leave those."
    ),
    json: bool = JSON,
) -> int:
    """Take suspected objects out of public reach: sealed in the vault first, then hidden, then read back. Reversible.

    Uses what the scans found and looks at no picture. At most the day's allowance is done, worst first; what is over it
    stays owed. What failed stays owed too and is tried by the next apply. `fediwarden restore KEY` puts one back.
    Where pict-rs or Lemmy is configured, it is shown first who else is met: aliases, posts and accounts that share the
    bytes. What several people share is asked about apart, and after the rest; with --yes it stays owed, unless --shared is given.
    Lemmy keeps a smaller copy of a picture that was posted, with other bytes: it is named, sealed and hidden with the object,
    by a deed of its own, and restored with it. What is left of such copies is put on record for review.
    Exit code 5 if a store could not be reached, 3 if some deed failed or an object changed meanwhile, 6 if work stays owed
    without any failure: the allowance is used up (--budget N, or tomorrow), or something shared was left (--shared).
    """
    app = build()
    sealed = app.profile.keep == "preserve"  # without a profile nothing is acted on
    _warn_of_policy(app)
    acting = app.settings.acting
    terms = Terms(acting.allowance if budget is None else budget, acting.drill_allowance, tuple(_meant(app, only)), limit)
    with recorded(app, "apply", {"only": " ".join(only), "limit": str(limit or ""), "budget": str(budget or "")}) as run:
        found = propose(app.ledger, app.clock(), app.radii, terms, is_shared=lambda _, radius: radius.shared, agreed=shared)
        if not found.todo:
            return _nothing(found.plan, only, json=json)
        if not yes and not _agreed(found, app, sealed, budget, copies=copies):
            say("nothing was done")
            return Exit.USAGE
        further = [(one.owed, copy) for one in found.todo for copy in one.radius.copies if copies and copy.shared]
        asked = {known(one.owed) for one in found.todo if one.mixed} | {known(one.owed) for one in found.shared}
        agreed_to = shared or (not yes and bool(asked or further) and _agreed_shared(len(asked) + len(further)))
        over = found.plan.over + (len(found.waiting) if agreed_to else 0)
        left_copies = [] if agreed_to else further
        with app.executor(run.id) as executor:
            new: list[Proposed] = []
            if not shared:
                with app.radii() as radii:
                    new = list(uploaded_meanwhile(found.alone, radii))
            left_out = [*new, *(() if agreed_to else (*found.shared, *found.waiting))]
            for one in left_out:
                _tell_left(one.owed, one.radius, json=json)
            meant = [one for one in (found.todo if agreed_to else found.alone) if one not in new]
            around = {known(one.owed): one.radius for one in meant}
            hiding = [one.owed for one in meant if agreed_to or not one.mixed]
            along = _tie(app, run.id, hiding, around, leave=None if not copies else {copy.ref.key for _, copy in left_copies})
            for original, copy in left_copies:
                if original in hiding:
                    _tell_left_copy(original, copy, json=json)
            behind = {known(one.owed) for one in found.shared}
            plan = terms.chosen(app.ledger, app.clock(), around.keys() | along.keys(), last=behind)
            over += plan.over
            results: list[Result] = []
            # of what a restoring left, ours goes all the same, and what others have of it where somebody agreed
            for done in executor.apply(plan, lambda owed: agreed_to and (shared or known(owed) in asked)):
                results.append(done)
                done_to = (done.store, done.key, done.sha256)
                _tell(done, around.get(done_to, Radius()), along.get(done_to), json=json)
        outcomes = [done.outcome for done in results]
        run.counts.update({outcome.value: outcomes.count(outcome) for outcome in Outcome})
        left = sum(1 for _ in app.ledger.owed())
    counts = {outcome.value: outcomes.count(outcome) for outcome in Outcome}
    counts["shared"] += len(left_out) + len(left_copies)
    if json:
        emit({**counts, "owed": left, "over_allowance": over})
    else:
        result(
            f"{counts['done']:,} hidden, {counts['failed']:,} failed and still owed, {counts['changed']:,} changed meanwhile, "
            f"{counts['gone']:,} were gone; {left:,} still owed"
        )
        if counts["shared"]:
            result(f"{counts['shared']:,} are shared by several people: they stay in reach. --shared hides them too")
        if over:
            result(
                f"{over:,} are over today's allowance of {acting.allowance:,}: they stay owed. --budget N allows more for a first pass"
            )
    if any(done.unreached for done in results):
        return Exit.UNREACHED
    if counts["failed"] or counts["changed"]:
        return Exit.NOT_SCANNED
    return Exit.ALLOWANCE if over or counts["shared"] else Exit.OK


def _warn_of_policy(app: App) -> None:
    """A policy that cannot be read decides nothing new: what was decided before stands, and is all that is acted on."""
    try:
        _ = app.policy
    except FediwardenError as error:
        tell(error)
        say("until that is mended nothing new is decided; what was decided before is acted on")


def _meant(app: App, names: Sequence[str]) -> list[str]:
    """The keys of the objects that these words name. Raises: Misconfigured, for a word that names none."""
    keys: dict[str, None] = {}
    for name in names:
        found = means(app, name)
        if not found:
            raise Misconfigured(
                f"the ledger knows no object {plain(name)}", hint="`fediwarden list --step quarantine` names what is suspected"
            )
        keys.update(dict.fromkeys(entry.ref.key for entry in found))
    return list(keys)


def _tie(app: App, run: RunId, todo: Sequence[Owed], around: Around, *, leave: set[str] | None) -> dict[Known, Owed]:
    """Put on record what becomes of the copies: hidden with their original, by the word of who runs this, or left for review.

    `leave`: keys of those that are left; None for all of them. Returns which are to be hidden, with their originals.
    """
    along: dict[Known, Owed] = {}
    for owed in todo:
        for copy in _around(around, owed).copies:
            hides = leave is not None and copy.ref.key not in leave
            step, by = (Step.QUARANTINE, app.actor) if hides else (Step.REVIEW, POLICY)
            so = tie(app.ledger, run, owed, copy, step=step, by=by)
            if so and hides:
                along[copy.ref.store, copy.ref.key, copy.sha256] = owed
            else:
                why = "left for review" if so else "a person said that these bytes pass"
                say(f"still in reach: {plain(copy.ref.store)}: {plain(copy.ref.key)}, {plain(copy.words)}: {why}")
    return along


def _around(around: Around, owed: Owed) -> Radius:
    return around.get(known(owed), Radius())


def _radius_json(radius: Radius) -> dict[str, object]:
    return {
        "aliases": list(radius.aliases),
        "proxied": list(radius.proxied),
        "uses": dict(radius.uses),
        "owners": radius.owners,
        "shared": radius.shared,
        "problem": radius.problem,
        "copies": [
            {"store": copy.ref.store, "key": copy.ref.key, "sha256": copy.sha256, "words": copy.words, "shared": copy.shared}
            for copy in radius.copies
        ],
    }


def _agreed_shared(number: int) -> bool:
    """Ask about what several people share, apart from the rest."""
    objects = "1 of them is" if number == 1 else f"{number:,} of them are"
    return agreed(f"{objects} shared by several people, who all lose it. Hide that too?")


def _tell_left(owed: Owed, radius: Radius, *, json: bool) -> None:
    if json:
        emit(
            {
                "store": owed.ref.store,
                "key": owed.ref.key,
                "sha256": owed.sha256,
                "outcome": "shared",
                "problem": "several people share it; --shared hides it too",
                "drill": owed.decision.drill,
                "copy_of": None,
                "radius": _radius_json(radius),
            }
        )
    else:
        result(f"shared, left as it is: {plain(owed.ref.store)}: {plain(owed.ref.key)}: {plain(radius.words)}")


def _tell_left_copy(original: Owed, copy: Copied, *, json: bool) -> None:
    if json:
        emit(
            {
                "store": copy.ref.store,
                "key": copy.ref.key,
                "sha256": copy.sha256,
                "outcome": "shared",
                "problem": "others show this copy as well; --shared hides it too",
                "drill": False,
                "copy_of": original.ref.key,
                "radius": _radius_json(_radius_of(copy)),
            }
        )
    else:
        result(f"shared, left as it is: {plain(copy.ref.store)}: {plain(copy.ref.key)}: {plain(copy.words)}")


def _radius_of(copy: Copied) -> Radius:
    return Radius(tuple(name.text for name in copy.ref.names if name.kind is NameKind.ALIAS))


def _nothing(plan: Plan, only: Sequence[str], *, json: bool) -> int:
    if json:
        emit({**{outcome.value: 0 for outcome in Outcome}, "owed": plan.owed, "over_allowance": plan.over})
    elif plan.over:
        result(f"today's allowance is used up; {plan.over:,} objects stay owed. --budget N allows more, knowingly")
    else:
        result(f"nothing is owed{' of what --only names' if only else ''}")
    return Exit.ALLOWANCE if plan.over else Exit.OK


def _agreed(found: Proposal, app: App, sealed: bool, budget: int | None, *, copies: bool) -> bool:
    told = any(one.radius.words for one in found.todo)
    shown = table("store", "key", "rule", "because", *(["who else is met"] if told else []))
    for one in found.todo[:SHOWN]:
        also = [one.radius.words] if told else []
        row(
            shown,
            one.owed.ref.store,
            plain(one.owed.ref.key, 60),
            one.owed.decision.rule,
            one.owed.decision.because,
            *also,
        )
    show(shown)
    if len(found.todo) > SHOWN:
        result(f"... and {len(found.todo) - SHOWN:,} more")
    along = [(one.owed, copy) for one in found.todo for copy in one.radius.copies]
    for owed, copy in along[:SHOWN]:
        what = "with it" if copies else "left in reach"
        result(f"{plain(owed.ref.key, 60)}: {what}: {plain(copy.ref.key, 60)}, {plain(copy.words)}")
    where = (
        f"sealed in {app.configuration.path(app.settings.vault.folder)}, then hidden"
        if sealed
        else "hidden, not sealed (the profile keeps metadata only)"
    )
    allowed = (
        f"a budget of {budget:,} instead of the allowance"
        if budget is not None
        else f"{found.plan.left_today:,} left of today's allowance"
    )
    objects = "1 object" if len(found.todo) == 1 else f"{len(found.todo):,} objects"
    if along and copies:
        objects += f" and {'1 copy' if len(along) == 1 else f'{len(along):,} copies'} that shows the same"
    return agreed(f"{objects} will be {where} ({allowed}). Go on?")


def _tell(done: Result, radius: Radius, original: Owed | None, *, json: bool) -> None:
    if json:
        emit(
            {
                "store": done.store,
                "key": done.key,
                "sha256": done.sha256,
                "outcome": done.outcome.value,
                "problem": done.problem,
                "drill": done.drill,
                "trace_problem": done.trace,
                "copy_of": original.ref.key if original else None,
                "radius": _radius_json(radius),
            }
        )
        return
    words = {
        Outcome.DONE: "hidden",
        Outcome.CHANGED: "changed, left alone",
        Outcome.GONE: "already gone",
        Outcome.FAILED: "FAILED, still owed",
        Outcome.SHARED: "shared, left as it is",
    }
    result(f"{words[done.outcome]}: {plain(done.store)}: {plain(done.key)}{f': {plain(done.problem)}' if done.problem else ''}")
    if original is not None:
        result(f"  a copy of {plain(original.ref.key)}")
    if radius.words:
        result(f"  with {plain(radius.words)}")
    if done.trace:
        say(f"  no trace was sealed: {plain(done.trace)}")
    if done.hint:
        say(f"  hint: {plain(done.hint)}")


def restore(
    keys: list[str] = typer.Argument(
        ..., metavar="KEY...", help="The objects to put back, by key, SHA-256, alias or other name."
    ),
    store: str = typer.Option("", "--store", help="The store, where one key is hidden in several."),
    sha256: str = typer.Option(
        "", "--sha256", help="The hash, or how it begins, where several contents were hidden from one key."
    ),
    identity: list[Path] = typer.Option(
        [], "--identity", metavar="FILE", help="A private key of the vault, where only the vault holds the bytes."
    ),
    because: str = typer.Option("not what it was taken for", "--because", help="Why, for the record."),
    copies: bool = typer.Option(
        True, "--copies/--no-copies", help="With each object, the copies that were hidden because of it; or leave those hidden."
    ),
    json: bool = JSON,
) -> int:
    """Put hidden objects back, byte for byte, with their metadata.

    When it is back, your word that these bytes pass is recorded and stands over every later scan; a restore that fails leaves
    none, and what it had brought back is hidden again, or owed. From the quarantine place no key is needed; where the store
    keeps nothing, the vault is opened with one of its private keys, in memory only. pict-rs keeps nothing: it imports the
    original anew under its aliases, and what cannot come back the same is said beforehand. What is back already is left as it
    is, so that an interrupted restore can be given again; `fediwarden apply` undoes one instead.
    Exit code 5 if a store could not be reached, 3 if one could not be restored.
    """
    app = build()
    keys = [key for name in keys for key in _named(app, name)]
    hidden = [event for key in keys if (event := _find(app, key, store, sha256, json=json)) is not None]
    along = [event for event in _copies_of(app, keys, hidden) if event not in hidden]
    if along:
        say(f"{'with' if copies else 'left hidden'}: {', '.join(plain(event.key, 60) for event in along)}, copies of it")
        hidden += along if copies else []
    if not hidden:
        return Exit.OK
    imported = [event for event in hidden if _through_pictrs(app, event)]
    if imported:
        say(ALTERED)
        if app.settings.lemmy.url or app.settings.lemmy.credentials:
            say(STALE_TOKENS)
    for event in imported:
        for words in changed_by_import(event.key, event.place) if event.place else []:
            say(f"{plain(event.store)}: {plain(event.key)}: {plain(words)}")
    failed = unreached = False
    with recorded(app, "restore", {"because": because}) as run, app.executor(run.id) as executor:
        for event in hidden:
            done = executor.restore(event, identity, because)
            failed |= done.outcome is not Outcome.DONE
            unreached |= done.unreached
            if json:
                emit(
                    {
                        "store": done.store,
                        "key": done.key,
                        "sha256": done.sha256,
                        "outcome": "restored" if done.outcome is Outcome.DONE else "failed",
                        "problem": done.problem,
                        "altered": done.altered,
                    }
                )
            else:
                words = "restored" if done.outcome is Outcome.DONE else "FAILED, still hidden"
                result(f"{words}: {plain(done.store)}: {plain(done.key)}{f': {plain(done.problem)}' if done.problem else ''}")
                if done.hint:
                    say(f"  hint: {plain(done.hint)}")
    if unreached:
        return Exit.UNREACHED
    return Exit.NOT_SCANNED if failed else Exit.OK


def _named(app: App, name: str) -> list[str]:
    """The keys of the objects that a person means, those that are hidden before others; the name itself where nothing has it."""
    found = means(app, name)
    return list(dict.fromkeys(entry.ref.key for entry in [each for each in found if each.hidden] or found)) or [name]


def _copies_of(app: App, keys: Sequence[str], hidden: Sequence[DeedEvent]) -> list[DeedEvent]:
    """What was hidden because of these, also of those that an earlier call put back."""
    back = (Act.RESTORE, DeedState.DONE)
    originals = {(event.store, event.key) for event in hidden}
    originals |= {(entry.ref.store, key) for key in keys for entry in app.ledger.entries(key=key) if entry.deed == back}
    return [event for original in sorted(originals) for event in tied(app.ledger, *original)]


def _through_pictrs(app: App, event: DeedEvent) -> bool:
    """Whether it comes back by way of pict-rs. Raises: Misconfigured."""
    settings = app.store(event.store)
    moved = event.place is not None and event.place.how == "moved"
    return not moved and (bool(settings.pictrs) or parse_target(settings.url).kind is TargetKind.PICTRS)


def _find(app: App, key: str, store: str, sha256: str, *, json: bool) -> DeedEvent | None:
    """The hiding to undo; None (and said so) where the last deed put the object back already. Raises: Misconfigured."""
    name = StoreName(app.store(store).name) if store else None
    found = [event for event in app.ledger.hidden(key=key, store=name) if event.sha256.startswith(sha256.lower())]
    if not found:
        for entry in app.ledger.entries(store=name, key=key):
            if entry.deed == (Act.RESTORE, DeedState.DONE) and (entry.sha256 or "").startswith(sha256.lower()):
                if json:
                    emit(
                        {
                            "store": entry.ref.store,
                            "key": entry.ref.key,
                            "sha256": entry.sha256,
                            "outcome": "restored",
                            "problem": "it was back already",
                            "altered": None,
                        }
                    )
                else:
                    result(f"restored already: {plain(entry.ref.store)}: {plain(entry.ref.key)}")
                return None
        raise Misconfigured(f"{plain(key)} is not hidden", hint="`fediwarden list --hidden` names what is")
    stores = {event.store for event in found}
    if len(stores) > 1:
        raise Misconfigured(
            f"{plain(key)} is hidden in several stores: {', '.join(sorted(stores))}", hint="say which with --store"
        )
    if len(found) > 1:
        raise Misconfigured(
            f"{len(found)} contents were hidden from {plain(key)}: {', '.join(event.sha256[:12] for event in found)}",
            hint="say which with --sha256; the others stay hidden",
        )
    return found[0]
