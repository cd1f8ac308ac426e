"""Image-text models come and go: pulled from a hub, imported from a folder, removed; each whole, checked and pinned, or not at all.

What came is held to the catalogue's hashes where it has some. Where it has none, the first time pins what came into the
model's manifest, and every later pull, check and load on this machine holds to that. Nothing here builds or runs a model.
"""

import json
import os
import re
import shutil
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from fediwarden.errors import CannotWrite, Misconfigured
from fediwarden.inference import catalogue, registry, weights
from fediwarden.inference import folder as folders
from fediwarden.inference import manifest as manifests
from fediwarden.inference.catalogue import CatalogueEntry
from fediwarden.inference.hub import Hub, HubFile
from fediwarden.inference.manifest import MANIFEST, PLAIN_NAME, HubOrigin, ModelFile, ModelManifest, Role
from fediwarden.inference.registry import FileState

_STATE = "pull.json"  # which revision a pull that broke off was fetching
_SPARE = 64 << 20  # bytes that are left free on the disk
_CACHE = re.compile(r"models--([A-Za-z0-9._-]+?)--([A-Za-z0-9._-]+)")  # a repository in a hub's cache
_ORIGINALS = (Role.SOURCE, Role.TOKENIZER)

Say = Callable[[str], None]
Progress = Callable[[str, int, int], None]  # file, bytes that are there, bytes in all (0 where nobody said)


@dataclass(frozen=True, slots=True)
class Obtained:
    """A model that is there; `fresh` says whether it was not there before, or not whole."""

    manifest: ModelManifest
    fresh: bool


def pull(
    models_dir: Path,
    entry: CatalogueEntry,
    hub: Hub,
    say: Say = lambda _: None,
    progress: Progress = lambda _file, _done, _total: None,
) -> Obtained:
    """Fetch a model of the catalogue; does nothing where its weights and tokenizer are there and in order.

    A model that is there with an altered or missing file is fetched again at the revision that its manifest pins, and held
    to the hashes there. Two pulls of one model at once: the second waits, says so, and finds it there.

    Raises: Misconfigured where the hub has another file, or none; Refused or Unreached where it gives none; CannotWrite.
    Nothing is installed then; what came of a file is kept for the next try.
    """
    pulling = models_dir / f"{folders.PULLING}{entry.name}"
    waiting = f"another command is pulling {entry.name}; waiting for it"
    with folders.writing(models_dir), folders.held(pulling, lambda: say(waiting)):
        try:
            return _pull(models_dir, entry, hub, pulling, say, progress)
        except BaseException:  # after a success nothing of it is left, and what is there by then is the next one's
            if not any(part.stat().st_size for part in pulling.glob("*.part")):
                shutil.rmtree(pulling, ignore_errors=True)
            raise


def _pull(models_dir: Path, entry: CatalogueEntry, hub: Hub, pulling: Path, say: Say, progress: Progress) -> Obtained:
    before = _there(models_dir, entry.name)
    if before is not None and _whole(models_dir, before):
        shutil.rmtree(pulling)
        return Obtained(before, fresh=False)
    if before is None and (models_dir / entry.name).exists():
        say(f"the manifest of {entry.name} cannot be used: what is fetched now is pinned anew")
    pinned = before.origin if before is not None and isinstance(before.origin, HubOrigin) else None
    if pinned is not None and pinned.repository != entry.repository:
        raise Misconfigured(
            f"{entry.name} came from {pinned.repository}, and is not whole any more",
            hint=f"import it again, or `fediwarden models remove {entry.name}` and pull it",
        )
    revision = (pinned.revision if pinned else "") or entry.revision or _begun(pulling, entry, hub)
    if not revision:
        say(f"asking {hub.host} for the revision of {entry.repository}")
        revision = hub.revision(entry.repository)
    _remember(pulling, entry, hub, revision)
    kept: list[ModelFile] = []
    for known in entry.files:
        say(f"fetching {known.name} of {entry.repository} at {revision[:12]}")
        part = pulling / f"{known.name}.part"
        told = partial(progress, known.name)
        got = hub.fetch(_wanted(entry, known, revision, before), part, told)
        kept.append(ModelFile(known.name, got.sha256, got.size, known.role))
    parts = {file.name: pulling / f"{file.name}.part" for file in kept}
    try:
        made = _as_verified(_manifest(entry, HubOrigin(entry.repository, revision), tuple(kept), parts), entry)
    except Misconfigured:
        shutil.rmtree(pulling)  # whole, and not what it should be: to go on from there would meet it again
        raise
    made = _put(models_dir, made, parts, before, say)
    shutil.rmtree(pulling)
    return Obtained(made, fresh=True)


