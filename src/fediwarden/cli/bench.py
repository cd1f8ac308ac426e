"""`bench`: how fast this machine is, and how long the stores would take in each mode; looks at benign pictures made on the spot."""

import json as jsons
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import typer

from fediwarden.app import SWITCH, App
from fediwarden.cli.common import JSON, build
from fediwarden.cli.output import duration, emit, plain, result, row, say, show, size, table, tell
from fediwarden.errors import Exit, FediwardenError, Misconfigured, Unreached
from fediwarden.inference import catalogue, registry
from fediwarden.inference.towers import Tower, choose, trial_pixels
from fediwarden.media import benign
from fediwarden.pipeline import estimate
from fediwarden.pipeline.measuring import Rate, Speeds, blobs, measure

PICTURES = 12
ASSUMED_SHARE = 0.3  # of pictures that reach CLIP in balanced mode, while nothing was counted here
ENOUGH = 100  # seen objects from which on the share that was counted is told instead
PARTS = "FEDIWARDEN_BENCH_PART"  # tells the command that it is one part of itself, measured in a process of its own
LISTING_SECONDS = 20.0  # for one store that the ledger knows nothing of


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command(short_help="How fast this machine is, and how long your stores would take.")(bench)


def bench(
    stores: list[str] = typer.Argument(
        None, metavar="[STORE]...", help="The stores to tell the time for. Default: every configured one."
    ),
    seconds: float = typer.Option(45.0, "--seconds", min=3, max=3600, help="About how long to measure, all models together."),
    json: bool = JSON,
) -> int:
    """Measure this machine in about a minute: each installed model and precision, images a second, memory, hours for each store.

    The pictures are made on the spot and benign: smooth colours under grain, two megapixels. Nothing is recorded. What a
    model costs is measured; how good it is for this purpose is not, and cannot be. Exit code 4 if a model could not be
    measured, 5 if a store could not be reached.
    """
    if own := os.environ.get(PARTS):
        return _measure_part(build(), *own.split(" ", 1))
    app = build()
    if stores:
        with app.readers(stores):
            pass  # a name that is none is told now, not after a minute
    parts = _parts(app)
    spend = max(1.0, seconds / len(parts))
    measured: dict[str, Mapping[str, float]] = {}
    shown = table("what", ">images/s", ">ms an image", ">memory", "published accuracy (other tasks)")
    for part in parts:
        say(f"measuring {part.title}, {duration(spend)}")
        found = _in_a_process(part, spend)
        if isinstance(found, str):
            say(f"  {plain(found)}")
            continue
        measured[part.name] = found
        rate = found["images_per_second"]
        if json:
            emit({"part": part.name, "title": part.title, "published": part.published, **found})
        row(shown, part.title, f"{rate:.2f}", f"{1000 / rate:,.0f}", size(int(found["memory"])), part.published)
    if not json:
        show(shown)
        result(
            f"with {app.pace.workers} pictures at a time; memory of all processes together. A GPU model's memory on the card is not in it."
        )
        result("published accuracy is on everyday objects (ImageNet, zero-shot); quality for this purpose is unmeasured")
    code = _stores(app, stores or [], measured, json=json)
    return code if code or len(measured) == len(parts) else Exit.CONFIGURATION


@dataclass(frozen=True, slots=True)
class _Part:
    """One thing to measure: "cage", "embedded", or an image tower as "NAME PRECISION"."""

    name: str
    title: str
    published: str = ""


def _parts(app: App) -> list[_Part]:
    towers = [
        _Part(f"{manifest.name} {precision}", f"{manifest.name} {precision}, a view", _published(app, manifest.name))
        for manifest in registry.image_text(app.configuration.models)
        for precision in manifest.precisions
    ]
    return [_Part("cage", "opening in the cage alone"), _Part("embedded", "opening and the embedded default"), *towers]


def _published(app: App, name: str) -> str:
    entry = next((entry for entry in catalogue.known(app.configuration.catalogue) if entry.name == name), None)
    return f"{entry.accuracy:g} % ({entry.accuracy_source})" if entry and entry.accuracy else ""


