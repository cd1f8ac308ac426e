"""`drill ...`: a harmless marked picture, and the proof with it that a deployment works end to end."""

import secrets
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import typer

from fediwarden.analysers.drill import make_picture
from fediwarden.app import App
from fediwarden.cli.common import JSON, Run, build, recorded
from fediwarden.cli.output import emit, plain, result
from fediwarden.drill import PREFIX, Drill, Station, through_gate
from fediwarden.errors import CannotWrite, Exit, FediwardenError, Refused
from fediwarden.model import RunId
from fediwarden.stores.open import open_keeper, open_reader
from fediwarden.stores.url import StoreSettings, TargetKind, parse_target

ANSWERING = 5.0  # seconds over its deadline that a gate may take to be heard

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
            _tell(station, json=json)
        return _ended(command, stations, "the road", json=json)


@app.command(short_help="See a drill picture refused by the running gate.")
def gate(json: bool = JSON) -> int:
    """Send a drill picture to the running gate, as pict-rs would, and see it refused, on record and sealed apart.

    Nothing is stored anywhere but in the drill vault. Uses the first of the gate's secrets.
    Exit code 3 if a station failed.
    """
    from fediwarden.gate import secrets as gate_secrets

    built = build()
    known = gate_secrets.read(built.gate_secrets)
    listen = built.settings.gate.listen
    vault = built.vault(drill=True) if built.profile.keep == "preserve" else None
    picture = make_picture(built.drill_key, built.clock(), timedelta(hours=1))
    seconds = built.settings.gate.deadline_seconds + ANSWERING
    with recorded(built, "drill gate", {"listen": listen}) as command:
        stations: list[Station] = []
        for station in through_gate(listen, known.first, picture, built.ledger, vault, seconds):
            stations.append(station)
            _tell(station, json=json)
        return _ended(command, stations, "the gate", json=json)


def _tell(station: Station, *, json: bool) -> None:
    if json:
        emit({"station": station.name, "passed": station.passed, "detail": station.detail})
    else:
        result(f"{'ok    ' if station.passed else 'FAILED'} {station.name:<10} {plain(station.detail)}")


def _ended(command: Run, stations: list[Station], what: str, *, json: bool) -> int:
    failed = [station.name for station in stations if not station.passed]
    command.counts.update({"stations": len(stations), "failed": len(failed)})
    if not json:
        result(f"{what} works end to end" if not failed else f"{what} is broken at: {', '.join(failed)}")
    return Exit.NOT_SCANNED if failed else Exit.OK


def _road(app: App, settings: StoreSettings, run: RunId, identities: list[Path]) -> list[Station]:
    stations: list[Station] = []
    pictrs = parse_target(settings.url).kind is TargetKind.PICTRS
    key = f"{_prefix(settings)}{PREFIX}{secrets.token_hex(8)}.png"
    with (
        closing(open_reader(settings, environment=app.environment, stop=app.stop)) as reader,
        closing(open_keeper(settings, environment=app.environment, stop=app.stop)) as keeper,
        app.looking() as looker,
        app.warden(run) as warden,
    ):
        drill = Drill(
            picture=make_picture(app.drill_key, app.clock(), timedelta(hours=1)),
            key=key,
            reader=reader,
            keeper=keeper,
            ledger=app.ledger,
            warden=warden,
            vault=app.vault(drill=True) if app.profile.keep == "preserve" else None,
            identities=identities,
            removes=settings.hide == "remove" or pictrs,
            facts={"aliases": key} if pictrs else {},
            allowance=app.settings.acting.drill_allowance,
            clock=app.clock,
        )
        try:
            blob = drill.put()
        except Refused as error:
            if not pictrs:
                raise
            words = f"{error}. A gate in front of pict-rs refuses a drill picture, rightly: `fediwarden drill gate` tries that"
            return [Station("put", False, words)]
        stations.append(Station("put", True, blob.ref.key))
        try:
            stations.extend(drill.road(run, blob, app.scan(looker, partial=True)))
        except FediwardenError as error:
            stations.append(Station("road", False, f"{error} {error.hint}"))
        finally:
            stations.append(drill.clean_up(run, blob))
    return stations


def _prefix(settings: StoreSettings) -> str:
    """Keys of a bucket carry the store's prefix; those of a folder are relative to it."""
    return parse_target(settings.url).prefix