def import_(
    models_dir: Path,
    given: Path,
    name: str,
    entries: tuple[CatalogueEntry, ...],
    say: Say = lambda _: None,
    allowed: Callable[[CatalogueEntry], None] = lambda _: None,
) -> Obtained:
    """Take a model in from a folder: one that was built here or elsewhere, one with the weights, or a hub's cache.

    A folder with a manifest is taken with all its files, each held to its SHA-256. A folder with weights and tokenizer, or a
    cache (`models--OWNER--NAME`, or a snapshot in it), is taken as a pull of `name` would be. Files are copied; a symbolic
    link is followed only inside the folder, or into the cache's own `blobs`. `allowed` may refuse an entry by raising.

    Raises: Misconfigured where it is none of these, or not what it says; CannotWrite. Nothing is installed then.
    """
    given = given.absolute()
    if not given.is_dir():
        raise Misconfigured(f"{given} is not a folder", hint="name the folder that holds the model's files")
    try:
        if (given / MANIFEST).is_file():
            return _import_built(models_dir, given, name, entries, say, allowed)
        return _import_weights(models_dir, given, name, entries, say, allowed)
    except PermissionError as error:
        if error.filename and Path(os.fsdecode(error.filename)).is_relative_to(given):
            raise Misconfigured(f"{error.filename} cannot be read: {error.strerror}", hint="check its owner and mode") from error
        raise


def remove(models_dir: Path, name: str) -> int:
    """Remove an image-text model, and what a pull of it has fetched; returns the bytes that were freed.

    Raises: Misconfigured where it is a bundled one, or is not there; CannotWrite.
    """
    if name in registry.bundled():
        raise Misconfigured(
            f"{name} is one of the models that every scan needs; it stays", hint="`fediwarden models install` keeps it whole"
        )
    place, pulling = models_dir / name, models_dir / f"{folders.PULLING}{name}"
    if not PLAIN_NAME.fullmatch(name) or not (place.is_dir() or pulling.is_dir()):
        raise Misconfigured(
            f"the model {name} is not installed in {models_dir}", hint="`fediwarden models list` shows those that are"
        )
    with folders.writing(models_dir), folders.held(pulling), folders.locked(models_dir), folders.staging(models_dir) as staging:
        freed = sum(file.lstat().st_size for folder in (place, pulling) if folder.is_dir() for file in folder.rglob("*"))
        if place.is_symlink():
            place.unlink()
        elif place.is_dir():
            place.rename(staging / name)  # gone at once; what follows may take its time
            folders.sync(models_dir)
        shutil.rmtree(pulling)
    return freed


def leftovers(models_dir: Path) -> Mapping[str, int]:
    """What pulls that broke off have fetched, in bytes by model."""
    return {
        folder.name.removeprefix(folders.PULLING): sum(part.stat().st_size for part in folder.glob("*.part"))
        for folder in sorted(models_dir.glob(f"{folders.PULLING}*"))
        if folder.is_dir()
    }


def _there(models_dir: Path, name: str) -> ModelManifest | None:
    """The manifest of an installed image-text model, if it can be read."""
    place = models_dir / name
    if not (place / MANIFEST).is_file():
        return None
    try:
        found = manifests.read(place)
    except Misconfigured:
        return None  # altered: what was built of it goes with it
    return found if found.image_text is not None else None


def _whole(models_dir: Path, manifest: ModelManifest) -> bool:
    """Whether the files that a pull brings are there and in order; what is built of them is `build`'s."""
    return manifest.only(Role.SOURCE) is not None and all(
        registry.state(models_dir, manifest, file) is FileState.OK for file in manifest.files if file.role in _ORIGINALS
    )


def _wanted(entry: CatalogueEntry, known: catalogue.KnownFile, revision: str, before: ModelManifest | None) -> HubFile:
    """What a file must be: as pinned on this machine, else as the release knows it, else anything of a bearable size."""
    sha256, size = known.sha256, known.size
    if before is not None:
        pinned = next((file for file in before.files if file.name == known.name), None)
        if pinned is not None:
            sha256, size = pinned.sha256, pinned.size
        elif known.role is Role.SOURCE and _source(before):
            sha256, size = _source(before), 0
    return HubFile(entry.repository, revision, known.name, sha256, size, entry.most(known))


def _source(manifest: ModelManifest) -> str:
    """The SHA-256 of a model's weights, also of dropped ones; "" where nobody noted it."""
    file = manifest.only(Role.SOURCE)
    noted = manifest.origin.source if isinstance(manifest.origin, HubOrigin) else ""
    return file.sha256 if file else noted


