"""`import-legacy`: what an earlier tool wrote down, as history; decides nothing and changes no store."""

from pathlib import Path

import typer

from fediwarden.app import App
from fediwarden.cli.common import JSON, build, recorded
from fediwarden.cli.output import emit, plain, result, step_name
from fediwarden.errors import Exit, Misconfigured
from fediwarden.legacy import MISSED, Imported, Missed, take_over
from fediwarden.stores.url import StoreSettings, parse_target


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command(name="import-legacy", short_help="Import fedi-safety's lemmy_safety.db; say what it had missed.")(import_legacy)


def import_legacy(
    file: Path = typer.Argument(..., metavar="FILE", help="fedi-safety's lemmy_safety.db. It is only read."),
    store: str = typer.Option("", "--store", help="The store that it was about, where several are configured."),
    json: bool = JSON,
) -> int:
    """Import what fedi-safety wrote down about a store, and say what it had missed.

    Its verdicts are kept as history that `fediwarden explain` shows, and decide nothing: they are about names, and whatever
    lies there is looked at all the same. What it silently skipped is queued: until the next scan has met it, `status` counts
    it as never looked at. Best after a first scan, when there is something to compare with; it can be given again then.
    With --json, each object that was missed is a line, and the numbers are the last one.
    """
    app = build()
    settings = _store(app, store)
    target = parse_target(settings.url)
    behind = target.path if target.path.startswith("/") else ""

    def tell(missed: Missed) -> None:
        entry = missed.entry
        emit(
            {
                "missed": missed.what,
                "store": settings.name,
                "key": missed.key,
                "said_suspected": missed.suspected,
                "standing": entry.standing.value if entry and entry.standing else None,
                "decision": step_name(entry.decision) if entry else None,
                "not_scanned": (entry.lacking or None) if entry else "not in the ledger",
            }
        )

    with recorded(app, "import-legacy", {"file": str(file), "store": settings.name}) as run:
        done = take_over(
            app.ledger,
            run.id,
            settings.name,
            file,
            root=behind,
            expect="pictrs" not in settings.url.partition("://")[0],  # there an object's key is its hash, never such a name
            tell=tell if json else lambda _: None,
        )
        run.counts.update({"rows": done.rows, "skipped": done.skipped, **{what: done.missed[what] for what in MISSED}})
    if json:
        emit(_numbers(done))
    else:
        _say(done, settings)
    return Exit.OK


def _store(app: App, name: str) -> StoreSettings:
    if name:
        return app.store(name)
    known = list(app.settings.stores)
    if len(known) != 1:
        raise Misconfigured(
            "several stores are configured" if known else "no store is configured",
            hint="say which one the file is about: fediwarden import-legacy lemmy_safety.db --store NAME",
        )
    return app.store(known[0])


def _numbers(done: Imported) -> dict[str, object]:
    return {
        "rows": done.rows,
        "safe": done.safe,
        "suspected": done.suspected,
        "skipped": done.skipped,
        "unreadable": done.unreadable,
        "matched": done.matched,
        "unmatched": done.unmatched,
        "ambiguous": done.ambiguous,
        "queued": done.queued,
        "missed": {what: done.missed[what] for what in MISSED},
    }


def _say(done: Imported, settings: StoreSettings) -> None:
    result(
        f"{done.rows:,} rows: {done.safe:,} called safe, {done.suspected:,} suspected, {done.skipped:,} silently skipped"
        + (f", {done.unreadable:,} not to be understood" if done.unreadable else "")
    )
    result(
        f"{done.matched:,} of the names are objects of {plain(settings.name)} in the ledger, {done.unmatched:,} are not"
        + (f" ({done.ambiguous:,} could be several)" if done.ambiguous else "")
    )
    if done.queued:
        result(f"{done.queued:,} that it skipped are queued: the next scan looks at those that are still there")
    result("what it had missed:")
    for what, words in MISSED.items():
        result(f"    {done.missed[what]:>9,}  {words}")
    result("nothing was decided by this: its verdicts are history, and every object is looked at as if it had never been met")
