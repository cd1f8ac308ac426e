"""`status`, `list` and `explain`: what the ledger knows, in words or JSON; changes nothing and decides nothing."""

from collections.abc import Mapping

import typer

from fediwarden.acting.plan import midnight
from fediwarden.app import App
from fediwarden.calibration import Interval, interval
from fediwarden.cli.common import JSON, build
from fediwarden.cli.facts import (
    age,
    doubt_json,
    facts_json,
    gate_json,
    list_debts,
    means,
    tell_doubts,
    tell_facts,
    tell_gate,
    tell_names,
    tell_watch,
    watch_json,
)
from fediwarden.cli.output import (
    UNASKED,
    deed_words,
    emit,
    entry_json,
    finding_json,
    kind_json,
    plain,
    result,
    row,
    say,
    show,
    size,
    step_name,
    table,
)
from fediwarden.errors import Exit, FediwardenError, Misconfigured
from fediwarden.ledger import GATE, Entry, Totals
from fediwarden.model import EngineVersion, Finding, Look, Standing, Step, StoreName

UNREACHED = "unreached"  # as `Entry.lacking` has it


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command(short_help="How things stand; first of all what is not scanned.")(status)
    app.command(name="list", short_help="Every object that the ledger knows, or those that meet filters.")(list_objects)
    app.command(short_help="Say why an object was decided as it was, and what was done.")(explain)


def status(json: bool = JSON) -> int:
    """How things stand: first of all how many objects are not scanned.

    Exit code 0 whatever it shows, unless the ledger cannot be read (4).
    """
    app = build()
    analysis: dict[str, object] = {}
    try:
        engine, problem = app.engine, ""
        analysis = _analysis(app)
        layers = app.layers().layers
    except FediwardenError as error:
        engine, problem, layers = None, f"{error}; {error.hint}", {}
    finally:
        app.cage.close()
    totals = app.ledger.totals(engine or EngineVersion(""))
    since = midnight(app.clock())
    used = app.ledger.acted(since, drill=False)
    uploads = app.ledger.uploads.totals(engine or EngineVersion(""), since)
    oldest = app.ledger.watching.oldest(engine or EngineVersion(""))
    beats = app.watched()
    doubts = app.ledger.watching.doubts()
    if json:
        emit(
            {
                "objects": totals.objects,
                "not_scanned": totals.not_scanned,
                "not_scanned_because": dict(totals.lacking),
                "not_scanned_oldest": oldest,
                "empty": totals.empty,
                "items": totals.items,
                "looked_at": totals.looked_at,
                "flagged": totals.flagged,
                "review": totals.review,
                "passed": totals.passed,
                "owed": totals.owed,
                "owed_drill": totals.owed_drill,
                "hidden": totals.hidden,
                "gone": totals.gone,
                "gate": gate_json(uploads),
                "watch": [watch_json(beat) for beat in beats],
                "doubted": [doubt_json(doubt) for doubt in doubts],
                "allowance": app.settings.acting.allowance,
                "allowance_used": used,
                "profile": app.settings.profile or None,
                "engine": engine,
                "engine_problem": problem,
                "analysis": {**analysis, **_missed_json(analysis, totals)} if analysis else None,
                "policy": app.policy.digest,
                "cage": app.settings.media.cage,
                "cage_layers": dict(layers),
            }
        )
        return Exit.OK
    result(f"{totals.not_scanned:,} of {totals.objects:,} objects not scanned")
    for reason, count in sorted(totals.lacking.items(), key=lambda item: -item[1]):
        since_when = f"; the oldest came in {age(oldest[reason], app.clock())} ago" if reason in oldest else ""
        result(f"    {count:>9,}  {reason}{since_when}")
    shown = table(">objects", "what")
    if totals.empty:
        row(shown, f"{totals.empty:,}", "empty files: nothing is in them to be scanned")
    row(shown, f"{totals.items:,}", "different contents")
    row(shown, f"{totals.flagged:,}", "suspected (quarantine decided)")
    row(shown, f"{totals.review:,}", "for a person to review")
    row(shown, f"{totals.passed:,}", "passed")
    row(
        shown,
        f"{totals.owed:,}",
        "owed: decided and not yet hidden" + (f" (and {totals.owed_drill:,} drill pictures)" if totals.owed_drill else ""),
    )
    row(shown, f"{totals.hidden:,}", "hidden, can be restored")
    row(shown, f"{totals.gone:,}", "gone from their stores")
    show(shown)
    tell_doubts(doubts, app.clock())
    tell_gate(uploads, app.clock())
    tell_watch(beats, app.settings.stores, app.clock())
    result(f"allowance: {used:,} of {app.settings.acting.allowance:,} used today (UTC)")
    result(f"profile: {app.settings.profile or 'none chosen; nothing can be applied'}")
    walls = ", ".join(f"{name} {'yes' if there else 'NO'}" for name, there in layers.items())
    result(f"cage: {app.settings.media.cage}{f' ({walls})' if walls else ''}")
    result(f"engine: {engine or 'none'}; policy: {app.policy.name} {app.policy.digest}")
    if analysis:
        _tell_analysis(analysis, totals)
    if problem:
        say(f"fediwarden: {plain(problem)}")
    return Exit.OK


