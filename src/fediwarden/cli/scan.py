"""`check`, `scan` and `rejudge`: commands that look and decide; none of them changes a store."""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import typer

from fediwarden.app import App
from fediwarden.cli.common import JSON, Run, build, recorded
from fediwarden.cli.output import (
    UNASKED,
    Progress,
    duration,
    emit,
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
    tell,
)
from fediwarden.errors import Exit, FediwardenError, Unreached
from fediwarden.ledger import Doubt
from fediwarden.model import Blob, Look, ObjectRef, Standing, Step, StoreName
from fediwarden.pipeline import Estimate, Tally, conclude, estimate, rejudge
from fediwarden.policy import decide
from fediwarden.stores.interface import Accounting, Reader
from fediwarden.stores.unaccounted import Remainder

UNCALIBRATED = (
    "CLIP is NOT CALIBRATED: what it found informs and decides nothing, until `fediwarden calibrate` has seen your media"
)
RECOUNT = (
    "CLIP was calibrated for {}: more or fewer than your budget are suspected; `fediwarden calibrate` counts anew, without a look"
)
ASSUMED_RATE = 12.0  # pictures a second and core while nothing was measured here (docs/models.md)


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command()(check)
    app.command(short_help="Look at every object and record what was found; change nothing.")(scan)
    app.command(name="rejudge", short_help="Decide everything again under a changed policy; open no picture.")(rejudge_command)


def check(
    files: list[Path] = typer.Argument(..., metavar="FILE...", help="The files to look at. They are not recorded anywhere."),
    json: bool = JSON,
) -> int:
    """Look at single files and say what the policy makes of them.

    Nothing is recorded and nothing is changed; a way to try a policy, or to see why a format is not read.
    Exit code 1 if one is suspected, 3 if one could not be scanned.
    """
    app = build()
    codes = {Exit.OK}
    policy = app.policy
    with app.looking() as looker:
        for path in files:
            look, blob = _look_at_file(app, looker.look, path)
            decision = decide(look, policy)
            if decision is not None and decision.step in (Step.QUARANTINE, Step.REVIEW):
                codes.add(Exit.FLAGGED)
            if look.not_scanned or look.standing is Standing.GONE:
                codes.add(Exit.NOT_SCANNED)
            if json:
                emit(
                    {
                        "path": str(path),
                        "sha256": blob.sha256 if blob else None,
                        "standing": look.standing.value,
                        "partly": look.partly,
                        "problem": look.problem,
                        "reason": look.reason.value if look.reason else None,
                        "kind": look.kind.format if look.kind else None,
                        "media": kind_json(look),
                        "decision": step_name(decision),
                        "rule": decision.rule if decision and step_name(decision) else None,
                        "because": decision.because if decision and step_name(decision) else None,
                        "findings": [finding_json(found) for found in look.findings],
                        "notes": [
                            {"what": note.what, "where": note.where, "size": note.size, "detail": note.detail}
                            for note in look.notes
                        ],
                        "unopened": [{"where": item.where, "why": item.why, "size": item.size} for item in look.unopened],
                    }
                )
            else:
                step = step_name(decision) or "not scanned"
                why = decision.because if decision and step_name(decision) else look.problem
                result(f"{plain(str(path))}: {look.standing.value}{', partly' if look.partly else ''}: {step}: {plain(why)}")
    return next(code for code in (Exit.FLAGGED, Exit.NOT_SCANNED, Exit.OK) if code in codes)


def _look_at_file(app: App, look: Callable[[Blob], Look], path: Path) -> tuple[Look, Blob | None]:
    ref = ObjectRef(StoreName("check"), str(path), 0, "")
    try:
        with path.open("rb") as file:
            data = file.read(app.object_limit + 1)
    except OSError as error:
        return Look(ref, Standing.UNREACHED, app.clock(), problem=error.strerror or str(error)), None
    blob = Blob.of(replace(ref, size=len(data)), data)
    try:
        return look(blob), blob
    except Unreached as error:
        return Look(ref, Standing.UNREACHED, app.clock(), problem=str(error)), blob