def _in_a_process(part: _Part, seconds: float) -> Mapping[str, float] | str:
    """One part in a process of its own, so that its memory is its own; or what went wrong, in a line."""
    environment = {**os.environ, PARTS: f"{seconds:g} {part.name}"}
    command = [sys.executable, "-m", "fediwarden.cli.main", "bench", "--json"]
    done = subprocess.run(  # noqa: S603 - our own program and arguments
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    try:
        found: dict[str, float] = jsons.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        return (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[0]
    return found


def _measure_part(app: App, seconds: str, name: str) -> int:
    """In the process of one part: measure it and print one JSON object."""
    rate = _tower(app, name, float(seconds)) if " " in name else _cage(app, float(seconds), embedded=name == "embedded")
    emit(
        {
            "images": rate.images,
            "seconds": round(rate.seconds, 3),
            "images_per_second": round(rate.per_second, 4),
            "memory": rate.memory,
        }
    )
    return Exit.OK


def _cage(app: App, seconds: float, *, embedded: bool) -> Rate:
    pictures = blobs(benign.jpegs(PICTURES))
    looker = app.looker_of(app.embedded if embedded else ())
    sys.setswitchinterval(SWITCH)  # as a scan has it
    with app.cage:
        return measure(lambda number: looker.look(pictures[number % PICTURES]), app.pace.workers, seconds)


def _tower(app: App, name: str, seconds: float) -> Rate:
    model, precision = name.split(" ")
    choice = choose(registry.image_text(app.configuration.models), model, precision, app.settings.analysis.device)
    tower = Tower(app.configuration.models, choice)
    pixels = trial_pixels(choice.manifest, 1)
    return measure(lambda _: tower.embed(pixels), app.pace.workers, seconds)


def _stores(app: App, names: list[str], measured: Mapping[str, Mapping[str, float]], *, json: bool) -> int:
    if not names and not app.settings.stores:
        if not json:
            result("no store is configured; name one to see how long it would take")
        return Exit.OK
    if "embedded" not in measured:
        raise Misconfigured("the embedded default could not be measured", hint="`fediwarden doctor` says what is missing")
    speeds, share, counted, model = _speeds(app, measured)
    failed: list[FediwardenError] = []
    shown = table("store", ">objects", ">size", ">requests", ">fast", ">balanced", ">thorough")
    for store in _listed(app, names):
        if isinstance(store, FediwardenError):
            failed.append(store)
            continue
        hours = {
            "fast": speeds.hours(store.objects, 0),
            "balanced": speeds.hours(store.objects, share) if model else None,
            "thorough": speeds.hours(store.objects, 1) if model else None,
        }
        if json:
            emit(
                {
                    "store": store.name,
                    "objects": store.objects,
                    "complete": store.complete,
                    "gigabytes": round(store.bytes / 1e9, 6),
                    "requests": store.requests,
                    "share": share if model else None,
                    "model": model,
                    "hours": {mode: None if value is None else round(value, 4) for mode, value in hours.items()},
                }
            )
        least = "" if store.complete else "at least "
        row(
            shown,
            store.name,
            f"{least}{store.objects:,}",
            size(store.bytes),
            f"{store.requests:,}",
            *("-" if value is None else duration(value * 3600) for value in hours.values()),
        )
    if not json:
        result()
        show(shown)
        result(
            "a first pass over everything; later passes cost a listing and what is new. Fetching from far away may take longer"
        )
        if model:
            how = "as counted here so far" if counted else "assumed until a scan has counted"
            result(f"with {model}; balanced shows {share:.0%} of pictures to CLIP ({how})")
    for problem in failed:
        tell(problem)
    return Exit.UNREACHED if failed else Exit.OK


@dataclass(frozen=True, slots=True)
class _Store:
    name: str
    objects: int
    bytes: int
    requests: int
    complete: bool


def _listed(app: App, names: list[str]) -> Iterator[_Store | FediwardenError]:
    with app.readers(names) as readers:
        for reader in readers:
            say(f"listing {plain(reader.name)}, {duration(LISTING_SECONDS)} at most")
            until = time.monotonic() + LISTING_SECONDS
            try:
                found = estimate(reader, lambda until=until: time.monotonic() > until)  # type: ignore[misc]
            except Unreached as error:
                yield error
                continue
            yield _Store(found.store, found.objects, found.bytes, found.requests, time.monotonic() <= until)


def _speeds(app: App, measured: Mapping[str, Mapping[str, float]]) -> tuple[Speeds, float, bool, str]:
    """The speeds of the models in use, the share that balanced shows to CLIP, whether it was counted, and CLIP's name."""
    embedded = 1 / measured["embedded"]["images_per_second"]
    try:
        choice = app.clip_choice
    except FediwardenError:
        choice = None
    if choice is None and (towers := [name for name in measured if " " in name]):
        model = towers[0]
    else:
        model = f"{choice.manifest.name} {choice.precision}" if choice else ""
    further = 1 / measured[model]["images_per_second"] if model in measured else 0.0
    share = _counted_share(app)
    name = model if model in measured else ""
    return Speeds(embedded, further), ASSUMED_SHARE if share is None else share, share is not None, name


def _counted_share(app: App) -> float | None:
    """The share of pictures that the scans so far showed to CLIP; None where they say too little."""
    try:
        totals = app.ledger.totals(app.engine) if app.mode == "balanced" else None
    except FediwardenError:
        return None
    return (totals.further + totals.sampled) / totals.seen if totals and totals.seen >= ENOUGH else None