def _analysis(app: App) -> dict[str, object]:
    """How pictures are looked at, for programs."""
    choice = app.clip_choice
    return {
        "mode": app.mode,
        "model": choice.manifest.name if choice else None,
        "precision": choice.precision if choice else None,
        "device": choice.device if choice else "cpu",
        "calibrated": app.calibrated if choice else None,
        "asked": app.policy.calibrated if choice else None,
        "counted_otherwise": (app.counted_otherwise or None) if choice else None,
    }


def _missed(totals: Totals) -> Interval | None:
    """The share of the contents never shown to CLIP that would be suspected; None without a sample.

    Contents, because bytes are drawn: what lies there a thousand times was drawn once.
    """
    return interval(totals.sampled_flagged, totals.sampled_contents) if totals.sampled_contents else None


def _missed_json(analysis: Mapping[str, object], totals: Totals) -> dict[str, object]:
    share = _missed(totals)
    rest = totals.seen - totals.further - totals.sampled
    return {
        "seen": totals.seen,
        "further": totals.further,
        "sampled": totals.sampled,
        "sampled_contents": totals.sampled_contents,
        "sampled_flagged": totals.sampled_flagged,
        "not_shown": rest if share else None,
        "missed": [round(rest * bound, 2) for bound in (share.share, share.low, share.high)]
        if share and analysis["calibrated"]
        else None,
    }


def _tell_analysis(analysis: Mapping[str, object], totals: Totals) -> None:
    if analysis["model"] is None:
        result(f"analysis: {analysis['mode']}, the embedded default alone")
        return
    result(f"analysis: {analysis['mode']}; {analysis['model']} {analysis['precision']} on {analysis['device']}")
    if not analysis["calibrated"]:
        result(
            "    NOT CALIBRATED: what CLIP finds informs and decides nothing; `fediwarden calibrate`"
            if analysis["asked"]
            else f"    {UNASKED}"
        )
    if other := analysis["counted_otherwise"]:
        result(f"    calibrated for {other}: the budget is not kept to; `fediwarden calibrate` counts anew, without a look")
    if totals.seen:
        shown = totals.further + totals.sampled
        result(
            f"    CLIP was shown {shown:,} of {totals.seen:,} seen objects ({shown / totals.seen:.1%}): "
            f"{totals.further:,} for what was found in them, {totals.sampled:,} at random"
        )
    if analysis["calibrated"] and (share := _missed(totals)) is not None:
        rest = totals.seen - totals.further - totals.sampled
        missed = share.of(rest)
        result(
            f"    what the cascade misses: {totals.sampled_flagged:,} of {totals.sampled_contents:,} at random are suspected, so of the "
            f"{rest:,} not shown about {missed.share:,.0f} would be ({missed.low:,.0f} to {missed.high:,.0f}, "
            "19 times in 20)"
        )