def scan(
    stores: list[str] = typer.Argument(
        None,
        metavar="[STORE]...",
        help="Configured names, folders, s3://bucket/prefix, sftp://user@host/folder or pictrs://host:port. Default: every configured store.",
    ),
    json: bool = JSON,
    only_estimate: bool = typer.Option(
        False, "--estimate", help="Only list, and print objects, requests, gigabytes and hours a first pass would take."
    ),
    again: bool = typer.Option(False, "--again", help="Look at everything, also at what is settled."),
    accept_gone: bool = typer.Option(
        False, "--accept-gone", help="Your word that what the stores list now is right, however much less than before it is."
    ),
) -> int:
    """Look at every object of the stores and record what was found and decided. Changes nothing in any store.

    What was looked at before and has not changed is skipped, so that the same command, run again, goes on where it
    was interrupted and later costs only a listing. `fediwarden apply` acts on what this found.
    A store that lists nothing, or less than half of what it listed when that was last believed, is not believed: nothing of
    it is gone, and at a terminal you are asked. `--accept-gone` says beforehand that it is right, for this run.
    Exit code 1 if something is suspected, 3 if something could not be scanned, 5 if a store could not be reached.
    """
    app = build()
    if only_estimate:
        return _estimate(app, stores or [], json=json)
    with (
        app.readers(stores or []) as readers,
        app.looking() as looker,
        recorded(app, "scan", _arguments(readers, accept_gone=accept_gone)) as run,
    ):
        rejudge(app.ledger, run.id, app.policy)
        scanning = app.scan(looker, again=again, accept_gone=accept_gone)
        started = time.monotonic()
        try:
            with Progress() as progress:
                scanning.run(run.id, readers, progress)
        finally:
            app.stop.set()
            _count(run, scanning.tally)
        seconds = time.monotonic() - started
        tally = scanning.tally
        if not json:
            _ask_about_doubts(app, run, tally, readers)
        saved = [reader.saved for reader in readers if isinstance(reader, Remainder)]
        owed = sum(1 for _ in app.ledger.owed())
        totals = app.ledger.totals(looker.engine)
    if json:
        emit(
            {
                **_numbers(tally),
                "seconds": round(seconds, 3),
                "owed": owed,
                "accounted": {"originals": sum(one.originals for one in saved), "variants": sum(one.variants for one in saved)},
                "engine": looker.engine,
                "policy": app.policy.digest,
                "stores_unreached": {name: str(error) for name, error in tally.stores_down.items()},
                "doubted": {name: _doubt_json(doubt) for name, doubt in tally.doubts.items()},
                "accepted_gone": {name: _doubt_json(doubt) for name, doubt in tally.accepted.items()},
            }
        )
    else:
        _table(tally, seconds, owed, cascaded=app.cascade is not None)
        if saved:
            result(
                f"{sum(one.originals for one in saved):,} objects are originals of pict-rs, looked at there, and "
                f"{sum(one.variants for one in saved):,} are renderings of those: not looked at one by one"
            )
        result(
            f"{totals.not_scanned:,} of {totals.objects:,} objects of all stores are not scanned; `fediwarden list --not-scanned` says why"
        )
        for doubt in tally.accepted.values():
            result(f"accepted: {doubt.store} lists {doubt.listed:,} objects instead of {doubt.accepted:,}; the others are gone")
    if app.clip is not None and not app.policy.calibrated:
        say(UNASKED)
    elif app.clip is not None and not app.calibrated:
        say(UNCALIBRATED)
    elif app.clip is not None and (other := app.counted_otherwise):
        say(RECOUNT.format(other))
    for problem in tally.stores_down.values():
        tell(problem)
    if tally.stores_down:
        return Exit.UNREACHED
    if tally.flagged or owed:
        return Exit.FLAGGED
    return Exit.NOT_SCANNED if tally.not_scanned else Exit.OK


def _arguments(readers: Sequence[Reader], *, accept_gone: bool) -> dict[str, str]:
    stores = {"stores": " ".join(reader.name for reader in readers)}
    return {**stores, "accept-gone": "yes"} if accept_gone else stores


def _ask_about_doubts(app: App, run: Run, tally: Tally, readers: Sequence[Reader]) -> None:
    """What a person at the terminal says of listings that are not believed; without one they stay so."""
    if not sys.stdin.isatty():
        return
    for reader in readers:
        doubt = tally.doubts.get(reader.name)
        if doubt is None or not typer.confirm(f"{plain(doubt.words)}. Are they gone indeed?", default=False, err=True):
            continue
        accounted = reader.accounted if isinstance(reader, Accounting) else 0
        listed = doubt.listed - accounted
        conclude(app.ledger, run.id, reader.name, listed, app.clock(), accounted=accounted, accept=True)
        tally.accepted[reader.name] = tally.doubts.pop(reader.name)
        tally.stores_down.pop(reader.name, None)


def _doubt_json(doubt: Doubt) -> dict[str, object]:
    return {"listed": doubt.listed, "accepted": doubt.accepted, "missing": doubt.missing}