def _manifest(entry: CatalogueEntry, origin: HubOrigin, kept: tuple[ModelFile, ...], where: Mapping[str, Path]) -> ModelManifest:
    """The manifest of weights that were checked. Raises: Misconfigured where they are others."""
    (source,) = (file for file in kept if file.role is Role.SOURCE)
    found = weights.check(where[source.name], entry, source.name)
    for file in kept:
        if file.name == "tokenizer.json":
            _json(where[file.name], file.name)
    return ModelManifest(
        entry.name,
        entry.measures,
        entry.licence,
        f"{entry.image.size} x {entry.image.size} RGB",
        found.precision,
        replace(origin, source=source.sha256),
        kept,
        entry.image_text(found.scale),
    )


def _json(path: Path, called: str) -> None:
    try:
        said = json.loads(path.read_bytes())
        sound = isinstance(said, dict) and "model" in said  # the one part that no tokenizer.json can be without
    except (ValueError, RecursionError):
        sound = False
    if not sound:
        raise Misconfigured(f"{called} is not a tokenizer's file: it holds no JSON object with a model", hint="fetch it again")


def _put(
    models_dir: Path, made: ModelManifest, parts: Mapping[str, Path], before: ModelManifest | None, say: Say
) -> ModelManifest:
    """Put fetched or copied files in their place, all at once; what was built of the very same weights stays."""
    with (
        folders.locked(models_dir, lambda: say("another command is changing the models; waiting for it")),
        folders.staging(models_dir) as staging,
    ):
        place, built = models_dir / made.name, staging / made.name
        built.mkdir()
        for file in made.files:
            folders.keep(parts[file.name], built / file.name)
            folders.sync(built / file.name)
        if before is not None and _originals(before) == _originals(made):
            stay = [file for file in before.files if file.name not in parts and (place / file.name).is_file()]
            for file in stay:
                folders.keep(place / file.name, built / file.name)
            made = _joined(made, before, tuple(stay))
        folders.write(built / MANIFEST, manifests.as_toml(made).encode())
        folders.put(built, models_dir)
    return made


def _joined(made: ModelManifest, before: ModelManifest, stay: tuple[ModelFile, ...]) -> ModelManifest:
    """A manifest with the files that stay, and with what was measured of them."""
    assert made.image_text is not None  # noqa: S101 - facts of the callers
    assert before.image_text is not None  # noqa: S101
    measured = {one.precision: one for one in (*before.image_text.agreements, *made.image_text.agreements)}
    special = replace(made.image_text, agreements=tuple(measured.values()))
    return replace(made, files=(*made.files, *stay), image_text=special)


def _originals(manifest: ModelManifest) -> set[tuple[str, str]]:
    """What a model was made from: two of the same are the same model, whatever was built of each."""
    tokenizer = {(file.name, file.sha256) for file in manifest.files if file.role is Role.TOKENIZER}
    return {*tokenizer, ("weights", _source(manifest))}


def _begun(pulling: Path, entry: CatalogueEntry, hub: Hub) -> str:
    """The revision that a pull which broke off was fetching, so that the next goes on with the same one."""
    try:
        said = json.loads((pulling / _STATE).read_text(encoding="utf-8"))
        revision = str(said["revision"])
        same = (said["hub"], said["repository"]) == (hub.place, entry.repository)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return ""
    return revision if same and catalogue.REVISION.fullmatch(revision) else ""


def _remember(pulling: Path, entry: CatalogueEntry, hub: Hub, revision: str) -> None:
    said = {"hub": hub.place, "repository": entry.repository, "revision": revision}
    (pulling / _STATE).write_text(json.dumps(said), encoding="utf-8")