def list_objects(
    store: str = typer.Option("", "--store", help='Only this store; "gate" for what the gate refused.'),
    key: str = typer.Option("", "--key", help="Only this key."),
    standing: Standing | None = typer.Option(None, "--standing", help="Only objects whose last look got this far."),
    step: Step | None = typer.Option(None, "--step", help="Only objects with this decision."),
    not_scanned: bool = typer.Option(False, "--not-scanned", help="Only what is not scanned, with the reason."),
    hidden: bool = typer.Option(False, "--hidden", help="Only what is hidden and can be restored."),
    gone: bool = typer.Option(False, "--gone", help="Also objects that are gone from their stores."),
    debts: bool = typer.Option(False, "--debts", help="Instead, what the gate let through and nobody has scanned yet."),
    json: bool = JSON,
) -> int:
    """Every object the ledger knows, or those that meet the filters, with standing, decision and deed."""
    app = build()
    if debts:
        list_debts(app, _engine(app), json=json)
        return Exit.OK
    name = _name(app, store)
    entries = app.ledger.entries(store=name, key=key or None, standing=standing, step=step, not_scanned=not_scanned)
    # not told by the last deed: a restoring that failed leaves its object hidden
    away = {(event.store, event.key) for event in app.ledger.hidden(key=key or None, store=name)} if hidden else set()
    for entry in entries:
        if hidden and (entry.ref.store, entry.ref.key) not in away:
            continue
        if entry.gone and not (gone or key or hidden or name == GATE):  # what was refused is gone, and is what this store is for
            continue
        if json:
            emit(entry_json(entry))
        else:
            result("  ".join(_line(entry)))
    return Exit.OK


def _engine(app: App) -> EngineVersion:
    """The engine version of now; that of nobody where a part of it is missing."""
    try:
        return app.engine
    except FediwardenError:
        return EngineVersion("")
    finally:
        app.cage.close()


def _name(app: App, store: str) -> StoreName | None:
    """The store meant; uploads that lie in none are in that of the gate."""
    if not store:
        return None
    return GATE if store == GATE else StoreName(app.store(store).name)


def _line(entry: Entry) -> list[str]:
    standing = entry.standing.value if entry.standing else "not looked at"
    decision = step_name(entry.decision) or "-"
    why = entry.decision.rule if entry.decision and decision not in ("-", "pass") else ""
    if not why or entry.lacking == UNREACHED:
        why = "; ".join(word for word in (why, _lacking(entry)) if word)
    return [
        f"{standing:<9}",
        f"{decision:<10}",
        f"{deed_words(entry) or '-':<8}",
        plain(entry.ref.store),
        plain(entry.ref.key),
        *([entry.sha256] if entry.sha256 and entry.ref.store == GATE and entry.ref.key != entry.sha256 else []),
        *([f"({plain(why)})"] if why else []),
    ]


def _lacking(entry: Entry) -> str:
    """Why it counts as not scanned; with the reason, where the last try did not reach it."""
    reason = entry.last.problem if entry.last and entry.lacking == UNREACHED else ""
    return f"{entry.lacking}: {reason}" if reason else entry.lacking