def _numbers(tally: Tally) -> dict[str, int]:
    return {
        "listed": tally.listed,
        "skipped": tally.skipped,
        "seen": tally.seen,
        "broken": tally.broken,
        "empty": tally.empty,
        "gone": tally.gone,
        "unreached": tally.unreached,
        "partly": tally.partly,
        "further": tally.further,
        "not_scanned": tally.not_scanned,
        "flagged": tally.flagged,
        "review": tally.review,
        "passed": tally.passed,
        "bytes": tally.bytes,
    }


def _count(run: Run, tally: Tally) -> None:
    run.counts.update(_numbers(tally))


def _table(tally: Tally, seconds: float, owed: int, *, cascaded: bool) -> None:
    looked = tally.listed - tally.skipped
    shown = table(">objects", "what happened")
    row(shown, f"{tally.not_scanned:,}", "NOT SCANNED in this run: broken, unreached, or only partly seen")
    row(shown, f"{tally.listed:,}", "listed")
    row(shown, f"{tally.skipped:,}", "skipped: unchanged since they were looked at")
    row(shown, f"{tally.seen:,}", f"seen ({tally.partly:,} of them only partly)")
    if cascaded:
        share = f" ({tally.further / tally.seen:.1%})" if tally.seen else ""
        row(shown, f"{tally.further:,}", f"of them shown to CLIP{share}; that share decides the speed")
    row(shown, f"{tally.broken:,}", "broken: cannot be decoded; `fediwarden list --standing broken` names them")
    if tally.empty:
        row(shown, f"{tally.empty:,}", "of them empty: nothing is in them, so they are not counted as not scanned")
    row(shown, f"{tally.unreached:,}", "unreached: will be tried again by the next scan")
    row(shown, f"{tally.gone:,}", "gone before they could be fetched")
    row(shown, f"{tally.flagged:,}", "suspected: quarantine is decided, nothing was done")
    row(shown, f"{tally.review:,}", "for a person to review")
    row(shown, f"{tally.passed:,}", "passed")
    show(shown)
    rate = looked / seconds if seconds else 0.0
    result(f"{looked:,} looked at in {duration(seconds)}, {rate:.1f} a second, {size(tally.bytes)}")
    if owed:
        result(f"{owed:,} owed: `fediwarden list --step quarantine` shows them, `fediwarden apply` hides them reversibly")


def _estimate(app: App, stores: list[str], *, json: bool) -> int:
    cores = app.settings.scan.workers or app.cores
    rate = ASSUMED_RATE * cores
    failed: list[FediwardenError] = []
    shown = table("store", ">objects", ">size", ">requests", ">hours")
    with app.readers(stores) as readers:
        for reader in readers:
            try:
                found = estimate(reader)
            except Unreached as error:
                failed.append(error)
                continue
            hours = found.objects / rate / 3600
            if json:
                emit(_estimate_json(found, rate, hours))
            row(shown, found.store, f"{found.objects:,}", size(found.bytes), f"{found.requests:,}", f"{hours:.2f}")
    if not json:
        show(shown)
        result(
            f"hours at an assumed {rate:.0f} pictures a second on {cores} cores; the scan shows the real rate. Nothing was fetched"
        )
    for problem in failed:
        tell(problem)
    return Exit.UNREACHED if failed else Exit.OK


def _estimate_json(found: Estimate, rate: float, hours: float) -> dict[str, object]:
    return {
        "store": found.store,
        "objects": found.objects,
        "bytes": found.bytes,
        "gigabytes": round(found.bytes / 1e9, 6),
        "requests": found.requests,
        "listing_requests": found.listing_requests,
        "assumed_rate": rate,
        "hours": round(hours, 4),
    }


def rejudge_command(json: bool = JSON) -> int:
    """Decide everything again under the policy in force, from the findings in the ledger, without opening one picture.

    Run it after changing the policy file. A person's word (an object restored) stands over every policy.
    """
    app = build()
    policy = app.policy
    with recorded(app, "rejudge", {"policy": policy.digest}) as run:
        tally = rejudge(app.ledger, run.id, policy)
        run.counts.update({"decided": tally.listed, "flagged": tally.flagged, "review": tally.review, "passed": tally.passed})
    if json:
        emit(
            {
                "decided": tally.listed,
                "flagged": tally.flagged,
                "review": tally.review,
                "passed": tally.passed,
                "policy": policy.digest,
            }
        )
    else:
        result(
            f"{tally.listed:,} decided again: {tally.flagged:,} suspected, {tally.review:,} to review, {tally.passed:,} passed"
        )
    return Exit.OK
