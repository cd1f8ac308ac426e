"""`drill ...`: a harmless marked picture, and the proof with it that a deployment works end to end."""

import secrets
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import typer

from fediwarden.analysers.drill import make_picture
from fediwarden.app import App
from fediwarden.cli.common import JSON, build, recorded
from fediwarden.cli.output import emit, plain, result
from fediwarden.drill import PREFIX, Drill, Station
from fediwarden.errors import CannotWrite, Exit, FediwardenError
from fediwarden.model import RunId
from fediwarden.stores.open import open_keeper, open_reader
from fediwarden.stores.url import StoreSettings, parse_target

app = typer.Typer(
    name="drill",
    help="Prove a deployment with a harmless picture that only this installation recognises.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command(short_help="Write a drill picture: harmless, keyed, expiring.")
def picture(
    file: Path = typer.Argument(..., metavar="FILE", help="Where to write the PNG."),
    hours: float = typer.Option(24.0, "--hours", min=0.1, max=24 * 90, help="How long it is recognised."),
    json: bool = JSON,
) -> int:
    """Write a drill picture: harmless, marked for this installation, expiring."""
    built = build()
    data = make_picture(built.drill_key, built.clock(), timedelta(hours=hours))
    try:
        file.write_bytes(data)
    except OSError as error:
        raise CannotWrite(f"cannot write {file}: {error.strerror}", hint="choose another place") from error
    if json:
        emit({"file": str(file), "bytes": len(data), "hours": hours})
    else:
        result(f"wrote {plain(str(file))}, recognised for {hours:g} hours by this installation only")
    return Exit.OK


@app.command(short_help="See a drill picture go the whole road through a store.")
def run(
    store: str = typer.Argument(..., metavar="STORE", help="A configured store, or a folder."),
    identity: list[Path] = typer.Option(
        [], "--identity", metavar="FILE", help='A private key of the vault; needed to restore where hide = "remove".'
    ),
    json: bool = JSON,
) -> int:
    """Put a drill picture into the store and see it listed, looked at, decided, sealed, hidden and restored; then clean up.

    Touches no other object. Uses the keeper's credentials, the drill allowance and the drill vault.
    Exit code 3 if a station failed.
    """
    built = build()
    settings = built.store(store)
    stations: list[Station] = []
    with recorded(built, "drill run", {"store": settings.name}) as command:
        for station in _road(built, settings, command.id, identity):
            stations.append(station)
            if json:
                emit({"station": station.name, "passed": station.passed, "detail": station.detail})
            else:
                result(f"{'ok    ' if station.passed else 'FAILED'} {station.name:<10} {plain(station.detail)}")
        failed = [station.name for station in stations if not station.passed]
        command.counts.update({"stations": len(stations), "failed": len(failed)})
    if not json:
        result("the road works end to end" if not failed else f"the road is broken at: {', '.join(failed)}")
    return Exit.NOT_SCANNED if failed else Exit.OK


def _road(app: App, settings: StoreSettings, run: RunId, identities: list[Path]) -> list[Station]:
    stations: list[Station] = []
    with (
        closing(open_reader(settings, environment=app.environment, stop=app.stop)) as reader,
        closing(open_keeper(settings, environment=app.environment, stop=app.stop)) as keeper,
        app.looking() as looker,
        app.warden(run) as warden,
    ):
        drill = Drill(
            picture=make_picture(app.drill_key, app.clock(), timedelta(hours=1)),
            key=f"{_prefix(settings)}{PREFIX}{secrets.token_hex(8)}.png",
            reader=reader,
            keeper=keeper,
            ledger=app.ledger,
            warden=warden,
            vault=app.vault(drill=True) if app.profile.keep == "preserve" else None,
            identities=identities,
            removes=settings.hide == "remove",
            allowance=app.settings.acting.drill_allowance,
        )
        blob = drill.put()
        stations.append(Station("put", True, drill.key))
        try:
            stations.extend(drill.road(run, blob, app.scan(looker, partial=True)))
        except FediwardenError as error:
            stations.append(Station("road", False, f"{error} {error.hint}"))
        finally:
            stations.append(drill.clean_up(run, blob, app.clock()))
    return stations


def _prefix(settings: StoreSettings) -> str:
    """Keys of a bucket carry the store's prefix; those of a folder are relative to it."""
    return parse_target(settings.url).prefix