def explain(
    key: str = typer.Argument(
        ..., metavar="KEY", help="The object's key, as `fediwarden list` shows it; or its SHA-256, alias or other name."
    ),
    store: str = typer.Option("", "--store", help='The store, where several hold this key; "gate" for what the gate refused.'),
    json: bool = JSON,
) -> int:
    """Say in words what was seen in an object, why it was decided as it was, and what was done with it."""
    app = build()
    entry = _find(app, key, store)
    history = app.ledger.history(entry.ref.store, entry.ref.key)
    look = entry.look
    if json:
        emit(
            {
                **entry_json(entry),
                "media": kind_json(look),
                "engine": entry.engine,
                "findings": [finding_json(found) for found in (look.findings if look else ())],
                "notes": [
                    {"what": note.what, "where": note.where, "size": note.size, "detail": note.detail}
                    for note in (look.notes if look else ())
                ],
                "unopened": [
                    {"where": item.where, "why": item.why, "size": item.size} for item in (look.unopened if look else ())
                ],
                "decisions": [
                    {
                        "at": made.at,
                        "step": made.decision.step.value,
                        "rule": made.decision.rule,
                        "because": made.decision.because,
                        "by": made.decision.by,
                        "policy": made.decision.policy,
                    }
                    for made in history.decisions
                ],
                "deeds": [
                    {
                        "at": event.at,
                        "act": event.act.value,
                        "state": event.state.value,
                        "by": event.actor,
                        "problem": event.problem,
                    }
                    for event in history.deeds
                ],
                **facts_json(app, entry),
            }
        )
        return Exit.OK
    result(f"{plain(entry.ref.key)} in {plain(entry.ref.store)}")
    result(f"  sha256   {entry.sha256 or 'not known: it was never read'}")
    tell_names(app, entry)
    last = entry.last
    if last is not None and last is not look:
        result(f"  tried    {last.at:%Y-%m-%d %H:%M:%S} UTC, {last.standing.value}; what was seen before stands")
        if last.problem:
            result(f"  problem  {plain(last.problem)}")
    if look is not None:
        _explain_look(look, entry, app.calibrated_versions)
    if entry.decision is not None:
        made = entry.decision
        said = "nothing, because it could not be seen" if made.step is Step.NONE else made.step.value
        result(f"  decision {said}, by {plain(made.by)}{f', rule “{plain(made.rule)}”' if made.step is not Step.NONE else ''}")
        result(f"  because  {plain(made.because)}")
        if made.step is Step.QUARANTINE and made.by == "policy" and not made.drill:
            result("           (a lead from classifiers, not a fact; nobody has looked)")
    for event in history.deeds:
        result(
            f"  {event.at:%Y-%m-%d %H:%M:%S} {event.act.value}: {event.state.value}, by {plain(event.actor)}{f': {plain(event.problem)}' if event.problem else ''}"
        )
    tell_facts(app, entry)
    return Exit.OK


def _explain_look(look: Look, entry: Entry, calibrated: frozenset[str]) -> None:
    if look.kind is not None:
        kind = look.kind
        frames = f", {kind.sampled} of {kind.frames or 'unknown'} frames looked at" if kind.frames != 1 else ""
        result(f"  is       {kind.format}, {kind.width} x {kind.height} pixels{frames}, {size(entry.ref.size)}")
    result(
        f"  looked   {look.at:%Y-%m-%d %H:%M:%S} UTC, {look.standing.value}{', only partly' if look.partly else ''}, engine {look.engine}"
    )
    if look.problem:
        result(f"  problem  {plain(look.problem)}")
    for found in sorted(look.findings, key=lambda found: (found.concept, -found.score)):
        informs = " (not calibrated: informs only)" if found.analyser == "clip" and found.version not in calibrated else ""
        result(f"  found    {_finding(found)}{informs}")
    for note in look.notes:
        result(
            f"  inside   {plain(note.what)} at {plain(note.where)}, {size(note.size)}{f': {plain(note.detail)}' if note.detail else ''}"
        )
    for item in look.unopened:
        result(f"  unopened {plain(item.where)}: {plain(item.why)}, {size(item.size)}")


def _finding(found: Finding) -> str:
    measures = ", ".join(f"{name.replace('_', ' ')} {value:.2f}" for name, value in sorted(found.measures.items()))
    where = f" in {plain(found.source)}" if found.source else ""
    return f"{found.concept} {found.score:.3f}{f' ({measures})' if measures else ''}, frame {found.frame}{where}, by {found.analyser} {found.version}"


def _find(app: App, key: str, store: str) -> Entry:
    found = means(app, key, store)
    if not found:
        raise Misconfigured(
            f"the ledger knows no object {plain(key)}", hint="`fediwarden list` names what it knows; a scan must have listed it"
        )
    if len(found) > 1:
        present = [entry for entry in found if not entry.gone]
        if len(present) != 1:
            places = ", ".join(f"{plain(entry.ref.store)}: {plain(entry.ref.key, 40)}" for entry in found[:8])
            raise Misconfigured(f"{plain(key)} is {len(found)} objects: {places}", hint="say which with --store, or by its key")
        found = present
    return found[0]