def _import_built(
    models_dir: Path,
    given: Path,
    name: str,
    entries: tuple[CatalogueEntry, ...],
    say: Say,
    allowed: Callable[[CatalogueEntry], None],
) -> Obtained:
    """Take in a folder that has a manifest, every file held to it."""
    manifest = _foreign(given)
    if name not in ("", manifest.name):
        raise Misconfigured(
            f"{given} holds the model {manifest.name}, not {name}", hint=f"leave --name away, or say {manifest.name}"
        )
    entry = catalogue.of(manifest, entries)
    if entry is None:
        say(f"{manifest.name} is not in the catalogue of this release: its architecture cannot be checked, only its hashes")
    else:
        allowed(entry)
    with folders.workspace(models_dir, manifest.name) as work, folders.writing(models_dir):
        paths = {file.name: _inside(given / file.name, given) for file in manifest.files}
        before = _replaceable(models_dir, manifest)
        if before is not None and _exchanged(before, manifest):
            say(f"towers or texts that are here are exchanged for those of {given}: calibrate again before they decide")
        _room(models_dir, sum(file.size for file in manifest.files))
        for file in manifest.files:
            say(f"copying {file.name} ({file.size:,} bytes)")
            if folders.copy(paths[file.name], work / file.name) != (file.sha256, file.size):
                raise Misconfigured(f"{given / file.name} is not what the manifest beside it says", hint="copy the folder again")
        parts = {file.name: work / file.name for file in manifest.files}
        source = manifest.only(Role.SOURCE)
        if entry is not None:
            special = manifest.image_text
            assert special is not None  # noqa: S101 - a fact of `_foreign`
            known = entry.image_text(special.scale)
            if source is not None:
                originals = tuple(file for file in manifest.files if file.role in _ORIGINALS)
                known = _manifest(entry, HubOrigin("", ""), originals, parts).image_text or known
            if replace(special, agreements=()) != known:
                raise Misconfigured(
                    f"{given} prepares pictures or scales scores otherwise than {entry.name} does",
                    hint="build it with this release, or keep an entry of your own for it in the catalogue",
                )
        return Obtained(_put(models_dir, _as_verified(manifest, entry), parts, before, say), fresh=True)


def _import_weights(
    models_dir: Path,
    given: Path,
    name: str,
    entries: tuple[CatalogueEntry, ...],
    say: Say,
    allowed: Callable[[CatalogueEntry], None],
) -> Obtained:
    """Take in weights and tokenizer as they are in a folder or a hub's cache, as a pull would have."""
    snapshot, blobs, repository = _cached(given)
    if not name and repository:
        name = next((entry.name for entry in entries if entry.repository == repository), "")
    if not name:
        inner = sorted(folder.name for folder in given.glob("models--*--*"))
        because = "which model it holds cannot be told" if not repository else f"no model of {repository} is known"
        hint = (
            f"name one of the folders in it, such as {inner[0]}"
            if inner
            else "say which with --name; `fediwarden models list --all` shows them"
        )
        raise Misconfigured(f"{given}: {because}", hint=hint)
    entry = catalogue.find(name, entries)
    allowed(entry)
    if repository and repository != entry.repository:
        raise Misconfigured(f"{given} is a cache of {repository}, and {name} comes from {entry.repository}")
    paths = {known.name: _inside(_found(snapshot, known), snapshot, *blobs) for known in entry.files}
    sizes = {file: path.stat().st_size for file, path in paths.items()}
    for known in entry.files:
        if sizes[known.name] > entry.most(known):
            raise Misconfigured(f"{paths[known.name]} is too large to be the {known.role} of {name}")
    with folders.workspace(models_dir, name) as work, folders.writing(models_dir):
        _room(models_dir, sum(sizes.values()))
        kept = []
        for known in entry.files:
            say(f"copying {known.name} ({sizes[known.name]:,} bytes)")
            sha256, size = folders.copy(paths[known.name], work / known.name)
            promised = known.sha256 or (paths[known.name].name if manifests.DIGEST.fullmatch(paths[known.name].name) else "")
            if promised not in ("", sha256):
                raise Misconfigured(
                    f"{paths[known.name]} is not the file it should be: its SHA-256 is another", hint="fetch it again"
                )
            kept.append(ModelFile(known.name, sha256, size, known.role))
        parts = {file.name: work / file.name for file in kept}
        revision = snapshot.name if repository and catalogue.REVISION.fullmatch(snapshot.name) else ""
        origin = HubOrigin(repository or os.fsencode(given).decode("utf-8", "replace"), revision)
        made = _as_verified(_manifest(entry, origin, tuple(kept), parts), entry)
        before = _replaceable(models_dir, made)
        if before is not None and _whole(models_dir, before):
            return Obtained(before, fresh=False)
        return Obtained(_put(models_dir, made, parts, before, say), fresh=True)


def _exchanged(before: ModelManifest, made: ModelManifest) -> bool:
    """Whether something that was built of the weights here gives way to something else."""
    theirs = {file.name: file.sha256 for file in made.files}
    built = [file for file in before.files if file.role not in _ORIGINALS]
    return any(theirs.get(file.name, file.sha256) != file.sha256 for file in built)


