"""`drill ...`: a harmless marked picture, and the proof with it that a deployment works end to end."""

import secrets
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import typer

from fediwarden.analysers.drill import make_picture
from fediwarden.app import App
from fediwarden.cli.common import JSON, Run, build, recorded
from fediwarden.cli.output import emit, plain, result
from fediwarden.cli.reach import given
from fediwarden.drill import PREFIX, Drill, Station
from fediwarden.drill_uploads import Through, through_gate
from fediwarden.errors import CannotWrite, Exit, FediwardenError, Misconfigured, Refused
from fediwarden.media.samples import samples
from fediwarden.model import RunId, StoreName
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

    Touches no other object. Uses the keeper's credentials, the drill allowance and the drill vault. In front of a pict-rs that asks
    a gate, the gate refuses the picture, rightly: there `drill gate` proves the road of uploads, and this command nothing.
    Exit code 3 if a station failed.
    """
    built = build()
    settings = built.store(store)
    stations: list[Station] = []
    with recorded(built, "drill run", {"store": settings.name}) as command:
        for station in _road(built, settings, command.id, identity):
            stations.append(station)
            _tell(station, json=json)
        unproved = "; ".join(station.unproved for station in stations if station.unproved)
        return _ended(command, stations, "the road", json=json, so_far="as far as it was tried", unproved=unproved)


@app.command(short_help="See the road of uploads: at the running gate, and through pict-rs.")
def gate(json: bool = JSON) -> int:
    """Send drill pictures to the running gate in every shape in which pict-rs sends uploads, and see them refused, on record, sealed apart.

    Where `gate.store` is a pict-rs with keeper_credentials, a harmless file of each format goes through it as well: each has to be on the
    gate's record as pict-rs then lists it, and is deleted again; and the drill picture has to be refused there. Uses the first of the
    gate's secrets. Exit code 3 if a station failed.
    """
    from fediwarden.gate import secrets as gate_secrets

    built = build()
    known = gate_secrets.read(built.gate_secrets)
    settings = built.settings.gate
    vault = built.vault(drill=True) if built.profile.keep == "preserve" else None
    seconds = settings.deadline_seconds + ANSWERING

    def make() -> bytes:
        return make_picture(built.drill_key, built.clock(), timedelta(hours=1))

    with recorded(built, "drill gate", {"listen": settings.listen}) as command:
        stations: list[Station] = []

        def tell(station: Station) -> None:
            stations.append(station)
            _tell(station, json=json)

        for station in through_gate(
            settings.listen, known.first, make, built.ledger, vault, seconds, built.clock, settings.address
        ):
            tell(station)
        if any(not station.passed for station in stations[:2]):
            return _ended(command, stations, "the gate", json=json)
        unproved = _through_pictrs(built, command.id, make(), tell)
        return _ended(command, stations, "the gate", json=json, unproved=unproved)


def _through_pictrs(app: App, run: RunId, picture: bytes, tell: Callable[[Station], None]) -> str:
    """The drill through the gate's pict-rs; why it was not proved that pict-rs asks this gate, where it was not."""
    settings = app.settings.gate
    entry = app.settings.stores.get(settings.store)
    if entry is None:
        return "not proved: that pict-rs asks this gate. [gate] store names no pict-rs"
    if not entry.keeper_credentials:
        return f"not proved: that pict-rs asks this gate. [stores.{settings.store}] has no keeper_credentials to clean up with"
    try:
        server = app.pictrs(StoreName(settings.store), keeper=True)
    except Misconfigured as error:
        tell(Station("pict-rs", False, f"{error}. {error.hint}"))
        return ""
    with closing(server):
        server.repository = None  # it is asked itself, not its database
        through = Through(server, StoreName(settings.store), app.ledger, app.engine, app.clock, app.stop, given(settings).place)
        try:
            for station in through.stations(samples(secrets.randbits(64)), picture):
                tell(station)
        finally:
            cleaned = through.clean_up(run)
            if cleaned is not None:
                tell(cleaned)
    return ""


def _tell(station: Station, *, json: bool) -> None:
    if json:
        emit({"station": station.name, "passed": station.passed, "detail": station.detail})
    else:
        result(f"{'ok    ' if station.passed else 'FAILED'} {station.name:<14} {plain(station.detail)}")


def _ended(
    command: Run, stations: list[Station], what: str, *, json: bool, so_far: str = "when it is asked", unproved: str = ""
) -> int:
    failed = [station.name for station in stations if not station.passed]
    command.counts.update({"stations": len(stations), "failed": len(failed)})
    if not json:
        works = f"{what} works {so_far}" if unproved else f"{what} works end to end"
        result((f"{what} is broken at: {', '.join(failed)}" if failed else works) + (f"; {unproved}" if unproved else ""))
    return Exit.NOT_SCANNED if failed else Exit.OK


def _road(app: App, settings: StoreSettings, run: RunId, identities: list[Path]) -> list[Station]:
    stations: list[Station] = []
    pictrs = parse_target(settings.url).kind is TargetKind.PICTRS
    key = f"{_prefix(settings)}{PREFIX}{secrets.token_hex(8)}.png"
    with (
        closing(open_reader(settings, environment=app.environment, stop=app.stop)) as reader,
        closing(open_keeper(settings, environment=app.environment, stop=app.stop)) as keeper,
        app.looking() as looker,
        app.executor(run) as executor,
    ):
        drill = Drill(
            picture=make_picture(app.drill_key, app.clock(), timedelta(hours=1)),
            key=key,
            reader=reader,
            keeper=keeper,
            ledger=app.ledger,
            executor=executor,
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
            words = (
                f"{error}. If a gate in front of this pict-rs refused the drill picture, it did what it is for, and nothing further can be tried "
                "here: `fediwarden drill gate` proves the road of uploads. Leave the gate on"
            )
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