def _foreign(given: Path) -> ModelManifest:
    """The manifest of a folder that was made elsewhere; its name is its own, whatever the folder is called."""
    path = _inside(given / MANIFEST, given)
    try:
        table = tomllib.loads(path.read_bytes()[: 1 << 20].decode("utf-8"))
        manifest = manifests.parsed(table, table["name"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise Misconfigured(f"the manifest {path} cannot be used: {error}", hint="copy the folder again") from error
    if not PLAIN_NAME.fullmatch(manifest.name) or manifest.name in registry.bundled():
        raise Misconfigured(f"{given} holds a model called {manifest.name!r}, which no imported model can be")
    if not isinstance(manifest.origin, HubOrigin) or manifest.image_text is None:
        raise Misconfigured(
            f"{given} does not hold an image-text model", hint="`fediwarden models install` installs the bundled ones"
        )
    return manifest


def _cached(given: Path) -> tuple[Path, tuple[Path, ...], str]:
    """The folder with the files, where its links may lead, and the repository, where `given` is (in) a hub's cache."""
    for cache in (given, given.parent.parent):
        match = _CACHE.fullmatch(cache.name)
        if match is None or not (cache / "snapshots").is_dir():
            continue
        snapshots = sorted(folder for folder in (cache / "snapshots").iterdir() if folder.is_dir())
        main = cache / "refs" / "main"
        named = main.read_text(encoding="utf-8").strip() if main.is_file() else ""
        chosen = [one for one in snapshots if one == given] or [one for one in snapshots if one.name == named] or snapshots
        if len(chosen) != 1:
            raise Misconfigured(
                f"{cache} holds {len(chosen) or 'no'} revisions", hint=f"name one of the folders in {cache / 'snapshots'}"
            )
        return chosen[0], (cache / "blobs",), f"{match[1]}/{match[2]}"
    return given, (), ""


def _found(folder: Path, known: catalogue.KnownFile) -> Path:
    """Where a known file lies in a folder; weights may have a name of their own if they are the only ones."""
    path = folder / known.name
    if path.is_symlink() or path.exists():
        return path
    there = sorted(folder.glob("*.safetensors")) if known.role is Role.SOURCE else []
    if len(there) == 1:
        return there[0]
    pickles = sorted(one.name for one in folder.iterdir() if weights.is_pickle(one.name))
    if known.role is Role.SOURCE and pickles and not there:
        raise Misconfigured(
            f"{folder} holds {pickles[0]}, a pickle, which is a program; it was not opened",
            hint="take the same weights as .safetensors",
        )
    raise Misconfigured(f"{folder} holds no {known.name}", hint=f"copy {known.name} of the model's repository into it")


def _inside(path: Path, *roots: Path) -> Path:
    """A file that is what it seems, with its links followed inside these folders only. Raises: Misconfigured."""
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: a link to itself
        raise Misconfigured(f"{path} cannot be read", hint="the folder is not whole; copy it again") from error
    if not any(real.is_relative_to(root.resolve()) for root in roots):
        raise Misconfigured(f"{path} is a link to a place outside the folder; it was not followed", hint="copy the file itself")
    if not real.is_file():
        raise Misconfigured(f"{path} is not a file", hint="the folder is not whole; copy it again")
    return real


def _replaceable(models_dir: Path, made: ModelManifest) -> ModelManifest | None:
    """What is installed under the name, if it may be replaced: its weights must be the same. Raises: Misconfigured."""
    before = _there(models_dir, made.name)
    if before is not None and _originals(before) != _originals(made):
        raise Misconfigured(
            f"another {made.name} is installed, from {_from(before)}, with other bytes",
            hint=f"`fediwarden models remove {made.name}` first, if that is what you want",
        )
    return before


def _from(manifest: ModelManifest) -> str:
    origin = manifest.origin
    return f"{origin.repository} {origin.revision[:12]}".strip() if isinstance(origin, HubOrigin) else origin.package


def _as_verified(manifest: ModelManifest, entry: CatalogueEntry | None) -> ModelManifest:
    """Called verified only where this release knows all of it; what a foreign manifest says of that counts for nothing."""
    origin = manifest.origin
    assert isinstance(origin, HubOrigin)  # noqa: S101 - a fact of the callers
    known = {("weights" if file.role is Role.SOURCE else file.name, file.sha256) for file in entry.files} if entry else set()
    only = all(file.role in _ORIGINALS for file in manifest.files)  # towers and texts are whoever's who built them
    same = entry is not None and entry.verified and known == _originals(manifest) and only
    return replace(manifest, origin=replace(origin, verified=same and entry is not None and origin.revision == entry.revision))


def _room(models_dir: Path, needed: int) -> None:
    free = shutil.disk_usage(models_dir).free
    if needed + _SPARE > free:
        raise CannotWrite(
            f"{models_dir} has {free / 1e6:,.0f} MB free, and the model needs {(needed + _SPARE) / 1e6:,.0f} MB",
            hint="make room, or set FEDIWARDEN_HOME to a larger disk",
        )
